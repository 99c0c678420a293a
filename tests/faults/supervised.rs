//! kill -9 and SIGSTOP of supervisors, kill -9 of tasks, and of the agent while a task is being stopped (RT02, RT03, RT22; flow D).

use std::path::Path;
use std::time::{Duration, Instant};

use dunlin_tests::real::{Options, Real, shims};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::eventually;
use super::job::{check_events, check_numbered, events, folder, invocations, job, kinds, output, restarting, state, task};

/// Leaves a daemon that nobody waits for; both tell their numbers.
const WITH_DAEMON: &str = "setsid sh -c 'echo $$ > local/daemon; exec sleep 1000' & echo $$ > local/main; while :; do sleep 1; done";

fn pid_in(path: &Path) -> Pid {
    let read = || std::fs::read_to_string(path).ok()?.trim().parse().ok();
    eventually(|| read().is_some());
    Pid::from_raw(read().expect("a pid"))
}

/// The one supervisor of an agent.
#[track_caller]
fn shim(agent: &Path) -> Pid {
    let all = shims(agent);
    assert_eq!(all.len(), 1);
    all[0]
}

/// Ended; it may still wait to be reaped by whoever has inherited it.
fn is_dead(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
}

fn is_running(alloc: &Value) -> bool {
    alloc["ClientStatus"] == "running"
}

/// A task with a daemon, restarted by policy, and the two processes of its first life.
fn with_daemon(name: &str) -> (Real, Pid, Pid) {
    let agent = Real::start(name, Options::default());
    agent.run(restarting(job("j", "service", task("t", WITH_DAEMON)), 200).to_string().as_bytes());
    let alloc = agent.allocs("j", 1, is_running).remove(0);
    let local = folder(agent.path(), &alloc).join("local");
    let (main, daemon) = (pid_in(&local.join("main")), pid_in(&local.join("daemon")));
    (agent, main, daemon)
}

#[track_caller]
fn check_lost_once(agent: &Real, main: Pid, daemon: Pid) {
    let alloc = agent.allocs("j", 1, |alloc| is_running(alloc) && state(alloc)["Restarts"] == 1).remove(0);
    assert_eq!(kinds(&alloc), ["Received", "Task Setup", "Started", "Terminated", "Restarting", "Started"]);
    let end = &events(&alloc)[3];
    assert_eq!((&end["ExitCode"], &end["Signal"], &end["Message"]), (&json!(-1), &json!(0), &json!("supervisor lost")), "{end:#}");
    assert_eq!(end["Details"]["exit_code"], "-1");
    check_events(&alloc);
    // Nothing of the first life runs beside the second, not even what nobody waited for.
    assert!(is_dead(main) && is_dead(daemon), "{main} {daemon}");
    assert_eq!(state(&alloc)["Failed"], false);
}

#[test]
fn a_lost_supervisor_takes_its_task_with_it_and_the_policy_decides() {
    let (agent, main, daemon) = with_daemon("shim-lost");
    kill(shim(agent.path()), Signal::SIGKILL).expect("it lives");
    check_lost_once(&agent, main, daemon);
}

#[test]
fn a_supervisor_lost_while_the_agent_was_away_is_found_so() {
    let (agent, main, daemon) = with_daemon("shim-lost-away");
    let (scratch, options) = agent.kill();
    kill(shim(scratch.path()), Signal::SIGKILL).expect("it lives");
    eventually(|| shims(scratch.path()).is_empty());
    check_lost_once(&Real::start_in(scratch, options), main, daemon);
}

#[test]
fn a_killed_task_is_137_and_restarts() {
    let (agent, main, daemon) = with_daemon("task-killed");
    kill(main, Signal::SIGKILL).expect("it lives");
    let alloc = agent.allocs("j", 1, |alloc| is_running(alloc) && state(alloc)["Restarts"] == 1).remove(0);
    assert_eq!(kinds(&alloc), ["Received", "Task Setup", "Started", "Terminated", "Restarting", "Started"]);
    let end = &events(&alloc)[3];
    assert_eq!((&end["ExitCode"], &end["Signal"], &end["Details"]["oom_killed"]), (&json!(137), &json!(9), &json!("false")), "{end:#}");
    assert!(is_dead(main) && is_dead(daemon), "what the task left is swept before it starts again");
}

/// The agent dies `after` it was told to stop a task that ends with `code`, and comes back when the supervisor is gone or at once.
#[track_caller]
fn check_stop(script: &str, after_ms: u64, comes_late: bool, code: i64) {
    let agent = Real::start("mid-stop", Options::default());
    let mut stubborn = task("t", &format!("{script}; echo up > local/up; while :; do sleep 1 & wait $!; done"));
    stubborn["KillSignal"] = json!("SIGTERM");
    stubborn["KillTimeout"] = json!(1_000_000_000);
    agent.run(job("j", "service", stubborn).to_string().as_bytes());
    let alloc = agent.allocs("j", 1, is_running).remove(0);
    let up = folder(agent.path(), &alloc).join("local/up");
    eventually(|| up.exists());
    let asked = Instant::now();
    agent.ask("DELETE", "/v1/job/j", b"");
    std::thread::sleep(Duration::from_millis(after_ms)); // sleep: the moment of the kill
    let (scratch, options) = agent.kill();
    if comes_late {
        eventually(|| shims(scratch.path()).is_empty());
    }
    let agent = Real::start_in(scratch, options);
    let alloc = agent.allocs("j", 1, |alloc| state(alloc)["State"] == "dead").remove(0);
    assert_eq!(kinds(&alloc), ["Received", "Task Setup", "Started", "Killing", "Terminated", "Killed"], "{script} {after_ms} {comes_late}");
    assert_eq!(events(&alloc)[4]["ExitCode"].as_i64(), Some(code), "{script} {after_ms} {comes_late}");
    // The first deadline stands, whoever asks again.
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    // Once more: what was consumed stays so.
    let (scratch, options) = agent.kill();
    let agent = Real::start_in(scratch, options);
    assert_eq!(agent.allocs("j", 1, |_| true)[0]["TaskStates"], alloc["TaskStates"]);
    eventually(|| invocations(agent.path()).is_empty());
}

#[test]
fn an_agent_that_dies_during_a_stop_tells_it_once() {
    for after_ms in [0, 5, 30, 200] {
        check_stop("trap 'sleep 0.1; exit 3' TERM", after_ms, false, 3);
    }
    check_stop("trap 'sleep 0.1; exit 3' TERM", 0, true, 3);
    for (after_ms, comes_late) in [(10, false), (900, false), (10, true)] {
        check_stop("trap '' TERM", after_ms, comes_late, 137);
    }
}

/// Numbered lines for ever, far more than a pipe holds.
const LINES: &str = r#"exec awk 'BEGIN { while ((getline x < "local/stop") < 0) { for (k = 0; k < 500; k++) printf "%08d\n", i++; fflush(); system("sleep 0.01") } print i > "local/total" }'"#;

#[test]
fn a_stopped_supervisor_holds_the_log_up_and_loses_nothing() {
    let agent = Real::start("shim-stopped", Options::default());
    let mut lines = task("t", LINES);
    lines["LogConfig"] = json!({ "MaxFiles": 100, "MaxFileSizeMB": 1 });
    agent.run(job("j", "batch", lines).to_string().as_bytes());
    let alloc = agent.allocs("j", 1, is_running).remove(0);
    let log = folder(agent.path(), &alloc).with_file_name("alloc").join("logs/t.stdout.0");
    let size = || std::fs::metadata(&log).map_or(0, |meta| meta.len());
    eventually(|| size() > 50_000);
    let shim = shim(agent.path());
    kill(shim, Signal::SIGSTOP).expect("it lives");
    // It takes the signal at once; what was written before stays all there is.
    eventually(|| std::fs::read_to_string(format!("/proc/{shim}/stat")).is_ok_and(|stat| stat.contains(") T ")));
    let held = size();
    std::thread::sleep(Duration::from_secs(2)); // sleep: nothing is to happen
    assert_eq!(size(), held);
    assert!(is_running(&agent.allocs("j", 1, |_| true)[0]));
    kill(shim, Signal::SIGCONT).expect("it lives");
    eventually(|| size() > held + 100_000);
    std::fs::write(folder(agent.path(), &alloc).join("local/stop"), b"").expect("written");
    let alloc = agent.allocs("j", 1, |alloc| state(alloc)["State"] == "dead").remove(0);
    assert_eq!(kinds(&alloc), ["Received", "Task Setup", "Started", "Terminated"]);
    let total = std::fs::read_to_string(folder(agent.path(), &alloc).join("local/total")).expect("a total");
    let lines_n = check_numbered(&output(agent.path(), &alloc, "stdout").0, |n| format!("{n:08}\n"));
    assert_eq!(lines_n.to_string(), total.trim());
}

#[test]
fn a_supervisor_that_does_not_answer_a_new_agent_is_given_up() {
    let (agent, main, daemon) = with_daemon("shim-hung");
    let (scratch, options) = agent.kill();
    let hung = shim(scratch.path());
    kill(hung, Signal::SIGSTOP).expect("it lives");
    let agent = Real::start_in(scratch, options);
    // Three times two seconds.
    check_lost_once(&agent, main, daemon);
    assert!(is_dead(hung));
}

#[test]
fn a_supervisor_that_stops_only_for_a_moment_is_kept() {
    let (agent, main, _) = with_daemon("shim-slow");
    let (scratch, options) = agent.kill();
    let slow = shim(scratch.path());
    kill(slow, Signal::SIGSTOP).expect("it lives");
    let agent = Real::start_in(scratch, options);
    std::thread::sleep(Duration::from_secs(3)); // sleep: longer than one try, shorter than three
    kill(slow, Signal::SIGCONT).expect("it lives");
    let alloc = agent.allocs("j", 1, is_running).remove(0);
    assert_eq!(kinds(&alloc), ["Received", "Task Setup", "Started"]);
    // It answers again, and does what it is asked to.
    agent.ask("DELETE", "/v1/job/j", b"");
    agent.allocs("j", 1, |alloc| state(alloc)["State"] == "dead");
    assert!(is_dead(main));
}
