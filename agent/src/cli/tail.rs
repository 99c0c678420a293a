//! The end of a log or file: how far back to ask, and which lines of it to show. Pure but for [`frames`], which reads.
//!
//! Shape: raw bytes -> the part to show. Units: bytes, lines. The agent counts in bytes, people in lines: we ask for
//! [`LINE_BYTES_GUESS`] bytes per wanted line and cut the surplus; if lines are longer than that, fewer are shown.
//! Bound: never more than [`TAIL_BYTES_MAX`] are held back. Errors: a frame that cannot be decoded ends the stream.
//! Source: `spec/http-api.md` 5.4; upstream v1.10.5 command/alloc_logs.go and helpers.go (behaviour only; it guesses 120).

use std::io::{self, Read};

use crate::wire::stream_frame::Received;

/// Lines shown when a tail is asked for without a number.
pub const LINES_DEFAULT: u64 = 10;
/// Guessed length of one line.
pub const LINE_BYTES_GUESS: u64 = 512;
/// Most bytes asked for, and held back, to find lines in.
pub const TAIL_BYTES_MAX: u64 = 1 << 20;

/// Where reading starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first byte.
    Beginning,
    /// So many bytes before the end.
    Bytes(u64),
    /// So many lines before the end.
    Lines(u64),
}

impl Start {
    /// From the flags `-tail`, `-n` and `-c`; each of the latter two implies the first.
    pub fn of(tail: bool, lines: Option<u64>, bytes: Option<u64>) -> Result<Self, &'static str> {
        match (lines, bytes) {
            (Some(_), Some(_)) => Err("-n counts lines and -c counts bytes: give one of them"),
            (Some(lines), None) => Ok(Self::Lines(lines)),
            (None, Some(bytes)) => Ok(Self::Bytes(bytes)),
            (None, None) if tail => Ok(Self::Lines(LINES_DEFAULT)),
            (None, None) => Ok(Self::Beginning),
        }
    }

    /// How many bytes before the end to ask for; `None` = start at the beginning.
    #[must_use]
    pub fn offset(self) -> Option<u64> {
        match self {
            Self::Beginning => None,
            Self::Bytes(bytes) => Some(bytes),
            Self::Lines(lines) => Some(lines.saturating_mul(LINE_BYTES_GUESS).min(TAIL_BYTES_MAX)),
        }
    }

    /// What cuts the surplus off.
    #[must_use]
    pub fn cutter(self) -> Cutter {
        match self {
            Self::Lines(lines) => Cutter { lines, held: Some(Vec::new()) },
            Self::Beginning | Self::Bytes(_) => Cutter { lines: 0, held: None },
        }
    }
}

/// Holds back what was there at the start until its last lines are known, then lets everything through.
#[derive(Debug)]
pub struct Cutter {
    lines: u64,
    /// `None` once everything goes through.
    held: Option<Vec<u8>>,
}

impl Cutter {
    /// Takes the next bytes; returns what to show now.
    pub fn push(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        let Some(held) = &mut self.held else { return bytes };
        held.extend_from_slice(&bytes);
        if u64::try_from(held.len()).unwrap_or(u64::MAX) > Self::held_max(self.lines) { self.flush() } else { Vec::new() }
    }

    /// The stream is idle or over: the last lines of what was held back.
    pub fn flush(&mut self) -> Vec<u8> {
        let mut held = self.held.take().unwrap_or_default();
        held.split_off(held.len() - last_lines(&held, self.lines).len())
    }

    /// More than this cannot have been there at the start: the rest is new and must be shown.
    fn held_max(lines: u64) -> u64 {
        Start::Lines(lines).offset().unwrap_or(0)
    }
}

/// The last `lines` lines of `bytes`; a line without its line break counts.
fn last_lines(bytes: &[u8], lines: u64) -> &[u8] {
    if lines == 0 {
        return &[];
    }
    let body = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let breaks = body.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let nth = usize::try_from(lines - 1).unwrap_or(usize::MAX);
    let start = breaks.map(|(at, _)| at + 1).nth(nth).unwrap_or(0);
    bytes.get(start..).unwrap_or(&[])
}

/// The frames of a stream, read one at a time.
pub fn frames(stream: impl Read) -> impl Iterator<Item = io::Result<Received>> {
    serde_json::Deserializer::from_reader(io::BufReader::new(stream)).into_iter().map(|frame| frame.map_err(io::Error::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_start() {
        #[track_caller]
        fn check(tail: bool, lines: Option<u64>, bytes: Option<u64>, want: Start, offset: Option<u64>) {
            let start = Start::of(tail, lines, bytes).unwrap();
            assert_eq!((start, start.offset()), (want, offset));
        }
        check(false, None, None, Start::Beginning, None);
        check(true, None, None, Start::Lines(10), Some(5120));
        check(false, Some(3), None, Start::Lines(3), Some(1536));
        check(true, Some(0), None, Start::Lines(0), Some(0));
        check(true, None, Some(70), Start::Bytes(70), Some(70));
        check(true, Some(u64::MAX), None, Start::Lines(u64::MAX), Some(TAIL_BYTES_MAX));
        assert!(Start::of(true, Some(1), Some(1)).is_err());
    }

    #[test]
    fn lines_from_the_end() {
        #[track_caller]
        fn check(bytes: &str, lines: u64, want: &str) {
            assert_eq!(last_lines(bytes.as_bytes(), lines), want.as_bytes(), "{bytes:?} {lines}");
        }
        check("", 3, "");
        check("a", 1, "a");
        check("a\nb\nc\n", 0, "");
        check("a\nb\nc\n", 1, "c\n");
        check("a\nb\nc\n", 2, "b\nc\n");
        check("a\nb\nc\n", 3, "a\nb\nc\n");
        check("a\nb\nc\n", u64::MAX, "a\nb\nc\n");
        check("a\nb\nc", 2, "b\nc");
        check("a\n\n\n", 2, "\n\n");
        check("\n", 1, "\n");
        check("\n", 5, "\n");
    }

    /// What is shown after each push, then after the flush and one more push.
    #[track_caller]
    fn check_cut(start: Start, pushes: &[&str], want: &[&str]) {
        let mut cutter = start.cutter();
        let mut shown: Vec<Vec<u8>> = pushes.iter().map(|bytes| cutter.push(bytes.as_bytes().to_vec())).collect();
        shown.push(cutter.flush());
        shown.push(cutter.push(b"new\n".to_vec()));
        shown.push(cutter.flush());
        assert_eq!(shown, want.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>());
    }

    #[test]
    fn cutting() {
        check_cut(Start::Beginning, &["a\n", "b\n"], &["a\n", "b\n", "", "new\n", ""]);
        check_cut(Start::Bytes(2), &["a\n"], &["a\n", "", "new\n", ""]);
        check_cut(Start::Lines(2), &["a\nb", "\nc\n"], &["", "", "b\nc\n", "new\n", ""]);
        check_cut(Start::Lines(0), &[""], &["", "", "new\n", ""]);
        let long = "x".repeat(600) + "\n";
        check_cut(Start::Lines(1), &[&long, "y\n"], &[&long, "y\n", "", "new\n", ""]);
    }

    #[test]
    fn framed_streams() {
        #[track_caller]
        fn check(stream: &str, want: &[&str]) {
            let shown: Vec<String> = frames(stream.as_bytes())
                .map(|frame| match frame {
                    Ok(frame) if frame.is_heartbeat() => "beat".to_owned(),
                    Ok(frame) => format!("{}:{}:{}", frame.file, frame.file_event, String::from_utf8_lossy(&frame.data)),
                    Err(why) => why.to_string(),
                })
                .collect();
            assert_eq!(shown, want);
        }
        check("", &[]);
        check(r#"{}{"Data":"YWJjCg==","File":"f","Offset":4}{}"#, &["beat", "f::abc\n", "beat"]);
        check("{}\n{}", &["beat", "beat"]);
        check(r#"{"File":"f","FileEvent":"file deleted"}"#, &["f:file deleted:"]);
        check(r#"{}{"Data":"YW"#, &["beat", "EOF while parsing a string at line 1 column 13"]);
        check(r#"{"Data":"*"}"#, &["Invalid symbol 42, offset 0. at line 1 column 12"]);
        check("{}oops", &["beat", "expected value at line 1 column 3"]);
    }
}
