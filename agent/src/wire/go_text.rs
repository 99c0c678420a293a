//! Texts as Go's standard library writes and reads them: durations, times, quoted strings, booleans.
//!
//! Shape: value <-> text, pure. Units: nanoseconds; times count from the Unix epoch, so years 1678..=2261.
//! Errors: the text Go gives, ready to be shown. Source: Go's documented formats of `time` and `strconv` (spec/http-api.md 1.2, 1.5).

use core::fmt::Write as _;

const SECOND_NS: i64 = 1_000_000_000;

/// `1h2m3.5s`, `250ms`, `1.5µs`, `0s`: as Go prints a duration.
#[must_use]
pub fn duration(ns: i64) -> String {
    let size = ns.unsigned_abs();
    let sign = if ns < 0 { "-" } else { "" };
    let second = SECOND_NS.unsigned_abs();
    match size {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{size}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(size, 1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(size, 1_000_000)),
        _ => {
            let minutes = size / second / 60;
            let seconds = decimal(size % (60 * second), second);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, m) => format!("{sign}{m}m{seconds}s"),
                (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
            }
        }
    }
}

/// `value / unit` with all its digits and no trailing zero; `unit` is a power of ten.
fn decimal(value: u64, unit: u64) -> String {
    let (whole, mut fraction, mut digits) = (value / unit, value % unit, unit.ilog10());
    if fraction == 0 {
        return whole.to_string();
    }
    while fraction.is_multiple_of(10) {
        fraction /= 10;
        digits -= 1;
    }
    format!("{whole}.{fraction:0width$}", width = usize::try_from(digits).unwrap_or_default())
}

/// Reads `300ms`, `-1.5h`, `2h45m`, `0`. A number without unit is an error, except 0.
///
/// # Errors
/// Go's text, e.g. `time: missing unit in duration "5"`.
pub fn parse_duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {}", quote(text));
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total_ns: u64 = 0;
    while !rest.is_empty() {
        let (whole, after) = split_digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => split_digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_end = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let unit_ns: u64 = match unit {
            "" => return Err(format!("time: missing unit in duration {}", quote(text))),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(format!("time: unknown unit {} in duration {}", quote(unit), quote(text))),
        };
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let part_ns = whole.checked_mul(unit_ns).and_then(|ns| ns.checked_add(fraction_of(fraction, unit_ns)));
        total_ns = part_ns.and_then(|ns| total_ns.checked_add(ns)).ok_or_else(invalid)?;
        rest = after;
    }
    match i64::try_from(total_ns) {
        Ok(ns) => Ok(if is_negative { -ns } else { ns }),
        Err(_) if is_negative && total_ns == i64::MIN.unsigned_abs() => Ok(i64::MIN),
        Err(_) => Err(invalid()),
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// `0.<digits>` of `unit`, rounded down; digits beyond the 15th do not count.
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let (mut value, mut scale) = (0u64, 1u64);
    for digit in digits.bytes().take(15) {
        value = value * 10 + u64::from(digit - b'0');
        scale *= 10;
    }
    u64::try_from(u128::from(value) * u128::from(unit) / u128::from(scale)).unwrap_or_default()
}

/// `2026-11-23T07:06:01.5Z`: RFC 3339 in UTC, up to nine digits, trailing zeros trimmed.
#[must_use]
pub fn time(epoch_ns: i64) -> String {
    let (seconds, fraction) = (epoch_ns.div_euclid(SECOND_NS), epoch_ns.rem_euclid(SECOND_NS));
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let mut text = format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60);
    if fraction != 0 {
        let _ = write!(text, ".{fraction:09}");
        text.truncate(text.trim_end_matches('0').len());
    }
    text.push('Z');
    text
}

/// Reads RFC 3339 with `Z` or `±hh:mm`; digits beyond the ninth are dropped. `None` for anything else or out of range.
#[must_use]
pub fn parse_time(text: &str) -> Option<i64> {
    let (date, clock) = (text.get(..10)?, text.get(11..)?);
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
        return None;
    }
    let (year, month, day) = (number(date.get(..4)?)?, number(date.get(5..7)?)?, number(date.get(8..)?)?);
    let (hour, minute, second) = (number(clock.get(..2)?)?, number(clock.get(3..5)?)?, number(clock.get(6..8)?)?);
    let marks = [date.get(4..5)?, date.get(7..8)?, clock.get(2..3)?, clock.get(5..6)?];
    let days = days_from_civil(year, month, day);
    let is_date = (1..=12).contains(&month) && day >= 1 && civil(days) == (year, month, day);
    if marks != ["-", "-", ":", ":"] || !is_date || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let rest = clock.get(8..)?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(after) if after.starts_with(|c: char| c.is_ascii_digit()) => split_digits(after),
        Some(_) => return None,
        None => ("", rest),
    };
    let offset_s = match zone.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(zone.get(1..3)?)?, number(zone.get(4..)?)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset_s;
    let nanos = i64::try_from(fraction_of(fraction, 1_000_000_000)).ok()?;
    i64::try_from(i128::from(seconds) * i128::from(SECOND_NS) + i128::from(nanos)).ok()
}

/// Digits only (a sign is none).
fn number(text: &str) -> Option<i64> {
    if text.bytes().all(|c| c.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Days since 1970-01-01 -> (year, month, day) of the Gregorian calendar, by eras of 400 years that begin on 1 March.
#[must_use]
pub fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
#[must_use]
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month_from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

/// The string in double quotes, with Go's escapes (`%q`).
#[must_use]
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Rust and Go agree on what can be printed, but for marks that join the letter before them.
            _ if c == '\'' || c.is_alphanumeric() || c.escape_debug().len() == 1 => out.push(c),
            '\0'..='\x7f' => _ = write!(out, "\\x{:02x}", u32::from(c)),
            '\u{80}'..='\u{ffff}' => _ = write!(out, "\\u{:04x}", u32::from(c)),
            _ => _ = write!(out, "\\U{:08x}", u32::from(c)),
        }
    }
    out.push('"');
    out
}

/// The text between double quotes with Go's escapes resolved; `None` when it is not such a text. Bytes that are no UTF-8 become U+FFFD.
#[must_use]
pub fn unescape(inner: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(c) = rest.next() {
        match c {
            '"' | '\n' => return None,
            '\\' => {}
            c => {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
        }
        let (digits_n, radix, mut value) = match rest.next()? {
            'a' => (0, 16, 0x07),
            'b' => (0, 16, 0x08),
            'f' => (0, 16, 0x0c),
            'n' => (0, 16, 0x0a),
            'r' => (0, 16, 0x0d),
            't' => (0, 16, 0x09),
            'v' => (0, 16, 0x0b),
            c @ ('\\' | '"') => (0, 16, u32::from(c)),
            'x' => (2, 16, 0),
            'u' => (4, 16, 0),
            'U' => (8, 16, 0),
            c => (2, 8, c.to_digit(8)?),
        };
        for _ in 0..digits_n {
            value = value.checked_mul(radix)?.checked_add(rest.next()?.to_digit(radix)?)?;
        }
        if digits_n == 2 {
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.extend_from_slice(char::from_u32(value)?.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads `42`, `-5`, `0x2a`, `052`, `1_000`: a literal of any base.
///
/// # Errors
/// Go's text: `strconv.ParseInt: parsing "x": invalid syntax`.
pub fn parse_int(text: &str) -> Result<i64, String> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let value = literal(digits).and_then(|size| i64::try_from(i128::from(size) * sign).map_err(|_| RANGE));
    value.map_err(|why| format!("strconv.ParseInt: parsing {}: {why}", quote(text)))
}

/// As [`parse_int`], without a sign.
///
/// # Errors
/// Go's text: `strconv.ParseUint: parsing "-1": invalid syntax`.
pub fn parse_uint(text: &str) -> Result<u64, String> {
    literal(text).map_err(|why| format!("strconv.ParseUint: parsing {}: {why}", quote(text)))
}

/// Reads a decimal number; Go's hexadecimal ones are not read.
///
/// # Errors
/// Go's text: `strconv.ParseFloat: parsing "x": invalid syntax`.
pub fn parse_float(text: &str) -> Result<f64, String> {
    let value = match text.parse::<f64>() {
        Ok(value) if value.is_infinite() && text.contains(|c: char| c.is_ascii_digit()) => Err(RANGE),
        Ok(value) => Ok(value),
        Err(_) => Err(SYNTAX),
    };
    value.map_err(|why| format!("strconv.ParseFloat: parsing {}: {why}", quote(text)))
}

/// Ends the texts of numbers that are none.
pub const SYNTAX: &str = "invalid syntax";
const RANGE: &str = "value out of range";

fn literal(text: &str) -> Result<u64, &'static str> {
    let (radix, digits) = match text.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (16, text.get(2..)),
        [b'0', b'o' | b'O', _, ..] => (8, text.get(2..)),
        [b'0', b'b' | b'B', _, ..] => (2, text.get(2..)),
        [b'0', ..] => (8, text.get(1..)),
        _ => (10, Some(text)),
    };
    // `_` stands between digits; what names the base counts as one.
    let mut is_behind_digit = radix != 10;
    let mut value = 0u64;
    for c in digits.ok_or(SYNTAX)?.chars() {
        if c == '_' && is_behind_digit {
            is_behind_digit = false;
            continue;
        }
        let digit = c.to_digit(radix).ok_or(SYNTAX)?;
        value = value.checked_mul(radix.into()).and_then(|value| value.checked_add(digit.into())).ok_or(RANGE)?;
        is_behind_digit = true;
    }
    if is_behind_digit { Ok(value) } else { Err(SYNTAX) }
}

/// `1 t T TRUE true True` and `0 f F FALSE false False`.
///
/// # Errors
/// Go's text: `strconv.ParseBool: parsing "x": invalid syntax`.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("strconv.ParseBool: parsing {}: invalid syntax", quote(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_go_prints_them() {
        for (ns, want) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (250_000_000, "250ms"),
            (1_000_000_000, "1s"),
            (16_731_532_219, "16.731532219s"),
            (60_000_000_000, "1m0s"),
            (1_800_000_000_000, "30m0s"),
            (86_400_000_000_000, "24h0m0s"),
            (5_400_500_000_000, "1h30m0.5s"),
            (-5_000_000_000, "-5s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(duration(ns), want);
            assert_eq!(parse_duration(want), Ok(ns), "{want}");
        }
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, want) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("+5s", Some(5_000_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("1h2m3s", Some(3_723_000_000_000)),
            ("100us", Some(100_000)),
            ("60000ms", Some(60_000_000_000)),
            ("0.1000000000000000000000001s", Some(100_000_000)),
            ("", None),
            ("-", None),
            ("s", None),
            (".s", None),
            ("5", None),
            ("5x", None),
            ("5 s", None),
            ("1h-2m", None),
            ("9223372036854775808ns", None),
            ("99999999999999999999h", None),
            ("é", None),
        ] {
            assert_eq!(parse_duration(text).ok(), want, "{text}");
        }
        assert_eq!(parse_duration("5").unwrap_err(), "time: missing unit in duration \"5\"");
        assert_eq!(parse_duration("5x").unwrap_err(), "time: unknown unit \"x\" in duration \"5x\"");
        assert_eq!(parse_duration("x").unwrap_err(), "time: invalid duration \"x\"");
    }

    #[test]
    fn numbers_are_read_as_go_reads_literals() {
        for (text, want) in [
            ("0", Ok(0)),
            ("42", Ok(42)),
            ("-5", Ok(-5)),
            ("+5", Ok(5)),
            ("0x2A", Ok(42)),
            ("-0b101", Ok(-5)),
            ("0o17", Ok(15)),
            ("042", Ok(34)),
            ("1_000", Ok(1000)),
            ("0x_f", Ok(15)),
            ("0_7", Ok(7)),
            ("-9223372036854775808", Ok(i64::MIN)),
            ("9223372036854775808", Err(RANGE)),
            ("99999999999999999999", Err(RANGE)),
            ("", Err(SYNTAX)),
            ("-", Err(SYNTAX)),
            ("0x", Err(SYNTAX)),
            ("08", Err(SYNTAX)),
            ("1__0", Err(SYNTAX)),
            ("_1", Err(SYNTAX)),
            ("1_", Err(SYNTAX)),
            ("3.0", Err(SYNTAX)),
            ("1s", Err(SYNTAX)),
            (" 1", Err(SYNTAX)),
        ] {
            let want = want.map_err(|why| format!("strconv.ParseInt: parsing {}: {why}", quote(text)));
            assert_eq!(parse_int(text), want);
        }
        assert_eq!(parse_uint("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(parse_uint("-1").unwrap_err(), "strconv.ParseUint: parsing \"-1\": invalid syntax");
        assert_eq!((parse_float("1.50"), parse_float("-inf"), parse_float("1e3")), (Ok(1.5), Ok(f64::NEG_INFINITY), Ok(1000.0)));
        assert_eq!(parse_float("1e999").unwrap_err(), "strconv.ParseFloat: parsing \"1e999\": value out of range");
        assert_eq!(parse_float("x").unwrap_err(), "strconv.ParseFloat: parsing \"x\": invalid syntax");
    }

    #[test]
    fn escapes_are_resolved_or_refused() {
        for (inner, want) in [
            ("", Some("")),
            ("é x", Some("é x")),
            (r"a\tb\\\n", Some("a\tb\\\n")),
            (r"\x41\101\u00e9\U0001F600", Some("AAé😀")),
            (r"\xff", Some("\u{fffd}")),
            (r"\xc3\xa9", Some("é")),
            (r"\", None),
            (r"\q", None),
            (r"\'", None),
            (r"\x4", None),
            (r"\400", None),
            (r"\09", None),
            (r"\ud800", None),
            (r"\UFFFFFFFF", None),
            ("a\nb", None),
        ] {
            assert_eq!(unescape(inner).as_deref(), want, "{inner}");
        }
    }

    #[test]
    fn times_round_trip() {
        for (ns, want) in [
            (0, "1970-01-01T00:00:00Z"),
            (1, "1970-01-01T00:00:00.000000001Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (1_795_331_137_317_633_058, "2026-11-22T07:05:37.317633058Z"),
            (1_795_331_137_500_000_000, "2026-11-22T07:05:37.5Z"),
            (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
        ] {
            assert_eq!(time(ns), want);
            assert_eq!(parse_time(want), Some(ns), "{want}");
        }
    }

    #[test]
    fn times_with_a_zone_are_read_and_all_else_is_not() {
        for (text, want) in [
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1969-12-31T18:30:00.25-05:30", Some(250_000_000)),
            ("1970-01-01T00:00:00.1234567891234Z", Some(123_456_789)),
            ("1970-01-01", None),
            ("1970-01-01 00:00:00Z", None),
            ("1970-02-30T00:00:00Z", None),
            ("1970-13-01T00:00:00Z", None),
            ("1970-01-01T24:00:00Z", None),
            ("1970-01-01T00:00:00", None),
            ("1970-01-01T00:00:00.Z", None),
            ("1970-01-01T00:00:00+1:00", None),
            ("+970-01-01T00:00:00Z", None),
            ("9999-01-01T00:00:00Z", None),
            ("0001-01-01T00:00:00Z", None),
            ("1970-01-0éT00:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(parse_time(text), want, "{text}");
        }
    }

    #[test]
    fn quoting_is_gos() {
        for (text, want) in [
            ("", r#""""#),
            ("a b", r#""a b""#),
            ("it's", r#""it's""#),
            ("a\"b\\", r#""a\"b\\""#),
            ("\n\t\r\x07\x08\x0b\x0c", r#""\n\t\r\a\b\v\f""#),
            ("\0\x1b\x7f", r#""\x00\x1b\x7f""#),
            ("é世", r#""é世""#),
            ("\u{200b}", r#""\u200b""#),
            ("\u{e0001}", r#""\U000e0001""#),
        ] {
            assert_eq!(quote(text), want);
        }
    }

    #[test]
    fn booleans() {
        assert_eq!(parse_bool("T"), Ok(true));
        assert_eq!(parse_bool("False"), Ok(false));
        assert_eq!(parse_bool("yes").unwrap_err(), "strconv.ParseBool: parsing \"yes\": invalid syntax");
    }
}
