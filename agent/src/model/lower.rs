//! From an allocation and its job to what the runtime is asked to run: each field's meaning is decided here, once.
//!
//! Shape: [`lower`]`(canonical Job, group, `[`Placed`]`)` -> [`AllocSpec`], pure. Units: the wire's nanoseconds and MB become ms and bytes;
//! what is too large for the runtime's type becomes the largest it has, what is negative becomes 0.
//! Invariant: never fails for a task. What a driver cannot run (an unknown driver, a bad configuration, an unknown kill signal: jobs of
//! servers are not validated here) is carried as `TaskSpec::program = Err(text)`, the text of a `Failed Validation` event.
//! Source: `spec/runtime.md` 2.1 (restart), 2.3 (signals), 3.2 (drivers), 4 (logs); upstream v1.10.5 drivers/rawexec/driver.go (the keys).

use std::collections::BTreeMap;

use dunlin_runtime::id::AllocId;
use dunlin_runtime::proc::signal;
use dunlin_runtime::spec::{self, AllocSpec, DriverKind, HealthRule, KillPolicy, LogPolicy, Program, RestartMode, Role, TaskSpec};

use crate::model::job::{Job, JobKind, Lifecycle, Task, TaskGroup, Template};
use crate::wire::go_text::quote;
use crate::wire::json::Raw;

/// What the placement adds to the job.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// The allocation.
    pub id: AllocId,
    /// `<job>.<group>[<index>]`.
    pub name: String,
    /// The number in the brackets.
    pub index: u32,
    /// Ports with their values, in the order of the job.
    pub ports: Vec<spec::Port>,
}

/// What the node's configuration allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeRules {
    /// The client's `max_kill_timeout`.
    pub kill_timeout_ms_max: u64,
    /// `MemoryMaxMB` counts: the scheduler configuration's `MemoryOversubscriptionEnabled`, or a server placed the allocation.
    pub is_oversubscription_on: bool,
}

impl Default for NodeRules {
    fn default() -> Self {
        Self { kill_timeout_ms_max: 30_000, is_oversubscription_on: false }
    }
}

/// `None` when the job has no such group.
#[must_use]
pub fn lower(job: &Job, group_name: &str, placed: Placed, rules: NodeRules) -> Option<AllocSpec> {
    let group = job.group(group_name)?;
    Some(AllocSpec {
        id: placed.id,
        name: placed.name,
        index: placed.index,
        namespace: job.namespace.clone(),
        region: job.region.clone(),
        job_id: job.id.clone(),
        job_name: job.name().to_owned(),
        job_parent_id: job.parent_id.clone(),
        group: group.name.clone(),
        ports: placed.ports,
        meta: meta(job, group),
        tasks: group.tasks.iter().map(|task| lower_task(task, job.kind(), rules)).collect(),
        health: health(job, group),
    })
}

/// When an allocation of a deployment is healthy; `None` = a user says so, or nobody asks.
fn health(job: &Job, group: &TaskGroup) -> Option<HealthRule> {
    let update = group.update.as_ref().filter(|update| job.kind() == JobKind::Service && update.max_parallel.unwrap_or(0) > 0)?;
    (update.health_check.as_deref() != Some("manual")).then(|| HealthRule {
        min_healthy_ms: ms(update.min_healthy_time_ns.unwrap_or(0)),
        deadline_ms: ms(update.healthy_deadline_ns.unwrap_or(0)),
    })
}

/// Job under group; optional keys of a dispatch exist even when they were not given.
fn meta(job: &Job, group: &TaskGroup) -> BTreeMap<String, String> {
    let optional = job.parameterized_job.iter().flat_map(|block| &block.meta_optional).map(|key| (key.clone(), String::new()));
    let mut meta: BTreeMap<String, String> = optional.collect();
    meta.extend(job.meta.clone());
    meta.extend(group.meta.clone());
    meta
}

fn lower_task(task: &Task, kind: JobKind, rules: NodeRules) -> TaskSpec {
    let role = role(task.lifecycle.as_ref());
    let kill_signal = kill_signal(&task.kill_signal);
    let program = match (kill_signal, program(&task.driver, &task.config)) {
        (None, _) => Err(unknown_signal("kill signal", &task.kill_signal)),
        (Some(_), None) => Err(format!("driver {} is not available on this node; known: raw_exec", quote(&task.driver))),
        (Some(_), Some(program)) => program,
    };
    TaskSpec {
        name: task.name.clone(),
        driver: DriverKind::parse(&task.driver).unwrap_or_default(),
        program,
        user: task.user.clone(),
        env: task.env.clone(),
        meta: task.meta.clone(),
        resources: resources(task, rules.is_oversubscription_on),
        restart: restart(task, kind, role),
        kill: KillPolicy {
            signal: kill_signal.unwrap_or(KillPolicy::default().signal),
            timeout_ms: task.kill_timeout_ns.map_or(KillPolicy::default().timeout_ms, ms).min(rules.kill_timeout_ms_max),
        },
        shutdown_delay_ms: ms(task.shutdown_delay_ns),
        logs: logs(task),
        role,
        is_leader: task.leader,
        templates: task.templates.iter().map(template).collect(),
        payload_file: task.dispatch_payload.as_ref().map(|payload| payload.file.clone()).unwrap_or_default(),
    }
}

/// The number of a kill signal; empty = SIGINT; `None` = unknown.
pub(crate) fn kill_signal(name: &str) -> Option<i32> {
    if name.is_empty() { Some(KillPolicy::default().signal) } else { signal::number(name) }
}

/// The text of an unknown signal name.
pub(crate) fn unknown_signal(what: &str, name: &str) -> String {
    let known: Vec<&str> = signal::names().collect();
    format!("unknown {what} {}; known: {}", quote(name), known.join(", "))
}

/// Nanoseconds to milliseconds, rounded up; negative = 0.
fn ms(ns: i64) -> u64 {
    u64::try_from(ns).unwrap_or(0).div_ceil(1_000_000)
}

fn role(lifecycle: Option<&Lifecycle>) -> Role {
    match lifecycle.map(|lifecycle| (lifecycle.hook.as_str(), lifecycle.sidecar)) {
        Some(("prestart", is_sidecar)) => Role::Prestart { is_sidecar },
        Some(("poststart", is_sidecar)) => Role::Poststart { is_sidecar },
        Some(("poststop", _)) => Role::Poststop,
        _ => Role::Main,
    }
}

fn restart(task: &Task, kind: JobKind, role: Role) -> spec::RestartPolicy {
    let default = spec::RestartPolicy::default();
    let policy = task.restart_policy.clone().unwrap_or_default();
    spec::RestartPolicy {
        attempts: policy.attempts.map_or(default.attempts, clamped),
        interval_ms: policy.interval_ns.map_or(default.interval_ms, ms),
        delay_ms: policy.delay_ns.map_or(default.delay_ms, ms),
        mode: if policy.mode.as_deref() == Some("delay") { RestartMode::Delay } else { RestartMode::Fail },
        on_success: match role {
            Role::Main => kind.runs_for_ever(),
            Role::Prestart { is_sidecar } | Role::Poststart { is_sidecar } => is_sidecar,
            Role::Poststop => false,
        },
    }
}

fn clamped(value: i64) -> u32 {
    u32::try_from(value.max(0)).unwrap_or(u32::MAX)
}

fn resources(task: &Task, is_oversubscription_on: bool) -> spec::Resources {
    let asked = task.resources.clone().unwrap_or_default();
    spec::Resources {
        cpu_mhz: clamped(asked.cpu.unwrap_or(0)),
        memory_mb: clamped(asked.memory_mb.unwrap_or(0)),
        // -1 is a server's "no limit"; it means the same to the runtime.
        memory_max_mb: if is_oversubscription_on { i32::try_from(asked.memory_max_mb.max(-1)).unwrap_or(i32::MAX) } else { 0 },
    }
}

fn logs(task: &Task) -> LogPolicy {
    let asked = task.log_config.clone().unwrap_or_default();
    let file_mb = u64::from(clamped(asked.max_file_size_mb.unwrap_or(10)).max(1));
    LogPolicy { files_max: clamped(asked.max_files.unwrap_or(10)).max(1), file_bytes_max: file_mb << 20, is_captured: !asked.disabled }
}

fn template(asked: &Template) -> spec::Template {
    let given =
        |delimiter: &Option<String>, default: &str| delimiter.clone().filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned());
    spec::Template {
        source: asked.embedded_tmpl.clone(),
        destination: asked.dest_path.clone(),
        mode: asked.perms.as_deref().and_then(|perms| u32::from_str_radix(perms, 8).ok()).unwrap_or(0o644) & 0o7777,
        left: given(&asked.left_delim, "{{"),
        right: given(&asked.right_delim, "}}"),
        is_env: asked.envvars,
    }
}

/// Reads a driver's configuration. `None`: this agent does not have the driver. `Some(Err)`: why it cannot be read, and what would be right.
/// Numbers and booleans stand for their text where a text is asked for (as in the job language).
#[must_use]
pub fn program(driver: &str, config: &Raw) -> Option<Result<Program, String>> {
    DriverKind::parse(driver).map(|kind| match kind {
        DriverKind::RawExec => raw_exec(config),
    })
}

fn raw_exec(config: &Raw) -> Result<Program, String> {
    let entries = config.entries().ok_or("driver config must be an object")?;
    let mut program = Program::default();
    for (key, raw) in entries {
        if raw == "null" {
            continue;
        }
        let value = Raw::from_text(raw).map_err(|error| error.to_string())?;
        match key.as_str() {
            "command" => program.command = text(&value).ok_or("driver config: command must be a string")?,
            "args" => program.args = texts(&value).ok_or("driver config: args must be a list of strings")?,
            "work_dir" => program.work_dir = text(&value).ok_or("driver config: work_dir must be a string")?,
            "oom_score_adj" => {
                let score = value.read::<i32>().ok().filter(|score| (0..=1000).contains(score));
                program.oom_score_adj = score.ok_or("driver config: oom_score_adj must be an integer from 0 to 1000")?;
            }
            "cgroup_v1_override" | "cgroup_v2_override" | "denied_envvars" if value.is_none() => {}
            "cgroup_v1_override" | "cgroup_v2_override" | "denied_envvars" => {
                return Err(format!("driver config: {key} is not supported by this agent"));
            }
            _ => return Err(format!("driver config: unknown key {}; known: command, args, work_dir, oom_score_adj", quote(&key))),
        }
    }
    if program.command.is_empty() {
        return Err("driver config: command must be given".to_owned());
    }
    // A path that begins with a reference is known only when it is interpolated.
    if !program.work_dir.is_empty() && !program.work_dir.starts_with(['/', '$']) {
        return Err(format!("driver config: work_dir must be an absolute path, not {}", quote(&program.work_dir)));
    }
    Ok(program)
}

fn text(value: &Raw) -> Option<String> {
    match value.get() {
        None => Some(String::new()),
        Some(raw) if raw.starts_with(['{', '[']) => None,
        Some(raw) if raw.starts_with('"') => value.read().ok(),
        Some(raw) => Some(raw.to_owned()),
    }
}

fn texts(value: &Raw) -> Option<Vec<String>> {
    let items: Vec<Raw> = value.read().ok()?;
    items.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::canonical::{Ctx, canonicalize};

    fn job(text: &str) -> Job {
        let mut job = Job::from_json(text.as_bytes()).unwrap();
        canonicalize(&mut job, &Ctx { region: "global", ..Ctx::default() });
        job
    }

    fn placed() -> Placed {
        let port = spec::Port { label: "http".into(), value: 20_001, to: 0, host_ip: "127.0.0.1".into() };
        Placed { id: AllocId([7; 16]), name: "j.g[3]".into(), index: 3, ports: vec![port] }
    }

    /// One task of a job of the given type.
    #[track_caller]
    fn task(job_type: &str, of_task: &str) -> TaskSpec {
        task_under(job_type, of_task, NodeRules { is_oversubscription_on: true, ..NodeRules::default() })
    }

    #[track_caller]
    fn task_under(job_type: &str, of_task: &str, rules: NodeRules) -> TaskSpec {
        let text = format!(
            r#"{{"ID":"j","Type":"{job_type}","TaskGroups":[{{"Name":"g","Tasks":[{{"Name":"t","Driver":"raw_exec","Config":{{"command":"/bin/true"}}{of_task}}}]}}]}}"#
        );
        lower(&job(&text), "g", placed(), rules).unwrap().tasks.remove(0)
    }

    #[test]
    fn an_allocation_carries_its_job_and_placement() {
        let job = job(r#"{"ID":"j","Name":"J","ParentID":"p","Namespace":"n","Region":"r","Meta":{"a":"job","b":"job"},
            "ParameterizedJob":{"MetaOptional":["b","c"]},"TaskGroups":[{"Name":"g","Meta":{"a":"group"},"Tasks":[{"Name":"t"},{"Name":"u"}]}]}"#);
        let spec = lower(&job, "g", placed(), NodeRules { is_oversubscription_on: true, ..NodeRules::default() }).unwrap();
        assert_eq!((spec.name.as_str(), spec.index, spec.job_id.as_str(), spec.job_name.as_str()), ("j.g[3]", 3, "j", "J"));
        assert_eq!((spec.job_parent_id.as_str(), spec.namespace.as_str(), spec.region.as_str()), ("p", "n", "r"));
        assert_eq!((spec.id, spec.ports.len(), spec.tasks.len(), spec.group.as_str()), (AllocId([7; 16]), 1, 2, "g"));
        let meta: Vec<(&str, &str)> = spec.meta.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(meta, [("a", "group"), ("b", "job"), ("c", "")]);
        assert!(lower(&job, "other", placed(), NodeRules::default()).is_none());
    }

    #[test]
    fn telemetry_is_lowered_whole() {
        let fixture: serde_json::Value = serde_json::from_str(include_str!("../../../tests/fixtures/jobs/telemetry.json")).unwrap();
        let spec =
            lower(&job(&fixture["Job"].to_string()), "sense", placed(), NodeRules { is_oversubscription_on: true, ..NodeRules::default() })
                .unwrap();
        let task = &spec.tasks[0];
        let program = task.program.as_ref().unwrap();
        assert_eq!((program.command.as_str(), program.args.len(), program.args[0].as_str()), ("/bin/sh", 2, "-c"));
        assert!(program.args[1].contains("\"$NOMAD_ALLOC_DIR/data/beat\""));
        assert_eq!(task.env["SENSOR_BUS"], "i2c-1");
        assert_eq!(task.kill, KillPolicy { signal: 2, timeout_ms: 3_000 });
        assert_eq!(task.logs, LogPolicy { files_max: 3, file_bytes_max: 1 << 20, is_captured: true });
        assert_eq!(task.resources, spec::Resources { cpu_mhz: 50, memory_mb: 16, memory_max_mb: 0 });
        let restart =
            spec::RestartPolicy { attempts: 3, interval_ms: 300_000, delay_ms: 1_000, mode: RestartMode::Delay, on_success: true };
        assert_eq!(task.restart, restart);
        assert_eq!((task.role, task.is_leader, task.driver), (Role::Main, false, DriverKind::RawExec));
    }

    #[test]
    fn what_follows_a_success_depends_on_type_and_hook() {
        let on_success = |job_type: &str, of_task: &str| task(job_type, of_task).restart.on_success;
        for (job_type, main) in [("service", true), ("system", true), ("batch", false), ("sysbatch", false)] {
            assert_eq!(on_success(job_type, ""), main, "{job_type}");
            for hook in ["prestart", "poststart"] {
                assert!(on_success(job_type, &format!(r#","Lifecycle":{{"Hook":"{hook}","Sidecar":true}}"#)), "{job_type} {hook}");
                assert!(!on_success(job_type, &format!(r#","Lifecycle":{{"Hook":"{hook}"}}"#)), "{job_type} {hook}");
            }
            assert!(!on_success(job_type, r#","Lifecycle":{"Hook":"poststop"}"#), "{job_type}");
        }
        assert_eq!(task("batch", r#","Lifecycle":{"Hook":"poststart","Sidecar":true}"#).role, Role::Poststart { is_sidecar: true });
    }

    #[test]
    fn killing() {
        let kill = |of_task: &str| task("service", of_task).kill;
        assert_eq!(kill(""), KillPolicy { signal: 2, timeout_ms: 5_000 });
        assert_eq!(kill(r#","KillTimeout":60000000000,"KillSignal":"SIGTERM""#), KillPolicy { signal: 15, timeout_ms: 30_000 });
        assert_eq!(kill(r#","KillTimeout":1"#).timeout_ms, 1);
        assert_eq!(kill(r#","KillTimeout":-1"#).timeout_ms, 0);
        let bad = task("service", r#","KillSignal":"SIGNONE""#);
        assert!(bad.program.unwrap_err().starts_with("unknown kill signal \"SIGNONE\"; known: "));
    }

    #[test]
    fn absurd_numbers_are_clamped() {
        let max = i64::MAX;
        let task = task(
            "service",
            &format!(
                r#","Resources":{{"CPU":{max},"MemoryMB":-5,"MemoryMaxMB":{max}}},"LogConfig":{{"MaxFiles":{max},"MaxFileSizeMB":-1,"Disabled":true}},
                "RestartPolicy":{{"Attempts":-1,"Interval":{max},"Delay":-1}},"ShutdownDelay":{max}"#
            ),
        );
        assert_eq!(task.resources, spec::Resources { cpu_mhz: u32::MAX, memory_mb: 0, memory_max_mb: i32::MAX });
        let off = task_under("service", r#","Resources":{"MemoryMB":16,"MemoryMaxMB":64}"#, NodeRules::default());
        assert_eq!((off.resources.memory_mb, off.resources.memory_max_mb), (16, 0));
        assert_eq!(task.logs, LogPolicy { files_max: u32::MAX, file_bytes_max: 1 << 20, is_captured: false });
        assert_eq!((task.restart.attempts, task.restart.delay_ms), (0, 0));
        assert_eq!(task.shutdown_delay_ms, u64::try_from(max).unwrap().div_ceil(1_000_000));
    }

    #[test]
    fn the_place_of_a_payload() {
        assert_eq!(task("batch", "").payload_file, "");
        assert_eq!(task("batch", r#","DispatchPayload":{"File":"in/x"}"#).payload_file, "in/x");
    }

    #[test]
    fn templates() {
        let one = |of_template: &str| {
            task("service", &format!(r#","Templates":[{{"EmbeddedTmpl":"x","DestPath":"local/y"{of_template}}}]"#)).templates.remove(0)
        };
        let plain = one("");
        assert_eq!((plain.source.as_str(), plain.destination.as_str(), plain.mode, plain.is_env), ("x", "local/y", 0o644, false));
        assert_eq!((plain.left.as_str(), plain.right.as_str()), ("{{", "}}"));
        let other = one(r#","Perms":"4755","LeftDelim":"<<","RightDelim":"","Envvars":true"#);
        assert_eq!((other.mode, other.left.as_str(), other.right.as_str(), other.is_env), (0o4755, "<<", "}}", true));
        assert_eq!(one(r#","Perms":"rwx""#).mode, 0o644);
    }

    #[track_caller]
    fn check(config: &str, want: Result<(&str, &[&str], &str, i32), &str>) {
        let got = program("raw_exec", &Raw::from_text(config).unwrap()).unwrap();
        let want = want.map_err(|text| format!("driver config{text}")).map(|(command, args, work_dir, oom_score_adj)| Program {
            command: command.into(),
            args: args.iter().map(|&arg| arg.into()).collect(),
            work_dir: work_dir.into(),
            oom_score_adj,
        });
        assert_eq!(got, want, "{config}");
    }

    #[test]
    fn raw_exec_config() {
        check(r#"{"command":"/bin/sh","args":["-c","x"]}"#, Ok(("/bin/sh", &["-c", "x"], "", 0)));
        check(
            r#"{"command":"nc","args":["-l",8080,true,2.5,""],"work_dir":"/srv","oom_score_adj":7}"#,
            Ok(("nc", &["-l", "8080", "true", "2.5", ""], "/srv", 7)),
        );
        check(r#"{"command":"x","args":[],"work_dir":"${NOMAD_TASK_DIR}","denied_envvars":[]}"#, Ok(("x", &[], "${NOMAD_TASK_DIR}", 0)));
        check("null", Err(": command must be given"));
        check(r#"{"args":["x"]}"#, Err(": command must be given"));
        check(r#"{"command":null}"#, Err(": command must be given"));
        check(r#"{"command":["x"]}"#, Err(": command must be a string"));
        check(r#"{"command":"x","args":"y"}"#, Err(": args must be a list of strings"));
        check(r#"{"command":"x","args":[["y"]]}"#, Err(": args must be a list of strings"));
        check(r#"{"command":"x","work_dir":"srv"}"#, Err(": work_dir must be an absolute path, not \"srv\""));
        check(r#"{"command":"x","oom_score_adj":-1}"#, Err(": oom_score_adj must be an integer from 0 to 1000"));
        check(r#"{"command":"x","oom_score_adj":"7"}"#, Err(": oom_score_adj must be an integer from 0 to 1000"));
        check(r#"{"command":"x","denied_envvars":["A"]}"#, Err(": denied_envvars is not supported by this agent"));
        check(r#"{"command":"x","image":"y"}"#, Err(": unknown key \"image\"; known: command, args, work_dir, oom_score_adj"));
        check("[1]", Err(" must be an object"));
        assert!(program("docker", &Raw::default()).is_none());
    }

    #[test]
    fn an_unknown_driver_is_told_by_the_task() {
        let task = task("service", r#","driver":"docker""#);
        assert_eq!(task.program.unwrap_err(), "driver \"docker\" is not available on this node; known: raw_exec");
    }
}
