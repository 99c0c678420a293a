//! Finds every fault of a canonical job at once, in the words and the nesting of the upstream API.
//!
//! Shape: [`validate`]`(&Job, &Checks) -> Result<(), Faults>`, [`warnings`]`(&Job, ...) -> String`, pure.
//! The text of [`Faults`] is the body of the 500; [`Faults::list`] is `ValidationErrors` of `/v1/validate/job`.
//! Beyond upstream, what this agent cannot do is a fault that says so; what it cannot do *yet* is in `not_yet` and nowhere else.
//! Bound: at most [`FAULTS_MAX`] texts per list, the rest are counted.
//! Source: `spec/jobs.md` 4; upstream v1.3.1 nomad/structs/structs.go `Validate`, nomad/job_endpoint_hooks.go (behaviour only).

mod constraint;
mod group;
mod service;
mod task;

use core::fmt;
use std::collections::BTreeMap;

use self::constraint::{check_affinities, check_constraints, check_spreads};
use crate::model::job::{Job, JobKind, Parameterized, Periodic};
use crate::wire::go_text::quote;

/// Texts kept in one list of faults.
pub const FAULTS_MAX: usize = 64;
/// Cron expressions of one job: all of them are looked at for each slot.
const SPECS_MAX: usize = 64;

/// A list of faults; its `Display` is upstream's multi-error text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    list: Vec<String>,
    more_n: usize,
}

impl Faults {
    /// Adds one.
    pub fn add(&mut self, text: impl Into<String>) {
        if self.list.len() < FAULTS_MAX {
            self.list.push(text.into());
        } else {
            self.more_n += 1;
        }
    }

    /// Adds the whole of `inner` as one entry, if it has any.
    pub fn nest(&mut self, prefix: &str, inner: Self) {
        if !inner.is_empty() {
            self.add(format!("{prefix}{inner}"));
        }
    }

    /// No fault.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The texts, at most [`FAULTS_MAX`].
    #[must_use]
    pub fn list(&self) -> &[String] {
        &self.list
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list.len() + self.more_n {
            1 => f.write_str("1 error occurred:")?,
            n => write!(f, "{n} errors occurred:")?,
        }
        for text in &self.list {
            write!(f, "\n\t* {text}")?;
        }
        if self.more_n > 0 {
            write!(f, "\n\t* and {} more", self.more_n)?;
        }
        f.write_str("\n\n")
    }
}

/// What validation asks of others.
#[derive(Clone, Copy)]
pub struct Checks<'a> {
    /// Reads a template (source, left and right delimiter) and says what is wrong with it: `runtime::template::parse`.
    pub template: &'a dyn Fn(&str, &str, &str) -> Result<(), String>,
    /// Reads a cron expression: `sched::cron`.
    pub cron: &'a dyn Fn(&str) -> Result<(), String>,
    /// Looks for a time zone: `sched::zone`.
    pub zone: &'a dyn Fn(&str) -> Result<(), String>,
}

/// All faults of a canonical job.
///
/// # Errors
/// The faults, at least one.
pub fn validate(job: &Job, checks: &Checks<'_>) -> Result<(), Faults> {
    let mut faults = Faults::default();
    check_job(job, &mut faults);
    for group in &job.task_groups {
        faults.nest(&format!("Task group {} validation failed: ", group.name), group::check(group, job, checks));
    }
    if let Some(periodic) = job.periodic.as_ref().filter(|periodic| periodic.enabled != Some(false)) {
        check_is_batch("Periodic", job, &mut faults);
        faults.nest("", check_periodic(periodic, checks));
    }
    if let Some(parameterized) = job.parameterized_job.as_ref().filter(|_| job.is_parameterized()) {
        check_is_batch("Parameterized job", job, &mut faults);
        faults.nest("", check_parameterized(parameterized));
    }
    if !job.multiregion.is_none() {
        faults.add("Multiregion is not supported by this agent; register the job in each region");
    }
    for text in not_yet(job) {
        faults.add(text);
    }
    if job.type_text() == "core" {
        faults.add("job type cannot be core");
    }
    if !job.payload.0.is_empty() {
        faults.add("job can't be submitted with a payload, only dispatched");
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// What later versions of this agent will run. Delete a line when it does.
fn not_yet(job: &Job) -> Vec<String> {
    let tasks = || job.task_groups.iter().flat_map(|group| &group.tasks);
    let asks = [
        ("artifacts", tasks().any(|task| !task.artifacts.is_empty())),
        (
            "template source files (SourcePath; give the text as EmbeddedTmpl)",
            tasks().any(|task| task.templates.iter().any(|template| !template.source_path.is_empty())),
        ),
        ("volumes", job.task_groups.iter().any(|group| !group.volumes.is_empty())),
        ("devices", tasks().any(|task| task.resources.as_ref().is_some_and(|resources| !resources.devices.is_empty()))),
        (
            "networks of tasks (give them to the group)",
            tasks().any(|task| task.resources.as_ref().is_some_and(|resources| !resources.networks.is_empty())),
        ),
    ];
    asks.iter()
        .filter(|(_, is_asked)| *is_asked)
        .map(|(what, _)| format!("not implemented: {what} are not supported by this version of the agent"))
        .collect()
}

fn check_job(job: &Job, faults: &mut Faults) {
    if job.region.is_empty() {
        faults.add("Missing job region");
    }
    if job.id.is_empty() {
        faults.add("Missing job ID");
    } else if job.id.contains(' ') {
        faults.add("Job ID contains a space");
    } else if job.id.contains('\0') {
        faults.add("Job ID contains a null character");
    }
    if job.name().is_empty() {
        faults.add("Missing job name");
    } else if job.name().contains('\0') {
        faults.add("Job Name contains a null character");
    }
    if job.namespace.is_empty() {
        faults.add("Job must be in a namespace");
    }
    match job.type_text() {
        "" => faults.add("Missing job type"),
        "core" => {}
        word if JobKind::parse(word).is_some() => {}
        word => faults.add(format!("Invalid job type: {}", quote(word))),
    }
    if !(1..=100).contains(&job.priority()) {
        faults.add("Job priority must be between [1, 100]");
    }
    if job.datacenters.is_empty() {
        faults.add("Missing job datacenters");
    }
    for _ in job.datacenters.iter().filter(|datacenter| datacenter.is_empty()) {
        faults.add("Job datacenter must be non-empty string");
    }
    if job.task_groups.is_empty() {
        faults.add("Missing job task groups");
    }
    let is_system = job.type_text() == "system";
    check_constraints(&job.constraints, faults);
    check_affinities(&job.affinities, is_system, faults);
    check_spreads(&job.spreads, is_system, faults);

    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, group) in job.task_groups.iter().enumerate() {
        let n = i + 1;
        if group.name.is_empty() {
            faults.add(format!("Job task group {n} missing name"));
        } else if let Some(existing) = first.get(group.name.as_str()) {
            faults.add(format!("Job task group {n} redefines '{}' from group {existing}", group.name));
        } else {
            first.insert(&group.name, n);
        }
        if group.shutdown_delay_ns.is_some_and(|delay_ns| delay_ns < 0) {
            faults.add("ShutdownDelay must be a positive value");
        }
        match group.stop_after_client_disconnect_ns.unwrap_or(0) {
            1.. if !matches!(job.type_text(), "batch" | "service") => {
                faults.add("stop_after_client_disconnect can only be set in batch and service jobs")
            }
            i64::MIN..=-1 => faults.add("stop_after_client_disconnect must be a positive value"),
            _ => {}
        }
        let count = group.count.unwrap_or(1);
        if is_system && count > 1 {
            faults.add(format!("Job task group {} has count {count}. Count cannot exceed 1 with system scheduler", group.name));
        }
    }
}

fn check_is_batch(what: &str, job: &Job, faults: &mut Faults) {
    if !matches!(job.type_text(), "batch" | "sysbatch") {
        faults.add(format!("{what} can only be used with \"batch\" or \"sysbatch\" scheduler"));
    }
}

fn check_periodic(periodic: &Periodic, checks: &Checks<'_>) -> Faults {
    let mut faults = Faults::default();
    let specs = || periodic.specs.iter().chain(Some(&periodic.spec).filter(|spec| !spec.is_empty()));
    if !periodic.spec.is_empty() && !periodic.specs.is_empty() {
        faults.add("Only cron or crons may be used");
    }
    if periodic.specs.len() > SPECS_MAX {
        faults.add(format!("Periodic has {} cron specs; at most {SPECS_MAX} are taken", periodic.specs.len()));
        return faults;
    }
    if specs().next().is_none() {
        faults.add("Must specify a spec");
    }
    if let Err(why) = (checks.zone)(&periodic.time_zone) {
        faults.add(format!("Invalid time zone {}: {why}", quote(&periodic.time_zone)));
    }
    let spec_type = periodic.spec_type.as_deref().unwrap_or("cron");
    if spec_type != "cron" {
        faults.add(format!("Unknown periodic specification type {}", quote(spec_type)));
        return faults;
    }
    for spec in specs() {
        if let Err(why) = (checks.cron)(spec) {
            faults.add(format!("Invalid cron spec {}: {why}", quote(spec)));
        }
    }
    faults
}

fn check_parameterized(parameterized: &Parameterized) -> Faults {
    let mut faults = Faults::default();
    if !matches!(parameterized.payload.as_str(), "optional" | "required" | "forbidden") {
        faults.add(format!("Unknown payload requirement: {}", quote(&parameterized.payload)));
    }
    let mut both: Vec<&str> =
        parameterized.meta_optional.iter().filter(|key| parameterized.meta_required.contains(key)).map(String::as_str).collect();
    both.sort_unstable();
    both.dedup();
    if !both.is_empty() {
        faults.add(format!("Required and optional meta keys should be disjoint. Following keys exist in both: [{}]", both.join(" ")));
    }
    faults
}

/// `Warnings` of the answer to a registration or a validation; empty = none.
/// `unknown_keys`: as noted by `wire::json::decode_noting` for the envelope `{Job: ...}`; those outside of `Job` are let pass.
/// `is_oversubscription_on`: the scheduler configuration's `MemoryOversubscriptionEnabled`.
#[must_use]
pub fn warnings(job: &Job, unknown_keys: &[String], is_oversubscription_on: bool) -> String {
    let mut found = Faults::default();
    for group in &job.task_groups {
        found.nest(&format!("Group {} has warnings: ", quote(&group.name)), group::warnings(group));
    }
    let promotes = |group: &crate::model::job::TaskGroup| group.update.as_ref().is_some_and(|update| update.auto_promote == Some(true));
    let has_canaries = |group: &crate::model::job::TaskGroup| group.update.as_ref().is_some_and(|update| update.canary.unwrap_or(0) != 0);
    if job.task_groups.iter().any(promotes) && job.task_groups.iter().any(|group| has_canaries(group) && !promotes(group)) {
        found.add("auto_promote must be true for all groups to enable automatic promotion");
    }
    for group in job.task_groups.iter().filter(|_| !is_oversubscription_on) {
        for task in group.tasks.iter().filter(|task| task.resources.as_ref().is_some_and(|resources| resources.memory_max_mb != 0)) {
            found.add(format!(
                "Memory oversubscription is not enabled; Task \"{}.{}\" memory_max value will be ignored. Update the Scheduler Configuration to allow oversubscription.",
                group.name, task.name
            ));
        }
    }
    let tasks = || job.task_groups.iter().flat_map(|group| &group.tasks);
    let prefers = !job.affinities.is_empty() || !job.spreads.is_empty();
    let group_prefers = job.task_groups.iter().any(|group| !group.affinities.is_empty() || !group.spreads.is_empty());
    if prefers || group_prefers || tasks().any(|task| !task.affinities.is_empty()) {
        found.add("Affinities and spreads have no effect on a single node.");
    }
    // The envelope around the job may carry what newer clients add for themselves.
    let of_job: Vec<&str> = unknown_keys.iter().map(String::as_str).filter(|path| path.starts_with("Job.")).collect();
    if !of_job.is_empty() {
        found.add(format!("These keys are not known to this agent and have no effect: {}", of_job.join(", ")));
    }
    if found.is_empty() {
        return String::new();
    }
    let mut text = format!("{} warning(s):\n", found.list.len() + found.more_n);
    for warning in &found.list {
        text.push_str("\n* ");
        text.push_str(warning);
    }
    text
}

/// Would `path` below `prefix` of an allocation's folder leave that folder? Lexical: links are the runtime's business.
fn escapes(prefix: &str, path: &str) -> bool {
    // The names do not matter, only how many levels lie above.
    const ROOT: [&str; 2] = ["alloc-dir", "alloc-id"];
    let mut levels = ROOT.to_vec();
    for part in prefix.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => _ = levels.pop(),
            part => levels.push(part),
        }
    }
    !levels.starts_with(&ROOT) || levels.get(2).is_some_and(|part| part.starts_with(".."))
}

#[cfg(test)]
mod tests;
