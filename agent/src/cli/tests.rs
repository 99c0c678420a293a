//! The verbs against recorded answers: whole output texts, exit status, and the requests that were made.
//!
//! `golden/recorded.json` holds answers of a real 1.1.2 agent to this project's own jobs and the project's own API examples, without
//! the members that are empty; deployments, scaling and changes of jobs are written in the API's shapes. A request it does not hold is
//! answered 404, so an output also proves what was asked.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use dunlin_hal::clock::{Clock, Mono, Now, Wall};
use dunlin_hal::sim::zones::SimZones;
use serde_json::{Value, json};

use super::client::{Exchange, Transport};
use super::{World, run};
use crate::model::diff::tests::annotated;
use crate::shell::client::{Ask, ClientError};
use crate::wire::http::Method;

/// 2026-11-22T07:07:10Z: 93 seconds after the recorded jobs were registered.
const NOW: i64 = 1_795_331_230_000_000_000;

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Now {
        Now { mono: Mono(0), wall: Wall(NOW) }
    }
}

/// Answers by method and target; an answer given as `{"status", "text"}` is sent with that status.
struct Recorded<'a> {
    answers: &'a BTreeMap<String, Value>,
    asked: &'a RefCell<Vec<String>>,
}

impl Transport for Recorded<'_> {
    fn exchange(&self, ask: &Ask<'_>) -> Result<Exchange, ClientError> {
        let method = match ask.method {
            Method::Get => "GET",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            _ => "?",
        };
        let asked = format!("{method} {}", ask.target);
        let answer = self.answers.get(&asked);
        let body = String::from_utf8_lossy(ask.body);
        let token = if ask.token.is_empty() { String::new() } else { format!(" token={}", ask.token) };
        self.asked.borrow_mut().push(format!("{asked}{token} {body}").trim_end().to_owned());
        let (status, bytes) = match answer {
            None => (404, b"not recorded".to_vec()),
            Some(Value::String(stream)) => (200, stream.clone().into_bytes()),
            // A page of a list that goes on.
            Some(answer) if answer.get("next").is_some() => {
                let next = answer.get("next").and_then(Value::as_str).unwrap().to_owned();
                let body = Box::new(io::Cursor::new(answer["page"].to_string().into_bytes()));
                return Ok(Exchange { status: 200, next, body });
            }
            Some(answer) => match (answer.get("status").and_then(Value::as_u64), answer.get("text").and_then(Value::as_str)) {
                (Some(status), Some(text)) => (u16::try_from(status).unwrap(), text.as_bytes().to_vec()),
                _ => (200, answer.to_string().into_bytes()),
            },
        };
        Ok(Exchange { status, next: String::new(), body: Box::new(io::Cursor::new(bytes)) })
    }
}

/// What one run printed, returned and asked.
struct Ran {
    code: u8,
    out: String,
    err: String,
    asked: Vec<String>,
}

/// A run with more than the recorded answers.
#[derive(Default)]
struct Setup {
    answers: BTreeMap<String, Value>,
    env: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<&'static str, String>,
    input: &'static str,
    zones: SimZones,
}

impl Setup {
    fn answer(mut self, asked: &str, answer: impl Into<Value>) -> Self {
        self.answers.insert(asked.to_owned(), answer.into());
        self
    }

    fn run(self, line: &str) -> Ran {
        let mut answers: BTreeMap<String, Value> = serde_json::from_str(include_str!("golden/recorded.json")).unwrap();
        answers.extend(self.answers);
        let asked = RefCell::default();
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut world = World {
            env: &|name| self.env.get(name).map(|value| (*value).to_owned()),
            connect: &|address, _| match address.split_once("://") {
                Some(("http", "127.0.0.1:4646" | "other:1")) => Ok(Box::new(Recorded { answers: &answers, asked: &asked })),
                _ => Err(format!("cannot use {address}")),
            },
            open: &|name| match self.files.get(name) {
                Some(text) => Ok(Box::new(io::Cursor::new(text.clone().into_bytes()))),
                None => Err(io::ErrorKind::NotFound.into()),
            },
            input: &mut self.input.as_bytes(),
            out: &mut out,
            err: &mut err,
            clock: &Fixed,
            zones: &self.zones,
        };
        let code = run(&words, &mut world);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ran { code, out: text(out), err: text(err), asked: asked.take() }
    }
}

/// A run as `golden/transcript.txt` writes it: what was typed, what was printed (`!` = on standard error), the exit status.
fn transcript(line: &str) -> String {
    let ran = Setup::default().run(line);
    let mut text = format!("$ dunlin {line}\n");
    for (mark, printed) in [("", &ran.out), ("! ", &ran.err)] {
        for line in printed.lines() {
            text.push_str(&format!("{mark}{line}\n"));
        }
    }
    text.push_str(&format!("[exit {}]\n", ran.code));
    text
}

#[test]
fn transcripts() {
    let golden = include_str!("golden/transcript.txt");
    let runs: Vec<&str> = golden.split("$ dunlin ").skip(1).collect();
    assert!(runs.len() > 80, "the transcript is not whole");
    if std::env::var_os("DUNLIN_RECORD").is_some() {
        let head = golden.split("$ dunlin ").next().unwrap_or_default();
        let all: Vec<String> = runs.iter().map(|run| transcript(run.lines().next().unwrap())).collect();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/golden/transcript.txt");
        return std::fs::write(path, format!("{head}{}", all.join("\n"))).unwrap();
    }
    for run in runs {
        let line = run.lines().next().unwrap();
        let got = transcript(line);
        assert_eq!(got.trim_end(), format!("$ dunlin {}", run.trim_end()), "\n{got}");
    }
}

/// A job that says where it belongs.
const JOB: &str = r#"{"Job": {"ID": "web", "Namespace": "local", "Region": "east", "Type": "service"}}"#;
/// Its registration and its evaluation.
const PUT_JOB: &str = "PUT /v1/jobs?region=east&namespace=local";
const EVAL: &str = "e0000000-0000-4000-8000-000000000001";

fn with_job(text: &str) -> Setup {
    Setup { files: BTreeMap::from([("web.json", text.to_owned())]), ..Setup::default() }
}

fn eval_path(tail: &str) -> String {
    format!("GET /v1/evaluation/{EVAL}{tail}region=east&namespace=local")
}

#[test]
fn a_job_is_posted_and_followed() {
    let allocs =
        json!([{"ID": "a1", "NodeID": "n1", "TaskGroup": "g", "DesiredStatus": "run", "ClientStatus": "pending", "CreateIndex": 9}]);
    let ran = with_job(JOB)
        .answer(PUT_JOB, json!({"EvalID": EVAL, "Warnings": "1 warning:\n\n* old"}))
        .answer(&eval_path("?"), json!({"ID": EVAL, "Status": "pending", "JobID": "web", "ModifyIndex": 8, "CreateIndex": 8}))
        .answer(
            &eval_path("?index=8&wait=1s&"),
            json!({"ID": EVAL, "Status": "complete", "JobID": "web", "ModifyIndex": 9, "CreateIndex": 8}),
        )
        .answer(&eval_path("/allocations?"), allocs)
        .run("job run -check-index 7 -eval-priority=80 -preserve-counts web.json");
    let at = "2026-11-22T07:07:10Z";
    let want = [
        format!("==> {at}: Monitoring evaluation \"e0000000\""),
        format!("    {at}: Evaluation triggered by job \"web\""),
        format!("    {at}: Allocation \"a1\" created: node \"n1\", group \"g\""),
        format!("    {at}: Evaluation status changed: \"pending\" -> \"complete\""),
        format!("==> {at}: Evaluation \"e0000000\" finished with status \"complete\"\n"),
    ];
    assert_eq!((ran.out, ran.code), (want.join("\n"), 0));
    assert_eq!(ran.err, "Job Warnings:\n1 warning:\n\n* old\n\n");
    let (call, body) = ran.asked[0].rsplit_once(' ').unwrap();
    assert_eq!(call, PUT_JOB);
    let want = json!({"Job": {"ID": "web", "Namespace": "local", "Region": "east", "Type": "service"},
        "EnforceIndex": true, "JobModifyIndex": 7, "EvalPriority": 80, "PreserveCounts": true});
    assert_eq!(serde_json::from_str::<Value>(body).unwrap(), want);
    assert_eq!(ran.asked.len(), 5);
}

#[test]
fn a_job_that_cannot_be_placed_exits_with_2() {
    let setup = || {
        with_job(r#"{"ID": "web"}"#)
            .answer("PUT /v1/jobs", json!({"EvalID": EVAL}))
            .answer(&format!("GET /v1/evaluation/{EVAL}"), json!({"ID": EVAL, "Status": "complete", "FailedTGAllocs": {"g": {}}}))
            .answer(&format!("GET /v1/evaluation/{EVAL}/allocations"), json!([]))
    };
    let ran = setup().run("job run web.json");
    assert_eq!(ran.code, 2);
    assert!(ran.out.ends_with("(failed to place 1 allocation):\n      * No eligible nodes to evaluate\n"), "{}", ran.out);
    let ran = setup().run("job run -json web.json");
    assert_eq!((ran.code, ran.asked.len()), (2, 2));
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap()["FailedTGAllocs"], json!({"g": {}}));
    let ran = setup().run("job run -detach web.json");
    assert_eq!((ran.out, ran.code), (format!("Job registration successful\nEvaluation ID: {EVAL}\n"), 0));
    let ran = setup().run("job run -detach -json web.json");
    assert_eq!(ran.out, format!("{{\n    \"EvalID\": \"{EVAL}\"\n}}\n"));
}

#[test]
fn chains_of_evaluations_are_followed_to_the_end() {
    let next = "e0000000-0000-4000-8000-000000000002";
    let ran = with_job(r#"{"ID": "web"}"#)
        .answer("PUT /v1/jobs", json!({"EvalID": EVAL}))
        .answer(&format!("GET /v1/evaluation/{EVAL}"), json!({"ID": EVAL, "Status": "complete", "NextEval": next}))
        .answer(&format!("GET /v1/evaluation/{EVAL}/allocations"), json!([]))
        .answer(&format!("GET /v1/evaluation/{next}"), json!({"ID": next, "Status": "failed"}))
        .answer(&format!("GET /v1/evaluation/{next}/allocations"), json!([]))
        .run("job run -verbose web.json");
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains(&format!("Monitoring evaluation \"{next}\"")), "{}", ran.out);
    assert!(ran.out.ends_with(&format!("Evaluation \"{next}\" finished with status \"failed\"\n")), "{}", ran.out);
}

const DEPLOYMENT: &str = "577d72b3-6189-61ce-f66f-8f7af2159963";

/// A deployment of one group, with canaries if some are wanted.
fn deployment(status: &str, why: &str, [canaries, healthy, unhealthy]: [u32; 3], index: u32) -> Value {
    json!({"ID": DEPLOYMENT, "Namespace": "local", "JobID": "web", "JobVersion": 1, "ModifyIndex": index, "Status": status,
        "StatusDescription": why, "TaskGroups": {"g": {"DesiredTotal": 2, "DesiredCanaries": canaries, "PlacedAllocs": 2,
        "HealthyAllocs": healthy, "UnhealthyAllocs": unhealthy, "RequireProgressBy": null}}})
}

/// A registration whose evaluation belongs to a deployment; its looks follow in `looks`.
fn deployed(looks: &[Value]) -> Setup {
    let mut setup = with_job(JOB)
        .answer(PUT_JOB, json!({"EvalID": EVAL}))
        .answer(&eval_path("?"), json!({"ID": EVAL, "Status": "complete", "DeploymentID": DEPLOYMENT}))
        .answer(&eval_path("/allocations?"), json!([]));
    let mut asked = String::new();
    for look in looks {
        setup = setup.answer(&format!("GET /v1/deployment/{DEPLOYMENT}?{asked}region=east&namespace=local"), look.clone());
        asked = format!("index={}&wait=2s&", look["ModifyIndex"]);
    }
    setup
}

/// What is printed from the deployment on, and the exit status.
fn followed(setup: Setup, line: &str) -> (String, u8) {
    let ran = setup.run(line);
    let at = "2026-11-22T07:07:10Z: ";
    (ran.out.split_once("==> 2026-11-22T07:07:10Z: Monitoring deployment ").unwrap().1.replace(at, ""), ran.code)
}

#[test]
fn a_deployment_is_followed_to_its_end() {
    let running = "Deployment is running";
    let looks = |last: Value| {
        [
            deployment("running", running, [0, 0, 0], 20),
            deployment("running", running, [0, 0, 0], 21),
            deployment("paused", "Deployment is paused", [0, 0, 0], 22),
            deployment("running", running, [0, 1, 0], 23),
            last,
        ]
    };
    let begin = "\"577d72b3\"\n    Deployment is running\n    Task Group  Desired  Placed  Healthy  Unhealthy\n    \
        g           2        2       0        0\n    Deployment is paused\n    Deployment is running\n    \
        Task Group  Desired  Placed  Healthy  Unhealthy\n    g           2        2       1        0\n    \
        Task Group  Desired  Placed  Healthy  Unhealthy\n";
    let good = || looks(deployment("successful", "Deployment completed successfully", [0, 2, 0], 24));
    let want = "    g           2        2       2        0\n\
        ==> Deployment \"577d72b3\" finished with status \"successful\": Deployment completed successfully\n";
    assert_eq!(followed(deployed(&good()), "job run web.json"), (format!("{begin}{want}"), 0));

    let bad = || looks(deployment("failed", "Failed due to unhealthy allocations", [0, 1, 1], 24));
    let want = "    g           2        2       1        1\n\
        ==> Deployment \"577d72b3\" finished with status \"failed\": Failed due to unhealthy allocations\n";
    assert_eq!(followed(deployed(&bad()), "job run web.json"), (format!("{begin}{want}"), 1));

    // A document is one document; the status and standard error tell the rest.
    let ran = deployed(&bad()).run("job run -json web.json");
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap()["ID"], EVAL);
    assert_eq!((ran.code, ran.err.as_str()), (1, "Deployment \"577d72b3\" failed: Failed due to unhealthy allocations\n"));
    let ran = deployed(&good()).run("job run -json web.json");
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));

    let ran = deployed(&good()).run("job run -detach web.json");
    assert_eq!((ran.code, ran.asked.len()), (0, 1));
    let ran = deployed(&[]).run("job run web.json");
    assert_eq!((ran.code, ran.err.as_str()), (1, "Error reading the deployment: not recorded (status 404)\n"));
}

#[test]
fn a_deployment_that_waits_for_a_user_is_left_to_him() {
    let why = "Deployment is running but requires manual promotion";
    let healthy = deployment("running", why, [1, 1, 0], 21);
    let (out, code) = followed(deployed(&[deployment("running", why, [1, 0, 0], 20), healthy.clone()]), "job run web.json");
    let want = "==> Deployment \"577d72b3\" waits to be promoted. If its canaries are good:\n\n\
        dunlin deployment promote 577d72b3\n\nIf they are not: dunlin deployment fail 577d72b3\n";
    assert!(out.ends_with(want), "{out}");
    assert_eq!((code, out.matches("Promoted").count()), (0, 2));
    // Nobody has to be asked when the agent promotes, or when it was done.
    for member in ["AutoPromote", "Promoted"] {
        let mut look = healthy.clone();
        look["TaskGroups"]["g"][member] = json!(true);
        let end = deployment("cancelled", "Cancelled due to newer version of job", [1, 1, 0], 22);
        let (out, code) = followed(deployed(&[look, end]), "job run web.json");
        assert!(out.ends_with("finished with status \"cancelled\": Cancelled due to newer version of job\n"), "{out}");
        assert_eq!(code, 1);
    }
}

#[test]
fn a_rollback_is_followed_too() {
    let why = "Failed due to progress deadline - rolling back to job version 0";
    let failed = || deployed(&[deployment("failed", why, [0, 1, 1], 20)]);
    let next = "ba0c0000-0000-4000-8000-000000000001";
    let latest = "GET /v1/job/web/deployment?namespace=local&index=20&wait=10s&region=east";
    let with = |status: &str| {
        let end = json!({"ID": next, "Status": status, "StatusDescription": "so it is"});
        failed().answer(latest, json!({"ID": next})).answer(&format!("GET /v1/deployment/{next}?region=east&namespace=local"), end)
    };
    for status in ["successful", "failed"] {
        let (out, code) = followed(with(status), "job run web.json");
        let want = format!(
            "==> Deployment \"577d72b3\" finished with status \"failed\": {why}\n==> Monitoring deployment \"ba0c0000\"\n\
             ==> Deployment \"ba0c0000\" finished with status \"{status}\": so it is\n"
        );
        assert!(out.ends_with(&want), "{out}");
        assert_eq!(code, 1);
    }
    for none in [Value::Null, deployment("failed", why, [0, 1, 1], 20)] {
        let (out, code) = followed(failed().answer(latest, none), "job run web.json");
        assert!(out.ends_with("    The older version has no deployment to follow\n"), "{out}");
        assert_eq!(code, 1);
    }
}

#[test]
fn job_files_that_are_none() {
    #[track_caller]
    fn check(setup: Setup, line: &str, want: &str) {
        let ran = setup.run(line);
        assert_eq!((ran.code, ran.out.as_str()), (1, ""));
        assert!(ran.err.starts_with(want), "{}", ran.err);
        assert!(ran.asked.is_empty());
    }
    let line = "job run web.json";
    check(with_job("job \"web\" {\n}\n"), line, "Error in the job file \"web.json\": it is not JSON. HCL is not read here");
    check(with_job(" \n"), line, "Error in the job file \"web.json\": it is empty");
    check(
        with_job("{\"Job\": {"),
        line,
        "Error in the job file \"web.json\": it is not JSON: EOF while parsing an object at line 1 column 9",
    );
    check(with_job("{\"Job\": [1]}"), line, "Error in the job file \"web.json\": the member \"Job\" is not an object");
    check(with_job(&"[".repeat(100_000)), line, "Error in the job file \"web.json\": it is not JSON. HCL");
    check(
        with_job(&format!("{{\"a\":{}", "[".repeat(100_000))),
        line,
        "Error in the job file \"web.json\": it is not JSON: recursion limit exceeded",
    );
    check(with_job(&" ".repeat((1 << 20) + 1)), line, "The job file \"web.json\" is longer than 1048576 bytes");
    check(Setup::default(), line, "Error reading the job file \"web.json\": entity not found");
    check(Setup { input: "x", ..Setup::default() }, "job run -", "Error in the job file standard input: it is not JSON");
}

#[test]
fn refused_jobs() {
    #[track_caller]
    fn check(status: u16, text: &str, want: &str) {
        let answer = json!({"status": status, "text": text});
        let ran = Setup { input: "{}", ..Setup::default() }.answer("PUT /v1/jobs", answer).run("job run -");
        assert_eq!((ran.err.as_str(), ran.code), (want, 1));
    }
    let index = "Enforcing job modify index 3: job exists with conflicting job modify index: 10";
    check(500, index, &format!("{index}\nJob not updated\n"));
    check(400, "Job must be specified", "Error submitting the job: Job must be specified (status 400)\n");
    check(413, "request body too large", "Error submitting the job: request body too large (status 413)\n");
}

#[test]
fn changes_between_two_looks() {
    let alloc = |client: &str, why: &str| json!([{"ID": "a1", "ClientStatus": client, "ClientDescription": why, "CreateIndex": 3}]);
    let ran = Setup::default()
        .answer("GET /v1/evaluations?prefix=e0&namespace=%2A", json!([{"ID": EVAL}]))
        .answer(&format!("GET /v1/evaluation/{EVAL}"), json!({"ID": EVAL, "Status": "pending", "NodeID": "n1", "CreateIndex": 5}))
        .answer(
            &format!("GET /v1/evaluation/{EVAL}?index=1&wait=1s"),
            json!({"ID": EVAL, "Status": "complete", "NodeID": "n1", "CreateIndex": 5}),
        )
        .answer(&format!("GET /v1/evaluation/{EVAL}/allocations"), alloc("pending", ""))
        .run("eval status -monitor e0");
    assert_eq!(ran.out.matches("Allocation \"a1\" modified").count(), 1, "{}", ran.out);
    assert!(ran.out.contains("triggered by node \"n1\""), "{}", ran.out);
    let mut progress = super::monitor::Progress::default();
    let (eval, ids) = (json!({"Status": "pending", "CreateIndex": 5}), super::table::Ids::Short);
    let mut look = |allocs: Value| progress.look(&eval, allocs.as_array().unwrap(), ids);
    assert_eq!(look(alloc("pending", "")), ["Allocation \"a1\" modified: node \"\", group \"\""]);
    assert_eq!(
        look(alloc("running", "Tasks are running")),
        ["Allocation \"a1\" status changed: \"pending\" -> \"running\" (Tasks are running)"]
    );
    assert_eq!(look(alloc("running", "x")), [""; 0]);
}

#[test]
fn what_is_sent() {
    #[track_caller]
    fn check(line: &str, want: &str) {
        let ran = Setup { input: "y\n", ..Setup::default() }.run(line);
        let sent: Vec<&String> = ran.asked.iter().filter(|asked| !asked.starts_with("GET")).collect();
        assert_eq!(sent, [want], "{}", ran.err);
    }
    let alloc = "/v1/client/allocation/29fbd40e-dc6c-9f86-343d-95c29ddd20f9";
    check("alloc signal 29fbd40e", &format!("PUT {alloc}/signal {{\"Signal\":\"SIGKILL\",\"Task\":\"\"}}"));
    check("alloc signal -s SIGHUP 29fbd40e sample", &format!("PUT {alloc}/signal {{\"Signal\":\"SIGHUP\",\"Task\":\"sample\"}}"));
    check("alloc restart -all-tasks 29fbd40e", &format!("PUT {alloc}/restart {{\"AllTasks\":true,\"TaskName\":\"\"}}"));
    check("alloc restart 29fbd40e -task sample", &format!("PUT {alloc}/restart {{\"AllTasks\":false,\"TaskName\":\"sample\"}}"));
    check("alloc stop -no-shutdown-delay 29fbd40e", "PUT /v1/allocation/29fbd40e-dc6c-9f86-343d-95c29ddd20f9/stop?no_shutdown_delay=true");
    let params = "namespace=default&purge=true&global=true&no_shutdown_delay=true&eval_priority=90";
    check("job stop -purge -global -no-shutdown-delay -eval-priority 90 telemetry", &format!("DELETE /v1/job/telemetry?{params}"));
    let canary = "ca7a0000-0000-4000-8000-000000000001";
    let change = |verb: &str| format!("PUT /v1/deployment/{verb}/{canary}?namespace=default");
    let id = format!("\"DeploymentID\":\"{canary}\"");
    check("deployment promote -detach ca7a", &format!("{} {{\"All\":true,{id}}}", change("promote")));
    check("deployment promote -detach -group a -group=b ca7a", &format!("{} {{{id},\"Groups\":[\"a\",\"b\"]}}", change("promote")));
    check("deployment fail -detach ca7a", &format!("{} {{{id}}}", change("fail")));
    check("deployment pause ca7a", &format!("{} {{{id},\"Pause\":true}}", change("pause")));
    check("deployment resume ca7a", &format!("{} {{{id},\"Pause\":false}}", change("pause")));
    let job = |verb: &str| format!("PUT /v1/job/telemetry/{verb}?namespace=default");
    check("job revert -detach tele 0", &format!("{} {{\"JobID\":\"telemetry\",\"JobVersion\":0}}", job("revert")));
    let scaled = "\"Message\":\"submitted using the Nomad CLI\",\"Target\":{\"Group\":\"sense\",\"Job\":\"telemetry\"}";
    check("job scale -detach tele 3", &format!("{} {{\"Count\":3,\"JobModifyIndex\":0,{scaled}}}", job("scale")));
    check("job scale -check-index 7 -detach tele sense 0", &format!("{} {{\"Count\":0,\"JobModifyIndex\":7,{scaled}}}", job("scale")));
    for (flag, forced) in [("", false), ("-force-reschedule", true)] {
        let body = format!("{{\"EvalOptions\":{{\"ForceReschedule\":{forced}}},\"JobID\":\"telemetry\"}}");
        check(&format!("job eval -detach {flag} tele"), &format!("{} {body}", job("evaluate")));
    }
    check("system gc", "PUT /v1/system/gc");
    check("job stop tele", "DELETE /v1/job/telemetry?namespace=default");
}

#[test]
fn a_shortened_job_is_stopped_only_on_yes() {
    for input in ["", "n\n", "yes\n", "Y\n", "x".repeat(1000).leak()] {
        let ran = Setup { input, ..Setup::default() }.run("job stop tele");
        assert!(ran.asked.iter().all(|asked| asked.starts_with("GET")), "{input}");
        assert_eq!((ran.err.as_str(), ran.code), ("Stop job \"telemetry\"? [y/N] Nothing was stopped\n", 0));
    }
    let ran = Setup::default().run("job stop -yes -detach tele");
    assert_eq!(ran.err, "");
    assert!(ran.asked.iter().any(|asked| asked.starts_with("DELETE")));
}

#[test]
fn settings_from_flags_and_environment() {
    #[track_caller]
    fn check(env: &[(&'static str, &'static str)], line: &str, want: &str) {
        let ran = Setup { env: env.iter().copied().collect(), ..Setup::default() }.run(line);
        assert_eq!(if ran.asked.is_empty() { ran.err } else { ran.asked[0].clone() }.trim_end(), want);
    }
    let env = [("NOMAD_ADDR", "http://other:1"), ("NOMAD_TOKEN", "t"), ("NOMAD_NAMESPACE", "n"), ("NOMAD_REGION", "r")];
    check(&[], "status", "GET /v1/jobs");
    check(&env, "status", "GET /v1/jobs?region=r&namespace=n token=t");
    check(&env, "status -token=T --namespace N -region R", "GET /v1/jobs?region=R&namespace=N token=T");
    check(&[("NOMAD_ADDR", "ftp://x"), ("NOMAD_TOKEN", "")], "status -address http://127.0.0.1:4646", "GET /v1/jobs");
    check(&[("NOMAD_ADDR", "ftp://x")], "status", "dunlin status: cannot use ftp://x\ndunlin status -h explains the command");
    check(&[("NOMAD_NAMESPACE", "n")], "alloc status 29", "GET /v1/allocations?prefix=29&namespace=n");
    check(&[], "alloc status 29fbd40-", "GET /v1/allocations?prefix=29fbd4&namespace=%2A");
    check(&[], "alloc status 29FBD40e-d", "GET /v1/allocations?prefix=29fbd40e-&namespace=%2A");
}

#[test]
fn a_document_of_a_job() {
    let ran = Setup::default().answer("GET /v1/job/web/summary?namespace=default", json!({"JobID": "web"}));
    let ran = ran.answer("GET /v1/job/web/evaluations?namespace=default", json!([]));
    let ran = ran.answer("GET /v1/job/web/allocations?namespace=default&all=true", json!([{"ID": "a"}]));
    let ran = ran.run("job status -json -all-allocs web");
    let want = json!([{"Allocations": [{"ID": "a"}], "Evaluations": [], "LatestDeployment": null, "Summary": {"JobID": "web"}}]);
    assert_eq!((serde_json::from_str::<Value>(&ran.out).unwrap(), ran.code), (want, 0));
}

#[test]
fn broken_streams_and_strange_answers() {
    let logs = "GET /v1/client/fs/logs/29fbd40e-dc6c-9f86-343d-95c29ddd20f9?task=sample&type=stdout&follow=false&origin=start&offset=0";
    let ran = Setup::default().answer(logs, "{}{\"Data\":\"YQ==\"}{\"Da").run("alloc logs 29fbd40e");
    assert_eq!((ran.out.as_str(), ran.code), ("a", 1));
    assert_eq!(ran.err, "The stream broke off: EOF while parsing a string at line 1 column 21\n");
    // Any document is shown as far as it can be read; none may stop the program.
    for answer in [json!(null), json!([]), json!(7), json!({"TaskStates": {"a": 1}, "Job": {"TaskGroups": [null, {"Tasks": {}}]}})] {
        for (line, asked) in [
            ("alloc status -verbose -stats 29fbd40e", "GET /v1/allocation/29fbd40e-dc6c-9f86-343d-95c29ddd20f9?namespace=default"),
            ("node status -verbose -stats 0d1b", "GET /v1/node/0d1b2c3d-0000-4000-8000-000000000001"),
            ("job status -verbose telemetry", "GET /v1/job/telemetry?namespace=default"),
            ("eval status -verbose 245543c9", "GET /v1/evaluation/245543c9-c145-1e81-68fa-c38b4fb40d4a?namespace=default"),
            ("node status -verbose -allocs", "GET /v1/nodes"),
        ] {
            Setup::default().answer(asked, answer.clone()).run(line);
        }
    }
}

#[test]
fn an_output_nobody_reads_ends_quietly() {
    struct Closed;
    impl io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let answers = BTreeMap::from([("GET /v1/jobs".to_owned(), json!([]))]);
    let (asked, mut err) = (RefCell::default(), Vec::new());
    let mut world = World {
        env: &|_| None,
        connect: &|_, _| Ok(Box::new(Recorded { answers: &answers, asked: &asked })),
        open: &|_| Err(io::ErrorKind::NotFound.into()),
        input: &mut io::empty(),
        out: &mut Closed,
        err: &mut err,
        clock: &Fixed,
        zones: &SimZones::default(),
    };
    assert_eq!(run(&["status".to_owned()], &mut world), 1);
    assert_eq!(err, b"");
}

#[test]
fn a_job_is_dispatched_and_followed() {
    const PUT: &str = "PUT /v1/job/convert/dispatch?namespace=default&idempotency_token=order";
    let setup = || {
        Setup { input: "a\nb\n", ..Setup::default() }
            .answer(PUT, json!({"DispatchedJobID": "convert/dispatch-1", "EvalID": EVAL}))
            .answer(&format!("GET /v1/evaluation/{EVAL}"), json!({"ID": EVAL, "Status": "complete", "JobID": "convert/dispatch-1"}))
            .answer(&format!("GET /v1/evaluation/{EVAL}/allocations"), json!([]))
    };
    let ran = setup().run("job dispatch -meta unit=7=8 -meta=note= -idempotency-token order -id-prefix-template night conv -");
    assert_eq!(ran.err, "");
    let (call, body) = ran.asked[1].rsplit_once(' ').unwrap();
    assert_eq!(call, PUT);
    let want = json!({"JobID": "convert", "Payload": "YQpiCg==", "Meta": {"unit": "7=8", "note": ""}, "IdPrefixTemplate": "night"});
    assert_eq!(serde_json::from_str::<Value>(body).unwrap(), want);
    assert!(ran.out.starts_with("Dispatched Job ID = convert/dispatch-1\nEvaluation ID     = e0000000\n\n==> "), "{}", ran.out);
    assert!(ran.out.ends_with("Evaluation \"e0000000\" finished with status \"complete\"\n") && ran.code == 0, "{}", ran.out);

    let ran = setup().run("job dispatch -detach -verbose -idempotency-token order convert");
    assert_eq!(ran.out, format!("Dispatched Job ID = convert/dispatch-1\nEvaluation ID     = {EVAL}\n"));
    assert!(ran.asked[1].ends_with(r#"{"IdPrefixTemplate":"","JobID":"convert","Meta":{},"Payload":""}"#), "{}", ran.asked[1]);
    let ran = setup().run("job dispatch -json -detach -idempotency-token order convert");
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap()["DispatchedJobID"], "convert/dispatch-1");
    let again = Setup::default()
        .answer(PUT, json!({"DispatchedJobID": "convert/dispatch-1", "EvalID": ""}))
        .run("job dispatch -idempotency-token order convert");
    assert_eq!((again.out.as_str(), again.code), ("Dispatched Job ID = convert/dispatch-1\n", 0));
}

#[test]
fn a_periodic_job_is_forced() {
    let setup = || {
        Setup::default()
            .answer("PUT /v1/job/nightly/periodic/force?namespace=default", json!({"EvalID": EVAL, "EvalCreateIndex": 9, "Index": 9}))
            .answer(&format!("GET /v1/evaluation/{EVAL}"), json!({"ID": EVAL, "Status": "complete", "JobID": "nightly/periodic-1"}))
            .answer(&format!("GET /v1/evaluation/{EVAL}/allocations"), json!([]))
    };
    let ran = setup().run("job periodic force nightly");
    assert!(ran.out.contains("Evaluation triggered by job \"nightly/periodic-1\"") && ran.code == 0, "{}{}", ran.out, ran.err);
    let ran = setup().run("job periodic force -detach nightly");
    assert_eq!(ran.out, format!("Force periodic successful\nEvaluation ID: {EVAL}\n"));
    let ran = Setup::default().run("job periodic force nightly");
    assert_eq!((ran.err.as_str(), ran.code), ("Error forcing periodic job \"nightly\": not recorded (status 404)\n", 1));
}

#[test]
fn the_next_launch_is_told_in_the_jobs_zone() {
    #[track_caller]
    fn check(periodic: Value, more: &str, want: &str) {
        let mut job = json!({"ID": "nightly", "Periodic": periodic, "Status": "running"});
        if !more.is_empty() {
            job[more] = true.into();
        }
        let bytes = include_bytes!("../../../tests/fixtures/cron/zones/Asia/Kolkata").to_vec();
        let zones = SimZones { files: BTreeMap::from([("Asia/Kolkata".to_owned(), bytes)]), ..SimZones::default() };
        let setup = Setup { zones, ..Setup::default() }.answer("GET /v1/job/nightly?namespace=default", job);
        let ran = setup.run("job status -short nightly");
        let line = ran.out.lines().find_map(|line| line.strip_prefix("Next Periodic Launch = "));
        assert_eq!(line, Some(want), "{}", ran.out);
    }
    check(json!({"Spec": "0 9 * * *"}), "", "2026-11-22T09:00:00Z (1h52m50s from now)");
    check(json!({"Specs": ["0 9 * * *", "30 7 * * *"], "Spec": null}), "", "2026-11-22T07:30:00Z (22m50s from now)");
    check(json!({"Spec": "0 9 * * *", "TimeZone": "Asia/Kolkata"}), "", "2026-11-23T09:00:00+05:30 (20h22m50s from now)");
    check(json!({"Spec": "0 9 * * *", "TimeZone": "Mars/Base"}), "", "unknown (unknown time zone Mars/Base)");
    check(json!({"Spec": "0 0 30 2 *"}), "", "none");
    check(json!({"Spec": "0 9 * * *", "Enabled": false}), "", "none (switched off)");
    check(json!({"Spec": "0 9 * * *"}), "Stop", "none (job stopped)");
}

#[test]
fn the_version_of_this_build() {
    for flag in ["version", "-v", "--version"] {
        assert_eq!(Setup::default().run(flag).out, format!("Dunlin v{} (linux-{})\n", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH));
    }
    let ran = Setup::default().run("version -json");
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap()["Version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_verb_explains_itself() {
    for verb in super::VERBS {
        let ran = Setup::default().run(&format!("{} -h", verb.name));
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
        assert!(ran.out.starts_with(&format!("Usage: dunlin {} [options]", verb.name)), "{}", ran.out);
        assert!(ran.asked.is_empty());
        let mut names: Vec<&str> = verb.flags.iter().chain(super::GENERAL).map(|flag| flag.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{}: a flag stands twice", verb.name);
    }
}

/// A plan that can be made.
fn planned(diff: &Value, updates: &Value) -> Value {
    json!({"Annotations": {"DesiredTGUpdates": updates, "PreemptedAllocs": null}, "CreatedEvals": null, "Diff": diff,
        "FailedTGAllocs": null, "Index": 8, "JobModifyIndex": 7, "NextPeriodicLaunch": "0001-01-01T00:00:00Z", "Warnings": ""})
}

const PUT_PLAN: &str = "PUT /v1/job/web/plan?region=east&namespace=local";

/// `golden/plans.txt` is what a stock 1.10.0 `job plan` printed when the agent's plan had the named pair of `tests/fixtures/diff` as its
/// diff, up to the dry run.
#[test]
fn plans_are_shown_as_the_stock_cli_shows_them() {
    let golden = include_str!("golden/plans.txt");
    let runs: Vec<&str> = golden.split("# ").skip(1).collect();
    assert!(runs.len() > 20, "the recording is not whole");
    for run in runs {
        let (heading, want) = run.split_once('\n').unwrap();
        let [name, way, exit] = heading.split(", ").collect::<Vec<_>>()[..] else { panic!("{heading}") };
        let (way, flag) = way.split_once(' ').unwrap_or((way, ""));
        let (diff, updates) = annotated(name, way == "back");
        let ran = with_job(JOB).answer(PUT_PLAN, planned(&json!(diff), &json!(updates))).run(&format!("job plan {flag} web.json"));
        assert_eq!(format!("exit {}", ran.code), exit, "{heading}");
        assert_eq!(ran.out.split("\nScheduler dry-run:").next().unwrap().trim_end(), want.trim_end(), "{heading}");
    }
}

#[test]
fn what_a_plan_says_besides() {
    let edited = json!({"Type": "Edited", "ID": "web", "TaskGroups": [{"Type": "Edited", "Name": "g", "Updates": {"create": 1}}]});
    let dry_run = "Scheduler dry-run:\n- All tasks successfully allocated.\n\n";
    let index = "Job Modify Index: 7\nTo run the job only if nobody has changed it since:\n\ndunlin job run -check-index 7 web.json\n";

    let ran = with_job(JOB).answer(PUT_PLAN, planned(&edited, &json!({"g": {"Place": 1}}))).run("job plan web.json");
    assert_eq!(ran.out, format!("+/- Job: \"web\"\n+/- Task Group: \"g\" (1 create)\n\n{dry_run}{index}"));
    assert_eq!(ran.code, 1);
    let (call, body) = ran.asked[0].rsplit_once(' ').unwrap();
    assert_eq!(call, PUT_PLAN);
    let job = json!({"ID": "web", "Namespace": "local", "Region": "east", "Type": "service"});
    assert_eq!(serde_json::from_str::<Value>(body).unwrap(), json!({"Job": job, "Diff": true}));

    // The status follows from the diff and from what would be started or stopped, whatever is shown.
    let none = json!({"Type": "None", "ID": "web"});
    for (diff, updates, code) in [
        (&edited, json!({"g": {"Ignore": 1, "InPlaceUpdate": 2, "Preemptions": 3}}), 0),
        (&edited, json!({"g": {"Stop": 1}}), 1),
        (&edited, json!({"g": {}, "h": {"DestructiveUpdate": 1}}), 1),
        (&none, json!({"g": {"Place": 1}}), 0),
        (&edited, Value::Null, 0),
    ] {
        let ran = with_job(JOB).answer(PUT_PLAN, planned(diff, &updates)).run("job plan -diff=false web.json");
        assert_eq!((ran.out, ran.code), (format!("{dry_run}{index}"), code));
        let ran = with_job(JOB).answer(PUT_PLAN, planned(diff, &updates)).run("job plan -json web.json");
        assert_eq!((serde_json::from_str::<Value>(&ran.out).unwrap(), ran.code), (planned(diff, &updates), code));
    }

    let mut plan = planned(&edited, &json!({"g": {"Place": 3}}));
    plan["FailedTGAllocs"] = json!({"g": {"CoalescedFailures": 1, "NodesEvaluated": 1, "NodesExhausted": 1}, "h": {}});
    plan["Warnings"] = json!("1 warning:\n\n* old");
    plan["NextPeriodicLaunch"] = json!("2026-11-22T07:10:00Z");
    let ran = with_job(JOB).answer(PUT_PLAN, plan.clone()).run("job plan -diff=false web.json");
    let want = "Scheduler dry-run:\n- WARNING: Failed to place all allocations.\n  \
        Task Group \"g\" (failed to place 2 allocations):\n    * Resources exhausted on 1 node\n\n  \
        Task Group \"h\" (failed to place 1 allocation):\n    * No eligible nodes to evaluate\n\
        - If submitted now, next periodic launch would be at 2026-11-22T07:10:00Z (2m50s from now).\n\n\
        Job Warnings:\n1 warning:\n\n* old\n\n";
    assert_eq!(ran.out, format!("{want}{index}"));
    let system = JOB.replace("service", "system").replace("\"ID\"", "\"ParameterizedJob\": {}, \"ID\"");
    let ran = with_job(&system).answer(PUT_PLAN, plan).run("job plan -diff=false web.json");
    assert!(ran.out.contains("Failed to place allocations on all nodes.") && !ran.out.contains("periodic"), "{}", ran.out);
}

#[test]
fn plans_that_cannot_be_made_exit_with_255() {
    #[track_caller]
    fn check(setup: Setup, want: &str) {
        let ran = setup.run("job plan web.json");
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (255, "", want));
    }
    let refused = json!({"status": 500, "text": "1 error occurred:\n\t* a\n\n"});
    check(with_job(JOB).answer(PUT_PLAN, refused), "Error planning the job: 1 error occurred:\n\t* a (status 500)\n");
    check(with_job("{}"), "Error planning the job: it has no ID\n");
    check(with_job("{"), "Error in the job file \"web.json\": it is not JSON: EOF while parsing an object at line 1 column 1\n");
}

#[test]
fn a_history_with_its_changes() {
    let job = |version: u64| json!({"ID": "telemetry", "Version": version, "Stable": version == 0, "SubmitTime": NOW});
    let count = json!({"Type": "Edited", "Name": "Count", "Old": "1", "New": "2"});
    let group = json!({"Type": "Edited", "Name": "g", "Fields": [count], "Tasks": [{"Type": "None", "Name": "t"}]});
    let edited = json!({"Type": "Edited", "ID": "telemetry", "TaskGroups": [group]});
    let answer = json!({"Versions": [job(2), job(1), job(0)], "Diffs": [edited, {"Type": "None", "ID": "telemetry"}]});
    let asked = "GET /v1/job/telemetry/versions?namespace=default&diffs=true";
    let page = |version: u64| {
        let stable = version == 0;
        format!("Version     = {version}\nStable      = {stable}\nSubmit Date = 2026-11-22T07:07:10Z\n")
    };
    let diff = "Diff        =\n+/- Job: \"telemetry\"\n+/- Task Group: \"g\"\n  +/- Count: \"1\" => \"2\"\n      Task: \"t\"\n";
    let ran = |line: &str| Setup::default().answer(asked, answer.clone()).run(line);
    assert_eq!(ran("job history -p telemetry").out, format!("{}{diff}\n{}\n{}", page(2), page(1), page(0)));
    assert_eq!(ran("job history -p -version 2 telemetry").out, format!("{}{diff}", page(2)));
    assert_eq!(ran("job history -p -version=0 telemetry").out, page(0));
    assert_eq!((ran("job history -p -version 3 telemetry").code, ran("job history -p a b").code), (1, 1));
}

#[test]
fn job_files_are_checked() {
    #[track_caller]
    fn check(answer: Value, want: (u8, &str, &str)) {
        let ran = with_job(JOB).answer("PUT /v1/validate/job?region=east&namespace=local", answer).run("job validate web.json");
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), want);
    }
    let answer = |error: &str, warnings: &str| json!({"DriverConfigValidated": true, "Error": error, "Warnings": warnings});
    check(answer("", ""), (0, "Job validation successful\n", ""));
    check(answer("", "1 warning:\n\n* old"), (0, "Job validation successful\n", "Job Warnings:\n1 warning:\n\n* old\n\n"));
    check(answer("1 error occurred:\n\t* a\n\n", ""), (1, "", "Job validation errors:\n1 error occurred:\n\t* a\n"));
    check(
        json!({"status": 400, "text": "Job must be specified"}),
        (1, "", "Error validating the job: Job must be specified (status 400)\n"),
    );
}
