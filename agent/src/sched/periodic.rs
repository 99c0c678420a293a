//! When a periodic job's children are due. Pure; zone files come through the port that is handed in.
//!
//! Shape: ([`Periodic`], zones) -> [`Schedule`]; [`Schedule::next`]`(wall)` -> the first slot after it. Units: wall time, slots at whole
//! seconds. Source: upstream v1.10.0 nomad/structs/structs.go `PeriodicConfig.Next` (behaviour only).

use dunlin_hal::clock::Wall;
use dunlin_hal::zones::Zones;

use super::cron::Cron;
use super::zone::Zone;
use crate::model::job::Periodic;

const SECOND_NS: i64 = 1_000_000_000;

/// The slots of one job.
#[derive(Clone, Debug)]
pub struct Schedule {
    crons: Vec<Cron>,
    zone: Zone,
}

impl Schedule {
    /// What a block asks for.
    ///
    /// # Errors
    /// Why it cannot be understood here: a zone whose file is gone, a spec nobody has checked.
    pub fn of(periodic: &Periodic, zones: &dyn Zones) -> Result<Self, String> {
        let zone = Zone::find(&periodic.time_zone, zones)?;
        let one = Some(&periodic.spec).filter(|spec| !spec.is_empty());
        let crons = periodic.specs.iter().chain(one).map(|spec| Cron::parse(spec)).collect::<Result<_, _>>()?;
        Ok(Self { crons, zone })
    }

    /// The first slot after a time; `None` = there is none.
    #[must_use]
    pub fn next(&self, after: Wall) -> Option<Wall> {
        let next_s = self.crons.iter().filter_map(|cron| cron.next_s(after.seconds(), &self.zone)).min()?;
        next_s.checked_mul(SECOND_NS).map(Wall)
    }

    /// Seconds the clocks of its zone are ahead of UTC at a time.
    #[must_use]
    pub fn ahead_s(&self, at: Wall) -> i64 {
        self.zone.ahead_s(at.seconds())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_hal::sim::zones::SimZones;

    #[test]
    fn the_earliest_of_several_specs_counts() {
        let specs = ["30 * * * *", "0 0 30 2 *", "15 * * * *"].map(str::to_owned).to_vec();
        let schedule = Schedule::of(&Periodic { specs, ..Periodic::default() }, &SimZones::default()).unwrap();
        let minute = |n: i64| Wall(n * 60 * SECOND_NS);
        assert_eq!(schedule.next(minute(0)), Some(minute(15)));
        assert_eq!(schedule.next(minute(15)), Some(minute(30)), "strictly after");
        assert_eq!(schedule.next(Wall(minute(15).0 - 1)), Some(minute(15)), "a second that has begun is not over");
        assert_eq!(schedule.next(Wall(i64::MAX)), None);
    }

    #[test]
    fn what_cannot_be_understood_says_why() {
        let of = |spec: &str, zone: &str| {
            let periodic = Periodic { spec: spec.to_owned(), time_zone: zone.to_owned(), ..Periodic::default() };
            Schedule::of(&periodic, &SimZones::default()).err()
        };
        assert_eq!(of("@daily", "UTC"), None);
        assert_eq!(of("@daily", "Local"), None);
        assert_eq!(of("@daily", "Europe/Berlin"), Some("unknown time zone Europe/Berlin".to_owned()));
        assert_eq!(of("@dail", "UTC"), Some("missing field(s)".to_owned()));
    }
}
