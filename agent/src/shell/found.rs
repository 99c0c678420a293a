//! Supervisors of an earlier life of the agent: what the core is told of each, and whom the shell attends.
//!
//! Shape: runtime folders -> [`Found`]s, oldest first, and a [`Duty`] for each that has more to say. Waits for nobody but processes
//! that are being killed.

use std::io;
use std::time::Duration;

use dunlin_hal::clock::Clock;
use dunlin_hal::linux::clock::KernelClock;
use dunlin_runtime::driver::Host;
use dunlin_runtime::shim::{self, Fate, news};

use super::child::Duty;
use crate::core::Found;

/// Rounds of killing what a lost supervisor left, and the pause between two.
const KILL_ROUNDS_MAX: u32 = 50;
const KILL_PAUSE: Duration = Duration::from_millis(20);

/// Looks at every runtime folder.
///
/// # Errors
/// When they cannot be listed, or what a lost supervisor left cannot be ended: the agent must not act on half of what is there.
pub fn look(host: &Host) -> io::Result<(Vec<Found>, Vec<Duty>)> {
    let mut found = Vec::new();
    let mut duties = Vec::new();
    let mut scanned = shim::scan(&host.runtime_dir, host.boot_id)?;
    // Of one task the ends must be told in their order.
    scanned.sort_by_key(|one| news::age(one.slot.as_ref()));
    for one in scanned {
        if let (Fate::Orphan, Some(slot), Some((alloc, task))) = (one.fate(), &one.slot, &one.task) {
            for _ in 0..KILL_ROUNDS_MAX {
                if shim::kill_orphan(&host.cgroup, slot, *alloc, task)? == 0 {
                    break;
                }
                std::thread::sleep(KILL_PAUSE); // sleep: nothing else runs yet
            }
        }
        let Some(one) = Found::of(&one, KernelClock.now().wall) else {
            log::warn!("runtime folder {} cannot be read and is left alone", one.inv);
            continue;
        };
        if one.is_alive {
            duties.push(Duty { alloc: one.alloc, task: one.task.clone(), inv: one.inv, is_running_told: !one.news.is_empty() });
        }
        found.push(one);
    }
    Ok((found, duties))
}
