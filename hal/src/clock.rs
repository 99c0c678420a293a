//! Time as values. Machines receive a [`Now`]; only `linux/clock.rs` and `sim/clock.rs` make one.
//!
//! Units: nanoseconds. `Mono` counts suspend (CLOCK_BOOTTIME) and starts at boot; `Wall` is for display only and may step.
//! Naming: a field `_at` is a [`Wall`], a field `_due` is a [`Mono`].

use core::time::Duration;

/// Nanoseconds since boot, suspend included. All intervals, delays and deadlines use this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// Nanoseconds since the Unix epoch. For display; never for a deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(pub i64);

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For intervals.
    pub mono: Mono,
    /// For display.
    pub wall: Wall,
}

/// The source of [`Now`].
pub trait Clock {
    /// Reads both clocks. `mono` never decreases between two calls.
    fn now(&self) -> Now;
}

impl Mono {
    /// `self + span`, saturating: the far future stays the far future.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// `self + ms` milliseconds, saturating.
    #[must_use]
    pub fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// Time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Wall {
    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// 2026-01-01, before any release of this agent: a clock that shows less was never set.
    pub const SET_FROM: Self = Self(1_767_225_600_000_000_000);

    /// The unset time of the wire formats (shown as `null`).
    pub const UNSET: Self = Self(0);

    /// True for [`Wall::UNSET`].
    #[must_use]
    pub fn is_unset(self) -> bool {
        self.0 == 0
    }
}
