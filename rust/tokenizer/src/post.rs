//! Post-processors: the special tokens around a text.

use crate::TokenizerError;
use crate::spec::{component_type, fields, unsupported};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

const ALLOWED: &str =
    "ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing and Sequence are";

enum Piece {
    Special(Vec<u32>),
    Text,
}

/// A compiled `post_processor`: what stands around the ids of a single text.
pub(crate) struct PostProcessor {
    /// `None`: the text alone.
    pieces: Option<Vec<Piece>>,
}

#[derive(Deserialize)]
enum PieceSpec {
    Sequence { id: String },
    SpecialToken { id: String },
}

#[derive(Deserialize)]
struct SpecialSpec {
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct TemplateSpec {
    single: Vec<PieceSpec>,
    #[serde(default)]
    special_tokens: HashMap<String, SpecialSpec>,
}

#[derive(Deserialize)]
struct BertSpec {
    sep: (String, u32),
    cls: (String, u32),
}

#[derive(Deserialize)]
struct SequenceSpec {
    processors: Vec<Value>,
}

impl PostProcessor {
    /// Compile the file's `post_processor`.
    pub(crate) fn new(spec: Option<&Value>) -> Result<Self, TokenizerError> {
        let mut pieces = None;
        if let Some(spec) = spec.filter(|s| !s.is_null()) {
            compile(spec, &mut pieces)?;
        }
        Ok(Self { pieces })
    }

    /// Append to `out` what `encode` appends, with the special tokens around it if asked for.
    pub(crate) fn wrap(
        &self,
        add_special_tokens: bool,
        out: &mut Vec<u32>,
        mut encode: impl FnMut(&mut Vec<u32>) -> Result<(), TokenizerError>,
    ) -> Result<(), TokenizerError> {
        let Some(pieces) = &self.pieces else {
            return encode(out);
        };
        for piece in pieces {
            match piece {
                Piece::Text => encode(out)?,
                Piece::Special(ids) if add_special_tokens => out.extend(ids),
                Piece::Special(_) => {}
            }
        }
        Ok(())
    }
}

fn compile(spec: &Value, out: &mut Option<Vec<Piece>>) -> Result<(), TokenizerError> {
    const KIND: &str = "post_processor";
    let pieces = match component_type(KIND, spec)? {
        // It only moves offsets.
        "ByteLevel" => return Ok(()),
        "Sequence" => {
            for part in fields::<SequenceSpec>(KIND, spec)?.processors {
                if component_type(KIND, &part)? == "Sequence" {
                    return Err(unsupported(KIND, "Sequence in a Sequence", ALLOWED));
                }
                compile(&part, out)?;
            }
            return Ok(());
        }
        "BertProcessing" | "RobertaProcessing" => {
            let BertSpec { sep, cls } = fields(KIND, spec)?;
            vec![
                Piece::Special(vec![cls.1]),
                Piece::Text,
                Piece::Special(vec![sep.1]),
            ]
        }
        "TemplateProcessing" => template(fields(KIND, spec)?)?,
        other => return Err(unsupported(KIND, other, ALLOWED)),
    };
    if out.replace(pieces).is_some() {
        return Err(unsupported(
            KIND,
            "Sequence of two that add tokens",
            ALLOWED,
        ));
    }
    Ok(())
}

fn template(spec: TemplateSpec) -> Result<Vec<Piece>, TokenizerError> {
    let mut special = spec.special_tokens;
    let piece = |piece| match piece {
        PieceSpec::Sequence { id } if id == "A" => Ok(Piece::Text),
        PieceSpec::Sequence { id } => Err(TokenizerError::Inconsistent(format!(
            "post_processor TemplateProcessing: sequence {id:?} in a template for one text"
        ))),
        PieceSpec::SpecialToken { id } => match special.get_mut(&id) {
            Some(token) => Ok(Piece::Special(token.ids.clone())),
            None => Err(TokenizerError::Inconsistent(format!(
                "post_processor TemplateProcessing: {id:?} is not among its special_tokens"
            ))),
        },
    };
    spec.single.into_iter().map(piece).collect()
}
