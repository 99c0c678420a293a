//! Values of one object as Go's reflection would show them: the object's JSON text, and what kind each of its fields has.
//!
//! Shape: a [`Datum`] and a part of a path -> the [`Datum`] there. Nothing is decoded but what is asked for, nothing is copied but
//! strings with escapes: a filter over a large job costs a look along its text.
//! A table of kinds has one struct a line: its name, then its fields, `Name` for a string and `Name:kind` for all else:
//!
//! ```text
//! s string   b bool   i int   u uint   f float   t time   y bytes   @ whatever the JSON is
//! [k list    {k map   *k pointer      Name struct          * pointer to something no object here has
//! ```
//!
//! A field of the table that the JSON lacks, or has as `null`, is Go's zero of its kind.
//! Invariant: the text is JSON written by this process. Text that is none ends in a [`Fault`] or in fewer values, never in a panic.

use std::borrow::Cow;

use super::{Fault, WORK_MIN};

/// One value.
#[derive(Clone, Copy, Debug)]
pub struct Datum<'a> {
    table: &'a str,
    kind: &'a str,
    /// `None` = the zero of its kind.
    text: Option<&'a str>,
}

/// What a value is, behind its pointers.
pub(super) enum Form<'a> {
    /// A pointer that points nowhere.
    Nil,
    Text(Cow<'a, str>),
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    /// With its elements, which are datums; `is_nil` only where it is empty.
    List(Parts<'a>, bool),
    /// With its entries.
    Map(Parts<'a>, bool),
    /// Only its length is of use.
    Bytes(bool),
    /// A struct, or a time.
    Struct,
}

/// Where a path has led.
pub(super) enum Found<'a> {
    Value(Datum<'a>),
    /// A map, which has no such key.
    NoKey,
}

/// How much an evaluation may still look at.
pub(super) struct Work {
    left: usize,
}

impl Work {
    pub(super) fn of(object: Datum<'_>) -> Self {
        Self { left: object.text.map_or(0, str::len).saturating_mul(8).saturating_add(WORK_MIN) }
    }

    pub(super) fn spend(&mut self, bytes_n: usize) -> Result<(), Fault> {
        self.left =
            self.left.checked_sub(bytes_n.max(1)).ok_or_else(|| Fault("the expression is too much work for this object".to_owned()))?;
        Ok(())
    }
}

impl<'a> Datum<'a> {
    /// The object a filter is asked about: its kind's name in the table, and its JSON.
    #[must_use]
    pub fn new(table: &'a str, kind: &'a str, text: &'a str) -> Self {
        Self { table, kind, text: Some(text) }
    }

    /// A position in a list, as text.
    pub(super) fn position(text: &'a str) -> Self {
        Self { table: "", kind: "i", text: Some(text) }
    }

    fn at(self, kind: &'a str, text: Option<&'a str>) -> Self {
        Self { kind, text: text.filter(|text| *text != "null"), ..self }
    }

    /// Behind the pointers; `None` = one of them is nil.
    fn behind(self) -> Option<Self> {
        match self.kind.strip_prefix('*') {
            Some(kind) => self.text.and_then(|_| self.at(kind, self.text).behind()),
            None if self.kind == "@" && self.text.is_none() => None,
            None => Some(self),
        }
    }

    /// The kind; of `@` what its JSON is.
    fn shape(self) -> &'a str {
        match (self.kind, self.text.and_then(|text| text.bytes().next())) {
            ("@", Some(b'"')) => "s",
            ("@", Some(b'{')) => "{@",
            ("@", Some(b'[')) => "[@",
            ("@", Some(b't' | b'f')) => "b",
            // Upstream's decoder has but floats.
            ("@", Some(_)) => "f",
            (kind, _) => kind,
        }
    }

    /// Go's name of its type.
    pub(super) fn type_name(self) -> String {
        fn name(kind: &str) -> String {
            let (first, rest) = kind.split_at_checked(1).unwrap_or((kind, ""));
            match first {
                "s" => "string".to_owned(),
                "b" => "bool".to_owned(),
                "i" => "int64".to_owned(),
                "u" => "uint64".to_owned(),
                "f" => "float64".to_owned(),
                "t" => "time.Time".to_owned(),
                "y" => "[]uint8".to_owned(),
                "@" => "interface {}".to_owned(),
                "[" => format!("[]{}", name(rest)),
                "{" => format!("map[string]{}", name(rest)),
                "*" => format!("*{}", name(rest)),
                _ => format!("structs.{kind}"),
            }
        }
        self.behind().map_or_else(|| "invalid".to_owned(), |datum| name(datum.shape()))
    }

    /// What Go calls its kind.
    pub(super) fn kind_name(self) -> String {
        let Some(datum) = self.behind() else { return "invalid".to_owned() };
        match datum.shape().bytes().next() {
            Some(b'[' | b'y') => "slice".to_owned(),
            Some(b'{') => "map".to_owned(),
            Some(b't' | b'A'..=b'Z') | None => "struct".to_owned(),
            _ => datum.type_name(),
        }
    }

    /// What an element of a list is compared as: the zero of its kind, behind its pointers.
    pub(super) fn element(self) -> Self {
        let kind = self.shape().get(1..).unwrap_or_default();
        self.at(kind.trim_start_matches('*'), None)
    }

    pub(super) fn is_any(self) -> bool {
        self.kind == "@"
    }

    pub(super) fn form(self) -> Result<Form<'a>, Fault> {
        let Some(datum) = self.behind() else { return Ok(Form::Nil) };
        let (kind, text) = (datum.shape(), datum.text);
        let wrong = || Fault(format!("found {} where the table of kinds has {kind}", text.unwrap_or_default()));
        Ok(match kind.bytes().next() {
            Some(b's') => Form::Text(text.map_or(Ok(Cow::Borrowed("")), string)?),
            Some(b'b') => Form::Bool(text.map_or(Ok(false), str::parse).map_err(|_| wrong())?),
            Some(b'i') => Form::Int(text.map_or(Ok(0), str::parse).map_err(|_| wrong())?),
            Some(b'u') => Form::Uint(text.map_or(Ok(0), str::parse).map_err(|_| wrong())?),
            Some(b'f') => Form::Float(text.map_or(Ok(0.0), str::parse).map_err(|_| wrong())?),
            Some(b'[') => Form::List(datum.parts(), text.is_none()),
            Some(b'{') => Form::Map(datum.parts(), text.is_none()),
            Some(b'y') => Form::Bytes(text.is_none()),
            _ => Form::Struct,
        })
    }

    fn parts(self) -> Parts<'a> {
        let kind = self.shape().get(1..).unwrap_or_default();
        Parts { whole: Datum { kind, ..self }, text: self.text.unwrap_or_default(), at: 1 }
    }

    /// One step down. `is_last`: a key that is missing has its own meaning at the end of a path.
    pub(super) fn child(self, part: &str, is_last: bool, work: &mut Work) -> Result<Found<'a>, String> {
        let Some(datum) = self.behind() else { return Err(", invalid value kind: invalid".to_owned()) };
        let kind = datum.shape();
        match kind.bytes().next() {
            Some(b'A'..=b'Z') => {
                let no_field = || format!(": couldn't find key: struct field with name {}", crate::wire::go_text::quote(part));
                let kind = field(self.table, kind, part).ok_or_else(no_field)?;
                let text = datum.parts().find(part, work).map_err(|why| format!(": {why}"))?.and_then(|entry| entry.text);
                Ok(Found::Value(datum.at(kind, text)))
            }
            Some(b'{') => match datum.parts().find(part, work).map_err(|why| format!(": {why}"))? {
                Some(entry) => Ok(Found::Value(entry)),
                None if is_last => Ok(Found::NoKey),
                None => Err(format!(": couldn't find key {}", crate::wire::go_text::quote(part))),
            },
            Some(b'[') => {
                let wanted = if part.is_empty() { Ok(0) } else { crate::wire::go_text::parse_int(part) };
                let wanted = wanted.map_err(|_| format!(": couldn't convert value {} to type int", crate::wire::go_text::quote(part)))?;
                let (mut parts, mut len) = (datum.parts(), 0);
                while let Some((_, element)) = parts.next(work).map_err(|why| format!(": {why}"))? {
                    if len == wanted {
                        return Ok(Found::Value(element));
                    }
                    len += 1;
                }
                Err(format!(": index {wanted} is out of range (length = {len})"))
            }
            Some(b't') => Err(format!(": couldn't find key: struct field with name {}", crate::wire::go_text::quote(part))),
            _ => Err(format!(", invalid value kind: {}", datum.kind_name())),
        }
    }
}

/// The kind of a struct's field.
fn field<'a>(table: &'a str, name: &str, field: &str) -> Option<&'a str> {
    let fields = table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    fields.split(' ').find_map(|one| {
        let (known, kind) = one.split_once(':').unwrap_or((one, "s"));
        (known == field).then_some(kind)
    })
}

/// A JSON string.
fn string(text: &str) -> Result<Cow<'_, str>, Fault> {
    match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        _ => serde_json::from_str(text).map(Cow::Owned).map_err(|why| Fault(format!("found {text} where a string should be: {why}"))),
    }
}

/// The elements of a list, the entries of a map or the fields of a struct, one after the other.
pub(super) struct Parts<'a> {
    /// The container, with the kind of its parts.
    whole: Datum<'a>,
    text: &'a str,
    at: usize,
}

impl<'a> Parts<'a> {
    /// The next one: its key (a datum too; of a list an empty one) and itself.
    pub(super) fn next(&mut self, work: &mut Work) -> Result<Option<(Datum<'a>, Datum<'a>)>, Fault> {
        let (bytes, from) = (self.text.as_bytes(), self.at);
        let mut key = "";
        self.at = skip(bytes, self.at, b", \n\r\t");
        if self.text.starts_with('{') && bytes.get(self.at) == Some(&b'"') {
            let end = value_end(bytes, self.at);
            key = self.text.get(self.at..end).unwrap_or_default();
            self.at = skip(bytes, end, b": \n\r\t");
        }
        let end = value_end(bytes, self.at);
        let value = self.text.get(self.at..end).unwrap_or_default();
        self.at = end;
        work.spend(end.saturating_sub(from))?;
        let whole = self.whole;
        Ok((!value.is_empty()).then(|| (whole.at("s", Some(key)), whole.at(whole.kind, Some(value)))))
    }

    /// The entry of a key; of equal keys the last.
    fn find(&mut self, key: &str, work: &mut Work) -> Result<Option<Datum<'a>>, Fault> {
        let mut found = None;
        while let Some((known, value)) = self.next(work)? {
            if string(known.text.unwrap_or_default())? == key {
                found = Some(value);
            }
        }
        Ok(found)
    }

    pub(super) fn has(&mut self, key: &str, work: &mut Work) -> Result<bool, Fault> {
        self.find(key, work).map(|found| found.is_some())
    }
}

fn skip(bytes: &[u8], at: usize, what: &[u8]) -> usize {
    at + bytes.iter().skip(at).take_while(|byte| what.contains(byte)).count()
}

/// Where the value that begins at `at` ends; the same place when none does.
fn value_end(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut in_string, mut is_escaped) = (0usize, false, false);
    for (i, &byte) in bytes.iter().enumerate().skip(at) {
        if in_string {
            (in_string, is_escaped) = (is_escaped || byte != b'"', !is_escaped && byte == b'\\');
            if !in_string && depth == 0 {
                return i + 1;
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return if depth == 0 { i } else { i + 1 },
            b'}' | b']' => depth -= 1,
            b',' | b' ' | b'\n' | b'\r' | b'\t' | b':' if depth == 0 => return i,
            _ => {}
        }
    }
    bytes.len()
}
