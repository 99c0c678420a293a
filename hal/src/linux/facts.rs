//! Facts of the running machine, read from `/proc`, `/sys` and `/etc` below a root.
//!
//! With another root the same code reads a made-up tree, so a board's quirks are tests. The boot id is read at one path,
//! so that a test can put another file over it (decision 35). Every file is read into one bounded buffer.
//! Errors: only for boot id and memory; whatever else is missing is left empty or gets its documented default.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use nix::ifaddrs::getifaddrs;
use nix::sys::utsname::uname;

use super::volume::Mounted;
use crate::facts::parse::{self, CoreTimes};
use crate::facts::{
    CORE_MHZ_DEFAULT, CORES_MAX, Core, CoreUsage, Cpu, DISKS_MAX, Facts, FactsError, Link, Memory, Pressure, Source, Usage,
};
use crate::volume::{Space, Volume, percent};

/// Longest part of a file that is read, bytes. What follows, and a line cut by it, is not seen.
pub const FILE_BYTES_MAX: u64 = 64 << 10;

const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";
const MEMINFO: &str = "proc/meminfo";

/// Small files below a root.
#[derive(Clone, Debug)]
pub(super) struct Files {
    root: PathBuf,
}

impl Files {
    pub(super) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A path below the root; `path` is relative.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Whole lines of at most [`FILE_BYTES_MAX`].
    pub(super) fn read(&self, path: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.path(path)).ok()?;
        // A file of /sys may exist and yet refuse to be read (`speed` of a link that is down).
        let read = file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        if u64::try_from(read).is_ok_and(|read| read == FILE_BYTES_MAX) {
            let end = bytes.iter().rposition(|&byte| byte == b'\n').unwrap_or(0);
            bytes.truncate(end);
        }
        Some(bytes)
    }

    /// Like [`Files::read`]; an absent file is empty.
    fn some(&self, path: &str) -> Vec<u8> {
        self.read(path).unwrap_or_default()
    }

    /// The first of these files that has a first line.
    fn word(&self, paths: &[&str]) -> String {
        let words = paths.iter().map(|path| parse::word(&self.some(path)).to_owned());
        words.into_iter().find(|word| !word.is_empty()).unwrap_or_default()
    }

    /// A fact that must be there.
    fn required<T>(&self, path: &str, parse: impl Fn(&[u8]) -> Option<T>) -> Result<T, FactsError> {
        let bytes = self.read(path).ok_or_else(|| FactsError::Unreadable { path: self.path(path) })?;
        parse(&bytes).ok_or_else(|| FactsError::Unexpected { path: self.path(path) })
    }
}

/// The running machine.
#[derive(Debug)]
pub struct Machine {
    files: Files,
    mounted: Mounted,
    /// Processor times of the last sample; the shares told next are since then.
    before: Vec<CoreTimes>,
}

impl Machine {
    /// `root` is `/`, or a folder that holds a made-up `proc`, `sys` and `etc` (tests).
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { files: Files::new(root.clone()), mounted: Mounted::new(root), before: Vec::new() }
    }

    /// Names this boot. Alone, because a shim needs nothing else of the facts.
    pub fn boot_id(&self) -> Result<[u8; 16], FactsError> {
        self.files.required(BOOT_ID, parse::uuid)
    }

    fn memory(&self) -> Result<Memory, FactsError> {
        self.files.required(MEMINFO, parse::memory)
    }

    /// Online cores with their highest frequencies: the kernel's list, else those with statistics, else one.
    fn cores(&self) -> Vec<Core> {
        let mut ids = parse::core_list(&self.files.some("sys/devices/system/cpu/online"));
        if ids.is_empty() {
            ids = parse::core_times(&self.files.some("proc/stat")).iter().map(|core| core.id).collect();
        }
        if ids.is_empty() {
            ids.push(0);
        }
        let mhz = |id| {
            let path = format!("sys/devices/system/cpu/cpu{id}/cpufreq/cpuinfo_max_freq");
            parse::khz_as_mhz(&self.files.some(&path)).unwrap_or(CORE_MHZ_DEFAULT)
        };
        ids.into_iter().map(|id| Core { id, mhz: mhz(id) }).collect()
    }

    fn cpu(&self, board: &str) -> Cpu {
        let machine = uname().map(|name| name.machine().to_string_lossy().into_owned()).unwrap_or_default();
        let cores = self.cores();
        let mut usable = parse::allowed_cores(&self.files.some("proc/self/status"));
        usable.retain(|id| cores.iter().any(|core| core.id == *id));
        if usable.is_empty() {
            usable = cores.iter().map(|core| core.id).collect();
        }
        let model = if board.is_empty() { parse::cpu_model(&self.files.some("proc/cpuinfo")).to_owned() } else { board.to_owned() };
        Cpu { arch: parse::go_arch(&machine, usize::BITS).to_owned(), machine, model, cores, usable }
    }

    /// The interface asked for, that of the default route, else loopback.
    fn link(&self, asked: Option<&str>) -> Option<Link> {
        let (v4, v6) = (self.files.some("proc/net/route"), self.files.some("proc/net/ipv6_route"));
        let name = asked.or_else(|| parse::default_interface(&v4, &v6)).unwrap_or("lo");
        if name.contains('/') || !self.files.path(&format!("sys/class/net/{name}")).exists() {
            return None;
        }
        let of = |file: &str| self.files.some(&format!("sys/class/net/{name}/{file}"));
        let mut addresses: Vec<_> = getifaddrs()
            .map(|all| {
                all.filter(|one| one.interface_name == name)
                    .filter_map(|one| {
                        let address = one.address?;
                        let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
                        v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
                    })
                    .collect()
            })
            .unwrap_or_default();
        addresses.sort_by_key(|address: &std::net::IpAddr| address.is_ipv6());
        Some(Link {
            interface: name.to_owned(),
            mac: parse::word(&of("address")).to_owned(),
            addresses,
            speed_mbits: parse::number::<u32>(&of("speed")).filter(|speed| *speed > 0),
        })
    }

    /// File systems on devices, each device once.
    fn disks(&self) -> Vec<Space> {
        let mut mounts = self.mounted.mounts();
        mounts.retain(|mount| mount.source.starts_with("/dev/"));
        let mut seen: Vec<&str> = Vec::new();
        let mut disks = Vec::new();
        for mount in &mounts {
            if disks.len() < DISKS_MAX && !seen.contains(&mount.number.as_str()) {
                seen.push(&mount.number);
                disks.extend(self.mounted.of_mount(Some(mount), Path::new(&mount.mountpoint)));
            }
        }
        disks
    }

    /// Shares since the last sample.
    fn shares(&mut self, cores: &[Core]) -> Vec<CoreUsage> {
        let times = parse::core_times(&self.files.some("proc/stat"));
        let shares = times.iter().take(CORES_MAX).map(|now| {
            let before = self.before.iter().find(|before| before.id == now.id).copied().unwrap_or_default();
            // A core that was taken offline starts again at lower figures: then its shares are those since it is back.
            let before = if before.total <= now.total { before } else { CoreTimes::default() };
            let share = |now: u64, earlier: u64, total: u64| percent(now.saturating_sub(earlier).min(total), total);
            let total = now.total - before.total;
            let idle = share(now.idle, before.idle, total);
            CoreUsage {
                id: now.id,
                user: share(now.user, before.user, total),
                system: share(now.system, before.system, total),
                idle,
                busy: if total == 0 { 0.0 } else { 100.0 - idle },
                mhz: cores.iter().find(|core| core.id == now.id).map_or(CORE_MHZ_DEFAULT, |core| core.mhz),
            }
        });
        let shares = shares.collect();
        self.before = times;
        shares
    }
}

/// The version of Landlock the kernel offers; 0 = none.
fn landlock() -> u32 {
    let none = core::ptr::null::<u8>();
    // SAFETY: with no attributes, size 0 and flag 1 the call only tells a version; it reads and writes no memory of ours.
    let version = unsafe { nix::libc::syscall(nix::libc::SYS_landlock_create_ruleset, none, 0_usize, 1_u32) };
    u32::try_from(version).unwrap_or(0)
}

impl Source for Machine {
    fn facts(&mut self, interface: Option<&str>) -> Result<Facts, FactsError> {
        let board = parse::tree_string(&self.files.some("proc/device-tree/model")).to_owned();
        let release = self.files.read("etc/os-release").or_else(|| self.files.read("usr/lib/os-release"));
        Ok(Facts {
            cpu: self.cpu(&board),
            memory_bytes: self.memory()?.total,
            kernel: self.files.word(&["proc/sys/kernel/osrelease"]),
            os: parse::os_release(&release.unwrap_or_default()),
            hostname: self.files.word(&["proc/sys/kernel/hostname", "etc/hostname"]),
            machine_id: self.files.word(&["etc/machine-id", "var/lib/dbus/machine-id"]),
            boot_id: self.boot_id()?,
            board,
            link: self.link(interface),
            landlock: landlock(),
        })
    }

    fn usage(&mut self, alloc_dir: &Path) -> Result<Usage, FactsError> {
        let cores = self.cores();
        let pressure = |name: &str| parse::pressure(&self.files.some(&format!("proc/pressure/{name}")));
        Ok(Usage {
            memory: self.memory()?,
            uptime_s: parse::uptime_s(&self.files.some("proc/uptime")).unwrap_or(0),
            disks: self.disks(),
            alloc_dir: self.mounted.space(alloc_dir).unwrap_or_default(),
            pressure: Pressure { cpu: pressure("cpu"), memory: pressure("memory"), io: pressure("io") },
            cores: self.shares(&cores),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
