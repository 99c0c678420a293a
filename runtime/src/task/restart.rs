//! The restart policy of one task. Pure: judges one end of a task; starts and stops nothing.
//!
//! Shape: (policy, window, now, end) -> verdict, and the window moved on.   Units: milliseconds in, nanoseconds out.
//! Invariant: a killed task never restarts; a restart somebody asked for is never counted.   Errors: none.
//! Source: `spec/runtime.md` 2.1; upstream v1.3.1 client/allocrunner/taskrunner/restarts/restarts.go (behaviour only).

use dunlin_hal::clock::Mono;

use crate::spec::{RestartMode, RestartPolicy};

/// The interval in which ends are counted, and how many it has seen. Its lifetime is one boot of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Ends counted since `start`.
    pub count: u32,
    /// When the interval began.
    pub start: Mono,
}

impl Window {
    /// A window that begins now and has seen nothing.
    #[must_use]
    pub fn new(now: Mono) -> Self {
        Self { count: 0, start: now }
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was to be stopped.
    Killed,
    /// It was to be restarted, by a user or a template.
    Triggered,
    /// It never ran.
    StartFailed {
        /// Another attempt may go better.
        is_recoverable: bool,
    },
    /// It ended by itself.
    Exited {
        /// Exit code 0, no signal, no error.
        is_success: bool,
    },
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays ended, as it was told to.
    Killed,
    /// It stays ended, and well.
    Done,
    /// It stays ended, and has failed.
    Failed {
        /// The text of the `Not Restarting` event.
        reason: String,
    },
    /// It starts again.
    Restart {
        /// Wait before the start, nanoseconds.
        delay_ns: u64,
        /// The text of the `Restarting` event.
        reason: &'static str,
    },
}

/// Reason of an ordinary restart; clients leave it out of the text they show.
pub const WITHIN_POLICY: &str = "Restart within policy";
const NO_RESTARTS: &str = "Policy allows no restarts";
const UNRECOVERABLE: &str = "Error was unrecoverable";
const DELAYED: &str = "Exceeded allowed attempts, applying a delay";

/// Decides what follows `end`. `word` is a random word; it spreads the delay over `delay .. 1.25 * delay`.
#[must_use]
pub fn judge(policy: &RestartPolicy, window: &mut Window, now: Mono, word: u64, end: End) -> Verdict {
    let is_success = match end {
        End::Killed => return Verdict::Killed,
        End::Triggered => return Verdict::Restart { delay_ns: 0, reason: "" },
        End::StartFailed { .. } => false,
        End::Exited { is_success } => is_success,
    };
    let is_done = is_success && !policy.on_success;
    if policy.attempts == 0 {
        return if is_done { Verdict::Done } else { Verdict::Failed { reason: NO_RESTARTS.to_owned() } };
    }
    // A start later than now is from another boot.
    if now > window.start.after_ms(policy.interval_ms) || now < window.start {
        *window = Window::new(now);
    }
    window.count = window.count.saturating_add(1);
    if end == (End::StartFailed { is_recoverable: false }) {
        return Verdict::Failed { reason: UNRECOVERABLE.to_owned() };
    }
    if is_done {
        return Verdict::Done;
    }
    if window.count <= policy.attempts {
        return Verdict::Restart { delay_ns: spread_ns(policy.delay_ms, word), reason: WITHIN_POLICY };
    }
    match policy.mode {
        RestartMode::Fail => Verdict::Failed {
            reason: format!(
                "Exceeded allowed attempts {} in interval {} and mode is \"fail\"",
                policy.attempts,
                duration_text(policy.interval_ms)
            ),
        },
        RestartMode::Delay => {
            let left_ns = window.start.after_ms(policy.interval_ms).0.saturating_sub(now.0);
            Verdict::Restart { delay_ns: left_ns, reason: DELAYED }
        }
    }
}

/// `delay + U[0, delay) / 4`; a delay of 0 counts as 1 ns.
fn spread_ns(delay_ms: u64, word: u64) -> u64 {
    let delay_ns = delay_ms.saturating_mul(1_000_000).max(1);
    let below_delay = (u128::from(word) * u128::from(delay_ns)) >> 64;
    delay_ns.saturating_add(u64::try_from(below_delay / 4).unwrap_or(0))
}

/// A duration as Go prints it: `1m0s`, `24h0m0s`, `5.5s`, `250ms`, `0s`.
pub(crate) fn duration_text(ms: u64) -> String {
    if ms < 1_000 {
        return if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") };
    }
    let hours = if ms >= 3_600_000 { format!("{}h", ms / 3_600_000) } else { String::new() };
    let minutes = if ms >= 60_000 { format!("{}m", ms / 60_000 % 60) } else { String::new() };
    let seconds = format!("{}.{:03}", ms / 1_000 % 60, ms % 1_000);
    format!("{hours}{minutes}{}s", seconds.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: End = End::Exited { is_success: true };
    const BAD: End = End::Exited { is_success: false };
    const NO_START: End = End::StartFailed { is_recoverable: false };
    const RETRY: End = End::StartFailed { is_recoverable: true };

    /// A policy from `attempts/interval_s delay_s mode on_success`.
    fn policy(text: &str) -> RestartPolicy {
        let mut words = text.split_whitespace();
        let mut number = || words.next().and_then(|w| w.parse::<u64>().ok()).unwrap();
        let (attempts, interval_s, delay_s) = (u32::try_from(number()).unwrap(), number(), number());
        let mode = if words.next() == Some("delay") { RestartMode::Delay } else { RestartMode::Fail };
        RestartPolicy {
            attempts,
            interval_ms: interval_s * 1000,
            delay_ms: delay_s * 1000,
            mode,
            on_success: words.next() == Some("restart-ok"),
        }
    }

    /// RT06. `ends`: (second, end). Expected, a word each: `kill`, `done`, `fail:<first word of the reason>`, `<wait in seconds>`
    /// with `*` for a wait within the policy (checked to lie in `delay .. 1.25 * delay`), and the final count after `#`.
    #[track_caller]
    fn check(policy_text: &str, ends: &[(u64, End)], expected: &str) {
        let policy = policy(policy_text);
        let mut window = Window::new(Mono(1_000_000_000));
        let mut seen = Vec::new();
        for (i, &(second, end)) in ends.iter().enumerate() {
            let now = Mono(1_000_000_000).after_ms(second * 1000);
            let word = [0, u64::MAX, 1 << 63][i % 3];
            seen.push(match judge(&policy, &mut window, now, word, end) {
                Verdict::Killed => "kill".to_owned(),
                Verdict::Done => "done".to_owned(),
                Verdict::Failed { reason } => format!("fail:{}", reason.split(' ').next().unwrap()),
                Verdict::Restart { delay_ns, reason: WITHIN_POLICY } => {
                    let low = (policy.delay_ms * 1_000_000).max(1);
                    assert!((low..low + low / 4 + 1).contains(&delay_ns), "{delay_ns}");
                    "*".to_owned()
                }
                Verdict::Restart { delay_ns, reason } => {
                    assert!(reason == DELAYED || (reason.is_empty() && delay_ns == 0), "{reason}");
                    (delay_ns / 1_000_000_000).to_string()
                }
            });
        }
        assert_eq!(format!("{} #{}", seen.join(" "), window.count), expected);
    }

    #[test]
    fn killed_and_triggered_come_first_and_are_not_counted() {
        check("2 60 1 fail", &[(0, End::Killed)], "kill #0");
        check("0 60 1 fail", &[(0, End::Killed)], "kill #0");
        check("0 60 1 fail", &[(0, End::Triggered)], "0 #0");
        check("1 60 1 fail", &[(0, End::Triggered), (1, End::Triggered), (2, BAD), (3, End::Triggered)], "0 0 * 0 #1");
    }

    #[test]
    fn no_attempts_means_no_restart() {
        check("0 60 1 fail", &[(0, OK)], "done #0");
        check("0 60 1 fail restart-ok", &[(0, OK)], "fail:Policy #0");
        check("0 60 1 fail", &[(0, BAD)], "fail:Policy #0");
        check("0 60 1 fail", &[(0, NO_START)], "fail:Policy #0");
        check("0 60 1 fail", &[(0, RETRY)], "fail:Policy #0");
    }

    #[test]
    fn success_ends_a_batch_task_and_restarts_a_service() {
        check("2 60 1 fail", &[(0, OK)], "done #1");
        check("2 60 1 fail restart-ok", &[(0, OK), (5, OK), (9, OK)], "* * fail:Exceeded #3");
        check("1 60 1 fail", &[(0, BAD), (2, OK)], "* done #2");
        check("1 60 1 fail", &[(0, BAD), (2, BAD), (4, OK)], "* fail:Exceeded done #3");
    }

    #[test]
    fn start_errors_are_final_unless_recoverable() {
        check("2 60 1 fail restart-ok", &[(0, NO_START)], "fail:Error #1");
        check("2 60 1 delay restart-ok", &[(0, NO_START)], "fail:Error #1");
        check("2 60 1 fail", &[(0, RETRY), (1, RETRY), (2, RETRY)], "* * fail:Exceeded #3");
        check("1 60 1 fail", &[(0, BAD), (1, NO_START)], "* fail:Error #2");
    }

    #[test]
    fn fail_mode_gives_up_inside_the_interval_only() {
        check("2 60 1 fail", &[(1, BAD), (2, BAD), (3, BAD)], "* * fail:Exceeded #3");
        check("2 60 1 fail", &[(1, BAD), (2, BAD), (61, BAD)], "* * * #1");
        // The last nanosecond of the interval still belongs to it.
        check("2 60 1 fail", &[(1, BAD), (2, BAD), (60, BAD)], "* * fail:Exceeded #3");
        check("1 60 0 fail", &[(0, BAD), (30, BAD)], "* fail:Exceeded #2");
    }

    #[test]
    fn delay_mode_waits_for_the_next_interval() {
        check("2 1800 15 delay", &[(0, BAD), (15, BAD), (30, BAD)], "* * 1770 #3");
        check("2 1800 15 delay", &[(0, BAD), (15, BAD), (30, BAD), (1800, BAD)], "* * 1770 0 #4");
        check("2 1800 15 delay", &[(0, BAD), (15, BAD), (30, BAD), (1801, BAD)], "* * 1770 * #1");
        check("1 60 1 delay restart-ok", &[(0, OK), (10, OK), (20, OK)], "* 50 40 #3");
    }

    #[test]
    fn a_window_of_another_boot_is_not_used() {
        let mut window = Window { count: 9, start: Mono(u64::MAX - 5) };
        let verdict = judge(&policy("2 60 1 fail"), &mut window, Mono(7), 0, BAD);
        assert_eq!(verdict, Verdict::Restart { delay_ns: 1_000_000_000, reason: WITHIN_POLICY });
        assert_eq!(window, Window { count: 1, start: Mono(7) });
    }

    #[test]
    fn reasons_are_nomads() {
        let mut window = Window { count: 2, start: Mono(0) };
        let verdict = judge(&policy("2 60 1 fail"), &mut window, Mono(7), 0, BAD);
        let text = "Exceeded allowed attempts 2 in interval 1m0s and mode is \"fail\"";
        assert_eq!(verdict, Verdict::Failed { reason: text.to_owned() });
        for (ms, text) in [
            (0, "0s"),
            (250, "250ms"),
            (5_000, "5s"),
            (5_500, "5.5s"),
            (60_000, "1m0s"),
            (61_001, "1m1.001s"),
            (1_800_000, "30m0s"),
            (86_400_000, "24h0m0s"),
            (u64::MAX, "5124095576030h25m51.615s"),
        ] {
            assert_eq!(duration_text(ms), text);
        }
    }

    #[test]
    fn the_spread_is_a_quarter_and_never_overflows() {
        assert_eq!(spread_ns(0, u64::MAX), 1);
        assert_eq!(spread_ns(1000, 0), 1_000_000_000);
        assert_eq!(spread_ns(1000, u64::MAX), 1_249_999_999);
        assert_eq!(spread_ns(u64::MAX, u64::MAX), u64::MAX);
    }
}
