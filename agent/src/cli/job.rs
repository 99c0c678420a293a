//! `job run|status|inspect|stop`.
//!
//! The job file is the JSON form (`{"Job": {..}}` or the bare job); it is posted as it is, only its namespace and region are read.
//! Bound: [`JOB_FILE_BYTES_MAX`]. Never parses HCL: a file in that form is refused with the way to convert it.
//! Source: upstream v1.10.5 command/job_{run,status,inspect,stop}.go (behaviour only); `spec/http-api.md` 8.2.

use std::io::{BufRead as _, Read as _};

use serde_json::{Value, json};

use super::answer::{Answer as _, items, joined};
use super::client::{CallError, path};
use super::find::{self, JobName};
use super::table::{Pairs, Table, quoted, time};
use super::{Cx, Exit, Failure, Verb, children, deployment, eval, monitor};
use crate::config::flags::Flag;

/// Longest job file: the API takes no more either.
pub(super) const JOB_FILE_BYTES_MAX: u64 = 1 << 20;
/// Groups whose placement failures are shown in full.
const FAILED_GROUPS_MAX: usize = 5;

pub(super) const DETACH: Flag = Flag::switch("detach", "Print the evaluation's ID and do not follow it");
pub(super) const VERBOSE: Flag = Flag::switch("verbose", "Show whole identifiers and exact times");

pub(super) const RUN: Verb = Verb {
    name: "job run",
    operands: "<path>",
    synopsis: "Run a new job or update an existing one",
    about: "The file is a job in JSON; \"-\" reads it from standard input. A namespace or region in the file wins over the flags.\n\
            Follows the evaluation, then the deployment if the job has one.\n\
            Exit status 2: the job was accepted, but not all of it could be placed; 1 also: its deployment failed.\n\
            With -json the finished evaluation is printed, with -detach the answer to the registration.",
    flags: &[
        Flag::value("check-index", "index", "Only if the job's modify index is this; 0 = only if there is no such job"),
        DETACH,
        Flag::value("eval-priority", "n", "Priority of the evaluation; default: the job's"),
        Flag::switch("preserve-counts", "Keep the counts of the groups that run now"),
        VERBOSE,
    ],
    run,
};

pub(super) const STATUS: Verb = Verb {
    name: "job status",
    operands: "[<job>]",
    synopsis: "List jobs, or show one with its allocations",
    about: "",
    flags: &[
        Flag::switch("all-allocs", "Also allocations of earlier jobs of this name"),
        Flag::switch("evals", "Also the job's evaluations"),
        Flag::switch("short", "Only the job itself"),
        VERBOSE,
    ],
    run: status,
};

pub(super) const INSPECT: Verb = Verb {
    name: "job inspect",
    operands: "<job>",
    synopsis: "Show a job as it was submitted, with defaults filled in",
    about: "Prints {\"Job\": ..}, which job run takes; with -json the bare job.",
    flags: &[Flag::value("version", "n", "This version of the job; default: the current one")],
    run: inspect,
};

pub(super) const STOP: Verb = Verb {
    name: "job stop",
    operands: "<job> ...",
    synopsis: "Stop jobs",
    about: "Asks before stopping a job whose name was shortened.",
    flags: &[
        DETACH,
        Flag::value("eval-priority", "n", "Priority of the evaluation; default: the job's"),
        Flag::switch("global", "In all regions of a multi-region job"),
        Flag::switch("no-shutdown-delay", "Do not wait for the shutdown delays of the job"),
        Flag::switch("purge", "Forget the job at once"),
        VERBOSE,
        Flag::switch("yes", "Do not ask"),
    ],
    run: stop,
};

fn run(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(1, 1, "one argument: <path>")?;
    let name = operands.first().map_or("", String::as_str);
    let (index, priority) = (cx.number("check-index")?, cx.number("eval-priority")?);
    let job = read(cx, name)?;
    let body = json!({
        "Job": job,
        "EnforceIndex": index.is_some(),
        "JobModifyIndex": index.unwrap_or(0),
        "EvalPriority": priority.unwrap_or(0),
        "PreserveCounts": cx.on("preserve-counts"),
    });
    let answer = match cx.client.put("/v1/jobs", &[], Some(&body)) {
        Ok(answer) => answer,
        Err(CallError::Status { text, .. }) if text.starts_with("Enforcing job modify index") => {
            return Err(Failure::new(format!("{text}\nJob not updated")));
        }
        Err(error) => return Err(Failure::call("submitting the job")(error)),
    };
    let warnings = answer.text("Warnings");
    if !warnings.is_empty() {
        cx.note(format!("Job Warnings:\n{warnings}\n"))?;
    }
    let evaluation = answer.text("EvalID");
    if !cx.on("detach") && !evaluation.is_empty() {
        return monitor::follow(cx, evaluation);
    }
    if cx.on("json") {
        cx.say_json(&answer)?;
    } else {
        cx.say("Job registration successful")?;
        if !evaluation.is_empty() {
            cx.say(format!("Evaluation ID: {evaluation}"))?;
        }
    }
    Ok(Exit::Done)
}

/// The job in the file `name`, whose region and namespace are asked from now on.
pub(super) fn read(cx: &mut Cx<'_>, name: &str) -> Result<Value, Failure> {
    let shown = if name == "-" { "standard input".to_owned() } else { quoted(name) };
    let unreadable = |why: std::io::Error| Failure::new(format!("Error reading the job file {shown}: {why}"));
    let mut bytes = Vec::new();
    let read = match name {
        "-" => (&mut *cx.input).take(JOB_FILE_BYTES_MAX + 1).read_to_end(&mut bytes),
        _ => (cx.open)(name).and_then(|file| file.take(JOB_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)),
    };
    if u64::try_from(read.map_err(unreadable)?).unwrap_or(u64::MAX) > JOB_FILE_BYTES_MAX {
        return Err(Failure::new(format!("The job file {shown} is longer than {JOB_FILE_BYTES_MAX} bytes")));
    }
    let job = parse(&bytes).map_err(|why| Failure::new(format!("Error in the job file {shown}: {why}")))?;
    for (member, target) in [("Region", &mut cx.client.region), ("Namespace", &mut cx.client.namespace)] {
        if !job.text(member).is_empty() {
            job.text(member).clone_into(target);
        }
    }
    Ok(job)
}

/// The job in the bytes of a job file; the error says what is wrong with them.
fn parse(bytes: &[u8]) -> Result<Value, String> {
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => {}
        None => return Err("it is empty".to_owned()),
        Some(_) => {
            return Err("it is not JSON. HCL is not read here: convert it where Nomad's own CLI is at hand, \
                        nomad job run -output job.nomad.hcl > job.json"
                .to_owned());
        }
    }
    let mut file: Value = serde_json::from_slice(bytes).map_err(|why| format!("it is not JSON: {why}"))?;
    let job = file.get_mut("Job").map(Value::take).unwrap_or(file);
    if job.is_object() { Ok(job) } else { Err("the member \"Job\" is not an object".to_owned()) }
}

fn status(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(0, 1, "at most one argument: <job>")?;
    match operands.first() {
        Some(typed) => status_of(cx, typed.trim()),
        None => status_of_all(cx),
    }
}

pub(super) fn status_of_all(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let jobs = cx.client.get("/v1/jobs", &[]).map_err(Failure::call("listing jobs"))?;
    if cx.on("json") {
        let names = items(&jobs).iter().map(|job| JobName { id: job.text("ID").into(), namespace: job.text("Namespace").into() });
        let documents = names.map(|name| document(cx, &name)).collect::<Result<Vec<_>, _>>()?;
        cx.say_json(&Value::Array(documents))?;
    } else if items(&jobs).is_empty() {
        cx.say("No running jobs")?;
    } else {
        let text = listing(items(&jobs), cx.client.all_namespaces());
        cx.say(text)?;
    }
    Ok(Exit::Done)
}

pub(super) fn status_of(cx: &mut Cx<'_>, typed: &str) -> Result<Exit, Failure> {
    let name = find::job(cx, typed)?;
    if cx.on("json") {
        let document = document(cx, &name)?;
        cx.say_json(&Value::Array(vec![document]))?;
        return Ok(Exit::Done);
    }
    let params = [("namespace", name.namespace.as_str())];
    let read = |cx: &Cx<'_>, tail: &[&str], doing: &str| {
        let segments: Vec<&str> = ["job", &name.id].iter().chain(tail).copied().collect();
        cx.client.get(&path(&segments), &params).map_err(Failure::call(doing))
    };
    let job = read(cx, &[], "reading the job")?;
    // A dispatched job keeps the block of its parent.
    let (is_periodic, is_parameterized) = (is_set(&job, "Periodic"), is_set(&job, "ParameterizedJob") && !job.flag("Dispatched"));
    let mut pairs = basics(&job);
    if !job.text("DispatchIdempotencyToken").is_empty() {
        pairs.add("Idempotency Token", job.text("DispatchIdempotencyToken"));
    }
    if is_periodic && !is_parameterized {
        pairs.add("Next Periodic Launch", children::next_launch(cx, &job));
    }
    cx.say(pairs)?;
    if cx.on("short") {
        return Ok(Exit::Done);
    }
    let summary = read(cx, &["summary"], "reading the job's summary")?;
    if is_periodic || is_parameterized {
        return children::status(cx, &name, &job, &summary);
    }
    cx.section("Summary", summary_of_groups(&summary))?;
    let evals = read(cx, &["evaluations"], "reading the job's evaluations")?;
    let (verbose, ids, now) = (cx.on("verbose"), cx.ids(), cx.now());
    if verbose || cx.on("evals") {
        cx.section("Evaluations", eval::table(items(&evals), ids))?;
    }
    if let Some(failed) = latest_failed(items(&evals)) {
        cx.section("Placement Failure", failed_placements(failed))?;
    }
    // Agents without deployments refuse; the rest of the page does not depend on it.
    if let Some(latest) = read(cx, &["deployment"], "reading the job's deployment").ok().filter(Value::is_object) {
        cx.section("Latest Deployment", deployment::summary(&latest, ids))?;
    }
    let all = if cx.on("all-allocs") { "true" } else { "" };
    let allocs = cx
        .client
        .get(&path(&["job", &name.id, "allocations"]), &[("namespace", &name.namespace), ("all", all)])
        .map_err(Failure::call("reading the job's allocations"))?;
    cx.section("Allocations", super::alloc::table(items(&allocs), now, verbose))?;
    Ok(Exit::Done)
}

/// What `-json` prints of one job: the members upstream prints, each as the API answered it.
fn document(cx: &Cx<'_>, name: &JobName) -> Result<Value, Failure> {
    let all = if cx.on("all-allocs") { "true" } else { "" };
    let params = [("namespace", name.namespace.as_str()), ("all", all)];
    let read =
        |part: &str| cx.client.get(&path(&["job", &name.id, part]), params.get(..if part == "allocations" { 2 } else { 1 }).unwrap_or(&[]));
    Ok(json!({
        "Allocations": read("allocations").map_err(Failure::call("reading the job's allocations"))?,
        "Evaluations": read("evaluations").map_err(Failure::call("reading the job's evaluations"))?,
        "LatestDeployment": read("deployment").unwrap_or(Value::Null),
        "Summary": read("summary").map_err(Failure::call("reading the job's summary"))?,
    }))
}

pub(super) fn is_set(job: &Value, member: &str) -> bool {
    job.at(member).is_object() || job.flag(member)
}

/// The status with `(stopped)` where a person asked for it.
fn shown_status(job: &Value) -> String {
    format!("{}{}", job.text("Status"), if job.flag("Stop") { " (stopped)" } else { "" })
}

/// A table of jobs.
pub(super) fn listing(jobs: &[Value], with_namespace: bool) -> String {
    let mut table =
        Table::new(if with_namespace { "ID|Namespace|Type|Priority|Status|Submit Date" } else { "ID|Type|Priority|Status|Submit Date" });
    for job in jobs {
        let kind = [("Periodic", "/periodic"), ("ParameterizedJob", "/parameterized")];
        let kind = kind.iter().filter(|(member, _)| is_set(job, member)).map(|(_, suffix)| *suffix);
        let mut row = vec![job.text("ID").to_owned()];
        if with_namespace {
            row.push(job.text("Namespace").to_owned());
        }
        row.push([job.text("Type")].into_iter().chain(kind).collect());
        row.extend([job.int("Priority").to_string(), shown_status(job), time(job.wall("SubmitTime"))]);
        table.push(row);
    }
    table.to_string()
}

fn basics(job: &Value) -> Pairs {
    let mut pairs = Pairs::default();
    pairs
        .add("ID", job.text("ID"))
        .add("Name", job.text("Name"))
        .add("Submit Date", time(job.wall("SubmitTime")))
        .add("Type", job.text("Type"))
        .add("Priority", job.int("Priority").to_string())
        .add("Datacenters", joined(job.items("Datacenters"), ","))
        .add("Namespace", job.text("Namespace"))
        .add("Node Pool", job.text("NodePool"))
        .add("Status", shown_status(job))
        .add("Periodic", is_set(job, "Periodic").to_string())
        .add("Parameterized", (is_set(job, "ParameterizedJob") && !job.flag("Dispatched")).to_string());
    pairs
}

fn summary_of_groups(summary: &Value) -> Table {
    let mut table = Table::new("Task Group|Queued|Starting|Running|Failed|Complete|Lost|Unknown");
    for (group, counts) in summary.members("Summary") {
        let mut row = vec![group.to_owned()];
        let columns = ["Queued", "Starting", "Running", "Failed", "Complete", "Lost", "Unknown"];
        row.extend(columns.iter().map(|column| counts.int(column).to_string()));
        table.push(row);
    }
    table
}

/// The newest evaluation that failed to place something, if one is waiting for capacity.
fn latest_failed(evals: &[Value]) -> Option<&Value> {
    let waits = evals.iter().any(|eval| eval.text("Status") == "blocked");
    let failed = evals.iter().filter(|eval| waits && !eval.members("FailedTGAllocs").is_empty());
    failed.max_by_key(|eval| eval.int("CreateIndex"))
}

fn failed_placements(eval: &Value) -> String {
    let groups = eval.members("FailedTGAllocs");
    let mut text: Vec<String> = groups
        .iter()
        .take(FAILED_GROUPS_MAX)
        .map(|(group, metrics)| format!("Task Group {}:\n{}", quoted(group), eval::reasons(metrics)))
        .collect();
    if groups.len() > FAILED_GROUPS_MAX {
        let rest = groups.len() - FAILED_GROUPS_MAX;
        text.push(format!("and {rest} more groups: dunlin eval status {}", eval.text("ID")));
    }
    text.join("\n\n")
}

fn inspect(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(1, 1, "one argument: <job>")?;
    let name = find::job(cx, operands.first().map_or("", |typed| typed.trim()))?;
    let params = [("namespace", name.namespace.as_str())];
    let job = match cx.number("version")? {
        None => cx.client.get(&path(&["job", &name.id]), &params).map_err(Failure::call("reading the job"))?,
        Some(version) => {
            let answer =
                cx.client.get(&path(&["job", &name.id, "versions"]), &params).map_err(Failure::call("reading the job's versions"))?;
            let found = answer.items("Versions").iter().find(|job| u64::try_from(job.int("Version")) == Ok(version));
            found.cloned().ok_or_else(|| Failure::new(format!("Job {} has no version {version}", quoted(&name.id))))?
        }
    };
    let document = if cx.on("json") { job } else { json!({ "Job": job }) };
    cx.say_json(&document)?;
    Ok(Exit::Done)
}

fn stop(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(1, usize::MAX, "at least one argument: <job>")?;
    cx.number("eval-priority")?;
    let mut worst = Exit::Done;
    for typed in &operands {
        let exit = match stop_one(cx, typed.trim(), operands.len() == 1) {
            Err(Failure::Told(text)) => {
                cx.note(text)?;
                Exit::Failed
            }
            other => other?,
        };
        if worst == Exit::Done {
            worst = exit;
        }
    }
    Ok(worst)
}

fn stop_one(cx: &mut Cx<'_>, typed: &str, asks: bool) -> Result<Exit, Failure> {
    let name = find::job(cx, typed)?;
    if asks && typed != name.id && !cx.on("yes") && !confirmed(cx, &name.id)? {
        cx.note("Nothing was stopped")?;
        return Ok(Exit::Done);
    }
    let truth = |flag: &str| if cx.on(flag) { "true" } else { "" };
    let params = [
        ("namespace", name.namespace.as_str()),
        ("purge", truth("purge")),
        ("global", truth("global")),
        ("no_shutdown_delay", truth("no-shutdown-delay")),
        ("eval_priority", cx.flags.value("eval-priority").unwrap_or("")),
    ];
    let answer = cx.client.delete(&path(&["job", &name.id]), &params).map_err(Failure::call("stopping the job"))?;
    let evaluation = answer.text("EvalID");
    if !cx.on("detach") && !evaluation.is_empty() {
        // A deployment it had is cancelled by this, which is what was asked for.
        return Ok(monitor::evaluation(cx, evaluation)?.0);
    }
    if cx.on("json") {
        cx.say_json(&answer)?;
    } else if !evaluation.is_empty() {
        cx.say(evaluation)?;
    }
    Ok(Exit::Done)
}

/// Asks on standard error; only `y` is a yes.
fn confirmed(cx: &mut Cx<'_>, id: &str) -> Result<bool, Failure> {
    write!(cx.err, "Stop job {}? [y/N] ", quoted(id))?;
    cx.err.flush()?;
    let mut answer = Vec::new();
    // No answer is no yes.
    let _ = (&mut *cx.input).take(16).read_until(b'\n', &mut answer);
    Ok(answer.trim_ascii() == b"y")
}
