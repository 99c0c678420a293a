//! The stock `nomad` CLI against our agent, unchanged; and our own CLI beside it. The CLI under test is `NOMAD_BIN`, any version from 1.3 on.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dunlin_tests::golden;
use dunlin_tests::real::{self, Options, Real};
use serde_json::{Value, json};

use super::contract::shell_job;

const LIMIT: Duration = Duration::from_secs(60);
pub const NONE: &str = "no stock nomad CLI (NOMAD_BIN)";

pub fn stock() -> Option<PathBuf> {
    std::env::var_os("NOMAD_BIN").map(PathBuf::from)
}

/// One CLI, pointed at an agent.
struct Cli<'a> {
    binary: PathBuf,
    agent: &'a Real,
}

/// A CLI that asks the agent at `addr`.
pub fn command(binary: &Path, addr: SocketAddr, words: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command
        .args(words)
        .env("NOMAD_ADDR", format!("http://{addr}"))
        .env("NO_COLOR", "1")
        .env_remove("NOMAD_TOKEN")
        .env_remove("NOMAD_NAMESPACE")
        .env_remove("NOMAD_REGION");
    command
}

/// Exit code, and all that was printed with runs of blanks as one.
pub fn run(mut command: Command) -> (i32, String) {
    let out = command.stdin(Stdio::null()).output().expect("the CLI runs");
    let text = [out.stdout, out.stderr].concat();
    let text = String::from_utf8_lossy(&text)
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n");
    (out.status.code().unwrap_or(-1), text)
}

impl Cli<'_> {
    fn command(&self, words: &[&str]) -> Command {
        command(&self.binary, self.agent.addr, words)
    }

    /// Exit code, and all that was printed with runs of blanks as one.
    fn run(&self, words: &[&str]) -> (i32, String) {
        run(self.command(words))
    }

    /// Ends well and prints each of `wanted` in some line.
    #[track_caller]
    fn check(&self, words: &[&str], wanted: &[&str]) -> String {
        let (code, text) = self.run(words);
        assert_eq!(code, 0, "{words:?}:\n{text}\n{}", self.agent.log());
        for line in wanted {
            assert!(text.contains(line), "{words:?} does not print {line:?}:\n{text}");
        }
        text
    }

    /// Fails, says why, and does not crash.
    #[track_caller]
    fn fails(&self, words: &[&str], why: &str) {
        let (code, text) = self.run(words);
        assert_eq!(code, 1, "{words:?}:\n{text}");
        assert!(text.contains(why) && !text.contains("panic"), "{words:?}:\n{text}");
    }

    /// A command that goes on until it is dropped.
    fn follow(&self, words: &[&str]) -> Following {
        let mut child =
            self.command(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the CLI runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Following { child, lines }
    }
}

struct Following {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Following {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn job_file(agent: &Real, name: &str, job: &[u8]) -> String {
    let path = agent.path().join(format!("{name}.json"));
    std::fs::write(&path, job).unwrap();
    path.display().to_string()
}

fn id(value: &Value) -> String {
    value["ID"].as_str().unwrap().to_owned()
}

#[test]
fn the_stock_cli_works_unchanged() {
    let Some(binary) = stock() else { dunlin_tests::skip!("{NONE}") };
    let agent = Real::start("stock-cli", Options::default());
    let nomad = Cli { binary, agent: &agent };

    let file = job_file(&agent, "telemetry", &golden::job("telemetry"));
    let ran = nomad.check(
        &["job", "run", "-json", &file],
        &["Evaluation triggered by job \"telemetry\"", "group \"sense\"", "finished with status \"complete\""],
    );
    assert_eq!(ran.matches("created: node").count() + ran.matches("modified: node").count(), 2, "{ran}");
    let mut allocs = agent.allocs("telemetry", 2, |alloc| alloc["ClientStatus"] == "running");
    allocs.sort_by_key(|alloc| alloc["Name"].as_str().map(str::to_owned));
    let (alloc, node, eval) =
        (id(&allocs[0]), allocs[0]["NodeID"].as_str().unwrap().to_owned(), allocs[0]["EvalID"].as_str().unwrap().to_owned());
    let (short, short_node, short_eval) = (&alloc[..8], &node[..8], &eval[..8]);

    // Jobs.
    nomad.check(&["status"], &["ID Type Priority Status", "telemetry service 50 running"]);
    nomad.check(&["job", "status"], &["telemetry service 50 running"]);
    nomad.check(
        &["job", "status", "tele"],
        &["ID = telemetry", "Status = running", "Task Group Queued Starting Running Failed Complete Lost", "sense 0 0 2 0 0 0", short],
    );
    nomad.check(&["job", "status", "-verbose", "telemetry"], &["Evaluations", &eval, &alloc, "job-register complete"]);
    nomad.check(&["job", "inspect", "telemetry"], &["\"SENSOR_BUS\": \"i2c-1\"", "\"KillTimeout\": 3000000000"]);
    nomad.check(&["job", "history", "telemetry"], &["Version = 0", "Stable = true"]);
    nomad.check(&["job", "allocs", "telemetry"], &[short, "sense 0 run running"]);
    nomad.check(&["job", "validate", "-json", &file], &["Job validation successful"]);
    nomad.check(&["job", "deployments", "telemetry"], &["telemetry 0 successful Deployment completed successfully"]);
    nomad.fails(&["job", "status", "nope"], "No job(s) with prefix");
    nomad.fails(
        &["job", "run", "-check-index", "7", "-json", &file],
        "Enforcing job modify index 7: job exists with conflicting job modify index",
    );

    // Allocations.
    nomad.check(
        &["alloc", "status", short],
        &[
            "Name = telemetry.sense[0]",
            "Client Status = running",
            "Task \"sample\" is \"running\"",
            "/50 MHz",
            "MiB",
            "Started Task started by client",
            "Task Setup Building Task Directory",
            "Received Task received by client",
        ],
    );
    nomad.check(
        &["alloc", "status", "-verbose", "-stats", &alloc],
        &[&node, "Evaluated Nodes = 1", "Memory Stats", "CPU Stats", "Placement Metrics", "binpack"],
    );
    nomad.check(&["alloc", "status", "-json", short], &["\"ClientStatus\": \"running\""]);
    nomad.fails(&["alloc", "status", "ffffffff"], "No allocation(s) with prefix or id \"ffffffff\" found");

    // Logs: all, an end, and followed while a signal makes a line.
    nomad.check(&["alloc", "logs", short], &["\"alloc\":\"telemetry.sense[0]\",\"site\":\"field-7\""]);
    nomad.check(&["alloc", "logs", "-tail", "-n", "1", "-stderr", short, "sample"], &[]);
    nomad.check(&["alloc", "logs", "-job", "telemetry"], &["\"site\":\"field-7\""]);
    let mut follow = nomad.follow(&["alloc", "logs", "-f", "-tail", "-n", "1", short, "sample"]);
    assert!(follow.line().contains("\"n\":"));
    nomad.check(&["alloc", "signal", "-s", "SIGUSR1", short, "sample"], &[]);
    let begun = Instant::now();
    while !follow.line().contains("{\"signal\":\"USR1\"}") {
        assert!(begun.elapsed() < LIMIT, "the signal's line did not come");
    }
    drop(follow);

    // Files.
    nomad.check(&["alloc", "fs", short], &["Mode Size Modified Time Name", "drwxrwxrwx", "alloc/", "sample/"]);
    nomad.check(&["alloc", "fs", short, "alloc/logs"], &["sample.stdout.0", "sample.stderr.0"]);
    nomad.check(&["alloc", "fs", "-stat", short, "alloc/data/beat"], &["-rw-r--r-- 2 B", "text/plain; charset=utf-8 beat"]);
    assert_eq!(nomad.check(&["alloc", "fs", short, "alloc/data/beat"], &[]), "0");
    nomad.check(&["alloc", "fs", "-tail", "-n", "1", short, "alloc/logs/sample.stdout.0"], &["\"n\":"]);
    let mut follow = nomad.follow(&["alloc", "fs", "-f", "-tail", "-n", "1", short, "alloc/logs/sample.stdout.0"]);
    assert!(follow.line().contains("\"n\":") && follow.line().contains("\"n\":"));
    drop(follow);
    nomad.fails(&["alloc", "fs", short, "nope"], "nope: no such file or directory");
    nomad.fails(&["alloc", "fs", short, "../.."], "Path escapes the alloc directory");

    // Life.
    nomad.fails(&["alloc", "signal", "-s", "SIGNOPE", short], "invalid signal \"SIGNOPE\"");
    nomad.check(&["alloc", "restart", short, "sample"], &[]);
    let after = agent.wait(&format!("/v1/allocation/{alloc}"), LIMIT, |alloc| alloc["TaskStates"]["sample"]["State"] == "running");
    assert_eq!(after["TaskStates"]["sample"]["Restarts"], 1);
    nomad.check(&["alloc", "restart", short], &[]);
    nomad.fails(&["alloc", "restart", short, "nope"], "nope");
    nomad.check(&["alloc", "status", short], &["Total Restarts = 2", "Restart Signaled User requested"]);
    nomad.check(
        &["alloc", "stop", short],
        &["Evaluation triggered by job \"telemetry\"", "created: node", "finished with status \"complete\""],
    );
    agent.wait(&format!("/v1/allocation/{alloc}"), LIMIT, |alloc| alloc["ClientStatus"] == "complete");
    nomad.check(
        &["alloc", "status", short],
        &[
            "Client Status = complete",
            "Desired Status = stop",
            "Desired Description = alloc is being migrated",
            "Killed Task successfully killed",
        ],
    );
    nomad.check(&["alloc", "logs", short], &["{\"stopping\":true}"]);

    // Evaluations.
    nomad.check(
        &["eval", "status", short_eval],
        &["Status = complete", "TriggeredBy = job-register", "Job ID = telemetry", "Placement Failures = false"],
    );
    nomad.check(&["eval", "status", "-json", &eval], &["\"TriggeredBy\": \"job-register\""]);
    nomad.check(&["eval", "list"], &[short_eval, "job-register telemetry", "alloc-stop telemetry"]);

    nomad.check(&["eval", "list", "-filter", "TriggeredBy == \"alloc-stop\""], &["alloc-stop telemetry"]);
    nomad.fails(&["eval", "list", "-filter", "TriggeredBy"], "failed to read filter expression: 1:12 (11): no match found");

    // What an id is.
    nomad.check(&["status", "tele"], &["ID = telemetry", "Type = service"]);
    nomad.check(&["status", short], &[&format!("ID = {short}"), "Job ID = telemetry"]);
    nomad.check(&["status", short_eval], &[&format!("ID = {short_eval}"), "TriggeredBy = job-register"]);
    nomad.check(&["status", short_node], &[&format!("ID = {short_node}"), "Eligibility = eligible"]);
    nomad.fails(&["status", "nothing-is-called-so"], "Unable to resolve ID: \"nothing-is-called-so\"");

    // The node and its agent.
    nomad.check(&["node", "status"], &[short_node, "dc1", "<none> false eligible ready"]);
    nomad.check(&["node", "status", "-filter", "Attributes[\"kernel.name\"] == linux"], &[short_node]);
    nomad.check(&["node", "status", "-filter", "NodeClass == none"], &["No nodes registered"]);
    for words in [
        &["node", "status", "-self"][..],
        &["node", "status", short_node],
        &["node", "status", "-stats", &node],
        &["node", "status", "-verbose", short_node],
    ] {
        let text = nomad.check(
            words,
            &[
                "Drain = false",
                "Eligibility = eligible",
                "Status = ready",
                "raw_exec",
                "Node registered",
                "Allocated Resources",
                "Host Resource Utilization",
                "Allocations",
            ],
        );
        assert!(!text.contains("nil") && !text.contains("panic"), "{text}");
    }
    nomad.check(
        &["node", "status", "-stats", &node],
        &["CPU Stats", "Memory Stats", "Disk Stats", "Mountpoint"].map(|text| if text == "Mountpoint" { "Used Percent" } else { text }),
    );
    nomad.check(&["node", "status", "-allocs"], &["Running Allocs"]);
    nomad.check(&["node", "eligibility", "-disable", short_node], &["scheduling eligibility set: ineligible"]);
    nomad.check(&["node", "eligibility", "-enable", "-self"], &["scheduling eligibility set: eligible"]);
    nomad.check(&["agent-info"], &["client", &format!("node_id = {node}"), "mode = standalone"]);
    nomad.check(&["server", "members"], &["Name Address Port Status Leader", "alive"]);
    nomad.check(&["namespace", "list"], &["default Default shared namespace"]);

    // A job that cannot be placed is told with its reason, and the exit code says so. A service would be followed to its deadline.
    let mut huge = shell_job("huge", "sleep 1000");
    huge["Job"]["Type"] = Value::from("batch");
    huge["Job"]["TaskGroups"][0]["Tasks"][0]["Resources"]["MemoryMB"] = Value::from(900_000_000);
    let (code, text) = nomad.run(&["job", "run", "-json", &job_file(&agent, "huge", huge.to_string().as_bytes())]);
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("Resources exhausted on 1 nodes") && text.contains("Dimension \"memory\" exhausted on 1 nodes"), "{text}");
    nomad.check(&["eval", "list", "-status", "blocked"], &["queued-allocs huge", "blocked"]);

    // And the end.
    nomad.check(&["job", "stop", "telemetry"], &["Evaluation triggered by job \"telemetry\"", "finished with status \"complete\""]);
    agent.wait("/v1/job/telemetry", LIMIT, |job| job["Status"] == "dead");
    nomad.check(&["job", "status", "telemetry"], &["Status = dead (stopped)"]);
    nomad.check(&["job", "stop", "-purge", "-detach", "telemetry"], &[]);
    nomad.fails(&["job", "status", "telemetry"], "No job(s) with prefix");
}

#[test]
fn crashes_are_told_by_the_stock_cli() {
    let Some(binary) = stock() else { dunlin_tests::skip!("{NONE}") };
    let agent = Real::start("stock-crashy", Options::default());
    let nomad = Cli { binary, agent: &agent };
    nomad.check(
        &["job", "run", "-detach", "-json", &job_file(&agent, "crashy", &golden::job("crashy"))],
        &["Job registration successful", "Evaluation ID:"],
    );
    let allocs = agent.allocs("crashy", 2, |alloc| alloc["ClientStatus"] == "failed");
    let of = |group: &str| id(allocs.iter().find(|alloc| alloc["TaskGroup"] == group).unwrap());
    nomad.check(
        &["alloc", "status", &of("loop")],
        &[
            "Client Status = failed",
            "Exit Code: 139, Signal: 11",
            "Task restarting in 1.",
            "Not Restarting Exceeded allowed attempts 2 in interval 1m0s and mode is \"fail\"",
            "Total Restarts = 2",
        ],
    );
    nomad.check(
        &["alloc", "status", &of("missing")],
        &[
            "Driver Failure failed to launch command: binary \"/no/such/binary\" could not be found",
            "Not Restarting Error was unrecoverable",
        ],
    );
    assert_eq!(nomad.check(&["alloc", "logs", &of("loop")], &[]), "attempt\nattempt\nattempt");
    nomad.check(&["job", "status", "crashy"], &["Status = dead", "loop 0 0 0 1 0 0", "missing 0 0 0 1 0 0"]);
    nomad.fails(&["alloc", "restart", &of("loop")], "restart of an alloc that should not run");
    nomad.fails(&["alloc", "logs", &of("missing")], "not started yet. No logs available");
}

/// Figures, times and ids as marks, so that two runs print the same.
fn blur(text: &str) -> Vec<String> {
    let word = |word: &str| -> String {
        let is_age = word.len() > 1 && word.ends_with(['s', 'm', 'h']) && word.bytes().all(|c| c.is_ascii_digit() || b"hms.".contains(&c));
        let is_unit = ["B", "KiB", "MiB", "GiB"].contains(&word.split('/').next().unwrap_or_default());
        if is_age {
            return "<age>".to_owned();
        }
        if is_unit {
            return word.replace("KiB", "U").replace("MiB", "U").replace("GiB", "U").replace('B', "U");
        }
        let mut out = String::new();
        for c in word.chars() {
            if !c.is_ascii_digit() {
                out.push(c);
            } else if !out.ends_with('#') {
                out.push('#');
            }
        }
        out.replace("#.#", "#")
    };
    text.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ")).filter(|line| !line.is_empty()).collect()
}

/// What the stock CLI prints, ours prints too, verb by verb. Lines that newer versions have and older lack are ours to add.
#[test]
fn our_cli_prints_what_the_stock_one_prints() {
    let Some(binary) = stock() else { dunlin_tests::skip!("{NONE}") };
    let agent = Real::start("both-clis", Options::default());
    let nomad = Cli { binary, agent: &agent };
    let own = Cli { binary: real::binary().to_owned(), agent: &agent };
    let file = job_file(
        &agent,
        "steady",
        shell_job("steady", "echo one; echo two; echo three >&2; echo four > $NOMAD_ALLOC_DIR/data/f; exec sleep 1000")
            .to_string()
            .as_bytes(),
    );
    let (code, theirs) = nomad.run(&["job", "run", "-json", &file]);
    assert_eq!(code, 0, "{theirs}");
    agent.allocs("steady", 1, |alloc| alloc["ClientStatus"] == "running");
    let (code, ours) = own.run(&["job", "run", &file]);
    assert_eq!(code, 0, "{ours}");
    assert!(ours.contains("Evaluation triggered by job \"steady\"") && ours.contains("finished with status \"complete\""), "{ours}");
    let alloc = id(&agent.allocs("steady", 1, |alloc| alloc["ClientStatus"] == "running")[0]);
    let evals = agent.get("/v1/evaluations");
    let (eval, node) = (id(&evals[0]), id(&agent.get("/v1/nodes")[0]));
    let (mut verbs_n, mut lines_n) = (0, 0);
    for words in [
        &["status"][..],
        &["job", "status"],
        &["job", "status", "steady"],
        &["job", "status", "-verbose", "steady"],
        &["job", "inspect", "steady"],
        &["alloc", "status", &alloc],
        &["alloc", "status", "-verbose", "-stats", &alloc[..8]],
        &["alloc", "logs", &alloc],
        &["alloc", "logs", "-stderr", &alloc],
        &["alloc", "logs", "-tail", "-n", "1", &alloc[..4]],
        &["alloc", "fs", &alloc],
        &["alloc", "fs", &alloc, "alloc/logs/"],
        &["alloc", "fs", "-stat", &alloc, "alloc/data/f"],
        &["alloc", "fs", "-H", &alloc, "alloc"],
        &["alloc", "fs", &alloc, "alloc/data/f"],
        &["alloc", "fs", "-tail", "-c", "3", &alloc, "alloc/data/f"],
        &["eval", "status", &eval],
        &["node", "status"],
        &["node", "status", "-self"],
        &["node", "status", &node[..8]],
        &["alloc", "restart", &alloc, "t"],
        &["alloc", "signal", "-s", "SIGCONT", &alloc],
    ] {
        // A restart is answered when the old process has ended: the new one may not be there yet.
        let is_up = || agent.wait(&format!("/v1/allocation/{alloc}"), LIMIT, |alloc| alloc["TaskStates"]["t"]["State"] == "running");
        is_up();
        let (their_code, theirs) = nomad.run(words);
        is_up();
        let (our_code, ours) = own.run(words);
        assert_eq!(our_code, their_code, "{words:?}:\n{theirs}\n--\n{ours}");
        let (theirs, ours) = (blur(&theirs), blur(&ours));
        // It shows a job through its own struct, with keys of its version, which are empty.
        let is_own_key =
            |line: &str| words.contains(&"inspect") && [": null", ": \"\""].iter().any(|end| line.trim_end_matches(',').ends_with(end));
        // All its words in their order: ours may have columns of newer versions between them.
        let has = |line: &str| {
            ours.iter().any(|mine| {
                let mut mine = mine.trim_end_matches([',', ':']).split(' ');
                line.trim_end_matches([',', ':']).split(' ').all(|word| mine.any(|own| own == word))
            })
        };
        for line in &theirs {
            // There are no CSI volumes here, and will be none.
            let is_known = line.starts_with("CSI ")
                || has(line)
                || is_own_key(line)
                || line.starts_with("Uptime")
                || line.starts_with("Class = <none> DC");
            assert!(is_known, "{words:?}: the stock CLI prints {line:?}, ours does not:\n{}\n--\n{}", theirs.join("\n"), ours.join("\n"));
        }
        verbs_n += 1;
        lines_n += theirs.len();
    }
    for words in [
        &["job", "status", "nope"][..],
        &["alloc", "status", "ffffffff"],
        &["eval", "status", "ffffffff"],
        &["node", "status", "ffffffff"],
        &["alloc", "fs", &alloc, "nope"],
        &["alloc", "signal", "-s", "SIGNOPE", &alloc],
        &["job", "frobnicate"],
        &["alloc", "logs", &alloc, "nope"],
    ] {
        let (their_code, _) = nomad.run(words);
        let (our_code, ours) = own.run(words);
        assert!(their_code != 0 && our_code != 0, "{words:?}: {their_code} and {our_code}");
        assert!(!ours.is_empty() && !ours.contains("panicked"), "{ours}");
    }
    println!("both CLIs: {verbs_n} commands, {lines_n} lines alike");
}

#[test]
fn both_clis_tell_what_changed_and_what_would() {
    let Some(binary) = stock() else { dunlin_tests::skip!("{NONE}") };
    let agent = Real::start("versions", Options::default());
    let nomad = Cli { binary, agent: &agent };
    let own = Cli { binary: real::binary().to_owned(), agent: &agent };
    let mut job = shell_job("ages", "exec sleep 1000");
    let file = job_file(&agent, "ages", job.to_string().as_bytes());
    own.check(&["job", "validate", &file], &["Job validation successful"]);
    for (pointer, value) in [
        ("/Job/Priority", json!(50)),
        ("/Job/Meta", json!({"site": "field-7"})),
        ("/Job/TaskGroups/0/Tasks/0/Env", json!({"A": "1"})),
        ("/Job/TaskGroups/0/Tasks/0/Config/args/1", json!("exec sleep 2000")),
    ] {
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        match job.pointer_mut(parent).unwrap() {
            Value::Object(members) => _ = members.insert(member.to_owned(), value),
            list => list[member.parse::<usize>().unwrap()] = value,
        }
        // Planned by both, then done, then planned again: nothing is left to do.
        let file = job_file(&agent, "ages", job.to_string().as_bytes());
        for (status, is_done) in [(1, false), (0, true)] {
            for flag in ["-diff", "-verbose", "-diff=false"] {
                let ((their_code, theirs), (our_code, ours)) =
                    (nomad.run(&["job", "plan", "-json", flag, &file]), own.run(&["job", "plan", flag, &file]));
                assert_eq!((their_code, our_code), (status, status), "{pointer} {flag}:\n{theirs}\n--\n{ours}");
                let said = |text: &str| text.split("\nTo ").next().unwrap_or_default().to_owned();
                assert_eq!(said(&ours), said(&theirs), "{pointer} {flag}");
                assert!(theirs.contains("Job Modify Index:"), "{theirs}");
            }
            if !is_done {
                assert_eq!(agent.ask("PUT", "/v1/jobs", job.to_string().as_bytes()).status, 200);
            }
        }
    }
    for words in [
        &["job", "history", "ages"][..],
        &["job", "history", "-p", "ages"],
        &["job", "history", "-p", "-version", "2", "ages"],
        &["job", "history", "-version", "0", "ages"],
    ] {
        let ((their_code, theirs), (our_code, ours)) = (nomad.run(words), own.run(words));
        assert_eq!((their_code, our_code), (0, 0), "{words:?}:\n{theirs}\n--\n{ours}");
        assert_eq!(blur(&ours), blur(&theirs), "{words:?}");
    }
    let all = own.check(&["job", "history", "-p", "ages"], &["+ Meta[site]: \"field-7\"", "+ Env[A]: \"1\"", "+/- args[1]:"]);
    assert_eq!(all.matches("Diff =").count(), 3, "{all}");
    nomad.check(&["job", "history", "-p", "-diff-version", "1", "ages"], &["- Meta[site]: \"field-7\""]);
}

#[test]
fn the_stock_cli_dispatches_and_forces() {
    let Some(binary) = stock() else { dunlin_tests::skip!("{NONE}") };
    let agent = Real::start("stock-children", Options::default());
    let nomad = Cli { binary, agent: &agent };
    let own = Cli { binary: real::binary().to_owned(), agent: &agent };
    let nightly = String::from_utf8(golden::job("nightly")).unwrap().replace("* * * * *", "0 0 29 2 *");
    for (name, job) in [("nightly", nightly.into_bytes()), ("convert", golden::job("convert"))] {
        nomad.check(&["job", "run", "-json", &job_file(&agent, name, &job)], &["Job registration successful"]);
    }
    let input = agent.path().join("input");
    std::fs::write(&input, b"\0\xff\n").unwrap();
    let input = input.display().to_string();

    let dispatch = ["job", "dispatch", "-meta", "unit=7", "-idempotency-token", "order", "conv", &input];
    let text = nomad.check(&dispatch, &["Dispatched Job ID = convert/dispatch-", "Evaluation ID =", "finished with status \"complete\""]);
    let child = text.split_whitespace().find(|word| word.starts_with("convert/dispatch-")).unwrap().to_owned();
    let again = nomad.check(&dispatch, &["Dispatched Job ID = convert/dispatch-"]);
    assert!(again.contains(&child) && !again.contains("Evaluation ID"), "{again}");
    let allocs = agent.allocs(&child, 1, |alloc| alloc["ClientStatus"] == "complete");
    nomad.check(&["alloc", "logs", &id(&allocs[0])], &["unit=7 bytes=3"]);
    nomad.check(&["job", "inspect", &child], &["\"Payload\": \"AP8K\"", "\"ParentID\": \"convert\"", "\"Dispatched\": true"]);
    nomad.check(&["job", "status", &child], &["Parameterized = false", "Idempotency Token = order", "g 0 0 0 0 1 0 0"]);
    for (words, why) in [
        (&["job", "dispatch", "convert"][..], "Payload is not provided but required by parameterized job"),
        (&["job", "dispatch", "convert", &input], "Dispatch did not provide required meta keys: [unit]"),
        (&["job", "dispatch", "-meta", "x=1", "convert", &input], "Dispatch request included unpermitted metadata keys: [x]"),
        (&["job", "dispatch", "nightly"], "No job(s) with prefix or ID \"nightly\" found"),
        (&["job", "periodic", "force", "convert"], "No periodic job(s) with prefix or ID \"convert\" found"),
    ] {
        nomad.fails(words, why);
    }

    nomad.check(&["job", "periodic", "force", "-detach", "nightly"], &["Force periodic successful", "Evaluation ID: "]);
    nomad.check(
        &["job", "periodic", "force", "night"],
        &["Evaluation triggered by job \"nightly/periodic-", "finished with status \"complete\""],
    );
    let is_over = |summary: &Value| summary["Children"]["Dead"] == 2;
    agent.wait("/v1/job/nightly/summary", LIMIT, is_over);
    // What both print of parents, word for word; how long it is until the next launch is the clock's.
    for (job, wanted) in [
        ("nightly", &["Next Periodic Launch = 20", "Children Job Summary", "0 0 2", "Previously Launched Jobs", "nightly/periodic-"][..]),
        (
            "convert",
            &["Parameterized Job", "Payload = required", "Required Metadata = unit", "Optional Metadata = note", "Dispatched Jobs", &child],
        ),
    ] {
        let theirs = nomad.check(&["job", "status", job], wanted);
        let ours = own.check(&["job", "status", job], &[]);
        let of = |text: &str| {
            text.lines().map(|line| line.split(" (").next().unwrap().to_owned()).filter(|line| !line.is_empty()).collect::<Vec<_>>()
        };
        let known =
            |line: &String| !line.starts_with("Node Pool") && !line.starts_with("Submit Date") && !line.starts_with("Next Periodic Launch");
        let (theirs, ours): (Vec<_>, Vec<_>) =
            (of(&theirs).into_iter().filter(known).collect(), of(&ours).into_iter().filter(known).collect());
        assert_eq!(ours, theirs);
    }
    let text =
        own.check(&["job", "dispatch", "-meta", "unit=8", "convert", &input], &["Dispatched Job ID = convert/dispatch-", "complete"]);
    assert!(!text.contains(&child), "{text}");
    own.check(&["job", "periodic", "force", "nightly"], &["Evaluation triggered by job \"nightly/periodic-"]);
    nomad.check(&["job", "stop", "nightly"], &[]);
    nomad.check(&["job", "status", "nightly"], &["Status = dead (stopped)", "Next Periodic Launch = none (job stopped)"]);
    nomad.fails(&["job", "periodic", "force", "nightly"], "can't force run non-tracked job");
}

/// A job whose versions take each other's place quickly.
fn rolling(script: &str, update: &Value) -> Vec<u8> {
    let mut job = shell_job("rolls", script);
    let group = &mut job["Job"]["TaskGroups"][0];
    group["RestartPolicy"] = json!({"Attempts": 0, "Mode": "fail"});
    group["ReschedulePolicy"] = json!({"Attempts": 0, "Unlimited": false});
    group["Update"] = json!({"MaxParallel": 1, "HealthCheck": "task_states", "MinHealthyTime": 100_000_000u64,
        "HealthyDeadline": 20_000_000_000u64, "ProgressDeadline": 30_000_000_000u64});
    for (name, value) in update.as_object().unwrap() {
        group["Update"][name] = value.clone();
    }
    job.to_string().into_bytes()
}

#[test]
fn both_clis_roll_out() {
    let Some(binary) = stock() else { dunlin_tests::skip!("{NONE}") };
    let agent = Real::start("rolls", Options::default());
    let nomad = Cli { binary, agent: &agent };
    let own = Cli { binary: real::binary().to_owned(), agent: &agent };
    let file = |name: &str, script: &str, update: &Value| job_file(&agent, name, &rolling(script, update));
    let latest = || agent.get("/v1/job/rolls/deployment");

    // From version to version, followed to the end.
    let first = file("first", "exec sleep 1000", &json!({}));
    nomad.check(
        &["job", "run", "-json", &first],
        &["Evaluation within deployment:", "Monitoring deployment", "Status = successful", "Deployed", "g 1 1 1 0"],
    );
    let second = file("second", "exec sleep 2000", &json!({}));
    let (code, text) = nomad.run(&["job", "plan", "-json", &second]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("+/- Job: \"rolls\"") && text.contains("(1 create/destroy update)"), "{text}");
    own.check(
        &["job", "run", &second],
        &["Monitoring deployment", "Deployment is running", "g 1 1 1 0", "finished with status \"successful\": Deployment completed"],
    );
    nomad.check(&["job", "history", "-p", "rolls"], &["Version = 1", "Version = 0", "Stable = true", "\"exec sleep 1000\""]);
    nomad.check(&["job", "revert", "rolls", "0"], &["Monitoring deployment", "Job Version = 2", "Status = successful"]);
    own.check(&["job", "revert", "rolls", "1"], &["Monitoring deployment", "finished with status \"successful\""]);
    nomad.fails(&["job", "revert", "rolls", "3"], "can't revert to current version");
    own.fails(&["job", "revert", "rolls", "3"], "can't revert to current version");

    // Counts.
    nomad.check(&["job", "scale", "rolls", "2"], &["Monitoring deployment", "Status = successful", "g 2 2 2 0"]);
    own.check(&["job", "scale", "rolls", "g", "1"], &["finished with status \"complete\"", "finished with status \"successful\""]);
    own.check(&["job", "scale", "-detach", "rolls", "2"], &["Job scale successful", "Evaluation ID:"]);
    agent.wait("/v1/job/rolls/deployment", LIMIT, |deployment| deployment["JobVersion"] == 6 && deployment["Status"] == "successful");
    for cli in [&nomad, &own] {
        cli.fails(&["job", "scale", "rolls", "h", "1"], "not found within job");
        cli.check(&["job", "eval", "rolls"], &["Monitoring evaluation", "finished with status \"complete\""]);
        cli.check(&["job", "eval", "-force-reschedule", "-detach", "rolls"], &["Created eval ID: \""]);
    }

    // Canaries wait for a user: ours says so and ends, both promote, both fail.
    let canary = json!({"Canary": 1});
    let text =
        own.check(&["job", "run", &file("third", "exec sleep 3000", &canary)], &["requires manual promotion", "waits to be promoted"]);
    let third = id(&latest());
    assert!(text.contains(&format!("deployment promote {}", &third[..8])), "{text}");
    for words in
        [&["deployment", "list"][..], &["deployment", "list", "-filter", "JobVersion == 7"], &["deployment", "status", &third[..8]]]
    {
        let ((their_code, theirs), (our_code, ours)) = (nomad.run(words), own.run(words));
        assert_eq!((their_code, our_code), (0, 0), "{words:?}:\n{theirs}\n--\n{ours}");
        assert_eq!(ours, theirs, "{words:?}");
        assert!(ours.contains(&third[..8]) && ours.contains("running"), "{ours}");
    }
    for cli in [&nomad, &own] {
        cli.check(&["deployment", "pause", &third], &[&format!("Deployment \"{third}\" paused")]);
        assert_eq!(latest()["Status"], "paused");
        cli.check(&["deployment", "resume", "-detach", &third], &[&format!("Deployment \"{third}\" resumed")]);
        assert_eq!(latest()["Status"], "running");
    }
    nomad.check(&["deployment", "promote", &third[..8]], &["Monitoring deployment", "Status = successful", "g true 1 1 1 1 0"]);
    own.check(&["job", "run", &file("fourth", "exec sleep 4000", &canary)], &["waits to be promoted"]);
    let fourth = id(&latest());
    own.check(&["deployment", "promote", "-group", "g", &fourth], &["Monitoring deployment", "finished with status \"successful\""]);
    own.check(&["job", "run", &file("fifth", "exec sleep 5000", &canary)], &["waits to be promoted"]);
    own.check(&["deployment", "fail", &id(&latest())], &["failed", "finished with status \"complete\""]);
    own.fails(&["deployment", "fail", &id(&latest())], "can't fail terminal deployment");
    own.check(&["job", "status", "rolls"], &["Latest Deployment", "Status = failed", "Description = Deployment marked as failed"]);

    // A version that cannot run goes back to the one before; both CLIs exit with 1.
    own.check(&["job", "run", &first], &["finished with status \"successful\""]);
    // However slowly it starts, it is not taken for healthy meanwhile.
    let broken = file("broken", "exit 1", &json!({"AutoRevert": true, "MinHealthyTime": 10_000_000_000u64}));
    let (code, text) = own.run(&["job", "run", &broken]);
    assert_eq!(code, 1, "{text}");
    let back = "finished with status \"failed\": Failed due to unhealthy allocations - rolling back to job version";
    assert!(text.contains(back) && text.ends_with("finished with status \"successful\": Deployment completed successfully"), "{text}");
    assert_eq!(text.matches("Monitoring deployment").count(), 2, "{text}");

    // Its evaluations page by page; and what is over is forgotten.
    for cli in [&nomad, &own] {
        let evals =
            cli.check(&["eval", "list", "-filter", "JobID == \"rolls\"", "-per-page", "2"], &["job-register rolls", "-page-token "]);
        let token = evals.rsplit_once("-page-token ").unwrap().1.trim().to_owned();
        let next = cli.check(&["eval", "list", "-filter", "JobID == \"rolls\"", "-per-page", "2", "-page-token", &token], &["rolls"]);
        assert_ne!(next.lines().nth(1), evals.lines().nth(1));
    }
    own.check(&["job", "stop", "rolls"], &["finished with status \"complete\""]);
    agent.allocs("rolls", 1, |alloc| alloc["ClientStatus"] != "running");
    own.check(&["system", "gc"], &[]);
    agent.wait("/v1/jobs", LIMIT, |jobs| jobs == &json!([]));
    assert_eq!(agent.get("/v1/deployments"), json!([]));
}
