//! A job and everything inside it: one set of structs for what is posted, what is kept and what `GET /v1/job/:id` shows.
//!
//! Shape: outside JSON -> (`wire::json`) -> [`Job`] -> (`model::canonical`) -> [`Job`] in normal form -> JSON text, shown and stored alike.
//! A field is an `Option` where its absence has a meaning before canonicalization (it is `Some` afterwards) or where the normal
//! form shows `null`; all else is plain and absent = zero. Keys are exactly those of `spec/jobs.md` 3.
//! Units: durations are nanoseconds (`_ns`), indexes and times as on the wire.
//! Reading: only through [`crate::wire::json`], which takes `null` for absent and keys in any case. Writing: any serde writer;
//! empty lists and maps are written as `null`.
//! Never: a default filled in (`canonical`), a fault found (`validate`). Source: upstream v1.3.1 nomad/structs/structs.go.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crate::wire::json::Raw;

/// What the job asks to be run, in the words of the wire.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Job {
    /// Deregistered: allocations are being stopped or are gone.
    pub stop: bool,
    /// Empty before canonicalization = the agent's.
    pub region: String,
    /// Empty before canonicalization = `default`.
    pub namespace: String,
    /// Unique in its namespace.
    #[serde(rename = "ID")]
    pub id: String,
    /// The periodic or parameterized job this one was made from; empty if none.
    #[serde(rename = "ParentID")]
    pub parent_id: String,
    /// Display name; absent = the id.
    pub name: Option<String>,
    /// Absent = `service`. See [`Job::kind`].
    #[serde(rename = "Type")]
    pub job_type: Option<String>,
    /// 1..=100; absent = 50.
    pub priority: Option<i64>,
    /// Ignored on one node.
    pub all_at_once: bool,
    /// Where it may run; absent = `["*"]`.
    #[serde(serialize_with = "or_null")]
    pub datacenters: Vec<String>,
    /// Node pool (later versions); empty = `default`.
    pub node_pool: String,
    /// For every group.
    #[serde(serialize_with = "or_null")]
    pub constraints: Vec<Constraint>,
    /// Preferences; without effect on one node.
    #[serde(serialize_with = "or_null")]
    pub affinities: Vec<Affinity>,
    /// Preferences; without effect on one node.
    #[serde(serialize_with = "or_null")]
    pub spreads: Vec<Spread>,
    /// What runs.
    #[serde(serialize_with = "or_null")]
    pub task_groups: Vec<TaskGroup>,
    /// Given at job level it is merged into the groups; the normal form keeps only Stagger and MaxParallel here.
    pub update: Option<UpdateStrategy>,
    /// Refused when given.
    pub multiregion: Raw,
    /// Runs by the clock.
    pub periodic: Option<Periodic>,
    /// Runs when dispatched.
    pub parameterized_job: Option<Parameterized>,
    /// Input only: merged under each group's policy.
    #[serde(skip_serializing)]
    pub reschedule: Option<ReschedulePolicy>,
    /// Input only: merged under each group's strategy.
    #[serde(skip_serializing)]
    pub migrate: Option<MigrateStrategy>,
    /// Made by a dispatch.
    pub dispatched: bool,
    /// The dispatch request's token.
    pub dispatch_idempotency_token: String,
    /// The dispatch request's payload.
    pub payload: Bytes,
    /// Seen by all tasks as `NOMAD_META_*`.
    #[serde(serialize_with = "or_null")]
    pub meta: BTreeMap<String, String>,
    /// Never kept.
    pub consul_token: String,
    /// Shown only.
    pub consul_namespace: String,
    /// Never kept.
    pub vault_token: String,
    /// Shown only.
    pub vault_namespace: String,
    /// Accessor of who registered it.
    #[serde(rename = "NomadTokenID")]
    pub nomad_token_id: String,
    /// `pending`, `running` or `dead`.
    pub status: String,
    /// Why.
    pub status_description: String,
    /// A deployment of this version succeeded.
    pub stable: bool,
    /// Counts the changes of the spec, from 0.
    pub version: u64,
    /// When it was registered, ns since the epoch.
    pub submit_time: i64,
    /// Index of the first registration.
    pub create_index: u64,
    /// Index of the last change of anything here.
    pub modify_index: u64,
    /// Index of the last change of the spec.
    pub job_modify_index: u64,
}

/// Which rules place and restart the job's allocations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// Runs for ever, `Count` times.
    #[default]
    Service,
    /// Runs to its end.
    Batch,
    /// Runs for ever on every node.
    System,
    /// Runs to its end on every node.
    Sysbatch,
}

impl JobKind {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Batch => "batch",
            Self::System => "system",
            Self::Sysbatch => "sysbatch",
        }
    }

    /// `None` for any other word; the comparison is exact.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Service, Self::Batch, Self::System, Self::Sysbatch].into_iter().find(|kind| kind.as_str() == text)
    }

    /// True when a task that ended well is started again: service and system.
    #[must_use]
    pub fn runs_for_ever(self) -> bool {
        matches!(self, Self::Service | Self::System)
    }
}

impl Job {
    /// The type; a word that is none of the four (refused by `validate`) counts as `service`.
    #[must_use]
    pub fn kind(&self) -> JobKind {
        self.job_type.as_deref().and_then(JobKind::parse).unwrap_or_default()
    }

    /// The word of the type as given; `service` when absent.
    #[must_use]
    pub fn type_text(&self) -> &str {
        self.job_type.as_deref().unwrap_or("service")
    }

    /// Display name; the id when absent.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }

    /// 50 when absent.
    #[must_use]
    pub fn priority(&self) -> i64 {
        self.priority.unwrap_or(50)
    }

    /// The group of a name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&TaskGroup> {
        self.task_groups.iter().find(|group| group.name == name)
    }

    /// It starts by the clock (even when switched off): it never has allocations of its own.
    #[must_use]
    pub fn is_periodic(&self) -> bool {
        self.periodic.is_some()
    }

    /// It makes children by itself, unless it is stopped.
    #[must_use]
    pub fn is_periodic_active(&self) -> bool {
        self.periodic.as_ref().is_some_and(|periodic| periodic.enabled != Some(false)) && !self.is_parameterized()
    }

    /// It starts by dispatch; a dispatched child is not parameterized.
    #[must_use]
    pub fn is_parameterized(&self) -> bool {
        self.parameterized_job.is_some() && !self.dispatched
    }

    /// Reads a job as stored or shown by this agent. For posted documents use [`crate::wire::json::decode`] on the envelope.
    ///
    /// # Errors
    /// The text is not the JSON of a job.
    pub fn from_json(text: &[u8]) -> Result<Self, crate::wire::json::JsonError> {
        crate::wire::json::decode(text, DEPTH_MAX)
    }

    /// The stored and shown text.
    ///
    /// # Errors
    /// Never for a job that was read by [`crate::wire::json`].
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

/// Nesting of a stored job: the deepest posted one (`Budget::json_depth_max`) fits.
const DEPTH_MAX: usize = 128;

/// Tasks that are placed together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct TaskGroup {
    /// Unique in the job.
    pub name: String,
    /// How many allocations; absent = 1, or `Scaling.Min`.
    pub count: Option<i64>,
    /// How new versions replace old ones; service jobs only.
    pub update: Option<UpdateStrategy>,
    /// How allocations leave a draining node; service jobs only.
    pub migrate: Option<MigrateStrategy>,
    /// For this group.
    #[serde(serialize_with = "or_null")]
    pub constraints: Vec<Constraint>,
    /// Bounds of the count; kept and shown, nobody scales on one node.
    pub scaling: Option<Scaling>,
    /// Default of its tasks.
    pub restart_policy: Option<RestartPolicy>,
    /// In the order of the job file.
    #[serde(serialize_with = "or_null")]
    pub tasks: Vec<Task>,
    /// The allocation's folder.
    pub ephemeral_disk: Option<EphemeralDisk>,
    /// Wins over the job's.
    #[serde(serialize_with = "or_null")]
    pub meta: BTreeMap<String, String>,
    /// What follows a failed allocation.
    pub reschedule_policy: Option<ReschedulePolicy>,
    /// Preferences; without effect on one node.
    #[serde(serialize_with = "or_null")]
    pub affinities: Vec<Affinity>,
    /// Preferences; without effect on one node.
    #[serde(serialize_with = "or_null")]
    pub spreads: Vec<Spread>,
    /// At most one is of use.
    #[serde(serialize_with = "or_null")]
    pub networks: Vec<Network>,
    /// Shown only.
    pub consul: Option<GroupConsul>,
    /// Registrations.
    #[serde(serialize_with = "or_null")]
    pub services: Vec<Service>,
    /// By name.
    #[serde(serialize_with = "or_null")]
    pub volumes: BTreeMap<String, VolumeRequest>,
    /// Wait before the tasks are killed.
    #[serde(rename = "ShutdownDelay")]
    pub shutdown_delay_ns: Option<i64>,
    /// Only with servers.
    #[serde(rename = "StopAfterClientDisconnect")]
    pub stop_after_client_disconnect_ns: Option<i64>,
    /// Only with servers.
    #[serde(rename = "MaxClientDisconnect")]
    pub max_client_disconnect_ns: Option<i64>,
}

impl TaskGroup {
    /// Allocations wanted; 1 when absent, 0 when negative (refused by `validate`).
    #[must_use]
    pub fn count(&self) -> u32 {
        u32::try_from(self.count.unwrap_or(1).max(0)).unwrap_or(u32::MAX)
    }

    /// The task of a name.
    #[must_use]
    pub fn task(&self, name: &str) -> Option<&Task> {
        self.tasks.iter().find(|task| task.name == name)
    }

    /// Folder size asked for, MB.
    #[must_use]
    pub fn disk_mb(&self) -> i64 {
        self.ephemeral_disk.as_ref().and_then(|disk| disk.size_mb).unwrap_or(300)
    }
}

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Task {
    /// Unique in the group.
    pub name: String,
    /// Who runs it.
    pub driver: String,
    /// As whom; empty = the driver's default.
    pub user: String,
    /// Only the driver understands it; a map.
    pub config: Raw,
    /// Environment.
    #[serde(serialize_with = "or_null")]
    pub env: BTreeMap<String, String>,
    /// Registrations.
    #[serde(serialize_with = "or_null")]
    pub services: Vec<Service>,
    /// Refused when given.
    pub vault: Raw,
    /// Files rendered before each start.
    #[serde(serialize_with = "or_null")]
    pub templates: Vec<Template>,
    /// For this task's group.
    #[serde(serialize_with = "or_null")]
    pub constraints: Vec<Constraint>,
    /// Preferences; without effect on one node.
    #[serde(serialize_with = "or_null")]
    pub affinities: Vec<Affinity>,
    /// What it needs.
    pub resources: Option<Resources>,
    /// What follows an exit.
    pub restart_policy: Option<RestartPolicy>,
    /// Where a dispatch's payload goes.
    pub dispatch_payload: Option<DispatchPayload>,
    /// When it runs; `None` = a main task.
    pub lifecycle: Option<Lifecycle>,
    /// Wins over the group's.
    #[serde(serialize_with = "or_null")]
    pub meta: BTreeMap<String, String>,
    /// From the kill signal to SIGKILL; absent or 0 = 5 s.
    #[serde(rename = "KillTimeout")]
    pub kill_timeout_ns: Option<i64>,
    /// Its output.
    pub log_config: Option<LogConfig>,
    /// Downloads.
    #[serde(serialize_with = "or_null")]
    pub artifacts: Vec<Artifact>,
    /// The group ends with it.
    pub leader: bool,
    /// Wait before the kill signal.
    #[serde(rename = "ShutdownDelay")]
    pub shutdown_delay_ns: i64,
    /// Of the group's volumes.
    #[serde(serialize_with = "or_null")]
    pub volume_mounts: Vec<VolumeMount>,
    /// Shown only.
    #[serde(serialize_with = "or_null")]
    pub scaling_policies: Vec<Raw>,
    /// Name; empty = SIGINT.
    pub kill_signal: String,
    /// Shown only.
    pub kind: String,
    /// Refused when given.
    #[serde(rename = "CSIPluginConfig")]
    pub csi_plugin_config: Raw,
}

/// What a task needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Resources {
    /// MHz; absent = 100, or 0 when cores are asked for.
    #[serde(rename = "CPU")]
    pub cpu: Option<i64>,
    /// Whole cores.
    pub cores: Option<i64>,
    /// Reserved memory; absent = 300.
    #[serde(rename = "MemoryMB")]
    pub memory_mb: Option<i64>,
    /// Limit above the reservation; 0 = none.
    #[serde(rename = "MemoryMaxMB")]
    pub memory_max_mb: i64,
    /// Must be 0.
    #[serde(rename = "DiskMB")]
    pub disk_mb: i64,
    /// Without effect.
    #[serde(rename = "IOPS")]
    pub iops: i64,
    /// The old place of ports.
    #[serde(serialize_with = "or_null")]
    pub networks: Vec<Network>,
    /// Kept and shown; no device is ever found here.
    #[serde(serialize_with = "or_null")]
    pub devices: Vec<Raw>,
}

/// What follows a task's exit, on the same node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct RestartPolicy {
    /// Restarts within one interval.
    pub attempts: Option<i64>,
    /// The window.
    #[serde(rename = "Interval")]
    pub interval_ns: Option<i64>,
    /// Before each restart.
    #[serde(rename = "Delay")]
    pub delay_ns: Option<i64>,
    /// `fail` or `delay`.
    pub mode: Option<String>,
}

/// What follows a failed allocation: a new one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ReschedulePolicy {
    /// New allocations within one interval.
    pub attempts: Option<i64>,
    /// The window.
    #[serde(rename = "Interval")]
    pub interval_ns: Option<i64>,
    /// Before the first.
    #[serde(rename = "Delay")]
    pub delay_ns: Option<i64>,
    /// `constant`, `exponential` or `fibonacci`.
    pub delay_function: Option<String>,
    /// Ceiling of a growing delay.
    #[serde(rename = "MaxDelay")]
    pub max_delay_ns: Option<i64>,
    /// Attempts are not counted.
    pub unlimited: Option<bool>,
}

/// How a new version replaces an old one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct UpdateStrategy {
    /// Between two steps (system jobs).
    #[serde(rename = "Stagger")]
    pub stagger_ns: Option<i64>,
    /// Allocations replaced at once; 0 = no deployment.
    pub max_parallel: Option<i64>,
    /// `checks`, `task_states` or `manual`.
    pub health_check: Option<String>,
    /// Running this long without a restart is healthy.
    #[serde(rename = "MinHealthyTime")]
    pub min_healthy_time_ns: Option<i64>,
    /// Not healthy by then is unhealthy.
    #[serde(rename = "HealthyDeadline")]
    pub healthy_deadline_ns: Option<i64>,
    /// No newly healthy allocation by then fails the deployment; 0 = at once.
    #[serde(rename = "ProgressDeadline")]
    pub progress_deadline_ns: Option<i64>,
    /// A failed deployment registers the newest stable version.
    pub auto_revert: Option<bool>,
    /// Healthy canaries are promoted.
    pub auto_promote: Option<bool>,
    /// Canaries before the rest.
    pub canary: Option<i64>,
}

/// How allocations leave a draining node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct MigrateStrategy {
    /// At once.
    pub max_parallel: Option<i64>,
    /// `checks` or `task_states`.
    pub health_check: Option<String>,
    /// As in [`UpdateStrategy`].
    #[serde(rename = "MinHealthyTime")]
    pub min_healthy_time_ns: Option<i64>,
    /// As in [`UpdateStrategy`].
    #[serde(rename = "HealthyDeadline")]
    pub healthy_deadline_ns: Option<i64>,
}

/// A group's network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Network {
    /// Empty or `host`; others are refused.
    pub mode: String,
    /// Set by the scheduler.
    pub device: String,
    /// Set by the scheduler.
    #[serde(rename = "CIDR")]
    pub cidr: String,
    /// Set by the scheduler.
    #[serde(rename = "IP")]
    pub ip: String,
    /// Of the network namespace; without effect in host mode.
    pub hostname: String,
    /// Without effect.
    #[serde(rename = "MBits")]
    pub mbits: i64,
    /// Of the network namespace; without effect in host mode.
    #[serde(rename = "DNS")]
    pub dns: Raw,
    /// Static ports.
    #[serde(serialize_with = "or_null")]
    pub reserved_ports: Vec<Port>,
    /// Ports chosen by the scheduler.
    #[serde(serialize_with = "or_null")]
    pub dynamic_ports: Vec<Port>,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Port {
    /// Unique in the network.
    pub label: String,
    /// On the host; 0 = to be chosen.
    pub value: i64,
    /// Seen by the task; 0 = none given, -1 = same as the value.
    pub to: i64,
    /// Empty = `default`.
    pub host_network: String,
}

/// The allocation's folder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct EphemeralDisk {
    /// The next allocation on this node takes its data over.
    pub sticky: bool,
    /// The next allocation takes its data over, wherever it is.
    pub migrate: bool,
    /// Absent = 300.
    #[serde(rename = "SizeMB")]
    pub size_mb: Option<i64>,
}

/// Captured output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LogConfig {
    /// Per stream; absent = 10.
    pub max_files: Option<i64>,
    /// Absent = 10.
    #[serde(rename = "MaxFileSizeMB")]
    pub max_file_size_mb: Option<i64>,
    /// Output goes nowhere (later versions); written only when set.
    #[serde(skip_serializing_if = "is_false")]
    pub disabled: bool,
}

/// A file rendered before the task starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Template {
    /// File with the text; refused for now.
    pub source_path: String,
    /// Relative to the task's folder.
    pub dest_path: String,
    /// The text.
    pub embedded_tmpl: String,
    /// `restart`, `signal` or `noop`; absent = `restart`.
    pub change_mode: Option<String>,
    /// Absent = `SIGHUP` with mode signal.
    pub change_signal: Option<String>,
    /// Random wait before the change is told; absent = 5 s.
    #[serde(rename = "Splay")]
    pub splay_ns: Option<i64>,
    /// Octal; absent = `0644`.
    pub perms: Option<String>,
    /// Absent = `{{`.
    pub left_delim: Option<String>,
    /// Absent = `}}`.
    pub right_delim: Option<String>,
    /// The result is read as `KEY=value` lines.
    pub envvars: bool,
    /// Without effect.
    #[serde(rename = "VaultGrace")]
    pub vault_grace_ns: i64,
    /// Without effect: nothing here waits for a cluster.
    pub wait: Raw,
}

/// When a task runs relative to the main tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Lifecycle {
    /// `prestart`, `poststart` or `poststop`.
    pub hook: String,
    /// Stays beside the main tasks.
    pub sidecar: bool,
}

/// Starts by the clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Periodic {
    /// Absent = true.
    pub enabled: Option<bool>,
    /// Cron expression.
    pub spec: String,
    /// Several of them instead (later versions): the earliest counts.
    #[serde(serialize_with = "or_null")]
    pub specs: Vec<String>,
    /// Absent = `cron`.
    pub spec_type: Option<String>,
    /// A slot is skipped while the last child runs.
    pub prohibit_overlap: bool,
    /// Empty before canonicalization = `UTC`.
    pub time_zone: String,
}

/// Starts when dispatched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Parameterized {
    /// `optional`, `required` or `forbidden`; empty before canonicalization = `optional`.
    pub payload: String,
    /// Keys a dispatch must give.
    #[serde(serialize_with = "or_null")]
    pub meta_required: Vec<String>,
    /// Keys a dispatch may give.
    #[serde(serialize_with = "or_null")]
    pub meta_optional: Vec<String>,
}

/// Where a dispatch's payload goes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DispatchPayload {
    /// Relative to the task's `local/`.
    pub file: String,
}

/// A condition on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Constraint {
    /// Left side, e.g. `${attr.cpu.arch}`.
    #[serde(rename = "LTarget")]
    pub l_target: String,
    /// Right side.
    #[serde(rename = "RTarget")]
    pub r_target: String,
    /// `=`, `version`, `regexp`, ...
    #[serde(rename = "Operand")]
    pub operand: String,
}

/// A preference; without effect on one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Affinity {
    /// Left side.
    #[serde(rename = "LTarget")]
    pub l_target: String,
    /// Right side.
    #[serde(rename = "RTarget")]
    pub r_target: String,
    /// As in [`Constraint`].
    #[serde(rename = "Operand")]
    pub operand: String,
    /// -100..=100 without 0; absent = 50.
    #[serde(rename = "Weight")]
    pub weight: Option<i8>,
}

/// A preference; without effect on one node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Spread {
    /// What to spread over.
    pub attribute: String,
    /// 1..=100; absent = 50.
    pub weight: Option<i8>,
    /// Shares.
    #[serde(serialize_with = "or_null")]
    pub spread_target: Vec<SpreadTarget>,
}

/// One share of a [`Spread`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct SpreadTarget {
    /// Value of the attribute.
    pub value: String,
    /// Of all allocations.
    pub percent: u8,
}

/// A download before the task starts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Artifact {
    /// Address.
    pub getter_source: String,
    /// Query options.
    #[serde(serialize_with = "or_null")]
    pub getter_options: BTreeMap<String, String>,
    /// Request headers.
    #[serde(serialize_with = "or_null")]
    pub getter_headers: BTreeMap<String, String>,
    /// `any`, `file` or `dir`; absent = `any`.
    pub getter_mode: Option<String>,
    /// Absent = `local/` (mode file: with the source's base name).
    pub relative_dest: Option<String>,
}

/// A registration of an address under a name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Service {
    /// Empty before canonicalization = `<job>-<group>[-<task>]`.
    pub name: String,
    /// The task whose port it is (group services).
    pub task_name: String,
    /// Label or number.
    pub port_label: String,
    /// `auto`, `host`, `driver`, `alloc`.
    pub address_mode: String,
    /// A given address.
    pub address: String,
    /// Consul only.
    pub enable_tag_override: bool,
    /// Free words.
    #[serde(serialize_with = "or_null")]
    pub tags: Vec<String>,
    /// Instead of tags while a canary.
    #[serde(serialize_with = "or_null")]
    pub canary_tags: Vec<String>,
    /// Health checks.
    #[serde(serialize_with = "or_null")]
    pub checks: Vec<ServiceCheck>,
    /// Input only: merged under each check's.
    #[serde(skip_serializing)]
    pub check_restart: Option<CheckRestart>,
    /// Refused when given.
    pub connect: Raw,
    /// Free pairs.
    #[serde(serialize_with = "or_null")]
    pub meta: BTreeMap<String, String>,
    /// Instead of meta while a canary.
    #[serde(serialize_with = "or_null")]
    pub canary_meta: BTreeMap<String, String>,
    /// What a deployment needs of its checks.
    pub on_update: String,
    /// `consul` or `nomad`.
    pub provider: String,
}

/// A health check of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ServiceCheck {
    /// Display name.
    pub name: String,
    /// `http`, `tcp`, `grpc`, `script`.
    #[serde(rename = "Type")]
    pub check_type: String,
    /// Of a script.
    pub command: String,
    /// Of a script.
    #[serde(serialize_with = "or_null")]
    pub args: Vec<String>,
    /// Of http.
    pub path: String,
    /// Of http.
    pub protocol: String,
    /// Empty = the service's.
    pub port_label: String,
    /// Consul only.
    pub expose: bool,
    /// As in [`Service`].
    pub address_mode: String,
    /// Between two runs.
    #[serde(rename = "Interval")]
    pub interval_ns: i64,
    /// Of one run.
    #[serde(rename = "Timeout")]
    pub timeout_ns: i64,
    /// Before the first run.
    pub initial_status: String,
    /// Of https.
    #[serde(rename = "TLSSkipVerify")]
    pub tls_skip_verify: bool,
    /// Of http.
    pub method: String,
    /// Of http.
    #[serde(serialize_with = "or_null")]
    pub header: BTreeMap<String, Vec<String>>,
    /// Of http.
    pub body: String,
    /// What a failing check does to the task.
    pub check_restart: Option<CheckRestart>,
    /// Of grpc.
    #[serde(rename = "GRPCService")]
    pub grpc_service: String,
    /// Of grpc.
    #[serde(rename = "GRPCUseTLS")]
    pub grpc_use_tls: bool,
    /// The task of a script (group services).
    pub task_name: String,
    /// In a row.
    pub success_before_passing: i64,
    /// In a row.
    pub failures_before_critical: i64,
    /// As in [`Service`].
    pub on_update: String,
}

/// Restart of a task whose check fails.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CheckRestart {
    /// Failures in a row; 0 = never.
    pub limit: i64,
    /// After a start; absent = 1 s.
    #[serde(rename = "Grace")]
    pub grace_ns: Option<i64>,
    /// A warning is a success.
    pub ignore_warnings: bool,
}

/// A volume the group wants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeRequest {
    /// Its key in the group.
    pub name: String,
    /// `host`; `csi` is refused.
    #[serde(rename = "Type")]
    pub volume_type: String,
    /// The node's name for it.
    pub source: String,
    /// No writes.
    pub read_only: bool,
    /// CSI only.
    pub access_mode: String,
    /// CSI only.
    pub attachment_mode: String,
    /// CSI only.
    pub mount_options: Raw,
    /// CSI only.
    pub per_alloc: bool,
}

/// A volume seen by a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct VolumeMount {
    /// Its key in the group.
    pub volume: String,
    /// Path in the task.
    pub destination: String,
    /// No writes.
    pub read_only: bool,
    /// Empty before canonicalization = `private`.
    pub propagation_mode: String,
}

/// Bounds of a group's count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Scaling {
    /// Never given: nothing here keeps policies apart from their job.
    #[serde(rename = "ID")]
    pub id: String,
    /// Absent = `horizontal`.
    #[serde(rename = "Type")]
    pub scaling_type: String,
    /// Job, group and namespace.
    #[serde(serialize_with = "or_null")]
    pub target: BTreeMap<String, String>,
    /// The autoscaler's own.
    pub policy: Raw,
    /// Absent = the group's count.
    pub min: Option<i64>,
    /// Largest count; absent = 0.
    pub max: Option<i64>,
    /// Absent = true.
    pub enabled: Option<bool>,
    /// Of the registration.
    pub create_index: u64,
    /// Of the registration.
    pub modify_index: u64,
}

/// Shown only.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct GroupConsul {
    /// Enterprise only.
    pub namespace: String,
}

/// Bytes that travel as base64; empty = `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() { out.serialize_none() } else { out.serialize_str(&STANDARD.encode(&self.0)) }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        STANDARD.decode(text).map(Self).map_err(|_| D::Error::custom("not base64 with padding"))
    }
}

/// What `or_null` needs to know of a list or map.
trait MaybeEmpty {
    fn is_empty(&self) -> bool;
}

impl<T> MaybeEmpty for Vec<T> {
    fn is_empty(&self) -> bool {
        Vec::is_empty(self)
    }
}

impl<K, V> MaybeEmpty for BTreeMap<K, V> {
    fn is_empty(&self) -> bool {
        BTreeMap::is_empty(self)
    }
}

/// The normal form has `null` where a list or map is empty.
fn or_null<T: MaybeEmpty + Serialize, S: Serializer>(value: &T, out: S) -> Result<S::Ok, S::Error> {
    if value.is_empty() { out.serialize_none() } else { value.serialize(out) }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_false(value: &bool) -> bool {
    !*value
}
