//! Supervisors (shims) of running tasks: finds the socket, adopts, passes asks on, and turns their slots into news.
//!
//! One async task per invocation. The way to a supervisor started a moment ago is the way to one found after a restart
//! (`spec/runtime.md` D3): its runtime folder.
//! Invariant: each attended invocation gives exactly one end: `Exited`, `LaunchFailed` or `Lost`; none before its processes are gone.
//! Bounds: [`CONNECT_MS_MAX`] for the socket to appear; asks queue at most [`ASKS_MAX`], a further one is dropped and logged.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_runtime::id::{AllocId, Inv};
use dunlin_runtime::shim;
use dunlin_runtime::shim::record::{Phase, Slot};
use dunlin_runtime::shim::wire::{Answer, DATAGRAM_BYTES_MAX, Op as Ask, Scope, VERSION};
use dunlin_runtime::task::machine::News;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;
use smol::{Async, Timer};

use super::executor::Executor;
use crate::core::Op;

/// Time a supervisor has to open its socket.
const CONNECT_MS_MAX: u64 = 10_000;
/// Asks waiting for one supervisor.
const ASKS_MAX: usize = 16;

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
    pub fn new(exec: Executor, runtime_dir: PathBuf, told: Told, pids: ShimPids) -> Self {
        Self { exec, runtime_dir, told, asks: Rc::default(), pids }
    }

    /// Attends one invocation until its end.
    pub fn attend(&self, duty: Duty) {
        let (ask, asks) = smol::channel::bounded(ASKS_MAX);
        let inv = duty.inv;
        self.asks.borrow_mut().insert(inv, ask);
        let this = self.clone();
        self.exec
            .spawn(async move {
                let dir = shim::folder(&this.runtime_dir, inv);
                let mut told = Telling { told: &this.told, duty: &duty, pids: &this.pids, has_run: duty.is_running_told, has_ended: false };
                let end = attend(&dir, &asks, &mut told).await;
                this.asks.borrow_mut().remove(&inv);
                this.pids.set(&duty, None);
                if let Err(why) = end {
                    log::warn!("alloc {} task {}: supervisor lost: {why}", duty.alloc, duty.task);
                }
                if !told.has_ended {
                    told.finish(&dir);
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

/// What of an invocation has been told.
struct Telling<'a> {
    told: &'a Told,
    duty: &'a Duty,
    pids: &'a ShimPids,
    has_run: bool,
    has_ended: bool,
}

impl Telling<'_> {
    fn tell(&self, news: News) {
        (self.told)(self.duty.alloc, &self.duty.task, self.duty.inv, news);
    }

    /// A slot, as it is now. True when it is the last.
    fn slot(&mut self, slot: &Slot) -> bool {
        if matches!(slot.phase, Phase::Running | Phase::Stopping | Phase::Exited | Phase::Done | Phase::Stuck) && !self.has_run {
            self.has_run = true;
            self.pids.set(self.duty, Some(slot.shim_pid));
            self.tell(News::Running { started_at: slot.started.wall, pid: slot.task_pid });
        }
        if slot.phase == Phase::Stuck {
            log::error!("alloc {} task {}: process {} was killed and is not gone", self.duty.alloc, self.duty.task, slot.task_pid);
        }
        if let Some(news) = shim::end_of(slot) {
            self.has_ended = true;
            self.tell(news);
        }
        self.has_ended
    }

    /// The supervisor is gone: its record tells how it ended, or nobody knows.
    fn finish(&mut self, dir: &Path) {
        match shim::read_slot(dir) {
            Some(slot) if self.slot(&slot) => {}
            slot => {
                // What is left of the task must not run on unseen.
                if let Err(why) = shim::kill_orphan(dir, slot.as_ref()) {
                    log::error!("alloc {} task {}: leftovers could not be ended: {why}", self.duty.alloc, self.duty.task);
                }
                self.has_ended = true;
                self.tell(match (self.has_run, slot) {
                    (false, None) => News::LaunchFailed { error: "failed to launch command: the supervisor did not start".to_owned(), is_recoverable: true },
                    _ => News::Lost,
                });
            }
        }
    }
}

async fn attend(dir: &Path, asks: &Receiver<Ask>, told: &mut Telling<'_>) -> io::Result<()> {
    let Some(socket) = connect(dir).await? else {
        // It ended before it had a socket: the record says how.
        return Ok(());
    };
    send(&socket, Ask::Hello { version: VERSION }).await?;
    send(&socket, Ask::Adopt).await?;
    let mut buf = [0; DATAGRAM_BYTES_MAX];
    loop {
        enum Next {
            Said(usize),
            Asked(Ask),
        }
        let said = async { Ok(Next::Said(receive(&socket, &mut buf).await?)) };
        let asked = async {
            match asks.recv().await {
                Ok(ask) => Ok(Next::Asked(ask)),
                Err(_) => std::future::pending::<io::Result<Next>>().await,
            }
        };
        match said.or(asked).await? {
            Next::Said(0) => return Ok(()),
            Next::Said(n) => match Answer::decode(&buf[..n]) {
                Ok(Answer::State { slot, .. } | Answer::Event(slot)) if told.slot(&slot) => return Ok(()),
                Ok(Answer::Err { errno }) => log::warn!("task {}: supervisor refused: {}", told.duty.task, io::Error::from_raw_os_error(errno)),
                Ok(_) => {}
                Err(why) => log::warn!("task {}: supervisor said something unknown: {why:?}", told.duty.task),
            },
            Next::Asked(ask) => send(&socket, ask).await?,
        }
    }
}

/// The supervisor's socket, once it is there; `None` = the supervisor has already ended.
async fn connect(dir: &Path) -> io::Result<Option<Async<OwnedFd>>> {
    let notify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    // The watch is set before the first look, so nothing can happen in between unseen.
    notify.add_watch(dir, AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE_SELF)?;
    let notify = Async::new_nonblocking(notify)?;
    let deadline = async {
        Timer::after(Duration::from_millis(CONNECT_MS_MAX)).await;
        Err(io::Error::new(io::ErrorKind::TimedOut, "no socket in time"))
    };
    let appears = async {
        loop {
            match shim::connect(dir) {
                Ok(socket) => return Ok(Some(Async::new_nonblocking(socket)?)),
                Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
                Err(why) => return Err(why),
            }
            if shim::read_slot(dir).is_some_and(|slot| shim::end_of(&slot).is_some()) {
                return Ok(None);
            }
            notify.readable().await?;
            // What happened is looked at anew above; the events themselves say nothing more.
            let _ = notify.get_ref().read_events();
        }
    };
    appears.or(deadline).await
}

async fn send(socket: &Async<OwnedFd>, ask: Ask) -> io::Result<()> {
    let bytes = ask.encode();
    socket.write_with(|fd| Ok(rustix::net::send(fd, &bytes, rustix::net::SendFlags::NOSIGNAL)?)).await.map(|_| ())
}

async fn receive(socket: &Async<OwnedFd>, buf: &mut [u8]) -> io::Result<usize> {
    socket.read_with(|fd| Ok(rustix::io::read(fd, &mut *buf)?)).await
}
