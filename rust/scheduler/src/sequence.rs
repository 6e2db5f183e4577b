//! What one sequence of tokens holds: a state, KV blocks, an SSM slot.

use crate::blocks::{BlockId, BlockPool};
use crate::slots::{SlotId, SlotPool};

/// State of a sequence. `Waiting -> Running -> Finished`, with `Running <-> Preempted` between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceStatus {
    /// Not launched yet; holds nothing.
    Waiting,
    /// In the running batch; holds its blocks and its slot.
    Running,
    /// Was running, gave everything back, will be recomputed.
    Preempted,
    /// Ended; holds nothing.
    Finished,
}

/// Memory of a sequence. `num_computed_tokens` tokens are in its blocks and in its slot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) block_table: Vec<BlockId>,
    pub(crate) state_slot: Option<SlotId>,
    pub(crate) num_computed_tokens: usize,
}

impl Holding {
    /// Give everything back to the pools.
    pub(crate) fn free(&mut self, blocks: &mut BlockPool, slots: &mut SlotPool) {
        // Last block first, so that the free list hands them out again in their old order.
        for block in self.block_table.drain(..).rev() {
            blocks.release(block);
        }
        if let Some(slot) = self.state_slot.take() {
            slots.release(slot);
        }
        self.num_computed_tokens = 0;
    }

    /// Allocate up to `num_blocks` blocks in all; the caller has checked that they are free.
    pub(crate) fn grow(&mut self, num_blocks: usize, blocks: &mut BlockPool) {
        while self.block_table.len() < num_blocks {
            let block = blocks.allocate().expect("checked by the caller");
            self.block_table.push(block);
        }
    }
}

/// Who computes: a trace of a request, or its prompt owner.
///
/// The order is the order of service: earlier arrivals first, within a request by trace index,
/// the owner last. Preemption takes from the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SequenceKey {
    /// Ordinal of the request's arrival.
    pub(crate) arrival: u64,
    /// Trace index, or [`OWNER`].
    pub(crate) trace: u32,
}

/// The `trace` of a prompt owner's key.
pub(crate) const OWNER: u32 = u32::MAX;
