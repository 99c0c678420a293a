//! `alloc status|signal|restart|stop`, and the tables of allocations other verbs show.
//!
//! Source: upstream v1.10.5 command/alloc_{status,signal,restart,stop}.go (behaviour only); fields: `spec/http-api.md` 2 and 3.

use std::collections::BTreeMap;

use dunlin_hal::clock::Wall;
use serde_json::{Value, json};

use super::answer::Answer as _;
use super::client::path;
use super::table::{Ids, Pairs, Table, ago, bytes, mebibytes, quoted, time, when};
use super::{Cx, Exit, Failure, Verb, eval, find, monitor};
use crate::config::flags::Flag;
use crate::wire::go_text;

pub(super) const VERBOSE: Flag = Flag::switch("verbose", "Show whole identifiers and exact times");
pub(super) const TASK: Flag = Flag::value("task", "name", "The task; wins over the argument");

pub(super) const STATUS: Verb = Verb {
    name: "alloc status",
    operands: "<allocation>",
    synopsis: "Show an allocation: its tasks, their resources and events",
    about: "",
    flags: &[Flag::switch("short", "Only the newest event of each task"), Flag::switch("stats", "Also detailed resource use"), VERBOSE],
    run: status,
};

pub(super) const SIGNAL: Verb = Verb {
    name: "alloc signal",
    operands: "<allocation> [<task>]",
    synopsis: "Send a signal to one task, or to all of an allocation",
    about: "",
    flags: &[Flag::value("s", "signal", "The signal; default: SIGKILL"), TASK, VERBOSE],
    run: signal,
};

pub(super) const RESTART: Verb = Verb {
    name: "alloc restart",
    operands: "<allocation> [<task>]",
    synopsis: "Restart one task, or all that are running, in place",
    about: "",
    flags: &[Flag::switch("all-tasks", "Also tasks that have already finished"), TASK, VERBOSE],
    run: restart,
};

pub(super) const STOP: Verb = Verb {
    name: "alloc stop",
    operands: "<allocation>",
    synopsis: "Stop an allocation and have its job place a new one",
    about: "",
    flags: &[
        Flag::switch("detach", "Print the evaluation's ID and do not follow it"),
        Flag::switch("no-shutdown-delay", "Do not wait for the shutdown delays of the job"),
        VERBOSE,
    ],
    run: stop,
};

/// A table of allocations: of stubs, or of whole ones, whose version is in their job.
pub(super) fn table(allocs: &[Value], now: Wall, verbose: bool) -> String {
    if allocs.is_empty() {
        return "No allocations placed".to_owned();
    }
    let ids = Ids::of(verbose);
    let mut table = Table::new(match verbose {
        true => "ID|Eval ID|Node ID|Node Name|Task Group|Version|Desired|Status|Created|Modified",
        false => "ID|Node ID|Task Group|Version|Desired|Status|Created|Modified",
    });
    for alloc in allocs {
        let version = alloc.at("Job").get("Version").unwrap_or(alloc.at("JobVersion"));
        let mut row = vec![ids.show(alloc.text("ID"))];
        if verbose {
            row.push(ids.show(alloc.text("EvalID")));
        }
        row.push(ids.show(alloc.text("NodeID")));
        if verbose {
            row.push(alloc.text("NodeName").to_owned());
        }
        row.extend([
            alloc.text("TaskGroup").to_owned(),
            version.as_u64().unwrap_or(0).to_string(),
            alloc.text("DesiredStatus").to_owned(),
            alloc.text("ClientStatus").to_owned(),
            when(alloc.wall("CreateTime"), now, verbose),
            when(alloc.wall("ModifyTime"), now, verbose),
        ]);
        table.push(row);
    }
    table.to_string()
}

/// What an ambiguous prefix could mean.
pub(super) fn listing(cx: &Cx<'_>, allocs: &[Value]) -> String {
    table(allocs, cx.now(), cx.on("verbose"))
}

fn status(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(usize::from(!cx.on("json")), 1, "one argument: <allocation>")?;
    let Some(typed) = operands.first() else {
        let list = cx.client.get("/v1/allocations", &[]).map_err(Failure::call("listing allocations"))?;
        cx.say_json(&list)?;
        return Ok(Exit::Done);
    };
    let alloc = find::allocation(cx, typed)?;
    if cx.on("json") {
        cx.say_json(&alloc)?;
        return Ok(Exit::Done);
    }
    let (now, verbose) = (cx.now(), cx.on("verbose"));
    if cx.on("short") {
        cx.say(short(&alloc, now))?;
        cx.section("Tasks", short_tasks(&alloc))?;
        return Ok(Exit::Done);
    }
    cx.say(basics(&alloc, now, verbose))?;
    if let Some(addresses) = addresses(&alloc) {
        cx.say(format!("\n{addresses}"))?;
    }
    // What cannot be measured (a stopped allocation, another node) is left out; the rest of the page still stands.
    let stats = match cx.client.get(&path(&["client", "allocation", alloc.text("ID"), "stats"]), &[]) {
        Ok(stats) => stats,
        Err(error) => {
            if alloc.text("ClientStatus") == "running" {
                cx.note(format!("Resource use is not shown: {error}"))?;
            }
            Value::Null
        }
    };
    let detailed = cx.on("stats");
    for (task, state) in tasks_in_order(&alloc) {
        cx.say(task_page(&alloc, task, state, stats.at("Tasks").at(task), detailed))?;
    }
    if verbose {
        let metrics = alloc.at("Metrics");
        let blocks = [eval::reasons(metrics), eval::scores(metrics)];
        cx.section("Placement Metrics", blocks.iter().filter(|block| !block.is_empty()).cloned().collect::<Vec<_>>().join("\n"))?;
    }
    Ok(Exit::Done)
}

fn short(alloc: &Value, now: Wall) -> Pairs {
    let mut pairs = Pairs::default();
    pairs
        .add("ID", alloc.text("ID"))
        .add("Name", alloc.text("Name"))
        .add("Created", ago(alloc.wall("CreateTime"), now))
        .add("Modified", ago(alloc.wall("ModifyTime"), now));
    pairs
}

fn basics(alloc: &Value, now: Wall, verbose: bool) -> Pairs {
    let ids = Ids::of(verbose);
    let mut pairs = Pairs::default();
    pairs
        .add("ID", alloc.text("ID"))
        .add("Eval ID", ids.show(alloc.text("EvalID")))
        .add("Name", alloc.text("Name"))
        .add("Node ID", ids.show(alloc.text("NodeID")))
        .add("Node Name", alloc.text("NodeName"))
        .add("Job ID", alloc.text("JobID"))
        .add("Job Version", alloc.at("Job").int("Version").to_string())
        .add("Client Status", alloc.text("ClientStatus"))
        .add("Client Description", alloc.text("ClientDescription"))
        .add("Desired Status", alloc.text("DesiredStatus"))
        .add("Desired Description", alloc.text("DesiredDescription"))
        .add("Created", when(alloc.wall("CreateTime"), now, verbose))
        .add("Modified", when(alloc.wall("ModifyTime"), now, verbose));
    if !alloc.text("DeploymentID").is_empty() {
        let deployment = alloc.at("DeploymentStatus");
        let health = match deployment.at("Healthy").as_bool() {
            Some(true) => "healthy",
            Some(false) => "unhealthy",
            None => "unset",
        };
        pairs.add("Deployment ID", ids.show(alloc.text("DeploymentID"))).add("Deployment Health", health);
        if deployment.flag("Canary") {
            pairs.add("Canary", "true");
        }
    }
    if !alloc.text("NextAllocation").is_empty() {
        pairs.add("Replacement Alloc ID", ids.show(alloc.text("NextAllocation")));
    }
    if verbose {
        let metrics = alloc.at("Metrics");
        pairs
            .add("Evaluated Nodes", metrics.int("NodesEvaluated").to_string())
            .add("Filtered Nodes", metrics.int("NodesFiltered").to_string())
            .add("Exhausted Nodes", metrics.int("NodesExhausted").to_string())
            .add("Allocation Time", go_text::duration(metrics.int("AllocationTime")))
            .add("Failures", metrics.int("CoalescedFailures").to_string());
    }
    pairs
}

/// Ports of the allocation's own network, if it has one.
fn addresses(alloc: &Value) -> Option<String> {
    let shared = alloc.at("AllocatedResources").at("Shared");
    let network = shared.items("Networks").first()?;
    let is_reserved = |label: &str| network.items("ReservedPorts").iter().any(|port| port.text("Label") == label);
    let ports = shared.items("Ports");
    let mut table = Table::new("Label|Dynamic|Address");
    let mut add = |label: String, port: &Value, host: &str| {
        let to = port.int("To");
        let to = if to > 0 { format!(" -> {to}") } else { String::new() };
        let dynamic = if is_reserved(port.text("Label")) { "no" } else { "yes" };
        table.row([label, dynamic.into(), format!("{host}:{}{to}", port.int("Value"))]);
    };
    for port in ports {
        add(format!("*{}", port.text("Label")), port, port.text("HostIP"));
    }
    if ports.is_empty() {
        for port in network.items("DynamicPorts").iter().chain(network.items("ReservedPorts")) {
            add(port.text("Label").to_owned(), port, network.text("IP"));
        }
    }
    let mode = network.text("Mode");
    let mode = if mode.is_empty() { String::new() } else { format!(" (mode = {})", quoted(mode)) };
    (!table.is_empty()).then(|| format!("Allocation Addresses{mode}:\n{table}"))
}

/// The tasks of the allocation's group in its job.
fn group_tasks(alloc: &Value) -> &[Value] {
    let groups = alloc.at("Job").items("TaskGroups");
    groups.iter().find(|group| group.text("Name") == alloc.text("TaskGroup")).map_or(&[], |group| group.items("Tasks"))
}

/// The hook of a task, `main` when it has none.
fn lifecycle(alloc: &Value, task: &str) -> String {
    let lifecycle = group_tasks(alloc).iter().find(|known| known.text("Name") == task).map_or(&Value::Null, |task| task.at("Lifecycle"));
    match lifecycle.text("Hook") {
        "" => "main".to_owned(),
        hook if lifecycle.flag("Sidecar") => format!("{hook} sidecar"),
        hook => hook.to_owned(),
    }
}

/// States of the tasks: hooks that end first, then sidecars, then main tasks; by name within each.
fn tasks_in_order(alloc: &Value) -> Vec<(&str, &Value)> {
    let mut tasks: Vec<(&str, &Value)> = alloc.members("TaskStates").into_iter().collect();
    tasks.sort_by_key(|(task, _)| match lifecycle(alloc, task).as_str() {
        "main" => 2,
        hook => u8::from(hook.ends_with(" sidecar")),
    });
    tasks
}

fn short_tasks(alloc: &Value) -> Table {
    let mut table = Table::new("Name|State|Last Event|Time|Lifecycle");
    for (task, state) in tasks_in_order(alloc) {
        let last = state.items("Events").last().unwrap_or(&Value::Null);
        table.row([task.into(), state.text("State").into(), last.text("Type").into(), time(last.wall("Time")), lifecycle(alloc, task)]);
    }
    table
}

/// Everything about one task, after a blank line.
fn task_page(alloc: &Value, task: &str, state: &Value, stats: &Value, detailed: bool) -> String {
    let hook = match lifecycle(alloc, task).as_str() {
        "main" => String::new(),
        hook => format!(" ({hook})"),
    };
    let usage = stats.at("ResourceUsage");
    let mut text = format!("\nTask {}{hook} is {}\n", quoted(task), quoted(state.text("State")));
    if let Some(resource) = alloc.members("TaskResources").get(task) {
        let disk_mb = alloc.at("Resources").int("DiskMB");
        text.push_str(&format!("Task Resources:\n{}\n", resources(resource, disk_mb, usage)));
    }
    if detailed {
        for block in usage_details(usage) {
            text.push_str(&format!("\n{block}\n"));
        }
    }
    let moment = |member: &str| Some(time(state.stamp(member))).filter(|text| !text.is_empty()).unwrap_or_else(|| "N/A".into());
    let mut times = Pairs::default();
    times
        .add("Started At", moment("StartedAt"))
        .add("Finished At", moment("FinishedAt"))
        .add("Total Restarts", state.int("Restarts").to_string())
        .add("Last Restart", moment("LastRestart"));
    let mut events = Table::new("Time|Type|Description");
    for event in state.items("Events").iter().rev() {
        let shown = Some(event.text("DisplayMessage")).filter(|text| !text.is_empty()).unwrap_or(event.text("Message"));
        events.row([time(event.wall("Time")), event.text("Type").into(), shown.into()]);
    }
    text.push_str(&format!("\nTask Events:\n{times}\n\nRecent Events:\n{events}"));
    text
}

/// Bytes a task uses: its resident set, or all of its cgroup where the kernel does not measure that.
fn memory_used(memory: &Value) -> i64 {
    let measures_rss = memory.items("Measured").iter().any(|name| name.as_str() == Some("RSS"));
    if memory.int("RSS") == 0 && !measures_rss { memory.int("Usage") } else { memory.int("RSS") }
}

/// The resources of a task, with what it uses now in front where it is known.
fn resources(resource: &Value, disk_mb: i64, usage: &Value) -> Table {
    let (cpu, memory) = (usage.at("CpuStats"), usage.at("MemoryStats"));
    let cores = resource.int("Cores");
    let heading = if cores > 0 { format!("CPU ({cores} cores)") } else { "CPU".into() };
    let mut table = Table::new(&format!("{heading}|Memory|Disk|Addresses")).keep_empty();
    let mut addresses = resource.items("Networks").iter().flat_map(|network| {
        let ports = network.items("DynamicPorts").iter().chain(network.items("ReservedPorts"));
        ports.map(|port| format!("{}: {}:{}", port.text("Label"), network.text("IP"), port.int("Value")))
    });
    let limit = resource.int("MemoryMB");
    let cpu_used = if cpu.is_object() { format!("{:.0}/", cpu.number("TotalTicks").floor()) } else { String::new() };
    let used = if memory.is_object() { format!("{}/", bytes(memory_used(memory))) } else { String::new() };
    table.row([
        format!("{cpu_used}{} MHz", resource.int("CPU")),
        format!("{used}{}", mebibytes(limit)),
        mebibytes(disk_mb),
        addresses.next().unwrap_or_default(),
    ]);
    let max = resource.int("MemoryMaxMB");
    let max = if max != 0 && max != limit { format!("Max: {}", mebibytes(max)) } else { String::new() };
    let second = addresses.next().unwrap_or_default();
    if !max.is_empty() || !second.is_empty() {
        table.row([String::new(), max, String::new(), second]);
    }
    for address in addresses {
        table.row([String::new(), String::new(), String::new(), address]);
    }
    table
}

/// What was measured of a task's memory and processor time, a table each.
fn usage_details(usage: &Value) -> Vec<String> {
    let (memory, cpu) = (usage.at("MemoryStats"), usage.at("CpuStats"));
    let size = |member: &str| Some(bytes(memory.int(member)));
    let percent = |member: &str| Some(format!("{:.2}%", cpu.number(member)));
    let memory_cell = |name: &str| match name {
        "RSS" | "Cache" | "Swap" | "Usage" => size(name),
        "Mapped File" => size("MappedFile"),
        "Max Usage" => size("MaxUsage"),
        "Kernel Usage" => size("KernelUsage"),
        "Kernel Max Usage" => size("KernelMaxUsage"),
        _ => None,
    };
    let cpu_cell = |name: &str| match name {
        "Percent" => percent("Percent"),
        "System Mode" => percent("SystemMode"),
        "User Mode" => percent("UserMode"),
        "Throttled Periods" => Some(cpu.int("ThrottledPeriods").to_string()),
        "Throttled Time" => Some(cpu.int("ThrottledTime").to_string()),
        "Total Ticks" => Some(format!("{:.2}", cpu.number("TotalTicks"))),
        _ => None,
    };
    let block = |title: &str, measured: &[Value], cell: &dyn Fn(&str) -> Option<String>| {
        let cells: BTreeMap<&str, String> =
            measured.iter().filter_map(Value::as_str).filter_map(|name| Some((name, cell(name)?))).collect();
        let mut table = Table::new(&cells.keys().copied().collect::<Vec<_>>().join("|"));
        table.push(cells.into_values().collect());
        format!("{title}\n{table}")
    };
    let blocks = [
        (memory, block("Memory Stats", memory.items("Measured"), &memory_cell)),
        (cpu, block("CPU Stats", cpu.items("Measured"), &cpu_cell)),
    ];
    blocks.into_iter().filter(|(stats, _)| !stats.items("Measured").is_empty()).map(|(_, block)| block).collect()
}

/// The task a verb is about: `-task`, else the second operand, checked against the allocation's group; empty = none named.
pub(super) fn named_task(cx: &Cx<'_>, alloc: &Value, operand: Option<&String>) -> Result<String, Failure> {
    let asked = cx.flags.value("task").or(operand.map(String::as_str)).unwrap_or("");
    if asked.is_empty() || group_tasks(alloc).iter().any(|task| task.text("Name") == asked) {
        return Ok(asked.to_owned());
    }
    Err(Failure::new(format!("The allocation has no task {}; its tasks are:\n{}", quoted(asked), task_names(alloc))))
}

/// The only task of the allocation's group, or a failure that lists what there is to choose from.
pub(super) fn only_task(alloc: &Value) -> Result<String, Failure> {
    match group_tasks(alloc) {
        [task] => Ok(task.text("Name").to_owned()),
        _ => Err(Failure::new(format!(
            "Allocation {} has several tasks; name one of:\n{}",
            quoted(&Ids::Short.show(alloc.text("ID"))),
            task_names(alloc)
        ))),
    }
}

fn task_names(alloc: &Value) -> String {
    group_tasks(alloc).iter().map(|task| format!("  * {}", task.text("Name"))).collect::<Vec<_>>().join("\n")
}

/// The allocation and the task that the operands of `signal` and `restart` name.
fn target(cx: &Cx<'_>) -> Result<(Value, String), Failure> {
    let operands = cx.operands(1, 2, "one or two arguments: <allocation> [<task>]")?;
    let alloc = find::allocation(cx, operands.first().map_or("", String::as_str))?;
    let task = named_task(cx, &alloc, operands.get(1))?;
    Ok((alloc, task))
}

fn signal(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let (alloc, task) = target(cx)?;
    let body = json!({ "Signal": cx.flags.value("s").unwrap_or("SIGKILL"), "Task": task });
    act(cx, &["client", "allocation", alloc.text("ID"), "signal"], &body, "signalling the allocation")
}

fn restart(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let all = cx.on("all-tasks");
    if all && (cx.flags.value("task").is_some() || cx.flags.args.len() > 1) {
        return Err(Failure::words("-all-tasks restarts all tasks: name no task with it"));
    }
    let (alloc, task) = target(cx)?;
    let body = json!({ "TaskName": task, "AllTasks": all });
    act(cx, &["client", "allocation", alloc.text("ID"), "restart"], &body, "restarting the allocation")
}

/// A write whose success needs no words.
fn act(cx: &mut Cx<'_>, segments: &[&str], body: &Value, doing: &str) -> Result<Exit, Failure> {
    let answer = cx.client.put(&path(segments), &[], Some(body)).map_err(Failure::call(doing))?;
    if cx.on("json") {
        cx.say_json(&answer)?;
    }
    Ok(Exit::Done)
}

fn stop(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(1, 1, "one argument: <allocation>")?;
    let alloc = find::allocation(cx, operands.first().map_or("", String::as_str))?;
    let hurry = if cx.on("no-shutdown-delay") { "true" } else { "" };
    let path = path(&["allocation", alloc.text("ID"), "stop"]);
    let answer = cx.client.put(&path, &[("no_shutdown_delay", hurry)], None).map_err(Failure::call("stopping the allocation"))?;
    if !cx.on("detach") {
        return monitor::follow(cx, answer.text("EvalID"));
    }
    if cx.on("json") {
        cx.say_json(&answer)?;
    } else {
        cx.say(answer.text("EvalID"))?;
    }
    Ok(Exit::Done)
}
