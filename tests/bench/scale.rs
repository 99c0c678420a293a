//! A store that has filled up in the course of time: 500 jobs and 5,000 finished allocations beside one with ten of each.
//!
//! Both are written as the agent writes them, then asked through the product. What is compared is the best of many tries, as a ratio.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dunlin::model::alloc::{Allocation, Edition, Grant, JobKey, TaskEntry, TaskGrant};
use dunlin::model::eval::{EvalStatus, Evaluation};
use dunlin::model::job::JobKind;
use dunlin::store::Store;
use dunlin::store::backend::Backend;
use dunlin::store::rows::{JobRow, JobStatus, JobStub, JobVersion};
use dunlin::store::writer::Writer;
use dunlin_hal::clock::{Clock as _, Now, Wall};
use dunlin_hal::linux::clock::KernelClock;
use dunlin_runtime::event::{ClientStatus, EventKind, TaskEvent, TaskPhase, TaskState};
use dunlin_runtime::id::{AllocId, EvalId};
use dunlin_tests::real::{Options, Real, Scratch};
use serde_json::{Value, json};

use crate::figures::Figures;
use crate::machine::memory;

/// Jobs and finished allocations of the large store and of the small one.
const LARGE: (usize, usize) = (500, 5_000);
const SMALL: (usize, usize) = (10, 10);
/// Tries of each question.
const TRIES: usize = 60;
/// Rows of one commit.
const COMMIT_ROWS: usize = 500;

fn id(kind: u8, n: usize) -> [u8; 16] {
    let mut id = [kind; 16];
    id[..8].copy_from_slice(&u64::try_from(n).expect("small").wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    id
}

fn spec(name: &str) -> Value {
    json!({
        "ID": name, "Name": name, "Namespace": "default", "Region": "global", "Type": "batch", "Priority": 50, "Datacenters": ["*"],
        "TaskGroups": [{
            "Name": "g", "Count": 1, "EphemeralDisk": {"SizeMB": 10},
            "Tasks": [{
                "Name": "t", "Driver": "raw_exec", "Config": {"command": "/bin/true"}, "Resources": {"CPU": 10, "MemoryMB": 10},
                "LogConfig": {"MaxFiles": 1, "MaxFileSizeMB": 1},
            }],
        }],
    })
}

fn finished(n: usize, index: u64, job: JobKey, edition: Edition, at: Wall) -> Allocation {
    let event = |kind| TaskEvent { at, kind };
    let ended = EventKind::Terminated { exit_code: 0, signal: 0, oom_killed: false, message: String::new() };
    let setup = EventKind::Setup { message: "Building Task Directory".to_owned() };
    let events = vec![event(EventKind::Received), event(setup), event(EventKind::Started), event(ended)];
    let state = TaskState { phase: TaskPhase::Dead, started_at: at, finished_at: at, events, ..TaskState::default() };
    let share = TaskGrant { task: "t".to_owned(), cpu_mhz: 10, memory_mb: 10, memory_max_mb: 0 };
    Allocation {
        id: AllocId(id(0xa1, n)),
        eval: EvalId(id(0xe1, n)),
        job,
        edition,
        job_type: JobKind::Batch,
        group: "g".to_owned(),
        client_status: ClientStatus::Complete,
        client_description: "All tasks have completed".to_owned(),
        tasks: vec![TaskEntry { name: "t".to_owned(), state, ..TaskEntry::default() }],
        grant: Grant { tasks: vec![share], disk_mb: 10, ..Grant::default() },
        create_index: index,
        modify_index: index,
        alloc_modify_index: index,
        create_at: at,
        modify_at: at,
        is_destroyed: true,
        ..Allocation::default()
    }
}

/// Writes a store with so many jobs and finished allocations; gives its size in bytes.
fn fill(scratch: &Scratch, (jobs_n, allocs_n): (usize, usize)) -> u64 {
    let data = scratch.path().join("data");
    std::fs::create_dir_all(&data).expect("made");
    let path = data.join("state.redb");
    let backend = Arc::new(Backend::file(&path, 8 << 20, 0).expect("a store"));
    let (mut store, writer) = (Store::open(backend.clone()).expect("opened"), Writer::new(backend));
    let now: Now = KernelClock.now();
    let mut rows_n = 0;
    let mut commit = |store: &mut Store, is_last: bool| {
        rows_n += 1;
        if is_last || rows_n % COMMIT_ROWS == 0 {
            let batch = store.seal(now).expect("rows");
            writer.commit(&batch.rows).expect("written");
            store.committed(batch.seq);
        }
    };
    let mut editions = Vec::new();
    for n in 0..jobs_n {
        let key = JobKey { namespace: "default".to_owned(), id: format!("job-{n:04}") };
        let index = store.next_index();
        let stub = JobStub { name: key.id.clone(), kind: JobKind::Batch, priority: 50, submit_at: now.wall, ..JobStub::default() };
        let row = JobRow {
            status: JobStatus::Dead,
            create_index: index,
            modify_index: index,
            job_modify_index: index,
            had_eval: true,
            stub,
            ..JobRow::default()
        };
        let spec = spec(&key.id).to_string();
        store.put_job_version(&key, index, &JobVersion { job_modify_index: index, submit_at: now.wall, spec, ..JobVersion::default() });
        store.put_job(&key, &row);
        editions.push((key, row.edition()));
        commit(&mut store, false);
    }
    for n in 0..allocs_n {
        let (key, edition) = editions[n % jobs_n].clone();
        let index = store.next_index();
        let eval = Evaluation {
            job: key.clone(),
            job_type: JobKind::Batch,
            priority: 50,
            status: EvalStatus::Complete,
            ..Evaluation::made(EvalId(id(0xe1, n)), index, now.wall)
        };
        store.add_eval(&eval);
        store.add_alloc(&finished(n, index, key, edition, now.wall));
        commit(&mut store, n + 1 == allocs_n);
    }
    drop((store, writer));
    std::fs::metadata(&path).expect("a file").len()
}

/// The best time of each question, and the agent's private memory, KiB.
struct Asked {
    page: Duration,
    read: Duration,
    plan: Duration,
    private: f64,
    store_bytes: u64,
}

fn ask(name: &str, size: (usize, usize)) -> Asked {
    let scratch = Scratch::new(name);
    let store_bytes = fill(&scratch, size);
    let agent = Real::start_in(scratch, Options::default());
    let best = |questions: &[(&str, String, Vec<u8>)]| {
        let one = |(method, path, body): &(&str, String, Vec<u8>)| {
            let begun = Instant::now();
            let answer = agent.ask(method, path, body);
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            begun.elapsed()
        };
        let times = (0..TRIES).map(|_| questions.iter().map(one).sum::<Duration>());
        times.min().expect("a try")
    };
    let get = |path: &str| ("GET", path.to_owned(), Vec::new());
    let alloc = AllocId(id(0xa1, size.1 / 2));
    let page = best(&[get("/v1/allocations?per_page=8"), get("/v1/jobs?per_page=8"), get("/v1/evaluations?per_page=8&reverse=true")]);
    let read = best(&[get("/v1/job/job-0005"), get(&format!("/v1/allocation/{alloc}")), get("/v1/job/job-0005/summary")]);
    let mut changed = spec("job-0005");
    changed["Priority"] = json!(60);
    let plan = best(&[("PUT", "/v1/job/job-0005/plan".to_owned(), json!({"Job": changed, "Diff": true}).to_string().into_bytes())]);
    Asked { page, read, plan, private: memory(&[agent.pid()]).private, store_bytes }
}

pub fn scale(figures: &mut Figures) {
    let (small, large) = (ask("small-store", SMALL), ask("large-store", LARGE));
    let ratio = |large: Duration, small: Duration| large.as_secs_f64() / small.as_secs_f64().max(1e-6);
    figures.tell("scale.page", Ok(ratio(large.page, small.page)), "a page of allocations, of jobs, of evaluations");
    figures.tell("scale.read", Ok(ratio(large.read, small.read)), "a job, its summary, an allocation");
    figures.tell("scale.plan", Ok(ratio(large.plan, small.plan)), "");
    figures.tell("scale.private", Ok(large.private - small.private), &format!("{:.0} KiB with the small one", small.private));
    let share = crate::float(large.store_bytes) / crate::float(dunlin_hal::budget::GENERIC_LINUX.store_bytes_max);
    figures.tell("scale.store", Ok(share), &format!("{} bytes", large.store_bytes));
}
