//! Cron expressions of five to seven fields: `[second] minute hour day month weekday [year]`. Pure.
//!
//! Shape: [`Cron::parse`]`(text)`, [`Cron::next_s`]`(instant, zone)` -> the next instant at which the zone's clock shows a reading that
//! matches. Units: seconds since 1970. Errors: the library's own texts.
//! A clock that is put forward skips readings: their slots do not come that day. One that is put back shows readings twice: their slots
//! come twice. Bound: a year field ends with 2099; what never matches has no next.
//! Source: github.com/hashicorp/cronexpr v1.1.2, as upstream v1.10.0 nomad/structs/structs.go `CronParseNext` uses it (behaviour only):
//! `tests/fixtures/cron/slots.tsv` holds its answers. Where a zone skips midnight or half an hour some of them are wrong; the test names them.

use super::zone::Zone;
use crate::wire::go_text::{civil, days_from_civil};

/// Numbers from 0 to 191.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Set([u64; 3]);

impl Set {
    fn add(&mut self, n: u32) {
        if let Some(word) = usize::try_from(n / 64).ok().and_then(|word| self.0.get_mut(word)) {
            *word |= 1 << (n % 64);
        }
    }

    fn add_span(&mut self, first: u32, last: u32, step: u32) {
        (first..=last).step_by(usize::try_from(step).unwrap_or(1).max(1)).for_each(|n| self.add(n));
    }

    fn has(&self, n: u32) -> bool {
        usize::try_from(n / 64).ok().and_then(|word| self.0.get(word)).is_some_and(|word| word >> (n % 64) & 1 == 1)
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The smallest number that is not less than `n`.
    fn from(&self, n: u32) -> Option<u32> {
        (n..192).find(|n| self.has(*n))
    }

    fn numbers(&self) -> impl Iterator<Item = u32> {
        (0..192).filter(|n| self.has(*n))
    }
}

/// One of the seven fields.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    /// What number 0 of its set stands for.
    base: u32,
    /// In the order of their numbers, the first stands for `min`. The first three letters alone are enough.
    words: &'static [&'static str],
}

const SECOND: Field = Field { name: "second", min: 0, max: 59, base: 0, words: &[] };
const MINUTE: Field = Field { name: "minute", min: 0, max: 59, base: 0, words: &[] };
const HOUR: Field = Field { name: "hour", min: 0, max: 23, base: 0, words: &[] };
const DAY: Field = Field { name: "day-of-month", min: 1, max: 31, base: 0, words: &[] };
const MONTH: Field = Field { name: "month", min: 1, max: 12, base: 0, words: MONTHS };
const WEEKDAY: Field = Field { name: "day-of-week", min: 0, max: 6, base: 0, words: WEEKDAYS };
const YEAR: Field = Field { name: "year", min: 1970, max: 2099, base: 1970, words: &[] };

const MONTHS: &[&str] =
    &["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december"];
const WEEKDAYS: &[&str] = &["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"];
/// Names of whole expressions. They are replaced wherever they stand, in this spelling only.
const NAMES: &[(&str, &str)] = &[
    ("@yearly", "0 0 0 1 1 * *"),
    ("@annually", "0 0 0 1 1 * *"),
    ("@monthly", "0 0 0 1 * * *"),
    ("@weekly", "0 0 0 * * 0 *"),
    ("@daily", "0 0 0 * * * *"),
    ("@hourly", "0 0 * * * * *"),
];
/// Which of its kind in a month.
const NTH: [&str; 5] = ["1", "2", "3", "4", "5"];
const DAY_S: i64 = 86_400;

/// One item of a field's list.
enum Item {
    All,
    One(u32),
    /// From, to, step.
    Span(u32, u32, u32),
    /// What only the days know; in small letters.
    Other(String),
}

impl Field {
    /// A number or a word of this field, in small letters.
    fn value(&self, text: &str) -> Option<u32> {
        if let Some(at) = self.words.iter().position(|word| *word == text || word.get(..3) == Some(text)) {
            return u32::try_from(at).ok().map(|at| at + self.min);
        }
        let n: u32 = text.parse().ok().filter(|_| text.bytes().all(|c| c.is_ascii_digit()))?;
        if self.max > 99 {
            return (text.len() == 4 && (self.min..=self.max).contains(&n)).then_some(n);
        }
        let is_weekday = self.name == WEEKDAY.name;
        match (text.len(), n) {
            // The library takes 01 to 07 for the weekday and reads them all as Sunday; so the same file runs on the same days.
            (1, 7) | (2, 0..=7) if is_weekday => Some(0),
            (1 | 2, _) if (self.min..=self.max).contains(&n) => Some(n),
            _ => None,
        }
    }

    fn items<'t>(&self, text: &'t str) -> Result<Vec<(Item, &'t str)>, String> {
        let mut items = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let small = part.to_ascii_lowercase();
            items.push((self.item(&small)?, part));
        }
        if items.is_empty() { Err(format!("{} field: missing directive", self.name)) } else { Ok(items) }
    }

    fn item(&self, text: &str) -> Result<Item, String> {
        if matches!(text, "*" | "?") {
            return Ok(Item::All);
        }
        if let Some(n) = self.value(text) {
            return Ok(Item::One(n));
        }
        let range = |text: &str| text.split_once('-').and_then(|(first, last)| Some((self.value(first)?, self.value(last)?)));
        let (span, step) = match text.split_once('/') {
            None => (range(text), None),
            Some(("*", step)) => (Some((self.min, self.max)), Some(step)),
            Some((span, step)) => (range(span).or_else(|| self.value(span).map(|first| (first, self.max))), Some(step)),
        };
        let is_number = |step: &str| !step.is_empty() && step.bytes().all(|c| c.is_ascii_digit());
        match (span, step) {
            (Some((first, last)), None) => Ok(Item::Span(first, last, 1)),
            (Some((first, last)), Some(step)) if is_number(step) => match step.parse() {
                // A step is a number as some field has them.
                Ok(n) if n <= self.max && matches!((step.len(), n), (1 | 2, 1..=59) | (4, 1970..=2099)) => Ok(Item::Span(first, last, n)),
                _ => Err(format!("invalid interval {text}")),
            },
            _ => Ok(Item::Other(text.to_owned())),
        }
    }

    fn syntax(&self, part: &str) -> String {
        format!("syntax error in {} field: '{part}'", self.name)
    }

    /// A field that knows nothing but numbers.
    fn set(&self, text: &str) -> Result<Set, String> {
        let mut set = Set::default();
        for (item, part) in self.items(text)? {
            match item {
                // What follows it is not looked at any more.
                Item::All => {
                    set.add_span(self.min - self.base, self.max - self.base, 1);
                    return Ok(set);
                }
                Item::One(n) => set.add(n - self.base),
                Item::Span(first, last, step) => set.add_span(first - self.base, last - self.base, step),
                Item::Other(_) => return Err(self.syntax(part)),
            }
        }
        // The library takes it, and breaks when it is asked for a slot or never has one.
        if set.is_empty() { Err(format!("{} field: '{text}' names nothing", self.name)) } else { Ok(set) }
    }
}

/// Which days of a month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Days {
    /// Days by number; empty and not restricted = all.
    numbers: Set,
    /// The working day nearest to a number, in the same month.
    workdays: Set,
    has_last: bool,
    has_last_workday: bool,
    is_restricted: bool,
    weekdays: Set,
    /// 7 * (week - 1) + weekday.
    nth_weekdays: Set,
    last_weekdays: Set,
    is_weekday_restricted: bool,
}

impl Days {
    fn parse_numbers(&mut self, text: &str) -> Result<(), String> {
        self.is_restricted = true;
        for (item, part) in DAY.items(text)? {
            match item {
                Item::All => self.is_restricted = false,
                Item::One(n) => self.numbers.add(n),
                Item::Span(first, last, step) => self.numbers.add_span(first, last, step),
                Item::Other(text) => match (text.as_str(), text.strip_suffix('w').and_then(|text| DAY.value(text))) {
                    ("l", _) => self.has_last = true,
                    ("lw", _) => self.has_last_workday = true,
                    (_, Some(n)) => self.workdays.add(n),
                    _ => return Err(DAY.syntax(part)),
                },
            }
        }
        Ok(())
    }

    fn parse_weekdays(&mut self, text: &str) -> Result<(), String> {
        self.is_weekday_restricted = true;
        for (item, part) in WEEKDAY.items(text)? {
            match item {
                Item::All => self.is_weekday_restricted = false,
                Item::One(n) => self.weekdays.add(n),
                // As the library has it, a span that ends with Sunday ends with Saturday.
                Item::Span(first, last, step) => self.weekdays.add_span(first, if last == 0 { 6 } else { last }, step),
                Item::Other(text) => {
                    let last = text.strip_suffix('l').and_then(|text| WEEKDAY.value(text));
                    let nth = text.split_once('#').and_then(|(day, n)| Some((WEEKDAY.value(day)?, NTH.iter().position(|nth| *nth == n)?)));
                    match (last, nth) {
                        (Some(day), _) => self.last_weekdays.add(day),
                        (_, Some((day, weeks))) => self.nth_weekdays.add(7 * u32::try_from(weeks).unwrap_or(0) + day),
                        _ => return Err(WEEKDAY.syntax(part)),
                    }
                }
            }
        }
        Ok(())
    }

    /// The days of one month: how many it has, and the weekday of its first.
    fn of(&self, days_n: u32, first: u32) -> Set {
        let mut set = Set::default();
        // Where both are given either is enough.
        if !self.is_restricted && !self.is_weekday_restricted {
            set.add_span(1, days_n, 1);
            return set;
        }
        let weekday = |day: u32| (first + day - 1) % 7;
        let workday = |day: u32| match weekday(day) {
            6 if day > 1 => day - 1,
            6 => day + 2,
            0 if day < days_n => day + 1,
            0 => day - 2,
            _ => day,
        };
        for day in 1..=days_n {
            let by_number = self.numbers.has(day) || (self.has_last && day == days_n);
            let by_weekday = self.weekdays.has(weekday(day))
                || self.nth_weekdays.has(7 * ((day - 1) / 7) + weekday(day))
                || (self.last_weekdays.has(weekday(day)) && day + 7 > days_n);
            if (self.is_restricted && by_number) || (self.is_weekday_restricted && by_weekday) {
                set.add(day);
            }
        }
        if self.is_restricted {
            self.workdays.numbers().filter(|day| *day <= days_n).for_each(|day| set.add(workday(day)));
            if self.has_last_workday {
                set.add(workday(days_n));
            }
        }
        set
    }
}

/// A parsed expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cron {
    seconds: Set,
    minutes: Set,
    hours: Set,
    days: Days,
    months: Set,
    /// Counted from 1970.
    years: Set,
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// The text that follows `Invalid cron spec "X": `.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = NAMES.iter().fold(text.to_owned(), |text, (name, spec)| text.replace(name, spec));
        let fields: Vec<&str> = text.split([' ', '\t', '\n', '\r', '\x0c']).filter(|field| !field.is_empty()).take(7).collect();
        // A sixth field is the year; seconds come with the seventh.
        let (second, rest) = match fields.as_slice() {
            [second, rest @ ..] if rest.len() == 6 => (*second, rest),
            rest => ("0", rest),
        };
        let [minute, hour, day, month, weekday, rest @ ..] = rest else { return Err("missing field(s)".to_owned()) };
        let mut days = Days::default();
        let (seconds, minutes, hours) = (SECOND.set(second)?, MINUTE.set(minute)?, HOUR.set(hour)?);
        days.parse_numbers(day)?;
        let months = MONTH.set(month)?;
        days.parse_weekdays(weekday)?;
        Ok(Self { seconds, minutes, hours, days, months, years: YEAR.set(rest.first().copied().unwrap_or("*"))? })
    }

    /// The first slot after `after_s`; `None` = it never comes.
    #[must_use]
    pub fn next_s(&self, after_s: i64, zone: &Zone) -> Option<i64> {
        let mut at_s = after_s.checked_add(1)?;
        loop {
            let ahead_s = zone.ahead_s(at_s);
            let slot_s = self.reading_s(at_s.checked_add(ahead_s)?)? - ahead_s;
            match zone.change_s(at_s, slot_s) {
                None => return Some(slot_s),
                // The clock was put on the way there: it goes on with what it shows then.
                Some(change_s) => at_s = change_s,
            }
        }
    }

    /// The first reading of a clock, not before this one, that matches: seconds since 1970 of a clock that shows UTC.
    fn reading_s(&self, from_s: i64) -> Option<i64> {
        let from_s = from_s.max(0);
        let mut of_day_s = from_s.rem_euclid(DAY_S);
        let (year, month, day) = civil(from_s.div_euclid(DAY_S));
        let (mut year, mut month, mut day) = (u32::try_from(year).ok()?, u32::try_from(month).ok()?, u32::try_from(day).ok()?);
        loop {
            // The first of the month, the first of the year, and midnight, as soon as something above them moves.
            let of_years = self.years.from(year - YEAR.base)? + YEAR.base;
            if of_years != year {
                (year, month, day, of_day_s) = (of_years, 1, 1, 0);
            }
            match self.months.from(month) {
                None => (year, month, day, of_day_s) = (year + 1, 1, 1, 0),
                Some(next) if next != month => (month, day, of_day_s) = (next, 1, 0),
                Some(_) => {
                    let first = days_from_civil(i64::from(year), i64::from(month), 1);
                    let days_n = days_from_civil(i64::from(year + month / 12), i64::from(month % 12 + 1), 1) - first;
                    // The first day of 1970 was a Thursday.
                    let weekday = u32::try_from((first + 4).rem_euclid(7)).ok()?;
                    match self.days.of(u32::try_from(days_n).ok()?, weekday).from(day) {
                        None => (month, day, of_day_s) = (month + 1, 1, 0),
                        Some(next) => {
                            if next != day {
                                of_day_s = 0;
                            }
                            match self.of_day_s(of_day_s) {
                                Some(of_day_s) => return Some((first + i64::from(next) - 1) * DAY_S + of_day_s),
                                None => (day, of_day_s) = (next + 1, 0),
                            }
                        }
                    }
                }
            }
        }
    }

    /// The first time of a day, not before this one, that matches.
    fn of_day_s(&self, from_s: i64) -> Option<i64> {
        let from_s = u32::try_from(from_s).ok()?;
        let (hour, minute, second) = (from_s / 3600, from_s / 60 % 60, from_s % 60);
        let first = |set: &Set| set.from(0);
        let within = |hour: u32, minute: u32, second: u32| i64::from(hour * 3600 + minute * 60 + second);
        if self.hours.has(hour) {
            if self.minutes.has(minute)
                && let Some(second) = self.seconds.from(second)
            {
                return Some(within(hour, minute, second));
            }
            if let Some(minute) = self.minutes.from(minute + 1) {
                return Some(within(hour, minute, first(&self.seconds)?));
            }
        }
        Some(within(self.hours.from(hour + 1)?, first(&self.minutes)?, first(&self.seconds)?))
    }
}

#[cfg(test)]
mod tests;
