//! Deployments in rows: begun and ended by plans, moved on by the health of their allocations and by users.
//!
//! Shape: facts (health, deadlines, what a user asks) -> rows put into the open batch, and the evaluation that continues, which
//! the caller has processed. Never: clocks of its own; who is late is said by the caller.
//! Errors: rows that cannot be read, and [`Refusal`] for users.
//! Source: `spec/jobs.md` 8; upstream v1.10.0 nomad/deploymentwatcher/deployment_watcher.go, nomad/state/state_store.go,
//! nomad/deployment_endpoint.go (behaviour only).

use core::fmt;

use dunlin_hal::clock::{Now, Wall};
use dunlin_hal::entropy::Rng;
use dunlin_runtime::id::{AllocId, DeploymentId, EvalId};

use super::{Plan, reschedule, version};
use crate::model::alloc::{Allocation, Health};
use crate::model::deployment::{Deployment, DeploymentStatus, text};
use crate::model::eval::{EvalStatus, Evaluation, Trigger};
use crate::model::job::Job;
use crate::store::rows::{JobRow, JobVersion};
use crate::store::{Store, StoreError};

/// Evaluations of a job looked at for the newest state a decision was made on.
const EVALS_LOOKED_AT: usize = 8;

/// What a step is made with.
pub struct Turn<'a> {
    /// Rows.
    pub store: &'a mut Store,
    /// Both clocks.
    pub now: Now,
    /// Ids.
    pub rng: &'a mut Rng,
    /// Versions kept of a job.
    pub versions_max: usize,
}

const SET_HEALTH: &str = "set health of allocations for a";

/// Why a user's ask was refused. `Display` is the text of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Rows cannot be read.
    Store(StoreError),
    /// It is over.
    Terminal {
        /// What cannot be done to it any more.
        verb: &'static str,
    },
    /// It is not about canaries, or they are not healthy: the API's words.
    NotPromotable(String),
    /// An allocation that is not part of it, or none at all: the API's words.
    NotPart(String),
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Terminal { verb } => write!(f, "can't {verb} terminal deployment"),
            Self::NotPromotable(text) | Self::NotPart(text) => f.write_str(text),
        }
    }
}

/// What came of a user's ask or of a look at a deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// The evaluation to process now; it was put.
    pub eval: Option<Evaluation>,
    /// The version of the job that was registered again.
    pub reverted: Option<u64>,
    /// The index of the change.
    pub index: u64,
}

/// What a plan made of a job's deployment.
pub(super) struct Rolled {
    /// The one that is active now; for the caller to put, with what it counts.
    pub(super) active: Option<Deployment>,
    /// The version it was about has become stable.
    pub(super) is_stable: bool,
}

/// Ends the known deployment and begins another, as a plan says.
///
/// # Errors
/// When rows cannot be read.
pub(super) fn roll(
    turn: &mut Turn<'_>,
    eval: &Evaluation,
    (row, known): (Option<&JobRow>, Option<Deployment>),
    plan: &Plan,
    index: u64,
) -> Result<Rolled, StoreError> {
    let mut known = known.filter(|known| known.status.is_active());
    let mut is_stable = false;
    if let Some((status, why)) = plan.end
        && let Some(mut old) = known.take()
    {
        is_stable = status == DeploymentStatus::Successful && version::mark_stable(turn.store, &old.job, old.edition, true)?;
        old.status = status;
        why.clone_into(&mut old.status_description);
        turn.put(&mut old, index);
    }
    if let Some(current) = &mut known {
        for (group, n) in &plan.canaries {
            if let Some(state) = current.group_mut(group) {
                state.desired_canaries_n = *n;
            }
        }
        current.groups.extend(plan.begin.iter().cloned());
        if !plan.canaries.is_empty() || !plan.begin.is_empty() {
            describe(current);
            turn.put(current, index);
        }
    } else if let Some(row) = row.filter(|_| !plan.begin.is_empty()) {
        let mut made = Deployment {
            id: DeploymentId(turn.rng.uuid()),
            job: eval.job.clone(),
            edition: row.edition(),
            job_modify_index: row.modify_index,
            job_spec_modify_index: row.job_modify_index,
            groups: plan.begin.clone(),
            priority: eval.priority,
            create_index: index,
            modify_index: index,
            create_at: turn.now.wall,
            modify_at: turn.now.wall,
            ..Deployment::default()
        };
        describe(&mut made);
        turn.store.add_deployment(&made);
        known = Some(made);
    }
    Ok(Rolled { active: known, is_stable })
}

/// Says what a running deployment waits for.
fn describe(deployment: &mut Deployment) {
    if deployment.status != DeploymentStatus::Running {
        return;
    }
    let is_auto = deployment.groups.iter().filter(|state| state.desired_canaries_n > 0).all(|state| state.auto_promote);
    let why = match (deployment.needs_promotion(), is_auto) {
        (false, _) => text::RUNNING,
        (true, true) => text::AUTO_PROMOTION,
        (true, false) => text::NEEDS_PROMOTION,
    };
    why.clone_into(&mut deployment.status_description);
}

/// Notes in its deployment that the health of an allocation has changed from `was`; the allocation's row is the caller's to put.
///
/// # Errors
/// When rows cannot be read.
pub fn note_health(store: &mut Store, now: Now, alloc: &Allocation, was: Option<bool>) -> Result<(), StoreError> {
    let is = alloc.health.as_ref().and_then(|health| health.is_healthy);
    let (healthy, unhealthy): (i32, i32) = match (was, is) {
        (None, Some(true)) => (1, 0),
        (None, Some(false)) => (0, 1),
        (Some(true), Some(false)) => (-1, 1),
        _ => return Ok(()),
    };
    let Some(mut deployment) = store.view().deployment(alloc.deployment)? else { return Ok(()) };
    let Some(state) = deployment.group_mut(&alloc.group) else { return Ok(()) };
    state.healthy_n = state.healthy_n.saturating_add_signed(healthy);
    state.unhealthy_n = state.unhealthy_n.saturating_add_signed(unhealthy);
    if healthy > 0 && state.progress_deadline_ns > 0 {
        let by = Wall(now.wall.0.saturating_add(state.progress_deadline_ns));
        state.require_progress_by = state.require_progress_by.max(by);
    }
    deployment.modify_index = alloc.modify_index;
    deployment.modify_at = now.wall;
    store.put_deployment(&deployment);
    Ok(())
}

impl Turn<'_> {
    fn put(&mut self, deployment: &mut Deployment, index: u64) {
        deployment.modify_index = index;
        deployment.modify_at = self.now.wall;
        self.store.put_deployment(deployment);
    }

    /// The allocations a deployment has placed or taken over.
    fn allocs(&self, deployment: &Deployment) -> Result<Vec<Allocation>, StoreError> {
        let all = self.store.view().edition_allocs(&deployment.job, deployment.edition)?;
        Ok(all.into_iter().filter(|alloc| alloc.deployment == deployment.id).collect())
    }

    fn active(&self, id: DeploymentId) -> Result<Option<Deployment>, StoreError> {
        Ok(self.store.view().deployment(id)?.filter(|deployment| deployment.status.is_active()))
    }

    fn job(&self, deployment: &Deployment) -> Result<Option<(JobRow, Job)>, StoreError> {
        let Some(row) = self.store.view().job(&deployment.job)?.filter(|row| row.edition() == deployment.edition) else { return Ok(None) };
        let Some(version) = self.store.view().job_version(&deployment.job, row.edition())? else { return Ok(None) };
        let job = Job::from_json(version.spec.as_bytes()).map_err(|_| StoreError::Corrupt { kind: "job version" })?;
        Ok(Some((row, job)))
    }

    fn eval(&mut self, deployment: &Deployment, index: u64) -> Result<Evaluation, StoreError> {
        let kind = self.store.view().job(&deployment.job)?.map(|row| row.stub.kind).unwrap_or_default();
        let eval = Evaluation {
            job: deployment.job.clone(),
            job_type: kind,
            priority: deployment.priority,
            trigger: Trigger::DeploymentWatcher,
            deployment: deployment.id,
            ..Evaluation::made(EvalId(self.rng.uuid()), index, self.now.wall)
        };
        self.store.add_eval(&eval);
        Ok(eval)
    }

    /// Looks at a deployment whose allocations have changed, or whose time has run out (`is_late`): it fails, promotes its
    /// canaries, lets failures be replaced or goes on; or nothing.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn look(&mut self, id: DeploymentId, is_late: bool) -> Result<Moved, StoreError> {
        let Some(deployment) = self.active(id)? else { return Ok(Moved::default()) };
        let Some((_, job)) = self.job(&deployment)? else { return Ok(Moved::default()) };
        let allocs = self.allocs(&deployment)?;
        let seen_index = self.seen_index(&deployment)?;
        let (mut has_failed, mut reverts, mut has_progress) = (false, false, false);
        let mut replaceable = Vec::new();
        for alloc in &allocs {
            let Some(state) = deployment.group(&alloc.group) else { continue };
            let Some(Health { is_healthy: Some(is_healthy), modify_index, .. }) = alloc.health else { continue };
            let policy = job.group(&alloc.group).and_then(|group| group.reschedule_policy.as_ref());
            let has_attempts = policy.is_some_and(|policy| reschedule::due_at(policy, alloc).is_some());
            if is_healthy {
                has_progress |= modify_index > seen_index;
            } else if state.progress_deadline_ns == 0 || !has_attempts {
                // Nothing better will come of waiting.
                has_failed = true;
                reverts |= state.auto_revert;
            } else if !alloc.may_reschedule && alloc.next.is_nil() {
                replaceable.push(alloc.clone());
            }
        }
        if has_failed {
            return self.fail(deployment, text::UNHEALTHY, reverts);
        }
        let behind = || deployment.groups.iter().filter(|state| !state.is_healthy());
        if is_late && behind().next().is_some() {
            let reverts = behind().any(|state| state.auto_revert);
            return self.fail(deployment, text::DEADLINE, reverts);
        }
        if self.is_auto_promotable(&deployment, &allocs) {
            return self.promoted(deployment, &allocs, |_| true);
        }
        if !has_progress && replaceable.is_empty() {
            return Ok(Moved::default());
        }
        let index = self.store.next_index();
        for mut alloc in replaceable {
            alloc.may_reschedule = true;
            alloc.modify_index = index;
            alloc.alloc_modify_index = index;
            self.store.put_alloc(&alloc);
        }
        let eval = self.eval(&deployment, index)?;
        Ok(Moved { eval: Some(eval), reverted: None, index })
    }

    /// The newest state a decision about the job was made on.
    fn seen_index(&self, deployment: &Deployment) -> Result<u64, StoreError> {
        let evals = self.store.view().job_evals(&deployment.job, EVALS_LOOKED_AT)?;
        let seen = evals.iter().filter(|eval| eval.status != EvalStatus::Canceled).map(|eval| eval.snapshot_index.max(eval.create_index));
        Ok(seen.max().unwrap_or(0))
    }

    fn is_auto_promotable(&self, deployment: &Deployment, allocs: &[Allocation]) -> bool {
        let has_canaries = deployment.needs_promotion();
        has_canaries
            && deployment.groups.iter().filter(|state| state.desired_canaries_n > 0).all(|state| {
                let healthy = allocs.iter().filter(|alloc| state.canaries.contains(&alloc.id) && is_healthy(alloc));
                state.auto_promote && u32::try_from(healthy.count()).is_ok_and(|n| n >= state.desired_canaries_n)
            })
    }

    /// A user finds the canaries of these groups good.
    ///
    /// # Errors
    /// When it is over, or its canaries are not healthy.
    pub fn promote(&mut self, id: DeploymentId, is_asked: impl Fn(&str) -> bool) -> Result<Moved, Refusal> {
        let deployment = self.known_active(id, "promote")?;
        if !deployment.groups.iter().any(|state| state.desired_canaries_n > 0) {
            return Err(Refusal::NotPromotable("no canaries to promote".to_owned()));
        }
        let allocs = self.allocs(&deployment)?;
        let mut faults = Vec::new();
        for state in deployment.groups.iter().filter(|state| is_asked(&state.group) && state.desired_canaries_n > 0) {
            let healthy = allocs.iter().filter(|alloc| state.canaries.contains(&alloc.id) && !alloc.is_terminal() && is_healthy(alloc));
            let n = healthy.count();
            if u32::try_from(n).is_ok_and(|n| n < state.desired_canaries_n) {
                faults.push(format!("Task group {:?} has {n}/{} healthy allocations", state.group, state.desired_canaries_n));
            }
        }
        if !faults.is_empty() {
            let head = if faults.len() == 1 { "1 error occurred:".to_owned() } else { format!("{} errors occurred:", faults.len()) };
            return Err(Refusal::NotPromotable(format!("{head}\n\t* {}\n\n", faults.join("\n\t* "))));
        }
        Ok(self.promoted(deployment, &allocs, is_asked)?)
    }

    fn promoted(
        &mut self,
        mut deployment: Deployment,
        allocs: &[Allocation],
        is_asked: impl Fn(&str) -> bool,
    ) -> Result<Moved, StoreError> {
        let index = self.store.next_index();
        for state in deployment.groups.iter_mut().filter(|state| is_asked(&state.group)) {
            state.is_promoted = true;
            if state.progress_deadline_ns > 0 && !state.require_progress_by.is_unset() {
                state.require_progress_by = Wall(self.now.wall.0.saturating_add(state.progress_deadline_ns));
            }
            for alloc in allocs.iter().filter(|alloc| state.canaries.contains(&alloc.id) && !alloc.is_terminal() && is_healthy(alloc)) {
                let mut alloc = alloc.clone();
                if let Some(health) = &mut alloc.health {
                    health.is_canary = false;
                    health.modify_index = index;
                }
                alloc.modify_index = index;
                alloc.alloc_modify_index = index;
                self.store.put_alloc(&alloc);
            }
        }
        describe(&mut deployment);
        self.put(&mut deployment, index);
        let eval = self.eval(&deployment, index)?;
        Ok(Moved { eval: Some(eval), reverted: None, index })
    }

    /// A user holds the deployment, or lets it go on.
    ///
    /// # Errors
    /// When it is over.
    pub fn pause(&mut self, id: DeploymentId, is_paused: bool) -> Result<Moved, Refusal> {
        let mut deployment = self.known_active(id, if is_paused { "pause" } else { "resume" })?;
        let index = self.store.next_index();
        deployment.status = if is_paused { DeploymentStatus::Paused } else { DeploymentStatus::Running };
        text::PAUSED.clone_into(&mut deployment.status_description);
        describe(&mut deployment);
        self.put(&mut deployment, index);
        let eval = if is_paused { None } else { Some(self.eval(&deployment, index)?) };
        Ok(Moved { eval, reverted: None, index })
    }

    /// A user says that it has failed.
    ///
    /// # Errors
    /// When it is over.
    pub fn fail_by_user(&mut self, id: DeploymentId) -> Result<Moved, Refusal> {
        let deployment = self.known_active(id, "fail")?;
        let reverts = deployment.groups.iter().any(|state| state.auto_revert);
        Ok(self.fail(deployment, text::BY_USER, reverts)?)
    }

    /// A user says which allocations are healthy and which are not.
    ///
    /// # Errors
    /// When it is over, or an allocation is not part of it.
    pub fn set_health(&mut self, id: DeploymentId, healthy: &[AllocId], unhealthy: &[AllocId]) -> Result<Moved, Refusal> {
        let deployment = self.known_active(id, SET_HEALTH)?;
        let index = self.store.next_index();
        let mut reverts = false;
        for (alloc, is_healthy) in healthy.iter().map(|id| (id, true)).chain(unhealthy.iter().map(|id| (id, false))) {
            let found = self.store.view().alloc(*alloc)?;
            let Some(mut alloc) = found else { return Err(Refusal::NotPart(format!("unknown alloc \"{alloc}\""))) };
            if alloc.deployment != id {
                return Err(Refusal::NotPart(format!("alloc \"{}\" is not part of deployment \"{id}\"", alloc.id)));
            }
            let health = alloc.health.get_or_insert_default();
            let was = health.is_healthy;
            *health = Health { is_healthy: Some(is_healthy), at_ns: self.now.wall.0, modify_index: index, ..*health };
            alloc.modify_index = index;
            note_health(self.store, self.now, &alloc, was)?;
            self.store.put_alloc(&alloc);
            reverts |= !is_healthy && deployment.group(&alloc.group).is_some_and(|state| state.auto_revert);
        }
        if !unhealthy.is_empty() {
            // With what was just counted.
            let deployment = self.known_active(id, SET_HEALTH)?;
            return Ok(self.fail(deployment, text::UNHEALTHY, reverts)?);
        }
        let eval = self.eval(&deployment, index)?;
        Ok(Moved { eval: Some(eval), reverted: None, index })
    }

    /// One that goes on; `verb` is what is to be done to it.
    fn known_active(&self, id: DeploymentId, verb: &'static str) -> Result<Deployment, Refusal> {
        match self.store.view().deployment(id)? {
            Some(deployment) if deployment.status.is_active() => Ok(deployment),
            Some(_) => Err(Refusal::Terminal { verb }),
            None => Err(Refusal::NotPart("deployment not found".to_owned())),
        }
    }

    /// Ends a deployment; with `reverts` the newest stable version of the job is registered again.
    fn fail(&mut self, mut deployment: Deployment, why: &str, reverts: bool) -> Result<Moved, StoreError> {
        let index = self.store.next_index();
        let mut description = why.to_owned();
        let mut reverted = None;
        if reverts && let Some(mut row) = self.store.view().job(&deployment.job)?.filter(|row| row.edition() == deployment.edition) {
            let current = self.store.view().job_version(&deployment.job, row.edition())?;
            match version::stable(self.store, &deployment.job, &row)? {
                None => description = text::no_rollback(why),
                // To register the same again would fail again, for ever.
                Some(stable) if current.is_some_and(|current| current.spec == stable.spec) => {
                    description = text::rollback_same(why, stable.version);
                }
                Some(JobVersion { version: old, spec, .. }) => {
                    description = text::rollback(why, old);
                    let job = Job::from_json(spec.as_bytes()).map_err(|_| StoreError::Corrupt { kind: "job version" })?;
                    let key = deployment.job.clone();
                    row = version::put(self.store, self.now, &key, (&job, spec), Some(row), index, self.versions_max)?;
                    reverted = Some(row.version);
                    self.store.put_job(&key, &row);
                }
            }
        }
        deployment.status = DeploymentStatus::Failed;
        deployment.status_description = description;
        self.put(&mut deployment, index);
        let eval = self.eval(&deployment, index)?;
        Ok(Moved { eval: Some(eval), reverted, index })
    }
}

fn is_healthy(alloc: &Allocation) -> bool {
    alloc.health.as_ref().is_some_and(|health| health.is_healthy == Some(true))
}
