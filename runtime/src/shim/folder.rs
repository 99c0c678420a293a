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
//! Invariant: whoever holds `lock` owns the folder; a shim that cannot get it never runs its task. So a folder with a slot whose lock the
//! agent can get is dead for good, and one without is removed under the lock. Only names that are invocations are touched.
//! Errors: `io::Error`; a folder that cannot be read is told, never guessed about. Source: `spec/runtime.md` 6.2, 6.6.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dunlin_hal::clock::Mono;
use nix::sys::signal::Signal;
use rustix::fs::{CWD, FallocateFlags, FlockOperation, Mode, OFlags, fallocate, flock, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::record::{Ended, Phase, STATE_BYTES, Slot, SlotError};
use super::spec::{self, SPEC_BYTES_MAX, Spec};
use crate::cgroup;
use crate::id::{AllocId, Inv};
use crate::proc::pidfd::Process;
use crate::proc::usage;
use crate::task::machine::News;
use crate::task::restart::Window;

/// Longest path of a socket, its NUL not counted.
const SOCKET_PATH_MAX: usize = 107;
/// Wait for a killed supervisor: its death must not be mistaken for a hold on the lock.
const SHIM_END_LIMIT: Duration = Duration::from_secs(1);
/// Rounds of a kill: each finds those that were being born during the one before.
const KILL_ROUNDS_MAX: u32 = 8;

/// The folder of one invocation.
#[must_use]
pub fn folder(runtime_dir: &Path, inv: Inv) -> PathBuf {
    runtime_dir.join("t").join(inv.to_string())
}

/// Makes the folder with `lock`, `state` and `spec`; gives back its path. On an error nothing is left.
///
/// # Errors
/// The folder exists already, or there is no room.
pub fn make(runtime_dir: &Path, inv: Inv, spec: &[u8]) -> io::Result<PathBuf> {
    let dir = folder(runtime_dir, inv);
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

/// The newest slot in a folder; `None` = no phase was reached, the folder is gone, or a newer shim's.
#[must_use]
pub fn read_slot(dir: &Path) -> Option<Slot> {
    slot(dir).ok()?.ok()
}

fn slot(dir: &Path) -> io::Result<Result<Slot, SlotError>> {
    Ok(Slot::newest(&read_bounded(&dir.join("state"), STATE_BYTES)?))
}

/// One runtime folder met at the agent's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The invocation.
    pub inv: Inv,
    /// Its allocation.
    pub alloc: AllocId,
    /// Its task.
    pub task: String,
    /// The newest slot; `None` = a living shim that is not ready yet.
    pub slot: Option<Slot>,
    /// The shim lives: connect and adopt.
    pub is_alive: bool,
}

impl Found {
    /// What the slot tells, in order; empty = it had not begun. The end of a living shim's task is not in it: the shim will tell.
    #[must_use]
    pub fn news(&self) -> Vec<News> {
        let Some(slot) = &self.slot else { return Vec::new() };
        let running = has_run(slot).then_some(News::Running { started_at: slot.started.wall, pid: slot.task_pid });
        let end = (!self.is_alive).then(|| end_when_lost(Some(slot)));
        running.into_iter().chain(end).collect()
    }
}

/// True when the task was executed, whatever has become of it.
fn has_run(slot: &Slot) -> bool {
    slot.started.mono != Mono::default()
}

/// How an invocation ended: nothing of it is left but its folder. `None` while something is, or may be.
#[must_use]
pub fn end_of(slot: &Slot) -> Option<News> {
    match slot.phase {
        Phase::Done => slot.ended().map(|ended| exited(slot, ended)),
        Phase::ExecFailed => slot.exec_error().map(|error| News::LaunchFailed { error, is_recoverable: is_shortage(slot.code) }),
        Phase::Ready | Phase::Forked | Phase::Running | Phase::Stopping | Phase::Exited | Phase::Stuck => None,
    }
}

/// How an invocation ended whose shim is gone and whose leftovers are killed ([`kill_orphan`]): an exit that was saved still counts.
#[must_use]
pub fn end_when_lost(slot: Option<&Slot>) -> News {
    let saved = slot.and_then(|slot| end_of(slot).or_else(|| slot.ended().map(|ended| exited(slot, ended))));
    saved.unwrap_or_else(|| match slot {
        Some(slot) if slot.phase != Phase::Ready => News::Lost,
        // No instruction of it was executed.
        _ => News::LaunchFailed {
            error: "failed to launch command: the supervisor ended before the task began".to_owned(),
            is_recoverable: true,
        },
    })
}

fn exited(slot: &Slot, ended: Ended) -> News {
    News::Exited {
        code: ended.exit_code,
        signal: ended.signal,
        oom_killed: ended.is_oom_killed,
        message: if ended.is_oom_killed { "OOM Killed".to_owned() } else { String::new() },
        started_at: slot.started.wall,
        finished_at: slot.exited.wall,
    }
}

/// A later attempt may find what this one lacked.
fn is_shortage(errno: i32) -> bool {
    use nix::libc::{EAGAIN, EMFILE, ENFILE, ENOMEM, ETXTBSY};
    matches!(errno, EAGAIN | EMFILE | ENFILE | ENOMEM | ETXTBSY)
}

/// The agent's restart window as the slot keeps it.
#[must_use]
pub fn window_of(slot: &Slot) -> Window {
    Window { count: slot.restart_n, start: slot.interval_started }
}

/// Looks at every runtime folder (step 1 of an agent's start). Folders of another boot, and those whose shim never reached its task,
/// are removed: nothing of them can run. What a lost shim left behind is killed. `runtime_dir` need not exist.
///
/// # Errors
/// The list of folders cannot be read. A folder that cannot be is logged and left, and so is one of a newer release.
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
        match look(&folder(runtime_dir, inv), inv, boot_id) {
            Ok(Some(folder)) => found.push(folder),
            Ok(None) => {}
            Err(error) => log::warn!("runtime folder {inv} is left as it is: {error}"),
        }
    }
    found.sort_by_key(|folder| folder.inv);
    Ok(found)
}

fn look(dir: &Path, inv: Inv, boot_id: [u8; 16]) -> io::Result<Option<Found>> {
    let lock = match try_lock(dir) {
        Ok(lock) => lock,
        // The agent died between making the folder and making the lock: no shim was started.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            unlink(dir)?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    // Read under the lock, or beside a living shim.
    let slot = match slot(dir) {
        Ok(Ok(slot)) => Some(slot),
        Ok(Err(SlotError::Newer { layout })) => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("state of layout {layout}")));
        }
        Ok(Err(SlotError::Invalid)) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let is_other_boot = slot.is_some_and(|slot| slot.boot_id != boot_id);
    // A pid is saved before the first instruction of a task: without one there never was any.
    let is_unborn = slot.is_none_or(|slot| slot.phase == Phase::Ready);
    if lock.is_some() && (is_other_boot || is_unborn) {
        unlink(dir)?;
        return Ok(None);
    }
    let is_alive = lock.is_none();
    if !is_alive && slot.is_none_or(|slot| end_of(&slot).is_none()) {
        kill_orphan(dir, slot.as_ref())?;
    }
    let bytes = read_bounded(&dir.join("spec"), SPEC_BYTES_MAX)?;
    let spec = Spec::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("spec: {error:?}")))?;
    // The lock need not be kept: a shim takes it once, before its first slot, and this one has let go of it.
    Ok(Some(Found { inv, alloc: spec.alloc, task: spec.task.to_owned(), slot, is_alive }))
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

/// Removes a runtime folder; one that is gone is fine.
///
/// # Errors
/// `WouldBlock` while a shim lives in it.
pub fn remove(runtime_dir: &Path, inv: Inv) -> io::Result<()> {
    let dir = folder(runtime_dir, inv);
    match try_lock(&dir) {
        // Held until the folder is gone.
        Ok(Some(_lock)) => unlink(&dir),
        Ok(None) => Err(io::ErrorKind::WouldBlock.into()),
        // Cut short by an earlier removal, or gone.
        Err(error) if error.kind() == io::ErrorKind::NotFound => unlink(&dir),
        Err(error) => Err(error),
    }
}

/// The lock goes last of all files: a shim that comes late finds it held, then unlinked, and gives up.
fn unlink(dir: &Path) -> io::Result<()> {
    for name in ["spec", "state", "ctl", "lock"] {
        ignore_missing(fs::remove_file(dir.join(name)))?;
    }
    ignore_missing(fs::remove_dir(dir))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Ends all that is left of an invocation without asking: a supervisor that hangs, then its task. Blocks for a moment at most.
/// Gives back how many processes were found.
///
/// With control groups the task's group is killed. In any case its main process is, if pid and start time still agree; and without a
/// group every process that carries the allocation and the task in the environment it was started with, because nothing else tells
/// orphans of orphans from strangers.
///
/// # Errors
/// The group or `/proc` cannot be read. A missing folder is fine.
pub fn kill_orphan(dir: &Path, slot: Option<&Slot>) -> io::Result<u32> {
    let mut found_n = 0;
    if let Some(slot) = slot {
        if let Some(shim) = Process::open(slot.shim_pid, slot.shim_start)
            && shim.signal(Signal::SIGKILL)?
        {
            found_n += 1;
            // One that is stuck in the kernel cannot act either.
            let _ = shim.wait_end(SHIM_END_LIMIT);
        }
        found_n += kill_process(slot.task_pid, slot.task_start);
    }
    let bytes = match read_bounded(&dir.join("spec"), SPEC_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found_n),
        Err(error) => return Err(error),
    };
    let Ok(spec) = Spec::decode(&bytes) else { return Ok(found_n) };
    let open = |path: &[u8]| -> io::Result<Option<OwnedFd>> {
        let path = spec::text_of(path).map(|path| Path::new(OsStr::from_bytes(path.to_bytes())));
        Ok(path.map(cgroup::open_folder).transpose()?.flatten())
    };
    for _ in 0..KILL_ROUNDS_MAX {
        let round_n = match (open(spec.cgroup.unified)?, open(spec.cgroup.freezer)?) {
            (Some(dir), _) => cgroup::v2::kill(dir.as_fd())?,
            (None, Some(dir)) => cgroup::v1::kill(dir.as_fd())?,
            (None, None) => kill_marked(&spec, slot)?,
        };
        found_n = found_n.saturating_add(round_n);
        if round_n == 0 {
            break;
        }
    }
    Ok(found_n)
}

fn kill_process(pid: u32, start: u64) -> u32 {
    Process::open(pid, start).map_or(0, |process| u32::from(process.signal(Signal::SIGKILL).is_ok_and(|is_sent| is_sent)))
}

fn kill_marked(spec: &Spec<'_>, slot: Option<&Slot>) -> io::Result<u32> {
    let marks = [format!("NOMAD_ALLOC_ID={}", spec.alloc), format!("NOMAD_TASK_NAME={}", spec.task)];
    let first = slot.map_or(0, |slot| slot.task_start);
    let mut found_n = 0;
    usage::for_each_process(|pid| {
        // The start time first: the environment read after it belongs to that process or to nobody.
        if let Ok(stat) = usage::stat(pid)
            && stat.state != b'Z'
            && stat.start >= first
            && usage::has_environment(pid, &marks)
        {
            found_n += kill_process(pid, stat.start);
        }
    })?;
    Ok(found_n)
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
    use dunlin_hal::clock::{Now, Wall};

    use super::super::record::ExitKind;
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("folder-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn write_slot(&self, slot: &Slot) {
            let file = fs::OpenOptions::new().write(true).open(folder(&self.0, slot.inv).join("state")).expect("state");
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
            ..Spec::default()
        };
        spec.encode().expect("fits")
    }

    fn slot_of(inv: u64, phase: Phase) -> Slot {
        let started = if matches!(phase, Phase::Ready | Phase::ExecFailed) { Now::default() } else { Now { mono: Mono(1), wall: Wall(2) } };
        let exit_kind = match phase {
            Phase::Exited | Phase::Done => ExitKind::Code,
            Phase::ExecFailed => ExitKind::Exec,
            _ => ExitKind::None,
        };
        // No process has this start time.
        Slot { seq: 1, inv: Inv(inv), boot_id: BOOT, phase, started, exit_kind, task_pid: 7, task_start: u64::MAX, ..Slot::default() }
    }

    #[test]
    fn a_folder_is_made_once_and_its_state_is_preallocated() {
        let scratch = Scratch::new("make");
        let dir = make(&scratch.0, Inv(1), b"spec").expect("made");
        assert_eq!(fs::metadata(dir.join("state")).expect("there").len(), 1024);
        assert_eq!(read_slot(&dir), None);
        assert_eq!(make(&scratch.0, Inv(1), b"other").expect_err("exists").kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(dir.join("spec")).expect("there"), b"spec");
        assert_eq!(connect(&dir).expect_err("nobody listens").kind(), io::ErrorKind::NotFound);
        remove(&scratch.0, Inv(1)).expect("removed");
        remove(&scratch.0, Inv(1)).expect("gone already");
        assert!(!dir.exists());
    }

    /// The words of a news, short.
    fn word(news: &News) -> &'static str {
        match news {
            News::Running { .. } => "running",
            News::LaunchFailed { .. } => "failed",
            News::Exited { .. } => "exited",
            News::Lost => "lost",
        }
    }

    #[test]
    fn what_a_start_finds() {
        let scratch = Scratch::new("scan");
        assert_eq!(scan(&scratch.0, BOOT).expect("nothing there"), []);
        let other_boot = |slot: Slot| Slot { boot_id: [4; 16], ..slot };
        // (invocation, slot, lock held, news; `None` = removed)
        type Row = (u64, Option<Slot>, bool, Option<&'static [&'static str]>);
        let rows: [Row; 11] = [
            (1, None, false, None),
            (2, None, true, Some(&[])),
            (3, Some(slot_of(3, Phase::Ready)), false, None),
            (4, Some(slot_of(4, Phase::Running)), true, Some(&["running"])),
            (5, Some(slot_of(5, Phase::Running)), false, Some(&["running", "lost"])),
            (6, Some(slot_of(6, Phase::Done)), false, Some(&["running", "exited"])),
            (7, Some(slot_of(7, Phase::ExecFailed)), false, Some(&["failed"])),
            (8, Some(other_boot(slot_of(8, Phase::Done))), false, None),
            (9, Some(slot_of(9, Phase::Stuck)), false, Some(&["running", "lost"])),
            (10, Some(slot_of(10, Phase::Exited)), false, Some(&["running", "exited"])),
            (11, Some(slot_of(11, Phase::Exited)), true, Some(&["running"])),
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
        let got: Vec<(u64, Vec<&str>)> = found.iter().map(|found| (found.inv.0, found.news().iter().map(word).collect())).collect();
        let want: Vec<(u64, Vec<&str>)> = rows.iter().filter_map(|(inv, .., news)| Some((*inv, (*news)?.to_vec()))).collect();
        assert_eq!(got, want);
        assert!(found.iter().all(|found| found.alloc == AllocId([9; 16]) && found.task == "web"));
        let left = fs::read_dir(scratch.0.join("t")).expect("there").count();
        assert_eq!(left, want.len() + 1, "the rest is removed, the stranger stays");
        for folder in found {
            let result = remove(&scratch.0, folder.inv);
            assert_eq!(result.is_err(), folder.is_alive);
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
        assert_eq!(scan(&scratch.0, BOOT).expect("scanned"), []);
        assert!(dir.join("spec").exists());
    }

    #[test]
    fn ends() {
        let out_of_memory = Slot { exit_kind: ExitKind::Signal, code: 9, flags: super::super::record::FLAG_OOM, ..slot_of(1, Phase::Done) };
        let want = News::Exited {
            code: 137,
            signal: 9,
            oom_killed: true,
            message: "OOM Killed".to_owned(),
            started_at: Wall(2),
            finished_at: Wall::default(),
        };
        assert_eq!(end_of(&out_of_memory), Some(want.clone()));
        assert_eq!(end_of(&Slot { phase: Phase::Exited, ..out_of_memory }), None, "something may be left");
        assert_eq!(end_when_lost(Some(&Slot { phase: Phase::Exited, ..out_of_memory })), want);
        assert_eq!(end_when_lost(Some(&slot_of(1, Phase::Forked))), News::Lost);
        assert!(matches!(end_when_lost(None), News::LaunchFailed { is_recoverable: true, .. }));
        for (errno, is_recoverable) in [(2, false), (13, false), (8, false), (26, true), (12, true)] {
            let slot = Slot { code: errno, stage: 12, ..slot_of(1, Phase::ExecFailed) };
            assert!(matches!(end_of(&slot), Some(News::LaunchFailed { is_recoverable: got, .. }) if got == is_recoverable), "{errno}");
        }
        let slot = Slot { restart_n: 3, interval_started: Mono(4), ..Slot::default() };
        assert_eq!(window_of(&slot), Window { count: 3, start: Mono(4) });
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
