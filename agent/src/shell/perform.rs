//! Feeds events to the core and performs its effects. No `if` about meaning: each effect has one act.
//!
//! One value per agent, shared by all tasks of the executor. [`Shell::feed`] may be called from any of them; it never waits.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use dunlin_hal::clock::Clock;
use dunlin_hal::linux::clock::KernelClock;
use dunlin_runtime::alloc::dir;
use dunlin_runtime::cgroup::Removed;
use dunlin_runtime::driver::{self, Host, Launch};
use dunlin_runtime::id::{AllocId, Inv};
use dunlin_runtime::shim;
use dunlin_runtime::task::machine::News;
use smol::Timer;
use smol::channel::Sender;
use smol::future::BoxedLocal;

use super::child::{Duty, Supervisors};
use super::executor::Executor;
use super::files::FileWorker;
use super::h1::Handler;
use super::listening;
use super::pump::{Answer, Recall, RowSource, lease};
use super::store_thread::StoreThread;
use super::timer::WakeTimer;
use crate::api::body::{Reply, Rows};
use crate::api::error::ApiError;
use crate::core::{Core, Effect, Event, RequestId};
use crate::wire::http::{Method, Request};

/// Waits between tries to remove what a dead task left, seconds; the last repeats (`spec/runtime.md` 6.5).
const REMOVE_RETRY_S: [u64; 5] = [1, 2, 5, 15, 30];
/// Tries after the first; the last comes some 50 minutes later.
const REMOVE_TRIES_MAX: usize = 100;

/// A body that streams, and the allocation it reads.
type Stream = (AllocId, Recall);

/// The agent's hands.
pub struct Shell {
    core: RefCell<Core>,
    exec: Executor,
    store: RefCell<Option<StoreThread>>,
    supervisors: Supervisors,
    worker: FileWorker,
    timer: WakeTimer,
    host: Arc<Host>,
    next_request: Cell<u64>,
    replies: RefCell<BTreeMap<RequestId, Sender<Reply>>>,
    streams: RefCell<BTreeMap<u64, Stream>>,
    /// Lists that wait until rows are durable.
    waiting: RefCell<Vec<Waker>>,
    exit: Sender<()>,
}

/// What a shell is made of.
pub struct Parts {
    /// The core, restored.
    pub core: Core,
    /// Where tasks run.
    pub exec: Executor,
    /// The store thread.
    pub store: StoreThread,
    /// The supervisors.
    pub supervisors: Supervisors,
    /// The file worker.
    pub worker: FileWorker,
    /// The core's timer.
    pub timer: WakeTimer,
    /// Where and how tasks are started.
    pub host: Arc<Host>,
    /// Told when the core is done.
    pub exit: Sender<()>,
}

impl Shell {
    /// A shell around its parts.
    #[must_use]
    pub fn new(parts: Parts) -> Rc<Self> {
        let Parts { core, exec, store, supervisors, worker, timer, host, exit } = parts;
        Rc::new(Self {
            core: RefCell::new(core),
            exec,
            store: RefCell::new(Some(store)),
            supervisors,
            worker,
            timer,
            host,
            next_request: Cell::new(1),
            replies: RefCell::default(),
            streams: RefCell::default(),
            waiting: RefCell::default(),
            exit,
        })
    }

    /// Takes one fact to the core and performs what follows.
    pub fn feed(self: &Rc<Self>, event: Event) {
        self.core.borrow_mut().handle(KernelClock.now(), event);
        self.perform();
    }

    /// Registers a job named on the command line.
    ///
    /// # Errors
    /// What the API would have answered.
    pub fn register(self: &Rc<Self>, text: &[u8]) -> Result<(String, String), ApiError> {
        let registered = self.core.borrow_mut().register(KernelClock.now(), text);
        self.perform();
        registered
    }

    /// Attends a supervisor that was found at start.
    pub fn attend(&self, duty: Duty) {
        self.supervisors.attend(duty);
    }

    /// Performs all effects that are due.
    pub fn perform(self: &Rc<Self>) {
        loop {
            let Some(effect) = self.core.borrow_mut().poll() else { break };
            match effect {
                Effect::Commit(batch) => {
                    if let Some(store) = &*self.store.borrow() {
                        store.commit(batch);
                    }
                }
                Effect::Respond { id, reply } => self.respond(id, reply),
                Effect::Launch(launch) => self.launch(*launch),
                Effect::Supervise { inv, op } => self.supervisors.tell(inv, op),
                Effect::Forget { alloc, task, inv, is_last } => self.forget(alloc, task, inv, is_last),
                Effect::Remove(alloc) => self.remove(alloc),
                Effect::WakeAt(due) => {
                    if let Err(why) = self.timer.arm(due) {
                        log::error!("timer: {why}");
                    }
                }
                Effect::Exit => {
                    // The channel holds one; a second wish to exit says nothing new.
                    let _ = self.exit.try_send(());
                }
            }
        }
        if self.core.borrow().shown().is_some() {
            for waker in self.waiting.borrow_mut().drain(..) {
                waker.wake();
            }
        }
    }

    fn respond(&self, id: RequestId, reply: Reply) {
        if let Some(waiting) = self.replies.borrow_mut().remove(&id) {
            // A client that has gone takes no reply.
            let _ = waiting.try_send(reply);
        }
    }

    fn launch(self: &Rc<Self>, launch: Launch) {
        let this = self.clone();
        let host = self.host.clone();
        self.exec
            .spawn(async move {
                let duty = Duty { alloc: launch.alloc, task: launch.task.clone(), inv: launch.inv, is_running_told: false };
                match this.worker.run(move || driver::launch(&host, &launch)).await {
                    Ok(()) => this.supervisors.attend(duty),
                    Err(why) => this.feed(Event::News {
                        alloc: duty.alloc,
                        task: duty.task,
                        inv: duty.inv,
                        news: News::LaunchFailed { error: why.text, is_recoverable: why.is_recoverable },
                    }),
                }
            })
            .detach();
    }

    /// Removes what is left of an invocation. Processes that will not die keep their cgroup, which is then tried again later.
    fn forget(self: &Rc<Self>, alloc: AllocId, task: String, inv: Inv, is_last: bool) {
        let this = self.clone();
        self.exec
            .spawn(async move {
                if is_last {
                    this.remove_groups(alloc, &task).await;
                }
                // A supervisor that has said its last word lets go of its folder a moment later.
                for wait_s in REMOVE_RETRY_S {
                    let runtime_dir = this.host.runtime_dir.clone();
                    match this.worker.run(move || shim::remove(&runtime_dir, inv, None)).await {
                        Ok(()) => return,
                        Err(why) if why.kind() == io::ErrorKind::WouldBlock => {}
                        Err(why) => return log::warn!("runtime folder {inv}: {why}"),
                    }
                    Timer::after(Duration::from_secs(wait_s)).await;
                }
                log::warn!("runtime folder {inv}: its supervisor does not end");
            })
            .detach();
    }

    async fn remove_groups(&self, alloc: AllocId, task: &str) {
        for n in 0..=REMOVE_TRIES_MAX {
            let (host, name) = (self.host.clone(), task.to_owned());
            match self.worker.run(move || host.cgroup.remove(alloc, &name)).await {
                Ok(Removed::Gone) => return,
                Ok(Removed::NotYet) => {}
                Err(why) => log::warn!("alloc {alloc} task {task}: {why}"),
            }
            Timer::after(Duration::from_secs(REMOVE_RETRY_S[n.min(REMOVE_RETRY_S.len() - 1)])).await;
        }
        log::error!("alloc {alloc} task {task}: processes of it are still there");
    }

    fn remove(self: &Rc<Self>, alloc: AllocId) {
        for (other, recall) in self.streams.borrow().values() {
            if *other == alloc {
                recall.recall();
            }
        }
        let this = self.clone();
        self.exec
            .spawn(async move {
                let root = this.host.alloc_root.clone();
                if let Err(why) = this.worker.run(move || dir::remove(&root, alloc)).await {
                    log::warn!("alloc {alloc}: folder could not be removed: {why}");
                }
                this.feed(Event::Removed(alloc));
            })
            .detach();
    }

    /// The largest number of streams this agent serves.
    fn streams_max(&self) -> usize {
        self.core.borrow().setting().budget.streams_max
    }

    /// Grants a stream: its end is noticed, and the end of its allocation reaches it.
    fn grant(self: &Rc<Self>, reply: Reply) -> Answer {
        let Some(alloc) = reply.stream_of else { return reply.into() };
        if self.streams.borrow().len() >= self.streams_max() {
            return ApiError::new(429, "too many concurrent requests").into();
        }
        let n = self.next_request.get();
        self.next_request.set(n + 1);
        let this = Rc::downgrade(self);
        let (lease, recall) = lease(move || {
            if let Some(this) = this.upgrade() {
                this.streams.borrow_mut().remove(&n);
            }
        });
        self.streams.borrow_mut().insert(n, (alloc, recall));
        Answer { reply, lease: Some(lease) }
    }

    /// Takes the end of a child nobody waits for: as process 1 the agent inherits orphans.
    pub fn reap(&self) {
        if std::process::id() == 1 {
            dunlin_runtime::proc::reap_all();
        }
    }

    /// Waits for the core's timer.
    ///
    /// # Errors
    /// When the timer cannot be read.
    pub async fn timer_fired(&self) -> io::Result<()> {
        self.timer.fired().await
    }

    /// Ends the core and the store thread; all that was ever shown is durable afterwards.
    pub fn close(self: &Rc<Self>) {
        self.core.borrow_mut().close(KernelClock.now());
        self.perform();
        if let Some(store) = self.store.borrow_mut().take() {
            store.join();
        }
    }
}

/// Tells the core when a client leaves before its reply.
struct Asking {
    shell: Rc<Shell>,
    id: RequestId,
}

impl Drop for Asking {
    fn drop(&mut self) {
        let was_waiting = self.shell.replies.borrow_mut().remove(&self.id).is_some();
        if was_waiting {
            self.shell.feed(Event::Gone(self.id));
        }
    }
}

/// Answers requests through the core.
pub struct Requests(pub Rc<Shell>);

impl Handler for Requests {
    fn body_bytes_max(&self, ask: &Request) -> usize {
        let core = self.0.core.borrow();
        let budget = &core.setting().budget;
        let is_job = ["/v1/job", "/v1/validate/job"].iter().any(|prefix| ask.path.starts_with(prefix));
        if is_job { budget.job_bytes_max } else { budget.body_bytes_max }
    }

    fn call(&self, request: Request) -> BoxedLocal<Answer> {
        let shell = self.0.clone();
        Box::pin(async move {
            let id = RequestId(shell.next_request.get());
            shell.next_request.set(id.0 + 1);
            let (tell, told) = smol::channel::bounded(1);
            shell.replies.borrow_mut().insert(id, tell);
            let asking = Asking { shell: shell.clone(), id };
            let is_read = matches!(request.method, Method::Get | Method::Head | Method::Options);
            let busy_ports = if is_read { Vec::new() } else { listening::ports() };
            shell.feed(Event::Request { id, request, busy_ports });
            let reply = told.recv().await;
            drop(asking);
            match reply {
                Ok(reply) => shell.grant(reply),
                Err(_) => ApiError::new(500, "the agent is shutting down").into(),
            }
        })
    }
}

/// Steps lists over the core's rows.
pub struct CoreRows(pub Rc<Shell>);

impl RowSource for CoreRows {
    fn durable(&self) -> BoxedLocal<()> {
        let shell = self.0.clone();
        Box::pin(std::future::poll_fn(move |cx| {
            if shell.core.borrow().shown().is_some() {
                return Poll::Ready(());
            }
            shell.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        }))
    }

    fn step(&self, rows: &mut dyn Rows, out: &mut Vec<u8>) -> Result<bool, ApiError> {
        let core = self.0.core.borrow();
        match core.shown() {
            Some(view) => rows.step(&view, out),
            // A batch was handed out since the wait: nothing is shown in this step.
            None => Ok(true),
        }
    }
}
