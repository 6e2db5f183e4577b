//! The merge table of BPE and the three ways to apply it: plain, short and long.
//!
//! The rule: while any neighbouring pair is in the table, merge the one of the lowest rank, the
//! leftmost of them if several. `merge_short` and `merge_long` give what `merge_plain` (tests)
//! gives.

use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// "No merge" where a rank stands, "no position" where a position stands.
const NONE: u32 = u32::MAX;

/// Up to this many symbols the quadratic loop is the fastest.
const SHORT: usize = 48;

/// One slot of the table. A free one has the key `u64::MAX`, which no pair of ids is.
#[derive(Clone, Copy)]
struct Slot {
    pair: u64,
    rank: u32,
    id: u32,
}

/// `(left id, right id) -> (rank, id of the merged token)`.
pub(crate) struct MergeTable {
    slots: Vec<Slot>,
    shift: u32,
    /// Every merge that uses a merged token has a higher rank than the merge that makes it.
    /// Then merging never makes a pair of a rank already passed.
    is_monotone: bool,
}

/// Buffers that are kept between calls.
#[derive(Default)]
pub(crate) struct MergeScratch {
    ranks: Vec<u32>,
    merged: Vec<u32>,
    prev: Vec<u32>,
    next: Vec<u32>,
    buckets: FxHashMap<u32, Vec<u32>>,
    spare: Vec<Vec<u32>>,
}

impl MergeTable {
    /// Build from `(left, right, merged)` in rank order; a pair that comes twice keeps its last.
    pub(crate) fn new(merges: &[(u32, u32, u32)]) -> Self {
        let size = (merges.len() * 2).next_power_of_two().max(8);
        let free = Slot {
            pair: u64::MAX,
            rank: NONE,
            id: NONE,
        };
        let mut table = Self {
            slots: vec![free; size],
            shift: 64 - size.trailing_zeros(),
            is_monotone: true,
        };
        for (rank, &(left, right, id)) in merges.iter().enumerate() {
            let pair = key(left, right);
            let slot = table.slot(pair);
            table.slots[slot] = Slot {
                pair,
                rank: rank as u32,
                id,
            };
        }
        let mut made_at: FxHashMap<u32, u32> = FxHashMap::default();
        for slot in table.slots.iter().filter(|s| s.rank != NONE) {
            let rank = made_at.entry(slot.id).or_insert(slot.rank);
            *rank = slot.rank.max(*rank);
        }
        table.is_monotone = table.slots.iter().filter(|s| s.rank != NONE).all(|s| {
            [(s.pair >> 32) as u32, s.pair as u32]
                .iter()
                .all(|part| made_at.get(part).is_none_or(|&made| made < s.rank))
        });
        table
    }

    #[inline]
    fn slot(&self, pair: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = (pair.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize;
        while self.slots[slot].pair != pair && self.slots[slot].rank != NONE {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Rank and merged id of a pair; `(NONE, NONE)` if it does not merge.
    #[inline]
    fn get(&self, left: u32, right: u32) -> (u32, u32) {
        let slot = &self.slots[self.slot(key(left, right))];
        (slot.rank, slot.id)
    }

    /// Merge `symbols` in place.
    pub(crate) fn merge(&self, symbols: &mut Vec<u32>, scratch: &mut MergeScratch) {
        if symbols.len() <= SHORT {
            self.merge_short(symbols, scratch);
        } else if self.is_monotone {
            self.merge_long(symbols, scratch);
        } else {
            self.merge_any(symbols, scratch);
        }
    }

    /// Scan for the lowest rank, merge, repeat.
    fn merge_short(&self, symbols: &mut Vec<u32>, scratch: &mut MergeScratch) {
        let MergeScratch { ranks, merged, .. } = scratch;
        ranks.clear();
        merged.clear();
        for pair in symbols.windows(2) {
            let (rank, id) = self.get(pair[0], pair[1]);
            ranks.push(rank);
            merged.push(id);
        }
        while let Some((at, &rank)) = ranks.iter().enumerate().min_by_key(|(_, rank)| **rank) {
            if rank == NONE {
                break;
            }
            symbols[at] = merged[at];
            symbols.remove(at + 1);
            ranks.remove(at);
            merged.remove(at);
            if at > 0 {
                (ranks[at - 1], merged[at - 1]) = self.get(symbols[at - 1], symbols[at]);
            }
            if at < ranks.len() {
                (ranks[at], merged[at]) = self.get(symbols[at], symbols[at + 1]);
            }
        }
    }

    /// Link the symbols, and note every pair's rank and merged id at its left position.
    fn link(&self, symbols: &[u32], scratch: &mut MergeScratch) {
        let len = symbols.len() as u32;
        scratch.ranks.clear();
        scratch.merged.clear();
        for pair in symbols.windows(2) {
            let (rank, id) = self.get(pair[0], pair[1]);
            scratch.ranks.push(rank);
            scratch.merged.push(id);
        }
        scratch.ranks.push(NONE);
        scratch.merged.push(NONE);
        scratch.prev.clear();
        scratch.prev.push(NONE);
        scratch.prev.extend(0..len - 1);
        scratch.next.clear();
        scratch.next.extend(1..len);
        scratch.next.push(NONE);
    }

    /// Merge the pair at `at` and return the two positions whose pairs are new.
    fn merge_at(&self, at: u32, symbols: &mut [u32], scratch: &mut MergeScratch) -> [u32; 2] {
        let here = at as usize;
        let right = scratch.next[here] as usize;
        symbols[here] = scratch.merged[here];
        symbols[right] = NONE;
        scratch.ranks[right] = NONE;
        scratch.ranks[here] = NONE;
        let after = scratch.next[right];
        scratch.next[here] = after;
        let before = scratch.prev[here];
        if after != NONE {
            scratch.prev[after as usize] = at;
            let pair = self.get(symbols[here], symbols[after as usize]);
            (scratch.ranks[here], scratch.merged[here]) = pair;
        }
        if before != NONE {
            let pair = self.get(symbols[before as usize], symbols[here]);
            (
                scratch.ranks[before as usize],
                scratch.merged[before as usize],
            ) = pair;
        }
        [before, if after == NONE { NONE } else { at }]
    }

    /// A bucket of positions a rank: near-linear, for monotone tables.
    fn merge_long(&self, symbols: &mut Vec<u32>, scratch: &mut MergeScratch) {
        self.link(symbols, scratch);
        let mut waiting = BinaryHeap::new();
        for at in 0..symbols.len() as u32 {
            push_bucket(at, scratch, &mut waiting);
        }
        while let Some(Reverse(rank)) = waiting.pop() {
            let Some(mut positions) = scratch.buckets.remove(&rank) else {
                continue;
            };
            if !positions.is_sorted() {
                positions.sort_unstable();
            }
            for &at in &positions {
                if scratch.ranks[at as usize] != rank {
                    continue; // its pair is gone
                }
                for new in self.merge_at(at, symbols, scratch) {
                    if new != NONE {
                        push_bucket(new, scratch, &mut waiting);
                    }
                }
            }
            positions.clear();
            scratch.spare.push(positions);
        }
        scratch.spare.truncate(1024);
        symbols.retain(|id| *id != NONE);
    }

    /// One heap of (rank, position): for tables in any order.
    fn merge_any(&self, symbols: &mut Vec<u32>, scratch: &mut MergeScratch) {
        self.link(symbols, scratch);
        let mut waiting: BinaryHeap<Reverse<(u32, u32)>> = (0..symbols.len() as u32)
            .filter(|&at| scratch.ranks[at as usize] != NONE)
            .map(|at| Reverse((scratch.ranks[at as usize], at)))
            .collect();
        while let Some(Reverse((rank, at))) = waiting.pop() {
            if scratch.ranks[at as usize] != rank {
                continue;
            }
            for new in self.merge_at(at, symbols, scratch) {
                if new != NONE && scratch.ranks[new as usize] != NONE {
                    waiting.push(Reverse((scratch.ranks[new as usize], new)));
                }
            }
        }
        symbols.retain(|id| *id != NONE);
    }
}

/// Put a position into the bucket of its pair's rank; a new bucket's rank joins the heap.
fn push_bucket(at: u32, scratch: &mut MergeScratch, waiting: &mut BinaryHeap<Reverse<u32>>) {
    let rank = scratch.ranks[at as usize];
    if rank == NONE {
        return;
    }
    let spare = &mut scratch.spare;
    let bucket = scratch.buckets.entry(rank).or_insert_with(|| {
        waiting.push(Reverse(rank));
        spare.pop().unwrap_or_default()
    });
    bucket.push(at);
}

#[inline]
fn key(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Way = fn(&MergeTable, &mut Vec<u32>, &mut MergeScratch);

    /// The rule, word by word.
    fn merge_plain(table: &MergeTable, symbols: &mut Vec<u32>) {
        loop {
            let best = (1..symbols.len())
                .map(|i| (table.get(symbols[i - 1], symbols[i]), i - 1))
                .min_by_key(|((rank, _), at)| (*rank, *at));
            match best {
                Some(((rank, id), at)) if rank != NONE => {
                    symbols[at] = id;
                    symbols.remove(at + 1);
                }
                _ => return,
            }
        }
    }

    fn check(merges: &[(u32, u32, u32)], symbols: &[u32]) -> Result<(), TestCaseError> {
        let table = MergeTable::new(merges);
        let mut want = symbols.to_vec();
        merge_plain(&table, &mut want);
        let ways: [Way; 4] = [
            MergeTable::merge,
            MergeTable::merge_short,
            MergeTable::merge_long,
            MergeTable::merge_any,
        ];
        for (number, way) in ways.into_iter().enumerate() {
            if symbols.is_empty() || (number == 2 && !table.is_monotone) {
                continue;
            }
            let mut got = symbols.to_vec();
            way(&table, &mut got, &mut MergeScratch::default());
            prop_assert_eq!(&got, &want, "way {}", number);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn all_ways_agree_on_trained_like_tables(
            parts in prop::collection::vec((0_u32..1000, 0_u32..1000), 0..40),
            symbols in prop::collection::vec(0_u32..4, 0..120),
        ) {
            // Token 4 + i is made by merge i from earlier tokens only.
            let merges: Vec<_> = (4..).zip(parts).map(|(id, (a, b))| (a % id, b % id, id)).collect();
            check(&merges, &symbols)?;
        }

        #[test]
        fn heap_and_short_agree_on_shuffled_tables(
            parts in prop::collection::vec((0_u32..1000, 0_u32..1000), 0..40),
            symbols in prop::collection::vec(0_u32..4, 0..120),
            turn in 0_usize..40,
        ) {
            let mut merges: Vec<_> =
                (4..).zip(parts).map(|(id, (a, b))| (a % id, b % id, id)).collect();
            let len = merges.len().max(1);
            merges.rotate_left(turn % len);
            merges.reverse();
            check(&merges, &symbols)?;
        }
    }
}
