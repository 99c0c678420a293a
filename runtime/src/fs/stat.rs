//! What is told of one file.
//!
//! Shape: the kernel's answer -> [`Entry`]; mode bits -> Go's text. Units: bytes; nanoseconds in [`Wall`].

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use dunlin_hal::clock::Wall;

/// File type bits of `st_mode`.
const TYPE: u32 = 0o170_000;
/// A folder.
const DIRECTORY: u32 = 0o040_000;
/// A regular file.
const REGULAR: u32 = 0o100_000;

/// One file, folder or anything else with a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Last part of the path; empty for the allocation's folder. What is not UTF-8 is shown as U+FFFD.
    pub name: String,
    /// A folder.
    pub is_dir: bool,
    /// Size; for a folder what the file system says.
    pub size: u64,
    /// `st_mode`: type and permission bits.
    pub mode: u32,
    /// Last change of the contents.
    pub modified_at: Wall,
    /// Inode.
    pub inode: u64,
}

impl Entry {
    /// From what the kernel says of a file.
    #[must_use]
    pub fn new(name: String, metadata: &Metadata) -> Self {
        let seconds_ns = metadata.mtime().saturating_mul(1_000_000_000);
        Self {
            name,
            is_dir: metadata.is_dir(),
            size: metadata.size(),
            mode: metadata.mode(),
            modified_at: Wall(seconds_ns.saturating_add(metadata.mtime_nsec())),
            inode: metadata.ino(),
        }
    }

    /// A regular file: the only kind that is read.
    #[must_use]
    pub fn is_regular(&self) -> bool {
        self.mode & TYPE == REGULAR
    }

    /// Type and permissions as Go writes them: `drwxr-xr-x`, `-rw-r--r--`, `dtrwxrwxrwx`, `Lrwxrwxrwx`, `Dcrw-rw-rw-`.
    /// Source: `spec/http-api.md` 5.2.
    #[must_use]
    pub fn mode_text(&self) -> String {
        let mut text = String::with_capacity(12);
        text.push_str(match self.mode & TYPE {
            DIRECTORY => "d",
            0o120_000 => "L",
            0o060_000 | 0o020_000 => "D",
            0o010_000 => "p",
            0o140_000 => "S",
            _ => "",
        });
        // Go's order: set-user, set-group, character device, sticky.
        let flags = [
            (self.mode & 0o4000 != 0, 'u'),
            (self.mode & 0o2000 != 0, 'g'),
            (self.mode & TYPE == 0o020_000, 'c'),
            (self.mode & 0o1000 != 0, 't'),
        ];
        text.extend(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, letter)| *letter));
        if text.is_empty() {
            text.push('-');
        }
        for (bit, letter) in (0..9).rev().zip("rwxrwxrwx".chars()) {
            text.push(if self.mode >> bit & 1 == 1 { letter } else { '-' });
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_written_as_go_writes_them() {
        for (mode, want) in [
            (0o100_644, "-rw-r--r--"),
            (0o100_000, "----------"),
            (0o040_755, "drwxr-xr-x"),
            (0o041_777, "dtrwxrwxrwx"),
            (0o120_777, "Lrwxrwxrwx"),
            (0o010_600, "prw-------"),
            (0o140_755, "Srwxr-xr-x"),
            (0o060_660, "Drw-rw----"),
            (0o020_666, "Dcrw-rw-rw-"),
            (0o104_755, "urwxr-xr-x"),
            (0o106_711, "ugrwx--x--x"),
            (0o101_644, "trw-r--r--"),
        ] {
            assert_eq!(Entry { mode, ..Entry::default() }.mode_text(), want, "{mode:o}");
        }
    }
}
