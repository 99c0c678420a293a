//! What is over is forgotten after its time, and nothing else is.

use super::*;

const HOUR_MS: u64 = 3_600_000;

impl World {
    fn sleep(&mut self, ms: u64) {
        self.now.mono = self.now.mono.after_ms(ms);
        self.now.wall = Wall(self.now.wall.0 + i64::try_from(ms * 1_000_000).unwrap());
        self.feed(Event::Due);
        while self.wait(10_000) {}
    }

    fn end_job(&mut self, job: &str) {
        for inv in self.alive() {
            if self.core.store.view().alloc(self.processes[&inv].alloc).unwrap().unwrap().job.id == job {
                self.end(inv, 0, 0);
            }
        }
    }

    fn count(&mut self, path: &str) -> usize {
        self.get(path).as_array().unwrap().len()
    }

    fn counts(&mut self) -> [usize; 4] {
        ["/v1/jobs", "/v1/allocations", "/v1/evaluations", "/v1/deployments"].map(|path| self.count(path))
    }
}

/// A second job that ends, to have something end.
fn end_something(world: &mut World) {
    world.ask(Method::Put, "/v1/jobs", &job("ends", "batch", 1));
    world.end_job("ends");
}

#[test]
fn what_is_over_is_forgotten_after_its_time() {
    let mut world = World::new(1);
    world.now.wall = Wall(1_800_000_000_000_000_000);
    world.ask(Method::Put, "/v1/jobs", &job("runs", "service", 1));
    world.ask(Method::Put, "/v1/jobs", &job("gone", "service", 1));
    world.ask(Method::Delete, "/v1/job/gone", "");
    world.ask(Method::Put, "/v1/jobs", &job("done", "batch", 1));
    world.end_job("done");
    while world.wait(20_000) {}
    assert_eq!(world.counts(), [3, 3, 5, 2]);
    // After an hour the allocations and evaluations of what was stopped; not the job that runs, nor what made its allocation. Work that
    // is done goes with its job: without it the job would be done again.
    world.sleep(HOUR_MS + 60_000);
    end_something(&mut world);
    while world.wait(10_000) {}
    assert_eq!(world.get("/v1/job/gone/allocations").as_array().unwrap().len(), 0);
    assert_eq!(world.get("/v1/job/done/allocations").as_array().unwrap().len(), 1);
    assert_eq!(world.get("/v1/job/runs/allocations").as_array().unwrap().len(), 1);
    let made_by = world.get("/v1/job/runs/allocations")[0]["EvalID"].as_str().unwrap().to_owned();
    world.get(&format!("/v1/evaluation/{made_by}"));
    assert_eq!(world.count("/v1/jobs"), 4, "jobs stay longer");
    world.sleep(4 * HOUR_MS);
    end_something(&mut world);
    while world.wait(10_000) {}
    world.sleep(2 * HOUR_MS);
    end_something(&mut world);
    while world.wait(10_000) {}
    let jobs: Vec<String> = world.get("/v1/jobs").as_array().unwrap().iter().map(|job| job["ID"].as_str().unwrap().to_owned()).collect();
    assert_eq!(jobs, ["ends", "runs"]);
    // It runs on, and what it says of itself is whole.
    assert_eq!(world.get("/v1/job/runs")["Status"], "running");
    assert_eq!(world.get("/v1/job/runs/summary")["Summary"]["g"]["Running"], 1);
}

#[test]
fn a_clock_that_was_never_set_forgets_nothing() {
    let mut world = World::new(1);
    world.now.wall = Wall(1_000_000_000);
    world.crash(true);
    world.ask(Method::Put, "/v1/jobs", &job("done", "batch", 1));
    world.end_all(0);
    let before = world.counts();
    world.now.wall = Wall(world.now.wall.0 + 1_000_000_000_000_000);
    world.sleep(HOUR_MS);
    world.ask(Method::Put, "/v1/jobs", &job("done2", "batch", 1));
    world.end_all(0);
    while world.wait(10_000) {}
    assert_eq!(world.count("/v1/job/done/allocations"), before[1]);
}

#[test]
fn a_user_may_have_it_forgotten_at_once() {
    let mut world = World::new(1);
    world.ask(Method::Put, "/v1/jobs", &job("runs", "service", 1));
    world.ask(Method::Put, "/v1/jobs", &job("done", "batch", 2));
    world.end_job("done");
    let posted = world.send(Method::Post, "/v1/system/gc", "");
    assert_eq!(world.replies.remove(&posted).unwrap().0, 405);
    let asked = world.send(Method::Put, "/v1/system/gc", "");
    assert_eq!(world.replies.remove(&asked).unwrap(), (200, String::new()));
    while world.wait(10_000) {}
    // Folders first, then rows, then the job they were of, and that of one ask.
    assert_eq!(world.count("/v1/jobs"), 1);
    assert_eq!(world.count("/v1/allocations"), 1);
    world.crash(true);
    assert_eq!(world.count("/v1/jobs"), 1);
    assert_eq!(world.alive().len(), 1, "what runs is not touched");
}

#[test]
fn what_was_done_is_not_done_again_when_its_rows_are_too_many() {
    let mut world = World::new(1);
    world.core.setting.budget.allocs_terminal_max = 1;
    world.core.setting.budget.alloc_rows_max = 4;
    world.ask(Method::Put, "/v1/jobs", &job("part", "batch", 6));
    let first = world.alive();
    for inv in first.iter().take(5) {
        world.end(*inv, 0, 0);
    }
    while world.wait(10_000) {}
    assert!(world.count("/v1/job/part/allocations") <= 4);
    for _ in 0..3 {
        world.ask(Method::Put, "/v1/job/part/evaluate", r#"{"JobID":"part"}"#);
        world.crash(false);
        while world.wait(10_000) {}
    }
    assert_eq!(world.alive(), first[5..], "five of six were done, and stay so");
    let summary = world.get("/v1/job/part/summary");
    assert_eq!((&summary["Summary"]["g"]["Complete"], &summary["Summary"]["g"]["Running"]), (&Value::from(5), &Value::from(1)));
    // Another version is other work.
    world.ask(Method::Put, "/v1/jobs", &job("part", "batch", 6).replace("/bin/x", "/bin/y"));
    while world.wait(10_000) {}
    world.end(first[5], 130, 2);
    while world.wait(10_000) {}
    assert_eq!(world.alive().len(), 6);
}
