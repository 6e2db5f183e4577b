//! Bindings of `falcon-kernels`.
//!
//! Tensors arrive as addresses (`tensor.data_ptr()`) with sizes and strides in elements: wrapping
//! each in an array object would cost more than a small kernel. `falcon_h1r.ops.cpu` is the only
//! caller; it has checked device, dtype, contiguity and every index before it calls.

use falcon_kernels as core;
use falcon_kernels::{Bf16, Element, KernelError, Rows, RowsMut};
use pyo3::prelude::*;

use crate::error::RequestError;

fn raise(error: &KernelError) -> PyErr {
    RequestError::new_err(error.to_string())
}

/// The `len` elements at `address`; empty for address 0 or length 0.
///
/// # Safety
/// The range must be readable and unchanged while the call lasts (the caller holds the tensor).
unsafe fn view<'a, T>(address: usize, len: usize) -> &'a [T] {
    if address == 0 || len == 0 {
        return &[];
    }
    // SAFETY: passed on to the caller.
    unsafe { std::slice::from_raw_parts(address as *const T, len) }
}

/// [`view`] to write to.
///
/// # Safety
/// As [`view`], and nothing else may use the range while the call lasts.
unsafe fn view_mut<'a, T>(address: usize, len: usize) -> &'a mut [T] {
    if address == 0 || len == 0 {
        return &mut [];
    }
    // SAFETY: passed on to the caller.
    unsafe { std::slice::from_raw_parts_mut(address as *mut T, len) }
}

/// Elements from the first to the last of a strided matrix.
fn span(rows: usize, width: usize, stride: usize) -> usize {
    rows.checked_sub(1).map_or(0, |last| last.saturating_mul(stride).saturating_add(width))
}

unsafe fn rows<'a, T>(
    name: &'static str,
    address: usize,
    rows: usize,
    width: usize,
    stride: usize,
) -> Result<Rows<'a, T>, KernelError> {
    // SAFETY: passed on to the caller.
    let data = unsafe { view(address, span(rows, width, stride)) };
    Rows::new(name, data, rows, width, stride)
}

unsafe fn rows_mut<'a, T>(
    name: &'static str,
    address: usize,
    rows: usize,
    width: usize,
    stride: usize,
) -> Result<RowsMut<'a, T>, KernelError> {
    // SAFETY: passed on to the caller.
    let data = unsafe { view_mut(address, span(rows, width, stride)) };
    RowsMut::new(name, data, rows, width, stride)
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

/// y[m, n] = x[m, k] weight[n, k]^T + bias[n]; bias 0 for none.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn linear(
    py: Python<'_>,
    x: usize,
    weight: usize,
    bias: usize,
    y: usize,
    m: usize,
    n: usize,
    k: usize,
    x_stride: usize,
    is_bf16: bool,
    y_is_bf16: bool,
) -> PyResult<()> {
    unsafe fn run<O: Element>(
        [x, weight, bias, y]: [usize; 4],
        [m, n, k, x_stride]: [usize; 4],
    ) -> Result<(), KernelError> {
        // SAFETY: the caller has checked the tensors (see the head of this file).
        unsafe {
            let x = rows("x", x, m, k, x_stride)?;
            let bias = (bias != 0).then(|| view(bias, n));
            let mut y = rows_mut::<O>("y", y, m, n, n)?;
            core::linear_bf16(&x, view::<Bf16>(weight, n.saturating_mul(k)), bias, &mut y)
        }
    }
    py.detach(|| {
        let (pointers, sizes) = ([x, weight, bias, y], [m, n, k, x_stride]);
        // SAFETY: the caller has checked the tensors (see the head of this file).
        unsafe {
            if is_bf16 && y_is_bf16 {
                return run::<Bf16>(pointers, sizes);
            }
            if is_bf16 {
                return run::<f32>(pointers, sizes);
            }
            let x = rows("x", x, m, k, x_stride)?;
            let bias = (bias != 0).then(|| view(bias, n));
            let mut y = rows_mut("y", y, m, n, n)?;
            core::linear_f32(&x, view(weight, n.saturating_mul(k)), bias, &mut y)
        }
    })
    .map_err(|error| raise(&error))
}

/// Add this crate's classes and functions to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(kernel_paths, module)?)?;
    module.add_function(wrap_pyfunction!(linear, module)?)?;
    Ok(())
}
