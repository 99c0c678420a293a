//! The allocations that are alive here: one machine each, and what they want done.
//!
//! Never: rows, commits, order across allocations (that is the core's).

use std::collections::{BTreeMap, BTreeSet};

use dunlin_hal::clock::{Mono, Now};
use dunlin_hal::entropy::Rng;
use dunlin_runtime::alloc::machine::{Alloc, Event, RestartAsk};
use dunlin_runtime::event::{ClientStatus, TaskPhase, TaskState};
use dunlin_runtime::id::{AllocId, Inv};
use dunlin_runtime::spec::AllocSpec;
use dunlin_runtime::task::machine::{Durability, Effect, News, TaskMemo};
use dunlin_runtime::task::restart::Window;

use super::Op;
use crate::api::Tasks;
use crate::api::error::ApiError;
use crate::model::alloc::Allocation;

/// One living allocation.
struct Run {
    machine: Alloc,
    /// The allocation it replaces and whose end it waits for: two generations of a task never run at once.
    waits_for: Option<AllocId>,
    /// Its row is durable.
    may_begin: bool,
    has_begun: bool,
}

/// All of them.
#[derive(Default)]
pub struct Runs {
    all: BTreeMap<AllocId, Run>,
    dirty: BTreeSet<AllocId>,
    /// Folders to remove, asked for through the API.
    collect: Vec<AllocId>,
    /// What the restart asked for last is waiting for.
    restarted: Option<(AllocId, Vec<Inv>)>,
}

/// What one machine did since it was last looked at.
pub(super) struct Took {
    pub(super) changed: Option<Durability>,
    pub(super) tasks: Vec<(TaskState, TaskMemo)>,
    pub(super) status: (ClientStatus, &'static str),
    pub(super) effects: Vec<TaskEffect>,
}

/// A machine's effect with the names the shell needs.
pub(super) enum TaskEffect {
    Launch { task: usize, inv: Inv, window: Window },
    Supervise { inv: Inv, op: Op },
    Consumed { task: String, inv: Inv, is_last: bool },
}

impl Runs {
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
        let waits_for = Some(alloc.previous).filter(|previous| !previous.is_nil() && self.has(*previous));
        self.all.insert(alloc.id, Run { machine: Alloc::new(spec, now), waits_for, may_begin: false, has_begun: false });
    }

    /// An allocation of an earlier life of the agent. Feed what was found with [`Runs::restored`], then [`Runs::may_begin`].
    pub(super) fn add_restored(&mut self, alloc: &Allocation, spec: AllocSpec, is_stopping: bool) {
        let states = alloc.tasks.iter().map(|task| task.state.clone()).collect();
        let memos = alloc.tasks.iter().map(|task| task.memo).collect();
        let machine = Alloc::restore(spec, states, memos, is_stopping);
        self.all.insert(alloc.id, Run { machine, waits_for: None, may_begin: false, has_begun: false });
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

    /// A launch that could not even be put together.
    pub(super) fn launch_failed(&mut self, now: Now, rng: &mut Rng, id: AllocId, task: usize, inv: Inv, error: String) {
        if let Some(run) = self.all.get_mut(&id) {
            run.machine.handle(now, rng, Event::News { task, inv, news: News::LaunchFailed { error, is_recoverable: false } });
            self.dirty.insert(id);
        }
    }

    pub(super) fn stop(&mut self, now: Now, rng: &mut Rng, id: AllocId, no_shutdown_delay: bool) {
        if let Some(run) = self.all.get_mut(&id) {
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
        }
    }

    pub(super) fn next_due(&self) -> Option<Mono> {
        self.all.values().filter_map(|run| run.machine.due()).min()
    }

    /// The next allocation to look at, begun if it may.
    pub(super) fn next_dirty(&mut self, now: Now, rng: &mut Rng) -> Option<AllocId> {
        let id = self.dirty.pop_first()?;
        if let Some(run) = self.all.get_mut(&id)
            && run.may_begin
            && !run.has_begun
            && run.waits_for.is_none()
        {
            run.has_begun = true;
            run.machine.handle(now, rng, Event::Run);
        }
        Some(id)
    }

    /// It was not looked at after all.
    pub(super) fn look_again(&mut self, id: AllocId) {
        self.dirty.insert(id);
    }

    /// What the machine did; `None` = there is no such machine.
    pub(super) fn take(&mut self, id: AllocId) -> Option<Took> {
        let run = self.all.get_mut(&id)?;
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
        Some(Took { changed, tasks, status: run.machine.client_status(), effects })
    }

    /// The allocation has ended; whoever waited for it may begin.
    pub(super) fn remove(&mut self, id: AllocId) {
        self.all.remove(&id);
        for (other, run) in &mut self.all {
            if run.waits_for == Some(id) {
                run.waits_for = None;
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

    fn running(&self, alloc: AllocId) -> Vec<String> {
        let Some(run) = self.runs.all.get(&alloc) else { return Vec::new() };
        let tasks = run.machine.spec().tasks.iter().zip(run.machine.states());
        tasks.filter(|(_, state)| state.phase == TaskPhase::Running).map(|(spec, _)| spec.name.clone()).collect()
    }
}
