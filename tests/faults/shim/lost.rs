//! The shim or the agent is lost: what survives, what does not, what is found.

use dunlin_runtime::driver::Launch;
use dunlin_runtime::proc::pidfd::Process;
use dunlin_runtime::shim::record::Phase;
use dunlin_runtime::shim::wire::{Answer, Op};
use dunlin_runtime::shim::{self, Fate, Found};
use nix::sys::signal::Signal;

use super::rig::{self, Groups, Rig, Task, wait_gone};

#[test]
fn the_task_dies_with_its_shim_and_the_rest_when_it_is_found() {
    for (groups, user) in [(Groups::Real, ""), (Groups::Freezer, ""), (Groups::None, ""), (Groups::None, "nobody")] {
        let rig = Rig::new(groups);
        let launch =
            Launch { user: user.to_owned(), ..rig.shell("setsid sleep 1000 & sleep 1000 & echo up; while :; do sleep 1000; done") };
        let mut task = rig.start(&launch);
        task.wait(Phase::Running);
        rig.wait_out("up");
        let all = rig.wait_processes(3);
        let main = (task.slot.task_pid, task.slot.task_start);
        assert!(all.contains(&main));
        task.kill_shim();
        // By the kernel, also after the change of user.
        wait_gone(main);
        let scanned = shim::scan(&rig.host.runtime_dir, rig::BOOT).expect("scanned");
        let [found] = <[Found; 1]>::try_from(scanned).expect("one");
        assert_eq!(found.fate(), Fate::Orphan);
        let slot = found.slot.expect("running when it was lost");
        assert!(shim::kill_orphan(&rig.host.cgroup, &slot, rig.alloc, "t").expect("readable") > 0, "{groups:?}");
        for process in all {
            wait_gone(process);
        }
        assert_eq!(rig.processes(), [], "{groups:?}");
        assert_eq!(shim::kill_orphan(&rig.host.cgroup, &slot, rig.alloc, "t").expect("readable"), 0, "nothing is left");
        shim::remove(&rig.host.runtime_dir, launch.inv, found.lock).expect("free");
    }
}

#[test]
fn a_new_agent_finds_a_running_task_and_its_end() {
    let rig = Rig::new(Groups::Real);
    let gate = rig.gate();
    let launch = rig.shell(&format!("echo up; read go < {gate}; exit 9"));
    let task = rig.start(&launch);
    rig.wait_out("up");
    let pid = task.slot.shim_pid;
    drop(task);

    let scanned = shim::scan(&rig.host.runtime_dir, rig::BOOT).expect("scanned");
    let [found] = scanned.as_slice() else { panic!("{scanned:?}") };
    assert_eq!(found.fate(), Fate::Adopt);
    assert!(found.lock.is_none() && found.slot.is_some_and(|slot| slot.phase == Phase::Running));
    let removed = shim::remove(&rig.host.runtime_dir, launch.inv, None);
    assert_eq!(removed.expect_err("in use").kind(), std::io::ErrorKind::WouldBlock);
    let mut task = Task::adopt(&rig.host.runtime_dir, launch.inv);
    assert_eq!(task.slot.shim_pid, pid, "the same supervisor");
    gate.open();
    assert_eq!(task.wait(Phase::Done).code, 9);

    {
        let scanned = shim::scan(&rig.host.runtime_dir, rig::BOOT).expect("scanned");
        assert!(matches!(scanned.as_slice(), [found] if found.fate() == Fate::Consume && found.slot.is_some_and(|slot| slot.code == 9)));
    }
    // Another boot: nothing of it can be alive, and nothing of it is charged.
    assert!(shim::scan(&rig.host.runtime_dir, [1; 16]).expect("scanned").is_empty());
    assert!(!shim::folder::path(&rig.host.runtime_dir, launch.inv).exists());
}

#[test]
fn a_hung_supervisor_is_ended_with_its_task() {
    let rig = Rig::new(Groups::None);
    let launch = rig.shell("sleep 1000 & echo up; wait");
    let mut task = rig.start(&launch);
    task.wait(Phase::Running);
    rig.wait_out("up");
    let all = rig.wait_processes(2);
    let shim_process = (task.slot.shim_pid, task.slot.shim_start);
    // It hangs: stopped, it answers nothing. The agent's way out is SIGKILL by its identity, then the orphan's path.
    let process = Process::open(shim_process.0, shim_process.1).expect("alive");
    assert!(process.signal(Signal::SIGSTOP).expect("allowed"));
    assert!(process.signal(Signal::SIGKILL).expect("allowed"));
    wait_gone(shim_process);
    let slot = task.record().expect("it was running");
    assert!(shim::kill_orphan(&rig.host.cgroup, &slot, rig.alloc, "t").expect("readable") >= 1);
    for process in all {
        wait_gone(process);
    }
    shim::remove(&rig.host.runtime_dir, launch.inv, None).expect("free");
}

#[test]
fn an_agent_that_never_reads_does_not_hold_the_task_up() {
    let rig = Rig::new(Groups::None);
    let gate = rig.gate();
    let mut task = rig.start(&rig.shell(&format!("read go < {gate}; exit 0")));
    task.wait(Phase::Running);
    // As many answers as its socket holds, none read: it is closed, and a new one is served.
    let flood = shim::connect(&shim::folder::path(&rig.host.runtime_dir, task.inv)).expect("listens");
    use std::os::fd::AsRawFd;
    for _ in 0..10_000 {
        let hello = Op::Hello { version: 1 }.encode();
        if nix::sys::socket::send(flood.as_raw_fd(), &hello, nix::sys::socket::MsgFlags::MSG_NOSIGNAL).is_err() {
            break;
        }
    }
    let mut next = Task::adopt(&rig.host.runtime_dir, task.inv);
    assert_eq!(next.ask(Op::Ping), Some(Answer::Ok));
    gate.open();
    assert_eq!(next.wait(Phase::Done).code, 0);
}
