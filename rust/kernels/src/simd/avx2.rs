//! 8 lanes of AVX2 with FMA.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;

use super::Simd;

/// See [`Simd`].
#[derive(Clone, Copy)]
pub(crate) struct Avx2;

static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// All ones in the first `n <= 8` lanes.
#[inline(always)]
unsafe fn mask(n: usize) -> __m256i {
    // SAFETY: lanes 8 - n .. 16 - n of the table.
    unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - n).cast()) }
}

/// Sum of 8 lanes by halving.
#[inline(always)]
pub(super) unsafe fn sum8(v: __m256) -> f32 {
    // SAFETY: register arithmetic only.
    unsafe {
        let v4 = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v2 = _mm_add_ps(v4, _mm_movehl_ps(v4, v4));
        _mm_cvtss_f32(_mm_add_ss(v2, _mm_shuffle_ps::<1>(v2, v2)))
    }
}

/// bf16 bits of 8 lanes, rounded to nearest even; NaN keeps a set bit.
#[inline(always)]
unsafe fn narrow(v: __m256) -> __m128i {
    // SAFETY: register arithmetic only.
    unsafe {
        let bits = _mm256_castps_si256(v);
        let high = _mm256_srli_epi32::<16>(bits);
        let odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
        let round = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7FFF));
        let rounded = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, round));
        let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
        let quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
        let words = _mm256_blendv_epi8(rounded, quiet, nan);
        let packed = _mm256_packus_epi32(words, words);
        _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(packed))
    }
}

#[inline(always)]
unsafe fn widen(v: __m128i) -> __m256 {
    // SAFETY: register arithmetic only.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(v))) }
}

/// `2^n` for integral `n` in [-126, 127].
#[inline(always)]
unsafe fn power_of_two(n: __m256) -> __m256 {
    // SAFETY: register arithmetic only.
    unsafe {
        let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
    }
}

// SAFETY (all methods): see the trait.
impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }
    #[inline(always)]
    unsafe fn load(ptr: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(ptr) }
    }
    #[inline(always)]
    unsafe fn load_n(ptr: *const f32, n: usize) -> __m256 {
        unsafe { _mm256_maskload_ps(ptr, mask(n)) }
    }
    #[inline(always)]
    unsafe fn store(ptr: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(ptr, v) }
    }
    #[inline(always)]
    unsafe fn store_n(ptr: *mut f32, v: __m256, n: usize) {
        unsafe { _mm256_maskstore_ps(ptr, mask(n), v) }
    }
    #[inline(always)]
    unsafe fn load_bf16(ptr: *const u16) -> __m256 {
        unsafe { widen(_mm_loadu_si128(ptr.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16_n(ptr: *const u16, n: usize) -> __m256 {
        let mut part = [0u16; 8];
        unsafe {
            std::ptr::copy_nonoverlapping(ptr, part.as_mut_ptr(), n);
            Self::load_bf16(part.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store_bf16(ptr: *mut u16, v: __m256) {
        unsafe { _mm_storeu_si128(ptr.cast(), narrow(v)) }
    }
    #[inline(always)]
    unsafe fn store_bf16_n(ptr: *mut u16, v: __m256, n: usize) {
        let mut part = [0u16; 8];
        unsafe {
            Self::store_bf16(part.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(part.as_ptr(), ptr, n);
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn round(a: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    unsafe fn scale(a: __m256, n: __m256) -> __m256 {
        // In two steps, since 2^n alone may be outside the normal range.
        unsafe {
            let half = Self::round(_mm256_mul_ps(n, _mm256_set1_ps(0.5)));
            let rest = _mm256_sub_ps(n, half);
            _mm256_mul_ps(_mm256_mul_ps(a, power_of_two(half)), power_of_two(rest))
        }
    }
    #[inline(always)]
    unsafe fn sum(v: __m256) -> f32 {
        unsafe { sum8(v) }
    }
    #[inline(always)]
    unsafe fn max_lane(v: __m256) -> f32 {
        unsafe {
            let v4 = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let v2 = _mm_max_ps(v4, _mm_movehl_ps(v4, v4));
            _mm_cvtss_f32(_mm_max_ss(v2, _mm_shuffle_ps::<1>(v2, v2)))
        }
    }
    #[inline(always)]
    unsafe fn count_gt(a: __m256, b: __m256) -> u32 {
        unsafe { _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a, b)).count_ones() }
    }
}
