//! What one step computes, and what came of it.
//!
//! Shapes: T tokens of the batch, S sequences, M blocks of the longest block table, R sampled rows.

use crate::sequence::SequenceKey;

/// One flat batch. All indices refer to the pools given to the scheduler.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Identifies the plan in `commit`.
    pub id: u64,
    /// `[T]` tokens to feed, sequence after sequence; those that feed one token come first.
    pub token_ids: Vec<u32>,
    /// `[T]` absolute position of every token in its sequence.
    pub positions: Vec<i64>,
    /// `[S + 1]` offsets of the sequences in the T tokens.
    pub cu_seqlens: Vec<i32>,
    /// `[S]` context length of every sequence after this step.
    pub seq_lens: Vec<i32>,
    /// `[T]` place of every token in the KV cache: `block * block_size + offset`.
    pub slot_mapping: Vec<i64>,
    /// `[S * M]` block tables, row by row, padded with 0.
    pub block_tables: Vec<i32>,
    /// M.
    pub max_blocks: usize,
    /// `[S]` SSM slot of every sequence.
    pub state_slots: Vec<i64>,
    /// `[S]` whether the slot already holds a state (else it starts from zero).
    pub has_initial_state: Vec<bool>,
    /// `[n, 2]` (source, destination) blocks to copy before the forward; no source is a destination.
    pub block_copies: Vec<[i64; 2]>,
    /// `[m, 2]` (source, destination) slots to copy before the forward; no source is a destination.
    pub slot_copies: Vec<[i64; 2]>,
    /// `[R]` index into the T tokens of every row to sample from.
    pub sample_rows: Vec<i64>,
    /// `[R]` request of every sampled row.
    pub sample_request_ids: Vec<u64>,
    /// `[R]` trace of every sampled row.
    pub sample_traces: Vec<u32>,
    /// `[R]` absolute position of the token to be drawn.
    pub sample_positions: Vec<i64>,
    /// `[R]` number of tokens the trace already has.
    pub sample_output_lens: Vec<i64>,
}

/// What the scheduler remembers of a plan until it is committed.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    pub(crate) id: u64,
    /// Every sequence of the batch and the number of its tokens computed after the step.
    pub(crate) rows: Vec<(SequenceKey, usize)>,
    /// The trace of every sampled row.
    pub(crate) samples: Vec<SequenceKey>,
}

/// Why a trace ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// It said so (end of text, stop string).
    Stop,
    /// It reached `max_tokens`, or the request its `total_tokens`.
    Length,
    /// Its window's confidence fell below the threshold.
    Confidence,
    /// The vote was decided without it.
    Consensus,
    /// The caller ended it.
    Abort,
    /// Its logits or its confidence were not finite.
    Error,
}

impl FinishReason {
    /// Its public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Confidence => "confidence",
            Self::Consensus => "consensus",
            Self::Abort => "abort",
            Self::Error => "error",
        }
    }
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A trace has computed its first step of its own (or ended on its first token).
    Started,
    /// A trace has ended; the reason says why.
    Finished,
    /// The warm-up has fixed the threshold (the value; none if no warm-up trace was complete).
    Threshold,
    /// All traces of the request have ended.
    RequestFinished,
}

impl EventKind {
    /// Its public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Finished => "finished",
            Self::Threshold => "threshold",
            Self::RequestFinished => "request_finished",
        }
    }
}

/// Something the caller must know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Event {
    /// The request.
    pub request_id: u64,
    /// The trace; `None` for events of the whole request.
    pub trace_index: Option<u32>,
    /// What happened.
    pub kind: EventKind,
    /// Why a trace finished.
    pub reason: Option<FinishReason>,
    /// The threshold; the group that fell below it; the share that made the consensus.
    pub value: Option<f64>,
}
