//! Token buckets: the request rate of each caller.

use crate::turns::CallerKey;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::{Mutex, PoisonError};

/// Most buckets before full ones are dropped; a full bucket equals a new one.
const BUCKETS: usize = 65_536;

/// Requests per second, and the burst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate {
    /// 0 switches the limit off.
    pub(super) per_second: f64,
    pub(super) burst: f64,
}

struct Bucket {
    left: f64,
    at_ms: i64,
}

/// One bucket per caller. Callers are identified by a hash under a random secret that exists in memory only.
pub(super) struct Buckets {
    rate: Rate,
    secret: foldhash::quality::RandomState,
    buckets: Mutex<HashMap<u64, Bucket, foldhash::fast::RandomState>>,
}

impl Buckets {
    pub(super) fn new(rate: Rate) -> Self {
        Buckets { rate, secret: foldhash::quality::RandomState::default(), buckets: Mutex::default() }
    }

    /// Takes one for `caller`. If none is left, returns the seconds until there is one.
    pub(super) fn take(&self, caller: CallerKey, now_ms: i64) -> Result<(), u64> {
        let rate = self.rate;
        if rate.per_second <= 0.0 {
            return Ok(());
        }
        let hash = self.secret.hash_one(caller);
        let refilled = |bucket: &Bucket| {
            let elapsed = (now_ms - bucket.at_ms).max(0) as f64 / 1000.0;
            (bucket.left + elapsed * rate.per_second).min(rate.burst)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS && !buckets.contains_key(&hash) {
            buckets.retain(|_, bucket| refilled(bucket) < rate.burst);
            // Under a flood from many networks, forgetting is fairer than growing without bound.
            if buckets.len() >= BUCKETS {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(hash).or_insert(Bucket { left: rate.burst, at_ms: now_ms });
        (bucket.left, bucket.at_ms) = (refilled(bucket), now_ms);
        if bucket.left < 1.0 {
            return Err(((1.0 - bucket.left) / rate.per_second).ceil().max(1.0) as u64);
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_rate_holds_and_the_wait_is_told() {
        let buckets = Buckets::new(Rate { per_second: 0.5, burst: 3.0 });
        let (one, other) = (CallerKey::Network(1), CallerKey::Network(2));
        assert_eq!((0..5).filter(|_| buckets.take(one, 0).is_ok()).count(), 3);
        assert_eq!(buckets.take(one, 0), Err(2));
        assert_eq!(buckets.take(one, 1_500), Err(1));
        assert_eq!(buckets.take(one, 2_000), Ok(()));
        assert_eq!(buckets.take(other, 0), Ok(()), "another caller has a bucket of its own");
        let off = Buckets::new(Rate { per_second: 0.0, burst: 0.0 });
        assert!((0..1000).all(|_| off.take(one, 0).is_ok()));
    }

    #[test]
    fn memory_is_bounded() {
        let buckets = Buckets::new(Rate { per_second: 1.0, burst: 2.0 });
        for client in 0..3 * BUCKETS as u64 {
            let _ = buckets.take(CallerKey::Network(client), 0);
        }
        assert!(buckets.buckets.lock().unwrap().len() <= BUCKETS);
    }
}
