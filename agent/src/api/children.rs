//! Jobs made from jobs: dispatch, force, and what the core does at a slot (`spec/jobs.md` 6).
//!
//! A child is one batch with its evaluation, its allocations and its parent's row, so a cut leaves all of it or nothing.
//! Bounds: `Budget::children_living_max`.

use std::collections::BTreeMap;

use dunlin_hal::clock::Wall;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::jobs::new_eval;
use super::route::{Acl, Family, put};
use super::{Answer, Ask, Cx, body_of};
use crate::model::alloc::JobKey;
use crate::model::eval::Trigger;
use crate::model::job::{Bytes, Job};
use crate::sched::children::{self, Dispatch};
use crate::sched::version;
use crate::store::rows::{self, JobRow};
use crate::store::view::View;
use crate::store::{StoreError, keys};
use crate::wire::go_text::quote;

/// The routes.
pub const FAMILY: Family = Family {
    routes: &[put("/v1/job/{id..}/dispatch", Acl::DispatchJob, dispatch), put("/v1/job/{id..}/periodic/force", Acl::SubmitJob, force)],
};

/// Children looked at in one step of a scan.
const ROWS_STEP: usize = 64;
/// Seconds a forced launch looks back for an id that is free.
const FORCE_BACK_S: i64 = 60;

/// A child as it was put.
struct Made {
    id: String,
    create_index: u64,
    /// Its evaluation and the index of it; `None` = it is periodic itself and has none.
    eval: Option<(String, u64)>,
}

/// Puts a child. A dispatch's evaluation is an index of its own.
fn put_child(cx: &mut Cx<'_>, job: &Job, trigger: Trigger) -> Result<Made, ApiError> {
    let key = JobKey { namespace: job.namespace.clone(), id: job.id.clone() };
    let spec = job.to_json().map_err(|error| ApiError::new(500, error.to_string()))?;
    let create_index = cx.store.next_index();
    let mut row = version::put(cx.store, cx.now, &key, (job, spec), None, create_index, cx.budget.job_versions_max)?;
    row.had_eval = !row.stub.is_periodic;
    cx.store.put_job(&key, &row);
    let mut made = Made { id: key.id.clone(), create_index, eval: None };
    if row.had_eval {
        let index = if trigger == Trigger::PeriodicJob { create_index } else { cx.store.next_index() };
        let eval = new_eval(cx, &key, &row, trigger, index, None);
        cx.store.add_eval(&eval);
        made.eval = Some((cx.process(eval)?.id.to_string(), index));
    }
    Ok(made)
}

/// The newest version of a job that is there, as children are made of it.
///
/// # Errors
/// When rows cannot be read.
pub fn parent_job(view: &View<'_>, key: &JobKey, row: &JobRow) -> Result<Job, StoreError> {
    let corrupt = StoreError::Corrupt { kind: "job version" };
    let version = view.job_version(key, row.edition())?.ok_or_else(|| corrupt.clone())?;
    Job::from_json(version.spec.as_bytes()).map_err(|_| corrupt)
}

/// Why a parent may have no further child now.
fn refusal(cx: &Cx<'_>, row: &JobRow) -> Option<ApiError> {
    if let Some(why) = &cx.no_room {
        return Some(ApiError::new(500, format!("{why}; nothing was changed")));
    }
    let (living_n, max) = (row.children.living_n(), cx.budget.children_living_max);
    (living_n >= max).then(|| ApiError::new(429, format!("{living_n} children of the job have not ended, at most {max} may be so")))
}

/// Launches the child of a slot, unless the job forbids it: then why not.
///
/// # Errors
/// What has to be told: no room, rows that cannot be read.
pub fn launch(cx: &mut Cx<'_>, key: &JobKey, slot: Wall) -> Result<Result<String, &'static str>, ApiError> {
    let Some(row) = cx.store.view().job(key)? else { return Ok(Err("the job is gone")) };
    let mut job = parent_job(&cx.store.view(), key, &row)?;
    if job.periodic.as_ref().is_some_and(|periodic| periodic.prohibit_overlap) && row.children.living_n() > 0 {
        return Ok(Err("an earlier child has not ended"));
    }
    if let Some(refusal) = refusal(cx, &row) {
        return Err(refusal);
    }
    let id = children::slot_id(&key.id, slot);
    if is_taken(cx, key, &id)? {
        return Ok(Err("its child was there before"));
    }
    put_slot(cx, key, row, slot);
    children::of_slot(&mut job, id);
    put_child(cx, &job, Trigger::PeriodicJob).map(|made| Ok(made.id))
}

/// The slot is taken in the batch that makes its child. Before the child: that one moves the counts in the same row.
fn put_slot(cx: &mut Cx<'_>, key: &JobKey, row: JobRow, slot: Wall) {
    cx.store.put_job(key, &JobRow { last_slot_at: row.last_slot_at.max(slot), ..row });
}

fn is_taken(cx: &Cx<'_>, parent: &JobKey, id: &str) -> Result<bool, StoreError> {
    Ok(cx.store.view().get(&keys::job(&JobKey { namespace: parent.namespace.clone(), id: id.to_owned() }))?.is_some())
}

/// The job a route is about: the namespace of the query wins over the body's.
fn key_of(ask: &Ask<'_>, body_namespace: &str) -> JobKey {
    let given = [ask.query.text("namespace"), body_namespace, "default"].into_iter().find(|name| !name.is_empty());
    JobKey { namespace: given.unwrap_or_default().to_owned(), id: ask.id.to_owned() }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ForceAnswer {
    eval_create_index: u64,
    #[serde(rename = "EvalID")]
    eval_id: String,
    index: u64,
}

/// `PUT /v1/job/:id/periodic/force`: a child now, whatever the schedule and overlap say. Two within one second are told apart by the
/// seconds before it.
fn force(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let key = key_of(ask, "");
    let row = cx.store.view().job(&key)?.ok_or_else(|| ApiError::new(500, "job not found"))?;
    if !row.stub.is_periodic {
        return Err(ApiError::new(500, "can't force launch non-periodic job"));
    }
    let mut job = parent_job(&cx.store.view(), &key, &row)?;
    let is_active = job.is_periodic_active() && !row.is_stopped;
    if !is_active {
        let (id, namespace) = (quote(&key.id), &key.namespace);
        return Err(ApiError::new(500, format!("force launch for job {id} failed: can't force run non-tracked job {id} ({namespace})")));
    }
    if let Some(refusal) = refusal(cx, &row) {
        return Err(refusal);
    }
    let now_s = cx.now.wall.seconds();
    let mut free = None;
    for at_s in (now_s.saturating_sub(FORCE_BACK_S)..=now_s).rev() {
        let slot = Wall(at_s.saturating_mul(1_000_000_000));
        let id = children::slot_id(&key.id, slot);
        if !is_taken(cx, &key, &id)? {
            free = Some((slot, id));
            break;
        }
    }
    let (slot, id) = free.ok_or_else(|| ApiError::new(429, "the job was launched too often in the last minute"))?;
    put_slot(cx, &key, row, slot);
    children::of_slot(&mut job, id);
    let made = put_child(cx, &job, Trigger::PeriodicJob)?;
    let (eval_id, index) = made.eval.unwrap_or_default();
    Answer::json(&ForceAnswer { eval_create_index: index, eval_id, index }, Some(index))
}

/// The body of a dispatch.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct DispatchBody {
    #[serde(rename = "JobID")]
    job_id: String,
    payload: Bytes,
    meta: BTreeMap<String, String>,
    id_prefix_template: String,
    idempotency_token: String,
    namespace: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DispatchAnswer {
    #[serde(rename = "DispatchedJobID")]
    dispatched_job_id: String,
    eval_create_index: u64,
    #[serde(rename = "EvalID")]
    eval_id: String,
    index: u64,
    job_create_index: u64,
}

/// `PUT /v1/job/:id/dispatch`.
fn dispatch(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let (body, _): (DispatchBody, _) = body_of(cx, ask.body)?;
    if !body.job_id.is_empty() && body.job_id != ask.id {
        return Err(ApiError::new(400, "Job ID does not match"));
    }
    let key = key_of(ask, &body.namespace);
    let row = cx.store.view().job(&key)?.ok_or_else(|| ApiError::new(500, "parameterized job not found"))?;
    let mut job = parent_job(&cx.store.view(), &key, &row)?;
    let rules = job.parameterized_job.as_ref().filter(|_| job.is_parameterized());
    let rules = rules.ok_or_else(|| ApiError::new(500, format!("Specified job {} is not a parameterized job", quote(ask.id))))?;
    if row.is_stopped {
        return Err(ApiError::new(500, format!("Specified job {} is stopped", quote(ask.id))));
    }
    let token = [ask.query.text("idempotency_token"), &body.idempotency_token].into_iter().find(|token| !token.is_empty());
    let asked = Dispatch {
        payload: body.payload.0,
        meta: body.meta,
        token: token.unwrap_or_default().to_owned(),
        id_prefix: body.id_prefix_template,
    };
    children::check_dispatch(rules, &asked).map_err(|why| ApiError::new(500, why))?;
    if let Some((id, known)) = dispatched_before(cx, &key, &asked.token)? {
        let answer = DispatchAnswer {
            dispatched_job_id: id,
            eval_create_index: 0,
            eval_id: String::new(),
            index: known.modify_index,
            job_create_index: known.create_index,
        };
        return Answer::json(&answer, Some(known.modify_index));
    }
    if let Some(refusal) = refusal(cx, &row) {
        return Err(refusal);
    }
    let word = u32::try_from(cx.rng.below(1 << 32)).unwrap_or(0);
    let id = children::dispatch_id(&key.id, &asked.id_prefix, cx.now.wall, word);
    // One in four thousand million, and then the client asks again.
    if is_taken(cx, &key, &id)? {
        return Err(ApiError::new(500, format!("job {} exists", quote(&id))));
    }
    children::of_dispatch(&mut job, id, asked);
    let made = put_child(cx, &job, Trigger::JobRegister)?;
    let (eval_id, eval_create_index) = made.eval.unwrap_or_default();
    let index = eval_create_index.max(made.create_index);
    let answer = DispatchAnswer { dispatched_job_id: made.id, eval_create_index, eval_id, index, job_create_index: made.create_index };
    Answer::json(&answer, Some(index))
}

/// The child that was dispatched with this token and is not forgotten.
fn dispatched_before(cx: &Cx<'_>, parent: &JobKey, token: &str) -> Result<Option<(String, JobRow)>, StoreError> {
    if token.is_empty() {
        return Ok(None);
    }
    let prefix = keys::job(&JobKey { namespace: parent.namespace.clone(), id: children::dispatch_prefix(&parent.id) });
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = cx.store.view().scan_after(&prefix, after.as_deref(), ROWS_STEP)?;
        let Some((last, _)) = page.last() else { return Ok(None) };
        after = Some(last.clone());
        for (key, bytes) in &page {
            let row = rows::decode_job(bytes)?;
            if row.stub.parent_id == parent.id && row.stub.dispatch_token == token {
                let key = keys::parse_job(key).ok_or(StoreError::Corrupt { kind: "job key" })?;
                return Ok(Some((key.id, row)));
            }
        }
    }
}
