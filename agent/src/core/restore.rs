//! The start of a life: rows, supervisors and folders that an earlier life of the agent left are taken up, before any event.
//!
//! Pure. Errors: rows that cannot be read end the start, as the agent must not act on half of what it knows.
//! Source: `spec/runtime.md` 6.6 (behaviour only).

use dunlin_hal::clock::{Now, Wall};
use dunlin_runtime::alloc::machine::Event as Machine;
use dunlin_runtime::event::TaskPhase;
use dunlin_runtime::id::{AllocId, Inv};
use dunlin_runtime::shim::{self, news};
use dunlin_runtime::task::machine::News;
use dunlin_runtime::task::restart::Window;

use super::launch::{self, read_note};
use super::{Core, Effect, Op, SIGKILL, damping};
use crate::model::alloc::{Allocation, Desired, TaskEntry};
use crate::store::StoreError;

/// A supervisor found at start. Of one task the oldest comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The invocation.
    pub inv: Inv,
    /// Its allocation.
    pub alloc: AllocId,
    /// Its task.
    pub task: String,
    /// Where its record says the restart policy stood.
    pub window: Option<Window>,
    /// How often its task had been restarted before it; `None` = nobody noted it.
    pub restarts_n: Option<u64>,
    /// What its record tells, in order; empty = it had not begun.
    pub news: Vec<News>,
    /// Its supervisor lives and has more to tell.
    pub is_alive: bool,
}

impl Found {
    /// From a folder as it was scanned; of an orphan when its processes are gone. `None`: it does not say whose it is.
    #[must_use]
    pub fn of(folder: &shim::Found, now: Wall) -> Option<Self> {
        let (alloc, task) = folder.task.clone()?;
        let news = news::found(folder.fate(), folder.slot.as_ref(), now);
        let has_ended = news.last().is_some_and(|news| !matches!(news, News::Running { .. }));
        let is_alive = folder.is_alive && !has_ended;
        let window = folder.slot.as_ref().map(news::window);
        Some(Self { inv: folder.inv, alloc, task, window, restarts_n: read_note(&folder.note), news, is_alive })
    }
}

impl Core {
    /// Takes up what an earlier life of the agent left: rows, supervisors, folders. Call it once, before any event.
    ///
    /// # Errors
    /// When the store cannot be read: the agent must not act on half of what it knows.
    pub fn restore(&mut self, now: Now, boot_id: [u8; 16], mut found: Vec<Found>, folders: &[AllocId]) -> Result<(), StoreError> {
        let (last_boot, _) = self.store.last_life();
        let was_rebooted = last_boot != boot_id && last_boot != [0; 16];
        self.store.set_boot_id(boot_id);
        self.register_node(now)?;
        self.find_ended()?;
        let mut restored = Vec::new();
        let living = self.store.view().live_allocs()?;
        for alloc in &living {
            let spec = launch::spec(&self.store.view(), alloc, &self.setting)?;
            let is_stopping = alloc.desired != Desired::Run;
            restored.push((alloc.id, alloc.job_type, is_stopping || damping::is_critical(&spec)));
            self.runs.add_restored(now, alloc, spec, is_stopping);
        }
        for alloc in living {
            let before = self.living_predecessor(&alloc)?;
            self.runs.wait_for(alloc.id, alloc.preempted.iter().copied().chain(before));
            for (i, task) in alloc.tasks.iter().enumerate() {
                let mine: Vec<Found> = found.extract_if(.., |found| found.alloc == alloc.id && found.task == task.name).collect();
                self.restore_task(now, alloc.id, i, task, mine, was_rebooted);
            }
        }
        for id in self.damp(now, was_rebooted, restored) {
            self.runs.may_begin(id);
        }
        for deployment in self.store.view().active_deployments()? {
            self.deploys.note(now, &deployment);
        }
        self.note_delays(now)?;
        self.sweep.want();
        for Found { inv, alloc, task, is_alive, .. } in found {
            // Its row was never committed, or is over: it runs for nobody. When it has ended it is forgotten.
            if is_alive {
                log::warn!("alloc {alloc} task {task}: invocation {inv} belongs to nothing stored and is ended");
                self.out.push_back(Effect::Supervise { inv, op: Op::Stop { signal: SIGKILL, timeout_ms: 0 } });
            } else {
                self.out.push_back(Effect::Forget { alloc, task, inv, is_last: true });
            }
        }
        for id in folders {
            match self.store.view().alloc(*id)? {
                Some(alloc) if alloc.is_destroyed => {
                    self.removing.insert(*id);
                    self.out.push_back(Effect::Remove(*id));
                }
                Some(_) => {}
                None => log::warn!("folder of unknown allocation {id} is left alone"),
            }
        }
        self.restore_jobs(now)?;
        self.settle(now, None);
        self.seal(now, None);
        self.launch_due(now);
        self.set_timer(now);
        Ok(())
    }

    /// The allocation whose end a restored one waits for: its predecessor or, past those that were replaced before they began, an
    /// earlier one.
    fn living_predecessor(&self, alloc: &Allocation) -> Result<Option<AllocId>, StoreError> {
        let mut previous = alloc.previous;
        while let Some(row) = self.store.view().alloc(previous)? {
            if self.runs.has(previous) {
                return Ok(Some(previous));
            }
            if row.tasks.iter().any(|task| !task.state.started_at.is_unset()) {
                return Ok(None);
            }
            previous = row.previous;
        }
        Ok(None)
    }

    fn restore_task(&mut self, now: Now, alloc: AllocId, i: usize, task: &TaskEntry, found: Vec<Found>, was_rebooted: bool) {
        let mut is_adopted = false;
        // Oldest first: what comes before the newest that is known to have ended has ended before it.
        let known_n = found.iter().rposition(|found| found.inv == task.memo.consumed).map_or(0, |i| i + 1);
        // When the successor of each began; `None` = it has none. One that has not told it yet began no earlier than this one ended.
        let successors: Vec<Option<Wall>> = found
            .windows(2)
            .map(|two| two[1].news.first().and_then(News::started_at).or_else(|| two[0].news.last().and_then(News::finished_at)))
            .collect();
        let found_n = found.len();
        for (n, Found { inv, window, restarts_n, news, is_alive, .. }) in found.into_iter().enumerate() {
            // What followed from an end was decided before its successor began.
            let now = successors.get(n).copied().flatten().map_or(now, |wall| Now { wall, ..now });
            let has_ended = !matches!(news.last(), None | Some(News::Running { .. }));
            let has_successor = has_ended && restarts_n.is_some_and(|before_n| before_n < task.state.restarts_n);
            let is_unborn = news.is_empty() && !is_alive;
            if n < known_n || has_successor || is_unborn {
                let is_last = task.state.phase == TaskPhase::Dead;
                self.out.push_back(Effect::Forget { alloc, task: task.name.clone(), inv, is_last });
                continue;
            }
            let mut news = news.into_iter();
            let adopted = Machine::Adopted { task: i, inv, window, news: news.next(), is_followed: n + 1 < found_n, was_rebooted };
            self.runs.restored(now, &mut self.rng, alloc, adopted);
            for news in news {
                self.runs.restored(now, &mut self.rng, alloc, Machine::News { task: i, inv, news });
            }
            is_adopted = true;
        }
        if !is_adopted && task.state.phase != TaskPhase::Dead {
            self.runs.restored(now, &mut self.rng, alloc, Machine::Missing { task: i, was_rebooted });
        }
    }
}
