//! Task states and events as the API shows them: the texts, the flat fields and `Details`.
//!
//! Shape: `runtime::event` -> JSON. Texts and keys: `spec/runtime.md` 1.4, `spec/http-api.md` 2.1 (upstream v1.3.1
//! nomad/structs/structs.go `TaskEvent.PopulateEventDisplayMessage`; behaviour only). Both forms are filled: old CLIs read the flat one.

use std::borrow::Cow;

use dunlin_hal::clock::Wall;
use dunlin_runtime::event::{EventKind, TaskEvent, TaskPhase, TaskState};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::model::alloc::TaskEntry;
use crate::wire::go_text;

/// The reason that is not shown: the policy did what it says.
const WITHIN_POLICY: &str = "Restart within policy";

/// `{task: TaskState}`.
pub struct TaskStates<'a>(pub &'a [TaskEntry]);

impl Serialize for TaskStates<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_map(self.0.iter().map(|entry| (&entry.name, shown(&entry.state))))
    }
}

/// `TaskState` on the wire.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
    state: &'static str,
    failed: bool,
    restarts: u64,
    last_restart: Option<String>,
    started_at: Option<String>,
    finished_at: Option<String>,
    events: Events<'a>,
    task_handle: (),
    paused: &'static str,
}

fn shown(state: &TaskState) -> Shown<'_> {
    Shown {
        state: phase(state.phase),
        failed: state.is_failed,
        restarts: state.restarts_n,
        last_restart: time(state.last_restart_at),
        started_at: time(state.started_at),
        finished_at: time(state.finished_at),
        events: Events(&state.events),
        task_handle: (),
        paused: "",
    }
}

/// The word for a phase on the wire.
#[must_use]
pub fn phase(phase: TaskPhase) -> &'static str {
    match phase {
        TaskPhase::Pending => "pending",
        TaskPhase::Running => "running",
        TaskPhase::Dead => "dead",
    }
}

/// RFC 3339, or `null` when unset.
#[must_use]
pub fn time(at: Wall) -> Option<String> {
    (!at.is_unset()).then(|| go_text::time(at.0))
}

struct Events<'a>(&'a [TaskEvent]);

impl Serialize for Events<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(self.0.iter().map(flat))
    }
}

/// `TaskEvent` on the wire: every field always present.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Flat<'a> {
    r#type: &'static str,
    time: i64,
    message: &'a str,
    display_message: Cow<'a, str>,
    details: Details<'a>,
    fails_task: bool,
    restart_reason: &'a str,
    setup_error: &'a str,
    driver_error: &'a str,
    exit_code: i32,
    signal: i32,
    kill_timeout: u64,
    kill_error: &'a str,
    kill_reason: &'a str,
    start_delay: u64,
    download_error: &'a str,
    validation_error: &'a str,
    disk_limit: i64,
    failed_sibling: &'a str,
    vault_error: &'a str,
    task_signal_reason: &'a str,
    task_signal: &'a str,
    driver_message: &'a str,
    generic_source: &'a str,
}

/// At most four pairs.
#[derive(Default)]
struct Details<'a>([(&'static str, Cow<'a, str>); 4]);

impl Serialize for Details<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut map = out.serialize_map(None)?;
        for (key, value) in self.0.iter().filter(|(key, _)| !key.is_empty()) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

fn details<'a, const N: usize>(pairs: [(&'static str, Cow<'a, str>); N]) -> Details<'a> {
    let mut all = Details::default();
    for (slot, pair) in all.0.iter_mut().zip(pairs) {
        *slot = pair;
    }
    all
}

/// Only shown when not empty.
fn given<'a>(key: &'static str, value: &'a str) -> (&'static str, Cow<'a, str>) {
    if value.is_empty() { ("", Cow::Borrowed("")) } else { (key, Cow::Borrowed(value)) }
}

fn text_or<'a>(text: &'a str, otherwise: &'static str) -> Cow<'a, str> {
    Cow::Borrowed(if text.is_empty() { otherwise } else { text })
}

fn span(ns: u64) -> String {
    go_text::duration(i64::try_from(ns).unwrap_or(i64::MAX))
}

/// The text a person reads for this event.
#[must_use]
pub fn display_message(event: &TaskEvent) -> String {
    flat(event).display_message.into_owned()
}

/// The event's `Type`.
#[must_use]
pub fn type_word(event: &TaskEvent) -> &'static str {
    flat(event).r#type
}

#[expect(clippy::too_many_lines, reason = "one arm per kind of event, as the table it implements")]
fn flat(event: &TaskEvent) -> Flat<'_> {
    let base = Flat { time: event.at.0, ..Flat::default() };
    let with_message = |r#type, message: &str| (r#type, details([("message", Cow::Owned(message.to_owned()))]));
    match &event.kind {
        EventKind::Received => Flat { r#type: "Received", display_message: "Task received by client".into(), ..base },
        EventKind::Setup { message } => {
            let (r#type, details) = with_message("Task Setup", message);
            Flat { r#type, details, message, display_message: message.into(), ..base }
        }
        EventKind::FailedValidation { error } => Flat {
            r#type: "Failed Validation",
            validation_error: error,
            display_message: text_or(error, "Validation of task failed"),
            details: details([given("validation_error", error), ("fails_task", "true".into())]),
            fails_task: true,
            ..base
        },
        EventKind::SetupFailure { error } => Flat {
            r#type: "Setup Failure",
            setup_error: error,
            display_message: text_or(error, "Task setup failed"),
            details: details([given("setup_error", error), ("fails_task", "true".into())]),
            fails_task: true,
            ..base
        },
        EventKind::DriverFailure { error } => Flat {
            r#type: "Driver Failure",
            driver_error: error,
            display_message: text_or(error, "Failed to start task"),
            details: details([given("driver_error", error)]),
            ..base
        },
        EventKind::Driver { message } => Flat {
            r#type: "Driver",
            driver_message: message,
            display_message: message.into(),
            details: details([given("driver_message", message)]),
            ..base
        },
        EventKind::Started => Flat { r#type: "Started", display_message: "Task started by client".into(), ..base },
        EventKind::Terminated { exit_code, signal, oom_killed, message } => {
            let mut text = format!("Exit Code: {exit_code}");
            if *signal != 0 {
                text.push_str(&format!(", Signal: {signal}"));
            }
            if !message.is_empty() {
                text.push_str(&format!(", Exit Message: {}", go_text::quote(message)));
            }
            Flat {
                r#type: "Terminated",
                exit_code: *exit_code,
                signal: *signal,
                message,
                display_message: text.into(),
                details: details([
                    ("exit_code", exit_code.to_string().into()),
                    ("signal", signal.to_string().into()),
                    ("oom_killed", if *oom_killed { "true" } else { "false" }.into()),
                    given("exit_message", message),
                ]),
                ..base
            }
        }
        EventKind::Restarting { delay_ns, reason } => {
            let wait = format!("Task restarting in {}", span(*delay_ns));
            let is_plain = reason.is_empty() || reason == WITHIN_POLICY;
            Flat {
                r#type: "Restarting",
                start_delay: *delay_ns,
                restart_reason: reason,
                display_message: if is_plain { wait } else { format!("{reason} - {wait}") }.into(),
                details: details([("start_delay", delay_ns.to_string().into()), ("restart_reason", reason.into())]),
                ..base
            }
        }
        EventKind::NotRestarting { reason } => Flat {
            r#type: "Not Restarting",
            restart_reason: reason,
            display_message: text_or(reason, "Task exceeded restart policy"),
            details: details([("restart_reason", reason.into()), ("fails_task", "true".into())]),
            fails_task: true,
            ..base
        },
        EventKind::RestartSignaled { reason } => Flat {
            r#type: "Restart Signaled",
            restart_reason: reason,
            display_message: text_or(reason, "Task signaled to restart"),
            details: details([("restart_reason", reason.into())]),
            ..base
        },
        EventKind::Signaling { signal, reason } => Flat {
            r#type: "Signaling",
            task_signal_reason: reason,
            display_message: text_or(reason, "Task being sent a signal"),
            details: details([given("signal", signal)]),
            ..base
        },
        EventKind::Killing { timeout_ns, reason } => Flat {
            r#type: "Killing",
            kill_timeout: *timeout_ns,
            kill_reason: reason,
            display_message: if !reason.is_empty() {
                reason.into()
            } else if *timeout_ns == 0 {
                "Sent interrupt".into()
            } else {
                format!("Sent interrupt. Waiting {} before force killing", span(*timeout_ns)).into()
            },
            details: details([
                if *timeout_ns == 0 { given("", "") } else { ("kill_timeout", span(*timeout_ns).into()) },
                given("kill_reason", reason),
            ]),
            ..base
        },
        EventKind::Killed { error } => Flat {
            r#type: "Killed",
            kill_error: error,
            display_message: text_or(error, "Task successfully killed"),
            details: details([given("kill_error", error)]),
            ..base
        },
        EventKind::SiblingFailed { task } => Flat {
            r#type: "Sibling Task Failed",
            failed_sibling: task,
            display_message: if task.is_empty() {
                "Task's sibling failed".into()
            } else {
                format!("Task's sibling {} failed", go_text::quote(task)).into()
            },
            details: details([given("failed_sibling", task)]),
            ..base
        },
        EventKind::LeaderDead => Flat { r#type: "Leader Task Dead", display_message: "Leader Task in Group dead".into(), ..base },
        EventKind::MainTasksDead => Flat { r#type: "Main Tasks Dead", display_message: "Main tasks in the group died".into(), ..base },
        EventKind::WaitingShutdownDelay { delay_ns } => {
            let text = format!("Waiting for shutdown_delay of {} before killing the task.", span(*delay_ns));
            Flat { r#type: "Waiting for shutdown delay", details: with_message("", &text).1, display_message: text.into(), ..base }
        }
        EventKind::Unhealthy { message } => {
            let (r#type, details) = with_message("Alloc Unhealthy", message);
            Flat { r#type, details, message, display_message: message.into(), ..base }
        }
        EventKind::SkippingShutdownDelay { delay_ns } => {
            let text = format!("Skipping shutdown_delay of {} before killing the task.", span(*delay_ns));
            Flat { r#type: "Skipping shutdown delay", details: with_message("", &text).1, display_message: text.into(), ..base }
        }
    }
}
