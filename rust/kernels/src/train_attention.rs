//! Causal attention inside each packed sequence, with its gradient.
//!
//! Legend: T packed queries, E packed keys, H heads, K kv heads, P head width, L keys of a sequence.
//! One task is one (sequence, kv head); it walks that head's queries in blocks of [`ROWS`]. The forward pass
//! keeps each row's log-sum-exp, from which the gradient recomputes the probabilities (Dao 2023).

use crate::pool::{SharedMut, parallel_for};
use crate::simd::{Kernel, Level, Simd, dispatch, exp};
use crate::train_gemm::{Scratch, Strided, gemm, pack, padded, transpose, with_scratch};
use crate::train_vector::{dot, for_vectors, load, scale, store};

/// Query rows a block.
const ROWS: usize = 32;

/// q [T, H, P], k and v [E, K, P]; a sequence's queries are its last positions. Rows lie `*_row` elements apart and are contiguous inside.
#[derive(Clone, Copy)]
pub struct Attention<'a> {
    /// Heads H, kv heads K, head width P.
    pub sizes: [usize; 3],
    /// Start of each sequence's queries, and the end of the last.
    pub cu_seqlens: &'a [usize],
    /// The same of its keys: as many as queries, or more.
    pub cu_keys: &'a [usize],
    /// Queries.
    pub q: *const f32,
    /// Elements from a row of q to the next.
    pub q_row: usize,
    /// Keys.
    pub k: *const f32,
    /// Elements from a row of k to the next.
    pub k_row: usize,
    /// Values.
    pub v: *const f32,
    /// Elements from a row of v to the next.
    pub v_row: usize,
    /// Factor of the scores.
    pub scale: f32,
}

// SAFETY: inputs are only read.
unsafe impl Sync for Attention<'_> {}

/// Where the gradient of [`Attention`] goes; all contiguous.
#[derive(Clone, Copy)]
pub struct AttentionGrads {
    /// Output [T, H, P] of the forward pass, given.
    pub out: *const f32,
    /// Log-sum-exp [T, H] of the forward pass, given.
    pub lse: *const f32,
    /// Gradient of the output [T, H, P], given.
    pub dout: *const f32,
    /// Gradient of q [T, H, P].
    pub dq: *mut f32,
    /// Gradient of k [E, K, P].
    pub dk: *mut f32,
    /// Gradient of v [E, K, P].
    pub dv: *mut f32,
}

// SAFETY: tasks write the rows of their own sequence and heads.
unsafe impl Sync for AttentionGrads {}

/// Compute out [T, H, P] and the log-sum-exp [T, H] of each row's scaled scores.
///
/// # Safety
/// All pointers must be valid for the sizes named, outputs apart from inputs.
pub unsafe fn attention_forward(attention: Attention<'_>, out: *mut f32, lse: *mut f32) {
    let level = Level::detect();
    let (out, lse) = (SharedMut(out), SharedMut(lse));
    let shared = &attention;
    let kv_heads = shared.sizes[1];
    parallel_for((shared.cu_seqlens.len() - 1) * kv_heads, |task| {
        let p = Place::new(shared, task / kv_heads, task % kv_heads, level);
        let len = p.span * (p.width + p.wide) + ROWS * (p.wide * 2 + p.span);
        with_scratch(len, |scratch| {
            // SAFETY: passed on to the caller; each task writes its own rows and heads.
            unsafe {
                let (out, lse) = (out.at(0), lse.at(0));
                dispatch(
                    level,
                    Forward {
                        inputs: shared,
                        p,
                        scratch,
                        out,
                        lse,
                    },
                );
            }
        });
    });
}

/// Compute the gradient of [`attention_forward`].
///
/// # Safety
/// All pointers must be valid for the sizes named, outputs apart from inputs.
pub unsafe fn attention_backward(attention: Attention<'_>, grads: AttentionGrads) {
    let level = Level::detect();
    let (shared, grads) = (&attention, &grads);
    let kv_heads = shared.sizes[1];
    parallel_for((shared.cu_seqlens.len() - 1) * kv_heads, |task| {
        let p = Place::new(shared, task / kv_heads, task % kv_heads, level);
        let len = p.span * (2 * p.width + 3 * p.wide) + ROWS * (3 * p.wide + 2 * p.span);
        with_scratch(len, |scratch| {
            // SAFETY: as in `attention_forward`.
            unsafe {
                dispatch(
                    level,
                    Backward {
                        inputs: shared,
                        p,
                        scratch,
                        grads,
                    },
                );
            };
        });
    });
}

/// One (sequence, kv head): its rows, its query heads and its padded sizes.
#[derive(Clone, Copy)]
struct Place {
    level: Level,
    /// Of the keys.
    start: usize,
    /// Of the queries.
    query_start: usize,
    /// Leading keys that have no query.
    skip: usize,
    /// Keys.
    len: usize,
    kv_head: usize,
    /// Query heads a kv head serves.
    repeat: usize,
    width: usize,
    /// P and L rounded up to whole tiles.
    wide: usize,
    span: usize,
}

impl Place {
    fn new(inputs: &Attention<'_>, sequence: usize, kv_head: usize, level: Level) -> Self {
        let [heads, kv_heads, width] = inputs.sizes;
        let (start, query_start) = (inputs.cu_keys[sequence], inputs.cu_seqlens[sequence]);
        let len = inputs.cu_keys[sequence + 1] - start;
        let skip = len - (inputs.cu_seqlens[sequence + 1] - query_start);
        let (repeat, wide, span) = (heads / kv_heads, padded(width), padded(len));
        Self {
            level,
            start,
            query_start,
            skip,
            len,
            kv_head,
            repeat,
            width,
            wide,
            span,
        }
    }

    /// Where this kv head's rows of k or v start.
    fn key_at(&self, row: usize) -> usize {
        self.start * row + self.kv_head * self.width
    }

    /// The query's row whose position in the sequence is `position`, `skip` or more.
    fn query_row(&self, position: usize) -> usize {
        self.query_start + position - self.skip
    }

    /// Where the rows of query `head` from position `first` on start, rows `row` apart.
    fn query_at(&self, head: usize, first: usize, row: usize) -> usize {
        self.query_row(first) * row + head * self.width
    }

    unsafe fn gemm(
        &self,
        size: [usize; 3],
        a: Strided,
        b: (*const f32, usize),
        c: (*mut f32, usize),
        add: bool,
    ) {
        // SAFETY: passed on to the caller.
        unsafe { gemm(self.level, size, a, b, c, add) }
    }
}

struct Forward<'a, 'b> {
    inputs: &'a Attention<'a>,
    p: Place,
    scratch: Scratch<'b>,
    out: *mut f32,
    lse: *mut f32,
}

/// Turn a row of `keys` scores into probabilities, zero from there to `span`; its log-sum-exp.
#[inline(always)]
unsafe fn softmax<S: Simd>(row: *mut f32, keys: usize, span: usize, factor: f32) -> f32 {
    // SAFETY: keys <= span elements lie at row.
    unsafe {
        scale::<S>(row, row, factor, keys);
        // The padding repeats the first score, so that the maximum may run over whole registers.
        std::slice::from_raw_parts_mut(row.add(keys), span - keys).fill(*row);
        let mut highest = S::splat(f32::NEG_INFINITY);
        for i in (0..span).step_by(S::LANES) {
            highest = S::max(S::load(row.add(i)), highest);
        }
        let highest = S::max_lane(highest);
        let mut sum = S::splat(0.0);
        for_vectors!(S, keys, |i, n| {
            store::<S>(
                row.add(i),
                exp::<S>(S::sub(load::<S>(row.add(i), n), S::splat(highest))),
                n,
            );
            sum = S::add(sum, load::<S>(row.add(i), n));
        });
        let sum = S::sum(sum);
        scale::<S>(row, row, 1.0 / sum, keys);
        std::slice::from_raw_parts_mut(row.add(keys), span - keys).fill(0.0);
        highest + sum.ln()
    }
}

impl Kernel for Forward<'_, '_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let (t, p) = (self.inputs, &self.p);
        let heads = t.sizes[0];
        // SAFETY: scratch has the size its caller computed; rows and heads are this task's.
        unsafe {
            let keys = self.scratch.take(p.width * p.span).as_mut_ptr();
            let values = self.scratch.take(p.span * p.wide).as_mut_ptr();
            let q = self.scratch.take(ROWS * p.wide).as_mut_ptr();
            let out = self.scratch.take(ROWS * p.wide).as_mut_ptr();
            let scores = self.scratch.take(ROWS * p.span).as_mut_ptr();
            transpose(
                t.k.add(p.key_at(t.k_row)),
                t.k_row,
                p.len,
                p.width,
                keys,
                p.span,
            );
            pack(
                t.v.add(p.key_at(t.v_row)),
                t.v_row,
                p.len,
                p.width,
                values,
                p.wide,
            );
            for head in p.kv_head * p.repeat..(p.kv_head + 1) * p.repeat {
                for first in (p.skip..p.len).step_by(ROWS) {
                    let rows = (p.len - first).min(ROWS);
                    let extent = first + rows;
                    let span = padded(extent);
                    pack(
                        t.q.add(p.query_at(head, first, t.q_row)),
                        t.q_row,
                        rows,
                        p.width,
                        q,
                        p.wide,
                    );
                    p.gemm(
                        [rows, span, p.width],
                        Strided::rows(q, p.wide),
                        (keys, p.span),
                        (scores, p.span),
                        false,
                    );
                    for i in 0..rows {
                        let lse =
                            softmax::<S>(scores.add(i * p.span), first + i + 1, span, t.scale);
                        *self.lse.add(p.query_row(first + i) * heads + head) = lse;
                    }
                    p.gemm(
                        [rows, p.wide, extent],
                        Strided::rows(scores, p.span),
                        (values, p.wide),
                        (out, p.wide),
                        false,
                    );
                    for i in 0..rows {
                        let to = self.out.add(p.query_at(head, first + i, heads * p.width));
                        std::ptr::copy_nonoverlapping(out.add(i * p.wide), to, p.width);
                    }
                }
            }
        }
    }
}

struct Backward<'a, 'b> {
    inputs: &'a Attention<'a>,
    p: Place,
    scratch: Scratch<'b>,
    grads: &'a AttentionGrads,
}

impl Kernel for Backward<'_, '_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let (t, p, grads) = (self.inputs, &self.p, self.grads);
        let [heads, kv_heads, _] = t.sizes;
        // SAFETY: scratch has the size its caller computed; rows and heads are this task's.
        unsafe {
            let scratch = &mut self.scratch;
            let keys_flipped = scratch.take(p.width * p.span).as_mut_ptr();
            let values_flipped = scratch.take(p.width * p.span).as_mut_ptr();
            let keys = scratch.take(p.span * p.wide).as_mut_ptr();
            let (dk, dv) = (scratch.take(p.span * p.wide), scratch.take(p.span * p.wide));
            dk.fill(0.0);
            dv.fill(0.0);
            let (dk, dv) = (dk.as_mut_ptr(), dv.as_mut_ptr());
            let q = scratch.take(ROWS * p.wide).as_mut_ptr();
            let dout = scratch.take(ROWS * p.wide).as_mut_ptr();
            let dq = scratch.take(ROWS * p.wide).as_mut_ptr();
            let probabilities = scratch.take(ROWS * p.span).as_mut_ptr();
            let dscores = scratch.take(ROWS * p.span).as_mut_ptr();
            let (k, v) = (t.k.add(p.key_at(t.k_row)), t.v.add(p.key_at(t.v_row)));
            transpose(k, t.k_row, p.len, p.width, keys_flipped, p.span);
            transpose(v, t.v_row, p.len, p.width, values_flipped, p.span);
            pack(k, t.k_row, p.len, p.width, keys, p.wide);
            for head in p.kv_head * p.repeat..(p.kv_head + 1) * p.repeat {
                for first in (p.skip..p.len).step_by(ROWS) {
                    let rows = (p.len - first).min(ROWS);
                    let extent = first + rows;
                    let span = padded(extent);
                    let row = heads * p.width;
                    pack(
                        t.q.add(p.query_at(head, first, t.q_row)),
                        t.q_row,
                        rows,
                        p.width,
                        q,
                        p.wide,
                    );
                    pack(
                        grads.dout.add(p.query_at(head, first, row)),
                        row,
                        rows,
                        p.width,
                        dout,
                        p.wide,
                    );
                    let (left, right) = (Strided::rows(q, p.wide), Strided::rows(dout, p.wide));
                    p.gemm(
                        [rows, span, p.width],
                        left,
                        (keys_flipped, p.span),
                        (probabilities, p.span),
                        false,
                    );
                    p.gemm(
                        [rows, span, p.width],
                        right,
                        (values_flipped, p.span),
                        (dscores, p.span),
                        false,
                    );
                    for i in 0..rows {
                        let at = p.query_at(head, first + i, row);
                        let delta = dot::<S>(grads.dout.add(at), grads.out.add(at), p.width);
                        let lse = *grads.lse.add(p.query_row(first + i) * heads + head);
                        let (pr, ds) = (probabilities.add(i * p.span), dscores.add(i * p.span));
                        let seen = first + i + 1;
                        for_vectors!(S, seen, |j, n| {
                            let score = S::mul(load::<S>(pr.add(j), n), S::splat(t.scale));
                            let probability = exp::<S>(S::sub(score, S::splat(lse)));
                            let d = S::sub(load::<S>(ds.add(j), n), S::splat(delta));
                            let d = S::mul(S::mul(d, probability), S::splat(t.scale));
                            store::<S>(pr.add(j), probability, n);
                            store::<S>(ds.add(j), d, n);
                        });
                        std::slice::from_raw_parts_mut(pr.add(seen), span - seen).fill(0.0);
                        std::slice::from_raw_parts_mut(ds.add(seen), span - seen).fill(0.0);
                    }
                    let (ds, pr) = (
                        Strided::rows(dscores, p.span),
                        Strided::transposed(probabilities, p.span),
                    );
                    p.gemm(
                        [rows, p.wide, extent],
                        ds,
                        (keys, p.wide),
                        (dq, p.wide),
                        false,
                    );
                    let ds = Strided::transposed(dscores, p.span);
                    p.gemm([extent, p.wide, rows], ds, (q, p.wide), (dk, p.wide), true);
                    p.gemm(
                        [extent, p.wide, rows],
                        pr,
                        (dout, p.wide),
                        (dv, p.wide),
                        true,
                    );
                    for i in 0..rows {
                        let to = grads.dq.add(p.query_at(head, first + i, row));
                        std::ptr::copy_nonoverlapping(dq.add(i * p.wide), to, p.width);
                    }
                }
            }
            for i in 0..p.len {
                let to = p.key_at(kv_heads * p.width) + i * kv_heads * p.width;
                std::ptr::copy_nonoverlapping(dk.add(i * p.wide), grads.dk.add(to), p.width);
                std::ptr::copy_nonoverlapping(dv.add(i * p.wide), grads.dv.add(to), p.width);
            }
        }
    }
}
