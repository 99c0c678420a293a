//! Counts what a process hands to its disk, by watching the system calls of all its threads (ptrace). Needs nothing installed.
//!
//! Shape: pid, file -> [`Disk`]. Children are not followed: shims write their own files. Errors: the reason why it cannot watch.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What reached the disk while watching.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// `fsync` and `fdatasync`, of any file.
    pub syncs: u64,
    /// Bytes written to the file asked for.
    pub bytes: u64,
}

/// A running watch.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Disk, String>>,
}

impl Watch {
    /// Watches all threads of `pid` from now on.
    pub fn start(pid: Pid, file: &Path) -> Result<Self, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, told) = channel();
        let (its_stop, file) = (stop.clone(), file.to_owned());
        // The tracer is a thread, and only that one may wait for what it traces. When it ends the kernel lets go of everything.
        let thread = std::thread::spawn(move || {
            let seized = seize(pid);
            let is_seized = seized.is_ok();
            let _ = tell.send(());
            if is_seized { follow(pid, &file, &its_stop) } else { seized.map(|()| Disk::default()) }
        });
        let _ = told.recv();
        if thread.is_finished() {
            return Err(thread.join().unwrap_or_else(|_| Err("the watch broke".to_owned())).err().unwrap_or_default());
        }
        Ok(Self { stop, thread })
    }

    /// Ends it; `nudge` must make the process do some system call.
    pub fn end(self, nudge: impl Fn()) -> Result<Disk, String> {
        self.stop.store(true, Ordering::Relaxed);
        while !self.thread.is_finished() {
            nudge();
        }
        self.thread.join().unwrap_or_else(|_| Err("the watch broke".to_owned()))
    }
}

fn seize(pid: Pid) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    // Until no thread is new: one may be born between the listing and the seizing.
    loop {
        let mut is_new = false;
        for entry in fs::read_dir(format!("/proc/{pid}/task")).map_err(|why| why.to_string())?.flatten() {
            let Some(tid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if seen.insert(tid) {
                is_new = true;
                let tid = Pid::from_raw(tid);
                ptrace::seize(tid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE)
                    .map_err(|why| format!("ptrace: {why}"))?;
                ptrace::interrupt(tid).map_err(|why| format!("ptrace: {why}"))?;
            }
        }
        if !is_new {
            return Ok(());
        }
    }
}

fn follow(pid: Pid, file: &Path, stop: &AtomicBool) -> Result<Disk, String> {
    let mut disk = Disk::default();
    while !stop.load(Ordering::Relaxed) {
        let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).map_err(|why| format!("waitpid: {why}"))?;
        let (tid, signal) = match status {
            WaitStatus::PtraceSyscall(tid) => {
                count(pid, tid, file, &mut disk)?;
                (tid, None)
            }
            WaitStatus::Stopped(tid, signal) => {
                (tid, Some(signal).filter(|signal| *signal != Signal::SIGTRAP && *signal != Signal::SIGSTOP))
            }
            WaitStatus::PtraceEvent(tid, _, _) => (tid, None),
            _ => continue,
        };
        // A thread that is gone meanwhile needs no help.
        let _ = ptrace::syscall(tid, signal);
    }
    Ok(disk)
}

fn count(pid: Pid, tid: Pid, file: &Path, disk: &mut Disk) -> Result<(), String> {
    let info = ptrace::syscall_info(tid).map_err(|why| format!("PTRACE_GET_SYSCALL_INFO: {why}"))?;
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return Ok(());
    }
    // SAFETY: `op` says that the kernel has filled in the entry.
    let entry = unsafe { info.u.entry };
    let number = i64::try_from(entry.nr).unwrap_or(-1);
    let is_of_file = || {
        let to: PathBuf = fs::read_link(format!("/proc/{pid}/fd/{}", entry.args[0])).unwrap_or_default();
        to == file
    };
    match number {
        libc::SYS_fsync | libc::SYS_fdatasync => disk.syncs += 1,
        libc::SYS_write | libc::SYS_pwrite64 if is_of_file() => disk.bytes += entry.args[2],
        libc::SYS_writev | libc::SYS_pwritev | libc::SYS_pwritev2 if is_of_file() => {
            return Err("the store writes in a way this watch cannot count".to_owned());
        }
        _ => {}
    }
    Ok(())
}
