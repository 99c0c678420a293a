//! `job revert|scale|eval`: changes of a job that is registered already.
//!
//! Source: upstream v1.10.0 command/job_{revert,scale,eval}.go (behaviour only); `spec/http-api.md` 8.2.

use serde_json::{Value, json};

use super::answer::Answer as _;
use super::client::path;
use super::find::{self, JobName};
use super::job::{DETACH, VERBOSE};
use super::table::quoted;
use super::{Cx, Exit, Failure, PROGRAM, Verb, monitor};
use crate::config::flags::Flag;

/// What the scaling event of `job scale` says of itself.
const SCALED_BY: &str = "submitted using the Nomad CLI";

pub(super) const REVERT: Verb = Verb {
    name: "job revert",
    operands: "<job> <version>",
    synopsis: "Register an older version of a job again",
    about: "job history shows which versions are kept.",
    flags: &[DETACH, VERBOSE],
    run: revert,
};

pub(super) const SCALE: Verb = Verb {
    name: "job scale",
    operands: "<job> [<group>] <count>",
    synopsis: "Change the count of a group of a job",
    about: "The group may be left out of a job that has only one.",
    flags: &[Flag::value("check-index", "index", "Only if the job's modify index is this; 0 = whatever it is"), DETACH, VERBOSE],
    run: scale,
};

pub(super) const EVAL: Verb = Verb {
    name: "job eval",
    operands: "<job>",
    synopsis: "Have the scheduler look at a job again",
    about: "",
    flags: &[DETACH, Flag::switch("force-reschedule", "Replace failed allocations at once, whatever their policy says"), VERBOSE],
    run: evaluate,
};

/// Asks for what `body` says of the job.
fn put(cx: &Cx<'_>, name: &JobName, what: &str, doing: &str, body: &Value) -> Result<Value, Failure> {
    let params = [("namespace", name.namespace.as_str())];
    cx.client.put(&path(&["job", &name.id, what]), &params, Some(body)).map_err(Failure::call(doing))
}

/// Follows the evaluation of `answer`; if that is not wanted, or there is none, says `done` instead.
fn conclude(cx: &mut Cx<'_>, answer: &Value, done: &str) -> Result<Exit, Failure> {
    let evaluation = answer.text("EvalID");
    if !cx.on("detach") && !evaluation.is_empty() {
        return monitor::follow(cx, evaluation);
    }
    if cx.on("json") {
        cx.say_json(answer)?;
    } else if !done.is_empty() {
        cx.say(done)?;
    }
    Ok(Exit::Done)
}

fn warn(cx: &mut Cx<'_>, answer: &Value) -> Result<(), Failure> {
    let warnings = answer.text("Warnings");
    if !warnings.is_empty() {
        cx.note(format!("Job Warnings:\n{warnings}\n"))?;
    }
    Ok(())
}

fn evaluation_line(answer: &Value) -> String {
    let evaluation = answer.text("EvalID");
    if evaluation.is_empty() { String::new() } else { format!("Evaluation ID: {evaluation}") }
}

fn revert(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(2, 2, "two arguments: <job> <version>")?;
    let [typed, version] = operands.as_slice() else { return Ok(Exit::Failed) };
    let Ok(version) = version.parse::<u64>() else {
        return Err(Failure::words(format!("{} is no version: expected a number of those {PROGRAM} job history shows", quoted(version))));
    };
    let name = find::job(cx, typed.trim())?;
    let body = json!({"JobID": name.id, "JobVersion": version});
    let answer = put(cx, &name, "revert", "reverting the job", &body)?;
    warn(cx, &answer)?;
    conclude(cx, &answer, &evaluation_line(&answer))
}

fn scale(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(2, 3, "two or three arguments: <job> [<group>] <count>")?;
    let (typed, group, count) = match operands.as_slice() {
        [typed, group, count] => (typed, group.as_str(), count),
        [typed, count] => (typed, "", count),
        _ => return Ok(Exit::Failed),
    };
    let index = cx.number("check-index")?.unwrap_or(0);
    let Ok(count) = count.parse::<u32>() else {
        return Err(Failure::words(format!("{} is no count: expected a whole number", quoted(count))));
    };
    let name = find::job(cx, typed.trim())?;
    let params = [("namespace", name.namespace.as_str())];
    let now = cx.client.get(&path(&["job", &name.id, "scale"]), &params).map_err(Failure::call("reading the job's counts"))?;
    let group = pick(now.members("TaskGroups").keys().copied(), group)?;
    let body = json!({
        "Count": count,
        "Target": {"Job": name.id, "Group": group},
        "Message": SCALED_BY,
        "JobModifyIndex": index,
    });
    let answer = put(cx, &name, "scale", "scaling the job", &body)?;
    warn(cx, &answer)?;
    let done = format!("Job scale successful\n{}", evaluation_line(&answer));
    conclude(cx, &answer, done.trim_end())
}

/// The group that is meant: the one named, or the only one.
fn pick<'a>(groups: impl Iterator<Item = &'a str>, asked: &str) -> Result<String, Failure> {
    let groups: Vec<&str> = groups.collect();
    match groups.as_slice() {
        [only] if asked.is_empty() => Ok((*only).to_owned()),
        _ if groups.contains(&asked) => Ok(asked.to_owned()),
        _ if asked.is_empty() => Err(Failure::new(format!("Group name required: the job has {}", groups.join(", ")))),
        _ => Err(Failure::new(format!("Group {} not found within job: it has {}", quoted(asked), groups.join(", ")))),
    }
}

fn evaluate(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(1, 1, "one argument: <job>")?;
    let name = find::job(cx, operands.first().map_or("", |typed| typed.trim()))?;
    let body = json!({"JobID": name.id, "EvalOptions": {"ForceReschedule": cx.on("force-reschedule")}});
    let answer = put(cx, &name, "evaluate", "evaluating the job", &body)?;
    let done = format!("Created eval ID: {}", quoted(&cx.ids().show(answer.text("EvalID"))));
    conclude(cx, &answer, &done)
}
