//! Bindings of `falcon-tokenizer`.

use pyo3::prelude::*;

/// Add this crate's classes and functions to the module.
pub(crate) fn register(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
