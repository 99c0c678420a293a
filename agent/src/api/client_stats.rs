//! The node's own resource use, and the collection of all that has ended (`spec/http-api.md` 4).

use dunlin_hal::clock::Now;
use dunlin_hal::facts::Usage;
use serde::Serialize;

use super::body::{Answer as Fetched, Document, Work};
use super::error::ApiError;
use super::route::{Acl, Family, client};
use super::{Answer, Ask, Cx};

/// The routes.
pub const FAMILY: Family = Family {
    routes: &[client("/v1/client/stats", Acl::NodeRead, stats), client("/v1/client/gc", Acl::NodeWrite, collect_all)],
};

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
    let mhz_per_percent = cx.node.mhz_per_percent();
    let show = move |now: Now, fetched: Fetched| match fetched {
        Fetched::Host(usage) => serde_json::to_vec(&host(now, &usage, mhz_per_percent)).ok(),
        _ => None,
    };
    Ok(Answer::machine(Box::new(Document::new(Work::HostUsage, Box::new(show)))))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Host<'a> {
    memory: Memory,
    #[serde(rename = "CPU")]
    cpu: Vec<Cpu<'a>>,
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
struct Cpu<'a> {
    #[serde(rename = "CPU")]
    cpu: &'a str,
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
