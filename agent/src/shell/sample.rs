//! Resource use on demand: of tasks from their cgroups or processes, of the machine from the kernel's tables.
//!
//! Runs on the file worker, only when somebody asks. A reading younger than [`FRESH_MS`] is given again, so that many askers cost one.
//! Percentages are those since the reading before; the first is 0. Bound: one reading is kept per task that was asked for, and
//! forgotten when it is older than [`KEPT_MS`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_hal::clock::{Clock, Mono};
use dunlin_hal::facts::Source;
use dunlin_hal::linux::clock::KernelClock;
use dunlin_hal::linux::facts::Machine;
use dunlin_runtime::cgroup::Tree;
use dunlin_runtime::cgroup::stats::{Sample, percent};
use dunlin_runtime::id::AllocId;

use super::child::ShimPids;
use super::files::Sampler;
use crate::api::body::{Answer, FileError, TaskUsage, Work};

/// Age up to which a reading is given again.
const FRESH_MS: u64 = 5_000;
/// Age at which a reading is forgotten.
const KEPT_MS: u64 = 10 * 60_000;

/// The newest reading of one task.
struct Kept {
    at: Mono,
    usage: TaskUsage,
}

struct Readings {
    machine: Machine,
    tasks: BTreeMap<(AllocId, String), Kept>,
}

/// A sampler over the machine and the tasks' cgroups.
#[must_use]
pub fn sampler(machine: Machine, tree: Arc<Tree>, alloc_dir: PathBuf, pids: ShimPids) -> Sampler {
    let readings = Mutex::new(Readings { machine, tasks: BTreeMap::new() });
    Arc::new(move |work| {
        let mut readings = readings.lock().unwrap_or_else(PoisonError::into_inner);
        match work {
            Work::Usage { alloc, tasks } => {
                let taken =
                    tasks.iter().filter_map(|task| Some((task.clone(), readings.task(&tree, *alloc, task, pids.of(*alloc, task)?)?)));
                Ok(Answer::Usage(taken.collect()))
            }
            Work::HostUsage => {
                let usage = readings.machine.usage(&alloc_dir).map_err(|why| FileError::Io(why.to_string(), 0))?;
                Ok(Answer::Host(Box::new(usage)))
            }
            _ => Err(FileError::Io("not a sample".to_owned(), 0)),
        }
    })
}

impl Readings {
    fn task(&mut self, tree: &Tree, alloc: AllocId, task: &str, shim_pid: u32) -> Option<TaskUsage> {
        let now = KernelClock.now();
        self.tasks.retain(|_, kept| now.mono < kept.at.after_ms(KEPT_MS));
        let key = (alloc, task.to_owned());
        if let Some(kept) = self.tasks.get(&key).filter(|kept| now.mono < kept.at.after_ms(FRESH_MS)) {
            return Some(kept.usage.clone());
        }
        // A task that has just ended has no sample: it is left out, as upstream does.
        let sample: Sample = tree.sample(alloc, task, shim_pid).ok()?;
        let before = self.tasks.get(&key);
        let elapsed_ns = before.map_or(0, |kept| u64::try_from(now.mono.since(kept.at).as_nanos()).unwrap_or(u64::MAX));
        let old = before.map(|kept| kept.usage.sample.cpu).unwrap_or_default();
        let usage = TaskUsage {
            percent: percent(old.total_ns, sample.cpu.total_ns, elapsed_ns),
            user_percent: percent(old.user_ns, sample.cpu.user_ns, elapsed_ns),
            system_percent: percent(old.system_ns, sample.cpu.system_ns, elapsed_ns),
            taken_ns: now.wall.0,
            sample,
        };
        self.tasks.insert(key, Kept { at: now.mono, usage: usage.clone() });
        Some(usage)
    }
}
