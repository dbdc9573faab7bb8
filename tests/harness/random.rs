//! Numbers without pattern, the same in every run.

#[allow(dead_code, reason = "the load tester uses the rest")]
#[path = "../../loadtest/src/random.rs"]
mod generator;

pub(crate) use generator::{SplitMix64, mix as mixed};

/// A seed's pseudo-random number.
pub fn mix(seed: u64) -> u64 {
    SplitMix64::nth(0, seed)
}
