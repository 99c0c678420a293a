//! What should be there against what is there: which allocations stop, which go on, which are missing. Pure.
//!
//! Shape: (job or nothing, its allocations) -> stops, in-place updates, wanted slots. A slot is a group and an index.
//! Source: upstream v1.3.1 scheduler/reconcile.go, reconcile_util.go, util.go (behaviour only).

use std::collections::BTreeSet;

use dunlin_runtime::event::ClientStatus;
use dunlin_runtime::id::AllocId;

use super::{MIGRATED, NOT_NEEDED, Stop, UPDATED};
use crate::model::alloc::{Allocation, Desired};
use crate::model::job::{Job, JobKind, TaskGroup};

/// A place to fill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Task group.
    pub group: String,
    /// Number in the name.
    pub index: u32,
    /// The allocation this one replaces; nil = none.
    pub previous: AllocId,
}

/// The outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Should end.
    pub stop: Vec<Stop>,
    /// Go on under the newest version.
    pub update_in_place: Vec<AllocId>,
    /// Should be placed, group by group in the order of the job, lowest index first.
    pub missing: Vec<Slot>,
    /// How many more are missing, by group, beyond what was asked to be listed: a count may be any number.
    pub beyond: Vec<(String, u32)>,
}

/// Reconciles one job. `job` is `None` when it was stopped or purged. `version` is its newest version; `older` gives the
/// group of an older version, to tell whether a change needs a new process. `allocs` holds all living allocations of the job
/// and, of the ended ones, at least the newest of each slot. At most `slots_max` empty slots of each group are listed.
pub fn reconcile<'j>(
    job: Option<&'j Job>,
    version: u64,
    allocs: &[Allocation],
    slots_max: usize,
    mut older: impl FnMut(&Allocation) -> Option<&'j TaskGroup>,
) -> Changes {
    let mut changes = Changes::default();
    let Some(job) = job else {
        changes.stop = active(allocs).map(|alloc| Stop { alloc: alloc.id, description: NOT_NEEDED }).collect();
        return changes;
    };
    for alloc in active(allocs).filter(|alloc| job.group(&alloc.group).is_none()) {
        changes.stop.push(Stop { alloc: alloc.id, description: NOT_NEEDED });
    }
    for group in &job.task_groups {
        let count = match job.kind() {
            JobKind::System | JobKind::Sysbatch => group.count().min(1),
            JobKind::Service | JobKind::Batch => group.count(),
        };
        let wanted = Wanted { group, count, slots_max };
        group_changes(job.kind(), &wanted, version, allocs, &mut older, &mut changes);
    }
    changes
}

/// Allocations that are wanted and not over.
fn active(allocs: &[Allocation]) -> impl Iterator<Item = &Allocation> {
    allocs.iter().filter(|alloc| !alloc.is_terminal())
}

/// What is wanted of one group.
struct Wanted<'a> {
    group: &'a TaskGroup,
    count: u32,
    slots_max: usize,
}

fn group_changes<'j>(
    kind: JobKind,
    &Wanted { group, count, slots_max }: &Wanted<'_>,
    version: u64,
    allocs: &[Allocation],
    older: &mut impl FnMut(&Allocation) -> Option<&'j TaskGroup>,
    changes: &mut Changes,
) {
    let mut taken = BTreeSet::new();
    let mut replaced: Vec<Slot> = Vec::new();
    for alloc in active(allocs).filter(|alloc| alloc.group == group.name) {
        let slot = Slot { group: group.name.clone(), index: alloc.index, previous: alloc.id };
        if alloc.index >= count || taken.contains(&alloc.index) {
            changes.stop.push(Stop { alloc: alloc.id, description: NOT_NEEDED });
        } else if alloc.wants_migrate {
            changes.stop.push(Stop { alloc: alloc.id, description: MIGRATED });
            taken.insert(alloc.index);
            replaced.push(slot);
        } else if alloc.job_version == version {
            taken.insert(alloc.index);
        } else if older(alloc).is_some_and(|older| runs_the_same(older, group)) {
            taken.insert(alloc.index);
            changes.update_in_place.push(alloc.id);
        } else {
            changes.stop.push(Stop { alloc: alloc.id, description: UPDATED });
            taken.insert(alloc.index);
            replaced.push(slot);
        }
    }
    let is_held =
        |index: u32| allocs.iter().any(|alloc| alloc.group == group.name && alloc.index == index && holds_slot(kind, alloc, version));
    let mut empty = (0..count).filter(|index| !taken.contains(index) && !is_held(*index));
    let listed: Vec<u32> = empty.by_ref().take(slots_max).collect();
    if let Some(next) = empty.next() {
        // No need to visit them: past the allocations that exist every slot is empty.
        let taken_n = u32::try_from(taken.range(next..).count()).unwrap_or(u32::MAX);
        changes.beyond.push((group.name.clone(), (count - next).saturating_sub(taken_n)));
    }
    replaced.extend(listed.into_iter().map(|index| Slot { group: group.name.clone(), index, previous: AllocId::default() }));
    replaced.sort_by_key(|slot| slot.index);
    changes.missing.append(&mut replaced);
}

/// True when an ended allocation still stands for its slot, so that nothing new is placed there.
fn holds_slot(kind: JobKind, alloc: &Allocation, version: u64) -> bool {
    if alloc.job_version != version || !alloc.is_terminal() {
        return false;
    }
    let ended_well = alloc.client_status == ClientStatus::Complete;
    let has_failed = alloc.client_status == ClientStatus::Failed;
    let was_wanted = alloc.desired == Desired::Run;
    match kind {
        // A failure is answered by the reschedule policy, not by the next evaluation.
        JobKind::Service => was_wanted && has_failed,
        // Work that was done is not done again.
        JobKind::Batch => ended_well || (was_wanted && has_failed),
        JobKind::Sysbatch => was_wanted && (ended_well || has_failed),
        JobKind::System => false,
    }
}

/// True when both versions of a group make the same processes: nothing a running task could notice has changed.
#[must_use]
pub fn runs_the_same(a: &TaskGroup, b: &TaskGroup) -> bool {
    a.tasks.len() == b.tasks.len()
        && a.networks == b.networks
        && a.ephemeral_disk == b.ephemeral_disk
        && a.volumes == b.volumes
        && a.tasks.iter().zip(&b.tasks).all(|(a, b)| {
            a.name == b.name
                && a.driver == b.driver
                && a.user == b.user
                && a.config == b.config
                && a.env == b.env
                && a.meta == b.meta
                && a.artifacts == b.artifacts
                && a.vault == b.vault
                && a.templates == b.templates
                && a.resources == b.resources
                && a.lifecycle == b.lifecycle
                && a.dispatch_payload == b.dispatch_payload
                && a.volume_mounts == b.volume_mounts
                && a.leader == b.leader
                && a.kill_signal == b.kill_signal
        })
        && a.meta == b.meta
}
