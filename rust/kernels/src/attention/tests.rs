use proptest::prelude::*;

use super::{PagedCache, check, paged_attention, run};
use crate::rows::{Rows, RowsMut};
use crate::simd::{Element, Level};
use crate::testing::Random;

struct Case<T> {
    q: Vec<T>,
    k: Vec<T>,
    v: Vec<T>,
    tables: Vec<i32>,
    max_blocks: usize,
    /// (tokens of this batch, tokens in all) of each sequence.
    lens: Vec<(usize, usize)>,
    block_size: usize,
    kv_heads: usize,
    repeat: usize,
    head_dim: usize,
}

impl<T: Element> Case<T> {
    fn new(
        lens: &[(usize, usize)],
        block_size: usize,
        [kv_heads, repeat, head_dim]: [usize; 3],
        seed: u64,
    ) -> Self {
        let mut random = Random::new(seed);
        let max_blocks = lens
            .iter()
            .map(|(_, all)| all.div_ceil(block_size))
            .max()
            .unwrap();
        let num_blocks = lens.len() * max_blocks + 1;
        let mut free: Vec<i32> = (0..num_blocks as i32).collect();
        for i in (1..num_blocks).rev() {
            free.swap(i, random.below(i + 1));
        }
        let tokens: usize = lens.iter().map(|(new, _)| new).sum();
        let width = kv_heads * head_dim;
        let mut draw =
            |n: usize| -> Vec<T> { random.normal(n).into_iter().map(T::from_f32).collect() };
        let q = draw(tokens * (width * repeat + 3));
        // What no sequence owns is NaN.
        let mut k = vec![T::from_f32(f32::NAN); num_blocks * block_size * width];
        let mut v = k.clone();
        let mut tables = vec![0; lens.len() * max_blocks];
        for (s, (_, all)) in lens.iter().enumerate() {
            for position in 0..*all {
                let entry = &mut tables[s * max_blocks + position / block_size];
                if position % block_size == 0 {
                    *entry = free.pop().unwrap();
                }
                let at = (*entry as usize * block_size + position % block_size) * width;
                k[at..at + width].copy_from_slice(&draw(width));
                v[at..at + width].copy_from_slice(&draw(width));
            }
        }
        let lens = lens.to_vec();
        Self {
            q,
            k,
            v,
            tables,
            max_blocks,
            lens,
            block_size,
            kv_heads,
            repeat,
            head_dim,
        }
    }

    fn cache(&self, sequence: usize) -> PagedCache<'_, T> {
        PagedCache {
            k: &self.k,
            v: &self.v,
            block_size: self.block_size,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            block_tables: &self.tables[sequence * self.max_blocks..],
            max_blocks: self.max_blocks,
        }
    }

    fn width(&self) -> usize {
        self.kv_heads * self.repeat * self.head_dim
    }

    fn queries(&self, begin: usize, end: usize) -> Rows<'_, T> {
        let stride = self.width() + 3;
        Rows::new(
            "q",
            &self.q[begin * stride..],
            end - begin,
            self.width(),
            stride,
        )
        .unwrap()
    }

    fn all(&self, level: Level) -> Vec<T> {
        let mut cu_seqlens = vec![0];
        for (new, _) in &self.lens {
            cu_seqlens.push(cu_seqlens[cu_seqlens.len() - 1] + *new as i32);
        }
        let seq_lens: Vec<i32> = self.lens.iter().map(|(_, all)| *all as i32).collect();
        let (tokens, width) = (cu_seqlens[self.lens.len()] as usize, self.width());
        let mut y = vec![T::from_f32(f32::NAN); tokens * width];
        let mut out = RowsMut::new("y", &mut y, tokens, width, width).unwrap();
        let q = self.queries(0, tokens);
        run(
            level,
            &check(q, self.cache(0), &cu_seqlens, &seq_lens, 0.3, &mut out).unwrap(),
        );
        y
    }

    /// Every token in a call of its own.
    fn one_by_one(&self, level: Level) -> Vec<T> {
        let (mut y, width) = (Vec::new(), self.width());
        let mut token = 0;
        for (s, (new, all)) in self.lens.iter().enumerate() {
            for j in 0..*new {
                let mut row = vec![T::from_f32(f32::NAN); width];
                let mut out = RowsMut::new("y", &mut row, 1, width, width).unwrap();
                let seq_len = [(all - new + j + 1) as i32];
                let q = self.queries(token, token + 1);
                run(
                    level,
                    &check(q, self.cache(s), &[0, 1], &seq_len, 0.3, &mut out).unwrap(),
                );
                y.extend(row);
                token += 1;
            }
        }
        y
    }

    /// The oracle: softmax over all keys at once, in f64.
    fn oracle(&self) -> Vec<f64> {
        let mut y = Vec::new();
        let mut token = 0;
        for (s, (new, all)) in self.lens.iter().enumerate() {
            for j in 0..*new {
                let extent = all - new + j + 1;
                for head in 0..self.kv_heads * self.repeat {
                    let at = |position: usize| {
                        let block = self.tables[s * self.max_blocks + position / self.block_size];
                        let slot = block as usize * self.block_size + position % self.block_size;
                        (slot * self.kv_heads + head / self.repeat) * self.head_dim
                    };
                    let q = &self.queries(0, token + 1).row(token)[head * self.head_dim..];
                    let scores: Vec<f64> = (0..extent)
                        .map(|e| {
                            (q.iter().zip(&self.k[at(e)..at(e) + self.head_dim]))
                                .map(|(q, k)| f64::from(q.to_f32()) * f64::from(k.to_f32()))
                                .sum::<f64>()
                                * f64::from(0.3f32)
                        })
                        .collect();
                    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
                    for p in 0..self.head_dim {
                        let dot: f64 = (0..extent)
                            .map(|e| {
                                (scores[e] - max).exp() * f64::from(self.v[at(e) + p].to_f32())
                            })
                            .sum();
                        y.push(dot / sum);
                    }
                }
                token += 1;
            }
        }
        y
    }
}

fn holds<T: Element>(case: &Case<T>, bound: f64) {
    let exact = case.oracle();
    for level in Level::available() {
        let y = case.all(level);
        for (given, exact) in y.iter().zip(&exact) {
            let error = (f64::from(given.to_f32()) - exact).abs();
            assert!(error <= bound * (1.0 + exact.abs()), "{level:?}: {exact}");
        }
        let bits = |v: &[T]| v.iter().map(|v| v.to_f32().to_bits()).collect::<Vec<_>>();
        assert!(
            bits(&y) == bits(&case.one_by_one(level)),
            "{level:?}: one by one"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn equals_softmax_whatever_the_chunk(
        lens in prop::collection::vec((1usize..20, 0usize..40), 1..4),
        block_size in 1usize..20, kv_heads in 1usize..3, repeat in 1usize..5,
        head_dim in prop::sample::select(vec![1usize, 8, 20, 32, 64, 128]), seed: u64,
    ) {
        let lens: Vec<_> = lens.into_iter().map(|(new, past)| (new, new + past)).collect();
        let shape = [kv_heads, repeat, head_dim];
        holds(&Case::<f32>::new(&lens, block_size, shape, seed), 5e-6);
        holds(&Case::<crate::Bf16>::new(&lens, block_size, shape, seed), 1e-2);
    }
}

#[test]
fn a_long_context() {
    let lens = [(203, 257), (1, 300), (129, 129)];
    holds(&Case::<f32>::new(&lens, 16, [1, 2, 64], 5), 5e-6);
    holds(&Case::<crate::Bf16>::new(&lens, 16, [1, 2, 64], 6), 1e-2);
}

#[test]
fn blocks_and_lengths_outside_are_refused() {
    let case = Case::<f32>::new(&[(2, 5)], 4, [1, 1, 8], 1);
    let mut y = [0.0; 16];
    let mut out = RowsMut::new("y", &mut y, 2, 8, 8).unwrap();
    for (tables, seq_len) in [([0, 9], 5), ([-1, 0], 5), ([0, 1], 1), ([0, 1], 9)] {
        let cache = PagedCache {
            block_tables: &tables,
            ..case.cache(0)
        };
        let result = paged_attention(
            case.queries(0, 2),
            cache,
            &[0, 2],
            &[seq_len],
            1.0,
            &mut out,
        );
        assert!(result.is_err());
    }
}
