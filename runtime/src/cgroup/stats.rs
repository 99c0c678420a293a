//! What a task uses. Parsing is pure (texts in, [`Sample`] out); [`Tree::sample`] reads the files when somebody asks.
//!
//! Units: bytes, nanoseconds. Errors: none; what cannot be read is 0 and not in the measured list.
//! Source: `spec/runtime.md` 5.5 (columns v2, v1, procfs and the measured lists).

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::{Controller, Mode, Place, Tree, for_each_member, open_folder};
use crate::id::AllocId;
use crate::proc::usage::{self, Usage, parse_u64, ticks_ns};

/// Processes listed one by one in a sample; more are only in the sums.
pub const PIDS_MAX: usize = 16;

const MEMORY_V1: &[&str] = &["RSS", "Cache", "Swap", "Usage", "Max Usage", "Kernel Usage", "Kernel Max Usage"];
const MEMORY_V2: &[&str] = &["RSS", "Cache", "Swap", "Usage"];
const MEMORY_PROC: &[&str] = &["RSS", "Swap"];
const CPU_GROUP: &[&str] = &["System Mode", "User Mode", "Throttled Periods", "Throttled Time", "Percent"];
const CPU_PROC: &[&str] = &["System Mode", "User Mode", "Percent"];

/// Memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Anonymous pages.
    pub rss: u64,
    /// Pages of files.
    pub cache: u64,
    /// Swapped out.
    pub swap: u64,
    /// Mapped files.
    pub mapped_file: u64,
    /// All that is charged.
    pub usage: u64,
    /// Most ever charged.
    pub max_usage: u64,
    /// Of the kernel.
    pub kernel_usage: u64,
    /// Most ever of the kernel.
    pub kernel_max_usage: u64,
    /// Which of these were measured, in the words of the API.
    pub measured: &'static [&'static str],
}

/// Processor time since the group was made, nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
    /// Together, as counted by the kernel.
    pub total_ns: u64,
    /// Periods in which a quota held it back.
    pub throttled_periods: u64,
    /// Time it was held back.
    pub throttled_ns: u64,
    /// Which of these were measured, in the words of the API.
    pub measured: &'static [&'static str],
}

/// One reading. Percentages come from two of them: [`percent`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Memory.
    pub memory: Memory,
    /// Processor.
    pub cpu: Cpu,
    /// At most [`PIDS_MAX`] processes.
    pub pids: Vec<(u32, Usage)>,
}

/// Used time in percent of one processor; can pass 100 on several. 0 for a first sample (`elapsed_ns` 0) and after a reset.
#[must_use]
pub fn percent(before_ns: u64, after_ns: u64, elapsed_ns: u64) -> f64 {
    if elapsed_ns == 0 {
        return 0.0;
    }
    // Below 2^53 ns of difference (104 days) nothing is lost; beyond it a percentage does not care.
    #[expect(clippy::cast_precision_loss, reason = "a percentage")]
    let ratio = after_ns.saturating_sub(before_ns) as f64 / elapsed_ns as f64;
    ratio * 100.0
}

/// The number after `key ` at the beginning of a line.
#[must_use]
pub fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| parse_u64(line.strip_prefix(key)?.strip_prefix(' ')?.trim_ascii_end().as_bytes()))
}

/// A file that is one number.
fn number(text: Option<String>) -> Option<u64> {
    parse_u64(text?.trim_ascii().as_bytes())
}

/// Memory from v1 files; `read` gives a file's text.
#[must_use]
pub fn memory_v1(read: impl Fn(&str) -> Option<String>) -> Option<Memory> {
    let stat = read("memory.stat")?;
    let of = |key| value_of(&stat, key).unwrap_or(0);
    let file = |name| number(read(name)).unwrap_or(0);
    Some(Memory {
        rss: of("rss"),
        cache: of("cache"),
        swap: of("swap"),
        mapped_file: of("mapped_file"),
        usage: file("memory.usage_in_bytes"),
        max_usage: file("memory.max_usage_in_bytes"),
        kernel_usage: file("memory.kmem.usage_in_bytes"),
        kernel_max_usage: file("memory.kmem.max_usage_in_bytes"),
        measured: MEMORY_V1,
    })
}

/// Memory from v2 files; `read` gives a file's text.
#[must_use]
pub fn memory_v2(read: impl Fn(&str) -> Option<String>) -> Option<Memory> {
    let stat = read("memory.stat")?;
    let of = |key| value_of(&stat, key).unwrap_or(0);
    Some(Memory {
        rss: of("anon"),
        cache: of("file"),
        swap: number(read("memory.swap.current")).unwrap_or(0),
        mapped_file: of("file_mapped"),
        usage: number(read("memory.current")).unwrap_or(0),
        max_usage: number(read("memory.peak")).unwrap_or(0),
        kernel_usage: 0,
        kernel_max_usage: 0,
        measured: MEMORY_V2,
    })
}

/// Processor time from v1 files: `cpuacct.*` of one folder, `cpu.stat` of another.
#[must_use]
pub fn cpu_v1(cpuacct: impl Fn(&str) -> Option<String>, cpu: impl Fn(&str) -> Option<String>) -> Option<Cpu> {
    let stat = cpuacct("cpuacct.stat")?;
    let throttled = cpu("cpu.stat").unwrap_or_default();
    let of = |key| ticks_ns(value_of(&stat, key).unwrap_or(0));
    let (user_ns, system_ns) = (of("user"), of("system"));
    Some(Cpu {
        user_ns,
        system_ns,
        total_ns: number(cpuacct("cpuacct.usage")).unwrap_or(user_ns.saturating_add(system_ns)),
        throttled_periods: value_of(&throttled, "nr_throttled").unwrap_or(0),
        throttled_ns: value_of(&throttled, "throttled_time").unwrap_or(0),
        measured: CPU_GROUP,
    })
}

/// Processor time from `cpu.stat` of the v2 tree, which is there even without the cpu controller.
#[must_use]
pub fn cpu_v2(read: impl Fn(&str) -> Option<String>) -> Option<Cpu> {
    let stat = read("cpu.stat")?;
    let ns = |key| value_of(&stat, key).map(|us| us.saturating_mul(1000));
    Some(Cpu {
        user_ns: ns("user_usec").unwrap_or(0),
        system_ns: ns("system_usec").unwrap_or(0),
        total_ns: ns("usage_usec")?,
        throttled_periods: value_of(&stat, "nr_throttled").unwrap_or(0),
        throttled_ns: ns("throttled_usec").unwrap_or(0),
        measured: CPU_GROUP,
    })
}

impl Tree {
    /// Reads what a task uses now. `shim_pid` finds the processes where there are no groups.
    ///
    /// # Errors
    /// Neither groups nor `/proc` can be read.
    pub fn sample(&self, alloc: AllocId, task: &str, shim_pid: u32) -> io::Result<Sample> {
        let place = self.place(alloc, task);
        let unified = place.unified.as_deref();
        let reader = |folder: Option<&Path>| {
            let folder = folder.map(Path::to_path_buf);
            move |file: &str| fs::read_to_string(folder.as_ref()?.join(file)).ok()
        };
        let legacy = |controller| reader(place.legacy_of(controller));
        let memory = match self.mode() {
            Mode::V2 => memory_v2(reader(unified)),
            Mode::Hybrid | Mode::V1 => memory_v1(legacy(Controller::Memory)),
            Mode::None => None,
        };
        let cpu = cpu_v1(legacy(Controller::Cpuacct), legacy(Controller::Cpu)).or_else(|| cpu_v2(reader(unified)));
        let pids = members(&place, shim_pid)?;
        // A process that ends meanwhile is left out.
        let usages: Vec<(u32, Usage)> = pids.into_iter().filter_map(|pid| Some((pid, usage::usage(pid).ok()?))).collect();
        let sum = usages.iter().fold(Usage::default(), |sum, (_, usage)| sum.plus(*usage));
        Ok(Sample {
            memory: memory.unwrap_or(Memory {
                rss: sum.rss_bytes,
                swap: sum.swap_bytes,
                usage: sum.rss_bytes,
                measured: MEMORY_PROC,
                ..Memory::default()
            }),
            cpu: cpu.unwrap_or_else(|| cpu_proc(sum, shim_pid)),
            pids: usages.into_iter().take(PIDS_MAX).collect(),
        })
    }

    /// How many processes of a task the kernel has killed for memory since its group was made; `None` when it cannot say.
    #[must_use]
    pub fn oom_kills(&self, alloc: AllocId, task: &str) -> Option<u64> {
        value_of(&fs::read_to_string(self.oom_file(&self.place(alloc, task))?).ok()?, "oom_kill")
    }

    /// The file with the `oom_kill` line of a task.
    #[must_use]
    pub fn oom_file(&self, place: &Place) -> Option<std::path::PathBuf> {
        match place.legacy_of(Controller::Memory) {
            Some(folder) => Some(folder.join("memory.oom_control")),
            None if self.controllers.contains(&Controller::Memory) => place.unified.as_ref().map(|folder| folder.join("memory.events")),
            None => None,
        }
    }
}

/// The children a shim has reaped are in its own figures; they were the task's.
fn cpu_proc(sum: Usage, shim_pid: u32) -> Cpu {
    let reaped = usage::stat(shim_pid).unwrap_or_default();
    let (user_ns, system_ns) =
        (sum.user_ns.saturating_add(ticks_ns(reaped.child_utime)), sum.system_ns.saturating_add(ticks_ns(reaped.child_stime)));
    Cpu { user_ns, system_ns, total_ns: user_ns.saturating_add(system_ns), measured: CPU_PROC, ..Cpu::default() }
}

fn members(place: &Place, shim_pid: u32) -> io::Result<Vec<u32>> {
    let folder = place.unified.as_deref().or_else(|| place.legacy_folders().next());
    match folder.map(open_folder).transpose()?.flatten() {
        Some(dir) => {
            let mut pids = Vec::new();
            for_each_member(dir.as_fd(), |pid| pids.push(pid))?;
            Ok(pids)
        }
        None => usage::descendants(shim_pid),
    }
}
