//! The scheduler's state, and everything that is not a step: add, abort, answer, release, ask.

use std::collections::{BTreeMap, BTreeSet};

use crate::blocks::BlockPool;
use crate::confidence::ConfidenceTracker;
use crate::error::{Result, bad_config, refused};
use crate::plan::{Event, EventKind, FinishReason, InFlight};
use crate::policy::{DeepConfPolicy, Mode};
use crate::prefix::Prefix;
use crate::request::{OwnerState, Request};
use crate::sequence::{OWNER, SequenceKey, SequenceStatus};
use crate::slots::SlotPool;
use crate::vote::Tally;

/// Window of the confidences kept for a request without a policy, in tokens.
const DEFAULT_WINDOW: usize = 2048;

/// Most traces of one request.
pub const MAX_TRACES: u32 = 1 << 16;

/// Sizes the scheduler works within.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Number of KV blocks.
    pub num_blocks: u32,
    /// Tokens in a KV block.
    pub block_size: u32,
    /// Number of SSM slots.
    pub num_slots: u32,
    /// Most sequences in a plan.
    pub max_num_seqs: u32,
    /// Most tokens in a plan.
    pub max_num_batched_tokens: u32,
    /// Prefill is cut at multiples of this absolute position.
    pub chunk_size: u32,
    /// Most tokens of a sequence, prompt and outputs together.
    pub max_model_len: u32,
    /// Keep states of prompts for later prompts that begin alike.
    pub enable_prefix_caching: bool,
}

impl Limits {
    fn check(&self) -> Result<()> {
        let fields = [
            ("num_blocks", self.num_blocks),
            ("block_size", self.block_size),
            ("num_slots", self.num_slots),
            ("max_num_seqs", self.max_num_seqs),
            ("chunk_size", self.chunk_size),
            ("max_model_len", self.max_model_len),
        ];
        for (name, value) in fields {
            if value == 0 || value > i32::MAX as u32 {
                return bad_config(format!("{name} is {value}; give 1 to {}", i32::MAX));
            }
        }
        let least = self.max_num_seqs.max(self.chunk_size);
        if self.max_num_batched_tokens < least {
            return bad_config(format!(
                "max_num_batched_tokens is {}; give at least {least} (the larger of max_num_seqs \
                 and chunk_size)",
                self.max_num_batched_tokens
            ));
        }
        if self.enable_prefix_caching && !self.chunk_size.is_multiple_of(self.block_size) {
            return bad_config(format!(
                "chunk_size is {} and block_size {}; with enable_prefix_caching give a multiple of \
                 block_size",
                self.chunk_size, self.block_size
            ));
        }
        Ok(())
    }

    /// Number of blocks that hold `num_tokens` tokens.
    pub(crate) fn blocks_for(&self, num_tokens: usize) -> usize {
        num_tokens.div_ceil(self.block_size as usize)
    }
}

/// Counters since the start, and what is held now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Plans committed.
    pub num_steps: u64,
    /// Prompt tokens computed, recomputation included.
    pub num_prompt_tokens_computed: u64,
    /// Prompt tokens taken from another request's state.
    pub num_cached_tokens: u64,
    /// Output tokens accepted.
    pub num_generated_tokens: u64,
    /// Sequences that had to give their memory back before they ended.
    pub num_preemptions: u64,
    /// KV blocks in all, and in use.
    pub num_blocks: u64,
    /// KV blocks in use.
    pub num_blocks_used: u64,
    /// SSM slots in all.
    pub num_slots: u64,
    /// SSM slots in use.
    pub num_slots_used: u64,
    /// Unfinished traces that are not running.
    pub num_waiting: u64,
    /// Sequences in the running batch, prompt owners included.
    pub num_running: u64,
}

/// What runs where. Equal calls in equal order give equal plans and events.
#[derive(Debug, Clone)]
pub struct Scheduler {
    pub(crate) limits: Limits,
    pub(crate) blocks: BlockPool,
    pub(crate) slots: SlotPool,
    /// All requests not released, by arrival.
    pub(crate) requests: BTreeMap<u64, Request>,
    arrivals: BTreeMap<u64, u64>,
    /// Arrivals of the requests that have unfinished traces.
    pub(crate) unfinished: BTreeSet<u64>,
    /// The running batch, in the order of service.
    pub(crate) running: Vec<SequenceKey>,
    pub(crate) in_flight: Option<InFlight>,
    /// Kept prefixes, the least recently used first.
    pub(crate) prefixes: Vec<Prefix>,
    /// Arrivals whose owner reached its last grid point in the last step.
    pub(crate) at_grid_end: Vec<u64>,
    pub(crate) next_prefix_id: u64,
    next_arrival: u64,
    pub(crate) next_plan_id: u64,
    pub(crate) stats: Stats,
}

impl Scheduler {
    /// An empty scheduler over free pools.
    ///
    /// # Errors
    /// `Config` naming the size, its value and the values allowed.
    pub fn new(limits: Limits) -> Result<Self> {
        limits.check()?;
        Ok(Self {
            limits,
            blocks: BlockPool::new(limits.num_blocks),
            slots: SlotPool::new(limits.num_slots),
            requests: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            unfinished: BTreeSet::new(),
            running: Vec::new(),
            in_flight: None,
            prefixes: Vec::new(),
            at_grid_end: Vec::new(),
            next_prefix_id: 0,
            next_arrival: 0,
            next_plan_id: 0,
            stats: Stats::default(),
        })
    }

    /// Queue a request of `num_traces` traces over one prompt, `max_tokens` outputs each.
    ///
    /// # Errors
    /// `Request` when the id is taken or the request can never run; nothing is changed.
    pub fn add_request(
        &mut self,
        request_id: u64,
        prompt_token_ids: Vec<u32>,
        num_traces: u32,
        max_tokens: usize,
        policy: Option<DeepConfPolicy>,
    ) -> Result<()> {
        if self.arrivals.contains_key(&request_id) {
            return refused(format!(
                "request {request_id} exists; give another id or release it"
            ));
        }
        self.check_fits(prompt_token_ids.len(), num_traces, max_tokens)?;
        let policy = policy.map(DeepConfPolicy::checked).transpose()?;
        if let Some(policy) = &policy
            && policy.mode == Mode::Online
            && policy.warmup > num_traces
        {
            return refused(format!(
                "warmup is {} but num_traces is {num_traces}; give at least as many traces",
                policy.warmup
            ));
        }
        let window = policy
            .as_ref()
            .map_or(DEFAULT_WINDOW, |policy| policy.window);
        let tracker = ConfidenceTracker::new(window)?;
        let request = Request::new(
            request_id,
            prompt_token_ids,
            num_traces,
            max_tokens,
            policy,
            &tracker,
        );
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        self.arrivals.insert(request_id, arrival);
        self.unfinished.insert(arrival);
        self.requests.insert(arrival, request);
        Ok(())
    }

    fn check_fits(&self, prompt_len: usize, num_traces: u32, max_tokens: usize) -> Result<()> {
        if prompt_len == 0 {
            return refused("the prompt is empty; give at least 1 token".into());
        }
        if num_traces == 0 || num_traces > MAX_TRACES {
            return refused(format!(
                "num_traces is {num_traces}; give 1 to {MAX_TRACES}"
            ));
        }
        if max_tokens == 0 {
            return refused("max_tokens is 0; give at least 1".into());
        }
        let limit = self.limits.max_model_len as usize;
        let longest = prompt_len.saturating_add(max_tokens);
        if longest > limit {
            return refused(format!(
                "{prompt_len} prompt tokens + max_tokens {max_tokens} = {longest}, over \
                 max_model_len {limit}; shorten either"
            ));
        }
        // The last token drawn is never fed.
        let needed = self.limits.blocks_for(longest - 1);
        if needed > self.blocks.num_total() {
            return refused(format!(
                "a trace of {longest} tokens needs {needed} KV blocks of {} but there are {}; \
                 shorten it or give more memory",
                self.limits.block_size,
                self.blocks.num_total()
            ));
        }
        Ok(())
    }

    /// End a trace, or all traces of a request; their memory is free on return. Traces that have
    /// ended already are left as they are.
    ///
    /// # Errors
    /// `Request` when there is no such request or trace.
    pub fn abort(&mut self, request_id: u64, trace_index: Option<u32>) -> Result<Vec<Event>> {
        let arrival = self.arrival(request_id)?;
        let num_traces = self.requests[&arrival].traces.len() as u32;
        let range = match trace_index {
            None => 0..num_traces,
            Some(index) => {
                self.check_trace(arrival, index)?;
                index..index + 1
            }
        };
        let mut events = Vec::new();
        for trace in range {
            self.finish(
                SequenceKey { arrival, trace },
                FinishReason::Abort,
                None,
                &mut events,
            );
        }
        self.settle(arrival, &mut events);
        Ok(events)
    }

    /// Tell the class of equal answers a finished trace belongs to (`None`: no answer found).
    ///
    /// # Errors
    /// `Request` when there is no such request or trace, the request has no policy, or the trace
    /// has not ended by itself or has been answered before.
    pub fn set_answer(
        &mut self,
        request_id: u64,
        trace_index: u32,
        answer_class: Option<u64>,
    ) -> Result<Vec<Event>> {
        let arrival = self.arrival(request_id)?;
        self.check_trace(arrival, trace_index)?;
        let request = self.requests.get_mut(&arrival);
        let measured = request.and_then(|r| Some((r.policy.as_ref()?.measure, &mut r.traces)));
        let Some((measure, traces)) = measured else {
            return refused(format!(
                "request {request_id} has no DeepConf policy; nothing to vote"
            ));
        };
        let trace = &mut traces[trace_index as usize];
        if !trace.is_complete() || trace.is_answered {
            let state = match trace.reason {
                _ if trace.is_answered => "is answered already",
                Some(reason) => reason.name(),
                None => "is unfinished",
            };
            return refused(format!(
                "trace {trace_index} of request {request_id} takes no answer ({state}); answer \
                 each trace that ended by \"stop\" or \"length\" once"
            ));
        }
        trace.set_answer(answer_class, measure);
        let mut events = Vec::new();
        self.settle(arrival, &mut events);
        Ok(events)
    }

    /// The vote as it stands.
    ///
    /// # Errors
    /// `Request` when there is no such request or it has no policy.
    pub fn tally(&self, request_id: u64) -> Result<Tally> {
        let request = &self.requests[&self.arrival(request_id)?];
        let Some(policy) = &request.policy else {
            return refused(format!(
                "request {request_id} has no DeepConf policy; nothing to vote"
            ));
        };
        let ballots = request.ballots();
        Ok(policy.tally(
            request.threshold,
            request.last_voter,
            request.consensus,
            &ballots,
        ))
    }

    /// The output tokens of a trace and their confidences.
    ///
    /// # Errors
    /// `Request` when there is no such request or trace.
    pub fn trace_output(&self, request_id: u64, trace_index: u32) -> Result<(&[u32], &[f64])> {
        let arrival = self.arrival(request_id)?;
        self.check_trace(arrival, trace_index)?;
        let trace = self.requests[&arrival].trace(trace_index);
        Ok((&trace.output_token_ids, trace.confidences.values()))
    }

    /// Forget a finished request.
    ///
    /// # Errors
    /// `Request` when there is no such request or it has unfinished traces.
    pub fn release(&mut self, request_id: u64) -> Result<()> {
        let arrival = self.arrival(request_id)?;
        if self.unfinished.contains(&arrival) {
            return refused(format!(
                "request {request_id} is unfinished; abort it first"
            ));
        }
        self.requests.remove(&arrival);
        self.arrivals.remove(&request_id);
        Ok(())
    }

    /// Whether any trace has not ended.
    pub fn has_unfinished(&self) -> bool {
        !self.unfinished.is_empty()
    }

    /// Counters since the start, and what is held now.
    pub fn stats(&self) -> Stats {
        let unfinished = self
            .unfinished
            .iter()
            .map(|arrival| &self.requests[arrival]);
        let num_unfinished: usize = unfinished.map(|request| request.num_unfinished).sum();
        let traces_running = self.running.iter().filter(|key| key.trace != OWNER).count();
        Stats {
            num_blocks: self.blocks.num_total() as u64,
            num_blocks_used: (self.blocks.num_total() - self.blocks.num_free()) as u64,
            num_slots: self.slots.num_total() as u64,
            num_slots_used: (self.slots.num_total() - self.slots.num_free()) as u64,
            num_waiting: (num_unfinished - traces_running) as u64,
            num_running: self.running.len() as u64,
            ..self.stats
        }
    }

    fn arrival(&self, request_id: u64) -> Result<u64> {
        match self.arrivals.get(&request_id) {
            Some(arrival) => Ok(*arrival),
            None => refused(format!(
                "there is no request {request_id}; it was never added or is \
                                     released"
            )),
        }
    }

    fn check_trace(&self, arrival: u64, trace_index: u32) -> Result<()> {
        let request = &self.requests[&arrival];
        if (trace_index as usize) < request.traces.len() {
            return Ok(());
        }
        refused(format!(
            "trace_index is {trace_index} but request {} has traces 0 to {}",
            request.id,
            request.traces.len() - 1
        ))
    }

    /// End a trace: free its memory, take it out of every list, say so. No-op when it has ended.
    pub(crate) fn finish(
        &mut self,
        key: SequenceKey,
        reason: FinishReason,
        value: Option<f64>,
        events: &mut Vec<Event>,
    ) {
        let request = self.requests.get_mut(&key.arrival).expect("a live key");
        let trace = &mut request.traces[key.trace as usize];
        if trace.reason.is_some() {
            return;
        }
        trace.reason = Some(reason);
        if trace.status == SequenceStatus::Running {
            let place = self
                .running
                .binary_search(&key)
                .expect("a running trace is in the batch");
            self.running.remove(place);
        }
        trace.status = SequenceStatus::Finished;
        trace.holding.free(&mut self.blocks, &mut self.slots);
        request.waiting.remove(&key.trace);
        request.num_unfinished -= 1;
        let mut event = Event {
            request_id: request.id,
            trace_index: Some(key.trace),
            kind: EventKind::Started,
            reason: None,
            value: None,
        };
        let has_output = !trace.output_token_ids.is_empty();
        let ended_alone = !matches!(reason, FinishReason::Abort | FinishReason::Consensus);
        if !trace.is_started && has_output && ended_alone {
            trace.is_started = true;
            events.push(event);
        }
        event.kind = EventKind::Finished;
        event.reason = Some(reason);
        event.value = value;
        events.push(event);
    }

    /// Drop the prompt owner and what it holds.
    pub(crate) fn free_owner(&mut self, arrival: u64) {
        let request = self.requests.get_mut(&arrival).expect("a live arrival");
        if request.owner == OwnerState::Computing {
            let key = SequenceKey {
                arrival,
                trace: OWNER,
            };
            let place = self
                .running
                .binary_search(&key)
                .expect("a running owner is in the batch");
            self.running.remove(place);
        }
        request.owner = OwnerState::Absent;
        request
            .owner_holding
            .free(&mut self.blocks, &mut self.slots);
    }
}
