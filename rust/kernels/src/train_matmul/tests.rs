use proptest::prelude::*;

use super::{Matmul, Operand, matmul};
use crate::bf16::Bf16;
use crate::pool::set_num_threads;
use crate::testing::Random;

/// A matrix of `outer` x k with `gap` elements of NaN after each row, stored either way round.
fn matrix(
    random: &mut Random,
    outer: usize,
    k: usize,
    gap: usize,
    flip: bool,
) -> (Vec<f32>, Operand) {
    let (rows, cols) = if flip { (k, outer) } else { (outer, k) };
    let mut data = vec![f32::NAN; rows * (cols + gap) + 1];
    for i in 0..rows {
        data[i * (cols + gap)..][..cols].copy_from_slice(&random.normal(cols));
    }
    let strides = if flip {
        (1, cols + gap)
    } else {
        (cols + gap, 1)
    };
    let operand = Operand {
        ptr: data.as_ptr(),
        outer: strides.0,
        inner: strides.1,
    };
    (data, operand)
}

/// Rounded to bfloat16, in float64, and the sum of the absolute products.
fn definition(a: &[f32], x: Operand, b: &[f32], y: Operand, [i, j, k]: [usize; 3]) -> (f64, f64) {
    let round = |value: f32| f64::from(Bf16::from_f32(value).to_f32());
    (0..k).fold((0.0, 0.0), |(sum, size), l| {
        let left = round(a[i * x.outer + l * x.inner]);
        let right = round(b[j * y.outer + l * y.inner]);
        (sum + left * right, size + (left * right).abs())
    })
}

fn check([m, n, k]: [usize; 3], gap: usize, flips: [bool; 2], add: bool, seed: u64) {
    let mut random = Random::new(seed);
    let (a_data, a) = matrix(&mut random, m, k, gap, flips[0]);
    let (b_data, b) = matrix(&mut random, n, k, gap, flips[1]);
    let before = random.normal(m * (n + gap));
    let mut product = Matmul {
        sizes: [m, n, k],
        a,
        b,
        c: std::ptr::null_mut(),
        c_row: n + gap,
        add,
    };
    let mut plain = before.clone();
    product.c = plain.as_mut_ptr();
    // SAFETY: sizes as allocated.
    unsafe { product.plain() };
    let mut first: Option<Vec<f32>> = None;
    for threads in [1, 3] {
        set_num_threads(threads);
        let mut c = before.clone();
        product.c = c.as_mut_ptr();
        // SAFETY: sizes as allocated.
        unsafe { matmul(product) };
        for i in 0..m {
            for j in 0..n + gap {
                let at = i * (n + gap) + j;
                if j >= n {
                    assert_eq!(c[at], before[at], "written beside c");
                    continue;
                }
                let (sum, size) = definition(&a_data, a, &b_data, b, [i, j, k]);
                let old = if add { f64::from(before[at]) } else { 0.0 };
                let bound = (size + old.abs()) * (k as f64).sqrt().max(1.0) * 1.2e-7 + 1e-30;
                for got in [c[at], plain[at]] {
                    let error = (f64::from(got) - sum - old).abs();
                    assert!(error <= bound, "({i}, {j}): {got}, not {}", sum + old);
                }
            }
        }
        let first = first.get_or_insert_with(|| c.clone());
        assert_eq!(*first, c, "bits depend on the number of threads");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn products_equal_the_definition(
        sizes in prop::array::uniform3(1usize..70),
        gap in 0usize..4,
        flips in prop::array::uniform2(any::<bool>()),
        add in any::<bool>(),
        seed in any::<u64>(),
    ) {
        check(sizes, gap, flips, add, seed);
    }
}

#[test]
fn blocks_of_every_kind_meet() {
    // More than one block of k, part of b, part of its columns, task of rows.
    for (sizes, flips) in [
        ([13, 33, 1025], [true, true]),
        ([3, 5, 4099], [false, true]),
        ([2, 1061, 7], [false, false]),
        ([517, 17, 3], [true, false]),
    ] {
        check(sizes, 1, flips, false, 7);
        check(sizes, 0, flips, true, 8);
    }
}

#[test]
fn nothing_to_add_is_zero() {
    let mut c = vec![f32::NAN; 6];
    let none = Operand {
        ptr: c.as_ptr(),
        outer: 1,
        inner: 1,
    };
    let product = Matmul {
        sizes: [2, 3, 0],
        a: none,
        b: none,
        c: c.as_mut_ptr(),
        c_row: 3,
        add: false,
    };
    // SAFETY: no element of a or b is read.
    unsafe { matmul(product) };
    assert_eq!(c, [0.0; 6]);
}

#[test]
fn a_row_has_the_same_bits_alone() {
    let mut random = Random::new(3);
    let (_a, a) = matrix(&mut random, 50, 600, 0, false);
    let (_b, b) = matrix(&mut random, 40, 600, 0, false);
    let run = |m: usize, a: Operand| {
        let mut c = vec![0.0; m * 40];
        let product = Matmul {
            sizes: [m, 40, 600],
            a,
            b,
            c: c.as_mut_ptr(),
            c_row: 40,
            add: false,
        };
        // SAFETY: sizes as allocated.
        unsafe { matmul(product) };
        c
    };
    let all = run(50, a);
    for i in [0, 11, 12, 49] {
        let ptr = a.ptr.wrapping_add(i * 600);
        assert_eq!(run(1, Operand { ptr, ..a }), all[i * 40..][..40]);
    }
}

#[test]
fn what_is_not_finite_shows() {
    let a = [1.0, f32::INFINITY, f32::NAN, 1e-40];
    let b = [2.0, 1.0];
    let mut c = vec![0.0; 8];
    let product = Matmul {
        sizes: [4, 2, 1],
        a: Operand {
            ptr: a.as_ptr(),
            outer: 1,
            inner: 1,
        },
        b: Operand {
            ptr: b.as_ptr(),
            outer: 1,
            inner: 1,
        },
        c: c.as_mut_ptr(),
        c_row: 2,
        add: false,
    };
    // SAFETY: sizes as allocated.
    unsafe { matmul(product) };
    assert_eq!(c[..4], [2.0, 1.0, f32::INFINITY, f32::INFINITY]);
    assert!(c[4].is_nan() && c[5].is_nan());
    assert_eq!(c[6..], [0.0, 0.0], "denormals are zero");
}
