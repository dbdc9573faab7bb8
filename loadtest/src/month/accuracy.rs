//! Estimates of visitors against the truth: whether their errors match the theory.

use schemas::sketch::{LINEAR_COUNTING_LIMIT, REGISTERS, RELATIVE_ERROR};
use serde::Serialize;

/// Classes of projects by their true visitors; each starts at the end of the previous one.
const CLASSES: [u64; 6] = [1, 10, 100, 1_000, LINEAR_COUNTING_LIMIT as u64, u64::MAX];

/// Estimates of the visitors of projects of one size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Accuracy {
    /// Lowest number of true visitors.
    pub from: u64,
    /// Highest number of true visitors, inclusive.
    pub to: u64,
    /// Projects.
    pub projects: u64,
    /// Relative error of half of them at most.
    pub p50: f64,
    /// Of nineteen in twenty.
    pub p95: f64,
    /// Of all.
    pub max: f64,
    /// Root of the mean square of the relative error.
    pub rms: f64,
    /// The theoretical error: linear counting's √(m(eᵗ − t − 1))/n up to 11,500 visitors, 1.04/√m above.
    pub theory: f64,
    /// Whether the error matches the theory, as far as this few projects can show.
    pub holds: bool,
}

/// One standard deviation of the estimate of `n` visitors, relative.
fn theory(n: f64) -> f64 {
    let m = REGISTERS as f64;
    let load = n / m;
    if n > LINEAR_COUNTING_LIMIT { RELATIVE_ERROR } else { (m * (load.exp_m1() - load)).sqrt() / n }
}

/// Compares pairs of true visitors and estimate.
#[must_use]
pub fn accuracy(pairs: &[(u64, f64)]) -> Vec<Accuracy> {
    let mut classes = Vec::new();
    for bounds in CLASSES.windows(2) {
        let of: Vec<&(u64, f64)> = pairs.iter().filter(|(n, _)| (bounds[0]..bounds[1]).contains(n)).collect();
        if of.is_empty() {
            continue;
        }
        let mut errors: Vec<f64> = of.iter().map(|(n, estimate)| (estimate - *n as f64).abs() / *n as f64).collect();
        errors.sort_by(f64::total_cmp);
        let at = |share: f64| errors[((errors.len() as f64 * share).ceil() as usize).clamp(1, errors.len()) - 1];
        let mean = |of: &dyn Fn(f64, f64) -> f64| {
            pairs_mean(errors.len(), of_class(pairs, bounds[0], bounds[1]).map(|(n, estimate)| of(n, estimate)))
        };
        let rms = mean(&|n, estimate| ((estimate - n) / n).powi(2)).sqrt();
        let expected = mean(&|n, _| theory(n).powi(2)).sqrt();
        // In standard deviations: 1 if the estimates match the theory. Figures are whole numbers, which adds the error of rounding. The mean of k
        // squares varies by √(2/k) of itself; errors of small crowds are rare and whole, so their squares vary more.
        let strayed = mean(&|n, estimate| {
            let beyond_rounding = ((estimate - n).abs() - 0.5).max(0.0);
            (beyond_rounding / (theory(n) * n)).powi(2)
        });
        let kurtosis = mean(&|n, _| 2.0 + 1.0 / (theory(n) * n).powi(2));
        classes.push(Accuracy {
            from: of.iter().map(|(n, _)| *n).min().unwrap_or(0),
            to: of.iter().map(|(n, _)| *n).max().unwrap_or(0),
            projects: of.len() as u64,
            p50: at(0.5),
            p95: at(0.95),
            max: at(1.0),
            rms,
            theory: expected,
            holds: strayed <= 1.0 + 4.0 * (kurtosis / of.len() as f64).sqrt(),
        });
    }
    classes
}

fn of_class(pairs: &[(u64, f64)], from: u64, below: u64) -> impl Iterator<Item = (f64, f64)> + '_ {
    pairs.iter().filter(move |(n, _)| (from..below).contains(n)).map(|(n, estimate)| (*n as f64, *estimate))
}

fn pairs_mean(count: usize, values: impl Iterator<Item = f64>) -> f64 {
    values.sum::<f64>() / count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{SplitMix64, mix};
    use schemas::{Coordinate, VisitorSketch};

    /// True visitors and estimate of crowds with evenly distributed hashes.
    fn crowds(sizes: impl Iterator<Item = u64>) -> Vec<(u64, f64)> {
        sizes
            .enumerate()
            .map(|(crowd, n)| {
                let mut sketch = VisitorSketch::new();
                let mut rng = SplitMix64::new(mix(crowd as u64 + 9));
                for _ in 0..n {
                    sketch.insert(Coordinate::from_hash(rng.next_u64()));
                }
                (n, sketch.estimate().value.round())
            })
            .collect()
    }

    #[test]
    fn true_sketches_hold_and_lossy_ones_do_not() {
        let pairs = crowds((1..400).chain((0..60).map(|n| 1_000 + n * 150)).chain([20_000, 50_000]));
        let told = accuracy(&pairs);
        assert!(told.len() >= 4 && told.iter().all(|class| class.holds), "{told:#?}");
        // A wrong design: one visitor in fifty is counted twice.
        let wrong: Vec<(u64, f64)> = pairs.iter().map(|(n, estimate)| (*n, estimate * 1.02)).collect();
        assert!(accuracy(&wrong).iter().filter(|class| class.from >= 1_000).any(|class| !class.holds));
        // Someone forgets a visitor of each.
        let wrong: Vec<(u64, f64)> = pairs.iter().map(|(n, estimate)| (*n, estimate - 1.0)).collect();
        assert!(accuracy(&wrong).iter().any(|class| !class.holds));
    }

    #[test]
    fn the_theory_is_continuous_enough_and_as_stated() {
        assert!((theory(11_500.0) - 0.0063).abs() < 0.0001, "{}", theory(11_500.0));
        assert!((theory(1e6) - 0.008_125).abs() < 1e-6);
        assert!((theory(100.0) - 0.0055).abs() < 0.0003, "{}", theory(100.0));
    }
}
