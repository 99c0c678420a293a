//! The only async code: sockets, timers, signals and workers turned into events, effects turned into acts. No `if` about meaning.
//!
//! Shape: outside world <-> `core::Event` / `core::Effect`. Everything runs on one [`executor::Executor`] (decision 3).

pub mod client;
pub mod executor;
pub mod h1;
pub mod net;
pub mod pump;
pub mod signals;
pub mod timer;

#[cfg(test)]
mod rig;
