//! The scheduler of one node that is alone: from an evaluation to a plan, and from the plan to rows.
//!
//! `reconcile`, `reschedule`, `feasible`, `place` and `ports` are pure: values in, a [`Plan`] out. `process` reads the view, asks
//! them, and puts the outcome into the store's open batch; `deploy` and `version` do so for deployments and job versions. It never sees allocations owned by upstream (invariant I6).
//! Source of behaviour: `spec/jobs.md` 5 and 7 (upstream v1.3.1 scheduler/{reconcile,reconcile_util,feasible,rank,generic_sched,system_sched}.go).

pub mod children;
pub mod compare;
pub mod cron;
pub mod deploy;
pub mod feasible;
pub mod periodic;
pub mod place;
pub mod ports;
pub mod preempt;
pub mod process;
pub mod reconcile;
pub mod reschedule;
pub mod version;
pub mod zone;

use dunlin_hal::clock::Wall;
use dunlin_runtime::id::AllocId;

use crate::model::alloc::{Edition, Grant, Metric};
use crate::model::deployment::{DeploymentStatus, GroupState};
use crate::model::diff::DesiredUpdates;

/// What the scheduler decided for one evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Allocations that should end, and why.
    pub stop: Vec<Stop>,
    /// Allocations that go on under the newest version of the job.
    pub update_in_place: Vec<AllocId>,
    /// New allocations.
    pub place: Vec<Placement>,
    /// Failed allocations for which there was no room.
    pub not_replaced: Vec<AllocId>,
    /// Groups of which something could not be placed.
    pub failed_groups: Vec<(String, Metric)>,
    /// Not placed, per group, in the order of the job.
    pub queued: Vec<(String, u32)>,
    /// Failed allocations that are replaced later, and when.
    pub later: Vec<(AllocId, Wall)>,
    /// Groups of a deployment that begins.
    pub begin: Vec<GroupState>,
    /// How the known deployment ends.
    pub end: Option<(DeploymentStatus, &'static str)>,
    /// Canaries that groups of the known deployment want from now on.
    pub canaries: Vec<(String, u32)>,
    /// What is done to each group.
    pub desired: Vec<(String, DesiredUpdates)>,
}

impl Plan {
    /// True when it changes allocations or deployments.
    #[must_use]
    pub fn is_changing(&self) -> bool {
        !self.stop.is_empty()
            || !self.update_in_place.is_empty()
            || !self.place.is_empty()
            || !self.not_replaced.is_empty()
            || !self.later.is_empty()
            || !self.begin.is_empty()
            || self.end.is_some()
            || !self.canaries.is_empty()
    }
}

/// One allocation that should end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    /// It.
    pub alloc: AllocId,
    /// `DesiredDescription`.
    pub description: &'static str,
}

/// One new allocation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Task group.
    pub group: String,
    /// Number in its name.
    pub index: u32,
    /// The allocation it replaces; nil = none.
    pub previous: AllocId,
    /// It replaces a failed one.
    pub is_reschedule: bool,
    /// It tries the new version beside the old one.
    pub is_canary: bool,
    /// The version it runs.
    pub edition: Edition,
    /// Allocations that are stopped to make room for it.
    pub preempts: Vec<AllocId>,
    /// What it gets.
    pub grant: Grant,
    /// How it came to that.
    pub metric: Metric,
}

/// `DesiredDescription` of allocations nobody wants any more.
pub const NOT_NEEDED: &str = "alloc not needed due to job update";
/// `DesiredDescription` of allocations replaced by a newer version.
pub const UPDATED: &str = "alloc is being updated due to job update";
/// `DesiredDescription` of failed allocations that were replaced.
pub const RESCHEDULED: &str = "alloc was rescheduled because it failed";
/// `DesiredDescription` of allocations moved by the stop API.
pub const MIGRATED: &str = "alloc is being migrated";
/// `DesiredDescription` of allocations kept under a newer version.
pub const IN_PLACE: &str = "alloc updating in-place";

#[cfg(test)]
mod tests;
