//! Rotary position embedding, half-split as Llama does it.
//!
//! Legend: T tokens, P head width.

use std::sync::{Mutex, TryLockError};

use crate::error::{KernelError, check_size, check_value};
use crate::pool::SharedMut;
use crate::rows::{Rows, RowsMut};
use crate::rowwise::by_rows;
use crate::simd::{Element, Kernel, Level, Simd, dispatch};

/// Cosines and sines [T, P / 2] of the last call: every layer of a step asks for the same ones.
struct Table {
    positions: Vec<i64>,
    frequencies: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

static TABLE: Mutex<Table> = Mutex::new(Table::new());

impl Table {
    const fn new() -> Self {
        Self {
            positions: Vec::new(),
            frequencies: Vec::new(),
            cos: Vec::new(),
            sin: Vec::new(),
        }
    }

    fn fill(&mut self, positions: &[i64], frequencies: &[f32]) {
        if self.positions == positions && self.frequencies == frequencies {
            return;
        }
        self.positions = positions.to_vec();
        self.frequencies = frequencies.to_vec();
        self.cos.clear();
        self.sin.clear();
        for &position in positions {
            for &frequency in frequencies {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                self.cos.push(cos);
                self.sin.push(sin);
            }
        }
    }
}

struct Rotate<T> {
    x: *const T,
    cos: *const f32,
    sin: *const f32,
    y: *mut T,
    heads: usize,
    /// P / 2.
    half: usize,
}

impl<T: Element> Kernel for Rotate<T> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self {
            x,
            cos,
            sin,
            y,
            heads,
            half,
        } = self;
        // SAFETY: x and y are rows of heads * 2 * half, cos and sin of half elements.
        unsafe {
            for at in (0..half).step_by(S::LANES) {
                let n = S::LANES.min(half - at);
                let (cos, sin) = (S::load_n(cos.add(at), n), S::load_n(sin.add(at), n));
                for head in 0..heads {
                    let low = head * 2 * half + at;
                    let a = T::load_n::<S>(x.add(low), n);
                    let b = T::load_n::<S>(x.add(low + half), n);
                    let first = S::sub(S::mul(a, cos), S::mul(b, sin));
                    let second = S::fma(a, sin, S::mul(b, cos));
                    T::store_n::<S>(y.add(low), first, n);
                    T::store_n::<S>(y.add(low + half), second, n);
                }
            }
        }
    }
}

/// Rotate every head of x [T, heads * P] by `positions` [T]; `frequencies` [P / 2] are radians a
/// position.
///
/// # Errors
/// [`KernelError`] when lengths differ or P does not divide the width of x.
pub fn rope<T: Element>(
    x: &Rows<'_, T>,
    positions: &[i64],
    frequencies: &[f32],
    y: &mut RowsMut<'_, T>,
) -> Result<(), KernelError> {
    let (half, width) = (frequencies.len(), x.width());
    let fits = half > 0 && width % (2 * half) == 0;
    check_value(
        "head width",
        2 * half as i64,
        fits,
        "a divisor of x's width",
    )?;
    check_size("positions", positions.len(), x.len())?;
    check_size("y", y.width(), width)?;
    check_size("y", y.len(), x.len())?;
    // Never waits: another thread may hold the table, or have held it when this process was forked.
    let mut own = Table::new();
    let mut shared = match TABLE.try_lock() {
        Ok(table) => Some(table),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    };
    let table = shared.as_deref_mut().unwrap_or(&mut own);
    table.fill(&positions[..x.len()], frequencies);
    let (out, stride) = (SharedMut(y.as_mut_ptr()), y.stride());
    let (cos, sin) = (&table.cos[..], &table.sin[..]);
    by_rows(x.len(), width, |begin, end| {
        for i in begin..end {
            // SAFETY: row i of all; each row belongs to one task.
            unsafe {
                let row = Rotate {
                    x: x.ptr(i),
                    cos: cos.as_ptr().add(i * half),
                    sin: sin.as_ptr().add(i * half),
                    y: out.at(i * stride),
                    heads: width / (2 * half),
                    half,
                };
                dispatch(Level::detect(), row);
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{TABLE, rope};
    use crate::rows::{Rows, RowsMut};
    use crate::testing::Random;

    #[test]
    fn a_table_that_another_holds_is_not_waited_for() {
        let _held = TABLE.lock();
        equals_the_formula();
    }

    #[test]
    fn equals_the_formula() {
        for (half, heads) in [(1, 1), (5, 2), (16, 3), (32, 8), (64, 2)] {
            let (tokens, width) = (4, heads * 2 * half);
            let mut random = Random::new(half as u64);
            let data = random.normal(tokens * (width + 2));
            let positions = [0, 1, 77, 4000];
            let frequencies: Vec<f32> = (0..half).map(|_| random.uniform()).collect();
            let x = Rows::new("x", &data, tokens, width, width + 2).unwrap();
            let mut y = vec![f32::NAN; tokens * width];
            let mut out = RowsMut::new("y", &mut y, tokens, width, width).unwrap();
            rope(&x, &positions, &frequencies, &mut out).unwrap();
            for t in 0..tokens {
                for i in 0..width {
                    let (head, at) = (i / (2 * half) * 2 * half, i % (2 * half));
                    let angle = f64::from(positions[t] as f32 * frequencies[at % half]);
                    let a = f64::from(x.row(t)[head + at % half]);
                    let b = f64::from(x.row(t)[head + at % half + half]);
                    let exact = if at < half {
                        a * angle.cos() - b * angle.sin()
                    } else {
                        b * angle.cos() + a * angle.sin()
                    };
                    assert!((f64::from(y[t * width + i]) - exact).abs() < 1e-6);
                }
            }
        }
    }
}
