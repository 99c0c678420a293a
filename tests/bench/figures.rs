//! Figures beside their budgets. `docs/budgets.md` holds the budgets, the figures last committed and the misses with their reasons;
//! this file reads it, judges by it and, when asked to (`DUNLIN_RECORD`), writes the figures back.
//!
//! Shape: (key, value) -> a line of the table and a verdict. Times are judged and printed but never written: they tell of a machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

/// One row of the committed table.
struct Row {
    what: String,
    unit: String,
    budget: Option<f64>,
    committed: Option<f64>,
}

/// A figure was measured, or why it could not be.
pub type Measured = Result<f64, String>;

/// What became of one figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Met,
    Missed,
    Known,
    Skipped,
}

/// The table of one run.
pub struct Figures {
    path: PathBuf,
    text: String,
    rows: BTreeMap<String, Row>,
    misses: BTreeMap<String, String>,
    measured: BTreeMap<String, f64>,
    verdicts: Vec<Verdict>,
}

/// Growth that is noise: a share of the committed figure, and at least this many units.
fn slack(unit: &str) -> f64 {
    match unit {
        "bytes" => 4096.0,
        "KiB" => 16.0,
        "1/s" => 0.5,
        _ => 0.0,
    }
}

/// Worse by more than this share is told.
const WORSE: f64 = 0.03;

impl Figures {
    /// Reads the committed table.
    pub fn committed() -> Self {
        let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/budgets.md"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let (mut rows, mut misses) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            match cells(line).as_slice() {
                [key, what, unit, budget, committed] => {
                    let row =
                        Row { what: (*what).to_owned(), unit: (*unit).to_owned(), budget: number(budget), committed: number(committed) };
                    rows.insert((*key).to_owned(), row);
                }
                [key, reason] => {
                    misses.insert((*key).to_owned(), (*reason).to_owned());
                }
                _ => {}
            }
        }
        Self { path, text, rows, misses, measured: BTreeMap::new(), verdicts: Vec::new() }
    }

    /// Prints a heading.
    pub fn head(&self) {
        println!("{:<54} {:>12} {:>10} {:>10}", "what", "measured", "budget", "committed");
    }

    /// Prints one figure with its verdict. `note` says what is behind it.
    pub fn tell(&mut self, key: &str, measured: Measured, note: &str) {
        let row = self.rows.get(key).unwrap_or_else(|| panic!("{} has no row {key}", self.path.display()));
        let label = format!("{} [{key}]", row.what);
        let value = match measured {
            Ok(value) => value,
            Err(why) => {
                self.verdicts.push(Verdict::Skipped);
                println!("skipped: {label}: {why}");
                return;
            }
        };
        let is_over = row.budget.is_some_and(|budget| value > budget);
        let worse_from = row.committed.map(|committed| committed + (committed * WORSE).max(slack(&row.unit)));
        let mut line = format!(
            "{label:<54} {:>12} {:>10} {:>10}",
            format!("{} {}", shown(value), row.unit),
            row.budget.map_or("-".to_owned(), shown),
            row.committed.map_or("-".to_owned(), shown)
        );
        let verdict = match (is_over, self.misses.get(key)) {
            (true, None) => Verdict::Missed,
            (true, Some(_)) => Verdict::Known,
            (false, _) => Verdict::Met,
        };
        match (verdict, self.misses.get(key)) {
            (Verdict::Missed, _) => line.push_str("  MISS"),
            (Verdict::Known, Some(reason)) => drop(write!(line, "  MISS, known: {reason}")),
            (_, Some(_)) => line.push_str("  met; docs/budgets.md still calls it a miss"),
            _ => {}
        }
        if worse_from.is_some_and(|from| value > from) {
            line.push_str("  WORSE than committed");
        }
        println!("{line}");
        if !note.is_empty() {
            println!("    {note}");
        }
        self.verdicts.push(verdict);
        if row.unit != "ms" {
            self.measured.insert(key.to_owned(), value);
        }
    }

    /// Writes the figures back if asked to, and prints the line all test binaries end with. True when nothing was missed.
    pub fn end(self) -> bool {
        if std::env::var_os("DUNLIN_RECORD").is_some() {
            let mut text = String::new();
            for line in self.text.lines() {
                match cells(line).as_slice() {
                    [key, what, unit, budget, _] if self.measured.contains_key(*key) => {
                        let value = shown(self.measured[*key]);
                        let _ = writeln!(text, "| `{key}` | {what} | {unit} | {budget} | {value} |");
                    }
                    _ => {
                        text.push_str(line);
                        text.push('\n');
                    }
                }
            }
            std::fs::write(&self.path, text).expect("docs/budgets.md is written");
        }
        let count = |verdict| self.verdicts.iter().filter(|one| **one == verdict).count();
        let (missed, met) = (count(Verdict::Missed), count(Verdict::Met) + count(Verdict::Known));
        let word = if missed == 0 { "ok" } else { "FAILED" };
        println!("\ntest result: {word}. {met} passed; {missed} failed; 0 ignored; 0 measured; 0 filtered out");
        missed == 0
    }
}

/// The cells of a table row whose first one is a key in backquotes.
fn cells(line: &str) -> Vec<&str> {
    let Some(inner) = line.strip_prefix("| `").and_then(|line| line.strip_suffix(" |")) else { return Vec::new() };
    let mut cells: Vec<&str> = inner.split(" | ").collect();
    match cells.first_mut().map(|key| (key.strip_suffix('`'), key)) {
        Some((Some(bare), key)) => *key = bare,
        _ => return Vec::new(),
    }
    cells
}

fn number(cell: &str) -> Option<f64> {
    cell.trim().parse().ok()
}

/// Whole numbers as such, others with one place.
fn shown(value: f64) -> String {
    if value.fract().abs() < 0.05 || value > 1000.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}
