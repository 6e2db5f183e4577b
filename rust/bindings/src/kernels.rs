//! Bindings of `falcon-kernels`.
//!
//! Tensors arrive as addresses (`tensor.data_ptr()`) with sizes and strides in elements: wrapping
//! each in an array object would cost more than a small kernel. `falcon_h1r.ops.cpu` and
//! `cpu_layers` are the only callers; they have checked device, dtype and contiguity before.

mod layers;
mod memory;
mod rowwise;
mod sample;
mod sequences;

use falcon_kernels as core;
use falcon_kernels::{Epilogue, KernelError};
use pyo3::prelude::*;

use crate::error::RequestError;
use memory::{rows, rows_mut, view};

/// Run a kernel without the GIL; its error becomes `RequestError`.
fn run(py: Python<'_>, kernel: impl FnOnce() -> Result<(), KernelError> + Send) -> PyResult<()> {
    py.detach(kernel)
        .map_err(|error| RequestError::new_err(error.to_string()))
}

/// Run `$body` with `$T` as the element type.
macro_rules! by_dtype {
    ($is_bf16:expr, $T:ident => $body:expr) => {
        if $is_bf16 {
            type $T = falcon_kernels::Bf16;
            $body
        } else {
            type $T = f32;
            $body
        }
    };
}
use by_dtype;

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
    run(py, || {
        // SAFETY: the caller has checked the tensors (see the head of this file).
        unsafe {
            let scale = [scale];
            let scale = if scales == 0 {
                &scale[..]
            } else {
                view(scales, n)
            };
            by_dtype!(is_bf16, T => {
                let x = rows::<T>("x", x, m, k, x_stride)?;
                let mut y = rows_mut::<T>("y", y, m, n, n)?;
                let bias = (bias != 0).then(|| view(bias, n));
                let weight = view(weight, n.saturating_mul(k));
                core::linear(&x, weight, Epilogue { scale, bias }, &mut y)
            })
        }
    })
}

/// Add this crate's classes and functions to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(kernel_paths, module)?)?;
    module.add_function(wrap_pyfunction!(linear, module)?)?;
    rowwise::register(module)?;
    sequences::register(module)?;
    layers::register(module)?;
    sample::register(module)
}
