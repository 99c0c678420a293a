//! The agent's life: from the command line to a running node, and its end.
//!
//! Order of a start: configuration, log, lock, identity, facts, store, supervisors found, core restored, HTTP. Tasks that were running
//! are adopted before the first request is answered. An agent that cannot act says why and exits 1.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use dunlin_hal::budget::Budget;
use dunlin_hal::clock::Clock;
use dunlin_hal::entropy::Rng;
use dunlin_hal::facts::{Facts, Source};
use dunlin_hal::linux::clock::KernelClock;
use dunlin_hal::linux::entropy::KernelPool;
use dunlin_hal::linux::facts::Machine;
use dunlin_hal::linux::volume::Mounted;
use dunlin_hal::linux::zones::ZoneFiles;
use dunlin_hal::volume::Volume;
use dunlin_runtime::alloc::dir;
use dunlin_runtime::cgroup::{Controller, Removed, Tree};
use dunlin_runtime::driver::Host;
use dunlin_runtime::id::{AllocId, NodeId};
use dunlin_runtime::proc::signal;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use smol::Timer;
use smol::future::FutureExt;

use super::child::{ShimPids, Supervisors};
use super::executor::Executor;
use super::files::{FileWorker, Files};
use super::found;
use super::h1::{Http, Limits};
use super::identity;
use super::net::Server;
use super::perform::{CoreRows, Parts, Requests, Shell};
use super::pump::Outside;
use super::sample;
use super::signals::{Signal, Signals};
use super::store_thread::StoreThread;
use super::timer::{ClockWatch, WakeTimer};
use super::tls;
use crate::config::merge::{self, AGENT_FLAGS, Surroundings};
use crate::config::{Config, file, flags};
use crate::core::{Core, Event, Setting};
use crate::log::Log;
use crate::node::fingerprint::{Cgroups, Inputs};
use crate::node::identity::FILE_NAMES;
use crate::node::{Node, fingerprint};
use crate::store::Store;
use crate::store::backend::Backend;
use crate::store::group::Told;
use crate::store::writer::Writer;

/// Longest time a `-dev` agent waits for its tasks at the end, beyond the longest kill timeout.
const SHUTDOWN_GRACE_S: u64 = 10;
/// Time a lock left by a killed agent has to become free.
const LOCK_MS_MAX: u64 = 1_000;
/// The store, below the data folder.
const STORE_NAME: &str = "state.redb";
/// Name of the cgroup above those of tasks.
const CGROUP_PARENT: &str = "nomad";

/// Why the agent cannot start; the text is for the operator.
struct Refused(String);

impl Refused {
    fn new(what: &str, why: impl core::fmt::Display) -> Self {
        Self(format!("{what}: {why}"))
    }
}

/// Runs an agent until it is told to stop. `words` follow `agent` on the command line.
#[must_use]
pub fn run(words: &[String]) -> ExitCode {
    let parsed = match flags::parse(AGENT_FLAGS, flags::Order::Mixed, words) {
        Ok(parsed) => parsed,
        Err(flags::FlagError::Help) => {
            say(&format!("Usage: dunlin agent [options] [job.json ...]\n\n{}", flags::usage(AGENT_FLAGS)));
            return ExitCode::SUCCESS;
        }
        Err(why) => return refuse(&[why.to_string(), "`dunlin agent -h` lists the options".to_owned()]),
    };
    let draft = file::read(parsed.values("config")).map_err(|why| vec![why]).and_then(|texts| merge::draft(&texts, &parsed));
    let draft = match draft {
        Ok(draft) => draft,
        Err(faults) => return refuse(&faults.iter().map(ToString::to_string).collect::<Vec<_>>()),
    };
    let mut machine = Machine::new("/");
    let facts = match machine.facts(draft.network_interface()) {
        Ok(facts) => facts,
        Err(why) => return refuse(&[why.to_string()]),
    };
    let temporary = match draft.wants_temporary().then(temporary_folder).transpose() {
        Ok(temporary) => temporary,
        Err(why) => return refuse(&[format!("temporary folder: {why}")]),
    };
    let around = Surroundings {
        hostname: facts.hostname.clone(),
        is_root: nix::unistd::geteuid().is_root(),
        xdg_runtime_dir: std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from),
        temporary: temporary.clone(),
    };
    let config = match draft.resolve(&around) {
        Ok(config) => config,
        Err(faults) => return refuse(&faults.iter().map(ToString::to_string).collect::<Vec<_>>()),
    };
    let cleanup = config.temporary.clone();
    let code = match start(config, facts, machine) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Refused(text)) => refuse(&[text]),
    };
    if let Some(folder) = cleanup
        && let Err(why) = fs::remove_dir_all(&folder)
        && why.kind() != io::ErrorKind::NotFound
    {
        log::warn!("{}: {why}", folder.display());
    }
    code
}

fn say(text: &str) {
    // Nobody reads: nothing to be done about it.
    let _ = writeln!(io::stdout(), "{text}");
}

fn refuse(texts: &[String]) -> ExitCode {
    for text in texts {
        let _ = writeln!(io::stderr(), "dunlin: {text}");
    }
    ExitCode::FAILURE
}

fn temporary_folder() -> io::Result<PathBuf> {
    let base = std::env::temp_dir();
    let mut rng = Rng::new(&mut KernelPool);
    let path = base.join(format!("dunlin-dev-{:08x}", rng.below(1 << 32)));
    fs::DirBuilder::new().mode(0o711).create(&path)?;
    path.canonicalize()
}

fn folder(path: &Path, mode: u32) -> Result<(), Refused> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|why| Refused::new(&path.display().to_string(), why))
}

fn start(config: Config, facts: Facts, machine: Machine) -> Result<(), Refused> {
    let board = dunlin_boards::detect(&facts.board, facts.memory_bytes);
    let mut budget = board.budget;
    if let Some(max) = config.http.conns_per_client_max {
        budget.conns_per_client_max = max;
    }
    Log::start(&budget, config.log_level, KernelClock).map_err(|why| Refused::new("log", why))?;
    for warning in &config.warnings {
        log::warn!("{warning}");
    }
    folder(&config.data_dir, 0o711)?;
    folder(&config.alloc_dir, 0o711)?;
    let _lock = lock(&config.data_dir)?;
    refuse_lost_store(&config)?;
    let mut rng = Rng::new(&mut KernelPool);
    let identity = identity::load(&config.state_dir, &mut rng).map_err(|why| Refused::new(&config.state_dir.display().to_string(), why))?;
    let runtime_dir = config.runtime_dir(&identity.id.to_string());
    folder(&runtime_dir, 0o700)?;

    // From here on threads are started: signals are blocked before, so that all of them inherit the mask.
    let signals = Signals::new().map_err(|why| Refused::new("signals", why))?;
    let exec = Executor::new();
    exec.clone().run(serve(config, facts, machine, budget, board.name, identity.id, runtime_dir, rng, signals, exec))
}

/// A store that is gone while allocations of this node are still there was lost: an empty one would end their tasks. An agent that
/// died in its very first start has no allocations, and a node taken over from Nomad has no copy of its identity.
fn refuse_lost_store(config: &Config) -> Result<(), Refused> {
    let path = config.data_dir.join(STORE_NAME);
    let was_here = FILE_NAMES[2..].iter().any(|name| config.state_dir.join(name).exists());
    let allocs_n = alloc_folders(&config.alloc_dir).len();
    // A file without a byte is what an agent leaves that dies while it makes a store.
    let is_there = fs::metadata(&path).is_ok_and(|meta| meta.len() > 0);
    if is_there || !was_here || allocs_n == 0 {
        return Ok(());
    }
    let folder = config.alloc_dir.display();
    let why = format!(
        "missing or empty, but {allocs_n} allocations of this node have folders in {folder}: put it back, or remove those to start anew"
    );
    Err(Refused::new(&path.display().to_string(), why))
}

/// Two agents never share a data folder (`spec/runtime.md` 6.6). What a killed agent was just starting holds the lock, and the ports,
/// until it is executed: a moment is waited.
fn lock(data_dir: &Path) -> Result<Flock<File>, Refused> {
    let path = data_dir.join("agent.lock");
    let mut file = File::create(&path).map_err(|why| Refused::new(&path.display().to_string(), why))?;
    for _ in 0..LOCK_MS_MAX / 10 {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) => file = back,
            Err((_, why)) => return Err(Refused::new(&path.display().to_string(), why)),
        }
        std::thread::sleep(Duration::from_millis(10)); // sleep: nothing else runs yet
    }
    Err(Refused::new(&path.display().to_string(), "another agent uses this data folder"))
}

#[expect(clippy::too_many_arguments, reason = "everything a start has found out, once")]
async fn serve(
    config: Config,
    facts: Facts,
    machine: Machine,
    budget: Budget,
    board: &'static str,
    id: NodeId,
    runtime_dir: PathBuf,
    rng: Rng,
    signals: Signals,
    exec: Executor,
) -> Result<(), Refused> {
    let tree = Arc::new(Tree::detect(Path::new("/sys/fs/cgroup"), CGROUP_PARENT));
    let host = Arc::new(Host {
        alloc_root: config.alloc_dir.clone(),
        runtime_dir: runtime_dir.clone(),
        shim_exe: PathBuf::from("/proc/self/exe"),
        cgroup: Tree::clone(&tree),
        boot_id: facts.boot_id,
        path: std::env::var_os("PATH").unwrap_or_default(),
        pids_max: budget.pids_max,
        is_secrets_strict: true,
    });

    let backend = Arc::new(open_store(&config.data_dir, &budget)?);
    let store = Store::open(backend.clone()).map_err(|why| Refused::new("store", why))?;
    let (found, duties) = found::look(&host).map_err(|why| Refused::new(&host.runtime_dir.display().to_string(), why))?;

    let server_slot: Rc<Late<Shell>> = Rc::default();
    let worker = FileWorker::default();
    let pids = ShimPids::default();
    let told = {
        let shell = server_slot.clone();
        Rc::new(move |alloc: AllocId, task: &str, inv, news| {
            if let Some(shell) = shell.get() {
                shell.feed(Event::News { alloc, task: task.to_owned(), inv, news });
            }
        })
    };
    let supervisors = Supervisors::new(exec.clone(), runtime_dir, tree.clone(), told, pids.clone());
    let (tell_store, told_store) = smol::channel::unbounded();
    let store_thread = StoreThread::start(Writer::new(backend), tell_store).map_err(|why| Refused::new("store thread", why))?;
    let (tell_exit, told_exit) = smol::channel::bounded(1);

    // The node must know where it can be reached before the core is made, and requests must find the core: sockets first, then both.
    let sampler = sample::sampler(machine, tree.clone(), config.alloc_dir.clone(), pids);
    let files = Rc::new(Files::new(worker.clone(), config.alloc_dir.clone(), sampler));
    let tls = config.http.tls.as_ref().map(tls::acceptor).transpose().map_err(|why| Refused::new("tls", why))?.map(Rc::new);
    let bound = bind(&config)?;
    let http_addr = bound.first().map(|(_, addr)| *addr);
    let node = node(&config, &facts, board, id, &tree, http_addr);
    let setting = Setting {
        alloc_root: config.alloc_dir.to_string_lossy().into_owned(),
        zones: Box::new(ZoneFiles::new(std::env::var("TZ").ok())),
        host_env: host_env(&config),
        budget,
        node,
        config: config.clone(),
    };
    let mut core = Core::new(setting, store, rng);
    let folders = alloc_folders(&config.alloc_dir);
    // Read here: what was found may have ended while it was looked at, and what follows from an end is not older than it.
    core.restore(KernelClock.now(), facts.boot_id, found, &folders).map_err(|why| Refused::new("store", why))?;
    let timer = WakeTimer::new().map_err(|why| Refused::new("timer", why))?;
    let clock_watch = ClockWatch::new().map_err(|why| Refused::new("clock", why))?;
    let shell = Shell::new(Parts {
        core,
        exec: exec.clone(),
        store: store_thread,
        supervisors,
        worker,
        timer,
        host: host.clone(),
        exit: tell_exit,
    });
    server_slot.set(&shell);

    exec.spawn(follow_store(shell.clone(), told_store)).detach();
    exec.spawn(follow_timer(shell.clone())).detach();
    exec.spawn(follow_clock(shell.clone(), clock_watch)).detach();
    for duty in duties {
        shell.attend(duty);
    }
    shell.perform();

    let outside = Outside { clock: Rc::new(KernelClock), rows: Rc::new(CoreRows(shell.clone())), files };
    let limits = Limits::new(&budget);
    let server = Server::new(exec.clone(), Http::new(limits, Rc::new(Requests(shell.clone())), outside, &config.http.headers));
    for (listener, _) in bound {
        server.serve_tcp(listener, tls.clone()).map_err(|why| Refused::new("http", why))?;
    }
    if let Some(path) = &config.http.unix {
        server.listen_unix(path).map_err(|why| Refused::new(&path.display().to_string(), why))?;
    }
    let jobs = register_jobs(&shell, &config)?;
    greet(&config, http_addr, id, &jobs);
    let is_dev = config.dev;
    until_stopped(&shell, &signals).await;
    if is_dev {
        say("==> Stopping all tasks");
        shell.feed(Event::Shutdown);
        let longest = config.max_kill_timeout + Duration::from_secs(SHUTDOWN_GRACE_S);
        let ended = async {
            let _ = told_exit.recv().await;
            true
        };
        let late = async {
            Timer::after(longest).await;
            false
        };
        let again = async {
            until_stopped(&shell, &signals).await;
            false
        };
        if !ended.or(late).or(again).await {
            log::warn!("not all tasks have ended");
        }
    }
    drop(server);
    shell.close();
    if is_dev {
        leave_nothing(&host, &config);
    }
    Ok(())
}

/// What a `-dev` agent made outside its temporary folder: mounts below allocations, their cgroups, its runtime folder (decision 27).
/// Only what is named after an allocation of this agent is touched (decision 25).
fn leave_nothing(host: &Host, config: &Config) {
    let ours = alloc_folders(&config.alloc_dir);
    for (alloc, task) in host.cgroup.tasks().into_iter().filter(|(alloc, _)| ours.contains(alloc)) {
        // The kernel lets go of a group some moments after its last process.
        for _ in 0..50 {
            match host.cgroup.remove(alloc, &task) {
                Ok(Removed::NotYet) => std::thread::sleep(Duration::from_millis(20)), // sleep: nothing else runs any more
                Ok(Removed::Gone) => break,
                Err(why) => {
                    log::warn!("cgroup of alloc {alloc} task {task}: {why}");
                    break;
                }
            }
        }
    }
    if config.temporary.is_some() {
        for alloc in ours {
            if let Err(why) = dir::remove(&config.alloc_dir, alloc) {
                log::warn!("alloc {alloc}: {why}");
            }
        }
    }
    if let Err(why) = fs::remove_dir_all(&host.runtime_dir) {
        log::warn!("{}: {why}", host.runtime_dir.display());
    }
    // The folder above it goes with its last user.
    if let Some(above) = host.runtime_dir.parent() {
        let _ = fs::remove_dir(above);
    }
}

/// Something that is made later than those who need it.
struct Late<T>(std::cell::RefCell<Weak<T>>);

impl<T> Default for Late<T> {
    fn default() -> Self {
        Self(std::cell::RefCell::new(Weak::new()))
    }
}

impl<T> Late<T> {
    fn set(&self, value: &Rc<T>) {
        *self.0.borrow_mut() = Rc::downgrade(value);
    }

    fn get(&self) -> Option<Rc<T>> {
        self.0.borrow().upgrade()
    }
}

fn open_store(data_dir: &Path, budget: &Budget) -> Result<Backend, Refused> {
    let path = data_dir.join(STORE_NAME);
    Backend::file(&path, budget.store_cache_bytes, budget.store_reserve_bytes).map_err(|why| Refused::new(&path.display().to_string(), why))
}

fn alloc_folders(alloc_dir: &Path) -> Vec<AllocId> {
    let Ok(entries) = fs::read_dir(alloc_dir) else { return Vec::new() };
    entries.flatten().filter_map(|entry| AllocId::parse(entry.file_name().to_str()?)).collect()
}

fn host_env(config: &Config) -> BTreeMap<String, String> {
    let all = std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
    all.filter(|(key, _)| !config.env_denylist.contains(key)).collect()
}

fn bind(config: &Config) -> Result<Vec<(std::net::TcpListener, SocketAddr)>, Refused> {
    let mut bound = Vec::new();
    for wanted in &config.http.tcp {
        let listener = std::net::TcpListener::bind(*wanted).map_err(|why| Refused::new(&format!("http {wanted}"), why))?;
        let addr = listener.local_addr().map_err(|why| Refused::new(&format!("http {wanted}"), why))?;
        bound.push((listener, addr));
    }
    Ok(bound)
}

fn node(config: &Config, facts: &Facts, board: &str, id: NodeId, tree: &Tree, http: Option<SocketAddr>) -> Node {
    let storage = Mounted::new("/").space(&config.alloc_dir).unwrap_or_default();
    let controllers: Vec<&str> = Controller::ALL.into_iter().filter(|controller| tree.has(*controller)).map(Controller::name).collect();
    let known: Vec<&str> = signal::names().collect();
    let found = fingerprint(&Inputs {
        facts,
        storage: &storage,
        board: if board == "generic-linux" { "" } else { board },
        cgroups: Cgroups { version: tree.mode().version(), controllers: &controllers, parent: &tree.parent() },
        signals: &known,
        config,
        http,
        version: env!("CARGO_PKG_VERSION"),
    });
    Node::new(id, found, config, http)
}

async fn follow_store(shell: Rc<Shell>, told: smol::channel::Receiver<Told>) {
    while let Ok(told) = told.recv().await {
        shell.feed(match told {
            Told::Committed(seq) => Event::Committed(seq),
            Told::Failed { seq, text } => Event::CommitFailed { seq, text },
        });
    }
}

async fn follow_timer(shell: Rc<Shell>) {
    loop {
        match shell.timer_fired().await {
            Ok(()) => shell.feed(Event::Due),
            Err(why) => {
                log::error!("timer: {why}");
                return;
            }
        }
    }
}

async fn follow_clock(shell: Rc<Shell>, watch: ClockWatch) {
    loop {
        match watch.stepped().await {
            Ok(()) => shell.feed(Event::ClockStepped),
            Err(why) => {
                log::error!("clock: {why}");
                return;
            }
        }
    }
}

fn register_jobs(shell: &Rc<Shell>, config: &Config) -> Result<Vec<String>, Refused> {
    let mut names = Vec::new();
    for path in &config.jobs {
        let name = path.display().to_string();
        if path.extension().is_some_and(|ending| ending == "hcl" || ending == "nomad") {
            return Err(Refused::new(&name, "HCL job files are not read here; `nomad job run -output` makes JSON of them"));
        }
        let text = fs::read(path).map_err(|why| Refused::new(&name, why))?;
        let (id, warnings) = shell.register(&text).map_err(|why| Refused::new(&name, why.text.trim_end()))?;
        if !warnings.is_empty() {
            log::warn!("{name}: {}", warnings.trim_end());
        }
        names.push(id);
    }
    Ok(names)
}

fn greet(config: &Config, http: Option<SocketAddr>, id: NodeId, jobs: &[String]) {
    let address = match (http, &config.http.unix) {
        (Some(addr), _) if config.http.tls.is_some() => format!("https://{addr}"),
        (Some(addr), _) => format!("http://{addr}"),
        (None, Some(path)) => format!("unix://{}", path.display()),
        (None, None) => "nowhere".to_owned(),
    };
    say(&format!("==> dunlin {} is up", env!("CARGO_PKG_VERSION")));
    say(&format!("    Node: {} ({}), region {}, datacenter {}", config.node_name, &id.to_string()[..8], config.region, config.datacenter));
    say(&format!("    HTTP: {address}"));
    say(&format!("    Data: {}{}", config.data_dir.display(), if config.temporary.is_some() { " (removed at the end)" } else { "" }));
    if !jobs.is_empty() {
        say(&format!("    Jobs: {}", jobs.join(", ")));
    }
    if config.dev {
        let is_default = http.is_some_and(|addr| addr.port() == 4646);
        let program = std::env::args().next().unwrap_or_else(|| "dunlin".to_owned());
        let prefix = if is_default { program } else { format!("NOMAD_ADDR={address} {program}") };
        say("==> Look at it from another terminal, with this file or with the stock nomad CLI:");
        if let Some(job) = jobs.first() {
            say(&format!("    {prefix} job status {job}"));
            say(&format!("    {prefix} alloc logs -f -job {job}"));
        }
        say(&format!("    {prefix} node status"));
        say(&format!("    {prefix} job run JOB.json"));
        say("==> Ctrl-C stops the tasks and leaves nothing behind. Log:");
    }
}

/// Waits for a signal that ends the agent; reaps when this is the first process.
async fn until_stopped(shell: &Rc<Shell>, signals: &Signals) {
    loop {
        match signals.next().await {
            Ok(Signal::Terminate | Signal::Interrupt) => return,
            Ok(Signal::Hangup) => log::info!("configuration is read again at the next start"),
            Ok(Signal::Child) => shell.reap(),
            Err(why) => {
                log::error!("signals: {why}");
                return;
            }
        }
    }
}
