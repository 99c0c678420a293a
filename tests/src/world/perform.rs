//! Events in, effects out: what `shell/perform.rs` does, one effect after the other, with a check before each that it may be seen.

use std::collections::BTreeSet;

use dunlin::core::{Effect, Event, Op};
use dunlin::model::alloc::Allocation;
use dunlin::store::{Rows, rows};
use dunlin_hal::hit;
use dunlin_runtime::driver::Launch;
use dunlin_runtime::event::TaskPhase;
use dunlin_runtime::id::{AllocId, Inv};
use dunlin_runtime::shim::news;
use dunlin_runtime::shim::record::ExitKind;

use super::setting::memory_mb;
use super::{Happening, Kind, World};

impl Kind {
    fn is(self, effect: &Effect) -> bool {
        match effect {
            Effect::Commit(_) => self == Self::Commit,
            Effect::Respond { .. } => self == Self::Respond,
            Effect::Launch(_) => self == Self::Launch,
            Effect::Supervise { .. } => self == Self::Supervise,
            Effect::Forget { .. } => self == Self::Forget,
            Effect::Remove(_) => self == Self::Remove,
            Effect::WakeAt(_) => self == Self::WakeAt,
            Effect::Exit => false,
        }
    }
}

impl World {
    /// One fact to the core, and all that follows.
    pub(super) fn feed(&mut self, event: Event) {
        self.trace.event();
        let Some(agent) = &mut self.agent else { return };
        agent.core.handle(self.now, event);
        self.perform();
    }

    /// News that no supervisor has sent: late, or of another life.
    pub fn feed_stray(&mut self, event: Event) {
        self.trace.line(self.now, || format!("stray: {event:?}"));
        self.feed(event);
    }

    /// All effects that are due, unless the agent dies before one.
    pub(super) fn perform(&mut self) {
        for alloc in std::mem::take(&mut self.ledger.removed) {
            assert!(!self.folders.contains(&alloc), "alloc {alloc} is forgotten and its folder is still there");
        }
        while let Some(effect) = self.agent.as_mut().and_then(|agent| agent.core.poll()) {
            if let Some(end) = self.trapped(&effect) {
                return self.end(end);
            }
            self.effect(effect);
        }
    }

    fn trapped(&mut self, effect: &Effect) -> Option<super::End> {
        let trap = self.trap.as_mut()?;
        if trap.kind != Kind::Any && !trap.kind.is(effect) {
            return None;
        }
        trap.left = trap.left.saturating_sub(1);
        if trap.left > 0 {
            return None;
        }
        match effect {
            Effect::Commit(_) => hit!("died_before_commit"),
            Effect::Respond { .. } => hit!("died_before_respond"),
            Effect::Launch(_) => hit!("died_before_launch"),
            Effect::Supervise { .. } => hit!("died_before_supervise"),
            Effect::Forget { .. } => hit!("died_before_forget"),
            Effect::Remove(_) => hit!("died_before_remove"),
            Effect::WakeAt(_) => hit!("died_before_wake_at"),
            Effect::Exit => {}
        }
        Some(trap.end)
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Commit(batch) => {
                self.trace.word(batch.seq.0);
                for (key, value) in &batch.rows {
                    self.trace.bytes(key);
                    self.trace.bytes(value.as_deref().unwrap_or_default());
                }
                self.trace.line(self.now, || format!("batch {}: {}", batch.seq.0, words(&batch.rows)));
                self.clients.handed_over(batch.seq);
                self.ledger.hand_over(batch.clone());
                self.commit(batch);
            }
            Effect::Respond { id, reply } => self.respond(id, reply),
            Effect::Launch(launch) => {
                self.trace.word(launch.inv.0);
                self.trace.line(self.now, || format!("alloc {} task {}: launch {}", launch.alloc, launch.task, launch.inv));
                self.check_launch(&launch);
                self.shims.lives.launched(launch.alloc, &launch.task, launch.inv);
                let at = self.worker_takes_us(500);
                self.at(at, Happening::Fork { life: self.life, launch });
            }
            Effect::Supervise { inv, op } => {
                self.trace.word(inv.0);
                self.trace.line(self.now, || format!("{inv}: {op:?}"));
                if matches!(op, Op::Stop { .. })
                    && let Some(shim) = self.shims.all.get(&inv)
                {
                    let may_end = self.ledger.wants_end(shim.alloc, &shim.task) || self.is_of_forgotten_boot(shim.alloc, &shim.task);
                    assert!(may_end, "I3, I4: alloc {} task {} is ended and no durable row says why", shim.alloc, shim.task);
                }
                self.supervise(inv, op);
            }
            Effect::Forget { alloc, task, inv, .. } => {
                self.trace.word(inv.0);
                self.check_forget(alloc, &task, inv);
                let at = self.worker_takes_us(300);
                self.at(at, Happening::Forget { life: self.life, inv, tries: 0 });
            }
            Effect::Remove(alloc) => {
                let is_over = self.ledger.allocs.get(&alloc).is_none_or(|row| row.is_over() && row.is_destroyed);
                assert!(is_over, "alloc {alloc}: its folder is removed before its end is durable");
                let lives = self.shims.all.values().any(|shim| shim.alloc == alloc && shim.is_running());
                assert!(!lives, "alloc {alloc}: its folder is removed under a running task");
                let at = self.worker_takes_us(2_000);
                self.at(at, Happening::Removed { life: self.life, alloc });
            }
            Effect::WakeAt(due) => {
                if let Some(agent) = &mut self.agent {
                    agent.timer = due;
                }
                if let Some(due) = due {
                    // As late as timers are.
                    let at = self.moment.saturating_add(due.0.saturating_sub(self.now.mono.0)).saturating_add(self.dice.below(200_000));
                    self.at(at, Happening::Due { life: self.life, due });
                }
            }
            Effect::Exit => hit!("exit"),
        }
    }

    /// The file worker does one thing after the other.
    fn worker_takes_us(&mut self, most_us: u64) -> super::Moment {
        self.worker_at = self.worker_at.max(self.moment) + self.dice.between(10, most_us) * 1_000;
        self.worker_at
    }

    fn check_launch(&self, launch: &Launch) {
        let (alloc, task) = (launch.alloc, &launch.task);
        let Some(row) = self.ledger.allocs.get(&alloc) else { panic!("I3: alloc {alloc} is started before its row is durable") };
        let hook = self.hook(alloc, task);
        assert!(!row.is_server_terminal() || hook == "poststop", "alloc {alloc} task {task} is started, but is to stop");
        assert!(!row.is_over(), "alloc {alloc} task {task} is started, but is over");
        let entry = row.tasks.iter().find(|entry| entry.name == *task);
        let is_dead = entry.is_none_or(|entry| entry.state.phase == TaskPhase::Dead);
        // What prepared the allocation does so again after a reboot.
        assert!(!is_dead || hook == "prestart", "alloc {alloc} task {task} is started, but has ended for good");
        let before = self.shims.all.values().find(|shim| shim.is_running() && self.ledger.follows(row, shim.alloc));
        let before = before.map(|shim| shim.alloc);
        // Nobody gets a port or memory that others still use.
        let others = || self.shims.all.values().filter(|shim| shim.is_running() && shim.alloc != alloc);
        let ports = row.grant.ports.iter().map(|port| port.value);
        for port in ports {
            let user = others().find(|shim| shim.ports.contains(&port)).map(|shim| shim.alloc);
            assert!(user.is_none(), "alloc {alloc} task {task} is started on port {port} of {user:?}");
        }
        let users: BTreeSet<AllocId> = others().map(|shim| shim.alloc).chain([alloc]).collect();
        let used_mb: u64 = users.iter().filter_map(|id| self.ledger.allocs.get(id)).map(|row| row.grant.memory_mb()).sum();
        // What cleans up may find its room given away, and is not left undone for that.
        assert!(used_mb <= memory_mb() || hook == "poststop", "alloc {alloc} task {task} is started: {used_mb} MB are in use");
        assert!(before.is_none(), "alloc {alloc} task {task} is started before {before:?} has ended");
    }

    /// What prepares an allocation is run again after a reboot. An agent that dies before anything of that boot is durable leaves a task
    /// of which its successor knows only that it had ended before: it is run once more.
    fn is_of_forgotten_boot(&self, alloc: AllocId, task: &str) -> bool {
        self.ledger.boot_before != self.boot_id() && self.hook(alloc, task) == "prestart"
    }

    /// The hook of a task; empty = none.
    fn hook(&self, alloc: AllocId, task: &str) -> &str {
        let Some(row) = self.ledger.allocs.get(&alloc) else { return "" };
        let version = self.ledger.versions.get(&(row.job.clone(), row.edition));
        let spec = version.and_then(|version| version.group(&row.group)?.task(task));
        spec.and_then(|spec| spec.lifecycle.as_ref()).map_or("", |lifecycle| lifecycle.hook.as_str())
    }

    fn check_forget(&self, alloc: AllocId, task: &str, inv: Inv) {
        let Some(shim) = self.shims.all.get(&inv) else { return };
        assert!(shim.is_over(), "alloc {alloc} task {task}: {inv} is forgotten and lives");
        // Nothing is told of one whose program was never executed, unless that failed.
        let has_told = shim.slot.is_some_and(|slot| news::has_run(&slot) || slot.exit_kind != ExitKind::None);
        assert!(
            !has_told || self.is_of_forgotten_boot(alloc, task) || self.ledger.tells_end(alloc, task, inv, &self.shims.lives),
            "I3: alloc {alloc} task {task}: the record of {inv} goes before its end is durable"
        );
    }
}

/// What a batch says, in words.
fn words(rows: &Rows) -> String {
    let mut words = Vec::new();
    for (key, value) in rows {
        match (key.first(), value) {
            (Some(b'A'), Some(bytes)) => {
                if let Ok(alloc) = rows::decode_alloc(bytes) {
                    let phases: Vec<String> =
                        alloc.tasks.iter().map(|task| format!("{} {:?} {}", task.name, task.state.phase, task.memo.consumed)).collect();
                    let Allocation { id, edition, desired, client_status, .. } = &alloc;
                    words.push(format!("{} {id} v{} {desired:?} {client_status:?} ({})", alloc.name(), edition.version, phases.join(", ")));
                }
            }
            (Some(b'E'), Some(bytes)) => {
                if let Ok(eval) = rows::decode_eval(bytes) {
                    words.push(format!("eval {} of {} {:?} {:?}", eval.id, eval.job.id, eval.trigger, eval.status));
                }
            }
            (Some(b'D'), Some(bytes)) => {
                if let Ok(deployment) = rows::decode_deployment(bytes) {
                    words.push(format!("deployment {} of {} {:?}", deployment.id, deployment.job.id, deployment.status));
                }
            }
            (Some(b'J'), Some(bytes)) => {
                if let Ok(row) = rows::decode_job(bytes) {
                    words.push(format!("job {} v{} stopped {} {:?}", row.stub.name, row.version, row.is_stopped, row.status));
                }
            }
            (Some(b'A' | b'J' | b'V'), None) => words.push(format!("{} goes", String::from_utf8_lossy(key).escape_debug())),
            _ => {}
        }
    }
    words.join("; ")
}
