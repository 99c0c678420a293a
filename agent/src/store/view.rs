//! Reads: durable rows under the rows that are not durable yet. One view per turn, never kept.
//!
//! Shape: keys and ranges -> rows, decoded. Every scan has a bound on the rows it returns.
//! Errors: [`StoreError`]; a row that cannot be decoded is an error, never a default.

use std::cell::RefCell;
use std::ops::Bound;

use dunlin_runtime::id::{AllocId, DeploymentId, EvalId};
use redb::{ReadOnlyTable, ReadableDatabase};

use super::backend::TABLE;
use super::rows::{self, JobRow, JobVersion, NodeRow};
use super::{Store, StoreError, keys};
use crate::model::alloc::{Allocation, Edition, JobKey};
use crate::model::deployment::Deployment;
use crate::model::eval::Evaluation;
use crate::model::scaling::ScalingEvents;

/// A key and its row.
type Row = (Vec<u8>, Vec<u8>);
/// Rows with their keys.
pub type Found = Vec<Row>;
/// The one table, as read.
type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The state as of this turn.
pub struct View<'s> {
    store: &'s Store,
    /// Opened at the first read, with the number of its handle. `None` inside: nothing was ever committed.
    table: RefCell<Option<(u64, Option<Rows>)>>,
}

/// First key after all keys with this prefix; `None` when there is no end.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

impl<'s> View<'s> {
    pub(super) fn new(store: &'s Store) -> Self {
        Self { store, table: RefCell::new(None) }
    }

    /// Reads from the table. An error of the disk ends a handle, and the store thread replaces it: then the reading is done again.
    fn read<T>(&self, mut act: impl FnMut(Option<&Rows>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        loop {
            let opened = self.table.take().map_or_else(|| self.open(), Ok);
            let (seen_n, result) = match opened {
                Ok((seen_n, rows)) => {
                    let result = act(rows.as_ref());
                    self.table.replace(Some((seen_n, rows)));
                    (Some(seen_n), result)
                }
                Err((seen_n, error)) => (seen_n, Err(error)),
            };
            match (result, seen_n) {
                (Err(StoreError::Io { .. }), Some(seen_n)) if self.store.backend.was_reopened(seen_n) => {
                    self.table.take();
                }
                (result, _) => return result,
            }
        }
    }

    /// The table as it is now; an error with the number of the handle that made it, or `None` when there is no handle.
    fn open(&self) -> Result<(u64, Option<Rows>), (Option<u64>, StoreError)> {
        let backend = &self.store.backend;
        let guard = backend.database();
        let Some(database) = guard.as_ref() else {
            return Err((None, StoreError::Io { text: "the database is closed after an error".to_owned() }));
        };
        let seen_n = backend.reopened_n();
        let opened = database.begin_read().map_err(StoreError::from).and_then(|read| match read.open_table(TABLE) {
            Ok(table) => Ok(Some(table)),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        });
        opened.map(|rows| (seen_n, rows)).map_err(|error| (Some(seen_n), error))
    }

    /// The row of a key.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        if let Some(value) = self.store.pending(key) {
            return Ok(value.map(<[u8]>::to_vec));
        }
        self.read(|table| {
            let Some(table) = table else { return Ok(None) };
            Ok(table.get(key)?.map(|guard| guard.value().to_vec()))
        })
    }

    /// True when the key has a row; false also when the database cannot be read.
    #[must_use]
    pub fn has(&self, key: &[u8]) -> bool {
        matches!(self.get(key), Ok(Some(_)))
    }

    /// Up to `n` rows with `prefix`, ascending, after the key `after` (or from the first).
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn scan_after(&self, prefix: &[u8], after: Option<&[u8]>, n: usize) -> Result<Found, StoreError> {
        let end = prefix_end(prefix);
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.merge((from, to), n, false)
    }

    /// Up to `n` rows with `prefix`, descending, before the key `before` (or from the last).
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn scan_before(&self, prefix: &[u8], before: Option<&[u8]>, n: usize) -> Result<Found, StoreError> {
        let end = prefix_end(prefix);
        let to = before.map(Bound::Excluded).or(end.as_deref().map(Bound::Excluded)).unwrap_or(Bound::Unbounded);
        self.merge((Bound::Included(prefix), to), n, true)
    }

    fn merge(&self, range: (Bound<&[u8]>, Bound<&[u8]>), n: usize, is_descending: bool) -> Result<Found, StoreError> {
        if is_empty(&range) {
            return Ok(Vec::new());
        }
        self.read(|table| self.merge_with(table, range, n, is_descending))
    }

    fn merge_with(
        &self,
        table: Option<&Rows>,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        n: usize,
        is_descending: bool,
    ) -> Result<Found, StoreError> {
        let mut pending = self.store.pending_range(range);
        let mut found = Vec::new();
        let mut stored = table.map(|table| table.range::<&[u8]>(range)).transpose()?;
        let mut next_stored = || -> Result<Option<Row>, StoreError> {
            let entry = match stored.as_mut() {
                None => None,
                Some(rows) if is_descending => rows.next_back(),
                Some(rows) => rows.next(),
            };
            Ok(entry.transpose()?.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())))
        };
        let mut durable = next_stored()?;
        while found.len() < n {
            let fresh = if is_descending { pending.last_key_value() } else { pending.first_key_value() }.map(|(key, _)| *key);
            // The pending row of a key hides the durable one; otherwise the key that comes first in scan order is next.
            let takes_pending = match (&durable, fresh) {
                (None, None) => break,
                (None, Some(_)) => true,
                (Some(_), None) => false,
                (Some((key, _)), Some(fresh)) if is_descending => fresh >= key.as_slice(),
                (Some((key, _)), Some(fresh)) => fresh <= key.as_slice(),
            };
            if takes_pending {
                let Some((key, value)) = (if is_descending { pending.pop_last() } else { pending.pop_first() }) else { break };
                if durable.as_ref().is_some_and(|(durable, _)| durable == key) {
                    durable = next_stored()?;
                }
                if let Some(value) = value {
                    found.push((key.to_vec(), value.to_vec()));
                }
            } else if let Some(row) = durable.take() {
                found.push(row);
                durable = next_stored()?;
            }
        }
        Ok(found)
    }

    /// The changing half of a job.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn job(&self, key: &JobKey) -> Result<Option<JobRow>, StoreError> {
        self.get(&keys::job(key))?.map(|bytes| rows::decode_job(&bytes)).transpose()
    }

    /// One version of a job.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn job_version(&self, key: &JobKey, edition: Edition) -> Result<Option<JobVersion>, StoreError> {
        self.get(&keys::job_version(key, edition))?.map(|bytes| rows::decode_job_version(&bytes)).transpose()
    }

    /// Versions of one life of a job, newest first, at most `n`.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn job_versions(&self, key: &JobKey, create_index: u64, n: usize) -> Result<Vec<JobVersion>, StoreError> {
        self.scan_before(&keys::job_versions(key, create_index), None, n)?
            .iter()
            .map(|(_, bytes)| rows::decode_job_version(bytes))
            .collect()
    }

    /// An allocation.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn alloc(&self, id: AllocId) -> Result<Option<Allocation>, StoreError> {
        let Some(create_index) = self.create_index(&keys::alloc_id(id))? else { return Ok(None) };
        self.get(&keys::alloc(create_index, id))?.map(|bytes| rows::decode_alloc(&bytes)).transpose()
    }

    /// An evaluation.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn eval(&self, id: EvalId) -> Result<Option<Evaluation>, StoreError> {
        let Some(create_index) = self.create_index(&keys::eval_id(id))? else { return Ok(None) };
        self.get(&keys::eval(create_index, id))?.map(|bytes| rows::decode_eval(&bytes)).transpose()
    }

    /// The blocked evaluation of a job, if it has one.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn blocked_eval(&self, job: &JobKey) -> Result<Option<Evaluation>, StoreError> {
        match self.get(&keys::blocked(job))?.as_deref().and_then(keys::last_id) {
            Some(id) => self.eval(EvalId(id)),
            None => Ok(None),
        }
    }

    /// What changed the counts of a job's groups.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn scaling_events(&self, job: &JobKey) -> Result<ScalingEvents, StoreError> {
        Ok(self.get(&keys::scaling(job))?.map(|bytes| rows::decode_scaling(&bytes)).transpose()?.unwrap_or_default())
    }

    /// True when an allocation, ended or not, names this version: whoever shows it needs the job.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn is_edition_used(&self, key: &JobKey, edition: Edition) -> Result<bool, StoreError> {
        Ok(!self.scan_after(&keys::edition_allocs(key, edition), None, 1)?.is_empty())
    }

    /// All allocations of one version of a job.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn edition_allocs(&self, key: &JobKey, edition: Edition) -> Result<Vec<Allocation>, StoreError> {
        let mut all = Vec::new();
        for (key, _) in self.scan_after(&keys::edition_allocs(key, edition), None, usize::MAX)? {
            let id = keys::last_id(&key).ok_or(StoreError::Corrupt { kind: "version's allocation" })?;
            all.extend(self.alloc(AllocId(id))?);
        }
        Ok(all)
    }

    /// The newest evaluations of a job, at most `n`.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn job_evals(&self, job: &JobKey, n: usize) -> Result<Vec<Evaluation>, StoreError> {
        let mut all = Vec::new();
        for (key, _) in self.scan_before(&keys::job_evals(job), None, n)? {
            let id = keys::last_id(&key).ok_or(StoreError::Corrupt { kind: "job evaluation" })?;
            all.extend(self.eval(EvalId(id))?);
        }
        Ok(all)
    }

    /// A deployment.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn deployment(&self, id: DeploymentId) -> Result<Option<Deployment>, StoreError> {
        let Some(create_index) = self.create_index(&keys::deployment_id(id))? else { return Ok(None) };
        self.get(&keys::deployment(create_index, id))?.map(|bytes| rows::decode_deployment(&bytes)).transpose()
    }

    /// The newest deployment of a job.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn latest_deployment(&self, job: &JobKey) -> Result<Option<Deployment>, StoreError> {
        match self.scan_before(&keys::job_deployments(job), None, 1)?.first().and_then(|(key, _)| keys::last_id(key)) {
            Some(id) => self.deployment(DeploymentId(id)),
            None => Ok(None),
        }
    }

    /// All deployments that may still change; read once, when the agent starts.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn active_deployments(&self) -> Result<Vec<Deployment>, StoreError> {
        let all = self.scan_after(keys::DEPLOYMENTS, None, usize::MAX)?.into_iter().map(|(_, bytes)| rows::decode_deployment(&bytes));
        all.filter(|deployment| deployment.as_ref().map_or(true, |deployment| deployment.status.is_active())).collect()
    }

    /// All evaluations that wait for their time.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn delayed_evals(&self) -> Result<Vec<Evaluation>, StoreError> {
        let mut all = Vec::new();
        for (key, _) in self.scan_after(keys::DELAYED, None, usize::MAX)? {
            let id = keys::last_id(&key).ok_or(StoreError::Corrupt { kind: "delayed" })?;
            all.extend(self.eval(EvalId(id))?);
        }
        Ok(all)
    }

    /// All blocked evaluations, at most `n`.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn blocked_evals(&self, n: usize) -> Result<Vec<Evaluation>, StoreError> {
        let mut all = Vec::new();
        for (_, id) in self.scan_after(keys::BLOCKED, None, n)? {
            let id = keys::last_id(&id).ok_or(StoreError::Corrupt { kind: "blocked" })?;
            all.extend(self.eval(EvalId(id))?);
        }
        Ok(all)
    }

    /// The node's own row.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn node(&self) -> Result<Option<NodeRow>, StoreError> {
        self.get(keys::NODE)?.map(|bytes| rows::decode_node(&bytes)).transpose()
    }

    /// All allocations whose tasks have not all ended; bounded by `Budget::allocs_max`.
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn live_allocs(&self) -> Result<Vec<Allocation>, StoreError> {
        let mut all = Vec::new();
        for (key, _) in self.scan_after(keys::LIVE, None, usize::MAX)? {
            let id = keys::last_id(&key).ok_or(StoreError::Corrupt { kind: "live" })?;
            all.extend(self.alloc(AllocId(id))?);
        }
        Ok(all)
    }

    /// Allocations of a job, newest first, at most `n`, before the key `before` (a key of an earlier answer).
    ///
    /// # Errors
    /// When a row cannot be read.
    pub fn job_allocs(&self, job: &JobKey, before: Option<&[u8]>, n: usize) -> Result<Vec<(Vec<u8>, Allocation)>, StoreError> {
        let mut all = Vec::new();
        for (key, _) in self.scan_before(&keys::job_allocs(job), before, n)? {
            let id = keys::last_id(&key).ok_or(StoreError::Corrupt { kind: "job allocation" })?;
            if let Some(alloc) = self.alloc(AllocId(id))? {
                all.push((key, alloc));
            }
        }
        Ok(all)
    }

    fn create_index(&self, key: &[u8]) -> Result<Option<u64>, StoreError> {
        self.get(key)?.map(|bytes| rows::decode_index(&bytes)).transpose()
    }
}

/// redb and `BTreeMap` refuse ranges whose start lies behind their end.
fn is_empty(range: &(Bound<&[u8]>, Bound<&[u8]>)) -> bool {
    match range {
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to)) => from >= to,
        _ => false,
    }
}
