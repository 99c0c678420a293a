//! The agent dies and comes back.

use dunlin_tests::real::{Options, Real};

#[test]
fn a_task_outlives_its_agent() {
    let agent = Real::start("outlives", Options::default());
    agent.run(&std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/hello.json")).unwrap());
    let before = agent.allocs("hello", 1, |alloc| alloc["ClientStatus"] == "running");
    let (scratch, options) = agent.kill();
    let agent = Real::start_in(scratch, options);
    let after = agent.allocs("hello", 1, |alloc| alloc["ClientStatus"] == "running");
    let events = |alloc: &serde_json::Value| -> Vec<String> {
        let events = alloc["TaskStates"]["watch"]["Events"].as_array().unwrap();
        events.iter().map(|event| event["Type"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(events(&before[0]), events(&after[0]));
    assert_eq!(before[0]["TaskStates"]["watch"]["StartedAt"], after[0]["TaskStates"]["watch"]["StartedAt"]);
    assert_eq!(before[0]["ID"], after[0]["ID"]);
}
