//! Room: whether a slot fits beside what is there, and what exactly it gets. Pure.
//!
//! Shape: ([`Site`], allocations that keep their room, missing slots) -> placements and failures.
//! Units: MHz, MiB. Source: `spec/jobs.md` 7; upstream v1.3.1 nomad/structs/funcs.go `AllocsFit`, `ScoreFitBinPack` (behaviour only).

use dunlin_hal::budget::Budget;
use dunlin_hal::entropy::Rng;
use dunlin_runtime::spec::{AllocSpec, DriverKind, NodeVars};

use super::ports::Taken;
use super::reconcile::Slot;
use super::{Placement, feasible};
use crate::model::alloc::{Allocation, Grant, Metric, TaskGrant};
use crate::model::job::{Job, JobKind, Task, TaskGroup};
use crate::node::Node;

/// This node, as far as placement cares.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Names, attributes, meta.
    pub vars: &'a NodeVars,
    /// Drivers that are enabled and healthy.
    pub drivers: &'a [DriverKind],
    /// What allocations may use together: the node's less what is reserved.
    pub room: Room,
    /// Inclusive range of dynamic ports.
    pub dynamic_ports: (u16, u16),
    /// Ports never given: reserved by configuration, or listened on by something else.
    pub busy_ports: &'a [u16],
    /// Device, address and bandwidth of the node's network; `None` = it has none.
    pub network: Option<(&'a str, &'a str, u32)>,
    /// Takes new allocations.
    pub is_eligible: bool,
    /// Allocations that may be alive together (`Budget::allocs_max`).
    pub allocs_max: usize,
    /// Jobs that may make others give way.
    pub preemption: Preemption,
}

/// For which types of jobs less important allocations are stopped (`PreemptionConfig`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preemption {
    /// `SystemSchedulerEnabled`.
    pub for_system: bool,
    /// `SysBatchSchedulerEnabled`.
    pub for_sysbatch: bool,
    /// `BatchSchedulerEnabled`.
    pub for_batch: bool,
    /// `ServiceSchedulerEnabled`.
    pub for_service: bool,
}

impl Default for Preemption {
    fn default() -> Self {
        Self { for_system: true, for_sysbatch: false, for_batch: false, for_service: false }
    }
}

impl Preemption {
    /// True when jobs of this type may.
    #[must_use]
    pub fn is_on(&self, kind: JobKind) -> bool {
        match kind {
            JobKind::System => self.for_system,
            JobKind::Sysbatch => self.for_sysbatch,
            JobKind::Batch => self.for_batch,
            JobKind::Service => self.for_service,
        }
    }
}

impl<'a> Site<'a> {
    /// The node as it is configured and found; whether it is eligible and which ports are busy is for the caller to say.
    #[must_use]
    pub fn of(node: &'a Node, budget: &Budget) -> Self {
        let resources = &node.fingerprint.resources;
        let reserved = &node.fingerprint.reserved;
        Self {
            vars: &node.vars,
            drivers: &node.drivers,
            room: Room {
                cpu_mhz: resources.cpu_mhz.saturating_sub(reserved.cpu_mhz),
                memory_mb: resources.memory_mb.saturating_sub(reserved.memory_mb),
                disk_mb: resources.disk_mb.saturating_sub(reserved.disk_mb),
            },
            dynamic_ports: (*resources.dynamic_ports.start(), *resources.dynamic_ports.end()),
            busy_ports: &[],
            network: resources.networks.first().map(|network| (network.device.as_str(), network.ip.as_str(), network.mbits)),
            is_eligible: true,
            allocs_max: budget.allocs_max,
            preemption: Preemption::default(),
        }
    }
}

/// An amount of each resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// MHz.
    pub cpu_mhz: u64,
    /// MiB.
    pub memory_mb: u64,
    /// MiB.
    pub disk_mb: u64,
}

impl Room {
    fn of(grant: &Grant) -> Self {
        Self { cpu_mhz: grant.cpu_mhz(), memory_mb: grant.memory_mb(), disk_mb: u64::from(grant.disk_mb) }
    }

    /// What the tasks of an allocation may use. Disk space is counted by the scheduler only.
    #[must_use]
    pub fn of_spec(spec: &AllocSpec) -> Self {
        let resources = || spec.tasks.iter().map(|task| task.resources);
        Self {
            cpu_mhz: resources().map(|one| u64::from(one.cpu_mhz)).sum(),
            memory_mb: resources().map(|one| u64::from(one.memory_mb)).sum(),
            disk_mb: 0,
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu_mhz: self.cpu_mhz.saturating_add(other.cpu_mhz),
            memory_mb: self.memory_mb.saturating_add(other.memory_mb),
            disk_mb: self.disk_mb.saturating_add(other.disk_mb),
        }
    }

    fn less(self, other: Self) -> Self {
        Self {
            cpu_mhz: self.cpu_mhz.saturating_sub(other.cpu_mhz),
            memory_mb: self.memory_mb.saturating_sub(other.memory_mb),
            disk_mb: self.disk_mb.saturating_sub(other.disk_mb),
        }
    }

    /// The first dimension in which `self` does not fit into `room`; `None` = it fits.
    #[must_use]
    pub fn exhausted_in(self, room: Self) -> Option<&'static str> {
        if self.cpu_mhz > room.cpu_mhz {
            Some("cpu")
        } else if self.memory_mb > room.memory_mb {
            Some("memory")
        } else if self.disk_mb > room.disk_mb {
            Some("disk")
        } else {
            None
        }
    }
}

/// What is taken already, while one plan is made.
#[derive(Clone, Debug, Default)]
pub struct Used {
    room: Room,
    ports: Taken,
    allocs_n: usize,
    /// Living allocations of the job at hand, per group.
    groups: Vec<String>,
}

impl Used {
    /// Counts the allocations that keep their room, and the ports nobody gets.
    #[must_use]
    pub fn new<'a>(keep: impl Iterator<Item = &'a Allocation>, job: Option<&Job>, site: &Site<'_>) -> Self {
        let mut used = Self::default();
        for port in site.busy_ports {
            used.ports.add_one(*port);
        }
        for alloc in keep {
            used.add(alloc, job);
        }
        used
    }

    /// Counts an allocation that keeps its room.
    pub fn add(&mut self, alloc: &Allocation, job: Option<&Job>) {
        self.room = self.room.plus(Room::of(&alloc.grant));
        self.ports.add(&alloc.grant.ports);
        self.allocs_n += 1;
        if job.is_some_and(|job| is_of(job, alloc)) {
            self.groups.push(alloc.group.clone());
        }
    }

    /// Counts an allocation no more: it will make room.
    pub fn remove(&mut self, alloc: &Allocation, job: Option<&Job>) {
        self.room = self.room.less(Room::of(&alloc.grant));
        self.ports.remove(&alloc.grant.ports);
        self.allocs_n = self.allocs_n.saturating_sub(1);
        let of_group = |group: &String| job.is_some_and(|job| is_of(job, alloc)) && *group == alloc.group;
        if let Some(i) = self.groups.iter().position(of_group) {
            self.groups.swap_remove(i);
        }
    }

    /// Places one slot and counts it.
    ///
    /// # Errors
    /// Why it does not fit.
    pub fn place(&mut self, job: &Job, group: &TaskGroup, slot: &Slot, site: &Site<'_>, rng: &mut Rng) -> Result<Placement, Metric> {
        let mut metric = Metric::default();
        if !site.is_eligible || !feasible::is_in_datacenter(job, &site.vars.datacenter) {
            return Err(metric);
        }
        metric.is_in_datacenter = true;
        let filtered = feasible::check(job, group, site).err().or_else(|| {
            let is_second = (feasible::wants_distinct_hosts(&job.constraints) && !self.groups.is_empty())
                || (feasible::wants_distinct_hosts(&group.constraints) && self.groups.contains(&group.name));
            is_second.then(|| "distinct_hosts".to_owned())
        });
        if let Some(filtered) = filtered {
            metric.filtered = filtered;
            return Err(metric);
        }
        let mut grant = grant(group);
        let asks_cores = group.tasks.iter().any(|task| task.resources.as_ref().is_some_and(|ask| ask.cores.unwrap_or(0) > 0));
        let asks_devices = group.tasks.iter().any(|task| task.resources.as_ref().is_some_and(|ask| !ask.devices.is_empty()));
        let wanted = self.room.plus(Room::of(&grant));
        let others = [(asks_cores, "cores"), (asks_devices, "devices"), (self.allocs_n >= site.allocs_max, "allocations")];
        let exhausted = wanted.exhausted_in(site.room).or_else(|| others.iter().find(|(is_so, _)| *is_so).map(|(_, name)| *name));
        if let Some(exhausted) = exhausted {
            metric.exhausted = exhausted.to_owned();
            return Err(metric);
        }
        // The old place of ports, in the task's resources, is read like a group network.
        let networks =
            group.networks.iter().chain(group.tasks.iter().filter_map(|task| task.resources.as_ref()).flat_map(|ask| &ask.networks));
        for ask in networks {
            let Some((device, ip, mbits)) = site.network else {
                metric.exhausted = "network: no addresses available for default network".to_owned();
                return Err(metric);
            };
            let ports = self.ports.assign(ask, ip, site.dynamic_ports, rng).map_err(|exhausted| Metric { exhausted, ..metric.clone() })?;
            grant.ports.extend(ports);
            grant.network_device = device.to_owned();
            grant.network_ip = ip.to_owned();
            grant.network_mbits = mbits;
        }
        metric.score_millionths = score_millionths(wanted, site.room);
        self.room = wanted;
        self.allocs_n += 1;
        self.groups.push(group.name.clone());
        Ok(Placement {
            group: group.name.clone(),
            index: slot.index,
            previous: slot.previous,
            is_reschedule: slot.is_reschedule,
            is_canary: slot.is_canary,
            grant,
            metric,
            ..Placement::default()
        })
    }
}

fn is_of(job: &Job, alloc: &Allocation) -> bool {
    job.id == alloc.job.id && job.namespace == alloc.job.namespace
}

/// What a group asks for, as a grant without ports. `model::validate` refuses negative values; one beyond every node is the most
/// there is, so that it never fits.
fn grant(group: &TaskGroup) -> Grant {
    let number = |value: i64| u32::try_from(value.max(0)).unwrap_or(u32::MAX);
    let tasks = group.tasks.iter().map(|task: &Task| {
        let ask = task.resources.as_ref();
        TaskGrant {
            task: task.name.clone(),
            cpu_mhz: number(ask.and_then(|ask| ask.cpu).unwrap_or(100)),
            memory_mb: number(ask.and_then(|ask| ask.memory_mb).unwrap_or(300)),
            memory_max_mb: number(ask.map_or(0, |ask| ask.memory_max_mb)),
        }
    });
    Grant { tasks: tasks.collect(), disk_mb: number(group.disk_mb()), ..Grant::default() }
}

/// How full the node would be, by the bin-packing rule, 0..=1 in millionths. Shown, never decided on: there is one node.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a score for display, clamped to 0..=1e6")]
fn score_millionths(used: Room, room: Room) -> i64 {
    let free = |used: u64, room: u64| 1.0 - used as f64 / room.max(1) as f64;
    let sum = 10f64.powf(free(used.cpu_mhz, room.cpu_mhz)) + 10f64.powf(free(used.memory_mb, room.memory_mb));
    ((20.0 - sum).clamp(0.0, 18.0) / 18.0 * 1e6).round() as i64
}
