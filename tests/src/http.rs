//! A plain HTTP/1.1 client on blocking sockets: shows exactly what was sent, and can be as rude as a test needs.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longest silence a test accepts from the agent.
pub const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// Names in lower case; the last of equal names wins.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|why| panic!("{why}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(&name.to_lowercase()).map_or("", String::as_str)
    }

    pub fn index(&self) -> u64 {
        self.header("x-nomad-index").parse().unwrap_or(0)
    }
}

/// An answer whose body is still coming.
pub struct Incoming {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    stream: BufReader<TcpStream>,
    is_chunked: bool,
    /// Left of the current chunk, or of the whole body.
    left: Option<u64>,
    is_over: bool,
}

impl Incoming {
    /// The socket, to be slow or to hang up.
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// The rest of the answer.
    pub fn whole(mut self) -> io::Result<Response> {
        let mut body = Vec::new();
        self.read_to_end(&mut body)?;
        Ok(Response { status: self.status, headers: self.headers, body })
    }
}

impl Read for Incoming {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.is_over {
            return Ok(0);
        }
        if self.is_chunked && self.left.is_none_or(|left| left == 0) {
            let mut line = String::new();
            if self.left == Some(0) {
                self.stream.read_line(&mut line)?;
                line.clear();
            }
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body was broken off"));
            }
            let size = u64::from_str_radix(line.trim().split(';').next().unwrap_or_default(), 16).map_err(io::Error::other)?;
            self.left = Some(size);
            if size == 0 {
                self.is_over = true;
                return Ok(0);
            }
        }
        let max = self.left.map_or(buf.len(), |left| buf.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        let n = self.stream.read(&mut buf[..max])?;
        if let Some(left) = &mut self.left {
            *left -= n as u64;
            if !self.is_chunked && *left == 0 {
                self.is_over = true;
            }
        }
        if n == 0 {
            if self.left.is_some_and(|left| left > 0) {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the body was broken off"));
            }
            self.is_over = true;
        }
        Ok(n)
    }
}

/// Sends a request and gives the answer when its head is there.
pub fn open(addr: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Incoming> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.set_nodelay(true)?;
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if method == "HEAD" {
        return answer(stream).map(|answer| Incoming { is_over: true, ..answer });
    }
    // An agent that refuses a body early may close before all of it is sent; its answer is what counts.
    let sent = stream.write_all(body);
    answer(stream).or_else(|why| sent.and(Err(why)))
}

/// Reads the head of an answer from a socket on which a request was sent.
pub fn answer(stream: TcpStream) -> io::Result<Incoming> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let status =
        line.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(|| io::Error::other(format!("no status: {line:?}")))?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let is_chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
    let left = headers.get("content-length").and_then(|length| length.parse().ok());
    let is_over = left == Some(0) && !is_chunked;
    Ok(Incoming { status, headers, stream, is_chunked, left: if is_chunked { None } else { left }, is_over })
}

/// A request that is on its way: its answer is read later.
pub struct Asked(TcpStream);

impl Asked {
    /// The socket, to be slow or to hang up.
    pub fn socket(&self) -> &TcpStream {
        &self.0
    }

    /// The head of the answer.
    pub fn answer(self) -> io::Result<Incoming> {
        answer(self.0)
    }

    /// The whole answer.
    pub fn whole(self) -> io::Result<Response> {
        self.answer()?.whole()
    }
}

/// Sends a request without a body and does not wait for its answer.
pub fn open_later(addr: SocketAddr, method: &str, path: &str) -> io::Result<Asked> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(SILENCE_MAX))?;
    stream.write_all(format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes())?;
    Ok(Asked(stream))
}

/// Sends a request and gives the whole answer.
pub fn ask(addr: SocketAddr, method: &str, path: &str, body: &[u8]) -> io::Result<Response> {
    open(addr, method, path, &[], body)?.whole()
}

/// Waits, by blocking queries, until `path` answers with what `is_so` accepts; or gives the last answer that came before the limit.
pub fn wait(addr: SocketAddr, path: &str, limit: Duration, mut is_so: impl FnMut(&Value) -> bool) -> io::Result<Result<Value, Response>> {
    let end = Instant::now() + limit;
    let mut index = 0;
    loop {
        let mark = if path.contains('?') { '&' } else { '?' };
        let answer = ask(addr, "GET", &format!("{path}{mark}index={index}&wait=2s"), b"")?;
        if answer.status == 200 && is_so(&answer.json()) {
            return Ok(Ok(answer.json()));
        }
        if Instant::now() >= end {
            return Ok(Err(answer));
        }
        index = answer.index();
    }
}
