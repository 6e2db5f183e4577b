//! Buffers of one encoding call, and the cache of words it has seen.

use crate::TokenizerError;
use crate::bpe::{Bpe, Word};
use crate::merges::MergeScratch;
use rustc_hash::FxHashMap;

/// Words longer than this are not kept.
const MAX_WORD: usize = 64;
/// When this many words are kept, all are dropped.
const MAX_WORDS: usize = 1 << 16;

/// Buffers and cache for one tokenizer; used by one call at a time.
#[derive(Default)]
pub(crate) struct Scratch {
    symbols: Vec<u32>,
    merge: MergeScratch,
    words: FxHashMap<Box<[u8]>, Box<[u32]>>,
}

impl Scratch {
    /// Append the ids of `word` to `out`.
    pub(crate) fn encode(
        &mut self,
        bpe: &Bpe,
        word: Word<'_>,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let key = word.key();
        if let Some(ids) = self.words.get(key) {
            out.extend_from_slice(ids);
            return Ok(());
        }
        bpe.encode(word, &mut self.symbols, &mut self.merge)?;
        out.extend_from_slice(&self.symbols);
        if key.len() <= MAX_WORD {
            if self.words.len() >= MAX_WORDS {
                self.words.clear();
            }
            self.words
                .insert(key.into(), self.symbols.as_slice().into());
        }
        Ok(())
    }
}
