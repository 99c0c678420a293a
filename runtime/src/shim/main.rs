//! The shim's life: becomes a process of its own, takes the folder's lock, starts the task, then waits in one poll loop until the task
//! and all it left behind are gone. Edge: decisions are [`Machine`]'s and the rotator's, this file only acts.
//!
//! Invariants: nothing is allocated after READY is saved; a task never runs without a held lock and a saved pid; the exit is saved
//! before anyone is told and before the process is reaped. No thread, no async, no logger. Errors before READY are one line on
//! standard output (see [`crate::proc::spawn::Report`]); afterwards the slot tells.
//! Source: `spec/runtime.md` 6.3 to 6.5.

use std::ffi::CStr;
use std::fmt::Write as _;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dunlin_hal::clock::{Clock, Mono, Now};
use nix::errno::Errno as NixErrno;
use nix::libc;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, fstat, openat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::WaitOptions;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::machine::{Act, Exit, Fact, Machine, OomRule};
use super::pump::{CHUNK_BYTES, Pump};
use super::record::{ExitKind, LogFigures, Phase, STATE_BYTES, Slot};
use super::spec::{SPEC_BYTES_MAX, Spec, text_of};
use super::sweep::{self, Groups};
use super::wire::{Answer, Op, Scope, VERSION, WireError};
use crate::alloc::dir::open_beneath;
use crate::logs::name::{FOLDER, Stream};
use crate::proc::spawn::{self, FAILURE_BYTES};
use crate::proc::usage;
use crate::spec::LogPolicy;

/// Connections at once. Full: the oldest is closed, so that a new agent is never shut out by a hung one.
const CONNS_MAX: usize = 4;
/// Supervisors die after tasks and before the agent when the machine is out of memory.
const OOM_SCORE_ADJ: i32 = -900;
/// Largest request read; a longer datagram is cut and then refused.
const REQUEST_BYTES: usize = 64;

/// What could not be done before READY.
struct Failure {
    what: &'static str,
    errno: i32,
}

type Setup<T> = Result<T, Failure>;

/// Gives an error of the kernel its place.
fn at<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| Failure { what, errno: error.into().raw_os_error().unwrap_or(0) }
}

/// Runs the shim of the runtime folder `dir`; gives back the exit code. The first reading of `clock` is after READY.
///
/// The caller has done nothing yet: one thread, descriptors 0 to 2 open, 1 read by the agent.
pub fn main(clock: &impl Clock, dir: &Path) -> i32 {
    match begin(clock, dir) {
        Ok(()) => 0,
        Err(Failure { what, errno }) => {
            let mut line = heapless::String::<128>::new();
            let why = if errno == 0 { "refused" } else { NixErrno::from_raw(errno).desc() };
            let _ = writeln!(line, "error {what}: {why}");
            let _ = rustix::io::write(rustix::stdio::stdout(), line.as_bytes());
            1
        }
    }
}

fn begin(clock: &impl Clock, dir: &Path) -> Setup<()> {
    leave_agent()?;
    rustix::process::chdir(dir).map_err(at("runtime folder"))?;
    let bytes = read_spec()?;
    let spec = Spec::decode(&bytes).map_err(|_| Failure { what: "spec: not readable by this version", errno: 0 })?;
    join_shims(&spec);
    let lock = take_lock()?;
    let state = openat(CWD, c"state", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(at("state"))?;
    if fstat(&state).map_err(at("state"))?.st_size != i64::try_from(STATE_BYTES).unwrap_or(0) {
        return Err(Failure { what: "state: not preallocated", errno: 0 });
    }
    let mut shim = Shim::prepare(&spec, lock, state)?;
    shim.launch(clock, &spec)?;
    drop(spec);
    drop(bytes);
    shim.run(clock);
    Ok(())
}

/// Becomes an orphan with a session of its own, no descriptors but the standard ones, and no signal but SIGKILL.
fn leave_agent() -> Setup<()> {
    // SAFETY: one thread; parent and child only go on in this program, the parent at once to _exit.
    match unsafe { libc::fork() } {
        0 => {}
        pid if pid < 0 => return Err(Failure { what: "fork", errno: NixErrno::last_raw() }),
        _ => spawn::exit_now(0),
    }
    let _ = rustix::process::setsid();
    close_from(3);
    let me = std::process::id();
    let mut line = heapless::String::<48>::new();
    let _ = writeln!(line, "pid {me} {}", usage::stat(me).map_or(0, |stat| stat.start));
    let _ = rustix::io::write(rustix::stdio::stdout(), line.as_bytes());
    let _ = rustix::thread::set_name(c"dunlin-shim");
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // Refused by emulators and very old kernels; the control group does the work then.
    let _ = nix::sys::prctl::set_child_subreaper(true);
    spawn::set_oom_score_adj(OOM_SCORE_ADJ);
    SigSet::all().thread_block().map_err(at("signals"))
}

/// Closes all descriptors from `first` on: nothing of the agent's may live as long as a task.
fn close_from(first: libc::c_uint) {
    // SAFETY: plain numbers; none of these descriptors is owned by a value of this program yet.
    if unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) } == 0 {
        return;
    }
    // Before kernel 5.9: those there are. Rust opens everything with CLOEXEC, so this list is short.
    let listed = std::fs::read_dir("/proc/self/fd").into_iter().flatten().filter_map(Result::ok);
    let fds: Vec<i32> = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in fds.into_iter().filter(|&fd| libc::c_uint::try_from(fd).is_ok_and(|fd| fd >= first)) {
        // SAFETY: as above; the descriptor of the listing itself is closed already and fails with EBADF.
        unsafe { libc::close(fd) };
    }
}

fn read_spec() -> Setup<Vec<u8>> {
    let file = std::fs::File::open("spec").map_err(at("spec"))?;
    let len = file.metadata().map_err(at("spec"))?.len();
    let len = usize::try_from(len).ok().filter(|&len| len <= SPEC_BYTES_MAX).ok_or(Failure { what: "spec: too long", errno: 0 })?;
    let mut bytes = Vec::with_capacity(len);
    std::io::Read::read_to_end(&mut std::io::Read::take(file, SPEC_BYTES_MAX as u64 + 1), &mut bytes).map_err(at("spec"))?;
    Ok(bytes)
}

/// Moves into the group of the shims; without one the agent's serves.
fn join_shims(spec: &Spec<'_>) {
    if let Some(path) = text_of(spec.cgroup.shims)
        && let Ok(file) = openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
    {
        let _ = rustix::io::write(&file, b"0");
    }
}

/// The folder is ours or nobody's: an agent that has given this invocation up holds the lock, or has unlinked it while it did.
fn take_lock() -> Setup<OwnedFd> {
    let lock = openat(CWD, c"lock", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(at("lock"))?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(at("lock"))?;
    if fstat(&lock).map_err(at("lock"))?.st_nlink == 0 {
        return Err(Failure { what: "lock: given up", errno: 0 });
    }
    Ok(lock)
}

/// A running shim. Everything it will ever need is open.
struct Shim {
    machine: Machine,
    lock: OwnedFd,
    state: OwnedFd,
    ctl: OwnedFd,
    signals: SignalFd,
    timer: OwnedFd,
    timer_due: Option<Mono>,
    /// Oldest first.
    conns: heapless::Vec<Conn, CONNS_MAX>,
    log_dir: OwnedFd,
    streams: [Pump; 2],
    /// Output on its way from a pipe to a file; empty between two steps.
    buffer: [u8; CHUNK_BYTES],
    groups: Groups,
    /// The out-of-memory counter.
    oom: Option<OwnedFd>,
    /// The child's last word before execution.
    failure: Option<OwnedFd>,
    gate: Option<OwnedFd>,
    /// What the child gets; closed here once it has it.
    child_ends: Option<ChildEnds>,
    /// The task, until it is reaped.
    main: Option<Pid>,
}

struct Conn {
    fd: OwnedFd,
    is_adopter: bool,
}

struct ChildEnds {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    gate: OwnedFd,
    failure: OwnedFd,
}

/// Whose descriptor became ready.
#[derive(Clone, Copy)]
enum Source {
    Timer,
    Signals,
    Ctl,
    Failure,
    Stream(usize),
    Conn(usize),
}

const SOURCES_MAX: usize = 6 + CONNS_MAX;

impl Shim {
    /// Opens everything.
    fn prepare(spec: &Spec<'_>, lock: OwnedFd, state: OwnedFd) -> Setup<Self> {
        let mut only_children = SigSet::empty();
        only_children.add(Signal::SIGCHLD);
        let signals = SignalFd::with_flags(&only_children, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(at("signalfd"))?;
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK).map_err(at("timer"))?;

        let alloc_dir = text_of(spec.alloc_dir).unwrap_or(c"");
        let dir_flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let alloc_dir = openat(CWD, alloc_dir, dir_flags, Mode::empty()).map_err(at("allocation folder"))?;
        let log_dir = open_beneath(alloc_dir.as_fd(), Path::new(FOLDER), dir_flags, Mode::empty()).map_err(at("log folder"))?;
        let null = || openat(CWD, c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(at("/dev/null"));
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(at("pipe"));
        let stream = |which| -> Setup<(Pump, OwnedFd)> {
            let (read, write) = if spec.logs.is_captured {
                let (read, write) = pipe()?;
                // Only our end: the task's own writes wait, as they would on a terminal.
                rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK).map_err(at("pipe"))?;
                (Some(read), write)
            } else {
                (None, null()?)
            };
            Ok((Pump::new(log_dir.as_fd(), spec.task, which, spec.logs, read), write))
        };
        let (out, stdout) = stream(Stream::Stdout)?;
        let (err, stderr) = stream(Stream::Stderr)?;
        let (gate_read, gate) = pipe()?;
        let (failure, failure_write) = pipe()?;
        let child_ends = ChildEnds { stdin: null()?, stdout, stderr, gate: gate_read, failure: failure_write };

        let folder = |path: &[u8]| {
            text_of(path).and_then(|path| openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok())
        };
        let groups = Groups { unified: folder(spec.cgroup.unified), freezer: folder(spec.cgroup.freezer) };
        let counter = |path: &CStr| openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
        let own_oom = text_of(spec.cgroup.oom).and_then(counter);
        let rule = if own_oom.is_some() { OomRule::Own } else { OomRule::Machine };
        let oom = own_oom.or_else(|| counter(c"/proc/vmstat"));

        let ctl = listen().map_err(at("ctl"))?;
        let me = std::process::id();
        let slot = Slot {
            boot_id: spec.boot_id,
            inv: spec.inv,
            shim_pid: me,
            shim_start: usage::stat(me).map_err(at("own start"))?.start,
            oom_base: oom.as_ref().map_or(0, oom_kills),
            restart_n: spec.restart_n,
            interval_started: Mono(spec.interval_started_ns),
            ..Slot::default()
        };
        Ok(Self {
            machine: Machine::new(slot, rule),
            lock,
            state,
            ctl,
            signals,
            timer,
            timer_due: None,
            conns: heapless::Vec::new(),
            log_dir,
            streams: [out, err],
            buffer: [0; CHUNK_BYTES],
            groups,
            oom,
            failure: Some(failure),
            gate: Some(gate),
            child_ends: Some(child_ends),
            main: None,
        })
    }

    /// READY, then the fork. The texts of `spec` are only pointed at; the child reads them in its own copy.
    fn launch(&mut self, clock: &impl Clock, spec: &Spec<'_>) -> Setup<()> {
        let texts = |list: &[&[u8]]| -> Vec<*const libc::c_char> {
            let ended = std::iter::once(std::ptr::null());
            list.iter().filter_map(|text| Some(text_of(text)?.as_ptr())).chain(ended).collect()
        };
        let (argv, envp) = (texts(&spec.argv), texts(&spec.env));
        let join: Vec<&CStr> = spec.cgroup.join.iter().filter_map(|path| text_of(path)).collect();
        let groups = spec.user.as_ref().map(spawn::groups_of);
        let user = spec.user.as_ref().zip(groups.as_deref());
        let (exec, work_dir) = text_of(spec.exec).zip(text_of(spec.work_dir)).ok_or(Failure { what: "spec: no command", errno: 0 })?;
        let null = openat(CWD, c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(at("/dev/null"))?;

        // From here on nothing is allocated. The first act is to save READY.
        self.act_all(Now::default());
        let _ = rustix::io::write(rustix::stdio::stdout(), b"ready\n");
        let _ = nix::unistd::dup2_stdout(&null);
        let now = clock.now();
        let [out, err] = &mut self.streams;
        if spec.logs.is_captured {
            out.open(self.log_dir.as_fd(), now.mono);
            err.open(self.log_dir.as_fd(), now.mono);
        }
        let forked = match &self.child_ends {
            Some(ends) => spawn::task(&spawn::Task {
                exec,
                argv: &argv,
                envp: &envp,
                work_dir,
                user: user.map(|(ids, groups)| (rustix::process::Uid::from_raw(ids.uid), rustix::process::Gid::from_raw(ids.gid), groups)),
                oom_score_adj: spec.oom_score_adj,
                unified: self.groups.unified.as_ref().map(AsFd::as_fd),
                join: &join,
                stdio: [ends.stdin.as_fd(), ends.stdout.as_fd(), ends.stderr.as_fd()],
                gate: ends.gate.as_fd(),
                failure: ends.failure.as_fd(),
            }),
            None => Err(std::io::ErrorKind::InvalidInput.into()),
        };
        self.child_ends = None;
        let fact = match forked {
            Ok(pid) => {
                let raw = pid.as_raw_nonzero().get();
                self.main = Some(Pid::from_raw(raw));
                let pid = u32::try_from(raw).unwrap_or(0);
                Fact::Forked { pid, start: usage::stat(pid).map_or(0, |stat| stat.start) }
            }
            Err(error) => {
                self.failure = None;
                Fact::ExecFailed { stage: 0, errno: error.raw_os_error().unwrap_or(0) }
            }
        };
        self.feed(now, fact);
        if !spec.logs.is_captured {
            self.feed(now, Fact::OutputEnded);
        }
        Ok(())
    }

    /// The loop. Ends with the process, by [`Act::Leave`].
    fn run(&mut self, clock: &impl Clock) {
        loop {
            self.arm();
            let ready = self.wait(clock.now().mono);
            let now = clock.now();
            // Execution before exits: a task that ends at once was executed first.
            for source in &ready {
                self.serve(now, *source);
            }
        }
    }

    /// Sets the timer to the earliest deadline; no call when it stands there already.
    fn arm(&mut self) {
        let [out, err] = &self.streams;
        let due = [self.machine.due(), out.due(), err.due()].into_iter().flatten().min();
        if due == self.timer_due {
            return;
        }
        let ns = due.map_or(0, |due| due.0.max(1));
        let value = Timespec {
            tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
            tv_nsec: u32::try_from(ns % 1_000_000_000).unwrap_or(0).into(),
        };
        let spec = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        if timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec).is_ok() {
            self.timer_due = due;
        }
    }

    /// Waits until something is ready.
    fn wait<'a>(&'a self, now: Mono) -> heapless::Vec<Source, SOURCES_MAX> {
        let mut sources = heapless::Vec::<Source, SOURCES_MAX>::new();
        let mut fds = heapless::Vec::<PollFd<'a>, SOURCES_MAX>::new();
        let mut add = |source, fd: BorrowedFd<'a>| {
            // There is room for all: SOURCES_MAX counts them.
            let _ = sources.push(source);
            let _ = fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        };
        if let Some(failure) = &self.failure {
            add(Source::Failure, failure.as_fd());
        }
        add(Source::Signals, self.signals.as_fd());
        for (i, stream) in self.streams.iter().enumerate() {
            if let Some(pipe) = stream.wants_read(now) {
                add(Source::Stream(i), pipe);
            }
        }
        // The newest first: serving may remove one, which moves only those behind it.
        for (i, conn) in self.conns.iter().enumerate().rev() {
            add(Source::Conn(i), conn.fd.as_fd());
        }
        add(Source::Ctl, self.ctl.as_fd());
        add(Source::Timer, self.timer.as_fd());
        let _ = poll(&mut fds, None);
        sources.iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty()).map(|(source, _)| *source).collect()
    }

    fn serve(&mut self, now: Now, source: Source) {
        match source {
            Source::Failure => self.read_failure(now),
            Source::Signals => self.reap(now),
            Source::Stream(i) => {
                if let Some(stream) = self.streams.get_mut(i) {
                    stream.read(self.log_dir.as_fd(), now.mono, &mut self.buffer);
                }
                if self.streams.iter().all(Pump::has_ended) {
                    self.feed(now, Fact::OutputEnded);
                }
            }
            Source::Conn(i) => self.request(now, i),
            Source::Ctl => self.accept(),
            Source::Timer => {
                let mut expirations = [0; 8];
                let _ = rustix::io::read(&self.timer, &mut expirations);
                self.timer_due = None;
                for stream in &mut self.streams {
                    stream.tick(self.log_dir.as_fd(), now.mono);
                }
                self.feed(now, Fact::Due);
            }
        }
    }

    /// One fact and all it causes.
    fn feed(&mut self, now: Now, fact: Fact) {
        self.machine.handle(now, fact);
        self.act_all(now);
    }

    fn act_all(&mut self, now: Now) {
        while let Some(act) = self.machine.poll() {
            match act {
                Act::Save => self.save(),
                Act::Tell => self.tell(),
                Act::OpenGate => {
                    if let Some(gate) = self.gate.take() {
                        let _ = rustix::io::write(&gate, &[1]);
                    }
                }
                Act::Signal(number) => {
                    let _ = self.signal(number, Scope::Main);
                }
                Act::KillAll => {
                    if let Some(main) = self.main {
                        sweep::kill_all(&self.groups, main);
                    }
                }
                Act::Reap => {
                    if let Some(main) = self.main.take() {
                        let _ = rustix::process::waitpid(rustix::process::Pid::from_raw(main.as_raw()), WaitOptions::empty());
                    }
                    self.streams.iter_mut().for_each(Pump::hurry);
                }
                Act::Sweep => {
                    let found_n = sweep::sweep(&self.groups);
                    self.machine.handle(now, Fact::Swept { found_n });
                }
                Act::Drain => {
                    for stream in &mut self.streams {
                        stream.drain(self.log_dir.as_fd(), now.mono, &mut self.buffer);
                    }
                    self.machine.handle(now, Fact::Drained);
                }
                Act::Leave => std::process::exit(0),
            }
        }
    }

    fn save(&mut self) {
        let [out, err] = &self.streams;
        let ((out_bytes, out_dropped, out_i), (err_bytes, err_dropped, err_i)) = (out.figures(), err.figures());
        self.machine.set_logs(LogFigures { out_bytes, err_bytes, dropped_bytes: out_dropped + err_dropped, out_i, err_i });
        let slot = self.machine.slot();
        // Preallocated: the only error left is a folder whose memory is gone, and then nobody can read it either.
        let _ = rustix::io::pwrite(&self.state, &slot.encode(), slot.offset());
    }

    fn tell(&mut self) {
        if matches!(self.machine.slot().phase, Phase::Done | Phase::ExecFailed) {
            // Nothing is left to guard. Who hears the last word finds the folder free to remove.
            let _ = flock(&self.lock, FlockOperation::Unlock);
        }
        let event = Answer::Event(*self.machine.slot()).encode();
        self.conns.retain(|conn| !conn.is_adopter || send(&conn.fd, &event));
    }

    fn read_failure(&mut self, now: Now) {
        let mut bytes = [0; FAILURE_BYTES];
        let n = self.failure.as_ref().map_or(Ok(0), |fd| rustix::io::read(fd, &mut bytes));
        self.failure = None;
        let [stage, errno @ ..] = bytes;
        let fact = match n {
            Ok(0) => Fact::Executed,
            _ => Fact::ExecFailed { stage, errno: i32::from_le_bytes(errno) },
        };
        self.feed(now, fact);
    }

    /// Records the end of the main process, reaps all others.
    fn reap(&mut self, now: Now) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        let mut has_reaped = false;
        while let Some(ended) = peek_ended() {
            if self.main.is_some_and(|main| main.as_raw() == ended.pid) {
                let oom_end = self.oom.as_ref().map_or(0, oom_kills);
                self.feed(now, Fact::Exited(Exit { oom_end, ..ended.exit }));
                // Exec failures reap it without a word; whatever the machine made of it, it is gone now.
                if self.main.take().is_none() {
                    continue;
                }
            }
            let _ = rustix::process::waitpid(rustix::process::Pid::from_raw(ended.pid), WaitOptions::NOHANG);
            has_reaped = true;
        }
        if has_reaped {
            self.feed(now, Fact::Reaped);
        }
    }

    fn accept(&mut self) {
        let Ok(fd) = rustix::net::accept_with(&self.ctl, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else { return };
        let is_known =
            rustix::net::sockopt::socket_peercred(&fd).is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid());
        if !is_known {
            return;
        }
        if self.conns.is_full() {
            self.conns.remove(0);
        }
        let _ = self.conns.push(Conn { fd, is_adopter: false });
    }

    fn request(&mut self, now: Now, i: usize) {
        let mut bytes = [0; REQUEST_BYTES];
        let Some(conn) = self.conns.get(i) else { return };
        let n = match rustix::net::recv(&conn.fd, &mut bytes[..], RecvFlags::empty()) {
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok((n, _)) if n > 0 => n,
            Ok(_) | Err(_) => {
                self.conns.remove(i);
                return;
            }
        };
        let answer = match Op::decode(bytes.get(..n).unwrap_or(&[])) {
            Ok(op) => self.perform(now, i, op),
            Err(WireError::Unknown { .. }) => Answer::Err { errno: libc::ENOSYS },
            Err(_) => Answer::Err { errno: libc::EINVAL },
        };
        let is_sent = self.conns.get(i).is_some_and(|conn| send(&conn.fd, &answer.encode()));
        // A peer that does not read its answers is not served: it may connect again.
        if !is_sent && i < self.conns.len() {
            self.conns.remove(i);
        }
    }

    fn perform(&mut self, now: Now, i: usize, op: Op) -> Answer {
        let is_signal = |number| number == 0 || Signal::try_from(number).is_ok();
        match op {
            Op::Hello { .. } => return Answer::State { slot: *self.machine.slot(), version: VERSION },
            Op::Adopt => {
                for (j, conn) in self.conns.iter_mut().enumerate() {
                    conn.is_adopter = i == j;
                }
            }
            Op::Signal { signal, scope } => {
                if let Err(error) = self.signal(signal, scope) {
                    return Answer::Err { errno: error as i32 };
                }
            }
            Op::Stop { signal, .. } if !is_signal(signal) => return Answer::Err { errno: libc::EINVAL },
            Op::Stop { signal, timeout_ms } => self.feed_quietly(now, i, Fact::Stop { signal, timeout_ms }),
            Op::Kill => self.feed_quietly(now, i, Fact::Stop { signal: libc::SIGKILL, timeout_ms: 0 }),
            Op::LogConfig { files_max, file_bytes_max } => {
                let policy = LogPolicy { files_max: files_max.into(), file_bytes_max: file_bytes_max.into(), is_captured: true };
                for stream in &mut self.streams {
                    stream.set_policy(policy);
                }
            }
            Op::Ping => {}
            Op::Restarts { restart_n, interval_started } => self.feed_quietly(now, i, Fact::Restarts { restart_n, interval_started }),
        }
        Answer::Ok
    }

    /// As [`Shim::feed`]; an adopter that had to be closed meanwhile must not let the answer go to another connection.
    fn feed_quietly(&mut self, now: Now, i: usize, fact: Fact) {
        let before = self.conns.get(i).map(|conn| conn.fd.as_raw_fd());
        self.feed(now, fact);
        if self.conns.get(i).map(|conn| conn.fd.as_raw_fd()) != before {
            self.conns.clear();
        }
    }

    fn signal(&self, number: i32, scope: Scope) -> Result<(), NixErrno> {
        let main = self.main.ok_or(NixErrno::ESRCH)?;
        let signal = if number == 0 { None } else { Some(Signal::try_from(number)?) };
        match scope {
            Scope::Main => kill(main, signal),
            Scope::Group => killpg(main, signal),
            Scope::All if sweep::signal_all(&self.groups, main, signal) => Ok(()),
            Scope::All => Err(NixErrno::ESRCH),
        }
    }
}

/// The socket `ctl` in the current folder.
fn listen() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // A relative name: no limit on where the folder is.
    rustix::net::bind(&socket, &SocketAddrUnix::new("ctl")?)?;
    rustix::net::listen(&socket, 2)?;
    Ok(socket)
}

fn send(fd: &OwnedFd, bytes: &[u8]) -> bool {
    rustix::net::send(fd, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).is_ok()
}

fn oom_kills(file: &OwnedFd) -> u32 {
    u32::try_from(usage::counter(file, b"oom_kill").unwrap_or(0)).unwrap_or(u32::MAX)
}

/// A child that has ended and is not reaped yet.
struct Ended {
    pid: i32,
    exit: Exit,
}

/// The next child that has ended, left as it is: its pid stays reserved until it is reaped.
fn peek_ended() -> Option<Ended> {
    /// `struct rusage` as the kernel writes it: longs of the machine's word, also where the C library's times are wider.
    #[repr(C)]
    #[derive(Default)]
    struct KernelUsage {
        user: [libc::c_long; 2],
        system: [libc::c_long; 2],
        maxrss: libc::c_long,
        rest: [libc::c_long; 13],
    }
    let mut usage = KernelUsage::default();
    // SAFETY: all zero is a valid siginfo_t, a C struct of plain numbers.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: waitid(2) as the kernel defines it, with its fifth argument; both structs have the kernel's layout and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_waitid, libc::P_ALL, 0, &raw mut info, options, &raw mut usage) };
    if result != 0 {
        return None;
    }
    // SAFETY: waitid has filled the members of a SIGCHLD, or left zeros.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return None;
    }
    let (kind, is_core) = match info.si_code {
        libc::CLD_EXITED => (ExitKind::Code, false),
        libc::CLD_DUMPED => (ExitKind::Signal, true),
        _ => (ExitKind::Signal, false),
    };
    let us =
        |[s, us]: [libc::c_long; 2]| u64::try_from(s).unwrap_or(0).saturating_mul(1_000_000).saturating_add(u64::try_from(us).unwrap_or(0));
    let _ = usage.rest;
    Some(Ended {
        pid,
        exit: Exit {
            kind,
            code: status,
            is_core,
            utime_us: us(usage.user),
            stime_us: us(usage.system),
            maxrss_kb: u64::try_from(usage.maxrss).unwrap_or(0),
            oom_end: 0,
        },
    })
}
