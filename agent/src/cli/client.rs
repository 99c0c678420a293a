//! The HTTP API as the verbs see it: a path and parameters in, a JSON value or a byte stream out.
//!
//! Adds what every call carries (token, region, namespace), encodes paths and queries, turns statuses into errors. Never opens a
//! connection: that is the work of a [`Transport`], which is `shell::client` or, in tests, a list of recorded answers.
//! Bounds: an answer that is read whole has at most [`ANSWER_BYTES_MAX`], an error text [`ERROR_BYTES_MAX`]; streams have none.
//! Source: `spec/http-api.md` 1.

use std::fmt;
use std::io::{self, Read};

use serde_json::Value;

use crate::shell::client::{self as http, Ask, ClientError};
use crate::wire::http::Method;

/// Longest answer read into memory.
pub const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Longest error text shown.
pub const ERROR_BYTES_MAX: u64 = 64 << 10;

/// One answer: the status, and the body as it arrives.
pub struct Exchange {
    /// HTTP status.
    pub status: u16,
    /// Where the list goes on (`X-Nomad-NextToken`); empty = nowhere.
    pub next: String,
    /// The body.
    pub body: Box<dyn Read + Send>,
}

/// Carries one request to the agent.
pub trait Transport {
    /// Sends `ask` and returns once the answer's head is there.
    fn exchange(&self, ask: &Ask<'_>) -> Result<Exchange, ClientError>;
}

impl Transport for http::Client {
    fn exchange(&self, ask: &Ask<'_>) -> Result<Exchange, ClientError> {
        let answer = Self::exchange(self, ask)?;
        let next = answer.headers.into_iter().find(|(name, _)| name == "x-nomad-nexttoken").map_or_else(String::new, |(_, value)| value);
        Ok(Exchange { status: answer.status, next, body: Box::new(answer.body) })
    }
}

/// Why a call failed.
#[derive(Debug)]
pub enum CallError {
    /// No answer.
    Unreachable(ClientError),
    /// The agent refused.
    Status {
        /// HTTP status.
        code: u16,
        /// What the agent said.
        text: String,
    },
    /// The answer cannot be read.
    Garbled {
        /// The cause.
        why: io::Error,
    },
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => why.fmt(f),
            Self::Status { code, text } if text.is_empty() => write!(f, "the agent answered with status {code}"),
            Self::Status { code, text } => write!(f, "{} (status {code})", text.trim_end()),
            Self::Garbled { why } => write!(f, "unreadable answer: {why}"),
        }
    }
}

/// The API of one agent.
pub struct Client<'a> {
    /// How it is reached.
    pub transport: &'a dyn Transport,
    /// Secret of the token; empty = none.
    pub token: String,
    /// Region of every call; empty = the agent's.
    pub region: String,
    /// Namespace of every call that names none itself; empty = not given.
    pub namespace: String,
}

/// Query parameters; those with an empty value are left out.
pub type Params<'a> = &'a [(&'a str, &'a str)];

impl Client<'_> {
    /// True when the user asked for all namespaces.
    #[must_use]
    pub fn all_namespaces(&self) -> bool {
        self.namespace == "*"
    }

    /// Reads an object or a list.
    pub fn get(&self, path: &str, params: Params<'_>) -> Result<Value, CallError> {
        self.value(Method::Get, path, params, None)
    }

    /// Reads one page of a list; also returns where the next one begins, empty = this was the last.
    pub fn page(&self, path: &str, params: Params<'_>) -> Result<(Value, String), CallError> {
        let exchange = self.call(Method::Get, path, params, None)?;
        Ok((read(exchange.body)?, exchange.next))
    }

    /// Writes; the body is JSON.
    pub fn put(&self, path: &str, params: Params<'_>, body: Option<&Value>) -> Result<Value, CallError> {
        self.value(Method::Put, path, params, body)
    }

    /// Deletes.
    pub fn delete(&self, path: &str, params: Params<'_>) -> Result<Value, CallError> {
        self.value(Method::Delete, path, params, None)
    }

    /// Opens a stream of bytes.
    pub fn open(&self, path: &str, params: Params<'_>) -> Result<Box<dyn Read + Send>, CallError> {
        Ok(self.call(Method::Get, path, params, None)?.body)
    }

    fn value(&self, method: Method, path: &str, params: Params<'_>, body: Option<&Value>) -> Result<Value, CallError> {
        read(self.call(method, path, params, body)?.body)
    }

    fn call(&self, method: Method, path: &str, params: Params<'_>, body: Option<&Value>) -> Result<Exchange, CallError> {
        let target = self.target(path, params);
        let body = body.map(Value::to_string).unwrap_or_default();
        let ask = Ask { method, target: &target, token: &self.token, body: body.as_bytes() };
        let exchange = self.transport.exchange(&ask).map_err(CallError::Unreachable)?;
        if exchange.status == 200 {
            return Ok(exchange);
        }
        // A connection that breaks inside an error text still leaves the status and what came of the text.
        let mut text = Vec::new();
        let _ = exchange.body.take(ERROR_BYTES_MAX).read_to_end(&mut text);
        Err(CallError::Status { code: exchange.status, text: String::from_utf8_lossy(&text).into_owned() })
    }

    /// Path and query with the parameters every call carries.
    fn target(&self, path: &str, params: Params<'_>) -> String {
        let own = [("region", self.region.as_str()), ("namespace", self.namespace.as_str())];
        let own = own.iter().filter(|(name, _)| !params.iter().any(|(given, value)| given == name && !value.is_empty()));
        let mut target = path.to_owned();
        let mut glue = '?';
        for (name, value) in params.iter().chain(own).filter(|(_, value)| !value.is_empty()) {
            target.extend([glue]);
            target.push_str(name);
            target.push('=');
            encode(value, &mut target);
            glue = '&';
        }
        target
    }
}

/// An answer that is read whole.
fn read(body: Box<dyn Read + Send>) -> Result<Value, CallError> {
    let mut bytes = Vec::new();
    let garbled = |why| CallError::Garbled { why };
    let read = body.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(garbled)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > ANSWER_BYTES_MAX {
        return Err(garbled(io::Error::other(format!("more than {ANSWER_BYTES_MAX} bytes"))));
    }
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).map_err(|why| garbled(why.into()))
}

/// `/v1/` and the segments, each percent-encoded: identifiers may contain slashes.
#[must_use]
pub fn path(segments: &[&str]) -> String {
    let mut path = String::from("/v1");
    for segment in segments {
        path.push('/');
        encode(segment, &mut path);
    }
    path
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
fn encode(text: &str, out: &mut String) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.extend(['%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u16, &'static [u8]);

    impl Transport for Fixed {
        fn exchange(&self, _: &Ask<'_>) -> Result<Exchange, ClientError> {
            match self.0 {
                0 => Err(ClientError::Unreachable { address: "http://x".into(), cause: io::ErrorKind::ConnectionRefused.into() }),
                status => Ok(Exchange { status, next: String::new(), body: Box::new(self.1) }),
            }
        }
    }

    fn client(transport: &dyn Transport) -> Client<'_> {
        Client { transport, token: String::new(), region: String::new(), namespace: String::new() }
    }

    #[test]
    fn targets() {
        let transport = Fixed(200, b"{}");
        let mut client = client(&transport);
        assert_eq!(path(&["job", "a/b c", "plan"]), "/v1/job/a%2Fb%20c/plan");
        assert_eq!(client.target("/v1/jobs", &[("prefix", "a&b=é"), ("index", "")]), "/v1/jobs?prefix=a%26b%3D%C3%A9");
        client.namespace = "*".into();
        client.region = "global".into();
        assert_eq!(client.target("/v1/jobs", &[]), "/v1/jobs?region=global&namespace=%2A");
        assert_eq!(client.target("/v1/jobs", &[("namespace", "local")]), "/v1/jobs?namespace=local&region=global");
        assert_eq!(client.target("/v1/jobs", &[("namespace", "")]), "/v1/jobs?region=global&namespace=%2A");
    }

    #[test]
    fn answers() {
        #[track_caller]
        fn check(status: u16, body: &'static [u8], want: &str) {
            let got = match client(&Fixed(status, body)).get("/v1/x", &[]) {
                Ok(value) => value.to_string(),
                Err(error) => error.to_string(),
            };
            assert!(got.starts_with(want), "{got}");
        }
        check(200, b"{\"a\":1}", "{\"a\":1}");
        check(200, b"", "null");
        check(200, b"{\"a\":", "unreadable answer: EOF while parsing");
        check(404, b"alloc not found", "alloc not found (status 404)");
        check(500, b"2 errors occurred:\n\t* a\n\t* b\n\n", "2 errors occurred:\n\t* a\n\t* b (status 500)");
        check(429, b"", "the agent answered with status 429");
        check(400, b"bad \xff", "bad \u{fffd} (status 400)");
        check(0, b"", "cannot reach the agent at http://x: connection refused");
    }
}
