//! Byte-level BPE on Hugging Face `tokenizer.json`: exact, and fast.
//!
//! [`Tokenizer::from_json`] compiles a file; [`Tokenizer::encode`] gives the ids that the
//! reference implementation (`tokenizers`) gives; [`Tokenizer::decode`] and [`DecodeStream`] go
//! back. A component that is not implemented is an error that names it, never a guess.

mod added;
mod alphabet;
mod batch;
mod bpe;
mod cache;
mod decode;
mod error;
mod merges;
mod normalizer;
mod oniguruma;
mod pattern;
mod post;
mod pretokenizer;
mod reasoning;
mod scanners;
mod spec;
mod split;
mod symbols;
mod template;
mod tokenizer;
mod unicode;
mod vocab;

pub use decode::DecodeStream;
pub use error::TokenizerError;
pub use reasoning::reasoning_symbols;
pub use template::render_chat;
pub use tokenizer::Tokenizer;
