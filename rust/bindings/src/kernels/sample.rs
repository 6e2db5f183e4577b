//! Binding of sampling.

use falcon_kernels as core;
use falcon_kernels::{Confidence, SampleInputs, SampleOutputs};
use pyo3::prelude::*;

use super::memory::{rows, view, view_mut};
use super::{by_dtype, run};

/// Draw a token a row; `adjusted` 0 for none; `measure` 0 `top_logprobs`, 1 logprob, 2 entropy.
#[pyfunction]
#[allow(clippy::too_many_arguments)]
fn sample_with_confidence(
    py: Python<'_>,
    logits: usize,
    adjusted: usize,
    temperature: usize,
    top_k: usize,
    top_p: usize,
    min_p: usize,
    keys: usize,
    positions: usize,
    outputs: [usize; 9],
    num_rows: usize,
    vocab: usize,
    logits_stride: usize,
    measure: u8,
    confidence_top: usize,
    num_top: usize,
    is_bf16: bool,
) -> PyResult<()> {
    let [
        token_ids,
        logprobs,
        raw_logprobs,
        confidences,
        ranks,
        is_error,
        top_ids,
        top_logprobs,
        top_raw,
    ] = outputs;
    let confidence = match measure {
        0 => Confidence::TopLogprobs(confidence_top),
        1 => Confidence::Logprob,
        _ => Confidence::Entropy,
    };
    run(py, || {
        let num_all_top = num_rows.saturating_mul(num_top);
        // SAFETY: the caller has checked the tensors (see the head of `kernels.rs`).
        unsafe {
            let mut outputs = SampleOutputs {
                token_ids: view_mut(token_ids, num_rows),
                logprobs: view_mut(logprobs, num_rows),
                raw_logprobs: view_mut(raw_logprobs, num_rows),
                confidences: view_mut(confidences, num_rows),
                ranks: view_mut(ranks, num_rows),
                is_error: view_mut(is_error, num_rows),
                top_ids: view_mut(top_ids, num_all_top),
                top_logprobs: view_mut(top_logprobs, num_all_top),
                top_raw_logprobs: view_mut(top_raw, num_all_top),
            };
            let adjusted = if adjusted == 0 {
                None
            } else {
                Some(rows("adjusted_logits", adjusted, num_rows, vocab, vocab)?)
            };
            by_dtype!(is_bf16, T => {
                let inputs = SampleInputs::<T> {
                    logits: rows("logits", logits, num_rows, vocab, logits_stride)?,
                    adjusted,
                    temperature: view(temperature, num_rows),
                    top_k: view(top_k, num_rows),
                    top_p: view(top_p, num_rows),
                    min_p: view(min_p, num_rows),
                    keys: view(keys, num_rows),
                    positions: view(positions, num_rows),
                    confidence,
                    num_top,
                };
                core::sample_with_confidence(&inputs, &mut outputs)
            })
        }
    })
}

/// Add the function to the module.
pub(super) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(sample_with_confidence, module)?)
}
