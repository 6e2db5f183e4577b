//! Products for training whose operands are rounded to bfloat16, for CPUs with AVX512-BF16.
//!
//! Legend: c [m, n] (+)= a [m, k] b [k, n], float32 in and out. Both operands are rounded and
//! packed: pairs along k beside each other, [`tile::ROWS`] rows of a or [`tile::COLS`] columns of
//! b to a panel. b is packed once for all tasks; a task owns some rows and columns of c and packs
//! its rows of a. Every element of c adds its pairs of products in ascending k, through blocks of
//! k too, so its bits depend neither on m and n nor on the number of threads.
//!
//! The oracle is [`Matmul::plain`], which also serves other CPUs.

#[cfg(target_arch = "x86_64")]
mod pack;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod tile;

use crate::bf16::Bf16;
use crate::pool::{SharedMut, parallel_for};

/// An operand: element (i, l), l along k, at `ptr + i * outer + l * inner`.
#[derive(Clone, Copy)]
pub struct Operand {
    /// Its first element.
    pub ptr: *const f32,
    /// Elements from one row of a (column of b) to the next.
    pub outer: usize,
    /// Elements from one step of k to the next.
    pub inner: usize,
}

/// One product; see the file's head.
#[derive(Clone, Copy)]
pub struct Matmul {
    /// m, n, k.
    pub sizes: [usize; 3],
    /// a [m, k].
    pub a: Operand,
    /// b [k, n].
    pub b: Operand,
    /// c [m, n].
    pub c: *mut f32,
    /// Elements from one row of c to the next.
    pub c_row: usize,
    /// Add to c instead of overwriting it.
    pub add: bool,
}
// SAFETY: a and b are only read; tasks write disjoint elements of c.
unsafe impl Sync for Matmul {}

/// Compute the product.
///
/// # Safety
/// The matrices must lie in memory, c apart from a and b and written by nobody else.
pub unsafe fn matmul(product: Matmul) {
    let [m, n, _] = product.sizes;
    if m == 0 || n == 0 {
        return;
    }
    // SAFETY: passed on to the caller; the features were detected.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        if product.is_packable() && tile::available() {
            return product.packed();
        }
        product.plain();
    }
}

impl Matmul {
    /// The definition, a row a task.
    unsafe fn plain(self) {
        let [m, n, k] = self.sizes;
        let round = |value: f32| Bf16::from_f32(value).to_f32();
        let (a, b, c) = (
            SharedMut(self.a.ptr.cast_mut()),
            SharedMut(self.b.ptr.cast_mut()),
            SharedMut(self.c),
        );
        parallel_for(m, |i| {
            for j in 0..n {
                // SAFETY: elements inside the matrices; this task alone writes row i of c.
                unsafe {
                    let c = c.at(i * self.c_row + j);
                    let mut sum = if self.add { *c } else { 0.0 };
                    for l in 0..k {
                        let left = *a.at(i * self.a.outer + l * self.a.inner);
                        let right = *b.at(j * self.b.outer + l * self.b.inner);
                        sum += round(left) * round(right);
                    }
                    *c = sum;
                }
            }
        });
    }
}

#[cfg(target_arch = "x86_64")]
mod packed {
    use std::cell::RefCell;

    use super::{Matmul, Operand, pack, tile};
    use crate::pool::{SharedMut, num_threads, parallel_for};

    use tile::{COLS, ROWS};

    /// Steps of k that a panel holds; a panel of b of so many fits into the level-1 cache.
    const BLOCK_K: usize = 512;
    /// Steps of k for which b is packed at a time; bounds the scratch memory together with
    /// [`MOST_COLS`] (8 MiB). A multiple of [`BLOCK_K`].
    const MOST_K: usize = 4096;
    /// Columns of b packed at a time.
    const MOST_COLS: usize = 1024;
    /// Panels of a that a task packs and keeps in the level-2 cache.
    const PANELS: usize = 20;

    /// 16 pairs of bf16, aligned to a cache line.
    #[derive(Clone, Copy)]
    #[repr(C, align(64))]
    pub(super) struct Line([u32; 16]);

    thread_local! {
        /// Panels of a of this thread's task; panels of b of this thread's product.
        static LEFT: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
        static RIGHT: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
    }

    /// `pairs` pairs of a thread's memory, with unspecified values.
    fn with_pairs<R>(
        memory: &'static std::thread::LocalKey<RefCell<Vec<Line>>>,
        pairs: usize,
        work: impl FnOnce(*mut u32) -> R,
    ) -> R {
        // Taken out while in use: the calling thread runs tasks, maybe of another product.
        let mut lines = memory.take();
        if lines.len() * 16 < pairs {
            lines.resize(pairs.div_ceil(16), Line([0; 16]));
        }
        let result = work(lines.as_mut_ptr().cast());
        memory.set(lines);
        result
    }

    /// Steps and columns of b that are packed together: k0 .. k0 + k, n0 .. n0 + n.
    #[derive(Clone, Copy)]
    struct Part {
        k0: usize,
        k: usize,
        n0: usize,
        n: usize,
    }

    impl Part {
        fn panels(&self) -> usize {
            self.n.div_ceil(COLS)
        }
        /// Where the panels of the block of k that begins `at` steps after k0 begin.
        fn block(&self, at: usize) -> usize {
            at / 2 * self.panels() * COLS
        }
        fn pairs(&self) -> usize {
            self.k.div_ceil(2) * self.panels() * COLS
        }
    }

    impl Operand {
        fn at(self, i: usize, l: usize) -> Self {
            let ptr = self.ptr.wrapping_add(i * self.outer + l * self.inner);
            Self { ptr, ..self }
        }
    }

    impl Matmul {
        /// Whether rows of both operands are contiguous, one way or the other.
        pub(super) fn is_packable(&self) -> bool {
            [self.a, self.b]
                .iter()
                .all(|x| x.outer == 1 || x.inner == 1)
        }

        /// # Safety
        /// As [`super::matmul`]; packable, on a CPU with the features of `tile`.
        pub(super) unsafe fn packed(self) {
            let [_, n, k] = self.sizes;
            for n0 in (0..n).step_by(MOST_COLS) {
                // One round even for k = 0: c is then zero.
                for k0 in (0..k.max(1)).step_by(MOST_K) {
                    let part = Part {
                        k0,
                        k: MOST_K.min(k - k0),
                        n0,
                        n: MOST_COLS.min(n - n0),
                    };
                    with_pairs(&RIGHT, part.pairs(), |b| {
                        // SAFETY: passed on to the caller; b holds the part's pairs.
                        unsafe {
                            self.pack_right(part, b);
                            self.multiply(part, b);
                        }
                    });
                }
            }
        }

        /// Pack a part of b, a panel a task.
        unsafe fn pack_right(&self, part: Part, b: *mut u32) {
            let b = SharedMut(b);
            let whole = self;
            parallel_for(part.panels(), |panel| {
                let j = panel * COLS;
                for at in (0..part.k).step_by(BLOCK_K) {
                    let k = BLOCK_K.min(part.k - at);
                    let from = whole.b.at(part.n0 + j, part.k0 + at);
                    // SAFETY: inside b; every panel of every block has its own pairs.
                    unsafe {
                        let to = b.at(part.block(at) + panel * k.div_ceil(2) * COLS);
                        pack::panel::<COLS>(from, COLS.min(part.n - j), k, to);
                    }
                }
            });
        }

        /// Multiply a by a packed part of b: tasks are blocks of c, as many as there are threads.
        unsafe fn multiply(&self, part: Part, b: *mut u32) {
            let (m, threads) = (self.sizes[0], num_threads());
            let (down, across) = (m.div_ceil(ROWS), part.panels());
            let rows = down.div_ceil(threads).clamp(1, PANELS);
            let row_tasks = down.div_ceil(rows);
            let cols = across.div_ceil(threads.div_ceil(row_tasks));
            let b = SharedMut(b);
            let whole = self;
            parallel_for(row_tasks * across.div_ceil(cols), |task| {
                let (row, col) = (task % row_tasks * rows, task / row_tasks * cols);
                let rows = row..(row + rows).min(down);
                let cols = col..(col + cols).min(across);
                let pairs = rows.len() * ROWS * BLOCK_K.min(part.k).div_ceil(2);
                with_pairs(&LEFT, pairs, |a| {
                    // SAFETY: panels inside both; this task alone writes this block of c.
                    unsafe { whole.block(part, rows, cols, a, b.at(0)) }
                });
            });
        }

        /// One task: the tiles of panels `rows` of a and `cols` of b.
        unsafe fn block(
            &self,
            part: Part,
            rows: std::ops::Range<usize>,
            cols: std::ops::Range<usize>,
            a: *mut u32,
            b: *const u32,
        ) {
            let m = self.sizes[0];
            // One round even for k = 0, as above.
            for at in (0..part.k.max(1)).step_by(BLOCK_K) {
                let k = BLOCK_K.min(part.k - at);
                let pairs = k.div_ceil(2);
                let add = self.add || part.k0 + at > 0;
                // SAFETY: offsets of panels inside the packed operands, tiles inside c.
                unsafe {
                    for i in rows.clone() {
                        let from = self.a.at(i * ROWS, part.k0 + at);
                        let to = a.add((i - rows.start) * ROWS * pairs);
                        pack::panel::<ROWS>(from, ROWS.min(m - i * ROWS), k, to);
                    }
                    for j in cols.clone() {
                        let right = b.add(part.block(at) + j * pairs * COLS);
                        for i in rows.clone() {
                            let tile = tile::Tile {
                                pairs,
                                a: a.add((i - rows.start) * ROWS * pairs),
                                b: right,
                                c: self.c.add(i * ROWS * self.c_row + part.n0 + j * COLS),
                                c_row: self.c_row,
                                rows: ROWS.min(m - i * ROWS),
                                cols: COLS.min(part.n - j * COLS),
                                add,
                            };
                            tile.run();
                        }
                    }
                }
            }
        }
    }
}
