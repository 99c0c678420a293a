//! I2: who may touch the world. A foreign crate or a system call stays behind its port.

use super::{none, sources};

/// Edges of the runtime: the only files of it that call the system.
const RUNTIME_EDGES: &[&str] = &[
    "runtime/src/alloc/dir.rs",
    "runtime/src/cgroup/",
    "runtime/src/driver/",
    "runtime/src/fs/",
    "runtime/src/proc/",
    "runtime/src/shim/",
];

/// What is guarded, and the paths that may name it; `true` = the edges of the runtime too.
const PORTS: &[(&str, &[&str], bool)] = &[
    ("redb", &["agent/src/store/"], false),
    ("postcard", &["agent/src/store/", "runtime/src/shim/"], false),
    ("hyper", &["agent/src/shell/"], false),
    ("smol", &["agent/src/shell/"], false),
    ("futures_rustls", &["agent/src/shell/tls.rs"], false),
    ("nix", &["hal/src/linux/", "agent/src/shell/"], true),
    // The log waits for a stderr that is full: an edge in one line.
    ("rustix", &["hal/src/linux/", "agent/src/shell/", "agent/src/log.rs"], true),
    ("std::fs", &["hal/src/linux/", "agent/src/shell/", "agent/src/cli/", "agent/src/store/backend.rs", "agent/src/config/file.rs"], true),
    ("TcpStream", &["agent/src/shell/"], false),
    ("TcpListener", &["agent/src/shell/"], false),
    ("UnixStream", &["agent/src/shell/"], false),
    ("UdpSocket", &["agent/src/shell/"], false),
    ("std::process", &["agent/src/shell/", "agent/src/cli/", "agent/src/main.rs"], true),
    ("std::thread", &["agent/src/shell/", "agent/src/cli/"], false),
    ("std::env", &["agent/src/shell/", "agent/src/cli/", "agent/src/main.rs"], true),
    ("SystemTime::now", &["hal/src/linux/"], false),
    ("Instant::now", &["hal/src/linux/"], false),
    ("getrandom", &["hal/src/linux/"], false),
];

#[test]
fn each_port_has_its_door() {
    let mut faults = Vec::new();
    // `rig.rs` holds the sockets of unit tests; no build of the product has it.
    let is_product = |path: &str| !path.starts_with("tests/") && !path.contains("/examples/") && !path.ends_with("/rig.rs");
    for source in sources().iter().filter(|source| is_product(&source.path)) {
        for (n, line) in source.code() {
            for (name, doors, is_edge) in PORTS {
                let is_named = line.match_indices(name).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    let after = line[at + name.len()..].chars().next();
                    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
                    !is_word(before)
                        && !is_word(after)
                        && (name.contains("::")
                            || name.contains(char::is_uppercase)
                            || after == Some(':')
                            || line.trim_start().starts_with("use "))
                });
                let mut open = doors.iter().chain(if *is_edge { RUNTIME_EDGES } else { &[] });
                if is_named && !open.any(|door| source.path.starts_with(door)) {
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
    for source in sources().iter().filter(|source| source.path != "tests/tidy/ports.rs") {
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
