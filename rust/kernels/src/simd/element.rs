//! Element types of tensors: f32 and bfloat16, both computed in f32.

use super::Simd;
use crate::bf16::Bf16;

/// A stored element; loads widen to f32, stores round to nearest even.
///
/// # Safety
/// As for [`Simd`]: features and pointer ranges are the caller's.
pub trait Element: vector::Vector + Copy + Default + Send + Sync + 'static {
    /// To f32, exactly.
    fn to_f32(self) -> f32;
    /// From f32, to nearest even.
    fn from_f32(value: f32) -> Self;
}

/// The vector side, kept out of the public trait.
pub(crate) mod vector {
    use super::{Bf16, Simd};

    pub trait Vector: Sized {
        #[allow(private_interfaces, private_bounds)]
        unsafe fn load<S: Simd>(ptr: *const Self) -> S::V;
        #[allow(private_interfaces, private_bounds)]
        unsafe fn load_n<S: Simd>(ptr: *const Self, n: usize) -> S::V;
        #[allow(private_interfaces, private_bounds)]
        unsafe fn store<S: Simd>(ptr: *mut Self, v: S::V);
        #[allow(private_interfaces, private_bounds)]
        unsafe fn store_n<S: Simd>(ptr: *mut Self, v: S::V, n: usize);
    }

    impl Vector for f32 {
        #[inline(always)]
        #[allow(private_interfaces, private_bounds)]
        unsafe fn load<S: Simd>(ptr: *const Self) -> S::V {
            // SAFETY: passed on to the caller.
            unsafe { S::load(ptr) }
        }
        #[inline(always)]
        #[allow(private_interfaces, private_bounds)]
        unsafe fn load_n<S: Simd>(ptr: *const Self, n: usize) -> S::V {
            // SAFETY: passed on to the caller.
            unsafe { S::load_n(ptr, n) }
        }
        #[inline(always)]
        #[allow(private_interfaces, private_bounds)]
        unsafe fn store<S: Simd>(ptr: *mut Self, v: S::V) {
            // SAFETY: passed on to the caller.
            unsafe { S::store(ptr, v) }
        }
        #[inline(always)]
        #[allow(private_interfaces, private_bounds)]
        unsafe fn store_n<S: Simd>(ptr: *mut Self, v: S::V, n: usize) {
            // SAFETY: passed on to the caller.
            unsafe { S::store_n(ptr, v, n) }
        }
    }

    impl Vector for Bf16 {
        #[inline(always)]
        #[allow(private_interfaces, private_bounds)]
        unsafe fn load<S: Simd>(ptr: *const Self) -> S::V {
            // SAFETY: Bf16 is a transparent u16; the rest is passed on to the caller.
            unsafe { S::load_bf16(ptr.cast()) }
        }
        #[inline(always)]
        #[allow(private_interfaces, private_bounds)]
        unsafe fn load_n<S: Simd>(ptr: *const Self, n: usize) -> S::V {
            // SAFETY: as above.
            unsafe { S::load_bf16_n(ptr.cast(), n) }
        }
        #[inline(always)]
        #[allow(private_interfaces, private_bounds)]
        unsafe fn store<S: Simd>(ptr: *mut Self, v: S::V) {
            // SAFETY: as above.
            unsafe { S::store_bf16(ptr.cast(), v) }
        }
        #[inline(always)]
        #[allow(private_interfaces, private_bounds)]
        unsafe fn store_n<S: Simd>(ptr: *mut Self, v: S::V, n: usize) {
            // SAFETY: as above.
            unsafe { S::store_bf16_n(ptr.cast(), v, n) }
        }
    }
}

impl Element for f32 {
    fn to_f32(self) -> f32 {
        self
    }
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Element for Bf16 {
    fn to_f32(self) -> f32 {
        Bf16::to_f32(self)
    }
    fn from_f32(value: f32) -> Self {
        Bf16::from_f32(value)
    }
}
