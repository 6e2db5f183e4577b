//! The Python hierarchy of `falcon_h1r.errors`, raised from Rust: one class per core error enum.

pyo3::import_exception!(falcon_h1r.errors, TokenizerError);
pyo3::import_exception!(falcon_h1r.errors, RequestError);
pyo3::import_exception!(falcon_h1r.errors, ConfigError);
