//! The counts of a job's groups: what is wanted and there, what changed them and why (`spec/http-api.md` 8.2).
//!
//! Bounds: [`scaling::EVENTS_MAX`] events of each group are kept, of [`EVENT_BYTES_MAX`] bytes of text; more is refused.
//! Source of texts and shapes: upstream v1.10.0 command/agent/job_endpoint.go, nomad/job_endpoint.go `Scale`, `ScaleStatus`
//! (behaviour only).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::jobs::{RegisterAnswer, key_of, new_eval};
use super::{Answer, Ask, Cx, body_of, map_or_null, show};
use crate::model::alloc::Allocation;
use crate::model::eval::Trigger;
use crate::model::job::JobKind;
use crate::model::scaling::{self, ScalingEvent};
use crate::sched::version;
use crate::wire::go_text::quote;

/// Text of one event, bytes.
const EVENT_BYTES_MAX: usize = 1 << 10;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Body {
    count: Option<i64>,
    target: Option<BTreeMap<String, String>>,
    message: String,
    error: bool,
    meta: Option<BTreeMap<String, serde_json::Value>>,
    job_modify_index: u64,
}

fn bad(text: impl Into<String>) -> ApiError {
    ApiError::new(400, text.into())
}

/// `PUT /v1/job/:id/scale`: another count of one group, or a remark about it.
pub(super) fn scale(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let (body, _): (Body, _) = body_of(cx, ask.body)?;
    let key = key_of(ask, &ask.query.common()?);
    let target = body.target.unwrap_or_default();
    let of = |name: &str| target.get(name).map_or("", String::as_str);
    if !of("Job").is_empty() && of("Job") != ask.id {
        return Err(bad("job ID in payload did not match URL"));
    }
    if !of("Namespace").is_empty() && of("Namespace") != key.namespace {
        return Err(bad("namespace in payload did not match header"));
    }
    let group_name = of("Group");
    if group_name.is_empty() {
        return Err(bad("missing task group name for scaling action"));
    }
    if body.count.is_some_and(|count| count < 0) {
        return Err(bad("scaling action count can't be negative"));
    }
    if body.count.is_some() && body.error {
        return Err(bad("scaling action should not contain count if error is true"));
    }
    let meta = match &body.meta {
        Some(meta) => serde_json::to_string(meta).map_err(|error| bad(error.to_string()))?,
        None => String::new(),
    };
    if body.message.len() + meta.len() > EVENT_BYTES_MAX {
        return Err(bad(format!("message and meta of a scaling action are limited to {EVENT_BYTES_MAX} bytes together")));
    }
    let unknown = || ApiError::new(404, format!("job {} not found", quote(&key.id)));
    let row = cx.store.view().job(&key)?.ok_or_else(unknown)?;
    let newest = cx.store.view().job_version(&key, row.edition())?.ok_or_else(unknown)?;
    let mut job = show::whole_job(&newest, &row)?;
    if job.kind() == JobKind::System && body.count.is_some_and(|count| count > 1) {
        return Err(bad("jobs of type \"system\" can only be scaled between 0 and 1"));
    }
    let Some(group) = job.task_groups.iter_mut().find(|group| group.name == group_name) else {
        return Err(bad(format!("task group {} specified for scaling does not exist in job", quote(group_name))));
    };
    let previous_n = i64::from(group.count());
    let mut answer = RegisterAnswer { job_modify_index: row.modify_index, ..RegisterAnswer::default() };
    if let Some(count) = body.count {
        if let Some(scaling) = &group.scaling {
            let (min, max) = (scaling.min.unwrap_or(0), scaling.max.unwrap_or(0));
            if count < min {
                return Err(bad(format!("group count was less than scaling policy minimum: {count} < {min}")));
            }
            if count > max {
                return Err(bad(format!("group count was greater than scaling policy maximum: {count} > {max}")));
            }
        }
        let active = cx.store.view().latest_deployment(&key)?.filter(|latest| latest.status.is_active());
        if active.is_some_and(|active| active.edition.create_index == row.create_index) {
            return Err(bad("job scaling blocked due to active deployment"));
        }
        if body.job_modify_index > 0 && body.job_modify_index != row.job_modify_index {
            return Err(ApiError::new(
                500,
                format!(
                    "Enforcing job modify index {}: job exists with conflicting job modify index: {}",
                    body.job_modify_index, row.job_modify_index
                ),
            ));
        }
        if let Some(why) = &cx.no_room {
            return Err(ApiError::new(500, format!("{why}; nothing was changed")));
        }
        group.count = Some(count);
        super::jobs::blank(&mut job);
        let spec = job.to_json().map_err(|error| ApiError::new(500, error.to_string()))?;
        let index = cx.store.next_index();
        let mut row = version::put(cx.store, cx.now, &key, (&job, spec), Some(row), index, cx.budget.job_versions_max)?;
        row.had_eval |= !(row.stub.is_periodic || row.stub.is_parameterized);
        cx.store.put_job(&key, &row);
        answer.job_modify_index = index;
        answer.index = index;
        if !(row.stub.is_periodic || row.stub.is_parameterized) {
            let eval = new_eval(cx, &key, &row, Trigger::JobScaling, index, None);
            cx.store.add_eval(&eval);
            let eval = cx.process(eval)?;
            answer.eval_id = eval.id.to_string();
            answer.eval_create_index = index;
        }
    }
    let index = cx.store.next_index();
    let mut events = cx.store.view().scaling_events(&key)?;
    scaling::push(
        &mut events,
        group_name,
        ScalingEvent {
            at_ns: cx.now.wall.0,
            count: body.count,
            previous_n,
            message: body.message,
            is_error: body.error,
            meta,
            eval: answer.eval_id.clone(),
            create_index: index,
        },
    );
    cx.store.put_scaling_events(&key, &events, index);
    answer.index = index;
    Answer::json(&answer, Some(index))
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct GroupStatus {
    desired: u32,
    placed: u32,
    running: u32,
    healthy: u32,
    unhealthy: u32,
    events: Option<Vec<ShownEvent>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownEvent {
    time: i64,
    count: Option<i64>,
    previous_count: i64,
    message: String,
    error: bool,
    meta: Option<BTreeMap<String, serde_json::Value>>,
    #[serde(rename = "EvalID")]
    eval_id: Option<String>,
    create_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Status<'a> {
    #[serde(rename = "JobID")]
    job_id: &'a str,
    namespace: &'a str,
    job_create_index: u64,
    job_modify_index: u64,
    job_stopped: bool,
    task_groups: BTreeMap<String, GroupStatus>,
}

/// `GET /v1/job/:id/scale`.
pub(super) fn status(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let key = key_of(ask, &ask.query.common()?);
    let unknown = || ApiError::new(404, "job not found");
    let view = cx.store.view();
    let row = view.job(&key)?.ok_or_else(unknown)?;
    let job = show::whole_job(&view.job_version(&key, row.edition())?.ok_or_else(unknown)?, &row)?;
    let events = view.scaling_events(&key)?;
    let mut groups: BTreeMap<String, GroupStatus> = BTreeMap::new();
    for group in &job.task_groups {
        let events = events.iter().find(|(name, _)| *name == group.name).map(|(_, events)| events.iter().rev().map(shown).collect());
        groups.insert(group.name.clone(), GroupStatus { desired: group.count(), events, ..GroupStatus::default() });
    }
    let mut index = row.modify_index.max(events.iter().flat_map(|(_, events)| events).map(|event| event.create_index).max().unwrap_or(0));
    let is_counted =
        |alloc: &Allocation| alloc.job == key && !alloc.is_terminal() && !alloc.health.as_ref().is_some_and(|health| health.is_canary);
    for alloc in view.live_allocs()?.iter().filter(|alloc| is_counted(alloc)) {
        let Some(group) = groups.get_mut(&alloc.group) else { continue };
        group.placed += 1;
        group.running += u32::from(alloc.client_status == dunlin_runtime::event::ClientStatus::Running);
        let health = alloc.health.as_ref().and_then(|health| health.is_healthy);
        group.healthy += u32::from(health == Some(true));
        group.unhealthy += u32::from(health == Some(false));
        index = index.max(alloc.modify_index);
    }
    let status = Status {
        job_id: &key.id,
        namespace: &key.namespace,
        job_create_index: row.create_index,
        job_modify_index: row.modify_index,
        job_stopped: row.is_stopped,
        task_groups: groups,
    };
    Answer::json(&status, Some(index))
}

fn shown(event: &ScalingEvent) -> ShownEvent {
    ShownEvent {
        time: event.at_ns,
        count: event.count,
        previous_count: event.previous_n,
        message: event.message.clone(),
        error: event.is_error,
        meta: serde_json::from_str(&event.meta).ok().and_then(map_or_null),
        eval_id: (!event.eval.is_empty()).then(|| event.eval.clone()),
        create_index: event.create_index,
    }
}
