//! Against what Nomad says of the same pairs (`tests/fixtures/diff`; how it was recorded is told in `peer.go` there).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Change, DesiredUpdates, FieldDiff, JobDiff, ObjectDiff, annotate, diff};
use crate::model::job::Job;

const JOBS: &str = include_str!("../../../../tests/fixtures/diff/jobs.json");
const PAIRS: &str = include_str!("../../../../tests/fixtures/diff/pairs.ndjson");
const NOMAD: &str = include_str!("../../../../tests/fixtures/diff/nomad-1.10.0.txt");

/// Fields of v1.10.0 that a job here has no word for, by their block: Nomad shows them as zeros.
const UNKNOWN: &[(&str, &str)] = &[
    ("group", "PreventRescheduleOnLost"),
    ("Artifact", "Chown"),
    ("Artifact", "GetterInsecure"),
    ("Check", "FailuresBeforeWarning"),
    ("Check", "Notes"),
    ("Check", "TLSServerName"),
    ("Consul", "Cluster"),
    ("Consul", "Partition"),
    ("Resources", "SecretsMB"),
    ("RestartPolicy", "RenderTemplates"),
    ("Service", "Cluster"),
    ("Service", "Namespace"),
    ("Static Port", "IgnoreCollision"),
    ("Template", "ErrMissingKey"),
    ("Volume", "Sticky"),
    ("VolumeMount", "SELinuxLabel"),
];

/// A diff as the recording holds it.
fn text(diff: &JobDiff) -> String {
    fn line(out: &mut String, depth: usize, change: Change, words: &str) {
        let mark = match change {
            Change::None => '=',
            Change::Added => '+',
            Change::Deleted => '-',
            Change::Edited => '~',
        };
        writeln!(out, "{:depth$}{mark}{}", "", words.trim_end()).unwrap();
    }
    fn inner(out: &mut String, depth: usize, fields: &[FieldDiff], objects: &[ObjectDiff]) {
        for FieldDiff { r#type, name, old, new, annotations } in fields {
            let quote = |text: &str| json!(text).to_string();
            let new = if old == new { String::new() } else { quote(new) };
            line(out, depth, *r#type, &format!("{} {} {new} {}", quote(name), quote(old), annotations.join(" ")));
        }
        for object in objects {
            line(out, depth, object.r#type, object.name);
            inner(out, depth + 1, &object.fields, &object.objects);
        }
    }
    let mut out = String::new();
    line(&mut out, 0, diff.r#type, &format!("job {}", diff.id));
    inner(&mut out, 1, &diff.fields, &diff.objects);
    for group in &diff.task_groups {
        let updates = group.updates.as_ref().map(|updates| json!(updates).to_string()).unwrap_or_default();
        line(&mut out, 1, group.r#type, &format!("group {} {updates}", group.name));
        inner(&mut out, 2, &group.fields, &group.objects);
        for task in &group.tasks {
            line(&mut out, 2, task.r#type, &format!("task {} {}", task.name, task.annotations.join(" ")));
            inner(&mut out, 3, &task.fields, &task.objects);
        }
    }
    out
}

/// What Nomad said, without the zeros of unknown fields.
fn known(said: &str) -> String {
    let mut within: Vec<&str> = Vec::new();
    let mut known = String::new();
    for line in said.lines() {
        let words = line.trim_start();
        within.truncate(line.len() - words.len());
        let words = words.get(1..).unwrap_or_default();
        if !words.starts_with('"') {
            within.push(if words.starts_with("group ") { "group" } else { words });
        }
        let is_zero = || words.split(' ').skip(1).all(|word| matches!(word, r#""""# | r#""false""# | r#""0""#));
        let is_unknown = UNKNOWN
            .iter()
            .any(|(block, field)| within.last() == Some(block) && words.split(' ').next() == Some(&format!("\"{field}\"")) && is_zero());
        if !is_unknown {
            known.push_str(line);
            known.push('\n');
        }
    }
    known
}

/// A normal form with values put in by pointer.
fn job(form: &Value, edit: &Value) -> Job {
    let mut form = form.clone();
    for (pointer, value) in edit.as_object().into_iter().flatten() {
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        match form.pointer_mut(parent).unwrap() {
            Value::Object(entries) => _ = entries.insert(member.to_owned(), value.clone()),
            parent => parent[member.parse::<usize>().unwrap()] = value.clone(),
        }
    }
    Job::from_json(form.to_string().as_bytes()).unwrap()
}

fn updates(row: &Value) -> BTreeMap<String, DesiredUpdates> {
    let count = |updates: &Value, of: &str| updates[of].as_u64().unwrap_or(0);
    let all = row["updates"].as_object().into_iter().flatten();
    all.map(|(group, updates)| {
        let count = |of| count(updates, of);
        let updates = DesiredUpdates {
            ignore: count("Ignore"),
            place: count("Place"),
            migrate: count("Migrate"),
            stop: count("Stop"),
            in_place_update: count("InPlaceUpdate"),
            destructive_update: count("DestructiveUpdate"),
            canary: count("Canary"),
            preemptions: count("Preemptions"),
        };
        (group.clone(), updates)
    })
    .collect()
}

/// A recorded pair.
struct Pair {
    name: String,
    old: Option<Job>,
    new: Job,
    updates: BTreeMap<String, DesiredUpdates>,
}

fn rows() -> impl Iterator<Item = Value> {
    PAIRS.lines().map(|row| serde_json::from_str(row).unwrap())
}

impl Pair {
    fn new(row: &Value, jobs: &Value) -> Self {
        Self {
            name: row["name"].as_str().unwrap().to_owned(),
            old: row["old"].as_str().map(|name| job(&jobs[name], &Value::Null)),
            new: job(&jobs[row["new"].as_str().or(row["old"].as_str()).unwrap()], &row["edit"]),
            updates: updates(row),
        }
    }

    fn annotated(&self, is_back: bool) -> JobDiff {
        let (old, new) = (self.old.as_ref(), Some(&self.new));
        let mut diff = if is_back { diff(new, old, true) } else { diff(old, new, true) }.unwrap();
        annotate(&mut diff, &self.updates);
        diff
    }
}

/// What `job plan` would answer to the pair of this name: the diff, and what would be done.
pub(crate) fn annotated(name: &str, is_back: bool) -> (JobDiff, BTreeMap<String, DesiredUpdates>) {
    let row = rows().find(|row| row["name"] == name).unwrap();
    let pair = Pair::new(&row, &serde_json::from_str(JOBS).unwrap());
    (pair.annotated(is_back), pair.updates)
}

#[test]
fn nomad_says_the_same() {
    let jobs: Value = serde_json::from_str(JOBS).unwrap();
    let (rows, said): (Vec<Value>, Vec<&str>) = (rows().collect(), NOMAD.split("# ").skip(1).collect());
    assert!(rows.len() == said.len() && said.len() > 90, "the recording is not of these pairs");
    for (row, said) in rows.iter().zip(said) {
        let pair = Pair::new(row, &jobs);
        let bare = diff(pair.old.as_ref(), Some(&pair.new), false).unwrap();
        let got = [text(&pair.annotated(false)), text(&pair.annotated(true)), text(&bare)].concat();
        let (name, said) = said.split_once('\n').unwrap();
        assert_eq!(name, pair.name);
        let want = known(said);
        for (got, want) in got.lines().zip(want.lines()) {
            assert_eq!(got, want, "{name}");
        }
        assert_eq!(got, want, "{name}");
    }
}

/// The members and the nulls of the wire.
#[test]
fn as_json() {
    let jobs: Value = serde_json::from_str(JOBS).unwrap();
    let old = job(&jobs["hog"], &Value::Null);
    let new = job(&jobs["hog"], &json!({"/TaskGroups/0/Count": 3, "/TaskGroups/0/Tasks/0/User": "x"}));
    let mut diff = diff(Some(&old), Some(&new), true).unwrap();
    let task = json!({"Type": "Edited", "Name": "eat", "Objects": null, "Annotations": null,
        "Fields": [{"Type": "Added", "Name": "User", "Old": "", "New": "x", "Annotations": null}]});
    let group = json!({"Type": "Edited", "Name": "g", "Objects": null, "Tasks": [task], "Updates": null,
        "Fields": [{"Type": "Edited", "Name": "Count", "Old": "1", "New": "3", "Annotations": null}]});
    let want = json!({"Type": "Edited", "ID": "hog", "Fields": null, "Objects": null, "TaskGroups": [group]});
    assert_eq!(serde_json::to_value(&diff).unwrap(), want);
    annotate(&mut diff, &BTreeMap::from([("g".to_owned(), DesiredUpdates { place: 2, ..DesiredUpdates::default() })]));
    let got = serde_json::to_value(&diff).unwrap();
    assert_eq!(got["TaskGroups"][0]["Updates"], json!({"create": 2}));
    assert_eq!(got["TaskGroups"][0]["Fields"][0]["Annotations"], json!(["forces create"]));
    assert_eq!(got["TaskGroups"][0]["Tasks"][0]["Annotations"], json!(["forces create/destroy update"]));
    let none = super::diff(None, None, true).unwrap();
    assert_eq!(serde_json::to_value(none).unwrap(), json!({"Type": "None", "ID": "", "Fields": null, "Objects": null, "TaskGroups": null}));
}
