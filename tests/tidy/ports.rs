//! I2: who may touch the world. A foreign crate or a system call stays behind its port.

use super::{none, sources};

/// What is guarded, and the paths that may name it.
const PORTS: &[(&str, &[&str])] = &[
    ("redb", &["agent/src/store/"]),
    ("postcard", &["agent/src/store/", "runtime/src/shim/"]),
    ("hyper", &["agent/src/shell/"]),
    ("smol", &["agent/src/shell/"]),
    ("http_body_util", &["agent/src/shell/"]),
    (
        "nix",
        &[
            "hal/src/linux/",
            "runtime/src/proc/",
            "runtime/src/cgroup/",
            "runtime/src/shim/",
            "runtime/src/fs/",
            "runtime/src/alloc/dir.rs",
            "runtime/src/driver/",
            "agent/src/shell/",
        ],
    ),
    (
        "rustix",
        &[
            "hal/src/linux/",
            "runtime/src/proc/",
            "runtime/src/cgroup/",
            "runtime/src/shim/",
            "runtime/src/fs/",
            "runtime/src/alloc/dir.rs",
            "runtime/src/driver/",
            "agent/src/shell/",
        ],
    ),
    (
        "std::fs",
        &[
            "hal/src/linux/",
            "runtime/src/proc/",
            "runtime/src/cgroup/",
            "runtime/src/shim/",
            "runtime/src/fs/",
            "runtime/src/alloc/dir.rs",
            "runtime/src/driver/",
            "agent/src/shell/",
            "agent/src/cli/",
            "agent/src/store/backend.rs",
            "agent/src/config/file.rs",
        ],
    ),
    ("std::net", &["agent/src/shell/", "agent/src/cli/", "hal/src/linux/"]),
    (
        "std::process",
        &["runtime/src/proc/", "runtime/src/shim/", "runtime/src/driver/", "agent/src/shell/", "agent/src/cli/", "agent/src/main.rs"],
    ),
    ("std::thread", &["agent/src/shell/"]),
    ("std::env", &["agent/src/shell/", "agent/src/cli/", "agent/src/main.rs"]),
    ("SystemTime::now", &["hal/src/linux/"]),
    ("Instant::now", &["hal/src/linux/"]),
    ("getrandom", &["hal/src/linux/"]),
];

#[test]
fn each_port_has_its_door() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| !source.path.starts_with("tests/") && !source.path.contains("/examples/")) {
        for (n, line) in source.code() {
            for (name, doors) in PORTS {
                let is_named = line.match_indices(name).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    let after = line[at + name.len()..].chars().next();
                    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                    !is_word(before)
                        && !is_word(after)
                        && (name.contains("::") || after == Some(':') || line.trim_start().starts_with("use "))
                });
                if is_named && !doors.iter().any(|door| source.path.starts_with(door)) {
                    faults.push(format!("{}:{n}: `{name}` belongs behind {}", source.path, doors.join(", ")));
                }
            }
        }
    }
    none(faults);
}

#[test]
fn unsafe_says_why() {
    let mut faults = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let opens = code.contains("unsafe {") || code.contains("unsafe impl") || code.contains("unsafe extern");
            if opens && !lines[n.saturating_sub(6)..=n].iter().any(|near| near.contains("SAFETY:")) {
                faults.push(format!("{}:{}: unsafe without a SAFETY line", source.path, n + 1));
            }
        }
    }
    none(faults);
}
