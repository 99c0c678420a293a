//! Allocations, evaluations and jobs as JSON: stubs for lists, whole objects for reads.
//!
//! Scalars are always present; empty maps and lists are `null` (`spec/http-api.md` 1.5). Sources: the same, 2.1, 2.2, 6.1, 8.2.

use std::collections::BTreeMap;

use dunlin_hal::clock::Wall;
use dunlin_runtime::id::{AllocId, DeploymentId, EvalId};
use serde::Serialize;
use serde_json::value::RawValue;

use super::error::ApiError;
use super::map_or_null;
use crate::model::alloc::{Allocation, Health, JobKey, LastReschedule, Metric};
use crate::model::eval::Evaluation;
use crate::model::job::{Job, JobKind};
use crate::model::summary::GroupSummary;
use crate::model::task_state::{TaskStates, time};
use crate::node::NodeNames;
use crate::store::StoreError;
use crate::store::rows::{JobRow, JobStatus, JobVersion};
use crate::store::view::View;

macro_rules! id_text {
    ($($name:ident: $id:ty),*) => {
        $(/// The id as text; empty for "none".
        fn $name(id: $id) -> String {
            if id.is_nil() { String::new() } else { id.to_string() }
        })*
    };
}

id_text!(alloc_text: AllocId, eval_text: EvalId, deployment_text: DeploymentId);

/// `DesiredTransition`.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Transition {
    migrate: Option<bool>,
    reschedule: Option<bool>,
    force_reschedule: Option<bool>,
    no_shutdown_delay: Option<bool>,
    migrate_disable_placement: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Tracker {
    events: Vec<TrackerEvent>,
    last_reschedule: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TrackerEvent {
    reschedule_time: i64,
    #[serde(rename = "PrevAllocID")]
    prev_alloc_id: String,
    #[serde(rename = "PrevNodeID")]
    prev_node_id: String,
    delay: i64,
}

/// `AllocDeploymentStatus`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownHealth {
    healthy: Option<bool>,
    timestamp: Option<String>,
    canary: bool,
    modify_index: u64,
}

impl ShownHealth {
    fn of(health: &Health) -> Self {
        Self {
            healthy: health.is_healthy,
            timestamp: time(Wall(health.at_ns)),
            canary: health.is_canary,
            modify_index: health.modify_index,
        }
    }
}

/// The half that stub and whole object share.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shared<'a> {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "EvalID")]
    eval_id: String,
    name: String,
    namespace: &'a str,
    #[serde(rename = "NodeID")]
    node_id: String,
    node_name: &'a str,
    #[serde(rename = "JobID")]
    job_id: &'a str,
    task_group: &'a str,
    desired_status: &'static str,
    desired_description: &'a str,
    desired_transition: Transition,
    client_status: &'static str,
    client_description: &'a str,
    task_states: Option<TaskStates<'a>>,
    deployment_status: Option<ShownHealth>,
    #[serde(rename = "FollowupEvalID")]
    followup_eval_id: String,
    next_allocation: String,
    reschedule_tracker: Option<Tracker>,
    preempted_allocations: Option<Vec<String>>,
    preempted_by_allocation: String,
    create_index: u64,
    modify_index: u64,
    create_time: i64,
    modify_time: i64,
}

fn shared<'a>(alloc: &'a Allocation, node: &'a NodeNames, has_states: bool) -> Shared<'a> {
    let events = |reschedule: &crate::model::alloc::RescheduleEvent| TrackerEvent {
        reschedule_time: reschedule.at_ns,
        prev_alloc_id: reschedule.previous.to_string(),
        prev_node_id: node.id.to_string(),
        delay: reschedule.delay_ns,
    };
    let last_reschedule = match alloc.last_reschedule {
        LastReschedule::None => "",
        LastReschedule::Placed => "ok",
        LastReschedule::NotPlaced => "no placement",
    };
    Shared {
        id: alloc.id.to_string(),
        eval_id: eval_text(alloc.eval),
        name: alloc.name(),
        namespace: &alloc.job.namespace,
        node_id: node.id.to_string(),
        node_name: &node.name,
        job_id: &alloc.job.id,
        task_group: &alloc.group,
        desired_status: alloc.desired.as_str(),
        desired_description: &alloc.desired_description,
        desired_transition: Transition {
            migrate: alloc.wants_migrate.then_some(true),
            reschedule: alloc.may_reschedule.then_some(true),
            force_reschedule: alloc.must_reschedule.then_some(true),
            no_shutdown_delay: alloc.no_shutdown_delay.then_some(true),
            ..Transition::default()
        },
        client_status: alloc.client_status.as_str(),
        client_description: &alloc.client_description,
        task_states: (has_states && !alloc.tasks.is_empty()).then_some(TaskStates(&alloc.tasks)),
        deployment_status: alloc.health.as_ref().map(ShownHealth::of),
        followup_eval_id: eval_text(alloc.followup_eval),
        next_allocation: alloc_text(alloc.next),
        reschedule_tracker: (!alloc.reschedules.is_empty())
            .then(|| Tracker { events: alloc.reschedules.iter().map(events).collect(), last_reschedule }),
        preempted_allocations: (!alloc.preempted.is_empty()).then(|| alloc.preempted.iter().map(ToString::to_string).collect()),
        preempted_by_allocation: alloc_text(alloc.preempted_by),
        create_index: alloc.create_index,
        modify_index: alloc.modify_index,
        create_time: alloc.create_at.0,
        modify_time: alloc.modify_at.0,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownPort<'a> {
    label: &'a str,
    value: u16,
    to: u16,
    #[serde(rename = "HostIP")]
    host_ip: &'a str,
    host_network: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownNetwork<'a> {
    mode: &'static str,
    device: &'a str,
    #[serde(rename = "CIDR")]
    cidr: &'static str,
    #[serde(rename = "IP")]
    ip: &'a str,
    hostname: &'static str,
    #[serde(rename = "MBits")]
    mbits: u32,
    #[serde(rename = "DNS")]
    dns: (),
    reserved_ports: Option<Vec<ShownPort<'a>>>,
    dynamic_ports: Option<Vec<ShownPort<'a>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Cpu {
    cpu_shares: u32,
    reserved_cores: (),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Memory {
    #[serde(rename = "MemoryMB")]
    memory_mb: u32,
    #[serde(rename = "MemoryMaxMB")]
    memory_max_mb: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TaskShare {
    cpu: Cpu,
    memory: Memory,
    networks: (),
    devices: (),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GroupShare<'a> {
    networks: Option<Vec<ShownNetwork<'a>>>,
    #[serde(rename = "DiskMB")]
    disk_mb: u32,
    ports: Option<Vec<ShownPort<'a>>>,
}

/// `AllocatedResources`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Allocated<'a> {
    tasks: BTreeMap<&'a str, TaskShare>,
    task_lifecycles: BTreeMap<&'a str, Option<&'a crate::model::job::Lifecycle>>,
    shared: GroupShare<'a>,
}

/// The old form of resources, still read by stock CLIs; those of 1.3 crash without a node's.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Legacy {
    #[serde(rename = "CPU")]
    cpu: u64,
    cores: u32,
    #[serde(rename = "MemoryMB")]
    memory_mb: u64,
    #[serde(rename = "MemoryMaxMB")]
    memory_max_mb: u64,
    #[serde(rename = "DiskMB")]
    disk_mb: u64,
    #[serde(rename = "IOPS")]
    iops: u32,
    networks: (),
    devices: (),
}

impl Legacy {
    pub(super) fn new(cpu: u64, memory_mb: u64, memory_max_mb: u64, disk_mb: u64) -> Self {
        Self { cpu, memory_mb, memory_max_mb, disk_mb, ..Self::default() }
    }
}

fn ports(alloc: &Allocation) -> Option<Vec<ShownPort<'_>>> {
    let shown = alloc.grant.ports.iter().map(|port| ShownPort {
        label: &port.label,
        value: port.value,
        to: port.to,
        host_ip: &port.host_ip,
        host_network: "default",
    });
    (!alloc.grant.ports.is_empty()).then(|| shown.collect())
}

fn allocated<'a>(alloc: &'a Allocation, job: Option<&'a Job>) -> Allocated<'a> {
    let group = job.and_then(|job| job.group(&alloc.group));
    let lifecycle = |task: &str| group.and_then(|group| group.task(task)).and_then(|task| task.lifecycle.as_ref());
    let is_static =
        |label: &str| group.is_some_and(|group| group.networks.iter().flat_map(|net| &net.reserved_ports).any(|port| port.label == label));
    let of_kind = |wants_static: bool| -> Option<Vec<ShownPort<'a>>> {
        let some: Vec<_> = ports(alloc)?.into_iter().filter(|port| is_static(port.label) == wants_static).collect();
        (!some.is_empty()).then_some(some)
    };
    let grant = &alloc.grant;
    let network = (!grant.network_device.is_empty()).then(|| {
        vec![ShownNetwork {
            mode: "host",
            device: &grant.network_device,
            cidr: "",
            ip: &grant.network_ip,
            hostname: "",
            mbits: 0,
            dns: (),
            reserved_ports: of_kind(true),
            dynamic_ports: of_kind(false),
        }]
    });
    Allocated {
        tasks: grant
            .tasks
            .iter()
            .map(|task| {
                let share = TaskShare {
                    cpu: Cpu { cpu_shares: task.cpu_mhz, reserved_cores: () },
                    memory: Memory { memory_mb: task.memory_mb, memory_max_mb: task.memory_max_mb },
                    networks: (),
                    devices: (),
                };
                (task.task.as_str(), share)
            })
            .collect(),
        task_lifecycles: grant.tasks.iter().map(|task| (task.task.as_str(), lifecycle(&task.task))).collect(),
        shared: GroupShare { networks: network, disk_mb: grant.disk_mb, ports: ports(alloc) },
    }
}

#[derive(Serialize)]
struct Stub<'a> {
    #[serde(flatten)]
    shared: Shared<'a>,
    #[serde(rename = "JobType")]
    job_type: &'static str,
    #[serde(rename = "JobVersion")]
    job_version: u64,
    #[serde(rename = "AllocatedResources", skip_serializing_if = "Option::is_none")]
    allocated: Option<Allocated<'a>>,
}

/// Writes an allocation as lists show it.
///
/// # Errors
/// 500 when it cannot be written.
pub fn alloc_stub(alloc: &Allocation, node: &NodeNames, has_states: bool, has_resources: bool, out: &mut Vec<u8>) -> Result<(), ApiError> {
    let stub = Stub {
        shared: shared(alloc, node, has_states),
        job_type: alloc.job_type.as_str(),
        job_version: alloc.edition.version,
        allocated: has_resources.then(|| allocated(alloc, None)),
    };
    write(&stub, out)
}

fn write<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), ApiError> {
    serde_json::to_writer(out, value).map_err(|error| ApiError::new(500, error.to_string()))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Score {
    #[serde(rename = "NodeID")]
    node_id: String,
    scores: BTreeMap<&'static str, f64>,
    norm_score: f64,
}

/// `AllocMetric`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownMetric<'a> {
    nodes_evaluated: u32,
    nodes_filtered: u32,
    nodes_in_pool: u32,
    node_pool: &'static str,
    nodes_available: Option<BTreeMap<&'a str, u32>>,
    class_filtered: (),
    constraint_filtered: Option<BTreeMap<&'a str, u32>>,
    nodes_exhausted: u32,
    class_exhausted: (),
    dimension_exhausted: Option<BTreeMap<&'a str, u32>>,
    quota_exhausted: (),
    resources_exhausted: (),
    scores: (),
    score_meta_data: Option<Vec<Score>>,
    allocation_time: u64,
    coalesced_failures: u32,
}

fn one(key: &str) -> Option<BTreeMap<&str, u32>> {
    map_or_null(if key.is_empty() { BTreeMap::new() } else { BTreeMap::from([(key, 1)]) })
}

fn metric<'a>(metric: &'a Metric, node: &'a NodeNames) -> ShownMetric<'a> {
    let is_placed = metric.is_in_datacenter && metric.filtered.is_empty() && metric.exhausted.is_empty();
    #[expect(clippy::cast_precision_loss, reason = "millionths of a score fit a float exactly")]
    let score = metric.score_millionths as f64 / 1e6;
    let names = ["binpack", "job-anti-affinity", "node-affinity", "node-reschedule-penalty"];
    ShownMetric {
        nodes_evaluated: u32::from(metric.is_in_datacenter),
        nodes_filtered: u32::from(!metric.filtered.is_empty()),
        nodes_in_pool: 1,
        node_pool: "default",
        nodes_available: if metric.is_in_datacenter { one(&node.datacenter) } else { None },
        class_filtered: (),
        constraint_filtered: one(&metric.filtered),
        nodes_exhausted: u32::from(!metric.exhausted.is_empty()),
        class_exhausted: (),
        dimension_exhausted: one(&metric.exhausted),
        quota_exhausted: (),
        resources_exhausted: (),
        scores: (),
        score_meta_data: is_placed.then(|| {
            let scores = names.into_iter().map(|name| (name, if name == "binpack" { score } else { 0.0 })).collect();
            vec![Score { node_id: node.id.to_string(), scores, norm_score: score }]
        }),
        allocation_time: metric.took_ns,
        coalesced_failures: metric.coalesced_n,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkStatus {
    interface_name: &'static str,
    address: &'static str,
    #[serde(rename = "AddressIPv6")]
    address_ipv6: &'static str,
    #[serde(rename = "DNS")]
    dns: (),
}

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    shared: Shared<'a>,
    #[serde(flatten)]
    rest: Rest<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Rest<'a> {
    job: Option<&'a RawValue>,
    resources: Legacy,
    shared_resources: Legacy,
    task_resources: BTreeMap<&'a str, Legacy>,
    allocated_resources: Allocated<'a>,
    metrics: ShownMetric<'a>,
    alloc_states: (),
    previous_allocation: String,
    #[serde(rename = "DeploymentID")]
    deployment_id: String,
    network_status: NetworkStatus,
    #[serde(rename = "SigningKeyID")]
    signing_key_id: &'static str,
    alloc_modify_index: u64,
}

/// The version of a job that allocations run, as the scheduler found it.
pub struct Scheduled {
    job: Job,
    text: Box<RawValue>,
}

/// The job an allocation runs; `None` = that version is gone.
///
/// # Errors
/// 500 when rows cannot be read.
pub fn scheduled(view: &View<'_>, alloc: &Allocation) -> Result<Option<Scheduled>, ApiError> {
    let Some(version) = view.job_version(&alloc.job, alloc.edition)? else { return Ok(None) };
    let row = view.job(&alloc.job)?.unwrap_or_default();
    let job = job_as_scheduled(&version, &row)?;
    let text = to_raw(&job)?;
    Ok(Some(Scheduled { job, text }))
}

/// Writes a whole allocation, with the version of the job it runs.
///
/// # Errors
/// 500 when rows cannot be read.
pub fn alloc_whole(view: &View<'_>, alloc: &Allocation, node: &NodeNames, out: &mut Vec<u8>) -> Result<(), ApiError> {
    alloc_with_job(alloc, scheduled(view, alloc)?.as_ref(), node, out)
}

/// As [`alloc_whole`] with a job that was read before; `None` = without.
///
/// # Errors
/// 500 when it cannot be written.
pub fn alloc_with_job(alloc: &Allocation, scheduled: Option<&Scheduled>, node: &NodeNames, out: &mut Vec<u8>) -> Result<(), ApiError> {
    let grant = &alloc.grant;
    let max = |task: &crate::model::alloc::TaskGrant| u64::from(task.memory_max_mb.max(task.memory_mb));
    let whole = Whole {
        shared: shared(alloc, node, true),
        rest: Rest {
            job: scheduled.map(|scheduled| &*scheduled.text),
            resources: Legacy::new(grant.cpu_mhz(), grant.memory_mb(), grant.tasks.iter().map(max).sum(), grant.disk_mb.into()),
            shared_resources: Legacy::new(0, 0, 0, grant.disk_mb.into()),
            task_resources: grant
                .tasks
                .iter()
                .map(|task| (task.task.as_str(), Legacy::new(task.cpu_mhz.into(), task.memory_mb.into(), task.memory_max_mb.into(), 0)))
                .collect(),
            allocated_resources: allocated(alloc, scheduled.map(|scheduled| &scheduled.job)),
            metrics: metric(&alloc.metric, node),
            alloc_states: (),
            previous_allocation: alloc_text(alloc.previous),
            deployment_id: deployment_text(alloc.deployment),
            network_status: NetworkStatus { interface_name: "", address: "", address_ipv6: "", dns: () },
            signing_key_id: "",
            alloc_modify_index: alloc.alloc_modify_index,
        },
    };
    write(&whole, out)
}

/// Written JSON as a part of another document.
///
/// # Errors
/// 500 when it is none.
pub fn raw(text: Vec<u8>) -> Result<Box<RawValue>, ApiError> {
    let text = String::from_utf8(text).map_err(|error| ApiError::new(500, error.to_string()))?;
    RawValue::from_string(text).map_err(|error| ApiError::new(500, error.to_string()))
}

/// `FailedTGAllocs` of an evaluation; `None` = all was placed.
///
/// # Errors
/// 500 when it cannot be written.
pub fn failed_groups(eval: &Evaluation, node: &NodeNames) -> Result<Option<Box<RawValue>>, ApiError> {
    if eval.failed_groups.is_empty() {
        return Ok(None);
    }
    let all: BTreeMap<&str, ShownMetric<'_>> =
        eval.failed_groups.iter().map(|(group, failed)| (group.as_str(), metric(failed, node))).collect();
    let mut text = Vec::new();
    write(&all, &mut text)?;
    raw(text).map(Some)
}

fn to_raw(job: &Job) -> Result<Box<RawValue>, ApiError> {
    let text = job.to_json().map_err(|error| ApiError::new(500, error.to_string()))?;
    RawValue::from_string(text).map_err(|error| ApiError::new(500, error.to_string()))
}

/// One version of a job with the facts its row holds.
///
/// # Errors
/// When the stored text is not a job.
pub fn whole_job(version: &JobVersion, row: &JobRow) -> Result<Job, StoreError> {
    let mut job = Job::from_json(version.spec.as_bytes()).map_err(|_| StoreError::Corrupt { kind: "job version" })?;
    job.version = version.version;
    job.stable = version.is_stable;
    job.stop = version.is_stopped;
    row.status.as_str().clone_into(&mut job.status);
    job.submit_time = version.submit_at.0;
    job.create_index = row.create_index;
    job.modify_index = if version.version == row.version { row.modify_index } else { version.job_modify_index };
    job.job_modify_index = version.job_modify_index;
    Ok(job)
}

/// Writes one version of a job with the facts its row holds.
///
/// # Errors
/// When the stored text is not a job.
pub fn job_whole(version: &JobVersion, row: &JobRow, out: &mut Vec<u8>) -> Result<(), ApiError> {
    write(&whole_job(version, row)?, out)
}

/// A job as the scheduler found it when it placed an allocation: nothing of it had run (recorded answers).
fn job_as_scheduled(version: &JobVersion, row: &JobRow) -> Result<Job, StoreError> {
    let mut job = whole_job(version, row)?;
    job.stable = false;
    job.modify_index = version.job_modify_index;
    let status = if job.kind() == JobKind::System { JobStatus::Running } else { JobStatus::Pending };
    status.as_str().clone_into(&mut job.status);
    Ok(job)
}

/// `Evaluation`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownEval<'a> {
    #[serde(rename = "ID")]
    id: String,
    namespace: &'a str,
    priority: u8,
    r#type: &'static str,
    triggered_by: &'static str,
    #[serde(rename = "JobID")]
    job_id: &'a str,
    job_modify_index: u64,
    #[serde(rename = "NodeID")]
    node_id: &'static str,
    node_modify_index: u64,
    #[serde(rename = "DeploymentID")]
    deployment_id: String,
    status: &'static str,
    status_description: &'a str,
    wait: u64,
    wait_until: Option<String>,
    next_eval: String,
    previous_eval: String,
    blocked_eval: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    related_evals: Option<Vec<RelatedEval<'a>>>,
    #[serde(rename = "FailedTGAllocs")]
    failed_tg_allocs: Option<BTreeMap<&'a str, ShownMetric<'a>>>,
    plan_annotations: (),
    class_eligibility: (),
    quota_limit_reached: &'static str,
    escaped_computed_class: bool,
    annotate_plan: bool,
    queued_allocations: Option<BTreeMap<&'a str, u32>>,
    snapshot_index: u64,
    create_index: u64,
    modify_index: u64,
    create_time: i64,
    modify_time: i64,
}

/// An evaluation as another one names it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RelatedEval<'a> {
    #[serde(rename = "ID")]
    id: String,
    namespace: &'a str,
    priority: u8,
    r#type: &'static str,
    triggered_by: &'static str,
    #[serde(rename = "JobID")]
    job_id: &'a str,
    #[serde(rename = "NodeID")]
    node_id: &'static str,
    #[serde(rename = "DeploymentID")]
    deployment_id: String,
    status: &'static str,
    status_description: &'a str,
    wait_until: Option<String>,
    next_eval: String,
    previous_eval: String,
    blocked_eval: String,
    create_index: u64,
    modify_index: u64,
    create_time: i64,
    modify_time: i64,
}

fn related(eval: &Evaluation) -> RelatedEval<'_> {
    RelatedEval {
        id: eval.id.to_string(),
        namespace: &eval.job.namespace,
        priority: eval.priority,
        r#type: eval.job_type.as_str(),
        triggered_by: eval.trigger.as_str(),
        job_id: &eval.job.id,
        node_id: "",
        deployment_id: deployment_text(eval.deployment),
        status: eval.status.as_str(),
        status_description: &eval.status_description,
        wait_until: time(eval.wait_until),
        next_eval: eval_text(eval.next),
        previous_eval: eval_text(eval.previous),
        blocked_eval: eval_text(eval.blocked),
        create_index: eval.create_index,
        modify_index: eval.modify_index,
        create_time: eval.create_at.0,
        modify_time: eval.modify_at.0,
    }
}

/// Writes an evaluation; `others` = the evaluations it is linked to, when they were asked for.
///
/// # Errors
/// 500 when it cannot be written.
pub fn eval(eval: &Evaluation, others: Option<&[Evaluation]>, node: &NodeNames, out: &mut Vec<u8>) -> Result<(), ApiError> {
    let shown = ShownEval {
        id: eval.id.to_string(),
        namespace: &eval.job.namespace,
        priority: eval.priority,
        r#type: eval.job_type.as_str(),
        triggered_by: eval.trigger.as_str(),
        job_id: &eval.job.id,
        job_modify_index: eval.job_modify_index,
        node_id: "",
        node_modify_index: 0,
        deployment_id: deployment_text(eval.deployment),
        status: eval.status.as_str(),
        status_description: &eval.status_description,
        wait: 0,
        wait_until: time(eval.wait_until),
        next_eval: eval_text(eval.next),
        previous_eval: eval_text(eval.previous),
        blocked_eval: eval_text(eval.blocked),
        related_evals: others.map(|others| others.iter().map(related).collect()),
        failed_tg_allocs: map_or_null(eval.failed_groups.iter().map(|(group, failed)| (group.as_str(), metric(failed, node))).collect()),
        plan_annotations: (),
        class_eligibility: (),
        quota_limit_reached: "",
        escaped_computed_class: false,
        annotate_plan: false,
        queued_allocations: map_or_null(eval.queued.iter().map(|(group, n)| (group.as_str(), *n)).collect()),
        snapshot_index: eval.snapshot_index,
        create_index: eval.create_index,
        modify_index: eval.modify_index,
        create_time: eval.create_at.0,
        modify_time: eval.modify_at.0,
    };
    write(&shown, out)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct GroupCounts {
    queued: u32,
    complete: u32,
    failed: u32,
    running: u32,
    starting: u32,
    lost: u32,
    unknown: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Children {
    pending: u32,
    running: u32,
    dead: u32,
}

/// `JobSummary`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Summary<'a> {
    #[serde(rename = "JobID")]
    job_id: &'a str,
    namespace: &'a str,
    summary: BTreeMap<&'a str, GroupCounts>,
    children: Children,
    create_index: u64,
    modify_index: u64,
}

/// A job's summary.
#[must_use]
pub fn summary<'a>(key: &'a JobKey, row: &'a JobRow) -> Summary<'a> {
    let counts = |group: &GroupSummary| GroupCounts {
        queued: group.queued_n,
        complete: group.complete_n,
        failed: group.failed_n,
        running: group.running_n,
        starting: group.starting_n,
        lost: group.lost_n,
        unknown: 0,
    };
    Summary {
        job_id: &key.id,
        namespace: &key.namespace,
        summary: row.summary.iter().map(|group| (group.group.as_str(), counts(group))).collect(),
        children: Children { pending: row.children.pending_n, running: row.children.running_n, dead: row.children.dead_n },
        create_index: row.create_index,
        modify_index: row.summary_modify_index,
    }
}

/// A job as lists show it.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct JobStub<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(rename = "ParentID")]
    parent_id: &'a str,
    name: &'a str,
    namespace: &'a str,
    datacenters: &'a [String],
    node_pool: &'static str,
    multiregion: (),
    r#type: &'static str,
    priority: u8,
    periodic: bool,
    parameterized_job: bool,
    stop: bool,
    status: &'static str,
    status_description: &'static str,
    job_summary: Summary<'a>,
    create_index: u64,
    modify_index: u64,
    job_modify_index: u64,
    submit_time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<BTreeMap<String, String>>,
}

/// Writes a job as lists show it, with its meta when that was asked for.
///
/// # Errors
/// 500 when rows cannot be read.
pub fn job_stub(view: &View<'_>, key: &JobKey, row: &JobRow, has_meta: bool, out: &mut Vec<u8>) -> Result<(), ApiError> {
    let meta = match has_meta {
        true => view.job_version(key, row.edition())?.map(|version| whole_job(&version, row)).transpose()?.map(|job| job.meta),
        false => None,
    };
    let stub = &row.stub;
    let shown = JobStub {
        id: &key.id,
        parent_id: &stub.parent_id,
        name: &stub.name,
        namespace: &key.namespace,
        datacenters: &stub.datacenters,
        node_pool: "default",
        multiregion: (),
        r#type: stub.kind.as_str(),
        priority: stub.priority,
        periodic: stub.is_periodic,
        parameterized_job: stub.is_parameterized,
        stop: row.is_stopped,
        status: row.status.as_str(),
        status_description: "",
        job_summary: summary(key, row),
        create_index: row.create_index,
        modify_index: row.modify_index,
        job_modify_index: row.job_modify_index,
        submit_time: stub.submit_at.0,
        meta,
    };
    write(&shown, out)
}

/// RFC 3339 of a time that is always set.
#[must_use]
pub fn stamp(at: Wall) -> String {
    crate::wire::go_text::time(at.0)
}
