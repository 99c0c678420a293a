//! Room kept on a volume for the day it is full: a file that is given up then, so that a database can be opened and what makes
//! room again can be written (`spec/runtime.md` 6.8, 6.9).
//!
//! Other programs may be quicker to take what is given up; then it is as without. Units: bytes.
//! Errors: none; without the room its owner does the same, only sooner.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::volume::Mounted;
use crate::disk::KeptRoom;

/// The room is taken only where this many times as much is free: a disk that hovers at its end is not written to and fro.
const FREE_PER_RESERVE: u64 = 8;

/// The file.
#[derive(Debug)]
pub struct Reserve {
    path: PathBuf,
    bytes: u64,
    is_kept: AtomicBool,
    /// The file system keeps no room for files (UBIFS): there is nothing to give up, and nothing to wait for.
    is_impossible: AtomicBool,
}

impl Reserve {
    /// Takes the room if it can be had.
    #[must_use]
    pub fn new(path: PathBuf, bytes: u64) -> Self {
        let is_kept = fs::metadata(&path).is_ok_and(|meta| meta.len() == bytes);
        let reserve = Self { path, bytes, is_kept: AtomicBool::new(is_kept), is_impossible: AtomicBool::new(false) };
        reserve.keep();
        reserve
    }

    /// True while there is something to give up.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.is_kept.load(Ordering::Relaxed)
    }

    fn has_room(&self) -> bool {
        let Some(folder) = self.path.parent() else { return false };
        // Of no known mount: which one it is does not matter here.
        Mounted::new("/").of_mount(None, folder).is_ok_and(|space| space.available >= self.bytes.saturating_mul(FREE_PER_RESERVE))
    }
}

impl KeptRoom for Reserve {
    fn is_missing(&self) -> bool {
        !self.is_kept() && !self.is_impossible.load(Ordering::Relaxed)
    }

    fn keep(&self) {
        if !self.is_missing() || !self.has_room() {
            return;
        }
        let Ok(file) = OpenOptions::new().create(true).truncate(true).write(true).open(&self.path) else { return };
        // Not zeros: nothing is written to the card but where the blocks are.
        let made = fallocate(&file, FallocateFlags::empty(), 0, i64::try_from(self.bytes).unwrap_or(i64::MAX));
        self.is_kept.store(made.is_ok(), Ordering::Relaxed);
        self.is_impossible.store(matches!(made, Err(Errno::EOPNOTSUPP | Errno::ENOSYS)), Ordering::Relaxed);
        if made.is_err() {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn give_up(&self) -> bool {
        self.is_kept.swap(false, Ordering::Relaxed) && fs::remove_file(&self.path).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_kept_given_up_once_and_taken_again() {
        let path = std::env::temp_dir().join(format!("dunlin-reserve-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let taken = || fs::metadata(&path).map(|meta| std::os::unix::fs::MetadataExt::blocks(&meta) * 512).ok();
        let reserve = Reserve::new(path.clone(), 64 << 10);
        assert!(reserve.is_kept() && taken() >= Some(64 << 10));
        assert!(reserve.give_up() && !reserve.is_kept() && taken().is_none());
        assert!(!reserve.give_up(), "there is nothing left to give");
        reserve.keep();
        assert!(reserve.is_kept() && taken() >= Some(64 << 10));
        // The next life of the agent finds it.
        assert!(Reserve::new(path.clone(), 64 << 10).is_kept());
        // More than there can be is not begun with.
        fs::remove_file(&path).unwrap();
        assert!(!Reserve::new(path.clone(), 1 << 60).is_kept() && taken().is_none());
    }
}
