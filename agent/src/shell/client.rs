//! The HTTP client of the command line: one request per connection, blocking, the answer's body as it arrives.
//!
//! Shape: [`Ask`] -> [`Exchange`]. Never used by the running agent: it blocks its thread and resolves names.
//! Bounds: none on the body, it is a stream; connecting ends after [`CONNECT_MAX`]; an answer may take as long as its blocking query.
//! Errors: [`ClientError`], whose text says what to set. Source: `spec/http-api.md` 1.1, 1.2.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, Read};
use std::iter;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::rt::ReadBufCursor;
use smol::Async;
use smol::future::{Boxed, FutureExt as _};
use smol::io::{AsyncRead as _, AsyncWrite as _};

use super::h1::BoxStream;
use super::tls::{self, Connector};
use crate::wire::http::Method;

/// Longest time for one attempt to connect.
pub const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Port of an address without one: of `http`, of `https`.
const PORTS: [u16; 2] = [80, 443];

/// Whom the client of an `https` address trusts and what it shows of itself: paths of PEM files, empty = none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Authorities; empty = the system's.
    pub ca: String,
    /// Our certificate and what leads to its authority.
    pub cert: String,
    /// Its key.
    pub key: String,
    /// The name in the agent's certificate; empty = the host of the address.
    pub server_name: String,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The method; [`Method::Other`] cannot be sent.
    pub method: Method,
    /// Path and query, encoded.
    pub target: &'a str,
    /// Secret of the token; empty = none.
    pub token: &'a str,
    /// Body; empty = none.
    pub body: &'a [u8],
}

/// One answer.
#[derive(Debug)]
pub struct Exchange {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case; values that are no text are left out.
    pub headers: Vec<(String, String)>,
    /// The body as it arrives.
    pub body: Arriving,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// The address cannot be used.
    Address {
        /// As given.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// What an `https` address needs cannot be used.
    Trust {
        /// The cause; names the file.
        cause: io::Error,
    },
    /// No answer came.
    Unreachable {
        /// As given.
        address: String,
        /// The cause.
        cause: io::Error,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, why } => {
                write!(f, "cannot use the address {address:?}: {why}; http://127.0.0.1:4646 or unix:///path would do")
            }
            Self::Trust { cause } => {
                write!(f, "cannot use TLS: {cause} (set -ca-cert or NOMAD_CACERT, and -client-cert with -client-key if asked for)")
            }
            Self::Unreachable { address, cause } => {
                write!(f, "cannot reach the agent at {address}: {}; is it running? (set -address or NOMAD_ADDR)", Cause(cause))
            }
        }
    }
}

impl Error for ClientError {}

impl From<ClientError> for io::Error {
    /// The cause alone, for callers that say themselves which agent did not answer.
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unreachable { cause, .. } | ClientError::Trust { cause } => cause,
            ClientError::Address { .. } => Self::new(io::ErrorKind::InvalidInput, error.to_string()),
        }
    }
}

/// An error without its number where its kind says it all.
struct Cause<'a>(&'a io::Error);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use io::ErrorKind as Kind;
        match self.0.kind() {
            Kind::NotFound => f.write_str("no such file"),
            kind @ (Kind::ConnectionRefused | Kind::ConnectionReset | Kind::PermissionDenied | Kind::TimedOut | Kind::HostUnreachable) => {
                kind.fmt(f)
            }
            _ => self.0.fmt(f),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

/// Where the agent is.
pub struct Client {
    address: String,
    place: Place,
    /// With the name expected in the agent's certificate.
    tls: Option<(Connector, String)>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.address).field("place", &self.place).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of `http://host:port`, `https://host:port`, `host:port` or `unix:///path`. Nothing is connected yet.
    pub fn new(address: &str, trust: &Trust) -> Result<Self, ClientError> {
        let (place, is_tls) = parse(address).map_err(|why| ClientError::Address { address: address.to_owned(), why })?;
        let tls = match &place {
            Place::Tcp { host, .. } if is_tls => {
                let name = if trust.server_name.is_empty() { host } else { &trust.server_name };
                Some((tls::connector(trust).map_err(|cause| ClientError::Trust { cause })?, name.clone()))
            }
            _ => None,
        };
        Ok(Self { address: address.to_owned(), place, tls })
    }

    /// Sends `ask` and returns when the head of the answer is there.
    pub fn exchange(&self, ask: &Ask<'_>) -> Result<Exchange, ClientError> {
        smol::block_on(self.exchange_async(ask)).map_err(|cause| ClientError::Unreachable { address: self.address.clone(), cause })
    }

    async fn exchange_async(&self, ask: &Ask<'_>) -> io::Result<Exchange> {
        let request = self.request(ask)?;
        let (mut sender, conn) = http1::handshake(Io { stream: self.connect().await?, scratch: vec![0; 8 << 10] }).await.map_err(as_io)?;
        let mut conn: Boxed<Result<(), hyper::Error>> = Box::pin(conn);
        let mut answer = Box::pin(sender.send_request(request));
        let mut is_conn_done = false;
        let answer = poll_fn(|cx| {
            if !is_conn_done {
                is_conn_done = conn.as_mut().poll(cx).is_ready();
            }
            answer.as_mut().poll(cx)
        })
        .await
        .map_err(as_io)?;
        let (head, incoming) = answer.into_parts();
        let text = |value: &hyper::header::HeaderValue| value.to_str().ok().map(str::to_owned);
        Ok(Exchange {
            status: head.status.as_u16(),
            headers: head.headers.iter().filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?))).collect(),
            body: Arriving { conn: (!is_conn_done).then_some(conn), incoming, chunk: Bytes::new() },
        })
    }

    fn request(&self, ask: &Ask<'_>) -> io::Result<hyper::Request<Full<Bytes>>> {
        let method = match ask.method {
            Method::Get => hyper::Method::GET,
            Method::Head => hyper::Method::HEAD,
            Method::Post => hyper::Method::POST,
            Method::Put => hyper::Method::PUT,
            Method::Delete => hyper::Method::DELETE,
            Method::Options => hyper::Method::OPTIONS,
            Method::Other => return Err(io::ErrorKind::InvalidInput.into()),
        };
        let host = match &self.place {
            Place::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Place::Tcp { host, port } => format!("{host}:{port}"),
            Place::Unix(_) => "127.0.0.1".to_owned(),
        };
        let mut request = hyper::Request::builder().method(method).uri(ask.target).header("Host", host);
        if !ask.token.is_empty() {
            request = request.header("X-Nomad-Token", ask.token);
        }
        request.body(Full::new(Bytes::copy_from_slice(ask.body))).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    /// Tries each address of the name in turn.
    async fn connect(&self) -> io::Result<BoxStream> {
        match &self.place {
            Place::Unix(path) => Ok(Box::new(Async::<UnixStream>::connect(path).or(late()).await?)),
            Place::Tcp { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
                for addr in (host.as_str(), *port).to_socket_addrs()? {
                    match connect_tcp(addr).await {
                        Ok(stream) => {
                            let stream: BoxStream = Box::new(stream);
                            return match &self.tls {
                                None => Ok(stream),
                                Some((connector, name)) => connector.connect(name, stream).or(late()).await,
                            };
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}

async fn connect_tcp(addr: SocketAddr) -> io::Result<Async<TcpStream>> {
    let stream = Async::<TcpStream>::connect(addr).or(late()).await?;
    stream.get_ref().set_nodelay(true)?;
    Ok(stream)
}

async fn late<T>() -> io::Result<T> {
    smol::Timer::after(CONNECT_MAX).await;
    Err(io::ErrorKind::TimedOut.into())
}

/// The place, and whether it is reached by TLS.
fn parse(address: &str) -> Result<(Place, bool), &'static str> {
    if let Some(path) = address.strip_prefix("unix://") {
        return if path.starts_with('/') {
            Ok((Place::Unix(Path::new(path).to_owned()), false))
        } else {
            Err("the path of the socket must be absolute")
        };
    }
    let (is_tls, rest) = match address.strip_prefix("https://") {
        Some(rest) => (true, rest),
        None => (false, address.strip_prefix("http://").unwrap_or(address)),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains("://") {
        return Err("the scheme is not known");
    }
    if rest.contains(['/', '?', '#', '@']) {
        return Err("it must be a host and a port only");
    }
    let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or("a port must follow the host")?)),
        None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(PORTS[usize::from(is_tls)]), |port| port.parse().map_err(|_| "the port must be a number up to 65535"))?;
    if host.is_empty() { Err("the host is missing") } else { Ok((Place::Tcp { host: host.to_owned(), port }, is_tls)) }
}

/// The body of an answer, read as it arrives. Dropping it closes the connection.
pub struct Arriving {
    /// The connection, until it has ended.
    conn: Option<Boxed<Result<(), hyper::Error>>>,
    incoming: Incoming,
    chunk: Bytes,
}

impl fmt::Debug for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Arriving")
    }
}

impl Read for Arriving {
    /// Blocks until bytes are there. An answer that breaks off is an error, not an end.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let frame = smol::block_on(poll_fn(|cx| {
                if let Some(conn) = &mut self.conn
                    && conn.as_mut().poll(cx).is_ready()
                {
                    // Its error, if any, comes through the body.
                    self.conn = None;
                }
                Pin::new(&mut self.incoming).poll_frame(cx)
            }));
            match frame {
                None => return Ok(0),
                Some(frame) => self.chunk = frame.map_err(as_io)?.into_data().unwrap_or_default(),
            }
        }
        let n = self.chunk.len().min(buf.len());
        let some = self.chunk.split_to(n);
        if let Some(room) = buf.get_mut(..n) {
            room.copy_from_slice(&some);
        }
        Ok(n)
    }
}

/// The error below hyper's, where there is one. A request that was not even begun is told as cancelled by what broke the connection.
fn as_io(error: hyper::Error) -> io::Error {
    let chain = || iter::successors(Some(&error as &(dyn Error + 'static)), |&error| error.source());
    let cause = chain().find_map(|error| error.downcast_ref::<io::Error>());
    let number = cause.and_then(io::Error::raw_os_error);
    if let Some(number) = number {
        return io::Error::from_raw_os_error(number);
    }
    let is_cut = chain().filter_map(|error| error.downcast_ref::<hyper::Error>()).any(hyper::Error::is_incomplete_message);
    if is_cut || cause.is_some_and(|cause| cause.kind() == io::ErrorKind::UnexpectedEof) {
        return io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed in the middle of the answer");
    }
    match cause {
        // Such as the other side's words within TLS.
        Some(cause) => io::Error::new(cause.kind(), cause.to_string()),
        None => io::Error::other(error),
    }
}

/// futures-io to hyper, without the server's watch.
struct Io {
    stream: BoxStream,
    scratch: Vec<u8>,
}

impl hyper::rt::Read for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let Self { stream, scratch } = &mut *self;
        let n = buf.remaining().min(scratch.len());
        let room = scratch.get_mut(..n).unwrap_or_default();
        let got_n = ready!(Pin::new(stream).poll_read(cx, room))?;
        buf.put_slice(room.get(..got_n).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.finish();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
