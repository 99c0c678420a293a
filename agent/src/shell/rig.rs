//! A server on loopback for the tests of this folder: real sockets, a scripted handler, and a channel that tells what happened.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::rc::{Rc, Weak};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dunlin_hal::budget::SMALL_64;
use dunlin_hal::clock::{Clock, Mono, Now, Wall};
use smol::channel as async_channel;
use smol::future::BoxedLocal;

use super::executor::Executor;
use super::h1::{Handler, Http, Limits};
use super::net::Server;
use super::pump::{Answer, Done, Files, Outside, RowSource, lease};
use super::tls::{self, Acceptor};
use crate::api::body::{Body, Fact, FileError, Machine, Reply, Rows, Step, Work};
use crate::api::error::ApiError;
use crate::config::TlsFiles;
use crate::store::view::View;
use crate::wire::http::{Head, Request, TEXT};
use dunlin_runtime::id::AllocId;

/// Longest wait of a test for something that must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Job bodies of the rig's handler.
pub const JOB_BYTES_MAX: usize = 256 << 10;
/// Other bodies of the rig's handler.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// Real time from the start of the test.
pub struct TestClock(pub Instant);

impl Clock for TestClock {
    fn now(&self) -> Now {
        let ns = u64::try_from(self.0.elapsed().as_nanos()).unwrap();
        Now { mono: Mono(ns), wall: Wall(i64::try_from(ns).unwrap()) }
    }
}

/// The limits of a 64 MiB board.
pub fn limits() -> Limits {
    Limits::new(&SMALL_64)
}

/// Runs one test in a process of its own, for what counts or changes the whole process: false in the outer one, when that is done.
pub fn is_alone(test: &str) -> bool {
    const ALONE: &str = "DUNLIN_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let name = test.split_once("::").unwrap().1;
    let run = Command::new("/proc/self/exe").args([name, "--exact", "--test-threads=1"]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&run.stderr));
    false
}

/// A running server.
pub struct Rig {
    pub addr: SocketAddr,
    /// What the handler and its bodies tell.
    pub told: Receiver<String>,
    stop: async_channel::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Rig {
    pub fn start(limits: Limits) -> Self {
        Self::of(limits, None, None)
    }

    pub fn with_socket(limits: Limits, path: Option<PathBuf>) -> Self {
        Self::of(limits, path, None)
    }

    #[cfg(feature = "tls")]
    pub fn with_tls(limits: Limits, files: &TlsFiles) -> Self {
        Self::of(limits, None, Some(tls::acceptor(files).unwrap()))
    }

    fn of(limits: Limits, path: Option<PathBuf>, tls: Option<Acceptor>) -> Self {
        let (tell, told) = channel();
        let (stop, stopped) = async_channel::bounded(1);
        let (up, addr) = channel();
        let thread = thread::spawn(move || {
            let exec = Executor::new();
            let outside =
                Outside { clock: Rc::new(TestClock(Instant::now())), rows: Rc::new(Numbers(tell.clone())), files: Rc::new(NoFiles) };
            let script = Rc::new(Script { tell, http: OnceCell::new() });
            let http = Http::new(limits, script.clone(), outside, &BTreeMap::new());
            let _ = script.http.set(Rc::downgrade(&http));
            let server = Server::new(exec.clone(), http);
            if let Some(path) = path {
                server.listen_unix(&path).unwrap();
            }
            match tls {
                None => up.send(server.listen_tcp("127.0.0.1:0".parse().unwrap()).unwrap()).unwrap(),
                Some(tls) => {
                    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                    up.send(listener.local_addr().unwrap()).unwrap();
                    server.serve_tcp(listener, Some(Rc::new(tls))).unwrap();
                }
            }
            exec.run(async {
                let _ = stopped.recv().await;
                drop(server);
                // Cancelled tasks are dropped by the executor's next turns.
                for _ in 0..1000 {
                    smol::future::yield_now().await;
                }
            });
        });
        let addr = addr.recv_timeout(PATIENCE).unwrap();
        Self { addr, told, stop, thread: Some(thread) }
    }

    pub fn connect(&self) -> Peer<TcpStream> {
        Peer::new(TcpStream::connect(self.addr).unwrap())
    }

    /// Waits until the handler tells this; other news before it are dropped.
    #[track_caller]
    pub fn expect(&self, news: &str) {
        loop {
            match self.told.recv_timeout(PATIENCE) {
                Ok(told) if told == news => return,
                Ok(_) => {}
                Err(error) => panic!("{news:?} was never told: {error}"),
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.stop.try_send(());
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the server panicked");
        }
    }
}

/// A server's shared part without a server.
pub fn idle_http() -> Rc<Http> {
    let (tell, _) = channel();
    let outside = Outside { clock: Rc::new(TestClock(Instant::now())), rows: Rc::new(Numbers(tell.clone())), files: Rc::new(NoFiles) };
    Http::new(limits(), Rc::new(Script { tell, http: OnceCell::new() }), outside, &BTreeMap::new())
}

/// A raw client.
pub struct Peer<S> {
    pub stream: S,
    buf: Vec<u8>,
}

/// A parsed answer.
#[derive(Debug)]
pub struct Got {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Got {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header, with its name spelled exactly like this.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Peer<TcpStream> {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buf: Vec::new() }
    }
}

impl<S: Read + Write> Peer<S> {
    pub fn of(stream: S) -> Self {
        Self { stream, buf: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Sends until all is sent or the server takes no more; returns how much it took.
    pub fn send_all_it_takes(&mut self, bytes: &[u8], times: usize) -> usize {
        for i in 0..times {
            if self.stream.write_all(bytes).is_err() {
                return i * bytes.len();
            }
        }
        times * bytes.len()
    }

    pub fn get(&mut self, target: &str) -> Got {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n")).answer()
    }

    /// Reads until `bytes` have come; false when the connection ended before.
    fn fill(&mut self, mut is_enough: impl FnMut(&[u8]) -> bool) -> bool {
        let mut chunk = [0; 64 << 10];
        while !is_enough(&self.buf) {
            match self.stream.read(&mut chunk) {
                Ok(0) => return false,
                Ok(n) => self.buf.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return false,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
        true
    }

    /// Reads up to a head's end.
    pub fn head(&mut self) -> String {
        let end = |buf: &[u8]| buf.windows(4).position(|w| w == b"\r\n\r\n");
        assert!(self.fill(|buf| end(buf).is_some()), "no whole head: {:?}", String::from_utf8_lossy(&self.buf));
        let head_n = end(&self.buf).unwrap() + 4;
        String::from_utf8(self.buf.drain(..head_n).collect()).unwrap()
    }

    /// Reads exactly this many bytes.
    pub fn exactly(&mut self, n: usize) -> Vec<u8> {
        assert!(self.fill(|buf| buf.len() >= n), "the answer broke off");
        self.buf.drain(..n).collect()
    }

    /// Reads one whole answer, chunked or not.
    pub fn answer(&mut self) -> Got {
        self.answer_to(true)
    }

    /// Reads one answer; `has_body` is false for HEAD.
    pub fn answer_to(&mut self, has_body: bool) -> Got {
        let head = self.head();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut got = Got { status, head, body: Vec::new() };
        if !has_body || status == 100 {
            return got;
        }
        if got.header("Transfer-Encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk() {
                got.body.extend(chunk);
            }
        } else if let Some(n) = got.header("Content-Length") {
            got.body = self.exactly(n.parse().unwrap());
        } else {
            got.body = self.rest();
        }
        got
    }

    /// One chunk; `None` = the last one.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        assert!(self.fill(|buf| buf.contains(&b'\n')), "the chunks broke off");
        let line_n = self.buf.iter().position(|&b| b == b'\n').unwrap() + 1;
        let line = self.exactly(line_n);
        let n = usize::from_str_radix(std::str::from_utf8(&line).unwrap().trim(), 16).unwrap();
        let mut chunk = self.exactly(n + 2);
        chunk.truncate(n);
        (n > 0).then_some(chunk)
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        self.fill(|_| false);
        std::mem::take(&mut self.buf)
    }
}

/// Tells when it is dropped.
struct Guard(Sender<String>, &'static str);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.send(self.1.to_owned());
    }
}

/// The handler.
struct Script {
    tell: Sender<String>,
    http: OnceCell<Weak<Http>>,
}

fn full(status: u16, text: impl Into<String>) -> Answer {
    Reply::new(Head::new(status, TEXT), Body::Full(text.into().into_bytes())).into()
}

impl Handler for Script {
    fn body_bytes_max(&self, ask: &Request) -> usize {
        if ask.path.starts_with("/v1/job") { JOB_BYTES_MAX } else { BODY_BYTES_MAX }
    }

    fn call(&self, ask: Request) -> BoxedLocal<Answer> {
        let tell = self.tell.clone();
        let bodies_n = self.http.get().and_then(Weak::upgrade).map_or(0, |http| http.bodies_n());
        let _ = tell.send(format!("called {}", ask.path));
        Box::pin(async move {
            let machine = |machine: Box<Talk>| {
                let tell = tell.clone();
                let (lease, recall) = lease(move || {
                    let _ = tell.send("body ended".to_owned());
                });
                if ask.query == "recalled" {
                    recall.recall();
                }
                Answer { reply: Reply::new(Head::default(), Body::Machine(machine)), lease: Some(lease) }
            };
            match ask.path.as_str() {
                "/bodies" => full(200, bodies_n.to_string()),
                "/long" => full(200, "x".repeat(16 << 20)),
                "/hello" => full(200, "hello"),
                "/empty" => Reply::new(Head { status: 200, headers: Vec::new() }, Body::Full(Vec::new())).into(),
                "/index" => {
                    let mut head = Head::new(404, TEXT);
                    head.headers.push(("X-Nomad-Knownleader", "true".to_owned()));
                    head.headers.push(("Vary", "Origin".to_owned()));
                    head.headers.push(("X-Bad", "a\r\nb".to_owned()));
                    Reply::new(head, Body::Full(b"not found".to_vec())).into()
                }
                "/echo" | "/v1/jobs" => full(200, String::from_utf8_lossy(&ask.body)),
                "/size" => full(200, ask.body.len().to_string()),
                "/wait" => {
                    let _guard = Guard(tell, "handler dropped");
                    pending().await
                }
                "/rows" => Reply::new(Head::new(200, "application/json"), Body::Rows(Box::new(NoRows))).into(),
                "/quiet" => machine(Talk::new(&tell, 1, b"first", |now| Step::Wait { until: now.mono.after(PATIENCE), folder: None })),
                "/three" => machine(Talk::new(&tell, 3, b"piece", |_| Step::End)),
                "/mid" => machine(Talk::new(&tell, 256, &[b'x'; 16 << 10], |_| Step::End)),
                "/big" => machine(Talk::new(&tell, 4096, &[b'x'; 16 << 10], |_| Step::End)),
                "/fail" => machine(Talk::new(&tell, 0, b"", |_| Step::Fail(ApiError::new(404, "no such thing")))),
                "/abort" => machine(Talk::new(&tell, 2, b"half", |_| Step::Abort)),
                path => full(
                    404,
                    format!("{:?} {path} {} token={:?} origin={:?} body={}", ask.method, ask.query, ask.token, ask.origin, ask.body.len()),
                ),
            }
        })
    }
}

/// Sends the same piece several times, then what `end` says; tells how many buffers it was given.
struct Talk {
    tell: Sender<String>,
    pieces_n: usize,
    piece: &'static [u8],
    end: fn(Now) -> Step,
    sent_n: usize,
    has_head: bool,
    bufs: BTreeSet<usize>,
}

impl Talk {
    fn new(tell: &Sender<String>, pieces_n: usize, piece: &'static [u8], end: fn(Now) -> Step) -> Box<Self> {
        Box::new(Self { tell: tell.clone(), pieces_n, piece, end, sent_n: 0, has_head: false, bufs: BTreeSet::new() })
    }
}

impl Machine for Talk {
    fn step(&mut self, now: Now, fact: Fact<'_>, out: &mut Vec<u8>) -> Step {
        assert!(out.is_empty());
        if matches!(fact, Fact::Gone) {
            let _ = self.tell.send("machine told gone".to_owned());
            return Step::End;
        }
        if !self.has_head && self.pieces_n > 0 {
            self.has_head = true;
            return Step::Head(Head::new(200, "text/plain"));
        }
        if out.capacity() > 0 {
            self.bufs.insert(out.as_ptr().addr());
        }
        if self.sent_n < self.pieces_n {
            self.sent_n += 1;
            out.extend_from_slice(self.piece);
            return Step::Emit;
        }
        (self.end)(now)
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.tell.send(format!("sent {} pieces from {} buffers", self.sent_n, self.bufs.len()));
    }
}

/// Rows that only [`Numbers`] steps.
pub struct NoRows;

impl Rows for NoRows {
    fn step(&mut self, _: &View<'_>, _: &mut Vec<u8>) -> Result<bool, ApiError> {
        Err(ApiError::new(500, "stepped without a store"))
    }
}

/// One step, three rows.
struct Numbers(Sender<String>);

impl RowSource for Numbers {
    fn step(&self, _: &mut dyn Rows, out: &mut Vec<u8>) -> Result<bool, ApiError> {
        let _ = self.0.send("rows stepped".to_owned());
        out.extend_from_slice(b"[1,2,3]");
        Ok(false)
    }
}

/// A machine without files.
struct NoFiles;

impl Files for NoFiles {
    fn work(&self, _: Work) -> BoxedLocal<Result<Done, FileError>> {
        Box::pin(pending())
    }

    fn read(&self, _: std::sync::Arc<std::fs::File>, _: u64, _: usize, _: Vec<u8>) -> BoxedLocal<(Vec<u8>, Result<(), FileError>)> {
        Box::pin(pending())
    }

    fn changed(&self, _: AllocId, _: &str) -> BoxedLocal<()> {
        Box::pin(pending())
    }
}
