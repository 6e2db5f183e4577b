//! Bindings of `falcon-tokenizer`.

use crate::error::TokenizerError;
use falcon_tokenizer as core;
use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyOverflowError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyString};
use std::fmt::Display;
use std::sync::{Arc, Mutex};

/// Text of a Python `str` without a copy, or with U+FFFD for lone surrogates.
enum Text {
    Shared(PyBackedStr),
    Repaired(String),
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        match self {
            Self::Shared(text) => text,
            Self::Repaired(text) => text,
        }
    }
}

fn text(string: &Bound<'_, PyString>) -> PyResult<Text> {
    if let Ok(shared) = PyBackedStr::try_from(string.clone()) {
        return Ok(Text::Shared(shared));
    }
    let bytes = string.call_method1("encode", ("utf-16-le", "surrogatepass"))?;
    let units = bytes.cast::<PyBytes>()?.as_bytes().chunks_exact(2);
    let units = units.map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
    let chars = char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER));
    Ok(Text::Repaired(chars.collect()))
}

fn texts(strings: &[Bound<'_, PyString>]) -> PyResult<Vec<Text>> {
    strings.iter().map(text).collect()
}

fn raise(error: core::TokenizerError) -> PyErr {
    TokenizerError::new_err(error.to_string())
}

/// None instead of Python's error for an integer that no 64 bits hold: no id is so large.
fn in_64_bits<T>(extracted: PyResult<T>) -> PyResult<Option<T>> {
    match extracted {
        Ok(value) => Ok(Some(value)),
        Err(error) => Python::attach(|py| {
            if error.is_instance_of::<PyOverflowError>(py) {
                Ok(None)
            } else {
                Err(error)
            }
        }),
    }
}

fn unknown(id: impl Display) -> PyErr {
    TokenizerError::new_err(format!(
        "token id {id} is unknown: ids are not negative, 32 bit"
    ))
}

fn id(id: i64) -> PyResult<u32> {
    u32::try_from(id).map_err(|_| unknown(id))
}

fn single_id(given: &Bound<'_, PyAny>) -> PyResult<u32> {
    match in_64_bits(given.extract())? {
        Some(number) => id(number),
        None => Err(match given.str() {
            Ok(digits) => unknown(
                digits
                    .to_string_lossy()
                    .chars()
                    .take(64)
                    .collect::<String>(),
            ),
            Err(_) => unknown("of thousands of digits"), // which Python does not write
        }),
    }
}

fn ids(given: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    if let Ok(array) = given.extract::<PyReadonlyArray1<'_, u32>>() {
        return Ok(array.as_array().to_vec());
    }
    if let Ok(array) = given.extract::<PyReadonlyArray1<'_, i64>>() {
        return array.as_array().iter().map(|&i| id(i)).collect();
    }
    match in_64_bits(given.extract::<Vec<i64>>())? {
        Some(numbers) => numbers.into_iter().map(id).collect(),
        None => given.try_iter()?.map(|item| single_id(&item?)).collect(),
    }
}

/// Two numpy arrays: all ids, and where each text's ids start and end.
type Ragged<'py> = (Bound<'py, PyArray1<u32>>, Bound<'py, PyArray1<i64>>);

#[pyclass(subclass, frozen, module = "falcon_h1r._rust")]
struct Tokenizer(Arc<core::Tokenizer>);

#[pymethods]
impl Tokenizer {
    #[new]
    #[pyo3(signature = (json, *_args, **_kwargs))]
    fn new(
        py: Python<'_>,
        json: &Bound<'_, PyString>,
        _args: &Bound<'_, PyAny>,
        _kwargs: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let json = text(json)?;
        let loaded = py
            .detach(|| core::Tokenizer::from_json(json.as_ref()))
            .map_err(raise)?;
        Ok(Self(Arc::new(loaded)))
    }

    #[getter]
    fn vocab_size(&self) -> u32 {
        self.0.vocab_size()
    }

    fn to_json(&self) -> &str {
        self.0.json()
    }

    fn token_to_id(&self, token: &Bound<'_, PyString>) -> PyResult<Option<u32>> {
        Ok(self.0.token_to_id(text(token)?.as_ref()))
    }

    fn id_to_token(&self, token_id: &Bound<'_, PyAny>) -> PyResult<Option<&str>> {
        let token_id = in_64_bits(token_id.extract::<i64>())?;
        let token_id = token_id.and_then(|id| u32::try_from(id).ok());
        Ok(token_id.and_then(|id| self.0.id_to_token(id)))
    }

    fn control_tokens(&self) -> Vec<(&str, u32)> {
        self.0.control_tokens().collect()
    }

    #[pyo3(signature = (symbols = None))]
    fn reasoning_json(
        &self,
        py: Python<'_>,
        symbols: Option<Vec<Bound<'_, PyString>>>,
    ) -> PyResult<String> {
        let symbols: Option<Vec<String>> = symbols
            .map(|given| {
                let owned = |symbol| text(symbol).map(|symbol| symbol.as_ref().to_owned());
                given.iter().map(owned).collect::<PyResult<_>>()
            })
            .transpose()?;
        let extended = py.detach(|| self.0.extend_for_reasoning(symbols.as_deref()));
        Ok(extended.map_err(raise)?.json().to_owned())
    }

    fn special_tokens(&self) -> Vec<(&str, u32)> {
        self.0.special_tokens().collect()
    }

    #[pyo3(signature = (text, add_special_tokens = false))]
    fn encode(
        &self,
        py: Python<'_>,
        text: &Bound<'_, PyString>,
        add_special_tokens: bool,
    ) -> PyResult<Vec<u32>> {
        let text = self::text(text)?;
        py.detach(|| self.0.encode(text.as_ref(), add_special_tokens))
            .map_err(raise)
    }

    #[pyo3(signature = (texts, add_special_tokens = false, num_threads = None))]
    fn encode_batch(
        &self,
        py: Python<'_>,
        texts: Vec<Bound<'_, PyString>>,
        add_special_tokens: bool,
        num_threads: Option<usize>,
    ) -> PyResult<Vec<Vec<u32>>> {
        let texts = self::texts(&texts)?;
        py.detach(|| self.0.encode_batch(&texts, add_special_tokens, num_threads))
            .map_err(raise)
    }

    #[pyo3(signature = (texts, num_threads = None))]
    fn encode_ragged<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<Bound<'py, PyString>>,
        num_threads: Option<usize>,
    ) -> PyResult<Ragged<'py>> {
        let texts = self::texts(&texts)?;
        let result = py.detach(|| self.0.encode_ragged(&texts, num_threads));
        let (ids, offsets) = result.map_err(raise)?;
        Ok((ids.into_pyarray(py), offsets.into_pyarray(py)))
    }

    fn encode_segments(
        &self,
        py: Python<'_>,
        segments: Vec<(Bound<'_, PyString>, bool)>,
    ) -> PyResult<Vec<u32>> {
        let segments: Vec<(Text, bool)> = segments
            .iter()
            .map(|(t, special)| Ok((text(t)?, *special)))
            .collect::<PyResult<_>>()?;
        let segments: Vec<_> = segments
            .iter()
            .map(|(t, special)| (t.as_ref(), *special))
            .collect();
        py.detach(|| self.0.encode_segments(&segments))
            .map_err(raise)
    }

    #[pyo3(signature = (ids, skip_special_tokens = true))]
    fn decode(
        &self,
        py: Python<'_>,
        ids: &Bound<'_, PyAny>,
        skip_special_tokens: bool,
    ) -> PyResult<String> {
        let ids = self::ids(ids)?;
        py.detach(|| self.0.decode(&ids, skip_special_tokens))
            .map_err(raise)
    }

    #[pyo3(signature = (batch, skip_special_tokens = true))]
    fn decode_batch(
        &self,
        py: Python<'_>,
        batch: Vec<Bound<'_, PyAny>>,
        skip_special_tokens: bool,
    ) -> PyResult<Vec<String>> {
        batch
            .iter()
            .map(|ids| self.decode(py, ids, skip_special_tokens))
            .collect()
    }

    #[pyo3(signature = (skip_special_tokens = true))]
    fn decode_stream(&self, skip_special_tokens: bool) -> DecodeStream {
        let stream = Mutex::new(core::DecodeStream::new(skip_special_tokens));
        DecodeStream {
            tokenizer: Arc::clone(&self.0),
            stream,
        }
    }
}

#[pyclass(frozen, module = "falcon_h1r._rust")]
struct DecodeStream {
    tokenizer: Arc<core::Tokenizer>,
    stream: Mutex<core::DecodeStream>,
}

#[pymethods]
impl DecodeStream {
    fn push(&self, token_id: &Bound<'_, PyAny>) -> PyResult<String> {
        let id = single_id(token_id)?;
        let mut stream = self
            .stream
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        stream.push(&self.tokenizer, id).map_err(raise)
    }

    fn flush(&self) -> String {
        self.stream
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .flush()
    }
}

#[pyfunction]
fn reasoning_symbols() -> Vec<String> {
    core::reasoning_symbols()
}

#[pyfunction]
fn render_chat(
    py: Python<'_>,
    template: &Bound<'_, PyString>,
    context: &Bound<'_, PyString>,
) -> PyResult<String> {
    let (template, context) = (text(template)?, text(context)?);
    let (template, context) = (template.as_ref(), context.as_ref());
    let now = |format: &str| {
        Python::attach(|py| {
            let time = py.import("time")?.call_method1("strftime", (format,))?;
            time.extract::<String>()
        })
        .unwrap_or_default()
    };
    py.detach(|| core::render_chat(template, context, now))
        .map_err(raise)
}

/// Add this crate's classes and functions to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Tokenizer>()?;
    module.add_class::<DecodeStream>()?;
    module.add_function(wrap_pyfunction!(reasoning_symbols, module)?)?;
    module.add_function(wrap_pyfunction!(render_chat, module)?)
}
