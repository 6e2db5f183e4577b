//! Bindings of the kernels that map rows to rows, and of copies into and inside caches.

use falcon_kernels as core;
use falcon_kernels::GatedNorm;
use pyo3::prelude::*;

use super::memory::{rows, rows_mut, view, view_mut};
use super::{by_dtype, run};

/// y = x / rms(x) * weight.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn rms_norm(
    py: Python<'_>,
    x: usize,
    weight: usize,
    y: usize,
    eps: f32,
    num_rows: usize,
    width: usize,
    x_stride: usize,
    is_bf16: bool,
) -> PyResult<()> {
    run(py, || {
        // SAFETY: the caller has checked the tensors (see the head of `kernels.rs`).
        unsafe {
            by_dtype!(is_bf16, T => {
                let x = rows::<T>("x", x, num_rows, width, x_stride)?;
                let mut y = rows_mut("y", y, num_rows, width, width)?;
                core::rms_norm(&x, view(weight, width), eps, &mut y)
            })
        }
    })
}

/// The mixer's norm, gated by silu(z).
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn gated_rms_norm(
    py: Python<'_>,
    x: usize,
    z: usize,
    weight: usize,
    y: usize,
    eps: f32,
    num_groups: usize,
    norm_before_gate: bool,
    num_rows: usize,
    width: usize,
    x_stride: usize,
    z_stride: usize,
    is_bf16: bool,
) -> PyResult<()> {
    let norm = GatedNorm {
        eps,
        num_groups,
        norm_before_gate,
    };
    run(py, || {
        // SAFETY: the caller has checked the tensors (see the head of `kernels.rs`).
        unsafe {
            by_dtype!(is_bf16, T => {
                let x = rows::<T>("x", x, num_rows, width, x_stride)?;
                let z = rows::<T>("z", z, num_rows, width, z_stride)?;
                let mut y = rows_mut("y", y, num_rows, width, width)?;
                core::gated_rms_norm(&x, &z, view(weight, width), norm, &mut y)
            })
        }
    })
}

/// y = silu(gate) * up.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn swiglu(
    py: Python<'_>,
    gate: usize,
    up: usize,
    y: usize,
    num_rows: usize,
    width: usize,
    gate_stride: usize,
    up_stride: usize,
    is_bf16: bool,
) -> PyResult<()> {
    run(py, || {
        // SAFETY: the caller has checked the tensors (see the head of `kernels.rs`).
        unsafe {
            by_dtype!(is_bf16, T => {
                let gate = rows::<T>("gate", gate, num_rows, width, gate_stride)?;
                let up = rows::<T>("up", up, num_rows, width, up_stride)?;
                core::swiglu(&gate, &up, &mut rows_mut("y", y, num_rows, width, width)?)
            })
        }
    })
}

/// y (f32) = clamp(softplus(dt + bias), low, high); bias is f32.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn softplus_dt(
    py: Python<'_>,
    dt: usize,
    bias: usize,
    y: usize,
    low: f32,
    high: f32,
    num_rows: usize,
    heads: usize,
    dt_stride: usize,
    is_bf16: bool,
) -> PyResult<()> {
    run(py, || {
        // SAFETY: the caller has checked the tensors (see the head of `kernels.rs`).
        unsafe {
            let mut y = rows_mut("y", y, num_rows, heads, heads)?;
            by_dtype!(is_bf16, T => {
                let dt = rows::<T>("dt", dt, num_rows, heads, dt_stride)?;
                core::softplus_dt(&dt, view(bias, heads), (low, high), &mut y)
            })
        }
    })
}

/// Rotate the heads of x by position; frequencies [`head_dim` / 2] in f32.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn rope(
    py: Python<'_>,
    x: usize,
    positions: usize,
    frequencies: usize,
    y: usize,
    num_rows: usize,
    width: usize,
    head_dim: usize,
    x_stride: usize,
    is_bf16: bool,
) -> PyResult<()> {
    run(py, || {
        // SAFETY: the caller has checked the tensors (see the head of `kernels.rs`).
        unsafe {
            let (positions, frequencies) =
                (view(positions, num_rows), view(frequencies, head_dim / 2));
            by_dtype!(is_bf16, T => {
                let x = rows::<T>("x", x, num_rows, width, x_stride)?;
                let mut y = rows_mut("y", y, num_rows, width, width)?;
                core::rope(&x, positions, frequencies, &mut y)
            })
        }
    })
}

/// Row t of x becomes row `slot_mapping[t]` of the cache.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn write_rows(
    py: Python<'_>,
    x: usize,
    slot_mapping: usize,
    cache: usize,
    num_rows: usize,
    width: usize,
    x_stride: usize,
    num_slots: usize,
    is_bf16: bool,
) -> PyResult<()> {
    run(py, || {
        // SAFETY: the caller has checked the tensors (see the head of `kernels.rs`).
        unsafe {
            by_dtype!(is_bf16, T => {
                let x = rows::<T>("x", x, num_rows, width, x_stride)?;
                let cache = view_mut(cache, num_slots.saturating_mul(width));
                core::write_rows(&x, view(slot_mapping, num_rows), cache)
            })
        }
    })
}

/// Copy rows of bytes inside `data`: int64 pairs (source, destination).
#[pyfunction]
fn copy_rows(
    py: Python<'_>,
    data: usize,
    pairs: usize,
    num_rows: usize,
    row_bytes: usize,
    num_pairs: usize,
) -> PyResult<()> {
    run(py, || {
        // SAFETY: the caller has checked the tensors (see the head of `kernels.rs`).
        unsafe {
            let data = view_mut::<u8>(data, num_rows.saturating_mul(row_bytes));
            core::copy_rows(data, row_bytes, view(pairs, num_pairs.saturating_mul(2)))
        }
    })
}

/// Add the functions to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(rms_norm, module)?)?;
    module.add_function(wrap_pyfunction!(gated_rms_norm, module)?)?;
    module.add_function(wrap_pyfunction!(swiglu, module)?)?;
    module.add_function(wrap_pyfunction!(softplus_dt, module)?)?;
    module.add_function(wrap_pyfunction!(rope, module)?)?;
    module.add_function(wrap_pyfunction!(write_rows, module)?)?;
    module.add_function(wrap_pyfunction!(copy_rows, module)?)
}
