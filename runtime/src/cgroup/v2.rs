//! Control groups, version 2: which value goes into which file, enabling controllers, killing. [`plan`] and [`weight`] are pure.
//!
//! Source: `spec/runtime.md` 5.1 to 5.3; the kernel's cgroup-v2 documentation.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::{Controller, Limits, Setting, for_each_member, kill_members, write_at, write_existing};

/// The settings of these limits.
#[must_use]
pub fn plan(limits: &Limits) -> Vec<Setting> {
    let setting = |controller, file, value: String, is_optional| Setting { controller, file, value, is_optional };
    let bytes = |limit: Option<u64>, none: &str| limit.map_or_else(|| none.to_owned(), |bytes| bytes.to_string());
    let mut plan = Vec::new();
    if limits.cpu_mhz > 0 {
        plan.push(setting(Controller::Cpu, "cpu.weight", weight(limits.cpu_mhz).to_string(), false));
    }
    plan.push(setting(Controller::Memory, "memory.max", bytes(limits.memory_hard_bytes, "max"), false));
    plan.push(setting(Controller::Memory, "memory.low", bytes(limits.memory_soft_bytes, "0"), true));
    plan.push(setting(Controller::Memory, "memory.swap.max", "0".to_owned(), true));
    if limits.pids_max > 0 {
        plan.push(setting(Controller::Pids, "pids.max", limits.pids_max.to_string(), false));
    }
    plan
}

/// `cpu.weight` of a share in MHz: 100 -> 17, 1000 -> 99. The newer conversion of OCI runtimes, which keeps small tasks above
/// starvation beside system services at weight 100.
#[must_use]
pub fn weight(shares: u32) -> u32 {
    let l = f64::from(shares.clamp(2, 262_144)).log2();
    let weight = 10_f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil().clamp(1.0, 10_000.0);
    // Within 1..=10000 and whole; a walk up is exact and needs no lossy cast.
    (1..=10_000).find(|&whole| f64::from(whole) >= weight).unwrap_or(10_000)
}

/// Hands the controllers of the root down through `folders` (root first). Gives back those that arrived.
#[must_use]
pub fn enable(folders: &[&Path]) -> Vec<Controller> {
    let listed = folders.first().and_then(|root| fs::read_to_string(root.join("cgroup.controllers")).ok()).unwrap_or_default();
    let is_enabled = |controller: &Controller| {
        let is_listed = listed.split_whitespace().any(|name| name == controller.name());
        // One write per controller: a refused one takes no other with it.
        is_listed
            && folders
                .iter()
                .all(|folder| write_existing(&folder.join("cgroup.subtree_control"), &format!("+{}", controller.name())).is_ok())
    };
    [Controller::Cpu, Controller::Memory, Controller::Pids].into_iter().filter(is_enabled).collect()
}

/// SIGKILLs all processes of a group; gives back how many there were. Never allocates.
///
/// # Errors
/// The list cannot be read.
pub fn kill(dir: BorrowedFd<'_>) -> io::Result<u32> {
    let mut found_n = 0;
    for_each_member(dir, |_| found_n += 1)?;
    if found_n == 0 || write_at(dir, "cgroup.kill", b"1").is_ok() {
        return Ok(found_n);
    }
    // Before 5.14: frozen, so that none forks past the list. SIGKILL reaches a frozen process.
    let has_freezer = write_at(dir, "cgroup.freeze", b"1").is_ok();
    let killed = kill_members(dir);
    if has_freezer {
        write_at(dir, "cgroup.freeze", b"0")?;
    }
    killed
}
