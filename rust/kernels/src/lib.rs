//! CPU kernels on raw slices, each with a scalar oracle beside it.
