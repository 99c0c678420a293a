//! Deployments: none are made yet (`spec/jobs.md` 8), and the routes say so in the shapes clients read.

use super::error::ApiError;
use super::route::{Acl, Family, read};
use super::{Answer, Ask, Cx};
use crate::store::Table;

/// The routes.
pub const FAMILY: Family = Family {
    routes: &[read("/v1/deployments", Acl::ReadJob, Table::Jobs, list), read("/v1/deployment/{id}", Acl::ReadJob, Table::Jobs, info)],
};

fn list(cx: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    Answer::json::<[(); 0]>(&[], Some(cx.store.table_index(Table::Jobs)))
}

fn info(_: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    Err(ApiError::new(404, "deployment not found"))
}

/// `GET /v1/job/:id/deployments`.
pub fn of_job(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    list(cx, ask)
}

/// `GET /v1/job/:id/deployment`: the literal `null` when there is none.
pub fn latest_of_job(cx: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    Answer::json(&(), Some(cx.store.table_index(Table::Jobs)))
}
