//! Lists: one machine that reads, filters, pages and encodes rows in bounded steps (`spec/http-api.md` 1.8).
//!
//! Order: (CreateIndex, ID) with tokens `<CreateIndex>.<ID>`; by ID with tokens `<ID>` when a prefix is given or the object is
//! ordered so; jobs by (namespace, ID) with tokens `<namespace>.<ID>`. `X-Nomad-Nexttoken` names the first item of the next page, and
//! an expression that cannot be answered is a 400: so a page or a filtered list is walked once before its head is sent, and is
//! itself sent whole if it was small enough to be kept on the way.
//! Invariant: whatever comes and goes between two pages, or between that walk and the answer, an item that stays is told once.

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

    /// Allocations whose id begins with `prefix`, which may end between two digits of a byte; `None` = no id does.
    #[must_use]
    pub fn alloc_ids(prefix: &str) -> Option<Self> {
        Some(Self { text_prefix: prefix.to_owned(), ..by_prefix(keys::ALLOC_IDS, even(prefix), "alloc").ok()? })
    }

    /// Deployments, as [`Source::alloc_ids`].
    #[must_use]
    pub fn deployment_ids(prefix: &str) -> Option<Self> {
        Some(Self { text_prefix: prefix.to_owned(), ..by_prefix(keys::DEPLOYMENT_IDS, even(prefix), "deployment").ok()? })
    }

    /// Evaluations, as [`Source::alloc_ids`].
    #[must_use]
    pub fn eval_ids(prefix: &str) -> Option<Self> {
        Some(Self { text_prefix: prefix.to_owned(), ..by_prefix(keys::EVAL_IDS, even(prefix), "eval").ok()? })
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
    /// Its name in the table of kinds ([`super::filter`]).
    const KIND: &'static str;
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
    /// Writes all of it, as `filter` may ask for it.
    ///
    /// # Errors
    /// When rows cannot be read.
    fn whole(&self, view: &View<'_>, filter: &mut Filter, out: &mut Vec<u8>) -> Result<(), ApiError>;
}

impl Listed for Allocation {
    const KIND: &'static str = "Allocation";

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

    fn whole(&self, view: &View<'_>, filter: &mut Filter, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let (job, node) = filter.job_of(view, self)?;
        show::alloc_with_job(self, job, node, out)
    }
}

impl Listed for Evaluation {
    const KIND: &'static str = "Evaluation";

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

    fn whole(&self, _: &View<'_>, filter: &mut Filter, out: &mut Vec<u8>) -> Result<(), ApiError> {
        show::eval(self, None, filter.node(), out)
    }
}

impl Listed for Deployment {
    const KIND: &'static str = "Deployment";

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

    fn whole(&self, view: &View<'_>, _: &mut Filter, out: &mut Vec<u8>) -> Result<(), ApiError> {
        super::deployments::write(view, self, out)
    }
}

impl Listed for (JobKey, JobRow) {
    const KIND: &'static str = "Job";

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

    fn whole(&self, view: &View<'_>, _: &mut Filter, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let (key, row) = self;
        let version = view.job_version(key, row.edition())?.ok_or(StoreError::Corrupt { kind: "job version" })?;
        show::job_whole(&version, row, out)
    }
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
    fn rows<T: Listed>(&mut self, view: &View<'_>, keep: &Keep<T>, n: usize) -> Result<(Vec<Item<T>>, bool), ApiError> {
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
            let value = if self.source.holds_objects {
                Some(T::decode(&key, &bytes)?)
            } else {
                let id = keys::last_id(&key).ok_or(StoreError::Corrupt { kind: "index" })?;
                T::load(view, id)?
            };
            self.last = Some(key);
            let Some(value) = value else { continue };
            let (index, id) = value.place();
            if !id.split_once('.').map_or(id.as_str(), |(_, id)| id).starts_with(&self.source.text_prefix) {
                continue;
            }
            let order = |token: &str| {
                let order = token_cmp(token, index, &id, value.namespace(), self.source.by_index);
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
            let in_namespace = self.namespace == "*" || value.namespace() == self.namespace;
            if is_skipped || !in_namespace || !keep(&value) {
                continue;
            }
            if let Some(filter) = &mut self.filter
                && !filter.keeps(view, &value)?
            {
                continue;
            }
            let token = if self.source.by_index { format!("{index}.{id}") } else { id };
            items.push(Item { value, token });
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

struct Listing<T> {
    walk: Walk,
    keep: Keep<T>,
    show: Show<T>,
    /// `None` = the head may be sent: what is told now stays told.
    ahead: Option<Ahead>,
    page_n: Option<usize>,
    waiting: std::collections::VecDeque<Item<T>>,
    is_last: bool,
    has_told: bool,
}

impl<T: Listed> Listing<T> {
    fn new(walk: Walk, per_page: i32, keep: Keep<T>, show: Show<T>) -> Self {
        let page_n = if per_page == 0 { None } else { Some(usize::try_from(per_page).unwrap_or(0)) };
        let is_decided = page_n.is_none() && walk.filter.is_none();
        let ahead = (!is_decided).then(|| Ahead { seen_n: 0, last: String::new(), kept: Some(b"[".to_vec()) });
        Self { walk, keep, show, ahead, page_n, waiting: Default::default(), is_last: false, has_told: false }
    }

    /// One step of the walk before the head: where the page ends, and that all of it can be told. True = that is known.
    fn look(&mut self, view: &View<'_>, ahead: &mut Ahead) -> Result<bool, ApiError> {
        let left_n = self.page_n.map_or(STEP_ROWS, |page_n| page_n.saturating_sub(ahead.seen_n).saturating_add(1));
        let (items, is_end) = self.walk.rows(view, &self.keep, left_n)?;
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
                (self.show)(view, &item.value, kept)?;
            }
            ahead.kept.take_if(|kept| kept.len() > STEP_BYTES);
        }
        Ok(is_end)
    }
}

impl<T: Listed> Rows for Listing<T> {
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
                let (items, is_end) = self.walk.rows(view, &self.keep, STEP_ROWS)?;
                (self.waiting, self.is_last, has_read) = (items.into(), is_end, true);
                continue;
            };
            out.push(if core::mem::replace(&mut self.has_told, true) { b',' } else { b'[' });
            (self.show)(view, &item.value, out)?;
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
pub fn answer<T: Listed + 'static>(
    cx: &Cx<'_>,
    source: Source,
    common: &Common,
    index: u64,
    keep: Keep<T>,
    show: Show<T>,
) -> Result<Answer, ApiError> {
    let mut walk = Walk::new(source, common, Filter::read(common, || cx.node.names())?);
    if walk.filter.is_some() && common.index > 0 {
        // Nobody waits five minutes to be told of a name that was mistyped.
        walk.rows(&cx.store.view(), &keep, STEP_ROWS)?;
        walk.last = None;
    }
    let listing = Listing::new(walk, common.per_page, keep, show);
    Ok(Answer { index: Some(index), ..Answer::new(Head::new(200, JSON), Body::Rows(Box::new(listing))) })
}

/// The first `n` ids of a source, and whether there are more. Beyond [`LOOK_ROWS_MAX`] rows without an answer there may be.
///
/// # Errors
/// When rows cannot be read.
pub fn ids<T: Listed>(view: &View<'_>, source: Source, namespace: &str, n: usize) -> Result<(Vec<String>, bool), ApiError> {
    let mut walk = Walk::new(source, &Common { namespace: namespace.to_owned(), ..Common::default() }, None);
    let keep: Keep<T> = Box::new(|_| true);
    let mut ids = Vec::new();
    for _ in 0..LOOK_ROWS_MAX / STEP_ROWS {
        let (items, is_end) = walk.rows(view, &keep, STEP_ROWS)?;
        for Item { value, token } in items {
            if ids.len() == n {
                return Ok((ids, true));
            }
            ids.push(id_in(value.namespace(), &token).unwrap_or(&token).to_owned());
        }
        if is_end {
            return Ok((ids, false));
        }
    }
    Ok((ids, true))
}

#[cfg(test)]
mod tests;
