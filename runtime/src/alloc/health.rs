//! Whether an allocation of a deployment is healthy: its tasks run long enough, before a deadline. Pure.
//!
//! Shape: [`Watch::new`], then [`Watch::look`] at the tasks after every change and when [`Watch::due`] has come, until it gives a
//! [`Verdict`]. A watch is not stored: a restarted agent watches anew, with all of its time before it.
//! Units: ms.   Errors: none.
//! Source: `spec/jobs.md` 8; upstream v1.10.0 client/allochealth/tracker.go, client/allocrunner/health_hook.go (behaviour only).

use dunlin_hal::clock::{Mono, Now, Wall};

use crate::event::{TaskPhase, TaskState};
use crate::spec::{HealthRule, Role};
use crate::task::restart::duration_text;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All tasks ran long enough.
    Healthy,
    /// A task has failed, or time is up: what is said on which task, by its place.
    Unhealthy(Vec<(usize, String)>),
}

/// The watch over one allocation.
#[derive(Clone, Debug)]
pub struct Watch {
    rule: HealthRule,
    deadline: Mono,
    /// When the last of the tasks started, and when that is long enough ago; `None` = not all have.
    started: Option<(Wall, Mono)>,
}

impl Watch {
    /// Begins to watch.
    #[must_use]
    pub fn new(rule: HealthRule, now: Now) -> Self {
        Self { rule, deadline: now.mono.after_ms(rule.deadline_ms), started: None }
    }

    /// The same watch with all of its time before it.
    #[must_use]
    pub fn again(self, now: Now) -> Self {
        Self::new(self.rule, now)
    }

    /// When [`Watch::look`] is wanted although nothing changed.
    #[must_use]
    pub fn due(&self) -> Mono {
        self.started.map_or(self.deadline, |(_, due)| due.min(self.deadline))
    }

    /// Looks at all tasks, in their order. After a verdict the watch is over.
    pub fn look<'a>(&mut self, now: Now, tasks: impl Iterator<Item = (Role, &'a TaskState)> + Clone) -> Option<Verdict> {
        let counted = || tasks.clone().enumerate().filter(|(_, (role, state))| counts(*role, state));
        let is_lost = |role: Role, state: &TaskState| {
            state.is_failed || (state.phase == TaskPhase::Dead && role != (Role::Prestart { is_sidecar: false }))
        };
        if counted().any(|(_, (role, state))| is_lost(role, state)) {
            return Some(self.unhealthy(counted()));
        }
        let all_started = counted().all(|(_, (_, state))| state.phase != TaskPhase::Pending);
        let latest = counted().map(|(_, (_, state))| state.started_at).max().filter(|_| all_started);
        if self.started.map(|(at, _)| at) != latest {
            self.started = latest.map(|at| (at, now.mono.after_ms(self.rule.min_healthy_ms)));
        }
        if self.started.is_some_and(|(_, due)| due <= now.mono) {
            return Some(Verdict::Healthy);
        }
        (self.deadline <= now.mono).then(|| self.unhealthy(counted()))
    }

    fn unhealthy<'a>(&self, tasks: impl Iterator<Item = (usize, (Role, &'a TaskState))>) -> Verdict {
        let text = |role: Role, state: &TaskState| match state.phase {
            _ if state.is_failed => Some("Unhealthy because of failed task".to_owned()),
            TaskPhase::Pending => Some(format!("Task not running by healthy_deadline of {}", duration_text(self.rule.deadline_ms))),
            TaskPhase::Dead => (role == Role::Main || role.is_sidecar()).then(|| "Unhealthy because of dead task".to_owned()),
            TaskPhase::Running => self.started.is_none_or(|(_, due)| due > self.deadline).then(|| {
                let (min, deadline) = (duration_text(self.rule.min_healthy_ms), duration_text(self.rule.deadline_ms));
                format!("Task not running for min_healthy_time of {min} by healthy_deadline of {deadline}")
            }),
        };
        Verdict::Unhealthy(tasks.filter_map(|(i, (role, state))| Some((i, text(role, state)?))).collect())
    }
}

/// Tasks that come last are not waited for; those that follow the start are done when they have ended well.
fn counts(role: Role, state: &TaskState) -> bool {
    let has_ended_well = state.phase == TaskPhase::Dead && !state.is_failed;
    role != Role::Poststop && !(role == (Role::Poststart { is_sidecar: false }) && has_ended_well)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: Role = Role::Main;
    const PRE: Role = Role::Prestart { is_sidecar: false };

    fn now(ms: u64) -> Now {
        Now { mono: Mono(ms * 1_000_000), wall: Wall(i64::try_from(ms).unwrap() * 1_000_000 + 1) }
    }

    fn state(word: &str) -> TaskState {
        let (phase, at_ms) = word.split_once('@').map_or((word, 0), |(phase, at)| (phase, at.parse().unwrap()));
        let started_at = Wall(at_ms * 1_000_000 + 1);
        match phase {
            "pending" => TaskState::default(),
            "running" => TaskState { phase: TaskPhase::Running, started_at, ..TaskState::default() },
            "failed" => TaskState { phase: TaskPhase::Dead, is_failed: true, ..TaskState::default() },
            _ => TaskState { phase: TaskPhase::Dead, started_at, ..TaskState::default() },
        }
    }

    /// Looks in turn: `<ms> <state> ...`; gives what each look says: `.` nothing, `+` healthy, or the texts.
    #[track_caller]
    fn check(roles: &[Role], looks: &[&str], want: &str) {
        let mut watch = Watch::new(HealthRule { min_healthy_ms: 10_000, deadline_ms: 30_000 }, now(0));
        let mut said = Vec::new();
        for look in looks {
            let mut words = look.split(' ');
            let ms = words.next().unwrap().parse().unwrap();
            let states: Vec<TaskState> = words.map(state).collect();
            said.push(match watch.look(now(ms), roles.iter().copied().zip(&states)) {
                None => ".".to_owned(),
                Some(Verdict::Healthy) => "+".to_owned(),
                Some(Verdict::Unhealthy(texts)) => texts.iter().map(|(i, text)| format!("{i}:{text}")).collect::<Vec<_>>().join(","),
            });
        }
        assert_eq!(said.join(" "), want);
    }

    #[test]
    fn long_enough_is_healthy() {
        check(&[MAIN], &["0 pending", "100 running@100", "5000 running@100", "10100 running@100"], ". . . +");
        // A restart begins the time anew.
        check(&[MAIN], &["100 running@100", "5000 pending", "6000 running@6000", "10100 running@6000", "16000 running@6000"], ". . . . +");
        check(&[MAIN, MAIN], &["100 running@100 pending", "10100 running@100 pending", "11000 running@100 running@11000"], ". . .");
        // What prepares has ended; what comes last has not begun.
        check(&[PRE, MAIN, Role::Poststop], &["100 dead@50 running@100 pending", "10100 dead@50 running@100 pending"], ". +");
        let post = Role::Poststart { is_sidecar: false };
        check(&[MAIN, post], &["100 running@100 pending", "200 running@100 dead@150", "10200 running@100 dead@150"], ". . +");
    }

    #[test]
    fn what_ends_or_is_late_is_not() {
        check(&[MAIN], &["100 running@100", "200 failed"], ". 0:Unhealthy because of failed task");
        check(&[MAIN], &["100 running@100", "200 dead@100"], ". 0:Unhealthy because of dead task");
        check(&[MAIN], &["29999 pending", "30000 pending"], ". 0:Task not running by healthy_deadline of 30s");
        check(
            &[MAIN],
            &["25000 running@25000", "30000 running@25000"],
            ". 0:Task not running for min_healthy_time of 10s by healthy_deadline of 30s",
        );
        check(&[PRE, MAIN], &["100 failed pending"], "0:Unhealthy because of failed task,1:Task not running by healthy_deadline of 30s");
    }

    #[test]
    fn it_is_looked_at_in_time() {
        let mut watch = Watch::new(HealthRule { min_healthy_ms: 10_000, deadline_ms: 30_000 }, now(0));
        assert_eq!(watch.due(), now(30_000).mono);
        let running = state("running@100");
        assert_eq!(watch.look(now(100), [(MAIN, &running)].into_iter()), None);
        assert_eq!(watch.due(), now(10_100).mono);
    }
}
