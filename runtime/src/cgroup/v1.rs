//! Control groups, version 1: which value goes into which file, and killing through the freezer. [`plan`] is pure.
//!
//! Source: `spec/runtime.md` 5.1, 5.3; the kernel's cgroup-v1 documentation (memory, freezer-subsystem).

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags, openat};

use super::{Controller, Limits, Setting, kill_members, write_at};

/// The smallest share the kernel keeps; it stores 1 as 2.
const SHARES_MIN: u32 = 2;
/// Reads of the freezer's state before the kill goes on regardless; the freezer needs one as a rule.
const FREEZE_READS_MAX: u32 = 64;

/// The settings of these limits. Order matters: the memory limit first, then memory + swap, which may not be below it.
#[must_use]
pub fn plan(limits: &Limits) -> Vec<Setting> {
    let setting = |controller, file, value: String, is_optional| Setting { controller, file, value, is_optional };
    let bytes = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
    let mut plan = Vec::new();
    if limits.cpu_mhz > 0 {
        plan.push(setting(Controller::Cpu, "cpu.shares", limits.cpu_mhz.max(SHARES_MIN).to_string(), false));
    }
    // A group in use may hold a lower memory + swap limit than the new memory limit.
    plan.push(setting(Controller::Memory, "memory.memsw.limit_in_bytes", bytes(None), true));
    plan.push(setting(Controller::Memory, "memory.limit_in_bytes", bytes(limits.memory_hard_bytes), false));
    plan.push(setting(Controller::Memory, "memory.memsw.limit_in_bytes", bytes(limits.memory_hard_bytes), true));
    plan.push(setting(Controller::Memory, "memory.soft_limit_in_bytes", bytes(limits.memory_soft_bytes), true));
    plan.push(setting(Controller::Memory, "memory.swappiness", "0".to_owned(), true));
    if limits.pids_max > 0 {
        plan.push(setting(Controller::Pids, "pids.max", limits.pids_max.to_string(), false));
    }
    plan
}

/// SIGKILLs all processes of a freezer group: frozen first, so that none forks past the list. Never allocates.
///
/// # Errors
/// The list cannot be read. The group is thawed in any case.
pub fn kill(dir: BorrowedFd<'_>) -> io::Result<u32> {
    let has_freezer = write_at(dir, "freezer.state", b"FROZEN").is_ok();
    if has_freezer {
        for _ in 0..FREEZE_READS_MAX {
            if is_frozen(dir) {
                break;
            }
            // Asking again makes the kernel look again.
            let _ = write_at(dir, "freezer.state", b"FROZEN");
        }
    }
    let killed = kill_members(dir);
    if has_freezer {
        write_at(dir, "freezer.state", b"THAWED")?;
    }
    killed
}

fn is_frozen(dir: BorrowedFd<'_>) -> bool {
    let mut state = [0; 16];
    openat(dir, "freezer.state", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|fd| rustix::io::read(&fd, &mut state))
        .is_ok_and(|_| state.starts_with(b"FROZEN"))
}
