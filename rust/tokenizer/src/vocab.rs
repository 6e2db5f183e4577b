//! Token strings and their ids: one arena, an index by id and an index by string.

use crate::TokenizerError;
use rustc_hash::FxHasher;
use std::hash::Hasher;

/// Ids at or above this are refused, so that a hostile file cannot ask for gigabytes.
const MAX_IDS: u32 = 1 << 22;

const FREE: u32 = u32::MAX;

/// A map between token strings and ids that may have gaps.
pub(crate) struct Vocab {
    text: String,
    /// By id: start and end in `text`; a gap is `(FREE, FREE)`.
    spans: Vec<(u32, u32)>,
    /// Open addressing by hash of the string; holds ids; its length is a power of two.
    slots: Vec<u32>,
    len: usize,
}

impl Vocab {
    /// Build from entries in file order; a string that comes twice keeps its last id.
    pub(crate) fn new(entries: &[(String, u32)]) -> Result<Self, TokenizerError> {
        let bytes: usize = entries.iter().map(|(token, _)| token.len()).sum();
        if bytes >= FREE as usize {
            return Err(TokenizerError::Inconsistent(
                "the vocabulary is above 4 GB".into(),
            ));
        }
        if let Some((token, id)) = entries.iter().find(|(_, id)| *id >= MAX_IDS) {
            return Err(TokenizerError::Inconsistent(format!(
                "token {token:?} has id {id}: ids must be below {MAX_IDS}"
            )));
        }
        let num_ids = entries
            .iter()
            .map(|(_, id)| *id as usize + 1)
            .max()
            .unwrap_or(0);
        let mut vocab = Self {
            text: String::with_capacity(bytes),
            spans: vec![(FREE, FREE); num_ids],
            slots: vec![FREE; (entries.len() * 2).next_power_of_two().max(8)],
            len: 0,
        };
        for (token, id) in entries {
            vocab.insert(token, *id)?;
        }
        Ok(vocab)
    }

    fn insert(&mut self, token: &str, id: u32) -> Result<(), TokenizerError> {
        let slot = self.slot(token);
        let old = self.slots[slot];
        if old == id {
            return Ok(());
        }
        if let Some(other) = self.token(id) {
            return Err(TokenizerError::Inconsistent(format!(
                "tokens {other:?} and {token:?} share id {id}"
            )));
        }
        if old == FREE {
            let start = self.text.len() as u32;
            self.text.push_str(token);
            self.spans[id as usize] = (start, self.text.len() as u32);
            self.len += 1;
        } else {
            self.spans[id as usize] = self.spans[old as usize];
            self.spans[old as usize] = (FREE, FREE);
        }
        self.slots[slot] = id;
        Ok(())
    }

    /// The slot that holds `token`, or the free one where it belongs.
    fn slot(&self, token: &str) -> usize {
        let mut hasher = FxHasher::default();
        hasher.write(token.as_bytes());
        let mask = self.slots.len() - 1;
        let mut slot = hasher.finish() as usize & mask;
        while self.slots[slot] != FREE && self.token(self.slots[slot]) != Some(token) {
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// The id of `token`.
    pub(crate) fn id(&self, token: &str) -> Option<u32> {
        Some(self.slots[self.slot(token)]).filter(|id| *id != FREE)
    }

    /// The token with `id`.
    pub(crate) fn token(&self, id: u32) -> Option<&str> {
        let (start, end) = *self.spans.get(id as usize)?;
        self.text.get(start as usize..end as usize)
    }

    /// How many tokens there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// One more than the highest id.
    pub(crate) fn num_ids(&self) -> u32 {
        self.spans.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(list: &[(&str, u32)]) -> Vec<(String, u32)> {
        list.iter().map(|(t, i)| ((*t).to_owned(), *i)).collect()
    }

    #[test]
    fn gaps_and_repeats() {
        let vocab = Vocab::new(&entries(&[("a", 0), ("b", 5), ("", 2), ("a", 9)])).unwrap();
        assert_eq!(vocab.id("a"), Some(9));
        assert_eq!(vocab.id("b"), Some(5));
        assert_eq!(vocab.id(""), Some(2));
        assert_eq!(vocab.id("c"), None);
        assert_eq!(vocab.token(0), None);
        assert_eq!(vocab.token(9), Some("a"));
        assert_eq!(vocab.token(10), None);
        assert_eq!((vocab.len(), vocab.num_ids()), (3, 10));
    }

    #[test]
    fn shared_and_huge_ids_are_refused() {
        assert!(Vocab::new(&entries(&[("a", 0), ("b", 0)])).is_err());
        assert!(Vocab::new(&entries(&[("a", MAX_IDS)])).is_err());
    }
}
