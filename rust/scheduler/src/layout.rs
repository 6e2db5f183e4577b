//! The flat arrays of a plan.

use crate::plan::{InFlight, Plan};
use crate::schedule::Batch;
use crate::scheduler::Scheduler;
use crate::sequence::{OWNER, SequenceKey};

impl Scheduler {
    pub(crate) fn lay_out(&mut self, batch: Batch) -> Plan {
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
