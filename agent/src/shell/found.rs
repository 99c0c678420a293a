//! Supervisors of an earlier life of the agent: what the core is told of each, and whom the shell attends.
//!
//! Shape: runtime folders -> [`Found`]s, oldest first, and a [`Duty`] for each that has more to say. Waits for nobody but processes
//! that are being killed.

use std::io;
use std::time::Duration;

use dunlin_hal::clock::{Clock, Mono};
use dunlin_hal::linux::clock::KernelClock;
use dunlin_runtime::driver::Host;
use dunlin_runtime::shim::record::{Phase, Slot};
use dunlin_runtime::shim::{self, Fate};
use dunlin_runtime::task::machine::News;

use super::child::{self, Duty};
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
    scanned.sort_by_key(|one| age(one.slot.as_ref()));
    for mut one in scanned {
        let Some((alloc, task)) = one.task.take() else {
            log::warn!("runtime folder {} cannot be read and is left alone", one.inv);
            continue;
        };
        let news = match (one.fate(), &one.slot) {
            (Fate::Leave, _) => vec![News::Running { started_at: KernelClock.now().wall, pid: 0 }],
            // It has said all there is to say and is about to leave: its successor may already be there.
            (Fate::Adopt, Some(slot)) if matches!(slot.phase, Phase::Done | Phase::ExecFailed) => child::end(slot).into_iter().collect(),
            (Fate::Adopt, Some(slot)) if child::has_run(slot) => vec![child::running(slot)],
            (Fate::Adopt, _) => Vec::new(),
            (Fate::Consume, Some(slot)) => child::end(slot).into_iter().collect(),
            (Fate::Orphan, Some(slot)) => {
                for _ in 0..KILL_ROUNDS_MAX {
                    if shim::kill_orphan(&host.cgroup, slot, alloc, &task)? == 0 {
                        break;
                    }
                    std::thread::sleep(KILL_PAUSE); // sleep: nothing else runs yet
                }
                if child::has_run(slot) { vec![child::running(slot), News::Lost] } else { Vec::new() }
            }
            (Fate::Consume | Fate::Orphan, None) => Vec::new(),
        };
        let has_ended = news.last().is_some_and(|news| !matches!(news, News::Running { .. }));
        let is_alive = one.is_alive && !has_ended;
        if is_alive {
            duties.push(Duty { alloc, task: task.clone(), inv: one.inv, is_running_told: !news.is_empty() });
        }
        found.push(Found { inv: one.inv, alloc, task, window: one.slot.as_ref().map(child::window), news, is_alive });
    }
    Ok((found, duties))
}

/// Sorts supervisors by their age, the oldest first. Ticks of their own start are coarse; within one, the program's start or its
/// failure decides; one that has not come so far, or not even to its record, is the newest.
fn age(slot: Option<&Slot>) -> (u64, Mono) {
    let Some(slot) = slot else { return (u64::MAX, Mono(u64::MAX)) };
    let latest = slot.started.mono.max(slot.exited.mono);
    (slot.shim_start, if latest == Mono(0) { Mono(u64::MAX) } else { latest })
}

#[cfg(test)]
mod tests {
    use dunlin_hal::clock::{Now, Wall};

    use super::*;

    fn slot(shim_start: u64, started: u64, exited: u64) -> Option<Slot> {
        let at = |mono| Now { mono: Mono(mono), wall: Wall(0) };
        Some(Slot { shim_start, started: at(started), exited: at(exited), ..Slot::default() })
    }

    #[test]
    fn who_is_being_born_is_the_newest() {
        // In the order of their lives; the two last have not begun, and the very last has not even a record.
        let lives = [slot(1, 700, 0), slot(2, 800, 0), slot(3, 900, 950), slot(3, 0, 960), slot(3, 970, 980), slot(3, 0, 0), None];
        for n in 0..lives.len() {
            let mut turned = lives;
            turned.rotate_left(n);
            turned.sort_by_key(|slot| age(slot.as_ref()));
            assert_eq!(turned, lives, "{n}");
        }
    }
}
