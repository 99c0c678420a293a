//! Versions of a job: made by registrations, stops and rollbacks, dropped when nobody needs them (`spec/jobs.md` 5).
//!
//! Shape: a job's rows before and a spec -> rows put into the open batch.   Errors: rows that cannot be read.

use dunlin_hal::clock::Now;

use crate::model::alloc::{Edition, JobKey};
use crate::model::job::{Job, JobKind};
use crate::model::summary;
use crate::store::rows::{JobRow, JobStatus, JobStub, JobVersion};
use crate::store::{Store, StoreError};

impl JobRow {
    /// Its newest version.
    #[must_use]
    pub fn edition(&self) -> Edition {
        Edition { create_index: self.create_index, version: self.version }
    }
}

/// Puts `spec`, which is `job` as text, as the job's next version. Gives the job's row, which the caller puts.
///
/// # Errors
/// When rows cannot be read.
pub fn put(
    store: &mut Store,
    now: Now,
    key: &JobKey,
    (job, spec): (&Job, String),
    known: Option<JobRow>,
    index: u64,
    versions_max: usize,
) -> Result<JobRow, StoreError> {
    let stub = JobStub {
        name: job.name().to_owned(),
        kind: job.kind(),
        priority: u8::try_from(job.priority()).unwrap_or(50),
        datacenters: job.datacenters.clone(),
        parent_id: job.parent_id.clone(),
        is_periodic: job.is_periodic(),
        is_parameterized: job.is_parameterized(),
        submit_at: now.wall,
        dispatch_token: job.dispatch_idempotency_token.clone(),
    };
    let mut row = match known {
        Some(row) => JobRow { version: row.version + 1, spent: Vec::new(), ..row },
        None => JobRow { create_index: index, ..JobRow::default() },
    };
    row.is_stopped = false;
    row.status =
        if stub.is_periodic || stub.is_parameterized || stub.kind == JobKind::System { JobStatus::Running } else { JobStatus::Pending };
    row.modify_index = index;
    row.job_modify_index = index;
    row.summary_modify_index = index;
    row.stub = stub;
    for group in &job.task_groups {
        summary::entry(&mut row.summary, &group.name);
    }
    let version =
        JobVersion { version: row.version, is_stable: false, is_stopped: false, job_modify_index: index, submit_at: now.wall, spec };
    store.put_job_version(key, row.create_index, &version);
    drop_old(store, key, &row, versions_max)?;
    Ok(row)
}

/// Puts the version that a stop makes: the spec of the last one, wanted nowhere.
///
/// # Errors
/// When rows cannot be read.
pub fn put_stop(store: &mut Store, key: &JobKey, row: &mut JobRow, index: u64, versions_max: usize) -> Result<(), StoreError> {
    if let Some(last) = store.view().job_version(key, row.edition())? {
        row.version += 1;
        let stopped = JobVersion { version: row.version, is_stopped: true, job_modify_index: index, ..last };
        store.put_job_version(key, row.create_index, &stopped);
        drop_old(store, key, row, versions_max)?;
    }
    row.is_stopped = true;
    row.modify_index = index;
    row.job_modify_index = index;
    Ok(())
}

/// Keeps the newest versions, the newest stable one, and those that allocations run.
fn drop_old(store: &mut Store, key: &JobKey, row: &JobRow, versions_max: usize) -> Result<(), StoreError> {
    let all = store.view().job_versions(key, row.create_index, usize::MAX)?;
    let stable = all.iter().find(|version| version.is_stable && !version.is_stopped).map(|version| version.version);
    for old in all.iter().skip(versions_max) {
        let edition = Edition { create_index: row.create_index, version: old.version };
        if Some(old.version) != stable && !store.view().is_edition_used(key, edition)? {
            store.remove_job_version(key, edition);
        }
    }
    Ok(())
}

/// Forgets a job and those of its versions that no allocation runs.
///
/// # Errors
/// When rows cannot be read.
pub fn purge(store: &mut Store, key: &JobKey, row: &JobRow) -> Result<(), StoreError> {
    store.remove_job(key);
    for version in store.view().job_versions(key, row.create_index, usize::MAX)? {
        let edition = Edition { create_index: row.create_index, version: version.version };
        if !store.view().is_edition_used(key, edition)? {
            store.remove_job_version(key, edition);
        }
    }
    Ok(())
}

/// The newest stable version of a job, if it has one.
///
/// # Errors
/// When rows cannot be read.
pub fn stable(store: &Store, key: &JobKey, row: &JobRow) -> Result<Option<JobVersion>, StoreError> {
    let all = store.view().job_versions(key, row.create_index, usize::MAX)?;
    Ok(all.into_iter().find(|version| version.is_stable && !version.is_stopped))
}

/// Marks a version as stable or not; true when it was not so before. The index of the change is for the job's row to take.
///
/// # Errors
/// When rows cannot be read.
pub fn mark_stable(store: &mut Store, key: &JobKey, edition: Edition, is_stable: bool) -> Result<bool, StoreError> {
    let Some(mut version) = store.view().job_version(key, edition)?.filter(|version| version.is_stable != is_stable) else {
        return Ok(false);
    };
    version.is_stable = is_stable;
    store.put_job_version(key, edition.create_index, &version);
    Ok(true)
}
