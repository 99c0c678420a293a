//! What differs between two versions of a job, as text. Pure: a `JobDiff` as the API answers it -> lines.
//!
//! Marks: `+` added, `-` deleted, `+/-` edited, none the same; names stand below each other, whatever their marks. Values are quoted.
//! A group or task that is new or gone is one line unless verbose. Never coloured: the marks say the same, in a file too. Widths count
//! characters, where upstream counts bytes.
//! Bounds: the answer's own. Source: layout of the upstream CLI (v1.10.0 command/job_plan.go, behaviour only); `golden/plans.txt`
//! holds what it prints.

use serde_json::Value;

use super::answer::Answer as _;
use crate::wire::go_text::quote;

/// The whole diff, without a last line break.
pub(super) fn text(diff: &Value, verbose: bool) -> String {
    let mut out = format!("{}Job: {}\n", mark(diff), quote(diff.text("ID")));
    let groups = diff.items("TaskGroups");
    let widths = Widths::of(diff, groups);
    if diff.text("Type") == "Edited" || verbose {
        out.push_str(&ended(members(diff, 0, widths)));
    }
    for diff in groups {
        out.push_str(&group(diff, widths.gap(diff), verbose));
        out.push('\n');
    }
    out.trim().to_owned()
}

/// `gap`: blanks between its mark and its name.
fn group(diff: &Value, gap: usize, verbose: bool) -> String {
    let mut out = format!("{}{:gap$}Task Group: {}", mark(diff), "", quote(diff.text("Name")));
    let updates: Vec<String> = diff.members("Updates").iter().map(|(what, count)| format!("{count} {what}")).collect();
    if !updates.is_empty() {
        out.push_str(&format!(" ({})", updates.join(", ")));
    }
    out.push('\n');
    let tasks = diff.items("Tasks");
    let widths = Widths::of(diff, tasks);
    let indent = gap + 2;
    if diff.text("Type") == "Edited" || verbose {
        out.push_str(&ended(members(diff, indent, widths)));
    }
    for diff in tasks {
        out.push_str(&task(diff, indent, widths.gap(diff), verbose));
        out.push('\n');
    }
    out
}

fn task(diff: &Value, indent: usize, gap: usize, verbose: bool) -> String {
    let mut out = format!("{:indent$}{}{:gap$}Task: {}{}", "", mark(diff), "", quote(diff.text("Name")), annotations(diff));
    if diff.text("Type") == "Edited" || verbose && diff.text("Type") != "None" {
        out.push('\n');
        out.push_str(&members(diff, indent + 2, Widths::of(diff, &[])));
    }
    out
}

/// Fields, then blocks, a line each at least; no last line break.
fn members(diff: &Value, indent: usize, widths: Widths) -> String {
    let fields = diff.items("Fields").iter().map(|diff| field(diff, indent, widths));
    let objects = diff.items("Objects").iter().map(|diff| object(diff, indent, widths.gap(diff)));
    fields.chain(objects).collect::<Vec<_>>().join("\n")
}

fn object(diff: &Value, indent: usize, gap: usize) -> String {
    let mark = mark(diff);
    let inner = members(diff, indent + gap + 2, Widths::of(diff, &[]));
    let end = indent + gap + mark.len();
    format!("{:indent$}{mark}{:gap$}{} {{\n{inner}\n{:end$}}}", "", "", diff.text("Name"), "")
}

fn field(diff: &Value, indent: usize, widths: Widths) -> String {
    let (old, new) = (quote(diff.text("Old")), quote(diff.text("New")));
    let value = match diff.text("Type") {
        "Deleted" => old,
        "Edited" => format!("{old} => {new}"),
        _ => new,
    };
    let (name, gap) = (diff.text("Name"), widths.gap(diff));
    let pad = widths.name - name.chars().count().min(widths.name);
    format!("{:indent$}{}{:gap$}{name}: {:pad$}{value}{}", "", mark(diff), "", "", annotations(diff))
}

fn annotations(diff: &Value) -> String {
    let all: Vec<&str> = diff.items("Annotations").iter().filter_map(Value::as_str).collect();
    if all.is_empty() { String::new() } else { format!(" ({})", all.join(", ")) }
}

fn mark(diff: &Value) -> &'static str {
    match diff.text("Type") {
        "Added" => "+ ",
        "Deleted" => "- ",
        "Edited" => "+/- ",
        _ => "",
    }
}

/// Widest name of the fields and widest mark of all that stands in one column.
#[derive(Clone, Copy)]
struct Widths {
    name: usize,
    mark: usize,
}

impl Widths {
    /// Of the fields and blocks of `diff` and of `more` that stands below them.
    fn of(diff: &Value, more: &[Value]) -> Self {
        let fields = diff.items("Fields");
        let all = fields.iter().chain(diff.items("Objects")).chain(more);
        Self {
            name: fields.iter().map(|field| field.text("Name").chars().count()).max().unwrap_or(0),
            mark: all.map(|diff| mark(diff).len()).max().unwrap_or(0),
        }
    }

    /// Blanks between the mark of `diff` and its name.
    fn gap(self, diff: &Value) -> usize {
        self.mark - mark(diff).len().min(self.mark)
    }
}

/// A text that is not empty ends its line.
fn ended(text: String) -> String {
    if text.is_empty() { text } else { text + "\n" }
}
