//! Allocations as objects: list, read, stop (`spec/http-api.md` 2).

use dunlin_runtime::id::{AllocId, EvalId};
use serde::Serialize;

use super::error::ApiError;
use super::list::{self, Source};
use super::route::{Acl, Family, Route, get, put, read};
use super::{Answer, Ask, Cx, show};
use crate::model::alloc::{Allocation, Owner};
use crate::model::eval::{Evaluation, Trigger};
use crate::store::Table;
use crate::store::view::View;

/// The routes.
pub const FAMILY: Family = Family {
    routes: &[
        read("/v1/allocations", Acl::ReadJob, Table::Allocs, list),
        read("/v1/allocation/{id}", Acl::ReadJob, Table::Allocs, info),
        put("/v1/allocation/{id}/stop", Acl::AllocLifecycle, stop),
        get("/v1/allocation/{id}/services", Acl::ReadJob, services),
        Route { methods: &[], ..get("/v1/allocation/{id..}", Acl::None, not_found) },
    ],
};

fn not_found(_: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    Err(ApiError::new(404, "resource not found"))
}

fn list(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let common = ask.query.common()?;
    let has_resources = ask.query.flag("resources", false)?;
    let has_states = ask.query.flag("task_states", true)?;
    let source = Source::allocs(&common.prefix)?;
    let index = cx.store.table_index(Table::Allocs);
    let node = cx.node.names();
    let show = move |_: &View<'_>, alloc: &Allocation, out: &mut Vec<u8>| show::alloc_stub(alloc, &node, has_states, has_resources, out);
    list::answer(cx, source, &common, index, Box::new(|_| true), Box::new(show))
}

/// The allocation of a full id in upstream's words.
fn by_full_id(cx: &Cx<'_>, id: &str, missing: &str) -> Result<Allocation, ApiError> {
    if id.chars().count() != 36 {
        return Err(ApiError::new(500, "alloc lookup failed: index error: UUID must be 36 characters"));
    }
    let found = match AllocId::parse(id) {
        Some(id) => cx.store.view().alloc(id)?,
        None => None,
    };
    found.ok_or_else(|| ApiError::new(404, missing))
}

fn info(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let alloc = by_full_id(cx, ask.id, "alloc not found")?;
    let mut bytes = Vec::new();
    show::alloc_whole(&cx.store.view(), &alloc, &cx.node.names(), &mut bytes)?;
    let mut answer = Answer::json(&(), Some(alloc.modify_index))?;
    answer.body = super::body::Body::Full(bytes);
    Ok(answer)
}

fn services(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    by_full_id(cx, ask.id, "allocation not found")?;
    Answer::json::<[(); 0]>(&[], None)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Stopped {
    #[serde(rename = "EvalID")]
    eval_id: String,
    index: u64,
}

fn stop(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let no_shutdown_delay = ask.query.flag("no_shutdown_delay", false)?;
    ask.query.flag("reschedule", false)?;
    let mut alloc = by_full_id(cx, ask.id, "allocation not found")?;
    if alloc.owner == Owner::Upstream {
        return Err(ApiError::new(501, "this allocation belongs to the servers; stop it there"));
    }
    let index = cx.store.next_index();
    alloc.wants_migrate = true;
    alloc.no_shutdown_delay |= no_shutdown_delay;
    alloc.modify_index = index;
    alloc.alloc_modify_index = index;
    alloc.modify_at = cx.now.wall;
    cx.store.put_alloc(&alloc);
    let row = cx.store.view().job(&alloc.job)?.unwrap_or_default();
    let eval = Evaluation {
        job: alloc.job.clone(),
        job_type: alloc.job_type,
        priority: if row.stub.priority == 0 { 50 } else { row.stub.priority },
        trigger: Trigger::AllocStop,
        job_modify_index: row.job_modify_index,
        ..Evaluation::made(EvalId(cx.rng.uuid()), index, cx.now.wall)
    };
    cx.store.add_eval(&eval);
    let eval = cx.process(eval)?;
    Answer::json(&Stopped { eval_id: eval.id.to_string(), index }, Some(index))
}
