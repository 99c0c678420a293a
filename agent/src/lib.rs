//! Floor 2: the product. Inner floors in this order; each may use only those above it in this list
//! (`tests/tidy/floors.txt` is the same list as data, and a test holds the `use crate::` lines against it).

pub mod api;
pub mod cli;
pub mod config;
pub mod core;
pub mod log;
pub mod model;
pub mod node;
pub mod sched;
pub mod shell;
pub mod store;
pub mod wire;
