//! The design as tests: floors, ports, headers, words that have no place in the tree. Pure: reads files as text.
//!
//! Invariants I1 and I2; `ARCHITECTURE.md` says why. A rule that does not fit is changed here, in a commit that says so.

mod dependencies;
mod floors;
mod headers;
mod ports;
mod routes;
mod words;

use std::path::{Path, PathBuf};

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// One source file: its path from the root, and its text.
pub struct Source {
    /// From the root, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
}

impl Source {
    /// Lines of the product: without `mod tests { .. }` at the end, without files of tests, without comments.
    pub fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.path.starts_with("tests/") || self.path.ends_with("/tests.rs") || self.path.contains("/tests/");
        let end = if is_test { Some(0) } else { self.text.lines().position(|line| line.trim_start().starts_with("#[cfg(test)]")) };
        self.text
            .lines()
            .enumerate()
            .take(end.unwrap_or(usize::MAX))
            .map(|(n, line)| (n + 1, line.split("//").next().unwrap_or_default()))
            .filter(|(_, line)| !line.trim().is_empty())
    }
}

/// All Rust files of the workspace.
pub fn sources() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = ["hal", "runtime", "boards", "agent", "tests"].iter().map(|dir| root.join(dir)).collect();
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    waiting.push(path);
                }
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let text = std::fs::read_to_string(&path).expect("UTF-8");
                let path = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 50, "only {} files found: is this the checkout?", found.len());
    found
}

/// Fails with all faults at once.
pub fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
