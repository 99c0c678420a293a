//! Whether this node may run a group at all: datacenter, constraints, drivers. Pure.
//!
//! Shape: (job, group, site) -> nothing, or what filtered the node (the key shown under `ConstraintFiltered`).
//! Source: `spec/jobs.md` 7; upstream v1.3.1 scheduler/feasible.go (behaviour only).

use dunlin_runtime::spec::DriverKind;

use super::compare;
use super::place::Site;

use crate::model::job::{Constraint, Job, TaskGroup};

/// True when one of the job's datacenters is this node's; `*` and prefixes ending in `*` match.
#[must_use]
pub fn is_in_datacenter(job: &Job, datacenter: &str) -> bool {
    job.datacenters.iter().any(|want| match want.strip_suffix('*') {
        Some(prefix) => datacenter.starts_with(prefix),
        None => want == datacenter,
    })
}

/// Checks the job's constraints, then drivers, then the group's and tasks' constraints.
///
/// # Errors
/// The first thing that is not met: `<l> <op> <r>`, or `missing drivers`.
pub fn check(job: &Job, group: &TaskGroup, site: &Site<'_>) -> Result<(), String> {
    all_met(&job.constraints, site)?;
    let has_drivers = group.tasks.iter().all(|task| DriverKind::parse(&task.driver).is_some_and(|driver| site.drivers.contains(&driver)));
    if !has_drivers {
        return Err("missing drivers".to_owned());
    }
    all_met(&group.constraints, site)?;
    group.tasks.iter().try_for_each(|task| all_met(&task.constraints, site))
}

fn all_met(constraints: &[Constraint], site: &Site<'_>) -> Result<(), String> {
    for ask in constraints.iter().filter(|ask| !matches!(ask.operand.as_str(), "distinct_hosts" | "distinct_property")) {
        let left = target(&ask.l_target, site);
        let right = target(&ask.r_target, site);
        if !compare::is_met(&ask.operand, left.as_deref(), right.as_deref()) {
            return Err(format!("{} {} {}", ask.l_target, ask.operand, ask.r_target));
        }
    }
    Ok(())
}

/// True when the job or group asks that no two of its allocations share a node.
#[must_use]
pub fn wants_distinct_hosts(constraints: &[Constraint]) -> bool {
    constraints.iter().any(|ask| ask.operand == "distinct_hosts" && !ask.r_target.eq_ignore_ascii_case("false"))
}

/// The value of a target: a literal, or what the node has under that name; `None` = not found.
fn target(text: &str, site: &Site<'_>) -> Option<String> {
    let Some(name) = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
        return Some(text.to_owned());
    };
    let vars = site.vars;
    match name {
        "node.unique.id" => Some(vars.id.to_string()),
        "node.unique.name" => Some(vars.name.clone()),
        "node.datacenter" => Some(vars.datacenter.clone()),
        "node.region" => Some(vars.region.clone()),
        "node.pool" => Some(vars.pool.clone()),
        "node.class" => Some(vars.class.clone()),
        _ => {
            let in_attributes = name.strip_prefix("attr.").and_then(|key| vars.attributes.get(key));
            in_attributes.or_else(|| name.strip_prefix("meta.").and_then(|key| vars.meta.get(key))).cloned()
        }
    }
}
