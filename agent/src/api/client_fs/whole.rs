//! Answers that are looked up once: a listing, one entry, the bytes of a file. Pure machines.

use std::collections::VecDeque;

use dunlin_hal::clock::Now;
use dunlin_runtime::fs::stat::Entry;
use dunlin_runtime::id::AllocId;
use serde::Serialize;

use super::{PIECE_BYTES, Query, Verb, gone};
use crate::api::body::{Answer, Fact, Machine, Step, Work};
use crate::wire::go_text;
use crate::wire::http::{Head, JSON, TEXT};

/// Bytes that decide the content type.
const SNIFF_BYTES: usize = 512;
/// Neither text nor known.
const BINARY: &str = "application/octet-stream";

/// How documents are written: on one line, or for eyes (`pretty`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Compact,
    Pretty,
}

impl Shape {
    pub(super) fn of(query: &Query) -> Self {
        match query.iter().find(|(key, _)| key == "pretty") {
            Some((_, value)) if value != "0" => Self::Pretty,
            _ => Self::Compact,
        }
    }

    /// One object, indented by `depth` levels of four blanks after its first line.
    fn write(self, value: &impl Serialize, depth: usize, out: &mut Vec<u8>) {
        let start = out.len();
        let written = match self {
            Self::Compact => value.serialize(&mut serde_json::Serializer::new(&mut *out)),
            Self::Pretty => {
                // Deeper by the depth of the list around it: every object here is flat.
                let indent = b"    ".repeat(depth + 1);
                let format = serde_json::ser::PrettyFormatter::with_indent(&indent);
                value.serialize(&mut serde_json::Serializer::with_formatter(&mut *out, format))
            }
        };
        if self == Self::Pretty && written.is_ok() && out.pop() == Some(b'}') {
            out.extend_from_slice(&b"    ".repeat(depth));
            out.push(b'}');
        }
        debug_assert!(written.is_ok() && out.len() > start);
    }
}

/// An entry on the wire; members in the order of their names.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct FileInfo<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'static str>,
    file_mode: String,
    is_dir: bool,
    mod_time: String,
    name: &'a str,
    size: u64,
}

impl<'a> FileInfo<'a> {
    fn new(entry: &'a Entry, content_type: Option<&'static str>) -> Self {
        Self {
            content_type,
            file_mode: entry.mode_text(),
            is_dir: entry.is_dir,
            mod_time: go_text::time(entry.modified_at.0),
            name: &entry.name,
            size: entry.size,
        }
    }
}

/// Text, unless one of the first bytes is one that text does not have (the rule of Go's sniffer).
fn sniff(bytes: &[u8]) -> &'static str {
    let is_binary = bytes.iter().take(SNIFF_BYTES).any(|byte| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f));
    if is_binary { BINARY } else { TEXT }
}

/// `ls`.
#[derive(Debug)]
pub(super) struct Listing {
    alloc: AllocId,
    path: String,
    shape: Shape,
    state: ListingState,
}

#[derive(Debug)]
enum ListingState {
    Asking,
    Looking,
    Begun(VecDeque<Entry>),
    Sending(VecDeque<Entry>),
    Sent,
}

impl Listing {
    pub(super) fn new(alloc: AllocId, path: &str, shape: Shape) -> Self {
        Self { alloc, path: path.to_owned(), shape, state: ListingState::Asking }
    }

    /// The next entries, with the list's brackets where they belong.
    fn write(&self, entries: &mut VecDeque<Entry>, is_first: bool, out: &mut Vec<u8>) {
        let line: &[u8] = if self.shape == Shape::Pretty { b"\n    " } else { b"" };
        let mut separator: &[u8] = if is_first { b"[" } else { b"," };
        while out.len() < PIECE_BYTES
            && let Some(entry) = entries.pop_front()
        {
            out.extend_from_slice(separator);
            out.extend_from_slice(line);
            self.shape.write(&FileInfo::new(&entry, None), 1, out);
            separator = b",";
        }
        if entries.is_empty() {
            let end: &[u8] = match (self.shape, out.is_empty()) {
                (Shape::Compact, false) => b"]",
                (Shape::Compact, true) => b"[]",
                (Shape::Pretty, false) => b"\n]\n",
                (Shape::Pretty, true) => b"[]\n",
            };
            out.extend_from_slice(end);
        }
    }
}

impl Machine for Listing {
    fn step(&mut self, _now: Now, fact: Fact<'_>, out: &mut Vec<u8>) -> Step {
        match (core::mem::replace(&mut self.state, ListingState::Sent), fact) {
            (ListingState::Asking, Fact::Ready) => {
                self.state = ListingState::Looking;
                Step::Work(Work::List { alloc: self.alloc, path: self.path.clone() })
            }
            (ListingState::Looking, Fact::Done(Ok(Answer::Entries(entries)))) => {
                self.state = ListingState::Begun(entries.into());
                Step::Head(Head::new(200, JSON))
            }
            (ListingState::Looking, Fact::Done(Err(error))) => Step::Fail(Verb::List.refuse(&error)),
            (ListingState::Asking | ListingState::Looking, Fact::Gone) => Step::Fail(gone(self.alloc)),
            (ListingState::Begun(mut entries), Fact::Ready) => {
                self.write(&mut entries, true, out);
                self.state = if entries.is_empty() { ListingState::Sent } else { ListingState::Sending(entries) };
                Step::Emit
            }
            (ListingState::Sending(mut entries), Fact::Ready) => {
                self.write(&mut entries, false, out);
                self.state = if entries.is_empty() { ListingState::Sent } else { ListingState::Sending(entries) };
                Step::Emit
            }
            (ListingState::Sent, _) => Step::End,
            _ => Step::Abort,
        }
    }
}

/// `stat`. The content type is looked for as far as the file may be read.
#[derive(Debug)]
pub(super) struct Looked {
    alloc: AllocId,
    path: String,
    shape: Shape,
    entry: Entry,
    content_type: &'static str,
    state: LookedState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LookedState {
    Asking,
    Looking,
    Opening,
    Sniffing,
    Begun,
    Sent,
}

impl Looked {
    pub(super) fn new(alloc: AllocId, path: &str, shape: Shape) -> Self {
        Self { alloc, path: path.to_owned(), shape, entry: Entry::default(), content_type: BINARY, state: LookedState::Asking }
    }

    fn head(&mut self, content_type: &'static str) -> Step {
        self.content_type = content_type;
        self.state = LookedState::Begun;
        Step::Head(Head::new(200, JSON))
    }
}

impl Machine for Looked {
    fn step(&mut self, _now: Now, fact: Fact<'_>, out: &mut Vec<u8>) -> Step {
        match (self.state, fact) {
            (LookedState::Asking, Fact::Ready) => {
                self.state = LookedState::Looking;
                Step::Work(Work::Stat { alloc: self.alloc, path: self.path.clone() })
            }
            (LookedState::Looking, Fact::Done(Ok(Answer::Entry(entry)))) => {
                self.entry = entry;
                if self.entry.name.is_empty() {
                    self.entry.name = self.alloc.to_string();
                }
                if self.entry.name.ends_with(".json") {
                    return self.head(JSON);
                }
                if !self.entry.is_regular() || self.entry.size == 0 {
                    return self.head(BINARY);
                }
                self.state = LookedState::Opening;
                Step::Work(Work::Open { alloc: self.alloc, path: self.path.clone() })
            }
            (LookedState::Looking, Fact::Done(Err(error))) => Step::Fail(Verb::Stat.refuse(&error)),
            (LookedState::Opening, Fact::Done(Ok(_))) => {
                self.state = LookedState::Sniffing;
                Step::Read { at: 0, bytes_max: SNIFF_BYTES }
            }
            (LookedState::Sniffing, Fact::Bytes(bytes)) if !bytes.is_empty() => self.head(sniff(bytes)),
            // A secret, or gone: it can be seen all the same.
            (LookedState::Opening | LookedState::Sniffing, Fact::Bytes(_) | Fact::Done(_)) => self.head(BINARY),
            (LookedState::Begun, Fact::Ready) => {
                self.shape.write(&FileInfo::new(&self.entry, Some(self.content_type)), 0, out);
                if self.shape == Shape::Pretty {
                    out.push(b'\n');
                }
                self.state = LookedState::Sent;
                Step::Emit
            }
            (LookedState::Sent, _) => Step::End,
            (LookedState::Begun, _) => Step::Abort,
            (_, Fact::Gone) => Step::Fail(gone(self.alloc)),
            _ => Step::Abort,
        }
    }
}

/// `cat` and `readat`.
#[derive(Debug)]
pub(super) struct Cat {
    alloc: AllocId,
    path: String,
    offset: u64,
    /// Bytes still to be sent; `None` = to the end of the file.
    left: Option<u64>,
    frame_bytes_max: usize,
    state: CatState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CatState {
    Asking,
    Opening,
    Sniffing,
    Sending,
    Reading,
}

impl Cat {
    pub(super) fn new(alloc: AllocId, path: &str, offset: u64, left: Option<u64>, frame_bytes_max: usize) -> Self {
        Self { alloc, path: path.to_owned(), offset, left, frame_bytes_max, state: CatState::Asking }
    }

    fn read(&mut self, state: CatState, bytes_max: usize) -> Step {
        let left = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        if left == 0 {
            return Step::End;
        }
        self.state = state;
        Step::Read { at: self.offset, bytes_max: bytes_max.min(left) }
    }
}

impl Machine for Cat {
    fn step(&mut self, _now: Now, fact: Fact<'_>, out: &mut Vec<u8>) -> Step {
        match (self.state, fact) {
            (CatState::Asking, Fact::Ready) => {
                self.state = CatState::Opening;
                Step::Work(Work::Open { alloc: self.alloc, path: self.path.clone() })
            }
            (CatState::Opening, Fact::Done(Ok(_))) => self.read(CatState::Sniffing, SNIFF_BYTES),
            (CatState::Sniffing, Fact::Bytes(bytes)) => {
                self.state = CatState::Sending;
                let mut head = Head::new(200, sniff(bytes));
                // A browser must not run what a task wrote.
                head.headers.extend([
                    ("X-Content-Type-Options", "nosniff".to_owned()),
                    ("X-XSS-Protection", "1; mode=block".to_owned()),
                    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox".to_owned()),
                ]);
                Step::Head(head)
            }
            (CatState::Opening | CatState::Sniffing, Fact::Done(Err(error))) => Step::Fail(Verb::Cat.refuse(&error.on(&self.path))),
            (CatState::Asking | CatState::Opening | CatState::Sniffing, Fact::Gone) => Step::Fail(gone(self.alloc)),
            (CatState::Sending, Fact::Ready) => self.read(CatState::Reading, self.frame_bytes_max),
            (CatState::Reading, Fact::Bytes([])) => Step::End,
            (CatState::Reading, Fact::Bytes(bytes)) => {
                let bytes_n = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                self.offset = self.offset.saturating_add(bytes_n);
                self.left = self.left.map(|left| left.saturating_sub(bytes_n));
                out.extend_from_slice(bytes);
                self.state = CatState::Sending;
                Step::Emit
            }
            // Part of the file is on its way: the client must see that the rest is missing.
            _ => Step::Abort,
        }
    }
}
