//! Plans of one node: what stops, what goes on, what is placed, and why not.

use std::collections::BTreeMap;

use dunlin_hal::clock::Wall;
use dunlin_hal::entropy::Rng;
use dunlin_hal::sim::entropy::SimEntropy;
use dunlin_runtime::event::{ClientStatus, TaskPhase};
use dunlin_runtime::id::{AllocId, EvalId, NodeId};
use dunlin_runtime::spec::{DriverKind, NodeVars, Port};

use super::place::{Preemption, Room, Site, Used};
use super::ports::Taken;
use super::reconcile::{Ask, Changes, Slot, reconcile};
use super::*;
use crate::model::alloc::{Allocation, Desired, Edition, JobKey, TaskEntry};
use crate::model::canonical::{Ctx, canonicalize};
use crate::model::job::{Job, Network};

fn job(text: &str) -> Job {
    let mut job: Job = crate::wire::json::decode(text.as_bytes(), 64).unwrap();
    canonicalize(&mut job, &Ctx { region: "global", ..Ctx::default() });
    job
}

fn two(kind: &str, count: u32) -> Job {
    job(&format!(
        r#"{{"ID":"j","Type":"{kind}","Datacenters":["dc1"],"TaskGroups":[{{"Name":"g","Count":{count},"Tasks":[{{"Name":"t","Driver":"raw_exec","Config":{{"command":"/bin/true"}},"Resources":{{"CPU":50,"MemoryMB":16}}}}]}}]}}"#
    ))
}

struct Has {
    index: u32,
    version: u64,
    status: ClientStatus,
    desired: Desired,
    wants_migrate: bool,
}

fn has(index: u32, status: ClientStatus) -> Has {
    Has { index, version: 0, status, desired: Desired::Run, wants_migrate: false }
}

fn allocs(list: Vec<Has>) -> Vec<Allocation> {
    let made = list.into_iter().enumerate().map(|(n, has)| {
        let mut task = TaskEntry { name: "t".to_owned(), ..TaskEntry::default() };
        task.state.phase = if has.status.is_terminal() { TaskPhase::Dead } else { TaskPhase::Running };
        Allocation {
            id: AllocId([u8::try_from(n + 1).unwrap(); 16]),
            job: JobKey { namespace: "default".to_owned(), id: "j".to_owned() },
            group: "g".to_owned(),
            index: has.index,
            edition: edition(has.version),
            client_status: has.status,
            desired: has.desired,
            wants_migrate: has.wants_migrate,
            tasks: vec![task],
            ..Allocation::default()
        }
    });
    made.collect()
}

fn edition(version: u64) -> Edition {
    Edition { create_index: 7, version }
}

/// One job, without a deployment.
fn plain<'a>(
    job: Option<&'a Job>,
    version: u64,
    allocs: &'a [Allocation],
    slots_max: usize,
    older: &'a dyn Fn(&Allocation) -> Option<&'a Job>,
) -> Ask<'a> {
    let edition = edition(version);
    Ask {
        job,
        edition,
        allocs,
        deployment: None,
        eval: EvalId([9; 16]),
        now: Wall(0),
        spent: &[],
        slots_max,
        older,
        can_stay: &|_, _| true,
    }
}

/// stops as `<n>:<first word of why>`, in-place as `<n>`, missing as `<index>[<-previous]`.
#[track_caller]
fn check(job: Option<&Job>, version: u64, list: Vec<Has>, older: Option<&Job>, want: (&str, &str, &str)) {
    let allocs = allocs(list);
    let Changes { mut stop, replace, update_in_place, mut missing, .. } = reconcile(&plain(job, version, &allocs, 100, &|_| older));
    stop.extend(replace.iter().map(|slot| Stop { alloc: slot.previous, description: UPDATED }));
    missing.extend(replace);
    missing.sort_by_key(|slot| slot.index);
    let stops: Vec<String> = stop
        .iter()
        .map(|stop| {
            let why = match stop.description {
                NOT_NEEDED => "gone",
                UPDATED => "updated",
                MIGRATED => "migrated",
                other => other,
            };
            format!("{}:{why}", stop.alloc.0[0])
        })
        .collect();
    let in_place: Vec<String> = update_in_place.iter().map(|id| id.0[0].to_string()).collect();
    let missing: Vec<String> = missing
        .iter()
        .map(|slot| if slot.previous.is_nil() { slot.index.to_string() } else { format!("{}<-{}", slot.index, slot.previous.0[0]) })
        .collect();
    assert_eq!((stops.join(" ").as_str(), in_place.join(" ").as_str(), missing.join(" ").as_str()), want);
}

#[test]
fn what_should_be_against_what_is() {
    use ClientStatus::{Complete, Failed, Pending, Running};
    let service = two("service", 2);
    check(Some(&service), 0, vec![], None, ("", "", "0 1"));
    check(Some(&service), 0, vec![has(0, Running), has(1, Pending)], None, ("", "", ""));
    check(Some(&service), 0, vec![has(1, Running)], None, ("", "", "0"));
    // Stopped or purged.
    check(None, 1, vec![has(0, Running), has(1, Complete)], None, ("1:gone", "", ""));
    // Scaled down: the highest goes.
    check(Some(&two("service", 1)), 0, vec![has(0, Running), has(1, Running)], None, ("2:gone", "", ""));
    // The stop API asks for a replacement.
    let moved = Has { wants_migrate: true, ..has(0, Running) };
    check(Some(&service), 0, vec![moved, has(1, Running)], None, ("1:migrated", "", "0<-1"));
    // A failed service allocation keeps its slot (its reschedule policy decides); one that ended well does not.
    check(Some(&service), 0, vec![has(0, Failed), has(1, Complete)], None, ("", "", "1"));
    // ... but under a newer version that changes what runs it is replaced.
    check(Some(&service), 1, vec![has(0, Failed), Has { version: 1, ..has(1, Running) }], None, ("1:updated", "", "0<-1"));
    check(Some(&service), 1, vec![has(0, Failed), Has { version: 1, ..has(1, Running) }], Some(&service), ("", "", ""));
    // Batch work that was done is done; failed work stays failed; stopped work is done again.
    let batch = two("batch", 3);
    let stopped = Has { desired: Desired::Stop, ..has(2, Failed) };
    check(Some(&batch), 0, vec![has(0, Complete), has(1, Failed), stopped], None, ("", "", "2"));
    check(Some(&batch), 1, vec![has(0, Complete)], None, ("", "", "0 1 2"));
    // A system job has one.
    check(Some(&two("system", 1)), 0, vec![has(0, Failed)], None, ("", "", "0"));
}

#[test]
fn a_new_version_replaces_or_goes_on_in_place() {
    use ClientStatus::Running;
    let old = two("service", 1);
    let same = job(&old.to_json().unwrap().replace("\"Priority\":50", "\"Priority\":60"));
    check(Some(&same), 1, vec![has(0, Running)], Some(&old), ("", "1", ""));
    let other = job(&old.to_json().unwrap().replace("/bin/true", "/bin/false"));
    check(Some(&other), 1, vec![has(0, Running)], Some(&old), ("1:updated", "", "0<-1"));
    // The old version is not known any more: replaced, to be safe.
    check(Some(&same), 1, vec![has(0, Running)], None, ("1:updated", "", "0<-1"));
}

fn vars() -> NodeVars {
    NodeVars {
        id: NodeId([9; 16]),
        name: "field-7".to_owned(),
        datacenter: "dc1".to_owned(),
        attributes: BTreeMap::from([("kernel.name".to_owned(), "linux".to_owned())]),
        ..NodeVars::default()
    }
}

fn site<'a>(vars: &'a NodeVars, room: Room) -> Site<'a> {
    Site {
        vars,
        drivers: &[DriverKind::RawExec],
        room,
        dynamic_ports: (20_000, 20_003),
        busy_ports: &[],
        network: Some(("eth0", "10.0.0.7", 100)),
        is_eligible: true,
        allocs_max: 100,
        preemption: Preemption::default(),
    }
}

const WIDE: Room = Room { cpu_mhz: 1_000, memory_mb: 64, disk_mb: 1_000 };

fn rng() -> Rng {
    Rng::new(&mut SimEntropy::new(1))
}

fn slot(index: u32) -> Slot {
    Slot { group: "g".to_owned(), index, ..Slot::default() }
}

#[test]
fn room_runs_out_by_dimension() {
    let vars = vars();
    let job = two("service", 9);
    let group = job.group("g").unwrap();
    for (room, placed_n, why) in [
        (WIDE, 3, "disk"),
        (Room { disk_mb: 100_000, ..WIDE }, 4, "memory"),
        (Room { disk_mb: 100_000, memory_mb: 1_000, ..WIDE }, 9, ""),
        (Room { disk_mb: 100_000, memory_mb: 1_000, cpu_mhz: 120 }, 2, "cpu"),
    ] {
        let site = site(&vars, room);
        let mut used = Used::new([].iter(), Some(&job), &site);
        let results: Vec<_> = (0..9).map(|index| used.place(&job, group, &slot(index), &site, &mut rng())).collect();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), placed_n, "{room:?}");
        let last = results.last().unwrap().as_ref().err().map_or("", |metric| metric.exhausted.as_str());
        assert_eq!(last, why);
    }
    let site = Site { allocs_max: 2, ..site(&vars, Room { disk_mb: 100_000, memory_mb: 1_000, ..WIDE }) };
    let mut used = Used::new([].iter(), Some(&job), &site);
    let results: Vec<_> = (0..3).map(|index| used.place(&job, group, &slot(index), &site, &mut rng()).is_ok()).collect();
    assert_eq!(results, [true, true, false]);
}

#[test]
fn a_wish_beyond_every_node_is_not_granted() {
    let vars = vars();
    for (ask, why) in [(r#""CPU":9223372036854775807,"MemoryMB":16"#, "cpu"), (r#""CPU":50,"MemoryMB":9223372036854775807"#, "memory")] {
        let job = job(
            &r#"{"ID":"j","Datacenters":["dc1"],"TaskGroups":[{"Name":"g","Tasks":[{"Name":"t","Driver":"raw_exec","Resources":{ASK}}]}]}"#
                .replace("ASK", ask),
        );
        let site = site(&vars, WIDE);
        let mut used = Used::new([].iter(), Some(&job), &site);
        let refused = used.place(&job, job.group("g").unwrap(), &slot(0), &site, &mut rng()).err();
        assert_eq!(refused.map(|metric| metric.exhausted).as_deref(), Some(why));
    }
}

/// A count may be any number: what is listed is bounded, the rest is counted.
#[test]
fn a_huge_count_is_counted() {
    let huge = job(r#"{"ID":"j","TaskGroups":[{"Name":"g","Count":4000000000,"Tasks":[{"Name":"t"}]}]}"#);
    let there = allocs(vec![has(1, ClientStatus::Running), has(3_999_999_999, ClientStatus::Running)]);
    let changes = reconcile(&plain(Some(&huge), 0, &there, 3, &|_| None));
    assert_eq!(changes.missing.iter().map(|slot| slot.index).collect::<Vec<_>>(), [0, 2, 3]);
    assert_eq!(changes.beyond, [("g".to_owned(), 4_000_000_000 - 4 - 1)]);
    let few = job(r#"{"ID":"j","TaskGroups":[{"Name":"g","Count":3,"Tasks":[{"Name":"t"}]}]}"#);
    assert_eq!(reconcile(&plain(Some(&few), 0, &[], 3, &|_| None)).beyond, []);
}

#[test]
fn a_node_is_filtered_with_its_reason() {
    let vars = vars();
    let site = site(&vars, WIDE);
    let reason = |text: &str| {
        let job = job(text);
        let group = job.group("g").unwrap();
        let mut used = Used::new([].iter(), Some(&job), &site);
        used.place(&job, group, &slot(0), &site, &mut rng()).err().map(|metric| (metric.is_in_datacenter, metric.filtered))
    };
    let base = r#"{"ID":"j","Datacenters":["DC"],"Constraints":[C],"TaskGroups":[{"Name":"g","Tasks":[{"Name":"t","Driver":"DRIVER","Resources":{"CPU":50,"MemoryMB":16}}]}]}"#;
    let with = |dc: &str, c: &str, driver: &str| base.replace("DC", dc).replace("[C]", &format!("[{c}]")).replace("DRIVER", driver);
    assert_eq!(reason(&with("dc1", "", "raw_exec")), None);
    assert_eq!(reason(&with("*", "", "raw_exec")), None);
    assert_eq!(reason(&with("dc*", "", "raw_exec")), None);
    assert_eq!(reason(&with("dc2", "", "raw_exec")), Some((false, String::new())));
    assert_eq!(reason(&with("dc1", "", "docker")), Some((true, "missing drivers".to_owned())));
    let c = r#"{"LTarget":"${attr.kernel.name}","RTarget":"plan9","Operand":"="}"#;
    assert_eq!(reason(&with("dc1", c, "raw_exec")), Some((true, "${attr.kernel.name} = plan9".to_owned())));
    let c = r#"{"LTarget":"${attr.nothing}","RTarget":"x","Operand":"!="}"#;
    assert_eq!(reason(&with("dc1", c, "raw_exec")), None);
    let ineligible = Site { is_eligible: false, ..site };
    let job = two("service", 1);
    let mut used = Used::new([].iter(), Some(&job), &ineligible);
    assert!(used.place(&job, job.group("g").unwrap(), &slot(0), &ineligible, &mut rng()).is_err());
}

#[test]
fn distinct_hosts_means_one_here() {
    let vars = vars();
    let site = site(&vars, WIDE);
    let job =
        job(&two("service", 2).to_json().unwrap().replacen("\"Constraints\":null", r#""Constraints":[{"Operand":"distinct_hosts"}]"#, 1));
    let mut used = Used::new([].iter(), Some(&job), &site);
    let group = job.group("g").unwrap();
    assert!(used.place(&job, group, &slot(0), &site, &mut rng()).is_ok());
    assert_eq!(used.place(&job, group, &slot(1), &site, &mut rng()).unwrap_err().filtered, "distinct_hosts");
}

#[test]
fn ports_are_given_once() {
    let ask = |text: &str| -> Network { crate::wire::json::decode(text.as_bytes(), 16).unwrap() };
    let mut taken = Taken::default();
    let mut rng = rng();
    taken.add_one(20_002);
    let both = ask(r#"{"ReservedPorts":[{"Label":"ssh","Value":22}],"DynamicPorts":[{"Label":"a"},{"Label":"b","To":-1}]}"#);
    let given = taken.assign(&both, "10.0.0.7", (20_000, 20_003), &mut rng).unwrap();
    let by_label = |label: &str| given.iter().find(|port: &&Port| port.label == label).unwrap().clone();
    assert_eq!((by_label("ssh").value, by_label("ssh").to), (22, 0));
    assert_eq!(by_label("b").to, by_label("b").value, "-1 is the same port inside");
    assert!(given.iter().all(|port| port.value != 20_002 && port.host_ip == "10.0.0.7"));
    assert_eq!(taken.assign(&both, "", (20_000, 20_003), &mut rng).unwrap_err(), "network: reserved port collision ssh=22");
    // One is left; asking for two gives none, and the one stays free.
    let two = ask(r#"{"DynamicPorts":[{"Label":"c"},{"Label":"d"}]}"#);
    assert_eq!(taken.assign(&two, "", (20_000, 20_003), &mut rng).unwrap_err(), "network: dynamic port selection failed");
    let one = ask(r#"{"DynamicPorts":[{"Label":"c"}]}"#);
    assert!(taken.assign(&one, "", (20_000, 20_003), &mut rng).is_ok());
    assert!(taken.assign(&one, "", (20_000, 20_003), &mut rng).is_err());
}
