//! Token buckets: how much one client, or one project, may send.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Mutex;

const SHARDS: usize = 16;
/// Maximum buckets of one shard before full ones are dropped; a full bucket is equivalent to a fresh one.
const SHARD_BUCKETS: usize = 8192;

/// Sustained rate and burst, in beacons (a second).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Beacons a second; 0 switches the limit off.
    pub per_second: f64,
    /// Maximum burst of beacons.
    pub burst: f64,
}

struct Bucket {
    tokens: f64,
    at_ms: i64,
}

/// Buckets keyed by a hash under a random secret that exists in memory only, so that no key can be traced back.
pub struct Buckets {
    rate: Rate,
    secret: foldhash::quality::RandomState,
    shards: Vec<Mutex<HashMap<u64, Bucket, foldhash::fast::RandomState>>>,
}

impl Buckets {
    /// Buckets of one rate.
    pub fn new(rate: Rate) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Buckets { rate, secret: foldhash::quality::RandomState::default(), shards }
    }

    /// Takes one token for `key` at `now_ms`; false if none is left.
    pub fn take(&self, key: &[u8], now_ms: i64) -> bool {
        if self.rate.per_second <= 0.0 {
            return true;
        }
        let hash = self.secret.hash_one(key);
        let shard = &self.shards[(hash >> 60) as usize % SHARDS];
        let mut buckets = shard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let rate = self.rate;
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
        bucket.tokens = refilled(bucket);
        bucket.at_ms = now_ms;
        if bucket.tokens < 1.0 {
            return false;
        }
        bucket.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let buckets = Buckets::new(Rate { per_second: 10.0, burst: 5.0 });
        assert_eq!((0..20).filter(|_| buckets.take(b"a", 0)).count(), 5);
        assert!(buckets.take(b"b", 0), "another client has its own bucket");
        assert_eq!((0..100).filter(|i| buckets.take(b"a", i * 10)).count(), 9);
        let off = Buckets::new(Rate { per_second: 0.0, burst: 0.0 });
        assert!((0..1000).all(|_| off.take(b"a", 0)));
    }

    #[test]
    fn memory_is_bounded() {
        let buckets = Buckets::new(Rate { per_second: 1.0, burst: 2.0 });
        for client in 0..(SHARDS * SHARD_BUCKETS * 2) as u64 {
            buckets.take(&client.to_le_bytes(), 0);
        }
        assert!(buckets.shards.iter().all(|shard| shard.lock().unwrap().len() <= SHARD_BUCKETS));
    }
}
