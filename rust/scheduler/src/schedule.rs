//! One step's plan: keep the running batch going, admit what fits, lay out the flat arrays.
//!
//! 1. Every decoding sequence gets the block its next token needs; when none is free, idle prompt
//!    owners are evicted, then the last sequence in the order of service is preempted.
//! 2. Running prefills take chunks of what is left of the token budget.
//! 3. Waiting work is admitted strictly in order of service; the first that does not fit ends it,
//!    so nobody is overtaken for ever. When nothing runs, the head is made to fit.

use crate::error::{Result, SchedulerError};
use crate::plan::{InFlight, Plan};
use crate::request::{Candidate, OwnerState};
use crate::scheduler::Scheduler;
use crate::sequence::{Holding, OWNER, SequenceKey, SequenceStatus};

/// What a step computes: `(sequence, end)` of every row, those that feed one token apart.
#[derive(Default)]
struct Batch {
    singles: Vec<(SequenceKey, usize)>,
    chunks: Vec<(SequenceKey, usize)>,
    budget: usize,
    block_copies: Vec<[i64; 2]>,
    slot_copies: Vec<[i64; 2]>,
}

impl Batch {
    fn push(&mut self, key: SequenceKey, start: usize, end: usize) {
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
            if self.evict_owner_with_own_block() {
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
                && let Some(end) = self.chunk_end(start, len, batch.budget)
            {
                batch.push(key, start, end);
            }
        }
    }

    /// Where a chunk that begins at `start` ends: at `len`, else at the last multiple of
    /// `chunk_size` within the budget; `None` when not even the next one is.
    fn chunk_end(&self, start: usize, len: usize, budget: usize) -> Option<usize> {
        if len - start <= budget {
            return Some(len);
        }
        let chunk_size = self.limits.chunk_size as usize;
        let end = (start + budget) / chunk_size * chunk_size;
        (end > start).then_some(end)
    }

    fn admit_waiting(&mut self, batch: &mut Batch) {
        let mut from = 0;
        while let Some(&arrival) = self.unfinished.range(from..).next() {
            match self.requests[&arrival].candidate() {
                None => from = arrival + 1,
                Some(candidate) => {
                    let is_full = self.running.len() >= self.limits.max_num_seqs as usize;
                    if is_full || !self.admit(arrival, candidate, batch) {
                        return;
                    }
                }
            }
        }
    }

    /// Admit one candidate if it fits; whether it did.
    fn admit(&mut self, arrival: u64, candidate: Candidate, batch: &mut Batch) -> bool {
        let request = &self.requests[&arrival];
        let prompt_len = request.prompt_token_ids.len();
        let full_blocks = prompt_len / self.limits.block_size as usize;
        let must_fit = self.running.is_empty();
        let is_last = request.waiting.len() == 1;
        let (trace, start) = match candidate {
            Candidate::Owner => (OWNER, 0),
            Candidate::Fork(trace) => (trace, prompt_len),
            Candidate::Recompute(trace) => (trace, 0),
        };
        let len = request.num_tokens(trace);
        let Some(end) = self.chunk_end(start, len, batch.budget) else {
            return false;
        };
        let in_all = self.limits.blocks_for(len);
        let owned = request.owner_holding.block_table.len();
        let is_fork = matches!(candidate, Candidate::Fork(_));
        if is_fork && is_last && self.make_room(arrival, in_all - owned, 0, must_fit) {
            self.hand_over(arrival, trace);
        } else if is_fork && !is_last && self.make_room(arrival, in_all - full_blocks, 1, must_fit)
        {
            self.fork(arrival, trace, batch);
        } else if is_fork && must_fit && self.make_room(arrival, in_all - owned, 0, true) {
            self.hand_over(arrival, trace);
        } else if candidate == Candidate::Owner {
            return self.admit_owner(arrival, end, batch, must_fit);
        } else if is_fork || !self.make_room(arrival, in_all, 1, must_fit) {
            return false;
        } else {
            self.take_slot(arrival, trace);
        }
        self.launch(SequenceKey { arrival, trace }, in_all, end, batch);
        true
    }

    /// Admit the prompt owner: for the first time with room for one trace beside it if there is
    /// more than one, again with room for the first waiting trace; alone when nothing runs.
    fn admit_owner(&mut self, arrival: u64, end: usize, batch: &mut Batch, must_fit: bool) -> bool {
        let request = &self.requests[&arrival];
        let in_all = self.limits.blocks_for(request.prompt_token_ids.len());
        let full_blocks = request.prompt_token_ids.len() / self.limits.block_size as usize;
        let first = request.waiting.first().copied();
        let beside = first.map_or(0, |trace| {
            self.limits.blocks_for(request.num_tokens(trace)) - full_blocks
        });
        let num_slots = if request.num_unfinished > 1 { 2 } else { 1 };
        if !self.make_room(arrival, in_all + beside, num_slots, false) {
            if !must_fit {
                return false;
            }
            if let Some(trace) =
                first.filter(|_| !self.make_room(arrival, in_all + beside, 2, true))
            {
                return self.admit(arrival, Candidate::Recompute(trace), batch);
            }
            if !self.make_room(arrival, in_all, 1, true) {
                return false;
            }
        }
        self.take_slot(arrival, OWNER);
        self.launch(
            SequenceKey {
                arrival,
                trace: OWNER,
            },
            in_all,
            end,
            batch,
        );
        true
    }

    /// Whether so many blocks and slots are free, with one block to spare for every running
    /// sequence. When it must fit (nothing runs), idle owners of others are evicted, the latest
    /// arrivals first.
    fn make_room(
        &mut self,
        arrival: u64,
        num_blocks: usize,
        num_slots: usize,
        must_fit: bool,
    ) -> bool {
        let spare = if num_blocks == 0 {
            0
        } else {
            self.running.len()
        };
        loop {
            let has_blocks = self.blocks.num_free() >= num_blocks + spare;
            if has_blocks && self.slots.num_free() >= num_slots {
                return true;
            }
            let found =
                self.unfinished.iter().rev().copied().find(|other| {
                    *other != arrival && self.requests[other].owner == OwnerState::Ready
                });
            match found {
                Some(other) if must_fit => self.free_owner(other),
                _ => return false,
            }
        }
    }

    fn take_slot(&mut self, arrival: u64, trace: u32) {
        let slot = self.slots.allocate().expect("room was made");
        let request = self.requests.get_mut(&arrival).expect("a live arrival");
        request.holding_mut(trace).state_slot = Some(slot);
    }

    /// The trace takes over everything the owner holds.
    fn hand_over(&mut self, arrival: u64, trace: u32) {
        let request = self.requests.get_mut(&arrival).expect("a live arrival");
        request.traces[trace as usize].holding = std::mem::take(&mut request.owner_holding);
        request.owner = OwnerState::Absent;
    }

    /// The trace shares the owner's full blocks and gets copies of its last block and its slot.
    fn fork(&mut self, arrival: u64, trace: u32, batch: &mut Batch) {
        self.take_slot(arrival, trace);
        let request = self.requests.get_mut(&arrival).expect("a live arrival");
        let full_blocks = request.prompt_token_ids.len() / self.limits.block_size as usize;
        let owner: Holding = request.owner_holding.clone();
        let holding = request.holding_mut(trace);
        let (shared, partial) = owner.block_table.split_at(full_blocks);
        for &block in shared {
            self.blocks.share(block);
            holding.block_table.push(block);
        }
        for &block in partial {
            let copy = self.blocks.allocate().expect("room was made");
            batch.block_copies.push([block as i64, copy as i64]);
            holding.block_table.push(copy);
        }
        holding.num_computed_tokens = owner.num_computed_tokens;
        let slots = [owner.state_slot, holding.state_slot];
        batch
            .slot_copies
            .push(slots.map(|slot| slot.expect("both hold a slot") as i64));
    }

    /// Put a sequence that has its slot into the running batch, with its blocks.
    fn launch(&mut self, key: SequenceKey, num_blocks: usize, end: usize, batch: &mut Batch) {
        let request = self.requests.get_mut(&key.arrival).expect("a live key");
        let holding = request.holding_mut(key.trace);
        let start = holding.num_computed_tokens;
        holding.grow(num_blocks, &mut self.blocks);
        if key.trace == OWNER {
            request.owner = OwnerState::Computing;
        } else {
            request.waiting.remove(&key.trace);
            request.traces[key.trace as usize].status = SequenceStatus::Running;
        }
        let place = self.running.partition_point(|other| *other < key);
        self.running.insert(place, key);
        batch.push(key, start, end);
    }

    fn lay_out(&mut self, batch: Batch) -> Plan {
        let mut rows = batch.singles;
        rows.extend(batch.chunks);
        let num_tokens = self.limits.max_num_batched_tokens as usize - batch.budget;
        let tables = rows.iter().map(|(key, _)| {
            self.requests[&key.arrival]
                .holding(key.trace)
                .block_table
                .len()
        });
        let mut plan = Plan {
            id: self.next_plan_id,
            max_blocks: tables.max().unwrap_or(0),
            block_copies: batch.block_copies,
            slot_copies: batch.slot_copies,
            ..Plan::with_capacity(num_tokens, rows.len())
        };
        plan.block_tables
            .reserve_exact(rows.len() * plan.max_blocks);
        self.next_plan_id += 1;
        let mut samples = Vec::with_capacity(rows.len());
        for (key, end) in &rows {
            self.lay_out_row(*key, *end, &mut plan, &mut samples);
        }
        self.in_flight = Some(InFlight {
            id: plan.id,
            rows,
            samples,
        });
        plan
    }

    fn lay_out_row(
        &self,
        key: SequenceKey,
        end: usize,
        plan: &mut Plan,
        samples: &mut Vec<SequenceKey>,
    ) {
        let request = &self.requests[&key.arrival];
        let holding = request.holding(key.trace);
        let start = holding.num_computed_tokens;
        let block_size = self.limits.block_size as usize;
        request.copy_tokens(key.trace, start, end, &mut plan.token_ids);
        for position in start..end {
            let block = holding.block_table[position / block_size] as usize;
            plan.positions.push(position as i64);
            plan.slot_mapping
                .push((block * block_size + position % block_size) as i64);
        }
        plan.cu_seqlens.push(plan.token_ids.len() as i32);
        plan.seq_lens.push(end as i32);
        plan.block_tables
            .extend(holding.block_table.iter().map(|block| *block as i32));
        plan.block_tables
            .resize(plan.seq_lens.len() * plan.max_blocks, 0);
        plan.state_slots
            .push(holding.state_slot.expect("a running sequence holds a slot") as i64);
        plan.has_initial_state.push(start > 0);
        if end < request.num_tokens(key.trace) {
            return;
        }
        let drawing = if key.trace != OWNER {
            key.trace..key.trace + 1
        } else if request.is_drawn {
            0..0
        } else {
            0..request.traces.len() as u32
        };
        for trace in drawing {
            if request.trace(trace).reason.is_none() {
                plan.sample_rows.push(plan.token_ids.len() as i64 - 1);
                plan.sample_request_ids.push(request.id);
                plan.sample_traces.push(trace);
                plan.sample_positions.push(request.num_tokens(trace) as i64);
                plan.sample_output_lens
                    .push(request.trace(trace).output_token_ids.len() as i64);
                samples.push(SequenceKey {
                    arrival: key.arrival,
                    trace,
                });
            }
        }
    }
}

impl Plan {
    fn with_capacity(num_tokens: usize, num_seqs: usize) -> Self {
        let mut cu_seqlens = Vec::with_capacity(num_seqs + 1);
        cu_seqlens.push(0);
        Self {
            token_ids: Vec::with_capacity(num_tokens),
            positions: Vec::with_capacity(num_tokens),
            slot_mapping: Vec::with_capacity(num_tokens),
            cu_seqlens,
            seq_lens: Vec::with_capacity(num_seqs),
            state_slots: Vec::with_capacity(num_seqs),
            has_initial_state: Vec::with_capacity(num_seqs),
            ..Self::default()
        }
    }
}
