//! Bytes <-> types, pure: JSON from outside, Go's texts, frames of streams, requests as values.
//!
//! Never: sockets, decisions about what a value means.

pub mod bexpr;
pub mod go_text;
pub mod http;
pub mod json;
pub mod stream_frame;
pub mod tzif;
