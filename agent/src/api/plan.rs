//! What a registration would do, without doing it: `PUT /v1/job/:id/plan` (`spec/http-api.md` 8.2).
//!
//! The job is registered and evaluated in the open batch as ever, and the batch is dropped: the plan is the scheduler's own.
//! Source of texts and shapes: upstream v1.10.0 command/agent/job_endpoint.go, nomad/job_endpoint.go `Plan` (behaviour only).

use std::collections::BTreeMap;

use dunlin_hal::clock::Wall;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::ApiError;
use super::jobs::{check, new_eval};
use super::{Answer, Ask, Cx, body_of, show};
use crate::model::alloc::JobKey;
use crate::model::canonical;
use crate::model::diff::{self, DesiredUpdates, JobDiff};
use crate::model::eval::{Evaluation, Trigger};
use crate::model::job::Job;
use crate::model::task_state::time;
use crate::sched::periodic::Schedule;
use crate::sched::{Plan, version};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Body {
    job: Option<Job>,
    diff: bool,
    namespace: String,
    region: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Annotations {
    #[serde(rename = "DesiredTGUpdates")]
    desired_updates: BTreeMap<String, DesiredUpdates>,
    preempted_allocs: Option<Vec<Box<RawValue>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Planned {
    annotations: Annotations,
    #[serde(rename = "FailedTGAllocs")]
    failed_groups: Option<Box<RawValue>>,
    job_modify_index: u64,
    created_evals: Option<Vec<Box<RawValue>>>,
    diff: Option<JobDiff>,
    next_periodic_launch: Option<String>,
    warnings: String,
    index: u64,
}

/// `PUT /v1/job/:id/plan`.
pub(super) fn plan(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let (body, unknown): (Body, _) = body_of(cx, ask.body)?;
    let mut job = body.job.ok_or_else(|| ApiError::new(400, "Job must be specified"))?;
    if job.id.is_empty() {
        return Err(ApiError::new(400, "Job must have a valid ID"));
    }
    if job.id != ask.id {
        return Err(ApiError::new(400, "Job ID does not match"));
    }
    canonical::canonicalize(
        &mut job,
        &canonical::Ctx {
            region: &cx.config.region,
            query_region: ask.query.text("region"),
            body_region: &body.region,
            query_namespace: ask.query.text("namespace"),
            body_namespace: &body.namespace,
        },
    );
    if job.region != cx.config.region {
        return Err(ApiError::new(500, "No path to region"));
    }
    let warnings = check(cx, &job, &unknown).map_err(|faults| ApiError::new(500, faults.to_string()))?;
    let planned = dry_run(cx, &job, body.diff, warnings);
    cx.store.abort();
    let planned = planned?;
    let index = Some(planned.index);
    Answer::json(&planned, index)
}

/// Leaves its rows in the open batch.
fn dry_run(cx: &mut Cx<'_>, job: &Job, wants_diff: bool, warnings: String) -> Result<Planned, ApiError> {
    let key = JobKey { namespace: job.namespace.clone(), id: job.id.clone() };
    let known = cx.store.view().job(&key)?;
    let old = match &known {
        Some(row) => cx.store.view().job_version(&key, row.edition())?.map(|version| show::whole_job(&version, row)).transpose()?,
        None => None,
    };
    let job_modify_index = known.as_ref().map_or(0, |row| row.job_modify_index);
    let index = cx.store.next_index();
    let mut new = job.clone();
    super::jobs::blank(&mut new);
    let spec = new.to_json().map_err(|error| ApiError::new(500, error.to_string()))?;
    let newest = match &known {
        Some(row) => cx.store.view().job_version(&key, row.edition())?,
        None => None,
    };
    let is_unchanged = known.as_ref().is_some_and(|row| !row.is_stopped) && newest.is_some_and(|version| version.spec == spec);
    let row = match known {
        Some(row) if is_unchanged => row,
        known => version::put(cx.store, cx.now, &key, (&new, spec), known, index, cx.budget.job_versions_max)?,
    };
    cx.store.put_job(&key, &row);
    // A job that makes jobs is planned like one of its children: a registration would place nothing of its own.
    let eval = new_eval(cx, &key, &row, Trigger::JobRegister, index, None);
    cx.store.add_eval(&eval);
    let (eval, plan) = cx.plan(eval)?;
    let failed_groups = show::failed_groups(&eval, &cx.node.names())?;
    let created = created_evals(cx, &eval)?;
    let desired_updates: BTreeMap<String, DesiredUpdates> = plan.desired.iter().cloned().collect();
    let diff = if wants_diff {
        let mut diff = diff::diff(old.as_ref(), Some(job), true).map_err(|error| ApiError::new(500, error.to_string()))?;
        diff::annotate(&mut diff, &desired_updates);
        Some(diff)
    } else {
        None
    };
    Ok(Planned {
        annotations: Annotations { desired_updates, preempted_allocs: preempted(cx, &plan)? },
        failed_groups,
        job_modify_index,
        created_evals: (!created.is_empty()).then_some(created),
        diff,
        next_periodic_launch: next_launch(cx, job).and_then(time),
        warnings,
        index: job_modify_index,
    })
}

/// The first slot of a periodic job from now on.
fn next_launch(cx: &Cx<'_>, job: &Job) -> Option<Wall> {
    let periodic = job.periodic.as_ref().filter(|periodic| periodic.enabled != Some(false))?;
    Schedule::of(periodic, cx.zones).ok()?.next(cx.now.wall)
}

/// The evaluations that would follow: of what finds no room, of what is replaced later.
fn created_evals(cx: &Cx<'_>, eval: &Evaluation) -> Result<Vec<Box<RawValue>>, ApiError> {
    let view = cx.store.view();
    let mut all = Vec::new();
    for made in view.job_evals(&eval.job, usize::MAX)?.iter().filter(|made| made.previous == eval.id) {
        let mut text = Vec::new();
        show::eval(made, None, &cx.node.names(), &mut text)?;
        all.push(show::raw(text)?);
    }
    Ok(all)
}

fn preempted(cx: &Cx<'_>, plan: &Plan) -> Result<Option<Vec<Box<RawValue>>>, ApiError> {
    let mut all = Vec::new();
    for id in plan.place.iter().flat_map(|placement| &placement.preempts) {
        if let Some(alloc) = cx.store.view().alloc(*id)? {
            let mut text = Vec::new();
            show::alloc_stub(&alloc, &cx.node.names(), true, false, &mut text)?;
            all.push(show::raw(text)?);
        }
    }
    Ok((!all.is_empty()).then_some(all))
}
