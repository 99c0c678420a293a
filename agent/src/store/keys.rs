//! Keys of the one table. The first byte is the kind; the rest orders the rows of a kind.
//!
//! ```text
//! m                                          meta: index, wall clock, boot id, index per table
//! N                                          the node's own row
//! J <namespace> 00 <job id>                  job, changing half          (ids hold no NUL: validation refuses it)
//! V <namespace> 00 <job id> 00 <job create index be> <version be>   one version of one life of a job
//! U <namespace> 00 <job id> 00 <job create index be> <version be> <alloc id>   allocations of a version, empty value
//! A <create index be> <alloc id>             allocation, in list order
//! a <alloc id>                               -> create index
//! B <namespace> 00 <job id> 00 <create index be> <alloc id>   allocations of a job, empty value
//! E <create index be> <eval id>              evaluation, in list order
//! e <eval id>                                -> create index
//! F <namespace> 00 <job id> 00 <create index be> <eval id>    evaluations of a job, empty value
//! K <namespace> 00 <job id>                  -> id of the job's blocked evaluation
//! W <eval id>                                evaluations that wait for their time, empty value
//! D <create index be> <deployment id>        deployment, in list order
//! d <deployment id>                          -> create index
//! G <namespace> 00 <job id> 00 <create index be> <deployment id>   deployments of a job, empty value
//! Y <namespace> 00 <job id>                  what changed the counts of the job's groups
//! L <alloc id>                               allocations whose tasks have not all ended, empty value
//! O <alloc id>                               outbox
//! ```

use dunlin_runtime::id::{AllocId, DeploymentId, EvalId};

use crate::model::alloc::{Edition, JobKey};

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
/// All evaluations that wait for their time.
pub const DELAYED: &[u8] = b"W";
/// All deployments in list order.
pub const DEPLOYMENTS: &[u8] = b"D";
/// All deployment ids in order.
pub const DEPLOYMENT_IDS: &[u8] = b"d";
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

fn of_edition(kind: u8, job: &JobKey, Edition { create_index, version }: Edition) -> Vec<u8> {
    let mut key = children(kind, job);
    key.extend_from_slice(&create_index.to_be_bytes());
    key.extend_from_slice(&version.to_be_bytes());
    key
}

/// A job.
#[must_use]
pub fn job(job: &JobKey) -> Vec<u8> {
    of_job(b'J', job)
}

/// One version of a job.
#[must_use]
pub fn job_version(job: &JobKey, edition: Edition) -> Vec<u8> {
    of_edition(b'V', job, edition)
}

/// All versions of one life of a job.
#[must_use]
pub fn job_versions(job: &JobKey, create_index: u64) -> Vec<u8> {
    let mut key = children(b'V', job);
    key.extend_from_slice(&create_index.to_be_bytes());
    key
}

/// An allocation by the version it runs.
#[must_use]
pub fn edition_alloc(job: &JobKey, edition: Edition, id: AllocId) -> Vec<u8> {
    let mut key = edition_allocs(job, edition);
    key.extend_from_slice(&id.0);
    key
}

/// All allocations of a version.
#[must_use]
pub fn edition_allocs(job: &JobKey, edition: Edition) -> Vec<u8> {
    of_edition(b'U', job, edition)
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

/// What changed the counts of a job's groups.
#[must_use]
pub fn scaling(job: &JobKey) -> Vec<u8> {
    of_job(b'Y', job)
}

/// The blocked evaluation of a job.
#[must_use]
pub fn blocked(job: &JobKey) -> Vec<u8> {
    of_job(b'K', job)
}

/// An evaluation that waits for its time.
#[must_use]
pub fn delayed(id: EvalId) -> Vec<u8> {
    by_id(b'W', id.0)
}

/// A deployment.
#[must_use]
pub fn deployment(create_index: u64, id: DeploymentId) -> Vec<u8> {
    indexed(b'D', create_index, id.0)
}

/// A deployment by id.
#[must_use]
pub fn deployment_id(id: DeploymentId) -> Vec<u8> {
    by_id(b'd', id.0)
}

/// A deployment by job.
#[must_use]
pub fn job_deployment(job: &JobKey, create_index: u64, id: DeploymentId) -> Vec<u8> {
    child(b'G', job, create_index, id.0)
}

/// All deployments of a job.
#[must_use]
pub fn job_deployments(job: &JobKey) -> Vec<u8> {
    children(b'G', job)
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
