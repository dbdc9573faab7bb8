//! A shuffle of `0..n` without memory: the image of a number is computed, not looked up.
//!
//! Four rounds of a Feistel network over the rectangle `high × low`, the smallest near square with at least `n` cells. An image outside `0..n` is
//! permuted again until it is inside (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Each round adds to one coordinate a hash of
//! the other, modulo its length, and so can be undone. It is a bijection of the rectangle, and the repetition makes it one of `0..n`.

use crate::random::mix;

const ROUNDS: u64 = 4;

/// A bijection of `0..n`, decided by a seed.
#[derive(Debug, Clone, Copy)]
pub struct Shuffle {
    n: u32,
    high: u32,
    low: u32,
    seed: u64,
}

impl Shuffle {
    /// The shuffle of `0..n` that `seed` decides.
    #[must_use]
    pub fn new(n: u32, seed: u64) -> Self {
        // At most 65,536, so that neither coordinate overflows.
        let low = f64::from(n).sqrt().ceil().max(1.0) as u32;
        Self { n, high: n.div_ceil(low).max(1), low, seed }
    }

    /// The image of `of`, which is below `n`.
    #[must_use]
    pub fn image(&self, of: u32) -> u32 {
        debug_assert!(of < self.n, "{of} is not below {}", self.n);
        let mut at = of;
        loop {
            let (mut high, mut low) = (at / self.low, at % self.low);
            for round in 0..ROUNDS {
                if round % 2 == 0 {
                    high = shifted(high, self.hash(round, low), self.high);
                } else {
                    low = shifted(low, self.hash(round, high), self.low);
                }
            }
            at = high * self.low + low;
            if at < self.n {
                return at;
            }
        }
    }

    fn hash(&self, round: u64, of: u32) -> u32 {
        mix(self.seed ^ (round << 60) ^ u64::from(of)) as u32
    }
}

/// `(at + hash) mod length`, with `at` below `length`.
fn shifted(at: u32, hash: u32, length: u32) -> u32 {
    let by = ((u64::from(hash) * u64::from(length)) >> 32) as u32;
    let sum = at + by;
    if sum >= length { sum - length } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_the_image_of_exactly_one() {
        for n in (1..200).chain([1_000, 65_537, 100_003]) {
            let shuffle = Shuffle::new(n, 7);
            let mut images: Vec<u32> = (0..n).map(|of| shuffle.image(of)).collect();
            images.sort_unstable();
            assert!(images.iter().copied().eq(0..n), "{n}");
        }
    }

    #[test]
    fn neighbours_are_parted_and_seeds_differ() {
        let (one, other) = (Shuffle::new(1 << 20, 1), Shuffle::new(1 << 20, 2));
        let far = |a: u32, b: u32| a.abs_diff(b) > 1 << 10;
        let parted = (0..10_000).filter(|&i| far(one.image(i), one.image(i + 1))).count();
        let differ = (0..10_000).filter(|&i| far(one.image(i), other.image(i))).count();
        assert!(parted > 9_900 && differ > 9_900, "{parted} {differ}");
        // The mean of the images of the first tenth is that of all: the first numbers are not mapped to a special part.
        let mean = (0..100_000).map(|i| f64::from(one.image(i))).sum::<f64>() / 100_000.0;
        assert!((mean / f64::from(1 << 19) - 1.0).abs() < 0.02, "{mean}");
    }
}
