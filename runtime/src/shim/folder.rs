//! The agent's side of runtime folders: made before a shim is started, found again after an agent's own start, removed when its end is
//! committed.
//!
//! ```text
//! <runtime_dir>/t/<inv>/   0700, on tmpfs
//!   lock    empty; the shim holds it (flock) from before the task exists until nothing of it is left
//!   state   two slots of 512 bytes, preallocated (see `record`)
//!   spec    0600 (see `spec`)
//!   ctl     the shim's socket
//! ```
//! Invariant: whoever holds `lock` owns the folder; a shim that cannot get it never runs its task. So a folder whose lock the agent got
//! is dead for good, and the agent keeps the lock until the folder is gone. Only names that are invocations are touched.
//! Errors: `io::Error`; a folder that cannot be read is told, never guessed about. Source: `spec/runtime.md` 6.2, 6.6.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use rustix::fs::{CWD, FallocateFlags, FlockOperation, Mode, OFlags, fallocate, flock, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::record::{Phase, STATE_BYTES, Slot, SlotError};
use super::spec::{SPEC_BYTES_MAX, Spec};
use crate::cgroup::{Mode as GroupMode, Tree};
use crate::id::{AllocId, Inv};
use crate::proc::pidfd::Process;
use crate::proc::usage;

/// Longest path of a socket, its NUL not counted.
const SOCKET_PATH_MAX: usize = 107;

/// The folder of one invocation.
#[must_use]
pub fn path(runtime_dir: &Path, inv: Inv) -> PathBuf {
    runtime_dir.join("t").join(inv.to_string())
}

/// Makes the folder with `lock`, `state` and `spec`; gives back its path. On an error nothing is left.
///
/// # Errors
/// The folder exists already, or there is no room.
pub fn make(runtime_dir: &Path, inv: Inv, spec: &[u8]) -> io::Result<PathBuf> {
    let dir = path(runtime_dir, inv);
    let private = || {
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        builder
    };
    private().recursive(true).create(runtime_dir.join("t"))?;
    private().create(&dir)?;
    fill(&dir, spec).inspect_err(|_| {
        // Nothing has been started, so there is no lock to ask for.
        let _ = fs::remove_dir_all(&dir);
    })?;
    Ok(dir)
}

fn fill(dir: &Path, spec: &[u8]) -> io::Result<()> {
    let create = |name: &str| fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(dir.join(name));
    create("lock")?;
    let state = create("state")?;
    let len = u64::try_from(STATE_BYTES).unwrap_or(0);
    match fallocate(&state, FallocateFlags::empty(), 0, len) {
        // A file system that cannot preallocate: written zeros take the room just as well.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => io::Write::write_all(&mut &state, &[0; STATE_BYTES])?,
        other => other?,
    }
    io::Write::write_all(&mut create("spec")?, spec)
}

/// Connects to the shim of a folder: a SEQPACKET socket that does not block.
///
/// # Errors
/// `NotFound` before it listens, `ConnectionRefused` after it has gone.
pub fn connect(dir: &Path) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    let path = dir.join("ctl");
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        rustix::net::connect(&socket, &SocketAddrUnix::new(&path)?)?;
    } else {
        let dir = openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(format!("/proc/self/fd/{}/ctl", dir.as_raw_fd()))?)?;
    }
    Ok(socket)
}

/// The newest slot of an invocation; `None` = no phase was reached.
///
/// # Errors
/// The folder cannot be read (`NotFound` when it is gone), or belongs to a newer shim (`Unsupported`).
pub fn slot(runtime_dir: &Path, inv: Inv) -> io::Result<Option<Slot>> {
    match Slot::newest(&read_bounded(&path(runtime_dir, inv).join("state"), STATE_BYTES)?) {
        Ok(slot) => Ok(Some(slot)),
        Err(SlotError::Invalid) => Ok(None),
        Err(SlotError::Newer { layout }) => Err(io::Error::new(io::ErrorKind::Unsupported, format!("state of layout {layout}"))),
    }
}

/// What [`attach`] found.
#[derive(Debug)]
pub enum Attached {
    /// The shim listens: HELLO, ADOPT.
    Live(OwnedFd),
    /// The shim is gone; this is what it left.
    Gone(Option<Slot>),
}

/// Connects, or reads what is left of a shim that has ended meanwhile (a task may live for a millisecond).
///
/// # Errors
/// The folder cannot be read, or its shim neither listens nor has let go of the lock (`WouldBlock`: ask again).
pub fn attach(runtime_dir: &Path, inv: Inv) -> io::Result<Attached> {
    let dir = path(runtime_dir, inv);
    match connect(&dir) {
        Ok(socket) => Ok(Attached::Live(socket)),
        // Without the lock it may be between two steps of its start or its end.
        Err(_) if try_lock(&dir)?.is_none() => Err(io::ErrorKind::WouldBlock.into()),
        Err(_) => Ok(Attached::Gone(slot(runtime_dir, inv)?)),
    }
}

/// One runtime folder met at the agent's start.
#[derive(Debug)]
pub struct Found {
    /// The invocation.
    pub inv: Inv,
    /// Its allocation and task, if `spec` can be read.
    pub task: Option<(AllocId, String)>,
    /// The agent's bytes in `spec`: events no commit holds yet.
    pub note: Vec<u8>,
    /// The newest slot.
    pub slot: Option<Slot>,
    /// A newer release's, which this one cannot read.
    pub is_newer: bool,
    /// Somebody holds the lock: the shim lives.
    pub is_alive: bool,
    /// The lock, when it was free: keep it until the folder is removed.
    pub lock: Option<OwnedFd>,
}

/// What is to be done about a [`Found`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Connect and adopt.
    Adopt,
    /// The slot tells how it ended: commit that, then [`remove`].
    Consume,
    /// The shim was lost under a task: [`kill_orphan`], report it as lost, [`remove`].
    Orphan,
    /// A newer release's: leave it as it is.
    Leave,
}

impl Found {
    /// What is to be done.
    #[must_use]
    pub fn fate(&self) -> Fate {
        match &self.slot {
            _ if self.is_newer => Fate::Leave,
            _ if self.is_alive => Fate::Adopt,
            Some(slot) if slot.phase.has_ended() => Fate::Consume,
            _ => Fate::Orphan,
        }
    }

    /// True when nothing can come of it: it is of another boot, or its shim never reached its task. A pid is saved before the first
    /// instruction of a task, so without one there never was any.
    #[must_use]
    pub fn is_void(&self, boot_id: [u8; 16]) -> bool {
        let is_other_boot = self.slot.is_some_and(|slot| slot.boot_id != boot_id);
        let is_unborn = !self.is_newer && self.slot.is_none_or(|slot| slot.phase == Phase::Ready);
        !self.is_alive && (is_other_boot || is_unborn)
    }
}

/// Looks at every runtime folder (step 1 of an agent's start). Folders of another boot, and those whose shim never reached its task,
/// are removed here: nothing of them can run. `runtime_dir` need not exist.
///
/// # Errors
/// The list of folders cannot be read. A folder that cannot be is logged and left.
pub fn scan(runtime_dir: &Path, boot_id: [u8; 16]) -> io::Result<Vec<Found>> {
    let entries = match fs::read_dir(runtime_dir.join("t")) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        // Names that are not invocations are not ours.
        let Some(inv) = entry?.file_name().to_str().and_then(Inv::parse) else { continue };
        match look(runtime_dir, inv, boot_id) {
            Ok(Some(folder)) => found.push(folder),
            Ok(None) => {}
            Err(error) => log::warn!("runtime folder {inv}: {error}"),
        }
    }
    found.sort_by_key(|folder| folder.inv);
    Ok(found)
}

fn look(runtime_dir: &Path, inv: Inv, boot_id: [u8; 16]) -> io::Result<Option<Found>> {
    let dir = path(runtime_dir, inv);
    let lock = match try_lock(&dir) {
        Ok(lock) => lock,
        // The agent died between making the folder and making the lock: no shim was started.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            unlink(&dir)?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // Read under the lock, or beside a living shim.
    let (slot, is_newer) = match slot(runtime_dir, inv) {
        Ok(slot) => (slot, false),
        Err(error) if error.kind() == io::ErrorKind::Unsupported => (None, true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (None, false),
        Err(error) => return Err(error),
    };
    let found = Found { inv, task: None, note: Vec::new(), slot, is_newer, is_alive: lock.is_none(), lock };
    if found.is_void(boot_id) {
        unlink(&dir)?;
        return Ok(None);
    }
    let bytes = match read_bounded(&dir.join("spec"), SPEC_BYTES_MAX) {
        Ok(bytes) => bytes,
        // It goes first: a removal was cut short, so what the folder told is committed.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !found.is_alive => {
            unlink(&dir)?;
            return Ok(None);
        }
        Err(_) => Vec::new(),
    };
    let spec = Spec::decode(&bytes).ok();
    Ok(Some(Found {
        task: spec.as_ref().map(|spec| (spec.alloc, spec.task.to_owned())),
        note: spec.map(|spec| spec.note.to_owned()).unwrap_or_default(),
        ..found
    }))
}

/// The folder's lock without waiting; `None` = somebody holds it.
///
/// # Errors
/// `NotFound`: no folder, or no lock in it.
pub fn try_lock(dir: &Path) -> io::Result<Option<OwnedFd>> {
    let fd = openat(CWD, dir.join("lock"), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    match flock(&fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(fd)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Removes a runtime folder; one that is gone is fine. `lock` is the one of [`Found`], else it is taken here.
///
/// # Errors
/// `WouldBlock` while a shim lives in it.
pub fn remove(runtime_dir: &Path, inv: Inv, lock: Option<OwnedFd>) -> io::Result<()> {
    let dir = path(runtime_dir, inv);
    let lock = match lock {
        Some(lock) => lock,
        None => match try_lock(&dir) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Err(io::ErrorKind::WouldBlock.into()),
            // Cut short by an earlier removal, or gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return unlink(&dir),
            Err(error) => return Err(error),
        },
    };
    unlink(&dir)?;
    drop(lock);
    Ok(())
}

/// The lock goes last of all files: a shim that comes late finds it held, then unlinked, and gives up. `spec` goes first: without it
/// the rest is only to be removed.
fn unlink(dir: &Path) -> io::Result<()> {
    for name in ["spec", "state", "ctl", "lock"] {
        ignore_missing(fs::remove_file(dir.join(name)))?;
    }
    ignore_missing(fs::remove_dir(dir))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Kills what a lost shim left behind; gives back how many processes were found. Call again until it is 0.
///
/// With control groups the task's group is killed. Without, its main process if pid and start time still agree, and every process that
/// carries the allocation and the task in the environment it was started with: nothing else tells orphans of orphans from strangers.
///
/// # Errors
/// The group or `/proc` cannot be read.
pub fn kill_orphan(tree: &Tree, slot: &Slot, alloc: AllocId, task: &str) -> io::Result<u32> {
    let in_groups = tree.kill(alloc, task)?;
    let mut found_n = 0;
    let mut kill = |pid, start| {
        if let Some(process) = Process::open(pid, start)
            && process.signal(Signal::SIGKILL).is_ok_and(|is_sent| is_sent)
        {
            found_n += 1;
        }
    };
    kill(slot.task_pid, slot.task_start);
    if tree.mode() == GroupMode::None {
        let marks = [format!("NOMAD_ALLOC_ID={alloc}"), format!("NOMAD_TASK_NAME={task}")];
        usage::for_each_process(|pid| {
            // The start time first: the environment read after it belongs to that process or to nobody.
            if let Ok(stat) = usage::stat(pid)
                && stat.state != b'Z'
                && pid != slot.task_pid
                && stat.start >= slot.task_start
                && usage::has_environment(pid, &marks)
            {
                kill(pid, stat.start);
            }
        })?;
    }
    Ok(in_groups.max(found_n))
}

/// At most `bytes_max` of a file.
fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    io::Read::read_to_end(&mut io::Read::take(fs::File::open(path)?, limit), &mut bytes)?;
    Ok(bytes)
}

/// A text for the `spec` file: its bytes and the final NUL; `None` when it holds a NUL.
pub(crate) fn with_nul(text: &OsStr) -> Option<Vec<u8>> {
    let mut bytes = text.as_bytes().to_vec();
    (!bytes.contains(&0)).then(|| {
        bytes.push(0);
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("folder-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn write_slot(&self, slot: &Slot) {
            let file = fs::OpenOptions::new().write(true).open(path(&self.0, slot.inv).join("state")).expect("state");
            rustix::io::pwrite(&file, &slot.encode(), slot.offset()).expect("written");
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const BOOT: [u8; 16] = [3; 16];

    fn spec_bytes() -> Vec<u8> {
        let spec = Spec {
            alloc: AllocId([9; 16]),
            task: "web",
            exec: b"/x\0",
            argv: vec![b"/x\0"],
            work_dir: b"/\0",
            alloc_dir: b"/\0",
            note: b"mine",
            ..Spec::default()
        };
        spec.encode().expect("fits")
    }

    fn slot_of(inv: u64, phase: Phase) -> Slot {
        Slot { seq: 1, inv: Inv(inv), boot_id: BOOT, phase, ..Slot::default() }
    }

    #[test]
    fn a_folder_is_made_once_and_its_state_is_preallocated() {
        let scratch = Scratch::new("make");
        let dir = make(&scratch.0, Inv(1), b"spec").expect("made");
        assert_eq!(fs::metadata(dir.join("state")).expect("there").len(), 1024);
        assert_eq!(slot(&scratch.0, Inv(1)).expect("readable"), None);
        assert_eq!(make(&scratch.0, Inv(1), b"other").expect_err("exists").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(dir.join("spec")).expect("there"), b"spec");
        assert_eq!(connect(&dir).expect_err("nobody listens").kind(), io::ErrorKind::NotFound);
        remove(&scratch.0, Inv(1), None).expect("removed");
        remove(&scratch.0, Inv(1), None).expect("gone already");
        assert!(slot(&scratch.0, Inv(1)).is_err());
    }

    #[test]
    fn what_a_start_finds() {
        let scratch = Scratch::new("scan");
        assert_eq!(scan(&scratch.0, BOOT).expect("nothing there").len(), 0);
        // (invocation, slot, lock held, what scan says of it)
        let rows: [(u64, Option<Slot>, bool, Option<Fate>); 9] = [
            (1, None, false, None),
            (2, None, true, Some(Fate::Adopt)),
            (3, Some(slot_of(3, Phase::Ready)), false, None),
            (4, Some(slot_of(4, Phase::Running)), true, Some(Fate::Adopt)),
            (5, Some(slot_of(5, Phase::Running)), false, Some(Fate::Orphan)),
            (6, Some(slot_of(6, Phase::Done)), false, Some(Fate::Consume)),
            (7, Some(slot_of(7, Phase::ExecFailed)), false, Some(Fate::Consume)),
            (8, Some(Slot { boot_id: [4; 16], ..slot_of(8, Phase::Done) }), false, None),
            (9, Some(slot_of(9, Phase::Stuck)), false, Some(Fate::Orphan)),
        ];
        let mut held = Vec::new();
        for (inv, slot, is_held, _) in &rows {
            let dir = make(&scratch.0, Inv(*inv), &spec_bytes()).expect("made");
            if let Some(slot) = slot {
                scratch.write_slot(slot);
            }
            if *is_held {
                held.push(try_lock(&dir).expect("lock").expect("free"));
            }
        }
        fs::create_dir(scratch.0.join("t/not-an-invocation")).expect("made");
        fs::create_dir(scratch.0.join("t/00000000000000aa")).expect("half made");

        let found = scan(&scratch.0, BOOT).expect("scanned");
        let got: Vec<(u64, Fate)> = found.iter().map(|found| (found.inv.0, found.fate())).collect();
        let want: Vec<(u64, Fate)> = rows.iter().filter_map(|(inv, .., fate)| Some((*inv, (*fate)?))).collect();
        assert_eq!(got, want);
        assert!(found.iter().all(|found| found.task == Some((AllocId([9; 16]), "web".to_owned())) && found.note == b"mine"));
        assert!(found.iter().all(|found| found.lock.is_some() != found.is_alive));
        let left = fs::read_dir(scratch.0.join("t")).expect("there").count();
        assert_eq!(left, want.len() + 1, "the rest is removed, the stranger stays");
        // Locks stay held while the list lives, so no late shim can start.
        assert!(try_lock(&path(&scratch.0, Inv(6))).expect("there").is_none());
        for folder in found {
            let result = remove(&scratch.0, folder.inv, folder.lock);
            assert_eq!(result.is_err(), folder.is_alive);
        }
    }

    #[test]
    fn a_removal_that_was_cut_short_is_finished() {
        let scratch = Scratch::new("cut");
        for (i, gone) in [&["spec"][..], &["spec", "state"], &["spec", "state", "ctl", "lock"]].into_iter().enumerate() {
            let inv = Inv(1 + i as u64);
            let dir = make(&scratch.0, inv, &spec_bytes()).expect("made");
            scratch.write_slot(&slot_of(inv.0, Phase::Done));
            gone.iter().for_each(|name| ignore_missing(fs::remove_file(dir.join(name))).expect("removed"));
            assert!(scan(&scratch.0, BOOT).expect("scanned").is_empty(), "{gone:?}");
            assert!(!dir.exists(), "{gone:?}");
        }
    }

    #[test]
    fn a_newer_shim_is_left_alone() {
        let scratch = Scratch::new("newer");
        let dir = make(&scratch.0, Inv(1), &spec_bytes()).expect("made");
        let mut bytes = slot_of(1, Phase::Running).encode();
        bytes[4] = 2;
        let crc = crc32c::crc32c(&bytes[..508]).to_le_bytes();
        bytes[508..].copy_from_slice(&crc);
        fs::write(dir.join("state"), bytes).expect("written");
        let found = scan(&scratch.0, BOOT).expect("scanned");
        assert!(matches!(found.as_slice(), [only] if only.fate() == Fate::Leave));
        assert!(dir.exists());
    }

    #[test]
    fn long_paths_are_connected_through_the_folder() {
        let scratch = Scratch::new(&"x".repeat(120));
        let dir = make(&scratch.0, Inv(1), b"").expect("made");
        assert_eq!(connect(&dir).expect_err("nobody listens").kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn texts_with_nul_are_refused() {
        assert_eq!(with_nul(OsStr::new("a")), Some(b"a\0".to_vec()));
        assert_eq!(with_nul(OsStr::new("a\0b")), None);
    }
}
