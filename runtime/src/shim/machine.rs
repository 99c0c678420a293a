//! The life of one task under its shim. Pure: facts in, acts out; no clock, process or file.
//!
//! Shape: [`Machine::handle`] takes one fact, then [`Machine::poll`] is drained, then comes the next fact. [`Machine::due`] says when
//! [`Fact::Due`] is wanted. Units: milliseconds in names, [`Mono`] for deadlines.
//! Invariants: the phase never goes back; a state is saved before it is told (`Save` before `Tell`), and a pid before its first
//! instruction (`Save` before `OpenGate`); after `Leave` there is nothing. No heap.
//! Source: `spec/runtime.md` 6.3 to 6.5.
//!
//! | phase | fact | next |
//! |---|---|---|
//! | Ready | Forked | Forked: save, tell, open the gate |
//! | Forked | Executed | Running |
//! | Ready, Forked, Stopping | ExecFailed | ExecFailed: save, tell, reap, leave |
//! | Forked, Running | Stop | Stopping: save, tell, signal; SIGKILL when due |
//! | Stopping | Due | SIGKILL everything; Stuck after 15 s more |
//! | any but ended | Exited | Exited: save, tell, reap; output is drained until its end or 2 s |
//! | Exited | output ended, Due | sweep until nothing is left or 15 s, drain the rest, Done: save, tell, leave |

use dunlin_hal::clock::{Mono, Now};

use super::record::{ExitKind, FLAG_BY_STOP, FLAG_CORE, FLAG_FORCED, FLAG_LOG_LOSS, FLAG_OOM, FLAG_SWEPT, LogFigures, Phase, Slot};

/// How long output is read on after the main process has ended while others hold the pipes.
pub const DRAIN_MS: u64 = 2_000;
/// SIGKILL was sent and the process is still there: stuck in the kernel.
pub const STUCK_MS: u64 = 15_000;
/// Between two rounds of a sweep that no exit moves forward.
pub const SWEEP_RETRY_MS: u64 = 50;
/// After this long what is left is left: it is stuck in the kernel and cannot run.
pub const SWEEP_MS: u64 = 15_000;

const SIGKILL: i32 = 9;

/// What the kernel's out-of-memory counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OomRule {
    /// Kills in this task's own memory group: any rise is ours.
    Own,
    /// Kills on the whole machine: a rise is ours if our process died of a SIGKILL that we did not send.
    Machine,
}

/// The end of the main process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// Code or Signal.
    pub kind: ExitKind,
    /// Exit code or signal number.
    pub code: i32,
    /// A core file was written.
    pub is_core: bool,
    /// Processor time in user mode, microseconds.
    pub utime_us: u64,
    /// Processor time in the kernel, microseconds.
    pub stime_us: u64,
    /// Most memory ever resident, KiB.
    pub maxrss_kb: u64,
    /// The out-of-memory counter.
    pub oom_end: u32,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The child exists and waits at its gate.
    Forked {
        /// Its pid.
        pid: u32,
        /// Its start, ticks.
        start: u64,
    },
    /// The child has been executed.
    Executed,
    /// A step before execution failed; the child is ending, or there is none.
    ExecFailed {
        /// The step.
        stage: u8,
        /// Why.
        errno: i32,
    },
    /// The main process has ended and is not reaped yet.
    Exited(Exit),
    /// Another descendant was reaped.
    Reaped,
    /// A sweep found and killed this many processes.
    Swept {
        /// Processes found.
        found_n: u32,
    },
    /// Both pipes are at their end.
    OutputEnded,
    /// What was left in the pipes has been written.
    Drained,
    /// The agent asks for the end; `timeout_ms` 0 = at once.
    Stop {
        /// First signal.
        signal: i32,
        /// Time until SIGKILL.
        timeout_ms: u32,
    },
    /// The agent's restart window changed.
    Restarts {
        /// Restarts in the interval.
        restart_n: u32,
        /// Its start.
        interval_started: Mono,
    },
    /// The time of [`Machine::due`] has come.
    Due,
}

/// What is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Write [`Machine::slot`].
    Save,
    /// Send it to the adopter.
    Tell,
    /// Let the child go on.
    OpenGate,
    /// Signal the main process.
    Signal(i32),
    /// SIGKILL everything that belongs to the task, the main process first.
    KillAll,
    /// Reap the main process.
    Reap,
    /// SIGKILL what is left; answered with [`Fact::Swept`].
    Sweep,
    /// Write what is left in the pipes; answered with [`Fact::Drained`].
    Drain,
    /// End.
    Leave,
}

/// What the next `Due` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    None,
    /// SIGKILL.
    Force(Mono),
    /// Give up on a process that SIGKILL does not end.
    Stuck(Mono),
    /// Stop reading output that has no end.
    Drain(Mono),
    /// Another round; `until` is the last.
    Sweep {
        retry_due: Mono,
        until_due: Mono,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    slot: Slot,
    oom: OomRule,
    wait: Wait,
    has_output_ended: bool,
    acts: heapless::Deque<Act, 8>,
}

impl Machine {
    /// A shim that is ready. `slot` carries the identities; its phase is Ready.
    #[must_use]
    pub fn new(slot: Slot, oom: OomRule) -> Self {
        let mut machine = Self {
            slot: Slot { phase: Phase::Ready, ..slot },
            oom,
            wait: Wait::None,
            has_output_ended: false,
            acts: heapless::Deque::new(),
        };
        machine.save();
        machine
    }

    /// The state to save and to tell.
    #[must_use]
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Output so far; part of each state saved from now on.
    pub fn set_logs(&mut self, logs: LogFigures) {
        self.slot.logs = logs;
        if logs.dropped_bytes > 0 {
            self.slot.flags |= FLAG_LOG_LOSS;
        }
    }

    /// When [`Fact::Due`] is wanted.
    #[must_use]
    pub fn due(&self) -> Option<Mono> {
        match self.wait {
            Wait::None => None,
            Wait::Force(due) | Wait::Stuck(due) | Wait::Drain(due) | Wait::Sweep { retry_due: due, .. } => Some(due),
        }
    }

    /// The next act; `None` when all are given out.
    pub fn poll(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// One fact.
    pub fn handle(&mut self, now: Now, fact: Fact) {
        match fact {
            Fact::Forked { pid, start } if self.slot.phase == Phase::Ready => {
                self.slot.task_pid = pid;
                self.slot.task_start = start;
                self.enter(Phase::Forked);
                self.act(Act::OpenGate);
            }
            Fact::Executed if matches!(self.slot.phase, Phase::Forked | Phase::Stopping) && self.slot.started == Now::default() => {
                self.slot.started = now;
                // A stop that came first keeps its phase; the start is told with it.
                let phase = if self.slot.phase == Phase::Forked { Phase::Running } else { self.slot.phase };
                self.enter(phase);
            }
            Fact::ExecFailed { stage, errno } if matches!(self.slot.phase, Phase::Ready | Phase::Forked | Phase::Stopping) => {
                self.slot.exit_kind = ExitKind::Exec;
                self.slot.stage = stage;
                self.slot.code = errno;
                self.slot.exited = now;
                self.wait = Wait::None;
                self.enter(Phase::ExecFailed);
                self.act(Act::Reap);
                self.act(Act::Leave);
            }
            Fact::Exited(exit) if !self.slot.phase.has_ended() => self.exited(now, exit),
            Fact::Stop { signal, timeout_ms } => self.stop(now.mono, signal, timeout_ms),
            Fact::Restarts { restart_n, interval_started } if self.slot.phase != Phase::Done => {
                self.slot.restart_n = restart_n;
                self.slot.interval_started = interval_started;
                self.save();
            }
            Fact::OutputEnded => {
                self.has_output_ended = true;
                if matches!(self.wait, Wait::Drain(_)) {
                    self.begin_sweep(now.mono);
                }
            }
            Fact::Reaped if matches!(self.wait, Wait::Sweep { .. }) => self.act(Act::Sweep),
            Fact::Swept { found_n } => self.swept(now.mono, found_n),
            Fact::Drained if self.slot.phase == Phase::Exited => {
                self.enter(Phase::Done);
                self.act(Act::Leave);
            }
            Fact::Due => self.due_reached(now.mono),
            // News of a phase that is over, or that cannot be: nothing to decide.
            Fact::Forked { .. }
            | Fact::Executed
            | Fact::ExecFailed { .. }
            | Fact::Exited(_)
            | Fact::Restarts { .. }
            | Fact::Reaped
            | Fact::Drained => {}
        }
    }

    fn stop(&mut self, now: Mono, signal: i32, timeout_ms: u32) {
        match self.slot.phase {
            Phase::Forked | Phase::Running => {
                self.slot.stop_signal = signal;
                self.slot.stop_timeout_ms = timeout_ms;
                self.slot.stop_due = now.after_ms(timeout_ms.into());
                self.slot.flags |= FLAG_BY_STOP;
                if timeout_ms == 0 {
                    self.slot.phase = Phase::Stopping;
                    self.force(now);
                    self.act(Act::Tell);
                } else {
                    self.enter(Phase::Stopping);
                    self.act(Act::Signal(signal));
                    self.wait = Wait::Force(self.slot.stop_due);
                }
            }
            // Asked again: the first deadline stands, unless there is to be none.
            Phase::Stopping if timeout_ms == 0 || matches!(self.wait, Wait::Stuck(_)) => self.force(now),
            Phase::Stuck => self.act(Act::KillAll),
            Phase::Stopping | Phase::Ready | Phase::Exited | Phase::Done | Phase::ExecFailed => {}
        }
    }

    fn force(&mut self, now: Mono) {
        self.slot.flags |= FLAG_FORCED;
        self.save();
        self.act(Act::KillAll);
        self.wait = Wait::Stuck(now.after_ms(STUCK_MS));
    }

    fn exited(&mut self, now: Now, exit: Exit) {
        let slot = &mut self.slot;
        slot.exit_kind = exit.kind;
        slot.code = exit.code;
        slot.utime_us = exit.utime_us;
        slot.stime_us = exit.stime_us;
        slot.maxrss_kb = exit.maxrss_kb;
        slot.oom_end = exit.oom_end;
        slot.exited = now;
        if exit.is_core {
            slot.flags |= FLAG_CORE;
        }
        let is_forced = slot.has(FLAG_FORCED);
        let is_killed = exit.kind == ExitKind::Signal && exit.code == SIGKILL;
        let is_oom = exit.oom_end > slot.oom_base && (self.oom == OomRule::Own || (is_killed && !is_forced));
        if is_oom {
            slot.flags |= FLAG_OOM;
        }
        self.enter(Phase::Exited);
        self.act(Act::Reap);
        if is_forced || self.has_output_ended {
            self.begin_sweep(now.mono);
        } else {
            self.wait = Wait::Drain(now.mono.after_ms(DRAIN_MS));
        }
    }

    fn begin_sweep(&mut self, now: Mono) {
        self.wait = Wait::Sweep { retry_due: now.after_ms(SWEEP_RETRY_MS), until_due: now.after_ms(SWEEP_MS) };
        self.act(Act::Sweep);
    }

    fn swept(&mut self, now: Mono, found_n: u32) {
        let Wait::Sweep { until_due, .. } = self.wait else { return };
        if found_n > 0 {
            self.slot.flags |= FLAG_SWEPT;
        }
        if found_n == 0 || now >= until_due {
            self.wait = Wait::None;
            self.act(Act::Drain);
        } else {
            self.wait = Wait::Sweep { retry_due: now.after_ms(SWEEP_RETRY_MS), until_due };
        }
    }

    fn due_reached(&mut self, now: Mono) {
        match self.wait {
            Wait::Force(due) if now >= due => self.force(now),
            Wait::Stuck(due) if now >= due => {
                self.wait = Wait::None;
                self.enter(Phase::Stuck);
            }
            Wait::Drain(due) if now >= due => self.begin_sweep(now),
            Wait::Sweep { retry_due, .. } if now >= retry_due => self.act(Act::Sweep),
            // Early: the edge asks again when it is time.
            Wait::None | Wait::Force(_) | Wait::Stuck(_) | Wait::Drain(_) | Wait::Sweep { .. } => {}
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.slot.phase = phase;
        self.save();
        self.act(Act::Tell);
    }

    fn save(&mut self) {
        self.slot.seq += 1;
        self.act(Act::Save);
    }

    fn act(&mut self, act: Act) {
        let kept = self.acts.push_back(act);
        debug_assert!(kept.is_ok(), "acts of one fact are fewer than the queue's room");
    }
}

#[cfg(test)]
mod tests {
    use Act::{Drain, KillAll, Leave, OpenGate, Reap, Save, Signal, Sweep, Tell};
    use dunlin_hal::clock::Wall;

    use super::*;

    fn at(ms: u64) -> Now {
        Now { mono: Mono(ms * 1_000_000), wall: Wall(1) }
    }

    const CODE_3: Exit = Exit { kind: ExitKind::Code, code: 3, is_core: false, utime_us: 1, stime_us: 2, maxrss_kb: 3, oom_end: 0 };
    const KILLED: Exit = Exit { kind: ExitKind::Signal, code: 9, ..CODE_3 };
    const FORKED: Fact = Fact::Forked { pid: 7, start: 8 };
    const STOP: Fact = Fact::Stop { signal: 15, timeout_ms: 5_000 };
    const KILL: Fact = Fact::Stop { signal: 9, timeout_ms: 0 };

    /// One door: each row is (milliseconds, fact, acts it must cause). Gives the machine back for its slot.
    #[track_caller]
    fn check(oom: OomRule, rows: &[(u64, Fact, &[Act])]) -> Machine {
        let mut machine = Machine::new(Slot::default(), oom);
        assert_eq!(std::iter::from_fn(|| machine.poll()).collect::<Vec<_>>(), [Save]);
        let mut seq = machine.slot().seq;
        for (i, (ms, fact, want)) in rows.iter().enumerate() {
            let before = machine.slot().phase;
            machine.handle(at(*ms), *fact);
            let acts: Vec<Act> = std::iter::from_fn(|| machine.poll()).collect();
            assert_eq!(acts, *want, "row {i}: {fact:?}");
            let saved_n = acts.iter().filter(|act| **act == Save).count() as u64;
            assert_eq!(machine.slot().seq, seq + saved_n, "row {i}: one number per save");
            seq = machine.slot().seq;
            let is_forward = machine.slot().phase >= before || before == Phase::Stuck;
            assert!(is_forward, "row {i}: phase went back");
        }
        machine
    }

    #[test]
    fn start_run_exit_done() {
        let machine = check(
            OomRule::Own,
            &[
                (0, FORKED, &[Save, Tell, OpenGate]),
                (1, Fact::Executed, &[Save, Tell]),
                (9, Fact::Exited(CODE_3), &[Save, Tell, Reap]),
                (10, Fact::OutputEnded, &[Sweep]),
                (10, Fact::Swept { found_n: 0 }, &[Drain]),
                (10, Fact::Drained, &[Save, Tell, Leave]),
            ],
        );
        let slot = machine.slot();
        assert_eq!((slot.phase, slot.code, slot.flags, slot.task_pid, slot.task_start), (Phase::Done, 3, 0, 7, 8));
        assert_eq!((slot.started, slot.exited), (at(1), at(9)));
        assert_eq!(machine.due(), None);
    }

    #[test]
    fn output_held_open_is_drained_for_two_seconds_then_its_holders_are_swept() {
        let machine = check(
            OomRule::Own,
            &[
                (0, FORKED, &[Save, Tell, OpenGate]),
                (0, Fact::Executed, &[Save, Tell]),
                (0, Fact::Exited(CODE_3), &[Save, Tell, Reap]),
                (1999, Fact::Due, &[]),
                (1999, Fact::Reaped, &[]),
                (2000, Fact::Due, &[Sweep]),
                (2000, Fact::Swept { found_n: 2 }, &[]),
                (2001, Fact::Reaped, &[Sweep]),
                (2001, Fact::Swept { found_n: 1 }, &[]),
                (2051, Fact::Due, &[Sweep]),
                (2051, Fact::Swept { found_n: 0 }, &[Drain]),
                (2051, Fact::Drained, &[Save, Tell, Leave]),
            ],
        );
        assert_eq!(machine.slot().flags, FLAG_SWEPT);
    }

    #[test]
    fn what_cannot_be_swept_is_left_after_a_while() {
        check(
            OomRule::Own,
            &[
                (0, FORKED, &[Save, Tell, OpenGate]),
                (0, Fact::OutputEnded, &[]),
                (0, Fact::Exited(CODE_3), &[Save, Tell, Reap, Sweep]),
                (0, Fact::Swept { found_n: 1 }, &[]),
                (15_000, Fact::Due, &[Sweep]),
                (15_000, Fact::Swept { found_n: 1 }, &[Drain]),
                (15_000, Fact::Drained, &[Save, Tell, Leave]),
            ],
        );
    }

    #[test]
    fn stop_signals_then_kills_then_calls_it_stuck() {
        let machine = check(
            OomRule::Own,
            &[
                (0, FORKED, &[Save, Tell, OpenGate]),
                (0, Fact::Executed, &[Save, Tell]),
                (100, STOP, &[Save, Tell, Signal(15)]),
                (200, STOP, &[]),
                (4_000, Fact::Due, &[]),
                (5_100, Fact::Due, &[Save, KillAll]),
                (5_200, STOP, &[Save, KillAll]),
                (20_200, Fact::Due, &[Save, Tell]),
                (20_300, KILL, &[KillAll]),
                (20_400, Fact::Exited(KILLED), &[Save, Tell, Reap, Sweep]),
            ],
        );
        let slot = machine.slot();
        assert_eq!((slot.stop_signal, slot.stop_timeout_ms, slot.stop_due), (15, 5_000, at(5_100).mono));
        assert_eq!(slot.flags, FLAG_BY_STOP | FLAG_FORCED);
    }

    #[test]
    fn a_task_that_obeys_is_not_forced() {
        let machine = check(
            OomRule::Own,
            &[
                (0, FORKED, &[Save, Tell, OpenGate]),
                (0, Fact::Executed, &[Save, Tell]),
                (100, STOP, &[Save, Tell, Signal(15)]),
                (300, Fact::Exited(CODE_3), &[Save, Tell, Reap]),
                (400, STOP, &[]),
                (5_100, Fact::Due, &[Sweep]),
            ],
        );
        assert_eq!(machine.slot().flags, FLAG_BY_STOP);
    }

    #[test]
    fn kill_needs_no_deadline_and_shortens_one() {
        for first in [KILL, STOP] {
            let mut machine = check(OomRule::Own, &[(0, FORKED, &[Save, Tell, OpenGate]), (0, Fact::Executed, &[Save, Tell])]);
            machine.handle(at(1), first);
            machine.handle(at(1), KILL);
            let acts: Vec<Act> = std::iter::from_fn(|| machine.poll()).collect();
            assert!(acts.contains(&KillAll), "{first:?}");
            assert_eq!(machine.due(), Some(at(15_001).mono));
            assert!(machine.slot().has(FLAG_FORCED));
        }
    }

    #[test]
    fn a_task_that_cannot_be_executed() {
        let machine = check(
            OomRule::Own,
            &[
                (0, FORKED, &[Save, Tell, OpenGate]),
                (0, STOP, &[Save, Tell, Signal(15)]),
                (1, Fact::ExecFailed { stage: 12, errno: 2 }, &[Save, Tell, Reap, Leave]),
                (1, Fact::Exited(CODE_3), &[]),
                (1, KILL, &[]),
                (9_999, Fact::Due, &[]),
            ],
        );
        let slot = machine.slot();
        assert_eq!((slot.phase, slot.exit_kind, slot.stage, slot.code), (Phase::ExecFailed, ExitKind::Exec, 12, 2));
    }

    #[test]
    fn no_process_to_fork() {
        let machine = check(OomRule::Own, &[(0, Fact::ExecFailed { stage: 0, errno: 11 }, &[Save, Tell, Reap, Leave])]);
        assert_eq!(machine.slot().exec_error().as_deref(), Some("failed to launch command: fork: Try again"));
    }

    #[test]
    fn a_stop_before_execution_keeps_its_phase_and_the_start_is_recorded_once() {
        let machine = check(
            OomRule::Own,
            &[
                (0, FORKED, &[Save, Tell, OpenGate]),
                (1, STOP, &[Save, Tell, Signal(15)]),
                (2, Fact::Executed, &[Save, Tell]),
                (3, Fact::Executed, &[]),
            ],
        );
        assert_eq!((machine.slot().phase, machine.slot().started), (Phase::Stopping, at(2)));
    }

    #[test]
    fn who_was_killed_for_memory() {
        for (rule, exit, is_forced, want) in [
            (OomRule::Own, Exit { oom_end: 1, ..KILLED }, false, true),
            (OomRule::Own, Exit { oom_end: 1, ..CODE_3 }, false, true),
            (OomRule::Own, KILLED, false, false),
            (OomRule::Machine, Exit { oom_end: 1, ..KILLED }, false, true),
            (OomRule::Machine, Exit { oom_end: 1, ..CODE_3 }, false, false),
            (OomRule::Machine, Exit { oom_end: 1, ..KILLED }, true, false),
        ] {
            let mut machine = check(rule, &[(0, FORKED, &[Save, Tell, OpenGate]), (0, Fact::Executed, &[Save, Tell])]);
            if is_forced {
                machine.handle(at(1), KILL);
                while machine.poll().is_some() {}
            }
            machine.handle(at(2), Fact::Exited(exit));
            assert_eq!(machine.slot().has(FLAG_OOM), want, "{rule:?} {exit:?} {is_forced}");
        }
    }

    #[test]
    fn the_restart_window_is_kept_and_not_told() {
        let machine = check(OomRule::Own, &[(0, Fact::Restarts { restart_n: 2, interval_started: Mono(5) }, &[Save])]);
        assert_eq!((machine.slot().restart_n, machine.slot().interval_started), (2, Mono(5)));
    }

    #[test]
    fn log_loss_is_a_flag() {
        let mut machine = check(OomRule::Own, &[]);
        machine.set_logs(LogFigures { dropped_bytes: 1, ..LogFigures::default() });
        assert!(machine.slot().has(FLAG_LOG_LOSS));
    }
}
