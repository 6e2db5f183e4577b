//! Decoding: ids to text, whole or as a stream.

use crate::TokenizerError;
use crate::spec::{component_type, fields, unsupported};
use crate::tokenizer::Tokenizer;
use serde::Deserialize;
use serde_json::Value;

/// How tokens become text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decoder {
    /// Letters are bytes.
    ByteLevel,
    /// No decoder in the file: tokens with a space between, as the reference.
    Joined,
}

#[derive(Deserialize)]
struct SequenceSpec {
    decoders: Vec<Value>,
}

impl Decoder {
    /// Compile the file's `decoder`.
    pub(crate) fn new(spec: Option<&Value>) -> Result<Self, TokenizerError> {
        const KIND: &str = "decoder";
        const ALLOWED: &str = "ByteLevel, and a Sequence of it, are";
        let Some(spec) = spec.filter(|s| !s.is_null()) else {
            return Ok(Self::Joined);
        };
        match component_type(KIND, spec)? {
            "ByteLevel" => Ok(Self::ByteLevel),
            "Sequence" => {
                let parts = fields::<SequenceSpec>(KIND, spec)?.decoders;
                match parts.as_slice() {
                    [one] if component_type(KIND, one)? == "ByteLevel" => Ok(Self::ByteLevel),
                    [one] => Err(unsupported(KIND, component_type(KIND, one)?, ALLOWED)),
                    _ => Err(unsupported(KIND, "Sequence of several", ALLOWED)),
                }
            }
            other => Err(unsupported(KIND, other, ALLOWED)),
        }
    }
}

/// The bytes of every id, spelled out once: decoding then copies and looks nothing up. A stream,
/// which has no use for the table, spells each token anew and must give the same.
pub(crate) struct DecodeTable {
    bytes: Vec<u8>,
    /// Where each id's bytes end.
    ends: Vec<usize>,
    kinds: Vec<Kind>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unknown,
    Plain,
    Special,
}

/// One token, as the table has it.
pub(crate) struct Token<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) is_special: bool,
}

impl DecodeTable {
    /// Spell out every id of a tokenizer whose letters are bytes.
    pub(crate) fn new(tokenizer: &Tokenizer) -> Self {
        let (mut bytes, mut ends, mut kinds) = (Vec::new(), Vec::new(), Vec::new());
        for id in 0..tokenizer.vocab_size() {
            let spelled = tokenizer.push_token_bytes(id, false, &mut true, &mut bytes);
            kinds.push(match spelled {
                Err(_) => Kind::Unknown,
                Ok(()) if tokenizer.is_special(id) => Kind::Special,
                Ok(()) => Kind::Plain,
            });
            ends.push(bytes.len());
        }
        Self { bytes, ends, kinds }
    }

    pub(crate) fn token(&self, id: u32) -> Option<Token<'_>> {
        let index = id as usize;
        let kind = *self.kinds.get(index).filter(|&&k| k != Kind::Unknown)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(Token {
            bytes: &self.bytes[start..self.ends[index]],
            is_special: kind == Kind::Special,
        })
    }
}

/// Decodes ids one by one. The pieces it returns, joined, are the text that `decode` gives for
/// all ids at once.
#[derive(Debug, Clone)]
pub struct DecodeStream {
    skip_special_tokens: bool,
    /// The bytes of a character that is not complete.
    held: Vec<u8>,
    is_first: bool,
}

impl DecodeStream {
    /// A stream at its start.
    pub fn new(skip_special_tokens: bool) -> Self {
        Self {
            skip_special_tokens,
            held: Vec::new(),
            is_first: true,
        }
    }

    /// The text that `id` completes; empty while a character is incomplete.
    ///
    /// # Errors
    /// `UnknownId`; the stream is then as before.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> Result<String, TokenizerError> {
        let skip = self.skip_special_tokens;
        tokenizer.push_token_bytes(id, skip, &mut self.is_first, &mut self.held)?;
        let rest = self.held.split_off(complete(&self.held));
        let done = std::mem::replace(&mut self.held, rest);
        Ok(into_text(done))
    }

    /// The rest: U+FFFD for a character that never became complete, else nothing.
    pub fn flush(&mut self) -> String {
        into_text(std::mem::take(&mut self.held))
    }
}

/// The text of bytes; what is no UTF-8 becomes U+FFFD, one for each maximal wrong part.
pub(crate) fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// How many of `bytes` do not depend on what follows: all but a proper start of a character.
fn complete(bytes: &[u8]) -> usize {
    let longest = bytes.len().min(3);
    for back in 1..=longest {
        let at = bytes.len() - back;
        if bytes[at] & 0xC0 != 0x80 {
            // The last lead byte: held back if it and what follows could still become a character.
            return match std::str::from_utf8(&bytes[at..]) {
                Err(e) if e.valid_up_to() == 0 && e.error_len().is_none() => at,
                _ => bytes.len(),
            };
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incomplete_characters_are_held() {
        assert_eq!(complete("aé".as_bytes()), 3);
        assert_eq!(complete(b"a\xC3"), 1);
        assert_eq!(complete(b"\xF0\x9F\x98"), 0);
        assert_eq!(complete(b"\xF0\x80"), 2); // can never become one
        assert_eq!(complete(b"\x98\x98\x98"), 3);
        assert_eq!(complete(b"\xC0"), 1);
    }
}
