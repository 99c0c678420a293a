//! Lists: one machine that reads, filters, pages and encodes rows in bounded steps (`spec/http-api.md` 1.8).
//!
//! Order: (CreateIndex, ID) with tokens `<CreateIndex>.<ID>`; by ID with tokens `<ID>` when a prefix is given or the object is
//! ordered so; jobs by (namespace, ID) with tokens `<namespace>.<ID>`. `X-Nomad-Nexttoken` names the first item of the next page, and
//! an expression that cannot be answered is a 400: so a page or a filtered list is walked once before its head is sent, and is
//! itself sent whole if it was small enough to be kept on the way.
//! Invariant: whatever comes and goes between two pages, or between that walk and the answer, an item that stays is told once.

use std::any::Any;

use dunlin_runtime::id::{AllocId, DeploymentId, EvalId};

use super::body::{Body, Rows};
use super::error::ApiError;
use super::filter::Filter;
use super::query::Common;
use super::{Answer, Cx, show};
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
/// Rows looked at for an answer that is given in one turn.
const LOOK_ROWS_MAX: usize = 2048;

/// One object of a list, with its place in it.
struct Item {
    object: Box<dyn Listed>,
    token: String,
}

/// The object of a row; `None` = it is gone.
type Read = fn(&View<'_>, &[u8], &[u8]) -> Result<Option<Box<dyn Listed>>, StoreError>;

/// Where the rows of a list come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// Keys that begin with this.
    range: Vec<u8>,
    read: Read,
    /// Tokens are `<CreateIndex>.<ID>`; else `<ID>`.
    by_index: bool,
    /// Odd digit of an id prefix, checked on the text.
    text_prefix: String,
}

impl Source {
    fn new(range: Vec<u8>, read: Read, by_index: bool) -> Self {
        Self { range, read, by_index, text_prefix: String::new() }
    }

    /// All allocations, or those whose id begins with `prefix`.
    ///
    /// # Errors
    /// 500 for a prefix no id can have.
    pub fn allocs(prefix: &str) -> Result<Self, ApiError> {
        Self::all_or(prefix, "alloc", (keys::ALLOCS, stored_alloc), (keys::ALLOC_IDS, alloc_by_id))
    }

    /// All evaluations, or those whose id begins with `prefix`.
    ///
    /// # Errors
    /// 500 for a prefix no id can have.
    pub fn evals(prefix: &str) -> Result<Self, ApiError> {
        Self::all_or(prefix, "eval", (keys::EVALS, stored_eval), (keys::EVAL_IDS, eval_by_id))
    }

    /// All deployments, or those whose id begins with `prefix`.
    ///
    /// # Errors
    /// 500 for a prefix no id can have.
    pub fn deployments(prefix: &str) -> Result<Self, ApiError> {
        Self::all_or(prefix, "deployment", (keys::DEPLOYMENTS, stored_deployment), (keys::DEPLOYMENT_IDS, deployment_by_id))
    }

    /// In creation order, or by id.
    fn all_or(prefix: &str, what: &str, all: (&[u8], Read), ids: (&[u8], Read)) -> Result<Self, ApiError> {
        if prefix.is_empty() {
            return Ok(Self::new(all.0.to_vec(), all.1, true));
        }
        Ok(Self::new(by_prefix(ids.0, prefix, what)?, ids.1, false))
    }

    /// Allocations whose id begins with `prefix`, which may end between two digits of a byte; `None` = no id does.
    #[must_use]
    pub fn alloc_ids(prefix: &str) -> Option<Self> {
        Self::ids(prefix, keys::ALLOC_IDS, alloc_by_id)
    }

    /// Evaluations, as [`Source::alloc_ids`].
    #[must_use]
    pub fn eval_ids(prefix: &str) -> Option<Self> {
        Self::ids(prefix, keys::EVAL_IDS, eval_by_id)
    }

    /// Deployments, as [`Source::alloc_ids`].
    #[must_use]
    pub fn deployment_ids(prefix: &str) -> Option<Self> {
        Self::ids(prefix, keys::DEPLOYMENT_IDS, deployment_by_id)
    }

    fn ids(prefix: &str, kind: &[u8], read: Read) -> Option<Self> {
        let range = by_prefix(kind, even(prefix), "").ok()?;
        Some(Self { text_prefix: prefix.to_owned(), ..Self::new(range, read, false) })
    }

    /// The deployments of a job.
    #[must_use]
    pub fn job_deployments(job: &JobKey) -> Self {
        Self::new(keys::job_deployments(job), deployment_by_id, true)
    }

    /// The allocations of a job.
    #[must_use]
    pub fn job_allocs(job: &JobKey) -> Self {
        Self::new(keys::job_allocs(job), alloc_by_id, true)
    }

    /// The evaluations of a job.
    #[must_use]
    pub fn job_evals(job: &JobKey) -> Self {
        Self::new(keys::job_evals(job), eval_by_id, true)
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
        Self { text_prefix, ..Self::new(range, stored_job, false) }
    }
}

/// Without the last digit where that is half a byte.
fn even(prefix: &str) -> &str {
    let digits_n = prefix.len() - prefix.matches('-').count();
    let mut rest = prefix.chars();
    if !digits_n.is_multiple_of(2) {
        rest.next_back();
    }
    rest.as_str()
}

/// True when upstream would look for a UUID that begins so.
#[must_use]
pub fn could_begin_id(prefix: &str) -> bool {
    Source::alloc_ids(prefix).is_some()
}

/// The keys of a UUID that begins so, which is read as upstream's memory index reads it; the texts are its.
fn by_prefix(kind: &[u8], prefix: &str, what: &str) -> Result<Vec<u8>, ApiError> {
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
    Ok(range)
}

/// An object lists can hold.
pub trait Listed: Any {
    /// Its name in the table of kinds ([`super::filter`]).
    fn kind(&self) -> &'static str;
    /// Index at which it was made, and its id.
    fn place(&self) -> (u64, String);
    /// Its namespace.
    fn namespace(&self) -> &str;
    /// Writes all of it, as `filter` may ask for it.
    ///
    /// # Errors
    /// When rows cannot be read.
    fn whole(&self, view: &View<'_>, filter: &mut Filter, out: &mut Vec<u8>) -> Result<(), ApiError>;
}

fn stored_alloc(_: &View<'_>, _: &[u8], bytes: &[u8]) -> Result<Option<Box<dyn Listed>>, StoreError> {
    Ok(Some(Box::new(rows::decode_alloc(bytes)?)))
}

fn alloc_by_id(view: &View<'_>, key: &[u8], _: &[u8]) -> Result<Option<Box<dyn Listed>>, StoreError> {
    Ok(boxed(view.alloc(AllocId(id_of(key)?))?))
}

impl Listed for Allocation {
    fn kind(&self) -> &'static str {
        "Allocation"
    }

    fn place(&self) -> (u64, String) {
        (self.create_index, self.id.to_string())
    }

    fn namespace(&self) -> &str {
        &self.job.namespace
    }

    fn whole(&self, view: &View<'_>, filter: &mut Filter, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let (job, node) = filter.job_of(view, self)?;
        show::alloc_with_job(self, job, node, out)
    }
}

fn stored_eval(_: &View<'_>, _: &[u8], bytes: &[u8]) -> Result<Option<Box<dyn Listed>>, StoreError> {
    Ok(Some(Box::new(rows::decode_eval(bytes)?)))
}

fn eval_by_id(view: &View<'_>, key: &[u8], _: &[u8]) -> Result<Option<Box<dyn Listed>>, StoreError> {
    Ok(boxed(view.eval(EvalId(id_of(key)?))?))
}

impl Listed for Evaluation {
    fn kind(&self) -> &'static str {
        "Evaluation"
    }

    fn place(&self) -> (u64, String) {
        (self.create_index, self.id.to_string())
    }

    fn namespace(&self) -> &str {
        &self.job.namespace
    }

    fn whole(&self, _: &View<'_>, filter: &mut Filter, out: &mut Vec<u8>) -> Result<(), ApiError> {
        show::eval(self, None, filter.node(), out)
    }
}

fn stored_deployment(_: &View<'_>, _: &[u8], bytes: &[u8]) -> Result<Option<Box<dyn Listed>>, StoreError> {
    Ok(Some(Box::new(rows::decode_deployment(bytes)?)))
}

fn deployment_by_id(view: &View<'_>, key: &[u8], _: &[u8]) -> Result<Option<Box<dyn Listed>>, StoreError> {
    Ok(boxed(view.deployment(DeploymentId(id_of(key)?))?))
}

impl Listed for Deployment {
    fn kind(&self) -> &'static str {
        "Deployment"
    }

    fn place(&self) -> (u64, String) {
        (self.create_index, self.id.to_string())
    }

    fn namespace(&self) -> &str {
        &self.job.namespace
    }

    fn whole(&self, view: &View<'_>, _: &mut Filter, out: &mut Vec<u8>) -> Result<(), ApiError> {
        super::deployments::write(view, self, out)
    }
}

fn stored_job(_: &View<'_>, key: &[u8], bytes: &[u8]) -> Result<Option<Box<dyn Listed>>, StoreError> {
    let job = keys::parse_job(key).ok_or(StoreError::Corrupt { kind: "job key" })?;
    Ok(Some(Box::new((job, rows::decode_job(bytes)?))))
}

impl Listed for (JobKey, JobRow) {
    fn kind(&self) -> &'static str {
        "Job"
    }

    fn place(&self) -> (u64, String) {
        (self.1.create_index, format!("{}.{}", self.0.namespace, self.0.id))
    }

    fn namespace(&self) -> &str {
        &self.0.namespace
    }

    fn whole(&self, view: &View<'_>, _: &mut Filter, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let (key, row) = self;
        let version = view.job_version(key, row.edition())?.ok_or(StoreError::Corrupt { kind: "job version" })?;
        show::job_whole(&version, row, out)
    }
}

fn boxed<T: Listed>(object: Option<T>) -> Option<Box<dyn Listed>> {
    object.map(|object| -> Box<dyn Listed> { Box::new(object) })
}

/// The id a key ends in.
fn id_of(key: &[u8]) -> Result<[u8; 16], StoreError> {
    keys::last_id(key).ok_or(StoreError::Corrupt { kind: "index" })
}

/// The object as what the caller of [`answer`] knows its source to hold.
fn known<T: Listed>(object: &dyn Listed) -> Option<&T> {
    (object as &dyn Any).downcast_ref()
}

/// Which objects of the source are in the list.
pub type Keep<T> = Box<dyn Fn(&T) -> bool>;
/// Writes one object.
pub type Show<T> = Box<dyn Fn(&View<'_>, &T, &mut Vec<u8>) -> Result<(), ApiError>>;

/// Where a page ends. Not a number of items: with one that comes meanwhile another would be pushed out, and never told.
enum End {
    /// Behind the item of this token: there is nothing more.
    Behind(String),
    /// Before it: it is the first of the next page.
    Before(String),
}

/// A position in a source.
struct Walk {
    source: Source,
    is_reverse: bool,
    namespace: String,
    filter: Option<Filter>,
    /// Token of the first item; empty = the first of all.
    from: String,
    /// The end, once it is known.
    end: Option<End>,
    last: Option<Vec<u8>>,
}

impl Walk {
    fn new(source: Source, common: &Common, filter: Option<Filter>) -> Self {
        Self {
            source,
            is_reverse: common.is_reverse,
            namespace: common.namespace.clone(),
            filter,
            from: common.next_token.clone(),
            end: None,
            last: None,
        }
    }

    /// The items among the next rows, up to `n`; true = these were the last ones. What stands behind the last item is not looked at.
    fn rows(&mut self, view: &View<'_>, keep: &dyn Fn(&dyn Listed) -> bool, n: usize) -> Result<(Vec<Item>, bool), ApiError> {
        let found = if self.is_reverse {
            view.scan_before(&self.source.range, self.last.as_deref(), STEP_ROWS)?
        } else {
            view.scan_after(&self.source.range, self.last.as_deref(), STEP_ROWS)?
        };
        let (mut items, is_end) = (Vec::new(), found.is_empty());
        for (key, bytes) in found {
            if items.len() == n {
                break;
            }
            let object = (self.source.read)(view, &key, &bytes)?;
            self.last = Some(key);
            let Some(object) = object else { continue };
            let (index, id) = object.place();
            let namespace = object.namespace();
            if !id_in(namespace, &id).unwrap_or(&id).starts_with(&self.source.text_prefix) {
                continue;
            }
            let order = |token: &str| {
                let order = token_cmp(token, index, &id, namespace, self.source.by_index);
                if self.is_reverse { order.reverse() } else { order }
            };
            let is_over = self.end.as_ref().is_some_and(|end| match end {
                End::Behind(last) => order(last).is_gt(),
                End::Before(next) => order(next).is_ge(),
            });
            if is_over {
                return Ok((items, true));
            }
            let is_skipped = !self.from.is_empty() && order(&self.from).is_lt();
            let in_namespace = self.namespace == "*" || namespace == self.namespace;
            if is_skipped || !in_namespace || !keep(&*object) {
                continue;
            }
            if let Some(filter) = &mut self.filter
                && !filter.keeps(view, &*object)?
            {
                continue;
            }
            let token = if self.source.by_index { format!("{index}.{id}") } else { id };
            items.push(Item { object, token });
        }
        Ok((items, is_end))
    }
}

/// How an object stands to a token: by index, then id; jobs by namespace, then id. A token that cannot be parsed compares as text.
fn token_cmp(token: &str, index: u64, id: &str, namespace: &str, by_index: bool) -> core::cmp::Ordering {
    let parts = token.split_once('.');
    match parts.map(|(number, rest)| (number.parse::<u64>(), rest)) {
        Some((Ok(number), rest)) if by_index => return (index, id).cmp(&(number, rest)),
        _ if by_index => return format!("{index}.{id}").as_str().cmp(token),
        _ => {}
    }
    // Not as one text: a dash comes before a dot, and namespace `a-b` would stand before `a`.
    match (id_in(namespace, id), id_in(namespace, token), parts) {
        (Some(id), Some(token), _) => id.cmp(token),
        (Some(_), None, Some((other, _))) => namespace.cmp(other),
        _ => id.cmp(token),
    }
}

/// What follows `<namespace>.`.
fn id_in<'t>(namespace: &str, token: &'t str) -> Option<&'t str> {
    token.strip_prefix(namespace)?.strip_prefix('.')
}

/// What has been seen of a list before its head is sent.
struct Ahead {
    seen_n: usize,
    last: String,
    /// Its items as they will be shown; `None` = they are too many to be kept.
    kept: Option<Vec<u8>>,
}

struct Listing {
    walk: Walk,
    keep: Keep<dyn Listed>,
    show: Show<dyn Listed>,
    /// `None` = the head may be sent: what is told now stays told.
    ahead: Option<Ahead>,
    page_n: Option<usize>,
    waiting: std::collections::VecDeque<Item>,
    is_last: bool,
    has_told: bool,
}

impl Listing {
    fn new<T: Listed>(walk: Walk, per_page: i32, keep: Keep<T>, show: Show<T>) -> Self {
        let keep = Box::new(move |object: &dyn Listed| known(object).is_some_and(&keep));
        let show = Box::new(move |view: &View<'_>, object: &dyn Listed, out: &mut Vec<u8>| match known(object) {
            Some(object) => show(view, object, out),
            None => Ok(()),
        });
        let page_n = if per_page == 0 { None } else { Some(usize::try_from(per_page).unwrap_or(0)) };
        let is_decided = page_n.is_none() && walk.filter.is_none();
        let ahead = (!is_decided).then(|| Ahead { seen_n: 0, last: String::new(), kept: Some(b"[".to_vec()) });
        Self { walk, keep, show, ahead, page_n, waiting: Default::default(), is_last: false, has_told: false }
    }

    /// Nobody waits five minutes to be told of a name that was mistyped: the first rows are asked before a query may wait.
    fn probe(&mut self, view: &View<'_>) -> Result<(), ApiError> {
        if self.walk.filter.is_some() {
            self.walk.rows(view, &*self.keep, STEP_ROWS)?;
            self.walk.last = None;
        }
        Ok(())
    }

    /// One step of the walk before the head: where the page ends, and that all of it can be told. True = that is known.
    fn look(&mut self, view: &View<'_>, ahead: &mut Ahead) -> Result<bool, ApiError> {
        let left_n = self.page_n.map_or(STEP_ROWS, |page_n| page_n.saturating_sub(ahead.seen_n).saturating_add(1));
        let (items, is_end) = self.walk.rows(view, &*self.keep, left_n)?;
        for item in items {
            if self.page_n == Some(ahead.seen_n) {
                self.walk.end = Some(End::Before(item.token));
                return Ok(true);
            }
            ahead.seen_n += 1;
            ahead.last = item.token;
            if let Some(kept) = &mut ahead.kept {
                if kept.len() > 1 {
                    kept.push(b',');
                }
                (self.show)(view, &*item.object, kept)?;
            }
            ahead.kept.take_if(|kept| kept.len() > STEP_BYTES);
        }
        Ok(is_end)
    }
}

impl Rows for Listing {
    fn step(&mut self, view: &View<'_>, out: &mut Vec<u8>) -> Result<bool, ApiError> {
        if let Some(mut ahead) = self.ahead.take() {
            if !self.look(view, &mut ahead)? {
                self.ahead = Some(ahead);
                return Ok(true);
            }
            if let Some(mut kept) = ahead.kept {
                kept.push(b']');
                out.append(&mut kept);
                return Ok(false);
            }
            // Too much to be kept: from the start again, to the end that is known now.
            self.walk.last = None;
            self.walk.end.get_or_insert(End::Behind(ahead.last));
        }
        let (mut has_read, full) = (false, out.len() + STEP_BYTES);
        while out.len() < full {
            let Some(item) = self.waiting.pop_front() else {
                // One read a step: others have their turn, also where nothing is kept of what was read.
                if self.is_last || has_read {
                    break;
                }
                let (items, is_end) = self.walk.rows(view, &*self.keep, STEP_ROWS)?;
                (self.waiting, self.is_last, has_read) = (items.into(), is_end, true);
                continue;
            };
            out.push(if core::mem::replace(&mut self.has_told, true) { b',' } else { b'[' });
            (self.show)(view, &*item.object, out)?;
        }
        let is_over = self.is_last && self.waiting.is_empty();
        if is_over {
            out.extend_from_slice(if self.has_told { b"]" } else { b"[]" });
        }
        Ok(!is_over)
    }

    fn headers(&mut self) -> Vec<(&'static str, String)> {
        match &self.walk.end {
            Some(End::Before(next)) => vec![("X-Nomad-Nexttoken", next.clone())],
            _ => Vec::new(),
        }
    }
}

/// A list as an answer.
///
/// # Errors
/// When rows cannot be read; 400 for a filter that is none, and, if the query may wait, for one that the first rows do not answer.
pub fn answer<T: Listed>(
    cx: &Cx<'_>,
    source: Source,
    common: &Common,
    index: u64,
    keep: Keep<T>,
    show: Show<T>,
) -> Result<Answer, ApiError> {
    let walk = Walk::new(source, common, Filter::read(common, || cx.node.names())?);
    let mut listing = Listing::new(walk, common.per_page, keep, show);
    if common.index > 0 {
        listing.probe(&cx.store.view())?;
    }
    Ok(Answer { index: Some(index), ..Answer::new(Head::new(200, JSON), Body::Rows(Box::new(listing))) })
}

/// The first `n` ids of a source, and whether there are more. Beyond [`LOOK_ROWS_MAX`] rows without an answer there may be.
///
/// # Errors
/// When rows cannot be read.
pub fn ids(view: &View<'_>, source: Source, namespace: &str, n: usize) -> Result<(Vec<String>, bool), ApiError> {
    let mut walk = Walk::new(source, &Common { namespace: namespace.to_owned(), ..Common::default() }, None);
    let mut ids = Vec::new();
    for _ in 0..LOOK_ROWS_MAX / STEP_ROWS {
        let (items, is_end) = walk.rows(view, &|_| true, STEP_ROWS)?;
        for Item { object, token } in items {
            if ids.len() == n {
                return Ok((ids, true));
            }
            ids.push(id_in(object.namespace(), &token).unwrap_or(&token).to_owned());
        }
        if is_end {
            return Ok((ids, false));
        }
    }
    Ok((ids, true))
}

#[cfg(test)]
mod tests;
