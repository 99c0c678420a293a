//! Listening sockets: accepts, counts, makes room, refuses.
//!
//! Shape: address or path -> connections handed to [`h1::serve_connection`], one task each. Units: connections.
//! Invariant: never more than `conns_max` connections, nor more than `conns_per_client_max` from one address. When full, the
//! connection that has been idle or half open for the longest is closed; without one the new one is answered 429, at most
//! `refusals_per_s` times a second, and otherwise closed without a word.
//! Errors: a socket that cannot be listened on is an `io::Error` that names it; errors of single accepts are logged and outlived.
//! Source: `spec/http-api.md` 10 (upstream v1.3.1 command/agent/http.go, `limits.http_max_conns_per_client`).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::time::Duration;

use dunlin_hal::clock::Mono;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use smol::future::FutureExt as _;
use smol::{Async, Task};

use super::executor::Executor;
use super::h1::{self, BoxStream, Http, Limits, Watch};
use super::tls::Acceptor;

/// What a client beyond its share is told.
const TOO_MANY: &str = "HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain\r\nContent-Length: 81\r\nConnection: close\r\n\r\n\
    Your IP is issuing too many concurrent connections, please rate limit your calls\n";

/// Refused clients waited for at once; beyond that the answer is sent and the connection closed without waiting.
const LINGERING_MAX: usize = 32;

/// Waiting connections the kernel keeps for us.
const BACKLOG: i32 = 64;

/// A peer that vanished without a word is noticed after this long without data, with probes this often, this many.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// The server: listeners and connections. Dropping it closes all of them, with the executor's next turns.
pub struct Server {
    shared: Rc<Shared>,
    listening: RefCell<Vec<Task<()>>>,
    sockets: RefCell<Vec<PathBuf>>,
}

struct Shared {
    exec: Executor,
    http: Rc<Http>,
    conns: RefCell<Vec<Conn>>,
    next_id: Cell<u64>,
    refusals: Refusals,
    lingering_n: Cell<usize>,
}

struct Conn {
    id: u64,
    client: Option<IpAddr>,
    watch: Rc<Watch>,
    task: Task<()>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("conns_n", &self.conns_n()).finish_non_exhaustive()
    }
}

impl Server {
    /// A server that listens nowhere yet.
    #[must_use]
    pub fn new(exec: Executor, http: Rc<Http>) -> Self {
        let refusals = Refusals::new(&http.limits);
        let shared = Shared { exec, http, conns: RefCell::default(), next_id: Cell::new(0), refusals, lingering_n: Cell::new(0) };
        Self { shared: Rc::new(shared), listening: RefCell::default(), sockets: RefCell::default() }
    }

    /// Listens on a TCP address and returns the bound one (port 0 = any).
    pub fn listen_tcp(&self, addr: SocketAddr) -> io::Result<SocketAddr> {
        let context = |error: io::Error| io::Error::new(error.kind(), format!("listen on {addr}: {error}"));
        let listener = TcpListener::bind(addr).map_err(context)?;
        let bound = listener.local_addr().map_err(context)?;
        self.serve_tcp(listener, None).map_err(context)?;
        Ok(bound)
    }

    /// Serves a TCP socket that listens already, over TLS if there is an acceptor.
    pub fn serve_tcp(&self, listener: TcpListener, tls: Option<Rc<Acceptor>>) -> io::Result<()> {
        self.accept_on(Listener::Tcp(Async::new(listener)?), tls);
        Ok(())
    }

    /// Listens on a Unix socket that only this user may open. A socket left behind by an agent that is gone is replaced.
    pub fn listen_unix(&self, path: &Path) -> io::Result<()> {
        let context = |error: io::Error| io::Error::new(error.kind(), format!("listen on unix://{}: {error}", path.display()));
        let listener = bind_unix(path).and_then(Async::new).map_err(context)?;
        self.sockets.borrow_mut().push(path.to_owned());
        self.accept_on(Listener::Unix(listener), None);
        Ok(())
    }

    /// Connections being served.
    #[must_use]
    pub fn conns_n(&self) -> usize {
        self.shared.conns.borrow().len()
    }

    fn accept_on(&self, listener: Listener, tls: Option<Rc<Acceptor>>) {
        let task = self.shared.exec.spawn(accept_all(self.shared.clone(), listener, tls));
        self.listening.borrow_mut().push(task);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listening.borrow_mut().clear();
        let conns = self.shared.conns.take();
        drop(conns);
        for path in self.sockets.borrow_mut().drain(..) {
            // Gone already, or in a folder that was taken away: both are what we want.
            let _ = fs::remove_file(path);
        }
    }
}

/// Permissions come before `listen`: until then nobody can connect, so there is no moment with wider ones.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is no socket"));
        }
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers on it")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(error) => return Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

enum Listener {
    Tcp(Async<TcpListener>),
    Unix(Async<UnixListener>),
}

impl Listener {
    async fn accept(&self, limits: &Limits) -> io::Result<(BoxStream, Option<IpAddr>)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                tune(&stream, limits)?;
                Ok((Box::new(stream), Some(peer.ip().to_canonical())))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Box::new(stream), None))
            }
        }
    }
}

/// Small frames leave at once; a peer whose power was cut is noticed although it never says goodbye.
fn tune(stream: &Async<TcpStream>, limits: &Limits) -> io::Result<()> {
    let (idle, interval, probes_n) = KEEPALIVE;
    sockopt::set_tcp_nodelay(stream, true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, idle)?;
    sockopt::set_tcp_keepintvl(stream, interval)?;
    sockopt::set_tcp_keepcnt(stream, probes_n)?;
    sockopt::set_tcp_user_timeout(stream, u32::try_from(limits.write_stall.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

async fn accept_all(shared: Rc<Shared>, listener: Listener, tls: Option<Rc<Acceptor>>) {
    let mut is_failing = false;
    loop {
        match listener.accept(&shared.http.limits).await {
            Ok((stream, client)) => {
                is_failing = false;
                shared.admit(stream, client, tls.clone());
                // A flood of connections must not keep the others from their turn.
                smol::future::yield_now().await;
            }
            // The client went away while it waited, or before its socket was set up.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::InvalidInput) => {}
            Err(error) => {
                // Out of descriptors or memory: the connection stays in the backlog, so trying at once would be a busy loop.
                if !is_failing {
                    log::warn!("cannot accept connections, trying on: error={error}");
                }
                is_failing = true;
                smol::Timer::after(shared.http.limits.accept_retry).await;
            }
        }
    }
}

impl Shared {
    fn admit(self: &Rc<Self>, stream: BoxStream, client: Option<IpAddr>, tls: Option<Rc<Acceptor>>) {
        if !self.make_room(client) {
            // Within TLS the refusal would cost a handshake, which is what a flood wants.
            return if tls.is_none() {
                self.refuse(stream)
            };
        }
        let id = self.next_id.get();
        self.next_id.set(id.wrapping_add(1));
        let watch = Watch::new(self.http.limits, self.http.outside.clock.clone());
        let (http, serve_watch) = (self.http.clone(), watch.clone());
        let weak: Weak<Self> = Rc::downgrade(self);
        let task = self.exec.spawn(async move {
            let greeted = match tls {
                None => Ok(stream),
                Some(tls) => tls.accept(stream).or(late(http.limits.first_byte)).await,
            };
            match greeted {
                Ok(stream) => h1::serve_connection(http, stream, serve_watch).await,
                Err(why) => log::debug!("no TLS handshake: error={why}"),
            }
            if let Some(shared) = weak.upgrade() {
                shared.ended(id);
            }
        });
        self.conns.borrow_mut().push(Conn { id, client, watch, task });
    }

    fn ended(&self, id: u64) {
        let mut conns = self.conns.borrow_mut();
        if let Some(i) = conns.iter().position(|conn| conn.id == id) {
            conns.swap_remove(i).task.detach();
        }
    }

    /// True when one more connection of this client fits, if need be in the place of an idle one.
    fn make_room(&self, client: Option<IpAddr>) -> bool {
        let limits = &self.http.limits;
        let mut conns = self.conns.borrow_mut();
        let of_client = |conn: &Conn| client.is_some() && conn.client == client;
        if limits.conns_per_client_max > 0 && conns.iter().filter(|conn| of_client(conn)).count() >= limits.conns_per_client_max {
            close_oldest(&mut conns, of_client)
        } else if conns.len() >= limits.conns_max {
            close_oldest(&mut conns, |_| true)
        } else {
            true
        }
    }

    fn refuse(self: &Rc<Self>, stream: BoxStream) {
        if !self.refusals.take(self.http.outside.clock.now().mono) {
            return;
        }
        let is_lingering = self.lingering_n.get() < LINGERING_MAX;
        self.lingering_n.set(self.lingering_n.get() + usize::from(is_lingering));
        let shared = self.clone();
        let refuse = async move {
            h1::refuse(shared.http.clone(), stream, TOO_MANY.as_bytes(), is_lingering).await;
            shared.lingering_n.set(shared.lingering_n.get().saturating_sub(usize::from(is_lingering)));
        };
        self.exec.spawn(refuse).detach();
    }
}

/// The end of a handshake that takes too long.
async fn late<T>(after: Duration) -> io::Result<T> {
    smol::Timer::after(after).await;
    Err(io::ErrorKind::TimedOut.into())
}

/// Closes the connection among `which` that has been of no use for the longest. False = all are in use.
fn close_oldest(conns: &mut Vec<Conn>, which: impl Fn(&Conn) -> bool) -> bool {
    let idle = conns.iter().enumerate().filter(|(_, conn)| which(conn));
    let oldest = idle.filter_map(|(i, conn)| Some((conn.watch.idle_since()?, i))).min();
    match oldest {
        // Dropping its task closes it.
        Some((_, i)) => drop(conns.swap_remove(i)),
        None => return false,
    }
    true
}

/// How many more refusals may be told, in thousandths: refilled by time, up to the burst.
struct Refusals {
    per_s: u64,
    milli_max: u64,
    milli: Cell<u64>,
    filled_at: Cell<Option<Mono>>,
}

impl Refusals {
    fn new(limits: &Limits) -> Self {
        let milli_max = u64::from(limits.refusals_burst) * 1000;
        Self { per_s: u64::from(limits.refusals_per_s), milli_max, milli: Cell::new(milli_max), filled_at: Cell::new(None) }
    }

    fn take(&self, now: Mono) -> bool {
        let passed_ms = self.filled_at.get().map_or(0, |at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX));
        if passed_ms > 0 || self.filled_at.get().is_none() {
            self.filled_at.set(Some(now));
        }
        let milli = self.milli.get().saturating_add(passed_ms.saturating_mul(self.per_s)).min(self.milli_max);
        let left = milli.checked_sub(1000);
        self.milli.set(left.unwrap_or(milli));
        left.is_some()
    }
}

#[cfg(test)]
mod tests;
