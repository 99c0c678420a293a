//! Does it run where it will live? An emulated 64-bit ARM machine with 64 MiB to spare, real cgroup v2, a kernel of Debian's.
//!
//! Needs what `boards/build vm` needs; `tests/run boards` prepares it and names the agent to boot in `DUNLIN_VM`.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use dunlin_tests::golden::fixtures;
use dunlin_tests::{http, skip};
use serde_json::Value;

/// Longest time from the start of the emulator to the agent's first word, and for each step after it.
const BOOT_MAX: Duration = Duration::from_secs(120);

/// The machine; ending it is the power cut.
struct Machine {
    emulator: Child,
    console: Receiver<String>,
    seen: Vec<String>,
    addr: SocketAddr,
}

impl Machine {
    fn boot(agent: &Path, job: &Path, mem_mib: u32) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut emulator = Command::new(root.join("boards/build"))
            .arg("vm")
            .arg("--bin")
            .arg(agent)
            .arg("--job")
            .arg(job)
            .args(["--port", &port.to_string(), "--mem", &mem_mib.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (tell, console) = channel();
        let lines = BufReader::new(emulator.stdout.take().unwrap()).split(b'\n');
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if tell.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    return;
                }
            }
        });
        Self { emulator, console, seen: Vec::new(), addr: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    /// Waits for a line on the console.
    #[track_caller]
    fn expect(&mut self, what: &str) -> String {
        let end = Instant::now() + BOOT_MAX;
        loop {
            match self.console.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(what) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no `{what}` on the console:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let answer = http::ask(self.addr, "GET", path, b"").unwrap_or_else(|why| panic!("{path}: {why}\n{}", self.seen.join("\n")));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.emulator.kill();
        let _ = self.emulator.wait();
    }
}

#[test]
fn an_arm64_machine_runs_telemetry_and_answers() {
    let Some(agent) = std::env::var_os("DUNLIN_VM") else { skip!("no emulator was prepared (tests/run boards does)") };
    let mut machine = Machine::boot(Path::new(&agent), &fixtures().join("jobs/telemetry.json"), 128);
    machine.expect("is up");
    let mut index = 0;
    let end = Instant::now() + BOOT_MAX;
    let allocs = loop {
        let path = format!("/v1/job/telemetry/allocations?index={index}&wait=5s");
        let answer = http::ask(machine.addr, "GET", &path, b"").unwrap();
        let allocs = answer.json();
        let all = allocs.as_array().unwrap();
        if all.len() == 2 && all.iter().all(|alloc| alloc["ClientStatus"] == "running") {
            break allocs;
        }
        assert!(Instant::now() < end, "{allocs}\n{}", machine.seen.join("\n"));
        index = answer.index();
    };
    let node = machine.get("/v1/nodes?os=true&resources=true")[0].clone();
    let whole = machine.get(&format!("/v1/node/{}", node["ID"].as_str().unwrap()));
    let attributes = &whole["Attributes"];
    assert_eq!((&attributes["cpu.arch"], &attributes["kernel.arch"]), (&"arm64".into(), &"aarch64".into()));
    assert_eq!((&attributes["os.cgroups.version"], &attributes["edge.cgroup.memory"]), (&"2".into(), &"true".into()));
    assert!(whole["NodeResources"]["Cpu"]["CpuShares"].as_u64().unwrap() >= 1000, "no cpufreq is no reason for 0 MHz");

    // The task's own words, through the API, and its use of the machine from real v2 controllers.
    let id = allocs[0]["ID"].as_str().unwrap();
    let logs = http::ask(machine.addr, "GET", &format!("/v1/client/fs/logs/{id}?task=sample&type=stdout&plain=true"), b"").unwrap();
    assert!(logs.text().starts_with("{\"n\":0,"), "{}", logs.text());
    let stats = machine.get(&format!("/v1/client/allocation/{id}/stats"));
    let memory = &stats["Tasks"]["sample"]["ResourceUsage"]["MemoryStats"];
    assert!(memory["Usage"].as_u64().unwrap() > 0 && memory["Usage"].as_u64().unwrap() < 16 << 20, "{stats}");
    let host = machine.get("/v1/client/stats");
    assert!(host["Memory"]["Total"].as_u64().unwrap() < 128 << 20);

    // A stop works through v2 as well.
    let stopped = http::ask(machine.addr, "DELETE", "/v1/job/telemetry", b"").unwrap();
    assert_eq!(stopped.status, 200, "{}", stopped.text());
    let end = Instant::now() + BOOT_MAX;
    loop {
        let allocs = machine.get("/v1/job/telemetry/allocations");
        if allocs.as_array().unwrap().iter().all(|alloc| alloc["ClientStatus"] == "complete") {
            break;
        }
        assert!(Instant::now() < end, "{allocs}");
        let index = http::ask(machine.addr, "GET", "/v1/allocations", b"").unwrap().index();
        http::ask(machine.addr, "GET", &format!("/v1/allocations?index={index}&wait=2s"), b"").unwrap();
    }
}
