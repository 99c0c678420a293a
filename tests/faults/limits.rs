//! A task that takes too much: memory over its limit, processes without end. The agent and its neighbours do not notice (RT10, RT23).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dunlin_runtime::cgroup::{Controller, Tree};
use dunlin_runtime::id::AllocId;
use dunlin_tests::real::{Options, Real};
use dunlin_tests::{figure, skip};
use serde_json::{Value, json};

use super::eventually;
use super::job::{check_events, events, invocations, job, kinds, life, restarting, state, task};

fn tree() -> Tree {
    Tree::detect(Path::new("/sys/fs/cgroup"), "nomad")
}

fn is_running(alloc: &Value) -> bool {
    alloc["ClientStatus"] == "running"
}

/// The folder of a controller for the one task of an allocation.
fn group(tree: &Tree, alloc: &Value, controller: Controller) -> PathBuf {
    let id = AllocId::parse(alloc["ID"].as_str().expect("an id")).expect("an id");
    let place = tree.place(id, "t");
    place.legacy_of(controller).or(place.unified.as_deref()).expect("a folder").to_path_buf()
}

fn groups_n(tree: &Tree, alloc: &Value) -> usize {
    let id = AllocId::parse(alloc["ID"].as_str().expect("an id")).expect("an id");
    tree.place(id, "t").folders().filter(|folder| folder.exists()).count()
}

/// A job that does nothing, to see whether it is left alone.
fn neighbour(agent: &Real) -> Value {
    agent.run(job("neighbour", "service", task("t", "exec sleep 1000")).to_string().as_bytes());
    agent.allocs("neighbour", 1, is_running).remove(0)
}

#[test]
fn a_task_over_its_memory_is_killed_alone_and_told_so() {
    if !tree().has(Controller::Memory) {
        skip!("no memory controller that can be written");
    }
    let agent = Real::start("memory", Options::default());
    let neighbour = neighbour(&agent);
    // The main process itself, and then a child of a main process that lives on.
    let mut greedy = task("t", "");
    greedy["Config"] = json!({ "command": "tail", "args": ["/dev/zero"] });
    greedy["Resources"]["MemoryMB"] = json!(16);
    let mut parent = task("t", "tail /dev/zero; echo $? > local/code; exec sleep 1000");
    parent["Resources"]["MemoryMB"] = json!(16);
    agent.run(restarting(job("greedy", "service", greedy), 100).to_string().as_bytes());
    agent.run(job("parent", "service", parent).to_string().as_bytes());
    let alloc = agent.allocs("greedy", 1, |alloc| state(alloc)["Restarts"].as_u64() >= Some(2)).remove(0);
    check_events(&alloc);
    let ends: Vec<_> = events(&alloc).iter().filter(|event| event["Type"] == "Terminated").collect();
    assert!(ends.len() >= 2);
    for end in ends {
        assert_eq!((&end["ExitCode"], &end["Signal"], &end["Details"]["oom_killed"]), (&json!(137), &json!(9), &json!("true")), "{end:#}");
        assert_eq!(end["DisplayMessage"], "Exit Code: 137, Signal: 9, Exit Message: \"OOM Killed\"");
    }
    let alloc = agent.allocs("parent", 1, |_| true).remove(0);
    let code = super::job::folder(agent.path(), &alloc).join("local/code");
    eventually(|| std::fs::read_to_string(&code).is_ok_and(|code| code.trim() == "137"));
    assert!(is_running(&agent.allocs("parent", 1, |_| true)[0]));
    assert_eq!(life(&agent.allocs("neighbour", 1, |_| true)[0]), life(&neighbour));
}

#[test]
fn a_fork_bomb_hits_its_limit_and_can_be_stopped() {
    let tree = tree();
    if !tree.has(Controller::Pids) {
        skip!("no pids controller that can be written");
    }
    let agent = Real::start("bomb", Options::default());
    let neighbour = neighbour(&agent);
    // Each sleeps after it has doubled, and none obeys; the main process looks on.
    let mut bomb = task("t", "(trap '' TERM INT; b() { b & b & exec sleep 1000; }; b) 2>/dev/null & trap '' INT; while :; do wait; done");
    bomb["KillTimeout"] = json!(500_000_000);
    bomb["Resources"]["MemoryMB"] = json!(1024);
    agent.run(job("bomb", "service", bomb).to_string().as_bytes());
    let alloc = agent.allocs("bomb", 1, is_running).remove(0);
    let pids = group(&tree, &alloc, Controller::Pids);
    let number = |name: &str| std::fs::read_to_string(pids.join(name)).ok()?.split_whitespace().last()?.parse::<u64>().ok();
    let max = number("pids.max").expect("a limit");
    eventually(|| number("pids.events") > Some(0));
    assert!(number("pids.current") <= Some(max));
    // The agent answers while it goes on.
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let begun = Instant::now();
        agent.get("/v1/allocations");
        slowest = slowest.max(begun.elapsed());
    }
    figure!("answers beside a fork bomb of {max} processes: slowest of 20 {} ms", slowest.as_millis());
    let begun = Instant::now();
    agent.ask("DELETE", "/v1/job/bomb", b"");
    let alloc = agent.allocs("bomb", 1, |alloc| state(alloc)["State"] == "dead").remove(0);
    figure!(
        "{} processes stopped in {} ms, 500 of them their kill timeout",
        number("pids.current").unwrap_or(max),
        begun.elapsed().as_millis()
    );
    assert_eq!(kinds(&alloc), ["Received", "Task Setup", "Started", "Killing", "Terminated", "Killed"]);
    assert_eq!((&events(&alloc)[4]["ExitCode"], &events(&alloc)[4]["Details"]["oom_killed"]), (&json!(137), &json!("false")));
    eventually(|| groups_n(&tree, &alloc) == 0);
    eventually(|| invocations(agent.path()).len() == 1);
    assert_eq!(life(&agent.allocs("neighbour", 1, |_| true)[0]), life(&neighbour));
}
