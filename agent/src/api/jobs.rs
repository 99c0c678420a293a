//! Jobs: register, list, read, stop, and what belongs to one (`spec/http-api.md` 8.2, `spec/jobs.md`).
//!
//! A registration is one batch: job, version, evaluation, plan and allocations (`spec/jobs.md` 1 and 5).

use dunlin_runtime::id::EvalId;
use dunlin_runtime::template;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::list::{self, Source};
use super::query::Common;
use super::route::{Acl, Family, delete, put, read};
use super::{Answer, Ask, Cx, body_of, show};
use crate::model::alloc::{Allocation, JobKey};
use crate::model::canonical;
use crate::model::diff::{self, JobDiff};
use crate::model::eval::{Evaluation, Trigger};
use crate::model::job::{Job, JobKind};
use crate::model::validate;
use crate::sched::cron::Cron;
use crate::sched::version;
use crate::sched::zone::Zone;
use crate::store::Table;
use crate::store::rows::{JobRow, JobStatus};
use crate::wire::go_text;

/// The routes.
pub const FAMILY: Family = Family {
    routes: &[
        read("/v1/jobs", Acl::ListJobs, Table::Jobs, list),
        put("/v1/jobs", Acl::SubmitJob, register),
        read("/v1/job/{id..}", Acl::ReadJob, Table::Jobs, info),
        put("/v1/job/{id..}", Acl::SubmitJob, register),
        delete("/v1/job/{id..}", Acl::SubmitJob, deregister),
        read("/v1/job/{id..}/allocations", Acl::ReadJob, Table::Allocs, allocations),
        read("/v1/job/{id..}/evaluations", Acl::ReadJob, Table::Evals, evaluations),
        read("/v1/job/{id..}/summary", Acl::ReadJob, Table::Jobs, summary_of),
        read("/v1/job/{id..}/versions", Acl::ReadJob, Table::Jobs, versions),
        read("/v1/job/{id..}/deployments", Acl::ReadJob, Table::Deployments, super::deployments::of_job),
        read("/v1/job/{id..}/deployment", Acl::ReadJob, Table::Deployments, super::deployments::latest_of_job),
        put("/v1/job/{id..}/plan", Acl::SubmitJob, super::plan::plan),
        put("/v1/job/{id..}/evaluate", Acl::SubmitJob, super::evaluations::evaluate),
        put("/v1/job/{id..}/revert", Acl::SubmitJob, super::versions::revert),
        put("/v1/job/{id..}/stable", Acl::SubmitJob, super::versions::mark_stable),
        read("/v1/job/{id..}/scale", Acl::ReadJob, Table::Jobs, super::scaling::status),
        put("/v1/job/{id..}/scale", Acl::SubmitJob, super::scaling::scale),
        put("/v1/validate/job", Acl::ReadJob, validate_only),
        put("/v1/jobs/parse", Acl::SubmitJob, parse),
    ],
};

fn parse(_: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    Err(ApiError::new(501, "HCL parsing is not available on this agent; the nomad CLI parses job files itself and posts JSON"))
}

/// The body of a registration.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RegisterBody {
    job: Option<Job>,
    enforce_index: bool,
    job_modify_index: u64,
    preserve_counts: bool,
    eval_priority: i64,
    namespace: String,
    region: String,
}

/// The answer to a registration or a stop.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RegisterAnswer {
    #[serde(rename = "EvalID")]
    pub(super) eval_id: String,
    pub(super) eval_create_index: u64,
    pub(super) job_modify_index: u64,
    pub(super) warnings: String,
    pub(super) index: u64,
    pub(super) last_contact: u64,
    pub(super) known_leader: bool,
    pub(super) next_token: &'static str,
    #[serde(rename = "VolumeEvalID", skip_serializing_if = "Option::is_none")]
    pub(super) volume_eval_id: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) volume_eval_index: Option<u64>,
}

/// Faults of a canonical job, and what it should know.
pub(super) fn check(cx: &Cx<'_>, job: &Job, unknown: &[String]) -> Result<String, validate::Faults> {
    let template =
        |source: &str, left: &str, right: &str| template::parse::parse(source, left, right).map(|_| ()).map_err(|why| why.to_string());
    let cron = |spec: &str| Cron::parse(spec).map(|_| ());
    let zone = |name: &str| Zone::find(name, cx.zones).map(|_| ());
    validate::validate(job, &validate::Checks { template: &template, cron: &cron, zone: &zone })?;
    // `memory_max` is honoured where the kernel can: nothing has to be switched on.
    Ok(validate::warnings(job, unknown, true))
}

/// `PUT /v1/jobs`, `PUT /v1/job/:id`.
fn register(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let (body, unknown): (RegisterBody, _) = body_of(cx, ask.body)?;
    let RegisterBody { job, enforce_index, job_modify_index, preserve_counts, eval_priority, namespace, region } = body;
    let mut job = job.ok_or_else(|| ApiError::new(400, "Job must be specified"))?;
    if job.id.is_empty() {
        return Err(ApiError::new(400, "Job ID hasn't been provided"));
    }
    if !ask.id.is_empty() && ask.id != job.id {
        return Err(ApiError::new(400, "Job ID does not match name"));
    }
    if job.kind() == JobKind::System && job.task_groups.iter().any(|group| group.scaling.is_some()) {
        return Err(ApiError::new(400, "Task groups with job type system do not support scaling stanzas"));
    }
    if eval_priority != 0 && !(1..=100).contains(&eval_priority) {
        return Err(ApiError::new(400, "Eval priority must be between 1 and 100 inclusively"));
    }
    let ctx = canonical::Ctx {
        region: &cx.config.region,
        query_region: ask.query.text("region"),
        body_region: &region,
        query_namespace: ask.query.text("namespace"),
        body_namespace: &namespace,
    };
    canonical::canonicalize(&mut job, &ctx);
    let check = if enforce_index { Some(job_modify_index) } else { None };
    let priority = u8::try_from(eval_priority).ok().filter(|priority| *priority > 0);
    let answer = submit(cx, job, &unknown, check, preserve_counts, priority)?;
    let index = Some(answer.index);
    Answer::json(&answer, index)
}

/// Registers a job given on the command line, as if it had been posted (decision 28).
///
/// # Errors
/// What the API would have answered.
pub fn register_at_start(cx: &mut Cx<'_>, text: &[u8]) -> Result<(JobKey, String), ApiError> {
    let (wrapped, mut unknown): (RegisterBody, _) = body_of(cx, text)?;
    let mut job = match wrapped.job {
        Some(job) => job,
        None => {
            let bare: (Job, _) = body_of(cx, text)?;
            unknown = bare.1;
            bare.0
        }
    };
    if job.id.is_empty() {
        return Err(ApiError::new(400, "Job ID hasn't been provided"));
    }
    canonical::canonicalize(&mut job, &canonical::Ctx { region: &cx.config.region, ..canonical::Ctx::default() });
    let key = JobKey { namespace: job.namespace.clone(), id: job.id.clone() };
    let answer = submit(cx, job, &unknown, None, false, None)?;
    Ok((key, answer.warnings))
}

/// Registers a job in normal form: job, version, evaluation, plan and allocations are one batch.
///
/// # Errors
/// With the texts of `spec/jobs.md` 4 and 5.
pub(super) fn submit(
    cx: &mut Cx<'_>,
    mut job: Job,
    unknown: &[String],
    enforce: Option<u64>,
    preserve_counts: bool,
    priority: Option<u8>,
) -> Result<RegisterAnswer, ApiError> {
    if job.region != cx.config.region {
        return Err(ApiError::new(500, "No path to region"));
    }
    // What makes room is taken still.
    if let Some(why) = &cx.no_room {
        return Err(ApiError::new(500, format!("{why}; nothing was changed")));
    }
    let warnings = check(cx, &job, unknown).map_err(|faults| ApiError::new(500, faults.to_string()))?;
    let key = JobKey { namespace: job.namespace.clone(), id: job.id.clone() };
    let known = cx.store.view().job(&key)?;
    if let Some(want) = enforce {
        check_index(want, known.as_ref())?;
    }
    let newest = match &known {
        Some(row) => cx.store.view().job_version(&key, row.edition())?,
        None => None,
    };
    let old = match (&newest, &known) {
        (Some(version), Some(row)) => Some(show::whole_job(version, row)?),
        _ => None,
    };
    if old.is_none() && job.dispatched {
        return Err(ApiError::new(500, "job can't be submitted with 'Dispatched' set"));
    }
    if let Some(old) = &old {
        check_transition(old, &job)?;
        if preserve_counts {
            for group in &mut job.task_groups {
                if let Some(before) = old.group(&group.name) {
                    group.count = before.count;
                }
            }
        }
    }
    blank(&mut job);
    let spec = job.to_json().map_err(|error| ApiError::new(500, error.to_string()))?;
    let is_unchanged = known.as_ref().is_some_and(|row| !row.is_stopped) && newest.as_ref().is_some_and(|version| version.spec == spec);

    let index = cx.store.next_index();
    let row = if is_unchanged {
        known.unwrap_or_default()
    } else {
        version::put(cx.store, cx.now, &key, (&job, spec), known, index, cx.budget.job_versions_max)?
    };
    if row.stub.is_periodic || row.stub.is_parameterized {
        cx.store.put_job(&key, &row);
        return Ok(RegisterAnswer { job_modify_index: row.job_modify_index, warnings, index, ..RegisterAnswer::default() });
    }
    let mut row = row;
    row.had_eval = true;
    if row.status == JobStatus::Dead {
        row.status = JobStatus::Pending;
        row.modify_index = index;
    }
    cx.store.put_job(&key, &row);
    let eval = new_eval(cx, &key, &row, Trigger::JobRegister, index, priority);
    cx.store.add_eval(&eval);
    let eval = cx.process(eval)?;
    Ok(RegisterAnswer {
        eval_id: eval.id.to_string(),
        eval_create_index: index,
        job_modify_index: row.job_modify_index,
        warnings,
        index,
        ..RegisterAnswer::default()
    })
}

/// Fields that are not part of a spec: they live in rows, and two registrations that differ only in them are the same.
pub(super) fn blank(job: &mut Job) {
    job.status.clear();
    job.status_description.clear();
    job.stable = false;
    job.stop = false;
    job.version = 0;
    job.submit_time = 0;
    job.create_index = 0;
    job.modify_index = 0;
    job.job_modify_index = 0;
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Validation {
    driver_config_validated: bool,
    validation_errors: Option<Vec<String>>,
    error: String,
    warnings: String,
}

/// `PUT /v1/validate/job`: 200 for every document that is a job.
fn validate_only(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let (body, unknown): (RegisterBody, _) = body_of(cx, ask.body)?;
    let mut job = body.job.ok_or_else(|| ApiError::new(400, "Job must be specified"))?;
    canonical::canonicalize(&mut job, &canonical::Ctx { region: &cx.config.region, ..canonical::Ctx::default() });
    let answer = match check(cx, &job, &unknown) {
        Ok(warnings) => Validation { driver_config_validated: true, validation_errors: None, error: String::new(), warnings },
        Err(faults) => Validation {
            driver_config_validated: true,
            validation_errors: Some(faults.list().to_vec()),
            error: faults.to_string(),
            warnings: String::new(),
        },
    };
    Answer::json(&answer, None)
}

fn check_index(want: u64, known: Option<&JobRow>) -> Result<(), ApiError> {
    let text = match known {
        Some(_) if want == 0 => "Enforcing job modify index 0: job already exists".to_owned(),
        Some(row) if row.job_modify_index != want => {
            format!("Enforcing job modify index {want}: job exists with conflicting job modify index: {}", row.job_modify_index)
        }
        None if want != 0 => format!("Enforcing job modify index {want}: job does not exist"),
        _ => return Ok(()),
    };
    Err(ApiError::new(500, text))
}

fn check_transition(old: &Job, new: &Job) -> Result<(), ApiError> {
    let text = if old.kind() != new.kind() {
        format!("cannot update job from type {} to {}", go_text::quote(old.kind().as_str()), go_text::quote(new.kind().as_str()))
    } else if old.is_periodic() && !new.is_periodic() {
        "cannot update periodic job to being non-periodic".to_owned()
    } else if new.is_periodic() && !old.is_periodic() {
        "cannot update non-periodic job to being periodic".to_owned()
    } else if old.is_parameterized() && !new.is_parameterized() {
        "cannot update parameterized job to being non-parameterized".to_owned()
    } else if new.is_parameterized() && !old.is_parameterized() {
        "cannot update non-parameterized job to being parameterized".to_owned()
    } else if old.dispatched != new.dispatched {
        "field 'Dispatched' is read-only".to_owned()
    } else {
        return Ok(());
    };
    Err(ApiError::new(500, text))
}

/// An evaluation of a job as it stands.
pub(super) fn new_eval(cx: &mut Cx<'_>, key: &JobKey, row: &JobRow, trigger: Trigger, index: u64, priority: Option<u8>) -> Evaluation {
    Evaluation {
        job: key.clone(),
        job_type: row.stub.kind,
        priority: priority.unwrap_or(row.stub.priority),
        trigger,
        job_modify_index: row.job_modify_index,
        ..Evaluation::made(EvalId(cx.rng.uuid()), index, cx.now.wall)
    }
}

pub(super) fn key_of(ask: &Ask<'_>, common: &Common) -> JobKey {
    JobKey { namespace: common.namespace.clone(), id: ask.id.to_owned() }
}

fn row_of(cx: &Cx<'_>, key: &JobKey) -> Result<JobRow, ApiError> {
    cx.store.view().job(key)?.ok_or_else(|| ApiError::new(404, "job not found"))
}

/// `GET /v1/jobs`.
fn list(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let common = ask.query.common()?;
    let has_meta = ask.query.flag("meta", false)?;
    let source = Source::jobs(&common.namespace, &common.prefix);
    let index = cx.store.table_index(Table::Jobs);
    let show = move |view: &crate::store::view::View<'_>, (key, row): &(JobKey, JobRow), out: &mut Vec<u8>| {
        show::job_stub(view, key, row, has_meta, out)
    };
    list::answer(cx, source, &common, index, Box::new(|_| true), Box::new(show))
}

/// `GET /v1/job/:id`.
fn info(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let common = ask.query.common()?;
    let key = key_of(ask, &common);
    let row = row_of(cx, &key)?;
    let version = cx.store.view().job_version(&key, row.edition())?.ok_or_else(|| ApiError::new(404, "job not found"))?;
    Answer::json(&show::whole_job(&version, &row)?, Some(row.modify_index))
}

/// `DELETE /v1/job/:id`.
fn deregister(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let common = ask.query.common()?;
    let key = key_of(ask, &common);
    let purge = ask.query.flag("purge", false)?;
    ask.query.flag("global", false)?;
    let no_shutdown_delay = ask.query.flag("no_shutdown_delay", false)?;
    let priority = match ask.query.text("eval_priority") {
        "" | "0" => None,
        text => match text.parse::<u8>() {
            Ok(priority @ 1..=100) => Some(priority),
            _ => return Err(ApiError::new(400, "Eval priority must be between 1 and 100 inclusively")),
        },
    };
    let answer = RegisterAnswer { volume_eval_id: Some(""), volume_eval_index: Some(0), ..RegisterAnswer::default() };
    let Some(mut row) = cx.store.view().job(&key)? else {
        return Answer::json(&answer, None);
    };
    let index = cx.store.next_index();
    version::put_stop(cx.store, &key, &mut row, index, cx.budget.job_versions_max)?;
    let has_no_allocs = row.stub.is_periodic || row.stub.is_parameterized;
    if has_no_allocs {
        row.status = JobStatus::Dead;
    }
    cx.store.put_job(&key, &row);
    if no_shutdown_delay {
        for mut alloc in cx.store.view().live_allocs()?.into_iter().filter(|alloc| alloc.job == key) {
            alloc.no_shutdown_delay = true;
            alloc.modify_index = index;
            alloc.alloc_modify_index = index;
            alloc.modify_at = cx.now.wall;
            cx.store.put_alloc(&alloc);
        }
    }
    let mut answer = RegisterAnswer { job_modify_index: index, index, ..answer };
    if !has_no_allocs {
        // Upstream's evaluation of a stop is of type service whatever the job's (`spec/jobs.md` 5).
        let eval = Evaluation { job_type: JobKind::Service, ..new_eval(cx, &key, &row, Trigger::JobDeregister, index, priority) };
        cx.store.add_eval(&eval);
        let eval = cx.process(eval)?;
        answer.eval_id = eval.id.to_string();
        answer.eval_create_index = index;
    }
    if purge {
        version::purge(cx.store, &key, &row)?;
    }
    let index = Some(index);
    Answer::json(&answer, index)
}

/// `GET /v1/job/:id/allocations`.
fn allocations(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let common = ask.query.common()?;
    let key = key_of(ask, &common);
    ask.query.flag("all", true)?;
    let index = cx.store.table_index(Table::Allocs);
    let node = cx.node.names();
    let show =
        move |_: &crate::store::view::View<'_>, alloc: &Allocation, out: &mut Vec<u8>| show::alloc_stub(alloc, &node, true, false, out);
    list::answer(cx, Source::job_allocs(&key), &common, index, Box::new(|_| true), Box::new(show))
}

/// `GET /v1/job/:id/evaluations`.
fn evaluations(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let common = ask.query.common()?;
    let key = key_of(ask, &common);
    let index = cx.store.table_index(Table::Evals);
    let node = cx.node.names();
    let show = move |_: &crate::store::view::View<'_>, eval: &Evaluation, out: &mut Vec<u8>| show::eval(eval, None, &node, out);
    list::answer(cx, Source::job_evals(&key), &common, index, Box::new(|_| true), Box::new(show))
}

/// `GET /v1/job/:id/summary`.
fn summary_of(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let common = ask.query.common()?;
    let key = key_of(ask, &common);
    let row = row_of(cx, &key)?;
    Answer::json(&show::summary(&key, &row), Some(row.summary_modify_index))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Versions {
    versions: Vec<Job>,
    diffs: Option<Vec<JobDiff>>,
    index: u64,
    known_leader: bool,
    last_contact: u64,
    next_token: &'static str,
}

/// `GET /v1/job/:id/versions`.
fn versions(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let has_diffs = ask.query.flag("diffs", false)?;
    let reference = ask.query.uint("diff_version")?;
    let common = ask.query.common()?;
    let key = key_of(ask, &common);
    let Some(row) = cx.store.view().job(&key)? else {
        return Err(ApiError::new(404, "job versions not found"));
    };
    let stored = cx.store.view().job_versions(&key, row.create_index, cx.budget.job_versions_max)?;
    let versions = stored.iter().map(|version| show::whole_job(version, &row)).collect::<Result<Vec<_>, _>>()?;
    let diffs = if has_diffs { diffs_of(&versions, ask.query.text("diff_tag"), reference)? } else { Vec::new() };
    let diffs = Some(diffs).filter(|diffs| !diffs.is_empty());
    let index = row.modify_index;
    Answer::json(&Versions { versions, diffs, index, known_leader: true, last_contact: 0, next_token: "" }, Some(index))
}

/// What differs between each version and the one before it (the oldest has none), or between each and `reference`.
fn diffs_of(versions: &[Job], tag: &str, reference: Option<u64>) -> Result<Vec<JobDiff>, ApiError> {
    if !tag.is_empty() {
        return Err(ApiError::new(500, format!("tag {} not found", go_text::quote(tag))));
    }
    let pairs: Vec<(&Job, &Job)> = match reference {
        None => versions.iter().skip(1).zip(versions).collect(),
        Some(version) => {
            let old = versions.iter().find(|job| job.version == version);
            let old = old.ok_or_else(|| ApiError::new(500, format!("version {version} not found")))?;
            versions.iter().map(|new| (old, new)).collect()
        }
    };
    let diffs = pairs.into_iter().map(|(old, new)| diff::diff(Some(old), Some(new), true));
    diffs.collect::<Result<_, _>>().map_err(|error| ApiError::new(500, error.to_string()))
}
