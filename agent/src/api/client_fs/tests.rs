//! Parameters and errors row by row; answers against a real folder with a clock of our own; each turn of a follower.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use dunlin_hal::budget::SMALL_64;
use dunlin_hal::clock::{Mono, Now};
use dunlin_runtime::fs::list::list;
use dunlin_runtime::fs::open::Root;
use dunlin_runtime::fs::stat::Entry;

use super::*;
use crate::api::body::{Answer, Fact, Step, Work};
use crate::wire::stream_frame::{Received, decode};

const ALLOC: &str = "29fbd40e-dc6c-9f86-343d-95c29ddd20f9";

type Operation = fn(&Target<'_>, &Query, &Budget) -> Made;

fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (k.into(), v.into()))
        .collect()
}

fn make(operation: Operation, query: &str, is_destroyed: bool) -> Made {
    let tasks = [("web".to_owned(), true), ("late".to_owned(), false)];
    let target = Target { alloc: AllocId::parse(ALLOC).unwrap(), tasks: &tasks, is_destroyed };
    operation(&target, &pairs(query), &SMALL_64)
}

#[track_caller]
fn check_refusal(operation: Operation, query: &str, status: u16, text: &str) {
    let refusal = make(operation, query, false).err().map(|error| (error.status, error.text));
    assert_eq!(refusal, Some((status, text.to_owned())), "{query}");
}

#[test]
fn parameters_of_logs_in_their_order() {
    let bool_text = |name: &str| format!("failed to parse {name} field to boolean: strconv.ParseBool: parsing \"maybe\": invalid syntax");
    check_refusal(logs, "type=stdout", 400, "must provide task name");
    check_refusal(logs, "task=&follow=maybe", 400, "must provide task name");
    check_refusal(logs, "task=web&follow=maybe&plain=maybe", 400, &bool_text("follow"));
    check_refusal(logs, "task=web&plain=maybe&type=x", 400, &bool_text("plain"));
    check_refusal(logs, "task=web&type=x&offset=y", 400, "must provide log type (stdout/stderr)");
    check_refusal(logs, "task=web&offset=y", 400, "must provide log type (stdout/stderr)");
    check_refusal(
        logs,
        "task=web&type=stdout&offset=y&origin=z",
        400,
        "error parsing offset: strconv.ParseInt: parsing \"y\": invalid syntax",
    );
    check_refusal(logs, "task=zz&type=stdout&origin=mid", 400, "origin must be start or end");
    check_refusal(logs, "task=zz&type=stdout", 400, "unknown task name \"zz\"");
    check_refusal(logs, "task=late&type=stderr", 404, "task \"late\" not started yet. No logs available");
    for good in ["task=web&type=stdout", "task=web&type=stderr&offset=-5&origin=end&follow=T&plain=1", "type=stdout&task=web&type=x"] {
        assert!(make(logs, good, false).is_ok(), "{good}");
    }
}

#[test]
fn parameters_of_the_other_verbs() {
    let huge = "99999999999999999999";
    let range = "strconv.ParseInt: parsing \"99999999999999999999\": value out of range";
    for operation in [stat, cat, readat, stream] as [Operation; 4] {
        check_refusal(operation, "", 400, "must provide a file name");
    }
    check_refusal(readat, "path=f", 500, "error parsing offset: strconv.ParseInt: parsing \"\": invalid syntax");
    check_refusal(readat, "path=f&offset=x&limit=y", 500, "error parsing offset: strconv.ParseInt: parsing \"x\": invalid syntax");
    check_refusal(readat, "path=f&offset=1&limit=1.5", 500, "error parsing limit: strconv.ParseInt: parsing \"1.5\": invalid syntax");
    check_refusal(readat, &format!("path=f&offset={huge}"), 500, &format!("error parsing offset: {range}"));
    check_refusal(readat, "path=f&offset=-1", 500, "can't seek to offset -1: seek f: invalid argument");
    check_refusal(
        stream,
        "path=f&follow=2",
        500,
        "failed to parse follow field to boolean: strconv.ParseBool: parsing \"2\": invalid syntax",
    );
    check_refusal(stream, &format!("path=f&offset={huge}&origin=x"), 500, &format!("error parsing offset: {range}"));
    check_refusal(stream, "path=f&origin=middle", 400, "origin must be start or end");
    check_refusal(stream, "path=f&offset=-2", 500, "can't seek to offset -2: seek f: invalid argument");
    for (operation, status) in [(ls as Operation, 500), (stat, 500), (cat, 400), (stream, 400)] {
        check_refusal(operation, "path=../..", status, "Path escapes the alloc directory");
    }
    assert!(make(stream, "path=f&offset=-2&origin=end", false).is_ok());
    assert!(make(readat, "path=f&offset=%2B1".replace("%2B", "+").as_str(), false).is_ok());
}

#[test]
fn a_removed_allocation_is_said_to_be() {
    let state = format!("state for allocation {ALLOC} not found on client");
    for (operation, query, text) in [
        (ls as Operation, "", "open /: no such file or directory"),
        (stat, "path=a", "stat a: no such file or directory"),
        (cat, "path=a", state.as_str()),
        (readat, "path=a&offset=0", state.as_str()),
        (stream, "path=a", state.as_str()),
        (logs, "task=zz&type=stdout", state.as_str()),
    ] {
        let error = make(operation, query, true).err().unwrap();
        assert_eq!((error.status, error.text.as_str()), (404, text));
    }
}

/// A real allocation folder, and a driver of machines with a clock of its own.
struct Rig {
    base: PathBuf,
    file: Option<File>,
    now_ms: u64,
}

/// Where a machine stopped.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    End,
    Abort,
    Fail(u16, String),
    /// Milliseconds until it wants to be woken, and the folder.
    Wait(u64, Option<String>),
}

/// Head, body and stop of one run.
#[derive(Debug)]
struct Got {
    head: Option<crate::wire::http::Head>,
    body: Vec<u8>,
    stop: Stop,
}

impl Got {
    fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    fn frames(&self) -> Vec<Received> {
        decode(&self.body).collect::<Result<_, _>>().unwrap()
    }
}

impl Rig {
    fn new(name: &str) -> Self {
        let base = std::env::temp_dir().join(format!("dunlin-client-fs-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&base);
        std::fs::create_dir_all(base.join("alloc/logs")).unwrap();
        Self { base, file: None, now_ms: 1_000_000 }
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        std::fs::create_dir_all(self.base.join(path).parent().unwrap()).unwrap();
        std::fs::write(self.base.join(path), bytes).unwrap();
    }

    fn append(&self, path: &str, bytes: &[u8]) {
        let mut before = std::fs::read(self.base.join(path)).unwrap_or_default();
        before.extend_from_slice(bytes);
        let file = File::options().write(true).create(true).truncate(false).open(self.base.join(path)).unwrap();
        file.write_all_at(&before, 0).unwrap();
    }

    fn remove(&self, path: &str) {
        std::fs::remove_file(self.base.join(path)).unwrap();
    }

    fn perform(&mut self, work: &Work) -> Result<Answer, FileError> {
        let (Work::Open { path, .. } | Work::Stat { path, .. } | Work::List { path, .. }) = work else { panic!("{work:?}") };
        let path = AskedPath(path).resolve()?;
        let root = Root::open(&self.base).unwrap();
        match work {
            Work::Open { .. } => {
                let (file, entry) = root.open_file(&path)?;
                self.file = Some(file);
                Ok(Answer::Entry(entry))
            }
            Work::Stat { .. } => Ok(Answer::Entry(root.find(&path)?.entry)),
            _ => Ok(Answer::Entries(list(&root, &path)?)),
        }
    }

    /// Runs a machine from one fact to where it waits or ends.
    fn drive(&mut self, machine: &mut dyn Machine, first: Fact<'_>) -> Got {
        let now = Now { mono: Mono(self.now_ms * 1_000_000), ..Now::default() };
        let mut got = Got { head: None, body: Vec::new(), stop: Stop::End };
        let mut out = Vec::new();
        let mut step = machine.step(now, first, &mut out);
        loop {
            step = match step {
                Step::Head(head) => {
                    assert!(got.head.replace(head).is_none() && got.body.is_empty());
                    machine.step(now, Fact::Ready, &mut out)
                }
                Step::Emit => {
                    assert!(!out.is_empty() && out.len() <= 64 << 10);
                    got.body.append(&mut out);
                    machine.step(now, Fact::Ready, &mut out)
                }
                Step::Work(work) => {
                    let answer = self.perform(&work);
                    machine.step(now, Fact::Done(answer), &mut out)
                }
                Step::Read { at, bytes_max } => {
                    assert!(bytes_max <= SMALL_64.frame_bytes_max);
                    let mut buf = vec![0; bytes_max];
                    let bytes_n = self.file.as_ref().unwrap().read_at(&mut buf, at).unwrap();
                    machine.step(now, Fact::Bytes(&buf[..bytes_n]), &mut out)
                }
                Step::Wait { until, folder } => {
                    got.stop = Stop::Wait(until.0 / 1_000_000 - self.now_ms, folder);
                    return got;
                }
                Step::End => return got,
                Step::Abort => {
                    got.stop = Stop::Abort;
                    return got;
                }
                Step::Fail(error) => {
                    assert!(got.head.is_none());
                    got.stop = Stop::Fail(error.status, error.text);
                    return got;
                }
            };
            assert!(out.is_empty() || matches!(step, Step::Emit));
        }
    }

    /// A whole answer.
    #[track_caller]
    fn answer(&mut self, operation: Operation, query: &str) -> Got {
        self.drive(&mut *make(operation, query, false).unwrap(), Fact::Ready)
    }

    #[track_caller]
    fn check_fail(&mut self, operation: Operation, query: &str, status: u16, text: &str) {
        assert_eq!(self.answer(operation, query).stop, Stop::Fail(status, text.to_owned()), "{query}");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

fn waits(ms: u64, folder: &str) -> Stop {
    Stop::Wait(ms, Some(folder.to_owned()))
}

#[test]
fn the_table_of_errors() {
    let mut rig = Rig::new("errors");
    rig.write("alloc/data/f", b"x");
    rig.write("web/secrets/key", b"x");
    std::os::unix::fs::symlink("/etc/passwd", rig.base.join("alloc/data/out")).unwrap();
    rig.check_fail(ls, "path=nope", 404, "open nope: no such file or directory");
    rig.check_fail(stat, "path=nope", 404, "stat nope: no such file or directory");
    rig.check_fail(cat, "path=/nope", 400, "stat /nope: no such file or directory");
    rig.check_fail(readat, "path=nope&offset=0", 400, "stat nope: no such file or directory");
    rig.check_fail(stream, "path=nope", 400, "open nope: no such file or directory");
    rig.check_fail(ls, "path=alloc/data/f", 500, "open alloc/data/f: not a directory");
    for operation in [cat, stream] as [Operation; 2] {
        rig.check_fail(operation, "path=alloc/data", 400, "file \"alloc/data\" is a directory");
        rig.check_fail(operation, "path=alloc/data/out", 400, "Path escapes the alloc directory");
        rig.check_fail(operation, "path=web/secrets/key", 500, "Reading secret file prohibited: web/secrets/key");
    }
    rig.check_fail(stat, "path=alloc/data/out", 500, "Path escapes the alloc directory");
    rig.check_fail(logs, "task=web&type=stdout", 404, "log entry for task \"web\" and log type \"stdout\" not found");
    rig.check_fail(logs, "task=web&type=stderr&follow=true", 404, "log entry for task \"web\" and log type \"stderr\" not found");
    std::fs::remove_dir(rig.base.join("alloc/logs")).unwrap();
    rig.check_fail(logs, "task=web&type=stdout", 404, "log entry for task \"web\" and log type \"stdout\" not found");
}

#[test]
fn statuses_of_all_file_errors() {
    let path = || "p".to_owned();
    for (error, want) in [
        (FileError::Permission(path()), [403, 403, 403, 403]),
        (FileError::NotFound(path()), [404, 404, 400, 400]),
        (FileError::IsDirectory(path()), [500, 500, 400, 400]),
        (FileError::NotRegular(path()), [500, 500, 400, 400]),
        (FileError::Escapes(path()), [500, 500, 400, 400]),
        (FileError::Private(path()), [500, 500, 500, 500]),
        (FileError::TooMany(path()), [500, 500, 500, 500]),
        (FileError::Io(path(), 5), [500, 500, 500, 500]),
    ] {
        assert_eq!([Verb::List, Verb::Stat, Verb::Cat, Verb::Stream].map(|verb| verb.refuse(&error).status), want, "{error:?}");
    }
    assert_eq!(Verb::Cat.refuse(&FileError::Permission(path())).text, "Permission denied");
}

/// A listing of entries that no disk had to make.
fn listed(entries: Vec<Entry>, query: &str) -> String {
    let mut rig = Rig::new("listed");
    let mut machine = make(ls, query, false).unwrap();
    assert!(matches!(machine.step(Now::default(), Fact::Ready, &mut Vec::new()), Step::Work(Work::List { .. })));
    let got = rig.drive(&mut *machine, Fact::Done(Ok(Answer::Entries(entries))));
    assert_eq!((got.stop, got.head), (Stop::End, Some(crate::wire::http::Head::new(200, "application/json"))));
    String::from_utf8(got.body).unwrap()
}

#[test]
fn listings_are_written_as_recorded() {
    let entry = |name: &str| Entry {
        name: name.into(),
        is_dir: true,
        size: 4096,
        mode: 0o040_777,
        modified_at: dunlin_hal::clock::Wall(1_700_000_000_600_000_000),
        inode: 1,
    };
    let one = r#"{"FileMode":"drwxrwxrwx","IsDir":true,"ModTime":"2023-11-14T22:13:20.6Z","Name":"ctl","Size":4096}"#;
    assert_eq!(listed(vec![], ""), "[]");
    assert_eq!(listed(vec![entry("ctl")], "path=/"), format!("[{one}]"));
    assert_eq!(listed(vec![entry("ctl"), entry("ctl")], "pretty=0"), format!("[{one},{one}]"));
    assert_eq!(listed(vec![], "pretty"), "[]\n");
    let pretty = "    {\n        \"FileMode\": \"drwxrwxrwx\",\n        \"IsDir\": true,\n        \"ModTime\": \"2023-11-14T22:13:20.6Z\",\n        \"Name\": \"ctl\",\n        \"Size\": 4096\n    }";
    assert_eq!(listed(vec![entry("ctl"), entry("ctl")], "pretty=1"), format!("[\n{pretty},\n{pretty}\n]\n"));
    // Longer than a piece: the brackets and commas are where they belong.
    let many: Vec<Entry> = (0..2000).map(|i| entry(&format!("\"{i}\u{1}<é"))).collect();
    for query in ["", "pretty"] {
        let list: serde_json::Value = serde_json::from_str(&listed(many.clone(), query)).unwrap();
        let names: Vec<&str> = list.as_array().unwrap().iter().map(|item| item["Name"].as_str().unwrap()).collect();
        assert!(names.iter().zip(&many).all(|(name, entry)| *name == entry.name) && names.len() == 2000);
    }
}

#[test]
fn stat_tells_what_a_file_holds() {
    let mut rig = Rig::new("stat");
    rig.write("alloc/data/beat", b"60\n");
    rig.write("alloc/data/bin", b"\x7fELF\x02\x01\x01\0");
    rig.write("alloc/data/a.json", b"\0");
    rig.write("alloc/data/empty", b"");
    rig.write("web/secrets/key", b"text");
    for (path, name, content_type) in [
        ("alloc/data/beat", "beat", "text/plain; charset=utf-8"),
        ("/alloc/data/bin", "bin", "application/octet-stream"),
        ("alloc/data/a.json", "a.json", "application/json"),
        ("alloc/data/empty", "empty", "application/octet-stream"),
        ("alloc/data/", "data", "application/octet-stream"),
        ("/", ALLOC, "application/octet-stream"),
        // Seen, not read.
        ("web/secrets/key", "key", "application/octet-stream"),
    ] {
        let got = rig.answer(stat, &format!("path={path}"));
        let info: serde_json::Value = serde_json::from_slice(&got.body).unwrap();
        assert_eq!((info["Name"].as_str(), info["ContentType"].as_str()), (Some(name), Some(content_type)), "{path}");
        assert_eq!(info["FileMode"].as_str().map(|mode| mode.starts_with('d')), info["IsDir"].as_bool());
    }
    let got = rig.answer(stat, "path=alloc/data/beat&pretty");
    assert!(
        got.text().starts_with("{\n    \"ContentType\": \"text/plain; charset=utf-8\",\n    \"FileMode\": \"-rw-r--r--\"")
            && got.text().ends_with("\"Size\": 3\n}\n")
    );
}

#[test]
fn cat_and_readat_send_bytes_with_safe_headers() {
    let mut rig = Rig::new("cat");
    let long: Vec<u8> = (0..100_000u32).flat_map(|i| format!("{i}\n").into_bytes()).collect();
    rig.write("alloc/data/in", &long);
    rig.write("alloc/data/empty", b"");
    rig.write("alloc/data/page", b"<html><script>alert(1)</script>");
    rig.write("alloc/data/bin", b"ab\0cd");
    for (operation, query, content_type, want) in [
        (cat as Operation, "path=alloc/data/in", "text/plain; charset=utf-8", &long[..]),
        (cat, "path=alloc/data/empty", "text/plain; charset=utf-8", b""),
        (cat, "path=alloc/data/page", "text/plain; charset=utf-8", b"<html><script>alert(1)</script>"),
        (cat, "path=alloc/data/bin", "application/octet-stream", b"ab\0cd"),
        (readat, "path=alloc/data/in&offset=10&limit=20", "text/plain; charset=utf-8", b"5\n6\n7\n8\n9\n10\n11\n12\n1"),
        (readat, "path=alloc/data/in&offset=0", "text/plain; charset=utf-8", &long),
        (readat, "path=alloc/data/in&offset=5&limit=-1", "text/plain; charset=utf-8", &long[5..]),
        (readat, "path=alloc/data/in&offset=9&limit=40000", "text/plain; charset=utf-8", &long[9..40_009]),
        (readat, "path=alloc/data/in&offset=9000000&limit=4", "text/plain; charset=utf-8", b""),
        (readat, "path=alloc/data/bin&offset=3", "text/plain; charset=utf-8", b"cd"),
    ] {
        let got = rig.answer(operation, query);
        assert_eq!((got.stop, got.body.as_slice()), (Stop::End, want), "{query}");
        let headers = got.head.unwrap().headers;
        assert_eq!(
            headers,
            [
                ("Content-Type", content_type.to_owned()),
                ("X-Content-Type-Options", "nosniff".into()),
                ("X-XSS-Protection", "1; mode=block".into()),
                ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox".into()),
            ]
        );
    }
    // Cut in the middle: never a regular end.
    let mut machine = make(cat, "path=alloc/data/in", false).unwrap();
    let mut out = Vec::new();
    machine.step(Now::default(), Fact::Ready, &mut out);
    machine.step(Now::default(), Fact::Done(Ok(Answer::Entry(Entry::default()))), &mut out);
    assert!(matches!(machine.step(Now::default(), Fact::Bytes(b"x"), &mut out), Step::Head(_)));
    assert!(matches!(machine.step(Now::default(), Fact::Gone, &mut out), Step::Abort));
}

#[test]
fn logs_without_follow() {
    let mut rig = Rig::new("logs");
    rig.write("alloc/logs/web.stdout.1", b"one\ntwo\n");
    rig.write("alloc/logs/web.stdout.2", b"three\n");
    rig.write("alloc/logs/web.stdout.10", b"ten\n");
    rig.write("alloc/logs/web.stderr.0", b"no");
    rig.write("alloc/logs/web.stdout.x", b"no");
    rig.write("alloc/logs/my.web.stdout.0", b"no");
    std::fs::create_dir(rig.base.join("alloc/logs/web.stdout.11")).unwrap();
    std::os::unix::fs::symlink("web.stderr.0", rig.base.join("alloc/logs/web.stdout.12")).unwrap();
    let got = rig.answer(logs, "task=web&type=stdout");
    assert_eq!(got.head.as_ref().map(|head| head.headers.clone()), Some(vec![("Content-Type", "application/json".to_owned())]));
    let frames: Vec<_> = got.frames().into_iter().map(|frame| (frame.file, frame.file_event, frame.offset, frame.data)).collect();
    let name = |index: u32| format!("alloc/logs/web.stdout.{index}");
    let mut want = vec![(name(1), String::new(), 8, b"one\ntwo\n".to_vec()), (name(2), String::new(), 6, b"three\n".to_vec())];
    want.extend((3..10).map(|index| (name(index), "file deleted".to_owned(), 0, vec![])));
    want.push((name(10), String::new(), 4, b"ten\n".to_vec()));
    assert_eq!(frames, want);
    for (query, want) in [
        ("", "one\ntwo\nthree\nten\n"),
        ("&offset=4", "two\nthree\nten\n"),
        ("&offset=9", "hree\nten\n"),
        ("&offset=1000", ""),
        ("&offset=-1", "one\ntwo\nthree\nten\n"),
        ("&origin=end", ""),
        ("&origin=end&offset=3", "en\n"),
        ("&origin=end&offset=6", "e\nten\n"),
        ("&origin=end&offset=1000", "one\ntwo\nthree\nten\n"),
    ] {
        let got = rig.answer(logs, &format!("task=web&type=stdout&plain=true{query}"));
        assert_eq!((got.text(), &got.stop), (want, &Stop::End), "{query}");
        assert_eq!(got.head.unwrap().headers, [("Content-Type", "text/plain".to_owned())]);
    }
}

#[test]
fn a_long_log_is_sent_in_frames_of_the_budget() {
    let mut rig = Rig::new("long");
    let long = b"0123456789abcde\n".repeat(3000);
    rig.write("alloc/logs/web.stdout.0", &long);
    let got = rig.answer(logs, "task=web&type=stdout");
    let frames = got.frames();
    let offsets: Vec<u64> = frames.iter().map(|frame| frame.offset).collect();
    assert_eq!(offsets, [16384, 32768, 48000]);
    assert_eq!(frames.iter().flat_map(|frame| frame.data.clone()).collect::<Vec<u8>>(), long);
}

#[test]
fn following_sends_head_data_and_heartbeats() {
    let mut rig = Rig::new("follow");
    rig.write("alloc/logs/web.stdout.0", b"");
    let mut machine = make(logs, "task=web&type=stdout&follow=true", false).unwrap();
    // Status and headers at once, though there is no byte yet.
    let got = rig.drive(&mut *machine, Fact::Ready);
    assert_eq!((got.head.map(|head| head.status), got.body.as_slice(), got.stop), (Some(200), &b""[..], waits(1000, "alloc/logs")));
    rig.now_ms += 1000;
    let got = rig.drive(&mut *machine, Fact::Due);
    assert_eq!((got.text(), &got.stop), ("{}", &waits(1000, "alloc/logs")));
    rig.now_ms += 400;
    rig.append("alloc/logs/web.stdout.0", b"line\n");
    let got = rig.drive(&mut *machine, Fact::Changed);
    assert_eq!((got.text(), &got.stop), (r#"{"Data":"bGluZQo=","File":"alloc/logs/web.stdout.0","Offset":5}"#, &waits(1000, "alloc/logs")));
    // Little was found just now: the next change is left to collect for a while.
    rig.now_ms += 30;
    rig.append("alloc/logs/web.stdout.0", b"more\n");
    assert_eq!(rig.drive(&mut *machine, Fact::Changed).stop, Stop::Wait(70, None));
    rig.now_ms += 70;
    let got = rig.drive(&mut *machine, Fact::Due);
    assert_eq!(got.frames()[0].offset, 10);
    // Woken too early: no heartbeat before its time.
    rig.now_ms += 999;
    let got = rig.drive(&mut *machine, Fact::Due);
    assert_eq!((got.text(), &got.stop), ("", &waits(1, "alloc/logs")));
    // Rotation with a purge of the file that was read.
    rig.remove("alloc/logs/web.stdout.0");
    rig.write("alloc/logs/web.stdout.1", b"next\n");
    let got = rig.drive(&mut *machine, Fact::Changed);
    let told: Vec<_> = got.frames().into_iter().map(|frame| (frame.file, frame.file_event, frame.offset)).collect();
    assert_eq!(told, [("alloc/logs/web.stdout.0".into(), "file deleted".into(), 10), ("alloc/logs/web.stdout.1".into(), String::new(), 5)]);
    let got = rig.drive(&mut *machine, Fact::Gone);
    assert_eq!((got.text(), &got.stop), ("", &Stop::End));
}

#[test]
fn changes_beside_the_log_neither_spin_nor_hold_the_heartbeat_back() {
    let mut rig = Rig::new("beside");
    rig.write("alloc/logs/web.stdout.0", b"");
    let mut machine = make(logs, "task=web&type=stdout&follow=true", false).unwrap();
    rig.drive(&mut *machine, Fact::Ready);
    let (mut beats_n, mut looks_n) = (0, 0);
    let mut is_pausing = false;
    // The task writes to its other stream without end: each wait for a change is over at once.
    while rig.now_ms <= 1_000_000 + 10_000 {
        let got = rig.drive(&mut *machine, if is_pausing { Fact::Due } else { Fact::Changed });
        beats_n += usize::from(got.text() == "{}");
        is_pausing = matches!(got.stop, Stop::Wait(_, None));
        match got.stop {
            Stop::Wait(ms, None) => rig.now_ms += ms,
            _ => looks_n += 1,
        }
        assert!(looks_n < 1000);
    }
    assert!((95..=105).contains(&looks_n) && (9..=10).contains(&beats_n), "{looks_n} looks, {beats_n} heartbeats in 10 s");
}

#[test]
fn following_plain_has_no_heartbeat_and_no_events() {
    let mut rig = Rig::new("plain");
    rig.write("alloc/logs/web.stdout.0", b"a\n");
    let mut machine = make(logs, "task=web&type=stdout&follow=true&plain=true", false).unwrap();
    let got = rig.drive(&mut *machine, Fact::Ready);
    assert_eq!((got.text(), &got.stop), ("a\n", &waits(3_600_000, "alloc/logs")));
    rig.now_ms += 1000;
    rig.remove("alloc/logs/web.stdout.0");
    rig.write("alloc/logs/web.stdout.3", b"b\n");
    let got = rig.drive(&mut *machine, Fact::Changed);
    assert_eq!((got.text(), &got.stop), ("b\n", &waits(3_600_000, "alloc/logs")));
}

#[test]
fn a_stream_tells_truncation_and_deletion() {
    let mut rig = Rig::new("stream");
    rig.write("alloc/data/f", b"abc");
    let mut machine = make(stream, "path=/alloc/data/f", false).unwrap();
    let got = rig.drive(&mut *machine, Fact::Ready);
    assert_eq!((got.text(), &got.stop), (r#"{"Data":"YWJj","File":"/alloc/data/f","Offset":3}"#, &waits(1000, "alloc/data")));
    assert_eq!(got.head.unwrap().headers, [("Content-Type", "text/plain; charset=utf-8".to_owned())]);
    rig.now_ms += 500;
    File::options().write(true).open(rig.base.join("alloc/data/f")).unwrap().set_len(0).unwrap();
    rig.append("alloc/data/f", b"x");
    let got = rig.drive(&mut *machine, Fact::Changed);
    assert_eq!(got.text(), r#"{"Data":"eA==","File":"/alloc/data/f","FileEvent":"file truncated","Offset":1}"#);
    rig.now_ms += 1000;
    // Looked at again with each heartbeat: it may be reached by a link from another folder.
    rig.append("alloc/data/f", b"yz");
    let got = rig.drive(&mut *machine, Fact::Due);
    assert_eq!(got.text(), r#"{}{"Data":"eXo=","File":"/alloc/data/f","Offset":3}"#);
    rig.now_ms += 500;
    std::fs::rename(rig.base.join("alloc/data/f"), rig.base.join("alloc/data/g")).unwrap();
    let got = rig.drive(&mut *machine, Fact::Changed);
    assert_eq!((got.text(), &got.stop), (r#"{"File":"/alloc/data/f","FileEvent":"file deleted","Offset":3}"#, &Stop::End));

    // Replaced by another file, or by a link to the outside: it is gone.
    for replace in [|to: PathBuf| std::fs::write(to, "other"), |to: PathBuf| std::os::unix::fs::symlink("/etc/passwd", to)] {
        let mut machine = make(stream, "path=alloc/data/g&origin=end&offset=2", false).unwrap();
        assert_eq!(rig.drive(&mut *machine, Fact::Ready).frames()[0].data, b"yz");
        rig.now_ms += 500;
        std::fs::rename(rig.base.join("alloc/data/g"), rig.base.join("alloc/data/h")).unwrap();
        replace(rig.base.join("alloc/data/g")).unwrap();
        let got = rig.drive(&mut *machine, Fact::Changed);
        assert_eq!((got.text(), &got.stop), (r#"{"File":"alloc/data/g","FileEvent":"file deleted","Offset":3}"#, &Stop::End));
        std::fs::rename(rig.base.join("alloc/data/h"), rig.base.join("alloc/data/g")).unwrap();
    }
    let got = rig.answer(stream, "path=alloc/data/g&follow=false&offset=1");
    assert_eq!((got.text(), &got.stop), (r#"{"Data":"eXo=","File":"alloc/data/g","Offset":3}"#, &Stop::End));
    let got = rig.answer(stream, "path=alloc/data/g&follow=false&plain=true");
    assert_eq!((got.text(), &got.stop), ("xyz", &Stop::End));
}

#[test]
fn an_error_on_the_way_is_shown_or_cuts_the_answer() {
    for (operation, query, stop, text) in [
        (logs as Operation, "task=web&type=stdout", Stop::End, "failed to read the log: alloc/logs/web.stdout.0: I/O error"),
        (logs, "task=web&type=stdout&plain=true", Stop::Abort, ""),
        (stream, "path=alloc/logs/web.stdout.0", Stop::Abort, ""),
    ] {
        let mut rig = Rig::new("broken");
        rig.write("alloc/logs/web.stdout.0", b"x");
        let mut machine = make(operation, query, false).unwrap();
        let mut out = Vec::new();
        let mut step = machine.step(Now::default(), Fact::Ready, &mut out);
        loop {
            step = match step {
                Step::Work(work) => machine.step(Now::default(), Fact::Done(rig.perform(&work)), &mut out),
                Step::Head(_) => machine.step(Now::default(), Fact::Ready, &mut out),
                _ => break,
            };
        }
        assert!(matches!(step, Step::Read { .. }), "{step:?}");
        let got = rig.drive(&mut *machine, Fact::Done(Err(FileError::Io(String::new(), 5))));
        assert_eq!((got.text(), &got.stop), (text, &stop));
    }
}

#[test]
fn gone_before_the_head_is_a_404() {
    for (operation, query) in
        [(logs as Operation, "task=web&type=stdout&follow=true"), (cat, "path=a"), (stat, "path=a"), (ls, ""), (stream, "path=a")]
    {
        let mut machine = make(operation, query, false).unwrap();
        let step = machine.step(Now::default(), Fact::Gone, &mut Vec::new());
        assert!(matches!(step, Step::Fail(ApiError { status: 404, .. })), "{query}: {step:?}");
    }
}
