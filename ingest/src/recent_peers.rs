//! Detects whether one untrusted proxy sends most beacons: then all its readers count as one, and the operator should know.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Beacons that are remembered.
const BEACONS: usize = 1000;

/// The last beacons: of each the peer's hash under the process's secret, if the peer is no trusted proxy and set `X-Forwarded-For`, else 0.
/// In memory only.
pub(crate) struct RecentPeers {
    beacons: Box<[AtomicU64]>,
    next: AtomicUsize,
}

impl Default for RecentPeers {
    fn default() -> Self {
        RecentPeers { beacons: (0..BEACONS).map(|_| AtomicU64::new(0)).collect(), next: AtomicUsize::new(0) }
    }
}

impl RecentPeers {
    /// Notes one beacon.
    pub(crate) fn note(&self, untrusted_proxy: Option<u64>) {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % BEACONS;
        self.beacons[at].store(untrusted_proxy.map_or(0, |hash| hash.max(1)), Ordering::Relaxed);
    }

    /// Whether at least half of the last 1,000 beacons came from one such peer.
    pub(crate) fn has_untrusted_proxy(&self) -> bool {
        let mut counts: HashMap<u64, usize> = HashMap::new();
        for beacon in &self.beacons {
            *counts.entry(beacon.load(Ordering::Relaxed)).or_default() += 1;
        }
        counts.into_iter().any(|(hash, count)| hash != 0 && 2 * count >= BEACONS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_last_thousand_from_one_peer_is_noticed() {
        let peers = RecentPeers::default();
        for reader in 0..2000 {
            peers.note(Some(reader));
            peers.note(None);
        }
        assert!(!peers.has_untrusted_proxy(), "many peers, each once");
        for _ in 0..499 {
            peers.note(Some(7));
        }
        assert!(!peers.has_untrusted_proxy(), "499 of 1,000");
        peers.note(Some(7));
        assert!(peers.has_untrusted_proxy(), "500 of 1,000");
        for _ in 0..501 {
            peers.note(None);
        }
        assert!(!peers.has_untrusted_proxy(), "it left");
    }
}
