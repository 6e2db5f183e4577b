//! The expression of cl100k and Llama 3, and Qwen's, which takes digits one by one.

use super::{contraction, spaces};
use crate::unicode::{LETTER, NUMBER, SPACE, classes, decode};

pub(crate) const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
pub(crate) const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// See [`super::Scanner::end`]; a number has up to `max_digits` digits.
pub(super) fn end(text: &[u8], start: usize, max_digits: usize) -> usize {
    let table = classes();
    let (code, len) = decode(text, start);
    let class = table[code];
    if class & LETTER != 0 {
        return letters(text, start + len, table);
    }
    if class & NUMBER != 0 {
        return super::digits(text, start + len, max_digits - 1);
    }
    if code == usize::from(b'\'') {
        let len = contraction(text, start);
        if len > 0 {
            return start + len;
        }
    }
    let next = start + len;
    let mut next_class = SPACE;
    if next < text.len() {
        next_class = table[decode(text, next).0];
        if next_class & LETTER != 0 && code != usize::from(b'\r') && code != usize::from(b'\n') {
            return letters(text, next, table);
        }
    }
    if class & SPACE == 0 || code == usize::from(b' ') && next_class & (SPACE | NUMBER) == 0 {
        return super::marks(text, next, false);
    }
    spaces_and_lines(text, start)
}

fn letters(text: &[u8], mut at: usize, table: &[u8]) -> usize {
    while at < text.len() {
        let (code, len) = decode(text, at);
        if table[code] & LETTER == 0 {
            break;
        }
        at += len;
    }
    at
}

/// The end of `\s*[\r\n]+|\s+(?!\S)|\s+` at `start`, which holds a space character.
pub(super) fn spaces_and_lines(text: &[u8], start: usize) -> usize {
    let table = classes();
    let mut at = start;
    let mut after_line = None;
    while at < text.len() {
        let (code, len) = decode(text, at);
        if table[code] & SPACE == 0 {
            break;
        }
        at += len;
        if code == usize::from(b'\n') || code == usize::from(b'\r') {
            after_line = Some(at);
        }
    }
    after_line.unwrap_or_else(|| spaces(text, start))
}
