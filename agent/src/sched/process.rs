//! One evaluation from rows to rows: reads what `reconcile` and `place` need, puts what they decided into the open batch.
//!
//! Three index steps, so that clients see upstream's order (`spec/jobs.md` 5): the caller has put the evaluation at N;
//! allocations change at N+1; the evaluation is complete at N+2 (N+1 when nothing changed).

use std::collections::BTreeMap;

use dunlin_hal::clock::Now;
use dunlin_hal::entropy::Rng;
use dunlin_runtime::event::{ClientStatus, EventKind, TaskEvent, TaskState};
use dunlin_runtime::id::{AllocId, EvalId};

use super::place::{Site, Used};
use super::reconcile::{self, Changes};
use super::{IN_PLACE, Plan};
use crate::model::alloc::{Allocation, Desired, JobKey, TaskEntry};
use crate::model::eval::{EvalStatus, Evaluation, Trigger};
use crate::model::job::{Job, JobKind, TaskGroup};
use crate::model::summary;
use crate::store::rows::{JobRow, JobStatus};
use crate::store::{Store, StoreError};

/// Runs one pending or blocked evaluation and puts its outcome. Returns it as it was put.
///
/// # Errors
/// When rows cannot be read; the caller aborts the batch.
pub fn process(store: &mut Store, site: &Site<'_>, now: Now, rng: &mut Rng, mut eval: Evaluation) -> Result<Evaluation, StoreError> {
    let row = store.view().job(&eval.job)?;
    let live = store.view().live_allocs()?;
    let newest = match &row {
        Some(row) => store.view().job_version(&eval.job, row.version)?,
        None => None,
    };
    let job = match &newest {
        Some(version) => Some(parse(&version.spec)?),
        None => None,
    };
    let runs = job.as_ref().filter(|_| row.as_ref().is_some_and(|row| !row.is_stopped));
    let version = row.as_ref().map_or(0, |row| row.version);
    let allocs = allocs_of(store, &eval.job, &live, runs)?;
    let older = older_versions(store, &eval.job, &allocs, version)?;
    // One more than can be placed, so that what is not placed has a reason.
    let slots_max = site.allocs_max.saturating_add(1);
    let group_of = |alloc: &Allocation| older.get(&alloc.job_version).and_then(|job| job.group(&alloc.group));
    let changes = reconcile::reconcile(runs, version, &allocs, slots_max, group_of);
    let plan = fill(changes, runs, &live, site, rng);
    apply(store, now, rng, &mut eval, row, runs, plan)?;
    Ok(eval)
}

fn parse(spec: &str) -> Result<Job, StoreError> {
    Job::from_json(spec.as_bytes()).map_err(|_| StoreError::Corrupt { kind: "job version" })
}

/// Living allocations of the job and, newest first, ended ones until each slot has been seen once.
fn allocs_of(store: &Store, key: &JobKey, live: &[Allocation], job: Option<&Job>) -> Result<Vec<Allocation>, StoreError> {
    let mut allocs: Vec<Allocation> = live.iter().filter(|alloc| alloc.job == *key).cloned().collect();
    let Some(job) = job else { return Ok(allocs) };
    let wanted_n: u64 = job.task_groups.iter().map(|group| u64::from(group.count())).sum();
    let mut seen: std::collections::BTreeSet<(String, u32)> = std::collections::BTreeSet::new();
    let mut before = None;
    while (seen.len() as u64) < wanted_n {
        let page = store.view().job_allocs(key, before.as_deref(), 32)?;
        let Some((last, _)) = page.last() else { break };
        before = Some(last.clone());
        for (_, alloc) in page {
            let is_counted = job.group(&alloc.group).is_some_and(|group| alloc.index < group.count());
            if is_counted && seen.insert((alloc.group.clone(), alloc.index)) && alloc.client_status.is_terminal() {
                allocs.push(alloc);
            }
        }
    }
    Ok(allocs)
}

/// The older versions that living allocations run.
fn older_versions(store: &Store, key: &JobKey, allocs: &[Allocation], newest: u64) -> Result<BTreeMap<u64, Job>, StoreError> {
    let mut older = BTreeMap::new();
    for alloc in allocs.iter().filter(|alloc| alloc.job_version != newest && !alloc.is_terminal()) {
        if older.contains_key(&alloc.job_version) {
            continue;
        }
        if let Some(version) = store.view().job_version(key, alloc.job_version)? {
            older.insert(alloc.job_version, parse(&version.spec)?);
        }
    }
    Ok(older)
}

/// Finds room for what is missing. What is being stopped keeps its room until its tasks have ended, except for its own
/// replacement: the old process is told to stop in the same batch that starts the new one, as upstream does on one node.
fn fill(changes: Changes, job: Option<&Job>, live: &[Allocation], site: &Site<'_>, rng: &mut Rng) -> Plan {
    let is_stopping = |id: AllocId| changes.stop.iter().any(|stop| stop.alloc == id);
    let keep = live.iter().filter(|alloc| !alloc.is_terminal() && !is_stopping(alloc.id));
    let mut used = Used::new(keep, job, site);
    let mut plan = Plan::default();
    for group in job.map_or(&[][..], |job| &job.task_groups) {
        plan.queued.push((group.name.clone(), 0));
    }
    for slot in &changes.missing {
        let Some((job, group)) = job.and_then(|job| Some((job, job.group(&slot.group)?))) else { continue };
        match used.place(job, group, slot, site, rng) {
            Ok(placement) => plan.place.push(placement),
            Err(metric) => {
                if let Some((_, queued_n)) = plan.queued.iter_mut().find(|(name, _)| *name == slot.group) {
                    *queued_n = queued_n.saturating_add(1);
                }
                match plan.failed_groups.iter_mut().find(|(name, _)| *name == slot.group) {
                    Some((_, known)) => known.coalesced_n = known.coalesced_n.saturating_add(1),
                    None => plan.failed_groups.push((slot.group.clone(), metric)),
                }
            }
        }
    }
    for (group, n) in &changes.beyond {
        if let Some((_, queued_n)) = plan.queued.iter_mut().find(|(name, _)| name == group) {
            *queued_n = queued_n.saturating_add(*n);
        }
        if let Some((_, known)) = plan.failed_groups.iter_mut().find(|(name, _)| name == group) {
            known.coalesced_n = known.coalesced_n.saturating_add(*n);
        }
    }
    plan.stop = changes.stop;
    plan.update_in_place = changes.update_in_place;
    plan
}

fn apply(
    store: &mut Store,
    now: Now,
    rng: &mut Rng,
    eval: &mut Evaluation,
    row: Option<JobRow>,
    job: Option<&Job>,
    plan: Plan,
) -> Result<(), StoreError> {
    let version = row.as_ref().map_or(0, |row| row.version);
    let is_changing = !plan.stop.is_empty() || !plan.place.is_empty() || !plan.update_in_place.is_empty();
    let mut row = row;
    if is_changing {
        let index = store.next_index();
        for stop in &plan.stop {
            edit(store, stop.alloc, index, now, |alloc| {
                alloc.desired = Desired::Stop;
                stop.description.clone_into(&mut alloc.desired_description);
            })?;
        }
        for id in &plan.update_in_place {
            edit(store, *id, index, now, |alloc| {
                alloc.job_version = version;
                alloc.eval = eval.id;
                IN_PLACE.clone_into(&mut alloc.desired_description);
            })?;
        }
        for placement in plan.place {
            let Some(group) = job.and_then(|job| job.group(&placement.group)) else { continue };
            let kind = job.map(Job::kind).unwrap_or_default();
            let alloc = new_alloc(eval, placement, group, kind, version, index, now, rng);
            if !alloc.previous.is_nil() {
                let next = alloc.id;
                edit(store, alloc.previous, index, now, |previous| previous.next = next)?;
            }
            store.add_alloc(&alloc);
            if let Some(row) = &mut row {
                summary::entry(&mut row.summary, &alloc.group).shift(None, ClientStatus::Pending);
            }
        }
    }
    eval.snapshot_index = eval.create_index.max(eval.snapshot_index);
    eval.failed_groups = plan.failed_groups;
    eval.queued = plan.queued;
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

fn edit(store: &mut Store, id: AllocId, index: u64, now: Now, change: impl FnOnce(&mut Allocation)) -> Result<(), StoreError> {
    let Some(mut alloc) = store.view().alloc(id)? else { return Ok(()) };
    change(&mut alloc);
    alloc.modify_index = index;
    alloc.alloc_modify_index = index;
    alloc.modify_at = now.wall;
    store.put_alloc(&alloc);
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "an allocation is made here only, from exactly these facts")]
fn new_alloc(
    eval: &Evaluation,
    placement: super::Placement,
    group: &TaskGroup,
    kind: JobKind,
    version: u64,
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
        job_version: version,
        job_type: kind,
        group: placement.group,
        index: placement.index,
        tasks: tasks.collect(),
        grant: placement.grant,
        metric: placement.metric,
        previous: placement.previous,
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
