//! An evaluation: one run of the scheduler for one job, asked for by somebody, with its outcome.

use dunlin_hal::clock::Wall;
use dunlin_runtime::id::{DeploymentId, EvalId};
use serde::{Deserialize, Serialize};

use super::alloc::{JobKey, Metric};
use super::job::JobKind;

/// `Evaluation.Status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EvalStatus {
    /// Waits for capacity.
    Blocked,
    /// Waits for the scheduler.
    #[default]
    Pending,
    /// Done.
    Complete,
    /// The scheduler failed.
    Failed,
    /// No longer wanted.
    Canceled,
}

impl EvalStatus {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blocked => "blocked",
            Self::Pending => "pending",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// True when nothing more will come of it.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Complete | Self::Failed | Self::Canceled)
    }
}

/// `Evaluation.TriggeredBy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trigger {
    /// A job was registered or its scheduling asked for.
    #[default]
    JobRegister,
    /// A job was stopped.
    JobDeregister,
    /// An allocation was stopped through the API.
    AllocStop,
    /// An allocation failed.
    AllocFailure,
    /// What could not be placed waits for capacity.
    QueuedAllocs,
    /// The node changed.
    NodeUpdate,
    /// The node is drained.
    NodeDrain,
    /// A deployment changed.
    DeploymentWatcher,
    /// A slot of a periodic job.
    PeriodicJob,
    /// A count was changed.
    JobScaling,
    /// Room was made.
    Preemption,
}

impl Trigger {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::JobRegister => "job-register",
            Self::JobDeregister => "job-deregister",
            Self::AllocStop => "alloc-stop",
            Self::AllocFailure => "alloc-failure",
            Self::QueuedAllocs => "queued-allocs",
            Self::NodeUpdate => "node-update",
            Self::NodeDrain => "node-drain",
            Self::DeploymentWatcher => "deployment-watcher",
            Self::PeriodicJob => "periodic-job",
            Self::JobScaling => "job-scaling",
            Self::Preemption => "preemption",
        }
    }
}

/// One evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evaluation {
    /// Identity.
    pub id: EvalId,
    /// The job.
    pub job: JobKey,
    /// The job's type; `service` for a deregistration whatever the job's (`spec/jobs.md` 5).
    pub job_type: JobKind,
    /// 1..=100.
    pub priority: u8,
    /// Who asked.
    pub trigger: Trigger,
    /// The job's index when it was asked for; 0 = not told.
    pub job_modify_index: u64,
    /// Outcome.
    pub status: EvalStatus,
    /// Why.
    pub status_description: String,
    /// Not before this time; [`Wall::UNSET`] = at once.
    pub wait_until: Wall,
    /// The longest it may wait, ms: a wall clock that was set back must not make it wait for ever.
    pub wait_max_ms: u64,
    /// The evaluation that continues this one; nil = none.
    pub next: EvalId,
    /// The evaluation this one continues; nil = none.
    pub previous: EvalId,
    /// The blocked evaluation made for what could not be placed; nil = none.
    pub blocked: EvalId,
    /// Deployment; nil = none.
    pub deployment: DeploymentId,
    /// Groups that could not be placed, and why.
    pub failed_groups: Vec<(String, Metric)>,
    /// Allocations still wanted, per group, in the order of the job.
    pub queued: Vec<(String, u32)>,
    /// State the decision was made on.
    pub snapshot_index: u64,
    /// Index at which it was made; never changes, orders all lists.
    pub create_index: u64,
    /// Index of the last change.
    pub modify_index: u64,
    /// When it was made.
    pub create_at: Wall,
    /// When it was last changed.
    pub modify_at: Wall,
}

impl Evaluation {
    /// An evaluation as it is made at `index` and time `now`. Job, priority and trigger are the maker's to say.
    #[must_use]
    pub fn made(id: EvalId, index: u64, now: Wall) -> Self {
        Self { id, snapshot_index: index, create_index: index, modify_index: index, create_at: now, modify_at: now, ..Self::default() }
    }
}
