//! Dispatch and force, as asked of the API.

use super::*;

/// 2027-01-15 08:00:00.
const EIGHT: i64 = 1_800_000_000;

fn world() -> World {
    let mut world = World::new(1);
    world.now.wall = Wall(EIGHT * 1_000_000_000);
    world
}

fn parameterized(id: &str, block: &str, more: &str) -> String {
    job(id, "batch", 1).replacen("\"Type\"", &format!("\"ParameterizedJob\":{{{block}}}{more},\"Type\""), 1)
}

#[track_caller]
fn refused(world: &mut World, path: &str, body: &str, want: (u16, &str)) {
    let id = world.send(Method::Put, path, body);
    let (status, text) = world.replies.remove(&id).unwrap();
    assert_eq!((status, text.as_str()), want, "{path} {body}");
}

#[test]
fn a_dispatch_makes_a_job_with_payload_and_meta() {
    let mut world = world();
    let block = r#""Payload":"required","MetaRequired":["unit"],"MetaOptional":["note"]"#;
    let posted = parameterized("c", block, r#","Meta":{"unit":"none","site":"north"}"#).replacen(
        "\"Driver\"",
        r#""DispatchPayload":{"File":"in/../in/put.bin"},"Driver""#,
        1,
    );
    let registered = world.ask(Method::Put, "/v1/jobs", &posted);
    assert_eq!((&registered["EvalID"], &world.get("/v1/job/c")["Status"]), (&"".into(), &"running".into()));
    let commits_n = world.commits_n;
    let answer = world.ask(Method::Post, "/v1/job/c/dispatch", r#"{"Meta":{"unit":"7"},"Payload":"AP8K"}"#);
    assert_eq!((world.commits_n - commits_n, world.launches.len()), (1, 1));
    let id = answer["DispatchedJobID"].as_str().unwrap();
    assert!(id.starts_with("c/dispatch-1800000000-") && id.len() == "c/dispatch-1800000000-".len() + 8, "{id}");
    let (created, eval_created) = (answer["JobCreateIndex"].as_u64().unwrap(), answer["EvalCreateIndex"].as_u64().unwrap());
    assert_eq!((eval_created, answer["Index"].as_u64().unwrap()), (created + 1, created + 1));

    let child = world.get(&format!("/v1/job/{id}"));
    assert_eq!((&child["Name"], &child["ParentID"], &child["Dispatched"]), (&id.into(), &"c".into(), &true.into()));
    assert_eq!((&child["Payload"], &child["ParameterizedJob"]["Payload"]), (&"AP8K".into(), &"required".into()));
    assert_eq!(child["Meta"], serde_json::json!({"unit": "7", "site": "north"}));
    assert_eq!((&child["Status"], &child["CreateIndex"]), (&"running".into(), &created.into()));
    let eval = world.get(&format!("/v1/evaluation/{}", answer["EvalID"].as_str().unwrap()));
    assert_eq!((&eval["TriggeredBy"], &eval["JobID"], &eval["CreateIndex"]), (&"job-register".into(), &id.into(), &eval_created.into()));
    assert_eq!(eval["JobModifyIndex"], created);
    assert_eq!(world.get("/v1/job/c/summary")["Children"], serde_json::json!({"Pending": 0, "Running": 1, "Dead": 0}));
    let stub = &world.get("/v1/jobs?prefix=c/")[0];
    assert_eq!((&stub["ParentID"], &stub["ParameterizedJob"], &stub["Periodic"]), (&"c".into(), &false.into(), &false.into()));

    let launch = world.last_launch.clone().unwrap();
    let file = dunlin_runtime::driver::RenderedFile { path: "local/in/put.bin".into(), bytes: vec![0, 0xff, b'\n'], mode: 0o755 };
    assert_eq!(launch.files, [file]);
    let env = |name: &str| launch.env.get(name).map(String::as_str);
    assert_eq!((env("NOMAD_META_unit"), env("NOMAD_META_note"), env("NOMAD_META_site")), (Some("7"), Some(""), Some("north")));
    assert_eq!((env("NOMAD_JOB_ID"), env("NOMAD_JOB_PARENT_ID")), (Some(id), Some("c")));

    // It outlives the agent and its parent.
    world.crash(false);
    world.end_all(1);
    while world.launches.len() < 2 {
        assert!(world.wait(60_000));
    }
    assert_eq!(world.last_launch.clone().unwrap().files.len(), 1, "each start finds it");
    world.ask(Method::Delete, "/v1/job/c", "");
    assert_eq!(world.alive().len(), 1);
    world.end_all(0);
    assert_eq!(world.get("/v1/job/c/summary")["Children"]["Dead"], 1);
    assert_eq!(world.get(&format!("/v1/job/{id}"))["Status"], "dead");
}

#[test]
fn a_token_dispatches_once() {
    let mut world = world();
    world.ask(Method::Put, "/v1/jobs", &parameterized("c", "", ""));
    world.ask(Method::Put, "/v1/jobs", &parameterized("c2", "", ""));
    let first = world.ask(Method::Put, "/v1/job/c/dispatch?idempotency_token=t", "{}");
    let again = world.ask(Method::Put, "/v1/job/c/dispatch", r#"{"IdempotencyToken":"t"}"#);
    assert_eq!((&again["DispatchedJobID"], &again["JobCreateIndex"]), (&first["DispatchedJobID"], &first["JobCreateIndex"]));
    assert_eq!((&again["EvalID"], &again["EvalCreateIndex"]), (&"".into(), &0.into()));
    assert_eq!(world.launches.len(), 1);
    let id = first["DispatchedJobID"].as_str().unwrap();
    assert_eq!(world.get(&format!("/v1/job/{id}"))["DispatchIdempotencyToken"], "t");
    for path in ["/v1/job/c/dispatch?idempotency_token=u", "/v1/job/c2/dispatch?idempotency_token=t", "/v1/job/c/dispatch"] {
        let other = world.ask(Method::Put, path, "{}");
        assert_ne!(other["DispatchedJobID"], first["DispatchedJobID"], "{path}");
    }
    world.crash(false);
    let again = world.ask(Method::Put, "/v1/job/c/dispatch?idempotency_token=t", "{}");
    assert_eq!(again["DispatchedJobID"], first["DispatchedJobID"]);
    let prefixed = world.ask(Method::Put, "/v1/job/c/dispatch", r#"{"IdPrefixTemplate":"night"}"#);
    assert!(prefixed["DispatchedJobID"].as_str().unwrap().starts_with("c/dispatch-night-1800000000-"), "{prefixed}");
}

#[test]
fn what_cannot_be_dispatched_says_why() {
    let mut world = world();
    world.ask(Method::Put, "/v1/jobs", &job("plain", "batch", 1));
    world.ask(Method::Put, "/v1/jobs", &parameterized("c", r#""Payload":"forbidden","MetaRequired":["a"]"#, ""));
    refused(&mut world, "/v1/job/c/dispatch", "", (400, "Request body is empty"));
    refused(&mut world, "/v1/job/c/dispatch", r#"{"JobID":"d"}"#, (400, "Job ID does not match"));
    refused(&mut world, "/v1/job/d/dispatch", "{}", (500, "parameterized job not found"));
    refused(&mut world, "/v1/job/c/dispatch?namespace=other", "{}", (500, "parameterized job not found"));
    refused(&mut world, "/v1/job/plain/dispatch", "{}", (500, "Specified job \"plain\" is not a parameterized job"));
    let forbidden = "Payload provided but forbidden by parameterized job";
    refused(&mut world, "/v1/job/c/dispatch", r#"{"Payload":"AAAA","Meta":{"a":""}}"#, (500, forbidden));
    refused(&mut world, "/v1/job/c/dispatch", "{}", (500, "Dispatch did not provide required meta keys: [a]"));
    assert_eq!(world.launches.len(), 1, "nothing but the plain job has run");
    let answer = world.ask(Method::Put, "/v1/job/c/dispatch", r#"{"JobID":"c","Meta":{"a":"x"},"Payload":null}"#);
    let id = answer["DispatchedJobID"].as_str().unwrap().to_owned();
    let why = format!("Specified job \"{id}\" is not a parameterized job");
    refused(&mut world, &format!("/v1/job/{id}/dispatch"), "{}", (500, &why));
    let full = "1 children of the job have not ended, at most 1 may be so";
    world.core.setting.budget.children_living_max = 1;
    refused(&mut world, "/v1/job/c/dispatch", r#"{"Meta":{"a":"x"}}"#, (429, full));
    world.ask(Method::Delete, "/v1/job/c", "");
    refused(&mut world, "/v1/job/c/dispatch", r#"{"Meta":{"a":"x"}}"#, (500, "Specified job \"c\" is stopped"));
    let posted = job("new", "batch", 1).replacen("\"Type\"", "\"Dispatched\":true,\"Type\"", 1);
    refused(&mut world, "/v1/jobs", &posted, (500, "job can't be submitted with 'Dispatched' set"));
}

#[test]
fn a_periodic_job_can_be_forced() {
    let mut world = world();
    let block = r#""Periodic":{"Spec":"0 9 * * *","ProhibitOverlap":true},"Type""#;
    world.ask(Method::Put, "/v1/jobs", &job("p", "batch", 1).replacen("\"Type\"", block, 1));
    let ids: Vec<String> = (0..3)
        .map(|_| {
            let answer = world.ask(Method::Put, "/v1/job/p/periodic/force", "");
            assert_eq!(answer["EvalCreateIndex"], answer["Index"]);
            let eval = world.get(&format!("/v1/evaluation/{}", answer["EvalID"].as_str().unwrap()));
            assert_eq!((&eval["TriggeredBy"], &eval["CreateIndex"]), (&"periodic-job".into(), &answer["Index"]));
            eval["JobID"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(ids, ["p/periodic-1800000000", "p/periodic-1799999999", "p/periodic-1799999998"]);
    assert_eq!(world.get("/v1/job/p/summary")["Children"]["Running"], 3, "overlap or not");
    world.end_all(0);
    while world.wait(3_600_000) {}
    assert_eq!(world.get("/v1/job/p/periodic-1800003600")["Status"], "running", "its slots come all the same");

    refused(&mut world, "/v1/job/q/periodic/force", "", (500, "job not found"));
    world.ask(Method::Put, "/v1/jobs", &job("plain", "batch", 1));
    refused(&mut world, "/v1/job/plain/periodic/force", "", (500, "can't force launch non-periodic job"));
    world.ask(Method::Delete, "/v1/job/p", "");
    let why = "force launch for job \"p\" failed: can't force run non-tracked job \"p\" (default)";
    refused(&mut world, "/v1/job/p/periodic/force", "", (500, why));
}

#[test]
fn a_job_may_be_dispatched_and_periodic() {
    let mut world = world();
    let more = r#","Periodic":{"Spec":"* * * * *"}"#;
    world.ask(Method::Put, "/v1/jobs", &parameterized("c", r#""MetaOptional":["a"]"#, more));
    let why = "force launch for job \"c\" failed: can't force run non-tracked job \"c\" (default)";
    refused(&mut world, "/v1/job/c/periodic/force", "", (500, why));
    let answer = world.ask(Method::Put, "/v1/job/c/dispatch", r#"{"Meta":{"a":"x"}}"#);
    assert_eq!((&answer["EvalID"], &answer["Index"]), (&"".into(), &answer["JobCreateIndex"]));
    let id = answer["DispatchedJobID"].as_str().unwrap();
    assert_eq!((&world.get(&format!("/v1/job/{id}"))["Status"], world.launches.len()), (&"running".into(), 0));
    while world.wait(60_000) && world.launches.is_empty() {}
    let child = world.get(&format!("/v1/job/{id}/periodic-1800000060"));
    assert_eq!((&child["ParentID"], &child["Meta"]["a"], &child["Status"]), (&id.into(), &"x".into(), &"running".into()));
    assert_eq!(world.get("/v1/job/c/summary")["Children"]["Running"], 1);
}

/// The agent dies before every effect of a dispatch that is tried again until it is answered: with its token it is done once.
#[test]
fn a_cut_dispatch_is_done_once() {
    let mut cut_at = 0;
    loop {
        let mut world = world();
        world.ask(Method::Put, "/v1/jobs", &parameterized("c", "", ""));
        world.cut_at = Some(world.steps_n + cut_at);
        let id = world.send(Method::Put, "/v1/job/c/dispatch?idempotency_token=t", "{}");
        let was_cut = world.is_cut;
        let was_answered = world.replies.contains_key(&id);
        if was_cut {
            world.crash(cut_at % 2 == 0);
        }
        world.cut_at = None;
        if !was_answered {
            world.ask(Method::Put, "/v1/job/c/dispatch?idempotency_token=t", "{}");
        }
        assert_eq!(world.get("/v1/jobs?prefix=c/").as_array().unwrap().len(), 1, "cut {cut_at}");
        assert_eq!(world.get("/v1/job/c/summary")["Children"]["Dead"], 0, "cut {cut_at}");
        assert_eq!(world.get("/v1/allocations").as_array().unwrap().len(), 1, "cut {cut_at}");
        if !was_cut {
            break;
        }
        cut_at += 1;
    }
    assert!(cut_at > 2, "{cut_at}");
}
