//! Operations on an allocation's running tasks: signal, restart, statistics, collection (`spec/http-api.md` 3).

use std::collections::BTreeMap;

use dunlin_hal::clock::Now;
use dunlin_runtime::alloc::machine::RestartAsk;
use dunlin_runtime::proc::signal;
use serde::{Deserialize, Serialize};

use super::body::{Answer as Fetched, Document, TaskUsage as Reading, Work};
use super::error::ApiError;
use super::route::{Acl, Family, client, client_put};
use super::{Answer, Ask, Cx, unknown_alloc};
use crate::model::alloc::Allocation;
use crate::wire::json;

/// The routes.
pub const FAMILY: Family = Family {
    routes: &[
        client_put("/v1/client/allocation/{id}/signal", Acl::AllocLifecycle, send_signal),
        client("/v1/client/allocation/{id}/restart", Acl::AllocLifecycle, restart),
        client("/v1/client/allocation/{id}/stats", Acl::ReadJob, stats),
        client("/v1/client/allocation/{id}/gc", Acl::SubmitJob, collect),
        client("/v1/client/allocation/{id}/checks", Acl::ReadJob, checks),
        client("/v1/client/allocation/{id}/exec", Acl::AllocLifecycle, exec),
        client("/v1/client/allocation/{id..}", Acl::None, not_found),
    ],
};

fn not_found(_: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    Err(ApiError::new(404, "resource not found"))
}

fn exec(_: &mut Cx<'_>, _: &Ask<'_>) -> Result<Answer, ApiError> {
    Err(ApiError::new(501, "alloc exec is not supported by this agent yet"))
}

fn find(cx: &Cx<'_>, ask: &Ask<'_>) -> Result<Allocation, ApiError> {
    cx.store.view().alloc(ask.client_alloc()?)?.ok_or_else(|| unknown_alloc(ask.id))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Done {
    index: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct SignalBody {
    signal: String,
    task: String,
}

fn send_signal(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let bad = |why: &str| ApiError::new(400, format!("Failed to decode body: {why}"));
    if ask.body.is_empty() {
        return Err(bad("Request body is empty"));
    }
    let body: SignalBody = json::decode(ask.body, cx.budget.json_depth_max).map_err(|why| bad(&why.to_string()))?;
    let alloc = find(cx, ask)?;
    // A wrong name must not become a signal the user did not ask for (decision 34).
    let number = signal::number(&body.signal).ok_or_else(|| {
        let known: Vec<&str> = signal::names().collect();
        ApiError::new(400, format!("invalid signal {}; known: {}", crate::wire::go_text::quote(&body.signal), known.join(", ")))
    })?;
    if !body.task.is_empty() && !alloc.tasks.iter().any(|task| task.name == body.task) {
        return Err(ApiError::new(500, "Task not found"));
    }
    cx.tasks.signal(alloc.id, &body.task, number, &body.signal)?;
    Answer::json(&Done { index: 0 }, None)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct RestartBody {
    task_name: String,
    all_tasks: bool,
}

fn restart(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let body: RestartBody = match ask.body {
        [] => RestartBody::default(),
        bytes => json::decode(bytes, cx.budget.json_depth_max).map_err(|why| ApiError::new(500, why.to_string()))?,
    };
    let alloc = find(cx, ask)?;
    let which = RestartAsk::new(&body.task_name, body.all_tasks).map_err(|refusal| ApiError::new(500, refusal.to_string()))?;
    cx.tasks.restart(alloc.id, which)?;
    Answer::json(&Done { index: 0 }, None)
}

fn checks(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    find(cx, ask)?;
    Answer::json(&BTreeMap::<String, ()>::new(), None)
}

fn collect(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let refusal = || ApiError::new(500, "No such allocation on client, or allocation not eligible for GC");
    let id = ask.client_alloc().map_err(|_| refusal())?;
    let alloc = cx.store.view().alloc(id)?.filter(|alloc| alloc.client_status.is_terminal() && !alloc.is_destroyed).ok_or_else(refusal)?;
    cx.tasks.collect(alloc.id);
    Ok(Answer::empty())
}

fn stats(cx: &mut Cx<'_>, ask: &Ask<'_>) -> Result<Answer, ApiError> {
    let alloc = find(cx, ask)?;
    let only = ask.query.text("task");
    let tasks: Vec<String> = cx.tasks.running(alloc.id).into_iter().filter(|task| only.is_empty() || task == only).collect();
    let mhz_per_percent = cx.node.mhz_per_percent();
    let show = move |now: Now, fetched: Fetched| match fetched {
        Fetched::Usage(samples) => serde_json::to_vec(&usage(now, &samples, mhz_per_percent)).ok(),
        _ => None,
    };
    Ok(Answer::machine(Box::new(Document::new(Work::Usage { alloc: alloc.id, tasks }, Box::new(show)))))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AllocUsage<'a> {
    resource_usage: Usage,
    tasks: BTreeMap<&'a str, TaskUsage>,
    timestamp: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct TaskUsage {
    resource_usage: Usage,
    timestamp: i64,
    pids: (),
}

/// `ResourceUsage`.
#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Usage {
    memory_stats: MemoryStats,
    cpu_stats: CpuStats,
    device_stats: [(); 0],
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MemoryStats {
    #[serde(rename = "RSS")]
    rss: u64,
    cache: u64,
    swap: u64,
    mapped_file: u64,
    usage: u64,
    max_usage: u64,
    kernel_usage: u64,
    kernel_max_usage: u64,
    measured: Vec<&'static str>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct CpuStats {
    system_mode: f64,
    user_mode: f64,
    percent: f64,
    total_ticks: f64,
    throttled_periods: u64,
    throttled_time: u64,
    measured: Vec<&'static str>,
}

fn usage<'a>(now: Now, samples: &'a [(String, Reading)], mhz_per_percent: f64) -> AllocUsage<'a> {
    let timestamp = now.wall.0;
    let mut sum = Usage::default();
    let mut tasks = BTreeMap::new();
    for (task, sample) in samples {
        let one = task_usage(sample, mhz_per_percent);
        sum.add(&one);
        tasks.insert(task.as_str(), TaskUsage { resource_usage: one, timestamp: sample.taken_ns, pids: () });
    }
    AllocUsage { resource_usage: sum, tasks, timestamp }
}

fn task_usage(reading: &Reading, mhz_per_percent: f64) -> Usage {
    let cpu = &reading.sample.cpu;
    let memory = &reading.sample.memory;
    Usage {
        memory_stats: MemoryStats {
            rss: memory.rss,
            cache: memory.cache,
            swap: memory.swap,
            mapped_file: memory.mapped_file,
            usage: memory.usage,
            max_usage: memory.max_usage,
            kernel_usage: memory.kernel_usage,
            kernel_max_usage: memory.kernel_max_usage,
            measured: memory.measured.to_vec(),
        },
        cpu_stats: CpuStats {
            system_mode: reading.system_percent,
            user_mode: reading.user_percent,
            percent: reading.percent,
            total_ticks: reading.percent * mhz_per_percent,
            throttled_periods: cpu.throttled_periods,
            throttled_time: cpu.throttled_ns,
            measured: cpu.measured.to_vec(),
        },
        device_stats: [],
    }
}

impl Usage {
    /// Sums another task's use into this one; what is measured is the union.
    fn add(&mut self, other: &Self) {
        fn union(all: &mut Vec<&'static str>, more: &[&'static str]) {
            for name in more {
                if !all.contains(name) {
                    all.push(name);
                }
            }
        }
        let (memory, more) = (&mut self.memory_stats, &other.memory_stats);
        memory.rss += more.rss;
        memory.cache += more.cache;
        memory.swap += more.swap;
        memory.mapped_file += more.mapped_file;
        memory.usage += more.usage;
        memory.max_usage += more.max_usage;
        memory.kernel_usage += more.kernel_usage;
        memory.kernel_max_usage += more.kernel_max_usage;
        union(&mut memory.measured, &more.measured);
        let (cpu, more) = (&mut self.cpu_stats, &other.cpu_stats);
        cpu.system_mode += more.system_mode;
        cpu.user_mode += more.user_mode;
        cpu.percent += more.percent;
        cpu.total_ticks += more.total_ticks;
        cpu.throttled_periods += more.throttled_periods;
        cpu.throttled_time += more.throttled_time;
        union(&mut cpu.measured, &more.measured);
    }
}
