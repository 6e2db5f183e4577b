//! The byte-letter alphabet of byte-level BPE: one printable character for each of the 256 bytes.
//!
//! Printable Latin-1 bytes stand for themselves; the other 68 are the letters from U+0100 on, in
//! byte order (a space is `Ġ`). Source: the encoder of GPT-2.

/// How many code points from 0 on hold all letters of the alphabet.
const LETTER_SPAN: usize = 0x144;

const fn is_own_letter(byte: usize) -> bool {
    matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF)
}

const fn build_letters() -> [char; 256] {
    let mut letters = ['\0'; 256];
    let mut next = 0x100_u32;
    let mut byte = 0;
    while byte < 256 {
        let code = if is_own_letter(byte) {
            byte as u32
        } else {
            next += 1;
            next - 1
        };
        letters[byte] = match char::from_u32(code) {
            Some(letter) => letter,
            None => '\0',
        };
        byte += 1;
    }
    letters
}

const fn build_bytes() -> [u16; LETTER_SPAN] {
    let mut bytes = [u16::MAX; LETTER_SPAN];
    let mut byte = 0;
    while byte < 256 {
        bytes[LETTERS[byte] as usize] = byte as u16;
        byte += 1;
    }
    bytes
}

const LETTERS: [char; 256] = build_letters();
const BYTES: [u16; LETTER_SPAN] = build_bytes();

/// The letter that stands for `byte`.
pub(crate) fn letter(byte: u8) -> char {
    LETTERS[usize::from(byte)]
}

/// The byte that `letter` stands for, if it is of the alphabet.
pub(crate) fn byte(letter: char) -> Option<u8> {
    let code = *BYTES.get(letter as usize)?;
    u8::try_from(code).ok()
}

/// Append the letters of `bytes` to `out`.
pub(crate) fn push_letters(bytes: &[u8], out: &mut String) {
    out.extend(bytes.iter().map(|&b| letter(b)));
}

/// The bytes that `text` spells, or `None` if any character is outside the alphabet.
pub(crate) fn spelled_bytes(text: &str) -> Option<Vec<u8>> {
    text.chars().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_letter_and_comes_back() {
        let mut seen = std::collections::BTreeSet::new();
        for b in 0..=255_u8 {
            assert!(seen.insert(letter(b)));
            assert_eq!(byte(letter(b)), Some(b));
        }
        assert_eq!(letter(b' '), 'Ġ');
        assert_eq!(letter(b'\n'), 'Ċ');
        assert_eq!(letter(b'A'), 'A');
        assert_eq!(byte(' '), None);
        assert_eq!(byte('字'), None);
    }
}
