//! Draw one token a row of logits, and measure the confidence of the raw distribution.
//!
//! Legend: R rows, V vocabulary, K reported top log-probabilities. Rows are independent.
//! Filters in this order: temperature, `min_p`, `top_k`, `top_p` (the smallest set of most probable
//! tokens whose mass reaches it; ties by lower id). The token is the first in id order whose
//! cumulative probability exceeds the uniform of (key, position).

mod filter;
mod row;

use crate::error::{KernelError, check_size, check_value};
use crate::pool::{self, SharedMut};
use crate::rows::Rows;
use crate::simd::{Element, Level, dispatch};
use row::{Row, Scratch};

/// Token confidence, from the raw logits; higher is more confident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confidence {
    /// Minus the mean of the k highest log-probabilities (arXiv 2508.15260, eq. 2).
    TopLogprobs(usize),
    /// Log-probability of the sampled token.
    Logprob,
    /// Negative entropy.
    Entropy,
}

/// The inputs of [`sample_with_confidence`], one entry a row.
#[derive(Clone, Copy, Debug)]
pub struct SampleInputs<'a, T> {
    /// [R, V], as the model gave them.
    pub logits: Rows<'a, T>,
    /// [R, V], sampled from instead of `logits` when given (penalties).
    pub adjusted: Option<Rows<'a, f32>>,
    /// 0 is greedy.
    pub temperature: &'a [f64],
    /// 0 is off.
    pub top_k: &'a [i64],
    /// In (0, 1].
    pub top_p: &'a [f64],
    /// In [0, 1], 0 is off.
    pub min_p: &'a [f64],
    /// Noise key of the trace.
    pub keys: &'a [u64],
    /// Absolute position of the token to be drawn.
    pub positions: &'a [i64],
    /// The measure.
    pub confidence: Confidence,
    /// K.
    pub num_top: usize,
}

/// Where [`sample_with_confidence`] writes, R entries each (R * K for `top_*`).
#[derive(Debug)]
pub struct SampleOutputs<'a> {
    /// 0 where `is_error`.
    pub token_ids: &'a mut [i64],
    /// Under the distribution sampled from.
    pub logprobs: &'a mut [f32],
    /// Under the softmax of the raw logits.
    pub raw_logprobs: &'a mut [f32],
    /// NaN where `is_error`.
    pub confidences: &'a mut [f32],
    /// 1 for the most probable token of the raw logits.
    pub ranks: &'a mut [i32],
    /// 1: the row held NaN or +inf, or no finite value.
    pub is_error: &'a mut [u8],
    /// Ids of the K highest raw logits, highest first, ties by lower id.
    pub top_ids: &'a mut [i64],
    /// Their log-probabilities under the distribution sampled from.
    pub top_logprobs: &'a mut [f32],
    /// Their log-probabilities under the softmax of the raw logits.
    pub top_raw_logprobs: &'a mut [f32],
}

/// One row's share of the outputs.
struct Drawn {
    token: usize,
    logprob: f32,
    raw_logprob: f32,
    confidence: f32,
    rank: i32,
    is_error: bool,
    /// (id, log-probability, raw log-probability).
    top: Vec<(usize, f32, f32)>,
}

fn check<T: Element>(
    inputs: &SampleInputs<'_, T>,
    outputs: &SampleOutputs<'_>,
) -> Result<(), KernelError> {
    let (rows, vocab) = (inputs.logits.len(), inputs.logits.width());
    check_value(
        "V",
        vocab as i64,
        vocab > 0 && i32::try_from(vocab).is_ok(),
        "1 to 2^31 - 1",
    )?;
    check_value(
        "num_logprobs",
        inputs.num_top as i64,
        inputs.num_top <= vocab,
        "at most V",
    )?;
    if let Some(adjusted) = inputs.adjusted {
        let fits = (adjusted.len(), adjusted.width()) == (rows, vocab);
        check_value(
            "adjusted_logits",
            adjusted.width() as i64,
            fits,
            "the shape of logits",
        )?;
    }
    if let Confidence::TopLogprobs(k) = inputs.confidence {
        check_value("confidence_top", k as i64, k > 0, "at least 1")?;
    }
    for (name, len) in [
        ("temperature", inputs.temperature.len()),
        ("top_k", inputs.top_k.len()),
        ("top_p", inputs.top_p.len()),
        ("min_p", inputs.min_p.len()),
        ("keys", inputs.keys.len()),
        ("positions", inputs.positions.len()),
        ("token_ids", outputs.token_ids.len()),
        ("logprobs", outputs.logprobs.len()),
        ("raw_logprobs", outputs.raw_logprobs.len()),
        ("confidences", outputs.confidences.len()),
        ("ranks", outputs.ranks.len()),
        ("is_error", outputs.is_error.len()),
    ] {
        check_size(name, len, rows)?;
    }
    for (name, len) in [
        ("top_ids", outputs.top_ids.len()),
        ("top_logprobs", outputs.top_logprobs.len()),
        ("top_raw_logprobs", outputs.top_raw_logprobs.len()),
    ] {
        check_size(name, len, rows * inputs.num_top)?;
    }
    Ok(())
}

/// Draw and measure every row.
///
/// # Errors
/// [`KernelError`] when lengths do not fit; nothing is written then.
pub fn sample_with_confidence<T: Element>(
    inputs: &SampleInputs<'_, T>,
    outputs: &mut SampleOutputs<'_>,
) -> Result<(), KernelError> {
    check(inputs, outputs)?;
    run(Level::detect(), inputs, outputs);
    Ok(())
}

fn run<T: Element>(level: Level, inputs: &SampleInputs<'_, T>, outputs: &mut SampleOutputs<'_>) {
    let num_top = inputs.num_top;
    let token_ids = SharedMut(outputs.token_ids.as_mut_ptr());
    let logprobs = SharedMut(outputs.logprobs.as_mut_ptr());
    let raw_logprobs = SharedMut(outputs.raw_logprobs.as_mut_ptr());
    let confidences = SharedMut(outputs.confidences.as_mut_ptr());
    let ranks = SharedMut(outputs.ranks.as_mut_ptr());
    let is_error = SharedMut(outputs.is_error.as_mut_ptr());
    let top_ids = SharedMut(outputs.top_ids.as_mut_ptr());
    let top_logprobs = SharedMut(outputs.top_logprobs.as_mut_ptr());
    let top_raw_logprobs = SharedMut(outputs.top_raw_logprobs.as_mut_ptr());
    pool::parallel_for(inputs.logits.len(), |r| {
        // SAFETY: lengths were checked; row r of every output belongs to this task.
        unsafe {
            let drawn = Scratch::with(inputs.logits.width(), |scratch| {
                dispatch(level, Row { inputs, r, scratch })
            });
            token_ids.at(r).write(drawn.token as i64);
            logprobs.at(r).write(drawn.logprob);
            raw_logprobs.at(r).write(drawn.raw_logprob);
            confidences.at(r).write(drawn.confidence);
            ranks.at(r).write(drawn.rank);
            is_error.at(r).write(u8::from(drawn.is_error));
            for (i, (id, logprob, raw)) in drawn.top.iter().enumerate() {
                top_ids.at(r * num_top + i).write(*id as i64);
                top_logprobs.at(r * num_top + i).write(*logprob);
                top_raw_logprobs.at(r * num_top + i).write(*raw);
            }
        }
    });
}

#[cfg(test)]
mod tests;
