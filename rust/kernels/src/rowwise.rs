//! Kernels that map rows to rows: norms, gates, softplus.
//!
//! A row is summed in vector lanes from its start on, whatever the batch.

use crate::error::{KernelError, check_size, check_value};
use crate::pool::{self, SharedMut};
use crate::rows::{Rows, RowsMut};
use crate::simd::{Element, Kernel, Level, Simd, dispatch, exp, silu, softplus};

/// Elements a task takes at least: below, waking a thread costs more than the work.
const TASK_ELEMENTS: usize = 1 << 14;

/// Run `task(begin, end)` over blocks of `rows` rows of `width` elements.
pub(crate) fn by_rows(rows: usize, width: usize, task: impl Fn(usize, usize) + Sync) {
    let block = (TASK_ELEMENTS / width.max(1)).max(1);
    pool::parallel_for(rows.div_ceil(block), |i| {
        task(i * block, ((i + 1) * block).min(rows));
    });
}

/// Call `body` with (first element, elements) for each vector of a row of `width`.
#[inline(always)]
fn vectors<S: Simd>(width: usize, mut body: impl FnMut(usize, usize)) {
    let mut at = 0;
    while at < width {
        body(at, S::LANES.min(width - at));
        at += S::LANES;
    }
}

/// 1 / sqrt(mean of squares + eps).
#[inline(always)]
unsafe fn inverse_rms<S: Simd, T: Element>(x: *const T, width: usize, eps: f32) -> f32 {
    // SAFETY: `width` elements (the caller's promise).
    unsafe {
        let mut sum = S::splat(0.0);
        vectors::<S>(width, |at, n| {
            let v = T::load_n::<S>(x.add(at), n);
            sum = S::fma(v, v, sum);
        });
        1.0 / (S::sum(sum) / width as f32 + eps).sqrt()
    }
}

struct RmsNorm<'a, T> {
    x: *const T,
    weight: &'a [T],
    eps: f32,
    y: *mut T,
}

impl<T: Element> Kernel for RmsNorm<'_, T> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = self.weight.len();
        // SAFETY: x and y are rows of `width` elements.
        unsafe {
            let factor = S::splat(inverse_rms::<S, T>(self.x, width, self.eps));
            vectors::<S>(width, |at, n| {
                let normed = S::mul(T::load_n::<S>(self.x.add(at), n), factor);
                let weight = T::load_n::<S>(self.weight.as_ptr().add(at), n);
                T::store_n::<S>(self.y.add(at), S::mul(weight, normed), n);
            });
        }
    }
}

/// y = x / sqrt(mean(x^2) + eps) * weight, row by row (Zhang & Sennrich 2019).
///
/// # Errors
/// [`KernelError`] when widths or lengths differ.
pub fn rms_norm<T: Element>(
    x: &Rows<'_, T>,
    weight: &[T],
    eps: f32,
    y: &mut RowsMut<'_, T>,
) -> Result<(), KernelError> {
    let width = x.width();
    check_size("weight", weight.len(), width)?;
    same_shape("y", x, y)?;
    let (out, stride) = (SharedMut(y.as_mut_ptr()), y.stride());
    let weight = &weight[..width];
    by_rows(x.len(), width, |begin, end| {
        for i in begin..end {
            // SAFETY: row i of both; each row belongs to one task.
            unsafe {
                let y = out.at(i * stride);
                dispatch(
                    Level::detect(),
                    RmsNorm {
                        x: x.ptr(i),
                        weight,
                        eps,
                        y,
                    },
                );
            }
        }
    });
    Ok(())
}

fn same_shape<T, O>(
    name: &'static str,
    x: &Rows<'_, T>,
    y: &RowsMut<'_, O>,
) -> Result<(), KernelError> {
    let ok = (x.len(), x.width()) == (y.len(), y.width());
    check_value(name, y.width() as i64, ok, "the shape of x")
}

/// How [`gated_rms_norm`] normalises.
#[derive(Clone, Copy, Debug)]
pub struct GatedNorm {
    /// Added to the mean of squares.
    pub eps: f32,
    /// Slices of the row normalised each by itself.
    pub num_groups: usize,
    /// norm(x) * silu(z) instead of norm(x * silu(z)).
    pub norm_before_gate: bool,
}

struct Gated<'a, T> {
    x: *const T,
    z: *const T,
    weight: &'a [T],
    norm: GatedNorm,
    y: *mut T,
    /// One group's gated values.
    scratch: *mut f32,
}

impl<T: Element> Kernel for Gated<'_, T> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self {
            x,
            z,
            weight,
            norm,
            y,
            scratch,
        } = self;
        let width = weight.len() / norm.num_groups;
        // SAFETY: rows of `weight.len()` elements; scratch holds a group.
        unsafe {
            for group in 0..norm.num_groups {
                let base = group * width;
                vectors::<S>(width, |at, n| {
                    let mut v = T::load_n::<S>(x.add(base + at), n);
                    if !norm.norm_before_gate {
                        v = S::mul(v, silu::<S>(T::load_n::<S>(z.add(base + at), n)));
                    }
                    S::store_n(scratch.add(at), v, n);
                });
                let factor = S::splat(inverse_rms::<S, f32>(scratch, width, norm.eps));
                vectors::<S>(width, |at, n| {
                    let w = T::load_n::<S>(weight.as_ptr().add(base + at), n);
                    let mut v = S::mul(w, S::mul(S::load_n(scratch.add(at), n), factor));
                    if norm.norm_before_gate {
                        v = S::mul(v, silu::<S>(T::load_n::<S>(z.add(base + at), n)));
                    }
                    T::store_n::<S>(y.add(base + at), v, n);
                });
            }
        }
    }
}

/// The norm inside the mixer: x gated by silu(z), each group normalised by itself.
///
/// # Errors
/// [`KernelError`] when widths or lengths differ or groups do not divide the width.
pub fn gated_rms_norm<T: Element>(
    x: &Rows<'_, T>,
    z: &Rows<'_, T>,
    weight: &[T],
    norm: GatedNorm,
    y: &mut RowsMut<'_, T>,
) -> Result<(), KernelError> {
    let (width, groups) = (x.width(), norm.num_groups);
    check_size("weight", weight.len(), width)?;
    check_size("z", z.width(), width)?;
    check_size("z", z.len(), x.len())?;
    check_value(
        "groups",
        groups as i64,
        groups > 0 && width % groups == 0,
        "a divisor of C",
    )?;
    same_shape("y", x, y)?;
    let (out, stride) = (SharedMut(y.as_mut_ptr()), y.stride());
    let weight = &weight[..width];
    by_rows(x.len(), width, |begin, end| {
        let mut scratch = vec![0.0f32; width / groups];
        for i in begin..end {
            let scratch = scratch.as_mut_ptr();
            // SAFETY: row i of all three; each row belongs to one task.
            unsafe {
                let y = out.at(i * stride);
                let row = Gated {
                    x: x.ptr(i),
                    z: z.ptr(i),
                    weight,
                    norm,
                    y,
                    scratch,
                };
                dispatch(Level::detect(), row);
            }
        }
    });
    Ok(())
}

struct Swiglu<T> {
    gate: *const T,
    up: *const T,
    y: *mut T,
    width: usize,
}

impl<T: Element> Kernel for Swiglu<T> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: rows of `width` elements.
        unsafe {
            vectors::<S>(self.width, |at, n| {
                let gate = silu::<S>(T::load_n::<S>(self.gate.add(at), n));
                let up = T::load_n::<S>(self.up.add(at), n);
                T::store_n::<S>(self.y.add(at), S::mul(gate, up), n);
            });
        }
    }
}

/// y = silu(gate) * up.
///
/// # Errors
/// [`KernelError`] when shapes differ.
pub fn swiglu<T: Element>(
    gate: &Rows<'_, T>,
    up: &Rows<'_, T>,
    y: &mut RowsMut<'_, T>,
) -> Result<(), KernelError> {
    let width = gate.width();
    check_size("up", up.width(), width)?;
    check_size("up", up.len(), gate.len())?;
    same_shape("y", gate, y)?;
    let (out, stride) = (SharedMut(y.as_mut_ptr()), y.stride());
    by_rows(gate.len(), width, |begin, end| {
        for i in begin..end {
            // SAFETY: row i of all three; each row belongs to one task.
            unsafe {
                let y = out.at(i * stride);
                dispatch(
                    Level::detect(),
                    Swiglu {
                        gate: gate.ptr(i),
                        up: up.ptr(i),
                        y,
                        width,
                    },
                );
            }
        }
    });
    Ok(())
}

struct SoftplusDt<'a, T> {
    dt: *const T,
    bias: &'a [f32],
    limit: (f32, f32),
    y: *mut f32,
}

impl<T: Element> Kernel for SoftplusDt<'_, T> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: rows of `bias.len()` elements.
        unsafe {
            vectors::<S>(self.bias.len(), |at, n| {
                let bias = S::load_n(self.bias.as_ptr().add(at), n);
                let v = softplus::<S>(S::add(T::load_n::<S>(self.dt.add(at), n), bias));
                let v = S::min(S::splat(self.limit.1), S::max(S::splat(self.limit.0), v));
                S::store_n(self.y.add(at), v, n);
            });
        }
    }
}

/// y [T, H] = clamp(softplus(dt + bias), limit) in f32.
///
/// # Errors
/// [`KernelError`] when shapes differ.
pub fn softplus_dt<T: Element>(
    dt: &Rows<'_, T>,
    bias: &[f32],
    limit: (f32, f32),
    y: &mut RowsMut<'_, f32>,
) -> Result<(), KernelError> {
    check_size("dt_bias", bias.len(), dt.width())?;
    same_shape("y", dt, y)?;
    let (out, stride) = (SharedMut(y.as_mut_ptr()), y.stride());
    let bias = &bias[..dt.width()];
    by_rows(dt.len(), dt.width(), |begin, end| {
        for i in begin..end {
            // SAFETY: row i of both; each row belongs to one task.
            unsafe {
                let y = out.at(i * stride);
                dispatch(
                    Level::detect(),
                    SoftplusDt {
                        dt: dt.ptr(i),
                        bias,
                        limit,
                        y,
                    },
                );
            }
        }
    });
    Ok(())
}

struct AddRow<'a, T> {
    x: *mut T,
    parts: &'a [*const T],
    width: usize,
}

impl<T: Element> Kernel for AddRow<'_, T> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: rows of `width` elements.
        unsafe {
            vectors::<S>(self.width, |at, n| {
                let mut sum = T::load_n::<S>(self.parts[0].add(at), n);
                for part in &self.parts[1..] {
                    sum = S::add(sum, T::load_n::<S>(part.add(at), n));
                }
                // What `a + b` of two tensors gives is rounded before it is added to x.
                let mut rounded = [T::from_f32(0.0); 16];
                T::store_n::<S>(rounded.as_mut_ptr(), sum, n);
                let sum = T::load_n::<S>(rounded.as_ptr(), n);
                let x = self.x.add(at);
                T::store_n::<S>(x, S::add(T::load_n::<S>(x, n), sum), n);
            });
        }
    }
}

/// x += the sum of `parts` (of one or two, rounded to T first), row by row.
///
/// # Errors
/// [`KernelError`] when shapes differ.
pub fn add_rows<T: Element, const N: usize>(
    x: &mut RowsMut<'_, T>,
    parts: [Rows<'_, T>; N],
) -> Result<(), KernelError> {
    for part in &parts {
        same_shape("part", part, x)?;
    }
    let (rows, width) = (x.len(), x.width());
    let (out, stride) = (SharedMut(x.as_mut_ptr()), x.stride());
    by_rows(rows, width, |begin, end| {
        for i in begin..end {
            // SAFETY: row i of all; each row belongs to one task.
            unsafe {
                let row = AddRow {
                    x: out.at(i * stride),
                    parts: &parts.each_ref().map(|part| part.ptr(i)),
                    width,
                };
                dispatch(Level::detect(), row);
            }
        }
    });
    Ok(())
}

struct DecayRate<'a, T> {
    a_log: &'a [T],
    out: &'a mut [f32],
}

impl<T: Element> Kernel for DecayRate<'_, T> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: slices of one length.
        unsafe {
            vectors::<S>(self.out.len(), |at, n| {
                let rate = exp::<S>(T::load_n::<S>(self.a_log.as_ptr().add(at), n));
                S::store_n(
                    self.out.as_mut_ptr().add(at),
                    S::sub(S::splat(0.0), rate),
                    n,
                );
            });
        }
    }
}

/// out = -exp(`a_log`) in f32.
///
/// # Errors
/// [`KernelError`] when `a_log` is shorter than `out`.
pub fn decay_rate<T: Element>(a_log: &[T], out: &mut [f32]) -> Result<(), KernelError> {
    check_size("A_log", a_log.len(), out.len())?;
    // SAFETY: the level was detected, the lengths checked.
    unsafe { dispatch(Level::detect(), DecayRate { a_log, out }) };
    Ok(())
}

#[cfg(test)]
mod tests;
