//! The node's own resource use, and the collection of all that has ended (`spec/http-api.md` 4).

use dunlin_hal::clock::Now;
use dunlin_hal::facts::Usage;
use dunlin_hal::volume::Space;
use serde::Serialize;

use super::body::{Answer as Fetched, Document, Work};
use super::error::ApiError;
use super::route::{Acl, Family, client};
use super::{Answer, Ask, Cx};

/// The routes.
pub const FAMILY: Family =
    Family { routes: &[client("/v1/client/stats", Acl::NodeRead, stats), client("/v1/client/gc", Acl::NodeWrite, collect_all)] };

/// Only this node can be asked (`spec/http-api.md` 9.2).
fn check_node(cx: &Cx<'_>, ask: &Ask<'_>) -> Result<(), ApiError> {
    match ask.query.text("node_id") {
        "" => Ok(()),
        id if id == cx.node.names().id.to_string() => Ok(()),
        id => Err(ApiError::new(404, format!("Unknown node {}", crate::wire::go_text::quote(id)))),
    }
}

fn collect_all(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    check_node(cx, ask)?;
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = cx.store.view().scan_after(crate::store::keys::ALLOCS, after.as_deref(), 64)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (_, bytes) in &page {
            let alloc = crate::store::rows::decode_alloc(bytes)?;
            if alloc.client_status.is_terminal() && !alloc.is_destroyed {
                cx.tasks.collect(alloc.id);
            }
        }
    }
    Ok(Answer::empty())
}

fn stats(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    check_node(cx, ask)?;
    let show = |now: Now, fetched: Fetched| match fetched {
        Fetched::Host(usage) => serde_json::to_vec(&host(now, &usage)).ok(),
        _ => None,
    };
    Ok(Answer::machine(Box::new(Document::new(Work::HostUsage, Box::new(show)))))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Host<'a> {
    memory: Memory,
    #[serde(rename = "CPU")]
    cpu: Vec<Cpu>,
    disk_stats: Vec<Disk<'a>>,
    alloc_dir_stats: Disk<'a>,
    device_stats: [(); 0],
    uptime: u64,
    timestamp: i64,
    #[serde(rename = "CPUTicksConsumed")]
    cpu_ticks_consumed: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Memory {
    total: u64,
    available: u64,
    used: u64,
    free: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Cpu {
    #[serde(rename = "CPU")]
    cpu: String,
    user: f64,
    system: f64,
    idle: f64,
    total: f64,
    total_percent: f64,
    total_ticks: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Disk<'a> {
    device: &'a str,
    mountpoint: &'a str,
    size: u64,
    used: u64,
    available: u64,
    used_percent: f64,
    inodes_used_percent: f64,
}

fn host<'a>(now: Now, usage: &'a Usage) -> Host<'a> {
    Host {
        memory: Memory { total: usage.memory.total, available: usage.memory.available, used: usage.memory.used, free: usage.memory.free },
        cpu: usage
            .cores
            .iter()
            .map(|core| Cpu {
                cpu: format!("cpu{}", core.id),
                user: core.user,
                system: core.system,
                idle: core.idle,
                total: core.busy,
                total_percent: core.busy,
                total_ticks: core.ticks(),
            })
            .collect(),
        disk_stats: usage.disks.iter().map(disk).collect(),
        // Upstream names neither device nor mount point here.
        alloc_dir_stats: Disk { device: "", mountpoint: "", ..disk(&usage.alloc_dir) },
        device_stats: [],
        uptime: usage.uptime_s,
        timestamp: now.wall.0,
        cpu_ticks_consumed: usage.ticks(),
    }
}

fn disk(space: &Space) -> Disk<'_> {
    Disk {
        device: &space.device,
        mountpoint: &space.mountpoint,
        size: space.size,
        used: space.used,
        available: space.available,
        used_percent: space.used_percent(),
        inodes_used_percent: space.inodes_used_percent(),
    }
}
