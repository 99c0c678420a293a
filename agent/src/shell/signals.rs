//! Signals as facts: one signalfd instead of handlers.
//!
//! Shape: SIGTERM, SIGINT, SIGHUP, SIGCHLD -> [`Signal`]. Never: what they mean (decision 27) is the core's.
//! Invariant: the four are blocked in every thread, so [`Signals::new`] comes before the first thread (async-io starts one at the
//! first timer or socket). Children get an empty mask from `std::process` or must set it themselves. SIGPIPE is ignored: a client
//! that is gone is an error of a write, not the end of the agent. Source: `spec/dependencies.md` 2c, 4.

use std::io;

use nix::sys::signal::{SigHandler, SigSet, Signal as Number, signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use smol::Async;

/// A signal the agent knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// SIGHUP.
    Hangup,
    /// SIGCHLD; several may have become one.
    Child,
}

const KNOWN: [(Number, Signal); 4] = [
    (Number::SIGTERM, Signal::Terminate),
    (Number::SIGINT, Signal::Interrupt),
    (Number::SIGHUP, Signal::Hangup),
    (Number::SIGCHLD, Signal::Child),
];

/// The agent's signals.
#[derive(Debug)]
pub struct Signals(Async<SignalFd>);

impl Signals {
    /// Blocks the signals for this thread and those it will start.
    pub fn new() -> io::Result<Self> {
        // SAFETY: SIG_IGN installs no handler, so no code runs in signal context.
        unsafe { signal(Number::SIGPIPE, SigHandler::SigIgn) }?;
        let mask: SigSet = KNOWN.iter().map(|(number, _)| *number).collect();
        mask.thread_block()?;
        let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self(Async::new_nonblocking(fd)?))
    }

    /// The next signal.
    pub async fn next(&self) -> io::Result<Signal> {
        loop {
            let info = self.0.read_with(|fd| fd.read_signal()?.ok_or_else(|| io::ErrorKind::WouldBlock.into())).await?;
            if let Some((_, signal)) = KNOWN.iter().find(|(number, _)| i64::from(info.ssi_signo) == i64::from(*number as i32)) {
                return Ok(*signal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rig::is_alone;
    use super::*;
    use nix::sys::signal::raise;

    #[test]
    fn signals_become_facts() {
        // Blocking signals and ignoring SIGPIPE is for a whole process.
        if !is_alone(concat!(module_path!(), "::signals_become_facts")) {
            return;
        }
        let signals = Signals::new().unwrap();
        for (number, want) in KNOWN {
            // Only this thread has them blocked, so they are sent to it and not to the process.
            raise(number).unwrap();
            assert_eq!(smol::block_on(signals.next()).unwrap(), want);
        }
        assert!(smol::block_on(smol::future::poll_once(signals.next())).is_none());
        raise(Number::SIGPIPE).unwrap();
    }
}
