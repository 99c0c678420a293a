//! `deployment list|status|promote|fail|pause|resume`, and following a deployment to its end.
//!
//! [`Progress`] is pure: each look at the deployment gives the lines that are new, so an output that is no terminal is not flooded.
//! [`follow`] asks with blocking queries: the agent answers when the deployment has changed, and nothing sleeps here. It ends with the
//! deployment, or when only a user can go on (canaries are healthy and wait to be promoted). A failure that registered an older
//! version is followed into that version's deployment.
//! Source: upstream v1.10.0 command/deployment_{list,status,promote,fail,pause,resume}.go, monitor.go (behaviour only);
//! `spec/http-api.md` 8.

use serde_json::{Value, json};

use super::answer::{Answer as _, items};
use super::client::path;
use super::job::{DETACH, VERBOSE};
use super::table::{Ids, Pairs, Table, quoted, time};
use super::{Cx, Exit, Failure, PROGRAM, Verb, find, monitor};
use crate::config::flags::Flag;

/// Longest time between two looks, as the API takes it; upstream's default of `-wait`.
const WAIT: &str = "2s";
/// How long a rollback may take to be placed.
const ROLLBACK_WAIT: &str = "10s";
/// What the description of a failure says when an older version was registered again.
const ROLLS_BACK: &str = " - rolling back to job version ";

const OPERAND: &str = "one argument: <deployment>";

pub(super) const LIST: Verb = Verb {
    name: "deployment list",
    operands: "",
    synopsis: "List deployments",
    about: "",
    flags: &[Flag::value("filter", "expression", "Only those this is true of: Status == \"failed\""), VERBOSE],
    run: list,
};

pub(super) const STATUS: Verb = Verb {
    name: "deployment status",
    operands: "[<deployment>]",
    synopsis: "List deployments, or show how far one has come",
    about: "With -monitor the exit status is 1 when the deployment did not succeed.",
    flags: &[
        Flag::switch("monitor", "Follow the deployment until it is over"),
        VERBOSE,
        Flag::value("wait", "duration", "Ask again after this time at the latest, with -monitor"),
    ],
    run: status,
};

pub(super) const PROMOTE: Verb = Verb {
    name: "deployment promote",
    operands: "<deployment>",
    synopsis: "Accept the canaries of a deployment, so that the rest follows",
    about: "",
    flags: &[DETACH, Flag::value("group", "name", "Only this group; may be given several times. Default: all"), VERBOSE],
    run: promote,
};

pub(super) const FAIL: Verb = Verb {
    name: "deployment fail",
    operands: "<deployment>",
    synopsis: "End a deployment as failed",
    about: "A job with auto_revert goes back to its newest stable version.",
    flags: &[DETACH, VERBOSE],
    run: fail,
};

pub(super) const PAUSE: Verb = Verb {
    name: "deployment pause",
    operands: "<deployment>",
    synopsis: "Hold a deployment: nothing more is placed for it",
    about: "",
    flags: &[VERBOSE],
    run: pause,
};

pub(super) const RESUME: Verb = Verb {
    name: "deployment resume",
    operands: "<deployment>",
    synopsis: "Let a deployment that was held go on",
    about: "",
    flags: &[DETACH, VERBOSE],
    run: resume,
};

fn list(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    cx.operands(0, 0, "no arguments")?;
    let params = [("filter", cx.flags.value("filter").unwrap_or(""))];
    let mut found = cx.client.get("/v1/deployments", &params).map_err(Failure::call("listing deployments"))?;
    // The agent gives them in the order in which they were made; people look for the newest.
    if let Value::Array(all) = &mut found {
        all.sort_by_key(|deployment| core::cmp::Reverse(deployment.int("CreateIndex")));
    }
    if cx.on("json") {
        cx.say_json(&found)?;
    } else {
        let text = listing(items(&found), cx.ids());
        cx.say(text)?;
    }
    Ok(Exit::Done)
}

/// A table of deployments.
pub(super) fn listing(deployments: &[Value], ids: Ids) -> String {
    if deployments.is_empty() {
        return "No deployments found".to_owned();
    }
    let mut table = Table::new("ID|Job ID|Job Version|Status|Description");
    for deployment in deployments {
        table.row([
            ids.show(deployment.text("ID")),
            deployment.text("JobID").into(),
            deployment.int("JobVersion").to_string(),
            deployment.text("Status").into(),
            deployment.text("StatusDescription").into(),
        ]);
    }
    table.to_string()
}

/// The deployment the only operand names.
fn named(cx: &Cx<'_>) -> Result<Value, Failure> {
    let operands = cx.operands(1, 1, OPERAND)?;
    let (typed, ids) = (operands.first().map_or("", |typed| typed.trim()), cx.ids());
    find::one(cx, "/v1/deployments", "deployment", typed, |found| listing(found, ids))
}

fn status(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    if cx.operands(0, 1, "at most one argument: <deployment>")?.is_empty() {
        return list(cx);
    }
    let deployment = named(cx)?;
    if cx.on("monitor") {
        let end = follow(cx, deployment.text("ID"), true)?;
        return Ok(end.unwrap_or(Exit::Done));
    }
    if cx.on("json") {
        cx.say_json(&deployment)?;
    } else {
        let text = page(&deployment, cx.ids());
        cx.say(text)?;
    }
    Ok(Exit::Done)
}

/// What a job's status page says of its latest deployment: no job, it stands above.
pub(super) fn summary(deployment: &Value, ids: Ids) -> String {
    let mut pairs = Pairs::default();
    pairs
        .add("ID", ids.show(deployment.text("ID")))
        .add("Status", deployment.text("Status"))
        .add("Description", deployment.text("StatusDescription"));
    with_groups(pairs, deployment)
}

fn page(deployment: &Value, ids: Ids) -> String {
    let mut pairs = Pairs::default();
    pairs
        .add("ID", ids.show(deployment.text("ID")))
        .add("Job ID", deployment.text("JobID"))
        .add("Job Version", deployment.int("JobVersion").to_string())
        .add("Status", deployment.text("Status"))
        .add("Description", deployment.text("StatusDescription"));
    with_groups(pairs, deployment)
}

fn with_groups(pairs: Pairs, deployment: &Value) -> String {
    let table = groups(deployment);
    if table.is_empty() { pairs.to_string() } else { format!("{pairs}\n\nDeployed\n{table}") }
}

/// How far each group has come; columns that say nothing of any group are left out.
fn groups(deployment: &Value) -> Table {
    let groups = deployment.members("TaskGroups");
    let any = |is: fn(&Value) -> bool| groups.values().any(|state| is(state));
    let reverts = any(|state| state.flag("AutoRevert"));
    let canaries = any(|state| state.int("DesiredCanaries") > 0);
    let deadline = any(|state| state.int("ProgressDeadline") != 0);
    let columns = [
        (true, "Task Group"),
        (reverts, "Auto Revert"),
        (canaries, "Promoted"),
        (true, "Desired"),
        (canaries, "Canaries"),
        (true, "Placed"),
        (true, "Healthy"),
        (true, "Unhealthy"),
        (deadline, "Progress Deadline"),
    ];
    let shown = || columns.iter().filter(|(is_shown, _)| *is_shown).map(|(_, heading)| *heading);
    let mut table = Table::new(&shown().collect::<Vec<_>>().join("|"));
    for (name, state) in groups {
        let or_none = |text: String| if text.is_empty() { "N/A".to_owned() } else { text };
        let cell = |heading| match heading {
            "Task Group" => name.to_owned(),
            "Auto Revert" => state.flag("AutoRevert").to_string(),
            "Promoted" if state.int("DesiredCanaries") == 0 => "N/A".to_owned(),
            "Promoted" => state.flag("Promoted").to_string(),
            "Desired" => state.int("DesiredTotal").to_string(),
            "Canaries" => state.int("DesiredCanaries").to_string(),
            "Placed" => state.int("PlacedAllocs").to_string(),
            "Healthy" => state.int("HealthyAllocs").to_string(),
            "Unhealthy" => state.int("UnhealthyAllocs").to_string(),
            _ => or_none(time(state.stamp("RequireProgressBy"))),
        };
        table.push(shown().map(cell).collect());
    }
    table
}

/// What was last seen of a deployment.
#[derive(Debug, Default)]
pub(super) struct Progress {
    description: String,
    groups: String,
}

impl Progress {
    /// What is new since the last look, a line each; `at` is the time as it is shown.
    pub(super) fn look(&mut self, deployment: &Value, at: &str) -> Vec<String> {
        let mut lines = Vec::new();
        let description = deployment.text("StatusDescription");
        // At the end the conclusion tells why.
        if self.description != description && !is_over(deployment) {
            description.clone_into(&mut self.description);
            lines.push(format!("{at}: {description}"));
        }
        let groups = groups(deployment);
        let groups = if groups.is_empty() { String::new() } else { groups.to_string() };
        if self.groups != groups {
            lines.extend(groups.lines().map(str::to_owned));
            self.groups = groups;
        }
        lines
    }
}

/// True when nothing more comes of it by itself: canaries are as healthy as they can be, and somebody has to look at them.
fn awaits_promotion(deployment: &Value) -> bool {
    let groups = deployment.members("TaskGroups");
    let mut waiting = groups.values().filter(|state| state.int("DesiredCanaries") > 0 && !state.flag("Promoted")).peekable();
    waiting.peek().is_some()
        && waiting.all(|state| !state.flag("AutoPromote") && state.int("HealthyAllocs") >= state.int("DesiredCanaries"))
}

/// True when it is over.
fn is_over(deployment: &Value) -> bool {
    matches!(deployment.text("Status"), "successful" | "failed" | "cancelled" | "blocked")
}

/// Follows deployment `id` to its end and prints what happens; `None` when it waits for a user. With `-json` nothing is printed but,
/// if `is_asked` for, the deployment at its end; a rollback is not followed then.
pub(super) fn follow(cx: &mut Cx<'_>, id: &str, is_asked: bool) -> Result<Option<Exit>, Failure> {
    let mut id = id.to_owned();
    let mut has_failed = false;
    loop {
        let deployment = finish(cx, &id)?;
        let (ids, quiet, at) = (cx.ids(), cx.on("json"), time(cx.now()));
        let (shown, status, why) = (quoted(&ids.show(&id)), deployment.text("Status"), deployment.text("StatusDescription"));
        let told = if is_over(&deployment) {
            format!("==> {at}: Deployment {shown} finished with status {}: {why}", quoted(status))
        } else {
            format!(
                "==> {at}: Deployment {shown} waits to be promoted. If its canaries are good:\n\n{PROGRAM} deployment promote {}\n\n\
                 If they are not: {PROGRAM} deployment fail {}",
                ids.show(&id),
                ids.show(&id)
            )
        };
        if !quiet {
            cx.say(told)?;
        }
        let end = match status {
            _ if !is_over(&deployment) => None,
            "successful" => Some(if has_failed { Exit::Failed } else { Exit::Done }),
            "failed" if !quiet && why.contains(ROLLS_BACK) => {
                has_failed = true;
                if let Some(next) = rollback(cx, &deployment)? {
                    id = next;
                    continue;
                }
                cx.say(format!("    {at}: The older version has no deployment to follow"))?;
                Some(Exit::Failed)
            }
            _ => Some(Exit::Failed),
        };
        match (quiet, is_asked) {
            (true, true) => cx.say_json(&deployment)?,
            (true, false) if end == Some(Exit::Failed) => cx.note(format!("Deployment {shown} {status}: {why}"))?,
            _ => {}
        }
        return Ok(end);
    }
}

/// The deployment of the version that was registered again because `failed` did.
fn rollback(cx: &Cx<'_>, failed: &Value) -> Result<Option<String>, Failure> {
    let index = failed.int("ModifyIndex").to_string();
    let params = [("namespace", failed.text("Namespace")), ("index", &index), ("wait", ROLLBACK_WAIT)];
    let latest = cx.client.get(&path(&["job", failed.text("JobID"), "deployment"]), &params);
    let latest = latest.map_err(Failure::call("looking for the deployment of the older version"))?;
    Ok(Some(latest.text("ID").to_owned()).filter(|id| !id.is_empty() && id != failed.text("ID")))
}

/// Looks at deployment `id` until it is over or waits for a user.
fn finish(cx: &mut Cx<'_>, id: &str) -> Result<Value, Failure> {
    let quiet = cx.on("json");
    if !quiet {
        let line = format!("==> {}: Monitoring deployment {}", time(cx.now()), quoted(&cx.ids().show(id)));
        cx.say(line)?;
    }
    let (mut progress, mut index) = (Progress::default(), String::new());
    loop {
        let wait = if index.is_empty() { "" } else { cx.flags.value("wait").unwrap_or(WAIT) };
        let params = [("index", index.as_str()), ("wait", wait)];
        let deployment = cx.client.get(&path(&["deployment", id]), &params).map_err(Failure::call("reading the deployment"))?;
        if !quiet {
            for line in progress.look(&deployment, &time(cx.now())) {
                cx.say(format!("    {line}"))?;
            }
        }
        if is_over(&deployment) || awaits_promotion(&deployment) {
            return Ok(deployment);
        }
        index = deployment.int("ModifyIndex").max(1).to_string();
    }
}

/// Asks for what `body` says of `deployment`, besides its ID.
fn change(cx: &Cx<'_>, verb: &str, doing: &str, deployment: &Value, body: Value) -> Result<Value, Failure> {
    let id = deployment.text("ID");
    let mut body = body;
    if let Some(members) = body.as_object_mut() {
        members.insert("DeploymentID".to_owned(), id.into());
    }
    let params = [("namespace", deployment.text("Namespace"))];
    cx.client.put(&path(&["deployment", verb, id]), &params, Some(&body)).map_err(Failure::call(doing))
}

/// The answer to a change; true when there is an evaluation to follow.
fn told(cx: &mut Cx<'_>, answer: &Value, done: &str) -> Result<bool, Failure> {
    let evaluation = answer.text("EvalID");
    let follows = !cx.on("detach") && !evaluation.is_empty();
    if cx.on("json") {
        if !follows {
            cx.say_json(answer)?;
        }
        return Ok(follows);
    }
    if !done.is_empty() {
        cx.say(done)?;
    }
    match (follows, evaluation.is_empty()) {
        (true, _) if !done.is_empty() => cx.say("")?,
        (false, false) => cx.say(format!("Evaluation ID: {evaluation}"))?,
        _ => {}
    }
    Ok(follows)
}

fn promote(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let deployment = named(cx)?;
    let groups: Vec<&str> = cx.flags.values("group").collect();
    let body = if groups.is_empty() { json!({"All": true}) } else { json!({"Groups": groups}) };
    let answer = change(cx, "promote", "promoting the deployment", &deployment, body)?;
    if told(cx, &answer, "")? { monitor::follow(cx, answer.text("EvalID")) } else { Ok(Exit::Done) }
}

fn fail(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let deployment = named(cx)?;
    let id = deployment.text("ID");
    let answer = change(cx, "fail", "failing the deployment", &deployment, json!({}))?;
    let done = match answer.at("RevertedJobVersion").as_u64() {
        Some(version) => format!("Deployment {} failed. Auto-reverted to job version {version}.", quoted(id)),
        None => format!("Deployment {} failed", quoted(id)),
    };
    if !told(cx, &answer, &done)? {
        return Ok(Exit::Done);
    }
    let (exit, next) = monitor::evaluation(cx, answer.text("EvalID"))?;
    // That this one has failed is what was asked for.
    if next.is_empty() || next == id {
        return Ok(exit);
    }
    Ok(follow(cx, &next, false)?.unwrap_or(exit))
}

fn pause(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let deployment = named(cx)?;
    let answer = change(cx, "pause", "pausing the deployment", &deployment, json!({"Pause": true}))?;
    if cx.on("json") {
        cx.say_json(&answer)?;
    } else {
        cx.say(format!("Deployment {} paused", quoted(deployment.text("ID"))))?;
    }
    Ok(Exit::Done)
}

fn resume(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let deployment = named(cx)?;
    let answer = change(cx, "pause", "resuming the deployment", &deployment, json!({"Pause": false}))?;
    let done = format!("Deployment {} resumed", quoted(deployment.text("ID")));
    if told(cx, &answer, &done)? { monitor::follow(cx, answer.text("EvalID")) } else { Ok(Exit::Done) }
}
