//! TLS 1.3 over a connected stream: rustls with ring gives a [`BoxStream`] again, so nothing above knows the difference.
//!
//! Shape: PEM files -> [`Acceptor`] or [`Connector`]; stream -> handshake -> stream. Decides nothing about meaning.
//! Never: TLS 1.2, session tickets, resumption, early data. A renewed certificate is read at the next start.
//! Bounds: [`PEM_BYTES_MAX`] per file, [`HELD_BYTES_MAX`] of unsent bytes per connection; the deadline of a handshake is the caller's.
//! Errors: `io::Error`s that name the file. A build without the feature `tls` has `tls/absent.rs` in the place of this file.
//! Source: decision 15, `spec/dependencies.md` 3.4.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use futures_rustls::pki_types::pem::PemObject as _;
use futures_rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use futures_rustls::rustls::crypto::{CryptoProvider, ring};
use futures_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use futures_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, client::Resumption};
use futures_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::client::Trust;
use super::h1::{BoxStream, Stream};
use crate::config::TlsFiles;

/// Longest PEM file; the system's bundle of authorities is a quarter of it.
const PEM_BYTES_MAX: u64 = 1 << 20;
/// Bytes that rustls may hold of what a slow peer has not taken.
const HELD_BYTES_MAX: usize = 16 << 10;
/// Authorities trusted by a client that names none.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The one protocol spoken inside.
const ALPN: &[u8] = b"http/1.1";

/// The server's side of handshakes.
pub struct Acceptor(TlsAcceptor);

/// Reads the server's certificate, its key and, when clients must show one too, their authorities.
pub fn acceptor(files: &TlsFiles) -> io::Result<Acceptor> {
    let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(path)?), provider());
            builder.with_client_cert_verifier(verifier.build().map_err(|why| named(path, why))?)
        }
    };
    let mut config = builder
        .with_single_cert(chain(&files.cert)?, key(&files.key)?)
        .map_err(|why| named(&files.cert, format!("with {}: {why}", files.key.display())))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Acceptor(Arc::new(config).into()))
}

impl Acceptor {
    /// Shakes hands.
    pub async fn accept(&self, stream: BoxStream) -> io::Result<BoxStream> {
        Ok(Box::new(self.0.accept_with(stream, |session| session.set_buffer_limit(Some(HELD_BYTES_MAX))).await?))
    }
}

/// The client's side of handshakes.
pub struct Connector(TlsConnector);

/// Reads what `trust` names.
pub fn connector(trust: &Trust) -> io::Result<Connector> {
    Ok(Connector(Arc::new(client_config(trust)?).into()))
}

fn client_config(trust: &Trust) -> io::Result<ClientConfig> {
    let roots = authorities(Path::new(if trust.ca.is_empty() { BUNDLE } else { &trust.ca }))?;
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(io::Error::other)?;
    let builder = builder.with_root_certificates(roots);
    let mut config = if trust.cert.is_empty() {
        builder.with_no_client_auth()
    } else {
        let own = builder.with_client_auth_cert(chain(Path::new(&trust.cert))?, key(Path::new(&trust.key))?);
        own.map_err(|why| named(Path::new(&trust.cert), why))?
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

impl Connector {
    /// Shakes hands with the server of this name or address.
    pub async fn connect(&self, name: &str, stream: BoxStream) -> io::Result<BoxStream> {
        let name = ServerName::try_from(name.to_owned()).map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?;
        Ok(Box::new(self.0.connect(name, stream).await?))
    }
}

impl Stream for server::TlsStream<BoxStream> {
    fn finish(&self) {
        self.get_ref().0.finish();
    }
}

impl Stream for client::TlsStream<BoxStream> {
    fn finish(&self) {
        self.get_ref().0.finish();
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn named(path: &Path, why: impl Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}

fn pem(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes));
    let n = read.map_err(|why| io::Error::new(why.kind(), format!("{}: {why}", path.display())))?;
    if u64::try_from(n).is_ok_and(|n| n <= PEM_BYTES_MAX) {
        Ok(bytes)
    } else {
        Err(named(path, format!("more than {PEM_BYTES_MAX} bytes")))
    }
}

fn chain(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem(path)?).collect::<Result<_, _>>().map_err(|why| named(path, why))?;
    if chain.is_empty() { Err(named(path, "no certificate in PEM form")) } else { Ok(chain) }
}

fn key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&pem(path)?).map_err(|why| named(path, why))
}

/// All that can be used; a system's bundle may hold some that cannot.
fn authorities(path: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    let (used_n, _) = roots.add_parsable_certificates(chain(path)?);
    if used_n == 0 { Err(named(path, "no usable authority")) } else { Ok(roots) }
}

#[cfg(test)]
mod tests;
