//! Denormals are zero inside every kernel.
//!
//! Decays and attention weights of a trained model are full of numbers too small for full
//! precision, and each costs the processor a hundred cycles: a training step takes half again as
//! long with them. The mode is set here, on every thread that runs a kernel, so that results do
//! not depend on how the caller's thread was left.

/// Flushes denormals on this thread until it is dropped, then restores what was.
pub(crate) struct Flushed(Control);

impl Flushed {
    pub(crate) fn new() -> Self {
        let before = read();
        if before & FLUSH != FLUSH {
            write(before | FLUSH);
        }
        Self(before)
    }
}

impl Drop for Flushed {
    fn drop(&mut self) {
        if self.0 & FLUSH != FLUSH {
            write(self.0);
        }
    }
}

#[cfg(target_arch = "x86_64")]
type Control = u32;
/// Bits "flush to zero" and "denormals are zero" of MXCSR.
#[cfg(target_arch = "x86_64")]
const FLUSH: Control = 0x8040;

#[cfg(target_arch = "x86_64")]
fn read() -> Control {
    let mut value: Control = 0;
    // SAFETY: stores this thread's MXCSR (SSE is part of x86-64) into a local.
    unsafe {
        core::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value, options(nostack, preserves_flags));
    }
    value
}

#[cfg(target_arch = "x86_64")]
fn write(value: Control) {
    // SAFETY: only the two flush bits differ from what was read: no exception is unmasked and
    // rounding stays; kernels do not tell a denormal from zero.
    unsafe {
        core::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value, options(nostack, readonly));
    }
}

#[cfg(target_arch = "aarch64")]
type Control = u64;
/// Bit "flush to zero" of FPCR.
#[cfg(target_arch = "aarch64")]
const FLUSH: Control = 1 << 24;

#[cfg(target_arch = "aarch64")]
fn read() -> Control {
    let value: Control;
    // SAFETY: reads this thread's FPCR.
    unsafe { core::arch::asm!("mrs {}, fpcr", out(reg) value, options(nomem, nostack)) };
    value
}

#[cfg(target_arch = "aarch64")]
fn write(value: Control) {
    // SAFETY: only the flush bit differs from what was read.
    unsafe { core::arch::asm!("msr fpcr, {}", in(reg) value, options(nostack)) };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
type Control = u32;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const FLUSH: Control = 0;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn read() -> Control {
    0
}
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn write(_: Control) {}

#[cfg(test)]
mod tests {
    use super::{FLUSH, Flushed, read};
    use std::hint::black_box;

    #[test]
    fn denormals_are_zero_while_it_lives_and_the_mode_is_restored() {
        let before = read();
        let tiny = black_box(1e-40f32);
        {
            let _flushed = Flushed::new();
            assert_eq!(read() & FLUSH, FLUSH);
            let _inner = Flushed::new();
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            assert_eq!(black_box(tiny * black_box(1.0)).to_bits(), 0);
        }
        assert_eq!(read(), before);
    }
}
