//! The agent about itself: self, health, members, servers, schedulers (`spec/http-api.md` 7).

use std::collections::BTreeMap;

use serde::Serialize;

use super::body::Body;
use super::error::ApiError;
use super::route::{Acl, Family, Route, get, put};
use super::{Answer, Ask, Cx};
use crate::wire::http::{Head, JSON, TEXT};

/// The routes.
pub const FAMILY: Family = Family {
    routes: &[
        get("/v1/agent/self", Acl::AgentRead, this),
        get("/v1/agent/health", Acl::None, health),
        get("/v1/agent/members", Acl::NodeRead, members),
        get("/v1/agent/servers", Acl::AgentRead, servers),
        put("/v1/agent/servers", Acl::AgentWrite, set_servers),
        put("/v1/agent/join", Acl::None, servers_only),
        put("/v1/agent/force-leave", Acl::AgentWrite, servers_only),
        get("/v1/agent/schedulers", Acl::AgentRead, schedulers),
        Route { methods: &[], ..get("/", Acl::None, root) },
        Route { methods: &[], ..get("/ui/", Acl::None, no_ui) },
        Route { methods: &[], ..get("/ui/{path..}", Acl::None, no_ui) },
    ],
};

fn root(_: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    let head = Head { status: 307, headers: vec![("Location", "/ui/".to_owned())] };
    Ok(Answer::new(head, Body::Full(Vec::new())))
}

fn no_ui(_: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    let head = Head::new(200, "text/html; charset=utf-8");
    Ok(Answer::new(head, Body::Full(b"<html><p>Nomad UI is disabled</p></html>".to_vec())))
}

fn servers_only(_: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    Err(ApiError::new(501, "Invalid method"))
}

/// The version of Nomad's API that is claimed, and this agent's own.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: &'static str,
    version_prerelease: &'static str,
    version_metadata: &'static str,
    revision: &'static str,
    build_date: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ports {
    #[serde(rename = "HTTP")]
    http: u16,
    #[serde(rename = "RPC")]
    rpc: u16,
    serf: u16,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Enabled {
    enabled: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ui {
    enabled: bool,
    #[serde(rename = "ShowCLIHints")]
    show_cli_hints: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ClientConfig<'a> {
    enabled: bool,
    node_class: &'a str,
    meta: &'a BTreeMap<String, String>,
    alloc_dir: String,
    state_dir: String,
    servers: &'a [String],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ShownConfig<'a> {
    region: &'a str,
    datacenter: &'a str,
    node_name: &'a str,
    data_dir: String,
    log_level: String,
    bind_addr: String,
    enable_debug: bool,
    dev_mode: bool,
    ports: Ports,
    client: ClientConfig<'a>,
    server: Enabled,
    #[serde(rename = "ACL")]
    acl: Enabled,
    #[serde(rename = "UI")]
    ui: Ui,
    version: Version,
}

/// One agent as the gossip of servers would know it; all zero for one that is none.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Member {
    name: String,
    addr: Option<String>,
    port: u16,
    tags: Option<BTreeMap<&'static str, String>>,
    status: &'static str,
    protocol_min: u8,
    protocol_max: u8,
    protocol_cur: u8,
    delegate_min: u8,
    delegate_max: u8,
    delegate_cur: u8,
}

#[derive(Serialize)]
struct This<'a> {
    config: ShownConfig<'a>,
    member: Member,
    stats: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
}

fn this(cx: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    let config = cx.config;
    let http = cx.node.http;
    let attribute = |key: &str| cx.node.vars.attributes.get(key).cloned().unwrap_or_default();
    let live_n = cx.store.view().live_allocs()?.len();
    let stats = BTreeMap::from([
        (
            "client",
            BTreeMap::from([
                ("node_id", cx.node.vars.id.to_string()),
                ("known_servers", config.servers.join(",")),
                ("num_allocations", live_n.to_string()),
                ("last_heartbeat", "0s".to_owned()),
                ("heartbeat_ttl", "0s".to_owned()),
            ]),
        ),
        (
            "runtime",
            BTreeMap::from([
                ("arch", attribute("cpu.arch")),
                ("version", attribute("edge.version")),
                ("cpu_count", cx.node.fingerprint.resources.cores.len().to_string()),
                ("kernel.name", attribute("kernel.name")),
            ]),
        ),
        ("edge", BTreeMap::from([("mode", "standalone".to_owned()), ("outbox_depth", "0".to_owned())])),
    ]);
    let shown = This {
        config: ShownConfig {
            region: &config.region,
            datacenter: &config.datacenter,
            node_name: &config.node_name,
            data_dir: config.data_dir.display().to_string(),
            log_level: config.log_level.to_string(),
            bind_addr: http.map_or_else(String::new, |http| http.ip().to_string()),
            enable_debug: config.enable_debug,
            dev_mode: config.dev,
            ports: Ports { http: http.map_or(0, |http| http.port()), rpc: 4647, serf: 4648 },
            client: ClientConfig {
                enabled: true,
                node_class: &config.node_class,
                meta: &config.meta,
                alloc_dir: config.alloc_dir.display().to_string(),
                state_dir: config.state_dir.display().to_string(),
                servers: &config.servers,
            },
            server: Enabled { enabled: false },
            acl: Enabled { enabled: false },
            ui: Ui { enabled: false, show_cli_hints: false },
            version: Version {
                version: crate::node::fingerprint::NOMAD_VERSION,
                version_prerelease: "",
                version_metadata: "edge",
                revision: env!("CARGO_PKG_VERSION"),
                build_date: "1970-01-01T00:00:00Z",
            },
        },
        member: own_member(cx),
        stats,
    };
    Answer::json(&shown, None)
}

#[derive(Serialize)]
struct Health {
    ok: bool,
    message: String,
}

/// `type` may repeat: `client`, `server`. An agent that is not well answers 500 with the same document.
fn health(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let types: Vec<&str> = ask.query.pairs().iter().filter(|(key, _)| key == "type").map(|(_, value)| value.as_str()).collect();
    let mut parts = BTreeMap::new();
    if types.is_empty() || types.contains(&"client") {
        let trouble = cx.trouble.clone();
        parts.insert("client", Health { ok: trouble.is_none(), message: trouble.unwrap_or_else(|| "ok".to_owned()) });
    }
    if types.contains(&"server") {
        parts.insert("server", Health { ok: false, message: "server not enabled".to_owned() });
    }
    let is_well = parts.values().all(|part| part.ok);
    let mut answer = Answer::json(&parts, None)?;
    answer.head = if is_well { Head::new(200, JSON) } else { Head::new(500, TEXT) };
    Ok(answer)
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Members {
    server_name: String,
    server_region: String,
    #[serde(rename = "ServerDC")]
    server_dc: String,
    members: [Member; 1],
}

/// A standalone node is the one member of its own cluster (`spec/http-api.md` 9.2).
fn own_member(cx: &Cx<'_>) -> Member {
    let config = cx.config;
    let addr = cx.node.http.map_or_else(|| "127.0.0.1".to_owned(), |http| http.ip().to_string());
    let tags = BTreeMap::from([
        ("role", "nomad".to_owned()),
        ("region", config.region.clone()),
        ("dc", config.datacenter.clone()),
        ("build", crate::node::fingerprint::NOMAD_VERSION.to_owned()),
        ("id", cx.node.vars.id.to_string()),
    ]);
    Member {
        name: format!("{}.{}", config.node_name, config.region),
        addr: Some(addr),
        port: 4648,
        tags: Some(tags),
        status: "alive",
        protocol_min: 1,
        protocol_max: 5,
        protocol_cur: 2,
        delegate_min: 2,
        delegate_max: 5,
        delegate_cur: 4,
    }
}

fn members(cx: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    let config = cx.config;
    let shown = Members {
        server_name: config.node_name.clone(),
        server_region: config.region.clone(),
        server_dc: config.datacenter.clone(),
        members: [own_member(cx)],
    };
    Answer::json(&shown, None)
}

fn servers(cx: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    let mut all = cx.config.servers.clone();
    all.sort();
    Answer::json(&all, None)
}

fn set_servers(_: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    if ask.query.text("address").is_empty() {
        return Err(ApiError::new(400, "missing server address"));
    }
    Err(ApiError::new(501, "joining servers is not supported by this agent yet"))
}

#[derive(Serialize)]
struct Scheduler {
    id: &'static str,
    enabled_schedulers: [&'static str; 3],
    started: &'static str,
    status: &'static str,
    workload_status: &'static str,
}

#[derive(Serialize)]
struct Schedulers {
    server_id: String,
    schedulers: [Scheduler; 1],
}

/// A standalone node is its own scheduler, with one worker.
fn schedulers(cx: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    let worker = Scheduler {
        id: "local",
        enabled_schedulers: ["service", "batch", "system"],
        started: "1970-01-01T00:00:00Z",
        status: "Started",
        workload_status: "WaitingToDequeue",
    };
    Answer::json(&Schedulers { server_id: cx.node.vars.id.to_string(), schedulers: [worker] }, None)
}
