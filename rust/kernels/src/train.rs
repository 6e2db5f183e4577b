//! Kernels for training small models on a CPU: each operation with its gradient, in f32.
//!
//! Every sum runs in an order fixed by shapes alone, so results do not depend on the number of
//! threads. The oracles are the token-by-token definitions in the tests.

pub use crate::train_attention::{
    Attention, AttentionGrads, attention_backward, attention_forward,
};
pub use crate::train_conv::{Conv, ConvGrads, conv_backward, conv_forward};
pub use crate::train_matmul::{Matmul, Operand, matmul};
pub use crate::train_rows::{
    BLOCK, CrossEntropy, Norm, NormGrads, Rope, Swiglu, cross_entropy_backward,
    cross_entropy_forward, norm_backward, norm_forward, rope, swiglu_backward, swiglu_forward,
};
pub use crate::train_ssd::{Scan, ScanGrads, ssd_backward, ssd_forward};
