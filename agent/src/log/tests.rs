use std::time::Instant;

use super::*;
use dunlin_hal::budget::SMALL_64;
use dunlin_hal::clock::{Mono, Now};
use log::Log as _;

/// The log on its own, at one moment.
struct Fixed(Wall);

impl Clock for Fixed {
    fn now(&self) -> Now {
        Now { mono: Mono(0), wall: self.0 }
    }
}

fn line(level: Level, target: &str, message: &str) -> Line {
    Line::new(Wall(1_700_000_000_123_456_789), level, target, format_args!("{message}"))
}

#[test]
fn lines_look_like_upstreams() {
    let check = |level, target: &str, message: &str, want: &str| {
        let line = line(level, target, message);
        assert_eq!(&*line.text, want);
        let tag = want.get(25..33).unwrap();
        assert_eq!(format!("{} {tag}{}: {}", line.stamp(), line.module(), line.message()), want);
    };
    check(Level::Info, "dunlin::shell::net", "listening", "2023-11-14T22:13:20.123Z [INFO]  shell.net: listening");
    check(Level::Error, "dunlin_runtime::task", "a: b=c", "2023-11-14T22:13:20.123Z [ERROR] runtime.task: a: b=c");
    check(Level::Warn, "dunlin", "x", "2023-11-14T22:13:20.123Z [WARN]  agent: x");
    check(Level::Debug, "redb", "x", "2023-11-14T22:13:20.123Z [DEBUG] redb: x");
    check(Level::Trace, "", "", "2023-11-14T22:13:20.123Z [TRACE] agent: ");
    check(Level::Info, "dunlin", "one\ntwo\r\u{1b}[2Jé", "2023-11-14T22:13:20.123Z [INFO]  agent: one\\ntwo\\r\\u{1b}[2Jé");
}

#[test]
fn long_lines_are_cut() {
    for (text, target) in [("é".repeat(5000), "dunlin"), ("\n".repeat(5000), "dunlin"), ("x".to_owned(), &*"m".repeat(5000))] {
        let line = line(Level::Info, target, &text);
        assert!(line.text.len() <= LINE_BYTES_MAX && line.text.len() > LINE_BYTES_MAX - 16, "{}", line.text.len());
        assert!(line.text.ends_with("...") || line.module().ends_with("..."));
    }
}

#[test]
fn stamps() {
    let check = |ns: i64, want: &str| {
        let mut text = String::new();
        stamp(Wall(ns), &mut text);
        assert_eq!(text, want);
    };
    check(0, "1970-01-01T00:00:00.000Z");
    check(-1, "1969-12-31T23:59:59.999Z");
    check(951_782_400_000_000_000, "2000-02-29T00:00:00.000Z");
    check(951_868_799_999_999_999, "2000-02-29T23:59:59.999Z");
    check(1_709_251_200_000_000_000, "2024-03-01T00:00:00.000Z");
    check(4_107_542_400_000_000_000, "2100-03-01T00:00:00.000Z");
    check(i64::MAX, "2262-04-11T23:47:16.854Z");
    check(i64::MIN, "1677-09-21T00:12:43.145Z");
}

/// Lines that a reader gets, and how many it missed.
fn read(ring: &Ring, cursor: &mut Cursor) -> (Vec<String>, u64) {
    let mut lines = Vec::new();
    let missed_n = ring.read(cursor, |line| {
        lines.push(line.message().to_owned());
        true
    });
    (lines, missed_n)
}

#[test]
fn the_ring_keeps_the_newest_and_counts_the_rest() {
    let push = |ring: &mut Ring, range: std::ops::Range<u32>| range.for_each(|i| ring.push(line(Level::Info, "dunlin", &i.to_string())));
    let mut ring = Ring::new(3, 1 << 10);
    let mut cursor = Cursor(0);
    assert_eq!(read(&ring, &mut cursor), (vec![], 0));
    push(&mut ring, 0..2);
    assert_eq!(read(&ring, &mut cursor), (vec!["0".into(), "1".into()], 0));
    assert_eq!(read(&ring, &mut cursor), (vec![], 0));
    push(&mut ring, 2..5);
    assert_eq!(read(&ring, &mut cursor), (vec!["2".into(), "3".into(), "4".into()], 0));
    push(&mut ring, 5..10);
    assert_eq!(read(&ring, &mut cursor), (vec!["7".into(), "8".into(), "9".into()], 2));
    assert_eq!(read(&ring, &mut Cursor(0)), (vec!["7".into(), "8".into(), "9".into()], 7));
    assert_eq!(read(&ring, &mut Cursor(ring.end())), (vec![], 0));
    // A reader that takes one at a time.
    let mut cursor = Cursor(8);
    let mut seen = Vec::new();
    ring.read(&mut cursor, |line| {
        let is_room = seen.is_empty();
        seen.extend(is_room.then(|| line.message().to_owned()));
        is_room
    });
    assert_eq!((seen, cursor), (vec!["8".to_owned()], Cursor(9)));
}

#[test]
fn the_ring_is_bounded_in_bytes_too() {
    let mut ring = Ring::new(1000, 500);
    for i in 0..10_000_usize {
        ring.push(line(Level::Info, "dunlin", &"x".repeat(i % 300)));
        assert_eq!(ring.bytes_n, ring.lines.iter().map(|line| line.text.len()).sum::<usize>());
        assert!(ring.bytes_n <= 500);
    }
    ring.push(line(Level::Info, "dunlin", &"x".repeat(1000)));
    assert_eq!((ring.lines.len(), ring.bytes_n), (0, 0), "a line beyond the whole ring is dropped and counted");
    assert_eq!(ring.end(), 10_001);
}

#[test]
fn records_reach_the_ring_and_a_full_stderr_stops_nobody() {
    let log = Log::new(&SMALL_64, Box::new(Fixed(Wall(0))));
    log::set_max_level(LevelFilter::Info);
    let record = |target, level| log.log(&Record::builder().target(target).level(level).args(format_args!("m")).build());
    let mut cursor = log.cursor();
    record("dunlin::core", Level::Info);
    record("dunlin::core", Level::Debug);
    record("foreign", Level::Info);
    record("foreign", Level::Warn);
    let mut seen = Vec::new();
    assert_eq!(
        log.read(&mut cursor, |line| {
            seen.push(line.module().to_owned());
            true
        }),
        0
    );
    assert_eq!(seen, ["core", "foreign"]);
    let from = Instant::now();
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let n = (0..1000).filter(|_| write_line(&writer, &"x".repeat(LINE_BYTES_MAX))).count();
    assert!((16..64).contains(&n), "a pipe holds 64 KiB and then loses: {n}");
    assert!(from.elapsed().as_secs() < 10);
    drop(reader);
    assert!(!write_line(&writer, "nobody reads"));
}
