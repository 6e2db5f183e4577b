//! Hand-written scanners for the regular expressions that published tokenizers split with.
//!
//! Each finds the end of the match that starts at a position; the expressions are such that a
//! match starts wherever the last one ended, so scanning covers every text. Each is tested against
//! the generic engine on the same expression.

mod cl100k;
mod gpt2;
mod o200k;

use crate::unicode::{LETTER, NUMBER, SPACE, classes, decode};

/// A scanner by name. `end` dispatches to the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scanner {
    Gpt2,
    Llama3,
    Qwen2,
    O200k,
    Tekken,
}

/// The expression inside `ByteLevel`.
pub(crate) const GPT2: Scanner = Scanner::Gpt2;

/// Expressions and their scanners.
const KNOWN: &[(&str, Scanner)] = &[
    (gpt2::PATTERN, Scanner::Gpt2),
    (gpt2::PATTERN_GROUPED, Scanner::Gpt2),
    (cl100k::LLAMA3, Scanner::Llama3),
    (cl100k::QWEN2, Scanner::Qwen2),
    (o200k::O200K, Scanner::O200k),
    (o200k::TEKKEN, Scanner::Tekken),
];

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
            Self::Llama3 => cl100k::end(text, start, 3),
            Self::Qwen2 => cl100k::end(text, start, 1),
            Self::O200k => o200k::end(text, start, 3, true),
            Self::Tekken => o200k::end(text, start, 1, false),
        }
    }
}

/// The end of `\s+(?!\S)|\s+` at `start`, which holds a space character: all of the run, but the
/// last character of it belongs to the word that follows, if one does and the run is longer.
fn spaces(text: &[u8], start: usize) -> usize {
    let table = classes();
    let (mut at, mut last) = (start, start);
    while at < text.len() {
        let (code, len) = decode(text, at);
        if table[code] & SPACE == 0 {
            return if last > start { last } else { at };
        }
        last = at;
        at += len;
    }
    at
}

/// The length of `(?i:'s|'t|'re|'ve|'m|'ll|'d)` at an apostrophe; 0 if none is there.
fn contraction(text: &[u8], at: usize) -> usize {
    let lower = |i: usize| text.get(at + i).map_or(0, u8::to_ascii_lowercase);
    match (lower(1), lower(2)) {
        (b's' | b't' | b'm' | b'd', _) => 2,
        // The last pair is U+017F, the long s: an s without case.
        (b'r' | b'v', b'e') | (b'l', b'l') | (0xC5, 0xBF) => 3,
        _ => 0,
    }
}

/// The end of up to `more` further `\p{N}` at `at`.
fn digits(text: &[u8], mut at: usize, more: usize) -> usize {
    let table = classes();
    for _ in 0..more {
        if at >= text.len() {
            break;
        }
        let (code, len) = decode(text, at);
        if table[code] & NUMBER == 0 {
            break;
        }
        at += len;
    }
    at
}

/// The end of `[^\s\p{L}\p{N}]*[\r\n]*` at `at`, a slash counted to the line ends if `slash`.
fn marks(text: &[u8], mut at: usize, slash: bool) -> usize {
    let table = classes();
    while at < text.len() {
        let (code, len) = decode(text, at);
        if table[code] & (SPACE | LETTER | NUMBER) != 0 {
            break;
        }
        at += len;
    }
    while at < text.len() && (matches!(text[at], b'\r' | b'\n') || slash && text[at] == b'/') {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::Pattern;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    /// Characters at which the expressions part ways.
    const NASTY: &str = "aAsStTrReEvVlLdDmMkK019²½Ⅳ٣éßΩяЖ字ªʰǅſ\u{212A}\u{301}\u{20DD}\u{200D}\
                         '’ \t\n\r\u{B}\u{85}\u{A0}\u{1C}\u{2028}\u{3000}.,;-/_$^<>∀¬😀\u{1C89}";

    static PLAIN: LazyLock<Vec<Pattern>> = LazyLock::new(|| {
        KNOWN
            .iter()
            .map(|(expression, _)| Pattern::generic(expression).unwrap())
            .collect()
    });

    fn spans(pattern: &Pattern, text: &str) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        pattern
            .find_all(text, &mut |start, end| {
                found.push((start, end));
                Ok(())
            })
            .unwrap();
        found
    }

    fn nasty() -> impl Strategy<Value = String> {
        let chars: Vec<char> = NASTY.chars().collect();
        let part = prop_oneof![
            8 => prop::sample::select(chars).prop_map(String::from),
            1 => prop::sample::select(vec!["'re", "'LL", "'ſ", " \n ", "\r\n", "  x"])
                .prop_map(String::from),
            1 => any::<char>().prop_map(String::from),
        ];
        prop::collection::vec(part, 0..16).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(3000))]
        #[test]
        fn scanners_equal_the_engine(text in nasty()) {
            for ((_, scanner), plain) in KNOWN.iter().zip(PLAIN.iter()) {
                let plain = spans(plain, &text);
                prop_assert_eq!(spans(&Pattern::Known(*scanner), &text), plain, "{:?}", scanner);
            }
        }
    }
}
