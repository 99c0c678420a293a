//! Outside JSON to typed values, as a Go decoder would take it. The only reader of documents that were not written by this process.
//!
//! Shape: bytes -> [`decode`] -> a `Deserialize` type, or a [`JsonError`] that names the path, what was found and what was expected.
//! Rules (`spec/http-api.md` 1.5): keys match without ASCII case, the last of equal keys wins; `null` = absent = default; unknown keys are
//! ignored (and can be noted); integers have no fraction and no exponent; bytes after the first value are ignored; bad UTF-8 is U+FFFD.
//! Bounds: nesting and number of values are counted before anything is built, so what a document can make us allocate is bounded
//! by [`WEIGHT_MAX`], whatever its size. Nothing panics on any input.
//! How: serde_json finds where each value begins and ends; a small `Deserializer` over these slices does the rest.

use core::fmt;
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// Values one document may hold: scalars weigh 1, objects 16. A large job (100 tasks) weighs about 10 000.
pub const WEIGHT_MAX: usize = 65_536;
/// An object may become a struct of several hundred bytes.
const OBJECT_WEIGHT: usize = 16;
/// Unknown keys noted at most.
const NOTES_MAX: usize = 8;

/// Why a document was not taken. A 400 (or 500, by route) with this text. Boxed: every step of reading hands it on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError(Box<Fault>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    /// `Job.TaskGroups[0].Count`; empty = the document itself, or not known yet.
    path: String,
    /// `found string "x", expected integer`.
    text: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { path, text } = &*self.0;
        if path.is_empty() { f.write_str(text) } else { write!(f, "{path}: {text}") }
    }
}

impl std::error::Error for JsonError {}

impl de::Error for JsonError {
    #[cold]
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self(Box::new(Fault { path: String::new(), text: text.to_string() }))
    }
}

impl JsonError {
    /// Adds where, unless a deeper place is known.
    #[cold]
    fn at(mut self, at: &Path<'_>) -> Self {
        if self.0.path.is_empty() {
            self.0.path = at.to_string();
        }
        self
    }
}

/// Reads the first value of `bytes`. `depth_max` is `Budget::json_depth_max`; the size was bounded when the body was collected.
///
/// # Errors
/// Not JSON, too deep, too many values, or not the shape of `T`. An empty document is `EOF`, as upstream says.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], depth_max: usize) -> Result<T, JsonError> {
    decode_noting(bytes, depth_max, &mut Vec::new())
}

/// As [`decode`]; paths of unknown keys that hold more than an empty value are added to `unknown` (the first few).
///
/// # Errors
/// As [`decode`].
pub fn decode_noting<T: DeserializeOwned>(bytes: &[u8], depth_max: usize, unknown: &mut Vec<String>) -> Result<T, JsonError> {
    let text = String::from_utf8_lossy(bytes);
    let raw = first_value(&text, depth_max)?;
    let notes = RefCell::new(core::mem::take(unknown));
    let value = T::deserialize(Reader { raw, at: &Path::Root, notes: &notes });
    *unknown = notes.into_inner();
    value.map_err(|error| error.at(&Path::Root))
}

/// The slice of the first value, after the bounds are checked.
fn first_value(text: &str, depth_max: usize) -> Result<&str, JsonError> {
    if text.trim_ascii().is_empty() {
        return Err(de::Error::custom("EOF"));
    }
    check_bounds(text.as_bytes(), depth_max)?;
    let mut source = serde_json::Deserializer::from_str(text);
    let raw = <&RawValue>::deserialize(&mut source).map_err(malformed)?;
    Ok(raw.get())
}

#[allow(clippy::needless_pass_by_value, reason = "the shape map_err wants")]
fn malformed(error: serde_json::Error) -> JsonError {
    de::Error::custom(format_args!("malformed JSON: {error}"))
}

/// Counts nesting and values of the first value, knowing only brackets, commas and strings.
fn check_bounds(bytes: &[u8], depth_max: usize) -> Result<(), JsonError> {
    let (mut depth, mut weight) = (0usize, 1usize);
    let (mut in_string, mut is_escaped) = (false, false);
    for &byte in bytes {
        if in_string {
            (in_string, is_escaped) = (is_escaped || byte != b'"', !is_escaped && byte == b'\\');
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                weight += if byte == b'{' { OBJECT_WEIGHT } else { 1 };
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    break;
                }
            }
            b',' => weight += 1,
            _ => {}
        }
        if depth > depth_max {
            return Err(de::Error::custom(format_args!("nested deeper than {depth_max} levels")));
        }
        if weight > WEIGHT_MAX {
            return Err(de::Error::custom("too many values in one document"));
        }
    }
    Ok(())
}

/// Where a value stands.
enum Path<'p> {
    Root,
    Key(&'p Self, &'p str),
    Index(&'p Self, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, i) => write!(f, "{parent}[{i}]"),
        }
    }
}

/// One value: its text, where it stands, where unknown keys are noted.
#[derive(Clone, Copy)]
struct Reader<'de, 'p> {
    raw: &'de str,
    at: &'p Path<'p>,
    notes: &'p RefCell<Vec<String>>,
}

/// Text that stands for nothing: null, false, zero, empty.
fn is_empty_value(raw: &str) -> bool {
    let inner = raw.strip_prefix(['[', '{']).and_then(|rest| rest.strip_suffix([']', '}'])).map(str::trim_ascii);
    matches!(raw, "null" | "false" | "0" | "\"\"") || inner == Some("")
}

impl<'de> Reader<'de, '_> {
    fn is_null(&self) -> bool {
        self.raw == "null"
    }

    fn first(&self) -> u8 {
        self.raw.as_bytes().first().copied().unwrap_or_default()
    }

    #[cold]
    fn expected(&self, what: &str) -> JsonError {
        let found: Cow<'_, str> = match self.first() {
            b'"' => format!("string {}", clipped(self.raw)).into(),
            b'{' => "object".into(),
            b'[' => "list".into(),
            b't' | b'f' => "boolean".into(),
            b'n' => "null".into(),
            _ => format!("number {}", clipped(self.raw)).into(),
        };
        JsonError(Box::new(Fault { path: self.at.to_string(), text: format!("found {found}, expected {what}") }))
    }

    fn boolean(&self) -> Result<bool, JsonError> {
        match self.raw {
            "true" => Ok(true),
            "false" | "null" => Ok(false),
            _ => Err(self.expected("boolean")),
        }
    }

    fn signed(&self) -> Result<i64, JsonError> {
        if self.is_null() { Ok(0) } else { self.raw.parse().map_err(|_| self.expected("integer")) }
    }

    fn unsigned(&self) -> Result<u64, JsonError> {
        if self.is_null() { Ok(0) } else { self.raw.parse().map_err(|_| self.expected("integer, not negative")) }
    }

    fn float(&self) -> Result<f64, JsonError> {
        match self.first() {
            b'n' => Ok(0.0),
            b'-' | b'0'..=b'9' => self.raw.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| self.expected("number")),
            _ => Err(self.expected("number")),
        }
    }

    fn string(&self) -> Result<String, JsonError> {
        match self.first() {
            b'n' => Ok(String::new()),
            b'"' => serde_json::from_str(self.raw).map_err(|error| malformed(error).at(self.at)),
            _ => Err(self.expected("string")),
        }
    }

    fn items(&self) -> Result<Vec<&'de RawValue>, JsonError> {
        match self.first() {
            b'n' => Ok(Vec::new()),
            b'[' => serde_json::from_str(self.raw).map_err(|error| malformed(error).at(self.at)),
            _ => Err(self.expected("list")),
        }
    }

    fn entries(&self) -> Result<Vec<(String, &'de str)>, JsonError> {
        match self.first() {
            b'n' => Ok(Vec::new()),
            b'{' => serde_json::from_str::<Entries<'de>>(self.raw).map(|entries| entries.0).map_err(|error| malformed(error).at(self.at)),
            _ => Err(self.expected("object")),
        }
    }

    /// The entries of a struct: known keys, not null, the last of equals.
    fn slots(&self, fields: &'static [&'static str]) -> Result<Vec<(&'static str, &'de str)>, JsonError> {
        let mut slots: Vec<(&'static str, &'de str)> = Vec::new();
        for (key, raw) in self.entries()? {
            let known = fields.iter().find(|field| **field == key).or_else(|| fields.iter().find(|field| field.eq_ignore_ascii_case(&key)));
            let Some(&field) = known else {
                let mut notes = self.notes.borrow_mut();
                if notes.len() < NOTES_MAX && !is_empty_value(raw) {
                    notes.push(Path::Key(self.at, &clipped(&key)).to_string());
                }
                continue;
            };
            slots.retain(|(name, _)| *name != field);
            if raw != "null" {
                slots.push((field, raw));
            }
        }
        Ok(slots)
    }
}

/// At most 40 characters of `text`, for error texts.
fn clipped(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()).into(),
        None => text.into(),
    }
}

/// An object as a list, in its order.
struct Entries<'de>(Vec<(String, &'de str)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("object")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, raw)) = map.next_entry::<String, &'de RawValue>()? {
                    entries.push((key, raw.get()));
                }
                Ok(Entries(entries))
            }
        }
        input.deserialize_map(Collect)
    }
}

/// The name by which [`Raw`] asks for the text itself.
const RAW: &str = "$raw";

macro_rules! integers {
    ($($method:ident $read:ident $visit:ident),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            visitor.$visit(self.$read()?).map_err(|error: JsonError| error.at(self.at))
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = JsonError;

    integers! {
        deserialize_bool boolean visit_bool, deserialize_i8 signed visit_i64, deserialize_i16 signed visit_i64,
        deserialize_i32 signed visit_i64, deserialize_i64 signed visit_i64, deserialize_u8 unsigned visit_u64,
        deserialize_u16 unsigned visit_u64, deserialize_u32 unsigned visit_u64, deserialize_u64 unsigned visit_u64,
        deserialize_f32 float visit_f64, deserialize_f64 float visit_f64, deserialize_string string visit_string,
        deserialize_str string visit_string, deserialize_char string visit_string, deserialize_identifier string visit_string,
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.first() {
            b'"' => self.deserialize_string(visitor),
            b'{' => self.deserialize_map(visitor),
            b'[' => self.deserialize_seq(visitor),
            b't' | b'f' => self.deserialize_bool(visitor),
            b'n' => visitor.visit_unit(),
            b'-' if !self.raw.contains(['.', 'e', 'E']) => self.deserialize_i64(visitor),
            _ if !self.raw.contains(['.', 'e', 'E']) => self.deserialize_u64(visitor),
            _ => self.deserialize_f64(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if self.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, JsonError> {
        if name == RAW {
            visitor.visit_str(self.raw).map_err(|error: JsonError| error.at(self.at))
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_seq(List { items: self.items()?.into_iter(), i: 0, whole: self })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _name: &'static str, _len: usize, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_map(Map { entries: self.entries()?.into_iter(), next: None, whole: self })
    }

    // One copy per struct, not one per place where it stands.
    #[inline(never)]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_map(Map { entries: self.slots(fields)?.into_iter(), next: None, whole: self }).map_err(|error| error.at(self.at))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        let word = self.string()?;
        let word: StrDeserializer<'_, JsonError> = word.as_str().into_deserializer();
        visitor.visit_enum(word).map_err(|error| error.at(self.at))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _name: &'static str, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_unit()
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, JsonError> {
        Err(self.expected("nothing (bytes have no JSON form here)"))
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_unit()
    }
}

struct List<'de, 'p> {
    items: std::vec::IntoIter<&'de RawValue>,
    i: usize,
    whole: Reader<'de, 'p>,
}

impl<'de> de::SeqAccess<'de> for List<'de, '_> {
    type Error = JsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, JsonError> {
        let Some(item) = self.items.next() else { return Ok(None) };
        let at = Path::Index(self.whole.at, self.i);
        self.i += 1;
        seed.deserialize(Reader { raw: item.get(), at: &at, notes: self.whole.notes }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

/// A struct's known entries (`K` = field names) or all entries of a map (`K` = its keys).
struct Map<'de, 'p, K> {
    entries: std::vec::IntoIter<(K, &'de str)>,
    next: Option<(K, &'de str)>,
    whole: Reader<'de, 'p>,
}

impl<'de, K: AsRef<str>> de::MapAccess<'de> for Map<'de, '_, K> {
    type Error = JsonError;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, JsonError> {
        self.next = self.entries.next();
        let Some((key, _)) = &self.next else { return Ok(None) };
        let key: StrDeserializer<'_, JsonError> = key.as_ref().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, JsonError> {
        let Some((key, raw)) = self.next.take() else { return Err(de::Error::custom("a value without its key")) };
        let at = Path::Key(self.whole.at, key.as_ref());
        seed.deserialize(Reader { raw, at: &at, notes: self.whole.notes })
    }
}

/// A value nobody here looks into: compact JSON text with sorted keys, so that equal documents are equal. `null`, `{}`, `[]` and `""` are none.
#[derive(Clone, Debug, Default)]
pub struct Raw(Option<Box<RawValue>>);

impl Raw {
    /// The text; `None` where the wire has `null`.
    #[must_use]
    pub fn get(&self) -> Option<&str> {
        self.0.as_deref().map(RawValue::get)
    }

    /// True where the wire has `null`.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Reads the value with the rules of this module; `Default` when there is none.
    ///
    /// # Errors
    /// It is not the shape of `T`.
    pub fn read<T: DeserializeOwned + Default>(&self) -> Result<T, JsonError> {
        match self.get() {
            Some(raw) => T::deserialize(Reader { raw, at: &Path::Root, notes: &RefCell::new(Vec::new()) }),
            None => Ok(T::default()),
        }
    }

    /// The entries of an object by key, each as JSON text; `None` when it is not an object.
    #[must_use]
    pub fn entries(&self) -> Option<BTreeMap<String, &str>> {
        let notes = RefCell::new(Vec::new());
        let reader = Reader { raw: self.get().unwrap_or("null"), at: &Path::Root, notes: &notes };
        reader.entries().ok().map(|entries| entries.into_iter().collect())
    }

    /// Takes JSON text.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn from_text(text: &str) -> Result<Self, JsonError> {
        let value: Value = serde_json::from_str(text).map_err(malformed)?;
        let is_none = match &value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(entries) => entries.is_empty(),
            Value::String(text) => text.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        if is_none { Ok(Self(None)) } else { RawValue::from_string(value.to_string()).map(|raw| Self(Some(raw))).map_err(malformed) }
    }
}

impl PartialEq for Raw {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl Eq for Raw {}

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(out)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Raw;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value, read through wire::json")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Raw, E> {
                Raw::from_text(text).map_err(E::custom)
            }
        }
        input.deserialize_newtype_struct(RAW, Text)
    }
}

#[cfg(test)]
mod tests;
