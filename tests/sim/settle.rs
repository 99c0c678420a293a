//! The end of a seed: all is calm, the agent has its time, and then what is there is compared with what is wanted.

use dunlin::model::alloc::{Allocation, Desired, JobKey, LastReschedule};
use dunlin::model::deployment::DeploymentStatus;
use dunlin::model::eval::EvalStatus;
use dunlin::model::job::{JobKind, TaskGroup};
use dunlin::store::rows::JobRow;
use dunlin_runtime::event::ClientStatus;
use dunlin_tests::world::dice::Dice;
use dunlin_tests::world::ledger::{Version, Work, wanted_n};
use dunlin_tests::world::{About, End, World};

/// Time in which everything that was asked for must have happened.
const CALM_MS: u64 = 2 * 3_600_000;

/// Calms the world down, waits, and checks; then perhaps once more after a last restart.
pub fn settle(world: &mut World, dice: &mut Dice) {
    world.calm();
    quiet(world, "at the end");
    if dice.percent(30) {
        let how = if dice.percent(50) { End::Kill } else { End::Cut };
        world.end(how);
        world.calm();
        quiet(world, "after a last restart");
    }
}

fn quiet(world: &mut World, when: &str) {
    let is_quiet = world.run_until_quiet(CALM_MS);
    // A clock that launches jobs never rests.
    let has_clock = world.ledger.jobs.values().any(|row| row.stub.is_periodic && !row.is_stopped);
    assert!(is_quiet || has_clock, "{when}: the agent does not come to rest: {}", world.next());
    assert!(world.is_up(), "{when}: there is no agent");
    let waiting: Vec<String> = world.clients.unanswered().map(|(id, about, _)| format!("{} ({about:?})", id.0)).collect();
    assert!(waiting.is_empty(), "{when}: nobody answers {}", waiting.join(", "));
    assert!(!is_quiet || world.ledger.in_flight_n() == 0, "{when}: batches are not written");
    check(world, is_quiet);
}

fn check(world: &World, is_quiet: bool) {
    let ledger = &world.ledger;
    ledger.check_links();
    let promised: Vec<&About> = world.clients.promised().collect();
    for about in promised {
        world.check_kept(about);
    }
    for (key, row) in ledger.jobs.iter().filter(|(_, row)| !row.stub.is_periodic && !row.stub.is_parameterized) {
        let Some((_, version)) = ledger.wanted(key) else { continue };
        let is_waiting = ledger.evals.values().any(|eval| eval.job == *key && eval.status == EvalStatus::Blocked);
        let is_child = !row.stub.parent_id.is_empty();
        for group in &version.job.task_groups {
            if is_quiet || !is_child {
                check_group(world, key, row, &version, group, is_waiting);
            }
        }
    }
    if !is_quiet {
        return;
    }
    for alloc in ledger.allocs.values() {
        let is_wanted = ledger.wanted(&alloc.job).is_some() && alloc.desired == Desired::Run;
        assert!(
            alloc.is_over() || is_wanted,
            "alloc {} of {} lives and nobody wants it: {:?} {:?}",
            alloc.id,
            alloc.name(),
            alloc.desired,
            alloc.client_status
        );
    }
    for (inv, shim) in &world.shims.all {
        let row = ledger.allocs.get(&shim.alloc);
        let is_known = row.is_some_and(|row| !row.is_over() && row.client_status == ClientStatus::Running);
        assert!(shim.is_running() && is_known, "{inv} of alloc {} task {} is left over", shim.alloc, shim.task);
    }
}

/// A group has as many allocations as it is to have: they run, have done their work, or have failed for good. Else it waits for room
/// that there is not, or its job's deployment was given up.
fn check_group(world: &World, key: &JobKey, row: &JobRow, version: &Version, group: &TaskGroup, is_waiting: bool) {
    let ledger = &world.ledger;
    let kind = version.job.kind();
    let is_here = |alloc: &&Allocation| alloc.group == group.name && alloc.edition.create_index == row.create_index;
    let mut here: Vec<&Allocation> = ledger.of_job(key).filter(is_here).collect();
    here.sort_by_key(|alloc| alloc.create_index);
    let is_finite = matches!(kind, JobKind::Batch | JobKind::Sysbatch);
    // A policy without an end goes on until it runs.
    let is_endless = group.reschedule_policy.as_ref().is_some_and(|policy| policy.unlimited == Some(true)) && kind == JobKind::Service;
    let fills = |alloc: &&&Allocation| {
        let is_current = alloc.edition == row.edition();
        match alloc.client_status {
            ClientStatus::Running => is_current && alloc.desired == Desired::Run && !is_finite,
            ClientStatus::Complete => is_finite && is_current,
            // Of an older version, it is left alone where the new one makes the same processes.
            // What could not be replaced for want of room, and may not be any more, counts for its place: as upstream sees it.
            ClientStatus::Failed => {
                let is_kept = alloc.desired == Desired::Run || alloc.last_reschedule == LastReschedule::NotPlaced;
                is_kept && alloc.next.is_nil() && !is_endless
            }
            ClientStatus::Pending | ClientStatus::Lost => false,
        }
    };
    let is_spent = |work: &&Work| work.0 == *key && work.1.create_index == row.create_index && work.2 == group.name;
    let filled_n = here.iter().filter(fills).count() + ledger.spent.values().filter(is_spent).count();
    let wanted_n = wanted_n(kind, group) as usize;
    let failed_n = here.iter().filter(|alloc| alloc.edition == row.edition() && alloc.client_status == ClientStatus::Failed).count();
    let latest = ledger.deployments.values().filter(|deployment| deployment.job == *key).max_by_key(|deployment| deployment.create_index);
    let is_given_up = latest.is_some_and(|deployment| {
        // What has failed after it was healthy waits for the end of its deployment, which one without a deadline does not have: as upstream
        // sees it.
        let is_endless = deployment.group(&group.name).is_some_and(|state| state.progress_deadline_ns == 0) && failed_n > 0;
        let waits_for_user = deployment.needs_promotion() || deployment.status == DeploymentStatus::Paused || is_endless;
        let is_over = !deployment.status.is_active();
        deployment.edition == row.edition() && ((is_over && deployment.status != DeploymentStatus::Successful) || waits_for_user)
    });
    let was_given_up = ledger.given_up.contains(&(key.clone(), row.edition()));
    if filled_n >= wanted_n || is_given_up || was_given_up {
        return;
    }
    let told: Vec<String> = here
        .iter()
        .map(|alloc| format!("[{}] {} v{} {:?} {:?}", alloc.index, alloc.id, alloc.edition.version, alloc.desired, alloc.client_status))
        .collect();
    let deployment = latest.map_or_else(String::new, |latest| format!("; deployment {:?} {}", latest.status, latest.status_description));
    let number = row.version;
    let deployment = format!("{deployment}; {:?} restarts {:?}", group.reschedule_policy, group.restart_policy);
    assert!(is_waiting, "{}.{} of version {number} has {filled_n} of {wanted_n}: {}{deployment}", key.id, group.name, told.join("; "));
}
