//! AMX by inline assembly: 16 x 64-byte tiles, bf16 products added into f32.
//!
//! Tile registers: 0..3 accumulate C (two row tiles x two column tiles), 4 and 5 hold A, 6 and 7
//! hold B. The compiler never touches them, so they keep their content between the blocks below.

use std::arch::asm;
#[allow(clippy::wildcard_imports)] // intrinsics
use std::arch::x86_64::*;
use std::sync::OnceLock;

/// Whether the CPU has AMX-BF16 and the system lets this process use it.
pub(super) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| cfg!(target_os = "linux") && in_cpu() && permitted())
}

#[target_feature(enable = "xsave")]
unsafe fn xcr0() -> u64 {
    // SAFETY: XGETBV exists where OSXSAVE is set, checked by the caller.
    unsafe { _xgetbv(0) }
}

/// CPUID leaf 7: amx-bf16 (EDX 22) and amx-tile (EDX 24); XCR0 bits 17 and 18 on.
fn in_cpu() -> bool {
    if !is_x86_feature_detected!("xsave") {
        return false;
    }
    let features = __cpuid_count(7, 0).edx;
    let enabled = __cpuid(1).ecx & (1 << 27) != 0;
    // SAFETY: OSXSAVE is set where the third condition is evaluated.
    features & (1 << 22) != 0
        && features & (1 << 24) != 0
        && enabled
        && unsafe { xcr0() } & (3 << 17) == 3 << 17
}

/// Ask Linux for tile data once a process: `arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA)`.
fn permitted() -> bool {
    let result: i64;
    // SAFETY: system call 158 with integer arguments; it only changes this process' permission.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") 158i64 => result,
            in("rdi") 0x1023u64,
            in("rsi") 18u64,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight tiles 16 rows of 64 bytes.
static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Configure the tiles of this thread; [`release`] ends it.
///
/// # Safety
/// [`available`] must be true.
pub(super) unsafe fn configure() {
    // SAFETY: 64 readable bytes that describe a legal palette.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly)) }
}

/// Back to the initial state, which costs nothing at a context switch.
///
/// # Safety
/// [`available`] must be true.
pub(super) unsafe fn release() {
    // SAFETY: no tile content is needed any more.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// C = 0.
///
/// # Safety
/// Between [`configure`] and [`release`].
#[inline(always)]
pub(super) unsafe fn zero() {
    // SAFETY: tiles are configured.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, nomem),
        );
    }
}

/// C[2][2] += A[2] B[2] over `steps` steps of 32 along K.
///
/// Row tile i of A: 16 rows of 64 bytes at `a[i]`, `stride` bytes apart, the next step 64 bytes
/// on. Column tile j of B: 1024 bytes at `b[j]`, the next step 1024 bytes on. Each step asks for
/// the next 2048 bytes at `ahead`.
///
/// # Safety
/// Between [`configure`] and [`release`]; `steps > 0`; the ranges above readable.
#[inline(always)]
pub(super) unsafe fn add_2x2(
    a: [*const u8; 2],
    stride: usize,
    b: [*const u8; 2],
    steps: usize,
    ahead: *const u8,
) {
    // SAFETY: reads what the caller promised; prefetches never fault.
    unsafe {
        asm!(
            "2:",
            "tileloadd tmm4, [{a0} + {stride}*1]",
            "tileloadd tmm6, [{b0} + {line}*1]",
            "tileloadd tmm7, [{b1} + {line}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {stride}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            ".irp line, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "prefetcht1 [{ahead} + \\line*64]",
            "prefetcht1 [{ahead} + \\line*64 + 1024]",
            ".endr",
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "add {ahead}, 2048",
            "dec {steps}",
            "jnz 2b",
            a0 = inout(reg) a[0] => _,
            a1 = inout(reg) a[1] => _,
            b0 = inout(reg) b[0] => _,
            b1 = inout(reg) b[1] => _,
            stride = in(reg) stride,
            line = in(reg) 64usize,
            steps = inout(reg) steps => _,
            ahead = inout(reg) ahead => _,
            options(nostack, readonly),
        );
    }
}

/// [`add_2x2`] without prefetching.
///
/// # Safety
/// As [`add_2x2`].
#[inline(always)]
pub(super) unsafe fn add_2x2_near(
    a: [*const u8; 2],
    stride: usize,
    b: [*const u8; 2],
    steps: usize,
) {
    // SAFETY: reads what the caller promised.
    unsafe {
        asm!(
            "2:",
            "tileloadd tmm4, [{a0} + {stride}*1]",
            "tileloadd tmm6, [{b0} + {line}*1]",
            "tileloadd tmm7, [{b1} + {line}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {stride}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b0}, 1024",
            "add {b1}, 1024",
            "dec {steps}",
            "jnz 2b",
            a0 = inout(reg) a[0] => _,
            a1 = inout(reg) a[1] => _,
            b0 = inout(reg) b[0] => _,
            b1 = inout(reg) b[1] => _,
            stride = in(reg) stride,
            line = in(reg) 64usize,
            steps = inout(reg) steps => _,
            options(nostack, readonly),
        );
    }
}

/// [`add_2x2`] for the first column tile alone: C[i][0] += A[i] B[0].
///
/// # Safety
/// As [`add_2x2`].
#[inline(always)]
pub(super) unsafe fn add_2x1(
    a: [*const u8; 2],
    stride: usize,
    b: *const u8,
    steps: usize,
    ahead: *const u8,
) {
    // SAFETY: reads what the caller promised; prefetches never fault.
    unsafe {
        asm!(
            "2:",
            "tileloadd tmm4, [{a0} + {stride}*1]",
            "tileloadd tmm6, [{b0} + {line}*1]",
            "tileloadd tmm5, [{a1} + {stride}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm2, tmm5, tmm6",
            ".irp line, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
            "prefetcht1 [{ahead} + \\line*64]",
            "prefetcht1 [{ahead} + \\line*64 + 1024]",
            ".endr",
            "add {a0}, 64",
            "add {a1}, 64",
            "add {b0}, 1024",
            "add {ahead}, 2048",
            "dec {steps}",
            "jnz 2b",
            a0 = inout(reg) a[0] => _,
            a1 = inout(reg) a[1] => _,
            b0 = inout(reg) b => _,
            stride = in(reg) stride,
            line = in(reg) 64usize,
            steps = inout(reg) steps => _,
            ahead = inout(reg) ahead => _,
            options(nostack, readonly),
        );
    }
}

/// Write C as four 16 x 16 f32 tiles: (0, 0), (0, 1), (1, 0), (1, 1).
///
/// # Safety
/// Between [`configure`] and [`release`].
#[inline(always)]
pub(super) unsafe fn store(c: &mut [[f32; 256]; 4]) {
    // SAFETY: 4096 writable bytes.
    unsafe {
        asm!(
            "tilestored [{c} + {line}*1], tmm0",
            "tilestored [{c} + {line}*1 + 1024], tmm1",
            "tilestored [{c} + {line}*1 + 2048], tmm2",
            "tilestored [{c} + {line}*1 + 3072], tmm3",
            c = in(reg) c.as_mut_ptr(),
            line = in(reg) 64usize,
            options(nostack),
        );
    }
}

/// Transpose 16 vectors of 16 words.
///
/// # Safety
/// Needs avx512f.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose(r: &[__m512i; 16]) -> [__m512i; 16] {
    let zero = _mm512_setzero_si512();
    let mut t = [zero; 16];
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    // u[4q + c]: word c of each 128-bit lane of rows 4q .. 4q + 4.
    let mut u = [zero; 16];
    for q in 0..4 {
        u[4 * q] = _mm512_unpacklo_epi64(t[4 * q], t[4 * q + 2]);
        u[4 * q + 1] = _mm512_unpackhi_epi64(t[4 * q], t[4 * q + 2]);
        u[4 * q + 2] = _mm512_unpacklo_epi64(t[4 * q + 1], t[4 * q + 3]);
        u[4 * q + 3] = _mm512_unpackhi_epi64(t[4 * q + 1], t[4 * q + 3]);
    }
    let mut out = [zero; 16];
    for c in 0..4 {
        let a = _mm512_shuffle_i32x4::<0b10_00_10_00>(u[c], u[4 + c]);
        let b = _mm512_shuffle_i32x4::<0b11_01_11_01>(u[c], u[4 + c]);
        let d = _mm512_shuffle_i32x4::<0b10_00_10_00>(u[8 + c], u[12 + c]);
        let e = _mm512_shuffle_i32x4::<0b11_01_11_01>(u[8 + c], u[12 + c]);
        // a: lanes 0, 2 of rows 0-3, then of rows 4-7; b: lanes 1, 3; d, e: rows 8-15.
        out[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, d);
        out[8 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, d);
        out[4 + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(b, e);
        out[12 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(b, e);
    }
    out
}
