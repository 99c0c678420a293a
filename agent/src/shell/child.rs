//! Supervisors (shims) of running tasks: adopts them, passes asks on, and turns their slots into news.
//!
//! One async task per invocation. The way to a supervisor started a moment ago is the way to one found after a restart
//! (`spec/runtime.md` D3): its runtime folder.
//! What a slot tells is decided in `runtime::shim::news`.
//! A supervisor that answers nothing any more is ended, and its task with it: unseen is worse than restarted.
//! Bounds: [`CONNECT_MS_MAX`] to find a supervisor, [`ANSWER_TRIES`] times [`ANSWER_MS_MAX`] for an answer; asks queue at most [`ASKS_MAX`], a further one is dropped and logged.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_runtime::cgroup::Tree;
use dunlin_runtime::id::{AllocId, Inv};
use dunlin_runtime::proc::pidfd::Process;
use dunlin_runtime::proc::usage;
use dunlin_runtime::shim::news::{self, Told as SoFar};
use dunlin_runtime::shim::record::{Phase, Slot};
use dunlin_runtime::shim::wire::{Answer, DATAGRAM_BYTES_MAX, Op as Ask, Scope, VERSION};
use dunlin_runtime::shim::{self, Attached};
use dunlin_runtime::task::machine::News;
use nix::sys::signal::Signal;
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;
use smol::{Async, Timer};

use super::executor::Executor;
use crate::core::Op;

/// Time a supervisor has to listen.
const CONNECT_MS_MAX: u64 = 10_000;
/// Time it has for an answer, and how often it is asked (`spec/runtime.md` 6.6).
const ANSWER_MS_MAX: u64 = 2_000;
const ANSWER_TRIES: u32 = 3;
/// After this long without a word it is asked whether it is there.
const PING_MS: u64 = 60_000;
/// Pause between two looks at a supervisor that is between two steps of its start or its end.
const LOOK_MS: u64 = 20;
/// Asks waiting for one supervisor.
const ASKS_MAX: usize = 16;
/// Rounds of killing what a lost supervisor left; each finds what the one before has orphaned.
const KILL_ROUNDS_MAX: u32 = 50;

/// Who is told of a supervisor's news.
pub type Told = Rc<dyn Fn(AllocId, &str, Inv, News)>;

/// Process ids of living supervisors: where there are no cgroups, a task's processes are found below its supervisor.
#[derive(Clone, Debug, Default)]
pub struct ShimPids(Arc<Mutex<BTreeMap<(AllocId, String), u32>>>);

impl ShimPids {
    fn set(&self, duty: &Duty, pid: Option<u32>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (duty.alloc, duty.task.clone());
        match pid {
            Some(pid) => all.insert(key, pid),
            None => all.remove(&key),
        };
    }

    /// Of the supervisor of a task; `None` = it has none.
    #[must_use]
    pub fn of(&self, alloc: AllocId, task: &str) -> Option<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(alloc, task.to_owned())).copied()
    }
}

/// All supervisors this agent talks to.
#[derive(Clone)]
pub struct Supervisors {
    exec: Executor,
    runtime_dir: PathBuf,
    tree: Arc<Tree>,
    told: Told,
    asks: Rc<RefCell<BTreeMap<Inv, Sender<Ask>>>>,
    pids: ShimPids,
}

/// Whom a supervisor works for.
#[derive(Clone, Debug)]
pub struct Duty {
    /// The allocation.
    pub alloc: AllocId,
    /// The task.
    pub task: String,
    /// The invocation.
    pub inv: Inv,
    /// It was told of `Running` already, in an earlier life of the agent or at restore.
    pub is_running_told: bool,
}

impl Supervisors {
    /// None yet. `runtime_dir` holds a folder per invocation.
    #[must_use]
    pub fn new(exec: Executor, runtime_dir: PathBuf, tree: Arc<Tree>, told: Told, pids: ShimPids) -> Self {
        Self { exec, runtime_dir, tree, told, asks: Rc::default(), pids }
    }

    /// Attends one invocation until its end.
    pub fn attend(&self, duty: Duty) {
        let (ask, asks) = smol::channel::bounded(ASKS_MAX);
        let inv = duty.inv;
        self.asks.borrow_mut().insert(inv, ask);
        let this = self.clone();
        self.exec
            .spawn(async move {
                let so_far = SoFar { has_run: duty.is_running_told, has_ended: false };
                let mut told = Telling { this: &this, duty: &duty, so_far };
                // Reset: it ended with an ask unread, as it may.
                if let Err(why) = attend(&this, &asks, &mut told).await
                    && why.kind() != io::ErrorKind::ConnectionReset
                {
                    log::warn!("alloc {} task {}: supervisor lost: {why}", duty.alloc, duty.task);
                }
                this.asks.borrow_mut().remove(&inv);
                this.pids.set(&duty, None);
                if !told.so_far.has_ended {
                    told.finish().await;
                }
            })
            .detach();
    }

    /// Passes an ask on. An invocation that has ended meanwhile does not answer, and need not.
    pub fn tell(&self, inv: Inv, op: Op) {
        let ask = match op {
            Op::Stop { signal, timeout_ms } => Ask::Stop { signal, timeout_ms: u32::try_from(timeout_ms).unwrap_or(u32::MAX) },
            Op::Signal { signal } => Ask::Signal { signal, scope: Scope::Main },
        };
        if let Some(asks) = self.asks.borrow().get(&inv)
            && asks.try_send(ask).is_err()
        {
            log::warn!("supervisor {inv}: too many asks are waiting; {op:?} is dropped");
        }
    }
}

/// An invocation, and what of it has been told.
struct Telling<'a> {
    this: &'a Supervisors,
    duty: &'a Duty,
    so_far: SoFar,
}

impl Telling<'_> {
    fn tell(&self) -> impl Fn(News) {
        |news| (self.this.told)(self.duty.alloc, &self.duty.task, self.duty.inv, news)
    }

    /// A slot, as it is now. True when the end was told.
    fn slot(&mut self, slot: &Slot) -> bool {
        if news::has_run(slot) && !self.so_far.has_run {
            self.this.pids.set(self.duty, Some(slot.shim_pid));
        }
        if slot.phase == Phase::Stuck {
            log::error!("alloc {} task {}: process {} was killed and is not gone", self.duty.alloc, self.duty.task, slot.task_pid);
        }
        let mut so_far = self.so_far;
        so_far.slot(slot, self.tell());
        self.so_far = so_far;
        so_far.has_ended
    }

    /// The supervisor is gone: its record tells how the task ended, or nobody knows.
    async fn finish(&mut self) {
        let slot = shim::slot(&self.this.runtime_dir, self.duty.inv).ok().flatten();
        if let Some(slot) = slot.as_ref().filter(|slot| !news::is_over(slot)) {
            // What is left of the task must not run on unseen, even where its main process has ended; and a supervisor that hangs has
            // no say any more.
            if let Some(process) = Process::open(slot.shim_pid, slot.shim_start)
                && let Err(why) = process.signal(Signal::SIGKILL)
            {
                log::error!("alloc {} task {}: supervisor could not be ended: {why}", self.duty.alloc, self.duty.task);
            }
            for _ in 0..KILL_ROUNDS_MAX {
                match shim::kill_orphan(&self.this.tree, slot, self.duty.alloc, &self.duty.task) {
                    Ok(0) => break,
                    Ok(_) => Timer::after(Duration::from_millis(LOOK_MS)).await,
                    Err(why) => {
                        log::error!("alloc {} task {}: leftovers could not be ended: {why}", self.duty.alloc, self.duty.task);
                        break;
                    }
                };
            }
        }
        let mut so_far = self.so_far;
        so_far.gone(slot.as_ref(), self.tell());
        self.so_far = so_far;
    }
}

async fn attend(this: &Supervisors, asks: &Receiver<Ask>, told: &mut Telling<'_>) -> io::Result<()> {
    let Some(socket) = connect(this, told.duty.inv).await? else {
        // It ended before anybody came: the record says how.
        return Ok(());
    };
    // In this order: what changes before ADOPT is in the answer to HELLO, what changes after it is told.
    send(&socket, Ask::Adopt).await?;
    send(&socket, Ask::Hello { version: VERSION }).await?;
    let mut buf = [0; DATAGRAM_BYTES_MAX];
    // Times it was asked something since it last said anything.
    let mut tries = 1;
    loop {
        enum Next {
            Said(usize),
            Asked(Ask),
            Silent,
        }
        let said = async { Ok(Next::Said(receive(&socket, &mut buf).await?)) };
        let asked = async {
            match asks.recv().await {
                Ok(ask) => Ok(Next::Asked(ask)),
                Err(_) => std::future::pending::<io::Result<Next>>().await,
            }
        };
        let silent = async {
            Timer::after(Duration::from_millis(if tries > 0 { ANSWER_MS_MAX } else { PING_MS })).await;
            Ok(Next::Silent)
        };
        let next = said.or(asked).or(silent).await?;
        if matches!(next, Next::Said(_)) {
            tries = 0;
        }
        match next {
            Next::Said(0) => return Ok(()),
            Next::Said(n) => match Answer::decode(buf.get(..n).unwrap_or_default()) {
                Ok(Answer::State { slot, .. } | Answer::Event(slot)) if told.slot(&slot) => return Ok(()),
                Ok(Answer::Err { errno }) => {
                    log::warn!("task {}: supervisor refused: {}", told.duty.task, io::Error::from_raw_os_error(errno))
                }
                Ok(_) => {}
                Err(why) => log::warn!("task {}: supervisor said something unknown: {why:?}", told.duty.task),
            },
            Next::Asked(ask) => {
                send(&socket, ask).await?;
                tries = tries.max(1);
            }
            // It waits for a slow disk: it will answer.
            Next::Silent if is_in_kernel(this, told.duty.inv) => {}
            Next::Silent if tries >= ANSWER_TRIES => return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer")),
            Next::Silent => {
                send(&socket, Ask::Ping).await?;
                tries += 1;
            }
        }
    }
}

/// True while a supervisor waits inside the kernel and cannot be interrupted.
fn is_in_kernel(this: &Supervisors, inv: Inv) -> bool {
    let slot = shim::slot(&this.runtime_dir, inv).ok().flatten();
    slot.is_some_and(|slot| usage::stat(slot.shim_pid).is_ok_and(|stat| stat.start == slot.shim_start && stat.state == b'D'))
}

/// The supervisor's socket; `None` = the supervisor has already ended.
async fn connect(this: &Supervisors, inv: Inv) -> io::Result<Option<Async<OwnedFd>>> {
    for _ in 0..CONNECT_MS_MAX / LOOK_MS {
        match shim::attach(&this.runtime_dir, inv) {
            Ok(Attached::Live(socket)) => return Ok(Some(Async::new_nonblocking(socket)?)),
            Ok(Attached::Gone(_)) => return Ok(None),
            Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
            Err(why) => return Err(why),
        }
        Timer::after(Duration::from_millis(LOOK_MS)).await;
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"))
}

async fn send(socket: &Async<OwnedFd>, ask: Ask) -> io::Result<()> {
    let bytes = ask.encode();
    socket.write_with(|fd| Ok(rustix::net::send(fd, &bytes, rustix::net::SendFlags::NOSIGNAL)?)).await.map(|_| ())
}

async fn receive(socket: &Async<OwnedFd>, buf: &mut [u8]) -> io::Result<usize> {
    match socket.read_with(|fd| Ok(rustix::io::read(fd, &mut *buf)?)).await {
        // It ended before it read what was asked: its record says the rest, as after any end.
        Err(why) if why.kind() == io::ErrorKind::ConnectionReset => Ok(0),
        read => read,
    }
}
