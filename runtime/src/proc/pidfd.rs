//! Signalling and waiting for processes that are nobody's children here, without being fooled by a pid that was given out again.
//!
//! A process is known by (pid, start time); the start time is field 22 of `/proc/<pid>/stat`, in clock ticks since boot.
//! Never: a signal to a bare pid. On kernels without pidfds (before 5.3) the check and the signal are two steps; that race is tiny
//! and accepted (`spec/runtime.md` 6.6). Only the shim, as the parent, may signal its child by number (D5).

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use super::usage;

/// A process that was alive when it was opened.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    start: u64,
    /// `None` on kernels without pidfds.
    fd: Option<OwnedFd>,
}

impl Process {
    /// The process `pid` if it is the one that started at `start`; `None` when it has ended or the number belongs to another.
    #[must_use]
    pub fn open(pid: u32, start: u64) -> Option<Self> {
        let raw = Pid::from_raw(i32::try_from(pid).ok()?)?;
        // Order matters: with the descriptor open the number cannot change hands, so the start time read after it is its own.
        let fd = pidfd_open(raw, PidfdFlags::empty()).ok();
        let stat = usage::stat(pid).ok()?;
        (stat.start == start && stat.state != b'Z').then_some(Self { pid, start, fd })
    }

    /// Sends a signal. `Ok(false)` when the process is gone.
    ///
    /// # Errors
    /// The kernel's refusal (EPERM).
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let sent = match &self.fd {
            Some(fd) => match rustix_signal(signal) {
                Some(named) => pidfd_send_signal(fd, named).map_err(io::Error::from),
                None => Err(io::Error::from_raw_os_error(nix::libc::EINVAL)),
            },
            None if usage::stat(self.pid).is_ok_and(|stat| stat.start == self.start) => i32::try_from(self.pid)
                .map_err(|_| io::Error::from_raw_os_error(nix::libc::ESRCH))
                .and_then(|pid| signal::kill(nix::unistd::Pid::from_raw(pid), signal).map_err(io::Error::from)),
            None => return Ok(false),
        };
        match sent {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits until the process has ended, at most `limit`. False when it has not (or when the kernel cannot say).
    #[must_use]
    pub fn wait_end(&self, limit: Duration) -> bool {
        match &self.fd {
            Some(fd) => wait_readable(fd, limit),
            None => usage::stat(self.pid).map_or(true, |stat| stat.start != self.start || stat.state == b'Z'),
        }
    }
}

/// Waits until `fd` can be read or has ended, at most `limit`.
pub(crate) fn wait_readable(fd: &OwnedFd, limit: Duration) -> bool {
    let spec = Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX), tv_nsec: limit.subsec_nanos().into() };
    matches!(poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&spec)), Ok(n) if n > 0)
}

/// The same signal in the other crate's words.
fn rustix_signal(signal: Signal) -> Option<rustix::process::Signal> {
    rustix::process::Signal::from_named_raw(signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_pid_is_not_taken_for_its_predecessor() {
        let me = std::process::id();
        let start = usage::stat(me).expect("own stat").start;
        assert!(Process::open(me, start).is_some());
        assert!(Process::open(me, start + 1).is_none());
        assert!(Process::open(0, start).is_none());
        assert!(Process::open(u32::MAX, start).is_none());
    }

    #[test]
    fn the_end_of_a_process_is_an_event() {
        let mut child = std::process::Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().expect("cat");
        let pid = child.id();
        let process = Process::open(pid, usage::stat(pid).expect("stat").start).expect("alive");
        assert!(!process.wait_end(Duration::ZERO));
        assert!(process.signal(Signal::SIGKILL).expect("signal"));
        assert!(process.wait_end(Duration::from_secs(10)));
        child.wait().expect("reap");
        assert!(!process.signal(Signal::SIGKILL).expect("gone"));
    }
}
