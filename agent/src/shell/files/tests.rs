//! The whole way of a log: a rotating writer on a real disk, the worker, inotify, the machines, the driver of bodies.

use std::fs::OpenOptions;
use std::io::Write;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use dunlin_hal::budget::SMALL_64;
use dunlin_hal::clock::{Clock, Mono, Now, Wall};
use dunlin_runtime::logs::rotate::{Op, Rotator};
use dunlin_runtime::spec::LogPolicy;
use http_body_util::BodyExt;
use smol::channel;
use smol::future::{block_on, poll_once, yield_now};

use super::*;
use crate::api::body::{Body, Reply, Rows};
use crate::api::client_fs::{self, Target};
use crate::api::error::ApiError;
use crate::shell::pump::{Files as _, Outside, RowSource};
use crate::wire::http::Head;
use crate::wire::stream_frame::{Received, decode};

const ALLOC: AllocId = AllocId([7; 16]);

struct TestClock(Instant);

impl Clock for TestClock {
    fn now(&self) -> Now {
        let ns = u64::try_from(self.0.elapsed().as_nanos()).unwrap();
        Now { mono: Mono(ns), wall: Wall::UNSET }
    }
}

struct NoRows;

impl RowSource for NoRows {
    fn step(&self, _: &mut dyn Rows, _: &mut Vec<u8>) -> Result<bool, ApiError> {
        Ok(false)
    }
}

/// One allocation's folder below a temporary one.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let base = std::env::temp_dir().join(format!("dunlin-files-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&base);
        std::fs::create_dir_all(base.join(ALLOC.to_string()).join("alloc/logs")).unwrap();
        Self(base)
    }

    fn alloc(&self) -> PathBuf {
        self.0.join(ALLOC.to_string())
    }

    fn files(&self) -> Files {
        let sampler: Sampler = Arc::new(|work| {
            assert_eq!(*work, Work::HostUsage);
            Err(FileError::NotFound("sampled".into()))
        });
        Files::new(FileWorker::default(), self.0.clone(), sampler)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes as the shim does.
struct Writer {
    rotator: Rotator,
    folder: PathBuf,
    file: Option<File>,
}

impl Writer {
    fn new(place: &Place, files_max: u32, file_bytes_max: u64) -> Self {
        let rotator = Rotator::new(LogPolicy { files_max, file_bytes_max, is_captured: true }, None);
        let mut writer = Self { rotator, folder: place.alloc().join("alloc/logs"), file: None };
        writer.write(b"");
        writer
    }

    fn write(&mut self, chunk: &[u8]) {
        let mut rest = chunk;
        while let Some((op, after)) = self.rotator.next(rest) {
            match op {
                Op::Open(index) => {
                    let path = self.folder.join(format!("flood.stdout.{index}"));
                    let file = OpenOptions::new().append(true).create(true).open(path).unwrap();
                    self.rotator.opened(file.metadata().unwrap().len());
                    self.file = Some(file);
                }
                Op::Write(bytes) => self.file.as_mut().unwrap().write_all(bytes).unwrap(),
                Op::Remove(index) => std::fs::remove_file(self.folder.join(format!("flood.stdout.{index}"))).unwrap(),
            }
            rest = after;
        }
    }
}

/// The numbered lines of a flood, as chunks of a pipe.
fn lines(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| format!("{i:012} {:050}\n", 0).into_bytes()).collect()
}

/// Follows the flood's log until `is_enough`; gives the frames back. `pause` is called after each piece.
async fn follow(outside: &Outside, query: &str, mut is_enough: impl FnMut(&[u8]) -> bool, mut pause: impl AsyncFnMut(usize)) -> Vec<u8> {
    let query: Vec<(String, String)> =
        query.split('&').map(|pair| pair.split_once('=').unwrap()).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let tasks = [("flood".to_owned(), true)];
    let machine = client_fs::logs(&Target { alloc: ALLOC, tasks: &tasks, is_destroyed: false }, &query, &SMALL_64).unwrap();
    let reply = Reply::new(Head::default(), Body::Machine(machine));
    let (head, body) = pump::open(reply.into(), outside).await;
    assert_eq!(head.status, 200);
    let mut body = pin!(body);
    let mut got = Vec::new();
    let mut pieces_n = 0;
    while !is_enough(&got) {
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        got.extend_from_slice(bytes::Buf::chunk(&frame));
        drop(frame);
        pieces_n += 1;
        pause(pieces_n).await;
    }
    got
}

fn outside(files: Files) -> Outside {
    Outside { clock: Rc::new(TestClock(Instant::now())), rows: Rc::new(NoRows), files: Rc::new(files) }
}

#[test]
fn four_followers_of_a_flood_get_every_byte() {
    const FOLLOWERS_N: usize = 4;
    let place = Place::new("flood");
    let mut writer = Writer::new(&place, 200, 64 << 10);
    let all = lines(65_000);
    let outside = outside(place.files());
    let (attached, all_attached) = std::sync::mpsc::channel();
    let flood = {
        let all = all.clone();
        std::thread::spawn(move || {
            for _ in 0..FOLLOWERS_N {
                all_attached.recv().unwrap();
            }
            all.chunks(4096).for_each(|chunk| writer.write(chunk));
            writer.rotator.index()
        })
    };
    let exec = smol::LocalExecutor::new();
    let tasks: Vec<_> = (0..FOLLOWERS_N)
        .map(|i| {
            let (outside, attached, all_n) = (outside.clone(), attached.clone(), all.len());
            exec.spawn(async move {
                let query = "task=flood&type=stdout&follow=true&plain=true";
                let mut attached = Some(attached);
                let is_enough = move |got: &[u8]| {
                    if let Some(attached) = attached.take() {
                        attached.send(()).unwrap();
                    }
                    got.len() >= all_n
                };
                // The last one is slow.
                let turns = if i == FOLLOWERS_N - 1 { 300 } else { 0 };
                let pause = async |_| {
                    for _ in 0..turns {
                        yield_now().await;
                    }
                };
                follow(&outside, query, is_enough, pause).await
            })
        })
        .collect();
    block_on(exec.run(async {
        for task in tasks {
            assert!(task.await == all, "bytes lost, doubled or out of order");
        }
    }));
    assert!(flood.join().unwrap() >= 60, "too few rotations");
}

#[test]
fn a_purge_under_a_slow_follower_is_told_file_by_file() {
    let place = Place::new("purge");
    let mut writer = Writer::new(&place, 3, 64 << 10);
    let all = lines(20_000);
    let outside = outside(place.files());
    writer.write(&all[..8192]);
    let (start, started) = std::sync::mpsc::channel::<()>();
    let (done, is_done) = channel::bounded::<()>(1);
    let flood = {
        let all = all.clone();
        std::thread::spawn(move || {
            started.recv().unwrap();
            all[8192..].chunks(4096).for_each(|chunk| writer.write(chunk));
            drop(done);
            writer.rotator.index()
        })
    };
    let last_line = all[all.len() - 64..].to_vec();
    let exec = smol::LocalExecutor::new();
    let got = block_on(exec.run(async {
        let is_enough = |got: &[u8]| decode(got).last().is_some_and(|frame| frame.unwrap().data.ends_with(&last_line));
        let pause = async |pieces_n| {
            // The first piece was taken: now all else is written, and most of it purged.
            if pieces_n == 1 {
                start.send(()).unwrap();
                let _ = is_done.recv().await;
            }
        };
        follow(&outside, "task=flood&type=stdout&follow=true", is_enough, pause).await
    }));
    let newest = flood.join().unwrap();
    let frames: Vec<Received> = decode(&got).map(Result::unwrap).filter(|frame| !frame.is_heartbeat()).collect();
    let index = |frame: &Received| frame.file.rsplit_once('.').unwrap().1.parse::<u32>().unwrap();
    let told: Vec<u32> = frames.iter().filter(|frame| frame.file_event == "file deleted").map(index).collect();
    let mut read: Vec<u32> = frames.iter().filter(|frame| !frame.data.is_empty()).map(index).collect();
    read.dedup();
    // The file at hand is read to its end though it is gone; then every file that was never reached; then the three that are left.
    assert_eq!(told, (0..=newest - 3).collect::<Vec<_>>());
    assert_eq!(read, [0, newest - 2, newest - 1, newest]);
    let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.data.clone()).collect();
    let first_n = frames.iter().filter(|frame| index(frame) == 0).map(|frame| frame.data.len()).sum::<usize>();
    assert_eq!(bytes[..first_n], all[..first_n]);
    assert!(all.ends_with(&bytes[first_n..]) && first_n > 32 << 10);
}

#[test]
fn work_is_done_beneath_the_allocation() {
    let place = Place::new("work");
    std::fs::write(place.alloc().join("f"), "0123456789").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", place.alloc().join("out")).unwrap();
    let files = place.files();
    let path = |path: &str| path.to_owned();
    block_on(async {
        let done = files.work(Work::Open { alloc: ALLOC, path: path("/f") }).await.unwrap();
        assert!(matches!(&done.answer, Answer::Entry(entry) if entry.size == 10 && entry.name == "f"));
        let file = done.file.unwrap();
        for (at, bytes_max, want) in [(0, 4, "0123"), (8, 4, "89"), (10, 4, ""), (1 << 40, 4, "")] {
            let (buf, result) = files.read(file.clone(), at, bytes_max, b"old".to_vec()).await;
            assert_eq!((buf.as_slice(), result), (want.as_bytes(), Ok(())));
        }
        let (buf, result) = files.read(file, u64::MAX, 4, Vec::new()).await;
        assert_eq!((buf.len(), result), (0, Err(FileError::Io(String::new(), Errno::EINVAL as i32))));
        let done = files.work(Work::Stat { alloc: ALLOC, path: path("alloc") }).await.unwrap();
        assert!(matches!(&done.answer, Answer::Entry(entry) if entry.is_dir) && done.file.is_none());
        let done = files.work(Work::List { alloc: ALLOC, path: path("/") }).await.unwrap();
        assert!(matches!(&done.answer, Answer::Entries(entries) if entries.len() == 3));
        for (work, want) in [
            (Work::Open { alloc: ALLOC, path: path("out") }, FileError::Escapes(path("out"))),
            (Work::Open { alloc: ALLOC, path: path("../f") }, FileError::Escapes(path("../f"))),
            (Work::List { alloc: AllocId([8; 16]), path: path("/") }, FileError::NotFound(path("/"))),
            (Work::HostUsage, FileError::NotFound(path("sampled"))),
        ] {
            assert_eq!(files.work(work).await.unwrap_err(), want);
        }
    });
}

#[test]
fn a_watch_tells_all_who_wait_once() {
    let place = Place::new("watch");
    let logs = place.alloc().join("alloc/logs");
    let watcher = Watcher::default();
    block_on(async {
        let wait = || watcher.changed(&place.alloc(), "alloc/logs");
        let (mut first, mut second, other) = (wait(), wait(), watcher.changed(&place.alloc(), "alloc"));
        assert!(poll_once(&mut first).await.is_none() && poll_once(&mut second).await.is_none());
        // From the call on, not from the first poll.
        let third = wait();
        std::fs::write(logs.join("a"), "x").unwrap();
        smol::future::zip(first, smol::future::zip(second, third)).await;
        let mut other = pin!(other);
        assert!(poll_once(&mut other).await.is_none());
        // Fired once: what comes next is for the next watch.
        std::fs::write(logs.join("a"), "y").unwrap();
        let mut next = wait();
        assert!(poll_once(&mut next).await.is_none());
        for change in [
            || -> fn(&Path) { |logs| std::fs::write(logs.join("a"), "longer").unwrap() },
            || -> fn(&Path) { |logs| std::fs::rename(logs.join("a"), logs.join("b")).unwrap() },
            || -> fn(&Path) { |logs| std::fs::remove_file(logs.join("b")).unwrap() },
            || -> fn(&Path) { |logs| std::fs::remove_dir(logs).unwrap() },
        ] {
            let wait = wait();
            change()(&logs);
            wait.await;
        }
        // A folder that is gone is looked at again after a while.
        let mut gone = wait();
        assert!(poll_once(&mut gone).await.is_none());
        gone.await;
    });
}

#[test]
fn watches_go_with_those_who_wait() {
    let place = Place::new("drop");
    let watcher = Watcher::default();
    let count = || watcher.len();
    let first = watcher.changed(&place.alloc(), "");
    let second = watcher.changed(&place.alloc(), "/");
    let third = watcher.changed(&place.alloc(), "alloc");
    assert_eq!(count(), 2);
    drop(first);
    assert_eq!(count(), 2);
    drop((second, third));
    assert_eq!(count(), 0);
    // Escapes are not watched.
    std::os::unix::fs::symlink("/tmp", place.alloc().join("out")).unwrap();
    drop(watcher.changed(&place.alloc(), "out"));
    assert_eq!(count(), 0);
}
