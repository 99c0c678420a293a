//! The kernel's text files, read. Pure: bytes -> values; nothing here opens a file.
//!
//! Every function takes whatever the file held: broken, foreign or cut-off text gives an absent value, never a panic.
//! Bound: results are capped by [`CORES_MAX`]. Source: proc(5), sysfs, os-release(5); `spec/runtime.md` 8.

use super::{CORES_MAX, Memory, Os};

/// The lines of a file that are text.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &str> {
    bytes.split(|&byte| byte == b'\n').filter_map(|line| core::str::from_utf8(line).ok())
}

/// The first line, trimmed; empty when it is no text.
#[must_use]
pub fn word(bytes: &[u8]) -> &str {
    lines(bytes).next().unwrap_or_default().trim()
}

/// The first line as a number.
#[must_use]
pub fn number<T: core::str::FromStr>(bytes: &[u8]) -> Option<T> {
    word(bytes).parse().ok()
}

/// A device tree string: ends with NUL.
#[must_use]
pub fn tree_string(bytes: &[u8]) -> &str {
    word(bytes.split(|&byte| byte == 0).next().unwrap_or_default())
}

/// Go's name for the architecture of a build with pointers of `pointer_bits` that runs on `machine` (`uname -m`).
/// A 32-bit build on a 64-bit kernel sees the kernel's machine, but is and runs the 32-bit kind.
#[must_use]
pub fn go_arch(machine: &str, pointer_bits: u32) -> &str {
    match (machine, pointer_bits) {
        ("x86_64", 64) => "amd64",
        ("x86_64" | "i386" | "i486" | "i586" | "i686", _) => "386",
        ("aarch64", 64) => "arm64",
        ("aarch64", _) => "arm",
        (other, _) if other.starts_with("arm") => "arm",
        (other, _) => other,
    }
}

/// A list of cores such as `0-3,6`.
#[must_use]
pub fn core_list(bytes: &[u8]) -> Vec<u16> {
    let mut cores = Vec::new();
    for range in word(bytes).split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            cores.extend((first..=last).take(CORES_MAX.saturating_sub(cores.len())));
        }
    }
    cores.sort_unstable();
    cores.dedup();
    cores
}

/// The value of a line `name: value` or `name<tab>: value`.
fn field<'a>(bytes: &'a [u8], name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.split_once(':').filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
    lines(bytes).find_map(value).filter(|value| !value.is_empty())
}

/// The cores a process may run on, from its `status`.
#[must_use]
pub fn allowed_cores(status: &[u8]) -> Vec<u16> {
    field(status, "Cpus_allowed_list").map(|list| core_list(list.as_bytes())).unwrap_or_default()
}

/// The processor's name in `cpuinfo`. x86 and 32-bit ARM tell `model name` (`ARMv7 Processor rev 4 (v7l)`), older ARM
/// kernels `Processor`, then the board in `Model` or `Hardware`; 64-bit ARM often tells nothing.
#[must_use]
pub fn cpu_model(cpuinfo: &[u8]) -> &str {
    ["model name", "Processor", "Model", "Hardware"].iter().find_map(|name| field(cpuinfo, name)).unwrap_or_default()
}

/// MHz of a frequency in kHz; `None` for 0 and nonsense.
#[must_use]
pub fn khz_as_mhz(bytes: &[u8]) -> Option<u32> {
    let mhz = number::<u64>(bytes)? / 1000;
    u32::try_from(mhz).ok().filter(|mhz| (1..100_000).contains(mhz))
}

/// Time one core has spent since boot, clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreTimes {
    /// The kernel's number.
    pub id: u16,
    /// Programs.
    pub user: u64,
    /// Kernel.
    pub system: u64,
    /// Idle.
    pub idle: u64,
    /// Everything, idle included.
    pub total: u64,
}

/// The cores of `/proc/stat`. Guest time is part of user time there and is not added again.
#[must_use]
pub fn core_times(stat: &[u8]) -> Vec<CoreTimes> {
    lines(stat).filter_map(core_line).take(CORES_MAX).collect()
}

/// `cpuN user nice system idle iowait irq softirq steal guest guest_nice`; old kernels have fewer columns.
fn core_line(line: &str) -> Option<CoreTimes> {
    let mut columns = line.strip_prefix("cpu")?.split_ascii_whitespace();
    let id = columns.next()?.parse().ok().filter(|_| !line.starts_with("cpu "))?;
    let mut times = [0_u64; 8];
    for (time, column) in times.iter_mut().zip(columns) {
        *time = column.parse().ok()?;
    }
    let total = times.iter().fold(0_u64, |sum, time| sum.saturating_add(*time));
    Some(CoreTimes { id, user: times[0], system: times[2], idle: times[3], total })
}

/// Memory from `meminfo`. Before 3.14 the kernel does not tell what is available: free memory and caches stand for it.
/// `used` is what Nomad's library (gopsutil 3) calls so: without buffers, page cache and reclaimable slabs.
#[must_use]
pub fn memory(meminfo: &[u8]) -> Option<Memory> {
    let bytes = |name| Some(field(meminfo, name)?.strip_suffix(" kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024));
    let total = bytes("MemTotal").filter(|total| *total > 0)?;
    let free = bytes("MemFree").unwrap_or(0);
    let caches = ["Buffers", "Cached", "SReclaimable"].iter().filter_map(|name| bytes(name)).fold(0, u64::saturating_add);
    let idle = free.saturating_add(caches).min(total);
    Some(Memory { total, available: bytes("MemAvailable").unwrap_or(idle).min(total), used: total - idle, free })
}

/// Name and version of the distribution from `os-release`.
#[must_use]
pub fn os_release(bytes: &[u8]) -> Os {
    let value = |name: &str| {
        let line = lines(bytes).find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
    };
    Os { name: value("ID"), version: value("VERSION_ID") }
}

/// A UUID with or without hyphens.
#[must_use]
pub fn uuid(bytes: &[u8]) -> Option<[u8; 16]> {
    let mut digits = word(bytes).chars().filter(|digit| *digit != '-').map(|digit| digit.to_digit(16));
    let mut id = [0_u8; 16];
    for byte in &mut id {
        let (high, low) = (digits.next()??, digits.next()??);
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    digits.next().is_none().then_some(id)
}

/// The interface of the default route with the lowest metric: IPv4's (`/proc/net/route`), else IPv6's
/// (`/proc/net/ipv6_route`).
#[must_use]
pub fn default_interface<'a>(route: &'a [u8], ipv6_route: &'a [u8]) -> Option<&'a str> {
    let v4 = lines(route).filter_map(|line| {
        // Iface Destination Gateway Flags RefCnt Use Metric Mask ...
        let columns: Vec<&str> = line.split_ascii_whitespace().take(8).collect();
        let [interface, "00000000", _, flags, _, _, metric, "00000000"] = columns[..] else { return None };
        is_up(flags)?;
        Some((metric.parse::<u32>().ok()?, interface))
    });
    let v6 = lines(ipv6_route).filter_map(|line| {
        // destination length source length next-hop metric references uses flags interface
        let columns: Vec<&str> = line.split_ascii_whitespace().take(10).collect();
        let [destination, "00", _, _, _, metric, _, _, flags, interface] = columns[..] else { return None };
        is_up(flags).filter(|()| destination.bytes().all(|digit| digit == b'0'))?;
        Some((u32::from_str_radix(metric, 16).ok()?, interface))
    });
    v4.min_by_key(|(metric, _)| *metric).or_else(|| v6.min_by_key(|(metric, _)| *metric)).map(|(_, interface)| interface)
}

/// RTF_UP set and RTF_REJECT not.
fn is_up(flags: &str) -> Option<()> {
    let flags = u32::from_str_radix(flags, 16).ok()?;
    (flags & 0x0201 == 0x0001).then_some(())
}

/// Seconds since boot, rounded down.
#[must_use]
pub fn uptime_s(bytes: &[u8]) -> Option<u64> {
    word(bytes).split(['.', ' ']).next()?.parse().ok()
}

/// The `some avg10=` figure of a pressure file, percent.
#[must_use]
pub fn pressure(bytes: &[u8]) -> Option<f64> {
    let some = lines(bytes).find_map(|line| line.strip_prefix("some "))?;
    let avg10 = some.split(' ').find_map(|pair| pair.strip_prefix("avg10="))?;
    avg10.parse().ok().filter(|share| (0.0..=100.0).contains(share))
}

#[cfg(test)]
mod tests;
