//! Every bound of the system in one place. A board is a value of this type; code asks the budget, never a literal.
//!
//! Units are in the names. What happens when a bound is reached stands on the field (invariant I8).
//! Source of the figures: `spec/http-api.md` 10 (two columns), `spec/runtime.md` 7 and 9, decision 5.

/// All bounds of one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Connections accepted at once. Full: the oldest idle one is closed, else 429.
    pub conns_max: usize,
    /// Of these, from one address (`limits.http_max_conns_per_client`; 0 = no limit). Full: 429.
    pub conns_per_client_max: usize,
    /// Header bytes of one request, and hyper's buffer. Full: 431.
    pub head_bytes_max: usize,
    /// Request line. Full: 414.
    pub line_bytes_max: usize,
    /// Body of a job. Full: 413.
    pub job_bytes_max: usize,
    /// Body of any other write. Full: 413.
    pub body_bytes_max: usize,
    /// All bodies being collected together. Full: 429.
    pub bodies_bytes_max: usize,
    /// Log, fs and monitor streams at once. Full: 429.
    pub streams_max: usize,
    /// Raw bytes read for one frame of a stream.
    pub frame_bytes_max: usize,
    /// Blocking queries at once. Full: 429.
    pub waiters_max: usize,
    /// Rows a list body holds at once.
    pub rows_step_max: usize,
    /// Bytes a list body holds at once.
    pub rows_step_bytes_max: usize,
    /// Size of the store file. Full: no job is taken, stops and collections are; running tasks go on.
    pub store_bytes_max: u64,
    /// Room kept on the disk beside it, given up when the disk is full. Without it: as when the store is full.
    pub store_reserve_bytes: u64,
    /// redb's page cache.
    pub store_cache_bytes: usize,
    /// Soft (C1) rows waiting for a commit. Full: they are committed.
    pub soft_rows_max: usize,
    /// Age of the oldest soft row at which they are committed.
    pub soft_age_max_ms: u64,
    /// Commits for soft rows alone that may follow each other ([`Budget::soft_age_max_ms`] apart) before they are spaced out.
    pub soft_commits_burst: u32,
    /// Time after which one more of them is allowed: with the burst about 2 000 a day (`spec/runtime.md` 9).
    pub soft_commit_refill_ms: u64,
    /// Batches handed to the store thread and not yet durable. Full: writes are answered 429.
    pub batches_max: usize,
    /// Allocations that are not terminal. Full: evaluations block.
    pub allocs_max: usize,
    /// Folders of ended allocations kept (`client.gc_max_allocs`). Full: the oldest is removed.
    pub allocs_terminal_max: usize,
    /// Rows of allocations kept, living ones included. Full: the oldest ended one is forgotten.
    pub alloc_rows_max: u64,
    /// Rows of evaluations kept. Full: the oldest ended one is forgotten.
    pub eval_rows_max: u64,
    /// Jobs made from a periodic or parameterized one that have not ended, per parent. Full: slots are skipped, dispatches answered 429.
    pub children_living_max: u32,
    /// Those that have ended, of all parents together. Full: the oldest is forgotten, with its allocations.
    pub children_ended_max: usize,
    /// Versions kept per job.
    pub job_versions_max: usize,
    /// Log lines kept for `agent monitor`. Full: the oldest is dropped and counted.
    pub log_lines_max: usize,
    /// Bytes of these lines.
    pub log_bytes_max: usize,
    /// Processes of one task where the `pids` controller exists.
    pub pids_max: u32,
    /// Nesting of a posted document.
    pub json_depth_max: usize,
}

/// A 64 MiB board.
pub const SMALL_64: Budget = Budget {
    conns_max: 32,
    conns_per_client_max: 16,
    head_bytes_max: 16 << 10,
    line_bytes_max: 8 << 10,
    job_bytes_max: 1 << 20,
    body_bytes_max: 64 << 10,
    bodies_bytes_max: 2 << 20,
    streams_max: 8,
    frame_bytes_max: 16 << 10,
    waiters_max: 64,
    rows_step_max: 32,
    rows_step_bytes_max: 16 << 10,
    store_bytes_max: 4 << 20,
    store_reserve_bytes: 256 << 10,
    store_cache_bytes: 1 << 20,
    soft_rows_max: 32,
    soft_age_max_ms: 5_000,
    soft_commits_burst: 30,
    soft_commit_refill_ms: 45_000,
    batches_max: 64,
    allocs_max: 64,
    allocs_terminal_max: 20,
    alloc_rows_max: 256,
    eval_rows_max: 512,
    children_living_max: 32,
    children_ended_max: 32,
    job_versions_max: 6,
    log_lines_max: 64,
    log_bytes_max: 16 << 10,
    pids_max: 512,
    json_depth_max: 64,
};

/// Any Linux machine that is not a known board.
pub const GENERIC_LINUX: Budget = Budget {
    conns_max: 256,
    conns_per_client_max: 100,
    bodies_bytes_max: 16 << 20,
    streams_max: 64,
    waiters_max: 512,
    store_bytes_max: 64 << 20,
    batches_max: 1024,
    allocs_max: 1024,
    allocs_terminal_max: 50,
    alloc_rows_max: 16_384,
    eval_rows_max: 16_384,
    children_living_max: 512,
    children_ended_max: 1024,
    log_lines_max: 512,
    log_bytes_max: 64 << 10,
    ..SMALL_64
};

/// Memory that connections, streams and buffers may take in the worst case, bytes.
#[must_use]
pub const fn worst_case_bytes(b: &Budget) -> usize {
    b.conns_max * b.head_bytes_max
        + b.streams_max * (3 * b.frame_bytes_max)
        + b.bodies_bytes_max
        + b.store_cache_bytes
        + b.log_bytes_max
        + b.rows_step_bytes_max
}

// A 64 MiB board keeps most of its memory for its user's programs.
const _: () = assert!(worst_case_bytes(&SMALL_64) <= 8 << 20);
// A frame is base64-encoded into one buffer of at most 64 KiB.
const _: () = assert!(GENERIC_LINUX.frame_bytes_max * 4 / 3 + 512 <= 64 << 10);
const _: () = assert!(SMALL_64.line_bytes_max <= SMALL_64.head_bytes_max);
const _: () = assert!(SMALL_64.job_bytes_max <= SMALL_64.bodies_bytes_max);
// A task that crashes all day long costs the card at most this many commits.
const _: () = assert!(24 * 3_600_000 / SMALL_64.soft_commit_refill_ms + SMALL_64.soft_commits_burst as u64 <= 2_000);
// Living allocations and the ended ones whose folders are kept all have rows; about 1.5 KiB each, 2.7 times that in the file.
const _: () = assert!(SMALL_64.alloc_rows_max >= (SMALL_64.allocs_max + SMALL_64.allocs_terminal_max) as u64);
const _: () = assert!((SMALL_64.alloc_rows_max * 1536 + SMALL_64.eval_rows_max * 512) * 27 / 10 < SMALL_64.store_bytes_max);
