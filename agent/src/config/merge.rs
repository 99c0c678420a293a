//! Defaults, files and flags in this order -> [`Draft`] -> [`Config`]. Pure.
//!
//! A draft holds what was asked for as far as it goes without knowing the machine; [`Draft::resolve`] adds what depends on
//! other settings or on the machine and checks what only the whole can show.
//! Source: decisions 24-27; Nomad 1.3.1 `DefaultConfig`, `DevConfig`.

use core::ops::RangeInclusive;
use core::time::Duration;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::file::{self, Text, quote};
use super::flags::{Flag, Parsed, parse_bool};
use super::{Config, ConfigError, ERRORS_MAX, Fault, Gc, Http, OwnNeed, Reserved, TlsFiles};

/// The flags of `agent`. Those without a help text are Nomad's without meaning here: accepted and named in the warning.
pub const AGENT_FLAGS: &[Flag] = &[
    Flag::switch("dev", "Try it out: temporary folders, raw_exec on, everything stopped and removed at the end"),
    Flag::value("config", "file or folder", "JSON configuration with Nomad's keys; may be given more than once"),
    Flag::value("data-dir", "path", "Where state is kept (default /var/lib/dunlin)"),
    Flag::value("http", "host:port", "Where HTTP listens (default 127.0.0.1:4646); also unix:///path; may be given more than once"),
    Flag::value("bind", "address", "Address of HTTP when -http does not name one"),
    Flag::value("node", "name", "Name of this node (default: the host's name)"),
    Flag::value("node-class", "class", "Class of this node"),
    Flag::value("node-pool", "pool", "Pool of this node"),
    Flag::value("meta", "key=value", "Metadata of this node; may be given more than once"),
    Flag::value("region", "region", "Region (default global)"),
    Flag::value("dc", "datacenter", "Datacenter (default dc1)"),
    Flag::value("log-level", "level", "TRACE, DEBUG, INFO, WARN or ERROR (default INFO; DEBUG with -dev)"),
    Flag::value("alloc-dir", "path", "Where allocations are (default alloc below the data folder)"),
    Flag::value("state-dir", "path", "Where the node's identity is (default client below the data folder)"),
    Flag::value("network-interface", "name", "Interface for tasks' ports (default: that of the default route)"),
    Flag::value("network-speed", "Mbit/s", "Speed of that interface"),
    Flag::value("servers", "list", "Nomad servers, separated by commas"),
    Flag::switch("client", ""),
    Flag::switch("server", ""),
    Flag::switch("log-json", ""),
    Flag::switch("log-include-location", ""),
    Flag::switch("rejoin", ""),
    Flag::switch("acl-enabled", ""),
    Flag::value("plugin-dir", "path", ""),
    Flag::value("join", "address", ""),
    Flag::value("retry-join", "address", ""),
    Flag::value("retry-max", "n", ""),
    Flag::value("retry-interval", "duration", ""),
    Flag::value("bootstrap-expect", "n", ""),
    Flag::value("encrypt", "key", ""),
    Flag::value("cni-path", "path", ""),
    Flag::value("cni-config-dir", "path", ""),
    Flag::value("alloc-mounts-dir", "path", ""),
];

/// What the configuration needs to know of the machine and the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The host's name.
    pub hostname: String,
    /// The effective user is root.
    pub is_root: bool,
    /// `XDG_RUNTIME_DIR`; `None` = unset.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// A fresh folder, made when [`Draft::wants_temporary`].
    pub temporary: Option<PathBuf>,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Listen {
    Host(IpAddr),
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// The block `tls` as far as it means something here; paths as written, empty = none.
#[derive(Clone, Debug, Default)]
pub(super) struct Tls {
    pub(super) on: bool,
    pub(super) is_client_verified: bool,
    pub(super) ca: String,
    pub(super) cert: String,
    pub(super) key: String,
}

impl Tls {
    /// The files of the server, when it is to speak TLS; files that nothing asks for mean nothing.
    fn files(self, errors: &mut Vec<ConfigError>) -> Option<TlsFiles> {
        if !self.on {
            return None;
        }
        let mut need = |path: &str, text: &str, why: &'static str| {
            if text.is_empty() {
                errors.push(wrong("configuration", path, "nothing", why));
            }
        };
        need("tls.cert_file", &self.cert, "a PEM file, as tls.http is true");
        need("tls.key_file", &self.key, "a PEM file, as tls.http is true");
        if self.is_client_verified {
            need("tls.ca_file", &self.ca, "a PEM file, as tls.verify_https_client is true");
        }
        let client_ca = self.is_client_verified.then(|| PathBuf::from(self.ca));
        Some(TlsFiles { cert: self.cert.into(), key: self.key.into(), client_ca })
    }
}

/// Settings before they are put together.
#[derive(Clone, Debug)]
pub struct Draft {
    /// What needs no putting together. Empty paths and names are filled in by [`Draft::resolve`].
    pub(super) config: Config,
    pub(super) bind: IpAddr,
    pub(super) port: u16,
    pub(super) listen: Vec<Listen>,
    /// Host and, when given, port.
    pub(super) advertise: Option<(String, Option<u16>)>,
    pub(super) dynamic_port_min: u16,
    pub(super) dynamic_port_max: u16,
    /// The driver's own setting, then that of the older `client.options`.
    pub(super) raw_exec: Option<bool>,
    raw_exec_option: Option<bool>,
    /// Nomad's keys without meaning here, in the order met.
    idle: Vec<String>,
    pub(super) tls: Tls,
    /// (key, file) that ask for a protection this version does not give.
    protection: Vec<(String, String)>,
}

/// Most names in the warning.
const IDLE_MAX: usize = 64;

impl Draft {
    fn new(dev: bool) -> Self {
        let config = Config {
            dev,
            temporary: None,
            region: "global".to_owned(),
            datacenter: "dc1".to_owned(),
            node_name: String::new(),
            node_class: String::new(),
            node_pool: "default".to_owned(),
            meta: Default::default(),
            data_dir: PathBuf::new(),
            state_dir: PathBuf::new(),
            alloc_dir: PathBuf::new(),
            runtime_base: PathBuf::new(),
            http: Http::default(),
            log_level: if dev { log::LevelFilter::Debug } else { log::LevelFilter::Info },
            enable_debug: dev,
            raw_exec: false,
            network_interface: None,
            network_speed_mbits: 0,
            cpu_total_mhz: 0,
            memory_total_mb: 0,
            disk_total_mb: 0,
            disk_free_mb: 0,
            reservable_cores: None,
            reserved: Reserved::default(),
            own_need: OwnNeed { cpu_percent: 5, memory_mb: 16, disk_mb: 64 },
            dynamic_ports: 20_000..=32_000,
            is_boot_loop_damped: false,
            max_kill_timeout: Duration::from_secs(30),
            gc: Gc {
                interval: Duration::from_secs(if dev { 600 } else { 300 }),
                disk_percent: if dev { 99.0 } else { 80.0 },
                inode_percent: if dev { 99.0 } else { 70.0 },
                allocs_max: dev.then_some(50),
                eval_age: Duration::from_secs(3_600),
                deployment_age: Duration::from_secs(3_600),
                job_age: Duration::from_secs(4 * 3_600),
            },
            env_denylist: ENV_DENYLIST.split(' ').map(str::to_owned).collect(),
            disallow_link_local: false,
            servers: Vec::new(),
            jobs: Vec::new(),
            warnings: Vec::new(),
        };
        Self {
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 4646,
            listen: Vec::new(),
            advertise: None,
            dynamic_port_min: *config.dynamic_ports.start(),
            dynamic_port_max: *config.dynamic_ports.end(),
            raw_exec: None,
            raw_exec_option: dev.then_some(true),
            idle: Vec::new(),
            tls: Tls::default(),
            protection: Vec::new(),
            config,
        }
    }

    /// A key or flag without meaning here was met.
    pub(super) fn idle(&mut self, path: &str) {
        if self.idle.len() < IDLE_MAX && !self.idle.iter().any(|known| known == path) {
            self.idle.push(path.to_owned());
        }
    }

    /// A key that asks for protection was met; a later file may take the wish back.
    pub(super) fn protection(&mut self, path: &str, file: &str, on: bool) {
        self.protection.retain(|(known, _)| known != path);
        if on {
            self.protection.push((path.to_owned(), file.to_owned()));
        }
    }

    /// One entry of `client.options`. Err = what was expected.
    pub(super) fn option(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        let truth = || parse_bool(value).ok_or("true or false as the option's value");
        match name {
            "driver.raw_exec.enable" => self.raw_exec_option = Some(truth()?),
            "fingerprint.network.disallow_link_local" => self.config.disallow_link_local = truth()?,
            "env.denylist" | "env.blacklist" => {
                self.config.env_denylist = value.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
            }
            other => self.idle(&format!("client.options.{other}")),
        }
        Ok(())
    }

    /// The interface whose facts are asked for.
    #[must_use]
    pub fn network_interface(&self) -> Option<&str> {
        self.config.network_interface.as_deref()
    }

    /// True when the caller must make a temporary folder for [`Surroundings`].
    #[must_use]
    pub fn wants_temporary(&self) -> bool {
        self.config.dev && self.config.data_dir.as_os_str().is_empty()
    }

    /// Puts the settings together.
    pub fn resolve(self, around: &Surroundings) -> Result<Config, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let Self { mut config, bind, port, listen, advertise, dynamic_port_min, dynamic_port_max, .. } = self;

        if config.data_dir.as_os_str().is_empty() {
            config.data_dir = match (&around.temporary, config.dev) {
                (Some(folder), true) => folder.join("data"),
                _ => PathBuf::from("/var/lib/dunlin"),
            };
            config.temporary = around.temporary.clone().filter(|_| config.dev);
        }
        let or_below = |path: &Path, name: &str| if path.as_os_str().is_empty() { config.data_dir.join(name) } else { path.to_owned() };
        config.state_dir = or_below(&config.state_dir, "client");
        config.alloc_dir = or_below(&config.alloc_dir, "alloc");
        if config.runtime_base.as_os_str().is_empty() {
            config.runtime_base = match (&around.xdg_runtime_dir, around.is_root) {
                (_, true) => PathBuf::from("/run/dunlin"),
                (Some(folder), false) if folder.is_absolute() => folder.join("dunlin"),
                _ => config.data_dir.join("run"),
            };
        }
        if config.node_name.is_empty() {
            config.node_name.clone_from(&around.hostname);
        }
        if config.node_name.is_empty() {
            errors.push(wrong("command line", "-node", "no name, and the host has none", "a name for this node"));
        }

        if dynamic_port_min > dynamic_port_max {
            let found = format!("{dynamic_port_min} above {dynamic_port_max}");
            errors.push(wrong("configuration", "client.min_dynamic_port", &found, "at most client.max_dynamic_port"));
        }
        config.dynamic_ports = dynamic_port_min..=dynamic_port_max;
        config.raw_exec = self.raw_exec.or(self.raw_exec_option).unwrap_or(false);

        for one in if listen.is_empty() { vec![Listen::Host(bind)] } else { listen } {
            match one {
                Listen::Host(ip) => config.http.tcp.push(SocketAddr::new(ip, port)),
                Listen::Tcp(address) => config.http.tcp.push(address),
                Listen::Unix(path) => config.http.unix = Some(path),
            }
        }
        config.http.advertise = advertise.map(|(host, own_port)| match host.contains(':') {
            true => format!("[{host}]:{}", own_port.unwrap_or(port)),
            false => format!("{host}:{}", own_port.unwrap_or(port)),
        });

        config.http.tls = self.tls.files(&mut errors);
        let open: Vec<String> = config.http.tcp.iter().filter(|address| !address.ip().is_loopback()).map(ToString::to_string).collect();
        for (path, source) in &self.protection {
            match open.first() {
                Some(address) => {
                    let fault = Fault::Unprotected { address: address.clone() };
                    errors.push(ConfigError { source: source.clone(), path: path.clone(), fault });
                }
                None => {
                    config.warnings.push(format!("{source}: {path} is not enforced by this version; HTTP listens on this machine only"))
                }
            }
        }
        let is_client_verified = config.http.tls.as_ref().is_some_and(|files| files.client_ca.is_some());
        if !open.is_empty() && !is_client_verified {
            let open = open.join(", ");
            config
                .warnings
                .push(format!("HTTP listens on {open} without access control: whoever reaches it can run programs on this machine"));
        }
        if !config.servers.is_empty() {
            let servers = config.servers.join(", ");
            config.warnings.push(format!("this version does not join servers yet; {servers} will not hear of this node"));
        }
        if !self.idle.is_empty() {
            config.warnings.push(format!("settings of Nomad that have no meaning here and are ignored: {}", self.idle.join(", ")));
        }
        errors.truncate(ERRORS_MAX);
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }
}

/// Variables of the agent's environment that hold secrets. Source: `spec/runtime.md` 3.3.
const ENV_DENYLIST: &str = "CONSUL_TOKEN CONSUL_HTTP_TOKEN CONSUL_HTTP_TOKEN_FILE NOMAD_TOKEN VAULT_TOKEN CONSUL_LICENSE \
    NOMAD_LICENSE VAULT_LICENSE CONSUL_LICENSE_PATH NOMAD_LICENSE_PATH VAULT_LICENSE_PATH AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY \
    AWS_SESSION_TOKEN AWS_METADATA_URL GOOGLE_APPLICATION_CREDENTIALS GOOGLE_OAUTH_ACCESS_TOKEN";

/// Defaults, then `files`, then `flags` (read by [`AGENT_FLAGS`]); all faults at once.
pub fn draft(files: &[Text], flags: &Parsed) -> Result<Draft, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let mut draft = Draft::new(flags.on("dev"));
    for text in files {
        file::apply(&mut draft, text, &mut errors);
    }
    if flags.value("http").is_some() {
        draft.listen.clear();
    }
    // `-http :4646` means the bind address, so that must be known first.
    let (http, others): (Vec<_>, Vec<_>) = flags.given().partition(|(name, _)| *name == "http");
    for (name, value) in others.into_iter().chain(http) {
        if let Err(expected) = flag(&mut draft, name, value) {
            errors.push(wrong("command line", &format!("-{name}"), &quote(value), expected));
        }
    }
    draft.config.jobs = flags.args.iter().map(PathBuf::from).collect();
    errors.truncate(ERRORS_MAX);
    if errors.is_empty() { Ok(draft) } else { Err(errors) }
}

/// One flag. Err = what was expected.
fn flag(draft: &mut Draft, name: &str, value: &str) -> Result<(), &'static str> {
    let config = &mut draft.config;
    match name {
        "dev" | "config" | "client" => {}
        "data-dir" => config.data_dir = absolute(value)?,
        "alloc-dir" => config.alloc_dir = absolute(value)?,
        "state-dir" => config.state_dir = absolute(value)?,
        "bind" => {
            draft.bind = host(value)?;
            // The flag is newer than a file's `addresses.http` (in Nomad the file wins; here flags do).
            draft.listen.clear();
        }
        "http" if draft.listen.len() >= LISTEN_MAX => return Err("at most eight addresses"),
        "http" => draft.listen.push(authority_or_socket(value, draft.bind)?),
        "node" => value.clone_into(&mut config.node_name),
        "node-class" => value.clone_into(&mut config.node_class),
        "node-pool" => value.clone_into(&mut config.node_pool),
        "region" => value.clone_into(&mut config.region),
        "dc" => value.clone_into(&mut config.datacenter),
        "log-level" => config.log_level = level(value)?,
        "network-interface" => config.network_interface = Some(value.to_owned()),
        "network-speed" => config.network_speed_mbits = value.parse().map_err(|_| "a whole number")?,
        "servers" => config.servers = value.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect(),
        "meta" => {
            let (key, value) = value.split_once('=').ok_or("key=value")?;
            config.meta.insert(key.to_owned(), value.to_owned());
        }
        "acl-enabled" => draft.protection("-acl-enabled", "command line", value == "true"),
        idle => draft.idle(&format!("-{idle}")),
    }
    Ok(())
}

fn wrong(source: &str, path: &str, found: &str, expected: &'static str) -> ConfigError {
    ConfigError { source: source.to_owned(), path: path.to_owned(), fault: Fault::Wrong { found: found.to_owned(), expected } }
}

/// An absolute path.
pub(super) fn absolute(text: &str) -> Result<PathBuf, &'static str> {
    Some(PathBuf::from(text)).filter(|path| path.is_absolute()).ok_or("an absolute path")
}

/// A level of Nomad's.
pub(super) fn level(text: &str) -> Result<log::LevelFilter, &'static str> {
    let level = text.parse::<log::Level>().map_err(|_| "TRACE, DEBUG, INFO, WARN or ERROR")?;
    Ok(level.to_level_filter())
}

/// An IP address, with or without brackets, or `localhost`.
pub(super) fn host(text: &str) -> Result<IpAddr, &'static str> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare == "localhost" { Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { bare.parse().map_err(|_| "an IP address or localhost") }
}

/// Most addresses to listen on.
const LISTEN_MAX: usize = 8;

/// Hosts and `unix:///path`, separated by spaces.
pub(super) fn hosts(text: &str) -> Result<Vec<Listen>, &'static str> {
    let one = |word: &str| if word.starts_with(UNIX) { socket(word) } else { host(word).map(Listen::Host) };
    let hosts: Vec<Listen> = text.split_ascii_whitespace().map(one).collect::<Result<_, _>>()?;
    if (1..=LISTEN_MAX).contains(&hosts.len()) { Ok(hosts) } else { Err("one to eight addresses") }
}

const UNIX: &str = "unix://";

/// `unix:///path`.
fn socket(text: &str) -> Result<Listen, &'static str> {
    let path = text.strip_prefix(UNIX).unwrap_or_default();
    // The kernel's bound for the name of a socket, without its NUL.
    if path.len() > 107 { Err("a socket path of at most 107 bytes") } else { absolute(path).map(Listen::Unix) }
}

/// `host:port`, `:port` (at the bind address) or `unix:///path`.
fn authority_or_socket(text: &str, bind: IpAddr) -> Result<Listen, &'static str> {
    let expected = "host:port with an IP address or localhost, or unix:///path";
    if text.starts_with(UNIX) {
        return socket(text);
    }
    let (name, port) = text.rsplit_once(':').ok_or(expected)?;
    let port = port.parse().map_err(|_| expected)?;
    let ip = if name.is_empty() { bind } else { host(name).map_err(|_| expected)? };
    // `::1:80` would be an address, not an address with a port.
    if name.contains(':') && !name.starts_with('[') { Err(expected) } else { Ok(Listen::Tcp(SocketAddr::new(ip, port))) }
}

/// A name or address for others, with or without a port.
pub(super) fn authority(text: &str) -> Result<(String, Option<u16>), &'static str> {
    let expected = "a name or address, with or without a port";
    if let Ok(ip) = host(text) {
        return Ok((ip.to_string(), None));
    }
    let (name, port) = text.rsplit_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    let port = port.map(str::parse).transpose().map_err(|_| expected)?;
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    let is_name = !bare.is_empty() && bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if is_name || bare.parse::<IpAddr>().is_ok() { Ok((bare.to_owned(), port)) } else { Err(expected) }
}

/// A port a task can have.
pub(super) fn port(number: u64) -> Result<u16, &'static str> {
    u16::try_from(number).ok().filter(|port| *port > 0).ok_or("a port from 1 to 65535")
}

/// Ports and ranges such as `22,8500-8600`; at most 256 of them.
pub(super) fn port_ranges(text: &str) -> Result<Vec<RangeInclusive<u16>>, &'static str> {
    let expected = "ports such as 22,8500-8600";
    let number = |text: &str| text.trim().parse().ok().and_then(|number| port(number).ok()).ok_or(expected);
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = number(first)?..=number(last)?;
        if range.is_empty() { Err(expected) } else { Ok(range) }
    };
    let ranges: Vec<_> = text.split(',').map(range).collect::<Result<_, _>>()?;
    if ranges.len() <= 256 { Ok(ranges) } else { Err("at most 256 ports and ranges") }
}

/// A name that HTTP allows.
pub(super) fn header_name(name: String) -> Result<String, &'static str> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !name.is_empty() && name.bytes().all(token) { Ok(name) } else { Err("names of HTTP headers") }
}

/// A value that cannot end its line.
pub(super) fn header_value(value: String) -> Result<String, &'static str> {
    let printable = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
    if value.bytes().all(printable) { Ok(value) } else { Err("header values of printable ASCII") }
}

#[cfg(test)]
mod tests;
