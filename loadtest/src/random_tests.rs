//! Tests of [`crate::random`], in a file of their own: tests and benchmarks of other crates include that module by its path.

use crate::random::{SplitMix64, Zipf};

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
