//! f32 products: lanes along the columns of y, from a transposed copy of a panel of w.
//!
//! Every output adds its k products in ascending order, whatever M is: a row's bits do not depend
//! on the rows beside it. The copy is made anew in every call, since weights may have been learnt
//! meanwhile; for one row it costs what reading w costs.

#[cfg(target_arch = "x86_64")]
#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;

use super::Job;
use crate::pool;
#[cfg(target_arch = "x86_64")]
use crate::simd::transpose16;
use crate::simd::{Element, Kernel, Level, Simd, dispatch};
use crate::train_gemm::{Gemm, Strided, padded, transpose, with_scratch};

/// Rows of x whose products wait in scratch memory for their scale and bias.
const BLOCK_M: usize = 64;
/// Columns of a register tile at 16 lanes: panels are multiples of it.
const TILE_N: usize = 32;
/// Most columns of a panel.
const PANEL: usize = 64;

/// Columns of y a task takes, for `n` columns on this pool.
pub(super) fn width(n: usize) -> usize {
    (n / (pool::num_threads() * 4)).clamp(TILE_N, PANEL) / TILE_N * TILE_N
}

/// Columns `begin..end` of y, all rows.
///
/// # Safety
/// `level` available; `job` valid; nobody else writes these columns.
pub(super) unsafe fn columns<O: Element>(
    level: Level,
    job: &Job<f32, O>,
    begin: usize,
    end: usize,
) {
    let (k, row) = (job.k, padded(end - begin));
    with_scratch((k + BLOCK_M) * row, |mut scratch| {
        let w = scratch.take(k * row);
        let c = scratch.take(BLOCK_M * row);
        // SAFETY: rows `begin..end` of w; the tile is k rows of `row` elements; rows
        // `at..at + m` of x, and as many rows of c, which `Finish` reads.
        unsafe {
            transpose_rows(
                level,
                job.w.add(begin * k),
                end - begin,
                k,
                w.as_mut_ptr(),
                row,
            );
            for at in (0..job.m).step_by(BLOCK_M) {
                let m = BLOCK_M.min(job.m - at);
                let gemm = Gemm {
                    m,
                    n: row,
                    k,
                    a: Strided::rows(job.x.add(at * job.x_stride), job.x_stride),
                    b: w.as_ptr(),
                    b_row: row,
                    c: c.as_mut_ptr(),
                    c_row: row,
                    add: false,
                };
                gemm.call(level);
                let finish = Finish {
                    job,
                    c: c.as_ptr(),
                    c_row: row,
                    rows: at..at + m,
                    columns: begin..end,
                };
                dispatch(level, finish);
            }
        }
    });
}

/// Scale, bias and rounding of rows of products, into y.
struct Finish<'a, O> {
    job: &'a Job<f32, O>,
    c: *const f32,
    c_row: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
}

impl<O: Element> Kernel for Finish<'_, O> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let job = self.job;
        // SAFETY: rows and columns lie inside y, scale and bias, and c is as large.
        unsafe {
            for row in self.rows.clone() {
                let c = self.c.add((row - self.rows.start) * self.c_row);
                let mut column = self.columns.start;
                while column < self.columns.end {
                    let n = S::LANES.min(self.columns.end - column);
                    let mut v = S::load_n(c.add(column - self.columns.start), n);
                    let scale = if job.scale_step == 0 {
                        S::splat(*job.scale)
                    } else {
                        S::load_n(job.scale.add(column), n)
                    };
                    v = S::mul(v, scale);
                    if !job.bias.is_null() {
                        v = S::add(v, S::load_n(job.bias.add(column), n));
                    }
                    O::store_n::<S>(job.y.at(row * job.y_stride + column), v, n);
                    column += n;
                }
            }
        }
    }
}

/// [`transpose`] with vectors where the level has them.
///
/// # Safety
/// As [`transpose`]; `level` available.
unsafe fn transpose_rows(
    level: Level,
    a: *const f32,
    rows: usize,
    cols: usize,
    out: *mut f32,
    out_row: usize,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if level == Level::Avx512 {
            return transpose_avx512(a, rows, cols, out, out_row);
        }
        let _ = level;
        transpose(a, cols, rows, cols, out, out_row);
    }
}

/// Transpose rows of `cols` elements, 16 by 16 in registers; `out_row` is a multiple of 16 and
/// what lies beyond `rows` becomes 0.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2")]
unsafe fn transpose_avx512(a: *const f32, rows: usize, cols: usize, out: *mut f32, out_row: usize) {
    // SAFETY: masked loads stay inside the rows; stores write whole vectors of `out`'s rows.
    unsafe {
        for i in (0..rows).step_by(16) {
            for j in (0..cols).step_by(16) {
                let wide = 16.min(cols - j);
                let mask = ((1u32 << wide) - 1) as __mmask16;
                let mut r = [_mm512_setzero_ps(); 16];
                for (l, row) in r.iter_mut().enumerate().take(rows - i) {
                    *row = _mm512_maskz_loadu_ps(mask, a.add((i + l) * cols + j));
                }
                let t = transpose16(r);
                for (c, column) in t.iter().enumerate().take(wide) {
                    _mm512_storeu_ps(out.add((j + c) * out_row + i), *column);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::transpose_rows;
    use crate::simd::Level;

    #[test]
    fn transposed_rows_are_the_definition() {
        for level in Level::available() {
            for (rows, cols) in [(1, 1), (16, 16), (7, 33), (40, 5), (33, 70)] {
                let row = super::padded(rows);
                let a: Vec<f32> = (0..rows * cols).map(|i| i as f32 + 1.0).collect();
                let mut out = vec![f32::NAN; cols * row];
                // SAFETY: sizes as allocated, the level is available.
                unsafe { transpose_rows(level, a.as_ptr(), rows, cols, out.as_mut_ptr(), row) };
                for j in 0..cols {
                    for i in 0..row {
                        let want = if i < rows { a[i * cols + j] } else { 0.0 };
                        assert_eq!(out[j * row + i], want, "{level:?} {rows}x{cols}");
                    }
                }
            }
        }
    }
}
