//! When to look at which deployment: soon after the health of an allocation has changed, and when the time for progress is over.
//!
//! Times are monotonic and of this life only: after a restart every deployment has its whole time again, so that a clock that is
//! set, or a board that was off, fails nothing.
//! Never: rows. Shape: deployments as put -> [`Deploys::take_due`]. Units: ms.

use std::collections::BTreeMap;

use dunlin_hal::clock::{Mono, Now, Wall};
use dunlin_runtime::id::DeploymentId;

use crate::model::deployment::{Deployment, DeploymentStatus};

/// Changes of health within this time are looked at together.
/// Source: upstream v1.10.0 nomad/deploymentwatcher/deployment_watcher.go `perJobEvalBatchPeriod`.
const GATHER_MS: u64 = 250;

#[derive(Debug, Default)]
struct Group {
    healthy_n: u32,
    unhealthy_n: u32,
    require_progress_by: Wall,
    late_at: Option<Mono>,
}

#[derive(Debug, Default)]
struct Watched {
    look_at: Option<Mono>,
    groups: BTreeMap<String, Group>,
}

/// All active deployments.
#[derive(Debug, Default)]
pub struct Deploys(BTreeMap<DeploymentId, Watched>);

impl Deploys {
    /// A deployment was put, or is found at start.
    pub fn note(&mut self, now: Now, deployment: &Deployment) {
        if !deployment.status.is_active() {
            self.0.remove(&deployment.id);
            return;
        }
        let is_new = !self.0.contains_key(&deployment.id);
        let watched = self.0.entry(deployment.id).or_default();
        let mut has_news = is_new;
        for state in &deployment.groups {
            let group = watched.groups.entry(state.group.clone()).or_default();
            has_news |= (group.healthy_n, group.unhealthy_n) != (state.healthy_n, state.unhealthy_n);
            (group.healthy_n, group.unhealthy_n) = (state.healthy_n, state.unhealthy_n);
            let is_done = !state.is_canarying() && state.is_healthy();
            if is_done || deployment.status == DeploymentStatus::Paused {
                group.late_at = None;
                group.require_progress_by = Wall::UNSET;
            } else if group.require_progress_by != state.require_progress_by {
                group.require_progress_by = state.require_progress_by;
                let deadline_ms = u64::try_from(state.progress_deadline_ns / 1_000_000).unwrap_or(0);
                group.late_at = (!state.require_progress_by.is_unset()).then(|| now.mono.after_ms(deadline_ms));
            }
        }
        if has_news && watched.look_at.is_none() {
            watched.look_at = Some(now.mono.after_ms(GATHER_MS));
        }
    }

    /// When the next one is to be looked at.
    pub fn next_due(&self) -> Option<Mono> {
        self.0
            .values()
            .flat_map(|watched| watched.look_at.into_iter().chain(watched.groups.values().filter_map(|group| group.late_at)))
            .min()
    }

    /// The next one to look at now, and whether its time for progress is over.
    pub fn take_due(&mut self, now: Mono) -> Option<(DeploymentId, bool)> {
        for (id, watched) in &mut self.0 {
            let late: Vec<&mut Group> = watched.groups.values_mut().filter(|group| group.late_at.is_some_and(|at| at <= now)).collect();
            let is_late = !late.is_empty();
            for group in late {
                group.late_at = None;
            }
            let is_due = watched.look_at.is_some_and(|at| at <= now);
            if is_due {
                watched.look_at = None;
            }
            if is_late || is_due {
                return Some((*id, is_late));
            }
        }
        None
    }
}
