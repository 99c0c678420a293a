//! Stored rows: `[version u8][postcard]`. A changed row is a new version with a migration and a frozen file, never an
//! edited struct (invariant I10); that is why these types repeat the model's.
//!
//! The spec of a job is kept as the JSON text of its normal form inside a row: it is shown far more often than it is read.
//! Errors: bytes that do not decode are [`StoreError::Corrupt`], versions of a later agent [`StoreError::Newer`].

use dunlin_hal::clock::{Mono, Wall};
use dunlin_runtime::event::{ClientStatus, EventKind, TaskEvent, TaskPhase, TaskState};
use dunlin_runtime::id::{AllocId, DeploymentId, EvalId, Inv};
use dunlin_runtime::spec::Port;
use dunlin_runtime::task::machine::TaskMemo;
use dunlin_runtime::task::restart::Window;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::model::alloc::{
    Allocation, Desired, Edition, Grant, Health, JobKey, LastReschedule, Metric, Owner, RescheduleEvent, TaskEntry, TaskGrant,
};
use crate::model::deployment::{Deployment, DeploymentStatus, GroupState};
use crate::model::eval::{EvalStatus, Evaluation, Trigger};
use crate::model::job::JobKind;
use crate::model::scaling::ScalingEvents;
use crate::model::summary::GroupSummary;

/// The store's own row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Index of the last change.
    pub index: u64,
    /// Index of the last change per [`super::Table`].
    pub tables: [u64; super::TABLES_N],
    /// Newest wall time seen at a commit.
    pub wall: Wall,
    /// Boot the facts belong to.
    pub boot_id: [u8; 16],
    /// Allocations stored.
    pub allocs_n: u64,
    /// Evaluations stored.
    pub evals_n: u64,
    /// Reboots in a row after less than ten minutes that nobody asked for.
    pub reboots_n: u32,
}

/// The changing half of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobRow {
    /// Newest version.
    pub version: u64,
    /// Stopped by a user.
    pub is_stopped: bool,
    /// Pending, running, dead.
    pub status: JobStatus,
    /// Index of the first registration.
    pub create_index: u64,
    /// Index of the last change of row or spec.
    pub modify_index: u64,
    /// Index of the last change of the spec.
    pub job_modify_index: u64,
    /// Index of the last change of the summary.
    pub summary_modify_index: u64,
    /// An evaluation of it exists or existed.
    pub had_eval: bool,
    /// Counts per group, in the order of the job.
    pub summary: Vec<GroupSummary>,
    /// What lists show of the newest version without reading it.
    pub stub: JobStub,
    /// Jobs made from this one, by their status. Those that are dead stay counted when they are forgotten.
    pub children: Children,
    /// Newest slot launched, of a periodic job: an older one never is. [`Wall::UNSET`] = none yet.
    pub last_slot_at: Wall,
    /// Places of the newest version, by group, whose allocations have ended and are forgotten, and which are not filled again.
    pub spent: Vec<(String, u32)>,
}

/// `JobSummary.Children`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Children {
    /// Nothing of them is placed.
    pub pending_n: u32,
    /// They run.
    pub running_n: u32,
    /// They have ended, ever.
    pub dead_n: u32,
}

impl Children {
    fn bin(&mut self, status: JobStatus) -> &mut u32 {
        match status {
            JobStatus::Pending => &mut self.pending_n,
            JobStatus::Running => &mut self.running_n,
            JobStatus::Dead => &mut self.dead_n,
        }
    }

    /// A child goes from one status to another; `None` = it is new.
    pub fn shift(&mut self, from: Option<JobStatus>, to: JobStatus) {
        if let Some(from) = from {
            let bin = self.bin(from);
            *bin = bin.saturating_sub(1);
        }
        let bin = self.bin(to);
        *bin = bin.saturating_add(1);
    }

    /// Those that have not ended.
    #[must_use]
    pub fn living_n(&self) -> u32 {
        self.pending_n.saturating_add(self.running_n)
    }
}

/// `Job.Status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobStatus {
    /// Nothing placed yet.
    #[default]
    Pending,
    /// Something runs or may run.
    Running,
    /// Nothing runs.
    Dead,
}

impl JobStatus {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Dead => "dead",
        }
    }
}

/// What lists show of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobStub {
    /// Display name.
    pub name: String,
    /// Type.
    pub kind: JobKind,
    /// 1..=100.
    pub priority: u8,
    /// Datacenters.
    pub datacenters: Vec<String>,
    /// Parent; empty = none.
    pub parent_id: String,
    /// It is periodic.
    pub is_periodic: bool,
    /// It is parameterized.
    pub is_parameterized: bool,
    /// When it was registered.
    pub submit_at: Wall,
    /// Token of the dispatch that made it; empty = none.
    pub dispatch_token: String,
}

/// One version of a job: never changes but for `is_stable`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobVersion {
    /// From 0.
    pub version: u64,
    /// A deployment of it succeeded.
    pub is_stable: bool,
    /// It is the version made by a stop: the spec of the one before, and nothing runs.
    pub is_stopped: bool,
    /// Index at which it was registered.
    pub job_modify_index: u64,
    /// When it was registered.
    pub submit_at: Wall,
    /// JSON of `model::job::Job` in normal form.
    pub spec: String,
}

/// The node's changing half; all else is fingerprinted at each start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRow {
    /// Index of its first registration.
    pub create_index: u64,
    /// Index of its last change.
    pub modify_index: u64,
    /// No new allocations.
    pub is_ineligible: bool,
    /// When its status last changed.
    pub status_updated_at: Wall,
}

fn encode<T: Serialize>(version: u8, row: &T) -> Vec<u8> {
    // postcard fails only on types it cannot express (unsized sequences, flattened maps); no row has one, and
    // `rows_round_trip` encodes every type.
    postcard::to_extend(row, vec![version]).unwrap_or_default()
}

/// A row of the newest version there is of its kind; who knows older ones looks at the first byte before.
fn decode<T: DeserializeOwned>(kind: &'static str, newest: u8, bytes: &[u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&version, body)) if version == newest => postcard::from_bytes(body).map_err(|_| StoreError::Corrupt { kind }),
        Some((&version, _)) if version > newest => Err(StoreError::Newer { kind, version }),
        _ => Err(StoreError::Corrupt { kind }),
    }
}

#[derive(Serialize, Deserialize)]
struct MetaV1 {
    index: u64,
    tables: [u64; super::TABLES_N],
    wall_ns: i64,
    boot_id: [u8; 16],
    allocs_n: u64,
    evals_n: u64,
    reboots_n: u32,
}

pub(super) fn encode_meta(meta: &Meta) -> Vec<u8> {
    let Meta { index, tables, wall, boot_id, allocs_n, evals_n, reboots_n } = *meta;
    encode(1, &MetaV1 { index, tables, wall_ns: wall.0, boot_id, allocs_n, evals_n, reboots_n })
}

/// Decodes the `m` row.
///
/// # Errors
/// See the module.
pub fn decode_meta(bytes: &[u8]) -> Result<Meta, StoreError> {
    let MetaV1 { index, tables, wall_ns, boot_id, allocs_n, evals_n, reboots_n } = decode("meta", 1, bytes)?;
    Ok(Meta { index, tables, wall: Wall(wall_ns), boot_id, allocs_n, evals_n, reboots_n })
}

#[derive(Serialize, Deserialize)]
struct JobV1 {
    version: u64,
    is_stopped: bool,
    status: JobStatus,
    create_index: u64,
    modify_index: u64,
    job_modify_index: u64,
    summary_modify_index: u64,
    had_eval: bool,
    summary: Vec<GroupSummary>,
    name: String,
    kind: u8,
    priority: u8,
    datacenters: Vec<String>,
    parent_id: String,
    is_periodic: bool,
    is_parameterized: bool,
    submit_ns: i64,
    children: Children,
    last_slot_ns: i64,
    dispatch_token: String,
}

#[derive(Serialize, Deserialize)]
struct JobV2 {
    v1: JobV1,
    spent: Vec<(String, u32)>,
}

fn kind_byte(kind: JobKind) -> u8 {
    match kind {
        JobKind::Service => 0,
        JobKind::Batch => 1,
        JobKind::System => 2,
        JobKind::Sysbatch => 3,
    }
}

fn byte_kind(byte: u8) -> Result<JobKind, StoreError> {
    Ok(match byte {
        0 => JobKind::Service,
        1 => JobKind::Batch,
        2 => JobKind::System,
        3 => JobKind::Sysbatch,
        _ => return Err(StoreError::Corrupt { kind: "job type" }),
    })
}

pub(super) fn encode_job(row: &JobRow) -> Vec<u8> {
    let row = row.clone();
    let JobStub { name, kind, priority, datacenters, parent_id, is_periodic, is_parameterized, submit_at, dispatch_token } = row.stub;
    let v1 = JobV1 {
        version: row.version,
        is_stopped: row.is_stopped,
        status: row.status,
        create_index: row.create_index,
        modify_index: row.modify_index,
        job_modify_index: row.job_modify_index,
        summary_modify_index: row.summary_modify_index,
        had_eval: row.had_eval,
        summary: row.summary,
        name,
        kind: kind_byte(kind),
        priority,
        datacenters,
        parent_id,
        is_periodic,
        is_parameterized,
        submit_ns: submit_at.0,
        children: row.children,
        last_slot_ns: row.last_slot_at.0,
        dispatch_token,
    };
    encode(2, &JobV2 { v1, spent: row.spent })
}

/// Decodes a `J` row.
///
/// # Errors
/// See the module.
pub fn decode_job(bytes: &[u8]) -> Result<JobRow, StoreError> {
    let JobV2 { v1: row, spent } = match bytes.first() {
        Some(1) => JobV2 { v1: decode("job", 1, bytes)?, spent: Vec::new() },
        _ => decode("job", 2, bytes)?,
    };
    Ok(JobRow {
        version: row.version,
        is_stopped: row.is_stopped,
        status: row.status,
        create_index: row.create_index,
        modify_index: row.modify_index,
        job_modify_index: row.job_modify_index,
        summary_modify_index: row.summary_modify_index,
        had_eval: row.had_eval,
        summary: row.summary,
        stub: JobStub {
            name: row.name,
            kind: byte_kind(row.kind)?,
            priority: row.priority,
            datacenters: row.datacenters,
            parent_id: row.parent_id,
            is_periodic: row.is_periodic,
            is_parameterized: row.is_parameterized,
            submit_at: Wall(row.submit_ns),
            dispatch_token: row.dispatch_token,
        },
        children: row.children,
        last_slot_at: Wall(row.last_slot_ns),
        spent,
    })
}

#[derive(Serialize, Deserialize)]
struct JobVersionV1 {
    version: u64,
    is_stable: bool,
    is_stopped: bool,
    job_modify_index: u64,
    submit_ns: i64,
    spec: String,
}

pub(super) fn encode_job_version(row: &JobVersion) -> Vec<u8> {
    let JobVersion { version, is_stable, is_stopped, job_modify_index, submit_at, spec } = row.clone();
    encode(1, &JobVersionV1 { version, is_stable, is_stopped, job_modify_index, submit_ns: submit_at.0, spec })
}

/// Decodes a `V` row.
///
/// # Errors
/// See the module.
pub fn decode_job_version(bytes: &[u8]) -> Result<JobVersion, StoreError> {
    let JobVersionV1 { version, is_stable, is_stopped, job_modify_index, submit_ns, spec } = decode("job version", 1, bytes)?;
    Ok(JobVersion { version, is_stable, is_stopped, job_modify_index, submit_at: Wall(submit_ns), spec })
}

#[derive(Serialize, Deserialize)]
struct NodeV1 {
    create_index: u64,
    modify_index: u64,
    is_ineligible: bool,
    status_updated_ns: i64,
}

pub(super) fn encode_node(row: &NodeRow) -> Vec<u8> {
    let NodeRow { create_index, modify_index, is_ineligible, status_updated_at } = *row;
    encode(1, &NodeV1 { create_index, modify_index, is_ineligible, status_updated_ns: status_updated_at.0 })
}

/// Decodes the `N` row.
///
/// # Errors
/// See the module.
pub fn decode_node(bytes: &[u8]) -> Result<NodeRow, StoreError> {
    let NodeV1 { create_index, modify_index, is_ineligible, status_updated_ns } = decode("node", 1, bytes)?;
    Ok(NodeRow { create_index, modify_index, is_ineligible, status_updated_at: Wall(status_updated_ns) })
}

#[derive(Serialize, Deserialize)]
struct OutboxV1 {
    version: u64,
}

pub(super) fn encode_outbox(version: u64) -> Vec<u8> {
    encode(1, &OutboxV1 { version })
}

pub(super) fn decode_outbox(bytes: &[u8]) -> Result<u64, StoreError> {
    Ok(decode::<OutboxV1>("outbox", 1, bytes)?.version)
}

/// Decodes an `a` or `e` row: 8 bytes, big endian, no version (its shape is part of the key's).
pub(super) fn decode_index(bytes: &[u8]) -> Result<u64, StoreError> {
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| StoreError::Corrupt { kind: "index" })
}

#[derive(Serialize, Deserialize)]
struct EventV1 {
    at_ns: i64,
    kind: EventKind,
}

#[derive(Serialize, Deserialize)]
struct TaskV1 {
    name: String,
    phase: TaskPhase,
    is_failed: bool,
    restarts_n: u64,
    last_restart_ns: i64,
    started_ns: i64,
    finished_ns: i64,
    events: Vec<EventV1>,
    consumed: u64,
    window_n: u32,
    window_start_ns: u64,
}

#[derive(Serialize, Deserialize)]
struct PortV1 {
    label: String,
    value: u16,
    to: u16,
    host_ip: String,
}

#[derive(Serialize, Deserialize)]
struct AllocV1 {
    id: [u8; 16],
    eval: [u8; 16],
    owner: Owner,
    namespace: String,
    job_id: String,
    job_create_index: u64,
    job_version: u64,
    job_kind: u8,
    group: String,
    index: u32,
    desired: Desired,
    desired_description: String,
    wants_migrate: bool,
    may_reschedule: bool,
    must_reschedule: bool,
    no_shutdown_delay: bool,
    client_status: ClientStatus,
    client_description: String,
    tasks: Vec<TaskV1>,
    grants: Vec<TaskGrant>,
    disk_mb: u32,
    ports: Vec<PortV1>,
    network_device: String,
    network_ip: String,
    network_mbits: u32,
    metric: Metric,
    previous: [u8; 16],
    next: [u8; 16],
    followup_eval: [u8; 16],
    deployment: [u8; 16],
    health: Option<Health>,
    reschedules: Vec<RescheduleEvent>,
    last_reschedule: LastReschedule,
    preempted: Vec<[u8; 16]>,
    preempted_by: [u8; 16],
    create_index: u64,
    modify_index: u64,
    alloc_modify_index: u64,
    create_ns: i64,
    modify_ns: i64,
    is_destroyed: bool,
}

fn task_row(task: TaskEntry) -> TaskV1 {
    let TaskEntry { name, state, memo } = task;
    TaskV1 {
        name,
        phase: state.phase,
        is_failed: state.is_failed,
        restarts_n: state.restarts_n,
        last_restart_ns: state.last_restart_at.0,
        started_ns: state.started_at.0,
        finished_ns: state.finished_at.0,
        events: state.events.into_iter().map(|event| EventV1 { at_ns: event.at.0, kind: event.kind }).collect(),
        consumed: memo.consumed.0,
        window_n: memo.window.count,
        window_start_ns: memo.window.start.0,
    }
}

fn row_task(row: TaskV1) -> TaskEntry {
    TaskEntry {
        name: row.name,
        state: TaskState {
            phase: row.phase,
            is_failed: row.is_failed,
            restarts_n: row.restarts_n,
            last_restart_at: Wall(row.last_restart_ns),
            started_at: Wall(row.started_ns),
            finished_at: Wall(row.finished_ns),
            events: row.events.into_iter().map(|event| TaskEvent { at: Wall(event.at_ns), kind: event.kind }).collect(),
        },
        memo: TaskMemo { consumed: Inv(row.consumed), window: Window { count: row.window_n, start: Mono(row.window_start_ns) } },
    }
}

pub(super) fn encode_alloc(alloc: &Allocation) -> Vec<u8> {
    let alloc = alloc.clone();
    let ports = alloc.grant.ports.into_iter().map(|Port { label, value, to, host_ip }| PortV1 { label, value, to, host_ip });
    encode(
        1,
        &AllocV1 {
            id: alloc.id.0,
            eval: alloc.eval.0,
            owner: alloc.owner,
            namespace: alloc.job.namespace,
            job_id: alloc.job.id,
            job_create_index: alloc.edition.create_index,
            job_version: alloc.edition.version,
            job_kind: kind_byte(alloc.job_type),
            group: alloc.group,
            index: alloc.index,
            desired: alloc.desired,
            desired_description: alloc.desired_description,
            wants_migrate: alloc.wants_migrate,
            may_reschedule: alloc.may_reschedule,
            must_reschedule: alloc.must_reschedule,
            no_shutdown_delay: alloc.no_shutdown_delay,
            client_status: alloc.client_status,
            client_description: alloc.client_description,
            tasks: alloc.tasks.into_iter().map(task_row).collect(),
            grants: alloc.grant.tasks,
            disk_mb: alloc.grant.disk_mb,
            ports: ports.collect(),
            network_device: alloc.grant.network_device,
            network_ip: alloc.grant.network_ip,
            network_mbits: alloc.grant.network_mbits,
            metric: alloc.metric,
            previous: alloc.previous.0,
            next: alloc.next.0,
            followup_eval: alloc.followup_eval.0,
            deployment: alloc.deployment.0,
            health: alloc.health,
            reschedules: alloc.reschedules,
            last_reschedule: alloc.last_reschedule,
            preempted: alloc.preempted.into_iter().map(|id| id.0).collect(),
            preempted_by: alloc.preempted_by.0,
            create_index: alloc.create_index,
            modify_index: alloc.modify_index,
            alloc_modify_index: alloc.alloc_modify_index,
            create_ns: alloc.create_at.0,
            modify_ns: alloc.modify_at.0,
            is_destroyed: alloc.is_destroyed,
        },
    )
}

/// Decodes an `A` row.
///
/// # Errors
/// See the module.
pub fn decode_alloc(bytes: &[u8]) -> Result<Allocation, StoreError> {
    let row: AllocV1 = decode("allocation", 1, bytes)?;
    let ports = row.ports.into_iter().map(|PortV1 { label, value, to, host_ip }| Port { label, value, to, host_ip });
    Ok(Allocation {
        id: AllocId(row.id),
        eval: EvalId(row.eval),
        owner: row.owner,
        job: JobKey { namespace: row.namespace, id: row.job_id },
        edition: Edition { create_index: row.job_create_index, version: row.job_version },
        job_type: byte_kind(row.job_kind)?,
        group: row.group,
        index: row.index,
        desired: row.desired,
        desired_description: row.desired_description,
        wants_migrate: row.wants_migrate,
        may_reschedule: row.may_reschedule,
        must_reschedule: row.must_reschedule,
        no_shutdown_delay: row.no_shutdown_delay,
        client_status: row.client_status,
        client_description: row.client_description,
        tasks: row.tasks.into_iter().map(row_task).collect(),
        grant: Grant {
            tasks: row.grants,
            disk_mb: row.disk_mb,
            ports: ports.collect(),
            network_device: row.network_device,
            network_ip: row.network_ip,
            network_mbits: row.network_mbits,
        },
        metric: row.metric,
        previous: AllocId(row.previous),
        next: AllocId(row.next),
        followup_eval: EvalId(row.followup_eval),
        deployment: DeploymentId(row.deployment),
        health: row.health,
        reschedules: row.reschedules,
        last_reschedule: row.last_reschedule,
        preempted: row.preempted.into_iter().map(AllocId).collect(),
        preempted_by: AllocId(row.preempted_by),
        create_index: row.create_index,
        modify_index: row.modify_index,
        alloc_modify_index: row.alloc_modify_index,
        create_at: Wall(row.create_ns),
        modify_at: Wall(row.modify_ns),
        is_destroyed: row.is_destroyed,
    })
}

#[derive(Serialize, Deserialize)]
struct EvalV1 {
    id: [u8; 16],
    namespace: String,
    job_id: String,
    job_kind: u8,
    priority: u8,
    trigger: Trigger,
    job_modify_index: u64,
    status: EvalStatus,
    status_description: String,
    wait_until_ns: i64,
    wait_max_ms: u64,
    next: [u8; 16],
    previous: [u8; 16],
    blocked: [u8; 16],
    deployment: [u8; 16],
    failed_groups: Vec<(String, Metric)>,
    queued: Vec<(String, u32)>,
    snapshot_index: u64,
    create_index: u64,
    modify_index: u64,
    create_ns: i64,
    modify_ns: i64,
}

pub(super) fn encode_eval(eval: &Evaluation) -> Vec<u8> {
    let eval = eval.clone();
    encode(
        1,
        &EvalV1 {
            id: eval.id.0,
            namespace: eval.job.namespace,
            job_id: eval.job.id,
            job_kind: kind_byte(eval.job_type),
            priority: eval.priority,
            trigger: eval.trigger,
            job_modify_index: eval.job_modify_index,
            status: eval.status,
            status_description: eval.status_description,
            wait_until_ns: eval.wait_until.0,
            wait_max_ms: eval.wait_max_ms,
            next: eval.next.0,
            previous: eval.previous.0,
            blocked: eval.blocked.0,
            deployment: eval.deployment.0,
            failed_groups: eval.failed_groups,
            queued: eval.queued,
            snapshot_index: eval.snapshot_index,
            create_index: eval.create_index,
            modify_index: eval.modify_index,
            create_ns: eval.create_at.0,
            modify_ns: eval.modify_at.0,
        },
    )
}

/// Decodes an `E` row.
///
/// # Errors
/// See the module.
pub fn decode_eval(bytes: &[u8]) -> Result<Evaluation, StoreError> {
    let row: EvalV1 = decode("evaluation", 1, bytes)?;
    Ok(Evaluation {
        id: EvalId(row.id),
        job: JobKey { namespace: row.namespace, id: row.job_id },
        job_type: byte_kind(row.job_kind)?,
        priority: row.priority,
        trigger: row.trigger,
        job_modify_index: row.job_modify_index,
        status: row.status,
        status_description: row.status_description,
        wait_until: Wall(row.wait_until_ns),
        wait_max_ms: row.wait_max_ms,
        next: EvalId(row.next),
        previous: EvalId(row.previous),
        blocked: EvalId(row.blocked),
        deployment: DeploymentId(row.deployment),
        failed_groups: row.failed_groups,
        queued: row.queued,
        snapshot_index: row.snapshot_index,
        create_index: row.create_index,
        modify_index: row.modify_index,
        create_at: Wall(row.create_ns),
        modify_at: Wall(row.modify_ns),
    })
}

#[derive(Serialize, Deserialize)]
struct GroupStateV1 {
    group: String,
    auto_revert: bool,
    auto_promote: bool,
    is_promoted: bool,
    progress_deadline_ns: i64,
    require_progress_by_ns: i64,
    canaries: Vec<[u8; 16]>,
    desired_canaries_n: u32,
    desired_n: u32,
    placed_n: u32,
    healthy_n: u32,
    unhealthy_n: u32,
}

#[derive(Serialize, Deserialize)]
struct DeploymentV1 {
    id: [u8; 16],
    namespace: String,
    job_id: String,
    job_create_index: u64,
    job_version: u64,
    job_modify_index: u64,
    job_spec_modify_index: u64,
    groups: Vec<GroupStateV1>,
    status: DeploymentStatus,
    status_description: String,
    priority: u8,
    create_index: u64,
    modify_index: u64,
    create_ns: i64,
    modify_ns: i64,
}

pub(super) fn encode_deployment(deployment: &Deployment) -> Vec<u8> {
    let deployment = deployment.clone();
    let groups = deployment.groups.into_iter().map(|state| GroupStateV1 {
        group: state.group,
        auto_revert: state.auto_revert,
        auto_promote: state.auto_promote,
        is_promoted: state.is_promoted,
        progress_deadline_ns: state.progress_deadline_ns,
        require_progress_by_ns: state.require_progress_by.0,
        canaries: state.canaries.into_iter().map(|id| id.0).collect(),
        desired_canaries_n: state.desired_canaries_n,
        desired_n: state.desired_n,
        placed_n: state.placed_n,
        healthy_n: state.healthy_n,
        unhealthy_n: state.unhealthy_n,
    });
    encode(
        1,
        &DeploymentV1 {
            id: deployment.id.0,
            namespace: deployment.job.namespace,
            job_id: deployment.job.id,
            job_create_index: deployment.edition.create_index,
            job_version: deployment.edition.version,
            job_modify_index: deployment.job_modify_index,
            job_spec_modify_index: deployment.job_spec_modify_index,
            groups: groups.collect(),
            status: deployment.status,
            status_description: deployment.status_description,
            priority: deployment.priority,
            create_index: deployment.create_index,
            modify_index: deployment.modify_index,
            create_ns: deployment.create_at.0,
            modify_ns: deployment.modify_at.0,
        },
    )
}

/// Decodes a `D` row.
///
/// # Errors
/// See the module.
pub fn decode_deployment(bytes: &[u8]) -> Result<Deployment, StoreError> {
    let row: DeploymentV1 = decode("deployment", 1, bytes)?;
    let groups = row.groups.into_iter().map(|state| GroupState {
        group: state.group,
        auto_revert: state.auto_revert,
        auto_promote: state.auto_promote,
        is_promoted: state.is_promoted,
        progress_deadline_ns: state.progress_deadline_ns,
        require_progress_by: Wall(state.require_progress_by_ns),
        canaries: state.canaries.into_iter().map(AllocId).collect(),
        desired_canaries_n: state.desired_canaries_n,
        desired_n: state.desired_n,
        placed_n: state.placed_n,
        healthy_n: state.healthy_n,
        unhealthy_n: state.unhealthy_n,
    });
    Ok(Deployment {
        id: DeploymentId(row.id),
        job: JobKey { namespace: row.namespace, id: row.job_id },
        edition: Edition { create_index: row.job_create_index, version: row.job_version },
        job_modify_index: row.job_modify_index,
        job_spec_modify_index: row.job_spec_modify_index,
        groups: groups.collect(),
        status: row.status,
        status_description: row.status_description,
        priority: row.priority,
        create_index: row.create_index,
        modify_index: row.modify_index,
        create_at: Wall(row.create_ns),
        modify_at: Wall(row.modify_ns),
    })
}

pub(super) fn encode_scaling(events: &ScalingEvents) -> Vec<u8> {
    encode(1, events)
}

/// Decodes a `Y` row.
///
/// # Errors
/// See the module.
pub(super) fn decode_scaling(bytes: &[u8]) -> Result<ScalingEvents, StoreError> {
    decode("scaling events", 1, bytes)
}
