//! A whole agent on virtual clocks, with a disk that lies, supervisors that outlive it and clients that believe what they are told.
//!
//! The agent is the real one: `core::Core` over the real store, with redb on a [`SimDisk`]. What the shell does with effects and events
//! is done here from one seeded queue ([`World::step`]); the rules the shell shares with this (`store::group`, `runtime::shim::news`,
//! `runtime::shim::machine`, `core::Found`) are the product's own.
//! The agent may die before any effect ([`World::set_trap`]), alone or with the machine; what it had in memory is gone then, what was
//! not durable may be, and the next one takes up what is left. Invariants are checked as things happen: a panic names the one broken.
//! Never: sockets, files, threads, the real time.

mod agent;
mod clients;
pub mod dice;
pub mod ledger;
mod perform;
mod setting;
pub mod shims;
mod trace;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use dunlin::core::{Event, Op, RequestId};
use dunlin_hal::budget::Budget;
use dunlin_hal::clock::{Mono, Now, Wall};
use dunlin_hal::hit;
use dunlin_hal::sim::disk::{Faults, SimDisk};
use dunlin_runtime::driver::Launch;
use dunlin_runtime::id::{AllocId, Inv};
use dunlin_runtime::shim::record::Slot;
use dunlin_runtime::task::machine::News;

use self::agent::Agent;
use self::clients::Clients;
pub use self::clients::{About, Seen};
use self::dice::Dice;
use self::ledger::Ledger;
use self::shims::{Shims, Sign, Step};
pub use self::trace::{Trace, last_event};

/// Before which effect the agent dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any.
    Any,
    /// A batch for the store thread.
    Commit,
    /// An answer.
    Respond,
    /// A start.
    Launch,
    /// A word to a supervisor.
    Supervise,
    /// The removal of a runtime folder.
    Forget,
    /// The removal of an allocation's folder.
    Remove,
    /// A timer.
    WakeAt,
}

/// All kinds of effects that do something.
pub const KINDS: [Kind; 7] = [Kind::Commit, Kind::Respond, Kind::Launch, Kind::Supervise, Kind::Forget, Kind::Remove, Kind::WakeAt];

/// How an agent ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is killed; all else goes on.
    Kill,
    /// The power fails.
    Cut,
}

/// How the world is: what takes how long, and what goes wrong how often.
#[derive(Clone, Debug)]
pub struct Weather {
    /// The agent's bounds.
    pub budget: Budget,
    /// Time of a sync, ms.
    pub sync_ms: (u64, u64),
    /// Of a hundred syncs so many are slow.
    pub slow_percent: u64,
    /// Time of those, ms.
    pub slow_ms: (u64, u64),
    /// Of a hundred starts so many fail before there is a supervisor.
    pub launch_fails_percent: u64,
    /// Of a hundred cuts so many set the wall clock back: there is no clock that runs without power.
    pub clock_lost_percent: u64,
    /// The agent's redb cache, bytes.
    pub cache_bytes: usize,
    /// A fault of the disk is one of its medium too: what a failed sync did not write stays lost.
    pub is_lying: bool,
}

/// Something that is going to happen.
#[derive(Debug)]
enum Happening {
    /// The agent's timer.
    Due { life: u32, due: Mono },
    /// The store thread's sync is over.
    Synced { life: u32 },
    /// The store thread tries again.
    Retry { life: u32 },
    /// The file worker starts a supervisor.
    Fork { life: u32, launch: Box<Launch> },
    /// And says so.
    Launched { life: u32, alloc: AllocId, task: String, inv: Inv, failed: Option<News> },
    /// The agent connects to a supervisor.
    Connect { life: u32, inv: Inv },
    /// A word of the agent reaches a supervisor.
    Hear { inv: Inv, op: Op },
    /// A record reaches the agent; `None`: the supervisor has left.
    Say { life: u32, inv: Inv, slot: Option<Box<Slot>> },
    /// Something happens to an invocation.
    Shim { inv: Inv, step: Step },
    /// The file worker removes a runtime folder.
    Forget { life: u32, inv: Inv, tries: usize },
    /// The folder of an allocation is gone.
    Removed { life: u32, alloc: AllocId },
    /// A client takes the next piece of a list.
    Rows { id: RequestId },
    /// Init starts the agent.
    Start,
}

/// When, on a clock that no reboot stops: nanoseconds since the world began.
type Moment = u64;

/// What the clock since boot shows when the agent is first started after it.
const BOOT_NS: u64 = 20_000_000_000;

struct Item {
    at: Moment,
    /// Among things of one moment, the order is drawn.
    draw: u32,
    n: u64,
    what: Happening,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.n == other.n
    }
}
impl Eq for Item {}
impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.draw, self.n).cmp(&(other.at, other.draw, other.n))
    }
}

/// The agent dies before the effect that makes `left` zero.
#[derive(Clone, Copy, Debug)]
struct Trap {
    kind: Kind,
    left: u32,
    end: End,
}

/// See the module.
pub struct World {
    /// How it is.
    pub weather: Weather,
    /// What is durable.
    pub ledger: Ledger,
    /// Tasks and their supervisors.
    pub shims: Shims,
    /// What clients were told.
    pub clients: Clients,
    /// What happened.
    pub trace: Trace,
    now: Now,
    moment: Moment,
    booted: Moment,
    boot_n: u8,
    /// The wall clock of a machine that has just got power and no clock of its own.
    cold_wall: Wall,
    dice: Dice,
    seed: u64,
    disk: SimDisk,
    agent: Option<Agent>,
    life: u32,
    folders: BTreeSet<AllocId>,
    queue: BinaryHeap<Reverse<Item>>,
    items_n: u64,
    trap: Option<Trap>,
    /// The disk was told to fail, or to be full.
    has_faults: bool,
    /// When the file worker is free again.
    worker_at: Moment,
    /// Ports that others listen on.
    pub foreign_ports: Vec<u16>,
    /// Order of the words of each supervisor.
    said_at: BTreeMap<Inv, Moment>,
    requests_n: u64,
    /// Times the agent was killed or lost its power.
    pub ends_n: [u64; 2],
}

impl World {
    /// A machine with an empty disk whose agent has just been started.
    pub fn new(seed: u64, weather: Weather, is_told: bool) -> Self {
        let mut world = Self {
            weather,
            ledger: Ledger::default(),
            shims: Shims::default(),
            clients: Clients::default(),
            trace: Trace::new(is_told),
            now: Now { mono: Mono(BOOT_NS), wall: Wall(1_790_000_000_000_000_000) },
            moment: 0,
            booted: 0,
            boot_n: 1,
            cold_wall: Wall(1_600_000_000_000_000_000),
            dice: Dice::of(seed, 1),
            seed,
            disk: SimDisk::new(Dice::of(seed, 2).word(), 64 << 10),
            agent: None,
            life: 0,
            folders: BTreeSet::new(),
            queue: BinaryHeap::new(),
            items_n: 0,
            trap: None,
            has_faults: false,
            worker_at: 0,
            foreign_ports: Vec::new(),
            said_at: BTreeMap::new(),
            requests_n: 0,
            ends_n: [0; 2],
        };
        world.start();
        world
    }

    /// The time.
    pub fn now(&self) -> Now {
        self.now
    }

    /// True while an agent runs.
    pub fn is_up(&self) -> bool {
        self.agent.is_some()
    }

    /// Nothing hinders the disk.
    pub fn is_disk_good(&self) -> bool {
        !self.has_faults
    }

    fn boot_id(&self) -> [u8; 16] {
        [self.boot_n; 16]
    }

    fn later_us(&mut self, us: u64, what: Happening) {
        self.at(self.moment.saturating_add(us.saturating_mul(1_000)), what);
    }

    fn at(&mut self, at: Moment, what: Happening) {
        self.items_n += 1;
        let draw = (self.dice.word() >> 32) as u32;
        self.queue.push(Reverse(Item { at, draw, n: self.items_n, what }));
    }

    /// Time passes; nothing may be due before.
    fn pass_to(&mut self, at: Moment) {
        // Two things never happen in the same moment: each time is told apart from all others.
        let passed = at.saturating_sub(self.moment).max(1);
        self.moment += passed;
        self.now = Now { mono: Mono(self.moment - self.booted + BOOT_NS), wall: Wall(self.now.wall.0 + passed as i64) };
    }

    /// The next thing happens, if it does so until `limit`; else the time until then passes. False: it has.
    fn step(&mut self, limit: Moment) -> bool {
        if self.queue.peek().is_none_or(|Reverse(item)| item.at > limit) {
            self.pass_to(limit);
            return false;
        }
        let Some(Reverse(item)) = self.queue.pop() else { return false };
        self.pass_to(item.at);
        self.happen(item.what);
        true
    }

    fn after_ms(&self, ms: u64) -> Moment {
        self.moment.saturating_add(ms.saturating_mul(1_000_000))
    }

    /// All that is due within a time happens, and the time passes.
    pub fn run_ms(&mut self, ms: u64) {
        let limit = self.after_ms(ms);
        while self.step(limit) {}
    }

    /// What is due next, in words.
    pub fn next(&self) -> String {
        self.queue.peek().map_or_else(|| "nothing".to_owned(), |Reverse(item)| format!("{:?}", item.what))
    }

    /// Runs until nothing is left to happen. False: after `ms` something still is.
    pub fn run_until_quiet(&mut self, ms: u64) -> bool {
        let limit = self.after_ms(ms);
        loop {
            // A timer that was set anew means nothing.
            while self.queue.peek().is_some_and(|Reverse(item)| self.is_stale(&item.what)) {
                self.queue.pop();
            }
            if self.queue.is_empty() {
                return true;
            }
            if !self.step(limit) {
                return false;
            }
        }
    }

    fn is_stale(&self, what: &Happening) -> bool {
        let Happening::Due { life, due } = what else { return false };
        !self.is_present(*life) || self.agent.as_ref().is_none_or(|agent| agent.timer != Some(*due))
    }

    fn is_present(&self, life: u32) -> bool {
        self.agent.is_some() && self.life == life
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Due { life, due } => {
                if !self.is_stale(&Happening::Due { life, due }) {
                    self.due();
                }
            }
            Happening::Synced { life } if self.is_present(life) => self.synced(),
            Happening::Retry { life } if self.is_present(life) => self.retry(),
            Happening::Fork { life, launch } if self.is_present(life) => self.fork(*launch),
            Happening::Launched { life, alloc, task, inv, failed } if self.is_present(life) => self.launched(alloc, task, inv, failed),
            Happening::Connect { life, inv } if self.is_present(life) => self.connect(inv),
            Happening::Say { life, inv, slot } if self.is_present(life) => self.say(inv, slot.as_deref()),
            Happening::Forget { life, inv, tries } if self.is_present(life) => self.forget(inv, tries),
            Happening::Removed { life, alloc } if self.is_present(life) => self.removed(alloc),
            Happening::Hear { inv, op } => {
                let signs = self.shims.hear(self.now, inv, op, &mut self.dice);
                self.signs(inv, signs);
            }
            Happening::Shim { inv, step } => {
                let signs = self.shims.step(self.now, inv, step, &mut self.dice);
                self.signs(inv, signs);
            }
            Happening::Rows { id } => self.rows(id),
            Happening::Start => self.start(),
            // Of an agent that is dead.
            Happening::Synced { .. }
            | Happening::Retry { .. }
            | Happening::Fork { .. }
            | Happening::Launched { .. }
            | Happening::Connect { .. }
            | Happening::Say { .. }
            | Happening::Forget { .. }
            | Happening::Removed { .. } => {}
        }
    }

    fn signs(&mut self, inv: Inv, signs: Vec<Sign>) {
        for sign in signs {
            match sign {
                Sign::Next(us, step) => self.later_us(us, Happening::Shim { inv, step }),
                Sign::Tell(slot) => self.tell(inv, Some(slot)),
                Sign::Left => self.tell(inv, None),
            }
        }
    }

    /// A supervisor's word goes to its adopter, after all that it said before.
    fn tell(&mut self, inv: Inv, slot: Option<Slot>) {
        let Some(life) = self.shims.all.get(&inv).and_then(|shim| shim.adopter).filter(|life| *life == self.life) else { return };
        let soonest = self.moment + self.dice.between(50_000, 2_000_000);
        let at = self.said_at.get(&inv).map_or(soonest, |last| soonest.max(last + 1));
        self.said_at.insert(inv, at);
        self.at(at, Happening::Say { life, inv, slot: slot.map(Box::new) });
    }

    /// A supervisor is killed, as the kernel does when memory is short.
    pub fn kill_shim(&mut self, inv: Inv) {
        self.trace.line(self.now, || format!("supervisor {inv} is killed"));
        self.shims.kill(inv);
        self.tell(inv, None);
    }

    /// Living supervisors.
    pub fn living_shims(&self) -> Vec<Inv> {
        self.shims.all.iter().filter(|(_, shim)| shim.is_alive).map(|(inv, _)| *inv).collect()
    }

    /// The agent will die before the `n`th effect of a kind from now.
    pub fn set_trap(&mut self, kind: Kind, n: u32, end: End) {
        self.trap = Some(Trap { kind, left: n, end });
    }

    /// The disk takes so many bytes more; `None`: it is good again.
    pub fn fill_disk(&mut self, free_bytes: Option<u64>) {
        self.trace.line(self.now, || format!("disk: {free_bytes:?} bytes free"));
        self.has_faults = free_bytes.is_some();
        self.disk.fill(free_bytes);
    }

    /// The disk fails so.
    pub fn fail_disk(&mut self, faults: Faults) {
        self.trace.line(self.now, || format!("disk: {faults:?}"));
        self.has_faults = faults != Faults::default();
        self.disk.fail(faults);
    }

    /// Somebody sets the wall clock.
    pub fn step_wall(&mut self, by_ms: i64) {
        self.trace.line(self.now, || format!("wall clock steps by {by_ms} ms"));
        self.now.wall = Wall((self.now.wall.0 + by_ms * 1_000_000).max(1));
        hit!("wall_stepped");
        self.feed(Event::ClockStepped);
    }

    /// From now on all goes well: the disk is good, tasks are, nobody dies.
    pub fn calm(&mut self) {
        self.trap = None;
        self.weather.launch_fails_percent = 0;
        self.weather.slow_percent = 0;
        self.foreign_ports.clear();
        self.fill_disk(None);
        self.fail_disk(Faults::default());
        for (inv, sign) in self.shims.calm() {
            self.signs(inv, vec![sign]);
        }
    }
}
