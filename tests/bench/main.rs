//! What the product costs: the budgets of `docs/budgets.md`, measured on the file that is shipped (decision 22) and printed with
//! the figures. A figure over its budget fails unless the same page gives the reason. Run by `tests/run bench`.
//!
//! Not libtest: figures disturb each other, so they are taken one after the other.

mod figures;
mod machine;
mod scale;
mod trace;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use dunlin_tests::http;
use dunlin_tests::real::{Options, Real, binary, shims};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::{Value, json};

use figures::{Figures, Measured};
use machine::{is_product, memory, stamps, threads, wakes, written};

/// Longest wait for a process that must come.
const PATIENCE_MS: u16 = 30_000;
/// Until everything soft is committed and nothing is left to do.
const SETTLE: Duration = Duration::from_secs(8);
/// How long an idle agent is watched.
const IDLE: Duration = Duration::from_secs(20);
/// Tasks of one step of the slope.
const TASKS: usize = 10;
/// Allocations in the store of an agent that starts.
const ALLOCS: usize = 100;
/// Followers of one log.
const FOLLOWERS: usize = 8;

/// Takes some of the figures.
type Part = fn(&mut Figures);

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--list") {
        return ExitCode::SUCCESS;
    }
    if !is_product(binary()) {
        println!("skipped: bench: no musl build: {} is not what is shipped, its figures would say nothing", binary().display());
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        return ExitCode::SUCCESS;
    }
    let mut figures = Figures::committed();
    figures.head();
    // `cargo test --test bench -- life` takes only those figures whose part has this in its name.
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let parts: [(&str, Part); 8] = [
        ("sizes", sizes),
        ("idle and tasks", idle_and_tasks),
        ("start", start),
        ("submit", submit),
        ("life", life),
        ("followers", followers),
        ("scale", scale::scale),
        ("tree", tree),
    ];
    for (_, part) in parts.iter().filter(|(name, _)| asked.is_empty() || asked.iter().any(|word| name.contains(word.as_str()))) {
        part(&mut figures);
    }
    if figures.end() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn float(n: u64) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

fn count(n: usize) -> f64 {
    float(u64::try_from(n).unwrap_or(u64::MAX))
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

fn pass(time: Duration) {
    std::thread::sleep(time); // sleep: the passing of time is what is measured
}

/// A job of one group with one task that runs `script`.
fn job(id: &str, kind: &str, n: usize, script: &str) -> Vec<u8> {
    let task = json!({
        "Name": "work", "Driver": "raw_exec", "Config": {"command": "/bin/sh", "args": ["-c", script]},
        "Resources": {"CPU": 1, "MemoryMB": 10}, "LogConfig": {"MaxFiles": 4, "MaxFileSizeMB": 16},
    });
    let group = json!({"Name": "group", "Count": n, "EphemeralDisk": {"SizeMB": 70}, "Tasks": [task]});
    json!({"Job": {"ID": id, "Type": kind, "Datacenters": ["*"], "TaskGroups": [group]}}).to_string().into_bytes()
}

fn is(status: &'static str) -> impl Fn(&Value) -> bool {
    move |alloc| alloc["ClientStatus"] == status
}

/// Stops a job's tasks: what a test has started it also ends.
fn stop(agent: &Real, id: &str) {
    assert_eq!(agent.ask("DELETE", &format!("/v1/job/{id}"), b"").status, 200);
    agent.allocs(id, 1, |alloc| alloc["ClientStatus"] == "complete" || alloc["ClientStatus"] == "failed");
}

/// The host's file, and the others if `boards/build sizes` has been run: `DUNLIN_SIZES` names what it printed.
fn sizes(figures: &mut Figures) {
    let bytes = std::fs::metadata(binary()).expect("the executable").len();
    figures.tell("binary.x86_64", Ok(float(bytes)), "");
    let table = std::env::var_os("DUNLIN_SIZES").map(|path| std::fs::read_to_string(path).unwrap_or_default()).unwrap_or_default();
    for (key, target) in [("binary.aarch64", "aarch64-"), ("binary.armv7", "armv7-")] {
        let line = table.lines().find(|line| line.starts_with(target));
        let bytes = line.and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok());
        figures.tell(key, bytes.ok_or_else(|| "not built: boards/build sizes".to_owned()), "");
    }
}

/// Wake-ups per second of each thread over [`IDLE`], and what was written meanwhile.
struct Idle {
    wakes_per_s: f64,
    by_thread: String,
    bytes: f64,
    changed: Vec<String>,
}

fn idle(agent: &Real) -> Idle {
    let pid = agent.pid();
    let (before, bytes, files) = (wakes(pid), written(pid), stamps(agent.path()));
    pass(IDLE);
    let after = wakes(pid);
    let rates: BTreeMap<&str, f64> = after
        .iter()
        .map(|(name, n)| (name.as_str(), float(n - before.get(name).copied().unwrap_or_default()) / IDLE.as_secs_f64()))
        .collect();
    let now = stamps(agent.path());
    Idle {
        wakes_per_s: rates.values().sum(),
        by_thread: rates.iter().map(|(name, rate)| format!("{name} {rate:.1}")).collect::<Vec<_>>().join(", "),
        bytes: float(written(pid) - bytes),
        changed: now.iter().filter(|stamp| !files.contains(stamp)).map(|stamp| stamp.0.clone()).collect(),
    }
}

fn bytes_of(idle: &Idle) -> Measured {
    if idle.changed.is_empty() || idle.bytes > 0.0 { Ok(idle.bytes) } else { Ok(1.0) }
}

fn idle_and_tasks(figures: &mut Figures) {
    let agent = Real::start("idle", Options::default());
    let pid = agent.pid();
    agent.get("/v1/jobs");
    pass(SETTLE);
    let alone = memory(&[pid]);
    figures.tell("idle.pss", Ok(alone.pss), "");
    // Pages of the file are nobody's own: a second agent maps them too. Without one the kernel calls them private.
    let second = Real::start("second", Options::default());
    second.get("/v1/jobs");
    let own = memory(&[pid]);
    drop(second);
    figures.tell(
        "idle.private",
        Ok(own.private),
        &format!("with a second agent beside it; alone {:.0} KiB, the file's pages included", alone.private),
    );
    let names = threads(pid);
    figures.tell("idle.threads", Ok(count(names.len())), &names.join(", "));
    let quiet = idle(&agent);
    figures.tell("idle.wakes", Ok(quiet.wakes_per_s), &quiet.by_thread);
    figures.tell("idle.bytes", bytes_of(&quiet), &quiet.changed.join(", "));

    let step = |id: &str, n: usize| {
        agent.run(&job(id, "service", TASKS, "exec sleep infinity"));
        agent.allocs(id, TASKS, is("running"));
        // Until its deployment has ended a job is not quiet: the health of its tasks is kept.
        agent.wait(&format!("/v1/job/{id}/deployment"), Duration::from_secs(60), |deployment| deployment["Status"] == "successful");
        pass(SETTLE);
        let shims = shims(agent.path());
        assert_eq!(shims.len(), n, "one supervisor per task");
        (memory(&[pid]), memory(&shims))
    };
    let (agent_10, shims_10) = step("ten", TASKS);
    let busy = idle(&agent);
    figures.tell("tasks.wakes", Ok(busy.wakes_per_s), &busy.by_thread);
    figures.tell("tasks.bytes", bytes_of(&busy), &busy.changed.join(", "));
    let (agent_20, shims_20) = step("twenty", 2 * TASKS);
    let per_task = |twenty: f64, ten: f64| (twenty - ten) / count(TASKS);
    let private = per_task(agent_20.private + shims_20.private, agent_10.private + shims_10.private);
    let pss = per_task(agent_20.pss + shims_20.pss, agent_10.pss + shims_10.pss);
    let share = |shims: f64, agent: f64| format!("shim {shims:.1}, agent {agent:.1}");
    let note = share(per_task(shims_20.private, shims_10.private), per_task(agent_20.private, agent_10.private));
    figures.tell("task.private", Ok(private), &note);
    figures.tell("task.pss", Ok(pss), &share(per_task(shims_20.pss, shims_10.pss), per_task(agent_20.pss, agent_10.pss)));
    stop(&agent, "ten");
    stop(&agent, "twenty");
}

fn start(figures: &mut Figures) {
    let agent = Real::start("start", Options::default());
    agent.run(&job("hundred", "batch", ALLOCS, "exit 0"));
    agent.allocs("hundred", ALLOCS, is("complete"));
    pass(SETTLE);
    let mut left = agent.stop();
    let mut times = Vec::new();
    for _ in 0..9 {
        let begun = Instant::now();
        let agent = Real::start_in(left.0, left.1);
        let answer = agent.ask("GET", "/v1/jobs", b"");
        times.push(begun.elapsed());
        assert_eq!((answer.status, answer.json().as_array().map(Vec::len)), (200, Some(1)));
        assert_eq!(agent.get("/v1/allocations").as_array().map(Vec::len), Some(ALLOCS));
        left = agent.stop();
    }
    times.sort();
    // Neighbours only ever make it slower, so the best run is the one that tells of the agent.
    figures.tell(
        "start.answer",
        Ok(millis(times[0])),
        &format!("best of {}; median {:.1} ms", times.len(), millis(times[times.len() / 2])),
    );
}

/// What one durable commit costs here: eight pages and their sync.
fn commit(file: &File) -> Duration {
    let begun = Instant::now();
    file.write_all_at(&[0x5a; 8 * 4096], 0).expect("a page");
    file.sync_data().expect("synced");
    begun.elapsed()
}

fn submit(figures: &mut Figures) {
    let agent = Real::start("submit", Options::default());
    let marks = agent.path().join("marks");
    std::fs::create_dir(&marks).expect("a folder");
    let file = File::create(agent.path().join("probe")).expect("a file");
    file.set_len(1 << 20).expect("room");
    let watch = Inotify::init(InitFlags::IN_CLOEXEC).expect("inotify");
    watch.add_watch(&marks, AddWatchFlags::IN_CREATE).expect("inotify");
    let (mut beyond, mut starts, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..11 {
        pass(Duration::from_millis(200));
        let one = commit(&file);
        let job = job(&format!("touch-{n}"), "batch", 1, &format!(": > {}/{n}", marks.display()));
        let begun = Instant::now();
        agent.run(&job);
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(PATIENCE_MS)), Ok(1), "it never started: {}", agent.log());
        watch.read_events().expect("inotify");
        let took = begun.elapsed();
        // The first one also warms up caches and makes folders.
        if n > 0 {
            beyond.push(took.saturating_sub(one));
            starts.push(took);
            commits.push(one);
        }
        agent.allocs(&format!("touch-{n}"), 1, is("complete"));
    }
    [&mut beyond, &mut starts, &mut commits].into_iter().for_each(|times| times.sort());
    let median = |times: &[Duration]| millis(times[times.len() / 2]);
    let note = format!(
        "best of {}; median {:.1} ms; start {:.1} ms = {:.1} commits of {:.1} ms",
        beyond.len(),
        median(&beyond),
        median(&starts),
        median(&starts) / median(&commits),
        median(&commits)
    );
    figures.tell("submit.start", Ok(millis(beyond[0])), &note);
}

/// One task alone on the node, from its submission until nothing is left to do.
fn life_of(script: &str) -> Result<trace::Disk, String> {
    let agent = Real::start("life", Options::default());
    let file = agent.path().join("data/state.redb");
    pass(SETTLE);
    let watch = trace::Watch::start(agent.pid(), &file)?;
    agent.run(&job("life", "batch", 1, script));
    agent.allocs("life", 1, is("complete"));
    pass(SETTLE);
    watch.end(|| drop(agent.ask("GET", "/v1/status/leader", b"")))
}

fn life(figures: &mut Figures) {
    // One that ends before its soft rows are due, and one that ends after.
    let lives = life_of("exit 0").and_then(|short| Ok([short, life_of("sleep 6")?]));
    let worst = |of: fn(&trace::Disk) -> u64| -> Measured {
        let lives = lives.as_ref().map_err(Clone::clone)?;
        Ok(lives.iter().map(of).max().map(float).unwrap_or_default())
    };
    let note = |of: fn(&trace::Disk) -> u64| {
        lives.as_ref().map_or(String::new(), |[short, long]| format!("short {}, long {}", of(short), of(long)))
    };
    figures.tell("life.syncs", worst(|disk| disk.syncs), &note(|disk| disk.syncs));
    figures.tell("life.bytes", worst(|disk| disk.bytes), &note(|disk| disk.bytes));
}

fn followers(figures: &mut Figures) {
    const BYTES: usize = 16 << 20;
    let agent = Real::start("follow", Options::default());
    // The slope: what the first follower ever costs, stack and code, is not what each one does.
    let one = follow(&agent, "one", 1, BYTES);
    let each = (follow(&agent, "all", FOLLOWERS, BYTES) - one) / count(FOLLOWERS - 1);
    figures.tell("follow.private", Ok(each), &format!("{FOLLOWERS} followers, {} MiB each", BYTES >> 20));
}

/// A job that writes so much when its followers are there. The agent's private memory when they have read it all, KiB.
fn follow(agent: &Real, name: &str, n: usize, bytes: usize) -> f64 {
    let go = agent.path().join(name);
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.2; done; head -c {bytes} /dev/zero | tr '\\0' x | fold -w 127; exec sleep infinity",
        go.display()
    );
    agent.run(&job(name, "service", 1, &script));
    let alloc = agent.allocs(name, 1, is("running"))[0]["ID"].as_str().expect("an id").to_owned();
    pass(SETTLE);
    let path = format!("/v1/client/fs/logs/{alloc}?task=work&type=stdout&follow=true&plain=true");
    let mut streams: Vec<_> = (0..n).map(|_| http::open(agent.addr, "GET", &path, &[], b"").expect("a stream")).collect();
    std::fs::write(&go, "").expect("the mark");
    std::thread::scope(|scope| {
        for stream in &mut streams {
            scope.spawn(move || {
                let mut chunk = vec![0; 64 << 10];
                let mut left = bytes + bytes.div_ceil(127) - 1;
                while left > 0 {
                    left -= stream.read(&mut chunk).expect("bytes").min(left);
                }
            });
        }
    });
    let private = memory(&[agent.pid()]).private;
    drop(streams);
    stop(agent, name);
    private
}

/// Crates that end up in the file or build it.
fn tree(figures: &mut Figures) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let words = ["tree", "--package", "dunlin", "--edges", "normal,build", "--prefix", "none", "--format", "{p}", "--target"];
    let out = Command::new(cargo).args(words).arg("x86_64-unknown-linux-musl").current_dir(root).output().expect("cargo");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8_lossy(&out.stdout);
    let crates: std::collections::BTreeSet<&str> = text.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    figures.tell("tree.crates", Ok(count(crates.len())), "");
}
