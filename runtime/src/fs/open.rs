//! Finding and opening files beneath an allocation's folder. An edge: it calls the kernel and may block on a slow disk.
//!
//! A path is resolved once, to a descriptor that can do nothing but name a file (`O_PATH`): no pipe is waited for and no device
//! is touched. Whatever is asked next (stat, list, read) is asked of that descriptor, so a name that changes meanwhile does not matter.
//! Invariant: nothing outside the folder is reached, whatever links a task plants: absolute links and `..` above the folder are refused.
//! Kernels from 5.6 on resolve by themselves (`openat2`); else each part is taken on its own. Source: `spec/runtime.md` 3.1.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::FileError;
use super::path::{AllocPath, secret};
use super::stat::Entry;

/// Links followed in one path, as the kernel counts.
const LINKS_MAX: u32 = 40;
/// Folders on the way held open at once by the component walk, and parts of a path still to go.
const DEPTH_MAX: usize = 128;
/// How often a resolution is repeated when the kernel saw folders being moved meanwhile.
const RACES_MAX: u32 = 8;

/// The folder of one allocation.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// Something that was found in the folder: a name for a file, of whatever kind.
#[derive(Debug)]
pub struct Found {
    file: File,
    /// What it is.
    pub entry: Entry,
}

impl Root {
    /// Opens the folder itself; its path is the agent's own and is trusted.
    pub fn open(folder: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Resolves a path, following links as long as they stay beneath the folder.
    pub fn find(&self, path: &AllocPath) -> Result<Found, FileError> {
        self.find_with(path, resolve)
    }

    fn find_with(&self, path: &AllocPath, resolve: impl Fn(BorrowedFd<'_>, &str) -> Result<OwnedFd, Errno>) -> Result<Found, FileError> {
        let relative = if path.relative().is_empty() { "." } else { path.relative() };
        let fd = resolve(self.0.as_fd(), relative).map_err(|errno| FileError::from_io(path.asked(), &errno.into()))?;
        let file = File::from(fd);
        let metadata = file.metadata().map_err(|error| FileError::from_io(path.asked(), &error))?;
        Ok(Found { file, entry: Entry::new(path.name().to_owned(), &metadata) })
    }

    /// Opens a regular file for reading. Secrets are refused by their name and, for links, by where the file really lies.
    pub fn open_file(&self, path: &AllocPath) -> Result<(File, Entry), FileError> {
        if let Some(error) = path.secret() {
            return Err(error);
        }
        let found = self.find(path)?;
        if found.entry.is_dir {
            return Err(FileError::IsDirectory(path.asked().to_owned()));
        }
        if !found.entry.is_regular() {
            return Err(FileError::NotRegular(path.asked().to_owned()));
        }
        let real = real_path(&self.0).and_then(|root| Ok((root, real_path(&found.file)?)));
        let (root, real) = real.map_err(|error| FileError::from_io(path.asked(), &error))?;
        let inside = real.strip_prefix(&root).map_err(|_| FileError::Escapes(path.asked().to_owned()))?;
        if let Some(error) = secret(path.asked(), inside.as_os_str().as_bytes()) {
            return Err(error);
        }
        // Without O_NONBLOCK a lease held by another process could make this wait.
        let file = OpenOptions::new().read(true).custom_flags(libc_flags()).open(handle(&found.file));
        let file = file.map_err(|error| FileError::from_io(path.asked(), &error))?;
        Ok((file, found.entry))
    }
}

impl Found {
    /// A path that leads to exactly this file, valid as long as `self` lives.
    #[must_use]
    pub fn handle(&self) -> PathBuf {
        handle(&self.file)
    }
}

fn libc_flags() -> i32 {
    i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default()
}

fn handle(fd: &impl AsRawFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// Where a descriptor's file lies now.
fn real_path(fd: &impl AsRawFd) -> io::Result<PathBuf> {
    std::fs::read_link(handle(fd))
}

/// Resolves `path` beneath `root` to a descriptor that only names the file.
fn resolve(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let flags = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RACES_MAX {
        match rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), flags) {
            // Folders were moved meanwhile: the kernel cannot tell whether the path stayed inside.
            Err(Errno::AGAIN) => {}
            // Not there, or forbidden by a seccomp filter that does not know it.
            Err(Errno::NOSYS | Errno::PERM) => break,
            answer => return answer,
        }
    }
    walk(root, path)
}

/// The same, part by part. `..` goes back to the folder it was entered from, so a folder moved meanwhile leads nowhere new.
fn walk(root: BorrowedFd<'_>, path: &str) -> Result<OwnedFd, Errno> {
    let mut way: Vec<OwnedFd> = Vec::new();
    let mut todo: Vec<Vec<u8>> = Vec::new();
    push_parts(&mut todo, path.as_bytes())?;
    let mut links_n = 0;
    let mut here_is_dir = true;
    while let Some(part) = todo.pop() {
        if !here_is_dir {
            return Err(Errno::NOTDIR);
        }
        if part == b".." {
            way.pop().ok_or(Errno::XDEV)?;
            continue;
        }
        let here = way.last().map_or(root, AsFd::as_fd);
        let next = rustix::fs::openat(here, &*part, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&next)?.st_mode) {
            FileType::Symlink => {
                links_n += 1;
                if links_n > LINKS_MAX {
                    return Err(Errno::LOOP);
                }
                let target = rustix::fs::readlinkat(&next, c"", Vec::new())?;
                if target.as_bytes().starts_with(b"/") {
                    return Err(Errno::XDEV);
                }
                push_parts(&mut todo, target.as_bytes())?;
            }
            kind => {
                here_is_dir = kind == FileType::Directory;
                way.push(next);
                if way.len() > DEPTH_MAX {
                    return Err(Errno::NAMETOOLONG);
                }
            }
        }
    }
    match way.pop() {
        Some(found) => Ok(found),
        None => rustix::fs::openat(root, c".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()),
    }
}

/// Puts the parts of `path` on the stack, so that the first is taken first.
fn push_parts(todo: &mut Vec<Vec<u8>>, path: &[u8]) -> Result<(), Errno> {
    todo.extend(path.split(|&byte| byte == b'/').rev().filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec));
    if todo.len() > DEPTH_MAX { Err(Errno::NAMETOOLONG) } else { Ok(()) }
}

#[cfg(test)]
pub(super) mod tests;
