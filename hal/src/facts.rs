//! What the machine is ([`Facts`]) and how busy it is ([`Usage`]), as plain data. Decides nothing.
//!
//! Shape: [`Source`] -> values; the words of the kernel's files are read by the pure functions of [`parse`].
//! Units: bytes, MHz, percent (0..=100 per core), seconds.
//! Invariant: there is at least one core and no core has 0 MHz, whatever the kernel leaves out; otherwise a node would
//! offer no compute and no job would ever be placed.
//! Source: `spec/runtime.md` 8, `spec/http-api.md` 4.1, decision 35 (boot id).

use core::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::volume::Space;

pub mod parse;

/// Compute of a core whose frequency the kernel does not tell, MHz.
pub const CORE_MHZ_DEFAULT: u32 = 1000;

/// Cores and disks that are looked at; further ones are left out.
pub const CORES_MAX: usize = 256;
/// See [`CORES_MAX`].
pub const DISKS_MAX: usize = 16;

/// The source of facts and usage.
pub trait Source {
    /// What the machine is. `interface`: the network interface to use; `None` = that of the default route.
    fn facts(&mut self, interface: Option<&str>) -> Result<Facts, FactsError>;
    /// How busy it is. Processor shares are those since the last call, at the first call since boot.
    /// `alloc_dir` is the folder of [`Usage::alloc_dir`].
    fn usage(&mut self, alloc_dir: &Path) -> Result<Usage, FactsError>;
}

/// What the machine is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Processors.
    pub cpu: Cpu,
    /// Memory the kernel manages, bytes.
    pub memory_bytes: u64,
    /// Kernel release (`uname -r`).
    pub kernel: String,
    /// Distribution.
    pub os: Os,
    /// Host name.
    pub hostname: String,
    /// Machine id, 32 hex digits; empty when the machine has none.
    pub machine_id: String,
    /// Names this boot; another value means that no process of before is alive.
    pub boot_id: [u8; 16],
    /// The board by its device tree, such as `Raspberry Pi 3 Model B Rev 1.2`; empty where there is none.
    pub board: String,
    /// The interface for tasks' ports: the one asked for, that of the default route, else loopback.
    pub link: Option<Link>,
    /// Landlock ABI version; 0 = none.
    pub landlock: u32,
}

/// Processors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Architecture of this build as Go names it (`arm`, `arm64`, `amd64`).
    pub arch: String,
    /// Machine (`uname -m`), such as `armv7l`.
    pub machine: String,
    /// Model name; may be empty.
    pub model: String,
    /// Online cores by rising id; never empty.
    pub cores: Vec<Core>,
    /// Ids of the cores that the agent, and so its tasks, may run on; never empty.
    pub usable: Vec<u16>,
}

/// One core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// The kernel's number.
    pub id: u16,
    /// Highest frequency, MHz; never 0. Not the present one: heat would make it flap.
    pub mhz: u32,
}

/// Distribution, from `os-release`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Os {
    /// `ID`, such as `debian`.
    pub name: String,
    /// `VERSION_ID`, such as `12`.
    pub version: String,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Name, such as `eth0`.
    pub interface: String,
    /// Hardware address with colons; may be empty.
    pub mac: String,
    /// Addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// Speed, Mbit/s; `None` where the driver does not say.
    pub speed_mbits: Option<u32>,
}

/// How busy the machine is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// Memory.
    pub memory: Memory,
    /// Online cores by rising id.
    pub cores: Vec<CoreUsage>,
    /// Seconds since boot.
    pub uptime_s: u64,
    /// File systems on devices, one entry a device.
    pub disks: Vec<Space>,
    /// The file system that holds the allocations.
    pub alloc_dir: Space,
    /// Tasks stalled for lack of something.
    pub pressure: Pressure,
}

impl Usage {
    /// Compute in use, MHz.
    #[must_use]
    pub fn ticks(&self) -> f64 {
        self.cores.iter().map(CoreUsage::ticks).sum()
    }
}

/// Memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All the kernel manages.
    pub total: u64,
    /// What programs could get without swapping.
    pub available: u64,
    /// Total without free memory and caches.
    pub used: u64,
    /// Not used for anything.
    pub free: u64,
}

/// Shares of one core's time, percent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CoreUsage {
    /// The kernel's number.
    pub id: u16,
    /// In programs, without niced ones.
    pub user: f64,
    /// In the kernel.
    pub system: f64,
    /// Idle, without waiting for I/O.
    pub idle: f64,
    /// Everything but idle.
    pub busy: f64,
    /// The core's frequency as in [`Core::mhz`].
    pub mhz: u32,
}

impl CoreUsage {
    /// Compute in use, MHz.
    #[must_use]
    pub fn ticks(&self) -> f64 {
        self.busy / 100.0 * f64::from(self.mhz)
    }
}

/// Share of the last 10 s in which some task was stalled, percent; `None` where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// For a processor.
    pub cpu: Option<f64>,
    /// For memory.
    pub memory: Option<f64>,
    /// For I/O.
    pub io: Option<f64>,
}

/// A fact without which the agent cannot work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FactsError {
    /// The file cannot be read; is `/proc` mounted?
    Unreadable {
        /// The file.
        path: PathBuf,
    },
    /// The file does not say what it should.
    Unexpected {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for FactsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path } => write!(f, "cannot read {}; is /proc mounted?", path.display()),
            Self::Unexpected { path } => write!(f, "{} does not hold what the kernel documents", path.display()),
        }
    }
}

impl core::error::Error for FactsError {}
