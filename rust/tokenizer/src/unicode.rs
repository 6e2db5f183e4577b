//! Classes of characters, one byte a code point, built once from the tables of `regex-syntax`.
//!
//! The tables are of Unicode 16, as in the regular expression engine of the reference.

use std::sync::LazyLock;

/// `\p{L}`
pub(crate) const LETTER: u8 = 1;
/// `\p{N}`
pub(crate) const NUMBER: u8 = 2;
/// `\s`, the property `White_Space`
pub(crate) const SPACE: u8 = 4;
/// `\p{M}`
pub(crate) const MARK: u8 = 8;
/// `\p{Lu}` and `\p{Lt}`
pub(crate) const UPPER: u8 = 16;
/// `\p{Ll}`
pub(crate) const LOWER: u8 = 32;
/// Digits of the reference: Rust's `char::is_numeric`
pub(crate) const NUMERIC: u8 = 64;
/// Punctuation of the reference: ASCII punctuation, and Unicode `P*` of the crate it uses
pub(crate) const PUNCTUATION: u8 = 128;

/// Highest code point + 1.
const CODE_POINTS: usize = 0x11_0000;

static CLASSES: LazyLock<Box<[u8]>> = LazyLock::new(build);

/// The classes of every code point; index by `char as usize`.
pub(crate) fn classes() -> &'static [u8] {
    &CLASSES
}

/// The classes of `c`.
#[cfg(test)]
pub(crate) fn class(c: char) -> u8 {
    CLASSES[c as usize]
}

fn build() -> Box<[u8]> {
    let mut table = vec![0_u8; CODE_POINTS].into_boxed_slice();
    for (pattern, bit) in [
        (r"\p{L}", LETTER),
        (r"\p{N}", NUMBER),
        (r"\s", SPACE),
        (r"\p{M}", MARK),
        (r"[\p{Lu}\p{Lt}]", UPPER),
        (r"\p{Ll}", LOWER),
    ] {
        mark(&mut table, pattern, bit);
    }
    for (code, slot) in table.iter_mut().enumerate() {
        let Some(c) = char::from_u32(code as u32) else {
            continue;
        };
        // Number first: `is_numeric` is exactly \p{N} up to the version of Unicode.
        if c.is_numeric() {
            *slot |= NUMERIC;
        }
        if is_punctuation(c) {
            *slot |= PUNCTUATION;
        }
    }
    table
}

fn is_punctuation(c: char) -> bool {
    use unicode_categories::UnicodeCategories;
    // Nothing from the supplementary ideographs on is punctuation: skip the slow look-up.
    c.is_ascii_punctuation()
        || (!c.is_ascii() && (c as u32) < 0x2_0000 && !c.is_alphabetic() && c.is_punctuation())
}

fn mark(table: &mut [u8], pattern: &str, bit: u8) {
    let Ok(hir) = regex_syntax::parse(pattern) else {
        return;
    };
    if let regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(class)) = hir.kind()
    {
        for range in class.ranges() {
            for slot in &mut table[range.start() as usize..=range.end() as usize] {
                *slot |= bit;
            }
        }
    }
}

/// The character that starts at `at`, and its length in bytes.
///
/// `text` is valid UTF-8 and `at` a character boundary below its length; on other input the
/// result is some code point and a length that stays within `1..=4`.
#[inline]
pub(crate) fn decode(text: &[u8], at: usize) -> (usize, usize) {
    let first = text[at];
    let part = |i: usize| usize::from(text.get(at + i).copied().unwrap_or(0) & 0x3F);
    match first {
        0..=0x7F => (usize::from(first), 1),
        0x80..=0xDF => (usize::from(first & 0x1F) << 6 | part(1), 2),
        0xE0..=0xEF => (usize::from(first & 0x0F) << 12 | part(1) << 6 | part(2), 3),
        _ => (
            usize::from(first & 0x07) << 18 | part(1) << 12 | part(2) << 6 | part(3),
            4,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_telling_characters() {
        assert_eq!(class('a') & LETTER, LETTER);
        assert_eq!(class('²') & (NUMBER | NUMERIC), NUMBER | NUMERIC);
        assert_eq!(class('\u{85}') & SPACE, SPACE);
        assert_eq!(class('\u{1C}') & SPACE, 0);
        assert_eq!(class('$') & PUNCTUATION, PUNCTUATION);
        assert_eq!(class('∀') & PUNCTUATION, 0);
        assert_eq!(class('Ǆ') & UPPER, UPPER);
        assert_eq!(class('\u{301}') & MARK, MARK);
    }

    #[test]
    fn decode_agrees_with_chars() {
        let text = "aé字😀\u{10FFFF}";
        for (at, c) in text.char_indices() {
            assert_eq!(decode(text.as_bytes(), at), (c as usize, c.len_utf8()));
        }
    }
}
