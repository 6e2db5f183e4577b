//! The BPE model: first symbols of a word, then merges.

use crate::TokenizerError;
use crate::alphabet;
use crate::merges::{MergeScratch, MergeTable};
use crate::spec::ModelSpec;
use crate::vocab::Vocab;

/// No id.
const NONE: u32 = u32::MAX;

/// A word as the pre-tokenizers leave it.
#[derive(Clone, Copy)]
pub(crate) enum Word<'t> {
    /// Characters, of which each is a first symbol.
    Text(&'t str),
    /// Bytes after a `ByteLevel` step, of which each is a first symbol, by its letter.
    Bytes(&'t [u8]),
}

impl<'t> Word<'t> {
    /// The bytes that stand for this word in a cache.
    pub(crate) fn key(self) -> &'t [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Byte-pair encoding as the reference runs it.
#[expect(clippy::struct_excessive_bools, reason = "the fields of the file")]
pub(crate) struct Bpe {
    pub(crate) vocab: Vocab,
    merges: MergeTable,
    /// Id of each byte's letter.
    byte_ids: Box<[u32; 256]>,
    /// Every byte has an id and nothing is put around symbols.
    is_plain: bool,
    ignore_merges: bool,
    byte_fallback: bool,
    fuse_unk: bool,
    unk_token: Option<String>,
    prefix: String,
    suffix: String,
}

impl Bpe {
    /// Compile the `model` of a file.
    pub(crate) fn new(spec: ModelSpec) -> Result<Self, TokenizerError> {
        let vocab = Vocab::new(&spec.vocab.0)?;
        let prefix = spec.continuing_subword_prefix.unwrap_or_default();
        let suffix = spec.end_of_word_suffix.unwrap_or_default();
        let mut merges = Vec::with_capacity(spec.merges.0.len());
        let mut whole = String::new();
        for (left, right) in &spec.merges.0 {
            let id = |token: &str| {
                vocab.id(token).ok_or_else(|| {
                    TokenizerError::Inconsistent(format!(
                        "merge {left:?} {right:?} needs token {token:?}, which is not in vocab"
                    ))
                })
            };
            let tail = right.get(prefix.len()..).ok_or_else(|| {
                TokenizerError::Inconsistent(format!(
                    "merge {left:?} {right:?}: the right part lacks the prefix {prefix:?}"
                ))
            })?;
            whole.clear();
            whole.push_str(left);
            whole.push_str(tail);
            merges.push((id(left)?, id(right)?, id(&whole)?));
        }
        let mut byte_ids = Box::new([NONE; 256]);
        for (byte, slot) in (0..=255).zip(byte_ids.iter_mut()) {
            let mut buffer = [0; 4];
            let letter: &str = alphabet::letter(byte).encode_utf8(&mut buffer);
            *slot = vocab.id(letter).unwrap_or(NONE);
        }
        Ok(Self {
            merges: MergeTable::new(&merges),
            is_plain: prefix.is_empty() && suffix.is_empty() && !byte_ids.contains(&NONE),
            vocab,
            byte_ids,
            ignore_merges: spec.ignore_merges.unwrap_or(false),
            byte_fallback: spec.byte_fallback.unwrap_or(false),
            fuse_unk: spec.fuse_unk.unwrap_or(false),
            unk_token: spec.unk_token,
            prefix,
            suffix,
        })
    }

    /// The ids of one word, in `symbols`. An empty word gives none.
    ///
    /// # Errors
    /// `Inconsistent` if a character needs the unknown token and the vocabulary lacks it.
    pub(crate) fn encode(
        &self,
        word: Word<'_>,
        symbols: &mut Vec<u32>,
        scratch: &mut MergeScratch,
    ) -> Result<(), TokenizerError> {
        if self.ignore_merges
            && let Some(id) = self.whole(word)
        {
            symbols.clear();
            symbols.push(id);
            return Ok(());
        }
        self.spell(word, symbols, scratch)
    }

    /// As [`Self::encode`], by merges alone.
    pub(crate) fn spell(
        &self,
        word: Word<'_>,
        symbols: &mut Vec<u32>,
        scratch: &mut MergeScratch,
    ) -> Result<(), TokenizerError> {
        symbols.clear();
        match word {
            Word::Bytes(bytes) if self.is_plain => {
                symbols.extend(bytes.iter().map(|&b| self.byte_ids[usize::from(b)]));
            }
            Word::Bytes(bytes) => {
                let mut letters = String::with_capacity(2 * bytes.len());
                alphabet::push_letters(bytes, &mut letters);
                self.first_symbols(&letters, symbols)?;
            }
            Word::Text(text) => self.first_symbols(text, symbols)?,
        }
        self.merges.merge(symbols, scratch);
        Ok(())
    }

    /// The token that is the whole word, if there is one.
    fn whole(&self, word: Word<'_>) -> Option<u32> {
        match word {
            Word::Text(text) => self.vocab.id(text),
            Word::Bytes(bytes) => {
                let mut letters = String::with_capacity(2 * bytes.len());
                alphabet::push_letters(bytes, &mut letters);
                self.vocab.id(&letters)
            }
        }
    }

    /// One symbol a character; unknown ones become byte tokens, the unknown token or nothing.
    ///
    /// The order of symbols is the reference's: a pending unknown token is written when the next
    /// known character comes, so that byte tokens overtake it.
    fn first_symbols(&self, text: &str, symbols: &mut Vec<u32>) -> Result<(), TokenizerError> {
        let mut pending: Option<u32> = None;
        let mut name = String::new();
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            name.clear();
            if at > 0 {
                name.push_str(&self.prefix);
            }
            name.push(c);
            if chars.peek().is_none() {
                name.push_str(&self.suffix);
            }
            if let Some(id) = self.vocab.id(&name) {
                symbols.extend(pending.take());
                symbols.push(id);
                continue;
            }
            if self.byte_fallback && self.push_byte_tokens(&name, symbols) {
                continue;
            }
            if let Some(unk) = &self.unk_token {
                let id = self.vocab.id(unk).ok_or_else(|| {
                    TokenizerError::Inconsistent(format!(
                        "text needs the unknown token {unk:?}, which is not in vocab"
                    ))
                })?;
                if !self.fuse_unk {
                    symbols.extend(pending);
                }
                pending = Some(id);
            }
        }
        symbols.extend(pending);
        Ok(())
    }

    /// Push the tokens `<0xNN>` of every byte, or nothing if one of them is missing.
    fn push_byte_tokens(&self, name: &str, symbols: &mut Vec<u32>) -> bool {
        let before = symbols.len();
        for byte in name.bytes() {
            let Some(id) = self.vocab.id(&format!("<0x{byte:02X}>")) else {
                symbols.truncate(before);
                return false;
            };
            symbols.push(id);
        }
        true
    }
}
