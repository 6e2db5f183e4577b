//! Small dense products for the training kernels, and their scratch memory.
//!
//! Legend: c [m, n] (+)= a [m, k] b [k, n]. `a` is read one scalar at a time, so it may be
//! transposed by its strides; `b` and `c` have contiguous rows and n is a multiple of [`PAD`].
//! Every element of c adds its k products in ascending order, so its bits do not depend on m or n.

use std::cell::RefCell;

use crate::simd::{Kernel, Level, Simd, dispatch};

/// Rows of tiles are padded with zeros to a multiple of this many columns.
pub(crate) const PAD: usize = 16;

/// `n` rounded up to a multiple of [`PAD`].
pub(crate) fn padded(n: usize) -> usize {
    n.next_multiple_of(PAD)
}

/// A matrix read element by element: element (i, j) at `ptr + i * row + j * col`.
#[derive(Clone, Copy)]
pub(crate) struct Strided {
    pub(crate) ptr: *const f32,
    pub(crate) row: usize,
    pub(crate) col: usize,
}

impl Strided {
    /// Contiguous rows, `row` elements apart.
    pub(crate) fn rows(ptr: *const f32, row: usize) -> Self {
        Self { ptr, row, col: 1 }
    }

    /// The transpose of contiguous rows, `row` elements apart.
    pub(crate) fn transposed(ptr: *const f32, row: usize) -> Self {
        Self {
            ptr,
            row: 1,
            col: row,
        }
    }
}

/// One product; see the file's head.
#[derive(Clone, Copy)]
pub(crate) struct Gemm {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) a: Strided,
    pub(crate) b: *const f32,
    pub(crate) b_row: usize,
    pub(crate) c: *mut f32,
    pub(crate) c_row: usize,
    /// Add to c instead of overwriting it.
    pub(crate) add: bool,
}

/// The product of size m, n, k of `a` with (`b`, row stride) into (`c`, row stride).
///
/// # Safety
/// As [`Gemm::call`].
pub(crate) unsafe fn gemm(
    level: Level,
    [m, n, k]: [usize; 3],
    a: Strided,
    (b, b_row): (*const f32, usize),
    (c, c_row): (*mut f32, usize),
    add: bool,
) {
    let product = Gemm {
        m,
        n,
        k,
        a,
        b,
        b_row,
        c,
        c_row,
        add,
    };
    // SAFETY: passed on to the caller.
    unsafe { product.call(level) }
}

impl Gemm {
    /// Compute the product.
    ///
    /// # Safety
    /// `level` must be available; the matrices must lie in memory, c apart from a and b.
    pub(crate) unsafe fn call(self, level: Level) {
        debug_assert_eq!(self.n % PAD, 0);
        // SAFETY: passed on to the caller.
        unsafe { dispatch(level, self) }
    }

    #[inline(always)]
    unsafe fn columns<S: Simd, const NV: usize>(&self, j: usize) {
        let mut i = 0;
        // SAFETY: i + rows <= m, j + NV * LANES <= n.
        unsafe {
            if S::LANES == 16 {
                while i + 8 <= self.m {
                    self.tile::<S, 8, NV>(i, j);
                    i += 8;
                }
            }
            while i + 4 <= self.m {
                self.tile::<S, 4, NV>(i, j);
                i += 4;
            }
            while i < self.m {
                self.tile::<S, 1, NV>(i, j);
                i += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<S: Simd, const MR: usize, const NV: usize>(&self, i: usize, j: usize) {
        // SAFETY: rows i .. i + MR and columns j .. j + NV * LANES lie inside.
        unsafe {
            let c = self.c.add(i * self.c_row + j);
            let mut acc = [[S::splat(0.0); NV]; MR];
            if self.add {
                for (r, row) in acc.iter_mut().enumerate() {
                    for (v, value) in row.iter_mut().enumerate() {
                        *value = S::load(c.add(r * self.c_row + v * S::LANES));
                    }
                }
            }
            let mut a = self.a.ptr.add(i * self.a.row);
            let mut b = self.b.add(j);
            for _ in 0..self.k {
                let mut columns = [S::splat(0.0); NV];
                for (v, column) in columns.iter_mut().enumerate() {
                    *column = S::load(b.add(v * S::LANES));
                }
                for (r, row) in acc.iter_mut().enumerate() {
                    let scalar = S::splat(*a.add(r * self.a.row));
                    for (value, column) in row.iter_mut().zip(columns) {
                        *value = S::fma(scalar, column, *value);
                    }
                }
                a = a.wrapping_add(self.a.col);
                b = b.wrapping_add(self.b_row);
            }
            for (r, row) in acc.iter().enumerate() {
                for (v, value) in row.iter().enumerate() {
                    S::store(c.add(r * self.c_row + v * S::LANES), *value);
                }
            }
        }
    }
}

impl Kernel for Gemm {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let mut j = 0;
        // SAFETY: n is a multiple of 16, so of LANES, and the columns named lie below it.
        unsafe {
            while j + 2 * S::LANES <= self.n {
                self.columns::<S, 2>(j);
                j += 2 * S::LANES;
            }
            while j < self.n {
                self.columns::<S, 1>(j);
                j += S::LANES;
            }
        }
    }
}

/// Write the transpose of a [rows, cols] to out, whose rows are `out_row` >= rows long; the rest of a row is 0.
///
/// # Safety
/// Both must lie in memory, apart; `a` has rows `a_row` apart.
#[inline(always)]
pub(crate) unsafe fn transpose(
    a: *const f32,
    a_row: usize,
    rows: usize,
    cols: usize,
    out: *mut f32,
    out_row: usize,
) {
    // SAFETY: indices stay below the sizes named.
    unsafe {
        let mut i = 0;
        while i < rows {
            let tall = (rows - i).min(8);
            for j in 0..cols {
                let to = out.add(j * out_row + i);
                if tall == 8 {
                    let column: [f32; 8] = std::array::from_fn(|r| *a.add((i + r) * a_row + j));
                    to.cast::<[f32; 8]>().write_unaligned(column);
                } else {
                    for r in 0..tall {
                        *to.add(r) = *a.add((i + r) * a_row + j);
                    }
                }
            }
            i += tall;
        }
        if out_row > rows {
            for j in 0..cols {
                std::slice::from_raw_parts_mut(out.add(j * out_row + rows), out_row - rows)
                    .fill(0.0);
            }
        }
    }
}

/// Copy rows of `cols` elements into a tile with rows `out_row >= cols` apart, padded with zeros.
///
/// # Safety
/// Both must lie in memory, apart; `a` has rows `a_row` apart.
#[inline(always)]
pub(crate) unsafe fn pack(
    a: *const f32,
    a_row: usize,
    rows: usize,
    cols: usize,
    out: *mut f32,
    out_row: usize,
) {
    for i in 0..rows {
        // SAFETY: row i of both.
        unsafe {
            std::ptr::copy_nonoverlapping(a.add(i * a_row), out.add(i * out_row), cols);
            std::slice::from_raw_parts_mut(out.add(i * out_row + cols), out_row - cols).fill(0.0);
        }
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Carves buffers out of one block of scratch memory.
pub(crate) struct Scratch<'a> {
    rest: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    /// The next `len` elements, with unspecified values.
    pub(crate) fn take(&mut self, len: usize) -> &'a mut [f32] {
        let (part, rest) = std::mem::take(&mut self.rest).split_at_mut(len);
        self.rest = rest;
        part
    }
}

/// Run `work` with `len` elements of this thread's scratch memory; builds with debug assertions
/// fill it with NaN first, so that reading what was not written shows.
pub(crate) fn with_scratch<R>(len: usize, work: impl FnOnce(Scratch<'_>) -> R) -> R {
    SCRATCH.with_borrow_mut(|memory| {
        if memory.len() < len {
            memory.resize(len, 0.0);
        }
        let part = &mut memory[..len];
        if cfg!(debug_assertions) {
            part.fill(f32::NAN);
        }
        work(Scratch { rest: part })
    })
}

#[cfg(test)]
mod tests {
    use super::{Gemm, Strided, pack, transpose};
    use crate::simd::Level;

    fn noise(n: usize) -> Vec<f32> {
        (0..n)
            .map(|i| ((i * 7919 + 13) % 1009) as f32 / 504.5 - 1.0)
            .collect()
    }

    #[test]
    fn products_equal_the_definition() {
        for level in Level::available() {
            for (m, n, k) in [
                (1, 16, 1),
                (3, 32, 5),
                (8, 48, 16),
                (13, 16, 33),
                (32, 64, 7),
            ] {
                let (a, b) = (noise(m * k), noise(k * n));
                for (flip, add) in [(false, false), (true, false), (false, true)] {
                    let mut c = noise(m * n);
                    let before = c.clone();
                    let a_view = if flip {
                        Strided::transposed(a.as_ptr(), m)
                    } else {
                        Strided::rows(a.as_ptr(), k)
                    };
                    let gemm = Gemm {
                        m,
                        n,
                        k,
                        a: a_view,
                        b: b.as_ptr(),
                        b_row: n,
                        c: c.as_mut_ptr(),
                        c_row: n,
                        add,
                    };
                    // SAFETY: sizes as allocated, the level is available.
                    unsafe { gemm.call(level) };
                    for i in 0..m {
                        for j in 0..n {
                            let mut sum = if add {
                                f64::from(before[i * n + j])
                            } else {
                                0.0
                            };
                            for l in 0..k {
                                let left = if flip { a[l * m + i] } else { a[i * k + l] };
                                sum += f64::from(left) * f64::from(b[l * n + j]);
                            }
                            assert!((f64::from(c[i * n + j]) - sum).abs() < 1e-5);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn tiles_are_padded_with_zeros() {
        let a = noise(11 * 5);
        let (mut flat, mut flipped) = (vec![f32::NAN; 11 * 16], vec![f32::NAN; 5 * 16]);
        // SAFETY: sizes as allocated.
        unsafe {
            pack(a.as_ptr(), 5, 11, 5, flat.as_mut_ptr(), 16);
            transpose(a.as_ptr(), 5, 11, 5, flipped.as_mut_ptr(), 16);
        }
        for i in 0..11 {
            for j in 0..16 {
                assert_eq!(flat[i * 16 + j], if j < 5 { a[i * 5 + j] } else { 0.0 });
            }
        }
        for j in 0..5 {
            for i in 0..16 {
                assert_eq!(flipped[j * 16 + i], if i < 11 { a[i * 5 + j] } else { 0.0 });
            }
        }
    }
}
