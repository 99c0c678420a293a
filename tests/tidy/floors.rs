//! I1: arrows point down.

use super::{none, root, sources};

/// Which crates a crate may name.
const CRATES: &[(&str, &[&str])] = &[
    ("hal/", &["dunlin_hal"]),
    ("runtime/", &["dunlin_runtime", "dunlin_hal"]),
    ("boards/", &["dunlin_boards", "dunlin_hal"]),
    ("agent/", &["dunlin", "dunlin_runtime", "dunlin_boards", "dunlin_hal"]),
    ("tests/", &["dunlin", "dunlin_runtime", "dunlin_boards", "dunlin_hal", "dunlin_tests"]),
];

/// Words of the floors above that `runtime` must not know.
const ABOVE_RUNTIME: &[&str] = &["hyper", "http", "serde_json", "redb", "smol", "json", "upstream", "msgpack"];

#[test]
fn crates_name_only_crates_below() {
    let mut faults = Vec::new();
    for source in sources() {
        let Some((_, allowed)) = CRATES.iter().find(|(dir, _)| source.path.starts_with(dir)) else { continue };
        for (n, line) in source.code() {
            for word in line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| word.starts_with("dunlin")) {
                let is_crate = word == "dunlin" || ["dunlin_hal", "dunlin_runtime", "dunlin_boards", "dunlin_tests"].contains(&word);
                if is_crate && line.contains(&format!("{word}::")) && !allowed.contains(&word) {
                    faults.push(format!("{}:{n}: {word} is not below", source.path));
                }
            }
        }
    }
    none(faults);
}

#[test]
fn the_agents_floors_are_kept() {
    let list = std::fs::read_to_string(root().join("tests/tidy/floors.txt")).expect("floors.txt");
    let floors: Vec<&str> = list.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let height = |module: &str| floors.iter().position(|floor| *floor == module);
    let mut faults = Vec::new();
    for source in sources() {
        let Some(inner) = source.path.strip_prefix("agent/src/") else { continue };
        let module = inner.split(['/', '.']).next().unwrap_or_default();
        if module == "lib" || module == "main" {
            continue;
        }
        let Some(own) = height(module) else {
            faults.push(format!("{}: module {module} is not in floors.txt", source.path));
            continue;
        };
        for (n, line) in source.code() {
            for used in line.match_indices("crate::").map(|(at, word)| &line[at + word.len()..]) {
                let used = used.trim_start_matches('{').split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
                match height(used) {
                    Some(other) if other > own => faults.push(format!("{}:{n}: {module} uses {used}, which is above it", source.path)),
                    _ => {}
                }
            }
        }
    }
    none(faults);
}

#[test]
fn runtime_knows_no_words_of_the_floors_above() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.path.starts_with("runtime/src/")) {
        for (n, line) in source.code() {
            let words: Vec<String> = line.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_lowercase).collect();
            for word in ABOVE_RUNTIME {
                if words.iter().any(|used| used == word) {
                    faults.push(format!("{}:{n}: `{word}`", source.path));
                }
            }
        }
    }
    none(faults);
}
