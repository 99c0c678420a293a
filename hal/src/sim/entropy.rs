//! Seeds made from one number, so that a run can be repeated.

use crate::entropy::Entropy;

/// A source that gives the same seeds for the same number.
#[derive(Clone, Debug)]
pub struct SimEntropy(u64);

impl SimEntropy {
    /// From a test's seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }
}

impl Entropy for SimEntropy {
    fn seed(&mut self, seed: &mut [u8; 32]) {
        for part in seed.chunks_exact_mut(8) {
            part.copy_from_slice(&split_mix(&mut self.0).to_le_bytes());
        }
    }
}

/// The next word of SplitMix64 (Steele, Lea, Flood 2014): near states give unrelated words.
pub fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut word = *state;
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Rng;

    #[test]
    fn the_same_seed_gives_the_same_run() {
        let run = |seed| {
            let mut rng = Rng::new(&mut SimEntropy::new(seed));
            (rng.uuid(), rng.word(), rng.below(10))
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1).0, run(2).0);
    }

    #[test]
    fn a_source_gives_each_asker_another_seed() {
        let mut source = SimEntropy::new(0);
        assert_ne!(Rng::new(&mut source).uuid(), Rng::new(&mut source).uuid());
    }

    #[test]
    fn numbers_stay_below_their_end() {
        let mut rng = Rng::new(&mut SimEntropy::new(3));
        assert_eq!(rng.below(0), 0);
        assert_eq!(rng.below(1), 0);
        let mut seen = [false; 7];
        for _ in 0..1000 {
            seen[usize::try_from(rng.below(7)).unwrap()] = true;
        }
        assert_eq!(seen, [true; 7]);
        let id = rng.uuid();
        assert_eq!((id[6] >> 4, id[8] >> 6), (4, 2));
    }
}
