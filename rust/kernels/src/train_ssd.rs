//! Mamba-2's scan over packed sequences with its gradient, in chunks of [`Q`] tokens.
//!
//! Legend: T packed tokens, H heads, P head width, G groups, N state width, L tokens of a
//! sequence, Q chunk length. Inside a chunk the recurrence is the masked product
//! `M_ij = (C_i . B_j) exp(s_i - s_j) dt_j` for j <= i, s the running sum of dt A; between chunks
//! a state [P, N] is carried (Dao & Gu 2024, section 6). The chunk grid starts at each sequence.
//! One task is one (sequence, group): sums over heads run in one order on one thread. The
//! gradient keeps no state from the forward pass: it recomputes the state each chunk starts from.

use crate::pool::{SharedMut, parallel_for};
use crate::simd::{Kernel, Level, Simd, dispatch, exp};
use crate::train_gemm::{Gemm, Scratch, Strided, pack, padded, transpose, with_scratch};
use crate::train_vector::{add_scaled, dot, scale};

/// Tokens a chunk; a multiple of the padding of tiles.
const Q: usize = 32;

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

/// One (sequence, group): its rows, its heads and its padded sizes.
#[derive(Clone, Copy)]
struct Place {
    level: Level,
    sequence: usize,
    group: usize,
    start: usize,
    len: usize,
    chunks: usize,
    heads: usize,
    width: usize,
    state: usize,
    /// P and N rounded up to whole tiles.
    wide: usize,
    deep: usize,
}

impl Place {
    fn new(scan: &Scan<'_>, sequence: usize, group: usize, level: Level) -> Self {
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

    fn group_len(&self) -> usize {
        self.chunks * Q * (2 * self.deep + Q) + Q * self.state
    }

    fn forward_len(&self) -> usize {
        self.group_len()
            + (self.width + Q * 3) * self.deep.max(self.wide)
            + Q * Q
            + 3 * Q
            + self.state * self.wide
    }

    fn backward_len(&self) -> usize {
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
    fn rows(&self, c: usize) -> (usize, usize) {
        (c * Q, (self.len - c * Q).min(Q))
    }

    unsafe fn gemm(
        &self,
        size: [usize; 3],
        a: Strided,
        b: (*const f32, usize),
        c: (*mut f32, usize),
        add: bool,
    ) {
        let [m, n, k] = size;
        // SAFETY: passed on to the caller.
        unsafe {
            Gemm {
                m,
                n,
                k,
                a,
                b: b.0,
                b_row: b.1,
                c: c.0,
                c_row: c.1,
                add,
            }
            .call(self.level);
        }
    }
}

/// What all heads of a group share: B and C [L, N] as tiles, and C B^T a chunk.
struct Shared<'a> {
    b: &'a mut [f32],
    c: &'a mut [f32],
    cb: &'a mut [f32],
}

impl<'a> Shared<'a> {
    #[inline(always)]
    unsafe fn new(scan: &Scan<'_>, p: &Place, scratch: &mut Scratch<'a>) -> Self {
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
struct Decay {
    dt: [f32; Q],
    sum: [f32; Q],
    /// `exp(s_t)`, from the chunk's start through t.
    since: [f32; Q],
    /// `exp(s_last - s_t)`, from t to the chunk's end.
    until: [f32; Q],
    rows: usize,
}

impl Decay {
    #[inline(always)]
    unsafe fn new<S: Simd>(scan: &Scan<'_>, p: &Place, head: usize, chunk: usize) -> Self {
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

    fn whole(&self) -> f32 {
        self.since[self.rows - 1]
    }

    /// `out_ij = exp(s_i - s_j)` for j <= i, else 0; [rows, Q].
    #[inline(always)]
    unsafe fn between<S: Simd>(&self, out: *mut f32) {
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

struct Forward<'a, 'b> {
    scan: &'a Scan<'a>,
    place: Place,
    scratch: Scratch<'b>,
    y: *mut f32,
    final_state: *mut f32,
}

/// state [P, N] = state * kept + weighted x^T B.
#[inline(always)]
unsafe fn advance<S: Simd>(
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
unsafe fn start_state(scan: &Scan<'_>, p: &Place, head: usize, state: *mut f32) {
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
unsafe fn end_state(scan: &Scan<'_>, p: &Place, head: usize, state: *const f32, out: *mut f32) {
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

struct Backward<'a, 'b> {
    scan: &'a Scan<'a>,
    place: Place,
    scratch: Scratch<'b>,
    grads: &'a ScanGrads,
}

impl Kernel for Backward<'_, '_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let (scan, p, grads) = (self.scan, &self.place, self.grads);
        let all = p.chunks * Q;
        // SAFETY: scratch has `backward_len` elements; rows and heads are this task's.
        unsafe {
            let scratch = &mut self.scratch;
            let shared = Shared::new(scan, p, scratch);
            let db = scratch.take(all * p.deep);
            let dc = scratch.take(all * p.deep);
            let dcb = scratch.take(all * Q);
            db.fill(0.0);
            dc.fill(0.0);
            dcb.fill(0.0);
            let (db, dc, dcb) = (db.as_mut_ptr(), dc.as_mut_ptr(), dcb.as_mut_ptr());
            let x = scratch.take(all * p.wide).as_mut_ptr();
            let states = scratch.take((p.chunks + 1) * p.width * p.deep).as_mut_ptr();
            let dstate = scratch.take(p.width * p.deep).as_mut_ptr();
            let flipped = scratch.take(p.state * p.wide).as_mut_ptr();
            let dx = scratch.take(Q * p.wide).as_mut_ptr();
            let dy = scratch.take(Q * p.wide).as_mut_ptr();
            let wx = scratch.take(Q * p.wide).as_mut_ptr();
            let through = scratch.take(Q * p.wide).as_mut_ptr();
            let dc_now = scratch.take(Q * p.deep).as_mut_ptr();
            let x_flipped = scratch.take(p.width * Q).as_mut_ptr();
            let mixing = scratch.take(Q * Q).as_mut_ptr();
            let between = scratch.take(Q * Q).as_mut_ptr();
            let dmixing = scratch.take(Q * Q).as_mut_ptr();
            for head in p.group * p.heads..(p.group + 1) * p.heads {
                let column = head * p.width;
                let (a, skip) = (*scan.a.add(head), *scan.d.add(head));
                let from = scan.x.add(p.start * scan.x_row + column);
                pack(from, scan.x_row, p.len, p.width, x, p.wide);
                // The state that each chunk starts from.
                start_state(scan, p, head, states);
                for chunk in 0..p.chunks.saturating_sub(1) {
                    let (first, rows) = p.rows(chunk);
                    let decay = Decay::new::<S>(scan, p, head, chunk);
                    for t in 0..rows {
                        let weight = decay.dt[t] * decay.until[t];
                        scale::<S>(
                            wx.add(t * p.wide),
                            x.add((first + t) * p.wide),
                            weight,
                            p.wide,
                        );
                    }
                    let now = states.add(chunk * p.width * p.deep);
                    let next = now.add(p.width * p.deep);
                    std::ptr::copy_nonoverlapping(now, next, p.width * p.deep);
                    let b = shared.b.as_ptr().add(first * p.deep);
                    advance::<S>(p, decay.whole(), wx, b, rows, next);
                }
                let mut ended = grads.dfinal.is_null();
                if ended {
                    std::slice::from_raw_parts_mut(dstate, p.width * p.deep).fill(0.0);
                } else {
                    let at = (p.sequence * scan.sizes[0] + head) * p.width * p.state;
                    pack(
                        grads.dfinal.add(at),
                        p.state,
                        p.width,
                        p.state,
                        dstate,
                        p.deep,
                    );
                }
                let (mut da, mut dd) = (0.0f64, 0.0f32);
                for chunk in (0..p.chunks).rev() {
                    let (first, rows) = p.rows(chunk);
                    let decay = Decay::new::<S>(scan, p, head, chunk);
                    let x = x.add(first * p.wide);
                    let state = states.add(chunk * p.width * p.deep);
                    let (b, c) = (
                        shared.b.as_ptr().add(first * p.deep),
                        shared.c.as_ptr().add(first * p.deep),
                    );
                    let cb = shared.cb.as_ptr().add(first * Q);
                    let from = grads
                        .dy
                        .add(((p.start + first) * scan.sizes[0] + head) * p.width);
                    pack(from, scan.sizes[0] * p.width, rows, p.width, dy, p.wide);
                    // Gradients of dt (direct) and of the running sum s.
                    let (mut ddt, mut ds) = ([0.0f32; Q], [0.0f64; Q]);

                    // Inside the chunk: y_i = sum_j M_ij x_j.
                    transpose(x, p.wide, rows, p.width, x_flipped, Q);
                    p.gemm(
                        [rows, Q, p.width],
                        Strided::rows(dy, p.wide),
                        (x_flipped, Q),
                        (dmixing, Q),
                        false,
                    );
                    decay.between::<S>(between);
                    for i in 0..rows {
                        let mut row_sum = S::splat(0.0);
                        for j in (0..Q).step_by(S::LANES) {
                            let at = i * Q + j;
                            let dt = S::load(decay.dt.as_ptr().add(j));
                            let (gap, cb) = (S::load(between.add(at)), S::load(cb.add(at)));
                            let dm = S::load(dmixing.add(at));
                            S::store(mixing.add(at), S::mul(S::mul(gap, cb), dt));
                            let inner = S::mul(dm, gap);
                            let to = dcb.add(first * Q + at);
                            S::store(to, S::fma(inner, dt, S::load(to)));
                            let direct = S::mul(inner, cb);
                            let to = ddt.as_mut_ptr().add(j);
                            S::store(to, S::add(S::load(to), direct));
                            row_sum = S::fma(direct, dt, row_sum);
                        }
                        ds[i] = f64::from(S::sum(row_sum));
                    }
                    for t in 0..rows {
                        ds[t] -= f64::from(ddt[t]) * f64::from(decay.dt[t]);
                    }
                    p.gemm(
                        [rows, p.wide, rows],
                        Strided::transposed(mixing, Q),
                        (dy, p.wide),
                        (dx, p.wide),
                        false,
                    );

                    // From the chunk into its end state: state' = kept state + sum_t w_t x_t B_t^T.
                    let mut last = 0.0f64;
                    if !ended {
                        transpose(dstate, p.deep, p.width, p.state, flipped, p.wide);
                        let size = [rows, p.wide, p.state];
                        p.gemm(
                            size,
                            Strided::rows(b, p.deep),
                            (flipped, p.wide),
                            (through, p.wide),
                            false,
                        );
                        for t in 0..rows {
                            let weight = decay.dt[t] * decay.until[t];
                            let (xt, vt) = (x.add(t * p.wide), through.add(t * p.wide));
                            let dw = dot::<S>(xt, vt, p.wide);
                            add_scaled::<S>(dx.add(t * p.wide), vt, weight, p.wide);
                            scale::<S>(wx.add(t * p.wide), xt, weight, p.wide);
                            ddt[t] += dw * decay.until[t];
                            let change = f64::from(dw) * f64::from(weight);
                            ds[t] -= change;
                            last += change;
                        }
                        let size = [rows, p.deep, p.width];
                        let out = (db.add(first * p.deep), p.deep);
                        p.gemm(size, Strided::rows(wx, p.wide), (dstate, p.deep), out, true);
                        last +=
                            f64::from(decay.whole() * dot::<S>(dstate, state, p.width * p.deep));
                        scale::<S>(dstate, dstate, decay.whole(), p.width * p.deep);
                    }

                    // The skip, and what dy weighs when it reaches the chunk's start.
                    for t in 0..rows {
                        let (xt, dyt) = (x.add(t * p.wide), dy.add(t * p.wide));
                        dd += dot::<S>(xt, dyt, p.wide);
                        add_scaled::<S>(dx.add(t * p.wide), dyt, skip, p.wide);
                        let to = grads
                            .dx
                            .add(((p.start + first + t) * scan.sizes[0] + head) * p.width);
                        std::ptr::copy_nonoverlapping(dx.add(t * p.wide), to, p.width);
                        scale::<S>(dyt, dyt, decay.since[t], p.wide);
                    }

                    // From the chunk's start state: y_t = exp(s_t) state C_t.
                    let fresh = chunk == 0 && scan.initial_state.is_null();
                    if !fresh {
                        let size = [rows, p.deep, p.width];
                        p.gemm(
                            size,
                            Strided::rows(dy, p.wide),
                            (state, p.deep),
                            (dc_now, p.deep),
                            false,
                        );
                        for t in 0..rows {
                            let (now, ct) = (dc_now.add(t * p.deep), c.add(t * p.deep));
                            ds[t] += f64::from(dot::<S>(now, ct, p.deep));
                            add_scaled::<S>(dc.add((first + t) * p.deep), now, 1.0, p.deep);
                        }
                        let size = [p.width, p.deep, rows];
                        let out = (dstate, p.deep);
                        p.gemm(
                            size,
                            Strided::transposed(dy, p.wide),
                            (c, p.deep),
                            out,
                            true,
                        );
                        ended = false;
                    }

                    // s_t = sum of dt_u A over u <= t.
                    ds[rows - 1] += last;
                    let mut later = 0.0f64;
                    for t in (0..rows).rev() {
                        later += ds[t];
                        da += later * f64::from(decay.dt[t]);
                        let at = (p.start + first + t) * scan.sizes[0] + head;
                        *grads.ddt.add(at) = ddt[t] + later as f32 * a;
                    }
                }
                *grads.da.add(p.sequence * scan.sizes[0] + head) = da as f32;
                *grads.dd.add(p.sequence * scan.sizes[0] + head) = dd;
                if !grads.dinitial.is_null() {
                    end_state(scan, p, head, dstate, grads.dinitial);
                }
            }
            // All heads' gradient of C B^T, once a chunk.
            for chunk in 0..p.chunks {
                let (first, rows) = p.rows(chunk);
                let at = first * p.deep;
                let (b, c) = (shared.b.as_ptr().add(at), shared.c.as_ptr().add(at));
                let dcb = dcb.add(first * Q);
                let size = [rows, p.deep, rows];
                p.gemm(
                    size,
                    Strided::rows(dcb, Q),
                    (b, p.deep),
                    (dc.add(at), p.deep),
                    true,
                );
                p.gemm(
                    size,
                    Strided::transposed(dcb, Q),
                    (c, p.deep),
                    (db.add(at), p.deep),
                    true,
                );
                for t in 0..rows {
                    let to = ((p.start + first + t) * scan.sizes[2] + p.group) * p.state;
                    std::ptr::copy_nonoverlapping(
                        db.add(at + t * p.deep),
                        grads.db.add(to),
                        p.state,
                    );
                    std::ptr::copy_nonoverlapping(
                        dc.add(at + t * p.deep),
                        grads.dc.add(to),
                        p.state,
                    );
                }
            }
        }
    }
}
