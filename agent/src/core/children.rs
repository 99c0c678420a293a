//! Children that have ended: beyond their bound the oldest is forgotten, with its allocations, evaluations and versions.
//!
//! Bound: `Budget::children_ended_max`. Order: the folders of its allocations first; the rows, which name them as ours, when those are
//! gone. Never: a child that lives, or whose tasks have not all ended. The parent's counts keep it.

use dunlin_runtime::id::EvalId;

use super::Core;
use crate::model::alloc::{Allocation, JobKey};
use crate::sched::version;
use crate::store::rows::{JobRow, JobStatus};
use crate::store::{StoreError, keys};

/// Rows looked at in one step.
const ROWS_STEP: usize = 64;

/// True for a row of a child that has ended.
pub(super) fn is_ended_child(row: &JobRow) -> bool {
    !row.stub.parent_id.is_empty() && row.status == JobStatus::Dead
}

impl Core {
    /// Takes note of a job whose row has changed or gone.
    pub(super) fn note_child(&mut self, key: &JobKey) -> Result<(), StoreError> {
        let is_ended = self.store.view().job(key)?.is_some_and(|row| is_ended_child(&row));
        let is_known = self.ended_children.contains(key);
        if is_ended && !is_known {
            self.ended_children.push_back(key.clone());
        } else if is_known && !is_ended {
            self.ended_children.retain(|known| known != key);
        }
        Ok(())
    }

    /// Forgets what is too much. True when rows were put.
    pub(super) fn collect_children(&mut self) -> Result<bool, StoreError> {
        let mut has_put = false;
        while self.ended_children.len() > self.setting.budget.children_ended_max
            && let Some(key) = self.ended_children.front().cloned()
        {
            let before_n = self.ended_children.len();
            has_put |= self.forget_child(&key)?;
            if self.ended_children.len() == before_n {
                // It is on its way; the rest waits for it.
                break;
            }
        }
        Ok(has_put)
    }

    fn forget_child(&mut self, key: &JobKey) -> Result<bool, StoreError> {
        let row = self.store.view().job(key)?.filter(is_ended_child);
        let has_put = row.as_ref().map_or(Ok(false), |row| self.forget_job(key, row))?;
        if self.store.view().job(key)?.is_none_or(|row| !is_ended_child(&row)) {
            self.ended_children.retain(|known| known != key);
        }
        Ok(has_put)
    }

    /// Forgets a job that is over, with its allocations and evaluations in one batch: as long as there is a job, its allocations say
    /// what was done. Their folders go first; call it again then. True when rows were put.
    pub(super) fn forget_job(&mut self, key: &JobKey, row: &JobRow) -> Result<bool, StoreError> {
        let allocs = self.allocs_of(key)?;
        if allocs.iter().any(|alloc| !alloc.is_destroyed || self.removing.contains(&alloc.id)) {
            let mut has_put = false;
            for alloc in allocs {
                self.ended.retain(|other| *other != alloc.id);
                has_put |= self.remove_folder(alloc.id)?;
            }
            return Ok(has_put);
        }
        for alloc in &allocs {
            self.forget_alloc(alloc)?;
        }
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.store.view().scan_after(&keys::job_evals(key), after.as_deref(), ROWS_STEP)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, _) in &page {
                let id = keys::last_id(key).ok_or(StoreError::Corrupt { kind: "job evaluation" })?;
                if let Some(eval) = self.store.view().eval(EvalId(id))? {
                    self.store.remove_eval(&eval);
                }
            }
        }
        version::purge(&mut self.store, key, row)?;
        Ok(true)
    }

    /// All allocations of a job: at most `Budget::alloc_rows_max` and a few.
    pub(super) fn allocs_of(&self, key: &JobKey) -> Result<Vec<Allocation>, StoreError> {
        let (mut allocs, mut before) = (Vec::new(), None);
        loop {
            let page = self.store.view().job_allocs(key, before.as_deref(), ROWS_STEP)?;
            let Some((last, _)) = page.last() else { return Ok(allocs) };
            before = Some(last.clone());
            allocs.extend(page.into_iter().map(|(_, alloc)| alloc));
        }
    }
}
