//! CPU kernels on raw slices, each with a scalar oracle beside it.
//!
//! Row invariance: every output row's bits depend on that row and its sequence's past only,
//! never on the batch, the chunking or the number of threads.

// Generic vector code must be inlined into the function compiled for the CPU (see `simd`).
#![allow(clippy::inline_always)]
// Loops run over several arrays of one length at once.
#![allow(clippy::needless_range_loop)]

mod attention;
mod batch;
mod bf16;
mod conv;
mod copy;
mod denormals;
mod error;
mod layer;
mod linear;
pub mod noise;
mod pool;
mod rope;
mod rows;
mod rowwise;
mod sample;
mod scan;
mod simd;
#[cfg(test)]
mod testing;
pub mod train;
mod train_attention;
mod train_conv;
mod train_gemm;
mod train_matmul;
mod train_rows;
mod train_ssd;
mod train_ssd_backward;
mod train_ssd_parts;
mod train_vector;

pub use attention::{PagedCache, paged_attention};
pub use batch::Sequences;
pub use bf16::Bf16;
pub use conv::{ConvInputs, causal_conv1d_slots};
pub use copy::{copy_rows, write_rows};
pub use error::KernelError;
pub use layer::{
    LayerBatch, LayerSettings, LayerSizes, LayerState, LayerWeights, Projection, layer,
};
pub use linear::{Epilogue, LinearElement, Product, bf16_path, linear, linear_many};
pub use pool::{num_threads, set_num_threads};
pub use rope::rope;
pub use rows::{Rows, RowsMut};
pub use rowwise::{GatedNorm, add_rows, decay_rate, gated_rms_norm, rms_norm, softplus_dt, swiglu};
pub use sample::{Confidence, SampleInputs, SampleOutputs, sample_with_confidence};
pub use scan::{ScanInputs, ssd_scan_slots};
pub use simd::{Element, Level};
