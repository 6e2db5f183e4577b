use proptest::prelude::*;

use super::{Confidence, SampleInputs, SampleOutputs, check, run};
use crate::noise;
use crate::rows::Rows;
use crate::simd::Level;
use crate::testing::Random;

#[derive(Clone, Copy, Debug)]
struct Settings {
    temperature: f64,
    top_k: i64,
    top_p: f64,
    min_p: f64,
    confidence: Confidence,
}

#[derive(Clone, Debug, PartialEq)]
struct Out {
    tokens: Vec<i64>,
    logprobs: Vec<f32>,
    raw: Vec<f32>,
    confidences: Vec<f32>,
    ranks: Vec<i32>,
    is_error: Vec<u8>,
    top_ids: Vec<i64>,
    top_logprobs: Vec<f32>,
    top_raw: Vec<f32>,
}

/// Sample rows of `vocab` logits with keys 0, 1, ... at position 5.
fn sample(level: Level, logits: &[f32], vocab: usize, settings: Settings, num_top: usize) -> Out {
    let rows = logits.len() / vocab;
    let keys: Vec<u64> = (0..rows as u64).collect();
    let inputs = SampleInputs {
        logits: Rows::contiguous("logits", logits, rows, vocab).unwrap(),
        adjusted: None,
        temperature: &vec![settings.temperature; rows],
        top_k: &vec![settings.top_k; rows],
        top_p: &vec![settings.top_p; rows],
        min_p: &vec![settings.min_p; rows],
        keys: &keys,
        positions: &vec![5; rows],
        confidence: settings.confidence,
        num_top,
    };
    let mut out = Out {
        tokens: vec![-1; rows],
        logprobs: vec![0.0; rows],
        raw: vec![0.0; rows],
        confidences: vec![0.0; rows],
        ranks: vec![0; rows],
        is_error: vec![9; rows],
        top_ids: vec![-1; rows * num_top],
        top_logprobs: vec![0.0; rows * num_top],
        top_raw: vec![0.0; rows * num_top],
    };
    let mut outputs = SampleOutputs {
        token_ids: &mut out.tokens,
        logprobs: &mut out.logprobs,
        raw_logprobs: &mut out.raw,
        confidences: &mut out.confidences,
        ranks: &mut out.ranks,
        is_error: &mut out.is_error,
        top_ids: &mut out.top_ids,
        top_logprobs: &mut out.top_logprobs,
        top_raw_logprobs: &mut out.top_raw,
    };
    check(&inputs, &outputs).unwrap();
    run(level, &inputs, &mut outputs);
    out
}

fn softmax(x: &[f64]) -> Vec<f64> {
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = x.iter().map(|v| (v - max).exp()).sum();
    x.iter().map(|v| (v - max).exp() / sum).collect()
}

/// The oracle: the filtered distribution of one row, by full sorts in f64.
fn distribution(logits: &[f32], settings: Settings) -> Vec<f64> {
    let x: Vec<f64> = logits
        .iter()
        .map(|v| f64::from(*v) / settings.temperature)
        .collect();
    let mut p = softmax(&x);
    let max = p.iter().copied().fold(0.0, f64::max);
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| x[b].total_cmp(&x[a]).then(a.cmp(&b)));
    let mut keep: Vec<bool> = p.iter().map(|p| *p >= settings.min_p * max).collect();
    if settings.top_k > 0 {
        for &i in order.iter().skip(settings.top_k as usize) {
            keep[i] = false;
        }
    }
    if settings.top_p < 1.0 {
        let total: f64 = (0..p.len()).filter(|&i| keep[i]).map(|i| p[i]).sum();
        let mut before = 0.0;
        for &i in &order {
            let mass = if keep[i] { p[i] / total } else { 0.0 };
            keep[i] &= before < settings.top_p;
            before += mass;
        }
    }
    let total: f64 = (0..p.len()).filter(|&i| keep[i]).map(|i| p[i]).sum();
    for (p, keep) in p.iter_mut().zip(keep) {
        *p = if keep { *p / total } else { 0.0 };
    }
    p
}

fn holds(logits: &[f32], vocab: usize, settings: Settings) {
    let num_top = vocab.min(4);
    for level in Level::available() {
        let out = sample(level, logits, vocab, settings, num_top);
        for (r, row) in logits.chunks(vocab).enumerate() {
            let wide: Vec<f64> = row.iter().map(|v| f64::from(*v)).collect();
            let raw: Vec<f64> = softmax(&wide).into_iter().map(f64::ln).collect();
            let token = out.tokens[r] as usize;
            let mut order: Vec<usize> = (0..vocab).collect();
            order.sort_by(|&a, &b| row[b].total_cmp(&row[a]).then(a.cmp(&b)));
            if settings.temperature == 0.0 {
                assert_eq!(token, order[0]);
                assert_eq!(out.logprobs[r].to_bits(), 0);
            } else {
                let p = distribution(row, settings);
                let u = noise::uniform(r as u64, 5);
                let before: f64 = p[..token].iter().sum();
                // The uniform falls into the token's share, but for rounding.
                assert!(p[token] > 0.0 && before <= u + 1e-6 && u <= before + p[token] + 1e-6);
                assert!((f64::from(out.logprobs[r]) - p[token].ln()).abs() < 1e-5);
                for (i, &id) in order.iter().take(num_top).enumerate() {
                    let given = f64::from(out.top_logprobs[r * num_top + i]);
                    let exact = p[id].ln();
                    assert!(
                        given == exact || (given - exact).abs() < 1e-5,
                        "{given} {exact}"
                    );
                }
            }
            for (i, &id) in order.iter().take(num_top).enumerate() {
                assert_eq!(out.top_ids[r * num_top + i], id as i64);
                let error = f64::from(out.top_raw[r * num_top + i]) - raw[id];
                assert!(error.abs() < 1e-5 || raw[id] == f64::NEG_INFINITY);
            }
            assert!((f64::from(out.raw[r]) - raw[token]).abs() < 1e-5);
            let ahead = row.iter().filter(|v| **v > row[token]).count() as i32;
            assert_eq!(out.ranks[r], ahead + 1);
            let exact = match settings.confidence {
                Confidence::TopLogprobs(k) => {
                    let k = k.min(vocab);
                    -order[..k].iter().map(|&i| raw[i]).sum::<f64>() / k as f64
                }
                Confidence::Logprob => raw[token],
                Confidence::Entropy => raw
                    .iter()
                    .filter(|v| v.is_finite())
                    .map(|v| v.exp() * v)
                    .sum(),
            };
            let given = f64::from(out.confidences[r]);
            assert!(given == exact || (given - exact).abs() < 1e-5 * (1.0 + exact.abs()));
            assert_eq!(out.is_error[r], 0);
            let alone = sample(level, row, vocab, settings, num_top);
            if r == 0 {
                assert_eq!(alone.tokens[0], out.tokens[0]);
                assert_eq!(alone.confidences[0].to_bits(), out.confidences[0].to_bits());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_the_sorted_distribution(
        rows in 1usize..4, vocab in 1usize..900, spread in 0.01f32..12.0, masked: bool,
        temperature in prop::sample::select(vec![0.0, 0.3, 1.0, 2.5]),
        top_k in prop::sample::select(vec![0i64, 1, 7, 5000]),
        top_p in prop::sample::select(vec![1e-9, 0.3, 0.95, 1.0]),
        min_p in prop::sample::select(vec![0.0, 0.05, 1.0]),
        measure in 0usize..3, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let mut logits: Vec<f32> =
            random.normal(rows * vocab).into_iter().map(|v| v * spread).collect();
        if masked && vocab > 30 {
            for i in (0..logits.len()).filter(|i| i % vocab % 2 == 1) {
                logits[i] = f32::NEG_INFINITY;
            }
        }
        let confidence =
            [Confidence::TopLogprobs(9), Confidence::Logprob, Confidence::Entropy][measure];
        holds(&logits, vocab, Settings { temperature, top_k, top_p, min_p, confidence });
    }
}

#[test]
fn equal_logits_are_kept_by_lower_id() {
    let settings = Settings {
        temperature: 1.0,
        top_k: 3,
        top_p: 1.0,
        min_p: 0.0,
        confidence: Confidence::Entropy,
    };
    let logits = vec![0.5; 64 * 40];
    for level in Level::available() {
        let out = sample(level, &logits, 40, settings, 4);
        assert!(out.tokens.iter().all(|token| *token < 3));
        assert_eq!(out.top_ids[..4], [0, 1, 2, 3]);
        assert!(out.top_logprobs[3] == f32::NEG_INFINITY);
    }
}

#[test]
fn rows_without_a_distribution_fail_alone() {
    let settings = Settings {
        temperature: 1.0,
        top_k: 0,
        top_p: 0.9,
        min_p: 0.0,
        confidence: Confidence::TopLogprobs(2),
    };
    let good = Random::new(3).normal(20);
    let mut logits = good.clone();
    for bad in [f32::NAN, f32::INFINITY] {
        let mut row = good.clone();
        row[17] = bad;
        logits.extend(row);
    }
    logits.extend([f32::NEG_INFINITY; 20]);
    for level in Level::available() {
        let out = sample(level, &logits, 20, settings, 1);
        let alone = sample(level, &good, 20, settings, 1);
        assert_eq!(out.is_error, [0, 1, 1, 1]);
        assert_eq!(out.tokens[0], alone.tokens[0]);
        assert_eq!(out.tokens[1..], [0, 0, 0]);
        assert!(out.confidences[1..].iter().all(|c| c.is_nan()));
    }
}
