//! Every module says what it is.

use super::{none, sources};

/// Lines a file may have before it must be shown to be one subject.
const LINES_MAX: usize = 950;

#[test]
fn every_file_begins_with_what_it_is() {
    let faults = sources()
        .iter()
        // A `tests.rs` is the tail of the module beside it, which has the header.
        .filter(|source| !source.path.ends_with("/tests.rs") && !source.text.trim_start().starts_with("//!"))
        .map(|source| format!("{}: no header", source.path))
        .collect();
    none(faults);
}

#[test]
fn files_are_one_subject() {
    let faults = sources()
        .iter()
        .filter(|source| source.text.lines().count() > LINES_MAX)
        .map(|source| format!("{}: {} lines", source.path, source.text.lines().count()))
        .collect();
    none(faults);
}
