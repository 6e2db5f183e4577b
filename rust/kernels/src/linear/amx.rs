//! bf16 product on AMX tiles, weights in place.
//!
//! A tile of 16 rows x 32 columns of w, row-major as it lies in memory, is the left operand; x is
//! packed into the right operand's layout (pairs of K beside each other), which is small and read
//! from cache. The tile product is therefore y transposed, turned round on the way out. Each
//! output adds its K in steps of 32 in ascending order, whatever the other rows and columns.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;
use std::cell::RefCell;

use super::{Job, tiles};
use crate::bf16::Bf16;
use crate::pool::{self, SharedMut};
use crate::simd::{Avx512, Element, Vector};

pub(super) use tiles::available;

/// Rows of w a tile product spans (two tiles).
const PANEL: usize = 32;
/// Rows of x packed at a time, which bounds the scratch.
const BLOCK_M: usize = 512;
/// Up to this many rows of x, weights stream from memory; above, they are reused from cache.
const STREAM_M: usize = 128;
/// Bytes of w that a task of many rows keeps in the level-2 cache.
const GROUP_BYTES: usize = 512 << 10;

/// One B tile: 16 pairs along K x 16 rows of x.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Packed([u32; 256]);

thread_local! {
    static SCRATCH: RefCell<Vec<Packed>> = const { RefCell::new(Vec::new()) };
}

/// A job's block of rows of x.
struct Block<'a, O> {
    job: &'a Job<Bf16, O>,
    row: usize,
    rows: usize,
    /// Index of its first packed tile.
    packed: usize,
}

/// # Safety
/// [`available`] and checked `jobs`.
pub(super) unsafe fn linear<O: Element>(jobs: &[Job<Bf16, O>]) {
    let most = jobs.iter().map(|job| job.m).max().unwrap_or(0);
    SCRATCH.with_borrow_mut(|scratch| {
        for row in (0..most).step_by(BLOCK_M) {
            // SAFETY: the caller vouches for AMX and the jobs.
            unsafe {
                let blocks = pack(jobs, row, scratch);
                product(&blocks, scratch);
            }
        }
    });
}

/// Pack the block at `row` of every job that has one; jobs of one x share it.
unsafe fn pack<'a, O: Element>(
    jobs: &'a [Job<Bf16, O>],
    row: usize,
    scratch: &mut Vec<Packed>,
) -> Vec<Block<'a, O>> {
    let mut blocks: Vec<Block<'a, O>> = Vec::with_capacity(jobs.len());
    let mut used = 0;
    for job in jobs.iter().filter(|job| job.m > row) {
        let rows = BLOCK_M.min(job.m - row);
        let same = |b: &&Block<'_, O>| {
            (b.job.x, b.job.x_stride, b.job.m, b.job.k) == (job.x, job.x_stride, job.m, job.k)
        };
        if let Some(packed) = blocks.iter().find(same).map(|block| block.packed) {
            blocks.push(Block {
                job,
                row,
                rows,
                packed,
            });
            continue;
        }
        let (steps, num_tiles) = (job.k.div_ceil(32), rows.div_ceil(16));
        let end = used + num_tiles * steps;
        if scratch.len() < end {
            scratch.resize(end, Packed([0; 256]));
        }
        let out = SharedMut(scratch.as_mut_ptr());
        let pack = |tile: usize| {
            // SAFETY: tile < num_tiles; each task writes its own `steps` tiles.
            unsafe { pack_tile(job, row + tile * 16, out.at(used + tile * steps)) }
        };
        if num_tiles > 8 {
            pool::parallel_for(num_tiles, pack);
        } else {
            (0..num_tiles).for_each(pack);
        }
        blocks.push(Block {
            job,
            row,
            rows,
            packed: used,
        });
        used = end;
    }
    blocks
}

/// Pack rows `row..row + 16` of x (those that exist, else 0), all of K (0 beyond).
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn pack_tile<O>(job: &Job<Bf16, O>, row: usize, out: *mut Packed) {
    let rows = 16.min(job.m - row);
    for step in 0..job.k.div_ceil(32) {
        let at = step * 32;
        let mask = u32::MAX >> (32 - 32.min(job.k - at));
        let mut words = [_mm512_setzero_si512(); 16];
        for (i, word) in words.iter_mut().enumerate().take(rows) {
            // SAFETY: row + i < m and the mask ends at k.
            *word = unsafe {
                _mm512_maskz_loadu_epi16(mask, job.x.add((row + i) * job.x_stride + at).cast())
            };
        }
        // SAFETY: avx512f is on; `out` holds a tile a step.
        unsafe {
            let words = tiles::transpose(&words);
            for (pair, word) in words.iter().enumerate() {
                _mm512_store_si512(out.add(step).cast::<__m512i>().add(pair), *word);
            }
        }
    }
}

/// Panels `begin..end` of one block.
struct Task {
    block: usize,
    begin: usize,
    end: usize,
}

unsafe fn product<O: Element>(blocks: &[Block<'_, O>], packed: &[Packed]) {
    let num_panels: usize = blocks.iter().map(|b| b.job.n.div_ceil(PANEL)).sum();
    let by_threads = num_panels.div_ceil(pool::num_threads() * 8).max(1);
    let mut tasks = Vec::with_capacity(blocks.len() + pool::num_threads() * 8);
    for (block, Block { job, .. }) in blocks.iter().enumerate() {
        let by_cache = (GROUP_BYTES / (PANEL * job.k * 2).max(1)).max(1);
        let (all, step) = (job.n.div_ceil(PANEL), by_cache.min(by_threads));
        tasks.extend((0..all).step_by(step).map(|begin| Task {
            block,
            begin,
            end: all.min(begin + step),
        }));
    }
    let start = |task: &Task| {
        let job = blocks[task.block].job;
        job.w.wrapping_add(task.begin * PANEL * job.k)
    };
    pool::parallel_for(tasks.len(), |i| {
        let Task { block, begin, end } = tasks[i];
        let Block {
            job,
            row,
            rows,
            packed: at,
        } = blocks[block];
        let packed = &packed[at..];
        // SAFETY: AMX is available; each task owns the columns of its panels.
        unsafe {
            tiles::configure();
            if rows <= STREAM_M {
                // What this thread most likely takes next.
                let next = tasks.get(i + pool::num_threads()).map(start);
                for index in begin..end {
                    let panel = Panel::new(job, index);
                    let ahead = if index + 1 < end { None } else { next };
                    let ahead = ahead.unwrap_or_else(|| panel.w.wrapping_add(PANEL * panel.stride));
                    for tile in (0..rows.div_ceil(16)).step_by(2) {
                        panel.tile(row, rows, tile, packed, (tile == 0).then_some(ahead.cast()));
                    }
                }
            } else {
                let panels: Vec<_> = (begin..end).map(|index| Panel::new(job, index)).collect();
                for tile in (0..rows.div_ceil(16)).step_by(2) {
                    for panel in &panels {
                        panel.tile(row, rows, tile, packed, None);
                    }
                }
            }
            tiles::release();
        }
    });
}

/// 32 rows of w, with zero-padded copies of what does not fill a tile.
struct Panel<'a, O> {
    job: &'a Job<Bf16, O>,
    /// First row of w multiplied; its product is stored from `first` on.
    begin: usize,
    first: usize,
    /// Row `begin` of w, or the padded copy of a matrix of fewer than 32 rows.
    w: *const Bf16,
    /// Elements from row to row at `w`.
    stride: usize,
    /// The last, partial step of K, zero-padded; empty when K is a multiple of 32.
    tail: Vec<[Bf16; 32]>,
    /// Keeps the copy that `w` points into.
    _padded: Vec<Bf16>,
}

impl<'a, O: Element> Panel<'a, O> {
    unsafe fn new(job: &'a Job<Bf16, O>, index: usize) -> Self {
        let first = index * PANEL;
        // The last panel reaches back over the one before it, and stores only its own columns.
        let begin = if job.n < PANEL {
            0
        } else {
            first.min(job.n - PANEL)
        };
        let mut stride = job.k;
        let mut padded = Vec::new();
        // SAFETY: w holds n x k elements.
        let mut w = unsafe { job.w.add(begin * job.k) };
        if job.n < PANEL {
            stride = job.k.next_multiple_of(32);
            padded.resize(PANEL * stride, Bf16(0));
            for (i, row) in padded
                .chunks_exact_mut(stride.max(1))
                .take(job.n)
                .enumerate()
            {
                // SAFETY: row i < n of w.
                row[..job.k].copy_from_slice(unsafe {
                    std::slice::from_raw_parts(job.w.add(i * job.k), job.k)
                });
            }
            w = padded.as_ptr();
        }
        let rest = job.k % 32;
        let mut tail = Vec::new();
        if rest > 0 {
            tail.resize(PANEL, [Bf16(0); 32]);
            for (i, step) in tail.iter_mut().enumerate() {
                // SAFETY: row i of the panel, its last `rest` elements.
                step[..rest].copy_from_slice(unsafe {
                    std::slice::from_raw_parts(w.add(i * stride + job.k - rest), rest)
                });
            }
        }
        Self {
            job,
            begin,
            first,
            w,
            stride,
            tail,
            _padded: padded,
        }
    }

    /// Multiply by x tiles `tile` and `tile + 1` of the block at `row`, and store.
    ///
    /// `ahead`: where the next panel lies, to be fetched meanwhile.
    #[inline(always)]
    unsafe fn tile(
        &self,
        row: usize,
        rows: usize,
        tile: usize,
        packed: &[Packed],
        ahead: Option<*const u8>,
    ) {
        let all_steps = self.job.k.div_ceil(32);
        let steps = self.job.k / 32;
        let pair = rows > (tile + 1) * 16;
        let mut c = [[0.0f32; 256]; 4];
        // SAFETY: pointers as described at each field; `packed` holds all tiles of the block.
        unsafe {
            let b0 = packed.as_ptr().add(tile * all_steps).cast::<u8>();
            let b = [b0, if pair { b0.add(all_steps * 1024) } else { b0 }];
            tiles::zero();
            if steps > 0 {
                let a = [self.w.cast::<u8>(), self.w.add(16 * self.stride).cast()];
                add(a, self.stride * 2, b, steps, pair, ahead);
            }
            if !self.tail.is_empty() {
                let a = [
                    self.tail.as_ptr().cast::<u8>(),
                    self.tail.as_ptr().add(16).cast(),
                ];
                add(a, 64, b.map(|b| b.add(steps * 1024)), 1, pair, None);
            }
            tiles::store(&mut c);
            for (t, tile_c) in c.iter().enumerate() {
                let at = (tile + t % 2) * 16;
                if at < rows {
                    self.put(
                        row + at,
                        16.min(rows - at),
                        self.begin + (t / 2) * 16,
                        tile_c,
                    );
                }
            }
        }
    }

    /// Store the product of 16 rows of w at `column` with `rows` rows of x at `row`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    unsafe fn put(&self, row: usize, rows: usize, column: usize, c: &[f32; 256]) {
        let job = self.job;
        let from = self.first.max(column);
        let until = job.n.min(column + 16);
        if from >= until {
            return;
        }
        let skip = from - column;
        // SAFETY: c is 16 vectors; y rows `row..row + rows` and columns `from..until` exist.
        unsafe {
            let y = tiles::transpose(&std::array::from_fn(|i| {
                _mm512_loadu_si512(c.as_ptr().add(i * 16).cast())
            }));
            let scale = if job.scale_step == 0 {
                _mm512_set1_ps(*job.scale)
            } else {
                <f32 as Vector>::load_n::<Avx512>(job.scale.add(column), until - column)
            };
            let bias = if job.bias.is_null() {
                None
            } else {
                Some(<Bf16 as Vector>::load_n::<Avx512>(
                    job.bias.add(column),
                    until - column,
                ))
            };
            for (i, value) in y.iter().enumerate().take(rows) {
                let mut value = _mm512_mul_ps(_mm512_castsi512_ps(*value), scale);
                if let Some(bias) = bias {
                    value = _mm512_add_ps(value, bias);
                }
                let out = job.y.at((row + i) * job.y_stride + from);
                if skip == 0 {
                    O::store_n::<Avx512>(out, value, until - from);
                } else {
                    let lanes: [f32; 16] = std::mem::transmute(value);
                    for (j, lane) in lanes[skip..until - column].iter().enumerate() {
                        out.add(j).write(O::from_f32(*lane));
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn add(
    a: [*const u8; 2],
    stride: usize,
    b: [*const u8; 2],
    steps: usize,
    pair: bool,
    ahead: Option<*const u8>,
) {
    // SAFETY: passed on to the caller.
    unsafe {
        match (pair, ahead) {
            (true, Some(ahead)) => tiles::add_2x2(a, stride, b, steps, ahead),
            (true, None) => tiles::add_2x2_near(a, stride, b, steps),
            // Prefetching what is in cache already costs little beside the products.
            (false, ahead) => tiles::add_2x1(a, stride, b[0], steps, ahead.unwrap_or(a[0])),
        }
    }
}
