use proptest::prelude::*;

use super::{ScanInputs, check, run, ssd_scan_slots};
use crate::batch::Sequences;
use crate::rows::{Rows, RowsMut};
use crate::simd::{Element, Level};
use crate::testing::Random;

/// Sizes of one case; x, B and C lie side by side in rows of `stride`.
#[derive(Clone, Debug)]
struct Shape {
    lens: Vec<usize>,
    heads: usize,
    head_dim: usize,
    groups: usize,
    n: usize,
}

struct Case<T> {
    shape: Shape,
    data: Vec<T>,
    dt: Vec<f32>,
    a: Vec<f32>,
    d: Vec<f32>,
    slots: Vec<i64>,
    started: Vec<u8>,
    state: Vec<f32>,
}

impl<T: Element> Case<T> {
    fn new(shape: Shape, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let tokens: usize = shape.lens.iter().sum();
        let stride = shape.heads * shape.head_dim + 2 * shape.groups * shape.n + 3;
        let num_slots = shape.lens.len() + 2;
        let mut slots: Vec<i64> = (0..num_slots as i64).collect();
        for i in (1..num_slots).rev() {
            slots.swap(i, random.below(i + 1));
        }
        slots.truncate(shape.lens.len());
        let started: Vec<u8> = slots.iter().map(|_| random.below(2) as u8).collect();
        let per_slot = shape.heads * shape.head_dim * shape.n;
        // A slot that nobody may read holds NaN.
        let mut state = vec![f32::NAN; num_slots * per_slot];
        for (slot, _) in slots
            .iter()
            .zip(&started)
            .filter(|(_, started)| **started == 1)
        {
            let at = *slot as usize * per_slot;
            state[at..at + per_slot].copy_from_slice(&random.normal(per_slot));
        }
        Self {
            data: random
                .normal(tokens * stride)
                .into_iter()
                .map(T::from_f32)
                .collect(),
            dt: (0..tokens * shape.heads)
                .map(|_| 0.001 + 0.1 * random.uniform())
                .collect(),
            a: (0..shape.heads).map(|_| -16.0 * random.uniform()).collect(),
            d: random.normal(shape.heads),
            slots,
            started,
            state,
            shape,
        }
    }

    fn tokens(&self) -> usize {
        self.shape.lens.iter().sum()
    }

    /// Tokens `begin..end`, as views of the wide rows.
    fn inputs(&self, begin: usize, end: usize) -> ScanInputs<'_, T> {
        let Shape {
            heads,
            head_dim,
            groups,
            n,
            ..
        } = self.shape;
        let (width, group_width) = (heads * head_dim, groups * n);
        let stride = width + 2 * group_width + 3;
        let part = |at, width| {
            Rows::new(
                "part",
                &self.data[begin * stride + at..],
                end - begin,
                width,
                stride,
            )
        };
        ScanInputs {
            x: part(0, width).unwrap(),
            dt: Rows::contiguous("dt", &self.dt[begin * heads..], end - begin, heads).unwrap(),
            a: &self.a,
            b: part(width, group_width).unwrap(),
            c: part(width + group_width, group_width).unwrap(),
            d: &self.d,
            d_state: n,
        }
    }

    fn all(&self, level: Level) -> (Vec<T>, Vec<f32>) {
        let mut cu_seqlens = vec![0i32];
        for len in &self.shape.lens {
            cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + *len as i32);
        }
        let sequences = Sequences {
            cu_seqlens: &cu_seqlens,
            state_slots: &self.slots,
            has_initial_state: &self.started,
        };
        let (mut state, width) = (self.state.clone(), self.shape.heads * self.shape.head_dim);
        let mut y = vec![T::from_f32(f32::NAN); self.tokens() * width];
        let mut rows = RowsMut::new("y", &mut y, self.tokens(), width, width).unwrap();
        run(
            level,
            &check(
                self.inputs(0, self.tokens()),
                sequences,
                &mut state,
                &mut rows,
            )
            .unwrap(),
        );
        (y, state)
    }

    /// Every sequence by itself, in pieces of random length.
    fn in_pieces(&self, level: Level, seed: u64) -> (Vec<T>, Vec<f32>) {
        let mut random = Random::new(seed);
        let (mut state, width) = (self.state.clone(), self.shape.heads * self.shape.head_dim);
        let mut y = vec![T::from_f32(f32::NAN); self.tokens() * width];
        let mut begin = 0;
        for (s, len) in self.shape.lens.iter().enumerate() {
            let (end, mut started) = (begin + len, self.started[s]);
            while begin < end {
                let piece = 1 + random.below(40.min(end - begin));
                let sequences = Sequences {
                    cu_seqlens: &[0, piece as i32],
                    state_slots: &self.slots[s..=s],
                    has_initial_state: &[started],
                };
                let out = &mut y[begin * width..];
                let mut rows = RowsMut::new("y", out, piece, width, width).unwrap();
                let inputs = self.inputs(begin, begin + piece);
                run(
                    level,
                    &check(inputs, sequences, &mut state, &mut rows).unwrap(),
                );
                begin += piece;
                started = 1;
            }
        }
        (y, state)
    }

    /// The oracle: the recurrence in f64.
    fn oracle(&self) -> (Vec<f64>, Vec<f64>) {
        let Shape {
            heads,
            head_dim,
            groups,
            n,
            ..
        } = self.shape;
        let inputs = self.inputs(0, self.tokens());
        let mut state: Vec<f64> = self.state.iter().map(|v| f64::from(*v)).collect();
        let mut y = vec![0.0; self.tokens() * heads * head_dim];
        let mut token = 0;
        for (s, len) in self.shape.lens.iter().enumerate() {
            let at = self.slots[s] as usize * heads * head_dim * n;
            if self.started[s] == 0 {
                state[at..at + heads * head_dim * n].fill(0.0);
            }
            for t in token..token + len {
                for h in 0..heads {
                    let dt = f64::from(inputs.dt.row(t)[h]);
                    let decay = (dt * f64::from(self.a[h])).exp();
                    let group = h / (heads / groups) * n;
                    for p in 0..head_dim {
                        let x = f64::from(inputs.x.row(t)[h * head_dim + p].to_f32());
                        let mut sum = f64::from(self.d[h]) * x;
                        for i in 0..n {
                            let b = f64::from(inputs.b.row(t)[group + i].to_f32());
                            let c = f64::from(inputs.c.row(t)[group + i].to_f32());
                            let value = &mut state[at + (h * head_dim + p) * n + i];
                            *value = decay * *value + dt * x * b;
                            sum += *value * c;
                        }
                        y[t * heads * head_dim + h * head_dim + p] = sum;
                    }
                }
            }
            token += len;
        }
        (y, state)
    }
}

/// Relative error of the whole, NaN equal to NaN.
fn error(given: impl Iterator<Item = f32>, exact: &[f64]) -> f64 {
    let (mut difference, mut norm) = (0.0, 1e-30);
    for (given, exact) in given.zip(exact) {
        assert_eq!(given.is_nan(), exact.is_nan());
        if !exact.is_nan() {
            difference += (f64::from(given) - exact).powi(2);
            norm += exact * exact;
        }
    }
    (difference / norm).sqrt()
}

fn holds<T: Element>(shape: &Shape, seed: u64, bound: f64) {
    let case = Case::<T>::new(shape.clone(), seed);
    let (exact_y, exact_state) = case.oracle();
    for level in Level::available() {
        let (y, state) = case.all(level);
        assert!(
            error(y.iter().map(|v| v.to_f32()), &exact_y) < bound,
            "{level:?} y"
        );
        assert!(
            error(state.iter().copied(), &exact_state) < 2e-6,
            "{level:?} state"
        );
        let (pieces_y, pieces_state) = case.in_pieces(level, seed);
        let bits = |v: &[T]| v.iter().map(|v| v.to_f32().to_bits()).collect::<Vec<_>>();
        assert!(bits(&y) == bits(&pieces_y), "{level:?} pieces: y");
        let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert!(
            bits(&state) == bits(&pieces_state),
            "{level:?} pieces: state"
        );
    }
}

fn shapes() -> impl Strategy<Value = Shape> {
    let lens = prop::collection::vec(
        prop::sample::select(vec![1usize, 2, 3, 15, 16, 17, 63]),
        1..4,
    );
    (lens, 1usize..3, 1usize..3, 1usize..20, 1usize..40).prop_map(
        |(lens, groups, per_group, head_dim, n)| Shape {
            lens,
            heads: groups * per_group,
            head_dim,
            groups,
            n: if n < 30 {
                n
            } else {
                [16, 32, 64, 128, 256][n % 5]
            },
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn equals_the_recurrence_in_any_pieces(shape in shapes(), seed: u64) {
        holds::<f32>(&shape, seed, 2e-6);
        holds::<crate::Bf16>(&shape, seed, 4e-3);
    }
}

#[test]
fn every_published_width() {
    for (head_dim, n) in [
        (32, 64),
        (64, 128),
        (64, 256),
        (128, 256),
        (32, 16),
        (33, 32),
    ] {
        let lens = vec![64, 1, 65, 129];
        let shape = Shape {
            lens,
            heads: 2,
            head_dim,
            groups: 1,
            n,
        };
        holds::<f32>(&shape, 3, 2e-6);
        holds::<crate::Bf16>(&shape, 4, 4e-3);
    }
}

#[test]
fn a_slot_twice_or_outside_is_refused_before_anything_is_written() {
    let shape = Shape {
        lens: vec![1, 1],
        heads: 1,
        head_dim: 2,
        groups: 1,
        n: 4,
    };
    let case = Case::<f32>::new(shape, 1);
    let mut state = vec![7.0; case.state.len()];
    let mut y = vec![7.0; 4];
    for slots in [[1, 1], [0, 4], [-1, 0]] {
        let sequences = Sequences {
            cu_seqlens: &[0, 1, 2],
            state_slots: &slots,
            has_initial_state: &[1, 1],
        };
        let mut rows = RowsMut::new("y", &mut y, 2, 2, 2).unwrap();
        let error = ssd_scan_slots(case.inputs(0, 2), sequences, &mut state, &mut rows);
        assert!(error.unwrap_err().to_string().starts_with("state_slots is"));
    }
    assert!(
        state
            .iter()
            .chain(&y)
            .all(|v| v.to_bits() == 7.0f32.to_bits())
    );
}
