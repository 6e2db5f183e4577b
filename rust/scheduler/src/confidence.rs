//! Confidence of a trace over a sliding window, in double precision and without drift.
//!
//! Definitions: `DeepConf` (arXiv 2508.15260), section 3.1.

use crate::error::{Result, bad_config, refused};

/// Largest window accepted, in tokens.
pub const MAX_WINDOW: usize = 1 << 24;

/// Largest confidence accepted, either sign: sums of any number of them stay finite.
const MAX_CONFIDENCE: f64 = 1e100;

fn check(confidence: f64) -> Result<()> {
    if confidence.is_finite() && confidence.abs() <= MAX_CONFIDENCE {
        return Ok(());
    }
    refused(format!(
        "confidence is {confidence}; give a finite number of at most 1e100 in size"
    ))
}

/// Sliding-window means of the token confidences of one trace.
///
/// Nothing is ever subtracted from a running sum: the tokens are cut into spans of `window`, and a
/// window's sum is the suffix sum of the span before plus the prefix sum of the current one. So the
/// error of every window mean is that of summing it afresh, however long the trace.
#[derive(Debug, Clone)]
pub struct ConfidenceTracker {
    window: usize,
    values: Vec<f64>,
    /// `suffix_sums[j]`: sum of values `j..window` of the span before the current one.
    suffix_sums: Vec<f64>,
    /// Length and sum of the current span (1 to `window` tokens once begun), then the sum of all
    /// spans before it.
    span_len: usize,
    span_sum: f64,
    spans_sum: f64,
    lowest_full_group: f64,
}

impl ConfidenceTracker {
    /// An empty tracker over `window` tokens (at least 1).
    ///
    /// # Errors
    /// `Config` when `window` is 0 or above [`MAX_WINDOW`].
    pub fn new(window: usize) -> Result<Self> {
        if window == 0 || window > MAX_WINDOW {
            return bad_config(format!("window is {window}; give 1 to {MAX_WINDOW} tokens"));
        }
        Ok(Self::empty(window))
    }

    fn empty(window: usize) -> Self {
        Self {
            window,
            values: Vec::new(),
            suffix_sums: Vec::new(),
            span_len: 0,
            span_sum: 0.0,
            spans_sum: 0.0,
            lowest_full_group: f64::INFINITY,
        }
    }

    /// Append the confidence of one token.
    ///
    /// # Errors
    /// `Request` when it is not finite (or above 1e100 in size); the tracker is unchanged.
    pub fn push(&mut self, confidence: f64) -> Result<()> {
        check(confidence)?;
        self.push_finite(confidence);
        Ok(())
    }

    /// Append the confidences of several tokens.
    ///
    /// # Errors
    /// `Request` when one is not usable (as for `push`); the tracker is unchanged.
    pub fn extend(&mut self, confidences: &[f64]) -> Result<()> {
        for &value in confidences {
            check(value)?;
        }
        for &value in confidences {
            self.push_finite(value);
        }
        Ok(())
    }

    fn push_finite(&mut self, confidence: f64) {
        if self.span_len == self.window {
            self.close_span();
        }
        self.values.push(confidence);
        self.span_len += 1;
        self.span_sum += confidence;
        if self.is_full() {
            self.lowest_full_group = self.lowest_full_group.min(self.group_of_full_window());
        }
    }

    /// Turn the span just completed into suffix sums; O(window) once in `window` pushes.
    fn close_span(&mut self) {
        let span = &self.values[self.values.len() - self.window..];
        self.suffix_sums.resize(self.window, 0.0);
        let mut sum = 0.0;
        for (suffix, value) in self.suffix_sums.iter_mut().zip(span).rev() {
            sum += value;
            *suffix = sum;
        }
        self.spans_sum += self.span_sum;
        self.span_sum = 0.0;
        self.span_len = 0;
    }

    /// Mean of the last `window` values; there are that many.
    fn group_of_full_window(&self) -> f64 {
        let before = if self.span_len < self.window {
            self.suffix_sums[self.span_len]
        } else {
            0.0
        };
        (before + self.span_sum) / self.window as f64
    }

    /// Number of tokens pushed.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing has been pushed.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Length of the window, in tokens.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Whether at least one whole window has been pushed.
    pub fn is_full(&self) -> bool {
        self.values.len() >= self.window
    }

    /// All confidences pushed, in order.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// Mean over the last `window` tokens, over all so far before that; `None` when empty.
    pub fn group(&self) -> Option<f64> {
        if self.is_full() {
            Some(self.group_of_full_window())
        } else {
            self.mean()
        }
    }

    /// Smallest mean of a full window; the mean of all tokens while shorter than the window.
    pub fn lowest_group(&self) -> Option<f64> {
        if self.is_full() {
            Some(self.lowest_full_group)
        } else {
            self.mean()
        }
    }

    /// Mean of all tokens; `None` when empty.
    pub fn mean(&self) -> Option<f64> {
        let sum = self.spans_sum + self.span_sum;
        (!self.is_empty()).then(|| sum / self.values.len() as f64)
    }

    /// Mean of the last `n` tokens (of all, when fewer); `None` when empty.
    ///
    /// # Errors
    /// `Config` when `n` is 0.
    pub fn tail(&self, n: usize) -> Result<Option<f64>> {
        if n == 0 {
            return bad_config("n is 0; give at least 1 token".into());
        }
        let last = &self.values[self.values.len().saturating_sub(n)..];
        Ok((!last.is_empty()).then(|| last.iter().sum::<f64>() / last.len() as f64))
    }

    /// Mean of the lowest `max(1, floor(q n))` of the `n` full-window means (of the one mean of all
    /// tokens while shorter than the window); `None` when empty.
    ///
    /// # Errors
    /// `Config` when `q` is outside (0, 1].
    pub fn bottom_groups(&self, q: f64) -> Result<Option<f64>> {
        if !(q > 0.0 && q <= 1.0) {
            return bad_config(format!("q is {q}; give a share in (0, 1]"));
        }
        if !self.is_full() {
            return Ok(self.mean());
        }
        let mut groups = self.groups();
        // 1e-9: q is a decimal share, so floor(0.29 * 100) must be 29.
        let lowest = ((q * groups.len() as f64 + 1e-9).floor() as usize).clamp(1, groups.len());
        if lowest < groups.len() {
            groups.select_nth_unstable_by(lowest - 1, f64::total_cmp);
        }
        groups.truncate(lowest);
        groups.sort_unstable_by(f64::total_cmp);
        Ok(Some(groups.iter().sum::<f64>() / lowest as f64))
    }

    /// The means of all full windows, in order; empty while shorter than the window.
    pub fn groups(&self) -> Vec<f64> {
        let mut replay = Self::empty(self.window);
        let mut groups = Vec::with_capacity((self.len() + 1).saturating_sub(self.window));
        for &value in &self.values {
            replay.push_finite(value);
            if replay.is_full() {
                groups.push(replay.group_of_full_window());
            }
        }
        groups
    }
}
