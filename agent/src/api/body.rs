//! The machines that produce an answer piece by piece. Pure: they ask for bytes, rows or time and emit frames.
//!
//! Owned by one connection and driven by `shell/pump.rs` with one buffer; the next step is asked for only when the last
//! piece was taken by the socket, so a slow reader costs one buffer and no turn of the core.
//! A body remembers keys and offsets, never a transaction or a file descriptor.

use core::fmt;

use dunlin_hal::clock::{Mono, Now};
use dunlin_runtime::cgroup::stats::Sample;
use dunlin_runtime::id::AllocId;

use super::error::ApiError;
use crate::wire::http::{Head, JSON};

/// The answer to one request.
#[derive(Debug)]
pub struct Reply {
    /// Status and headers. [`Body::Machine`] decides on its own; these headers are added.
    pub head: Head,
    /// What follows.
    pub body: Body,
    /// The allocation whose files or processes the body reads: it ends when that is gone, and counts as a stream.
    pub stream_of: Option<AllocId>,
}

impl Reply {
    /// A reply that is no stream.
    #[must_use]
    pub fn new(head: Head, body: Body) -> Self {
        Self { head, body, stream_of: None }
    }
}

/// What follows a reply's head.
pub enum Body {
    /// All of it.
    Full(Vec<u8>),
    /// List rows, read in steps from fresh views.
    Rows(Box<dyn Rows>),
    /// Files of an allocation, logs, statistics: decided by their first step, before any head is sent.
    Machine(Box<dyn Machine>),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(bytes) => write!(f, "Full({} bytes)", bytes.len()),
            Self::Rows(_) => f.write_str("Rows"),
            Self::Machine(_) => f.write_str("Machine"),
        }
    }
}

/// A list that is read and encoded in bounded steps.
pub trait Rows {
    /// Appends the next rows (and the brackets of the list) to `out`; false = that was the end.
    /// Holds no more than the budget's rows and bytes of one step. True without a byte = not decided yet: until the first byte an
    /// error still has its status.
    fn step(&mut self, view: &crate::store::view::View<'_>, out: &mut Vec<u8>) -> Result<bool, ApiError>;

    /// What the head says beside what it was made with; asked for once, when the first bytes are there.
    fn headers(&mut self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// An answer made from work outside the core.
pub trait Machine {
    /// The next piece. `out` is empty on entry and is sent when the answer is [`Step::Emit`].
    fn step(&mut self, now: Now, fact: Fact<'_>, out: &mut Vec<u8>) -> Step;
}

/// A JSON document made from one piece of work. Errors still have their status: nothing is sent before the work is done.
pub struct Document {
    work: Option<Work>,
    show: Show,
    bytes: Option<Vec<u8>>,
}

/// Makes the document; `None` when the answer is not of the kind that was asked for.
type Show = Box<dyn Fn(Now, Answer) -> Option<Vec<u8>>>;

impl Document {
    /// Does `work`, then shows its answer.
    #[must_use]
    pub fn new(work: Work, show: Show) -> Self {
        Self { work: Some(work), show, bytes: None }
    }
}

impl Machine for Document {
    fn step(&mut self, now: Now, fact: Fact<'_>, out: &mut Vec<u8>) -> Step {
        if let Some(work) = self.work.take() {
            return Step::Work(work);
        }
        match fact {
            Fact::Done(Ok(answer)) => match (self.show)(now, answer) {
                Some(bytes) => {
                    self.bytes = Some(bytes);
                    Step::Head(Head::new(200, JSON))
                }
                None => Step::Fail(ApiError::new(500, "the sample is not of the kind that was asked for")),
            },
            Fact::Done(Err(error)) => Step::Fail(ApiError::new(500, error.to_string())),
            _ => match self.bytes.take() {
                Some(bytes) => {
                    *out = bytes;
                    Step::Emit
                }
                None => Step::End,
            },
        }
    }
}

/// What a machine learns.
#[derive(Debug)]
pub enum Fact<'a> {
    /// First step, or: the last piece was taken.
    Ready,
    /// Answer to [`Step::Read`]; empty = end of the file for now.
    Bytes(&'a [u8]),
    /// Answer to [`Step::Work`].
    Done(Result<Answer, FileError>),
    /// [`Step::Wait`] ended: the time has come.
    Due,
    /// [`Step::Wait`] ended: something in the watched folder changed.
    Changed,
    /// The allocation is gone or the token was revoked: end soon.
    Gone,
}

/// What a machine wants.
#[derive(Debug)]
pub enum Step {
    /// Send status and headers now. Exactly once, before the first `Emit`.
    Head(Head),
    /// Send what was put into `out`.
    Emit,
    /// Do this on the file worker; the answer is the next fact.
    Work(Work),
    /// Read at most `bytes_max` bytes from the file opened last; answer: [`Fact::Bytes`] or a failed [`Fact::Done`].
    Read {
        /// Offset in the file.
        at: u64,
        /// Upper bound; never above the budget's frame.
        bytes_max: usize,
    },
    /// Wait for a change below `folder` or for `until`, whichever is first.
    Wait {
        /// Wake at this time at the latest.
        until: Mono,
        /// Folder relative to the allocation's, watched for changes; `None` = time only.
        folder: Option<String>,
    },
    /// The regular end.
    End,
    /// Break the connection: the client must see that the answer is not whole.
    Abort,
    /// An error instead of a head: only before `Head`.
    Fail(ApiError),
}

/// Work below one allocation's folder (or on its task's cgroups), done by the file worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Open a file for the following reads. Paths are resolved beneath the allocation's folder.
    Open {
        /// The allocation.
        alloc: AllocId,
        /// As asked by the client, lexically checked.
        path: String,
    },
    /// Look at one entry again, following links beneath the folder.
    Stat {
        /// The allocation.
        alloc: AllocId,
        /// As asked by the client, lexically checked.
        path: String,
    },
    /// List a folder.
    List {
        /// The allocation.
        alloc: AllocId,
        /// As asked by the client, lexically checked.
        path: String,
    },
    /// Sample the resource use of these tasks.
    Usage {
        /// The allocation.
        alloc: AllocId,
        /// Task names.
        tasks: Vec<String>,
    },
    /// Sample the machine: memory, processors, disks.
    HostUsage,
}

/// Answers of the file worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Of `Open` and `Stat`.
    Entry(dunlin_runtime::fs::stat::Entry),
    /// Of `List`, sorted by name.
    Entries(Vec<dunlin_runtime::fs::stat::Entry>),
    /// Of `Usage`: one sample per task that has one.
    Usage(Vec<(String, TaskUsage)>),
    /// Of `HostUsage`.
    Host(Box<dunlin_hal::facts::Usage>),
}

/// What one task uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskUsage {
    /// The reading.
    pub sample: Sample,
    /// Of one core, since the reading before, percent.
    pub percent: f64,
    /// Of that, in user mode.
    pub user_percent: f64,
    /// Of that, in the kernel.
    pub system_percent: f64,
    /// When it was taken, ns since the epoch.
    pub taken_ns: i64,
}

pub use dunlin_runtime::fs::FileError;
