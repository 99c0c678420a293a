//! The HTTP API: one file a family of routes, one row a route, one function an operation.
//!
//! Shape: `wire::http::Request` -> [`dispatch`] -> [`Answer`] (a head, a body, the index it is about) or [`ApiError`].
//! An operation reads and writes the store's open batch and asks running tasks through [`Tasks`]; it knows no sockets.
//! Texts, statuses and headers: `spec/http-api.md`.

pub mod agent;
pub mod allocations;
pub mod body;
pub mod children;
pub mod client_alloc;
pub mod client_fs;
pub mod client_stats;
pub mod deployments;
pub mod error;
pub mod evaluations;
pub mod filter;
pub mod jobs;
pub mod list;
pub mod namespaces;
pub mod nodes;
pub mod plan;
pub mod pretty;
pub mod query;
pub mod route;
pub mod scaling;
pub mod search;
pub mod show;
pub mod status;
pub mod system;
pub mod versions;

use std::collections::BTreeMap;

use dunlin_hal::budget::Budget;
use dunlin_hal::clock::Now;
use dunlin_hal::entropy::Rng;
use dunlin_hal::zones::Zones;
use dunlin_runtime::alloc::machine::RestartAsk;
use dunlin_runtime::id::AllocId;
use serde::Serialize;

use self::body::{Body, Reply};
use self::error::ApiError;
use self::query::Query;
use self::route::{Family, Found};
use crate::config::Config;
use crate::model::eval::{EvalStatus, Trigger};
use crate::node::Node;
use crate::sched::place::Site;
use crate::store::{Store, StoreError, Table};
use crate::wire::http::{Head, JSON, Method, Request, TEXT};

/// All families: a new one is one file and one line here.
pub const FAMILIES: &[&Family] = &[
    &agent::FAMILY,
    &allocations::FAMILY,
    &children::FAMILY,
    &client_alloc::FAMILY,
    &client_fs::FAMILY,
    &client_stats::FAMILY,
    &deployments::FAMILY,
    &evaluations::FAMILY,
    &jobs::FAMILY,
    &namespaces::FAMILY,
    &nodes::FAMILY,
    &search::FAMILY,
    &status::FAMILY,
    &system::FAMILY,
];

/// What an operation may use.
pub struct Cx<'a> {
    /// Both clocks.
    pub now: Now,
    /// Rows; what an operation puts is sealed by the core after it.
    pub store: &'a mut Store,
    /// Ids and ports.
    pub rng: &'a mut Rng,
    /// This node.
    pub node: &'a Node,
    /// Its configuration.
    pub config: &'a Config,
    /// Its bounds.
    pub budget: &'a Budget,
    /// The machine's time zones.
    pub zones: &'a dyn Zones,
    /// Ports something else listens on.
    pub busy_ports: &'a [u16],
    /// Why the agent cannot do its work; `None` = it can.
    pub trouble: Option<String>,
    /// Why no job is taken; `None` = they are.
    pub no_room: Option<String>,
    /// The running tasks.
    pub tasks: &'a mut dyn Tasks,
}

impl Cx<'_> {
    /// Runs the scheduler for one evaluation that was just put.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn process(&mut self, eval: crate::model::eval::Evaluation) -> Result<crate::model::eval::Evaluation, StoreError> {
        self.plan(eval).map(|(eval, _)| eval)
    }

    /// Tries all blocked evaluations again. True when one of them is blocked no more.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn process_blocked(&mut self) -> Result<bool, StoreError> {
        let mut has_moved = false;
        for eval in self.store.view().blocked_evals(self.budget.waiters_max)? {
            // One before it may have made room where this one's job was: another waits in its place then.
            let Some(eval) = self.store.view().eval(eval.id)?.filter(|eval| eval.status == EvalStatus::Blocked) else { continue };
            has_moved |= self.process(eval)?.status != EvalStatus::Blocked;
        }
        Ok(has_moved)
    }

    /// As [`Cx::process`]; tells the plan too.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn plan(
        &mut self,
        eval: crate::model::eval::Evaluation,
    ) -> Result<(crate::model::eval::Evaluation, crate::sched::Plan), StoreError> {
        let is_eligible = !self.store.view().node()?.is_some_and(|row| row.is_ineligible);
        let site = Site { busy_ports: self.busy_ports, is_eligible, ..Site::of(self.node, self.budget) };
        let (eval, plan) = crate::sched::process::process(self.store, &site, self.now, self.rng, eval)?;
        // Who made room waits for it now. It goes down the priorities, so it ends.
        for victim in plan.place.iter().flat_map(|placement| &placement.preempts) {
            if let Some(alloc) = self.store.view().alloc(*victim)?
                && let Some(row) = self.store.view().job(&alloc.job)?
            {
                let index = self.store.next_index();
                let waiting = jobs::new_eval(self, &alloc.job, &row, Trigger::Preemption, index, None);
                self.store.add_eval(&waiting);
                self.plan(waiting)?;
            }
        }
        Ok((eval, plan))
    }

    /// A step of a deployment.
    pub fn deploy(&mut self) -> crate::sched::deploy::Turn<'_> {
        crate::sched::deploy::Turn { store: self.store, now: self.now, rng: self.rng, versions_max: self.budget.job_versions_max }
    }
}

/// What operations ask of running tasks. The core implements it over its machines.
pub trait Tasks {
    /// Sends a signal to one task, or with an empty name to all.
    ///
    /// # Errors
    /// With the texts of `spec/runtime.md` 2.3.
    fn signal(&mut self, alloc: AllocId, task: &str, signal: i32, name: &str) -> Result<(), ApiError>;

    /// Restarts tasks in place.
    ///
    /// # Errors
    /// With the texts of `spec/runtime.md` 2.3.
    fn restart(&mut self, alloc: AllocId, ask: RestartAsk<'_>) -> Result<(), ApiError>;

    /// Removes the folders of a finished allocation, then its row's claim on them.
    fn collect(&mut self, alloc: AllocId);

    /// Forgets all that is over, whatever its age, in the turns that follow.
    fn collect_all(&mut self);

    /// Names of the tasks that have a process now.
    fn running(&self, alloc: AllocId) -> Vec<String>;
}

/// What an operation gives back.
#[derive(Debug)]
pub struct Answer {
    /// Status and headers; meta headers are added by [`dispatch`].
    pub head: Head,
    /// What follows.
    pub body: Body,
    /// Index the answer is about: `X-Nomad-Index` and the blocking rule. `None` = the route has none.
    pub index: Option<u64>,
    /// See [`Reply::stream_of`].
    pub stream_of: Option<AllocId>,
}

impl Answer {
    /// A JSON document.
    ///
    /// # Errors
    /// 500 when the value cannot be written, which no value of ours is.
    pub fn json<T: Serialize + ?Sized>(value: &T, index: Option<u64>) -> Result<Self, ApiError> {
        let bytes = serde_json::to_vec(value).map_err(|error| ApiError::new(500, error.to_string()))?;
        Ok(Self { index, ..Self::new(Head::new(200, JSON), Body::Full(bytes)) })
    }

    /// A success without a body: the official client insists on zero bytes (`spec/http-api.md` 1.1).
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Head { status: 200, headers: Vec::new() }, Body::Full(Vec::new()))
    }

    /// An answer with this head and body, about nothing that has an index.
    #[must_use]
    pub fn new(head: Head, body: Body) -> Self {
        Self { head, body, index: None, stream_of: None }
    }

    /// An answer that decides its own head.
    #[must_use]
    pub fn machine(machine: Box<dyn body::Machine>) -> Self {
        Self::new(Head::default(), Body::Machine(machine))
    }
}

/// One request as an operation sees it.
pub struct Ask<'a> {
    /// Method.
    pub method: Method,
    /// What the route's pattern captured, percent-decoded.
    pub id: &'a str,
    /// The query, decoded.
    pub query: &'a Query,
    /// The body.
    pub body: &'a [u8],
}

impl Ask<'_> {
    /// The captured allocation id, for routes that act on this node's files and processes.
    ///
    /// # Errors
    /// 404 in the words of the client routes.
    pub fn client_alloc(&self) -> Result<AllocId, ApiError> {
        AllocId::parse(self.id).ok_or_else(|| unknown_alloc(self.id))
    }
}

/// A JSON body, and the keys in it that nobody reads.
///
/// # Errors
/// 400 when it is absent or cannot be read.
pub(crate) fn body_of<T: serde::de::DeserializeOwned>(cx: &Cx<'_>, body: &[u8]) -> Result<(T, Vec<String>), ApiError> {
    if body.is_empty() {
        return Err(ApiError::new(400, "Request body is empty"));
    }
    let mut unknown = Vec::new();
    let value = crate::wire::json::decode_noting(body, cx.budget.json_depth_max, &mut unknown)
        .map_err(|error| ApiError::new(400, error.to_string()))?;
    Ok((value, unknown))
}

/// 404 of the client routes.
#[must_use]
pub fn unknown_alloc(id: &str) -> ApiError {
    ApiError::new(404, format!("Unknown allocation {}", crate::wire::go_text::quote(id)))
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::new(500, error.to_string())
    }
}

/// What the core does with a request.
#[derive(Debug)]
pub enum Outcome {
    /// Answer it once what it wrote is durable.
    Reply(Reply),
    /// Ask again when one of these tables has changed, or at the end of the wait.
    Block {
        /// How long the client is willing to wait, ms, jitter included.
        wait_ms: u64,
        /// The answer as of now, for the end of the wait.
        table: Table,
    },
}

/// Answers one request. `may_block` is false at the end of a blocking query's wait.
pub fn dispatch(cx: &mut Cx<'_>, request: &Request, may_block: bool) -> Outcome {
    let found = match route::find(FAMILIES, request.method, &request.path) {
        Ok(found) => found,
        Err(error) => return Outcome::Reply(refusal(error, Vec::new())),
    };
    let cors = if found.route.has_cors { cors(request) } else { Vec::new() };
    if found.route.has_cors && request.method == Method::Options {
        return Outcome::Reply(Reply { head: Head { status: 200, headers: cors }, body: Body::Full(Vec::new()), stream_of: None });
    }
    match run(cx, request, &found, may_block) {
        Ok(Outcome::Reply(mut reply)) => {
            reply.head.headers.extend(cors);
            Outcome::Reply(reply)
        }
        Ok(blocked) => blocked,
        Err(error) => Outcome::Reply(refusal(error, cors)),
    }
}

/// What lets pages of other origins read an answer (`spec/http-api.md` 1.1). A preflight is told what it may ask for.
fn cors(request: &Request) -> Vec<(&'static str, String)> {
    let mut headers = vec![("Vary", "Origin".to_owned())];
    if !request.origin.is_empty() && matches!(request.method, Method::Get | Method::Head | Method::Options) {
        headers.push(("Access-Control-Allow-Origin", "*".to_owned()));
        headers.push(("Access-Control-Allow-Credentials", "true".to_owned()));
    }
    if !request.origin.is_empty() && request.method == Method::Options {
        headers.push(("Access-Control-Allow-Methods", "GET, HEAD".to_owned()));
        headers.push(("Access-Control-Allow-Headers", "Authorization, X-Nomad-Token".to_owned()));
    }
    headers
}

/// An error as a reply.
#[must_use]
pub fn refusal(error: ApiError, headers: Vec<(&'static str, String)>) -> Reply {
    // Upstream says nothing about what is not there.
    let mut head = if error.text.is_empty() { Head { status: error.status, headers: Vec::new() } } else { Head::new(error.status, TEXT) };
    head.headers.extend(headers);
    Reply::new(head, Body::Full(error.text.into_bytes()))
}

fn run(cx: &mut Cx<'_>, request: &Request, found: &Found, may_block: bool) -> Result<Outcome, ApiError> {
    let Found { route, id } = found;
    let query = Query::parse(&request.query)?;
    let common = query.common()?;
    if !common.region.is_empty() && common.region != cx.config.region {
        return Err(ApiError::new(500, "No path to region"));
    }
    let ask = Ask { method: request.method, id, query: &query, body: &request.body };
    let mut answer = match (route.run)(cx, &ask) {
        Ok(answer) => answer,
        // The 404 of a read is about the table: it carries the meta headers, and a blocking query waits for the object.
        Err(error) if error.status == 404 && route.table.is_some() => {
            let index = route.table.map(|table| cx.store.table_index(table));
            Answer { index, ..Answer::new(Head::new(404, TEXT), Body::Full(error.text.into_bytes())) }
        }
        Err(error) => return Err(error),
    };
    if let (Some(table), Some(index)) = (route.table, answer.index) {
        if may_block && common.index > 0 && index <= common.index {
            let wait_ms = common.wait_ms.saturating_add(cx.rng.below(common.wait_ms / 16 + 1));
            return Ok(Outcome::Block { wait_ms, table });
        }
        answer.head.headers.push(("X-Nomad-Index", index.to_string()));
        answer.head.headers.extend(leader_headers());
    } else if let Some(index) = answer.index {
        answer.head.headers.push(("X-Nomad-Index", index.to_string()));
    }
    // Files are shown by their own rules: what streams is no document.
    let is_document = answer.stream_of.is_none()
        && (matches!(answer.body, Body::Machine(_)) || answer.head.headers.contains(&("Content-Type", JSON.to_owned())));
    if is_document && query.get("pretty").is_some_and(|pretty| pretty != "0") {
        answer.body = pretty::body(answer.body);
    }
    Ok(Outcome::Reply(Reply { head: answer.head, body: answer.body, stream_of: answer.stream_of }))
}

/// What reads of objects say beside their index: a standalone node is its own leader.
fn leader_headers() -> [(&'static str, String); 3] {
    [("X-Nomad-Lastcontact", "0"), ("X-Nomad-Knownleader", "true"), ("X-Nomad-Edge-Mode", "standalone")]
        .map(|(name, value)| (name, value.to_owned()))
}

/// A map whose absence is shown as `null`.
pub(crate) fn map_or_null<K: Ord, V>(map: BTreeMap<K, V>) -> Option<BTreeMap<K, V>> {
    (!map.is_empty()).then_some(map)
}

#[cfg(test)]
mod tests;
