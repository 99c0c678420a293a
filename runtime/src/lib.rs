//! Floor 1: runs tasks. Knows what a task is and how to supervise it; knows no HTTP, no JSON, no database, no servers.
//!
//! Pure parts decide (`task`, `alloc::machine`, `env`, `template`, `logs`, `fs::path`); edges act (`proc`, `cgroup`, `shim`,
//! `driver`, `fs::{open, list}`, `alloc::dir`). The narrow language between this floor and the agent is `spec`, `event` and `id`.

pub mod alloc;
pub mod cgroup;
pub mod driver;
pub mod env;
pub mod event;
pub mod fs;
pub mod id;
pub mod logs;
pub mod proc;
pub mod shim;
pub mod spec;
pub mod task;
pub mod template;
