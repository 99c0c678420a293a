//! Drives one answer (`api::body`) against one socket with one reused buffer.
//!
//! Shape: [`Answer`] -> (`Head`, [`Outgoing`]); hyper polls the latter for frames. A machine (or the rows of a list) is asked for
//! its next step only when the socket has taken the last frame: the frame carries the buffer, and dropping it brings the buffer
//! back. So a slow reader costs one buffer and no turn of the core. What the bytes mean is not known here.
//! Invariant: at most one frame of a body exists at a time; a machine sees `Ready` only after its last frame was written.
//! Errors: before the head an `ApiError` becomes the answer; after it the connection is broken off, so that the client sees that
//! the answer is not whole (`spec/http-api.md` 5). Source: architecture.md, "Bytes never pass through Core".

use std::cell::{Cell, RefCell};
use std::fmt;
use std::fs::File;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Buf;
use dunlin_hal::clock::{Clock, Mono};
use dunlin_runtime::id::AllocId;
use hyper::body::{Frame as HyperFrame, SizeHint};
use smol::future::{BoxedLocal, yield_now};

use crate::api::body::{self, Body, Fact, FileError, Machine, Reply, Rows, Step, Work};
use crate::api::error::ApiError;
use crate::wire::http::{Head, TEXT};

/// What a handler answers.
#[derive(Debug)]
pub struct Answer {
    /// Head and body.
    pub reply: Reply,
    /// Held as long as the body lives; see [`lease`].
    pub lease: Option<Lease>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, lease: None }
    }
}

impl From<ApiError> for Answer {
    fn from(error: ApiError) -> Self {
        Reply::new(Head::new(error.status, TEXT), Body::Full(error.text.into_bytes())).into()
    }
}

/// Steps the rows of a list: opens a view, calls [`Rows::step`], closes the view.
pub trait RowSource {
    /// Waits until what a step would show is durable (invariant I3).
    fn durable(&self) -> BoxedLocal<()> {
        Box::pin(async {})
    }

    /// As [`Rows::step`]: appends to `out`; false = that was the end.
    fn step(&self, rows: &mut dyn Rows, out: &mut Vec<u8>) -> Result<bool, ApiError>;
}

/// The file worker and the folder watches, as a body needs them.
pub trait Files {
    /// Does `work` on the worker. For [`Work::Open`] the opened file comes with the answer.
    fn work(&self, work: Work) -> BoxedLocal<Result<Done, FileError>>;

    /// Reads at most `bytes_max` bytes at offset `at` into `buf` (empty on entry, its capacity is reused) on the worker.
    /// Empty = end of the file for now. The buffer comes back in every case.
    fn read(&self, file: Arc<File>, at: u64, bytes_max: usize, buf: Vec<u8>) -> BoxedLocal<(Vec<u8>, Result<(), FileError>)>;

    /// Resolves when something below `folder` (relative to the allocation's) changes. It watches **from this call on**, not from
    /// the first poll; dropping it ends the watch. A folder that cannot be watched never resolves.
    fn changed(&self, alloc: AllocId, folder: &str) -> BoxedLocal<()>;
}

/// What the worker brings back.
#[derive(Debug)]
pub struct Done {
    /// The answer for the machine.
    pub answer: body::Answer,
    /// The file of [`Work::Open`], for the reads that follow.
    pub file: Option<Arc<File>>,
}

/// What bodies need from outside their connection.
#[derive(Clone)]
pub struct Outside {
    /// The clocks.
    pub clock: Rc<dyn Clock>,
    /// The store's rows.
    pub rows: Rc<dyn RowSource>,
    /// Files and folders of allocations.
    pub files: Rc<dyn Files>,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Outside")
    }
}

/// A body's tie to whoever granted it: `ended` is called once, when the body has ended or was dropped with its connection.
/// [`Recall::recall`] tells the machine [`Fact::Gone`].
pub fn lease(ended: impl FnOnce() + 'static) -> (Lease, Recall) {
    let state = Rc::new(LeaseState::default());
    let recall = Recall(Rc::downgrade(&state));
    (Lease { state, ended: Some(Box::new(ended)) }, recall)
}

/// The body's end of a [`lease`].
pub struct Lease {
    state: Rc<LeaseState>,
    ended: Option<Box<dyn FnOnce()>>,
}

/// The granter's end of a [`lease`]. It does not keep the body alive.
#[derive(Clone, Debug)]
pub struct Recall(Weak<LeaseState>);

#[derive(Debug, Default)]
struct LeaseState {
    is_recalled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended();
        }
    }
}

impl Recall {
    /// The allocation is gone or the token was revoked: the machine is told once, with its next step.
    pub fn recall(&self) {
        if let Some(state) = self.0.upgrade() {
            state.is_recalled.set(true);
            let waker = state.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl Lease {
    /// True once after a recall.
    fn take_recall(&self) -> bool {
        self.state.is_recalled.take()
    }

    /// Ready when a recall waits to be taken.
    fn poll_recall(&self, cx: &Context<'_>) -> Poll<()> {
        if self.state.is_recalled.get() {
            return Poll::Ready(());
        }
        *self.state.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// A piece of an answer on its way into the socket. Dropping it gives its buffer back to its body.
#[derive(Debug)]
pub struct Frame {
    bytes: Vec<u8>,
    sent_n: usize,
    home: Option<Rc<Slot>>,
}

impl Buf for Frame {
    fn remaining(&self) -> usize {
        self.bytes.len().saturating_sub(self.sent_n)
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.get(self.sent_n..).unwrap_or_default()
    }

    fn advance(&mut self, n: usize) {
        self.sent_n = self.sent_n.saturating_add(n);
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            home.keep(mem::take(&mut self.bytes));
            let waker = home.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// Where a body and its driver meet: the buffer when nobody uses it, the head and the frame when they are ready to be sent.
#[derive(Debug, Default)]
struct Slot {
    buf: RefCell<Option<Vec<u8>>>,
    head: RefCell<Option<Head>>,
    frame: RefCell<Option<Vec<u8>>>,
    waker: RefCell<Option<Waker>>,
}

impl Slot {
    fn with_buf() -> Rc<Self> {
        Rc::new(Self { buf: RefCell::new(Some(Vec::new())), ..Self::default() })
    }

    /// The buffer, empty; waits until the socket has taken the last frame.
    async fn take(&self) -> Vec<u8> {
        poll_fn(|cx| {
            if let Some(buf) = self.buf.borrow_mut().take() {
                return Poll::Ready(buf);
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn keep(&self, mut buf: Vec<u8>) {
        buf.clear();
        *self.buf.borrow_mut() = Some(buf);
    }

    fn send(&self, frame: Vec<u8>) {
        *self.frame.borrow_mut() = Some(frame);
    }
}

/// Why a body stopped before its end.
#[derive(Debug)]
enum Stop {
    /// Nothing was sent yet: this is the answer.
    Fail(ApiError),
    /// The connection is to be broken off.
    Break,
}

/// The answer was broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer was broken off")
    }
}

impl std::error::Error for Broken {}

/// A body as hyper sends it.
pub struct Outgoing {
    /// The driver, until it has ended.
    run: Option<BoxedLocal<Result<(), Stop>>>,
    /// Set for a body that is driven.
    slot: Option<Rc<Slot>>,
    /// A whole body.
    full: Vec<u8>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("full_bytes", &self.full.len()).field("is_driven", &self.slot.is_some()).finish()
    }
}

impl Outgoing {
    /// A body that is there already.
    #[must_use]
    pub fn full(bytes: Vec<u8>) -> Self {
        Self { run: None, slot: None, full: bytes }
    }

    fn driven(run: Option<BoxedLocal<Result<(), Stop>>>, slot: Rc<Slot>) -> Self {
        Self { run, slot: Some(slot), full: Vec::new() }
    }
}

impl hyper::body::Body for Outgoing {
    type Data = Frame;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<HyperFrame<Frame>, Broken>>> {
        let this = &mut *self;
        let Some(slot) = &this.slot else {
            let bytes = mem::take(&mut this.full);
            return Poll::Ready((!bytes.is_empty()).then(|| Ok(HyperFrame::data(Frame { bytes, sent_n: 0, home: None }))));
        };
        if let Some(run) = &mut this.run {
            match run.as_mut().poll(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => this.run = None,
                Poll::Ready(Err(_)) => {
                    this.run = None;
                    return Poll::Ready(Some(Err(Broken)));
                }
            }
        }
        match slot.frame.borrow_mut().take() {
            Some(bytes) => Poll::Ready(Some(Ok(HyperFrame::data(Frame { bytes, sent_n: 0, home: Some(slot.clone()) })))),
            None if this.run.is_none() => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.run.is_none() && self.full.is_empty() && self.slot.as_ref().is_none_or(|slot| slot.frame.borrow().is_none())
    }

    fn size_hint(&self) -> SizeHint {
        match self.slot {
            None => SizeHint::with_exact(u64::try_from(self.full.len()).unwrap_or(u64::MAX)),
            Some(_) => SizeHint::default(),
        }
    }
}

/// Begins an answer: its status is decided here, so a machine runs until its head and a list until its first bytes.
/// A list that fits in one step becomes a whole body with a length.
pub async fn open(answer: Answer, outside: &Outside) -> (Head, Outgoing) {
    let Answer { reply: Reply { head, body, .. }, lease } = answer;
    match body {
        Body::Full(bytes) => (head, Outgoing::full(bytes)),
        Body::Rows(rows) => open_rows(head, rows, lease, outside).await,
        Body::Machine(machine) => {
            let (mut own, body) = open_machine(machine, lease, outside).await;
            own.headers.extend(head.headers);
            (own, body)
        }
    }
}

fn fail(error: ApiError) -> (Head, Outgoing) {
    (Head::new(error.status, TEXT), Outgoing::full(error.text.into_bytes()))
}

async fn open_rows(mut head: Head, mut rows: Box<dyn Rows>, lease: Option<Lease>, outside: &Outside) -> (Head, Outgoing) {
    let mut first = Vec::new();
    let is_more = loop {
        outside.rows.durable().await;
        match outside.rows.step(&mut *rows, &mut first) {
            Err(error) => return fail(error),
            // Not decided yet: others get their turn.
            Ok(true) if first.is_empty() => yield_now().await,
            Ok(is_more) => break is_more,
        }
    };
    head.headers.extend(rows.headers());
    if !is_more {
        return (head, Outgoing::full(first));
    }
    let slot = Rc::new(Slot::default());
    slot.send(first);
    let run = Box::pin(drive_rows(rows, lease, outside.rows.clone(), slot.clone()));
    (head, Outgoing::driven(Some(run), slot))
}

async fn drive_rows(mut rows: Box<dyn Rows>, _lease: Option<Lease>, source: Rc<dyn RowSource>, slot: Rc<Slot>) -> Result<(), Stop> {
    loop {
        let mut buf = slot.take().await;
        source.durable().await;
        let is_more = source.step(&mut *rows, &mut buf).map_err(|error| {
            log::warn!("list broken off: error={}", error.text);
            Stop::Break
        })?;
        if buf.is_empty() {
            // All work and no bytes (everything was filtered out): others get their turn.
            slot.keep(buf);
            yield_now().await;
        } else {
            slot.send(buf);
        }
        if !is_more {
            return Ok(());
        }
    }
}

async fn open_machine(machine: Box<dyn Machine>, lease: Option<Lease>, outside: &Outside) -> (Head, Outgoing) {
    let slot = Slot::with_buf();
    let drive =
        Drive { machine, lease, outside: outside.clone(), slot: slot.clone(), alloc: None, file: None, watch: None, read_buf: Vec::new() };
    let mut run: BoxedLocal<Result<(), Stop>> = Box::pin(drive.run());
    let ended = poll_fn(|cx| match run.as_mut().poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        Poll::Pending if slot.head.borrow().is_some() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await;
    let head = slot.head.borrow_mut().take();
    match (head, ended) {
        (Some(head), None) => (head, Outgoing::driven(Some(run), slot)),
        (Some(head), Some(Ok(()))) => (head, Outgoing::driven(None, slot)),
        // The head was promised and cannot be kept: sent, then broken off.
        (Some(head), Some(Err(_))) => (head, Outgoing::driven(Some(Box::pin(async { Err(Stop::Break) })), slot)),
        (None, Some(Err(Stop::Fail(error)))) => fail(error),
        (None, _) => {
            log::error!("an answer ended without a head");
            fail(ApiError::new(500, "internal error"))
        }
    }
}

/// What a machine is told next; owned, where a [`Fact`] borrows.
enum Next {
    Ready,
    Bytes,
    Done(Result<body::Answer, FileError>),
    Due,
    Changed,
}

/// One machine and what it holds outside the core.
struct Drive {
    machine: Box<dyn Machine>,
    lease: Option<Lease>,
    outside: Outside,
    slot: Rc<Slot>,
    /// Of the last work; folders to watch are relative to it.
    alloc: Option<AllocId>,
    /// The file opened last.
    file: Option<Arc<File>>,
    /// The folder watched and its next change.
    watch: Option<(String, BoxedLocal<()>)>,
    /// Bytes of the last read.
    read_buf: Vec<u8>,
}

impl Drive {
    async fn run(mut self) -> Result<(), Stop> {
        let mut next = Next::Ready;
        let mut has_head = false;
        loop {
            let mut out = self.slot.take().await;
            let now = self.outside.clock.now();
            let is_recalled =
                matches!(next, Next::Ready | Next::Due | Next::Changed) && self.lease.as_ref().is_some_and(Lease::take_recall);
            let fact = match next {
                _ if is_recalled => Fact::Gone,
                Next::Ready => Fact::Ready,
                Next::Bytes => Fact::Bytes(&self.read_buf),
                Next::Done(done) => Fact::Done(done),
                Next::Due => Fact::Due,
                Next::Changed => Fact::Changed,
            };
            let step = self.machine.step(now, fact, &mut out);
            if let Step::Emit = step {
                if !has_head {
                    return Err(Stop::Break);
                }
                if out.is_empty() {
                    self.slot.keep(out);
                    yield_now().await;
                } else {
                    self.slot.send(out);
                }
                next = Next::Ready;
                continue;
            }
            self.slot.keep(out);
            next = match step {
                Step::Head(_) if has_head => return Err(Stop::Break),
                Step::Head(head) => {
                    has_head = true;
                    *self.slot.head.borrow_mut() = Some(head);
                    Next::Ready
                }
                Step::Work(work) => self.work(work).await,
                Step::Read { at, bytes_max } => self.read(at, bytes_max).await?,
                Step::Wait { until, folder } => self.wait(until, folder).await,
                Step::End if has_head => return Ok(()),
                Step::Fail(error) if !has_head => return Err(Stop::Fail(error)),
                Step::Emit | Step::End | Step::Abort | Step::Fail(_) => return Err(Stop::Break),
            };
        }
    }

    async fn work(&mut self, work: Work) -> Next {
        if let Work::Open { alloc, .. } | Work::Stat { alloc, .. } | Work::List { alloc, .. } | Work::Usage { alloc, .. } = &work {
            self.alloc = Some(*alloc);
        }
        Next::Done(self.outside.files.work(work).await.map(|done| {
            if done.file.is_some() {
                self.file = done.file;
            }
            done.answer
        }))
    }

    async fn read(&mut self, at: u64, bytes_max: usize) -> Result<Next, Stop> {
        let file = self.file.clone().ok_or(Stop::Break)?;
        let mut buf = mem::take(&mut self.read_buf);
        buf.clear();
        let (buf, result) = self.outside.files.read(file, at, bytes_max, buf).await;
        self.read_buf = buf;
        Ok(match result {
            Ok(()) => Next::Bytes,
            Err(error) => Next::Done(Err(error)),
        })
    }

    /// The first wait on a folder answers `Changed` at once: what happened between the last read and the watch is not lost.
    /// Later ones lose nothing either, because the next watch begins before the machine is told of a change.
    async fn wait(&mut self, until: Mono, folder: Option<String>) -> Next {
        if let (Some(folder), Some(alloc)) = (folder.as_ref(), self.alloc)
            && self.watch.as_ref().is_none_or(|(watched, _)| watched != folder)
        {
            self.watch = Some((folder.clone(), self.outside.files.changed(alloc, folder)));
            return Next::Changed;
        }
        let mut timer = smol::Timer::after(until.since(self.outside.clock.now().mono));
        let watch = if folder.is_some() { self.watch.as_mut() } else { None };
        let mut changed = watch.map(|(_, changed)| changed);
        let lease = self.lease.as_ref();
        let next = poll_fn(|cx| {
            if lease.is_some_and(|lease| lease.poll_recall(cx).is_ready()) {
                // The step that follows takes the recall and tells `Gone` instead.
                return Poll::Ready(Next::Due);
            }
            if let Some(changed) = &mut changed
                && changed.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Next::Changed);
            }
            Pin::new(&mut timer).poll(cx).map(|_| Next::Due)
        })
        .await;
        if let (Next::Changed, Some(folder), Some(alloc)) = (&next, folder, self.alloc) {
            let changed = self.outside.files.changed(alloc, &folder);
            self.watch = Some((folder, changed));
        }
        next
    }
}

#[cfg(test)]
mod tests;
