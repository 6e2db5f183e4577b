//! What came of a step: advance, take the sampled tokens, stop weak traces, free.

use std::collections::BTreeSet;

use crate::error::{Result, SchedulerError};
use crate::plan::{Event, EventKind, FinishReason, InFlight};
use crate::policy::Mode;
use crate::request::OwnerState;
use crate::scheduler::Scheduler;
use crate::sequence::{OWNER, SequenceKey, SequenceStatus};

/// Flag bit: the token ends the trace.
pub const FLAG_STOP: u8 = 1;
/// Flag bit: the row's logits are unusable; the token is not taken and the trace ends in "error".
pub const FLAG_ERROR: u8 = 2;

impl Scheduler {
    /// Take the result of a plan: one token, confidence and flags for every sampled row, in order.
    ///
    /// Rows of traces that ended after the plan was made are ignored. A row with the error flag or
    /// a confidence that is not finite ends its trace with "error"; its token is not taken.
    ///
    /// # Errors
    /// `Protocol` when `plan_id` is not the plan in flight, a length is wrong or a flag is unknown;
    /// nothing is changed.
    pub fn commit(
        &mut self,
        plan_id: u64,
        token_ids: &[u32],
        confidences: &[f32],
        flags: &[u8],
    ) -> Result<Vec<Event>> {
        let plan = self.take_in_flight(plan_id, |plan| {
            let wanted = plan.samples.len();
            let lens = [token_ids.len(), confidences.len(), flags.len()];
            if lens != [wanted; 3] {
                return Some(format!(
                    "plan {plan_id} samples {wanted} rows but {} tokens, {} confidences and {} \
                     flags are given; give one of each a row",
                    lens[0], lens[1], lens[2]
                ));
            }
            let unknown = flags
                .iter()
                .find(|flag| **flag > (FLAG_STOP | FLAG_ERROR))?;
            Some(format!(
                "a flag is {unknown}; give {FLAG_STOP} (stop), {FLAG_ERROR} (error)"
            ))
        })?;
        self.stats.num_steps += 1;
        let mut events = Vec::new();
        for &(key, end) in &plan.rows {
            self.advance(key, end, &mut events);
        }
        let mut touched = BTreeSet::new();
        for (index, &key) in plan.samples.iter().enumerate() {
            let confidence = confidences[index] as f64;
            let ending = self.take_token(key, token_ids[index], confidence, flags[index]);
            if let Some((reason, value)) = ending {
                self.finish(key, reason, value, &mut events);
            }
            let is_limited = |arrival: &u64| {
                let request = self.requests.get(arrival);
                let policy = request.and_then(|request| request.policy.as_ref());
                policy.is_some_and(|policy| policy.total_tokens.is_some())
            };
            if ending.is_some() || is_limited(&key.arrival) {
                touched.insert(key.arrival);
            }
        }
        for arrival in touched {
            self.settle(arrival, &mut events);
        }
        Ok(events)
    }

    /// Give up a plan that failed: its sequences are preempted (their state may be half written)
    /// and will be recomputed.
    ///
    /// # Errors
    /// `Protocol` when `plan_id` is not the plan in flight.
    pub fn discard(&mut self, plan_id: u64) -> Result<()> {
        let plan = self.take_in_flight(plan_id, |_| None)?;
        self.drop_prefixes_of(plan_id);
        for (key, _) in plan.rows {
            if self.is_running(key) {
                self.preempt(key);
            }
        }
        Ok(())
    }

    fn take_in_flight(
        &mut self,
        plan_id: u64,
        problem: impl FnOnce(&InFlight) -> Option<String>,
    ) -> Result<InFlight> {
        let message = match &self.in_flight {
            Some(plan) if plan.id == plan_id => problem(plan),
            Some(plan) => Some(format!(
                "plan {plan_id} is not in flight; plan {} is",
                plan.id
            )),
            None => Some(format!("plan {plan_id} is not in flight; no plan is")),
        };
        match (message, self.in_flight.take()) {
            (None, Some(plan)) => Ok(plan),
            (message, plan) => {
                self.in_flight = plan;
                Err(SchedulerError::Protocol(message.unwrap_or_default()))
            }
        }
    }

    /// Whether a sequence of a plan is still there: requests may have been aborted since.
    fn is_running(&self, key: SequenceKey) -> bool {
        self.running.binary_search(&key).is_ok()
    }

    /// A sequence has computed its tokens up to `end`.
    fn advance(&mut self, key: SequenceKey, end: usize, events: &mut Vec<Event>) {
        let Ok(place) = self.running.binary_search(&key) else {
            return;
        };
        let request = self
            .requests
            .get_mut(&key.arrival)
            .expect("a running key is live");
        let prompt_len = request.prompt_token_ids.len();
        let holding = request.holding_mut(key.trace);
        let prompt_tokens = end.min(prompt_len) - holding.num_computed_tokens.min(prompt_len);
        self.stats.num_prompt_tokens_computed += prompt_tokens as u64;
        holding.num_computed_tokens = end;
        if key.trace == OWNER {
            if end == self.limits.prefix_len(prompt_len) {
                self.at_grid_end.push(key.arrival);
            }
            if end == prompt_len {
                request.owner = OwnerState::Ready;
                request.is_drawn = true;
                self.running.remove(place);
            }
            return;
        }
        let trace = &mut request.traces[key.trace as usize];
        if !trace.is_started {
            trace.is_started = true;
            events.push(Event {
                request_id: request.id,
                trace_index: Some(key.trace),
                kind: EventKind::Started,
                reason: None,
                value: None,
            });
        }
    }

    /// Append a sampled token to its trace; how the trace ends on it, if it does.
    fn take_token(
        &mut self,
        key: SequenceKey,
        token_id: u32,
        confidence: f64,
        flags: u8,
    ) -> Option<(FinishReason, Option<f64>)> {
        let request = self.requests.get_mut(&key.arrival)?;
        let trace = &mut request.traces[key.trace as usize];
        if trace.reason.is_some() {
            return None;
        }
        if flags & FLAG_ERROR != 0 || trace.confidences.push(confidence).is_err() {
            return Some((FinishReason::Error, None));
        }
        trace.output_token_ids.push(token_id);
        self.stats.num_generated_tokens += 1;
        if trace.status == SequenceStatus::Waiting {
            request.waiting.insert(key.trace);
        }
        if flags & FLAG_STOP != 0 {
            return Some((FinishReason::Stop, None));
        }
        if trace.output_token_ids.len() >= request.max_tokens {
            return Some((FinishReason::Length, None));
        }
        request
            .weak_group(key.trace)
            .map(|group| (FinishReason::Confidence, Some(group)))
    }
}

impl crate::request::Request {
    /// The confidence of a trace's last full window, when that is below the threshold.
    pub(crate) fn weak_group(&self, trace: u32) -> Option<f64> {
        let policy = self
            .policy
            .as_ref()
            .filter(|policy| policy.mode == Mode::Online)?;
        let bar = self.threshold.filter(|_| trace >= policy.warmup)?;
        let confidences = &self.trace(trace).confidences;
        let group = confidences.group().filter(|_| confidences.is_full())?;
        (group < bar).then_some(group)
    }
}
