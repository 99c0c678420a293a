//! The scheduler of one node that is alone: from an evaluation to a plan, and from the plan to rows.
//!
//! `reconcile`, `feasible`, `place` and `ports` are pure: values in, a [`Plan`] out. `process` reads the view, asks them, and
//! puts the outcome into the store's open batch. It never sees allocations owned by upstream (invariant I6).
//! Source of behaviour: `spec/jobs.md` 5 and 7 (upstream v1.3.1 scheduler/{reconcile,reconcile_util,feasible,rank,generic_sched,system_sched}.go).

pub mod compare;
pub mod feasible;
pub mod place;
pub mod ports;
pub mod process;
pub mod reconcile;

use dunlin_runtime::id::AllocId;

use crate::model::alloc::{Grant, Metric};

/// What the scheduler decided for one evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Allocations that should end, and why.
    pub stop: Vec<Stop>,
    /// Allocations that go on under the newest version of the job.
    pub update_in_place: Vec<AllocId>,
    /// New allocations.
    pub place: Vec<Placement>,
    /// Groups of which something could not be placed.
    pub failed_groups: Vec<(String, Metric)>,
    /// Not placed, per group, in the order of the job.
    pub queued: Vec<(String, u32)>,
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
    /// What it gets.
    pub grant: Grant,
    /// How it came to that.
    pub metric: Metric,
}

/// `DesiredDescription` of allocations nobody wants any more.
pub const NOT_NEEDED: &str = "alloc not needed due to job update";
/// `DesiredDescription` of allocations replaced by a newer version.
pub const UPDATED: &str = "alloc is being updated due to job update";
/// `DesiredDescription` of allocations moved by the stop API.
pub const MIGRATED: &str = "alloc is being migrated";
/// `DesiredDescription` of allocations kept under a newer version.
pub const IN_PLACE: &str = "alloc updating in-place";

#[cfg(test)]
mod tests;
