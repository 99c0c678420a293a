//! Following an evaluation until the scheduler is done with it, and then the deployment it belongs to.
//!
//! [`Progress`] is pure: each look at the evaluation and its allocations gives the lines that are new. [`evaluation`] asks again with
//! blocking queries, so nothing sleeps here: the agent answers when the evaluation changes, and after a second at the latest, so
//! that allocation changes are seen too. Follows `NextEval` to the end of the chain.
//! Source: upstream v1.10.5 command/monitor.go (behaviour only); exit 2 when not everything was placed.

use std::collections::BTreeMap;

use serde_json::Value;

use super::answer::{Answer as _, items};
use super::client::path;
use super::table::{Ids, quoted, time};
use super::{Cx, Exit, Failure, deployment, eval};

/// Longest time between two looks, as the API takes it.
const WAIT: &str = "1s";

/// What was last seen of an evaluation.
#[derive(Debug, Default)]
pub(super) struct Progress {
    node: String,
    job: String,
    deployment: String,
    /// Empty before the first look.
    status: String,
    /// Client status by allocation.
    allocs: BTreeMap<String, String>,
}

impl Progress {
    /// What is new since the last look, a line each.
    pub(super) fn look(&mut self, eval: &Value, allocs: &[Value], ids: Ids) -> Vec<String> {
        let mut lines = Vec::new();
        let mut once = |seen: &mut String, now: &str, line: String| {
            if seen.is_empty() && !now.is_empty() {
                now.clone_into(seen);
                lines.push(line);
            }
        };
        let (node, job, deployment) = (eval.text("NodeID"), eval.text("JobID"), eval.text("DeploymentID"));
        once(&mut self.node, node, format!("Evaluation triggered by node {}", quoted(&ids.show(node))));
        once(&mut self.job, job, format!("Evaluation triggered by job {}", quoted(job)));
        once(&mut self.deployment, deployment, format!("Evaluation within deployment: {}", quoted(&ids.show(deployment))));
        for alloc in allocs {
            let (id, status) = (alloc.text("ID"), alloc.text("ClientStatus"));
            let shown = quoted(&ids.show(id));
            let placed = || format!("node {}, group {}", quoted(&ids.show(alloc.text("NodeID"))), quoted(alloc.text("TaskGroup")));
            match self.allocs.insert(id.to_owned(), status.to_owned()) {
                None if alloc.int("CreateIndex") < eval.int("CreateIndex") => {
                    lines.push(format!("Allocation {shown} modified: {}", placed()));
                }
                None if alloc.text("DesiredStatus") == "run" => lines.push(format!("Allocation {shown} created: {}", placed())),
                Some(before) if before != status => {
                    let why = alloc.text("ClientDescription");
                    let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
                    lines.push(format!("Allocation {shown} status changed: {} -> {}{why}", quoted(&before), quoted(status)));
                }
                _ => {}
            }
        }
        let before = if self.status.is_empty() { "pending" } else { &self.status };
        if before != eval.text("Status") {
            lines.push(format!("Evaluation status changed: {} -> {}", quoted(before), quoted(eval.text("Status"))));
        }
        eval.text("Status").clone_into(&mut self.status);
        lines
    }
}

/// What a finished evaluation came to; `at` is the time as it is shown.
fn conclusion(eval: &Value, ids: Ids, at: &str) -> String {
    let (id, status) = (quoted(&ids.show(eval.text("ID"))), quoted(eval.text("Status")));
    let mut text = format!("==> {at}: Evaluation {id} finished with status {status}");
    let failures = eval.members("FailedTGAllocs");
    if failures.is_empty() {
        return text;
    }
    text.push_str(", but not everything could be placed:");
    for (group, metrics) in failures {
        text.push_str(&format!("\n    {at}: {}", eval::failed_group(group, metrics)));
        for reason in eval::reasons(metrics).lines() {
            text.push_str(&format!("\n    {reason}"));
        }
    }
    let blocked = eval.text("BlockedEval");
    if !blocked.is_empty() {
        text.push_str(&format!("\n    {at}: {}", eval::waiting(&ids.show(blocked))));
    }
    text
}

/// Follows evaluation `id`, then its deployment if it has one, and prints what happens. How the deployment ends decides.
/// With `-json` only the finished evaluation is printed.
pub(super) fn follow(cx: &mut Cx<'_>, id: &str) -> Result<Exit, Failure> {
    let (exit, deployment) = evaluation(cx, id)?;
    if deployment.is_empty() {
        return Ok(exit);
    }
    Ok(deployment::follow(cx, &deployment, false)?.unwrap_or(exit))
}

/// Follows evaluation `id` alone; returns also its deployment, empty = none.
pub(super) fn evaluation(cx: &mut Cx<'_>, id: &str) -> Result<(Exit, String), Failure> {
    let (ids, quiet) = (cx.ids(), cx.on("json"));
    let mut id = id.to_owned();
    loop {
        if !quiet {
            let line = format!("==> {}: Monitoring evaluation {}", time(cx.now()), quoted(&ids.show(&id)));
            cx.say(line)?;
        }
        let eval = finish(cx, &id, quiet)?;
        if !quiet {
            cx.say(conclusion(&eval, ids, &time(cx.now())))?;
        } else if eval.text("NextEval").is_empty() {
            cx.say_json(&eval)?;
        }
        match eval.text("NextEval") {
            "" => {
                let exit = if eval.members("FailedTGAllocs").is_empty() { Exit::Done } else { Exit::Unplaced };
                return Ok((exit, eval.text("DeploymentID").to_owned()));
            }
            next => next.clone_into(&mut id),
        }
    }
}

/// Looks at evaluation `id` until it is terminal.
fn finish(cx: &mut Cx<'_>, id: &str, quiet: bool) -> Result<Value, Failure> {
    let ids = cx.ids();
    let (eval_path, allocs_path) = (path(&["evaluation", id]), path(&["evaluation", id, "allocations"]));
    let mut progress = Progress::default();
    let mut index = String::new();
    loop {
        let wait = if index.is_empty() { "" } else { WAIT };
        let eval = cx.client.get(&eval_path, &[("index", &index), ("wait", wait)]).map_err(Failure::call("reading the evaluation"))?;
        if !quiet {
            let allocs = cx.client.get(&allocs_path, &[]).map_err(Failure::call("reading the evaluation's allocations"))?;
            for line in progress.look(&eval, items(&allocs), ids) {
                let line = format!("    {}: {line}", time(cx.now()));
                cx.say(line)?;
            }
        }
        if matches!(eval.text("Status"), "complete" | "failed" | "canceled") {
            return Ok(eval);
        }
        index = eval.int("ModifyIndex").max(1).to_string();
    }
}
