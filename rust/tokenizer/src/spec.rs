//! The shape of `tokenizer.json`, as far as it is read before its parts are compiled.

use crate::TokenizerError;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// The whole file.
#[derive(Deserialize)]
pub(crate) struct FileSpec {
    version: Option<String>,
    #[serde(default)]
    pub(crate) added_tokens: Option<Vec<AddedTokenSpec>>,
    pub(crate) normalizer: Option<Value>,
    pub(crate) pre_tokenizer: Option<Value>,
    pub(crate) post_processor: Option<Value>,
    pub(crate) decoder: Option<Value>,
    pub(crate) model: ModelSpec,
}

/// One entry of `added_tokens`. Its `id` is not read: the reference assigns ids itself.
#[derive(Deserialize, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "the fields of the file")]
pub(crate) struct AddedTokenSpec {
    pub(crate) content: String,
    #[serde(default)]
    pub(crate) single_word: bool,
    #[serde(default)]
    pub(crate) lstrip: bool,
    #[serde(default)]
    pub(crate) rstrip: bool,
    pub(crate) normalized: Option<bool>,
    #[serde(default)]
    pub(crate) special: bool,
}

/// The `model` of the file.
#[derive(Deserialize)]
pub(crate) struct ModelSpec {
    #[serde(rename = "type")]
    kind: Option<String>,
    dropout: Option<f64>,
    pub(crate) unk_token: Option<String>,
    pub(crate) continuing_subword_prefix: Option<String>,
    pub(crate) end_of_word_suffix: Option<String>,
    pub(crate) fuse_unk: Option<bool>,
    pub(crate) byte_fallback: Option<bool>,
    pub(crate) ignore_merges: Option<bool>,
    #[serde(default)]
    pub(crate) vocab: VocabSpec,
    #[serde(default)]
    pub(crate) merges: MergesSpec,
}

/// `model.vocab`: token to id, in the order of the file.
#[derive(Default)]
pub(crate) struct VocabSpec(pub(crate) Vec<(String, u32)>);

/// `model.merges`: pairs of tokens, or strings of two tokens with a space between.
#[derive(Default)]
pub(crate) struct MergesSpec(pub(crate) Vec<(String, String)>);

impl FileSpec {
    /// Parse the file and refuse what no later step could repair.
    pub(crate) fn parse(json: &str) -> Result<Self, TokenizerError> {
        let kind = serde_json::from_str::<Probe>(json)
            .map_err(|e| broken(&e))?
            .model
            .kind;
        if let Some(kind) = kind.filter(|k| k != "BPE") {
            return Err(unsupported("model", &kind, "only BPE is"));
        }
        let spec: Self = serde_json::from_str(json).map_err(|e| broken(&e))?;
        if let Some(version) = spec.version.as_deref().filter(|v| *v != "1.0") {
            return Err(unsupported("version", version, "only 1.0 is"));
        }
        if spec.model.kind.is_none() && spec.model.vocab.0.is_empty() {
            return Err(TokenizerError::Inconsistent(
                "model has neither type nor vocab".into(),
            ));
        }
        if spec.model.dropout.is_some_and(|p| p != 0.0) {
            return Err(unsupported(
                "model",
                "BPE with dropout",
                "dropout must be null or 0",
            ));
        }
        Ok(spec)
    }
}

/// Only the model's type, so that another model is named before its vocabulary is read.
#[derive(Deserialize)]
struct Probe {
    model: ProbeModel,
}

#[derive(Deserialize)]
struct ProbeModel {
    #[serde(rename = "type")]
    kind: Option<String>,
}

fn broken(error: &serde_json::Error) -> TokenizerError {
    TokenizerError::Json(TokenizerError::one_line(error))
}

/// The error for a component that is not implemented.
pub(crate) fn unsupported(kind: &'static str, name: &str, allowed: &'static str) -> TokenizerError {
    // A hostile name must not flood a log.
    let name = name.chars().take(64).collect();
    TokenizerError::Unsupported {
        kind,
        name,
        allowed,
    }
}

/// The `type` of a component, or an error that says where it is missing.
pub(crate) fn component_type<'v>(
    kind: &'static str,
    value: &'v Value,
) -> Result<&'v str, TokenizerError> {
    value
        .get("type")
        .and_then(Value::as_str)
        .ok_or_else(|| TokenizerError::Inconsistent(format!("{kind} without a \"type\"")))
}

/// Read the fields of a component, naming it when they do not fit.
pub(crate) fn fields<T: serde::de::DeserializeOwned>(
    kind: &'static str,
    value: &Value,
) -> Result<T, TokenizerError> {
    serde_json::from_value(value.clone()).map_err(|e| {
        let name = component_type(kind, value).unwrap_or("?");
        let reason = TokenizerError::one_line(&e);
        TokenizerError::Inconsistent(format!("{kind} {name}: {reason}"))
    })
}

impl<'de> Deserialize<'de> for VocabSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = VocabSpec;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map from token to id")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<VocabSpec, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry::<String, u32>()? {
                    entries.push(entry);
                }
                Ok(VocabSpec(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// One merge in either of the two notations.
enum MergeSpec {
    Pair(String, String),
    Comment,
}

impl<'de> Deserialize<'de> for MergeSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneMerge;
        impl<'de> Visitor<'de> for OneMerge {
            type Value = MergeSpec;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"a b\" or [\"a\", \"b\"]")
            }
            fn visit_str<E: serde::de::Error>(self, line: &str) -> Result<MergeSpec, E> {
                if line.starts_with("#version") {
                    return Ok(MergeSpec::Comment);
                }
                match line.split_once(' ') {
                    Some((a, b)) if !b.contains(' ') => Ok(MergeSpec::Pair(a.into(), b.into())),
                    _ => Err(E::custom(format!("merge {line:?} is not two tokens"))),
                }
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<MergeSpec, A::Error> {
                let (a, b) = (seq.next_element()?, seq.next_element()?);
                let (Some(a), Some(b), None) = (a, b, seq.next_element::<IgnoredAny>()?) else {
                    return Err(serde::de::Error::custom("a merge is not two tokens"));
                };
                Ok(MergeSpec::Pair(a, b))
            }
        }
        deserializer.deserialize_any(OneMerge)
    }
}

impl<'de> Deserialize<'de> for MergesSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Merges;
        impl<'de> Visitor<'de> for Merges {
            type Value = MergesSpec;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of merges")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<MergesSpec, A::Error> {
                let mut merges = Vec::new();
                while let Some(merge) = seq.next_element::<MergeSpec>()? {
                    if let MergeSpec::Pair(a, b) = merge {
                        merges.push((a, b));
                    }
                }
                Ok(MergesSpec(merges))
            }
        }
        deserializer.deserialize_seq(Merges)
    }
}
