//! What no client should send, and what tasks may plant: each is answered with its documented error or limit, nothing grows, and the
//! agent still answers afterwards (`spec/http-api.md` 1.4, 5, 10).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dunlin_tests::golden;
use dunlin_tests::http::{self, Response};
use dunlin_tests::real::{Options, Real};
use serde_json::{Value, json};

use super::contract::shell_job;

const NIL: &str = "00000000-0000-0000-0000-000000000000";
const LIMIT: Duration = Duration::from_secs(30);

/// It answers, holds no job that nobody registered, and has not grown by more than `growth_kb`.
#[track_caller]
fn is_well(agent: &Real, jobs_n: usize, rss_before_kb: u64, growth_kb: u64) {
    let jobs = agent.get("/v1/jobs");
    assert_eq!(jobs.as_array().map(Vec::len), Some(jobs_n), "{jobs}");
    assert_eq!(agent.get("/v1/agent/health")["client"]["ok"], true);
    let rss_kb = rss_kb(agent);
    println!("memory: {rss_before_kb} KiB before, {rss_kb} KiB after");
    assert!(rss_kb <= rss_before_kb + growth_kb, "it grew from {rss_before_kb} to {rss_kb} KiB");
}

fn rss_kb(agent: &Real) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn files_n(agent: &Real) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count()
}

/// Waits until the agent has let go of the connections of clients that went away.
#[track_caller]
fn files_come_down_to(agent: &Real, n: usize) {
    let deadline = Instant::now() + LIMIT;
    while files_n(agent) > n {
        assert!(Instant::now() < deadline, "{} files are open", files_n(agent));
        assert_eq!(agent.ask("GET", "/v1/regions", b"").status, 200);
    }
}

fn running(agent: &Real, job: &str, script: &str) -> String {
    agent.run(shell_job(job, script).to_string().as_bytes());
    agent.allocs(job, 1, |alloc| alloc["ClientStatus"] == "running")[0]["ID"].as_str().unwrap().to_owned()
}

#[test]
fn truncated_jobs_are_refused() {
    let agent = Real::start("truncated", Options::default());
    let job = golden::job("telemetry");
    let rss_before_kb = rss_kb(&agent);
    let end = job.iter().rposition(|byte| *byte == b'}').unwrap();
    for at in (0..end).step_by(61).chain([1, 2, end - 1, end]) {
        let answer = agent.ask("PUT", "/v1/jobs", &job[..at]);
        assert_eq!(answer.status, 400, "at {at}: {}", answer.text());
        assert!(!answer.body.is_empty());
        let validated = agent.ask("PUT", "/v1/validate/job", &job[..at]);
        assert_eq!(validated.status, 400, "at {at}: {}", validated.text());
    }
    is_well(&agent, 0, rss_before_kb, 4096);
}

/// Paths of every value of a document.
fn paths(value: &Value, path: &str, all: &mut Vec<String>) {
    all.push(path.to_owned());
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(key, value)| paths(value, &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), all))
        }
        Value::Array(items) => items.iter().enumerate().for_each(|(i, value)| paths(value, &format!("{path}/{i}"), all)),
        _ => {}
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[test]
fn wrong_types_are_refused() {
    let agent = Real::start("types", Options::default());
    let job: Value = serde_json::from_slice(&golden::job("telemetry")).unwrap();
    let rss_before_kb = rss_kb(&agent);
    let mut all = Vec::new();
    paths(&job, "", &mut all);
    let mut refused_n = 0;
    for path in all {
        // A driver's config is read by the driver; keys nobody knows are ignored.
        if path.contains("/Config") {
            continue;
        }
        let was = kind(job.pointer(&path).unwrap());
        if was == "null" {
            continue;
        }
        for wrong in [json!(true), json!("x"), json!(-1), json!(1.5), json!([1]), json!({"a": 1})] {
            if kind(&wrong) == was {
                continue;
            }
            let mut bad = job.clone();
            *bad.pointer_mut(&path).unwrap() = wrong.clone();
            let answer = agent.ask("PUT", "/v1/validate/job", bad.to_string().as_bytes());
            // An unknown key may hold anything.
            if answer.status != 400 {
                let mut without = job.clone();
                let (parent, key) = path.rsplit_once('/').unwrap_or_default();
                let members = without
                    .pointer_mut(parent)
                    .and_then(Value::as_object_mut)
                    .unwrap_or_else(|| panic!("{path} = {wrong}: {} {}", answer.status, answer.text()));
                members.insert(key.to_owned(), json!({"no": ["such"]}));
                let other = agent.ask("PUT", "/v1/validate/job", without.to_string().as_bytes());
                assert_eq!(other.status, 200, "{path} = {wrong}: {} {}", answer.status, answer.text());
                continue;
            }
            refused_n += 1;
        }
    }
    println!("wrong types: {refused_n} refused");
    assert!(refused_n > 150, "{refused_n}");
    is_well(&agent, 0, rss_before_kb, 4096);
}

/// Values of the right type that no job may have.
#[test]
fn impossible_numbers_are_refused() {
    let agent = Real::start("numbers", Options::default());
    let rss_before_kb = rss_kb(&agent);
    let text = shell_job("numbers", "exec sleep 1000").to_string().replace("\"MemoryMB\":16", "\"MemoryMB\":1024");
    for (from, to) in [
        ("\"CPU\":20", "\"CPU\":99999999999999999999999999"),
        ("\"CPU\":20", "\"CPU\":9223372036854775807"),
        ("\"CPU\":20", "\"CPU\":-9223372036854775808"),
        ("\"CPU\":20", "\"CPU\":1e3"),
        ("\"CPU\":20", "\"CPU\":1e999"),
        ("\"CPU\":20", "\"CPU\":0x20"),
        ("\"CPU\":20", "\"CPU\":NaN"),
        ("\"MemoryMB\":1024", "\"MemoryMB\":9223372036854775807"),
        ("\"KillTimeout\":10000000000", "\"KillTimeout\":-1"),
        ("\"KillTimeout\":10000000000", "\"KillTimeout\":9223372036854775807"),
        ("\"Name\":\"g\"", "\"Name\":\"g\",\"Count\":9223372036854775807"),
        ("\"Name\":\"g\"", "\"Name\":\"g\",\"Count\":-1"),
        ("\"ID\":\"numbers\"", "\"ID\":\"a\\u0000b\""),
        ("\"ID\":\"numbers\"", "\"ID\":\"a b\""),
        ("\"ID\":\"numbers\"", "\"ID\":\"\\ud800\""),
        ("\"Name\":\"t\"", "\"Name\":\"../../t\""),
    ] {
        assert!(text.contains(from), "{from}");
        let bad = text.replace(from, to);
        let answer = agent.ask("PUT", "/v1/jobs", bad.as_bytes());
        if answer.status == 200 {
            // Possible as a wish: then it waits for a node that can.
            let id = agent.get("/v1/jobs")[0]["ID"].as_str().unwrap().to_owned();
            let eval = agent.get(&format!("/v1/evaluation/{}", answer.json()["EvalID"].as_str().unwrap()));
            assert_eq!(eval["FailedTGAllocs"]["g"].is_object(), !to.contains("KillTimeout"), "{to}: {eval}");
            if to.contains("Count") {
                assert!(eval["QueuedAllocations"]["g"].as_u64() > Some(4_000_000_000), "{eval}");
            }
            assert_eq!(agent.ask("DELETE", &format!("/v1/job/{id}?purge=true"), b"").status, 200);
            continue;
        }
        assert!(
            answer.status == 400 || answer.status == 500 && answer.text().contains("error"),
            "{to}: {} {}",
            answer.status,
            answer.text()
        );
    }
    is_well(&agent, 0, rss_before_kb, 8192);
}

#[test]
fn huge_and_deep_documents_are_refused() {
    let agent = Real::start("huge", Options::default());
    let rss_before_kb = rss_kb(&agent);
    let mib = 1 << 20;
    let job = |filler: String| format!("{{\"Job\":{{\"ID\":\"big\",\"Meta\":{filler}}}}}").into_bytes();
    for (name, method, path, body, status, text) in [
        ("one byte too many", "PUT", "/v1/jobs", vec![b' '; mib + 1], 413, "request body too large"),
        ("ten times too many", "PUT", "/v1/jobs", vec![b'['; 10 * mib], 413, "request body too large"),
        ("validate", "PUT", "/v1/validate/job", vec![b'x'; 2 * mib], 413, "request body too large"),
        ("other writes", "PUT", "/v1/client/allocation/x/signal", vec![b' '; (64 << 10) + 1], 413, "request body too large"),
        ("blanks", "PUT", "/v1/jobs", vec![b' '; mib], 400, ""),
        ("open brackets", "PUT", "/v1/jobs", vec![b'['; mib], 400, ""),
        ("open braces", "PUT", "/v1/jobs", b"{\"a\":".repeat(200_000), 400, ""),
        ("deep inside", "PUT", "/v1/jobs", job("[".repeat(5_000) + &"]".repeat(5_000)), 400, ""),
        ("many numbers", "PUT", "/v1/jobs", job(format!("[{}0]", "0,".repeat(400_000))), 400, ""),
        (
            "many keys",
            "PUT",
            "/v1/jobs",
            job(format!("{{{}\"z\":\"\"}}", (0..80_000).map(|n| format!("\"{n}\":\"\",")).collect::<String>())),
            400,
            "",
        ),
        ("a long string", "PUT", "/v1/jobs", job(format!("\"{}\"", "x".repeat(900_000))), 400, ""),
        ("no text", "PUT", "/v1/jobs", vec![0xff; 1000], 400, ""),
        ("zeros", "PUT", "/v1/jobs", vec![0; 1000], 400, ""),
        ("empty", "PUT", "/v1/jobs", Vec::new(), 400, ""),
    ] {
        let answer = agent.ask(method, path, &body);
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        assert!(text.is_empty() || answer.text() == text, "{name}: {}", answer.text());
        assert!(!answer.body.is_empty() && answer.body.len() < 1000, "{name}: {}", answer.text());
    }
    // Chunked, so that no length is announced; refused before its end.
    let mut stream = TcpStream::connect(agent.addr).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    write!(stream, "PUT /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let chunk = [format!("{:x}\r\n", 64 << 10).into_bytes(), vec![b' '; 64 << 10], b"\r\n".to_vec()].concat();
    for _ in 0..32 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    let answer = http::answer(stream).unwrap().whole().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (413, "request body too large"));
    // A refused body of 1 MiB is held once while it is looked at, and the allocator may keep it.
    is_well(&agent, 0, rss_before_kb, 12 << 10);
}

/// Heads nobody should send.
#[test]
fn malformed_requests_are_refused() {
    let agent = Real::start("malformed", Options::default());
    let rss_before_kb = rss_kb(&agent);
    let many = (0..100).map(|n| format!("X-{n}: y\r\n")).collect::<String>();
    for (name, bytes, status) in [
        ("a long line", format!("GET /v1/jobs?prefix={} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9 << 10)), 414),
        ("a long id", format!("GET /v1/job/{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9 << 10)), 414),
        ("a long header", format!("GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "a".repeat(20 << 10)), 431),
        ("many headers", format!("GET /v1/jobs HTTP/1.1\r\nHost: x\r\n{many}\r\n"), 431),
        ("no HTTP", "hello\r\n\r\n".to_owned(), 400),
        ("another HTTP", "GET / HTTP/3.0\r\n\r\n".to_owned(), 400),
        ("two lengths", "PUT /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}".to_owned(), 400),
        ("a bad length", "PUT /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: -2\r\n\r\n{}".to_owned(), 400),
        ("a bad chunk", "PUT /v1/jobs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_owned(), 400),
        ("an escape", "GET /v1/job/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 400),
        ("no text", "GET /v1/job/%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 400),
        ("no path", "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 404),
        ("another method", "BREW /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 405),
        ("dots", "GET /v1/../v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned(), 404),
    ] {
        let mut stream = TcpStream::connect(agent.addr).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        // It may be cut off before its end.
        let _ = stream.write_all(bytes.as_bytes());
        let answer = http::answer(stream).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert_eq!(answer.status, status, "{name}");
    }
    is_well(&agent, 0, rss_before_kb, 4096);
}

/// Every row of the route table with ids that are nobody's: no row may hang, succeed by accident or say "internal error".
#[test]
fn unknown_ids_on_every_route() {
    let agent = Real::start("unknown", Options::default());
    let rss_before_kb = rss_kb(&agent);
    let wanted: BTreeMap<&str, (u16, &str)> = BTreeMap::from([
        ("GET /v1/allocation/{id}", (404, "alloc not found")),
        ("PUT /v1/allocation/{id}/stop", (404, "allocation not found")),
        ("POST /v1/allocation/{id}/stop", (404, "allocation not found")),
        ("GET /v1/allocation/{id}/services", (404, "allocation not found")),
        ("GET /v1/evaluation/{id}", (404, "eval not found")),
        ("GET /v1/evaluation/{id}/allocations", (200, "[]")),
        ("GET /v1/node/{id}", (404, "node not found")),
        ("GET /v1/node/{id}/allocations", (200, "[]")),
        ("GET /v1/deployment/{id}", (404, "deployment not found")),
        ("GET /v1/namespace/{id}", (404, "Namespace not found")),
        ("GET /v1/job/{id..}", (404, "job not found")),
        ("GET /v1/job/{id..}/summary", (404, "job not found")),
        ("GET /v1/job/{id..}/versions", (404, "job versions not found")),
        ("GET /v1/job/{id..}/allocations", (200, "[]")),
        ("GET /v1/job/{id..}/evaluations", (200, "[]")),
        ("GET /v1/job/{id..}/deployments", (200, "[]")),
        ("GET /v1/job/{id..}/deployment", (200, "null")),
    ]);
    let client = format!("Unknown allocation \"{NIL}\"");
    let table = dunlin::api::route::table_text(dunlin::api::FAMILIES);
    let ids = [NIL, "short", "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz", "%00", "%F0%9F%A6%86", "..%2F..%2Fetc", "%22%27%3B--", "a+b%20c"];
    let (mut rows_n, mut asked_n) = (0, 0);
    for row in table.lines() {
        let mut words = row.split(' ');
        let (pattern, methods) = (words.next().unwrap(), words.next().unwrap());
        let Some((head, rest)) = pattern.split_once('{') else { continue };
        let tail = rest.split_once('}').unwrap().1;
        rows_n += 1;
        let methods: Vec<&str> = if methods == "ANY" { vec!["GET", "PUT"] } else { methods.split('|').collect() };
        for method in methods {
            for id in ids {
                let query = if pattern.contains("/fs/logs/") {
                    "?task=t&type=stdout"
                } else if pattern.contains("/fs/") {
                    "?path=a&offset=0"
                } else {
                    ""
                };
                let body: &[u8] = if tail.ends_with("signal") {
                    b"{\"Signal\":\"SIGTERM\"}"
                } else if method == "GET" {
                    b""
                } else {
                    b"{}"
                };
                let answer = agent.ask(method, &format!("{head}{id}{tail}{query}"), body);
                asked_n += 1;
                let (status, text) = (answer.status, answer.text());
                assert!([200, 400, 404, 405, 500, 501].contains(&status), "{method} {pattern} {id}: {status} {text}");
                assert!(!text.contains("internal") && !text.contains("panic"), "{method} {pattern} {id}: {status} {text}");
                if id == NIL {
                    if let Some((want, want_text)) = wanted.get(format!("{method} {pattern}").as_str()) {
                        assert_eq!((status, text.as_str()), (*want, *want_text), "{method} {pattern}");
                    } else if pattern.starts_with("/v1/client/") && tail.ends_with("gc") {
                        assert_eq!((status, text.as_str()), (500, "No such allocation on client, or allocation not eligible for GC"));
                    } else if pattern.contains("/v1/client/") && pattern.contains("{id}") && !tail.ends_with("exec") {
                        assert_eq!((status, text.as_str()), (404, client.as_str()), "{method} {pattern}");
                    }
                }
            }
        }
    }
    println!("unknown ids: {rows_n} rows, {asked_n} requests");
    assert!(rows_n >= 30, "{rows_n}");
    is_well(&agent, 0, rss_before_kb, 4096);
}

/// Where the files of an allocation are.
fn folder(agent: &Real, alloc: &str) -> PathBuf {
    let path = agent.path().join("data/alloc").join(alloc);
    assert!(path.is_dir(), "{}", path.display());
    path
}

fn fs(agent: &Real, verb: &str, alloc: &str, path: &str) -> Response {
    let path: String =
        path.bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            })
            .collect();
    agent.ask("GET", &format!("/v1/client/fs/{verb}/{alloc}?path={path}&offset=0&follow=false"), b"")
}

/// Nothing outside the allocation's folder is read, listed or looked at, whatever name or link leads there.
#[test]
fn no_path_leads_out() {
    let agent = Real::start("escapes", Options::default());
    let alloc = running(&agent, "escapes", "echo out; exec sleep 1000");
    let root = folder(&agent, &alloc);
    let data = root.join("alloc/data");
    let outside = agent.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), "KEPT FROM CLIENTS").unwrap();
    std::fs::write(data.join("fine"), "fine").unwrap();
    let secret = root.join("t/secrets/token");
    std::fs::write(&secret, "KEPT FROM CLIENTS").unwrap();
    for (name, target) in [
        ("file", outside.join("kept")),
        ("dir", outside.clone()),
        ("up", PathBuf::from("../../../../outside")),
        ("root", PathBuf::from("/")),
        ("self", PathBuf::from("self")),
        ("a", PathBuf::from("b")),
        ("b", PathBuf::from("a")),
        ("proc", PathBuf::from("/proc/self/environ")),
        ("fd", PathBuf::from("/proc/self/fd")),
        ("secret", PathBuf::from("../../t/secrets/token")),
        ("inside", PathBuf::from("fine")),
        ("nowhere", PathBuf::from("no/such/file")),
    ] {
        symlink(target, data.join(name)).unwrap();
    }
    let before = rss_kb(&agent);
    for path in [
        "../../outside/kept",
        "/../../outside/kept",
        "alloc/../../outside/kept",
        "alloc/data/../../../../outside/kept",
        "..",
        "../",
        "alloc/..//../..",
        "./../..",
        "alloc/data/file",
        "alloc/data/dir/kept",
        "alloc/data/up/kept",
        "alloc/data/root/etc/passwd",
        "alloc/data/self",
        "alloc/data/a",
        "alloc/data/proc",
        "alloc/data/fd/0",
        "alloc/data/secret",
        "t/secrets/token",
        "T/SECRETS/token",
        "t/secrets/../secrets/token",
        "/t//secrets/./token",
        "alloc/data/dir",
        "alloc/data/root",
        "/etc/passwd",
        "alloc\u{0}/data",
        "alloc/data/fine/",
        "alloc/data/fine/x",
        "\\..\\..",
    ] {
        for verb in ["ls", "stat", "cat", "readat", "stream"] {
            let answer = fs(&agent, verb, &alloc, path);
            let text = answer.text();
            assert!(
                !text.contains("KEPT FROM CLIENTS") && !text.contains("S0VQVCBGUk9N") && !text.contains("root:"),
                "{verb} {path}: {text}"
            );
            assert!(!text.contains("\"kept\"") && !text.contains("passwd\""), "{verb} {path} shows what is outside: {text}");
            // Looking at a secret's name is allowed, reading it is not; `fine/` is a file all the same.
            let may_look = path.to_lowercase().contains("secret") && ["ls", "stat"].contains(&verb)
                || path == "alloc/data/fine/"
                || path == "alloc/..//../..";
            assert!(may_look || answer.status >= 400, "{verb} {path}: {} {text}", answer.status);
            assert!(answer.status != 500 || !text.contains(&*agent.path().to_string_lossy()), "{verb} {path} tells host paths: {text}");
        }
    }
    for (verb, path, status, text) in [
        ("ls", "../..", 500, "Path escapes the alloc directory"),
        ("stat", "../..", 500, "Path escapes the alloc directory"),
        ("cat", "../..", 400, "Path escapes the alloc directory"),
        ("readat", "../..", 400, "Path escapes the alloc directory"),
        ("stream", "../..", 400, "Path escapes the alloc directory"),
        ("cat", "alloc/data/file", 400, "Path escapes the alloc directory"),
        ("stat", "alloc/data/dir/kept", 500, "Path escapes the alloc directory"),
        ("cat", "t/secrets/token", 500, "Reading secret file prohibited: t/secrets/token"),
        ("stream", "t/secrets/token", 500, "Reading secret file prohibited: t/secrets/token"),
        ("cat", "alloc/data/inside", 200, "fine"),
        ("cat", "alloc/data/nowhere", 400, "stat alloc/data/nowhere: no such file or directory"),
        ("cat", "/alloc/data/fine", 200, "fine"),
        ("cat", "alloc/data/../data/./fine", 200, "fine"),
    ] {
        let answer = fs(&agent, verb, &alloc, path);
        assert_eq!((answer.status, answer.text().as_str()), (status, text), "{verb} {path}");
    }
    // A list names links and does not follow them.
    let list = agent.get(&format!("/v1/client/fs/ls/{alloc}?path=alloc/data"));
    let root_link = list.as_array().unwrap().iter().find(|entry| entry["Name"] == "root").unwrap();
    assert!(root_link["FileMode"].as_str().unwrap().starts_with('L') && root_link["IsDir"] == false, "{root_link}");
    is_well(&agent, 1, before, 4096);
}

/// A FIFO, a socket or a device never holds up or feeds a reader.
#[test]
fn planted_files_do_not_hang_readers() {
    let agent = Real::start("planted", Options::default());
    let alloc = running(&agent, "planted", "echo out; exec sleep 1000");
    let root = folder(&agent, &alloc);
    let data = root.join("alloc/data");
    nix::unistd::mkfifo(&data.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(data.join("s")).unwrap();
    let zero = nix::sys::stat::makedev(1, 5);
    let has_device =
        nix::sys::stat::mknod(&data.join("zero"), nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::from_bits_truncate(0o666), zero)
            .is_ok();
    symlink("fifo", data.join("to-fifo")).unwrap();
    let before = rss_kb(&agent);
    let mut names = vec!["fifo", "s", "to-fifo"];
    names.extend(has_device.then_some("zero"));
    for name in names {
        let path = format!("alloc/data/{name}");
        for verb in ["cat", "readat", "stream"] {
            let begun = Instant::now();
            let answer = fs(&agent, verb, &alloc, &path);
            assert!(begun.elapsed() < Duration::from_secs(5), "{verb} {name} took {:?}", begun.elapsed());
            assert!(answer.status >= 400, "{verb} {name}: {} {} bytes", answer.status, answer.body.len());
        }
        let stat = fs(&agent, "stat", &alloc, &path);
        assert_eq!(stat.status, 200, "{}", stat.text());
    }
    // A log that was replaced.
    let log = root.join("alloc/logs/t.stdout.0");
    for plant in ["link", "fifo", "folder"] {
        std::fs::remove_file(&log).or_else(|_| std::fs::remove_dir(&log)).unwrap();
        match plant {
            "link" => symlink("/etc/passwd", &log).unwrap(),
            "fifo" => nix::unistd::mkfifo(&log, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap(),
            _ => std::fs::create_dir(&log).unwrap(),
        }
        for query in ["", "&plain=true", "&origin=end&offset=100"] {
            let answer = agent.ask("GET", &format!("/v1/client/fs/logs/{alloc}?task=t&type=stdout{query}"), b"");
            assert!(!answer.text().contains("root:") && !answer.text().contains("cm9vd"), "{plant}: {}", answer.text());
            assert!(answer.status >= 400 || answer.body.is_empty(), "{plant}{query}: {} {}", answer.status, answer.text());
        }
    }
    // A name of 255 bytes with every kind of byte.
    let odd = "\u{1}\"\\\n\u{7f}é".repeat(30);
    std::fs::write(data.join(&odd), "odd").unwrap();
    let list = agent.get(&format!("/v1/client/fs/ls/{alloc}?path=alloc/data"));
    assert!(list.as_array().unwrap().iter().any(|entry| entry["Name"] == odd.as_str()), "{list}");
    assert_eq!(fs(&agent, "cat", &alloc, &format!("alloc/data/{odd}")).text(), "odd");
    std::fs::write(data.join(Path::new(std::ffi::OsStr::new("x"))), "").unwrap();
    is_well(&agent, 1, before, 4096);
}

/// Parameters are checked in the order of the contract, before any file is touched.
#[test]
fn bad_parameters_in_their_order() {
    let agent = Real::start("parameters", Options::default());
    let alloc = running(&agent, "parameters", "echo out; exec sleep 1000");
    let begun = Instant::now();
    while agent.ask("GET", &format!("/v1/client/fs/logs/{alloc}?task=t&type=stdout&plain=true"), b"").body.is_empty() {
        assert!(begun.elapsed() < LIMIT, "no log");
    }
    let maybe = "strconv.ParseBool: parsing \"maybe\": invalid syntax";
    let offset = "error parsing offset: strconv.ParseInt: parsing \"x\": invalid syntax";
    for (path, status, text) in [
        // logs: task, follow, plain, type, offset, origin, then the task, then the file.
        ("logs/{a}?follow=maybe&plain=maybe&offset=x&origin=x", 400, "must provide task name".to_owned()),
        (
            "logs/{a}?task=t&follow=maybe&plain=maybe&type=x&offset=x&origin=x",
            400,
            format!("failed to parse follow field to boolean: {maybe}"),
        ),
        ("logs/{a}?task=t&plain=maybe&type=x&offset=x&origin=x", 400, format!("failed to parse plain field to boolean: {maybe}")),
        ("logs/{a}?task=t&type=x&offset=x&origin=x", 400, "must provide log type (stdout/stderr)".to_owned()),
        ("logs/{a}?task=t&offset=x&origin=x", 400, "must provide log type (stdout/stderr)".to_owned()),
        ("logs/{a}?task=t&type=stdout&offset=x&origin=x", 400, offset.to_owned()),
        ("logs/{a}?task=no&type=stdout&origin=x", 400, "origin must be start or end".to_owned()),
        ("logs/{a}?task=no&type=stdout", 400, "unknown task name \"no\"".to_owned()),
        (
            "logs/{a}?task=t&type=stdout&offset=99999999999999999999",
            400,
            "error parsing offset: strconv.ParseInt: parsing \"99999999999999999999\": value out of range".to_owned(),
        ),
        ("logs/{a}?task=t&type=stdout&offset=-5&plain=true", 200, "out\n".to_owned()),
        ("logs/{a}?task=t&type=stdout&offset=9000&plain=true", 200, String::new()),
        ("logs/{a}?task=t&type=stdout&offset=9000&origin=end&plain=true", 200, "out\n".to_owned()),
        ("logs/{u}?task=t", 404, "Unknown allocation \"{u}\"".to_owned()),
        ("logs/", 400, "must provide a valid alloc id".to_owned()),
        ("logs", 400, "must provide a valid alloc id".to_owned()),
        // stream: path, follow, offset, origin, then the path, then the file.
        ("stream/{a}?follow=maybe&offset=x", 400, "must provide a file name".to_owned()),
        ("stream/{a}?path=../..&follow=maybe&offset=x&origin=x", 500, format!("failed to parse follow field to boolean: {maybe}")),
        ("stream/{a}?path=../..&offset=x&origin=x", 500, offset.to_owned()),
        ("stream/{a}?path=../..&origin=x", 400, "origin must be start or end".to_owned()),
        ("stream/{a}?path=../..", 400, "Path escapes the alloc directory".to_owned()),
        ("stream/{a}?path=no", 400, "open no: no such file or directory".to_owned()),
        ("stream/{a}?path=alloc", 400, "file \"alloc\" is a directory".to_owned()),
        // cat, readat.
        ("cat/{a}", 400, "must provide a file name".to_owned()),
        ("cat/{a}?path=no", 400, "stat no: no such file or directory".to_owned()),
        ("cat/{a}?path=alloc", 400, "file \"alloc\" is a directory".to_owned()),
        ("readat/{a}?offset=x", 400, "must provide a file name".to_owned()),
        ("readat/{a}?path=../..&offset=x&limit=x", 500, offset.to_owned()),
        ("readat/{a}?path=../..", 500, "error parsing offset: strconv.ParseInt: parsing \"\": invalid syntax".to_owned()),
        ("readat/{a}?path=../..&offset=0&limit=x", 500, "error parsing limit: strconv.ParseInt: parsing \"x\": invalid syntax".to_owned()),
        ("readat/{a}?path=../..&offset=0&limit=1", 400, "Path escapes the alloc directory".to_owned()),
        (
            "readat/{a}?path=alloc/logs/t.stdout.0&offset=-1",
            500,
            "can't seek to offset -1: seek alloc/logs/t.stdout.0: invalid argument".to_owned(),
        ),
        ("readat/{a}?path=alloc/logs/t.stdout.0&offset=1&limit=-7", 200, "ut\n".to_owned()),
        ("readat/{a}?path=alloc/logs/t.stdout.0&offset=900", 200, String::new()),
        // ls, stat.
        ("stat/{a}", 400, "must provide a file name".to_owned()),
        ("stat/{a}?path=no", 404, "stat no: no such file or directory".to_owned()),
        ("ls/{a}?path=no", 404, "open no: no such file or directory".to_owned()),
        ("ls/{u}?path=../..", 404, "Unknown allocation \"{u}\"".to_owned()),
        ("rm/{a}", 404, "Invalid method".to_owned()),
        ("rm", 404, "Invalid method".to_owned()),
    ] {
        let fill = |text: &str| text.replace("{a}", &alloc).replace("{u}", NIL);
        let answer = agent.ask("GET", &format!("/v1/client/fs/{}", fill(path)), b"");
        assert_eq!((answer.status, answer.text()), (status, fill(&text)), "{path}");
    }
    for (body, status, text) in [
        ("", 400, "Failed to decode body: Request body is empty"),
        ("{", 400, "Failed to decode body: "),
        ("[]", 400, "Failed to decode body: "),
        ("{\"Signal\":5}", 400, "Failed to decode body: "),
        ("{}", 400, "invalid signal \"\"; known: "),
        ("{\"Signal\":\"sigusr1 \"}", 400, "invalid signal \"sigusr1 \"; known: "),
    ] {
        let answer = agent.ask("PUT", &format!("/v1/client/allocation/{alloc}/signal"), body.as_bytes());
        assert!(answer.status == status && answer.text().starts_with(text), "{body}: {} {}", answer.status, answer.text());
    }
    for (body, text) in [
        ("{", ""),
        ("{\"TaskName\":\"t\",\"AllTasks\":true}", "task name cannot be set when restarting all tasks"),
        ("{\"TaskName\":\"no\"}", "Could not find task runner for task: no"),
    ] {
        let answer = agent.ask("PUT", &format!("/v1/client/allocation/{alloc}/restart"), body.as_bytes());
        assert!(answer.status == 500 && answer.text().starts_with(text), "{body}: {} {}", answer.status, answer.text());
    }
    let stop = agent.ask("PUT", &format!("/v1/allocation/{alloc}/stop?no_shutdown_delay=maybe"), b"");
    assert_eq!((stop.status, stop.text()), (500, format!("Failed to parse value of \"no_shutdown_delay\" (maybe) as a bool: {maybe}")));
    assert_eq!(agent.get(&format!("/v1/allocation/{alloc}"))["ClientStatus"], "running");
}

/// A connection from an address of its own on the loopback net.
fn connect_from(agent: &Real, last: u8) -> TcpStream {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
    use std::os::fd::AsRawFd;
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, last, 0)).unwrap();
    connect(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, agent.addr.port())).unwrap();
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

fn ask_on(mut stream: TcpStream, path: &str) -> Response {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    http::answer(stream).unwrap().whole().unwrap()
}

/// Blocking queries take connections; beyond the bound of one client it is told so, and others are served.
#[test]
fn a_greedy_client_is_told_so_and_others_are_served() {
    let config = json!({"limits": {"http_max_conns_per_client": 8}});
    let agent = Real::start("greedy", Options { config: Some(config), ..Options::default() });
    let index = agent.ask("GET", "/v1/jobs", b"").index();
    let (before, idle_n) = (rss_kb(&agent), files_n(&agent) + 1);
    for _round in 0..20 {
        let mut held = Vec::new();
        for _ in 0..8 {
            let mut stream = connect_from(&agent, 7);
            write!(stream, "GET /v1/jobs?index={index}&wait=60s HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            held.push(stream);
        }
        // Until all eight are at work the ninth may find room: half-open ones give way to nobody for a second.
        let refused = ask_on(connect_from(&agent, 7), "/v1/regions");
        assert_eq!(refused.status, 429, "{}", refused.text());
        assert_eq!(refused.text(), "Your IP is issuing too many concurrent connections, please rate limit your calls\n");
        assert_eq!(ask_on(connect_from(&agent, 8), "/v1/regions").status, 200);
        // Hang-ups free the places at once.
        drop(held);
        files_come_down_to(&agent, idle_n);
        assert_eq!(ask_on(connect_from(&agent, 7), "/v1/regions").status, 200);
    }
    is_well(&agent, 0, before, 4096);
}

/// All connections together are bounded too; idle ones make room, those at work do not.
#[test]
fn connections_are_bounded() {
    let agent = Real::start("connections", Options::default());
    let index = agent.ask("GET", "/v1/jobs", b"").index();
    let before = rss_kb(&agent);
    let mut held = Vec::new();
    for n in 0..256_u16 {
        let mut stream = connect_from(&agent, u8::try_from(10 + n / 64).unwrap());
        write!(stream, "GET /v1/jobs?index={index}&wait=60s HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        held.push(stream);
    }
    let refused = ask_on(connect_from(&agent, 20), "/v1/regions");
    assert_eq!(refused.status, 429);
    let full_kb = rss_kb(&agent);
    println!("256 blocking queries: {} KiB each", full_kb.saturating_sub(before) / 256);
    assert!(full_kb < before + (16 << 10), "{before} KiB, then {full_kb} KiB");
    drop(held);
    let deadline = Instant::now() + LIMIT;
    while ask_on(connect_from(&agent, 20), "/v1/regions").status != 200 {
        assert!(Instant::now() < deadline, "places are not given back");
    }
    // Idle ones, from addresses of their own, make room.
    let mut idle: Vec<TcpStream> = Vec::new();
    for n in 0..256_u16 {
        let mut stream = connect_from(&agent, u8::try_from(30 + n / 64).unwrap());
        write!(stream, "GET /v1/regions HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        idle.push(stream);
    }
    assert_eq!(ask_on(connect_from(&agent, 20), "/v1/regions").status, 200);
    drop(idle);
    is_well(&agent, 0, before, 16 << 10);
}

/// Bodies being collected are held under one account.
#[test]
fn slow_bodies_share_one_account() {
    let agent = Real::start("bodies", Options::default());
    let before = rss_kb(&agent);
    let part = vec![b' '; 1000 << 10];
    let mut held = Vec::new();
    let (mut refused_n, mut told_n) = (0, 0);
    for _ in 0..40 {
        let mut stream = connect_from(&agent, 9);
        write!(stream, "PUT /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", 1 << 20).unwrap();
        // One that is refused stops reading.
        let _ = stream.write_all(&part);
        // It still answers, and by then has seen what came before.
        assert_eq!(agent.ask("GET", "/v1/regions", b"").status, 200);
        held.push(stream);
    }
    let most_kb = rss_kb(&agent);
    for stream in held {
        // Those that are held say nothing; a refusal comes as soon as the agent has read up to it.
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut head = [0; 12];
        let mut stream = stream;
        match stream.read(&mut head) {
            Ok(12) => {
                assert_eq!(&head, b"HTTP/1.1 429");
                told_n += 1;
                refused_n += 1;
            }
            // Refused some time ago: the wait for the refusal to be read is over.
            Ok(_) => refused_n += 1,
            Err(why) if why.kind() != std::io::ErrorKind::WouldBlock => refused_n += 1,
            Err(_) => {}
        }
    }
    println!("slow bodies: {refused_n} of 40 refused, {} KiB at most", most_kb - before);
    assert!((20..=28).contains(&refused_n) && told_n > 0, "{refused_n} were refused, {told_n} of them told just now");
    assert!(most_kb < before + (20 << 10), "{before} KiB, then {most_kb} KiB");
    // All have hung up in the middle of their bodies: the account is free again.
    let deadline = Instant::now() + LIMIT;
    while agent.ask("PUT", "/v1/jobs", &vec![b' '; 1 << 20]).status == 429 {
        assert!(Instant::now() < deadline, "the account is not given back");
    }
    is_well(&agent, 0, before, 20 << 10);
}

/// A head that does not come is cut off after 5 s, byte by byte or not at all.
#[test]
fn slow_heads_are_cut_off() {
    let agent = Real::start("heads", Options::default());
    let begun = Instant::now();
    let mut silent = connect_from(&agent, 11);
    let mut slow = connect_from(&agent, 11);
    slow.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut bytes = b"GET /v1/regions HTTP/1.1\r\nHost: a-name-that-takes-its-time".iter().cycle();
    let mut byte = [0];
    loop {
        if slow.write_all(&[*bytes.next().unwrap()]).is_err() {
            break;
        }
        match slow.read(&mut byte) {
            Ok(_) => break,
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => {
                assert!(begun.elapsed() < Duration::from_secs(12), "it is still served")
            }
            Err(_) => break,
        }
        assert_eq!(agent.ask("GET", "/v1/regions", b"").status, 200);
    }
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
    assert_eq!(silent.read(&mut byte).unwrap(), 0, "the silent one is closed");
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
}

/// Slow readers of a long list and of a log cost one buffer each; those who hang up in the middle cost nothing.
#[test]
fn slow_readers_cost_one_buffer() {
    let agent = Real::start("readers", Options::default());
    let script = "i=0; while [ $i -lt 30 ]; do head -c 262144 /dev/zero | tr '\\0' x; echo; i=$((i+1)); done; exec sleep 1000";
    let alloc = running(&agent, "readers", script);
    let job = shell_job("readers", script).to_string();
    for _ in 0..300 {
        agent.run(job.as_bytes());
    }
    let list = agent.ask("GET", "/v1/evaluations", b"");
    assert!(list.body.len() > 128 << 10, "{}", list.body.len());
    let deadline = Instant::now() + LIMIT;
    let tail = format!("/v1/client/fs/logs/{alloc}?task=t&type=stdout&plain=true&origin=end&offset=1");
    while agent.ask("GET", &tail, b"").text() != "\n"
        || agent.get(&format!("/v1/client/fs/stat/{alloc}?path=alloc/logs/t.stdout.0"))["Size"].as_u64() < Some(7 << 20)
    {
        assert!(Instant::now() < deadline, "the log does not get long");
    }
    let before = rss_kb(&agent);
    let log = format!("/v1/client/fs/logs/{alloc}?task=t&type=stdout&follow=true");
    for path in ["/v1/evaluations", &log] {
        // 50 take a little and stop.
        let mut slow = Vec::new();
        for _ in 0..50 {
            let mut incoming = http::open_later(agent.addr, "GET", path).unwrap().answer().unwrap();
            assert_eq!(incoming.status, 200);
            let mut some = [0; 100];
            incoming.read_exact(&mut some).unwrap();
            slow.push(incoming);
        }
        let full_kb = rss_kb(&agent);
        println!("50 slow readers of {}: {} KiB each", &path[..15], full_kb.saturating_sub(before) / 50);
        assert!(full_kb < before + 50 * 96, "{path}: {before} KiB, then {full_kb} KiB");
        // Meanwhile another reads all of it.
        assert_eq!(agent.ask("GET", "/v1/evaluations", b"").body, list.body);
        // They go in the middle; one reads on to the end.
        let mut last = slow.pop().unwrap();
        drop(slow);
        if path == "/v1/evaluations" {
            let mut rest = Vec::new();
            last.read_to_end(&mut rest).unwrap();
            assert_eq!(rest.len() + 100, list.body.len());
        }
    }
    // Streams are bounded of their own accord; each that ends makes room.
    let deadline = Instant::now() + LIMIT;
    let mut streams = Vec::new();
    while streams.len() < 64 {
        let incoming = http::open_later(agent.addr, "GET", &log).unwrap().answer().unwrap();
        if incoming.status == 200 {
            streams.push(incoming);
        }
        assert!(Instant::now() < deadline, "streams that ended are still counted: {}", streams.len());
    }
    let refused = agent.ask("GET", &log, b"");
    assert_eq!((refused.status, refused.text().as_str()), (429, "too many concurrent requests"));
    assert_eq!(agent.ask("GET", "/v1/jobs", b"").status, 200);
    drop(streams);
    let deadline = Instant::now() + LIMIT;
    while agent.ask("GET", &tail, b"").status != 200 {
        assert!(Instant::now() < deadline, "streams that ended are still counted");
    }
    is_well(&agent, 1, before, 8192);
}

/// Clients that go away at every stage, many times.
#[test]
fn hang_ups_leave_nothing() {
    let agent = Real::start("hang-ups", Options::default());
    let alloc = running(&agent, "hang-ups", "echo out; exec sleep 1000");
    let index = agent.ask("GET", "/v1/jobs", b"").index();
    let log = format!("GET /v1/client/fs/logs/{alloc}?task=t&type=stdout&follow=true HTTP/1.1\r\nHost: x\r\n\r\n");
    let block = format!("GET /v1/jobs?index={index}&wait=300s HTTP/1.1\r\nHost: x\r\n\r\n");
    let stages = [
        "",
        "GET",
        "GET /v1/jobs HTTP/1.1\r\nHost:",
        "PUT /v1/jobs HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{\"Job\":",
        "PUT /v1/jobs HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{\"J",
        "GET /v1/client/stats HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /v1/evaluations HTTP/1.1\r\nHost: x\r\n\r\n",
        &block,
        &log,
    ];
    let round = || {
        for stage in stages {
            let mut stream = connect_from(&agent, 12);
            stream.write_all(stage.as_bytes()).unwrap();
        }
    };
    (0..20).for_each(|_| round());
    assert_eq!(agent.ask("GET", "/v1/regions", b"").status, 200);
    let before = rss_kb(&agent);
    (0..100).for_each(|_| round());
    files_come_down_to(&agent, 60);
    is_well(&agent, 1, before, 4096);
}
