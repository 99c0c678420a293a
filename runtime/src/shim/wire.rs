//! The control protocol between agent and shim: one datagram each way on a SEQPACKET socket. Pure: bytes <-> [`Op`], [`Answer`].
//!
//! Byte map: `op u8, version u8, len u16 le, payload[len]`. Payloads little endian, packed:
//! ```text
//! 01 HELLO    u16 version                 -> 81 STATE  slot[512], u16 shim version
//! 02 ADOPT                                -> 80; from now on this connection gets 82 EVENT slot[512] at each change of phase
//! 03 SIGNAL   i32 signal, u8 scope        -> 80 | FF
//! 04 STOP     i32 signal, u32 timeout_ms  -> 80 | FF
//! 05 KILL                                 -> 80
//! 06 LOGCFG   u16 files_max, u32 bytes_max -> 80
//! 07 PING                                 -> 80
//! 08 RESTARTS u32 count, u64 interval_start_boot_ns -> 80
//! FF ERR      i32 errno
//! ```
//! Invariants: a datagram is whole or refused; the `version` byte is 1; bytes after the payload are refused. Errors: [`WireError`].
//! Source: `spec/runtime.md` 6.4.

use dunlin_hal::clock::Mono;

use super::record::{SLOT_BYTES, Slot, SlotError};

/// Version of the protocol spoken here.
pub const VERSION: u16 = 1;
/// The largest datagram.
pub const DATAGRAM_BYTES_MAX: usize = HEAD_BYTES + SLOT_BYTES + 2;

const HEAD_BYTES: usize = 4;
const HEAD_VERSION: u8 = 1;

/// One datagram.
pub type Datagram = heapless::Vec<u8, DATAGRAM_BYTES_MAX>;

/// Whom a signal is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The main process.
    Main,
    /// Its process group.
    Group,
    /// Every process of the task that can be found.
    All,
}

/// What the agent asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Who are you?
    Hello {
        /// The agent's [`VERSION`].
        version: u16,
    },
    /// Tell this connection what happens.
    Adopt,
    /// Send a signal.
    Signal {
        /// Number.
        signal: i32,
        /// To whom.
        scope: Scope,
    },
    /// End the task.
    Stop {
        /// Number.
        signal: i32,
        /// Time until SIGKILL.
        timeout_ms: u32,
    },
    /// End the task at once.
    Kill,
    /// New log limits.
    LogConfig {
        /// Files kept of each stream.
        files_max: u16,
        /// Size of a file.
        file_bytes_max: u32,
    },
    /// Are you there?
    Ping,
    /// Keep the restart window.
    Restarts {
        /// Restarts in the interval.
        restart_n: u32,
        /// Its start.
        interval_started: Mono,
    },
}

/// What the shim says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done.
    Ok,
    /// Refused.
    Err {
        /// Why.
        errno: i32,
    },
    /// Answer to HELLO.
    State {
        /// The newest slot.
        slot: Slot,
        /// The shim's [`VERSION`].
        version: u16,
    },
    /// The phase has changed.
    Event(Slot),
}

/// Why a datagram cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// Cut short, too long, or a value without meaning.
    Malformed,
    /// Not an operation of this version.
    Unknown {
        /// The first byte.
        op: u8,
    },
    /// The slot inside is newer than this program.
    Newer {
        /// Its layout.
        layout: u16,
    },
}

impl Op {
    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> Datagram {
        match *self {
            Self::Hello { version } => datagram(0x01, &[&version.to_le_bytes()]),
            Self::Adopt => datagram(0x02, &[]),
            Self::Signal { signal, scope } => datagram(0x03, &[&signal.to_le_bytes(), &[scope as u8]]),
            Self::Stop { signal, timeout_ms } => datagram(0x04, &[&signal.to_le_bytes(), &timeout_ms.to_le_bytes()]),
            Self::Kill => datagram(0x05, &[]),
            Self::LogConfig { files_max, file_bytes_max } => datagram(0x06, &[&files_max.to_le_bytes(), &file_bytes_max.to_le_bytes()]),
            Self::Ping => datagram(0x07, &[]),
            Self::Restarts { restart_n, interval_started } => {
                datagram(0x08, &[&restart_n.to_le_bytes(), &interval_started.0.to_le_bytes()])
            }
        }
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (op, mut payload) = head(bytes)?;
        let decoded = match op {
            0x01 => Self::Hello { version: u16::from_le_bytes(take(&mut payload)?) },
            0x02 => Self::Adopt,
            0x03 => Self::Signal {
                signal: i32::from_le_bytes(take(&mut payload)?),
                scope: match take(&mut payload)? {
                    [0] => Scope::Main,
                    [1] => Scope::Group,
                    [2] => Scope::All,
                    [_] => return Err(WireError::Malformed),
                },
            },
            0x04 => Self::Stop { signal: i32::from_le_bytes(take(&mut payload)?), timeout_ms: u32::from_le_bytes(take(&mut payload)?) },
            0x05 => Self::Kill,
            0x06 => Self::LogConfig {
                files_max: u16::from_le_bytes(take(&mut payload)?),
                file_bytes_max: u32::from_le_bytes(take(&mut payload)?),
            },
            0x07 => Self::Ping,
            0x08 => Self::Restarts {
                restart_n: u32::from_le_bytes(take(&mut payload)?),
                interval_started: Mono(u64::from_le_bytes(take(&mut payload)?)),
            },
            op => return Err(WireError::Unknown { op }),
        };
        if payload.is_empty() { Ok(decoded) } else { Err(WireError::Malformed) }
    }
}

impl Answer {
    /// The datagram.
    #[must_use]
    pub fn encode(&self) -> Datagram {
        match self {
            Self::Ok => datagram(0x80, &[]),
            Self::Err { errno } => datagram(0xff, &[&errno.to_le_bytes()]),
            Self::State { slot, version } => datagram(0x81, &[&slot.encode(), &version.to_le_bytes()]),
            Self::Event(slot) => datagram(0x82, &[&slot.encode()]),
        }
    }

    /// Reads a datagram.
    ///
    /// # Errors
    /// See [`WireError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let (op, mut payload) = head(bytes)?;
        let decoded = match op {
            0x80 => Self::Ok,
            0xff => Self::Err { errno: i32::from_le_bytes(take(&mut payload)?) },
            0x81 => Self::State { slot: slot(&mut payload)?, version: u16::from_le_bytes(take(&mut payload)?) },
            0x82 => Self::Event(slot(&mut payload)?),
            op => return Err(WireError::Unknown { op }),
        };
        if payload.is_empty() { Ok(decoded) } else { Err(WireError::Malformed) }
    }
}

fn datagram(op: u8, parts: &[&[u8]]) -> Datagram {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    let [low, high] = u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes();
    let mut bytes = Datagram::new();
    // The capacity is that of the largest datagram, so nothing is ever cut; the tests encode every kind.
    let _ = bytes.extend_from_slice(&[op, HEAD_VERSION, low, high]);
    for part in parts {
        let _ = bytes.extend_from_slice(part);
    }
    bytes
}

fn head(bytes: &[u8]) -> Result<(u8, &[u8]), WireError> {
    let (&[op, version, low, high], payload) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(WireError::Malformed)?;
    if version == HEAD_VERSION && payload.len() == usize::from(u16::from_le_bytes([low, high])) {
        Ok((op, payload))
    } else {
        Err(WireError::Malformed)
    }
}

fn take<const N: usize>(payload: &mut &[u8]) -> Result<[u8; N], WireError> {
    let (value, rest) = payload.split_first_chunk::<N>().ok_or(WireError::Malformed)?;
    *payload = rest;
    Ok(*value)
}

fn slot(payload: &mut &[u8]) -> Result<Slot, WireError> {
    Slot::decode(&take(payload)?).map_err(|error| match error {
        SlotError::Invalid => WireError::Malformed,
        SlotError::Newer { layout } => WireError::Newer { layout },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPS: [(Op, &[u8]); 8] = [
        (Op::Hello { version: 1 }, &[1, 1, 2, 0, 1, 0]),
        (Op::Adopt, &[2, 1, 0, 0]),
        (Op::Signal { signal: 10, scope: Scope::Group }, &[3, 1, 5, 0, 10, 0, 0, 0, 1]),
        (Op::Stop { signal: 2, timeout_ms: 5000 }, &[4, 1, 8, 0, 2, 0, 0, 0, 0x88, 0x13, 0, 0]),
        (Op::Kill, &[5, 1, 0, 0]),
        (Op::LogConfig { files_max: 3, file_bytes_max: 1 << 20 }, &[6, 1, 6, 0, 3, 0, 0, 0, 16, 0]),
        (Op::Ping, &[7, 1, 0, 0]),
        (Op::Restarts { restart_n: 2, interval_started: Mono(256) }, &[8, 1, 12, 0, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
    ];

    #[test]
    fn ops_are_these_bytes_and_nothing_shorter_or_longer() {
        for (op, bytes) in OPS {
            assert_eq!(op.encode(), bytes, "{op:?}");
            assert_eq!(Op::decode(bytes), Ok(op));
            for cut in 0..bytes.len() {
                assert_eq!(Op::decode(&bytes[..cut]), Err(WireError::Malformed), "{op:?} cut at {cut}");
            }
            let mut long = bytes.to_vec();
            long.push(0);
            assert_eq!(Op::decode(&long), Err(WireError::Malformed));
            // A length that agrees with the bytes does not make a longer payload right.
            long[2] += 1;
            assert_eq!(Op::decode(&long), Err(WireError::Malformed));
        }
    }

    #[test]
    fn bad_ops() {
        for (bytes, want) in [
            (&[9, 1, 0, 0][..], WireError::Unknown { op: 9 }),
            (&[0x80, 1, 0, 0], WireError::Unknown { op: 0x80 }),
            (&[7, 2, 0, 0], WireError::Malformed),
            (&[3, 1, 5, 0, 1, 0, 0, 0, 3], WireError::Malformed),
            (&[7; 600], WireError::Malformed),
        ] {
            assert_eq!(Op::decode(bytes), Err(want));
        }
    }

    #[test]
    fn answers_round_trip() {
        let slot = Slot { seq: 3, ..Slot::default() };
        for answer in [Answer::Ok, Answer::Err { errno: -7 }, Answer::State { slot, version: 1 }, Answer::Event(slot)] {
            let bytes = answer.encode();
            assert_eq!(Answer::decode(&bytes), Ok(answer));
            assert_eq!(Answer::decode(&bytes[..bytes.len() - 1]), Err(WireError::Malformed));
        }
        assert_eq!(Answer::State { slot, version: 1 }.encode().len(), DATAGRAM_BYTES_MAX);
        let mut torn = Answer::Event(slot).encode();
        torn[100] ^= 1;
        assert_eq!(Answer::decode(&torn), Err(WireError::Malformed));
        assert_eq!(Answer::decode(&[1, 1, 0, 0]), Err(WireError::Unknown { op: 1 }));
    }
}
