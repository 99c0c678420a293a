//! What the kernel says of a process: memory, threads, wake-ups, bytes written; and of an executable: what kind it is.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::unistd::Pid;

/// Memory of one process or of several together, KiB.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// Pages nobody else has.
    pub private: f64,
    /// Those, and a share of the others.
    pub pss: f64,
}

impl std::ops::Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { private: self.private + other.private, pss: self.pss + other.pss }
    }
}

/// Memory of all these together.
pub fn memory(pids: &[Pid]) -> Memory {
    pids.iter().map(|pid| memory_of(*pid)).fold(Memory::default(), |a, b| a + b)
}

fn memory_of(pid: Pid) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let field = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
    };
    Memory { private: field("Private_Clean") + field("Private_Dirty"), pss: field("Pss") }
}

/// Times each thread has gone to sleep and been woken since it began.
pub fn wakes(pid: Pid) -> BTreeMap<String, u64> {
    let mut wakes = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten() {
        let text = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default();
        *wakes.entry(field("Name:").to_owned()).or_default() += field("voluntary_ctxt_switches:").parse::<u64>().unwrap_or_default();
    }
    wakes
}

/// Threads of a process.
pub fn threads(pid: Pid) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten();
    entries.map(|entry| fs::read_to_string(entry.path().join("comm")).unwrap_or_default().trim().to_owned()).collect()
}

/// Bytes this process caused to be sent to storage.
pub fn written(pid: Pid) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).expect("io");
    text.lines().find_map(|line| line.strip_prefix("write_bytes: ")).and_then(|n| n.parse().ok()).unwrap_or_default()
}

/// Every file below a folder with its size and the time of its last change.
pub fn stamps(folder: &Path) -> Vec<(String, u64, i64, i64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
        if meta.is_dir() {
            all.extend(stamps(&entry.path()));
        }
        all.push((entry.path().display().to_string(), meta.len(), meta.mtime(), meta.mtime_nsec()));
    }
    all.sort();
    all
}

/// True for an executable without a dynamic loader that is not position independent: the product (decision 22).
pub fn is_product(path: &Path) -> bool {
    const EXEC: u16 = 2;
    const INTERP: u32 = 3;
    let bytes = fs::read(path).expect("the executable");
    let half = |at: usize| bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]));
    let word = |at: usize| bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let is_64 = bytes.get(..5).is_some_and(|head| head == b"\x7fELF\x02");
    // 64-bit: e_phoff at 32, e_phentsize at 54, e_phnum at 56.
    let headers = (0..usize::from(half(56))).map(|n| word(32) as usize + n * usize::from(half(54)));
    is_64 && half(16) == EXEC && headers.into_iter().all(|at| word(at) != INTERP)
}
