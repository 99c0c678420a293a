//! Does the kernel agree? Real processes, killed at the worst moment.

mod agent_killed;
mod disk;
mod ends;
mod flood;
mod job;
mod limits;
mod replaced;
mod shim;
mod smoke;
mod supervised;
mod writes;

use std::time::{Duration, Instant};

/// A number of the environment, else `default`.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap_or_else(|why| panic!("{name}={text}: {why}")))
}

/// Waits for what tells nobody when it happens: a file, a process of somebody else, a cgroup.
#[track_caller]
fn eventually(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "it never became so");
        std::thread::sleep(Duration::from_millis(5)); // sleep: nobody tells
    }
}
