//! What a task costs the disk, and what an agent without news costs: figures and their budgets (decisions of record, budget table).

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dunlin_tests::real::{Options, Real};
use dunlin_tests::{figure, skip};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::eventually;
use super::job::{invocations, job, kinds, state, task};

/// Longer than a soft row may wait for a commit of its own (`Budget::soft_age_max_ms`).
const SETTLED: Duration = Duration::from_secs(6);

/// A tracer of the writes and syncs of an agent and all its threads.
struct Trace {
    child: Child,
    out: PathBuf,
    _said: BufReader<std::process::ChildStderr>,
}

/// What was counted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    syncs: u64,
    store_bytes: u64,
    other_bytes: u64,
}

impl Trace {
    /// `None` where there is no tracer, or it may not trace.
    fn attach(agent: &Real) -> Option<Self> {
        let out = agent.path().join("trace");
        let mut command = Command::new("strace");
        command.args([
            "-f",
            "-y",
            "-s",
            "0",
            "-e",
            "trace=fsync,fdatasync,sync_file_range,write,writev,pwrite64,pwritev,ftruncate",
            "-e",
            "signal=none",
        ]);
        command.arg("-o").arg(&out).args(["-p", &agent.pid().to_string()]);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().ok()?;
        let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        said.read_line(&mut line).expect("it says");
        if line.contains("attached") {
            return Some(Self { child, out, _said: said });
        }
        let _ = child.wait();
        None
    }

    /// Lets the agent go. Only files count: sockets, pipes and the clocks of the event loop are nobody's disk.
    fn detach(mut self, agent: &Path) -> Counted {
        kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), Signal::SIGTERM).expect("it lives");
        let _ = self.child.wait();
        let store = agent.join("data/state.redb");
        // What tasks and supervisors write is theirs.
        let logs = agent.join("data/alloc");
        let runtime = agent.join("run");
        let mut counted = Counted::default();
        for line in std::fs::read_to_string(&self.out).expect("a trace").lines() {
            let Some((call, rest)) = line.split_once('(') else { continue };
            let call = call.rsplit(' ').next().unwrap_or_default();
            let Some(path) = rest.split_once('<').and_then(|(_, rest)| Some(Path::new(rest.split_once('>')?.0))) else { continue };
            if !path.is_absolute() || path.starts_with("/dev") || path.starts_with("/sys") || path.starts_with("/proc") {
                continue;
            }
            if path.starts_with(&logs) || path.starts_with(&runtime) {
                continue;
            }
            // The third argument; the result stands elsewhere when two threads were inside the kernel at once.
            let bytes =
                || rest.split(", ").nth(2).and_then(|n| n.trim_end_matches([')', ' ']).split([' ', ')']).next()?.parse().ok()).unwrap_or(0);
            match call {
                "fsync" | "fdatasync" | "sync_file_range" => counted.syncs += 1,
                "write" | "pwrite64" if path == store => counted.store_bytes += bytes(),
                "write" | "pwrite64" => counted.other_bytes += bytes(),
                _ => {}
            }
        }
        counted
    }
}

#[test]
fn the_whole_life_of_a_task_costs_few_writes() {
    let agent = Real::start("life", Options::default());
    // Its first commits are its own.
    std::thread::sleep(SETTLED); // sleep: nothing is to happen
    let Some(trace) = Trace::attach(&agent) else { skip!("no strace that may trace") };
    agent.run(job("j", "batch", task("t", "echo done")).to_string().as_bytes());
    let alloc = agent.allocs("j", 1, |alloc| state(alloc)["State"] == "dead").remove(0);
    eventually(|| invocations(agent.path()).is_empty());
    std::thread::sleep(SETTLED); // sleep: what is still to be written is written by then
    let counted = trace.detach(agent.path());
    assert_eq!(kinds(&alloc), ["Received", "Task Setup", "Started", "Terminated"]);
    figure!(
        "one task from submission to its end: {} syncs (<= 4), {} bytes to the store (<= 120 KB), {} to other files",
        counted.syncs,
        counted.store_bytes,
        counted.other_bytes
    );
    // A count of nothing is a broken count: the submission alone is one durable commit.
    assert!(counted.syncs >= 1 && counted.store_bytes > 0, "{counted:?}");
    assert!(counted.syncs <= 4 && counted.store_bytes <= 120_000, "{counted:?}");
}

/// Times the threads of a process went to sleep, all together.
fn wake_ups(pid: Pid) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten();
    let of = |status: String| status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok());
    threads.filter_map(|thread| of(std::fs::read_to_string(thread.path().join("status")).ok()?)).sum()
}

/// Bytes a process has made the kernel write to a disk.
fn written(pid: Pid) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).expect("it lives");
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")?.parse().ok()).expect("a number")
}

#[test]
fn an_idle_agent_writes_nothing_and_sleeps() {
    let agent = Real::start("idle", Options::default());
    agent.run(job("j", "service", task("t", "exec sleep 1000")).to_string().as_bytes());
    agent.allocs("j", 1, |alloc| alloc["ClientStatus"] == "running");
    // Soft rows are committed, the file worker has ended, the last connection is closed.
    std::thread::sleep(SETTLED * 2); // sleep: nothing is to happen
    let (wake_ups_before, written_before) = (wake_ups(agent.pid()), written(agent.pid()));
    let quiet = Duration::from_secs(10);
    std::thread::sleep(quiet); // sleep: nothing is to happen
    let wake_ups_n = wake_ups(agent.pid()) - wake_ups_before;
    let written_bytes = written(agent.pid()) - written_before;
    figure!("idle with one quiet task: {wake_ups_n} wake-ups in {} s (<= 3/s), {written_bytes} bytes written", quiet.as_secs());
    assert_eq!(written_bytes, 0);
    assert!(wake_ups_n <= 3 * quiet.as_secs(), "{wake_ups_n}");
    let Some(trace) = Trace::attach(&agent) else { skip!("the calls themselves: no strace that may trace") };
    std::thread::sleep(quiet); // sleep: nothing is to happen
    assert_eq!(trace.detach(agent.path()), Counted::default());
}
