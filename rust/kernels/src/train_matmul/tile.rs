//! The inner loop: a tile of c in registers, pairs of bf16 multiplied and added into float32.

#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;

/// Rows of a tile. 12 x 2 accumulators leave eight registers for what is loaded.
pub(super) const ROWS: usize = 12;
/// Columns of a tile.
pub(super) const COLS: usize = 32;

/// Whether the CPU has what this file and `pack` are compiled for.
pub(super) fn available() -> bool {
    crate::simd::Level::detect() == crate::simd::Level::Avx512
        && is_x86_feature_detected!("avx512bf16")
}

/// One tile: c [rows, cols] (+)= panel of a [pairs, ROWS] times panel of b [pairs, COLS].
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) pairs: usize,
    pub(super) a: *const u32,
    pub(super) b: *const u32,
    pub(super) c: *mut f32,
    pub(super) c_row: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) add: bool,
}

impl Tile {
    /// # Safety
    /// [`available`]; whole panels at a and b, `rows` x `cols` elements at c.
    pub(super) unsafe fn run(self) {
        // SAFETY: passed on to the caller.
        unsafe {
            if self.cols > 16 {
                self.wide::<2>();
            } else {
                self.wide::<1>();
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
    unsafe fn wide<const NV: usize>(self) {
        // SAFETY: masks leave out what lies beyond `cols`, loops what lies beyond `rows`.
        unsafe {
            let last = ((1u32 << (self.cols - (NV - 1) * 16)) - 1) as __mmask16;
            let mask: [__mmask16; NV] =
                std::array::from_fn(|v| if v + 1 < NV { 0xFFFF } else { last });
            let mut acc = [[_mm512_setzero_ps(); NV]; ROWS];
            if self.add {
                for (r, row) in acc.iter_mut().enumerate() {
                    if r < self.rows {
                        let c = self.c.add(r * self.c_row);
                        for v in 0..NV {
                            row[v] = _mm512_maskz_loadu_ps(mask[v], c.add(v * 16));
                        }
                    }
                }
            }
            let (mut a, mut b) = (self.a, self.b);
            for _ in 0..self.pairs {
                let mut right = [_mm512_setzero_si512(); NV];
                for (v, value) in right.iter_mut().enumerate() {
                    *value = _mm512_load_si512(b.add(v * 16).cast());
                }
                for (r, row) in acc.iter_mut().enumerate() {
                    let left = _mm512_set1_epi32(*a.add(r) as i32);
                    for (value, right) in row.iter_mut().zip(right) {
                        *value = _mm512_dpbf16_ps(*value, pairs(left), pairs(right));
                    }
                }
                a = a.add(ROWS);
                b = b.add(COLS);
            }
            for (r, row) in acc.iter().enumerate() {
                if r < self.rows {
                    let c = self.c.add(r * self.c_row);
                    for v in 0..NV {
                        _mm512_mask_storeu_ps(c.add(v * 16), mask[v], row[v]);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn pairs(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes of any bits.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(bits) }
}
