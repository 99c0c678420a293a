//! Scripts played against one allocation in a small world that keeps what a disk and the supervisors would keep.

use dunlin_hal::clock::Wall;
use dunlin_hal::entropy::Entropy;

use super::*;
use crate::spec::{DriverKind, KillPolicy, LogPolicy, Program, Resources, RestartMode, RestartPolicy};
use crate::task::restart::WITHIN_POLICY;

struct Seed(u8);

impl Entropy for Seed {
    fn seed(&mut self, seed: &mut [u8; 32]) {
        seed.fill(self.0);
    }
}

/// A group from `name word.. ; name word..`. Words: a role (`pre pre+ post post+ stop`), `leader`, `batch`, `delay=ms`, `attempts=n`,
/// `interval=s`, `mode=delay`, `kill=ms`, `invalid`.
fn group(text: &str) -> AllocSpec {
    let tasks = text.split(';').map(|text| {
        let mut words = text.split_whitespace();
        let mut spec = TaskSpec {
            name: words.next().unwrap().to_owned(),
            driver: DriverKind::RawExec,
            program: Ok(Program::default()),
            user: String::new(),
            env: Default::default(),
            meta: Default::default(),
            resources: Resources::default(),
            restart: RestartPolicy { attempts: 2, interval_ms: 60_000, delay_ms: 1_000, mode: RestartMode::Fail, on_success: true },
            kill: KillPolicy::default(),
            shutdown_delay_ms: 0,
            logs: LogPolicy::default(),
            role: Role::Main,
            is_leader: false,
            templates: Vec::new(),
            payload_file: String::new(),
        };
        for word in words {
            match word.split_once('=').unwrap_or((word, "")) {
                ("pre", _) => spec.role = Role::Prestart { is_sidecar: false },
                ("pre+", _) => spec.role = Role::Prestart { is_sidecar: true },
                ("post", _) => spec.role = Role::Poststart { is_sidecar: false },
                ("post+", _) => spec.role = Role::Poststart { is_sidecar: true },
                ("stop", _) => spec.role = Role::Poststop,
                ("leader", _) => spec.is_leader = true,
                ("batch", _) => spec.restart.on_success = false,
                ("delay", ms) => spec.shutdown_delay_ms = ms.parse().unwrap(),
                ("attempts", n) => spec.restart.attempts = n.parse().unwrap(),
                ("interval", s) => spec.restart.interval_ms = s.parse::<u64>().unwrap() * 1000,
                ("mode", _) => spec.restart.mode = RestartMode::Delay,
                ("kill", ms) => spec.kill.timeout_ms = ms.parse().unwrap(),
                ("invalid", _) => spec.program = Err("command is missing".to_owned()),
                _ => panic!("{word}"),
            }
        }
        if spec.role != Role::Main {
            spec.restart.on_success = spec.role.is_sidecar();
        }
        spec
    });
    AllocSpec { tasks: tasks.collect(), ..AllocSpec::default() }
}

/// A supervisor and its folder.
struct Shim {
    task: usize,
    inv: Inv,
    window: Window,
    /// `None`: not yet born.
    news: Option<News>,
}

impl Shim {
    fn lives(&self) -> bool {
        matches!(self.news, None | Some(News::Running { .. }))
    }
}

struct World {
    alloc: Alloc,
    rng: Rng,
    now: Now,
    shims: Vec<Shim>,
    /// What the last commit holds.
    states: Vec<TaskState>,
    memos: Vec<TaskMemo>,
    /// Soft changes reach the disk only with the next C0.
    is_lazy: bool,
    /// Folders to remove with the next commit.
    consumed: Vec<Inv>,
    is_stopping: bool,
    effects: Vec<String>,
}

impl World {
    fn new(tasks: &str, is_lazy: bool) -> Self {
        let now = Now { mono: Mono(5_000_000_000), wall: Wall(1_795_331_137_000_000_000) };
        let alloc = Alloc::new(group(tasks), now);
        let (states, memos) = (alloc.states().to_vec(), alloc.memos().to_vec());
        let rng = Rng::new(&mut Seed(7));
        Self { alloc, rng, now, shims: Vec::new(), states, memos, is_lazy, consumed: Vec::new(), is_stopping: false, effects: Vec::new() }
    }

    fn handle(&mut self, event: Event) {
        self.alloc.handle(self.now, &mut self.rng, event);
        self.drain();
    }

    fn drain(&mut self) {
        let mut is_soft = false;
        while let Some(effect) = self.alloc.poll() {
            let name = |task: usize| self.alloc.spec().tasks[task].name.clone();
            match effect {
                Effect::Changed(durability) => {
                    is_soft = self.is_lazy && durability == Durability::C1;
                    self.effects.push(format!("{durability:?}"));
                    if !is_soft {
                        (self.states, self.memos) = (self.alloc.states().to_vec(), self.alloc.memos().to_vec());
                        let consumed = std::mem::take(&mut self.consumed);
                        self.shims.retain(|shim| !consumed.contains(&shim.inv));
                    }
                }
                Effect::Launch { task, inv, window } => {
                    self.effects.push(format!("launch {}", name(task)));
                    assert!(!self.shims.iter().any(|shim| shim.task == task && shim.lives()), "two of one task");
                    assert_ne!(inv, Inv(0));
                    self.shims.push(Shim { task, inv, window, news: None });
                }
                Effect::Stop { task, inv, signal, timeout_ms } => {
                    self.effects.push(format!("stop {} {signal} {timeout_ms}", name(task)));
                    assert!(self.shims.iter().any(|shim| shim.task == task && shim.inv == inv && shim.lives()));
                }
                Effect::Signal { task, inv, signal } => {
                    self.effects.push(format!("signal {} {signal}", name(task)));
                    assert!(self.shims.iter().any(|shim| shim.task == task && shim.inv == inv && shim.lives()));
                }
                Effect::Consumed { task, inv } => {
                    self.effects.push(format!("consumed {}", name(task)));
                    assert!(!self.shims.iter().any(|shim| shim.inv == inv && shim.lives()), "a living folder is removed");
                    self.consumed.push(inv);
                    if !is_soft {
                        self.shims.retain(|shim| shim.inv != inv);
                    }
                }
            }
        }
        for (i, state) in self.alloc.states().iter().enumerate() {
            assert!(state.events.len() <= crate::event::EVENTS_MAX);
            assert_eq!(state.phase == TaskPhase::Dead, self.alloc.tasks[i].is_dead());
        }
    }

    /// News of the living invocation of a task.
    fn news(&mut self, task: usize, news: News) -> bool {
        let Some(shim) = self.shims.iter_mut().find(|shim| shim.task == task && shim.lives()) else { return false };
        shim.news = Some(news.clone());
        let inv = shim.inv;
        self.handle(Event::News { task, inv, news });
        true
    }

    fn exit(&mut self, task: usize, code: i32, signal: i32) -> bool {
        let shim = self.shims.iter().find(|shim| shim.task == task && shim.lives());
        let started_at = match shim.and_then(|shim| shim.news.as_ref()) {
            Some(News::Running { started_at, .. }) => *started_at,
            _ => self.now.wall,
        };
        let finished_at = self.now.wall;
        self.news(task, News::Exited { code, signal, oom_killed: false, message: String::new(), started_at, finished_at })
    }

    /// The agent dies and comes back; with `was_rebooted` the whole machine. What is half born goes on, or is removed as if it was
    /// never spawned.
    fn crash(&mut self, was_rebooted: bool, keeps_unborn: bool) {
        let spec = self.alloc.spec().clone();
        self.alloc = Alloc::restore(spec, self.states.clone(), self.memos.clone(), self.is_stopping);
        self.consumed.clear();
        self.shims.retain(|shim| (shim.news.is_some() || keeps_unborn) && !was_rebooted);
        if was_rebooted {
            self.now.mono = Mono(1_000_000_000);
        }
        let found: Vec<_> = self.shims.iter().map(|shim| (shim.task, shim.inv, Some(shim.window), shim.news.clone())).collect();
        for (task, inv, window, news) in found.clone() {
            self.handle(Event::Adopted { task, inv, window, news, is_followed: false, was_rebooted: false });
        }
        for task in 0..self.states.len() {
            let was_found = found.iter().any(|&(i, inv, ..)| i == task && inv != self.memos[task].consumed);
            if !was_found && self.states[task].phase != TaskPhase::Dead {
                self.handle(Event::Missing { task, was_rebooted });
            }
        }
        self.handle(Event::Run);
    }

    fn step(&mut self, step: &str) {
        self.now.mono = self.now.mono.after_ms(10);
        self.now.wall.0 += 10_000_000;
        let mut words = step.split_whitespace();
        let (verb, who) = (words.next().unwrap(), words.next().unwrap_or(""));
        let task = self.alloc.index(who).unwrap_or(usize::MAX);
        let arg = words.next().unwrap_or("0");
        let was_done = match verb {
            "run" => {
                self.handle(Event::Run);
                true
            }
            "up" => self.news(task, News::Running { started_at: self.now.wall, pid: 1 }),
            "exit" => {
                let (code, signal) = arg.split_once('/').unwrap_or((arg, "0"));
                self.exit(task, code.parse().unwrap(), signal.parse().unwrap())
            }
            "fail" => self.news(task, News::LaunchFailed { error: "binary not found".to_owned(), is_recoverable: false }),
            "retry" => self.news(task, News::LaunchFailed { error: "no answer".to_owned(), is_recoverable: true }),
            "lost" => self.news(task, News::Lost),
            "wait" => {
                let due = self.alloc.due().expect("something to wait for");
                let gone = i64::try_from(due.since(self.now.mono).as_nanos()).unwrap();
                self.now = Now { mono: due, wall: Wall(self.now.wall.0 + gone) };
                self.handle(Event::Due);
                true
            }
            "stop" | "stop!" => {
                self.is_stopping = true;
                self.handle(Event::Stop { reason: who.to_owned(), no_shutdown_delay: verb == "stop!" });
                true
            }
            "restart" => {
                let ask = match who {
                    "*" => RestartAsk::Running,
                    "all" => RestartAsk::All,
                    name => RestartAsk::One(name),
                };
                let done = self.alloc.restart(self.now, &mut self.rng, ask);
                self.drain();
                assert_eq!(done, Ok(()));
                true
            }
            "signal" => {
                let done = self.alloc.signal(self.now, who, 10, "SIGUSR1");
                self.drain();
                done.is_ok()
            }
            "broken" => {
                self.handle(Event::SetupFailed { error: "no space left".to_owned() });
                true
            }
            "crash" | "crash+" | "reboot" => {
                self.crash(verb == "reboot", verb == "crash+");
                true
            }
            _ => panic!("{step}"),
        };
        assert!(was_done, "{step}: nobody there");
    }

    /// `name phase: event event ..` a line, and the client status.
    fn told(&self) -> String {
        let mut lines = String::new();
        for (spec, state) in self.alloc.spec().tasks.iter().zip(self.alloc.states()) {
            let failed = if state.is_failed { "!" } else { "" };
            let events: Vec<String> = state.events.iter().map(|e| word(&e.kind)).collect();
            lines += &format!("{} {:?}{failed}: {}\n", spec.name, state.phase, events.join(" "));
        }
        lines + self.alloc.client_status().0.as_str()
    }
}

fn word(kind: &EventKind) -> String {
    match kind {
        EventKind::Received => "Received".to_owned(),
        EventKind::Setup { .. } => "Setup".to_owned(),
        EventKind::FailedValidation { .. } => "FailedValidation".to_owned(),
        EventKind::SetupFailure { .. } => "SetupFailure".to_owned(),
        EventKind::DriverFailure { .. } => "DriverFailure".to_owned(),
        EventKind::Driver { message } => format!("Driver({})", message.replace(' ', "-")),
        EventKind::Started => "Started".to_owned(),
        EventKind::Terminated { exit_code, signal: 0, .. } => format!("Terminated({exit_code})"),
        EventKind::Terminated { exit_code, signal, .. } => format!("Terminated({exit_code}/{signal})"),
        EventKind::Restarting { delay_ns: 0, reason } if reason.is_empty() => "Restarting(0s)".to_owned(),
        EventKind::Restarting { reason, .. } if reason == WITHIN_POLICY => "Restarting".to_owned(),
        EventKind::Restarting { .. } => "Restarting(delay)".to_owned(),
        EventKind::NotRestarting { reason } => format!("NotRestarting({})", reason.split(' ').next().unwrap()),
        EventKind::RestartSignaled { .. } => "RestartSignaled".to_owned(),
        EventKind::Signaling { .. } => "Signaling".to_owned(),
        EventKind::Killing { reason, .. } if reason.is_empty() => "Killing".to_owned(),
        EventKind::Killing { reason, .. } => format!("Killing({reason})"),
        EventKind::Killed { .. } => "Killed".to_owned(),
        EventKind::SiblingFailed { task } => format!("Sibling({task})"),
        EventKind::LeaderDead => "LeaderDead".to_owned(),
        EventKind::MainTasksDead => "MainTasksDead".to_owned(),
        EventKind::WaitingShutdownDelay { .. } => "WaitingDelay".to_owned(),
        EventKind::SkippingShutdownDelay { .. } => "SkippingDelay".to_owned(),
        EventKind::Unhealthy { message } => format!("Unhealthy({message})"),
    }
}

/// Plays `script` (steps apart by `,`) and compares what is told in the end.
#[track_caller]
fn check(tasks: &str, script: &str, expected: &str) -> World {
    let mut world = World::new(tasks, false);
    for step in script.split(',') {
        world.step(step.trim());
    }
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(world.told(), expected.join("\n"));
    world
}

/// As [`check`], and then again with the agent dying before any one step, with a disk that holds every change and one that holds
/// only what had to be held: what is told is the same.
#[track_caller]
fn check_crashes(tasks: &str, script: &str, expected: &str) {
    let told = check(tasks, script, expected).told();
    let steps: Vec<&str> = script.split(',').map(str::trim).collect();
    for (is_lazy, crash) in [(false, "crash"), (true, "crash"), (false, "crash+"), (true, "crash+")] {
        for at in 1..=steps.len() {
            let mut world = World::new(tasks, is_lazy);
            for (i, step) in steps.iter().enumerate() {
                if i == at {
                    world.step(crash);
                }
                // A delay whose beginning was not on disk begins again.
                if i >= at && step.starts_with("up") && world.alloc.due().is_some() {
                    world.step("wait");
                }
                world.step(step);
            }
            if at == steps.len() {
                world.step(crash);
            }
            assert_eq!(world.told(), told, "{crash} before step {at}, lazy disk: {is_lazy}");
            world.step(crash);
            assert_eq!(world.told(), told, "{crash} before step {at} and at the end, lazy disk: {is_lazy}");
        }
    }
}

// ---- the live answers (spec/golden/live) ----

#[test]
fn telemetry_runs_and_is_stopped() {
    let expected = "sample Running: Received Setup Started
        running";
    let world = check("sample kill=3000 mode=delay attempts=3", "run, up sample", expected);
    assert_eq!(world.effects, ["C1", "launch sample", "C1"]);

    // The restart is the exit by a signal its handler answers with code 0.
    let script = "run, up sample, signal sample, signal sample, exit sample 0, wait, up sample, stop, exit sample 0";
    let expected = "sample Dead: Setup Started Signaling Signaling Terminated(0) Restarting Started Killing Terminated(0) Killed
        complete";
    let world = check("sample kill=3000 mode=delay attempts=3", script, expected);
    let effects = "C1|launch sample|C1|C1|signal sample 10|C1|signal sample 10|C1|consumed sample|launch sample|C1|\
        C0|stop sample 2 3000|C0|consumed sample";
    assert_eq!(world.effects.join("|"), effects);
    let state = &world.alloc.states()[0];
    assert_eq!((state.restarts_n, state.finished_at), (1, world.now.wall));
    check_crashes(
        "sample kill=3000 mode=delay attempts=3",
        "run, up sample, exit sample 0, wait, up sample, stop, exit sample 0",
        "sample Dead: Received Setup Started Terminated(0) Restarting Started Killing Terminated(0) Killed
        complete",
    );
    assert!(state.events.iter().any(|e| e.kind == EventKind::Killing { timeout_ns: 3_000_000_000, reason: String::new() }));
}

#[test]
fn crashy_loop_uses_up_its_attempts() {
    let script = "run, up segv, exit segv 139/11, wait, up segv, exit segv 139/11, wait, up segv, exit segv 139/11";
    let expected = "segv Dead!: Setup Started Terminated(139/11) Restarting Started Terminated(139/11) Restarting Started \
        Terminated(139/11) NotRestarting(Exceeded)
        failed";
    check_crashes("segv", script, expected);
    let world = check("segv", script, expected);
    let state = &world.alloc.states()[0];
    assert_eq!((state.restarts_n, state.is_failed), (2, true));
    let reason = "Exceeded allowed attempts 2 in interval 1m0s and mode is \"fail\"".to_owned();
    assert_eq!(state.events.last().map(|e| e.kind.clone()), Some(EventKind::NotRestarting { reason }));
    assert!(world.shims.is_empty() && world.alloc.is_over() && world.alloc.due().is_none());
}

#[test]
fn crashy_missing_is_unrecoverable() {
    let expected = "nobinary Dead!: Received Setup DriverFailure NotRestarting(Error)
        failed";
    check_crashes("nobinary", "run, fail nobinary", expected);
    let world = check("nobinary", "run, fail nobinary", expected);
    let state = &world.alloc.states()[0];
    assert!(state.started_at.is_unset() && !state.finished_at.is_unset() && state.restarts_n == 0);
}

const PIPELINE: &str = "prepare pre batch attempts=1; progress pre+ batch attempts=1; sum leader batch attempts=1; report stop attempts=1";

#[test]
fn pipeline_runs_in_order_and_its_leader_ends_it() {
    let script = "run, up prepare, up progress, exit prepare 0, up sum, exit sum 0, exit progress 130/2, up report, exit report 0";
    // Live, `prepare` and `sum` get a Killing too: http-api.md 12.6.
    let expected = "prepare Dead: Received Setup Started Terminated(0)
        progress Dead: Received Setup Started LeaderDead Killing Terminated(130/2) Killed
        sum Dead: Received Setup Started Terminated(0)
        report Dead: Received Setup Started Terminated(0)
        complete";
    check_crashes(PIPELINE, script, expected);
    let world = check(PIPELINE, script, expected);
    let launches: Vec<_> = world.effects.iter().filter(|e| e.starts_with("launch") || e.starts_with("stop")).collect();
    assert_eq!(launches, ["launch prepare", "launch progress", "launch sum", "stop progress 2 5000", "launch report"]);
}

#[test]
fn flood_ends_well() {
    let expected = "write Dead: Received Setup Started Terminated(0)
        complete";
    check_crashes("write batch", "run, up write, exit write 0", expected);
    // So fast that the agent never saw it run.
    let world = check("write batch", "run, exit write 0", expected);
    // The end is on disk before its folder goes.
    assert_eq!(world.effects.join("|"), "C1|launch write|C0|consumed write");
}

// ---- the table of runtime.md 1.4 ----

#[test]
fn restarts() {
    let expected = "a Running: Received Setup Started RestartSignaled Terminated(130/2) Restarting(0s) Started
        running";
    check_crashes("a attempts=0", "run, up a, restart a, exit a 130/2, up a", expected);
    check("a attempts=0", "run, up a, restart *, exit a 130/2, up a", expected);
    let world = check("a attempts=0 delay=500", "run, up a, restart a, exit a 130/2, up a", expected);
    assert_eq!(world.alloc.memos()[0].window.count, 0, "an asked restart is not charged");
    assert!(world.effects.join("|").contains("C0|stop a 2 5000|C1|consumed a|launch a"));

    check_crashes(
        "a",
        "run, retry a, wait, up a",
        "a Running: Received Setup DriverFailure Restarting Started
        running",
    );
    check_crashes(
        "a mode=delay attempts=1 interval=600",
        "run, up a, exit a 1, wait, up a, exit a 2",
        "a Pending: Received Setup Started Terminated(1) Restarting Started Terminated(2) Restarting(delay)
        pending",
    );
}

#[test]
fn a_program_that_cannot_be_read_fails_validation() {
    let expected = "a Dead!: Received Setup FailedValidation NotRestarting(Error)
        b Dead: Received Sibling(a) Killing
        failed";
    check_crashes("a invalid; b post", "run", expected);
    let expected = "a Dead!: Received Setup FailedValidation NotRestarting(Policy)
        b Dead: Received Setup Sibling(a) Killing Started Terminated(130/2) Killed
        failed";
    check("a invalid attempts=0; b", "run, up b, exit b 130/2", expected);
}

#[test]
fn setup_failure_fails_every_task() {
    let expected = "a Dead!: Received SetupFailure
        b Dead!: Received SetupFailure
        failed";
    let world = check("a; b stop", "broken", expected);
    assert_eq!(world.effects, ["C0"]);
}

#[test]
fn stops() {
    let told = "a Dead: Received Setup Started Killing Terminated(143/15) Killed
        complete";
    check_crashes("a", "run, up a, stop, exit a 143/15", told);
    // Before it was let go, before its first news, in its restart delay.
    check("a", "stop", "a Dead: Received Killing\ncomplete");
    check_crashes(
        "a",
        "run, up a, exit a 1, stop",
        "a Dead: Received Setup Started Terminated(1) Restarting Killing
        complete",
    );
    let launching = check("a", "run, stop, up a, exit a 0", "a Dead: Received Setup Killing Started Terminated(0) Killed\ncomplete");
    assert_eq!(launching.effects.join("|"), "C1|launch a|C0|C1|stop a 2 5000|C0|consumed a");
    check("a", "run, stop, fail a", "a Dead: Received Setup Killing DriverFailure\ncomplete");
    check("a", "run, stop moved", "a Pending: Received Setup Killing(moved)\npending");
    // A restart that was asked for loses against the stop.
    check(
        "a",
        "run, up a, restart a, stop, exit a 0",
        "a Dead: Received Setup Started RestartSignaled Killing Terminated(0) Killed\ncomplete",
    );
    // A stop that is said twice is one.
    check("a", "run, up a, stop, stop, exit a 0, stop", "a Dead: Received Setup Started Killing Terminated(0) Killed\ncomplete");
}

#[test]
fn shutdown_delays() {
    let waiting = "a Pending: Received Setup Started Killing WaitingDelay
        pending";
    let world = check("a delay=3000", "run, up a, stop", waiting);
    assert_eq!(world.alloc.due(), Some(world.now.mono.after_ms(3000)));
    assert!(!world.effects.iter().any(|e| e.starts_with("stop")));
    let told = "a Dead: Received Setup Started Killing WaitingDelay Terminated(0) Killed
        complete";
    check_crashes("a delay=3000", "run, up a, stop, wait, exit a 0", told);
    // The task ends the delay by ending.
    let world = check("a delay=3000", "run, up a, stop, exit a 0", told);
    assert_eq!(world.alloc.due(), None);
    let told = "a Dead: Received Setup Started Killing SkippingDelay Terminated(0) Killed
        complete";
    check_crashes("a delay=3000", "run, up a, stop!, exit a 0", told);
    let told = "a Dead: Received Setup Started Killing WaitingDelay SkippingDelay Terminated(0) Killed
        complete";
    check_crashes("a delay=3000", "run, up a, stop, stop!, exit a 0", told);
    let told = "a Dead: Received Setup Killing Started SkippingDelay Terminated(0) Killed
        complete";
    check("a delay=3000", "run, stop, stop!, up a, exit a 0", told);
    // The agent was away for a second of the three.
    let mut world = check("a delay=3000", "run, up a, stop", waiting);
    world.now.mono = world.now.mono.after_ms(990);
    world.now.wall.0 += 990_000_000;
    world.step("crash");
    assert_eq!(world.alloc.due(), Some(world.now.mono.after_ms(2000)));
}

#[test]
fn a_kill_ends_the_leader_then_the_others_then_sidecars() {
    let tasks = "side pre+; lead leader; a; b; late post+; end stop";
    let up = "run, up side, up lead, up a, up b, up late";
    let script = format!("{up}, stop, exit lead 0, exit b 0, exit a 0, exit late 0, exit side 0, up end, exit end 0");
    let told = "side Dead: Received Setup Started Killing Terminated(0) Killed
        lead Dead: Received Setup Started Killing Terminated(0) Killed
        a Dead: Received Setup Started Killing Terminated(0) Killed
        b Dead: Received Setup Started Killing Terminated(0) Killed
        late Dead: Received Setup Started Killing Terminated(0) Killed
        end Dead: Received Setup Started Terminated(0)
        complete";
    check_crashes(tasks, &script, told);
    let world = check(tasks, &script, told);
    let order: Vec<_> = world.effects.iter().filter_map(|e| e.strip_prefix("stop ")).map(|e| e.split(' ').next().unwrap()).collect();
    assert_eq!(order, ["lead", "a", "b", "side", "late"]);
    // While the leader ends, a task in its delay does not start again.
    let script = "run, up lead, up a, exit a 1, stop, wait, exit lead 0";
    let told = "lead Dead: Received Setup Started Killing Terminated(0) Killed
        a Dead: Received Setup Started Terminated(1) Restarting Killing
        complete";
    check("lead leader; a", script, told);
}

#[test]
fn a_failed_task_ends_its_siblings() {
    let told = "a Dead!: Received Setup Started Terminated(1) NotRestarting(Policy)
        b Dead: Received Setup Started Sibling(a) Killing Terminated(143/15) Killed
        side Dead: Received Setup Started Sibling(a) Killing Terminated(0) Killed
        failed";
    check_crashes("a attempts=0; b; side pre+", "run, up side, up a, up b, exit a 1, exit b 143/15, exit side 0", told);
    // A leader that failed is a failed sibling; one that ended well wins over a failed task.
    let told = "a Dead!: Received Setup Started Terminated(1) NotRestarting(Policy)
        b Dead: Received Setup Started Sibling(a) Killing Terminated(0) Killed
        failed";
    check("a leader attempts=0; b", "run, up a, up b, exit a 1, exit b 0", told);
    let told = "a Dead: Received Setup Started Terminated(0)
        b Dead: Received Setup Started LeaderDead Killing Terminated(0) Killed
        complete";
    check("a leader batch; b", "run, up a, up b, exit a 0, exit b 0", told);
    // A failed preparation: nothing else ever starts, but what comes last.
    let told = "p Dead!: Received Setup Started Terminated(1) NotRestarting(Policy)
        a Dead: Received Sibling(p) Killing
        end Dead: Received Setup Started Terminated(0)
        failed";
    check_crashes("p pre attempts=0; a; end stop", "run, up p, exit p 1, up end, exit end 0", told);
    // A last task that fails harms nobody.
    let told = "a Dead: Received Setup Started Terminated(0)
        end Dead!: Received Setup Started Terminated(1) NotRestarting(Policy)
        failed";
    check("a batch; end stop attempts=0", "run, up a, exit a 0, up end, exit end 1", told);
}

#[test]
fn sidecars_alone_are_ended() {
    let told = "a Dead: Received Setup Started Terminated(0)
        s Dead: Received Setup Started MainTasksDead Killing Terminated(0) Killed
        t Dead: Received Setup Started MainTasksDead Killing Terminated(0) Killed
        complete";
    check_crashes("a batch; s pre+; t post+", "run, up s, up a, up t, exit a 0, exit s 0, exit t 0", told);
    // An ephemeral poststart task is waited for.
    let told = "a Dead: Received Setup Started Terminated(0)
        p Running: Received Setup Started
        running";
    check("a batch; p post", "run, up a, exit a 0, up p", told);
    // A sidecar that ends well is started again.
    let told = "s Running: Received Setup Started Terminated(0) Restarting Started
        a Running: Received Setup Started
        running";
    check_crashes("s pre+; a batch", "run, up s, up a, exit s 0, wait, up s", told);
}

#[test]
fn the_status_of_moments() {
    check(
        PIPELINE.replace("leader", "").as_str(),
        "run",
        "prepare Pending: Received Setup
        progress Pending: Received Setup
        sum Pending: Received
        report Pending: Received
        pending",
    );
    check("p pre; a", "run, up p", "p Running: Received Setup Started\na Pending: Received\nrunning");
    check("a batch; end stop", "run, up a, exit a 0", "a Dead: Received Setup Started Terminated(0)\nend Pending: Received Setup\npending");
    assert_eq!(client_status(&[]), (ClientStatus::Pending, ""));
    let world = World::new("a", false);
    assert_eq!(world.alloc.client_status().1, "No tasks have started");
}

#[test]
fn a_lost_supervisor_is_charged() {
    let told = "a Running: Received Setup Started Terminated(-1) Restarting Started
        running";
    check("a", "run, up a, lost a, wait, up a", told);
    check("a", "run, lost a", "a Pending: Received Setup Terminated(-1) Restarting\npending");
    check("a", "run, up a, stop, lost a", "a Dead: Received Setup Started Killing Terminated(-1) Killed\ncomplete");
    // The folder went while the agent was away.
    let mut world = World::new("a; b delay=9000", false);
    for step in ["run", "up a", "up b"] {
        world.step(step);
    }
    world.shims.clear();
    world.step("crash");
    assert_eq!(
        world.told(),
        "a Pending: Received Setup Started Terminated(-1) Restarting\nb Pending: Received Setup Started Terminated(-1) Restarting\npending"
    );
    assert_eq!(world.alloc.memos()[0].window.count, 1);
    let mut world = check("b delay=9000", "run, up b, stop", "b Pending: Received Setup Started Killing WaitingDelay\npending");
    world.shims.clear();
    world.step("crash");
    assert_eq!(world.told(), "b Dead: Received Setup Started Killing WaitingDelay Terminated(-1) Killed\ncomplete");
}

// ---- reboots ----

#[test]
fn a_reboot_starts_tasks_at_once_and_charges_nothing() {
    let told = "a Running: Received Setup Started Driver(restarted-after-reboot) Started
        running";
    let world = check("a attempts=1", "run, up a, reboot, up a", told);
    let fresh = Window { count: 0, start: Mono(1_000_000_000) };
    assert_eq!(world.alloc.memos()[0].window, fresh);
    // In its restart delay; before its first start.
    let told = "a Pending: Received Setup Started Terminated(1) Restarting Driver(restarted-after-reboot)
        pending";
    let world = check("a", "run, up a, exit a 1, reboot", told);
    assert_eq!((world.alloc.due(), world.shims.len()), (None, 1));
    check("a", "run, reboot, up a", "a Running: Received Setup Started\nrunning");
    check("a", "reboot, up a", "a Running: Received Setup Started\nrunning");
    // The soft rows were lost with the power.
    let mut world = World::new("a", true);
    for step in ["run", "up a", "reboot", "up a"] {
        world.step(step);
    }
    assert_eq!(world.told(), "a Running: Received Setup Started\nrunning");
}

#[test]
fn a_reboot_ends_what_was_being_stopped() {
    check("a", "run, up a, stop, reboot", "a Dead: Received Setup Started Killing Killed\ncomplete");
    check("a", "run, stop, reboot", "a Dead: Received Setup Killing\ncomplete");
    // The other's turn to be killed had not come.
    let told = "lead Dead: Received Setup Started Killing Killed
        a Dead: Received Setup Started Killing
        end Running: Received Setup Started
        running";
    check("lead leader; a; end stop", "run, up lead, up a, stop, reboot, up end", told);
}

#[test]
fn a_reboot_prepares_again_only_for_a_main_task() {
    let told = "p Dead: Received Setup Started Terminated(0) Driver(restarted-after-reboot) Started Terminated(0)
        a Running: Received Setup Started Driver(restarted-after-reboot) Started
        running";
    check("p pre; a", "run, up p, exit p 0, up a, reboot, up p, exit p 0, up a", told);
    let told = "p Dead: Received Setup Started Terminated(0)
        a Dead: Received Setup Started Terminated(0)
        end Running: Received Setup Started Driver(restarted-after-reboot) Started
        running";
    check("p pre; a batch; end stop", "run, up p, exit p 0, up a, exit a 0, up end, reboot, up end", told);
}

// ---- restarts of all, refusals ----

#[test]
fn a_restart_of_all_goes_by_the_roles() {
    let tasks = "p pre; s pre+; a; end stop";
    let up = "run, up p, up s, exit p 0, up a";
    let script = format!("{up}, restart all, exit a 0, exit s 0, up s, up p, exit p 0, up a");
    let told = "p Dead: Received Setup Started Terminated(0) RestartSignaled Restarting(0s) Started Terminated(0)
        s Running: Received Setup Started RestartSignaled Terminated(0) Restarting(0s) Started
        a Running: Received Setup Started RestartSignaled Terminated(0) Restarting(0s) Started
        end Pending: Received
        running";
    let world = check(tasks, &script, told);
    let launches: Vec<_> = world.effects.iter().filter_map(|e| e.strip_prefix("launch ")).collect();
    assert_eq!(launches, ["p", "s", "a", "p", "s", "a"]);
    // The second round waits until the last of the first has ended.
    let effects = world.effects.join("|");
    assert!(effects.contains("consumed a|C1|consumed s|launch p|launch s|"), "{effects}");
    // One that is being launched is restarted as soon as it runs.
    let told = "a Running: Received Setup Started RestartSignaled Terminated(0) Restarting(0s) Started
        b Running: Received Setup RestartSignaled Started Terminated(0) Restarting(0s) Started
        running";
    check("a; b", "run, up a, restart all, up b, exit a 0, exit b 0, up a, up b", told);
    // A second wish changes nothing but the events.
    let told = "a Running: Received Setup Started RestartSignaled RestartSignaled Terminated(0) Restarting(0s) Started
        running";
    check("a", "run, up a, restart a, restart all, exit a 0, up a", told);
}

#[test]
fn refusals() {
    #[track_caller]
    fn refused(tasks: &str, script: &str, ask: Result<RestartAsk<'_>, Refusal>, text: &str) {
        let mut world = World::new(tasks, false);
        for step in script.split(',') {
            world.step(step.trim());
        }
        let before = world.told();
        let refusal = ask.and_then(|ask| world.alloc.restart(world.now, &mut world.rng, ask));
        assert_eq!(refusal.map_err(|r| r.to_string()), Err(text.to_owned()));
        assert_eq!((world.alloc.poll(), world.told()), (None, before));
    }
    let over = "restart of an alloc that should not run";
    refused("a batch", "run, up a, exit a 0", RestartAsk::new("", false), over);
    refused("a batch", "run, up a, exit a 0", RestartAsk::new("", true), over);
    refused("a", "run, up a, stop", RestartAsk::new("", true), over);
    refused("a batch", "run, up a, exit a 0", RestartAsk::new("a", false), "Task not running");
    refused("a", "run", RestartAsk::new("a", false), "Task not running");
    refused("a", "run, up a, exit a 1", RestartAsk::new("a", false), "Task not running");
    refused("a", "run, up a, stop", RestartAsk::new("a", false), "Task not running");
    refused("a", "run, up a", RestartAsk::new("zz", false), "Could not find task runner for task: zz");
    refused("a", "run, up a", RestartAsk::new("a", true), "task name cannot be set when restarting all tasks");

    let mut world =
        check("a; b; c", "run, up b", "a Pending: Received Setup\nb Running: Received Setup Started\nc Pending: Received Setup\nrunning");
    let mut signal = |task| world.alloc.signal(world.now, task, 10, "SIGUSR1").map_err(|r| r.to_string());
    assert_eq!(signal("zz"), Err("Task not found".to_owned()));
    assert_eq!(signal("a"), Err("Task not running".to_owned()));
    assert_eq!(signal("b"), Ok(()));
    let missed =
        "2 errors occurred:\n\t* Failed to signal task: a, err: Task not running\n\t* Failed to signal task: c, err: Task not running\n\n";
    assert_eq!(signal(""), Err(missed.to_owned()));
    let missed = "1 error occurred:\n\t* Failed to signal task: x, err: Task not running\n\n";
    assert_eq!(Refusal::NotSignaled { tasks: vec!["x".to_owned()] }.to_string(), missed);
    let signals = world.alloc.states()[1].events.iter().filter(|e| matches!(e.kind, EventKind::Signaling { .. })).count();
    assert_eq!(signals, 2);
}

// ---- news of other lives ----

#[test]
fn news_of_another_invocation_is_dropped() {
    let mut world = check("a", "run, up a", "a Running: Received Setup Started\nrunning");
    let stale = |news| Event::News { task: 0, inv: Inv(1), news };
    world.handle(stale(News::Running { started_at: Wall(5), pid: 1 }));
    world.handle(Event::News { task: 7, inv: Inv(1), news: News::Lost });
    assert_eq!((world.alloc.late_n(), world.effects.len()), (2, 3));
    // Its end at least lets its folder go.
    world.handle(stale(News::Lost));
    assert_eq!(world.effects.last().map(String::as_str), Some("consumed a"));
    let inv = world.shims[0].inv;
    world.step("exit a 0");
    world.handle(Event::News { task: 0, inv, news: News::Lost });
    assert_eq!(world.told(), "a Pending: Received Setup Started Terminated(0) Restarting\npending");
    assert_eq!(world.alloc.late_n(), 4);
}

#[test]
fn a_consumed_folder_is_only_removed() {
    let expected = "a Pending: Received Setup Started Terminated(1) Restarting\npending";
    let mut world = check("a", "run, up a, exit a 1", expected);
    // The power stayed, the agent died between the commit and the removal.
    let inv = world.alloc.memos()[0].consumed;
    let news = News::Exited { code: 1, signal: 0, oom_killed: false, message: String::new(), started_at: Wall(1), finished_at: Wall(2) };
    world.shims.push(Shim { task: 0, inv, window: Window::default(), news: Some(news) });
    let due = world.alloc.due().unwrap();
    world.step("crash");
    assert_eq!(world.told(), expected);
    assert_eq!((world.alloc.memos()[0].window.count, world.shims.len()), (1, 0));
    // Nor does the agent's death make the delay longer.
    assert_eq!(world.alloc.due(), Some(due));
}

#[test]
fn late_news_of_a_dead_task_is_dropped() {
    let mut world = check("a batch", "run, up a, exit a 0", "a Dead: Received Setup Started Terminated(0)\ncomplete");
    let inv = world.alloc.memos()[0].consumed;
    let effects_n = world.effects.len();
    world.handle(Event::News { task: 0, inv, news: News::Running { started_at: Wall(5), pid: 1 } });
    world.handle(Event::News { task: 0, inv, news: News::Lost });
    assert_eq!((world.alloc.late_n(), world.effects.len()), (2, effects_n));
    assert_eq!(dunlin_hal::count::hits("late_task_news_dropped"), if cfg!(debug_assertions) { 2 } else { 0 });
}

#[test]
fn folders_nobody_wants_are_stopped_or_removed() {
    let alloc = || {
        let states = vec![TaskState { phase: TaskPhase::Dead, ..TaskState::default() }];
        let memos = vec![TaskMemo { consumed: Inv(3), ..TaskMemo::default() }];
        Alloc::restore(group("a"), states, memos, false)
    };
    let check = |inv: u64, news: News, expected: Option<Effect>| {
        let (mut alloc, mut rng) = (alloc(), Rng::new(&mut Seed(1)));
        let before = alloc.states().to_vec();
        alloc.handle(
            Now::default(),
            &mut rng,
            Event::Adopted { task: 0, inv: Inv(inv), window: None, news: Some(news), is_followed: false, was_rebooted: false },
        );
        assert_eq!((alloc.poll(), alloc.poll()), (expected, None));
        assert_eq!(alloc.states(), before);
    };
    let running = || News::Running { started_at: Wall(5), pid: 1 };
    check(3, News::Lost, Some(Effect::Consumed { task: 0, inv: Inv(3) }));
    check(4, News::Lost, Some(Effect::Consumed { task: 0, inv: Inv(4) }));
    check(4, running(), Some(Effect::Stop { task: 0, inv: Inv(4), signal: 2, timeout_ms: 5000 }));
}

#[test]
fn a_restored_row_of_other_shape_is_taken_as_new() {
    let mut rng = Rng::new(&mut Seed(1));
    let mut alloc = Alloc::restore(group("a; b"), vec![TaskState::default(); 3], Vec::new(), false);
    alloc.handle(Now::default(), &mut rng, Event::Run);
    assert_eq!(alloc.states().len(), 2);
    assert_eq!(alloc.poll(), Some(Effect::Changed(Durability::C1)));
    assert!(matches!(alloc.poll(), Some(Effect::Launch { task: 0, .. })));
}

#[test]
fn adoption_brings_the_window_of_the_record() {
    let script = "run, up a, exit a 1, wait, up a, exit a 1, wait, up a";
    let mut world = World::new("a", true);
    for step in script.split(',') {
        world.step(step.trim());
    }
    assert_eq!(world.memos[0].window.count, 0, "nothing of it was committed");
    // Only the newest folder is left.
    world.shims.drain(..2);
    world.step("crash");
    assert_eq!(world.alloc.memos()[0].window.count, 2);
    world.step("exit a 1");
    assert!(world.told().ends_with("NotRestarting(Exceeded)\nfailed"), "{}", world.told());
}

// ---- anything in any order ----

#[test]
fn random_lives_keep_the_invariants() {
    const GROUPS: [&str; 6] = [
        "a",
        "a batch; b leader delay=2000; end stop",
        PIPELINE,
        "p pre; s pre+; a attempts=0; b mode=delay attempts=1 delay=700; q post; t post+; end stop attempts=1",
        "a invalid; b; s pre+",
        "a leader; b; c attempts=9 batch",
    ];
    for seed in 0..240u8 {
        let mut dice = Rng::new(&mut Seed(seed));
        let tasks = GROUPS[usize::from(seed) % GROUPS.len()];
        let mut world = World::new(tasks, seed % 2 == 0);
        let n = world.states.len();
        let mut was_dead = vec![false; n];
        for _ in 0..160 {
            world.now.mono = world.now.mono.after_ms(dice.below(900));
            world.now.wall.0 += i64::try_from(dice.below(900)).unwrap() * 1_000_000;
            let task = usize::try_from(dice.below(n as u64)).unwrap();
            let mut may_revive = false;
            match dice.below(24) {
                0..=5 => drop(world.news(task, News::Running { started_at: world.now.wall, pid: 1 })),
                6..=8 => drop(world.exit(task, i32::try_from(dice.below(2)).unwrap(), 0)),
                9 => drop(world.news(task, News::LaunchFailed { error: String::new(), is_recoverable: dice.below(2) == 0 })),
                10 => drop(world.news(task, News::Lost)),
                11 => world.handle(Event::News { task, inv: Inv(dice.word()), news: News::Lost }),
                12..=14 => world.handle(Event::Due),
                15 => {
                    let ask = [RestartAsk::Running, RestartAsk::All, RestartAsk::One("b")][usize::try_from(dice.below(3)).unwrap()];
                    let was_taken = world.alloc.restart(world.now, &mut world.rng, ask).is_ok();
                    may_revive = was_taken && ask == RestartAsk::All;
                    world.drain();
                }
                16 => {
                    let _ = world.alloc.signal(world.now, "", 10, "SIGUSR1");
                    world.drain();
                }
                17 if dice.below(6) == 0 => {
                    world.is_stopping = true;
                    world.handle(Event::Stop { reason: String::new(), no_shutdown_delay: dice.below(2) == 0 });
                }
                18 => {
                    may_revive = true;
                    world.crash(false, dice.below(2) == 0);
                }
                19 if dice.below(4) == 0 => {
                    may_revive = true;
                    world.crash(true, false);
                }
                20 if dice.below(9) == 0 => world.handle(Event::SetupFailed { error: String::new() }),
                _ => world.handle(Event::Run),
            }
            for (i, state) in world.alloc.states().iter().enumerate() {
                let is_dead = state.phase == TaskPhase::Dead;
                assert!(is_dead || !was_dead[i] || may_revive, "seed {seed}: task {i} came back");
                was_dead[i] = is_dead;
                assert!(!is_dead || !state.finished_at.is_unset());
                assert!(!is_dead || !world.shims.iter().any(|shim| shim.task == i && shim.lives()), "seed {seed}: {i} lives on");
            }
        }
        // Whatever happened, a stop brings it to its end.
        world.is_stopping = true;
        world.handle(Event::Run);
        world.handle(Event::Stop { reason: String::new(), no_shutdown_delay: true });
        for _ in 0..100 {
            world.now.mono = world.now.mono.after_ms(3_600_000);
            world.handle(Event::Due);
            for task in 0..n {
                world.exit(task, 0, 0);
            }
        }
        assert!(world.alloc.is_over() && world.alloc.due().is_none(), "seed {seed}: {}", world.told());
        assert!(world.alloc.client_status().0.is_terminal());
        world.handle(Event::Due);
        assert!(world.alloc.poll().is_none());
    }
}
