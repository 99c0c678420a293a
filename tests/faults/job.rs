//! Jobs made for faults, and what must hold of the states of their tasks.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// A task that runs a shell script in its own folder.
pub fn task(name: &str, script: &str) -> Value {
    json!({
        "Name": name,
        "Driver": "raw_exec",
        "Config": { "command": "/bin/sh", "args": ["-c", script] },
        "Resources": { "CPU": 20, "MemoryMB": 64 },
        "LogConfig": { "MaxFiles": 2, "MaxFileSizeMB": 1 },
    })
}

/// A job of one group with one task. Nothing of it is tried again unless a test asks for it.
pub fn job(id: &str, kind: &str, task: Value) -> Value {
    let disk_mb = task["LogConfig"]["MaxFiles"].as_u64().unwrap_or(0) * task["LogConfig"]["MaxFileSizeMB"].as_u64().unwrap_or(0) + 10;
    let mut group = json!({
        "Name": "g",
        "EphemeralDisk": { "SizeMB": disk_mb },
        "RestartPolicy": { "Attempts": 0, "Mode": "fail", "Interval": 3_600_000_000_000_u64, "Delay": 0 },
        "Tasks": [task],
    });
    if kind == "batch" || kind == "service" {
        group["ReschedulePolicy"] = json!({ "Attempts": 0, "Unlimited": false });
    }
    json!({ "Job": { "ID": id, "Type": kind, "Datacenters": ["*"], "TaskGroups": [group] } })
}

/// Lets a job's task start again after `delay_ms`, for ever.
pub fn restarting(mut job: Value, delay_ms: u64) -> Value {
    let attempts = if delay_ms > 1_000 { 10 } else { 100_000 };
    job["Job"]["TaskGroups"][0]["RestartPolicy"] =
        json!({ "Attempts": attempts, "Mode": "fail", "Interval": 7 * 86_400_000_000_000_u64, "Delay": delay_ms * 1_000_000 });
    job
}

/// The state of the one task of an allocation.
#[track_caller]
pub fn state(alloc: &Value) -> &Value {
    let states = alloc["TaskStates"].as_object().expect("task states");
    assert_eq!(states.len(), 1);
    states.values().next().expect("one task")
}

/// Its events.
#[track_caller]
pub fn events(alloc: &Value) -> &[Value] {
    state(alloc)["Events"].as_array().expect("events")
}

/// The types of its events.
#[track_caller]
pub fn kinds(alloc: &Value) -> Vec<&str> {
    events(alloc).iter().map(|event| event["Type"].as_str().expect("a type")).collect()
}

/// What must be the same before and after the agent was killed: events are, but for times that nobody had stored yet.
#[track_caller]
pub fn life(alloc: &Value) -> (Value, Vec<&str>, &Value, &Value) {
    (alloc["ID"].clone(), kinds(alloc), &state(alloc)["StartedAt"], &state(alloc)["Restarts"])
}

/// What may follow an event. `None` = the ring begins here.
fn follows(before: Option<&str>, kind: &str) -> bool {
    match before {
        None => true,
        Some("Received") => matches!(kind, "Task Setup" | "Killing"),
        Some("Task Setup") => matches!(kind, "Started" | "Killing"),
        Some("Started") => matches!(kind, "Terminated" | "Killing" | "Restart Signaled" | "Signaling"),
        Some("Restart Signaled") => matches!(kind, "Terminated" | "Killing"),
        Some("Signaling") => matches!(kind, "Terminated" | "Killing" | "Restart Signaled" | "Signaling"),
        Some("Killing") => matches!(kind, "Terminated" | "Started"),
        Some("Terminated") => matches!(kind, "Restarting" | "Not Restarting" | "Killed"),
        Some("Restarting") => matches!(kind, "Started" | "Killing"),
        Some("Not Restarting" | "Killed") => false,
        Some(_) => false,
    }
}

/// No event is doubled, missing or out of order, and none is older than the one before it.
#[track_caller]
pub fn check_events(alloc: &Value) {
    let all = kinds(alloc);
    let mut before = None;
    for kind in &all {
        assert!(follows(before, kind), "{kind} after {before:?} in {all:?}\n{alloc:#}");
        before = Some(kind);
    }
    let times: Vec<i64> = events(alloc).iter().map(|event| event["Time"].as_i64().expect("a time")).collect();
    assert!(times.is_sorted(), "{all:?} {times:?}");
}

/// The runtime folders of an agent's invocations.
pub fn invocations(agent: &Path) -> Vec<PathBuf> {
    let list = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut all: Vec<PathBuf> = list(agent.join("run")).flat_map(|node| list(node.join("t"))).collect();
    all.sort();
    all
}

/// The task's own folder of an allocation, as the host sees it.
pub fn folder(agent: &Path, alloc: &Value) -> PathBuf {
    let states = alloc["TaskStates"].as_object().expect("task states");
    agent.join("data/alloc").join(alloc["ID"].as_str().expect("an id")).join(states.keys().next().expect("a task"))
}

/// The whole output of the one task of an allocation: its files one after the other, none missing. Also how many there are.
#[track_caller]
pub fn output(agent: &Path, alloc: &Value, stream: &str) -> (Vec<u8>, usize) {
    let folder = folder(agent, alloc);
    let task = folder.file_name().expect("a name").to_str().expect("UTF-8");
    let logs = folder.with_file_name("alloc").join("logs");
    let prefix = format!("{task}.{stream}.");
    let mut found: Vec<u32> = std::fs::read_dir(&logs)
        .expect("logs")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok())
        .collect();
    found.sort_unstable();
    assert_eq!(found, (0..u32::try_from(found.len()).expect("few")).collect::<Vec<_>>(), "{}", logs.display());
    let files = found.iter().map(|n| std::fs::read(logs.join(format!("{prefix}{n}"))).expect("a log"));
    (files.collect::<Vec<_>>().concat(), found.len())
}

/// The output is exactly the lines numbered from 0, each `line(n)`; gives how many.
#[track_caller]
pub fn check_numbered(bytes: &[u8], line: impl Fn(u64) -> String) -> u64 {
    let mut rest = bytes;
    let mut n = 0;
    while !rest.is_empty() {
        let want = line(n);
        let got = rest.get(..want.len()).unwrap_or(rest);
        let at = bytes.len() - rest.len();
        assert!(got == want.as_bytes(), "line {n} at byte {at}: {:?} instead of {want:?}", String::from_utf8_lossy(got));
        rest = &rest[want.len()..];
        n += 1;
    }
    n
}
