//! What happened, as a hash that two runs of a seed must share, and as lines for whoever looks at one.

use std::cell::Cell;

use dunlin_hal::clock::Now;

thread_local! {
    /// The number of the event that is being handled: where a failure is found, also when it unwinds.
    static EVENT: Cell<u64> = const { Cell::new(0) };
}

/// The event that this thread's world handled last.
pub fn last_event() -> u64 {
    EVENT.get()
}

/// Events of a seed; most have some hundreds.
const EVENTS_MAX: u64 = 60_000;

/// The record of one run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    /// Events handled so far.
    pub events_n: u64,
    is_told: bool,
}

impl Trace {
    /// An empty record; `is_told`: lines go to standard error.
    pub fn new(is_told: bool) -> Self {
        EVENT.set(0);
        Self { hash: 0xcbf2_9ce4_8422_2325, events_n: 0, is_told }
    }

    /// Another event begins. So many are a storm that nothing ends.
    pub fn event(&mut self) {
        self.events_n += 1;
        assert!(self.events_n < EVENTS_MAX, "the agent does not come to rest after {EVENTS_MAX} events");
        EVENT.set(self.events_n);
    }

    /// Mixes a number in.
    pub fn word(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }

    /// Mixes bytes in.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        for byte in rest {
            self.word(u64::from(*byte));
        }
    }

    /// One line.
    pub fn line(&self, now: Now, text: impl FnOnce() -> String) {
        if self.is_told {
            let ms = now.mono.0 / 1_000_000;
            eprintln!("{:5} {:7}.{:03} {}", self.events_n, ms / 1000, ms % 1000, text());
        }
    }

    /// True when lines are told.
    pub fn is_told(&self) -> bool {
        self.is_told
    }

    /// The hash so far.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}
