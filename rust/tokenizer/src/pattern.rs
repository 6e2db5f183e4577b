//! Patterns of `Split` and `Replace`: a string, or a regular expression in Oniguruma's syntax.

use crate::TokenizerError;
use crate::oniguruma;
use crate::scanners::{self, Scanner};
use serde::Deserialize;

/// Backtracking steps a search may take before it gives up with an error.
const BACKTRACK_LIMIT: usize = 20_000_000;
/// Instructions of a compiled expression; the longest that is known has some thousands.
const MAX_PROGRAM: usize = 1 << 17;

/// A pattern as the file writes it.
#[derive(Deserialize, Debug)]
pub(crate) enum PatternSpec {
    String(String),
    Regex(String),
}

/// A compiled pattern.
pub(crate) enum Pattern {
    /// Not empty.
    Literal(String),
    /// A regular expression known by heart; its matches cover every text.
    Known(Scanner),
    Regex(Box<fancy_regex::Regex>),
}

impl Pattern {
    /// Compile, taking the hand-written scanner if there is one for this expression.
    pub(crate) fn new(spec: PatternSpec) -> Result<Self, TokenizerError> {
        match spec {
            PatternSpec::String(text) if !text.is_empty() => Ok(Self::Literal(text)),
            PatternSpec::String(_) => Self::generic(""),
            PatternSpec::Regex(text) => match scanners::known(&text) {
                Some(scanner) => Ok(Self::Known(scanner)),
                None => Self::generic(&text),
            },
        }
    }

    /// Compile for the generic engine.
    pub(crate) fn generic(text: &str) -> Result<Self, TokenizerError> {
        let regex = fancy_regex::RegexBuilder::new(&oniguruma::rewrite(text)?)
            .oniguruma_mode(true)
            // In Oniguruma's default syntax, `^` and `$` are always of lines.
            .multi_line(true)
            .backtrack_limit(BACKTRACK_LIMIT)
            // A group that calls itself is written out, again and again, as the program is made.
            .max_prog_size(MAX_PROGRAM)
            .build()
            .map_err(|e| TokenizerError::Regex {
                pattern: text.chars().take(200).collect(),
                reason: TokenizerError::one_line(&e),
            })?;
        Ok(Self::Regex(Box::new(regex)))
    }

    /// Call `found` with start and end of each match, in order.
    ///
    /// # Errors
    /// `RegexLimit` if the expression gives up; else what `found` returns.
    pub(crate) fn find_all(
        &self,
        text: &str,
        found: &mut dyn FnMut(usize, usize) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        match self {
            Self::Literal(literal) => {
                for (start, part) in text.match_indices(literal.as_str()) {
                    found(start, start + part.len())?;
                }
                Ok(())
            }
            Self::Known(scanner) => {
                let mut start = 0;
                while start < text.len() {
                    let end = scanner.end(text.as_bytes(), start);
                    found(start, end)?;
                    start = end;
                }
                Ok(())
            }
            Self::Regex(regex) => find_all_regex(regex, text, found),
        }
    }
}

/// As the reference's iterator: an empty match right after a match is passed over.
fn find_all_regex(
    regex: &fancy_regex::Regex,
    text: &str,
    found: &mut dyn FnMut(usize, usize) -> Result<(), TokenizerError>,
) -> Result<(), TokenizerError> {
    let mut from = 0;
    let mut last_end = None;
    while from <= text.len() {
        let next = regex
            .find_from_pos(text, from)
            .map_err(|_| TokenizerError::RegexLimit {
                pattern: regex.as_str().chars().take(200).collect(),
            })?;
        let Some(next) = next else { return Ok(()) };
        let (start, end) = (next.start(), next.end());
        if start == end && last_end == Some(end) {
            from += text[from..].chars().next().map_or(1, char::len_utf8);
            continue;
        }
        found(start, end)?;
        from = end;
        last_end = Some(end);
    }
    Ok(())
}
