use std::collections::BTreeMap;

use dunlin_hal::sim::zones::SimZones;

use super::*;

const SLOTS: &str = include_str!("../../../../tests/fixtures/cron/slots.tsv");

fn zones() -> SimZones {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/cron/zones");
    let names: std::collections::BTreeSet<&str> = rows().map(|row| row[1]).filter(|zone| !matches!(*zone, "!" | "UTC")).collect();
    let files = names.into_iter().map(|name| (name.to_owned(), std::fs::read(root.join(name)).unwrap()));
    SimZones { files: files.collect(), local: String::new() }
}

fn rows() -> impl Iterator<Item = [&'static str; 3]> {
    SLOTS.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let parts: Vec<&str> = line.split('\t').collect();
        parts.try_into().unwrap()
    })
}

/// Where the clocks skip midnight it takes the hour before or after it for the day it looks for, and does not look again: it runs a
/// job on a day that is not in its list, or goes back in time and stays there for ever.
const NO_MIDNIGHT: &str = "a slot on a day the spec does not name";
/// Where they skip half an hour it skips the other half too.
const HALF_AN_HOUR: &str = "a reading that is shown and has no slot";
/// The library's answers that are not ours: zone, why, specs.
const NAMED: &[(&str, &str, &[&str])] = &[
    ("Africa/Cairo", NO_MIDNIGHT, &["0 12 * * */2", "0 23 25 4 *"]),
    ("America/Havana", NO_MIDNIGHT, &["0 12 * * 5-7", "0 12 * * fri-sun", "0 12 1-7 * *"]),
    ("America/Santiago", NO_MIDNIGHT, &["0 12 * * 5-7", "0 12 * * fri-sun", "0 3 5 * *,1"]),
    ("America/Sao_Paulo", NO_MIDNIGHT, &["0 12 * * 5-7", "0 12 * * fri-sun", "0 6 3 * ?"]),
    ("Australia/Lord_Howe", HALF_AN_HOUR, &["30 2 * * *", "45 2 * * *"]),
    (
        "Pacific/Apia",
        NO_MIDNIGHT,
        &[
            "0 12 * * 5-7",
            "0 12 * * fri-sun",
            "0 12 13 * 5",
            "0 6 * * 1#1,5L",
            "0 6 * * 5#5",
            "0 6 * * 5L",
            "0 6 * * friL",
            "0 6 31w * *",
            "0 6 LW * *",
        ],
    ),
];

#[test]
fn the_librarys_slots_are_ours() {
    let zones = zones();
    let mut other: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
    let (mut specs, mut starts_n) = (std::collections::BTreeSet::new(), 0);
    for [spec, zone, starts] in rows().filter(|row| row[1] != "!") {
        let cron = Cron::parse(spec).unwrap_or_else(|why| panic!("{spec}: {why}"));
        let here = Zone::find(zone, &zones).unwrap();
        for start in starts.split(", ") {
            let (from, want) = start.split_once(' ').unwrap();
            let mut at_s: i64 = from.parse().unwrap();
            let mut got = Vec::new();
            for _ in 0..4 {
                let Some(next_s) = cron.next_s(at_s, &here) else {
                    got.push("-".to_owned());
                    break;
                };
                got.push((next_s - at_s).to_string());
                at_s = next_s;
            }
            if got.join(" ") != want {
                other.entry((spec, zone)).or_default().push(format!("after {from}: {want}, ours {}", got.join(" ")));
            }
            starts_n += 1;
        }
        specs.insert(spec);
    }
    for (zone, why, specs) in NAMED {
        for spec in *specs {
            assert!(other.remove(&(*spec, *zone)).is_some(), "{zone} {spec}: {why}: not so");
        }
    }
    assert!(other.is_empty(), "{} of {starts_n}: {other:#?}", other.len());
    assert!(specs.len() > 80 && starts_n > 3_000, "{} specs, {starts_n} starts", specs.len());
}

#[test]
fn what_the_library_refuses_is_refused_in_its_words() {
    let mut n = 0;
    for [spec, _, why] in rows().filter(|row| row[1] == "!") {
        assert_eq!(Cron::parse(spec), Err(why.to_owned()), "{spec}");
        n += 1;
    }
    assert!(n > 60, "{n}");
}

/// It takes these, and has no slot for them or breaks when it is asked for one.
#[test]
fn what_names_nothing_is_refused() {
    for (spec, why) in [
        ("5-2 * * * *", "minute field: '5-2' names nothing"),
        ("* 22-6 * * *", "hour field: '22-6' names nothing"),
        ("* * * dec-jan *", "month field: 'dec-jan' names nothing"),
        ("* * * * * 2030-2029", "year field: '2030-2029' names nothing"),
    ] {
        assert_eq!(Cron::parse(spec), Err(why.to_owned()), "{spec}");
    }
    // A day that never comes is no fault of the text.
    for spec in ["* * 20-10 * *", "0 0 30 2 *", "* * * * 6-1"] {
        assert_eq!(Cron::parse(spec).unwrap().next_s(0, &Zone::Utc), None, "{spec}");
    }
}

#[test]
fn the_ends_of_time() {
    let cron = Cron::parse("* * * * *").unwrap();
    assert_eq!(cron.next_s(i64::MIN, &Zone::Utc), Some(0));
    assert_eq!(cron.next_s(i64::MAX, &Zone::Utc), None);
    assert_eq!(cron.next_s(4_102_444_799, &Zone::Utc), None, "the year field ends with 2099");
}
