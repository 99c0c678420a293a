//! Durations as Go writes them (`1h30m`, `1.5s`, `300ms`). Pure; errors are `None`.
//!
//! Only what a configuration needs: no sign. Source: Go's `time.ParseDuration`.

use core::time::Duration;

/// Reads a duration; `None` for anything Go would refuse, a sign, or more than 2^63 nanoseconds.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut sum_ns = 0_u64;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(unit_at);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let unit_ns: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        sum_ns = sum_ns.checked_add(whole.checked_mul(unit_ns)?)?;
        // Digits of the fraction beyond a nanosecond are lost, as in Go.
        let mut digit_ns = unit_ns;
        for digit in fraction.bytes() {
            digit_ns /= 10;
            sum_ns = sum_ns.checked_add(u64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?) * digit_ns)?;
        }
        rest = tail;
    }
    (!text.is_empty() && i64::try_from(sum_ns).is_ok()).then_some(Duration::from_nanos(sum_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows() {
        for (text, want_ms) in [
            ("0", Some(0)),
            ("30s", Some(30_000)),
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1_500)),
            (".5m", Some(30_000)),
            ("5.s", Some(5_000)),
            ("250ms", Some(250)),
            ("1m0.5s", Some(60_500)),
            ("5000us", Some(5)),
            ("1µs", Some(0)),
            ("", None),
            ("30", None),
            ("s", None),
            (".s", None),
            ("1.2.3s", None),
            ("-5s", None),
            ("1d", None),
            ("1 s", None),
            ("9999999999999h", None),
            ("99999999999999999999s", None),
            ("é", None),
        ] {
            assert_eq!(parse(text).map(|span| span.as_millis()), want_ms, "{text}");
        }
    }
}
