//! How an agent ends: an ordinary one leaves its tasks to the next, one started with `-dev` leaves nothing at all (decision 27).

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dunlin_tests::real::{Options, Real, Scratch, binary, shims};
use dunlin_tests::{http, skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::eventually;
use super::job::{events, folder, job, kinds, restarting, state, task};

fn is_running(alloc: &Value) -> bool {
    alloc["ClientStatus"] == "running"
}

#[test]
fn a_clean_end_leaves_tasks_and_forgets_nothing() {
    let agent = Real::start("clean", Options::default());
    let obedient = "trap 'exit 5' USR2; echo > local/up; while :; do sleep 1 >/dev/null 2>&1 & wait $!; done";
    agent.run(restarting(job("j", "service", task("t", obedient)), 50).to_string().as_bytes());
    let alloc = agent.allocs("j", 1, is_running).remove(0);
    let up = folder(agent.path(), &alloc).join("local/up");
    eventually(|| up.exists());
    let path = format!("/v1/client/allocation/{}/signal", alloc["ID"].as_str().expect("an id"));
    agent.put(&path, json!({ "Signal": "SIGUSR2" }).to_string().as_bytes());
    let alloc = agent.allocs("j", 1, |alloc| is_running(alloc) && state(alloc)["Restarts"] == 1).remove(0);
    // Events nobody has stored yet: they come with the next commit or with the end.
    assert_eq!(kinds(&alloc), ["Received", "Task Setup", "Started", "Signaling", "Terminated", "Restarting", "Started"]);
    let supervisors = shims(agent.path());
    let (scratch, options) = agent.stop();
    assert_eq!(shims(scratch.path()), supervisors);
    let agent = Real::start_in(scratch, options);
    let after = agent.allocs("j", 1, |_| true).remove(0);
    assert_eq!(after["TaskStates"], alloc["TaskStates"]);
    assert_eq!(after["ID"], alloc["ID"]);
    assert_eq!(shims(agent.path()), supervisors);
    assert_eq!(events(&after)[4]["ExitCode"], 5);
}

/// An agent started with `-dev`, with a folder of its own for what is temporary.
struct Dev {
    child: Child,
    addr: SocketAddr,
    node: String,
}

impl Dev {
    fn start(temporary: &Path, jobs: &[PathBuf]) -> Self {
        let mut command = Command::new(binary());
        command.args(["agent", "-dev", "-http", "127.0.0.1:0"]).args(jobs).env("TMPDIR", temporary);
        let log = std::fs::File::create(temporary.with_extension("log")).expect("a log");
        // Signals of a terminal go to the whole group: only the agent is meant here.
        let mut child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut node = String::new();
        let addr = loop {
            let mut line = String::new();
            let said = || std::fs::read_to_string(temporary.with_extension("log")).unwrap_or_default();
            assert!(lines.read_line(&mut line).expect("it says") > 0, "it ended:\n{}", said());
            if let Some((_, rest)) = line.split_once("Node: ") {
                node = rest.split(['(', ')']).nth(1).expect("an id").to_owned();
            }
            if let Some(addr) = line.trim().strip_prefix("HTTP: http://") {
                break addr.parse().expect("an address");
            }
        };
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        Self { child, addr, node }
    }

    fn get(&self, path: &str) -> Value {
        http::ask(self.addr, "GET", path, b"").expect("it answers").json()
    }

    /// Its allocations, when `is_so` for each.
    fn allocs(&self, n: usize, is_so: impl Fn(&Value) -> bool) -> Vec<Value> {
        let all = || self.get("/v1/allocations?task_states=true").as_array().cloned().unwrap_or_default();
        eventually(|| all().len() == n && all().iter().all(&is_so));
        all()
    }

    fn runtime_dir(&self) -> PathBuf {
        Path::new("/run/dunlin").join(&self.node)
    }

    fn end(mut self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), signal).expect("it lives");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // After a failure only; what it leaves then is its supervisors', which end with their runtime folders.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            for pid in shims(&self.runtime_dir()) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    }
}

/// Processes that were started for one of these allocations.
fn processes_of(allocs: &[String]) -> Vec<String> {
    let marks: Vec<String> = allocs.iter().map(|id| format!("NOMAD_ALLOC_ID={id}")).collect();
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    all.filter_map(|entry| {
        let env = std::fs::read(entry.path().join("environ")).ok()?;
        let is_ours = env.split(|byte| *byte == 0).any(|var| marks.iter().any(|mark| mark.as_bytes() == var));
        is_ours.then(|| std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default())
    })
    .collect()
}

/// Folders named after one of these allocations, anywhere below the cgroup mounts.
fn groups_of(allocs: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let name = entry.file_name().to_string_lossy().into_owned();
                if allocs.iter().any(|id| name.contains(id)) {
                    found.push(entry.path());
                }
                waiting.push(entry.path());
            }
        }
    }
    found
}

fn check_nothing_left(signal: Signal) {
    let outside = Scratch::new("dev");
    let temporary = outside.path().join("tmp");
    std::fs::create_dir(&temporary).expect("made");
    let told = outside.path().join("told");
    let write = |name: &str, job: &Value| {
        let path = outside.path().join(name);
        std::fs::write(&path, job.to_string()).expect("written");
        path
    };
    // One obeys after a moment, one never does, one leaves a daemon, one has ended, one waits to be started again.
    let script =
        format!("trap 'sleep 0.2; echo obeyed > {}; exit 0' INT; echo > local/up; while :; do sleep 1 & wait $!; done", told.display());
    let obedient = task("t", &script);
    let mut stubborn = task("t", "trap '' INT; setsid sh -c 'trap \"\" INT TERM; sleep 1000' & echo > local/up; while :; do sleep 1; done");
    stubborn["KillTimeout"] = json!(700_000_000);
    let jobs = [
        write("obedient.json", &job("obedient", "service", obedient)),
        write("stubborn.json", &job("stubborn", "service", stubborn)),
        write("ended.json", &job("ended", "batch", task("t", "echo > local/up; exit 0"))),
        write("waiting.json", &restarting(job("waiting", "service", task("t", "echo > local/up; exit 1")), 3_600_000)),
    ];
    let dev = Dev::start(&temporary, &jobs);
    let is_settled = |alloc: &Value| match alloc["JobID"].as_str() {
        Some("ended") => alloc["ClientStatus"] == "complete",
        Some("waiting") => kinds(alloc).last() == Some(&"Restarting"),
        _ => is_running(alloc),
    };
    let allocs = dev.allocs(4, is_settled);
    let ids: Vec<String> = allocs.iter().map(|alloc| alloc["ID"].as_str().expect("an id").to_owned()).collect();
    for alloc in &allocs {
        let data = std::fs::read_dir(&temporary).expect("there").next().expect("one").expect("an entry").path();
        let up = folder(&data, alloc).join("local/up");
        eventually(|| up.exists());
    }
    let runtime_dir = dev.runtime_dir();
    assert!(runtime_dir.is_dir() && !groups_of(&ids).is_empty() && processes_of(&ids).len() >= 4);
    let begun = Instant::now();
    dev.end(signal);
    assert_eq!(std::fs::read_to_string(&told).expect("its rules were kept"), "obeyed\n");
    assert!(begun.elapsed() >= Duration::from_millis(700), "the stubborn one has its time");
    assert_eq!(processes_of(&ids), Vec::<String>::new());
    assert_eq!(shims(&runtime_dir), []);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let ours: Vec<&str> = mounts.lines().filter(|line| line.contains(&*outside.path().to_string_lossy())).collect();
    assert_eq!(ours, Vec::<&str>::new());
    assert_eq!(groups_of(&ids), Vec::<PathBuf>::new());
    assert!(!runtime_dir.exists());
    let left: Vec<_> = std::fs::read_dir(&temporary).expect("there").flatten().map(|entry| entry.path()).collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

#[test]
fn a_dev_agent_leaves_nothing_behind() {
    if !dunlin_tests::skip::is_root() {
        skip!("only root's agent keeps its runtime folders in /run/dunlin");
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        check_nothing_left(signal);
    }
}

#[test]
fn a_dev_agent_leaves_another_alone() {
    if !dunlin_tests::skip::is_root() {
        skip!("only root's agent keeps its runtime folders in /run/dunlin");
    }
    let outside = Scratch::new("devs");
    let path = outside.path().join("j.json");
    std::fs::write(&path, job("j", "service", task("t", "while :; do sleep 1; done")).to_string()).expect("written");
    let [one, other] = ["one", "other"].map(|name| {
        let temporary = outside.path().join(name);
        std::fs::create_dir(&temporary).expect("made");
        Dev::start(&temporary, std::slice::from_ref(&path))
    });
    let before = one.allocs(1, is_running);
    other.allocs(1, is_running);
    let supervisors = shims(&one.runtime_dir());
    assert_eq!(supervisors.len(), 1);
    other.end(Signal::SIGINT);
    assert_eq!(shims(&one.runtime_dir()), supervisors);
    assert_eq!(one.allocs(1, is_running)[0]["TaskStates"], before[0]["TaskStates"]);
    assert!(!groups_of(&[before[0]["ID"].as_str().expect("an id").to_owned()]).is_empty());
    one.end(Signal::SIGINT);
}
