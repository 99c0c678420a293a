//! `KEY=value` lines -> variables: what a template with `env = true` rendered. Pure.
//!
//! A line: optional `export `, a key, `=`, a value. Spaces around key and value go; `#` outside of quotes begins a comment; `'..'` is
//! taken as it is; in `".."` the escapes are `\\ \" \n \t`. A later line wins.   Errors: [`EnvFileError`], the line and why.
//! Source: hashicorp/go-envparse (behaviour only).

use core::fmt;
use std::collections::BTreeMap;

/// Why a file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvFileError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for EnvFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error on line {}: {}", self.line, self.text)
    }
}

/// Reads a file.
///
/// # Errors
/// The first line that is not of this form.
pub fn parse(text: &str) -> Result<BTreeMap<String, String>, EnvFileError> {
    let mut vars = BTreeMap::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = parse_line(line).map_err(|text| EnvFileError { line: i + 1, text })?;
        vars.insert(key, value);
    }
    Ok(vars)
}

fn parse_line(line: &str) -> Result<(String, String), String> {
    let (key, value) = line.split_once('=').ok_or("missing \"=\"")?;
    let key = key.trim();
    let key = key.strip_prefix("export ").unwrap_or(key).trim_start();
    match key.chars().next() {
        None => return Err("empty key".to_owned()),
        Some(c) if c.is_ascii_alphabetic() || c == '_' => {}
        Some(c) => return Err(format!("key must start with [A-Za-z_] but found {c:?}")),
    }
    if let Some(c) = key.chars().find(|c| c.is_control()) {
        return Err(format!("key characters must be [A-Za-z0-9_] but found {c:?}"));
    }
    Ok((key.to_owned(), parse_value(value.trim())?))
}

fn parse_value(text: &str) -> Result<String, String> {
    let mut value = String::with_capacity(text.len());
    // Length without the spaces that stand before a comment.
    let mut solid_len = 0;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c < ' ' {
            return Err(format!("0x{:02x} is an invalid value character", u32::from(c)));
        }
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (None, '#') => {
                value.truncate(solid_len);
                return Ok(value);
            }
            (Some(open), c) if open == c => quote = None,
            (Some('"'), '\\') => value.push(match chars.next() {
                Some(c @ ('"' | '\\')) => c,
                Some('n') => '\n',
                Some('t') => '\t',
                Some(c) => return Err(format!("invalid escape sequence: {c}")),
                None => return Err("incomplete escape sequence".to_owned()),
            }),
            (_, c) => value.push(c),
        }
        if quote.is_some() || c != ' ' {
            solid_len = value.len();
        }
    }
    match quote {
        None => Ok(value),
        Some(open) => Err(format!("unmatched {open}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected = expected.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(parse(text), Ok(expected), "{text}");
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        assert_eq!(parse(text).map_err(|e| e.to_string()), Err(expected.to_owned()), "{text}");
    }

    #[test]
    fn lines() {
        check("", &[]);
        check("\n  \n# a comment = not a line\n", &[]);
        check("A=1\r\nB=2", &[("A", "1"), ("B", "2")]);
        check("A=1\nA=2", &[("A", "2")]);
        check("  export  _a9 = this is ok! # so is this", &[("_a9", "this is ok!")]);
        check("A=", &[("A", "")]);
        check("A=b=c", &[("A", "b=c")]);
        check("A=\"x \" # c", &[("A", "x ")]);
        check("A='#\\n' \"#\"", &[("A", "#\\n #")]);
        check("A=\"a\\n\\t\\\"\\\\\"", &[("A", "a\n\t\"\\")]);
        check("A=é # c", &[("A", "é")]);
        check("A=#", &[("A", "")]);
        check("A=a'b'c", &[("A", "abc")]);
        check("A.B=1", &[("A.B", "1")]);
        check("export =2", &[("export", "2")]);
    }

    #[test]
    fn faults() {
        refused("A", "error on line 1: missing \"=\"");
        refused("A=1\n\n=2", "error on line 3: empty key");
        refused("1A=2", "error on line 1: key must start with [A-Za-z_] but found '1'");
        refused("A\0=2", "error on line 1: key characters must be [A-Za-z0-9_] but found '\\0'");
        refused("A=\u{1}", "error on line 1: 0x01 is an invalid value character");
        refused("A=\"x", "error on line 1: unmatched \"");
        refused("A='x", "error on line 1: unmatched '");
        refused("A=\"x\\", "error on line 1: incomplete escape sequence");
        refused("A=\"\\r\"", "error on line 1: invalid escape sequence: r");
    }
}
