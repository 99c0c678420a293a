//! From what the user typed to one object: identifiers may be shortened, and a short one must name exactly one object.
//!
//! Lists by prefix and compares; never guesses. Errors tell what was typed, and for an ambiguous prefix list what it could mean.
//! Identifiers are unique across namespaces, so when none was given all are searched; job names are not, so there the default
//! namespace counts, as upstream. Source: `spec/http-api.md` 1.8; upstream v1.10.5 command/meta.go (behaviour only).

use serde_json::Value;

use super::answer::{Answer as _, items};
use super::client::CallError;
use super::table::quoted;
use super::{Cx, Failure, alloc, job};

/// Lowest number of characters of a shortened identifier; the API lists by whole bytes.
const PREFIX_LEN_MIN: usize = 2;

/// A job by its name and namespace.
pub(super) struct JobName {
    pub(super) id: String,
    pub(super) namespace: String,
}

/// The objects of `route` whose identifier starts with `typed`, by identifier; `noun` names them in errors.
pub(super) fn all(cx: &Cx<'_>, route: &str, noun: &str, typed: &str) -> Result<Vec<Value>, Failure> {
    let prefix = typed.trim_end_matches('-').to_ascii_lowercase();
    let digits = prefix.chars().filter(|c| *c != '-').count();
    if !is_id_prefix(&prefix) {
        return Err(Failure::new(format!(
            "{} is no {noun} ID: expected {PREFIX_LEN_MIN} or more of its hexadecimal digits",
            quoted(typed)
        )));
    }
    let even = prefix.get(..prefix.len() - digits % 2).unwrap_or(&prefix);
    let namespace = if cx.client.namespace.is_empty() { "*" } else { &cx.client.namespace };
    let doing = format!("looking for {noun} {}", quoted(typed));
    let list = cx.client.get(route, &[("prefix", even), ("namespace", namespace)]).map_err(Failure::call(&doing))?;
    let plain = |id: &str| id.replace('-', "");
    let wanted = plain(&prefix);
    Ok(items(&list).iter().filter(|item| plain(item.text("ID")).starts_with(&wanted)).cloned().collect())
}

/// True when `text` can be the start of an identifier.
pub(super) fn is_id_prefix(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    digits >= PREFIX_LEN_MIN && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') && text.len() - digits <= 4
}

/// The one object of `route` that `typed` names; `listing` shows what an ambiguous prefix could mean.
pub(super) fn one(cx: &Cx<'_>, route: &str, noun: &str, typed: &str, listing: impl FnOnce(&[Value]) -> String) -> Result<Value, Failure> {
    let found = all(cx, route, noun, typed)?;
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Failure::new(format!("No {noun} with prefix or ID {} found", quoted(typed)))),
        many => Err(Failure::new(format!("Prefix {} matched multiple {noun}s\n\n{}", quoted(typed), listing(many)))),
    }
}

/// The full allocation that `typed` names.
pub(super) fn allocation(cx: &Cx<'_>, typed: &str) -> Result<Value, Failure> {
    let stub = one(cx, "/v1/allocations", "allocation", typed, |found| alloc::listing(cx, found))?;
    let path = super::client::path(&["allocation", stub.text("ID")]);
    cx.client.get(&path, &[("namespace", stub.text("Namespace"))]).map_err(Failure::call("reading the allocation"))
}

/// The job that `typed` names: exactly, or as the only one with that prefix.
pub(super) fn job(cx: &Cx<'_>, typed: &str) -> Result<JobName, Failure> {
    job_of_kind(cx, typed, "job", |_| true)
}

/// As [`job()`], of the jobs `is_kind` holds for; `noun` names them in errors.
pub(super) fn job_of_kind(cx: &Cx<'_>, typed: &str, noun: &str, is_kind: fn(&Value) -> bool) -> Result<JobName, Failure> {
    let list = match cx.client.get("/v1/jobs", &[("prefix", typed)]) {
        Ok(list) => list,
        // A token may read one job without being allowed to list them.
        Err(CallError::Status { code: 403, .. }) => {
            return Ok(JobName { id: typed.to_owned(), namespace: cx.client.namespace.clone() });
        }
        Err(error) => return Err(Failure::call("looking for the job")(error)),
    };
    let mut found: Vec<Value> = items(&list).iter().filter(|job| is_kind(job)).cloned().collect();
    if let Some(exact) = found.iter().position(|job| job.text("ID") == typed) {
        found = vec![found.swap_remove(exact)];
    }
    match found.as_slice() {
        [only] => Ok(JobName { id: only.text("ID").to_owned(), namespace: only.text("Namespace").to_owned() }),
        [] => Err(Failure::new(format!("No {noun} with prefix or ID {} found", quoted(typed)))),
        many => Err(Failure::new(format!(
            "Prefix {} matched multiple {noun}s\n\n{}",
            quoted(typed),
            job::listing(many, cx.client.all_namespaces())
        ))),
    }
}
