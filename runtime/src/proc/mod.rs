//! Processes: starting them, naming signals, finding out who they are and what they use. Edge: system calls only, no policy.
//!
//! `spawn` runs in the shim between fork and exec too, so nothing there allocates or takes a lock.

pub mod pidfd;
pub mod signal;
pub mod spawn;
pub mod usage;
