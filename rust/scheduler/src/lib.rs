//! What runs where, at every step. No tensors, no I/O, no clock, no randomness.
#![forbid(unsafe_code)]
