//! The node as an object: list, read, its allocations, eligibility (`spec/http-api.md` 8.2).

use std::collections::BTreeMap;

use dunlin_runtime::id::NodeId;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::filter::Filter;
use super::list::{self, Source};
use super::query::Common;
use super::route::{Acl, Family, put, read};
use super::{Answer, Ask, Cx, show};
use crate::model::alloc::Allocation;
use crate::node::{Node, fingerprint};
use crate::store::Table;
use crate::store::rows::NodeRow;
use crate::store::view::View;
use crate::wire::json;

/// The routes.
pub const FAMILY: Family = Family {
    routes: &[
        read("/v1/nodes", Acl::NodeRead, Table::Nodes, list),
        read("/v1/node/{id}", Acl::NodeRead, Table::Nodes, info),
        read("/v1/node/{id}/allocations", Acl::NodeRead, Table::Allocs, allocations),
        put("/v1/node/{id}/eligibility", Acl::NodeWrite, eligibility),
        put("/v1/node/{id}/drain", Acl::NodeWrite, drain),
    ],
};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Driver {
    attributes: BTreeMap<String, &'static str>,
    detected: bool,
    healthy: bool,
    health_description: &'static str,
    update_time: String,
}

fn drivers(node: &Node, row: &NodeRow) -> BTreeMap<&'static str, Driver> {
    let shown = |driver: &fingerprint::Driver| Driver {
        attributes: if driver.is_detected { BTreeMap::from([(format!("driver.{}", driver.name), "true")]) } else { BTreeMap::new() },
        detected: driver.is_detected,
        healthy: driver.is_healthy,
        health_description: driver.description,
        update_time: show::stamp(row.status_updated_at),
    };
    node.fingerprint.drivers.iter().map(|driver| (driver.name, shown(driver))).collect()
}

fn word(row: &NodeRow) -> &'static str {
    if row.is_ineligible { "ineligible" } else { "eligible" }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Stub<'a> {
    address: String,
    #[serde(rename = "ID")]
    id: String,
    datacenter: &'a str,
    name: &'a str,
    node_class: &'a str,
    node_pool: &'a str,
    version: &'a str,
    drain: bool,
    scheduling_eligibility: &'static str,
    status: &'static str,
    status_description: &'static str,
    drivers: BTreeMap<&'static str, Driver>,
    host_volumes: (),
    last_drain: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    attributes: Option<BTreeMap<&'a str, &'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_resources: Option<Resources<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reserved_resources: Option<Reserved<'a>>,
    create_index: u64,
    modify_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Megabytes {
    #[serde(rename = "MemoryMB", skip_serializing_if = "Option::is_none")]
    memory_mb: Option<u64>,
    #[serde(rename = "DiskMB", skip_serializing_if = "Option::is_none")]
    disk_mb: Option<u64>,
}

fn memory(mb: u64) -> Megabytes {
    Megabytes { memory_mb: Some(mb), disk_mb: None }
}

fn disk(mb: u64) -> Megabytes {
    Megabytes { memory_mb: None, disk_mb: Some(mb) }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Cpu {
    cpu_shares: u64,
    total_cpu_cores: usize,
    reservable_cpu_cores: Vec<u16>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Network<'a> {
    mode: &'static str,
    device: &'a str,
    #[serde(rename = "CIDR")]
    cidr: &'a str,
    #[serde(rename = "IP")]
    ip: &'a str,
    hostname: &'static str,
    #[serde(rename = "MBits")]
    mbits: u32,
    #[serde(rename = "DNS")]
    dns: (),
    reserved_ports: (),
    dynamic_ports: (),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NodeNetwork<'a> {
    mode: &'static str,
    device: &'a str,
    mac_address: &'a str,
    speed: u32,
    addresses: Vec<Address>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Address {
    family: &'static str,
    alias: &'static str,
    address: String,
    reserved_ports: &'static str,
    gateway: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Resources<'a> {
    cpu: Cpu,
    memory: Megabytes,
    disk: Megabytes,
    devices: (),
    networks: Option<Vec<Network<'a>>>,
    node_networks: Option<Vec<NodeNetwork<'a>>>,
    min_dynamic_port: u16,
    max_dynamic_port: u16,
}

fn resources(node: &Node) -> Resources<'_> {
    let has = &node.fingerprint.resources;
    let networks: Vec<Network<'_>> = has
        .networks
        .iter()
        .map(|network| Network {
            mode: "host",
            device: &network.device,
            cidr: &network.cidr,
            ip: &network.ip,
            hostname: "",
            mbits: network.mbits,
            dns: (),
            reserved_ports: (),
            dynamic_ports: (),
        })
        .collect();
    let address = |address: &std::net::IpAddr| Address {
        family: if address.is_ipv4() { "ipv4" } else { "ipv6" },
        alias: "default",
        address: address.to_string(),
        reserved_ports: "",
        gateway: "",
    };
    let node_networks: Vec<NodeNetwork<'_>> = has
        .node_networks
        .iter()
        .map(|network| NodeNetwork {
            mode: "host",
            device: &network.device,
            mac_address: &network.mac,
            speed: network.mbits,
            addresses: network.addresses.iter().map(address).collect(),
        })
        .collect();
    Resources {
        cpu: Cpu { cpu_shares: has.cpu_mhz, total_cpu_cores: has.cores.len(), reservable_cpu_cores: has.reservable_cores.clone() },
        memory: memory(has.memory_mb),
        disk: disk(has.disk_mb),
        devices: (),
        networks: (!networks.is_empty()).then_some(networks),
        node_networks: (!node_networks.is_empty()).then_some(node_networks),
        min_dynamic_port: *has.dynamic_ports.start(),
        max_dynamic_port: *has.dynamic_ports.end(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ReservedCpu {
    cpu_shares: u64,
    reserved_cpu_cores: Option<Vec<u16>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ReservedPorts<'a> {
    reserved_host_ports: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Reserved<'a> {
    cpu: ReservedCpu,
    memory: Megabytes,
    disk: Megabytes,
    networks: ReservedPorts<'a>,
}

fn reserved(node: &Node) -> Reserved<'_> {
    let kept = &node.fingerprint.reserved;
    Reserved {
        cpu: ReservedCpu { cpu_shares: kept.cpu_mhz, reserved_cpu_cores: (!kept.cores.is_empty()).then(|| kept.cores.clone()) },
        memory: memory(kept.memory_mb),
        disk: disk(kept.disk_mb),
        networks: ReservedPorts { reserved_host_ports: &kept.host_ports },
    }
}

fn list(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let common = ask.query.common()?;
    let filter = Filter::read(&common, || cx.node.names())?;
    let flag = |key: &str| {
        ask.query.flag(key, false).map_err(|_| ApiError::new(400, format!("Failed to parse node list fields: {key} is not a boolean")))
    };
    let (has_resources, has_os) = (flag("resources")?, flag("os")?);
    let row = cx.store.view().node()?.unwrap_or_default();
    let node = cx.node;
    let id = node.vars.id.to_string();
    let prefix: String = common.prefix.to_lowercase();
    let is_asked = id.starts_with(&prefix) && common.per_page >= 0 && common.next_token.as_str() <= id.as_str();
    let is_listed = match filter {
        Some(filter) if is_asked => filter.holds("Node", &whole_json(node, &row)?)?,
        _ => is_asked,
    };
    let attribute = |key: &'static str| node.vars.attributes.get(key).map(|value| (key, value.as_str()));
    let stub = Stub {
        address: node.fingerprint.http_addr.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']).to_owned(),
        id: id.clone(),
        datacenter: &node.vars.datacenter,
        name: &node.vars.name,
        node_class: &node.vars.class,
        node_pool: &node.vars.pool,
        version: node.vars.attributes.get("nomad.version").map_or("", String::as_str),
        drain: false,
        scheduling_eligibility: word(&row),
        status: "ready",
        status_description: "",
        drivers: drivers(node, &row),
        host_volumes: (),
        last_drain: (),
        attributes: has_os.then(|| ["os.name", "os.version"].into_iter().filter_map(attribute).collect()),
        node_resources: has_resources.then(|| resources(node)),
        reserved_resources: has_resources.then(|| reserved(node)),
        create_index: row.create_index,
        modify_index: row.modify_index,
    };
    let all = if is_listed { vec![stub] } else { Vec::new() };
    Answer::json(&all, Some(cx.store.table_index(Table::Nodes)))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    message: &'static str,
    subsystem: &'static str,
    details: (),
    timestamp: String,
    create_index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Whole<'a> {
    #[serde(rename = "ID")]
    id: String,
    datacenter: &'a str,
    name: &'a str,
    #[serde(rename = "HTTPAddr")]
    http_addr: &'a str,
    #[serde(rename = "TLSEnabled")]
    tls_enabled: bool,
    attributes: &'a BTreeMap<String, String>,
    node_resources: Resources<'a>,
    reserved_resources: Reserved<'a>,
    resources: show::Legacy,
    reserved: show::Legacy,
    links: BTreeMap<String, String>,
    meta: &'a BTreeMap<String, String>,
    node_class: &'a str,
    node_pool: &'a str,
    cgroup_parent: &'a str,
    computed_class: &'static str,
    drain: bool,
    drain_strategy: (),
    scheduling_eligibility: &'static str,
    status: &'static str,
    status_description: &'static str,
    status_updated_at: i64,
    events: [Event; 1],
    drivers: BTreeMap<&'static str, Driver>,
    host_volumes: (),
    host_networks: (),
    #[serde(rename = "CSIControllerPlugins")]
    csi_controller_plugins: (),
    #[serde(rename = "CSINodePlugins")]
    csi_node_plugins: (),
    last_drain: (),
    create_index: u64,
    modify_index: u64,
    node_max_allocs: u32,
}

/// True when the full id is this node's.
fn check(cx: &Cx<'_>, id: &str) -> Result<(), ApiError> {
    if id.chars().count() != 36 {
        return Err(ApiError::new(500, "node lookup failed: index error: UUID must be 36 characters"));
    }
    if NodeId::parse(id) == Some(cx.node.vars.id) { Ok(()) } else { Err(ApiError::new(404, "node not found")) }
}

fn whole<'a>(node: &'a Node, row: &NodeRow) -> Whole<'a> {
    let (has, kept) = (&node.fingerprint.resources, &node.fingerprint.reserved);
    Whole {
        id: node.vars.id.to_string(),
        datacenter: &node.vars.datacenter,
        name: &node.vars.name,
        http_addr: &node.fingerprint.http_addr,
        tls_enabled: node.is_tls,
        attributes: &node.vars.attributes,
        node_resources: resources(node),
        reserved_resources: reserved(node),
        resources: show::Legacy::new(has.cpu_mhz, has.memory_mb, 0, has.disk_mb),
        reserved: show::Legacy::new(kept.cpu_mhz, kept.memory_mb, 0, kept.disk_mb),
        links: BTreeMap::new(),
        meta: &node.vars.meta,
        node_class: &node.vars.class,
        node_pool: &node.vars.pool,
        cgroup_parent: &node.fingerprint.cgroup_parent,
        computed_class: "",
        drain: false,
        drain_strategy: (),
        scheduling_eligibility: word(row),
        status: "ready",
        status_description: "",
        status_updated_at: row.status_updated_at.seconds(),
        events: [Event {
            message: "Node registered",
            subsystem: "Cluster",
            details: (),
            timestamp: show::stamp(row.status_updated_at),
            create_index: row.create_index,
        }],
        drivers: drivers(node, row),
        host_volumes: (),
        host_networks: (),
        csi_controller_plugins: (),
        csi_node_plugins: (),
        last_drain: (),
        create_index: row.create_index,
        modify_index: row.modify_index,
        node_max_allocs: 0,
    }
}

/// The node as `GET /v1/node/:id` shows it.
///
/// # Errors
/// 500 when it cannot be written.
pub(super) fn whole_json(node: &Node, row: &NodeRow) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(&whole(node, row)).map_err(|why| ApiError::new(500, why.to_string()))
}

fn info(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    check(cx, ask.id)?;
    let row = cx.store.view().node()?.unwrap_or_default();
    Answer::json(&whole(cx.node, &row), Some(row.modify_index))
}

fn allocations(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let common = ask.query.common()?;
    let index = cx.store.table_index(Table::Allocs);
    // Upstream answers an unknown node with an empty list; all allocations here are this node's.
    let is_ours = NodeId::parse(ask.id) == Some(cx.node.vars.id);
    let node = cx.node.names();
    let common = Common { namespace: "*".to_owned(), ..common };
    let show = move |view: &View<'_>, alloc: &Allocation, out: &mut Vec<u8>| show::alloc_whole(view, alloc, &node, out);
    list::answer(cx, Source::allocs("")?, &common, index, Box::new(move |_| is_ours), Box::new(show))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct EligibilityBody {
    eligibility: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Changed {
    #[serde(rename = "EvalIDs")]
    eval_ids: Option<Vec<String>>,
    eval_create_index: u64,
    node_modify_index: u64,
    index: u64,
}

fn eligibility(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    if ask.body.is_empty() {
        return Err(ApiError::new(400, "Request body is empty"));
    }
    let body: EligibilityBody = json::decode(ask.body, cx.budget.json_depth_max).map_err(|why| ApiError::new(400, why.to_string()))?;
    let is_ineligible = match body.eligibility.as_str() {
        "eligible" => false,
        "ineligible" => true,
        other => return Err(ApiError::new(500, format!("invalid scheduling eligibility {}", crate::wire::go_text::quote(other)))),
    };
    check(cx, ask.id)?;
    let mut row = cx.store.view().node()?.unwrap_or_default();
    let index = cx.store.next_index();
    row.is_ineligible = is_ineligible;
    row.modify_index = index;
    cx.store.put_node(&row);
    if !is_ineligible {
        // What could not be placed while the node took nothing is tried again.
        cx.process_blocked()?;
    }
    Answer::json(&Changed { eval_ids: None, eval_create_index: 0, node_modify_index: index, index }, Some(index))
}

fn drain(_: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    Err(ApiError::new(501, "node drain is not supported by this agent yet; set its eligibility and stop its jobs"))
}
