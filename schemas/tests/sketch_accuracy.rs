//! Is the stated error the true one? Crowds of known size, many times over.

use headcount_schemas::sketch::{
    Coordinate, LINEAR_COUNTING_LIMIT, REGISTERS, RELATIVE_ERROR, VisitorSketch,
};

/// A stream of well-mixed hashes (splitmix64: Steele, Lea, Flood 2014).
fn hashes(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed.wrapping_mul(0xD129_0D3C_B6F3_9A4D);
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
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
    Measured {
        bias: sum / trials,
        rmse: (squares / trials).sqrt(),
        stated: stated / trials,
    }
}

/// One relative standard deviation that theory gives a crowd of `readers`.
fn sigma(readers: usize) -> f64 {
    let (n, m) = (readers as f64, REGISTERS as f64);
    if n <= LINEAR_COUNTING_LIMIT {
        (m * ((n / m).exp_m1() - n / m)).sqrt() / n
    } else {
        RELATIVE_ERROR
    }
}

#[test]
#[ignore = "a measurement of some minutes; run with --release --nocapture"]
fn measure_the_estimator() {
    let sizes = [
        1, 10, 100, 1000, 5000, 10_000, 11_000, 11_500, 12_000, 13_000, 14_000, 17_000, 20_000,
        30_000, 50_000, 70_000, 100_000, 1_000_000,
    ];
    println!("readers trials bias% rmse% theory% stated%");
    for readers in sizes {
        let trials = (60_000_000 / readers).clamp(100, 2000) as u32;
        let Measured { bias, rmse, stated } = measure(readers, trials);
        let [bias, rmse, theory, stated] = [bias, rmse, sigma(readers), stated].map(|x| 100.0 * x);
        println!("{readers} {trials} {bias:+.4} {rmse:.4} {theory:.4} {stated:.4}");
    }
}
