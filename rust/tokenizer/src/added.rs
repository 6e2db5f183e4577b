//! Added tokens: strings cut out of the text before anything else looks at it.

use crate::TokenizerError;
use crate::normalizer::Normalizer;
use crate::spec::AddedTokenSpec;
use crate::vocab::Vocab;
use aho_corasick::{AhoCorasick, MatchKind};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;

/// One added token.
#[expect(clippy::struct_excessive_bools, reason = "the fields of the file")]
pub(crate) struct AddedToken {
    pub(crate) content: String,
    /// What matches: the normal form of the content for `normalized` tokens.
    pattern: String,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    pub(crate) special: bool,
    /// Whether it steers the model, so that untrusted text must not spell it: special tokens, and
    /// those written as tags (`<think>`).
    pub(crate) control: bool,
}

/// A part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'t> {
    Token(u32),
    Text(&'t str),
}

/// Finds tokens, leftmost first, longest of those.
struct Matcher {
    automaton: AhoCorasick,
    ids: Vec<u32>,
}

/// All added tokens of a tokenizer.
pub(crate) struct AddedTokens {
    by_id: BTreeMap<u32, AddedToken>,
    by_content: FxHashMap<String, u32>,
    /// Tokens matched in the text as it comes, and those matched in normalized text.
    raw: Option<Matcher>,
    normalized: Option<Matcher>,
    has_control_normalized: bool,
    /// Ids of control tokens.
    control: FxHashSet<u32>,
}

impl AddedTokens {
    /// Give ids as the reference does: the model's id where the vocabulary has the content, else
    /// the next one from the size of the vocabulary on. The `id` in the file is not asked.
    pub(crate) fn new(
        specs: Vec<AddedTokenSpec>,
        vocab: &Vocab,
        normalizer: &Normalizer,
    ) -> Result<Self, TokenizerError> {
        let mut by_id = BTreeMap::new();
        let mut by_content: FxHashMap<String, u32> = FxHashMap::default();
        let mut special: FxHashSet<String> = FxHashSet::default();
        let mut next_id = vocab.len() as u32;
        for spec in specs.into_iter().filter(|s| !s.content.is_empty()) {
            let known = by_content
                .get(&spec.content)
                .copied()
                .or_else(|| vocab.id(&spec.content));
            let id = known.unwrap_or_else(|| {
                next_id += 1;
                next_id - 1
            });
            if spec.special {
                special.insert(spec.content.clone());
            }
            let normalized = spec.normalized.unwrap_or(!spec.special);
            let pattern = if normalized {
                normalizer.apply(&spec.content)?.into_owned()
            } else {
                spec.content.clone()
            };
            by_content.insert(spec.content.clone(), id);
            by_id.insert(
                id,
                AddedToken {
                    control: special.contains(&spec.content) || is_tag(&spec.content),
                    special: special.contains(&spec.content),
                    content: spec.content,
                    pattern,
                    single_word: spec.single_word,
                    lstrip: spec.lstrip,
                    rstrip: spec.rstrip,
                    normalized,
                },
            );
        }
        Ok(Self {
            raw: Matcher::new(&by_id, false)?,
            normalized: Matcher::new(&by_id, true)?,
            has_control_normalized: by_id
                .values()
                .any(|t: &AddedToken| t.control && t.normalized),
            control: by_id
                .iter()
                .filter(|(_, token)| token.control)
                .map(|(id, _)| *id)
                .collect(),
            by_id,
            by_content,
        })
    }

    /// The added token with `id`.
    pub(crate) fn get(&self, id: u32) -> Option<&AddedToken> {
        self.by_id.get(&id)
    }

    /// The id of an added token.
    pub(crate) fn id(&self, content: &str) -> Option<u32> {
        self.by_content.get(content).copied()
    }

    /// Whether `id` is a control token.
    pub(crate) fn is_control(&self, id: u32) -> bool {
        self.control.contains(&id)
    }

    /// All added tokens in order of id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &AddedToken)> {
        self.by_id.iter().map(|(id, token)| (*id, token))
    }

    /// Whether trust of a text can only be kept by normalizing its parts one by one.
    pub(crate) fn has_control_normalized(&self) -> bool {
        self.has_control_normalized
    }

    /// Cut tokens of text that is not normalized yet.
    pub(crate) fn cut_raw<'t>(&self, text: &'t str, control: bool, parts: &mut Vec<Part<'t>>) {
        self.cut(self.raw.as_ref(), text, control, parts);
    }

    /// Cut tokens of normalized text.
    pub(crate) fn cut_normalized<'t>(
        &self,
        text: &'t str,
        control: bool,
        parts: &mut Vec<Part<'t>>,
    ) {
        self.cut(self.normalized.as_ref(), text, control, parts);
    }

    /// As the reference: a match that does not count (part of a word, or control where control
    /// tokens are not allowed) is text, and the search goes on behind it.
    fn cut<'t>(
        &self,
        matcher: Option<&Matcher>,
        text: &'t str,
        control: bool,
        parts: &mut Vec<Part<'t>>,
    ) {
        let mut done = 0;
        for found in matcher.iter().flat_map(|m| m.automaton.find_iter(text)) {
            let Some(id) = matcher.and_then(|m| m.ids.get(found.pattern().as_usize())) else {
                continue;
            };
            let token = &self.by_id[id];
            let (mut start, mut end) = (found.start(), found.end());
            if token.control && !control {
                continue;
            }
            if token.single_word {
                let before = text[..start].chars().next_back();
                let after = text[end..].chars().next();
                if before.is_some_and(is_word) || after.is_some_and(is_word) {
                    continue;
                }
            }
            if token.lstrip {
                start = text[..start].trim_end().len().max(done);
            }
            if token.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            if done < start {
                parts.push(Part::Text(&text[done..start]));
            }
            parts.push(Part::Token(*id));
            done = end;
        }
        if done < text.len() {
            parts.push(Part::Text(&text[done..]));
        }
    }
}

fn is_tag(content: &str) -> bool {
    content.len() > 2 && content.starts_with('<') && content.ends_with('>')
}

/// `\w` of the reference.
fn is_word(c: char) -> bool {
    regex_syntax::try_is_word_character(c).unwrap_or_else(|_| c.is_alphanumeric())
}

impl Matcher {
    fn new(
        tokens: &BTreeMap<u32, AddedToken>,
        normalized: bool,
    ) -> Result<Option<Self>, TokenizerError> {
        let mut seen = FxHashSet::default();
        let (ids, patterns): (Vec<u32>, Vec<&str>) = tokens
            .iter()
            .filter(|(_, t)| t.normalized == normalized && !t.pattern.is_empty())
            .filter(|(_, t)| seen.insert(t.pattern.as_str()))
            .map(|(id, t)| (*id, t.pattern.as_str()))
            .unzip();
        if ids.is_empty() {
            return Ok(None);
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(patterns)
            .map_err(|e| TokenizerError::Inconsistent(format!("added_tokens: {e}")))?;
        Ok(Some(Self { automaton, ids }))
    }
}
