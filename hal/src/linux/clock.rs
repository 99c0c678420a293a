//! The kernel's clocks: CLOCK_BOOTTIME, which counts suspend, and CLOCK_REALTIME.

use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

use crate::clock::{Clock, Mono, Now, Wall};

/// The two kernel clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelClock;

impl Clock for KernelClock {
    /// Both clocks exist on every kernel we run on (boot time since 2.6.39); 0 stands for a refused call.
    fn now(&self) -> Now {
        let read = |clock| clock_gettime(clock).map_or(0, |time| time.num_nanoseconds());
        Now { mono: Mono(u64::try_from(read(ClockId::CLOCK_BOOTTIME)).unwrap_or(0)), wall: Wall(read(ClockId::CLOCK_REALTIME)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_agree_with_the_kernel() {
        let first = KernelClock.now();
        let second = KernelClock.now();
        assert!(first.mono.0 > 0 && second.mono >= first.mono);
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let uptime_s: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!((second.mono.since(Mono(0)).as_secs_f64() - uptime_s).abs() < 5.0);
        let epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(second.wall.seconds().abs_diff(i64::try_from(epoch.as_secs()).unwrap()) < 5);
    }
}
