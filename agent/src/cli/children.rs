//! `job dispatch`, `job periodic force`, and what `job status` shows of jobs that make others.
//!
//! Bound: a payload has at most [`JOB_FILE_BYTES_MAX`] here; the agent takes 16 KiB and says so.
//! Source: upstream v1.10.0 command/job_{dispatch,periodic_force,status}.go (behaviour only).

use std::collections::BTreeMap;
use std::io::Read as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::answer::{Answer as _, items, joined};
use super::client::path;
use super::find::{self, JobName};
use super::job::{DETACH, JOB_FILE_BYTES_MAX, VERBOSE, is_set};
use super::table::{Pairs, Table, quoted, time_in};
use super::{Cx, Exit, Failure, Verb, monitor};
use crate::config::flags::Flag;
use crate::model::job::Periodic;
use crate::sched::periodic::Schedule;
use crate::wire::go_text;

pub(super) const DISPATCH: Verb = Verb {
    name: "job dispatch",
    operands: "<job> [<path>]",
    synopsis: "Run an instance of a parameterized job",
    about: "The file is the instance's payload; \"-\" reads it from standard input.\n\
            Exit status 2: the instance was accepted, but not all of it could be placed.\n\
            With -json the finished evaluation is printed, with -detach the answer to the dispatch.",
    flags: &[
        DETACH,
        Flag::value("id-prefix-template", "text", "Put before the time in the instance's ID"),
        Flag::value("idempotency-token", "text", "Dispatch once: again with the same token the first instance is named"),
        Flag::value("meta", "key=value", "A pair for the instance's meta; may be repeated"),
        VERBOSE,
    ],
    run: dispatch,
};

pub(super) const FORCE: Verb = Verb {
    name: "job periodic force",
    operands: "<job>",
    synopsis: "Launch a periodic job now",
    about: "Also while an earlier instance runs, whatever the job says of overlaps.",
    flags: &[DETACH, VERBOSE],
    run: force,
};

fn dispatch(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(1, 2, "one or two arguments: <job> [<path>]")?;
    let mut meta = BTreeMap::new();
    for pair in cx.flags.values("meta") {
        let (key, value) = pair.split_once('=').ok_or_else(|| Failure::words(format!("-meta {pair}: expected key=value")))?;
        meta.insert(key.to_owned(), value.to_owned());
    }
    let payload = operands.get(1).map(|name| read(cx, name)).transpose()?.unwrap_or_default();
    let is_parameterized = |job: &Value| is_set(job, "ParameterizedJob");
    let name = find::job_of_kind(cx, operands.first().map_or("", |typed| typed.trim()), "parameterized job", is_parameterized)?;
    let text = |flag: &str| cx.flags.value(flag).unwrap_or("").to_owned();
    let body = json!({
        "JobID": name.id,
        "Payload": STANDARD.encode(&payload),
        "Meta": meta,
        "IdPrefixTemplate": text("id-prefix-template"),
    });
    let token = text("idempotency-token");
    let params = [("namespace", name.namespace.as_str()), ("idempotency_token", &token)];
    let answer =
        cx.client.put(&path(&["job", &name.id, "dispatch"]), &params, Some(&body)).map_err(Failure::call("dispatching the job"))?;
    let evaluation = answer.text("EvalID");
    let ends_here = cx.on("detach") || evaluation.is_empty();
    if cx.on("json") {
        if ends_here {
            cx.say_json(&answer)?;
        }
    } else {
        let mut pairs = Pairs::default();
        pairs.add("Dispatched Job ID", answer.text("DispatchedJobID"));
        if !evaluation.is_empty() {
            pairs.add("Evaluation ID", cx.ids().show(evaluation));
        }
        cx.say(pairs)?;
        if !ends_here {
            cx.say("")?;
        }
    }
    if ends_here { Ok(Exit::Done) } else { monitor::follow(cx, evaluation) }
}

/// The bytes of a file.
fn read(cx: &mut Cx<'_>, name: &str) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = match name {
        "-" => (&mut *cx.input).take(JOB_FILE_BYTES_MAX + 1).read_to_end(&mut bytes),
        _ => (cx.open)(name).and_then(|file| file.take(JOB_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)),
    };
    match read {
        Err(why) => Err(Failure::new(format!("Error reading the payload {}: {why}", quoted(name)))),
        Ok(n) if u64::try_from(n).unwrap_or(u64::MAX) > JOB_FILE_BYTES_MAX => {
            Err(Failure::new(format!("The payload {} is longer than {JOB_FILE_BYTES_MAX} bytes", quoted(name))))
        }
        Ok(_) => Ok(bytes),
    }
}

fn force(cx: &mut Cx<'_>) -> Result<Exit, Failure> {
    let operands = cx.operands(1, 1, "one argument: <job>")?;
    let name = find::job_of_kind(cx, operands.first().map_or("", |typed| typed.trim()), "periodic job", |job| is_set(job, "Periodic"))?;
    let params = [("namespace", name.namespace.as_str())];
    let doing = format!("forcing periodic job {}", quoted(&name.id));
    let answer = cx.client.put(&path(&["job", &name.id, "periodic", "force"]), &params, None).map_err(Failure::call(&doing))?;
    let evaluation = answer.text("EvalID");
    if !cx.on("detach") && !evaluation.is_empty() {
        return monitor::follow(cx, evaluation);
    }
    if cx.on("json") {
        cx.say_json(&answer)?;
    } else {
        cx.say("Force periodic successful")?;
        cx.say(format!("Evaluation ID: {evaluation}"))?;
    }
    Ok(Exit::Done)
}

/// When a periodic job is launched next, by this machine's clock and zones.
pub(super) fn next_launch(cx: &Cx<'_>, job: &Value) -> String {
    if job.flag("Stop") {
        return "none (job stopped)".to_owned();
    }
    let block = job.at("Periodic");
    if block.at("Enabled") == &Value::Bool(false) {
        return "none (switched off)".to_owned();
    }
    let specs = block.items("Specs").iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let (spec, time_zone) = (block.text("Spec").to_owned(), block.text("TimeZone").to_owned());
    let periodic = Periodic { spec, specs, time_zone, ..Periodic::default() };
    let now = cx.now();
    match Schedule::of(&periodic, cx.zones) {
        Err(why) => format!("unknown ({why})"),
        Ok(schedule) => schedule.next(now).map_or_else(
            || "none".to_owned(),
            |next| {
                let left_ns = (next.seconds() - now.seconds()).saturating_mul(1_000_000_000);
                format!("{} ({} from now)", time_in(next, schedule.ahead_s(next)), go_text::duration(left_ns))
            },
        ),
    }
}

/// The rest of the status of a job that makes others.
pub(super) fn status(cx: &mut Cx<'_>, parent: &JobName, job: &Value, summary: &Value) -> Result<Exit, Failure> {
    let rules = job.at("ParameterizedJob");
    let is_parameterized = rules.is_object();
    if is_parameterized {
        let mut pairs = Pairs::default();
        pairs
            .add("Payload", rules.text("Payload"))
            .add("Required Metadata", joined(rules.items("MetaRequired"), ", "))
            .add("Optional Metadata", joined(rules.items("MetaOptional"), ", "));
        cx.section("Parameterized Job", pairs)?;
    }
    let counts = summary.at("Children");
    let mut table = Table::new("Pending|Running|Dead");
    table.row(["Pending", "Running", "Dead"].map(|column| counts.int(column).to_string()));
    cx.section(if is_parameterized { "Parameterized Job Summary" } else { "Children Job Summary" }, table)?;

    let (kind, heading, none) = if is_parameterized {
        ("dispatch", "Dispatched Jobs", "No dispatched instances of parameterized job found")
    } else {
        ("periodic", "Previously Launched Jobs", "No instances of periodic job found")
    };
    let prefix = format!("{}/{kind}-", parent.id);
    let params = [("prefix", prefix.as_str()), ("namespace", parent.namespace.as_str())];
    let jobs = cx.client.get("/v1/jobs", &params).map_err(Failure::call("listing the job's children"))?;
    let mut table = Table::new("ID|Status");
    for child in items(&jobs).iter().filter(|child| child.text("ParentID") == parent.id) {
        table.row([child.text("ID").into(), child.text("Status").into()]);
    }
    if table.is_empty() {
        cx.say(format!("\n{none}"))?;
    } else {
        cx.section(heading, table)?;
    }
    Ok(Exit::Done)
}
