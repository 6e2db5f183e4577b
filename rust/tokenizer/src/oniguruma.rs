//! Expressions in Oniguruma's syntax, written so that the engine here reads them alike.

use crate::TokenizerError;
use crate::spec::unsupported;
use regex_syntax::hir::{Class, Hir, HirKind};

/// `\w` of Oniguruma: unlike elsewhere, the superscripts and fractions of Latin-1 are in ...
const WORD: &str = r"[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}²³¹¼½¾]";
const NOT_WORD: &str = r"[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}²³¹¼½¾]";
/// ... but not inside brackets.
const WORD_IN_BRACKETS: &str = r"\p{Alphabetic}\p{M}\p{Nd}\p{Pc}";
const NOT_WORD_IN_BRACKETS: &str = r"[^\p{Alphabetic}\p{M}\p{Nd}\p{Pc}]";
/// Categories that differ between a letter and its other case: Oniguruma does not fold them.
const CASED: [&str; 9] = [
    "lu",
    "ll",
    "lt",
    "upper",
    "lower",
    "uppercase",
    "lowercase",
    "uppercaseletter",
    "lowercaseletter",
];
/// What cannot be rewritten.
const UNUSUAL_BEHIND: &str =
    "in a look behind, possessive or lazy quantifiers, atomic groups and looks behind are not";
const SEVERAL_LETTERS: &str = "several letters that are one without case are not";

/// Rewrite what Oniguruma reads otherwise than the engine here.
///
/// # Errors
/// `Unsupported` for a POSIX class other than `punct`, `space` and `digit`, for the properties
/// `Print` and `Graph`, for comments and extended mode, for hyphens before an operator in brackets, for unusual
/// looks behind, and where cases are ignored in a way that the engine does not know.
pub(crate) fn rewrite(text: &str) -> Result<String, TokenizerError> {
    let mut reader = Reader {
        rest: text,
        out: String::with_capacity(text.len()),
        brackets: Vec::new(),
        groups: vec![Group::default()],
        letters: String::new(),
        quantified: false,
        together: Vec::new(),
    };
    while let Some(c) = reader.rest.chars().next() {
        match (c, reader.brackets.is_empty()) {
            ('\\', _) => reader.escape()?,
            ('[', _) => reader.open_bracket()?,
            (']', false) => reader.close_bracket()?,
            ('-' | '~', false) => reader.operator(c)?,
            // No line begins behind the last line's end.
            ('^', true) => reader.rewrite(1, r"(?:^(?!\z)|\A)"),
            ('(', true) => reader.open_group()?,
            (')', true) => reader.close_group(),
            _ => reader.literal(c, c.len_utf8())?,
        }
    }
    while !reader.groups.is_empty() {
        reader.close_options();
    }
    Ok(reader.out)
}

/// The spelling that all spellings of a letter share without case.
fn fold(c: char) -> impl Iterator<Item = char> {
    let upper = c.to_lowercase().flat_map(char::to_uppercase);
    upper.flat_map(char::to_lowercase)
}

/// Letters that without case are several, in order, and their spellings: "ß" is "ss".
fn together() -> Vec<(char, String)> {
    // The last of them are the ligatures of Armenian.
    let all = ('\u{80}'..='\u{fb17}').filter(|&c| fold(c).nth(1).is_some());
    all.map(|c| (c, fold(c).collect())).collect()
}

/// Where a word begins or ends ("!", "="), or where none does ("=", "!").
fn boundary(behind_word: char, behind_other: char) -> String {
    format!("(?:(?<={WORD})(?{behind_word}{WORD})|(?<!{WORD})(?{behind_other}{WORD}))")
}

/// An open group, or the whole expression.
#[derive(Clone, Copy, Default)]
struct Group {
    /// Cases are ignored.
    folds: bool,
    /// It only groups: letters at its ends are in a row with those around it.
    is_plain: bool,
    /// It looks behind, or is inside of one that does.
    behind: bool,
    /// Groups opened inside it for options that reach to its end.
    options: usize,
}

/// An open bracket.
#[derive(Clone, Copy)]
struct Bracket {
    /// Where it begins in the output.
    start: usize,
    /// Where its first member does.
    first: usize,
    negated: bool,
}

/// The character that an escape stands for, and the length of the escape.
fn escaped(text: &str) -> Option<(char, usize)> {
    let code = |digits: &str| {
        u32::from_str_radix(digits, 16)
            .ok()
            .and_then(char::from_u32)
    };
    let rest = &text[1..];
    if let Some(digits) = rest.strip_prefix("x{") {
        let (digits, _) = digits.split_once('}')?;
        return Some((code(digits)?, 4 + digits.len()));
    }
    match rest.chars().next()? {
        'x' => Some((code(rest.get(1..3)?)?, 4)),
        'u' => Some((code(rest.get(1..5)?)?, 6)),
        c if !c.is_ascii_alphanumeric() => Some((c, 1 + c.len_utf8())),
        _ => None,
    }
}

struct Reader<'t> {
    rest: &'t str,
    out: String,
    brackets: Vec<Bracket>,
    /// The expression, and every open group.
    groups: Vec<Group>,
    /// Letters in a row, as far as cases are ignored, without case.
    letters: String,
    /// A quantifier was read last.
    quantified: bool,
    /// Filled when cases are ignored.
    together: Vec<(char, String)>,
}

impl Reader<'_> {
    fn copy(&mut self, len: usize) {
        self.letters.clear();
        self.put(len, None);
    }

    fn rewrite(&mut self, len: usize, instead: &str) {
        self.letters.clear();
        self.put(len, Some(instead));
    }

    /// Pass `len` bytes over and write them, or something else instead.
    fn put(&mut self, len: usize, instead: Option<&str>) {
        let (taken, rest) = self.rest.split_at(len);
        self.out.push_str(instead.unwrap_or(taken));
        self.rest = rest;
        self.quantified = false;
    }

    fn group(&self) -> Group {
        self.groups.last().copied().unwrap_or_default()
    }

    fn folds(&self) -> bool {
        self.group().folds
    }

    /// A character that stands for itself, written with `len` bytes.
    fn literal(&mut self, c: char, len: usize) -> Result<(), TokenizerError> {
        if self.brackets.is_empty() && self.folds() {
            self.letters.extend(fold(c));
            let is_several = fold(c).nth(1).is_some();
            if is_several || self.ends_together() {
                return Err(refused(&self.letters, SEVERAL_LETTERS));
            }
        }
        let quantifies = self.brackets.is_empty() && len == 1 && "*+?}".contains(c);
        let again = quantifies && self.quantified;
        if again && self.group().behind {
            return Err(self.refuse(UNUSUAL_BEHIND));
        }
        self.put(len, None);
        self.quantified = quantifies && !again;
        Ok(())
    }

    fn ends_together(&self) -> bool {
        let mut several = self.together.iter();
        several.any(|(_, letters)| self.letters.ends_with(letters.as_str()))
    }

    fn escape(&mut self) -> Result<(), TokenizerError> {
        if let Some((c, len)) = escaped(self.rest) {
            return self.literal(c, len);
        }
        self.letters.clear();
        let len = 1 + self.rest[1..].chars().next().map_or(0, char::len_utf8);
        let instead = match (&self.rest[..len], !self.brackets.is_empty()) {
            (r"\p" | r"\P", _) => return self.property(),
            (r"\w", true) => Some(WORD_IN_BRACKETS.to_owned()),
            (r"\W", true) => Some(NOT_WORD_IN_BRACKETS.to_owned()),
            (r"\w", false) => Some(WORD.to_owned()),
            (r"\W", false) => Some(NOT_WORD.to_owned()),
            (r"\b", false) => Some(boundary('!', '=')),
            (r"\B", false) => Some(boundary('=', '!')),
            // Before one line's end, not before several.
            (r"\Z", false) => Some(r"(?=\n?\z)".to_owned()),
            _ => None,
        };
        self.put(len, instead.as_deref());
        Ok(())
    }

    fn property(&mut self) -> Result<(), TokenizerError> {
        let named = self.rest[2..]
            .strip_prefix('{')
            .and_then(|s| s.split_once('}'));
        let name = named.map_or("", |(name, _)| name);
        let len = if named.is_some() { 4 + name.len() } else { 2 };
        let negated = self.rest.starts_with(r"\P") != name.starts_with('^');
        let is_sign = |c: &char| !matches!(c, ' ' | '_' | '-' | '^');
        let plain: String = name.to_lowercase().chars().filter(is_sign).collect();
        let is_cased = self.folds() && CASED.contains(&plain.as_str());
        let instead = match (plain.as_str(), negated, !self.brackets.is_empty()) {
            ("word", false, false) => Some(WORD.to_owned()),
            ("word", true, false) => Some(NOT_WORD.to_owned()),
            ("word", false, true) => Some(WORD_IN_BRACKETS.to_owned()),
            ("word", true, true) => Some(NOT_WORD_IN_BRACKETS.to_owned()),
            ("print" | "graph", ..) => {
                return Err(self.refuse("the properties Print and Graph are not"));
            }
            (_, _, true) if is_cased => {
                return Err(self.refuse("categories of case in brackets, without case, are not"));
            }
            _ if is_cased => Some(format!("(?-i:{})", &self.rest[..len])),
            _ => None,
        };
        self.put(len, instead.as_deref());
        Ok(())
    }

    fn open_bracket(&mut self) -> Result<(), TokenizerError> {
        self.letters.clear();
        let name = self
            .rest
            .strip_prefix("[:")
            .filter(|_| !self.brackets.is_empty());
        let name = name.and_then(|s| s.split_once(":]")).map(|(name, _)| name);
        let is_name = |s: &&str| s.trim_start_matches('^').chars().all(char::is_alphabetic);
        if let Some(name) = name.filter(is_name) {
            let instead = match name {
                "punct" => r"\p{P}\p{S}",
                "space" => r"\s",
                "digit" => r"\d",
                _ => {
                    return Err(
                        self.refuse("of POSIX classes only [:punct:], [:space:] and [:digit:] are")
                    );
                }
            };
            self.put(name.len() + 4, Some(instead));
            return Ok(());
        }
        let start = self.out.len();
        let negated = self.rest[1..].starts_with('^');
        let outer_negated = self.brackets.last().map(|outer| outer.negated);
        if self.folds() && outer_negated.is_some_and(|outer| outer || negated) {
            return Err(self.refuse("brackets in brackets, negated and without case, are not"));
        }
        self.put(1 + usize::from(negated), None);
        self.brackets.push(Bracket {
            start,
            first: self.out.len(),
            negated,
        });
        self.put(usize::from(self.rest.starts_with(']')), None); // the first is no end
        Ok(())
    }

    /// Without case, brackets that hold "ß" hold "ss" too, which the engine does not know.
    fn close_bracket(&mut self) -> Result<(), TokenizerError> {
        self.copy(1);
        let closed = self.brackets.pop();
        let Some(outer) = closed.filter(|_| self.brackets.is_empty() && self.folds()) else {
            return Ok(());
        };
        if outer.negated {
            return Ok(());
        }
        let holds_none =
            |holds: &dyn Fn(char) -> bool| !self.together.iter().any(|(c, _)| holds(*c));
        let parsed = regex_syntax::parse(&self.out[outer.start..]);
        let is_known = match parsed.as_ref().map(Hir::kind) {
            Ok(HirKind::Class(Class::Unicode(class))) => {
                holds_none(&|c| class.iter().any(|r| r.start() <= c && c <= r.end()))
            }
            Ok(HirKind::Literal(one)) => {
                holds_none(&|c| *one.0 == *c.encode_utf8(&mut [0; 4]).as_bytes())
            }
            _ => false,
        };
        if is_known {
            return Ok(());
        }
        Err(refused(
            &self.out[outer.start..],
            "brackets with a letter that is several without case are not",
        ))
    }

    /// Signs that are operators inside brackets to the engine alone.
    fn operator(&mut self, c: char) -> Result<(), TokenizerError> {
        let is_first = self
            .brackets
            .last()
            .is_some_and(|b| b.first == self.out.len());
        let instead = match c {
            '~' => Some(r"\~"),
            _ if is_first => Some(r"\-"),
            _ if ["--", "-[", "-&&"].iter().any(|s| self.rest.starts_with(s)) => {
                return Err(
                    self.refuse("in brackets, a hyphen before a hyphen, a bracket or && is not")
                );
            }
            _ => None,
        };
        self.put(1, instead);
        Ok(())
    }

    fn open_group(&mut self) -> Result<(), TokenizerError> {
        let is_plain = self.rest.starts_with("(?:");
        if !is_plain {
            self.letters.clear();
        }
        let flags = self.rest.strip_prefix("(?").unwrap_or_default();
        let len = flags.bytes().take_while(|b| b"imx-".contains(b)).count();
        let (flags, end) = (&flags[..len], flags.as_bytes().get(len));
        let (on, off) = flags.split_once('-').unwrap_or((flags, ""));
        if end == Some(&b'#') || on.contains('x') {
            return Err(self.refuse("comments and extended mode are not"));
        }
        let outer = self.group();
        let looks_behind = ["(?<=", "(?<!"].iter().any(|s| self.rest.starts_with(s));
        if outer.behind && (looks_behind || self.rest.starts_with("(?>")) {
            return Err(self.refuse(UNUSUAL_BEHIND));
        }
        let mut group = Group {
            is_plain,
            behind: outer.behind || looks_behind,
            options: 0,
            ..outer
        };
        if len == 0 || !matches!(end, Some(b':' | b')')) {
            self.groups.push(group);
            self.put(1, None);
            return Ok(());
        }
        group.folds = (outer.folds || on.contains('i')) && !off.contains('i');
        if group.folds && self.together.is_empty() {
            self.together = together();
        }
        // Options alone reach to the end of the group, over every alternative: `a(?i)b|c` is
        // `a(?i:b|c)`. And "m" is that a point is also a line's end.
        let instead = format!("(?{}:", flags.replace('m', "s"));
        self.put(3 + len, Some(&instead));
        match self.groups.last_mut() {
            Some(open) if end == Some(&b')') => {
                open.folds = group.folds;
                open.options += 1;
            }
            _ => self.groups.push(group),
        }
        Ok(())
    }

    fn close_group(&mut self) {
        if !self.group().is_plain {
            self.letters.clear();
        }
        if self.groups.len() > 1 {
            self.close_options();
        }
        self.put(1, None);
    }

    fn close_options(&mut self) {
        let options = self.groups.pop().map_or(0, |group| group.options);
        self.out.extend(std::iter::repeat_n(')', options));
    }

    fn refuse(&self, what: &'static str) -> TokenizerError {
        refused(self.rest, what)
    }
}

fn refused(part: &str, what: &'static str) -> TokenizerError {
    unsupported("regular expression", part, what)
}
