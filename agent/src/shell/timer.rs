//! The core's one timer: a timerfd on CLOCK_BOOTTIME, so that deadlines pass during suspend too (async-io's own timers do not). And a
//! second one that never fires: the kernel cancels it when somebody puts the wall clock.
//!
//! Shape: earliest `WakeAt(Mono)` -> one wake-up; a clock that was put -> one wake-up. Units: `Mono`. Invariant: set anew only when the deadline differs, so an idle
//! agent makes no system call and no wake-up. Source: `spec/dependencies.md` 4.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use dunlin_hal::clock::Mono;
use rustix::io::Errno;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
use smol::Async;

/// A timer for one deadline.
#[derive(Debug)]
pub struct WakeTimer {
    fd: Async<OwnedFd>,
    due: Cell<Option<Mono>>,
}

impl WakeTimer {
    /// A timer without a deadline.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(Self { fd: Async::new_nonblocking(fd)?, due: Cell::new(None) })
    }

    /// Sets the deadline; `None` = none. A deadline in the past fires at once.
    pub fn arm(&self, due: Option<Mono>) -> io::Result<()> {
        if due == self.due.get() {
            return Ok(());
        }
        // All zeros would disarm the timer.
        let ns = due.map_or(0, |due| due.0.max(1));
        let it_value = Timespec::try_from(Duration::from_nanos(ns)).map_err(|_| io::ErrorKind::InvalidInput)?;
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &Itimerspec { it_interval, it_value })?;
        self.due.set(due);
        Ok(())
    }

    /// Waits for the deadline, which is then gone. Without one it waits until [`Self::arm`] sets it.
    pub async fn fired(&self) -> io::Result<()> {
        self.fd.read_with(|fd| Ok(rustix::io::read(fd, &mut [0; 8])?)).await?;
        self.due.set(None);
        Ok(())
    }
}

/// Notices that the wall clock was put, and the end of a suspend.
#[derive(Debug)]
pub struct ClockWatch(Async<OwnedFd>);

impl ClockWatch {
    /// A watch from now on.
    pub fn new() -> io::Result<Self> {
        let fd = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        // Without a time it never fires; cancelled it is all the same (fs/timerfd.c, since Linux 3.0).
        let none = || Timespec { tv_sec: 0, tv_nsec: 0 };
        let never = Itimerspec { it_interval: none(), it_value: none() };
        timerfd_settime(&fd, TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET, &never)?;
        Ok(Self(Async::new_nonblocking(fd)?))
    }

    /// Waits until somebody puts the clock.
    pub async fn stepped(&self) -> io::Result<()> {
        match self.0.read_with(|fd| Ok(rustix::io::read(fd, &mut [0; 8])?)).await {
            Err(why) if why.raw_os_error() != Some(Errno::CANCELED.raw_os_error()) => Err(why),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    use smol::future::{FutureExt as _, poll_once};

    fn now() -> Mono {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Mono(u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap())
    }

    /// Arms the timer with these deadlines, milliseconds from now, one after the other: when does it fire?
    #[track_caller]
    fn check(dues_ms: &[Option<i64>], fires_after_ms: Option<u64>) {
        let timer = WakeTimer::new().unwrap();
        let from = now();
        for due in dues_ms {
            let due = due.map(|ms| Mono(from.0.saturating_add_signed(ms.saturating_mul(1_000_000))));
            timer.arm(due).unwrap();
        }
        smol::block_on(async {
            match fires_after_ms {
                Some(ms) => {
                    timer.fired().await.unwrap();
                    assert!(now() >= from.after_ms(ms), "{dues_ms:?}: too early");
                    assert!(poll_once(timer.fired()).await.is_none(), "once");
                }
                None => {
                    let other = WakeTimer::new().unwrap();
                    other.arm(Some(from.after_ms(30))).unwrap();
                    let fired = async { timer.fired().await.map(|()| true) }.or(async { other.fired().await.map(|()| false) });
                    assert!(!fired.await.unwrap(), "{dues_ms:?}: not armed");
                }
            }
        });
    }

    #[test]
    fn fires_once_at_the_last_deadline_set() {
        check(&[Some(20)], Some(20));
        check(&[Some(60_000), Some(20)], Some(20));
        check(&[Some(1), Some(40)], Some(40));
        check(&[Some(20), Some(20)], Some(20));
        check(&[Some(0)], Some(0));
        check(&[Some(i64::MIN)], Some(0));
        check(&[], None);
        check(&[Some(5), None], None);
        check(&[Some(i64::MAX)], None);
    }

    #[test]
    fn the_same_deadline_may_be_set_again_after_it_fired() {
        let timer = WakeTimer::new().unwrap();
        let due = Some(now());
        for _ in 0..2 {
            timer.arm(due).unwrap();
            smol::block_on(timer.fired()).unwrap();
        }
    }

    /// Puts the clock forward by a billionth of a second. False: that is not allowed here.
    fn step() -> bool {
        // SAFETY: all zeros is a `timex` without any mode.
        let mut timex: nix::libc::timex = unsafe { core::mem::zeroed() };
        timex.modes = nix::libc::ADJ_SETOFFSET | nix::libc::ADJ_NANO;
        timex.time.tv_usec = 1;
        // SAFETY: the call reads and writes the one struct.
        unsafe { nix::libc::adjtimex(&mut timex) >= 0 }
    }

    #[test]
    fn a_clock_that_is_put_is_noticed_each_time() {
        let watch = ClockWatch::new().unwrap();
        smol::block_on(async {
            for _ in 0..2 {
                if !step() {
                    // Past the harness, which keeps what a test prints.
                    let _ = writeln!(io::stderr(), "skipped: clock steps: this user may not put the clock");
                    return;
                }
                watch.stepped().await.unwrap();
                let mut more_n = 0;
                while more_n < 100 && poll_once(watch.stepped()).await.is_some() {
                    more_n += 1;
                }
                // Another may put it at the same time, but not all the time.
                assert!(more_n < 100, "it does not stop to tell of a step");
            }
        });
    }
}
