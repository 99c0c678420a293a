//! One allocation folder, one runtime folder and one agent-side connection per test. Waits are on events, each with a deadline.

use std::io::Write as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use std::{fmt, fs, io};

use dunlin_hal::clock::Clock;
use dunlin_hal::linux::clock::KernelClock;
use dunlin_runtime::alloc::dir;
use dunlin_runtime::cgroup::{Layout, Removed, Tree};
use dunlin_runtime::driver::{self, Host, Launch, LaunchError};
use dunlin_runtime::id::{AllocId, Inv};
use dunlin_runtime::proc::pidfd::Process;
use dunlin_runtime::proc::usage;
use dunlin_runtime::shim::record::{Phase, Slot};
use dunlin_runtime::shim::wire::{Answer, DATAGRAM_BYTES_MAX, Op, Scope};
use dunlin_runtime::shim::{self, Attached};
use dunlin_runtime::spec::Resources;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{MsgFlags, recv, send};

/// Longest wait for anything; a test that needs it has failed.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// The boot these tests live in.
pub const BOOT: [u8; 16] = [0xb0; 16];

static NEXT: AtomicU64 = AtomicU64::new(1);

/// Which control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Groups {
    /// As this machine has them.
    Real,
    /// Without its v2 tree: kills go through the freezer.
    Freezer,
    None,
}

impl Groups {
    pub const ALL: [Self; 3] = [Self::Real, Self::Freezer, Self::None];

    fn open(self, parent: &str) -> Tree {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let layout = Layout::parse(&mountinfo, Path::new("/sys/fs/cgroup"));
        match self {
            Self::Real => Tree::open(layout, parent),
            Self::Freezer => Tree::open(Layout { unified: None, ..layout }, parent),
            Self::None => Tree::none(),
        }
    }
}

pub struct Rig {
    pub root: PathBuf,
    pub host: Host,
    pub alloc: AllocId,
    parent: String,
}

impl Rig {
    pub fn new(groups: Groups) -> Self {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{n}", std::process::id());
        let root = std::env::temp_dir().join(format!("dunlin-faults-{mark}"));
        fs::create_dir_all(&root).expect("scratch folder");
        let parent = format!("dunlin-faults-{mark}");
        let host = Host {
            alloc_root: root.join("alloc"),
            runtime_dir: root.join("run"),
            shim_exe: env!("CARGO_BIN_EXE_dunlin-shim-alone").into(),
            cgroup: groups.open(&parent),
            boot_id: BOOT,
            path: "/usr/bin:/bin".into(),
            pids_max: 256,
            is_secrets_strict: false,
        };
        let mut id = [0; 16];
        id[..4].copy_from_slice(&std::process::id().to_be_bytes());
        id[8..].copy_from_slice(&n.to_be_bytes());
        Self { root, host, alloc: AllocId(id), parent }
    }

    /// A launch of `sh -c script`.
    pub fn shell(&self, script: &str) -> Launch {
        self.program("/bin/sh", &["-c", script])
    }

    pub fn program(&self, command: &str, args: &[&str]) -> Launch {
        let env = [("PATH", "/usr/bin:/bin".to_owned()), ("NOMAD_ALLOC_ID", self.alloc.to_string()), ("NOMAD_TASK_NAME", "t".to_owned())];
        Launch {
            inv: Inv(NEXT.fetch_add(1, Ordering::Relaxed) + (u64::from(std::process::id()) << 32)),
            alloc: self.alloc,
            task: "t".to_owned(),
            command: command.to_owned(),
            args: args.iter().map(ToString::to_string).collect(),
            env: env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            resources: Resources { cpu_mhz: 100, memory_mb: 64, memory_max_mb: 0 },
            ..Launch::default()
        }
    }

    pub fn start(&self, launch: &Launch) -> Task {
        driver::launch(&self.host, launch).expect("launched");
        Task::adopt(&self.host.runtime_dir, launch.inv)
    }

    pub fn fail(&self, launch: &Launch) -> LaunchError {
        driver::launch(&self.host, launch).expect_err("must not start")
    }

    /// The task's folder.
    pub fn task_dir(&self) -> PathBuf {
        self.host.alloc_root.join(self.alloc.to_string()).join("t")
    }

    pub fn log_dir(&self) -> PathBuf {
        self.host.alloc_root.join(self.alloc.to_string()).join("alloc/logs")
    }

    /// All of one stream that is there, in order.
    pub fn log(&self, stream: &str) -> Vec<u8> {
        let mut names: Vec<u32> = fs::read_dir(self.log_dir())
            .expect("log folder")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_prefix(&format!("t.{stream}."))?.parse().ok())
            .collect();
        names.sort_unstable();
        names.iter().flat_map(|n| fs::read(self.log_dir().join(format!("t.{stream}.{n}"))).unwrap_or_default()).collect()
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.log("stdout")).into_owned()
    }

    /// Waits until stdout holds `text`.
    pub fn wait_out(&self, text: &str) -> String {
        wait_file(&self.log_dir(), || Some(self.out()).filter(|out| out.contains(text)))
    }

    /// Every process of the folders' tasks: pid and start.
    pub fn processes(&self) -> Vec<(u32, u64)> {
        let mark = [format!("NOMAD_ALLOC_ID={}", self.alloc)];
        let mut found = Vec::new();
        usage::for_each_process(|pid| {
            if let Ok(stat) = usage::stat(pid)
                && stat.state != b'Z'
                && usage::has_environment(pid, &mark)
            {
                found.push((pid, stat.start));
            }
        })
        .expect("/proc");
        found
    }

    /// The same, once there are `n` of them: one that is just executing shows no environment.
    pub fn wait_processes(&self, n: usize) -> Vec<(u32, u64)> {
        let late = KernelClock.now().mono.after(DEADLINE);
        loop {
            let found = self.processes();
            if found.len() >= n {
                return found;
            }
            assert!(KernelClock.now().mono < late, "only {found:?}");
            std::thread::yield_now();
        }
    }

    /// A pipe with a name: the task reads a line of it, the test writes one.
    pub fn gate(&self) -> Gate {
        let path = self.root.join("gate");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("gate");
        // Open both ways, so that nobody ever waits for the other end.
        let end = fs::OpenOptions::new().read(true).write(true).open(&path).expect("gate");
        Gate { path, end }
    }
}

/// See [`Rig::gate`]; a script waits with `read go < {gate}`.
pub struct Gate {
    path: PathBuf,
    end: fs::File,
}

impl Gate {
    /// Lets one reader go on.
    pub fn open(&self) {
        (&self.end).write_all(b"go\n").expect("room for a line");
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// Looks again whenever something in `dir` changes, until `look` finds it.
pub fn wait_file<T>(dir: &Path, look: impl Fn() -> Option<T>) -> T {
    let notify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).expect("inotify");
    notify.add_watch(dir, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO).expect("watch");
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(wait_readable(&notify), "nothing happened in {}", dir.display());
        let _ = notify.read_events();
    }
}

fn wait_readable(fd: &impl AsFd) -> bool {
    let millis = PollTimeout::try_from(DEADLINE).expect("fits");
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], millis).is_ok_and(|n| n > 0)
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Whatever a failed test left running.
        for _ in 0..50 {
            let left = self.processes();
            if left.is_empty() {
                break;
            }
            for process in left.iter().filter_map(|(pid, start)| Process::open(*pid, *start)) {
                let _ = process.signal(nix::sys::signal::Signal::SIGKILL);
                let _ = process.wait_end(Duration::from_secs(1));
            }
        }
        // Their shims, too, end a moment after their last word.
        let shims = self.host.cgroup.shims().and_then(|dir| fs::read_to_string(dir.join("cgroup.procs")).ok()).unwrap_or_default();
        for pid in shims.lines().filter_map(|line| line.parse().ok()) {
            if let Some(process) = usage::stat(pid).ok().and_then(|stat| Process::open(pid, stat.start)) {
                let _ = process.wait_end(Duration::from_secs(5));
            }
        }
        for _ in 0..50 {
            if !matches!(self.host.cgroup.remove(self.alloc, "t"), Ok(Removed::NotYet)) {
                break;
            }
        }
        for parent in ["cpu", "cpuacct", "memory", "pids", "freezer"].map(|name| format!("{name}/{}", self.parent)) {
            let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(parent));
        }
        let slice = Path::new("/sys/fs/cgroup/unified").join(format!("{}.slice", self.parent));
        for inner in ["share.slice", "shims.slice", ""] {
            let _ = fs::remove_dir(slice.join(inner));
        }
        let _ = dir::remove(&self.host.alloc_root, self.alloc);
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// The agent's view of one invocation.
pub struct Task {
    pub inv: Inv,
    runtime_dir: PathBuf,
    socket: Option<OwnedFd>,
    /// Phases told, in order.
    pub told: Vec<Phase>,
    pub slot: Slot,
}

impl Task {
    pub fn adopt(runtime_dir: &Path, inv: Inv) -> Self {
        let socket = match shim::attach(runtime_dir, inv) {
            Ok(Attached::Live(socket)) => Some(socket),
            Ok(Attached::Gone(_)) => None,
            Err(why) => panic!("{why}"),
        };
        let mut task = Self { inv, runtime_dir: runtime_dir.into(), socket, told: Vec::new(), slot: Slot::default() };
        match task.ask(Op::Hello { version: 1 }) {
            Some(Answer::State { slot, version: 1 }) => task.take(slot),
            Some(other) => panic!("HELLO: {other:?}"),
            None => task.lost(),
        }
        let adopted = task.ask(Op::Adopt);
        assert!(matches!(adopted, Some(Answer::Ok) | None), "{adopted:?}");
        // Whatever happened between the two is in the slot, if not in an event.
        if let Some(slot) = task.record()
            && slot.seq > task.slot.seq
        {
            task.take(slot);
        }
        task
    }

    /// The slot as it is in the folder now.
    pub fn record(&self) -> Option<Slot> {
        shim::slot(&self.runtime_dir, self.inv).ok().flatten()
    }

    fn take(&mut self, slot: Slot) {
        self.told.push(slot.phase);
        self.slot = slot;
    }

    /// The shim has gone: what it left.
    fn lost(&mut self) {
        self.socket = None;
        if let Some(slot) = self.record() {
            self.take(slot);
        }
    }

    /// One request; events that come before its answer are kept. `None` = the shim has gone.
    pub fn ask(&mut self, op: Op) -> Option<Answer> {
        let socket = self.socket.as_ref()?;
        if send(socket.as_raw_fd(), &op.encode(), MsgFlags::MSG_NOSIGNAL).is_err() {
            self.lost();
            return None;
        }
        loop {
            match self.receive()? {
                Answer::Event(slot) => self.take(slot),
                answer => return Some(answer),
            }
        }
    }

    /// Bytes as they are.
    pub fn ask_raw(&mut self, bytes: &[u8]) -> Option<Answer> {
        send(self.socket.as_ref()?.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).ok()?;
        self.receive()
    }

    /// The next datagram; `None` = the shim has gone.
    pub fn receive(&mut self) -> Option<Answer> {
        let socket = self.socket.as_ref()?;
        assert!(wait_readable(socket), "the shim says nothing; slot: {:?}", self.record());
        let mut bytes = [0; DATAGRAM_BYTES_MAX];
        match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(n) if n > 0 => Some(Answer::decode(&bytes[..n]).expect("a datagram of ours")),
            _ => {
                self.lost();
                None
            }
        }
    }

    /// Waits until `phase` is reached, or the shim has gone.
    pub fn wait(&mut self, phase: Phase) -> Slot {
        while self.slot.phase != phase && self.socket.is_some() {
            if let Some(answer) = self.receive() {
                match answer {
                    Answer::Event(slot) => self.take(slot),
                    other => panic!("unasked: {other:?}"),
                }
            }
        }
        assert_eq!(self.slot.phase, phase, "told: {:?}", self.told);
        self.slot
    }

    pub fn stop(&mut self, signal: i32, timeout_ms: u32) {
        assert_eq!(self.ask(Op::Stop { signal, timeout_ms }), Some(Answer::Ok));
    }

    pub fn signal(&mut self, signal: i32, scope: Scope) -> Option<Answer> {
        self.ask(Op::Signal { signal, scope })
    }

    /// SIGKILL for the shim; waits for its end.
    pub fn kill_shim(&mut self) {
        let shim = Process::open(self.slot.shim_pid, self.slot.shim_start).expect("the shim lives");
        assert!(shim.signal(nix::sys::signal::Signal::SIGKILL).expect("allowed"));
        assert!(shim.wait_end(DEADLINE));
    }
}

/// Waits for the end of a process.
pub fn wait_gone((pid, start): (u32, u64)) {
    if let Some(process) = Process::open(pid, start) {
        assert!(process.wait_end(DEADLINE), "process {pid} lives");
    }
}

/// Lines of `key value` in a file of the task's own making.
pub fn field<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).unwrap_or_else(|| panic!("no {key} in {text}")).trim()
}

/// A file system of its own that holds `bytes`, on `dir`; unmounted with the allocation's folder.
pub fn mount_small(dir: &Path, bytes: u64) -> io::Result<()> {
    let data = format!("size={bytes},mode=0777");
    nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), nix::mount::MsFlags::empty(), Some(data.as_str())).map_err(io::Error::from)
}
