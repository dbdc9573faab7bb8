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
