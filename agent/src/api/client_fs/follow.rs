//! `stream` and `logs`: the follower of the runtime, its pieces in frames or plain. Pure.
//!
//! Adds to [`Follower`]: names of files, the head, frames, the heartbeat (each second without a frame, framed and following only),
//! and a pause of [`BATCH_MS`] between wake-ups that bring little, so that a task writing line by line, to this log or to one beside
//! it, costs ten turns a second and not thousands.
//! After the head an error is appended as text to framed logs, where the stock client shows it; else the connection is cut.

use dunlin_hal::clock::{Mono, Now};
use dunlin_runtime::fs::path::AskedPath;
use dunlin_runtime::id::AllocId;
use dunlin_runtime::logs::follow::{self, Follower, Listed, Piece, Position};
use dunlin_runtime::logs::name::{FOLDER, LogName, Stream};

use super::{Verb, gone};
use crate::api::body::{Answer, Fact, FileError, Machine, Step, Work};
use crate::api::error::ApiError;
use crate::wire::go_text;
use crate::wire::http::{Head, JSON, TEXT};
use crate::wire::stream_frame::{Frame, HEARTBEAT};

/// Without a frame for this long a heartbeat is sent; a single file is looked at again too.
const HEARTBEAT_MS: u64 = 1_000;
/// Wake-ups are at least this far apart,
const BATCH_MS: u64 = 100;
/// unless the last one brought this much.
const BATCH_BYTES: u64 = 4 << 10;
/// Longest wait of a plain follower, which has no heartbeat.
const PLAIN_WAIT_MS: u64 = 3_600_000;

/// What is followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// One file, as the client wrote its path.
    File { path: String },
    /// The output of a task.
    Log { task: String, stream: Stream },
}

impl Source {
    /// The path of a file, as answers and errors name it.
    fn path(&self, index: u32) -> String {
        match self {
            Self::File { path } => path.clone(),
            Self::Log { task, stream } => format!("{FOLDER}/{}", LogName { task, stream: *stream, index }),
        }
    }

    /// The folder to watch, relative to the allocation's.
    fn folder(&self) -> String {
        match self {
            Self::File { path } => AskedPath(path)
                .resolve()
                .ok()
                .and_then(|path| path.relative().rsplit_once('/').map(|(folder, _)| folder.to_owned()))
                .unwrap_or_default(),
            Self::Log { .. } => FOLDER.to_owned(),
        }
    }

    /// Picks the log's files out of a listing.
    fn pick(&self, answer: Answer) -> Vec<Listed> {
        let mut files = Vec::new();
        match (self, answer) {
            (Self::File { .. }, Answer::Entry(entry)) => files.push(Listed { index: 0, bytes: entry.size, inode: entry.inode }),
            (Self::Log { task, stream }, Answer::Entries(entries)) => {
                files.extend(entries.iter().filter(|entry| entry.is_regular()).filter_map(|entry| {
                    let name = LogName::parse(&entry.name).filter(|name| name.task == task && name.stream == *stream)?;
                    Some(Listed { index: name.index, bytes: entry.size, inode: entry.inode })
                }));
            }
            _ => {}
        }
        files
    }

    fn refuse(&self, error: &FileError) -> ApiError {
        match (self, error) {
            (Self::File { .. }, error) => Verb::Stream.refuse(error),
            (Self::Log { .. }, FileError::Permission(_)) => ApiError::new(403, "Permission denied"),
            (Self::Log { .. }, error) => ApiError::new(500, format!("failed to read the log: {error}")),
        }
    }

    fn absent(&self) -> ApiError {
        match self {
            Self::File { path } => self.refuse(&FileError::NotFound(path.clone())),
            Self::Log { task, stream } => {
                let text =
                    format!("log entry for task {} and log type {} not found", go_text::quote(task), go_text::quote(stream.as_str()));
                ApiError::new(404, text)
            }
        }
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct Following {
    alloc: AllocId,
    source: Source,
    follower: Follower,
    is_plain: bool,
    frame_bytes_max: usize,
    state: State,
    has_head: bool,
    /// The file asked for last.
    index: u32,
    /// When the last frame was given out.
    sent_at_mono: Mono,
    /// When a change was last looked into, and how many bytes were given out since.
    woken_at_mono: Mono,
    burst_bytes: u64,
    /// Something changed and was not looked into yet.
    has_change: bool,
}

/// What the next fact answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    Listing,
    Opening,
    /// The head is being sent; then the follower is told of the open file.
    Head {
        bytes: u64,
        inode: u64,
    },
    /// The head is being sent; then it waits.
    HeadOnly,
    Reading,
    Giving,
    Waiting,
    Beating,
    Pausing,
    Failing,
    Ended,
}

impl Following {
    pub(super) fn new(alloc: AllocId, source: Source, from: Position, is_follow: bool, is_plain: bool, frame_bytes_max: usize) -> Self {
        let follower = match source {
            Source::File { .. } => Follower::single(from, is_follow),
            Source::Log { .. } => Follower::rotated(from, is_follow),
        };
        Self {
            alloc,
            source,
            follower,
            is_plain,
            frame_bytes_max,
            state: State::Start,
            has_head: false,
            index: 0,
            sent_at_mono: Mono::default(),
            woken_at_mono: Mono::default(),
            burst_bytes: BATCH_BYTES,
            has_change: false,
        }
    }

    /// Tells the follower and does what it wants, until that needs the outside.
    fn go(&mut self, now: Now, fact: follow::Fact<'_>, bytes: &[u8], out: &mut Vec<u8>) -> Step {
        let mut step = self.follower.step(fact);
        loop {
            return match step {
                follow::Step::List => {
                    self.state = State::Listing;
                    Step::Work(match &self.source {
                        Source::File { path } => Work::Stat { alloc: self.alloc, path: path.clone() },
                        Source::Log { .. } => Work::List { alloc: self.alloc, path: FOLDER.to_owned() },
                    })
                }
                follow::Step::Open(index) => {
                    self.state = State::Opening;
                    self.index = index;
                    Step::Work(Work::Open { alloc: self.alloc, path: self.source.path(index) })
                }
                follow::Step::Read(at) => {
                    self.state = State::Reading;
                    Step::Read { at, bytes_max: self.frame_bytes_max }
                }
                follow::Step::Give(piece) => {
                    if !self.give(now, piece, bytes, out) {
                        step = self.follower.step(follow::Fact::Next);
                        continue;
                    }
                    self.state = State::Giving;
                    Step::Emit
                }
                follow::Step::Wait if self.has_head => self.wait(),
                follow::Step::Wait => self.head(now, State::HeadOnly),
                follow::Step::End if self.has_head => self.end(),
                follow::Step::Absent | follow::Step::End => self.fail(self.source.absent()),
            };
        }
    }

    /// Writes a piece; false when there is nothing to send: an event to a plain reader, or one from before the stream began.
    fn give(&mut self, now: Now, piece: Piece, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        let data = bytes.get(..piece.bytes_n).unwrap_or(bytes);
        if !self.has_head || (self.is_plain && data.is_empty()) {
            return false;
        }
        if self.is_plain {
            out.extend_from_slice(data);
        } else {
            let event = piece.event.map_or("", follow::FileEvent::as_str);
            Frame { data, file: &self.source.path(piece.index), event, offset: piece.offset }.encode(out);
        }
        self.sent_at_mono = now.mono;
        self.burst_bytes = self.burst_bytes.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        true
    }

    fn head(&mut self, now: Now, state: State) -> Step {
        self.state = state;
        self.has_head = true;
        self.sent_at_mono = now.mono;
        Step::Head(Head::new(
            200,
            match (&self.source, self.is_plain) {
                (Source::File { .. }, _) => TEXT,
                (Source::Log { .. }, true) => "text/plain",
                (Source::Log { .. }, false) => JSON,
            },
        ))
    }

    fn wait(&mut self) -> Step {
        self.state = State::Waiting;
        Step::Wait { until: self.beat_due(), folder: Some(self.source.folder()) }
    }

    /// When the next heartbeat, or look at a single file, is due.
    fn beat_due(&self) -> Mono {
        let is_idle = self.is_plain && matches!(self.source, Source::Log { .. });
        self.sent_at_mono.after_ms(if is_idle { PLAIN_WAIT_MS } else { HEARTBEAT_MS })
    }

    /// Something changed. A heartbeat that is due goes first: changes elsewhere in the folder must not keep it back.
    fn woken(&mut self, now: Now, out: &mut Vec<u8>) -> Step {
        self.has_change = true;
        if !self.is_plain && now.mono >= self.beat_due() { self.beat(now, out) } else { self.look(now, out) }
    }

    /// Reads on, unless that was done only just before and brought little.
    fn look(&mut self, now: Now, out: &mut Vec<u8>) -> Step {
        let next_due = self.woken_at_mono.after_ms(BATCH_MS);
        if self.burst_bytes < BATCH_BYTES && now.mono < next_due {
            self.state = State::Pausing;
            return Step::Wait { until: next_due, folder: None };
        }
        self.woken_at_mono = now.mono;
        self.burst_bytes = 0;
        self.has_change = false;
        self.go(now, follow::Fact::Woken, &[], out)
    }

    /// Time has passed without a frame.
    fn beat(&mut self, now: Now, out: &mut Vec<u8>) -> Step {
        if now.mono < self.beat_due() {
            return self.wait();
        }
        self.sent_at_mono = now.mono;
        if self.is_plain {
            return self.beaten(now, out);
        }
        self.state = State::Beating;
        out.extend_from_slice(HEARTBEAT);
        Step::Emit
    }

    /// After a heartbeat. A single file may be reached by a link, and then its folder is not the one that is watched.
    fn beaten(&mut self, now: Now, out: &mut Vec<u8>) -> Step {
        match self.source {
            Source::Log { .. } if !self.has_change => self.wait(),
            _ => self.look(now, out),
        }
    }

    fn failed(&mut self, error: FileError, out: &mut Vec<u8>) -> Step {
        let refusal = self.source.refuse(&error.on(&self.source.path(self.index)));
        if !self.has_head {
            return self.fail(refusal);
        }
        if self.is_plain || matches!(self.source, Source::File { .. }) {
            self.state = State::Ended;
            return Step::Abort;
        }
        self.state = State::Failing;
        out.extend_from_slice(refusal.text.as_bytes());
        Step::Emit
    }

    fn fail(&mut self, error: ApiError) -> Step {
        self.state = State::Ended;
        Step::Fail(error)
    }

    fn end(&mut self) -> Step {
        self.state = State::Ended;
        Step::End
    }
}

impl Machine for Following {
    fn step(&mut self, now: Now, fact: Fact<'_>, out: &mut Vec<u8>) -> Step {
        match (self.state, fact) {
            (State::Ended, _) => Step::End,
            (_, Fact::Gone) if self.has_head => self.end(),
            (_, Fact::Gone) => self.fail(gone(self.alloc)),
            (State::Start | State::Giving, Fact::Ready) => self.go(now, follow::Fact::Next, &[], out),
            (State::Listing, Fact::Done(Ok(answer))) => {
                let files = self.source.pick(answer);
                self.go(now, follow::Fact::Files(&files), &[], out)
            }
            // The folder is gone; the one file too, when what has its name now is out of reach.
            (State::Listing, Fact::Done(Err(FileError::NotFound(_) | FileError::NotDirectory(_) | FileError::Escapes(_)))) => {
                self.go(now, follow::Fact::Files(&[]), &[], out)
            }
            (State::Opening, Fact::Done(Ok(Answer::Entry(entry)))) if self.has_head => {
                self.go(now, follow::Fact::Opened(entry.size, entry.inode), &[], out)
            }
            (State::Opening, Fact::Done(Ok(Answer::Entry(entry)))) => self.head(now, State::Head { bytes: entry.size, inode: entry.inode }),
            (State::Opening, Fact::Done(Err(FileError::NotFound(_)))) if matches!(self.source, Source::Log { .. }) => {
                self.go(now, follow::Fact::Vanished, &[], out)
            }
            (State::Head { bytes, inode }, Fact::Ready) => self.go(now, follow::Fact::Opened(bytes, inode), &[], out),
            (State::Reading, Fact::Bytes(bytes)) => self.go(now, follow::Fact::Read(bytes.len()), bytes, out),
            (State::Listing | State::Opening | State::Reading, Fact::Done(Err(error))) => self.failed(error, out),
            (State::HeadOnly, Fact::Ready) => self.wait(),
            (State::Waiting, Fact::Changed) => self.woken(now, out),
            (State::Waiting, Fact::Due) => self.beat(now, out),
            (State::Pausing, Fact::Due | Fact::Changed) => self.look(now, out),
            (State::Beating, Fact::Ready) => self.beaten(now, out),
            (State::Failing, Fact::Ready) => self.end(),
            _ => {
                self.state = State::Ended;
                Step::Abort
            }
        }
    }
}
