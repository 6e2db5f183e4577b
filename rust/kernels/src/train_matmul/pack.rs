//! Rounding to bfloat16 and packing into panels: out[pair, W], each pair two neighbours along k.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;

use super::Operand;
use crate::simd::transpose16;

/// Pack `count` <= W rows (of a; columns of b) of `k` steps. What lies beyond them becomes zero,
/// but for whole vectors of 16 rows, which are left as they were: no tile reads those.
///
/// # Safety
/// `tile::available()`; the elements of `from` lie in memory; `k.div_ceil(2) * W` pairs at `out`.
pub(super) unsafe fn panel<const W: usize>(from: Operand, count: usize, k: usize, out: *mut u32) {
    for at in (0..count).step_by(16) {
        let ptr = from.ptr.wrapping_add(at * from.outer);
        let (from, count) = (Operand { ptr, ..from }, 16.min(count - at));
        // SAFETY: passed on to the caller.
        unsafe {
            if from.inner == 1 {
                along::<W>(from, count, k, out.add(at));
            } else {
                across::<W>(from, count, k, out.add(at));
            }
        }
    }
}

#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// Round 32 floats to bfloat16, `low` first.
#[inline(always)]
unsafe fn round(low: __m512, high: __m512) -> __m512i {
    // SAFETY: register arithmetic only; both types are 64 bytes of any bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Rows are contiguous along k: pairs lie together and are turned round 16 x 16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
unsafe fn along<const W: usize>(from: Operand, count: usize, k: usize, out: *mut u32) {
    let lanes = first(W.min(16));
    // SAFETY: masked loads stay inside the rows, stores inside the panel.
    unsafe {
        for l in (0..k).step_by(32) {
            let (low, high) = ((k - l).min(16), (k - l).clamp(16, 32) - 16);
            let mut block = [_mm512_setzero_ps(); 16];
            for (r, row) in block.iter_mut().enumerate().take(W) {
                if r < count {
                    let ptr = from.ptr.add(r * from.outer + l);
                    let low = _mm512_maskz_loadu_ps(first(low), ptr);
                    let high = _mm512_maskz_loadu_ps(first(high), ptr.wrapping_add(16));
                    *row = _mm512_castsi512_ps(round(low, high));
                }
            }
            let block = transpose16(block);
            for (p, pairs) in block.iter().enumerate().take((k - l).div_ceil(2)) {
                let to = out.add((l / 2 + p) * W).cast();
                _mm512_mask_storeu_ps(to, lanes, *pairs);
            }
        }
    }
}

/// Steps of k are contiguous across rows: two of them are interleaved.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
unsafe fn across<const W: usize>(from: Operand, count: usize, k: usize, out: *mut u32) {
    let (lanes, rows) = (first(W.min(16)), first(count));
    // SAFETY: masked loads stay inside the steps, stores inside the panel.
    unsafe {
        let zip: [i16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 16) as i16);
        let zip = _mm512_loadu_si512(zip.as_ptr().cast());
        for l in (0..k).step_by(2) {
            let low = _mm512_maskz_loadu_ps(rows, from.ptr.add(l * from.inner));
            let odd = if l + 1 < k { rows } else { 0 };
            let next = from.ptr.wrapping_add((l + 1) * from.inner);
            let high = _mm512_maskz_loadu_ps(odd, next);
            let pairs = _mm512_permutexvar_epi16(zip, round(low, high));
            _mm512_mask_storeu_epi32(out.add(l / 2 * W).cast(), lanes, pairs);
        }
    }
}
