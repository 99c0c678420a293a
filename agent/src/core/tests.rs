//! The whole agent on a virtual clock, with a disk that remembers only what was committed and supervisors that outlive it.
//!
//! `World` performs effects one by one and can stop before any of them: what the agent had in memory is gone, what was durable and
//! what ran is not. After each cut a new agent takes up what is left.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_hal::budget::GENERIC_LINUX;
use dunlin_hal::clock::{Mono, Wall};
use dunlin_hal::sim::disk::{Faults, SimDisk};
use dunlin_hal::sim::entropy::SimEntropy;
use dunlin_hal::sim::facts::board;
use dunlin_hal::sim::zones::SimZones;
use dunlin_hal::volume::Space;
use dunlin_runtime::task::restart::Window;
use serde_json::Value;

use super::*;
use crate::api::body::Body;
use crate::config::flags::Parsed;
use crate::config::merge::{Surroundings, draft};
use crate::node::fingerprint;
use crate::node::fingerprint::{Cgroups, Inputs};
use crate::store::backend::Backend;
use crate::store::writer::Writer;

const BOOT: [u8; 16] = [7; 16];

fn setting() -> Setting {
    let mut config = draft(&[], &Parsed::default())
        .unwrap()
        .resolve(&Surroundings { hostname: "field-7".to_owned(), is_root: true, ..Surroundings::default() })
        .unwrap();
    config.raw_exec = true;
    let facts = board();
    let storage = Space { size: 8 << 30, available: 6 << 30, ..Space::default() };
    let found = fingerprint(&Inputs {
        facts: &facts,
        storage: &storage,
        board: "",
        cgroups: Cgroups::default(),
        signals: &["SIGINT"],
        config: &config,
        http: None,
        version: "0",
    });
    let node = Node::new(dunlin_runtime::id::NodeId([9; 16]), found, &config, None);
    Setting {
        config,
        budget: GENERIC_LINUX,
        node,
        zones: Box::new(SimZones::default()),
        host_env: BTreeMap::new(),
        alloc_root: "/alloc".to_owned(),
    }
}

/// A process in the world.
#[derive(Clone, Debug, PartialEq)]
struct Process {
    alloc: AllocId,
    task: String,
    window: Window,
    note: Vec<u8>,
    started: Wall,
    /// Its supervisor has come so far that it tells of it.
    is_born: bool,
    end: Option<News>,
}

struct World {
    core: Core,
    writer: Writer,
    backend: Arc<Backend>,
    now: Now,
    seed: u64,
    boot: [u8; 16],
    processes: BTreeMap<Inv, Process>,
    replies: BTreeMap<RequestId, (u16, String)>,
    requests_n: u64,
    /// Effects performed so far, and the number at which everything stops.
    steps_n: usize,
    cut_at: Option<usize>,
    is_cut: bool,
    commits_n: usize,
    launches: Vec<(AllocId, String)>,
    last_launch: Option<Box<Launch>>,
    /// Of allocations, on the disk.
    folders: BTreeSet<AllocId>,
    /// Changes the setting of every agent but the first.
    tune: fn(&mut Setting),
    due: Option<Mono>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self::on(seed, Backend::memory().unwrap())
    }

    fn on(seed: u64, backend: Backend) -> Self {
        let backend = Arc::new(backend);
        let mut world = Self {
            core: Core::new(setting(), Store::open(backend.clone()).unwrap(), Rng::new(&mut SimEntropy::new(seed))),
            writer: Writer::new(backend.clone()),
            backend,
            now: Now { mono: Mono(1_000_000_000), wall: Wall(1_700_000_000_000_000_000) },
            seed,
            boot: BOOT,
            processes: BTreeMap::new(),
            replies: BTreeMap::new(),
            requests_n: 0,
            steps_n: 0,
            cut_at: None,
            is_cut: false,
            commits_n: 0,
            launches: Vec::new(),
            last_launch: None,
            folders: BTreeSet::new(),
            tune: |_| {},
            due: None,
        };
        world.restore();
        world
    }

    fn restore(&mut self) {
        let mut processes: Vec<_> = self.processes.iter().collect();
        processes.sort_by_key(|(_, process)| process.started);
        let found = processes
            .into_iter()
            .map(|(inv, process)| {
                let running = News::Running { started_at: process.started, pid: 1 };
                let is_alive = process.end.is_none();
                let running = if process.is_born { vec![running] } else { Vec::new() };
                let news = process.end.clone().map_or(running, |end| vec![end]);
                let restarts_n = launch::read_note(&process.note);
                let window = Some(process.window);
                Found { inv: *inv, alloc: process.alloc, task: process.task.clone(), window, restarts_n, news, is_alive }
            })
            .collect();
        let folders: Vec<AllocId> = self.folders.iter().copied().collect();
        self.core.restore(self.now, self.boot, found, &folders).unwrap();
        self.drain();
    }

    /// The agent dies and another takes up what is left. `is_reboot`: every process dies with it.
    fn crash(&mut self, is_reboot: bool) {
        self.seed += 1;
        self.is_cut = false;
        self.cut_at = None;
        if is_reboot {
            self.processes.clear();
            self.boot[0] += 1;
        }
        let store = Store::open(self.backend.clone()).unwrap();
        let mut setting = setting();
        (self.tune)(&mut setting);
        self.core = Core::new(setting, store, Rng::new(&mut SimEntropy::new(self.seed)));
        self.due = None;
        self.restore();
    }

    fn feed(&mut self, event: Event) {
        if !self.is_cut {
            self.core.handle(self.now, event);
            self.drain();
        }
    }

    fn drain(&mut self) {
        while let Some(effect) = self.core.poll() {
            if self.cut_at == Some(self.steps_n) {
                self.is_cut = true;
                return;
            }
            self.steps_n += 1;
            self.perform(effect);
            if self.is_cut {
                return;
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Commit(batch) => {
                self.commits_n += 1;
                self.writer.commit(&batch.rows).unwrap();
                self.feed(Event::Committed(batch.seq));
            }
            Effect::Respond { id, reply } => {
                let mut status = reply.head.status;
                let body = match reply.body {
                    Body::Full(bytes) => String::from_utf8(bytes).unwrap(),
                    Body::Rows(mut rows) => {
                        let (mut out, mut step) = (Vec::new(), Vec::new());
                        let view = self.core.shown().expect("a list is shown when all is durable");
                        loop {
                            match rows.step(&view, &mut step) {
                                Ok(has_more) => {
                                    out.append(&mut step);
                                    if !has_more {
                                        break String::from_utf8(out).unwrap();
                                    }
                                }
                                Err(error) => {
                                    assert!(out.is_empty(), "an error behind {out:?}");
                                    status = error.status;
                                    break error.text;
                                }
                            }
                        }
                    }
                    Body::Machine(_) => "machine".to_owned(),
                };
                self.replies.insert(id, (status, body));
            }
            Effect::Launch(launch) => {
                let alive = self.processes.values().any(|p| p.alloc == launch.alloc && p.task == launch.task && p.end.is_none());
                assert!(!alive, "two lives of one task at once");
                self.launches.push((launch.alloc, launch.task.clone()));
                self.last_launch = Some(launch.clone());
                self.folders.insert(launch.alloc);
                let window = Window { count: launch.restart_n, start: launch.interval_started };
                let (alloc, task, note) = (launch.alloc, launch.task.clone(), launch.note.clone());
                let process = Process { alloc, task, window, note, started: self.now.wall, is_born: true, end: None };
                self.processes.insert(launch.inv, process);
                let news = News::Running { started_at: self.now.wall, pid: 1 };
                self.feed(Event::News { alloc: launch.alloc, task: launch.task.clone(), inv: launch.inv, news });
            }
            Effect::Supervise { inv, op: Op::Stop { signal, .. } } => self.end(inv, 128 + signal, signal),
            Effect::Remove(alloc) => {
                self.folders.remove(&alloc);
                self.feed(Event::Removed(alloc));
            }
            Effect::Supervise { .. } | Effect::Exit => {}
            Effect::Forget { inv, .. } => {
                self.processes.remove(&inv);
            }
            Effect::WakeAt(due) => self.due = due,
        }
    }

    /// A process ends; its supervisor keeps the record.
    fn end(&mut self, inv: Inv, code: i32, signal: i32) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&inv).filter(|process| process.end.is_none()) else { return };
        let news =
            News::Exited { code, signal, oom_killed: false, message: String::new(), started_at: process.started, finished_at: now.wall };
        process.end = Some(news.clone());
        let (alloc, task) = (process.alloc, process.task.clone());
        self.feed(Event::News { alloc, task, inv, news });
    }

    fn end_all(&mut self, code: i32) {
        for inv in self.alive() {
            self.end(inv, code, 0);
        }
    }

    fn alive(&self) -> Vec<Inv> {
        self.processes.iter().filter(|(_, process)| process.end.is_none()).map(|(inv, _)| *inv).collect()
    }

    /// Time passes to the next deadline, at most `limit_ms`; false = there is none before.
    fn wait(&mut self, limit_ms: u64) -> bool {
        let Some(due) = self.due.filter(|due| *due <= self.now.mono.after_ms(limit_ms)) else { return false };
        let passed = due.since(self.now.mono);
        self.now.mono = self.now.mono.max(due);
        self.now.wall = Wall(self.now.wall.0 + i64::try_from(passed.as_nanos()).unwrap());
        self.feed(Event::Due);
        true
    }

    /// Time passes, with all that is due on the way.
    fn pass(&mut self, ms: u64) {
        let end = self.now.mono.after_ms(ms);
        while !self.is_cut && self.wait(u64::try_from(end.since(self.now.mono).as_millis()).unwrap()) {}
        self.advance(end.since(self.now.mono));
    }

    /// Time passes while nobody is awake.
    fn advance(&mut self, passed: std::time::Duration) {
        self.now.mono = self.now.mono.after(passed);
        self.now.wall.0 += i64::try_from(passed.as_nanos()).unwrap();
    }

    fn send(&mut self, method: Method, path: &str, body: &str) -> RequestId {
        self.requests_n += 1;
        let id = RequestId(self.requests_n);
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let request =
            Request { method, path: path.to_owned(), query: query.to_owned(), body: body.as_bytes().to_vec(), ..Request::default() };
        self.feed(Event::Request { id, request, busy_ports: Vec::new() });
        id
    }

    #[track_caller]
    fn ask(&mut self, method: Method, path: &str, body: &str) -> Value {
        let id = self.send(method, path, body);
        let (status, text) = self.replies.remove(&id).expect("an answer");
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    #[track_caller]
    fn get(&mut self, path: &str) -> Value {
        self.ask(Method::Get, path, "")
    }

    /// Event types of the only task of a job's newest allocation.
    fn events(&mut self, job: &str) -> String {
        let allocs = self.get(&format!("/v1/job/{job}/allocations?reverse=true"));
        let states = &allocs[0]["TaskStates"];
        let state = states.as_object().unwrap().values().next().unwrap();
        let words: Vec<&str> = state["Events"].as_array().unwrap().iter().map(|event| event["Type"].as_str().unwrap()).collect();
        words.join(", ")
    }
}

fn job(id: &str, kind: &str, count: u32) -> String {
    format!(
        r#"{{"Job":{{"ID":"{id}","Type":"{kind}","Datacenters":["dc1"],"TaskGroups":[{{"Name":"g","Count":{count},"RestartPolicy":{{"Attempts":1,"Interval":60000000000,"Delay":1000000000,"Mode":"fail"}},"EphemeralDisk":{{"SizeMB":10}},"Tasks":[{{"Name":"t","Driver":"raw_exec","Config":{{"command":"/bin/x"}},"LogConfig":{{"MaxFiles":1,"MaxFileSizeMB":1}},"Resources":{{"CPU":10,"MemoryMB":10}}}}]}}]}}}}"#
    )
}

#[test]
fn a_registration_is_one_batch_and_three_indexes() {
    let mut world = World::new(1);
    let commits_n = world.commits_n;
    let answer = world.ask(Method::Put, "/v1/jobs", &job("j", "service", 2));
    assert_eq!(world.commits_n - commits_n, 1, "job, evaluation, plan and allocations are one batch");
    assert_eq!(world.launches.len(), 2);
    let index = answer["EvalCreateIndex"].as_u64().unwrap();
    let eval = world.get(&format!("/v1/evaluation/{}", answer["EvalID"].as_str().unwrap()));
    let alloc = &world.get("/v1/job/j/allocations")[0];
    let steps = [&answer["JobModifyIndex"], &eval["CreateIndex"], &eval["SnapshotIndex"], &alloc["CreateIndex"], &eval["ModifyIndex"]];
    assert_eq!(steps.map(|step| step.as_u64().unwrap() - index), [0, 0, 0, 1, 2]);
    assert_eq!(eval["Status"], "complete");
    assert_eq!(world.get("/v1/job/j")["Status"], "running");
    assert_eq!(world.get("/v1/job/j/summary")["Summary"]["g"]["Running"], 2);
}

#[test]
fn nothing_is_said_or_started_before_the_commit() {
    let mut world = World::new(1);
    // The next effect is the commit: everything else must still be held.
    world.cut_at = Some(world.steps_n);
    let id = world.send(Method::Put, "/v1/jobs", &job("j", "service", 1));
    assert!(world.is_cut && !world.replies.contains_key(&id) && world.launches.is_empty());
    world.crash(false);
    assert_eq!(world.get("/v1/jobs"), serde_json::json!([]), "what was not durable was never promised");
}

#[test]
fn a_crash_within_policy_restarts_and_then_fails() {
    let mut world = World::new(1);
    world.ask(Method::Put, "/v1/jobs", &job("j", "service", 1));
    world.end_all(139);
    assert_eq!(world.events("j"), "Received, Task Setup, Started, Terminated, Restarting");
    while world.launches.len() < 2 {
        assert!(world.wait(60_000));
    }
    world.end_all(1);
    assert_eq!(
        world.events("j"),
        "Received, Task Setup, Started, Terminated, Restarting, Started, Terminated, Not Restarting, Alloc Unhealthy"
    );
    let alloc = &world.get("/v1/job/j/allocations")[0];
    assert_eq!((&alloc["ClientStatus"], &alloc["ClientDescription"]), (&"failed".into(), &"Failed tasks".into()));
    assert_eq!(world.get("/v1/job/j")["Status"], "dead");
    assert_eq!(world.get("/v1/job/j/summary")["Summary"]["g"]["Failed"], 1);
    assert!(world.processes.is_empty(), "consumed folders are removed");
}

#[test]
fn lives_nobody_has_stored_are_told_once_and_in_their_order() {
    for seed in 0..8 {
        // Invocations are random: whichever of the two folders comes first by name.
        let mut world = World::new(seed);
        world.ask(Method::Put, "/v1/jobs", &job("j", "service", 1));
        let first = world.processes.keys().copied().next().unwrap();
        world.end_all(139);
        while world.launches.len() < 2 {
            assert!(world.wait(3_000));
        }
        assert_eq!(world.processes.len(), 2, "nothing is stored yet, so both folders are there");
        let folder = world.processes[&first].clone();
        world.crash(false);
        assert_eq!(world.events("j"), "Received, Task Setup, Started, Terminated, Restarting, Started");
        // A folder whose removal did not happen is not told again.
        world.end_all(1);
        world.processes.insert(first, folder);
        world.crash(false);
        assert_eq!(
            world.events("j"),
            "Received, Task Setup, Started, Terminated, Restarting, Started, Terminated, Not Restarting, Alloc Unhealthy"
        );
        assert!(world.processes.is_empty());
    }
}

#[test]
fn a_life_that_has_not_begun_is_waited_for() {
    let mut world = World::new(1);
    world.ask(Method::Put, "/v1/jobs", &job("j", "service", 1));
    world.end_all(139);
    while world.launches.len() < 2 {
        assert!(world.wait(3_000));
    }
    let inv = world.alive()[0];
    let process = world.processes.get_mut(&inv).unwrap();
    process.is_born = false;
    let (alloc, task, started_at) = (process.alloc, process.task.clone(), process.started);
    world.crash(false);
    assert_eq!(world.events("j"), "Received, Task Setup, Started, Terminated, Restarting");
    world.processes.get_mut(&inv).unwrap().is_born = true;
    world.feed(Event::News { alloc, task, inv, news: News::Running { started_at, pid: 1 } });
    assert_eq!(world.events("j"), "Received, Task Setup, Started, Terminated, Restarting, Started");
    assert_eq!(world.launches.len(), 2, "nothing was started in its place");
    let state = &world.get("/v1/job/j/allocations")[0]["TaskStates"]["t"];
    let times: Vec<i64> = state["Events"].as_array().unwrap().iter().map(|event| event["Time"].as_i64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn a_stop_tells_its_intent_before_its_signal() {
    let mut world = World::new(1);
    world.ask(Method::Put, "/v1/jobs", &job("j", "service", 1));
    world.ask(Method::Delete, "/v1/job/j", "");
    assert!(world.alive().is_empty());
    assert_eq!(world.events("j"), "Received, Task Setup, Started, Killing, Terminated, Killed");
    let alloc = &world.get("/v1/job/j/allocations")[0];
    assert_eq!((&alloc["DesiredStatus"], &alloc["ClientStatus"]), (&"stop".into(), &"complete".into()));
    let job = world.get("/v1/job/j");
    assert_eq!((&job["Status"], &job["Stop"], &job["Version"]), (&"dead".into(), &true.into(), &1.into()));
}

#[test]
fn a_stopped_allocation_is_replaced_after_its_end() {
    let mut world = World::new(1);
    world.ask(Method::Put, "/v1/jobs", &job("j", "service", 1));
    let first = world.get("/v1/job/j/allocations")[0]["ID"].as_str().unwrap().to_owned();
    world.ask(Method::Put, &format!("/v1/allocation/{first}/stop"), "");
    assert_eq!(world.launches.len(), 2, "the replacement runs; World would have refused two at once");
    let allocs = world.get("/v1/job/j/allocations");
    assert_eq!(allocs[0]["NextAllocation"], allocs[1]["ID"]);
    assert_eq!(allocs[0]["DesiredDescription"], "alloc is being migrated");
    assert_eq!((&allocs[1]["Name"], &allocs[1]["ClientStatus"]), (&"j.g[0]".into(), &"running".into()));
}

#[test]
fn an_unchanged_job_changes_nothing_but_is_evaluated() {
    let mut world = World::new(1);
    let first = world.ask(Method::Put, "/v1/jobs", &job("j", "service", 1));
    let second = world.ask(Method::Put, "/v1/jobs", &job("j", "service", 1));
    assert_eq!(first["JobModifyIndex"], second["JobModifyIndex"]);
    assert_ne!(first["EvalID"], second["EvalID"]);
    assert_eq!(world.get("/v1/job/j")["Version"], 0);
    assert_eq!(world.launches.len(), 1);
    world.ask(Method::Put, "/v1/jobs", &job("j", "service", 2));
    assert_eq!(world.get("/v1/job/j")["Version"], 1);
    assert_eq!(world.launches.len(), 2, "a count alone is no reason to replace what runs");
}

#[test]
fn versions_tell_what_changed() {
    let mut world = World::new(1);
    world.ask(Method::Put, "/v1/jobs", &job("j", "service", 1));
    let read = |world: &mut World, query: &str| world.get(&format!("/v1/job/j/versions{query}"));
    assert_eq!(read(&mut world, "?diffs=true")["Diffs"], Value::Null, "the first has nothing before it");
    world.ask(Method::Put, "/v1/jobs", &job("j", "service", 2));
    world.ask(Method::Delete, "/v1/job/j", "");
    world.ask(Method::Put, "/v1/jobs", &job("j", "service", 2).replace("/bin/x", "/bin/y"));
    assert_eq!(read(&mut world, "")["Diffs"], Value::Null);
    assert_eq!(read(&mut world, "?diffs=false")["Diffs"], Value::Null);

    let changes = |answer: &Value| -> Vec<String> {
        let count = |diff: &Value| diff["TaskGroups"][0]["Fields"][0]["New"].as_str().unwrap_or_default().to_owned();
        let command =
            |diff: &Value| diff["TaskGroups"][0]["Tasks"][0]["Objects"][0]["Fields"][0]["New"].as_str().unwrap_or_default().to_owned();
        let stop = |diff: &Value| diff["Fields"][0]["Name"].as_str().unwrap_or_default().to_owned();
        let diffs = answer["Diffs"].as_array().unwrap();
        diffs.iter().map(|diff| [diff["Type"].as_str().unwrap(), &stop(diff), &count(diff), &command(diff)].join(" ")).collect()
    };
    let answer = read(&mut world, "?diffs=true");
    let versions: Vec<u64> = answer["Versions"].as_array().unwrap().iter().map(|job| job["Version"].as_u64().unwrap()).collect();
    assert_eq!(versions, [3, 2, 1, 0]);
    assert_eq!(changes(&answer), ["Edited Stop  /bin/y", "Edited Stop  ", "Edited  2 "]);
    assert_eq!(changes(&read(&mut world, "?diffs=1&diff_version=1")), ["Edited   /bin/y", "Edited Stop  ", "None   ", "Edited  1 "]);
    for (query, why) in [
        ("diffs=perhaps", "Failed to parse value of \"diffs\" (perhaps) as a bool: strconv.ParseBool: parsing \"perhaps\": invalid syntax"),
        ("diffs=true&diff_version=9", "version 9 not found"),
        ("diffs=true&diff_tag=golden", "tag \"golden\" not found"),
    ] {
        let id = world.send(Method::Get, &format!("/v1/job/j/versions?{query}"), "");
        assert_eq!(world.replies.remove(&id), Some((500, why.to_owned())));
    }
}

#[test]
fn what_finds_no_room_waits_for_it() {
    let mut world = World::new(1);
    let most_mb = setting().node.fingerprint.resources.memory_mb * 6 / 10;
    let wide = job("wide", "batch", 1).replace("\"MemoryMB\":10", &format!("\"MemoryMB\":{most_mb}"));
    world.ask(Method::Put, "/v1/jobs", &wide);
    let second = world.ask(Method::Put, "/v1/jobs", &wide.replace("\"wide\"", "\"second\""));
    assert_eq!(world.launches.len(), 1);
    let eval = world.get(&format!("/v1/evaluation/{}?related=true", second["EvalID"].as_str().unwrap()));
    assert_eq!(eval["FailedTGAllocs"]["g"]["DimensionExhausted"]["memory"], 1);
    assert_eq!((&eval["Status"], &eval["QueuedAllocations"]["g"]), (&"complete".into(), &1.into()));
    assert_eq!(eval["RelatedEvals"][0]["Status"], "blocked");
    assert_eq!(world.get("/v1/job/second")["Status"], "pending");
    world.end_all(0);
    assert_eq!(world.launches.len(), 2, "the blocked evaluation was tried again when the first had ended");
    assert_eq!(world.get("/v1/evaluations?status=blocked"), serde_json::json!([]));
}

#[test]
fn what_matters_more_takes_the_room_of_what_matters_less() {
    let mut world = World::new(1);
    let half_mb = setting().node.fingerprint.resources.memory_mb * 4 / 10;
    let sized = |id: &str, kind: &str, priority: u8| {
        let text = job(id, kind, 1).replace("\"MemoryMB\":10", &format!("\"MemoryMB\":{half_mb}"));
        text.replacen("\"Type\"", &format!("\"Priority\":{priority},\"Type\""), 1)
    };
    world.ask(Method::Put, "/v1/jobs", &sized("low", "service", 20));
    world.ask(Method::Put, "/v1/jobs", &sized("near", "service", 75));
    // A service does not, unless the operator says so; a system job does, but not to those of nearly its own weight.
    let asked = world.ask(Method::Put, "/v1/jobs", &sized("service", "service", 80));
    assert_eq!(world.get(&format!("/v1/evaluation/{}", asked["EvalID"].as_str().unwrap()))["QueuedAllocations"]["g"], 1);
    world.ask(Method::Delete, "/v1/job/service", "");
    world.ask(Method::Put, "/v1/jobs", &sized("system", "system", 80));
    let only = |world: &mut World, job: &str| world.get(&format!("/v1/job/{job}/allocations"))[0].clone();
    let (low, system) = (only(&mut world, "low"), only(&mut world, "system"));
    assert_eq!((low["DesiredStatus"].as_str(), low["ClientStatus"].as_str()), (Some("evict"), Some("complete")));
    assert_eq!(low["DesiredDescription"], format!("Preempted by alloc ID {}", system["ID"].as_str().unwrap()));
    assert_eq!((&low["PreemptedByAllocation"], &system["PreemptedAllocations"][0]), (&system["ID"], &low["ID"]));
    assert_eq!((system["ClientStatus"].as_str(), only(&mut world, "near")["ClientStatus"].as_str()), (Some("running"), Some("running")));
    // Who made room gets it back.
    assert_eq!(world.get("/v1/job/low/evaluations?reverse=true")[0]["Status"], "blocked");
    world.ask(Method::Delete, "/v1/job/system", "");
    let back = world.get("/v1/job/low/allocations?reverse=true")[0].clone();
    assert_eq!(back["ClientStatus"], "running");
    // On a node that takes nothing both wait. When it does again, the first makes room where the second waited: one evaluation of a job
    // is blocked, however many were.
    let node = world.get("/v1/nodes")[0]["ID"].as_str().unwrap().to_owned();
    let turn = |world: &mut World, word: &str| {
        world.ask(Method::Put, &format!("/v1/node/{node}/eligibility"), &format!(r#"{{"Eligibility":"{word}"}}"#));
    };
    turn(&mut world, "ineligible");
    world.ask(Method::Put, "/v1/jobs", &sized("high", "system", 80));
    world.ask(Method::Put, "/v1/jobs", &sized("low", "service", 20).replace("\"Count\":1", "\"Count\":2"));
    turn(&mut world, "eligible");
    let blocked = world.get("/v1/evaluations?status=blocked&job=low");
    assert_eq!(blocked.as_array().unwrap().len(), 1, "{blocked}");
}

#[test]
fn a_full_store_takes_no_job_but_what_makes_room() {
    let path = std::env::temp_dir().join(format!("dunlin-core-full-{}.redb", std::process::id()));
    let mut world = World::on(1, Backend::file(&path, 1 << 20, 64 << 10).unwrap());
    world.ask(Method::Put, "/v1/jobs", &job("j", "service", 1));
    let bytes_max = std::mem::replace(&mut world.core.setting.budget.store_bytes_max, 1);
    let id = world.send(Method::Put, "/v1/jobs", &job("k", "service", 1));
    let (status, text) = world.replies.remove(&id).unwrap();
    assert!(status == 500 && text.contains("the store is full") && text.contains("nothing was changed"), "{status}: {text}");
    let id = world.send(Method::Get, "/v1/agent/health", "");
    assert_eq!(world.replies.remove(&id).unwrap().0, 500);
    world.ask(Method::Delete, "/v1/job/j?purge=true", "");
    assert!(world.alive().is_empty());
    world.core.setting.budget.store_bytes_max = bytes_max;
    world.ask(Method::Put, "/v1/jobs", &job("k", "service", 1));
    // So does the last room of the disk.
    assert!(world.backend.give_up_reserve());
    let id = world.send(Method::Put, "/v1/jobs", &job("l", "service", 1));
    assert!(world.replies.remove(&id).unwrap().1.contains("the disk is full"));
    world.ask(Method::Delete, "/v1/job/k", "");
    // With the next commit there was room again.
    world.ask(Method::Put, "/v1/jobs", &job("l", "service", 1));
    let _ = std::fs::remove_file(path.with_extension("reserve"));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn soft_facts_are_shown_at_once_and_kept_within_seconds() {
    let mut world = World::new(1);
    // Of a type that has no deployment, whose end would be another commit.
    world.ask(Method::Put, "/v1/jobs", &job("j", "system", 1));
    let commits_n = world.commits_n;
    assert_eq!(world.get("/v1/allocations")[0]["ClientStatus"], "running");
    assert!(world.wait(GENERIC_LINUX.soft_age_max_ms), "soft rows have a deadline");
    assert_eq!(world.commits_n, commits_n + 1);
    assert!(!world.wait(24 * 3_600_000), "an agent with nothing to do sets no timer");
    assert_eq!(world.commits_n, commits_n + 1, "and writes nothing");
}

#[test]
fn a_filtered_query_waits_for_its_table_and_its_errors_do_not() {
    let mut world = World::new(1);
    world.ask(Method::Put, "/v1/jobs", &job("j", "service", 1));
    for (query, begin) in [
        ("filter=JobID&index=99999", "failed to create result paginator: failed to read filter expression: 1:6 (5): "),
        ("filter=Nope%3D%3D1&index=99999", "failed to read result page: error finding value in datum: /Nope"),
        ("filter=Nope%3D%3D1", "failed to read result page: "),
    ] {
        let id = world.send(Method::Get, &format!("/v1/allocations?{query}"), "");
        let (status, text) = world.replies.remove(&id).expect("an answer at once");
        assert!(status == 400 && text.starts_with(begin), "{query}: {status} {text}");
    }
    let index = world.get("/v1/allocations")[0]["ModifyIndex"].as_u64().unwrap();
    let waiting = world.send(Method::Get, &format!("/v1/allocations?filter=JobID%3D%3Dk&index={index}"), "");
    assert!(!world.replies.contains_key(&waiting));
    // What the filter drops wakes it too (`spec/http-api.md` 1.7).
    world.ask(Method::Put, "/v1/jobs", &job("l", "service", 1));
    assert_eq!(world.replies.remove(&waiting), Some((200, "[]".to_owned())));
    world.ask(Method::Put, "/v1/jobs", &job("k", "service", 1));
    let found = world.get("/v1/allocations?filter=JobID%3D%3Dk+and+Job.TaskGroups.0.Tasks.0.Driver%3D%3Draw_exec");
    assert_eq!((found.as_array().map(Vec::len), &found[0]["JobID"]), (Some(1), &"k".into()));
}

#[test]
fn a_blocking_query_waits_for_its_table_and_its_time() {
    let mut world = World::new(1);
    world.ask(Method::Put, "/v1/jobs", &job("j", "service", 1));
    world.wait(10_000);
    let index = world.core.store.table_index(Table::Allocs);
    let waiting = world.send(Method::Get, &format!("/v1/allocations?index={index}&wait=1m"), "");
    assert!(!world.replies.contains_key(&waiting));
    world.end_all(0);
    assert!(world.replies.contains_key(&waiting), "a change wakes it");
    let index = world.core.store.table_index(Table::Jobs) + 10_000;
    let late = world.send(Method::Get, &format!("/v1/jobs?index={index}&wait=1m"), "");
    let gone = world.send(Method::Get, &format!("/v1/jobs?index={index}&wait=1m"), "");
    world.feed(Event::Gone(gone));
    while world.wait(70_000) {}
    assert!(world.replies.contains_key(&late), "the end of the wait answers with what there is");
    assert!(!world.replies.contains_key(&gone) && world.core.waiters.is_empty());
}

#[test]
fn a_full_disk_is_told_and_nothing_is_forgotten() {
    let mut world = World::new(1);
    world.ask(Method::Put, "/v1/jobs", &job("j", "service", 1));
    // A batch that cannot be written: its reply says so, and later writes are refused until it is.
    world.core.handle(
        world.now,
        Event::Request {
            id: RequestId(900),
            request: Request {
                method: Method::Put,
                path: "/v1/jobs".to_owned(),
                body: job("k", "service", 1).into_bytes(),
                ..Request::default()
            },
            busy_ports: Vec::new(),
        },
    );
    let batch = loop {
        match world.core.poll() {
            Some(Effect::Commit(batch)) => break batch,
            Some(_) => {}
            None => panic!("no commit"),
        }
    };
    world.feed(Event::CommitFailed { seq: batch.seq, text: "No space left on device".to_owned() });
    let (status, text) = world.replies.remove(&RequestId(900)).unwrap();
    assert_eq!(status, 500);
    assert!(text.contains("No space left on device"), "{text}");
    let id = world.send(Method::Put, "/v1/jobs", &job("l", "service", 1));
    assert_eq!(world.replies.remove(&id).unwrap().0, 500, "no further promise is made");
    let id = world.send(Method::Get, "/v1/agent/health", "");
    world.writer.commit(&batch.rows).unwrap();
    world.feed(Event::Committed(batch.seq));
    assert!(world.replies.contains_key(&id));
    assert_eq!(world.launches.len(), 2, "what was decided happens when it is durable");
    world.ask(Method::Put, "/v1/jobs", &job("l", "service", 1));
}

#[test]
fn facts_wait_while_the_store_cannot_be_read() {
    let disk = SimDisk::default();
    let mut world = World::on(1, Backend::over(Arc::new(disk.clone()), 1 << 20).unwrap());
    world.ask(Method::Put, "/v1/jobs", &job("j", "service", 1));
    disk.fail(Faults { write: Some(5), ..Faults::default() });
    let rows = [(b"x".to_vec(), Some(Vec::new()))].into_iter().collect();
    assert!(world.writer.commit(&rows).is_err() && world.writer.recover().is_err());
    assert!(!world.core.store.is_readable());
    world.end_all(1);
    assert_eq!((world.core.unseen.len(), world.alive().len()), (1, 0));
    disk.fail(Faults::default());
    world.writer.recover().unwrap();
    while world.alive().is_empty() {
        assert!(world.wait(10_000), "its end is taken up when it can be");
    }
    assert!(world.core.unseen.is_empty());
    assert_eq!(world.get("/v1/allocations")[0]["TaskStates"]["t"]["Restarts"], 1);
}

#[test]
fn ended_allocations_lose_their_folders_then_their_rows() {
    let mut world = World::new(1);
    world.core.setting.budget.allocs_terminal_max = 2;
    world.core.setting.budget.alloc_rows_max = 4;
    for n in 0..8 {
        world.ask(Method::Put, "/v1/jobs", &job(&format!("b{n}"), "batch", 1));
        world.end_all(0);
        while world.wait(10_000) {}
    }
    let allocs = world.get("/v1/allocations");
    assert!(allocs.as_array().unwrap().len() <= 5, "{}", allocs.as_array().unwrap().len());
    assert_eq!(world.core.ended.len(), 2);
    assert_eq!(allocs.as_array().unwrap().last().unwrap()["JobID"], "b7");
}

/// A little life: register, crash, restart, stop. Returns what must hold whatever was cut.
fn script(world: &mut World, step: usize) {
    match step {
        0 => {
            world.send(Method::Put, "/v1/jobs", &job("s", "service", 2));
        }
        1 => {
            world.send(Method::Put, "/v1/jobs", &job("b", "batch", 1));
        }
        2 => {
            let first = world.alive().first().copied();
            if let Some(inv) = first {
                world.end(inv, 1, 0);
            }
        }
        3 => while !world.is_cut && world.wait(10_000) {},
        4 => {
            let batch = world.processes.iter().find(|(_, process)| process.end.is_none()).map(|(inv, _)| *inv);
            if let Some(inv) = batch {
                world.end(inv, 0, 0);
            }
        }
        5 => {
            world.send(Method::Delete, "/v1/job/s", "");
        }
        _ => while !world.is_cut && world.wait(10_000) {},
    }
}

const SCRIPT_STEPS: usize = 7;

/// The agent dies before every single effect of that life, once with its processes and once alone; the next one must finish it.
#[test]
fn a_cut_before_every_effect_loses_no_promise() {
    for is_reboot in [false, true] {
        let mut cut_at = 0;
        loop {
            let mut world = World::new(5);
            world.cut_at = Some(cut_at + world.steps_n);
            let mut was_cut = false;
            for step in 0..SCRIPT_STEPS {
                let promised = world.replies.len();
                script(&mut world, step);
                if world.is_cut {
                    was_cut = true;
                    world.crash(is_reboot);
                    if world.replies.len() == promised {
                        // Nobody was answered: the client asks again.
                        script(&mut world, step);
                    }
                }
            }
            world.cut_at = None;
            for job in ["s", "b"] {
                let id = world.send(Method::Get, &format!("/v1/job/{job}"), "");
                let (status, text) = world.replies.remove(&id).unwrap();
                assert_eq!(status, 200, "cut {cut_at} reboot {is_reboot}: {job}: {text}");
            }
            let allocs = world.get("/v1/allocations");
            for alloc in allocs.as_array().unwrap() {
                let is_service = alloc["JobID"] == "s";
                let is_over = ["complete", "failed"].iter().any(|status| alloc["ClientStatus"] == *status);
                let is_wanted = alloc["DesiredStatus"] == "run" && alloc["ClientStatus"] != "failed";
                assert!(!is_service || (!is_wanted && is_over), "cut {cut_at} reboot {is_reboot}: {alloc}");
                for state in alloc["TaskStates"].as_object().unwrap().values() {
                    let events = state["Events"].as_array().unwrap();
                    let count = |word: &str| events.iter().filter(|event| event["Type"] == word).count();
                    assert!(count("Terminated") <= count("Started"), "cut {cut_at} reboot {is_reboot}: {events:?}");
                    assert!(count("Received") <= 1 && count("Killed") <= 1, "cut {cut_at} reboot {is_reboot}: {events:?}");
                }
            }
            for process in world.processes.values().filter(|process| process.end.is_none()) {
                let known = allocs
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|alloc| alloc["ID"] == process.alloc.to_string() && alloc["ClientStatus"] == "running");
                assert!(known, "cut {cut_at} reboot {is_reboot}: a process nobody knows: {process:?}");
            }
            if !was_cut {
                assert!(cut_at > 20, "the script is too short to mean anything: {cut_at} effects");
                break;
            }
            cut_at += 1;
        }
    }
}

mod children;
mod deploys;
mod periodic;
mod sweeps;

#[test]
fn a_device_that_reboots_again_and_again_is_careful() {
    let mut world = World::new(1);
    world.tune = |setting| setting.config.is_boot_loop_damped = true;
    for (id, kind) in [("a", "batch"), ("b", "service"), ("c", "service")] {
        world.ask(Method::Put, "/v1/jobs", &job(id, kind, 1));
    }
    let critical = job("d", "service", 1).replace(r#""Count":1"#, r#""Meta":{"edge.critical":"true"},"Count":1"#);
    world.ask(Method::Put, "/v1/jobs", &critical);
    let jobs = |world: &World| {
        let alloc = |inv: &Inv| world.core.store.view().alloc(world.processes[inv].alloc).unwrap().unwrap();
        let mut all: Vec<String> = world.alive().iter().map(|inv| alloc(inv).job.id).collect();
        all.sort();
        all.join("")
    };
    let reboot = |world: &mut World| {
        world.now.mono = Mono(5_000_000_000);
        world.crash(true);
    };
    for _ in 0..2 {
        reboot(&mut world);
        assert_eq!(jobs(&world), "abcd");
    }
    // One by one, what matters first and batch work last.
    reboot(&mut world);
    assert_eq!(jobs(&world), "d");
    let mut seen = Vec::new();
    for _ in 0..3 {
        while jobs(&world).len() < seen.len() + 2 {
            assert!(world.wait(31_000), "the next is started within half a minute");
        }
        seen.push(jobs(&world));
    }
    assert_eq!(seen.last().unwrap(), "abcd");
    assert!(!seen[1].contains('a'), "{seen:?}");
    reboot(&mut world);
    reboot(&mut world);
    reboot(&mut world);
    // The sixth: nothing but what it cannot do without, until somebody is there.
    assert_eq!(jobs(&world), "d");
    while world.now.mono < Mono(300_000_000_000) && world.wait(300_000) {}
    assert_eq!(jobs(&world), "d");
    world.ask(Method::Put, "/v1/job/b/evaluate", "");
    assert_eq!(jobs(&world), "abcd");
    // Or until it has been up for ten minutes, after which it starts like any other.
    reboot(&mut world);
    assert_eq!(jobs(&world), "d");
    while world.wait(600_000) && world.now.mono < Mono(601_000_000_000) {}
    assert_eq!(jobs(&world), "abcd");
    while world.wait(10_000) {}
    reboot(&mut world);
    assert_eq!(jobs(&world), "abcd");
    // A clean stop is an operator's.
    for _ in 0..4 {
        let now = world.now;
        world.core.close(now);
        world.drain();
        reboot(&mut world);
        assert_eq!(jobs(&world), "abcd");
    }
}
