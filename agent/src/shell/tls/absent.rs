//! What stands in the place of `shell/tls.rs` in a build without the feature `tls`: asking for TLS is an error, never plain text.

use std::io;

use super::client::Trust;
use super::h1::BoxStream;
use crate::config::TlsFiles;

/// There is none.
pub enum Acceptor {}

/// There is none.
pub enum Connector {}

fn none<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this build has no TLS (cargo feature `tls`)"))
}

/// Refuses.
pub fn acceptor(_: &TlsFiles) -> io::Result<Acceptor> {
    none()
}

/// Refuses.
pub fn connector(_: &Trust) -> io::Result<Connector> {
    none()
}

impl Acceptor {
    /// Never called.
    pub async fn accept(&self, _: BoxStream) -> io::Result<BoxStream> {
        match *self {}
    }
}

impl Connector {
    /// Never called.
    pub async fn connect(&self, _: &str, _: BoxStream) -> io::Result<BoxStream> {
        match *self {}
    }
}
