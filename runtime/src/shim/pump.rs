//! One captured stream: from the task's pipe into its rotating files. Edge: reads, writes, opens; where bytes go is decided by
//! [`Rotator`]. Never allocates after [`Pump::new`]; no byte is held back: what is read is written or counted as dropped.
//!
//! A full or broken disk never stops the task: output is read on, dropped and counted, and tried again once a second; when it works
//! again, one line says how much is missing. The log folder is writable for tasks, so a name in it is opened without following links,
//! and only a plain file with this one name is written to.
//! Source: `spec/runtime.md` 4.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dunlin_hal::clock::Mono;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::logs::name::{LogName, Stream};
use crate::logs::rotate::{Op, Rotator};
use crate::spec::LogPolicy;

/// Bytes read at once.
pub const CHUNK_BYTES: usize = 4096;
/// A shorter read is followed by a pause, so that many small writes become few.
const SHORT_BYTES: usize = 512;
const PAUSE_MS: u64 = 50;
const RETRY_MS: u64 = 1_000;
/// Most that is read of one pipe after everything that could write to it was killed: the largest pipe an ordinary user can make.
const LEFT_BYTES_MAX: usize = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Pump {
    /// The task's end of output; `None` = ended, or not captured.
    pipe: Option<OwnedFd>,
    /// No read before this.
    pause_due: Option<Mono>,
    /// The main process has ended: no pauses any more.
    is_hurried: bool,
    sink: Sink,
}

/// The files of one stream.
#[derive(Debug)]
struct Sink {
    task: Box<str>,
    stream: Stream,
    rotator: Rotator,
    file: Option<OwnedFd>,
    written_bytes: u64,
    dropped_bytes: u64,
    /// Of these, not yet told in the log.
    untold_bytes: u64,
    /// Next attempt after a failure.
    retry_due: Option<Mono>,
    is_mid_line: bool,
}

impl Pump {
    /// Continues the files found in `dir`. `pipe` must not block.
    #[must_use]
    pub fn new(dir: BorrowedFd<'_>, task: &str, stream: Stream, policy: LogPolicy, pipe: Option<OwnedFd>) -> Self {
        let (newest, oldest) = existing(dir, task, stream);
        let rotator = match oldest {
            Some(oldest) => Rotator::new(policy, newest).with_oldest(oldest),
            None => Rotator::new(policy, newest),
        };
        let sink = Sink {
            task: task.into(),
            stream,
            rotator,
            file: None,
            written_bytes: 0,
            dropped_bytes: 0,
            untold_bytes: 0,
            retry_due: None,
            is_mid_line: false,
        };
        Self { pipe, pause_due: None, is_hurried: false, sink }
    }

    /// The pipe, if it is to be read now.
    #[must_use]
    pub fn wants_read(&self, now: Mono) -> Option<BorrowedFd<'_>> {
        let is_paused = self.pause_due.is_some_and(|due| now < due);
        self.pipe.as_ref().filter(|_| !is_paused).map(AsFd::as_fd)
    }

    /// True when no more output can come.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.pipe.is_none()
    }

    /// When [`Pump::tick`] or a read is wanted.
    #[must_use]
    pub fn due(&self) -> Option<Mono> {
        // A pause is over by itself; what was never paused needs no timer.
        let pause = self.pause_due.filter(|_| self.pipe.is_some());
        [pause, self.sink.retry_due].into_iter().flatten().min()
    }

    /// Written and dropped so far, and the current file.
    #[must_use]
    pub fn figures(&self) -> (u64, u64, u32) {
        (self.sink.written_bytes, self.sink.dropped_bytes, self.sink.rotator.index())
    }

    /// New limits.
    pub fn set_policy(&mut self, policy: LogPolicy) {
        self.sink.rotator.set_policy(policy);
    }

    /// Opens the first file and removes those beyond the limit, so that readers find an empty log before the first byte.
    pub fn open(&mut self, dir: BorrowedFd<'_>, now: Mono) {
        self.sink.write(dir, now, &[]);
    }

    /// One read.
    pub fn read(&mut self, dir: BorrowedFd<'_>, now: Mono, buffer: &mut [u8; CHUNK_BYTES]) {
        let n = self.take(dir, now, buffer).unwrap_or(0);
        self.pause_due = (n > 0 && n < SHORT_BYTES && !self.is_hurried).then(|| now.after_ms(PAUSE_MS));
    }

    /// Ends the pause and tries a failed log again, if it is time.
    pub fn tick(&mut self, dir: BorrowedFd<'_>, now: Mono) {
        if self.pause_due.is_some_and(|due| now >= due) {
            self.pause_due = None;
        }
        if self.sink.retry_due.is_some_and(|due| now >= due) {
            self.sink.write(dir, now, &[]);
        }
    }

    /// The main process has ended: reads without pauses from now on.
    pub fn hurry(&mut self) {
        self.is_hurried = true;
        self.pause_due = None;
    }

    /// Takes what is left in the pipe and closes it.
    pub fn drain(&mut self, dir: BorrowedFd<'_>, now: Mono, buffer: &mut [u8; CHUNK_BYTES]) {
        let mut left = LEFT_BYTES_MAX;
        while let Some(n) = self.take(dir, now, buffer).filter(|&n| n > 0 && left > 0) {
            left = left.saturating_sub(n);
        }
        self.pipe = None;
        if self.sink.untold_bytes > 0 {
            self.sink.retry_due = Some(now);
            self.sink.write(dir, now, &[]);
        }
        self.sink.retry_due = None;
    }

    /// Reads once and writes it. `None` = nothing there now; 0 = the end.
    fn take(&mut self, dir: BorrowedFd<'_>, now: Mono, buffer: &mut [u8; CHUNK_BYTES]) -> Option<usize> {
        match rustix::io::read(self.pipe.as_ref()?, &mut buffer[..]) {
            Ok(n) if n > 0 => {
                self.sink.write(dir, now, buffer.get(..n).unwrap_or(&[]));
                Some(n)
            }
            Err(Errno::AGAIN | Errno::INTR) => None,
            // The end; a pipe knows no other error.
            Ok(_) | Err(_) => {
                self.pipe = None;
                Some(0)
            }
        }
    }
}

impl Sink {
    fn write(&mut self, dir: BorrowedFd<'_>, now: Mono, chunk: &[u8]) {
        if self.retry_due.is_some_and(|due| now < due) {
            return self.drop_bytes(chunk.len());
        }
        self.retry_due = None;
        if self.untold_bytes > 0 {
            let mut line = heapless::String::<64>::new();
            let start = if self.is_mid_line { "\n" } else { "" };
            // 64 bytes hold the text with any number.
            let _ = writeln!(line, "{start}[agent] {} bytes of log dropped", self.untold_bytes);
            if self.steps(dir, now, line.as_bytes(), true) {
                self.untold_bytes = 0;
            }
        }
        if self.retry_due.is_none() {
            self.steps(dir, now, chunk, false);
        } else {
            self.drop_bytes(chunk.len());
        }
    }

    /// Performs the rotator's steps. False = something failed; the rest of the chunk is dropped, unless it is `ours`.
    fn steps(&mut self, dir: BorrowedFd<'_>, now: Mono, chunk: &[u8], is_ours: bool) -> bool {
        let mut rest = chunk;
        while let Some((op, left)) = self.rotator.next(rest) {
            let before = rest.len();
            rest = left;
            let done = match op {
                Op::Open(index) => self.open(dir, index),
                Op::Remove(index) => {
                    if let Some(name) = self.name(index) {
                        let _ = unlinkat(dir, name.as_str(), AtFlags::empty());
                    }
                    Ok(())
                }
                Op::Write(bytes) => {
                    let written = self.write_all(bytes);
                    let lost = bytes.len() - written;
                    if let Some(last) = bytes.get(..written).and_then(<[u8]>::last) {
                        self.is_mid_line = *last != b'\n';
                    }
                    if !is_ours {
                        self.written_bytes += to_u64(written);
                    }
                    if lost > 0 {
                        self.rotator.lost(to_u64(lost));
                        Err(lost)
                    } else {
                        Ok(())
                    }
                }
            };
            if let Err(lost) = done {
                self.retry_due = Some(now.after_ms(RETRY_MS));
                if !is_ours {
                    let unwritten = if matches!(op, Op::Write(_)) { lost + rest.len() } else { before };
                    self.drop_bytes(unwritten);
                }
                return false;
            }
        }
        true
    }

    fn open(&mut self, dir: BorrowedFd<'_>, index: u32) -> Result<(), usize> {
        self.file = None;
        let opened = self.name(index).ok_or(Errno::NAMETOOLONG).and_then(|name| open_plain(dir, &name));
        match opened {
            Ok((file, bytes)) => {
                self.rotator.opened(bytes);
                self.file = Some(file);
                self.is_mid_line = false;
                Ok(())
            }
            Err(_) => {
                self.rotator.closed();
                Err(0)
            }
        }
    }

    /// How much was written.
    fn write_all(&mut self, bytes: &[u8]) -> usize {
        let Some(file) = &self.file else { return 0 };
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            match rustix::io::write(file, rest) {
                Ok(n) if n > 0 => at += n,
                Err(Errno::INTR) => {}
                Ok(_) | Err(_) => break,
            }
        }
        at
    }

    fn drop_bytes(&mut self, n: usize) {
        self.dropped_bytes += to_u64(n);
        self.untold_bytes += to_u64(n);
    }

    fn name(&self, index: u32) -> Option<heapless::String<255>> {
        let mut name = heapless::String::new();
        write!(name, "{}", LogName { task: &self.task, stream: self.stream, index }).ok()?;
        Some(name)
    }
}

/// Opens a log file for appending: a plain file that has no other name. Anything else in its place is removed first.
fn open_plain(dir: BorrowedFd<'_>, name: &str) -> Result<(OwnedFd, u64), Errno> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o644);
    if let Ok(fd) = openat(dir, name, flags, mode) {
        let stat = fstat(&fd)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_nlink == 1 {
            return Ok((fd, u64::try_from(stat.st_size).unwrap_or(0)));
        }
    }
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(error),
    }
    openat(dir, name, flags | OFlags::EXCL, mode).map(|fd| (fd, 0))
}

/// Highest file (index, size) and lowest index of a stream.
fn existing(dir: BorrowedFd<'_>, task: &str, stream: Stream) -> (Option<(u32, u64)>, Option<u32>) {
    let indexes = || -> io::Result<(Option<u32>, Option<u32>)> {
        let (mut newest, mut oldest) = (None, None);
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_str().ok().and_then(LogName::parse).filter(|name| name.task == task && name.stream == stream);
            if let Some(name) = name {
                newest = newest.max(Some(name.index));
                oldest = Some(oldest.map_or(name.index, |oldest: u32| oldest.min(name.index)));
            }
        }
        Ok((newest, oldest))
    };
    let Ok((Some(newest), oldest)) = indexes() else { return (None, None) };
    let name = LogName { task, stream, index: newest }.to_string();
    let bytes = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok().and_then(|stat| u64::try_from(stat.st_size).ok());
    (Some((newest, bytes.unwrap_or(0))), oldest)
}

/// Lossless on every target.
fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
