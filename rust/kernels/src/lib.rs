//! CPU kernels on raw slices, each with a scalar oracle beside it.
//!
//! Row invariance: every output row's bits depend on that row and its sequence's past only,
//! never on the batch, the chunking or the number of threads.

mod bf16;
mod error;
mod linear;
mod pool;
mod rows;
mod simd;
#[cfg(test)]
mod testing;

pub use bf16::Bf16;
pub use error::KernelError;
pub use linear::{bf16_path, linear_bf16, linear_f32};
pub use pool::{num_threads, set_num_threads};
pub use rows::{Rows, RowsMut};
pub use simd::{Element, Level};
