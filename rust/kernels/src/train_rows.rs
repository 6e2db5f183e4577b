//! Row-wise operations with their gradients: RMS norm (plain or gated), `SwiGLU`, rotary positions,
//! cross entropy.
//!
//! Legend: T rows, C columns, G groups of columns, V vocabulary, P head width. Tasks are blocks of
//! [`BLOCK`] rows; a gradient summed over rows leaves one partial sum a block.

use crate::pool::{SharedMut, parallel_for};
use crate::simd::{Kernel, Level, Simd, dispatch, exp};
use crate::train_vector::{for_vectors, load, store};

/// Rows a task.
pub const BLOCK: usize = 64;

/// Run `kernel(row)` for every row, blocks of rows in parallel.
fn rows<K: Kernel<Out = ()>>(total: usize, kernel: impl Fn(usize) -> K + Sync) {
    let level = Level::detect();
    parallel_for(total.div_ceil(BLOCK), |block| {
        for row in block * BLOCK..((block + 1) * BLOCK).min(total) {
            // SAFETY: the level was detected; pointers are the caller's promise.
            unsafe { dispatch(level, kernel(row)) };
        }
    });
}

/// sigmoid(z).
#[inline(always)]
unsafe fn sigmoid<S: Simd>(z: S::V) -> S::V {
    // SAFETY: register arithmetic only.
    unsafe {
        S::div(
            S::splat(1.0),
            S::add(S::splat(1.0), exp::<S>(S::sub(S::splat(0.0), z))),
        )
    }
}

/// (silu(z), its derivative).
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
pub(crate) unsafe fn silu_slope<S: Simd>(z: S::V) -> (S::V, S::V) {
    // SAFETY: register arithmetic only.
    unsafe {
        let s = sigmoid::<S>(z);
        let one = S::splat(1.0);
        (S::mul(z, s), S::mul(s, S::fma(z, S::sub(one, s), one)))
    }
}

/// Rows x [T, C], normalised in G groups of columns after a gate: norm(x * silu(z)) * weight.
#[derive(Clone, Copy)]
pub struct Norm {
    /// Rows T, columns C, groups G.
    pub sizes: [usize; 3],
    /// x [T, C].
    pub x: *const f32,
    /// Elements from a row of x to the next.
    pub x_row: usize,
    /// Gate z [T, C]; null: no gate.
    pub z: *const f32,
    /// Elements from a row of z to the next.
    pub z_row: usize,
    /// Weight [C].
    pub weight: *const f32,
    /// Added to the mean of squares.
    pub eps: f32,
}

// SAFETY: inputs are only read.
unsafe impl Sync for Norm {}

/// Where the gradient of a [`Norm`] goes; all contiguous.
#[derive(Clone, Copy)]
pub struct NormGrads {
    /// 1 / sqrt(mean + eps) [T, G] of the forward pass, given.
    pub scales: *const f32,
    /// Gradient of y [T, C], given.
    pub dy: *const f32,
    /// Gradient of x [T, C].
    pub dx: *mut f32,
    /// Gradient of z [T, C]; null without a gate.
    pub dz: *mut f32,
    /// Each block's part of the gradient of weight [ceil(T / BLOCK), C].
    pub dweight: *mut f32,
}

// SAFETY: tasks write their own rows.
unsafe impl Sync for NormGrads {}

impl Norm {
    /// The `n` gated inputs of `row` at column `at`.
    #[inline(always)]
    unsafe fn gated<S: Simd>(&self, row: usize, at: usize, n: usize) -> S::V {
        // SAFETY: at + n <= C.
        unsafe {
            let x = load::<S>(self.x.add(row * self.x_row + at), n);
            if self.z.is_null() {
                return x;
            }
            let z = load::<S>(self.z.add(row * self.z_row + at), n);
            S::mul(x, crate::simd::silu::<S>(z))
        }
    }
}

struct NormForward<'a> {
    norm: &'a Norm,
    row: usize,
    y: *mut f32,
    scales: *mut f32,
}

impl Kernel for NormForward<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let [_, columns, groups] = self.norm.sizes;
        let width = columns / groups;
        for group in 0..groups {
            // SAFETY: columns of this row.
            unsafe {
                let y = self.y.add(self.row * columns);
                let first = group * width;
                let mut squares = S::splat(0.0);
                for_vectors!(S, width, |i, n| {
                    let u = self.norm.gated::<S>(self.row, first + i, n);
                    store::<S>(y.add(first + i), u, n);
                    squares = S::fma(u, u, squares);
                });
                let scale = 1.0 / (S::sum(squares) / width as f32 + self.norm.eps).sqrt();
                *self.scales.add(self.row * groups + group) = scale;
                for_vectors!(S, width, |i, n| {
                    let to = y.add(first + i);
                    let weight = load::<S>(self.norm.weight.add(first + i), n);
                    store::<S>(
                        to,
                        S::mul(S::mul(load::<S>(to, n), S::splat(scale)), weight),
                        n,
                    );
                });
            }
        }
    }
}

struct NormBackward<'a> {
    norm: &'a Norm,
    row: usize,
    grads: &'a NormGrads,
}

impl Kernel for NormBackward<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (norm, grads) = (self.norm, self.grads);
        let [_, columns, groups] = norm.sizes;
        let width = columns / groups;
        // SAFETY: columns of this row and of its block's partial sums.
        unsafe {
            let dweight = grads.dweight.add(self.row / BLOCK * columns);
            let dy = grads.dy.add(self.row * columns);
            let dx = grads.dx.add(self.row * columns);
            for group in 0..groups {
                let first = group * width;
                let scale = *grads.scales.add(self.row * groups + group);
                let mut product = S::splat(0.0);
                for_vectors!(S, width, |i, n| {
                    let u = norm.gated::<S>(self.row, first + i, n);
                    let d = load::<S>(dy.add(first + i), n);
                    let part = S::mul(S::mul(d, u), S::splat(scale));
                    let to = dweight.add(first + i);
                    store::<S>(to, S::add(load::<S>(to, n), part), n);
                    product = S::fma(part, load::<S>(norm.weight.add(first + i), n), product);
                });
                // du = scale (dy w - u scale mean(dy w u scale))
                let pull = S::splat(scale * S::sum(product) / width as f32);
                for_vectors!(S, width, |i, n| {
                    let at = first + i;
                    let d = S::mul(load::<S>(dy.add(at), n), load::<S>(norm.weight.add(at), n));
                    let u = norm.gated::<S>(self.row, at, n);
                    let du = S::mul(S::sub(d, S::mul(u, pull)), S::splat(scale));
                    if norm.z.is_null() {
                        store::<S>(dx.add(at), du, n);
                    } else {
                        let z = load::<S>(norm.z.add(self.row * norm.z_row + at), n);
                        let x = load::<S>(norm.x.add(self.row * norm.x_row + at), n);
                        let (silu, slope) = silu_slope::<S>(z);
                        store::<S>(dx.add(at), S::mul(du, silu), n);
                        let dz = S::mul(S::mul(du, x), slope);
                        store::<S>(grads.dz.add(self.row * columns + at), dz, n);
                    }
                });
            }
        }
    }
}

/// Compute y [T, C] and the factors 1 / sqrt(mean + eps) [T, G].
///
/// # Safety
/// All pointers must be valid for the sizes named, outputs apart from inputs.
pub unsafe fn norm_forward(norm: Norm, y: *mut f32, scales: *mut f32) {
    let (norm, y, scales) = (&norm, SharedMut(y), SharedMut(scales));
    rows(norm.sizes[0], |row| {
        // SAFETY: the start of each allocation.
        let (y, scales) = unsafe { (y.at(0), scales.at(0)) };
        NormForward {
            norm,
            row,
            y,
            scales,
        }
    });
}

/// Compute the gradient of [`norm_forward`]; `dweight` must hold zeros.
///
/// # Safety
/// All pointers must be valid for the sizes named, outputs apart from inputs.
pub unsafe fn norm_backward(norm: Norm, grads: NormGrads) {
    let (norm, grads) = (&norm, &grads);
    rows(norm.sizes[0], |row| NormBackward { norm, row, grads });
}

/// Rows gate and up [T, C]: silu(gate) * up.
#[derive(Clone, Copy)]
pub struct Swiglu {
    /// Rows T, columns C.
    pub sizes: [usize; 2],
    /// gate [T, C].
    pub gate: *const f32,
    /// Elements from a row of gate to the next.
    pub gate_row: usize,
    /// up [T, C].
    pub up: *const f32,
    /// Elements from a row of up to the next.
    pub up_row: usize,
}

// SAFETY: inputs are only read.
unsafe impl Sync for Swiglu {}

struct SwigluForward<'a> {
    t: &'a Swiglu,
    row: usize,
    y: *mut f32,
}

impl Kernel for SwigluForward<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: columns of this row.
        unsafe {
            let gate = self.t.gate.add(self.row * self.t.gate_row);
            let up = self.t.up.add(self.row * self.t.up_row);
            let y = self.y.add(self.row * self.t.sizes[1]);
            for_vectors!(S, self.t.sizes[1], |i, n| {
                let silu = crate::simd::silu::<S>(load::<S>(gate.add(i), n));
                store::<S>(y.add(i), S::mul(silu, load::<S>(up.add(i), n)), n);
            });
        }
    }
}

struct SwigluBackward<'a> {
    t: &'a Swiglu,
    row: usize,
    dy: *const f32,
    dgate: *mut f32,
    dup: *mut f32,
}

impl Kernel for SwigluBackward<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: columns of this row.
        unsafe {
            let gate = self.t.gate.add(self.row * self.t.gate_row);
            let up = self.t.up.add(self.row * self.t.up_row);
            let at = self.row * self.t.sizes[1];
            for_vectors!(S, self.t.sizes[1], |i, n| {
                let (silu, slope) = silu_slope::<S>(load::<S>(gate.add(i), n));
                let d = load::<S>(self.dy.add(at + i), n);
                let through = S::mul(d, load::<S>(up.add(i), n));
                store::<S>(self.dgate.add(at + i), S::mul(through, slope), n);
                store::<S>(self.dup.add(at + i), S::mul(d, silu), n);
            });
        }
    }
}

/// Compute y [T, C].
///
/// # Safety
/// All pointers must be valid for the sizes named, outputs apart from inputs.
pub unsafe fn swiglu_forward(swiglu: Swiglu, y: *mut f32) {
    let (t, y) = (&swiglu, SharedMut(y));
    // SAFETY: the start of the allocation.
    rows(t.sizes[0], |row| SwigluForward {
        t,
        row,
        y: unsafe { y.at(0) },
    });
}

/// Compute the gradients of gate and up [T, C] from dy [T, C].
///
/// # Safety
/// All pointers must be valid for the sizes named, outputs apart from inputs.
pub unsafe fn swiglu_backward(swiglu: Swiglu, dy: *const f32, dgate: *mut f32, dup: *mut f32) {
    let (t, dy) = (&swiglu, SharedMut(dy.cast_mut()));
    let (dgate, dup) = (SharedMut(dgate), SharedMut(dup));
    rows(t.sizes[0], |row| {
        // SAFETY: the start of each allocation.
        let (dy, dgate, dup) = unsafe { (dy.at(0).cast_const(), dgate.at(0), dup.at(0)) };
        SwigluBackward {
            t,
            row,
            dy,
            dgate,
            dup,
        }
    });
}

/// Heads to rotate: x [T, heads * P], contiguous inside a row; cos and sin [T, P / 2].
#[derive(Clone, Copy)]
pub struct Rope {
    /// Rows T, heads, head width P (even).
    pub sizes: [usize; 3],
    /// x [T, heads * P].
    pub x: *const f32,
    /// Elements from a row of x to the next.
    pub x_row: usize,
    /// Cosines.
    pub cos: *const f32,
    /// Sines.
    pub sin: *const f32,
    /// Rotate backwards: the gradient.
    pub reverse: bool,
}

// SAFETY: inputs are only read.
unsafe impl Sync for Rope {}

struct RopeRow<'a> {
    t: &'a Rope,
    row: usize,
    y: *mut f32,
}

impl Kernel for RopeRow<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let [_, heads, width] = self.t.sizes;
        let half = width / 2;
        for head in 0..heads {
            // SAFETY: columns of this row.
            unsafe {
                let x = self.t.x.add(self.row * self.t.x_row + head * width);
                let y = self.y.add((self.row * heads + head) * width);
                for_vectors!(S, half, |i, n| {
                    let (a, b) = (load::<S>(x.add(i), n), load::<S>(x.add(half + i), n));
                    let c = load::<S>(self.t.cos.add(self.row * half + i), n);
                    let s = load::<S>(self.t.sin.add(self.row * half + i), n);
                    let s = if self.t.reverse {
                        S::sub(S::splat(0.0), s)
                    } else {
                        s
                    };
                    store::<S>(y.add(i), S::sub(S::mul(a, c), S::mul(b, s)), n);
                    store::<S>(y.add(half + i), S::fma(a, s, S::mul(b, c)), n);
                });
            }
        }
    }
}

/// Rotate x by its angles, half-split, into y [T, heads * P].
///
/// # Safety
/// All pointers must be valid for the sizes named, outputs apart from inputs.
pub unsafe fn rope(rope: Rope, y: *mut f32) {
    let (t, y) = (&rope, SharedMut(y));
    // SAFETY: the start of the allocation.
    rows(t.sizes[0], |row| RopeRow {
        t,
        row,
        y: unsafe { y.at(0) },
    });
}

/// Rows of logits [T, V], contiguous, with one target each in 0 .. V.
#[derive(Clone, Copy)]
pub struct CrossEntropy {
    /// Rows T, vocabulary V.
    pub sizes: [usize; 2],
    /// Logits; overwritten by their gradient when that is asked for.
    pub logits: *mut f32,
    /// Targets [T].
    pub targets: *const i64,
    /// Factor of the logits.
    pub scale: f32,
}

// SAFETY: tasks touch their own rows.
unsafe impl Sync for CrossEntropy {}

struct CrossEntropyForward<'a> {
    t: &'a CrossEntropy,
    row: usize,
    losses: *mut f32,
    lse: *mut f32,
}

impl Kernel for CrossEntropyForward<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let vocabulary = self.t.sizes[1];
        let scale = self.t.scale;
        // SAFETY: columns of this row; the target was checked.
        unsafe {
            let logits = self.t.logits.add(self.row * vocabulary).cast_const();
            let mut highest = S::splat(f32::NEG_INFINITY);
            let whole = vocabulary - vocabulary % S::LANES;
            for i in (0..whole).step_by(S::LANES) {
                highest = S::max(S::mul(S::load(logits.add(i)), S::splat(scale)), highest);
            }
            let mut top = S::max_lane(highest);
            for i in whole..vocabulary {
                top = top.max(*logits.add(i) * scale);
            }
            let mut sum = S::splat(0.0);
            for i in (0..whole).step_by(S::LANES) {
                let score = S::mul(S::load(logits.add(i)), S::splat(scale));
                sum = S::add(sum, exp::<S>(S::sub(score, S::splat(top))));
            }
            let mut sum = S::sum(sum);
            for i in whole..vocabulary {
                sum += (*logits.add(i) * scale - top).exp();
            }
            let lse = top + sum.ln();
            *self.lse.add(self.row) = lse;
            let target = *self.t.targets.add(self.row) as usize;
            *self.losses.add(self.row) = lse - *logits.add(target) * scale;
        }
    }
}

struct CrossEntropyBackward<'a> {
    t: &'a CrossEntropy,
    row: usize,
    lse: *const f32,
    dlosses: *const f32,
}

impl Kernel for CrossEntropyBackward<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let vocabulary = self.t.sizes[1];
        // SAFETY: columns of this row; the target was checked.
        unsafe {
            let logits = self.t.logits.add(self.row * vocabulary);
            let factor = *self.dlosses.add(self.row) * self.t.scale;
            let lse = S::splat(*self.lse.add(self.row));
            for_vectors!(S, vocabulary, |i, n| {
                let score = S::mul(load::<S>(logits.add(i), n), S::splat(self.t.scale));
                let probability = exp::<S>(S::sub(score, lse));
                store::<S>(logits.add(i), S::mul(probability, S::splat(factor)), n);
            });
            *logits.add(*self.t.targets.add(self.row) as usize) -= factor;
        }
    }
}

/// Compute the losses [T] and log-sum-exps [T] of rows of logits.
///
/// # Safety
/// All pointers must be valid for the sizes named; targets must lie in 0 .. V.
pub unsafe fn cross_entropy_forward(rows_of: CrossEntropy, losses: *mut f32, lse: *mut f32) {
    let (t, losses, lse) = (&rows_of, SharedMut(losses), SharedMut(lse));
    rows(t.sizes[0], |row| {
        // SAFETY: the start of each allocation.
        let (losses, lse) = unsafe { (losses.at(0), lse.at(0)) };
        CrossEntropyForward {
            t,
            row,
            losses,
            lse,
        }
    });
}

/// Overwrite the logits by their gradient, given that of the losses [T].
///
/// # Safety
/// All pointers must be valid for the sizes named; targets must lie in 0 .. V.
pub unsafe fn cross_entropy_backward(rows_of: CrossEntropy, lse: *const f32, dlosses: *const f32) {
    let t = &rows_of;
    let (lse, dlosses) = (SharedMut(lse.cast_mut()), SharedMut(dlosses.cast_mut()));
    rows(t.sizes[0], |row| {
        // SAFETY: the start of each allocation.
        let (lse, dlosses) = unsafe { (lse.at(0).cast_const(), dlosses.at(0).cast_const()) };
        CrossEntropyBackward {
            t,
            row,
            lse,
            dlosses,
        }
    });
}
