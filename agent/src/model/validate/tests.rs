use serde::Deserialize;

use super::*;
use crate::model::canonical::{Ctx, canonicalize};
use crate::model::lower;
use crate::wire::json;

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Posted {
    job: Job,
}

/// A stand-in for the runtime's parser: the word `bad` is a fault.
fn template(source: &str, left: &str, right: &str) -> Result<(), String> {
    if source.contains("bad") { Err(format!("template function \"bad\" is not supported ({left} {right})")) } else { Ok(()) }
}

/// Stand-ins for what is handed in: the words `bad` and `nowhere` are faults.
fn checks() -> Checks<'static> {
    fn cron(spec: &str) -> Result<(), String> {
        if spec.contains("bad") { Err("missing field(s)".to_owned()) } else { Ok(()) }
    }
    fn zone(name: &str) -> Result<(), String> {
        if name.contains("nowhere") { Err(format!("unknown time zone {name}")) } else { Ok(()) }
    }
    Checks { template: &template, cron: &cron, zone: &zone }
}

/// With the runtime's own parser of templates.
fn of_runtime() -> Checks<'static> {
    fn template(source: &str, left: &str, right: &str) -> Result<(), String> {
        dunlin_runtime::template::parse::parse(source, left, right).map(|_| ()).map_err(|why| why.to_string())
    }
    Checks { template: &template, ..checks() }
}

#[track_caller]
fn canonical(text: &str) -> Job {
    let mut job = json::decode::<Posted>(text.as_bytes(), 64).unwrap().job;
    canonicalize(&mut job, &Ctx { region: "global", ..Ctx::default() });
    job
}

#[track_caller]
fn faults(text: &str) -> Faults {
    validate(&canonical(text), &checks()).err().unwrap_or_default()
}

/// A good job of a type with further members of job, group and task (a task's own `Config` is given).
fn text(job_type: &str, of_job: &str, of_group: &str, of_task: &str) -> String {
    format!(
        r#"{{"Job":{{"ID":"j","Type":"{job_type}","TaskGroups":[{{"Name":"g","Tasks":[
            {{"Name":"t","Driver":"raw_exec","Config":{{"command":"x"}}{of_task}}}]{of_group}}}]{of_job}}}}}"#
    )
}

#[track_caller]
fn job(job_type: &str, of_job: &str, want: &[&str]) {
    assert_eq!(faults(&text(job_type, of_job, "", "")).list(), want, "{of_job}");
}

/// Entries below `Task group g validation failed: `, as one text each.
#[track_caller]
fn group(job_type: &str, of_group: &str, want: &[&str]) {
    let mut inner = Faults::default();
    want.iter().for_each(|text| inner.add(*text));
    let mut whole = Faults::default();
    whole.nest("Task group g validation failed: ", inner);
    assert_eq!(faults(&text(job_type, "", of_group, "")).to_string(), whole.to_string(), "{of_group}");
}

/// Entries below `Task t validation failed: `.
#[track_caller]
fn task(of_task: &str, want: &[&str]) {
    let mut inner = Faults::default();
    want.iter().for_each(|text| inner.add(*text));
    let mut outer = Faults::default();
    outer.nest("Task t validation failed: ", inner);
    let mut whole = Faults::default();
    whole.nest("Task group g validation failed: ", outer);
    assert_eq!(faults(&text("service", "", "", of_task)).to_string(), whole.to_string(), "{of_task}");
}

/// The entries of a nested list, as upstream puts a list into a list.
fn list(texts: &[&str]) -> String {
    let mut inner = Faults::default();
    texts.iter().for_each(|text| inner.add(*text));
    inner.to_string()
}

#[test]
fn the_recorded_answer_to_an_invalid_job() {
    assert_eq!(
        faults(r#"{"Job":{"ID":"x y","TaskGroups":[]}}"#).to_string(),
        "3 errors occurred:\n\t* Job ID contains a space\n\t* Missing job datacenters\n\t* Missing job task groups\n\n"
    );
}

#[test]
fn good_jobs_have_no_faults() {
    for good in [
        include_str!("../../../../tests/fixtures/jobs/telemetry.json"),
        include_str!("../../../../tests/fixtures/jobs/web.json"),
        include_str!("../../../../tests/fixtures/jobs/crashy.json"),
        include_str!("../../../../tests/fixtures/jobs/flood.json"),
    ] {
        assert!(faults(good).is_empty(), "{}", faults(good));
        assert_eq!(warnings(&canonical(good), &[], false), "");
        assert_eq!(validate(&canonical(good), &of_runtime()), Ok(()));
    }
    for job_type in ["service", "batch", "system"] {
        job(job_type, "", &[]);
    }
}

#[test]
fn nesting_is_upstreams() {
    let got = faults(&text("service", "", r#","Count":-1"#, r#","Resources":{"CPU":-1,"MemoryMB":1},"LogConfig":{"MaxFiles":0}"#));
    let want = "1 error occurred:\n\t* Task group g validation failed: 2 errors occurred:\n\t* Task group count can't be negative\n\
        \t* Task t validation failed: 2 errors occurred:\n\
        \t* 1 error occurred:\n\t* 2 errors occurred:\n\t* minimum CPU value is 1; got -1\n\t* minimum MemoryMB value is 10; got 1\n\n\n\n\
        \n\t* 1 error occurred:\n\t* minimum number of files is 1; got 0\n\n\n\n\n\n\n\n";
    assert_eq!(got.to_string(), want);
}

#[test]
fn faults_of_the_job() {
    job("service", r#","ID":"""#, &["Missing job ID", "Missing job name"]);
    job("service", r#","ID":"a\u0000b","Name":"\u0000""#, &["Job ID contains a null character", "Job Name contains a null character"]);
    job("service", r#","Name":"""#, &["Missing job name"]);
    job("service", r#","Priority":101"#, &["Job priority must be between [1, 100]"]);
    job("service", r#","Priority":0"#, &["Job priority must be between [1, 100]"]);
    job("service", r#","Datacenters":["a",""]"#, &["Job datacenter must be non-empty string"]);
    job(
        "service",
        r#","Multiregion":{"Regions":[{"Name":"x"}]}"#,
        &["Multiregion is not supported by this agent; register the job in each region"],
    );
    job("service", r#","Payload":"eA==""#, &["job can't be submitted with a payload, only dispatched"]);
    job(
        "service",
        r#","Constraints":[{"Operand":"is_set"}]"#,
        &[&format!("Constraint 1 validation failed: {}", list(&["No LTarget provided but is required by constraint"]))],
    );
    job(
        "system",
        r#","Affinities":[{}],"Spreads":[{}]"#,
        &["System jobs may not have an affinity stanza", "System jobs may not have a spread stanza"],
    );
    assert_eq!(faults(&text("odd", "", "", "")).list()[0], "Invalid job type: \"odd\"");
    assert_eq!(faults(&text("", "", "", "")).list()[0], "Missing job type");
    assert!(faults(&text("core", "", "", "")).list().contains(&"job type cannot be core".to_owned()));
    let bare = Job { job_type: Some("service".into()), ..Job::default() };
    assert_eq!(
        validate(&bare, &checks()).unwrap_err().list(),
        [
            "Missing job region",
            "Missing job ID",
            "Missing job name",
            "Job must be in a namespace",
            "Missing job datacenters",
            "Missing job task groups"
        ]
    );
}

#[test]
fn faults_between_groups() {
    let two = |a: &str, b: &str| format!(r#"{{"Job":{{"ID":"j","Type":"system","TaskGroups":[{a},{b}]}}}}"#);
    let good = |name: &str, more: &str| {
        format!(r#"{{"Name":"{name}"{more},"Tasks":[{{"Name":"t","Driver":"raw_exec","Config":{{"command":"x"}}}}]}}"#)
    };
    let got = faults(&two(
        &good("g", r#","ShutdownDelay":-1,"Count":2,"StopAfterClientDisconnect":5"#),
        &good("g", r#","StopAfterClientDisconnect":-5"#),
    ));
    assert_eq!(
        got.list(),
        [
            "ShutdownDelay must be a positive value",
            "stop_after_client_disconnect can only be set in batch and service jobs",
            "Job task group g has count 2. Count cannot exceed 1 with system scheduler",
            "Job task group 2 redefines 'g' from group 1",
            "stop_after_client_disconnect must be a positive value",
        ]
    );
    let unnamed = faults(&two(&good("", ""), &good("h", "")));
    assert_eq!(
        unnamed.list(),
        ["Job task group 1 missing name".to_owned(), format!("Task group  validation failed: {}", list(&["Missing task group name"]))]
    );
}

#[test]
fn what_is_not_implemented_yet_says_so() {
    let told = |what: &str| format!("not implemented: {what} are not supported by this version of the agent");
    let of_task = |of_task: &str| faults(&text("service", "", "", of_task)).list().to_vec();
    assert_eq!(of_task(r#","Artifacts":[{"GetterSource":"http://x/y"}]"#), [told("artifacts")]);
    assert_eq!(
        of_task(r#","Templates":[{"SourcePath":"/x","DestPath":"local/x"}]"#),
        [told("template source files (SourcePath; give the text as EmbeddedTmpl)")]
    );
    assert_eq!(of_task(r#","Resources":{"Devices":[{"Name":"gpu"}]}"#), [told("devices")]);
    assert_eq!(of_task(r#","Resources":{"Networks":[{"MBits":1}]}"#), [told("networks of tasks (give them to the group)")]);
    let volumes = faults(&text("service", "", r#","Volumes":{"v":{"Type":"host","Source":"s"}}"#, ""));
    assert_eq!(volumes.list(), [told("volumes")]);
}

#[test]
fn periodic_and_parameterized() {
    let of = |job_type: &str, of_job: &str| faults(&text(job_type, of_job, "", "")).list().to_vec();
    let periodic = |block: &str, want: &[&str]| {
        let want = if want.is_empty() { Vec::new() } else { vec![list(want)] };
        assert_eq!(of("batch", &format!(r#","Periodic":{{{block}}}"#)), want, "{block}");
    };
    periodic(r#""Spec":"* * * * *""#, &[]);
    periodic(r#""Specs":["* * * * *","@daily"],"TimeZone":"Local""#, &[]);
    periodic(r#""Spec":"* * * * *","Specs":["@daily"]"#, &["Only cron or crons may be used"]);
    periodic(r#""Spec":"","Specs":[]"#, &["Must specify a spec"]);
    periodic(r#""Spec":"bad","Enabled":false"#, &[]);
    periodic(
        r#""Spec":"bad","TimeZone":"nowhere""#,
        &["Invalid time zone \"nowhere\": unknown time zone nowhere", "Invalid cron spec \"bad\": missing field(s)"],
    );
    periodic(
        r#""Specs":["bad","@daily","bad 2"]"#,
        &["Invalid cron spec \"bad\": missing field(s)", "Invalid cron spec \"bad 2\": missing field(s)"],
    );
    let many = vec![r#""@daily""#; 65].join(",");
    periodic(&format!(r#""Specs":[{many}]"#), &["Periodic has 65 cron specs; at most 64 are taken"]);
    job("batch", r#","ParameterizedJob":{"MetaRequired":["a"],"MetaOptional":["b"]}"#, &[]);
    assert_eq!(
        of("service", r#","Periodic":{"SpecType":"odd"}"#),
        [
            "Periodic can only be used with \"batch\" or \"sysbatch\" scheduler".to_owned(),
            list(&["Must specify a spec", "Unknown periodic specification type \"odd\""]),
        ]
    );
    assert!(of("service", r#","Periodic":{"Enabled":false}"#).is_empty());
    assert_eq!(
        of("service", r#","ParameterizedJob":{"Payload":"odd","MetaRequired":["b","a","c"],"MetaOptional":["a","b","a"]}"#),
        [
            "Parameterized job can only be used with \"batch\" or \"sysbatch\" scheduler".to_owned(),
            list(&[
                "Unknown payload requirement: \"odd\"",
                "Required and optional meta keys should be disjoint. Following keys exist in both: [a b]",
            ]),
        ]
    );
}

#[test]
fn faults_of_a_group() {
    group("service", r#","Count":-1"#, &["Task group count can't be negative"]);
    group("service", r#","EphemeralDisk":{"SizeMB":9},"Tasks":[]"#, &["Missing tasks for task group", "minimum DiskMB value is 10; got 9"]);
    let disconnect = "Task group cannot be configured with both max_client_disconnect and stop_after_client_disconnect";
    group(
        "service",
        r#","MaxClientDisconnect":-1,"StopAfterClientDisconnect":1"#,
        &[disconnect, "max_client_disconnect cannot be negative"],
    );
    group(
        "batch",
        r#","Update":{},"Migrate":{}"#,
        &["Job type \"batch\" does not allow update block", "Job type \"batch\" does not allow migrate block"],
    );
    group("system", r#","ReschedulePolicy":{}"#, &["System jobs should not have a reschedule policy"]);
    let config = r#""Driver":"raw_exec","Config":{"command":"x"}"#;
    group(
        "service",
        &format!(r#","Tasks":[{{"Name":"a","Leader":true,{config}}},{{"Name":"a","Leader":true,{config}}}]"#),
        &["Task 2 redefines 'a' from task 1", "Only one task may be marked as leader"],
    );
    group(
        "service",
        r#","Scaling":{"Min":3,"Max":2},"Count":1"#,
        &[&format!(
            "Task group scaling policy validation failed: {}",
            list(&[
                "Scaling policy invalid: maximum count must not be less than minimum count",
                "Scaling policy invalid: task group count must not be less than minimum count in scaling policy",
            ])
        )],
    );
}

#[test]
fn restart_policies() {
    let restart = |of: &str, want: &[&str]| group("service", &format!(r#","RestartPolicy":{{{of}}}"#), &[&list(want)]);
    restart(r#""Mode":"odd""#, &["Unsupported restart mode: \"odd\""]);
    restart(r#""Mode":"delay","Attempts":0"#, &["Restart policy \"delay\" with 0 attempts is ambiguous"]);
    restart(r#""Interval":1000000000,"Attempts":0"#, &["Interval can not be less than 5s (got 1s)"]);
    restart(r#""Attempts":121"#, &["Nomad can't restart the TaskGroup 121 times in an interval of 30m0s with a delay of 15s"]);
    restart(
        &format!(r#""Attempts":{0},"Delay":{0}"#, i64::MAX),
        &["Nomad can't restart the TaskGroup 9223372036854775807 times in an interval of 30m0s with a delay of 2562047h47m16.854775807s"],
    );
}

#[test]
fn reschedule_policies() {
    let reschedule = |of: &str, want: &[&str]| group("batch", &format!(r#","ReschedulePolicy":{{{of}}}"#), &[&list(want)]);
    const S: &str = "000000000";
    reschedule(
        r#""Attempts":1,"Unlimited":true,"Interval":0"#,
        &[
            "Interval must be a non zero value if Attempts > 0",
            "Reschedule Policy with Attempts = 1, Interval = 0s, and Unlimited = true is ambiguous",
            "If Attempts >0, Unlimited cannot also be set to true",
        ],
    );
    reschedule(
        &format!(r#""Delay":1{S},"DelayFunction":"odd","MaxDelay":0,"Interval":1{S}"#),
        &[
            "Delay cannot be less than 5s (got 1s)",
            "Invalid delay function \"odd\", must be one of [\"constant\" \"exponential\" \"fibonacci\"]",
            "Max Delay cannot be less than 5s (got 1s)",
            "Max Delay cannot be less than Delay 1s (got 0s)",
            "Interval cannot be less than 15s (got 1s)",
        ],
    );
    reschedule(
        &format!(r#""Attempts":10,"Interval":3600{S},"Delay":1200{S},"DelayFunction":"constant""#),
        &[
            "Nomad can only make 3 attempts in 1h0m0s with initial delay 20m0s and delay function \"constant\"",
            "Set the interval to at least 3h20m0s to accommodate 10 attempts",
        ],
    );
    reschedule(
        &format!(r#""Attempts":5,"Interval":3600{S},"Delay":1200{S},"DelayFunction":"exponential","MaxDelay":1500{S}"#),
        &[
            "Nomad can only make 2 attempts in 1h0m0s with initial delay 20m0s, delay function \"exponential\", and delay ceiling 25m0s",
            "Set the interval to at least 2h0m0s to accommodate 5 attempts",
        ],
    );
    let absurd = i64::MAX;
    reschedule(
        &format!(r#""Attempts":{absurd},"Interval":3600{S},"Delay":5{S},"DelayFunction":"fibonacci","MaxDelay":{absurd}"#),
        &[
            "Nomad can only make 15 attempts in 1h0m0s with initial delay 5s, delay function \"fibonacci\", and delay ceiling 2562047h47m16.854775807s",
            "Set the interval to at least 2562047h47m16s to accommodate 9223372036854775807 attempts",
        ],
    );
    group(
        "batch",
        &format!(
            r#","ReschedulePolicy":{{"Attempts":3,"Interval":3600{S},"Delay":300{S},"DelayFunction":"exponential","MaxDelay":3600{S}}}"#
        ),
        &[],
    );
    group("batch", r#","ReschedulePolicy":{"Attempts":0,"Delay":1,"DelayFunction":"odd"}"#, &[]);
}

#[test]
fn update_and_migrate_strategies() {
    let update = |of: &str, want: &[&str]| group("service", &format!(r#","Update":{{{of}}}"#), &[&list(want)]);
    update(
        r#""HealthCheck":"odd","MaxParallel":-1,"Canary":-2,"MinHealthyTime":-1,"HealthyDeadline":0,"ProgressDeadline":-1,"Stagger":0"#,
        &[
            "Invalid health check given: \"odd\"",
            "Max parallel can not be less than zero: -1 < 0",
            "Canary count can not be less than zero: -2 < 0",
            "Minimum healthy time may not be less than zero: -1ns",
            "Healthy deadline must be greater than zero: 0s",
            "Progress deadline must be zero or greater: -1ns",
            "Healthy deadline must be less than progress deadline: 0s > -1ns",
            "Stagger must be greater than zero: 0s",
        ],
    );
    update(
        r#""AutoPromote":true,"MinHealthyTime":600000000000,"ProgressDeadline":1000000000"#,
        &[
            "Auto Promote requires a Canary count greater than zero",
            "Minimum healthy time must be less than healthy deadline: 10m0s > 5m0s",
            "Healthy deadline must be less than progress deadline: 5m0s > 1s",
        ],
    );
    group("service", r#","Update":{"ProgressDeadline":0}"#, &[]);
    let migrate = |of: &str, want: &[&str]| group("service", &format!(r#","Migrate":{{{of}}}"#), &[&list(want)]);
    migrate(r#""MaxParallel":-1,"HealthCheck":"manual""#, &["MaxParallel must be >= 0 but found -1", "Invalid HealthCheck: \"manual\""]);
    migrate(
        r#""HealthCheck":"","MinHealthyTime":600000000000"#,
        &["Missing HealthCheck", "MinHealthyTime must be less than HealthyDeadline"],
    );
}

#[test]
fn networks() {
    let network = |of: &str, want: &[&str]| {
        group("service", &format!(r#","Networks":[{{{of}}}]"#), &[&format!("Task group network validation failed: {}", list(want))]);
    };
    network(
        r#""ReservedPorts":[{"Label":"a","Value":80},{"Label":"a","Value":80},{"Label":"b","Value":65536},{"Label":"e","Value":-5}],
          "DynamicPorts":[{"Label":"c","To":-2},{"Label":"d","To":65536}]"#,
        &[
            "Port label a already in use by taskgroup network",
            "Static port 80 already reserved by taskgroup network:a",
            "Port b (65536) cannot be greater than 65535",
            "Port e (-5) cannot be negative",
            "Port \"c\" cannot be mapped to negative value -2",
            "Port \"d\" cannot be mapped to a port (65536) greater than 65535",
        ],
    );
    network(r#""Hostname":"a..b""#, &["Hostname is not a valid DNS name"]);
    network(r#""Mode":"bridge""#, &["network mode \"bridge\" is not supported by this agent; known: host (or none)"]);
    group(
        "service",
        r#","Networks":[{"Mode":"host","Hostname":"${x}..y","ReservedPorts":[{"Label":"a","Value":80},{"Label":"b","Value":80,"HostNetwork":"lan"}]}]"#,
        &[],
    );
    group(
        "service",
        r#","Networks":[{},{}]"#,
        &[&format!("Task group network validation failed: {}", list(&["a group may have one network"]))],
    );
}

#[test]
fn volumes() {
    let all = |of_group: &str, of_task: &str| faults(&text("service", "", of_group, of_task)).to_string();
    assert!(all("", r#","VolumeMounts":[{"Volume":"v"},{}]"#).contains("Task t has a volume mount (0) referencing undefined volume v"));
    assert!(all("", r#","VolumeMounts":[{}]"#).contains("Task t has a volume mount (0) referencing an empty volume"));
    assert!(
        all(r#","Volumes":{"v":{"Type":"csi"}}"#, "")
            .contains("Task group volume validation for v failed: 1 error occurred:\n\t* CSI volumes are not")
    );
    assert!(all(r#","Volumes":{"v":{"Type":"odd"}}"#, "").contains("volume has unrecognized type odd"));
    let mount = r#","VolumeMounts":[{"Volume":"v","PropagationMode":"odd"}]"#;
    assert!(all(r#","Volumes":{"v":{"Type":"host"}}"#, mount).contains("Volume Mount (0) has an invalid propagation mode: \"odd\""));
}

#[test]
fn tasks() {
    let named = |name: &str| {
        let all = faults(&text("service", "", "", &format!(r#","Name":"{name}""#))).to_string();
        all.split("\t* ").last().unwrap_or_default().trim_end().to_owned()
    };
    assert_eq!(named("a/b"), "Task name cannot include slashes");
    assert_eq!(named(r"a\\b"), "Task name cannot include slashes");
    assert_eq!(named(r"a\u0000"), "Task name cannot include null characters");
    assert_eq!(named(".."), "Task name cannot be \"..\"");
    assert_eq!(named("alloc"), "Task name cannot be \"alloc\"");
    assert_eq!(named(""), "Missing task name");
    task(r#","Driver":"""#, &["Missing task driver"]);
    task(r#","KillTimeout":-1,"ShutdownDelay":-1"#, &["KillTimeout must be a positive value", "ShutdownDelay must be a positive value"]);
    task(r#","KillSignal":"SIGNONE""#, &[&lower::unknown_signal("kill signal", "SIGNONE")]);
    task(r#","RestartPolicy":{"Mode":"odd"}"#, &["Unsupported restart mode: \"odd\""]);
    task(
        r#","Config":{"command":"x","image":"y"}"#,
        &["driver config: unknown key \"image\"; known: command, args, work_dir, oom_score_adj"],
    );
    task(r#","Vault":{"Policies":["a"]}"#, &["Vault is not supported by this agent"]);
    task(r#","CSIPluginConfig":{"ID":"a"}"#, &["CSI plugins are not supported by this agent"]);
    task(r#","Lifecycle":{"Hook":"odd"}"#, &["Lifecycle validation failed: invalid hook: odd"]);
    task(r#","DispatchPayload":{"File":"../../../x"}"#, &["Dispatch Payload validation failed: destination escapes allocation directory"]);
    task(
        r#","LogConfig":{"MaxFiles":30,"MaxFileSizeMB":10}"#,
        &["log storage (300 MB) must be less than requested disk capacity (300 MB)"],
    );
    let operand = "Constraint 1 has disallowed Operand at task level: distinct_hosts";
    task(r#","Constraints":[{"Operand":"distinct_hosts"}]"#, &[operand]);
    // A driver that is not here is a question of placement, and so is its configuration.
    task_is_good(r#","Driver":"docker","Config":{"image":"x"}"#);
    task_is_good(r#","KillSignal":"SIGTERM","DispatchPayload":{"File":"../x"},"Lifecycle":{"Hook":"poststart","Sidecar":true}"#);
}

#[track_caller]
fn task_is_good(of_task: &str) {
    assert_eq!(faults(&text("service", "", "", of_task)).list(), [""; 0], "{of_task}");
}

#[test]
fn resources() {
    let resources = |of: &str, want: &[&str]| task(&format!(r#","Resources":{{{of}}}"#), &[&list(want)]);
    resources(r#""CPU":5,"Cores":1"#, &["Task can only ask for 'cpu' or 'cores' resource, not both."]);
    resources(r#""MemoryMB":9"#, &[&list(&["minimum MemoryMB value is 10; got 9"])]);
    resources(r#""Cores":-1"#, &["Cores value cannot be negative; got -1"]);
    resources(r#""DiskMB":1"#, &["Task can't ask for disk resources, they have to be specified at the task group level."]);
    resources(r#""MemoryMB":64,"MemoryMaxMB":63"#, &["MemoryMaxMB value (63) should be larger than MemoryMB value (64)"]);
}

#[test]
fn templates() {
    let one =
        |of: &str, want: &[&str]| task(&format!(r#","Templates":[{{{of}}}]"#), &[&format!("Template 1 validation failed: {}", list(want))]);
    one("", &["Must specify a source path or have an embedded template", "Must specify a destination for the template"]);
    let good = r#""EmbeddedTmpl":"x","DestPath":"local/x""#;
    one(r#""EmbeddedTmpl":"x","DestPath":"../../x""#, &["destination escapes allocation directory"]);
    one(&format!(r#"{good},"ChangeMode":"odd""#), &["Invalid change mode. Must be one of the following: noop, signal, restart"]);
    one(
        &format!(r#"{good},"ChangeMode":"signal","ChangeSignal":"","Envvars":true,"Splay":-1"#),
        &[
            "Must specify signal value when change mode is signal",
            "cannot use signals with env var templates",
            "Must specify positive splay value",
        ],
    );
    one(&format!(r#"{good},"ChangeMode":"signal","ChangeSignal":"sigx""#), &[&lower::unknown_signal("change signal", "SIGX")]);
    one(&format!(r#"{good},"Perms":"rwx""#), &["Failed to parse \"rwx\" as octal: invalid syntax"]);
    one(&format!(r#"{good},"Perms":"+644""#), &["Failed to parse \"+644\" as octal: invalid syntax"]);
    one(&format!(r#"{good},"Perms":"10000""#), &["Failed to parse \"10000\" as octal: value out of range"]);
    one(&format!(r#"{good},"Wait":{{"Min":5000000000,"max":1}}"#), &["wait min 5s is greater than max 1ns"]);
    one(r#""EmbeddedTmpl":"{{ bad }}","DestPath":"x","LeftDelim":"<<""#, &["template function \"bad\" is not supported (<< }})"]);
    task(&format!(r#","Templates":[{{{good}}},{{{good}}}]"#), &["Template 2 has same destination as 1"]);
    task_is_good(&format!(
        r#","Templates":[{{{good},"Perms":"","ChangeMode":"noop","Wait":{{"Min":1}}}},{{"EmbeddedTmpl":"y","DestPath":"../alloc/y"}}]"#
    ));
}

#[test]
fn artifacts() {
    let one = |of: &str, want: &[&str]| {
        let all = faults(&text("service", "", "", &format!(r#","Artifacts":[{{{of}}}]"#))).to_string();
        assert!(all.contains(&format!("Artifact 1 validation failed: {}", list(want))), "{all}");
    };
    one(r#""GetterMode":"odd""#, &["source must be specified", "invalid artifact mode \"odd\"; must be one of: any, file, dir"]);
    one(r#""GetterSource":"x","RelativeDest":"../../../x""#, &["destination escapes allocation directory"]);
    let checksum = |value: &str, want: &str| one(&format!(r#""GetterSource":"x","GetterOptions":{{"checksum":"{value}"}}"#), &[want]);
    checksum(" ", "checksum value cannot be empty");
    checksum("md5", "checksum must be given as \"type:value\"; got \"md5\"");
    checksum("md5:a:b", "checksum must be given as \"type:value\"; got \"md5:a:b\"");
    checksum("md5:xy", "invalid checksum: \"xy\" is not hexadecimal");
    checksum("crc:00", "unsupported checksum type: crc");
    checksum("md5:00", "invalid md5 checksum: 00");
    for good in ["${x}", "md5:00112233445566778899aabbccddeeff"] {
        let all =
            faults(&text("service", "", "", &format!(r#","Artifacts":[{{"GetterSource":"x","GetterOptions":{{"checksum":"{good}"}}}}]"#)));
        assert!(!all.to_string().contains("checksum"), "{good}");
    }
}

#[test]
fn services() {
    let group_service = |of: &str, want: &[&str]| {
        group("service", &format!(r#","Services":[{of}]"#), &[&format!("Task group service validation failed: {}", list(want))])
    };
    let inside = |want: &[&str]| format!("Service[0] j-g validation failed: {}", list(want));
    group_service(
        r#"{"Name":"a_b"}"#,
        &[&format!(
            "Service[0] a_b validation failed: {}",
            list(&[
                "Service name must be valid per RFC 1123 and can contain only alphanumeric characters or dashes and must be no longer than 63 characters: \"a_b\""
            ])
        )],
    );
    group_service(r#"{"AddressMode":"odd"}"#, &[&inside(&["Service address_mode must be \"auto\", \"host\", or \"driver\"; not \"odd\""])]);
    group_service(r#"{"AddressMode":"host","Address":"x"}"#, &[&inside(&["Service address_mode must be \"auto\" if address is set"])]);
    group_service(
        r#"{"OnUpdate":"odd"}"#,
        &[&inside(&["Service on_update must be \"require_healthy\", \"ignore_warnings\", or \"ignore\"; not \"odd\""])],
    );
    group_service(r#"{"Provider":"odd"}"#, &[&inside(&["Service provider must be \"consul\", or \"nomad\"; not \"odd\""])]);
    group_service(r#"{"Connect":{"Native":true}}"#, &[&inside(&["Connect is not supported by this agent"])]);
    group_service(
        r#"{"AddressMode":"driver"}"#,
        &["service \"j-g\" cannot use address_mode=\"driver\", only services defined in a \"task\" block can use this mode"],
    );
    group_service(
        r#"{},{"Name":"b","Provider":"nomad"}"#,
        &["Multiple service providers used: task group services must use the same provider"],
    );
    let check = |provider: &str, of: &str, why: &str| {
        let service = format!(r#"{{"Provider":"{provider}","PortLabel":"p","Checks":[{{"Name":"c",{of}}}]}}"#);
        group_service(&service, &[&inside(&[&format!("Check c invalid: {why}")])]);
    };
    let timed = r#""Interval":1000000000,"Timeout":1000000000"#;
    check("consul", r#""Type":"odd""#, "invalid type (\"odd\"), must be one of \"http\", \"tcp\", or \"script\" type");
    check("nomad", r#""Type":"grpc""#, "invalid check type (\"grpc\"), must be one of tcp, http");
    check("consul", r#""Type":"http""#, "http type must have a valid http path");
    check("consul", r#""Type":"http","Path":"http://x""#, "http type must have a relative http path");
    check("consul", r#""Type":"tcp""#, "missing required value interval. Interval cannot be less than 1s");
    check("consul", r#""Type":"tcp","Interval":5"#, "interval (5ns) cannot be lower than 1s");
    check("consul", r#""Type":"tcp","Interval":1000000000"#, "missing required value timeout. Timeout cannot be less than 1s");
    check(
        "consul",
        &format!(r#""Type":"tcp",{timed},"AddressMode":"auto""#),
        "invalid address_mode \"auto\" - auto only valid for services",
    );
    check(
        "nomad",
        &format!(r#""Type":"tcp",{timed},"SuccessBeforePassing":1"#),
        "success_before_passing may only be set for Consul service checks",
    );
    check(
        "consul",
        &format!(r#""Type":"tcp",{timed},"OnUpdate":"ignore","CheckRestart":{{"Limit":1}}"#),
        "on_update value \"ignore\" is not compatible with check_restart",
    );
    group(
        "service",
        &format!(
            r#","Services":[{{"Name":"x-${{NOMAD_JOB_NAME}}","Provider":"nomad","PortLabel":"p","Checks":[{{"Type":"tcp",{timed}}}]}}]"#
        ),
        &[],
    );
    task(r#","Services":[{"PortLabel":"p"}]"#, &[&list(&["port label \"p\" referenced by services j-g-t does not exist"])]);
    task(r#","Services":[{"Name":"a"},{"Name":"a"}]"#, &[&list(&["service \"a\" is duplicate"])]);
    let both = text("service", "", r#","Networks":[{"DynamicPorts":[{"Label":"p"}]}]"#, r#","Services":[{"PortLabel":"p"}]"#);
    assert!(faults(&both).is_empty());
}

#[test]
fn many_faults_are_counted_not_kept() {
    let groups = vec!["{}"; 1000].join(",");
    let all = faults(&format!(r#"{{"Job":{{"ID":"j","TaskGroups":[{groups}]}}}}"#));
    assert_eq!(all.list().len(), FAULTS_MAX);
    assert!(all.to_string().starts_with("2000 errors occurred:\n"));
    assert!(all.to_string().ends_with("\n\t* and 1936 more\n\n"));
}

#[test]
fn warnings_are_told_together() {
    let job = canonical(&text(
        "service",
        r#","Affinities":[{"LTarget":"x","Operand":"=","RTarget":"y"}]"#,
        r#","Update":{"MaxParallel":2},"Networks":[{"MBits":1}]"#,
        r#","Resources":{"IOPS":1,"MemoryMaxMB":400},"Templates":[{"EmbeddedTmpl":"x","DestPath":"y","VaultGrace":1}]"#,
    ));
    let group = list(&[
        "Update max parallel count is greater than task group count (2 > 1). A destructive change would result in the simultaneous replacement of all allocations.",
        "mbits has been deprecated as of Nomad 0.12.0. Please remove mbits from the network block",
        &list(&[
            "Task \"t\": IOPS has been deprecated as of Nomad 0.9.0. Please remove IOPS from resource stanza.",
            &format!(
                "Task \"t\": {}",
                list(&[
                    "Template[0] VaultGrace has been deprecated as of Nomad 0.11 and ignored since Vault 0.5. Please remove VaultGrace / vault_grace from template stanza."
                ])
            ),
        ]),
    ]);
    let memory = "Memory oversubscription is not enabled; Task \"g.t\" memory_max value will be ignored. Update the Scheduler Configuration to allow oversubscription.";
    let prefer = "Affinities and spreads have no effect on a single node.";
    let keys = "These keys are not known to this agent and have no effect: Job.TaskGroups[0].Disconnect";
    assert_eq!(
        warnings(&job, &["Submission".to_owned(), "Job.TaskGroups[0].Disconnect".to_owned()], false),
        format!("4 warning(s):\n\n* Group \"g\" has warnings: {group}\n* {memory}\n* {prefer}\n* {keys}")
    );
    assert!(warnings(&job, &[], true).starts_with("2 warning(s):\n"));
}

#[test]
fn paths_that_leave_the_allocation() {
    for (prefix, path, want) in [
        ("task", "", false),
        ("task", "local/x", false),
        ("task", "/etc/passwd", false),
        ("task", "../alloc/x", false),
        ("task", "../..", true),
        ("task", "../../other/x", true),
        ("task", "local/../../../x", true),
        ("task", "../..x", true),
        ("task/local/", "../../x", false),
        ("task/local/", "../../../x", true),
        ("task", "../../../../../../../../x", true),
    ] {
        assert_eq!(escapes(prefix, path), want, "{prefix} {path}");
    }
}

#[test]
fn the_runtimes_parser_names_the_function_it_does_not_have() {
    let job = canonical(&text("service", "", "", r#","Templates":[{"EmbeddedTmpl":"{{ key \"a\" }}","DestPath":"x"}]"#));
    let faults = validate(&job, &of_runtime()).unwrap_err().to_string();
    assert!(faults.contains("Template 1 validation failed: ") && faults.contains("key"), "{faults}");
}

/// Whatever is posted is answered: decoded or refused, then canonical, judged, shown and lowered without a panic.
#[test]
fn no_document_panics() {
    let posted = include_str!("../../../../tests/fixtures/jobs/web.json");
    let try_all = |bytes: &[u8]| {
        let Ok(posted) = json::decode::<Posted>(bytes, 64) else { return false };
        let mut job = posted.job;
        canonicalize(&mut job, &Ctx::default());
        let _ = (validate(&job, &of_runtime()), warnings(&job, &[], false), job.to_json());
        for group in &job.task_groups {
            assert!(lower::lower(&job, &group.name, lower::Placed::default(), lower::NodeRules::default()).is_some());
        }
        true
    };
    assert!(try_all(posted.as_bytes()));
    let whole = posted.trim_end().len();
    assert!((0..whole).all(|end| !try_all(&posted.as_bytes()[..end])));
    let bytes = [0u8, b'"', b'\\', b'{', b'}', b'[', b']', b',', b'9', b'-', b'.', 0xff];
    let mut taken_n = 0;
    for i in 0..whole {
        let mut changed = posted.as_bytes().to_vec();
        changed[i] = bytes[i % bytes.len()];
        taken_n += usize::from(try_all(&changed));
    }
    assert!(taken_n > 100, "{taken_n}");
    // Every null becomes an extreme number where a number fits.
    for extreme in [i64::MIN, -1, 0, 1, i64::MAX] {
        let numbers = [
            "Priority",
            "Count",
            "CPU",
            "MemoryMB",
            "MemoryMaxMB",
            "DiskMB",
            "IOPS",
            "KillTimeout",
            "ShutdownDelay",
            "MBits",
            "VaultGrace",
        ];
        let mut text = posted.replace("\"Splay\": 5000000000", &format!("\"Splay\": {extreme}"));
        for key in numbers {
            text = text.replace(&format!("\"{key}\": null"), &format!("\"{key}\": {extreme}"));
        }
        let policy = format!(
            "{{\"Attempts\":{extreme},\"Interval\":{extreme},\"Delay\":{extreme},\"MaxDelay\":{extreme},\"DelayFunction\":\"fibonacci\"}}"
        );
        let update = format!("{{\"MaxParallel\":{extreme},\"Stagger\":{extreme},\"MinHealthyTime\":{extreme},\"Canary\":{extreme}}}");
        let logs = format!("{{\"MaxFiles\":{extreme},\"MaxFileSizeMB\":{extreme}}}");
        for (key, block) in [("RestartPolicy", &policy), ("ReschedulePolicy", &policy), ("Update", &update), ("LogConfig", &logs)] {
            text = text.replace(&format!("\"{key}\": null"), &format!("\"{key}\": {block}"));
        }
        assert!(try_all(text.as_bytes()), "{extreme}");
    }
}
