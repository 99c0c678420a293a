//! Search by the beginning of an id, over all kinds of objects (`spec/http-api.md` 8.2). `status <id>` of stock CLIs asks it what an
//! id is.
//!
//! Shape: `{Prefix, Context}` -> ids per context, at most [`IDS_MAX`] of each, and whether there are more. A prefix no UUID begins with
//! leaves contexts of UUIDs out of the answer; contexts this agent has nothing of are empty. It never blocks.
//! **Departure:** of an odd number of digits upstream looks at the first 20 ids without the last digit; here the 20 are those that match.
//! Source: upstream v1.10.0 nomad/search_endpoint.go, search_endpoint_ce.go, command/agent/search_endpoint.go (behaviour only).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::ApiError;
use super::list::{self, Source};
use super::route::{Acl, Family, put};
use super::{Answer, Ask, Cx, namespaces};
use crate::store::Table;
use crate::wire::{go_text, json};

/// The routes.
pub const FAMILY: Family = Family { routes: &[put("/v1/search", Acl::ReadJob, search), put("/v1/search/fuzzy", Acl::ReadJob, fuzzy)] };

/// Ids told of one context.
const IDS_MAX: usize = 20;

/// All contexts, in upstream's order.
const CONTEXTS: &[&str] = &[
    "allocs",
    "jobs",
    "nodes",
    "node_pools",
    "evals",
    "deployment",
    "plugins",
    "volumes",
    "scaling_policy",
    "vars",
    "namespaces",
    "host_volumes",
];

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Body {
    prefix: String,
    context: String,
    namespace: String,
}

/// Upstream's answer; a list without ids is `null`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
    matches: Map<String, Value>,
    truncations: Map<String, Value>,
    index: u64,
    known_leader: bool,
    last_contact: u64,
    next_token: &'static str,
}

fn search(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let body: Body = json::decode(ask.body, cx.budget.json_depth_max).map_err(|why| ApiError::new(400, why.to_string()))?;
    let namespace = match (ask.query.text("namespace"), body.namespace.as_str()) {
        ("", "") => "default",
        ("", namespace) | (namespace, _) => namespace,
    };
    let is_wanted = |context: &&&str| body.context == "all" || body.context == ***context;
    let mut found = Found { matches: Map::new(), truncations: Map::new(), index: 1, known_leader: true, last_contact: 0, next_token: "" };
    for &context in CONTEXTS.iter().filter(is_wanted) {
        found.index = found.index.max(table_of(context).map_or(1, |table| cx.store.table_index(table)));
        // A name cannot begin a UUID: no match and no error.
        let Some((ids, is_truncated)) = matches(cx, context, &body.prefix, namespace)? else { continue };
        found.matches.insert(context.to_owned(), if ids.is_empty() { Value::Null } else { ids.into() });
        found.truncations.insert(context.to_owned(), is_truncated.into());
    }
    if !CONTEXTS.iter().any(|context| is_wanted(&context)) {
        let (all, got) = (CONTEXTS.join(" "), go_text::quote(&body.context));
        return Err(ApiError::new(500, format!("context must be one of [{all}] or 'all' for all contexts; got {got}")));
    }
    let index = found.index;
    let mut answer = Answer::json(&found, Some(index))?;
    answer.head.headers.extend(super::leader_headers());
    Ok(answer)
}

/// The table whose index a context has.
fn table_of(context: &str) -> Option<Table> {
    match context {
        "allocs" => Some(Table::Allocs),
        "evals" => Some(Table::Evals),
        "jobs" => Some(Table::Jobs),
        "nodes" => Some(Table::Nodes),
        "deployment" => Some(Table::Deployments),
        _ => None,
    }
}

/// The first ids of a context, and whether there are more; `None` = the prefix cannot begin any id of it.
fn matches(cx: &Cx<'_>, context: &str, prefix: &str, namespace: &str) -> Result<Option<(Vec<String>, bool)>, ApiError> {
    let view = cx.store.view();
    let first = |names: Vec<String>| {
        let mut names: Vec<String> = names.into_iter().filter(|name| name.starts_with(prefix)).collect();
        let is_truncated = names.len() > IDS_MAX;
        names.truncate(IDS_MAX);
        (names, is_truncated)
    };
    let source = match context {
        "allocs" => Source::alloc_ids(prefix),
        "evals" => Source::eval_ids(prefix),
        "deployment" => Source::deployment_ids(prefix),
        "jobs" => Some(Source::jobs(namespace, prefix)),
        "nodes" => return Ok(list::could_begin_id(prefix).then(|| first(vec![cx.node.vars.id.to_string()]))),
        "namespaces" => return Ok(Some(first(namespaces::names(cx)?))),
        _ => return Ok(Some(first(Vec::new()))),
    };
    source.map(|source| list::ids(&view, source, namespace, IDS_MAX)).transpose()
}

fn fuzzy(_: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    Err(ApiError::new(501, "fuzzy search is not supported by this agent; /v1/search finds what begins with a prefix"))
}
