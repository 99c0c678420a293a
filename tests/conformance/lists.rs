//! Filters on every list, pages, and search, through a real agent (`spec/http-api.md` 1.8, 1.9, 8.2).

use dunlin_tests::real::{Options, Real};
use serde_json::{Value, json};

use super::contract::shell_job;

/// Percent-encodes what a query cannot hold.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn items(answer: &Value) -> usize {
    answer.as_array().map_or(0, Vec::len)
}

/// An agent with two jobs, each of which runs.
fn agent(name: &str) -> Real {
    let agent = Real::start(name, Options::default());
    for (id, site) in [("one", "north"), ("two", "south")] {
        let mut job = shell_job(id, "sleep 1000");
        job["Job"]["Meta"] = json!({"site": site, "a.b": "dotted"});
        agent.run(job.to_string().as_bytes());
        agent.allocs(id, 1, |alloc| alloc["ClientStatus"] == "running");
    }
    agent
}

#[test]
fn every_list_is_filtered_by_what_is_stored() {
    let agent = agent("filters");
    let node = agent.get("/v1/nodes")[0]["ID"].as_str().unwrap().to_owned();
    let eval = agent.get("/v1/job/one/evaluations")[0]["ID"].as_str().unwrap().to_owned();
    for (path, filter, want_n) in [
        ("/v1/jobs", "Meta.site == north", 1),
        ("/v1/jobs", "Meta[\"a.b\"] == dotted and (any TaskGroups as g { all g.Tasks as t { t.Driver == raw_exec } })", 2),
        ("/v1/jobs", "Periodic is not nil", 0),
        ("/v1/allocations", "Job.Meta.site == south and TaskStates.t.State == running", 1),
        ("/v1/allocations", "JobID matches \"^(one|two)$\" and \"-c\" in Job.TaskGroups.0.Tasks.0.Config.args", 2),
        ("/v1/allocations", "DeploymentStatus is nil and not JobID == one", 1),
        ("/v1/evaluations", "JobID == two and QueuedAllocations.g == 0", 1),
        ("/v1/nodes", "Attributes[\"kernel.name\"] == linux and raw_exec in Drivers", 1),
        ("/v1/nodes", "Drivers.raw_exec.Healthy == false", 0),
        ("/v1/deployments", "JobID == one and TaskGroups.g.DesiredTotal == 1", 1),
        ("/v1/job/one/deployments", "IsMultiregion == true", 0),
        ("/v1/job/one/allocations", "ClientStatus == running", 1),
        ("/v1/job/one/allocations", "ClientStatus == pending", 0),
        ("/v1/job/one/evaluations", "TriggeredBy == \"job-register\"", 1),
        ("/v1/job/one/evaluations", "Status == blocked", 0),
        (&format!("/v1/node/{node}/allocations"), "JobID == one", 1),
        (&format!("/v1/evaluation/{eval}/allocations"), "JobID == one", 1),
        (&format!("/v1/evaluation/{eval}/allocations"), "JobID == two", 0),
    ] {
        let got = agent.get(&format!("{path}?filter={}", encoded(filter)));
        assert_eq!(items(&got), want_n, "{path} {filter}: {got}");
        let bad = agent.ask("GET", &format!("{path}?filter=x"), b"");
        let begin = "failed to create result paginator: failed to read filter expression: 1:2 (1): ";
        assert!(bad.status == 400 && bad.text().starts_with(begin) && bad.index() == 0, "{path}: {} {}", bad.status, bad.text());
        let bad = agent.ask("GET", &format!("{path}?filter=Nope+is+nil&pretty"), b"");
        let begin = "failed to read result page: error finding value in datum: /Nope at part 0: ";
        assert!(bad.status == 400 && bad.text().starts_with(begin) && bad.index() == 0, "{path}: {} {}", bad.status, bad.text());
    }
    // What is filtered with an own parameter is not filtered twice.
    let both = agent.ask("GET", "/v1/evaluations?job=one&filter=Status%3D%3Dcomplete", b"");
    assert_eq!((both.status, both.text().as_str()), (400, "Filter expression cannot be used with other filter parameters"));
}

#[test]
fn pages_name_their_successor() {
    let agent = agent("pages");
    for (path, filter) in
        [("/v1/jobs", ""), ("/v1/allocations", ""), ("/v1/evaluations", "&filter=Status%3D%3Dcomplete"), ("/v1/jobs", "&pretty")]
    {
        let (mut token, mut met) = (String::new(), Vec::new());
        loop {
            let page = agent.ask("GET", &format!("{path}?per_page=1&next_token={token}{filter}"), b"");
            assert_eq!((page.status, items(&page.json())), (200, 1), "{path}: {}", page.text());
            met.push(page.json()[0]["JobID"].as_str().or(page.json()[0]["ID"].as_str()).unwrap().to_owned());
            token = page.header("X-Nomad-NextToken").to_owned();
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(met, ["one", "two"], "{path}");
    }
}

#[test]
fn search_finds_what_begins_so() {
    let agent = agent("search");
    let alloc = agent.get("/v1/job/one/allocations")[0]["ID"].as_str().unwrap().to_owned();
    let eval = agent.get("/v1/job/one/evaluations")[0]["ID"].as_str().unwrap().to_owned();
    let node = agent.get("/v1/nodes")[0]["ID"].as_str().unwrap().to_owned();
    let search = |prefix: &str, context: &str| {
        let answer = agent.ask("PUT", "/v1/search", json!({"Prefix": prefix, "Context": context}).to_string().as_bytes());
        assert_eq!((answer.status, answer.header("X-Nomad-KnownLeader")), (200, "true"), "{}", answer.text());
        assert!(answer.index() > 0 && answer.json()["Index"] == answer.index());
        answer.json()
    };
    // Whole, cut between two digits of a byte, and by the dash.
    for cut in [36, 35, 8, 9, 7] {
        for (context, id) in [("allocs", &alloc), ("evals", &eval), ("nodes", &node)] {
            let found = search(&id[..cut], context);
            assert_eq!((&found["Matches"], &found["Truncations"]), (&json!({context: [id]}), &json!({context: false})));
        }
    }
    let all = search("", "all");
    let contexts: Vec<&String> = all["Matches"].as_object().unwrap().keys().collect();
    let known = "allocs deployment evals host_volumes jobs namespaces node_pools nodes plugins scaling_policy vars volumes";
    assert_eq!(contexts, known.split(' ').collect::<Vec<_>>());
    assert_eq!(all["Matches"]["jobs"], json!(["one", "two"]));
    assert_eq!(all["Matches"]["namespaces"], json!(["default", "local"]));
    assert_eq!((items(&all["Matches"]["allocs"]), &all["Matches"]["volumes"]), (2, &Value::Null));
    // A name is no id: contexts of ids are not in the answer. Prefixes of jobs are not cut.
    let named = search("one", "all");
    assert_eq!(named["Matches"]["jobs"], json!(["one"]));
    assert_eq!(["allocs", "evals", "nodes", "deployment"].map(|context| named["Matches"].get(context)), [None; 4]);
    assert_eq!(search("tw", "jobs")["Matches"], json!({"jobs": ["two"]}));
    assert_eq!(search("x", "jobs")["Matches"], json!({"jobs": null}));
    for n in 0..21 {
        agent.run(shell_job(&format!("many-{n:02}"), "sleep 1000").to_string().as_bytes());
    }
    let many = search("many", "jobs");
    assert_eq!(
        (items(&many["Matches"]["jobs"]), &many["Matches"]["jobs"][19], &many["Truncations"]["jobs"]),
        (20, &json!("many-19"), &json!(true))
    );
    let elsewhere = agent.ask("POST", "/v1/search?namespace=local&pretty", br#"{"Prefix":"","Context":"jobs"}"#);
    assert_eq!(elsewhere.json()["Matches"], json!({"jobs": null}));

    let contexts = "allocs jobs nodes node_pools evals deployment plugins volumes scaling_policy vars namespaces host_volumes";
    for (method, path, body, status, text) in [
        ("GET", "/v1/search", "", 405, "Invalid method".to_owned()),
        ("PUT", "/v1/search", "", 400, "EOF".to_owned()),
        (
            "PUT",
            "/v1/search",
            r#"{"Context":"quotas"}"#,
            500,
            format!("context must be one of [{contexts}] or 'all' for all contexts; got \"quotas\""),
        ),
        (
            "POST",
            "/v1/search/fuzzy",
            r#"{"Text":"o","Context":"all"}"#,
            501,
            "fuzzy search is not supported by this agent; /v1/search finds what begins with a prefix".to_owned(),
        ),
        ("GET", "/v1/search/fuzzy", "", 405, "Invalid method".to_owned()),
    ] {
        let answer = agent.ask(method, path, body.as_bytes());
        assert_eq!((answer.status, answer.text()), (status, text), "{method} {path} {body}");
    }
}
