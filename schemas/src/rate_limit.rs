//! Token buckets: a sustained rate with bursts, for each client, project or token.
//!
//! ```
//! use headcount_schemas::rate_limit::{Rate, TokenBuckets};
//!
//! let buckets = TokenBuckets::new(Rate { per_second: 0.5, burst: 1.0 });
//! assert_eq!(buckets.take("client", 0), Ok(()));
//! assert_eq!(buckets.take("client", 0), Err(2), "seconds until the next token");
//! ```

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::sync::{Mutex, PoisonError};

/// Locks are per shard, so that requests of different clients seldom wait for each other.
const SHARDS: usize = 16;
/// Maximum buckets of one shard before full ones are dropped; a full bucket is equivalent to a fresh one.
const SHARD_BUCKETS: usize = 8192;

/// Sustained rate and burst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Requests per second; 0 switches the limit off.
    pub per_second: f64,
    /// Maximum burst of requests.
    pub burst: f64,
}

impl Rate {
    /// No limit.
    pub const OFF: Rate = Rate { per_second: 0.0, burst: 0.0 };
}

struct Bucket {
    tokens: f64,
    at_ms: i64,
}

/// Buckets keyed by a hash under a random secret that exists in memory only, so that no key can be traced back.
pub struct TokenBuckets {
    rate: Rate,
    secret: foldhash::quality::RandomState,
    shards: Vec<Mutex<HashMap<u64, Bucket, foldhash::fast::RandomState>>>,
}

impl TokenBuckets {
    /// Buckets of one rate.
    pub fn new(rate: Rate) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        // With less than one token nothing would ever pass.
        let rate = Rate { burst: rate.burst.max(1.0), ..rate };
        TokenBuckets { rate, secret: foldhash::quality::RandomState::default(), shards }
    }

    /// Takes one token for `key` at `now_ms`.
    ///
    /// # Errors
    /// None is left: the seconds until there is one, at least 1.
    pub fn take(&self, key: impl Hash, now_ms: i64) -> Result<(), u64> {
        let rate = self.rate;
        if rate.per_second <= 0.0 {
            return Ok(());
        }
        let hash = self.secret.hash_one(key);
        let shard = &self.shards[(hash >> 60) as usize % SHARDS];
        let mut buckets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let refilled = |bucket: &Bucket| {
            let elapsed = (now_ms - bucket.at_ms).max(0) as f64 / 1000.0;
            (bucket.tokens + elapsed * rate.per_second).min(rate.burst)
        };
        if buckets.len() >= SHARD_BUCKETS && !buckets.contains_key(&hash) {
            buckets.retain(|_, bucket| refilled(bucket) < rate.burst);
            // Under a flood from many IP addresses, forgetting is fairer than growing without bound.
            if buckets.len() >= SHARD_BUCKETS {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(hash).or_insert(Bucket { tokens: rate.burst, at_ms: now_ms });
        (bucket.tokens, bucket.at_ms) = (refilled(bucket), now_ms);
        if bucket.tokens < 1.0 {
            return Err(((1.0 - bucket.tokens) / rate.per_second).ceil().max(1.0) as u64);
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_applies() {
        let buckets = TokenBuckets::new(Rate { per_second: 10.0, burst: 5.0 });
        assert_eq!((0..20).filter(|_| buckets.take("a", 0).is_ok()).count(), 5);
        assert_eq!(buckets.take("b", 0), Ok(()), "another client has a bucket of its own");
        assert_eq!((0..100).filter(|i| buckets.take("a", i * 10).is_ok()).count(), 9);
        let off = TokenBuckets::new(Rate::OFF);
        assert!((0..1000).all(|_| off.take("a", 0).is_ok()));
    }

    #[test]
    fn an_empty_bucket_returns_the_seconds_to_wait() {
        let buckets = TokenBuckets::new(Rate { per_second: 0.5, burst: 3.0 });
        assert_eq!((0..5).filter(|_| buckets.take(1, 0).is_ok()).count(), 3);
        assert_eq!(buckets.take(1, 0), Err(2));
        assert_eq!(buckets.take(1, 1_500), Err(1));
        assert_eq!(buckets.take(1, 2_000), Ok(()));
    }

    #[test]
    fn a_rate_of_one_in_twenty_seconds_lets_one_pass() {
        let buckets = TokenBuckets::new(Rate { per_second: 0.05, burst: 0.5 });
        assert_eq!(buckets.take(1, 0), Ok(()));
        assert_eq!(buckets.take(1, 0), Err(20));
        assert_eq!(buckets.take(1, 20_000), Ok(()));
    }

    #[test]
    fn memory_is_bounded() {
        let buckets = TokenBuckets::new(Rate { per_second: 1.0, burst: 2.0 });
        for client in 0..SHARDS * SHARD_BUCKETS * 2 {
            let _ = buckets.take(client, 0);
        }
        assert!(buckets.shards.iter().all(|shard| shard.lock().unwrap().len() <= SHARD_BUCKETS));
    }
}
