//! Two JSON answers field by field: what a recorded agent said and what ours says (`spec/http-api.md` 12.6).
//!
//! Shape: (recorded, ours) -> the differences, each with its path. Volatile values are compared by their kind and by whether they
//! are set; ids by a mapping that must stay one to one; start delays by their bounds. Keys that only we have must be newer than the
//! recording, or empty: the recorded agent leaves empty ones out of whole objects.

use std::collections::BTreeMap;

use serde_json::Value;

/// Indexes, ns since the epoch, sizes, figures: a number in both, and zero in both or in neither.
const NUMBERS: &[&str] = &[
    "AllocModifyIndex",
    "CreateIndex",
    "CreateTime",
    "EvalCreateIndex",
    "Index",
    "JobCreateIndex",
    "JobModifyIndex",
    "JobSpecModifyIndex",
    "ModifyIndex",
    "ModifyTime",
    "SnapshotIndex",
    "SubmitTime",
    "Time",
];
/// A number in both, whatever it is.
const FIGURES: &[&str] = &["AllocationTime", "NormScore", "Size", "Timestamp", "VolumeEvalIndex", "binpack"];
/// RFC 3339 in both or null in both.
const STAMPS: &[&str] = &["FinishedAt", "LastRestart", "ModTime", "RequireProgressBy", "StartedAt", "Timestamp"];
/// Texts that name this machine.
const NAMES: &[&str] = &["NodeName"];
/// Keys of Nomad versions newer than the recording (1.1.2), and ours; they may have any value.
const NEWER: &[&str] = &[
    "AddressIPv6",
    "ConsulConstraints",
    "CreateTime",
    "DispatchIdempotencyToken",
    "EvalPriority",
    "JobSummary",
    "KnownLeader",
    "LastContact",
    "MappedFile",
    "MaxClientDisconnect",
    "MigrateDisablePlacement",
    "ModifyTime",
    "NextAllocation",
    "NextToken",
    "NoShutdownDelay",
    "NodePool",
    "NodesInPool",
    "Paused",
    "SigningKeyID",
    "TotalPercent",
    "TotalTicks",
    "Unknown",
    "Warnings",
];

/// Which of our ids stands for which recorded one.
#[derive(Default)]
pub struct Ids {
    ours: BTreeMap<String, String>,
}

impl Ids {
    pub fn bind(&mut self, theirs: &str, ours: &str) {
        self.ours.insert(theirs.to_owned(), ours.to_owned());
    }

    /// A recorded text with all known ids replaced; their first blocks too, which prefixes are made of.
    pub fn translate(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (theirs, ours) in &self.ours {
            text = text
                .replace(theirs, ours)
                .replace(&theirs[..8], &ours[..8])
                .replace(&format!("\"{}\"", &theirs[..6]), &format!("\"{}\"", &ours[..6]));
        }
        text
    }

    /// True when the two may be the same object. The first meeting binds them.
    fn agree(&mut self, theirs: &str, ours: &str) -> bool {
        if let Some(bound) = self.ours.get(theirs) {
            return bound == ours;
        }
        if self.ours.values().any(|bound| bound == ours) {
            return false;
        }
        self.bind(theirs, ours);
        true
    }
}

pub fn is_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().enumerate().all(|(i, c)| if [8, 13, 18, 23].contains(&i) { c == b'-' } else { c.is_ascii_hexdigit() })
}

fn is_stamp(text: &str) -> bool {
    text.len() >= 20 && text.as_bytes()[10] == b'T' && text[..4].bytes().all(|c| c.is_ascii_digit()) && text.ends_with('Z')
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(all) => all.is_empty(),
        Value::Object(all) => all.values().all(is_empty),
    }
}

/// `1.147248629s`, or a number of ns as text: within a second and a quarter of it more.
fn is_start_delay(text: &str) -> bool {
    let seconds = text.rsplit(' ').next().and_then(|text| text.strip_suffix('s')).and_then(|text| text.parse::<f64>().ok());
    let seconds = seconds.or_else(|| text.parse::<f64>().ok().map(|ns| ns / 1e9));
    seconds.is_some_and(|seconds| (1.0..=1.25).contains(&seconds))
}

/// Appends a line for each difference.
pub fn compare(path: &str, theirs: &Value, ours: &Value, ids: &mut Ids, found: &mut Vec<String>) {
    let key = path.rsplit('/').next().unwrap_or_default();
    let mut differ = || found.push(format!("{path}: recorded {theirs}, ours {ours}"));
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, value) in theirs {
                match ours.get(key) {
                    Some(mine) => compare(&format!("{path}/{key}"), value, mine, ids, found),
                    None => found.push(format!("{path}/{key}: recorded {value}, ours absent")),
                }
            }
            for (key, value) in ours.iter().filter(|(key, _)| !theirs.contains_key(*key)) {
                if !NEWER.contains(&key.as_str()) && !is_empty(value) {
                    found.push(format!("{path}/{key}: recorded absent, ours {value}"));
                }
            }
        }
        (Value::Array(theirs_all), Value::Array(ours_all)) => {
            if theirs_all.len() != ours_all.len() {
                return differ();
            }
            for (i, (theirs, ours)) in theirs_all.iter().zip(ours_all).enumerate() {
                compare(&format!("{path}/{i}"), theirs, ours, ids, found);
            }
        }
        (Value::Number(a), Value::Number(b)) => {
            let is_same_kind = a.is_f64() || !b.is_f64();
            let is_same = match key {
                "StartDelay" => a == b || is_start_delay(&a.to_string()) && is_start_delay(&b.to_string()),
                _ if NUMBERS.contains(&key) => is_same_kind && is_empty(theirs) == is_empty(ours),
                _ if FIGURES.contains(&key) => is_same_kind,
                _ => a == b || a.as_f64() == b.as_f64() && is_same_kind,
            };
            if !is_same {
                differ();
            }
        }
        (Value::String(a), Value::String(b)) => {
            let is_same = if is_id(a) && is_id(b) {
                ids.agree(a, b)
            } else if STAMPS.contains(&key) {
                is_stamp(a) && is_stamp(b)
            } else if NAMES.contains(&key) {
                !b.is_empty()
            } else {
                a == b || is_start_delay(a) && is_start_delay(b)
            };
            if !is_same {
                differ();
            }
        }
        _ if theirs != ours => differ(),
        _ => {}
    }
}

/// Applies `change` to every value that `path` names; `*` stands for any key or place. Gives how many there were.
pub fn at(value: &mut Value, path: &str, change: &mut dyn FnMut(&mut Value)) -> usize {
    let Some((key, rest)) =
        path.strip_prefix('/').map(|path| path.split_once('/').map_or((path, String::new()), |(key, rest)| (key, format!("/{rest}"))))
    else {
        change(value);
        return 1;
    };
    match value {
        Value::Object(all) => {
            all.iter_mut().filter(|(name, _)| key == "*" || *name == key).map(|(_, value)| at(value, &rest, change)).sum()
        }
        Value::Array(all) => {
            all.iter_mut().enumerate().filter(|(i, _)| key == "*" || i.to_string() == key).map(|(_, value)| at(value, &rest, change)).sum()
        }
        _ => 0,
    }
}
