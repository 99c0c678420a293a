//! Room made by stopping what matters less, when the operator allows it. Pure over the view.
//!
//! Shape: a slot without room -> the allocations to stop for it, as few and as unimportant as possible; none = that would not help.
//! Only allocations of jobs whose priority is lower by ten or more are stopped, and never those of the same job.
//! Source: upstream v1.10.0 scheduler/preemption.go (behaviour only; what is chosen among equals is ours).

use core::cmp::Reverse;

use dunlin_hal::entropy::Rng;
use dunlin_runtime::id::AllocId;

use super::place::{Site, Used};
use super::reconcile::Slot;
use crate::model::alloc::{Allocation, Owner};
use crate::model::job::{Job, TaskGroup};
use crate::store::{Store, StoreError};

/// How much lower a priority has to be.
const PRIORITY_GAP: i64 = 10;

/// Chooses.
///
/// # Errors
/// When rows cannot be read.
#[expect(clippy::too_many_arguments, reason = "what a placement is decided with, and who is there")]
pub fn choose(
    store: &Store,
    job: &Job,
    group: &TaskGroup,
    slot: &Slot,
    live: &[Allocation],
    gone: &[AllocId],
    used: &Used,
    site: &Site<'_>,
    rng: &mut Rng,
) -> Result<Vec<AllocId>, StoreError> {
    if !site.preemption.is_on(job.kind()) {
        return Ok(Vec::new());
    }
    let mut candidates = Vec::new();
    for alloc in live.iter().filter(|alloc| alloc.owner == Owner::Local && !alloc.is_terminal() && !gone.contains(&alloc.id)) {
        let priority = store.view().job(&alloc.job)?.map_or(0, |row| i64::from(row.stub.priority));
        let is_same = alloc.job.id == job.id && alloc.job.namespace == job.namespace;
        if !is_same && job.priority().saturating_sub(priority) >= PRIORITY_GAP {
            candidates.push((priority, Reverse(alloc.create_index), alloc));
        }
    }
    candidates.sort_by_key(|(priority, age, alloc)| (*priority, *age, alloc.id));
    let mut fits = |used: &Used| used.clone().place(job, group, slot, site, rng).is_ok();
    let mut without = used.clone();
    let mut chosen: Vec<&Allocation> = Vec::new();
    for (_, _, alloc) in candidates {
        without.remove(alloc, None);
        chosen.push(alloc);
        if fits(&without) {
            break;
        }
    }
    if !fits(&without) {
        return Ok(Vec::new());
    }
    // Who was chosen on the way and is not needed after all stays; the most important first.
    for i in (0..chosen.len()).rev() {
        let mut with = without.clone();
        with.add(chosen[i], None);
        if fits(&with) {
            without = with;
            chosen.remove(i);
        }
    }
    Ok(chosen.into_iter().map(|alloc| alloc.id).collect())
}
