//! Randomness: a seed from the machine, then a cryptographic generator that belongs to whoever decides.
//!
//! The generator is state, so that one seed replays one run (invariant I2). Ids, jitter and dynamic ports come from it.

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

/// A source of seeds. Real: the kernel's pool. Simulated: the test's seed.
pub trait Entropy {
    /// Fills `seed`. Blocks only while the kernel's pool was never ready since boot.
    fn seed(&mut self, seed: &mut [u8; 32]);
}

/// The generator. Not `Clone`: two copies would give the same ids twice.
#[derive(Debug)]
pub struct Rng(ChaCha12Rng);

impl Rng {
    /// A generator from one seed.
    pub fn new(source: &mut dyn Entropy) -> Self {
        let mut seed = [0; 32];
        source.seed(&mut seed);
        Self(ChaCha12Rng::from_seed(seed))
    }

    /// 16 random bytes as a version 4 UUID (RFC 9562 section 5.4).
    pub fn uuid(&mut self) -> [u8; 16] {
        let mut id = [0; 16];
        self.0.fill_bytes(&mut id);
        id[6] = (id[6] & 0x0f) | 0x40;
        id[8] = (id[8] & 0x3f) | 0x80;
        id
    }

    /// A random word.
    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`; 0 when `end` is 0. The bias is below 2^-32 for every `end` that fits in 32 bits.
    pub fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.0.next_u64()) * u128::from(end);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}
