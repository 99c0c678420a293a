//! When the tasks of a group may start, by their role. Pure: a stage and the phases of all tasks -> the next stage and its gates.
//!
//! ```text
//! Init -> Prestart -> Main -> Poststart -> WaitAlloc -> Poststop      (Poststop from anywhere, once all others are dead)
//! ```
//! Never: looks at time, policies or processes. Errors: none.
//! Source: `spec/runtime.md` 2.2; upstream v2.0.5 client/allocrunner/tasklifecycle/coordinator.go (behaviour only).

use crate::event::{TaskPhase, TaskState};
use crate::spec::Role;

/// How far an allocation has come. Not stored: [`Stage::settle`] finds it again from the states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Until every task is pending; only a whole restart waits here.
    Init,
    /// Until the preparing tasks have ended well and the early sidecars run.
    Prestart,
    /// Until no main task is pending.
    Main,
    /// Until the tasks that follow the start have ended.
    Poststart,
    /// Until all but the last tasks are dead.
    WaitAlloc,
    /// The end.
    Poststop,
}

impl Stage {
    /// True while a task of `role` may start.
    #[must_use]
    pub fn opens(self, role: Role) -> bool {
        match role {
            Role::Prestart { is_sidecar: false } => self == Self::Prestart,
            Role::Prestart { is_sidecar: true } => matches!(self, Self::Prestart | Self::Main | Self::Poststart | Self::WaitAlloc),
            Role::Main => matches!(self, Self::Main | Self::Poststart | Self::WaitAlloc),
            Role::Poststart { is_sidecar: false } => self == Self::Poststart,
            Role::Poststart { is_sidecar: true } => matches!(self, Self::Poststart | Self::WaitAlloc),
            Role::Poststop => self == Self::Poststop,
        }
    }

    /// The stage reached with these tasks: passes as many stages as their states allow.
    #[must_use]
    pub fn settle<'a>(self, tasks: impl Iterator<Item = (Role, &'a TaskState)> + Clone) -> Self {
        let mut stage = self;
        loop {
            let next = stage.next(tasks.clone());
            if next == stage {
                return stage;
            }
            stage = next;
        }
    }

    fn next<'a>(self, mut tasks: impl Iterator<Item = (Role, &'a TaskState)> + Clone) -> Self {
        let is_dead = |state: &TaskState| state.phase == TaskPhase::Dead;
        if tasks.clone().all(|(role, state)| role == Role::Poststop || is_dead(state)) {
            return Self::Poststop;
        }
        let (is_over, after) = match self {
            Self::Init => (tasks.all(|(_, state)| state.phase == TaskPhase::Pending), Self::Prestart),
            Self::Prestart => (
                tasks.all(|(role, state)| match role {
                    Role::Prestart { is_sidecar: false } => is_dead(state) && !state.is_failed,
                    Role::Prestart { is_sidecar: true } => state.phase == TaskPhase::Running,
                    _ => true,
                }),
                Self::Main,
            ),
            Self::Main => (tasks.all(|(role, state)| role != Role::Main || state.phase != TaskPhase::Pending), Self::Poststart),
            Self::Poststart => {
                (tasks.all(|(role, state)| role != Role::Poststart { is_sidecar: false } || is_dead(state)), Self::WaitAlloc)
            }
            Self::WaitAlloc | Self::Poststop => (false, self),
        };
        if is_over { after } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RT07. `tasks`: role and state of each, `main.pending`; roles: pre, pre+, main, post, post+, stop; states: pending, running,
    /// dead, failed. `expected`: the stage reached and the indexes of the open gates.
    #[track_caller]
    fn check(from: Stage, tasks: &str, expected: &str) {
        let tasks: Vec<(Role, TaskState)> = tasks
            .split_whitespace()
            .map(|word| {
                let (role, state) = word.split_once('.').unwrap();
                let role = match role {
                    "pre" => Role::Prestart { is_sidecar: false },
                    "pre+" => Role::Prestart { is_sidecar: true },
                    "main" => Role::Main,
                    "post" => Role::Poststart { is_sidecar: false },
                    "post+" => Role::Poststart { is_sidecar: true },
                    _ => Role::Poststop,
                };
                let phase = match state {
                    "pending" => TaskPhase::Pending,
                    "running" => TaskPhase::Running,
                    _ => TaskPhase::Dead,
                };
                (role, TaskState { phase, is_failed: state == "failed", ..TaskState::default() })
            })
            .collect();
        let stage = from.settle(tasks.iter().map(|(role, state)| (*role, state)));
        let open: String = tasks.iter().map(|(role, _)| if stage.opens(*role) { '1' } else { '0' }).collect();
        assert_eq!(format!("{stage:?} {open}"), expected);
    }

    #[test]
    fn from_the_start() {
        check(Stage::Init, "main.pending", "Main 1");
        check(Stage::Init, "main.running", "Init 0");
        check(Stage::Init, "pre.pending main.pending", "Prestart 10");
        check(Stage::Init, "pre+.pending main.pending stop.pending", "Prestart 100");
        check(Stage::Init, "pre.dead main.dead stop.pending", "Poststop 001");
        check(Stage::Init, "", "Poststop ");
    }

    #[test]
    fn prestart_waits_for_a_success_and_for_its_sidecars() {
        check(Stage::Prestart, "pre.running pre+.running main.pending", "Prestart 110");
        check(Stage::Prestart, "pre.dead pre+.pending main.pending", "Prestart 110");
        check(Stage::Prestart, "pre.failed pre+.running main.pending", "Prestart 110");
        check(Stage::Prestart, "pre.dead pre+.running main.pending", "Main 011");
        check(Stage::Prestart, "pre.dead pre.pending main.pending", "Prestart 110");
    }

    #[test]
    fn poststart_follows_a_started_main() {
        check(Stage::Main, "main.running main.pending post.pending", "Main 110");
        check(Stage::Main, "main.running main.running post.pending post+.pending", "Poststart 1111");
        check(Stage::Main, "main.dead post.pending", "Poststart 11");
        check(Stage::Poststart, "main.running post.dead post+.running", "WaitAlloc 101");
        check(Stage::Poststart, "main.running post.running", "Poststart 11");
    }

    #[test]
    fn the_end_comes_once_all_others_are_dead() {
        check(Stage::WaitAlloc, "pre.dead main.running stop.pending", "WaitAlloc 010");
        check(Stage::WaitAlloc, "pre.dead main.dead post+.running stop.pending", "WaitAlloc 0110");
        check(Stage::WaitAlloc, "pre.dead main.failed post+.dead stop.pending", "Poststop 0001");
        check(Stage::Prestart, "pre.failed main.dead stop.pending", "Poststop 001");
        check(Stage::Poststop, "main.pending stop.pending", "Poststop 01");
    }

    #[test]
    fn a_restored_allocation_finds_its_stage() {
        check(Stage::Prestart, "pre.dead pre+.running main.running post.dead post+.running stop.pending", "WaitAlloc 011010");
        check(Stage::Prestart, "main.running", "WaitAlloc 1");
        check(Stage::Prestart, "main.pending", "Main 1");
    }
}
