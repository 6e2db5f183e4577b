//! 16 lanes of AVX-512.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;

use super::Simd;

/// See [`Simd`].
#[derive(Clone, Copy)]
pub(crate) struct Avx512;

#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// bf16 bits of 16 lanes: add half of the last kept place, ties to even; NaN keeps a set bit.
#[inline(always)]
unsafe fn narrow(v: __m512) -> __m256i {
    // SAFETY: register arithmetic only.
    unsafe {
        let bits = _mm512_castps_si512(v);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let round = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF));
        let rounded = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, round));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
        let quiet = _mm512_or_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(0x40));
        _mm512_cvtepi32_epi16(_mm512_mask_mov_epi32(rounded, nan, quiet))
    }
}

#[inline(always)]
unsafe fn widen(v: __m256i) -> __m512 {
    // SAFETY: register arithmetic only.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(v))) }
}

/// Transpose 16 rows of 16 lanes.
///
/// # Safety
/// Needs avx512f and avx512dq.
#[inline(always)]
pub(crate) unsafe fn transpose16(mut r: [__m512; 16]) -> [__m512; 16] {
    // SAFETY: register arithmetic only.
    unsafe {
        let mut t = r;
        for l in 0..8 {
            t[2 * l] = _mm512_unpacklo_ps(r[2 * l], r[2 * l + 1]);
            t[2 * l + 1] = _mm512_unpackhi_ps(r[2 * l], r[2 * l + 1]);
        }
        for l in 0..4 {
            for h in 0..2 {
                let low = _mm512_castps_pd(t[4 * l + h]);
                let high = _mm512_castps_pd(t[4 * l + h + 2]);
                r[4 * l + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
                r[4 * l + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
            }
        }
        // r[4 l + c], quarter q: column c + 4 q of rows 4 l to 4 l + 3.
        for c in 0..4 {
            let even = _mm512_shuffle_f32x4::<0x88>(r[c], r[4 + c]);
            let odd = _mm512_shuffle_f32x4::<0xDD>(r[c], r[4 + c]);
            let even2 = _mm512_shuffle_f32x4::<0x88>(r[8 + c], r[12 + c]);
            let odd2 = _mm512_shuffle_f32x4::<0xDD>(r[8 + c], r[12 + c]);
            t[c] = _mm512_shuffle_f32x4::<0x88>(even, even2);
            t[8 + c] = _mm512_shuffle_f32x4::<0xDD>(even, even2);
            t[4 + c] = _mm512_shuffle_f32x4::<0x88>(odd, odd2);
            t[12 + c] = _mm512_shuffle_f32x4::<0xDD>(odd, odd2);
        }
        t
    }
}

// SAFETY (all methods): see the trait.
impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(ptr: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(ptr) }
    }
    #[inline(always)]
    unsafe fn load_n(ptr: *const f32, n: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask(n), ptr) }
    }
    #[inline(always)]
    unsafe fn store(ptr: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(ptr, v) }
    }
    #[inline(always)]
    unsafe fn store_n(ptr: *mut f32, v: __m512, n: usize) {
        unsafe { _mm512_mask_storeu_ps(ptr, mask(n), v) }
    }
    #[inline(always)]
    unsafe fn load_bf16(ptr: *const u16) -> __m512 {
        unsafe { widen(_mm256_loadu_si256(ptr.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16_n(ptr: *const u16, n: usize) -> __m512 {
        unsafe { widen(_mm256_maskz_loadu_epi16(mask(n), ptr.cast())) }
    }
    #[inline(always)]
    unsafe fn store_bf16(ptr: *mut u16, v: __m512) {
        unsafe { _mm256_storeu_si256(ptr.cast(), narrow(v)) }
    }
    #[inline(always)]
    unsafe fn store_bf16_n(ptr: *mut u16, v: __m512, n: usize) {
        unsafe { _mm256_mask_storeu_epi16(ptr.cast(), mask(n), narrow(v)) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn round(a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    unsafe fn scale(a: __m512, n: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(a, n) }
    }
    #[inline(always)]
    unsafe fn sum(v: __m512) -> f32 {
        unsafe {
            let v8 = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            super::avx2::sum8(v8)
        }
    }
    #[inline(always)]
    unsafe fn max_lane(v: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(v) }
    }
    #[inline(always)]
    unsafe fn count_gt(a: __m512, b: __m512) -> u32 {
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b).count_ones() }
    }
}
