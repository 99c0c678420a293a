//! What `/proc` says about processes: who their parent is, when they started, what they use. Parsing is pure and never allocates.
//!
//! Units: clock ticks as the kernel gives them in [`Stat`]; nanoseconds and bytes in [`Usage`]. Errors: a process that ended
//! meanwhile is `NotFound`; text that is not what the kernel writes is `InvalidData`.
//! Source: proc(5); `spec/runtime.md` 5.5 (column procfs).

use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;

use nix::unistd::{SysconfVar, sysconf};
use rustix::fs::{CWD, Mode, OFlags, openat};

/// `/proc/<pid>/stat`, the fields used here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `Z`, ...
    pub state: u8,
    /// Parent.
    pub ppid: u32,
    /// Session.
    pub session: u32,
    /// Time in user mode, ticks.
    pub utime: u64,
    /// Time in the kernel, ticks.
    pub stime: u64,
    /// The same of reaped children.
    pub child_utime: u64,
    /// The same of reaped children.
    pub child_stime: u64,
    /// Start after boot, ticks: with the pid the identity of a process.
    pub start: u64,
    /// Resident pages.
    pub rss_pages: u64,
}

/// Reads the line of `/proc/<pid>/stat`. The name in parentheses may hold anything, so fields are counted after the last `)`.
#[must_use]
pub fn parse_stat(line: &[u8]) -> Option<Stat> {
    let close = line.iter().rposition(|&byte| byte == b')')?;
    let mut fields = line.get(close + 1..)?.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let mut stat = Stat { state: *fields.next()?.first()?, ..Stat::default() };
    // Field numbers of proc(5); the state was number 3.
    for (number, field) in (4_u8..).zip(fields) {
        let value = parse_u64(field);
        match number {
            4 => stat.ppid = value.and_then(|v| v.try_into().ok())?,
            6 => stat.session = value.and_then(|v| v.try_into().ok()).unwrap_or(0),
            14 => stat.utime = value?,
            15 => stat.stime = value?,
            16 => stat.child_utime = value.unwrap_or(0),
            17 => stat.child_stime = value.unwrap_or(0),
            22 => stat.start = value?,
            24 => {
                stat.rss_pages = value.unwrap_or(0);
                return Some(stat);
            }
            _ => {}
        }
    }
    None
}

/// Digits only; `None` for anything else and for numbers beyond 64 bits.
#[must_use]
pub fn parse_u64(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, &digit| {
        let digit = char::from(digit).to_digit(10)?;
        sum.checked_mul(10)?.checked_add(digit.into())
    })
}

/// `/proc/<pid>/stat` of one process. Never allocates.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn stat(pid: u32) -> io::Result<Stat> {
    let mut buffer = [0; 1024];
    parse_stat(read_proc(pid, "stat", &mut buffer)?).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The beginning of `/proc/<pid>/<file>`.
fn read_proc<'a>(pid: u32, file: &str, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let mut path = heapless::String::<48>::new();
    write!(path, "/proc/{pid}/{file}").map_err(|_| io::ErrorKind::InvalidInput)?;
    let fd = openat(CWD, path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut len = 0;
    while let Some(room) = buffer.get_mut(len..).filter(|room| !room.is_empty()) {
        match rustix::io::read(&fd, room)? {
            0 => break,
            n => len += n,
        }
    }
    Ok(buffer.get(..len).unwrap_or(&[]))
}

/// Calls `f` with each piece of a file between bytes for which `is_separator` holds. Reads from the beginning, never allocates, holds
/// no more than 1 KiB; a longer piece is an error.
///
/// # Errors
/// The file cannot be read, or has a longer piece.
pub fn for_each_piece(fd: impl AsFd, is_separator: impl Fn(&u8) -> bool, mut f: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = [0; 1024];
    let (mut kept, mut at) = (0, 0);
    loop {
        let n = match buffer.get_mut(kept..) {
            Some(room) if !room.is_empty() => rustix::io::pread(&fd, room, at)?,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        at += u64::try_from(n).unwrap_or(u64::MAX);
        let len = kept + n;
        let text = buffer.get(..len).unwrap_or(&[]);
        // The last piece may be cut by the end of the buffer: it is kept for the next round.
        let whole = if n == 0 { len } else { text.iter().rposition(&is_separator).map_or(0, |last| last + 1) };
        for piece in text.get(..whole).unwrap_or(&[]).split(&is_separator).filter(|piece| !piece.is_empty()) {
            f(piece);
        }
        if n == 0 {
            return Ok(());
        }
        buffer.copy_within(whole..len, 0);
        kept = len - whole;
    }
}

/// Calls `f` with each pid of a list of numbers (`cgroup.procs`, `children`). 0 stands for a process of another pid namespace.
///
/// # Errors
/// As [`for_each_piece`].
pub fn for_each_pid(fd: impl AsFd, mut f: impl FnMut(u32)) -> io::Result<()> {
    for_each_piece(fd, u8::is_ascii_whitespace, |piece| {
        if let Some(pid) = parse_u64(piece).and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid > 0) {
            f(pid);
        }
    })
}

/// The number after `key ` in an open file of `key value` lines. Never allocates.
#[must_use]
pub fn counter(fd: impl AsFd, key: &[u8]) -> Option<u64> {
    let mut found = None;
    for_each_piece(
        fd,
        |&byte| byte == b'\n',
        |line| {
            if let Some(value) = line.strip_prefix(key).and_then(|rest| rest.strip_prefix(b" ")) {
                found = parse_u64(value);
            }
        },
    )
    .ok()?;
    found
}

/// What one process, or several together, use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Swapped out, bytes.
    pub swap_bytes: u64,
    /// Time in user mode, reaped children included, nanoseconds.
    pub user_ns: u64,
    /// Time in the kernel, reaped children included, nanoseconds.
    pub system_ns: u64,
}

impl Usage {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            rss_bytes: self.rss_bytes.saturating_add(other.rss_bytes),
            swap_bytes: self.swap_bytes.saturating_add(other.swap_bytes),
            user_ns: self.user_ns.saturating_add(other.user_ns),
            system_ns: self.system_ns.saturating_add(other.system_ns),
        }
    }
}

/// What one process uses now.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn usage(pid: u32) -> io::Result<Usage> {
    let stat = stat(pid)?;
    let mut buffer = [0; 2048];
    // Kernel threads and zombies have no memory lines: no swap then.
    let swap_kb = read_proc(pid, "status", &mut buffer).ok().and_then(|text| status_kb(text, b"VmSwap:")).unwrap_or(0);
    Ok(Usage {
        rss_bytes: stat.rss_pages.saturating_mul(page_bytes()),
        swap_bytes: swap_kb.saturating_mul(1024),
        user_ns: ticks_ns(stat.utime.saturating_add(stat.child_utime)),
        system_ns: ticks_ns(stat.stime.saturating_add(stat.child_stime)),
    })
}

/// A `Name:   123 kB` line of `/proc/<pid>/status`.
fn status_kb(text: &[u8], name: &[u8]) -> Option<u64> {
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name))?;
    parse_u64(line.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())?)
}

/// Clock ticks in nanoseconds.
#[must_use]
pub fn ticks_ns(ticks: u64) -> u64 {
    ticks.saturating_mul(1_000_000_000 / system_number(SysconfVar::CLK_TCK, 100))
}

/// Bytes of a page of memory.
#[must_use]
pub fn page_bytes() -> u64 {
    system_number(SysconfVar::PAGE_SIZE, 4096)
}

fn system_number(which: SysconfVar, default: u64) -> u64 {
    sysconf(which).ok().flatten().and_then(|value| u64::try_from(value).ok()).filter(|&value| value > 0).unwrap_or(default)
}

/// All processes below `root` (children, their children, ...), without `root` itself.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn descendants(root: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for_each_process(|pid| {
        if let Ok(stat) = stat(pid) {
            parents.push((pid, stat.ppid));
        }
    })?;
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|&&(pid, ppid)| ppid == parent && pid != root).map(|&(pid, _)| pid));
        next += 1;
        // A listing taken while processes move could in theory loop; there are never more descendants than processes.
        if found.len() > parents.len() + 1 {
            break;
        }
    }
    found.remove(0);
    Ok(found)
}

/// Calls `f` with the pid of each process.
///
/// # Errors
/// `/proc` cannot be listed.
pub fn for_each_process(mut f: impl FnMut(u32)) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            f(pid);
        }
    }
    Ok(())
}

/// True when the environment `pid` was started with holds all of `wanted` (each `KEY=value`).
#[must_use]
pub fn has_environment(pid: u32, wanted: &[String]) -> bool {
    let Ok(bytes) = std::fs::read(format!("/proc/{pid}/environ")) else { return false };
    wanted.iter().all(|want| bytes.split(|&byte| byte == 0).any(|entry| entry == want.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let line = b"4242 (a) b (c)) S 17 4242 99 0 -1 4194560 100 0 0 0 250 50 7 3 20 0 1 0 987654 1000 33 184467 1 1 0 0 0\n";
        let want = Stat {
            state: b'S',
            ppid: 17,
            session: 99,
            utime: 250,
            stime: 50,
            child_utime: 7,
            child_stime: 3,
            start: 987_654,
            rss_pages: 33,
        };
        assert_eq!(parse_stat(line), Some(want));
        for bad in [&b""[..], b"1 (x", b"1 (x) ", b"1 (x) S", b"1 (x) S a b c", &line[..80]] {
            assert_eq!(parse_stat(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn numbers() {
        for (text, want) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("-1", None),
            ("1 ", None),
        ] {
            assert_eq!(parse_u64(text.as_bytes()), want, "{text}");
        }
    }

    #[test]
    fn status_lines() {
        assert_eq!(status_kb(b"Name:\tx\nVmSwap:\t   12 kB\n", b"VmSwap:"), Some(12));
        assert_eq!(status_kb(b"Name:\tx\n", b"VmSwap:"), None);
        assert_eq!(status_kb(b"VmSwap:\n", b"VmSwap:"), None);
    }

    #[test]
    fn this_process_is_a_descendant_of_its_parent() {
        let me = std::process::id();
        let parent = stat(me).expect("own stat").ppid;
        assert!(descendants(parent).expect("list").contains(&me));
        // Not our own: an emulator that runs this test shows that as 0.
        assert!(usage(parent).expect("usage").rss_bytes > 0);
        assert!(stat(u32::MAX).is_err());
    }
}
