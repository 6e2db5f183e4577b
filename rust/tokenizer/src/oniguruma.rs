//! Expressions in Oniguruma's syntax, written so that the engine here reads them alike.

use crate::TokenizerError;
use crate::spec::unsupported;

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
/// Letters that are one character in another spelling ("ß", "ﬁ"), which the engine does not fold.
const FOLDED_TOGETHER: [&str; 5] = ["ss", "ff", "fi", "fl", "st"];

/// Rewrite what Oniguruma reads otherwise than the engine here.
///
/// # Errors
/// `Unsupported` for a POSIX class other than `punct`, `space` and `digit`, for the properties
/// `Print` and `Graph`, and where cases are ignored in a way that the engine does not know.
pub(crate) fn rewrite(text: &str) -> Result<String, TokenizerError> {
    let mut reader = Reader {
        rest: text,
        out: String::with_capacity(text.len()),
        brackets: 0,
        folds: vec![false],
        letters: String::new(),
    };
    while let Some(c) = reader.rest.chars().next() {
        match c {
            '\\' => reader.escape()?,
            '[' => reader.open_bracket()?,
            ']' if reader.brackets > 0 => {
                reader.brackets -= 1;
                reader.copy(1);
            }
            '(' if reader.brackets == 0 => reader.open_group(),
            ')' if reader.brackets == 0 => {
                if reader.folds.len() > 1 {
                    reader.folds.pop();
                }
                reader.copy(1);
            }
            _ => reader.literal(c)?,
        }
    }
    Ok(reader.out)
}

/// Where a word begins or ends ("!", "="), or where none does ("=", "!").
fn boundary(behind_word: char, behind_other: char) -> String {
    format!("(?:(?<={WORD})(?{behind_word}{WORD})|(?<!{WORD})(?{behind_other}{WORD}))")
}

struct Reader<'t> {
    rest: &'t str,
    out: String,
    /// Depth of brackets.
    brackets: usize,
    /// Whether cases are ignored, in every open group.
    folds: Vec<bool>,
    /// Letters in a row, as far as cases are ignored.
    letters: String,
}

impl Reader<'_> {
    fn copy(&mut self, len: usize) {
        self.letters.clear();
        self.put(len, None);
    }

    /// Pass `len` bytes over and write them, or something else instead.
    fn put(&mut self, len: usize, instead: Option<&str>) {
        let (taken, rest) = self.rest.split_at(len);
        self.out.push_str(instead.unwrap_or(taken));
        self.rest = rest;
    }

    fn folds(&self) -> bool {
        self.folds.last().is_some_and(|folds| *folds)
    }

    fn literal(&mut self, c: char) -> Result<(), TokenizerError> {
        if self.brackets == 0 && self.folds() {
            self.letters.extend(c.to_lowercase());
            let together = FOLDED_TOGETHER.iter().any(|s| self.letters.ends_with(s));
            if together || c.to_uppercase().count() > 1 || c.to_lowercase().count() > 1 {
                return Err(self.refuse("several letters that are one without case are not"));
            }
        }
        self.put(c.len_utf8(), None);
        Ok(())
    }

    fn escape(&mut self) -> Result<(), TokenizerError> {
        self.letters.clear();
        let len = 1 + self.rest[1..].chars().next().map_or(0, char::len_utf8);
        let instead = match (&self.rest[..len], self.brackets > 0) {
            (r"\p" | r"\P", _) => return self.property(),
            (r"\w", true) => Some(WORD_IN_BRACKETS.to_owned()),
            (r"\W", true) => Some(NOT_WORD_IN_BRACKETS.to_owned()),
            (r"\w", false) => Some(WORD.to_owned()),
            (r"\W", false) => Some(NOT_WORD.to_owned()),
            (r"\b", false) => Some(boundary('!', '=')),
            (r"\B", false) => Some(boundary('=', '!')),
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
        let instead = match (plain.as_str(), negated, self.brackets > 0) {
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
        let name = self.rest.strip_prefix("[:").filter(|_| self.brackets > 0);
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
        self.brackets += 1;
        let mut len = 1 + usize::from(self.rest[1..].starts_with('^'));
        len += usize::from(self.rest[len..].starts_with(']')); // the first is no end
        self.put(len, None);
        Ok(())
    }

    fn open_group(&mut self) {
        self.letters.clear();
        let flags = self.rest.strip_prefix("(?").unwrap_or_default();
        let len = flags.bytes().take_while(|b| b"imx-".contains(b)).count();
        let (flags, end) = (&flags[..len], flags.as_bytes().get(len));
        if len == 0 || !matches!(end, Some(b':' | b')')) {
            self.folds.push(self.folds());
            return self.put(1, None);
        }
        let (on, off) = flags.split_once('-').unwrap_or((flags, ""));
        let folds = (self.folds() || on.contains('i')) && !off.contains('i');
        match end {
            Some(b':') => self.folds.push(folds),
            _ => *self.folds.last_mut().expect("one at least") = folds,
        }
        // Its "m" is that a point is also a line's end.
        let instead = format!("(?{}", flags.replace('m', "s"));
        self.put(2 + len, Some(&instead));
        if end == Some(&b')') {
            self.put(1, None);
        }
    }

    fn refuse(&self, what: &'static str) -> TokenizerError {
        unsupported("regular expression", self.rest, what)
    }
}
