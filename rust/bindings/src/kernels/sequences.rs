//! Bindings of the kernels that walk sequences: scan, convolution, attention.

use falcon_kernels as core;
use falcon_kernels::{ConvInputs, PagedCache, ScanInputs, Sequences};
use pyo3::prelude::*;

use super::memory::{rows, rows_mut, view, view_mut};
use super::{by_dtype, run};

/// Packed sequences and their slots.
///
/// # Safety
/// As [`view`]: int32 [`num_seqs` + 1], int64 [`num_seqs`], bool [`num_seqs`].
pub(super) unsafe fn sequences<'a>(
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
    run(py, || {
        let width = heads.saturating_mul(head_dim);
        let len = num_slots.saturating_mul(width).saturating_mul(d_state);
        // SAFETY: the caller has checked the tensors (see the head of `kernels.rs`).
        unsafe {
            let sequences = sequences(cu_seqlens, state_slots, has_initial_state, num_seqs);
            let state = view_mut(state, len);
            by_dtype!(is_bf16, T => {
                let group_width = groups.saturating_mul(d_state);
                let inputs = ScanInputs::<T> {
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
            })
        }
    })
}

/// Causal convolution and `SiLU` with states in slots; `bias` 0 for none.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn causal_conv1d_slots(
    py: Python<'_>,
    x: usize,
    weight: usize,
    bias: usize,
    cu_seqlens: usize,
    state: usize,
    state_slots: usize,
    has_initial_state: usize,
    y: usize,
    num_tokens: usize,
    num_seqs: usize,
    num_slots: usize,
    channels: usize,
    width: usize,
    x_stride: usize,
    is_bf16: bool,
) -> PyResult<()> {
    run(py, || {
        let per_slot = channels.saturating_mul(width.saturating_sub(1));
        // SAFETY: the caller has checked the tensors (see the head of `kernels.rs`).
        unsafe {
            let sequences = sequences(cu_seqlens, state_slots, has_initial_state, num_seqs);
            by_dtype!(is_bf16, T => {
                let inputs = ConvInputs::<T> {
                    x: rows("x", x, num_tokens, channels, x_stride)?,
                    weight: view(weight, channels.saturating_mul(width)),
                    bias: (bias != 0).then(|| view(bias, channels)),
                    width,
                };
                let state = view_mut(state, num_slots.saturating_mul(per_slot));
                let mut y = rows_mut("y", y, num_tokens, channels, channels)?;
                core::causal_conv1d_slots(inputs, sequences, state, &mut y)
            })
        }
    })
}

/// Attention over KV blocks.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn paged_attention(
    py: Python<'_>,
    q: usize,
    k_cache: usize,
    v_cache: usize,
    block_tables: usize,
    cu_seqlens: usize,
    seq_lens: usize,
    y: usize,
    scale: f32,
    num_tokens: usize,
    num_seqs: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    num_blocks: usize,
    block_size: usize,
    max_blocks: usize,
    q_stride: usize,
    is_bf16: bool,
) -> PyResult<()> {
    run(py, || {
        let width = heads.saturating_mul(head_dim);
        let block = block_size.saturating_mul(kv_heads).saturating_mul(head_dim);
        let len = num_blocks.saturating_mul(block);
        // SAFETY: the caller has checked the tensors (see the head of `kernels.rs`).
        unsafe {
            by_dtype!(is_bf16, T => {
                let cache = PagedCache::<T> {
                    k: view(k_cache, len),
                    v: view(v_cache, len),
                    block_size,
                    kv_heads,
                    head_dim,
                    block_tables: view(block_tables, num_seqs.saturating_mul(max_blocks)),
                    max_blocks,
                };
                let q = rows("q", q, num_tokens, width, q_stride)?;
                let mut y = rows_mut("y", y, num_tokens, width, width)?;
                let cu_seqlens = view(cu_seqlens, num_seqs + 1);
                core::paged_attention(q, cache, cu_seqlens, view(seq_lens, num_seqs), scale, &mut y)
            })
        }
    })
}

/// Add the functions to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(ssd_scan_slots, module)?)?;
    module.add_function(wrap_pyfunction!(causal_conv1d_slots, module)?)?;
    module.add_function(wrap_pyfunction!(paged_attention, module)?)
}
