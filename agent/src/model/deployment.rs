//! A deployment: how one version of a service job takes the place of the one before, and whether it may.
//!
//! Source: `spec/jobs.md` 8; upstream v1.10.0 nomad/structs/structs.go (behaviour only).

use dunlin_hal::clock::Wall;
use dunlin_runtime::id::{AllocId, DeploymentId};
use serde::{Deserialize, Serialize};

use super::alloc::{Edition, JobKey};

/// `Deployment.Status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeploymentStatus {
    /// Allocations are placed and watched.
    #[default]
    Running,
    /// A user holds it.
    Paused,
    /// All that was wanted is healthy.
    Successful,
    /// It did not become healthy, or a user said so.
    Failed,
    /// Something newer, or nothing, is wanted.
    Cancelled,
}

impl DeploymentStatus {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Successful => "successful",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// True while something may still come of it.
    #[must_use]
    pub fn is_active(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// How far one group has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The group.
    pub group: String,
    /// A failure registers the newest stable version.
    pub auto_revert: bool,
    /// Healthy canaries are promoted without asking.
    pub auto_promote: bool,
    /// The canaries were found good: the rest may follow.
    pub is_promoted: bool,
    /// Time within which one more allocation has to become healthy; 0 = no such bound.
    pub progress_deadline_ns: i64,
    /// When that time is over, for display; [`Wall::UNSET`] = nothing was placed yet.
    pub require_progress_by: Wall,
    /// Allocations placed beside the old version.
    pub canaries: Vec<AllocId>,
    /// Canaries wanted.
    pub desired_canaries_n: u32,
    /// Allocations wanted under the new version.
    pub desired_n: u32,
    /// Placed so far.
    pub placed_n: u32,
    /// Healthy.
    pub healthy_n: u32,
    /// Not healthy.
    pub unhealthy_n: u32,
}

impl GroupState {
    /// True while its canaries wait for somebody to find them good.
    #[must_use]
    pub fn is_canarying(&self) -> bool {
        self.desired_canaries_n > 0 && !self.is_promoted
    }

    /// True when as many are healthy as are wanted for now.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy_n >= if self.is_canarying() { self.desired_canaries_n } else { self.desired_n }
    }
}

/// One deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deployment {
    /// Identity.
    pub id: DeploymentId,
    /// The job.
    pub job: JobKey,
    /// The version that takes over.
    pub edition: Edition,
    /// The job's `ModifyIndex` when it was made.
    pub job_modify_index: u64,
    /// The job's `JobModifyIndex`.
    pub job_spec_modify_index: u64,
    /// The groups it moves, in the order of the job.
    pub groups: Vec<GroupState>,
    /// How it stands.
    pub status: DeploymentStatus,
    /// Why.
    pub status_description: String,
    /// Priority of the evaluations made for it.
    pub priority: u8,
    /// Index at which it was made; never changes, orders all lists.
    pub create_index: u64,
    /// Index of the last change.
    pub modify_index: u64,
    /// When it was made.
    pub create_at: Wall,
    /// When it was last changed.
    pub modify_at: Wall,
}

impl Deployment {
    /// The state of a group it moves.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&GroupState> {
        self.groups.iter().find(|state| state.group == name)
    }

    /// See [`Deployment::group`].
    pub fn group_mut(&mut self, name: &str) -> Option<&mut GroupState> {
        self.groups.iter_mut().find(|state| state.group == name)
    }

    /// True when some group's canaries wait to be found good.
    #[must_use]
    pub fn needs_promotion(&self) -> bool {
        self.groups.iter().any(GroupState::is_canarying)
    }
}

/// `StatusDescription`s.
pub mod text {
    /// Placed and watched.
    pub const RUNNING: &str = "Deployment is running";
    /// Canaries wait for a user.
    pub const NEEDS_PROMOTION: &str = "Deployment is running but requires manual promotion";
    /// Canaries are promoted when they are healthy.
    pub const AUTO_PROMOTION: &str = "Deployment is running pending automatic promotion";
    /// Held.
    pub const PAUSED: &str = "Deployment is paused";
    /// All healthy.
    pub const SUCCESSFUL: &str = "Deployment completed successfully";
    /// The job was stopped.
    pub const STOPPED_JOB: &str = "Cancelled because job is stopped";
    /// A newer version came.
    pub const NEWER_JOB: &str = "Cancelled due to newer version of job";
    /// Something did not become healthy.
    pub const UNHEALTHY: &str = "Failed due to unhealthy allocations";
    /// Nothing became healthy in time.
    pub const DEADLINE: &str = "Failed due to progress deadline";
    /// A user said so.
    pub const BY_USER: &str = "Deployment marked as failed";

    /// After `why` an older version was registered again.
    #[must_use]
    pub fn rollback(why: &str, version: u64) -> String {
        format!("{why} - rolling back to job version {version}")
    }

    /// After `why` the stable version turned out to be the same.
    #[must_use]
    pub fn rollback_same(why: &str, version: u64) -> String {
        format!("{why} - not rolling back to stable job version {version} as current job has same specification")
    }

    /// After `why` there was nothing to go back to.
    #[must_use]
    pub fn no_rollback(why: &str) -> String {
        format!("{why} - no stable job version to auto revert to")
    }
}
