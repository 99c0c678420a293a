//! Periodic jobs: their slots on the wall clock, and the one timer that wakes the agent for the next of them.
//!
//! Shape: jobs are followed as their rows change ([`Core::follow_jobs`]); at [`super::Event::Due`] and [`super::Event::ClockStepped`]
//! what is due is launched ([`Core::launch_due`]), one batch each. In between nothing runs and nothing is written.
//! Invariant: a slot is launched at most once, ever. The newest launched one stands in the parent's row, in the batch of its child; an
//! older one is not looked at again, whatever the clock says later. Of the slots of a gap (no power, a clock put forward) one is made up
//! for, as upstream does: under the time of now.
//! A clock that was not set since the device started is not believed: time goes on then from the newest that was stored, until the clock
//! passes it or somebody puts the clock ([`Periodic::wall`]).
//! Source: `spec/jobs.md` 6, `spec/runtime.md` 9 (clocks); upstream v1.10.0 nomad/periodic.go, nomad/leader.go
//! `restorePeriodicDispatcher` (behaviour only).

use std::collections::BTreeMap;

use dunlin_hal::clock::{Mono, Now, Wall};

use super::Core;
use super::children::is_ended_child;
use crate::api::children;
use crate::model::alloc::JobKey;
use crate::sched::periodic::Schedule;
use crate::store::rows::JobRow;
use crate::store::{StoreError, keys, rows};

/// A launch this far in the future was made while the clock was wrong: it no longer holds the job back.
const AHEAD_MAX_NS: i64 = 86_400_000_000_000;
/// Rows looked at in one step.
const ROWS_STEP: usize = 64;

/// What is known of one active job.
#[derive(Clone, Copy, Debug)]
struct Tracked {
    version: u64,
    /// Its next slot; `None` = there is none.
    next: Option<Wall>,
    /// The newest slot that was launched or left out in this life. What is left out is not stored: a skipped slot costs no write.
    done_at: Wall,
}

/// The clock and the jobs it drives.
#[derive(Debug, Default)]
pub(super) struct Periodic {
    jobs: BTreeMap<JobKey, Tracked>,
    /// Both clocks when the wall clock could last be believed.
    known: Now,
    /// It can be believed now.
    is_set: bool,
    due: Option<Mono>,
}

impl Periodic {
    /// When something is due; `None` = there is no active job.
    pub(super) fn due(&self) -> Option<Mono> {
        self.due
    }

    /// The time of day as well as it is known.
    fn wall(&mut self, now: Now) -> Wall {
        let passed_ns = i64::try_from(now.mono.since(self.known.mono).as_nanos()).unwrap_or(i64::MAX);
        let at_least = Wall(self.known.wall.0.saturating_add(passed_ns));
        self.is_set |= now.wall >= at_least;
        if now.wall < Wall::SET_FROM || !self.is_set {
            return at_least;
        }
        self.known = now;
        now.wall
    }

    fn first_due(&self, wall: Wall) -> Option<JobKey> {
        self.jobs.iter().find(|(_, tracked)| tracked.next.is_some_and(|next| next <= wall)).map(|(key, _)| key.clone())
    }

    fn set_due(&mut self, now: Now, wall: Wall) {
        let next = self.jobs.values().filter_map(|tracked| tracked.next).min();
        self.due = next.map(|next| Mono(now.mono.0.saturating_add(u64::try_from(next.0.saturating_sub(wall.0)).unwrap_or(0))));
    }
}

impl Core {
    /// Finds the periodic jobs, the children that have ended and the newest time that was stored. Once, at start.
    pub(super) fn restore_jobs(&mut self, now: Now) -> Result<(), StoreError> {
        let (_, stored) = self.store.last_life();
        let mut newest = Wall::SET_FROM.max(stored);
        let mut after: Option<Vec<u8>> = None;
        let (mut active, mut ended) = (Vec::new(), Vec::new());
        loop {
            let page = self.store.view().scan_after(keys::JOBS, after.as_deref(), ROWS_STEP)?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (key, bytes) in &page {
                let row = rows::decode_job(bytes)?;
                newest = newest.max(row.last_slot_at);
                let key = keys::parse_job(key).ok_or(StoreError::Corrupt { kind: "job key" })?;
                if is_ended_child(&row) {
                    ended.push((row.modify_index, key));
                } else if row.stub.is_periodic {
                    active.push(key);
                }
            }
        }
        ended.sort_unstable_by_key(|(index, _)| *index);
        self.ended_children = ended.into_iter().map(|(_, key)| key).collect();
        self.periodic.known = Now { mono: now.mono, wall: newest };
        for key in active {
            self.follow_job(now, &key, false)?;
        }
        Ok(())
    }

    /// Takes up what was registered, changed, stopped or forgotten.
    pub(super) fn follow_jobs(&mut self, now: Now) -> Result<(), StoreError> {
        let touched = self.store.take_touched_jobs();
        if touched.is_empty() {
            return Ok(());
        }
        for key in touched {
            self.follow_job(now, &key, false)?;
            self.note_child(&key)?;
        }
        let wall = self.periodic.wall(now);
        self.periodic.set_due(now, wall);
        Ok(())
    }

    /// The clock was put: it is believed, and every next slot is looked for anew.
    pub(super) fn clock_stepped(&mut self, now: Now) {
        self.periodic.is_set = true;
        for key in self.periodic.jobs.keys().cloned().collect::<Vec<_>>() {
            if let Err(error) = self.follow_job(now, &key, true) {
                log::error!("job {}: its next slot cannot be told: {error}", key.id);
            }
        }
    }

    fn follow_job(&mut self, now: Now, key: &JobKey, is_anew: bool) -> Result<(), StoreError> {
        let row = self.store.view().job(key)?.filter(|row| row.stub.is_periodic && !row.stub.is_parameterized && !row.is_stopped);
        let Some(row) = row else {
            self.periodic.jobs.remove(key);
            return Ok(());
        };
        let known = self.periodic.jobs.get(key).copied();
        if !is_anew && known.is_some_and(|known| known.version == row.version) {
            return Ok(());
        }
        let done_at = known.map_or(Wall::UNSET, |known| known.done_at);
        let wall = self.periodic.wall(now);
        match self.schedule(key, &row)? {
            Some(schedule) => {
                let next = schedule.next(base(&row, done_at, wall));
                self.periodic.jobs.insert(key.clone(), Tracked { version: row.version, next, done_at });
            }
            None => drop(self.periodic.jobs.remove(key)),
        }
        Ok(())
    }

    /// The slots of a job; `None` = it is switched off, or cannot be understood any more, which is told.
    fn schedule(&mut self, key: &JobKey, row: &JobRow) -> Result<Option<Schedule>, StoreError> {
        let job = children::parent_job(&self.store.view(), key, row)?;
        let Some(periodic) = job.periodic.as_ref().filter(|_| job.is_periodic_active()) else { return Ok(None) };
        match Schedule::of(periodic, &*self.setting.zones) {
            Ok(schedule) => Ok(Some(schedule)),
            Err(why) => {
                log::error!("job {}: it will not be launched: {why}", key.id);
                Ok(None)
            }
        }
    }

    /// Launches what is due and sets the time of what comes next.
    pub(super) fn launch_due(&mut self, now: Now) {
        if self.is_shutting_down {
            self.periodic = Periodic::default();
            return;
        }
        let wall = self.periodic.wall(now);
        while let Some(key) = self.periodic.first_due(wall) {
            if let Err(error) = self.launch_slot(now, wall, &key) {
                log::error!("job {}: it will not be launched any more: {error}", key.id);
                self.store.abort();
                self.periodic.jobs.remove(&key);
            }
        }
        self.periodic.set_due(now, wall);
    }

    fn launch_slot(&mut self, now: Now, wall: Wall, key: &JobKey) -> Result<(), StoreError> {
        let row = self.store.view().job(key)?;
        let schedule = row.as_ref().map(|row| self.schedule(key, row)).transpose()?.flatten();
        let (Some(tracked), Some(schedule)) = (self.periodic.jobs.get_mut(key), schedule) else {
            self.periodic.jobs.remove(key);
            return Ok(());
        };
        let Some(due_at) = tracked.next else { return Ok(()) };
        let mut slot = due_at;
        let mut next = schedule.next(slot);
        if next.is_some_and(|next| next <= wall) {
            // Several were missed.
            slot = Wall(wall.seconds().saturating_mul(1_000_000_000));
            next = schedule.next(slot);
        }
        (tracked.next, tracked.done_at) = (next, slot);
        if let Some(why) = self.refuse_write() {
            log::warn!("job {}: its slot is left out: {}", key.id, why.text);
            return Ok(());
        }
        match self.operate(now, &[], |cx| children::launch(cx, key, slot)) {
            Ok(Ok(child)) => log::debug!("job {}: launched {child}", key.id),
            Ok(Err(why)) => log::debug!("job {}: its slot is left out: {why}", key.id),
            Err(why) => {
                self.store.abort();
                log::warn!("job {}: its slot is left out: {}", key.id, why.text);
            }
        }
        self.settle(now, None);
        Ok(())
    }
}

/// The time whose next slot is the next to launch.
fn base(row: &JobRow, done_at: Wall, wall: Wall) -> Wall {
    // A registration counts as a launch, so that a changed schedule does not begin with a slot of the past.
    let newest = row.last_slot_at.max(row.stub.submit_at).max(done_at);
    // Registered before the clock was set and never launched since; or launched by a clock that was far ahead.
    let is_believed = newest >= Wall::SET_FROM && newest.0 <= wall.0.saturating_add(AHEAD_MAX_NS);
    if is_believed { newest } else { wall }
}
