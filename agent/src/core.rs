//! The machine of the whole agent: facts in, consequences out. It wires store, scheduler, API and running tasks together;
//! nothing else does.
//!
//! Shape: [`Core::handle`] takes one [`Event`]; [`Core::poll`] gives [`Effect`]s until drained, before the next event.
//! Never: a clock, a socket, a file, randomness of its own (invariant I2); reads go through the store's view.
//! Invariant I3: a reply, a start or a stop is held under the batch that justifies it and let go by [`Event::Committed`].
//! Soft (C1) rows are shown at once; what removes their evidence (a runtime folder) is held until they are durable too.
//! Bounds: `Budget::{waiters_max, batches_max}`; what happens when full stands there. Restarts beyond `waiters_max` are answered at once.

mod children;
mod collect;
mod damping;
mod deploys;
pub mod launch;
mod periodic;
mod restore;
mod runs;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dunlin_hal::budget::Budget;
use dunlin_hal::clock::{Mono, Now};
use dunlin_hal::entropy::Rng;
use dunlin_hal::hit;
use dunlin_hal::zones::Zones;
use dunlin_runtime::driver::Launch;
use dunlin_runtime::event::ClientStatus;
use dunlin_runtime::id::{AllocId, EvalId, Inv};
use dunlin_runtime::task::machine::{Durability, News};

use self::collect::sweep::Sweep;
use self::damping::Damping;
use self::deploys::Deploys;
use self::periodic::Periodic;
pub use self::restore::Found;
use self::runs::Runs;
use crate::api::body::Reply;
use crate::api::error::ApiError;
use crate::api::{self, Cx, Outcome};
use crate::config::Config;
use crate::model::alloc::{Allocation, Desired, Health, JobKey};
use crate::model::eval::{EvalStatus, Evaluation, Trigger};
use crate::model::job::{Job, ReschedulePolicy};
use crate::node::Node;
use crate::sched::place::Site;
use crate::sched::process::job_status;
use crate::sched::{deploy, reschedule};
use crate::store::rows::{JobRow, NodeRow};
use crate::store::{Batch, Seq, Store, StoreError, TABLES_N, Table, shift_client_status};
use crate::wire::http::{Method, Request};

/// A request that waits for its reply; the shell's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One fact.
#[derive(Debug)]
pub enum Event {
    /// A request whose body has been collected.
    Request {
        /// Its number.
        id: RequestId,
        /// It.
        request: Request,
        /// Ports something on this machine listens on, for writes that may place allocations.
        busy_ports: Vec<u16>,
    },
    /// The client went away before its reply.
    Gone(RequestId),
    /// Everything up to this batch is durable.
    Committed(Seq),
    /// A batch could not be made durable; the store thread keeps it and tries again.
    CommitFailed {
        /// The newest batch it holds.
        seq: Seq,
        /// Why.
        text: String,
    },
    /// News of an invocation.
    News {
        /// The allocation.
        alloc: AllocId,
        /// The task.
        task: String,
        /// The invocation.
        inv: Inv,
        /// What happened.
        news: News,
    },
    /// The folder of a finished allocation is gone.
    Removed(AllocId),
    /// The time of the last [`Effect::WakeAt`] has come. Harmless when early.
    Due,
    /// Somebody has put the wall clock. Harmless when nobody has.
    ClockStepped,
    /// Stop all tasks by their kill rules, then [`Effect::Exit`] (`-dev`, decision 27).
    Shutdown,
}

/// What the core wants of a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Ask the task to end; SIGKILL at the deadline.
    Stop {
        /// Signal number.
        signal: i32,
        /// Time until SIGKILL.
        timeout_ms: u64,
    },
    /// Send a signal to the main process.
    Signal {
        /// Signal number.
        signal: i32,
    },
}

/// One consequence.
#[derive(Debug)]
pub enum Effect {
    /// Make this durable, then say so.
    Commit(Batch),
    /// Answer a request.
    Respond {
        /// Its number.
        id: RequestId,
        /// The answer.
        reply: Reply,
    },
    /// Start an invocation; its supervisor's news come as [`Event::News`].
    Launch(Box<Launch>),
    /// Talk to an invocation's supervisor.
    Supervise {
        /// The invocation.
        inv: Inv,
        /// What to say.
        op: Op,
    },
    /// Remove what is left of an ended invocation: its runtime folder and, with the last invocation of a task, the task's cgroups.
    Forget {
        /// Its allocation.
        alloc: AllocId,
        /// Its task.
        task: String,
        /// The invocation.
        inv: Inv,
        /// The task does not start again. Its next invocation uses the same cgroups, so they go with the last one only.
        is_last: bool,
    },
    /// Remove the folder of an allocation; readers of its files are told that it is gone.
    Remove(AllocId),
    /// Send [`Event::Due`] at this time; replaces the last one. `None` = no need.
    WakeAt(Option<Mono>),
    /// All tasks have ended after [`Event::Shutdown`].
    Exit,
}

/// What waits for a commit.
#[derive(Debug)]
enum Held {
    Effect(Effect),
    /// The reply to whoever asked for what the batch holds: a promise, if it is kept.
    Promise(RequestId, Reply),
    /// The allocation may begin.
    Begin(AllocId),
}

/// A blocking query.
#[derive(Debug)]
struct Waiter {
    id: RequestId,
    request: Request,
    table: Table,
    due: Mono,
}

/// A restart that is answered when the old processes have ended.
#[derive(Debug)]
struct Restarting {
    id: RequestId,
    reply: Reply,
    /// The batch that holds what was asked for.
    seq: Seq,
    alloc: AllocId,
    invs: Vec<Inv>,
    /// It is answered then in any case: a process may be beyond reach of every signal.
    due: Mono,
}

/// Time a restart waits beyond the longest kill timeout.
const RESTART_GRACE_MS: u64 = 5_000;
/// How often it is looked whether the store can be read again.
const BLIND_MS: u64 = 1_000;

/// Who this agent is and what it may use: fixed for its life.
#[derive(Debug)]
pub struct Setting {
    /// Configuration.
    pub config: Config,
    /// Bounds.
    pub budget: Budget,
    /// The node.
    pub node: Node,
    /// The machine's time zones.
    pub zones: Box<dyn Zones>,
    /// The agent's own environment, for tasks that may see it.
    pub host_env: BTreeMap<String, String>,
    /// Where allocations' folders are.
    pub alloc_root: String,
}

/// The whole agent.
pub struct Core {
    setting: Setting,
    store: Store,
    rng: Rng,
    runs: Runs,
    deploys: Deploys,
    sweep: Sweep,
    damping: Damping,
    /// When evaluations that wait for their time are run.
    delays: BTreeMap<EvalId, Mono>,
    held: BTreeMap<Seq, Vec<Held>>,
    /// Waits for the batch that will carry the soft rows.
    held_soft: Vec<Held>,
    /// Newest batch handed out, newest known durable.
    sealed: Seq,
    durable: Seq,
    waiters: Vec<Waiter>,
    /// The tables' indexes when waiters were last looked at: what is put at any time since wakes them.
    told: [u64; TABLES_N],
    restarts: Vec<Restarting>,
    periodic: Periodic,
    disk_error: Option<String>,
    /// Facts that came while the store could not be read. Few: nothing is started then, so each task ends once.
    unseen: VecDeque<Event>,
    is_shutting_down: bool,
    /// Ended allocations whose folders are still there, oldest first.
    ended: VecDeque<AllocId>,
    /// Folders that are being removed.
    removing: BTreeSet<AllocId>,
    /// Children that have ended, oldest first.
    ended_children: VecDeque<JobKey>,
    wake_at: Option<Mono>,
    out: VecDeque<Effect>,
}

impl Core {
    /// The agent over its store. Call [`Core::restore`] next.
    #[must_use]
    pub fn new(setting: Setting, store: Store, rng: Rng) -> Self {
        Self {
            runs: Runs::new(Site::of(&setting.node, &setting.budget).room),
            setting,
            store,
            rng,
            deploys: Deploys::default(),
            sweep: Sweep::default(),
            damping: Damping::default(),
            delays: BTreeMap::new(),
            held: BTreeMap::new(),
            held_soft: Vec::new(),
            sealed: Seq(0),
            durable: Seq(0),
            waiters: Vec::new(),
            told: [0; TABLES_N],
            restarts: Vec::new(),
            periodic: Periodic::default(),
            disk_error: None,
            unseen: VecDeque::new(),
            is_shutting_down: false,
            ended: VecDeque::new(),
            removing: BTreeSet::new(),
            ended_children: VecDeque::new(),
            wake_at: None,
            out: VecDeque::new(),
        }
    }

    /// The node's row exists from its first start on.
    fn register_node(&mut self, now: Now) -> Result<(), StoreError> {
        if self.store.view().node()?.is_none() {
            let index = self.store.next_index();
            let row = NodeRow { create_index: index, modify_index: index, status_updated_at: now.wall, ..NodeRow::default() };
            self.store.put_node(&row);
        }
        Ok(())
    }

    /// Registers a job named on the command line (decision 28). Gives its id and the warnings.
    ///
    /// # Errors
    /// What the API would have answered.
    pub fn register(&mut self, now: Now, text: &[u8]) -> Result<(String, String), ApiError> {
        let registered = self.operate(now, &[], |cx| api::jobs::register_at_start(cx, text));
        match &registered {
            Ok((key, _)) => {
                self.sweep.kept.insert(key.clone());
            }
            Err(_) => self.store.abort(),
        }
        self.settle(now, None);
        self.set_timer(now);
        registered.map(|(key, warnings)| (key.id, warnings))
    }

    /// Takes one fact. Drain [`Core::poll`] before the next. While the store cannot be read nothing is decided: facts wait.
    pub fn handle(&mut self, now: Now, event: Event) {
        if self.store.is_readable() {
            for fact in std::mem::take(&mut self.unseen) {
                self.take(now, fact);
            }
            self.take(now, event);
        } else {
            match event {
                Event::Request { .. } | Event::Gone(_) | Event::Committed(_) | Event::CommitFailed { .. } => self.take(now, event),
                Event::Due => {}
                fact => self.unseen.push_back(fact),
            }
        }
        self.set_timer(now);
    }

    fn take(&mut self, now: Now, event: Event) {
        match event {
            Event::Request { id, request, busy_ports } => self.request(now, id, request, &busy_ports),
            Event::Gone(id) => {
                self.waiters.retain(|waiter| waiter.id != id);
                self.restarts.retain(|restart| restart.id != id);
            }
            Event::Committed(seq) => self.committed(now, seq),
            Event::CommitFailed { seq, text } => self.commit_failed(seq, text),
            Event::News { alloc, task, inv, news } => {
                if self.runs.has(alloc) {
                    self.runs.news(now, &mut self.rng, alloc, &task, inv, news);
                } else if !matches!(news, News::Running { .. }) {
                    self.out.push_back(Effect::Forget { alloc, task, inv, is_last: true });
                }
                self.settle(now, None);
            }
            Event::Removed(alloc) => {
                log::debug!("alloc {alloc}: folder removed");
                self.removing.remove(&alloc);
                let followed = self.sweep_followed(alloc).map(|_| ());
                self.settle_step(now, followed);
            }
            Event::Due => self.due(now),
            Event::ClockStepped => {
                self.clock_stepped(now);
                self.launch_due(now);
            }
            Event::Shutdown => {
                self.is_shutting_down = true;
                self.runs.stop_all(now, &mut self.rng);
                self.settle(now, None);
            }
        }
    }

    /// The agent ends and its tasks run on: soft rows are committed too, so that the next agent shows what this one has shown.
    pub fn close(&mut self, now: Now) {
        if self.damping.due().is_some() {
            // Somebody wants it so: what follows is no loop.
            self.store.set_reboots_n(self.store.reboots_n().saturating_sub(1));
        }
        self.seal(now, None);
    }

    /// The next consequence; `None` when drained.
    pub fn poll(&mut self) -> Option<Effect> {
        self.out.pop_front()
    }

    /// The rows a list body may show now: `None` while a batch is on its way to the disk (invariant I3). A disk that takes nothing
    /// does not stop reads: what is in memory is all there is.
    #[must_use]
    pub fn shown(&self) -> Option<crate::store::view::View<'_>> {
        (self.durable >= self.sealed || self.disk_error.is_some()).then(|| self.store.view())
    }

    /// The configuration and the node.
    #[must_use]
    pub fn setting(&self) -> &Setting {
        &self.setting
    }

    /// Runs `act` as an operation of the API would run. The batch is left open.
    fn operate<T>(&mut self, now: Now, busy_ports: &[u16], act: impl FnOnce(&mut Cx<'_>) -> T) -> T {
        let Self { setting, store, runs, rng, disk_error, .. } = self;
        // Machines draw from a generator of their own, so that the store's borrow and theirs do not meet.
        let mut task_rng = Rng::new(&mut Fork(rng));
        let mut tasks = runs.as_tasks(now, &mut task_rng);
        let (bytes, max) = (store.file_bytes(), setting.budget.store_bytes_max);
        let no_room = if bytes > max {
            Some(format!("the store is full ({bytes} of {max} bytes): stop and purge jobs, or collect finished allocations"))
        } else {
            (!store.has_room()).then(|| "the disk is full: stop jobs, collect finished allocations, or remove files".to_owned())
        };
        act(&mut Cx {
            now,
            store,
            rng,
            node: &setting.node,
            config: &setting.config,
            budget: &setting.budget,
            zones: &*setting.zones,
            busy_ports,
            trouble: disk_error.as_ref().map(|why| format!("the store cannot be written: {why}")).or_else(|| no_room.clone()),
            no_room,
            tasks: &mut tasks,
        })
    }

    fn request(&mut self, now: Now, id: RequestId, request: Request, busy_ports: &[u16]) {
        let is_write = !matches!(request.method, Method::Get | Method::Head | Method::Options);
        if is_write && let Some(refusal) = self.refuse_write() {
            return self.out.push_back(Effect::Respond { id, reply: api::refusal(refusal, Vec::new()) });
        }
        let outcome = self.operate(now, busy_ports, |cx| api::dispatch(cx, &request, true));
        let restarted =
            self.runs.take_restarted().filter(|(_, invs)| !invs.is_empty() && self.restarts.len() < self.setting.budget.waiters_max);
        match outcome {
            Outcome::Reply(reply) => {
                if reply.head.status >= 400 {
                    self.store.abort();
                } else if is_write {
                    for id in self.damping.release() {
                        self.runs.may_begin(id);
                    }
                }
                let Some((alloc, invs)) = restarted else { return self.settle(now, Some((id, reply))) };
                let longest_ms = u64::try_from(self.setting.config.max_kill_timeout.as_millis()).unwrap_or(u64::MAX);
                let due = now.mono.after_ms(longest_ms.saturating_add(RESTART_GRACE_MS));
                self.restarts.push(Restarting { id, reply, seq: self.store.next_seq(), alloc, invs, due });
                self.settle(now, None);
            }
            Outcome::Block { .. } if self.waiters.len() >= self.setting.budget.waiters_max => {
                self.reply(id, api::refusal(ApiError::new(429, "too many concurrent requests"), Vec::new()));
            }
            Outcome::Block { wait_ms, table } => {
                self.store.abort();
                self.waiters.push(Waiter { id, request, table, due: now.mono.after_ms(wait_ms) });
            }
        }
    }

    /// Why no write is taken now; `None` = it is.
    fn refuse_write(&self) -> Option<ApiError> {
        if let Some(why) = &self.disk_error {
            return Some(ApiError::new(500, format!("the store cannot be written, nothing was changed: {why}")));
        }
        let (held_n, max) = (self.held.len(), self.setting.budget.batches_max);
        (held_n >= max).then(|| ApiError::new(429, "too many concurrent requests"))
    }

    /// A reply to a read, which may have seen what a batch on its way to the disk holds: it waits for that batch.
    fn reply(&mut self, id: RequestId, reply: Reply) {
        self.hold(self.sealed, Held::Effect(Effect::Respond { id, reply }));
    }

    fn hold(&mut self, seq: Seq, held: Held) {
        let is_read = matches!(held, Held::Effect(Effect::Respond { .. }));
        if seq <= self.durable || (is_read && self.disk_error.is_some()) {
            self.release(held);
        } else {
            self.held.entry(seq).or_default().push(held);
        }
    }

    fn release(&mut self, held: Held) {
        match held {
            Held::Effect(effect) => self.out.push_back(effect),
            Held::Promise(id, reply) => self.out.push_back(Effect::Respond { id, reply }),
            Held::Begin(alloc) => self.runs.may_begin(alloc),
        }
    }

    fn committed(&mut self, now: Now, seq: Seq) {
        self.disk_error = None;
        self.durable = self.durable.max(seq);
        self.store.committed(seq);
        let later = self.held.split_off(&Seq(seq.0 + 1));
        for held in std::mem::replace(&mut self.held, later).into_values().flatten() {
            match held {
                // It was told to stop while it waited for its own commit: it does not start at all.
                Held::Effect(Effect::Launch(launch)) if self.runs.withdraw(now, &mut self.rng, &launch) => hit!("launch_withdrawn"),
                held => self.release(held),
            }
        }
        self.settle(now, None);
    }

    /// The decisions stand in memory and are tried again; who asked is told that they are not safe yet.
    fn commit_failed(&mut self, seq: Seq, text: String) {
        log::error!("store: batch {} could not be written: {text}; it is kept in memory and tried again", seq.0);
        for held in self.held.values_mut() {
            // Starts and stops stay held: they happen when they are safe. Nobody is left waiting for an answer.
            let answered = held.extract_if(.., |held| matches!(held, Held::Promise(..) | Held::Effect(Effect::Respond { .. })));
            for held in answered {
                self.out.push_back(match held {
                    Held::Promise(id, _) => {
                        let why = format!("accepted but not yet stored, and lost if the power fails now: {text}");
                        Effect::Respond { id, reply: api::refusal(ApiError::new(500, why), Vec::new()) }
                    }
                    Held::Effect(effect) => effect,
                    Held::Begin(_) => continue,
                });
            }
        }
        self.disk_error = Some(text);
    }

    fn due(&mut self, now: Now) {
        self.runs.due(now, &mut self.rng);
        let (begins, is_healthy) = self.damping.pass(now.mono);
        for id in begins {
            self.runs.may_begin(id);
        }
        if is_healthy {
            self.store.set_reboots_n(0);
        }
        self.due_evals(now);
        let late: Vec<Waiter> = self.waiters.extract_if(.., |waiter| waiter.due <= now.mono).collect();
        for waiter in late {
            self.answer_waiter(now, waiter, false);
        }
        self.settle(now, None);
        self.launch_due(now);
        if self.store.soft_due(&self.setting.budget).is_some_and(|due| due <= now.mono) {
            let batch = self.store.flush_soft(now, &self.setting.budget);
            self.hand_over(batch, None);
        }
    }

    fn answer_waiter(&mut self, now: Now, waiter: Waiter, may_block: bool) {
        match self.operate(now, &[], |cx| api::dispatch(cx, &waiter.request, may_block)) {
            Outcome::Reply(reply) => self.reply(waiter.id, reply),
            Outcome::Block { .. } => self.waiters.push(waiter),
        }
    }

    fn set_timer(&mut self, now: Now) {
        let waiters = self.waiters.iter().map(|waiter| waiter.due).min();
        let soft = self.store.soft_due(&self.setting.budget);
        let restarts = self.restarts.iter().map(|restart| restart.due).min();
        let delays = self.delays.values().min().copied();
        let machines = [self.runs.next_due(), self.deploys.next_due(), self.sweep.next_due(), self.damping.due(), self.periodic.due()];
        let mut next = machines.into_iter().chain([delays, waiters, restarts, soft]).flatten().min();
        if !self.store.is_readable() {
            next = Some(now.mono.after_ms(BLIND_MS));
        }
        if next != self.wake_at {
            self.wake_at = next;
            self.out.push_back(Effect::WakeAt(next));
        }
    }

    /// Draws all conclusions from what was put and from what the machines did, then seals it. `reply` waits for the result.
    fn settle(&mut self, now: Now, reply: Option<(RequestId, Reply)>) {
        let mut durability = if self.store.is_clean() { None } else { Some(Durability::C0) };
        if let Err(error) = self.conclude(now, &mut durability) {
            // Rows that cannot be read: what was decided so far is kept in memory and told to whoever asked.
            log::error!("{error}");
            self.store.abort();
            let reply = reply.map(|(id, _)| (id, api::refusal(error.into(), Vec::new())));
            return self.seal(now, reply);
        }
        match durability {
            Some(Durability::C0) => self.seal(now, reply),
            Some(Durability::C1) => {
                self.store.seal_soft(now);
                self.send(reply);
            }
            None => self.send(reply),
        }
        self.wake_waiters(now);
        self.answer_restarts(now);
        if self.is_shutting_down && self.runs.is_empty() {
            self.out.push_back(Effect::Exit);
        }
    }

    fn answer_restarts(&mut self, now: Now) {
        let Self { restarts, runs, .. } = self;
        let over: Vec<Restarting> =
            restarts.extract_if(.., |restart| restart.due <= now.mono || !runs.is_restarting(restart.alloc, &restart.invs)).collect();
        for Restarting { id, reply, seq, .. } in over {
            // It may be over because of something newer, and what was asked for not be durable: a promise until then.
            let held = if seq > self.durable { Held::Promise(id, reply) } else { Held::Effect(Effect::Respond { id, reply }) };
            self.hold(self.sealed, held);
        }
    }

    fn table_indexes(&self) -> [u64; TABLES_N] {
        [Table::Jobs, Table::Evals, Table::Allocs, Table::Nodes, Table::Deployments].map(|table| self.store.table_index(table))
    }

    fn wake_waiters(&mut self, now: Now) {
        let after = self.table_indexes();
        let before = std::mem::replace(&mut self.told, after);
        if after == before {
            return;
        }
        let woken: Vec<Waiter> =
            self.waiters.extract_if(.., |waiter| after[waiter.table as usize] != before[waiter.table as usize]).collect();
        for waiter in woken {
            self.answer_waiter(now, waiter, true);
        }
    }

    fn send(&mut self, reply: Option<(RequestId, Reply)>) {
        if let Some((id, reply)) = reply {
            self.reply(id, reply);
        }
    }

    fn promise(&mut self, reply: Option<(RequestId, Reply)>) {
        if let Some((id, reply)) = reply {
            self.hold(self.sealed, Held::Promise(id, reply));
        }
    }

    fn seal(&mut self, now: Now, reply: Option<(RequestId, Reply)>) {
        let batch = self.store.seal(now);
        self.hand_over(batch, reply);
    }

    fn hand_over(&mut self, batch: Option<Batch>, reply: Option<(RequestId, Reply)>) {
        if let Some(batch) = batch {
            self.sealed = batch.seq;
            let soft = std::mem::take(&mut self.held_soft);
            self.held.entry(batch.seq).or_default().extend(soft);
            self.out.push_back(Effect::Commit(batch));
            self.promise(reply);
        } else {
            self.send(reply);
        }
    }

    /// Starts and stops what rows ask for, stores what machines did, and again, until nothing moves.
    fn conclude(&mut self, now: Now, durability: &mut Option<Durability>) -> Result<(), StoreError> {
        loop {
            for id in self.store.take_touched() {
                self.follow_row(now, id)?;
            }
            if let Some(id) = self.runs.next_dirty(now, &mut self.rng) {
                if self.store_run(now, id, durability)? {
                    self.capacity_changed(now, durability)?;
                }
            } else if !self.follow_deployments(now, durability)? {
                break;
            }
        }
        if self.store.take_new_delays() {
            self.note_delays(now)?;
        }
        let has_put = self.collect(now)? | self.collect_children()?;
        self.follow_jobs(now)?;
        if has_put {
            *durability = (*durability).max(Some(Durability::C1));
        }
        Ok(())
    }

    /// Watches deployments, and looks again at what has failed under one that is over: while it went on, it alone replaced. True when
    /// there were some.
    fn follow_deployments(&mut self, now: Now, durability: &mut Option<Durability>) -> Result<bool, StoreError> {
        let touched = self.store.take_touched_deployments();
        for id in &touched {
            let Some(deployment) = self.store.view().deployment(*id)? else { continue };
            self.deploys.note(now, &deployment);
            if deployment.status.is_active() {
                continue;
            }
            let of_it = self.store.view().edition_allocs(&deployment.job, deployment.edition)?;
            for alloc in of_it.iter().filter(|alloc| alloc.client_status == ClientStatus::Failed && alloc.next.is_nil()) {
                self.alloc_failed(now, alloc, durability)?;
            }
        }
        Ok(!touched.is_empty())
    }

    /// Brings the machine of an allocation in line with its row.
    fn follow_row(&mut self, now: Now, id: AllocId) -> Result<(), StoreError> {
        let Some(alloc) = self.store.view().alloc(id)? else { return Ok(()) };
        if alloc.is_over() {
            return Ok(());
        }
        if !self.runs.has(id) {
            let spec = launch::spec(&self.store.view(), &alloc, &self.setting)?;
            self.runs.add_new(now, &alloc, spec);
            self.held.entry(self.store.next_seq()).or_default().push(Held::Begin(id));
        } else if !self.runs.is_current(&alloc) {
            let spec = launch::spec(&self.store.view(), &alloc, &self.setting)?;
            self.runs.update(now, &alloc, spec);
        }
        if alloc.desired != Desired::Run {
            self.runs.stop(now, &mut self.rng, id, alloc.no_shutdown_delay);
        }
        Ok(())
    }

    /// Stores what a machine did and hands its effects out. True when an allocation has ended: there is room again.
    fn store_run(&mut self, now: Now, id: AllocId, durability: &mut Option<Durability>) -> Result<bool, StoreError> {
        // First of all: a machine tells what it did once, and a disk that cannot be read must not take it away.
        let stored = self.store.view().alloc(id).inspect_err(|_| self.runs.look_again(id))?;
        let Some(outcome) = self.runs.take(now, id) else { return Ok(false) };
        let version = stored.as_ref().map_or(0, |alloc| alloc.edition.version);
        let mut has_ended = false;
        if let Some(class) = outcome.changed {
            *durability = (*durability).max(Some(class));
            if let Some(mut alloc) = stored {
                alloc.modify_index = self.store.next_index();
                alloc.modify_at = now.wall;
                for (entry, (state, memo)) in alloc.tasks.iter_mut().zip(outcome.tasks) {
                    entry.state = state;
                    entry.memo = memo;
                }
                outcome.status.1.clone_into(&mut alloc.client_description);
                let before = alloc.client_status;
                shift_client_status(&mut self.store, &mut alloc, outcome.status.0)?;
                if let Some(is_healthy) = outcome.is_healthy {
                    let health = alloc.health.get_or_insert_default();
                    let was = health.is_healthy;
                    *health = Health { is_healthy: Some(is_healthy), at_ns: now.wall.0, modify_index: alloc.modify_index, ..*health };
                    deploy::note_health(&mut self.store, now, &alloc, was)?;
                }
                self.store.put_alloc(&alloc);
                has_ended = alloc.is_over();
                if before != alloc.client_status || has_ended {
                    self.update_job_status(&alloc.job, alloc.modify_index)?;
                }
                if has_ended {
                    self.sweep.want();
                    self.ended.push_back(id);
                    self.runs.remove(id);
                }
                // The row was put by the machine: it needs no second look.
                self.store.take_touched();
                if before != alloc.client_status && alloc.client_status == ClientStatus::Failed {
                    self.alloc_failed(now, &alloc, durability)?;
                }
            }
        }
        let is_c0 = outcome.changed == Some(Durability::C0);
        if is_c0 {
            self.runs.set_intent(id, self.store.next_seq());
        }
        for effect in outcome.effects {
            self.hand_out(now, id, version, effect, is_c0);
        }
        Ok(has_ended && outcome.status.0 != ClientStatus::Running)
    }

    /// What the newest version of its job says of a failed allocation.
    fn reschedule_policy(&self, row: &JobRow, alloc: &Allocation) -> Result<Option<ReschedulePolicy>, StoreError> {
        let Some(version) = self.store.view().job_version(&alloc.job, row.edition())? else { return Ok(None) };
        let job = Job::from_json(version.spec.as_bytes()).map_err(|_| StoreError::Corrupt { kind: "job version" })?;
        Ok(job.group(&alloc.group).and_then(|group| group.reschedule_policy.clone()))
    }

    /// An allocation has failed: its reschedule policy decides, in an evaluation, whether it is replaced.
    fn alloc_failed(&mut self, now: Now, alloc: &Allocation, durability: &mut Option<Durability>) -> Result<(), StoreError> {
        let Some(row) = self.store.view().job(&alloc.job)?.filter(|row| !row.is_stopped) else { return Ok(()) };
        let policy = self.reschedule_policy(&row, alloc)?;
        let is_wanted = alloc.desired == Desired::Run && alloc.followup_eval.is_nil();
        if self.is_shutting_down || !is_wanted || policy.is_none_or(|policy| reschedule::due_at(&policy, alloc).is_none()) {
            return Ok(());
        }
        let index = self.store.next_index();
        let eval = Evaluation {
            job: alloc.job.clone(),
            job_type: row.stub.kind,
            priority: row.stub.priority,
            trigger: Trigger::AllocFailure,
            ..Evaluation::made(EvalId(self.rng.uuid()), index, now.wall)
        };
        self.store.add_eval(&eval);
        self.operate(now, &[], |cx| cx.process(eval))?;
        *durability = Some(Durability::C0);
        Ok(())
    }

    /// Evaluations that wait for their time get it on the monotonic clock, never longer than they were made to wait.
    fn note_delays(&mut self, now: Now) -> Result<(), StoreError> {
        for eval in self.store.view().delayed_evals()? {
            let wait_ms = u64::try_from(eval.wait_until.0.saturating_sub(now.wall.0) / 1_000_000).unwrap_or(0).min(eval.wait_max_ms);
            self.delays.entry(eval.id).or_insert_with(|| now.mono.after_ms(wait_ms));
        }
        Ok(())
    }

    /// Runs the evaluations whose time has come, and looks at the deployments that are due.
    fn due_evals(&mut self, now: Now) {
        let due: Vec<EvalId> = self.delays.iter().filter(|(_, at)| **at <= now.mono).map(|(id, _)| *id).collect();
        for id in due {
            self.delays.remove(&id);
            let ran = self.store.view().eval(id).and_then(|eval| match eval.filter(|eval| eval.status == EvalStatus::Pending) {
                Some(eval) => self.operate(now, &[], |cx| cx.process(eval)).map(|_| ()),
                None => Ok(()),
            });
            self.settle_step(now, ran);
        }
        while let Some((id, is_late)) = self.deploys.take_due(now.mono) {
            let ran = self.operate(now, &[], |cx| {
                let moved = cx.deploy().look(id, is_late)?;
                moved.eval.map_or(Ok(()), |eval| cx.process(eval).map(|_| ()))
            });
            self.settle_step(now, ran);
        }
    }

    /// A step that nobody asked for: rows that cannot be read are told in the log, and what it had put is dropped.
    fn settle_step(&mut self, now: Now, ran: Result<(), StoreError>) {
        if let Err(error) = ran {
            log::error!("{error}");
            self.store.abort();
        }
        self.settle(now, None);
    }

    fn update_job_status(&mut self, key: &crate::model::alloc::JobKey, index: u64) -> Result<(), StoreError> {
        let Some(mut row) = self.store.view().job(key)? else { return Ok(()) };
        let status = job_status(&self.store, key, &row)?;
        if status != row.status {
            row.status = status;
            row.modify_index = index;
            self.store.put_job(key, &row);
        }
        Ok(())
    }

    fn hand_out(&mut self, now: Now, alloc: AllocId, version: u64, effect: runs::TaskEffect, is_c0: bool) {
        use runs::TaskEffect;
        let held = match effect {
            TaskEffect::Launch { task, inv, window } => {
                let sources = launch::Sources { runs: &self.runs, setting: &self.setting, view: self.store.view() };
                match launch::launch(&sources, alloc, version, task, inv, window) {
                    Some(Ok(launch)) => Held::Effect(Effect::Launch(Box::new(launch))),
                    Some(Err(error)) => {
                        self.runs.launch_failed(now, &mut self.rng, alloc, task, inv, error);
                        return;
                    }
                    None => return,
                }
            }
            TaskEffect::Supervise { inv, op } => Held::Effect(Effect::Supervise { inv, op }),
            TaskEffect::Consumed { task, inv, is_last } => {
                // The folder is the evidence of what the rows say: it goes when they are durable, soft or not.
                self.held_soft.push(Held::Effect(Effect::Forget { alloc, task, inv, is_last }));
                return;
            }
        };
        // What justifies it is in this batch, or in an earlier one that may still be on its way to the disk.
        self.hold(if is_c0 { self.store.next_seq() } else { self.runs.intent(alloc) }, held);
    }

    /// An allocation has ended: blocked evaluations are tried again, and what waited for its room may begin.
    fn capacity_changed(&mut self, now: Now, durability: &mut Option<Durability>) -> Result<(), StoreError> {
        if self.is_shutting_down {
            return Ok(());
        }
        if self.operate(now, &[], |cx| cx.process_blocked())? {
            *durability = Some(Durability::C0);
        }
        Ok(())
    }
}

/// Number of the signal nobody survives.
const SIGKILL: i32 = 9;

/// Seeds a second generator from the first.
struct Fork<'a>(&'a mut Rng);

impl dunlin_hal::entropy::Entropy for Fork<'_> {
    fn seed(&mut self, seed: &mut [u8; 32]) {
        for chunk in seed.chunks_exact_mut(8) {
            chunk.copy_from_slice(&self.0.word().to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests;
