//! `eval list|status`, and why an evaluation could not place an allocation.
//!
//! Source: upstream v1.10.5 command/eval_status.go and monitor.go (behaviour only); fields: `spec/http-api.md` 6.1, 2.2.

use std::collections::BTreeSet;

use serde_json::Value;

use super::answer::{Answer as _, items};
use super::client::path;
use super::table::{Ids, Pairs, Table, quoted, time, when};
use super::{Cx, Exit, Failure, Verb, find, monitor};
use crate::config::flags::Flag;
use dunlin_hal::clock::Wall;

pub(super) const STATUS: Verb = Verb {
    name: "eval status",
    operands: "<evaluation>",
    synopsis: "Show an evaluation and why it could not place allocations",
    about: "",
    flags: &[
        Flag::switch("monitor", "Follow the evaluation until it is finished"),
        Flag::switch("verbose", "Show whole identifiers and exact times"),
    ],
    run: status,
};

pub(super) const LIST: Verb = Verb {
    name: "eval list",
    operands: "",
    synopsis: "List evaluations",
    about: "-filter excludes -job and -status.",
    flags: &[
        Flag::value("filter", "expression", "Only those this is true of: TriggeredBy == \"job-register\""),
        Flag::value("job", "job", "Only those of this job"),
        Flag::value("page-token", "token", "Begin where the page before ended"),
        Flag::value("per-page", "n", "At most so many"),
        Flag::value("status", "status", "Only those that are so"),
        Flag::switch("verbose", "Show whole identifiers"),
    ],
    run: list,
};

fn list(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    cx.operands(0, 0, "no arguments")?;
    let size = cx.number("per-page")?.map_or_else(String::new, |n| n.to_string());
    let given = |flag| cx.flags.value(flag).unwrap_or("");
    let params = [
        ("filter", given("filter")),
        ("job", given("job")),
        ("status", given("status")),
        ("per_page", &size),
        ("next_token", given("page-token")),
    ];
    let (evals, next) = cx.client.page("/v1/evaluations", &params).map_err(Failure::call("listing evaluations"))?;
    if cx.on("json") {
        cx.say_json(&evals)?;
    } else if items(&evals).is_empty() {
        cx.say("No evals found")?;
    } else {
        let text = listing(items(&evals), cx.ids());
        cx.say(text)?;
    }
    if !next.is_empty() {
        let more = format!("\nResults have been paginated. To get the next page, add: -page-token {next}");
        if cx.on("json") { cx.note(more)? } else { cx.say(more)? }
    }
    Ok(Exit::Done)
}

fn status(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(1, 1, "one argument: <evaluation>")?;
    let typed = operands.first().map_or("", String::as_str);
    let ids = cx.ids();
    let stub = find::one(cx, "/v1/evaluations", "evaluation", typed, |found| listing(found, ids))?;
    if cx.on("monitor") {
        return monitor::follow(cx, stub.text("ID"));
    }
    let params = [("namespace", stub.text("Namespace"))];
    let eval = cx.client.get(&path(&["evaluation", stub.text("ID")]), &params).map_err(Failure::call("reading the evaluation"))?;
    if cx.on("json") {
        cx.say_json(&eval)?;
    } else {
        let text = page(&eval, cx.now(), cx.on("verbose"));
        cx.say(text)?;
    }
    Ok(Exit::Done)
}

/// A table of evaluations of any job.
pub(super) fn listing(evals: &[Value], ids: Ids) -> String {
    let mut table = Table::new("ID|Priority|Triggered By|Job ID|Namespace|Node ID|Status|Placement Failures");
    for eval in evals {
        table.row([
            ids.show(eval.text("ID")),
            eval.int("Priority").to_string(),
            eval.text("TriggeredBy").into(),
            eval.text("JobID").into(),
            eval.text("Namespace").into(),
            ids.show(eval.text("NodeID")),
            eval.text("Status").into(),
            failures(eval),
        ]);
    }
    table.to_string()
}

/// Evaluations of one job.
pub(super) fn table(evals: &[Value], ids: Ids) -> Table {
    let mut table = Table::new("ID|Priority|Triggered By|Status|Placement Failures");
    for eval in evals {
        let status = eval.text("Status").to_owned();
        table.row([ids.show(eval.text("ID")), eval.int("Priority").to_string(), eval.text("TriggeredBy").into(), status, failures(eval)]);
    }
    table
}

/// Whether the evaluation failed to place something.
fn failures(eval: &Value) -> String {
    match eval.text("Status") {
        "blocked" => "N/A - In Progress".into(),
        _ => (!eval.members("FailedTGAllocs").is_empty()).to_string(),
    }
}

fn page(eval: &Value, now: Wall, verbose: bool) -> String {
    let ids = Ids::of(verbose);
    let mut pairs = Pairs::default();
    let status = eval.text("Status");
    let description = Some(eval.text("StatusDescription")).filter(|text| !text.is_empty()).unwrap_or(status);
    pairs
        .add("ID", ids.show(eval.text("ID")))
        .add("Create Time", when(eval.wall("CreateTime"), now, verbose))
        .add("Modify Time", when(eval.wall("ModifyTime"), now, verbose))
        .add("Status", status)
        .add("Status Description", description)
        .add("Type", eval.text("Type"))
        .add("TriggeredBy", eval.text("TriggeredBy"))
        .add("Job ID", eval.text("JobID"))
        .add("Namespace", eval.text("Namespace"));
    match eval.text("TriggeredBy") {
        "node-update" => pairs.add("Node ID", eval.text("NodeID")),
        "max-plan-attempts" => pairs.add("Previous Eval", eval.text("PreviousEval")),
        _ => &mut pairs,
    };
    pairs.add("Priority", eval.int("Priority").to_string()).add("Placement Failures", failures(eval));
    if !eval.stamp("WaitUntil").is_unset() {
        pairs.add("Wait Until", time(eval.stamp("WaitUntil")));
    }
    if verbose {
        pairs
            .add("Previous Eval", eval.text("PreviousEval"))
            .add("Next Eval", eval.text("NextEval"))
            .add("Blocked Eval", eval.text("BlockedEval"));
    }
    let mut text = pairs.to_string();
    let failed = eval.members("FailedTGAllocs");
    if !failed.is_empty() {
        text.push_str("\n\nFailed Placements");
        for (group, metrics) in failed {
            text.push_str(&format!("\n{}\n{}\n", failed_group(group, metrics), reasons(metrics)));
        }
        let blocked = eval.text("BlockedEval");
        if !blocked.is_empty() {
            text.push_str(&format!("\n{}", waiting(&ids.show(blocked))));
        }
    }
    text.trim_end().to_owned()
}

/// What becomes of allocations that could not be placed.
pub(super) fn waiting(blocked: &str) -> String {
    format!("Evaluation {} waits for capacity to place the rest", quoted(blocked))
}

/// How many allocations of a group could not be placed.
pub(super) fn failed_group(group: &str, metrics: &Value) -> String {
    let failed = metrics.int("CoalescedFailures").saturating_add(1);
    format!("Task Group {} (failed to place {failed} allocation{}):", quoted(group), if failed == 1 { "" } else { "s" })
}

/// Why nodes were passed over, a line each, indented.
pub(super) fn reasons(metrics: &Value) -> String {
    let counts = |member| metrics.members(member).into_iter().filter_map(|(name, n)| Some((quoted(name), n.as_i64()?)));
    let mut lines = Vec::new();
    if metrics.int("NodesEvaluated") == 0 {
        lines.push("No eligible nodes to evaluate".to_owned());
    }
    lines.extend(counts("NodesAvailable").filter(|(_, n)| *n == 0).map(|(dc, _)| format!("Datacenter {dc}: no nodes available")));
    lines.extend(counts("ClassFiltered").map(|(class, n)| format!("Class {class}: {} excluded by filter", nodes(n))));
    lines.extend(counts("ConstraintFiltered").map(|(text, n)| format!("Constraint {text}: {} excluded by filter", nodes(n))));
    match metrics.int("NodesExhausted") {
        0 => {}
        n => lines.push(format!("Resources exhausted on {}", nodes(n))),
    }
    lines.extend(counts("ClassExhausted").map(|(class, n)| format!("Class {class} exhausted on {}", nodes(n))));
    lines.extend(counts("DimensionExhausted").map(|(dimension, n)| format!("Dimension {dimension} exhausted on {}", nodes(n))));
    lines.extend(metrics.items("QuotaExhausted").iter().filter_map(Value::as_str).map(|q| format!("Quota limit hit {}", quoted(q))));
    lines.iter().map(|line| format!("  * {line}")).collect::<Vec<_>>().join("\n")
}

fn nodes(n: i64) -> String {
    format!("{n} node{}", if n == 1 { "" } else { "s" })
}

/// The scores of the nodes that were compared; empty when none were.
pub(super) fn scores(metrics: &Value) -> String {
    let nodes = metrics.items("ScoreMetaData");
    let names: BTreeSet<&str> = nodes.iter().flat_map(|node| node.members("Scores").into_keys()).collect();
    let mut table = Table::new(&format!("Node|{}final score", names.iter().map(|name| format!("{name}|")).collect::<String>()));
    for node in nodes {
        let mut row = vec![node.text("NodeID").to_owned()];
        row.extend(names.iter().map(|name| score(node.at("Scores").number(name))));
        row.push(score(node.number("NormScore")));
        table.push(row);
    }
    if table.is_empty() { String::new() } else { table.to_string() }
}

/// Three decimals at most, without trailing zeros.
fn score(n: f64) -> String {
    let text = format!("{n:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
