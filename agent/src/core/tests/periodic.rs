//! Slots of periodic jobs on a clock that stands, jumps and stops.

use super::*;

const SECOND_NS: i64 = 1_000_000_000;
const MINUTE_MS: u64 = 60_000;
/// 2027-01-15 08:00:00.
const EIGHT: i64 = 1_800_000_000;

fn periodic(id: &str, spec: &str, more: &str) -> String {
    job(id, "batch", 1).replacen("\"Type\"", &format!("\"Periodic\":{{\"Spec\":\"{spec}\"{more}}},\"Type\""), 1)
}

impl World {
    fn at(wall_s: i64) -> Self {
        let mut world = Self::new(1);
        world.now.wall = Wall(wall_s * SECOND_NS);
        world
    }

    /// Somebody puts the clock.
    fn put_clock(&mut self, wall_s: i64) {
        self.now.wall = Wall(wall_s * SECOND_NS);
        self.feed(Event::ClockStepped);
    }

    /// Slots of a job's children, as seconds after [`EIGHT`], in the order they were made.
    fn slots(&mut self, job: &str) -> Vec<i64> {
        let jobs = self.get("/v1/jobs");
        let mut found: Vec<(u64, i64)> = Vec::new();
        for child in jobs.as_array().unwrap().iter().filter(|child| child["ParentID"] == job) {
            let id = child["ID"].as_str().unwrap();
            let slot_s: i64 = id.strip_prefix(&format!("{job}/periodic-")).unwrap().parse().unwrap();
            found.push((child["CreateIndex"].as_u64().unwrap(), slot_s - EIGHT));
        }
        found.sort_unstable();
        found.into_iter().map(|(_, slot_s)| slot_s).collect()
    }

    fn children(&mut self, job: &str) -> [u64; 3] {
        let summary = self.get(&format!("/v1/job/{job}/summary"));
        ["Pending", "Running", "Dead"].map(|bin| summary["Children"][bin].as_u64().unwrap())
    }
}

#[test]
fn a_slot_makes_one_child_in_one_batch() {
    let mut world = World::at(EIGHT + 30);
    let answer = world.ask(Method::Put, "/v1/jobs", &periodic("p", "* * * * *", ""));
    assert_eq!((&answer["EvalID"], &world.get("/v1/job/p")["Status"]), (&"".into(), &"running".into()));
    assert_eq!(world.get("/v1/job/p/evaluations"), serde_json::json!([]), "a parent is not scheduled itself");
    world.pass(29_999);
    assert_eq!((world.slots("p"), world.children("p")), (vec![], [0, 0, 0]));
    let commits_n = world.commits_n;
    world.pass(1);
    assert_eq!((world.slots("p"), world.launches.len(), world.commits_n - commits_n), (vec![60], 1, 1));
    assert_eq!(world.children("p"), [0, 1, 0]);

    let id = format!("p/periodic-{}", EIGHT + 60);
    let child = world.get(&format!("/v1/job/{id}"));
    assert_eq!(
        (&child["ID"], &child["Name"], &child["ParentID"], &child["Periodic"]),
        (&child["Name"], &id.as_str().into(), &"p".into(), &Value::Null)
    );
    assert_eq!((&child["Status"], &child["Type"], &child["Version"]), (&"running".into(), &"batch".into(), &0.into()));
    let eval = &world.get(&format!("/v1/job/{id}/evaluations"))[0];
    assert_eq!((&eval["TriggeredBy"], &eval["Status"]), (&"periodic-job".into(), &"complete".into()));
    assert_eq!((&eval["CreateIndex"], &eval["JobModifyIndex"]), (&child["CreateIndex"], &child["CreateIndex"]));
    let parent = world.get("/v1/job/p");
    assert_eq!((&parent["ModifyIndex"], &parent["Version"]), (&answer["JobModifyIndex"], &0.into()), "its own row is as it was");

    world.end_all(0);
    assert_eq!((world.children("p"), &world.get(&format!("/v1/job/{id}"))["Status"]), ([0, 0, 1], &"dead".into()));
    world.pass(3 * MINUTE_MS);
    assert_eq!((world.slots("p"), world.children("p")), (vec![60, 120, 180, 240], [0, 3, 1]), "they may overlap");
}

#[test]
fn between_slots_nothing_runs_and_nothing_is_written() {
    let mut world = World::at(EIGHT);
    world.ask(Method::Put, "/v1/jobs", &periodic("p", "0 9 * * *", ""));
    world.pass(10_000);
    let (commits_n, due) = (world.commits_n, world.due.unwrap());
    assert_eq!(due.since(world.now.mono).as_secs(), 3_590, "the one timer is the next slot's");
    world.pass(3_589_999);
    assert_eq!(world.commits_n, commits_n);
    world.ask(Method::Delete, "/v1/job/p", "");
    world.pass(10_000);
    assert_eq!((world.due, world.slots("p")), (None, vec![]), "a stopped job has no slots");
}

#[test]
fn jobs_that_are_switched_off_stopped_or_forgotten_are_not_launched() {
    let mut world = World::at(EIGHT);
    world.ask(Method::Put, "/v1/jobs", &periodic("off", "* * * * *", ",\"Enabled\":false"));
    let both = periodic("both", "* * * * *", "").replacen("\"Type\"", "\"ParameterizedJob\":{},\"Type\"", 1);
    world.ask(Method::Put, "/v1/jobs", &both);
    world.ask(Method::Put, "/v1/jobs", &periodic("never", "0 0 30 2 *", ""));
    world.pass(10_000);
    assert_eq!(world.due, None);
    world.now.wall.0 -= 10 * SECOND_NS;
    world.ask(Method::Put, "/v1/jobs", &periodic("gone", "* * * * *", ""));
    world.pass(MINUTE_MS);
    assert_eq!(world.slots("gone"), [60]);
    world.ask(Method::Delete, "/v1/job/gone?purge=true", "");
    assert_eq!(world.alive().len(), 1, "what runs is not stopped with its parent");
    world.pass(5 * MINUTE_MS);
    assert_eq!(world.slots("gone"), [60]);
    world.end_all(0);
    // Switched on again it begins with the next slot.
    world.ask(Method::Put, "/v1/jobs", &periodic("off", "* * * * *", ""));
    world.pass(MINUTE_MS - 1);
    world.pass(1);
    assert_eq!((world.slots("off"), world.slots("both"), world.slots("never")), (vec![420], vec![], vec![]));
    // A new schedule does not begin with a slot of the past.
    world.ask(Method::Put, "/v1/jobs", &periodic("off", "0 7 * * *", ""));
    world.pass(60 * MINUTE_MS);
    assert_eq!(world.slots("off"), [420]);
}

#[test]
fn a_child_that_runs_holds_the_next_back_where_the_job_says_so() {
    let mut world = World::at(EIGHT);
    world.ask(Method::Put, "/v1/jobs", &periodic("p", "* * * * *", ",\"ProhibitOverlap\":true"));
    world.pass(MINUTE_MS + 10_000);
    assert_eq!(world.slots("p"), [60]);
    let commits_n = world.commits_n;
    world.pass(3 * MINUTE_MS);
    assert_eq!((world.slots("p"), world.commits_n), (vec![60], commits_n), "what is left out is not written down");
    world.end_all(0);
    world.pass(30_000);
    assert_eq!(world.slots("p"), [60], "a slot that was left out does not come back");
    world.put_clock(EIGHT + 280);
    assert_eq!(world.slots("p"), [60], "nor when the clock is put");
    world.put_clock(EIGHT + 270);
    world.pass(30_000);
    assert_eq!(world.slots("p"), [60, 300]);
    // One that waits for room holds it back too.
    let wide = world.core.setting.node.fingerprint.resources.memory_mb * 6 / 10;
    let of = |id: &str| periodic(id, "* * * * *", ",\"ProhibitOverlap\":true").replace("\"MemoryMB\":10", &format!("\"MemoryMB\":{wide}"));
    world.end_all(0);
    world.ask(Method::Delete, "/v1/job/p", "");
    world.ask(Method::Put, "/v1/jobs", &of("a"));
    world.ask(Method::Put, "/v1/jobs", &of("b"));
    world.pass(3 * MINUTE_MS);
    assert_eq!((world.slots("a"), world.children("a")), (vec![360], [0, 1, 0]));
    assert_eq!((world.slots("b"), world.children("b")), (vec![360], [1, 0, 0]));
    world.end_all(0);
    assert_eq!((world.children("a"), world.children("b")), ([0, 0, 1], [0, 1, 0]));
}

#[test]
fn of_the_slots_missed_without_power_one_is_made_up_for() {
    let mut world = World::at(EIGHT);
    world.ask(Method::Put, "/v1/jobs", &periodic("p", "*/10 * * * *", ""));
    world.ask(Method::Put, "/v1/jobs", &periodic("q", "0 * * * *", ""));
    world.pass(10 * MINUTE_MS);
    world.end_all(0);
    world.advance(std::time::Duration::from_secs(3 * 3600 + 7));
    world.crash(true);
    // Of p several, so it is now; of q several too. An hour has one.
    assert_eq!(world.slots("p"), [600, 600 + 3 * 3600 + 7]);
    assert_eq!(world.slots("q"), [600 + 3 * 3600 + 7]);
    world.end_all(0);
    world.crash(true);
    assert_eq!(world.slots("q").len(), 1, "another start makes up for nothing more");
    world.pass(10 * MINUTE_MS);
    assert_eq!(world.slots("p").last(), Some(&(1_200 + 3 * 3600)));
    // One slot alone keeps its own time.
    world.end_all(0);
    world.pass(5 * MINUTE_MS);
    world.advance(std::time::Duration::from_secs(8 * 60));
    world.crash(false);
    assert_eq!(world.slots("p").last(), Some(&(1_800 + 3 * 3600)));
}

#[test]
fn a_clock_that_is_put_back_launches_nothing_twice() {
    let mut world = World::at(EIGHT);
    world.ask(Method::Put, "/v1/jobs", &periodic("p", "* * * * *", ""));
    world.pass(10 * MINUTE_MS);
    let all: Vec<i64> = (1..=10).map(|n| n * 60).collect();
    assert_eq!(world.slots("p"), all);
    world.end_all(0);
    world.put_clock(EIGHT + 30);
    world.pass(10 * MINUTE_MS);
    assert_eq!(world.slots("p"), all, "slots that were launched are not launched again");
    world.crash(true);
    world.pass(29_999);
    assert_eq!(world.slots("p"), all);
    world.pass(1);
    assert_eq!(world.slots("p").last(), Some(&660));
    world.end_all(0);
    // The event may be late: what is due by the timer is due by the clock, or it is not.
    world.now.wall = Wall((EIGHT + 600) * SECOND_NS);
    world.pass(2 * MINUTE_MS - 1);
    assert_eq!(world.slots("p").last(), Some(&660));
    world.pass(1);
    assert_eq!(world.slots("p").last(), Some(&720));
}

#[test]
fn a_clock_that_is_put_forward_makes_up_for_one_slot() {
    let mut world = World::at(EIGHT);
    world.ask(Method::Put, "/v1/jobs", &periodic("p", "*/10 * * * *", ""));
    world.pass(10 * MINUTE_MS);
    world.put_clock(EIGHT + 2 * 3600 + 5);
    assert_eq!(world.slots("p"), [600, 2 * 3600 + 5]);
    world.pass(10 * MINUTE_MS);
    assert_eq!(world.slots("p").last(), Some(&(2 * 3600 + 600)));
    // Within the same gap between two slots there is nothing to make up for.
    world.put_clock(EIGHT + 2 * 3600 + 1_199);
    assert_eq!(world.slots("p").len(), 3);
    world.pass(1_000);
    assert_eq!(world.slots("p").last(), Some(&(2 * 3600 + 1_200)));
}

#[test]
fn a_clock_that_was_far_ahead_does_not_stop_a_job_for_ever() {
    let mut world = World::at(EIGHT);
    world.ask(Method::Put, "/v1/jobs", &periodic("p", "* * * * *", ""));
    let year_s = 365 * 86_400;
    world.put_clock(EIGHT + year_s + 1);
    assert_eq!(world.slots("p"), [year_s + 1]);
    world.put_clock(EIGHT + 90);
    world.pass(MINUTE_MS);
    assert_eq!(world.slots("p"), [year_s + 1, 120]);
}

#[test]
fn a_clock_nobody_has_set_is_not_believed() {
    let mut world = World::at(20);
    world.ask(Method::Put, "/v1/jobs", &periodic("p", "* * * * *", ""));
    world.pass(2 * MINUTE_MS + 5_000);
    let first = world.slots("p");
    assert_eq!(first.len(), 2, "it is launched all the same");
    // Without a clock each boot begins in 1970; time goes on from what was stored.
    world.end_all(0);
    world.now.wall = Wall(20 * SECOND_NS);
    world.crash(true);
    world.pass(2 * MINUTE_MS);
    let more = world.slots("p");
    assert!(more.len() == 4 && more.is_sorted() && more.windows(2).all(|two| two[0] < two[1]), "{more:?}");
    world.end_all(0);
    // Then somebody sets it.
    world.put_clock(EIGHT + 30);
    assert_eq!(world.slots("p").last(), Some(&30));
    world.pass(MINUTE_MS);
    assert_eq!(world.slots("p").last(), Some(&60));
    world.end_all(0);
    // A job of the time before that was never launched is not made up for.
    let mut world = World::at(20);
    world.ask(Method::Put, "/v1/jobs", &periodic("p", "0 3 * * *", ""));
    world.put_clock(EIGHT);
    assert!(world.slots("p").is_empty());
    // A clock that begins before what was stored goes on from there, until it is put.
    world.pass(19 * 60 * MINUTE_MS);
    assert_eq!(world.slots("p"), [19 * 3600]);
    world.now.wall = Wall((EIGHT - 200 * 86_400) * SECOND_NS);
    world.crash(true);
    world.pass(24 * 60 * MINUTE_MS);
    assert_eq!(world.slots("p"), [19 * 3600, 43 * 3600]);
    let back_s = 100 * 86_400;
    world.put_clock(EIGHT - back_s);
    world.pass(24 * 60 * MINUTE_MS);
    assert_eq!(world.slots("p"), [19 * 3600, 43 * 3600, 19 * 3600 - back_s]);
}

#[test]
fn a_time_zone_that_is_gone_is_told_and_the_rest_goes_on() {
    let bytes = include_bytes!("../../../../tests/fixtures/cron/zones/Europe/Berlin").to_vec();
    let zones = SimZones { files: BTreeMap::from([("Europe/Berlin".to_owned(), bytes)]), ..SimZones::default() };
    let mut world = World::at(EIGHT);
    let id = world.send(Method::Put, "/v1/jobs", &periodic("z", "0 10 * * *", ",\"TimeZone\":\"Europe/Berlin\""));
    let (status, text) = world.replies.remove(&id).unwrap();
    assert_eq!(status, 500);
    assert!(text.contains("Invalid time zone \"Europe/Berlin\": unknown time zone Europe/Berlin"), "{text}");
    world.core.setting.zones = Box::new(zones);
    world.ask(Method::Put, "/v1/jobs", &periodic("z", "0 10 * * *", ",\"TimeZone\":\"Europe/Berlin\""));
    world.ask(Method::Put, "/v1/jobs", &periodic("p", "0 9 * * *", ""));
    world.pass(60 * MINUTE_MS);
    assert_eq!((world.slots("z"), world.slots("p")), (vec![3600], vec![3600]), "ten o'clock there is nine o'clock here");
    world.crash(false);
    world.pass(24 * 60 * MINUTE_MS);
    assert_eq!((world.slots("z").len(), world.slots("p").len()), (1, 2), "the new agent has no zones");
}

#[test]
fn a_store_without_room_leaves_slots_out() {
    let path = std::env::temp_dir().join(format!("dunlin-core-slots-{}.redb", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let mut world = World::on(1, Backend::file(&path, 1 << 20, 64 << 10).unwrap());
    world.now.wall = Wall(EIGHT * SECOND_NS);
    world.ask(Method::Put, "/v1/jobs", &periodic("p", "* * * * *", ""));
    let bytes_max = std::mem::replace(&mut world.core.setting.budget.store_bytes_max, 1);
    world.pass(2 * MINUTE_MS);
    assert!(world.slots("p").is_empty());
    world.core.setting.budget.store_bytes_max = bytes_max;
    world.pass(MINUTE_MS);
    assert_eq!(world.slots("p"), [180]);
    let _ = std::fs::remove_file(path.with_extension("reserve"));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn children_are_bounded_living_and_ended() {
    let mut world = World::at(EIGHT);
    world.core.setting.budget.children_living_max = 3;
    world.core.setting.budget.children_ended_max = 2;
    world.ask(Method::Put, "/v1/jobs", &periodic("p", "* * * * *", ""));
    world.pass(5 * MINUTE_MS);
    assert_eq!((world.slots("p"), world.children("p")), (vec![60, 120, 180], [0, 3, 0]));
    for _ in 0..5 {
        world.end_all(0);
        world.pass(MINUTE_MS);
    }
    world.end_all(0);
    world.pass(10_000);
    assert_eq!((world.slots("p"), world.children("p")), (vec![540, 600], [0, 0, 8]), "the parent remembers how many there were");
    for path in ["/v1/allocations", "/v1/evaluations"] {
        assert_eq!(world.get(path).as_array().unwrap().len(), 2, "{path}");
    }
    let left = world.core.store.view().scan_after(b"V", None, 100).unwrap();
    assert_eq!(left.len(), 3, "two children and their parent have a version each");
    world.tune = |setting| setting.budget.children_ended_max = 1;
    world.crash(false);
    world.pass(MINUTE_MS);
    world.end_all(0);
    world.pass(10_000);
    assert_eq!(world.slots("p"), [660], "a new agent knows the old ones");
}

/// The agent dies before every effect of a slot, alone or with the device: the slot has one child afterwards, and it runs or has run.
#[test]
fn a_cut_before_every_effect_of_a_slot_leaves_one_child() {
    for is_reboot in [false, true] {
        let mut cut_at = 0;
        loop {
            let mut world = World::at(EIGHT);
            world.ask(Method::Put, "/v1/jobs", &periodic("p", "* * * * *", ",\"ProhibitOverlap\":true"));
            world.pass(MINUTE_MS - 1);
            world.cut_at = Some(world.steps_n + cut_at);
            world.pass(1);
            if !world.is_cut {
                world.end_all(0);
            }
            let was_cut = world.is_cut;
            if was_cut {
                world.crash(is_reboot);
            }
            world.cut_at = None;
            assert_eq!(world.slots("p"), [60], "cut {cut_at} reboot {is_reboot}");
            world.pass(20_000);
            world.end_all(0);
            let id = format!("p/periodic-{}", EIGHT + 60);
            let allocs = world.get(&format!("/v1/job/{id}/allocations"));
            assert_eq!(allocs.as_array().unwrap().len(), 1, "cut {cut_at} reboot {is_reboot}: {allocs}");
            assert_eq!((world.slots("p"), world.children("p")), (vec![60], [0, 0, 1]), "cut {cut_at} reboot {is_reboot}");
            if !was_cut {
                assert!(cut_at > 4, "too short to mean anything: {cut_at} effects");
                break;
            }
            cut_at += 1;
        }
    }
}

/// The agent dies before every effect while a child is forgotten: no folder is left that no row names.
#[test]
fn a_cut_before_every_effect_of_forgetting_leaves_no_folder() {
    let mut cut_at = 0;
    loop {
        let mut world = World::at(EIGHT);
        world.tune = |setting| setting.budget.children_ended_max = 1;
        world.crash(false);
        world.ask(Method::Put, "/v1/jobs", &periodic("p", "* * * * *", ""));
        for _ in 0..3 {
            world.pass(MINUTE_MS);
            world.end_all(0);
            // Something happens before what was decided is durable.
            world.send(Method::Get, "/v1/jobs", "");
            world.feed(Event::Due);
        }
        world.cut_at = Some(world.steps_n + cut_at);
        world.pass(30_000);
        let was_cut = world.is_cut;
        if was_cut {
            world.crash(false);
        }
        world.cut_at = None;
        world.pass(10_000);
        let allocs = world.get("/v1/allocations");
        let known: BTreeSet<String> = allocs.as_array().unwrap().iter().map(|alloc| alloc["ID"].as_str().unwrap().to_owned()).collect();
        let folders: BTreeSet<String> = world.folders.iter().map(ToString::to_string).collect();
        assert!(folders.is_subset(&known), "cut {cut_at}: {folders:?} of {known:?}");
        assert_eq!(world.slots("p").len(), 1, "cut {cut_at}");
        if !was_cut {
            assert!(cut_at > 1, "too short to mean anything: {cut_at} effects");
            break;
        }
        cut_at += 1;
    }
}
