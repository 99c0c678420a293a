//! Starting a task: folders, rendered files, limits, runtime folder, shim. What is executed is the driver's answer.
//!
//! Shape: ([`Host`], [`Launch`]) -> a shim that is ready, or a [`LaunchError`] after which nothing is left. Blocking: for a worker thread.
//! One driver so far, so a `match` on its kind is all the indirection there is. The order is that of `spec/runtime.md` 6.3; the commit
//! that justifies the start has happened before.
//! Errors: one sentence for the `Driver Failure` event, and whether the restart policy may try again.

pub mod raw_exec;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dunlin_hal::clock::Mono;

use crate::alloc::dir::{self, Owners};
use crate::cgroup::{Controller, Limits, Place, Tree};
use crate::id::{AllocId, Inv};
use crate::proc::spawn::{self, StartError};
use crate::shim::folder::{self, with_nul};
use crate::shim::spec::{Cgroup, Ids, Spec, SpecError};
use crate::spec::{DriverKind, KillPolicy, LogPolicy, Resources};

/// Time for a shim to become ready; it takes milliseconds.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// The machine as the drivers see it. One value for the life of the agent.
#[derive(Clone, Debug)]
pub struct Host {
    /// Folders of allocations.
    pub alloc_root: PathBuf,
    /// Folders of invocations; on tmpfs.
    pub runtime_dir: PathBuf,
    /// Executable of the shim (`/proc/self/exe`).
    pub shim_exe: PathBuf,
    /// Control groups.
    pub cgroup: Tree,
    /// This boot.
    pub boot_id: [u8; 16],
    /// Where programs are looked up: the agent's PATH.
    pub path: OsString,
    /// Processes per task.
    pub pids_max: u32,
    /// `secrets` is closed to all but the task's user.
    pub is_secrets_strict: bool,
}

/// One invocation, everything interpolated.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// New for every start.
    pub inv: Inv,
    /// The allocation.
    pub alloc: AllocId,
    /// The task.
    pub task: String,
    /// Version of the job.
    pub job_version: u64,
    /// Which driver.
    pub driver: DriverKind,
    /// Path or name of the program.
    pub command: String,
    /// Arguments after `argv[0]`.
    pub args: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// Absolute; empty = the task's folder.
    pub work_dir: String,
    /// Name or number; empty = the driver's default.
    pub user: String,
    /// `oom_score_adj` of the task.
    pub oom_score_adj: i32,
    /// Limits.
    pub resources: Resources,
    /// Its captured output.
    pub logs: LogPolicy,
    /// How it is asked to end.
    pub kill: KillPolicy,
    /// Restarts in the current interval.
    pub restart_n: u32,
    /// Start of that interval.
    pub interval_started: Mono,
    /// Rendered templates, and before them what a dispatch brought.
    pub files: Vec<RenderedFile>,
    /// Events of the task that no commit holds yet, in the agent's own form; found again by a scan.
    pub note: Vec<u8>,
}

/// One file that is there before the task is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RenderedFile {
    /// Relative to the task's folder.
    pub path: PathBuf,
    /// Content.
    pub bytes: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

/// Why a task was not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchError {
    /// For the `Driver Failure` event.
    pub text: String,
    /// A later attempt may do better.
    pub is_recoverable: bool,
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for LaunchError {}

impl LaunchError {
    /// The job is wrong: trying again does not help.
    pub(crate) fn of_job(text: impl fmt::Display) -> Self {
        Self { text: format!("failed to launch command: {text}"), is_recoverable: false }
    }

    /// The machine refused; it may change its mind where it was short of something.
    pub(crate) fn of_machine(what: &str, error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        let is_shortage = matches!(
            error.kind(),
            Kind::StorageFull | Kind::QuotaExceeded | Kind::OutOfMemory | Kind::WouldBlock | Kind::ReadOnlyFilesystem | Kind::ResourceBusy
        ) || matches!(error.raw_os_error(), Some(nix::libc::EMFILE | nix::libc::ENFILE));
        Self { text: format!("failed to launch command: {what}: {error}"), is_recoverable: is_shortage }
    }
}

/// What a driver makes of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// What is executed; `argv[0]` too.
    pub exec: PathBuf,
    /// Who it runs as; `None` = the agent's user.
    pub user: Option<Ids>,
    /// Variables that replace those of the launch.
    pub env: BTreeMap<String, String>,
}

/// Starts one invocation. When it returns, the shim listens in its runtime folder and the task is being executed.
///
/// # Errors
/// See [`LaunchError`]; groups and runtime folder of the failed attempt are removed, the allocation's folders stay.
pub fn launch(host: &Host, launch: &Launch) -> Result<(), LaunchError> {
    let user = match launch.driver {
        DriverKind::RawExec => raw_exec::user(&launch.user)?,
    };
    let secrets = host.is_secrets_strict.then(|| user.as_ref().map_or((0, 0), |user| (user.ids.uid, user.ids.gid)));
    let task_dir = dir::make(&host.alloc_root, launch.alloc, &launch.task, Owners::of_system(secrets))
        .map_err(|error| LaunchError::of_machine("task folder", &error))?;
    for file in &launch.files {
        dir::write_file(task_dir.fd.as_fd(), &file.path, &file.bytes, file.mode)
            .map_err(|error| LaunchError::of_machine(&file.path.to_string_lossy(), &error))?;
    }
    let prepared = match launch.driver {
        DriverKind::RawExec => raw_exec::prepare(launch, user, &task_dir, &host.path)?,
    };
    let place = host
        .cgroup
        .create(launch.alloc, &launch.task, &Limits::of(&launch.resources, host.pids_max))
        .map_err(|error| LaunchError::of_machine(&error.path.to_string_lossy(), &error.source));
    let started = place.and_then(|place| {
        let spec = encode(host, launch, &prepared, &task_dir, &place)?;
        let runtime =
            folder::make(&host.runtime_dir, launch.inv, &spec).map_err(|error| LaunchError::of_machine("runtime folder", &error))?;
        start(host, launch.inv, &runtime)
    });
    if started.is_err() {
        // Fails only when a hung shim is still in them; then they are found again at the next attempt.
        let _ = host.cgroup.remove(launch.alloc, &launch.task);
    }
    started
}

fn start(host: &Host, inv: Inv, runtime: &Path) -> Result<(), LaunchError> {
    let error = match spawn::shim(&host.shim_exe, runtime.as_os_str(), READY_LIMIT) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    // With the lock in hand no late shim can start its task. One that hangs keeps its folder: a scan finds both.
    let _ = folder::remove(&host.runtime_dir, inv, None);
    let why = match error {
        StartError::Spawn(error) => return Err(LaunchError { is_recoverable: true, ..LaunchError::of_machine("supervisor", &error) }),
        StartError::Refused(text) => text,
        StartError::Silent => "it ended before it was ready".to_owned(),
        StartError::Late { .. } => format!("it was not ready within {} s", READY_LIMIT.as_secs()),
    };
    // The supervisor's trouble is the machine's, never the job's.
    Err(LaunchError { text: format!("failed to launch command: supervisor: {why}"), is_recoverable: true })
}

/// The bytes of the `spec` file.
fn encode(host: &Host, launch: &Launch, prepared: &Prepared, task_dir: &dir::TaskDir, place: &Place) -> Result<Vec<u8>, LaunchError> {
    let text = |what: &str, value: &OsStr| {
        with_nul(value).ok_or_else(|| LaunchError::of_job(format_args!("{what} contains a NUL byte: {:?}", value.to_string_lossy())))
    };
    let exec = text("command", prepared.exec.as_os_str())?;
    let args = launch.args.iter().map(|arg| text("argument", OsStr::new(arg))).collect::<Result<Vec<_>, _>>()?;
    let env = launch.env.iter().filter(|(key, _)| !prepared.env.contains_key(*key)).chain(&prepared.env);
    let env = env.map(|(key, value)| text("environment variable", OsStr::new(&format!("{key}={value}")))).collect::<Result<Vec<_>, _>>()?;
    let work_dir = match launch.work_dir.as_str() {
        "" => task_dir.path.as_os_str(),
        absolute if absolute.starts_with('/') => OsStr::new(absolute),
        other => return Err(LaunchError::of_job(format_args!("work_dir must be an absolute path: {other:?}"))),
    };
    let work_dir = text("work_dir", work_dir)?;
    let alloc_dir = text("allocation folder", task_dir.alloc_path.as_os_str())?;
    let path = |path: Option<PathBuf>| path.map_or_else(|| Ok(Vec::new()), |path| text("cgroup", path.as_os_str()));
    let unified = path(place.unified.clone())?;
    let freezer = path(place.legacy_of(Controller::Freezer).map(Path::to_path_buf))?;
    let join = place.legacy_folders().map(|folder| path(Some(folder.join("cgroup.procs")))).collect::<Result<Vec<_>, _>>()?;
    let oom = path(host.cgroup.oom_file(place))?;
    let shims = path(host.cgroup.shims().map(|folder| folder.join("cgroup.procs")))?;
    let spec = Spec {
        inv: launch.inv,
        boot_id: host.boot_id,
        alloc: launch.alloc,
        task: &launch.task,
        job_version: launch.job_version,
        exec: &exec,
        argv: std::iter::once(&exec).chain(&args).map(Vec::as_slice).collect(),
        env: env.iter().map(Vec::as_slice).collect(),
        work_dir: &work_dir,
        user: prepared.user.clone(),
        oom_score_adj: launch.oom_score_adj,
        cgroup: Cgroup { unified: &unified, join: join.iter().map(Vec::as_slice).collect(), freezer: &freezer, oom: &oom, shims: &shims },
        alloc_dir: &alloc_dir,
        logs: launch.logs,
        kill: launch.kill,
        restart_n: launch.restart_n,
        interval_started_ns: launch.interval_started.0,
        note: &launch.note,
    };
    spec.encode().map_err(|error| match error {
        SpecError::TooLong => LaunchError::of_job("arguments and environment are longer than 256 KiB together"),
        SpecError::Version(_) | SpecError::Malformed => LaunchError::of_job("arguments and environment cannot be encoded"),
    })
}
