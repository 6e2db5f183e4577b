//! The one error type of this crate.

/// Why a tokenizer could not be loaded, or text or ids not be converted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// The file is not the JSON of a tokenizer.
    #[error("tokenizer.json is broken: {0}")]
    Json(String),
    /// The file names a component that this crate does not implement.
    #[error("unsupported {kind} {name:?} in tokenizer.json: {allowed}")]
    Unsupported {
        /// Where the component stands, e.g. `pre_tokenizer`.
        kind: &'static str,
        /// The component as the file names it.
        name: String,
        /// What is supported there.
        allowed: &'static str,
    },
    /// The file is well formed but contradicts itself.
    #[error("tokenizer.json is inconsistent: {0}")]
    Inconsistent(String),
    /// A regular expression does not compile.
    #[error("regular expression {pattern:?} in tokenizer.json does not compile: {reason}")]
    Regex {
        /// The pattern as the file gives it.
        pattern: String,
        /// The engine's message, on one line.
        reason: String,
    },
    /// A regular expression gave up on this text (its work limit was reached).
    #[error("regular expression {pattern:?} reached its work limit on this text: shorten the text")]
    RegexLimit {
        /// The pattern as the file gives it.
        pattern: String,
    },
    /// An id that names no token.
    #[error("token id {id} is unknown: ids go from 0 to {last}, with possible gaps")]
    UnknownId {
        /// The id given.
        id: u32,
        /// The highest id there is.
        last: u32,
    },
    /// A chat template that does not compile or does not render.
    #[error("chat template: {0}")]
    Template(String),
    /// Arguments that contradict each other or a limit.
    #[error("{0}")]
    Argument(String),
}

impl TokenizerError {
    /// Fold a foreign message onto one line.
    pub(crate) fn one_line(message: &impl ToString) -> String {
        let text = message.to_string();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}
