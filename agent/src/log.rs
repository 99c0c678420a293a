//! The backend of the `log` crate: each line goes to stderr and into a bounded ring that readers follow by cursor.
//!
//! Shape: log record -> one line `2006-01-02T15:04:05.000Z [INFO]  module: message` (UTC).
//! Units: bytes, lines. Invariant: the ring holds at most `log_lines_max` lines and `log_bytes_max` bytes; the oldest is dropped,
//! and a reader that comes too late learns how many it missed. A line has no control characters and at most [`LINE_BYTES_MAX`]
//! bytes. A stderr that takes nothing loses lines (counted) instead of stopping the agent.
//! Errors: none; logging never fails. Never: secrets, the OS clock. Source: `spec/http-api.md` 7.9.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dunlin_hal::budget::Budget;
use dunlin_hal::clock::{Clock, Wall};
use log::{Level, LevelFilter, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Longest line, its end not counted. A pipe takes this much at once or nothing (PIPE_BUF is 4096).
pub const LINE_BYTES_MAX: usize = 2048;

/// Bytes of `2006-01-02T15:04:05.000Z [INFO]  `, before the module.
const PREFIX_BYTES: usize = 33;

/// The log of this process.
pub struct Log {
    clock: Box<dyn Clock + Send + Sync>,
    ring: Mutex<Ring>,
    unwritten_n: AtomicU64,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its level.
    pub level: Level,
    /// The whole line, without its end.
    pub text: Box<str>,
    module_n: usize,
}

impl Line {
    /// When, RFC 3339 with milliseconds.
    #[must_use]
    pub fn stamp(&self) -> &str {
        self.text.get(..24).unwrap_or_default()
    }

    /// Who, as `shell.net`.
    #[must_use]
    pub fn module(&self) -> &str {
        self.text.get(PREFIX_BYTES..PREFIX_BYTES + self.module_n).unwrap_or_default()
    }

    /// What.
    #[must_use]
    pub fn message(&self) -> &str {
        self.text.get(PREFIX_BYTES + self.module_n + 2..).unwrap_or_default()
    }

    fn new(at: Wall, level: Level, target: &str, message: fmt::Arguments<'_>) -> Self {
        let mut text = Bounded(String::with_capacity(128));
        stamp(at, &mut text.0);
        // Padded to the longest, as upstream writes it.
        let tag = match level {
            Level::Error => " [ERROR] ",
            Level::Warn => " [WARN]  ",
            Level::Info => " [INFO]  ",
            Level::Debug => " [DEBUG] ",
            Level::Trace => " [TRACE] ",
        };
        text.0.push_str(tag);
        let rest = target.strip_prefix("dunlin").unwrap_or(target).trim_start_matches([':', '_']);
        // A record cannot make `Bounded` fail; a `Display` that fails on its own leaves what it wrote.
        let _ = text.write_str(if rest.is_empty() { "agent" } else { rest });
        let module = text.0.split_off(PREFIX_BYTES.min(text.0.len())).replace("::", ".");
        text.0.push_str(&module);
        let _ = write!(text, ": {message}");
        Self { level, text: text.0.into(), module_n: module.len() }
    }
}

/// Takes text up to [`LINE_BYTES_MAX`] and makes control characters visible.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if self.0.len() + 8 > LINE_BYTES_MAX {
                if !self.0.ends_with("...") {
                    self.0.push_str("...");
                }
                return Ok(());
            }
            match c {
                c if c.is_control() => self.0.extend(c.escape_default()),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

/// `2006-01-02T15:04:05.000Z`. Civil date from the day number, in eras of 400 years that begin on a 1st of March.
fn stamp(at: Wall, out: &mut String) {
    let (days, second) = (at.seconds().div_euclid(86_400), at.seconds().rem_euclid(86_400));
    let ms = at.0.rem_euclid(1_000_000_000) / 1_000_000;
    let day = days + 719_468;
    let (era, day_of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    // Writing to a String cannot fail.
    let _ = write!(out, "{year:04}-{month:02}-{day_of_month:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z");
}

/// The newest lines.
#[derive(Debug)]
struct Ring {
    lines_max: usize,
    bytes_max: usize,
    lines: VecDeque<Line>,
    bytes_n: usize,
    /// Lines dropped so far = number of the oldest line held.
    dropped_n: u64,
}

impl Ring {
    fn new(lines_max: usize, bytes_max: usize) -> Self {
        Self { lines_max, bytes_max, lines: VecDeque::new(), bytes_n: 0, dropped_n: 0 }
    }

    fn push(&mut self, line: Line) {
        self.bytes_n += line.text.len();
        self.lines.push_back(line);
        while self.lines.len() > self.lines_max || self.bytes_n > self.bytes_max {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes_n -= oldest.text.len();
            self.dropped_n += 1;
        }
    }

    fn end(&self) -> u64 {
        self.dropped_n + u64::try_from(self.lines.len()).unwrap_or(u64::MAX)
    }

    fn read(&self, cursor: &mut Cursor, mut take: impl FnMut(&Line) -> bool) -> u64 {
        let missed_n = self.dropped_n.saturating_sub(cursor.0);
        cursor.0 = cursor.0.max(self.dropped_n);
        let skip_n = usize::try_from(cursor.0 - self.dropped_n).unwrap_or(usize::MAX);
        for line in self.lines.iter().skip(skip_n) {
            if !take(line) {
                break;
            }
            cursor.0 += 1;
        }
        missed_n
    }
}

/// How far a reader has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(u64);

impl Log {
    /// Makes the process's log, the backend of all `log` macros. Once per process; lines above `level` are not made.
    pub fn start(
        budget: &Budget,
        level: LevelFilter,
        clock: impl Clock + Send + Sync + 'static,
    ) -> Result<&'static Self, log::SetLoggerError> {
        let log: &'static Self = Box::leak(Box::new(Self::new(budget, Box::new(clock))));
        log::set_logger(log)?;
        log::set_max_level(level);
        Ok(log)
    }

    fn new(budget: &Budget, clock: Box<dyn Clock + Send + Sync>) -> Self {
        Self { clock, ring: Mutex::new(Ring::new(budget.log_lines_max, budget.log_bytes_max)), unwritten_n: AtomicU64::new(0) }
    }

    /// A cursor behind the newest line: a reader sees what comes after it attached.
    pub fn cursor(&self) -> Cursor {
        Cursor(self.ring().end())
    }

    /// Shows the lines after `cursor` one by one, oldest first, until `take` refuses one (which is then the next one).
    /// Returns how many lines were dropped before this reader saw them.
    pub fn read(&self, cursor: &mut Cursor, take: impl FnMut(&Line) -> bool) -> u64 {
        self.ring().read(cursor, take)
    }

    /// Lines that stderr did not take.
    pub fn unwritten_n(&self) -> u64 {
        self.unwritten_n.load(Ordering::Relaxed)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // A panic aborts the release build; in a test the ring is whole between two statements.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, record: &Record<'_>) -> Line {
        Line::new(self.clock.now().wall, record.level(), record.target(), *record.args())
    }
}

impl log::Log for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Of foreign crates only what an operator should know.
        metadata.level() <= log::max_level() && (metadata.level() <= Level::Warn || metadata.target().starts_with("dunlin"))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = self.line(record);
        if !write_line(io::stderr(), &line.text) {
            self.unwritten_n.fetch_add(1, Ordering::Relaxed);
        }
        self.ring().push(line);
    }

    fn flush(&self) {}
}

/// Writes one line at once; false when the descriptor has no room (a full pipe, a stopped terminal) or is gone.
fn write_line(to: impl AsFd, text: &str) -> bool {
    let mut ready = [PollFd::new(&to, PollFlags::OUT)];
    let has_room = matches!(poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1));
    // A pipe without a reader is "ready" with an error beside it.
    let has_room = has_room && ready.iter().all(|fd| fd.revents() == PollFlags::OUT);
    has_room && rustix::io::write(&to, format!("{text}\n").as_bytes()).is_ok_and(|n| n > text.len())
}

#[cfg(test)]
mod tests;
