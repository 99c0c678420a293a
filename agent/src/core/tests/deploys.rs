//! Deployments and replacements of failures, with the clock in the test's hand.

use super::*;

const S: u64 = 1_000;

/// A service with an update and a reschedule block.
fn rollout(command: &str, count: u32, update: &str, reschedule: &str) -> String {
    let text = job("j", "service", count).replace("/bin/x", command);
    let blocks = format!(r#""Update":{{{update}}},"ReschedulePolicy":{{{reschedule}}},"RestartPolicy""#);
    text.replace(r#""RestartPolicy""#, &blocks).replace(r#""Attempts":1,"#, r#""Attempts":0,"#)
}

const NEVER: &str = r#""Attempts":0,"Unlimited":false"#;
const SOON: &str = r#""Unlimited":true,"Delay":5000000000,"DelayFunction":"constant""#;

impl World {
    fn deployment(&mut self) -> String {
        let latest = self.get("/v1/job/j/deployment");
        let group = &latest["TaskGroups"]["g"];
        let n = |name: &str| group[name].as_u64().unwrap();
        format!(
            "v{} {}: {} of {} healthy, {} placed, {} unhealthy",
            latest["JobVersion"],
            latest["StatusDescription"].as_str().unwrap(),
            n("HealthyAllocs"),
            n("DesiredTotal"),
            n("PlacedAllocs"),
            n("UnhealthyAllocs")
        )
    }

    /// `<index>v<version>` of what runs.
    fn running(&mut self) -> String {
        let allocs = self.get("/v1/job/j/allocations");
        let mut all: Vec<String> = allocs
            .as_array()
            .unwrap()
            .iter()
            .filter(|alloc| alloc["ClientStatus"] == "running" && alloc["DesiredStatus"] == "run")
            .map(|alloc| format!("{}v{}", alloc["Name"].as_str().unwrap().trim_start_matches("j.g"), alloc["JobVersion"]))
            .collect();
        all.sort();
        all.join(" ")
    }

    fn put(&mut self, text: &str) {
        self.ask(Method::Put, "/v1/jobs", text);
    }
}

#[test]
fn what_runs_long_enough_is_healthy_and_its_version_stable() {
    let mut world = World::new(1);
    world.put(&rollout("/bin/x", 2, "", SOON));
    assert_eq!(world.deployment(), "v0 Deployment is running: 0 of 2 healthy, 2 placed, 0 unhealthy");
    world.pass(9 * S);
    assert_eq!(world.deployment(), "v0 Deployment is running: 0 of 2 healthy, 2 placed, 0 unhealthy");
    assert_eq!(world.get("/v1/job/j")["Stable"], false);
    world.pass(2 * S);
    assert_eq!(world.deployment(), "v0 Deployment completed successfully: 2 of 2 healthy, 2 placed, 0 unhealthy");
    assert_eq!(world.get("/v1/job/j")["Stable"], true);
    let evals = world.get("/v1/job/j/evaluations");
    let triggers: Vec<&str> = evals.as_array().unwrap().iter().map(|eval| eval["TriggeredBy"].as_str().unwrap()).collect();
    assert_eq!(triggers, ["job-register", "deployment-watcher"], "both became healthy within one look");
    assert!(!world.wait(24 * 3_600 * S), "a deployment that is over sets no timer");
}

#[test]
fn who_waits_for_a_deployment_is_told_its_end() {
    let mut world = World::new(1);
    world.put(&rollout("/bin/x", 1, "", SOON));
    world.pass(2 * S);
    let id = world.get("/v1/job/j/deployment")["ID"].as_str().unwrap().to_owned();
    let mut index = 0;
    let mut seen = Vec::new();
    for _ in 0..9 {
        let waiting = world.send(Method::Get, &format!("/v1/deployment/{id}?index={index}&wait=5m"), "");
        world.pass(20 * S);
        let Some((200, text)) = world.replies.remove(&waiting) else { panic!("nobody told, after {seen:?}") };
        let latest: Value = serde_json::from_str(&text).unwrap();
        index = latest["ModifyIndex"].as_u64().unwrap();
        seen.push(latest["Status"].as_str().unwrap().to_owned());
        if latest["Status"] != "running" {
            break;
        }
    }
    assert_eq!(seen.last().unwrap(), "successful");
    // A write wakes those who wait for its table, whatever follows from it.
    let jobs = world.core.store.table_index(Table::Jobs);
    let waiting = world.send(Method::Get, &format!("/v1/job/j?index={jobs}&wait=5m"), "");
    world.ask(Method::Put, "/v1/job/j/stable", r#"{"JobID":"j","JobVersion":0,"Stable":false}"#);
    assert!(world.replies.contains_key(&waiting));
}

#[test]
fn a_new_version_takes_over_one_by_one() {
    let mut world = World::new(1);
    world.put(&rollout("/bin/x", 3, "", SOON));
    world.pass(20 * S);
    world.put(&rollout("/bin/y", 3, r#""MaxParallel":1"#, SOON));
    assert_eq!(world.running(), "[0]v1 [1]v0 [2]v0");
    world.pass(11 * S);
    assert_eq!(world.running(), "[0]v1 [1]v1 [2]v0");
    world.pass(11 * S);
    assert_eq!(world.running(), "[0]v1 [1]v1 [2]v1");
    assert_eq!(world.deployment(), "v1 Deployment is running: 2 of 3 healthy, 3 placed, 0 unhealthy");
    world.pass(11 * S);
    assert_eq!(world.deployment(), "v1 Deployment completed successfully: 3 of 3 healthy, 3 placed, 0 unhealthy");
    // What makes the same processes goes on in place, and is a deployment all the same.
    let lives = world.launches.len();
    world.put(&rollout("/bin/y", 3, r#""MaxParallel":2"#, SOON));
    world.pass(12 * S);
    assert_eq!(world.running(), "[0]v2 [1]v2 [2]v2");
    assert_eq!(world.launches.len(), lives, "nothing was started anew");
    assert_eq!(world.deployment(), "v2 Deployment completed successfully: 3 of 3 healthy, 3 placed, 0 unhealthy");
}

#[test]
fn a_version_that_fails_gives_way_to_the_last_stable_one() {
    let mut world = World::new(1);
    world.put(&rollout("/bin/x", 2, r#""AutoRevert":true"#, NEVER));
    world.pass(20 * S);
    world.put(&rollout("/bin/bad", 2, r#""AutoRevert":true,"MaxParallel":2"#, NEVER));
    assert_eq!(world.running(), "[0]v1 [1]v1");
    world.end_all(1);
    world.pass(S);
    let deployments = world.get("/v1/job/j/deployments");
    assert_eq!(deployments[1]["StatusDescription"], "Failed due to unhealthy allocations - rolling back to job version 0");
    assert_eq!(world.running(), "[0]v2", "one at a time, as that version says");
    let command = world.get("/v1/job/j")["TaskGroups"][0]["Tasks"][0]["Config"]["command"].clone();
    assert_eq!(command, "/bin/x");
    world.pass(40 * S);
    assert_eq!(world.deployment(), "v2 Deployment completed successfully: 2 of 2 healthy, 2 placed, 0 unhealthy");
    // What has failed and was replaced is wanted no more, so it is forgotten in its time though its job lives on.
    for alloc in world.get("/v1/job/j/allocations").as_array().unwrap().iter().filter(|alloc| alloc["ClientStatus"] == "failed") {
        assert!(alloc["JobVersion"] == 1 && alloc["DesiredStatus"] == "stop", "{alloc}");
    }
    // Were that to fail too there is nothing else to go back to: no circle.
    world.put(&rollout("/bin/x", 2, r#""AutoRevert":true,"MaxParallel":1"#, NEVER).replace(r#""MemoryMB":10"#, r#""MemoryMB":11"#));
    world.end_all(1);
    world.pass(S);
    let told = world.get("/v1/job/j/deployments")[3]["StatusDescription"].clone();
    assert_eq!(told, "Failed due to unhealthy allocations - rolling back to job version 2");
}

#[test]
fn no_progress_in_time_fails() {
    let mut world = World::new(1);
    // Restarts for ever, so it never runs long enough.
    let flapping = rollout("/bin/x", 1, r#""HealthyDeadline":60000000000,"ProgressDeadline":120000000000"#, SOON)
        .replace(r#""Attempts":0,"Interval""#, r#""Attempts":9,"Interval""#);
    world.put(&flapping);
    for _ in 0..6 {
        world.pass(9 * S);
        world.end_all(1);
    }
    world.pass(10 * S);
    assert!(world.deployment().starts_with("v0 Deployment is running: 0 of 1 healthy"), "{}", world.deployment());
    assert!(world.deployment().ends_with("1 unhealthy"), "{}", world.deployment());
    world.pass(60 * S);
    assert!(world.deployment().starts_with("v0 Failed due to progress deadline"), "{}", world.deployment());
}

#[test]
fn canaries_are_tried_beside_the_old_version() {
    let mut world = World::new(1);
    world.put(&rollout("/bin/x", 2, "", SOON));
    world.pass(20 * S);
    world.put(&rollout("/bin/y", 2, r#""Canary":1"#, SOON));
    assert_eq!(world.running(), "[0]v0 [0]v1 [1]v0");
    assert!(world.deployment().starts_with("v1 Deployment is running but requires manual promotion"));
    world.pass(20 * S);
    let id = world.get("/v1/job/j/deployment")["ID"].as_str().unwrap().to_owned();
    // The old version goes on as the old version.
    let old = world.processes.iter().find(|(_, process)| process.end.is_none()).map(|(inv, _)| *inv).unwrap();
    world.end(old, 1, 0);
    world.pass(6 * S);
    assert_eq!(world.running(), "[0]v0 [0]v1 [1]v0");
    let done = world.ask(Method::Put, &format!("/v1/deployment/promote/{id}"), &format!(r#"{{"DeploymentID":"{id}","All":true}}"#));
    assert!(!done["EvalID"].as_str().unwrap().is_empty());
    world.pass(40 * S);
    assert_eq!(world.running(), "[0]v1 [1]v1");
    assert!(world.deployment().starts_with("v1 Deployment completed successfully"), "{}", world.deployment());

    // By themselves, when asked to; and gone when a newer version comes.
    world.put(&rollout("/bin/z", 2, r#""Canary":1,"AutoPromote":true"#, SOON));
    assert!(world.deployment().starts_with("v2 Deployment is running pending automatic promotion"));
    world.pass(40 * S);
    assert_eq!(world.running(), "[0]v2 [1]v2");
    world.put(&rollout("/bin/w", 2, r#""Canary":2"#, SOON));
    assert_eq!(world.running(), "[0]v2 [0]v3 [1]v2 [1]v3");
    world.put(&rollout("/bin/z", 2, r#""Canary":1,"AutoPromote":true"#, SOON));
    world.pass(40 * S);
    assert_eq!(world.running(), "[0]v4 [1]v4");
}

#[test]
fn users_hold_fail_and_judge() {
    let mut world = World::new(1);
    world.put(&rollout("/bin/x", 2, r#""HealthCheck":"manual""#, SOON));
    world.pass(20 * S);
    assert_eq!(world.deployment(), "v0 Deployment is running: 0 of 2 healthy, 2 placed, 0 unhealthy");
    let id = world.get("/v1/job/j/deployment")["ID"].as_str().unwrap().to_owned();
    let allocs = world.get(&format!("/v1/deployment/allocations/{id}"));
    let ids: Vec<String> = allocs.as_array().unwrap().iter().map(|alloc| alloc["ID"].as_str().unwrap().to_owned()).collect();
    let judged = format!(r#"{{"DeploymentID":"{id}","HealthyAllocationIDs":["{}","{}"]}}"#, ids[0], ids[1]);
    world.ask(Method::Put, &format!("/v1/deployment/allocation-health/{id}"), &judged);
    assert_eq!(world.deployment(), "v0 Deployment completed successfully: 2 of 2 healthy, 2 placed, 0 unhealthy");
    let (named, held) = (format!(r#"{{"DeploymentID":"{id}"}}"#), format!(r#"{{"DeploymentID":"{id}","Pause":true}}"#));
    for (verb, body, what) in [
        ("fail", "", "fail"),
        ("pause", &held, "pause"),
        ("pause", &named, "resume"),
        ("promote", &named, "promote"),
        ("allocation-health", &judged, "set health of allocations for a"),
    ] {
        let over = world.send(Method::Put, &format!("/v1/deployment/{verb}/{id}"), body);
        let (status, text) = world.replies.remove(&over).unwrap();
        assert_eq!((status, text), (500, format!("can't {what} terminal deployment")));
    }

    world.put(&rollout("/bin/y", 2, "", SOON));
    let id = world.get("/v1/job/j/deployment")["ID"].as_str().unwrap().to_owned();
    let pause = |on: bool| format!(r#"{{"DeploymentID":"{id}","Pause":{on}}}"#);
    world.ask(Method::Put, &format!("/v1/deployment/pause/{id}"), &pause(true));
    world.pass(3_600 * S);
    assert_eq!(world.running(), "[0]v1 [1]v0");
    assert!(world.deployment().starts_with("v1 Deployment is paused: 1 of 2"), "{}", world.deployment());
    world.ask(Method::Put, &format!("/v1/deployment/pause/{id}"), &pause(false));
    assert_eq!(world.running(), "[0]v1 [1]v1");
    world.ask(Method::Put, &format!("/v1/deployment/fail/{id}"), "");
    assert!(world.deployment().starts_with("v1 Deployment marked as failed"), "{}", world.deployment());
    assert_eq!(world.get("/v1/job/j")["Stable"], false);
}

#[test]
fn a_stopped_job_has_no_deployment_to_wait_for() {
    let mut world = World::new(1);
    world.put(&rollout("/bin/x", 1, "", SOON));
    world.ask(Method::Delete, "/v1/job/j", "");
    assert!(world.deployment().starts_with("v0 Cancelled because job is stopped"));
    world.pass(3_600 * S);
    assert_eq!(world.events("j"), "Received, Task Setup, Started, Killing, Terminated, Killed");
}

#[test]
fn failures_are_replaced_after_their_delay() {
    let mut world = World::new(1);
    world.put(&rollout("/bin/x", 1, "", r#""Unlimited":true,"Delay":30000000000,"DelayFunction":"exponential","MaxDelay":100000000000"#));
    world.pass(20 * S);
    world.end_all(1);
    assert_eq!(world.running(), "");
    let failed = world.get("/v1/job/j/allocations")[0].clone();
    let eval = world.get(&format!("/v1/evaluation/{}", failed["FollowupEvalID"].as_str().unwrap()));
    assert_eq!((eval["Status"].as_str(), eval["TriggeredBy"].as_str()), (Some("pending"), Some("alloc-failure")));
    assert_eq!(eval["StatusDescription"], "created for delayed rescheduling");
    world.pass(29 * S);
    assert_eq!(world.running(), "");
    // It is waited for by the next agent too, and a clock that was set back does not make it longer.
    world.now.wall = Wall(world.now.wall.0 - 1_000_000_000_000);
    world.crash(false);
    world.pass(31 * S);
    assert_eq!(world.running(), "[0]v0");
    let next = world.get("/v1/job/j/allocations?reverse=true")[0].clone();
    assert_eq!(next["RescheduleTracker"]["Events"][0]["Delay"], 30_000_000_000_u64);
    assert_eq!(next["RescheduleTracker"]["Events"][0]["PrevAllocID"], failed["ID"]);
    world.end_all(1);
    world.pass(59 * S);
    assert_eq!(world.running(), "");
    world.pass(2 * S);
    assert_eq!(world.running(), "[0]v0");
}

#[test]
fn a_failure_is_replaced_at_once_when_a_user_says_so() {
    let mut world = World::new(1);
    world.put(&rollout("/bin/x", 1, "", r#""Unlimited":true,"Delay":3600000000000,"DelayFunction":"constant""#));
    world.pass(20 * S);
    world.end_all(1);
    assert_eq!(world.running(), "");
    world.ask(Method::Put, "/v1/job/j/evaluate", r#"{"JobID":"j"}"#);
    assert_eq!(world.running(), "");
    world.ask(Method::Put, "/v1/job/j/evaluate", r#"{"JobID":"j","EvalOptions":{"ForceReschedule":true}}"#);
    assert_eq!(world.running(), "[0]v0");
}

#[test]
fn a_deployment_lives_on_after_a_cut_at_any_step() {
    let steps_n = {
        let mut world = World::new(1);
        world.put(&rollout("/bin/x", 2, "", SOON));
        world.pass(20 * S);
        let before = world.steps_n;
        world.put(&rollout("/bin/y", 2, "", SOON));
        world.pass(40 * S);
        assert_eq!(world.running(), "[0]v1 [1]v1");
        world.steps_n - before
    };
    for cut in 0..steps_n {
        let mut world = World::new(1);
        world.put(&rollout("/bin/x", 2, "", SOON));
        world.pass(20 * S);
        world.cut_at = Some(world.steps_n + cut);
        let id = world.send(Method::Put, "/v1/jobs", &rollout("/bin/y", 2, "", SOON));
        if !world.is_cut {
            world.pass(40 * S);
        }
        let was_told = world.replies.contains_key(&id);
        world.crash(cut.is_multiple_of(2));
        world.pass(60 * S);
        let running = world.running();
        assert!(running == "[0]v1 [1]v1" || (!was_told && running == "[0]v0 [1]v0"), "cut at {cut}: {running}");
        let told = world.deployment();
        assert!(told.contains("completed successfully: 2 of 2 healthy"), "cut at {cut}: {told}");
    }
}

#[test]
fn a_plan_tells_what_would_happen_and_changes_nothing() {
    let mut world = World::new(1);
    world.put(&rollout("/bin/x", 3, "", SOON));
    world.pass(20 * S);
    let (commits_n, before) = (world.commits_n, world.get("/v1/job/j"));
    let ask = rollout("/bin/y", 4, r#""MaxParallel":2"#, SOON).replacen(r#"{"Job""#, r#"{"Diff":true,"Job""#, 1);
    let plan = world.ask(Method::Put, "/v1/job/j/plan", &ask);
    let updates = &plan["Annotations"]["DesiredTGUpdates"]["g"];
    let n = |name: &str| updates[name].as_u64().unwrap();
    assert_eq!([n("Place"), n("DestructiveUpdate"), n("Ignore"), n("Stop")], [1, 1, 2, 0], "{updates}");
    assert_eq!(plan["Diff"]["Type"], "Edited");
    assert_eq!(plan["Diff"]["TaskGroups"][0]["Updates"]["create"], 1);
    assert_eq!(plan["JobModifyIndex"], before["JobModifyIndex"]);
    assert_eq!(plan["FailedTGAllocs"], Value::Null);
    // More than there is room for.
    let plan = world.ask(Method::Put, "/v1/job/big/plan", &job("big", "service", 2).replace(r#""MemoryMB":10"#, r#""MemoryMB":1000000"#));
    assert_eq!(plan["FailedTGAllocs"]["g"]["DimensionExhausted"]["memory"], 1);
    assert_eq!(plan["CreatedEvals"][0]["Status"], "blocked");
    assert_eq!(plan["Diff"], Value::Null);
    // A job that makes jobs: what a child of it would place.
    for makes in [r#""Periodic":{"Spec":"@daily"},"#, r#""ParameterizedJob":{},"#] {
        let ask = job("makes", "batch", 1).replacen(r#""Type""#, &format!(r#"{makes}"Type""#), 1);
        let plan = world.ask(Method::Put, "/v1/job/makes/plan", &ask);
        assert_eq!(plan["Annotations"]["DesiredTGUpdates"]["g"]["Place"], 1, "{plan}");
    }
    assert_eq!(world.commits_n, commits_n);
    assert_eq!(world.get("/v1/job/j"), before);
    assert_eq!(world.get("/v1/jobs").as_array().unwrap().len(), 1);
    assert_eq!(world.running(), "[0]v0 [1]v0 [2]v0");
    world.pass(3_600 * S);
    assert_eq!(world.running(), "[0]v0 [1]v0 [2]v0");
}
