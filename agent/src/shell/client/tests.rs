use std::io::Write as _;
use std::net::TcpListener;
use std::thread;

use super::super::rig::{Rig, limits};
use super::*;

#[track_caller]
fn check_address(address: &str, want: Result<(&str, u16), &str>) {
    let got = parse(address);
    let want = want.map(|(host, port)| match port {
        0 => (Place::Unix(host.into()), false),
        port => (Place::Tcp { host: host.to_owned(), port }, address.starts_with("https")),
    });
    assert_eq!(got, want, "{address}");
}

#[test]
fn addresses() {
    check_address("http://127.0.0.1:4646", Ok(("127.0.0.1", 4646)));
    check_address("http://edge.local:1/", Ok(("edge.local", 1)));
    check_address("10.0.0.1:4646", Ok(("10.0.0.1", 4646)));
    check_address("http://[::1]:4646", Ok(("::1", 4646)));
    check_address("http://[::1]", Ok(("::1", 80)));
    check_address("http://host", Ok(("host", 80)));
    check_address("unix:///run/dunlin/api.sock", Ok(("/run/dunlin/api.sock", 0)));
    check_address("unix://relative", Err("the path of the socket must be absolute"));
    check_address("https://host:4646", Ok(("host", 4646)));
    check_address("https://[::1]", Ok(("::1", 443)));
    check_address("ftp://host:4646", Err("the scheme is not known"));
    check_address("http://host:4646/v1", Err("it must be a host and a port only"));
    check_address("http://user@host:1", Err("it must be a host and a port only"));
    check_address("http://host:70000", Err("the port must be a number up to 65535"));
    check_address("http://[::1]4646", Err("a port must follow the host"));
    check_address("http://:4646", Err("the host is missing"));
    check_address("", Err("the host is missing"));
    let error = Client::new("ftp://x", &Trust::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot use the address \"ftp://x\": the scheme is not known; http://127.0.0.1:4646 or unix:///path would do"
    );
}

fn get(target: &str) -> Ask<'_> {
    Ask { method: Method::Get, target, token: "", body: b"" }
}

fn text(exchange: Exchange) -> String {
    let mut text = String::new();
    // The verbs keep it as such.
    let mut body: Box<dyn Read + Send> = Box::new(exchange.body);
    body.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn asks_and_reads() {
    let rig = Rig::start(limits());
    let client = Client::new(&format!("http://{}", rig.addr), &Trust::default()).unwrap();
    let got = client.exchange(&get("/hello")).unwrap();
    assert_eq!(got.status, 200);
    assert!(got.headers.contains(&("vary".to_owned(), "Accept-Encoding".to_owned())));
    assert_eq!(text(got), "hello");
    let ask = Ask { method: Method::Put, target: "/what?a=b", token: "s3cret", body: b"{}" };
    let got = client.exchange(&ask).unwrap();
    assert_eq!(got.status, 404);
    assert_eq!(text(got), "Put /what a=b token=\"s3cret\" origin=\"\" body=2");
    assert_eq!(text(client.exchange(&get("/three")).unwrap()), "piecepiecepiece");
    let mut big = Vec::new();
    client.exchange(&get("/mid")).unwrap().body.read_to_end(&mut big).unwrap();
    assert_eq!(big.len(), 4 << 20);
    let large = Ask { method: Method::Post, target: "/size", token: "", body: &vec![b'x'; 8 << 20] };
    let got = client.exchange(&large).unwrap();
    assert_eq!((got.status, text(got).as_str()), (413, "request body too large"));
    assert!(client.exchange(&Ask { method: Method::Other, ..get("/") }).is_err());
    assert!(client.exchange(&get("no slash \n")).is_err());
}

#[test]
fn reads_a_stream_as_it_comes_and_leaves_when_it_likes() {
    let rig = Rig::start(limits());
    let client = Client::new(&rig.addr.to_string(), &Trust::default()).unwrap();
    let mut got = client.exchange(&get("/quiet")).unwrap();
    let mut first = [0; 5];
    got.body.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first");
    drop(got);
    rig.expect("body ended");
    let mut got = client.exchange(&get("/abort")).unwrap();
    let mut half = Vec::new();
    let error = got.body.read_to_end(&mut half).unwrap_err();
    assert_eq!((error.kind(), half.as_slice()), (io::ErrorKind::UnexpectedEof, &b"halfhalf"[..]));
}

#[test]
fn speaks_over_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("dunlin-client-{}.sock", std::process::id()));
    let rig = Rig::with_socket(limits(), Some(path.clone()));
    let address = format!("unix://{}", path.display());
    assert_eq!(text(Client::new(&address, &Trust::default()).unwrap().exchange(&get("/hello")).unwrap()), "hello");
    drop(rig);
    let error = Client::new(&address, &Trust::default()).unwrap().exchange(&get("/hello")).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot reach the agent at {address}: no such file; is it running? (set -address or NOMAD_ADDR)")
    );
}

#[test]
fn an_agent_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = Client::new(&address, &Trust::default()).unwrap().exchange(&get("/hello")).unwrap_err();
    let want = format!("cannot reach the agent at {address}: connection refused; is it running? (set -address or NOMAD_ADDR)");
    assert_eq!(error.to_string(), want);
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::ConnectionRefused);
}

/// A server that answers with these bytes and closes.
#[track_caller]
fn check_answer(raw: &'static str, status: Option<u16>, body: Option<&str>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        stream.write_all(raw.as_bytes()).unwrap();
        String::from_utf8(seen).unwrap()
    });
    let got = Client::new(&address, &Trust::default()).unwrap().exchange(&get("/x"));
    let asked = server.join().unwrap();
    assert!(asked.to_lowercase().contains(&format!("host: {address}\r\n")), "{asked}");
    assert_eq!(got.as_ref().ok().map(|got| got.status), status, "{raw:?}: {got:?}");
    if let Ok(mut got) = got {
        let mut text = String::new();
        let read = got.body.read_to_string(&mut text);
        assert_eq!(read.ok().map(|_| text.as_str()), body, "{raw:?}");
    }
}

#[test]
fn answers_of_strangers() {
    check_answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Some(200), Some("ok"));
    check_answer("HTTP/1.0 200 OK\r\n\r\nuntil the end", Some(200), Some("until the end"));
    check_answer("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", Some(204), Some(""));
    check_answer("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Some(200), None);
    check_answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", Some(200), None);
    check_answer("HTTP/1.1 200 OK\r\nContent-Le", None, None);
    check_answer("SSH-2.0-OpenSSH\r\n", None, None);
    check_answer("", None, None);
}
