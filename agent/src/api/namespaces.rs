//! Namespaces: those a standalone node knows without being told (`spec/http-api.md` 8.2, 9.2).

use serde::Serialize;

use super::error::ApiError;
use super::route::{Acl, Family, read};
use super::{Answer, Ask, Cx};
use crate::store::Table;

/// The routes.
pub const FAMILY: Family =
    Family { routes: &[read("/v1/namespaces", Acl::None, Table::Jobs, list), read("/v1/namespace/{id}", Acl::None, Table::Jobs, info)] };

/// Hash upstream shows for its default namespace.
const DEFAULT_HASH: &str = "C7UbjDwBK0dK8wQq7Izg7SJIzaV+lIo2X7wRtzY3pSw=";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Namespace {
    name: String,
    description: &'static str,
    quota: &'static str,
    capabilities: (),
    meta: (),
    hash: &'static str,
    create_index: u64,
    modify_index: u64,
}

fn namespace(name: &str) -> Namespace {
    let (description, hash) = match name {
        "default" => ("Default shared namespace", DEFAULT_HASH),
        "local" => ("Jobs of this device alone", ""),
        _ => ("", ""),
    };
    Namespace { name: name.to_owned(), description, quota: "", capabilities: (), meta: (), hash, create_index: 1, modify_index: 1 }
}

/// `default`, `local` and those that jobs name, in order.
pub(super) fn names(cx: &Cx<'_>) -> Result<Vec<String>, ApiError> {
    let mut names = vec!["default".to_owned(), "local".to_owned()];
    let mut from = crate::store::keys::JOBS.to_vec();
    // One row per namespace is read: the next look starts behind all jobs of the last.
    while let Some((key, _)) = cx.store.view().scan_after(crate::store::keys::JOBS, Some(&from), 1)?.pop() {
        let Some(job) = crate::store::keys::parse_job(&key) else { break };
        from = [crate::store::keys::JOBS, job.namespace.as_bytes(), &[1]].concat();
        if !names.contains(&job.namespace) {
            names.push(job.namespace);
        }
    }
    names.sort();
    Ok(names)
}

fn list(cx: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    let all: Vec<_> = names(cx)?.iter().map(|name| namespace(name)).collect();
    Answer::json(&all, Some(1))
}

fn info(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let known = names(cx)?.iter().any(|name| name == ask.id);
    if !known {
        return Err(ApiError::new(404, "Namespace not found"));
    }
    Answer::json(&namespace(ask.id), Some(1))
}
