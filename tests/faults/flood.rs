//! `flood`: 64 MiB of log as fast as a program can write, followed by four clients at once, one of them slow. Byte-exact for each
//! over 64 rotations; where the follower is slower than the purge, each purge is told. The agent's memory stays where it is.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dunlin_tests::real::{Options, Real};
use dunlin_tests::{figure, golden, http};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Value, json};

use super::job::{folder, state};

/// The program of `flood` writes so many lines of 64 bytes each.
const LINES: u64 = 1 << 20;
const LINE_BYTES: u64 = 64;
const TOTAL: u64 = LINES * LINE_BYTES;

/// Checks that bytes are those of the program, from anywhere on.
struct Checker {
    /// Offset of the next byte in all that was ever written.
    at: u64,
    line: [u8; 64],
}

impl Checker {
    fn new() -> Self {
        let mut line = [b'0'; 64];
        (line[12], line[63]) = (b' ', b'\n');
        Self { at: 0, line }
    }

    fn number(&mut self, n: u64) {
        let mut left = n;
        for digit in self.line[..12].iter_mut().rev() {
            *digit = b'0' + u8::try_from(left % 10).expect("a digit");
            left /= 10;
        }
    }

    #[track_caller]
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let in_line = usize::try_from(self.at % LINE_BYTES).expect("small");
            self.number(self.at / LINE_BYTES);
            let n = bytes.len().min(self.line.len() - in_line);
            let (got, want) = (&bytes[..n], &self.line[in_line..in_line + n]);
            assert!(got == want, "byte {}: {:?} instead of {:?}", self.at, String::from_utf8_lossy(got), String::from_utf8_lossy(want));
            self.at += n as u64;
            bytes = &bytes[n..];
        }
    }

    /// Some files are missing: goes to the line that comes next, which is never an earlier one. Gives the bytes left out.
    #[track_caller]
    fn skip_to(&mut self, bytes: &[u8]) -> u64 {
        let n: u64 = std::str::from_utf8(&bytes[..12]).expect("digits").parse().expect("a number");
        assert!(n * LINE_BYTES >= self.at, "from {} back to {}", self.at, n * LINE_BYTES);
        let skipped = n * LINE_BYTES - self.at;
        self.at += skipped;
        skipped
    }
}

/// The job, its log policy changed, held at a gate: the file `local/gate`.
fn gated(id: &str, files_max: u32) -> Vec<u8> {
    let mut job: Value = serde_json::from_slice(&golden::job("flood")).expect("JSON");
    job["Job"]["ID"] = json!(id);
    let task = &mut job["Job"]["TaskGroups"][0]["Tasks"][0];
    let program = task["Config"]["args"][0].as_str().expect("a program").to_owned();
    let script = "until [ -e local/gate ]; do sleep 0.02; done; exec /usr/bin/awk \"$0\"";
    task["Config"] = json!({ "command": "/bin/sh", "args": ["-c", script, program] });
    task["LogConfig"]["MaxFiles"] = json!(files_max);
    job.to_string().into_bytes()
}

/// Asks for the log from its start, following. `rcvbuf` bytes are all the kernel keeps for a client that does not read.
fn follow(addr: SocketAddr, alloc: &str, is_plain: bool, rcvbuf: Option<usize>) -> http::Incoming {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    stream.set_read_timeout(Some(http::SILENCE_MAX)).expect("set");
    if let Some(bytes) = rcvbuf {
        setsockopt(&stream, sockopt::RcvBuf, &bytes).expect("set");
    }
    let path = format!("/v1/client/fs/logs/{alloc}?task=write&type=stdout&follow=true&origin=start&plain={is_plain}");
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes()).expect("sent");
    let incoming = http::answer(stream).expect("an answer");
    assert_eq!(incoming.status, 200);
    incoming
}

/// A frame; all of it is absent in a heartbeat.
#[derive(Deserialize, Default)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
struct Frame<'a> {
    offset: u64,
    data: &'a str,
    file: &'a str,
    file_event: &'a str,
}

/// What a follower was told of.
#[derive(Debug, Default)]
struct Followed {
    skipped_bytes: u64,
    /// Indexes of files from which bytes came.
    files: BTreeSet<u32>,
    /// Indexes of files whose end was told.
    deleted: Vec<u32>,
}

/// Reads frames until the last byte the program writes has come.
fn read_frames(mut incoming: http::Incoming, step: usize) -> Followed {
    let mut checker = Checker::new();
    let mut followed = Followed::default();
    let mut bytes = Vec::new();
    let mut buf = vec![0; step];
    let mut is_told = false;
    while checker.at < TOTAL {
        let n = incoming.read(&mut buf).expect("the stream goes on");
        assert!(n > 0, "the stream has ended at byte {}", checker.at);
        let begun = bytes.len();
        bytes.extend_from_slice(&buf[..n]);
        // No frame holds a brace inside.
        let Some(end) = bytes[begun..].iter().rposition(|byte| *byte == b'}').map(|i| begun + i + 1) else { continue };
        for text in bytes[..end].split_inclusive(|byte| *byte == b'}') {
            let frame: Frame<'_> = serde_json::from_slice(text).unwrap_or_else(|why| panic!("{why}: {}", String::from_utf8_lossy(text)));
            let index = || frame.file.rsplit('.').next().and_then(|n| n.parse::<u32>().ok()).expect("a file's number");
            if !frame.file_event.is_empty() {
                assert_eq!(frame.file_event, "file deleted");
                assert!(followed.deleted.last().is_none_or(|last| *last < index()), "{:?} then {}", followed.deleted, index());
                followed.deleted.push(index());
                is_told = true;
            }
            if !frame.data.is_empty() {
                let data = BASE64_STANDARD.decode(frame.data).expect("base64");
                if std::mem::take(&mut is_told) {
                    followed.skipped_bytes += checker.skip_to(&data);
                }
                checker.take(&data);
                assert!(followed.files.last().is_none_or(|last| *last <= index()), "{:?} then {}", followed.files, index());
                followed.files.insert(index());
                assert!(frame.offset >= data.len() as u64 && frame.offset <= 1 << 20, "{}", frame.offset);
            }
        }
        bytes.drain(..end);
    }
    followed
}

/// Reads bytes until the last one the program writes has come.
fn read_plain(mut incoming: http::Incoming, step: usize) {
    let mut checker = Checker::new();
    let mut buf = vec![0; step];
    while checker.at < TOTAL {
        let n = incoming.read(&mut buf).expect("the stream goes on");
        assert!(n > 0, "the stream has ended at byte {}", checker.at);
        checker.take(&buf[..n]);
    }
}

/// Resident memory of a process that belongs to no file, and all of it, KiB.
fn memory_kib(pid: Pid) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it lives");
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok()).expect("a number");
    (field("Anonymous:"), field("Rss:"))
}

/// What may come on top: four connections with one buffer of a frame each, raw and encoded, and what the allocator rounds up.
const GROWTH_KIB_MAX: u64 = 2048;
/// The slow one looks at this little at a time, and the kernel keeps little for it. Much less would stall on acknowledgements.
const SLOW_STEP: usize = 2;
const SLOW_RCVBUF: usize = 32 << 10;

/// Runs the flood under `readers`; gives what they give and how many files there were.
fn flood<T: Send>(id: &str, files_max: u32, readers: Vec<Box<dyn FnOnce(SocketAddr, &str) -> T + Send>>) -> (Vec<T>, u32) {
    let agent = Real::start(id, Options::default());
    agent.run(&gated(id, files_max));
    let alloc = agent.allocs(id, 1, |alloc| alloc["ClientStatus"] == "running").remove(0);
    let alloc_id = alloc["ID"].as_str().expect("an id");
    let before = memory_kib(agent.pid());
    let (attached, is_attached) = std::sync::mpsc::channel();
    let (results, most) = std::thread::scope(|scope| {
        let readers_n = readers.len();
        let threads: Vec<_> = readers
            .into_iter()
            .map(|reader| {
                let (addr, attached) = (agent.addr, attached.clone());
                scope.spawn(move || {
                    // The reader attaches first thing; the gate opens when all have.
                    attached.send(()).expect("somebody counts");
                    reader(addr, alloc_id)
                })
            })
            .collect();
        for _ in 0..readers_n {
            is_attached.recv().expect("a reader");
        }
        await_streams(&agent, readers_n);
        std::fs::write(folder(agent.path(), &alloc).join("local/gate"), b"").expect("written");
        let mut most = (0, 0);
        while threads.iter().any(|thread| !thread.is_finished()) {
            let (anonymous, all) = memory_kib(agent.pid());
            most = (most.0.max(anonymous), most.1.max(all));
            std::thread::sleep(Duration::from_millis(20)); // sleep: between two samples
        }
        let results: Vec<T> =
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|why| std::panic::resume_unwind(why))).collect();
        (results, most)
    });
    let after = memory_kib(agent.pid());
    let alloc = agent.allocs(id, 1, |alloc| state(alloc)["State"] == "dead").remove(0);
    assert_eq!(alloc["ClientStatus"], "complete");
    let logs = folder(agent.path(), &alloc).with_file_name("alloc").join("logs");
    let names = std::fs::read_dir(logs).expect("logs").flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let last = names.filter_map(|name| name.strip_prefix("write.stdout.")?.parse::<u32>().ok()).max().expect("a log");
    figure!(
        "{} bytes over {last} rotations, max_files={files_max}; agent's memory (anonymous, all, KiB): before {before:?}, most {most:?}, after {after:?}",
        TOTAL
    );
    assert!(last >= 60, "{last}");
    assert!(most.0 <= before.0 + GROWTH_KIB_MAX, "{before:?} {most:?}");
    (results, last)
}

/// All followers are attached when the agent has a connection for each.
fn await_streams(agent: &Real, n: usize) {
    let sockets = || {
        let port = format!(":{:04X}", agent.addr.port());
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let is_ours = |line: &&str| {
            let mut words = line.split_whitespace().skip(1);
            // Local address; then, after the other end's, the state 01: established.
            words.next().is_some_and(|local| local.ends_with(&port)) && words.nth(1) == Some("01")
        };
        table.lines().filter(is_ours).count()
    };
    super::eventually(|| sockets() >= n);
}

#[test]
fn four_followers_get_every_byte_over_sixty_rotations() {
    let (_, last) = flood::<()>(
        "flood",
        100,
        vec![
            Box::new(|addr, alloc| drop(read_frames(follow(addr, alloc, false, None), 64 << 10))),
            Box::new(|addr, alloc| read_plain(follow(addr, alloc, true, None), 64 << 10)),
            Box::new(|addr, alloc| {
                let followed = read_frames(follow(addr, alloc, false, None), 64 << 10);
                assert_eq!((followed.skipped_bytes, followed.deleted), (0, Vec::new()));
            }),
            Box::new(|addr, alloc| {
                let followed = read_frames(follow(addr, alloc, false, Some(SLOW_RCVBUF)), SLOW_STEP);
                assert_eq!((followed.skipped_bytes, followed.deleted), (0, Vec::new()));
            }),
        ],
    );
    assert_eq!(u64::from(last), (TOTAL >> 20) - 1);
}

#[test]
fn every_purge_is_told_to_those_it_overtakes() {
    let framed = |rcvbuf: Option<usize>, step: usize| -> Box<dyn FnOnce(SocketAddr, &str) -> Followed + Send> {
        Box::new(move |addr, alloc| read_frames(follow(addr, alloc, false, rcvbuf), step))
    };
    let readers = vec![framed(None, 64 << 10), framed(None, 64 << 10), framed(None, 4 << 10), framed(Some(SLOW_RCVBUF), SLOW_STEP)];
    let (all, last) = flood("purged", 3, readers);
    for (i, followed) in all.iter().enumerate() {
        let Followed { skipped_bytes, files, deleted } = followed;
        figure!(
            "follower {i}: {} files of {}, {} told as deleted, {skipped_bytes} bytes purged before they were read",
            files.len(),
            last + 1,
            deleted.len()
        );
        // Every file was read, or its end was told, or both when it vanished half read.
        let told: BTreeSet<u32> = deleted.iter().copied().collect();
        let missing: Vec<u32> = (0..=last).filter(|n| !files.contains(n) && !told.contains(n)).collect();
        assert_eq!(missing, Vec::<u32>::new(), "follower {i}");
        // A file that was read to its end and then purged is not told; so bytes are missing exactly when a file is.
        assert_eq!(*skipped_bytes > 0, !deleted.is_empty(), "follower {i}: {followed:?}");
    }
    // The slow one cannot keep up with three files.
    assert!(all[3].skipped_bytes > 0);
}
