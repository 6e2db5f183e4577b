//! Bindings of `falcon-kernels`.
//!
//! Tensors arrive as addresses (`tensor.data_ptr()`) with sizes and strides in elements: wrapping
//! each in an array object would cost more than a small kernel. `falcon_h1r.ops.cpu` is the only
//! caller; it has checked device, dtype, contiguity and every index before it calls.

mod memory;

use falcon_kernels as core;
use falcon_kernels::{Bf16, Epilogue, KernelError, ScanInputs, Sequences};
use pyo3::prelude::*;

use crate::error::RequestError;
use memory::{rows, rows_mut, view, view_mut};

fn raise(error: &KernelError) -> PyErr {
    RequestError::new_err(error.to_string())
}

/// Threads that kernels use from now on, the calling one included.
#[pyfunction]
fn set_num_threads(num_threads: usize) {
    core::set_num_threads(num_threads);
}

/// Threads that kernels use.
#[pyfunction]
fn num_threads() -> usize {
    core::num_threads()
}

/// The vector level and the path of bf16 products on this CPU.
#[pyfunction]
fn kernel_paths() -> (&'static str, &'static str) {
    let level = match core::Level::detect() {
        core::Level::Portable => "portable",
        core::Level::Avx2 => "avx2",
        core::Level::Avx512 => "avx512",
    };
    (level, core::bf16_path())
}

/// y[m, n] = (x[m, k] weight[n, k]^T) * scale + bias[n].
///
/// `scales`: 0, or the address of n factors that stand in for `scale`. `bias`: 0 for none.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn linear(
    py: Python<'_>,
    x: usize,
    weight: usize,
    scale: f32,
    scales: usize,
    bias: usize,
    y: usize,
    m: usize,
    n: usize,
    k: usize,
    x_stride: usize,
    is_bf16: bool,
) -> PyResult<()> {
    py.detach(|| {
        let num_weights = n.saturating_mul(k);
        // SAFETY: the caller has checked the tensors (see the head of this file).
        unsafe {
            let scale = [scale];
            let scale = if scales == 0 {
                &scale[..]
            } else {
                view(scales, n)
            };
            if is_bf16 {
                let bias = (bias != 0).then(|| view::<Bf16>(bias, n));
                let mut y = rows_mut::<Bf16>("y", y, m, n, n)?;
                let x = rows("x", x, m, k, x_stride)?;
                core::linear_bf16(
                    &x,
                    view(weight, num_weights),
                    Epilogue { scale, bias },
                    &mut y,
                )
            } else {
                let bias = (bias != 0).then(|| view(bias, n));
                let mut y = rows_mut("y", y, m, n, n)?;
                let x = rows("x", x, m, k, x_stride)?;
                core::linear_f32(
                    &x,
                    view(weight, num_weights),
                    Epilogue { scale, bias },
                    &mut y,
                )
            }
        }
    })
    .map_err(|error| raise(&error))
}

/// Packed sequences and their slots.
///
/// # Safety
/// As [`view`]: int32 [`num_seqs` + 1], int64 [`num_seqs`], bool [`num_seqs`].
unsafe fn sequences<'a>(
    cu_seqlens: usize,
    state_slots: usize,
    has_initial_state: usize,
    num_seqs: usize,
) -> Sequences<'a> {
    // SAFETY: passed on to the caller; a bool is a byte.
    unsafe {
        Sequences {
            cu_seqlens: view(cu_seqlens, num_seqs + 1),
            state_slots: view(state_slots, num_seqs),
            has_initial_state: view(has_initial_state, num_seqs),
        }
    }
}

/// Mamba-2's recurrence with states in slots; strides are those of token rows.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn ssd_scan_slots(
    py: Python<'_>,
    x: usize,
    dt: usize,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    cu_seqlens: usize,
    state: usize,
    state_slots: usize,
    has_initial_state: usize,
    y: usize,
    num_tokens: usize,
    num_seqs: usize,
    num_slots: usize,
    heads: usize,
    head_dim: usize,
    groups: usize,
    d_state: usize,
    x_stride: usize,
    dt_stride: usize,
    b_stride: usize,
    c_stride: usize,
    is_bf16: bool,
) -> PyResult<()> {
    let run = || {
        let width = heads.saturating_mul(head_dim);
        let len = num_slots.saturating_mul(width).saturating_mul(d_state);
        // SAFETY: the caller has checked the tensors (see the head of this file).
        unsafe {
            let sequences = sequences(cu_seqlens, state_slots, has_initial_state, num_seqs);
            let state = view_mut(state, len);
            macro_rules! scan {
                ($T:ty) => {{
                    let group_width = groups.saturating_mul(d_state);
                    let inputs = ScanInputs::<$T> {
                        x: rows("x", x, num_tokens, width, x_stride)?,
                        dt: rows("dt", dt, num_tokens, heads, dt_stride)?,
                        a: view(a, heads),
                        b: rows("B", b, num_tokens, group_width, b_stride)?,
                        c: rows("C", c, num_tokens, group_width, c_stride)?,
                        d: view(d, heads),
                        d_state,
                    };
                    let mut y = rows_mut("y", y, num_tokens, width, width)?;
                    core::ssd_scan_slots(inputs, sequences, state, &mut y)
                }};
            }
            if is_bf16 { scan!(Bf16) } else { scan!(f32) }
        }
    };
    py.detach(run).map_err(|error: KernelError| raise(&error))
}

/// Add this crate's classes and functions to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(kernel_paths, module)?)?;
    module.add_function(wrap_pyfunction!(linear, module)?)?;
    module.add_function(wrap_pyfunction!(ssd_scan_slots, module)?)?;
    Ok(())
}
