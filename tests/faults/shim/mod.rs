//! The shim alone, through the real driver: starts, ends, what is lost, what is left. `rig` is the agent's side of it.

mod logs;
mod lost;
mod rig;
mod stop;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use dunlin_hal::clock::Mono;
use dunlin_runtime::cgroup::Mode;
use dunlin_runtime::driver::{Launch, RenderedFile};
use dunlin_runtime::id::Inv;
use dunlin_runtime::proc::spawn::{self, StartError};
use dunlin_runtime::proc::usage;
use dunlin_runtime::shim::record::{Ended, ExitKind, FLAG_FORCED, FLAG_OOM, Phase};
use dunlin_runtime::shim::spec::Spec;
use dunlin_runtime::shim::wire::{Answer, Op, Scope};
use dunlin_runtime::shim::{self, Fate, Found};
use dunlin_runtime::spec::{LogPolicy, Resources};
use dunlin_tests::{figure, real, skip};
use rig::{DEADLINE, Groups, Rig, Task, field};

#[test]
fn a_task_runs_ends_and_leaves_its_record() {
    for groups in [Groups::Real, Groups::None] {
        let rig = Rig::new(groups);
        let launch =
            Launch { restart_n: 2, interval_started: Mono(77), note: b"mine".to_vec(), ..rig.shell("echo out; echo err >&2; exit 3") };
        let mut task = rig.start(&launch);
        let slot = task.wait(Phase::Done);
        assert_eq!((slot.exit_kind, slot.code, slot.flags), (ExitKind::Code, 3, 0), "{groups:?}");
        assert_eq!((slot.inv, slot.boot_id, slot.restart_n, slot.interval_started), (launch.inv, rig::BOOT, 2, Mono(77)));
        assert_eq!((slot.logs.out_bytes, slot.logs.err_bytes, slot.logs.dropped_bytes), (4, 4, 0));
        assert!(slot.started.mono.0 > 0 && slot.exited.mono >= slot.started.mono && slot.maxrss_kb > 0);
        assert_eq!((rig.out().as_str(), rig.log("stderr").as_slice()), ("out\n", &b"err\n"[..]));
        let scanned = shim::scan(&rig.host.runtime_dir, rig::BOOT).expect("scanned");
        let [found] = scanned.as_slice() else { panic!("{scanned:?}") };
        assert_eq!((found.task.as_ref(), found.fate(), found.slot), (Some(&(rig.alloc, "t".to_owned())), Fate::Consume, Some(slot)));
        assert_eq!(found.note, b"mine");
        assert_eq!(slot.ended(), Some(Ended { exit_code: 3, signal: 0, is_oom_killed: false }));
        assert!(shim::remove(&rig.host.runtime_dir, launch.inv, None).is_err(), "the scan keeps the lock");
        let [found] = <[Found; 1]>::try_from(scanned).expect("one");
        shim::remove(&rig.host.runtime_dir, launch.inv, found.lock).expect("free");
        assert!(shim::scan(&rig.host.runtime_dir, rig::BOOT).expect("scanned").is_empty());
    }
}

#[test]
fn a_signal_is_128_more() {
    let rig = Rig::new(Groups::None);
    let slot = rig.start(&rig.shell("kill -SEGV $$")).wait(Phase::Done);
    assert_eq!((slot.exit_kind, slot.code), (ExitKind::Signal, 11));
    assert_eq!(slot.ended().map(|ended| (ended.exit_code, ended.signal)), Some((139, 11)));
}

/// What a program finds when it begins: nothing of the agent, nothing of the shim.
#[test]
fn a_task_begins_clean() {
    let rig = Rig::new(Groups::Real);
    let script = "echo \"fds $(ls /proc/self/fd | tr '\\n' ' ')\"; grep -E 'Sig(Blk|Ign)' /proc/self/status | tr ':' ' '
        echo \"oom $(cat /proc/self/oom_score_adj)\"; echo \"umask $(umask)\"; echo \"pwd $PWD\"; echo \"pid $$\"; echo \"zero $0\"
        echo \"session $(cut -d' ' -f6 /proc/$$/stat)\"; echo \"stdin $(readlink /proc/self/fd/0)\"; echo \"env $(env | sort | tr '\\n' ' ')\"
        sed 's/^/group /' /proc/self/cgroup";
    let mut task = rig.start(&rig.shell(script));
    let slot = task.wait(Phase::Done);
    let out = rig.out();
    // 3 is the listing's own.
    assert_eq!(field(&out, "fds"), "0 1 2 3");
    assert_eq!((field(&out, "SigBlk"), field(&out, "SigIgn")), ("0000000000000000", "0000000000000000"));
    assert_eq!((field(&out, "oom"), field(&out, "umask"), field(&out, "stdin")), ("0", "0022", "/dev/null"));
    assert_eq!((field(&out, "pwd"), field(&out, "zero")), (rig.task_dir().to_str().expect("text"), "/bin/sh"));
    assert_eq!(field(&out, "pid"), slot.task_pid.to_string());
    assert_eq!(field(&out, "session"), slot.task_pid.to_string());
    let names = field(&out, "env").split(' ').map(|pair| pair.split('=').next().expect("a name")).collect::<Vec<_>>();
    assert_eq!(names, ["NOMAD_ALLOC_ID", "NOMAD_TASK_NAME", "PATH", "PWD"], "PWD is the shell's");
    let groups_n = out.lines().filter(|line| line.starts_with("group") && line.contains(&format!("{}.t", rig.alloc))).count();
    let want_n = match rig.host.cgroup.mode() {
        Mode::None => 0,
        Mode::V2 => 1,
        Mode::V1 | Mode::Hybrid => rig.host.cgroup.place(rig.alloc, "t").folders().count(),
    };
    assert_eq!(groups_n, want_n, "{out}");
}

#[test]
fn the_shim_is_nobodys_child_and_does_not_keep_the_agents_descriptors() {
    let rig = Rig::new(Groups::None);
    let gate = rig.gate();
    let _kept_open = fs::File::open("/dev/zero").expect("open");
    let mut task = rig.start(&rig.shell(&format!("read go < {gate}")));
    let slot = task.wait(Phase::Running);
    assert_ne!(usage::stat(slot.shim_pid).expect("alive").ppid, std::process::id());
    let zombies_n = usage::descendants(std::process::id())
        .expect("list")
        .into_iter()
        .filter(|pid| usage::stat(*pid).is_ok_and(|stat| stat.state == b'Z'));
    assert_eq!(zombies_n.count(), 0);
    let links = fs::read_dir(format!("/proc/{}/fd", slot.shim_pid))
        .expect("own process")
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    assert!(links.into_iter().all(|link| link != Path::new("/dev/zero")));
    assert_eq!(fs::read_to_string(format!("/proc/{}/comm", slot.shim_pid)).expect("alive"), "dunlin-shim\n");
    gate.open();
    task.wait(Phase::Done);
}

#[test]
fn templates_user_and_working_folder() {
    let rig = Rig::new(Groups::None);
    let launch = Launch {
        user: "nobody".to_owned(),
        work_dir: "/".to_owned(),
        files: vec![RenderedFile { path: "local/conf/app".into(), bytes: b"hello".to_vec(), mode: 0o644 }],
        ..rig.shell("echo \"uid $(id -u)\"; echo \"user $USER $LOGNAME $HOME\"; echo \"pwd $PWD\"; echo \"groups $(id -G)\"")
    };
    let mut task = rig.start(&launch);
    assert_eq!(task.wait(Phase::Done).code, 0);
    let out = rig.out();
    let nobody = nix::unistd::User::from_name("nobody").expect("readable").expect("a user");
    assert_eq!(field(&out, "uid"), nobody.uid.to_string());
    assert_eq!(field(&out, "user"), format!("nobody nobody {}", nobody.dir.display()));
    assert_eq!((field(&out, "pwd"), field(&out, "groups")), ("/", nobody.gid.to_string().as_str()));
    assert_eq!(fs::read(rig.task_dir().join("local/conf/app")).expect("written"), b"hello");
}

#[test]
fn what_cannot_be_launched_leaves_nothing() {
    let rig = Rig::new(Groups::Real);
    let error = rig.fail(&rig.program("/no/such/binary", &[]));
    assert_eq!(error.text, "failed to launch command: binary \"/no/such/binary\" could not be found");
    assert!(!error.is_recoverable);
    let error = rig.fail(&Launch { work_dir: "relative".to_owned(), ..rig.shell("true") });
    assert_eq!(error.text, "failed to launch command: work_dir must be an absolute path: \"relative\"");
    let error = rig.fail(&Launch { args: vec!["x".repeat(300 << 10)], ..rig.shell("true") });
    assert!(!error.is_recoverable && error.text.contains("256 KiB"), "{error}");
    let error =
        rig.fail(&Launch { files: vec![RenderedFile { path: "../escape".into(), ..RenderedFile::default() }], ..rig.shell("true") });
    assert!(!error.is_recoverable && error.text.contains("../escape"), "{error}");
    assert_eq!(fs::read_dir(rig.host.runtime_dir.join("t")).map_or(0, Iterator::count), 0);
    assert_eq!(rig.host.cgroup.tasks(), []);
}

#[test]
fn a_failed_step_is_told_by_name() {
    let rig = Rig::new(Groups::None);
    let put = |name: &str, text: &[u8]| {
        let path = rig.task_dir().join("local").join(name);
        fs::create_dir_all(path.parent().expect("below")).expect("folder");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("own");
    };
    put("no-interpreter", b"#!/no/such/interpreter\n");
    put("garbage", &[0x7f, b'E', b'L', b'F', 1, 2, 3]);
    for (launch, stage, want) in [
        (rig.program("no-interpreter", &[]), 12, "failed to launch command: execve: No such file or directory"),
        (rig.program("garbage", &[]), 12, "failed to launch command: execve: Exec format error"),
        (
            Launch { work_dir: "/no/such/folder".to_owned(), ..rig.shell("true") },
            10,
            "failed to launch command: chdir: No such file or directory",
        ),
    ] {
        let mut task = rig.start(&launch);
        let slot = task.wait(Phase::ExecFailed);
        assert_eq!((slot.stage, slot.exec_error().as_deref()), (stage, Some(want)));
        assert_eq!(slot.started.mono, Mono(0), "it never began");
        shim::remove(&rig.host.runtime_dir, launch.inv, None).expect("free");
    }
}

#[test]
fn memory_beyond_the_limit_is_told_as_such() {
    let rig = Rig::new(Groups::Real);
    if !rig.host.cgroup.has(dunlin_runtime::cgroup::Controller::Memory) {
        println!("no memory controller on this machine: nothing to test");
        return;
    }
    let launch = Launch { resources: Resources { cpu_mhz: 100, memory_mb: 16, memory_max_mb: 0 }, ..rig.program("tail", &["/dev/zero"]) };
    let slot = rig.start(&launch).wait(Phase::Done);
    assert_eq!((slot.exit_kind, slot.code), (ExitKind::Signal, 9));
    assert!(slot.has(FLAG_OOM) && !slot.has(FLAG_FORCED) && slot.oom_end > slot.oom_base);
    assert_eq!(slot.ended(), Some(Ended { exit_code: 137, signal: 9, is_oom_killed: true }));
    assert!(rig.host.cgroup.oom_kills(rig.alloc, "t").is_some_and(|kills| kills > 0));

    // The same task again, within its limit: the count of the last life is not its own.
    let launch = Launch { resources: launch.resources, ..rig.shell("exit 0") };
    let slot = rig.start(&launch).wait(Phase::Done);
    assert!(!slot.has(FLAG_OOM));
}

#[test]
fn a_fork_bomb_meets_its_limit_and_is_ended() {
    let mut rig = Rig::new(Groups::Real);
    if !rig.host.cgroup.has(dunlin_runtime::cgroup::Controller::Pids) {
        println!("no pids controller on this machine: nothing to test");
        return;
    }
    rig.host.pids_max = 20;
    let mut task = rig.start(&rig.shell("trap '' TERM; i=0; while [ $i -lt 60 ]; do sleep 1000 & i=$((i+1)); done; echo full; wait"));
    // The shell gives up on the first fork that is refused; those it made are still there.
    let slot = task.wait(Phase::Done);
    assert_ne!(slot.code, 0);
    assert_eq!(rig.processes(), []);
}

#[test]
fn a_sample_of_a_running_task() {
    for groups in [Groups::Real, Groups::None] {
        let rig = Rig::new(groups);
        let gate = rig.gate();
        let mut task = rig.start(
            &rig.shell(&format!("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000 & echo up; read go < {gate}; kill $!")),
        );
        rig.wait_out("up");
        let sample = rig.host.cgroup.sample(rig.alloc, "t", task.slot.shim_pid).expect("sample");
        assert!(sample.cpu.total_ns > 0 && sample.memory.usage > 0, "{groups:?} {sample:?}");
        assert!(sample.pids.len() >= 2, "sh and sleep: {:?}", sample.pids);
        assert!(sample.pids.iter().any(|(pid, usage)| *pid == task.slot.task_pid && usage.rss_bytes > 0));
        gate.open();
        task.wait(Phase::Done);
    }
}

#[test]
fn the_control_socket() {
    let rig = Rig::new(Groups::Real);
    let gate = rig.gate();
    let script = format!("trap 'echo usr1' USR1; echo up; while ! read go < {gate}; do :; done; echo end");
    let mut task = rig.start(&rig.shell(&script));
    rig.wait_out("up");
    assert_eq!(task.ask(Op::Ping), Some(Answer::Ok));
    for bad in [&[9, 1, 0, 0][..], &[0x80, 1, 0, 0]] {
        assert_eq!(task.ask_raw(bad), Some(Answer::Err { errno: nix::libc::ENOSYS }));
    }
    for bad in [&[7, 1, 1, 0][..], &[7], &[1; 500]] {
        assert_eq!(task.ask_raw(bad), Some(Answer::Err { errno: nix::libc::EINVAL }));
    }
    assert_eq!(task.signal(99, Scope::Main), Some(Answer::Err { errno: nix::libc::EINVAL }));
    assert_eq!(task.ask(Op::Stop { signal: 99, timeout_ms: 1 }), Some(Answer::Err { errno: nix::libc::EINVAL }));
    assert_eq!(task.signal(0, Scope::Main), Some(Answer::Ok));
    assert_eq!(task.ask(Op::Restarts { restart_n: 4, interval_started: Mono(9) }), Some(Answer::Ok));
    assert_eq!(task.record().map(|slot| (slot.restart_n, slot.interval_started)), Some((4, Mono(9))));

    // A signal reaches the main process; the shell's `read` is interrupted, so the loop goes round.
    assert_eq!(task.signal(nix::libc::SIGUSR1, Scope::Group), Some(Answer::Ok));
    rig.wait_out("usr1");

    // The newest adopter is told, the one before is not; the fifth connection closes the first.
    let mut others: Vec<Task> = (0..3).map(|_| Task::adopt(&rig.host.runtime_dir, task.inv)).collect();
    let mut newest = Task::adopt(&rig.host.runtime_dir, task.inv);
    assert_eq!(task.receive(), None, "the oldest connection was closed");
    gate.open();
    newest.wait(Phase::Done);
    assert_eq!(newest.told, [Phase::Running, Phase::Exited, Phase::Done]);
    for other in &mut others {
        assert_eq!(other.receive(), None);
        assert_eq!(other.told, [Phase::Running, Phase::Done], "no event, only the record afterwards");
    }
    assert!(rig.out().ends_with("end\n"));
}

/// A runtime folder made by hand; the task would make a file.
fn folder(rig: &Rig, inv: Inv, spec: &[u8]) -> std::path::PathBuf {
    let dir = shim::folder::path(&rig.host.runtime_dir, inv);
    fs::create_dir_all(&dir).expect("folder");
    for (name, bytes) in [("lock", &[][..]), ("state", &[0; 1024]), ("spec", spec)] {
        fs::write(dir.join(name), bytes).expect("written");
    }
    dir
}

#[test]
fn a_shim_that_may_not_or_cannot_run_its_task_says_why() {
    let rig = Rig::new(Groups::None);
    // The folders of the allocation exist.
    rig.start(&rig.shell("true")).wait(Phase::Done);
    let text = |path: &Path| [path.to_str().expect("text").as_bytes(), b"\0"].concat();
    let (alloc_dir, marker) = (text(rig.task_dir().parent().expect("below")), rig.root.join("marker"));
    let marker_text = text(&marker);
    let spec = Spec {
        inv: Inv(1),
        boot_id: rig::BOOT,
        alloc: rig.alloc,
        task: "t",
        exec: b"/usr/bin/touch\0",
        argv: vec![b"touch\0", &marker_text],
        work_dir: b"/\0",
        alloc_dir: &alloc_dir,
        logs: LogPolicy::default(),
        ..Spec::default()
    };
    let good = spec.encode().expect("fits");
    let exe = &rig.host.shim_exe;
    let refused = |dir: &Path| match spawn::shim(exe, dir.as_os_str(), DEADLINE) {
        Err(StartError::Refused(why)) => why,
        other => panic!("{other:?}"),
    };

    let dir = folder(&rig, Inv(1), &good);
    let lock = shim::folder::try_lock(&dir).expect("there").expect("free");
    assert_eq!(refused(&dir), "lock: Try again");
    assert_eq!(shim::slot(&rig.host.runtime_dir, Inv(1)).expect("readable"), None);
    drop(lock);
    fs::remove_file(dir.join("lock")).expect("given up");
    assert_eq!(refused(&dir), "lock: No such file or directory");

    for (inv, bytes, want) in [
        (2, &b"garbage"[..], "spec: not readable by this version: refused"),
        (3, &good[..good.len() / 2], "spec: not readable by this version: refused"),
        (4, &vec![1; 300 << 10], "spec: too long: refused"),
    ] {
        assert_eq!(refused(&folder(&rig, Inv(inv), bytes)), want);
    }
    let dir = folder(&rig, Inv(5), &good);
    fs::write(dir.join("state"), b"").expect("written");
    assert_eq!(refused(&dir), "state: not preallocated: refused");
    let gone = rig.root.join("no-such-folder");
    assert_eq!(refused(&gone), "runtime folder: No such file or directory");
    assert!(!marker.exists(), "no task ever ran");

    // The same spec in a folder that is free runs: the refusals above were for their reasons.
    let dir = folder(&rig, Inv(6), &good);
    spawn::shim(exe, dir.as_os_str(), DEADLINE).expect("ready");
    Task::adopt(&rig.host.runtime_dir, Inv(6)).wait(Phase::Done);
    assert!(marker.exists());
}

#[test]
fn a_supervisor_that_does_not_become_ready_is_ended() {
    let rig = Rig::new(Groups::None);
    // It reads its folder's spec, which is a pipe that nobody writes.
    let dir = folder(&rig, Inv(1), b"");
    fs::remove_file(dir.join("spec")).expect("there");
    nix::unistd::mkfifo(&dir.join("spec"), nix::sys::stat::Mode::from_bits_truncate(0o600)).expect("pipe");
    let late = spawn::shim(&rig.host.shim_exe, dir.as_os_str(), Duration::from_millis(300));
    assert!(matches!(late, Err(StartError::Late { is_gone: true })), "{late:?}");
    assert!(shim::folder::try_lock(&dir).expect("there").is_some());
}

#[test]
fn the_runtime_folder_may_lie_deep() {
    let mut rig = Rig::new(Groups::None);
    rig.host.runtime_dir = rig.root.join("x".repeat(150));
    let mut task = rig.start(&rig.shell("exit 5"));
    assert_eq!(task.wait(Phase::Done).code, 5);
}

/// Private memory of a shim, the product's figure: held to its budget where the product is at hand (`DUNLIN_BIN`, decisions 22, 23).
#[test]
fn private_memory() {
    if !real::is_static(real::binary()) {
        skip!("{} is not the static build that figures are about", real::binary().display());
    }
    // Two of them: what they share must not count as private.
    let mut rigs = [Rig::new(Groups::Real), Rig::new(Groups::Real)];
    for rig in &mut rigs {
        rig.host.shim_exe = real::binary().into();
    }
    let mut running = Vec::new();
    for rig in &rigs {
        let gate = rig.gate();
        running.push((rig.start(&rig.shell(&format!("echo up; read go < {gate}"))), gate));
        rig.wait_out("up");
    }
    for (task, _) in &mut running {
        task.wait(Phase::Running);
        assert_eq!(task.ask(Op::Ping), Some(Answer::Ok));
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", task.slot.shim_pid)).expect("a process");
        let kb = |name: &str| field(&rollup.replace(':', " "), name).trim_end_matches(" kB").trim().parse::<u64>().expect("a number");
        let private_kb = kb("Private_Dirty") + kb("Private_Clean");
        figure!("shim: {private_kb} KiB private, {} KiB PSS", kb("Pss"));
        assert!(private_kb <= 64, "{rollup}");
    }
    for (task, gate) in &mut running {
        gate.open();
        task.wait(Phase::Done);
    }
}
