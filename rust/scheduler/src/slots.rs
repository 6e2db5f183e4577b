//! SSM slots: one fixed-size place for the convolution and SSM state of one sequence.

/// Index of an SSM slot.
pub type SlotId = u32;

/// The pool of SSM slots. A slot has one owner; states are copied, never shared.
#[derive(Debug, Clone)]
pub struct SlotPool {
    num_total: usize,
    free: Vec<SlotId>,
}

impl SlotPool {
    /// A pool of `num_slots` free slots; the lowest ids are handed out first.
    pub fn new(num_slots: u32) -> Self {
        Self {
            num_total: num_slots as usize,
            free: (0..num_slots).rev().collect(),
        }
    }

    /// Take one slot; `None` when none is free.
    pub fn allocate(&mut self) -> Option<SlotId> {
        self.free.pop()
    }

    /// Give a slot back.
    pub fn release(&mut self, slot: SlotId) {
        debug_assert!(!self.free.contains(&slot), "slot freed twice");
        self.free.push(slot);
    }

    /// Number of free slots.
    pub fn num_free(&self) -> usize {
        self.free.len()
    }

    /// Number of slots, free or used.
    pub fn num_total(&self) -> usize {
        self.num_total
    }
}
