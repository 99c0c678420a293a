//! What this node offers: facts, board, cgroups and configuration -> attributes, resources, drivers. Pure.
//!
//! Shape: [`Inputs`] -> [`Fingerprint`]. The same inputs give the same result, so it is stored and sent only when it differs.
//! Units: MHz, MB (2^20 bytes) and Mbit/s, as Nomad counts them. Attributes without a value are left out, never empty.
//! Invariant: compute is never 0 unless the configuration reserves all of it.
//! Source: `spec/runtime.md` 8; Nomad 1.3.1 and 2.0.5 `client/fingerprint/*.go` (names and meaning).

use core::ops::RangeInclusive;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::config::Config;
use dunlin_hal::facts::{Core, Facts, Link};
use dunlin_hal::volume::Space;

/// The level of Nomad that we claim, so that servers and constraints treat us as what we can do (decision 9).
pub const NOMAD_VERSION: &str = "1.10.5";
/// Where Nomad has a commit.
pub const NOMAD_REVISION: &str = "edge";
/// Speed of a link that does not tell its own, Mbit/s; as Nomad's.
pub const LINK_MBITS_DEFAULT: u32 = 1000;

/// All that a fingerprint depends on.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The machine.
    pub facts: &'a Facts,
    /// The file system that holds the allocations.
    pub storage: &'a Space,
    /// The board's name; empty = by its device tree, if any.
    pub board: &'a str,
    /// Control groups.
    pub cgroups: Cgroups<'a>,
    /// Signals a task can be sent.
    pub signals: &'a [&'a str],
    /// The configuration.
    pub config: &'a Config,
    /// Where HTTP really listens; `None` = on a Unix socket only.
    pub http: Option<SocketAddr>,
    /// Version of this agent.
    pub version: &'a str,
}

/// Control groups as found.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cgroups<'a> {
    /// `1` or `2`; `None` = nothing that can be written.
    pub version: Option<&'a str>,
    /// Controllers that can be used.
    pub controllers: &'a [&'a str],
    /// The group above those of tasks; empty = none.
    pub parent: &'a str,
}

/// What this node offers.
#[derive(Clone, Debug, PartialEq)]
pub struct Fingerprint {
    /// `Node.Attributes`.
    pub attributes: BTreeMap<String, String>,
    /// `Node.NodeResources`.
    pub resources: Resources,
    /// `Node.ReservedResources`: of these, what tasks do not get.
    pub reserved: Reserved,
    /// `Node.Drivers`.
    pub drivers: Vec<Driver>,
    /// `Node.HTTPAddr`.
    pub http_addr: String,
    /// `Node.CgroupParent`.
    pub cgroup_parent: String,
}

/// `Node.NodeResources`.
#[derive(Clone, Debug, PartialEq)]
pub struct Resources {
    /// Compute, MHz.
    pub cpu_mhz: u64,
    /// Online cores by rising id.
    pub cores: Vec<Core>,
    /// Ids of the cores that tasks may reserve.
    pub reservable_cores: Vec<u16>,
    /// MB.
    pub memory_mb: u64,
    /// MB.
    pub disk_mb: u64,
    /// One entry an address of the chosen interface.
    pub networks: Vec<Network>,
    /// The chosen interface with all its addresses.
    pub node_networks: Vec<NodeNetwork>,
    /// Ports for tasks that ask for any port.
    pub dynamic_ports: RangeInclusive<u16>,
}

/// `Node.ReservedResources`: what the configuration reserves and what the agent needs itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Reserved {
    /// MHz.
    pub cpu_mhz: u64,
    /// Ids of cores.
    pub cores: Vec<u16>,
    /// MB.
    pub memory_mb: u64,
    /// MB.
    pub disk_mb: u64,
    /// Ports as Nomad writes them, such as `22,8500-8600`.
    pub host_ports: String,
}

/// An entry of `NodeResources.Networks`; its `Mode` is `host`.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Interface.
    pub device: String,
    /// The address with a full mask, as Nomad writes it.
    pub cidr: String,
    /// The address.
    pub ip: String,
    /// Mbit/s.
    pub mbits: u32,
}

/// An entry of `NodeResources.NodeNetworks`; its `Mode` is `host`.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeNetwork {
    /// Interface.
    pub device: String,
    /// Hardware address; may be empty.
    pub mac: String,
    /// Mbit/s.
    pub mbits: u32,
    /// Addresses; the alias of each is `default`.
    pub addresses: Vec<IpAddr>,
}

/// An entry of `Node.Drivers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Such as `raw_exec`.
    pub name: &'static str,
    /// Can be used. The driver's own attribute `driver.<name>` is `true` then and absent otherwise.
    pub is_detected: bool,
    /// Works.
    pub is_healthy: bool,
    /// Why not, else `Healthy`.
    pub description: &'static str,
}

const MB: u64 = 1 << 20;

/// What this node offers.
#[must_use]
pub fn fingerprint(inputs: &Inputs<'_>) -> Fingerprint {
    let Inputs { facts, config, cgroups, .. } = *inputs;
    let networks = networks(facts.link.as_ref(), config);
    let http_addr = http_addr(config, inputs.http, networks.first());
    let disk = disk(inputs.storage, config);
    let memory_bytes = if config.memory_total_mb > 0 { config.memory_total_mb.saturating_mul(MB) } else { facts.memory_bytes };
    let compute = compute(facts, config);
    let drivers = vec![raw_exec(config.raw_exec)];

    let mut set = Attributes::default();
    set.text("cpu.arch", &facts.cpu.arch);
    set.text("cpu.modelname", &facts.cpu.model);
    cpu_attributes(&mut set, &facts.cpu.cores);
    set.number("cpu.reservablecores", compute.reservable.len());
    set.number("cpu.totalcompute", compute.total_mhz);
    set.number("cpu.usablecompute", compute.usable_mhz);
    set.text("kernel.arch", &facts.cpu.machine);
    set.text("kernel.name", "linux");
    set.text("kernel.version", &facts.kernel);
    if facts.landlock > 0 {
        set.text("kernel.landlock", &format!("v{}", facts.landlock));
    }
    set.text("os.name", &facts.os.name);
    set.text("os.version", &facts.os.version);
    set.text("os.signals", &inputs.signals.join(","));
    set.text("os.cgroups.version", cgroups.version.unwrap_or_default());
    set.number("memory.totalbytes", memory_bytes);
    set.text("unique.hostname", &facts.hostname);
    set.text("unique.host_id", &facts.machine_id);
    set.text("unique.network.ip-address", networks.first().map_or("", |network| &network.ip));
    set.text("unique.storage.volume", &inputs.storage.device);
    set.number("unique.storage.bytestotal", disk.total_bytes);
    set.number("unique.storage.bytesfree", disk.free_bytes);
    set.text("unique.advertise.address", &http_addr);
    set.text("nomad.version", NOMAD_VERSION);
    set.text("nomad.revision", NOMAD_REVISION);
    set.text("nomad.service_discovery", "false");
    for driver in drivers.iter().filter(|driver| driver.is_detected) {
        set.text(&format!("driver.{}", driver.name), "1");
    }
    set.text("edge.version", inputs.version);
    set.text("edge.board", if inputs.board.is_empty() { &facts.board } else { inputs.board });
    set.text("edge.cgroup.controllers", &cgroups.controllers.join(","));
    set.text("edge.cgroup.memory", if cgroups.controllers.contains(&"memory") { "true" } else { "false" });

    Fingerprint {
        attributes: set.0,
        resources: Resources {
            cpu_mhz: compute.total_mhz,
            cores: facts.cpu.cores.clone(),
            reservable_cores: compute.reservable,
            memory_mb: memory_bytes / MB,
            disk_mb: disk.offered_mb,
            node_networks: node_networks(facts.link.as_ref(), &networks),
            networks,
            dynamic_ports: config.dynamic_ports.clone(),
        },
        reserved: Reserved {
            cpu_mhz: compute.reserved_mhz,
            cores: config.reserved.cores.clone(),
            memory_mb: config.reserved.memory_mb.saturating_add(config.own_need.memory_mb),
            disk_mb: config.reserved.disk_mb.saturating_add(config.own_need.disk_mb),
            host_ports: config.reserved.ports.clone(),
        },
        drivers,
        http_addr,
        cgroup_parent: cgroups.parent.to_owned(),
    }
}

/// Attributes being collected; empty values are left out.
#[derive(Default)]
struct Attributes(BTreeMap<String, String>);

impl Attributes {
    fn text(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.0.insert(name.to_owned(), value.to_owned());
        }
    }

    fn number(&mut self, name: &str, value: impl ToString) {
        self.0.insert(name.to_owned(), value.to_string());
    }
}

/// Compute in all, what tasks cannot have of it, and what is left.
struct Compute {
    total_mhz: u64,
    reserved_mhz: u64,
    usable_mhz: u64,
    reservable: Vec<u16>,
}

fn compute(facts: &Facts, config: &Config) -> Compute {
    let mut reservable = facts.cpu.usable.clone();
    if let Some(asked) = &config.reservable_cores {
        reservable.retain(|id| asked.contains(id));
    }
    reservable.retain(|id| !config.reserved.cores.contains(id));
    let sum = |wanted: &dyn Fn(&Core) -> bool| facts.cpu.cores.iter().filter(|core| wanted(core)).map(|core| u64::from(core.mhz)).sum();
    let (total_mhz, usable_mhz): (u64, u64) = match config.cpu_total_mhz {
        0 => (sum(&|_| true), sum(&|core| reservable.contains(&core.id))),
        asked => (asked, asked),
    };
    let reserved_mhz = config.reserved.cpu_mhz.saturating_add(total_mhz.saturating_mul(config.own_need.cpu_percent) / 100);
    Compute { total_mhz, reserved_mhz, usable_mhz: usable_mhz.saturating_sub(reserved_mhz), reservable }
}

/// Number and frequency of cores; apart for fast and slow ones where the slow ones are more than a tenth slower.
/// (Single x86 cores that may go a little higher than their neighbours are not another kind of core.)
fn cpu_attributes(set: &mut Attributes, cores: &[Core]) {
    let fastest = cores.iter().map(|core| core.mhz).max().unwrap_or(0);
    let is_slow = |core: &&Core| u64::from(core.mhz) * 10 < u64::from(fastest) * 9;
    set.number("cpu.numcores", cores.len());
    match cores.iter().filter(is_slow).map(|core| core.mhz).max() {
        None => set.number("cpu.frequency", fastest),
        Some(slow) => {
            let slow_n = cores.iter().filter(is_slow).count();
            set.number("cpu.frequency.performance", fastest);
            set.number("cpu.frequency.efficiency", slow);
            set.number("cpu.numcores.performance", cores.len() - slow_n);
            set.number("cpu.numcores.efficiency", slow_n);
        }
    }
}

/// The file system of the allocations.
struct Disk {
    total_bytes: u64,
    free_bytes: u64,
    /// Of the whole, as free space changes with what already runs: nine tenths, unless configured.
    offered_mb: u64,
}

fn disk(storage: &Space, config: &Config) -> Disk {
    let or = |mb: u64, detected: u64| if mb > 0 { mb.saturating_mul(MB) } else { detected };
    let total_bytes = or(config.disk_total_mb, storage.size);
    let free_bytes = or(config.disk_free_mb, storage.available).min(total_bytes);
    let offered_mb = match (config.disk_free_mb, config.disk_total_mb) {
        (0, 0) => total_bytes / 10 * 9 / MB,
        (0, total_mb) => total_mb,
        (free_mb, _) => free_mb,
    };
    Disk { total_bytes, free_bytes, offered_mb }
}

/// The addresses tasks' ports can be on: link-local ones only where there are no others and they are allowed.
fn networks(link: Option<&Link>, config: &Config) -> Vec<Network> {
    let Some(link) = link else { return Vec::new() };
    let (local, others): (Vec<IpAddr>, Vec<IpAddr>) = link.addresses.iter().partition(|ip| is_link_local(**ip));
    let addresses = if others.is_empty() && !config.disallow_link_local { local } else { others };
    let mbits = match (config.network_speed_mbits, link.speed_mbits) {
        (0, detected) => detected.unwrap_or(LINK_MBITS_DEFAULT),
        (configured, _) => configured,
    };
    let network = |ip: IpAddr| Network {
        device: link.interface.clone(),
        cidr: format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }),
        ip: ip.to_string(),
        mbits,
    };
    addresses.into_iter().map(network).collect()
}

fn node_networks(link: Option<&Link>, networks: &[Network]) -> Vec<NodeNetwork> {
    let of = |link: &Link, first: &Network| NodeNetwork {
        device: link.interface.clone(),
        mac: link.mac.clone(),
        mbits: first.mbits,
        addresses: networks.iter().filter_map(|network| network.ip.parse().ok()).collect(),
    };
    link.zip(networks.first()).map(|(link, first)| of(link, first)).into_iter().collect()
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Where others reach HTTP: as configured, else where it listens; a wildcard address stands for the node's own.
fn http_addr(config: &Config, http: Option<SocketAddr>, network: Option<&Network>) -> String {
    if let Some(advertised) = &config.http.advertise {
        return advertised.clone();
    }
    let own = network.and_then(|network| network.ip.parse().ok());
    let address = http.map(|http| match own {
        Some(ip) if http.ip().is_unspecified() => SocketAddr::new(ip, http.port()),
        _ => http,
    });
    address.map(|address| address.to_string()).unwrap_or_default()
}

/// Texts as upstream's (`spec/runtime.md` 8).
fn raw_exec(is_enabled: bool) -> Driver {
    Driver {
        name: "raw_exec",
        is_detected: is_enabled,
        is_healthy: is_enabled,
        description: if is_enabled { "Healthy" } else { "disabled" },
    }
}

#[cfg(test)]
mod tests;
