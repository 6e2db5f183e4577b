//! Loops over one row, for the training kernels. Each takes any length; a tail is masked.

use crate::simd::Simd;

/// Call `$body` with ($i, $n) for each vector: its offset and how many elements it holds.
macro_rules! for_vectors {
    ($S:ident, $len:expr, |$i:ident, $n:ident| $body:block) => {{
        let len: usize = $len;
        let mut $i = 0;
        while $i + $S::LANES <= len {
            let $n = $S::LANES;
            $body
            $i += $S::LANES;
        }
        if $i < len {
            let $n = len - $i;
            $body
        }
    }};
}
pub(crate) use for_vectors;

/// Load the `n` elements at `ptr`, a whole register without a mask.
///
/// # Safety
/// `n` elements must lie at `ptr`; the CPU must have the features of `S` (so in this file).
#[inline(always)]
pub(crate) unsafe fn load<S: Simd>(ptr: *const f32, n: usize) -> S::V {
    // SAFETY: passed on to the caller.
    unsafe {
        if n == S::LANES {
            S::load(ptr)
        } else {
            S::load_n(ptr, n)
        }
    }
}

/// Store the first `n` elements at `ptr`.
///
/// # Safety
/// As for [`load`].
#[inline(always)]
pub(crate) unsafe fn store<S: Simd>(ptr: *mut f32, v: S::V, n: usize) {
    // SAFETY: passed on to the caller.
    unsafe {
        if n == S::LANES {
            S::store(ptr, v);
        } else {
            S::store_n(ptr, v, n);
        }
    }
}

/// `out = x * factor`; out may be x.
///
/// # Safety
/// `len` elements must lie at both.
#[inline(always)]
pub(crate) unsafe fn scale<S: Simd>(out: *mut f32, x: *const f32, factor: f32, len: usize) {
    // SAFETY: i + n <= len.
    unsafe {
        let factor = S::splat(factor);
        for_vectors!(S, len, |i, n| {
            store::<S>(out.add(i), S::mul(load::<S>(x.add(i), n), factor), n);
        });
    }
}

/// `out += x * factor`.
///
/// # Safety
/// `len` elements must lie at both.
#[inline(always)]
pub(crate) unsafe fn add_scaled<S: Simd>(out: *mut f32, x: *const f32, factor: f32, len: usize) {
    // SAFETY: i + n <= len.
    unsafe {
        let factor = S::splat(factor);
        for_vectors!(S, len, |i, n| {
            let sum = S::fma(load::<S>(x.add(i), n), factor, load::<S>(out.add(i), n));
            store::<S>(out.add(i), sum, n);
        });
    }
}

/// Sum of `x * y`.
///
/// # Safety
/// `len` elements must lie at both.
#[inline(always)]
pub(crate) unsafe fn dot<S: Simd>(x: *const f32, y: *const f32, len: usize) -> f32 {
    // SAFETY: i + n <= len.
    unsafe {
        let mut sum = S::splat(0.0);
        for_vectors!(S, len, |i, n| {
            sum = S::fma(load::<S>(x.add(i), n), load::<S>(y.add(i), n), sum);
        });
        S::sum(sum)
    }
}
