//! Buffers of one encoding call, and the cache of words it has seen.

use crate::TokenizerError;
use crate::bpe::{Bpe, Word};
use crate::merges::MergeScratch;
use rustc_hash::FxHashMap;

/// A word of this many bytes or fewer, that makes so many ids or fewer, has a slot of 32 bytes.
const SLOT_BYTES: usize = 15;
const SLOT_IDS: usize = 3;
/// Slots; a power of two. With the two maps below this bounds the memory of a cache to some 16 MB.
const SLOTS: usize = 1 << 15;

/// Longer words are kept in a map, up to this length and number; then all are dropped.
const MAX_WORD: usize = 128;
const MAX_WORDS: usize = 1 << 15;

/// A cached word. Length 0 marks a free slot.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// The bytes, and the length in the last one.
    key: [u64; 2],
    ids: [u32; SLOT_IDS],
    num_ids: u32,
}

/// Buffers and cache for one tokenizer; used by one call at a time.
#[derive(Default)]
pub(crate) struct Scratch {
    symbols: Vec<u32>,
    merge: MergeScratch,
    slots: Vec<Slot>,
    words: FxHashMap<Box<[u8]>, Box<[u32]>>,
}

impl Scratch {
    /// Append the ids of `word` to `out`.
    #[inline]
    pub(crate) fn encode(
        &mut self,
        bpe: &Bpe,
        word: Word<'_>,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let bytes = word.key();
        if bytes.len() > SLOT_BYTES {
            return self.encode_long(bpe, word, out);
        }
        if self.slots.is_empty() {
            self.slots = vec![Slot::default(); SLOTS];
        }
        let key = pack(bytes);
        let at = place(key);
        for slot in [&self.slots[at], &self.slots[at ^ 1]] {
            if slot.key == key {
                match slot.num_ids {
                    1 => out.push(slot.ids[0]),
                    n => out.extend_from_slice(&slot.ids[..n as usize]),
                }
                return Ok(());
            }
        }
        self.encode_new(bpe, word, key, at, out)
    }

    /// As [`Self::encode`], by merges alone; nothing is kept.
    pub(crate) fn spell(
        &mut self,
        bpe: &Bpe,
        word: Word<'_>,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        bpe.spell(word, &mut self.symbols, &mut self.merge)?;
        out.extend_from_slice(&self.symbols);
        Ok(())
    }

    #[cold]
    fn encode_new(
        &mut self,
        bpe: &Bpe,
        word: Word<'_>,
        key: [u64; 2],
        at: usize,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        if let Some(ids) = self.words.get(word.key()) {
            out.extend_from_slice(ids);
            return Ok(());
        }
        bpe.encode(word, &mut self.symbols, &mut self.merge)?;
        out.extend_from_slice(&self.symbols);
        if self.symbols.len() > SLOT_IDS || word.key().is_empty() {
            self.keep(word.key());
            return Ok(());
        }
        let mut slot = Slot {
            key,
            num_ids: self.symbols.len() as u32,
            ..Slot::default()
        };
        slot.ids[..self.symbols.len()].copy_from_slice(&self.symbols);
        // The word that was here moves to the neighbour: the older of the two goes.
        self.slots[at ^ 1] = self.slots[at];
        self.slots[at] = slot;
        Ok(())
    }

    fn encode_long(
        &mut self,
        bpe: &Bpe,
        word: Word<'_>,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let bytes = word.key();
        if bytes.len() <= MAX_WORD
            && let Some(ids) = self.words.get(bytes)
        {
            out.extend_from_slice(ids);
            return Ok(());
        }
        bpe.encode(word, &mut self.symbols, &mut self.merge)?;
        out.extend_from_slice(&self.symbols);
        if bytes.len() <= MAX_WORD {
            self.keep(bytes);
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.words.len() >= MAX_WORDS {
            self.words.clear();
        }
        self.words
            .insert(bytes.into(), self.symbols.as_slice().into());
    }
}

/// Up to 15 bytes and their length, one number for each word.
#[inline]
fn pack(bytes: &[u8]) -> [u64; 2] {
    let len = bytes.len();
    let tag = (len as u64) << 56;
    if let (Some(head), Some(tail)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        // The two overlap: drop from the tail what the head has, so that a byte is left for `len`.
        let tail = u64::from_le_bytes(*tail)
            .checked_shr(8 * (16 - len as u32))
            .unwrap_or(0);
        [u64::from_le_bytes(*head), tail | tag]
    } else if let (Some(head), Some(tail)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let (head, tail) = (u32::from_le_bytes(*head), u32::from_le_bytes(*tail));
        [u64::from(head) | u64::from(tail) << 32, tag]
    } else {
        let byte = |i: usize| u64::from(bytes.get(i).copied().unwrap_or(0)) << (8 * i);
        [byte(0) | byte(1) | byte(2), tag]
    }
}

#[inline]
fn place(key: [u64; 2]) -> usize {
    let mixed = (key[0] ^ key[1].rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93) as usize >> 40 & (SLOTS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pack_tells_words_apart(
            a in prop::collection::vec(0_u8..3, 0..=SLOT_BYTES),
            b in prop::collection::vec(0_u8..3, 0..=SLOT_BYTES),
        ) {
            prop_assert_eq!(a == b, pack(&a) == pack(&b));
        }
    }
}
