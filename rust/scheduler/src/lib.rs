//! What runs where, at every step. No tensors, no I/O, no clock, no randomness.
//!
//! The life of a request: [`Scheduler::add_request`] queues it; [`Scheduler::schedule`] gives a
//! [`Plan`] (one flat batch); the engine runs it and hands the sampled tokens to
//! [`Scheduler::commit`], which advances, forks, stops and frees, and says so in [`Event`]s.
//! `DeepConf`'s confidences, thresholds, votes and consensus live in [`confidence`] and [`vote`].
#![forbid(unsafe_code)]

mod admit;
mod audit;
pub mod blocks;
mod commit;
pub mod confidence;
mod deepconf;
pub mod error;
mod layout;
pub mod plan;
pub mod policy;
mod prefix;
mod request;
mod schedule;
mod scheduler;
pub mod sequence;
pub mod slots;
pub mod vote;

pub use commit::{FLAG_ERROR, FLAG_STOP};
pub use confidence::ConfidenceTracker;
pub use error::{Result, SchedulerError};
pub use plan::{Event, EventKind, FinishReason, Plan};
pub use policy::{DeepConfPolicy, Measure, Mode};
pub use scheduler::{Limits, MAX_TRACES, Scheduler, Stats};
pub use vote::Tally;
