//! An allocation: one placement of one task group on this node.
//!
//! The job it runs is named by version and never copied into it (decision 5). Whoever shows the whole allocation reads
//! that version and hands it in.

use dunlin_hal::clock::Wall;
use dunlin_runtime::event::{ClientStatus, TaskPhase, TaskState};
use dunlin_runtime::id::{AllocId, DeploymentId, EvalId};
use dunlin_runtime::spec::Port;
use dunlin_runtime::task::machine::TaskMemo;
use serde::{Deserialize, Serialize};

use super::job::JobKind;

/// Who decides about an allocation, for its whole life (invariant I6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// This node's own scheduler.
    #[default]
    Local,
    /// The servers this node has joined.
    Upstream,
}

/// What should become of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Desired {
    /// Run.
    #[default]
    Run,
    /// Stop and stay for a while.
    Stop,
    /// Stop to make room.
    Evict,
}

impl Desired {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Stop => "stop",
            Self::Evict => "evict",
        }
    }
}

/// One version of one life of a job: a job that is purged and registered again counts its versions anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edition {
    /// Index at which this life of the job began (`Job.CreateIndex`).
    pub create_index: u64,
    /// From 0.
    pub version: u64,
}

/// Names a job everywhere inside the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    /// Namespace.
    pub namespace: String,
    /// Job ID.
    pub id: String,
}

/// One task of an allocation, as stored and shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskEntry {
    /// Name of the task.
    pub name: String,
    /// Its state.
    pub state: TaskState,
    /// What its machine needs after a restart of the agent.
    pub memo: TaskMemo,
}

/// What one task was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskGrant {
    /// Name of the task.
    pub task: String,
    /// MHz.
    pub cpu_mhz: u32,
    /// MiB.
    pub memory_mb: u32,
    /// MiB; 0 = same as `memory_mb`.
    pub memory_max_mb: u32,
}

/// What the whole allocation was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// Per task, in the order of the job.
    pub tasks: Vec<TaskGrant>,
    /// Shared disk, MiB.
    pub disk_mb: u32,
    /// Ports of the group.
    pub ports: Vec<Port>,
    /// Device and address of the group's network; empty when the group asked for none.
    pub network_device: String,
    /// See `network_device`.
    pub network_ip: String,
    /// Bandwidth shown for that network.
    pub network_mbits: u32,
}

impl Grant {
    /// Sum of the processor shares, MHz.
    #[must_use]
    pub fn cpu_mhz(&self) -> u64 {
        self.tasks.iter().map(|t| u64::from(t.cpu_mhz)).sum()
    }

    /// Sum of the reservations, MiB.
    #[must_use]
    pub fn memory_mb(&self) -> u64 {
        self.tasks.iter().map(|t| u64::from(t.memory_mb)).sum()
    }
}

/// How an allocation stands to its deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `None` = not known yet.
    pub is_healthy: Option<bool>,
    /// When it became known, ns since the epoch.
    pub at_ns: i64,
    /// Placed beside the old version, to try the new one.
    pub is_canary: bool,
    /// Index of the last change.
    pub modify_index: u64,
}

/// One failed start that led to a new allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescheduleEvent {
    /// When, ns since the epoch.
    pub at_ns: i64,
    /// The allocation that failed.
    pub previous: AllocId,
    /// Delay before the new one, ns.
    pub delay_ns: i64,
}

/// `RescheduleTracker.LastReschedule`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LastReschedule {
    /// Nothing was tried.
    #[default]
    None,
    /// It was replaced.
    Placed,
    /// There was no room for a replacement.
    NotPlaced,
}

/// How the scheduler came to place (or not to place) a group: `AllocMetric` of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// The node is in one of the job's datacenters.
    pub is_in_datacenter: bool,
    /// Constraint (or `missing drivers`) that filtered the node; empty = none.
    pub filtered: String,
    /// Dimension that was exhausted; empty = none.
    pub exhausted: String,
    /// Time the decision took, ns.
    pub took_ns: u64,
    /// Further allocations of the group that failed for the same reason.
    pub coalesced_n: u32,
    /// Score of the node in millionths.
    pub score_millionths: i64,
}

/// One allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// Identity.
    pub id: AllocId,
    /// The evaluation that made it.
    pub eval: EvalId,
    /// Who decides about it.
    pub owner: Owner,
    /// The job.
    pub job: JobKey,
    /// The job's version.
    pub edition: Edition,
    /// The job's type.
    pub job_type: JobKind,
    /// The task group.
    pub group: String,
    /// The number in the brackets of the name.
    pub index: u32,
    /// What should become of it.
    pub desired: Desired,
    /// Why.
    pub desired_description: String,
    /// `DesiredTransition.Migrate`: the stop API asked for a replacement.
    pub wants_migrate: bool,
    /// `DesiredTransition.Reschedule`: its deployment lets it be replaced.
    pub may_reschedule: bool,
    /// `DesiredTransition.ForceReschedule`: a new evaluation replaces it although its policy would not.
    pub must_reschedule: bool,
    /// `DesiredTransition.NoShutdownDelay`.
    pub no_shutdown_delay: bool,
    /// What has become of it.
    pub client_status: ClientStatus,
    /// Why.
    pub client_description: String,
    /// Its tasks in the order of the job.
    pub tasks: Vec<TaskEntry>,
    /// What it was given.
    pub grant: Grant,
    /// How it came to be placed.
    pub metric: Metric,
    /// Earlier allocation it replaces; nil = none.
    pub previous: AllocId,
    /// Later allocation that replaces it; nil = none.
    pub next: AllocId,
    /// Evaluation that will replace it later; nil = none.
    pub followup_eval: EvalId,
    /// Deployment it belongs to; nil = none.
    pub deployment: DeploymentId,
    /// How it stands to it; `None` = not at all yet.
    pub health: Option<Health>,
    /// Earlier failures of its line.
    pub reschedules: Vec<RescheduleEvent>,
    /// What came of replacing it.
    pub last_reschedule: LastReschedule,
    /// Allocations that were stopped to make room for it.
    pub preempted: Vec<AllocId>,
    /// The allocation it made room for; nil = none.
    pub preempted_by: AllocId,
    /// Index at which it was made; never changes, orders all lists.
    pub create_index: u64,
    /// Index of the last change of any kind.
    pub modify_index: u64,
    /// Index of the last change of what is desired.
    pub alloc_modify_index: u64,
    /// When it was made.
    pub create_at: Wall,
    /// When it was last changed.
    pub modify_at: Wall,
    /// Its folder was removed from this node; the row stays for its history.
    pub is_destroyed: bool,
}

impl Allocation {
    /// `<job>.<group>[<index>]`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}[{}]", self.job.id, self.group, self.index)
    }

    /// The servers' view: it should not run.
    #[must_use]
    pub fn is_server_terminal(&self) -> bool {
        self.desired != Desired::Run
    }

    /// All its tasks are dead: no process of it is left, none will start. (`failed` may be shown while others still end.)
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.tasks.iter().all(|task| task.state.phase == TaskPhase::Dead)
    }

    /// It should not run, or it has ended.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.is_server_terminal() || self.client_status.is_terminal()
    }
}
