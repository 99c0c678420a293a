//! One seed: a drawn life of an agent, its jobs, its clients and its misfortunes, and what must be true when all is calm again.
//!
//! Each step has dice of its own, so that a run with some steps left out does the others as before (`main.rs` makes failures small so).

use std::collections::{BTreeMap, BTreeSet};

use dunlin::core::Event;
use dunlin::model::alloc::JobKey;
use dunlin::wire::http::{Method, Request};
use dunlin_hal::budget::{Budget, GENERIC_LINUX};
use dunlin_hal::clock::Wall;
use dunlin_hal::sim::disk::Faults;
use dunlin_runtime::id::{AllocId, Inv};
use dunlin_runtime::task::machine::News;
use dunlin_tests::world::dice::Dice;
use dunlin_tests::world::{About, End, KINDS, Kind, Weather, World};

use crate::jobs::Job;
use crate::settle;

/// Steps of a scenario, and events it has at least.
const STEPS: (u64, u64) = (30, 80);
const EVENTS_MIN: u64 = 200;
/// Steps that are appended until there are enough events.
pub const STEPS_MAX: u64 = 400;

/// A seed's way through the world.
pub struct Scenario {
    world: World,
    /// What each job was last posted as.
    jobs: BTreeMap<&'static str, Job>,
    writes_n: u64,
    /// How often each kind of step comes, of all together.
    weights: Vec<(Act, u64)>,
    /// The step at which the disk is good again.
    heals_at: Option<u64>,
    /// Longest pause between two steps, as an exponent of 10 ms.
    pace: u64,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Register,
    Stop,
    Purge,
    AllocStop,
    AllocRestart,
    Signal,
    Collect,
    List,
    Read,
    Block,
    Leave,
    Garbage,
    Eligible,
    KillShim,
    Stray,
    Poke,
    FullDisk,
    BadDisk,
    Wall,
    Die,
    Trap,
    CleanStop,
    Ports,
    Clock,
    Force,
    Dispatch,
    Scale,
    Revert,
    Evaluate,
    Plan,
    Deployment,
    Stable,
    Sweep,
    Search,
    Wait,
}

/// How often each kind comes when nothing is left out.
const WEIGHTS: [(Act, u64); 35] = [
    (Act::Register, 22),
    (Act::Stop, 5),
    (Act::Purge, 4),
    (Act::AllocStop, 5),
    (Act::AllocRestart, 4),
    (Act::Signal, 3),
    (Act::Collect, 3),
    (Act::List, 8),
    (Act::Read, 5),
    (Act::Block, 4),
    (Act::Leave, 2),
    (Act::Garbage, 4),
    (Act::Eligible, 1),
    (Act::KillShim, 3),
    (Act::Stray, 3),
    (Act::Poke, 2),
    (Act::FullDisk, 2),
    (Act::BadDisk, 1),
    (Act::Wall, 2),
    (Act::Die, 4),
    (Act::Trap, 6),
    (Act::CleanStop, 1),
    (Act::Ports, 1),
    (Act::Clock, 1),
    (Act::Force, 1),
    (Act::Dispatch, 3),
    (Act::Scale, 4),
    (Act::Revert, 3),
    (Act::Evaluate, 2),
    (Act::Plan, 2),
    (Act::Deployment, 3),
    (Act::Stable, 1),
    (Act::Sweep, 1),
    (Act::Search, 1),
    (Act::Wait, 4),
];

/// A job in the only namespace.
fn key(id: &str) -> JobKey {
    JobKey { namespace: "default".to_owned(), id: id.to_owned() }
}

const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What a run tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Of all that happened.
    pub hash: u64,
    /// Events the cores have handled.
    pub events_n: u64,
    /// Steps of the scenario.
    pub steps_n: u64,
    /// Agents killed, power cuts.
    pub ends_n: [u64; 2],
}

/// Runs a seed without the steps in `without`. Panics with the invariant that broke.
pub fn run(seed: u64, without: &BTreeSet<u64>, is_told: bool) -> Outcome {
    let mut dice = Dice::of(seed, 0);
    let weather = weather(&mut dice);
    // Each seed leaves some kinds of steps out: what is rare among all is common among few.
    let weights = WEIGHTS.iter().filter(|(act, _)| *act == Act::Register || dice.percent(75)).copied().collect();
    let pace = dice.between(1, 4);
    let mut scenario =
        Scenario { world: World::new(seed, weather, is_told), jobs: BTreeMap::new(), writes_n: 0, weights, heals_at: None, pace };
    let least = dice.between(STEPS.0, STEPS.1);
    let mut n = 0;
    while n < least || (scenario.world.trace.events_n < EVENTS_MIN && n < STEPS_MAX) {
        if !without.contains(&n) {
            scenario.step(n, &mut Dice::of(seed, 10_000 + n));
        }
        n += 1;
    }
    let mut world = scenario.world;
    settle::settle(&mut world, &mut Dice::of(seed, 3));
    Outcome { hash: world.trace.hash(), events_n: world.trace.events_n, steps_n: n, ends_n: world.ends_n }
}

/// The bounds are small enough to be met.
fn budget(dice: &mut Dice) -> Budget {
    Budget {
        waiters_max: *dice.pick(&[2, 8, 64]),
        batches_max: *dice.pick(&[2, 6, 64]),
        allocs_max: *dice.pick(&[6, 12, 64]),
        allocs_terminal_max: *dice.pick(&[2, 5, 20]),
        alloc_rows_max: *dice.pick(&[12, 40, 64, 256]),
        eval_rows_max: *dice.pick(&[10, 40, 512]),
        soft_rows_max: *dice.pick(&[4, 32]),
        soft_commits_burst: *dice.pick(&[1, 30]),
        job_versions_max: *dice.pick(&[2, 6]),
        children_ended_max: *dice.pick(&[2, 32]),
        ..GENERIC_LINUX
    }
}

fn weather(dice: &mut Dice) -> Weather {
    Weather {
        budget: budget(dice),
        sync_ms: *dice.pick(&[(0, 1), (1, 20), (20, 200)]),
        slow_percent: *dice.pick(&[0, 0, 10, 60]),
        slow_ms: (300, 6_000),
        launch_fails_percent: *dice.pick(&[0, 0, 5]),
        clock_lost_percent: *dice.pick(&[0, 50, 100]),
        cache_bytes: 1 << 20,
        is_lying: false,
    }
}

impl Scenario {
    fn step(&mut self, n: u64, dice: &mut Dice) {
        if self.heals_at.is_some_and(|at| at <= n) {
            self.heals_at = None;
            self.world.fill_disk(None);
            self.world.fail_disk(Faults::default());
        }
        let all: u64 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut draw = dice.below(all);
        let act = self.weights.iter().find(|(_, weight)| {
            let is_it = draw < *weight;
            draw = draw.saturating_sub(*weight);
            is_it
        });
        let act = act.map_or(Act::Wait, |(act, _)| *act);
        let now = self.world.now();
        self.world.trace.line(now, || format!("-- step {n}: {act:?}"));
        self.act(act, n, dice);
        match dice.below(8) {
            0..=2 => {}
            3..=6 => self.world.run_ms(dice.below(10u64.pow(self.pace as u32 % 4 + 1))),
            _ => self.world.run_ms(dice.below(30_000)),
        }
    }

    fn request(&mut self, method: Method, path: &str, body: String, about: About) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request = Request { method, path: path.to_owned(), query: query.to_owned(), body: body.into_bytes(), ..Request::default() };
        self.world.ask(request, about);
    }

    /// An allocation, living ones first.
    fn alloc(&self, dice: &mut Dice) -> Option<AllocId> {
        let allocs = &self.world.ledger.allocs;
        let living: Vec<AllocId> = allocs.values().filter(|alloc| !alloc.is_over()).map(|alloc| alloc.id).collect();
        let all: Vec<AllocId> = allocs.keys().copied().collect();
        let from = if living.is_empty() || dice.percent(15) { all } else { living };
        if from.is_empty() { None } else { Some(*dice.pick(&from)) }
    }

    fn act(&mut self, act: Act, n: u64, dice: &mut Dice) {
        match act {
            Act::Register => self.register(dice),
            Act::Stop | Act::Purge => {
                let id = if dice.percent(15) { *dice.pick(&["t", "p"]) } else { *dice.pick(&IDS) };
                let is_purge = act == Act::Purge;
                let hurry = if dice.percent(20) { "&no_shutdown_delay=true" } else { "" };
                let job = JobKey { namespace: "default".to_owned(), id: id.to_owned() };
                self.request(
                    Method::Delete,
                    &format!("/v1/job/{id}?purge={is_purge}{hurry}"),
                    String::new(),
                    About::Stop { job, is_purge },
                );
            }
            Act::AllocStop => {
                let Some(id) = self.alloc(dice) else { return };
                self.request(Method::Put, &format!("/v1/allocation/{id}/stop"), String::new(), About::AllocStop(id));
            }
            Act::AllocRestart => {
                let Some(id) = self.alloc(dice) else { return };
                let body = *dice.pick(&["", r#"{"TaskName":"main"}"#, r#"{"AllTasks":true}"#]);
                self.request(Method::Put, &format!("/v1/client/allocation/{id}/restart"), body.to_owned(), About::Write);
            }
            Act::Signal => {
                let Some(id) = self.alloc(dice) else { return };
                let signal = *dice.pick(&["SIGHUP", "SIGUSR1", "SIGKILL", "SIGTERM"]);
                let task = *dice.pick(&["", "main"]);
                let body = format!(r#"{{"Signal":"{signal}","Task":"{task}"}}"#);
                self.request(Method::Put, &format!("/v1/client/allocation/{id}/signal"), body, About::Write);
            }
            Act::Collect => {
                let ended: Vec<AllocId> = self.world.ledger.allocs.values().filter(|alloc| alloc.is_over()).map(|alloc| alloc.id).collect();
                if ended.is_empty() || dice.percent(20) {
                    return self.request(Method::Get, "/v1/client/gc", String::new(), About::Read);
                }
                let id = *dice.pick(&ended);
                self.request(Method::Get, &format!("/v1/client/allocation/{id}/gc"), String::new(), About::Write);
            }
            Act::List => {
                let (path, about) = dice
                    .pick(&[
                        ("/v1/allocations", About::Allocs),
                        ("/v1/evaluations", About::Evals),
                        ("/v1/jobs", About::Jobs),
                        ("/v1/job/a/allocations", About::Allocs),
                        ("/v1/job/a/evaluations", About::Evals),
                        ("/v1/allocations?filter=ClientStatus%20%3D%3D%20running&reverse=true", About::Read),
                        ("/v1/deployments", About::Read),
                    ])
                    .clone();
                self.request(Method::Get, path, String::new(), about);
            }
            Act::Read => self.read(dice),
            Act::Block => {
                let (table, of) = dice
                    .pick(&[("allocations", About::Allocs), ("evaluations", About::Evals), ("jobs", About::Jobs), ("job/a", About::Read)])
                    .clone();
                let wait_ms = dice.between(1, 60_000);
                let index = self.world.ledger.meta.index + dice.below(50);
                self.request(
                    Method::Get,
                    &format!("/v1/{table}?index={index}&wait={wait_ms}ms"),
                    String::new(),
                    About::Block { wait_ms, of: Box::new(of) },
                );
            }
            Act::Leave => {
                let waiting = self.world.waiting();
                if !waiting.is_empty() {
                    self.world.leave(*dice.pick(&waiting));
                }
            }
            Act::Garbage => self.garbage(dice),
            Act::Eligible => {
                let word = if dice.percent(40) { "ineligible" } else { "eligible" };
                let body = format!(r#"{{"Eligibility":"{word}"}}"#);
                self.request(Method::Put, "/v1/node/09090909-0909-0909-0909-090909090909/eligibility", body, About::Write);
            }
            Act::KillShim => {
                let living = self.world.living_shims();
                if !living.is_empty() {
                    self.world.kill_shim(*dice.pick(&living));
                }
            }
            Act::Stray => self.stray(dice),
            Act::Poke => self.world.poke(),
            Act::FullDisk => {
                self.world.fill_disk(Some(dice.below(100_000)));
                self.heals_at = Some(n + dice.between(1, 12));
            }
            Act::BadDisk => {
                let errno = Some(5);
                let write = dice.percent(50).then_some(5);
                self.world.fail_disk(Faults { read: None, write, sync: if write.is_none() { errno } else { None } });
                self.heals_at = Some(n + dice.between(1, 8));
            }
            Act::Wall => {
                let by_ms = *dice.pick(&[-86_400_000, -3_000, -1, 1, 3_000, 86_400_000]);
                self.world.step_wall(by_ms);
            }
            Act::Die => self.world.end(if dice.percent(50) { End::Kill } else { End::Cut }),
            Act::Trap => {
                let kind = if dice.percent(30) { Kind::Any } else { *dice.pick(&KINDS) };
                let end = if dice.percent(50) { End::Kill } else { End::Cut };
                self.world.set_trap(kind, dice.between(1, 5) as u32, end);
            }
            Act::CleanStop => {
                if self.world.is_disk_good() {
                    self.world.stop();
                }
            }
            Act::Ports => {
                self.world.foreign_ports = (0..dice.below(3)).map(|_| 8_080 + dice.below(3) as u16).collect();
            }
            Act::Clock => {
                self.writes_n += 1;
                let job = Job::periodic(dice);
                self.post("t", &job, self.writes_n);
            }
            Act::Force => {
                let key = key("t");
                self.request(Method::Put, "/v1/job/t/periodic/force", String::new(), About::Change(key));
            }
            Act::Dispatch => {
                if dice.percent(25) {
                    self.writes_n += 1;
                    let job = Job::parameterized(dice);
                    return self.post("p", &job, self.writes_n);
                }
                let token = if dice.percent(30) { "again" } else { "" };
                let body = r#"{"JobID":"p","Payload":"aGVsbG8="}"#.to_owned();
                self.request(Method::Put, &format!("/v1/job/p/dispatch?idempotency_token={token}"), body, About::Write);
            }
            Act::Scale => {
                let id = *dice.pick(&IDS);
                let group = if dice.percent(85) { "g" } else { "h" };
                let body = format!(r#"{{"Count":{},"Target":{{"Group":"{group}"}}}}"#, dice.below(4));
                self.request(Method::Put, &format!("/v1/job/{id}/scale"), body, About::Change(key(id)));
            }
            Act::Revert => {
                let id = *dice.pick(&IDS);
                let newest = self.world.ledger.jobs.get(&key(id)).map_or(0, |row| row.version);
                let version = newest.saturating_sub(dice.between(0, 2));
                let body = format!(r#"{{"JobID":"{id}","JobVersion":{version}}}"#);
                self.request(Method::Put, &format!("/v1/job/{id}/revert"), body, About::Change(key(id)));
            }
            Act::Stable => {
                let id = *dice.pick(&IDS);
                let version = self.world.ledger.jobs.get(&key(id)).map_or(0, |row| row.version);
                let body = format!(r#"{{"JobID":"{id}","JobVersion":{version},"Stable":{}}}"#, dice.percent(70));
                self.request(Method::Put, &format!("/v1/job/{id}/stable"), body, About::Write);
            }
            Act::Evaluate => {
                let id = *dice.pick(&IDS);
                let body = format!(r#"{{"JobID":"{id}","EvalOptions":{{"ForceReschedule":{}}}}}"#, dice.percent(50));
                self.request(Method::Put, &format!("/v1/job/{id}/evaluate"), body, About::Write);
            }
            Act::Plan => {
                let id = *dice.pick(&IDS);
                let Some(mut job) = self.jobs.get(id).cloned() else { return };
                job.change(dice);
                let body = job.json(id, 0).replacen('{', r#"{"Diff":true,"#, 1);
                self.request(Method::Put, &format!("/v1/job/{id}/plan"), body, About::Write);
            }
            Act::Deployment => {
                let all: Vec<_> = self.world.ledger.deployments.values().filter(|one| one.status.is_active()).map(|one| one.id).collect();
                if all.is_empty() {
                    return;
                }
                let id = *dice.pick(&all);
                let verb = *dice.pick(&["promote", "promote", "fail", "pause", "resume"]);
                let body = format!(r#"{{"DeploymentID":"{id}","All":true,"Pause":{}}}"#, verb == "pause");
                let verb = if verb == "resume" { "pause" } else { verb };
                let of = self.world.ledger.deployments[&id].job.clone();
                self.request(Method::Put, &format!("/v1/deployment/{verb}/{id}"), body, About::Change(of));
            }
            Act::Sweep => self.request(Method::Put, "/v1/system/gc", String::new(), About::Write),
            Act::Search => {
                let context = *dice.pick(&["all", "jobs", "allocs", "evals", "deployment"]);
                let body = format!(r#"{{"Prefix":"{}","Context":"{context}"}}"#, dice.pick(&["", "a", "1"]));
                self.request(Method::Put, "/v1/search", body, About::Write);
            }
            Act::Wait => self.world.run_ms(dice.between(1_000, 120_000)),
        }
    }

    fn register(&mut self, dice: &mut Dice) {
        let id = *dice.pick(&IDS);
        let known = self.jobs.get(id).cloned();
        let is_same_again = known.is_some() && dice.percent(10);
        let mut job = match known {
            Some(job) if dice.percent(90) => job,
            Some(old) => Job::of(old.kind, dice),
            None => Job::draw(dice),
        };
        if !is_same_again {
            job.change(dice);
            self.writes_n += 1;
        }
        let tag = self.writes_n;
        self.jobs.insert(id, job.clone());
        self.post(id, &job, tag);
    }

    fn post(&mut self, id: &str, job: &Job, tag: u64) {
        let about = if job.may_go_back() { About::Change(key(id)) } else { About::Register { job: key(id), tag } };
        self.request(Method::Put, "/v1/jobs", job.json(id, tag), about);
    }

    fn read(&mut self, dice: &mut Dice) {
        let id = *dice.pick(&IDS);
        let alloc = self.alloc(dice).unwrap_or_default();
        let path = match dice.below(8) {
            0 => format!("/v1/job/{id}"),
            1 => format!("/v1/job/{id}/summary"),
            2 => format!("/v1/job/{id}/versions"),
            3 => format!("/v1/allocation/{alloc}"),
            4 => "/v1/agent/health".to_owned(),
            5 => "/v1/nodes".to_owned(),
            6 => format!("/v1/job/{id}/deployments"),
            _ => "/v1/agent/self".to_owned(),
        };
        self.request(Method::Get, &path, String::new(), About::Read);
    }

    /// Bytes that nobody has thought about.
    fn garbage(&mut self, dice: &mut Dice) {
        let method = *dice.pick(&[Method::Get, Method::Put, Method::Post, Method::Delete, Method::Head, Method::Options, Method::Other]);
        let id = *dice.pick(&IDS);
        let alloc = self.alloc(dice).unwrap_or_default();
        let routes = [
            "/v1/jobs".to_owned(),
            format!("/v1/job/{id}"),
            format!("/v1/job/{id}/%00%ff"),
            format!("/v1/allocation/{alloc}"),
            format!("/v1/allocation/{}/stop", "0".repeat(36)),
            format!("/v1/client/allocation/{alloc}/signal"),
            "/v1/validate/job".to_owned(),
            "/v1/allocations".to_owned(),
            "/v1/evaluations".to_owned(),
            format!("/v1/node/{alloc}"),
            "//".to_owned(),
        ];
        let mut path = dice.pick(&routes).clone();
        for _ in 0..dice.below(3) {
            let at = dice.below(path.len() as u64 + 1) as usize;
            if path.is_char_boundary(at) {
                path.insert(at, *dice.pick(&['/', '%', '\u{0}', 'é', '.', '~', '9', '&']));
            }
        }
        let queries = [
            "",
            "index=1&wait=1ms",
            "prefix=zz",
            "prefix=ab",
            "per_page=1&next_token=x",
            "namespace=*",
            "wait=-5s",
            "index=99999999999999999999",
            "pretty=1",
            "stale&=&%",
        ];
        let query = (*dice.pick(&queries)).to_owned();
        let mut body = match dice.below(3) {
            0 => Vec::new(),
            1 => (0..dice.below(60)).map(|_| dice.below(256) as u8).collect(),
            _ => Job::draw(dice).json("garbage", 0).into_bytes(),
        };
        for _ in 0..dice.below(6) {
            if !body.is_empty() {
                let at = dice.below(body.len() as u64) as usize;
                match dice.below(3) {
                    0 => body[at] = dice.below(256) as u8,
                    1 => body.truncate(at),
                    _ => body.insert(at, *dice.pick(b"{}[]\",:0-")),
                }
            }
        }
        // A whole job would be one that nobody has promised anything about.
        if serde_json::from_slice::<serde_json::Value>(&body).is_ok() {
            body.truncate(body.len() / 2);
        }
        if method == Method::Delete || (method != Method::Get && path.ends_with("/stop")) {
            path.push_str("/x/y");
        }
        self.world.ask(Request { method, path, query, body, ..Request::default() }, About::Garbage);
    }

    /// News of an invocation that is over, or never was.
    fn stray(&mut self, dice: &mut Dice) {
        let Some(alloc) = self.alloc(dice) else { return };
        let Some(row) = self.world.ledger.allocs.get(&alloc) else { return };
        let task = &row.tasks[dice.below(row.tasks.len() as u64) as usize];
        let old = task.memo.consumed;
        let inv = if old != Inv(0) && dice.percent(70) { old } else { Inv(dice.word().max(1)) };
        if self.world.shims.all.contains_key(&inv) {
            return;
        }
        let news = match dice.below(3) {
            0 => News::Running { started_at: Wall(5), pid: 1 },
            1 => News::Lost,
            _ => News::Exited { code: 3, signal: 0, oom_killed: false, message: String::new(), started_at: Wall(5), finished_at: Wall(6) },
        };
        let task = task.name.clone();
        self.world.feed_stray(Event::News { alloc, task, inv, news });
    }
}
