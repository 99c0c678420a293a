//! One life of the agent: how it starts on what it finds, how it ends, and what its threads and sockets bring it.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin::core::{Core, Event, Found, Op};
use dunlin::store::backend::Backend;
use dunlin::store::group::{Group, Told};
use dunlin::store::writer::Writer;
use dunlin::store::{Batch, Store, StoreError};
use dunlin_hal::clock::{Mono, Wall};
use dunlin_hal::entropy::Rng;
use dunlin_hal::hit;
use dunlin_hal::sim::entropy::SimEntropy;
use dunlin_runtime::driver::Launch;
use dunlin_runtime::id::{AllocId, Inv};
use dunlin_runtime::shim::news;
use dunlin_runtime::shim::record::Slot;
use dunlin_runtime::task::machine::News;

use super::dice::Dice;
use super::setting::setting;
use super::{End, Happening, World};

/// Waits between tries to remove a runtime folder, seconds (`shell/perform.rs`).
const REMOVE_RETRY_S: [u64; 5] = [1, 2, 5, 15, 30];
/// Words that may wait for one supervisor (`shell/child.rs`).
const ASKS_MAX: usize = 16;
/// Pause between two looks at a supervisor that does not listen yet (`shell/child.rs`).
const LOOK_US: u64 = 20_000;

/// The agent that runs.
pub struct Agent {
    /// Its core.
    pub core: Core,
    group: Group,
    /// What the core has handed to the store thread since its last sync began.
    queued: Vec<Batch>,
    is_syncing: bool,
    /// The core's timer.
    pub timer: Option<Mono>,
    attended: BTreeMap<Inv, Attended>,
    /// The core was told that the disk takes nothing.
    pub is_troubled: bool,
}

/// A supervisor the agent talks to.
struct Attended {
    alloc: AllocId,
    task: String,
    told: news::Told,
    is_connected: bool,
    waiting: Vec<Op>,
}

impl World {
    /// Init starts the agent, and again later when it refuses.
    pub(super) fn start(&mut self) {
        if self.agent.is_some() {
            return;
        }
        self.life += 1;
        let dies_early = self.trap.is_none() && self.life > 1 && self.dice.percent(3);
        if dies_early {
            self.disk.stop_after(self.dice.below(60));
        }
        let opened = self.open();
        if self.disk.is_stopped() {
            hit!("died_while_opening");
            drop(opened);
            let is_cut = self.dice.percent(50);
            self.trace.line(self.now, || format!("the agent dies while it opens its store; power cut: {is_cut}"));
            if is_cut {
                self.reboot()
            } else {
                self.disk.revive()
            }
            return self.later_us(500_000, Happening::Start);
        }
        self.disk.revive();
        let agent = opened.and_then(|(backend, store)| {
            let rows = store.view().scan_after(&[], None, usize::MAX)?;
            Ok((backend, store, rows))
        });
        let (backend, store, rows) = match agent {
            Ok(agent) => agent,
            Err(error) if self.has_faults => return self.refused(&error),
            Err(error) => panic!("I10: the store cannot be opened: {error}"),
        };
        let won = self.ledger.reopened(&rows, &self.shims.lives);
        self.trace.line(self.now, || format!("agent {} starts on {} rows; of what was tried, won: {won:?}", self.life, rows.len()));
        let mut folders = self.shims.scan([self.boot_n; 16], &mut self.dice);
        folders.sort_by_key(|one| news::age(one.slot.as_ref()));
        let found: Vec<Found> = folders.iter().filter_map(|folder| Found::of(folder, self.now.wall)).collect();
        let duties: Vec<Found> = found.iter().filter(|found| found.is_alive).cloned().collect();
        let rng = Rng::new(&mut SimEntropy::new(Dice::of(self.seed, 1_000 + u64::from(self.life)).word()));
        let mut core = Core::new(setting(self.weather.budget), store, rng);
        let kept: Vec<AllocId> = self.folders.iter().copied().collect();
        if let Err(error) = core.restore(self.now, self.boot_id(), found, &kept) {
            assert!(self.has_faults, "the agent cannot take up what it has stored: {error}");
            self.disk.stop_after(0);
            drop((core, backend));
            self.disk.revive();
            return self.refused(&error);
        }
        self.trace.event();
        self.agent = Some(Agent {
            core,
            group: Group::new(Writer::new(backend)),
            queued: Vec::new(),
            is_syncing: false,
            timer: None,
            attended: BTreeMap::new(),
            is_troubled: false,
        });
        for Found { inv, alloc, task, news, .. } in duties {
            let told = news::Told { has_run: !news.is_empty(), has_ended: false };
            self.attend(alloc, task, inv, told);
        }
        self.perform();
    }

    fn open(&self) -> Result<(Arc<Backend>, Store), StoreError> {
        let backend = Arc::new(Backend::over(Arc::new(self.disk.clone()), self.weather.cache_bytes)?);
        let store = Store::open(backend.clone())?;
        Ok((backend, store))
    }

    fn refused(&mut self, error: &StoreError) {
        hit!("start_refused");
        self.trace.line(self.now, || format!("the agent refuses to start: {error}"));
        self.later_us(1_000_000, Happening::Start);
    }

    /// The agent ends now, and is started again.
    pub fn end(&mut self, how: End) {
        self.trace.line(self.now, || format!("{how:?}"));
        self.ends_n[usize::from(how == End::Cut)] += 1;
        self.trap = None;
        if let Some(mut agent) = self.agent.take() {
            if agent.is_syncing {
                // The transaction comes so far, or to its end with nobody left to hear of it.
                self.disk.stop_after(self.dice.below(40));
                if let Some(newest) = agent.group.newest() {
                    self.ledger.tried(newest);
                }
                agent.group.commit();
            }
            // A dead process closes nothing.
            self.disk.stop_after(0);
            drop(agent);
        } else if how == End::Kill {
            return;
        }
        self.clients.cut_off();
        match how {
            End::Kill => self.disk.revive(),
            End::Cut => self.reboot(),
        }
        let down_us = if self.dice.percent(70) { self.dice.between(1_000, 500_000) } else { self.dice.between(500_000, 90_000_000) };
        self.later_us(down_us, Happening::Start);
    }

    /// The power fails and comes back: memory, processes and tmpfs are gone.
    fn reboot(&mut self) {
        self.disk.cut();
        self.shims.all.clear();
        self.said_at.clear();
        self.queue.clear();
        self.boot_n += 1;
        self.booted = self.moment;
        if self.dice.percent(self.weather.clock_lost_percent) {
            hit!("wall_clock_lost");
            self.now.wall = self.cold_wall;
            // Each time it is told apart: a clock that starts at the same second does not do so in the same nanosecond.
            self.cold_wall = Wall(self.cold_wall.0 + 1_000_003);
        }
    }

    /// The agent is told to end: it stores what it has shown, its tasks run on.
    pub fn stop(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        self.trace.line(self.now, || "the agent is told to end".to_owned());
        agent.core.close(self.now);
        self.perform();
        let Some(agent) = &mut self.agent else { return };
        let queued = std::mem::take(&mut agent.queued);
        queued.into_iter().for_each(|batch| agent.group.take(batch));
        if let Some(newest) = agent.group.newest() {
            self.ledger.tried(newest);
        }
        let told = agent.group.commit();
        if let Some(Told::Committed(seq)) = told {
            self.ledger.committed(seq, &self.shims.lives);
        }
        self.agent = None;
        self.clients.cut_off();
        hit!("clean_stop");
        self.later_us(200_000, Happening::Start);
    }

    pub(super) fn commit(&mut self, batch: Batch) {
        if let Some(agent) = &mut self.agent {
            agent.queued.push(batch);
        }
        self.pump_store();
    }

    /// The store thread begins a sync with all there is, if it does not wait for one.
    fn pump_store(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        if agent.is_syncing || agent.queued.is_empty() {
            return;
        }
        if agent.queued.len() > 1 {
            hit!("group_commit");
        }
        let queued = std::mem::take(&mut agent.queued);
        queued.into_iter().for_each(|batch| agent.group.take(batch));
        agent.is_syncing = true;
        self.sync_later();
    }

    fn sync_later(&mut self) {
        let (low, high) = if self.dice.percent(self.weather.slow_percent) { self.weather.slow_ms } else { self.weather.sync_ms };
        let us = self.dice.between(low * 1_000, high * 1_000);
        self.later_us(us, Happening::Synced { life: self.life });
    }

    pub(super) fn retry(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        if !agent.is_syncing && agent.group.retry_s().is_some() {
            agent.is_syncing = true;
            self.sync_later();
        }
    }

    pub(super) fn synced(&mut self) {
        let Some(agent) = &mut self.agent else { return };
        agent.is_syncing = false;
        if let Some(newest) = agent.group.newest() {
            self.ledger.tried(newest);
        }
        match agent.group.commit() {
            Some(Told::Committed(seq)) => {
                agent.is_troubled = false;
                self.trace.line(self.now, || format!("durable: {}", seq.0));
                self.ledger.committed(seq, &self.shims.lives);
                self.feed(Event::Committed(seq));
            }
            Some(Told::Failed { seq, text }) => {
                hit!("commit_failed");
                assert!(self.has_faults, "a good disk takes nothing: {text}");
                agent.is_troubled = true;
                let wait_s = agent.group.retry_s().unwrap_or(1);
                self.later_us(wait_s * 1_000_000, Happening::Retry { life: self.life });
                self.feed(Event::CommitFailed { seq, text });
            }
            None => {}
        }
        self.pump_store();
    }

    pub(super) fn due(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.timer = None;
        }
        self.feed(Event::Due);
    }

    /// The timer fires early, as it may.
    pub fn poke(&mut self) {
        self.feed(Event::Due);
    }

    /// The file worker makes the folder and forks a supervisor.
    pub(super) fn fork(&mut self, launch: Launch) {
        let (alloc, task, inv) = (launch.alloc, launch.task.clone(), launch.inv);
        let mut failed = None;
        if self.dice.percent(self.weather.launch_fails_percent) {
            hit!("launch_failed");
            let is_recoverable = self.dice.percent(50);
            failed = Some(News::LaunchFailed { error: "no room".to_owned(), is_recoverable });
        } else {
            self.folders.insert(alloc);
            let row = self.ledger.allocs.get(&alloc);
            let ports = row.map_or_else(Vec::new, |row| row.grant.ports.iter().map(|port| port.value).collect());
            let sign = self.shims.launch(self.now, self.boot_id(), &launch, ports);
            self.signs(inv, vec![sign]);
        }
        let us = self.dice.between(1_000, 10_000);
        self.later_us(us, Happening::Launched { life: self.life, alloc, task, inv, failed });
    }

    pub(super) fn launched(&mut self, alloc: AllocId, task: String, inv: Inv, failed: Option<News>) {
        match failed {
            Some(news) => self.feed(Event::News { alloc, task, inv, news }),
            None => self.attend(alloc, task, inv, news::Told::default()),
        }
    }

    fn attend(&mut self, alloc: AllocId, task: String, inv: Inv, told: news::Told) {
        let Some(agent) = &mut self.agent else { return };
        agent.attended.insert(inv, Attended { alloc, task, told, is_connected: false, waiting: Vec::new() });
        let us = self.dice.between(50, 5_000);
        self.later_us(us, Happening::Connect { life: self.life, inv });
    }

    pub(super) fn connect(&mut self, inv: Inv) {
        let Some(agent) = &mut self.agent else { return };
        let Some(attended) = agent.attended.get_mut(&inv) else { return };
        let Some(shim) = self.shims.all.get_mut(&inv).filter(|shim| shim.is_alive) else { return self.say(inv, None) };
        let Some(slot) = shim.slot else {
            return self.later_us(LOOK_US, Happening::Connect { life: self.life, inv });
        };
        attended.is_connected = true;
        shim.adopter = Some(self.life);
        let waiting = std::mem::take(&mut attended.waiting);
        self.tell(inv, Some(slot));
        for op in waiting {
            self.later_us(100, Happening::Hear { inv, op });
        }
    }

    pub(super) fn supervise(&mut self, inv: Inv, op: Op) {
        let Some(attended) = self.agent.as_mut().and_then(|agent| agent.attended.get_mut(&inv)) else { return };
        if attended.is_connected {
            self.later_us(100, Happening::Hear { inv, op });
        } else if attended.waiting.len() < ASKS_MAX {
            attended.waiting.push(op);
        }
    }

    /// A record as the supervisor has sent it; `None`: it has left, and the record is read.
    pub(super) fn say(&mut self, inv: Inv, slot: Option<&Slot>) {
        let Some(agent) = &mut self.agent else { return };
        let Some(attended) = agent.attended.get_mut(&inv) else { return };
        let mut said = Vec::new();
        match slot {
            Some(slot) => attended.told.slot(slot, |news| said.push(news)),
            None => {
                let last = self.shims.all.get(&inv).and_then(|shim| shim.slot);
                attended.told.gone(last.as_ref(), |news| said.push(news));
            }
        }
        let (alloc, task) = (attended.alloc, attended.task.clone());
        if attended.told.has_ended {
            agent.attended.remove(&inv);
        }
        for news in said {
            self.trace.line(self.now, || format!("alloc {alloc} task {task}: {inv}: {news:?}"));
            self.feed(Event::News { alloc, task: task.clone(), inv, news });
        }
    }

    pub(super) fn forget(&mut self, inv: Inv, tries: usize) {
        match self.shims.all.get(&inv) {
            Some(shim) if shim.has_lock => {
                hit!("folder_still_locked");
                match REMOVE_RETRY_S.get(tries) {
                    Some(wait_s) => self.later_us(wait_s * 1_000_000, Happening::Forget { life: self.life, inv, tries: tries + 1 }),
                    None => self.trace.line(self.now, || format!("runtime folder {inv}: its supervisor does not end")),
                }
            }
            Some(_) => {
                self.shims.all.remove(&inv);
                self.said_at.remove(&inv);
            }
            None => {}
        }
    }

    pub(super) fn removed(&mut self, alloc: AllocId) {
        self.folders.remove(&alloc);
        self.feed(Event::Removed(alloc));
    }
}
