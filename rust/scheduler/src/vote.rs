//! Pure functions of finished traces: the threshold, the voters, the vote, the consensus.
//!
//! All of them look at traces in the order of their index, so timing never changes a result.

use crate::confidence::ConfidenceTracker;
use crate::error::{Result, refused};
use crate::policy::{DeepConfPolicy, Measure, Mode, check_keep};

/// Fewest voters among whom a consensus may be declared.
pub const MIN_CONSENSUS_VOTERS: usize = 4;

/// What a vote needs to know of one trace.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Ballot {
    /// The trace has ended, in whatever way.
    pub finished: bool,
    /// It ended by itself ("stop" or "length"), so it may vote.
    pub complete: bool,
    /// Its answer has been looked for.
    pub answered: bool,
    /// The class of equal answers it belongs to; `None`: no answer found, so no vote.
    pub answer_class: Option<u64>,
    /// The policy's measure of it.
    pub measure: Option<f64>,
    /// Its lowest group.
    pub lowest_group: Option<f64>,
}

/// The outcome of a vote.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tally {
    /// Online: the threshold fixed by the warm-up, once it is known.
    pub threshold: Option<f64>,
    /// Last trace index that may vote (by consensus or by `total_tokens`); `None`: all may.
    pub last_voter: Option<u32>,
    /// Trace index and share at which consensus was reached.
    pub consensus: Option<(u32, f64)>,
    /// Weight of every trace's vote; `None`: it does not vote.
    pub weights: Vec<Option<f64>>,
    /// Weight of every answer class, in the order of their first vote.
    pub votes: Vec<(u64, f64)>,
    /// The class of the highest weight (the first voted for, when equal).
    pub answer_class: Option<u64>,
    /// What one vote for every answered trace would have said.
    pub majority_class: Option<u64>,
}

/// The percentile `100 * (1 - keep)` of `values`, as `numpy.percentile` computes it (method
/// "linear", to the bit); `None` when there are none.
///
/// # Errors
/// `Config` when `keep` is outside (0, 1]; `Request` when a value is not finite.
pub fn threshold(values: &[f64], keep: f64) -> Result<Option<f64>> {
    check_keep(keep)?;
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => refused(format!("a lowest group is {value}; give finite numbers")),
        None => Ok(percentile(values, keep)),
    }
}

/// [`threshold`] of values known to be good.
pub(crate) fn percentile(values: &[f64], keep: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let position = (100.0 * (1.0 - keep) / 100.0) * last as f64;
    let below = (position.floor() as usize).min(last);
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    let part = position - below as f64;
    let step = high - low;
    // numpy interpolates from the nearer end.
    Some(if part < 0.5 {
        low + step * part
    } else {
        high - step * (1.0 - part)
    })
}

/// The class of the highest weight (the first voted for, when equal; `None` without votes), and
/// the weight of every class in the order of its first vote.
pub type Outcome = (Option<u64>, Vec<(u64, f64)>);

/// Weigh votes: one class and one weight a trace, `None` in either for no vote.
///
/// # Errors
/// `Request` when the lengths differ or a weight is not finite.
pub fn vote(answer_classes: &[Option<u64>], weights: &[Option<f64>]) -> Result<Outcome> {
    if answer_classes.len() != weights.len() {
        return refused(format!(
            "{} answer classes but {} weights are given; give one of each a trace",
            answer_classes.len(),
            weights.len()
        ));
    }
    match weights.iter().flatten().find(|weight| !weight.is_finite()) {
        Some(weight) => refused(format!("a weight is {weight}; give finite numbers")),
        None => Ok(count(
            answer_classes.iter().copied().zip(weights.iter().copied()),
        )),
    }
}

fn count(votes: impl Iterator<Item = (Option<u64>, Option<f64>)>) -> Outcome {
    let mut poll = Poll::default();
    for (class, weight) in votes {
        if let (Some(class), Some(weight)) = (class, weight) {
            poll.add(class, weight);
        }
    }
    (
        poll.votes.get(poll.leader()).map(|(class, _)| *class),
        poll.votes,
    )
}

/// A running count; votes are summed in the order they are added.
#[derive(Default)]
struct Poll {
    votes: Vec<(u64, f64)>,
    total: f64,
    heaviest: f64,
    num_voters: usize,
}

impl Poll {
    fn add(&mut self, class: u64, weight: f64) {
        self.total += weight;
        self.heaviest = self.heaviest.max(weight);
        self.num_voters += 1;
        match self.votes.iter_mut().find(|(known, _)| *known == class) {
            Some((_, sum)) => *sum += weight,
            None => self.votes.push((class, weight)),
        }
    }

    /// One vote weighs more than all the others together.
    fn is_one_voice(&self) -> bool {
        self.heaviest > self.total - self.heaviest
    }

    /// Index of the highest weight, the first of equals; 0 when empty.
    fn leader(&self) -> usize {
        let mut best = 0;
        for (index, (_, weight)) in self.votes.iter().enumerate() {
            if *weight > self.votes[best].1 {
                best = index;
            }
        }
        best
    }
}

impl DeepConfPolicy {
    /// The weight of one online ballot once the threshold is fixed; `None`: it does not vote.
    fn online_weight(&self, index: usize, ballot: &Ballot, threshold: Option<f64>) -> Option<f64> {
        let low = threshold.is_some_and(|bar| ballot.lowest_group.is_none_or(|group| group < bar));
        let is_warmup = index < self.warmup as usize;
        if !ballot.complete || ballot.answer_class.is_none() || (is_warmup && low) {
            return None;
        }
        ballot
            .measure
            .map(|measure| self.measure.weight(measure, self.exp_weights, self.power))
    }

    /// The smallest trace index (of the last warm-up trace or above) at which the votes so far give
    /// the leading answer the `consensus` of the weight, and that share. `None` while that is not
    /// so, or while a trace before it is unfinished or unanswered.
    ///
    /// A `power` above 1 can make one sure trace the whole weight; what one trace says is no
    /// consensus, so no vote may then weigh more than all the others together.
    pub fn find_consensus(
        &self,
        threshold: Option<f64>,
        last_voter: Option<u32>,
        ballots: &[Ballot],
    ) -> Option<(u32, f64)> {
        let wanted = self.consensus.filter(|_| self.mode == Mode::Online)?;
        let mut poll = Poll::default();
        let end = last_voter.map_or(ballots.len(), |last| ballots.len().min(last as usize + 1));
        for (index, ballot) in ballots[..end].iter().enumerate() {
            if !ballot.finished || (ballot.complete && !ballot.answered) {
                return None;
            }
            self.add(&mut poll, index, ballot, threshold);
            if let Some(share) = self.decided(&poll, index).filter(|share| *share >= wanted) {
                return Some((index as u32, share));
            }
        }
        None
    }

    /// Add one online ballot to the votes of those before it, if it votes.
    fn add(&self, poll: &mut Poll, index: usize, ballot: &Ballot, threshold: Option<f64>) {
        let weight = self.online_weight(index, ballot, threshold);
        if let (Some(class), Some(weight)) = (ballot.answer_class, weight) {
            poll.add(class, weight);
        }
    }

    /// The leader's share of the votes up to `index`, where they may make a consensus.
    fn decided(&self, poll: &Poll, index: usize) -> Option<f64> {
        let is_warm = index + 1 >= self.warmup as usize;
        let is_one_voice = self.power > 1.0 && poll.is_one_voice();
        let may = is_warm && poll.num_voters >= MIN_CONSENSUS_VOTERS && !is_one_voice;
        may.then(|| poll.votes[poll.leader()].1 / poll.total)
    }

    /// Count the votes of the traces up to `last_voter`. Traces that have not ended or have no
    /// answer do not vote. Offline, of the traces with an answer the best `ceil(keep * n)` by the
    /// measure vote (all of them when the vote is "majority").
    pub fn tally(
        &self,
        threshold: Option<f64>,
        last_voter: Option<u32>,
        consensus: Option<(u32, f64)>,
        ballots: &[Ballot],
    ) -> Tally {
        let may_vote = |index: usize| last_voter.is_none_or(|last| index <= last as usize);
        let mut weights: Vec<Option<f64>> = ballots
            .iter()
            .enumerate()
            .map(|(index, ballot)| {
                self.online_weight(index, ballot, threshold)
                    .filter(|_| may_vote(index))
            })
            .collect();
        if self.mode == Mode::Offline && self.measure != Measure::Majority {
            self.keep_best(ballots, &mut weights);
        }
        let classes = ballots.iter().map(|ballot| ballot.answer_class);
        let ones = ballots.iter().enumerate();
        let ones = ones.map(|(index, b)| (b.complete && may_vote(index)).then_some(1.0));
        let (majority_class, _) = count(classes.clone().zip(ones));
        let (answer_class, votes) = count(classes.zip(weights.iter().copied()));
        Tally {
            threshold,
            last_voter,
            consensus,
            weights,
            votes,
            answer_class,
            majority_class,
        }
    }

    /// Leave the best `ceil(keep * n)` of the `n` weights by measure, lower indices first.
    fn keep_best(&self, ballots: &[Ballot], weights: &mut [Option<f64>]) {
        let mut order: Vec<usize> = (0..weights.len())
            .filter(|&i| weights[i].is_some())
            .collect();
        let measure = |index: &usize| ballots[*index].measure.unwrap_or(f64::NEG_INFINITY);
        order.sort_by(|a, b| measure(b).total_cmp(&measure(a)));
        // 1e-9: keep is a decimal share, so ceil(0.1 * 30) must be 3.
        let kept = (self.keep * order.len() as f64 - 1e-9).ceil() as usize;
        for &index in order.iter().skip(kept) {
            weights[index] = None;
        }
    }
}

/// One recorded trace that ran in full: its token confidences and the class of its answer.
pub type RecordedTrace<'a> = (&'a [f64], Option<u64>);

/// What the policy would have done with recorded full traces, one after another.
///
/// Gives the vote, and for every trace the number of tokens it would have spent and whether it
/// would have been stopped by confidence; traces that would not have run spend 0.
///
/// # Errors
/// `Request` when a confidence is not finite or the online warm-up is longer than the list.
pub fn replay(
    policy: &DeepConfPolicy,
    traces: &[RecordedTrace<'_>],
) -> Result<(Tally, Vec<(usize, bool)>)> {
    let online = policy.mode == Mode::Online;
    if online && policy.warmup as usize > traces.len() {
        return refused(format!(
            "warmup is {} but only {} traces are given; give at least as many traces",
            policy.warmup,
            traces.len()
        ));
    }
    let warmup = if online {
        policy.warmup as usize
    } else {
        traces.len()
    };
    let mut ballots = vec![Ballot::default(); traces.len()];
    let mut spent = vec![(0, false); traces.len()];
    let (mut bar, mut consensus, mut last_voter, mut total) = (None, None, None, 0_u64);
    let mut poll = Poll::default();
    for (index, (confidences, answer_class)) in traces.iter().enumerate() {
        let mut tracker = ConfidenceTracker::new(policy.window)?;
        let mut stopped = false;
        for (position, &confidence) in confidences.iter().enumerate() {
            tracker.push(confidence)?;
            let group = tracker
                .group()
                .filter(|_| index >= warmup && tracker.is_full());
            let is_weak = group.zip(bar).is_some_and(|(group, bar)| group < bar);
            if is_weak && position + 1 < confidences.len() {
                stopped = true;
                break;
            }
        }
        total += tracker.len() as u64;
        spent[index] = (tracker.len(), stopped);
        ballots[index] = Ballot {
            finished: true,
            complete: !stopped,
            answered: true,
            answer_class: *answer_class,
            measure: policy.measure.of(&tracker),
            lowest_group: tracker.lowest_group(),
        };
        if online && index + 1 == warmup {
            let lowest: Vec<_> = ballots.iter().filter_map(|b| b.lowest_group).collect();
            bar = percentile(&lowest, policy.keep);
        }
        if let Some(wanted) = policy.consensus.filter(|_| online && index + 1 >= warmup) {
            let first = if index + 1 == warmup { 0 } else { index }; // not before the bar is known
            for (earlier, ballot) in ballots.iter().enumerate().take(index + 1).skip(first) {
                policy.add(&mut poll, earlier, ballot, bar);
            }
            let share = policy.decided(&poll, index);
            consensus = share
                .filter(|share| *share >= wanted)
                .map(|share| (index as u32, share));
            if consensus.is_some() {
                last_voter = Some(index as u32);
                break;
            }
        }
        if policy.total_tokens.is_some_and(|limit| total >= limit) {
            last_voter = Some(index as u32);
            break;
        }
    }
    if online && bar.is_none() {
        let lowest: Vec<_> = ballots.iter().filter_map(|b| b.lowest_group).collect();
        bar = percentile(&lowest, policy.keep);
    }
    Ok((policy.tally(bar, last_voter, consensus, &ballots), spent))
}
