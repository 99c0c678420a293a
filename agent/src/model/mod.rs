//! The field's structs: what a job, an allocation, an evaluation and a task state are, as the API shows them.
//!
//! Never: storage layout (`store::rows`), HTTP (`api`), processes (`runtime`). A job is a document with one serde format;
//! allocations and evaluations are plain values whose JSON is made here, in one place each.

pub mod alloc;
pub mod canonical;
pub mod deployment;
pub mod diff;
pub mod eval;
pub mod job;
pub mod lower;
pub mod scaling;
pub mod summary;
pub mod task_state;
pub mod validate;
