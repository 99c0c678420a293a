//! Captured output of tasks: what goes into which file, and what a reader takes next. Pure; the shim and the agent's shell act.
//!
//! One stream of one task is the concatenation of `alloc/logs/<task>.<stdout|stderr>.<n>`, n ascending (`spec/runtime.md` 4).

pub mod follow;
pub mod name;
pub mod rotate;
