//! What the operator wants: files and flags become one [`Config`] value that is passed down. Nothing else reads them.
//!
//! Shape: words -> [`flags::parse`] -> [`file::read`] (the only reads) -> [`merge::draft`] -> [`Draft::resolve`](merge::Draft)
//! -> [`Config`]. All but the reading is pure: text in, value or errors out.
//! Order: defaults (those of `-dev` if asked for), files as named, flags. Errors: all of them at once, each with file, path,
//! what was found and what would be right.
//! Source: decisions 24-27; Nomad's `command/agent/config.go` at 1.3.1 and 1.10.5 for key names and their meaning.

use core::fmt;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

pub mod file;
pub mod flags;
pub mod keys;
pub mod merge;
pub mod nearest;

/// The configuration of one agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `-dev`: temporary folders, raw_exec and debug endpoints on, tasks stop with the agent (decision 27).
    pub dev: bool,
    /// The folder to remove at the end; only in `-dev` without a data folder of the operator's.
    pub temporary: Option<PathBuf>,
    /// Region; default `global`.
    pub region: String,
    /// Datacenter; default `dc1`.
    pub datacenter: String,
    /// Name of the node; default: the host's name.
    pub node_name: String,
    /// `client.node_class`; may be empty.
    pub node_class: String,
    /// `client.node_pool`; default `default`.
    pub node_pool: String,
    /// `client.meta`.
    pub meta: BTreeMap<String, String>,
    /// Where the store is; default `/var/lib/dunlin`. Absolute.
    pub data_dir: PathBuf,
    /// Where node id and secret are; default `client` below the data folder.
    pub state_dir: PathBuf,
    /// Where allocations are; default `alloc` below the data folder.
    pub alloc_dir: PathBuf,
    /// The folder above that of [`Config::runtime_dir`].
    pub runtime_base: PathBuf,
    /// The HTTP server.
    pub http: Http,
    /// Least important line that is logged.
    pub log_level: log::LevelFilter,
    /// Debug endpoints.
    pub enable_debug: bool,
    /// The `raw_exec` driver.
    pub raw_exec: bool,
    /// `client.network_interface`; `None` = that of the default route.
    pub network_interface: Option<String>,
    /// `client.network_speed`, Mbit/s; 0 = as detected.
    pub network_speed_mbits: u32,
    /// `client.cpu_total_compute`, MHz; 0 = as detected.
    pub cpu_total_mhz: u64,
    /// `client.memory_total_mb`; 0 = as detected.
    pub memory_total_mb: u64,
    /// `client.disk_total_mb`; 0 = as detected.
    pub disk_total_mb: u64,
    /// `client.disk_free_mb`; 0 = as detected.
    pub disk_free_mb: u64,
    /// `client.reservable_cores`; `None` = all the agent may use.
    pub reservable_cores: Option<Vec<u16>>,
    /// `client.reserved`: what tasks do not get.
    pub reserved: Reserved,
    /// `edge.reserve`: what the agent itself needs; not offered either.
    pub own_need: OwnNeed,
    /// Ports for tasks that ask for any port; default 20000 to 32000.
    pub dynamic_ports: RangeInclusive<u16>,
    /// `edge.boot_loop_damping`: tasks are started with care on a device that reboots again and again; default off.
    pub is_boot_loop_damped: bool,
    /// Longest `kill_timeout` a task gets; default 30 s.
    pub max_kill_timeout: Duration,
    /// Garbage collection.
    pub gc: Gc,
    /// Variables of the agent's environment that tasks do not get.
    pub env_denylist: Vec<String>,
    /// Refuses link-local addresses where an interface has no others.
    pub disallow_link_local: bool,
    /// Nomad servers as written, from `client.servers` and `server_join`. Empty = standalone.
    pub servers: Vec<String>,
    /// Job files named on the command line (decision 28).
    pub jobs: Vec<PathBuf>,
    /// To be logged at every start.
    pub warnings: Vec<String>,
}

/// The HTTP server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// Addresses to listen on. Port 0 = any free one.
    pub tcp: Vec<SocketAddr>,
    /// A Unix socket to listen on. Never TLS: who may open it is the file system's business.
    pub unix: Option<PathBuf>,
    /// TLS on the addresses; `None` = plain HTTP.
    pub tls: Option<TlsFiles>,
    /// `advertise.http` as `host:port`; `None` = where it listens.
    pub advertise: Option<String>,
    /// Set on each answer, unless the handler sets them (`http_api_response_headers`).
    pub headers: BTreeMap<String, String>,
    /// `limits.http_max_conns_per_client`: 0 = no limit; `None` = the board's budget.
    pub conns_per_client_max: Option<usize>,
}

/// Where the HTTP server's certificates are (`tls`), PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// `tls.cert_file`: the server's certificate and what leads to its authority.
    pub cert: PathBuf,
    /// `tls.key_file`.
    pub key: PathBuf,
    /// `tls.ca_file` with `tls.verify_https_client`: clients must show a certificate of these authorities.
    pub client_ca: Option<PathBuf>,
}

/// What tasks do not get (`client.reserved`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// MHz.
    pub cpu_mhz: u64,
    /// MB.
    pub memory_mb: u64,
    /// MB.
    pub disk_mb: u64,
    /// As written, such as `22,8500-8600`.
    pub ports: String,
    /// The same, read.
    pub port_ranges: Vec<RangeInclusive<u16>>,
    /// Core ids.
    pub cores: Vec<u16>,
}

/// What the agent needs for itself (`spec/runtime.md` 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnNeed {
    /// Share of the compute, percent.
    pub cpu_percent: u64,
    /// MB.
    pub memory_mb: u64,
    /// MB.
    pub disk_mb: u64,
}

/// Garbage collection (`spec/runtime.md` 7).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gc {
    /// Between two looks at the disk.
    pub interval: Duration,
    /// Share of the disk in use above which terminal allocations go, percent.
    pub disk_percent: f64,
    /// The same for inodes.
    pub inode_percent: f64,
    /// Terminal allocations kept; `None` = the board's budget.
    pub allocs_max: Option<usize>,
    /// `server.eval_gc_threshold`: age at which evaluations that are over, and their allocations, are forgotten; default 1 h.
    pub eval_age: Duration,
    /// `server.deployment_gc_threshold`: the same of deployments; default 1 h.
    pub deployment_age: Duration,
    /// `server.job_gc_threshold`: the same of dead jobs; default 4 h.
    pub job_age: Duration,
}

impl Config {
    /// Where the shims' folders are: one per node (decision 25), as two agents may run on one host.
    /// `node_id` is the textual id; its first eight characters name the folder.
    #[must_use]
    pub fn runtime_dir(&self, node_id: &str) -> PathBuf {
        self.runtime_base.join(node_id.get(..8).unwrap_or(node_id))
    }
}

/// Faults told at once; more are cut off.
pub const ERRORS_MAX: usize = 20;

/// One fault of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, or `command line`.
    pub source: String,
    /// The key from the top, such as `client.meta`, or the flag; empty = the whole source.
    pub path: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a key or file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The file or folder cannot be read.
    Unreadable {
        /// The system's words.
        why: String,
    },
    /// Longer than [`file::FILE_BYTES_MAX`], or more files than [`file::FILES_MAX`].
    TooLarge,
    /// An HCL file.
    Hcl,
    /// Not JSON.
    Syntax {
        /// What the reader says, with line and column.
        why: String,
    },
    /// No such key.
    Unknown {
        /// The closest one, from the top.
        nearest: String,
    },
    /// A value of the wrong form or out of range.
    Wrong {
        /// What stands there, shortened.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Protection is asked for that this version does not give, on an address others can reach.
    Unprotected {
        /// The address.
        address: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        match &self.fault {
            Fault::Unreadable { why } => write!(f, "cannot be read: {why}"),
            Fault::TooLarge => write!(f, "more than {} bytes or {} files", file::FILE_BYTES_MAX, file::FILES_MAX),
            Fault::Hcl => f.write_str("HCL is not read by this version; write the same keys as JSON"),
            Fault::Syntax { why } => write!(f, "not JSON: {why}"),
            Fault::Unknown { nearest } => write!(f, "unknown key; the nearest known one is {nearest}"),
            Fault::Wrong { found, expected } => write!(f, "found {found}, expected {expected}"),
            Fault::Unprotected { address } => write!(
                f,
                "this version cannot give that protection, so it does not listen on {address}; \
                 listen on 127.0.0.1 or a Unix socket, or take the key out"
            ),
        }
    }
}

impl core::error::Error for ConfigError {}
