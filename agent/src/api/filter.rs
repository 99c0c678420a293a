//! `filter=` of lists: an expression over the stored objects, not over what a list shows of them.
//!
//! Shape: the parameter -> [`Filter`] -> keep this object? The object is written as its own route shows it, one at a time and only
//! when there is a filter; [`KINDS`] says what its fields are in Go. The job of an allocation is read only if the expression names it,
//! and once for all allocations of a version that follow each other.
//! A kind of list more: its structs in [`KINDS`], and [`super::list::Listed::whole`].
//! Errors: 400 with upstream's beginnings, which its CLI looks for.
//! Source: `spec/http-api.md` 1.9; upstream v1.10.0 nomad/state/paginator, nomad/structs (fields and their types), v2.0.5 for later
//! fields, v1.3.1 for those that are gone.

use super::error::ApiError;
use super::list::Listed;
use super::query::Common;
use super::show::{self, Scheduled};
use crate::model::alloc::{Allocation, Edition, JobKey};
use crate::node::NodeNames;
use crate::store::view::View;
use crate::wire::bexpr::{Datum, Expr};

/// The filter of one list.
pub struct Filter {
    expr: Expr,
    node: NodeNames,
    /// The job of the last allocation, and which it was.
    job: Option<((JobKey, Edition), Option<Scheduled>)>,
    /// Room for the object that is looked at.
    json: Vec<u8>,
}

impl Filter {
    /// The filter a list is asked with; `None` = none.
    ///
    /// # Errors
    /// 400 when it cannot be read.
    pub fn read(common: &Common, node: impl FnOnce() -> NodeNames) -> Result<Option<Self>, ApiError> {
        if common.filter.is_empty() {
            return Ok(None);
        }
        let bad = |why| ApiError::new(400, format!("failed to create result paginator: failed to read filter expression: {why}"));
        let expr = Expr::parse(&common.filter).map_err(bad)?;
        Ok(Some(Self { expr, node: node(), job: None, json: Vec::new() }))
    }

    /// True when the object is in the list.
    ///
    /// # Errors
    /// 400 when the expression cannot be answered for it; 500 when rows cannot be read.
    pub fn keeps(&mut self, view: &View<'_>, object: &dyn Listed) -> Result<bool, ApiError> {
        let mut json = core::mem::take(&mut self.json);
        json.clear();
        object.whole(view, self, &mut json)?;
        let keeps = self.holds(object.kind(), &json);
        self.json = json;
        keeps
    }

    /// True when the expression holds of an object that is written already.
    ///
    /// # Errors
    /// 400 when it cannot be answered.
    pub fn holds(&self, kind: &str, json: &[u8]) -> Result<bool, ApiError> {
        let json = core::str::from_utf8(json).map_err(|why| ApiError::new(500, why.to_string()))?;
        let bad = |why| ApiError::new(400, format!("failed to read result page: {why}"));
        self.expr.holds(Datum::new(KINDS, kind, json)).map_err(bad)
    }

    /// The names of the node, for objects that show them.
    #[must_use]
    pub fn node(&self) -> &NodeNames {
        &self.node
    }

    /// The job an allocation runs, if the expression asks for anything of it, and the node.
    ///
    /// # Errors
    /// When rows cannot be read.
    pub fn job_of(&mut self, view: &View<'_>, alloc: &Allocation) -> Result<(Option<&Scheduled>, &NodeNames), ApiError> {
        // The lifecycles of tasks stand beside what they were given.
        if !self.expr.names("Job") && !self.expr.names("AllocatedResources") {
            return Ok((None, &self.node));
        }
        let is_known = self.job.as_ref().is_some_and(|((key, edition), _)| *key == alloc.job && *edition == alloc.edition);
        if !is_known {
            self.job = Some(((alloc.job.clone(), alloc.edition), show::scheduled(view, alloc)?));
        }
        Ok((self.job.as_ref().and_then(|(_, job)| job.as_ref()), &self.node))
    }
}

/// Go's structs, one a line; how to read it: [`crate::wire::bexpr::datum`].
///
/// Of what is never set here (Connect, Vault, CSI, devices) only the pointer stands. Fields upstream keeps and does not show are there,
/// as zeros; what is shown and not kept (`Drain` of a node) is not.
pub(super) const KINDS: &str = "\
Allocation ID Namespace EvalID Name NodeID NodeName JobID Job:*Job TaskGroup Resources:*Resources SharedResources:*Resources \
TaskResources:{*Resources AllocatedResources:*Allocated Metrics:*Metric DesiredStatus DesiredDescription \
DesiredTransition:Transition ClientStatus ClientDescription TaskStates:{*TaskState AllocStates:[*AllocState PreviousAllocation \
NextAllocation DeploymentID DeploymentStatus:*AllocHealth RescheduleTracker:*Tracker NetworkStatus:*NetworkStatus FollowupEvalID \
PreemptedAllocations:[s PreemptedByAllocation SignedIdentities:{s SigningKeyID CreateIndex:u ModifyIndex:u AllocModifyIndex:u \
CreateTime:i ModifyTime:i
Transition Migrate:*b Reschedule:*b ForceReschedule:*b NoShutdownDelay:*b MigrateDisablePlacement:*b
TaskState State Failed:b Restarts:u LastRestart:t StartedAt:t FinishedAt:t Events:[*TaskEvent Paused TaskHandle:*
TaskEvent Type Time:i Message DisplayMessage Details:{s FailsTask:b RestartReason SetupError DriverError ExitCode:i Signal:i \
KillTimeout:i KillError KillReason StartDelay:i DownloadError ValidationError DiskLimit:i FailedSibling VaultError TaskSignalReason \
TaskSignal DriverMessage GenericSource
AllocState Field:u Value Time:t
AllocHealth Healthy:*b Timestamp:t Canary:b ModifyIndex:u
Tracker Events:[*RescheduleEvent LastReschedule
RescheduleEvent RescheduleTime:i PrevAllocID PrevNodeID Delay:i
NetworkStatus InterfaceName Address AddressIPv6 DNS:*
Resources CPU:i Cores:i MemoryMB:i MemoryMaxMB:i DiskMB:i IOPS:i Networks:[*Network Devices:[* NUMA:* SecretsMB:i
Allocated Tasks:{*TaskShare TaskLifecycles:{*Lifecycle Shared:GroupShare
TaskShare Cpu:CpuShare Memory:MemoryShare Networks:[*Network Devices:[*
CpuShare CpuShares:i ReservedCores:[u
MemoryShare MemoryMB:i MemoryMaxMB:i
GroupShare Networks:[*Network DiskMB:i Ports:[PortMapping
PortMapping Label Value:i To:i HostIP IgnoreCollision:b
Network Mode Device CIDR IP Hostname MBits:i DNS:* ReservedPorts:[Port DynamicPorts:[Port CNI:*
Port Label Value:i To:i HostNetwork IgnoreCollision:b
Metric NodesEvaluated:i NodesFiltered:i NodesInPool:i NodePool NodesAvailable:{i ClassFiltered:{i ConstraintFiltered:{i \
NodesExhausted:i ClassExhausted:{i DimensionExhausted:{i QuotaExhausted:[s ResourcesExhausted:{*Resources Scores:{f \
ScoreMetaData:[*Score AllocationTime:i CoalescedFailures:i
Score NodeID Scores:{f NormScore:f
Evaluation ID Namespace Priority:i Type TriggeredBy JobID JobModifyIndex:u NodeID NodeModifyIndex:u DeploymentID Status \
StatusDescription Wait:i WaitUntil:t NextEval PreviousEval BlockedEval RelatedEvals:[* FailedTGAllocs:{*Metric PlanAnnotations:* \
ClassEligibility:{b QuotaLimitReached EscapedComputedClass:b AnnotatePlan:b QueuedAllocations:{i LeaderACL SnapshotIndex:u \
CreateIndex:u ModifyIndex:u CreateTime:i ModifyTime:i
Deployment ID Namespace JobID JobVersion:u JobModifyIndex:u JobSpecModifyIndex:u JobCreateIndex:u IsMultiregion:b \
TaskGroups:{*DeploymentState Status StatusDescription EvalPriority:i CreateIndex:u ModifyIndex:u CreateTime:i ModifyTime:i
DeploymentState AutoRevert:b AutoPromote:b ProgressDeadline:i RequireProgressBy:t Promoted:b PlacedCanaries:[s DesiredCanaries:i \
DesiredTotal:i PlacedAllocs:i HealthyAllocs:i UnhealthyAllocs:i
Job Stop:b Region Namespace ID ParentID Name Type Priority:i AllAtOnce:b Datacenters:[s NodePool Constraints:[*Constraint \
Affinities:[*Affinity Spreads:[*Spread TaskGroups:[*TaskGroup Update:Update Multiregion:* Periodic:*Periodic \
ParameterizedJob:*Parameterized Dispatched:b DispatchIdempotencyToken Payload:y Meta:{s ConsulToken ConsulNamespace VaultToken \
VaultNamespace NomadTokenID Status StatusDescription Stable:b Version:u SubmitTime:i CreateIndex:u ModifyIndex:u JobModifyIndex:u \
UI:* VersionTag:*
Constraint LTarget RTarget Operand
Affinity LTarget RTarget Operand Weight:i
Spread Attribute Weight:i SpreadTarget:[*SpreadTarget
SpreadTarget Value Percent:u
TaskGroup Name Count:i Update:*Update Migrate:*Migrate Constraints:[*Constraint Scaling:*Scaling RestartPolicy:*Restart Disconnect:* \
Tasks:[*Task EphemeralDisk:*Disk Meta:{s ReschedulePolicy:*Reschedule Affinities:[*Affinity Spreads:[*Spread Networks:[*Network \
Consul:*Consul Services:[*Service Volumes:{*VolumeRequest ShutdownDelay:*i StopAfterClientDisconnect:*i MaxClientDisconnect:*i \
PreventRescheduleOnLost:b
Update Stagger:i MaxParallel:i HealthCheck MinHealthyTime:i HealthyDeadline:i ProgressDeadline:i AutoRevert:b AutoPromote:b Canary:i
Migrate MaxParallel:i HealthCheck MinHealthyTime:i HealthyDeadline:i
Scaling ID Type Target:{s Policy:{@ Min:i Max:i Enabled:b CreateIndex:u ModifyIndex:u
Restart Attempts:i Interval:i Delay:i Mode RenderTemplates:b
Disk Sticky:b SizeMB:i Migrate:b
Reschedule Attempts:i Interval:i Delay:i DelayFunction MaxDelay:i Unlimited:b
Periodic Enabled:b Spec Specs:[s SpecType ProhibitOverlap:b TimeZone
Parameterized Payload MetaRequired:[s MetaOptional:[s
Consul Namespace Cluster Partition
VolumeRequest Name Type Source ReadOnly:b Sticky:b AccessMode AttachmentMode MountOptions:* PerAlloc:b
Task Name Driver User Config:{@ Env:{s Services:[*Service Vault:* Consul:*Consul Templates:[*Template Constraints:[*Constraint \
Affinities:[*Affinity Resources:*Resources RestartPolicy:*Restart DispatchPayload:*DispatchPayload Lifecycle:*Lifecycle Meta:{s \
KillTimeout:i LogConfig:*LogConfig Artifacts:[*Artifact Leader:b ShutdownDelay:i VolumeMounts:[*VolumeMount \
ScalingPolicies:[*Scaling KillSignal Kind CSIPluginConfig:* Identity:* Identities:[* Actions:[* Schedule:*
Lifecycle Hook Sidecar:b
LogConfig MaxFiles:i MaxFileSizeMB:i Disabled:b
DispatchPayload File
Template SourcePath DestPath EmbeddedTmpl ChangeMode ChangeSignal ChangeScript:* Splay:i Perms Uid:*i Gid:*i LeftDelim RightDelim \
Envvars:b VaultGrace:i Wait:* ErrMissingKey:b
Artifact GetterSource GetterOptions:{s GetterHeaders:{s GetterMode GetterInsecure:b RelativeDest Chown:b
VolumeMount Volume Destination ReadOnly:b PropagationMode SELinuxLabel
Service Name TaskName PortLabel AddressMode Address EnableTagOverride:b Tags:[s CanaryTags:[s Checks:[*Check Connect:* Meta:{s \
CanaryMeta:{s Weights:* TaggedAddresses:{s Namespace OnUpdate Provider Cluster Identity:*
Check Name Type Command Args:[s Path Protocol PortLabel Expose:b AddressMode Interval:i Timeout:i InitialStatus Notes TLSServerName \
TLSSkipVerify:b Method Header:{[s Body CheckRestart:*CheckRestart GRPCService GRPCUseTLS:b TaskName SuccessBeforePassing:i \
FailuresBeforeCritical:i FailuresBeforeWarning:i OnUpdate
CheckRestart Limit:i Grace:i IgnoreWarnings:b
Node ID SecretID Datacenter Name CgroupParent HTTPAddr TLSEnabled:b Attributes:{s NodeResources:*NodeResources \
ReservedResources:*NodeReserved Resources:*Resources Reserved:*Resources Links:{s Meta:{s NodeClass NodePool ComputedClass \
DrainStrategy:* SchedulingEligibility Status StatusDescription StatusUpdatedAt:i Events:[*NodeEvent Drivers:{*Driver \
CSIControllerPlugins:{* CSINodePlugins:{* HostVolumes:{*HostVolume HostNetworks:{* LastDrain:*LastDrain LastMissedHeartbeatIndex:u \
LastAllocUpdateIndex:u CreateIndex:u ModifyIndex:u NodeMaxAllocs:i
NodeResources Cpu:NodeCpu Processors:* Memory:NodeMemory Disk:NodeDisk Devices:[* NodeNetworks:[*NodeNetwork Networks:[*Network \
MinDynamicPort:i MaxDynamicPort:i
NodeCpu CpuShares:i TotalCpuCores:u ReservableCpuCores:[u
ReservedCpu CpuShares:i ReservedCpuCores:[u
NodeMemory MemoryMB:i
NodeDisk DiskMB:i
NodeNetwork Mode Device MacAddress Speed:i Addresses:[NodeAddress
NodeAddress Family Alias Address ReservedPorts Gateway
NodeReserved Cpu:ReservedCpu Memory:NodeMemory Disk:NodeDisk Networks:ReservedPorts
ReservedPorts ReservedHostPorts
NodeEvent Message Subsystem Details:{s Timestamp:t CreateIndex:u
Driver Attributes:{s Detected:b Healthy:b HealthDescription UpdateTime:t
HostVolume Name Path ReadOnly:b ID
LastDrain StartedAt:t UpdatedAt:t Status AccessorID Meta:{s";

#[cfg(test)]
mod tests;
