use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::wire::json;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Posted {
    job: Job,
}

const CTX: Ctx<'_> = Ctx { region: "global", query_region: "", body_region: "", query_namespace: "", body_namespace: "" };

#[track_caller]
fn canonical(text: &str) -> Job {
    let mut job = json::decode::<Posted>(text.as_bytes(), 64).unwrap().job;
    canonicalize(&mut job, &CTX);
    job
}

/// A canonical job with one group `g` and one task `t`; the arguments are further members of job, group and task.
#[track_caller]
fn with(of_job: &str, of_group: &str, of_task: &str) -> Job {
    canonical(&format!(
        r#"{{"Job":{{"ID":"j","TaskGroups":[{{"Name":"g","Tasks":[{{"Name":"t","Driver":"raw_exec"{of_task}}}]{of_group}}}]{of_job}}}}}"#
    ))
}

fn shown(job: &Job) -> Value {
    serde_json::to_value(job).unwrap()
}

macro_rules! fixture {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/fixtures/jobs/", $name))
    };
}

/// Set by the registration, not by the job.
const VOLATILE: [&str; 8] = ["CreateIndex", "JobModifyIndex", "ModifyIndex", "Stable", "Status", "SubmitTime", "Version", "NomadTokenID"];
/// Keys newer than the recorded agent (1.1.2).
const NEWER: [&str; 5] = ["DispatchIdempotencyToken", "MaxClientDisconnect", "NodePool", "Specs", "Wait"];

/// Every key of `want` is there with its value, and nothing else but newer keys.
fn compare(at: &str, got: &Value, want: &Value) {
    match (got, want) {
        (Value::Object(got), Value::Object(want)) => {
            for (key, value) in want {
                if !VOLATILE.contains(&key.as_str()) {
                    compare(&format!("{at}.{key}"), got.get(key).unwrap_or_else(|| panic!("{at}.{key} is missing")), value);
                }
            }
            for key in got.keys() {
                assert!(want.contains_key(key) || NEWER.contains(&key.as_str()), "{at}.{key} is too much");
            }
        }
        (Value::Array(got), Value::Array(want)) => {
            assert_eq!(got.len(), want.len(), "{at}");
            for (i, (got, want)) in got.iter().zip(want).enumerate() {
                compare(&format!("{at}[{i}]"), got, want);
            }
        }
        _ => assert_eq!(got, want, "{at}"),
    }
}

#[test]
fn posted_jobs_become_what_a_real_agent_stores() {
    for (posted, stored) in
        [(fixture!("telemetry.json"), fixture!("telemetry.stored.json")), (fixture!("crashy.json"), fixture!("crashy.stored.json"))]
    {
        let want: Value = serde_json::from_str(stored).unwrap();
        compare("Job", &shown(&canonical(posted)), &want);
    }
}

#[test]
fn web_and_flood_get_the_defaults_of_their_types() {
    let web = shown(&canonical(fixture!("web.json")));
    let group = &web["TaskGroups"][0];
    assert_eq!(
        group["Networks"],
        serde_json::json!([{"Mode": "", "Device": "", "CIDR": "", "IP": "", "Hostname": "", "MBits": 0, "DNS": null, "ReservedPorts": null,
            "DynamicPorts": [{"Label": "http", "Value": 0, "To": 0, "HostNetwork": "default"}]}])
    );
    assert_eq!(
        group["Tasks"][0]["Templates"],
        serde_json::json!([{"SourcePath": "", "DestPath": "local/index.html",
            "EmbeddedTmpl": "<h1>{{ env \"NOMAD_ALLOC_NAME\" }} on {{ env \"node.unique.name\" }}</h1>\n",
            "ChangeMode": "restart", "ChangeSignal": "", "Splay": 5_000_000_000_i64, "Perms": "0644", "LeftDelim": "{{", "RightDelim": "}}",
            "Envvars": false, "VaultGrace": 0, "Wait": null}])
    );
    assert_eq!(
        (&web["Type"], &group["Count"], &group["Tasks"][0]["KillTimeout"]),
        (&"service".into(), &1.into(), &5_000_000_000_i64.into())
    );

    let flood = shown(&canonical(fixture!("flood.json")));
    let group = &flood["TaskGroups"][0];
    assert_eq!((&group["Update"], &group["Migrate"]), (&Value::Null, &Value::Null));
    assert_eq!((&flood["Update"]["MaxParallel"], &flood["Update"]["Stagger"]), (&0.into(), &0.into()));
    assert_eq!(
        group["ReschedulePolicy"],
        serde_json::json!({"Attempts": 1, "Interval": 24 * HOUR, "Delay": 5 * SECOND, "DelayFunction": "constant", "MaxDelay": 0, "Unlimited": false})
    );
    assert_eq!(group["RestartPolicy"], serde_json::json!({"Attempts": 3, "Interval": 24 * HOUR, "Delay": 15 * SECOND, "Mode": "fail"}));
    assert_eq!(group["Tasks"][0]["LogConfig"], serde_json::json!({"MaxFiles": 100, "MaxFileSizeMB": 1}));
}

#[test]
fn the_keys_are_those_of_the_api() {
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    let web = shown(&canonical(fixture!("web.json")));
    assert_eq!(
        keys(&web),
        "Affinities AllAtOnce Constraints ConsulNamespace ConsulToken CreateIndex Datacenters DispatchIdempotencyToken Dispatched ID JobModifyIndex Meta \
         ModifyIndex Multiregion Name Namespace NodePool NomadTokenID ParameterizedJob ParentID Payload Periodic Priority Region Spreads Stable Status \
         StatusDescription Stop SubmitTime TaskGroups Type Update VaultNamespace VaultToken Version"
    );
    assert_eq!(
        keys(&web["TaskGroups"][0]),
        "Affinities Constraints Consul Count EphemeralDisk MaxClientDisconnect Meta Migrate Name Networks ReschedulePolicy RestartPolicy Scaling Services \
         ShutdownDelay Spreads StopAfterClientDisconnect Tasks Update Volumes"
    );
    assert_eq!(
        keys(&web["TaskGroups"][0]["Tasks"][0]),
        "Affinities Artifacts CSIPluginConfig Config Constraints DispatchPayload Driver Env KillSignal KillTimeout Kind Leader Lifecycle LogConfig Meta \
         Name Resources RestartPolicy ScalingPolicies Services ShutdownDelay Templates User Vault VolumeMounts"
    );
}

#[test]
fn a_canonical_job_stays_as_it_is_and_survives_the_store() {
    for text in [fixture!("telemetry.json"), fixture!("web.json"), fixture!("crashy.json"), fixture!("flood.json")] {
        let job = canonical(text);
        let mut again = job.clone();
        canonicalize(&mut again, &CTX);
        assert_eq!(again, job);
        assert_eq!(Job::from_json(job.to_json().unwrap().as_bytes()).unwrap(), job);
    }
}

#[test]
fn region_and_namespace_come_from_the_nearest_that_names_them() {
    // (query, body, job) -> result
    let region = |query, body, job: &str| {
        let mut job = Job { region: job.to_owned(), ..Job::default() };
        canonicalize(&mut job, &Ctx { region: "north", query_region: query, body_region: body, ..Ctx::default() });
        job.region
    };
    assert_eq!(region("", "", ""), "north");
    assert_eq!(region("", "", "global"), "north");
    assert_eq!(region("", "", "south"), "south");
    assert_eq!(region("east", "", "south"), "east");
    assert_eq!(region("east", "west", "south"), "west");
    let namespace = |query, body, job: &str| {
        let mut job = Job { namespace: job.to_owned(), ..Job::default() };
        canonicalize(&mut job, &Ctx { query_namespace: query, body_namespace: body, ..CTX });
        job.namespace
    };
    assert_eq!(namespace("", "", ""), "default");
    assert_eq!(namespace("", "", "local"), "local");
    assert_eq!(namespace("", "b", "local"), "b");
    assert_eq!(namespace("q", "b", "local"), "q");
}

#[test]
fn what_was_given_is_kept_and_what_was_given_empty_is_not_defaulted() {
    let job = with(r#","Name":"","Type":"","Priority":0,"Datacenters":[],"ConsulToken":"x","VaultToken":"y""#, r#","Count":0"#, "");
    assert_eq!((job.name(), job.type_text(), job.priority()), ("", "", 0));
    assert_eq!(job.datacenters, ["*"]);
    assert_eq!((job.consul_token.as_str(), job.vault_token.as_str()), ("", ""));
    assert_eq!(job.task_groups[0].count, Some(0));
    let empty = canonical(r#"{"Job":{"ID":"x y","TaskGroups":[]}}"#);
    assert!(empty.datacenters.is_empty());
}

#[test]
fn policies_merge_job_under_group_under_task() {
    let job = with(
        r#","Reschedule":{"Attempts":4,"Unlimited":false},"Migrate":{"MaxParallel":3},"Update":{"MaxParallel":2,"Canary":1}"#,
        r#","RestartPolicy":{"Attempts":7,"Mode":"delay"},"ReschedulePolicy":{"Delay":9000000000},"Migrate":{"HealthCheck":"task_states"},
            "Update":{"Canary":5}"#,
        r#","RestartPolicy":{"Attempts":1}"#,
    );
    let group = &job.task_groups[0];
    let reschedule = group.reschedule_policy.as_ref().unwrap();
    assert_eq!((reschedule.attempts, reschedule.unlimited, reschedule.delay_ns), (Some(4), Some(false), Some(9 * SECOND)));
    assert_eq!(reschedule.delay_function.as_deref(), Some("exponential"));
    let migrate = group.migrate.as_ref().unwrap();
    assert_eq!((migrate.max_parallel, migrate.health_check.as_deref()), (Some(3), Some("task_states")));
    let update = group.update.as_ref().unwrap();
    assert_eq!((update.max_parallel, update.canary, update.stagger_ns), (Some(2), Some(5), Some(30 * SECOND)));
    let of_job = job.update.as_ref().unwrap();
    assert_eq!((of_job.max_parallel, of_job.canary, of_job.health_check.as_deref()), (Some(2), Some(0), Some("")));
    let restart = |policy: &Option<RestartPolicy>| policy.as_ref().map(|policy| (policy.attempts, policy.mode.clone(), policy.interval_ns));
    assert_eq!(restart(&group.restart_policy), Some((Some(7), Some("delay".into()), Some(30 * MINUTE))));
    assert_eq!(restart(&group.tasks[0].restart_policy), Some((Some(1), Some("delay".into()), Some(30 * MINUTE))));
    assert!(job.reschedule.is_none() && job.migrate.is_none());
}

#[test]
fn blocks_by_job_type() {
    // (type, update, migrate, reschedule attempts)
    for (job_type, update, migrate, attempts) in [
        ("service", true, true, Some(0)),
        ("batch", false, false, Some(1)),
        ("system", false, false, None),
        ("sysbatch", false, false, Some(0)),
        ("other", false, false, Some(0)),
    ] {
        let job = with(&format!(r#","Type":"{job_type}""#), "", "");
        let group = &job.task_groups[0];
        assert_eq!((group.update.is_some(), group.migrate.is_some()), (update, migrate), "{job_type}");
        assert_eq!(group.reschedule_policy.as_ref().and_then(|policy| policy.attempts), attempts, "{job_type}");
        assert!(job.update.is_some(), "{job_type}");
    }
    // A given update of a batch job reaches the group, where it is a fault.
    assert!(with(r#","Type":"batch","Update":{}"#, "", "").task_groups[0].update.is_some());
    // A stored batch job shows zeros at job level; posted back they mean nothing.
    let zeros = r#","Type":"batch","Update":{"Stagger":0,"MaxParallel":0,"HealthCheck":"","MinHealthyTime":0,"HealthyDeadline":0,"ProgressDeadline":0,
        "AutoRevert":false,"AutoPromote":false,"Canary":0}"#;
    assert!(with(zeros, "", "").task_groups[0].update.is_none());
    // System jobs take the job's strategy when given.
    let system = with(r#","Type":"system","Update":{"MaxParallel":2,"Stagger":1000000000}"#, "", "");
    assert_eq!(system.update.as_ref().and_then(|update| update.stagger_ns), Some(SECOND));
    assert_eq!(system.task_groups[0].update.as_ref().and_then(|update| update.max_parallel), Some(2));
}

#[test]
fn resources_templates_lifecycle_and_the_rest_of_a_task() {
    let task = |of_task: &str| with("", "", of_task).task_groups[0].tasks[0].clone();
    let cpu = |of_task: &str| task(of_task).resources.map(|resources| (resources.cpu, resources.cores, resources.memory_mb));
    assert_eq!(cpu(""), Some((Some(100), Some(0), Some(300))));
    assert_eq!(cpu(r#","Resources":{"Cores":2}"#), Some((Some(0), Some(2), Some(300))));
    assert_eq!(cpu(r#","Resources":{"CPU":7,"MemoryMB":0}"#), Some((Some(7), Some(0), Some(0))));
    assert_eq!(task(r#","KillTimeout":0"#).kill_timeout_ns, Some(5 * SECOND));
    assert_eq!(task(r#","KillTimeout":-1"#).kill_timeout_ns, Some(-1));
    assert_eq!(task(r#","Lifecycle":{"Hook":"","Sidecar":true}"#).lifecycle, None);
    assert!(task(r#","Lifecycle":{"Hook":"poststop"}"#).lifecycle.is_some());
    let signal = |of_template: &str| task(&format!(r#","Templates":[{{{of_template}}}]"#)).templates[0].change_signal.clone();
    assert_eq!(signal(r#""ChangeMode":"signal""#).as_deref(), Some("SIGHUP"));
    assert_eq!(signal(r#""ChangeMode":"signal","ChangeSignal":"sigusr1""#).as_deref(), Some("SIGUSR1"));
    assert_eq!(signal("").as_deref(), Some(""));
    let dest = |of_artifact: &str| {
        task(&format!(r#","Artifacts":[{{"GetterSource":"http://h/a/b.tgz"{of_artifact}}}]"#)).artifacts[0].relative_dest.clone()
    };
    assert_eq!(dest("").as_deref(), Some("local/"));
    assert_eq!(dest(r#","GetterMode":"file""#).as_deref(), Some("local/b.tgz"));
    assert_eq!(dest(r#","RelativeDest":"x""#).as_deref(), Some("x"));
}

#[test]
fn counts_follow_scaling() {
    let job = with("", r#","Scaling":{"Min":3,"Max":5,"Policy":{"a":[1]}}"#, "");
    let group = &job.task_groups[0];
    assert_eq!(group.count(), 3);
    let scaling = group.scaling.as_ref().unwrap();
    assert_eq!(
        (scaling.enabled, scaling.target.get("Group").map(String::as_str), scaling.policy.get()),
        (Some(true), Some("g"), Some(r#"{"a":[1]}"#))
    );
    assert_eq!(with("", r#","Count":2,"Scaling":{"Max":5}"#, "").task_groups[0].scaling.as_ref().and_then(|scaling| scaling.min), Some(2));
}

#[test]
fn periodic_and_parameterized_blocks() {
    let job = with(r#","Type":"batch","Periodic":{"Spec":"* * * * *"},"ParameterizedJob":{}"#, "", "");
    let periodic = job.periodic.as_ref().unwrap();
    assert_eq!((periodic.enabled, periodic.spec_type.as_deref(), periodic.time_zone.as_str()), (Some(true), Some("cron"), "UTC"));
    assert_eq!(job.parameterized_job.as_ref().map(|block| block.payload.as_str()), Some("optional"));
    assert!(job.is_periodic() && job.is_parameterized());
}

#[test]
fn services_get_names_modes_and_their_checks_the_services_restart() {
    let job = with(
        "",
        r#","Services":[{"PortLabel":"http","CheckRestart":{"Limit":3},"Checks":[{"Type":"http","CheckRestart":{"IgnoreWarnings":true}},{"OnUpdate":"ignore"}]}]"#,
        r#","Services":[{"Provider":"nomad"},{"Name":"${JOB}-x-${TASK}-${BASE}-${NOMAD_TASK_NAME}"}]"#,
    );
    let group = &job.task_groups[0];
    let service = &group.services[0];
    assert_eq!((service.name.as_str(), service.address_mode.as_str(), service.provider.as_str()), ("j-g", "auto", "consul"));
    let check = &service.checks[0];
    assert_eq!((check.name.as_str(), check.on_update.as_str()), ("service: \"j-g\" check", "require_healthy"));
    assert_eq!(check.check_restart, Some(CheckRestart { limit: 3, grace_ns: Some(SECOND), ignore_warnings: true }));
    assert_eq!(service.checks[1].on_update, "ignore");
    let names: Vec<&str> = group.tasks[0].services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["j-g-t", "j-x-t-j-g-t-${NOMAD_TASK_NAME}"]);
    assert!(shown(&job)["TaskGroups"][0]["Services"][0].get("CheckRestart").is_none());
}

#[test]
fn implied_constraints_are_added_once() {
    let texts = |job: &Job| {
        let all = &job.task_groups[0].constraints;
        all.iter().map(|c| format!("{} {} {}", c.l_target, c.operand, c.r_target)).collect::<Vec<_>>()
    };
    let signals = r#","KillSignal":"SIGTERM","Templates":[{"ChangeMode":"signal"},{"ChangeMode":"signal","ChangeSignal":"SIGTERM"},
        {"ChangeMode":"restart","ChangeSignal":"SIGINT"}]"#;
    let mut job = with("", "", signals);
    assert_eq!(texts(&job), ["${attr.os.signals} set_contains SIGHUP,SIGTERM"]);
    canonicalize(&mut job, &CTX);
    assert_eq!(texts(&job).len(), 1);
    assert!(texts(&with("", "", "")).is_empty());
    assert_eq!(texts(&with("", "", r#","Services":[{"Provider":"nomad"}]"#)), ["${attr.nomad.service_discovery} = true"]);
    assert_eq!(texts(&with("", r#","Services":[{}]"#, "")), ["${attr.consul.version} semver >= 1.7.0"]);
    let own = r#","Services":[{}],"Constraints":[{"LTarget":"${attr.consul.version}","Operand":"semver","RTarget":">= 1.9.0"}]"#;
    assert_eq!(texts(&with("", own, "")), ["${attr.consul.version} semver >= 1.9.0"]);
}
