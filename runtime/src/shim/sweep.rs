//! Finding and killing all processes of a task from inside its shim: the control group as one where there is one, and whatever has
//! become a child of the shim (it is their subreaper). Edge; never allocates.
//!
//! A sweep is one round: daemons that sit deeper come up as children when their parents are gone, and the next round finds them.
//! Source: `spec/runtime.md` 5.1, 5.4 (D7).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::process::WaitOptions;

use crate::cgroup;
use crate::proc::usage::{for_each_pid, parse_u64, stat};

/// The task's control groups, open.
#[derive(Debug, Default)]
pub struct Groups {
    /// Folder in the v2 tree.
    pub unified: Option<OwnedFd>,
    /// Folder of the v1 freezer.
    pub freezer: Option<OwnedFd>,
}

impl Groups {
    /// SIGKILLs all members; gives back how many there were.
    fn kill(&self) -> u32 {
        let killed = match (&self.unified, &self.freezer) {
            (Some(dir), _) => cgroup::v2::kill(dir.as_fd()),
            (None, Some(dir)) => cgroup::v1::kill(dir.as_fd()),
            (None, None) => Ok(0),
        };
        // A group that was removed by somebody else has no members.
        killed.unwrap_or(0)
    }

    fn for_each(&self, f: impl FnMut(u32)) -> bool {
        self.unified.as_ref().or(self.freezer.as_ref()).is_some_and(|dir| cgroup::for_each_member(dir.as_fd(), f).is_ok())
    }
}

/// SIGKILLs everything: the main process (alive and not reaped), its process group, the control groups, all children.
pub fn kill_all(groups: &Groups, main: Pid) {
    let _ = killpg(main, Signal::SIGKILL);
    let _ = kill(main, Signal::SIGKILL);
    groups.kill();
    kill_children();
}

/// One round after the main process was reaped: reaps what has ended, SIGKILLs what is left, gives back how much that was.
pub fn sweep(groups: &Groups) -> u32 {
    reap_ended();
    let in_groups = groups.kill();
    in_groups.max(kill_children())
}

/// A signal for every process of the task that can be found. False = none was.
pub fn signal_all(groups: &Groups, main: Pid, signal: Option<Signal>) -> bool {
    let mut has_any = false;
    let mut send = |pid: u32| has_any |= i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), signal).is_ok());
    if !groups.for_each(&mut send) {
        has_any = killpg(main, signal).is_ok();
    }
    has_any
}

/// Reaps every child that has ended. Not for the time before the main process was recorded and reaped.
pub fn reap_ended() {
    while let Ok(Some(_)) = rustix::process::wait(WaitOptions::NOHANG) {}
}

fn kill_children() -> u32 {
    let mut found_n = 0;
    for_each_child(|pid| {
        if let Ok(pid) = i32::try_from(pid) {
            found_n += 1;
            // Our own children, not reaped: their numbers cannot belong to others. Stopped first, so that it does not fork meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGSTOP);
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    });
    found_n
}

fn for_each_child(mut f: impl FnMut(u32)) {
    let list = openat(CWD, c"/proc/thread-self/children", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    match list {
        Ok(list) => {
            let _ = for_each_pid(list, f);
        }
        // A kernel without CONFIG_PROC_CHILDREN: ask every process for its parent.
        Err(_) => {
            let me = std::process::id();
            for_each_process(|pid| {
                if stat(pid).is_ok_and(|stat| stat.ppid == me) {
                    f(pid);
                }
            });
        }
    }
}

fn for_each_process(mut f: impl FnMut(u32)) {
    let Ok(dir) = openat(CWD, c"/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else { return };
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        if let Some(pid) = parse_u64(entry.file_name().to_bytes()).and_then(|pid| u32::try_from(pid).ok()) {
            f(pid);
        }
    }
}
