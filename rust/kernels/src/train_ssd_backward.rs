//! The gradient of the scan, one (sequence, group): states recomputed forwards, chunks backwards.
//!
//! Legend as in `train_ssd`; `s_t` is the running sum of dt A inside a chunk.

use crate::simd::{Kernel, Simd};
use crate::train_gemm::{Scratch, Strided, pack, transpose};
use crate::train_ssd::{Scan, ScanGrads};
use crate::train_ssd_parts::{Decay, Place, Q, Shared, advance, end_state, start_state};
use crate::train_vector::{add_scaled, dot, scale};

/// One task of [`crate::train::ssd_backward`].
pub(crate) struct Backward<'a, 'b> {
    pub(crate) scan: &'a Scan<'a>,
    pub(crate) place: Place,
    pub(crate) scratch: Scratch<'b>,
    pub(crate) grads: &'a ScanGrads,
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
