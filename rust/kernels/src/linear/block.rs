//! Register-blocked product of a few rows of x with a few rows of w, generic over [`Dot`].

use super::Job;
use super::dot::Dot;
use crate::simd::Element;

/// Rows of w a register tile spans.
const NR: usize = 4;
/// Rows of x a register tile spans: `MR * NR` accumulators stay in registers.
const MR: usize = 6;
/// Rows of w a pass over x takes: they stay in the level-2 cache meanwhile.
const PANEL: usize = 64;
/// Up to this many rows of x, weights stream from memory.
const STREAM_M: usize = 48;

/// y[0..M, 0..N] of one register tile, before bias.
#[inline(always)]
unsafe fn tile<D: Dot, const M: usize, const N: usize>(
    x: [*const D::Elem; M],
    w: [*const D::Elem; N],
    k: usize,
) -> [[f32; N]; M] {
    // SAFETY: every pointer is valid for k elements (the caller's promise).
    unsafe {
        let mut acc = [[D::zero(); N]; M];
        let body = k - k % D::STEP;
        let mut at = 0;
        while at < body {
            let b: [D::Step; N] = std::array::from_fn(|j| D::load(w[j].add(at)));
            for i in 0..M {
                let a = D::load(x[i].add(at));
                for j in 0..N {
                    acc[i][j] = D::dot(a, b[j], acc[i][j]);
                }
            }
            at += D::STEP;
        }
        if body < k {
            let b: [D::Step; N] = std::array::from_fn(|j| D::load_n(w[j].add(body), k - body));
            for i in 0..M {
                let a = D::load_n(x[i].add(body), k - body);
                for j in 0..N {
                    acc[i][j] = D::dot(a, b[j], acc[i][j]);
                }
            }
        }
        acc.map(|row| row.map(|acc| D::sum(acc)))
    }
}

#[inline(always)]
unsafe fn tile_at<D: Dot, O: Element, const M: usize, const N: usize>(
    job: &Job<D::Elem, O>,
    row: usize,
    column: usize,
) {
    // SAFETY: row + M <= m and column + N <= n; this task owns those columns of y.
    unsafe {
        let x: [_; M] = std::array::from_fn(|i| job.x.add((row + i) * job.x_stride));
        let w: [_; N] = std::array::from_fn(|j| job.w.add((column + j) * job.k));
        let out = tile::<D, M, N>(x, w, job.k);
        for (i, values) in out.iter().enumerate() {
            for (j, value) in values.iter().enumerate() {
                job.put(row + i, column + j, *value);
            }
        }
    }
}

/// [`tile_at`] for `m <= MR` rows and `N` columns.
#[inline(always)]
unsafe fn tile_of<D: Dot, O: Element, const N: usize>(
    job: &Job<D::Elem, O>,
    row: usize,
    m: usize,
    column: usize,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        match m {
            1 => tile_at::<D, O, 1, N>(job, row, column),
            2 => tile_at::<D, O, 2, N>(job, row, column),
            3 => tile_at::<D, O, 3, N>(job, row, column),
            4 => tile_at::<D, O, 4, N>(job, row, column),
            5 => tile_at::<D, O, 5, N>(job, row, column),
            _ => tile_at::<D, O, MR, N>(job, row, column),
        }
    }
}

/// Columns `begin..end` of y, all rows.
///
/// # Safety
/// The features of `D`; `job` valid; nobody else writes these columns.
#[inline(always)]
pub(super) unsafe fn columns<D: Dot, O: Element>(job: &Job<D::Elem, O>, begin: usize, end: usize) {
    // Few rows: w streams from memory, x stays in cache; many: w's panel stays, x streams.
    let step = if job.m <= STREAM_M { NR } else { PANEL };
    for from in (begin..end).step_by(step) {
        let until = end.min(from + step);
        for row in (0..job.m).step_by(MR) {
            let m = MR.min(job.m - row);
            let mut column = from;
            // SAFETY: row + m <= m of the job, and the column stays below `end`.
            unsafe {
                while column + NR <= until {
                    tile_of::<D, O, NR>(job, row, m, column);
                    column += NR;
                }
                while column < until {
                    tile_of::<D, O, 1>(job, row, m, column);
                    column += 1;
                }
            }
        }
    }
}

/// Rows of w a task takes, for `n` rows on `threads` threads.
pub(super) fn panel(n: usize, threads: usize) -> usize {
    (n / (threads * 8)).clamp(NR, PANEL).next_multiple_of(NR)
}
