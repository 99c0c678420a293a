//! Versions of a job: going back to one, and saying that one is stable (`spec/http-api.md` 8.2).
//!
//! Source of texts: upstream v1.10.0 command/agent/job_endpoint.go, nomad/job_endpoint.go (behaviour only).

use serde::Deserialize;

use super::error::ApiError;
use super::jobs::{key_of, submit};
use super::{Answer, Ask, Cx, body_of, show};
use crate::model::alloc::{Edition, JobKey};
use crate::sched::version;
use crate::store::rows::{JobRow, JobVersion};
use crate::wire::go_text::quote;

/// The body of both.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Body {
    #[serde(rename = "JobID")]
    job_id: String,
    job_version: u64,
    enforce_prior_version: Option<u64>,
    stable: bool,
}

fn body(cx: &Cx<'_>, ask: &Ask<'_>) -> Result<Body, ApiError> {
    let (body, _): (Body, _) = body_of(cx, ask.body)?;
    if body.job_id.is_empty() {
        return Err(ApiError::new(400, "JobID must be specified"));
    }
    if body.job_id != ask.id {
        return Err(ApiError::new(400, "Job ID does not match"));
    }
    Ok(body)
}

fn known(cx: &Cx<'_>, key: &JobKey, row: &JobRow, version: u64) -> Result<JobVersion, ApiError> {
    let edition = Edition { create_index: row.create_index, version };
    let unknown =
        || ApiError::new(500, format!("job {} in namespace {} at version {version} not found", quote(&key.id), quote(&key.namespace)));
    cx.store.view().job_version(key, edition)?.ok_or_else(unknown)
}

/// `PUT /v1/job/:id/revert`: registers an older version again, as the newest.
pub(super) fn revert(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let body = body(cx, ask)?;
    let key = key_of(ask, &ask.query.common()?);
    let Some(row) = cx.store.view().job(&key)? else {
        return Err(ApiError::new(500, format!("job {} not found", quote(&key.id))));
    };
    if body.job_version == row.version {
        return Err(ApiError::new(500, "can't revert to current version"));
    }
    let old = known(cx, &key, &row, body.job_version)?;
    let mut enforced = None;
    if let Some(prior) = body.enforce_prior_version {
        if prior != row.version {
            return Err(ApiError::new(500, format!("Current job has version {}; enforcing version {prior}", row.version)));
        }
        enforced = Some(row.job_modify_index);
    }
    let job = show::whole_job(&old, &row)?;
    let answer = submit(cx, job, &[], enforced, false, None)?;
    let index = Some(answer.index);
    Answer::json(&answer, index)
}

/// `PUT /v1/job/:id/stable`.
pub(super) fn mark_stable(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let body = body(cx, ask)?;
    let key = key_of(ask, &ask.query.common()?);
    let unknown = || {
        ApiError::new(
            500,
            format!("job {} in namespace {} at version {} not found", quote(&key.id), quote(&key.namespace), body.job_version),
        )
    };
    let mut row = cx.store.view().job(&key)?.ok_or_else(unknown)?;
    known(cx, &key, &row, body.job_version)?;
    let index = cx.store.next_index();
    let edition = Edition { create_index: row.create_index, version: body.job_version };
    if version::mark_stable(cx.store, &key, edition, body.stable)? && edition == row.edition() {
        row.modify_index = index;
        cx.store.put_job(&key, &row);
    }
    Answer::json(&serde_json::json!({ "Index": index }), Some(index))
}
