//! One task of an allocation: what it is doing and what follows from news about it. Pure: decides; starts and signals nothing.
//!
//! Shape: news, asks and deadlines -> events in the [`TaskState`], the [`TaskMemo`], and [`Effect`]s.
//! ```text
//! Unknown --(folder found)--> Launching --Running--> Running --ended--+--> Waiting   restart at once, when the gate is open
//!    |                            ^                                   +--> Backoff   restart after the policy's delay
//!    +--(none)--> Waiting --------+                                   +--> Dead
//! ```
//! What a restarted agent needs is in the state and the memo: a `Killing` or `Restart Signaled` event is the intent, the time of
//! the last `Restarting` or `Waiting for shutdown delay` event says what is left of the delay.
//! Invariant: at most one invocation is wanted at a time; news of any other is dropped (I7); one end makes one `Terminated`.
//! Units: in the names.   Errors: none.
//! Source: `spec/runtime.md` 1.1, 1.4, 2.1, 2.3, 6.5, 6.6; upstream v2.0.5 client/allocrunner/taskrunner (behaviour only).

use std::collections::VecDeque;

use dunlin_hal::clock::{Mono, Now, Wall};
use dunlin_hal::entropy::Rng;
use dunlin_hal::hit;

use super::restart::{self, End, Verdict, Window};
use crate::event::{EventKind, TaskEvent, TaskPhase, TaskState};
use crate::id::Inv;
use crate::spec::{Role, TaskSpec};

/// What is stored of a task beside its [`TaskState`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskMemo {
    /// The newest invocation whose end is in the state; its runtime folder is only to be removed. `Inv(0)` = none yet.
    pub consumed: Inv,
    /// Where the restart policy stands. Means nothing after a reboot.
    pub window: Window,
}

/// What happened to one invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// The program runs.
    Running {
        /// When it was started.
        started_at: Wall,
        /// Its process id; the machine does not use it.
        pid: u32,
    },
    /// The program could not be started. Nothing of this invocation is left but its folder.
    LaunchFailed {
        /// The text of the `Driver Failure` event.
        error: String,
        /// Another attempt may go better.
        is_recoverable: bool,
    },
    /// The program ran and ended.
    Exited {
        /// 0..=255, or 128 + signal.
        code: i32,
        /// Signal number; 0 = none.
        signal: i32,
        /// The kernel killed it for memory.
        oom_killed: bool,
        /// Empty = none.
        message: String,
        /// When it was started.
        started_at: Wall,
        /// When it ended.
        finished_at: Wall,
    },
    /// The supervisor is gone and its record does not tell how the program ended.
    Lost,
}

impl News {
    /// When the program was started; `None` = it was not, or nobody knows.
    #[must_use]
    pub fn started_at(&self) -> Option<Wall> {
        match self {
            Self::Running { started_at, .. } | Self::Exited { started_at, .. } if !started_at.is_unset() => Some(*started_at),
            Self::Running { .. } | Self::Exited { .. } | Self::LaunchFailed { .. } | Self::Lost => None,
        }
    }

    /// When the program ended; `None` = it has not, or nobody knows.
    #[must_use]
    pub fn finished_at(&self) -> Option<Wall> {
        match self {
            Self::Exited { finished_at, .. } if !finished_at.is_unset() => Some(*finished_at),
            _ => None,
        }
    }
}

/// How soon a change must be on disk (`spec/runtime.md` 6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// With the next commit; shown at once.
    C1,
    /// Before the effects that follow it, and before anybody sees it.
    C0,
}

/// What is to be done. Effects come in the order in which they must be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// States or memos changed: commit them.
    Changed(Durability),
    /// Start a new invocation. Answered by exactly one `Running`, `LaunchFailed`, `Exited` or `Lost`.
    Launch {
        /// Index of the task.
        task: usize,
        /// The new invocation.
        inv: Inv,
        /// For the invocation's record, so that an agent's crash does not grant fresh attempts.
        window: Window,
    },
    /// Ask the program to end; the supervisor escalates. Safe to repeat: the first deadline counts.
    Stop {
        /// Index of the task.
        task: usize,
        /// The invocation.
        inv: Inv,
        /// Signal number.
        signal: i32,
        /// Time until SIGKILL.
        timeout_ms: u64,
    },
    /// Send a signal to the main process.
    Signal {
        /// Index of the task.
        task: usize,
        /// The invocation.
        inv: Inv,
        /// Signal number.
        signal: i32,
    },
    /// The end of this invocation is in the state: remove its folder, once every change before this effect is on disk (C1 too).
    Consumed {
        /// Index of the task.
        task: usize,
        /// The invocation.
        inv: Inv,
    },
}

/// Effects not yet taken. Bound: the caller drains it after every fact; one fact makes at most four effects a task.
#[derive(Debug, Default)]
pub struct Out {
    changed: Option<Durability>,
    queue: VecDeque<Effect>,
}

impl Out {
    /// The next effect. A change comes before everything it justifies (I3).
    pub fn poll(&mut self) -> Option<Effect> {
        self.changed.take().map(Effect::Changed).or_else(|| self.queue.pop_front())
    }

    fn change(&mut self, durability: Durability) {
        self.changed = self.changed.max(Some(durability));
    }
}

/// What a task is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Restored; nobody has said yet what was found of it.
    Unknown,
    /// Starts when its gate is open.
    Waiting,
    /// Starts after the policy's delay.
    Backoff { due: Mono },
    /// Launched, no news yet.
    Launching { inv: Inv },
    /// A process exists.
    Running { inv: Inv },
    /// Over.
    Dead,
}

/// What is wanted of the invocation that is launching or running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// That it runs.
    Run,
    /// That it ends and another follows.
    Restart,
    /// That it ends for good after the shutdown delay.
    KillAt { due: Mono },
    /// That it ends for good. A launching one gets its shutdown delay first, unless that is skipped.
    Kill { skips_delay: bool },
}

impl Want {
    fn is_kill(self) -> bool {
        matches!(self, Self::KillAt { .. } | Self::Kill { .. })
    }
}

/// The volatile half of a task; the stored half is its [`TaskState`] and [`TaskMemo`].
#[derive(Debug)]
pub struct Task {
    life: Life,
    want: Want,
    /// An earlier life of the agent has restarted it after the present invocation.
    is_followed: bool,
}

impl Task {
    /// The invocation that is ending so that another may follow; `None` = there is none, or it has ended.
    #[must_use]
    pub fn restarting(&self) -> Option<Inv> {
        match (self.life, self.want) {
            (Life::Running { inv }, Want::Restart) => Some(inv),
            _ => None,
        }
    }

    /// A task nobody has started.
    #[must_use]
    pub fn new() -> Self {
        Self { life: Life::Waiting, want: Want::Run, is_followed: false }
    }

    /// A task read from the store.
    #[must_use]
    pub fn restore(state: &TaskState) -> Self {
        let life = if state.phase == TaskPhase::Dead { Life::Dead } else { Life::Unknown };
        Self { life, want: Want::Run, is_followed: false }
    }

    /// True until the folder of a restored task was reported found or missing.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.life == Life::Unknown
    }

    /// True while it only waits for its gate.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.life == Life::Waiting
    }

    /// True while there is, or may be, a process of it.
    #[must_use]
    pub fn is_out(&self) -> bool {
        matches!(self.life, Life::Launching { .. } | Life::Running { .. })
    }

    /// True when it is over.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.life == Life::Dead
    }

    /// The next moment at which [`Turn::due`] has something to do.
    #[must_use]
    pub fn due(&self) -> Option<Mono> {
        match (self.life, self.want) {
            (Life::Backoff { due }, _) | (Life::Running { .. }, Want::KillAt { due }) => Some(due),
            _ => None,
        }
    }
}

impl Default for Task {
    fn default() -> Self {
        Self::new()
    }
}

/// One task with all it may read and touch while it decides.
#[derive(Debug)]
pub struct Turn<'a> {
    /// Index of the task.
    pub i: usize,
    /// The moment of the fact.
    pub now: Now,
    /// What the task is.
    pub spec: &'a TaskSpec,
    /// What it is doing.
    pub task: &'a mut Task,
    /// What is shown and stored of it.
    pub state: &'a mut TaskState,
    /// What else is stored of it.
    pub memo: &'a mut TaskMemo,
    /// Where effects go.
    pub out: &'a mut Out,
}

impl Turn<'_> {
    /// Starts a waiting task. The first start sets it up; a program that cannot be read ends it at once.
    pub fn launch(&mut self, rng: &mut Rng) {
        if self.task.life != Life::Waiting {
            return;
        }
        self.set_up(self.now.wall);
        if let Err(error) = &self.spec.program {
            self.push(EventKind::FailedValidation { error: error.clone() }, Durability::C1);
            self.ended(rng, None, End::StartFailed { is_recoverable: false }, self.now.wall);
            return;
        }
        let inv = Inv(rng.word().max(1));
        self.task.life = Life::Launching { inv };
        self.out.queue.push_back(Effect::Launch { task: self.i, inv, window: self.memo.window });
    }

    /// Takes news of an invocation. False when it was of another than the present one, and dropped.
    pub fn news(&mut self, rng: &mut Rng, inv: Inv, news: News) -> bool {
        let is_first = match self.task.life {
            Life::Launching { inv: mine } if mine == inv => true,
            Life::Running { inv: mine } if mine == inv => false,
            _ => {
                hit!("late_task_news_dropped");
                // A stray has ended: its folder may go.
                if !matches!(news, News::Running { .. }) && inv != self.memo.consumed {
                    self.out.queue.push_back(Effect::Consumed { task: self.i, inv });
                }
                return false;
            }
        };
        if is_first {
            // A row that was never stored does not know of it.
            self.set_up(news.started_at().unwrap_or(self.now.wall));
        }
        match news {
            News::Running { started_at, .. } if is_first => {
                self.started(started_at);
                self.task.life = Life::Running { inv };
                match self.task.want {
                    Want::Restart => self.stop(inv),
                    Want::Kill { skips_delay } => self.begin_stop(inv, skips_delay),
                    // A delay begins with a running one only.
                    Want::Run | Want::KillAt { .. } => {}
                }
            }
            News::Running { .. } => {}
            News::LaunchFailed { error, is_recoverable } => {
                self.push(EventKind::DriverFailure { error }, Durability::C1);
                self.ended(rng, Some(inv), End::StartFailed { is_recoverable }, self.now.wall);
            }
            News::Exited { code, signal, oom_killed, message, started_at, finished_at } => {
                if is_first {
                    self.started(started_at);
                }
                let finished_at = self.or_now(finished_at);
                let end = End::Exited { is_success: code == 0 && signal == 0 && message.is_empty() };
                self.push_at(finished_at, EventKind::Terminated { exit_code: code, signal, oom_killed, message }, Durability::C1);
                self.ended(rng, Some(inv), end, finished_at);
            }
            News::Lost => self.lost(rng, Some(inv)),
        }
        true
    }

    /// A folder of this task was found at the start of the agent. With several, the oldest comes first.
    /// `window` is what its record says; `None` = it says nothing. `news` `None` = its supervisor lives and has not begun.
    /// `is_followed`: the next folder's invocation came after it. `was_rebooted`: nothing of this boot is stored, so that what ran before
    /// it may run again.
    pub fn adopt(&mut self, rng: &mut Rng, inv: Inv, window: Option<Window>, news: Option<News>, is_followed: bool, was_rebooted: bool) {
        let has_ended = !matches!(news, None | Some(News::Running { .. }));
        if inv == self.memo.consumed {
            // The agent died between the commit and the removal.
            self.out.queue.push_back(Effect::Consumed { task: self.i, inv });
            return;
        }
        if self.task.is_dead() && was_rebooted && !has_ended && self.spec.role == (Role::Prestart { is_sidecar: false }) {
            // An agent of this boot has let it prepare anew.
            self.rebooted(false);
        }
        if matches!(self.task.life, Life::Dead | Life::Launching { .. } | Life::Running { .. }) {
            // Nobody wants this one any more.
            if has_ended {
                self.out.queue.push_back(Effect::Consumed { task: self.i, inv });
            } else {
                self.stop(inv);
            }
            return;
        }
        if let Some(window) = window {
            self.memo.window = window;
        }
        self.task.want = if self.is_kill_told() {
            Want::Kill { skips_delay: false }
        } else if self.is_restart_told() {
            Want::Restart
        } else {
            Want::Run
        };
        self.task.life = Life::Launching { inv };
        self.task.is_followed = is_followed;
        if let Some(news) = news {
            let _ = self.news(rng, inv, news);
        }
    }

    /// No folder of this restored task was found. `was_rebooted`: the machine was started anew since; `is_stopping`: the
    /// allocation is to be stopped.
    pub fn missing(&mut self, rng: &mut Rng, was_rebooted: bool, is_stopping: bool) {
        if self.task.life != Life::Unknown {
            return;
        }
        let had_process = self.state.phase == TaskPhase::Running || self.delay_left_ns().is_some();
        if self.is_kill_told() {
            self.task.want = Want::Kill { skips_delay: true };
            if had_process && !was_rebooted {
                self.lost(rng, None);
            } else {
                if had_process {
                    self.push(EventKind::Killed { error: String::new() }, Durability::C0);
                }
                self.die(self.now.wall);
            }
        } else if was_rebooted {
            self.rebooted(is_stopping);
        } else if had_process {
            self.task.want = if self.is_restart_told() { Want::Restart } else { Want::Run };
            self.lost(rng, None);
        } else {
            // Waiting for its gate, half born, or in its restart delay.
            let left_ns = match self.state.events.last() {
                Some(TaskEvent { at, kind: EventKind::Restarting { delay_ns, .. } }) => self.left_ns(*at, *delay_ns),
                _ => 0,
            };
            self.task.life = self.backoff(left_ns);
        }
    }

    /// Starts over after a reboot; nothing of the policy is charged.
    pub fn rebooted(&mut self, is_stopping: bool) {
        self.memo.window = Window::new(self.now.mono);
        self.state.phase = TaskPhase::Pending;
        // Stored with the new boot: who reads both must not take it for lost.
        self.out.change(Durability::C1);
        self.task.life = Life::Waiting;
        self.task.want = Want::Run;
        // One that never ran is not restarted, and one that is to be stopped will not be.
        if !self.state.started_at.is_unset() && !is_stopping {
            self.push(EventKind::Driver { message: "restarted after reboot".to_owned() }, Durability::C1);
        }
    }

    /// Ends the task for good. Once is enough; a second call changes nothing.
    pub fn kill(&mut self, reason: &str, skips_delay: bool) {
        if matches!(self.task.life, Life::Dead | Life::Unknown) || self.task.want.is_kill() {
            return;
        }
        let timeout_ns = self.spec.kill.timeout_ms.saturating_mul(1_000_000);
        self.push(EventKind::Killing { timeout_ns, reason: reason.to_owned() }, Durability::C0);
        match self.task.life {
            Life::Running { inv } => self.begin_stop(inv, skips_delay),
            Life::Launching { .. } => self.task.want = Want::Kill { skips_delay },
            Life::Waiting | Life::Backoff { .. } | Life::Dead | Life::Unknown => self.die(self.now.wall),
        }
    }

    /// Takes back a launch that has not happened, if the task is to end for good. False: it is still wanted.
    pub fn withdraw(&mut self, inv: Inv) -> bool {
        let is_mine = matches!(self.task.life, Life::Launching { inv: mine } if mine == inv);
        if !is_mine || !self.task.want.is_kill() {
            return false;
        }
        self.die(self.now.wall);
        true
    }

    /// Ends a shutdown delay that is running or still to come.
    pub fn skip_delay(&mut self) {
        match (self.task.life, self.task.want) {
            (Life::Running { inv }, Want::KillAt { .. }) => {
                self.push(EventKind::SkippingShutdownDelay { delay_ns: self.delay_ns() }, Durability::C0);
                self.stop_for_good(inv);
            }
            (Life::Launching { .. }, Want::Kill { .. }) => self.task.want = Want::Kill { skips_delay: true },
            _ => {}
        }
    }

    /// The folders of the allocation could not be made: the task fails without having run.
    pub fn fail_setup(&mut self, error: &str) {
        if matches!(self.task.life, Life::Waiting | Life::Backoff { .. }) {
            self.push(EventKind::SetupFailure { error: error.to_owned() }, Durability::C0);
            self.state.is_failed = true;
            self.die(self.now.wall);
        }
    }

    /// True when a user may restart or signal it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.task.life, Life::Running { .. })
    }

    /// Restarts a running task. False when it does not run, or is to end.
    pub fn restart(&mut self, reason: &str) -> bool {
        let Life::Running { inv } = self.task.life else { return false };
        if self.task.want.is_kill() {
            return false;
        }
        self.push(EventKind::RestartSignaled { reason: reason.to_owned() }, Durability::C0);
        self.task.want = Want::Restart;
        self.stop(inv);
        true
    }

    /// Restarts the task in whatever state it is, as a part of a restart of all tasks. A task that comes last stays dead.
    pub fn restart_any(&mut self, reason: &str) {
        match (self.task.life, self.task.want) {
            (Life::Running { .. }, _) => {
                self.restart(reason);
            }
            (Life::Launching { .. }, Want::Run) => {
                self.push(EventKind::RestartSignaled { reason: reason.to_owned() }, Durability::C0);
                self.task.want = Want::Restart;
            }
            (Life::Dead, _) if self.spec.role != Role::Poststop => {
                self.push(EventKind::RestartSignaled { reason: reason.to_owned() }, Durability::C0);
                self.again(0, "");
            }
            _ => {}
        }
    }

    /// Sends a signal to a running task. False when it does not run.
    pub fn signal(&mut self, signal: i32, name: &str) -> bool {
        let Life::Running { inv } = self.task.life else { return false };
        self.push(EventKind::Signaling { signal: name.to_owned(), reason: String::new() }, Durability::C1);
        self.out.queue.push_back(Effect::Signal { task: self.i, inv, signal });
        true
    }

    /// Acts on a delay that is over.
    pub fn due(&mut self) {
        if self.task.due().is_none_or(|due| due > self.now.mono) {
            return;
        }
        match self.task.life {
            Life::Running { inv } => self.stop_for_good(inv),
            _ => self.task.life = Life::Waiting,
        }
    }

    /// Appends an event of this moment.
    pub fn push(&mut self, kind: EventKind, durability: Durability) {
        self.push_at(self.now.wall, kind, durability);
    }

    fn push_at(&mut self, at: Wall, kind: EventKind, durability: Durability) {
        self.state.push(TaskEvent { at, kind });
        self.out.change(durability);
    }

    /// Before the first start the folder of the task is made.
    fn set_up(&mut self, at: Wall) {
        let is_new = self.state.started_at.is_unset() && self.state.restarts_n == 0;
        if is_new && !self.state.events.iter().any(|e| matches!(e.kind, EventKind::Setup { .. })) {
            self.push_at(at, EventKind::Setup { message: "Building Task Directory".to_owned() }, Durability::C1);
        }
    }

    /// The process exists since `started_at`. Silent when the state knows this start already.
    fn started(&mut self, started_at: Wall) {
        let started_at = self.or_now(started_at);
        if self.state.started_at != started_at {
            self.state.started_at = started_at;
            self.push_at(started_at, EventKind::Started, Durability::C1);
        }
        self.state.phase = TaskPhase::Running;
    }

    /// The end of an invocation (`None`: one that left no folder), which is already among the events.
    fn ended(&mut self, rng: &mut Rng, inv: Option<Inv>, end: End, at: Wall) {
        if let Some(inv) = inv {
            self.memo.consumed = inv;
            self.out.queue.push_back(Effect::Consumed { task: self.i, inv });
        }
        let ran = matches!(end, End::Exited { .. });
        let end = match self.task.want {
            Want::Run => end,
            Want::Restart => End::Triggered,
            Want::KillAt { .. } | Want::Kill { .. } => End::Killed,
        };
        let mut verdict = restart::judge(&self.spec.restart, &mut self.memo.window, self.now.mono, rng.word(), end);
        if core::mem::take(&mut self.task.is_followed) && matches!(verdict, Verdict::Done | Verdict::Failed { .. }) {
            // The policy was another, or the interval: what was decided then has happened.
            hit!("restart_seen_by_its_successor");
            verdict = Verdict::Restart { delay_ns: 0, reason: restart::WITHIN_POLICY };
        }
        match verdict {
            Verdict::Killed => {
                if ran {
                    self.push(EventKind::Killed { error: String::new() }, Durability::C0);
                }
                self.die(at);
            }
            Verdict::Done => self.die(at),
            Verdict::Failed { reason } => {
                self.push(EventKind::NotRestarting { reason }, Durability::C0);
                self.state.is_failed = true;
                self.die(at);
            }
            Verdict::Restart { delay_ns, reason } => self.again(delay_ns, reason),
        }
    }

    /// The supervisor is gone and nothing tells how the program ended.
    fn lost(&mut self, rng: &mut Rng, inv: Option<Inv>) {
        let message = "supervisor lost".to_owned();
        self.push(EventKind::Terminated { exit_code: -1, signal: 0, oom_killed: false, message }, Durability::C1);
        self.ended(rng, inv, End::Exited { is_success: false }, self.now.wall);
    }

    fn again(&mut self, delay_ns: u64, reason: &str) {
        self.push(EventKind::Restarting { delay_ns, reason: reason.to_owned() }, Durability::C1);
        self.state.phase = TaskPhase::Pending;
        self.state.restarts_n = self.state.restarts_n.saturating_add(1);
        self.state.last_restart_at = self.now.wall;
        self.task.life = self.backoff(delay_ns);
        self.task.want = Want::Run;
    }

    fn backoff(&self, delay_ns: u64) -> Life {
        if delay_ns == 0 { Life::Waiting } else { Life::Backoff { due: Mono(self.now.mono.0.saturating_add(delay_ns)) } }
    }

    fn die(&mut self, at: Wall) {
        self.state.phase = TaskPhase::Dead;
        if self.state.finished_at.is_unset() {
            self.state.finished_at = at;
        }
        self.task.life = Life::Dead;
        self.task.want = Want::Run;
        self.out.change(Durability::C0);
    }

    /// Stops a running invocation for good: its shutdown delay, or what a restarted agent finds left of it, then the signal.
    fn begin_stop(&mut self, inv: Inv, skips_delay: bool) {
        let delay_ns = self.delay_ns();
        if delay_ns > 0 {
            let left_ns = match self.delay_left_ns() {
                Some(left_ns) => left_ns,
                None if skips_delay => {
                    self.push(EventKind::SkippingShutdownDelay { delay_ns }, Durability::C0);
                    0
                }
                None => {
                    self.push(EventKind::WaitingShutdownDelay { delay_ns }, Durability::C0);
                    delay_ns
                }
            };
            // Stock shows a task in its shutdown delay as pending.
            self.state.phase = TaskPhase::Pending;
            if left_ns > 0 {
                self.task.want = Want::KillAt { due: Mono(self.now.mono.0.saturating_add(left_ns)) };
                return;
            }
        }
        self.stop_for_good(inv);
    }

    fn stop_for_good(&mut self, inv: Inv) {
        self.task.want = Want::Kill { skips_delay: true };
        self.stop(inv);
    }

    fn stop(&mut self, inv: Inv) {
        let kill = self.spec.kill;
        self.out.queue.push_back(Effect::Stop { task: self.i, inv, signal: kill.signal, timeout_ms: kill.timeout_ms });
    }

    fn delay_ns(&self) -> u64 {
        self.spec.shutdown_delay_ms.saturating_mul(1_000_000)
    }

    /// What the events say is left of the shutdown delay of the present invocation; `None` = it has not begun.
    fn delay_left_ns(&self) -> Option<u64> {
        for event in self.state.events.iter().rev() {
            match &event.kind {
                EventKind::WaitingShutdownDelay { delay_ns } => return Some(self.left_ns(event.at, *delay_ns)),
                EventKind::SkippingShutdownDelay { .. } => return Some(0),
                EventKind::Started | EventKind::Terminated { .. } | EventKind::Restarting { .. } => return None,
                _ => {}
            }
        }
        None
    }

    /// What is left of a delay that began at `at`. A wall clock that stepped makes it no longer than it was.
    fn left_ns(&self, at: Wall, delay_ns: u64) -> u64 {
        let gone_ns = u64::try_from(self.now.wall.0.saturating_sub(at.0)).unwrap_or(0);
        delay_ns.saturating_sub(gone_ns)
    }

    /// True when the events say that this life of the task is to end.
    fn is_kill_told(&self) -> bool {
        let mut life = self.state.events.iter().rev().take_while(|e| !matches!(e.kind, EventKind::Restarting { .. }));
        life.any(|e| matches!(e.kind, EventKind::Killing { .. }))
    }

    /// True when the events say that this invocation is to be followed by another.
    fn is_restart_told(&self) -> bool {
        let is_end = |kind: &EventKind| matches!(kind, EventKind::Started | EventKind::Terminated { .. } | EventKind::Restarting { .. });
        let mut invocation = self.state.events.iter().rev().take_while(|e| !is_end(&e.kind));
        invocation.any(|e| matches!(e.kind, EventKind::RestartSignaled { .. }))
    }

    fn or_now(&self, at: Wall) -> Wall {
        if at.is_unset() { self.now.wall } else { at }
    }
}
