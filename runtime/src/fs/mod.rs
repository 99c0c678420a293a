//! Files of an allocation as clients may see them: paths asked for, opened only beneath the allocation's folder.
//!
//! Tasks own these folders and can plant links, pipes and devices in them at any time. So nothing here trusts a path twice:
//! a name is resolved once, beneath a directory descriptor, and everything after that is done on what was found.
//! Errors carry the path as it was asked for, never one of the host. Source: `spec/http-api.md` 5, `spec/runtime.md` 3.1.

pub mod list;
pub mod open;
pub mod path;
pub mod stat;

use core::fmt;

use nix::errno::Errno;

/// Why a file could not be listed, looked at or read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileError {
    /// It, or a folder on the way, does not exist.
    NotFound(String),
    /// A folder where a file is needed.
    IsDirectory(String),
    /// A file where a folder is needed.
    NotDirectory(String),
    /// A pipe, socket or device: reading it could block or act.
    NotRegular(String),
    /// The path, or a link on it, leads out of the allocation's folder.
    Escapes(String),
    /// Below `<task>/secrets`.
    Secret(String),
    /// Below `<task>/private`.
    Private(String),
    /// The agent may not.
    Permission(String),
    /// A folder with more than [`list::ENTRIES_MAX`] entries.
    TooMany(String),
    /// Anything else the kernel says: path and errno.
    Io(String, i32),
}

impl FileError {
    /// The error of an errno on a path as asked.
    #[must_use]
    pub fn new(asked: &str, errno: Errno) -> Self {
        let asked = asked.to_owned();
        match errno {
            Errno::ENOENT => Self::NotFound(asked),
            Errno::ENOTDIR => Self::NotDirectory(asked),
            Errno::EISDIR => Self::IsDirectory(asked),
            Errno::EACCES | Errno::EPERM => Self::Permission(asked),
            // What the kernel answers when a link leads out of the folder a path was to be resolved beneath.
            Errno::EXDEV => Self::Escapes(asked),
            Errno::ENXIO => Self::NotRegular(asked),
            errno => Self::Io(asked, errno as i32),
        }
    }

    /// The same error on another path: reads know no path, who asked for them does.
    #[must_use]
    pub fn on(self, path: &str) -> Self {
        match self {
            Self::Io(_, errno) => Self::Io(path.to_owned(), errno),
            other => other,
        }
    }

    /// The error of the standard library on a path as asked.
    #[must_use]
    pub fn from_io(asked: &str, error: &std::io::Error) -> Self {
        Self::new(asked, error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
    }
}

/// The texts of `spec/http-api.md` 5, without the verb (`open`, `stat`) that some of them begin with.
impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(path) => write!(f, "{path}: no such file or directory"),
            Self::IsDirectory(path) => write!(f, "file {path:?} is a directory"),
            Self::NotDirectory(path) => write!(f, "{path}: not a directory"),
            Self::NotRegular(path) => write!(f, "file {path:?} is not a regular file"),
            Self::Escapes(_) => f.write_str("Path escapes the alloc directory"),
            Self::Secret(path) => write!(f, "Reading secret file prohibited: {path}"),
            Self::Private(path) => write!(f, "Reading private file prohibited: {path}"),
            Self::Permission(_) => f.write_str("Permission denied"),
            Self::TooMany(path) => write!(f, "{path}: more than {} entries", list::ENTRIES_MAX),
            Self::Io(path, errno) => write!(f, "{path}: {}", Errno::from_raw(*errno).desc()),
        }
    }
}

impl std::error::Error for FileError {}
