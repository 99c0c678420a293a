//! Ending tasks: those that obey, those that do not, and the trees they leave.

use dunlin_runtime::proc::usage;
use dunlin_runtime::shim;
use dunlin_runtime::shim::record::{ExitKind, FLAG_BY_STOP, FLAG_FORCED, FLAG_SWEPT, Phase};
use dunlin_runtime::shim::wire::{Answer, Op};

use super::rig::{Groups, Rig, field, wait_gone};

const SIGTERM: i32 = nix::libc::SIGTERM;

#[test]
fn a_task_that_obeys() {
    let rig = Rig::new(Groups::Real);
    let mut task = rig.start(&rig.shell("trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 0.05; done"));
    rig.wait_out("up");
    task.stop(SIGTERM, 20_000);
    let slot = task.wait(Phase::Done);
    assert_eq!((slot.exit_kind, slot.code, slot.flags & !FLAG_SWEPT), (ExitKind::Code, 7, FLAG_BY_STOP));
    assert_eq!((slot.stop_signal, slot.stop_timeout_ms), (SIGTERM, 20_000));
    assert_eq!(rig.out(), "up\nbye\n");
    assert!(task.told.contains(&Phase::Stopping));
}

#[test]
fn a_task_that_does_not_is_killed_at_the_deadline() {
    for groups in Groups::ALL {
        let rig = Rig::new(groups);
        let mut task = rig.start(&rig.shell("trap '' TERM; echo up; while :; do sleep 0.05; done"));
        rig.wait_out("up");
        task.stop(SIGTERM, 300);
        // Asked again: the first deadline stands.
        task.stop(SIGTERM, 60_000);
        let slot = task.wait(Phase::Done);
        assert_eq!((slot.exit_kind, slot.code), (ExitKind::Signal, 9));
        assert!(slot.has(FLAG_BY_STOP | FLAG_FORCED));
        assert!(slot.exited.mono >= slot.stop_due, "not before its time");
        assert!(slot.exited.mono.since(slot.stop_due).as_secs() < 5, "{groups:?}: soon after it");
    }
}

#[test]
fn kill_does_not_wait() {
    let rig = Rig::new(Groups::None);
    let mut task = rig.start(&rig.shell("trap '' TERM INT; echo up; while :; do sleep 0.05; done"));
    rig.wait_out("up");
    task.stop(SIGTERM, 60_000);
    assert_eq!(task.ask(Op::Kill), Some(Answer::Ok));
    assert_eq!(task.wait(Phase::Done).code, 9);
}

/// Children, daemons with sessions of their own, and a grandchild whose parents are gone; all deaf to signals.
const DEAF_TREE: &str = "trap '' TERM INT HUP
    sleep 1000 &
    setsid sh -c 'trap \"\" TERM; sleep 1000' &
    (setsid sh -c 'trap \"\" TERM; (setsid sh -c \"sleep 1000; :\" &); sleep 1000' &)
    n=0; while [ $n -lt 7 ]; do n=$(cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c NOMAD_ALLOC_ID=$NOMAD_ALLOC_ID); done
    echo up
    while :; do sleep 1000; done";

#[test]
fn a_tree_that_ignores_everything_is_swept() {
    for groups in Groups::ALL {
        let rig = Rig::new(groups);
        let mut task = rig.start(&rig.shell(DEAF_TREE));
        rig.wait_out("up");
        let all = rig.processes();
        assert!(all.len() >= 6, "{groups:?}: {all:?}");
        task.stop(SIGTERM, 200);
        let slot = task.wait(Phase::Done);
        assert!(slot.has(FLAG_FORCED));
        for process in all {
            wait_gone(process);
        }
        assert_eq!(rig.processes(), [], "{groups:?}");
        // With the shim gone the groups are free, too.
        wait_gone((slot.shim_pid, slot.shim_start));
        assert_eq!(rig.host.cgroup.remove(rig.alloc, "t").expect("removed"), dunlin_runtime::cgroup::Removed::Gone);
    }
}

#[test]
fn what_a_task_leaves_behind_is_swept_after_its_end() {
    for groups in Groups::ALL {
        let rig = Rig::new(groups);
        // One keeps the output open, so it gets two seconds to be done; a daemon does not, but is as much in the way.
        let mut task = rig.start(&rig.shell("sleep 1000 & setsid sleep 1000 >/dev/null 2>&1 & echo $!; exit 4"));
        let slot = task.wait(Phase::Done);
        assert_eq!((slot.exit_kind, slot.code), (ExitKind::Code, 4));
        assert_eq!(slot.flags, FLAG_SWEPT, "{groups:?}");
        assert_eq!(rig.processes(), []);
    }
}

#[test]
fn output_of_children_after_the_end_is_kept() {
    let rig = Rig::new(Groups::None);
    let mut task = rig.start(&rig.shell("(sleep 0.3; echo late) & exit 0"));
    let slot = task.wait(Phase::Done);
    // The child may be met while it is ending.
    assert_eq!((slot.flags & !FLAG_SWEPT, rig.out().as_str()), (0, "late\n"));
}

#[test]
fn a_stop_goes_on_without_an_agent() {
    let rig = Rig::new(Groups::Real);
    let launch = rig.shell("trap '' TERM; echo up; while :; do sleep 0.05; done");
    let mut task = rig.start(&launch);
    rig.wait_out("up");
    task.stop(SIGTERM, 300);
    let shim_process = (task.slot.shim_pid, task.slot.shim_start);
    // The agent dies; nobody reads.
    drop(task);
    wait_gone(shim_process);
    let slot = shim::slot(&rig.host.runtime_dir, launch.inv).expect("readable").expect("left");
    assert_eq!((slot.phase, slot.code), (Phase::Done, 9));
    assert!(slot.has(FLAG_BY_STOP | FLAG_FORCED));
}

#[test]
fn a_stopped_task_can_be_ended() {
    let rig = Rig::new(Groups::None);
    let mut task = rig.start(&rig.shell("echo up; kill -STOP $$; echo never"));
    rig.wait_out("up");
    task.stop(SIGTERM, 200);
    assert_eq!(task.wait(Phase::Done).code, 9);
    assert_eq!(rig.out(), "up\n");
}

#[test]
fn a_stop_that_meets_the_end() {
    let rig = Rig::new(Groups::None);
    for _ in 0..10 {
        let launch = rig.shell("exit 0");
        let mut task = rig.start(&launch);
        // Either answer is right; the record is whole in any case.
        let _ = task.ask(Op::Stop { signal: SIGTERM, timeout_ms: 1_000 });
        let slot = task.wait(Phase::Done);
        assert!(matches!((slot.exit_kind, slot.code), (ExitKind::Code, 0) | (ExitKind::Signal, SIGTERM)), "{slot:?}");
        assert!(usage::stat(slot.task_pid).map_or(true, |stat| stat.start != slot.task_start));
        // The last word is said without the lock: nothing is in the way.
        shim::remove(&rig.host.runtime_dir, launch.inv, None).expect("free");
    }
}

/// What emulators and old kernels lack has another way: joining by hand, opening name by name, signals by pid.
#[test]
fn an_old_kernel() {
    for groups in Groups::ALL {
        let mut rig = Rig::new(groups);
        rig.host.shim_exe = env!("CARGO_BIN_EXE_dunlin-shim-old-kernel").into();
        let mut task = rig.start(&rig.shell("echo out; sed 's/^/cg /' /proc/self/cgroup; exit 3"));
        assert_eq!(task.wait(Phase::Done).code, 3, "{groups:?}");
        let is_in = rig.out().lines().any(|line| line.starts_with("cg") && line.contains(&rig.alloc.to_string()));
        assert_eq!(is_in, groups != Groups::None, "{groups:?}: {}", rig.out());

        let script = if groups == Groups::None { "trap '' TERM; sleep 1000 & echo up; while :; do sleep 1000; done" } else { DEAF_TREE };
        let mut task = rig.start(&rig.shell(script));
        rig.wait_out("up");
        let status = std::fs::read_to_string(format!("/proc/{}/status", task.slot.shim_pid)).expect("alive");
        assert_eq!(field(&status.replace(':', " "), "Seccomp"), "2", "the filter is in force");
        task.stop(SIGTERM, 200);
        assert!(task.wait(Phase::Done).has(FLAG_FORCED));
        // Without a group and without a subreaper only the process group is in reach; this tree stays in it. Who lost his parent is
        // init's to reap, so nobody tells when the last of them has died of its signal.
        crate::eventually(|| rig.processes().is_empty());
    }
}
