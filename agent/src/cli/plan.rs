//! `job plan|validate`: what a job file would do, without doing it.
//!
//! `job plan` always asks for the diff, because its exit status follows from it: 0 = no allocation would be started or stopped,
//! 1 = some would, 255 = nobody knows. Bounds and reading of the file: `job run`'s.
//! Source: upstream v1.10.0 command/job_{plan,validate}.go (behaviour only); `spec/http-api.md` 8.2.

use serde_json::{Value, json};

use super::answer::Answer as _;
use super::client::path;
use super::table::{ago, time};
use super::{Cx, Exit, Failure, PROGRAM, Verb, diff, eval, job};
use crate::config::flags::Flag;

pub(super) const PLAN: Verb = Verb {
    name: PLAN_NAME,
    operands: "<path>",
    synopsis: "Show what running a job would change",
    about: "The file is a job in JSON; \"-\" reads it from standard input. Nothing is changed.\n\
            Exit status 0: no allocation would be started or stopped; 1: some would; 255: the plan could not be made.",
    flags: &[
        Flag::switch("diff", "Show what differs from the job as it is (on unless -diff=false)"),
        Flag::switch("verbose", "Show also what is inside new and deleted groups and tasks"),
    ],
    run: plan,
};

/// The one verb whose failures have a status of their own.
pub(super) const PLAN_NAME: &str = "job plan";

pub(super) const VALIDATE: Verb = Verb {
    name: "job validate",
    operands: "<path>",
    synopsis: "Check a job file",
    about: "The file is a job in JSON; \"-\" reads it from standard input. The agent checks it, and keeps nothing.",
    flags: &[],
    run: validate,
};

fn plan(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(1, 1, "one argument: <path>")?;
    let name = operands.first().map_or("", String::as_str);
    let job = job::read(cx, name)?;
    if job.text("ID").is_empty() {
        return Err(Failure::new("Error planning the job: it has no ID"));
    }
    let body = json!({ "Job": job, "Diff": true });
    let plan = cx.client.put(&path(&["job", job.text("ID"), "plan"]), &[], Some(&body)).map_err(Failure::call("planning the job"))?;
    if cx.on("json") {
        cx.say_json(&plan)?;
        return Ok(outcome(&plan));
    }
    if cx.flags.value("diff") != Some("false") {
        let verbose = cx.on("verbose");
        cx.say(format!("{}\n", diff::text(plan.at("Diff"), verbose)))?;
    }
    cx.say(format!("Scheduler dry-run:\n{}\n", dry_run(cx, &plan, &job)))?;
    let warnings = plan.text("Warnings");
    if !warnings.is_empty() {
        cx.say(format!("Job Warnings:\n{warnings}\n"))?;
    }
    let index = plan.int("JobModifyIndex");
    cx.say(format!(
        "Job Modify Index: {index}\nTo run the job only if nobody has changed it since:\n\n{PROGRAM} job run -check-index {index} {name}"
    ))?;
    Ok(outcome(&plan))
}

fn outcome(plan: &Value) -> Exit {
    let moves = ["Stop", "Place", "Migrate", "DestructiveUpdate", "Canary"];
    let is_moved = |updates: &Value| moves.iter().any(|what| updates.int(what) > 0);
    let changes = plan.at("Diff").text("Type") != "None";
    if changes && plan.at("Annotations").members("DesiredTGUpdates").into_values().any(is_moved) { Exit::Changes } else { Exit::Done }
}

/// What the scheduler would make of it.
fn dry_run(cx: &Cx<'_>, plan: &Value, job: &Value) -> String {
    let failed = plan.members("FailedTGAllocs");
    let mut lines = match (failed.is_empty(), job.text("Type")) {
        (true, _) => vec!["- All tasks successfully allocated.".to_owned()],
        (false, "system") => vec!["- WARNING: Failed to place allocations on all nodes.".to_owned()],
        (false, _) => vec!["- WARNING: Failed to place all allocations.".to_owned()],
    };
    for (group, metrics) in failed {
        lines.push(format!("  {}", eval::failed_group(group, metrics)));
        lines.extend(eval::reasons(metrics).lines().map(|line| format!("  {line}")));
        lines.push(String::new());
    }
    if lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    let next = plan.stamp("NextPeriodicLaunch");
    if !next.is_unset() && !job.at("ParameterizedJob").is_object() {
        lines.push(format!("- If submitted now, next periodic launch would be at {} ({}).", time(next), ago(next, cx.now())));
    }
    lines.join("\n")
}

fn validate(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(1, 1, "one argument: <path>")?;
    let job = job::read(cx, operands.first().map_or("", String::as_str))?;
    let answer = cx.client.put("/v1/validate/job", &[], Some(&json!({ "Job": job }))).map_err(Failure::call("validating the job"))?;
    let fault = answer.text("Error");
    if cx.on("json") {
        cx.say_json(&answer)?;
    } else if !fault.is_empty() {
        cx.note(format!("Job validation errors:\n{}", fault.trim_end()))?;
    } else {
        let warnings = answer.text("Warnings");
        if !warnings.is_empty() {
            cx.note(format!("Job Warnings:\n{warnings}\n"))?;
        }
        cx.say("Job validation successful")?;
    }
    Ok(if fault.is_empty() { Exit::Done } else { Exit::Failed })
}
