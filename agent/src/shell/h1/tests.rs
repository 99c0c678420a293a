use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;

use super::super::rig::{BODY_BYTES_MAX, JOB_BYTES_MAX, PATIENCE, Peer, Rig, is_alone, limits};
use super::*;

const SHORT: Duration = Duration::from_millis(80);

/// One request as raw bytes, one answer: its status and what its body contains.
#[track_caller]
fn check(rig: &Rig, raw: &str, status: u16, text: &str) {
    let got = rig.connect().send(raw).answer();
    assert_eq!(got.status, status, "{raw:?}: {got:?}");
    assert!(got.text().contains(text), "{raw:?}: {:?}", got.text());
}

#[test]
fn requests_become_ours() {
    let rig = Rig::start(limits());
    let dump = |raw: &str, want: &str| check(&rig, raw, 404, want);
    dump("GET /a%2Fb/c?x=1&y=%20 HTTP/1.1\r\nHost: x\r\n\r\n", "Get /a%2Fb/c x=1&y=%20 token=\"\" origin=\"\" body=0");
    dump("GET http://host/a?b HTTP/1.1\r\nHost: x\r\n\r\n", "Get /a b ");
    dump("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "Options /* ");
    dump("BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n", "Other /pot ");
    dump("CONNECT host:1 HTTP/1.1\r\nHost: x\r\n\r\n", "");
    dump("GET /old HTTP/1.0\r\n\r\n", "Get /old ");
    dump("GET /nohost HTTP/1.1\r\n\r\n", "Get /nohost ");
    dump("\r\n\r\nGET /late HTTP/1.1\r\nHost: x\r\n\r\n", "Get /late ");
    dump("GET /t HTTP/1.1\r\nX-Nomad-Token:   abc  \r\nAuthorization: Bearer no\r\n\r\n", "token=\"abc\"");
    dump("GET /t HTTP/1.1\r\nauthorization: bEaReR  s3cret more\r\nOrigin: http://o\r\n\r\n", "token=\"s3cret\" origin=\"http://o\"");
    dump("GET /t HTTP/1.1\r\nAuthorization: Basic abc\r\n\r\n", "token=\"\"");
    dump("DELETE /d HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "Delete /d  token=\"\" origin=\"\" body=3");
    check(&rig, "GET / HTTP/1.1\r\nbad header\r\n\r\n", 400, "");
    check(&rig, "nonsense\r\n\r\n", 400, "");
    check(&rig, "GET /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "malformed request body");
}

#[test]
fn bodies_in_all_their_forms() {
    let rig = Rig::start(limits());
    let chunked = "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n";
    check(&rig, "PUT /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 200, "hello");
    check(&rig, &format!("{chunked}\r\n3;ext=\"1\"\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), 200, "abcde");
    check(&rig, &format!("{chunked}Content-Length: 2\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), 200, "abc");
    let mut peer = rig.connect();
    peer.send(format!("{chunked}\r\n3\r\nabc\r\n0\r\nX-Trail")).send("er: 1\r\n").send("\r\n");
    assert_eq!(peer.answer().text(), "abc");
    assert_eq!(peer.get("/hello").text(), "hello", "the connection goes on");
    let got = peer.send("PUT /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").answer();
    assert_eq!(got.status, 100);
    assert_eq!(peer.send("ok").answer().text(), "ok");
}

#[test]
fn heads_are_written_as_clients_know_them() {
    let rig = Rig::start(limits());
    let mut peer = rig.connect();
    let got = peer.get("/hello");
    assert_eq!(got.header("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(got.header("Content-Length"), Some("5"));
    assert_eq!(got.header("Vary"), Some("Accept-Encoding"));
    assert!(got.header("Date").is_some());
    let got = peer.get("/index");
    assert_eq!(got.status, 404);
    assert_eq!(got.header("X-Nomad-Knownleader"), Some("true"));
    assert!(got.head.contains("Vary: Accept-Encoding\r\nVary: Origin"), "{}", got.head);
    assert_eq!(got.header("X-Bad"), None, "a header with a line break is left out");
    let got = peer.get("/empty");
    assert_eq!((got.status, got.header("Content-Length"), got.header("Content-Encoding")), (200, Some("0"), None));
    let got = peer.send("HEAD /hello HTTP/1.1\r\n\r\n").answer_to(false);
    assert_eq!(got.header("Content-Length"), Some("5"));
    assert_eq!(peer.get("/rows").text(), "[1,2,3]");
    let got = peer.get("/three");
    assert_eq!((got.header("Transfer-Encoding"), got.text().as_str()), (Some("chunked"), "piecepiecepiece"));
    let got = peer.send("HEAD /three HTTP/1.1\r\n\r\n").answer_to(false);
    assert_eq!(got.status, 200);
    assert_eq!(peer.get("/fail").text(), "no such thing");
    assert_eq!(peer.get("/hello").text(), "hello", "nothing was left over");
}

#[test]
fn three_requests_in_one_packet_get_three_answers_in_order() {
    let rig = Rig::start(limits());
    let mut peer = rig.connect();
    peer.send("GET /three HTTP/1.1\r\n\r\nPUT /echo HTTP/1.1\r\nContent-Length: 3\r\n\r\ntwoGET /hello HTTP/1.1\r\n\r\n");
    assert_eq!(peer.answer().text(), "piecepiecepiece");
    assert_eq!(peer.answer().text(), "two");
    assert_eq!(peer.answer().text(), "hello");
}

#[test]
fn old_clients_and_those_that_ask_for_it_are_closed() {
    let rig = Rig::start(limits());
    for raw in ["GET /big HTTP/1.0\r\n\r\n", "GET /big HTTP/1.1\r\nConnection: close\r\n\r\n"] {
        let mut peer = rig.connect();
        let got = peer.send(raw).answer();
        assert_eq!(got.body.len(), 64 << 20, "{raw:?}");
        assert!(peer.rest().is_empty());
    }
}

#[test]
fn heads_beyond_the_limits() {
    let rig = Rig::start(limits());
    let line = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(n));
    check(&rig, &line(8000), 404, "Get /aaaa");
    check(&rig, &line(8200), 414, "request line too long");
    check(&rig, &line(12 << 10), 414, "request line too long");
    check(&rig, &line(100 << 10), 414, "request line too long");
    let headers = |n: usize, bytes: usize| {
        let mut raw = "GET /hello HTTP/1.1\r\n".to_owned();
        for i in 0..n {
            raw.push_str(&format!("H{i:03}: {}\r\n", "v".repeat(bytes)));
        }
        raw + "\r\n"
    };
    check(&rig, &headers(64, 100), 200, "hello");
    check(&rig, &headers(65, 1), 431, "");
    check(&rig, &headers(60, 256), 200, "hello");
    check(&rig, &headers(60, 300), 431, "");
    check(&rig, &headers(1, 200 << 10), 431, "");
}

#[test]
fn a_stream_without_a_line_feed_costs_no_memory() {
    if !is_alone(concat!(module_path!(), "::a_stream_without_a_line_feed_costs_no_memory")) {
        return;
    }
    let rig = Rig::start(limits());
    let resident_kb = || -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    for prefix in ["", "GET /hello HTTP/1.1\r\nX: ", "PUT /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;"] {
        let before_kb = resident_kb();
        let mut peer = rig.connect();
        let taken_n = peer.send(prefix).send_all_it_takes(&[b'a'; 64 << 10], 1024);
        // What it took is in the kernel's buffers, or was read and forgotten while the refusal waited to be read.
        assert!(resident_kb() < before_kb + 1024, "{prefix:?}: {taken_n} bytes taken");
    }
    assert_eq!(rig.connect().get("/hello").status, 200);
}

#[test]
fn bodies_beyond_the_limits() {
    let rig = Rig::start(limits());
    let head = |path: &str, n: usize| format!("PUT {path} HTTP/1.1\r\nContent-Length: {n}\r\n\r\n");
    for (path, max) in [("/size", BODY_BYTES_MAX), ("/v1/jobs", JOB_BYTES_MAX)] {
        let mut peer = rig.connect();
        let got = peer.send(head(path, max)).send(vec![b'b'; max]).answer();
        assert_eq!(got.status, 200, "{path} just fits");
        // Refused before a byte of it, so a client that waits for the go-ahead never sends it.
        let got = peer.send(format!("PUT {path} HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", max + 1)).answer();
        assert_eq!((got.status, got.text().as_str()), (413, "request body too large"));
        assert_eq!(got.header("Connection"), Some("close"));
        assert!(peer.rest().is_empty());
        // Without a length it is noticed on the way.
        let mut peer = rig.connect();
        peer.send(format!("PUT {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", max + 1));
        peer.send(vec![b'b'; max + 1]);
        assert_eq!(peer.answer().status, 413);
    }
    // A client that sends all of it before it reads is not reset, which could take from it why it was refused.
    let mut peer = rig.connect();
    let n = 4 << 20;
    assert_eq!(peer.send(head("/size", n)).send_all_it_takes(&[b'b'; 64 << 10], n >> 16), n);
    assert_eq!(peer.answer().status, 413);
    assert!(peer.rest().is_empty());
}

#[test]
fn all_bodies_are_on_one_account() {
    let rig = Rig::start(Limits { bodies_bytes_max: 40 << 10, ..limits() });
    let head = format!("PUT /size HTTP/1.1\r\nContent-Length: {}\r\n\r\n", 30 << 10);
    let taken_becomes = |n: usize| {
        let mut peer = rig.connect();
        while peer.get("/bodies").text() != n.to_string() {}
    };
    let mut first = rig.connect();
    first.send(&head).send(vec![b'1'; 29 << 10]);
    taken_becomes(30 << 10);
    let refused = rig.connect().send(&head).send(vec![b'2'; 30 << 10]).answer();
    assert_eq!((refused.status, refused.text().as_str()), (429, "too many concurrent requests"));
    assert_eq!(first.send(vec![b'1'; 1 << 10]).answer().text(), "30720");
    taken_becomes(0);
    // One that goes away gives back what it took.
    let mut leaver = rig.connect();
    leaver.send(&head).send(vec![b'3'; 29 << 10]);
    taken_becomes(30 << 10);
    drop(leaver);
    taken_becomes(0);
    // A promise takes nothing.
    let mut idle: Vec<_> = (0..8).map(|_| rig.connect()).collect();
    for peer in &mut idle {
        peer.send(&head);
    }
    assert_eq!(rig.connect().send(&head).send(vec![b'4'; 30 << 10]).answer().status, 200);
}

/// A client that sends this and then nothing is cut off by the deadline that `set` makes short.
#[track_caller]
fn check_cut_off(set: fn(&mut Limits), raw: &str) {
    let mut limits = limits();
    set(&mut limits);
    let rig = Rig::start(limits);
    let mut peer = rig.connect();
    let from = std::time::Instant::now();
    assert_eq!(String::from_utf8_lossy(&peer.send(raw).rest()), "", "{raw:?}");
    assert!(from.elapsed() >= SHORT - Duration::from_millis(5), "{raw:?}: cut off too early");
}

#[test]
fn the_slow_are_cut_off() {
    check_cut_off(|limits| limits.first_byte = SHORT, "");
    check_cut_off(|limits| limits.head = SHORT, "GET /hello HT");
    check_cut_off(|limits| limits.body_idle = SHORT, "PUT /echo HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc");
    check_cut_off(|limits| limits.body_idle = SHORT, "PUT /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
}

#[test]
fn an_idle_connection_is_kept_for_a_while() {
    let rig = Rig::start(Limits { first_byte: SHORT, head: SHORT, keep_alive: SHORT * 3, ..limits() });
    let mut peer = rig.connect();
    assert_eq!(peer.get("/hello").status, 200);
    let from = std::time::Instant::now();
    assert!(peer.rest().is_empty());
    assert!(from.elapsed() > SHORT * 2, "the deadlines of a head do not count between two requests");
}

#[test]
fn an_answer_on_its_way_is_not_idle() {
    let rig = Rig::start(Limits { keep_alive: SHORT, ..limits() });
    let mut peer = rig.connect();
    peer.send("GET /long HTTP/1.1\r\n\r\n").head();
    for _ in 0..3 {
        peer.exactly(64 << 10);
        // Another connection shows that the time of an idle one has passed.
        let mut idle = rig.connect();
        assert_eq!(idle.get("/hello").status, 200);
        assert!(idle.rest().is_empty());
    }
    peer.exactly((16 << 20) - 3 * (64 << 10));
}

#[test]
fn a_trickle_does_not_pass_for_a_head_or_a_body() {
    let rig = Rig::start(Limits { head: SHORT * 2, body_idle: SHORT * 2, body_rate_min: 1000, ..limits() });
    for raw in ["GET /hello HTTP/1.1\r\nX: ", "PUT /echo HTTP/1.1\r\nContent-Length: 60000\r\n\r\n"] {
        let mut peer = rig.connect();
        peer.send(raw);
        peer.stream.set_read_timeout(Some(SHORT / 4)).unwrap();
        let from = std::time::Instant::now();
        // Each byte comes well within the idle time.
        while peer.stream.write_all(b"x").is_ok() && !matches!(peer.stream.read(&mut [0; 9]), Ok(0)) {
            assert!(from.elapsed() < PATIENCE, "{raw:?}");
        }
    }
}

#[test]
fn a_waiting_handler_has_no_deadline_and_is_dropped_with_its_client() {
    let rig = Rig::start(Limits { first_byte: SHORT, head: SHORT, keep_alive: SHORT, body_idle: SHORT, ..limits() });
    let mut peer = rig.connect();
    peer.send("GET /wait HTTP/1.1\r\n\r\n");
    rig.expect("called /wait");
    peer.stream.set_read_timeout(Some(SHORT * 3)).unwrap();
    let nothing = peer.stream.read(&mut [0]).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock, "still open");
    assert!(rig.told.try_recv().is_err(), "still waiting");
    drop(peer);
    rig.expect("handler dropped");
    // A reset is noticed as well.
    let mut peer = rig.connect();
    peer.send("PUT /wait HTTP/1.1\r\nContent-Length: 2\r\n\r\nab");
    rig.expect("called /wait");
    rustix::net::sockopt::set_socket_linger(&peer.stream, Some(Duration::ZERO)).unwrap();
    drop(peer);
    rig.expect("handler dropped");
}

#[test]
fn a_quiet_stream_is_dropped_with_its_client() {
    let rig = Rig::start(limits());
    let mut peer = rig.connect();
    peer.send("GET /quiet HTTP/1.1\r\n\r\n");
    assert!(peer.head().contains("Transfer-Encoding: chunked"));
    assert_eq!(peer.chunk().unwrap(), b"first");
    drop(peer);
    rig.expect("body ended");
}

#[test]
fn a_recalled_body_ends() {
    let rig = Rig::start(limits());
    let mut peer = rig.connect();
    let got = peer.get("/three?recalled");
    assert_eq!(got.status, 500, "it was recalled before it had a head");
    rig.expect("machine told gone");
    rig.expect("body ended");
}

#[test]
fn a_broken_off_answer_is_not_whole() {
    let rig = Rig::start(limits());
    let mut peer = rig.connect();
    peer.send("GET /abort HTTP/1.1\r\n\r\n").head();
    assert_eq!(peer.chunk().unwrap(), b"half");
    assert_eq!(peer.chunk().unwrap(), b"half");
    assert!(peer.rest().is_empty(), "no last chunk");
}

#[test]
fn a_reader_that_stops_costs_one_buffer_and_is_cut_off() {
    let rig = Rig::start(Limits { write_stall: SHORT * 4, ..limits() });
    let mut peer = rig.connect();
    peer.send("GET /big HTTP/1.1\r\n\r\n");
    let told = loop {
        let told = rig.told.recv_timeout(PATIENCE).unwrap();
        if told.starts_with("sent ") {
            break told;
        }
    };
    let mut words = told.split(' ');
    let sent_n: usize = words.nth(1).unwrap().parse().unwrap();
    assert!(sent_n < 2048, "no more was made than the kernel's buffers take: {told}");
    assert!(told.ends_with("from 1 buffers"), "{told}");
    rig.expect("body ended");
}

#[test]
fn a_slow_reader_gets_every_byte() {
    let rig = Rig::start(limits());
    let mut peer = rig.connect();
    rustix::net::sockopt::set_socket_recv_buffer_size(&peer.stream, 32 << 10).unwrap();
    peer.send("GET /mid HTTP/1.1\r\n\r\n");
    let beside = thread::spawn({
        let addr = rig.addr;
        move || (0..50).for_each(|_| assert_eq!(Peer::new(TcpStream::connect(addr).unwrap()).get("/hello").status, 200))
    });
    let got = peer.answer();
    beside.join().unwrap();
    assert_eq!(got.body.len(), 4 << 20);
    assert!(got.body.iter().all(|&b| b == b'x'));
}
