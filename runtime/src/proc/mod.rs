//! Processes: starting them, naming signals, finding out who they are and what they use. Edge: system calls only, no policy.
//!
//! `spawn` runs in the shim between fork and exec too, so nothing there allocates or takes a lock.

pub mod pidfd;
pub mod signal;
pub mod spawn;
pub mod usage;

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

/// Takes the ends of all children that have ended: process 1 inherits orphans. Whoever waits for a child of its own treats "gone" as ended.
pub fn reap_all() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
