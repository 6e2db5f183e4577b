//! Binding of whole layers: one call a step instead of twenty a layer.

use falcon_kernels as core;
use falcon_kernels::{
    GatedNorm, KernelError, LayerBatch, LayerSettings, LayerSizes, LayerState, LayerWeights,
    LinearElement, Projection,
};
use pyo3::prelude::*;

use super::memory::{rows_mut, view, view_mut};
use super::sequences::sequences;
use super::{by_dtype, run};

fn layer_sizes(sizes: [usize; 10]) -> LayerSizes {
    let [
        width,
        hidden,
        heads,
        kv_heads,
        head_dim,
        ssm_heads,
        d_ssm,
        groups,
        d_state,
        conv_width,
    ] = sizes;
    LayerSizes {
        width,
        hidden,
        heads,
        kv_heads,
        head_dim,
        ssm_heads,
        d_ssm,
        groups,
        d_state,
        conv_width,
    }
}

/// Bytes of workspace that `falcon_layers` needs.
#[pyfunction]
fn layers_workspace_bytes(sizes: [usize; 10], num_tokens: usize, is_bf16: bool) -> usize {
    by_dtype!(is_bf16, T => layer_sizes(sizes).workspace_bytes::<T>(num_tokens))
}

/// # Safety
/// As [`view`]: tensors of the shapes that `sizes` says.
unsafe fn weights<'a, T>(
    sizes: &LayerSizes,
    weights: [usize; 17],
    scales: [usize; 9],
) -> LayerWeights<'a, T> {
    let [
        input_norm,
        q,
        k,
        v,
        o,
        ssm_in,
        ssm_out,
        conv,
        conv_bias,
        dt_bias,
        a_log,
        d,
        ssm_norm,
        pre_ff_norm,
        gate,
        up,
        down,
    ] = weights;
    let [
        q_scale,
        k_scale,
        v_scale,
        o_scale,
        in_scale,
        out_scale,
        gate_scale,
        up_scale,
        down_scale,
    ] = scales;
    let width = sizes.width;
    // SAFETY: passed on to the caller.
    unsafe {
        let projection = |address, scale, scale_len, n: usize, k: usize| Projection {
            weight: view(address, n.saturating_mul(k)),
            scale: view(scale, scale_len),
        };
        let conv_dim = sizes.conv_dim();
        let in_width = sizes.in_width();
        LayerWeights {
            input_norm: view(input_norm, width),
            q: projection(q, q_scale, 1, sizes.q_width(), width),
            k: projection(k, k_scale, 1, sizes.kv_width(), width),
            v: projection(v, v_scale, 1, sizes.kv_width(), width),
            o: projection(o, o_scale, 1, width, sizes.q_width()),
            ssm_in: projection(ssm_in, in_scale, in_width, in_width, width),
            ssm_out: projection(ssm_out, out_scale, 1, width, sizes.d_ssm),
            conv: view(conv, conv_dim.saturating_mul(sizes.conv_width)),
            conv_bias: (conv_bias != 0).then(|| view(conv_bias, conv_dim)),
            dt_bias: view(dt_bias, sizes.ssm_heads),
            a_log: view(a_log, sizes.ssm_heads),
            d: view(d, sizes.ssm_heads),
            ssm_norm: (ssm_norm != 0).then(|| view(ssm_norm, sizes.d_ssm)),
            pre_ff_norm: view(pre_ff_norm, width),
            gate: projection(gate, gate_scale, 1, sizes.hidden, width),
            up: projection(up, up_scale, 1, sizes.hidden, width),
            down: projection(down, down_scale, 1, width, sizes.hidden),
        }
    }
}

/// # Safety
/// As [`view`], for every address.
#[allow(clippy::too_many_arguments)]
unsafe fn run_layers<T: LinearElement>(
    x: usize,
    layers: &[([usize; 17], [usize; 9])],
    caches: &[[usize; 4]],
    sizes: &LayerSizes,
    settings: &LayerSettings,
    batch: &LayerBatch<'_>,
    cache_sizes: [usize; 2],
    workspace: &mut [u8],
) -> Result<(), KernelError> {
    let [num_blocks, num_slots] = cache_sizes;
    let block = batch.block_size.saturating_mul(sizes.kv_width());
    let conv = sizes
        .conv_dim()
        .saturating_mul(sizes.conv_width.saturating_sub(1));
    let ssm = sizes.d_ssm.saturating_mul(sizes.d_state);
    for (&(addresses, scales), &cache) in layers.iter().zip(caches) {
        let [k_cache, v_cache, conv_state, ssm_state] = cache;
        // SAFETY: passed on to the caller.
        unsafe {
            let weights = weights::<T>(sizes, addresses, scales);
            let state = LayerState {
                k_cache: view_mut(k_cache, num_blocks.saturating_mul(block)),
                v_cache: view_mut(v_cache, num_blocks.saturating_mul(block)),
                conv: view_mut(conv_state, num_slots.saturating_mul(conv)),
                ssm: view_mut(ssm_state, num_slots.saturating_mul(ssm)),
            };
            let tokens = batch.positions.len();
            let mut x = rows_mut::<T>("x", x, tokens, sizes.width, sizes.width)?;
            core::layer(&mut x, &weights, sizes, settings, batch, state, workspace)?;
        }
    }
    Ok(())
}

/// Run all layers over x [T, D] in place; each of `layers` is (weights, scales).
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn falcon_layers(
    py: Python<'_>,
    x: usize,
    layers: Vec<([usize; 17], [usize; 9])>,
    caches: Vec<[usize; 4]>,
    sizes: [usize; 10],
    settings: (f32, f32, (f32, f32), bool),
    batch: [usize; 8],
    batch_sizes: [usize; 4],
    cache_sizes: [usize; 2],
    workspace: (usize, usize),
    is_bf16: bool,
) -> PyResult<()> {
    let sizes = layer_sizes(sizes);
    let (eps, attention_scale, time_step_limit, norm_before_gate) = settings;
    let settings = LayerSettings {
        eps,
        attention_scale,
        time_step_limit,
        norm: GatedNorm {
            eps,
            num_groups: sizes.groups,
            norm_before_gate,
        },
    };
    let [
        positions,
        frequencies,
        slot_mapping,
        block_tables,
        seq_lens,
        cu_seqlens,
        state_slots,
        has_initial_state,
    ] = batch;
    let [num_tokens, num_seqs, max_blocks, block_size] = batch_sizes;
    run(py, || {
        // SAFETY: the caller has checked the tensors (see the head of `kernels.rs`).
        unsafe {
            let batch = LayerBatch {
                positions: view(positions, num_tokens),
                frequencies: view(frequencies, sizes.head_dim / 2),
                slot_mapping: view(slot_mapping, num_tokens),
                block_tables: view(block_tables, num_seqs.saturating_mul(max_blocks)),
                max_blocks,
                block_size,
                seq_lens: view(seq_lens, num_seqs),
                sequences: sequences(cu_seqlens, state_slots, has_initial_state, num_seqs),
            };
            let workspace = view_mut::<u8>(workspace.0, workspace.1);
            by_dtype!(is_bf16, T => run_layers::<T>(
                x, &layers, &caches, &sizes, &settings, &batch, cache_sizes, workspace,
            ))
        }
    })
}

/// -exp(`A_log`) in f32.
#[pyfunction]
fn decay_rate(
    py: Python<'_>,
    a_log: usize,
    out: usize,
    heads: usize,
    is_bf16: bool,
) -> PyResult<()> {
    run(py, || {
        // SAFETY: the caller has checked the tensors (see the head of `kernels.rs`).
        unsafe {
            by_dtype!(is_bf16, T => core::decay_rate(view::<T>(a_log, heads), view_mut(out, heads)))
        }
    })
}

/// Add the functions to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(layers_workspace_bytes, module)?)?;
    module.add_function(wrap_pyfunction!(falcon_layers, module)?)?;
    module.add_function(wrap_pyfunction!(decay_rate, module)?)
}
