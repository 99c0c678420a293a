//! The answers of a real agent to our jobs, replayed against ours (`spec/http-api.md` 12.6).
//!
//! Every line of the recording is compared, or named below as not yet possible. A named difference is applied to the recorded answer
//! and must change it, so the table cannot hold what is no longer so; whatever else differs is a failure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use dunlin_tests::golden;
use dunlin_tests::http::Response;
use dunlin_tests::real::{Options, Real};
use serde_json::{Value, json};

use super::compare::{self, Ids};

/// How our answer is known to differ from the recorded one.
enum Change {
    /// Another status.
    Status(u16),
    /// Another text.
    Text(&'static str),
    /// Another value at a path of the document; JSON.
    Set(&'static str, &'static str),
    /// The elements of the list at a path whose member has one of these values are not there.
    Without(&'static str, &'static str, &'static [&'static str]),
    /// The members at a path that have this name are not there.
    Lacks(&'static str, &'static str),
    /// A document of figures of this machine: only names and kinds are compared.
    Kinds,
    /// Any value at this path, as long as it is a text.
    AnyText(&'static str),
    /// Elements that only ours has, by a member's value.
    OnlyOurs(&'static str, &'static str, &'static str),
}

use Change::{AnyText, Kinds, Lacks, OnlyOurs, Set, Status, Text, Without};

/// A deployment whose failures will not be replaced does not wait for its progress deadline, as from 1.7 on.
const FAILS_EARLY: &str = "a deployment without reschedule attempts left fails at once (1.10)";
/// A standalone node is its own one member, without the facts of a gossip ring.
const NO_RING: &str = "http-api.md 9.2: one own entry";
const NOT_OURS: &[&str] = &["fixed", "hog"];
const OF_OTHERS: &[&str] = &[
    "flood",
    "pipeline",
    "telemetry",
    "web",
    "fixed",
    "hog",
    "convert/dispatch-1795331163-692d8040",
    "nightly/periodic-1795331160",
    "nightly/periodic-1795331220",
];
/// The recorded children, in the order of their names.
const CHILDREN: [&str; 3] = ["convert/dispatch-1795331163-692d8040", "nightly/periodic-1795331160", "nightly/periodic-1795331220"];

/// Line (a `*` at its end stands for the rest), what is otherwise, and why.
const NAMED: &[(&str, Change, &str)] = &[
    ("allocation read crashy*", Set("/DesiredTransition/Reschedule", "null"), FAILS_EARLY),
    ("evaluations", Without("", "TriggeredBy", &["deployment-watcher"]), FAILS_EARLY),
    ("evaluations", OnlyOurs("", "TriggeredBy", "deployment-watcher"), FAILS_EARLY),
    ("/v1/deployments", Set("/1/Status", "\"failed\""), FAILS_EARLY),
    ("/v1/deployments", Set("/1/StatusDescription", "\"Failed due to unhealthy allocations\""), FAILS_EARLY),
    ("allocation read crashy.missing[0]", Set("/TaskStates/nobinary/Events/2/Details/driver_error", NO_BINARY), "no plugin in between"),
    ("allocation read crashy.missing[0]", Set("/TaskStates/nobinary/Events/2/DisplayMessage", NO_BINARY), "no plugin in between"),
    ("allocation read crashy.missing[0]", Set("/TaskStates/nobinary/Events/2/DriverError", NO_BINARY), "no plugin in between"),
    ("allocation read pipeline", Without("/TaskStates/prepare/Events", "Type", &["Killing"]), "a dead task is not killed"),
    ("allocation read pipeline", Without("/TaskStates/sum/Events", "Type", &["Killing"]), "a dead task is not killed"),
    ("job allocations", Without("/0/TaskStates/prepare/Events", "Type", &["Killing"]), "a dead task is not killed"),
    ("job allocations", Without("/0/TaskStates/sum/Events", "Type", &["Killing"]), "a dead task is not killed"),
    ("evaluations", Without("", "JobID", OF_OTHERS), "1.1.2 does not know the parameter"),
    ("job list", Without("", "ID", NOT_OURS), "jobs of later issues"),
    (
        "allocation read pipeline",
        Set("/Job/TaskGroups/0/Tasks/2/Config/args/1", PIPELINE_SUM),
        "the job file prints whole numbers of any size now",
    ),
    ("logs pipeline report", Set("/Data", "\"dG90YWwgMjAwMDAxMDAwMDAK\""), "as above"),
    ("logs pipeline report", Set("/Offset", "18"), "as above"),
    ("logs plain", Text("total 20000100000\n"), "as above"),
    ("logs end offset", Text("00000\n"), "as above"),
    ("stream in", Set("/Data", "\"MjAwMDAxMDAwMDAK\""), "as above"),
    ("stream in", Set("/Offset", "12"), "as above"),
    ("fs cat ?path=alloc/data/beat", Text("0\n"), "the recording was made a minute later"),
    ("alloc stats", Kinds, "figures"),
    ("client stats", Kinds, "figures"),
    ("fs ls ?path=nope", Status(404), "a missing file is 404"),
    ("fs ls ?path=nope", Text("open nope: no such file or directory"), "no host paths"),
    ("fs stat ?path=nope", Status(404), "a missing file is 404"),
    ("fs stat ?path=nope", Text("stat nope: no such file or directory"), "no host paths"),
    ("fs cat ?path=nope", Status(400), "an error is not content"),
    ("fs cat ?path=nope", Text("stat nope: no such file or directory"), "no host paths"),
    ("fs cat ?path=alloc", Status(400), "an error is not content"),
    ("fs readat no offset", Status(500), "an error is not content"),
    ("fs readat bad", Status(500), "an error is not content"),
    ("fs ls ?path=alloc/logs", Without("", "Name", &[".sample.stderr.fifo", ".sample.stdout.fifo"]), "logs are written without FIFOs"),
    ("fs ls ?path=sample", Without("", "Name", &["executor.out"]), "there is no executor"),
    ("fs ls ?path=sample", Set("/1/FileMode", "\"drwx------\""), "secrets are the task's user's alone"),
    ("fs ls ?path=sample/secrets", Without("", "Name", &[".nomad-mount"]), "no mark in a folder of secrets"),
    ("signal bad", Status(400), "decision 34"),
    ("signal bad", Text(BAD_SIGNAL), "decision 34"),
    (
        "allocation read after signal and restart",
        Set("/TaskStates/sample/Events/4/Details/signal", "\"SIGINT\""),
        "the signal that SIGNOPE became is sent by its name",
    ),
    ("allocation read after stop", Set("/TaskStates/sample/Events/3/Details/signal", "\"SIGINT\""), "as above, one event further"),
    ("evaluation allocations", Set("/0/TaskStates/sample/Events/4/Details/signal", "\"SIGINT\""), "as above"),
    ("restart of finished", Text("restart of an alloc that should not run"), "as later versions say"),
    ("logs after gc", Status(404), "as later versions say"),
    ("logs after gc", Text("state for allocation {flood} not found on client"), "as later versions say"),
    ("bad json", Text("Job.ID: found number 5, expected string"), "the decoder's own words"),
    ("/v1/namespaces", OnlyOurs("", "Name", "local"), "jobs of this device alone"),
    ("/v1/agent/health", Lacks("", "server"), "a standalone node is no server"),
    ("/v1/agent/members", Lacks("/Members/0/Tags", "bootstrap"), NO_RING),
    ("/v1/agent/members", Lacks("/Members/0/Tags", "expect"), NO_RING),
    ("/v1/agent/members", Lacks("/Members/0/Tags", "mvn"), NO_RING),
    ("/v1/agent/members", Lacks("/Members/0/Tags", "port"), NO_RING),
    ("/v1/agent/members", Lacks("/Members/0/Tags", "raft_vsn"), NO_RING),
    ("/v1/agent/members", Lacks("/Members/0/Tags", "rpc_addr"), NO_RING),
    ("/v1/agent/members", Lacks("/Members/0/Tags", "vsn"), NO_RING),
    ("/v1/agent/members", AnyText("/Members/0/Tags/build"), "the version it speaks"),
    ("/v1/agent/members", AnyText("/Members/0/Tags/id"), "the member is the node"),
    ("/v1/agent/members", AnyText("/Members/0/Name"), "this machine's name"),
    ("/v1/agent/members", AnyText("/ServerName"), "this machine's name"),
];

/// Lines that what exists now cannot answer alike, and when it will.
const LATER: &[(&str, &str)] = &[
    ("/v1/agent/schedulers", "1.1.2 has no such route; http-api.md 7.11 is tested by example"),
    ("/v1/agent/servers", "a standalone node names no servers; tested by example"),
    ("agent join", "a standalone node joins nobody; tested by example"),
];

const PIPELINE_SUM: &str =
    r#""awk '{s+=$1} END {printf \"%.0f\\n\", s}' \"$NOMAD_ALLOC_DIR/data/in\" | tee \"$NOMAD_ALLOC_DIR/data/out\"""#;
const BAD_SIGNAL: &str = "invalid signal \"SIGNOPE\"; known: SIG";
const NO_BINARY: &str = r#""failed to launch command: binary \"/no/such/binary\" could not be found""#;

/// Names the allocation a recorded id stands for.
const ALLOCS: &[(&str, &str, &str)] = &[
    ("29fbd40e-dc6c-9f86-343d-95c29ddd20f9", "telemetry", "telemetry.sense[0]"),
    ("85764a9a-3252-6603-e9ed-1b5b890445c2", "telemetry", "telemetry.sense[1]"),
    ("273447b3-a3dc-c0d0-0f78-c9e4ab9b749c", "crashy", "crashy.loop[0]"),
    ("ded4498b-f1df-3aaf-8da2-a4cd568d773e", "crashy", "crashy.missing[0]"),
    ("74a81ff7-0932-d6e6-3ca4-c2b8c8f8c8f6", "pipeline", "pipeline.work[0]"),
    ("4487b793-e09f-1fd5-6c68-19568f89d2cf", "flood", "flood.g[0]"),
];
const LIMIT: Duration = Duration::from_secs(60);

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |begin| name.starts_with(begin))
}

/// The order of lists is the agent's; ours and theirs are put into the same one.
fn sort(value: &mut Value) {
    let Some(all) = value.as_array_mut() else { return };
    let key = |item: &Value| {
        let text = |key: &str| item[key].as_str().filter(|text| !compare::is_id(text)).unwrap_or_default().to_owned();
        (text("JobID"), text("Name"), text("ID"), item["CreateIndex"].as_u64())
    };
    all.sort_by_key(key);
}

/// Asks for the beginning of an id, as long as the recorded one.
fn search_body(line: &Value, ids: &Ids) -> Vec<u8> {
    let mut body = line["body"].clone();
    let recorded = body["Prefix"].as_str().unwrap().to_owned();
    let (theirs, ..) = ALLOCS.iter().find(|(theirs, ..)| theirs.starts_with(&recorded)).unwrap();
    body["Prefix"] = json!(ids.translate(theirs)[..recorded.len()]);
    body.to_string().into_bytes()
}

/// A recorded answer with its named differences applied: what ours should be.
struct Expected {
    status: u16,
    text: Option<String>,
    json: Option<Value>,
    kinds_only: bool,
    applied: Vec<usize>,
}

fn expected(line: &Value, ids: &Ids) -> Expected {
    let name = line["name"].as_str().unwrap();
    let mut want = Expected {
        status: u16::try_from(line["status"].as_u64().unwrap()).unwrap(),
        text: line["text"].as_str().map(|text| ids.translate(text)),
        json: line.get("json").cloned(),
        kinds_only: false,
        applied: Vec::new(),
    };
    // Plain answers that happen to be numbers were recorded as JSON.
    let is_plain = line["headers"]["Content-Type"].as_str().is_some_and(|kind| kind.starts_with("text/plain"));
    if is_plain && let Some(number) = want.json.as_ref().filter(|json| json.is_number()) {
        want.text = Some(format!("{number}\n"));
        want.json = None;
    }
    for (i, (_, change, _)) in NAMED.iter().enumerate().filter(|(_, (pattern, _, _))| matches(pattern, name)) {
        let mut document = want.json.take().unwrap_or_default();
        let changed_n = match change {
            Status(status) => usize::from(std::mem::replace(&mut want.status, *status) != *status),
            Text(text) => {
                let text = text.replace("{flood}", &ids.translate(ALLOCS[5].0));
                usize::from(want.text.replace(text.clone()) != Some(text))
            }
            Set(path, value) => {
                let value: Value = serde_json::from_str(value).unwrap();
                let mut n = 0;
                compare::at(&mut document, path, &mut |at| n += usize::from(std::mem::replace(at, value.clone()) != value));
                n
            }
            Without(path, key, values) => {
                let mut n = 0;
                compare::at(&mut document, path, &mut |list| {
                    let all = list.as_array_mut().unwrap();
                    let before_n = all.len();
                    all.retain(|item| !item[key].as_str().is_some_and(|value| values.contains(&value)));
                    n += before_n - all.len();
                });
                n
            }
            Lacks(path, key) => {
                let mut n = 0;
                compare::at(&mut document, path, &mut |at| n += usize::from(at.as_object_mut().unwrap().remove(*key).is_some()));
                n
            }
            AnyText(path) => compare::at(&mut document, path, &mut |at| *at = json!("<any>")),
            Kinds => {
                want.kinds_only = true;
                1
            }
            // Found in our answer, not in the recorded one.
            OnlyOurs(..) => 0,
        };
        want.json = Some(document).filter(|document| !document.is_null() || line.get("json").is_some_and(Value::is_null));
        if changed_n > 0 {
            want.applied.push(i);
        }
    }
    want
}

/// Names and kinds of a document of figures; what is empty in one may be filled in the other.
fn compare_kinds(path: &str, theirs: &Value, ours: &Value, found: &mut Vec<String>) {
    let is_free = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    match (theirs, ours) {
        _ if is_free(theirs) || is_free(ours) => {}
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, value) in theirs {
                match ours.get(key) {
                    Some(mine) => compare_kinds(&format!("{path}/{key}"), value, mine, found),
                    None => found.push(format!("{path}/{key}: absent")),
                }
            }
        }
        (Value::Array(theirs), Value::Array(ours)) => compare_kinds(&format!("{path}/0"), &theirs[0], &ours[0], found),
        (Value::Number(a), Value::Number(b)) if a.is_f64() || !b.is_f64() => {}
        (Value::String(_), Value::String(_)) => {}
        _ => found.push(format!("{path}: recorded {theirs}, ours {ours}")),
    }
}

fn compare_answer(line: &Value, want: &mut Expected, got: &Response, ids: &mut Ids) -> Vec<String> {
    let mut found = Vec::new();
    let name = line["name"].as_str().unwrap();
    if got.status != want.status {
        found.push(format!("status: recorded {}, ours {} {}", want.status, got.status, got.text()));
    }
    match want.json.clone() {
        Some(mut theirs) if want.status == 200 => {
            let mut ours = serde_json::from_slice(&got.body).unwrap_or_else(|_| json!(got.text()));
            for (i, (_, change, _)) in NAMED.iter().enumerate().filter(|(_, row)| matches(row.0, name)) {
                match change {
                    AnyText(path) => {
                        compare::at(&mut ours, path, &mut |at| *at = if at.is_string() { json!("<any>") } else { at.clone() });
                    }
                    OnlyOurs(path, key, value) => {
                        compare::at(&mut ours, path, &mut |list| {
                            let all = list.as_array_mut().unwrap();
                            let before_n = all.len();
                            all.retain(|item| item[key] != *value);
                            if all.len() < before_n {
                                want.applied.push(i);
                            }
                        });
                    }
                    _ => {}
                }
            }
            sort(&mut theirs);
            sort(&mut ours);
            if want.kinds_only {
                compare_kinds("", &theirs, &ours, &mut found);
            } else {
                compare::compare("", &theirs, &ours, ids, &mut found);
            }
        }
        _ => {
            let (theirs, ours) = (want.text.clone().unwrap_or_default(), got.text());
            let is_same = if theirs == BAD_SIGNAL { ours.starts_with(&theirs) } else { theirs == ours };
            if !is_same {
                found.push(format!("text: recorded {theirs:?}, ours {ours:?}"));
            }
        }
    }
    for name in ["X-Nomad-Index", "X-Nomad-Knownleader", "X-Nomad-Lastcontact", "Content-Type"] {
        let (theirs, ours) = (line["headers"][name].as_str().unwrap_or_default(), got.header(name));
        // An error text has one type whatever route it is of (`spec/http-api.md` 1.3).
        let theirs =
            if name == "Content-Type" && want.status >= 400 && !got.body.is_empty() { "text/plain; charset=utf-8" } else { theirs };
        let is_same = if name == "X-Nomad-Index" { theirs.is_empty() == ours.is_empty() && ours != "0" } else { theirs == ours };
        if !is_same {
            found.push(format!("{name}: recorded {theirs:?}, ours {ours:?}"));
        }
    }
    // An index that was the object's own is so with us.
    let is_own = |headers_index: &str, json: &Value| json["ModifyIndex"].as_u64().is_some_and(|index| index.to_string() == headers_index);
    if is_own(line["headers"]["X-Nomad-Index"].as_str().unwrap_or_default(), &line["json"])
        && got.status == 200
        && !is_own(got.header("X-Nomad-Index"), &got.json())
    {
        found.push(format!("X-Nomad-Index: {} is not the object's", got.header("X-Nomad-Index")));
    }
    if got.body.is_empty() && got.header("Content-Length") != "0" {
        found.push("an empty body without its length".to_owned());
    }
    found
}

/// What the recorder did beside asking.
fn act(agent: &Real, name: &str, ids: &Ids) {
    let sample = format!("/v1/allocation/{}", ids.translate(ALLOCS[0].0));
    match name {
        // It sent SIGINT; ours refused the name, so the signal is sent by a right one.
        "signal bad" => {
            let path = format!("/v1/client/allocation/{}/signal", ids.translate(ALLOCS[0].0));
            agent.put(&path, br#"{"Signal":"SIGINT","Task":"sample"}"#);
            agent.wait(&sample, LIMIT, |alloc| alloc["TaskStates"]["sample"]["State"] == "pending");
        }
        "restart of finished" => {
            agent.wait(&sample, LIMIT, |alloc| alloc["TaskStates"]["sample"]["State"] == "running");
            // Until it writes it has not said what it does with signals.
            let path = format!("/v1/client/fs/logs/{}?task=sample&type=stdout&plain=true", ids.translate(ALLOCS[0].0));
            let begun = Instant::now();
            while agent.ask("GET", &path, b"").text().matches("\"n\":0,").count() < 2 {
                assert!(begun.elapsed() < LIMIT, "the new process writes nothing");
            }
        }
        "alloc stop" => {
            agent.wait(&sample, LIMIT, |alloc| alloc["ClientStatus"] == "complete");
        }
        "job delete" => {
            agent.wait("/v1/job/telemetry", LIMIT, |job| job["Status"] == "dead");
        }
        _ => {}
    }
}

#[test]
fn the_recorded_answers_are_ours() {
    let mut lines = golden::lines("live/nomad-1.1.2.ndjson");
    let agent = Real::start("live", Options::default());
    let mut ids = Ids::default();
    for job in ["telemetry", "web", "pipeline", "crashy", "flood"] {
        agent.run(&golden::job(job));
    }
    // The recorded evaluations are those of all jobs, whatever was asked; ours are asked for job by job.
    let all = lines.iter().find(|line| line["name"] == "evaluations").unwrap()["json"].clone();
    for (theirs, ours) in CHILDREN.into_iter().zip(super::children::some(&agent)) {
        let recorded = all.as_array().unwrap().iter().find(|eval| eval["JobID"] == theirs).unwrap();
        let recorded: Value = serde_json::from_str(&recorded.to_string().replace(theirs, &ours)).unwrap();
        let mut found = Vec::new();
        compare::compare("", &json!([recorded]), &agent.get(&format!("/v1/job/{ours}/evaluations")), &mut ids, &mut found);
        assert!(found.is_empty(), "{found:?}");
        for line in lines.iter_mut().filter(|line| line["name"] == "job list") {
            *line = serde_json::from_str(&line.to_string().replace(theirs, &ours)).unwrap();
        }
    }
    let status = |want: &'static str| move |alloc: &Value| alloc["ClientStatus"] == want;
    agent.allocs("telemetry", 2, status("running"));
    agent.allocs("web", 1, status("running"));
    agent.allocs("pipeline", 1, status("complete"));
    agent.allocs("crashy", 2, status("failed"));
    agent.allocs("flood", 1, status("complete"));
    for job in ["telemetry", "web"] {
        agent.wait(&format!("/v1/job/{job}/deployment"), LIMIT, |latest| latest["Status"] == "successful");
    }
    for (theirs, job, name) in ALLOCS {
        let all = agent.get(&format!("/v1/job/{job}/allocations"));
        let ours = all.as_array().unwrap().iter().find(|alloc| alloc["Name"] == *name).unwrap_or_else(|| panic!("no {name}"));
        ids.bind(theirs, ours["ID"].as_str().unwrap());
    }
    let eval = agent.get("/v1/job/telemetry/evaluations");
    ids.bind("245543c9-c145-1e81-68fa-c38b4fb40d4a", eval[0]["ID"].as_str().unwrap());

    let (mut compared_n, mut later_n, mut named) = (0, 0, BTreeSet::new());
    let mut faults = Vec::new();
    for line in &lines {
        let name = line["name"].as_str().unwrap();
        if let Some((_, why)) = LATER.iter().find(|(later, _)| *later == name) {
            println!("later: {name}: {why}");
            later_n += 1;
            continue;
        }
        let body = if line["body"].is_null() { Vec::new() } else { line["body"].to_string().into_bytes() };
        let path = ids.translate(line["path"].as_str().unwrap());
        // The one body that holds a part of an id.
        let body = if name == "search" { search_body(line, &ids) } else { body };
        let got = agent.ask(line["method"].as_str().unwrap(), &path, &body);
        let mut want = expected(line, &ids);
        faults.extend(compare_answer(line, &mut want, &got, &mut ids).into_iter().map(|fault| format!("{name}: {fault}")));
        named.extend(want.applied);
        compared_n += 1;
        act(&agent, name, &ids);
    }
    println!("live: {} lines, {compared_n} compared, {later_n} later, {} named differences", lines.len(), named.len());
    let unused: Vec<&str> = NAMED.iter().enumerate().filter(|(i, _)| !named.contains(i)).map(|(_, row)| row.0).collect();
    assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
    assert!(unused.is_empty(), "named differences that are none: {unused:?}");
    assert_eq!((lines.len(), compared_n, later_n), (83, 80, 3));
}

/// Two jobs of which the recording holds no allocation.
#[test]
fn web_and_flood_go_their_ways() {
    let agent = Real::start("sequences", Options::default());
    for (job, status, want) in [
        ("web", "running", &["Received", "Task Setup", "Started"][..]),
        ("flood", "complete", &["Received", "Task Setup", "Started", "Terminated"][..]),
    ] {
        agent.run(&golden::job(job));
        let all = agent.allocs(job, 1, |alloc| alloc["ClientStatus"] == status);
        let task = all[0]["TaskStates"].as_object().unwrap().values().next().unwrap();
        let events: Vec<&Value> = task["Events"].as_array().unwrap().iter().collect();
        let types: Vec<&str> = events.iter().filter_map(|event| event["Type"].as_str()).collect();
        assert_eq!(types, want, "{job}");
        if job == "flood" {
            assert_eq!(events[3]["DisplayMessage"], "Exit Code: 0");
            assert_eq!((&task["State"], &task["Failed"], &task["Restarts"]), (&json!("dead"), &json!(false), &json!(0)));
        }
    }
}
