//! Who asks the API, and what they were told: a promise is checked when it is made, and kept to the end.

use std::collections::{BTreeMap, BTreeSet};

use dunlin::api::body::{Body, Reply, Rows};
use dunlin::core::{Event, RequestId};
use dunlin::model::alloc::{Desired, JobKey};
use dunlin::store::Seq;
use dunlin::wire::http::{Method, Request};
use dunlin_hal::hit;
use dunlin_runtime::id::{AllocId, EvalId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Happening, Moment, World};

/// What a request is about: what its answer promises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// This job, as this write says.
    Register {
        /// The job.
        job: JobKey,
        /// The number of the write.
        tag: u64,
    },
    /// Another change of this job: nothing is promised about it any more.
    Change(JobKey),
    /// The end of this job.
    Stop {
        /// The job.
        job: JobKey,
        /// Nothing is to be left of it.
        is_purge: bool,
    },
    /// The end of this allocation.
    AllocStop(AllocId),
    /// Another write.
    Write,
    /// A list of allocations.
    Allocs,
    /// A list of evaluations.
    Evals,
    /// A list of jobs.
    Jobs,
    /// A blocking query that waits so many ms at most.
    Block {
        /// Most it waits.
        wait_ms: u64,
        /// What it lists.
        of: Box<About>,
    },
    /// Another read.
    Read,
    /// Bytes of a stranger.
    Garbage,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The status.
    pub status: u16,
    /// All of the body; empty when it was a list that broke off, or a stream.
    pub body: Vec<u8>,
    /// `X-Nomad-Index`; 0 = none.
    pub index: u64,
}

struct Asked {
    about: About,
    at: Moment,
    /// The batch that holds what was asked for.
    batch: Option<Seq>,
}

/// A list on its way.
struct List {
    about: About,
    begun: Moment,
    rows: Box<dyn Rows>,
    seen: Seen,
}

/// All clients.
#[derive(Default)]
pub struct Clients {
    asked: BTreeMap<RequestId, Asked>,
    lists: BTreeMap<RequestId, List>,
    /// Who went away before the answer.
    left: BTreeSet<RequestId>,
    /// The request of this turn.
    turn: Option<RequestId>,
    /// The newest index shown of jobs, evaluations and allocations.
    shown_index: [u64; 3],
    /// The newest index shown of each object, its content, and when it was shown first.
    shown: BTreeMap<(u8, [u8; 16]), (u64, u64, Moment)>,
    /// The newest write of each job that was accepted, and whether it was promised.
    writes: BTreeMap<JobKey, (RequestId, Option<About>)>,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// The answer a caller waits for in this turn.
    pub last: Option<(RequestId, Seen)>,
}

impl Clients {
    /// The agent is gone and all connections with it.
    pub fn cut_off(&mut self) {
        self.asked.clear();
        self.lists.clear();
        self.left.clear();
        self.turn = None;
    }

    /// A batch was handed over: it holds what the request of this turn asked for.
    pub fn handed_over(&mut self, seq: Seq) {
        let Some(id) = self.turn else { return };
        let Some(asked) = self.asked.get_mut(&id).filter(|asked| asked.batch.is_none()) else { return };
        asked.batch = Some(seq);
        if let About::Register { job, .. } | About::Stop { job, .. } | About::Change(job) = &asked.about {
            self.writes.insert(job.clone(), (id, None));
        }
    }

    /// Requests that have no answer.
    pub fn unanswered(&self) -> impl Iterator<Item = (&RequestId, &About, Moment)> {
        self.asked.iter().map(|(id, asked)| (id, &asked.about, asked.at))
    }

    /// Jobs whose newest accepted write was promised.
    pub fn promised(&self) -> impl Iterator<Item = &About> {
        self.writes.values().filter_map(|(_, about)| about.as_ref())
    }
}

#[derive(Deserialize)]
struct Shown<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    #[serde(rename = "ModifyIndex")]
    modify_index: u64,
    #[serde(rename = "DesiredStatus", default)]
    desired: &'a str,
    #[serde(rename = "ClientStatus", default)]
    client: &'a str,
    #[serde(rename = "Status", default)]
    status: &'a str,
}

impl World {
    /// A client asks. Its number; `None`: nobody listens.
    pub fn ask(&mut self, request: Request, about: About) -> Option<RequestId> {
        self.agent.as_ref()?;
        self.requests_n += 1;
        let id = RequestId(self.requests_n);
        self.trace.line(self.now, || {
            let Request { method, path, query, body, .. } = &request;
            format!("request {}: {method:?} {path}?{query} {}", id.0, String::from_utf8_lossy(&body[..body.len().min(4_000)]))
        });
        let is_read = matches!(request.method, Method::Get | Method::Head | Method::Options);
        let mut busy_ports = Vec::new();
        if !is_read {
            busy_ports.extend(&self.foreign_ports);
            let running = self.shims.all.values().filter(|shim| shim.is_running());
            busy_ports.extend(running.flat_map(|shim| shim.ports.iter().copied()));
        }
        self.clients.asked.insert(id, Asked { about, at: self.moment, batch: None });
        self.clients.turn = Some(id);
        self.clients.last = None;
        self.feed(Event::Request { id, request, busy_ports });
        self.clients.turn = None;
        let durable = self.ledger.durable();
        let promised_n = self.clients.asked.values().filter(|asked| asked.batch.is_some_and(|seq| seq > durable)).count();
        assert!(promised_n <= self.weather.budget.batches_max, "I8: {promised_n} writes wait for the disk");
        let blocked_n = self.clients.asked.values().filter(|asked| matches!(asked.about, About::Block { .. })).count();
        assert!(blocked_n <= self.weather.budget.waiters_max + self.weather.budget.batches_max, "I8: {blocked_n} blocking queries wait");
        Some(id)
    }

    /// A client goes away.
    pub fn leave(&mut self, id: RequestId) {
        if self.clients.asked.remove(&id).is_some() {
            hit!("client_left");
            self.clients.left.insert(id);
            self.feed(Event::Gone(id));
        }
        self.clients.lists.remove(&id);
    }

    /// Requests that wait.
    pub fn waiting(&self) -> Vec<RequestId> {
        self.clients.asked.keys().copied().collect()
    }

    pub(super) fn respond(&mut self, id: RequestId, reply: Reply) {
        let asked = self.clients.asked.remove(&id);
        let Some(Asked { about, batch, .. }) = asked else {
            // Who has left takes no answer; who has one gets no second.
            assert!(self.clients.left.remove(&id), "request {} is answered and nobody waits for it", id.0);
            return;
        };
        let status = reply.head.status;
        *self.clients.statuses.entry(status).or_default() += 1;
        self.trace.word(id.0 << 16 | u64::from(status));
        let index = reply.head.headers.iter().find(|(name, _)| *name == "X-Nomad-Index").map_or(0, |(_, value)| value.parse().unwrap_or(0));
        self.check_index(&about, status, index);
        if status == 200 {
            self.check_promise(id, &about, batch);
        }
        let seen = Seen { status, body: Vec::new(), index };
        match reply.body {
            Body::Full(body) => {
                self.trace.bytes(&body);
                self.trace
                    .line(self.now, || format!("answer {}: {status} {}", id.0, String::from_utf8_lossy(&body[..body.len().min(200)])));
                self.seen(id, &about, Seen { body, ..seen });
            }
            Body::Rows(rows) => {
                self.clients.lists.insert(id, List { about, begun: self.moment, rows, seen });
                self.rows(id);
            }
            Body::Machine(_) => hit!("stream"),
        }
    }

    fn seen(&mut self, id: RequestId, about: &About, seen: Seen) {
        if seen.status == 500 {
            let text = String::from_utf8_lossy(&seen.body);
            let is_troubled = self.agent.as_ref().is_none_or(|agent| agent.is_troubled);
            let is_excused =
                self.has_faults || is_troubled || matches!(about, About::Garbage) || text.contains("store") || text.contains("disk");
            // What users may ask at the wrong time is refused in words; what reads and stores is never.
            let may_fail = matches!(about, About::Write | About::Change(_)) && !text.contains("store");
            assert!(is_excused || may_fail, "request {} ({about:?}): {text}", id.0);
        }
        self.clients.last = Some((id, seen));
    }

    /// What is acknowledged is durable, and is what was asked for.
    fn check_promise(&mut self, id: RequestId, about: &About, batch: Option<Seq>) {
        let durable = self.ledger.durable();
        assert!(batch.is_none_or(|seq| seq <= durable), "I3: request {} ({about:?}) is answered before its batch {batch:?}", id.0);
        match about {
            About::Register { job, .. } | About::Stop { job, .. } => {
                if let Some((newest, promised)) = self.clients.writes.get_mut(job).filter(|(newest, _)| *newest == id) {
                    debug_assert_eq!(*newest, id);
                    *promised = Some(about.clone());
                    self.check_kept(about);
                }
            }
            About::AllocStop(alloc) => {
                let stops = self
                    .ledger
                    .allocs
                    .get(alloc)
                    .is_none_or(|row| row.desired != Desired::Run || row.client_status.is_terminal() || row.wants_migrate);
                assert!(stops, "I3: the stop of alloc {alloc} is acknowledged and not stored");
            }
            _ => {}
        }
    }

    /// A promise about a job still holds, as no later write has touched it.
    pub fn check_kept(&self, about: &About) {
        match about {
            // One that was over, and forgotten as such.
            About::Register { job, .. } if self.ledger.swept.iter().any(|(key, _)| key == job) && !self.ledger.jobs.contains_key(job) => {}
            About::Register { job, tag } => {
                let stored = self.ledger.wanted(job).map(|(_, version)| version.tag);
                assert_eq!(stored, Some(*tag), "I3: job {} was promised as of write {tag}", job.id);
            }
            About::Stop { job, is_purge } => {
                let row = self.ledger.jobs.get(job);
                let is_kept = row.is_none_or(|row| row.is_stopped && !is_purge);
                assert!(is_kept, "I3: the end of job {} (purge: {is_purge}) was promised", job.id);
            }
            _ => {}
        }
    }

    fn check_index(&mut self, about: &About, status: u16, index: u64) {
        let table = match about {
            About::Jobs => 0,
            About::Evals => 1,
            About::Allocs => 2,
            _ => return,
        };
        // What a disk that takes nothing has shown may be lost with the power, and its numbers too.
        if status != 200 || self.agent.as_ref().is_none_or(|agent| agent.is_troubled) {
            return;
        }
        let shown = &mut self.clients.shown_index[table];
        assert!(index >= *shown, "the index of {about:?} went back from {shown} to {index}");
        *shown = index;
    }

    /// The next piece of a list, if rows may be shown now.
    pub(super) fn rows(&mut self, id: RequestId) {
        let Some(list) = self.clients.lists.get_mut(&id) else { return };
        let Some(agent) = &self.agent else { return };
        let is_troubled = agent.is_troubled;
        let Some(view) = agent.core.shown() else {
            hit!("list_waits_for_commit");
            return self.later_us(2_000, Happening::Rows { id });
        };
        let mut frame = Vec::new();
        let stepped = list.rows.step(&view, &mut frame);
        list.seen.body.extend(&frame);
        let (about, begun) = (list.about.clone(), list.begun);
        if stepped.is_ok() {
            self.check_list(&about, begun, &frame);
        }
        match stepped {
            Ok(true) => {
                let us = self.dice.between(10, 20_000);
                self.later_us(us, Happening::Rows { id });
            }
            Ok(false) => {
                let Some(List { about, seen, .. }) = self.clients.lists.remove(&id) else { return };
                self.trace.bytes(&seen.body);
                self.seen(id, &about, seen);
            }
            Err(error) => {
                // A handle that an error has closed is opened again with the next try to write.
                assert!(self.has_faults || is_troubled, "a list cannot be read: {}", error.text);
                self.clients.lists.remove(&id);
            }
        }
    }

    /// Nothing is shown that could be lost (but for soft facts), and nothing with another content under an index shown before.
    fn check_list(&mut self, about: &About, begun: Moment, frame: &[u8]) {
        let is_troubled = self.agent.as_ref().is_none_or(|agent| agent.is_troubled);
        let about = if let About::Block { of, .. } = about { of } else { about };
        if is_troubled || !matches!(about, About::Allocs | About::Evals) {
            return;
        }
        // A frame holds whole items; the brackets and the comma between two frames may be missing.
        let bare = frame.strip_prefix(b"[").or(frame.strip_prefix(b",")).unwrap_or(frame);
        let bare = bare.strip_suffix(b"]").filter(|bare| bare.is_empty() || bare.ends_with(b"}")).unwrap_or(bare);
        let body = [b"[", bare, b"]"].concat();
        let items: Vec<&RawValue> = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("a list is no JSON: {error}"));
        for item in items {
            let shown: Shown<'_> = serde_json::from_str(item.get()).unwrap_or_else(|error| panic!("{error}: {}", item.get()));
            let (kind, id) = match about {
                About::Allocs => {
                    let id = AllocId::parse(shown.id).expect("an id");
                    if let Some(row) = self.ledger.allocs.get(&id) {
                        let is_stopped = row.desired != Desired::Run;
                        assert!(shown.desired == "run" || is_stopped, "I3: alloc {id} is shown as stopped before that is durable");
                        let is_terminal = matches!(shown.client, "complete" | "failed" | "lost");
                        assert!(!is_terminal || row.client_status.is_terminal(), "I3: the end of alloc {id} is shown before it is durable");
                    } else {
                        assert!(self.ledger.is_forgotten(id.0), "I3: alloc {id} is shown before it is durable");
                    }
                    (0, id.0)
                }
                _ => {
                    let id = EvalId::parse(shown.id).expect("an id");
                    if let Some(row) = self.ledger.evals.get(&id) {
                        let is_terminal = !matches!(shown.status, "pending" | "blocked");
                        assert!(!is_terminal || row.status.is_terminal(), "I3: the end of eval {id} is shown before it is durable");
                    } else {
                        assert!(self.ledger.is_forgotten(id.0), "I3: eval {id} is shown before it is durable");
                    }
                    (1, id.0)
                }
            };
            let content = super::ledger::hash(item.get().as_bytes());
            let (newest, old, at) = *self.clients.shown.entry((kind, id)).or_insert((shown.modify_index, content, self.moment));
            if shown.modify_index < newest {
                // A list shows some rows a moment after it has read them.
                assert!(at >= begun, "the index of {} went back from {newest} to {}", shown.id, shown.modify_index);
                continue;
            }
            let is_same = shown.modify_index > newest || content == old;
            assert!(is_same, "{} is shown with other content under index {newest}: {}", shown.id, item.get());
            if shown.modify_index > newest {
                self.clients.shown.insert((kind, id), (shown.modify_index, content, self.moment));
            }
        }
    }
}
