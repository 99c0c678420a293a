//! Everything that is drawn: one word after the other from a seed. Draws that must not disturb each other have dice of their own.

use dunlin_hal::sim::entropy::split_mix;

/// A source of draws. The same seed gives the same draws.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Dice for one of several uses of a seed.
    pub fn of(seed: u64, n: u64) -> Self {
        let mut state = seed ^ n.wrapping_mul(0xa076_1d64_78bd_642f);
        Self(split_mix(&mut state))
    }

    /// A word.
    pub fn word(&mut self) -> u64 {
        split_mix(&mut self.0)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(end)) >> 64) as u64
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True this many times of a hundred.
    pub fn percent(&mut self, n: u64) -> bool {
        self.below(100) < n
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
