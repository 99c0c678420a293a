//! Evaluations: list, read with their relatives, their allocations (`spec/http-api.md` 6).

use std::collections::BTreeSet;

use dunlin_runtime::event::ClientStatus;
use dunlin_runtime::id::EvalId;
use serde::Deserialize;

use super::body::Body;
use super::error::ApiError;
use super::list::{self, Source};
use super::route::{Acl, Family, read};
use super::{Answer, Ask, Cx, body_of, show};
use crate::model::alloc::{Allocation, JobKey};
use crate::model::eval::{Evaluation, Trigger};
use crate::sched::reschedule;
use crate::store::Table;
use crate::store::view::View;

/// The routes.
pub const FAMILY: Family = Family {
    routes: &[
        read("/v1/evaluations", Acl::ReadJob, Table::Evals, list),
        read("/v1/evaluation/{id}", Acl::ReadJob, Table::Evals, info),
        read("/v1/evaluation/{id}/allocations", Acl::ReadJob, Table::Allocs, allocations),
    ],
};

/// Relatives told of one evaluation at most.
const RELATED_MAX: usize = 64;

fn list(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let (job, status) = (ask.query.text("job").to_owned(), ask.query.text("status").to_owned());
    let has_others = !job.is_empty() || !status.is_empty();
    if !ask.query.text("filter").is_empty() && has_others {
        return Err(ApiError::new(400, "Filter expression cannot be used with other filter parameters"));
    }
    let common = ask.query.common()?;
    let source = if job.is_empty() || common.namespace == "*" || !common.prefix.is_empty() {
        Source::evals(&common.prefix)?
    } else {
        Source::job_evals(&JobKey { namespace: common.namespace.clone(), id: job.clone() })
    };
    let index = cx.store.table_index(Table::Evals);
    let node = cx.node.names();
    let keep = move |eval: &Evaluation| (job.is_empty() || eval.job.id == job) && (status.is_empty() || eval.status.as_str() == status);
    let show = move |_: &View<'_>, eval: &Evaluation, out: &mut Vec<u8>| show::eval(eval, None, &node, out);
    list::answer(cx, source, &common, index, Box::new(keep), Box::new(show))
}

fn info(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    if ask.id.chars().count() != 36 {
        return Err(ApiError::new(500, "failed to lookup eval: eval lookup failed: index error: UUID must be 36 characters"));
    }
    let found = match EvalId::parse(ask.id) {
        Some(id) => cx.store.view().eval(id)?,
        None => None,
    };
    let eval = found.ok_or_else(|| ApiError::new(404, "eval not found"))?;
    let others = match ask.query.text("related") {
        "true" => Some(relatives(&cx.store.view(), &eval)?),
        _ => None,
    };
    let mut bytes = Vec::new();
    show::eval(&eval, others.as_deref(), &cx.node.names(), &mut bytes)?;
    let mut answer = Answer::json(&(), Some(eval.modify_index))?;
    answer.body = Body::Full(bytes);
    Ok(answer)
}

/// Every evaluation reachable over next, previous and blocked links, without the first.
fn relatives(view: &View<'_>, first: &Evaluation) -> Result<Vec<Evaluation>, ApiError> {
    let mut seen = BTreeSet::from([first.id]);
    let mut waiting = vec![first.next, first.previous, first.blocked];
    let mut found = Vec::new();
    while let Some(id) = waiting.pop() {
        if id.is_nil() || found.len() >= RELATED_MAX || !seen.insert(id) {
            continue;
        }
        if let Some(eval) = view.eval(id)? {
            waiting.extend([eval.next, eval.previous, eval.blocked]);
            found.push(eval);
        }
    }
    Ok(found)
}

fn allocations(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let common = ask.query.common()?;
    let index = cx.store.table_index(Table::Allocs);
    let node = cx.node.names();
    let id = EvalId::parse(ask.id).unwrap_or_default();
    // An unknown evaluation has no allocations; the empty range of a job that cannot exist says so without a walk.
    let job = cx.store.view().eval(id)?.map(|eval| eval.job).unwrap_or_default();
    let common = super::query::Common { namespace: "*".to_owned(), ..common };
    let show = move |_: &View<'_>, alloc: &Allocation, out: &mut Vec<u8>| show::alloc_stub(alloc, &node, true, false, out);
    list::answer(cx, Source::job_allocs(&job), &common, index, Box::new(move |alloc: &Allocation| alloc.eval == id), Box::new(show))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct EvaluateBody {
    #[serde(rename = "JobID")]
    job_id: String,
    eval_options: Option<EvalOptions>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct EvalOptions {
    force_reschedule: bool,
}

/// `PUT /v1/job/:id/evaluate`: a new evaluation; with `ForceReschedule` failures are replaced at once.
/// Source of texts: upstream v1.10.0 command/agent/job_endpoint.go, nomad/job_endpoint.go `Evaluate` (behaviour only).
pub(super) fn evaluate(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let key = super::jobs::key_of(ask, &ask.query.common()?);
    let mut is_forced = false;
    if !ask.body.is_empty() {
        let (body, _): (EvaluateBody, _) = body_of(cx, ask.body)?;
        if body.job_id.is_empty() {
            return Err(ApiError::new(400, "Job ID must be specified"));
        }
        if body.job_id != ask.id {
            return Err(ApiError::new(400, "JobID not same as job name"));
        }
        is_forced = body.eval_options.is_some_and(|options| options.force_reschedule);
    }
    let unknown = || ApiError::new(500, "job not found");
    let row = cx.store.view().job(&key)?.ok_or_else(unknown)?;
    if row.stub.is_periodic {
        return Err(ApiError::new(500, "can't evaluate periodic job"));
    }
    if row.stub.is_parameterized {
        return Err(ApiError::new(500, "can't evaluate parameterized job"));
    }
    let index = cx.store.next_index();
    if is_forced {
        let version = cx.store.view().job_version(&key, row.edition())?.ok_or_else(unknown)?;
        let job = show::whole_job(&version, &row)?;
        for mut alloc in cx.store.view().edition_allocs(&key, row.edition())? {
            let policy = job.group(&alloc.group).and_then(|group| group.reschedule_policy.as_ref());
            let is_replaceable =
                policy.is_some_and(reschedule::is_enabled) && alloc.next.is_nil() && alloc.client_status == ClientStatus::Failed;
            if is_replaceable && !alloc.must_reschedule {
                alloc.must_reschedule = true;
                alloc.modify_index = index;
                alloc.alloc_modify_index = index;
                cx.store.put_alloc(&alloc);
            }
        }
    }
    let eval = super::jobs::new_eval(cx, &key, &row, Trigger::JobRegister, index, None);
    cx.store.add_eval(&eval);
    let eval = cx.process(eval)?;
    let answer = super::jobs::RegisterAnswer {
        eval_id: eval.id.to_string(),
        eval_create_index: index,
        job_modify_index: row.modify_index,
        index,
        ..super::jobs::RegisterAnswer::default()
    };
    Answer::json(&answer, Some(index))
}
