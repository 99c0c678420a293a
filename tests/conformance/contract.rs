//! What holds for all routes: indexes, meta headers, blocking, methods, headers of the configuration (`spec/http-api.md` 1, `spec/jobs.md` 5).

use std::time::{Duration, Instant};

use dunlin_tests::golden;
use dunlin_tests::http;
use dunlin_tests::real::{Options, Real};
use serde_json::{Value, json};

const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// A job of one task that runs `script` with a shell.
pub fn shell_job(id: &str, script: &str) -> Value {
    json!({"Job": {"ID": id, "Name": id, "Type": "service", "Datacenters": ["dc1"], "TaskGroups": [{"Name": "g", "Tasks": [{
        "Name": "t", "Driver": "raw_exec", "Config": {"command": "/bin/sh", "args": ["-c", script]},
        "Resources": {"CPU": 20, "MemoryMB": 16}, "KillTimeout": 10_000_000_000u64}]}]}})
}

#[test]
fn a_registration_takes_three_indexes() {
    let agent = Real::start("indexes", Options::default());
    let answer = agent.ask("PUT", "/v1/jobs", &golden::job("telemetry"));
    let done = answer.json();
    let n = done["Index"].as_u64().unwrap();
    assert_eq!(answer.index(), n);
    assert_eq!((&done["JobModifyIndex"], &done["EvalCreateIndex"]), (&json!(n), &json!(n)));
    let eval = agent.get(&format!("/v1/evaluation/{}", done["EvalID"].as_str().unwrap()));
    assert_eq!(
        (&eval["CreateIndex"], &eval["SnapshotIndex"], &eval["JobModifyIndex"], &eval["ModifyIndex"]),
        (&json!(n), &json!(n), &json!(n), &json!(n + 2))
    );
    let allocs = agent.allocs("telemetry", 2, |alloc| alloc["ClientStatus"] == "running");
    for alloc in &allocs {
        let whole = agent.get(&format!("/v1/allocation/{}", alloc["ID"].as_str().unwrap()));
        assert_eq!((&whole["CreateIndex"], &whole["AllocModifyIndex"]), (&json!(n + 1), &json!(n + 1)));
        assert!(whole["ModifyIndex"].as_u64() > Some(n + 2), "{whole}");
        assert!(whole["ModifyTime"].as_i64() > whole["CreateTime"].as_i64());
        assert_eq!(whole["Job"]["ModifyIndex"], n, "the job as it was scheduled");
    }
    let job = agent.get("/v1/job/telemetry");
    assert_eq!((&job["CreateIndex"], &job["JobModifyIndex"]), (&json!(n), &json!(n)));
    assert!(job["ModifyIndex"].as_u64() > Some(n), "its status has changed since: {job}");

    // The same again: an evaluation, but no version.
    let again = agent.put("/v1/jobs", &golden::job("telemetry"));
    assert_eq!(again["JobModifyIndex"], n);
    assert!(again["Index"].as_u64() > Some(n + 2));
    assert_ne!(again["EvalID"], done["EvalID"]);
    assert_eq!(agent.get("/v1/job/telemetry")["Version"], 0);

    // A change of desire moves both indexes.
    let id = allocs[0]["ID"].as_str().unwrap();
    let before = agent.get(&format!("/v1/allocation/{id}"));
    let stopped = agent.put(&format!("/v1/allocation/{id}/stop"), b"");
    let after = agent.wait(&format!("/v1/allocation/{id}"), Duration::from_secs(20), |alloc| alloc["ClientStatus"] == "complete");
    assert!(
        after["AllocModifyIndex"].as_u64() >= stopped["Index"].as_u64()
            && after["AllocModifyIndex"].as_u64() > before["AllocModifyIndex"].as_u64()
    );
    assert!(after["ModifyIndex"].as_u64() > after["AllocModifyIndex"].as_u64(), "the client's news came later: {after}");
    assert!(after["ModifyTime"].as_i64() > before["ModifyTime"].as_i64());
}

#[test]
fn enforced_indexes_are_enforced() {
    let agent = Real::start("enforce", Options::default());
    let ask = |index: u64| {
        let mut job = shell_job("enforced", "sleep 1000");
        job["EnforceIndex"] = json!(true);
        job["JobModifyIndex"] = json!(index);
        agent.ask("PUT", "/v1/jobs", job.to_string().as_bytes())
    };
    let refused = ask(7);
    assert_eq!((refused.status, refused.text().as_str()), (500, "Enforcing job modify index 7: job does not exist"));
    let done = ask(0);
    assert_eq!(done.status, 200, "{}", done.text());
    let n = done.json()["JobModifyIndex"].as_u64().unwrap();
    assert_eq!(ask(0).text(), "Enforcing job modify index 0: job already exists");
    assert_eq!(ask(n + 1).text(), format!("Enforcing job modify index {}: job exists with conflicting job modify index: {n}", n + 1));
    assert_eq!(ask(n).status, 200);
}

/// Reads of objects and lists carry the meta headers, a 404 too; 400 and 500 carry none.
#[test]
fn meta_headers() {
    let agent = Real::start("meta", Options::default());
    agent.run(shell_job("here", "sleep 1000").to_string().as_bytes());
    agent.allocs("here", 1, |alloc| alloc["ClientStatus"] == "running");
    let node = agent.get("/v1/nodes")[0]["ID"].as_str().unwrap().to_owned();
    let missing = [
        (format!("/v1/allocation/{NIL}"), "alloc not found"),
        (format!("/v1/evaluation/{NIL}"), "eval not found"),
        (format!("/v1/node/{NIL}"), "node not found"),
        ("/v1/job/none".to_owned(), "job not found"),
        ("/v1/job/none/summary".to_owned(), "job not found"),
        ("/v1/job/none/versions".to_owned(), "job versions not found"),
        (format!("/v1/deployment/{NIL}"), "deployment not found"),
    ];
    let reads = [
        "/v1/jobs",
        "/v1/job/here",
        "/v1/job/here/summary",
        "/v1/job/here/allocations",
        "/v1/job/here/evaluations",
        "/v1/job/here/versions",
        "/v1/job/here/deployments",
        "/v1/job/here/deployment",
        "/v1/job/none/allocations",
        "/v1/allocations",
        "/v1/evaluations",
        "/v1/nodes",
        "/v1/namespaces",
        "/v1/deployments",
    ];
    let reads = reads
        .iter()
        .map(|path| ((*path).to_owned(), 200, ""))
        .chain([(format!("/v1/node/{node}"), 200, ""), (format!("/v1/node/{node}/allocations"), 200, "")]);
    for (path, status, text) in reads.chain(missing.into_iter().map(|(path, text)| (path, 404, text))) {
        let answer = agent.ask("GET", &path, b"");
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.index() > 0, "{path}: {:?}", answer.headers);
        assert_eq!(
            (answer.header("X-Nomad-Knownleader"), answer.header("X-Nomad-Lastcontact"), answer.header("X-Nomad-Edge-Mode")),
            ("true", "0", "standalone"),
            "{path}"
        );
        if status == 404 {
            assert_eq!((answer.text().as_str(), answer.header("Content-Type")), (text, "text/plain; charset=utf-8"), "{path}");
        } else {
            assert_eq!(answer.header("Content-Type"), "application/json", "{path}");
        }
        let head = agent.ask("HEAD", &path, b"");
        assert_eq!(head.status, 405, "HEAD {path}");
        let post = agent.ask("DELETE", &path, b"");
        assert!(post.status == 405 || path.starts_with("/v1/job/") && post.status == 200, "DELETE {path}: {}", post.status);
    }
    for path in ["/v1/allocations?index=x", "/v1/allocations?prefix=abc", "/v1/allocation/short"] {
        let answer = agent.ask("GET", path, b"");
        assert!(answer.status >= 400);
        assert!(answer.headers.keys().all(|name| !name.starts_with("x-nomad")), "{path}: {:?}", answer.headers);
    }
}

#[test]
fn common_parameters() {
    let agent = Real::start("common", Options::default());
    for (query, status, text) in [
        ("index=x", 400, "Invalid index"),
        ("index=-1", 400, "Invalid index"),
        ("wait=5", 400, "Invalid wait time"),
        ("wait=0", 200, ""),
        ("stale=perhaps", 400, "Expect `true` or `false` for `stale` query string parameter"),
        ("stale", 200, ""),
        ("stale=T", 200, ""),
        ("per_page=many", 400, "Expect a number for `per_page` query string parameter"),
        ("per_page=99999999999", 400, "Expect a number for `per_page` query string parameter"),
        ("region=mars", 500, "No path to region"),
        ("region=global", 200, ""),
        ("reverse=perhaps", 200, ""),
        ("prefix=%zz", 400, "invalid query \"%zz\": not percent-encoded UTF-8"),
    ] {
        for path in ["/v1/jobs", "/v1/evaluations"] {
            let answer = agent.ask("GET", &format!("{path}?{query}"), b"");
            assert_eq!(answer.status, status, "{path}?{query}: {}", answer.text());
            if status != 200 {
                assert_eq!(answer.text(), text, "{path}?{query}");
            }
        }
    }
    for path in ["/v1/jobs", "/v1/agent/self", "/v1/nodes", "/v1/namespaces", "/v1/client/stats"] {
        let pretty = agent.ask("GET", &format!("{path}?pretty"), b"").text();
        assert!(pretty.ends_with('\n') && (pretty.contains("\n    ") || pretty == "[]\n"), "{path}: {pretty}");
        let plain = agent.ask("GET", &format!("{path}?pretty=0"), b"").text();
        assert!(!plain.contains('\n'), "{path}: {plain}");
    }
}

#[test]
fn a_query_blocks_until_its_table_changes() {
    let agent = Real::start("blocking", Options::default());
    let index = agent.ask("GET", "/v1/jobs", b"").index();
    let begun = Instant::now();
    let answer = agent.ask("GET", &format!("/v1/jobs?index={index}&wait=300ms"), b"");
    assert_eq!((answer.status, answer.index(), answer.text().as_str()), (200, index, "[]"));
    assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // An object that is not there is waited for as well.
    let waiting = http::open_later(agent.addr, "GET", &format!("/v1/job/late?index={index}&wait=60s")).unwrap();
    agent.run(shell_job("late", "sleep 1000").to_string().as_bytes());
    let answer = waiting.whole().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.index() > index);
    let begun = Instant::now();
    let missing = agent.ask("GET", "/v1/job/never?index=999999&wait=200ms", b"");
    assert_eq!((missing.status, missing.text().as_str()), (404, "job not found"));
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[test]
fn configured_headers_are_on_every_answer() {
    let config = json!({"http_api_response_headers": {"X-Device": "shore 7", "Access-Control-Allow-Origin": "http://panel", "Content-Type": "text/html", "Content-Length": "5"}});
    let agent = Real::start("headers", Options { config: Some(config), ..Options::default() });
    for (path, kind) in [
        ("/v1/jobs", "application/json"),
        ("/v1/nope", "text/html"),
        ("/v1/job/none", "text/plain; charset=utf-8"),
        ("/v1/client/gc", "text/html"),
        ("/v1/client/stats", "application/json"),
    ] {
        let answer = agent.ask("GET", path, b"");
        assert_eq!(
            (answer.header("X-Device"), answer.header("Content-Type"), answer.header("Access-Control-Allow-Origin")),
            ("shore 7", kind, "http://panel"),
            "{path}"
        );
    }
    // The handler's own wins.
    let mut answer = http::open(agent.addr, "GET", "/v1/client/stats", &[("Origin", "http://elsewhere")], b"").unwrap();
    assert_eq!(answer.headers["access-control-allow-origin"], "*");
    std::io::copy(&mut answer, &mut std::io::sink()).unwrap();
    assert!(agent.log().contains("http_api_response_headers: Content-Length is not set"), "{}", agent.log());
}

#[test]
fn every_request_is_logged_at_debug() {
    let config = json!({"log_level": "DEBUG"});
    let agent = Real::start("request-log", Options { config: Some(config), ..Options::default() });
    agent.get("/v1/regions");
    agent.ask("PUT", "/v1/nope?secret=1", b"");
    let log = agent.log();
    assert!(log.contains("request: method=GET path=/v1/regions status=200"), "{log}");
    assert!(log.contains("request: method=PUT path=/v1/nope status=404"), "{log}");
    assert!(!log.contains("secret=1"), "queries may hold secrets: {log}");
}

/// The answer to a restart comes when the old process has ended (`spec/http-api.md` 3.2).
#[test]
fn a_restart_waits_for_the_old_process() {
    let agent = Real::start("restart", Options::default());
    let script = "trap 'sleep 1; exit 0' INT; echo $$ >> $NOMAD_ALLOC_DIR/pids; while :; do sleep 0.1; done";
    agent.run(shell_job("slow", script).to_string().as_bytes());
    let alloc = agent.allocs("slow", 1, |alloc| alloc["ClientStatus"] == "running")[0]["ID"].as_str().unwrap().to_owned();
    let stat = format!("/v1/client/fs/stat/{alloc}?path=alloc/pids");
    let pids = format!("/v1/client/fs/cat/{alloc}?path=alloc/pids");
    let deadline = Instant::now() + Duration::from_secs(20);
    while agent.ask("GET", &stat, b"").status != 200 || agent.ask("GET", &pids, b"").body.is_empty() {
        assert!(Instant::now() < deadline, "the task never wrote its pid");
    }
    let old = agent.ask("GET", &pids, b"").text().trim().to_owned();
    assert!(std::path::Path::new("/proc").join(&old).exists());
    let begun = Instant::now();
    let answer = agent.ask("PUT", &format!("/v1/client/allocation/{alloc}/restart"), b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, "{\"Index\":0}"));
    assert!(begun.elapsed() >= Duration::from_millis(900), "it answered after {:?}", begun.elapsed());
    let state = std::fs::read_to_string(format!("/proc/{old}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "the old process lives: {state}");
    let after = agent.get(&format!("/v1/allocation/{alloc}"));
    assert_eq!(after["TaskStates"]["t"]["Restarts"], 1);
}
