//! Seeds from the kernel's pool (`getrandom`), which waits until the pool was ready once since boot.

use crate::entropy::Entropy;

/// The kernel's pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelPool;

impl Entropy for KernelPool {
    /// A machine that gives no random bytes at all must not run with predictable ids and ports: the process ends.
    fn seed(&mut self, seed: &mut [u8; 32]) {
        if let Err(error) = getrandom::fill(seed) {
            panic!("the kernel gives no random bytes: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::Rng;

    #[test]
    fn seeds_differ() {
        let (mut a, mut b) = (Rng::new(&mut KernelPool), Rng::new(&mut KernelPool));
        assert_ne!(a.uuid(), b.uuid());
    }
}
