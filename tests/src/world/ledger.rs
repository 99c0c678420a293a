//! What is on the disk for sure, row by row, beside the agent that says so; and what must be true of it after every commit.
//!
//! Shape: batches as they are handed out ([`Ledger::hand_over`]), then what became of them ([`Ledger::committed`], or
//! [`Ledger::reopened`] with what the next agent found). Each check names the invariant it guards.
//! Knows rows and the model's structs, never how the agent came to them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use dunlin::model::alloc::{Allocation, Desired, Edition, JobKey, LastReschedule};
use dunlin::model::deployment::{Deployment, DeploymentStatus};
use dunlin::model::eval::{EvalStatus, Evaluation};
use dunlin::model::job::{Job, JobKind, TaskGroup};
use dunlin::store::rows::{self, JobRow, JobStatus, Meta};
use dunlin::store::{Batch, Rows, Seq, keys};
use dunlin_runtime::event::{ClientStatus, EVENTS_MAX, EventKind, TaskPhase};
use dunlin_runtime::id::{AllocId, DeploymentId, EvalId, Inv};

use super::shims::Lives;

/// One version of a job, as far as the checks care.
#[derive(Debug)]
pub struct Version {
    /// Its spec.
    pub job: Job,
    /// The number of the write that made it: the scenario puts it into the job's meta.
    pub tag: u64,
    /// It is a stop.
    pub is_stopped: bool,
}

impl Version {
    /// The group of a name.
    pub fn group(&self, name: &str) -> Option<&TaskGroup> {
        self.job.group(name)
    }
}

/// What names the work of an allocation: version, group and index.
pub type Work = (JobKey, Edition, String, u32);

/// The rows that are durable, and those on their way.
#[derive(Default)]
pub struct Ledger {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Handed to the store thread by the present agent, oldest first.
    in_flight: VecDeque<Batch>,
    /// The newest batch of each transaction that was tried and of which nobody knows.
    tried: BTreeSet<Seq>,
    /// The newest durable batch of the present agent.
    durable: Seq,
    /// The store's own row.
    pub meta: Meta,
    /// The boot that was the newest one known when the present agent started.
    pub boot_before: [u8; 16],
    /// Allocations.
    pub allocs: BTreeMap<AllocId, Allocation>,
    /// Evaluations.
    pub evals: BTreeMap<EvalId, Evaluation>,
    /// Jobs.
    pub jobs: BTreeMap<JobKey, JobRow>,
    /// Versions of jobs.
    pub versions: BTreeMap<(JobKey, Edition), Rc<Version>>,
    /// Deployments.
    pub deployments: BTreeMap<DeploymentId, Deployment>,
    /// Versions whose deployment was given up and is forgotten.
    pub given_up: BTreeSet<(JobKey, Edition)>,
    /// Jobs that were over and are forgotten, and the index of their registration.
    pub swept: BTreeSet<(JobKey, u64)>,
    /// Invocations whose end some durable row has named.
    pub consumed: BTreeSet<Inv>,
    /// The newest content of each object's index, by key.
    shown: BTreeMap<Vec<u8>, (u64, u64)>,
    /// Allocations and evaluations that were there and are not.
    forgotten: BTreeSet<[u8; 16]>,
    /// Allocations that are new with the batch at hand.
    fresh: Vec<AllocId>,
    /// Batch work that was done.
    pub done: BTreeMap<AllocId, Work>,
    /// Slots whose allocation has ended by itself and is forgotten.
    pub spent: BTreeMap<AllocId, Work>,
    /// Allocations whose rows went with the last commits.
    pub removed: Vec<AllocId>,
}

/// A hash of some bytes.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Ledger {
    /// A batch goes to the store thread.
    pub fn hand_over(&mut self, batch: Batch) {
        assert!(self.in_flight.back().is_none_or(|last| last.seq < batch.seq) && self.durable < batch.seq, "batches come in order");
        self.in_flight.push_back(batch);
    }

    /// Batches handed over and not durable.
    pub fn in_flight_n(&self) -> usize {
        self.in_flight.len()
    }

    /// The newest batch handed over.
    pub fn newest(&self) -> Seq {
        self.in_flight.back().map_or(self.durable, |batch| batch.seq)
    }

    /// The newest batch known durable.
    pub fn durable(&self) -> Seq {
        self.durable
    }

    /// A transaction up to this batch was tried: a later start may find it done or not.
    pub fn tried(&mut self, seq: Seq) {
        self.tried.insert(seq);
    }

    /// All up to this batch is durable.
    pub fn committed(&mut self, seq: Seq, lives: &Lives) {
        let mut touched = BTreeSet::new();
        while self.in_flight.front().is_some_and(|batch| batch.seq <= seq)
            && let Some(batch) = self.in_flight.pop_front()
        {
            self.apply(batch.rows, lives, &mut touched);
            self.check_new();
        }
        self.durable = seq;
        self.tried.retain(|tried| *tried > seq);
        self.check_jobs(&touched);
    }

    /// A new agent has opened the store and found these rows: what was acknowledged, and at most one of the transactions tried since
    /// (I3, I10). Batches start anew.
    pub fn reopened(&mut self, found: &[(Vec<u8>, Vec<u8>)], lives: &Lives) -> Option<Seq> {
        let is_same = |rows: &BTreeMap<Vec<u8>, Vec<u8>>| {
            rows.len() == found.len() && rows.iter().zip(found).all(|((key, value), (a, b))| key == a && value == b)
        };
        let mut won = None;
        let mut is_known = is_same(&self.rows);
        let mut rows = self.rows.clone();
        let mut next = 0;
        for seq in self.tried.clone() {
            while let Some(batch) = self.in_flight.get(next).filter(|batch| batch.seq <= seq) {
                next += 1;
                for (key, value) in &batch.rows {
                    match value {
                        Some(value) => rows.insert(key.clone(), value.clone()),
                        None => rows.remove(key),
                    };
                }
            }
            if !is_known && is_same(&rows) {
                is_known = true;
                won = Some(seq);
            }
        }
        if !is_known {
            let lost = self.rows.keys().filter(|key| !found.iter().any(|(other, _)| other == *key)).count();
            let n = self.tried.len();
            panic!(
                "I3: a store of {} rows is neither what was acknowledged ({} rows, {lost} of them missing) nor one of {n} tried transactions more",
                found.len(),
                self.rows.len()
            );
        }
        if let Some(seq) = won {
            self.committed(seq, lives);
        }
        self.in_flight.clear();
        self.tried.clear();
        self.durable = Seq(0);
        self.boot_before = self.meta.boot_id;
        self.check_links();
        won
    }

    fn apply(&mut self, rows: Rows, lives: &Lives, touched: &mut BTreeSet<JobKey>) {
        for (key, value) in rows {
            self.apply_row(&key, value.as_deref(), lives, touched);
            match value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
    }

    fn apply_row(&mut self, key: &[u8], value: Option<&[u8]>, lives: &Lives, touched: &mut BTreeSet<JobKey>) {
        match (key.first(), value) {
            (Some(b'm'), Some(bytes)) => {
                let meta = rows::decode_meta(bytes).expect("I10: meta");
                let is_forward = meta.index >= self.meta.index && meta.tables.iter().zip(&self.meta.tables).all(|(new, old)| new >= old);
                assert!(is_forward, "index went back from {:?} to {meta:?}", self.meta);
                assert!(meta.tables.iter().all(|table| *table <= meta.index), "a table is ahead of the store: {meta:?}");
                self.meta = meta;
            }
            (Some(b'A'), Some(bytes)) => {
                let alloc = rows::decode_alloc(bytes).expect("I10: allocation");
                self.check_alloc(&alloc, lives);
                if !self.allocs.contains_key(&alloc.id) {
                    self.fresh.push(alloc.id);
                }
                touched.insert(alloc.job.clone());
                if alloc.job_type == JobKind::Batch && alloc.client_status == ClientStatus::Complete && alloc.desired == Desired::Run {
                    self.done.insert(alloc.id, work(&alloc));
                }
                self.consumed.extend(alloc.tasks.iter().map(|task| task.memo.consumed));
                self.allocs.insert(alloc.id, alloc);
            }
            (Some(b'A'), None) => {
                let id = AllocId(keys::last_id(key).expect("I10: key of an allocation"));
                self.forgotten.insert(id.0);
                self.removed.push(id);
                if let Some(alloc) = self.allocs.remove(&id) {
                    assert!(alloc.is_over() && alloc.is_destroyed, "alloc {id} is forgotten before its end and its folder");
                    // One that was stopped stands for its work all the same, unless it had failed: as upstream sees it.
                    let was_not_replaced = alloc.last_reschedule == LastReschedule::NotPlaced;
                    if alloc.desired == Desired::Run || alloc.client_status == ClientStatus::Complete || was_not_replaced {
                        self.spent.insert(id, work(&alloc));
                    }
                    touched.insert(alloc.job);
                }
            }
            (Some(b'E'), Some(bytes)) => {
                let eval = rows::decode_eval(bytes).expect("I10: evaluation");
                self.index(key, eval.modify_index, bytes, || format!("eval {}", eval.id));
                if let Some(old) = self.evals.get(&eval.id) {
                    let is_final = old.status.is_terminal() && old.status != eval.status;
                    assert!(!is_final, "eval {} was {:?} and is {:?}", eval.id, old.status, eval.status);
                }
                self.evals.insert(eval.id, eval);
            }
            (Some(b'E'), None) => {
                let id = EvalId(keys::last_id(key).expect("I10: key of an evaluation"));
                self.forgotten.insert(id.0);
                self.evals.remove(&id);
            }
            (Some(b'J'), Some(bytes)) => {
                let row = rows::decode_job(bytes).expect("I10: job");
                let key = keys::parse_job(key).expect("I10: key of a job");
                if let Some(old) = self.jobs.get(&key).filter(|old| old.create_index == row.create_index) {
                    assert!(row.version >= old.version, "job {} went from version {} back to {}", key.id, old.version, row.version);
                    assert!(row.modify_index >= old.modify_index, "job {}: its index went back", key.id);
                    assert!(
                        row.modify_index > old.modify_index
                            || (row.version, row.is_stopped, row.status) == (old.version, old.is_stopped, old.status),
                        "job {}: other content under index {}",
                        key.id,
                        row.modify_index
                    );
                }
                touched.insert(key.clone());
                self.jobs.insert(key, row);
            }
            (Some(b'J'), None) => {
                let key = keys::parse_job(key).expect("I10: key of a job");
                if let Some(old) = self.jobs.remove(&key).filter(|old| old.status == JobStatus::Dead) {
                    self.swept.insert((key.clone(), old.create_index));
                }
                touched.insert(key);
            }
            (Some(b'D'), Some(bytes)) => {
                let deployment = rows::decode_deployment(bytes).expect("I10: deployment");
                self.index(key, deployment.modify_index, bytes, || format!("deployment {}", deployment.id));
                if let Some(old) = self.deployments.get(&deployment.id) {
                    let is_final = !old.status.is_active() && old.status != deployment.status;
                    assert!(!is_final, "deployment {} was {:?} and is {:?}", deployment.id, old.status, deployment.status);
                }
                self.deployments.insert(deployment.id, deployment);
            }
            (Some(b'D'), None) => {
                let id = keys::last_id(key).expect("I10: key of a deployment");
                if let Some(old) = self.deployments.remove(&DeploymentId(id)).filter(|old| old.status != DeploymentStatus::Successful) {
                    self.given_up.insert((old.job, old.edition));
                }
            }
            (Some(b'V'), value) => self.apply_version(key, value),
            (Some(b'N'), Some(bytes)) => {
                rows::decode_node(bytes).expect("I10: node");
            }
            _ => {}
        }
    }

    fn apply_version(&mut self, key: &[u8], value: Option<&[u8]>) {
        let text = &key[1..key.len() - 17];
        let at = text.iter().position(|byte| *byte == 0).expect("I10: key of a version");
        let word = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("I10: key of a version");
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().expect("I10: key of a version"));
        let job = JobKey { namespace: word(&text[..at]), id: word(&text[at + 1..]) };
        let (create_index, version) = key[key.len() - 16..].split_at(8);
        let edition = Edition { create_index: number(create_index), version: number(version) };
        let Some(bytes) = value else {
            self.versions.remove(&(job, edition));
            return;
        };
        let row = rows::decode_job_version(bytes).expect("I10: job version");
        assert_eq!(row.version, edition.version, "job {}: a version is stored under another's key", job.id);
        let spec = Job::from_json(row.spec.as_bytes()).expect("I10: spec of a job");
        let tag = spec.meta.get("write").and_then(|tag| tag.parse().ok()).unwrap_or(0);
        self.versions.insert((job, edition), Rc::new(Version { job: spec, tag, is_stopped: row.is_stopped }));
    }

    /// The same object under the same index has the same content for ever.
    fn index(&mut self, key: &[u8], modify_index: u64, bytes: &[u8], what: impl Fn() -> String) {
        let content = hash(bytes);
        if let Some((known, old)) = self.shown.insert(key.to_vec(), (modify_index, content)) {
            assert!(modify_index >= known, "{}: its index went back from {known} to {modify_index}", what());
            assert!(modify_index > known || content == old, "{}: other content under index {known}", what());
        }
    }

    fn check_alloc(&self, alloc: &Allocation, lives: &Lives) {
        let id = alloc.id;
        if let Some(old) = self.allocs.get(&id) {
            assert_eq!(old.owner, alloc.owner, "I6: alloc {id} has another owner");
            assert_eq!((&old.job, &old.group, old.index, old.create_index), (&alloc.job, &alloc.group, alloc.index, alloc.create_index));
            assert!(old.desired == Desired::Run || old.desired == alloc.desired, "alloc {id} was to stop and is wanted again");
            assert!(old.edition <= alloc.edition, "alloc {id} went back to {:?}", alloc.edition);
            assert!(!old.is_over() || alloc.is_over(), "alloc {id} was over and lives again");
            assert!(!old.is_destroyed || alloc.is_destroyed, "alloc {id} has its folder back");
            assert!(alloc.modify_index >= old.modify_index, "alloc {id}: its index went back to {}", alloc.modify_index);
            if alloc.modify_index == old.modify_index {
                // Whether its folder is still there is nobody else's business.
                let same = Allocation { is_destroyed: old.is_destroyed, ..alloc.clone() };
                assert!(same == *old, "alloc {id}: other content under index {}", alloc.modify_index);
            }
        }
        for task in &alloc.tasks {
            let (events, state) = (&task.state.events, &task.state);
            assert!(events.len() <= EVENTS_MAX, "I8: alloc {id} task {} has {} events", task.name, events.len());
            if let Err(why) = lives.accounts_for(id, &task.name, events) {
                let told: Vec<String> = events.iter().map(|event| format!("{:?}", event.kind)).collect();
                panic!("I4: alloc {id} task {}: {why}: {}", task.name, told.join(", "));
            }
            let is_dead = state.phase == TaskPhase::Dead;
            assert!(!is_dead || !state.finished_at.is_unset(), "alloc {id} task {}: dead since nobody knows when", task.name);
        }
    }

    /// Work that was done is not done again: no new allocation takes the slot of one that ended well under the same version.
    fn check_new(&mut self) {
        for id in std::mem::take(&mut self.fresh) {
            let Some(alloc) = self.allocs.get(&id).filter(|alloc| alloc.job_type == JobKind::Batch) else { continue };
            let work = work(alloc);
            // The name of what was done is given again when its row has gone, but not its place.
            let was_done = self.done.iter().any(|(other, done)| *done == work && !self.spent.contains_key(other));
            assert!(!was_done, "batch: {} was done and is placed again as {id}", alloc.name());
            let is_of_group = |other: &Work| (&other.0, &other.1, &other.2) == (&work.0, &work.1, &work.2);
            let done_n = self.done.values().filter(|other| is_of_group(other)).count();
            let here = self.of_job(&alloc.job).filter(|other| other.edition == alloc.edition && other.group == alloc.group);
            let living_n = here.filter(|other| !other.is_terminal()).count();
            let wanted_n = self.versions.get(&(alloc.job.clone(), alloc.edition)).and_then(|version| version.group(&alloc.group));
            let wanted_n = wanted_n.map_or(0, |group| group.count() as usize);
            assert!(
                done_n.min(wanted_n) + living_n <= wanted_n,
                "batch: {} of {wanted_n}: {done_n} were done, {living_n} live",
                alloc.name()
            );
        }
    }

    /// The version of a job that counts now; `None`: it is stopped or gone.
    pub fn wanted(&self, key: &JobKey) -> Option<(&JobRow, Rc<Version>)> {
        let row = self.jobs.get(key).filter(|row| !row.is_stopped)?;
        let version = self.versions.get(&(key.clone(), row.edition()));
        Some((row, version.unwrap_or_else(|| panic!("job {}: its version {} is missing", key.id, row.version)).clone()))
    }

    /// The allocations of a job.
    pub fn of_job<'l>(&'l self, key: &'l JobKey) -> impl Iterator<Item = &'l Allocation> {
        self.allocs.values().filter(move |alloc| alloc.job == *key)
    }

    fn check_jobs(&self, touched: &BTreeSet<JobKey>) {
        for key in touched {
            let wanted = self.wanted(key);
            let mut live: BTreeMap<(&str, Edition, u32), AllocId> = BTreeMap::new();
            let mut live_n: BTreeMap<&str, u32> = BTreeMap::new();
            for alloc in self.of_job(key).filter(|alloc| !alloc.is_terminal()) {
                *live_n.entry(&alloc.group).or_default() += 1;
                // A canary bears the name of what it is to replace, also when it is one no more.
                let is_canary = alloc.health.as_ref().is_some_and(|health| health.is_canary);
                if !is_canary && let Some(other) = live.insert((&alloc.group, alloc.edition, alloc.index), alloc.id) {
                    panic!("{} lives twice: {other} and {}", alloc.name(), alloc.id);
                }
            }
            for (group, n) in live_n {
                let count =
                    wanted.as_ref().and_then(|(_, version)| Some(allowed_n(version.job.kind(), version.group(group)?))).unwrap_or(0);
                assert!(n <= count, "job {} group {group}: {n} allocations live, {count} are wanted", key.id);
            }
            if let Some(row) = self.jobs.get(key) {
                self.check_summary(key, row);
            }
        }
        if !touched.is_empty() {
            self.check_ports();
        }
    }

    fn check_summary(&self, key: &JobKey, row: &JobRow) {
        for entry in &row.summary {
            let mut counted = [0u32; 4];
            let is_here = |alloc: &&Allocation| alloc.group == entry.group && alloc.edition.create_index == row.create_index;
            for alloc in self.of_job(key).filter(is_here) {
                counted[match alloc.client_status {
                    ClientStatus::Pending => 0,
                    ClientStatus::Running => 1,
                    ClientStatus::Complete => 2,
                    ClientStatus::Failed | ClientStatus::Lost => 3,
                }] += 1;
            }
            let [starting, running, complete, failed] = counted;
            let is_right =
                (entry.starting_n, entry.running_n) == (starting, running) && entry.complete_n >= complete && entry.failed_n >= failed;
            assert!(is_right, "summary of job {}: {entry:?}, counted {counted:?}", key.id);
        }
    }

    /// A port is given to one of the allocations that are to run.
    fn check_ports(&self) {
        let mut given: BTreeMap<u16, &Allocation> = BTreeMap::new();
        for alloc in self.allocs.values().filter(|alloc| !alloc.is_terminal()) {
            for port in &alloc.grant.ports {
                if let Some(other) = given.insert(port.value, alloc) {
                    panic!("port {} is given to {} {} and to {} {}", port.value, other.name(), other.id, alloc.name(), alloc.id);
                }
            }
        }
    }

    /// Whether an allocation replaces another, or what has replaced it.
    pub fn follows(&self, alloc: &Allocation, before: AllocId) -> bool {
        let mut next = Some(alloc);
        while let Some(alloc) = next {
            if alloc.previous == before {
                return true;
            }
            next = self.allocs.get(&alloc.previous);
        }
        false
    }

    /// Every row leads where it should, and nothing hangs in the air (I10).
    pub fn check_links(&self) {
        let has = |key: Vec<u8>| self.rows.contains_key(&key);
        for alloc in self.allocs.values() {
            let id = alloc.id;
            assert!(has(keys::alloc(alloc.create_index, id)) && has(keys::alloc_id(id)), "alloc {id}: a key is missing");
            assert!(has(keys::job_alloc(&alloc.job, alloc.create_index, id)), "alloc {id}: its job does not know it");
            assert_eq!(has(keys::live(id)), !alloc.is_over(), "alloc {id}: listed as living, or not");
            assert!(
                self.versions.contains_key(&(alloc.job.clone(), alloc.edition)),
                "alloc {id}: its job's version {} is gone",
                alloc.edition.version
            );
        }
        for eval in self.evals.values() {
            let is_blocked = self.rows.get(&keys::blocked(&eval.job)).is_some_and(|id| *id == eval.id.0);
            assert_eq!(is_blocked, eval.status == EvalStatus::Blocked, "eval {}: listed as blocked, or not", eval.id);
            assert!(
                has(keys::eval_id(eval.id)) && has(keys::job_eval(&eval.job, eval.create_index, eval.id)),
                "eval {}: a key is missing",
                eval.id
            );
        }
        for (job, edition) in self.versions.keys() {
            let has_job = self.jobs.get(job).is_some_and(|row| row.create_index == edition.create_index);
            let is_named = has_job || self.of_job(job).any(|alloc| alloc.edition == *edition);
            let number = edition.version;
            assert!(is_named, "version {number} of job {} is left over", job.id);
        }
        let blocked_n = self.evals.values().filter(|eval| eval.status == EvalStatus::Blocked).count();
        let n = |kind: &[u8]| self.rows.range(kind.to_vec()..vec![kind[0] + 1]).count();
        assert_eq!((n(b"A"), n(b"a"), n(b"B")), (self.allocs.len(), self.allocs.len(), self.allocs.len()), "rows of allocations");
        assert_eq!((n(b"E"), n(b"e"), n(b"F")), (self.evals.len(), self.evals.len(), self.evals.len()), "rows of evaluations");
        assert_eq!(n(b"K"), blocked_n, "rows of blocked evaluations");
        let n_delayed = self.evals.values().filter(|eval| eval.status == EvalStatus::Pending && !eval.wait_until.is_unset()).count();
        assert_eq!(n(b"W"), n_delayed, "rows of evaluations that wait for their time");
        assert_eq!(n(b"U"), self.allocs.len(), "rows of versions' allocations");
        let deployments_n = self.deployments.len();
        assert_eq!((n(b"D"), n(b"d"), n(b"G")), (deployments_n, deployments_n, deployments_n), "rows of deployments");
        assert_eq!((self.meta.allocs_n, self.meta.evals_n), (self.allocs.len() as u64, self.evals.len() as u64), "counted rows");
    }

    /// True for an allocation or evaluation that was stored once.
    pub fn is_forgotten(&self, id: [u8; 16]) -> bool {
        self.forgotten.contains(&id)
    }

    /// Whether a durable row says that this task may be signalled to end (I3, I4).
    pub fn wants_end(&self, alloc: AllocId, task: &str) -> bool {
        let Some(row) = self.allocs.get(&alloc) else { return true };
        let Some(entry) = row.tasks.iter().find(|entry| entry.name == task) else { return true };
        let is_told = |kind: &EventKind| matches!(kind, EventKind::Killing { .. } | EventKind::RestartSignaled { .. });
        row.is_over() || entry.state.events.iter().any(|event| is_told(&event.kind))
    }

    /// Whether a durable row tells of the end of this invocation, or has told of it: it names one of the task as consumed, this or a
    /// later one.
    pub fn tells_end(&self, alloc: AllocId, task: &str, inv: Inv, lives: &Lives) -> bool {
        let is_known = self.allocs.get(&alloc).is_some_and(|row| row.tasks.iter().any(|entry| entry.name == task));
        !is_known || lives.since(alloc, task, inv).iter().any(|inv| self.consumed.contains(inv))
    }
}

/// See [`Work`].
pub fn work(alloc: &Allocation) -> Work {
    (alloc.job.clone(), alloc.edition, alloc.group.clone(), alloc.index)
}

/// How many allocations of a group are wanted.
pub fn wanted_n(kind: JobKind, group: &TaskGroup) -> u32 {
    match kind {
        JobKind::System | JobKind::Sysbatch => group.count().min(1),
        JobKind::Service | JobKind::Batch => group.count(),
    }
}

/// How many may live at a time: while a deployment tries canaries there are these too.
pub fn allowed_n(kind: JobKind, group: &TaskGroup) -> u32 {
    let canaries_n = group.update.as_ref().and_then(|update| update.canary).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    wanted_n(kind, group) + if kind == JobKind::Service { canaries_n } else { 0 }
}
