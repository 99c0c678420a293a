//! Garbage collection by age: evaluations, allocations, deployments and jobs that are over are forgotten after their time.
//!
//! A sweep walks over all rows in bounded steps, one a turn. It is begun by something that ends, at most once a minute, by the start
//! of the agent and by `PUT /v1/system/gc`; never by a timer, so an agent to which nothing happens writes nothing. What it removes are
//! soft rows: lost in a cut they are removed again.
//! Never forgotten: what runs, what still stands for its place, jobs given on the command line, and anything while the wall clock is
//! not to be trusted.
//! Source: `spec/jobs.md` 9; upstream v1.10.0 nomad/core_sched.go (behaviour only).

use core::time::Duration;
use std::collections::BTreeSet;

use dunlin_hal::clock::{Mono, Now, Wall};
use dunlin_runtime::event::ClientStatus;
use dunlin_runtime::id::{AllocId, DeploymentId, EvalId};

use super::Core;
use crate::model::alloc::{Allocation, Desired, JobKey};
use crate::model::job::JobKind;
use crate::store::rows::{JobRow, JobStatus};
use crate::store::view::View;
use crate::store::{StoreError, keys, rows};

/// Rows looked at in one turn.
const ROWS_STEP: usize = 64;
/// Time between the begins of two sweeps, ms.
const REST_MS: u64 = 60_000;
/// Time between two steps, ms: the executor has other things to do.
const PAUSE_MS: u64 = 20;

/// What is walked over, in this order.
const KINDS: [&[u8]; 4] = [keys::ALLOCS, keys::EVALS, keys::DEPLOYMENTS, keys::JOBS];

/// One walk.
#[derive(Debug)]
struct Walk {
    /// Ages do not matter: a user said so.
    is_forced: bool,
    kind_i: usize,
    after: Option<Vec<u8>>,
    due: Mono,
    evals: BTreeSet<EvalId>,
    deployments: BTreeSet<DeploymentId>,
}

/// When rows are walked over.
#[derive(Debug, Default)]
pub(in crate::core) struct Sweep {
    walk: Option<Walk>,
    /// Something has ended since the last begin.
    is_wanted: bool,
    begun_at: Option<Mono>,
    /// Jobs that are never forgotten.
    pub(in crate::core) kept: BTreeSet<JobKey>,
    /// Allocations whose rows follow their folders.
    following: BTreeSet<AllocId>,
}

impl Sweep {
    /// Something has ended.
    pub(in crate::core) fn want(&mut self) {
        self.is_wanted = true;
    }

    /// A user wants all that is over to be forgotten.
    pub(in crate::core) fn force(&mut self, now: Now) {
        self.walk = Some(Walk::new(now, true));
    }

    /// When the next step is to be made.
    pub(in crate::core) fn next_due(&self) -> Option<Mono> {
        self.walk.as_ref().map(|walk| walk.due)
    }
}

impl Walk {
    fn new(now: Now, is_forced: bool) -> Self {
        Self { is_forced, kind_i: 0, after: None, due: now.mono, evals: BTreeSet::new(), deployments: BTreeSet::new() }
    }
}

impl Core {
    /// Makes the next step that is due. True when rows were put.
    pub(super) fn sweep_step(&mut self, now: Now) -> Result<bool, StoreError> {
        let is_rested = self.sweep.begun_at.is_none_or(|at| at.after_ms(REST_MS) <= now.mono);
        if self.sweep.walk.is_none() && self.sweep.is_wanted && is_rested && now.wall >= Wall::SET_FROM {
            self.sweep.is_wanted = false;
            self.sweep.begun_at = Some(now.mono);
            self.sweep.walk = Some(Walk::new(now, false));
        }
        let Some(mut walk) = self.sweep.walk.take_if(|walk| walk.due <= now.mono) else { return Ok(false) };
        if walk.kind_i == 0 && walk.after.is_none() {
            for alloc in self.store.view().live_allocs()? {
                walk.evals.insert(alloc.eval);
                walk.deployments.insert(alloc.deployment);
            }
        }
        let Some(kind) = KINDS.get(walk.kind_i) else { return Ok(false) };
        let page = self.store.view().scan_after(kind, walk.after.as_deref(), ROWS_STEP)?;
        let mut has_put = false;
        for (key, bytes) in &page {
            has_put |= match *kind {
                keys::ALLOCS => self.sweep_alloc(now, &walk, bytes)?,
                keys::EVALS => self.sweep_eval(now, &walk, bytes)?,
                keys::DEPLOYMENTS => self.sweep_deployment(now, &walk, bytes)?,
                _ => self.sweep_job(now, &walk, key, bytes)?,
            };
        }
        walk.after = page.last().map(|(key, _)| key.clone());
        if page.len() < ROWS_STEP {
            walk.kind_i += 1;
            walk.after = None;
        }
        walk.due = now.mono.after_ms(PAUSE_MS);
        if walk.kind_i < KINDS.len() {
            self.sweep.walk = Some(walk);
        }
        Ok(has_put)
    }

    /// The folder of an allocation is gone: so is the reason to keep its row.
    pub(in crate::core) fn sweep_followed(&mut self, id: AllocId) -> Result<bool, StoreError> {
        if !self.sweep.following.remove(&id) {
            return Ok(false);
        }
        let Some(alloc) = self.store.view().alloc(id)?.filter(|alloc| alloc.is_over() && alloc.is_destroyed) else { return Ok(false) };
        if !stands_for_its_place(&self.store.view(), &alloc)? {
            self.forget_alloc(&alloc)?;
            return Ok(true);
        }
        let row = self.store.view().job(&alloc.job)?.filter(|row| row.status == JobStatus::Dead);
        row.map_or(Ok(false), |row| self.forget_job(&alloc.job, &row))
    }

    fn is_old(&self, now: Now, walk: &Walk, at: Wall, age: Duration) -> bool {
        let age_ns = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        walk.is_forced || at.0.saturating_add(age_ns) <= now.wall.0
    }

    fn sweep_alloc(&mut self, now: Now, walk: &Walk, bytes: &[u8]) -> Result<bool, StoreError> {
        let alloc = rows::decode_alloc(bytes)?;
        let age = self.setting.config.gc.eval_age;
        if !alloc.is_over() || !self.is_old(now, walk, alloc.modify_at, age) || stands_for_its_place(&self.store.view(), &alloc)? {
            return Ok(false);
        }
        if alloc.is_destroyed {
            if self.removing.contains(&alloc.id) {
                self.sweep.following.insert(alloc.id);
                return Ok(false);
            }
            self.forget_alloc(&alloc)?;
            return Ok(true);
        }
        self.ended.retain(|other| *other != alloc.id);
        self.sweep.following.insert(alloc.id);
        self.remove_folder(alloc.id)
    }

    fn sweep_eval(&mut self, now: Now, walk: &Walk, bytes: &[u8]) -> Result<bool, StoreError> {
        let eval = rows::decode_eval(bytes)?;
        let is_over = eval.status.is_terminal() && !walk.evals.contains(&eval.id);
        if !is_over || !self.is_old(now, walk, eval.modify_at, self.setting.config.gc.eval_age) {
            return Ok(false);
        }
        self.store.remove_eval(&eval);
        Ok(true)
    }

    fn sweep_deployment(&mut self, now: Now, walk: &Walk, bytes: &[u8]) -> Result<bool, StoreError> {
        let deployment = rows::decode_deployment(bytes)?;
        let is_over = !deployment.status.is_active() && !walk.deployments.contains(&deployment.id);
        if !is_over || !self.is_old(now, walk, deployment.modify_at, self.setting.config.gc.deployment_age) {
            return Ok(false);
        }
        self.store.remove_deployment(&deployment);
        Ok(true)
    }

    /// A job that is over goes with all that is left of it.
    fn sweep_job(&mut self, now: Now, walk: &Walk, key: &[u8], bytes: &[u8]) -> Result<bool, StoreError> {
        let key = keys::parse_job(key).ok_or(StoreError::Corrupt { kind: "job key" })?;
        let row: JobRow = rows::decode_job(bytes)?;
        if row.status != JobStatus::Dead || self.sweep.kept.contains(&key) {
            return Ok(false);
        }
        let view = self.store.view();
        let allocs = self.allocs_of(&key)?;
        let newest = view.job_evals(&key, 1)?.first().map_or(row.stub.submit_at, |eval| eval.modify_at);
        let newest = allocs.iter().map(|alloc| alloc.modify_at).fold(newest.max(row.stub.submit_at), Wall::max);
        if !allocs.iter().all(Allocation::is_over) || !self.is_old(now, walk, newest, self.setting.config.gc.job_age) {
            return Ok(false);
        }
        let waits = allocs.iter().filter(|alloc| !alloc.is_destroyed || self.removing.contains(&alloc.id));
        self.sweep.following.extend(waits.map(|alloc| alloc.id));
        self.forget_job(&key, &row)
    }
}

/// True when a decision about its job still looks at it: work that is done is not done again as long as there is its job, a failure that
/// is not replaced stays.
pub(super) fn stands_for_its_place(view: &View<'_>, alloc: &Allocation) -> Result<bool, StoreError> {
    let Some(row) = view.job(&alloc.job)? else { return Ok(false) };
    if row.is_stopped || alloc.edition.create_index != row.create_index {
        return Ok(false);
    }
    let is_done_work = matches!(alloc.job_type, JobKind::Batch | JobKind::Sysbatch) && alloc.edition == row.edition();
    let is_unanswered = alloc.client_status == ClientStatus::Failed && alloc.desired == Desired::Run && alloc.next.is_nil();
    Ok(is_done_work || (is_unanswered && row.status != JobStatus::Dead))
}
