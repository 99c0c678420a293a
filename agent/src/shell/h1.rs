//! One HTTP/1.1 connection: hyper behind the limits of `spec/http-api.md` 10. Decides nothing about meaning.
//!
//! Shape: [`BoxStream`] -> `wire::http::Request` -> [`Handler`] -> [`pump::Answer`] -> bytes.
//! Units: bytes, durations. Invariants: request bodies are held under one account for all connections; a handler or a body whose
//! client is gone is dropped at once (hyper reads ahead for the end of the stream, `half_close` is off); nothing here waits
//! without a deadline but a handler at work and a body that has nothing to say.
//! Errors: 413, 414, 429, 431 and hyper's own 400; a client that is too slow is cut off without an answer.
//! Upgrades: `hyper::server::conn::http1::Parts` of the finished connection hold the stream and early bytes; [`serve_connection`]
//! is the place to hand them on. Source: decisions 2, 30, 33; `spec/dependencies.md` 3.1, 3.4; `spec/http-api.md` 1.1, 1.2, 10.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use dunlin_hal::budget::Budget;
use dunlin_hal::clock::{Clock, Mono};
use hyper::body::{Body as _, Incoming, SizeHint};
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE, VARY};
use hyper::http::request;
use hyper::rt::ReadBufCursor;
use hyper::{Response, StatusCode};
use smol::Async;
use smol::future::BoxedLocal;
use smol::io::{AsyncRead, AsyncWrite};

use super::pump::{self, Answer, Broken, Frame, Outgoing, Outside};
use crate::api::error::ApiError;
use crate::wire::http::{Head, Method, Request};

/// Bounds of the server. Times are fields so that tests need not wait for them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub conns_max: usize,
    /// Of these, from one address; 0 = no limit of its own.
    pub conns_per_client_max: usize,
    /// Head of a request.
    pub head_bytes_max: usize,
    /// Header lines of a request.
    pub headers_max: usize,
    /// Request line.
    pub line_bytes_max: usize,
    /// All bodies being collected together.
    pub bodies_bytes_max: usize,
    /// From the accept to the first byte.
    pub first_byte: Duration,
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// Between two pieces of a body.
    pub body_idle: Duration,
    /// A body that comes slower than this on average, beyond [`Self::body_idle`], is cut off; bytes per second.
    pub body_rate_min: u32,
    /// Between an answer and the next request.
    pub keep_alive: Duration,
    /// With nothing taken by the client while there is something to send.
    pub write_stall: Duration,
    /// For a client that was refused to read the refusal.
    pub linger: Duration,
    /// A connection that has not asked for anything yet is left alone this long before it may be closed for another.
    pub half_open_min: Duration,
    /// Raw 429 answers per second, and how many may be saved up.
    pub refusals_per_s: u32,
    /// See [`Self::refusals_per_s`].
    pub refusals_burst: u32,
    /// Pause of the accept loop when the process or the system is out of descriptors or memory.
    pub accept_retry: Duration,
}

impl Limits {
    /// The limits of `spec/http-api.md` 10 for this budget.
    #[must_use]
    pub fn new(budget: &Budget) -> Self {
        Self {
            conns_max: budget.conns_max,
            conns_per_client_max: budget.conns_per_client_max,
            // hyper's smallest buffer is 8 KiB.
            head_bytes_max: budget.head_bytes_max.max(8 << 10),
            headers_max: 64,
            line_bytes_max: budget.line_bytes_max,
            bodies_bytes_max: budget.bodies_bytes_max,
            first_byte: Duration::from_secs(5),
            head: Duration::from_secs(5),
            body_idle: Duration::from_secs(30),
            body_rate_min: 64,
            keep_alive: Duration::from_secs(60),
            write_stall: Duration::from_secs(40),
            linger: Duration::from_secs(2),
            half_open_min: Duration::from_secs(1),
            refusals_per_s: 10,
            refusals_burst: 100,
            accept_retry: Duration::from_millis(100),
        }
    }
}

/// The other side of the server: the core, through its shell.
pub trait Handler {
    /// Largest body of this request, bytes; `ask.body` is still empty. The route table knows (jobs: `job_bytes_max`, others: `body_bytes_max`).
    fn body_bytes_max(&self, ask: &Request) -> usize;

    /// Answers. The future is dropped when the client goes away before it is done; a guard in it tells the core.
    fn call(&self, ask: Request) -> BoxedLocal<Answer>;
}

/// A connected socket, or what stands for one.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// Says that nothing more will be written.
    fn finish(&self);
}

/// The one type of stream that the server is compiled for.
pub type BoxStream = Box<dyn Stream>;

impl Stream for Async<TcpStream> {
    fn finish(&self) {
        // It fails only when the peer is gone already.
        let _ = self.get_ref().shutdown(Shutdown::Write);
    }
}

impl Stream for Async<UnixStream> {
    fn finish(&self) {
        // As above.
        let _ = self.get_ref().shutdown(Shutdown::Write);
    }
}

/// What all connections of a server share.
pub struct Http {
    /// The bounds.
    pub limits: Limits,
    /// Who answers.
    pub handler: Rc<dyn Handler>,
    /// What bodies need.
    pub outside: Outside,
    /// On every answer, unless the handler sets them (`http_api_response_headers`).
    headers: HeaderMap,
    /// Bytes of bodies being collected.
    bodies_n: Cell<usize>,
    /// One read buffer for all: it is empty again at the end of each read.
    scratch: RefCell<Vec<u8>>,
}

/// Bytes of one read from a socket.
const READ_BYTES: usize = 8 << 10;

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("limits", &self.limits).field("bodies_n", &self.bodies_n).finish_non_exhaustive()
    }
}

impl Http {
    /// A server's shared part.
    #[must_use]
    pub fn new(limits: Limits, handler: Rc<dyn Handler>, outside: Outside, headers: &BTreeMap<String, String>) -> Rc<Self> {
        let headers = fixed_headers(headers);
        Rc::new(Self { limits, handler, outside, headers, bodies_n: Cell::new(0), scratch: RefCell::new(vec![0; READ_BYTES]) })
    }

    /// Bytes that bodies being collected have taken of `bodies_bytes_max`.
    #[must_use]
    pub fn bodies_n(&self) -> usize {
        self.bodies_n.get()
    }
}

/// Where a connection is; decides which deadline counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Accepted, nothing read.
    First,
    /// In a head.
    Head,
    /// In a body.
    Body,
    /// The handler works or its answer is being sent.
    Busy,
    /// Between two requests.
    Idle,
    /// Refused: waits until the client has read that.
    Closing,
}

/// The deadlines of one connection. Shared by it and by the accept loop, which closes idle ones to make room.
pub struct Watch {
    limits: Limits,
    clock: Rc<dyn Clock>,
    phase: Cell<Phase>,
    /// When the phase began.
    phase_at: Cell<Mono>,
    /// When the last byte of a body came.
    read_at: Cell<Mono>,
    /// Bytes read in this phase; in a head: of its first line.
    read_n: Cell<u64>,
    is_line_open: Cell<bool>,
    is_line_too_long: Cell<bool>,
    /// Since when the socket takes nothing.
    stalled_at: Cell<Option<Mono>>,
    /// The client may still be sending what nobody will read.
    is_refused: Cell<bool>,
    timer: RefCell<Option<(Mono, smol::Timer)>>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("phase", &self.phase).field("phase_at", &self.phase_at).finish_non_exhaustive()
    }
}

impl Watch {
    /// The watch of a connection that was accepted just now.
    #[must_use]
    pub fn new(limits: Limits, clock: Rc<dyn Clock>) -> Rc<Self> {
        let now = clock.now().mono;
        Rc::new(Self {
            limits,
            clock,
            phase: Cell::new(Phase::First),
            phase_at: Cell::new(now),
            read_at: Cell::new(now),
            read_n: Cell::new(0),
            is_line_open: Cell::new(true),
            is_line_too_long: Cell::new(false),
            stalled_at: Cell::new(None),
            is_refused: Cell::new(false),
            timer: RefCell::new(None),
        })
    }

    fn now(&self) -> Mono {
        self.clock.now().mono
    }

    fn enter(&self, phase: Phase) {
        let now = self.now();
        self.phase.set(phase);
        self.phase_at.set(now);
        self.read_at.set(now);
        self.read_n.set(0);
    }

    /// Notes bytes from the client; an error when the request line is too long.
    fn on_read(&self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if matches!(self.phase.get(), Phase::First | Phase::Idle) {
            self.enter(Phase::Head);
            self.is_line_open.set(true);
        }
        let read_n = |n: usize| self.read_n.get().saturating_add(u64::try_from(n).unwrap_or(u64::MAX));
        match self.phase.get() {
            Phase::Head if self.is_line_open.get() => {
                // Empty lines before a request are allowed and are not its first line.
                let line = if self.read_n.get() == 0 { bytes.trim_ascii_start() } else { bytes };
                let end = line.iter().position(|&byte| byte == b'\n');
                self.is_line_open.set(end.is_none());
                self.read_n.set(read_n(end.unwrap_or(line.len())));
                if self.read_n.get() > u64::try_from(self.limits.line_bytes_max).unwrap_or(u64::MAX) {
                    self.is_line_too_long.set(true);
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
            Phase::Body => {
                self.read_at.set(self.now());
                self.read_n.set(read_n(bytes.len()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Notes whether the socket takes bytes.
    fn on_write<T>(&self, result: &Poll<T>) {
        match result {
            Poll::Ready(_) => {
                // The last of an answer may leave long after hyper has let go of its body.
                if self.stalled_at.take().is_some() && self.phase.get() == Phase::Idle {
                    self.phase_at.set(self.now());
                }
            }
            Poll::Pending if self.stalled_at.get().is_none() => self.stalled_at.set(Some(self.now())),
            Poll::Pending => {}
        }
    }

    /// When this connection is to be closed if nothing happens; `None` = never.
    fn due(&self) -> Option<Mono> {
        let (limits, since) = (&self.limits, self.phase_at.get());
        let phase_due = match self.phase.get() {
            Phase::First => Some(since.after(limits.first_byte)),
            Phase::Head => Some(since.after(limits.head)),
            Phase::Body => {
                let earned_ms = self.read_n.get().saturating_mul(1000) / u64::from(limits.body_rate_min.max(1));
                Some(self.read_at.get().after(limits.body_idle).min(since.after(limits.body_idle).after_ms(earned_ms)))
            }
            Phase::Busy => None,
            Phase::Idle if self.stalled_at.get().is_some() => None,
            Phase::Idle => Some(since.after(limits.keep_alive)),
            Phase::Closing => Some(since.after(limits.linger)),
        };
        let stall_due = self.stalled_at.get().map(|at| at.after(limits.write_stall));
        match (phase_due, stall_due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Ready when the connection is late. One timer, set anew only when it has fired or a deadline came nearer.
    fn poll_late(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.timer.borrow_mut();
        loop {
            let Some(due) = self.due() else { return Poll::Pending };
            match &mut *timer {
                Some((set_for, running)) if *set_for <= due => {
                    ready!(Pin::new(running).poll(cx));
                    let now = self.now();
                    if now >= due {
                        return Poll::Ready(());
                    }
                    *timer = None;
                }
                _ => *timer = Some((due, smol::Timer::after(due.since(self.now())))),
            }
        }
    }

    /// Since when this connection is of no use to anybody, if it may be closed to make room for another.
    pub(super) fn idle_since(&self) -> Option<Mono> {
        let since = self.phase_at.get();
        let is_spare = match self.phase.get() {
            Phase::First | Phase::Head => self.now().since(since) >= self.limits.half_open_min,
            Phase::Idle => self.stalled_at.get().is_none(),
            Phase::Closing => true,
            Phase::Body | Phase::Busy => false,
        };
        is_spare.then_some(since)
    }
}

/// futures-io to hyper, with the watch in between.
struct Io {
    stream: BoxStream,
    http: Rc<Http>,
    watch: Rc<Watch>,
}

impl Io {
    fn poll_read_scratch<T>(&mut self, cx: &mut Context<'_>, n: usize, take: impl FnOnce(&[u8]) -> T) -> Poll<io::Result<T>> {
        let mut scratch = self.http.scratch.borrow_mut();
        let n = n.min(scratch.len());
        let room = scratch.get_mut(..n).unwrap_or_default();
        let got_n = ready!(Pin::new(&mut *self.stream).poll_read(cx, room))?;
        Poll::Ready(Ok(take(room.get(..got_n).unwrap_or_default())))
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let watch = self.watch.clone();
        let room_n = buf.remaining();
        let noted = ready!(self.poll_read_scratch(cx, room_n, |bytes| {
            buf.put_slice(bytes);
            watch.on_read(bytes)
        }))?;
        Poll::Ready(noted)
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut *self.stream).poll_write(cx, buf);
        self.watch.on_write(&result);
        result
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut *self.stream).poll_write_vectored(cx, bufs);
        self.watch.on_write(&result);
        result
    }

    // Vectored, or hyper would copy every frame and our buffer would come back before its bytes are sent.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut *self.stream).poll_flush(cx);
        self.watch.on_write(&result);
        result
    }

    // The stream outlives hyper: `serve_connection` ends it.
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Serves one connection until one side ends it or it is late. Dropping the future closes it at once.
pub async fn serve_connection(http: Rc<Http>, stream: BoxStream, watch: Rc<Watch>) {
    let io = Io { stream, http: http.clone(), watch: watch.clone() };
    let mut conn = hyper::server::conn::http1::Builder::new()
        .half_close(false)
        .title_case_headers(true)
        .max_headers(http.limits.headers_max)
        .max_buf_size(http.limits.head_bytes_max)
        .max_header_size(http.limits.head_bytes_max)
        .serve_connection(io, Calls { http: http.clone(), watch: watch.clone() });
    let ended = poll_fn(|cx| match Pin::new(&mut conn).poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending => watch.poll_late(cx).map(|()| None),
    })
    .await;
    let phase = watch.phase.get();
    // Drops a handler still at work and a body still being sent.
    let mut io = conn.into_parts().io;
    let is_parse_error = match ended {
        None => return log::debug!("connection cut off: phase={phase:?}"),
        Some(Ok(())) => false,
        Some(Err(error)) => error.is_parse(),
    };
    watch.enter(Phase::Closing);
    if watch.is_line_too_long.get() && write_all(&mut io, &raw_reply("414 URI Too Long", "request line too long")).await.is_err() {
        return;
    }
    close(&mut io).await;
    if watch.is_refused.get() || watch.is_line_too_long.get() || is_parse_error {
        // Closing with unread bytes resets the connection, and the client might never read why.
        linger(&mut io).await;
    }
}

/// Answers a connection that is not served with raw bytes; then, if asked to, waits until the client has read them.
pub(super) async fn refuse(http: Rc<Http>, stream: BoxStream, reply: &[u8], is_lingering: bool) {
    let watch = Watch::new(http.limits, http.outside.clock.clone());
    watch.enter(Phase::Closing);
    let mut io = Io { stream, http, watch };
    if write_all(&mut io, reply).await.is_ok() {
        close(&mut io).await;
        if is_lingering {
            linger(&mut io).await;
        }
    }
}

/// Writes an answer of ours that hyper had no part in.
async fn write_all(io: &mut Io, mut bytes: &[u8]) -> io::Result<()> {
    poll_fn(|cx| {
        while !bytes.is_empty() {
            if io.watch.poll_late(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let n = ready!(Pin::new(&mut *io.stream).poll_write(cx, bytes))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            bytes = bytes.get(n..).unwrap_or_default();
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// Says goodbye: within TLS by a record of its own, then by the end of the stream.
async fn close(io: &mut Io) {
    poll_fn(|cx| {
        let closed = Pin::new(&mut *io.stream).poll_close(cx);
        // A client that is gone needs no goodbye, and one that is too slow gets none.
        if closed.is_ready() { Poll::Ready(()) } else { io.watch.poll_late(cx) }
    })
    .await;
    io.stream.finish();
}

/// Reads and forgets until the client ends, for at most [`Limits::linger`].
async fn linger(io: &mut Io) {
    poll_fn(|cx| {
        if io.watch.poll_late(cx).is_ready() {
            return Poll::Ready(());
        }
        match ready!(io.poll_read_scratch(cx, READ_BYTES, <[u8]>::is_empty)) {
            Ok(false) => {
                // One read a turn: a client that never stops sending must not hold the executor.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Ok(true) | Err(_) => Poll::Ready(()),
        }
    })
    .await;
}

/// A whole answer outside hyper; it ends the connection.
pub(super) fn raw_reply(status: &str, text: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nVary: Accept-Encoding\r\nConnection: close\r\n\r\n{text}",
        text.len()
    )
    .into_bytes()
}

/// hyper's view of the handler.
struct Calls {
    http: Rc<Http>,
    watch: Rc<Watch>,
}

impl hyper::service::Service<hyper::Request<Incoming>> for Calls {
    type Response = Response<Sending>;
    type Error = Broken;
    type Future = BoxedLocal<Result<Response<Sending>, Broken>>;

    fn call(&self, req: hyper::Request<Incoming>) -> Self::Future {
        self.watch.enter(if req.body().is_end_stream() { Phase::Busy } else { Phase::Body });
        Box::pin(answer(self.http.clone(), self.watch.clone(), req))
    }
}

async fn answer(http: Rc<Http>, watch: Rc<Watch>, req: hyper::Request<Incoming>) -> Result<Response<Sending>, Broken> {
    let (head, incoming) = req.into_parts();
    let mut ask = request(&head);
    let collected = if line_bytes(&head) > http.limits.line_bytes_max {
        Err(Refusal::Answer(ApiError::new(414, "request line too long")))
    } else {
        collect(&http, incoming, http.handler.body_bytes_max(&ask)).await
    };
    watch.enter(Phase::Busy);
    let (answered, is_refused) = match collected {
        Ok(body) => {
            ask.body = body;
            (http.handler.call(ask).await, false)
        }
        Err(Refusal::Answer(error)) => (error.into(), true),
        Err(Refusal::Gone) => return Err(Broken),
    };
    let (reply_head, body) = pump::open(answered, &http.outside).await;
    log::debug!("request: method={} path={} status={}", head.method, head.uri.path(), reply_head.status);
    let mut response = Response::new(Sending { body, watch });
    fill_head(&mut response, reply_head, &http.headers);
    if is_refused {
        // The rest of the body stays unread, so the connection cannot go on.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response.body().watch.is_refused.set(true);
    }
    Ok(response)
}

/// A body being sent; its end is the end of the request.
struct Sending {
    body: Outgoing,
    watch: Rc<Watch>,
}

impl hyper::body::Body for Sending {
    type Data = Frame;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<hyper::body::Frame<Frame>, Broken>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.watch.enter(Phase::Idle);
    }
}

/// Bytes of the request line, its end not counted.
fn line_bytes(head: &request::Parts) -> usize {
    let target_n = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    head.method.as_str().len() + target_n + "  HTTP/1.1".len()
}

/// hyper's head as ours, without the body.
fn request(head: &request::Parts) -> Request {
    let text =
        |name: &str| head.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_owned()).unwrap_or_default();
    let mut path = head.uri.path().to_owned();
    if !path.starts_with('/') {
        // `OPTIONS *` and CONNECT name no path; this one is unknown to every route.
        path.insert(0, '/');
    }
    let mut token = text("x-nomad-token");
    if token.is_empty() {
        token = bearer(&text("authorization")).to_owned();
    }
    Request {
        method: match head.method.as_str() {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        },
        path,
        query: head.uri.query().unwrap_or_default().to_owned(),
        token,
        origin: text("origin"),
        body: Vec::new(),
    }
}

/// The secret of a bearer authorization, else nothing. Scheme in any case, first word of the value (`spec/http-api.md` 1.2).
fn bearer(authorization: &str) -> &str {
    let mut words = authorization.split_ascii_whitespace();
    match words.next() {
        Some(scheme) if scheme.eq_ignore_ascii_case("bearer") => words.next().unwrap_or_default(),
        _ => "",
    }
}

/// Headers of the configuration as hyper's. Those that say where an answer ends are the server's alone.
fn fixed_headers(wanted: &BTreeMap<String, String>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in wanted {
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) if ![CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE].contains(&name) => {
                headers.insert(name, value);
            }
            _ => log::warn!("http_api_response_headers: {name} is not set on answers"),
        }
    }
    headers
}

/// Status and headers; `Vary: Accept-Encoding` always, although nothing is ever compressed (decision 30).
fn fill_head(response: &mut Response<Sending>, head: Head, fixed: &HeaderMap) {
    *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers: &mut HeaderMap = response.headers_mut();
    headers.clone_from(fixed);
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    for (name, value) in head.headers {
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_maybe_shared(value)) {
            (Ok(name), Ok(value)) => {
                // The handler's own wins; what it says twice it says twice.
                if fixed.contains_key(&name) && headers.get(&name) == fixed.get(&name) {
                    headers.remove(&name);
                }
                headers.append(name, value);
            }
            _ => log::error!("a header cannot be sent: name={name}"),
        }
    }
}

/// Why a body was not collected.
enum Refusal {
    /// Tell the client.
    Answer(ApiError),
    /// The client is gone.
    Gone,
}

impl Refusal {
    fn of(error: hyper::Error) -> Self {
        if error.is_incomplete_message() { Self::Gone } else { Self::Answer(ApiError::new(400, "malformed request body")) }
    }
}

/// Body bytes on the account of all connections; dropping it gives them back.
struct Lent<'a> {
    http: &'a Http,
    n: usize,
}

impl Lent<'_> {
    /// Takes more; false when the account is full.
    fn grow(&mut self, to_n: usize) -> bool {
        let more_n = to_n.saturating_sub(self.n);
        let bodies_n = self.http.bodies_n.get().saturating_add(more_n);
        let is_granted = bodies_n <= self.http.limits.bodies_bytes_max;
        if is_granted {
            self.http.bodies_n.set(bodies_n);
            self.n += more_n;
        }
        is_granted
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.http.bodies_n.set(self.http.bodies_n.get().saturating_sub(self.n));
    }
}

/// Reads the whole body. What is on the account is what is allocated, so a promised length costs nobody anything.
async fn collect(http: &Http, mut incoming: Incoming, bytes_max: usize) -> Result<Vec<u8>, Refusal> {
    let too_large = || Refusal::Answer(ApiError::new(413, "request body too large"));
    let hint = incoming.size_hint();
    if hint.lower() > u64::try_from(bytes_max).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    // At most what the client announced is allocated, in steps as it comes.
    let room_max = hint.upper().and_then(|n| usize::try_from(n).ok()).map_or(bytes_max, |n| n.min(bytes_max));
    let mut lent = Lent { http, n: 0 };
    let mut body = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
        // Trailers are read and forgotten.
        let Ok(data) = frame.map_err(Refusal::of)?.into_data() else { continue };
        let need_n = body.len().saturating_add(data.len());
        if need_n > bytes_max {
            return Err(too_large());
        }
        if need_n > body.capacity() {
            let room_n = body.capacity().saturating_mul(2).min(room_max).max(need_n);
            if !lent.grow(room_n) {
                return Err(Refusal::Answer(ApiError::new(429, "too many concurrent requests")));
            }
            body.reserve_exact(room_n - body.len());
        }
        body.extend_from_slice(&data);
    }
    Ok(body)
}

#[cfg(test)]
mod tests;
