//! Mamba-2's recurrence with states in slots: prefill and decode are one kernel.
//!
//! Legend: T packed tokens, H heads, P head width, G groups, N state width.
//!
//! h = exp(dt A) h + (dt x) B^T;  y = h C + D x, token by token for each (sequence, head) (Dao &
//! Gu 2024, eq. 2). A few rows of h stay in registers over a run of tokens, so each state element
//! is read and written once a run; how a sequence is cut into calls changes no bit.

use crate::batch::Sequences;
use crate::error::{KernelError, check_size, check_value};
use crate::pool::{self, SharedMut};
use crate::rows::{Rows, RowsMut};
use crate::simd::{Element, Kernel, Level, Simd, dispatch, exp};

/// Tokens whose B and C are widened at a time; 2 x 16 rows of 256 fit the level-1 cache.
const RUN: usize = 16;

/// The inputs of [`ssd_scan_slots`].
#[derive(Clone, Copy, Debug)]
pub struct ScanInputs<'a, T> {
    /// [T, H * P].
    pub x: Rows<'a, T>,
    /// [T, H], after softplus and clamp.
    pub dt: Rows<'a, f32>,
    /// [H], negative.
    pub a: &'a [f32],
    /// [T, G * N].
    pub b: Rows<'a, T>,
    /// [T, G * N].
    pub c: Rows<'a, T>,
    /// [H], the skip.
    pub d: &'a [f32],
    /// N.
    pub d_state: usize,
}

struct Job<'a, T> {
    inputs: ScanInputs<'a, T>,
    sequences: Sequences<'a>,
    /// [slots, H, P, N].
    state: SharedMut<f32>,
    /// [T, H * P].
    y: SharedMut<T>,
    y_stride: usize,
    heads: usize,
    head_dim: usize,
    heads_per_group: usize,
}

/// One head of one sequence over up to [`RUN`] tokens.
struct Run<'a, T> {
    job: &'a Job<'a, T>,
    /// First token, and how many.
    token: usize,
    len: usize,
    head: usize,
    /// [P, N].
    state: *mut f32,
    /// Whether the state starts from zero instead of what the slot holds.
    fresh: bool,
    /// [RUN, N] each.
    b: *const f32,
    c: *const f32,
    decay: [f32; RUN],
    dt: [f32; RUN],
}

impl<T: Element> Run<'_, T> {
    /// Rows `p..p + R` of the state, each of `NV` vectors.
    #[inline(always)]
    unsafe fn rows<S: Simd, const NV: usize, const R: usize>(&self, p: usize) {
        let job = self.job;
        let n = NV * S::LANES;
        let column = self.head * job.head_dim + p;
        let skip = job.inputs.d[self.head];
        // SAFETY: p + R <= P, N = NV * LANES; b and c hold `len` rows; y is this task's alone.
        unsafe {
            let mut h = [[S::splat(0.0); NV]; R];
            if !self.fresh {
                for (r, row) in h.iter_mut().enumerate() {
                    for (v, vector) in row.iter_mut().enumerate() {
                        *vector = S::load(self.state.add((p + r) * n + v * S::LANES));
                    }
                }
            }
            for t in 0..self.len {
                let x = job.inputs.x.ptr(self.token + t).add(column);
                let x: [f32; R] = std::array::from_fn(|r| (*x.add(r)).to_f32());
                let decay = S::splat(self.decay[t]);
                let scaled: [S::V; R] = std::array::from_fn(|r| S::splat(self.dt[t] * x[r]));
                let mut sum = [S::splat(0.0); R];
                for v in 0..NV {
                    let b = S::load(self.b.add(t * n + v * S::LANES));
                    let c = S::load(self.c.add(t * n + v * S::LANES));
                    for r in 0..R {
                        h[r][v] = S::fma(h[r][v], decay, S::mul(scaled[r], b));
                        sum[r] = S::fma(h[r][v], c, sum[r]);
                    }
                }
                let y = job.y.at((self.token + t) * job.y_stride + column);
                for r in 0..R {
                    y.add(r).write(T::from_f32(S::sum(sum[r]) + skip * x[r]));
                }
            }
            for (r, row) in h.iter().enumerate() {
                for (v, vector) in row.iter().enumerate() {
                    S::store(self.state.add((p + r) * n + v * S::LANES), *vector);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn all_rows<S: Simd, const NV: usize, const R: usize>(&self) {
        let mut p = 0;
        // SAFETY: rows stay below P.
        unsafe {
            while p + R <= self.job.head_dim {
                self.rows::<S, NV, R>(p);
                p += R;
            }
            while p < self.job.head_dim {
                self.rows::<S, NV, 1>(p);
                p += 1;
            }
        }
    }

    /// Any N: the state stays in cache instead of registers.
    #[inline(always)]
    unsafe fn any_width<S: Simd>(&self) {
        let job = self.job;
        let n = job.inputs.d_state;
        let skip = job.inputs.d[self.head];
        // SAFETY: as `rows`; the last vector of a row is cut to what N leaves.
        unsafe {
            for p in 0..job.head_dim {
                let column = self.head * job.head_dim + p;
                let row = self.state.add(p * n);
                if self.fresh {
                    row.write_bytes(0, n);
                }
                for t in 0..self.len {
                    let x = (*job.inputs.x.ptr(self.token + t).add(column)).to_f32();
                    let (decay, scaled) = (S::splat(self.decay[t]), S::splat(self.dt[t] * x));
                    let mut sum = S::splat(0.0);
                    for at in (0..n).step_by(S::LANES) {
                        let left = S::LANES.min(n - at);
                        let b = S::load_n(self.b.add(t * n + at), left);
                        let c = S::load_n(self.c.add(t * n + at), left);
                        let h = S::load_n(row.add(at), left);
                        let h = S::fma(h, decay, S::mul(scaled, b));
                        sum = S::fma(h, c, sum);
                        S::store_n(row.add(at), h, left);
                    }
                    let y = job.y.at((self.token + t) * job.y_stride + column);
                    y.write(T::from_f32(S::sum(sum) + skip * x));
                }
            }
        }
    }
}

struct Task<'a, T> {
    job: &'a Job<'a, T>,
    sequence: usize,
    head: usize,
}

impl<T: Element> Kernel for Task<'_, T> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self {
            job,
            sequence,
            head,
        } = self;
        let n = job.inputs.d_state;
        let per_head = job.head_dim * n;
        let slot = job.sequences.slot(sequence);
        let (begin, end) = job.sequences.tokens(sequence);
        let group = head / job.heads_per_group;
        // SAFETY: sizes were checked; (sequence, head) owns this part of the state and of y.
        unsafe {
            let state = job.state.at((slot * job.heads + head) * per_head);
            let mut fresh = !job.sequences.is_started(sequence);
            if begin == end && fresh {
                state.write_bytes(0, per_head);
            }
            let mut wide = vec![0.0f32; 2 * RUN.min(end - begin) * n];
            let b = wide.as_mut_ptr();
            let c = b.add(RUN.min(end - begin) * n);
            for token in (begin..end).step_by(RUN) {
                let len = RUN.min(end - token);
                let mut run = Run {
                    job,
                    token,
                    len,
                    head,
                    state,
                    fresh,
                    b,
                    c,
                    decay: [0.0; RUN],
                    dt: [0.0; RUN],
                };
                for t in 0..len {
                    widen::<S, T>(job.inputs.b.ptr(token + t).add(group * n), b.add(t * n), n);
                    widen::<S, T>(job.inputs.c.ptr(token + t).add(group * n), c.add(t * n), n);
                    run.dt[t] = *job.inputs.dt.ptr(token + t).add(head);
                    run.decay[t] = run.dt[t] * job.inputs.a[head];
                }
                for at in (0..len).step_by(S::LANES) {
                    let left = S::LANES.min(len - at);
                    let decay = run.decay.as_mut_ptr().add(at);
                    S::store_n(decay, exp::<S>(S::load_n(decay, left)), left);
                }
                // Rows a tile: as many as the registers hold.
                match if n % S::LANES == 0 { n / S::LANES } else { 0 } {
                    1 => run.all_rows::<S, 1, 8>(),
                    2 => run.all_rows::<S, 2, 8>(),
                    4 => run.all_rows::<S, 4, 4>(),
                    8 => run.all_rows::<S, 8, 2>(),
                    16 => run.all_rows::<S, 16, 1>(),
                    _ => run.any_width::<S>(),
                }
                fresh = false;
            }
        }
    }
}

/// `out[..n]` = `from[..n]` as f32.
#[inline(always)]
unsafe fn widen<S: Simd, T: Element>(from: *const T, out: *mut f32, n: usize) {
    // SAFETY: n elements each (the caller's promise).
    unsafe {
        for at in (0..n).step_by(S::LANES) {
            let left = S::LANES.min(n - at);
            S::store_n(out.add(at), T::load_n::<S>(from.add(at), left), left);
        }
    }
}

fn check<'a, T: Element>(
    inputs: ScanInputs<'a, T>,
    sequences: Sequences<'a>,
    state: &mut [f32],
    y: &mut RowsMut<'_, T>,
) -> Result<Job<'a, T>, KernelError> {
    let ScanInputs {
        x,
        dt,
        a,
        b,
        c,
        d,
        d_state,
    } = inputs;
    let (num_tokens, heads, n) = (x.len(), a.len(), d_state);
    check_value(
        "A",
        heads as i64,
        heads > 0 && x.width() % heads == 0,
        "a divisor of x's width",
    )?;
    check_value(
        "N",
        n as i64,
        n > 0 && b.width() % n == 0,
        "a divisor of B's width",
    )?;
    let groups = b.width() / n;
    check_value(
        "G",
        groups as i64,
        groups > 0 && heads % groups == 0,
        "a divisor of H",
    )?;
    check_size("C", c.width(), b.width())?;
    check_size("dt", dt.width(), heads)?;
    check_size("D", d.len(), heads)?;
    check_size("y", y.width(), x.width())?;
    for (name, rows) in [
        ("dt", dt.len()),
        ("B", b.len()),
        ("C", c.len()),
        ("y", y.len()),
    ] {
        check_size(name, rows, num_tokens)?;
    }
    let per_slot = x.width() * n;
    check_value("P", x.width() as i64, per_slot > 0, "at least 1")?;
    sequences.check(num_tokens, state.len() / per_slot)?;
    Ok(Job {
        inputs,
        sequences,
        state: SharedMut(state.as_mut_ptr()),
        y: SharedMut(y.as_mut_ptr()),
        y_stride: y.stride(),
        heads,
        head_dim: x.width() / heads,
        heads_per_group: heads / groups,
    })
}

fn run<T: Element>(level: Level, job: &Job<'_, T>) {
    pool::parallel_for(job.sequences.len() * job.heads, |task| {
        let (sequence, head) = (task / job.heads, task % job.heads);
        // SAFETY: the job was checked; slots are distinct, so no two tasks share state or y.
        unsafe {
            dispatch(
                level,
                Task {
                    job,
                    sequence,
                    head,
                },
            );
        }
    });
}

/// Scan packed sequences; states [slots, H, P, N] are updated in place, y [T, H * P] written.
///
/// # Errors
/// [`KernelError`] when shapes, offsets or slots do not fit; nothing is written then.
pub fn ssd_scan_slots<T: Element>(
    inputs: ScanInputs<'_, T>,
    sequences: Sequences<'_>,
    state: &mut [f32],
    y: &mut RowsMut<'_, T>,
) -> Result<(), KernelError> {
    run(Level::detect(), &check(inputs, sequences, state, y)?);
    Ok(())
}

#[cfg(test)]
mod tests;
