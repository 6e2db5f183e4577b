//! CPU kernels on raw slices, each with a scalar oracle beside it.
//!
//! Row invariance: every output row's bits depend on that row and its sequence's past only,
//! never on the batch, the chunking or the number of threads.

// Generic vector code must be inlined into the function compiled for the CPU (see `simd`).
#![allow(clippy::inline_always)]
// Loops run over several arrays of one length at once.
#![allow(clippy::needless_range_loop)]

mod batch;
mod bf16;
mod error;
mod linear;
mod pool;
mod rows;
mod scan;
mod simd;
#[cfg(test)]
mod testing;
pub mod train;
mod train_attention;
mod train_conv;
mod train_gemm;
mod train_rows;
mod train_ssd;
mod train_vector;

pub use batch::Sequences;
pub use bf16::Bf16;
pub use error::KernelError;
pub use linear::{Epilogue, bf16_path, linear_bf16, linear_f32};
pub use pool::{num_threads, set_num_threads};
pub use rows::{Rows, RowsMut};
pub use scan::{ScanInputs, ssd_scan_slots};
pub use simd::{Element, Level};
