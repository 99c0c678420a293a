//! From an allocation and its job to the one thing the runtime is asked to start. Pure.
//!
//! Environment, interpolation and templates are settled here, before any process exists; what cannot be settled is told as a failed
//! launch with its reason, never started half.

use std::collections::BTreeMap;
use std::path::Path;

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

/// One launch; the error is the text of the failed start. `None` = there is no such task.
pub(super) fn launch(
    runs: &Runs,
    setting: &Setting,
    alloc: AllocId,
    job_version: u64,
    task: usize,
    inv: Inv,
    window: Window,
) -> Option<Result<Launch, String>> {
    let spec = runs.spec(alloc)?;
    let task = spec.tasks.get(task)?;
    Some(make(spec, task, setting, job_version, inv, window))
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
