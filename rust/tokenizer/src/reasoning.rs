//! Reasoning-aware tokens: logic, maths and LaTeX symbols as single tokens, beside the base ids.

use crate::TokenizerError;
use crate::alphabet;
use crate::symbols::{LATEX_COMMANDS, UNICODE_SYMBOLS};
use crate::tokenizer::Tokenizer;
use rustc_hash::FxHashSet;
use serde_json::{Value, json};

/// Characters a symbol may have.
const MAX_SYMBOL: usize = 64;
/// Symbols a call may add.
const MAX_SYMBOLS: usize = 20_000;

/// The symbols added by default: Unicode characters, then LaTeX commands.
pub fn reasoning_symbols() -> Vec<String> {
    let commands = LATEX_COMMANDS
        .split_whitespace()
        .map(|name| format!("\\{name}"));
    UNICODE_SYMBOLS
        .split_whitespace()
        .map(str::to_owned)
        .chain(commands)
        .collect()
}

impl Tokenizer {
    /// A tokenizer in which each symbol, and each with a space before it, is one token.
    ///
    /// `None` takes [`reasoning_symbols`]. Base ids stay as they are and new ones follow the last.
    /// A symbol that is one token already is left alone. The new tokens are ordinary added tokens
    /// of the file, so that the reference loads it with the same ids; a few Latin-1 symbols, which
    /// are letters of the byte alphabet and cannot be added tokens, become a merge of their bytes.
    ///
    /// # Errors
    /// `Argument` for an empty, over-long or ASCII symbol that is no LaTeX command (those lengthen
    /// text); for a symbol that this tokenizer's pre-tokenizer cuts in two.
    pub fn extend_for_reasoning(&self, symbols: Option<&[String]>) -> Result<Self, TokenizerError> {
        let defaults = symbols
            .is_none()
            .then(reasoning_symbols)
            .unwrap_or_default();
        let symbols = symbols.unwrap_or(&defaults);
        check(symbols)?;
        let mut file: Value = serde_json::from_str(self.json())
            .map_err(|e| TokenizerError::Json(TokenizerError::one_line(&e)))?;
        self.pin_added(&mut file);
        let mut next_id = self.vocab_size();
        let mut seen: FxHashSet<String> = FxHashSet::default();
        for symbol in symbols {
            let twin = format!(" {symbol}");
            let is_lacking = !self.is_one_token(symbol)?;
            // An added token is cut out first, so it would take the twin of BPE its symbol.
            let twin_is_lacking = is_lacking && !is_letters(symbol) || !self.is_one_token(&twin)?;
            for (form, is_lacking) in [(symbol.clone(), is_lacking), (twin, twin_is_lacking)] {
                if !is_lacking || !seen.insert(form.clone()) {
                    continue;
                }
                if let Some(id) = self.token_to_id(&form).filter(|_| !is_letters(&form)) {
                    // The vocabulary has it, but no merge reaches it.
                    push_added(&form, id, &mut file);
                    continue;
                }
                if is_letters(&form) {
                    Self::add_merge(&form, next_id, &mut file)?;
                } else {
                    insert_token(&form, next_id, &mut file);
                    push_added(&form, next_id, &mut file);
                }
                next_id += 1;
            }
        }
        let extended = Self::from_json(&file.to_string())?;
        for symbol in symbols {
            for form in [symbol.clone(), format!(" {symbol}")] {
                if !extended.is_one_token(&form)? {
                    return Err(TokenizerError::Argument(format!(
                        "{form:?} cannot be one token: the pre_tokenizer of this file cuts it"
                    )));
                }
            }
        }
        Ok(extended)
    }

    fn is_one_token(&self, text: &str) -> Result<bool, TokenizerError> {
        let ids = self.encode(text, false)?;
        Ok(ids.len() == 1 && self.decode(&ids, false)? == text)
    }

    /// Write added tokens that are not in the model's vocabulary into it, with their ids: their ids
    /// follow from the vocabulary's size, which is about to change.
    fn pin_added(&self, file: &mut Value) {
        for (content, id) in self.added_tokens() {
            insert_token(content, id, file);
        }
    }

    /// Make a two-byte character one token of the model, of the lowest priority.
    fn add_merge(symbol: &str, id: u32, file: &mut Value) -> Result<(), TokenizerError> {
        let mut letters = String::new();
        alphabet::push_letters(symbol.as_bytes(), &mut letters);
        let parts: Vec<String> = letters.chars().map(String::from).collect();
        let [left, right] = parts.as_slice() else {
            return Err(TokenizerError::Argument(format!(
                "{symbol:?} is spelled in letters of the byte alphabet: give one character"
            )));
        };
        let in_pairs = file["model"]["merges"].get(0).is_some_and(Value::is_array);
        let merge = if in_pairs {
            json!([left, right])
        } else {
            json!(format!("{left} {right}"))
        };
        if let Some(merges) = file["model"]["merges"].as_array_mut() {
            merges.push(merge);
        }
        insert_token(&letters, id, file);
        Ok(())
    }
}

/// Whether the vocabulary would take this for letters of other bytes.
fn is_letters(symbol: &str) -> bool {
    !symbol.is_ascii() && alphabet::spelled_bytes(symbol).is_some()
}

fn check(symbols: &[String]) -> Result<(), TokenizerError> {
    if symbols.len() > MAX_SYMBOLS {
        return Err(TokenizerError::Argument(format!(
            "{} symbols were given: at most {MAX_SYMBOLS}",
            symbols.len()
        )));
    }
    for symbol in symbols {
        let is_command = symbol
            .strip_prefix('\\')
            .is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphabetic()));
        let reason = if symbol.chars().any(char::is_whitespace) || symbol.is_empty() {
            "is empty or holds a space"
        } else if symbol.chars().count() > MAX_SYMBOL {
            "is too long"
        } else if symbol.is_ascii() && !is_command {
            "is ASCII, which lengthens text, and no LaTeX command"
        } else {
            continue;
        };
        return Err(TokenizerError::Argument(format!(
            "symbol {symbol:?} {reason}: leave it out"
        )));
    }
    Ok(())
}

fn insert_token(token: &str, id: u32, file: &mut Value) {
    if let Some(vocab) = file["model"]["vocab"].as_object_mut() {
        vocab.entry(token).or_insert(json!(id));
    }
}

fn push_added(content: &str, id: u32, file: &mut Value) {
    let token = json!({
        "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": false,
    });
    if !file["added_tokens"].is_array() {
        file["added_tokens"] = json!([]);
    }
    if let Some(tokens) = file["added_tokens"].as_array_mut() {
        tokens.push(token);
    }
}
