//! One vector interface over AVX-512, AVX2 and plain arrays.
//!
//! A kernel is written once, generic over [`Simd`], as a struct that implements [`Kernel`];
//! [`dispatch`] runs it inside a function compiled for the CPU's features. Everything generic is
//! `inline(always)`: only so do the intrinsics end up in that function.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod element;
mod math;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{Avx512, transpose16};
pub use element::Element;
pub(crate) use element::vector::Vector;
pub(crate) use math::{exp, silu, softplus};

use std::sync::OnceLock;

/// Instruction sets that the vector kernels are compiled for, in ascending order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust, any CPU.
    Portable,
    /// AVX2 with FMA.
    Avx2,
    /// AVX-512 F, BW, DQ, VL.
    Avx512,
}

impl Level {
    /// The best level of this CPU.
    pub fn detect() -> Self {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            #[cfg(target_arch = "x86_64")]
            {
                let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
                if avx2
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                {
                    return Level::Avx512;
                }
                if avx2 {
                    return Level::Avx2;
                }
            }
            Level::Portable
        })
    }

    /// Every level that this CPU can run, for tests.
    #[cfg(test)]
    pub(crate) fn available() -> Vec<Level> {
        [Level::Portable, Level::Avx2, Level::Avx512]
            .into_iter()
            .filter(|level| *level <= Level::detect())
            .collect()
    }
}

/// `LANES` f32 in one register. Operations are per lane unless said otherwise.
///
/// # Safety
/// Every method needs the CPU features of its implementation, which [`dispatch`] guarantees;
/// pointers must be valid for the number of elements named.
pub(crate) trait Simd: Copy {
    type V: Copy;
    const LANES: usize;

    unsafe fn splat(value: f32) -> Self::V;
    /// `LANES` elements.
    unsafe fn load(ptr: *const f32) -> Self::V;
    /// The first `n <= LANES` elements, the rest 0.
    unsafe fn load_n(ptr: *const f32, n: usize) -> Self::V;
    unsafe fn store(ptr: *mut f32, v: Self::V);
    unsafe fn store_n(ptr: *mut f32, v: Self::V, n: usize);
    unsafe fn load_bf16(ptr: *const u16) -> Self::V;
    unsafe fn load_bf16_n(ptr: *const u16, n: usize) -> Self::V;
    /// Rounds to nearest even.
    unsafe fn store_bf16(ptr: *mut u16, v: Self::V);
    unsafe fn store_bf16_n(ptr: *mut u16, v: Self::V, n: usize);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where one is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where one is NaN.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// To the nearest integer, ties to even.
    unsafe fn round(a: Self::V) -> Self::V;
    /// `a * 2^n` for integral `n` in [-160, 130].
    unsafe fn scale(a: Self::V, n: Self::V) -> Self::V;
    /// Sum over the lanes by halving: (l, l + L/2), (l, l + L/4) ... always in this order.
    unsafe fn sum(v: Self::V) -> f32;
    /// Largest lane; NaN lanes may be ignored.
    unsafe fn max_lane(v: Self::V) -> f32;
    /// Number of lanes with `a > b`.
    unsafe fn count_gt(a: Self::V, b: Self::V) -> u32;
}

/// A piece of work generic over the instruction set.
pub(crate) trait Kernel {
    type Out;
    /// # Safety
    /// The CPU must have the features of `S`; the pointers inside `self` must be valid.
    unsafe fn run<S: Simd>(self) -> Self::Out;
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Out {
    // SAFETY: passed on to the caller.
    unsafe { kernel.run::<avx512::Avx512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,bmi2")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Out {
    // SAFETY: passed on to the caller.
    unsafe { kernel.run::<avx2::Avx2>() }
}

/// Run `kernel` compiled for `level`.
///
/// # Safety
/// The pointers inside `kernel` must be valid, and `level <= Level::detect()`.
#[inline]
pub(crate) unsafe fn dispatch<K: Kernel>(level: Level, kernel: K) -> K::Out {
    // SAFETY: the features were detected; the rest is the caller's promise.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => run_avx512(kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => run_avx2(kernel),
            _ => kernel.run::<portable::Portable>(),
        }
    }
}
