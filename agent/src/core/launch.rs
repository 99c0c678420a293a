//! From an allocation and its job to the one thing the runtime is asked to start. Pure.
//!
//! Environment, interpolation and templates are settled here, before any process exists; what cannot be settled is told as a failed
//! launch with its reason, never started half.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use dunlin_runtime::driver::{Launch, RenderedFile};
use dunlin_runtime::env::{self, DirView, Dirs};
use dunlin_runtime::id::{AllocId, Inv};
use dunlin_runtime::spec::{AllocSpec, Program, TaskSpec};
use dunlin_runtime::task::restart::Window;
use dunlin_runtime::template;

use super::Setting;
use super::runs::Runs;
use crate::model::alloc::Allocation;
use crate::model::job::Job;
use crate::model::lower::{self, NodeRules, Placed};
use crate::store::StoreError;
use crate::store::view::View;

/// Permission bits of a payload: it may be a program (upstream v1.10.0 client/allocrunner/taskrunner/dispatch_hook.go).
const PAYLOAD_MODE: u32 = 0o755;

/// What the runtime runs for an allocation. A job that cannot be read gives tasks that fail with the reason: an allocation is
/// never silently left out.
pub fn spec(view: &View<'_>, alloc: &Allocation, setting: &Setting) -> Result<AllocSpec, StoreError> {
    let version = view.job_version(&alloc.job, alloc.edition)?;
    let job = version.and_then(|version| Job::from_json(version.spec.as_bytes()).ok());
    let placed = Placed { id: alloc.id, name: alloc.name(), index: alloc.index, ports: alloc.grant.ports.clone() };
    let rules = NodeRules {
        kill_timeout_ms_max: u64::try_from(setting.config.max_kill_timeout.as_millis()).unwrap_or(u64::MAX),
        is_oversubscription_on: true,
    };
    let lowered = job.and_then(|job| lower::lower(&job, &alloc.group, placed, rules));
    Ok(lowered.unwrap_or_else(|| {
        let why = format!("version {} of job {} cannot be read from the store", alloc.edition.version, alloc.job.id);
        let tasks = alloc.tasks.iter().map(|task| TaskSpec::failed(&task.name, why.clone()));
        AllocSpec {
            id: alloc.id,
            name: alloc.name(),
            index: alloc.index,
            group: alloc.group.clone(),
            tasks: tasks.collect(),
            ..AllocSpec::default()
        }
    }))
}

/// Where a task of this allocation finds its folders. `raw_exec` sees the host's paths.
fn dirs(alloc_root: &str, alloc: AllocId, task: &str) -> Dirs {
    let base = Path::new(alloc_root).join(alloc.to_string());
    let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
    let view = DirView {
        alloc: text(base.join("alloc")),
        local: text(base.join(task).join("local")),
        secrets: text(base.join(task).join("secrets")),
    };
    Dirs { task: view.clone(), host: view }
}

/// What launches are made of.
pub(super) struct Sources<'a> {
    pub(super) runs: &'a Runs,
    pub(super) setting: &'a Setting,
    pub(super) view: View<'a>,
}

/// One launch; the error is the text of the failed start. `None` = there is no such task.
pub(super) fn launch(
    sources: &Sources<'_>,
    alloc: AllocId,
    job_version: u64,
    task: usize,
    inv: Inv,
    window: Window,
) -> Option<Result<Launch, String>> {
    let spec = sources.runs.spec(alloc)?;
    let restarts_n = sources.runs.restarts_n(alloc, task);
    let task = spec.tasks.get(task)?;
    let payload = match payload(sources, spec, task) {
        Ok(payload) => payload,
        Err(why) => return Some(Err(why)),
    };
    let made = make(spec, task, sources.setting, job_version, inv, window);
    Some(made.map(|launch| Launch { files: payload.into_iter().chain(launch.files).collect(), note: note(restarts_n), ..launch }))
}

/// What an invocation's folder says beside its record: how often the task had been restarted before. It orders the invocations of one
/// boot, whatever the wall clock does.
#[must_use]
pub fn note(restarts_n: u64) -> Vec<u8> {
    restarts_n.to_le_bytes().to_vec()
}

/// Reads a [`note`]; `None` = there is none.
#[must_use]
pub fn read_note(note: &[u8]) -> Option<u64> {
    note.try_into().ok().map(u64::from_le_bytes)
}

/// The file of a dispatch's payload, read from the store at each start: nobody keeps 16 KiB for a task that runs.
fn payload(sources: &Sources<'_>, spec: &AllocSpec, task: &TaskSpec) -> Result<Option<RenderedFile>, String> {
    if task.payload_file.is_empty() {
        return Ok(None);
    }
    let Sources { view, .. } = sources;
    let version = view.alloc(spec.id).and_then(|alloc| match alloc {
        Some(alloc) => view.job_version(&alloc.job, alloc.edition),
        None => Ok(None),
    });
    let version = version.map_err(|error| format!("dispatch payload: {error}"))?;
    let job = version.and_then(|version| Job::from_json(version.spec.as_bytes()).ok());
    let Some(bytes) = job.map(|job| job.payload.0).filter(|bytes| !bytes.is_empty()) else { return Ok(None) };
    // What leads out of the task's folder is refused when it is written.
    let mut path = Path::new("local").to_path_buf();
    for part in Path::new(&task.payload_file).components() {
        match part {
            Component::ParentDir if path.pop() => {}
            Component::Normal(_) | Component::ParentDir => path.push(part),
            _ => {}
        }
    }
    Ok(Some(RenderedFile { path, bytes, mode: PAYLOAD_MODE }))
}

fn make(spec: &AllocSpec, task: &TaskSpec, setting: &Setting, job_version: u64, inv: Inv, window: Window) -> Result<Launch, String> {
    let program: &Program = task.program.as_ref().map_err(Clone::clone)?;
    let dirs = dirs(&setting.alloc_root, spec.id, &task.name);
    let mut env = env::build(spec, task, &dirs, &setting.node.vars, &setting.host_env);
    let files = render(task, &mut env)?;
    let vars: BTreeMap<String, String> = env.vars().clone();
    Ok(Launch {
        alloc: spec.id,
        task: task.name.clone(),
        inv,
        job_version,
        driver: task.driver,
        command: env.interpolate(&program.command),
        args: env.interpolate_all(&program.args),
        work_dir: env.interpolate(&program.work_dir),
        env: vars,
        user: env.interpolate(&task.user),
        oom_score_adj: program.oom_score_adj,
        resources: task.resources,
        logs: task.logs,
        kill: task.kill,
        restart_n: window.count,
        interval_started: window.start,
        files,
        note: Vec::new(),
    })
}

/// Templates in the order of the job: each may read what the ones before put into the environment.
fn render(task: &TaskSpec, env: &mut env::Env) -> Result<Vec<RenderedFile>, String> {
    let mut files = Vec::new();
    for source in &task.templates {
        let failed = |why: String| format!("failed to render template {}: {why}", source.destination);
        let parsed = template::parse::parse(&source.source, &source.left, &source.right).map_err(|why| failed(why.to_string()))?;
        let text = template::render::render(&parsed, &|name| env.get(name)).map_err(|why| failed(why.to_string()))?;
        if source.is_env {
            env.extend(template::env_file::parse(&text).map_err(|why| failed(why.to_string()))?);
        }
        files.push(RenderedFile { path: env.interpolate_host(&source.destination).into(), bytes: text.into_bytes(), mode: source.mode });
    }
    Ok(files)
}
