//! Children that have ended: beyond their bound the oldest is forgotten, with its allocations, evaluations and versions.
//!
//! Bound: `Budget::children_ended_max`. Order: the folders of its allocations first; the rows, which name them as ours, when those are
//! gone. Never: a child that lives, or whose tasks have not all ended. The parent's counts keep it.

use super::Core;
use crate::model::alloc::JobKey;
use crate::store::StoreError;
use crate::store::rows::{JobRow, JobStatus};

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
}
