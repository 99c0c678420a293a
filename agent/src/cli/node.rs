//! `node status`: the device itself, its resources and what runs on it.
//!
//! Source: upstream v1.10.5 command/node_status.go (behaviour only; container storage rows are left out);
//! fields: `spec/http-api.md` 4.1 and 8.2.

use dunlin_hal::clock::Wall;
use serde_json::Value;

use super::answer::{Answer as _, items};
use super::client::path;
use super::table::{Ids, Pairs, Table, bytes, decimal, mebibytes, time};
use super::{Cx, Exit, Failure, Verb, alloc, find};
use crate::config::flags::Flag;

pub(super) const STATUS: Verb = Verb {
    name: "node status",
    operands: "[<node>]",
    synopsis: "List nodes, or show one with its resources and allocations",
    about: "",
    flags: &[
        Flag::switch("allocs", "In the list: the number of running allocations"),
        Flag::value("filter", "expression", "In the list: only nodes that match"),
        Flag::switch("os", "In the list: the operating system"),
        Flag::switch("quiet", "In the list: only identifiers"),
        Flag::switch("self", "The node of the agent that is asked"),
        Flag::switch("short", "Only the node itself and its allocations"),
        Flag::switch("stats", "Also detailed resource use"),
        Flag::switch("verbose", "Show whole identifiers, exact times, attributes"),
    ],
    run: status,
};

fn status(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(0, 1, "at most one argument: <node>")?;
    let typed = match operands.first() {
        Some(typed) => typed.clone(),
        None if cx.on("self") => own_id(cx)?,
        None => return list(cx),
    };
    let ids = cx.ids();
    let stub = find::one(cx, "/v1/nodes", "node", &typed, |found| listing(found, ids))?;
    let node = cx.client.get(&path(&["node", stub.text("ID")]), &[]).map_err(Failure::call("reading the node"))?;
    if cx.on("json") {
        cx.say_json(&node)?;
        return Ok(Exit::Done);
    }
    show(cx, &node)
}

/// The node of the agent that is asked.
fn own_id(cx: &Cx<'_>) -> Result<String, Failure> {
    let agent = cx.client.get("/v1/agent/self", &[]).map_err(Failure::call("asking the agent for its node"))?;
    match agent.at("stats").at("client").text("node_id") {
        "" => Err(Failure::new("The agent that was asked runs no tasks: it has no node")),
        id => Ok(id.to_owned()),
    }
}

fn list(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let (quiet, verbose, os) = (cx.on("quiet"), cx.on("verbose"), cx.on("os"));
    if quiet && (verbose || cx.on("json")) {
        return Err(Failure::words("-quiet prints identifiers only: give no -verbose or -json with it"));
    }
    let params = [("os", if os { "true" } else { "" }), ("filter", cx.flags.value("filter").unwrap_or(""))];
    let nodes = cx.client.get("/v1/nodes", &params).map_err(Failure::call("listing nodes"))?;
    if cx.on("json") {
        cx.say_json(&nodes)?;
        return Ok(Exit::Done);
    }
    if quiet {
        for node in items(&nodes) {
            cx.say(node.text("ID"))?;
        }
        return Ok(Exit::Done);
    }
    if items(&nodes).is_empty() {
        cx.say("No nodes registered")?;
        return Ok(Exit::Done);
    }
    let mut columns = vec!["ID", "Node Pool", "DC", "Name", "Class"];
    columns.extend(os.then_some("OS"));
    columns.extend(verbose.then_some(["Address", "Version"]).into_iter().flatten());
    columns.extend(["Drain", "Eligibility", "Status"]);
    columns.extend(cx.on("allocs").then_some("Running Allocs"));
    let mut table = Table::new(&columns.join("|"));
    for node in items(&nodes) {
        let mut row = vec![cx.ids().show(node.text("ID"))];
        row.extend(["NodePool", "Datacenter", "Name", "NodeClass"].map(|member| node.text(member).to_owned()));
        row.extend(os.then(|| node.at("Attributes").text("os.name").to_owned()));
        row.extend(verbose.then(|| ["Address", "Version"].map(|member| node.text(member).to_owned())).into_iter().flatten());
        row.push(node.flag("Drain").to_string());
        row.extend(["SchedulingEligibility", "Status"].map(|member| node.text(member).to_owned()));
        if cx.on("allocs") {
            let allocs = allocations(cx, node)?;
            row.push(items(&allocs).iter().filter(is_running).count().to_string());
        }
        table.push(row);
    }
    cx.say(table)?;
    Ok(Exit::Done)
}

/// What an ambiguous prefix could mean.
fn listing(nodes: &[Value], ids: Ids) -> String {
    let mut table = Table::new("ID|DC|Name|Class|Drain|Eligibility|Status");
    for node in nodes {
        table.row([
            ids.show(node.text("ID")),
            node.text("Datacenter").into(),
            node.text("Name").into(),
            node.text("NodeClass").into(),
            node.flag("Drain").to_string(),
            node.text("SchedulingEligibility").into(),
            node.text("Status").into(),
        ]);
    }
    table.to_string()
}

fn allocations(cx: &Cx<'_>, node: &Value) -> Result<Value, Failure> {
    cx.client.get(&path(&["node", node.text("ID"), "allocations"]), &[]).map_err(Failure::call("reading the node's allocations"))
}

/// Passed to `filter`, which lends a reference to the item.
fn is_running(alloc: &&Value) -> bool {
    alloc.text("ClientStatus") == "running"
}

fn show(cx: &mut Cx<'_>, node: &Value) -> Result<Exit, Failure> {
    let (now, verbose, short) = (cx.now(), cx.on("verbose"), cx.on("short"));
    let allocs = allocations(cx, node)?;
    let allocs = items(&allocs);
    let mut pairs = basics(node);
    if short {
        pairs.add("Host Volumes", names(node, "HostVolumes")).add("Host Networks", names(node, "HostNetworks"));
        pairs.add("Drivers", drivers(node));
        cx.say(pairs)?;
        return show_allocs(cx, node, allocs, now, verbose);
    }
    let host = match cx.client.get("/v1/client/stats", &[("node_id", node.text("ID"))]) {
        Ok(host) => host,
        Err(error) => {
            cx.note(format!("Resource use is not shown: {error}"))?;
            Value::Null
        }
    };
    if host.is_object() {
        pairs.add("Uptime", span(host.int("Uptime")));
    }
    if !verbose {
        pairs.add("Host Volumes", names(node, "HostVolumes")).add("Host Networks", names(node, "HostNetworks"));
        pairs.add("Driver Status", drivers(node));
    }
    cx.say(pairs)?;
    if verbose {
        for (heading, table) in [("Host Volumes", volumes(node)), ("Host Networks", networks(node))] {
            if !table.is_empty() {
                cx.section(heading, table)?;
            }
        }
        cx.section("Drivers", driver_table(node))?;
    }
    cx.section("Node Events", events(node, verbose))?;
    let running: Vec<&Value> = allocs.iter().filter(is_running).collect();
    cx.section("Allocated Resources", allocated(node, &running))?;
    let used: Option<Vec<Value>> =
        running.iter().map(|alloc| cx.client.get(&path(&["client", "allocation", alloc.text("ID"), "stats"]), &[]).ok()).collect();
    // One allocation that cannot be measured would make the sum a lie.
    if let Some(used) = used {
        cx.section("Allocation Resource Utilization", used_by_allocs(node, &used))?;
    }
    if host.is_object() {
        cx.section("Host Resource Utilization", used_by_host(node, &host))?;
        if cx.on("stats") {
            cx.section("CPU Stats", cpu_stats(&host))?;
            cx.section("Memory Stats", memory_stats(&host))?;
            cx.section("Disk Stats", disk_stats(&host))?;
        }
    }
    show_allocs(cx, node, allocs, now, verbose)
}

fn show_allocs(cx: &mut Cx<'_>, node: &Value, allocs: &[Value], now: Wall, verbose: bool) -> Result<Exit, Failure> {
    cx.section("Allocations", alloc::table(allocs, now, verbose))?;
    if verbose {
        for member in ["Attributes", "Meta"] {
            let mut pairs = Pairs::default();
            for (name, value) in node.members(member) {
                pairs.add(name, value.as_str().unwrap_or(""));
            }
            if !node.members(member).is_empty() {
                cx.section(member, pairs)?;
            }
        }
    }
    Ok(Exit::Done)
}

fn basics(node: &Value) -> Pairs {
    let mut pairs = Pairs::default();
    pairs
        .add("ID", node.text("ID"))
        .add("Name", node.text("Name"))
        .add("Node Pool", node.text("NodePool"))
        .add("Class", node.text("NodeClass"))
        .add("DC", node.text("Datacenter"))
        .add("Drain", drain(node))
        .add("Eligibility", node.text("SchedulingEligibility"))
        .add("Status", node.text("Status"));
    pairs
}

fn drain(node: &Value) -> String {
    let strategy = node.at("DrainStrategy");
    if !strategy.is_object() {
        return node.flag("Drain").to_string();
    }
    // The specification is flattened into the strategy by some versions.
    let spec = if strategy.at("DrainSpec").is_object() { strategy.at("DrainSpec") } else { strategy };
    let deadline = strategy.stamp("ForceDeadline");
    let until = if spec.int("Deadline") < 0 {
        "; force drain".to_owned()
    } else if deadline.is_unset() {
        "; no deadline".to_owned()
    } else {
        format!("; {} deadline", time(deadline))
    };
    format!("true{until}{}", if spec.flag("IgnoreSystemJobs") { "; ignoring system jobs" } else { "" })
}

fn names(node: &Value, member: &str) -> String {
    node.members(member).into_keys().collect::<Vec<_>>().join(",")
}

/// Names of the drivers that were found, the sick ones marked.
fn drivers(node: &Value) -> String {
    let found = node.members("Drivers").into_iter().filter(|(_, driver)| driver.flag("Detected"));
    found.map(|(name, driver)| format!("{name}{}", if driver.flag("Healthy") { "" } else { " (unhealthy)" })).collect::<Vec<_>>().join(",")
}

fn volumes(node: &Value) -> Table {
    let mut table = Table::new("Name|ReadOnly|Source");
    for (name, volume) in node.members("HostVolumes") {
        table.row([name.into(), volume.flag("ReadOnly").to_string(), volume.text("Path").into()]);
    }
    table
}

fn networks(node: &Value) -> Table {
    let mut table = Table::new("Name|CIDR|Interface|ReservedPorts");
    for (name, network) in node.members("HostNetworks") {
        let [cidr, interface, ports] = ["CIDR", "Interface", "ReservedPorts"].map(|member| network.text(member).to_owned());
        table.row([name.into(), cidr, interface, ports]);
    }
    table
}

fn driver_table(node: &Value) -> Table {
    let mut table = Table::new("Driver|Detected|Healthy|Message|Time");
    for (name, driver) in node.members("Drivers") {
        let [detected, healthy] = ["Detected", "Healthy"].map(|member| driver.flag(member).to_string());
        table.row([name.into(), detected, healthy, driver.text("HealthDescription").into(), time(driver.stamp("UpdateTime"))]);
    }
    table
}

/// Newest first.
fn events(node: &Value, verbose: bool) -> Table {
    let mut table = Table::new(if verbose { "Time|Subsystem|Message|Details" } else { "Time|Subsystem|Message" });
    for event in node.items("Events").iter().rev() {
        let details = event.at("Details");
        let subsystem = match details.text("driver") {
            "" => event.text("Subsystem").to_owned(),
            driver => format!("Driver: {driver}"),
        };
        let mut row = vec![time(event.stamp("Timestamp")), subsystem, event.text("Message").to_owned()];
        if verbose {
            let details = event.members("Details").into_iter().map(|(name, value)| format!("{name}: {}", value.as_str().unwrap_or("")));
            row.push(details.collect::<Vec<_>>().join(", "));
        }
        table.push(row);
    }
    table
}

/// What jobs may use of the node: all but what is reserved. `kind` and `unit` are the members' names.
fn usable(node: &Value, kind: &str, unit: &str) -> i64 {
    node.at("NodeResources").at(kind).int(unit).saturating_sub(node.at("ReservedResources").at(kind).int(unit))
}

fn allocated(node: &Value, running: &[&Value]) -> Table {
    let sum = |member: &str| running.iter().map(|alloc| alloc.at("Resources").int(member)).fold(0, i64::saturating_add);
    let mut table = Table::new("CPU|Memory|Disk|Alloc Count");
    let max = node.int("NodeMaxAllocs");
    table.row([
        format!("{}/{} MHz", sum("CPU"), usable(node, "Cpu", "CpuShares")),
        format!("{}/{}", mebibytes(sum("MemoryMB")), mebibytes(usable(node, "Memory", "MemoryMB"))),
        format!("{}/{}", mebibytes(sum("DiskMB")), mebibytes(usable(node, "Disk", "DiskMB"))),
        if max > 0 { format!("{}/{max}", running.len()) } else { running.len().to_string() },
    ]);
    table
}

fn used_by_allocs(node: &Value, stats: &[Value]) -> Table {
    let usages = || stats.iter().map(|stats| stats.at("ResourceUsage"));
    let cpu: f64 = usages().map(|usage| usage.at("CpuStats").number("TotalTicks")).sum();
    let memory = usages().map(|usage| usage.at("MemoryStats")).map(|memory| match memory.int("Usage") {
        0 => memory.int("RSS"),
        usage => usage,
    });
    let mut table = Table::new("CPU|Memory");
    table.row([
        format!("{:.0}/{} MHz", cpu.floor(), usable(node, "Cpu", "CpuShares")),
        format!("{}/{}", bytes(memory.fold(0, i64::saturating_add)), mebibytes(usable(node, "Memory", "MemoryMB"))),
    ]);
    table
}

fn used_by_host(node: &Value, host: &Value) -> Table {
    let volume = node.at("Attributes").text("unique.storage.volume");
    let disk = host.items("DiskStats").iter().rev().find(|disk| disk.text("Device") == volume);
    let memory = host.at("Memory");
    let mut table = Table::new("CPU|Memory|Disk");
    table.row([
        format!("{:.0}/{} MHz", host.number("CPUTicksConsumed").floor(), node.at("NodeResources").at("Cpu").int("CpuShares")),
        format!("{}/{}", bytes(memory.int("Used")), bytes(memory.int("Total"))),
        disk.map_or_else(|| format!("({volume})"), |disk| format!("{}/{}", bytes(disk.int("Used")), bytes(disk.int("Size")))),
    ]);
    table
}

fn blocks(pairs: impl Iterator<Item = Pairs>) -> String {
    pairs.map(|pairs| pairs.to_string()).collect::<Vec<_>>().join("\n\n")
}

fn percent(n: f64) -> String {
    format!("{}%", decimal(n))
}

fn cpu_stats(host: &Value) -> String {
    blocks(host.items("CPU").iter().map(|cpu| {
        let mut pairs = Pairs::default();
        pairs.add("CPU", cpu.text("CPU"));
        for member in ["User", "System", "Idle"] {
            pairs.add(member, percent(cpu.number(member)));
        }
        pairs
    }))
}

fn memory_stats(host: &Value) -> Pairs {
    let mut pairs = Pairs::default();
    for member in ["Total", "Available", "Used", "Free"] {
        pairs.add(member, bytes(host.at("Memory").int(member)));
    }
    pairs
}

fn disk_stats(host: &Value) -> String {
    blocks(host.items("DiskStats").iter().map(|disk| {
        let mut pairs = Pairs::default();
        pairs.add("Device", disk.text("Device")).add("MountPoint", disk.text("Mountpoint"));
        for member in ["Size", "Used", "Available"] {
            pairs.add(member, bytes(disk.int(member)));
        }
        pairs.add("Used Percent", percent(disk.number("UsedPercent"))).add("Inodes Percent", percent(disk.number("InodesUsedPercent")));
        pairs
    }))
}

/// Seconds as `26h3m5s`, the largest unit being hours.
fn span(seconds: i64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}
