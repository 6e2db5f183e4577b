//! Pre-tokenizers: from text to words, by a list of steps in any order.
//!
//! A `ByteLevel` step turns text into the byte-letter alphabet. Steps after it see letters, not
//! the text: the letters of bytes B2 B3 B9 BC BD BE count as digits, and so on. Here a piece after
//! `ByteLevel` is kept as its bytes, and later steps are asked about each byte's letter.

use crate::TokenizerError;
use crate::alphabet;
use crate::bpe::Word;
use crate::pattern::{Pattern, PatternSpec};
use crate::scanners::{self, Scanner};
use crate::spec::{component_type, fields, unsupported};
use crate::split::{Assembler, Behavior};
use crate::unicode::{self, NUMERIC, PUNCTUATION};
use serde::Deserialize;
use serde_json::Value;

const ALLOWED: &str = "Split, ByteLevel, Digits, Punctuation and Sequence are";

/// Sequences may nest this deep.
const MAX_DEPTH: usize = 16;

/// What receives the words.
pub(crate) type Sink<'s> = dyn FnMut(Word<'_>) -> Result<(), TokenizerError> + 's;

enum Step {
    Split {
        pattern: Pattern,
        behavior: Behavior,
        invert: bool,
    },
    /// Characters of a class are the matches.
    Class {
        bit: u8,
        behavior: Behavior,
        of_letters: Box<[bool; 256]>,
    },
    ByteLevel {
        add_prefix_space: bool,
        use_regex: bool,
    },
}

/// A compiled `pre_tokenizer`.
pub(crate) struct PreTokenizer {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct SplitSpec {
    pattern: PatternSpec,
    behavior: Behavior,
    #[serde(default)]
    invert: bool,
}

#[derive(Deserialize)]
struct ByteLevelSpec {
    add_prefix_space: bool,
    #[serde(default = "yes")]
    use_regex: bool,
}

#[derive(Deserialize)]
struct DigitsSpec {
    individual_digits: bool,
}

#[derive(Deserialize)]
struct PunctuationSpec {
    #[serde(default = "isolated")]
    behavior: Behavior,
}

#[derive(Deserialize)]
struct SequenceSpec {
    pretokenizers: Vec<Value>,
}

fn yes() -> bool {
    true
}

fn isolated() -> Behavior {
    Behavior::Isolated
}

impl PreTokenizer {
    /// Compile the file's `pre_tokenizer`; `None` passes text through whole.
    pub(crate) fn new(spec: Option<&Value>) -> Result<Self, TokenizerError> {
        let mut steps = Vec::new();
        if let Some(spec) = spec.filter(|s| !s.is_null()) {
            compile(spec, 0, &mut steps)?;
        }
        Ok(Self { steps })
    }

    /// Send each word of `text` to `sink`, in order.
    ///
    /// # Errors
    /// `RegexLimit`, or what `sink` returns.
    pub(crate) fn split(&self, text: &str, sink: &mut Sink<'_>) -> Result<(), TokenizerError> {
        run(&self.steps, Word::Text(text), sink)
    }
}

fn compile(spec: &Value, depth: usize, steps: &mut Vec<Step>) -> Result<(), TokenizerError> {
    const KIND: &str = "pre_tokenizer";
    if depth > MAX_DEPTH {
        return Err(TokenizerError::Inconsistent(format!(
            "{KIND} nests deeper than {MAX_DEPTH}"
        )));
    }
    steps.push(match component_type(KIND, spec)? {
        "Sequence" => {
            for part in fields::<SequenceSpec>(KIND, spec)?.pretokenizers {
                compile(&part, depth + 1, steps)?;
            }
            return Ok(());
        }
        "Split" => {
            let SplitSpec {
                pattern,
                behavior,
                invert,
            } = fields(KIND, spec)?;
            Step::Split {
                pattern: Pattern::new(pattern)?,
                behavior,
                invert,
            }
        }
        "ByteLevel" => {
            let ByteLevelSpec {
                add_prefix_space,
                use_regex,
            } = fields(KIND, spec)?;
            Step::ByteLevel {
                add_prefix_space,
                use_regex,
            }
        }
        "Digits" => {
            let individual = fields::<DigitsSpec>(KIND, spec)?.individual_digits;
            class(
                NUMERIC,
                if individual {
                    Behavior::Isolated
                } else {
                    Behavior::Contiguous
                },
            )
        }
        "Punctuation" => class(PUNCTUATION, fields::<PunctuationSpec>(KIND, spec)?.behavior),
        other => return Err(unsupported(KIND, other, ALLOWED)),
    });
    Ok(())
}

fn class(bit: u8, behavior: Behavior) -> Step {
    let classes = unicode::classes();
    let mut of_letters = Box::new([false; 256]);
    for (byte, slot) in (0..=255).zip(of_letters.iter_mut()) {
        *slot = classes[alphabet::letter(byte) as usize] & bit != 0;
    }
    Step::Class {
        bit,
        behavior,
        of_letters,
    }
}

fn run(steps: &[Step], piece: Word<'_>, sink: &mut Sink<'_>) -> Result<(), TokenizerError> {
    if piece.key().is_empty() {
        return Ok(());
    }
    let Some((step, rest)) = steps.split_first() else {
        return sink(piece);
    };
    match (step, piece) {
        (
            Step::Split {
                pattern: Pattern::Known(scanner),
                behavior: Behavior::Isolated,
                invert: false,
            },
            Word::Text(text),
        ) => scan(*scanner, text.as_bytes(), |start, end| {
            run(rest, Word::Text(&text[start..end]), sink)
        }),
        (
            Step::Split {
                pattern,
                behavior,
                invert,
            },
            Word::Text(text),
        ) => split_text(pattern, *behavior, *invert, text, |start, end| {
            run(rest, Word::Text(&text[start..end]), sink)
        }),
        (
            Step::Split {
                pattern,
                behavior,
                invert,
            },
            Word::Bytes(bytes),
        ) => split_letters(pattern, *behavior, *invert, bytes, |start, end| {
            run(rest, Word::Bytes(&bytes[start..end]), sink)
        }),
        (Step::Class { bit, behavior, .. }, Word::Text(text)) => {
            let classes = unicode::classes();
            let spans = text
                .char_indices()
                .map(|(at, c)| (at + c.len_utf8(), classes[c as usize] & bit != 0));
            split_class(spans, *behavior, |start, end| {
                run(rest, Word::Text(&text[start..end]), sink)
            })
        }
        (
            Step::Class {
                of_letters,
                behavior,
                ..
            },
            Word::Bytes(bytes),
        ) => {
            let spans = (1..).zip(bytes.iter().map(|&b| of_letters[usize::from(b)]));
            split_class(spans, *behavior, |start, end| {
                run(rest, Word::Bytes(&bytes[start..end]), sink)
            })
        }
        (
            Step::ByteLevel {
                add_prefix_space: true,
                use_regex,
            },
            Word::Text(text),
        ) if !text.starts_with(' ') => {
            let mut spaced = String::with_capacity(text.len() + 1);
            spaced.push(' ');
            spaced.push_str(text);
            to_bytes(*use_regex, spaced.as_bytes(), rest, sink)
        }
        (Step::ByteLevel { use_regex, .. }, Word::Text(text)) => {
            to_bytes(*use_regex, text.as_bytes(), rest, sink)
        }
        (Step::ByteLevel { .. }, Word::Bytes(bytes)) => {
            // Letters are text once more, and get letters of their own bytes.
            let mut letters = String::new();
            alphabet::push_letters(bytes, &mut letters);
            run(steps, Word::Text(&letters), sink)
        }
    }
}

fn to_bytes(
    use_regex: bool,
    text: &[u8],
    rest: &[Step],
    sink: &mut Sink<'_>,
) -> Result<(), TokenizerError> {
    if use_regex {
        scan(scanners::GPT2, text, |start, end| {
            run(rest, Word::Bytes(&text[start..end]), sink)
        })
    } else {
        run(rest, Word::Bytes(text), sink)
    }
}

#[inline]
fn scan(
    scanner: Scanner,
    text: &[u8],
    mut each: impl FnMut(usize, usize) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let mut start = 0;
    while start < text.len() {
        let end = scanner.end(text, start);
        each(start, end)?;
        start = end;
    }
    Ok(())
}

/// Split by a class of characters. `spans` gives the end of each character and whether it is in.
fn split_class(
    spans: impl Iterator<Item = (usize, bool)>,
    behavior: Behavior,
    mut each: impl FnMut(usize, usize) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let mut assembler = Assembler::new(behavior);
    let (mut start, mut last) = (0, 0);
    for (end, is_match) in spans {
        if is_match {
            // The characters before it that are not of the class are one span.
            if start < last
                && let Some((from, to)) = assembler.push(start, last, false)
            {
                each(from, to)?;
            }
            if let Some((from, to)) = assembler.push(last, end, true) {
                each(from, to)?;
            }
            start = end;
        }
        last = end;
    }
    if start < last
        && let Some((from, to)) = assembler.push(start, last, false)
    {
        each(from, to)?;
    }
    assembler
        .finish()
        .map_or(Ok(()), |(from, to)| each(from, to))
}

fn split_text(
    pattern: &Pattern,
    behavior: Behavior,
    invert: bool,
    text: &str,
    mut each: impl FnMut(usize, usize) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let mut assembler = Assembler::new(behavior);
    let mut last = 0;
    pattern.find_all(text, &mut |start, end| {
        if last != start
            && let Some((from, to)) = assembler.push(last, start, invert)
        {
            each(from, to)?;
        }
        last = end;
        assembler
            .push(start, end, !invert)
            .map_or(Ok(()), |(from, to)| each(from, to))
    })?;
    if last != text.len()
        && let Some((from, to)) = assembler.push(last, text.len(), invert)
    {
        each(from, to)?;
    }
    assembler
        .finish()
        .map_or(Ok(()), |(from, to)| each(from, to))
}

/// As `split_text` on the letters of `bytes`; calls `each` with positions of bytes.
fn split_letters(
    pattern: &Pattern,
    behavior: Behavior,
    invert: bool,
    bytes: &[u8],
    mut each: impl FnMut(usize, usize) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let mut letters = String::with_capacity(2 * bytes.len());
    alphabet::push_letters(bytes, &mut letters);
    // Pieces come in order, so one walk turns positions of letters into positions of bytes.
    let (mut at_letter, mut at_byte) = (0, 0);
    let mut byte_of = |letter_at: usize| {
        while at_letter < letter_at {
            at_letter += alphabet::letter(bytes[at_byte]).len_utf8();
            at_byte += 1;
        }
        at_byte
    };
    split_text(pattern, behavior, invert, &letters, |start, end| {
        let start = byte_of(start);
        each(start, byte_of(end))
    })
}
