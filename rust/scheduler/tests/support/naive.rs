//! The oracle: one trace after another, nothing shared, everything recomputed from its definition.

use falcon_scheduler::{DeepConfPolicy, FinishReason, Measure, Mode};

/// Mix two words into one (the finalizer of splitmix64).
pub(crate) fn mix(state: u64, word: u64) -> u64 {
    let mut z = (state ^ word).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The fake model's state after a history of tokens.
pub(crate) fn state_of(tokens: &[u32]) -> u64 {
    tokens
        .iter()
        .fold(0, |state, token| mix(state, *token as u64))
}

/// What the fake sampler draws from a state: token, confidence, flags (1 stop, 2 error). Depends on
/// the history, the trace and the position only.
pub(crate) fn draw(state: u64, trace: u32, position: i64) -> (u32, f32, u8) {
    let h = mix(mix(state, trace as u64), position as u64);
    let is_nan = (h >> 50).is_multiple_of(300);
    // Eighths, so that sums of them are exact in any order.
    let confidence = if is_nan {
        f32::NAN
    } else {
        ((h >> 8) % 80) as f32 / 8.0
    };
    let stop = u8::from((h >> 20).is_multiple_of(14));
    let error = if (h >> 40).is_multiple_of(250) { 2 } else { 0 };
    ((h % 1000) as u32, confidence, stop | error)
}

/// The answer class of a trace with these outputs; one in five has none.
pub(crate) fn answer_of(output: &[u32]) -> Option<u64> {
    let h = state_of(output) >> 7;
    (!h.is_multiple_of(5)).then_some(h % 13 % 3)
}

/// A request as given to the scheduler.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) prompt: Vec<u32>,
    pub(crate) num_traces: u32,
    pub(crate) max_tokens: usize,
    pub(crate) policy: Option<DeepConfPolicy>,
}

/// How one trace ends when nobody but its own confidence stops it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NaiveTrace {
    pub(crate) tokens: Vec<u32>,
    pub(crate) confidences: Vec<f64>,
    pub(crate) reason: FinishReason,
}

/// Everything that must come out of a request that was never aborted.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) traces: Vec<NaiveTrace>,
    /// Last trace whose end is certain; those after it are cut at some point, which is up to timing.
    pub(crate) last: Option<usize>,
    pub(crate) threshold: Option<f64>,
    pub(crate) consensus: Option<usize>,
    /// A vote was once all but decided, by one trace alone.
    pub(crate) one_voice: bool,
    pub(crate) weights: Vec<Option<f64>>,
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn groups(values: &[f64], window: usize) -> Vec<f64> {
    if values.len() < window {
        vec![mean(values)]
    } else {
        values.windows(window).map(mean).collect()
    }
}

fn lowest(values: &[f64], window: usize) -> f64 {
    groups(values, window)
        .into_iter()
        .fold(f64::INFINITY, f64::min)
}

/// Run one trace to its end; `bar` is the threshold and the window it is held against.
pub(crate) fn run_trace(given: &Given, index: u32, bar: Option<(f64, usize)>) -> NaiveTrace {
    let mut history = given.prompt.clone();
    let mut confidences = Vec::new();
    let reason = loop {
        let (token, confidence, flags) = draw(state_of(&history), index, history.len() as i64);
        if flags & 2 != 0 || confidence.is_nan() {
            break FinishReason::Error;
        }
        history.push(token);
        confidences.push(confidence as f64);
        if flags & 1 != 0 {
            break FinishReason::Stop;
        }
        if confidences.len() == given.max_tokens {
            break FinishReason::Length;
        }
        if let Some((bar, window)) = bar
            && confidences.len() >= window
            && mean(&confidences[confidences.len() - window..]) < bar
        {
            break FinishReason::Confidence;
        }
    };
    NaiveTrace {
        tokens: history.split_off(given.prompt.len()),
        confidences,
        reason,
    }
}

fn percentile(mut values: Vec<f64>, keep: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let at = (1.0 - keep) * values.len().checked_sub(1)? as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    Some(low + (high - low) * at.fract())
}

fn weight(policy: &DeepConfPolicy, values: &[f64]) -> f64 {
    let measure = match policy.measure {
        Measure::Majority => return 1.0,
        Measure::Mean => mean(values),
        Measure::Tail => mean(&values[values.len().saturating_sub(policy.window)..]),
        Measure::LowestGroup => lowest(values, policy.window),
        Measure::BottomGroups => {
            let mut sorted = groups(values, policy.window);
            sorted.sort_by(f64::total_cmp);
            mean(&sorted[..(sorted.len() / 10).max(1)])
        }
    };
    if policy.exp_weights {
        (measure * policy.power).exp()
    } else {
        measure.powf(policy.power)
    }
}

/// Run a request, trace after trace.
pub(crate) fn outcome(given: &Given) -> Outcome {
    let mut out = Outcome::default();
    let policy = given.policy.as_ref();
    let online = policy.filter(|policy| policy.mode == Mode::Online);
    let warmup = online.map_or(usize::MAX, |policy| policy.warmup as usize);
    let total = policy
        .and_then(|policy| policy.total_tokens)
        .unwrap_or(u64::MAX);
    let mut spent = 0;
    for index in 0..given.num_traces as usize {
        if index == warmup {
            out.threshold = fixed(online, &out.traces);
        }
        let bar = out.threshold.zip(online.map(|policy| policy.window));
        let trace = run_trace(given, index as u32, bar);
        spent += trace.tokens.len() as u64;
        out.traces.push(trace);
        if spent >= total && out.last.is_none() {
            out.last = Some(index);
        }
    }
    let within = out.last.map_or(out.traces.len(), |last| last + 1);
    if within <= warmup {
        out.threshold = fixed(online, &out.traces[..within]);
    }
    let Some(policy) = policy else { return out };
    let mut votes: Vec<(u64, f64)> = Vec::new();
    for (index, trace) in out.traces[..within].iter().enumerate() {
        let complete = matches!(trace.reason, FinishReason::Stop | FinishReason::Length);
        let answer = answer_of(&trace.tokens).filter(|_| complete);
        let low = |bar| index < warmup && lowest(&trace.confidences, policy.window) < bar;
        let votes_at_all = answer.is_some() && !out.threshold.is_some_and(low);
        let weight = votes_at_all.then(|| weight(policy, &trace.confidences));
        out.weights.push(weight);
        votes.extend(answer.zip(weight));
        let heaviest = (0..3)
            .map(|class| sum(&votes, |c| c == class))
            .fold(0.0, f64::max);
        let share = heaviest / sum(&votes, |_| true);
        let decided = policy.consensus.is_some_and(|wanted| share >= wanted);
        let surest = votes.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
        let one_voice = policy.power > 1.0 && surest > sum(&votes, |_| true) - surest;
        if online.is_none() || index + 1 < warmup || votes.len() < 4 || !decided {
            continue;
        }
        out.one_voice |= one_voice;
        if !one_voice {
            (out.consensus, out.last) = (Some(index), Some(index));
            break;
        }
    }
    out.weights.resize(out.traces.len(), None);
    if online.is_none() && policy.measure != Measure::Majority {
        let mut order: Vec<usize> = (0..within).filter(|i| out.weights[*i].is_some()).collect();
        order.sort_by(|a, b| {
            out.weights[*b]
                .partial_cmp(&out.weights[*a])
                .expect("finite")
        });
        let kept = (policy.keep * order.len() as f64 - 1e-9).ceil() as usize;
        order[kept..]
            .iter()
            .for_each(|index| out.weights[*index] = None);
    }
    out
}

fn sum(votes: &[(u64, f64)], of: impl Fn(u64) -> bool) -> f64 {
    votes
        .iter()
        .filter(|(class, _)| of(*class))
        .map(|(_, weight)| weight)
        .sum()
}

fn fixed(online: Option<&DeepConfPolicy>, warmup: &[NaiveTrace]) -> Option<f64> {
    let policy = online?;
    let complete = warmup
        .iter()
        .filter(|trace| matches!(trace.reason, FinishReason::Stop | FinishReason::Length));
    percentile(
        complete
            .map(|t| lowest(&t.confidences, policy.window))
            .collect(),
        policy.keep,
    )
}
