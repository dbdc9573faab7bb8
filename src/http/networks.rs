//! Limits the concurrent connections of one client network, so that one client cannot use up the listener.

use ingest::client::{TrustedProxies, with_client_network};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// At most one warning per interval.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Open connections by client network: an IPv4 address, or an IPv6 /56. Connections of trusted proxies are not counted.
pub(super) struct Networks {
    /// Connections of one network; 0 switches the limit off.
    limit: usize,
    trusted_proxies: TrustedProxies,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Counts are never zero, so there is at most one entry per open connection.
    open: HashMap<u128, usize>,
    /// Connections closed since the last warning.
    refused: u64,
    warned_at: Option<Instant>,
}

/// One open connection of a network.
pub(super) struct NetworkPermit {
    networks: Arc<Networks>,
    /// None if the connection is not counted.
    network: Option<u128>,
}

impl Networks {
    pub(super) fn new(limit: usize, trusted_proxies: TrustedProxies) -> Arc<Self> {
        Arc::new(Networks { limit, trusted_proxies, counts: Mutex::default() })
    }

    /// A permit for one more connection of `peer`, or none if its network has reached the limit.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr, now: Instant) -> Option<NetworkPermit> {
        if self.limit == 0 || self.trusted_proxies.contains(peer) {
            return Some(NetworkPermit { networks: Arc::clone(self), network: None });
        }
        let network = network(peer);
        let mut counts = self.counts();
        let open = counts.open.entry(network).or_insert(0);
        if *open < self.limit {
            *open += 1;
            return Some(NetworkPermit { networks: Arc::clone(self), network: Some(network) });
        }
        counts.refused += 1;
        let refused = counts.refused;
        let is_due = counts.warned_at.is_none_or(|warned| now.duration_since(warned) >= WARNING_INTERVAL);
        if is_due {
            (counts.refused, counts.warned_at) = (0, Some(now));
        }
        drop(counts);
        if is_due {
            // The network is not logged: it would be the IP address of a reader.
            tracing::warn!(
                connections_per_network = self.limit,
                closed_since_last_warning = refused,
                "a client network has as many connections open as `connections_per_network` allows; further ones are \
                 closed. If they come from a proxy of this service, name it in `trusted_proxy`"
            );
        }
        None
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for NetworkPermit {
    fn drop(&mut self) {
        let Some(network) = self.network else { return };
        let mut counts = self.networks.counts();
        if let Some(open) = counts.open.get_mut(&network) {
            *open -= 1;
            if *open == 0 {
                counts.open.remove(&network);
            }
        }
    }
}

/// The client network of an IP address as a number: its bytes, preceded by their count.
fn network(address: IpAddr) -> u128 {
    with_client_network(address, |bytes| {
        bytes.iter().fold(bytes.len() as u128, |number, byte| number << 8 | u128::from(*byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_is_an_ipv4_address_or_an_ipv6_56() {
        assert_eq!(network(ip("192.0.2.1")), network(ip("::ffff:192.0.2.1")));
        assert_ne!(network(ip("192.0.2.1")), network(ip("192.0.2.2")));
        assert_eq!(network(ip("2001:db8:0:ff00::1")), network(ip("2001:db8:0:ffff:9::")));
        assert_ne!(network(ip("2001:db8:0:ff00::1")), network(ip("2001:db8:0:fe00::1")));
        for translated in ["::c000:201", "64:ff9b::c000:201", "::ffff:0:c000:201", "2002:c000:201::1"] {
            assert_eq!(network(ip(translated)), network(ip("192.0.2.1")), "{translated}");
        }
        assert_ne!(network(ip("64:ff9b:1::1")), network(ip("64:ff9b:1::2")), "all 128 bits");
    }

    #[test]
    fn a_network_gets_its_limit_and_no_more_until_a_connection_ends() {
        let now = Instant::now();
        let networks = Networks::new(2, TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]));
        let admit = |address: &str| networks.admit(ip(address), now);
        let first = admit("192.0.2.1").unwrap();
        let _second = admit("192.0.2.1").unwrap();
        assert!(admit("192.0.2.1").is_none());
        assert!(admit("192.0.2.2").is_some(), "another network has its own");
        drop(first);
        assert!(admit("192.0.2.1").is_some());
        let proxied: Vec<_> = (0..10).map(|_| admit("10.1.2.3")).collect();
        assert!(proxied.iter().all(Option::is_some), "a trusted proxy has all its readers' connections");
        drop(proxied);
        assert_eq!(networks.counts().open.len(), 1, "networks without a connection are forgotten");

        let off = Networks::new(0, TrustedProxies::default());
        let permits: Vec<_> = (0..10).map(|_| off.admit(ip("192.0.2.1"), now)).collect();
        assert!(permits.iter().all(Option::is_some));
    }

    #[test]
    fn warnings_are_a_minute_apart() {
        let start = Instant::now();
        let networks = Networks::new(1, TrustedProxies::default());
        let _open = networks.admit(ip("192.0.2.1"), start).unwrap();
        let refused = |seconds| {
            assert!(networks.admit(ip("192.0.2.1"), start + Duration::from_secs(seconds)).is_none());
            networks.counts().refused
        };
        // Zero after a warning.
        assert_eq!([0, 1, 59, 60, 61].map(refused), [0, 1, 2, 0, 1]);
    }
}
