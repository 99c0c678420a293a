//! Captured output through the real shim: every byte, in order, whatever the disk does.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use dunlin_runtime::alloc::dir::{self, Owners};
use dunlin_runtime::driver::Launch;
use dunlin_runtime::shim::record::{FLAG_LOG_LOSS, Phase};
use dunlin_runtime::shim::wire::{Answer, Op};
use dunlin_runtime::spec::LogPolicy;

use super::rig::{Groups, Rig, mount_small, wait_file};

fn policy(files_max: u32, file_bytes_max: u64) -> LogPolicy {
    LogPolicy { files_max, file_bytes_max, is_captured: true }
}

/// `n` numbered lines, as `seq -w 1 n` writes them.
fn numbered(n: usize) -> Vec<u8> {
    let width = n.to_string().len();
    (1..=n).flat_map(|i| format!("{i:0width$}\n").into_bytes()).collect()
}

#[test]
fn many_rotations_lose_no_byte() {
    let rig = Rig::new(Groups::None);
    let launch = Launch { logs: policy(1_000, 100_000), ..rig.shell("seq -w 1 900000 & seq -w 1 300000 >&2; wait") };
    let mut task = rig.start(&launch);
    let slot = task.wait(Phase::Done);
    let (out, err) = (numbered(900_000), numbered(300_000));
    assert_eq!((slot.flags, slot.logs.out_bytes, slot.logs.err_bytes), (0, out.len() as u64, err.len() as u64));
    assert!(rig.log("stdout") == out, "stdout differs");
    assert!(rig.log("stderr") == err, "stderr differs");
    assert!(slot.logs.out_i >= 62, "{}", slot.logs.out_i);
    for i in 0..=slot.logs.out_i {
        let file = fs::metadata(rig.log_dir().join(format!("t.stdout.{i}"))).expect("every index");
        assert!(file.len() <= 100_000 && file.mode() & 0o7777 == 0o644);
    }
}

#[test]
fn only_the_newest_files_are_kept_and_a_restart_goes_on() {
    let rig = Rig::new(Groups::None);
    let launch = Launch { logs: policy(3, 1 << 20), ..rig.shell("seq -w 1 900000") };
    let slot = rig.start(&launch).wait(Phase::Done);
    let all = numbered(900_000);
    let kept = rig.log("stdout");
    assert!(all.ends_with(&kept) && kept.len() > 2_000_000 && kept.len() <= 3 << 20, "{}", kept.len());
    let names = || {
        fs::read_dir(rig.log_dir())
            .expect("there")
            .filter(|entry| entry.as_ref().is_ok_and(|e| e.file_name().to_string_lossy().contains("stdout")))
            .count()
    };
    assert_eq!(names(), 3);

    // The next invocation appends to the highest file.
    let launch = Launch { logs: policy(2, 1 << 20), ..rig.shell("echo again") };
    let next = rig.start(&launch).wait(Phase::Done);
    assert_eq!((next.logs.out_i, names()), (slot.logs.out_i, 2), "fewer are allowed now");
    assert!(rig.log("stdout").ends_with(b"again\n") && rig.log("stdout").len() > 6);
}

#[test]
fn long_lines() {
    let rig = Rig::new(Groups::None);
    let script = "for i in 1 2 3 4 5; do head -c 65535 /dev/zero | tr '\\0' x; echo; done; printf end";
    let slot = rig.start(&Launch { logs: policy(100, 150_000), ..rig.shell(script) }).wait(Phase::Done);
    let line = ["x".repeat(65_535), "\n".to_owned()].concat();
    assert!(rig.out() == format!("{}end", line.repeat(5)));
    assert_eq!(slot.logs.dropped_bytes, 0);
}

#[test]
fn limits_can_change_while_the_task_runs() {
    let rig = Rig::new(Groups::None);
    let gate = rig.gate();
    let launch =
        Launch { logs: policy(100, 1 << 20), ..rig.shell(&format!("seq -w 1 300000; echo half; read go < {gate}; seq -w 1 900000")) };
    let mut task = rig.start(&launch);
    rig.wait_out("half");
    assert_eq!(task.ask(Op::LogConfig { files_max: 2, file_bytes_max: 600_000 }), Some(Answer::Ok));
    gate.open();
    task.wait(Phase::Done);
    let all = [numbered(300_000), b"half\n".to_vec(), numbered(900_000)].concat();
    let kept = rig.log("stdout");
    assert!(all.ends_with(&kept) && kept.len() <= 1_200_000 && kept.len() > 560_000, "{}", kept.len());
}

#[test]
fn output_that_is_not_captured() {
    let rig = Rig::new(Groups::None);
    let logs = LogPolicy { is_captured: false, ..LogPolicy::default() };
    let slot = rig.start(&Launch { logs, ..rig.shell("echo x; echo y >&2; exit 2") }).wait(Phase::Done);
    assert_eq!((slot.code, slot.logs.out_bytes), (2, 0));
    assert_eq!(fs::read_dir(rig.log_dir()).expect("there").count(), 0);
}

#[test]
fn a_full_disk_costs_output_and_nothing_else() {
    let rig = Rig::new(Groups::None);
    dir::make(&rig.host.alloc_root, rig.alloc, "t", Owners::of_system(None)).expect("folders");
    if let Err(why) = mount_small(&rig.log_dir(), 256 << 10) {
        println!("cannot mount here ({why}): nothing to test");
        return;
    }
    fs::write(rig.log_dir().join("ballast"), vec![0; 150 << 10]).expect("fits");
    let gate = rig.gate();
    let script =
        format!("echo first; head -c 200000 /dev/zero | tr '\\0' y; echo; echo full >&2; : > reached; read go < {gate}; echo last; exit 6");
    let launch = rig.shell(&script);
    let mut task = rig.start(&launch);
    // The task is not held up: it waits at its gate with all its output out of its hands.
    wait_file(&rig.task_dir(), || rig.task_dir().join("reached").exists().then_some(()));
    let lost = |out: &str| out.contains("bytes of log dropped");
    assert!(!lost(&rig.out()));
    fs::remove_file(rig.log_dir().join("ballast")).expect("room again");
    // Within a second the shim tries again and says what is missing.
    let out = wait_file(&rig.log_dir(), || Some(rig.out()).filter(|out| lost(out)));
    let dropped: u64 =
        out.lines().find_map(|line| line.strip_prefix("[agent] ")?.strip_suffix(" bytes of log dropped")?.parse().ok()).expect("a number");
    gate.open();
    let slot = task.wait(Phase::Done);
    assert_eq!(slot.code, 6);
    assert!(slot.has(FLAG_LOG_LOSS) && slot.logs.dropped_bytes >= dropped);
    let out = rig.out();
    assert!(out.starts_with("first\nyyy") && out.ends_with("last\n"), "{}", &out[out.len() - 100..]);
    let kept = out.matches('y').count() as u64;
    assert!(kept > 0 && kept + dropped >= 200_000 && kept + dropped <= 200_006, "{kept} + {dropped}");
}

#[test]
fn names_planted_in_the_log_folder_are_not_followed() {
    let rig = Rig::new(Groups::None);
    dir::make(&rig.host.alloc_root, rig.alloc, "t", Owners::of_system(None)).expect("folders");
    let victim = rig.root.join("victim");
    fs::write(&victim, "mine").expect("written");
    symlink(&victim, rig.log_dir().join("t.stdout.0")).expect("planted");
    fs::hard_link(&victim, rig.log_dir().join("t.stderr.0")).expect("planted");
    let slot = rig.start(&rig.shell("echo out; echo err >&2")).wait(Phase::Done);
    assert_eq!((rig.out().as_str(), rig.log("stderr").as_slice(), slot.flags), ("out\n", &b"err\n"[..], 0));
    assert_eq!(fs::read(&victim).expect("there"), b"mine");

    // The folder itself replaced by a link: the start is refused, before any task runs.
    fs::rename(rig.log_dir(), rig.root.join("logs-moved")).expect("moved");
    symlink(&rig.root, rig.log_dir()).expect("planted");
    let error = rig.fail(&rig.shell("echo never"));
    assert!(error.text.contains("alloc/logs"), "{error}");
    fs::remove_file(rig.log_dir()).expect("link");
    fs::rename(rig.root.join("logs-moved"), rig.log_dir()).expect("back");
}

#[test]
fn a_log_folder_that_is_gone_does_not_stop_a_task() {
    let rig = Rig::new(Groups::None);
    let gate = rig.gate();
    let script = format!("echo up; read go < {gate}; seq 1 200000; exit 8");
    let mut task = rig.start(&Launch { logs: policy(5, 100_000), ..rig.shell(&script) });
    rig.wait_out("up");
    fs::remove_dir_all(rig.log_dir()).expect("a task may");
    gate.open();
    let slot = task.wait(Phase::Done);
    assert_eq!(slot.code, 8);
    assert!(slot.has(FLAG_LOG_LOSS));
}
