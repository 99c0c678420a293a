//! Garbage collection by number: folders of ended allocations beyond the bound, then rows beyond theirs; oldest first. By age:
//! [`sweep`].
//!
//! Bounds: `Budget::{allocs_terminal_max, alloc_rows_max, eval_rows_max}` and the configured `gc_max_allocs`.
//! Only what has ended is ever removed.

pub(super) mod sweep;

use dunlin_hal::clock::Now;
use dunlin_hal::hit;
use dunlin_runtime::event::ClientStatus;
use dunlin_runtime::id::{AllocId, EvalId};

use super::{Core, Effect, Held};
use crate::model::alloc::{Allocation, JobKey};
use crate::sched::{reschedule, version};
use crate::store::rows::JobRow;
use crate::store::{StoreError, keys, rows};

/// Rows looked at in one turn.
const ROWS_STEP: usize = 64;

impl Core {
    /// Removes what is too much. True when rows were put.
    pub(super) fn collect(&mut self, now: Now) -> Result<bool, StoreError> {
        let mut has_put = false;
        let keep_n = self.setting.config.gc.allocs_max.unwrap_or(self.setting.budget.allocs_terminal_max);
        let mut doomed = self.runs.take_collect();
        while self.ended.len() > keep_n {
            doomed.extend(self.ended.pop_front());
        }
        for id in doomed {
            self.ended.retain(|other| *other != id);
            has_put |= self.remove_folder(id)?;
        }
        let (allocs_n, evals_n) = self.store.counts();
        if allocs_n > self.setting.budget.alloc_rows_max {
            has_put |= self.forget_allocs()?;
        }
        if evals_n > self.setting.budget.eval_rows_max {
            has_put |= self.forget_evals()?;
        }
        if self.runs.take_collects_all() {
            self.sweep.force(now);
        }
        has_put |= self.sweep_step(now)?;
        Ok(has_put)
    }

    /// Every ended allocation whose folder is still there, oldest first: read once, at start.
    pub(super) fn find_ended(&mut self) -> Result<(), StoreError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = self.store.view().scan_after(keys::ALLOCS, after.as_deref(), ROWS_STEP)?;
            let Some((last, _)) = page.last() else { return Ok(()) };
            after = Some(last.clone());
            for (_, bytes) in &page {
                let alloc = rows::decode_alloc(bytes)?;
                if alloc.is_over() && !alloc.is_destroyed {
                    self.ended.push_back(alloc.id);
                }
            }
        }
    }

    pub(super) fn remove_folder(&mut self, id: AllocId) -> Result<bool, StoreError> {
        let Some(mut alloc) = self.store.view().alloc(id)?.filter(|alloc| alloc.is_over() && !alloc.is_destroyed) else {
            return Ok(false);
        };
        // No index is taken: nobody is shown whether the folder is there.
        alloc.is_destroyed = true;
        self.store.put_alloc(&alloc);
        self.store.take_touched();
        // A folder that outlives a cut is found by its row, which still says that it is there.
        self.removing.insert(id);
        self.held_soft.push(Held::Effect(Effect::Remove(id)));
        Ok(true)
    }

    /// The oldest go first, but not those that still stand for their place: without them work would be done again. Where there are too
    /// many of these, the oldest of them go all the same, and their job's row counts them.
    fn forget_allocs(&mut self) -> Result<bool, StoreError> {
        let (allocs_n, _) = self.store.counts();
        let excess = usize::try_from(allocs_n.saturating_sub(self.setting.budget.alloc_rows_max)).unwrap_or(usize::MAX);
        let (mut going, mut standing) = (Vec::new(), Vec::new());
        let mut after: Option<Vec<u8>> = None;
        while going.len() < excess {
            let page = self.store.view().scan_after(keys::ALLOCS, after.as_deref(), ROWS_STEP)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (_, bytes) in &page {
                let alloc: Allocation = rows::decode_alloc(bytes)?;
                // The row goes only after the folder: it is what names the folder as ours.
                if !alloc.is_destroyed || self.removing.contains(&alloc.id) {
                    continue;
                }
                let is_standing = sweep::stands_for_its_place(&self.store.view(), &alloc)?;
                if is_standing && standing.len() < excess {
                    standing.push(alloc);
                } else if !is_standing && going.len() < excess {
                    going.push(alloc);
                }
            }
        }
        if going.is_empty() && !standing.is_empty() {
            hit!("work_forgotten");
            for alloc in &standing {
                self.count_spent(alloc)?;
            }
            going = standing;
        }
        for alloc in &going {
            self.forget_alloc(alloc)?;
        }
        Ok(!going.is_empty())
    }

    /// What was done, and failures for good; what is still to be replaced is replaced at once.
    fn count_spent(&mut self, alloc: &Allocation) -> Result<(), StoreError> {
        let Some(mut row) = self.store.view().job(&alloc.job)?.filter(|row| row.edition() == alloc.edition) else { return Ok(()) };
        let policy = self.reschedule_policy(&row, alloc)?;
        if alloc.client_status == ClientStatus::Failed && policy.is_some_and(|policy| reschedule::due_at(&policy, alloc).is_some()) {
            return Ok(());
        }
        match row.spent.iter_mut().find(|(group, _)| *group == alloc.group) {
            Some((_, n)) => *n = n.saturating_add(1),
            None => row.spent.push((alloc.group.clone(), 1)),
        }
        self.store.put_job(&alloc.job, &row);
        Ok(())
    }

    /// Removes the row of an allocation and, with the last that names it, the version of a job that is gone.
    pub(super) fn forget_alloc(&mut self, alloc: &Allocation) -> Result<(), StoreError> {
        self.store.remove_alloc(alloc);
        let view = self.store.view();
        let has_job = view.job(&alloc.job)?.is_some_and(|row| row.create_index == alloc.edition.create_index);
        if !has_job && !view.is_edition_used(&alloc.job, alloc.edition)? {
            self.store.remove_job_version(&alloc.job, alloc.edition);
        }
        Ok(())
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

    fn forget_evals(&mut self) -> Result<bool, StoreError> {
        let page = self.store.view().scan_after(keys::EVALS, None, ROWS_STEP)?;
        let mut has_put = false;
        let (_, evals_n) = self.store.counts();
        let mut excess = evals_n.saturating_sub(self.setting.budget.eval_rows_max);
        for (_, bytes) in page {
            let eval = rows::decode_eval(&bytes)?;
            if excess > 0 && eval.status.is_terminal() {
                excess -= 1;
                self.store.remove_eval(&eval);
                has_put = true;
            }
        }
        Ok(has_put)
    }
}
