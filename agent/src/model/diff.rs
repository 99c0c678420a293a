//! What differs between two versions of a job, as `job plan` and `job history -p` show it.
//!
//! Shape: [`diff`]`(old, new, contextual)` -> [`JobDiff`]; [`annotate`] adds what the scheduler would do about it. Pure.
//! How: both jobs as JSON in normal form, walked by one comparer (`compare`) with one table (`parts`) that says how each block is
//! named, matched with its older self and compared; a member the table does not name is a plain field.
//! Never: whether a difference replaces an allocation (`sched::compare`): the annotations repeat upstream's own, coarser rule.
//! Units: all values are text; durations are nanoseconds. Bounds: a job's own, no field is longer than its value.
//! Errors: a job that cannot be written as JSON, which none that was read by [`crate::wire::json`] is.
//! Source: upstream v1.10.0 nomad/structs/diff.go, helper/flatmap/flatmap.go, scheduler/annotate.go (behaviour only). Named
//! differences: a field this agent has no word for is not shown as its zero (`diff/tests.rs` lists them); blocks of a kind that
//! upstream leaves in no certain order come in one.

mod compare;
mod parts;

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::job::Job;

/// What became of a thing. The order is the one in which blocks of one name are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Change {
    /// It is in both and differs.
    Edited,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
    /// It is in both and the same.
    #[default]
    None,
}

impl Change {
    /// Of a thing that is in the old, the new, or both jobs.
    fn of(pair: (Option<&Value>, Option<&Value>)) -> Self {
        match pair {
            (None, Some(_)) => Self::Added,
            (Some(_), None) => Self::Deleted,
            (old, new) if old == new => Self::None,
            _ => Self::Edited,
        }
    }
}

/// Of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct JobDiff {
    /// What became of it.
    pub r#type: Change,
    /// Its id.
    #[serde(rename = "ID")]
    pub id: String,
    /// Plain fields that differ.
    #[serde(serialize_with = "or_null")]
    pub fields: Vec<FieldDiff>,
    /// Blocks that differ.
    #[serde(serialize_with = "or_null")]
    pub objects: Vec<ObjectDiff>,
    /// All groups of both versions, by name.
    #[serde(serialize_with = "or_null")]
    pub task_groups: Vec<TaskGroupDiff>,
}

/// Of a task group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskGroupDiff {
    /// What became of it.
    pub r#type: Change,
    /// Its name.
    pub name: String,
    /// Plain fields that differ.
    #[serde(serialize_with = "or_null")]
    pub fields: Vec<FieldDiff>,
    /// Blocks that differ.
    #[serde(serialize_with = "or_null")]
    pub objects: Vec<ObjectDiff>,
    /// All tasks of both versions, by name.
    #[serde(serialize_with = "or_null")]
    pub tasks: Vec<TaskDiff>,
    /// Allocations by what would be done with them; `None` until annotated.
    pub updates: Option<BTreeMap<&'static str, u64>>,
}

/// Of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct TaskDiff {
    /// What became of it.
    pub r#type: Change,
    /// Its name.
    pub name: String,
    /// Plain fields that differ.
    #[serde(serialize_with = "or_null")]
    pub fields: Vec<FieldDiff>,
    /// Blocks that differ.
    #[serde(serialize_with = "or_null")]
    pub objects: Vec<ObjectDiff>,
    /// What it makes the scheduler do.
    #[serde(serialize_with = "or_null")]
    pub annotations: Vec<&'static str>,
}

/// Of a block inside one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ObjectDiff {
    /// What became of it.
    pub r#type: Change,
    /// Of its kind, e.g. `Constraint`.
    pub name: &'static str,
    /// Plain fields that differ; when contextual all of them.
    #[serde(serialize_with = "or_null")]
    pub fields: Vec<FieldDiff>,
    /// Blocks inside it that differ.
    #[serde(serialize_with = "or_null")]
    pub objects: Vec<ObjectDiff>,
}

/// Of a plain field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct FieldDiff {
    /// What became of it; an empty text counts as absent.
    pub r#type: Change,
    /// E.g. `Count`, `Env[HOME]`, `args[0]`.
    pub name: String,
    /// Empty = absent.
    pub old: String,
    /// Empty = absent.
    pub new: String,
    /// What it makes the scheduler do.
    #[serde(serialize_with = "or_null")]
    pub annotations: Vec<&'static str>,
}

/// Upstream's nil slices.
fn or_null<T: Serialize, S: Serializer>(items: &[T], out: S) -> Result<S::Ok, S::Error> {
    if items.is_empty() { out.serialize_none() } else { items.serialize(out) }
}

/// What the scheduler would do with the allocations of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DesiredUpdates {
    /// Left alone.
    pub ignore: u64,
    /// New ones.
    pub place: u64,
    /// Moved to other nodes.
    pub migrate: u64,
    /// Stopped.
    pub stop: u64,
    /// Changed while they run.
    pub in_place_update: u64,
    /// Replaced.
    pub destructive_update: u64,
    /// Placed as canaries.
    pub canary: u64,
    /// Stopped to make room.
    pub preemptions: u64,
}

/// What differs between two versions of one job; `None` = it does not exist. `contextual` also lists the fields that are the same in
/// blocks that are not.
///
/// # Errors
/// See the module.
pub fn diff(old: Option<&Job>, new: Option<&Job>, contextual: bool) -> Result<JobDiff, serde_json::Error> {
    let document = |job: Option<&Job>| job.map(|job| serde_json::from_str(&job.to_json()?)).transpose();
    let (old_doc, new_doc): (Option<Value>, Option<Value>) = (document(old)?, document(new)?);
    let mut diff = compare::job(old_doc.as_ref(), new_doc.as_ref(), contextual);
    diff.id = new.or(old).map(|job| job.id.clone()).unwrap_or_default();
    Ok(diff)
}

/// Says at each group and task what the scheduler would do; `updates` by the group's name.
pub fn annotate(diff: &mut JobDiff, updates: &BTreeMap<String, DesiredUpdates>) {
    for group in &mut diff.task_groups {
        group.updates = updates.get(&group.name).map(|updates| {
            let counts = [
                ("ignore", updates.ignore),
                ("create", updates.place),
                ("migrate", updates.migrate),
                ("destroy", updates.stop),
                ("canary", updates.canary),
                ("in-place update", updates.in_place_update),
                ("create/destroy update", updates.destructive_update),
            ];
            counts.into_iter().filter(|(_, count)| *count > 0).collect()
        });
        if let Some(count) = group.fields.iter_mut().find(|field| field.name == "Count") {
            let number = |text: &str| text.parse::<i64>().unwrap_or(0);
            match number(&count.old).cmp(&number(&count.new)) {
                std::cmp::Ordering::Less => count.annotations.push("forces create"),
                std::cmp::Ordering::Greater => count.annotations.push("forces destroy"),
                std::cmp::Ordering::Equal => {}
            }
        }
        for task in &mut group.tasks {
            task.annotations.extend(consequence(group.r#type, task));
        }
    }
}

/// What a changed task makes the scheduler do.
fn consequence(group: Change, task: &TaskDiff) -> Option<&'static str> {
    match (group, task.r#type) {
        (_, Change::None) => return None,
        (Change::Added | Change::Deleted, Change::Added) => return Some("forces create"),
        (Change::Added | Change::Deleted, Change::Deleted) => return Some("forces destroy"),
        _ => {}
    }
    let is_harmless = |object: &ObjectDiff| match object.name {
        "Service" | "Constraint" | "Affinity" => true,
        // Contextual diffs name the field also when it is the same; upstream does not look closer.
        "LogConfig" => object.fields.iter().all(|field| field.name != "Disabled"),
        _ => false,
    };
    let in_place = task.fields.iter().all(|field| field.name == "KillTimeout") && task.objects.iter().all(is_harmless);
    Some(if in_place { "forces in-place update" } else { "forces create/destroy update" })
}

#[cfg(test)]
pub(crate) mod tests;
