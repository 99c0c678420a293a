//! Text for people: aligned columns, `key = value` blocks, sizes, times. Pure; prints nothing.
//!
//! Shape: cells -> text without a last line break. Units: bytes in binary multiples, times in UTC.
//! An empty cell becomes `<none>`, so that every row has the same number of words for awk. Widths count characters.
//! Source: layout of the upstream CLI (v1.10.5 command/helpers.go, behaviour only).

use std::fmt::Write as _;

use dunlin_hal::clock::Wall;

use crate::wire::go_text::civil;

/// Characters of a shortened identifier.
const ID_SHORT_LEN: usize = 8;
/// What an empty cell shows.
const EMPTY: &str = "<none>";

/// A table under construction: rows of cells, the first being the column headings.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    keeps_empty: bool,
}

impl Table {
    /// A table with these column headings, separated by `|`.
    #[must_use]
    pub fn new(headings: &str) -> Self {
        Self { rows: vec![headings.split('|').map(str::to_owned).collect()], keeps_empty: false }
    }

    /// Leaves empty cells empty (tables whose later rows only continue some columns).
    #[must_use]
    pub fn keep_empty(mut self) -> Self {
        self.keeps_empty = true;
        self
    }

    /// Adds a row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Adds a row of any length.
    pub fn push(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// True when there are only headings.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&align(&self.rows, "  ", if self.keeps_empty { "" } else { EMPTY }))
    }
}

/// A block of `key = value` lines.
#[derive(Debug, Default)]
pub struct Pairs {
    rows: Vec<Vec<String>>,
}

impl Pairs {
    /// Adds a line.
    pub fn add(&mut self, key: &str, value: impl Into<String>) -> &mut Self {
        self.rows.push(vec![key.to_owned(), value.into()]);
        self
    }
}

impl std::fmt::Display for Pairs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&align(&self.rows, " = ", EMPTY))
    }
}

/// Pads every cell but the last of its row to the widest of its column. Line breaks inside cells become spaces.
fn align(rows: &[Vec<String>], glue: &str, empty: &str) -> String {
    let clean = |cell: &String| {
        let cell: String = cell.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if cell.is_empty() { empty.to_owned() } else { cell }
    };
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(clean).collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(column) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            if column > 0 {
                line.push_str(glue);
            }
            line.push_str(cell);
            if column + 1 < row.len() {
                let missing = widths.get(column).map_or(0, |width| width.saturating_sub(cell.chars().count()));
                line.extend(std::iter::repeat_n(' ', missing));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.pop();
    out
}

/// How identifiers are shown: shortened to 8 characters unless `-verbose` asks for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// The first 8 characters.
    Short,
    /// All of it.
    Full,
}

impl Ids {
    /// `Full` when verbose.
    #[must_use]
    pub fn of(verbose: bool) -> Self {
        if verbose { Self::Full } else { Self::Short }
    }

    /// The identifier as it is shown.
    #[must_use]
    pub fn show(self, id: &str) -> String {
        match self {
            Self::Short => id.chars().take(ID_SHORT_LEN).collect(),
            Self::Full => id.to_owned(),
        }
    }
}

/// Bytes with a binary unit: `16 MiB`, `1.2 GiB`; one decimal below 10.
#[must_use]
pub fn bytes(n: i64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let n = u64::try_from(n).unwrap_or(0);
    if n < 10 {
        return format!("{n} B");
    }
    let exponent = n.ilog2() / 10;
    let unit = UNITS.get(usize::try_from(exponent).unwrap_or(0)).unwrap_or(&"B");
    // Tenths of the unit, rounded half up; 128 bits because n * 10 may pass 64.
    let tenths = (u128::from(n) * 10 + (1_u128 << (10 * exponent)) / 2) >> (10 * exponent);
    if tenths >= 100 { format!("{} {unit}", (tenths + 5) / 10) } else { format!("{}.{} {unit}", tenths / 10, tenths % 10) }
}

/// Mebibytes as bytes.
#[must_use]
pub fn mebibytes(n: i64) -> String {
    bytes(n.saturating_mul(1 << 20))
}

/// `2026-11-22T07:05:47Z`; empty for the unset time.
#[must_use]
pub fn time(at: Wall) -> String {
    if at.seconds() < 1 {
        return String::new();
    }
    let (days, second) = (at.seconds().div_euclid(86_400), at.seconds().rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// The same on a clock so many seconds ahead of UTC: `2026-11-22T08:05:47+01:00`.
#[must_use]
pub fn time_in(at: Wall, ahead_s: i64) -> String {
    let shown = time(Wall(at.0.saturating_add(ahead_s.saturating_mul(1_000_000_000))));
    if ahead_s == 0 {
        return shown;
    }
    let (sign, minutes) = (if ahead_s < 0 { '-' } else { '+' }, ahead_s.unsigned_abs() / 60);
    format!("{}{sign}{:02}:{:02}", shown.trim_end_matches('Z'), minutes / 60, minutes % 60)
}

/// `3m10s ago` or `5s from now`: the two largest periods that are not zero; empty for the unset time.
/// A month has 30 days and a year 12 months, as upstream counts.
#[must_use]
pub fn ago(at: Wall, now: Wall) -> String {
    if at.is_unset() {
        return String::new();
    }
    let round = |time: Wall| Wall(time.0.saturating_add(500_000_000)).seconds();
    let delta = round(now) - round(at);
    let mut rest = delta.unsigned_abs();
    let mut parts = Vec::new();
    for (unit, size) in [("s", 60), ("m", 60), ("h", 24), ("d", 30), ("mo", 12), ("y", u64::MAX)] {
        if rest % size > 0 {
            parts.push(format!("{}{unit}", rest % size));
        }
        rest /= size;
    }
    let span = if parts.is_empty() { "0s".to_owned() } else { parts.into_iter().rev().take(2).collect() };
    format!("{span} {}", if delta >= 0 { "ago" } else { "from now" })
}

/// A time for a table: exact when verbose, else relative to now.
#[must_use]
pub fn when(at: Wall, now: Wall, verbose: bool) -> String {
    if verbose { time(at) } else { ago(at, now) }
}

/// A number with thousands separated and two decimals: `12,345.68`.
#[must_use]
pub fn decimal(n: f64) -> String {
    let text = format!("{:.2}", n.abs());
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, "00"));
    let mut out = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    let sign = if n < 0.0 && text.contains(|c: char| ('1'..='9').contains(&c)) { "-" } else { "" };
    format!("{sign}{out}.{fraction}")
}

/// `"text"` with quotes and backslashes escaped and control characters made visible.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new("ID|Status");
        table.row(["a".into(), "running".into()]);
        table.row(["größer".into(), String::new()]);
        table.row(["c\nd".into(), "x".into()]);
        assert_eq!(table.to_string(), "ID      Status\na       running\ngrößer  <none>\nc d     x");
        assert!(Table::new("A|B").is_empty() && !table.is_empty());
        let mut table = Table::new("CPU|Memory|Addresses").keep_empty();
        table.row(["5 MHz".into(), "16 MiB".into(), "http: 1:2".into()]);
        table.row([String::new(), "Max: 32 MiB".into(), String::new()]);
        assert_eq!(table.to_string(), "CPU    Memory       Addresses\n5 MHz  16 MiB       http: 1:2\n       Max: 32 MiB");
        let mut pairs = Pairs::default();
        pairs.add("ID", "x").add("Node Name", "");
        assert_eq!(pairs.to_string(), "ID        = x\nNode Name = <none>");
        assert_eq!(Pairs::default().to_string(), "");
    }

    #[test]
    fn sizes() {
        for (n, want) in [
            (-1, "0 B"),
            (0, "0 B"),
            (9, "9 B"),
            (10, "10 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1588, "1.6 KiB"),
            (10_188, "9.9 KiB"),
            (10_239, "10 KiB"),
            (16 << 20, "16 MiB"),
            (33_140_736, "32 MiB"),
            (i64::MAX, "8.0 EiB"),
        ] {
            assert_eq!(bytes(n), want, "{n}");
        }
        assert_eq!(mebibytes(20), "20 MiB");
        assert_eq!(mebibytes(i64::MAX), "8.0 EiB");
    }

    #[test]
    fn times() {
        assert_eq!(time(Wall(1_795_331_147_379_317_418)), "2026-11-22T07:05:47Z");
        assert_eq!(time(Wall(1_709_164_800 * SECOND)), "2024-02-29T00:00:00Z");
        assert_eq!((time(Wall::UNSET), time(Wall(-5)), time(Wall(i64::MIN))), Default::default());
        assert_eq!(time(Wall(i64::MAX)), "2262-04-11T23:47:16Z");
        assert_eq!(time_in(Wall(1_795_331_147 * SECOND), 0), "2026-11-22T07:05:47Z");
        assert_eq!(time_in(Wall(1_795_331_147 * SECOND), 3600), "2026-11-22T08:05:47+01:00");
        assert_eq!(time_in(Wall(1_795_331_147 * SECOND), -12_600), "2026-11-22T03:35:47-03:30");
    }

    #[test]
    fn spans() {
        #[track_caller]
        fn check(seconds: i64, want: &str) {
            assert_eq!(ago(Wall(1_800_000_000 * SECOND), Wall((1_800_000_000 + seconds) * SECOND)), want);
        }
        check(0, "0s ago");
        check(59, "59s ago");
        check(60, "1m ago");
        check(190, "3m10s ago");
        check(3605, "1h5s ago");
        check(3665, "1h1m ago");
        check(86_400 * 31 + 7200, "1mo1d ago");
        check(86_400 * 360, "1y ago");
        check(-5, "5s from now");
        assert_eq!(ago(Wall::UNSET, Wall(SECOND)), "");
        assert_eq!(ago(Wall(10 * SECOND + 400_000_000), Wall(10 * SECOND + 600_000_000)), "1s ago");
        assert_eq!(ago(Wall(i64::MIN), Wall(i64::MAX)), "593y23d ago");
    }

    #[test]
    fn numbers_and_quotes() {
        for (n, want) in [(0.0, "0.00"), (12_345.678, "12,345.68"), (999.999, "1,000.00"), (-1234.5, "-1,234.50"), (-0.001, "0.00")] {
            assert_eq!(decimal(n), want);
        }
        assert_eq!(quoted("a\"b\\c\n\u{1b}"), "\"a\\\"b\\\\c\\n\\u{1b}\"");
        assert_eq!((Ids::Short.show("0123456789"), Ids::of(true).show("0123456789")), ("01234567".into(), "0123456789".into()));
    }
}
