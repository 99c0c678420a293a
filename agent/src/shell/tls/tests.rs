//! Real handshakes on loopback with the certificates of `fixtures` (made by `fixtures/make`), against the server of the rig.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;

use futures_rustls::rustls::{ClientConnection, StreamOwned};

use super::super::client::{Ask, Client, ClientError};
use super::super::h1::Limits;
use super::super::rig::{Peer, Rig, limits};
use super::*;
use crate::wire::http::Method;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/shell/tls/fixtures").join(name)
}

fn text(name: &str) -> String {
    fixture(name).display().to_string()
}

fn files() -> TlsFiles {
    TlsFiles { cert: fixture("server.pem"), key: fixture("server.key"), client_ca: None }
}

fn trust() -> Trust {
    Trust { ca: text("ca.pem"), ..Trust::default() }
}

fn shown(name: &str) -> Trust {
    Trust { cert: text(&format!("{name}.pem")), key: text(&format!("{name}.key")), ..trust() }
}

/// A blocking client within TLS, for what must be slow or rude.
fn peer(addr: SocketAddr) -> Peer<StreamOwned<ClientConnection, TcpStream>> {
    let config = Arc::new(client_config(&trust()).unwrap());
    let session = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    let Peer { stream, .. } = Peer::new(TcpStream::connect(addr).unwrap());
    Peer::of(StreamOwned::new(session, stream))
}

/// What comes of GET /hello.
fn hello(address: &str, trust: &Trust) -> Result<String, String> {
    let ask = Ask { method: Method::Get, target: "/hello", token: "", body: b"" };
    let mut text = String::new();
    let exchange = Client::new(address, trust).and_then(|client| client.exchange(&ask)).map_err(|why| why.to_string())?;
    let read = exchange.body.take(100).read_to_string(&mut text);
    read.map(|_| text).map_err(|why| why.to_string())
}

#[track_caller]
fn check(address: &str, trust: &Trust, want: Result<&str, &str>) {
    match (hello(address, trust), want) {
        (Ok(got), Ok(want)) => assert_eq!(got, want),
        (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
        (got, want) => panic!("{got:?} instead of {want:?}"),
    }
}

#[test]
fn the_command_line_reaches_the_server_it_trusts() {
    let rig = Rig::with_tls(limits(), &files());
    let address = format!("https://{}", rig.addr);
    check(&address, &trust(), Ok("hello"));
    check(&format!("https://localhost:{}", rig.addr.port()), &trust(), Ok("hello"));
    check(&address, &Trust { server_name: "client.global.nomad".into(), ..trust() }, Ok("hello"));
    // It shows a certificate nobody asked for.
    check(&address, &shown("client"), Ok("hello"));
    check(&address, &Trust { server_name: "server.global.nomad".into(), ..trust() }, Err("certificate"));
    check(&address, &Trust { ca: text("stranger-ca.pem"), ..trust() }, Err("certificate"));
    check(&format!("http://{}", rig.addr), &Trust::default(), Err("cannot reach the agent"));
}

#[test]
fn clients_without_the_right_certificate_are_not_served() {
    let rig = Rig::with_tls(limits(), &TlsFiles { client_ca: Some(fixture("ca.pem")), ..files() });
    let address = format!("https://{}", rig.addr);
    check(&address, &shown("client"), Ok("hello"));
    check(&address, &trust(), Err("CertificateRequired"));
    check(&address, &shown("stranger"), Err("UnknownCA"));
    check(&address, &shown("client"), Ok("hello"));
    assert_eq!(rig.told.try_iter().filter(|told| told == "called /hello").count(), 2);
}

#[test]
fn connections_live_on_and_bodies_arrive_whole() {
    let rig = Rig::with_tls(limits(), &files());
    let mut peer = peer(rig.addr);
    assert_eq!(peer.get("/hello").text(), "hello");
    assert_eq!(peer.get("/three").text(), "piecepiecepiece");
    // Pieces smaller than a record, taken slowly: what rustls holds back must leave although nothing new comes.
    peer.send("GET /mid HTTP/1.1\r\n\r\n").head();
    let mut body = Vec::new();
    while let Some(chunk) = peer.chunk() {
        body.extend_from_slice(&chunk);
    }
    assert_eq!(body.len(), 4 << 20);
    assert!(body.iter().all(|byte| *byte == b'x'));
    peer.send(format!("POST /size HTTP/1.1\r\nContent-Length: {}\r\n\r\n", 60_000)).send(vec![b'y'; 60_000]);
    assert_eq!(peer.answer().text(), "60000");
    // Both goodbyes arrive, so the end is an end and not a break.
    peer.stream.conn.send_close_notify();
    peer.stream.flush().unwrap();
    assert!(peer.rest().is_empty());
}

#[test]
fn a_client_that_stops_reading_costs_no_memory_and_is_cut_off() {
    let rig = Rig::with_tls(Limits { write_stall: std::time::Duration::from_millis(300), ..limits() }, &files());
    let mut peer = peer(rig.addr);
    peer.send("GET /big HTTP/1.1\r\n\r\n").head();
    // Of 64 MiB the sockets' buffers, hyper's and ours hold a few; then the deadline comes.
    let sent = loop {
        let told = rig.told.recv_timeout(super::super::rig::PATIENCE).unwrap();
        if let Some(sent) = told.strip_prefix("sent ") {
            break sent.split(' ').next().unwrap().parse::<usize>().unwrap();
        }
    };
    assert!(sent < 4096, "{sent} pieces of 16 KiB went somewhere");
}

#[test]
fn a_client_that_leaves_is_noticed() {
    let rig = Rig::with_tls(limits(), &files());
    let mut polite = peer(rig.addr);
    polite.send("GET /quiet HTTP/1.1\r\n\r\n").head();
    assert_eq!(polite.chunk().unwrap(), b"first");
    polite.stream.conn.send_close_notify();
    polite.stream.flush().unwrap();
    rig.expect("body ended");
    let mut rude = peer(rig.addr);
    rude.send("GET /wait HTTP/1.1\r\n\r\n");
    rig.expect("called /wait");
    drop(rude);
    rig.expect("handler dropped");
}

#[test]
fn who_does_not_shake_hands_is_dropped() {
    let rig = Rig::with_tls(Limits { first_byte: std::time::Duration::from_millis(100), ..limits() }, &files());
    assert!(rig.connect().rest().is_empty(), "silence");
    // An alert, which is no HTTP.
    assert!(!rig.connect().send("GET /hello HTTP/1.1\r\n\r\n").rest().starts_with(b"HTTP"));
    assert!(!rig.connect().send(vec![0x16; 100_000]).rest().starts_with(b"HTTP"));
    let mut half = rig.connect();
    half.send([0x16, 3, 1, 2, 0, 1, 0, 1]);
    assert!(half.rest().is_empty());
    assert_eq!(peer(rig.addr).get("/hello").status, 200);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let none = fixture("none.pem");
    let key = fixture("server.key");
    for (files, want) in [
        (TlsFiles { cert: none.clone(), ..files() }, "none.pem: No such file"),
        (TlsFiles { key: none.clone(), ..files() }, "none.pem: No such file"),
        (TlsFiles { cert: key.clone(), ..files() }, "server.key: no certificate"),
        (TlsFiles { key: fixture("server.pem"), ..files() }, "server.pem: "),
        (TlsFiles { key: fixture("client.key"), ..files() }, "client.key: "),
        (TlsFiles { client_ca: Some(none), ..files() }, "none.pem: No such file"),
        (TlsFiles { client_ca: Some(key), ..files() }, "server.key: no certificate"),
        (TlsFiles { cert: "/dev/zero".into(), ..files() }, "/dev/zero: more than 1048576 bytes"),
    ] {
        let error = acceptor(&files).err().map(|why| why.to_string()).unwrap_or_default();
        assert!(error.contains(want), "{error:?} does not say {want:?}");
    }
    assert!(acceptor(&files()).is_ok());
    let error = Client::new("https://localhost", &Trust { ca: text("none.pem"), ..Trust::default() }).unwrap_err();
    assert!(matches!(&error, ClientError::Trust { .. }));
    assert!(error.to_string().starts_with("cannot use TLS: ") && error.to_string().contains("none.pem: No such file"), "{error}");
}
