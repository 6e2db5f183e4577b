use proptest::prelude::*;

use super::{Epilogue, LinearElement, Path, Product, bf16_on, check, lanes, linear, linear_many};
use crate::bf16::Bf16;
use crate::pool;
use crate::rows::{Rows, RowsMut};
use crate::simd::{Element, Level};
use crate::testing::Random;

/// The oracle: one dot product an output, in f64.
fn oracle<T: Element>(x: &Rows<'_, T>, w: &[T], end: Epilogue<'_, T>, n: usize) -> Vec<f64> {
    let k = x.width();
    let mut y = Vec::new();
    for i in 0..x.len() {
        for j in 0..n {
            let dot: f64 = (x.row(i).iter().zip(&w[j * k..(j + 1) * k]))
                .map(|(a, b)| f64::from(a.to_f32()) * f64::from(b.to_f32()))
                .sum();
            let scale = f64::from(end.scale[j % end.scale.len()]);
            y.push(dot * scale + end.bias.map_or(0.0, |bias| f64::from(bias[j].to_f32())));
        }
    }
    y
}

fn bf16_paths() -> Vec<Path> {
    let mut paths: Vec<Path> = Level::available().into_iter().map(Path::Lanes).collect();
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512bf16") {
        paths.push(Path::Pairs);
        if super::amx::available() {
            paths.push(Path::Tiles);
        }
    }
    paths
}

fn close(given: &[f32], exact: &[f64], k: usize) {
    for (given, exact) in given.iter().zip(exact) {
        let bound = 4e-6 * (k as f64).sqrt() * (1.0 + exact.abs());
        assert!(
            (f64::from(*given) - exact).abs() <= bound,
            "{given} is not {exact}"
        );
    }
}

/// Every row alone gives the bits it has in the batch.
fn row_alone<T: Element>(
    x: &Rows<'_, T>,
    n: usize,
    all: &[f32],
    run: impl Fn(&Rows<'_, T>, &mut RowsMut<'_, f32>),
) {
    for i in 0..x.len() {
        let one = Rows::contiguous("x", x.row(i), 1, x.width()).unwrap();
        let mut y = vec![f32::NAN; n];
        run(&one, &mut RowsMut::new("y", &mut y, 1, n, n).unwrap());
        let bits = |y: &[f32]| y.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&y), bits(&all[i * n..(i + 1) * n]), "row {i}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn f32_equals_the_oracle_and_each_row_alone(
        m in 1usize..40, n in 1usize..80, k in 1usize..150, extra in 0usize..5,
        with_bias: bool, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let data = random.normal(m * (k + extra));
        let w = random.normal(n * k);
        let bias = random.normal(n);
        let scale = random.normal(if with_bias { n } else { 1 });
        let end = Epilogue { scale: &scale, bias: with_bias.then_some(&bias[..]) };
        let x = Rows::new("x", &data, m, k, k + extra).unwrap();
        let exact = oracle(&x, &w, end, n);
        for level in Level::available() {
            let run = |x: &Rows<'_, f32>, y: &mut RowsMut<'_, f32>| {
                lanes(level, &[check(x, &w, end, y).unwrap()]);
            };
            let mut y = vec![f32::NAN; m * n];
            run(&x, &mut RowsMut::new("y", &mut y, m, n, n).unwrap());
            close(&y, &exact, k);
            row_alone(&x, n, &y, run);
        }
    }

    #[test]
    fn bf16_equals_the_oracle_and_each_row_alone(
        m in 1usize..70, n in 1usize..100, k in 1usize..150, extra in 0usize..5,
        with_bias: bool, seed: u64,
    ) {
        let mut random = Random::new(seed);
        let data = random.normal_bf16(m * (k + extra));
        let w = random.normal_bf16(n * k);
        let bias = random.normal_bf16(n);
        let scale = random.normal(if with_bias { n } else { 1 });
        let end = Epilogue { scale: &scale, bias: with_bias.then_some(&bias[..]) };
        let x = Rows::new("x", &data, m, k, k + extra).unwrap();
        let exact = oracle(&x, &w, end, n);
        for path in bf16_paths() {
            let run = |x: &Rows<'_, Bf16>, y: &mut RowsMut<'_, f32>| {
                bf16_on(path, &[check(x, &w, end, y).unwrap()]);
            };
            let mut y = vec![f32::NAN; m * n];
            run(&x, &mut RowsMut::new("y", &mut y, m, n, n).unwrap());
            close(&y, &exact, k);
            row_alone(&x, n, &y, run);
            let mut rounded = vec![Bf16(0x7FC0); m * n];
            bf16_on(path, &[check(
                &x, &w, end, &mut RowsMut::new("y", &mut rounded, m, n, n).unwrap(),
            ).unwrap()]);
            prop_assert_eq!(rounded, y.iter().map(|v| Bf16::from_f32(*v)).collect::<Vec<_>>());
        }
    }
}

#[test]
fn threads_and_large_batches_change_no_bit() {
    let (m, n, k) = (530, 131, 96);
    let mut random = Random::new(7);
    let data = random.normal_bf16(m * k);
    let w = random.normal_bf16(n * k);
    for path in bf16_paths() {
        let run = |rows: usize, threads: usize| {
            pool::set_num_threads(threads);
            let x = Rows::contiguous("x", &data[..rows * k], rows, k).unwrap();
            let mut y = vec![f32::NAN; rows * n];
            bf16_on(
                path,
                &[check(
                    &x,
                    &w,
                    Epilogue::default(),
                    &mut RowsMut::new("y", &mut y, rows, n, n).unwrap(),
                )
                .unwrap()],
            );
            y
        };
        let all = run(m, 2);
        for (rows, threads) in [(m, 1), (m, 3), (129, 2), (33, 2), (1, 1)] {
            assert!(
                run(rows, threads) == all[..rows * n],
                "{path:?} {rows} {threads}"
            );
        }
    }
}

/// Products of one region, some of the same x, have the bits they have alone.
fn many_equal_each_alone<T: LinearElement + PartialEq + std::fmt::Debug>(rows: usize) {
    let mut random = Random::new(rows as u64);
    let mut draw = |n: usize| -> Vec<T> { random.normal(n).into_iter().map(T::from_f32).collect() };
    let shapes = [(70, 96), (5, 96), (33, 40)];
    let (first, second) = (draw(rows * 96), draw(rows * 40));
    let xs = [(&first, 96), (&first, 96), (&second, 40)]
        .map(|(data, k)| Rows::contiguous("x", data, rows, k).unwrap());
    let ws = shapes.map(|(n, k)| draw(n * k));
    let mut given = shapes.map(|(n, _)| vec![f32::NAN; rows * n]);
    let mut alone = given.clone();
    let [a, b, c] = &mut given;
    let product = |i: usize, y| Product {
        x: xs[i],
        w: &ws[i],
        epilogue: Epilogue::default(),
        y: RowsMut::new("y", y, rows, shapes[i].0, shapes[i].0).unwrap(),
    };
    linear_many([product(0, a), product(1, b), product(2, c)]).unwrap();
    for (i, y) in alone.iter_mut().enumerate() {
        let n = shapes[i].0;
        let mut y = RowsMut::new("y", y, rows, n, n).unwrap();
        linear(&xs[i], &ws[i], Epilogue::default(), &mut y).unwrap();
    }
    assert!(given == alone, "{rows} rows");
}

#[test]
fn many_products_equal_each_alone() {
    for rows in [1, 3, 16, 40, 140, 530] {
        many_equal_each_alone::<f32>(rows);
        many_equal_each_alone::<Bf16>(rows);
    }
}

#[test]
fn a_padded_output_row_is_left_alone() {
    let (m, n, k) = (3, 5, 8);
    let mut random = Random::new(1);
    let (x, w) = (random.normal(m * k), random.normal(n * k));
    let mut y = vec![-7.0; m * (n + 3)];
    let x = Rows::contiguous("x", &x, m, k).unwrap();
    linear(
        &x,
        &w,
        Epilogue::default(),
        &mut RowsMut::new("y", &mut y, m, n, n + 3).unwrap(),
    )
    .unwrap();
    for row in y.chunks(n + 3) {
        assert!(row[n..].iter().all(|v| v.to_bits() == (-7.0f32).to_bits()));
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let x = Rows::contiguous("x", &[0.0; 8], 2, 4).unwrap();
    let mut y = [0.0; 6];
    let mut y = RowsMut::new("y", &mut y, 2, 3, 3).unwrap();
    let error = linear(&x, &[0.0; 11], Epilogue::default(), &mut y).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("weight holds 11 elements, needed are 12")
    );
    assert!(
        linear(
            &x,
            &[0.0; 12],
            Epilogue {
                scale: &[1.0; 2],
                bias: None
            },
            &mut y
        )
        .is_err()
    );
}
