//! Is the stated error the true one? Crowds of known size, many times over, from fixed seeds.
//!
//! `measure_the_estimator` printed this, in percent of the true number (bias ± its standard error, root mean square):
//!
//! | readers | crowds | bias | rmse | theory |
//! |--:|--:|--:|--:|--:|
//! | 10 | 2000 | +0.00 ± 0.01 | 0.55 | 0.55 |
//! | 1000 | 2000 | +0.03 ± 0.01 | 0.56 | 0.56 |
//! | 10,000 | 2000 | −0.01 ± 0.01 | 0.60 | 0.61 |
//! | 11,500 | 2000 | +0.00 ± 0.01 | 0.65 | 0.63 by linear counting, 0.81 above |
//! | 12,000 | 2000 | +0.10 ± 0.01 | 0.61 | 0.81 |
//! | 20,000 | 2000 | +0.10 ± 0.01 | 0.63 | 0.81 |
//! | 50,000 | 1200 | +0.07 ± 0.02 | 0.70 | 0.81 |
//! | 70,000 | 857 | +0.14 ± 0.02 | 0.72 | 0.81 |
//! | 100,000 | 600 | +0.03 ± 0.03 | 0.74 | 0.81 |
//! | 1,000,000 | 100 | +0.00 ± 0.08 | 0.80 | 0.81 |
//!
//! Two things differ from theory. Where the crate corrects bias (11,500 to 81,920 readers) about +0.1 % of it remains,
//! which no number of trials averages away. And the error is smaller there than the 0.81 % we state.

use headcount_schemas::sketch::{Coordinate, LINEAR_COUNTING_LIMIT, REGISTERS, RELATIVE_ERROR, VisitorSketch};

#[allow(dead_code, reason = "the load tester uses the rest")]
#[path = "../../loadtest/src/random.rs"]
mod random;

/// A stream of well-mixed hashes.
fn hashes(seed: u64) -> impl Iterator<Item = u64> {
    let mut generator = random::SplitMix64::new(seed.wrapping_mul(0xD129_0D3C_B6F3_9A4D));
    std::iter::repeat_with(move || generator.next_u64())
}

struct Measured {
    bias: f64,
    rmse: f64,
    stated: f64,
}

/// Relative errors of `trials` crowds of `readers`.
fn measure(readers: usize, trials: u32) -> Measured {
    let (mut sum, mut squares, mut stated) = (0.0, 0.0, 0.0);
    for trial in 0..trials {
        let mut sketch = VisitorSketch::new();
        for hash in hashes(((readers as u64) << 24) + u64::from(trial)).take(readers) {
            sketch.insert(Coordinate::from_hash(hash));
        }
        let estimate = sketch.estimate();
        let error = estimate.value / readers as f64 - 1.0;
        sum += error;
        squares += error * error;
        stated += estimate.error;
    }
    let trials = f64::from(trials);
    Measured { bias: sum / trials, rmse: (squares / trials).sqrt(), stated: stated / trials }
}

/// One relative standard deviation of linear counting (Whang et al. 1990).
fn linear_sigma(readers: usize) -> f64 {
    let (n, m) = (readers as f64, REGISTERS as f64);
    (m * ((n / m).exp_m1() - n / m)).sqrt() / n
}

/// How far above σ a root mean square of `trials` errors may lie, by chance, within three standard deviations: that of
/// a root mean square is σ·√((κ−1)/4T). A Gaussian error has kurtosis κ = 3 and so σ/√(2T).
fn rmse_allowance(trials: u32, kurtosis: f64) -> f64 {
    1.0 + 3.0 * ((kurtosis - 1.0) / (4.0 * f64::from(trials))).sqrt()
}

#[test]
fn up_to_the_limit_the_error_is_that_of_linear_counting() {
    for (readers, trials) in [(10, 10_000), (100, 2000), (1000, 600), (5000, 300), (10_000, 200), (11_000, 200)] {
        let Measured { bias, rmse, stated } = measure(readers, trials);
        let sigma = linear_sigma(readers);
        // A small crowd errs by its few shared registers, whose number is Poisson of mean λ: kurtosis 3 + 1/λ.
        let shared = (readers * readers) as f64 / (2 * REGISTERS) as f64;
        let allowed = sigma * rmse_allowance(trials, 3.0 + 1.0 / shared);
        assert!(rmse < allowed, "{readers} readers: rmse {rmse} ≥ {allowed}");
        let allowed = 3.0 * sigma / f64::from(trials).sqrt();
        assert!(bias.abs() < allowed, "{readers} readers: bias {bias}, allowed {allowed}");
        assert!((stated / sigma - 1.0).abs() < 0.01, "{readers} readers: {stated}, not {sigma}");
    }
}

#[test]
fn one_reader_is_one() {
    // m·ln(m/(m−1)) − 1 = 1/2m: neither chance nor a shared register has a part in it.
    let Measured { bias, rmse, .. } = measure(1, 100);
    let expected = 0.5 / REGISTERS as f64;
    assert!((bias - expected).abs() < 1e-8 && (rmse - expected).abs() < 1e-8, "{bias}, {rmse}");
}

/// What the crate's bias correction may leave: measured above are up to 0.14 % ± 0.02 %, so three of its standard errors
/// more, a quarter of the stated error. Below the limit and far above it nothing remains.
const REMAINING_BIAS: f64 = 0.002;

fn above_the_limit(cases: &[(usize, u32)], remaining_bias: f64) {
    for &(readers, trials) in cases {
        let Measured { bias, rmse, stated } = measure(readers, trials);
        let allowed = RELATIVE_ERROR * rmse_allowance(trials, 3.0);
        assert!(rmse < allowed, "{readers} readers: rmse {rmse} ≥ {allowed}");
        let allowed = 3.0 * RELATIVE_ERROR / f64::from(trials).sqrt() + remaining_bias;
        assert!(bias.abs() < allowed, "{readers} readers: bias {bias}, allowed {allowed}");
        let off = (stated / RELATIVE_ERROR - 1.0).abs();
        assert!(off < 1e-9 || readers == 11_500, "{readers} readers: stated {stated}");
    }
}

#[test]
fn around_and_above_the_limit_the_error_is_below_the_stated_one() {
    // At 11,500 each crowd falls on either side.
    above_the_limit(&[(11_500, 300), (12_000, 300), (20_000, 300)], REMAINING_BIAS);
}

#[test]
fn within_the_correction_the_error_is_below_the_stated_one() {
    above_the_limit(&[(50_000, 150), (70_000, 100)], REMAINING_BIAS);
}

#[test]
fn large_crowds_have_the_stated_error() {
    above_the_limit(&[(100_000, 100), (1_000_000, 20)], 0.0);
}

#[test]
#[ignore = "a measurement of half a minute; run with --release --nocapture"]
fn measure_the_estimator() {
    let sizes = [
        1, 10, 100, 1000, 5000, 10_000, 11_000, 11_500, 12_000, 13_000, 14_000, 17_000, 20_000, 30_000, 50_000, 70_000,
        100_000, 1_000_000,
    ];
    println!("readers trials bias% rmse% theory% stated%");
    for readers in sizes {
        let trials = (60_000_000 / readers).clamp(100, 2000) as u32;
        let Measured { bias, rmse, stated } = measure(readers, trials);
        let small = readers as f64 <= LINEAR_COUNTING_LIMIT;
        let theory = if small { linear_sigma(readers) } else { RELATIVE_ERROR };
        let [bias, rmse, theory, stated] = [bias, rmse, theory, stated].map(|x| 100.0 * x);
        println!("{readers} {trials} {bias:+.4} {rmse:.4} {theory:.4} {stated:.4}");
    }
}
