//! Lists: one machine that reads, filters, pages and encodes rows in bounded steps (`spec/http-api.md` 1.8).
//!
//! Order: (CreateIndex, ID) with tokens `<CreateIndex>.<ID>`; by ID with tokens `<ID>` when a prefix is given or the object is
//! ordered so. `X-Nomad-Nexttoken` names the first item of the next page, so a page is walked once before its head is sent.

use dunlin_runtime::id::{AllocId, DeploymentId, EvalId};

use super::body::{Body, Rows};
use super::error::ApiError;
use super::query::Common;
use super::{Answer, Cx};
use crate::model::alloc::{Allocation, JobKey};
use crate::model::deployment::Deployment;
use crate::model::eval::Evaluation;
use crate::store::rows::{self, JobRow};
use crate::store::view::View;
use crate::store::{StoreError, keys};
use crate::wire::http::{Head, JSON};

/// Rows read in one step.
const STEP_ROWS: usize = 32;
/// Bytes encoded in one step.
const STEP_BYTES: usize = 16 << 10;

/// One object of a list, with its place in it.
pub struct Item<T> {
    /// The object.
    pub value: T,
    /// Its token.
    pub token: String,
}

/// Where the rows of a list come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Keys that begin with this.
    range: Vec<u8>,
    /// Rows hold the object itself; else their keys end in its id.
    holds_objects: bool,
    /// Tokens are `<CreateIndex>.<ID>`; else `<ID>`.
    by_index: bool,
    /// Odd digit of an id prefix, checked on the text.
    text_prefix: String,
}

impl Source {
    /// A whole kind in creation order.
    fn all(kind: &[u8]) -> Self {
        Self { range: kind.to_vec(), holds_objects: true, by_index: true, text_prefix: String::new() }
    }

    /// The children of a job in creation order.
    fn of_job(range: Vec<u8>) -> Self {
        Self { range, holds_objects: false, by_index: true, text_prefix: String::new() }
    }

    /// All allocations, or those whose id begins with `prefix`.
    ///
    /// # Errors
    /// 500 for a prefix no id can have.
    pub fn allocs(prefix: &str) -> Result<Self, ApiError> {
        if prefix.is_empty() { Ok(Self::all(keys::ALLOCS)) } else { by_prefix(keys::ALLOC_IDS, prefix, "alloc") }
    }

    /// All evaluations, or those whose id begins with `prefix`.
    ///
    /// # Errors
    /// 500 for a prefix no id can have.
    pub fn evals(prefix: &str) -> Result<Self, ApiError> {
        if prefix.is_empty() { Ok(Self::all(keys::EVALS)) } else { by_prefix(keys::EVAL_IDS, prefix, "eval") }
    }

    /// All deployments, or those whose id begins with `prefix`.
    ///
    /// # Errors
    /// 500 for a prefix no id can have.
    pub fn deployments(prefix: &str) -> Result<Self, ApiError> {
        if prefix.is_empty() { Ok(Self::all(keys::DEPLOYMENTS)) } else { by_prefix(keys::DEPLOYMENT_IDS, prefix, "deployment") }
    }

    /// The deployments of a job.
    #[must_use]
    pub fn job_deployments(job: &JobKey) -> Self {
        Self::of_job(keys::job_deployments(job))
    }

    /// The allocations of a job.
    #[must_use]
    pub fn job_allocs(job: &JobKey) -> Self {
        Self::of_job(keys::job_allocs(job))
    }

    /// The evaluations of a job.
    #[must_use]
    pub fn job_evals(job: &JobKey) -> Self {
        Self::of_job(keys::job_evals(job))
    }

    /// Jobs of one namespace (`*` = all) whose id begins with `prefix`.
    #[must_use]
    pub fn jobs(namespace: &str, prefix: &str) -> Self {
        let mut range = keys::JOBS.to_vec();
        let mut text_prefix = prefix.to_owned();
        if namespace != "*" {
            range.extend_from_slice(namespace.as_bytes());
            range.push(0);
            range.extend_from_slice(prefix.as_bytes());
            text_prefix.clear();
        }
        Self { range, holds_objects: true, by_index: false, text_prefix }
    }
}

/// Parses the beginning of a UUID as upstream's memory index does; the texts are its.
fn by_prefix(kind: &[u8], prefix: &str, what: &str) -> Result<Source, ApiError> {
    let bad = |why: String| ApiError::new(500, format!("{what} lookup failed: index error: {why}"));
    let hyphens_n = prefix.bytes().filter(|&byte| byte == b'-').count();
    if hyphens_n > 4 {
        return Err(bad(format!("UUID should have maximum of 4 \"-\"; got {hyphens_n}")));
    }
    if prefix.chars().count() > 36 {
        return Err(bad(format!("Invalid UUID length. UUID have 36 characters; got {}", prefix.chars().count())));
    }
    let digits: String = prefix.chars().filter(|&c| c != '-').collect();
    if !digits.len().is_multiple_of(2) {
        return Err(bad("Input (without hyphens) must be even length".to_owned()));
    }
    if let Some(c) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(bad(format!("Invalid UUID: encoding/hex: invalid byte: U+{:04X} '{c}'", u32::from(c))));
    }
    let mut range = kind.to_vec();
    for at in (0..digits.len()).step_by(2) {
        range.extend(u8::from_str_radix(&digits[at..at + 2], 16));
    }
    Ok(Source { range, holds_objects: false, by_index: false, text_prefix: String::new() })
}

/// An object lists can hold.
pub trait Listed: Sized {
    /// From a row that holds it.
    ///
    /// # Errors
    /// When the row cannot be decoded.
    fn decode(key: &[u8], bytes: &[u8]) -> Result<Self, StoreError>;
    /// By the id its key ends in.
    ///
    /// # Errors
    /// When the row cannot be read.
    fn load(view: &View<'_>, id: [u8; 16]) -> Result<Option<Self>, StoreError>;
    /// Index at which it was made, and its id.
    fn place(&self) -> (u64, String);
    /// Its namespace.
    fn namespace(&self) -> &str;
}

impl Listed for Allocation {
    fn decode(_: &[u8], bytes: &[u8]) -> Result<Self, StoreError> {
        rows::decode_alloc(bytes)
    }

    fn load(view: &View<'_>, id: [u8; 16]) -> Result<Option<Self>, StoreError> {
        view.alloc(AllocId(id))
    }

    fn place(&self) -> (u64, String) {
        (self.create_index, self.id.to_string())
    }

    fn namespace(&self) -> &str {
        &self.job.namespace
    }
}

impl Listed for Evaluation {
    fn decode(_: &[u8], bytes: &[u8]) -> Result<Self, StoreError> {
        rows::decode_eval(bytes)
    }

    fn load(view: &View<'_>, id: [u8; 16]) -> Result<Option<Self>, StoreError> {
        view.eval(EvalId(id))
    }

    fn place(&self) -> (u64, String) {
        (self.create_index, self.id.to_string())
    }

    fn namespace(&self) -> &str {
        &self.job.namespace
    }
}

impl Listed for Deployment {
    fn decode(_: &[u8], bytes: &[u8]) -> Result<Self, StoreError> {
        rows::decode_deployment(bytes)
    }

    fn load(view: &View<'_>, id: [u8; 16]) -> Result<Option<Self>, StoreError> {
        view.deployment(DeploymentId(id))
    }

    fn place(&self) -> (u64, String) {
        (self.create_index, self.id.to_string())
    }

    fn namespace(&self) -> &str {
        &self.job.namespace
    }
}

impl Listed for (JobKey, JobRow) {
    fn decode(key: &[u8], bytes: &[u8]) -> Result<Self, StoreError> {
        let job = keys::parse_job(key).ok_or(StoreError::Corrupt { kind: "job key" })?;
        Ok((job, rows::decode_job(bytes)?))
    }

    fn load(_: &View<'_>, _: [u8; 16]) -> Result<Option<Self>, StoreError> {
        Ok(None)
    }

    fn place(&self) -> (u64, String) {
        (self.1.create_index, format!("{}.{}", self.0.namespace, self.0.id))
    }

    fn namespace(&self) -> &str {
        &self.0.namespace
    }
}

/// Which objects of the source are in the list.
pub type Keep<T> = Box<dyn Fn(&T) -> bool>;
/// Writes one object.
pub type Show<T> = Box<dyn Fn(&View<'_>, &T, &mut Vec<u8>) -> Result<(), ApiError>>;

/// A position in a source.
struct Walk {
    source: Source,
    is_reverse: bool,
    next_token: String,
    namespace: String,
    last: Option<Vec<u8>>,
}

impl Walk {
    /// Up to `n` further objects that are kept; empty = the end.
    fn page<T: Listed>(&mut self, view: &View<'_>, keep: &Keep<T>, n: usize) -> Result<Vec<Item<T>>, ApiError> {
        let mut items = Vec::new();
        while items.is_empty() {
            let found = if self.is_reverse {
                view.scan_before(&self.source.range, self.last.as_deref(), n)?
            } else {
                view.scan_after(&self.source.range, self.last.as_deref(), n)?
            };
            let Some((last, _)) = found.last() else { break };
            self.last = Some(last.clone());
            for (key, bytes) in &found {
                let value = if self.source.holds_objects {
                    Some(T::decode(key, bytes)?)
                } else {
                    let id = keys::last_id(key).ok_or(StoreError::Corrupt { kind: "index" })?;
                    T::load(view, id)?
                };
                let Some(value) = value else { continue };
                let (index, id) = value.place();
                if !id.split_once('.').map_or(id.as_str(), |(_, id)| id).starts_with(&self.source.text_prefix) {
                    continue;
                }
                let is_before = token_cmp(&self.next_token, index, &id, self.source.by_index);
                let is_skipped = !self.next_token.is_empty() && if self.is_reverse { is_before.is_gt() } else { is_before.is_lt() };
                let in_namespace = self.namespace == "*" || value.namespace() == self.namespace;
                if is_skipped || !in_namespace || !keep(&value) {
                    continue;
                }
                let token = if self.source.by_index { format!("{index}.{id}") } else { id };
                items.push(Item { value, token });
            }
        }
        Ok(items)
    }
}

/// How an object stands to a token: tokens compare by index, then id; one that cannot be parsed compares as text.
fn token_cmp(token: &str, index: u64, id: &str, by_index: bool) -> core::cmp::Ordering {
    match token.split_once('.').and_then(|(number, rest)| Some((number.parse::<u64>().ok()?, rest))) {
        Some((number, rest)) if by_index => (index, id).cmp(&(number, rest)),
        _ if by_index => format!("{index}.{id}").as_str().cmp(token),
        _ => id.cmp(token),
    }
}

struct Listing<T> {
    walk: Walk,
    keep: Keep<T>,
    show: Show<T>,
    left: Option<usize>,
    waiting: std::collections::VecDeque<Item<T>>,
    has_begun: bool,
    is_first: bool,
}

impl<T: Listed> Rows for Listing<T> {
    fn step(&mut self, view: &View<'_>, out: &mut Vec<u8>) -> Result<bool, ApiError> {
        if !self.has_begun {
            out.push(b'[');
            self.has_begun = true;
        }
        while out.len() < STEP_BYTES {
            if self.left == Some(0) {
                break;
            }
            let Some(item) = self.waiting.pop_front() else {
                self.waiting = self.walk.page(view, &self.keep, STEP_ROWS)?.into();
                if self.waiting.is_empty() {
                    self.left = Some(0);
                }
                continue;
            };
            if !core::mem::take(&mut self.is_first) {
                out.push(b',');
            }
            (self.show)(view, &item.value, out)?;
            if let Some(left) = &mut self.left {
                *left -= 1;
            }
        }
        let is_over = self.left == Some(0);
        if is_over {
            out.push(b']');
        }
        Ok(!is_over)
    }
}

/// A list as an answer.
///
/// # Errors
/// When rows cannot be read.
pub fn answer<T: Listed + 'static>(
    cx: &Cx<'_>,
    source: Source,
    common: &Common,
    index: u64,
    keep: Keep<T>,
    show: Show<T>,
) -> Result<Answer, ApiError> {
    common.refuse_filter()?;
    let walk = |source| Walk {
        source,
        is_reverse: common.is_reverse,
        next_token: common.next_token.clone(),
        namespace: common.namespace.clone(),
        last: None,
    };
    let mut head = Head::new(200, JSON);
    let left = match common.per_page {
        0 => None,
        n => Some(usize::try_from(n).unwrap_or(0)),
    };
    if let Some(page_n) = left {
        let view = cx.store.view();
        let mut ahead = walk(source.clone());
        let mut seen_n = 0;
        'pages: loop {
            let items = ahead.page(&view, &keep, STEP_ROWS)?;
            if items.is_empty() {
                break;
            }
            for item in items {
                if seen_n == page_n {
                    head.headers.push(("X-Nomad-Nexttoken", item.token));
                    break 'pages;
                }
                seen_n += 1;
            }
        }
    }
    let listing = Listing { walk: walk(source), keep, show, left, waiting: Default::default(), has_begun: false, is_first: true };
    Ok(Answer { index: Some(index), ..Answer::new(head, Body::Rows(Box::new(listing))) })
}
