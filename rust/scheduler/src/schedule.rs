//! One step's plan: keep the running batch going, admit what fits, lay out the flat arrays.
//!
//! 1. Every decoding sequence gets the block its next token needs; when none is free, kept
//!    prefixes and idle prompt owners are evicted, then the last sequence in the order of service
//!    is preempted.
//! 2. Running prefills take chunks of what is left of the token budget.
//! 3. Waiting work is admitted strictly in order of service; the first that does not fit ends it,
//!    so nobody is overtaken for ever. When nothing runs, the head is made to fit.

use crate::error::{Result, SchedulerError};
use crate::plan::Plan;
use crate::request::OwnerState;
use crate::scheduler::Scheduler;
use crate::sequence::{OWNER, SequenceKey, SequenceStatus};

/// What a step computes: `(sequence, end)` of every row, those that feed one token apart.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) singles: Vec<(SequenceKey, usize)>,
    pub(crate) chunks: Vec<(SequenceKey, usize)>,
    pub(crate) budget: usize,
    pub(crate) block_copies: Vec<[i64; 2]>,
    pub(crate) slot_copies: Vec<[i64; 2]>,
}

impl Batch {
    pub(crate) fn push(&mut self, key: SequenceKey, start: usize, end: usize) {
        self.budget -= end - start;
        let rows = if end - start == 1 {
            &mut self.singles
        } else {
            &mut self.chunks
        };
        rows.push((key, end));
    }
}

impl Scheduler {
    /// The next step, or `None` when nothing is left to run.
    ///
    /// # Errors
    /// `Protocol` while the last plan is neither committed nor discarded.
    pub fn schedule(&mut self) -> Result<Option<Plan>> {
        if let Some(plan) = &self.in_flight {
            let message = format!(
                "plan {} is in flight; commit or discard it before the next",
                plan.id
            );
            return Err(SchedulerError::Protocol(message));
        }
        let mut batch = Batch {
            budget: self.limits.max_num_batched_tokens as usize,
            ..Batch::default()
        };
        self.continue_decodes(&mut batch);
        self.keep_prefixes(&mut batch);
        self.continue_prefills(&mut batch);
        self.admit_waiting(&mut batch);
        if batch.singles.is_empty() && batch.chunks.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.lay_out(batch)))
    }

    /// Tokens of a sequence computed so far, and in all.
    fn progress(&self, key: SequenceKey) -> (usize, usize) {
        let request = &self.requests[&key.arrival];
        (
            request.holding(key.trace).num_computed_tokens,
            request.num_tokens(key.trace),
        )
    }

    fn continue_decodes(&mut self, batch: &mut Batch) {
        let mut place = 0;
        // A preemption takes the last of `running`, so the places before stay valid.
        while let Some(&key) = self.running.get(place) {
            let (start, len) = self.progress(key);
            if len - start == 1 {
                if !self.secure_next_block(key) {
                    break;
                }
                batch.push(key, start, len);
            }
            place += 1;
        }
    }

    /// Make sure that the next token of a decoding sequence has a block; false when that sequence
    /// itself was preempted (it was the last of the batch).
    fn secure_next_block(&mut self, key: SequenceKey) -> bool {
        let request = &self.requests[&key.arrival];
        let needed = self.limits.blocks_for(request.num_tokens(key.trace));
        if request.holding(key.trace).block_table.len() >= needed {
            return true;
        }
        while self.blocks.num_free() == 0 {
            if self.evict_prefix(None) || self.evict_owner_with_own_block() {
                continue;
            }
            let victim = *self.running.last().expect("the asking sequence runs");
            self.preempt(victim);
            if victim == key {
                return false;
            }
        }
        let request = self.requests.get_mut(&key.arrival).expect("a live key");
        request
            .holding_mut(key.trace)
            .grow(needed, &mut self.blocks);
        true
    }

    /// Evict the idle owner of the latest arrival that would free a block; false if there is none.
    fn evict_owner_with_own_block(&mut self) -> bool {
        let found = self.unfinished.iter().rev().copied().find(|arrival| {
            let request = &self.requests[arrival];
            let mut table = request.owner_holding.block_table.iter();
            request.owner == OwnerState::Ready && table.any(|b| self.blocks.ref_count(*b) == 1)
        });
        if let Some(arrival) = found {
            self.free_owner(arrival);
        }
        found.is_some()
    }

    /// Take a running sequence's memory back; it will be recomputed.
    pub(crate) fn preempt(&mut self, key: SequenceKey) {
        self.stats.num_preemptions += 1;
        if key.trace == OWNER {
            self.free_owner(key.arrival);
            return;
        }
        let place = self
            .running
            .binary_search(&key)
            .expect("a running trace is in the batch");
        self.running.remove(place);
        let request = self.requests.get_mut(&key.arrival).expect("a live key");
        let trace = &mut request.traces[key.trace as usize];
        trace.status = SequenceStatus::Preempted;
        trace.holding.free(&mut self.blocks, &mut self.slots);
        request.waiting.insert(key.trace);
    }

    fn continue_prefills(&mut self, batch: &mut Batch) {
        for place in 0..self.running.len() {
            let key = self.running[place];
            let (start, len) = self.progress(key);
            if len - start > 1
                && let Some(end) = self.chunk_end(key, start, batch.budget)
            {
                batch.push(key, start, end);
            }
        }
    }

    /// Where a chunk that begins at `start` ends: at `len` (or before it where the prompt's state is
    /// to be kept), else at the last multiple of `chunk_size` within the budget; `None` when not
    /// even the next one is.
    pub(crate) fn chunk_end(&self, key: SequenceKey, start: usize, budget: usize) -> Option<usize> {
        let request = &self.requests[&key.arrival];
        let kept = self.limits.prefix_len(request.prompt_token_ids.len());
        let len = if start < kept {
            kept
        } else {
            request.num_tokens(key.trace)
        };
        if len - start <= budget {
            return Some(len);
        }
        let chunk_size = self.limits.chunk_size as usize;
        let end = (start + budget) / chunk_size * chunk_size;
        (end > start).then_some(end)
    }
}
