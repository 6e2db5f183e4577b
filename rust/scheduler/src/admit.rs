//! Admission: who joins the running batch, from which state, and what is evicted for it.

use crate::prefix::PrefixId;
use crate::request::{Candidate, OwnerState};
use crate::schedule::Batch;
use crate::scheduler::Scheduler;
use crate::sequence::{Holding, OWNER, SequenceKey, SequenceStatus};

/// Memory that must be free for an admission.
#[derive(Debug, Clone, Copy)]
struct Room {
    blocks: usize,
    slots: usize,
    /// Nothing runs, so idle owners of other requests make way.
    must_fit: bool,
}

impl Scheduler {
    pub(crate) fn admit_waiting(&mut self, batch: &mut Batch) {
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

    /// Admit one candidate if it fits; whether it did. It must when nothing runs.
    fn admit(&mut self, arrival: u64, candidate: Candidate, batch: &mut Batch) -> bool {
        let must_fit = self.running.is_empty();
        match candidate {
            Candidate::Owner => self.admit_owner(arrival, must_fit, batch),
            Candidate::Fork(trace) => {
                self.admit_fork(SequenceKey { arrival, trace }, must_fit, batch)
            }
            Candidate::Recompute(trace) => {
                let room = Room {
                    blocks: 0,
                    slots: 1,
                    must_fit,
                };
                self.admit_fresh(SequenceKey { arrival, trace }, room, batch)
            }
        }
    }

    /// Start or resume a trace from the owner's state. The last trace takes over what the owner
    /// holds; so does any, when nothing runs and there is no room for both.
    fn admit_fork(&mut self, key: SequenceKey, must_fit: bool, batch: &mut Batch) -> bool {
        let request = &self.requests[&key.arrival];
        let prompt_len = request.prompt_token_ids.len();
        let full_blocks = prompt_len / self.limits.block_size as usize;
        let is_last = request.waiting.len() == 1;
        let in_all = self.limits.blocks_for(request.num_tokens(key.trace));
        let owned = request.owner_holding.block_table.len();
        let Some(end) = self.chunk_end(key, prompt_len, batch.budget) else {
            return false;
        };
        let copied = Room {
            blocks: in_all - full_blocks,
            slots: 1,
            must_fit,
        };
        let taken_over = Room {
            blocks: in_all - owned,
            slots: 0,
            must_fit,
        };
        if !is_last && self.make_room(key.arrival, copied, None) {
            self.fork(key, batch);
        } else if (is_last || must_fit) && self.make_room(key.arrival, taken_over, None) {
            self.hand_over(key);
        } else {
            return false;
        }
        self.launch(key, end, batch);
        true
    }

    /// Admit the prompt owner: for the first time with room for one trace beside it if there is
    /// more than one, again with room for the first waiting trace; alone when nothing runs.
    fn admit_owner(&mut self, arrival: u64, must_fit: bool, batch: &mut Batch) -> bool {
        let request = &self.requests[&arrival];
        let key = SequenceKey {
            arrival,
            trace: OWNER,
        };
        let full_blocks = request.prompt_token_ids.len() / self.limits.block_size as usize;
        let first = request.waiting.first().copied();
        let blocks = first.map_or(0, |trace| {
            self.limits.blocks_for(request.num_tokens(trace)) - full_blocks
        });
        let slots = if request.num_unfinished > 1 { 2 } else { 1 };
        let beside = Room {
            blocks,
            slots,
            must_fit: false,
        };
        let alone = Room {
            blocks: 0,
            slots: 1,
            must_fit: true,
        };
        if self.admit_fresh(key, beside, batch) {
            return true;
        }
        match first {
            _ if !must_fit => false,
            None => self.admit_fresh(key, alone, batch),
            Some(trace) => {
                self.admit_fresh(key, Room { must_fit, ..beside }, batch)
                    || self.admit_fresh(SequenceKey { arrival, trace }, alone, batch)
            }
        }
    }

    /// Admit a sequence that holds nothing, with `room` blocks free beside its own and as many
    /// slots; from the longest kept prefix of its prompt if there is one.
    fn admit_fresh(&mut self, key: SequenceKey, room: Room, batch: &mut Batch) -> bool {
        // A prefix never stands in the way: its blocks are this prompt's, and it was kept beside
        // an owner, so there is a slot besides its own.
        let prefix = self.find_prefix(key.arrival);
        let start = prefix.map_or(0, |prefix| prefix.num_tokens);
        let Some(end) = self.chunk_end(key, start, batch.budget) else {
            return false;
        };
        let len = self.requests[&key.arrival].num_tokens(key.trace);
        let own = self.limits.blocks_for(len) - self.limits.blocks_for(start);
        let room = Room {
            blocks: own + room.blocks,
            ..room
        };
        if !self.make_room(key.arrival, room, prefix) {
            return false;
        }
        self.take_slot(key);
        if let Some(prefix) = prefix {
            self.resume_prefix(prefix, key, batch);
        }
        self.launch(key, end, batch);
        true
    }

    /// Whether so many blocks and slots are free, with one block to spare for every running
    /// sequence. Kept prefixes (but `pinned`) are evicted for it; when it must fit (nothing runs),
    /// idle owners of others too, the latest arrivals first.
    fn make_room(&mut self, arrival: u64, room: Room, pinned: Option<PrefixId>) -> bool {
        let spare = if room.blocks == 0 {
            0
        } else {
            self.running.len()
        };
        loop {
            let has_blocks = self.blocks.num_free() >= room.blocks + spare;
            if has_blocks && self.slots.num_free() >= room.slots {
                return true;
            }
            if self.evict_prefix(pinned) {
                continue;
            }
            let found =
                self.unfinished.iter().rev().copied().find(|other| {
                    *other != arrival && self.requests[other].owner == OwnerState::Ready
                });
            match found {
                Some(other) if room.must_fit => self.free_owner(other),
                _ => return false,
            }
        }
    }

    fn take_slot(&mut self, key: SequenceKey) {
        let slot = self.slots.allocate().expect("room was made");
        let request = self.requests.get_mut(&key.arrival).expect("a live key");
        request.holding_mut(key.trace).state_slot = Some(slot);
    }

    /// The trace takes over everything the owner holds.
    fn hand_over(&mut self, key: SequenceKey) {
        let request = self.requests.get_mut(&key.arrival).expect("a live key");
        request.traces[key.trace as usize].holding = std::mem::take(&mut request.owner_holding);
        request.owner = OwnerState::Absent;
    }

    /// The trace shares the owner's full blocks and gets copies of its last block and its slot.
    fn fork(&mut self, key: SequenceKey, batch: &mut Batch) {
        self.take_slot(key);
        let request = self.requests.get_mut(&key.arrival).expect("a live key");
        let full_blocks = request.prompt_token_ids.len() / self.limits.block_size as usize;
        let owner: Holding = request.owner_holding.clone();
        let holding = request.holding_mut(key.trace);
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
    fn launch(&mut self, key: SequenceKey, end: usize, batch: &mut Batch) {
        let request = self.requests.get_mut(&key.arrival).expect("a live key");
        let num_blocks = self.limits.blocks_for(request.num_tokens(key.trace));
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
}
