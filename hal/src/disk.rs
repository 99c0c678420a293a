//! Where a database keeps its one file, and the room that is kept beside it for the day the disk is full.
//!
//! Shape: bytes at an offset, as a file has them. Units: bytes. Errors: `io::Error`.
//! The real file is opened by the database itself; [`Disk`] is the seam at which the simulated one stands in for it
//! (`sim/disk.rs`). [`KeptRoom`] has both: `linux/reserve.rs` and the simulated disk.

use std::io;

/// One file on a disk. What was written is durable after the next [`Disk::sync`]; before that a power cut may keep any part of it.
pub trait Disk: core::fmt::Debug + Send + Sync {
    /// Length of the file.
    ///
    /// # Errors
    /// The disk refuses.
    fn len(&self) -> io::Result<u64>;

    /// True while nothing was ever written.
    ///
    /// # Errors
    /// The disk refuses.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` from offset `at`.
    ///
    /// # Errors
    /// The range is not within the file, or the disk refuses.
    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes within the length of the file.
    ///
    /// # Errors
    /// The range is not within the file, there is no room, or the disk refuses.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or extends it with zeros that take no room yet.
    ///
    /// # Errors
    /// The disk refuses.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes all of it durable.
    ///
    /// # Errors
    /// The disk refuses: whatever was not durable before may be lost, and stays so though it can still be read.
    fn sync(&self) -> io::Result<()>;

    /// Forgets what is only in memory and not on its way to the disk: after a sync that failed, reads must show what is there.
    fn uncache(&self);
}

/// Room kept on a disk for the day it is full: given up then, and taken again when there is enough of it.
pub trait KeptRoom: core::fmt::Debug + Send + Sync {
    /// True when the room was given up, or never found, where it could be kept.
    fn is_missing(&self) -> bool;
    /// Takes the room again, if it was given up and there is enough.
    fn keep(&self);
    /// Gives the room to whoever needs it. False: there was none.
    fn give_up(&self) -> bool;
}
