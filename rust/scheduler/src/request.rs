//! One request: its prompt, the owner of the prompt's state, its traces and their launch order.

use std::collections::BTreeSet;

use crate::confidence::ConfidenceTracker;
use crate::plan::FinishReason;
use crate::policy::{DeepConfPolicy, Measure, Mode};
use crate::sequence::{Holding, OWNER, SequenceStatus};
use crate::vote::Ballot;

/// State of the prompt owner, the sequence that computes the prompt once for all traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnerState {
    /// Holds nothing: not begun, evicted, handed over, or no longer needed.
    Absent,
    /// In the running batch.
    Computing,
    /// Holds the state after the whole prompt; traces fork from it.
    Ready,
}

/// One trace.
#[derive(Debug, Clone)]
pub(crate) struct Trace {
    pub(crate) status: SequenceStatus,
    pub(crate) holding: Holding,
    pub(crate) output_token_ids: Vec<u32>,
    pub(crate) confidences: ConfidenceTracker,
    pub(crate) reason: Option<FinishReason>,
    /// Whether its "started" event is out.
    pub(crate) is_started: bool,
    /// Whether its answer has been looked for, and the class it fell into if one was found.
    pub(crate) is_answered: bool,
    pub(crate) answer_class: Option<u64>,
    /// The policy's measure, computed when the answer comes.
    pub(crate) measure: Option<f64>,
}

/// One request. `waiting` holds the traces that have a first token, are unfinished and not running.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) id: u64,
    pub(crate) prompt_token_ids: Vec<u32>,
    pub(crate) max_tokens: usize,
    pub(crate) policy: Option<DeepConfPolicy>,
    pub(crate) owner: OwnerState,
    pub(crate) owner_holding: Holding,
    /// Whether the traces have drawn their first token from the prompt's last row.
    pub(crate) is_drawn: bool,
    pub(crate) traces: Vec<Trace>,
    pub(crate) waiting: BTreeSet<u32>,
    pub(crate) num_unfinished: usize,
    /// Online: whether the warm-up is over and what it fixed (`None`: nothing to compare with).
    pub(crate) is_warm: bool,
    pub(crate) threshold: Option<f64>,
    pub(crate) consensus: Option<(u32, f64)>,
    pub(crate) last_voter: Option<u32>,
}

/// What a request could launch next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Candidate {
    /// Compute the prompt (again, when it was evicted with two or more traces left).
    Owner,
    /// Start or resume a trace from the owner's state.
    Fork(u32),
    /// Resume a trace from its own tokens.
    Recompute(u32),
}

impl Request {
    pub(crate) fn new(
        id: u64,
        prompt_token_ids: Vec<u32>,
        num_traces: u32,
        max_tokens: usize,
        policy: Option<DeepConfPolicy>,
        tracker: &ConfidenceTracker,
    ) -> Self {
        let trace = Trace {
            status: SequenceStatus::Waiting,
            holding: Holding::default(),
            output_token_ids: Vec::new(),
            confidences: tracker.clone(),
            reason: None,
            is_started: false,
            is_answered: false,
            answer_class: None,
            measure: None,
        };
        let is_online = policy
            .as_ref()
            .is_some_and(|policy| policy.mode == Mode::Online);
        Self {
            id,
            prompt_token_ids,
            max_tokens,
            policy,
            owner: OwnerState::Absent,
            owner_holding: Holding::default(),
            is_drawn: false,
            traces: vec![trace; num_traces as usize],
            waiting: BTreeSet::new(),
            num_unfinished: num_traces as usize,
            is_warm: !is_online,
            threshold: None,
            consensus: None,
            last_voter: None,
        }
    }

    /// Number of tokens of a sequence: prompt and outputs of a trace, or the prompt of the owner.
    pub(crate) fn num_tokens(&self, trace: u32) -> usize {
        let outputs = if trace == OWNER {
            0
        } else {
            self.trace(trace).output_token_ids.len()
        };
        self.prompt_token_ids.len() + outputs
    }

    /// The memory of a trace or of the owner.
    pub(crate) fn holding(&self, trace: u32) -> &Holding {
        if trace == OWNER {
            &self.owner_holding
        } else {
            &self.trace(trace).holding
        }
    }

    /// The memory of a trace or of the owner, to change.
    pub(crate) fn holding_mut(&mut self, trace: u32) -> &mut Holding {
        if trace == OWNER {
            &mut self.owner_holding
        } else {
            &mut self.traces[trace as usize].holding
        }
    }

    pub(crate) fn trace(&self, trace: u32) -> &Trace {
        &self.traces[trace as usize]
    }

    /// Append tokens `start..end` of a sequence to `out`.
    pub(crate) fn copy_tokens(&self, trace: u32, start: usize, end: usize, out: &mut Vec<u32>) {
        let prompt = &self.prompt_token_ids;
        let split = prompt.len();
        out.extend_from_slice(&prompt[start.min(split)..end.min(split)]);
        if end > split {
            let outputs = &self.trace(trace).output_token_ids;
            out.extend_from_slice(&outputs[start.max(split) - split..end - split]);
        }
    }

    /// Number of first traces that may be launched now.
    fn launch_limit(&self) -> u32 {
        match &self.policy {
            Some(policy) if !self.is_warm => policy.warmup,
            _ => u32::MAX,
        }
    }

    /// What to launch next, if anything can be.
    pub(crate) fn candidate(&self) -> Option<Candidate> {
        if self.owner == OwnerState::Computing {
            return None;
        }
        if !self.is_drawn {
            return Some(Candidate::Owner);
        }
        let first = *self.waiting.first()?;
        if first >= self.launch_limit() {
            return None;
        }
        Some(match self.owner {
            OwnerState::Ready => Candidate::Fork(first),
            _ if self.waiting.len() >= 2 => Candidate::Owner,
            _ => Candidate::Recompute(first),
        })
    }

    /// Whether the owner's state is of no more use.
    pub(crate) fn is_owner_idle(&self) -> bool {
        self.num_unfinished == 0 || (self.is_drawn && self.waiting.is_empty())
    }

    /// What a vote needs to know of every trace.
    pub(crate) fn ballots(&self) -> Vec<Ballot> {
        self.traces
            .iter()
            .map(|trace| Ballot {
                finished: trace.reason.is_some(),
                complete: trace.is_complete(),
                answered: trace.is_answered,
                answer_class: trace.answer_class,
                measure: trace.measure,
                lowest_group: trace.confidences.lowest_group(),
            })
            .collect()
    }
}

impl Trace {
    /// Whether it ended by itself.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.reason, Some(FinishReason::Stop | FinishReason::Length))
    }

    /// Record the class of its answer and measure it for the vote.
    pub(crate) fn set_answer(&mut self, answer_class: Option<u64>, measure: Measure) {
        self.is_answered = true;
        self.answer_class = answer_class;
        self.measure = measure.of(&self.confidences);
    }
}
