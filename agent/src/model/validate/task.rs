//! Faults and warnings of one task: names, resources, logs, templates, artifacts, and what its driver is given.

use std::collections::BTreeMap;

use super::constraint::{check_affinities, check_constraints};
use super::{Checks, Faults, escapes, service};
use crate::model::job::{Artifact, LogConfig, Resources, Task, TaskGroup, Template};
use crate::model::lower;
use crate::wire::go_text::{duration, quote};

/// All faults of one task.
pub(super) fn check(task: &Task, group: &TaskGroup, is_system: bool, checks: &Checks<'_>) -> Faults {
    let mut faults = Faults::default();
    if task.name.is_empty() {
        faults.add("Missing task name");
    }
    if task.name.contains(['/', '\\']) {
        faults.add("Task name cannot include slashes");
    } else if task.name.contains('\0') {
        faults.add("Task name cannot include null characters");
    } else if matches!(task.name.as_str(), "." | ".." | "alloc") {
        // These are folders of the allocation already.
        faults.add(format!("Task name cannot be {}", quote(&task.name)));
    }
    if task.driver.is_empty() {
        faults.add("Missing task driver");
    }
    if task.kill_timeout_ns.is_some_and(|timeout_ns| timeout_ns < 0) {
        faults.add("KillTimeout must be a positive value");
    }
    if task.shutdown_delay_ns < 0 {
        faults.add("ShutdownDelay must be a positive value");
    }
    if let Some(resources) = &task.resources {
        faults.nest("", check_resources(resources));
    }
    if let Some(logs) = &task.log_config {
        faults.nest("", check_logs(logs));
    }
    check_constraints(&task.constraints, &mut faults);
    for (i, constraint) in task.constraints.iter().enumerate() {
        if matches!(constraint.operand.as_str(), "distinct_hosts" | "distinct_property") {
            faults.add(format!("Constraint {} has disallowed Operand at task level: {}", i + 1, constraint.operand));
        }
    }
    check_affinities(&task.affinities, is_system, &mut faults);
    faults.nest("", service::check_task(task, group));
    check_log_space(task, group, &mut faults);
    for (i, artifact) in task.artifacts.iter().enumerate() {
        faults.nest(&format!("Artifact {} validation failed: ", i + 1), check_artifact(artifact));
    }
    check_templates(task, checks, &mut faults);
    if task.dispatch_payload.as_ref().is_some_and(|payload| escapes("task/local/", &payload.file)) {
        faults.add("Dispatch Payload validation failed: destination escapes allocation directory");
    }
    if let Some(lifecycle) = &task.lifecycle {
        match lifecycle.hook.as_str() {
            "prestart" | "poststart" | "poststop" => {}
            "" => faults.add("Lifecycle validation failed: no lifecycle hook provided"),
            hook => faults.add(format!("Lifecycle validation failed: invalid hook: {hook}")),
        }
    }
    for (i, mount) in task.volume_mounts.iter().enumerate() {
        if !matches!(mount.propagation_mode.as_str(), "" | "private" | "host-to-task" | "bidirectional") {
            faults.add(format!("Volume Mount ({i}) has an invalid propagation mode: \"{}\"", mount.propagation_mode));
        }
    }
    check_ours(task, group, &mut faults);
    faults
}

/// What upstream finds out only when the task starts, or what this agent does not have.
fn check_ours(task: &Task, group: &TaskGroup, faults: &mut Faults) {
    // A task's own policy is not looked into upstream; a mode nobody knows could only be guessed at.
    let mode = task.restart_policy.as_ref().and_then(|policy| policy.mode.as_deref()).unwrap_or("fail");
    if !matches!(mode, "fail" | "delay") && group.restart_policy.as_ref().and_then(|policy| policy.mode.as_deref()) != Some(mode) {
        faults.add(format!("Unsupported restart mode: {}", quote(mode)));
    }
    if lower::kill_signal(&task.kill_signal).is_none() {
        faults.add(lower::unknown_signal("kill signal", &task.kill_signal));
    }
    if let Some(Err(why)) = lower::program(&task.driver, &task.config) {
        faults.add(why);
    }
    if !task.vault.is_none() {
        faults.add("Vault is not supported by this agent");
    }
    if !task.csi_plugin_config.is_none() {
        faults.add("CSI plugins are not supported by this agent");
    }
}

fn check_resources(resources: &Resources) -> Faults {
    let mut faults = Faults::default();
    let (cpu, cores) = (resources.cpu.unwrap_or_default(), resources.cores.unwrap_or_default());
    let memory_mb = resources.memory_mb.unwrap_or_default();
    if cores > 0 && cpu > 0 {
        faults.add("Task can only ask for 'cpu' or 'cores' resource, not both.");
    }
    let mut least = Faults::default();
    if cpu < 1 && cores == 0 {
        least.add(format!("minimum CPU value is 1; got {cpu}"));
    }
    if memory_mb < 10 {
        least.add(format!("minimum MemoryMB value is 10; got {memory_mb}"));
    }
    faults.nest("", least);
    if cores < 0 {
        faults.add(format!("Cores value cannot be negative; got {cores}"));
    }
    if resources.disk_mb > 0 {
        faults.add("Task can't ask for disk resources, they have to be specified at the task group level.");
    }
    if resources.memory_max_mb != 0 && resources.memory_max_mb < memory_mb {
        faults.add(format!("MemoryMaxMB value ({}) should be larger than MemoryMB value ({memory_mb})", resources.memory_max_mb));
    }
    faults
}

fn check_logs(logs: &LogConfig) -> Faults {
    let mut faults = Faults::default();
    let (files, size_mb) = (logs.max_files.unwrap_or_default(), logs.max_file_size_mb.unwrap_or_default());
    if files < 1 {
        faults.add(format!("minimum number of files is 1; got {files}"));
    }
    if size_mb < 1 {
        faults.add(format!("minimum file size is 1MB; got {size_mb}"));
    }
    faults
}

fn check_log_space(task: &Task, group: &TaskGroup, faults: &mut Faults) {
    let Some(logs) = &task.log_config else { return };
    let logs_mb = logs.max_files.unwrap_or_default().saturating_mul(logs.max_file_size_mb.unwrap_or_default());
    let disk_mb = group.disk_mb();
    if disk_mb <= logs_mb {
        faults.add(format!("log storage ({logs_mb} MB) must be less than requested disk capacity ({disk_mb} MB)"));
    }
}

fn check_artifact(artifact: &Artifact) -> Faults {
    let mut faults = Faults::default();
    if artifact.getter_source.is_empty() {
        faults.add("source must be specified");
    }
    let mode = artifact.getter_mode.as_deref().unwrap_or_default();
    if !matches!(mode, "" | "any" | "file" | "dir") {
        faults.add(format!("invalid artifact mode {}; must be one of: any, file, dir", quote(mode)));
    }
    if escapes("task", artifact.relative_dest.as_deref().unwrap_or_default()) {
        faults.add("destination escapes allocation directory");
    }
    if let Some(checksum) = artifact.getter_options.get("checksum") {
        check_checksum(checksum, &mut faults);
    }
    faults
}

fn check_checksum(given: &str, faults: &mut Faults) {
    // A reference is resolved when the artifact is fetched.
    if given.contains("${") {
        return;
    }
    let given = given.trim();
    if given.is_empty() {
        return faults.add("checksum value cannot be empty");
    }
    let Some((kind, value)) = given.split_once(':').filter(|(_, value)| !value.contains(':')) else {
        return faults.add(format!("checksum must be given as \"type:value\"; got {}", quote(given)));
    };
    if !value.len().is_multiple_of(2) || !value.bytes().all(|c| c.is_ascii_hexdigit()) {
        return faults.add(format!("invalid checksum: {} is not hexadecimal", quote(value)));
    }
    let digits_n = match kind {
        "md5" => 32,
        "sha1" => 40,
        "sha256" => 64,
        "sha512" => 128,
        _ => return faults.add(format!("unsupported checksum type: {kind}")),
    };
    if value.len() != digits_n {
        faults.add(format!("invalid {kind} checksum: {value}"));
    }
}

fn check_templates(task: &Task, checks: &Checks<'_>, faults: &mut Faults) {
    let mut first: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, template) in task.templates.iter().enumerate() {
        let n = i + 1;
        faults.nest(&format!("Template {n} validation failed: "), check_template(template, checks));
        if let Some(other) = first.get(template.dest_path.as_str()) {
            faults.add(format!("Template {n} has same destination as {other}"));
        } else {
            first.insert(&template.dest_path, n);
        }
    }
}

fn check_template(template: &Template, checks: &Checks<'_>) -> Faults {
    let mut faults = Faults::default();
    if template.source_path.is_empty() && template.embedded_tmpl.is_empty() {
        faults.add("Must specify a source path or have an embedded template");
    }
    if template.dest_path.is_empty() {
        faults.add("Must specify a destination for the template");
    }
    if escapes("task", &template.dest_path) {
        faults.add("destination escapes allocation directory");
    }
    let signal = template.change_signal.as_deref().unwrap_or_default();
    match template.change_mode.as_deref().unwrap_or_default() {
        "noop" | "restart" => {}
        "signal" => {
            if signal.is_empty() {
                faults.add("Must specify signal value when change mode is signal");
            } else if lower::kill_signal(signal).is_none() {
                faults.add(lower::unknown_signal("change signal", signal));
            }
            if template.envvars {
                faults.add("cannot use signals with env var templates");
            }
        }
        _ => faults.add("Invalid change mode. Must be one of the following: noop, signal, restart"),
    }
    if template.splay_ns.is_some_and(|splay_ns| splay_ns < 0) {
        faults.add("Must specify positive splay value");
    }
    let perms = template.perms.as_deref().unwrap_or_default();
    if !perms.is_empty() {
        // Twelve bits, as upstream: digits only, no sign.
        let is_octal = perms.bytes().all(|c| matches!(c, b'0'..=b'7'));
        let why = match u64::from_str_radix(perms, 8) {
            Ok(bits) if is_octal && bits < 1 << 12 => None,
            _ if is_octal => Some("value out of range"),
            _ => Some("invalid syntax"),
        };
        if let Some(why) = why {
            faults.add(format!("Failed to parse {} as octal: {why}", quote(perms)));
        }
    }
    check_wait(template, &mut faults);
    if !template.embedded_tmpl.is_empty() {
        let delimiter = |given: &Option<String>, default: &'static str| {
            given.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
        };
        let (left, right) = (delimiter(&template.left_delim, "{{"), delimiter(&template.right_delim, "}}"));
        if let Err(why) = (checks.template)(&template.embedded_tmpl, &left, &right) {
            faults.add(why);
        }
    }
    faults
}

fn check_wait(template: &Template, faults: &mut Faults) {
    match template.wait.read::<BTreeMap<String, Option<i64>>>() {
        Err(why) => faults.add(format!("wait: {why}")),
        Ok(wait) => {
            let of = |name: &str| wait.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).and_then(|(_, span_ns)| *span_ns);
            if let (Some(min_ns), Some(max_ns)) = (of("Min"), of("Max"))
                && min_ns > max_ns
            {
                faults.add(format!("wait min {} is greater than max {}", duration(min_ns), duration(max_ns)));
            }
        }
    }
}

/// What is allowed and probably not meant.
pub(super) fn warnings(task: &Task) -> Faults {
    let mut found = Faults::default();
    let name = quote(&task.name);
    if task.resources.as_ref().is_some_and(|resources| resources.iops != 0) {
        found.add(format!("Task {name}: IOPS has been deprecated as of Nomad 0.9.0. Please remove IOPS from resource stanza."));
    }
    for (i, _) in task.templates.iter().enumerate().filter(|(_, template)| template.vault_grace_ns != 0) {
        let mut one = Faults::default();
        one.add(format!(
            "Template[{i}] VaultGrace has been deprecated as of Nomad 0.11 and ignored since Vault 0.5. \
             Please remove VaultGrace / vault_grace from template stanza."
        ));
        found.nest(&format!("Task {name}: "), one);
    }
    found
}
