//! One row of logits, from the scan for its maximum to the token drawn.

use std::cell::RefCell;

use super::filter::{Limit, keep_most_probable};
use super::{Confidence, Drawn, SampleInputs};
use crate::noise;
use crate::simd::{Element, Kernel, Simd, exp};

/// Elements summed in f32 lanes before they are added in f64; a multiple of every vector's lanes.
const BLOCK: usize = 256;
/// Below this, exp is 0 and its product with the exponent must be 0, not NaN.
const LOWEST: f32 = -200.0;

/// One thread's memory for a row.
#[derive(Default)]
pub(super) struct Scratch {
    raw: Vec<f32>,
    source: Vec<f32>,
    weights: Vec<f32>,
    blocks: Vec<f64>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Scratch {
    pub(super) fn with<R>(vocab: usize, body: impl FnOnce(&mut Scratch) -> R) -> R {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.raw.resize(vocab, 0.0);
            scratch.source.resize(vocab, 0.0);
            scratch.weights.resize(vocab, 0.0);
            scratch.blocks.resize(vocab.div_ceil(BLOCK), 0.0);
            body(scratch)
        })
    }
}

pub(super) struct Row<'a, T> {
    pub(super) inputs: &'a SampleInputs<'a, T>,
    pub(super) r: usize,
    pub(super) scratch: &'a mut Scratch,
}

/// `out` = a row as f32; its largest element (NaN ignored).
#[inline(always)]
unsafe fn widen<S: Simd, T: Element>(from: *const T, out: &mut [f32]) -> f32 {
    // SAFETY: `from` has as many elements as `out`.
    unsafe {
        let mut max = S::splat(f32::NEG_INFINITY);
        let body = out.len() - out.len() % S::LANES;
        for at in (0..body).step_by(S::LANES) {
            let v = T::load::<S>(from.add(at));
            S::store(out.as_mut_ptr().add(at), v);
            max = S::max(v, max);
        }
        let mut max = S::max_lane(max);
        for at in body..out.len() {
            out[at] = (*from.add(at)).to_f32();
            max = max.max(out[at]);
        }
        max
    }
}

/// Sums over exp(u), u = (x - max) * factor: (sum of exp(u), sum of u exp(u)). NaN when x has one.
#[inline(always)]
unsafe fn sums<S: Simd>(
    x: &[f32],
    max: f32,
    factor: f32,
    mut weights: Option<&mut [f32]>,
) -> (f64, f64) {
    let (mut total, mut moment) = (0.0f64, 0.0f64);
    // SAFETY: inside x, and weights of the same length.
    unsafe {
        for begin in (0..x.len()).step_by(BLOCK) {
            let end = x.len().min(begin + BLOCK);
            let (mut sum, mut product) = (S::splat(0.0), S::splat(0.0));
            let mut at = begin;
            while at < end {
                let n = S::LANES.min(end - at);
                let v = S::sub(S::load_n(x.as_ptr().add(at), n), S::splat(max));
                // Operand order keeps NaN (see `Simd::max`).
                let u = S::max(S::splat(LOWEST), S::mul(v, S::splat(factor)));
                let mut e = exp::<S>(u);
                if n < S::LANES {
                    let mut lanes = [0.0f32; 16];
                    S::store_n(lanes.as_mut_ptr(), e, n);
                    e = S::load(lanes.as_ptr());
                }
                if let Some(weights) = weights.as_deref_mut() {
                    S::store_n(weights.as_mut_ptr().add(at), e, n);
                }
                sum = S::add(sum, e);
                product = S::fma(u, e, product);
                at += S::LANES;
            }
            total += f64::from(S::sum(sum));
            moment += f64::from(S::sum(product));
        }
    }
    (total, moment)
}

/// Sum of each block of weights, and of all.
#[inline(always)]
unsafe fn block_sums<S: Simd>(weights: &[f32], blocks: &mut [f64]) -> f64 {
    let mut total = 0.0;
    for (block, part) in blocks.iter_mut().zip(weights.chunks(BLOCK)) {
        // SAFETY: inside `part`.
        unsafe {
            let mut sum = S::splat(0.0);
            for at in (0..part.len()).step_by(S::LANES) {
                let n = S::LANES.min(part.len() - at);
                sum = S::add(sum, S::load_n(part.as_ptr().add(at), n));
            }
            *block = f64::from(S::sum(sum));
        }
        total += *block;
    }
    total
}

/// The `n` largest elements, highest first, ties by lower index.
#[inline(always)]
unsafe fn largest<S: Simd>(x: &[f32], n: usize) -> Vec<usize> {
    let mut top: Vec<usize> = Vec::with_capacity(n + 1);
    if n == 0 {
        return top;
    }
    let insert = |top: &mut Vec<usize>, i: usize| {
        if top.len() < n || x[i] > x[top[n - 1]] {
            let place = top.partition_point(|&j| x[j] >= x[i]);
            top.insert(place, i);
            top.truncate(n);
        }
    };
    let mut at = 0;
    while at < x.len() {
        let end = x.len().min(at + S::LANES);
        // SAFETY: a whole vector lies inside x.
        let skip = top.len() == n
            && end - at == S::LANES
            && unsafe { S::count_gt(S::load(x.as_ptr().add(at)), S::splat(x[top[n - 1]])) == 0 };
        if !skip {
            for i in at..end {
                insert(&mut top, i);
            }
        }
        at = end;
    }
    top
}

/// Number of elements above `value`.
#[inline(always)]
unsafe fn count_above<S: Simd>(x: &[f32], value: f32) -> i32 {
    let body = x.len() - x.len() % S::LANES;
    let mut count = 0;
    for at in (0..body).step_by(S::LANES) {
        // SAFETY: a whole vector lies inside x.
        count += unsafe { S::count_gt(S::load(x.as_ptr().add(at)), S::splat(value)) } as i32;
    }
    count + x[body..].iter().filter(|v| **v > value).count() as i32
}

/// First index, in order, at which the cumulative weight exceeds `target`; the last of positive
/// weight where rounding leaves none.
fn first_above(weights: &[f32], blocks: &[f64], target: f64) -> usize {
    let mut before = 0.0;
    for (b, part) in weights.chunks(BLOCK).enumerate() {
        if before + blocks[b] > target {
            let mut sum = before;
            for (i, &weight) in part.iter().enumerate() {
                sum += f64::from(weight);
                if weight > 0.0 && sum > target {
                    return b * BLOCK + i;
                }
            }
            // The block's sum was rounded up: its last token is the one.
            if let Some(i) = part.iter().rposition(|weight| *weight > 0.0) {
                return b * BLOCK + i;
            }
        }
        before += blocks[b];
    }
    weights
        .iter()
        .rposition(|weight| *weight > 0.0)
        .unwrap_or(0)
}

impl<T: Element> Kernel for Row<'_, T> {
    type Out = Drawn;
    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> Drawn {
        let Self { inputs, r, scratch } = self;
        let Scratch {
            raw,
            source,
            weights,
            blocks,
        } = scratch;
        // SAFETY: row r exists in all inputs; scratch has the length of a row.
        unsafe {
            let max = widen::<S, T>(inputs.logits.ptr(r), raw);
            let (total, moment) = sums::<S>(raw, max, 1.0, None);
            let source_max = match inputs.adjusted {
                Some(adjusted) => widen::<S, f32>(adjusted.ptr(r), source),
                None => max,
            };
            let source: &[f32] = if inputs.adjusted.is_some() {
                source
            } else {
                raw
            };
            // A NaN anywhere reaches the total; an infinite maximum makes one.
            let is_error = !total.is_finite() || !max.is_finite() || !source_max.is_finite();
            if is_error {
                return failed(raw.len(), inputs.num_top);
            }
            let log_total = total.ln();
            let raw_logprob = |i: usize| (f64::from(raw[i] - max) - log_total) as f32;

            let temperature = inputs.temperature[r];
            let (token, drawn_total);
            if temperature > 0.0 {
                let factor = (1.0 / temperature).min(f64::from(f32::MAX)) as f32;
                sums::<S>(source, source_max, factor, Some(&mut *weights));
                filter(inputs, r, weights, source);
                drawn_total = block_sums::<S>(weights, blocks);
                if !(drawn_total > 0.0 && drawn_total.is_finite()) {
                    return failed(raw.len(), inputs.num_top);
                }
                let u = noise::uniform(inputs.keys[r], inputs.positions[r] as u64);
                token = first_above(weights, blocks, u * drawn_total);
            } else {
                token = source.iter().position(|v| *v >= source_max).unwrap_or(0);
                drawn_total = 1.0;
            }
            let logprob = |i: usize| {
                if temperature > 0.0 {
                    if weights[i] > 0.0 {
                        let u = f64::from(source[i] - source_max) / temperature;
                        (u - drawn_total.ln()) as f32
                    } else {
                        f32::NEG_INFINITY
                    }
                } else if i == token {
                    0.0
                } else {
                    f32::NEG_INFINITY
                }
            };

            let measured = match inputs.confidence {
                Confidence::TopLogprobs(k) => k.min(raw.len()),
                _ => 0,
            };
            let top = largest::<S>(raw, measured.max(inputs.num_top));
            let confidence = match inputs.confidence {
                Confidence::TopLogprobs(_) => {
                    let sum: f64 = top[..measured]
                        .iter()
                        .map(|&i| f64::from(raw[i] - max))
                        .sum();
                    log_total - sum / measured as f64
                }
                Confidence::Logprob => f64::from(raw[token] - max) - log_total,
                Confidence::Entropy => moment / total - log_total,
            };
            Drawn {
                token,
                logprob: logprob(token),
                raw_logprob: raw_logprob(token),
                confidence: confidence as f32,
                rank: count_above::<S>(raw, raw[token]) + 1,
                is_error: false,
                top: top[..inputs.num_top]
                    .iter()
                    .map(|&i| (i, logprob(i), raw_logprob(i)))
                    .collect(),
            }
        }
    }
}

/// Zero the weights that `min_p`, `top_k` and `top_p` drop, in this order.
fn filter<T>(inputs: &SampleInputs<'_, T>, r: usize, weights: &mut [f32], source: &[f32]) {
    let (min_p, top_k, top_p) = (inputs.min_p[r], inputs.top_k[r], inputs.top_p[r]);
    if min_p > 0.0 {
        // The largest weight is 1.
        for weight in weights
            .iter_mut()
            .filter(|weight| f64::from(**weight) < min_p)
        {
            *weight = 0.0;
        }
    }
    if top_k > 0 && (top_k as usize) < weights.len() {
        keep_most_probable(weights, source, Limit::Count(top_k as usize));
    }
    if top_p < 1.0 {
        keep_most_probable(weights, source, Limit::Share(top_p));
    }
}

/// What a row without a distribution gives: token 0 as if all were equal, no confidence.
fn failed(vocab: usize, num_top: usize) -> Drawn {
    let equal = -(vocab as f64).ln() as f32;
    Drawn {
        token: 0,
        logprob: 0.0,
        raw_logprob: equal,
        confidence: f32::NAN,
        rank: 1,
        is_error: true,
        top: (0..num_top).map(|i| (i, 0.0, equal)).collect(),
    }
}
