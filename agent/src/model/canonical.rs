//! Fills in what a posted job leaves out and brings it into the one form that is validated, kept and shown.
//!
//! Shape: [`canonicalize`]`(&mut Job, &Ctx)`, pure; a canonical job stays as it is. Units: nanoseconds.
//! Invariant: afterwards every `Option` that `model::job` calls "absent = default" is `Some`, so readers need no defaults of their own.
//! Errors: none; what makes no sense is left as it is for `validate`.
//! Source: `spec/jobs.md` 1 (steps 3, 4), 2, 3; upstream v1.3.1 api/{jobs,tasks,resources,services}.go `Canonicalize`,
//! command/agent/job_endpoint.go, nomad/structs/structs.go `Canonicalize`, nomad/job_endpoint_hooks.go (behaviour only).

use std::collections::BTreeSet;

use crate::model::job::{
    Artifact, CheckRestart, Constraint, EphemeralDisk, Job, JobKind, LogConfig, MigrateStrategy, ReschedulePolicy, Resources,
    RestartPolicy, Service, Task, TaskGroup, Template, UpdateStrategy,
};

const SECOND: i64 = 1_000_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// What the request and the agent add to the job. Empty = not given.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ctx<'a> {
    /// The agent's region.
    pub region: &'a str,
    /// `?region=`.
    pub query_region: &'a str,
    /// `Region` of the request's envelope.
    pub body_region: &'a str,
    /// `?namespace=`.
    pub query_namespace: &'a str,
    /// `Namespace` of the request's envelope.
    pub body_namespace: &'a str,
}

/// The whole of it, in place.
pub fn canonicalize(job: &mut Job, ctx: &Ctx<'_>) {
    let region = first_given(&[ctx.body_region, ctx.query_region, &job.region]);
    job.region = if matches!(region.as_str(), "" | "global") { ctx.region.to_owned() } else { region };
    job.namespace = first_given(&[ctx.query_namespace, ctx.body_namespace, &job.namespace, "default"]);
    job.node_pool = first_given(&[&job.node_pool, "default"]);
    job.consul_token.clear();
    job.vault_token.clear();
    job.name.get_or_insert_with(|| job.id.clone());
    let job_type = job.job_type.get_or_insert_with(|| "service".to_owned()).clone();
    job.priority.get_or_insert(50);
    // A job with nothing to place is refused anyway and keeps the recorded answer, which names the datacenters too.
    if job.datacenters.is_empty() && !job.task_groups.is_empty() {
        job.datacenters.push("*".to_owned());
    }
    if let Some(periodic) = &mut job.periodic {
        periodic.enabled.get_or_insert(true);
        periodic.spec_type.get_or_insert_with(|| "cron".to_owned());
        periodic.time_zone = first_given(&[&periodic.time_zone, "UTC"]);
    }
    if let Some(parameterized) = &mut job.parameterized_job {
        parameterized.payload = first_given(&[&parameterized.payload, "optional"]);
    }
    canonical_weights(&mut job.affinities, &mut job.spreads);

    let of_job = Inherited {
        update: job_update(job.update.take(), &job_type),
        reschedule: job.reschedule.take(),
        migrate: job.migrate.take(),
        job_name: job.name().to_owned(),
        job_id: job.id.clone(),
        namespace: job.namespace.clone(),
        consul_namespace: job.consul_namespace.clone(),
        job_type,
    };
    for group in &mut job.task_groups {
        canonical_group(group, &of_job);
    }
    job.update = Some(kept_update(of_job.update.as_ref()));
}

/// What groups take from their job.
struct Inherited {
    update: Option<UpdateStrategy>,
    reschedule: Option<ReschedulePolicy>,
    migrate: Option<MigrateStrategy>,
    job_name: String,
    job_id: String,
    namespace: String,
    consul_namespace: String,
    job_type: String,
}

fn first_given(texts: &[&str]) -> String {
    texts.iter().find(|text| !text.is_empty()).map_or_else(String::new, |text| (*text).to_owned())
}

/// `value`, else `default`, if both are options.
fn or<T: Clone>(value: &mut Option<T>, default: &Option<T>) {
    if value.is_none() {
        value.clone_from(default);
    }
}

fn canonical_group(group: &mut TaskGroup, job: &Inherited) {
    group.count.get_or_insert_with(|| group.scaling.as_ref().and_then(|scaling| scaling.min).unwrap_or(1));
    let count = group.count.unwrap_or(1);
    if let Some(scaling) = &mut group.scaling {
        scaling.enabled.get_or_insert(true);
        scaling.min.get_or_insert(count);
        scaling.max.get_or_insert(0);
        scaling.scaling_type = first_given(&[&scaling.scaling_type, "horizontal"]);
        scaling.target = [("Namespace", &job.namespace), ("Job", &job.job_id), ("Group", &group.name)]
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .into();
    }
    group.ephemeral_disk.get_or_insert_with(EphemeralDisk::default).size_mb.get_or_insert(300);
    let consul = group.consul.get_or_insert_default();
    consul.namespace = first_given(&[&consul.namespace, &job.consul_namespace]);

    if let Some(of_job) = job.update.as_ref().filter(|of_job| group.update.is_some() || !is_empty_update(of_job)) {
        under_update(group.update.get_or_insert_default(), of_job);
    }
    if let Some(update) = &mut group.update {
        under_update(update, &default_update());
    }

    if let Some(of_job) = &job.reschedule {
        under_reschedule(group.reschedule_policy.get_or_insert_default(), of_job);
    }
    if group.reschedule_policy.is_some() || job.job_type != "system" {
        under_reschedule(group.reschedule_policy.get_or_insert_default(), &default_reschedule(&job.job_type));
    }

    if let Some(of_job) = &job.migrate {
        under_migrate(group.migrate.get_or_insert_default(), of_job);
    }
    if group.migrate.is_some() || job.job_type == "service" {
        under_migrate(group.migrate.get_or_insert_default(), &default_migrate());
    }

    let restart = group.restart_policy.get_or_insert_default();
    under_restart(restart, &default_restart(&job.job_type));
    let restart = restart.clone();

    canonical_weights(&mut group.affinities, &mut group.spreads);
    canonical_ports(&mut group.networks);
    for service in &mut group.services {
        canonical_service(service, job, &group.name, None);
    }
    let group_name = group.name.clone();
    for task in &mut group.tasks {
        canonical_task(task, job, &group_name, &restart);
    }
    for constraint in implied_constraints(group) {
        if !group.constraints.contains(&constraint) {
            group.constraints.push(constraint);
        }
    }
}

fn canonical_task(task: &mut Task, job: &Inherited, group_name: &str, restart: &RestartPolicy) {
    canonical_resources(task.resources.get_or_insert_default());
    if task.kill_timeout_ns.unwrap_or(0) == 0 {
        task.kill_timeout_ns = Some(5 * SECOND);
    }
    let logs = task.log_config.get_or_insert_with(LogConfig::default);
    logs.max_files.get_or_insert(10);
    logs.max_file_size_mb.get_or_insert(10);
    task.artifacts.iter_mut().for_each(canonical_artifact);
    task.templates.iter_mut().for_each(canonical_template);
    let name = task.name.clone();
    for service in &mut task.services {
        canonical_service(service, job, group_name, Some(&name));
    }
    canonical_weights(&mut task.affinities, &mut Vec::new());
    for mount in &mut task.volume_mounts {
        mount.propagation_mode = first_given(&[&mount.propagation_mode, "private"]);
    }
    if task.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.hook.is_empty()) {
        task.lifecycle = None;
    }
    under_restart(task.restart_policy.get_or_insert_default(), restart);
}

fn canonical_resources(resources: &mut Resources) {
    // MHz have a default only when no cores are asked for.
    resources.cpu.get_or_insert(if resources.cores.is_none() { 100 } else { 0 });
    resources.cores.get_or_insert(0);
    resources.memory_mb.get_or_insert(300);
    canonical_ports(&mut resources.networks);
}

fn canonical_ports(networks: &mut [crate::model::job::Network]) {
    for port in networks.iter_mut().flat_map(|network| network.reserved_ports.iter_mut().chain(&mut network.dynamic_ports)) {
        port.host_network = first_given(&[&port.host_network, "default"]);
    }
}

fn canonical_weights(affinities: &mut [crate::model::job::Affinity], spreads: &mut [crate::model::job::Spread]) {
    for affinity in affinities {
        affinity.weight.get_or_insert(50);
    }
    for spread in spreads {
        spread.weight.get_or_insert(50);
    }
}

fn canonical_artifact(artifact: &mut Artifact) {
    let mode = artifact.getter_mode.get_or_insert_with(|| "any".to_owned()).clone();
    artifact.relative_dest.get_or_insert_with(|| match mode.as_str() {
        "file" => format!("local/{}", artifact.getter_source.trim_end_matches('/').rsplit('/').next().unwrap_or_default()),
        _ => "local/".to_owned(),
    });
}

fn canonical_template(template: &mut Template) {
    let mode = template.change_mode.get_or_insert_with(|| "restart".to_owned()).clone();
    let signal = template.change_signal.get_or_insert_with(|| if mode == "signal" { "SIGHUP".to_owned() } else { String::new() });
    signal.make_ascii_uppercase();
    template.splay_ns.get_or_insert(5 * SECOND);
    template.perms.get_or_insert_with(|| "0644".to_owned());
    template.left_delim.get_or_insert_with(|| "{{".to_owned());
    template.right_delim.get_or_insert_with(|| "}}".to_owned());
}

fn canonical_service(service: &mut Service, job: &Inherited, group: &str, task: Option<&str>) {
    let base = format!("{}-{group}", job.job_name);
    if service.name.is_empty() {
        service.name = task.map_or_else(|| base.clone(), |task| format!("{base}-{task}"));
    }
    let task = task.unwrap_or("group");
    for (key, value) in
        [("${JOB}", job.job_name.as_str()), ("${TASKGROUP}", group), ("${TASK}", task), ("${BASE}", &format!("{base}-{task}"))]
    {
        if service.name.contains(key) {
            service.name = service.name.replace(key, value);
        }
    }
    service.address_mode = first_given(&[&service.address_mode, "auto"]);
    service.on_update = first_given(&[&service.on_update, "require_healthy"]);
    service.provider = first_given(&[&service.provider, "consul"]);
    let of_service = service.check_restart.take();
    for check in &mut service.checks {
        check.check_restart = merged_check_restart(of_service.as_ref(), check.check_restart.take());
        check.success_before_passing = check.success_before_passing.max(0);
        check.failures_before_critical = check.failures_before_critical.max(0);
        check.on_update = first_given(&[&check.on_update, &service.on_update]);
        if check.name.is_empty() {
            check.name = format!("service: {} check", crate::wire::go_text::quote(&service.name));
        }
    }
}

fn merged_check_restart(of_service: Option<&CheckRestart>, of_check: Option<CheckRestart>) -> Option<CheckRestart> {
    let mut merged = match (of_service, of_check) {
        (None, None) => return None,
        (None, Some(own)) => own,
        (Some(outer), None) => outer.clone(),
        (Some(outer), Some(own)) => CheckRestart {
            limit: if own.limit > 0 { own.limit } else { outer.limit },
            grace_ns: own.grace_ns.or(outer.grace_ns),
            ignore_warnings: own.ignore_warnings || outer.ignore_warnings,
        },
    };
    merged.grace_ns.get_or_insert(SECOND);
    Some(merged)
}

/// Signals a group's tasks may be sent must exist on its node; services need their registry there.
fn implied_constraints(group: &TaskGroup) -> Vec<Constraint> {
    let mut implied = Vec::new();
    let mut signals = BTreeSet::new();
    for task in &group.tasks {
        signals.insert(task.kill_signal.as_str());
        let by_signal = task.templates.iter().filter(|template| template.change_mode.as_deref() == Some("signal"));
        signals.extend(by_signal.filter_map(|template| template.change_signal.as_deref()));
    }
    signals.remove("");
    if !signals.is_empty() {
        let all: Vec<&str> = signals.into_iter().collect();
        implied.push(constraint("${attr.os.signals}", "set_contains", &all.join(",")));
    }
    let uses = |provider: &str| {
        group.services.iter().chain(group.tasks.iter().flat_map(|task| &task.services)).any(|service| service.provider == provider)
    };
    if uses("nomad") {
        implied.push(constraint("${attr.nomad.service_discovery}", "=", "true"));
    }
    // A constraint of the user's own on the version of Consul replaces this one.
    let consul_version = "${attr.consul.version}";
    if uses("consul") && !group.constraints.iter().any(|given| given.l_target == consul_version) {
        implied.push(constraint(consul_version, "semver", ">= 1.7.0"));
    }
    implied
}

fn constraint(l_target: &str, operand: &str, r_target: &str) -> Constraint {
    Constraint { l_target: l_target.to_owned(), operand: operand.to_owned(), r_target: r_target.to_owned() }
}

/// Service jobs have an update strategy even when none is given.
fn job_update(given: Option<UpdateStrategy>, job_type: &str) -> Option<UpdateStrategy> {
    let mut update = match given {
        None if job_type != "service" => return None,
        given => given.unwrap_or_default(),
    };
    under_update(&mut update, &default_update());
    Some(update)
}

/// What the stored job shows at job level: Stagger and MaxParallel of a rolling update, else zeros.
fn kept_update(update: Option<&UpdateStrategy>) -> UpdateStrategy {
    let rolling = update.filter(|update| update.max_parallel.unwrap_or(0) > 0);
    UpdateStrategy {
        stagger_ns: Some(rolling.and_then(|update| update.stagger_ns).unwrap_or(0)),
        max_parallel: Some(rolling.and_then(|update| update.max_parallel).unwrap_or(0)),
        health_check: Some(String::new()),
        min_healthy_time_ns: Some(0),
        healthy_deadline_ns: Some(0),
        progress_deadline_ns: Some(0),
        auto_revert: Some(false),
        auto_promote: Some(false),
        canary: Some(0),
    }
}

fn is_empty_update(update: &UpdateStrategy) -> bool {
    *update == kept_update(None)
}

fn default_update() -> UpdateStrategy {
    UpdateStrategy {
        stagger_ns: Some(30 * SECOND),
        max_parallel: Some(1),
        health_check: Some("checks".to_owned()),
        min_healthy_time_ns: Some(10 * SECOND),
        healthy_deadline_ns: Some(5 * MINUTE),
        progress_deadline_ns: Some(10 * MINUTE),
        auto_revert: Some(false),
        auto_promote: Some(false),
        canary: Some(0),
    }
}

fn under_update(update: &mut UpdateStrategy, outer: &UpdateStrategy) {
    or(&mut update.stagger_ns, &outer.stagger_ns);
    or(&mut update.max_parallel, &outer.max_parallel);
    or(&mut update.health_check, &outer.health_check);
    or(&mut update.min_healthy_time_ns, &outer.min_healthy_time_ns);
    or(&mut update.healthy_deadline_ns, &outer.healthy_deadline_ns);
    or(&mut update.progress_deadline_ns, &outer.progress_deadline_ns);
    or(&mut update.auto_revert, &outer.auto_revert);
    or(&mut update.auto_promote, &outer.auto_promote);
    or(&mut update.canary, &outer.canary);
}

fn default_reschedule(job_type: &str) -> ReschedulePolicy {
    let (attempts, interval_ns, delay_ns, function, max_delay_ns, unlimited) = match JobKind::parse(job_type) {
        Some(JobKind::Service) => (0, 0, 30 * SECOND, "exponential", HOUR, true),
        Some(JobKind::Batch) => (1, 24 * HOUR, 5 * SECOND, "constant", 0, false),
        Some(JobKind::System | JobKind::Sysbatch) | None => (0, 0, 0, "", 0, false),
    };
    ReschedulePolicy {
        attempts: Some(attempts),
        interval_ns: Some(interval_ns),
        delay_ns: Some(delay_ns),
        delay_function: Some(function.to_owned()),
        max_delay_ns: Some(max_delay_ns),
        unlimited: Some(unlimited),
    }
}

fn under_reschedule(policy: &mut ReschedulePolicy, outer: &ReschedulePolicy) {
    or(&mut policy.attempts, &outer.attempts);
    or(&mut policy.interval_ns, &outer.interval_ns);
    or(&mut policy.delay_ns, &outer.delay_ns);
    or(&mut policy.delay_function, &outer.delay_function);
    or(&mut policy.max_delay_ns, &outer.max_delay_ns);
    or(&mut policy.unlimited, &outer.unlimited);
}

fn default_migrate() -> MigrateStrategy {
    MigrateStrategy {
        max_parallel: Some(1),
        health_check: Some("checks".to_owned()),
        min_healthy_time_ns: Some(10 * SECOND),
        healthy_deadline_ns: Some(5 * MINUTE),
    }
}

fn under_migrate(strategy: &mut MigrateStrategy, outer: &MigrateStrategy) {
    or(&mut strategy.max_parallel, &outer.max_parallel);
    or(&mut strategy.health_check, &outer.health_check);
    or(&mut strategy.min_healthy_time_ns, &outer.min_healthy_time_ns);
    or(&mut strategy.healthy_deadline_ns, &outer.healthy_deadline_ns);
}

fn default_restart(job_type: &str) -> RestartPolicy {
    let (attempts, interval_ns) = match job_type {
        "service" | "system" => (2, 30 * MINUTE),
        _ => (3, 24 * HOUR),
    };
    RestartPolicy { attempts: Some(attempts), interval_ns: Some(interval_ns), delay_ns: Some(15 * SECOND), mode: Some("fail".to_owned()) }
}

fn under_restart(policy: &mut RestartPolicy, outer: &RestartPolicy) {
    or(&mut policy.attempts, &outer.attempts);
    or(&mut policy.interval_ns, &outer.interval_ns);
    or(&mut policy.delay_ns, &outer.delay_ns);
    or(&mut policy.mode, &outer.mode);
}

#[cfg(test)]
mod tests;
