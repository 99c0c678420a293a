//! Any Linux machine with memory enough that is not a known board: a server, a laptop, a big board. Never flashed by us.

use crate::Board;
use dunlin_hal::budget;

/// 256 MiB and up.
pub const GENERIC_LINUX: Board = Board {
    name: "generic-linux",
    target: "x86_64-unknown-linux-musl",
    models: &[],
    ram_min_bytes: 200 << 20,
    budget: budget::GENERIC_LINUX,
};
