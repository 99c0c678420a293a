//! The shortest path through everything.

use dunlin_tests::real::{Options, Real};

#[test]
fn a_job_runs_and_is_seen() {
    let agent = Real::start("smoke", Options::default());
    agent.run(&std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/hello.json")).unwrap());
    let allocs = agent.allocs("hello", 1, |alloc| alloc["ClientStatus"] == "running");
    assert_eq!(allocs[0]["Name"], "hello.shore[0]");
}
