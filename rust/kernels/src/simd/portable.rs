//! 8 lanes of plain Rust, for CPUs without AVX2.

use super::Simd;
use crate::bf16::Bf16;

/// See [`Simd`].
#[derive(Clone, Copy)]
pub(crate) struct Portable;

const L: usize = 8;

#[inline(always)]
fn map(a: [f32; L], f: impl Fn(f32) -> f32) -> [f32; L] {
    std::array::from_fn(|l| f(a[l]))
}

#[inline(always)]
fn zip(a: [f32; L], b: [f32; L], f: impl Fn(f32, f32) -> f32) -> [f32; L] {
    std::array::from_fn(|l| f(a[l], b[l]))
}

// SAFETY (all methods): see the trait.
impl Simd for Portable {
    type V = [f32; L];
    const LANES: usize = L;

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; L] {
        [value; L]
    }
    #[inline(always)]
    unsafe fn load(ptr: *const f32) -> [f32; L] {
        unsafe { ptr.cast::<[f32; L]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_n(ptr: *const f32, n: usize) -> [f32; L] {
        std::array::from_fn(|l| if l < n { unsafe { *ptr.add(l) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store(ptr: *mut f32, v: [f32; L]) {
        unsafe { ptr.cast::<[f32; L]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_n(ptr: *mut f32, v: [f32; L], n: usize) {
        unsafe { std::ptr::copy_nonoverlapping(v.as_ptr(), ptr, n) }
    }
    #[inline(always)]
    unsafe fn load_bf16(ptr: *const u16) -> [f32; L] {
        unsafe { Self::load_bf16_n(ptr, L) }
    }
    #[inline(always)]
    unsafe fn load_bf16_n(ptr: *const u16, n: usize) -> [f32; L] {
        std::array::from_fn(|l| {
            if l < n {
                Bf16(unsafe { *ptr.add(l) }).to_f32()
            } else {
                0.0
            }
        })
    }
    #[inline(always)]
    unsafe fn store_bf16(ptr: *mut u16, v: [f32; L]) {
        unsafe { Self::store_bf16_n(ptr, v, L) }
    }
    #[inline(always)]
    unsafe fn store_bf16_n(ptr: *mut u16, v: [f32; L], n: usize) {
        for (l, value) in v.iter().enumerate().take(n) {
            unsafe { *ptr.add(l) = Bf16::from_f32(*value).0 }
        }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; L], b: [f32; L]) -> [f32; L] {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; L], b: [f32; L]) -> [f32; L] {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; L], b: [f32; L]) -> [f32; L] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: [f32; L], b: [f32; L]) -> [f32; L] {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; L], b: [f32; L], c: [f32; L]) -> [f32; L] {
        // Two roundings: without the instruction, mul_add would be a library call per lane.
        std::array::from_fn(|l| a[l] * b[l] + c[l])
    }
    #[inline(always)]
    unsafe fn max(a: [f32; L], b: [f32; L]) -> [f32; L] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: [f32; L], b: [f32; L]) -> [f32; L] {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn round(a: [f32; L]) -> [f32; L] {
        map(a, f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn scale(a: [f32; L], n: [f32; L]) -> [f32; L] {
        zip(a, n, |a, n| {
            // In two steps, since 2^n alone may be outside the normal range.
            let half = (n * 0.5).round_ties_even();
            let power = |e: f32| f32::from_bits(((e as i32 + 127) as u32) << 23);
            a * power(half) * power(n - half)
        })
    }
    #[inline(always)]
    unsafe fn sum(v: [f32; L]) -> f32 {
        let v4: [f32; 4] = std::array::from_fn(|l| v[l] + v[l + 4]);
        (v4[0] + v4[2]) + (v4[1] + v4[3])
    }
    #[inline(always)]
    unsafe fn max_lane(v: [f32; L]) -> f32 {
        v.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
    #[inline(always)]
    unsafe fn count_gt(a: [f32; L], b: [f32; L]) -> u32 {
        (0..L).map(|l| u32::from(a[l] > b[l])).sum()
    }
}
