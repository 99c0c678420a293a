//! Zone files (TZif, RFC 9636): bytes -> how far the clocks of a zone are from UTC. Pure.
//!
//! ```text
//! TZif <version> 15 reserved bytes, then counts as u32 be: ut flags, std flags, leap seconds, times, types, name bytes
//! times * (i32 | i64 be), times * u8 type, types * (i32 be ahead of UTC, u8 is summer, u8 name), names, leap seconds, flags
//! from version 2 on the same once more with i64 times, then a line with the rule for what comes after the last time
//! ```
//! Units: seconds. Errors: `None` for anything else, and for files that count leap seconds. Bound: what the file has.
//! Checked against Go's library on all zones of tzdata 2025c, from 1970 to 2100, every three days.

use super::go_text::{civil, days_from_civil};

const HEADER_BYTES: usize = 44;
const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;
/// Further away than this the calendar is not asked: some 35 million years.
const FAR_S: i64 = 1 << 50;

/// One zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tzif {
    /// Before the first change.
    first_s: i64,
    /// When the clocks were put, and how far ahead of UTC they are from then on; ascending.
    changes: Vec<(i64, i64)>,
    /// After the last change; `None` = as after it.
    rule: Option<Rule>,
}

/// What the line at the end says: in POSIX words, `CET-1CEST,M3.5.0,M10.5.0/3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rule {
    ahead_s: i64,
    summer: Option<Summer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Summer {
    ahead_s: i64,
    begin: Moment,
    end: Moment,
}

/// A day of each year, and the time on its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Moment {
    day: Day,
    of_day_s: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Day {
    /// Month, week (5 = the last), weekday from Sunday.
    Weekday(i64, i64, i64),
    /// Day of the year from 1; 29 February is not counted.
    NoLeap(i64),
    /// Day of the year from 0.
    OfYear(i64),
}

impl Tzif {
    /// Reads a file.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (block, rest, version) = block(bytes, 4)?;
        if version == 0 {
            return Some(block);
        }
        let (block, rest, _) = self::block(rest, 8)?;
        let line = rest.strip_prefix(b"\n")?;
        let line = line.get(..line.iter().position(|byte| *byte == b'\n')?)?;
        let rule = if line.is_empty() { None } else { Some(Rule::parse(core::str::from_utf8(line).ok()?)?) };
        Some(Self { rule, ..block })
    }

    /// Seconds the clocks are ahead of UTC at an instant.
    #[must_use]
    pub fn ahead_s(&self, at_s: i64) -> i64 {
        let at_s = at_s.clamp(-FAR_S, FAR_S);
        let after = self.changes.partition_point(|(change_s, _)| *change_s <= at_s);
        match (after.checked_sub(1).and_then(|i| self.changes.get(i)), &self.rule) {
            (_, Some(rule)) if after == self.changes.len() => rule.ahead_s(at_s),
            (Some((_, ahead_s)), _) => *ahead_s,
            (None, _) => self.first_s,
        }
    }
}

/// One header and its data; what follows them, and the version.
fn block(bytes: &[u8], time_bytes: usize) -> Option<(Tzif, &[u8], u8)> {
    let (header, data) = bytes.split_at_checked(HEADER_BYTES)?;
    let version = *header.get(4)?;
    let count = |i: usize| -> Option<usize> { usize::try_from(u32::from_be_bytes(*header.get(20 + 4 * i..)?.first_chunk()?)).ok() };
    let (flags_n, leaps_n, times_n) = (count(0)?.checked_add(count(1)?)?, count(2)?, count(3)?);
    let (types_n, names_n) = (count(4)?, count(5)?);
    if !header.starts_with(b"TZif") || leaps_n > 0 {
        return None;
    }
    let (times, data) = data.split_at_checked(times_n.checked_mul(time_bytes)?)?;
    let (indexes, data) = data.split_at_checked(times_n)?;
    let (types, data) = data.split_at_checked(types_n.checked_mul(6)?)?;
    let (_, rest) = data.split_at_checked(names_n.checked_add(flags_n)?)?;
    let ahead = |i: usize| Some(i64::from(i32::from_be_bytes(*types.get(6 * i..)?.first_chunk()?)));
    let time = |text: &[u8]| match text.first_chunk() {
        Some(long) => Some(i64::from_be_bytes(*long)),
        None => Some(i64::from(i32::from_be_bytes(*text.first_chunk()?))),
    };
    let changes = times.chunks(time_bytes).zip(indexes).map(|(text, index)| Some((time(text)?, ahead(usize::from(*index))?)));
    let changes = changes.collect::<Option<Vec<_>>>()?;
    if !changes.is_sorted_by_key(|(change_s, _)| *change_s) {
        return None;
    }
    Some((Tzif { first_s: ahead(0)?, changes, rule: None }, rest, version))
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let text = name(text)?;
        // Its sign is that of the west.
        let (behind_s, text) = clock(text)?;
        let ahead_s = -behind_s;
        if text.is_empty() {
            return Some(Self { ahead_s, summer: None });
        }
        let text = name(text)?;
        let (summer_s, text) = if text.starts_with(',') {
            (ahead_s + HOUR_S, text)
        } else {
            let (behind_s, text) = clock(text)?;
            (-behind_s, text)
        };
        let (begin, end) = text.strip_prefix(',')?.split_once(',')?;
        let summer = Summer { ahead_s: summer_s, begin: Moment::parse(begin)?, end: Moment::parse(end)? };
        Some(Self { ahead_s, summer: Some(summer) })
    }

    fn ahead_s(&self, at_s: i64) -> i64 {
        let Some(summer) = &self.summer else { return self.ahead_s };
        let (year, ..) = civil(at_s.saturating_add(self.ahead_s).div_euclid(DAY_S));
        let begin_s = summer.begin.in_year_s(year) - self.ahead_s;
        let end_s = summer.end.in_year_s(year) - summer.ahead_s;
        // In the south the year begins in summer.
        let is_summer = if begin_s < end_s { (begin_s..end_s).contains(&at_s) } else { !(end_s..begin_s).contains(&at_s) };
        if is_summer { summer.ahead_s } else { self.ahead_s }
    }
}

/// What follows a name: letters, or anything between `<` and `>`.
fn name(text: &str) -> Option<&str> {
    match text.strip_prefix('<') {
        Some(text) => text.split_once('>').map(|(_, rest)| rest),
        None => {
            let rest = text.trim_start_matches(|c: char| c.is_ascii_alphabetic());
            (rest.len() < text.len()).then_some(rest)
        }
    }
}

/// `[+-]h[:m[:s]]`, and what follows it.
fn clock(text: &str) -> Option<(i64, &str)> {
    let (sign, text) = match text.as_bytes().first()? {
        b'-' => (-1, text.get(1..)?),
        b'+' => (1, text.get(1..)?),
        _ => (1, text),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != ':').unwrap_or(text.len());
    let (shown, rest) = text.split_at(end);
    let mut total_s = 0;
    for (i, part) in shown.split(':').enumerate() {
        let n: i64 = part.parse().ok()?;
        let (unit_s, max) = *[(HOUR_S, 167), (60, 59), (1, 59)].get(i)?;
        if n > max {
            return None;
        }
        total_s += n * unit_s;
    }
    Some((sign * total_s, rest))
}

impl Moment {
    fn parse(text: &str) -> Option<Self> {
        let (day, time) = text.split_once('/').unwrap_or((text, "2"));
        let number = |text: &str, min: i64, max: i64| text.parse().ok().filter(|n| (min..=max).contains(n));
        let day = match (day.strip_prefix('M'), day.strip_prefix('J')) {
            (Some(day), _) => {
                let (month, rest) = day.split_once('.')?;
                let (week, weekday) = rest.split_once('.')?;
                Day::Weekday(number(month, 1, 12)?, number(week, 1, 5)?, number(weekday, 0, 6)?)
            }
            (None, Some(day)) => Day::NoLeap(number(day, 1, 365)?),
            (None, None) => Day::OfYear(number(day, 0, 365)?),
        };
        match clock(time)? {
            (of_day_s, "") => Some(Self { day, of_day_s }),
            _ => None,
        }
    }

    /// What a clock shows then, as seconds since 1970 of a clock that shows UTC.
    fn in_year_s(&self, year: i64) -> i64 {
        let first = days_from_civil(year, 1, 1);
        let day = match self.day {
            Day::OfYear(n) => first + n,
            Day::NoLeap(n) => {
                let is_leap = days_from_civil(year, 3, 1) - first == 60;
                first + n - 1 + i64::from(is_leap && n >= 60)
            }
            Day::Weekday(month, week, weekday) => {
                let of_month = days_from_civil(year, month, 1);
                let next_month = days_from_civil(year + month / 12, month % 12 + 1, 1);
                // The first day of 1970 was a Thursday.
                let day = of_month + (weekday - (of_month + 4)).rem_euclid(7) + 7 * (week - 1);
                if day >= next_month { day - 7 } else { day }
            }
        };
        day * DAY_S + self.of_day_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn berlin() -> Vec<u8> {
        include_bytes!("../../../tests/fixtures/cron/zones/Europe/Berlin").to_vec()
    }

    /// When a rule puts the clocks in 2026 and 2028, found by asking for every quarter of an hour.
    #[track_caller]
    fn check(rule: &str, want: &[(&str, i64)]) {
        let rule = Rule::parse(rule).unwrap_or_else(|| panic!("{rule}"));
        let mut got = Vec::new();
        for year in [2026, 2028] {
            let (from, to) = (days_from_civil(year, 1, 1) * 96, days_from_civil(year + 1, 1, 1) * 96);
            let quarters = (from..to).map(|n| n * 900);
            got.extend(quarters.filter(|at_s| rule.ahead_s(*at_s) != rule.ahead_s(at_s - 900)).map(|at_s| {
                let text = super::super::go_text::time(at_s * 1_000_000_000);
                (text, rule.ahead_s(at_s))
            }));
        }
        let got: Vec<(&str, i64)> = got.iter().map(|(text, ahead_s)| (text.as_str(), *ahead_s)).collect();
        assert_eq!(got, want, "{rule:?}");
    }

    #[test]
    fn rules() {
        check("UTC0", &[]);
        check("<+0545>-5:45", &[]);
        assert_eq!(Rule::parse("<+0545>-5:45").unwrap().ahead_s(0), 20_700);
        assert_eq!(Rule::parse("EST5").unwrap().ahead_s(0), -18_000);
        let berlin = [
            ("2026-03-29T01:00:00Z", 7200),
            ("2026-10-25T01:00:00Z", 3600),
            ("2028-03-26T01:00:00Z", 7200),
            ("2028-10-29T01:00:00Z", 3600),
        ];
        check("CET-1CEST,M3.5.0,M10.5.0/3", &berlin);
        // The same in other words: Dublin's winter is what it saves.
        check("IST-2GMT-1,M10.5.0/3,M3.5.0/2", &berlin);
        let (lord_howe, other) = ((39_600, 37_800), ("2026-04-04T15:00:00Z", "2026-10-03T15:30:00Z"));
        check(
            "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0",
            &[(other.0, lord_howe.1), (other.1, lord_howe.0), ("2028-04-01T15:00:00Z", lord_howe.1), ("2028-09-30T15:30:00Z", lord_howe.0)],
        );
        // Times before and beyond the day; days by number, around a 29 February.
        check(
            "<-02>2<-01>,M3.5.0/-1,M10.5.0/0",
            &[
                ("2026-03-29T01:00:00Z", -3600),
                ("2026-10-25T01:00:00Z", -7200),
                ("2028-03-26T01:00:00Z", -3600),
                ("2028-10-29T01:00:00Z", -7200),
            ],
        );
        check(
            "EET-2EEST,M4.5.5/0,M10.5.4/24",
            &[
                ("2026-04-23T22:00:00Z", 10_800),
                ("2026-10-29T21:00:00Z", 7200),
                ("2028-04-27T22:00:00Z", 10_800),
                ("2028-10-26T21:00:00Z", 7200),
            ],
        );
        check(
            "A0B,J60/0,J365/23:30",
            &[("2026-03-01T00:00:00Z", 3600), ("2026-12-31T22:30:00Z", 0), ("2028-03-01T00:00:00Z", 3600), ("2028-12-31T22:30:00Z", 0)],
        );
        check(
            "A0B,59/0,300/0",
            &[("2026-03-01T00:00:00Z", 3600), ("2026-10-27T23:00:00Z", 0), ("2028-02-29T00:00:00Z", 3600), ("2028-10-26T23:00:00Z", 0)],
        );
    }

    #[test]
    fn what_is_no_rule_is_none() {
        for text in [
            "",
            "1",
            "CET",
            "CET-",
            "CET-1:60",
            "CET-1CEST",
            "CET-1CEST,M3.5.0",
            "CET-1CEST,M13.5.0,M10.5.0",
            "CET-1CEST,M3.6.0,M10.5.0",
            "CET-1CEST,M3.5.7,M10.5.0",
            "CET-1CEST,J0,J1",
            "CET-1CEST,366,1",
            "CET-1CEST,M3.5.0/x,M10.5.0",
            "CET-1CEST,M3.5.0,M10.5.0/3x",
            "<CET-1",
            "CET-168",
            "CET-1CEST,M3.5.0/1:2:3:4,1",
            "é1",
            "CET--1",
        ] {
            assert_eq!(Rule::parse(text), None, "{text}");
        }
    }

    #[test]
    fn files() {
        let zone = Tzif::parse(&berlin()).unwrap();
        for (at_s, want) in [(i64::MIN, 3208), (0, 3600), (1_667_091_599, 7200), (1_667_091_600, 3600), (4_088_000_000, 7200)] {
            assert_eq!(zone.ahead_s(at_s), want, "{at_s}");
        }
        // The first half alone is a file of version 1, empty here: times are in the second.
        let mut first = berlin();
        first[4] = 0;
        assert!(Tzif::parse(&first).is_none_or(|zone| zone.changes.is_empty()));
        let old: Vec<u8> =
            [&b"TZif\0"[..], &[0; 15], &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4]].concat();
        let old: Vec<u8> = [&old[..], &[0, 0, 0, 100, 1], &[0, 0, 0, 60, 0, 0], &[0xff, 0xff, 0xff, 0xc4, 1, 0], b"ABC\0"].concat();
        let old = Tzif::parse(&old).unwrap();
        assert_eq!([99, 100, i64::MAX].map(|at_s| old.ahead_s(at_s)), [60, -60, -60]);
    }

    #[test]
    fn damaged_files_are_none_or_zones() {
        let whole = berlin();
        for end in 0..whole.len() {
            assert_eq!(Tzif::parse(&whole[..end]), None, "{end}");
        }
        let mut rng = dunlin_hal::entropy::Rng::new(&mut dunlin_hal::sim::entropy::SimEntropy::new(3));
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..=rng.below(3) {
                let at = usize::try_from(rng.below(bytes.len() as u64)).unwrap();
                bytes[at] = u8::try_from(rng.below(256)).unwrap();
            }
            if let Some(zone) = Tzif::parse(&bytes) {
                for at_s in [i64::MIN, -1, 0, 1_700_000_000, 5_000_000_000, i64::MAX] {
                    let _ = zone.ahead_s(at_s);
                }
            }
        }
    }
}
