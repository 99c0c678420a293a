//! What happened to a task, as facts. The texts and the flat fields clients see are made in `agent::model::task_state`.
//!
//! Source of the kinds: `spec/runtime.md` 1.4 (upstream v1.3.1 nomad/structs/structs.go, `TaskEvent`).

use dunlin_hal::clock::Wall;
use serde::{Deserialize, Serialize};

/// Events kept per task; the oldest is dropped.
pub const EVENTS_MAX: usize = 10;

/// One event of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskEvent {
    /// When, on the wall clock.
    pub at: Wall,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventKind {
    /// The allocation was taken on.
    Received,
    /// A step of setting up (`Task Setup`).
    Setup {
        /// Shown as is.
        message: String,
    },
    /// The driver's configuration cannot be read.
    FailedValidation {
        /// Why.
        error: String,
    },
    /// The folders of the allocation could not be made.
    SetupFailure {
        /// Why.
        error: String,
    },
    /// The task could not be started.
    DriverFailure {
        /// Why.
        error: String,
    },
    /// Information from the driver, and the agent's own remarks.
    Driver {
        /// Shown as is.
        message: String,
    },
    /// The task runs.
    Started,
    /// The process ended.
    Terminated {
        /// 0..=255, 128 + signal, or -1 when the supervisor was lost.
        exit_code: i32,
        /// Signal number; 0 = none.
        signal: i32,
        /// The kernel killed it for memory.
        oom_killed: bool,
        /// Empty = none.
        message: String,
    },
    /// It will start again.
    Restarting {
        /// Wait before the start, nanoseconds.
        delay_ns: u64,
        /// Why; see [`crate::task::restart`].
        reason: String,
    },
    /// It will not start again; the task has failed.
    NotRestarting {
        /// Why.
        reason: String,
    },
    /// A user or a template asked for a restart.
    RestartSignaled {
        /// Why.
        reason: String,
    },
    /// A user sent a signal.
    Signaling {
        /// `SIGUSR1`.
        signal: String,
        /// Shown as is.
        reason: String,
    },
    /// The task is being stopped.
    Killing {
        /// Time until SIGKILL, nanoseconds.
        timeout_ns: u64,
        /// Empty = a plain stop.
        reason: String,
    },
    /// The task was stopped.
    Killed {
        /// Empty = it went well.
        error: String,
    },
    /// Another task of the group failed.
    SiblingFailed {
        /// That task.
        task: String,
    },
    /// The leader ended.
    LeaderDead,
    /// Only sidecars were left.
    MainTasksDead,
    /// A stop waits for `shutdown_delay`.
    WaitingShutdownDelay {
        /// The delay, nanoseconds.
        delay_ns: u64,
    },
    /// A stop skipped `shutdown_delay`.
    SkippingShutdownDelay {
        /// The delay, nanoseconds.
        delay_ns: u64,
    },
    /// The allocation is not healthy, as its deployment sees it.
    Unhealthy {
        /// Why.
        message: String,
    },
}

/// A task as it is shown and stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskState {
    /// Pending, running or dead.
    pub phase: TaskPhase,
    /// The task failed for good.
    pub is_failed: bool,
    /// Number of `Restarting` events so far.
    pub restarts_n: u64,
    /// When the last of them happened; [`Wall::UNSET`] = never.
    pub last_restart_at: Wall,
    /// When it last went to running; [`Wall::UNSET`] = never.
    pub started_at: Wall,
    /// When it died; [`Wall::UNSET`] = it has not.
    pub finished_at: Wall,
    /// The newest [`EVENTS_MAX`] events, oldest first.
    pub events: Vec<TaskEvent>,
}

/// `TaskState.State`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskPhase {
    /// Waiting.
    #[default]
    Pending,
    /// A process exists.
    Running,
    /// Ended.
    Dead,
}

impl TaskState {
    /// Appends one event, dropping the oldest beyond [`EVENTS_MAX`].
    pub fn push(&mut self, event: TaskEvent) {
        if self.events.len() >= EVENTS_MAX {
            self.events.drain(..=self.events.len() - EVENTS_MAX);
        }
        self.events.push(event);
    }
}

/// What the client says of an allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientStatus {
    /// No task has started.
    #[default]
    Pending,
    /// A task runs.
    Running,
    /// All tasks have ended well.
    Complete,
    /// A task has failed.
    Failed,
    /// Only servers say this.
    Lost,
}

impl ClientStatus {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }

    /// True when no task will run again.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Lost)
    }
}
