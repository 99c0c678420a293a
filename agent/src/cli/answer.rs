//! Reading API answers: the one place that knows what to do when a member is absent, null or of another type.
//!
//! Never fails and never prints. The command line is a short-lived process, so answers stay `serde_json::Value`; agents of other
//! versions leave members out or add some, and a status page must still show the rest. Absent, null and wrong-typed all read as
//! the empty value. Units: times are nanoseconds since the epoch ([`Wall`]); 0 = unset.

use std::collections::BTreeMap;

use dunlin_hal::clock::Wall;
use serde_json::Value;

/// Tolerant reads of one JSON object.
pub trait Answer {
    /// Text of a member; empty when there is none.
    fn text(&self, key: &str) -> &str;
    /// Integer of a member; 0 when there is none or it does not fit.
    fn int(&self, key: &str) -> i64;
    /// Number of a member; 0 when there is none.
    fn number(&self, key: &str) -> f64;
    /// Truth of a member; false when there is none.
    fn flag(&self, key: &str) -> bool;
    /// Items of a list member; empty when there is none.
    fn items(&self, key: &str) -> &[Value];
    /// Members of an object member by name; empty when there is none.
    fn members(&self, key: &str) -> BTreeMap<&str, &Value>;
    /// A member, `null` when there is none.
    fn at(&self, key: &str) -> &Value;
    /// A time given as nanoseconds since the epoch.
    fn wall(&self, key: &str) -> Wall {
        Wall(self.int(key))
    }
    /// A time given as RFC 3339 text.
    fn stamp(&self, key: &str) -> Wall {
        parse_stamp(self.text(key)).unwrap_or(Wall::UNSET)
    }
}

impl Answer for Value {
    fn text(&self, key: &str) -> &str {
        self.at(key).as_str().unwrap_or("")
    }
    fn int(&self, key: &str) -> i64 {
        self.at(key).as_i64().unwrap_or(0)
    }
    fn number(&self, key: &str) -> f64 {
        self.at(key).as_f64().unwrap_or(0.0)
    }
    fn flag(&self, key: &str) -> bool {
        self.at(key).as_bool().unwrap_or(false)
    }
    fn items(&self, key: &str) -> &[Value] {
        items(self.at(key))
    }
    fn members(&self, key: &str) -> BTreeMap<&str, &Value> {
        self.at(key).as_object().map(|map| map.iter().map(|(name, value)| (name.as_str(), value)).collect()).unwrap_or_default()
    }
    fn at(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(&Value::Null)
    }
}

/// Items of a list answer; empty when it is no list.
#[must_use]
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Texts of a list of strings joined with `glue`; items that are no strings are left out.
#[must_use]
pub fn joined(list: &[Value], glue: &str) -> String {
    list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(glue)
}

/// RFC 3339 -> time. `None` for the zero time of Go (year 1) and for text that is none.
fn parse_stamp(text: &str) -> Option<Wall> {
    let (date, rest) = text.split_once('T')?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let zone_at = rest.find(['Z', '+', '-'])?;
    let (clock, zone) = rest.split_at_checked(zone_at)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut clock = clock.splitn(3, ':').map(str::parse::<i64>);
    let (hour, minute, second) = (clock.next()?.ok()?, clock.next()?.ok()?, clock.next()?.ok()?);
    let nanos = if fraction.is_empty() { 0 } else { format!("{fraction:0<9}").get(..9)?.parse::<i64>().ok()? };
    let offset = match zone.split_at_checked(1)? {
        ("Z", "") => 0,
        (sign, at) => {
            let (hours, minutes) = at.split_once(':')?;
            let span = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
            if sign == "-" { -span } else { span }
        }
    };
    let in_range = (1970..=2261).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    let in_day = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
    if !in_range || !in_day || !(0..1_000_000_000).contains(&nanos) || offset.abs() > 86_400 {
        return None;
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos).map(Wall)
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar; months 1-12.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn absent_null_and_wrong_types_read_as_empty() {
        let value = json!({"a": null, "b": 7, "c": "x", "d": [1, "y", null], "e": {"k": 1}, "f": true, "g": -2.5});
        assert_eq!((value.text("a"), value.text("b"), value.text("c"), value.text("z")), ("", "", "x", ""));
        assert_eq!((value.int("b"), value.int("c"), value.int("g"), value.int("z")), (7, 0, 0, 0));
        assert_eq!((value.flag("f"), value.flag("b")), (true, false));
        assert_eq!((value.items("d").len(), value.items("e").len()), (3, 0));
        assert_eq!(joined(value.items("d"), ","), "y");
        assert_eq!((value.members("e").len(), value.members("d").len()), (1, 0));
        assert_eq!((value.number("g"), value.number("c")), (-2.5, 0.0));
        assert_eq!((json!(3).text("x"), json!([1]).int("x")), ("", 0));
    }

    #[test]
    fn stamps() {
        #[track_caller]
        fn check(text: &str, want: i64) {
            assert_eq!(json!({"t": text}).stamp("t"), Wall(want), "{text}");
        }
        check("1970-01-01T00:00:00Z", 0);
        check("2026-11-22T07:05:47.379317418Z", 1_795_331_147_379_317_418);
        check("2026-11-22T07:05:47.5Z", 1_795_331_147_500_000_000);
        check("2026-11-22T09:05:47+02:00", 1_795_331_147_000_000_000);
        check("2026-11-21T23:35:47-07:30", 1_795_331_147_000_000_000);
        check("2024-02-29T00:00:00Z", 1_709_164_800_000_000_000);
        for bad in [
            "",
            "0001-01-01T00:00:00Z",
            "2026",
            "2026-11-22",
            "2026-13-22T07:05:47Z",
            "2026-11-22T07:05Z",
            "2026-11-22T07:05:47",
            "9999-01-01T00:00:00Z",
            "2026-11-22T07:05:47.xZ",
            "2026-11-22T07:05:47.é23456789Z",
            "2026-11-22T07:05:47+99:99",
        ] {
            check(bad, 0);
        }
    }
}
