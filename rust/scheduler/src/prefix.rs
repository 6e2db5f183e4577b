//! Kept prefixes: states of finished prefill, for later prompts that begin alike.
//!
//! A prompt's state is kept at its last multiple of `chunk_size` below its end (an SSM state
//! cannot be cut back, and the last token must be computed anew for its logits): a slot of its own
//! and a share of the prompt's blocks. Prefixes are evicted, least recently used first, whenever
//! anything else needs the memory.

use crate::schedule::Batch;
use crate::scheduler::{Limits, Scheduler};
use crate::sequence::{Holding, OWNER, SequenceKey};

/// A kept prefix and its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PrefixId {
    id: u64,
    pub(crate) num_tokens: usize,
}

/// One kept prefix.
#[derive(Debug, Clone)]
pub(crate) struct Prefix {
    id: u64,
    token_ids: Vec<u32>,
    pub(crate) holding: Holding,
    /// The plan whose slot copy makes it; usable in later plans, gone if that plan fails.
    made_in: u64,
    /// The last plan that made it or copies from it: not evicted within that plan.
    used_in: u64,
}

impl Limits {
    /// Length of the prefix kept of a prompt; 0 when nothing is kept.
    pub(crate) fn prefix_len(&self, prompt_len: usize) -> usize {
        if !self.enable_prefix_caching {
            return 0;
        }
        let chunk_size = self.chunk_size as usize;
        (prompt_len - 1) / chunk_size * chunk_size
    }
}

impl Scheduler {
    /// Forget all kept prefixes, as must be done when the model's weights change.
    ///
    /// Those of requests that are still running are kept later on: call it when none is.
    pub fn clear_prefix_cache(&mut self) {
        for mut prefix in self.prefixes.drain(..) {
            prefix.holding.free(&mut self.blocks, &mut self.slots);
        }
    }

    /// Keep the states of the prompt owners that have just reached their last grid point.
    pub(crate) fn keep_prefixes(&mut self, batch: &mut Batch) {
        for arrival in std::mem::take(&mut self.at_grid_end) {
            let key = SequenceKey {
                arrival,
                trace: OWNER,
            };
            if self.running.binary_search(&key).is_ok() {
                self.keep_prefix(arrival, batch);
            }
        }
    }

    fn keep_prefix(&mut self, arrival: u64, batch: &mut Batch) {
        let request = &self.requests[&arrival];
        let len = request.owner_holding.num_computed_tokens;
        let token_ids = &request.prompt_token_ids[..len];
        if self
            .prefixes
            .iter()
            .any(|prefix| prefix.token_ids == token_ids)
        {
            return;
        }
        let token_ids = token_ids.to_vec();
        if self.slots.num_free() == 0 && !self.evict_prefix(None) {
            return;
        }
        let Some(slot) = self.slots.allocate() else {
            return;
        };
        let owner = &self.requests[&arrival].owner_holding;
        let num_blocks = self.limits.blocks_for(len);
        let block_table = owner.block_table[..num_blocks].to_vec();
        for &block in &block_table {
            self.blocks.share(block);
        }
        let from = owner.state_slot.expect("a running owner holds a slot");
        batch.slot_copies.push([from as i64, slot as i64]);
        let plan = self.next_plan_id;
        self.prefixes.push(Prefix {
            id: self.next_prefix_id,
            token_ids,
            holding: Holding {
                block_table,
                state_slot: Some(slot),
                num_computed_tokens: len,
            },
            made_in: plan,
            used_in: plan,
        });
        self.next_prefix_id += 1;
    }

    /// The longest kept prefix that this request's prompt begins with.
    pub(crate) fn find_prefix(&self, arrival: u64) -> Option<PrefixId> {
        let prompt = &self.requests[&arrival].prompt_token_ids;
        let usable = self.prefixes.iter().filter(|prefix| {
            prefix.made_in < self.next_plan_id
                && prefix.token_ids.len() < prompt.len()
                && prompt.starts_with(&prefix.token_ids)
        });
        let longest = usable.max_by_key(|prefix| prefix.token_ids.len())?;
        Some(PrefixId {
            id: longest.id,
            num_tokens: longest.token_ids.len(),
        })
    }

    /// Give a sequence that holds only a slot the state of a kept prefix.
    pub(crate) fn resume_prefix(&mut self, found: PrefixId, key: SequenceKey, batch: &mut Batch) {
        let place = self
            .prefixes
            .iter()
            .position(|prefix| prefix.id == found.id);
        // The most recently used come last.
        let mut prefix = self.prefixes.remove(place.expect("it was pinned"));
        prefix.used_in = self.next_plan_id;
        let request = self.requests.get_mut(&key.arrival).expect("a live key");
        let holding = request.holding_mut(key.trace);
        for &block in &prefix.holding.block_table {
            self.blocks.share(block);
            holding.block_table.push(block);
        }
        holding.num_computed_tokens = found.num_tokens;
        let slots = [prefix.holding.state_slot, holding.state_slot];
        batch
            .slot_copies
            .push(slots.map(|slot| slot.expect("both hold a slot") as i64));
        self.prefixes.push(prefix);
        self.stats.num_cached_tokens += found.num_tokens as u64;
    }

    /// Evict the least recently used prefix that this plan does not touch; false if there is none.
    pub(crate) fn evict_prefix(&mut self, pinned: Option<PrefixId>) -> bool {
        let found = self.prefixes.iter().position(|prefix| {
            prefix.used_in != self.next_plan_id
                && pinned.is_none_or(|pinned| pinned.id != prefix.id)
        });
        if let Some(place) = found {
            let mut prefix = self.prefixes.remove(place);
            prefix.holding.free(&mut self.blocks, &mut self.slots);
        }
        found.is_some()
    }

    /// Forget the prefixes that a failed plan was to make.
    pub(crate) fn drop_prefixes_of(&mut self, plan_id: u64) {
        for place in (0..self.prefixes.len()).rev() {
            if self.prefixes[place].made_in == plan_id {
                let mut prefix = self.prefixes.remove(place);
                prefix.holding.free(&mut self.blocks, &mut self.slots);
            }
        }
    }
}
