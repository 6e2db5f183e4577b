//! `falcon_h1r._rust`: converts and raises, decides nothing.

// PyO3 hands arguments over by value, and keyword arguments one by one.
#![allow(clippy::needless_pass_by_value, clippy::too_many_arguments)]

mod error;
mod kernels;
mod kernels_train;
mod scheduler;
mod tokenizer;

use pyo3::prelude::*;

#[pymodule(module = "falcon_h1r", gil_used = false)]
fn _rust(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    tokenizer::register(module)?;
    scheduler::register(module)?;
    kernels::register(module)?;
    kernels_train::register(module)
}
