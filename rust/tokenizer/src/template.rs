//! Chat templates: Jinja as the hub's models use it, with limits on the work it may do.

use crate::TokenizerError;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, escape_formatter};
use std::fmt::Write as _;
use std::io;

/// Instructions a rendering may run.
const FUEL: u64 = 5_000_000;
/// Depth of macros and blocks.
const RECURSION: usize = 100;
/// Bytes a rendering may write.
const MAX_OUTPUT: usize = 64 << 20;
/// Depth of values that `tojson` writes.
const MAX_JSON_DEPTH: usize = 64;

/// Render a chat template.
///
/// `context` is a JSON object with what the template sees (`messages`, `add_generation_prompt`,
/// ...); `strftime_now` gives the present time in a format. Blocks are trimmed, `None` and `True`
/// are written as Python does, strings, lists and maps have Python's methods, and
/// `raise_exception` is known: as with the `transformers` library.
///
/// # Errors
/// `Template` with the reason, on one line: syntax, an exception of the template, or its limits.
pub fn render_chat(
    template: &str,
    context: &str,
    strftime_now: impl Fn(&str) -> String + Send + Sync + 'static,
) -> Result<String, TokenizerError> {
    let context: serde_json::Value = serde_json::from_str(context).map_err(|e| fail(&e))?;
    let source = without_generation_marks(template);
    let mut env = Environment::new();
    env.set_fuel(Some(FUEL));
    env.set_recursion_limit(RECURSION);
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    env.set_syntax(syntax.map_err(|e| fail(&e))?);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.set_formatter(|out, state, value| match value.kind() {
        ValueKind::None => out.write_str("None").map_err(Error::from),
        ValueKind::Bool => out
            .write_str(if value.is_true() { "True" } else { "False" })
            .map_err(Error::from),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) if number.is_finite() => {
                out.write_str(&float_as_python(number)).map_err(Error::from)
            }
            _ => escape_formatter(out, state, value),
        },
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            out.write_str(&printed(value)?).map_err(Error::from)
        }
        _ => escape_formatter(out, state, value),
    });
    env.add_filter("tojson", to_json);
    env.add_function(
        "raise_exception",
        |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    env.add_function("strftime_now", move |format: String| strftime_now(&format));
    let template = env.template_from_str(&source).map_err(|e| fail(&e))?;
    let mut output = Bounded(Vec::new());
    template
        .render_captured_to(to_value(context), &mut output)
        .map_err(|e| fail(&e))?;
    String::from_utf8(output.0).map_err(|e| fail(&e))
}

fn fail(error: &impl ToString) -> TokenizerError {
    let message = TokenizerError::one_line(error);
    TokenizerError::Template(message.chars().take(400).collect())
}

/// `{% generation %}` marks spans for training; for rendering its content alone counts.
fn without_generation_marks(template: &str) -> String {
    let mut source = template.to_owned();
    for (mark, instead) in [("generation", "if true"), ("endgeneration", "endif")] {
        for (open, close) in [("{%-", "-%}"), ("{%-", "%}"), ("{%", "-%}"), ("{%", "%}")] {
            let from = format!("{open} {mark} {close}");
            source = source.replace(&from, &format!("{open} {instead} {close}"));
        }
    }
    source
}

/// A writer that refuses to grow without end.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other("the output is above 64 MiB"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        io::Write::write_all(self, text.as_bytes()).map_err(|_| std::fmt::Error)
    }
}

/// The depth is limited by the JSON parser.
fn to_value(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(b) => Value::from(b),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => Value::from(i),
            (None, Some(u)) => Value::from(u),
            (None, None) => Value::from(n.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(s) => Value::from(s),
        serde_json::Value::Array(list) => list.into_iter().map(to_value).collect(),
        serde_json::Value::Object(map) => {
            Value::from_pairs(map.into_iter().map(|(key, value)| (key, to_value(value))))
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the signature of a filter")]
/// `tojson` as in `transformers`: Python's `json.dumps` without escapes of non-ASCII characters.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let after_item = if indent.is_some() { "," } else { ", " };
    let [comma, colon] = separators
        .unwrap_or_else(|| vec![after_item.into(), ": ".into()])
        .try_into()
        .map_err(|_| {
            let message = "tojson: separators must be two strings";
            Error::new(ErrorKind::InvalidOperation, message)
        })?;
    let style = JsonStyle {
        indent: indent.map(|i| i.min(16)),
        ensure_ascii: ensure_ascii.unwrap_or(false),
        sort_keys: sort_keys.unwrap_or(false),
        comma,
        colon,
    };
    let mut out = String::new();
    write_json(value, &style, 0, &mut out)?;
    Ok(out)
}

/// The options of `tojson`, as transformers passes them on to Python's `json.dumps`.
struct JsonStyle {
    indent: Option<usize>,
    ensure_ascii: bool,
    sort_keys: bool,
    comma: String,
    colon: String,
}

fn write_json(
    value: &Value,
    style: &JsonStyle,
    depth: usize,
    out: &mut String,
) -> Result<(), Error> {
    if depth > MAX_JSON_DEPTH {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "tojson: the value is too deep",
        ));
    }
    match value.kind() {
        ValueKind::None | ValueKind::Undefined => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number if value.is_integer() => {
            let _ = write!(out, "{value}");
        }
        ValueKind::Number => out.push_str(&float_as_python(f64::try_from(value.clone())?)),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            let is_map = value.kind() == ValueKind::Map;
            out.push(if is_map { '{' } else { '[' });
            let mut items: Vec<Value> = value.try_iter()?.collect();
            if is_map && style.sort_keys {
                items.sort_by_key(ToString::to_string);
            }
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(&style.comma);
                }
                new_line(style.indent, depth + 1, out);
                if is_map {
                    write_string(&item.to_string(), style.ensure_ascii, out);
                    out.push_str(&style.colon);
                    write_json(&value.get_item(item)?, style, depth + 1, out)?;
                } else {
                    write_json(item, style, depth + 1, out)?;
                }
            }
            if !items.is_empty() {
                new_line(style.indent, depth, out);
            }
            out.push(if is_map { '}' } else { ']' });
        }
        _ => write_string(&value.to_string(), style.ensure_ascii, out),
    }
    Ok(())
}

fn new_line(indent: Option<usize>, depth: usize, out: &mut String) {
    if let Some(width) = indent {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', width * depth));
    }
}

fn write_string(text: &str, ensure_ascii: bool, out: &mut String) {
    // JSON's own rules; serde_json escapes what Python's ensure_ascii=False does.
    let quoted = serde_json::Value::from(text).to_string();
    if !ensure_ascii {
        out.push_str(&quoted);
        return;
    }
    for character in quoted.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
}

/// A float as Python's `repr` and `json.dumps` write it.
fn float_as_python(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.into();
    }
    let scientific = format!("{value:e}"); // the shortest digits that read back, as Python's
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    if value != 0.0 && !(-4..16).contains(&power) {
        let sign = if power < 0 { '-' } else { '+' };
        return format!("{digits}e{sign}{:02}", power.abs());
    }
    let plain = format!("{value}");
    if plain.contains('.') {
        plain
    } else {
        plain + ".0"
    }
}

/// A list or map as Python prints it.
fn printed(value: &Value) -> Result<String, Error> {
    let mut printed = Bounded(Vec::new());
    write!(printed, "{value}").map_err(|_| {
        let message = "a list or map is above 64 MiB, or cannot be printed";
        Error::new(ErrorKind::InvalidOperation, message)
    })?;
    Ok(with_floats_as_python(&String::from_utf8_lossy(&printed.0)))
}

/// A printed list or map, its floats as Python writes them; what stands in quotes stays.
fn with_floats_as_python(printed: &str) -> String {
    let is_of_number = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    let mut out = String::with_capacity(printed.len());
    let mut rest = printed;
    while let Some(c) = rest.chars().next() {
        let len = match c {
            '"' | '\'' => quoted_len(rest, c),
            _ if is_of_number(c) => rest.find(|c| !is_of_number(c)).unwrap_or(rest.len()),
            _ => c.len_utf8(),
        };
        let (part, tail) = rest.split_at(len);
        let is_float = part.contains(['.', 'e']) && part.ends_with(|c: char| c.is_ascii_digit());
        match part.parse::<f64>() {
            Ok(number) if is_float => out.push_str(&float_as_python(number)),
            _ => out.push_str(part),
        }
        rest = tail;
    }
    out
}

/// The length of the string, quotes included, that a text begins with.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|&(_, c)| {
        let is_end = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        is_end
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(template: &str, context: &str) -> Result<String, TokenizerError> {
        render_chat(template, context, |format| format!("now {format}"))
    }

    #[test]
    fn python_ways() {
        let context = r#"{"b": true, "n": null, "l": [1, 2.5, "é<"], "m": {"z": 1, "a": [] }}"#;
        assert_eq!(render("{{ b }} {{ n }}", context).unwrap(), "True None");
        assert_eq!(
            render("{{ l | tojson }}", context).unwrap(),
            "[1, 2.5, \"é<\"]"
        );
        assert_eq!(
            render("{{ m | tojson }}", context).unwrap(),
            r#"{"z": 1, "a": []}"#
        );
        let numbers = r#"{"n": [1e-5, 0.0001, 1e16, 123456789012345.5, -0.0, 2.0, 3, 1.5e-7]}"#;
        assert_eq!(
            render("{{ n | tojson }}", numbers).unwrap(),
            "[1e-05, 0.0001, 1e+16, 123456789012345.5, -0.0, 2.0, 3, 1.5e-07]"
        );
        assert_eq!(
            render("{% for x in n %}{{ x }} {% endfor %}", numbers).unwrap(),
            "1e-05 0.0001 1e+16 123456789012345.5 -0.0 2.0 3 1.5e-07 "
        );
        assert_eq!(
            render("{{ n }}", numbers).unwrap(),
            "[1e-05, 0.0001, 1e+16, 123456789012345.5, -0.0, 2.0, 3, 1.5e-07]"
        );
        assert_eq!(
            render(
                r#"{{ {"1e-5": ["1e16'", 'a\\" 1e16', 1e-5, (1e16,)]} }}"#,
                "{}"
            )
            .unwrap(),
            r#"{'1e-5': ["1e16'", 'a\\" 1e16', 1e-05, (1e+16,)]}"#
        );
        assert_eq!(
            render(
                "{{ m | tojson(separators=(',', ':'), sort_keys=true) }}",
                context
            )
            .unwrap(),
            r#"{"a":[],"z":1}"#
        );
        assert_eq!(
            render("{{ l | tojson(ensure_ascii=true) }}", context).unwrap(),
            r#"[1, 2.5, "\u00e9<"]"#
        );
        let wide = "{\n  \"z\": 1,\n  \"a\": []\n}";
        assert_eq!(render("{{ m | tojson(indent=2) }}", context).unwrap(), wide);
        assert_eq!(render("{{ ' x '.strip().upper() }}", "{}").unwrap(), "X");
        assert_eq!(render("{{ strftime_now('%Y') }}", "{}").unwrap(), "now %Y");
        let marked = "{% generation %}a{% endgeneration %}";
        assert_eq!(render(marked, "{}").unwrap(), "a");
        let broken =
            "{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}";
        assert_eq!(render(broken, "{}").unwrap(), "1");
    }

    #[test]
    fn failures_are_one_line() {
        for template in [
            "{% if %}",
            "{{ raise_exception('no\nway') }}",
            "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
            "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
            "{{ 'a' * 1000000000000 }}",
            "{% set ns = namespace(l=['aaaaaaaaaaaaaaaa']) %}{% for i in range(23) %}{% set ns.l = ns.l + ns.l %}{% endfor %}{{ ns.l }}",
            "{{ missing.attribute }}",
        ] {
            let error = render(template, "{}").unwrap_err().to_string();
            assert!(error.starts_with("chat template: "), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
