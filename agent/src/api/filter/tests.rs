//! The table of kinds against what is really written, and filters over whole objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_hal::clock::Wall;
use dunlin_hal::sim::facts::board;
use dunlin_hal::volume::Space;
use dunlin_runtime::event::{EventKind, TaskEvent, TaskPhase, TaskState};
use dunlin_runtime::id::{AllocId, DeploymentId, EvalId, NodeId};
use dunlin_runtime::spec::Port;
use serde_json::{Value, json};

use super::*;
use crate::api::nodes;
use crate::config::flags::Parsed;
use crate::config::merge::{Surroundings, draft};
use crate::model::alloc::{Grant, Health, Metric, RescheduleEvent, TaskEntry, TaskGrant};
use crate::model::deployment::{Deployment, GroupState};
use crate::model::eval::{Evaluation, Trigger};
use crate::model::job::Job;
use crate::node::Node;
use crate::node::fingerprint::{Cgroups, Inputs, fingerprint};
use crate::store::Store;
use crate::store::backend::Backend;
use crate::store::rows::{JobRow, JobVersion, NodeRow};

/// A job in which everything is given, be it empty.
fn job() -> Job {
    let network = json!({"DNS": {"Servers": ["1.1.1.1"]}, "ReservedPorts": [{"Label": "http", "Value": 80}], "DynamicPorts": [{}]});
    let check = json!({"Args": ["x"], "Header": {"h": ["v"]}, "CheckRestart": {}});
    let service = json!({"Tags": ["t"], "CanaryTags": ["t"], "Checks": [check], "Meta": {"k": "v"}, "CanaryMeta": {"k": "v"}});
    let spread = json!({"SpreadTarget": [{}]});
    let scaling = json!({"Target": {"Job": "full"}, "Policy": {"cooldown": "1m", "n": 3}});
    let task = json!({
        "Name": "t", "Driver": "raw_exec", "Config": {"command": "/bin/x", "args": ["-v", "2"], "n": 2}, "Env": {"k": "v"},
        "Services": [service], "Templates": [{}], "Constraints": [{}], "Affinities": [{}],
        "Resources": {"CPU": 20, "MemoryMB": 16, "Networks": [network]}, "RestartPolicy": {}, "DispatchPayload": {},
        "Lifecycle": {"Hook": "prestart"}, "Meta": {"k": "v"}, "KillTimeout": 5_000_000_000i64, "LogConfig": {"Disabled": true},
        "Artifacts": [{"GetterOptions": {"k": "v"}, "GetterHeaders": {"k": "v"}}], "VolumeMounts": [{}],
    });
    let group = json!({
        "Name": "g", "Count": 2, "Update": {}, "Migrate": {}, "Constraints": [{}], "Scaling": scaling, "RestartPolicy": {},
        "Tasks": [task], "EphemeralDisk": {"SizeMB": 10}, "Meta": {"site": "north"}, "ReschedulePolicy": {}, "Affinities": [{}],
        "Spreads": [spread], "Networks": [network], "Consul": {}, "Services": [service], "Volumes": {"v": {}},
        "ShutdownDelay": 5, "StopAfterClientDisconnect": 6, "MaxClientDisconnect": 7,
    });
    let whole = json!({
        "ID": "full", "Name": "full", "Namespace": "default", "Type": "service", "Priority": 70, "Datacenters": ["dc1"],
        "Constraints": [{}], "Affinities": [{}], "Spreads": [spread], "TaskGroups": [group], "Update": {}, "Periodic": {},
        "ParameterizedJob": {"MetaRequired": ["m"], "MetaOptional": ["m"]}, "Payload": "aGk=", "Meta": {"a.b": "dotted"},
    });
    Job::from_json(whole.to_string().as_bytes()).unwrap()
}

fn metric() -> Metric {
    Metric { is_in_datacenter: true, exhausted: "memory".to_owned(), filtered: "missing drivers".to_owned(), ..Metric::default() }
}

fn alloc(version: u64) -> Allocation {
    Allocation {
        id: AllocId([0x0a; 16]),
        eval: EvalId([1; 16]),
        job: JobKey { namespace: "default".to_owned(), id: "full".to_owned() },
        edition: Edition { create_index: 5, version },
        group: "g".to_owned(),
        wants_migrate: true,
        tasks: vec![TaskEntry {
            name: "t".to_owned(),
            state: TaskState {
                phase: TaskPhase::Running,
                started_at: Wall(1),
                events: vec![TaskEvent { at: Wall(8), kind: EventKind::Received }],
                ..TaskState::default()
            },
            ..TaskEntry::default()
        }],
        grant: Grant {
            tasks: vec![TaskGrant { task: "t".to_owned(), cpu_mhz: 20, memory_mb: 16, memory_max_mb: 0 }],
            ports: vec![
                Port { label: "http".to_owned(), value: 80, to: 0, host_ip: "10.0.0.1".to_owned() },
                Port { label: "other".to_owned(), value: 20_000, to: 0, host_ip: "10.0.0.1".to_owned() },
            ],
            network_device: "eth0".to_owned(),
            network_ip: "10.0.0.1".to_owned(),
            ..Grant::default()
        },
        metric: Metric { is_in_datacenter: true, score_millionths: 500_000, ..Metric::default() },
        deployment: DeploymentId([2; 16]),
        health: Some(Health { is_healthy: Some(true), ..Health::default() }),
        reschedules: vec![RescheduleEvent { at_ns: 5, previous: AllocId([3; 16]), delay_ns: 6 }],
        create_index: 42,
        create_at: Wall(1_700_000_000_000_000_000),
        ..Allocation::default()
    }
}

fn eval() -> Evaluation {
    Evaluation {
        id: EvalId([1; 16]),
        job: JobKey { namespace: "default".to_owned(), id: "full".to_owned() },
        priority: 50,
        trigger: Trigger::JobRegister,
        wait_until: Wall(1),
        failed_groups: vec![("g".to_owned(), metric())],
        queued: vec![("g".to_owned(), 2)],
        ..Evaluation::made(EvalId([1; 16]), 7, Wall(1))
    }
}

fn deployment() -> Deployment {
    let group = GroupState {
        group: "g".to_owned(),
        require_progress_by: Wall(1),
        canaries: vec![AllocId([1; 16])],
        healthy_n: 1,
        ..GroupState::default()
    };
    Deployment { job: alloc(3).job, groups: vec![group], create_index: 9, ..Deployment::default() }
}

fn node() -> Node {
    let config = draft(&[], &Parsed::default())
        .unwrap()
        .resolve(&Surroundings { hostname: "field-7".to_owned(), is_root: true, ..Surroundings::default() })
        .unwrap();
    let (facts, storage) = (board(), Space { size: 8 << 30, available: 6 << 30, ..Space::default() });
    let inputs = Inputs {
        facts: &facts,
        storage: &storage,
        board: "",
        cgroups: Cgroups::default(),
        signals: &["SIGINT"],
        config: &config,
        http: None,
        version: "0",
    };
    Node::new(NodeId([9; 16]), fingerprint(&inputs), &config, None)
}

fn store() -> Store {
    let mut store = Store::open(Arc::new(Backend::memory().unwrap())).unwrap();
    let key = JobKey { namespace: "default".to_owned(), id: "full".to_owned() };
    store.put_job(&key, &JobRow { version: 3, create_index: 5, ..JobRow::default() });
    for version in [2, 3] {
        store.put_job_version(&key, 5, &JobVersion { version, spec: job().to_json().unwrap(), ..JobVersion::default() });
    }
    store
}

fn filter(text: &str) -> Filter {
    let common = Common { filter: text.to_owned(), ..Common::default() };
    Filter::read(&common, || NodeNames { datacenter: "dc1".to_owned(), ..NodeNames::default() }).unwrap().unwrap()
}

fn written<T: Listed>(object: &T) -> Value {
    let mut out = Vec::new();
    object.whole(&store().view(), &mut filter("Job.ID == x"), &mut out).unwrap();
    serde_json::from_slice(&out).unwrap()
}

/// Compares what is written with its kind; what the table lacks is told.
fn compare(kind: &str, value: &Value, path: &str, faults: &mut Vec<String>) {
    let (first, rest) = kind.split_at_checked(1).unwrap_or(("", ""));
    let fits = match (first, value) {
        // Absent is the zero of every kind but of a list's elements, which have no nil here.
        (_, Value::Null) => true,
        ("s" | "y" | "t", Value::String(_)) | ("b", Value::Bool(_)) | ("f", Value::Number(_)) | ("@", _) => true,
        ("i", number) => number.is_i64(),
        ("u", number) => number.is_u64(),
        ("*", value) if !rest.is_empty() => return compare(rest, value, path, faults),
        ("*", _) => true,
        ("[", Value::Array(items)) => return items.iter().for_each(|item| compare(rest, item, &format!("{path}/0"), faults)),
        ("{", Value::Object(entries)) => return entries.values().for_each(|entry| compare(rest, entry, &format!("{path}/*"), faults)),
        (_, Value::Object(fields)) => {
            let Some(line) = KINDS.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' ')) else {
                return faults.push(format!("{path}: no struct {kind}"));
            };
            let known: BTreeMap<&str, &str> = line.split(' ').map(|field| field.split_once(':').unwrap_or((field, "s"))).collect();
            for (name, value) in fields {
                match known.get(name.as_str()) {
                    Some(kind) => compare(kind, value, &format!("{path}/{name}"), faults),
                    None => faults.push(format!("{path}/{name} is not in the table")),
                }
            }
            true
        }
        _ => false,
    };
    if !fits {
        faults.push(format!("{path}: {value} is no {kind}"));
    }
}

#[test]
fn what_is_written_has_its_kind() {
    let mut faults = Vec::new();
    compare("Job", &written(&(alloc(3).job, JobRow { version: 3, create_index: 5, ..JobRow::default() })), "Job", &mut faults);
    compare("Allocation", &written(&alloc(3)), "Allocation", &mut faults);
    compare("Evaluation", &written(&eval()), "Evaluation", &mut faults);
    compare("Deployment", &written(&deployment()), "Deployment", &mut faults);
    let whole = nodes::whole_json(&node(), &NodeRow::default()).unwrap();
    compare("Node", &serde_json::from_slice(&whole).unwrap(), "Node", &mut faults);
    faults.sort();
    faults.dedup();
    // Ours in both places of a port; and what upstream writes beside the strategy it keeps.
    let shown_only = [
        "Allocation/AllocatedResources/Shared/Networks/0/DynamicPorts/0/HostIP is not in the table",
        "Allocation/AllocatedResources/Shared/Networks/0/ReservedPorts/0/HostIP is not in the table",
        "Allocation/AllocatedResources/Shared/Ports/0/HostNetwork is not in the table",
        "Node/Drain is not in the table",
    ];
    assert_eq!(faults, shown_only);
}

#[test]
fn the_table_names_what_it_describes() {
    let structs: Vec<&str> = KINDS.lines().filter_map(|line| Some(line.split_once(' ')?.0)).collect();
    for line in KINDS.lines() {
        let mut names: Vec<&str> = line.split(' ').skip(1).map(|field| field.split(':').next().unwrap()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a field twice: {line}");
        for kind in line.split(' ').filter_map(|field| Some(field.split_once(':')?.1)) {
            let last = kind.trim_start_matches(['*', '[', '{']);
            let is_plain = last.len() == 1 && "sbiufty@".contains(last);
            assert!(is_plain || structs.contains(&last) || last.is_empty() && kind.ends_with('*'), "{kind} in {line}");
        }
    }
}

#[track_caller]
fn check<T: Listed>(object: &T, rows: &[(&str, Result<bool, &str>)]) {
    let store = store();
    for (text, want) in rows {
        let got = filter(text).keeps(&store.view(), object);
        match (&got, want) {
            (Err(got), Err(want)) => assert!(got.status == 400 && got.text.contains(want), "{text}: {got:?}"),
            _ => assert_eq!(got.as_ref().ok(), want.as_ref().ok(), "{text}: {got:?}"),
        }
    }
}

#[test]
fn selectors_address_what_is_stored() {
    check(
        &alloc(3),
        &[
            ("ID == \"0a0a0a0a-0a0a-0a0a-0a0a-0a0a0a0a0a0a\"", Ok(true)),
            ("Job.Type == service and Job.Priority == 70", Ok(true)),
            ("Job.Meta[\"a.b\"] matches \"^dot\"", Ok(true)),
            ("any Job.TaskGroups as g { any g.Tasks as t { t.Driver == raw_exec and \"-v\" in t.Config.args } }", Ok(true)),
            ("Job.TaskGroups.0.Count == 2", Ok(true)),
            ("Job.TaskGroups.0.ShutdownDelay == 5", Ok(true)),
            ("Job.Multiregion is nil and Job.UI is nil", Ok(true)),
            ("TaskStates.t.State == running and TaskStates.t.Restarts == 0", Ok(true)),
            ("TaskStates.t.FinishedAt is nil", Ok(false)),
            ("t in TaskStates and \"u\" not in TaskStates", Ok(true)),
            ("any TaskStates as n, s { any s.Events as e { e.Type == Received } }", Ok(true)),
            ("DesiredTransition.Migrate == true and DesiredTransition.Reschedule is nil", Ok(true)),
            ("AllocatedResources.Tasks.t.Cpu.CpuShares == 20", Ok(true)),
            ("AllocatedResources.TaskLifecycles.t.Hook == prestart", Ok(true)),
            ("any AllocatedResources.Shared.Networks as n { n.ReservedPorts.0.Value == 80 }", Ok(true)),
            ("Metrics.NodesEvaluated == 1 and Metrics.NodesAvailable.dc1 == 1", Ok(true)),
            ("Metrics.ScoreMetaData.0.NormScore == 0.5", Ok(true)),
            ("CreateIndex == 42 and CreateTime == 1700000000000000000", Ok(true)),
            ("RescheduleTracker.Events.0.Delay == 6", Ok(true)),
            ("SignedIdentities is empty", Ok(true)),
            // Of the stub, of the JSON alone, of another spelling.
            ("JobType == service", Err("failed to read result page: error finding value in datum: /JobType at part 0")),
            ("jobid == x", Err("struct field with name \"jobid\"")),
            ("CreateTime == yesterday", Err("strconv.ParseInt")),
            ("DeploymentStatus.Healthy == true and DeploymentStatus.Canary == false", Ok(true)),
            ("Job.Multiregion.Strategy == x", Err("/Job/Multiregion/Strategy: at part 2, invalid value kind: invalid")),
        ],
    );
    check(
        &eval(),
        &[
            ("TriggeredBy == \"job-register\" and Status != blocked", Ok(true)),
            ("FailedTGAllocs.g.DimensionExhausted.memory == 1", Ok(true)),
            ("QueuedAllocations.g == 2 and QueuedAllocations.h is nil", Ok(true)),
            ("WaitUntil is empty", Err("cannot perform is-empty operations on type struct")),
        ],
    );
    check(
        &deployment(),
        &[
            ("Status == running and JobID == full and CreateIndex == 9", Ok(true)),
            ("any TaskGroups as _, g { g.HealthyAllocs == 1 and g.PlacedCanaries is not empty }", Ok(true)),
            ("TaskGroups.g.RequireProgressBy == x", Err("unable to find suitable primitive comparison function")),
        ],
    );
    check(
        &(alloc(3).job, JobRow { version: 3, create_index: 5, ..JobRow::default() }),
        &[
            ("CreateIndex == 5 and Version == 3", Ok(true)),
            ("any TaskGroups as g { g.Meta.site == north }", Ok(true)),
            ("Periodic is not nil and Payload is not empty", Ok(true)),
            ("Update.MaxParallel == 0", Ok(true)),
        ],
    );
    let node = nodes::whole_json(&node(), &NodeRow::default()).unwrap();
    for (text, want) in [
        ("Drivers.raw_exec.Detected == true or Drivers.raw_exec.Detected == false", true),
        ("Attributes[\"kernel.name\"] == linux", true),
        ("Attributes.nope is nil", true),
        ("NodeResources.MinDynamicPort == 20000", true),
        ("DrainStrategy is not nil", false),
        ("SecretID is empty", true),
    ] {
        assert_eq!(filter(text).holds("Node", &node), Ok(want), "{text}");
    }
    assert!(filter("Drain == false").holds("Node", &node).is_err());
}

#[test]
fn a_job_is_read_only_where_it_is_asked_for_and_once_a_version() {
    let mut store = store();
    let key = alloc(3).job;
    let mut named = filter("Job.ID == full");
    let mut unnamed = filter("JobID == full");
    assert_eq!(named.keeps(&store.view(), &alloc(3)), Ok(true));
    store.remove_job_version(&key, Edition { create_index: 5, version: 3 });
    // What was read is remembered, also that nothing was there.
    assert_eq!(named.keeps(&store.view(), &alloc(3)), Ok(true));
    assert_eq!(named.keeps(&store.view(), &alloc(2)), Ok(true));
    assert_eq!(named.keeps(&store.view(), &alloc(3)).map_err(|why| why.status), Err(400), "only the last one is");
    assert_eq!(unnamed.keeps(&store.view(), &alloc(3)), Ok(true));
    assert!(unnamed.job.is_none());
}
