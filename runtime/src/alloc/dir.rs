//! Folders of an allocation: made before each start, removed at the end. Edge: every name below a folder that a task may write is
//! opened beneath a descriptor and never through a symbolic link, because tasks can plant them.
//!
//! ```text
//! <root>/<alloc-id>/          0755 agent
//!   alloc/ {data,logs,tmp}    0777 nobody
//!   <task>/                   0777 nobody
//!     local/                  0777 nobody
//!     tmp/                    1777 nobody
//!     secrets/                tmpfs of 1 MiB, noexec, not swapped; 0700 of the task's user, or 0777 nobody (not strict)
//! ```
//! Making is idempotent; modes and owners are set each time. Not root: plain folders of the agent's user.
//! Errors: `io::Error` with the folder's name. Source: `spec/runtime.md` 3.1; upstream v1.3.1 client/allocdir (behaviour only).
//! `private/` of later releases is left out: nothing is written there, and stock clients of 1.x do not expect it in listings.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, fchmod, fchown, fstat, mkdirat, openat, openat2, renameat, unlinkat,
};
use rustix::io::Errno;

use crate::id::AllocId;

/// Size of the tmpfs on `secrets`.
const SECRETS_BYTES: u32 = 1 << 20;
/// A template is written under this name, then renamed.
const TEMPORARY: &str = ".dunlin-new";
/// User of the shared folders where the system names none.
const NOBODY: u32 = 65_534;

/// Who owns what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners {
    /// Of the shared folders; `None` = the agent is not root and changes nobody.
    pub nobody: Option<(u32, u32)>,
    /// Of `secrets`, which then is closed to all others; `None` = as the shared folders.
    pub secrets: Option<(u32, u32)>,
}

impl Owners {
    /// For this process: `nobody` as the system names it. `secrets` is the task's user, or `None` for open secrets as upstream has them.
    #[must_use]
    pub fn of_system(secrets: Option<(u32, u32)>) -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self { nobody: None, secrets: None };
        }
        let nobody = nix::unistd::User::from_name("nobody").ok().flatten();
        Self { nobody: Some(nobody.map_or((NOBODY, NOBODY), |user| (user.uid.as_raw(), user.gid.as_raw()))), secrets }
    }
}

/// Folders of one task, open.
#[derive(Debug)]
pub struct TaskDir {
    /// The allocation's folder.
    pub alloc_path: PathBuf,
    /// The task's folder.
    pub path: PathBuf,
    /// The same, open.
    pub fd: OwnedFd,
}

/// Folder of an allocation.
#[must_use]
pub fn alloc_path(root: &Path, alloc: AllocId) -> PathBuf {
    root.join(alloc.to_string())
}

/// Makes all folders of one task.
///
/// # Errors
/// The first folder that cannot be made, by name.
pub fn make(root: &Path, alloc: AllocId, task: &str, owners: Owners) -> io::Result<TaskDir> {
    if !is_component(OsStr::new(task)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("task name {task:?} is not the name of a folder")));
    }
    let alloc_path = alloc_path(root, alloc);
    fs::create_dir_all(&alloc_path).map_err(|error| named(error, &alloc_path))?;
    let at = |path: &str| alloc_path.join(path);
    let alloc_fd = openat(CWD, &alloc_path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .and_then(|fd| fchmod(&fd, Mode::from_raw_mode(0o755)).map(|()| fd))
        .map_err(|error| named(error.into(), &alloc_path))?;
    let folder = |parent: &OwnedFd, name: &str, mode| folder(parent.as_fd(), name, mode, owners.nobody);
    let shared = folder(&alloc_fd, "alloc", 0o777).map_err(|error| named(error, &at("alloc")))?;
    for name in ["data", "logs", "tmp"] {
        folder(&shared, name, 0o777).map_err(|error| named(error, &at("alloc").join(name)))?;
    }
    let fd = folder(&alloc_fd, task, 0o777).map_err(|error| named(error, &at(task)))?;
    folder(&fd, "local", 0o777).map_err(|error| named(error, &at(task).join("local")))?;
    folder(&fd, "tmp", 0o1777).map_err(|error| named(error, &at(task).join("tmp")))?;
    secrets(&fd, owners).map_err(|error| named(error, &at(task).join("secrets")))?;
    Ok(TaskDir { path: at(task), alloc_path, fd })
}

fn named(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// One folder with its mode and owner; an existing one gets them again.
fn folder(parent: BorrowedFd<'_>, name: &str, mode: u32, owner: Option<(u32, u32)>) -> io::Result<OwnedFd> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error.into()),
    }
    let fd = openat(parent, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if let Some((uid, gid)) = owner {
        fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    // After the owner, which clears the sticky bit on some file systems.
    fchmod(&fd, Mode::from_raw_mode(mode))?;
    Ok(fd)
}

/// The folder `secrets`, in memory where this process may mount.
fn secrets(task: &OwnedFd, owners: Owners) -> io::Result<()> {
    let (mode, owner) = match owners.secrets {
        Some(user) => (0o700, Some(user)),
        None => (0o777, owners.nobody),
    };
    let fd = folder(task.as_fd(), "secrets", mode, owner)?;
    // Another device than the parent's: mounted by an earlier start of this boot, and just given its owner.
    let (Some((uid, gid)), true) = (owner, fstat(&fd)?.st_dev == fstat(task)?.st_dev) else { return Ok(()) };
    // Through the descriptor: nobody can put another folder in the way between the look and the mount.
    let target = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let data = format!("size={SECRETS_BYTES},mode={mode:o},uid={uid},gid={gid}");
    let with = |data: &str| mount(Some("tmpfs"), target.as_str(), Some("tmpfs"), flags, Some(data));
    // `noswap` came with kernel 6.4. Without the right to mount (a container) the folder stays a plain one.
    if let Err(error) = with(&format!("{data},noswap")).or_else(|_| with(&data)) {
        log::warn!("secrets stay on disk: tmpfs cannot be mounted: {error}");
    }
    Ok(())
}

/// True for the name of one folder or file: not empty, not `.` or `..`, no slash, no NUL.
fn is_component(name: &OsStr) -> bool {
    let mut components = Path::new(name).components();
    matches!((components.next(), components.next()), (Some(Component::Normal(only)), None) if only == name)
        && !name.as_encoded_bytes().contains(&0)
}

/// Opens `relative` below `dir`, following no symbolic link on the way or at its end.
///
/// # Errors
/// `InvalidInput` for a path that is not made of plain names; ELOOP or ENOTDIR where a link is met.
pub fn open_beneath(dir: BorrowedFd<'_>, relative: &Path, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let names = names(relative)?;
    let flags = flags | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match openat2(dir, relative, flags, mode, resolve) {
        // Before kernel 5.6, in emulators and behind filters.
        Err(Errno::NOSYS | Errno::PERM) => {}
        opened => return Ok(opened?),
    }
    walk(dir, &names, flags, mode)
}

/// [`open_beneath`] without openat2: one name at a time.
fn walk(dir: BorrowedFd<'_>, names: &[&OsStr], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
    let (last, parents) = names.split_last().ok_or(io::ErrorKind::InvalidInput)?;
    let mut at = dir.try_clone_to_owned()?;
    for name in parents {
        at = openat(&at, *name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    }
    let fd = openat(&at, *last, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, mode)?;
    // O_PATH with O_NOFOLLOW opens a link itself instead of refusing it.
    if flags.contains(OFlags::PATH) && FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Symlink {
        return Err(Errno::LOOP.into());
    }
    Ok(fd)
}

fn names(relative: &Path) -> io::Result<Vec<&OsStr>> {
    let names: Option<Vec<&OsStr>> = relative
        .components()
        .filter(|component| *component != Component::CurDir)
        .map(|component| if let Component::Normal(name) = component { Some(name) } else { None })
        .collect();
    names.filter(|names| !names.is_empty()).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Writes a file below `dir`: whole or not at all, missing folders made, equal content left alone. True = it was written.
///
/// # Errors
/// As [`open_beneath`], and what writing says.
pub fn write_file(dir: BorrowedFd<'_>, relative: &Path, bytes: &[u8], mode: u32) -> io::Result<bool> {
    let names = names(relative)?;
    let (name, parents) = names.split_last().ok_or(io::ErrorKind::InvalidInput)?;
    let mut at = dir.try_clone_to_owned()?;
    for parent in parents {
        match mkdirat(&at, *parent, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        at = openat(&at, *parent, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    }
    if is_same(&at, name, bytes, mode) {
        return Ok(false);
    }
    let _ = unlinkat(&at, TEMPORARY, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(&at, TEMPORARY, flags, Mode::from_raw_mode(0o600))?;
    let written = fchmod(&fd, Mode::from_raw_mode(mode & 0o7777))
        .map_err(io::Error::from)
        .and_then(|()| io::Write::write_all(&mut fs::File::from(fd), bytes))
        .and_then(|()| Ok(renameat(&at, TEMPORARY, &at, *name)?));
    if written.is_err() {
        let _ = unlinkat(&at, TEMPORARY, AtFlags::empty());
    }
    written.map(|()| true)
}

fn is_same(dir: &OwnedFd, name: &OsStr, bytes: &[u8], mode: u32) -> bool {
    let Ok(fd) = openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    let Ok(stat) = fstat(&fd) else { return false };
    let is_alike = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
        && stat.st_mode & 0o7777 == mode & 0o7777
        && u64::try_from(stat.st_size).ok() == u64::try_from(bytes.len()).ok();
    is_alike && {
        let mut found = Vec::with_capacity(bytes.len());
        io::Read::read_to_end(&mut io::Read::take(fs::File::from(fd), stat.st_size.try_into().unwrap_or(0)), &mut found).is_ok()
            && found == bytes
    }
}

/// Removes an allocation's folder with all that is in it: mounts first, links as links, any depth. A missing one is fine.
///
/// # Errors
/// Something that cannot be removed; the rest may be gone.
pub fn remove(root: &Path, alloc: AllocId) -> io::Result<()> {
    let mut slice = remover(root, alloc);
    loop {
        if let Some(removed) = slice() {
            return removed;
        }
    }
}

/// [`remove`] in slices of at most some hundred files, for a thread with other work: call it until it gives the result.
pub fn remover(root: &Path, alloc: AllocId) -> impl FnMut() -> Option<io::Result<()>> + Send + use<> {
    let path = alloc_path(root, alloc);
    let mut top = None;
    let mut moved_n = 0;
    move || {
        let slice = || -> io::Result<bool> {
            let Some(fd) = &top else {
                unmount_below(&path);
                match openat(CWD, &path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
                    Ok(fd) => top = Some(fd),
                    Err(Errno::NOENT) => return Ok(true),
                    Err(error) => return Err(error.into()),
                }
                return Ok(false);
            };
            let is_empty = empty_slice(fd, &mut moved_n)?;
            if is_empty {
                unlinkat(CWD, &path, AtFlags::REMOVEDIR)?;
            }
            Ok(is_empty)
        };
        match { slice }() {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(named(error, &path))),
        }
    }
}

fn unmount_below(path: &Path) {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(crate::cgroup::unescape).map(PathBuf::from);
    let mut points: Vec<PathBuf> = points.filter(|point| point.starts_with(path)).collect();
    points.reverse();
    for point in points {
        if let Err(error) = umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            log::warn!("{} stays mounted: {error}", point.display());
        }
    }
}

/// Empties a folder by a slice, without recursion: what lies deeper is first moved up into it. A task may nest folders as deep as the
/// disk allows; this way neither the stack nor the number of open files follows. True = it is empty.
fn empty_slice(top: &OwnedFd, moved_n: &mut u64) -> io::Result<bool> {
    let names = entries(top)?;
    let is_empty = names.is_empty();
    for name in names {
        if remove_one(top, &name)? {
            continue;
        }
        let folder = openat(top, name.as_c_str(), OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        for inner in entries(&folder)? {
            if !remove_one(&folder, &inner)? {
                move_up(&folder, &inner, top, moved_n)?;
            }
        }
        // One full folder is enough for a slice. It may not be empty yet: the next one sees.
        let _ = unlinkat(top, name.as_c_str(), AtFlags::REMOVEDIR);
        return Ok(false);
    }
    Ok(is_empty)
}

fn move_up(from: &OwnedFd, name: &std::ffi::CStr, top: &OwnedFd, moved_n: &mut u64) -> io::Result<()> {
    // A fresh name each time; a taken one (EXIST, NOTEMPTY, ISDIR, NOTDIR) is passed over.
    for _ in 0..1024 {
        *moved_n += 1;
        match renameat(from, name, top, format!(".removed-{moved_n}")) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::ISDIR | Errno::NOTDIR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes a file or an empty folder; false = a folder that is not empty.
fn remove_one(dir: &OwnedFd, name: &std::ffi::CStr) -> io::Result<bool> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR | Errno::PERM) => match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Names in a folder, at most 256 at a time: a full one is emptied in rounds.
fn entries(dir: &OwnedFd) -> io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
            if names.len() >= 256 {
                break;
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests;
