//! The examples of the HTTP contract against a standalone node (`spec/http-api.md` 12.1): status, listed headers, every key of the
//! example with its kind; texts to the letter. What a standalone node answers otherwise, or not yet, is named.

use std::time::Duration;

use dunlin_tests::golden;
use dunlin_tests::real::{Options, Real};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const JOINED: &str = "describes a node with servers";

/// Not compared, and why.
const LATER: &[(&str, &str)] = &[
    ("agent-servers", JOINED),
    ("agent-servers-set", JOINED),
    ("agent-health-no-servers", JOINED),
    ("agent-schedulers", JOINED),
    ("agent-host-denied", "a later route"),
    ("agent-host-remote-form", "a later route"),
    ("agent-monitor-bad-level", "a later route"),
    ("agent-monitor-two-targets", "a later route"),
    ("agent-schedulers-config", "a later route"),
    ("job-plan", "a later route"),
    ("node-drain", "a later route"),
    ("system-gc", "a later route"),
    ("system-gc-post", "a later route"),
    ("metrics", "a later route"),
    ("metrics-prometheus-off", "a later route"),
    ("acl-bootstrap-off", "a later route"),
    ("enterprise", "a later route"),
];

/// Keys newer than the form in which a job is stored (`spec/jobs.md` 3).
const NEWER: &[&str] = &["Disabled", "NUMA", "RenderTemplates", "SecretsMB"];

/// They end what the others look at: asked last, in this order.
const LAST: &[&str] = &["alloc-stop", "alloc-gc", "client-gc", "job-stop"];

fn pump(version: u32) -> Value {
    let script = "echo a > $NOMAD_ALLOC_DIR/data/a.txt; trap : USR1; echo hello; while :; do sleep 1 & wait; done";
    json!({"Job": {"ID": "pump", "Name": "pump", "Type": "service", "Datacenters": ["dc1"], "Meta": {"version": version.to_string()}, "TaskGroups": [{"Name": "ctl", "Tasks": [{
        "Name": "ctl", "Driver": "raw_exec", "Config": {"command": "/bin/sh", "args": ["-c", script]}, "KillSignal": "SIGKILL", "Resources": {"CPU": 20, "MemoryMB": 16}}]}]}})
}

/// The body of an example that names none.
fn body(name: &str) -> Vec<u8> {
    let value = match name {
        "job-register" => pump(1),
        "job-validate" => pump(2),
        "job-register-conflict" => {
            let mut job = pump(1);
            job["EnforceIndex"] = json!(true);
            job["JobModifyIndex"] = json!(3);
            job
        }
        _ => return Vec::new(),
    };
    value.to_string().into_bytes()
}

/// Every key of the example is there, and what it holds is of the example's kind.
fn has_shape(path: &str, want: &Value, got: &Value, found: &mut Vec<String>) {
    let is_free = |value: &Value| {
        value.is_null() || value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
    };
    match (want, got) {
        _ if is_free(want) || is_free(got) => {}
        (Value::Object(want), Value::Object(got)) => {
            for (key, value) in want {
                match got.get(key) {
                    Some(mine) => has_shape(&format!("{path}/{key}"), value, mine, found),
                    // Keys that are data of this machine or job; contexts of ids that cannot begin so.
                    None if [
                        "Matches",
                        "Truncations",
                        "Attributes",
                        "Meta",
                        "Links",
                        "Tags",
                        "Drivers",
                        "Scores",
                        "Pids",
                        "NodesAvailable",
                    ]
                    .iter()
                    .any(|data| path.ends_with(data)) => {}
                    None if NEWER.contains(&key.as_str()) => {}
                    None => found.push(format!("{path}/{key} is absent")),
                }
            }
        }
        (Value::Array(want), Value::Array(got)) => has_shape(&format!("{path}/0"), &want[0], &got[0], found),
        (Value::Number(want), Value::Number(got)) if want.is_f64() || !got.is_f64() => {}
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) => {}
        _ => found.push(format!("{path}: {got} is not like {want}")),
    }
}

#[test]
fn the_examples_hold() {
    let lines = golden::lines("http-examples.ndjson");
    let agent = Real::start("examples", Options::default());
    // A predecessor in the lists, and one that cannot be placed.
    let mut stuck = pump(1);
    stuck["Job"]["ID"] = json!("stuck");
    stuck["Job"]["Name"] = json!("stuck");
    stuck["Job"]["TaskGroups"][0]["Tasks"][0]["Resources"]["MemoryMB"] = json!(900_000_000);
    let mut first = pump(1);
    first["Job"]["ID"] = json!("a-first");
    first["Job"]["Name"] = json!("a-first");
    agent.run(first.to_string().as_bytes());
    let eval = agent.run(pump(1).to_string().as_bytes());
    let unplaced = agent.run(stuck.to_string().as_bytes());
    let blocked = agent.get(&format!("/v1/evaluation/{unplaced}"))["BlockedEval"].as_str().unwrap().to_owned();
    let alloc = agent.allocs("pump", 1, |alloc| alloc["ClientStatus"] == "running")[0]["ID"].as_str().unwrap().to_owned();
    let node = agent.get("/v1/nodes")[0]["ID"].as_str().unwrap().to_owned();
    let stat = format!("/v1/client/fs/stat/{alloc}?path=alloc/data/a.txt");
    let deadline = std::time::Instant::now() + LIMIT;
    while agent.ask("GET", &stat, b"").status != 200 {
        assert!(std::time::Instant::now() < deadline, "the task wrote nothing");
    }
    let translate = |text: &str| {
        text.replace("0a1b2c3d-0000-4000-8000-000000000001", &alloc)
            .replace("0e1b2c3d-0000-4000-8000-000000000001", &eval)
            .replace("0e1b2c3d-0000-4000-8000-000000000002", &blocked)
            .replace("0d1b2c3d-0000-4000-8000-000000000001", &node)
    };

    let (mut compared_n, mut later_n, mut faults) = (0, 0, Vec::new());
    let name = |line: &Value| line["name"].as_str().unwrap().to_owned();
    let (last, mut order): (Vec<&Value>, Vec<&Value>) = lines.iter().partition(|line| LAST.contains(&name(line).as_str()));
    order.extend(LAST.iter().flat_map(|wanted| last.iter().copied().filter(move |line| name(line) == *wanted)));
    for line in order {
        let name = name(line);
        if let Some((_, why)) = LATER.iter().find(|(later, _)| *later == name) {
            println!("later: {name}: {why}");
            later_n += 1;
            continue;
        }
        let body = match &line["request_body"] {
            Value::Null => body(&name),
            body => translate(&body.to_string()).into_bytes(),
        };
        let path = translate(line["path"].as_str().unwrap());
        let got = agent.ask(line["method"].as_str().unwrap(), &path, &body);
        let mut found = Vec::new();
        if Some(u64::from(got.status)) != line["status"].as_u64() {
            found.push(format!("status {}, not {}: {}", got.status, line["status"], got.text()));
        }
        for header in line["headers"].as_object().unwrap().keys() {
            if got.header(header).is_empty() {
                found.push(format!("no {header}"));
            }
        }
        match (&line["body_text"], line.get("body")) {
            (Value::String(text), _) => {
                let text = translate(text);
                // The index of this machine's job is its own.
                let is_same =
                    if name == "job-register-conflict" { got.text().starts_with(text.trim_end_matches('9')) } else { got.text() == text };
                if !is_same {
                    found.push(format!("{:?}, not {text:?}", got.text()));
                }
            }
            (_, Some(want)) if got.status == 200 => has_shape("", want, &got.json(), &mut found),
            _ => {}
        }
        faults.extend(found.into_iter().map(|fault| format!("{name}: {fault}")));
        compared_n += 1;
        if name == "alloc-stop" {
            agent.wait(&format!("/v1/allocation/{alloc}"), LIMIT, |alloc| alloc["ClientStatus"] == "complete");
        }
    }
    println!("examples: {} lines, {compared_n} compared, {later_n} later", lines.len());
    assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
    assert_eq!((lines.len(), compared_n, later_n), (80, 63, 17));
}

/// What a standalone node answers where the examples describe a joined one (`spec/http-api.md` 9.2).
#[test]
fn a_standalone_node_is_its_own_server() {
    let agent = Real::start("standalone", Options::default());
    assert_eq!(agent.get("/v1/agent/servers"), json!([]));
    assert_eq!(agent.get("/v1/agent/health"), json!({"client": {"ok": true, "message": "ok"}}));
    assert_eq!(agent.get("/v1/agent/health?type=client")["client"]["ok"], true);
    let workers = agent.get("/v1/agent/schedulers");
    assert_eq!(workers["schedulers"].as_array().map(Vec::len), Some(1), "{workers}");
    assert_eq!(agent.get("/v1/status/peers").as_array().map(Vec::len), Some(1));
    let leader = agent.get("/v1/status/leader");
    assert!(leader.as_str().is_some_and(|leader| leader.ends_with(":4647")), "{leader}");
    for (method, path, status, text) in [
        ("GET", "/v1/agent/join?address=x", 405, "Invalid method"),
        ("POST", "/v1/agent/join?address=127.0.0.1:1", 501, "Invalid method"),
        ("PUT", "/v1/agent/servers", 400, "missing server address"),
        ("DELETE", "/v1/agent/servers?address=x", 405, "Invalid method"),
        ("POST", "/v1/agent/self", 405, "Invalid method"),
    ] {
        let answer = agent.ask(method, path, b"");
        assert_eq!((answer.status, answer.text().as_str()), (status, text), "{method} {path}");
    }
}
