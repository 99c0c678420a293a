//! Keys of the one table. The first byte is the kind; the rest orders the rows of a kind.
//!
//! ```text
//! m                                          meta: index, wall clock, boot id, index per table
//! N                                          the node's own row
//! J <namespace> 00 <job id>                  job, changing half          (ids hold no NUL: validation refuses it)
//! V <namespace> 00 <job id> 00 <version be>  one version of a job
//! A <create index be> <alloc id>             allocation, in list order
//! a <alloc id>                               -> create index
//! B <namespace> 00 <job id> 00 <create index be> <alloc id>   allocations of a job, empty value
//! E <create index be> <eval id>              evaluation, in list order
//! e <eval id>                                -> create index
//! F <namespace> 00 <job id> 00 <create index be> <eval id>    evaluations of a job, empty value
//! K <namespace> 00 <job id>                  -> id of the job's blocked evaluation
//! L <alloc id>                               allocations whose tasks have not all ended, empty value
//! O <alloc id>                               outbox
//! ```

use dunlin_runtime::id::{AllocId, EvalId};

use crate::model::alloc::JobKey;

/// The meta row.
pub const META: &[u8] = b"m";
/// The node's row.
pub const NODE: &[u8] = b"N";
/// All allocations in list order.
pub const ALLOCS: &[u8] = b"A";
/// All evaluations in list order.
pub const EVALS: &[u8] = b"E";
/// All jobs in list order.
pub const JOBS: &[u8] = b"J";
/// All allocation ids in order.
pub const ALLOC_IDS: &[u8] = b"a";
/// All evaluation ids in order.
pub const EVAL_IDS: &[u8] = b"e";
/// All allocations whose tasks have not all ended.
pub const LIVE: &[u8] = b"L";
/// All blocked evaluations.
pub const BLOCKED: &[u8] = b"K";
/// The outbox.
pub const OUTBOX: &[u8] = b"O";

fn of_job(kind: u8, job: &JobKey) -> Vec<u8> {
    let mut key = Vec::with_capacity(job.namespace.len() + job.id.len() + 27);
    key.push(kind);
    key.extend_from_slice(job.namespace.as_bytes());
    key.push(0);
    key.extend_from_slice(job.id.as_bytes());
    key
}

fn indexed(kind: u8, create_index: u64, id: [u8; 16]) -> Vec<u8> {
    let mut key = Vec::with_capacity(25);
    key.push(kind);
    key.extend_from_slice(&create_index.to_be_bytes());
    key.extend_from_slice(&id);
    key
}

fn by_id(kind: u8, id: [u8; 16]) -> Vec<u8> {
    let mut key = Vec::with_capacity(17);
    key.push(kind);
    key.extend_from_slice(&id);
    key
}

fn child(kind: u8, job: &JobKey, create_index: u64, id: [u8; 16]) -> Vec<u8> {
    let mut key = children(kind, job);
    key.extend_from_slice(&create_index.to_be_bytes());
    key.extend_from_slice(&id);
    key
}

fn children(kind: u8, job: &JobKey) -> Vec<u8> {
    let mut key = of_job(kind, job);
    key.push(0);
    key
}

/// A job.
#[must_use]
pub fn job(job: &JobKey) -> Vec<u8> {
    of_job(b'J', job)
}

/// One version of a job.
#[must_use]
pub fn job_version(job: &JobKey, version: u64) -> Vec<u8> {
    let mut key = job_versions(job);
    key.extend_from_slice(&version.to_be_bytes());
    key
}

/// All versions of a job.
#[must_use]
pub fn job_versions(job: &JobKey) -> Vec<u8> {
    children(b'V', job)
}

/// An allocation.
#[must_use]
pub fn alloc(create_index: u64, id: AllocId) -> Vec<u8> {
    indexed(b'A', create_index, id.0)
}

/// An allocation by id.
#[must_use]
pub fn alloc_id(id: AllocId) -> Vec<u8> {
    by_id(b'a', id.0)
}

/// An allocation by job.
#[must_use]
pub fn job_alloc(job: &JobKey, create_index: u64, id: AllocId) -> Vec<u8> {
    child(b'B', job, create_index, id.0)
}

/// All allocations of a job.
#[must_use]
pub fn job_allocs(job: &JobKey) -> Vec<u8> {
    children(b'B', job)
}

/// An evaluation.
#[must_use]
pub fn eval(create_index: u64, id: EvalId) -> Vec<u8> {
    indexed(b'E', create_index, id.0)
}

/// An evaluation by id.
#[must_use]
pub fn eval_id(id: EvalId) -> Vec<u8> {
    by_id(b'e', id.0)
}

/// An evaluation by job.
#[must_use]
pub fn job_eval(job: &JobKey, create_index: u64, id: EvalId) -> Vec<u8> {
    child(b'F', job, create_index, id.0)
}

/// All evaluations of a job.
#[must_use]
pub fn job_evals(job: &JobKey) -> Vec<u8> {
    children(b'F', job)
}

/// An allocation whose tasks have not all ended.
#[must_use]
pub fn live(id: AllocId) -> Vec<u8> {
    by_id(b'L', id.0)
}

/// The blocked evaluation of a job.
#[must_use]
pub fn blocked(job: &JobKey) -> Vec<u8> {
    of_job(b'K', job)
}

/// What has to be reported of an allocation.
#[must_use]
pub fn outbox(id: AllocId) -> Vec<u8> {
    by_id(b'O', id.0)
}

/// The last 16 bytes of a key that ends in an id.
#[must_use]
pub fn last_id(key: &[u8]) -> Option<[u8; 16]> {
    key.len().checked_sub(16).and_then(|at| key[at..].try_into().ok())
}

/// Namespace and id of a `J` key.
#[must_use]
pub fn parse_job(key: &[u8]) -> Option<JobKey> {
    let rest = key.strip_prefix(b"J")?;
    let at = rest.iter().position(|&byte| byte == 0)?;
    Some(JobKey { namespace: String::from_utf8(rest[..at].to_vec()).ok()?, id: String::from_utf8(rest[at + 1..].to_vec()).ok()? })
}
