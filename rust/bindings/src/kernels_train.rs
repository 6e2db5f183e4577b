//! Bindings of the training kernels of `falcon-kernels`.
//!
//! Tensors arrive as addresses (`tensor.data_ptr()`, 0 for none) in the order of the core's
//! fields, row strides in elements. `falcon_h1r.ops.cpu_train` is the only caller; it has checked
//! dtypes, shapes, strides and `cu_seqlens` before it calls, and holds the tensors meanwhile; for
//! products `falcon_h1r.ops.cpu_products` does.

use falcon_kernels::train::{
    self as core, Attention, AttentionGrads, Conv, ConvGrads, CrossEntropy, Matmul, Norm,
    NormGrads, Operand, Rope, Scan, ScanGrads, Swiglu,
};
use pyo3::prelude::*;

/// Release the GIL and run `work` on up to `threads` threads.
fn run(py: Python<'_>, threads: usize, work: impl FnOnce() + Send) {
    py.detach(|| {
        if falcon_kernels::num_threads() != threads {
            falcon_kernels::set_num_threads(threads);
        }
        work();
    });
}

fn scan(sizes: [usize; 4], cu: &[usize], rows: [usize; 4], inputs: [usize; 7]) -> Scan<'_> {
    let [x, dt, a, b, c, d, initial_state] = inputs.map(|address| address as *const f32);
    let [x_row, dt_row, b_row, c_row] = rows;
    Scan {
        sizes,
        cu_seqlens: cu,
        x,
        x_row,
        dt,
        dt_row,
        a,
        b,
        b_row,
        c,
        c_row,
        d,
        initial_state,
    }
}

#[pyfunction]
fn train_ssd_forward(
    py: Python<'_>,
    threads: usize,
    sizes: [usize; 4],
    cu_seqlens: Vec<usize>,
    rows: [usize; 4],
    inputs: [usize; 7],
    outputs: [usize; 2],
) {
    run(py, threads, || {
        let scan = scan(sizes, &cu_seqlens, rows, inputs);
        let [y, final_state] = outputs.map(|address| address as *mut f32);
        // SAFETY: `cpu_train` checked the tensors (see the file's head).
        unsafe { core::ssd_forward(scan, y, final_state) };
    });
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // two of them are given gradients
fn train_ssd_backward(
    py: Python<'_>,
    threads: usize,
    sizes: [usize; 4],
    cu_seqlens: Vec<usize>,
    rows: [usize; 4],
    inputs: [usize; 7],
    given: [usize; 2],
    outputs: [usize; 7],
) {
    run(py, threads, || {
        let scan = scan(sizes, &cu_seqlens, rows, inputs);
        let [dy, dfinal] = given.map(|address| address as *const f32);
        let [dx, ddt, db, dc, dinitial, da, dd] = outputs.map(|address| address as *mut f32);
        let grads = ScanGrads {
            dy,
            dfinal,
            dx,
            ddt,
            db,
            dc,
            dinitial,
            da,
            dd,
        };
        // SAFETY: as above.
        unsafe { core::ssd_backward(scan, grads) };
    });
}

fn attention(
    sizes: [usize; 3],
    [cu_seqlens, cu_keys]: [&[usize]; 2],
    rows: [usize; 3],
    inputs: [usize; 3],
    scale: f32,
) -> Attention<'_> {
    let [q, k, v] = inputs.map(|address| address as *const f32);
    let [q_row, k_row, v_row] = rows;
    Attention {
        sizes,
        cu_seqlens,
        cu_keys,
        q,
        q_row,
        k,
        k_row,
        v,
        v_row,
        scale,
    }
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // the scale is a number, not a tensor
fn train_attention_forward(
    py: Python<'_>,
    threads: usize,
    sizes: [usize; 3],
    bounds: [Vec<usize>; 2],
    rows: [usize; 3],
    inputs: [usize; 3],
    scale: f32,
    outputs: [usize; 2],
) {
    run(py, threads, || {
        let [out, lse] = outputs.map(|address| address as *mut f32);
        let bounds = [&bounds[0][..], &bounds[1][..]];
        // SAFETY: as above.
        unsafe {
            core::attention_forward(attention(sizes, bounds, rows, inputs, scale), out, lse);
        }
    });
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // as above
fn train_attention_backward(
    py: Python<'_>,
    threads: usize,
    sizes: [usize; 3],
    bounds: [Vec<usize>; 2],
    rows: [usize; 3],
    inputs: [usize; 3],
    scale: f32,
    given: [usize; 3],
    outputs: [usize; 3],
) {
    run(py, threads, || {
        let [out, lse, dout] = given.map(|address| address as *const f32);
        let [dq, dk, dv] = outputs.map(|address| address as *mut f32);
        let grads = AttentionGrads {
            out,
            lse,
            dout,
            dq,
            dk,
            dv,
        };
        let bounds = [&bounds[0][..], &bounds[1][..]];
        // SAFETY: as above.
        unsafe {
            core::attention_backward(attention(sizes, bounds, rows, inputs, scale), grads);
        }
    });
}

fn conv(sizes: [usize; 2], cu: &[usize], x_row: usize, inputs: [usize; 4]) -> Conv<'_> {
    let [x, weight, bias, past] = inputs.map(|address| address as *const f32);
    Conv {
        sizes,
        cu_seqlens: cu,
        x,
        x_row,
        weight,
        bias,
        past,
    }
}

#[pyfunction]
fn train_conv_forward(
    py: Python<'_>,
    threads: usize,
    sizes: [usize; 2],
    cu_seqlens: Vec<usize>,
    x_row: usize,
    inputs: [usize; 4],
    y: usize,
) {
    run(py, threads, || {
        // SAFETY: as above.
        unsafe { core::conv_forward(conv(sizes, &cu_seqlens, x_row, inputs), y as *mut f32) };
    });
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // as above
fn train_conv_backward(
    py: Python<'_>,
    threads: usize,
    sizes: [usize; 2],
    cu_seqlens: Vec<usize>,
    x_row: usize,
    inputs: [usize; 4],
    dy: usize,
    outputs: [usize; 4],
) {
    run(py, threads, || {
        let [dx, dweight, dbias, dpast] = outputs.map(|address| address as *mut f32);
        let grads = ConvGrads {
            dy: dy as *const f32,
            dx,
            dweight,
            dbias,
            dpast,
        };
        // SAFETY: as above.
        unsafe { core::conv_backward(conv(sizes, &cu_seqlens, x_row, inputs), grads) };
    });
}

fn norm(sizes: [usize; 3], rows: [usize; 2], inputs: [usize; 3], eps: f32) -> Norm {
    let [x, z, weight] = inputs.map(|address| address as *const f32);
    let [x_row, z_row] = rows;
    Norm {
        sizes,
        x,
        x_row,
        z,
        z_row,
        weight,
        eps,
    }
}

#[pyfunction]
fn train_norm_forward(
    py: Python<'_>,
    threads: usize,
    sizes: [usize; 3],
    rows: [usize; 2],
    inputs: [usize; 3],
    eps: f32,
    outputs: [usize; 2],
) {
    run(py, threads, || {
        let [y, scales] = outputs.map(|address| address as *mut f32);
        // SAFETY: as above.
        unsafe { core::norm_forward(norm(sizes, rows, inputs, eps), y, scales) };
    });
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // as above
fn train_norm_backward(
    py: Python<'_>,
    threads: usize,
    sizes: [usize; 3],
    rows: [usize; 2],
    inputs: [usize; 3],
    eps: f32,
    given: [usize; 2],
    outputs: [usize; 3],
) {
    run(py, threads, || {
        let [scales, dy] = given.map(|address| address as *const f32);
        let [dx, dz, dweight] = outputs.map(|address| address as *mut f32);
        let grads = NormGrads {
            scales,
            dy,
            dx,
            dz,
            dweight,
        };
        // SAFETY: as above.
        unsafe { core::norm_backward(norm(sizes, rows, inputs, eps), grads) };
    });
}

fn swiglu(sizes: [usize; 2], rows: [usize; 2], inputs: [usize; 2]) -> Swiglu {
    let [gate, up] = inputs.map(|address| address as *const f32);
    let [gate_row, up_row] = rows;
    Swiglu {
        sizes,
        gate,
        gate_row,
        up,
        up_row,
    }
}

#[pyfunction]
fn train_swiglu_forward(
    py: Python<'_>,
    threads: usize,
    sizes: [usize; 2],
    rows: [usize; 2],
    inputs: [usize; 2],
    y: usize,
) {
    run(py, threads, || {
        // SAFETY: as above.
        unsafe { core::swiglu_forward(swiglu(sizes, rows, inputs), y as *mut f32) };
    });
}

#[pyfunction]
fn train_swiglu_backward(
    py: Python<'_>,
    threads: usize,
    sizes: [usize; 2],
    rows: [usize; 2],
    inputs: [usize; 2],
    dy: usize,
    outputs: [usize; 2],
) {
    run(py, threads, || {
        let [dgate, dup] = outputs.map(|address| address as *mut f32);
        // SAFETY: as above.
        unsafe {
            core::swiglu_backward(swiglu(sizes, rows, inputs), dy as *const f32, dgate, dup);
        }
    });
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // as above
fn train_rope(
    py: Python<'_>,
    threads: usize,
    sizes: [usize; 3],
    x_row: usize,
    inputs: [usize; 3],
    reverse: bool,
    y: usize,
) {
    run(py, threads, || {
        let [x, cos, sin] = inputs.map(|address| address as *const f32);
        // SAFETY: as above.
        unsafe {
            core::rope(
                Rope {
                    sizes,
                    x,
                    x_row,
                    cos,
                    sin,
                    reverse,
                },
                y as *mut f32,
            );
        };
    });
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // as above
fn train_cross_entropy_forward(
    py: Python<'_>,
    threads: usize,
    sizes: [usize; 2],
    logits: usize,
    targets: usize,
    scale: f32,
    outputs: [usize; 2],
) {
    run(py, threads, || {
        let (logits, targets) = (logits as *mut f32, targets as *const i64);
        let [losses, lse] = outputs.map(|address| address as *mut f32);
        let rows = CrossEntropy {
            sizes,
            logits,
            targets,
            scale,
        };
        // SAFETY: as above; the targets were checked too.
        unsafe { core::cross_entropy_forward(rows, losses, lse) };
    });
}

#[pyfunction]
#[allow(clippy::too_many_arguments)] // as above
fn train_cross_entropy_backward(
    py: Python<'_>,
    threads: usize,
    sizes: [usize; 2],
    logits: usize,
    targets: usize,
    scale: f32,
    given: [usize; 2],
) {
    run(py, threads, || {
        let (logits, targets) = (logits as *mut f32, targets as *const i64);
        let [lse, dlosses] = given.map(|address| address as *const f32);
        let rows = CrossEntropy {
            sizes,
            logits,
            targets,
            scale,
        };
        // SAFETY: as above; the targets were checked too.
        unsafe { core::cross_entropy_backward(rows, lse, dlosses) };
    });
}

/// c [m, n] (+)= a [m, k] b [k, n] with operands in bfloat16. a and b: address and strides.
#[pyfunction]
#[allow(clippy::too_many_arguments)] // as above
fn train_matmul(
    py: Python<'_>,
    threads: usize,
    sizes: [usize; 3],
    a: [usize; 3],
    b: [usize; 3],
    c: usize,
    c_row: usize,
    add: bool,
) {
    run(py, threads, || {
        let operand = |address: usize, outer: usize, inner: usize| Operand {
            ptr: address as *const f32,
            outer,
            inner,
        };
        let product = Matmul {
            sizes,
            a: operand(a[0], a[1], a[2]),
            b: operand(b[0], b[2], b[1]),
            c: c as *mut f32,
            c_row,
            add,
        };
        // SAFETY: `cpu_products` checked the tensors (see the file's head).
        unsafe { core::matmul(product) };
    });
}

/// Add the training kernels to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("TRAIN_ROW_BLOCK", core::BLOCK)?;
    module.add_function(wrap_pyfunction!(train_ssd_forward, module)?)?;
    module.add_function(wrap_pyfunction!(train_ssd_backward, module)?)?;
    module.add_function(wrap_pyfunction!(train_attention_forward, module)?)?;
    module.add_function(wrap_pyfunction!(train_attention_backward, module)?)?;
    module.add_function(wrap_pyfunction!(train_conv_forward, module)?)?;
    module.add_function(wrap_pyfunction!(train_conv_backward, module)?)?;
    module.add_function(wrap_pyfunction!(train_norm_forward, module)?)?;
    module.add_function(wrap_pyfunction!(train_norm_backward, module)?)?;
    module.add_function(wrap_pyfunction!(train_swiglu_forward, module)?)?;
    module.add_function(wrap_pyfunction!(train_swiglu_backward, module)?)?;
    module.add_function(wrap_pyfunction!(train_rope, module)?)?;
    module.add_function(wrap_pyfunction!(train_matmul, module)?)?;
    module.add_function(wrap_pyfunction!(train_cross_entropy_forward, module)?)?;
    module.add_function(wrap_pyfunction!(train_cross_entropy_backward, module)?)
}
