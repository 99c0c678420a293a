//! The official Go client module against our agent: `goclient/` is built with the Go at hand and run once.

use std::process::Command;

use dunlin_tests::golden;
use dunlin_tests::real::{Options, Real};

#[test]
fn the_official_client_decodes_our_answers() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/conformance/goclient");
    if Command::new("go").arg("version").output().is_err() {
        dunlin_tests::skip!("no go")
    }
    let agent = Real::start("goclient", Options::default());
    let program = agent.path().join("goclient");
    // Only what go.sum pins; the checksum database need not be asked.
    let built = Command::new("nice")
        .args(["-n", "5", "go", "build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(folder)
        .env("GOFLAGS", "-mod=readonly -buildvcs=false")
        .env("GONOSUMDB", "*")
        .output()
        .expect("nice runs");
    let why = String::from_utf8_lossy(&built.stderr).into_owned();
    if ["dial tcp", "no such host", "connection refused", "i/o timeout"].iter().any(|word| why.contains(word)) {
        dunlin_tests::skip!("the client's modules cannot be fetched: {}", why.lines().last().unwrap_or_default())
    }
    assert!(built.status.success(), "{why}");
    let job = agent.path().join("telemetry.json");
    std::fs::write(&job, golden::job("telemetry")).unwrap();
    let ran = Command::new(&program)
        .arg(&job)
        .env("NOMAD_ADDR", format!("http://{}", agent.addr))
        .env_remove("NOMAD_TOKEN")
        .env_remove("NOMAD_NAMESPACE")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}\n{}\n{}", String::from_utf8_lossy(&ran.stderr), agent.log());
    let last = said.lines().last().unwrap_or_default();
    println!("{last}");
    let calls_n: u32 = last.strip_prefix("client: ").and_then(|rest| rest.split(' ').next()?.parse().ok()).unwrap_or(0);
    assert!(calls_n >= 60, "{last}");
}
