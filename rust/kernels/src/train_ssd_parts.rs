//! What the scan's forward and backward passes share: a task's place, its tiles, its decays.
//!
//! Legend as in `train_ssd`: L tokens of a sequence, P head width, N state width, Q chunk length.

use crate::simd::{Level, Simd, exp};
use crate::train_gemm::{Scratch, Strided, gemm, pack, padded, transpose};
use crate::train_ssd::Scan;
use crate::train_vector::scale;

/// Tokens a chunk; a multiple of the padding of tiles.
pub(crate) const Q: usize = 32;

/// One (sequence, group): its rows, its heads and its padded sizes.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) level: Level,
    pub(crate) sequence: usize,
    pub(crate) group: usize,
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) chunks: usize,
    pub(crate) heads: usize,
    pub(crate) width: usize,
    pub(crate) state: usize,
    /// P and N rounded up to whole tiles.
    pub(crate) wide: usize,
    pub(crate) deep: usize,
}

impl Place {
    pub(crate) fn new(scan: &Scan<'_>, sequence: usize, group: usize, level: Level) -> Self {
        let [heads, width, groups, state] = scan.sizes;
        let start = scan.cu_seqlens[sequence];
        let len = scan.cu_seqlens[sequence + 1] - start;
        Self {
            level,
            sequence,
            group,
            start,
            len,
            chunks: len.div_ceil(Q),
            heads: heads / groups,
            width,
            state,
            wide: padded(width),
            deep: padded(state),
        }
    }

    pub(crate) fn group_len(&self) -> usize {
        self.chunks * Q * (2 * self.deep + Q) + Q * self.state
    }

    pub(crate) fn forward_len(&self) -> usize {
        self.group_len()
            + (self.width + Q * 3) * self.deep.max(self.wide)
            + Q * Q
            + 3 * Q
            + self.state * self.wide
    }

    pub(crate) fn backward_len(&self) -> usize {
        let rows = self.chunks * Q;
        self.group_len()
            + rows * (2 * self.deep + Q + self.wide + 1)
            + (self.chunks + 2) * self.width * self.deep
            + self.state * self.wide
            + 5 * Q * self.wide.max(self.deep)
            + self.width * Q
            + 3 * Q * Q
            + 8 * Q
    }

    /// Rows of chunk `c` and how many there are.
    pub(crate) fn rows(&self, c: usize) -> (usize, usize) {
        (c * Q, (self.len - c * Q).min(Q))
    }

    pub(crate) unsafe fn gemm(
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

/// What all heads of a group share: B and C [L, N] as tiles, and C B^T a chunk.
pub(crate) struct Shared<'a> {
    pub(crate) b: &'a mut [f32],
    pub(crate) c: &'a mut [f32],
    pub(crate) cb: &'a mut [f32],
}

impl<'a> Shared<'a> {
    #[inline(always)]
    pub(crate) unsafe fn new(scan: &Scan<'_>, p: &Place, scratch: &mut Scratch<'a>) -> Self {
        let rows = p.chunks * Q;
        let (b, c) = (scratch.take(rows * p.deep), scratch.take(rows * p.deep));
        let cb = scratch.take(rows * Q);
        let flipped = scratch.take(p.state * Q).as_mut_ptr();
        // SAFETY: rows of this sequence, columns of this group.
        unsafe {
            let from = p.group * p.state;
            let source = scan.b.add(p.start * scan.b_row + from);
            pack(source, scan.b_row, p.len, p.state, b.as_mut_ptr(), p.deep);
            let source = scan.c.add(p.start * scan.c_row + from);
            pack(source, scan.c_row, p.len, p.state, c.as_mut_ptr(), p.deep);
            for chunk in 0..p.chunks {
                let (first, rows) = p.rows(chunk);
                transpose(
                    b.as_ptr().add(first * p.deep),
                    p.deep,
                    rows,
                    p.state,
                    flipped,
                    Q,
                );
                let left = Strided::rows(c.as_ptr().add(first * p.deep), p.deep);
                let out = (cb.as_mut_ptr().add(first * Q), Q);
                p.gemm([rows, Q, p.state], left, (flipped, Q), out, false);
            }
        }
        Self { b, c, cb }
    }
}

/// A chunk of one head: dt, the running sum of dt A, and its exponentials.
pub(crate) struct Decay {
    pub(crate) dt: [f32; Q],
    pub(crate) sum: [f32; Q],
    /// `exp(s_t)`, from the chunk's start through t.
    pub(crate) since: [f32; Q],
    /// `exp(s_last - s_t)`, from t to the chunk's end.
    pub(crate) until: [f32; Q],
    pub(crate) rows: usize,
}

impl Decay {
    #[inline(always)]
    pub(crate) unsafe fn new<S: Simd>(
        scan: &Scan<'_>,
        p: &Place,
        head: usize,
        chunk: usize,
    ) -> Self {
        let (first, rows) = p.rows(chunk);
        let zero = [0.0; Q];
        let mut decay = Self {
            dt: zero,
            sum: zero,
            since: zero,
            until: zero,
            rows,
        };
        // SAFETY: rows of this sequence; arrays of Q.
        unsafe {
            let a = *scan.a.add(head);
            let mut sum = 0.0;
            for t in 0..rows {
                decay.dt[t] = *scan.dt.add((p.start + first + t) * scan.dt_row + head);
                sum += decay.dt[t] * a;
                decay.sum[t] = sum;
            }
            for t in (0..Q).step_by(S::LANES) {
                let s = S::load(decay.sum.as_ptr().add(t));
                S::store(decay.since.as_mut_ptr().add(t), exp::<S>(s));
                let rest = S::min(S::sub(S::splat(sum), s), S::splat(0.0));
                S::store(decay.until.as_mut_ptr().add(t), exp::<S>(rest));
            }
        }
        decay
    }

    pub(crate) fn whole(&self) -> f32 {
        self.since[self.rows - 1]
    }

    /// `out_ij = exp(s_i - s_j)` for j <= i, else 0; [rows, Q].
    #[inline(always)]
    pub(crate) unsafe fn between<S: Simd>(&self, out: *mut f32) {
        for i in 0..self.rows {
            for j in (0..Q).step_by(S::LANES) {
                // SAFETY: j + LANES <= Q.
                unsafe {
                    let to = out.add(i * Q + j);
                    if j > i {
                        S::store(to, S::splat(0.0));
                        continue;
                    }
                    let s = S::load(self.sum.as_ptr().add(j));
                    let gap = S::min(S::sub(S::splat(self.sum[i]), s), S::splat(0.0));
                    S::store(to, exp::<S>(gap));
                    for l in i + 1..j + S::LANES {
                        *out.add(i * Q + l) = 0.0;
                    }
                }
            }
        }
    }
}

/// state [P, N] = state * kept + weighted x^T B.
#[inline(always)]
pub(crate) unsafe fn advance<S: Simd>(
    p: &Place,
    kept: f32,
    wx: *const f32,
    b: *const f32,
    rows: usize,
    state: *mut f32,
) {
    // SAFETY: tiles of the caller.
    unsafe {
        scale::<S>(state, state, kept, p.width * p.deep);
        let size = [p.width, p.deep, rows];
        p.gemm(
            size,
            Strided::transposed(wx, p.wide),
            (b, p.deep),
            (state, p.deep),
            true,
        );
    }
}

/// Fill a state tile [P, N] from the initial state of (sequence, head), or with zeros.
#[inline(always)]
pub(crate) unsafe fn start_state(scan: &Scan<'_>, p: &Place, head: usize, state: *mut f32) {
    // SAFETY: the state [P, N] of this sequence and head.
    unsafe {
        if scan.initial_state.is_null() {
            std::slice::from_raw_parts_mut(state, p.width * p.deep).fill(0.0);
        } else {
            let at = (p.sequence * scan.sizes[0] + head) * p.width * p.state;
            pack(
                scan.initial_state.add(at),
                p.state,
                p.width,
                p.state,
                state,
                p.deep,
            );
        }
    }
}

/// Write a state tile to [S, H, P, N] of (sequence, head).
#[inline(always)]
pub(crate) unsafe fn end_state(
    scan: &Scan<'_>,
    p: &Place,
    head: usize,
    state: *const f32,
    out: *mut f32,
) {
    // SAFETY: as above.
    unsafe {
        let at = (p.sequence * scan.sizes[0] + head) * p.width * p.state;
        for i in 0..p.width {
            std::ptr::copy_nonoverlapping(
                state.add(i * p.deep),
                out.add(at + i * p.state),
                p.state,
            );
        }
    }
}
