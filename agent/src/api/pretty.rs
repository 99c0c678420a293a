//! Documents for eyes: `pretty` in a query (`spec/http-api.md` 1.2). Four blanks a level and a line break at the end.
//!
//! Shape: the bytes of one JSON document, in pieces -> the same document, indented. Pure; wraps the bodies that make documents.
//! Units: bytes. Invariant: what a decoder reads is the same. Never: a document in memory; frames of streams.   Errors: none.

use dunlin_hal::clock::Now;

use super::body::{Body, Fact, Machine, Rows, Step};
use super::error::ApiError;
use crate::store::view::View;

/// Where in the document the last piece ended.
#[derive(Debug, Default)]
struct Indenter {
    depth: usize,
    in_string: bool,
    is_escaped: bool,
    /// A bracket was opened and nothing stands behind it yet.
    is_open: bool,
}

impl Indenter {
    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + 4 * self.depth, b' ');
    }

    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        for &byte in piece {
            if self.in_string {
                self.in_string = byte != b'"' || self.is_escaped;
                self.is_escaped = byte == b'\\' && !self.is_escaped;
                out.push(byte);
                continue;
            }
            let is_end = matches!(byte, b'}' | b']');
            let was_open = core::mem::take(&mut self.is_open);
            if is_end {
                self.depth = self.depth.saturating_sub(1);
            }
            if was_open != is_end {
                self.line(out);
            }
            out.push(byte);
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => {
                    self.depth += 1;
                    self.is_open = true;
                }
                b',' => self.line(out),
                b':' => out.push(b' '),
                _ => {}
            }
        }
    }
}

/// The same body, indented.
pub fn body(body: Body) -> Body {
    match body {
        Body::Full(bytes) => {
            let mut out = Vec::with_capacity(bytes.len() * 2);
            Indenter::default().push(&bytes, &mut out);
            out.push(b'\n');
            Body::Full(out)
        }
        Body::Rows(rows) => Body::Rows(Box::new(Indented { inner: rows, indenter: Indenter::default(), is_over: false })),
        Body::Machine(machine) => Body::Machine(Box::new(Indented { inner: machine, indenter: Indenter::default(), is_over: false })),
    }
}

struct Indented<T: ?Sized> {
    indenter: Indenter,
    is_over: bool,
    inner: Box<T>,
}

impl Rows for Indented<dyn Rows> {
    fn step(&mut self, view: &View<'_>, out: &mut Vec<u8>) -> Result<bool, ApiError> {
        let mut piece = Vec::new();
        let is_more = self.inner.step(view, &mut piece)?;
        self.indenter.push(&piece, out);
        if !is_more {
            out.push(b'\n');
        }
        Ok(is_more)
    }

    fn headers(&mut self) -> Vec<(&'static str, String)> {
        self.inner.headers()
    }
}

impl Machine for Indented<dyn Machine> {
    fn step(&mut self, now: Now, fact: Fact<'_>, out: &mut Vec<u8>) -> Step {
        if self.is_over {
            return Step::End;
        }
        let mut piece = Vec::new();
        let step = self.inner.step(now, fact, &mut piece);
        self.indenter.push(&piece, out);
        match step {
            Step::End => {
                self.is_over = true;
                out.push(b'\n');
                Step::Emit
            }
            step => step,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(document: &str, want: &str) {
        // In one piece, and byte by byte.
        for piece_bytes in [document.len().max(1), 1] {
            let (mut indenter, mut out) = (Indenter::default(), Vec::new());
            for piece in document.as_bytes().chunks(piece_bytes) {
                indenter.push(piece, &mut out);
            }
            assert_eq!(String::from_utf8_lossy(&out), want, "in pieces of {piece_bytes}");
        }
    }

    #[test]
    fn documents() {
        check("null", "null");
        check("[]", "[]");
        check("{}", "{}");
        check(r#"{"a":1}"#, "{\n    \"a\": 1\n}");
        check(r#"[{"a":[]},2]"#, "[\n    {\n        \"a\": []\n    },\n    2\n]");
        check(r#"{"a":"{\"[,:\\"}"#, "{\n    \"a\": \"{\\\"[,:\\\\\"\n}");
        // Not JSON, and still no panic.
        check("}]", "\n}\n]");
    }
}
