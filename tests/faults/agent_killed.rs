//! kill -9 of the agent, again and again and at any moment, under three tasks that log: none of them notices (RT01, RT02, RT04; I4).
//!
//! `DUNLIN_ROUNDS` says how often (200), `DUNLIN_SEED` repeats a run whose seed was printed.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use dunlin_tests::figure;
use dunlin_tests::http;
use dunlin_tests::real::{Options, Real};
use serde_json::{Value, json};

use super::job::{check_events, check_numbered, events, folder, job, kinds, output, restarting, state, task};
use super::{eventually, number};

/// Moments and choices; the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % n
    }

    fn wait(&mut self, below_us: u64) {
        std::thread::sleep(Duration::from_micros(self.below(below_us))); // sleep: the random moment of the kill
    }
}

fn line(n: u64) -> String {
    format!("{n:08} {:040}\n", 0)
}

/// Writes `count` lines with a pause of `pause_s`, until the file `local/stop` is there, then their number into `local/total`.
fn writer(count: u32, pause_s: &str) -> String {
    format!(
        r#"awk 'BEGIN {{ pad = sprintf("%040d", 0); while ((getline x < "local/stop") < 0) {{ for (k = 0; k < {count}; k++) printf "%08d %s\n", i++, pad; fflush(); system("sleep {pause_s}") }} print i > "local/total"; close("local/total") }}'"#
    )
}

/// Each life writes the next 2000 lines and ends with a code that tells which life it was. The file `local/stay` makes a life last.
const PHOENIX: &str = r#"n=$(($(cat local/lives 2>/dev/null || echo 0) + 1)); echo $n > local/lives
awk -v from=$(((n - 1) * 2000)) 'BEGIN { pad = sprintf("%040d", 0); for (k = 0; k < 2000; k++) printf "%08d %s\n", from + k, pad }'
sleep 0.$((n % 3 + 1)); while [ -e local/stay ]; do sleep 0.1; done; exit $((n % 5 + 1))"#;

fn phoenix_code(life: u64) -> i64 {
    i64::try_from(life % 5 + 1).expect("small")
}

/// Ends well, with code 3, a moment after it is asked to. What it waits for does not hold its output open.
const OBEDIENT: &str = "trap 'sleep 0.03; exit 3' TERM; echo life >> local/lives; while :; do sleep 5 >/dev/null 2>&1 & wait $!; done";

/// How many lives the file of [`OBEDIENT`] tells of.
fn lives_n(agent: &Path, alloc: &Value) -> u64 {
    std::fs::read_to_string(folder(agent, alloc).join("local/lives")).unwrap_or_default().lines().count() as u64
}

/// Sends a request and does not wait for the answer.
fn send(addr: SocketAddr, method: &str, path: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).expect("sent");
    stream
}

/// True when the dead agent had answered 200 before it died.
fn was_accepted(stream: TcpStream) -> bool {
    match http::answer(stream) {
        Ok(answer) => {
            assert_eq!(answer.status, 200);
            true
        }
        Err(_) => false,
    }
}

/// The newest allocation of a job.
fn alloc(agent: &Real, job: &str) -> Option<Value> {
    let all = agent.get(&format!("/v1/job/{job}/allocations"));
    let all = all.as_array()?;
    assert!(all.len() <= 1, "{job} was placed {} times", all.len());
    all.first().cloned()
}

struct Rounds {
    agent: Option<Real>,
    dice: Dice,
    /// Jobs posted at the moment of a kill, and whether the agent had said yes.
    posted: Vec<(u64, bool)>,
    stopped: Vec<(String, bool)>,
    lamp_asks: u64,
    lamp_accepted: u64,
    slowest: Duration,
    stillborn_n: u32,
}

impl Rounds {
    fn agent(&self) -> &Real {
        self.agent.as_ref().expect("it runs")
    }

    /// kill -9, perhaps some that do not get through their start, and one that does.
    fn replace(&mut self) {
        let (mut scratch, mut options) = self.agent.take().expect("it runs").kill();
        while self.dice.below(4) == 0 {
            let after = Duration::from_micros(self.dice.below(60_000));
            (scratch, options) = Real::stillborn(scratch, options, after);
            self.stillborn_n += 1;
        }
        let begun = Instant::now();
        self.agent = Some(Real::start_in(scratch, options));
        self.slowest = self.slowest.max(begun.elapsed());
    }

    fn round(&mut self, n: u64) {
        match self.dice.below(5) {
            0 => {
                // Right after POST.
                let path = self.agent().path().join(format!("posted-{n}"));
                let script = format!("echo run >> {}; exit {}", path.display(), n % 3);
                let body = job(&format!("posted-{n}"), "batch", task("t", &script)).to_string();
                let stream = send(self.agent().addr, "PUT", "/v1/jobs", body.as_bytes());
                self.dice.wait(25_000);
                self.replace();
                self.posted.push((n, was_accepted(stream)));
            }
            1 => {
                // During a stop.
                let id = format!("stopped-{n}");
                let mut obedient = task("t", OBEDIENT);
                obedient["KillSignal"] = json!("SIGTERM");
                self.agent().run(job(&id, "service", obedient).to_string().as_bytes());
                let alloc = self.agent().allocs(&id, 1, |alloc| alloc["ClientStatus"] == "running").remove(0);
                eventually(|| lives_n(self.agent().path(), &alloc) == 1);
                let stream = send(self.agent().addr, "DELETE", &format!("/v1/job/{id}"), b"");
                self.dice.wait(60_000);
                self.replace();
                self.stopped.push((id, was_accepted(stream)));
            }
            2 => {
                // During a restart that somebody asked for.
                let is_settled = |alloc: &Value| kinds(alloc).last() == Some(&"Started");
                let lamp = self.agent().allocs("lamp", 1, is_settled).remove(0);
                let id = lamp["ID"].as_str().expect("an id");
                // It is ready for its signal.
                eventually(|| Some(lives_n(self.agent().path(), &lamp)) == state(&lamp)["Restarts"].as_u64().map(|n| n + 1));
                let stream = send(self.agent().addr, "PUT", &format!("/v1/client/allocation/{id}/restart"), b"{}");
                self.dice.wait(90_000);
                self.replace();
                self.lamp_asks += 1;
                self.lamp_accepted += u64::from(was_accepted(stream));
            }
            _ => {
                self.dice.wait(150_000);
                self.replace();
            }
        }
    }
}

/// A restarted task: each end in the ring is that of its life, and the count is that of its lives.
#[track_caller]
fn check_lives(alloc: &Value, code: impl Fn(u64) -> i64) {
    check_events(alloc);
    let mut life = state(alloc)["Restarts"].as_u64().expect("a number");
    for event in events(alloc).iter().rev().filter(|event| event["Type"] == "Terminated") {
        assert!(life > 0, "more ends than restarts: {:?}", kinds(alloc));
        assert_eq!(event["ExitCode"].as_i64(), Some(code(life)), "life {life}: {:#}", state(alloc));
        life -= 1;
    }
}

#[test]
fn nobody_notices_that_the_agent_is_killed() {
    let rounds = number("DUNLIN_ROUNDS", 200);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let seed = number("DUNLIN_SEED", now.as_micros().try_into().unwrap_or(1));
    figure!("{rounds} kills of the agent, DUNLIN_SEED={seed}");

    let config = json!({ "client": { "gc_max_allocs": 10_000 } });
    let agent = Real::start("killed", Options { config: Some(config), ..Options::default() });
    let mut talker = task("t", &format!("exec {}", writer(1000, "0.05")));
    talker["LogConfig"] = json!({ "MaxFiles": 1000, "MaxFileSizeMB": 1 });
    let mut ender = task("t", &format!("{}; exit 7", writer(100, "0.02")));
    ender["LogConfig"] = json!({ "MaxFiles": 100, "MaxFileSizeMB": 1 });
    let mut phoenix = task("t", PHOENIX);
    phoenix["LogConfig"] = json!({ "MaxFiles": 100, "MaxFileSizeMB": 1 });
    let mut lamp = task("t", OBEDIENT);
    lamp["KillSignal"] = json!("SIGTERM");
    agent.run(job("talker", "batch", talker).to_string().as_bytes());
    agent.run(job("ender", "batch", ender).to_string().as_bytes());
    agent.run(restarting(job("phoenix", "service", phoenix), 300).to_string().as_bytes());
    agent.run(job("lamp", "service", lamp).to_string().as_bytes());
    let first = ["talker", "ender", "lamp"].map(|id| agent.allocs(id, 1, |alloc| alloc["ClientStatus"] == "running").remove(0));
    let born = |alloc: &Value| (alloc["ID"].clone(), state(alloc)["StartedAt"].clone());

    let mut all = Rounds {
        agent: Some(agent),
        dice: Dice(seed),
        posted: Vec::new(),
        stopped: Vec::new(),
        lamp_asks: 0,
        lamp_accepted: 0,
        slowest: Duration::ZERO,
        stillborn_n: 0,
    };
    for n in 0..rounds {
        if n == rounds / 2 {
            std::fs::write(folder(all.agent().path(), &first[1]).join("local/stop"), b"").expect("written");
            all.dice.wait(40_000);
        }
        all.round(n);
        let agent = all.agent();
        let talker = alloc(agent, "talker").expect("placed");
        assert_eq!((born(&talker), kinds(&talker)), (born(&first[0]), vec!["Received", "Task Setup", "Started"]), "round {n}");
        let ender = alloc(agent, "ender").expect("placed");
        assert_eq!(born(&ender), born(&first[1]), "round {n}");
        let is_over = ender["ClientStatus"] != "running";
        let mut want = vec!["Received", "Task Setup", "Started"];
        want.extend(["Terminated", "Not Restarting"].iter().filter(|_| is_over));
        assert!(n >= rounds / 2 || !is_over, "round {n}");
        assert_eq!(kinds(&ender), want, "round {n}");
        check_lives(&alloc(agent, "phoenix").expect("placed"), phoenix_code);
        check_lives(&alloc(agent, "lamp").expect("placed"), |_| 3);
    }
    finish(all);
}

/// Ends all jobs and looks at what they have left.
fn finish(mut all: Rounds) {
    let agent = all.agent.take().expect("it runs");
    let path = agent.path().to_owned();

    // What was asked for at the moment of a kill was done once, or not at all.
    for (n, was_accepted) in &all.posted {
        let id = format!("posted-{n}");
        let runs = || std::fs::read_to_string(path.join(&id)).unwrap_or_default();
        if agent.ask("GET", &format!("/v1/job/{id}"), b"").status == 404 {
            assert!(!was_accepted, "{id} was accepted and is unknown");
            assert_eq!(runs(), "", "{id} is unknown and has run");
            continue;
        }
        let alloc = agent.allocs(&id, 1, |alloc| state(alloc)["State"] == "dead").remove(0);
        check_events(&alloc);
        assert_eq!(runs(), "run\n", "{id}: {alloc:#}");
        let end = events(&alloc).iter().find(|event| event["Type"] == "Terminated").expect("an end");
        assert_eq!(end["ExitCode"].as_u64(), Some(n % 3), "{id}");
    }
    for (id, was_accepted) in &all.stopped {
        let is_stopped = agent.get(&format!("/v1/job/{id}"))["Stop"] == true;
        assert!(is_stopped || !was_accepted, "{id} was stopped and is not");
        agent.ask("DELETE", &format!("/v1/job/{id}"), b"");
        let alloc = agent.allocs(id, 1, |alloc| state(alloc)["State"] == "dead").remove(0);
        assert_eq!(kinds(&alloc), ["Received", "Task Setup", "Started", "Killing", "Terminated", "Killed"], "{id}: {alloc:#}");
        assert_eq!(events(&alloc)[4]["ExitCode"], 3, "{id}");
    }

    // The lamp has had a life for each restart.
    let lamp = agent.allocs("lamp", 1, |alloc| alloc["ClientStatus"] == "running").remove(0);
    let restarts = state(&lamp)["Restarts"].as_u64().expect("a number");
    eventually(|| lives_n(&path, &lamp) > restarts);
    assert_eq!(lives_n(&path, &lamp), restarts + 1);
    assert!((all.lamp_accepted..=all.lamp_asks).contains(&restarts), "{restarts} restarts, {} accepted", all.lamp_accepted);

    let talker = alloc(&agent, "talker").expect("placed");
    std::fs::write(folder(&path, &talker).join("local/stop"), b"").expect("written");
    let talker = agent.allocs("talker", 1, |alloc| state(alloc)["State"] == "dead").remove(0);
    assert_eq!(kinds(&talker), ["Received", "Task Setup", "Started", "Terminated"]);
    assert_eq!(events(&talker)[3]["ExitCode"], 0);
    let ender = agent.allocs("ender", 1, |alloc| state(alloc)["State"] == "dead").remove(0);
    assert_eq!(kinds(&ender), ["Received", "Task Setup", "Started", "Terminated", "Not Restarting"]);
    assert_eq!(
        (&events(&ender)[3]["ExitCode"], &state(&ender)["Failed"], &state(&ender)["Restarts"]),
        (&json!(7), &json!(true), &json!(0))
    );
    for (name, alloc) in [("talker", &talker), ("ender", &ender)] {
        let total = std::fs::read_to_string(folder(&path, alloc).join("local/total")).expect("a total");
        let (bytes, files_n) = output(&path, alloc, "stdout");
        assert_eq!(check_numbered(&bytes, line).to_string(), total.trim(), "{name}");
        assert_eq!(output(&path, alloc, "stderr").0, b"");
        figure!("{name}: {} bytes of log in {files_n} files, none lost", bytes.len());
    }

    // The phoenix has had a life for each restart, and each has left all its lines.
    let phoenix = alloc(&agent, "phoenix").expect("placed");
    std::fs::write(folder(&path, &phoenix).join("local/stay"), b"").expect("written");
    let lives = folder(&path, &phoenix).join("local/lives");
    let lives_n = || std::fs::read_to_string(&lives).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
    let bytes = || output(&path, &phoenix, "stdout").0.len() as u64;
    // The life that stays has written its last line.
    eventually(|| {
        let alloc = alloc(&agent, "phoenix").expect("placed");
        alloc["ClientStatus"] == "running"
            && state(&alloc)["Restarts"].as_u64().is_some_and(|n| n + 1 == lives_n())
            && bytes() == lives_n() * 2000 * 50
    });
    assert_eq!(check_numbered(&output(&path, &phoenix, "stdout").0, line), lives_n() * 2000);
    figure!(
        "{} lives of a restarted task, {} jobs posted, {} stopped, {} restarts asked for, {} agents killed in their start; slowest start {} ms",
        lives_n(),
        all.posted.len(),
        all.stopped.len(),
        all.lamp_asks,
        all.stillborn_n,
        all.slowest.as_millis()
    );
    // Adopted within a second (`spec/runtime.md` 6.8), machine shared with other tests.
    assert!(all.slowest < Duration::from_secs(3), "{:?}", all.slowest);
}
