//! The comparer: two JSON documents and the table of their parts in, differences out.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::parts::{GROUP, GROUP_SKIP, How, JOB, JOB_SKIP, MAPS, Match, Part, TASK, TASK_SKIP};
use super::{Change, FieldDiff, JobDiff, ObjectDiff, TaskDiff, TaskGroupDiff};

/// A thing in the old and in the new job.
type Pair<'v> = (Option<&'v Value>, Option<&'v Value>);
/// Fields by name; empty = absent.
type Fields = BTreeMap<String, String>;

pub(super) fn job(old: Option<&Value>, new: Option<&Value>, contextual: bool) -> JobDiff {
    let mut diff = JobDiff { r#type: Change::of(old, new), ..JobDiff::default() };
    diff.fields = plain_fields((old, new), JOB_SKIP);
    diff.objects = objects((old, new), JOB, contextual);
    diff.objects.retain(|object| object.r#type != Change::None);
    diff.task_groups = named((old, new), "TaskGroups").map(|(name, pair)| group(name, pair, contextual)).collect();
    // What is not shown does not count: most versions differ in their indexes.
    let shows_nothing = diff.fields.is_empty() && diff.objects.is_empty();
    if diff.r#type == Change::Edited && shows_nothing && diff.task_groups.iter().all(|group| group.r#type == Change::None) {
        diff.r#type = Change::None;
    }
    diff
}

fn group(name: String, pair: Pair<'_>, contextual: bool) -> TaskGroupDiff {
    let mut skip = GROUP_SKIP.to_vec();
    // Upstream shows the delay of a group only where both versions have the group.
    if pair.0.is_none() || pair.1.is_none() {
        skip.push("ShutdownDelay");
    }
    TaskGroupDiff {
        r#type: Change::of(pair.0, pair.1),
        name,
        fields: plain_fields(pair, &skip),
        objects: objects(pair, GROUP, contextual),
        tasks: named(pair, "Tasks").map(|(name, pair)| task(name, pair, contextual)).collect(),
        updates: None,
    }
}

fn task(name: String, pair: Pair<'_>, contextual: bool) -> TaskDiff {
    TaskDiff {
        r#type: Change::of(pair.0, pair.1),
        name,
        fields: plain_fields(pair, TASK_SKIP),
        objects: objects(pair, TASK, contextual),
        annotations: Vec::new(),
    }
}

/// The groups or tasks of both, by name.
fn named<'v>((old, new): Pair<'v>, member: &'static str) -> impl Iterator<Item = (String, Pair<'v>)> {
    let key = |item: &Value| at(Some(item), "Name").and_then(Value::as_str).unwrap_or_default().to_owned();
    by_key(items(at(old, member)), items(at(new, member)), key).into_iter()
}

/// A member that is there.
fn at<'v>(value: Option<&'v Value>, member: &str) -> Option<&'v Value> {
    value?.get(member).filter(|value| !value.is_null())
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The differing blocks of one thing, part by part.
fn objects((old, new): Pair<'_>, parts: &'static [Part], contextual: bool) -> Vec<ObjectDiff> {
    parts.iter().flat_map(|part| objects_of((at(old, part.member), at(new, part.member)), part, contextual)).collect()
}

fn objects_of(pair: Pair<'_>, part: &'static Part, contextual: bool) -> Vec<ObjectDiff> {
    // Upstream keeps the bounds of a group's count out of the context.
    let contextual = contextual && part.name != "Scaling";
    let (by, inner) = match &part.how {
        How::Texts => return texts(pair, part.name, contextual).into_iter().collect(),
        How::Leaves => return block(pair, part, &[], &leaves, contextual).into_iter().collect(),
        How::Joined => return block(pair, part, &[], &joined, contextual).into_iter().collect(),
        How::Plain(by) => (by, None),
        How::Blocks(by, inner) => (by, Some(*inner)),
    };
    let scalars = |value: &Value| scalars(value, part.skip);
    let mut diffs: Vec<ObjectDiff> = pairs(pair, by)
        .into_iter()
        .filter_map(|pair| match inner {
            None => plain(pair, part.name, &scalars, contextual),
            Some(inner) => block(pair, part, inner, &scalars, contextual),
        })
        .collect();
    diffs.sort_by(order);
    diffs
}

/// A block of plain fields.
fn plain(pair: Pair<'_>, name: &'static str, flat: &dyn Fn(&Value) -> Fields, contextual: bool) -> Option<ObjectDiff> {
    let mut fields = flatten(pair, flat);
    if name == "LogConfig" {
        // Written only when set, and false where it is not.
        let (old, new) = &mut fields;
        [old, new].into_iter().filter(|fields| !fields.is_empty()).for_each(|fields| {
            fields.entry("Disabled".to_owned()).or_insert_with(|| false.to_string());
        });
    }
    let fields = field_diffs(fields, contextual);
    let has = |change| fields.iter().any(|field| field.r#type == change);
    let r#type = match (has(Change::Added), has(Change::Deleted), has(Change::Edited)) {
        (false, false, false) => return None,
        (true, false, false) => Change::Added,
        (false, true, false) => Change::Deleted,
        _ => Change::Edited,
    };
    Some(ObjectDiff { r#type, name, fields, objects: Vec::new() })
}

/// A block that may hold others.
fn block(
    pair: Pair<'_>,
    part: &'static Part,
    inner: &'static [Part],
    flat: &dyn Fn(&Value) -> Fields,
    contextual: bool,
) -> Option<ObjectDiff> {
    let r#type = Change::of(pair.0, pair.1);
    (r#type != Change::None).then(|| ObjectDiff {
        r#type,
        name: part.name,
        fields: field_diffs(flatten(pair, flat), contextual),
        objects: objects(pair, inner, contextual),
    })
}

/// A set of texts.
fn texts((old, new): Pair<'_>, name: &'static str, contextual: bool) -> Option<ObjectDiff> {
    let set = |value| items(value).iter().filter_map(Value::as_str).collect::<BTreeSet<&str>>();
    let (old, new) = (set(old), set(new));
    let mut fields: Vec<FieldDiff> = old
        .union(&new)
        .filter_map(|text| {
            let side = |set: &BTreeSet<&str>| set.get(text).copied().unwrap_or_default().to_owned();
            field(name.to_owned(), side(&old), side(&new), contextual)
        })
        .collect();
    fields.sort_by(|a, b| (&a.old, &a.new).cmp(&(&b.old, &b.new)));
    let r#type = match (new.is_subset(&old), old.is_subset(&new)) {
        (true, true) => Change::None,
        (false, true) => Change::Added,
        (true, false) => Change::Deleted,
        (false, false) => Change::Edited,
    };
    (!fields.is_empty()).then(|| ObjectDiff { r#type, name, fields, objects: Vec::new() })
}

/// Which old block became which new one.
fn pairs<'v>((old, new): Pair<'v>, by: &Match) -> Vec<Pair<'v>> {
    match by {
        Match::Only if old.is_none() && new.is_none() => Vec::new(),
        Match::Only => vec![(old, new)],
        Match::Key(member) => {
            let key = |item: &Value| match at(Some(item), member) {
                Some(Value::String(text)) if !text.is_empty() => text.clone(),
                _ => item.to_string(),
            };
            by_key(items(old), items(new), key).into_values().collect()
        }
        Match::Entry => {
            let names: BTreeSet<&String> = [old, new].into_iter().flatten().filter_map(Value::as_object).flat_map(Map::keys).collect();
            names.into_iter().map(|name| (at(old, name), at(new, name))).collect()
        }
        Match::Place => {
            let (old, new) = (items(old), items(new));
            (0..old.len().max(new.len())).map(|i| (old.get(i), new.get(i))).collect()
        }
        Match::Likest { by_place, members } => likest(items(old), items(new), *by_place, members),
    }
}

/// The last of equals counts.
fn by_key<'v>(old: &'v [Value], new: &'v [Value], key: impl Fn(&Value) -> String) -> BTreeMap<String, Pair<'v>> {
    let mut pairs: BTreeMap<String, Pair<'v>> = BTreeMap::new();
    old.iter().for_each(|item| pairs.entry(key(item)).or_default().0 = Some(item));
    new.iter().for_each(|item| pairs.entry(key(item)).or_default().1 = Some(item));
    pairs
}

/// Blocks without a name of their own: the old ones choose in their order, each the likest that is left.
fn likest<'v>(old: &'v [Value], new: &'v [Value], by_place: bool, members: &[(&str, u8)]) -> Vec<Pair<'v>> {
    if let ([old], [new]) = (old, new) {
        return vec![(Some(old), Some(new))];
    }
    let mut left: Vec<Option<&Value>> = new.iter().map(Some).collect();
    let mut pairs: Vec<Pair<'v>> = Vec::new();
    for (i, item) in old.iter().enumerate() {
        let (mut best, mut most) = (None, 2);
        for (j, other) in left.iter_mut().enumerate() {
            let Some(value) = *other else { continue };
            let same: u8 = members.iter().filter(|(member, _)| item.get(member) == value.get(member)).map(|(_, points)| points).sum();
            let points = same + u8::from(by_place && i == j);
            if points > most {
                (best, most) = (Some(other), points);
            }
        }
        pairs.push((Some(item), best.and_then(Option::take)));
    }
    pairs.extend(left.into_iter().flatten().map(|item| (None, Some(item))));
    pairs
}

fn plain_fields(pair: Pair<'_>, skip: &[&str]) -> Vec<FieldDiff> {
    field_diffs(flatten(pair, &|value| scalars(value, skip)), false)
}

fn flatten((old, new): Pair<'_>, flat: &dyn Fn(&Value) -> Fields) -> (Fields, Fields) {
    (old.map(flat).unwrap_or_default(), new.map(flat).unwrap_or_default())
}

/// The plain fields of a block, and its maps of texts.
fn scalars(value: &Value, skip: &[&str]) -> Fields {
    let mut fields = Fields::new();
    for (member, value) in value.as_object().into_iter().flatten().filter(|(member, _)| !skip.contains(&member.as_str())) {
        match value {
            Value::Object(entries) if MAPS.contains(&member.as_str()) => {
                let texts = entries.iter().filter_map(|(key, value)| Some((format!("{member}[{key}]"), text(value)?)));
                fields.extend(texts);
            }
            _ => fields.extend(text(value).map(|text| (member.clone(), text))),
        }
    }
    fields
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// All that a document holds, by path.
fn leaves(value: &Value) -> Fields {
    fn add(path: &str, value: &Value, fields: &mut Fields) {
        match value {
            Value::Object(entries) if path.is_empty() => entries.iter().for_each(|(key, value)| add(key, value, fields)),
            Value::Object(entries) => entries.iter().for_each(|(key, value)| add(&format!("{path}[{key}]"), value, fields)),
            Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| add(&format!("{path}[{i}]"), item, fields)),
            // Upstream reads every number in a document as a float.
            Value::Number(number) => _ = fields.insert(path.to_owned(), float(number.as_f64().unwrap_or_default())),
            Value::Null => _ = fields.insert(path.to_owned(), "nil".to_owned()),
            Value::Bool(_) | Value::String(_) => fields.extend(text(value).map(|text| (path.to_owned(), text))),
        }
    }
    let mut fields = Fields::new();
    add("", value, &mut fields);
    fields
}

/// As Go prints a float (`%v`): with an exponent from a million up and below a ten-thousandth.
fn float(number: f64) -> String {
    let text = format!("{number:e}");
    let Some((digits, exponent)) = text.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse::<i32>().ok()?))) else {
        return text;
    };
    match exponent {
        -4..6 => number.to_string(),
        _ => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs()),
    }
}

/// Lists of texts that are not empty, each as one.
fn joined(value: &Value) -> Fields {
    let lists = value.as_object().into_iter().flatten().map(|(member, list)| (member.clone(), items(Some(list))));
    lists
        .filter(|(_, list)| !list.is_empty())
        .map(|(member, list)| (member, list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")))
        .collect()
}

fn field_diffs((mut old, mut new): (Fields, Fields), contextual: bool) -> Vec<FieldDiff> {
    let names: BTreeSet<String> = old.keys().chain(new.keys()).cloned().collect();
    let mut take = |name: &str| (old.remove(name).unwrap_or_default(), new.remove(name).unwrap_or_default());
    names
        .into_iter()
        .filter_map(|name| {
            let (old, new) = take(&name);
            field(name, old, new, contextual)
        })
        .collect()
}

fn field(name: String, old: String, new: String, contextual: bool) -> Option<FieldDiff> {
    let r#type = match (old.is_empty(), new.is_empty()) {
        _ if old == new => Change::None,
        (true, _) => Change::Added,
        (_, true) => Change::Deleted,
        _ => Change::Edited,
    };
    (contextual || r#type != Change::None).then(|| FieldDiff { r#type, name, old, new, annotations: Vec::new() })
}

/// Blocks of one list: by what became of them, the smaller first, then by what is in them.
fn order(a: &ObjectDiff, b: &ObjectDiff) -> Ordering {
    fn rank(diff: &ObjectDiff) -> (&str, Change, usize, usize) {
        (diff.name, diff.r#type, diff.fields.len(), diff.objects.len())
    }
    fn fields(diff: &ObjectDiff) -> impl Iterator<Item = (&String, &String, &String)> {
        diff.fields.iter().map(|field| (&field.name, &field.old, &field.new))
    }
    let inner = || a.objects.iter().zip(&b.objects).map(|(a, b)| order(a, b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal);
    rank(a).cmp(&rank(b)).then_with(|| fields(a).cmp(fields(b))).then_with(inner)
}
