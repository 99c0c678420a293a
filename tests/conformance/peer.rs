//! The same commands of the stock CLI to a real Nomad and to our agent: exit codes and whole transcripts are compared, line by line.
//!
//! The real one is `NOMAD_BIN` as a dev agent, on a loopback address and in a folder of its own. What two runs cannot have in common
//! (ids, times, ages, indexes, use of memory) is masked; of what a follower of a deployment sees on its way only the end counts. All
//! other differences are named where they are met ([`Pair::apart`], [`OWN_KEYS`]). Where no real Nomad comes up, what ours has to
//! print is checked all the same.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use dunlin_tests::http;
use dunlin_tests::real::{Options, Real, Scratch};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::cli;
use super::compare::is_id;

const LIMIT: Duration = Duration::from_secs(60);

/// Members of a job that one of the two has and the other leaves out: workload identities do not exist here.
const OWN_KEYS: &[&str] = &["Identity"];
/// Members of a job that are never the same.
const NUMBERS: &[&str] = &["CreateIndex", "JobModifyIndex", "ModifyIndex", "SubmitTime"];

/// A real Nomad, server and client in one; gone with all its tasks when dropped.
struct Nomad {
    child: Child,
    addr: SocketAddr,
    _scratch: Scratch,
}

impl Nomad {
    /// Its last error when it does not come up on this machine.
    fn start(binary: &Path, name: &str) -> Result<Self, String> {
        static N: AtomicU8 = AtomicU8::new(0);
        let scratch = Scratch::new(&format!("nomad-{name}"));
        // It cannot be asked for free ports: an address of its own has all of them.
        let [.., high, low] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, 100 + N.fetch_add(1, Ordering::Relaxed), high, low.clamp(1, 254));
        let config = json!({
            "bind_addr": ip.to_string(),
            "disable_update_check": true,
            "log_level": "INFO",
            // Ours has none, so nobody is told where it is.
            "ui": {"enabled": true, "show_cli_hints": false},
            "consul": {"auto_advertise": false, "server_auto_join": false, "client_auto_join": false},
            "client": {"options": {
                "driver.allowlist": "raw_exec",
                "fingerprint.denylist": "env_aws,env_gce,env_azure,env_digitalocean,consul,vault,bridge,cni,plugins_cni,host_volume_plugins",
            }},
            "plugin": {"raw_exec": {"config": {"enabled": true}}},
        });
        let file = scratch.path().join("nomad.json");
        std::fs::write(&file, config.to_string()).expect("nomad.json");
        let mut command = Command::new(binary);
        command.args(["agent", "-dev", "-config"]).arg(&file).env("TMPDIR", scratch.path());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        // One that hangs on its way up is not waited for.
        let (up, came) = std::sync::mpsc::channel::<()>();
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        std::thread::spawn(move || {
            if came.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let mut said = Vec::new();
        let is_up = lines.any(|line| {
            said.push(line.clone());
            line.contains("node registration complete")
        });
        drop(up);
        // What it says later goes nowhere, but must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        let this = Self { child, addr: SocketAddr::new(IpAddr::V4(ip), 4646), _scratch: scratch };
        let is_ready = |nodes: &Value| nodes[0]["Status"] == "ready" && nodes[0]["SchedulingEligibility"] == "eligible";
        if is_up && matches!(http::wait(this.addr, "/v1/nodes", LIMIT, is_ready), Ok(Ok(_))) {
            return Ok(this);
        }
        Err(said.into_iter().rev().find(|line| line.contains("rror")).unwrap_or_default())
    }
}

impl Drop for Nomad {
    fn drop(&mut self) {
        // A dev agent that is interrupted ends its tasks.
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")), Signal::SIGINT);
        let _ = self.child.wait();
    }
}

/// One of the two, and what its ids are called in the commands.
struct Side {
    addr: SocketAddr,
    names: BTreeMap<&'static str, String>,
}

/// Both, and what was found to differ.
struct Pair {
    binary: PathBuf,
    sides: Vec<Side>,
    faults: RefCell<Vec<String>>,
    agent: Real,
    nomad: Result<Nomad, String>,
}

impl Pair {
    fn start(binary: PathBuf, name: &str) -> Self {
        let agent = Real::start(name, Options::default());
        let nomad = Nomad::start(&binary, name);
        let addrs = [Some(agent.addr), nomad.as_ref().ok().map(|nomad| nomad.addr)];
        let sides = addrs.into_iter().flatten().map(|addr| Side { addr, names: BTreeMap::new() }).collect();
        Self { binary, sides, faults: RefCell::default(), agent, nomad }
    }

    /// Writes a file that both are told of.
    fn file(&self, name: &str, text: &[u8]) -> String {
        let path = self.agent.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }

    /// What each says to a command, ours first.
    fn said(&self, words: &[&str]) -> Vec<(i32, String)> {
        let binary = &self.binary;
        let ask = |side: &Side| {
            let words: Vec<&str> = words.iter().map(|word| side.names.get(word).map_or(*word, String::as_str)).collect();
            cli::run(cli::command(binary, side.addr, &words))
        };
        std::thread::scope(|scope| {
            let running: Vec<_> = self.sides.iter().map(|side| scope.spawn(move || ask(side))).collect();
            running.into_iter().map(|one| one.join().expect("the CLI runs")).collect()
        })
    }

    /// Both exit with `code` and print the same, with each of `wanted` in it.
    fn same(&self, code: i32, words: &[&str], wanted: &[&str]) {
        self.same_but(code, words, wanted, |_| true);
    }

    /// The same, of the lines that count.
    fn same_but(&self, code: i32, words: &[&str], wanted: &[&str], counts: impl Fn(&str) -> bool) {
        let transcript = |text: &str| -> Vec<String> { transcript(text).into_iter().filter(|line| counts(line)).collect() };
        let said = self.said(words);
        let (ours_code, ours) = &said[0];
        let absent: Vec<&&str> = wanted.iter().filter(|want| !ours.contains(**want)).collect();
        let is_right = *ours_code == code && absent.is_empty();
        let theirs = said.get(1).map(|(code, text)| (*code, transcript(text)));
        if is_right && theirs.as_ref().is_none_or(|theirs| *theirs == (*ours_code, transcript(ours))) {
            return;
        }
        let theirs = theirs.map_or_else(String::new, |(code, lines)| format!("\n-- theirs ({code})\n{}", lines.join("\n")));
        let text = format!("{words:?}: wanted {code} and {absent:?}\n-- ours ({ours_code})\n{}{theirs}", transcript(ours).join("\n"));
        self.faults.borrow_mut().push(text);
    }

    /// A difference that is meant: each exits with its own code and prints its own text.
    #[track_caller]
    fn apart(&self, words: &[&str], ours: (i32, &str), theirs: (i32, &str)) {
        for ((code, text), (want_code, want)) in self.said(words).iter().zip([ours, theirs]) {
            assert_eq!(*code, want_code, "{words:?}: {text}");
            assert!(text.contains(want), "{words:?} does not print {want:?}:\n{text}");
        }
    }

    /// Both show the same document, but for what is empty, numbers, and [`OWN_KEYS`].
    #[track_caller]
    fn same_document(&self, words: &[&str]) {
        let mut all = self.said(words).into_iter().map(|(code, text)| {
            assert_eq!(code, 0, "{words:?}: {text}");
            let mut value: Value = serde_json::from_str(&text).unwrap_or_else(|why| panic!("{why}: {text}"));
            bare(&mut value);
            value
        });
        let ours = all.next().expect("ours");
        if let Some(theirs) = all.next().filter(|theirs| *theirs != ours) {
            self.faults.borrow_mut().push(format!("{words:?}: theirs\n{theirs:#}\nours\n{ours:#}"));
        }
    }

    /// Waits until both answer with what `is_so` accepts.
    #[track_caller]
    fn until(&self, path: &str, is_so: impl Fn(&Value) -> bool) {
        for side in &self.sides {
            let found = http::wait(side.addr, path, LIMIT, &is_so).expect("an answer");
            found.unwrap_or_else(|last| panic!("GET {path} at {} never became so: {}", side.addr, last.text()));
        }
    }

    /// Gives a name to what `pick` takes from an answer of each.
    #[track_caller]
    fn bind(&mut self, name: &'static str, path: &str, pick: impl Fn(&Value) -> String) {
        for side in &mut self.sides {
            let answer = http::ask(side.addr, "GET", path, b"").expect("an answer");
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            side.names.insert(name, pick(&answer.json()));
        }
    }

    /// Waits until what is to stop has stopped and what is to run runs or has run.
    #[track_caller]
    fn rest(&self, job: &str) {
        self.until(&format!("/v1/job/{job}/allocations"), |all| {
            all.as_array().is_some_and(|all| {
                all.iter().all(|alloc| match alloc["ClientStatus"].as_str() {
                    Some("running") => alloc["DesiredStatus"] == "run",
                    status => matches!(status, Some("complete" | "failed")),
                })
            })
        });
    }

    #[track_caller]
    fn done(self) {
        let faults = self.faults.take();
        assert!(faults.is_empty(), "{} differences:\n\n{}", faults.len(), faults.join("\n\n"));
        if let Err(why) = self.nomad {
            dunlin_tests::skip!("ours alone was checked, a real Nomad does not come up here: {why}")
        }
    }
}

/// Leaves out what is empty, numbers, and [`OWN_KEYS`].
fn bare(value: &mut Value) {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.is_empty(),
    };
    match value {
        Value::Object(all) => {
            all.values_mut().for_each(bare);
            all.retain(|key, value| !is_empty(value) && !NUMBERS.contains(&key.as_str()) && !OWN_KEYS.contains(&key.as_str()));
        }
        Value::Array(all) => all.iter_mut().for_each(bare),
        Value::String(text) => *text = mask(text),
        _ => {}
    }
}

/// Two runs of the same commands have the same.
fn transcript(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(|line| mask(&unused(line))).collect();
    // What an evaluation came to is told in the order in which it is noticed.
    let is_told = |line: &String| line.starts_with("<time>: ");
    lines.chunk_by_mut(|a, b| is_told(a) && is_told(b)).for_each(<[String]>::sort);
    let mut kept = Vec::new();
    let mut i = 0;
    while i < lines.len() {
        let line = &lines[i];
        // The table of a deployment that goes on, when a newer one follows.
        let end = (i + 1..lines.len()).find(|at| lines[*at] == "<time>" || lines[*at].starts_with("==>"));
        if line == "<time>"
            && let Some(end) = end
            && lines[end] == "<time>"
            && lines[i..end].iter().any(|line| line == "Status = running")
        {
            i = end;
            continue;
        }
        i += 1;
        // Seen or not, as the follower happens to look.
        if !(line.starts_with("<time>: Allocation") && line.contains("status changed")) {
            kept.push(line.clone());
        }
    }
    kept
}

/// What a task was given, without what it uses: `1/20 MHz 1.7 MiB/16 MiB` as `20 MHz 16 MiB`. Theirs tells that of ended tasks too.
fn unused(line: &str) -> String {
    if !line.contains(" MHz ") {
        return line.to_owned();
    }
    let words: Vec<&str> = line.split(' ').collect();
    let is_use = |i: usize| words.get(i + 1).is_some_and(|next| next.contains("B/"));
    words
        .iter()
        .enumerate()
        .filter(|(i, _)| !is_use(*i))
        .map(|(_, word)| word.rsplit('/').next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A line with marks for what no two runs have in common.
fn mask(line: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-:.+".contains(c);
    let (mut out, mut rest) = (String::new(), line);
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        if end == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (word, after) = rest.split_at(end);
        let bare = word.trim_end_matches([':', '.']);
        let is_figure = bare.bytes().all(|c| c.is_ascii_digit());
        let is_index = ["Index: ", "-check-index ", "modify index: "].iter().any(|before| out.ends_with(before));
        let is_child = |kind: &str| bare.strip_prefix(kind).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        let is_page = bare.split_once('.').is_some_and(|(_, id)| is_id(id));
        let mark = if is_page || is_id(bare) || bare.len() == 8 && bare.bytes().all(|c| c.is_ascii_hexdigit()) {
            "<id>"
        } else if bare.len() >= 20 && bare.as_bytes()[4] == b'-' && bare.as_bytes()[10] == b'T' {
            "<time>"
        } else if [" ago", " from now"].iter().any(|then| after.starts_with(then)) {
            "<age>"
        } else if is_figure && is_index {
            "<index>"
        } else if is_child("dispatch-") || is_child("periodic-") {
            "<child>"
        } else {
            bare
        };
        out.push_str(mark);
        out.push_str(&word[bare.len()..]);
        rest = after;
    }
    out
}

/// A service whose versions take each other's place quickly.
fn rolls(count: u32, script: &str, update: &str, meta: &str) -> String {
    format!(
        r#"job "rolls" {{
  datacenters = ["dc1"]
  meta {{
    {meta}
  }}
  group "g" {{
    count = {count}
    restart {{
      attempts = 0
      mode     = "fail"
    }}
    reschedule {{
      attempts  = 0
      unlimited = false
    }}
    update {{
      health_check      = "task_states"
      min_healthy_time  = "100ms"
      healthy_deadline  = "20s"
      progress_deadline = "30s"
      {update}
    }}
    task "t" {{
      driver       = "raw_exec"
      kill_timeout = "3s"
      config {{
        command = "/bin/sh"
        args    = ["-c", "{script}"]
      }}
      resources {{
        cpu    = 20
        memory = 16
      }}
    }}
  }}
}}
"#
    )
}

/// A batch job of one task.
fn batch(id: &str, more: &str, task: &str, memory_mb: u32) -> String {
    format!(
        r#"job "{id}" {{
  datacenters = ["dc1"]
  type        = "batch"
  {more}
  group "g" {{
    task "t" {{
      driver = "raw_exec"
      {task}
      resources {{
        cpu    = 20
        memory = {memory_mb}
      }}
    }}
  }}
}}
"#
    )
}

const LATEST: &str = "/v1/job/rolls/deployment";

fn is_successful(deployment: &Value) -> bool {
    deployment["Status"] == "successful"
}

fn short(value: &Value) -> String {
    value["ID"].as_str().unwrap()[..8].to_owned()
}

#[test]
fn a_real_nomad_and_ours_roll_out_alike() {
    let Some(binary) = cli::stock() else { dunlin_tests::skip!("{}", cli::NONE) };
    let mut pair = Pair::start(binary, "peer-rolls");
    let first = &pair.file("first.hcl", rolls(1, "exec sleep 1000", "", "").as_bytes());
    let second = &pair.file("second.hcl", rolls(2, "exec sleep 2000", "", "site = \"field-7\"").as_bytes());

    // A plan, and what was planned; the monitor follows the deployment to its end.
    pair.same(0, &["job", "validate", first], &["Job validation successful"]);
    pair.same(
        1,
        &["job", "plan", first],
        &[
            "+ Job: \"rolls\"\n+ Task Group: \"g\" (1 create)\n+ Task: \"t\" (forces create)",
            "Scheduler dry-run:\n- All tasks successfully allocated.",
            "Job Modify Index: 0",
            &format!("nomad job run -check-index 0 {first}"),
        ],
    );
    pair.same(
        0,
        &["job", "run", first],
        &[
            "Evaluation triggered by job \"rolls\"",
            "Evaluation within deployment:",
            "created: node",
            "Evaluation status changed: \"pending\" -> \"complete\"",
            "finished with status \"complete\"",
            "Monitoring deployment",
            "Status = successful\nDescription = Deployment completed successfully",
            "g 1 1 1 0",
        ],
    );
    pair.same(0, &["job", "plan", first], &["Job: \"rolls\"\nTask Group: \"g\" (1 ignore)"]);
    pair.same(0, &["job", "run", first], &["finished with status \"complete\""]);

    // The next version, enforced.
    pair.same(
        1,
        &["job", "plan", second],
        &[
            "+/- Job: \"rolls\"\n+ Meta[site]: \"field-7\"",
            "+/- Task Group: \"g\" (1 create, 1 ignore)\n+/- Count: \"1\" => \"2\" (forces create)",
            "+/- Task: \"t\" (forces create/destroy update)",
            "+/- args[1]: \"exec sleep 1000\" => \"exec sleep 2000\"",
        ],
    );
    pair.same(1, &["job", "plan", "-verbose", second], &["+/- args[1]:"]);
    pair.same(1, &["job", "plan", "-diff=false", second], &["Scheduler dry-run"]);
    pair.same(
        1,
        &["job", "run", "-check-index", "1", second],
        &["Enforcing job modify index 1: job exists with conflicting job modify index:"],
    );
    pair.bind("{index}", "/v1/job/rolls", |job| job["JobModifyIndex"].to_string());
    pair.same(0, &["job", "run", "-check-index", "{index}", second], &["Job Version = 1\nStatus = successful", "g 2 2 2 0"]);
    pair.rest("rolls");
    pair.same(0, &["job", "status", "rolls"], &["Latest Deployment", "g 0 0 2 0 1 0 0", "g 1 run running", "g 0 stop complete"]);

    // Its deployments, by a prefix too.
    pair.bind("{deployment}", LATEST, |deployment| deployment["ID"].as_str().unwrap()[..6].to_owned());
    pair.same(0, &["job", "deployments", "rolls"], &["rolls 1 successful", "rolls 0 successful"]);
    pair.same(0, &["job", "deployments", "-latest", "rolls"], &["Job Version = 1"]);
    pair.same(0, &["deployment", "list"], &["rolls 1 successful Deployment completed successfully"]);
    pair.same(0, &["deployment", "list", "-filter", "JobVersion == 0"], &["rolls 0 successful"]);
    pair.same(0, &["deployment", "status", "{deployment}"], &["Job Version = 1\nStatus = successful"]);
    pair.same(0, &["status", "{deployment}"], &["Job Version = 1"]);
    pair.same(1, &["deployment", "status", "ffffffff"], &["Deployment ID \"ffffffff\" matched no deployments"]);

    // Its versions.
    pair.same(0, &["job", "history", "rol"], &["Version = 1\nStable = true", "Version = 0\nStable = true"]);
    pair.same(
        0,
        &["job", "history", "-p", "rolls"],
        &[
            "Diff =\n+/- Job: \"rolls\"\n+ Meta[site]: \"field-7\"",
            "+/- Count: \"1\" => \"2\"",
            "\"exec sleep 1000\" => \"exec sleep 2000\"",
        ],
    );
    pair.same(0, &["job", "history", "-p", "-diff-version", "1", "rolls"], &["- Meta[site]: \"field-7\""]);
    pair.same(1, &["job", "history", "-version", "17", "rolls"], &[]);
    pair.same(1, &["job", "inspect", "-version", "9", "rolls"], &[]);
    pair.same_document(&["job", "inspect", "-version", "0", "rolls"]);
    pair.same_document(&["job", "inspect", "rolls"]);
    pair.same_document(&["job", "history", "-json", "rolls"]);
    // The text a job was made from is not kept.
    let absent = (1, "Error inspecting job: job \"rolls\" with version 0 couldn't be found");
    pair.apart(&["job", "inspect", "-hcl", "rolls"], absent, (0, "driver = \"raw_exec\""));

    // Back to the first, as a version of its own.
    pair.same(0, &["job", "revert", "rolls", "0"], &["Monitoring deployment", "Job Version = 2\nStatus = successful"]);
    pair.same(1, &["job", "revert", "rolls", "2"], &["can't revert to current version"]);
    pair.same(1, &["job", "revert", "rolls", "17"], &["not found"]);
    pair.same(0, &["job", "history", "-p", "-version", "2", "rolls"], &["- Meta[site]: \"field-7\"", "+/- Count: \"2\" => \"1\""]);

    // Counts.
    pair.same(0, &["job", "scale", "rolls", "g", "3"], &["Monitoring deployment", "Job Version = 3\nStatus = successful", "g 3 3 3 0"]);
    pair.same(0, &["job", "scale", "rolls", "1"], &["Job Version = 4\nStatus = successful", "g 1 1 1 0"]);
    pair.same(0, &["job", "scale", "-detach", "rolls", "2"], &["Evaluation ID:"]);
    pair.same(1, &["job", "scale", "rolls", "nope", "2"], &["not found"]);
    pair.until(LATEST, |latest| latest["JobVersion"] == 5 && is_successful(latest));
    pair.rest("rolls");
    pair.same(0, &["job", "scaling-events", "rolls"], &["g"]);
    pair.same(0, &["job", "allocs", "rolls"], &["g 5 run running"]);
    pair.same(0, &["job", "eval", "rolls"], &["Monitoring evaluation", "finished with status \"complete\""]);
    pair.same(0, &["job", "eval", "-detach", "-force-reschedule", "rolls"], &["Created eval ID: \""]);
    pair.done();
}

#[test]
fn a_real_nomad_and_ours_try_canaries_alike() {
    let Some(binary) = cli::stock() else { dunlin_tests::skip!("{}", cli::NONE) };
    let mut pair = Pair::start(binary, "peer-canaries");
    let stable = pair.file("stable.hcl", rolls(1, "exec sleep 1000", "", "").as_bytes());
    let canary = |pair: &Pair, s: u32| {
        let file = pair.file(&format!("{s}.hcl"), rolls(1, &format!("exec sleep {s}"), "canary = 1", "").as_bytes());
        pair.same(1, &["job", "plan", &file], &["Task Group: \"g\" (1 canary, 1 ignore)"]);
        pair.same(0, &["job", "run", "-detach", &file], &["Job registration successful\nEvaluation ID:"]);
        pair.until(LATEST, |latest| latest["TaskGroups"]["g"]["HealthyAllocs"] == 1 && latest["TaskGroups"]["g"]["DesiredCanaries"] == 1);
    };
    pair.same(0, &["job", "run", &stable], &["Status = successful"]);

    // One waits for a user, is held, and is let go on.
    canary(&pair, 2000);
    pair.bind("{deployment}", LATEST, short);
    pair.same(0, &["deployment", "status", "{deployment}"], &["Deployment is running but requires manual promotion", "g false 1 1 1 1 0"]);
    pair.same(0, &["job", "status", "rolls"], &["requires manual promotion", "g 1 run running", "g 0 run running"]);
    pair.same(0, &["deployment", "pause", "{deployment}"], &["paused"]);
    pair.same(0, &["deployment", "status", "{deployment}"], &["Status = paused"]);
    pair.same(0, &["deployment", "resume", "-detach", "{deployment}"], &["resumed"]);
    pair.same(0, &["job", "promote", "rolls"], &["finished with status \"complete\""]);
    pair.until(LATEST, is_successful);
    for (words, why) in [
        (&["deployment", "promote", "{deployment}"][..], "can't promote terminal deployment"),
        (&["deployment", "fail", "{deployment}"], "can't fail terminal deployment"),
        (&["deployment", "pause", "{deployment}"], "can't pause terminal deployment"),
        (&["deployment", "resume", "{deployment}"], "can't resume terminal deployment"),
        (&["job", "promote", "rolls"], "can't promote terminal deployment"),
        (&["deployment", "promote", "ffffffff"], "Deployment ID \"ffffffff\" matched no deployments"),
    ] {
        pair.same(1, words, &[why]);
    }

    // Another by its group; a third is found bad.
    canary(&pair, 3000);
    pair.bind("{deployment}", LATEST, short);
    pair.same(0, &["deployment", "promote", "-group", "g", "{deployment}"], &["Status = successful"]);
    canary(&pair, 4000);
    pair.bind("{deployment}", LATEST, short);
    pair.same(1, &["deployment", "fail", "{deployment}"], &["Status = failed", "Deployment marked as failed"]);
    pair.rest("rolls");
    pair.same(0, &["job", "status", "rolls"], &["Deployment marked as failed", "g 3 stop complete", "g 2 run running"]);
    pair.same(0, &["deployment", "list", "-filter", "Status == \"failed\""], &["rolls 3 failed Deployment marked as failed"]);

    // A version that cannot run goes back to the one before.
    pair.same(0, &["job", "run", &stable], &["Status = successful"]);
    // However slowly it starts, it is not taken for healthy meanwhile.
    let broken = rolls(1, "exit 1", "auto_revert = true", "").replace("100ms", "10s");
    let broken = pair.file("broken.hcl", broken.as_bytes());
    // Whether its allocation is seen depends on whether the evaluation that replaces it is quicker than the follower.
    pair.same_but(
        1,
        &["job", "run", &broken],
        &[
            "Status = failed\nDescription = Failed due to unhealthy allocations - rolling back to job version 4",
            "Job Version = 6\nStatus = successful",
        ],
        |line| !line.starts_with("<time>: Allocation"),
    );
    pair.rest("rolls");
    pair.same(0, &["job", "status", "rolls"], &["g 6 run running", "g 5 stop failed", "g 4 stop complete"]);
    pair.same(0, &["job", "deployments", "rolls"], &["rolls 6 successful", "rolls 5 failed", "rolling back to job version 4"]);
    pair.same(0, &["job", "history", "rolls"], &["Version = 6\nStable = true", "Version = 5\nStable = false"]);

    // And the end of it.
    pair.same(0, &["eval", "list", "-filter", "TriggeredBy == \"job-register\""], &["job-register rolls"]);
    pair.same(0, &["job", "stop", "rolls"], &["Monitoring evaluation", "finished with status \"complete\""]);
    pair.rest("rolls");
    pair.same(0, &["job", "status", "rolls"], &["Status = dead (stopped)"]);
    pair.same(1, &["job", "plan", &stable], &["(1 create)"]);
    pair.same(0, &["system", "gc"], &[]);
    pair.until("/v1/jobs", |jobs| jobs == &json!([]));
    for words in [&["status"][..], &["deployment", "list"], &["eval", "list"]] {
        pair.same(0, words, &["No"]);
    }
    pair.same(1, &["job", "status", "rolls"], &["No job(s) with prefix or ID \"rolls\" found"]);
    pair.done();
}

#[test]
fn a_real_nomad_and_ours_make_children_alike() {
    let Some(binary) = cli::stock() else { dunlin_tests::skip!("{}", cli::NONE) };
    let mut pair = Pair::start(binary, "peer-children");
    let script = r#"config {
        command = "/bin/sh"
        args    = ["-c", "echo unit=$NOMAD_META_unit bytes=$(wc -c < $NOMAD_TASK_DIR/input.txt)"]
      }
      dispatch_payload {
        file = "input.txt"
      }"#;
    let parameters = r#"parameterized {
    payload       = "required"
    meta_required = ["unit"]
    meta_optional = ["note"]
  }"#;
    let convert = &pair.file("convert.hcl", batch("convert", parameters, script, 16).as_bytes());
    let periodic = r#"periodic {
    crons            = ["0 0 29 2 *"]
    prohibit_overlap = true
    time_zone        = "UTC"
  }"#;
    let nightly = &pair.file("nightly.hcl", batch("nightly", periodic, "config {\n command = \"/bin/true\"\n }", 16).as_bytes());
    let huge = &pair.file("huge.hcl", batch("huge", "", "config {\n command = \"/bin/true\"\n }", 900_000_000).as_bytes());
    let input = &pair.file("input", b"\0\xff\n");

    for file in [convert, nightly] {
        pair.same(1, &["job", "plan", file], &["(1 create)"]);
        pair.same(0, &["job", "run", file], &["Job registration successful"]);
        pair.same(0, &["job", "plan", file], &["(1 create)"]);
    }

    // Children by dispatch.
    let dispatched = ["Dispatched Job ID = convert/dispatch-", "Evaluation ID ="];
    pair.same(0, &["job", "dispatch", "-meta", "unit=7", "convert", input], &[dispatched[0], "finished with status \"complete\""]);
    pair.same(0, &["job", "dispatch", "-detach", "-meta", "unit=8", "-meta", "note=x", "conv", input], &dispatched);
    let order = ["job", "dispatch", "-meta", "unit=7", "-idempotency-token", "order", "convert", input];
    pair.same(0, &order, &dispatched);
    pair.same(0, &order, &dispatched[..1]);
    for (words, why) in [
        (&["job", "dispatch", "convert"][..], "Payload is not provided but required by parameterized job"),
        (&["job", "dispatch", "convert", input], "Dispatch did not provide required meta keys: [unit]"),
        (&["job", "dispatch", "-meta", "x=1", "convert", input], "Dispatch request included unpermitted metadata keys: [x]"),
        (&["job", "dispatch", "nope", input], "No job(s) with prefix or ID \"nope\" found"),
        (&["job", "dispatch", "nightly"], "No job(s) with prefix or ID \"nightly\" found"),
    ] {
        pair.same(1, words, &[why]);
    }

    // And by the clock.
    pair.same(
        0,
        &["job", "periodic", "force", "nightly"],
        &["Evaluation triggered by job \"nightly/periodic-", "finished with status \"complete\""],
    );
    // Theirs makes one child of two that are forced within one second: a query that waits in vain for one.
    http::ask(pair.agent.addr, "GET", "/v1/nodes?index=1000000&wait=1s", b"").expect("an answer");
    pair.same(0, &["job", "periodic", "force", "-detach", "night"], &["Force periodic successful\nEvaluation ID:"]);
    pair.same(1, &["job", "periodic", "force", "convert"], &["No periodic job(s) with prefix or ID \"convert\" found"]);
    pair.same(1, &["job", "periodic", "force", "nope"], &["No periodic job(s) with prefix or ID \"nope\" found"]);
    pair.until("/v1/job/convert/summary", |summary| summary["Children"]["Dead"] == 3);
    pair.until("/v1/job/nightly/summary", |summary| summary["Children"]["Dead"] == 2);
    pair.same(0, &["job", "status", "nightly"], &["Next Periodic Launch = 20", "0 0 2", "Previously Launched Jobs"]);
    pair.same(0, &["job", "status", "convert"], &["Parameterized Job", "Required Metadata = unit", "0 0 3", "Dispatched Jobs"]);
    pair.same(0, &["job", "status"], &["convert batch/parameterized 50 running", "nightly batch/periodic 50 running"]);

    // One of them.
    pair.bind("{child}", "/v1/jobs?prefix=convert/&meta=true", |jobs| {
        let mut all = jobs.as_array().unwrap().iter();
        all.find(|job| job["Meta"]["note"] == "x").expect("the second")["ID"].as_str().unwrap().to_owned()
    });
    let child = |side: &Side| side.names["{child}"].clone();
    let allocs: Vec<Value> = pair
        .sides
        .iter()
        .map(|side| http::ask(side.addr, "GET", &format!("/v1/job/{}/allocations", child(side)), b"").expect("an answer").json())
        .collect();
    for (side, allocs) in pair.sides.iter_mut().zip(&allocs) {
        side.names.insert("{alloc}", short(&allocs[0]));
    }
    pair.same(0, &["job", "status", "{child}"], &["Parameterized = false", "g 0 0 0 0 1 0 0", "g 0 run complete"]);
    pair.same(0, &["job", "history", "{child}"], &["Version = 0"]);
    pair.same_document(&["job", "inspect", "{child}"]);
    pair.same(0, &["alloc", "logs", "{alloc}"], &["unit=8 bytes=3"]);
    pair.same(
        0,
        &["alloc", "status", "{alloc}"],
        &[
            "Task \"t\" is \"dead\"",
            "20 MHz",
            "Terminated Exit Code: 0",
            "Started Task started by client",
            "Task Setup Building Task Directory",
        ],
    );
    pair.same(0, &["status", "{alloc}"], &["Client Status = complete"]);

    // No room.
    pair.same(
        2,
        &["job", "run", huge],
        &[
            "failed to place all allocations",
            "Dimension \"memory\" exhausted on 1 nodes",
            "waiting for additional capacity to place remainder",
        ],
    );
    pair.same(0, &["job", "status", "huge"], &["Status = pending", "Placement Failure"]);
    pair.same(0, &["job", "plan", huge], &["WARNING: Failed to place all allocations."]);
    pair.bind("{eval}", "/v1/evaluations?job=huge&status=blocked", |evals| short(&evals[0]));
    pair.same(0, &["eval", "status", "{eval}"], &["Status = blocked", "TriggeredBy = queued-allocs"]);
    pair.same(0, &["eval", "list", "-status", "blocked"], &["queued-allocs huge"]);
    pair.same(0, &["eval", "list", "-filter", "JobID == \"huge\" and Status == \"complete\""], &["job-register huge"]);
    pair.same(1, &["eval", "list", "-filter", "nope"], &["failed to read filter expression"]);
    pair.same(0, &["eval", "list", "-filter", "JobID == \"huge\"", "-per-page", "1"], &["Results have been paginated"]);

    // The ends.
    pair.same(0, &["job", "stop", "huge"], &["finished with status \"complete\""]);
    pair.same(0, &["job", "stop", "nightly"], &[]);
    pair.same(0, &["job", "status", "nightly"], &["Next Periodic Launch = none (job stopped)"]);
    pair.same(1, &["job", "periodic", "force", "nightly"], &["can't force run non-tracked job"]);
    pair.same(0, &["job", "stop", "-purge", "convert"], &[]);
    pair.same(1, &["job", "status", "nope"], &["No job(s) with prefix or ID \"nope\" found"]);
    pair.same(1, &["job", "stop", "nope"], &["No job(s) with prefix or ID \"nope\" found"]);
    pair.same(0, &["job", "stop", "-purge", "-detach", "nightly"], &[]);
    pair.same(0, &["system", "gc"], &[]);
    pair.until("/v1/jobs", |jobs| jobs == &json!([]));
    pair.same(0, &["status"], &["No running jobs"]);
    pair.done();
}
