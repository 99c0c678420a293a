//! The core's one timer: a timerfd on CLOCK_BOOTTIME, so that deadlines pass during suspend too (async-io's own timers do not).
//!
//! Shape: earliest `WakeAt(Mono)` -> one wake-up. Units: `Mono`. Invariant: set anew only when the deadline differs, so an idle
//! agent makes no system call and no wake-up. Source: `spec/dependencies.md` 4.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use dunlin_hal::clock::Mono;
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
