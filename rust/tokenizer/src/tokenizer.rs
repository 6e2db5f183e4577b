//! The tokenizer: the parts of a file, joined.

use crate::TokenizerError;
use crate::added::{AddedTokens, Part};
use crate::alphabet;
use crate::bpe::{Bpe, Word};
use crate::cache::Scratch;
use crate::decode::{DecodeTable, Decoder, into_text};
use crate::normalizer::Normalizer;
use crate::post::PostProcessor;
use crate::pretokenizer::PreTokenizer;
use crate::spec::FileSpec;
use std::sync::{Arc, Mutex, OnceLock};

/// Scratches kept for later calls; more calls at once make their own.
const MAX_IDLE: usize = 64;

/// A tokenizer loaded from `tokenizer.json`. It never changes; share it between threads freely.
///
/// Its ids are those of Hugging Face `tokenizers` for the same file. Truncation and padding
/// written in a file are kept on saving and not applied.
pub struct Tokenizer {
    json: Arc<str>,
    normalizer: Normalizer,
    splitter: PreTokenizer,
    bpe: Bpe,
    added: AddedTokens,
    post: PostProcessor,
    decoder: Decoder,
    table: OnceLock<DecodeTable>,
    idle: Mutex<Vec<Scratch>>,
}

impl Tokenizer {
    /// Load from the text of a `tokenizer.json`.
    ///
    /// # Errors
    /// `Json`, `Unsupported`, `Inconsistent` or `Regex`, naming the part.
    pub fn from_json(json: &str) -> Result<Self, TokenizerError> {
        let spec = FileSpec::parse(json)?;
        let normalizer = Normalizer::new(spec.normalizer.as_ref())?;
        let splitter = PreTokenizer::new(spec.pre_tokenizer.as_ref())?;
        let post = PostProcessor::new(spec.post_processor.as_ref())?;
        let decoder = Decoder::new(spec.decoder.as_ref())?;
        let bpe = Bpe::new(spec.model)?;
        let added = AddedTokens::new(
            spec.added_tokens.unwrap_or_default(),
            &bpe.vocab,
            &normalizer,
        )?;
        Ok(Self {
            json: json.into(),
            normalizer,
            splitter,
            bpe,
            added,
            post,
            decoder,
            table: OnceLock::new(),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// The text this tokenizer was loaded from.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// How many ids an embedding needs: one more than the highest id.
    pub fn vocab_size(&self) -> u32 {
        let last_added = self.added.iter().last().map_or(0, |(id, _)| id + 1);
        self.bpe.vocab.num_ids().max(last_added)
    }

    /// The id of a token, given as the file writes it (byte-letters for ordinary tokens).
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.added.id(token).or_else(|| self.bpe.vocab.id(token))
    }

    /// The token with `id`, as the file writes it.
    pub fn id_to_token(&self, id: u32) -> Option<&str> {
        match self.added.get(id) {
            Some(token) => Some(&token.content),
            None => self.bpe.vocab.token(id),
        }
    }

    /// Content and id of every added token, in order of id.
    pub(crate) fn added_tokens(&self) -> impl Iterator<Item = (&str, u32)> {
        self.added.iter().map(|(id, t)| (t.content.as_str(), id))
    }

    /// Content and id of every special token, in order of id.
    pub fn special_tokens(&self) -> impl Iterator<Item = (&str, u32)> {
        self.added
            .iter()
            .filter(|(_, t)| t.special)
            .map(|(id, t)| (t.content.as_str(), id))
    }

    /// The ids of `text`; with `add_special_tokens`, also those the post-processor puts around.
    ///
    /// # Errors
    /// `RegexLimit`; `Inconsistent` if an unknown token is needed that the vocabulary lacks.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, TokenizerError> {
        let mut out = Vec::with_capacity(text.len() / 3 + 4);
        self.with_scratch(|scratch| self.encode_into(text, add_special_tokens, scratch, &mut out))?;
        Ok(out)
    }

    /// Content and id of every token that steers the model: special tokens, and added tokens
    /// written as tags (`<think>`), in order of id.
    pub fn control_tokens(&self) -> impl Iterator<Item = (&str, u32)> {
        self.added
            .iter()
            .filter(|(_, t)| t.control)
            .map(|(id, t)| (t.content.as_str(), id))
    }

    /// As [`Self::encode`] of all texts joined, except that control tokens are cut only of the
    /// texts marked `true`: in the others their characters are ordinary text. No added token
    /// reaches across a change of the mark.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_segments(&self, segments: &[(&str, bool)]) -> Result<Vec<u32>, TokenizerError> {
        let mut runs: Vec<(String, bool)> = Vec::new();
        for &(text, special) in segments.iter().filter(|(text, _)| !text.is_empty()) {
            match runs.last_mut() {
                Some(run) if run.1 == special => run.0.push_str(text),
                _ => runs.push((text.to_owned(), special)),
            }
        }
        let mut out = Vec::new();
        self.with_scratch(|scratch| {
            // Text that no token interrupts is one, also across a change of the mark.
            let mut open = String::new();
            // It is trusted if all of it is.
            let mut trusted = true;
            for (text, special) in &runs {
                let mut parts = Vec::new();
                self.added.cut_raw(text, *special, &mut parts);
                if self.added.has_control_normalized() {
                    let text = std::mem::take(&mut open);
                    let special = std::mem::replace(&mut trusted, true);
                    self.encode_text(&text, special, scratch, &mut out)?;
                }
                for part in parts {
                    match part {
                        Part::Text(text) => {
                            open.push_str(text);
                            trusted &= *special;
                        }
                        Part::Token(id) => {
                            let text = std::mem::take(&mut open);
                            let special = std::mem::replace(&mut trusted, true);
                            self.encode_text(&text, special, scratch, &mut out)?;
                            out.push(id);
                        }
                    }
                }
            }
            self.encode_text(&open, trusted, scratch, &mut out)
        })?;
        Ok(out)
    }

    /// Append the ids of `text` to `out`.
    pub(crate) fn encode_into(
        &self,
        text: &str,
        add_special_tokens: bool,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        self.post.wrap(add_special_tokens, out, |out| {
            let mut parts = Vec::new();
            self.added.cut_raw(text, true, &mut parts);
            for part in parts {
                match part {
                    Part::Token(id) => out.push(id),
                    Part::Text(text) => self.encode_text(text, true, scratch, out)?,
                }
            }
            Ok(())
        })
    }

    /// Text between raw added tokens: normalize, cut normalized tokens, split, merge.
    fn encode_text(
        &self,
        text: &str,
        special: bool,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) -> Result<(), TokenizerError> {
        let text = self.normalizer.apply(text)?;
        let mut parts = Vec::new();
        self.added.cut_normalized(&text, special, &mut parts);
        for part in parts {
            match part {
                Part::Token(id) => out.push(id),
                Part::Text(text) => self.splitter.split(text, &mut |word: Word<'_>| {
                    let start = out.len();
                    scratch.encode(&self.bpe, word, out)?;
                    match out[start..] {
                        [id] if !special && self.added.is_control(id) => {
                            // The vocabulary alone may have taken the whole word for it.
                            out.truncate(start);
                            scratch.spell(&self.bpe, word, out)
                        }
                        _ => Ok(()),
                    }
                })?,
            }
        }
        Ok(())
    }

    /// Run with buffers and a word cache of this tokenizer, from the idle ones if there are any.
    ///
    /// Never waits: a lock that another thread holds (or held when this process was forked) only
    /// means fresh buffers.
    pub(crate) fn with_scratch<T>(&self, run: impl FnOnce(&mut Scratch) -> T) -> T {
        let idle = self.idle.try_lock().ok().and_then(|mut idle| idle.pop());
        let mut scratch = idle.unwrap_or_default();
        let result = run(&mut scratch);
        if let Ok(mut idle) = self.idle.try_lock()
            && idle.len() < MAX_IDLE
        {
            idle.push(scratch);
        }
        result
    }

    /// The text of `ids`.
    ///
    /// # Errors
    /// `UnknownId` for an id that names no token.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, TokenizerError> {
        let mut bytes = Vec::with_capacity(4 * ids.len());
        if self.decoder == Decoder::ByteLevel {
            let table = self.table.get_or_init(|| DecodeTable::new(self));
            for &id in ids {
                let Some(token) = table.token(id) else {
                    return Err(self.unknown(id));
                };
                if !(token.is_special && skip_special_tokens) {
                    bytes.extend_from_slice(token.bytes);
                }
            }
        } else {
            let mut is_first = true;
            for &id in ids {
                self.push_token_bytes(id, skip_special_tokens, &mut is_first, &mut bytes)?;
            }
        }
        Ok(into_text(bytes))
    }

    fn unknown(&self, id: u32) -> TokenizerError {
        let last = self.vocab_size().saturating_sub(1);
        TokenizerError::UnknownId { id, last }
    }

    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.added.get(id).is_some_and(|token| token.special)
    }

    /// Append the bytes of one token. Added tokens are their content.
    pub(crate) fn push_token_bytes(
        &self,
        id: u32,
        skip_special_tokens: bool,
        is_first: &mut bool,
        out: &mut Vec<u8>,
    ) -> Result<(), TokenizerError> {
        let added = self.added.get(id);
        if added.is_some_and(|t| t.special && skip_special_tokens) {
            return Ok(());
        }
        let token = added.map_or_else(|| self.bpe.vocab.token(id), |t| Some(&t.content));
        let token = token.ok_or_else(|| self.unknown(id))?;
        if self.decoder == Decoder::Joined {
            if !*is_first {
                out.push(b' ');
            }
            *is_first = false;
            out.extend_from_slice(token.as_bytes());
        } else if added.is_some() {
            out.extend_from_slice(token.as_bytes());
        } else {
            match alphabet::spelled_bytes(token) {
                Some(bytes) => out.extend(bytes),
                None => out.extend_from_slice(token.as_bytes()),
            }
        }
        Ok(())
    }
}
