//! Frames of log, file and monitor streams: JSON objects one after the other, without anything between them. Pure.
//!
//! ```text
//! {"Data":"<base64>","File":"alloc/logs/web.stdout.0","FileEvent":"file truncated","Offset":8}   each member absent when empty or 0
//! {}                                                                                             heartbeat
//! ```
//! Shape: [`Frame`] -> bytes appended to the connection's one buffer; [`decode`] is the way back, for readers and tests.
//! Source: `spec/http-api.md` 5.4; upstream v1.3.1 client/lib/streamframer/framer.go (behaviour only).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize};

/// Says that the stream is alive.
pub const HEARTBEAT: &[u8] = b"{}";

/// One frame to be sent. An empty one is a heartbeat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Raw bytes, at most 64 KiB by the contract.
    pub data: &'a [u8],
    /// The file they come from.
    pub file: &'a str,
    /// `file deleted`, `file truncated`, `log`, or empty.
    pub event: &'a str,
    /// Position in the file just after `data`.
    pub offset: u64,
}

/// The members besides `Data`, in the order of their names.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Rest<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    file: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    file_event: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl Frame<'_> {
    /// Appends the frame to `out`. The bytes are written once, straight into the buffer.
    pub fn encode(&self, out: &mut Vec<u8>) {
        const DATA: &[u8] = b"{\"Data\":\"";
        if self.data.is_empty() {
            self.encode_rest(out);
            return;
        }
        out.extend_from_slice(DATA);
        let start = out.len();
        out.resize(start + base64::encoded_len(self.data.len(), true).unwrap_or_default(), 0);
        // The room is what `encoded_len` said: it always fits.
        let _ = STANDARD.encode_slice(self.data, out.get_mut(start..).unwrap_or_default());
        out.push(b'"');
        let rest = out.len();
        self.encode_rest(out);
        if out.get(rest..) == Some(HEARTBEAT) {
            out.remove(rest);
        } else if let Some(brace) = out.get_mut(rest) {
            *brace = b',';
        }
    }

    fn encode_rest(&self, out: &mut Vec<u8>) {
        let start = out.len();
        // Names, quotes and a number, and a character of a name as `\u0000` at worst.
        out.resize(start + 64 + 6 * (self.file.len() + self.event.len()), 0);
        let rest = Rest { file: self.file, file_event: self.event, offset: self.offset };
        let len = serde_json_core::to_slice(&rest, out.get_mut(start..).unwrap_or_default()).unwrap_or_default();
        out.truncate(start + len);
    }
}

/// A frame that was received.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Received {
    /// Raw bytes.
    #[serde(deserialize_with = "base64_bytes")]
    pub data: Vec<u8>,
    /// The file they come from.
    pub file: String,
    /// What happened, or empty.
    pub file_event: String,
    /// Position in the file just after `data`.
    pub offset: u64,
}

impl Received {
    /// True for `{}`.
    #[must_use]
    pub fn is_heartbeat(&self) -> bool {
        *self == Self::default()
    }
}

fn base64_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = Option::<String>::deserialize(from)?.unwrap_or_default();
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}

/// Reads frames one after the other, with or without white space between them. A frame cut short is an error that `is_eof`.
pub fn decode(bytes: &[u8]) -> impl Iterator<Item = Result<Received, serde_json::Error>> {
    serde_json::Deserializer::from_slice(bytes).into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes on the wire and the frames they hold, both ways.
    #[track_caller]
    fn check(wire: &str, frames: &[Frame<'_>]) {
        let mut out = b"before".to_vec();
        for frame in frames {
            frame.encode(&mut out);
        }
        assert_eq!(str::from_utf8(&out), Ok(format!("before{wire}").as_str()));
        let received: Vec<Received> = decode(wire.as_bytes()).collect::<Result<_, _>>().unwrap();
        assert_eq!(received.len(), frames.len());
        for (got, want) in received.iter().zip(frames) {
            assert_eq!(
                (got.data.as_slice(), got.file.as_str(), got.file_event.as_str(), got.offset),
                (want.data, want.file, want.event, want.offset)
            );
        }
    }

    fn frame<'a>(data: &'a [u8], file: &'a str, event: &'a str, offset: u64) -> Frame<'a> {
        Frame { data, file, event, offset }
    }

    #[test]
    fn recorded_frames_both_ways() {
        let line = b"2023-11-14T22:13:20.000Z [INFO]  client: alloc started: alloc_id=0a1b2c3d\n";
        check(
            "{}{\"Data\":\"MjAyMy0xMS0xNFQyMjoxMzoyMC4wMDBaIFtJTkZPXSAgY2xpZW50OiBhbGxvYyBzdGFydGVkOiBhbGxvY19pZD0wYTFiMmMzZAo=\",\"FileEvent\":\"log\"}",
            &[Frame::default(), frame(line, "", "log", 0)],
        );
        check(
            "{\"Data\":\"YWJj\",\"File\":\"/alloc/data/f\",\"Offset\":3}{\"Data\":\"eA==\",\"File\":\"/alloc/data/f\",\"FileEvent\":\"file truncated\",\"Offset\":1}{}{\"File\":\"/alloc/data/f\",\"FileEvent\":\"file deleted\",\"Offset\":1}",
            &[
                frame(b"abc", "/alloc/data/f", "", 3),
                frame(b"x", "/alloc/data/f", "file truncated", 1),
                Frame::default(),
                frame(b"", "/alloc/data/f", "file deleted", 1),
            ],
        );
        check(
            "{}{\"Data\":\"b25lCnR3bwo=\",\"File\":\"alloc/logs/ctl.stdout.0\",\"Offset\":8}{}{\"Data\":\"dGhyZWUK\",\"File\":\"alloc/logs/ctl.stdout.1\",\"Offset\":6}",
            &[
                Frame::default(),
                frame(b"one\ntwo\n", "alloc/logs/ctl.stdout.0", "", 8),
                Frame::default(),
                frame(b"three\n", "alloc/logs/ctl.stdout.1", "", 6),
            ],
        );
    }

    #[test]
    fn odd_members() {
        check("{\"Data\":\"AA==\"}", &[frame(b"\0", "", "", 0)]);
        check("{\"Offset\":18446744073709551615}", &[frame(b"", "", "", u64::MAX)]);
        check("{\"File\":\"a\\\"\\\\\\n\\u0001ä日\u{10ffff}<>&\"}", &[frame(b"", "a\"\\\n\u{1}ä日\u{10ffff}<>&", "", 0)]);
    }

    #[test]
    fn every_length_and_the_worst_name_fit() {
        let data: Vec<u8> = (0..=255).cycle().take(16 << 10).collect();
        let name = "\u{1}".repeat(8 << 10);
        for len in (0..100).chain([16 << 10]) {
            let mut out = Vec::new();
            frame(&data[..len], &name, "file truncated", u64::MAX).encode(&mut out);
            let got: Vec<Received> = decode(&out).collect::<Result<_, _>>().unwrap();
            assert_eq!(got.len(), 1);
            assert_eq!((got[0].data.as_slice(), got[0].file.as_str(), got[0].offset), (&data[..len], name.as_str(), u64::MAX));
        }
    }

    #[test]
    fn what_others_send_is_read() {
        let got: Vec<_> = decode(b" {}\n{\"Offset\":1,\"Data\":null,\"New\":[1]} ").collect::<Result<_, _>>().unwrap();
        assert!(got[0].is_heartbeat() && got[1].offset == 1);
        for bad in ["{\"Data\":\"?\"}", "{\"Data\":1}", "{\"Offset\":-1}", "x", "\"x\""] {
            assert!(decode(bad.as_bytes()).next().unwrap().is_err(), "{bad}");
        }
        assert!(decode(b"{\"Data\":\"YW").next().unwrap().unwrap_err().is_eof());
    }
}
