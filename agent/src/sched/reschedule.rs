//! When a failed allocation is replaced by a new one. Pure.
//!
//! Shape: (policy, the failures of its line, when it failed) -> the time of its replacement, or never. Units: ns of wall time.
//! Restarts come first: an allocation has failed when its restart policies have given up.
//! Source: `spec/runtime.md` 2.1; upstream v1.10.0 nomad/structs/structs.go `NextRescheduleTime`, `NextDelay`,
//! scheduler/generic_sched.go `updateRescheduleTracker` (behaviour only).

use dunlin_hal::clock::Wall;

use crate::model::alloc::{Allocation, RescheduleEvent};
use crate::model::job::ReschedulePolicy;

/// Earlier failures kept of a line that is replaced for ever.
const EVENTS_MAX: usize = 5;

/// True when the policy replaces at all.
#[must_use]
pub fn is_enabled(policy: &ReschedulePolicy) -> bool {
    policy.attempts.unwrap_or(0) > 0 || policy.unlimited.unwrap_or(false)
}

/// When the allocation failed: when its last task ended.
#[must_use]
pub fn failed_at(alloc: &Allocation) -> Wall {
    let last = alloc.tasks.iter().map(|task| task.state.finished_at).max().unwrap_or_default();
    if last.is_unset() { alloc.modify_at } else { last }
}

/// When its replacement is due; `None` = its policy has no attempt left.
#[must_use]
pub fn due_at(policy: &ReschedulePolicy, alloc: &Allocation) -> Option<Wall> {
    if !is_enabled(policy) {
        return None;
    }
    let (failed_at, delay_ns) = (failed_at(alloc), delay_ns(policy, alloc));
    let interval_ns = policy.interval_ns.unwrap_or(0);
    let attempts = policy.attempts.unwrap_or(0);
    let has_attempt = policy.unlimited.unwrap_or(false)
        || alloc.reschedules.is_empty()
        || (attempts_n(&alloc.reschedules, failed_at, interval_ns) < attempts && delay_ns < interval_ns);
    has_attempt.then(|| Wall(failed_at.0.saturating_add(delay_ns)))
}

fn attempts_n(events: &[RescheduleEvent], failed_at: Wall, interval_ns: i64) -> i64 {
    let recent = events.iter().filter(|event| interval_ns > 0 && failed_at.0.saturating_sub(event.at_ns) <= interval_ns);
    i64::try_from(recent.count()).unwrap_or(i64::MAX)
}

/// Time between the failure and the replacement, ns.
#[must_use]
pub fn delay_ns(policy: &ReschedulePolicy, alloc: &Allocation) -> i64 {
    let base_ns = policy.delay_ns.unwrap_or(0);
    let max_ns = policy.max_delay_ns.unwrap_or(0);
    let Some(last) = alloc.reschedules.last() else { return base_ns };
    let before_last = alloc.reschedules.len().checked_sub(2).and_then(|i| alloc.reschedules.get(i));
    let grown_ns = match (policy.delay_function.as_deref(), before_last) {
        (Some("exponential"), _) => last.delay_ns.saturating_mul(2),
        // The ceiling was reached and the series has begun anew.
        (Some("fibonacci"), Some(before)) if before.delay_ns == max_ns && last.delay_ns == base_ns => base_ns,
        (Some("fibonacci"), Some(before)) => last.delay_ns.saturating_add(before.delay_ns),
        _ => return base_ns,
    };
    if max_ns <= 0 || grown_ns <= max_ns {
        return grown_ns;
    }
    // It ran for longer than the longest delay: that is a success of a kind, and the series begins anew.
    if failed_at(alloc).0.saturating_sub(last.at_ns) > max_ns { base_ns } else { max_ns }
}

/// The failures that the replacement of `previous` carries on.
#[must_use]
pub fn carried(policy: &ReschedulePolicy, previous: &Allocation, now: Wall) -> Vec<RescheduleEvent> {
    let events = &previous.reschedules;
    let interval_ns = policy.interval_ns.unwrap_or(0);
    let mut kept: Vec<RescheduleEvent> = if policy.attempts.unwrap_or(0) > 0 {
        events.iter().filter(|event| interval_ns > 0 && now.0.saturating_sub(event.at_ns) <= interval_ns).cloned().collect()
    } else {
        events[events.len().saturating_sub(EVENTS_MAX)..].to_vec()
    };
    kept.push(RescheduleEvent { at_ns: now.0, previous: previous.id, delay_ns: delay_ns(policy, previous) });
    kept
}

#[cfg(test)]
mod tests {
    use dunlin_runtime::event::TaskState;

    use super::*;
    use crate::model::alloc::TaskEntry;

    const S: i64 = 1_000_000_000;

    /// `policy`: attempts/interval delay function max, `0/0` with unlimited; `line`: seconds of (failure, delay before it);
    /// `failed_s`: when this one failed; `want`: seconds of its replacement.
    #[track_caller]
    fn check(policy: &str, line: &[(i64, i64)], failed_s: i64, want: Option<i64>) {
        let words: Vec<&str> = policy.split(' ').collect();
        let number = |i: usize| words[i].parse::<i64>().unwrap();
        let policy = ReschedulePolicy {
            attempts: Some(number(0)),
            interval_ns: Some(number(1) * S),
            delay_ns: Some(number(2) * S),
            delay_function: Some(words[3].to_owned()),
            max_delay_ns: Some(number(4) * S),
            unlimited: Some(number(0) == 0),
        };
        let events =
            line.iter().map(|(at_s, delay_s)| RescheduleEvent { at_ns: at_s * S, delay_ns: delay_s * S, ..RescheduleEvent::default() });
        let state = TaskState { finished_at: Wall(failed_s * S), ..TaskState::default() };
        let tasks = vec![TaskEntry { state, ..TaskEntry::default() }];
        let alloc = Allocation { reschedules: events.collect(), tasks, ..Allocation::default() };
        assert_eq!(due_at(&policy, &alloc).map(|at| at.0 / S), want);
    }

    #[test]
    fn delays_grow_by_their_function() {
        check("0 0 30 constant 0", &[], 100, Some(130));
        check("0 0 30 constant 0", &[(10, 30), (50, 30)], 100, Some(130));
        check("0 0 30 exponential 3600", &[(10, 30)], 100, Some(160));
        check("0 0 30 exponential 3600", &[(10, 30), (50, 960), (99, 1920)], 100, Some(100 + 3600));
        check("0 0 5 fibonacci 60", &[(10, 5)], 100, Some(105));
        check("0 0 5 fibonacci 60", &[(10, 5), (20, 5)], 100, Some(110));
        check("0 0 5 fibonacci 60", &[(10, 25), (90, 40)], 100, Some(160));
        // The ceiling was reached, and the series began anew.
        check("0 0 5 fibonacci 60", &[(10, 60), (90, 5)], 100, Some(105));
        // It ran for longer than the ceiling.
        check("0 0 5 exponential 60", &[(10, 40)], 1000, Some(1005));
    }

    #[test]
    fn attempts_end() {
        check("1 3600 5 constant 0", &[], 100, Some(105));
        check("1 3600 5 constant 0", &[(50, 5)], 100, None);
        check("1 3600 5 constant 0", &[(50, 5)], 5000, Some(5005));
        check("2 3600 5 constant 0", &[(50, 5)], 100, Some(105));
        // The delay would leave the interval.
        check("2 3600 3600 constant 0", &[(50, 3600)], 100, None);
        let nothing = ReschedulePolicy { attempts: Some(0), unlimited: Some(false), ..ReschedulePolicy::default() };
        assert_eq!(due_at(&nothing, &Allocation::default()), None);
    }

    #[test]
    fn a_line_remembers_what_its_policy_counts() {
        let event = |at_s: i64| RescheduleEvent { at_ns: at_s * S, delay_ns: 5 * S, ..RescheduleEvent::default() };
        let alloc = Allocation { reschedules: (0..8).map(event).collect(), ..Allocation::default() };
        let unlimited = ReschedulePolicy { unlimited: Some(true), delay_ns: Some(5 * S), ..ReschedulePolicy::default() };
        assert_eq!(carried(&unlimited, &alloc, Wall(100 * S)).len(), EVENTS_MAX + 1);
        let limited =
            ReschedulePolicy { attempts: Some(3), interval_ns: Some(95 * S), delay_ns: Some(5 * S), ..ReschedulePolicy::default() };
        let kept: Vec<i64> = carried(&limited, &alloc, Wall(100 * S)).iter().map(|event| event.at_ns / S).collect();
        assert_eq!(kept, [5, 6, 7, 100]);
    }
}
