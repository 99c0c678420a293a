//! A clock that only a test moves. Clones show the same time.

use core::cell::Cell;
use core::time::Duration;
use std::rc::Rc;

use crate::clock::{Clock, Now, Wall};

/// A settable clock; starts at 0 on both sides.
#[derive(Clone, Debug, Default)]
pub struct SimClock(Rc<Cell<Now>>);

impl SimClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn at(now: Now) -> Self {
        Self(Rc::new(Cell::new(now)))
    }

    /// Time passes for both clocks.
    pub fn advance(&self, span: Duration) {
        let Now { mono, wall } = self.0.get();
        let span_ns = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
        self.0.set(Now { mono: mono.after(span), wall: Wall(wall.0.saturating_add(span_ns)) });
    }

    /// Somebody sets the wall clock, forward or back; the monotonic one goes on.
    pub fn set_wall(&self, wall: Wall) {
        self.0.set(Now { wall, ..self.0.get() });
    }

    /// Both clocks at once: another boot.
    pub fn set(&self, now: Now) {
        self.0.set(now);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Now {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Mono;

    #[test]
    fn clones_share_the_time() {
        let clock = SimClock::at(Now { mono: Mono(5), wall: Wall(100) });
        let seen = clock.clone();
        clock.advance(Duration::from_nanos(7));
        assert_eq!(seen.now(), Now { mono: Mono(12), wall: Wall(107) });
        clock.set_wall(Wall(-3));
        assert_eq!(seen.now(), Now { mono: Mono(12), wall: Wall(-3) });
        clock.advance(Duration::MAX);
        assert_eq!(seen.now().mono, Mono(u64::MAX));
        clock.set(Now::default());
        assert_eq!(seen.now(), Now::default());
    }
}
