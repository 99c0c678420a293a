//! Deployments: list, read, their allocations, and what users do to them (`spec/jobs.md` 8, `spec/http-api.md` 8).
//!
//! Source of texts and shapes: upstream v1.10.0 command/agent/deployment_endpoint.go, nomad/deployment_endpoint.go (behaviour only).

use std::collections::BTreeMap;

use dunlin_runtime::id::{AllocId, DeploymentId};
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::list::{self, Source};
use super::route::{Acl, Family, put, read};
use super::{Answer, Ask, Cx, body_of, show};
use crate::model::alloc::{Allocation, JobKey};
use crate::model::deployment::{Deployment, GroupState};
use crate::model::task_state::time;
use crate::sched::deploy::{Moved, Refusal};
use crate::store::Table;
use crate::store::view::View;

/// The routes.
pub const FAMILY: Family = Family {
    routes: &[
        read("/v1/deployments", Acl::ReadJob, Table::Deployments, list),
        read("/v1/deployment/{id}", Acl::ReadJob, Table::Deployments, info),
        read("/v1/deployment/allocations/{id}", Acl::ReadJob, Table::Allocs, allocations),
        put("/v1/deployment/fail/{id}", Acl::SubmitJob, fail),
        put("/v1/deployment/pause/{id}", Acl::SubmitJob, pause),
        put("/v1/deployment/promote/{id}", Acl::SubmitJob, promote),
        put("/v1/deployment/allocation-health/{id}", Acl::SubmitJob, set_health),
        put("/v1/deployment/unblock/{id}", Acl::SubmitJob, unblock),
    ],
};

/// `DeploymentState`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownState {
    auto_revert: bool,
    auto_promote: bool,
    progress_deadline: i64,
    require_progress_by: Option<String>,
    promoted: bool,
    placed_canaries: Option<Vec<String>>,
    desired_canaries: u32,
    desired_total: u32,
    placed_allocs: u32,
    healthy_allocs: u32,
    unhealthy_allocs: u32,
}

impl ShownState {
    fn of(state: &GroupState) -> Self {
        let canaries = || state.canaries.iter().map(ToString::to_string).collect();
        Self {
            auto_revert: state.auto_revert,
            auto_promote: state.auto_promote,
            progress_deadline: state.progress_deadline_ns,
            require_progress_by: time(state.require_progress_by),
            promoted: state.is_promoted,
            placed_canaries: (!state.canaries.is_empty()).then(canaries),
            desired_canaries: state.desired_canaries_n,
            desired_total: state.desired_n,
            placed_allocs: state.placed_n,
            healthy_allocs: state.healthy_n,
            unhealthy_allocs: state.unhealthy_n,
        }
    }
}

/// `Deployment`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Shown<'a> {
    #[serde(rename = "ID")]
    id: String,
    namespace: &'a str,
    #[serde(rename = "JobID")]
    job_id: &'a str,
    job_version: u64,
    job_modify_index: u64,
    job_spec_modify_index: u64,
    job_create_index: u64,
    is_multiregion: bool,
    task_groups: BTreeMap<&'a str, ShownState>,
    status: &'static str,
    status_description: &'a str,
    eval_priority: u8,
    create_index: u64,
    modify_index: u64,
    create_time: i64,
    modify_time: i64,
}

impl<'a> Shown<'a> {
    /// As clients see it.
    #[must_use]
    pub fn of(deployment: &'a Deployment) -> Self {
        Self {
            id: deployment.id.to_string(),
            namespace: &deployment.job.namespace,
            job_id: &deployment.job.id,
            job_version: deployment.edition.version,
            job_modify_index: deployment.job_modify_index,
            job_spec_modify_index: deployment.job_spec_modify_index,
            job_create_index: deployment.edition.create_index,
            is_multiregion: false,
            task_groups: deployment.groups.iter().map(|state| (state.group.as_str(), ShownState::of(state))).collect(),
            status: deployment.status.as_str(),
            status_description: &deployment.status_description,
            eval_priority: deployment.priority,
            create_index: deployment.create_index,
            modify_index: deployment.modify_index,
            create_time: deployment.create_at.0,
            modify_time: deployment.modify_at.0,
        }
    }
}

/// Writes one.
///
/// # Errors
/// 500 when it cannot be written.
pub(super) fn write(_: &View<'_>, deployment: &Deployment, out: &mut Vec<u8>) -> Result<(), ApiError> {
    serde_json::to_writer(out, &Shown::of(deployment)).map_err(|error| ApiError::new(500, error.to_string()))
}

fn list(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let common = ask.query.common()?;
    let index = cx.store.table_index(Table::Deployments);
    list::answer(cx, Source::deployments(&common.prefix)?, &common, index, Box::new(|_| true), Box::new(write))
}

/// `GET /v1/job/:id/deployments`.
pub fn of_job(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let common = ask.query.common()?;
    ask.query.flag("all", false)?;
    let key = JobKey { namespace: common.namespace.clone(), id: ask.id.to_owned() };
    let index = cx.store.table_index(Table::Deployments);
    list::answer(cx, Source::job_deployments(&key), &common, index, Box::new(|_| true), Box::new(write))
}

/// `GET /v1/job/:id/deployment`: the literal `null` when there is none.
pub fn latest_of_job(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let common = ask.query.common()?;
    let key = JobKey { namespace: common.namespace.clone(), id: ask.id.to_owned() };
    match cx.store.view().latest_deployment(&key)? {
        Some(latest) => Answer::json(&Shown::of(&latest), Some(latest.modify_index)),
        None => Answer::json(&(), Some(cx.store.table_index(Table::Deployments))),
    }
}

fn parse(id: &str) -> Result<DeploymentId, ApiError> {
    if id.chars().count() != 36 {
        return Err(ApiError::new(500, "deployment lookup failed: index error: UUID must be 36 characters"));
    }
    DeploymentId::parse(id).ok_or_else(|| ApiError::new(404, "deployment not found"))
}

fn info(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let found = cx.store.view().deployment(parse(ask.id)?)?;
    let deployment = found.ok_or_else(|| ApiError::new(404, "deployment not found"))?;
    Answer::json(&Shown::of(&deployment), Some(deployment.modify_index))
}

fn allocations(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let common = ask.query.common()?;
    let id = parse(ask.id)?;
    let index = cx.store.table_index(Table::Allocs);
    let node = cx.node.names();
    let job = cx.store.view().deployment(id)?.map(|deployment| deployment.job).unwrap_or_default();
    let common = super::query::Common { namespace: "*".to_owned(), ..common };
    let show = move |_: &View<'_>, alloc: &Allocation, out: &mut Vec<u8>| show::alloc_stub(alloc, &node, true, false, out);
    list::answer(cx, Source::job_allocs(&job), &common, index, Box::new(move |alloc: &Allocation| alloc.deployment == id), Box::new(show))
}

/// What users send; each verb reads its own members.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Body {
    #[serde(rename = "DeploymentID")]
    deployment_id: String,
    all: bool,
    groups: Option<Vec<String>>,
    pause: bool,
    #[serde(rename = "HealthyAllocationIDs")]
    healthy: Option<Vec<String>>,
    #[serde(rename = "UnhealthyAllocationIDs")]
    unhealthy: Option<Vec<String>>,
}

/// The answer to what users do.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Done {
    #[serde(rename = "EvalID")]
    eval_id: String,
    eval_create_index: u64,
    deployment_modify_index: u64,
    reverted_job_version: Option<u64>,
    index: u64,
}

/// The body of a request about the deployment of its path.
fn body(cx: &Cx<'_>, ask: &Ask<'_>) -> Result<Body, ApiError> {
    let (body, _): (Body, _) = body_of(cx, ask.body)?;
    if body.deployment_id.is_empty() {
        return Err(ApiError::new(400, "DeploymentID must be specified"));
    }
    if body.deployment_id != ask.id {
        return Err(ApiError::new(400, "Deployment ID does not match"));
    }
    Ok(body)
}

fn named(ask: &Ask<'_>) -> Result<DeploymentId, ApiError> {
    parse(ask.id).map_err(|error| ApiError::new(500, error.text))
}

/// What was done, with the evaluation that followed from it.
fn done(cx: &mut Cx<'_>, moved: Result<Moved, Refusal>) -> Result<Answer, ApiError> {
    let Moved { eval, reverted, index } = moved.map_err(|refusal| ApiError::new(500, refusal.to_string()))?;
    let (eval_id, eval_create_index) = match eval {
        Some(eval) => {
            let eval = cx.process(eval)?;
            (eval.id.to_string(), eval.create_index)
        }
        None => (String::new(), 0),
    };
    let answer = Done { eval_id, eval_create_index, deployment_modify_index: index, reverted_job_version: reverted, index };
    Answer::json(&answer, Some(index))
}

fn fail(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let id = named(ask)?;
    let moved = cx.deploy().fail_by_user(id);
    done(cx, moved)
}

fn pause(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let body = body(cx, ask)?;
    let id = named(ask)?;
    let moved = cx.deploy().pause(id, body.pause);
    done(cx, moved)
}

fn promote(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let body = body(cx, ask)?;
    let id = named(ask)?;
    let groups = body.groups.unwrap_or_default();
    let moved = cx.deploy().promote(id, |group| body.all || groups.iter().any(|asked| asked == group));
    done(cx, moved)
}

fn set_health(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let body = body(cx, ask)?;
    let ids = |list: Option<Vec<String>>| -> Result<Vec<AllocId>, ApiError> {
        let unknown = |id: &str| ApiError::new(500, format!("unknown alloc {}", crate::wire::go_text::quote(id)));
        list.unwrap_or_default().iter().map(|id| AllocId::parse(id).ok_or_else(|| unknown(id))).collect()
    };
    let (healthy, unhealthy) = (ids(body.healthy)?, ids(body.unhealthy)?);
    if healthy.is_empty() && unhealthy.is_empty() {
        return Err(ApiError::new(500, "must specify at least one healthy/unhealthy allocation ID"));
    }
    let id = named(ask)?;
    let moved = cx.deploy().set_health(id, &healthy, &unhealthy);
    done(cx, moved)
}

/// Only deployments over several regions block each other.
fn unblock(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    body(cx, ask)?;
    Err(ApiError::new(501, "deployments of this agent are of one region and wait for no other"))
}
