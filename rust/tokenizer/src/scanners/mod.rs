//! Hand-written scanners for the regular expressions that published tokenizers split with.
//!
//! Each finds the end of the match that starts at a position; the expressions are such that a
//! match starts wherever the last one ended, so scanning covers every text. Each is tested against
//! the generic engine on the same expression.

mod gpt2;

/// A scanner by name. `end` dispatches to the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scanner {
    Gpt2,
}

/// The expression inside `ByteLevel`.
pub(crate) const GPT2: Scanner = Scanner::Gpt2;

/// Expressions and their scanners.
const KNOWN: &[(&str, Scanner)] = &[(gpt2::PATTERN, Scanner::Gpt2)];

/// The scanner for a regular expression, if it is one of those known.
pub(crate) fn known(pattern: &str) -> Option<Scanner> {
    KNOWN
        .iter()
        .find(|(text, _)| *text == pattern)
        .map(|(_, scanner)| *scanner)
}

impl Scanner {
    /// End of the match that starts at `start`. `text` is UTF-8, `start` a boundary within it;
    /// the end is a boundary above `start`.
    #[inline]
    pub(crate) fn end(self, text: &[u8], start: usize) -> usize {
        match self {
            Self::Gpt2 => gpt2::end(text, start),
        }
    }
}

/// The end of `\s+(?!\S)|\s+` at `start`, which holds a space character: all of the run, but the
/// last character of it belongs to the word that follows, if one does and the run is longer.
fn spaces(text: &[u8], start: usize) -> usize {
    let table = crate::unicode::classes();
    let (mut at, mut last) = (start, start);
    while at < text.len() {
        let (code, len) = crate::unicode::decode(text, at);
        if table[code] & crate::unicode::SPACE == 0 {
            return if last > start { last } else { at };
        }
        last = at;
        at += len;
    }
    at
}
