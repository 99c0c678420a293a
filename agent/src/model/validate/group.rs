//! Faults and warnings of a task group: its policies, network, and what its tasks may not do together.

use std::collections::BTreeMap;

use super::constraint::{check_affinities, check_constraints, check_spreads};
use super::{Checks, Faults, service, task};
use crate::model::job::{Job, MigrateStrategy, Port, ReschedulePolicy, RestartPolicy, TaskGroup, UpdateStrategy, VolumeRequest};
use crate::wire::go_text::{duration, quote};

const SECOND: i64 = 1_000_000_000;

/// All faults of one group, tasks included.
pub(super) fn check(group: &TaskGroup, job: &Job, checks: &Checks<'_>) -> Faults {
    let mut faults = Faults::default();
    let job_type = job.type_text();
    let is_system = job_type == "system";
    if group.name.is_empty() {
        faults.add("Missing task group name");
    } else if group.name.contains('\0') {
        faults.add("Task group name contains null character");
    }
    if group.count.is_some_and(|count| count < 0) {
        faults.add("Task group count can't be negative");
    }
    if group.tasks.is_empty() {
        faults.add("Missing tasks for task group");
    }
    if group.max_client_disconnect_ns.is_some() && group.stop_after_client_disconnect_ns.is_some() {
        faults.add("Task group cannot be configured with both max_client_disconnect and stop_after_client_disconnect");
    }
    if group.max_client_disconnect_ns.is_some_and(|span_ns| span_ns < 0) {
        faults.add("max_client_disconnect cannot be negative");
    }
    check_constraints(&group.constraints, &mut faults);
    check_affinities(&group.affinities, is_system, &mut faults);
    if let Some(policy) = &group.restart_policy {
        faults.nest("", check_restart(policy));
    }
    check_spreads(&group.spreads, is_system, &mut faults);
    match &group.reschedule_policy {
        Some(_) if is_system => faults.add("System jobs should not have a reschedule policy"),
        Some(policy) => faults.nest("", check_reschedule(policy)),
        None => {}
    }
    if group.disk_mb() < 10 {
        faults.add(format!("minimum DiskMB value is 10; got {}", group.disk_mb()));
    }
    if let Some(update) = &group.update {
        if !matches!(job_type, "service" | "system") {
            faults.add(format!("Job type {} does not allow update block", quote(job_type)));
        }
        faults.nest("", check_update(update));
    }
    match &group.migrate {
        Some(strategy) if job_type == "service" => faults.nest("", check_migrate(strategy)),
        Some(_) => faults.add(format!("Job type {} does not allow migrate block", quote(job_type))),
        None => {}
    }
    check_task_names(group, &mut faults);
    for (name, volume) in &group.volumes {
        faults.nest(&format!("Task group volume validation for {name} failed: "), check_volume(volume));
    }
    faults.nest("Task group network validation failed: ", check_networks(group));
    faults.nest("Task group service validation failed: ", service::check_group(group));
    faults.nest("Task group service check validation failed: ", service::check_scripts(group));
    faults.nest("Task group scaling policy validation failed: ", check_scaling(group));
    for task in &group.tasks {
        for (i, mount) in task.volume_mounts.iter().enumerate() {
            if mount.volume.is_empty() {
                faults.add(format!("Task {} has a volume mount ({i}) referencing an empty volume", task.name));
            } else if !group.volumes.contains_key(&mount.volume) {
                faults.add(format!("Task {} has a volume mount ({i}) referencing undefined volume {}", task.name, mount.volume));
            }
        }
        faults.nest(&format!("Task {} validation failed: ", task.name), task::check(task, group, is_system, checks));
    }
    faults
}

fn check_task_names(group: &TaskGroup, faults: &mut Faults) {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, task) in group.tasks.iter().enumerate() {
        let n = i + 1;
        if task.name.is_empty() {
            faults.add(format!("Task {n} missing name"));
        } else if let Some(existing) = first.get(task.name.as_str()) {
            faults.add(format!("Task {n} redefines '{}' from task {existing}", task.name));
        } else {
            first.insert(&task.name, n);
        }
    }
    if group.tasks.iter().filter(|task| task.leader).count() > 1 {
        faults.add("Only one task may be marked as leader");
    }
}

fn check_restart(policy: &RestartPolicy) -> Faults {
    let mut faults = Faults::default();
    let mode = policy.mode.as_deref().unwrap_or_default();
    let attempts = policy.attempts.unwrap_or_default();
    let (interval_ns, delay_ns) = (policy.interval_ns.unwrap_or_default(), policy.delay_ns.unwrap_or_default());
    if !matches!(mode, "delay" | "fail") {
        faults.add(format!("Unsupported restart mode: {}", quote(mode)));
    }
    if attempts == 0 && mode != "fail" {
        faults.add(format!("Restart policy {} with {attempts} attempts is ambiguous", quote(mode)));
    }
    if interval_ns < 5 * SECOND {
        faults.add(format!("Interval can not be less than 5s (got {})", duration(interval_ns)));
    }
    if i128::from(attempts) * i128::from(delay_ns) > i128::from(interval_ns) {
        faults.add(format!(
            "Nomad can't restart the TaskGroup {attempts} times in an interval of {} with a delay of {}",
            duration(interval_ns),
            duration(delay_ns)
        ));
    }
    faults
}

fn check_reschedule(policy: &ReschedulePolicy) -> Faults {
    let mut faults = Faults::default();
    let attempts = policy.attempts.unwrap_or_default();
    let is_unlimited = policy.unlimited.unwrap_or_default();
    if attempts <= 0 && !is_unlimited {
        return faults;
    }
    let interval_ns = policy.interval_ns.unwrap_or_default();
    let (delay_ns, max_delay_ns) = (policy.delay_ns.unwrap_or_default(), policy.max_delay_ns.unwrap_or_default());
    let function = policy.delay_function.as_deref().unwrap_or_default();
    if attempts > 0 {
        if interval_ns <= 0 {
            faults.add("Interval must be a non zero value if Attempts > 0");
        }
        if is_unlimited {
            faults.add(format!(
                "Reschedule Policy with Attempts = {attempts}, Interval = {}, and Unlimited = {is_unlimited} is ambiguous",
                duration(interval_ns)
            ));
            faults.add("If Attempts >0, Unlimited cannot also be set to true");
        }
    }
    let mut is_delay_sound = true;
    if delay_ns < 5 * SECOND {
        faults.add(format!("Delay cannot be less than 5s (got {})", duration(delay_ns)));
        is_delay_sound = false;
    }
    if !matches!(function, "constant" | "exponential" | "fibonacci") {
        faults.add(format!("Invalid delay function {}, must be one of [\"constant\" \"exponential\" \"fibonacci\"]", quote(function)));
        is_delay_sound = false;
    }
    if function != "constant" {
        if max_delay_ns < 5 * SECOND {
            // Upstream shows the delay here, not the ceiling.
            faults.add(format!("Max Delay cannot be less than 5s (got {})", duration(delay_ns)));
            is_delay_sound = false;
        }
        if max_delay_ns < delay_ns {
            faults.add(format!("Max Delay cannot be less than Delay {} (got {})", duration(delay_ns), duration(max_delay_ns)));
            is_delay_sound = false;
        }
    }
    if is_unlimited {
        return faults;
    }
    if interval_ns < 15 * SECOND {
        faults.add(format!("Interval cannot be less than 15s (got {})", duration(interval_ns)));
    }
    if !is_delay_sound {
        return faults;
    }
    if let Some((possible, needed_ns)) = unfit_attempts(attempts, interval_ns, delay_ns, function, max_delay_ns) {
        let ceiling = match function {
            "constant" => format!(" and delay function {}", quote(function)),
            _ => format!(", delay function {}, and delay ceiling {}", quote(function), duration(max_delay_ns)),
        };
        faults.add(format!(
            "Nomad can only make {possible} attempts in {} with initial delay {}{ceiling}",
            duration(interval_ns),
            duration(delay_ns)
        ));
        let rounded_ns = needed_ns.saturating_add(SECOND / 2) / SECOND * SECOND;
        faults.add(format!("Set the interval to at least {} to accommodate {attempts} attempts", duration(rounded_ns)));
    }
    faults
}

/// `Some((attempts that fit, interval that would do))` when not all fit. 128 bits: a growing delay passes any ceiling within 64 steps.
fn unfit_attempts(attempts: i64, interval_ns: i64, delay_ns: i64, function: &str, max_delay_ns: i64) -> Option<(i128, i64)> {
    let [attempts, interval, delay, ceiling] = [attempts, interval_ns, delay_ns, max_delay_ns].map(i128::from);
    let (is_fit, possible, needed) = match function {
        "constant" => (interval >= attempts * delay, interval / delay, attempts * delay),
        "exponential" => {
            let (mut possible, mut needed, mut next) = (0, 0, delay);
            for done in 0..attempts {
                if next > ceiling {
                    // From here on each attempt adds the ceiling.
                    let left = attempts - done;
                    possible += ((interval - 1 - needed).max(0) / ceiling).min(left);
                    needed += ceiling * left;
                    break;
                }
                needed = next;
                possible += i128::from(needed < interval);
                next *= 2;
            }
            (possible >= attempts, possible, needed)
        }
        _ => {
            // Fibonacci: each slot is the sum of the two before; from the ceiling on each adds the ceiling.
            let (mut before, mut last) = (delay, delay);
            let mut first_late = (delay > interval).then_some(0);
            let mut is_at_ceiling = false;
            for slot in 2..attempts {
                if is_at_ceiling {
                    first_late = first_late.or_else(|| Some(slot + (interval - last) / ceiling).filter(|late| *late < attempts));
                    last += ceiling * (attempts - slot);
                    break;
                }
                let sum = before + last;
                is_at_ceiling = sum > ceiling;
                (before, last) = (last, sum.min(ceiling));
                first_late = first_late.or_else(|| (last > interval).then_some(slot));
            }
            (interval >= last, first_late.unwrap_or(0), last)
        }
    };
    (!is_fit).then(|| (possible.max(0), i64::try_from(needed).unwrap_or(i64::MAX)))
}

fn check_update(update: &UpdateStrategy) -> Faults {
    let mut faults = Faults::default();
    let health_check = update.health_check.as_deref().unwrap_or_default();
    let (max_parallel, canary) = (update.max_parallel.unwrap_or_default(), update.canary.unwrap_or_default());
    let min_ns = update.min_healthy_time_ns.unwrap_or_default();
    let (healthy_ns, progress_ns) = (update.healthy_deadline_ns.unwrap_or_default(), update.progress_deadline_ns.unwrap_or_default());
    let stagger_ns = update.stagger_ns.unwrap_or_default();
    if !matches!(health_check, "checks" | "task_states" | "manual") {
        faults.add(format!("Invalid health check given: {}", quote(health_check)));
    }
    if max_parallel < 0 {
        faults.add(format!("Max parallel can not be less than zero: {max_parallel} < 0"));
    }
    if canary < 0 {
        faults.add(format!("Canary count can not be less than zero: {canary} < 0"));
    }
    if canary == 0 && update.auto_promote == Some(true) {
        faults.add("Auto Promote requires a Canary count greater than zero");
    }
    if min_ns < 0 {
        faults.add(format!("Minimum healthy time may not be less than zero: {}", duration(min_ns)));
    }
    if healthy_ns <= 0 {
        faults.add(format!("Healthy deadline must be greater than zero: {}", duration(healthy_ns)));
    }
    if progress_ns < 0 {
        faults.add(format!("Progress deadline must be zero or greater: {}", duration(progress_ns)));
    }
    if min_ns >= healthy_ns {
        faults.add(format!("Minimum healthy time must be less than healthy deadline: {} > {}", duration(min_ns), duration(healthy_ns)));
    }
    if progress_ns != 0 && healthy_ns >= progress_ns {
        faults.add(format!("Healthy deadline must be less than progress deadline: {} > {}", duration(healthy_ns), duration(progress_ns)));
    }
    if stagger_ns <= 0 {
        faults.add(format!("Stagger must be greater than zero: {}", duration(stagger_ns)));
    }
    faults
}

fn check_migrate(strategy: &MigrateStrategy) -> Faults {
    let mut faults = Faults::default();
    let max_parallel = strategy.max_parallel.unwrap_or_default();
    let (min_ns, deadline_ns) = (strategy.min_healthy_time_ns.unwrap_or_default(), strategy.healthy_deadline_ns.unwrap_or_default());
    if max_parallel < 0 {
        faults.add(format!("MaxParallel must be >= 0 but found {max_parallel}"));
    }
    match strategy.health_check.as_deref().unwrap_or_default() {
        "checks" | "task_states" => {}
        "" if max_parallel > 0 => faults.add("Missing HealthCheck"),
        "" => {}
        word => faults.add(format!("Invalid HealthCheck: {}", quote(word))),
    }
    if min_ns < 0 {
        faults.add(format!("MinHealthyTime is {} and must be >= 0", duration(min_ns)));
    }
    if deadline_ns < 0 {
        faults.add(format!("HealthyDeadline is {} and must be >= 0", duration(deadline_ns)));
    }
    if min_ns > deadline_ns {
        faults.add("MinHealthyTime must be less than HealthyDeadline");
    }
    faults
}

fn check_volume(volume: &VolumeRequest) -> Faults {
    let mut faults = Faults::default();
    match volume.volume_type.as_str() {
        "host" => {}
        "csi" => {
            faults.add("CSI volumes are not supported by this agent; use a host volume");
            return faults;
        }
        other => {
            faults.add(format!("volume has unrecognized type {other}"));
            return faults;
        }
    }
    if volume.source.is_empty() {
        faults.add("volume has an empty source");
    }
    if !volume.attachment_mode.is_empty() {
        faults.add("host volumes cannot have an attachment mode");
    }
    if !volume.access_mode.is_empty() {
        faults.add("host volumes cannot have an access mode");
    }
    if !volume.mount_options.is_none() {
        faults.add("host volumes cannot have mount options");
    }
    if volume.per_alloc {
        faults.add("host volumes do not support per_alloc");
    }
    faults
}

fn check_networks(group: &TaskGroup) -> Faults {
    let mut faults = Faults::default();
    let mut taken = Taken::default();
    for network in &group.networks {
        for port in network.reserved_ports.iter().chain(&network.dynamic_ports) {
            taken.label(port, Some("taskgroup network"), &mut faults);
            taken.value(port, "taskgroup network", &mut faults);
            if port.to < -1 {
                faults.add(format!("Port {} cannot be mapped to negative value {}", quote(&port.label), port.to));
            } else if port.to > 65_535 {
                faults.add(format!("Port {} cannot be mapped to a port ({}) greater than 65535", quote(&port.label), port.to));
            }
        }
        if !network.hostname.is_empty() && !network.hostname.contains("${") && !is_domain_name(&network.hostname) {
            faults.add("Hostname is not a valid DNS name");
        }
        if !matches!(network.mode.as_str(), "" | "host") {
            faults.add(format!("network mode {} is not supported by this agent; known: host (or none)", quote(&network.mode)));
        }
    }
    if group.networks.len() > 1 {
        faults.add("a group may have one network");
    }
    for task in &group.tasks {
        for network in task.resources.iter().flat_map(|resources| &resources.networks) {
            for port in network.reserved_ports.iter().chain(&network.dynamic_ports) {
                taken.label(port, None, &mut faults);
                taken.value(port, &task.name, &mut faults);
            }
        }
    }
    faults
}

/// Labels and static ports seen so far, with their owners.
#[derive(Default)]
struct Taken<'a> {
    labels: BTreeMap<&'a str, &'a str>,
    values: BTreeMap<(&'a str, i64), String>,
}

impl<'a> Taken<'a> {
    /// `owner` `None`: the label is only looked up.
    fn label(&mut self, port: &'a Port, owner: Option<&'a str>, faults: &mut Faults) {
        if let Some(other) = self.labels.get(port.label.as_str()) {
            faults.add(format!("Port label {} already in use by {other}", port.label));
        } else if let Some(owner) = owner {
            self.labels.insert(&port.label, owner);
        }
    }

    fn value(&mut self, port: &'a Port, owner: &str, faults: &mut Faults) {
        let network = if port.host_network.is_empty() { "default" } else { &port.host_network };
        if port.value == 0 {
        } else if let Some(other) = self.values.get(&(network, port.value)) {
            faults.add(format!("Static port {} already reserved by {other}", port.value));
        } else if port.value > 65_535 {
            faults.add(format!("Port {} ({}) cannot be greater than 65535", port.label, port.value));
        } else if port.value < 0 {
            faults.add(format!("Port {} ({}) cannot be negative", port.label, port.value));
        } else {
            self.values.insert((network, port.value), format!("{owner}:{}", port.label));
        }
    }
}

/// Labels of 1 to 63 bytes, 254 bytes in all; a dot may end it.
fn is_domain_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 254 && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

fn check_scaling(group: &TaskGroup) -> Faults {
    let mut faults = Faults::default();
    let Some(scaling) = &group.scaling else { return faults };
    let (count, min, max) = (group.count.unwrap_or(1), scaling.min.unwrap_or_default(), scaling.max.unwrap_or_default());
    let mut add = |is_faulty: bool, text: &str| {
        if is_faulty {
            faults.add(format!("Scaling policy invalid: {text}"));
        }
    };
    add(max < 0, "maximum count must be specified and non-negative");
    add(max >= 0 && max < min, "maximum count must not be less than minimum count");
    add(min < 0, "minimum count must be specified and non-negative");
    add(max < count, "task group count must not be greater than maximum count in scaling policy");
    add(count < min, "task group count must not be less than minimum count in scaling policy");
    faults
}

/// What is allowed and probably not meant.
pub(super) fn warnings(group: &TaskGroup) -> Faults {
    let mut found = Faults::default();
    let (count, max_parallel) =
        (group.count.unwrap_or(1), group.update.as_ref().and_then(|update| update.max_parallel).unwrap_or_default());
    if max_parallel > count {
        found.add(format!(
            "Update max parallel count is greater than task group count ({max_parallel} > {count}). \
             A destructive change would result in the simultaneous replacement of all allocations."
        ));
    }
    if group.networks.first().is_some_and(|network| network.mbits > 0) {
        found.add("mbits has been deprecated as of Nomad 0.12.0. Please remove mbits from the network block");
    }
    for task in &group.tasks {
        found.nest("", task::warnings(task));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::unfit_attempts;

    /// The same question answered step by step: (attempts that fit, interval that would do).
    fn step_by_step(attempts: i64, interval: i64, delay: i64, function: &str, ceiling: i64) -> Option<(i128, i64)> {
        let mut slots = Vec::new();
        for i in 0..attempts {
            let slot = match (function, slots.last()) {
                ("constant", _) => delay * (i + 1),
                ("exponential", last) => match delay.checked_mul(1 << i.min(40)).filter(|next| *next <= ceiling) {
                    Some(next) => next,
                    None => last.copied().unwrap_or(0) + ceiling,
                },
                _ if i < 2 => delay,
                (_, Some(last)) => {
                    let was_at_ceiling = (2..slots.len()).any(|j| slots[j - 1] + slots[j - 2] > ceiling);
                    if was_at_ceiling { last + ceiling } else { (last + slots[slots.len() - 2]).min(ceiling) }
                }
                (_, None) => delay,
            };
            slots.push(slot);
        }
        let needed = slots.last().copied().unwrap_or(0);
        match function {
            "constant" => (interval < needed).then(|| (i128::from(interval / delay), needed)),
            "exponential" => {
                let fit = slots.iter().filter(|slot| **slot < interval).count();
                (fit < slots.len()).then(|| (i128::try_from(fit).unwrap(), needed))
            }
            _ => (interval < needed).then(|| (i128::try_from(slots.iter().position(|slot| *slot > interval).unwrap()).unwrap(), needed)),
        }
    }

    #[test]
    fn attempts_that_fit_are_counted_without_stepping_through_them() {
        let mut unfit_n = 0;
        for function in ["constant", "exponential", "fibonacci"] {
            for attempts in [1, 2, 3, 5, 8, 13] {
                for delay in [5, 7, 30] {
                    for ceiling in [30, 31, 60, 100, 1000] {
                        for interval in 15..400 {
                            let want = step_by_step(attempts, interval, delay, function, ceiling);
                            unfit_n += usize::from(want.is_some());
                            assert_eq!(
                                unfit_attempts(attempts, interval, delay, function, ceiling),
                                want,
                                "{attempts} in {interval}, {function} {delay}..{ceiling}"
                            );
                        }
                    }
                }
            }
        }
        assert!(unfit_n > 1000);
    }
}
