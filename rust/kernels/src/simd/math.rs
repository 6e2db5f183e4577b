//! Functions of vectors. One implementation serves body and tail of a row, so that an element's
//! bits do not depend on where in the row it stands.

use super::Simd;

/// Natural exponential within 2 ulp; 0 below -104, infinite above 88.8, NaN for NaN.
///
/// Range reduction to [-ln 2 / 2, ln 2 / 2] and the polynomial of Cephes' `expf`.
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // SAFETY: register arithmetic only.
    unsafe {
        // Operand order keeps NaN (see `Simd::max`).
        let x = S::min(S::splat(89.0), S::max(S::splat(-104.5), x));
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        let r = S::fma(n, S::splat(-0.693_359_4), x);
        let r = S::fma(n, S::splat(2.121_944_4e-4), r);
        let mut p = S::splat(1.987_569_1e-4);
        for c in [
            1.398_2e-3,
            8.333_452e-3,
            4.166_579_6e-2,
            1.666_666_5e-1,
            0.5,
        ] {
            p = S::fma(p, r, S::splat(c));
        }
        let p = S::add(S::fma(p, S::mul(r, r), r), S::splat(1.0));
        S::scale(p, n)
    }
}

/// `x / (1 + exp(-x))`.
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
pub(crate) unsafe fn silu<S: Simd>(x: S::V) -> S::V {
    // SAFETY: register arithmetic only.
    unsafe { S::div(x, S::add(S::splat(1.0), exp::<S>(S::sub(S::splat(0.0), x)))) }
}

/// `ln(1 + exp(x))` within a few ulp: `max(x, 0) + ln(1 + u)` with `u = exp(-|x|)`, and
/// `ln(1 + u) = 2 atanh(u / (2 + u))` by its series (argument at most 1/3).
///
/// # Safety
/// The CPU must have the features of `S`.
#[inline(always)]
pub(crate) unsafe fn softplus<S: Simd>(x: S::V) -> S::V {
    // SAFETY: register arithmetic only.
    unsafe {
        let zero = S::splat(0.0);
        let negative = S::min(S::sub(zero, x), x);
        let u = exp::<S>(negative);
        let s = S::div(u, S::add(S::splat(2.0), u));
        let square = S::mul(s, s);
        let mut series = S::splat(1.0 / 17.0);
        for odd in [15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0] {
            series = S::fma(series, square, S::splat(1.0 / odd));
        }
        let log = S::mul(S::add(s, s), series);
        // Operand order keeps NaN (see `Simd::max`).
        S::add(S::max(zero, x), log)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kernel, Level, Simd, dispatch};
    use super::exp;

    struct ExpRow<'a>(&'a [f32], &'a mut [f32]);

    impl Kernel for ExpRow<'_> {
        type Out = ();
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            for i in 0..self.0.len() {
                // SAFETY: one element at i.
                unsafe {
                    let v = exp::<S>(S::load_n(self.0.as_ptr().add(i), 1));
                    S::store_n(self.1.as_mut_ptr().add(i), v, 1);
                }
            }
        }
    }

    #[test]
    fn exp_is_close_and_keeps_special_values() {
        let mut x: Vec<f32> = (-10_400..=8_850).map(|i| i as f32 * 0.01 + 0.003).collect();
        x.extend([
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            500.0,
            -500.0,
        ]);
        for level in Level::available() {
            let mut y = vec![0.0; x.len()];
            // SAFETY: the level is available, the slices have one length.
            unsafe { dispatch(level, ExpRow(&x, &mut y)) };
            for (&x, &y) in x.iter().zip(&y) {
                let exact = f64::from(x).exp();
                if x.is_nan() {
                    assert!(y.is_nan());
                } else if exact > f64::from(f32::MAX) {
                    assert!(y.is_infinite(), "{level:?} exp({x}) = {y}");
                } else {
                    let bound = (exact * 3e-7).max(2e-45);
                    assert!(
                        (f64::from(y) - exact).abs() <= bound,
                        "{level:?} exp({x}) = {y}"
                    );
                }
            }
        }
    }
}
