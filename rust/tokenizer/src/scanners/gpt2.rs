//! The expression of GPT-2: contractions, letters, numbers, other marks, spaces.

use crate::unicode::{LETTER, NUMBER, SPACE, classes, decode};

pub(crate) const PATTERN: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// The same, written with a group, as in tokenizers converted from tiktoken's files.
pub(crate) const PATTERN_GROUPED: &str =
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// See [`super::Scanner::end`].
pub(super) fn end(text: &[u8], start: usize) -> usize {
    if text[start] == b'\'' {
        let next = |i: usize| text.get(start + i).copied().unwrap_or(0);
        match (next(1), next(2)) {
            (b's' | b't' | b'm' | b'd', _) => return start + 2,
            (b'r' | b'v', b'e') | (b'l', b'l') => return start + 3,
            _ => {}
        }
    }
    let table = classes();
    let mut at = start;
    if text[start] == b' ' && start + 1 < text.len() {
        at = start + 1;
    }
    let (code, len) = decode(text, at);
    let class = table[code];
    at += len;
    if class & SPACE != 0 {
        return super::spaces(text, start);
    }
    let wanted = class & (LETTER | NUMBER);
    while at < text.len() {
        let (code, len) = decode(text, at);
        if table[code] & (LETTER | NUMBER | SPACE) != wanted {
            break;
        }
        at += len;
    }
    at
}
