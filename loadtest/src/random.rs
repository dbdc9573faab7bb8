//! Deterministic randomness: the same seed results in the same load on every machine and with every version of any crate.

/// The odd constant of SplitMix64 (2^64 divided by the golden ratio).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The output function of SplitMix64. A bijection of 64 bits: different inputs have different outputs.
#[must_use]
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// SplitMix64 (Steele, Lea and Flood, 2014): eight bytes of state, a few multiplications a number.
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// A stream that depends on nothing but `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Number `n` of the stream of `seed`, without computing earlier numbers. For one seed, different `n` result in different numbers, so it is
    /// suitable for ids that must not collide.
    #[must_use]
    pub fn nth(seed: u64, n: u64) -> u64 {
        mix(seed.wrapping_add(n.wrapping_add(1).wrapping_mul(GOLDEN)))
    }

    /// The next number of the stream.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// A number in `0..bound`. The bias is at most `bound / 2^64`. `bound` 0 returns 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product: no division, and no bias worth the loop that would remove it.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `0.0..1.0`, a multiple of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Ranks `0..n` with probability proportional to `1 / (rank + 1)^exponent`: few pages get most of the views.
#[derive(Debug, Clone)]
pub struct Zipf {
    /// Probability of a rank or a lower one; ascending, the last is 1.
    cumulative: Vec<f64>,
}

impl Zipf {
    /// A sampler of `n` ranks (at least one). Memory: 8 bytes a rank.
    #[must_use]
    pub fn new(n: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=n.max(1))
            .map(|rank| {
                sum += (rank as f64).powf(-exponent);
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|c| *c /= sum);
        Self { cumulative }
    }

    /// A rank among the first `ranks` (at least one, at most all), with the same proportions among these.
    pub fn sample_among(&self, ranks: usize, rng: &mut SplitMix64) -> usize {
        let first = &self.cumulative[..ranks.clamp(1, self.cumulative.len())];
        let u = rng.unit() * first[first.len() - 1];
        first.partition_point(|c| *c <= u).min(first.len() - 1)
    }

    /// A rank, 0 being the most frequent.
    pub fn sample(&self, rng: &mut SplitMix64) -> usize {
        let u = rng.unit();
        self.cumulative.partition_point(|c| *c <= u).min(self.cumulative.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splitmix_is_the_published_sequence() {
        // The first outputs for seed 1234567 in the reference implementation's test vectors.
        let mut rng = SplitMix64::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
        assert_eq!(SplitMix64::nth(1_234_567, 1), 3_203_168_211_198_807_973);
    }

    #[test]
    fn below_stays_below_and_reaches_every_number() {
        let mut rng = SplitMix64::new(7);
        let mut seen = [false; 30];
        for _ in 0..5_000 {
            seen[rng.below(30) as usize] = true;
        }
        assert!(seen.iter().all(|s| *s));
        assert_eq!(rng.below(0), 0);
    }

    #[test]
    fn zipf_ranks_fall_off_as_one_over_rank() {
        let zipf = Zipf::new(1_000, 1.0);
        let mut rng = SplitMix64::new(42);
        let draws = 400_000;
        let mut counts = vec![0u32; 1_000];
        for _ in 0..draws {
            counts[zipf.sample(&mut rng)] += 1;
        }
        let harmonic: f64 = (1..=1_000).map(|r| 1.0 / f64::from(r)).sum();
        for rank in [1u32, 2, 3, 10, 50] {
            let expected = f64::from(draws) / (f64::from(rank) * harmonic);
            let got = f64::from(counts[rank as usize - 1]);
            // Five standard deviations of a count.
            assert!((got - expected).abs() < 5.0 * expected.sqrt(), "rank {rank}: {got} drawn, {expected} expected");
        }
    }

    #[test]
    fn fewer_ranks_keep_their_proportions() {
        let (zipf, mut rng) = (Zipf::new(1_000, 1.0), SplitMix64::new(9));
        let mut counts = [0u32; 3];
        for _ in 0..11_000 {
            counts[zipf.sample_among(3, &mut rng)] += 1;
        }
        // 1 : 1/2 : 1/3, that is 6,000, 3,000 and 2,000; five standard deviations.
        for (count, expected) in counts.into_iter().zip([6_000f64, 3_000.0, 2_000.0]) {
            assert!((f64::from(count) - expected).abs() < 5.0 * expected.sqrt(), "{counts:?}");
        }
        assert_eq!(zipf.sample_among(0, &mut rng), 0);
    }

    #[test]
    fn zipf_of_one_rank_always_draws_it() {
        let mut rng = SplitMix64::new(1);
        let zipf = Zipf::new(0, 1.0);
        assert!((0..100).all(|_| zipf.sample(&mut rng) == 0));
    }
}
