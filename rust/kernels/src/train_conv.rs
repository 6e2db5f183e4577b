//! Depthwise causal convolution with SiLU over packed sequences, with its gradient.
//!
//! Legend: T packed tokens, S sequences, C channels, W conv width (2 to 4), V lanes of a register.
//! One task is one register's width of channels through all sequences, so the gradients of weight
//! and bias are summed by one thread, in order. `past` holds the W-1 inputs before a sequence.

use crate::pool::{SharedMut, parallel_for};
use crate::simd::{Kernel, Level, Simd, dispatch, exp};
use crate::train_gemm::{Scratch, with_scratch};
use crate::train_vector::{load, store};

/// Channels a task; a multiple of the lanes of every instruction set.
const BLOCK: usize = 16;

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
    /// Gradient of the transposed weight [W, C].
    pub dweight: *mut f32,
    /// Gradient of the bias [C].
    pub dbias: *mut f32,
    /// Gradient of `past` [S, W-1, C]; null: not wanted.
    pub dpast: *mut f32,
}

// SAFETY: tasks write their own channels.
unsafe impl Sync for ConvGrads {}

/// Compute y [T, C] = silu(convolution + bias).
///
/// # Safety
/// All pointers must be valid for the sizes named, outputs apart from inputs; 2 <= W <= 4.
pub unsafe fn conv_forward(conv: Conv<'_>, y: *mut f32) {
    let level = Level::detect();
    let y = SharedMut(y);
    let shared = &conv;
    parallel_for(shared.sizes[0].div_ceil(BLOCK), |block| {
        // SAFETY: passed on to the caller; each task writes its own channels.
        unsafe {
            dispatch(
                level,
                Forward {
                    conv: shared,
                    block,
                    y: y.at(0),
                },
            )
        };
    });
}

/// Compute the gradient of [`conv_forward`].
///
/// # Safety
/// All pointers must be valid for the sizes named, outputs apart from inputs; 2 <= W <= 4.
pub unsafe fn conv_backward(conv: Conv<'_>, grads: ConvGrads) {
    let level = Level::detect();
    let (shared, grads) = (&conv, &grads);
    let longest = shared
        .cu_seqlens
        .windows(2)
        .map(|w| w[1] - w[0])
        .max()
        .unwrap_or(0);
    parallel_for(shared.sizes[0].div_ceil(BLOCK), |block| {
        with_scratch((longest + 4) * BLOCK, |scratch| {
            // SAFETY: as in `conv_forward`.
            unsafe {
                dispatch(
                    level,
                    Backward {
                        conv: shared,
                        block,
                        scratch,
                        grads,
                    },
                )
            };
        });
    });
}

impl Conv<'_> {
    /// The input `back` tokens before token t of sequence s, channels from `at`.
    #[inline(always)]
    unsafe fn input<S: Simd>(&self, s: usize, t: usize, back: usize, at: usize, n: usize) -> S::V {
        let start = self.cu_seqlens[s];
        let early = self.sizes[1] - 1;
        // SAFETY: token t belongs to sequence s; at + n <= C.
        unsafe {
            if t >= start + back {
                load::<S>(self.x.add((t - back) * self.x_row + at), n)
            } else if self.past.is_null() {
                S::splat(0.0)
            } else {
                let row = s * early + early + t - start - back;
                load::<S>(self.past.add(row * self.sizes[0] + at), n)
            }
        }
    }

    /// Weights and bias of channels from `at`.
    #[inline(always)]
    unsafe fn parameters<S: Simd, const W: usize>(&self, at: usize, n: usize) -> ([S::V; W], S::V) {
        let mut weights = [unsafe { S::splat(0.0) }; W];
        // SAFETY: at + n <= C.
        unsafe {
            for (w, weight) in weights.iter_mut().enumerate() {
                *weight = load::<S>(self.weight.add(w * self.sizes[0] + at), n);
            }
            let none = self.bias.is_null();
            (
                weights,
                if none {
                    S::splat(0.0)
                } else {
                    load::<S>(self.bias.add(at), n)
                },
            )
        }
    }
}

struct Forward<'a> {
    conv: &'a Conv<'a>,
    block: usize,
    y: *mut f32,
}

impl Forward<'_> {
    #[inline(always)]
    unsafe fn channels<S: Simd, const W: usize>(&self, at: usize, n: usize) {
        let conv = self.conv;
        // SAFETY: at + n <= C, tokens of the sequences.
        unsafe {
            let (weights, bias) = conv.parameters::<S, W>(at, n);
            for s in 0..conv.cu_seqlens.len() - 1 {
                let start = conv.cu_seqlens[s];
                let mut window = [S::splat(0.0); W];
                for (w, value) in window.iter_mut().enumerate().skip(1) {
                    *value = conv.input::<S>(s, start, W - w, at, n);
                }
                for t in start..conv.cu_seqlens[s + 1] {
                    window.rotate_left(1);
                    window[W - 1] = load::<S>(conv.x.add(t * conv.x_row + at), n);
                    let mut sum = bias;
                    for (x, weight) in window.iter().zip(&weights) {
                        sum = S::fma(*x, *weight, sum);
                    }
                    store::<S>(
                        self.y.add(t * conv.sizes[0] + at),
                        crate::simd::silu::<S>(sum),
                        n,
                    );
                }
            }
        }
    }
}

impl Kernel for Forward<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let end = ((self.block + 1) * BLOCK).min(self.conv.sizes[0]);
        for at in (self.block * BLOCK..end).step_by(S::LANES) {
            let n = (end - at).min(S::LANES);
            // SAFETY: passed on to the caller.
            unsafe {
                match self.conv.sizes[1] {
                    2 => self.channels::<S, 2>(at, n),
                    3 => self.channels::<S, 3>(at, n),
                    _ => self.channels::<S, 4>(at, n),
                }
            }
        }
    }
}

struct Backward<'a, 'b> {
    conv: &'a Conv<'a>,
    block: usize,
    scratch: Scratch<'b>,
    grads: &'a ConvGrads,
}

/// Add the first `n` lanes to double-precision sums.
#[inline(always)]
unsafe fn gather<S: Simd>(sums: &mut [f64; BLOCK], v: S::V, n: usize) {
    let mut lanes = [0.0f32; BLOCK];
    // SAFETY: a register holds at most BLOCK lanes.
    unsafe { S::store(lanes.as_mut_ptr(), v) };
    for (sum, lane) in sums.iter_mut().zip(lanes).take(n) {
        *sum += f64::from(lane);
    }
}

impl Backward<'_, '_> {
    #[inline(always)]
    unsafe fn channels<S: Simd, const W: usize>(&self, inner: *mut f32, at: usize, n: usize) {
        let (conv, grads) = (self.conv, self.grads);
        let channels = conv.sizes[0];
        // SAFETY: at + n <= C, tokens of the sequences; `inner` has LANES for W - 1 tokens more
        // than the longest sequence.
        unsafe {
            let (weights, bias) = conv.parameters::<S, W>(at, n);
            let (mut dweight, mut dbias) = ([[0.0f64; BLOCK]; W], [0.0f64; BLOCK]);
            for s in 0..conv.cu_seqlens.len() - 1 {
                let start = conv.cu_seqlens[s];
                let len = conv.cu_seqlens[s + 1] - start;
                let (mut dw, mut db) = ([S::splat(0.0); W], S::splat(0.0));
                let mut window = [S::splat(0.0); W];
                for (w, value) in window.iter_mut().enumerate().skip(1) {
                    *value = conv.input::<S>(s, start, W - w, at, n);
                }
                for t in 0..len {
                    window.rotate_left(1);
                    window[W - 1] = load::<S>(conv.x.add((start + t) * conv.x_row + at), n);
                    let mut sum = bias;
                    for (x, weight) in window.iter().zip(&weights) {
                        sum = S::fma(*x, *weight, sum);
                    }
                    // silu' = sigmoid (1 + u (1 - sigmoid))
                    let one = S::splat(1.0);
                    let sigmoid = S::div(one, S::add(one, exp::<S>(S::sub(S::splat(0.0), sum))));
                    let slope = S::mul(sigmoid, S::fma(sum, S::sub(one, sigmoid), one));
                    let d = S::mul(
                        load::<S>(grads.dy.add((start + t) * channels + at), n),
                        slope,
                    );
                    db = S::add(db, d);
                    for (dw, x) in dw.iter_mut().zip(&window) {
                        *dw = S::fma(d, *x, *dw);
                    }
                    S::store(inner.add(t * S::LANES), d);
                }
                for t in len..len + W - 1 {
                    S::store(inner.add(t * S::LANES), S::splat(0.0));
                }
                // Input t feeds outputs t .. t + W - 1; negative t are the past.
                let dx = |t: usize, skip: usize| {
                    let mut sum = S::splat(0.0);
                    for w in skip..W {
                        let d = S::load(inner.add((t + w - skip) * S::LANES));
                        sum = S::fma(d, weights[W - 1 - w], sum);
                    }
                    sum
                };
                for t in 0..len {
                    store::<S>(grads.dx.add((start + t) * channels + at), dx(t, 0), n);
                }
                if !grads.dpast.is_null() {
                    for early in 1..W {
                        let row = s * (W - 1) + W - 1 - early;
                        store::<S>(grads.dpast.add(row * channels + at), dx(0, early), n);
                    }
                }
                gather::<S>(&mut dbias, db, n);
                for (sums, dw) in dweight.iter_mut().zip(dw) {
                    gather::<S>(sums, dw, n);
                }
            }
            for l in 0..n {
                *grads.dbias.add(at + l) = dbias[l] as f32;
                for (w, sums) in dweight.iter().enumerate() {
                    *grads.dweight.add(w * channels + at + l) = sums[l] as f32;
                }
            }
        }
    }
}

impl Kernel for Backward<'_, '_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let end = ((self.block + 1) * BLOCK).min(self.conv.sizes[0]);
        let longest = self
            .conv
            .cu_seqlens
            .windows(2)
            .map(|w| w[1] - w[0])
            .max()
            .unwrap_or(0);
        let inner = self.scratch.take((longest + 4) * BLOCK).as_mut_ptr();
        for at in (self.block * BLOCK..end).step_by(S::LANES) {
            let n = (end - at).min(S::LANES);
            // SAFETY: passed on to the caller.
            unsafe {
                match self.conv.sizes[1] {
                    2 => self.channels::<S, 2>(inner, at, n),
                    3 => self.channels::<S, 3>(inner, at, n),
                    _ => self.channels::<S, 4>(inner, at, n),
                }
            }
        }
    }
}
