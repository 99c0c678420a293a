use std::io::{Read as _, Write as _};
use std::sync::Arc;

use super::super::rig::{PATIENCE, Peer, Rig, is_alone, limits};
use super::*;

const NEVER: Duration = Duration::from_secs(3600);

/// A connection whose handler is at work.
fn busy(rig: &Rig) -> Peer<TcpStream> {
    let mut peer = rig.connect();
    peer.send("GET /wait HTTP/1.1\r\n\r\n");
    rig.expect("called /wait");
    peer
}

/// A connection that waits for its next request.
fn idle(rig: &Rig) -> Peer<TcpStream> {
    let mut peer = rig.connect();
    assert_eq!(peer.get("/hello").status, 200);
    peer
}

#[test]
fn a_greedy_client_is_told_so_and_no_one_else_is_hurt() {
    let rig = Rig::start(Limits { conns_per_client_max: 3, ..limits() });
    let mut held: Vec<_> = (0..3).map(|_| busy(&rig)).collect();
    let refused = rig.connect().send("GET /hello HTTP/1.1\r\n\r\n").rest();
    assert_eq!(String::from_utf8(refused).unwrap(), TOO_MANY);
    let body = TOO_MANY.split_once("\r\n\r\n").unwrap().1;
    assert!(TOO_MANY.contains(&format!("Content-Length: {}\r\n", body.len())));
    // When one is given back there is room again.
    drop(held.pop());
    rig.expect("handler dropped");
    while rig.connect().send("GET /hello HTTP/1.1\r\n\r\n").answer().status != 200 {}
}

#[test]
fn the_oldest_idle_connection_makes_room() {
    for limits in [Limits { conns_per_client_max: 3, ..limits() }, Limits { conns_max: 3, conns_per_client_max: 0, ..limits() }] {
        let rig = Rig::start(limits);
        let mut working = busy(&rig);
        let mut oldest = idle(&rig);
        let mut newer = idle(&rig);
        let mut last = idle(&rig);
        assert!(oldest.rest().is_empty(), "closed for the last one");
        assert_eq!(newer.get("/hello").status, 200, "and only it");
        assert_eq!(last.get("/hello").status, 200);
        working.stream.set_nonblocking(true).unwrap();
        assert_eq!(working.stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}

#[test]
fn a_half_open_connection_makes_room_when_it_is_old_enough() {
    let rig = Rig::start(Limits { conns_per_client_max: 1, half_open_min: Duration::ZERO, ..limits() });
    let mut silent = rig.connect();
    assert_eq!(idle(&rig).get("/hello").status, 200);
    assert!(silent.rest().is_empty());
    let rig = Rig::start(Limits { conns_per_client_max: 1, half_open_min: NEVER, ..limits() });
    let mut silent = rig.connect();
    assert_eq!(rig.connect().answer().status, 429, "a client that has just connected may be about to ask");
    assert_eq!(silent.get("/hello").status, 200);
}

#[test]
fn all_connections_together_are_bounded() {
    let folder = tempdir();
    let path = folder.0.join("api.sock");
    let rig = Rig::with_socket(Limits { conns_max: 2, conns_per_client_max: 2, ..limits() }, Some(path.clone()));
    let _held = [busy(&rig), busy(&rig)];
    let mut local = Peer::of(UnixStream::connect(&path).unwrap());
    assert_eq!(String::from_utf8(local.rest()).unwrap(), TOO_MANY, "a socket without an address counts too");
}

#[test]
fn refusals_are_rationed() {
    let rig = Rig::start(Limits { conns_per_client_max: 1, refusals_burst: 2, refusals_per_s: 0, ..limits() });
    let _held = busy(&rig);
    for want in [429, 429] {
        assert_eq!(rig.connect().answer().status, want);
    }
    assert!(rig.connect().rest().is_empty(), "closed without a word");
    let limits = Limits { refusals_burst: 2, refusals_per_s: 10, ..limits() };
    let refusals = Refusals::new(&limits);
    let asked_ms = [0, 0, 0, 50, 99, 100, 150, 199, 200, 5000, 5000, 5000];
    let told = asked_ms.map(|ms| refusals.take(Mono::default().after_ms(1_000 + ms)));
    assert_eq!(told, [true, true, false, false, false, true, false, false, true, true, true, false]);
}

#[test]
fn a_unix_socket_serves_its_owner_and_replaces_a_stale_one() {
    let folder = tempdir();
    let path = folder.0.join("api.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind");
    let rig = Rig::with_socket(limits(), Some(path.clone()));
    assert_eq!(Peer::of(UnixStream::connect(&path).unwrap()).get("/hello").text(), "hello");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let error = bind_unix(&path).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (io::ErrorKind::AddrInUse, "another agent answers on it"));
    drop(rig);
    assert!(!path.exists(), "taken away at the end");
    let file = folder.0.join("file");
    fs::write(&file, "precious").unwrap();
    assert_eq!(bind_unix(&file).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    assert_eq!(bind_unix(&folder.0.join("no/such/folder")).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(bind_unix(&folder.0.join("n".repeat(200))).is_err(), "too long for a socket's name");
}

#[test]
fn an_address_in_use_is_named() {
    let rig = Rig::start(limits());
    let exec = Executor::new();
    let server = Server::new(exec, super::super::rig::idle_http());
    let error = server.listen_tcp(rig.addr).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().starts_with(&format!("listen on {}: ", rig.addr)), "{error}");
}

#[test]
fn without_descriptors_clients_wait_and_are_served_later() {
    if !is_alone(concat!(module_path!(), "::without_descriptors_clients_wait_and_are_served_later")) {
        return;
    }
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let rig = Rig::start(Limits { accept_retry: Duration::from_millis(20), ..limits() });
    let spent = || rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let max = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: max }).unwrap();
    let mut waiting = rig.connect();
    // The first accept may have been quicker; then this one finds nothing left.
    let mut hoard = Vec::new();
    while let Ok(file) = fs::File::open("/dev/null") {
        hoard.push(file);
    }
    hoard.pop();
    let mut late = rig.connect();
    assert!(fs::File::open("/dev/null").is_err());
    let before = spent();
    late.stream.write_all(b"GET /hello HTTP/1.1\r\n\r\n").unwrap();
    late.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert_eq!(late.stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let cpu_ms = (spent().tv_sec - before.tv_sec) * 1000 + (spent().tv_nsec - before.tv_nsec) / 1_000_000;
    assert!(cpu_ms < 150, "no busy loop: {cpu_ms} ms");
    hoard.clear();
    late.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(late.answer().text(), "hello");
    assert_eq!(waiting.get("/hello").text(), "hello");
}

/// A folder that goes away with its name.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tempdir() -> Folder {
    let once = Arc::new(());
    let path = std::env::temp_dir().join(format!("dunlin-net-{}-{:p}", std::process::id(), Arc::as_ptr(&once)));
    fs::create_dir_all(&path).unwrap();
    // The address stays taken, so the name stays ours.
    std::mem::forget(once);
    Folder(path)
}
