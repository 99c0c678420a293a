//! One allocation: its tasks together. Pure: decides who starts, who must end and in which order; does nothing itself.
//!
//! Shape: [`Event`]s and what users ask -> [`Effect`]s, task states and the client status. Call [`Alloc::poll`] until it is empty
//! after every call that returns.
//! A new allocation: `new`, commit, `Run`. A restored one: `restore`, then for every folder found `Adopted` (oldest first) and for
//! every other task that is not dead `Missing`, then `Run`; nothing is started before `Run`.
//! Order of a kill: the leader alone, then the others, then sidecars; tasks that come last are never killed.
//! Invariant: no launch while one of the same task may live; dead tasks stay dead, but for a restart of all and a reboot.
//! Units: in the names.   Errors: [`Refusal`], whose texts are the API's.
//! Source: `spec/runtime.md` 1.2, 2.2, 2.3, 6.6; upstream v2.0.5 client/allocrunner/alloc_runner.go (behaviour only).

use core::fmt;

use dunlin_hal::clock::{Mono, Now};
use dunlin_hal::entropy::Rng;

use crate::event::{ClientStatus, EventKind, TaskEvent, TaskPhase, TaskState};
use crate::id::Inv;
use crate::spec::{AllocSpec, Role, TaskSpec};
use crate::task::lifecycle::Stage;
use crate::task::machine::{Durability, Effect, News, Out, Task, TaskMemo, Turn};
use crate::task::restart::Window;

/// A fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The allocation may act: it is committed (new), or all that was found is reported (restored).
    Run,
    /// News of an invocation.
    News {
        /// Index of the task.
        task: usize,
        /// The invocation.
        inv: Inv,
        /// What happened.
        news: News,
    },
    /// The moment of [`Alloc::due`] has come. Harmless when early.
    Due,
    /// The allocation is to be stopped. A repeat may only skip the shutdown delays.
    Stop {
        /// For the `Killing` events; empty = a plain stop.
        reason: String,
        /// Shutdown delays, running ones too, are skipped.
        no_shutdown_delay: bool,
    },
    /// The folders of the allocation could not be made. Comes instead of `Run`.
    SetupFailed {
        /// Why.
        error: String,
    },
    /// Restored: a runtime folder of this task was found. A lost one whose record tells of a start is `Adopted` as `Running`,
    /// then its `News` is `Lost`.
    Adopted {
        /// Index of the task.
        task: usize,
        /// The invocation.
        inv: Inv,
        /// Where its record says the restart policy stood; `None` = it does not.
        window: Option<Window>,
        /// What its record tells; `None` = its supervisor lives and has not begun.
        news: Option<News>,
        /// Another folder of the task follows: whatever its end would mean today, it was restarted then.
        is_followed: bool,
        /// The machine was started anew since the rows were stored.
        was_rebooted: bool,
    },
    /// Restored: no runtime folder of this task was found.
    Missing {
        /// Index of the task.
        task: usize,
        /// The machine was started anew since the state was stored.
        was_rebooted: bool,
    },
}

/// Which tasks a user wants restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartAsk<'a> {
    /// All that run.
    Running,
    /// This one.
    One(&'a str),
    /// All, dead ones too, in the order of their roles.
    All,
}

impl<'a> RestartAsk<'a> {
    /// Reads the fields `TaskName` and `AllTasks` of a request.
    ///
    /// # Errors
    /// When both are given.
    pub fn new(task_name: &'a str, is_all: bool) -> Result<Self, Refusal> {
        match (task_name.is_empty(), is_all) {
            (true, false) => Ok(Self::Running),
            (true, true) => Ok(Self::All),
            (false, false) => Ok(Self::One(task_name)),
            (false, true) => Err(Refusal::NameWithAll),
        }
    }
}

/// Why a user's ask was refused. `Display` is the text of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The allocation is over, or is being stopped.
    ShouldNotRun,
    /// A restart of all tasks names one.
    NameWithAll,
    /// There is no such task to restart.
    NoTaskRunner {
        /// Its name.
        task: String,
    },
    /// There is no such task to signal.
    NoTask,
    /// The task does not run.
    NotRunning,
    /// Of all tasks, these could not be signalled; the others were.
    NotSignaled {
        /// Their names.
        tasks: Vec<String>,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShouldNotRun => f.write_str("restart of an alloc that should not run"),
            Self::NameWithAll => f.write_str("task name cannot be set when restarting all tasks"),
            Self::NoTaskRunner { task } => write!(f, "Could not find task runner for task: {task}"),
            Self::NoTask => f.write_str("Task not found"),
            Self::NotRunning => f.write_str("Task not running"),
            Self::NotSignaled { tasks } => {
                match tasks.len() {
                    1 => f.write_str("1 error occurred:\n")?,
                    n => writeln!(f, "{n} errors occurred:")?,
                }
                for task in tasks {
                    writeln!(f, "\t* Failed to signal task: {task}, err: Task not running")?;
                }
                f.write_str("\n")
            }
        }
    }
}

/// Why and how all tasks are being ended.
#[derive(Debug, Default)]
struct Kill {
    reason: String,
    skips_delay: bool,
}

/// One allocation.
#[derive(Debug)]
pub struct Alloc {
    spec: AllocSpec,
    /// One a task, as are the next two.
    tasks: Vec<Task>,
    states: Vec<TaskState>,
    memos: Vec<TaskMemo>,
    stage: Stage,
    /// Set once and kept: whoever is not last ends and never starts again.
    kill: Option<Kill>,
    has_begun: bool,
    /// It was to be stopped before it began: there is nothing to clean up, and its place may still be another's.
    is_void: bool,
    was_rebooted: bool,
    late_n: u64,
    out: Out,
}

impl Alloc {
    /// A new allocation: every task `Received`. Commit its states with it, then [`Event::Run`].
    #[must_use]
    pub fn new(spec: AllocSpec, now: Now) -> Self {
        let received = TaskState { events: vec![TaskEvent { at: now.wall, kind: EventKind::Received }], ..TaskState::default() };
        let memo = TaskMemo { consumed: Inv::default(), window: Window::new(now.mono) };
        let n = spec.tasks.len();
        Self {
            tasks: spec.tasks.iter().map(|_| Task::new()).collect(),
            states: vec![received; n],
            memos: vec![memo; n],
            stage: Stage::Init,
            kill: None,
            has_begun: false,
            is_void: false,
            was_rebooted: false,
            late_n: 0,
            out: Out::default(),
            spec,
        }
    }

    /// An allocation read from the store; `states` and `memos` in the order of the tasks. `is_stopping`: its stored desire is to stop.
    #[must_use]
    pub fn restore(spec: AllocSpec, mut states: Vec<TaskState>, mut memos: Vec<TaskMemo>, is_stopping: bool) -> Self {
        let n = spec.tasks.len();
        states.resize_with(n, TaskState::default);
        memos.resize(n, TaskMemo::default());
        Self {
            tasks: states.iter().map(Task::restore).collect(),
            states,
            memos,
            // Not Init: tasks that run already would hold it up.
            stage: Stage::Prestart,
            kill: is_stopping.then(Kill::default),
            has_begun: false,
            is_void: false,
            was_rebooted: false,
            late_n: 0,
            out: Out::default(),
            spec,
        }
    }

    /// Takes one fact.
    pub fn handle(&mut self, now: Now, rng: &mut Rng, event: Event) {
        match event {
            Event::Run => self.begin(now, rng),
            Event::News { task, inv, news } => {
                let was_taken = self.turn(task, now).is_some_and(|mut turn| turn.news(rng, inv, news));
                if !was_taken {
                    self.late_n = self.late_n.saturating_add(1);
                }
            }
            Event::Due => self.each(now, |turn| turn.due()),
            Event::Stop { reason, no_shutdown_delay } => {
                // One that never ran, or has nothing to clean up, ends at once; else it waits for its place, and for what is found.
                let has_run = self.states.iter().any(|state| !state.started_at.is_unset() || state.restarts_n > 0);
                self.is_void |= !self.has_begun && !has_run;
                let cleans_up = !self.is_void && self.spec.tasks.iter().any(|spec| spec.role == Role::Poststop);
                self.has_begun |= !cleans_up && !self.tasks.iter().any(Task::is_unknown);
                let kill = self.kill.get_or_insert(Kill { reason, skips_delay: false });
                kill.skips_delay |= no_shutdown_delay;
                if no_shutdown_delay {
                    self.each(now, |turn| turn.skip_delay());
                }
            }
            Event::SetupFailed { error } => self.each(now, |turn| turn.fail_setup(&error)),
            Event::Adopted { task, inv, window, news, is_followed, was_rebooted } => {
                if let Some(mut turn) = self.turn(task, now) {
                    turn.adopt(rng, inv, window, news, is_followed, was_rebooted);
                }
            }
            Event::Missing { task, was_rebooted } => {
                self.was_rebooted |= was_rebooted;
                let is_stopping = self.kill.is_some();
                if let Some(mut turn) = self.turn(task, now) {
                    turn.missing(rng, was_rebooted, is_stopping);
                }
            }
        }
        self.advance(now, rng);
    }

    /// The next effect; `None` when all are taken.
    pub fn poll(&mut self) -> Option<Effect> {
        self.out.poll()
    }

    /// When [`Event::Due`] is wanted.
    #[must_use]
    pub fn due(&self) -> Option<Mono> {
        self.tasks.iter().filter_map(Task::due).min()
    }

    /// Restarts tasks because a user asked.
    ///
    /// # Errors
    /// [`Refusal`]; then nothing has changed.
    pub fn restart(&mut self, now: Now, rng: &mut Rng, ask: RestartAsk<'_>) -> Result<(), Refusal> {
        if !matches!(ask, RestartAsk::One(_)) && (self.kill.is_some() || self.client_status().0.is_terminal()) {
            return Err(Refusal::ShouldNotRun);
        }
        match ask {
            RestartAsk::Running => self.each(now, |turn| {
                turn.restart("User requested running tasks to restart");
            }),
            RestartAsk::One(name) => {
                let unknown = || Refusal::NoTaskRunner { task: name.to_owned() };
                let mut turn = self.turn(self.index(name).ok_or_else(unknown)?, now).ok_or_else(unknown)?;
                if !turn.restart("User requested task to restart") {
                    return Err(Refusal::NotRunning);
                }
            }
            RestartAsk::All => {
                self.stage = Stage::Init;
                self.each(now, |turn| turn.restart_any("User requested all tasks to restart"));
            }
        }
        self.advance(now, rng);
        Ok(())
    }

    /// Sends a signal to one task, or with an empty name to all. `name` is the signal's, for the event.
    ///
    /// # Errors
    /// [`Refusal`]. [`Refusal::NotSignaled`]: the tasks it does not name got the signal.
    pub fn signal(&mut self, now: Now, task: &str, signal: i32, name: &str) -> Result<(), Refusal> {
        if !task.is_empty() {
            let i = self.index(task).ok_or(Refusal::NoTask)?;
            let was_sent = self.turn(i, now).is_some_and(|mut turn| turn.signal(signal, name));
            return if was_sent { Ok(()) } else { Err(Refusal::NotRunning) };
        }
        let mut missed = Vec::new();
        self.each(now, |turn| {
            if !turn.signal(signal, name) {
                missed.push(turn.spec.name.clone());
            }
        });
        if missed.is_empty() { Ok(()) } else { Err(Refusal::NotSignaled { tasks: missed }) }
    }

    /// Says something on one task, in words of the allocation's owner.
    pub fn tell(&mut self, now: Now, task: usize, kind: EventKind) {
        if let Some(mut turn) = self.turn(task, now) {
            turn.push(kind, Durability::C1);
        }
    }

    /// Goes on under another spec of the same processes: what may differ are rules, such as those of restarts and kills.
    pub fn update(&mut self, spec: AllocSpec) {
        let is_same =
            spec.tasks.len() == self.spec.tasks.len() && spec.tasks.iter().zip(&self.spec.tasks).all(|(new, old)| new.name == old.name);
        if is_same {
            self.spec = spec;
        }
    }

    /// Takes a launch back that the caller has not carried out yet, if its task is to end: it is dead then, without having run. False:
    /// the launch is still wanted.
    pub fn withdraw(&mut self, now: Now, rng: &mut Rng, task: &str, inv: Inv) -> bool {
        let was_withdrawn = self.index(task).and_then(|i| self.turn(i, now)).is_some_and(|mut turn| turn.withdraw(inv));
        if was_withdrawn {
            self.advance(now, rng);
        }
        was_withdrawn
    }

    /// The invocations of these tasks that are ending because a restart was asked for.
    #[must_use]
    pub fn restarting(&self, ask: RestartAsk<'_>) -> Vec<Inv> {
        let is_asked = |name: &str| !matches!(ask, RestartAsk::One(one) if one != name);
        self.spec.tasks.iter().zip(&self.tasks).filter(|(spec, _)| is_asked(&spec.name)).filter_map(|(_, task)| task.restarting()).collect()
    }

    /// True when it is on its way out: its tasks are being ended, or only the last ones are left.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        let tasks = self.spec.tasks.iter().zip(&self.states);
        self.kill.is_some() || tasks.filter(|(spec, _)| spec.role != Role::Poststop).all(|(_, state)| state.phase == TaskPhase::Dead)
    }

    /// True while a process of one of its tasks is, or may be, there.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.tasks.iter().any(Task::is_out)
    }

    /// What it runs.
    #[must_use]
    pub fn spec(&self) -> &AllocSpec {
        &self.spec
    }

    /// The states to show and store, in the order of the tasks.
    #[must_use]
    pub fn states(&self) -> &[TaskState] {
        &self.states
    }

    /// What is stored beside them, in the same order.
    #[must_use]
    pub fn memos(&self) -> &[TaskMemo] {
        &self.memos
    }

    /// True when every task is dead. A status may be `failed` earlier, while others are still being ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.tasks.iter().all(Task::is_dead)
    }

    /// News that came too late or from another life, so far.
    #[must_use]
    pub fn late_n(&self) -> u64 {
        self.late_n
    }

    /// The client status and its description (`spec/runtime.md` 1.2).
    #[must_use]
    pub fn client_status(&self) -> (ClientStatus, &'static str) {
        client_status(&self.states)
    }

    fn begin(&mut self, now: Now, rng: &mut Rng) {
        let is_stopping = self.kill.is_some();
        self.each(now, |turn| turn.missing(rng, false, is_stopping));
        if self.was_rebooted && !is_stopping {
            // What the preparing tasks made may be gone; they run again when a main task does.
            let has_main = self.spec.tasks.iter().zip(&self.tasks).any(|(spec, task)| spec.role == Role::Main && !task.is_dead());
            self.each(now, |turn| {
                let has_prepared = turn.spec.role == (Role::Prestart { is_sidecar: false }) && turn.task.is_dead() && !turn.state.is_failed;
                if has_main && has_prepared {
                    turn.rebooted(false);
                }
            });
        }
        self.was_rebooted = false;
        self.has_begun = true;
    }

    /// Draws all conclusions from the states: who must end, which stage is reached, who starts.
    fn advance(&mut self, now: Now, rng: &mut Rng) {
        if !self.has_begun || self.tasks.iter().any(Task::is_unknown) {
            return;
        }
        // Another round only when a launch ended at once: at most one a task.
        loop {
            self.find_cause(now);
            self.kill_in_order(now);
            self.stage = self.stage.settle(self.spec.tasks.iter().map(|spec| spec.role).zip(&self.states));
            let (stage, is_killed, is_void) = (self.stage, self.kill.is_some(), self.is_void);
            let mut has_died = false;
            self.each(now, |turn| {
                let may_run = stage.opens(turn.spec.role) && (!is_killed || (turn.spec.role == Role::Poststop && !is_void));
                if may_run && turn.task.is_waiting() {
                    turn.launch(rng);
                    has_died |= turn.task.is_dead();
                }
            });
            if !has_died {
                return;
            }
        }
    }

    /// Ends the allocation when the leader is done, a task has failed, or only sidecars are left; says so on the live tasks.
    fn find_cause(&mut self, now: Now) {
        if self.kill.is_some() {
            return;
        }
        let tasks = || self.spec.tasks.iter().zip(&self.states).filter(|(spec, _)| spec.role != Role::Poststop);
        let is_live = |state: &TaskState| state.phase != TaskPhase::Dead;
        let live_n = tasks().filter(|(_, state)| is_live(state)).count();
        if live_n == 0 {
            return;
        }
        let cause = if tasks().any(|(spec, state)| spec.is_leader && !is_live(state) && !state.is_failed) {
            EventKind::LeaderDead
        } else if let Some((spec, _)) = tasks().find(|(_, state)| !is_live(state) && state.is_failed) {
            EventKind::SiblingFailed { task: spec.name.clone() }
        } else if tasks().all(|(spec, state)| !is_live(state) || spec.role.is_sidecar()) {
            EventKind::MainTasksDead
        } else {
            return;
        };
        self.kill = Some(Kill::default());
        self.each(now, |turn| {
            // A restarted agent finds the cause again, and the event already there.
            let mut life = turn.state.events.iter().rev().take_while(|e| !matches!(e.kind, EventKind::Restarting { .. }));
            let is_told = life.any(|e| is_cause(&e.kind));
            if turn.spec.role != Role::Poststop && !turn.task.is_dead() && !is_told {
                turn.push(cause.clone(), Durability::C1);
            }
        });
    }

    /// Kills the first of leader, others, sidecars that is not dead yet.
    fn kill_in_order(&mut self, now: Now) {
        let Some(Kill { reason, skips_delay }) = self.kill.take() else { return };
        let is_void = self.is_void;
        for rank in [0, 1, 2] {
            let mut has_live = false;
            self.each(now, |turn| {
                if kill_rank(turn.spec).or(is_void.then_some(2)) == Some(rank) {
                    turn.kill(&reason, skips_delay);
                    has_live |= !turn.task.is_dead();
                }
            });
            if has_live {
                break;
            }
        }
        self.kill = Some(Kill { reason, skips_delay });
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.spec.tasks.iter().position(|spec| spec.name == name)
    }

    fn turn(&mut self, i: usize, now: Now) -> Option<Turn<'_>> {
        Some(Turn {
            i,
            now,
            spec: self.spec.tasks.get(i)?,
            task: self.tasks.get_mut(i)?,
            state: self.states.get_mut(i)?,
            memo: self.memos.get_mut(i)?,
            out: &mut self.out,
        })
    }

    fn each(&mut self, now: Now, mut act: impl FnMut(&mut Turn<'_>)) {
        for i in 0..self.tasks.len() {
            if let Some(mut turn) = self.turn(i, now) {
                act(&mut turn);
            }
        }
    }
}

/// Whose turn it is in a kill; `None` = never.
fn kill_rank(spec: &TaskSpec) -> Option<u8> {
    match spec.role {
        Role::Poststop => None,
        _ if spec.is_leader => Some(0),
        role => Some(if role.is_sidecar() { 2 } else { 1 }),
    }
}

fn is_cause(kind: &EventKind) -> bool {
    matches!(kind, EventKind::LeaderDead | EventKind::MainTasksDead | EventKind::SiblingFailed { .. })
}

/// The client status of task states, and its description (`spec/runtime.md` 1.2).
#[must_use]
pub fn client_status(states: &[TaskState]) -> (ClientStatus, &'static str) {
    let any = |phase| states.iter().any(|state| state.phase == phase);
    if states.iter().any(|state| state.phase == TaskPhase::Dead && state.is_failed) {
        (ClientStatus::Failed, "Failed tasks")
    } else if any(TaskPhase::Running) {
        (ClientStatus::Running, "Tasks are running")
    } else if any(TaskPhase::Pending) {
        (ClientStatus::Pending, "No tasks have started")
    } else if any(TaskPhase::Dead) {
        (ClientStatus::Complete, "All tasks have completed")
    } else {
        (ClientStatus::Pending, "")
    }
}

#[cfg(test)]
mod tests;
