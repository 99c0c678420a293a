//! A real agent in a process of its own, on a free port and folders of its own; gone with all its tasks when dropped.
//!
//! The file is `DUNLIN_BIN`; without it the agent is built once (decision 23). Waits are blocking queries with a deadline: no sleeps.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dunlin_runtime::cgroup::{Removed, Tree};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::http::{self, Response};

/// The executable under test.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("DUNLIN_BIN") {
            return PathBuf::from(path).canonicalize().expect("DUNLIN_BIN names a file");
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
        let out = Command::new(cargo)
            .args(["build", "--package", "dunlin", "--message-format", "json"])
            .current_dir(root)
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo runs");
        assert!(out.status.success(), "the agent cannot be built");
        let text = String::from_utf8_lossy(&out.stdout);
        let built = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let path = built.filter_map(|line| line["executable"].as_str().map(PathBuf::from)).next_back();
        path.expect("an executable")
    })
}

/// True for a file that needs no dynamic loader: the product as it is shipped (decision 22). Figures are about that one.
#[must_use]
pub fn is_static(path: &Path) -> bool {
    let bytes = std::fs::read(path).unwrap_or_default();
    let head = &bytes[..bytes.len().min(4096)];
    head.starts_with(b"\x7fELF") && !head.windows(6).any(|window| window == b"ld-lin" || window == b"ld-mus")
}

/// What a test that fails shows of its agent's log.
const LOG_LINES_SHOWN: usize = 60;

/// A folder of a test's own, removed at the end with all that still runs for an agent in it.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        static N: AtomicU64 = AtomicU64::new(0);
        let n = N.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("dunlin-test-{}-{name}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a scratch folder");
        Self(path.canonicalize().expect("a scratch folder"))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(log) = std::fs::read_to_string(self.0.join("agent.log"))
        {
            let from = log.lines().count().saturating_sub(LOG_LINES_SHOWN);
            eprintln!("the agent's last words:");
            log.lines().skip(from).for_each(|line| eprintln!("    {line}"));
        }
        // Supervisors end their tasks with them: each is found by its runtime folder on its command line.
        for pid in shims(&self.0) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        sweep(&self.0);
        // Secrets folders are mounts of their own.
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for point in mounts.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| Path::new(point).starts_with(&self.0)) {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How an agent is started.
#[derive(Clone, Default)]
pub struct Options {
    /// Further words on the command line.
    pub args: Vec<String>,
    /// Contents of a config file; raw_exec is enabled in any case.
    pub config: Option<Value>,
    /// Another executable than [`binary`].
    pub binary: Option<PathBuf>,
    /// Variables of the agent's environment.
    pub env: Vec<(String, String)>,
}

/// A running agent.
pub struct Real {
    child: Child,
    /// Where its API is.
    pub addr: SocketAddr,
    scratch: Option<Scratch>,
    options: Options,
    log: PathBuf,
}

impl Real {
    /// Starts an agent on a folder of its own.
    #[track_caller]
    pub fn start(name: &str, options: Options) -> Self {
        Self::start_in(Scratch::new(name), options)
    }

    /// Starts an agent on what an earlier one has left.
    #[track_caller]
    pub fn start_in(scratch: Scratch, options: Options) -> Self {
        let (mut child, log) = spawn(&scratch, &options);
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let addr = loop {
            match lines.next() {
                Some(Ok(line)) => {
                    if let Some(addr) = line.trim().strip_prefix("HTTP: http://") {
                        break addr.parse().expect("an address");
                    }
                }
                _ => panic!("the agent did not come up:\n{}", std::fs::read_to_string(&log).unwrap_or_default()),
            }
        };
        // What it says later goes nowhere, but must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, addr, scratch: Some(scratch), options, log }
    }

    /// Starts an agent on what an earlier one has left and kills it `after` that, wherever it is in its start.
    #[track_caller]
    pub fn stillborn(scratch: Scratch, options: Options, after: Duration) -> (Scratch, Options) {
        let (mut child, _) = spawn(&scratch, &options);
        std::thread::sleep(after); // sleep: the moment of the kill
        let _ = child.kill();
        let _ = child.wait();
        (scratch, options)
    }

    /// Starts an agent that is expected to refuse: its exit code and what it said.
    #[track_caller]
    pub fn refused(scratch: &Scratch, options: &Options) -> (Option<i32>, String) {
        let before = std::fs::metadata(scratch.path().join("agent.log")).map_or(0, |meta| usize::try_from(meta.len()).unwrap_or(0));
        let (mut child, log) = spawn(scratch, options);
        // One that comes up after all closes its output only when it is told to end.
        let is_up = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok).any(|line| line.contains("HTTP: "));
        if is_up {
            let _ = child.kill();
        }
        let status = child.wait().expect("it ends");
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        (status.code(), said.get(before.min(said.len())..).unwrap_or_default().to_owned())
    }

    /// Its folder: `data`, `run`, `agent.log`.
    pub fn path(&self) -> &Path {
        self.scratch().path()
    }

    /// The same, for another agent that is to meet this one.
    pub fn scratch(&self) -> &Scratch {
        self.scratch.as_ref().expect("it has not been taken apart")
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> Response {
        http::ask(self.addr, method, path, body).unwrap_or_else(|why| panic!("{method} {path}: {why}\n{}", self.log()))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        let answer = self.ask("GET", path, b"");
        assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
        answer.json()
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: &[u8]) -> Value {
        let answer = self.ask("PUT", path, body);
        assert_eq!(answer.status, 200, "PUT {path}: {}", answer.text());
        answer.json()
    }

    /// Registers a job and gives its evaluation's id.
    #[track_caller]
    pub fn run(&self, job: &[u8]) -> String {
        self.put("/v1/jobs", job)["EvalID"].as_str().expect("an evaluation").to_owned()
    }

    /// Waits, by blocking queries, until `path` answers with what `is_so` accepts.
    #[track_caller]
    pub fn wait(&self, path: &str, limit: Duration, is_so: impl FnMut(&Value) -> bool) -> Value {
        match http::wait(self.addr, path, limit, is_so) {
            Ok(Ok(value)) => value,
            Ok(Err(answer)) => panic!("GET {path} never became so: {}\n{}", answer.text(), self.log()),
            Err(why) => panic!("GET {path}: {why}\n{}", self.log()),
        }
    }

    /// The allocations of a job, once there are `n` and `is_so` holds for each.
    #[track_caller]
    pub fn allocs(&self, job: &str, n: usize, is_so: impl Fn(&Value) -> bool) -> Vec<Value> {
        let path = format!("/v1/job/{job}/allocations");
        let all =
            self.wait(&path, Duration::from_secs(60), |all| all.as_array().is_some_and(|all| all.len() >= n && all.iter().all(&is_so)));
        all.as_array().cloned().unwrap_or_default()
    }

    /// SIGKILL, and what is left for the next agent.
    pub fn kill(mut self) -> (Scratch, Options) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        (self.scratch.take().expect("it has not been taken apart"), self.options.clone())
    }

    /// SIGTERM, and the wait for its end; tasks stay.
    #[track_caller]
    pub fn stop(mut self) -> (Scratch, Options) {
        kill(self.pid(), Signal::SIGTERM).expect("it runs");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}\n{}", self.log());
        (self.scratch.take().expect("it has not been taken apart"), self.options.clone())
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        if self.scratch.is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The process, its output a pipe, and where it logs.
#[track_caller]
fn spawn(scratch: &Scratch, options: &Options) -> (Child, PathBuf) {
    let mut config = options.config.clone().unwrap_or_else(|| serde_json::json!({}));
    config["plugin"]["raw_exec"]["config"]["enabled"] = Value::Bool(true);
    config["edge"]["runtime_dir"] = Value::String(scratch.path().join("run").display().to_string());
    let file = scratch.path().join("config.json");
    std::fs::write(&file, config.to_string()).expect("config.json");
    let log = scratch.path().join("agent.log");
    let stderr = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("agent.log");
    let mut command = Command::new(options.binary.as_deref().unwrap_or(binary()));
    command.args(["agent", "-http", "127.0.0.1:0", "-data-dir"]).arg(scratch.path().join("data")).arg("-config").arg(&file);
    command.args(&options.args).envs(options.env.iter().cloned()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    (command.spawn().expect("the agent starts"), log)
}

/// Ends what is left of the tasks whose allocations are below `folder`, and removes their cgroups.
fn sweep(folder: &Path) {
    let ours = |alloc: &str| folder.join("data/alloc").join(alloc).is_dir();
    let tree = Tree::detect(Path::new("/sys/fs/cgroup"), "nomad");
    for (alloc, task) in tree.tasks().into_iter().filter(|(alloc, _)| ours(&alloc.to_string())) {
        for _ in 0..100 {
            let _ = tree.kill(alloc, &task);
            if !matches!(tree.remove(alloc, &task), Ok(Removed::NotYet)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10)); // sleep: the kernel tells nobody that a v1 group is empty
        }
    }
}

/// The living supervisors whose runtime folders are below `folder`.
pub fn shims(folder: &Path) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        if words.next().is_some_and(|name| name == "dunlin-shim") && words.next().is_some_and(|dir| Path::new(&*dir).starts_with(folder)) {
            found.push(Pid::from_raw(pid));
        }
    }
    found
}
