//! Pages and filters over rows in memory: what comes and goes between pages, and between the steps of one answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_hal::entropy::Rng;
use dunlin_hal::sim::entropy::SimEntropy;

use super::*;
use crate::api::query::Query;
use crate::store::Store;
use crate::store::backend::Backend;
use crate::store::rows::{JobStub, JobVersion};

fn store() -> Store {
    Store::open(Arc::new(Backend::memory().unwrap())).unwrap()
}

fn common(query: &str) -> Common {
    Query::parse(query).unwrap().common().unwrap()
}

fn alloc(store: &mut Store, id: [u8; 16], job: &str, group: &str) -> Allocation {
    let create_index = store.next_index();
    let job = JobKey { namespace: "default".to_owned(), id: job.to_owned() };
    let alloc = Allocation { id: AllocId(id), job, group: group.to_owned(), create_index, ..Allocation::default() };
    store.add_alloc(&alloc);
    alloc
}

/// A list that tells each object by `name`, as a client reads it; `wide` makes an answer of some objects too big to be kept.
fn listing<T: Listed>(source: Source, query: &str, wide: usize, name: fn(&T) -> String) -> Result<Listing, ApiError> {
    let common = common(query);
    let filter = Filter::read(&common, crate::node::NodeNames::default)?;
    let show = move |_: &View<'_>, value: &T, out: &mut Vec<u8>| {
        serde_json::to_writer(out, &format!("{}{}", name(value), " ".repeat(wide))).map_err(|why| ApiError::new(500, why.to_string()))
    };
    Ok(Listing::new(Walk::new(source, &common, filter), common.per_page, Box::new(|_| true), Box::new(show)))
}

/// Reads an answer to its end; `between` is called between its steps. Its names, and the token of the next page.
fn read(store: &mut Store, mut rows: Listing, mut between: impl FnMut(&mut Store)) -> Result<(Vec<String>, String), ApiError> {
    let (mut out, mut head) = (Vec::new(), None);
    loop {
        let is_more = rows.step(&store.view(), &mut out)?;
        if head.is_none() && !out.is_empty() {
            head = Some(rows.headers());
        }
        if !is_more {
            let names: Vec<String> = serde_json::from_slice(&out).unwrap();
            let token = head.unwrap().into_iter().next().map(|(name, token)| (assert_eq!(name, "X-Nomad-Nexttoken"), token).1);
            return Ok((names.iter().map(|name| name.trim_end().to_owned()).collect(), token.unwrap_or_default()));
        }
        between(store);
    }
}

/// Objects of one kind that can be made and removed by name.
trait Table {
    type Row: Listed;
    fn source(query: &Common) -> Source;
    /// Makes an object that begins with `name`; gives its whole name.
    fn make(store: &mut Store, rng: &mut Rng, name: &str) -> (String, Self::Row);
    fn remove(store: &mut Store, row: &Self::Row);
    fn name(row: &Self::Row) -> String;
    /// Holds of the objects made with this name.
    fn filter(name: &str) -> String;
}

struct Allocs;

impl Table for Allocs {
    type Row = Allocation;

    fn source(query: &Common) -> Source {
        Source::allocs(&query.prefix).unwrap()
    }

    fn make(store: &mut Store, rng: &mut Rng, name: &str) -> (String, Allocation) {
        let mut id = rng.uuid();
        // Two of three begin alike.
        id[0] = [0xab, 0xab, 0x12][usize::from(id[1] % 3)];
        let made = alloc(store, id, "j", name);
        (Self::name(&made), made)
    }

    fn remove(store: &mut Store, row: &Allocation) {
        store.remove_alloc(row);
    }

    fn name(row: &Allocation) -> String {
        format!("{} {}", row.group, row.id)
    }

    fn filter(name: &str) -> String {
        format!("TaskGroup == {name}")
    }
}

struct Jobs;

impl Table for Jobs {
    type Row = (JobKey, JobRow);

    fn source(query: &Common) -> Source {
        Source::jobs(&query.namespace, &query.prefix)
    }

    fn make(store: &mut Store, rng: &mut Rng, name: &str) -> (String, Self::Row) {
        let namespace = ["a", "a-b", "a-", "b", "default"][usize::try_from(rng.below(5)).unwrap()];
        let id = format!("{}{}.{:04x}", ["ab", "ab-", "c"][usize::try_from(rng.below(3)).unwrap()], name, rng.below(0x1_0000));
        let key = JobKey { namespace: namespace.to_owned(), id };
        let row = JobRow { stub: JobStub { name: name.to_owned(), ..JobStub::default() }, ..JobRow::default() };
        let spec = format!(r#"{{"ID":"{}","Name":"{name}"}}"#, key.id);
        store.put_job(&key, &row);
        store.put_job_version(&key, 0, &JobVersion { spec, ..JobVersion::default() });
        let made = (key, row);
        (Self::name(&made), made)
    }

    fn remove(store: &mut Store, (key, _): &Self::Row) {
        store.remove_job(key);
        store.remove_job_version(key, crate::model::alloc::Edition::default());
    }

    fn name((key, row): &Self::Row) -> String {
        format!("{} {}.{}", row.stub.name, key.namespace, key.id)
    }

    fn filter(name: &str) -> String {
        format!("Name == {name}")
    }
}

/// Pages through a list while objects come and go. Each that stays is met once, no other twice.
#[track_caller]
fn check<T: Table>(seed: u64, query: &str, wide: usize, is_hurried: bool) -> usize {
    let mut store = store();
    let mut rng = Rng::new(&mut SimEntropy::new(seed));
    let (mut stay, mut going) = (Vec::new(), Vec::new());
    for n in 0..90 {
        if n % 3 == 0 {
            going.push(T::make(&mut store, &mut rng, "go").1);
        } else {
            stay.push(T::make(&mut store, &mut rng, "stay"));
        }
    }
    let asked = common(query);
    let begins = |id: &str| id.split_once('.').map_or(id, |(_, id)| id).starts_with(&asked.prefix);
    let mut want: BTreeMap<String, u32> =
        stay.iter().filter(|(name, _)| begins(name.split_once(' ').unwrap().1)).map(|(name, _)| (name.clone(), 0)).collect();
    let mut churn = |store: &mut Store| {
        for _ in 0..2 {
            going.push(T::make(store, &mut rng, "go").1);
            let at = usize::try_from(rng.below(u64::try_from(going.len()).unwrap())).unwrap();
            T::remove(store, &going.swap_remove(at));
        }
    };
    let (mut token, mut pages_n, mut all) = (String::new(), 0, Vec::new());
    loop {
        let query = format!("{query}&next_token={token}");
        let rows = listing::<T::Row>(T::source(&asked), &query, wide, T::name).unwrap();
        // In time nothing comes any more: what comes to the end of a list is on its next page.
        let is_lively = pages_n < 40;
        let between = |store: &mut Store| {
            if is_hurried && is_lively {
                churn(store);
            }
        };
        let (names, next) = read(&mut store, rows, between).unwrap();
        assert!(is_hurried || names.len() <= usize::try_from(asked.per_page).unwrap(), "{} on a page of {query}", names.len());
        all.extend(names);
        pages_n += 1;
        assert!(pages_n < 400, "{query} does not end");
        if next.is_empty() {
            break;
        }
        token = next;
        if is_lively {
            churn(&mut store);
        }
    }
    for (n, name) in all.iter().enumerate() {
        assert!(!all[..n].contains(name), "{query}: {name} twice");
        match want.get_mut(name) {
            Some(met_n) => *met_n += 1,
            None => assert!(!name.starts_with("stay") && asked.filter.is_empty(), "{query}: {name} is not asked for"),
        }
    }
    let missed: Vec<_> = want.iter().filter(|(_, met_n)| **met_n != 1).collect();
    assert!(missed.is_empty() && !want.is_empty(), "{query}: not met once: {missed:?}");
    pages_n
}

#[test]
fn what_stays_is_met_once_whatever_comes_and_goes() {
    for order in ["", "prefix=ab&", "reverse=true&", "prefix=ab&reverse=true&"] {
        for filter in [false, true] {
            for (wide, is_hurried) in [(0, false), (3000, true)] {
                for (seed, per_page) in [(1, 4), (2, 9), (3, 27)] {
                    let filtered = |text: String| if filter { format!("&filter={}", text.replace("==", "%3D%3D")) } else { String::new() };
                    let query = format!("{order}per_page={per_page}");
                    let pages_n = check::<Allocs>(seed, &format!("{query}{}", filtered(Allocs::filter("stay"))), wide, is_hurried);
                    assert!(pages_n > 1, "all on one page");
                    let query = format!("{query}&namespace=*{}", filtered(Jobs::filter("stay")));
                    check::<Jobs>(seed, &query, wide, is_hurried);
                }
            }
        }
    }
}

#[test]
fn namespaces_are_told_in_their_order() {
    let mut store = store();
    for (namespace, id) in [("a", "x"), ("a-b", "x"), ("a", "a-b.x"), ("a-", "y"), ("b", ".")] {
        store.put_job(&JobKey { namespace: namespace.to_owned(), id: id.to_owned() }, &JobRow::default());
    }
    let (mut token, mut met) = (String::new(), Vec::new());
    loop {
        let rows =
            listing::<(JobKey, JobRow)>(Source::jobs("*", ""), &format!("namespace=*&per_page=1&next_token={token}"), 0, |(key, _)| {
                format!("{}.{}", key.namespace, key.id)
            });
        let (names, next) = read(&mut store, rows.unwrap(), |_| {}).unwrap();
        met.extend(names);
        if next.is_empty() {
            break;
        }
        token = next;
    }
    assert_eq!(met, ["a.a-b.x", "a.x", "a-.y", "a-b.x", "b.."]);
}

fn groups(store: &mut Store, query: &str, wide: usize) -> Result<(Vec<String>, String, usize), ApiError> {
    let mut steps_n = 1;
    let rows = listing::<Allocation>(Source::allocs("")?, query, wide, |alloc| alloc.group.clone())?;
    let (names, token) = read(store, rows, |_| steps_n += 1)?;
    Ok((names, token, steps_n))
}

#[test]
fn a_filter_that_cannot_be_answered_is_an_error_before_the_first_byte() {
    let mut store = store();
    let bad = "filter=Nope%3D%3D1";
    assert_eq!(groups(&mut store, bad, 0), Ok((Vec::new(), String::new(), 1)), "of nothing it is true");
    let error = groups(&mut store, "filter=JobID", 0).unwrap_err();
    let begin = "failed to create result paginator: failed to read filter expression: 1:6 (5): no match found, expected: ";
    assert!(error.status == 400 && error.text.starts_with(begin), "{error:?}");
    for n in 0..100 {
        alloc(&mut store, [n; 16], "j", &n.to_string());
    }
    let nope =
        "failed to read result page: error finding value in datum: /Nope at part 0: couldn't find key: struct field with name \"Nope\"";
    assert_eq!(groups(&mut store, bad, 3000), Err(ApiError::new(400, nope)));
    // Only of the last one, rows and steps later; and so not when a page ends before it.
    let late = "filter=TaskGroup%21%3D%2299%22+or+Nope%3D%3D1";
    assert_eq!(groups(&mut store, late, 3000), Err(ApiError::new(400, nope)));
    assert_eq!(groups(&mut store, &format!("{late}&per_page=98"), 0).unwrap().1.split_once('.').unwrap().0, "99");
    assert_eq!(groups(&mut store, &format!("{late}&per_page=99"), 0), Err(ApiError::new(400, nope)));
    assert_eq!(groups(&mut store, &format!("{late}&reverse=true&per_page=1"), 0), Err(ApiError::new(400, nope)));
}

#[test]
fn steps_are_small_and_what_was_kept_is_not_read_again() {
    let mut store = store();
    for n in 0..100 {
        alloc(&mut store, [n; 16], "j", &n.to_string());
    }
    let all: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    // 32 rows a step; the last finds nothing more.
    assert_eq!(groups(&mut store, "", 0), Ok((all.clone(), String::new(), 5)));
    assert_eq!(groups(&mut store, "filter=TaskGroup%21%3Dx", 0), Ok((all.clone(), String::new(), 5)));
    assert_eq!(groups(&mut store, "filter=TaskGroup%3D%3D%227%22", 0), Ok((vec!["7".to_owned()], String::new(), 5)));
    assert_eq!(groups(&mut store, "per_page=3", 0), Ok((all[..3].to_vec(), format!("4.{}", AllocId([3; 16])), 1)));
    assert_eq!(groups(&mut store, "per_page=-1", 0), Ok((Vec::new(), format!("1.{}", AllocId([0; 16])), 1)));
    // Too much to be kept: looked at, then told.
    let (names, _, steps_n) = groups(&mut store, "filter=TaskGroup%21%3Dx", 3000).unwrap();
    assert!(names == all && steps_n > 20, "{steps_n} steps");
    let mut rows = listing::<Allocation>(Source::allocs("").unwrap(), "per_page=100", 3000, |alloc| alloc.group.clone()).unwrap();
    let mut out = Vec::new();
    while rows.step(&store.view(), &mut out).unwrap() {
        let kept = rows.ahead.as_ref().and_then(|ahead| ahead.kept.as_ref()).map_or(0, Vec::len);
        assert!(out.len().max(kept) < STEP_BYTES + 3100, "{} bytes, {kept} kept", out.len());
        out.clear();
    }
}

#[test]
fn the_first_ids_and_whether_there_are_more() {
    let mut store = store();
    for n in 0..25 {
        let mut id = [n; 16];
        id[0] = 0xab;
        alloc(&mut store, id, "j", "g");
    }
    alloc(&mut store, [0xac; 16], "j", "g");
    let found = |prefix: &str, namespace: &str| {
        Source::alloc_ids(prefix).map(|source| ids(&store.view(), source, namespace, 20).unwrap()).map(|(ids, more)| (ids.len(), more))
    };
    for (prefix, namespace, want) in [
        ("", "default", Some((20, true))),
        ("a", "default", Some((20, true))),
        ("ab", "*", Some((20, true))),
        ("ab1", "default", Some((9, false))),
        ("ac", "default", Some((1, false))),
        ("aca", "default", Some((1, false))),
        ("AC", "default", Some((0, false))),
        ("acacacac-acac-acac-acac-acacacacacac", "default", Some((1, false))),
        ("acacacac-acac-acac-acac-acacacacacacac", "default", None),
        ("ac", "other", Some((0, false))),
        ("ad", "default", Some((0, false))),
        ("web", "default", None),
        ("é", "default", None),
    ] {
        assert_eq!(found(prefix, namespace), want, "{prefix} in {namespace}");
    }
}
