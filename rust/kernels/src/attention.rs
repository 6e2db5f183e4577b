//! Causal grouped-query attention over KV blocks, for prefill and decode alike.
//!
//! Legend: T packed tokens, S sequences, H query heads, K kv heads, P head width, M blocks a
//! sequence. Each query row walks the keys in tiles of [`TILE`], aligned to absolute position,
//! with a running maximum and sum (Milakov & Gimelshein 2018); rows share only the loading of a
//! tile, so a row's bits depend on its sequence alone. A row never looks at a key after its own.

use crate::batch::check_cu_seqlens;
use crate::error::{KernelError, check_size, check_value};
use crate::pool::{self, SharedMut};
use crate::rows::{Rows, RowsMut};
use crate::simd::{Element, Kernel, Level, Simd, dispatch, exp};

/// Keys a tile; a multiple of every vector's lanes.
const TILE: usize = 16;
/// Query rows (token x head of one kv head) a task takes.
const ROWS: usize = 32;

/// The KV blocks and who owns which.
#[derive(Clone, Copy, Debug)]
pub struct PagedCache<'a, T> {
    /// [blocks, `block_size`, K, P].
    pub k: &'a [T],
    /// [blocks, `block_size`, K, P].
    pub v: &'a [T],
    /// Tokens a block.
    pub block_size: usize,
    /// K.
    pub kv_heads: usize,
    /// P.
    pub head_dim: usize,
    /// [S, M], rows of a sequence's blocks in order.
    pub block_tables: &'a [i32],
    /// M.
    pub max_blocks: usize,
}

struct Job<'a, T> {
    /// [T, H * P].
    q: Rows<'a, T>,
    cache: PagedCache<'a, T>,
    cu_seqlens: &'a [i32],
    seq_lens: &'a [i32],
    scale: f32,
    y: SharedMut<T>,
    y_stride: usize,
    /// Query heads a kv head.
    repeat: usize,
}

/// Rows `from..until` of (token, head) of one kv head of one sequence.
struct Task<'a, T> {
    job: &'a Job<'a, T>,
    sequence: usize,
    kv_head: usize,
    from: usize,
    until: usize,
}

impl<T: Element> Task<'_, T> {
    /// Packed token and first column in q and y of a row.
    fn place(&self, row: usize) -> (usize, usize) {
        let job = self.job;
        let token = job.cu_seqlens[self.sequence] as usize + row / job.repeat;
        let head = self.kv_head * job.repeat + row % job.repeat;
        (token, head * job.cache.head_dim)
    }

    /// Widen keys or values `first..first + n` of the sequence to `out` [TILE, P].
    #[inline(always)]
    unsafe fn load<S: Simd>(&self, from: &[T], first: usize, n: usize, out: &mut [f32]) {
        let PagedCache {
            block_size,
            kv_heads,
            head_dim,
            block_tables,
            max_blocks,
            ..
        } = self.job.cache;
        let table = &block_tables[self.sequence * max_blocks..];
        for j in 0..n {
            let (block, offset) = ((first + j) / block_size, (first + j) % block_size);
            let slot = table[block] as usize * block_size + offset;
            let at = (slot * kv_heads + self.kv_head) * head_dim;
            // SAFETY: the block lies inside the cache (checked), j < TILE.
            unsafe {
                let (from, out) = (from.as_ptr().add(at), out.as_mut_ptr().add(j * head_dim));
                for p in (0..head_dim).step_by(S::LANES) {
                    let left = S::LANES.min(head_dim - p);
                    S::store_n(out.add(p), T::load_n::<S>(from.add(p), left), left);
                }
            }
        }
    }
}

/// What a query row has gathered so far.
#[derive(Clone, Copy)]
struct Running {
    max: f32,
    sum: f32,
}

/// scores[j] = q . k[j] * scale for j < n, -inf beyond. `NV` vectors a head, 0: any width.
#[inline(always)]
unsafe fn scores<S: Simd, const NV: usize>(
    q: *const f32,
    k: *const f32,
    head_dim: usize,
    n: usize,
    scale: f32,
) -> [f32; TILE] {
    let mut out = [f32::NEG_INFINITY; TILE];
    // SAFETY: q holds one row of head_dim, k TILE of them.
    unsafe {
        for (j, out) in out.iter_mut().enumerate().take(n) {
            let k = k.add(j * head_dim);
            let mut sum = S::splat(0.0);
            if NV > 0 {
                for v in 0..NV {
                    let at = v * S::LANES;
                    sum = S::fma(S::load(q.add(at)), S::load(k.add(at)), sum);
                }
            } else {
                for at in (0..head_dim).step_by(S::LANES) {
                    let left = S::LANES.min(head_dim - at);
                    sum = S::fma(S::load_n(q.add(at), left), S::load_n(k.add(at), left), sum);
                }
            }
            *out = S::sum(sum) * scale;
        }
    }
    out
}

/// Turn scores into weights, and the running state into that after this tile; how much what was
/// gathered before shrinks.
#[inline(always)]
unsafe fn soften<S: Simd>(scores: &mut [f32; TILE], running: &mut Running) -> f32 {
    // SAFETY: TILE is a multiple of LANES.
    unsafe {
        let mut max = S::splat(running.max);
        for at in (0..TILE).step_by(S::LANES) {
            max = S::max(S::load(scores.as_ptr().add(at)), max);
        }
        let max = S::max_lane(max);
        let mut before = [0.0f32; TILE];
        S::store(before.as_mut_ptr(), exp::<S>(S::splat(running.max - max)));
        let mut sum = 0.0;
        for at in (0..TILE).step_by(S::LANES) {
            let score = S::load(scores.as_ptr().add(at));
            let weight = exp::<S>(S::sub(score, S::splat(max)));
            sum += S::sum(weight);
            S::store(scores.as_mut_ptr().add(at), weight);
        }
        *running = Running {
            max,
            sum: running.sum * before[0] + sum,
        };
        before[0]
    }
}

/// acc = acc * shrink + sum over j < n of weights[j] * v[j].
#[inline(always)]
unsafe fn gather<S: Simd, const NV: usize>(
    acc: *mut f32,
    v: *const f32,
    head_dim: usize,
    n: usize,
    weights: &[f32; TILE],
    shrink: f32,
) {
    let shrink = unsafe { S::splat(shrink) };
    // SAFETY: acc holds one row of head_dim, v TILE of them.
    unsafe {
        if NV > 0 {
            let mut sums: [S::V; NV] =
                std::array::from_fn(|i| S::mul(S::load(acc.add(i * S::LANES)), shrink));
            for (j, weight) in weights.iter().enumerate().take(n) {
                let weight = S::splat(*weight);
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = S::fma(weight, S::load(v.add(j * head_dim + i * S::LANES)), *sum);
                }
            }
            for (i, sum) in sums.iter().enumerate() {
                S::store(acc.add(i * S::LANES), *sum);
            }
        } else {
            for at in (0..head_dim).step_by(S::LANES) {
                let left = S::LANES.min(head_dim - at);
                let mut sum = S::mul(S::load_n(acc.add(at), left), shrink);
                for (j, weight) in weights.iter().enumerate().take(n) {
                    let value = S::load_n(v.add(j * head_dim + at), left);
                    sum = S::fma(S::splat(*weight), value, sum);
                }
                S::store_n(acc.add(at), sum, left);
            }
        }
    }
}

impl<T: Element> Task<'_, T> {
    #[inline(always)]
    unsafe fn attend<S: Simd, const NV: usize>(&self) {
        let job = self.job;
        let head_dim = job.cache.head_dim;
        let num_rows = self.until - self.from;
        let tokens = (job.cu_seqlens[self.sequence + 1] - job.cu_seqlens[self.sequence]) as usize;
        // Position of the sequence's first token of this batch.
        let base = job.seq_lens[self.sequence] as usize - tokens;
        let mut scratch = vec![0.0f32; (2 * num_rows + 2 * TILE) * head_dim];
        let (q, rest) = scratch.split_at_mut(num_rows * head_dim);
        let (acc, rest) = rest.split_at_mut(num_rows * head_dim);
        let (k, v) = rest.split_at_mut(TILE * head_dim);
        let mut running = [Running {
            max: f32::NEG_INFINITY,
            sum: 0.0,
        }; ROWS];
        // SAFETY: rows lie inside q and y; scratch parts have the sizes above.
        unsafe {
            for row in 0..num_rows {
                let (token, column) = self.place(self.from + row);
                let from = job.q.ptr(token).add(column);
                for p in 0..head_dim {
                    q[row * head_dim + p] = (*from.add(p)).to_f32();
                }
            }
            let end = base + (self.until - 1) / job.repeat + 1;
            for first in (0..end).step_by(TILE) {
                let n = TILE.min(end - first);
                self.load::<S>(job.cache.k, first, n, k);
                self.load::<S>(job.cache.v, first, n, v);
                for row in 0..num_rows {
                    let own = base + (self.from + row) / job.repeat + 1;
                    if own <= first {
                        continue;
                    }
                    let n = TILE.min(own - first);
                    let q = q.as_ptr().add(row * head_dim);
                    let mut weights = scores::<S, NV>(q, k.as_ptr(), head_dim, n, job.scale);
                    let shrink = soften::<S>(&mut weights, &mut running[row]);
                    let acc = acc.as_mut_ptr().add(row * head_dim);
                    gather::<S, NV>(acc, v.as_ptr(), head_dim, n, &weights, shrink);
                }
            }
            for row in 0..num_rows {
                let (token, column) = self.place(self.from + row);
                let out = job.y.at(token * job.y_stride + column);
                let factor = 1.0 / running[row].sum;
                for p in 0..head_dim {
                    out.add(p)
                        .write(T::from_f32(acc[row * head_dim + p] * factor));
                }
            }
        }
    }
}

impl<T: Element> Kernel for Task<'_, T> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let head_dim = self.job.cache.head_dim;
        // SAFETY: passed on to the caller.
        unsafe {
            match if head_dim.is_multiple_of(S::LANES) {
                head_dim / S::LANES
            } else {
                0
            } {
                2 => self.attend::<S, 2>(),
                4 => self.attend::<S, 4>(),
                8 => self.attend::<S, 8>(),
                _ => self.attend::<S, 0>(),
            }
        }
    }
}

fn check<'a, T: Element>(
    q: Rows<'a, T>,
    cache: PagedCache<'a, T>,
    cu_seqlens: &'a [i32],
    seq_lens: &'a [i32],
    scale: f32,
    y: &mut RowsMut<'_, T>,
) -> Result<Job<'a, T>, KernelError> {
    let PagedCache {
        k,
        v,
        block_size,
        kv_heads,
        head_dim,
        block_tables,
        max_blocks,
    } = cache;
    let kv_width = kv_heads * head_dim;
    let fits = kv_width > 0 && block_size > 0 && q.width().is_multiple_of(kv_width);
    check_value("q width", q.width() as i64, fits, "a multiple of K * P")?;
    check_size("y", y.width(), q.width())?;
    check_size("y", y.len(), q.len())?;
    check_cu_seqlens(cu_seqlens, seq_lens.len(), q.len())?;
    check_size(
        "block_tables",
        block_tables.len(),
        seq_lens.len() * max_blocks,
    )?;
    check_size("v_cache", v.len(), k.len())?;
    let num_blocks = k.len() / (block_size * kv_width);
    for (s, &seq_len) in seq_lens.iter().enumerate() {
        let tokens = cu_seqlens[s + 1] - cu_seqlens[s];
        let blocks = (seq_len.max(0) as usize).div_ceil(block_size);
        let ok = seq_len >= tokens && blocks <= max_blocks;
        let allowed = "at least the new tokens, at most what the table's blocks hold";
        check_value("seq_lens", i64::from(seq_len), ok, allowed)?;
        for &block in &block_tables[s * max_blocks..s * max_blocks + blocks] {
            let ok = (0..num_blocks as i64).contains(&i64::from(block));
            check_value("block_tables", i64::from(block), ok, "a block of the cache")?;
        }
    }
    Ok(Job {
        repeat: q.width() / kv_width,
        q,
        cache,
        cu_seqlens,
        seq_lens,
        scale,
        y_stride: y.stride(),
        y: SharedMut(y.as_mut_ptr()),
    })
}

fn run<T: Element>(level: Level, job: &Job<'_, T>) {
    let mut tasks = Vec::new();
    for sequence in 0..job.seq_lens.len() {
        let tokens = (job.cu_seqlens[sequence + 1] - job.cu_seqlens[sequence]) as usize;
        let rows = tokens * job.repeat;
        for kv_head in 0..job.cache.kv_heads {
            for from in (0..rows).step_by(ROWS) {
                tasks.push((sequence, kv_head, from, rows.min(from + ROWS)));
            }
        }
    }
    pool::parallel_for(tasks.len(), |i| {
        let (sequence, kv_head, from, until) = tasks[i];
        // SAFETY: the job was checked; tasks write disjoint parts of y.
        unsafe {
            dispatch(
                level,
                Task {
                    job,
                    sequence,
                    kv_head,
                    from,
                    until,
                },
            );
        };
    });
}

/// y [T, H * P]: each sequence's last tokens attend to its blocks; query j of sequence s stands
/// at position `seq_lens[s] - len_s + j`.
///
/// # Errors
/// [`KernelError`] when shapes, offsets, lengths or blocks do not fit; nothing is written then.
pub fn paged_attention<T: Element>(
    q: Rows<'_, T>,
    cache: PagedCache<'_, T>,
    cu_seqlens: &[i32],
    seq_lens: &[i32],
    scale: f32,
    y: &mut RowsMut<'_, T>,
) -> Result<(), KernelError> {
    run(
        Level::detect(),
        &check(q, cache, cu_seqlens, seq_lens, scale, y)?,
    );
    Ok(())
}

#[cfg(test)]
mod tests;
