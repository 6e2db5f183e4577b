//! Everything the scheduler refuses. A refusal changes nothing.

use thiserror::Error;

/// Why a call was refused: what was given, what is allowed, what to do.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SchedulerError {
    /// The scheduler, a policy or a tracker cannot be built from these values.
    #[error("{0}")]
    Config(String),
    /// The request can never run, or no such request or trace exists.
    #[error("{0}")]
    Request(String),
    /// The step protocol (schedule, commit, schedule, ...) was broken.
    #[error("{0}")]
    Protocol(String),
}

/// Result of every fallible call of this crate.
pub type Result<T> = std::result::Result<T, SchedulerError>;

/// Shorthand for a refused request.
pub(crate) fn refused<T>(message: String) -> Result<T> {
    Err(SchedulerError::Request(message))
}

/// Shorthand for a refused configuration.
pub(crate) fn bad_config<T>(message: String) -> Result<T> {
    Err(SchedulerError::Config(message))
}
