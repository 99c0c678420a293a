//! One evaluation from rows to rows: reads what `reconcile` and `place` need, puts what they decided into the open batch.
//!
//! Three index steps, so that clients see upstream's order (`spec/jobs.md` 5): the caller has put the evaluation at N;
//! allocations and deployment change at N+1; the evaluation is complete at N+2 (N+1 when nothing changed).

use std::collections::{BTreeMap, BTreeSet};

use dunlin_hal::clock::{Now, Wall};
use dunlin_hal::entropy::Rng;
use dunlin_runtime::event::{ClientStatus, EventKind, TaskEvent, TaskState};
use dunlin_runtime::id::{AllocId, EvalId};

use super::place::{Site, Used};
use super::reconcile::{self, Ask, Changes, Slot};
use super::{IN_PLACE, Placement, Plan, Stop, UPDATED, deploy, feasible, preempt, reschedule, version};
use crate::model::alloc::{Allocation, Desired, Edition, Health, JobKey, LastReschedule, TaskEntry};
use crate::model::deployment::Deployment;
use crate::model::eval::{EvalStatus, Evaluation, Trigger};
use crate::model::job::{Job, JobKind, TaskGroup};
use crate::model::summary;
use crate::store::rows::{JobRow, JobStatus};
use crate::store::{Store, StoreError};

/// Failures whose replacements are due within this time share an evaluation, ns.
const FOLLOWUP_WINDOW_NS: i64 = 5_000_000_000;

/// Runs one pending or blocked evaluation and puts its outcome. Returns it as it was put, and what was planned.
///
/// # Errors
/// When rows cannot be read; the caller aborts the batch.
pub fn process(
    store: &mut Store,
    site: &Site<'_>,
    now: Now,
    rng: &mut Rng,
    mut eval: Evaluation,
) -> Result<(Evaluation, Plan), StoreError> {
    let row = store.view().job(&eval.job)?;
    let live = store.view().live_allocs()?;
    let newest = match &row {
        Some(row) => store.view().job_version(&eval.job, row.edition())?,
        None => None,
    };
    let job = match &newest {
        Some(version) => Some(parse(&version.spec)?),
        None => None,
    };
    let runs = job.as_ref().filter(|_| row.as_ref().is_some_and(|row| !row.is_stopped));
    let edition = row.as_ref().map(JobRow::edition).unwrap_or_default();
    let mut allocs = allocs_of(store, &eval.job, &live, runs, edition)?;
    follow_late(store, &eval, &mut allocs)?;
    let deployment = store.view().latest_deployment(&eval.job)?;
    let older = older_versions(store, &eval.job, &allocs, edition)?;
    let changes = reconcile::reconcile(&Ask {
        job: runs,
        edition,
        allocs: &allocs,
        deployment: deployment.as_ref(),
        eval: eval.id,
        now: now.wall,
        spent: row.as_ref().map_or(&[], |row| &row.spent),
        // One more than can be placed, so that what is not placed has a reason.
        slots_max: site.allocs_max.saturating_add(1),
        older: &|alloc| older.get(&alloc.edition),
        can_stay: &|job, group| feasible::is_in_datacenter(job, &site.vars.datacenter) && feasible::check(job, group, site).is_ok(),
    });
    let mut fill = Fill { job: runs, edition, older: &older, allocs: &allocs, live: &live, site, store, rng };
    let plan = fill.plan(changes)?;
    apply(store, now, rng, &mut eval, (row, deployment), runs, &plan)?;
    Ok((eval, plan))
}

fn parse(spec: &str) -> Result<Job, StoreError> {
    Job::from_json(spec.as_bytes()).map_err(|_| StoreError::Corrupt { kind: "job version" })
}

/// Living allocations of the job and, newest first, ended ones of this life of it until each slot has been seen once.
fn allocs_of(store: &Store, key: &JobKey, live: &[Allocation], job: Option<&Job>, edition: Edition) -> Result<Vec<Allocation>, StoreError> {
    let mut allocs: Vec<Allocation> = live.iter().filter(|alloc| alloc.job == *key).cloned().collect();
    let Some(job) = job else { return Ok(allocs) };
    let wanted_n: u64 = job.task_groups.iter().map(|group| u64::from(group.count())).sum();
    let mut seen: BTreeSet<(String, u32)> = BTreeSet::new();
    let (mut before, mut slots_n) = (None, 0);
    while slots_n < wanted_n {
        let page = store.view().job_allocs(key, before.as_deref(), 32)?;
        let Some((last, _)) = page.last() else { break };
        before = Some(last.clone());
        for (_, alloc) in page {
            if alloc.edition.create_index != edition.create_index {
                return Ok(allocs);
            }
            let Some(group) = job.group(&alloc.group) else { continue };
            let is_new = !alloc.health.as_ref().is_some_and(|health| health.is_canary) && seen.insert((alloc.group.clone(), alloc.index));
            slots_n += u64::from(is_new && alloc.index < group.count());
            // A number beyond the count is from when there were more: what was done under it is done.
            if is_new && alloc.is_over() {
                allocs.push(alloc);
            }
        }
    }
    Ok(allocs)
}

/// A failure whose follow-up has come and gone has waited long enough, whatever a clock says that was set back since: this evaluation is
/// its follow-up now.
fn follow_late(store: &Store, eval: &Evaluation, allocs: &mut [Allocation]) -> Result<(), StoreError> {
    for alloc in allocs.iter_mut().filter(|alloc| !alloc.followup_eval.is_nil() && alloc.followup_eval != eval.id && alloc.next.is_nil()) {
        if store.view().eval(alloc.followup_eval)?.is_none_or(|eval| eval.status.is_terminal()) {
            alloc.followup_eval = eval.id;
        }
    }
    Ok(())
}

/// The older versions that allocations run.
fn older_versions(store: &Store, key: &JobKey, allocs: &[Allocation], newest: Edition) -> Result<BTreeMap<Edition, Job>, StoreError> {
    let mut older = BTreeMap::new();
    for edition in allocs.iter().map(|alloc| alloc.edition).filter(|edition| *edition != newest) {
        if older.contains_key(&edition) {
            continue;
        }
        if let Some(version) = store.view().job_version(key, edition)? {
            older.insert(edition, parse(&version.spec)?);
        }
    }
    Ok(older)
}

/// Finding room for what is missing.
struct Fill<'a> {
    job: Option<&'a Job>,
    edition: Edition,
    older: &'a BTreeMap<Edition, Job>,
    allocs: &'a [Allocation],
    live: &'a [Allocation],
    site: &'a Site<'a>,
    store: &'a Store,
    rng: &'a mut Rng,
}

impl Fill<'_> {
    /// What is being stopped keeps its room until its tasks have ended, except for its own replacement: the old process is told
    /// to stop in the same batch that starts the new one, as upstream does on one node.
    fn plan(&mut self, changes: Changes) -> Result<Plan, StoreError> {
        let Changes { stop, replace, update_in_place, missing, beyond, later, begin, end, canaries, desired } = changes;
        let is_stopping = |id: AllocId| stop.iter().any(|stop| stop.alloc == id);
        let keep = self.live.iter().filter(|alloc| !alloc.is_terminal() && !is_stopping(alloc.id));
        let mut used = Used::new(keep, self.job, self.site);
        let mut plan = Plan { stop, update_in_place, later, begin, end, canaries, desired, ..Plan::default() };
        for group in self.job.map_or(&[][..], |job| &job.task_groups) {
            plan.queued.push((group.name.clone(), 0));
        }
        // Replacements first: what they give up may be what the others need.
        for slot in replace {
            let old = self.allocs.iter().find(|alloc| alloc.id == slot.previous);
            let is_running = old.filter(|old| !old.is_terminal());
            if let Some(old) = is_running {
                used.remove(old, self.job);
            }
            if self.place(&mut used, &slot, &mut plan)? {
                // One that failed is stopped too: nothing is decided by it any more, and it may be forgotten.
                if old.is_some_and(|old| old.desired == Desired::Run) {
                    plan.stop.push(Stop { alloc: slot.previous, description: UPDATED });
                }
            } else if let Some(old) = is_running {
                used.add(old, self.job);
            }
        }
        for slot in missing {
            if !self.place(&mut used, &slot, &mut plan)? && slot.is_reschedule {
                plan.not_replaced.push(slot.previous);
            }
        }
        for (group, n) in &beyond {
            if let Some((_, queued_n)) = plan.queued.iter_mut().find(|(name, _)| name == group) {
                *queued_n = queued_n.saturating_add(*n);
            }
            if let Some((_, known)) = plan.failed_groups.iter_mut().find(|(name, _)| name == group) {
                known.coalesced_n = known.coalesced_n.saturating_add(*n);
            }
        }
        Ok(plan)
    }

    /// True when the slot found room.
    fn place(&mut self, used: &mut Used, slot: &Slot, plan: &mut Plan) -> Result<bool, StoreError> {
        let Some(newest) = self.job else { return Ok(false) };
        let older = if slot.wants_older { self.older_for(slot)? } else { None };
        let (job, edition) = older.as_ref().map_or((newest, self.edition), |(edition, job)| (job, *edition));
        let Some(group) = job.group(&slot.group) else { return Ok(false) };
        let mut placed = used.place(job, group, slot, self.site, self.rng);
        let mut preempts = Vec::new();
        if let Err(metric) = &placed
            && !metric.exhausted.is_empty()
        {
            let gone: Vec<AllocId> =
                plan.stop.iter().map(|stop| stop.alloc).chain(plan.place.iter().flat_map(|one| one.preempts.clone())).collect();
            preempts = preempt::choose(self.store, job, group, slot, self.live, &gone, used, self.site, self.rng)?;
            if !preempts.is_empty() {
                for victim in self.live.iter().filter(|alloc| preempts.contains(&alloc.id)) {
                    used.remove(victim, Some(newest));
                }
                placed = used.place(job, group, slot, self.site, self.rng);
            }
        }
        match placed {
            Ok(placement) => {
                if let Some((_, desired)) = plan.desired.iter_mut().find(|(name, _)| *name == slot.group) {
                    desired.preemptions += u64::try_from(preempts.len()).unwrap_or(u64::MAX);
                }
                plan.place.push(Placement { edition, preempts, ..placement });
                Ok(true)
            }
            Err(metric) => {
                if let Some((_, queued_n)) = plan.queued.iter_mut().find(|(name, _)| *name == slot.group) {
                    *queued_n = queued_n.saturating_add(1);
                }
                match plan.failed_groups.iter_mut().find(|(name, _)| *name == slot.group) {
                    Some((_, known)) => known.coalesced_n = known.coalesced_n.saturating_add(1),
                    None => plan.failed_groups.push((slot.group.clone(), metric)),
                }
                Ok(false)
            }
        }
    }

    /// The version that a place goes on with while canaries of the newest are tried: that of the allocation it replaces, else the
    /// newest stable one.
    fn older_for(&self, slot: &Slot) -> Result<Option<(Edition, Job)>, StoreError> {
        let previous = self.allocs.iter().find(|alloc| alloc.id == slot.previous);
        if let Some((edition, job)) = previous.and_then(|alloc| self.older.get_key_value(&alloc.edition)) {
            return Ok(Some((*edition, job.clone())));
        }
        let Some(key) = self.job.map(|job| JobKey { namespace: job.namespace.clone(), id: job.id.clone() }) else { return Ok(None) };
        let row = JobRow { create_index: self.edition.create_index, ..JobRow::default() };
        let Some(stable) = version::stable(self.store, &key, &row)? else { return Ok(None) };
        let edition = Edition { version: stable.version, ..self.edition };
        Ok(if edition == self.edition { None } else { Some((edition, parse(&stable.spec)?)) })
    }
}

/// Rows of the job at hand.
type Rows = (Option<JobRow>, Option<Deployment>);

fn apply(
    store: &mut Store,
    now: Now,
    rng: &mut Rng,
    eval: &mut Evaluation,
    (mut row, deployment): Rows,
    job: Option<&Job>,
    plan: &Plan,
) -> Result<(), StoreError> {
    eval.snapshot_index = eval.create_index.max(eval.snapshot_index);
    eval.deployment = deployment.as_ref().map(|deployment| deployment.id).unwrap_or_default();
    if plan.is_changing() {
        let index = store.next_index();
        let mut turn = deploy::Turn { store: &mut *store, now, rng: &mut *rng, versions_max: 0 };
        let rolled = deploy::roll(&mut turn, eval, (row.as_ref(), deployment), plan, index)?;
        if let Some(deployment) = &rolled.active {
            eval.deployment = deployment.id;
        }
        if let Some(row) = row.as_mut().filter(|_| rolled.is_stable) {
            row.modify_index = index;
        }
        let mut change = Change { store, now, rng, eval, row: row.as_mut(), deployment: rolled.active, index };
        change.stop(plan)?;
        change.place(plan, job)?;
        change.follow_up(plan)?;
        if let Some(deployment) = change.deployment.take().filter(|deployment| deployment.modify_index == index) {
            store.put_deployment(&deployment);
        }
    }
    eval.failed_groups.clone_from(&plan.failed_groups);
    eval.queued.clone_from(&plan.queued);
    let index = store.next_index();
    settle(store, eval, index, now, rng)?;
    if let Some(mut row) = row {
        for (group, queued_n) in &eval.queued {
            summary::entry(&mut row.summary, group).queued_n = *queued_n;
        }
        row.had_eval = true;
        row.summary_modify_index = index;
        let status = job_status(store, &eval.job, &row)?;
        if status != row.status {
            row.status = status;
            row.modify_index = index;
        }
        store.put_job(&eval.job, &row);
    }
    Ok(())
}

/// A plan on its way to rows, all numbered `index`.
struct Change<'a> {
    store: &'a mut Store,
    now: Now,
    rng: &'a mut Rng,
    eval: &'a Evaluation,
    row: Option<&'a mut JobRow>,
    /// The active deployment, if the job has one. Put at the end.
    deployment: Option<Deployment>,
    index: u64,
}

impl Change<'_> {
    fn edit(&mut self, id: AllocId, change: impl FnOnce(&mut Store, &mut Allocation)) -> Result<(), StoreError> {
        let Some(mut alloc) = self.store.view().alloc(id)? else { return Ok(()) };
        change(self.store, &mut alloc);
        alloc.modify_index = self.index;
        alloc.alloc_modify_index = self.index;
        alloc.modify_at = self.now.wall;
        self.store.put_alloc(&alloc);
        Ok(())
    }

    fn stop(&mut self, plan: &Plan) -> Result<(), StoreError> {
        for stop in &plan.stop {
            self.edit(stop.alloc, |_, alloc| {
                alloc.desired = Desired::Stop;
                stop.description.clone_into(&mut alloc.desired_description);
            })?;
        }
        for id in &plan.not_replaced {
            self.edit(*id, |_, alloc| alloc.last_reschedule = LastReschedule::NotPlaced)?;
        }
        Ok(())
    }

    fn place(&mut self, plan: &Plan, job: Option<&Job>) -> Result<(), StoreError> {
        let edition = self.row.as_ref().map(|row| row.edition()).unwrap_or_default();
        let active = self.deployment.as_ref().map(|deployment| deployment.id).unwrap_or_default();
        for id in &plan.update_in_place {
            let eval = self.eval.id;
            let mut joined = None;
            self.edit(*id, |store, alloc| {
                store.move_alloc(alloc, edition);
                alloc.eval = eval;
                IN_PLACE.clone_into(&mut alloc.desired_description);
                if alloc.deployment != active {
                    alloc.deployment = active;
                    alloc.health = None;
                    joined = Some(alloc.group.clone());
                }
            })?;
            if let Some(group) = joined {
                self.count_placed(&group, *id, false);
            }
        }
        for placement in &plan.place {
            let older = match job.filter(|_| placement.edition == edition) {
                Some(_) => None,
                None => {
                    self.store.view().job_version(&self.eval.job, placement.edition)?.map(|version| parse(&version.spec)).transpose()?
                }
            };
            let Some(job) = older.as_ref().or(job) else { continue };
            let Some(group) = job.group(&placement.group) else { continue };
            let mut alloc = new_alloc(self.eval, placement, group, job.kind(), self.index, self.now, self.rng);
            if placement.edition == edition {
                alloc.deployment = active;
                alloc.health = placement.is_canary.then(|| Health { is_canary: true, modify_index: self.index, ..Health::default() });
                self.count_placed(&placement.group, alloc.id, placement.is_canary);
            }
            let (id, now) = (alloc.id, self.now.wall);
            if !placement.previous.is_nil() {
                let policy = group.reschedule_policy.as_ref().filter(|_| placement.is_reschedule);
                let mut carried = Vec::new();
                self.edit(placement.previous, |_, previous| {
                    previous.next = id;
                    if let Some(policy) = policy {
                        carried = reschedule::carried(policy, previous, now);
                        previous.last_reschedule = LastReschedule::Placed;
                    }
                })?;
                if !carried.is_empty() {
                    alloc.last_reschedule = LastReschedule::Placed;
                    alloc.reschedules = carried;
                }
            }
            for victim in &placement.preempts {
                self.edit(*victim, |_, alloc| {
                    alloc.desired = Desired::Evict;
                    alloc.desired_description = format!("Preempted by alloc ID {id}");
                    alloc.preempted_by = id;
                })?;
            }
            self.store.add_alloc(&alloc);
            if let Some(row) = &mut self.row {
                summary::entry(&mut row.summary, &alloc.group).shift(None, ClientStatus::Pending);
            }
        }
        Ok(())
    }

    /// One more allocation of the deployment is there; with the first its time begins to run.
    fn count_placed(&mut self, group: &str, id: AllocId, is_canary: bool) {
        let Some(deployment) = &mut self.deployment else { return };
        deployment.modify_index = self.index;
        deployment.modify_at = self.now.wall;
        let Some(state) = deployment.group_mut(group) else { return };
        state.placed_n = state.placed_n.saturating_add(1);
        if is_canary {
            state.canaries.push(id);
        }
        if state.progress_deadline_ns > 0 && state.require_progress_by.is_unset() {
            state.require_progress_by = Wall(self.now.wall.0.saturating_add(state.progress_deadline_ns));
        }
    }

    /// Evaluations for the failures that are replaced later: one for those whose times are close together.
    fn follow_up(&mut self, plan: &Plan) -> Result<(), StoreError> {
        let mut later = plan.later.clone();
        later.sort_by_key(|(_, at)| *at);
        let mut batch: Option<(Wall, EvalId)> = None;
        for (id, at) in later {
            let eval = match batch {
                Some((first, eval)) if at.0.saturating_sub(first.0) < FOLLOWUP_WINDOW_NS => eval,
                _ => {
                    let eval = self.delayed_eval(at);
                    batch = Some((at, eval));
                    eval
                }
            };
            self.edit(id, |_, alloc| alloc.followup_eval = eval)?;
        }
        Ok(())
    }

    fn delayed_eval(&mut self, at: Wall) -> EvalId {
        let wait_ns = at.0.saturating_sub(self.now.wall.0).max(0);
        let delayed = Evaluation {
            job: self.eval.job.clone(),
            job_type: self.eval.job_type,
            priority: self.eval.priority,
            trigger: Trigger::AllocFailure,
            job_modify_index: self.row.as_ref().map_or(0, |row| row.modify_index),
            status: EvalStatus::Pending,
            status_description: "created for delayed rescheduling".to_owned(),
            wait_until: at,
            wait_max_ms: u64::try_from(wait_ns / 1_000_000).unwrap_or(0),
            previous: self.eval.id,
            ..Evaluation::made(EvalId(self.rng.uuid()), self.index, self.now.wall)
        };
        self.store.add_eval(&delayed);
        delayed.id
    }
}

/// The evaluation is over: complete, with a blocked one beside it for what could not be placed; or, being the blocked one
/// itself, still blocked.
fn settle(store: &mut Store, eval: &mut Evaluation, index: u64, now: Now, rng: &mut Rng) -> Result<(), StoreError> {
    eval.modify_index = index;
    eval.modify_at = now.wall;
    let waits = !eval.failed_groups.is_empty();
    if eval.status == EvalStatus::Blocked && waits {
        store.put_eval(eval);
        return Ok(());
    }
    eval.status = EvalStatus::Complete;
    let known = store.view().blocked_eval(&eval.job)?.filter(|known| known.id != eval.id);
    if let Some(mut old) = known {
        old.status = EvalStatus::Canceled;
        old.status_description = format!("evaluation {} superseded it", eval.id);
        old.modify_index = index;
        old.modify_at = now.wall;
        store.put_eval(&old);
    }
    if waits {
        let blocked = Evaluation {
            job: eval.job.clone(),
            job_type: eval.job_type,
            priority: eval.priority,
            trigger: Trigger::QueuedAllocs,
            job_modify_index: eval.job_modify_index,
            status: EvalStatus::Blocked,
            status_description: "created to place remaining allocations".to_owned(),
            previous: eval.id,
            failed_groups: eval.failed_groups.clone(),
            queued: eval.queued.clone(),
            snapshot_index: eval.snapshot_index,
            ..Evaluation::made(EvalId(rng.uuid()), index, now.wall)
        };
        eval.blocked = blocked.id;
        store.add_eval(&blocked);
    }
    store.put_eval(eval);
    Ok(())
}

fn new_alloc(
    eval: &Evaluation,
    placement: &Placement,
    group: &TaskGroup,
    kind: JobKind,
    index: u64,
    now: Now,
    rng: &mut Rng,
) -> Allocation {
    let received = || TaskEvent { at: now.wall, kind: EventKind::Received };
    let tasks = group.tasks.iter().map(|task| TaskEntry {
        name: task.name.clone(),
        state: TaskState { events: vec![received()], ..TaskState::default() },
        ..TaskEntry::default()
    });
    Allocation {
        id: AllocId(rng.uuid()),
        eval: eval.id,
        job: eval.job.clone(),
        edition: placement.edition,
        job_type: kind,
        group: placement.group.clone(),
        index: placement.index,
        tasks: tasks.collect(),
        grant: placement.grant.clone(),
        metric: placement.metric.clone(),
        previous: placement.previous,
        preempted: placement.preempts.clone(),
        create_index: index,
        modify_index: index,
        alloc_modify_index: index,
        create_at: now.wall,
        modify_at: now.wall,
        ..Allocation::default()
    }
}

/// A job's status from its rows (`spec/jobs.md` 5).
///
/// # Errors
/// When rows cannot be read.
pub fn job_status(store: &Store, key: &JobKey, row: &JobRow) -> Result<JobStatus, StoreError> {
    let runs_by_rule = matches!(row.stub.kind, JobKind::System) || row.stub.is_periodic || row.stub.is_parameterized;
    if runs_by_rule {
        return Ok(if row.is_stopped { JobStatus::Dead } else { JobStatus::Running });
    }
    if store.view().live_allocs()?.iter().any(|alloc| alloc.job == *key && !alloc.is_terminal()) {
        return Ok(JobStatus::Running);
    }
    if store.view().blocked_eval(key)?.is_some() {
        return Ok(JobStatus::Pending);
    }
    Ok(if row.had_eval { JobStatus::Dead } else { JobStatus::Pending })
}
