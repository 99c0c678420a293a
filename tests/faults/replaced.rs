//! Another executable takes the running tasks over and gives them back (RT19); two agents never meet.

use std::path::{Path, PathBuf};

use dunlin_tests::real::{Options, Real, Scratch, shims};
use serde_json::Value;

use super::eventually;
use super::job::{check_events, events, folder, invocations, job, kinds, life, restarting, state, task};

/// Tells each of its lives; ends with code 7 when the file `local/end` is there.
const PATIENT: &str = "echo life >> local/lives; until [ -e local/end ]; do sleep 0.1; done; exit 7";

fn is_running(alloc: &Value) -> bool {
    alloc["ClientStatus"] == "running"
}

/// Puts a copy of the agent's executable at `path`, as an upgrade does: whole, over what is there.
fn install(path: &Path) {
    let new = path.with_extension("new");
    std::fs::copy(dunlin_tests::real::binary(), &new).expect("copied");
    std::fs::rename(&new, path).expect("renamed");
}

fn executable(pid: nix::unistd::Pid) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/exe")).expect("it lives")
}

#[test]
fn another_executable_takes_running_tasks_over_and_gives_them_back() {
    let bin = Scratch::new("bin");
    let (old, new) = (bin.path().join("dunlin-old"), bin.path().join("dunlin-new"));
    install(&old);
    install(&new);
    let agent = Real::start("replaced", Options { binary: Some(old.clone()), ..Options::default() });
    agent.run(job("batch", "batch", task("t", PATIENT)).to_string().as_bytes());
    agent.run(restarting(job("service", "service", task("t", PATIENT)), 100).to_string().as_bytes());
    let first = ["batch", "service"].map(|id| agent.allocs(id, 1, is_running).remove(0));
    let supervisors = shims(agent.path());
    assert_eq!(supervisors.len(), 2);

    // Up: the new file is installed over the old one, which running supervisors keep; one agent ends well, one does not.
    let (scratch, options) = agent.stop();
    install(&old);
    let agent = Real::start_in(scratch, Options { binary: Some(old.clone()), ..options });
    assert!(supervisors.iter().all(|pid| executable(*pid).to_string_lossy().ends_with("(deleted)")));
    let (scratch, options) = agent.kill();
    let agent = Real::start_in(scratch, Options { binary: Some(new.clone()), ..options });
    assert_eq!(executable(agent.pid()), new);
    for before in &first {
        let after = agent.allocs(before["JobID"].as_str().expect("a job"), 1, is_running).remove(0);
        assert_eq!(after["TaskStates"], before["TaskStates"]);
    }
    assert_eq!(shims(agent.path()), supervisors);

    // A task that starts again has a supervisor of the new file.
    let restart = |agent: &Real, restarts: u64| {
        std::fs::write(folder(agent.path(), &first[1]).join("local/end"), b"").expect("written");
        agent.allocs("service", 1, |alloc| state(alloc)["Restarts"].as_u64() >= Some(restarts));
        std::fs::remove_file(folder(agent.path(), &first[1]).join("local/end")).expect("there");
        agent.allocs("service", 1, is_running);
    };
    restart(&agent, 1);
    let newer: Vec<_> = shims(agent.path()).into_iter().filter(|pid| !supervisors.contains(pid)).collect();
    assert_eq!(newer.iter().map(|pid| executable(*pid)).collect::<Vec<_>>(), [new]);

    // Down: the old file again, with supervisors of both.
    let (scratch, options) = agent.kill();
    let agent = Real::start_in(scratch, Options { binary: Some(old), ..options });
    std::fs::write(folder(agent.path(), &first[0]).join("local/end"), b"").expect("written");
    let batch = agent.allocs("batch", 1, |alloc| state(alloc)["State"] == "dead").remove(0);
    assert_eq!(kinds(&batch), ["Received", "Task Setup", "Started", "Terminated", "Not Restarting"]);
    assert_eq!(events(&batch)[3]["ExitCode"], 7);
    restart(&agent, 2);
    let service = agent.allocs("service", 1, is_running).remove(0);
    check_events(&service);
    // It runs before it has said so.
    let lives = || std::fs::read_to_string(folder(agent.path(), &service).join("local/lives")).unwrap_or_default().lines().count() as u64;
    let restarts = state(&service)["Restarts"].as_u64().expect("a number");
    eventually(|| lives() > restarts);
    assert_eq!(lives(), restarts + 1);
}

#[test]
fn a_second_agent_on_the_same_data_refuses() {
    let agent = Real::start("second", Options::default());
    agent.run(job("j", "batch", task("t", PATIENT)).to_string().as_bytes());
    let before = agent.allocs("j", 1, is_running);
    // Its folder is lent, not owned.
    let (code, said) = Real::refused(agent.scratch(), &Options::default());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("agent.lock") && said.contains("another agent uses this data folder"), "{said}");
    assert_eq!(agent.allocs("j", 1, |_| true), before);
    assert_eq!(shims(agent.path()).len(), 1);
}

/// What the kernel and the disk hold for the tasks of one agent.
fn traces(agent: &Real, alloc: &Value) -> (Vec<nix::unistd::Pid>, Vec<PathBuf>, Vec<PathBuf>) {
    let tree = dunlin_runtime::cgroup::Tree::detect(Path::new("/sys/fs/cgroup"), "nomad");
    let id = dunlin_runtime::id::AllocId::parse(alloc["ID"].as_str().expect("an id")).expect("an id");
    let place = tree.place(id, "t");
    let groups = place.folders().filter(|folder| folder.is_dir()).map(Path::to_path_buf).collect();
    let list = |path: PathBuf| -> Vec<PathBuf> {
        let mut all: Vec<_> = std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
        all.sort();
        all
    };
    (shims(agent.path()), groups, invocations(agent.path()).into_iter().flat_map(list).collect())
}

#[test]
fn two_agents_do_not_touch_each_other() {
    let (one, other) = (Real::start("one", Options::default()), Real::start("other", Options::default()));
    for agent in [&one, &other] {
        agent.run(job("j", "service", task("t", PATIENT)).to_string().as_bytes());
    }
    let mine = one.allocs("j", 1, is_running).remove(0);
    let theirs = other.allocs("j", 1, is_running).remove(0);
    assert_ne!((&mine["ID"], &mine["NodeID"]), (&theirs["ID"], &theirs["NodeID"]));
    let before = traces(&one, &mine);
    assert!(before.0.len() == 1 && before.2.len() == 4, "{before:?}");
    // The other one lives through everything an agent can live through.
    let (scratch, options) = other.kill();
    let other = Real::start_in(scratch, options);
    let (scratch, options) = other.stop();
    let other = Real::start_in(scratch, options);
    assert_eq!(life(&other.allocs("j", 1, is_running)[0]), life(&theirs));
    other.ask("DELETE", "/v1/job/j?purge=true", b"");
    eventually(|| shims(other.path()).is_empty());
    other.ask("PUT", "/v1/system/gc", b"");
    drop(other);
    assert_eq!(traces(&one, &mine), before);
    assert_eq!(one.allocs("j", 1, |_| true)[0]["TaskStates"], mine["TaskStates"]);
    let (scratch, options) = one.kill();
    let one = Real::start_in(scratch, options);
    assert_eq!(life(&one.allocs("j", 1, |_| true)[0]), life(&mine));
}
