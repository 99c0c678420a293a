//! Control groups of tasks: limits, membership, killing as one. Per controller, never all or nothing (D6); none at all is a mode too.
//!
//! Shape: mount table -> [`Tree`]; (allocation, task, [`Limits`]) -> [`Place`], a set of folders named after them. The root is where
//! the mount table says, so a test's fake tree is as good as the kernel's. Never touched: a group that is not named
//! `<alloc>.<task>` below our parent (decision 25).
//! Units: bytes, MHz. Errors: [`CgroupError`] names the file. Source: `spec/runtime.md` 5.1 to 5.4.

pub mod stats;
pub mod v1;
pub mod v2;

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode as FileMode, OFlags, openat};

use crate::id::AllocId;
use crate::proc::usage::for_each_pid;
use crate::spec::Resources;

/// Which kind of tree this machine has (attribute `os.cgroups.version`: [`Mode::version`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One tree with all controllers.
    V2,
    /// Controllers in v1 trees, and a v2 tree for membership and killing.
    Hybrid,
    /// v1 trees only.
    V1,
    /// Nothing that can be written.
    None,
}

impl Mode {
    /// The version shown to servers; `None` without groups.
    #[must_use]
    pub fn version(self) -> Option<&'static str> {
        match self {
            Self::V2 => Some("2"),
            Self::Hybrid | Self::V1 => Some("1"),
            Self::None => None,
        }
    }
}

/// The controllers used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// Share of the processor.
    Cpu,
    /// Its accounting (v1 only).
    Cpuacct,
    /// Memory.
    Memory,
    /// Number of processes.
    Pids,
    /// Stopping all at once (v1 only).
    Freezer,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Cpuacct, Self::Memory, Self::Pids, Self::Freezer];

    /// The kernel's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Freezer => "freezer",
        }
    }
}

/// What the mount table says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Mount point of the v2 tree.
    pub unified: Option<PathBuf>,
    /// Mount points of v1 controllers.
    pub legacy: Vec<(Controller, PathBuf)>,
}

impl Layout {
    /// Reads `/proc/self/mountinfo`; only mounts at or below `root` count, the first of each kind wins, read-only ones do not count.
    #[must_use]
    pub fn parse(mountinfo: &str, root: &Path) -> Self {
        let mut layout = Self::default();
        for line in mountinfo.lines() {
            let Some((mount, source)) = line.split_once(" - ") else { continue };
            let mut mount = mount.split(' ').skip(4);
            let (Some(point), Some(options)) = (mount.next(), mount.next()) else { continue };
            let mut source = source.split(' ');
            let (kind, controllers) = (source.next(), source.nth(1).unwrap_or(""));
            let point = PathBuf::from(unescape(point));
            if !point.starts_with(root) || options.split(',').any(|option| option == "ro") {
                continue;
            }
            match kind {
                Some("cgroup2") if layout.unified.is_none() => layout.unified = Some(point),
                Some("cgroup") => {
                    for controller in Controller::ALL {
                        let is_here = controllers.split(',').any(|name| name == controller.name());
                        if is_here && layout.legacy_of(controller).is_none() {
                            layout.legacy.push((controller, point.clone()));
                        }
                    }
                }
                _ => {}
            }
        }
        layout
    }

    fn legacy_of(&self, wanted: Controller) -> Option<&Path> {
        self.legacy.iter().find(|(controller, _)| *controller == wanted).map(|(_, path)| path.as_path())
    }
}

/// The mount table writes space, tab, line feed and backslash as `\ooo`.
pub(crate) fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = tail.get(3..).unwrap_or(&[]);
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Limits of one task. `None` and 0 = no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Share of the processor, MHz.
    pub cpu_mhz: u32,
    /// Never more than this.
    pub memory_hard_bytes: Option<u64>,
    /// Taken back first beyond this.
    pub memory_soft_bytes: Option<u64>,
    /// Processes.
    pub pids_max: u32,
}

impl Limits {
    /// Lowers resources: hard = `memory_max`, else `memory`; -1 = none; soft = `memory` where a `memory_max` is given.
    #[must_use]
    pub fn of(resources: &Resources, pids_max: u32) -> Self {
        let bytes = |mb: u32| (mb > 0).then(|| u64::from(mb) << 20);
        let (hard, soft) = match resources.memory_max_mb {
            0 => (bytes(resources.memory_mb), None),
            max => (u32::try_from(max).ok().and_then(bytes), bytes(resources.memory_mb)),
        };
        Self { cpu_mhz: resources.cpu_mhz, memory_hard_bytes: hard, memory_soft_bytes: soft, pids_max }
    }
}

/// One value for one file of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Whose file.
    pub controller: Controller,
    /// Its name.
    pub file: &'static str,
    /// What is written.
    pub value: String,
    /// Kernels differ here: a refusal is not an error.
    pub is_optional: bool,
}

/// What could not be done, and where.
#[derive(Debug)]
pub struct CgroupError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: io::Error,
}

impl fmt::Display for CgroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cgroup {}: {}", self.path.display(), self.source)
    }
}

impl std::error::Error for CgroupError {}

/// Outcome of [`Tree::remove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// Nothing is left.
    Gone,
    /// Processes are still in it; ask again later.
    NotYet,
}

/// The folders of one task. Empty where the machine has no groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// In the v2 tree.
    pub unified: Option<PathBuf>,
    /// In the v1 trees; controllers mounted together share a folder.
    pub legacy: Vec<(Controller, PathBuf)>,
}

impl Place {
    /// The folder of a v1 controller.
    #[must_use]
    pub fn legacy_of(&self, wanted: Controller) -> Option<&Path> {
        self.legacy.iter().find(|(controller, _)| *controller == wanted).map(|(_, path)| path.as_path())
    }

    /// Every folder once, v1 first.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.legacy_folders().chain(self.unified.as_deref())
    }

    /// Every v1 folder once.
    pub fn legacy_folders(&self) -> impl Iterator<Item = &Path> {
        let is_first = |i: usize, path: &Path| self.legacy.iter().take(i).all(|(_, other)| other != path);
        self.legacy.iter().enumerate().filter(move |(i, (_, path))| is_first(*i, path)).map(|(_, (_, path))| path.as_path())
    }
}

/// The groups of this machine, as far as they can be written.
#[derive(Clone, Debug)]
pub struct Tree {
    mode: Mode,
    layout: Layout,
    /// Controllers of the v2 tree that tasks get.
    controllers: Vec<Controller>,
    parent: String,
}

impl Tree {
    /// A machine without groups.
    #[must_use]
    pub fn none() -> Self {
        Self { mode: Mode::None, layout: Layout::default(), controllers: Vec::new(), parent: String::new() }
    }

    /// Makes the parent groups named after `parent` (`nomad`); what cannot be written is left out. Never fails: less is a mode.
    #[must_use]
    pub fn open(layout: Layout, parent: &str) -> Self {
        let parent = parent.trim_matches('/').trim_end_matches(".slice").to_owned();
        let mut tree = Self { mode: Mode::None, layout, controllers: Vec::new(), parent };
        let parent = tree.parent.clone();
        tree.layout.legacy.retain(|(_, point)| is_made(&point.join(&parent)));
        let has_slices = tree.slices().is_some_and(|slices| slices.iter().all(|slice| is_made(slice)));
        if !has_slices {
            tree.layout.unified = None;
        }
        tree.mode = match (&tree.layout.unified, tree.layout.legacy.is_empty()) {
            (Some(_), true) => Mode::V2,
            (Some(_), false) => Mode::Hybrid,
            (None, false) => Mode::V1,
            (None, true) => Mode::None,
        };
        if let (Mode::V2, Some(root), Some([slice, share, _])) = (tree.mode, &tree.layout.unified, tree.slices()) {
            tree.controllers = v2::enable(&[root, &slice, &share]);
        }
        tree
    }

    /// Reads the mount table of this process and opens what is below `root` (`/sys/fs/cgroup`).
    #[must_use]
    pub fn detect(root: &Path, parent: &str) -> Self {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        Self::open(Layout::parse(&mountinfo, root), parent)
    }

    /// Which kind.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// True if this limit can be kept here (attributes `edge.cgroup.*`).
    #[must_use]
    pub fn has(&self, controller: Controller) -> bool {
        self.layout.legacy_of(controller).is_some() || self.controllers.contains(&controller)
    }

    /// The group above those of tasks, as servers and tasks are told; empty = there is none.
    #[must_use]
    pub fn parent(&self) -> String {
        match self.mode {
            Mode::V2 => format!("{}.slice", self.parent),
            Mode::Hybrid | Mode::V1 => format!("/{}", self.parent),
            Mode::None => String::new(),
        }
    }

    /// Parent of all tasks in the v2 tree, the tasks' and the shims' folder.
    fn slices(&self) -> Option<[PathBuf; 3]> {
        let slice = self.layout.unified.as_ref()?.join(format!("{}.slice", self.parent));
        let (share, shims) = (slice.join("share.slice"), slice.join("shims.slice"));
        Some([slice, share, shims])
    }

    /// The group shims run in.
    #[must_use]
    pub fn shims(&self) -> Option<PathBuf> {
        self.slices().map(|[_, _, shims]| shims)
    }

    /// Where a task belongs; nothing is made.
    #[must_use]
    pub fn place(&self, alloc: AllocId, task: &str) -> Place {
        let name = format!("{alloc}.{task}");
        Place {
            unified: self.slices().map(|[_, share, _]| share.join(format!("{name}.scope"))),
            legacy: self.layout.legacy.iter().map(|(c, point)| (*c, point.join(&self.parent).join(&name))).collect(),
        }
    }

    /// Makes the groups of a task anew and writes its limits. A group that still holds processes is used as it is.
    ///
    /// # Errors
    /// A folder cannot be made or a limit cannot be set: the task must not start without it.
    pub fn create(&self, alloc: AllocId, task: &str, limits: &Limits) -> Result<Place, CgroupError> {
        let place = self.place(alloc, task);
        for folder in place.folders() {
            // Removed first: counters start at zero and no limit of an earlier start stands in the way.
            let _ = fs::remove_dir(folder);
            if let Err(source) = fs::create_dir(folder)
                && source.kind() != io::ErrorKind::AlreadyExists
            {
                return Err(CgroupError { path: folder.into(), source });
            }
        }
        for setting in v1::plan(limits) {
            if let Some(folder) = place.legacy_of(setting.controller) {
                apply(folder, &setting)?;
            }
        }
        if let Some(folder) = &place.unified {
            for setting in v2::plan(limits).into_iter().filter(|setting| self.controllers.contains(&setting.controller)) {
                apply(folder, &setting)?;
            }
        }
        Ok(place)
    }

    /// SIGKILLs all processes of a task. Gives back how many were found; 0 also where there are no groups.
    ///
    /// # Errors
    /// The group exists and cannot be read or killed.
    pub fn kill(&self, alloc: AllocId, task: &str) -> io::Result<u32> {
        let place = self.place(alloc, task);
        if let Some(dir) = place.unified.as_deref().map(open_folder).transpose()?.flatten() {
            return v2::kill(dir.as_fd());
        }
        if let Some(dir) = place.legacy_of(Controller::Freezer).map(open_folder).transpose()?.flatten() {
            return v1::kill(dir.as_fd());
        }
        Ok(0)
    }

    /// Removes the groups of a task. One attempt: the caller asks again after [`Removed::NotYet`].
    ///
    /// # Errors
    /// Something else than processes is in the way.
    pub fn remove(&self, alloc: AllocId, task: &str) -> Result<Removed, CgroupError> {
        let mut removed = Removed::Gone;
        for folder in self.place(alloc, task).folders() {
            match fs::remove_dir(folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => removed = Removed::NotYet,
                Err(source) => return Err(CgroupError { path: folder.into(), source }),
            }
        }
        Ok(removed)
    }

    /// All (allocation, task) groups below our parent: what a clean-up may compare with what it knows.
    #[must_use]
    pub fn tasks(&self) -> Vec<(AllocId, String)> {
        let share = self.slices().map(|[_, share, _]| share);
        let parents = self.layout.legacy.iter().map(|(_, point)| point.join(&self.parent)).chain(share);
        let mut found: Vec<(AllocId, String)> = parents
            .filter_map(|parent| fs::read_dir(parent).ok())
            .flat_map(|entries| entries.filter_map(Result::ok))
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let (alloc, task) = name.split_at_checked(36)?;
                let task = task.strip_prefix('.')?;
                Some((AllocId::parse(alloc)?, task.strip_suffix(".scope").unwrap_or(task).to_owned()))
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }
}

fn is_made(folder: &Path) -> bool {
    fs::create_dir_all(folder).is_ok() && rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
}

fn apply(folder: &Path, setting: &Setting) -> Result<(), CgroupError> {
    let path = folder.join(setting.file);
    match write_existing(&path, &setting.value) {
        Err(_) if setting.is_optional => Ok(()),
        Err(source) => Err(CgroupError { path, source }),
        Ok(()) => Ok(()),
    }
}

/// Writes in one call, as the kernel's files want it; never makes a file.
pub(crate) fn write_existing(path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// The folder as a descriptor; `None` when it does not exist.
pub(crate) fn open_folder(path: &Path) -> io::Result<Option<OwnedFd>> {
    match openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, FileMode::empty()) {
        Ok(fd) => Ok(Some(fd)),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes a control file of an open folder. Never allocates.
pub(crate) fn write_at(dir: BorrowedFd<'_>, file: &str, value: &[u8]) -> io::Result<()> {
    let fd = openat(dir, file, OFlags::WRONLY | OFlags::CLOEXEC, FileMode::empty())?;
    rustix::io::write(&fd, value)?;
    Ok(())
}

/// Calls `f` with each process of an open folder. Never allocates.
pub(crate) fn for_each_member(dir: BorrowedFd<'_>, f: impl FnMut(u32)) -> io::Result<()> {
    for_each_pid(openat(dir, "cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, FileMode::empty())?, f)
}

/// SIGKILLs each process of an open folder; gives back how many there were.
pub(crate) fn kill_members(dir: BorrowedFd<'_>) -> io::Result<u32> {
    use nix::sys::signal::{Signal, kill};
    let mut found_n = 0;
    for_each_member(dir, |pid| {
        if let Ok(pid) = i32::try_from(pid) {
            found_n += 1;
            // It may have ended meanwhile. The group is frozen, so no number changes hands while this runs.
            let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
        }
    })?;
    Ok(found_n)
}

#[cfg(test)]
mod tests;
