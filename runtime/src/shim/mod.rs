//! The shim: the parent of one task, in a process of its own that outlives the agent. Reaps, pumps output, keeps the exit record.
//!
//! Pure: `record` (the state slot), `wire` (control datagrams), `spec` (what it is started with), `machine` (its life). Edges: `main`
//! with `pump` and `sweep` run in the shim; `folder` is the agent's side of a runtime folder. The same executable does both: the
//! agent's `main` asks [`invoked`] before it touches anything else.
//! Never: async, threads, the store, the agent's types. Source: `spec/runtime.md` 6, decisions 4, 22, 23.

pub(crate) mod folder;
pub mod machine;
pub mod main;
mod pump;
pub mod record;
pub mod spec;
mod sweep;
pub mod wire;

pub use folder::{Found, connect, end_of, end_when_lost, folder, kill_orphan, read_slot, remove, scan, try_lock, window_of};
