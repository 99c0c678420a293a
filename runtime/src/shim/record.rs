//! The state slot: what the shim knows about its task, in 512 bytes that outlive it. Pure: bytes <-> [`Slot`].
//!
//! The file `state` holds two slots; slot `seq & 1` is written, so a torn write leaves the other one valid. Both are on tmpfs and
//! preallocated: writing one cannot fail for want of space (D12). Errors: a slot that is not valid is an allegation, never a panic.
//! Source: `spec/runtime.md` 6.2. Byte map, little endian:
//! ```text
//!   0 magic "ETSK"      4 u16 layout = 1     6 u16 bytes used = 200    8 u64 seq
//!  16 boot_id[16]      32 u64 inv           40 u32 shim_pid           44 u32 task_pid
//!  48 u64 shim_start   56 u64 task_start    (ticks, field 22 of /proc/<pid>/stat)
//!  64 u8 phase         65 u8 exit_kind      66 u8 flags               67 u8 stage
//!  68 i32 code | signal | errno
//!  72 start_boot_ns    80 start_real_ns     88 exit_boot_ns           96 exit_real_ns
//! 104 utime_us        112 stime_us         120 maxrss_kb
//! 128 u32 oom_base    132 u32 oom_end
//! 136 out_bytes       144 err_bytes        152 dropped_bytes         160 u32 out_i      164 u32 err_i
//! 168 i32 stop_signal 172 u32 stop_timeout_ms                        176 stop_deadline_boot_ns
//! 184 u32 restart_n   188 zero             192 interval_start_boot_ns
//! 200..508 zero       508 u32 crc32c of 0..508
//! ```

use dunlin_hal::clock::{Mono, Now, Wall};

use crate::id::Inv;

/// Bytes of one slot.
pub const SLOT_BYTES: usize = 512;
/// Bytes of the file `state`.
pub const STATE_BYTES: usize = 2 * SLOT_BYTES;
/// The layout written here.
pub const LAYOUT: u16 = 1;

const MAGIC: [u8; 4] = *b"ETSK";
const USED: u16 = 200;
const CRC_AT: usize = SLOT_BYTES - 4;

/// Where the task is in its life; ascending, never back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The shim is ready, there is no task yet.
    #[default]
    Ready = 1,
    /// The task's process exists and has not run an instruction of its own.
    Forked = 2,
    /// It runs.
    Running = 3,
    /// It was asked to end.
    Stopping = 4,
    /// It has ended; its output is drained, what it left behind is killed.
    Exited = 5,
    /// Nothing is left.
    Done = 6,
    /// SIGKILL was sent and it is still there.
    Stuck = 7,
    /// It could not be executed.
    ExecFailed = 8,
}

impl Phase {
    fn parse(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Ready,
            2 => Self::Forked,
            3 => Self::Running,
            4 => Self::Stopping,
            5 => Self::Exited,
            6 => Self::Done,
            7 => Self::Stuck,
            8 => Self::ExecFailed,
            _ => return None,
        })
    }

    /// True when the slot says how the task ended.
    #[must_use]
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Exited | Self::Done | Self::ExecFailed)
    }
}

/// How it ended; what [`Slot::code`] means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExitKind {
    /// It has not.
    #[default]
    None = 0,
    /// Exit code 0..=255.
    Code = 1,
    /// Signal number.
    Signal = 2,
    /// errno of the step [`Slot::stage`].
    Exec = 3,
    /// The shim was lost; only the agent says this.
    Lost = 4,
}

impl ExitKind {
    fn parse(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::None,
            1 => Self::Code,
            2 => Self::Signal,
            3 => Self::Exec,
            4 => Self::Lost,
            _ => return None,
        })
    }
}

/// A core file was written.
pub const FLAG_CORE: u8 = 1;
/// The kernel killed a process of the task for memory.
pub const FLAG_OOM: u8 = 2;
/// It was asked to end.
pub const FLAG_BY_STOP: u8 = 4;
/// SIGKILL was needed or asked for.
pub const FLAG_FORCED: u8 = 8;
/// Some output could not be written.
pub const FLAG_LOG_LOSS: u8 = 16;
/// Processes it left behind were killed.
pub const FLAG_SWEPT: u8 = 32;

/// Output so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogFigures {
    /// Written of stdout, bytes.
    pub out_bytes: u64,
    /// Written of stderr, bytes.
    pub err_bytes: u64,
    /// Read and not written, both streams, bytes.
    pub dropped_bytes: u64,
    /// Current file of stdout.
    pub out_i: u32,
    /// Current file of stderr.
    pub err_i: u32,
}

/// One slot. See the byte map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Counts the slots written.
    pub seq: u64,
    /// The boot all of this belongs to.
    pub boot_id: [u8; 16],
    /// The invocation.
    pub inv: Inv,
    /// The supervisor.
    pub shim_pid: u32,
    /// Its start, ticks.
    pub shim_start: u64,
    /// The task's main process; 0 = none yet.
    pub task_pid: u32,
    /// Its start, ticks.
    pub task_start: u64,
    /// Where it is.
    pub phase: Phase,
    /// How it ended.
    pub exit_kind: ExitKind,
    /// `FLAG_*`.
    pub flags: u8,
    /// The step of starting that failed (`spec/runtime.md` 6.3; see [`crate::proc::spawn::Stage`]).
    pub stage: u8,
    /// Exit code, signal or errno, as [`Slot::exit_kind`] says.
    pub code: i32,
    /// When it was executed.
    pub started: Now,
    /// When it ended.
    pub exited: Now,
    /// Processor time in user mode, microseconds.
    pub utime_us: u64,
    /// Processor time in the kernel, microseconds.
    pub stime_us: u64,
    /// Most memory ever resident, KiB.
    pub maxrss_kb: u64,
    /// The kernel's out-of-memory counter at the start.
    pub oom_base: u32,
    /// And at the end.
    pub oom_end: u32,
    /// Output.
    pub logs: LogFigures,
    /// Signal of the stop in progress.
    pub stop_signal: i32,
    /// Its time until SIGKILL.
    pub stop_timeout_ms: u32,
    /// When SIGKILL is due; zero = no stop in progress.
    pub stop_due: Mono,
    /// Restarts in the current interval: the agent's, kept here so that its own restart does not forgive them.
    pub restart_n: u32,
    /// Start of that interval.
    pub interval_started: Mono,
}

/// Why bytes are not a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotError {
    /// Never written, torn or damaged.
    Invalid,
    /// Written by a newer shim: leave the task alone.
    Newer {
        /// Its layout.
        layout: u16,
    },
}

/// The end of a task as a `Terminated` event tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// 0..=255, or 128 + signal.
    pub exit_code: i32,
    /// Signal number; 0 = none.
    pub signal: i32,
    /// The kernel killed it for memory.
    pub is_oom_killed: bool,
}

impl Slot {
    /// The bytes of this slot.
    #[must_use]
    pub fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut b = [0; SLOT_BYTES];
        put(&mut b, 0, MAGIC);
        put(&mut b, 4, LAYOUT.to_le_bytes());
        put(&mut b, 6, USED.to_le_bytes());
        put(&mut b, 8, self.seq.to_le_bytes());
        put(&mut b, 16, self.boot_id);
        put(&mut b, 32, self.inv.0.to_le_bytes());
        put(&mut b, 40, self.shim_pid.to_le_bytes());
        put(&mut b, 44, self.task_pid.to_le_bytes());
        put(&mut b, 48, self.shim_start.to_le_bytes());
        put(&mut b, 56, self.task_start.to_le_bytes());
        put(&mut b, 64, [self.phase as u8, self.exit_kind as u8, self.flags, self.stage]);
        put(&mut b, 68, self.code.to_le_bytes());
        put(&mut b, 72, self.started.mono.0.to_le_bytes());
        put(&mut b, 80, self.started.wall.0.to_le_bytes());
        put(&mut b, 88, self.exited.mono.0.to_le_bytes());
        put(&mut b, 96, self.exited.wall.0.to_le_bytes());
        put(&mut b, 104, self.utime_us.to_le_bytes());
        put(&mut b, 112, self.stime_us.to_le_bytes());
        put(&mut b, 120, self.maxrss_kb.to_le_bytes());
        put(&mut b, 128, self.oom_base.to_le_bytes());
        put(&mut b, 132, self.oom_end.to_le_bytes());
        put(&mut b, 136, self.logs.out_bytes.to_le_bytes());
        put(&mut b, 144, self.logs.err_bytes.to_le_bytes());
        put(&mut b, 152, self.logs.dropped_bytes.to_le_bytes());
        put(&mut b, 160, self.logs.out_i.to_le_bytes());
        put(&mut b, 164, self.logs.err_i.to_le_bytes());
        put(&mut b, 168, self.stop_signal.to_le_bytes());
        put(&mut b, 172, self.stop_timeout_ms.to_le_bytes());
        put(&mut b, 176, self.stop_due.0.to_le_bytes());
        put(&mut b, 184, self.restart_n.to_le_bytes());
        put(&mut b, 192, self.interval_started.0.to_le_bytes());
        let crc = checksum(&b);
        put(&mut b, CRC_AT, crc.to_le_bytes());
        b
    }

    /// Reads one slot.
    ///
    /// # Errors
    /// See [`SlotError`].
    pub fn decode(b: &[u8; SLOT_BYTES]) -> Result<Self, SlotError> {
        if get::<4>(b, 0) != MAGIC || u32::from_le_bytes(get(b, CRC_AT)) != checksum(b) {
            return Err(SlotError::Invalid);
        }
        let layout = u16::from_le_bytes(get(b, 4));
        if layout != LAYOUT {
            return Err(if layout > LAYOUT { SlotError::Newer { layout } } else { SlotError::Invalid });
        }
        let [phase, exit_kind, flags, stage] = get(b, 64);
        Ok(Self {
            seq: u64_at(b, 8),
            boot_id: get(b, 16),
            inv: Inv(u64_at(b, 32)),
            shim_pid: u32_at(b, 40),
            task_pid: u32_at(b, 44),
            shim_start: u64_at(b, 48),
            task_start: u64_at(b, 56),
            phase: Phase::parse(phase).ok_or(SlotError::Invalid)?,
            exit_kind: ExitKind::parse(exit_kind).ok_or(SlotError::Invalid)?,
            flags,
            stage,
            code: i32::from_le_bytes(get(b, 68)),
            started: Now { mono: Mono(u64_at(b, 72)), wall: Wall(i64::from_le_bytes(get(b, 80))) },
            exited: Now { mono: Mono(u64_at(b, 88)), wall: Wall(i64::from_le_bytes(get(b, 96))) },
            utime_us: u64_at(b, 104),
            stime_us: u64_at(b, 112),
            maxrss_kb: u64_at(b, 120),
            oom_base: u32_at(b, 128),
            oom_end: u32_at(b, 132),
            logs: LogFigures {
                out_bytes: u64_at(b, 136),
                err_bytes: u64_at(b, 144),
                dropped_bytes: u64_at(b, 152),
                out_i: u32_at(b, 160),
                err_i: u32_at(b, 164),
            },
            stop_signal: i32::from_le_bytes(get(b, 168)),
            stop_timeout_ms: u32_at(b, 172),
            stop_due: Mono(u64_at(b, 176)),
            restart_n: u32_at(b, 184),
            interval_started: Mono(u64_at(b, 192)),
        })
    }

    /// The newest valid slot of the file `state`.
    ///
    /// # Errors
    /// No slot is valid: `Newer` if one of them is a newer shim's, else `Invalid`.
    pub fn newest(state: &[u8]) -> Result<Self, SlotError> {
        let mut best: Result<Self, SlotError> = Err(SlotError::Invalid);
        for bytes in state.as_chunks::<SLOT_BYTES>().0.iter().take(STATE_BYTES / SLOT_BYTES) {
            match (Self::decode(bytes), best) {
                (Ok(slot), Ok(other)) if slot.seq <= other.seq => best = Ok(other),
                (Ok(slot), _) => best = Ok(slot),
                (Err(error @ SlotError::Newer { .. }), Err(_)) => best = Err(error),
                (Err(_), _) => {}
            }
        }
        best
    }

    /// Offset of this slot in the file `state`.
    #[must_use]
    pub fn offset(&self) -> u64 {
        // 512: the constant fits.
        (self.seq & 1) * 512
    }

    /// True if the flag (`FLAG_*`) is set.
    #[must_use]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// How the task ended, in the words of a `Terminated` event; `None` while it has not, or when it was never executed.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        let is_oom_killed = self.has(FLAG_OOM);
        match self.exit_kind {
            ExitKind::Code => Some(Ended { exit_code: self.code, signal: 0, is_oom_killed }),
            ExitKind::Signal => Some(Ended { exit_code: self.code.saturating_add(128), signal: self.code, is_oom_killed }),
            ExitKind::None | ExitKind::Exec | ExitKind::Lost => None,
        }
    }

    /// Why the task could not be executed, as the `Driver Failure` tells it.
    #[must_use]
    pub fn exec_error(&self) -> Option<String> {
        (self.exit_kind == ExitKind::Exec).then(|| {
            let stage = crate::proc::spawn::Stage::name(self.stage);
            format!("failed to launch command: {stage}: {}", nix::errno::Errno::from_raw(self.code).desc())
        })
    }
}

fn checksum(b: &[u8; SLOT_BYTES]) -> u32 {
    crc32c::crc32c(b.split_at(CRC_AT).0)
}

fn put<const N: usize>(b: &mut [u8; SLOT_BYTES], at: usize, value: [u8; N]) {
    if let Some(room) = b.get_mut(at..at + N) {
        room.copy_from_slice(&value);
    }
}

fn get<const N: usize>(b: &[u8; SLOT_BYTES], at: usize) -> [u8; N] {
    b.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
}

fn u32_at(b: &[u8; SLOT_BYTES], at: usize) -> u32 {
    u32::from_le_bytes(get(b, at))
}

fn u64_at(b: &[u8; SLOT_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(get(b, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field has a value of its own, so that two swapped fields cannot hide.
    fn full() -> Slot {
        Slot {
            seq: 0x0102_0304_0506_0708,
            boot_id: *b"0123456789abcdef",
            inv: Inv(0x1122_3344_5566_7788),
            shim_pid: 1001,
            shim_start: 2002,
            task_pid: 3003,
            task_start: 4004,
            phase: Phase::Exited,
            exit_kind: ExitKind::Signal,
            flags: FLAG_OOM | FLAG_SWEPT,
            stage: 12,
            code: 9,
            started: Now { mono: Mono(5005), wall: Wall(6006) },
            exited: Now { mono: Mono(7007), wall: Wall(-8008) },
            utime_us: 9009,
            stime_us: 10010,
            maxrss_kb: 11011,
            oom_base: 12,
            oom_end: 13,
            logs: LogFigures { out_bytes: 14014, err_bytes: 15015, dropped_bytes: 16016, out_i: 17, err_i: 18 },
            stop_signal: 15,
            stop_timeout_ms: 19019,
            stop_due: Mono(20020),
            restart_n: 21,
            interval_started: Mono(22022),
        }
    }

    /// Frozen: shims of the two releases before must stay readable. A changed layout is a new number, never an edit here.
    #[test]
    fn layout_1_is_frozen() {
        let golden = concat!(
            "4554534b0100c800080706050403020130313233343536373839616263646566",
            "8877665544332211e9030000bb0b0000d207000000000000a40f000000000000",
            "0502220c090000008d1300000000000076170000000000005f1b000000000000",
            "b8e0ffffffffffff31230000000000001a27000000000000032b000000000000",
            "0c0000000d000000be36000000000000a73a000000000000903e000000000000",
            "11000000120000000f0000004b4a0000344e0000000000001500000000000000",
            "0656000000000000",
        );
        let bytes = full().encode();
        let hex: String = bytes.iter().take(200).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden);
        assert!(bytes.iter().take(508).skip(200).all(|&byte| byte == 0));
        assert_eq!(Slot::decode(&bytes), Ok(full()));
    }

    #[test]
    fn a_damaged_slot_is_refused_at_every_byte() {
        let bytes = full().encode();
        for at in 0..SLOT_BYTES {
            let mut bad = bytes;
            bad[at] ^= 0x10;
            assert_eq!(Slot::decode(&bad), Err(SlotError::Invalid), "byte {at}");
        }
        assert_eq!(Slot::decode(&[0; SLOT_BYTES]), Err(SlotError::Invalid));
    }

    #[test]
    fn values_outside_the_map_are_refused() {
        for (at, value) in [(64, 0), (64, 9), (65, 5)] {
            let mut bad = full().encode();
            bad[at] = value;
            let crc = checksum(&bad);
            put(&mut bad, CRC_AT, crc.to_le_bytes());
            assert_eq!(Slot::decode(&bad), Err(SlotError::Invalid), "{at}={value}");
        }
        let mut newer = full().encode();
        put(&mut newer, 4, 2_u16.to_le_bytes());
        let crc = checksum(&newer);
        put(&mut newer, CRC_AT, crc.to_le_bytes());
        assert_eq!(Slot::decode(&newer), Err(SlotError::Newer { layout: 2 }));
        assert_eq!(Slot::newest(&[newer, [0; SLOT_BYTES]].concat()), Err(SlotError::Newer { layout: 2 }));
    }

    #[test]
    fn the_newest_valid_slot_wins() {
        let (old, new) = (Slot { seq: 6, ..full() }, Slot { seq: 7, ..full() });
        assert_eq!((old.offset(), new.offset()), (0, 512));
        let both = [old.encode(), new.encode()].concat();
        assert_eq!(Slot::newest(&both), Ok(new));
        let swapped = [new.encode(), old.encode()].concat();
        assert_eq!(Slot::newest(&swapped), Ok(new));
        let mut torn = both.clone();
        torn[700] ^= 1;
        assert_eq!(Slot::newest(&torn), Ok(old));
        for bad in [&[][..], &both[..511], &[0; 1024]] {
            assert_eq!(Slot::newest(bad), Err(SlotError::Invalid));
        }
    }

    #[test]
    fn ends_in_the_words_of_the_field() {
        let killed = Ended { exit_code: 137, signal: 9, is_oom_killed: true };
        assert_eq!(full().ended(), Some(killed));
        let code = Slot { exit_kind: ExitKind::Code, code: 3, flags: 0, ..full() };
        assert_eq!(code.ended(), Some(Ended { exit_code: 3, signal: 0, is_oom_killed: false }));
        let exec = Slot { exit_kind: ExitKind::Exec, stage: 12, code: 2, ..full() };
        assert_eq!(exec.ended(), None);
        assert_eq!(exec.exec_error().as_deref(), Some("failed to launch command: execve: No such file or directory"));
        assert_eq!(full().exec_error(), None);
    }
}
