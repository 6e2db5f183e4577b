//! `linear`: y[M, N] = (x[M, K] w[N, K]^T) * scale + bias[N].
//!
//! Weights stay as the checkpoint keeps them, row-major [N, K], without a packed copy. Row
//! invariance: an output's bits depend on its row of x, its row of w and the CPU, never on M, on
//! blocking or on threads. So each (CPU, element type) has one path for every M: f32 has lanes
//! along N and ascending k (`panel`); plain bf16 accumulates in vector lanes along K (`block`,
//! `dot`); CPUs with matrix tiles use those for bf16 (`amx`). Products that can run side by side share one parallel region
//! ([`linear_many`]): between regions a core waits, and nobody fetches weights.

#[cfg(target_arch = "x86_64")]
mod amx;
mod block;
mod dot;
mod panel;
#[cfg(target_arch = "x86_64")]
mod tiles;

use crate::bf16::Bf16;
use crate::error::{KernelError, check_size, check_value};
use crate::pool::{self, SharedMut};
use crate::rows::{Rows, RowsMut};
use crate::simd::{Element, Kernel, Level, Simd, dispatch};
use dot::Widened;

/// Which path bf16 products take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// Widen to f32 in vector lanes.
    Lanes(Level),
    /// AVX512-BF16 pair products.
    #[cfg(target_arch = "x86_64")]
    Pairs,
    /// AMX tiles.
    #[cfg(target_arch = "x86_64")]
    Tiles,
}

impl Path {
    fn detect() -> Self {
        let level = Level::detect();
        #[cfg(target_arch = "x86_64")]
        if level == Level::Avx512 && is_x86_feature_detected!("avx512bf16") {
            return if amx::available() {
                Path::Tiles
            } else {
                Path::Pairs
            };
        }
        Path::Lanes(level)
    }
}

/// The name of the path that bf16 products take on this CPU.
pub fn bf16_path() -> &'static str {
    match Path::detect() {
        Path::Lanes(Level::Portable) => "portable",
        Path::Lanes(Level::Avx2) => "avx2",
        Path::Lanes(Level::Avx512) => "avx512",
        #[cfg(target_arch = "x86_64")]
        Path::Pairs => "avx512_bf16",
        #[cfg(target_arch = "x86_64")]
        Path::Tiles => "amx_bf16",
    }
}

/// What is done to a product before it is stored: `* scale + bias`, in f32.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, T> {
    /// One factor for all columns, or (N of them) one a column.
    pub scale: &'a [f32],
    /// Added to each row, if any: N elements.
    pub bias: Option<&'a [T]>,
}

impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Self {
            scale: &[1.0],
            bias: None,
        }
    }
}

/// Raw view of one product, shared by its tasks.
struct Job<T, O> {
    x: *const T,
    x_stride: usize,
    w: *const T,
    scale: *const f32,
    /// 1 when each column has its own scale, else 0.
    scale_step: usize,
    /// Null for none.
    bias: *const T,
    y: SharedMut<O>,
    y_stride: usize,
    m: usize,
    n: usize,
    k: usize,
}
// SAFETY: x, w and bias are only read; tasks write disjoint columns of y.
unsafe impl<T: Sync, O: Send> Sync for Job<T, O> {}

impl<T: Element, O: Element> Job<T, O> {
    /// Store y[row, column] = value * scale + bias[column].
    ///
    /// # Safety
    /// `row < m`, `column < n`, and this task owns the column.
    #[inline(always)]
    unsafe fn put(&self, row: usize, column: usize, value: f32) {
        // SAFETY: inside y and bias by the caller's promise.
        unsafe {
            let value = value * *self.scale.add(column * self.scale_step);
            let value = if self.bias.is_null() {
                value
            } else {
                value + (*self.bias.add(column)).to_f32()
            };
            self.y
                .at(row * self.y_stride + column)
                .write(O::from_f32(value));
        }
    }
}

struct LanesTask<'a, T, O>(&'a Job<T, O>, usize, usize);

impl<T: Element, O: Element> Kernel for LanesTask<'_, T, O> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: passed on to the caller.
        unsafe { block::columns::<Widened<S, T>, O>(self.0, self.1, self.2) }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
unsafe fn run_pairs<O: Element>(job: &Job<Bf16, O>, begin: usize, end: usize) {
    // SAFETY: passed on to the caller.
    unsafe { block::columns::<dot::PairsBf16, O>(job, begin, end) }
}

fn check<'a, T: Element, O: Element>(
    x: &Rows<'a, T>,
    w: &'a [T],
    epilogue: Epilogue<'a, T>,
    y: &mut RowsMut<'_, O>,
) -> Result<Job<T, O>, KernelError> {
    let (m, k, n) = (x.len(), x.width(), y.width());
    check_value(
        "y rows",
        y.len() as i64,
        y.len() == m,
        "the number of rows of x",
    )?;
    check_size("weight", w.len(), n.saturating_mul(k))?;
    let Epilogue { scale, bias } = epilogue;
    if scale.len() != 1 {
        check_size("scale", scale.len(), n)?;
    }
    if let Some(bias) = bias {
        check_size("bias", bias.len(), n)?;
    }
    Ok(Job {
        x: x.ptr_start(),
        x_stride: x.stride(),
        w: w.as_ptr(),
        scale: scale.as_ptr(),
        scale_step: usize::from(scale.len() != 1),
        bias: bias.map_or(std::ptr::null(), <[T]>::as_ptr),
        y: SharedMut(y.as_mut_ptr()),
        y_stride: y.stride(),
        m,
        n,
        k,
    })
}

/// Call `task(job, first column, one past the last)` for panels of all jobs, in one region.
fn by_panels<T: Element, O: Element>(
    jobs: &[Job<T, O>],
    panel: usize,
    task: impl Fn(&Job<T, O>, usize, usize) + Sync,
) {
    let num_panels = jobs.iter().map(|job| job.n.div_ceil(panel)).sum();
    pool::parallel_for(num_panels, |mut i| {
        for job in jobs {
            let panels = job.n.div_ceil(panel);
            if i < panels {
                return task(job, i * panel, ((i + 1) * panel).min(job.n));
            }
            i -= panels;
        }
    });
}

fn num_columns<T, O>(jobs: &[Job<T, O>]) -> usize {
    jobs.iter().map(|job| job.n).sum()
}

fn lanes<T: Element, O: Element>(level: Level, jobs: &[Job<T, O>]) {
    let panel = block::panel(num_columns(jobs), pool::num_threads());
    by_panels(jobs, panel, |job, begin, end| {
        // SAFETY: the level was detected, the job checked; each task has its own columns.
        unsafe { dispatch(level, LanesTask(job, begin, end)) }
    });
}

fn bf16_on<O: Element>(path: Path, jobs: &[Job<Bf16, O>]) {
    match path {
        Path::Lanes(level) => lanes(level, jobs),
        #[cfg(target_arch = "x86_64")]
        Path::Pairs => {
            let panel = block::panel(num_columns(jobs), pool::num_threads());
            by_panels(jobs, panel, |job, begin, end| {
                // SAFETY: `Path::detect` saw avx512bf16; each task has its own columns.
                unsafe { run_pairs(job, begin, end) }
            });
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Path::detect` saw AMX and the permission to use it.
        Path::Tiles => unsafe { amx::linear(jobs) },
    }
}

/// Element types of products; each has one path a CPU.
pub trait LinearElement: Element {
    /// Run checked jobs on this CPU's path.
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn run<O: Element>(jobs: &[Job<Self, O>]);
}

impl LinearElement for f32 {
    #[allow(private_interfaces)]
    fn run<O: Element>(jobs: &[Job<f32, O>]) {
        let level = Level::detect();
        by_panels(jobs, panel::width(num_columns(jobs)), |job, begin, end| {
            // SAFETY: the level was detected, the job checked; each task has its own columns.
            unsafe { panel::columns(level, job, begin, end) }
        });
    }
}

impl LinearElement for Bf16 {
    #[allow(private_interfaces)]
    fn run<O: Element>(jobs: &[Job<Bf16, O>]) {
        bf16_on(Path::detect(), jobs);
    }
}

/// y[M, N] = (x[M, K] w[N, K]^T) * scale + bias[N], accumulated in f32 and rounded once.
///
/// # Errors
/// [`KernelError`] when a buffer does not fit the shapes of `x` and `y`.
pub fn linear<T: LinearElement, O: Element>(
    x: &Rows<'_, T>,
    w: &[T],
    epilogue: Epilogue<'_, T>,
    y: &mut RowsMut<'_, O>,
) -> Result<(), KernelError> {
    T::run(&[check(x, w, epilogue, y)?]);
    Ok(())
}

/// One product of [`linear_many`].
#[derive(Debug)]
pub struct Product<'a, T, O> {
    /// [M, K].
    pub x: Rows<'a, T>,
    /// [N, K].
    pub w: &'a [T],
    /// Scale and bias.
    pub epilogue: Epilogue<'a, T>,
    /// [M, N].
    pub y: RowsMut<'a, O>,
}

/// [`linear`] of several products in one parallel region; those of one x share its packing.
///
/// # Errors
/// [`KernelError`] when a buffer does not fit its shapes; nothing is written then.
pub fn linear_many<T: LinearElement, O: Element, const N: usize>(
    products: [Product<'_, T, O>; N],
) -> Result<(), KernelError> {
    let mut jobs = Vec::with_capacity(N);
    for mut product in products {
        jobs.push(check(
            &product.x,
            product.w,
            product.epilogue,
            &mut product.y,
        )?);
    }
    T::run(&jobs);
    Ok(())
}

#[cfg(test)]
mod tests;
