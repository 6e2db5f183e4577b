//! The expression of o200k, and tekken's, which has no contractions and single digits.
//!
//! A word is capitals then small letters, `U*L+`, or capitals alone, `U+L*`; letters without case
//! and marks are both. One character that is no letter, number or line end may lead it.

use super::{cl100k::spaces_and_lines, contraction};
use crate::unicode::{LETTER, LOWER, MARK, NUMBER, SPACE, UPPER, classes, decode};

pub(crate) const O200K: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
pub(crate) const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// See [`super::Scanner::end`].
pub(super) fn end(text: &[u8], start: usize, max_digits: usize, contractions: bool) -> usize {
    let table = classes();
    let (code, len) = decode(text, start);
    let class = table[code];
    let next = start + len;
    let is_line_end = code == usize::from(b'\n') || code == usize::from(b'\r');
    let leads = !is_line_end && class & (LETTER | NUMBER) == 0;
    // In the order of the alternatives, the optional lead first taken, then not.
    let word = leads
        .then(|| small(text, next))
        .flatten()
        .or_else(|| small(text, start))
        .or_else(|| leads.then(|| capitals(text, next)).flatten())
        .or_else(|| capitals(text, start));
    if let Some(at) = word {
        return if contractions && text.get(at) == Some(&b'\'') {
            at + contraction(text, at)
        } else {
            at
        };
    }
    if class & NUMBER != 0 {
        return super::digits(text, next, max_digits - 1);
    }
    let next_class = if next < text.len() {
        table[decode(text, next).0]
    } else {
        SPACE
    };
    if class & SPACE == 0 || code == usize::from(b' ') && next_class & (SPACE | NUMBER) == 0 {
        return super::marks(text, next, true);
    }
    spaces_and_lines(text, start)
}

fn is_small(class: u8) -> bool {
    class & (LOWER | MARK) != 0 || class & (LETTER | UPPER) == LETTER
}

fn is_capital(class: u8) -> bool {
    class & (UPPER | MARK) != 0 || class & (LETTER | LOWER) == LETTER
}

/// The end of `U*L+` at `from`.
fn small(text: &[u8], from: usize) -> Option<usize> {
    let table = classes();
    let mut at = from;
    // Where the run of capitals must end if no small letter follows it.
    let mut after_small = None;
    while at < text.len() {
        let (code, len) = decode(text, at);
        let class = table[code];
        if !is_capital(class) {
            if !is_small(class) {
                return after_small;
            }
            return Some(run(text, at + len, is_small));
        }
        at += len;
        if is_small(class) {
            after_small = Some(at);
        }
    }
    after_small
}

/// The end of `U+L*` at `from`, where `U*L+` does not match.
fn capitals(text: &[u8], from: usize) -> Option<usize> {
    let end = run(text, from, is_capital);
    (end > from).then_some(end)
}

fn run(text: &[u8], mut at: usize, is_in: impl Fn(u8) -> bool) -> usize {
    let table = classes();
    while at < text.len() {
        let (code, len) = decode(text, at);
        if !is_in(table[code]) {
            break;
        }
        at += len;
    }
    at
}
