//! What should be there against what is there: which allocations stop, go on, are replaced or missing, and what becomes of the
//! job's deployment. Pure.
//!
//! Shape: [`Ask`] -> [`Changes`]. A [`Slot`] is a place to fill: a group and an index.
//! One node: nothing is ever lost or disconnected, and what is replaced is replaced here.
//! Source: `spec/jobs.md` 7 and 8; upstream v1.10.0 scheduler/reconcile.go, reconcile_util.go, util.go, system_sched.go (behaviour only).

use std::collections::BTreeSet;

use dunlin_hal::clock::Wall;
use dunlin_runtime::event::ClientStatus;
use dunlin_runtime::id::{AllocId, EvalId};

use super::{MIGRATED, NOT_NEEDED, RESCHEDULED, Stop, reschedule};
use crate::model::alloc::{Allocation, Desired, Edition, LastReschedule};
use crate::model::deployment::{Deployment, DeploymentStatus, GroupState, text};
use crate::model::diff::DesiredUpdates;
use crate::model::job::{Job, JobKind, TaskGroup, UpdateStrategy};

/// Failures this close to their time are replaced now, ns.
const DUE_SOON_NS: i64 = 1_000_000_000;

/// One job as it stands.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// `None` = stopped or purged.
    pub job: Option<&'a Job>,
    /// Its newest version.
    pub edition: Edition,
    /// All its living allocations and, of the ended ones, at least the newest of each slot.
    pub allocs: &'a [Allocation],
    /// Its newest deployment.
    pub deployment: Option<&'a Deployment>,
    /// The evaluation at hand.
    pub eval: EvalId,
    /// Now.
    pub now: Wall,
    /// Places, by group, that are not filled again although nothing is known of them any more.
    pub spent: &'a [(String, u32)],
    /// At most so many empty slots of each group are listed.
    pub slots_max: usize,
    /// The version an allocation runs, when it is an older one that is still known.
    pub older: &'a dyn Fn(&Allocation) -> Option<&'a Job>,
    /// True when this node may still run the group.
    pub can_stay: &'a dyn Fn(&Job, &TaskGroup) -> bool,
}

impl Ask<'_> {
    fn spent_n(&self, group: &str) -> u32 {
        self.spent.iter().find(|(name, _)| name == group).map_or(0, |(_, n)| *n)
    }
}

/// A place to fill.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Task group.
    pub group: String,
    /// Number in the name.
    pub index: u32,
    /// The allocation this one replaces; nil = none.
    pub previous: AllocId,
    /// It replaces a failed one under the reschedule policy.
    pub is_reschedule: bool,
    /// It tries the new version beside the old one.
    pub is_canary: bool,
    /// Canaries of the new version are being tried: this place goes on with the old one.
    pub wants_older: bool,
}

/// The outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Should end.
    pub stop: Vec<Stop>,
    /// Should end if and only if their replacement finds room.
    pub replace: Vec<Slot>,
    /// Go on under the newest version.
    pub update_in_place: Vec<AllocId>,
    /// Should be placed, group by group in the order of the job, lowest index first.
    pub missing: Vec<Slot>,
    /// How many more are missing, by group, beyond what was asked to be listed: a count may be any number.
    pub beyond: Vec<(String, u32)>,
    /// Failed ones whose replacement is due later.
    pub later: Vec<(AllocId, Wall)>,
    /// A deployment that begins: its groups.
    pub begin: Vec<GroupState>,
    /// The known deployment ends like this.
    pub end: Option<(DeploymentStatus, &'static str)>,
    /// The number of canaries a group of the known deployment wants from now on.
    pub canaries: Vec<(String, u32)>,
    /// What is done to each group, for those who only ask.
    pub desired: Vec<(String, DesiredUpdates)>,
}

/// Reconciles one job.
#[must_use]
pub fn reconcile(ask: &Ask<'_>) -> Changes {
    let mut changes = Changes::default();
    let mut rollout = Rollout::of(ask, &mut changes);
    let Some(job) = ask.job else {
        stop_all(ask.allocs.iter(), &mut changes);
        return changes;
    };
    stop_all(ask.allocs.iter().filter(|alloc| job.group(&alloc.group).is_none()), &mut changes);
    for group in &job.task_groups {
        let allocs: Vec<&Allocation> = ask.allocs.iter().filter(|alloc| alloc.group == group.name).collect();
        let desired = match job.kind() {
            JobKind::Service | JobKind::Batch => group_changes(ask, job, group, allocs, &mut rollout, &mut changes),
            JobKind::System | JobKind::Sysbatch => system_changes(ask, job, group, &allocs, &mut changes),
        };
        changes.desired.push((group.name.clone(), desired));
    }
    if rollout.current.is_some_and(|current| current.status.is_active()) && rollout.is_complete {
        changes.end = Some((DeploymentStatus::Successful, text::SUCCESSFUL));
    }
    changes
}

fn stop_all<'a>(allocs: impl Iterator<Item = &'a Allocation>, changes: &mut Changes) {
    for alloc in allocs.filter(|alloc| !alloc.is_terminal()) {
        changes.stop.push(Stop { alloc: alloc.id, description: NOT_NEEDED });
        let at = changes.desired.iter().position(|(group, _)| *group == alloc.group).unwrap_or_else(|| {
            changes.desired.push((alloc.group.clone(), DesiredUpdates::default()));
            changes.desired.len() - 1
        });
        changes.desired[at].1.stop += 1;
    }
}

/// The job's deployment while its groups are gone through.
struct Rollout<'a> {
    /// The known one, if it is about this version and not done.
    current: Option<&'a Deployment>,
    is_paused: bool,
    is_failed: bool,
    /// Canaries of a deployment that will not promote them.
    lost_canaries: Vec<AllocId>,
    is_complete: bool,
    /// Something of the spec reached a running allocation.
    has_updates: bool,
}

impl<'a> Rollout<'a> {
    fn of(ask: &Ask<'a>, changes: &mut Changes) -> Self {
        let latest = ask.deployment.filter(|_| ask.job.is_none_or(|job| job.kind() == JobKind::Service));
        let is_over = |latest: &&Deployment| ask.job.is_none() || latest.edition != ask.edition;
        if let Some(old) = latest.filter(is_over).filter(|old| old.status.is_active()) {
            let why = if ask.job.is_none() { text::STOPPED_JOB } else { text::NEWER_JOB };
            changes.end = Some((DeploymentStatus::Cancelled, why));
            debug_assert!(old.status.is_active());
        }
        let current = latest.filter(|latest| !is_over(latest) && latest.status != DeploymentStatus::Successful);
        let is_failed = current.is_some_and(|current| current.status == DeploymentStatus::Failed);
        let unpromoted = latest.filter(|_| current.is_none() || is_failed);
        let lost = unpromoted.iter().flat_map(|old| &old.groups).filter(|state| !state.is_promoted).flat_map(|state| &state.canaries);
        Self {
            current,
            is_paused: current.is_some_and(|current| current.status == DeploymentStatus::Paused),
            is_failed,
            lost_canaries: lost.copied().collect(),
            is_complete: true,
            has_updates: false,
        }
    }

    /// Nothing but replacements of failures may be placed.
    fn is_held(&self) -> bool {
        self.is_paused || self.is_failed
    }
}

fn many(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Allocations of one group by what may become of them.
#[derive(Default)]
struct Sets<'a> {
    /// Hold their place.
    stay: Vec<&'a Allocation>,
    /// Asked to move.
    migrate: Vec<&'a Allocation>,
    /// Failed, and replaced now.
    now: Vec<&'a Allocation>,
}

fn group_changes<'a>(
    ask: &Ask<'a>,
    job: &Job,
    group: &TaskGroup,
    mut allocs: Vec<&'a Allocation>,
    rollout: &mut Rollout<'a>,
    changes: &mut Changes,
) -> DesiredUpdates {
    let mut desired = DesiredUpdates::default();
    let is_batch = job.kind() == JobKind::Batch;
    let wanted_n = group.count().saturating_sub(ask.spent_n(&group.name)) as usize;
    let update = group.update.as_ref().filter(|update| !is_batch && update.max_parallel.unwrap_or(0) > 0);
    let known = rollout.current.and_then(|current| current.group(&group.name));
    let mut state = known.cloned().unwrap_or_else(|| new_state(&group.name, update));

    // Work of older versions that is over is history.
    allocs.retain(|alloc| {
        let is_history = is_batch && alloc.edition != ask.edition && alloc.is_terminal();
        desired.ignore += u64::from(is_history);
        !is_history
    });
    // Canaries that will not be promoted go.
    allocs.retain(|alloc| {
        let is_lost = rollout.lost_canaries.contains(&alloc.id);
        if is_lost && !alloc.is_terminal() {
            changes.stop.push(Stop { alloc: alloc.id, description: NOT_NEEDED });
            desired.stop += 1;
        }
        !is_lost
    });
    let canaries: BTreeSet<AllocId> = rollout
        .current
        .map_or_else(BTreeSet::new, |_| state.canaries.iter().copied().filter(|id| allocs.iter().any(|alloc| alloc.id == *id)).collect());

    let mut later_n = 0;
    let mut sets = sort(ask, job, group, &allocs, rollout, &mut changes.later, &mut later_n);
    let is_canary = |alloc: &Allocation| canaries.contains(&alloc.id);
    let is_canarying = state.is_canarying();

    // Too many: those with the highest numbers go, but no canary while it is tried.
    let mut names: BTreeSet<u32> = sets.stay.iter().chain(&sets.migrate).chain(&sets.now).map(|alloc| alloc.index).collect();
    desired.stop += stop_excess(wanted_n, is_canarying, &canaries, &mut sets, &mut names, changes);

    // What runs another version goes on with the new one, or is replaced.
    let mut destructive: Vec<&Allocation> = Vec::new();
    let mut in_place_n = 0;
    for alloc in &sets.stay {
        if alloc.edition == ask.edition {
            desired.ignore += 1;
            continue;
        }
        let old = (ask.older)(alloc);
        let is_same = old.is_some_and(|old| old.group(&group.name).is_some_and(|before| runs_the_same(old, before, job, group)));
        if !is_same || (!alloc.is_terminal() && !(ask.can_stay)(job, group)) {
            destructive.push(alloc);
        } else if alloc.is_terminal() {
            desired.ignore += 1;
        } else {
            in_place_n += 1;
            changes.update_in_place.push(alloc.id);
        }
    }
    destructive.sort_by_key(|alloc| alloc.index);
    desired.in_place_update += many(in_place_n);
    rollout.has_updates |= in_place_n > 0 || !destructive.is_empty();
    if known.is_none() {
        state.desired_n += count(destructive.len() + in_place_n);
    }
    if is_canarying {
        sets.stay.retain(|alloc| !is_canary(alloc));
    }

    // The new version is tried beside the old one first.
    let canary_n = update.map_or(0, |update| usize::try_from(update.canary.unwrap_or(0)).unwrap_or(0));
    let needs_canaries = !destructive.is_empty() && canaries.len() < canary_n && !state.is_promoted;
    if needs_canaries {
        if known.is_some() && state.desired_canaries_n != count(canary_n) {
            changes.canaries.push((group.name.clone(), count(canary_n)));
        }
        state.desired_canaries_n = count(canary_n);
        if !rollout.is_held() {
            let missing_n = canary_n - canaries.len();
            desired.canary += many(missing_n);
            let taken: BTreeSet<u32> = allocs.iter().filter(|alloc| is_canary(alloc)).map(|alloc| alloc.index).collect();
            let indexes = destructive.iter().map(|alloc| alloc.index).chain(0..).filter(|index| !taken.contains(index));
            let mut given = BTreeSet::new();
            let slots = indexes.filter(|index| given.insert(*index)).take(missing_n.min(ask.slots_max));
            changes.missing.extend(slots.map(|index| Slot { group: group.name.clone(), index, is_canary: true, ..Slot::default() }));
        }
    }
    let is_canarying = state.is_canarying();

    let mut under_n = under_provisioned(update, wanted_n, &sets, &destructive, rollout, is_canarying);
    let mut place: Vec<Slot> = sets
        .now
        .iter()
        .map(|alloc| Slot {
            previous: alloc.id,
            is_reschedule: true,
            is_canary: alloc.health.as_ref().is_some_and(|health| health.is_canary),
            wants_older: is_canarying && !is_canary(alloc),
            group: group.name.clone(),
            index: alloc.index,
        })
        .collect();
    let existing_n = sets.stay.len() + sets.migrate.len() + sets.now.len();
    let empty_n = wanted_n.saturating_sub(existing_n);
    let listed_n = empty_n.min(ask.slots_max);
    let new: Vec<u32> = (0..=u32::MAX).filter(|index| !names.contains(index)).take(listed_n).collect();
    names.extend(&new);
    place.extend(new.into_iter().map(|index| Slot { group: group.name.clone(), index, wants_older: is_canarying, ..Slot::default() }));
    if known.is_none() {
        state.desired_n = state.desired_n.saturating_add(count(sets.now.len() + empty_n));
    }
    let places_n = place.len();
    if !rollout.is_held() && !is_canarying {
        desired.place += many(place.len());
        desired.stop += many(sets.now.len());
        changes.stop.extend(sets.now.iter().map(|alloc| Stop { alloc: alloc.id, description: RESCHEDULED }));
        under_n -= under_n.min(place.len());
        changes.missing.append(&mut place);
        if empty_n > listed_n {
            changes.beyond.push((group.name.clone(), count(empty_n - listed_n)));
        }
        let step_n = destructive.len().min(under_n);
        desired.destructive_update += many(step_n);
        desired.ignore += many(destructive.len() - step_n);
        // A promoted canary bears the number of what it was to replace: where both stay, the replacement takes the next.
        let goes = |alloc: &Allocation| destructive.iter().take(step_n).any(|other| other.id == alloc.id);
        let mut taken: BTreeSet<u32> =
            sets.stay.iter().filter(|alloc| !alloc.is_terminal() && !goes(alloc)).map(|alloc| alloc.index).collect();
        for alloc in destructive.iter().take(step_n) {
            let is_free = taken.insert(alloc.index);
            let index = if is_free { alloc.index } else { (0..=u32::MAX).find(|index| !names.contains(index)).unwrap_or(alloc.index) };
            names.insert(index);
            changes.replace.push(Slot { group: group.name.clone(), index, previous: alloc.id, ..Slot::default() });
        }
    } else {
        // Failures are replaced although nothing else moves, but not those of the deployment that failed.
        let failed_id = rollout.current.filter(|_| rollout.is_failed).map(|current| current.id);
        for slot in place.into_iter().filter(|slot| slot.is_reschedule) {
            let is_of_failed = sets.now.iter().any(|alloc| alloc.id == slot.previous && Some(alloc.deployment) == failed_id);
            if !is_of_failed {
                desired.place += 1;
                desired.stop += 1;
                changes.stop.push(Stop { alloc: slot.previous, description: RESCHEDULED });
                changes.missing.push(slot);
            }
        }
        desired.ignore += many(destructive.len());
    }
    desired.migrate += many(sets.migrate.len());
    for alloc in &sets.migrate {
        changes.stop.push(Stop { alloc: alloc.id, description: MIGRATED });
        changes.missing.push(Slot {
            group: group.name.clone(),
            index: alloc.index,
            previous: alloc.id,
            is_canary: alloc.health.as_ref().is_some_and(|health| health.is_canary),
            wants_older: is_canarying && !is_canary(alloc),
            ..Slot::default()
        });
    }
    changes.missing.sort_by_key(|slot| (job.task_groups.iter().position(|group| group.name == slot.group), slot.index));

    let had_this = allocs.iter().any(|alloc| alloc.edition == ask.edition);
    if known.is_none() && update.is_some() && state.desired_n > 0 && (!had_this || rollout.has_updates) {
        changes.begin.push(state.clone());
    }
    let is_moving = destructive.len() + in_place_n + places_n + sets.migrate.len() + later_n > 0 || needs_canaries;
    let is_healthy = known.is_none_or(|_| state.healthy_n >= state.desired_n.max(state.desired_canaries_n) && !is_canarying);
    // A group it does not move does not hold a deployment up. Upstream waits for its placements too, and nothing tells it when they come.
    rollout.is_complete &= (known.is_none() && !rollout.is_held()) || (!is_moving && is_healthy);
    desired
}

fn new_state(group: &str, update: Option<&UpdateStrategy>) -> GroupState {
    GroupState {
        group: group.to_owned(),
        auto_revert: update.is_some_and(|update| update.auto_revert.unwrap_or(false)),
        auto_promote: update.is_some_and(|update| update.auto_promote.unwrap_or(false)),
        progress_deadline_ns: update.map_or(0, |update| update.progress_deadline_ns.unwrap_or(0)),
        ..GroupState::default()
    }
}

/// Sorts allocations by what may become of them; those of no further interest are in none of the sets.
fn sort<'a>(
    ask: &Ask<'_>,
    job: &Job,
    group: &TaskGroup,
    allocs: &[&'a Allocation],
    rollout: &Rollout<'_>,
    later: &mut Vec<(AllocId, Wall)>,
    later_n: &mut usize,
) -> Sets<'a> {
    let mut sets = Sets::default();
    for alloc in allocs {
        if alloc.wants_migrate && !alloc.is_terminal() {
            sets.migrate.push(alloc);
            continue;
        }
        // It was replaced already.
        if !alloc.next.is_nil() && alloc.is_terminal() {
            continue;
        }
        match kept(job.kind(), alloc) {
            Kept::Stays => sets.stay.push(alloc),
            Kept::Gone => {}
            Kept::May => {
                let due = due(ask, group, alloc, rollout);
                match due {
                    Due::Now => sets.now.push(alloc),
                    Due::Never => sets.stay.push(alloc),
                    Due::Later(at) => {
                        sets.stay.push(alloc);
                        later.push((alloc.id, at));
                        *later_n += 1;
                    }
                }
            }
        }
    }
    sets
}

/// What an allocation is to its group.
enum Kept {
    /// It holds its place, whatever happened.
    Stays,
    /// It holds none.
    Gone,
    /// It holds its place unless its reschedule policy says otherwise.
    May,
}

fn kept(kind: JobKind, alloc: &Allocation) -> Kept {
    let could_not_be_placed = alloc.last_reschedule == LastReschedule::NotPlaced;
    match (kind, alloc.desired, alloc.client_status) {
        // Work that was done is not done again.
        (JobKind::Batch, Desired::Stop, ClientStatus::Complete) => Kept::Stays,
        (_, Desired::Stop | Desired::Evict, _) => {
            if could_not_be_placed && alloc.desired == Desired::Stop {
                Kept::May
            } else {
                Kept::Gone
            }
        }
        (JobKind::Batch, Desired::Run, ClientStatus::Failed) => Kept::May,
        (JobKind::Batch, Desired::Run, _) => Kept::Stays,
        (_, Desired::Run, ClientStatus::Complete | ClientStatus::Lost) => Kept::Gone,
        (_, Desired::Run, _) => Kept::May,
    }
}

enum Due {
    Now,
    Later(Wall),
    Never,
}

fn due(ask: &Ask<'_>, group: &TaskGroup, alloc: &Allocation, rollout: &Rollout<'_>) -> Due {
    // As long as its deployment goes on, the deployment says whether it is replaced.
    let is_watched = rollout.current.is_some_and(|current| current.id == alloc.deployment && current.status.is_active());
    if is_watched && !alloc.may_reschedule {
        return Due::Never;
    }
    let has_ended = alloc.client_status == ClientStatus::Failed;
    if has_ended && alloc.must_reschedule {
        return Due::Now;
    }
    let at = group.reschedule_policy.as_ref().filter(|_| has_ended).and_then(|policy| {
        // A wall clock that was set back since makes nobody wait longer than the policy's delay.
        let at_most = ask.now.0.saturating_add(reschedule::delay_ns(policy, alloc));
        reschedule::due_at(policy, alloc).map(|at| Wall(at.0.min(at_most)))
    });
    // What only lacked room has waited already.
    let has_waited = alloc.followup_eval == ask.eval || alloc.last_reschedule == LastReschedule::NotPlaced;
    match at {
        Some(at) if has_waited || at.0.saturating_sub(ask.now.0) <= DUE_SOON_NS => Due::Now,
        Some(at) if alloc.followup_eval.is_nil() => Due::Later(at),
        _ => Due::Never,
    }
}

/// Stops what is more than wanted; gives how many. What is stopped leaves its set. What has ended takes no place that is not there:
/// upstream replaces failures beyond the count, and has more than wanted until the next evaluation.
fn stop_excess(
    wanted_n: usize,
    is_canarying: bool,
    canaries: &BTreeSet<AllocId>,
    sets: &mut Sets<'_>,
    names: &mut BTreeSet<u32>,
    changes: &mut Changes,
) -> u64 {
    let is_safe = |alloc: &Allocation| is_canarying && canaries.contains(&alloc.id);
    let counted = |set: &[&Allocation]| set.iter().filter(|alloc| !is_safe(alloc)).count();
    let (held_n, now_n) = (counted(&sets.stay) + sets.migrate.len(), counted(&sets.now));
    let remove_n = held_n.saturating_sub(wanted_n);
    let drop_n = (held_n + now_n).saturating_sub(wanted_n) - remove_n;
    if remove_n + drop_n == 0 {
        return 0;
    }
    let promoted: BTreeSet<u32> = if is_canarying {
        BTreeSet::new()
    } else {
        sets.stay.iter().filter(|alloc| canaries.contains(&alloc.id)).map(|alloc| alloc.index).collect()
    };
    // First those whose promoted canary has taken their number, then those that move anyway, then the highest numbers, then what has
    // ended.
    let mut order: Vec<(u8, core::cmp::Reverse<u32>, &Allocation)> = Vec::new();
    for alloc in sets.stay.iter().filter(|alloc| !is_safe(alloc)) {
        let gives_way = promoted.contains(&alloc.index) && !canaries.contains(&alloc.id);
        let class = if alloc.is_terminal() { 3 } else { [2, 0][usize::from(gives_way)] };
        order.push((class, core::cmp::Reverse(alloc.index), alloc));
    }
    order.extend(sets.migrate.iter().map(|alloc| (1, core::cmp::Reverse(alloc.index), *alloc)));
    order.sort_by_key(|(class, index, alloc)| (*class, *index, alloc.id));
    let mut failures: Vec<&Allocation> = sets.now.iter().copied().filter(|alloc| !is_safe(alloc)).collect();
    failures.sort_by_key(|alloc| core::cmp::Reverse(alloc.index));
    let gone: Vec<&Allocation> =
        order.into_iter().map(|(_, _, alloc)| alloc).take(remove_n).chain(failures.into_iter().take(drop_n)).collect();
    let is_there = |alloc: &&Allocation| !gone.iter().any(|other| other.id == alloc.id);
    sets.stay.retain(is_there);
    sets.migrate.retain(is_there);
    sets.now.retain(is_there);
    *names = sets.stay.iter().chain(&sets.migrate).chain(&sets.now).map(|alloc| alloc.index).collect();
    // Work that is done has nothing to stop.
    let stops = gone.iter().filter(|alloc| !alloc.is_terminal() || alloc.client_status == ClientStatus::Failed);
    let before_n = changes.stop.len();
    changes.stop.extend(stops.map(|alloc| Stop { alloc: alloc.id, description: NOT_NEEDED }));
    many(changes.stop.len() - before_n)
}

/// How many may be placed or replaced now.
fn under_provisioned(
    update: Option<&UpdateStrategy>,
    wanted_n: usize,
    sets: &Sets<'_>,
    destructive: &[&Allocation],
    rollout: &Rollout<'_>,
    is_canarying: bool,
) -> usize {
    let Some(update) = update.filter(|_| destructive.len() + sets.migrate.len() > 0) else { return wanted_n };
    let step_n = usize::try_from(update.max_parallel.unwrap_or(0)).unwrap_or(0);
    let Some(current) = rollout.current else { return step_n };
    if rollout.is_held() || is_canarying {
        return 0;
    }
    let part = sets.stay.iter().filter(|alloc| alloc.deployment == current.id);
    let health = |alloc: &Allocation| alloc.health.as_ref().and_then(|health| health.is_healthy);
    let mut left_n = step_n;
    for alloc in part {
        match health(alloc) {
            Some(true) => {}
            // Nothing more happens until somebody has looked at it.
            Some(false) => return 0,
            None => left_n = left_n.saturating_sub(1),
        }
    }
    left_n
}

/// A job that has one allocation of each group on every node.
fn system_changes(ask: &Ask<'_>, job: &Job, group: &TaskGroup, allocs: &[&Allocation], changes: &mut Changes) -> DesiredUpdates {
    let mut desired = DesiredUpdates::default();
    let is_wanted = group.count() > ask.spent_n(&group.name);
    let mut has_one = false;
    let mut replaced = None;
    for alloc in allocs.iter().filter(|alloc| !alloc.is_terminal()) {
        let old = (ask.older)(alloc);
        if !is_wanted || has_one {
            changes.stop.push(Stop { alloc: alloc.id, description: NOT_NEEDED });
            desired.stop += 1;
            continue;
        }
        has_one = true;
        if alloc.wants_migrate {
            changes.stop.push(Stop { alloc: alloc.id, description: MIGRATED });
            desired.migrate += 1;
            replaced = Some(alloc.id);
        } else if alloc.edition == ask.edition {
            desired.ignore += 1;
        } else if (ask.can_stay)(job, group)
            && old.is_some_and(|old| old.group(&group.name).is_some_and(|before| runs_the_same(old, before, job, group)))
        {
            desired.in_place_update += 1;
            changes.update_in_place.push(alloc.id);
        } else {
            desired.destructive_update += 1;
            changes.replace.push(Slot { group: group.name.clone(), index: 0, previous: alloc.id, ..Slot::default() });
        }
    }
    // Work that was done, or has failed, under this version is not done again.
    let is_done = |alloc: &&&Allocation| {
        job.kind() == JobKind::Sysbatch
            && alloc.edition == ask.edition
            && alloc.desired == Desired::Run
            && alloc.client_status.is_terminal()
    };
    let done_n = allocs.iter().filter(is_done).count();
    desired.ignore += many(done_n);
    if let Some(previous) = replaced {
        changes.missing.push(Slot { group: group.name.clone(), previous, ..Slot::default() });
    } else if is_wanted && !has_one && done_n == 0 {
        desired.place += 1;
        changes.missing.push(Slot { group: group.name.clone(), ..Slot::default() });
    }
    desired
}

/// True when both versions of a group make the same processes: nothing a running task could notice has changed.
#[must_use]
pub fn runs_the_same(old: &Job, a: &TaskGroup, new: &Job, b: &TaskGroup) -> bool {
    let meta = |job: &Job, group: &TaskGroup, task: &std::collections::BTreeMap<String, String>| {
        let mut all = job.meta.clone();
        all.extend(group.meta.clone());
        all.extend(task.clone());
        all
    };
    a.tasks.len() == b.tasks.len()
        && a.networks == b.networks
        && a.ephemeral_disk == b.ephemeral_disk
        && a.volumes == b.volumes
        && a.tasks.iter().zip(&b.tasks).all(|(a_task, b_task)| {
            a_task.name == b_task.name
                && a_task.driver == b_task.driver
                && a_task.user == b_task.user
                && a_task.config == b_task.config
                && a_task.env == b_task.env
                && meta(old, a, &a_task.meta) == meta(new, b, &b_task.meta)
                && a_task.artifacts == b_task.artifacts
                && a_task.vault == b_task.vault
                && a_task.templates == b_task.templates
                && a_task.resources == b_task.resources
                && a_task.lifecycle == b_task.lifecycle
                && a_task.dispatch_payload == b_task.dispatch_payload
                && a_task.volume_mounts == b_task.volume_mounts
                && a_task.leader == b_task.leader
                && a_task.kill_signal == b_task.kill_signal
                && a_task.log_config.as_ref().map(|logs| logs.disabled) == b_task.log_config.as_ref().map(|logs| logs.disabled)
        })
}
