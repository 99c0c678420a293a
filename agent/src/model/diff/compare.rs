//! The comparer: two JSON documents and the table of their parts in, differences out.
//!
//! Groups, blocks, fields and texts of a set are all matched the same way: as entries with a key ([`merge`]).

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::parts::{GROUP, GROUP_SKIP, How, JOB, JOB_SKIP, MAPS, Match, Part, TASK, TASK_SKIP};
use super::{Change, FieldDiff, JobDiff, ObjectDiff, TaskDiff, TaskGroupDiff};

/// A thing in the old and in the new job.
type Pair<'v> = (Option<&'v Value>, Option<&'v Value>);
/// Things by a key of their own.
type Entries<'v> = Vec<(String, &'v Value)>;
/// Makes the fields of a block.
type Flat = for<'v> fn(&'static Part, &'v Value) -> Entries<'v>;

pub(super) fn job(old: Option<&Value>, new: Option<&Value>, contextual: bool) -> JobDiff {
    let pair = (old, new);
    let mut diff = JobDiff { r#type: Change::of(pair), ..JobDiff::default() };
    diff.fields = plain_fields(pair, JOB_SKIP);
    diff.objects = objects(pair, JOB, contextual);
    diff.objects.retain(|object| object.r#type != Change::None);
    diff.task_groups = named(pair, "TaskGroups").into_iter().map(|(name, pair)| group(name, pair, contextual)).collect();
    // What is not shown does not count: most versions differ in their indexes.
    let shows_nothing = diff.fields.is_empty() && diff.objects.is_empty();
    if diff.r#type == Change::Edited && shows_nothing && diff.task_groups.iter().all(|group| group.r#type == Change::None) {
        diff.r#type = Change::None;
    }
    diff
}

fn group(name: String, pair: Pair<'_>, contextual: bool) -> TaskGroupDiff {
    let mut fields = plain_fields(pair, GROUP_SKIP);
    // Upstream shows the delay of a group only where both versions have the group.
    fields.retain(|field| field.name != "ShutdownDelay" || pair.0.is_some() && pair.1.is_some());
    TaskGroupDiff {
        r#type: Change::of(pair),
        name,
        fields,
        objects: objects(pair, GROUP, contextual),
        tasks: named(pair, "Tasks").into_iter().map(|(name, pair)| task(name, pair, contextual)).collect(),
        updates: None,
    }
}

fn task(name: String, pair: Pair<'_>, contextual: bool) -> TaskDiff {
    TaskDiff {
        r#type: Change::of(pair),
        name,
        fields: plain_fields(pair, TASK_SKIP),
        objects: objects(pair, TASK, contextual),
        annotations: Vec::new(),
    }
}

/// The groups or tasks of both, by name.
fn named<'v>((old, new): Pair<'v>, member: &str) -> Vec<(String, Pair<'v>)> {
    merge(keyed(at(old, member), "Name"), keyed(at(new, member), "Name"))
}

/// A member that is there.
fn at<'v>(value: Option<&'v Value>, member: &str) -> Option<&'v Value> {
    value?.get(member).filter(|value| !value.is_null())
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn members(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

/// The items of a list by the text of a member; where it is empty, by all they are.
fn keyed<'v>(list: Option<&'v Value>, member: &str) -> Entries<'v> {
    let key = |item: &Value| match item.get(member) {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        _ => item.to_string(),
    };
    items(list).iter().map(|item| (key(item), item)).collect()
}

/// Both sides by key, in its order. The last of equals counts.
fn merge<'v>(old: Entries<'v>, new: Entries<'v>) -> Vec<(String, Pair<'v>)> {
    let olds = old.into_iter().map(|(key, value)| (key, (Some(value), None)));
    let mut all: Vec<(String, Pair<'v>)> = olds.chain(new.into_iter().map(|(key, value)| (key, (None, Some(value))))).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    all.dedup_by(|(key, pair), (before, kept)| {
        let is_same = key == before;
        if is_same {
            *kept = (pair.0.or(kept.0), pair.1.or(kept.1));
        }
        is_same
    });
    all
}

/// The differing blocks of one thing, part by part.
fn objects((old, new): Pair<'_>, parts: &'static [Part], contextual: bool) -> Vec<ObjectDiff> {
    let mut all = Vec::new();
    for part in parts {
        // Upstream keeps the bounds of a group's count out of the context.
        let contextual = contextual && part.name != "Scaling";
        let pair = (at(old, part.member), at(new, part.member));
        let start = all.len();
        match &part.how {
            How::Texts => all.extend(texts(pair, part, contextual)),
            How::Leaves => all.extend(block(pair, part, &[], |_, value| leaves(value), contextual)),
            How::Joined => all.extend(block(pair, part, &[], |_, value| lists(value), contextual)),
            How::Plain(by) => all.extend(pairs(pair, by).into_iter().filter_map(|pair| plain(pair, part, contextual))),
            How::Blocks(by, inner) => {
                all.extend(pairs(pair, by).into_iter().filter_map(|pair| block(pair, part, inner, scalars, contextual)));
            }
        }
        if let Some(own) = all.get_mut(start..) {
            own.sort_by(order);
        }
    }
    all
}

/// A block of plain fields.
fn plain(pair: Pair<'_>, part: &'static Part, contextual: bool) -> Option<ObjectDiff> {
    let fields = field_diffs(pair, part, scalars, contextual);
    let r#type = of_fields(&fields);
    (r#type != Change::None).then(|| ObjectDiff { r#type, name: part.name, fields, objects: Vec::new() })
}

/// A set of texts; when contextual also one that is the same.
fn texts(pair: Pair<'_>, part: &'static Part, contextual: bool) -> Option<ObjectDiff> {
    let fields = field_diffs(pair, part, |_, list| list_texts(list), contextual);
    // By the old text, then by the new one: the new ones come first.
    let (mut fields, rest): (Vec<_>, Vec<_>) = fields.into_iter().partition(|field| field.old.is_empty());
    fields.extend(rest);
    fields.iter_mut().for_each(|field| part.name.clone_into(&mut field.name));
    (!fields.is_empty()).then(|| ObjectDiff { r#type: of_fields(&fields), name: part.name, fields, objects: Vec::new() })
}

/// What became of a thing whose fields are all there is to it.
fn of_fields(fields: &[FieldDiff]) -> Change {
    let changes = fields.iter().map(|field| field.r#type).filter(|change| *change != Change::None);
    changes.reduce(|all, change| if all == change { all } else { Change::Edited }).unwrap_or_default()
}

/// A block that may hold others.
fn block(pair: Pair<'_>, part: &'static Part, inner: &'static [Part], flat: Flat, contextual: bool) -> Option<ObjectDiff> {
    let r#type = Change::of(pair);
    (r#type != Change::None).then(|| ObjectDiff {
        r#type,
        name: part.name,
        fields: field_diffs(pair, part, flat, contextual),
        objects: objects(pair, inner, contextual),
    })
}

/// Which old block became which new one.
fn pairs<'v>((old, new): Pair<'v>, by: &Match) -> Vec<Pair<'v>> {
    let merged = match by {
        Match::Only if old.is_none() && new.is_none() => return Vec::new(),
        Match::Only => return vec![(old, new)],
        Match::Place => {
            let (old, new) = (items(old), items(new));
            return (0..old.len().max(new.len())).map(|i| (old.get(i), new.get(i))).collect();
        }
        Match::Likest { by_place, members } => return likest(items(old), items(new), *by_place, members),
        Match::Key(member) => merge(keyed(old, member), keyed(new, member)),
        Match::Entry => {
            let entries = |value| members(value).map(|(key, value)| (key.clone(), value)).collect();
            merge(entries(old), entries(new))
        }
    };
    merged.into_iter().map(|(_, pair)| pair).collect()
}

/// Blocks without a name of their own: the old ones choose in their order, each the likest that is left.
fn likest<'v>(old: &'v [Value], new: &'v [Value], by_place: bool, members: &[(&str, u8)]) -> Vec<Pair<'v>> {
    if let ([old], [new]) = (old, new) {
        return vec![(Some(old), Some(new))];
    }
    // Looked up once: every old one is compared with every new one that is left.
    let known = |item: &'v Value| members.iter().map(|(member, points)| (item.get(member), *points)).collect::<Vec<_>>();
    let mut left: Vec<_> = new.iter().map(|item| Some((item, known(item)))).collect();
    let mut pairs: Vec<Pair<'v>> = Vec::new();
    for (i, item) in old.iter().enumerate() {
        let own = known(item);
        let (mut best, mut most) = (None, 2);
        for (j, other) in left.iter_mut().enumerate() {
            let Some((_, theirs)) = other else { continue };
            let same: u8 = own.iter().zip(theirs).filter(|(own, theirs)| own.0 == theirs.0).map(|(own, _)| own.1).sum();
            let points = same + u8::from(by_place && i == j);
            if points > most {
                (best, most) = (Some(other), points);
            }
        }
        pairs.push((Some(item), best.and_then(Option::take).map(|(item, _)| item)));
    }
    pairs.extend(left.into_iter().flatten().map(|(item, _)| (None, Some(item))));
    pairs
}

/// The plain fields of a job, group or task: only those that differ.
fn plain_fields((old, new): Pair<'_>, skip: &[&str]) -> Vec<FieldDiff> {
    let [old, new] = [old, new].map(|value| value.map(|value| without(value, skip)).unwrap_or_default());
    field_list(merge(old, new), false, false)
}

fn field_diffs((old, new): Pair<'_>, part: &'static Part, flat: Flat, contextual: bool) -> Vec<FieldDiff> {
    let [old, new] = [old, new].map(|value| value.map(|value| flat(part, value)).unwrap_or_default());
    field_list(merge(old, new), matches!(part.how, How::Leaves), contextual)
}

fn field_list(entries: Vec<(String, Pair<'_>)>, is_leaf: bool, contextual: bool) -> Vec<FieldDiff> {
    let field = |(name, (old, new)): (String, Pair<'_>)| {
        let side = |value: Option<&Value>| value.map(|value| text(value, is_leaf)).unwrap_or_default();
        let (old, new) = (side(old), side(new));
        let r#type = match (old.is_empty(), new.is_empty()) {
            _ if old == new => Change::None,
            (true, _) => Change::Added,
            (_, true) => Change::Deleted,
            _ => Change::Edited,
        };
        (contextual || r#type != Change::None).then(|| FieldDiff { r#type, name, old, new, annotations: Vec::new() })
    };
    entries.into_iter().filter_map(field).collect()
}

/// The plain fields of a block.
fn scalars<'v>(part: &'static Part, value: &'v Value) -> Entries<'v> {
    static OFF: Value = Value::Bool(false);
    let mut fields = without(value, part.skip);
    // Written only when set, and false where it is not.
    if part.name == "LogConfig" && value.get("Disabled").is_none() {
        fields.push(("Disabled".to_owned(), &OFF));
    }
    fields
}

/// The members that are fields but for some, and the entries of those that are maps of texts.
fn without<'v>(value: &'v Value, skip: &[&str]) -> Entries<'v> {
    let mut fields = Entries::new();
    for (member, value) in members(Some(value)).filter(|(member, _)| !skip.contains(&member.as_str())) {
        match value {
            Value::Object(_) if MAPS.contains(&member.as_str()) => {
                fields.extend(members(Some(value)).map(|(key, value)| (format!("{member}[{key}]"), value)));
            }
            Value::Null | Value::Array(_) | Value::Object(_) => {}
            Value::Bool(_) | Value::Number(_) | Value::String(_) => fields.push((member.clone(), value)),
        }
    }
    fields
}

/// All that a document holds, by path.
fn leaves(value: &Value) -> Entries<'_> {
    fn add<'v>(path: &str, value: &'v Value, fields: &mut Entries<'v>) {
        match value {
            Value::Object(_) => members(Some(value)).for_each(|(key, value)| add(&format!("{path}[{key}]"), value, fields)),
            Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| add(&format!("{path}[{i}]"), item, fields)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => fields.push((path.to_owned(), value)),
        }
    }
    let mut fields = Entries::new();
    members(Some(value)).for_each(|(key, value)| add(key, value, &mut fields));
    fields
}

/// The texts of a list, each its own key.
fn list_texts(list: &Value) -> Entries<'_> {
    items(Some(list)).iter().filter_map(|item| Some((item.as_str()?.to_owned(), item))).collect()
}

/// The lists that are not empty.
fn lists(value: &Value) -> Entries<'_> {
    members(Some(value)).filter(|(_, list)| !items(Some(list)).is_empty()).map(|(member, list)| (member.clone(), list)).collect()
}

/// A value as it is shown. Upstream reads every number in a document as a float.
fn text(value: &Value, is_leaf: bool) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        Value::Null => "nil".to_owned(),
        Value::Number(number) if is_leaf => float(number.as_f64().unwrap_or_default()),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
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
