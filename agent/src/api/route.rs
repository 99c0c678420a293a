//! The route table: rows, and how a path finds its row.
//!
//! A pattern is literal text with at most one capture: `{id}` takes one segment, `{id..}` takes all that is left before the
//! literal tail, because job ids may hold slashes: sub-resources are matched by suffix, the longest known one first.
//! Paths are percent-decoded before matching (`spec/http-api.md` 1.1).

use super::error::ApiError;
use super::{Answer, Ask, Cx};
use crate::store::Table;
use crate::wire::http::Method;

/// Routes that belong together.
pub struct Family {
    /// A row per route.
    pub routes: &'static [Route],
}

/// What a token must allow; checked once ACLs exist, printed with the table until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acl {
    /// Nothing.
    None,
    /// `list-jobs` in the namespace.
    ListJobs,
    /// `read-job`.
    ReadJob,
    /// `submit-job`.
    SubmitJob,
    /// `dispatch-job`.
    DispatchJob,
    /// `alloc-lifecycle`.
    AllocLifecycle,
    /// `read-fs`.
    ReadFs,
    /// `read-fs` or `read-logs`.
    ReadLogs,
    /// `node:read`.
    NodeRead,
    /// `node:write`.
    NodeWrite,
    /// `agent:read`.
    AgentRead,
    /// `agent:write`.
    AgentWrite,
    /// A management token.
    Management,
}

/// One row.
pub struct Route {
    /// Methods it answers; others get 405 `Invalid method`. Empty = any.
    pub methods: &'static [Method],
    /// See the module.
    pub pattern: &'static str,
    /// What a token must allow.
    pub acl: Acl,
    /// The table a blocking query waits on; also: the answer carries the meta headers.
    pub table: Option<Table>,
    /// Browsers of other origins may read it.
    pub has_cors: bool,
    /// The operation.
    pub run: fn(&mut Cx<'_>, &Ask<'_>) -> Result<Answer, ApiError>,
}

type Run = fn(&mut Cx<'_>, &Ask<'_>) -> Result<Answer, ApiError>;

/// A read of objects: blocking, with meta headers.
#[must_use]
pub const fn read(pattern: &'static str, acl: Acl, table: Table, run: Run) -> Route {
    Route { methods: &[Method::Get], pattern, acl, table: Some(table), has_cors: false, run }
}

/// A read of the agent itself.
#[must_use]
pub const fn get(pattern: &'static str, acl: Acl, run: Run) -> Route {
    Route { methods: &[Method::Get], pattern, acl, table: None, has_cors: false, run }
}

/// A write by PUT or POST.
#[must_use]
pub const fn put(pattern: &'static str, acl: Acl, run: Run) -> Route {
    Route { methods: &[Method::Put, Method::Post], pattern, acl, table: None, has_cors: false, run }
}

/// A removal.
#[must_use]
pub const fn delete(pattern: &'static str, acl: Acl, run: Run) -> Route {
    Route { methods: &[Method::Delete], pattern, acl, table: None, has_cors: false, run }
}

/// A client route: any method, readable from other origins.
#[must_use]
pub const fn client(pattern: &'static str, acl: Acl, run: Run) -> Route {
    Route { methods: &[], pattern, acl, table: None, has_cors: true, run }
}

/// A client route for PUT and POST only.
#[must_use]
pub const fn client_put(pattern: &'static str, acl: Acl, run: Run) -> Route {
    Route { methods: &[Method::Put, Method::Post], pattern, acl, table: None, has_cors: true, run }
}

/// A row and what its pattern captured.
pub struct Found {
    /// The row.
    pub route: &'static Route,
    /// The captured text; empty when the pattern has no capture.
    pub id: String,
}

/// How well a pattern matches; the greater wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// By a greedy capture with this many literal bytes.
    Greedy(usize),
    /// By a capture of one segment with this many literal bytes.
    Segment(usize),
    /// To the letter.
    Exact,
}

fn fit<'p>(pattern: &str, path: &'p str) -> Option<(Fit, &'p str)> {
    let Some((head, rest)) = pattern.split_once('{') else {
        return (pattern == path).then_some((Fit::Exact, ""));
    };
    let (name, tail) = rest.split_once('}')?;
    let id = path.strip_prefix(head)?.strip_suffix(tail)?;
    let literal_n = head.len() + tail.len();
    if name.ends_with("..") {
        (!id.is_empty()).then_some((Fit::Greedy(literal_n), id))
    } else {
        (!id.contains('/')).then_some((Fit::Segment(literal_n), id))
    }
}

/// True for the row's methods; and for a browser's question whether it may use them.
fn answers(route: &Route, method: Method) -> bool {
    route.methods.is_empty() || route.methods.contains(&method) || route.has_cors && method == Method::Options
}

/// Finds the row for a method and a raw path.
///
/// # Errors
/// 404 with an empty body for an unknown path, 405 `Invalid method` for a known one, 400 for a path that cannot be decoded.
pub fn find(families: &[&'static Family], method: Method, raw_path: &str) -> Result<Found, ApiError> {
    let path = super::query::percent_decode(raw_path, false)
        .ok_or_else(|| ApiError::new(400, format!("invalid path {raw_path:?}: not percent-encoded UTF-8")))?;
    let mut best: Option<(Fit, &'static Route, &str)> = None;
    let mut is_known = false;
    for route in families.iter().flat_map(|family| family.routes) {
        let Some((fit, id)) = fit(route.pattern, &path) else { continue };
        let answers = answers(route, method);
        match best {
            // A path belongs to its best pattern, whatever the method: `PUT /v1/job/a/summary` is not a registration of `a/summary`.
            Some((known, _, _)) if known > fit => {}
            Some((known, _, _)) if known == fit => {
                is_known = true;
                if answers {
                    best = Some((fit, route, id));
                }
            }
            _ => {
                is_known = true;
                best = Some((fit, route, id));
            }
        }
    }
    match best {
        Some((_, route, id)) if answers(route, method) => Ok(Found { route, id: id.to_owned() }),
        _ if is_known => Err(ApiError::new(405, "Invalid method")),
        _ => Err(ApiError::new(404, "")),
    }
}

/// The table as text, one row a line: what `tests/conformance/golden/routes.txt` holds.
#[must_use]
pub fn table_text(families: &[&'static Family]) -> String {
    let mut lines: Vec<String> = families
        .iter()
        .flat_map(|family| family.routes)
        .map(|route| {
            let methods: Vec<String> = route.methods.iter().map(|method| format!("{method:?}").to_uppercase()).collect();
            let methods = if methods.is_empty() { "ANY".to_owned() } else { methods.join("|") };
            let table = route.table.map_or_else(|| "-".to_owned(), |table| format!("{table:?}"));
            format!("{} {methods} {:?} {table}", route.pattern, route.acl)
        })
        .collect();
    lines.sort();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path, want) in [
            ("/v1/jobs", "/v1/jobs", Some("")),
            ("/v1/jobs", "/v1/jobs/", None),
            ("/v1/job/{id..}/plan", "/v1/job/a/b/plan", Some("a/b")),
            ("/v1/job/{id..}", "/v1/job/a/b/plan", Some("a/b/plan")),
            ("/v1/job/{id..}/plan", "/v1/job//plan", None),
            ("/v1/allocation/{id}", "/v1/allocation/x/y", None),
            ("/v1/allocation/{id}/stop", "/v1/allocation/x/stop", Some("x")),
        ] {
            assert_eq!(fit(pattern, path).map(|(_, id)| id), want, "{pattern} {path}");
        }
        assert!(fit("/v1/job/{id..}/plan", "/v1/job/a/plan") > fit("/v1/job/{id..}", "/v1/job/a/plan"));
    }
}
