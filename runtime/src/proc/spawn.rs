//! Making processes: the agent starts a shim, the shim starts its task.
//!
//! The shim is started without copying page tables (posix_spawn) and becomes an orphan of its own accord, so init adopts it; its
//! standard output is a pipe on which it says when it is ready, see [`Report`]. The task is forked by the shim, waits at a gate until
//! its pid is recorded, then changes into what it shall be and executes; between fork and exec nothing allocates or takes a lock.
//! Errors: of the shim as [`StartError`], of the task as (stage, errno) through a pipe. Source: `spec/runtime.md` 6.3, 3.2.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Gid, Pid, Uid};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::pidfd::Process;
use crate::shim::spec::Ids;

/// `argv[0]` of a shim: the same executable does other work under this name.
pub const SHIM_ARG0: &str = "dunlin-shim";

/// What a shim says on its standard output before it closes it, one line: `pid <n> <start>` first, then `ready` or `error <text>`.
/// The pid lets the agent end a shim that hangs before it has a state to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report<'a> {
    /// The supervisor's identity.
    Pid(u32, u64),
    /// The task will be executed now.
    Ready,
    /// It will not; the shim has gone.
    Error(&'a str),
}

impl<'a> Report<'a> {
    /// Reads one line.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        if line == "ready" {
            return Some(Self::Ready);
        }
        if let Some(text) = line.strip_prefix("error ") {
            return Some(Self::Error(text));
        }
        let (pid, start) = line.strip_prefix("pid ")?.split_once(' ')?;
        Some(Self::Pid(pid.parse().ok()?, start.parse().ok()?))
    }
}

/// Why there is no shim.
#[derive(Debug)]
pub enum StartError {
    /// The executable could not be started.
    Spawn(io::Error),
    /// It said why it will not run the task.
    Refused(String),
    /// It ended without a word.
    Silent,
    /// It did not become ready in time. `is_gone`: it was killed and has ended.
    Late {
        /// Nothing of it is left.
        is_gone: bool,
    },
}

/// Longest report read; a longer one is cut.
const REPORT_BYTES_MAX: usize = 1024;

/// Starts `exe` as a shim for the runtime folder `dir` and waits until it is ready, at most `limit`.
///
/// # Errors
/// See [`StartError`]. After `Late { is_gone: false }` the folder must not be removed: the shim may still own it.
pub fn shim(exe: &Path, dir: &OsStr, limit: Duration) -> Result<(), StartError> {
    let mut child = Command::new(exe)
        .arg0(SHIM_ARG0)
        .arg(dir)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(StartError::Spawn)?;
    let pipe = child.stdout.take().map(OwnedFd::from);
    let report = pipe.map(|pipe| read_report(&pipe, limit)).unwrap_or_default();
    let (text, is_ended) = report;
    let lines = || text.lines().filter_map(Report::parse);
    let result = if lines().any(|line| line == Report::Ready) {
        Ok(())
    } else if let Some(why) = lines().find_map(|line| if let Report::Error(why) = line { Some(why.to_owned()) } else { None }) {
        Err(StartError::Refused(why))
    } else if is_ended {
        Err(StartError::Silent)
    } else {
        let known = lines().find_map(|line| if let Report::Pid(pid, start) = line { Some((pid, start)) } else { None });
        Err(StartError::Late { is_gone: end_late(&mut child, known) })
    };
    // The first process only makes the second and ends. A reaper of all children (pid 1) may have been faster: nothing to do then.
    if !matches!(result, Err(StartError::Late { is_gone: false })) {
        let _ = child.wait();
    }
    result
}

/// Reads until the end of the pipe, `ready`, or the limit. True = the pipe is at its end.
fn read_report(pipe: &OwnedFd, limit: Duration) -> (String, bool) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 256];
    let Ok(timer) = timer_in(limit) else { return (String::new(), false) };
    loop {
        let mut fds = [PollFd::new(pipe, PollFlags::IN), PollFd::new(&timer, PollFlags::IN)];
        let polled = rustix::io::retry_on_intr(|| poll(&mut fds, None));
        let [on_pipe, _] = fds;
        if polled.is_err() || on_pipe.revents().is_empty() {
            return (String::from_utf8_lossy(&bytes).into_owned(), false);
        }
        match rustix::io::read(pipe, &mut chunk) {
            Ok(0) => return (String::from_utf8_lossy(&bytes).into_owned(), true),
            Ok(n) if bytes.len() < REPORT_BYTES_MAX => bytes.extend_from_slice(chunk.get(..n).unwrap_or(&[])),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return (String::from_utf8_lossy(&bytes).into_owned(), true),
        }
    }
}

/// A descriptor that can be read after `span`: the kernel keeps the time, so one deadline holds over many waits.
fn timer_in(span: Duration) -> io::Result<OwnedFd> {
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?;
    let none = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A zero value would disarm it.
    let value = Timespec { tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX), tv_nsec: span.subsec_nanos().max(1).into() };
    timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: none, it_value: value })?;
    Ok(timer)
}

/// Ends a shim that hangs before it is ready. True when it is known to be gone.
fn end_late(child: &mut std::process::Child, known: Option<(u32, u64)>) -> bool {
    // Before its report it has not forked yet, or is about to: then the folder's lock decides, not we.
    let _ = child.kill();
    let Some((pid, start)) = known else { return false };
    match Process::open(pid, start) {
        None => true,
        Some(process) => process.signal(Signal::SIGKILL).is_ok() && process.wait_end(Duration::from_secs(1)),
    }
}

/// The steps between fork and execution, as numbered in the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Joining the control groups.
    Cgroup = 1,
    /// Setting the supplementary groups.
    Groups = 6,
    /// Setting the group.
    Gid = 7,
    /// Setting the user.
    Uid = 8,
    /// Changing into the working directory.
    Chdir = 10,
    /// Opening standard input and output.
    Stdio = 11,
    /// Executing.
    Execve = 12,
}

impl Stage {
    /// The word for a number in the slot. 0: there was no process to give; 2 to 5 and 9 belong to drivers with isolation.
    #[must_use]
    pub fn name(number: u8) -> &'static str {
        match number {
            0 => "fork",
            1 => "cgroup",
            2 => "rlimit",
            3 => "unshare",
            4 => "mount",
            5 => "root",
            6 => "groups",
            7 => "gid",
            8 => "uid",
            9 => "caps",
            10 => "chdir",
            11 => "open stdio",
            12 => "execve",
            _ => "unknown step",
        }
    }
}

/// What the forked child becomes. Borrowed from the bytes of the `spec` file.
pub struct Task<'a> {
    /// What is executed.
    pub exec: &'a CStr,
    /// argv, ended by a null pointer.
    pub argv: &'a [*const libc::c_char],
    /// Environment, ended by a null pointer.
    pub envp: &'a [*const libc::c_char],
    /// Working directory.
    pub work_dir: &'a CStr,
    /// Who it runs as; `None` = no change.
    pub user: Option<(Uid, Gid, &'a [Gid])>,
    /// Its `oom_score_adj`.
    pub oom_score_adj: i32,
    /// v2 group it is born in.
    pub unified: Option<BorrowedFd<'a>>,
    /// `cgroup.procs` files it joins.
    pub join: &'a [&'a CStr],
    /// Standard input, output, error.
    pub stdio: [BorrowedFd<'a>; 3],
    /// It waits until a byte can be read here; the end means: never.
    pub gate: BorrowedFd<'a>,
    /// It writes (stage, errno) here when a step fails; closed by execution.
    pub failure: BorrowedFd<'a>,
}

impl std::fmt::Debug for Task<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").field("exec", &self.exec).field("work_dir", &self.work_dir).finish_non_exhaustive()
    }
}

/// Bytes of a failure: stage, errno little endian.
pub const FAILURE_BYTES: usize = 5;

/// User and groups in the kernel's types.
#[must_use]
pub fn groups_of(ids: &Ids) -> Vec<Gid> {
    ids.groups.iter().map(|&gid| Gid::from_raw(gid)).collect()
}

/// Forks the task. Only for a process with one thread.
///
/// # Errors
/// The kernel has no process to give.
pub fn task(task: &Task<'_>) -> io::Result<Pid> {
    let parent = rustix::process::getpid();
    let (pid, is_in_unified) = match task.unified.and_then(clone_into) {
        Some(pid) => (pid, true),
        None => (fork()?, false),
    };
    match Pid::from_raw(pid) {
        Some(child) => Ok(child),
        None => become_task(task, parent, is_in_unified),
    }
}

/// fork(2). 0 in the child.
fn fork() -> io::Result<libc::pid_t> {
    // SAFETY: the process has one thread (a shim), and the child calls only what is safe after a fork: no allocation, no lock.
    match unsafe { libc::fork() } {
        pid if pid < 0 => Err(io::Error::last_os_error()),
        pid => Ok(pid),
    }
}

/// Forks with the child born in a v2 group: it never runs outside. `None` where the kernel (before 5.7), an emulator or a filter
/// refuses; the caller forks then, and the child joins by itself.
fn clone_into(group: BorrowedFd<'_>) -> Option<libc::pid_t> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    /// `struct clone_args` of linux/sched.h, 88 bytes.
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    let args = CloneArgs {
        flags: CLONE_INTO_CGROUP,
        exit_signal: u64::try_from(libc::SIGCHLD).ok()?,
        cgroup: u64::try_from(group.as_raw_fd()).ok()?,
        ..CloneArgs::default()
    };
    // SAFETY: clone3 without CLONE_VM and with a null stack is fork: the child goes on here with its own copy of everything. The
    // process has one thread, and the child calls only what is safe after a fork. `args` outlives the call and has the given size.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    libc::pid_t::try_from(pid).ok().filter(|&pid| pid >= 0)
}

/// The child's way from fork to execve. Order: `spec/runtime.md` 3.2.
fn become_task(task: &Task<'_>, parent: Pid, is_in_unified: bool) -> ! {
    let (stage, errno) = match try_become_task(task, parent, is_in_unified) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    let [a, b, c, d] = errno.to_le_bytes();
    let _ = rustix::io::write(task.failure, &[stage as u8, a, b, c, d]);
    exit_now(127)
}

/// Ends this process without running anything of the parent's.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit runs no handlers and touches no memory of this process.
    unsafe { libc::_exit(code) }
}

fn try_become_task(task: &Task<'_>, parent: Pid, is_in_unified: bool) -> Result<std::convert::Infallible, (Stage, i32)> {
    let at = |stage: Stage| move |error: rustix::io::Errno| (stage, error.raw_os_error());
    // The shim's death must end a child that still waits, too.
    die_with(parent);
    let mut byte = [0];
    if !matches!(rustix::io::retry_on_intr(|| rustix::io::read(task.gate, &mut byte)), Ok(1)) {
        exit_now(126);
    }
    // A session of its own: a group to signal, no terminal. Fails only where it leads one already.
    let _ = rustix::process::setsid();
    if let (Some(group), false) = (task.unified, is_in_unified) {
        let file = openat(group, c"cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(at(Stage::Cgroup))?;
        rustix::io::write(&file, b"0").map_err(at(Stage::Cgroup))?;
    }
    for &procs in task.join {
        let file = openat(CWD, procs, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(at(Stage::Cgroup))?;
        rustix::io::write(&file, b"0").map_err(at(Stage::Cgroup))?;
    }
    set_oom_score_adj(task.oom_score_adj);
    if let Some((uid, gid, groups)) = task.user {
        rustix::thread::set_thread_groups(groups).map_err(at(Stage::Groups))?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(at(Stage::Gid))?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(at(Stage::Uid))?;
        // A change of user clears it.
        die_with(parent);
    }
    rustix::process::chdir(task.work_dir).map_err(at(Stage::Chdir))?;
    let [stdin, stdout, stderr] = task.stdio;
    nix::unistd::dup2_stdin(stdin)
        .and_then(|()| nix::unistd::dup2_stdout(stdout))
        .and_then(|()| nix::unistd::dup2_stderr(stderr))
        .map_err(|error| (Stage::Stdio, error as i32))?;
    reset_signals();
    // SAFETY: all three come from the `spec` file's bytes, which live in this process: strings end with NUL, lists with a null pointer.
    unsafe { libc::execve(task.exec.as_ptr(), task.argv.as_ptr(), task.envp.as_ptr()) };
    Err((Stage::Execve, io::Error::last_os_error().raw_os_error().unwrap_or(0)))
}

/// Asks the kernel for SIGKILL at the shim's death, and ends at once if that was before the asking.
fn die_with(parent: Pid) {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    if rustix::process::getppid() != Some(parent) {
        exit_now(126);
    }
}

/// Every signal as a program expects it at its start: default action, not blocked. What the agent was started with (nohup) or what
/// the language's runtime sets (SIGPIPE) is not the task's business.
fn reset_signals() {
    // All zero is the default action in the kernel's own struct, whatever its layout. Not by the C library, which refuses the two
    // numbers it keeps for itself; a parent may have left those ignored, too.
    let default = [0_u64; 8];
    for number in 1..=64 {
        // SAFETY: `default` is longer than the kernel's struct on every machine and outlives the call; no handler of ours is involved.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), std::ptr::null::<u64>(), size_of::<u64>()) };
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Writes the own `oom_score_adj`; not allowed everywhere, then it stays as it is.
pub fn set_oom_score_adj(value: i32) {
    use std::fmt::Write as _;
    let mut text = heapless::String::<12>::new();
    if write!(text, "{value}").is_ok()
        && let Ok(file) = openat(CWD, c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
    {
        let _ = rustix::io::write(&file, text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports() {
        for (line, want) in [
            ("ready", Some(Report::Ready)),
            ("error spec: too long", Some(Report::Error("spec: too long"))),
            ("pid 12 345", Some(Report::Pid(12, 345))),
            ("pid 12", None),
            ("pid x 1", None),
            ("", None),
            ("READY", None),
        ] {
            assert_eq!(Report::parse(line), want, "{line}");
        }
    }

    #[test]
    fn a_program_that_is_no_shim_is_silent_and_one_that_is_missing_is_an_error() {
        let dir = OsStr::new("/nonexistent");
        assert!(matches!(shim(Path::new("/bin/true"), dir, Duration::from_secs(10)), Err(StartError::Silent)));
        assert!(matches!(shim(Path::new("/no/such/program"), dir, Duration::from_secs(10)), Err(StartError::Spawn(_))));
    }
}
