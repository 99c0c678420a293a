//! Rotation of one captured stream. Pure: says which bytes go to which file; writes nothing itself and never allocates.
//!
//! Shape: chunk -> [`Op::Open`], [`Op::Remove`], [`Op::Write`], one at a time, until nothing of the chunk is left.
//! Units: bytes; the file index counts up for the life of the allocation. Errors: none.
//! Invariants: the writes of a chunk are the chunk, in order; kept bytes <= `files_max` x `file_bytes_max`; every step either
//! consumes bytes, opens a higher file or removes one, so a chunk ends after a bounded number of steps.
//! Source: `spec/runtime.md` 4; upstream v1.3.1 client/logmon/logging/rotator.go (behaviour only). Two departures: bytes are
//! counted exactly, and a line that was begun in a file is finished there when it fits.

use crate::spec::LogPolicy;

/// Distance to the limit within which files are changed between lines, bytes.
pub const LINE_BYTES_MAX: u64 = 32 << 10;

/// What the owner of the files does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// Close the current file, open this one for appending (make it if absent), then report its size with [`Rotator::opened`].
    Open(u32),
    /// Append these bytes to the open file; report what could not be written with [`Rotator::lost`].
    Write(&'a [u8]),
    /// Unlink this one; an absent file is fine.
    Remove(u32),
}

/// Where the next byte of one stream goes.
#[derive(Clone, Copy, Debug)]
pub struct Rotator {
    files_max: u32,
    file_bytes_max: u64,
    /// Lowest index that may exist.
    oldest: u32,
    /// The file being written.
    index: u32,
    /// Its size.
    bytes: u64,
    is_open: bool,
    /// The last byte written to the open file was not a line break.
    is_mid_line: bool,
}

impl Rotator {
    /// Continues at the highest existing file (`newest`: index and size), else starts at 0.
    #[must_use]
    pub fn new(policy: LogPolicy, newest: Option<(u32, u64)>) -> Self {
        let (index, bytes) = newest.unwrap_or_default();
        let mut rotator = Self { files_max: 1, file_bytes_max: 1, oldest: index, index, bytes, is_open: false, is_mid_line: false };
        rotator.set_policy(policy);
        rotator.oldest = index.saturating_sub(rotator.files_max - 1);
        rotator
    }

    /// Tells the lowest existing index, so that files beyond a lowered `files_max` are removed.
    #[must_use]
    pub fn with_oldest(mut self, oldest: u32) -> Self {
        self.oldest = oldest.min(self.index);
        self
    }

    /// New limits, valid from the next step on; zero counts as one.
    pub fn set_policy(&mut self, policy: LogPolicy) {
        self.files_max = policy.files_max.max(1);
        self.file_bytes_max = policy.file_bytes_max.max(1);
    }

    /// The next step and what is left of the chunk after it; `None` when all of the chunk was given out.
    /// An empty chunk opens the first file and removes what is too old.
    pub fn next<'a>(&mut self, chunk: &'a [u8]) -> Option<(Op<'a>, &'a [u8])> {
        if !self.is_open {
            self.is_open = true;
            return Some((Op::Open(self.index), chunk));
        }
        if self.index - self.oldest >= self.files_max {
            let index = self.oldest;
            self.oldest += 1;
            return Some((Op::Remove(index), chunk));
        }
        if chunk.is_empty() {
            return None;
        }
        let len = self.fitting(chunk);
        if len == 0 {
            self.index += 1;
            self.bytes = 0;
            self.is_mid_line = false;
            return Some((Op::Open(self.index), chunk));
        }
        let (now, rest) = chunk.split_at_checked(len).unwrap_or((chunk, &[]));
        self.bytes = self.bytes.saturating_add(to_u64(now.len()));
        self.is_mid_line = now.last() != Some(&b'\n');
        Some((Op::Write(now), rest))
    }

    /// The size of the file just opened. One that is already full is left as it is and the next index is tried.
    pub fn opened(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    /// The last `bytes` of a [`Op::Write`] did not reach the file.
    pub fn lost(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// The file could not be opened or is broken: the next step opens it again.
    pub fn closed(&mut self) {
        self.is_open = false;
    }

    /// The file being written.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// How many bytes of `chunk` (not empty) go to the open file now; 0 = none, take the next file.
    fn fitting(&self, chunk: &[u8]) -> usize {
        if self.index == u32::MAX {
            return chunk.len();
        }
        let room = self.file_bytes_max.saturating_sub(self.bytes);
        let fit = usize::try_from(room).unwrap_or(usize::MAX).min(chunk.len());
        if fit == 0 || room >= to_u64(chunk.len()).saturating_add(LINE_BYTES_MAX) {
            return fit;
        }
        let head = chunk.get(..fit).unwrap_or(chunk);
        if let Some(at) = head.iter().rposition(|&byte| byte == b'\n') {
            return at + 1;
        }
        // No line ends in the room that is left. A line that fits into no file, and one whose beginning is here, is not moved.
        let ends_later = chunk.get(fit..).is_some_and(|tail| tail.contains(&b'\n'));
        let fits_nowhere = to_u64(chunk.len()) > self.file_bytes_max || self.file_bytes_max < LINE_BYTES_MAX;
        let is_rest_of_line = self.is_mid_line && fit == chunk.len();
        if self.bytes == 0 || (fits_nowhere && !ends_later) || is_rest_of_line { fit } else { 0 }
    }
}

/// Lossless on every target: a length never exceeds 64 bits.
fn to_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
