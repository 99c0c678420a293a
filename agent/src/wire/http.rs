//! Requests and replies as values: what the core and the API families know of HTTP. hyper stays in `shell/h1.rs`.
//!
//! Shape: shell -> [`Request`] -> core -> `api::body::Reply` -> shell. Never: sockets, hyper types, async.

/// A request whose body has been collected under the budget.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path as sent, without the query, not yet percent-decoded; starts with `/`.
    pub path: String,
    /// Query as sent, without `?`; may be empty.
    pub query: String,
    /// `X-Nomad-Token`, else the bearer token; empty = anonymous.
    pub token: String,
    /// `Origin`; empty = none.
    pub origin: String,
    /// The whole body; empty when there was none.
    pub body: Vec<u8>,
}

/// The methods the API knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// GET.
    #[default]
    Get,
    /// HEAD: not GET; routes that check for GET answer 405 (`spec/http-api.md` 1.4).
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// DELETE.
    Delete,
    /// OPTIONS.
    Options,
    /// Anything else.
    Other,
}

/// Status line and headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// Names in canonical case, values without line breaks. `Content-Length`, `Date`, `Vary` are the shell's.
    pub headers: Vec<(&'static str, String)>,
}

impl Head {
    /// A head with a content type.
    #[must_use]
    pub fn new(status: u16, content_type: &'static str) -> Self {
        Self { status, headers: vec![("Content-Type", content_type.to_owned())] }
    }
}

/// `application/json`, as upstream writes it (no charset).
pub const JSON: &str = "application/json";
/// Error texts and sniffed text.
pub const TEXT: &str = "text/plain; charset=utf-8";
