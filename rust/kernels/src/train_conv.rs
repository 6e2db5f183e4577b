//! Depthwise causal convolution with `SiLU` over packed sequences, with its gradient.
//!
//! Legend: T packed tokens, S sequences, C channels, W conv width (2 to 4), V lanes of a register.
//! One task is one sequence, row by row; it leaves its part of the gradients of weight and bias.
//! `past` holds the W-1 inputs before a sequence.

use crate::pool::{SharedMut, parallel_for};
use crate::simd::{Kernel, Level, Simd, dispatch, silu};
use crate::train_gemm::with_scratch;
use crate::train_rows::silu_slope;
use crate::train_vector::{for_vectors, load, store};

/// The tensors of a convolution.
#[derive(Clone, Copy)]
pub struct Conv<'a> {
    /// Channels C and conv width W, 2 to 4.
    pub sizes: [usize; 2],
    /// Start of each sequence, and the end of the last.
    pub cu_seqlens: &'a [usize],
    /// x [T, C].
    pub x: *const f32,
    /// Elements from a row of x to the next.
    pub x_row: usize,
    /// Weight, transposed: [W, C].
    pub weight: *const f32,
    /// Bias [C]; null: zero.
    pub bias: *const f32,
    /// Inputs before each sequence [S, W-1, C]; null: zero.
    pub past: *const f32,
}

// SAFETY: inputs are only read.
unsafe impl Sync for Conv<'_> {}

/// Where the gradient of a [`Conv`] goes; all contiguous.
#[derive(Clone, Copy)]
pub struct ConvGrads {
    /// Gradient of y [T, C], given.
    pub dy: *const f32,
    /// Gradient of x [T, C].
    pub dx: *mut f32,
    /// Each sequence's part of the gradient of the transposed weight [S, W, C].
    pub dweight: *mut f32,
    /// Each sequence's part of the gradient of the bias [S, C].
    pub dbias: *mut f32,
    /// Gradient of `past` [S, W-1, C]; null: not wanted.
    pub dpast: *mut f32,
}

// SAFETY: tasks write the rows of their own sequence.
unsafe impl Sync for ConvGrads {}

/// Compute y [T, C] = silu(convolution + bias).
///
/// # Safety
/// All pointers must be valid for the sizes named, outputs apart from inputs; 2 <= W <= 4.
pub unsafe fn conv_forward(conv: Conv<'_>, y: *mut f32) {
    let level = Level::detect();
    let (conv, y) = (&conv, SharedMut(y));
    parallel_for(conv.cu_seqlens.len() - 1, |sequence| {
        // SAFETY: passed on to the caller; each task writes its own sequence.
        unsafe {
            let y = y.at(0);
            dispatch(level, Forward { conv, sequence, y });
        }
    });
}

/// Compute the gradient of [`conv_forward`].
///
/// # Safety
/// All pointers must be valid for the sizes named, outputs apart from inputs; 2 <= W <= 4.
pub unsafe fn conv_backward(conv: Conv<'_>, grads: ConvGrads) {
    let level = Level::detect();
    let (conv, grads) = (&conv, &grads);
    parallel_for(conv.cu_seqlens.len() - 1, |sequence| {
        let rows = conv.cu_seqlens[sequence + 1] - conv.cu_seqlens[sequence] + conv.sizes[1];
        let channels = conv.sizes[0];
        with_scratch(rows * channels, |mut scratch| {
            let inner = scratch.take(rows * channels).as_mut_ptr();
            // SAFETY: as in `conv_forward`.
            unsafe {
                dispatch(
                    level,
                    Backward {
                        conv,
                        sequence,
                        inner,
                        grads,
                    },
                );
            };
        });
    });
}

impl Conv<'_> {
    /// bias + sum of inputs times weights at token t of sequence s, channels from `at`. Leaves the
    /// inputs read.
    #[inline(always)]
    unsafe fn convolve<S: Simd, const W: usize>(
        &self,
        place: [usize; 3],
        n: usize,
        inputs: &mut [S::V; W],
    ) -> S::V {
        let [s, t, at] = place;
        let channels = self.sizes[0];
        let age = t - self.cu_seqlens[s];
        // SAFETY: at + n <= C, a token of the sequence; the past has W - 1 rows a sequence.
        unsafe {
            let none = self.bias.is_null();
            let mut sum = if none {
                S::splat(0.0)
            } else {
                load::<S>(self.bias.add(at), n)
            };
            for w in 0..W {
                let back = W - 1 - w;
                inputs[w] = if age >= back {
                    load::<S>(self.x.add((t - back) * self.x_row + at), n)
                } else if self.past.is_null() {
                    S::splat(0.0)
                } else {
                    let row = s * (W - 1) + w + age;
                    load::<S>(self.past.add(row * channels + at), n)
                };
                sum = S::fma(
                    inputs[w],
                    load::<S>(self.weight.add(w * channels + at), n),
                    sum,
                );
            }
            sum
        }
    }
}

struct Forward<'a> {
    conv: &'a Conv<'a>,
    sequence: usize,
    y: *mut f32,
}

impl Forward<'_> {
    #[inline(always)]
    unsafe fn rows<S: Simd, const W: usize>(&self) {
        let (conv, s) = (self.conv, self.sequence);
        // SAFETY: at + n <= C, tokens of the sequence.
        unsafe {
            for t in conv.cu_seqlens[s]..conv.cu_seqlens[s + 1] {
                let y = self.y.add(t * conv.sizes[0]);
                for_vectors!(S, conv.sizes[0], |at, n| {
                    let mut inputs = [S::splat(0.0); W];
                    let sum = conv.convolve::<S, W>([s, t, at], n, &mut inputs);
                    store::<S>(y.add(at), silu::<S>(sum), n);
                });
            }
        }
    }
}

impl Kernel for Forward<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: passed on to the caller.
        unsafe {
            match self.conv.sizes[1] {
                2 => self.rows::<S, 2>(),
                3 => self.rows::<S, 3>(),
                _ => self.rows::<S, 4>(),
            }
        }
    }
}

struct Backward<'a> {
    conv: &'a Conv<'a>,
    sequence: usize,
    /// Gradients before the `SiLU` [L + W, C], zeros after the last token.
    inner: *mut f32,
    grads: &'a ConvGrads,
}

impl Backward<'_> {
    #[inline(always)]
    unsafe fn rows<S: Simd, const W: usize>(&self) {
        let (conv, grads, s, inner) = (self.conv, self.grads, self.sequence, self.inner);
        let channels = conv.sizes[0];
        let start = conv.cu_seqlens[s];
        let len = conv.cu_seqlens[s + 1] - start;
        // SAFETY: at + n <= C, tokens of the sequence; `inner` reaches W - 1 tokens past it.
        unsafe {
            let dweight = grads.dweight.add(s * W * channels);
            let dbias = grads.dbias.add(s * channels);
            std::slice::from_raw_parts_mut(dweight, W * channels).fill(0.0);
            std::slice::from_raw_parts_mut(dbias, channels).fill(0.0);
            for t in 0..len {
                let dy = grads.dy.add((start + t) * channels);
                for_vectors!(S, channels, |at, n| {
                    let mut inputs = [S::splat(0.0); W];
                    let sum = conv.convolve::<S, W>([s, start + t, at], n, &mut inputs);
                    let (_, slope) = silu_slope::<S>(sum);
                    let d = S::mul(load::<S>(dy.add(at), n), slope);
                    store::<S>(inner.add(t * channels + at), d, n);
                    let to = dbias.add(at);
                    store::<S>(to, S::add(load::<S>(to, n), d), n);
                    for w in 0..W {
                        let to = dweight.add(w * channels + at);
                        store::<S>(to, S::fma(d, inputs[w], load::<S>(to, n)), n);
                    }
                });
            }
            let after = inner.add(len * channels);
            std::slice::from_raw_parts_mut(after, (W - 1) * channels).fill(0.0);
            for t in 0..len {
                self.input_grad::<S, W>(t, 0, grads.dx.add((start + t) * channels));
            }
            if !grads.dpast.is_null() {
                for early in 1..W {
                    let row = (s + 1) * (W - 1) - early;
                    self.input_grad::<S, W>(0, early, grads.dpast.add(row * channels));
                }
            }
        }
    }

    /// Gradient of the input at token t - early: it feeds outputs t - early .. t - early + W - 1.
    #[inline(always)]
    unsafe fn input_grad<S: Simd, const W: usize>(&self, t: usize, early: usize, out: *mut f32) {
        let channels = self.conv.sizes[0];
        // SAFETY: `inner` reaches W - 1 tokens past the sequence.
        unsafe {
            for_vectors!(S, channels, |at, n| {
                let mut sum = S::splat(0.0);
                for back in early..W {
                    let d = load::<S>(self.inner.add((t + back - early) * channels + at), n);
                    let weight = self.conv.weight.add((W - 1 - back) * channels + at);
                    sum = S::fma(d, load::<S>(weight, n), sum);
                }
                store::<S>(out.add(at), sum, n);
            });
        }
    }
}

impl Kernel for Backward<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: passed on to the caller.
        unsafe {
            match self.conv.sizes[1] {
                2 => self.rows::<S, 2>(),
                3 => self.rows::<S, 3>(),
                _ => self.rows::<S, 4>(),
            }
        }
    }
}
