//! Mamba-2's scan over packed sequences with its gradient, in chunks of Q tokens.
//!
//! Legend: T packed tokens, H heads, P head width, G groups, N state width, L tokens of a
//! sequence, Q chunk length. Inside a chunk the recurrence is the masked product
//! `M_ij = (C_i . B_j) exp(s_i - s_j) dt_j` for j <= i, s the running sum of dt A; between chunks
//! a state [P, N] is carried (Dao & Gu 2024, section 6). The chunk grid starts at each sequence.
//! One task is one (sequence, group): sums over heads run in one order on one thread. The
//! gradient keeps no state from the forward pass: it recomputes the state each chunk starts from.

use crate::pool::{SharedMut, parallel_for};
use crate::simd::{Kernel, Level, Simd, dispatch};
use crate::train_gemm::{Scratch, Strided, pack, transpose, with_scratch};
use crate::train_ssd_backward::Backward;
use crate::train_ssd_parts::{Decay, Place, Q, Shared, advance, end_state, start_state};
use crate::train_vector::{add_scaled, scale};

/// The tensors of a scan. Rows of x [T, H, P], dt [T, H], B and C [T, G, N] lie `*_row` elements
/// apart and are contiguous inside; A and D are [H]; states are [S, H, P, N].
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    /// Heads H, head width P, groups G, state width N.
    pub sizes: [usize; 4],
    /// Start of each sequence, and the end of the last.
    pub cu_seqlens: &'a [usize],
    /// x [T, H, P].
    pub x: *const f32,
    /// Elements from a row of x to the next.
    pub x_row: usize,
    /// dt [T, H], after softplus.
    pub dt: *const f32,
    /// Elements from a row of dt to the next.
    pub dt_row: usize,
    /// A [H], negative.
    pub a: *const f32,
    /// B [T, G, N].
    pub b: *const f32,
    /// Elements from a row of B to the next.
    pub b_row: usize,
    /// C [T, G, N].
    pub c: *const f32,
    /// Elements from a row of C to the next.
    pub c_row: usize,
    /// D [H].
    pub d: *const f32,
    /// The state each sequence starts from [S, H, P, N]; null: zero.
    pub initial_state: *const f32,
}

// SAFETY: inputs are only read.
unsafe impl Sync for Scan<'_> {}

/// Where the gradient of a [`Scan`] goes; all contiguous.
#[derive(Clone, Copy)]
pub struct ScanGrads {
    /// Gradient of y [T, H, P], given.
    pub dy: *const f32,
    /// Gradient of the final state [S, H, P, N], given; null: zero.
    pub dfinal: *const f32,
    /// Gradient of x [T, H, P].
    pub dx: *mut f32,
    /// Gradient of dt [T, H].
    pub ddt: *mut f32,
    /// Gradient of B [T, G, N].
    pub db: *mut f32,
    /// Gradient of C [T, G, N].
    pub dc: *mut f32,
    /// Gradient of the initial state [S, H, P, N]; null: not wanted.
    pub dinitial: *mut f32,
    /// Each sequence's part of the gradient of A [S, H].
    pub da: *mut f32,
    /// Each sequence's part of the gradient of D [S, H].
    pub dd: *mut f32,
}

// SAFETY: tasks write the rows of their own sequence and group.
unsafe impl Sync for ScanGrads {}

/// Compute y [T, H, P] and the final state [S, H, P, N].
///
/// # Safety
/// All pointers must be valid for the sizes named, outputs apart from inputs.
pub unsafe fn ssd_forward(scan: Scan<'_>, y: *mut f32, final_state: *mut f32) {
    let level = Level::detect();
    let (y, final_state) = (SharedMut(y), SharedMut(final_state));
    let groups = scan.sizes[2];
    let shared = &scan;
    parallel_for((scan.cu_seqlens.len() - 1) * groups, |task| {
        let place = Place::new(shared, task / groups, task % groups, level);
        with_scratch(place.forward_len(), |scratch| {
            // SAFETY: passed on to the caller; each task writes its own rows and heads.
            unsafe {
                let (y, final_state) = (y.at(0), final_state.at(0));
                dispatch(
                    level,
                    Forward {
                        scan: shared,
                        place,
                        scratch,
                        y,
                        final_state,
                    },
                );
            }
        });
    });
}

/// Compute the gradient of [`ssd_forward`].
///
/// # Safety
/// All pointers must be valid for the sizes named, outputs apart from inputs.
pub unsafe fn ssd_backward(scan: Scan<'_>, grads: ScanGrads) {
    let level = Level::detect();
    let groups = scan.sizes[2];
    let (shared, grads) = (&scan, &grads);
    parallel_for((scan.cu_seqlens.len() - 1) * groups, |task| {
        let place = Place::new(shared, task / groups, task % groups, level);
        with_scratch(place.backward_len(), |scratch| {
            // SAFETY: as in `ssd_forward`.
            unsafe {
                dispatch(
                    level,
                    Backward {
                        scan: shared,
                        place,
                        scratch,
                        grads,
                    },
                );
            };
        });
    });
}

struct Forward<'a, 'b> {
    scan: &'a Scan<'a>,
    place: Place,
    scratch: Scratch<'b>,
    y: *mut f32,
    final_state: *mut f32,
}

impl Kernel for Forward<'_, '_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let (scan, p) = (self.scan, &self.place);
        // SAFETY: scratch has `forward_len` elements; rows and heads are this task's.
        unsafe {
            let shared = Shared::new(scan, p, &mut self.scratch);
            let state = self.scratch.take(p.width * p.deep).as_mut_ptr();
            let flipped = self.scratch.take(p.state * p.wide).as_mut_ptr();
            let x = self.scratch.take(Q * p.wide).as_mut_ptr();
            let y = self.scratch.take(Q * p.wide).as_mut_ptr();
            let mixing = self.scratch.take(Q * Q).as_mut_ptr();
            for head in p.group * p.heads..(p.group + 1) * p.heads {
                start_state(scan, p, head, state);
                let skip = *scan.d.add(head);
                for chunk in 0..p.chunks {
                    let (first, rows) = p.rows(chunk);
                    let decay = Decay::new::<S>(scan, p, head, chunk);
                    let column = head * p.width;
                    let from = scan.x.add((p.start + first) * scan.x_row + column);
                    pack(from, scan.x_row, rows, p.width, x, p.wide);
                    let (b, c) = (
                        shared.b.as_ptr().add(first * p.deep),
                        shared.c.as_ptr().add(first * p.deep),
                    );
                    let fresh = chunk == 0 && scan.initial_state.is_null();
                    if !fresh {
                        transpose(state, p.deep, p.width, p.state, flipped, p.wide);
                        let size = [rows, p.wide, p.state];
                        p.gemm(
                            size,
                            Strided::rows(c, p.deep),
                            (flipped, p.wide),
                            (y, p.wide),
                            false,
                        );
                        for t in 0..rows {
                            let row = y.add(t * p.wide);
                            scale::<S>(row, row, decay.since[t], p.wide);
                        }
                    }
                    decay.between::<S>(mixing);
                    let cb = shared.cb.as_ptr().add(first * Q);
                    for i in 0..rows {
                        for j in (0..Q).step_by(S::LANES) {
                            let at = i * Q + j;
                            let m = S::mul(S::load(mixing.add(at)), S::load(cb.add(at)));
                            let m = S::mul(m, S::load(decay.dt.as_ptr().add(j)));
                            S::store(mixing.add(at), m);
                        }
                    }
                    let size = [rows, p.wide, rows];
                    p.gemm(
                        size,
                        Strided::rows(mixing, Q),
                        (x, p.wide),
                        (y, p.wide),
                        !fresh,
                    );
                    for t in 0..rows {
                        let row = x.add(t * p.wide);
                        let to = self
                            .y
                            .add(((p.start + first + t) * scan.sizes[0] + head) * p.width);
                        add_scaled::<S>(y.add(t * p.wide), row, skip, p.wide);
                        std::ptr::copy_nonoverlapping(y.add(t * p.wide), to, p.width);
                        scale::<S>(row, row, decay.dt[t] * decay.until[t], p.wide);
                    }
                    advance::<S>(p, decay.whole(), x, b, rows, state);
                }
                end_state(scan, p, head, state, self.final_state);
            }
        }
    }
}
