//! Configuration files: JSON with Nomad's keys -> settings of a [`Draft`]. Pure but for [`read`].
//!
//! The table of [`keys`] says which keys exist and what form they have; [`set`] says what those that mean
//! something here do. A block may also be a list of objects, as HCL's JSON form writes it.
//! Bounds: [`FILES_MAX`] files of [`FILE_BYTES_MAX`]; nesting is serde_json's 128.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::flags::parse_bool;
use super::keys::{self, Form, Key, Use};
use super::merge::{Draft, absolute, authority, header_name, header_value, host, hosts, level, port, port_ranges};
use super::nearest::nearest;
use super::{ConfigError, ERRORS_MAX, Fault};
use crate::wire::go_text;
use dunlin_hal::facts::parse::core_list;

/// Longest configuration file, bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most configuration files.
pub const FILES_MAX: usize = 64;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// Its path.
    pub name: String,
    /// What it holds.
    pub text: String,
}

/// Reads files and folders in the order named. Of a folder the `.json` files by name; `.hcl` files are faults, because
/// leaving them out would silently change what the operator asked for. Source: Nomad 1.10.5 `LoadConfigDir`.
pub fn read<'a>(paths: impl IntoIterator<Item = &'a str>) -> Result<Vec<Text>, ConfigError> {
    let mut texts = Vec::new();
    for path in paths {
        let unreadable = |error: std::io::Error| fault(path, "", Fault::Unreadable { why: error.to_string() });
        if !fs::metadata(path).map_err(unreadable)?.is_dir() {
            texts.push(read_file(path)?);
            continue;
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(path).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_config = name.ends_with(".json") || name.ends_with(".hcl");
            if is_config && !name.starts_with(".#") && !entry.path().is_dir() {
                names.push(entry.path().to_string_lossy().into_owned());
            }
            if names.len() > FILES_MAX {
                return Err(fault(path, "", Fault::TooLarge));
            }
        }
        names.sort_unstable();
        for name in names {
            texts.push(read_file(&name)?);
        }
    }
    if texts.len() > FILES_MAX { Err(fault("-config", "", Fault::TooLarge)) } else { Ok(texts) }
}

fn read_file(path: &str) -> Result<Text, ConfigError> {
    if Path::new(path).extension().is_some_and(|extension| extension == "hcl") {
        return Err(fault(path, "", Fault::Hcl));
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| fault(path, "", Fault::Unreadable { why: error.to_string() }))?;
    if u64::try_from(bytes.len()).is_ok_and(|len| len > FILE_BYTES_MAX) {
        return Err(fault(path, "", Fault::TooLarge));
    }
    let text = String::from_utf8(bytes).map_err(|_| fault(path, "", Fault::Syntax { why: "not UTF-8".to_owned() }))?;
    Ok(Text { name: path.to_owned(), text })
}

/// Applies one file to the draft. Faults are added to `errors`; what is right is applied all the same.
pub(super) fn apply(draft: &mut Draft, text: &Text, errors: &mut Vec<ConfigError>) {
    let mut walk = Walk { file: &text.name, draft, errors };
    match serde_json::from_str(&text.text) {
        Ok(value) => walk.block("", "", &value, false),
        Err(error) => walk.fault("", Fault::Syntax { why: error.to_string() }),
    }
}

fn fault(source: &str, path: &str, fault: Fault) -> ConfigError {
    ConfigError { source: source.to_owned(), path: path.to_owned(), fault }
}

/// A walk through one file.
struct Walk<'a> {
    file: &'a str,
    draft: &'a mut Draft,
    errors: &'a mut Vec<ConfigError>,
}

impl Walk<'_> {
    fn fault(&mut self, path: &str, what: Fault) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(fault(self.file, path, what));
        }
    }

    /// One block. `table` is its name in the table, `shown` its path in the file; they differ by labels.
    /// `idle`: a block around it is already named in the warning.
    fn block(&mut self, table: &str, shown: &str, value: &Value, idle: bool) {
        for object in self.objects(shown, value) {
            for (asked, value) in object {
                let path = join(shown, asked);
                match keys::keys(table).find(|key| key.name.eq_ignore_ascii_case(asked)) {
                    Some(key) => self.key(key, &join(table, key.name), &path, value, idle),
                    None => self.fault(&path, Fault::Unknown { nearest: suggest(table, shown, asked) }),
                }
            }
        }
    }

    fn key(&mut self, key: Key, table: &str, path: &str, value: &Value, idle: bool) {
        if key.used == Use::Idle && !idle {
            self.draft.idle(path);
        }
        let idle = idle || key.used == Use::Idle;
        match key.form {
            Form::Block => self.block(table, path, value, idle),
            Form::Labels => {
                for object in self.objects(path, value) {
                    for (label, value) in object {
                        let (table, path) = (keys::labelled(table, label), join(path, label));
                        // Such as a plugin we do not have: named once, by its label.
                        let foreign = table.ends_with('*') && !idle;
                        if foreign {
                            self.draft.idle(&path);
                        }
                        self.block(&table, &path, value, idle || foreign);
                    }
                }
            }
            form => {
                let done = match given(form, value) {
                    Ok(Some(given)) if !idle => set(self.draft, table, self.file, given),
                    other => other.map(drop),
                };
                if let Err(expected) = done {
                    self.fault(path, Fault::Wrong { found: shorten(value), expected });
                }
            }
        }
    }

    /// The objects of a block: itself, or the members of a list.
    fn objects<'v>(&mut self, path: &str, value: &'v Value) -> Vec<&'v serde_json::Map<String, Value>> {
        let found: Option<Vec<_>> = match value {
            Value::Array(items) => items.iter().map(Value::as_object).collect(),
            other => other.as_object().map(|object| vec![object]),
        };
        found.unwrap_or_else(|| {
            self.fault(path, Fault::Wrong { found: shorten(value), expected: "an object" });
            Vec::new()
        })
    }
}

fn join(block: &str, name: &str) -> String {
    if block.is_empty() { name.to_owned() } else { format!("{block}.{name}") }
}

/// The key that was probably meant: a near one of the same block, else one of that very name elsewhere, else the nearest.
fn suggest(table: &str, shown: &str, asked: &str) -> String {
    let near = nearest(asked, keys::keys(table).map(|key| key.name));
    let elsewhere = keys::blocks_with(asked).find(|block| !block.contains('*'));
    match (near, elsewhere) {
        (Some((_, edits)), Some(block)) if edits > 2 => join(block, &asked.to_ascii_lowercase()),
        (Some((name, _)), _) => join(shown, name),
        (None, _) => String::new(),
    }
}

/// What stands in the file, short enough for an error.
pub(super) fn shorten(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => quote(text),
        other => other.to_string(),
    }
}

/// A text in quotes, cut after 40 characters.
pub(super) fn quote(text: &str) -> String {
    let cut: String = text.chars().take(40).collect();
    if cut.len() < text.len() { format!("{cut:?}...") } else { format!("{cut:?}") }
}

/// A value of the form the table asks for.
enum Given {
    Text(String),
    Number(u64),
    Share(f64),
    Truth(bool),
    Texts(Vec<String>),
    Words(Vec<(String, String)>),
}

/// Reads a value. `None` = unset: Nomad takes an empty string for that. Err = what was expected.
fn given(form: Form, value: &Value) -> Result<Option<Given>, &'static str> {
    let some = match form {
        Form::Text => text(value).map(Given::Text).ok_or("a string")?,
        Form::Number => {
            let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
            Given::Number(number.ok_or("a whole number, 0 or more")?)
        }
        Form::Share => Given::Share(value.as_f64().ok_or("a number")?),
        Form::Truth => {
            let truth = value.as_bool().or_else(|| value.as_str().and_then(parse_bool));
            Given::Truth(truth.ok_or("true or false")?)
        }
        Form::Texts => {
            let items = value.as_array().ok_or("a list of strings")?;
            Given::Texts(items.iter().map(text).collect::<Option<_>>().ok_or("a list of strings")?)
        }
        Form::Words => Given::Words(words(value).ok_or("an object whose values are strings")?),
        Form::Any | Form::Block | Form::Labels => return Ok(None),
    };
    Ok(Some(some).filter(|given| !matches!(given, Given::Text(text) if text.is_empty())))
}

/// A string; a number stands for its digits, as in HCL.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The pairs of an object, or of a list of objects.
fn words(value: &Value) -> Option<Vec<(String, String)>> {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| Some((key.clone(), text(value)?))).collect(),
        Value::Array(items) => Some(items.iter().map(words).collect::<Option<Vec<_>>>()?.into_iter().flatten().collect()),
        _ => None,
    }
}

/// A number that fits its field.
fn fit<T: TryFrom<u64>>(number: u64) -> Result<T, &'static str> {
    T::try_from(number).map_err(|_| "a smaller number")
}

/// A percentage.
fn percent(share: f64) -> Result<f64, &'static str> {
    Some(share).filter(|share| (0.0..=100.0).contains(share)).ok_or("a percentage from 0 to 100")
}

/// A duration as Go writes it.
fn span(text: &str) -> Result<core::time::Duration, &'static str> {
    let ns = go_text::parse_duration(text).ok().and_then(|ns| u64::try_from(ns).ok());
    ns.map(core::time::Duration::from_nanos).ok_or("a duration such as 30s or 1h30m")
}

/// A list of core ids such as `0-3,6`.
fn cores(text: &str) -> Result<Vec<u16>, &'static str> {
    let cores = core_list(text.as_bytes());
    if cores.is_empty() { Err("core ids such as 0-2,7") } else { Ok(cores) }
}

/// What the keys that mean something here do. `path` is the table's spelling; Err = what was expected.
fn set(draft: &mut Draft, path: &str, file: &str, given: Given) -> Result<(), &'static str> {
    use Given::{Number, Share, Text, Texts, Truth, Words};
    let config = &mut draft.config;
    match (path, given) {
        ("region", Text(text)) => config.region = text,
        ("datacenter", Text(text)) => config.datacenter = text,
        ("name", Text(text)) => config.node_name = text,
        ("data_dir", Text(text)) => config.data_dir = absolute(&text)?,
        ("log_level", Text(text)) => config.log_level = level(&text)?,
        ("bind_addr", Text(text)) => draft.bind = host(&text)?,
        ("enable_debug", Truth(on)) => config.enable_debug = on,
        ("http_api_response_headers", Words(words)) => {
            for (name, value) in words {
                config.http.headers.insert(header_name(name)?, header_value(value)?);
            }
        }
        ("ports.http", Number(port)) => draft.port = u16::try_from(port).map_err(|_| "a port from 0 to 65535")?,
        ("addresses.http", Text(text)) => draft.listen = hosts(&text)?,
        ("advertise.http", Text(text)) => draft.advertise = Some(authority(&text)?),
        ("limits.http_max_conns_per_client", Number(n)) => config.http.conns_per_client_max = Some(fit(n)?),
        ("edge.boot_loop_damping", Truth(on)) => config.is_boot_loop_damped = on,
        ("edge.runtime_dir", Text(text)) => config.runtime_base = absolute(&text)?,
        ("edge.reserve.cpu_percent", Number(n)) => config.own_need.cpu_percent = Some(n).filter(|n| *n <= 100).ok_or("a percentage")?,
        ("edge.reserve.memory_mb", Number(n)) => config.own_need.memory_mb = n,
        ("edge.reserve.disk_mb", Number(n)) => config.own_need.disk_mb = n,

        // This agent is always a client; the opposite wish is told as one without meaning.
        ("client.enabled", Truth(true)) => {}
        ("client.enabled", Truth(false)) => draft.idle("client.enabled"),
        ("client.state_dir", Text(text)) => config.state_dir = absolute(&text)?,
        ("client.alloc_dir", Text(text)) => config.alloc_dir = absolute(&text)?,
        ("client.node_class", Text(text)) => config.node_class = text,
        ("client.node_pool", Text(text)) => config.node_pool = text,
        ("client.network_interface", Text(text)) => config.network_interface = Some(text),
        ("client.reservable_cores", Text(text)) => config.reservable_cores = Some(cores(&text)?),
        ("client.max_kill_timeout", Text(text)) => config.max_kill_timeout = span(&text)?,
        ("client.gc_interval", Text(text)) => config.gc.interval = span(&text)?,
        ("client.network_speed", Number(n)) => config.network_speed_mbits = fit(n)?,
        ("client.cpu_total_compute", Number(n)) => config.cpu_total_mhz = n,
        ("client.memory_total_mb", Number(n)) => config.memory_total_mb = n,
        ("client.disk_total_mb", Number(n)) => config.disk_total_mb = n,
        ("client.disk_free_mb", Number(n)) => config.disk_free_mb = n,
        ("client.min_dynamic_port", Number(n)) => draft.dynamic_port_min = port(n)?,
        ("client.max_dynamic_port", Number(n)) => draft.dynamic_port_max = port(n)?,
        ("server.eval_gc_threshold", Text(text)) => config.gc.eval_age = span(&text)?,
        ("server.deployment_gc_threshold", Text(text)) => config.gc.deployment_age = span(&text)?,
        ("server.job_gc_threshold", Text(text)) => config.gc.job_age = span(&text)?,
        ("client.gc_max_allocs", Number(n)) => config.gc.allocs_max = Some(fit(n)?).filter(|n| *n > 0),
        ("client.gc_disk_usage_threshold", Share(share)) => config.gc.disk_percent = percent(share)?,
        ("client.gc_inode_usage_threshold", Share(share)) => config.gc.inode_percent = percent(share)?,
        ("client.servers" | "client.server_join.start_join" | "client.server_join.retry_join", Texts(texts)) => {
            config.servers.extend(texts);
        }
        ("client.options", Words(words)) => {
            for (name, value) in words {
                draft.option(&name, &value)?;
            }
        }
        ("client.meta", Words(words)) => config.meta.extend(words),
        ("client.reserved.cpu", Number(n)) => config.reserved.cpu_mhz = n,
        ("client.reserved.memory", Number(n)) => config.reserved.memory_mb = n,
        ("client.reserved.disk", Number(n)) => config.reserved.disk_mb = n,
        ("client.reserved.cores", Text(text)) => config.reserved.cores = cores(&text)?,
        ("client.reserved.reserved_ports", Text(text)) => {
            config.reserved.port_ranges = port_ranges(&text)?;
            config.reserved.ports = text;
        }
        ("plugin.raw_exec.config.enabled", Truth(on)) => draft.raw_exec = Some(on),
        ("acl.enabled", Truth(on)) => draft.protection(path, file, on),
        ("tls.http", Truth(on)) => draft.tls.on = on,
        ("tls.verify_https_client", Truth(on)) => draft.tls.is_client_verified = on,
        ("tls.ca_file", Text(text)) => draft.tls.ca = text,
        ("tls.cert_file", Text(text)) => draft.tls.cert = text,
        ("tls.key_file", Text(text)) => draft.tls.key = text,
        // The table and this match are held together by a test.
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
