//! The query string: decoded pairs and the parameters every route takes (`spec/http-api.md` 1.2), with upstream's texts.

use super::error::ApiError;
use crate::wire::go_text;

/// Pairs in the order sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

/// What every route takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Common {
    /// Empty = ours.
    pub region: String,
    /// `default` when absent; `*` = all.
    pub namespace: String,
    /// 0 = do not block.
    pub index: u64,
    /// Longest wait of a blocking query.
    pub wait_ms: u64,
    /// Ids that begin with it.
    pub prefix: String,
    /// 0 = all.
    pub per_page: i32,
    /// First item of the page.
    pub next_token: String,
    /// Newest first.
    pub is_reverse: bool,
    /// Empty = all. Lists only.
    pub filter: String,
}

/// Longest wait of a blocking query, and the default.
const WAIT_MS_MAX: u64 = 300_000;

/// Decodes `%xx`, and `+` as a space in queries. `None` when the escapes or the UTF-8 are broken.
#[must_use]
pub fn percent_decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                bytes.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'+' if plus_is_space => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

impl Query {
    /// Reads the text after `?`.
    ///
    /// # Errors
    /// 400 when an escape cannot be decoded.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |part: &str| {
                percent_decode(part, true).ok_or_else(|| ApiError::new(400, format!("invalid query {part:?}: not percent-encoded UTF-8")))
            };
            pairs.push((decode(key)?, decode(value)?));
        }
        Ok(Self(pairs))
    }

    /// All pairs.
    #[must_use]
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The first value of a key; `None` = absent.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The first value of a key; empty when absent.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or("")
    }

    /// A Go bool with the words of most handlers; `default` when absent or empty.
    ///
    /// # Errors
    /// 500 in those words.
    pub fn flag(&self, key: &str, default: bool) -> Result<bool, ApiError> {
        match self.text(key) {
            "" => Ok(default),
            value => go_text::parse_bool(value)
                .map_err(|why| ApiError::new(500, format!("Failed to parse value of {} ({value}) as a bool: {why}", go_text::quote(key)))),
        }
    }

    /// A number that is not negative; `None` when absent or empty.
    ///
    /// # Errors
    /// 500 in the words of most handlers.
    pub fn uint(&self, key: &str) -> Result<Option<u64>, ApiError> {
        let value = self.text(key);
        if value.is_empty() {
            return Ok(None);
        }
        let is_number = value.bytes().all(|c| c.is_ascii_digit());
        value.parse().ok().filter(|_| is_number).map(Some).ok_or_else(|| {
            let (key, quoted) = (go_text::quote(key), go_text::quote(value));
            let why = if is_number { "value out of range" } else { "invalid syntax" };
            ApiError::new(500, format!("Failed to parse value of {key} ({value}) as a uint64: strconv.ParseUint: parsing {quoted}: {why}"))
        })
    }

    /// The parameters every route takes.
    ///
    /// # Errors
    /// 400 with upstream's texts.
    pub fn common(&self) -> Result<Common, ApiError> {
        let bad = |text: &str| ApiError::new(400, text);
        let mut common = Common {
            region: self.text("region").to_owned(),
            namespace: match self.text("namespace") {
                "" => "default".to_owned(),
                namespace => namespace.to_owned(),
            },
            wait_ms: WAIT_MS_MAX,
            prefix: self.text("prefix").to_owned(),
            next_token: self.text("next_token").to_owned(),
            filter: self.text("filter").to_owned(),
            is_reverse: self.text("reverse") == "true",
            ..Common::default()
        };
        match self.text("index") {
            "" => {}
            value => common.index = value.parse().map_err(|_| bad("Invalid index"))?,
        }
        match self.text("wait") {
            "" => {}
            value => {
                let wait_ns = go_text::parse_duration(value).map_err(|_| bad("Invalid wait time"))?;
                let wait_ms = u64::try_from(wait_ns / 1_000_000).unwrap_or(0);
                common.wait_ms = if wait_ms == 0 { WAIT_MS_MAX } else { wait_ms.min(WAIT_MS_MAX) };
            }
        }
        match self.get("stale") {
            None | Some("") => {}
            Some(value) => {
                go_text::parse_bool(value).map_err(|_| bad("Expect `true` or `false` for `stale` query string parameter"))?;
            }
        }
        match self.text("per_page") {
            "" => {}
            value => common.per_page = value.parse().map_err(|_| bad("Expect a number for `per_page` query string parameter"))?,
        }
        Ok(common)
    }
}
