//! What a supervisor's record tells, as news of its task. Pure: slots in, [`News`] out.
//!
//! Shape: while the agent attends an invocation, [`Told`] turns each slot it is shown into what has not been told yet. At the start of an
//! agent [`found`] says what the record of each runtime folder tells, in the order of [`age`].
//! Invariant: each attended invocation gives exactly one end: `Exited`, `LaunchFailed` or `Lost`; none before its processes are gone.
//! Errors: none.

use dunlin_hal::clock::{Mono, Wall};
use dunlin_hal::hit;
use nix::errno::Errno;

use super::folder::Fate;
use super::record::{Phase, Slot};
use crate::task::machine::News;
use crate::task::restart::Window;

/// What of an attended invocation has been told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its start was.
    pub has_run: bool,
    /// Its end was: nothing is left to tell.
    pub has_ended: bool,
}

impl Told {
    /// The slot as it is now.
    pub fn slot(&mut self, slot: &Slot, mut tell: impl FnMut(News)) {
        self.started(slot, &mut tell);
        // While its supervisor lives an end is told only when all output is written and all processes are gone.
        if is_over(slot) {
            self.ended(slot, &mut tell);
        }
    }

    /// The supervisor is gone and so are all processes of the task: its last slot tells how it ended, or nobody knows.
    pub fn gone(&mut self, slot: Option<&Slot>, mut tell: impl FnMut(News)) {
        if let Some(slot) = slot {
            self.started(slot, &mut tell);
            self.ended(slot, &mut tell);
        }
        if !self.has_ended {
            hit!("supervisor_lost");
            self.has_ended = true;
            let error = "failed to launch command: the supervisor was lost before the task began".to_owned();
            tell(if self.has_run { News::Lost } else { News::LaunchFailed { error, is_recoverable: true } });
        }
    }

    fn started(&mut self, slot: &Slot, tell: &mut impl FnMut(News)) {
        if has_run(slot) && !self.has_run {
            self.has_run = true;
            tell(running(slot));
        }
    }

    fn ended(&mut self, slot: &Slot, tell: &mut impl FnMut(News)) {
        if !self.has_ended
            && let Some(news) = end(slot)
        {
            self.has_ended = true;
            tell(news);
        }
    }
}

/// True when nothing more can come of it: all output is written, all processes are gone.
#[must_use]
pub fn is_over(slot: &Slot) -> bool {
    matches!(slot.phase, Phase::Done | Phase::ExecFailed)
}

/// True when the task's program was executed.
#[must_use]
pub fn has_run(slot: &Slot) -> bool {
    matches!(slot.phase, Phase::Running | Phase::Stopping | Phase::Exited | Phase::Done | Phase::Stuck)
}

fn running(slot: &Slot) -> News {
    News::Running { started_at: slot.started.wall, pid: slot.task_pid }
}

/// How it ended, if it has.
fn end(slot: &Slot) -> Option<News> {
    if let Some(error) = slot.exec_error() {
        // The machine was short of something, or the file was being written: the next attempt may find it otherwise.
        let is_recoverable = matches!(Errno::from_raw(slot.code), Errno::EAGAIN | Errno::ENOMEM | Errno::ETXTBSY);
        return Some(News::LaunchFailed { error, is_recoverable });
    }
    slot.ended().map(|ended| News::Exited {
        code: ended.exit_code,
        signal: ended.signal,
        oom_killed: ended.is_oom_killed,
        message: if ended.is_oom_killed { "OOM Killed".to_owned() } else { String::new() },
        started_at: slot.started.wall,
        finished_at: slot.exited.wall,
    })
}

/// Where the restart policy stood when the invocation was started.
#[must_use]
pub fn window(slot: &Slot) -> Window {
    Window { count: slot.restart_n, start: slot.interval_started }
}

/// What the record of a folder tells at the start of an agent, in order; of an orphan when its processes are gone. Empty: it had not
/// begun. `now` stands in for a start that cannot be read.
#[must_use]
pub fn found(fate: Fate, slot: Option<&Slot>, now: Wall) -> Vec<News> {
    match (fate, slot) {
        (Fate::Leave, _) => vec![News::Running { started_at: now, pid: 0 }],
        // It has said all there is to say and is about to leave: its successor may already be there.
        (Fate::Adopt, Some(slot)) if is_over(slot) => {
            hit!("found_about_to_leave");
            end(slot).into_iter().collect()
        }
        (Fate::Adopt, Some(slot)) if has_run(slot) => vec![running(slot)],
        (Fate::Adopt, _) => Vec::new(),
        (Fate::Consume, Some(slot)) => end(slot).into_iter().collect(),
        (Fate::Orphan, Some(slot)) if has_run(slot) => {
            hit!("found_orphan");
            vec![running(slot), News::Lost]
        }
        (Fate::Consume | Fate::Orphan, _) => Vec::new(),
    }
}

/// Sorts supervisors by their age, the oldest first: of one task the ends must be told in their order. Ticks of their own start are
/// coarse; within one, the program's start or its failure decides; one that has not come so far, or not even to its record, is the
/// newest.
#[must_use]
pub fn age(slot: Option<&Slot>) -> (u64, Mono) {
    let Some(slot) = slot else { return (u64::MAX, Mono(u64::MAX)) };
    let latest = slot.started.mono.max(slot.exited.mono);
    (slot.shim_start, if latest == Mono(0) { Mono(u64::MAX) } else { latest })
}

#[cfg(test)]
mod tests {
    use dunlin_hal::clock::Now;

    use super::*;
    use crate::shim::record::ExitKind;

    fn slot(shim_start: u64, started: u64, exited: u64) -> Option<Slot> {
        let at = |mono| Now { mono: Mono(mono), wall: Wall(0) };
        Some(Slot { shim_start, started: at(started), exited: at(exited), ..Slot::default() })
    }

    #[test]
    fn who_is_being_born_is_the_newest() {
        // In the order of their lives; the two last have not begun, and the very last has not even a record.
        let lives = [slot(1, 700, 0), slot(2, 800, 0), slot(3, 900, 950), slot(3, 0, 960), slot(3, 970, 980), slot(3, 0, 0), None];
        for n in 0..lives.len() {
            let mut turned = lives;
            turned.rotate_left(n);
            turned.sort_by_key(|slot| age(slot.as_ref()));
            assert_eq!(turned, lives, "{n}");
        }
    }

    /// Slots by phase; `!` = the supervisor is gone with the last one. Told: `run`, `end`, `fail`, `lost`.
    #[track_caller]
    fn check(phases: &str, want: &str) {
        let mut told = Told::default();
        let mut said = Vec::new();
        let mut last = None;
        for word in phases.split_whitespace() {
            let mut tell = |news| {
                said.push(match news {
                    News::Running { .. } => "run",
                    News::Exited { .. } => "end",
                    News::LaunchFailed { .. } => "fail",
                    News::Lost => "lost",
                });
            };
            let phase = match word {
                "ready" => Phase::Ready,
                "forked" => Phase::Forked,
                "running" => Phase::Running,
                "stopping" => Phase::Stopping,
                "exited" => Phase::Exited,
                "done" => Phase::Done,
                "stuck" => Phase::Stuck,
                "failed" => Phase::ExecFailed,
                _ => {
                    told.gone(last.as_ref(), &mut tell);
                    continue;
                }
            };
            let exit_kind = match phase {
                Phase::Exited | Phase::Done => ExitKind::Code,
                Phase::ExecFailed => ExitKind::Exec,
                _ => ExitKind::None,
            };
            let slot = Slot { phase, exit_kind, ..Slot::default() };
            told.slot(&slot, &mut tell);
            last = Some(slot);
        }
        assert_eq!(said.join(" "), want, "{phases}");
    }

    #[test]
    fn one_start_and_one_end_are_told() {
        check("ready forked running running exited done done !", "run end");
        check("ready forked failed !", "fail");
        check("running stopping stuck stopping done", "run end");
        // The end waits for the output, or for the supervisor's own end.
        check("running exited", "run");
        check("running exited !", "run end");
        check("done !", "run end");
        check("!", "fail");
        check("forked !", "fail");
        check("running !", "run lost");
        check("running ! !", "run lost");
    }

    #[test]
    fn what_a_folder_tells_at_a_start() {
        let told = |fate, phase, exit_kind| {
            let slot = Slot { phase, exit_kind, ..Slot::default() };
            found(fate, Some(&slot), Wall(1)).len()
        };
        assert_eq!(told(Fate::Adopt, Phase::Ready, ExitKind::None), 0);
        assert_eq!(told(Fate::Adopt, Phase::Running, ExitKind::None), 1);
        assert!(matches!(
            found(Fate::Adopt, Some(&Slot { phase: Phase::Done, exit_kind: ExitKind::Code, ..Slot::default() }), Wall(1))[..],
            [News::Exited { .. }]
        ));
        assert_eq!(told(Fate::Consume, Phase::Exited, ExitKind::Signal), 1);
        assert_eq!(told(Fate::Orphan, Phase::Forked, ExitKind::None), 0);
        assert_eq!(told(Fate::Orphan, Phase::Running, ExitKind::None), 2);
        assert_eq!(found(Fate::Adopt, None, Wall(1)), []);
        assert_eq!(found(Fate::Leave, None, Wall(7)), [News::Running { started_at: Wall(7), pid: 0 }]);
    }
}
