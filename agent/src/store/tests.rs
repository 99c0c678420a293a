//! Rows under rows: what a view shows while batches are on their way, what a restart finds, which bytes are frozen.

use super::group::{Group, Told};
use super::rows::{JobRow, JobStub, JobVersion, NodeRow};
use super::writer::Writer;
use super::*;
use crate::model::alloc::{Desired, Grant, Health, LastReschedule, Metric, Owner, RescheduleEvent, TaskEntry, TaskGrant};
use crate::model::deployment::{DeploymentStatus, GroupState};
use crate::model::eval::Trigger;
use crate::model::job::JobKind;
use crate::model::summary::GroupSummary;
use dunlin_runtime::event::{EventKind, TaskEvent, TaskPhase, TaskState};
use dunlin_runtime::id::{DeploymentId, EvalId, Inv};
use dunlin_runtime::spec::Port;
use dunlin_runtime::task::machine::TaskMemo;
use dunlin_runtime::task::restart::Window;

fn memory() -> (Store, Writer) {
    let backend = Arc::new(Backend::memory().unwrap());
    (Store::open(backend.clone()).unwrap(), Writer::new(backend))
}

fn now(ms: u64) -> Now {
    Now { mono: Mono(ms * 1_000_000), wall: Wall(i64::try_from(ms).unwrap() * 1_000_000 + 1) }
}

/// An allocation with every field set, so that a forgotten one shows.
fn alloc(n: u8) -> Allocation {
    Allocation {
        id: AllocId([n; 16]),
        eval: EvalId([1; 16]),
        owner: Owner::Local,
        job: JobKey { namespace: "default".to_owned(), id: "telemetry".to_owned() },
        edition: Edition { create_index: 10, version: 3 },
        job_type: JobKind::Batch,
        group: "sense".to_owned(),
        index: 2,
        desired: Desired::Stop,
        desired_description: "alloc is being migrated".to_owned(),
        wants_migrate: true,
        may_reschedule: true,
        must_reschedule: true,
        no_shutdown_delay: true,
        client_status: ClientStatus::Running,
        client_description: "Tasks are running".to_owned(),
        tasks: vec![TaskEntry {
            name: "sample".to_owned(),
            state: TaskState {
                phase: TaskPhase::Running,
                is_failed: true,
                restarts_n: 4,
                last_restart_at: Wall(5),
                started_at: Wall(6),
                finished_at: Wall(7),
                events: vec![
                    TaskEvent { at: Wall(8), kind: EventKind::Received },
                    TaskEvent {
                        at: Wall(9),
                        kind: EventKind::Terminated { exit_code: 139, signal: 11, oom_killed: true, message: "m".to_owned() },
                    },
                ],
            },
            memo: TaskMemo { consumed: Inv(10), window: Window { count: 11, start: Mono(12) } },
        }],
        grant: Grant {
            tasks: vec![TaskGrant { task: "sample".to_owned(), cpu_mhz: 50, memory_mb: 16, memory_max_mb: 32 }],
            disk_mb: 20,
            ports: vec![Port { label: "http".to_owned(), value: 20_001, to: 80, host_ip: "127.0.0.1".to_owned() }],
            network_device: "eth0".to_owned(),
            network_ip: "127.0.0.1".to_owned(),
            network_mbits: 100,
        },
        metric: Metric {
            is_in_datacenter: true,
            filtered: "f".to_owned(),
            exhausted: "e".to_owned(),
            took_ns: 13,
            coalesced_n: 14,
            score_millionths: 15,
        },
        previous: AllocId([16; 16]),
        next: AllocId([17; 16]),
        followup_eval: EvalId([18; 16]),
        deployment: DeploymentId([19; 16]),
        health: Some(Health { is_healthy: Some(true), at_ns: 25, is_canary: true, modify_index: 26 }),
        reschedules: vec![RescheduleEvent { at_ns: 20, previous: AllocId([21; 16]), delay_ns: 22 }],
        last_reschedule: LastReschedule::NotPlaced,
        preempted: vec![AllocId([27; 16])],
        preempted_by: AllocId([28; 16]),
        create_index: 100 + u64::from(n),
        modify_index: 200 + u64::from(n),
        alloc_modify_index: 150,
        create_at: Wall(23),
        modify_at: Wall(24),
        is_destroyed: true,
    }
}

fn eval(n: u8) -> Evaluation {
    Evaluation {
        id: EvalId([n; 16]),
        job: JobKey { namespace: "default".to_owned(), id: "telemetry".to_owned() },
        job_type: JobKind::System,
        priority: 70,
        trigger: Trigger::AllocStop,
        job_modify_index: 1,
        status: EvalStatus::Complete,
        status_description: "d".to_owned(),
        wait_until: Wall(2),
        wait_max_ms: 12,
        next: EvalId([3; 16]),
        previous: EvalId([4; 16]),
        blocked: EvalId([5; 16]),
        deployment: DeploymentId([6; 16]),
        failed_groups: vec![("g".to_owned(), Metric::default())],
        queued: vec![("g".to_owned(), 2)],
        snapshot_index: 7,
        create_index: 100 + u64::from(n),
        modify_index: 9,
        create_at: Wall(10),
        modify_at: Wall(11),
    }
}

fn deployment(n: u8) -> Deployment {
    Deployment {
        id: DeploymentId([n; 16]),
        job: JobKey { namespace: "default".to_owned(), id: "telemetry".to_owned() },
        edition: Edition { create_index: 10, version: 3 },
        job_modify_index: 1,
        job_spec_modify_index: 2,
        groups: vec![GroupState {
            group: "sense".to_owned(),
            auto_revert: true,
            auto_promote: true,
            is_promoted: true,
            progress_deadline_ns: 3,
            require_progress_by: Wall(4),
            canaries: vec![AllocId([5; 16])],
            desired_canaries_n: 6,
            desired_n: 7,
            placed_n: 8,
            healthy_n: 9,
            unhealthy_n: 10,
        }],
        status: DeploymentStatus::Failed,
        status_description: "d".to_owned(),
        priority: 11,
        create_index: 100 + u64::from(n),
        modify_index: 200 + u64::from(n),
        create_at: Wall(12),
        modify_at: Wall(13),
    }
}

fn job_row() -> JobRow {
    JobRow {
        version: 1,
        is_stopped: true,
        status: rows::JobStatus::Dead,
        create_index: 2,
        modify_index: 3,
        job_modify_index: 4,
        summary_modify_index: 5,
        had_eval: true,
        summary: vec![GroupSummary {
            group: "sense".to_owned(),
            queued_n: 1,
            starting_n: 2,
            running_n: 3,
            complete_n: 4,
            failed_n: 5,
            lost_n: 6,
        }],
        stub: JobStub {
            name: "telemetry".to_owned(),
            kind: JobKind::Sysbatch,
            priority: 50,
            datacenters: vec!["dc1".to_owned()],
            parent_id: "parent".to_owned(),
            is_periodic: true,
            is_parameterized: true,
            submit_at: Wall(7),
            dispatch_token: "token".to_owned(),
        },
        children: rows::Children { pending_n: 7, running_n: 8, dead_n: 9 },
        last_slot_at: Wall(10),
        spent: vec![("g".to_owned(), 3)],
    }
}

fn job_version() -> JobVersion {
    JobVersion {
        version: 1,
        is_stable: true,
        is_stopped: true,
        job_modify_index: 2,
        submit_at: Wall(3),
        spec: "{\"ID\":\"telemetry\"}".to_owned(),
    }
}

fn node_row() -> NodeRow {
    NodeRow { create_index: 1, modify_index: 2, is_ineligible: true, status_updated_at: Wall(3) }
}

fn meta() -> Meta {
    Meta { index: 1, tables: [2, 3, 4, 5, 6], wall: Wall(6), boot_id: [7; 16], allocs_n: 8, evals_n: 9, reboots_n: 10 }
}

#[test]
fn rows_round_trip() {
    assert_eq!(rows::decode_alloc(&rows::encode_alloc(&alloc(1))), Ok(alloc(1)));
    assert_eq!(rows::decode_eval(&rows::encode_eval(&eval(1))), Ok(eval(1)));
    assert_eq!(rows::decode_job(&rows::encode_job(&job_row())), Ok(job_row()));
    assert_eq!(rows::decode_job_version(&rows::encode_job_version(&job_version())), Ok(job_version()));
    assert_eq!(rows::decode_deployment(&rows::encode_deployment(&deployment(1))), Ok(deployment(1)));
    assert_eq!(rows::decode_node(&rows::encode_node(&node_row())), Ok(node_row()));
    assert_eq!(rows::decode_meta(&rows::encode_meta(&meta())), Ok(meta()));
    assert_eq!(rows::decode_outbox(&rows::encode_outbox(300)), Ok(300));
}

/// The bytes of each row version, as first shipped: a changed encoding is a new version, never an edit (I10).
#[test]
fn frozen_rows_still_open() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/frozen");
    let is_recording = std::env::var_os("DUNLIN_RECORD").is_some();
    for (name, bytes) in [
        ("alloc-v1", rows::encode_alloc(&alloc(1))),
        ("eval-v1", rows::encode_eval(&eval(1))),
        ("job-v2", rows::encode_job(&job_row())),
        ("job-version-v1", rows::encode_job_version(&job_version())),
        ("deployment-v1", rows::encode_deployment(&deployment(1))),
        ("node-v1", rows::encode_node(&node_row())),
        ("meta-v1", rows::encode_meta(&meta())),
        ("outbox-v1", rows::encode_outbox(300)),
    ] {
        let path = dir.join(format!("{name}.bin"));
        if is_recording && !path.exists() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        let frozen = std::fs::read(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        assert_eq!(frozen, bytes, "{name}: the encoding of a shipped version has changed");
    }
    let job_v1 = std::fs::read(dir.join("job-v1.bin")).unwrap();
    assert_eq!(rows::decode_job(&job_v1), Ok(JobRow { spent: Vec::new(), ..job_row() }));
}

#[test]
fn damaged_and_newer_rows_are_refused() {
    let good = rows::encode_alloc(&alloc(1));
    for cut in 0..good.len() {
        assert!(rows::decode_alloc(&good[..cut]).is_err(), "cut at {cut}");
    }
    let newer = [&[2], &good[1..]].concat();
    assert_eq!(rows::decode_alloc(&newer), Err(StoreError::Newer { kind: "allocation", version: 2 }));
    let mut rng = dunlin_hal::entropy::Rng::new(&mut dunlin_hal::sim::entropy::SimEntropy::new(7));
    for _ in 0..2_000 {
        let mut bytes = good.clone();
        let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap();
        bytes[at] ^= u8::try_from(1 + rng.below(255)).unwrap();
        // Any verdict but a panic: a flipped bit inside a text is another text.
        let _ = rows::decode_alloc(&bytes);
    }
}

#[test]
fn the_newest_is_seen_and_the_durable_is_found() {
    let (mut store, writer) = memory();
    store.next_index();
    store.add_alloc(&alloc(1));
    assert_eq!(store.view().alloc(AllocId([1; 16])).unwrap(), Some(alloc(1)), "open rows are seen by decisions");
    let batch = store.seal(now(1)).unwrap();
    assert!(!store.is_durable());
    let mut changed = alloc(1);
    changed.client_description = "changed".to_owned();
    store.put_alloc(&changed);
    store.seal_soft(now(2));
    writer.commit(&batch.rows).unwrap();
    store.committed(batch.seq);
    assert!(store.is_durable(), "soft rows are no batch");
    assert_eq!(store.view().alloc(AllocId([1; 16])).unwrap(), Some(changed.clone()), "soft rows are shown");

    // A restart finds what was durable, and goes on behind every index it may have shown.
    let again = Store::open(store.backend.clone()).unwrap();
    assert_eq!(again.view().alloc(AllocId([1; 16])).unwrap(), Some(alloc(1)));
    assert!(again.index() >= store.index() + 1000);

    // The next batch carries the soft rows.
    let batch = store.seal(now(3)).unwrap();
    writer.commit(&batch.rows).unwrap();
    store.committed(batch.seq);
    assert_eq!(Store::open(store.backend.clone()).unwrap().view().alloc(AllocId([1; 16])).unwrap(), Some(changed));
    assert_eq!(store.seal(now(4)), None, "nothing changed, nothing is written");
}

#[test]
fn soft_rows_have_a_deadline_by_age_and_number() {
    let (mut store, _writer) = memory();
    let budget = dunlin_hal::budget::SMALL_64;
    assert_eq!(store.soft_due(&budget), None);
    store.put_alloc(&alloc(1));
    store.seal_soft(now(1_000));
    assert_eq!(store.soft_due(&budget), Some(now(1_000 + budget.soft_age_max_ms).mono));
    for n in 2..60 {
        store.put_alloc(&alloc(n));
    }
    store.seal_soft(now(2_000));
    assert_eq!(store.soft_due(&budget), Some(now(1_000).mono), "too many: at once");
    assert!(store.seal(now(3_000)).is_some());
    assert_eq!(store.soft_due(&budget), None);
}

#[test]
fn a_crashing_task_does_not_wear_out_the_card() {
    let (mut store, _writer) = memory();
    let budget = dunlin_hal::budget::SMALL_64;
    let mut at_ms = 1_000;
    let mut commits_n = 0;
    while at_ms < 24 * 3_600_000 {
        store.put_alloc(&alloc(1));
        store.seal_soft(now(at_ms));
        at_ms = at_ms.max(store.soft_due(&budget).unwrap().0 / 1_000_000);
        assert!(store.flush_soft(now(at_ms), &budget).is_some());
        commits_n += 1;
    }
    assert!((1_500..=2_000).contains(&commits_n), "{commits_n}");
    // After a quiet hour it is as quick as on the first day.
    store.put_alloc(&alloc(1));
    store.seal_soft(now(at_ms + 3_600_000));
    assert_eq!(store.soft_due(&budget), Some(now(at_ms + 3_600_000 + budget.soft_age_max_ms).mono));
}

#[test]
fn an_aborted_batch_leaves_no_trace_but_used_indexes() {
    let (mut store, _writer) = memory();
    let before = store.next_index();
    store.add_alloc(&alloc(1));
    store.add_eval(&eval(1));
    store.abort();
    assert_eq!(store.counts(), (0, 0));
    assert!(store.take_touched().is_empty());
    assert_eq!(store.view().alloc(AllocId([1; 16])).unwrap(), None);
    assert!(store.next_index() > before);
    assert_eq!(store.seal(now(1)), None);
}

#[test]
fn scans_merge_durable_and_pending_rows_in_both_directions() {
    let (mut store, writer) = memory();
    for n in [1, 3, 5, 7] {
        store.add_alloc(&alloc(n));
    }
    let batch = store.seal(now(1)).unwrap();
    writer.commit(&batch.rows).unwrap();
    store.committed(batch.seq);
    // Pending: two new, one changed, one gone.
    store.add_alloc(&alloc(2));
    store.add_alloc(&alloc(8));
    let mut changed = alloc(3);
    changed.index = 99;
    store.put_alloc(&changed);
    store.remove_alloc(&alloc(5));
    let numbers = |found: view::Found| -> Vec<u8> { found.iter().map(|(key, _)| keys::last_id(key).unwrap()[0]).collect() };
    let view = store.view();
    assert_eq!(numbers(view.scan_after(keys::ALLOCS, None, 100).unwrap()), [1, 2, 3, 7, 8]);
    assert_eq!(numbers(view.scan_before(keys::ALLOCS, None, 100).unwrap()), [8, 7, 3, 2, 1]);
    assert_eq!(numbers(view.scan_after(keys::ALLOCS, Some(&keys::alloc(102, AllocId([2; 16]))), 2).unwrap()), [3, 7]);
    assert_eq!(numbers(view.scan_before(keys::ALLOCS, Some(&keys::alloc(103, AllocId([3; 16]))), 1).unwrap()), [2]);
    assert_eq!(view.alloc(AllocId([3; 16])).unwrap().unwrap().index, 99);
    assert_eq!(view.live_allocs().unwrap().len(), 5);
    assert_eq!(view.scan_after(b"\xff", None, 5).unwrap(), Vec::new());
}

#[test]
fn scans_agree_with_a_plain_map() {
    // Random puts, removals, seals and commits against a BTreeMap: every scan agrees.
    let (mut store, writer) = memory();
    let mut group = Group::new(writer);
    let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut rng = dunlin_hal::entropy::Rng::new(&mut dunlin_hal::sim::entropy::SimEntropy::new(11));
    let mut waiting: Vec<Batch> = Vec::new();
    for round in 0..3_000u64 {
        let key = vec![b'x', u8::try_from(rng.below(40)).unwrap()];
        match rng.below(10) {
            0..=4 => {
                let value = round.to_be_bytes().to_vec();
                store.put(key.clone(), Some(value.clone()));
                model.insert(key, value);
            }
            5 => {
                store.put(key.clone(), None);
                model.remove(&key);
            }
            6 => store.seal_soft(now(round)),
            7 | 8 => waiting.extend(store.seal(now(round))),
            _ => {
                if !waiting.is_empty() {
                    waiting.drain(..).for_each(|batch| group.take(batch));
                    let Some(Told::Committed(last)) = group.commit() else { panic!("round {round}") };
                    store.committed(last);
                }
            }
        }
        let after = vec![b'x', u8::try_from(rng.below(40)).unwrap()];
        let n = usize::try_from(1 + rng.below(10)).unwrap();
        let view = store.view();
        let mine = view.scan_after(b"x", Some(&after), n).unwrap();
        let want: view::Found = model
            .range::<[u8], _>((Bound::Excluded(after.as_slice()), Bound::Unbounded))
            .take(n)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        assert_eq!(mine, want, "round {round}");
        let mine = view.scan_before(b"x", Some(&after), n).unwrap();
        let want: view::Found = model.range(..after).rev().take(n).map(|(key, value)| (key.clone(), value.clone())).collect();
        assert_eq!(mine, want, "round {round}");
    }
}

#[test]
fn one_group_commit_takes_all_that_waits() {
    let (mut store, writer) = memory();
    store.put_node(&node_row());
    let first = store.seal(now(1)).unwrap();
    let mut second_row = node_row();
    second_row.modify_index = 50;
    store.put_node(&second_row);
    let second = store.seal(now(2)).unwrap();
    let last = second.seq;
    let mut group = Group::new(writer);
    group.take(first);
    group.take(second);
    assert_eq!(group.commit(), Some(Told::Committed(last)));
    assert_eq!((group.commit(), group.newest()), (None, None));
    assert_eq!(Store::open(store.backend.clone()).unwrap().view().node().unwrap(), Some(second_row));
}

#[test]
fn the_outbox_follows_the_state_in_the_same_batch() {
    let (mut store, writer) = memory();
    let mut upstream = alloc(1);
    upstream.owner = Owner::Upstream;
    store.add_alloc(&upstream);
    store.add_alloc(&alloc(2));
    let batch = store.seal(now(1)).unwrap();
    assert!(batch.rows.contains_key(&keys::outbox(upstream.id)), "the state and its report are one batch");
    assert!(!batch.rows.contains_key(&keys::outbox(AllocId([2; 16]))), "local allocations are nobody else's");
    writer.commit(&batch.rows).unwrap();
    store.committed(batch.seq);
    assert_eq!(outbox::waiting(&store, None, 10).unwrap(), [(upstream.id, upstream.modify_index)]);

    // An acknowledgement of an older state leaves the newer one to be sent.
    let sent = upstream.modify_index;
    upstream.modify_index += 1;
    store.put_alloc(&upstream);
    outbox::acknowledge(&mut store, upstream.id, sent).unwrap();
    assert_eq!(outbox::waiting(&store, None, 10).unwrap(), [(upstream.id, sent + 1)]);
    outbox::acknowledge(&mut store, upstream.id, sent + 1).unwrap();
    assert_eq!(outbox::waiting(&store, None, 10).unwrap(), []);
}

#[test]
fn a_job_has_one_blocked_evaluation_found_by_its_key() {
    let (mut store, _writer) = memory();
    let mut blocked = eval(1);
    blocked.status = EvalStatus::Blocked;
    store.add_eval(&blocked);
    assert_eq!(store.view().blocked_eval(&blocked.job).unwrap().map(|eval| eval.id), Some(blocked.id));
    let mut other = eval(2);
    other.status = EvalStatus::Complete;
    store.add_eval(&other);
    assert!(store.view().blocked_eval(&blocked.job).unwrap().is_some(), "another one's end does not unblock it");
    blocked.status = EvalStatus::Complete;
    store.put_eval(&blocked);
    assert_eq!(store.view().blocked_evals(10).unwrap(), Vec::new());
}

#[test]
fn a_file_survives_its_agent() {
    let dir = std::env::temp_dir().join(format!("dunlin-store-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("state.redb");
    {
        let backend = Arc::new(Backend::file(&path, 1 << 20, 64 << 10).unwrap());
        let mut store = Store::open(backend.clone()).unwrap();
        store.put_node(&node_row());
        let batch = store.seal(now(1)).unwrap();
        Writer::new(backend.clone()).commit(&batch.rows).unwrap();
        assert!(Backend::file(&path, 1 << 20, 64 << 10).is_err(), "one agent at a time");
        backend.reopen().unwrap();
        assert_eq!(store.view().node().unwrap(), Some(node_row()), "a reopened handle serves the old views' owner");
    }
    let store = Store::open(Arc::new(Backend::file(&path, 1 << 20, 64 << 10).unwrap())).unwrap();
    assert_eq!(store.view().node().unwrap(), Some(node_row()));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_view_outlives_the_replacement_of_the_handle() {
    let path = std::env::temp_dir().join(format!("store-reopen-{}.redb", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let backend = Arc::new(Backend::file(&path, 1 << 20, 64 << 10).unwrap());
    let (mut store, writer) = (Store::open(backend.clone()).unwrap(), Writer::new(backend));
    store.add_alloc(&alloc(1));
    let batch = store.seal(now(1)).unwrap();
    writer.commit(&batch.rows).unwrap();
    store.committed(batch.seq);
    let view = store.view();
    assert!(view.alloc(AllocId([1; 16])).unwrap().is_some());
    // What the store thread does after an error of the disk; the open reading ends with the old handle.
    writer.recover().unwrap();
    assert!(view.alloc(AllocId([1; 16])).unwrap().is_some());
    assert_eq!(view.live_allocs().unwrap().len(), 1);
    drop(view);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_parent_counts_its_children_by_their_status() {
    let (mut store, _writer) = memory();
    let key = |id: &str| JobKey { namespace: "default".to_owned(), id: id.to_owned() };
    let (parent, child) = (key("p"), key("p/periodic-1"));
    let row = |parent_id: &str, status, modify_index| {
        let stub = rows::JobStub { parent_id: parent_id.to_owned(), ..rows::JobStub::default() };
        JobRow { status, modify_index, stub, ..JobRow::default() }
    };
    let counts = |store: &Store| {
        let row = store.view().job(&parent).unwrap().unwrap();
        (row.children.pending_n, row.children.running_n, row.children.dead_n, row.summary_modify_index)
    };
    use rows::JobStatus::{Dead, Pending, Running};
    store.put_job(&parent, &row("", Running, 1));
    for (status, index, want) in [
        (Pending, 2, (1, 0, 0, 2)),
        (Pending, 3, (1, 0, 0, 2)),
        (Running, 4, (0, 1, 0, 4)),
        (Dead, 5, (0, 0, 1, 5)),
        (Running, 6, (0, 1, 0, 6)),
    ] {
        store.put_job(&child, &row("p", status, index));
        assert_eq!(counts(&store), want);
    }
    // Forgotten while it runs it has ended; forgotten when it has ended it stays counted.
    store.remove_job(&child);
    assert_eq!((counts(&store).1, counts(&store).2), (0, 1));
    store.put_job(&child, &row("p", Dead, 8));
    store.remove_job(&child);
    assert_eq!((counts(&store).1, counts(&store).2), (0, 2));
    // Without a parent, and as its own, nothing is counted and nothing goes on for ever.
    store.put_job(&key("orphan"), &row("gone", Pending, 9));
    store.put_job(&key("self"), &row("self", Pending, 10));
    store.put_job(&key("self"), &row("self", Running, 11));
    assert_eq!(store.take_touched_jobs(), [child, key("orphan"), key("self")]);
    assert!(store.take_touched_jobs().is_empty());
}

#[test]
fn what_a_start_shows_is_beyond_what_was_shown() {
    let (mut store, writer) = memory();
    store.add_alloc(&alloc(1));
    let batch = store.seal(now(1)).unwrap();
    writer.commit(&batch.rows).unwrap();
    store.committed(batch.seq);
    // A soft change is shown, and lost with the agent.
    let mut changed = alloc(1);
    changed.modify_index = store.next_index();
    store.put_alloc(&changed);
    store.seal_soft(now(2));
    let shown = store.table_index(Table::Allocs);
    let next = Store::open(store.backend.clone()).unwrap();
    assert!(next.table_index(Table::Allocs) > shown, "{} after {shown}", next.table_index(Table::Allocs));
    assert!(next.is_clean(), "to start writes nothing");
}
