//! Recorded answers and job files, as committed under `tests/fixtures`.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// `tests/fixtures`.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// A job file of `tests/fixtures/jobs`, as posted.
#[track_caller]
pub fn job(name: &str) -> Vec<u8> {
    let path = fixtures().join("jobs").join(format!("{name}.json"));
    std::fs::read(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// The lines of a file of JSON lines below `tests/fixtures`.
#[track_caller]
pub fn lines(name: &str) -> Vec<Value> {
    let path = fixtures().join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
