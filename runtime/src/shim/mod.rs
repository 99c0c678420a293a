//! The shim: the parent of one task, in a process of its own that outlives the agent. Reaps, pumps output, keeps the exit record.
//!
//! Pure: `record` (the state slot), `wire` (control datagrams), `spec` (what it is started with), `machine` (its life), `news` (what a
//! slot tells the agent). Edges: `main` with `pump` and `sweep` run in the shim; `folder` is the agent's side of a runtime folder. The same executable does both: the
//! agent's `main` asks [`invoked`] before it touches anything else.
//! Never: async, threads, the store, the agent's types. Source: `spec/runtime.md` 6, decisions 4, 22, 23.

pub mod folder;
pub mod machine;
mod main;
pub mod news;
mod pump;
pub mod record;
pub mod spec;
mod sweep;
pub mod wire;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

pub use folder::{Attached, Fate, Found, attach, connect, kill_orphan, remove, scan, slot};
pub use main::main;

use crate::proc::spawn::SHIM_ARG0;

/// The runtime folder, if this process was started to be a shim: `argv[0]` says so, `argv[1]` is the folder.
#[must_use]
pub fn invoked() -> Option<PathBuf> {
    let mut args = std::env::args_os();
    let name = args.next()?;
    (Path::new(&name).file_name() == Some(OsStr::new(SHIM_ARG0))).then(|| args.next().map(PathBuf::from)).flatten()
}
