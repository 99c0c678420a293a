//! A device that starts again and again starts its tasks with care: one after the other, then only those it cannot do without.
//!
//! Counted are reboots after less than ten minutes that no operator asked for; asking is a clean stop of the agent. The count stands
//! in the store's own row; it is written with the boot id at the start, and once more when the ten minutes have passed.
//! Shape: the restored allocations -> which may begin now, which at [`Damping::due`]. Off unless `edge.boot_loop_damping` is set.
//! Never: allocations that are new in this life, or whose tasks have outlived the agent.
//! Source: `spec/runtime.md` 9 (power).

use std::collections::VecDeque;

use dunlin_hal::clock::{Mono, Now};
use dunlin_runtime::id::AllocId;
use dunlin_runtime::spec::AllocSpec;

use super::Core;
use crate::model::job::JobKind;

/// An uptime that is no loop, ms.
const HEALTHY_MS: u64 = 600_000;
/// Time between two starts, ms.
const STEP_MS: u64 = 30_000;
/// From this reboot on tasks are started one by one.
const ONE_BY_ONE_N: u32 = 3;
/// From this reboot on only the critical ones are started.
const CRITICAL_ONLY_N: u32 = 6;
/// Meta of a group that is started in any case.
const CRITICAL: &str = "edge.critical";

/// Allocations that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Damping {
    waiting: VecDeque<AllocId>,
    next_at: Option<Mono>,
    /// When the device counts as healthy; `None` = it does, or nobody asks.
    healthy_at: Option<Mono>,
}

impl Damping {
    /// After a reboot, the `reboots_n`th short one in a row: gives those that may begin at once.
    pub(super) fn begin(&mut self, now: Now, reboots_n: u32, mut allocs: Vec<(AllocId, JobKind, bool)>) -> Vec<AllocId> {
        self.healthy_at = Some(Mono(HEALTHY_MS * 1_000_000));
        if reboots_n < ONE_BY_ONE_N {
            return allocs.into_iter().map(|(id, ..)| id).collect();
        }
        log::warn!("reboot {reboots_n} in a row within ten minutes: tasks are started with care; any change through the API ends that");
        let is_batch = |kind: JobKind| matches!(kind, JobKind::Batch | JobKind::Sysbatch);
        allocs.sort_by_key(|(id, kind, is_critical)| (!is_critical, is_batch(*kind), *id));
        if reboots_n >= CRITICAL_ONLY_N {
            let (critical, rest): (Vec<_>, Vec<_>) = allocs.into_iter().partition(|(_, _, is_critical)| *is_critical);
            self.waiting = rest.into_iter().map(|(id, ..)| id).collect();
            return critical.into_iter().map(|(id, ..)| id).collect();
        }
        self.waiting = allocs.into_iter().map(|(id, ..)| id).collect();
        self.next_at = Some(now.mono.after_ms(STEP_MS));
        self.waiting.pop_front().into_iter().collect()
    }

    /// An agent that starts anew on a device that runs already has nothing to hold back.
    pub(super) fn go_on(&mut self, now: Now, reboots_n: u32) {
        self.healthy_at = (reboots_n > 0 && now.mono < Mono(HEALTHY_MS * 1_000_000)).then_some(Mono(HEALTHY_MS * 1_000_000));
    }

    /// When [`Damping::pass`] is wanted.
    pub(super) fn due(&self) -> Option<Mono> {
        self.next_at.into_iter().chain(self.healthy_at).min()
    }

    /// Time has passed: who may begin, and whether the device has just become healthy.
    pub(super) fn pass(&mut self, now: Mono) -> (Vec<AllocId>, bool) {
        if self.healthy_at.is_some_and(|at| at <= now) {
            self.healthy_at = None;
            return (self.release(), true);
        }
        if self.next_at.is_none_or(|at| at > now) {
            return (Vec::new(), false);
        }
        let next: Vec<AllocId> = self.waiting.pop_front().into_iter().collect();
        self.next_at = (!self.waiting.is_empty()).then(|| now.after_ms(STEP_MS));
        (next, false)
    }

    /// An operator is there: all may begin.
    pub(super) fn release(&mut self) -> Vec<AllocId> {
        self.next_at = None;
        self.waiting.drain(..).collect()
    }
}

/// True for a group whose meta says that the device is of no use without it.
pub(super) fn is_critical(spec: &AllocSpec) -> bool {
    spec.meta.get(CRITICAL).is_some_and(|value| value == "true")
}

impl Core {
    /// Which restored allocations may begin at once.
    pub(super) fn damp(&mut self, now: Now, was_rebooted: bool, restored: Vec<(AllocId, JobKind, bool)>) -> Vec<AllocId> {
        if !self.setting.config.is_boot_loop_damped {
            return restored.into_iter().map(|(id, ..)| id).collect();
        }
        if !was_rebooted {
            self.damping.go_on(now, self.store.reboots_n());
            return restored.into_iter().map(|(id, ..)| id).collect();
        }
        let reboots_n = self.store.reboots_n().saturating_add(1);
        self.store.set_reboots_n(reboots_n);
        self.damping.begin(now, reboots_n, restored)
    }
}
