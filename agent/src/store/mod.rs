//! The node's memory: rows in one redb table, reached through typed views. redb and postcard live only here.
//!
//! Shape: the core writes rows into an open batch ([`Store::put`]), seals it ([`Store::seal`]) and hands it to the store
//! thread (`shell/store_thread.rs`, which drives [`writer::Writer`]); reads see durable rows, sealed batches and the open
//! one, newest first. Decisions are made on the newest, replies wait for the durable (invariant I3).
//! Never: decisions about jobs, JSON for clients.
//!
//! Classes (`spec/runtime.md` 6.7): [`Store::seal`] makes a C0 batch; [`Store::seal_soft`] keeps the rows as soft (C1) rows,
//! shown at once and carried by the next C0 batch or, at the latest, when [`Store::soft_due`] says.

pub mod backend;
pub mod group;
pub mod keys;
pub mod outbox;
pub mod rows;
pub mod view;
pub mod writer;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use dunlin_hal::budget::Budget;
use dunlin_hal::clock::{Mono, Now, Wall};
use dunlin_runtime::event::ClientStatus;
use dunlin_runtime::id::{AllocId, DeploymentId};

use self::backend::Backend;
use self::rows::Meta;
use crate::model::alloc::{Allocation, Edition, JobKey};
use crate::model::deployment::Deployment;
use crate::model::eval::{EvalStatus, Evaluation};
use crate::model::scaling::ScalingEvents;
use rows::{JobRow, JobStatus, JobVersion};

/// Number of a sealed batch. Counts up from 1 for each run of the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// Rows to write (`Some`) or remove (`None`), by key.
pub type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A sealed batch on its way to the store thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Its number.
    pub seq: Seq,
    /// Its rows.
    pub rows: Rows,
}

/// What clients wait on: the kinds of objects that have an index of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Jobs and their versions.
    Jobs,
    /// Evaluations.
    Evals,
    /// Allocations.
    Allocs,
    /// The node.
    Nodes,
    /// Deployments.
    Deployments,
}

/// How many tables there are.
pub(crate) const TABLES_N: usize = 5;

/// Why stored rows could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The database or its file refused.
    Io {
        /// Its words.
        text: String,
    },
    /// Bytes that this agent cannot have written.
    Corrupt {
        /// Kind of row.
        kind: &'static str,
    },
    /// A row of a later agent.
    Newer {
        /// Kind of row.
        kind: &'static str,
        /// Its version.
        version: u8,
    },
}

impl core::fmt::Display for StoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Io { text } => write!(f, "store: {text}"),
            Self::Corrupt { kind } => write!(f, "store: {kind} row cannot be decoded"),
            Self::Newer { kind, version } => write!(f, "store: {kind} row has version {version}, written by a later agent"),
        }
    }
}

/// How many commits for soft rows alone the card is asked for: a bucket of tokens.
#[derive(Clone, Copy, Debug, Default)]
struct Allowance {
    spent_n: u32,
    /// When the bucket was last looked at.
    at: Mono,
}

impl Allowance {
    fn ready_at(&self, budget: &Budget) -> Mono {
        if self.spent_n < budget.soft_commits_burst { Mono(0) } else { self.at.after_ms(budget.soft_commit_refill_ms) }
    }

    fn spend(&mut self, now: Mono, budget: &Budget) {
        let passed_ms = u64::try_from(now.since(self.at).as_millis()).unwrap_or(u64::MAX);
        let refilled = passed_ms / budget.soft_commit_refill_ms.max(1);
        if refilled > 0 || self.spent_n == 0 {
            self.spent_n = self.spent_n.saturating_sub(u32::try_from(refilled).unwrap_or(u32::MAX));
            self.at = now;
        }
        self.spent_n = self.spent_n.saturating_add(1);
    }
}

struct Held {
    seq: Option<Seq>,
    value: Option<Vec<u8>>,
}

/// Rows not yet durable, over the database.
pub struct Store {
    backend: Arc<Backend>,
    meta: Meta,
    /// `meta` when the open batch was begun.
    base: Meta,
    open: Rows,
    held: BTreeMap<Vec<u8>, Held>,
    soft_n: usize,
    soft_since: Option<Mono>,
    allowance: Allowance,
    next_seq: Seq,
    touched: Vec<AllocId>,
    touched_deployments: Vec<DeploymentId>,
    /// Evaluations that wait for their time were put.
    has_new_delays: bool,
    touched_jobs: Vec<JobKey>,
    is_meta_touched: bool,
}

impl Store {
    /// Continues from what is stored: the index goes on at the stored value + 1024, so that an index once shown with a
    /// row that was lost is never given twice (decision 29).
    ///
    /// # Errors
    /// When the database cannot be read or was written by a later agent.
    pub fn open(backend: Arc<Backend>) -> Result<Self, StoreError> {
        let mut store = Self {
            backend,
            meta: Meta::default(),
            base: Meta::default(),
            open: Rows::new(),
            held: BTreeMap::new(),
            soft_n: 0,
            soft_since: None,
            allowance: Allowance::default(),
            next_seq: Seq(1),
            touched: Vec::new(),
            touched_deployments: Vec::new(),
            has_new_delays: false,
            touched_jobs: Vec::new(),
            is_meta_touched: false,
        };
        let stored = store.view().get(keys::META)?;
        if let Some(bytes) = stored {
            store.meta = rows::decode_meta(&bytes)?;
            // Soft rows may have been shown and lost, and their indexes with them: every table goes on beyond what was shown.
            store.meta.index = store.meta.index.saturating_add(1024);
            store.meta.tables = [store.meta.index; TABLES_N];
            store.base = store.meta.clone();
        }
        Ok(store)
    }

    /// False while the database is closed: a write has failed, and it could not be opened again yet.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.backend.database().is_some()
    }

    /// Reads of one turn. Do not keep it across turns: it pins pages of the file.
    #[must_use]
    pub fn view(&self) -> view::View<'_> {
        view::View::new(self)
    }

    /// The index of the last change anywhere; at least 1, so that blocking clients block.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.meta.index.max(1)
    }

    /// The index of the last change to a kind of object; at least 1.
    #[must_use]
    pub fn table_index(&self, table: Table) -> u64 {
        self.meta.tables[table as usize].max(1)
    }

    /// Allocations and evaluations stored: garbage collection compares them with the budget.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.meta.allocs_n, self.meta.evals_n)
    }

    /// Takes the next index; every change of a row is numbered with one.
    pub fn next_index(&mut self) -> u64 {
        self.meta.index = self.meta.index.saturating_add(1);
        self.meta.index
    }

    /// The boot the stored facts belong to and the newest wall time stored.
    #[must_use]
    pub fn last_life(&self) -> ([u8; 16], Wall) {
        (self.meta.boot_id, self.meta.wall)
    }

    /// From now on facts belong to this boot.
    pub fn set_boot_id(&mut self, boot_id: [u8; 16]) {
        if self.meta.boot_id != boot_id {
            self.meta.boot_id = boot_id;
            self.is_meta_touched = true;
        }
    }

    /// Reboots in a row after less than ten minutes that nobody asked for.
    #[must_use]
    pub fn reboots_n(&self) -> u32 {
        self.meta.reboots_n
    }

    /// See [`Store::reboots_n`]; stored with the open batch.
    pub fn set_reboots_n(&mut self, n: u32) {
        if self.meta.reboots_n != n {
            self.meta.reboots_n = n;
            self.is_meta_touched = true;
        }
    }

    /// The number the open batch will get.
    #[must_use]
    pub fn next_seq(&self) -> Seq {
        self.next_seq
    }

    /// Puts a raw row into the open batch.
    fn put(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.open.insert(key, value);
    }

    fn touch(&mut self, table: Table, index: u64) {
        let slot = &mut self.meta.tables[table as usize];
        *slot = (*slot).max(index);
    }

    /// Stores a new allocation under its `create_index`, which never changes.
    pub fn add_alloc(&mut self, alloc: &Allocation) {
        debug_assert!(alloc.create_index != 0, "an allocation is numbered before it is stored");
        self.put(keys::alloc_id(alloc.id), Some(alloc.create_index.to_be_bytes().to_vec()));
        self.put(keys::job_alloc(&alloc.job, alloc.create_index, alloc.id), Some(Vec::new()));
        self.put(keys::edition_alloc(&alloc.job, alloc.edition, alloc.id), Some(Vec::new()));
        self.put(keys::live(alloc.id), Some(Vec::new()));
        self.meta.allocs_n = self.meta.allocs_n.saturating_add(1);
        self.put_alloc(alloc);
    }

    /// Stores the new state of an allocation. One whose tasks have all ended leaves the list of the living.
    pub fn put_alloc(&mut self, alloc: &Allocation) {
        if alloc.is_over() && self.view().has(&keys::live(alloc.id)) {
            self.put(keys::live(alloc.id), None);
        }
        self.put(keys::alloc(alloc.create_index, alloc.id), Some(rows::encode_alloc(alloc)));
        outbox::note(self, alloc);
        self.touch(Table::Allocs, alloc.modify_index);
        if !self.touched.contains(&alloc.id) {
            self.touched.push(alloc.id);
        }
    }

    /// Moves an allocation to another version of its job; its row is for the caller to put.
    pub fn move_alloc(&mut self, alloc: &mut Allocation, edition: Edition) {
        self.put(keys::edition_alloc(&alloc.job, alloc.edition, alloc.id), None);
        alloc.edition = edition;
        self.put(keys::edition_alloc(&alloc.job, alloc.edition, alloc.id), Some(Vec::new()));
    }

    /// Forgets an allocation and all that leads to it.
    pub fn remove_alloc(&mut self, alloc: &Allocation) {
        self.put(keys::alloc(alloc.create_index, alloc.id), None);
        self.put(keys::alloc_id(alloc.id), None);
        self.put(keys::job_alloc(&alloc.job, alloc.create_index, alloc.id), None);
        self.put(keys::edition_alloc(&alloc.job, alloc.edition, alloc.id), None);
        self.put(keys::live(alloc.id), None);
        self.put(keys::outbox(alloc.id), None);
        self.meta.allocs_n = self.meta.allocs_n.saturating_sub(1);
        let index = self.next_index();
        self.touch(Table::Allocs, index);
    }

    /// Stores a new evaluation under its `create_index`, which never changes.
    pub fn add_eval(&mut self, eval: &Evaluation) {
        debug_assert!(eval.create_index != 0, "an evaluation is numbered before it is stored");
        self.put(keys::eval_id(eval.id), Some(eval.create_index.to_be_bytes().to_vec()));
        self.put(keys::job_eval(&eval.job, eval.create_index, eval.id), Some(Vec::new()));
        self.meta.evals_n = self.meta.evals_n.saturating_add(1);
        self.put_eval(eval);
    }

    /// Stores the new state of an evaluation. A job has at most one blocked evaluation, found by its own key.
    pub fn put_eval(&mut self, eval: &Evaluation) {
        let blocked = keys::blocked(&eval.job);
        if eval.status == EvalStatus::Blocked {
            self.put(blocked, Some(eval.id.0.to_vec()));
        } else if matches!(self.view().get(&blocked), Ok(Some(id)) if id == eval.id.0) {
            self.put(blocked, None);
        }
        let waits = eval.status == EvalStatus::Pending && !eval.wait_until.is_unset();
        self.has_new_delays |= waits;
        if waits || self.view().has(&keys::delayed(eval.id)) {
            self.put(keys::delayed(eval.id), waits.then(Vec::new));
        }
        self.put(keys::eval(eval.create_index, eval.id), Some(rows::encode_eval(eval)));
        self.touch(Table::Evals, eval.modify_index);
    }

    /// Forgets an evaluation.
    pub fn remove_eval(&mut self, eval: &Evaluation) {
        self.put(keys::eval(eval.create_index, eval.id), None);
        self.put(keys::eval_id(eval.id), None);
        self.put(keys::job_eval(&eval.job, eval.create_index, eval.id), None);
        self.put(keys::delayed(eval.id), None);
        self.meta.evals_n = self.meta.evals_n.saturating_sub(1);
        let index = self.next_index();
        self.touch(Table::Evals, index);
    }

    /// Stores a new deployment under its `create_index`, which never changes.
    pub fn add_deployment(&mut self, deployment: &Deployment) {
        debug_assert!(deployment.create_index != 0, "a deployment is numbered before it is stored");
        self.put(keys::deployment_id(deployment.id), Some(deployment.create_index.to_be_bytes().to_vec()));
        self.put(keys::job_deployment(&deployment.job, deployment.create_index, deployment.id), Some(Vec::new()));
        self.put_deployment(deployment);
    }

    /// Stores the new state of a deployment.
    pub fn put_deployment(&mut self, deployment: &Deployment) {
        self.put(keys::deployment(deployment.create_index, deployment.id), Some(rows::encode_deployment(deployment)));
        if !self.touched_deployments.contains(&deployment.id) {
            self.touched_deployments.push(deployment.id);
        }
        self.touch(Table::Deployments, deployment.modify_index);
    }

    /// Forgets a deployment.
    pub fn remove_deployment(&mut self, deployment: &Deployment) {
        self.put(keys::deployment(deployment.create_index, deployment.id), None);
        self.put(keys::deployment_id(deployment.id), None);
        self.put(keys::job_deployment(&deployment.job, deployment.create_index, deployment.id), None);
        let index = self.next_index();
        self.touch(Table::Deployments, index);
    }

    /// Stores the changing half of a job. The counts of its parent follow its status.
    pub fn put_job(&mut self, key: &JobKey, row: &JobRow) {
        let index = row.modify_index.max(row.summary_modify_index);
        let from = self.child_status(key, row);
        if from != Some(row.status) {
            self.shift_child(key, row, from, row.status, index);
        }
        self.put(keys::job(key), Some(rows::encode_job(row)));
        self.touch(Table::Jobs, index);
        if row.stub.is_periodic {
            self.touch_job(key);
        }
    }

    /// Stores what changed the counts of a job's groups.
    pub fn put_scaling_events(&mut self, key: &JobKey, events: &ScalingEvents, index: u64) {
        self.put(keys::scaling(key), Some(rows::encode_scaling(events)));
        self.touch(Table::Jobs, index);
    }

    /// Forgets a job; its versions stay as long as allocations name them. For its parent it has ended.
    pub fn remove_job(&mut self, key: &JobKey) {
        self.put(keys::scaling(key), None);
        let index = self.next_index();
        if let Ok(Some(row)) = self.view().job(key)
            && row.status != JobStatus::Dead
            && !row.stub.parent_id.is_empty()
        {
            self.shift_child(key, &row, Some(row.status), JobStatus::Dead, index);
        }
        self.put(keys::job(key), None);
        self.touch(Table::Jobs, index);
        self.touch_job(key);
    }

    /// The status a child was last counted with.
    fn child_status(&self, key: &JobKey, row: &JobRow) -> Option<JobStatus> {
        if row.stub.parent_id.is_empty() { Some(row.status) } else { self.view().job(key).ok()?.map(|row| row.status) }
    }

    fn shift_child(&mut self, key: &JobKey, row: &JobRow, from: Option<JobStatus>, to: JobStatus, index: u64) {
        self.touch_job(key);
        let parent = JobKey { namespace: key.namespace.clone(), id: row.stub.parent_id.clone() };
        // A parent that is gone counts nothing.
        if let Ok(Some(mut known)) = self.view().job(&parent) {
            known.children.shift(from, to);
            known.summary_modify_index = index;
            self.put_job(&parent, &known);
        }
    }

    fn touch_job(&mut self, key: &JobKey) {
        if !self.touched_jobs.contains(key) {
            self.touched_jobs.push(key.clone());
        }
    }

    /// Stores one version of a job; never changed afterwards but for its `is_stable`.
    pub fn put_job_version(&mut self, key: &JobKey, create_index: u64, version: &JobVersion) {
        let edition = Edition { create_index, version: version.version };
        self.put(keys::job_version(key, edition), Some(rows::encode_job_version(version)));
    }

    /// Forgets one version of a job.
    pub fn remove_job_version(&mut self, key: &JobKey, edition: Edition) {
        self.put(keys::job_version(key, edition), None);
    }

    /// Stores the node's own row.
    pub fn put_node(&mut self, node: &rows::NodeRow) {
        self.put(keys::NODE.to_vec(), Some(rows::encode_node(node)));
        self.touch(Table::Nodes, node.modify_index);
    }

    /// Allocations put since the last call: the core starts, stops and shows them.
    pub fn take_touched(&mut self) -> Vec<AllocId> {
        core::mem::take(&mut self.touched)
    }

    /// Deployments put since the last call: the core watches over them.
    pub fn take_touched_deployments(&mut self) -> Vec<DeploymentId> {
        core::mem::take(&mut self.touched_deployments)
    }

    /// True when evaluations that wait for their time were put since the last call.
    pub fn take_new_delays(&mut self) -> bool {
        core::mem::take(&mut self.has_new_delays)
    }

    /// Periodic jobs put, children whose status changed and jobs forgotten since the last call.
    pub fn take_touched_jobs(&mut self) -> Vec<JobKey> {
        core::mem::take(&mut self.touched_jobs)
    }

    /// True when nothing was put since the last seal.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.open.is_empty() && !self.is_meta_touched
    }

    /// Drops the open batch: nothing of it was ever shown. Its indexes are not given again.
    pub fn abort(&mut self) {
        self.open.clear();
        self.touched.clear();
        self.touched_deployments.clear();
        self.has_new_delays = false;
        self.touched_jobs.clear();
        self.meta = Meta { index: self.meta.index, ..self.base.clone() };
    }

    /// Closes the open batch, with all soft rows, as a C0 batch for the store thread. `None` when there is nothing to write.
    pub fn seal(&mut self, now: Now) -> Option<Batch> {
        if self.is_clean() && self.soft_n == 0 {
            return None;
        }
        let seq = self.next_seq;
        self.next_seq = Seq(seq.0 + 1);
        let mut rows = core::mem::take(&mut self.open);
        self.is_meta_touched = false;
        if self.soft_n > 0 {
            for (key, held) in self.held.iter_mut().filter(|(_, held)| held.seq.is_none()) {
                held.seq = Some(seq);
                rows.entry(key.clone()).or_insert_with(|| held.value.clone());
            }
            self.soft_n = 0;
            self.soft_since = None;
        }
        self.meta.wall = self.meta.wall.max(now.wall);
        self.base = self.meta.clone();
        rows.insert(keys::META.to_vec(), Some(rows::encode_meta(&self.meta)));
        for (key, value) in &rows {
            self.held.insert(key.clone(), Held { seq: Some(seq), value: value.clone() });
        }
        Some(Batch { seq, rows })
    }

    /// Keeps the open rows as soft rows: shown at once, durable with the next batch.
    pub fn seal_soft(&mut self, now: Now) {
        self.base = self.meta.clone();
        for (key, value) in core::mem::take(&mut self.open) {
            let before = self.held.insert(key, Held { seq: None, value });
            if before.is_none_or(|held| held.seq.is_some()) {
                self.soft_n += 1;
            }
        }
        if self.soft_n > 0 && self.soft_since.is_none() {
            self.soft_since = Some(now.mono);
        }
    }

    /// When soft rows are to be committed; `None` = there are none. A burst of such commits is followed by longer waits.
    #[must_use]
    pub fn soft_due(&self, budget: &Budget) -> Option<Mono> {
        let since = self.soft_since?;
        if self.soft_n >= budget.soft_rows_max {
            return Some(since);
        }
        Some(since.after_ms(budget.soft_age_max_ms).max(self.allowance.ready_at(budget)))
    }

    /// Closes the soft rows as a batch of their own: a commit for their sake only.
    pub fn flush_soft(&mut self, now: Now, budget: &Budget) -> Option<Batch> {
        self.allowance.spend(now.mono, budget);
        self.seal(now)
    }

    /// The store thread has made everything up to `seq` durable.
    pub fn committed(&mut self, seq: Seq) {
        self.held.retain(|_, held| held.seq.is_none_or(|held| held > seq));
    }

    /// True when every sealed batch is durable: what reads show now cannot be lost, but for soft rows.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        self.held.values().all(|held| held.seq.is_none())
    }

    /// Bytes of the database file, as the store thread last told.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.backend.file_bytes()
    }

    /// True while the disk has room, or the room kept for its last day is not given up yet.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.backend.has_room()
    }

    /// Newest value of a key among the rows that are not durable yet: `None` = ask the database.
    fn pending(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        if let Some(value) = self.open.get(key) {
            return Some(value.as_deref());
        }
        self.held.get(key).map(|held| held.value.as_deref())
    }

    /// Keys with a pending value in a range, ascending, with that value.
    fn pending_range(&self, range: (Bound<&[u8]>, Bound<&[u8]>)) -> BTreeMap<&[u8], Option<&[u8]>> {
        let mut all: BTreeMap<&[u8], Option<&[u8]>> =
            self.held.range::<[u8], _>(range).map(|(key, held)| (key.as_slice(), held.value.as_deref())).collect();
        all.extend(self.open.range::<[u8], _>(range).map(|(key, value)| (key.as_slice(), value.as_deref())));
        all
    }
}

/// Moves an allocation to a new client status and its job's summary with it. Both rows are put.
///
/// # Errors
/// When the job's row cannot be read.
pub fn shift_client_status(store: &mut Store, alloc: &mut Allocation, to: ClientStatus) -> Result<(), StoreError> {
    let from = alloc.client_status;
    alloc.client_status = to;
    if from == to {
        return Ok(());
    }
    let index = alloc.modify_index;
    // One of a job that was purged is none of the job that has its name now.
    if let Some(mut job) = store.view().job(&alloc.job)?.filter(|job| job.create_index == alloc.edition.create_index) {
        crate::model::summary::entry(&mut job.summary, &alloc.group).shift(Some(from), to);
        job.summary_modify_index = index;
        store.put_job(&alloc.job.clone(), &job);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
