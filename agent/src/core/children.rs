//! Children that have ended: beyond their bound the oldest is forgotten, with its allocations, evaluations and versions.
//!
//! Bound: `Budget::children_ended_max`. Order: the folders of its allocations first; the rows, which name them as ours, when those are
//! gone. Never: a child that lives, or whose tasks have not all ended. The parent's counts keep it.

use dunlin_hal::clock::Now;
use dunlin_runtime::id::{AllocId, EvalId};

use super::Core;
use crate::model::alloc::JobKey;
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
    pub(super) fn collect_children(&mut self, now: Now) -> Result<bool, StoreError> {
        let mut has_put = false;
        while self.ended_children.len() > self.setting.budget.children_ended_max
            && let Some(key) = self.ended_children.front().cloned()
        {
            let before_n = self.ended_children.len();
            has_put |= self.forget_child(now, &key)?;
            if self.ended_children.len() == before_n {
                // It is on its way; the rest waits for it.
                break;
            }
        }
        Ok(has_put)
    }

    fn forget_child(&mut self, now: Now, key: &JobKey) -> Result<bool, StoreError> {
        let Some(row) = self.store.view().job(key)?.filter(is_ended_child) else {
            self.ended_children.retain(|known| known != key);
            return Ok(false);
        };
        let (mut allocs, mut before) = (Vec::new(), None);
        loop {
            let page = self.store.view().job_allocs(key, before.as_deref(), ROWS_STEP)?;
            let Some((last, _)) = page.last() else { break };
            before = Some(last.clone());
            allocs.extend(page.into_iter().map(|(_, alloc)| alloc));
        }
        let waits: Vec<AllocId> = allocs.iter().filter(|alloc| !alloc.is_destroyed).map(|alloc| alloc.id).collect();
        if !waits.is_empty() || allocs.iter().any(|alloc| self.removing.contains(&alloc.id)) {
            let mut has_put = false;
            for id in waits {
                self.ended.retain(|other| *other != id);
                has_put |= self.remove_folder(now, id)?;
            }
            return Ok(has_put);
        }
        for alloc in &allocs {
            self.store.remove_alloc(alloc);
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
        version::purge(&mut self.store, key, &row)?;
        self.ended_children.retain(|known| known != key);
        Ok(true)
    }
}
