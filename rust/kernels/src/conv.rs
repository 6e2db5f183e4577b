//! Depthwise causal convolution with SiLU, the last inputs of each sequence kept in slots.
//!
//! Legend: T packed tokens, C channels, W width. y[t] = silu(bias + sum over j of
//! w[j] x[t - (W - 1) + j]), the oldest input first; inputs before a sequence's first token come
//! from its slot (oldest first, [C, W - 1]), or are zero.

use crate::batch::Sequences;
use crate::error::{KernelError, check_size, check_value};
use crate::pool::{self, SharedMut};
use crate::rows::{Rows, RowsMut};
use crate::simd::{Element, Kernel, Level, Simd, dispatch, silu};

/// Channels a task takes when one sequence is shared between threads.
const BLOCK: usize = 256;

/// The inputs of [`causal_conv1d_slots`].
#[derive(Clone, Copy, Debug)]
pub struct ConvInputs<'a, T> {
    /// [T, C].
    pub x: Rows<'a, T>,
    /// [C, W], W from 2 to 4.
    pub weight: &'a [T],
    /// [C].
    pub bias: Option<&'a [T]>,
    /// W.
    pub width: usize,
}

struct Task<'a, T> {
    inputs: &'a ConvInputs<'a, T>,
    /// Tokens of the sequence.
    begin: usize,
    end: usize,
    started: bool,
    /// First and one-past-last channel.
    from: usize,
    until: usize,
    /// [C, W - 1] of the slot.
    state: *mut T,
    y: SharedMut<T>,
    y_stride: usize,
}

impl<T: Element> Task<'_, T> {
    /// `n` channels from `channel` on, in one vector.
    #[inline(always)]
    unsafe fn channels<S: Simd, const W: usize>(&self, channel: usize, n: usize) {
        let inputs = self.inputs;
        // Column j of W per channel, as lanes.
        let mut taps = [[0.0f32; 16]; W];
        let mut past = [[0.0f32; 16]; W];
        // SAFETY: channel + n <= C; the slot and rows of y from `channel` on are this task's.
        unsafe {
            for lane in 0..n {
                for j in 0..W {
                    taps[j][lane] = inputs.weight[(channel + lane) * W + j].to_f32();
                }
                for j in 0..W - 1 {
                    let value = self.state.add((channel + lane) * (W - 1) + j);
                    past[j][lane] = if self.started { (*value).to_f32() } else { 0.0 };
                }
            }
            let taps: [S::V; W] = std::array::from_fn(|j| S::load(taps[j].as_ptr()));
            let mut seen: [S::V; W] = std::array::from_fn(|j| S::load(past[j].as_ptr()));
            let bias = inputs.bias.map_or(S::splat(0.0), |bias| {
                T::load_n::<S>(bias.as_ptr().add(channel), n)
            });
            for t in self.begin..self.end {
                seen[W - 1] = T::load_n::<S>(inputs.x.ptr(t).add(channel), n);
                let mut sum = bias;
                for j in 0..W {
                    sum = S::fma(seen[j], taps[j], sum);
                }
                let out = self.y.at(t * self.y_stride + channel);
                T::store_n::<S>(out, silu::<S>(sum), n);
                for j in 0..W - 1 {
                    seen[j] = seen[j + 1];
                }
            }
            for j in 0..W - 1 {
                S::store(past[j].as_mut_ptr(), seen[j]);
            }
            for lane in 0..n {
                for j in 0..W - 1 {
                    let value = self.state.add((channel + lane) * (W - 1) + j);
                    value.write(T::from_f32(past[j][lane]));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn all<S: Simd, const W: usize>(&self) {
        let mut channel = self.from;
        while channel < self.until {
            // SAFETY: inside the task's channels.
            unsafe { self.channels::<S, W>(channel, S::LANES.min(self.until - channel)) };
            channel += S::LANES;
        }
    }
}

impl<T: Element> Kernel for Task<'_, T> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: passed on to the caller.
        unsafe {
            match self.inputs.width {
                2 => self.all::<S, 2>(),
                3 => self.all::<S, 3>(),
                _ => self.all::<S, 4>(),
            }
        }
    }
}

/// Convolve packed sequences; states [slots, C, W - 1] are updated in place, y [T, C] written.
///
/// # Errors
/// [`KernelError`] when shapes, offsets or slots do not fit; nothing is written then.
pub fn causal_conv1d_slots<T: Element>(
    inputs: ConvInputs<'_, T>,
    sequences: Sequences<'_>,
    state: &mut [T],
    y: &mut RowsMut<'_, T>,
) -> Result<(), KernelError> {
    run(Level::detect(), inputs, sequences, state, y)
}

fn run<T: Element>(
    level: Level,
    inputs: ConvInputs<'_, T>,
    sequences: Sequences<'_>,
    state: &mut [T],
    y: &mut RowsMut<'_, T>,
) -> Result<(), KernelError> {
    let ConvInputs {
        x,
        weight,
        bias,
        width,
    } = inputs;
    let channels = x.width();
    check_value(
        "conv width",
        width as i64,
        (2..=4).contains(&width),
        "2, 3 or 4",
    )?;
    check_value("channels", channels as i64, channels > 0, "at least 1")?;
    check_size("weight", weight.len(), channels * width)?;
    if let Some(bias) = bias {
        check_size("bias", bias.len(), channels)?;
    }
    check_size("y", y.width(), channels)?;
    check_size("y", y.len(), x.len())?;
    let per_slot = channels * (width - 1);
    sequences.check(x.len(), state.len() / per_slot)?;
    let (state, y_stride, y) = (
        SharedMut(state.as_mut_ptr()),
        y.stride(),
        SharedMut(y.as_mut_ptr()),
    );
    let shared = sequences.len() < 4 * pool::num_threads();
    let block = if shared { BLOCK } else { channels };
    let blocks = channels.div_ceil(block);
    pool::parallel_for(sequences.len() * blocks, |task| {
        let (sequence, from) = (task / blocks, task % blocks * block);
        let (begin, end) = sequences.tokens(sequence);
        // SAFETY: sizes were checked; slots are distinct, so no two tasks share state or y.
        unsafe {
            let task = Task {
                inputs: &inputs,
                begin,
                end,
                started: sequences.is_started(sequence),
                from,
                until: channels.min(from + block),
                state: state.at(sequences.slot(sequence) * per_slot),
                y,
                y_stride,
            };
            dispatch(level, task);
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ConvInputs, run};
    use crate::batch::Sequences;
    use crate::rows::{Rows, RowsMut};
    use crate::simd::{Element, Level};
    use crate::testing::Random;

    /// Random lengths and cuts against the formula in f64, and against itself in pieces.
    fn holds<T: Element>(lens: [usize; 2], channels: usize, width: usize, seed: u64, bound: f64) {
        let mut random = Random::new(seed);
        let tokens = lens[0] + lens[1];
        let mut draw =
            |n: usize| -> Vec<T> { random.normal(n).into_iter().map(T::from_f32).collect() };
        let stride = channels + 5;
        let (data, weight) = (draw(tokens * stride), draw(channels * width));
        let bias = draw(channels);
        let per_slot = channels * (width - 1);
        let mut state = draw(3 * per_slot);
        // Sequence 1 starts from zero in slot 2, whose content nobody may read.
        state[2 * per_slot..].fill(T::from_f32(f32::NAN));
        let inputs = |begin: usize, end: usize| ConvInputs {
            x: Rows::new("x", &data[begin * stride..], end - begin, channels, stride).unwrap(),
            weight: &weight,
            bias: Some(&bias),
            width,
        };
        let x = inputs(0, tokens).x;
        for level in Level::available() {
            let mut after = state.clone();
            let mut y = vec![T::from_f32(f32::NAN); tokens * channels];
            let cu_seqlens = [0, lens[0] as i32, tokens as i32];
            let sequences = Sequences {
                cu_seqlens: &cu_seqlens,
                state_slots: &[0, 2],
                has_initial_state: &[1, 0],
            };
            let mut out = RowsMut::new("y", &mut y, tokens, channels, channels).unwrap();
            run(level, inputs(0, tokens), sequences, &mut after, &mut out).unwrap();
            for t in 0..tokens {
                let (start, slot) = if t < lens[0] { (0, 0) } else { (lens[0], 2) };
                for c in 0..channels {
                    let mut sum = f64::from(bias[c].to_f32());
                    for j in 0..width {
                        let value = if t + j >= start + width - 1 {
                            x.row(t + j + 1 - width)[c].to_f32()
                        } else if slot == 0 {
                            state[c * (width - 1) + t - start + j].to_f32()
                        } else {
                            0.0
                        };
                        sum += f64::from(value) * f64::from(weight[c * width + j].to_f32());
                    }
                    let exact = sum / (1.0 + (-sum).exp());
                    let error = (f64::from(y[t * channels + c].to_f32()) - exact).abs();
                    assert!(error <= bound * (1.0 + exact.abs()), "{level:?} {t} {c}");
                }
            }
            let (mut pieces_y, mut pieces) = (y.clone(), state.clone());
            pieces_y.fill(T::from_f32(f32::NAN));
            let mut t = 0;
            while t < tokens {
                let (end, slot) = if t < lens[0] {
                    (lens[0], 0)
                } else {
                    (tokens, 2)
                };
                let piece = 1 + (t * 7) % 3.min(end - t);
                let started = u8::from(slot == 0 || t > lens[0]);
                let sequences = Sequences {
                    cu_seqlens: &[0, piece as i32],
                    state_slots: &[slot],
                    has_initial_state: &[started],
                };
                let out = &mut pieces_y[t * channels..];
                let mut out = RowsMut::new("y", out, piece, channels, channels).unwrap();
                run(
                    level,
                    inputs(t, t + piece),
                    sequences,
                    &mut pieces,
                    &mut out,
                )
                .unwrap();
                t += piece;
            }
            let bits = |v: &[T]| v.iter().map(|v| v.to_f32().to_bits()).collect::<Vec<_>>();
            assert!(
                bits(&y) == bits(&pieces_y) && bits(&after) == bits(&pieces),
                "{level:?}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn equals_the_formula_in_any_pieces(
            first in 1usize..12, second in 1usize..12, channels in 1usize..300,
            width in 2usize..=4, seed: u64,
        ) {
            holds::<f32>([first, second], channels, width, seed, 2e-6);
            holds::<crate::Bf16>([first, second], channels, width, seed, 4e-3);
        }
    }
}
