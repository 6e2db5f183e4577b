//! Normalizers: text to text, before anything is split.

use crate::TokenizerError;
use crate::alphabet;
use crate::pattern::{Pattern, PatternSpec};
use crate::spec::{component_type, fields, unsupported};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use unicode_normalization_alignments::{UnicodeNormalization, char::is_combining_mark};

const ALLOWED: &str = "NFC, NFD, NFKC, NFKD, Lowercase, Strip, StripAccents, Replace, Prepend, \
                       ByteLevel and Sequence are";

/// Sequences may nest this deep.
const MAX_DEPTH: usize = 16;

/// Below this code point no character composes with another or is changed by NFC.
const FIRST_COMBINING: char = '\u{300}';

enum Step {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
    Lowercase,
    StripAccents,
    ByteLevel,
    Strip { left: bool, right: bool },
    Prepend(String),
    Replace { pattern: Pattern, content: String },
}

/// A compiled `normalizer`.
pub(crate) struct Normalizer {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct StripSpec {
    strip_left: bool,
    strip_right: bool,
}

#[derive(Deserialize)]
struct PrependSpec {
    prepend: String,
}

#[derive(Deserialize)]
struct ReplaceSpec {
    pattern: PatternSpec,
    content: String,
}

#[derive(Deserialize)]
struct SequenceSpec {
    normalizers: Vec<Value>,
}

impl Normalizer {
    /// Compile the file's `normalizer`; `None` changes nothing.
    pub(crate) fn new(spec: Option<&Value>) -> Result<Self, TokenizerError> {
        let mut steps = Vec::new();
        if let Some(spec) = spec.filter(|s| !s.is_null()) {
            compile(spec, 0, &mut steps)?;
        }
        Ok(Self { steps })
    }

    /// The normal form of `text`.
    ///
    /// # Errors
    /// `RegexLimit` if the expression of a `Replace` gives up.
    pub(crate) fn apply<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, TokenizerError> {
        let mut text = Cow::Borrowed(text);
        for step in &self.steps {
            if let Some(changed) = step.apply(&text)? {
                text = Cow::Owned(changed);
            }
        }
        Ok(text)
    }
}

fn compile(spec: &Value, depth: usize, steps: &mut Vec<Step>) -> Result<(), TokenizerError> {
    const KIND: &str = "normalizer";
    if depth > MAX_DEPTH {
        return Err(TokenizerError::Inconsistent(format!(
            "{KIND} nests deeper than {MAX_DEPTH}"
        )));
    }
    steps.push(match component_type(KIND, spec)? {
        "Sequence" => {
            for part in fields::<SequenceSpec>(KIND, spec)?.normalizers {
                compile(&part, depth + 1, steps)?;
            }
            return Ok(());
        }
        "NFC" => Step::Nfc,
        "NFD" => Step::Nfd,
        "NFKC" => Step::Nfkc,
        "NFKD" => Step::Nfkd,
        "Lowercase" => Step::Lowercase,
        "StripAccents" => Step::StripAccents,
        "ByteLevel" => Step::ByteLevel,
        "Strip" => {
            let StripSpec {
                strip_left,
                strip_right,
            } = fields(KIND, spec)?;
            Step::Strip {
                left: strip_left,
                right: strip_right,
            }
        }
        "Prepend" => Step::Prepend(fields::<PrependSpec>(KIND, spec)?.prepend),
        "Replace" => {
            let ReplaceSpec { pattern, content } = fields(KIND, spec)?;
            Step::Replace {
                pattern: Pattern::new(pattern)?,
                content,
            }
        }
        other => return Err(unsupported(KIND, other, ALLOWED)),
    });
    Ok(())
}

impl Step {
    /// The changed text, or `None` where it surely stays the same.
    fn apply(&self, text: &str) -> Result<Option<String>, TokenizerError> {
        let first = |(c, _): (char, isize)| c;
        Ok(match self {
            Self::Nfc if text.chars().all(|c| c < FIRST_COMBINING) => None,
            Self::Nfd | Self::Nfkc | Self::Nfkd | Self::StripAccents if text.is_ascii() => None,
            Self::Nfc => Some(text.nfc().map(first).collect()),
            Self::Nfd => Some(text.nfd().map(first).collect()),
            Self::Nfkc => Some(text.nfkc().map(first).collect()),
            Self::Nfkd => Some(text.nfkd().map(first).collect()),
            // Character by character, as the reference: no final sigma.
            Self::Lowercase => Some(text.chars().flat_map(char::to_lowercase).collect()),
            Self::StripAccents => Some(text.chars().filter(|c| !is_combining_mark(*c)).collect()),
            Self::ByteLevel => {
                let mut letters = String::with_capacity(2 * text.len());
                alphabet::push_letters(text.as_bytes(), &mut letters);
                Some(letters)
            }
            Self::Strip { left, right } => {
                let text = if *left { text.trim_start() } else { text };
                Some(if *right { text.trim_end() } else { text }.to_owned())
            }
            Self::Prepend(_) if text.is_empty() => None,
            Self::Prepend(prefix) => Some(format!("{prefix}{text}")),
            Self::Replace { pattern, content } => Some(replace(pattern, content, text)?),
        })
    }
}

fn replace(pattern: &Pattern, content: &str, text: &str) -> Result<String, TokenizerError> {
    let mut out = String::with_capacity(text.len());
    let mut last = 0;
    pattern.find_all(text, &mut |start, end| {
        out.push_str(&text[last..start]);
        out.push_str(content);
        last = end;
        Ok(())
    })?;
    out.push_str(&text[last..]);
    Ok(out)
}
