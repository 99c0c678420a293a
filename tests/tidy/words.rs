//! Words that have no place in the tree, and names our style does not use.

use super::{none, sources};

/// In code: unfinished work, tests that cannot fail.
const UNFINISHED: &[&str] = &["todo!", "unimplemented!", "FIXME", "XXX", "#[ignore"];
/// In names of types: they say nothing.
const EMPTY_NAMES: &[&str] = &["Manager", "Helper", "Util", "Facade"];

#[test]
fn nothing_is_unfinished() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.path != "tests/tidy/words.rs") {
        for (n, line) in source.text.lines().enumerate() {
            for word in UNFINISHED.iter().filter(|word| line.contains(**word)) {
                faults.push(format!("{}:{}: {word}", source.path, n + 1));
            }
        }
    }
    none(faults);
}

#[test]
fn tests_wait_on_events() {
    let mut faults = Vec::new();
    for source in sources().iter().filter(|source| source.path != "tests/tidy/words.rs") {
        for (n, line) in source.text.lines().enumerate() {
            if line.contains("thread::sleep") && !line.contains("// sleep:") {
                faults.push(format!("{}:{}: a sleep without its reason (`// sleep: ...`)", source.path, n + 1));
            }
        }
    }
    none(faults);
}

#[test]
fn type_names_say_something() {
    let mut faults = Vec::new();
    for source in sources() {
        for (n, line) in source.code() {
            let Some(name) = ["struct ", "enum ", "trait "].iter().find_map(|word| line.split(word).nth(1)) else { continue };
            let name = name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
            if EMPTY_NAMES.iter().any(|empty| name.ends_with(empty)) {
                faults.push(format!("{}:{n}: {name}", source.path));
            }
        }
    }
    none(faults);
}
