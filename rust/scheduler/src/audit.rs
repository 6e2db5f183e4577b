//! Every invariant of the scheduler's state, checked by counting afresh. For tests.

use crate::request::{OwnerState, Request};
use crate::scheduler::Scheduler;
use crate::sequence::{Holding, OWNER, SequenceKey, SequenceStatus};

/// A broken invariant, in words.
type Audit = Result<(), String>;

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Audit {
    if holds { Ok(()) } else { Err(what()) }
}

impl Scheduler {
    /// Check that every block and slot has exactly its owners, and that the lists agree with the
    /// states. O(everything).
    ///
    /// # Errors
    /// The first invariant that does not hold, in words.
    pub fn audit(&self) -> Audit {
        let mut block_owners = vec![0; self.blocks.num_total()];
        let mut slot_owners = vec![0; self.slots.num_total()];
        let of_requests = self.requests.values().flat_map(|request| {
            let traces = request.traces.iter().map(|trace| &trace.holding);
            traces.chain([&request.owner_holding])
        });
        let of_prefixes = self.prefixes.iter().map(|prefix| &prefix.holding);
        for holding in of_requests.chain(of_prefixes) {
            for &block in &holding.block_table {
                block_owners[block as usize] += 1;
            }
            if let Some(slot) = holding.state_slot {
                slot_owners[slot as usize] += 1;
            }
        }
        for (block, &owners) in block_owners.iter().enumerate() {
            let counted = self.blocks.ref_count(block as u32);
            ensure(counted == owners, || {
                format!("block {block} has {owners} owners but a count of {counted}")
            })?;
        }
        let unowned = block_owners.iter().filter(|owners| **owners == 0).count();
        ensure(self.blocks.num_free() == unowned, || {
            "a block is lost or free twice".into()
        })?;
        ensure(slot_owners.iter().all(|owners| *owners <= 1), || {
            "a slot has two owners".into()
        })?;
        let unowned = slot_owners.iter().filter(|owners| **owners == 0).count();
        ensure(self.slots.num_free() == unowned, || {
            "a slot is lost or free twice".into()
        })?;
        let in_order = self.running.is_sorted_by(|a, b| a < b);
        ensure(in_order, || "the running batch is out of order".into())?;
        for (&arrival, request) in &self.requests {
            self.audit_request(arrival, request)
                .map_err(|what| format!("request {}: {what}", request.id))?;
        }
        Ok(())
    }

    fn audit_request(&self, arrival: u64, request: &Request) -> Audit {
        let is_running = |trace| self.running.contains(&SequenceKey { arrival, trace });
        let unfinished = request
            .traces
            .iter()
            .filter(|trace| trace.reason.is_none())
            .count();
        ensure(unfinished == request.num_unfinished, || {
            "num_unfinished is wrong".into()
        })?;
        let listed = self.unfinished.contains(&arrival);
        ensure(listed == (unfinished > 0), || {
            "it is in the wrong list".into()
        })?;
        let is_computing = request.owner == OwnerState::Computing;
        ensure(is_running(OWNER) == is_computing, || {
            "the owner is in the wrong list".into()
        })?;
        let holds = request.owner != OwnerState::Absent;
        self.audit_holding(request, OWNER, holds)
            .map_err(|what| format!("owner: {what}"))?;
        ensure(!(request.is_owner_idle() && holds), || {
            "a useless owner holds memory".into()
        })?;
        for (index, trace) in request.traces.iter().enumerate() {
            let index = index as u32;
            let runs = trace.status == SequenceStatus::Running;
            let waits = trace.reason.is_none() && !runs && request.is_drawn;
            let ended = trace.status == SequenceStatus::Finished;
            ensure(ended == trace.reason.is_some(), || {
                format!("trace {index}: wrong status")
            })?;
            ensure(runs == is_running(index), || {
                format!("trace {index}: wrong list")
            })?;
            let is_listed = request.waiting.contains(&index);
            ensure(is_listed == waits, || {
                format!("trace {index}: waiting is {is_listed}")
            })?;
            self.audit_holding(request, index, runs)
                .map_err(|what| format!("trace {index}: {what}"))?;
        }
        Ok(())
    }

    fn audit_holding(&self, request: &Request, trace: u32, holds: bool) -> Audit {
        let holding: &Holding = request.holding(trace);
        if !holds {
            return ensure(*holding == Holding::default(), || {
                "it holds memory idly".into()
            });
        }
        ensure(holding.state_slot.is_some(), || "it has no slot".into())?;
        let computed = holding.num_computed_tokens;
        ensure(computed <= request.num_tokens(trace), || {
            "it computed too much".into()
        })?;
        let needed = self.limits.blocks_for(computed);
        ensure(holding.block_table.len() >= needed, || {
            "it has too few blocks".into()
        })
    }
}
