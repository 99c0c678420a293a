//! Any smaller Linux machine that is not a known board, and every machine that could not be asked: the answer that is never wrong.

use crate::Board;
use dunlin_hal::budget;

/// 64 MiB and up, of which a wide kernel may leave 32 MiB.
pub const SMALL_LINUX: Board =
    Board { name: "small-linux", target: "armv7-unknown-linux-musleabihf", models: &[], ram_min_bytes: 32 << 20, budget: budget::SMALL_64 };
