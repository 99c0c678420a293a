//! The allocations that are alive here: one machine each, and what they want done.
//!
//! Never: rows, commits, order across allocations (that is the core's).

use std::collections::{BTreeMap, BTreeSet};

use dunlin_hal::clock::{Mono, Now};
use dunlin_hal::entropy::Rng;
use dunlin_runtime::alloc::health::{Verdict, Watch};
use dunlin_runtime::alloc::machine::{Alloc, Event, RestartAsk};
use dunlin_runtime::driver::Launch;
use dunlin_runtime::event::{ClientStatus, EventKind, TaskPhase, TaskState};
use dunlin_runtime::id::{AllocId, DeploymentId, Inv};
use dunlin_runtime::spec::AllocSpec;
use dunlin_runtime::task::machine::{Durability, Effect, News, TaskMemo};
use dunlin_runtime::task::restart::Window;

use super::Op;
use crate::api::Tasks;
use crate::api::error::ApiError;
use crate::model::alloc::{Allocation, Desired, Edition};
use crate::sched::place::Room;
use crate::store::Seq;

/// One living allocation.
struct Run {
    machine: Alloc,
    /// Allocations whose end it waits for: the one it replaces, as two generations of a task never run at once, and those that make
    /// room for it.
    waits_for: Vec<AllocId>,
    /// Whether it is healthy, while its deployment wants to know.
    watch: Option<Watch>,
    deployment: DeploymentId,
    edition: Edition,
    /// The newest batch that holds a decision about it.
    intent: Seq,
    /// Its row is durable.
    may_begin: bool,
    has_begun: bool,
}

/// All of them.
#[derive(Default)]
pub struct Runs {
    all: BTreeMap<AllocId, Run>,
    /// What all together may use.
    room: Room,
    dirty: BTreeSet<AllocId>,
    /// Folders to remove, asked for through the API.
    collect: Vec<AllocId>,
    /// A user wants all that is over to be forgotten.
    collects_all: bool,
    /// What the restart asked for last is waiting for.
    restarted: Option<(AllocId, Vec<Inv>)>,
}

/// What one machine did since it was last looked at.
pub(super) struct Took {
    pub(super) changed: Option<Durability>,
    pub(super) tasks: Vec<(TaskState, TaskMemo)>,
    pub(super) status: (ClientStatus, &'static str),
    /// What its deployment hears, once.
    pub(super) is_healthy: Option<bool>,
    pub(super) effects: Vec<TaskEffect>,
}

/// A machine's effect with the names the shell needs.
pub(super) enum TaskEffect {
    Launch { task: usize, inv: Inv, window: Window },
    Supervise { inv: Inv, op: Op },
    Consumed { task: String, inv: Inv, is_last: bool },
}

/// A watch over the health of an allocation, if somebody wants to know it and does not yet.
fn watch(now: Now, alloc: &Allocation, spec: &AllocSpec) -> Option<Watch> {
    // Nobody asks how one does that is being stopped.
    let is_asked = !alloc.deployment.is_nil()
        && alloc.desired == Desired::Run
        && alloc.health.as_ref().is_none_or(|health| health.is_healthy.is_none());
    spec.health.filter(|_| is_asked).map(|rule| Watch::new(rule, now))
}

impl Run {
    fn of(alloc: &Allocation, machine: Alloc, watch: Option<Watch>) -> Self {
        Self {
            machine,
            waits_for: Vec::new(),
            watch,
            deployment: alloc.deployment,
            edition: alloc.edition,
            intent: Seq(0),
            may_begin: false,
            has_begun: false,
        }
    }

    /// It has begun, or its tasks have outlived the agent.
    fn is_here(&self) -> bool {
        self.has_begun || self.machine.is_out()
    }

    fn watching(&self) -> Option<&Watch> {
        self.watch.as_ref().filter(|_| self.has_begun)
    }

    /// Looks at its health; what is found is said once, with an event on each task to blame.
    fn look(&mut self, now: Now) -> Option<bool> {
        let roles = self.machine.spec().tasks.iter().map(|task| task.role);
        let verdict = self.watch.as_mut().filter(|_| self.has_begun)?.look(now, roles.zip(self.machine.states()))?;
        self.watch = None;
        match verdict {
            Verdict::Healthy => Some(true),
            Verdict::Unhealthy(texts) => {
                for (task, message) in texts {
                    self.machine.tell(now, task, EventKind::Unhealthy { message });
                }
                Some(false)
            }
        }
    }
}

impl Runs {
    /// None yet; together they may use `room`.
    pub(super) fn new(room: Room) -> Self {
        Self { room, ..Self::default() }
    }

    pub(super) fn has(&self, id: AllocId) -> bool {
        self.all.contains_key(&id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn spec(&self, id: AllocId) -> Option<&AllocSpec> {
        self.all.get(&id).map(|run| run.machine.spec())
    }

    /// A new allocation; it begins when its row is durable and its predecessor has ended.
    pub(super) fn add_new(&mut self, now: Now, alloc: &Allocation, spec: AllocSpec) {
        let waits_for = alloc.preempted.iter().chain([&alloc.previous]).copied().filter(|id| self.has(*id)).collect();
        let watch = watch(now, alloc, &spec);
        self.all.insert(alloc.id, Run { waits_for, ..Run::of(alloc, Alloc::new(spec, now), watch) });
    }

    /// It begins after these have ended.
    pub(super) fn wait_for(&mut self, id: AllocId, others: impl Iterator<Item = AllocId>) {
        let living: Vec<AllocId> = others.filter(|other| self.has(*other)).collect();
        if let Some(run) = self.all.get_mut(&id) {
            run.waits_for.extend(living);
        }
    }

    /// The batch in which the newest decision about an allocation is stored: what follows from it waits for that.
    pub(super) fn intent(&self, id: AllocId) -> Seq {
        self.all.get(&id).map_or(Seq(0), |run| run.intent)
    }

    /// A decision about an allocation goes into this batch.
    pub(super) fn set_intent(&mut self, id: AllocId, seq: Seq) {
        if let Some(run) = self.all.get_mut(&id) {
            run.intent = seq;
        }
    }

    /// How often a task was restarted so far.
    pub(super) fn restarts_n(&self, id: AllocId, task: usize) -> u64 {
        self.all.get(&id).and_then(|run| run.machine.states().get(task)).map_or(0, |state| state.restarts_n)
    }

    /// An allocation of an earlier life of the agent. Feed what was found with [`Runs::restored`], then [`Runs::may_begin`].
    pub(super) fn add_restored(&mut self, now: Now, alloc: &Allocation, spec: AllocSpec, is_stopping: bool) {
        let states = alloc.tasks.iter().map(|task| task.state.clone()).collect();
        let memos = alloc.tasks.iter().map(|task| task.memo).collect();
        let watch = watch(now, alloc, &spec);
        self.all.insert(alloc.id, Run::of(alloc, Alloc::restore(spec, states, memos, is_stopping), watch));
    }

    pub(super) fn restored(&mut self, now: Now, rng: &mut Rng, id: AllocId, event: Event) {
        if let Some(run) = self.all.get_mut(&id) {
            run.machine.handle(now, rng, event);
            self.dirty.insert(id);
        }
    }

    pub(super) fn may_begin(&mut self, id: AllocId) {
        if let Some(run) = self.all.get_mut(&id) {
            run.may_begin = true;
            self.dirty.insert(id);
        }
    }

    pub(super) fn news(&mut self, now: Now, rng: &mut Rng, id: AllocId, task: &str, inv: Inv, news: News) {
        let Some(run) = self.all.get_mut(&id) else { return };
        if let Some(task) = run.machine.spec().tasks.iter().position(|spec| spec.name == task) {
            run.machine.handle(now, rng, Event::News { task, inv, news });
            self.dirty.insert(id);
        }
    }

    /// Takes a launch back that has not happened, if its task is to end. True: it must not happen.
    pub(super) fn withdraw(&mut self, now: Now, rng: &mut Rng, launch: &Launch) -> bool {
        let Some(run) = self.all.get_mut(&launch.alloc) else { return false };
        let was_withdrawn = run.machine.withdraw(now, rng, &launch.task, launch.inv);
        if was_withdrawn {
            self.dirty.insert(launch.alloc);
        }
        was_withdrawn
    }

    /// A launch that could not even be put together.
    pub(super) fn launch_failed(&mut self, now: Now, rng: &mut Rng, id: AllocId, task: usize, inv: Inv, error: String) {
        if let Some(run) = self.all.get_mut(&id) {
            run.machine.handle(now, rng, Event::News { task, inv, news: News::LaunchFailed { error, is_recoverable: false } });
            self.dirty.insert(id);
        }
    }

    /// It goes on under another version of its job, whose spec makes the same processes.
    pub(super) fn update(&mut self, now: Now, alloc: &Allocation, spec: AllocSpec) {
        if let Some(run) = self.all.get_mut(&alloc.id) {
            if run.deployment != alloc.deployment {
                run.deployment = alloc.deployment;
                run.watch = watch(now, alloc, &spec);
            }
            run.edition = alloc.edition;
            run.machine.update(spec);
            self.dirty.insert(alloc.id);
        }
    }

    /// True when it runs this version of its job already.
    pub(super) fn is_current(&self, alloc: &Allocation) -> bool {
        self.all.get(&alloc.id).is_some_and(|run| run.edition == alloc.edition && run.deployment == alloc.deployment)
    }

    pub(super) fn stop(&mut self, now: Now, rng: &mut Rng, id: AllocId, no_shutdown_delay: bool) {
        if let Some(run) = self.all.get_mut(&id) {
            // Nobody asks any more how it does.
            run.watch = None;
            run.machine.handle(now, rng, Event::Stop { reason: String::new(), no_shutdown_delay });
            self.dirty.insert(id);
        }
    }

    pub(super) fn stop_all(&mut self, now: Now, rng: &mut Rng) {
        for id in self.all.keys().copied().collect::<Vec<_>>() {
            self.stop(now, rng, id, true);
        }
    }

    pub(super) fn due(&mut self, now: Now, rng: &mut Rng) {
        for (id, run) in &mut self.all {
            if run.machine.due().is_some_and(|due| due <= now.mono) {
                run.machine.handle(now, rng, Event::Due);
                self.dirty.insert(*id);
            }
            if run.watching().is_some_and(|watch| watch.due() <= now.mono) {
                self.dirty.insert(*id);
            }
        }
    }

    pub(super) fn next_due(&self) -> Option<Mono> {
        self.all.values().flat_map(|run| run.machine.due().into_iter().chain(run.watching().map(Watch::due))).min()
    }

    /// The next allocation to look at, begun if it may.
    pub(super) fn next_dirty(&mut self, now: Now, rng: &mut Rng) -> Option<AllocId> {
        // Who is here goes first: it may be leaving, which who is not waits for.
        let is_here = |id: &&AllocId| self.all.get(*id).is_some_and(Run::is_here);
        let id = *self.dirty.iter().find(is_here).or_else(|| self.dirty.first())?;
        self.dirty.remove(&id);
        let is_ready = self.all.get(&id).is_some_and(|run| run.may_begin && !run.has_begun && run.waits_for.is_empty());
        if is_ready
            && self.has_place(id)
            && let Some(run) = self.all.get_mut(&id)
        {
            run.has_begun = true;
            // Its time begins with it, not with its predecessor's end.
            run.watch = run.watch.take().map(|watch| watch.again(now));
            run.machine.handle(now, rng, Event::Run);
        }
        Some(id)
    }

    /// True unless those that are leaving still have what it needs: the scheduler has given that away already, as upstream does, but a
    /// port has one owner at a time, and memory is short. Who is leaving itself waits only for those who are here.
    fn has_place(&self, id: AllocId) -> bool {
        let Some(mine) = self.all.get(&id).map(|run| &run.machine) else { return false };
        let counts = |run: &Run| run.is_here() || (run.machine.is_ending() && !mine.is_ending());
        let others = || self.all.iter().filter(|(other, run)| **other != id && counts(run)).map(|(_, run)| &run.machine);
        if !others().any(Alloc::is_ending) {
            return true;
        }
        let used = others().fold(Room::default(), |used, other| used.plus(Room::of_spec(other.spec())));
        let is_tight = used.plus(Room::of_spec(mine.spec())).exhausted_in(self.room).is_some();
        let shares_port =
            |other: &Alloc| other.spec().ports.iter().any(|port| mine.spec().ports.iter().any(|mine| mine.value == port.value));
        !is_tight && !others().any(|other| other.is_ending() && shares_port(other))
    }

    /// It was not looked at after all.
    pub(super) fn look_again(&mut self, id: AllocId) {
        self.dirty.insert(id);
    }

    /// What the machine did; `None` = there is no such machine.
    pub(super) fn take(&mut self, now: Now, id: AllocId) -> Option<Took> {
        let run = self.all.get_mut(&id)?;
        let is_healthy = run.look(now);
        let mut changed = None;
        let mut effects = Vec::new();
        while let Some(effect) = run.machine.poll() {
            match effect {
                Effect::Changed(class) => changed = changed.max(Some(class)),
                Effect::Launch { task, inv, window } => effects.push(TaskEffect::Launch { task, inv, window }),
                Effect::Stop { inv, signal, timeout_ms, .. } => {
                    effects.push(TaskEffect::Supervise { inv, op: Op::Stop { signal, timeout_ms } })
                }
                Effect::Signal { inv, signal, .. } => effects.push(TaskEffect::Supervise { inv, op: Op::Signal { signal } }),
                Effect::Consumed { task, inv } => {
                    let is_last = run.machine.states().get(task).is_some_and(|state| state.phase == TaskPhase::Dead);
                    let task = run.machine.spec().tasks.get(task).map(|spec| spec.name.clone()).unwrap_or_default();
                    effects.push(TaskEffect::Consumed { task, inv, is_last });
                }
            }
        }
        let tasks = run.machine.states().iter().cloned().zip(run.machine.memos().iter().copied()).collect();
        if is_healthy.is_some() {
            changed = changed.max(Some(Durability::C1));
        }
        Some(Took { changed, tasks, status: run.machine.client_status(), is_healthy, effects })
    }

    /// The allocation has ended; whoever waited for it, or for its place, may begin. What it was waiting for itself is waited for by
    /// its successor.
    pub(super) fn remove(&mut self, id: AllocId) {
        let before = self.all.remove(&id).map(|run| run.waits_for).unwrap_or_default();
        for (other, run) in &mut self.all {
            if run.waits_for.contains(&id) {
                run.waits_for.retain(|waits_for| *waits_for != id);
                run.waits_for.extend(&before);
            }
            if !run.has_begun {
                self.dirty.insert(*other);
            }
        }
    }

    /// The invocations whose ends the restart asked for in this turn waits for; none for any other request.
    pub(super) fn take_restarted(&mut self) -> Option<(AllocId, Vec<Inv>)> {
        self.restarted.take()
    }

    /// True as long as one of these invocations has not ended.
    pub(super) fn is_restarting(&self, id: AllocId, invs: &[Inv]) -> bool {
        let run = self.all.get(&id);
        run.is_some_and(|run| run.machine.restarting(RestartAsk::All).iter().any(|inv| invs.contains(inv)))
    }

    pub(super) fn take_collects_all(&mut self) -> bool {
        std::mem::take(&mut self.collects_all)
    }

    pub(super) fn take_collect(&mut self) -> Vec<AllocId> {
        std::mem::take(&mut self.collect)
    }

    pub(super) fn as_tasks<'a>(&'a mut self, now: Now, rng: &'a mut Rng) -> Asked<'a> {
        Asked { runs: self, now, rng }
    }
}

/// What operations of the API ask of running tasks.
pub(super) struct Asked<'a> {
    runs: &'a mut Runs,
    now: Now,
    rng: &'a mut Rng,
}

impl Tasks for Asked<'_> {
    fn signal(&mut self, alloc: AllocId, task: &str, signal: i32, name: &str) -> Result<(), ApiError> {
        let run = self.runs.all.get_mut(&alloc).ok_or_else(|| ApiError::new(500, "Task not running"))?;
        self.runs.dirty.insert(alloc);
        run.machine.signal(self.now, task, signal, name).map_err(|refusal| ApiError::new(500, refusal.to_string()))
    }

    fn restart(&mut self, alloc: AllocId, ask: RestartAsk<'_>) -> Result<(), ApiError> {
        let run = self.runs.all.get_mut(&alloc).ok_or_else(|| ApiError::new(500, "restart of an alloc that should not run"))?;
        self.runs.dirty.insert(alloc);
        run.machine.restart(self.now, self.rng, ask).map_err(|refusal| ApiError::new(500, refusal.to_string()))?;
        self.runs.restarted = Some((alloc, run.machine.restarting(ask)));
        Ok(())
    }

    fn collect(&mut self, alloc: AllocId) {
        self.runs.collect.push(alloc);
    }

    fn collect_all(&mut self) {
        self.runs.collects_all = true;
    }

    fn running(&self, alloc: AllocId) -> Vec<String> {
        let Some(run) = self.runs.all.get(&alloc) else { return Vec::new() };
        let tasks = run.machine.spec().tasks.iter().zip(run.machine.states());
        tasks.filter(|(_, state)| state.phase == TaskPhase::Running).map(|(spec, _)| spec.name.clone()).collect()
    }
}
