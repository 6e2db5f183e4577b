//! The inner step of a product: lanes along K, whatever the element type and instruction set.
//!
//! Every output is `sum over lanes of (sum over steps, in ascending k)`: the order of additions
//! depends on K alone, so a row's bits do not depend on the rows beside it.

#[cfg(target_arch = "x86_64")]
use crate::bf16::Bf16;
use crate::simd::{Element, Simd};

/// One lane-wise multiply-accumulate over `STEP` elements of K.
///
/// # Safety
/// CPU features of the implementation; pointers valid for the elements named.
pub(crate) trait Dot {
    type Elem: Element;
    /// One loaded step of a row.
    type Step: Copy;
    /// One accumulator.
    type Acc: Copy;
    const STEP: usize;

    unsafe fn zero() -> Self::Acc;
    unsafe fn load(ptr: *const Self::Elem) -> Self::Step;
    /// The first `n < STEP` elements, the rest 0.
    unsafe fn load_n(ptr: *const Self::Elem, n: usize) -> Self::Step;
    unsafe fn dot(a: Self::Step, b: Self::Step, acc: Self::Acc) -> Self::Acc;
    unsafe fn sum(acc: Self::Acc) -> f32;
}

/// One vector of elements a step, widened to f32.
pub(crate) struct Widened<S, T>(std::marker::PhantomData<(S, T)>);

// SAFETY (all methods): see the trait.
impl<S: Simd, T: Element> Dot for Widened<S, T> {
    type Elem = T;
    type Step = S::V;
    type Acc = S::V;
    const STEP: usize = S::LANES;

    #[inline(always)]
    unsafe fn zero() -> S::V {
        unsafe { S::splat(0.0) }
    }
    #[inline(always)]
    unsafe fn load(ptr: *const T) -> S::V {
        unsafe { T::load::<S>(ptr) }
    }
    #[inline(always)]
    unsafe fn load_n(ptr: *const T, n: usize) -> S::V {
        unsafe { T::load_n::<S>(ptr, n) }
    }
    #[inline(always)]
    unsafe fn dot(a: S::V, b: S::V, acc: S::V) -> S::V {
        unsafe { S::fma(a, b, acc) }
    }
    #[inline(always)]
    unsafe fn sum(acc: S::V) -> f32 {
        unsafe { S::sum(acc) }
    }
}

/// AVX512-BF16: pairs of bf16 multiplied and added into 16 f32 lanes.
#[cfg(target_arch = "x86_64")]
pub(crate) struct PairsBf16;

#[cfg(target_arch = "x86_64")]
mod pairs {
    #[allow(clippy::wildcard_imports)] // intrinsics
    use std::arch::x86_64::*;

    use super::{Bf16, Dot, PairsBf16};
    use crate::simd::{Avx512, Simd};

    // SAFETY (all methods): see the trait; needs avx512bf16 and avx512bw.
    impl Dot for PairsBf16 {
        type Elem = Bf16;
        type Step = __m512i;
        type Acc = __m512;
        const STEP: usize = 32;

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn load(ptr: *const Bf16) -> __m512i {
            unsafe { _mm512_loadu_si512(ptr.cast()) }
        }
        #[inline(always)]
        unsafe fn load_n(ptr: *const Bf16, n: usize) -> __m512i {
            unsafe { _mm512_maskz_loadu_epi16(((1u64 << n) - 1) as __mmask32, ptr.cast()) }
        }
        #[inline(always)]
        unsafe fn dot(a: __m512i, b: __m512i, acc: __m512) -> __m512 {
            // SAFETY: __m512bh and __m512i are both 64 bytes of any bits.
            unsafe {
                let a = std::mem::transmute::<__m512i, __m512bh>(a);
                let b = std::mem::transmute::<__m512i, __m512bh>(b);
                _mm512_dpbf16_ps(acc, a, b)
            }
        }
        #[inline(always)]
        unsafe fn sum(acc: __m512) -> f32 {
            unsafe { <Avx512 as Simd>::sum(acc) }
        }
    }
}
