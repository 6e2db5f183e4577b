use proptest::prelude::*;

use super::{GatedNorm, gated_rms_norm, rms_norm, softplus_dt, swiglu};
use crate::rows::{Rows, RowsMut};
use crate::simd::Element;
use crate::testing::Random;

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

fn mean_square(x: &[f64]) -> f64 {
    x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64
}

fn close(given: &[f32], exact: &[f64], bound: f64) {
    for (given, exact) in given.iter().zip(exact) {
        let error = (f64::from(*given) - exact).abs();
        assert!(
            error <= bound * (exact.abs() + 1e-2),
            "{given} is not {exact}"
        );
    }
}

/// Run with a strided input; return the output as f32.
fn run<T: Element>(rows: usize, width: usize, body: impl FnOnce(&mut RowsMut<'_, T>)) -> Vec<f32> {
    let mut y = vec![T::from_f32(f32::NAN); rows * width];
    body(&mut RowsMut::new("y", &mut y, rows, width, width).unwrap());
    y.iter().map(|v| v.to_f32()).collect()
}

fn all<T: Element>(rows: usize, width: usize, groups: usize, seed: u64, bound: f64) {
    let mut random = Random::new(seed);
    let mut draw = |n: usize| -> Vec<T> {
        random
            .normal(n)
            .into_iter()
            .map(|v| T::from_f32(3.0 * v))
            .collect()
    };
    let (data, z_data, weight) = (draw(rows * (width + 3)), draw(rows * width), draw(width));
    let x = Rows::new("x", &data, rows, width, width + 3).unwrap();
    let z = Rows::contiguous("z", &z_data, rows, width).unwrap();
    let wide = |row: &[T]| {
        row.iter()
            .map(|v| f64::from(v.to_f32()))
            .collect::<Vec<_>>()
    };
    let w = wide(&weight);

    let mut exact = Vec::new();
    for i in 0..rows {
        let x = wide(x.row(i));
        let factor = 1.0 / (mean_square(&x) + 1e-5).sqrt();
        exact.extend(x.iter().zip(&w).map(|(x, w)| x * factor * w));
    }
    close(
        &run::<T>(rows, width, |y| rms_norm(&x, &weight, 1e-5, y).unwrap()),
        &exact,
        bound,
    );

    let mut exact = Vec::new();
    for i in 0..rows {
        exact.extend(
            wide(x.row(i))
                .iter()
                .zip(wide(z.row(i)))
                .map(|(x, z)| silu(*x) * z),
        );
    }
    close(
        &run::<T>(rows, width, |y| swiglu(&x, &z, y).unwrap()),
        &exact,
        bound,
    );

    for norm_before_gate in [false, true] {
        let mut exact = Vec::new();
        for i in 0..rows {
            let gate: Vec<f64> = wide(z.row(i)).into_iter().map(silu).collect();
            let mut h = wide(x.row(i));
            if !norm_before_gate {
                h.iter_mut().zip(&gate).for_each(|(h, g)| *h *= g);
            }
            for (j, value) in h.iter().enumerate() {
                let size = width / groups;
                let group = &h[j / size * size..(j / size + 1) * size];
                let normed = value / (mean_square(group) + 1e-5).sqrt() * w[j];
                exact.push(if norm_before_gate {
                    normed * gate[j]
                } else {
                    normed
                });
            }
        }
        let norm = GatedNorm {
            eps: 1e-5,
            num_groups: groups,
            norm_before_gate,
        };
        let y = run::<T>(rows, width, |y| {
            gated_rms_norm(&x, &z, &weight, norm, y).unwrap();
        });
        close(&y, &exact, bound);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn norms_and_gates_equal_their_formulas(
        rows in 1usize..6, group in 1usize..70, groups in 1usize..4, seed: u64,
    ) {
        all::<f32>(rows, group * groups, groups, seed, 3e-6);
        all::<crate::Bf16>(rows, group * groups, groups, seed, 6e-3);
    }

    #[test]
    fn softplus_is_close_everywhere(bias in -30f32..30.0, low in 0f32..0.01, seed: u64) {
        let dt: Vec<f32> = Random::new(seed).normal(37).into_iter().map(|v| 20.0 * v).collect();
        let rows = Rows::contiguous("dt", &dt, 1, 37).unwrap();
        let exact: Vec<f64> = dt.iter()
            .map(|v| f64::from(v + bias).exp().ln_1p().clamp(f64::from(low), 30.0))
            .collect();
        let y = run::<f32>(1, 37, |y| {
            softplus_dt(&rows, &[bias; 37], (low, 30.0), y).unwrap();
        });
        for (given, exact) in y.iter().zip(&exact) {
            prop_assert!((f64::from(*given) - exact).abs() <= 1e-6 * exact + 1e-37);
        }
    }
}
