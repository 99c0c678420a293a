//! The only async code: sockets, timers, signals and workers turned into events, effects turned into acts. No `if` about meaning.
//!
//! Shape: outside world <-> `core::Event` / `core::Effect`. Everything runs on one [`executor::Executor`] (decision 3).

pub mod agent;
pub mod child;
pub mod client;
pub mod executor;
pub mod files;
pub mod found;
pub mod h1;
pub mod identity;
pub mod listening;
pub mod net;
pub mod perform;
pub mod pump;
pub mod sample;
pub mod signals;
pub mod store_thread;
pub mod timer;
#[cfg_attr(not(feature = "tls"), path = "tls/absent.rs")]
pub mod tls;

#[cfg(test)]
mod rig;
