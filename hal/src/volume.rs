//! Space on the file system below a path, and pushing files and folders to it.
//!
//! Shape: path -> [`Space`]; path -> durable. Units: bytes. Errors: [`VolumeError`], which says whether the medium is full
//! or read-only, because callers answer those differently from a broken one.
//! Source: `spec/http-api.md` 4.1 (disk statistics), `spec/runtime.md` 8 (storage attributes).

use core::fmt;
use std::io;
use std::path::{Path, PathBuf};

pub mod mounts;

/// The file systems of the machine.
pub trait Volume {
    /// The file system that holds `path`, or would hold it when it does not exist yet.
    fn space(&self, path: &Path) -> Result<Space, VolumeError>;
    /// Makes the bytes and length of a file durable. Its name becomes durable with [`Volume::sync_dir`] of its folder.
    fn sync_file(&self, path: &Path) -> Result<(), VolumeError>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> Result<(), VolumeError>;
}

/// One mounted file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Device as mounted, such as `/dev/mmcblk0p2`; a name such as `tmpfs` when there is no device.
    pub device: String,
    /// Where it is mounted.
    pub mountpoint: String,
    /// Bytes in all.
    pub size: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes an ordinary user may still write; less than `size - used` where blocks are reserved for root.
    pub available: u64,
    /// Inodes in all; 0 where the file system has no such bound.
    pub inodes: u64,
    /// Inodes in use.
    pub inodes_used: u64,
}

impl Space {
    /// Share of the usable bytes that is in use, percent: `used / (used + available)`, as `df` and Nomad tell it.
    #[must_use]
    pub fn used_percent(&self) -> f64 {
        percent(self.used, self.used.saturating_add(self.available))
    }

    /// Share of the inodes in use, percent.
    #[must_use]
    pub fn inodes_used_percent(&self) -> f64 {
        percent(self.inodes_used, self.inodes)
    }
}

/// `part` of `whole` in percent; 0 of nothing is 0.
#[expect(clippy::cast_precision_loss, reason = "a percentage needs no more than 52 bits")]
pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

/// What was asked of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// [`Volume::space`].
    Space,
    /// [`Volume::sync_file`].
    SyncFile,
    /// [`Volume::sync_dir`].
    SyncDir,
}

/// A refused operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeError {
    /// What was asked.
    pub op: Op,
    /// Of which path.
    pub path: PathBuf,
    /// The kernel's number; 0 when it gave none.
    pub errno: i32,
}

/// No space left.
pub const ENOSPC: i32 = 28;
/// Input or output failed.
pub const EIO: i32 = 5;
/// Read-only file system.
pub const EROFS: i32 = 30;
/// Quota exceeded.
const EDQUOT: i32 = 122;

impl VolumeError {
    /// With the number of an I/O error.
    #[must_use]
    pub fn new(op: Op, path: &Path, errno: i32) -> Self {
        Self { op, path: path.to_owned(), errno }
    }

    /// No space or no quota left.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self.errno, ENOSPC | EDQUOT)
    }

    /// The medium takes no writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.errno == EROFS
    }
}

impl fmt::Display for VolumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.op {
            Op::Space => "cannot tell the space at",
            Op::SyncFile => "cannot sync file",
            Op::SyncDir => "cannot sync folder",
        };
        write!(f, "{what} {}: {}", self.path.display(), io::Error::from_raw_os_error(self.errno))
    }
}

impl core::error::Error for VolumeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages() {
        // Figures of a recorded answer of a Nomad 1.1.2 agent.
        let space = Space { size: 270_553_174_016, used: 27_408_752_640, available: 70_163_996_672, ..Space::default() };
        assert!((space.used_percent() - 28.090_581_472_043_375).abs() < 1e-9);
        assert_eq!(Space::default().used_percent(), 0.0);
        assert_eq!(Space::default().inodes_used_percent(), 0.0);
        let odd = Space { used: u64::MAX, available: u64::MAX, ..Space::default() };
        assert!(odd.used_percent() <= 100.0);
        assert_eq!(Space { inodes: 200, inodes_used: 7, ..Space::default() }.inodes_used_percent(), 3.5);
    }

    #[test]
    fn errors_tell_full_from_broken() {
        let error = |errno| VolumeError::new(Op::SyncFile, Path::new("/d/f"), errno);
        assert!(error(ENOSPC).is_full() && error(EDQUOT).is_full() && !error(EIO).is_full());
        assert!(error(EROFS).is_read_only() && !error(ENOSPC).is_read_only());
        assert!(error(EIO).to_string().starts_with("cannot sync file /d/f: "));
    }
}
