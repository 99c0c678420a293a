//! A time zone: how far its clocks are from UTC at an instant. Pure; the bytes come from `hal::zones`.
//!
//! Names are those of Go's `time.LoadLocation`, and so are the texts of what is wrong with one: `UTC` and `Local` always exist.

use dunlin_hal::zones::Zones;

use crate::wire::go_text::quote;
use crate::wire::tzif::Tzif;

/// Two changes of one zone are never so near to each other.
const DAY_S: i64 = 86_400;

/// One zone.
#[derive(Clone, Debug)]
pub enum Zone {
    /// Coordinated universal time.
    Utc,
    /// What a file says.
    File(Tzif),
}

impl Zone {
    /// The zone of a name; empty is UTC.
    ///
    /// # Errors
    /// The text that follows `Invalid time zone "X": `.
    pub fn find(name: &str, zones: &dyn Zones) -> Result<Self, String> {
        let bytes = match name {
            "" | "UTC" => return Ok(Self::Utc),
            // A machine whose zone nobody has set is in UTC.
            "Local" => return Ok(zones.local().and_then(|bytes| Tzif::parse(&bytes)).map_or(Self::Utc, Self::File)),
            _ if name.split('/').any(|part| part == "..") || name.starts_with(['/', '\\']) => {
                return Err("time: invalid location name".to_owned());
            }
            _ => zones.zone(name).ok_or_else(|| format!("unknown time zone {name}"))?,
        };
        Tzif::parse(&bytes).map(Self::File).ok_or_else(|| format!("malformed time zone information of {}", quote(name)))
    }

    /// Seconds a clock of the zone is ahead of UTC at `at_s`, seconds since 1970.
    #[must_use]
    pub fn ahead_s(&self, at_s: i64) -> i64 {
        match self {
            Self::Utc => 0,
            Self::File(zone) => zone.ahead_s(at_s),
        }
    }

    /// When the clocks were put so that they show something else at `to_s` than what has passed since `from_s`: the first such
    /// instant of the first day, else one of them. `None` = they were not.
    #[must_use]
    pub fn change_s(&self, from_s: i64, to_s: i64) -> Option<i64> {
        let ahead_s = self.ahead_s(from_s);
        let (mut same_s, mut other_s) = (from_s, from_s.saturating_add(DAY_S).min(to_s));
        if self.ahead_s(other_s) == ahead_s {
            (same_s, other_s) = (other_s, to_s);
            if self.ahead_s(other_s) == ahead_s {
                return None;
            }
        }
        while other_s - same_s > 1 {
            let middle_s = same_s + (other_s - same_s) / 2;
            if self.ahead_s(middle_s) == ahead_s { same_s = middle_s } else { other_s = middle_s }
        }
        Some(other_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_hal::sim::zones::SimZones;

    /// 30 October 2022: summer time ended at 01:00 UTC.
    const AUTUMN_S: i64 = 1_667_091_600;

    pub fn zones() -> SimZones {
        let bytes = include_bytes!("../../../tests/fixtures/cron/zones/Europe/Berlin");
        let files = [("Europe/Berlin", bytes.to_vec()), ("Bad", b"TZif2".to_vec()), ("Empty", Vec::new())];
        SimZones { files: files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect(), local: "Europe/Berlin".to_owned() }
    }

    #[track_caller]
    fn check(name: &str, want: Result<i64, &str>) {
        let got = Zone::find(name, &zones()).map(|zone| zone.ahead_s(AUTUMN_S));
        assert_eq!(got, want.map_err(str::to_owned), "{name}");
    }

    #[test]
    fn names() {
        check("", Ok(0));
        check("UTC", Ok(0));
        check("Local", Ok(3600));
        check("Europe/Berlin", Ok(3600));
        check("utc", Err("unknown time zone utc"));
        check("Mars/Phobos", Err("unknown time zone Mars/Phobos"));
        check("../Europe/Berlin", Err("time: invalid location name"));
        check("/etc/localtime", Err("time: invalid location name"));
        check("Bad", Err("malformed time zone information of \"Bad\""));
        check("Empty", Err("malformed time zone information of \"Empty\""));
        assert!(matches!(Zone::find("Local", &SimZones::default()), Ok(Zone::Utc)));
    }

    #[test]
    fn changes() {
        let zone = Zone::find("Europe/Berlin", &zones()).unwrap();
        assert_eq!((zone.ahead_s(AUTUMN_S - 1), zone.ahead_s(AUTUMN_S)), (7200, 3600));
        for (from_s, to_s, want) in [
            (AUTUMN_S - 100, AUTUMN_S - 1, None),
            (AUTUMN_S - 100, AUTUMN_S, Some(AUTUMN_S)),
            (AUTUMN_S - 1, AUTUMN_S + 90 * DAY_S, Some(AUTUMN_S)),
            (AUTUMN_S - 60 * DAY_S, AUTUMN_S + 60 * DAY_S, Some(AUTUMN_S)),
            (AUTUMN_S, AUTUMN_S + 100, None),
            (AUTUMN_S, AUTUMN_S, None),
            // Put forward and back again: what is shown is what has passed.
            (AUTUMN_S, AUTUMN_S + 400 * DAY_S, None),
        ] {
            assert_eq!(zone.change_s(from_s, to_s), want, "{from_s} {to_s}");
        }
        assert_eq!(Zone::Utc.change_s(0, i64::MAX), None);
    }
}
