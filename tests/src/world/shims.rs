//! Supervisors and the tasks under them: the real machine of the shim (`runtime::shim::machine`) over a made-up kernel.
//!
//! Shape: [`Shims::step`] takes what happens to one invocation and gives [`Sign`]s: what happens to it next, and what its adopter is
//! told. A record outlives the agent and its supervisor; a reboot takes everything.
//! What a task does is written in its environment, so that the job decides it ([`Temper`]).

use std::collections::BTreeMap;

use dunlin_hal::clock::{Now, Wall};
use dunlin_runtime::driver::Launch;
use dunlin_runtime::event::{EventKind, TaskEvent};
use dunlin_runtime::id::{AllocId, Inv};
use dunlin_runtime::shim::machine::{Act, Exit, Fact, Machine, OomRule};
use dunlin_runtime::shim::record::{ExitKind, Phase, Slot};
use dunlin_runtime::shim::{self};

use super::dice::Dice;

const SIGKILL: i32 = 9;

/// What a task does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Temper {
    /// It ends by itself: after so many ms, so.
    pub ends: Option<(u64, Exit)>,
    /// It is of those that end: in calm weather it does so soon, and well.
    pub is_finite: bool,
    /// It ends so many ms after a signal; `None` = it hears none but SIGKILL.
    pub obeys_ms: Option<u64>,
    /// It cannot be executed.
    pub exec_errno: Option<i32>,
    /// Others hold its output open when it has ended.
    pub holds_output: bool,
    /// SIGKILL takes so many ms: it hangs in the kernel.
    pub stuck_ms: u64,
}

impl Temper {
    /// From the words of the variable `TEMPER`: `ends:MS:CODE`, `dies:MS:SIGNAL`, `finite`, `obeys:MS`, `noexec:ERRNO`, `holds`, `stuck:MS`.
    pub fn parse(text: &str) -> Self {
        let mut temper = Self::default();
        for word in text.split_whitespace() {
            let mut parts = word.split(':');
            let name = parts.next().unwrap_or_default();
            let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).unwrap_or(0);
            match name {
                "ends" => temper.ends = Some((number(), exit(ExitKind::Code, number() as i32))),
                "dies" => temper.ends = Some((number(), exit(ExitKind::Signal, number() as i32))),
                "finite" => temper.is_finite = true,
                "obeys" => temper.obeys_ms = Some(number()),
                "noexec" => temper.exec_errno = Some(number() as i32),
                "holds" => temper.holds_output = true,
                "stuck" => temper.stuck_ms = number(),
                other => panic!("temper {other}"),
            }
        }
        temper
    }

    /// The same task on a good day.
    pub fn calmed(&self) -> Self {
        let ends = self.is_finite.then(|| (150, exit(ExitKind::Code, 0)));
        Self { ends, exec_errno: None, holds_output: false, stuck_ms: 0, ..self.clone() }
    }
}

fn exit(kind: ExitKind, code: i32) -> Exit {
    Exit { kind, code, ..Exit::default() }
}

/// Where a task's process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    None,
    /// Before its program.
    Gated,
    Runs,
    /// It will be gone in a moment.
    Ends,
    Gone,
}

/// One invocation.
pub struct Shim {
    /// Whose it is.
    pub alloc: AllocId,
    /// Which task.
    pub task: String,
    /// Its ports on the host.
    pub ports: Vec<u16>,
    /// What the record says.
    pub slot: Option<Slot>,
    /// The supervisor's process exists.
    pub is_alive: bool,
    /// It holds the lock of its folder.
    pub has_lock: bool,
    /// The life of the agent that it talks to.
    pub adopter: Option<u32>,
    machine: Option<Machine>,
    process: Process,
    /// Nobody reads its output to the end any more.
    has_output_ended: bool,
    seed: Slot,
    note: Vec<u8>,
    temper: Temper,
}

/// What happens to an invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The supervisor takes the lock of its folder.
    Lock,
    /// It has written its first record.
    Ready,
    /// The task's process exists.
    Fork,
    /// The program is executed, or not.
    Execute,
    /// The process ends.
    End(Exit),
    /// Its output is at its end.
    Output,
    /// A sweep found nothing.
    Swept,
    /// The rest of its output is written.
    Drained,
    /// A deadline of the supervisor.
    Due,
}

/// What follows from a step.
#[derive(Clone, Copy, Debug)]
pub enum Sign {
    /// This happens next, after so many microseconds.
    Next(u64, Step),
    /// The adopter is told of the record as it is now.
    Tell(Slot),
    /// The supervisor leaves.
    Left,
}

/// All of them.
#[derive(Default)]
pub struct Shims {
    /// By invocation.
    pub all: BTreeMap<Inv, Shim>,
    /// What has happened to tasks, for ever.
    pub lives: Lives,
    /// Tasks are well from now on.
    pub is_calm: bool,
    pid: u32,
}

/// Starts and ends of one task, in order.
#[derive(Debug, Default)]
pub struct Life {
    /// Its invocations.
    invs: Vec<Inv>,
    starts: Vec<(Inv, Wall)>,
    ends: Vec<(Inv, Wall, i32, i32)>,
    /// Supervisors of it that were killed.
    killed_n: usize,
}

/// Starts and ends of all tasks.
#[derive(Debug, Default)]
pub struct Lives(BTreeMap<(AllocId, String), Life>);

impl Lives {
    fn of(&mut self, alloc: AllocId, task: &str) -> &mut Life {
        self.0.entry((alloc, task.to_owned())).or_default()
    }

    /// The agent wants this invocation.
    pub fn launched(&mut self, alloc: AllocId, task: &str, inv: Inv) {
        self.of(alloc, task).invs.push(inv);
    }

    /// This invocation and those of the task that came after it.
    pub fn since(&self, alloc: AllocId, task: &str, inv: Inv) -> &[Inv] {
        let invs = self.0.get(&(alloc, task.to_owned())).map_or(&[][..], |life| &life.invs);
        invs.iter().position(|other| *other == inv).map_or(&[], |at| &invs[at..])
    }

    /// True when these events tell of starts and ends that were, each once and in their order.
    ///
    /// # Errors
    /// What was not so.
    pub fn accounts_for(&self, alloc: AllocId, task: &str, events: &[TaskEvent]) -> Result<(), String> {
        let none = Life::default();
        let life = self.0.get(&(alloc, task.to_owned())).unwrap_or(&none);
        let mut starts = life.starts.iter();
        let mut ends = life.ends.iter();
        let mut lost_n = 0;
        for event in events {
            match &event.kind {
                EventKind::Started if !starts.any(|start| start.1 == event.at) => {
                    return Err(format!("a start at {} that was not, or is told twice", event.at.0));
                }
                EventKind::Terminated { exit_code: -1, .. } => lost_n += 1,
                EventKind::Terminated { exit_code, signal, .. }
                    if !ends.any(|end| (end.1, end.2, end.3) == (event.at, *exit_code, *signal)) =>
                {
                    return Err(format!("an end ({exit_code}, {signal}) at {} that was not, or is told twice", event.at.0));
                }
                _ => {}
            }
        }
        if lost_n > life.killed_n { Err(format!("{lost_n} supervisors lost, {} were killed", life.killed_n)) } else { Ok(()) }
    }
}

impl Shims {
    /// The driver has made the folder and forked the supervisor.
    pub fn launch(&mut self, now: Now, boot_id: [u8; 16], launch: &Launch, ports: Vec<u16>) -> Sign {
        self.pid += 2;
        let seed = Slot {
            boot_id,
            inv: launch.inv,
            shim_pid: self.pid,
            shim_start: now.mono.0 / 10_000_000,
            restart_n: launch.restart_n,
            interval_started: launch.interval_started,
            ..Slot::default()
        };
        let temper = Temper::parse(launch.env.get("TEMPER").map_or("", String::as_str));
        let shim = Shim {
            alloc: launch.alloc,
            task: launch.task.clone(),
            ports,
            slot: None,
            is_alive: true,
            has_lock: false,
            adopter: None,
            machine: None,
            process: Process::None,
            has_output_ended: false,
            seed,
            note: launch.note.clone(),
            temper: if self.is_calm { temper.calmed() } else { temper },
        };
        let before = self.all.insert(launch.inv, shim);
        assert!(before.is_none(), "invocation {} is given twice", launch.inv);
        Sign::Next(300, Step::Lock)
    }

    /// One step of one invocation. A step of a supervisor that is gone does nothing, but for the end of its task's process.
    pub fn step(&mut self, now: Now, inv: Inv, step: Step, dice: &mut Dice) -> Vec<Sign> {
        let mut signs = Vec::new();
        let Some(shim) = self.all.get_mut(&inv).filter(|shim| shim.is_alive) else { return signs };
        match step {
            Step::Lock => {
                shim.has_lock = true;
                signs.push(Sign::Next(100, Step::Ready));
            }
            Step::Ready => {
                shim.machine = Some(Machine::new(shim.seed, OomRule::Machine));
                self.acts(now, inv, &mut signs, dice);
                signs.push(Sign::Next(dice.between(100, 3_000), Step::Fork));
            }
            Step::Fork => {
                shim.process = Process::Gated;
                let pid = shim.seed.shim_pid + 1;
                self.handle(now, inv, Fact::Forked { pid, start: now.mono.0 / 10_000_000 }, &mut signs, dice);
            }
            Step::Execute => self.execute(now, inv, &mut signs, dice),
            Step::End(exit) => self.end(now, inv, exit, &mut signs, dice),
            Step::Output if !shim.has_output_ended => {
                shim.has_output_ended = true;
                self.handle(now, inv, Fact::OutputEnded, &mut signs, dice);
            }
            Step::Output => {}
            Step::Swept => self.handle(now, inv, Fact::Swept { found_n: 0 }, &mut signs, dice),
            Step::Drained => self.handle(now, inv, Fact::Drained, &mut signs, dice),
            Step::Due => self.handle(now, inv, Fact::Due, &mut signs, dice),
        }
        signs
    }

    /// The agent asks for the end, or for a signal.
    pub fn hear(&mut self, now: Now, inv: Inv, op: dunlin::core::Op, dice: &mut Dice) -> Vec<Sign> {
        let mut signs = Vec::new();
        let Some(shim) = self.all.get_mut(&inv).filter(|shim| shim.is_alive && shim.machine.is_some()) else { return signs };
        match op {
            dunlin::core::Op::Stop { signal, timeout_ms } => {
                let timeout_ms = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
                self.handle(now, inv, Fact::Stop { signal, timeout_ms }, &mut signs, dice);
            }
            dunlin::core::Op::Signal { signal } => signal_reaches(shim, signal, &mut signs),
        }
        signs
    }

    fn execute(&mut self, now: Now, inv: Inv, signs: &mut Vec<Sign>, dice: &mut Dice) {
        let Some(shim) = self.all.get_mut(&inv) else { return };
        if shim.process != Process::Gated {
            return;
        }
        if let Some(errno) = shim.temper.exec_errno {
            shim.process = Process::Gone;
            return self.handle(now, inv, Fact::ExecFailed { stage: 12, errno }, signs, dice);
        }
        shim.process = Process::Runs;
        if let Some((after_ms, exit)) = shim.temper.ends {
            signs.push(Sign::Next(after_ms * 1_000 + 1, Step::End(exit)));
        }
        self.executed(now, inv, signs, dice);
    }

    fn executed(&mut self, now: Now, inv: Inv, signs: &mut Vec<Sign>, dice: &mut Dice) {
        let Some(shim) = self.all.get(&inv) else { return };
        let (alloc, task) = (shim.alloc, shim.task.clone());
        self.handle(now, inv, Fact::Executed, signs, dice);
        let twins = self.all.iter().filter(|(_, other)| other.alloc == alloc && other.task == task && other.is_running());
        let twins: Vec<Inv> = twins.map(|(inv, _)| *inv).collect();
        assert!(twins.len() == 1, "two lives of alloc {alloc} task {task} at once: {twins:?}");
        self.lives.of(alloc, &task).starts.push((inv, now.wall));
    }

    fn end(&mut self, now: Now, inv: Inv, exit: Exit, signs: &mut Vec<Sign>, dice: &mut Dice) {
        let Some(shim) = self.all.get_mut(&inv) else { return };
        if !matches!(shim.process, Process::Runs | Process::Ends) {
            return;
        }
        if shim.slot.is_some_and(|slot| slot.started == Now::default()) {
            // Killed at its gate: the pipe that tells of a failed execution closes all the same.
            self.executed(now, inv, signs, dice);
        }
        let Some(shim) = self.all.get_mut(&inv) else { return };
        shim.process = Process::Gone;
        if !shim.temper.holds_output {
            signs.push(Sign::Next(500, Step::Output));
        }
        let code = if exit.kind == ExitKind::Signal { 128 + exit.code } else { exit.code };
        let signal = if exit.kind == ExitKind::Signal { exit.code } else { 0 };
        let (alloc, task) = (shim.alloc, shim.task.clone());
        self.lives.of(alloc, &task).ends.push((inv, now.wall, code, signal));
        self.handle(now, inv, Fact::Exited(exit), signs, dice);
    }

    fn handle(&mut self, now: Now, inv: Inv, fact: Fact, signs: &mut Vec<Sign>, dice: &mut Dice) {
        let Some(machine) = self.all.get_mut(&inv).and_then(|shim| shim.machine.as_mut()) else { return };
        machine.handle(now, fact);
        self.acts(now, inv, signs, dice);
    }

    fn acts(&mut self, now: Now, inv: Inv, signs: &mut Vec<Sign>, dice: &mut Dice) {
        let Some(shim) = self.all.get_mut(&inv) else { return };
        let Some(mut machine) = shim.machine.take() else { return };
        while let Some(act) = machine.poll() {
            match act {
                Act::Save => shim.slot = Some(*machine.slot()),
                Act::Tell => signs.push(Sign::Tell(*machine.slot())),
                Act::OpenGate => signs.push(Sign::Next(dice.between(200, 4_000), Step::Execute)),
                Act::Signal(signal) => signal_reaches(shim, signal, signs),
                Act::KillAll => signal_reaches(shim, SIGKILL, signs),
                Act::Reap => {}
                Act::Sweep => signs.push(Sign::Next(100, Step::Swept)),
                Act::Drain => signs.push(Sign::Next(100, Step::Drained)),
                Act::Leave => {
                    shim.is_alive = false;
                    shim.has_lock = false;
                    signs.push(Sign::Left);
                }
            }
        }
        if let Some(due) = machine.due() {
            let wait_us = u64::try_from(due.since(now.mono).as_micros()).unwrap_or(u64::MAX);
            signs.push(Sign::Next(wait_us + 1, Step::Due));
        }
        shim.machine = Some(machine);
    }

    /// A supervisor is killed, and its task with it.
    pub fn kill(&mut self, inv: Inv) {
        let Some(shim) = self.all.get_mut(&inv).filter(|shim| shim.is_alive) else { return };
        shim.is_alive = false;
        shim.has_lock = false;
        shim.process = Process::Gone;
        let (alloc, task) = (shim.alloc, shim.task.clone());
        self.lives.of(alloc, &task).killed_n += 1;
    }

    /// The folders that an agent finds at its start. Whoever has not taken the lock yet may find it taken.
    pub fn scan(&mut self, boot_id: [u8; 16], dice: &mut Dice) -> Vec<shim::Found> {
        let mut found = Vec::new();
        self.all.retain(|inv, shim| {
            if shim.is_alive && !shim.has_lock {
                if dice.percent(50) {
                    return false;
                }
                shim.has_lock = true;
            }
            let folder = shim::Found {
                inv: *inv,
                task: Some((shim.alloc, shim.task.clone())),
                note: shim.note.clone(),
                slot: shim.slot,
                is_newer: false,
                is_alive: shim.is_alive,
                lock: None,
            };
            if folder.is_void(boot_id) {
                return false;
            }
            found.push(folder);
            true
        });
        found
    }

    /// From now on tasks are well: those that end do so, those that hang let go.
    pub fn calm(&mut self) -> Vec<(Inv, Sign)> {
        self.is_calm = true;
        let mut signs = Vec::new();
        for (inv, shim) in &mut self.all {
            shim.temper = shim.temper.calmed();
            if shim.is_running()
                && let Some((after_ms, exit)) = shim.temper.ends
            {
                signs.push((*inv, Sign::Next(after_ms * 1_000, Step::End(exit))));
            }
        }
        signs
    }
}

fn signal_reaches(shim: &mut Shim, signal: i32, signs: &mut Vec<Sign>) {
    if !matches!(shim.process, Process::Gated | Process::Runs) {
        return;
    }
    let killed = exit(ExitKind::Signal, signal);
    if signal == SIGKILL {
        shim.process = Process::Ends;
        signs.push(Sign::Next(200 + shim.temper.stuck_ms * 1_000, Step::End(killed)));
    } else if let Some(after_ms) = shim.temper.obeys_ms.filter(|_| shim.process == Process::Runs) {
        // As a program that has asked to be told of it would.
        signs.push(Sign::Next(200 + after_ms * 1_000, Step::End(if after_ms % 2 == 0 { killed } else { exit(ExitKind::Code, 0) })));
    }
}

impl Shim {
    /// A process of the task exists.
    pub fn is_running(&self) -> bool {
        matches!(self.process, Process::Gated | Process::Runs | Process::Ends)
    }

    /// Its task was executed and has not ended.
    pub fn has_started(&self) -> bool {
        self.is_running() && self.slot.is_some_and(|slot| slot.started != Now::default())
    }

    /// Nothing is left to come: the task is over, or never was.
    pub fn is_over(&self) -> bool {
        !self.is_alive || self.slot.is_some_and(|slot| matches!(slot.phase, Phase::Done | Phase::ExecFailed))
    }
}
