//! The disk is full, the store is gone or damaged, the power fails (`spec/runtime.md` 6.6 to 6.9; decisions 17, 35; I3).

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dunlin_tests::real::{Options, Real, Scratch, shims};
use dunlin_tests::{figure, skip};
use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};

use super::eventually;
use super::job::{events, job, kinds, life, restarting, state, task};
use super::number;

fn is_running(alloc: &Value) -> bool {
    alloc["ClientStatus"] == "running"
}

/// A folder whose `data` is a disk of its own of `mib` MiB; gone with it.
fn small_disk(name: &str, mib: u32) -> Scratch {
    let scratch = Scratch::new(name);
    let data = scratch.path().join("data");
    std::fs::create_dir(&data).expect("made");
    let options = format!("size={mib}m");
    mount(Some("none"), &data, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).expect("mounted");
    scratch
}

/// Takes all the room there is.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).expect("made");
    for size in [1 << 20, 64 << 10, 4096] {
        let block = vec![1; size];
        while file.write_all(&block).is_ok() {}
    }
}

/// A job that takes some room in the store.
fn bulky(id: &str) -> Vec<u8> {
    let mut job = job(id, "batch", task("t", "true"));
    job["Job"]["Meta"] = json!({ "bulk": "x".repeat(50_000) });
    // Never placed: only the store is meant.
    job["Job"]["Constraints"] = json!([{ "LTarget": "${node.unique.name}", "RTarget": "nowhere", "Operand": "=" }]);
    job.to_string().into_bytes()
}

#[test]
fn a_full_disk_stops_no_task_and_loses_nothing_that_was_accepted() {
    if !dunlin_tests::skip::is_root() {
        skip!("only root can mount a small disk");
    }
    // Jobs ask for more room than there is; that it is not there is the point.
    let config = json!({ "client": { "disk_total_mb": 10_000 } });
    let agent = Real::start_in(small_disk("full", 8), Options { config: Some(config), ..Options::default() });
    let outside = agent.path().join("outside");
    let script = |name: &str| {
        format!(
            "n=0; while [ ! -e {0}.end ]; do n=$((n+1)); echo $n > {0}; sleep 0.05; done; exit 4",
            outside.with_extension(name).display()
        )
    };
    agent.run(job("runs", "service", task("t", &script("runs"))).to_string().as_bytes());
    agent.run(job("ends", "batch", task("t", &script("ends"))).to_string().as_bytes());
    let runs = agent.allocs("runs", 1, is_running).remove(0);
    agent.allocs("ends", 1, is_running);
    let beats =
        || std::fs::read_to_string(outside.with_extension("runs")).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    eventually(|| beats() > 0);

    agent.run(job("goes", "service", task("t", "exec sleep 1000")).to_string().as_bytes());
    agent.allocs("goes", 1, is_running);

    let filler = agent.path().join("data/filler");
    fill(&filler);
    // Some more fit into the room the file has and into that kept beside it; then no more are taken.
    let mut accepted = Vec::new();
    let refused = loop {
        let id = format!("bulky-{}", accepted.len());
        let answer = agent.ask("PUT", "/v1/jobs", &bulky(&id));
        match answer.status {
            200 => accepted.push(id),
            _ => break answer,
        }
        assert!(accepted.len() < 200, "the disk is never full");
    };
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert!(refused.text().contains("the disk is full") && refused.text().contains("nothing was changed"), "{}", refused.text());
    figure!("{} jobs fitted after the disk was full; then: {}", accepted.len(), refused.text().trim());
    assert_eq!(agent.ask("GET", "/v1/agent/health", b"").status, 500);
    // What makes room is taken still.
    let stopped = agent.ask("DELETE", "/v1/job/goes", b"");
    assert_eq!(stopped.status, 200, "{}", stopped.text());
    agent.allocs("goes", 1, |alloc| alloc["ClientStatus"] == "complete");

    // Until that room is taken too, by somebody else: then one is told that it is not stored, and later ones are refused.
    let filler_too = agent.path().join("data/filler-too");
    fill(&filler_too);
    let mut deleted = Vec::new();
    let told = loop {
        let id = accepted.pop().expect("the disk is never full");
        let answer = agent.ask("DELETE", &format!("/v1/job/{id}"), b"");
        match answer.status {
            200 => deleted.push(id),
            500 if answer.text().contains("not yet stored") => break id,
            status => panic!("{status}: {}", answer.text()),
        }
    };
    let refused = agent.ask("DELETE", "/v1/job/runs", b"");
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert!(refused.text().contains("nothing was changed"), "{}", refused.text());

    // Tasks run on and may end; reads are answered.
    let before = beats();
    eventually(|| beats() > before + 5);
    assert_eq!(life(&agent.allocs("runs", 1, |_| true)[0]), life(&runs));
    std::fs::write(outside.with_extension("ends.end"), b"").expect("written");
    eventually(|| shims(agent.path()).len() == 1);
    let answer = agent.ask("GET", "/v1/jobs", b"");
    assert_eq!(answer.status, 200, "{}", answer.text());

    // With room again the agent finds out by itself.
    std::fs::remove_file(&filler).expect("removed");
    std::fs::remove_file(&filler_too).expect("removed");
    let mut after = 0;
    eventually(|| {
        after += 1;
        agent.ask("PUT", "/v1/jobs", &bulky(&format!("after-{after}"))).status == 200
    });
    let ended = agent.allocs("ends", 1, |alloc| state(alloc)["State"] == "dead").remove(0);
    let check = |agent: &Real| {
        let is_stopped = |id: &str| agent.get(&format!("/v1/job/{id}"))["Stop"] == true;
        assert!(deleted.iter().chain([&told]).all(|id| is_stopped(id)));
        assert!(!accepted.iter().any(|id| is_stopped(id)) && !is_stopped("runs"));
        let ended = agent.allocs("ends", 1, |_| true).remove(0);
        assert_eq!(kinds(&ended), ["Received", "Task Setup", "Started", "Terminated", "Not Restarting"]);
        assert_eq!(events(&ended)[3]["ExitCode"], 4);
        assert_eq!(life(&agent.allocs("runs", 1, |_| true)[0]), life(&runs));
    };
    check(&agent);
    let (scratch, options) = agent.kill();
    let agent = Real::start_in(scratch, options);
    check(&agent);
    assert_eq!(agent.allocs("ends", 1, |_| true)[0]["TaskStates"], ended["TaskStates"]);
}

/// The agent refuses while the store is as `damage` makes it, says why, leaves the task alone, and goes on when it is back.
fn check_damaged(name: &str, damage: impl FnOnce(&Path), wanted: &[&str]) {
    let agent = Real::start(name, Options::default());
    agent.run(job("j", "service", task("t", "exec sleep 1000")).to_string().as_bytes());
    let before = agent.allocs("j", 1, is_running).remove(0);
    let (scratch, options) = agent.stop();
    let supervisors = shims(scratch.path());
    let store = scratch.path().join("data/state.redb");
    let good = std::fs::read(&store).expect("a store");
    damage(&store);
    let damaged = std::fs::read(&store).ok();
    let (code, said) = Real::refused(&scratch, &options);
    assert_eq!(code, Some(1), "{name}: {said}");
    for words in ["state.redb"].iter().chain(wanted) {
        assert!(said.contains(words), "{name}: {words:?} in {said:?}");
    }
    assert!(!said.contains("panicked"), "{said}");
    // What is damaged is evidence: it is not written over.
    assert_eq!(std::fs::read(&store).ok().map(|bytes| bytes.len()), damaged.map(|bytes| bytes.len()), "{name}");
    assert_eq!(shims(scratch.path()), supervisors, "{name}");
    std::fs::write(&store, good).expect("restored");
    let agent = Real::start_in(scratch, options);
    assert_eq!(agent.allocs("j", 1, |_| true)[0]["TaskStates"], before["TaskStates"], "{name}");
}

#[test]
fn a_store_that_is_gone_or_damaged_is_told_and_tasks_are_left_alone() {
    check_damaged("no-store", |path| std::fs::remove_file(path).expect("removed"), &["missing"]);
    check_damaged("empty-store", |path| std::fs::write(path, b"").expect("written"), &["missing or empty"]);
    check_damaged("other-store", |path| std::fs::write(path, b"not a store at all").expect("written"), &[]);
    check_damaged("zero-store", |path| std::fs::write(path, vec![0; 1 << 20]).expect("written"), &[]);
    let cut = |path: &Path| {
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("opened");
        file.set_len(file.metadata().expect("a size").len() / 2).expect("cut");
    };
    check_damaged("cut-store", cut, &[]);
    let scribble = |path: &Path| {
        let mut bytes = std::fs::read(path).expect("a store");
        bytes[64..].fill(0xa5);
        std::fs::write(path, bytes).expect("written");
    };
    check_damaged("scribbled-store", scribble, &[]);
}

/// A device of its own: an agent that is process 1, with its own `/run`, whose kernel says the boot id of the file `boot_id`, and
/// without a link: no interface of its network is up, so it is spoken to through a socket in its folder.
fn device(scratch: &Scratch) -> Options {
    let path = scratch.path();
    let script = path.join("device");
    let inside =
        "mount -t tmpfs none \"$DEVICE/run\" && mount --bind \"$DEVICE/boot_id\" /proc/sys/kernel/random/boot_id && exec \"$0\" \"$@\"";
    let text = format!(
        "#!/bin/sh\nexport DEVICE={}\nexec unshare --net --mount --pid --fork --kill-child --mount-proc sh -c '{inside}' {} \"$@\"\n",
        path.display(),
        dunlin_tests::real::binary().display()
    );
    std::fs::create_dir_all(path.join("run")).expect("made");
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("executable");
    let socket = format!("unix://{}", path.join("api.sock").display());
    Options { binary: Some(script), args: vec!["-http".to_owned(), socket], ..Options::default() }
}

/// Power on. Gives the device and the moment the power came.
fn power_on(scratch: Scratch, options: Options) -> (Real, Instant) {
    let begun = Instant::now();
    let mut agent = Real::start_in(scratch, options);
    agent.addr = bridge(agent.path().join("api.sock"));
    (agent, begun)
}

/// A port of this machine whose connections are those of a Unix socket.
fn bridge(socket: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for outside in listener.incoming().flatten() {
            let Ok(inside) = UnixStream::connect(&socket) else { continue };
            let (Ok(mut from_inside), Ok(mut to_outside)) = (inside.try_clone(), outside.try_clone()) else { continue };
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from_inside, &mut to_outside);
                let _ = to_outside.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || {
                let (mut outside, mut inside) = (outside, inside);
                let _ = std::io::copy(&mut outside, &mut inside);
                let _ = inside.shutdown(Shutdown::Write);
            });
        }
    });
    addr
}

fn boot(scratch: &Scratch, n: u64) {
    std::fs::write(scratch.path().join("boot_id"), format!("00000000-0000-4000-8000-{n:012}\n")).expect("written");
}

fn lines_n(path: &PathBuf) -> u64 {
    std::fs::read_to_string(path).unwrap_or_default().lines().count() as u64
}

#[test]
fn after_a_power_cut_services_start_and_finished_work_does_not() {
    let may_unshare = std::process::Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "true"]).status();
    if !may_unshare.is_ok_and(|status| status.success()) {
        skip!("no namespaces to be had by unshare");
    }
    let rounds = number("DUNLIN_CUTS", 100);
    let scratch = Scratch::new("power");
    let options = device(&scratch);
    boot(&scratch, 0);
    let (mut agent, _) = power_on(scratch, options);
    let told = |agent: &Real, name: &str| agent.path().join(format!("told-{name}"));
    let tell = |agent: &Real, name: &str, then: &str| task("t", &format!("echo life >> {}; {then}", told(agent, name).display()));
    let service = restarting(job("service", "service", tell(&agent, "service", "exec sleep 1000")), 100);
    agent.run(service.to_string().as_bytes());
    let system = restarting(job("system", "system", tell(&agent, "system", "exec sleep 1000")), 100);
    agent.run(system.to_string().as_bytes());
    agent.run(job("stopped", "service", tell(&agent, "stopped", "exec sleep 1000")).to_string().as_bytes());
    agent.run(job("long", "batch", tell(&agent, "long", "exec sleep 1000")).to_string().as_bytes());
    for id in ["service", "system", "stopped", "long"] {
        agent.allocs(id, 1, is_running);
    }
    agent.ask("DELETE", "/v1/job/stopped", b"");
    agent.allocs("stopped", 1, |alloc| state(alloc)["State"] == "dead");
    let node = agent.get("/v1/nodes")[0]["ID"].clone();
    let mut slowest = Duration::ZERO;
    for n in 1..=rounds {
        let batch = format!("batch-{n}");
        agent.run(job(&batch, "batch", tell(&agent, &batch, "exit 0")).to_string().as_bytes());
        agent.allocs(&batch, 1, |alloc| alloc["ClientStatus"] == "complete");
        let (scratch, options) = agent.kill();
        boot(&scratch, n);
        let begun;
        (agent, begun) = power_on(scratch, options);
        for id in ["service", "system", "long"] {
            eventually(|| lines_n(&told(&agent, id)) == n + 1);
            slowest = slowest.max(begun.elapsed());
            assert!(begun.elapsed() <= Duration::from_secs(2), "round {n}: {id} ran again only after {:?}", begun.elapsed());
        }
        for id in ["service", "system", "long"] {
            let alloc = agent.allocs(id, 1, is_running).remove(0);
            // Nothing of the policy is charged, and nobody says that the task has failed.
            assert_eq!((&state(&alloc)["Restarts"], &state(&alloc)["Failed"]), (&json!(0), &json!(false)), "{alloc:#}");
            assert_eq!(kinds(&alloc)[kinds(&alloc).len() - 2..], ["Driver", "Started"], "{:?}", kinds(&alloc));
            assert_eq!(events(&alloc)[kinds(&alloc).len() - 2]["DisplayMessage"], "restarted after reboot");
        }
        for done in 1..=n {
            assert_eq!(lines_n(&told(&agent, &format!("batch-{done}"))), 1, "round {n}: finished work was done again");
        }
        assert_eq!(lines_n(&told(&agent, "stopped")), 1, "round {n}: what was stopped came back");
        assert_eq!(agent.get("/v1/nodes")[0]["ID"], node);
    }
    figure!("{rounds} power cuts without a link; the slowest task ran again {} ms after the power came", slowest.as_millis());
}
