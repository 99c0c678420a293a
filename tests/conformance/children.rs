//! Jobs that make jobs, by the machine's own clock and on its own disk (`spec/jobs.md` 6).

use std::time::Duration;

use dunlin_tests::golden;
use dunlin_tests::real::{Options, Real};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);

/// `convert` with one child and `nightly` with two, all ended; the children's ids in their order. Its own slots would come in between,
/// so `nightly` gets a schedule that does not come; what is compared does not show it.
pub fn some(agent: &Real) -> Vec<String> {
    let nightly = String::from_utf8(golden::job("nightly")).unwrap();
    agent.run(nightly.replace("* * * * *", "0 0 29 2 *").as_bytes());
    agent.run(&golden::job("convert"));
    let dispatched = agent.put("/v1/job/convert/dispatch", br#"{"Meta":{"unit":"7"},"Payload":"aW5wdXQ="}"#);
    let mut ids = vec![dispatched["DispatchedJobID"].as_str().unwrap().to_owned()];
    for _ in 0..2 {
        let forced = agent.put("/v1/job/nightly/periodic/force", b"");
        let eval = agent.get(&format!("/v1/evaluation/{}", forced["EvalID"].as_str().unwrap()));
        ids.push(eval["JobID"].as_str().unwrap().to_owned());
    }
    for (job, n) in [("convert", 1), ("nightly", 2)] {
        agent.wait(&format!("/v1/job/{job}/summary"), LIMIT, |summary| summary["Children"]["Dead"] == n);
    }
    ids.sort();
    ids
}

fn children(agent: &Real, parent: &str) -> Vec<Value> {
    agent.get(&format!("/v1/jobs?prefix={parent}/")).as_array().unwrap().clone()
}

#[test]
fn slots_come_by_the_clock_and_never_twice() {
    let agent = Real::start("slots", Options::default());
    let mut job: Value = serde_json::from_slice(&golden::job("nightly")).unwrap();
    job["Job"]["Periodic"]["Spec"] = json!("* * * * * * *");
    let registered = agent.put("/v1/jobs", job.to_string().as_bytes());
    assert_eq!(registered["EvalID"], "");
    let dead = |n: u64| move |summary: &Value| summary["Children"]["Dead"].as_u64() >= Some(n);
    agent.wait("/v1/job/nightly/summary", LIMIT, dead(2));
    // Killed and started again it goes on, and what was launched is not launched again.
    let (scratch, options) = agent.kill();
    let agent = Real::start_in(scratch, options);
    agent.wait("/v1/job/nightly/summary", LIMIT, dead(4));
    let stopped = agent.ask("DELETE", "/v1/job/nightly", b"");
    assert_eq!(stopped.json()["EvalID"], "");
    let all = children(&agent, "nightly");
    let slots: Vec<u64> =
        all.iter().map(|child| child["ID"].as_str().unwrap().strip_prefix("nightly/periodic-").unwrap().parse().unwrap()).collect();
    assert!(slots.len() >= 4 && slots.windows(2).all(|two| two[0] < two[1]), "{slots:?}");
    for (child, slot) in all.iter().zip(&slots) {
        let submitted_s = child["SubmitTime"].as_u64().unwrap() / 1_000_000_000;
        assert!((*slot..slot + 3).contains(&submitted_s), "{child}");
        let allocs = agent.allocs(child["ID"].as_str().unwrap(), 1, |alloc| alloc["ClientStatus"] == "complete");
        assert_eq!(allocs.len(), 1, "{allocs:?}");
    }
    let summary = agent.get("/v1/job/nightly/summary");
    let counts: u64 = ["Pending", "Running", "Dead"].iter().map(|bin| summary["Children"][bin].as_u64().unwrap()).sum();
    assert_eq!(counts, all.len() as u64);
}

#[test]
fn a_dispatched_task_reads_what_it_was_sent() {
    let agent = Real::start("payload", Options::default());
    agent.run(&golden::job("convert"));
    let answer = agent.put("/v1/job/convert/dispatch", br#"{"Meta":{"unit":"7"},"Payload":"AP8K"}"#);
    let id = answer["DispatchedJobID"].as_str().unwrap();
    let alloc = agent.allocs(id, 1, |alloc| alloc["ClientStatus"] == "complete")[0]["ID"].as_str().unwrap().to_owned();
    let log = agent.ask("GET", &format!("/v1/client/fs/logs/{alloc}?task=run&type=stdout&plain=true"), b"");
    assert_eq!(log.text(), "unit=7 bytes=3\n");
    let file = agent.get(&format!("/v1/client/fs/stat/{alloc}?path=run/local/input.txt"));
    assert_eq!((&file["Size"], &file["FileMode"]), (&json!(3), &json!("-rwxr-xr-x")));
    let bytes = agent.ask("GET", &format!("/v1/client/fs/cat/{alloc}?path=run/local/input.txt"), b"");
    assert_eq!(bytes.body, [0, 0xff, b'\n']);
}

#[test]
fn schedules_and_zones_are_checked_at_submission() {
    let agent = Real::start("schedules", Options::default());
    let refused = |periodic: Value| {
        let mut job: Value = serde_json::from_slice(&golden::job("nightly")).unwrap();
        job["Job"]["Periodic"] = periodic;
        let answer = agent.ask("PUT", "/v1/jobs", job.to_string().as_bytes());
        assert_eq!(answer.status, 500, "{}", answer.text());
        answer.text()
    };
    let text = refused(json!({"Spec": "61 * * * *", "TimeZone": "Mars/Base"}));
    assert_eq!(
        text,
        "1 error occurred:\n\t* 2 errors occurred:\n\t* Invalid time zone \"Mars/Base\": unknown time zone Mars/Base\n\
         \t* Invalid cron spec \"61 * * * *\": syntax error in minute field: '61'\n\n\n\n"
    );
    for outside in ["../../../etc/hostname", "/etc/hostname"] {
        let text = refused(json!({"Spec": "@daily", "TimeZone": outside}));
        assert!(text.contains(": time: invalid location name"), "{text}");
    }
    assert_eq!(agent.get("/v1/jobs"), json!([]));
}
