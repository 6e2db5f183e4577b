//! Addresses to slices. `falcon_h1r.ops.cpu` holds the tensors while a call lasts.

use falcon_kernels::{KernelError, Rows, RowsMut};

/// The `len` elements at `address`; empty for address 0 or length 0.
///
/// # Safety
/// The range must be readable and unchanged while the call lasts (the caller holds the tensor).
pub(super) unsafe fn view<'a, T>(address: usize, len: usize) -> &'a [T] {
    if address == 0 || len == 0 {
        return &[];
    }
    // SAFETY: passed on to the caller.
    unsafe { std::slice::from_raw_parts(address as *const T, len) }
}

/// [`view`] to write to.
///
/// # Safety
/// As [`view`], and nothing else may use the range while the call lasts.
pub(super) unsafe fn view_mut<'a, T>(address: usize, len: usize) -> &'a mut [T] {
    if address == 0 || len == 0 {
        return &mut [];
    }
    // SAFETY: passed on to the caller.
    unsafe { std::slice::from_raw_parts_mut(address as *mut T, len) }
}

/// Elements from the first to the last of a strided matrix.
fn span(rows: usize, width: usize, stride: usize) -> usize {
    rows.checked_sub(1)
        .map_or(0, |last| last.saturating_mul(stride).saturating_add(width))
}

pub(super) unsafe fn rows<'a, T>(
    name: &'static str,
    address: usize,
    rows: usize,
    width: usize,
    stride: usize,
) -> Result<Rows<'a, T>, KernelError> {
    // SAFETY: passed on to the caller.
    let data = unsafe { view(address, span(rows, width, stride)) };
    Rows::new(name, data, rows, width, stride)
}

pub(super) unsafe fn rows_mut<'a, T>(
    name: &'static str,
    address: usize,
    rows: usize,
    width: usize,
    stride: usize,
) -> Result<RowsMut<'a, T>, KernelError> {
    // SAFETY: passed on to the caller.
    let data = unsafe { view_mut(address, span(rows, width, stride)) };
    RowsMut::new(name, data, rows, width, stride)
}
