//! What a user may choose about thinking in parallel, and its checks.

use crate::confidence::{ConfidenceTracker, MAX_WINDOW};
use crate::error::{Result, bad_config};

/// The share of windows that the "`bottom_groups`" vote looks at (the paper's "bottom 10 %").
pub const BOTTOM_GROUPS_SHARE: f64 = 0.1;

/// Largest power of a weight.
pub const MAX_POWER: f64 = 1000.0;

/// When the weak traces are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// While they run: `warmup` full traces fix a threshold, the others stop below it.
    Online,
    /// Afterwards: all traces run in full, the best `keep` of them vote.
    Offline,
}

/// What weighs a trace's vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Every vote weighs 1.
    Majority,
    /// Mean confidence of the trace.
    Mean,
    /// Mean of the last `window` tokens.
    Tail,
    /// Mean of the lowest tenth of the window means.
    BottomGroups,
    /// Smallest window mean.
    LowestGroup,
}

impl Mode {
    /// The mode of this name.
    ///
    /// # Errors
    /// `Config` for an unknown name.
    pub fn parse(name: &str) -> Result<Self> {
        match name {
            "online" => Ok(Self::Online),
            "offline" => Ok(Self::Offline),
            _ => bad_config(format!("mode is {name:?}; give \"online\" or \"offline\"")),
        }
    }

    /// Its public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
        }
    }
}

impl Measure {
    /// All measures, by their public names.
    pub const ALL: [(&'static str, Self); 5] = [
        ("majority", Self::Majority),
        ("mean", Self::Mean),
        ("tail", Self::Tail),
        ("bottom_groups", Self::BottomGroups),
        ("lowest_group", Self::LowestGroup),
    ];

    /// The measure of this name.
    ///
    /// # Errors
    /// `Config` for an unknown name.
    pub fn parse(name: &str) -> Result<Self> {
        let names: Vec<_> = Self::ALL.iter().map(|(known, _)| *known).collect();
        match Self::ALL.iter().find(|(known, _)| *known == name) {
            Some((_, measure)) => Ok(*measure),
            None => bad_config(format!(
                "vote is {name:?}; give one of {}",
                names.join(", ")
            )),
        }
    }

    /// Its public name.
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, measure)| *measure == self)
            .map_or("", |(name, _)| *name)
    }

    /// The measure of a trace; `None` for a trace without tokens.
    pub fn of(self, tracker: &ConfidenceTracker) -> Option<f64> {
        // Window and share are in range, so `ok` loses no error.
        match self {
            Self::Majority => (!tracker.is_empty()).then_some(1.0),
            Self::Mean => tracker.mean(),
            Self::Tail => tracker.tail(tracker.window()).ok().flatten(),
            Self::BottomGroups => tracker.bottom_groups(BOTTOM_GROUPS_SHARE).ok().flatten(),
            Self::LowestGroup => tracker.lowest_group(),
        }
    }

    /// The weight of a vote of which this is the measure: the measure or its exponential, raised
    /// to `power`. Kept within e to the -+[`LONGEST_EXPONENT`], so that sums neither vanish nor
    /// overflow.
    pub fn weight(self, measure: f64, exp_weights: bool, power: f64) -> f64 {
        match self {
            Self::Majority => 1.0,
            _ if exp_weights => bounded(measure * power).exp(),
            _ if power == 1.0 => measure,
            _ => bounded(measure.max(f64::MIN_POSITIVE).ln() * power).exp(),
        }
    }
}

/// Largest exponent of a weight, either side of 0.
const LONGEST_EXPONENT: f64 = 600.0;

fn bounded(exponent: f64) -> f64 {
    exponent.clamp(-LONGEST_EXPONENT, LONGEST_EXPONENT)
}

/// # Errors
/// `Config` when `keep` is outside (0, 1].
pub(crate) fn check_keep(keep: f64) -> Result<()> {
    if keep > 0.0 && keep <= 1.0 {
        return Ok(());
    }
    bad_config(format!("keep is {keep}; give a share in (0, 1]"))
}

/// That a weight may be raised to `power`.
///
/// # Errors
/// `Config` when it is outside [0, [`MAX_POWER`]].
pub fn check_power(power: f64) -> Result<()> {
    if (0.0..=MAX_POWER).contains(&power) {
        return Ok(());
    }
    bad_config(format!(
        "power is {power}; give 0 (every vote counts one) to {MAX_POWER}"
    ))
}

/// How one request thinks in parallel. Its budget of traces is the request's `num_traces`.
#[derive(Debug, Clone, PartialEq)]
pub struct DeepConfPolicy {
    /// Online or offline.
    pub mode: Mode,
    /// Online: number of first traces that run in full and fix the threshold (at least 1).
    pub warmup: u32,
    /// Share of the traces to keep, in (0, 1].
    pub keep: f64,
    /// Length of the confidence window, in tokens.
    pub window: usize,
    /// What weighs a vote.
    pub measure: Measure,
    /// Online: share of the weight in (0, 1] at which the vote is decided; `None`: never.
    pub consensus: Option<f64>,
    /// Weigh by the exponential of the measure (for measures that may be negative).
    pub exp_weights: bool,
    /// What a weight is raised to; above 1 sure traces count for more, below 1 for less.
    pub power: f64,
    /// Tokens to spend, in trace order; `None`: no limit. Traces side by side spend more until it
    /// is certain who counts: less than this + min(traces, `max_num_seqs`) x `max_tokens` + traces.
    pub total_tokens: Option<u64>,
}

impl DeepConfPolicy {
    /// The policy itself, when every field is in its range.
    ///
    /// # Errors
    /// `Config` naming the field, its value and the values allowed.
    pub fn checked(self) -> Result<Self> {
        if self.warmup == 0 {
            return bad_config("warmup is 0; give at least 1 trace".into());
        }
        check_keep(self.keep)?;
        if self.window == 0 || self.window > MAX_WINDOW {
            return bad_config(format!(
                "window is {}; give 1 to {MAX_WINDOW} tokens",
                self.window
            ));
        }
        if let Some(share) = self.consensus
            && !(share > 0.0 && share <= 1.0)
        {
            return bad_config(format!(
                "consensus is {share}; give a share in (0, 1] or None"
            ));
        }
        check_power(self.power)?;
        if self.total_tokens == Some(0) {
            return bad_config("total_tokens is 0; give at least 1 or None".into());
        }
        Ok(self)
    }
}
