//! The narrow language of running: what the agent asks this floor to run. Plain values, every default already filled in.
//!
//! Shape: `agent::model::lower` makes an [`AllocSpec`] from an allocation and its job; the machines and edges read it.
//! Units: in the names. Never: JSON, optional fields whose absence has a meaning elsewhere.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{AllocId, NodeId};

/// One allocation: the tasks of one group, placed here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllocSpec {
    /// The allocation.
    pub id: AllocId,
    /// `<job>.<group>[<index>]`.
    pub name: String,
    /// The number in the brackets of `name`.
    pub index: u32,
    /// Namespace of the job.
    pub namespace: String,
    /// Region of the job.
    pub region: String,
    /// Job.
    pub job_id: String,
    /// Display name of the job.
    pub job_name: String,
    /// The periodic or parameterized job this one was made from; empty if none.
    pub job_parent_id: String,
    /// Task group.
    pub group: String,
    /// Ports of the group, in the order of the job.
    pub ports: Vec<Port>,
    /// Meta of job, then group (the group wins), before the task's own.
    pub meta: BTreeMap<String, String>,
    /// Tasks in the order of the job.
    pub tasks: Vec<TaskSpec>,
    /// When it is healthy; `None` = nobody asks, or a user says so.
    pub health: Option<HealthRule>,
}

/// When an allocation counts as healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthRule {
    /// All tasks run this long without a restart.
    pub min_healthy_ms: u64,
    /// Not healthy by then is unhealthy.
    pub deadline_ms: u64,
}

/// One port of the group's network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Label, unique in the group.
    pub label: String,
    /// Port on the host.
    pub value: u16,
    /// Port seen by the task; 0 = same as `value`.
    pub to: u16,
    /// Address on the host.
    pub host_ip: String,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSpec {
    /// Name, unique in the group; no slash, no NUL.
    pub name: String,
    /// Which driver runs it.
    pub driver: DriverKind,
    /// What the driver runs, or why its configuration cannot be read (the text of a `Failed Validation` event).
    pub program: Result<Program, String>,
    /// User name or number; empty = the driver's default.
    pub user: String,
    /// `env` block, not interpolated.
    pub env: BTreeMap<String, String>,
    /// The task's own meta.
    pub meta: BTreeMap<String, String>,
    /// Limits.
    pub resources: Resources,
    /// What happens after an exit.
    pub restart: RestartPolicy,
    /// How it is asked to end.
    pub kill: KillPolicy,
    /// Wait between deregistering services and the kill signal.
    pub shutdown_delay_ms: u64,
    /// Its captured output.
    pub logs: LogPolicy,
    /// When it runs relative to the main tasks.
    pub role: Role,
    /// The group ends when this task ends.
    pub is_leader: bool,
    /// Files rendered before each start.
    pub templates: Vec<Template>,
    /// Where the payload of the job's dispatch goes, below the task's `local`; empty = nowhere.
    pub payload_file: String,
}

impl TaskSpec {
    /// A task that cannot run, and why; everything else is the default.
    #[must_use]
    pub fn failed(name: &str, why: String) -> Self {
        Self {
            name: name.to_owned(),
            driver: DriverKind::default(),
            program: Err(why),
            user: String::new(),
            env: BTreeMap::new(),
            meta: BTreeMap::new(),
            resources: Resources::default(),
            restart: RestartPolicy::default(),
            kill: KillPolicy::default(),
            shutdown_delay_ms: 0,
            logs: LogPolicy::default(),
            role: Role::default(),
            is_leader: false,
            templates: Vec::new(),
            payload_file: String::new(),
        }
    }
}

/// The part of a task only its driver understands, already checked. Nothing is interpolated yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// Path or name to look up.
    pub command: String,
    /// Arguments after `argv[0]`.
    pub args: Vec<String>,
    /// Absolute working directory; empty = the driver's default.
    pub work_dir: String,
    /// `oom_score_adj` of the task, >= 0.
    pub oom_score_adj: i32,
}

/// The drivers of this agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DriverKind {
    /// No isolation: the host's file system, the agent's user.
    #[default]
    RawExec,
}

impl DriverKind {
    /// The name in job files and attributes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RawExec => "raw_exec",
        }
    }

    /// The driver of a name; `None` when this agent does not have it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "raw_exec" => Some(Self::RawExec),
            _ => None,
        }
    }
}

/// Limits of one task. 0 = no limit of that kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Share of the processor, in MHz.
    pub cpu_mhz: u32,
    /// Reserved memory; the hard limit too when `memory_max_mb` is 0.
    pub memory_mb: u32,
    /// Hard limit above the reservation; -1 = none.
    pub memory_max_mb: i32,
}

/// What happens after an exit (`spec/runtime.md` 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Restarts within one interval.
    pub attempts: u32,
    /// The window attempts are counted in.
    pub interval_ms: u64,
    /// Wait before a restart, before jitter.
    pub delay_ms: u64,
    /// What happens when attempts are used up.
    pub mode: RestartMode,
    /// A success is followed by a restart too (service and system jobs, sidecars).
    pub on_success: bool,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { attempts: 2, interval_ms: 30 * 60_000, delay_ms: 15_000, mode: RestartMode::Fail, on_success: true }
    }
}

/// When attempts are used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RestartMode {
    /// The task fails.
    #[default]
    Fail,
    /// The task waits for the next interval.
    Delay,
}

/// How a task is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillPolicy {
    /// Signal number.
    pub signal: i32,
    /// Time until SIGKILL; already limited to the client's `max_kill_timeout`.
    pub timeout_ms: u64,
}

impl Default for KillPolicy {
    fn default() -> Self {
        Self { signal: 2, timeout_ms: 5_000 }
    }
}

/// Captured output of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPolicy {
    /// Files kept of each stream, >= 1.
    pub files_max: u32,
    /// Size at which a file is followed by the next, >= 1 MiB.
    pub file_bytes_max: u64,
    /// False = output goes to /dev/null.
    pub is_captured: bool,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self { files_max: 10, file_bytes_max: 10 << 20, is_captured: true }
    }
}

/// When a task runs relative to the main tasks of its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// A main task.
    #[default]
    Main,
    /// Before the main tasks; a sidecar stays.
    Prestart {
        /// Runs on beside the main tasks.
        is_sidecar: bool,
    },
    /// After the main tasks have started.
    Poststart {
        /// Runs on beside the main tasks.
        is_sidecar: bool,
    },
    /// After all others have ended.
    Poststop,
}

impl Role {
    /// True for a prestart or poststart task that stays beside the main tasks.
    #[must_use]
    pub fn is_sidecar(self) -> bool {
        matches!(self, Self::Prestart { is_sidecar: true } | Self::Poststart { is_sidecar: true })
    }
}

/// A file rendered before the task starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Text with actions.
    pub source: String,
    /// Where it goes, relative to the task's folder; not interpolated yet.
    pub destination: String,
    /// Permission bits.
    pub mode: u32,
    /// Opening delimiter, not empty.
    pub left: String,
    /// Closing delimiter, not empty.
    pub right: String,
    /// The result is also read as `KEY=value` lines into the task's environment.
    pub is_env: bool,
}

/// What interpolation may read about the node: `node.*`, `attr.*`, `meta.*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeVars {
    /// The node.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Its class; may be empty.
    pub class: String,
    /// Its pool.
    pub pool: String,
    /// Its datacenter.
    pub datacenter: String,
    /// Its region.
    pub region: String,
    /// Fingerprinted attributes.
    pub attributes: BTreeMap<String, String>,
    /// Configured meta.
    pub meta: BTreeMap<String, String>,
    /// Cgroup parent shown to tasks as NOMAD_PARENT_CGROUP; empty = none.
    pub cgroup_parent: String,
}
