//! Limits what one client network may add in a day: distinct paths, values of dimensions and readers, for each project.
//!
//! Forged beacons cost the tables a row for each new name, and add a visitor to the reports for each new reader. So the endpoint remembers, for each
//! client network (IPv4 address, IPv6 /56), project and day, which names it has sent, and accepts no new ones above a limit. None of this leaves the
//! process. Networks, projects and names are hashes under a secret of the process, 64 bits for (network, project) and 32 bits for a name.
//!
//! The memory is bounded ([`Limits::bytes`]). When it is full, the networks that have sent the fewest names are forgotten, until half of the memory
//! is free. They start over, which costs a usual reader nothing. A forger with very many networks can add up to their number times the limits, which
//! is possible without the bound as well. A restart forgets all, and each node counts separately: `n` nodes allow `n` times as many.

use crate::accept::AcceptedPage;
use crate::client::{ClientAddress, UserAgent};
use schemas::caps::MORE_PATH;
use schemas::proto::Fact;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks are per shard, so that beacons of different networks seldom wait for each other.
const SHARDS: usize = 16;
/// Bytes of one network and project without its names: the map's slot at its usual load, and the smallest set.
const NETWORK_BYTES: usize = 160;
/// Bytes of one name in its set, at the set's usual load.
const NAME_BYTES: usize = 8;

/// What is counted separately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Paths of pages.
    Path,
    /// Hosts of referrers.
    Referrer,
    /// Versions of the documentation.
    Version,
    /// Languages of the documentation.
    Language,
    /// Readers: IP address (IPv6: its /64) and user agent.
    Reader,
}

impl Kind {
    /// The fact of a view that is dropped above the limit.
    pub const fn fact(self) -> Fact {
        match self {
            Kind::Path => Fact::Path,
            Kind::Referrer => Fact::Referrer,
            Kind::Version => Fact::Version,
            Kind::Language => Fact::Language,
            Kind::Reader => Fact::Agent,
        }
    }
}

/// Number of kinds.
const KINDS: usize = 5;

/// How much one client network may add for one project in one day; 0: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Distinct paths.
    pub paths: u32,
    /// Distinct values of each dimension: referrer hosts, versions, languages.
    pub values: u32,
    /// Distinct user agents (with the IPv6 /64 that they came from).
    pub agents: u32,
    /// Memory for all networks, in bytes.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { paths: 2000, values: 200, agents: 512, bytes: 32 << 20 }
    }
}

impl Limits {
    fn of(&self, kind: Kind) -> u32 {
        match kind {
            Kind::Path => self.paths,
            Kind::Referrer | Kind::Version | Kind::Language => self.values,
            Kind::Reader => self.agents,
        }
    }
}

/// What one network has sent for one project today.
#[derive(Default)]
struct SentNames {
    counts: [u32; KINDS],
    /// Names of all kinds; the kind is hashed with the name.
    names: HashSet<u32, foldhash::fast::RandomState>,
}

#[derive(Default)]
struct Shard {
    /// Days since the epoch.
    day: u32,
    networks: HashMap<u64, SentNames, foldhash::fast::RandomState>,
    bytes: usize,
}

/// The names that client networks have sent today.
pub struct PerNetwork {
    limits: Limits,
    secret: foldhash::quality::RandomState,
    shards: Vec<Mutex<Shard>>,
}

impl PerNetwork {
    /// Nothing sent yet.
    pub fn new(limits: Limits) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        PerNetwork { limits, secret: foldhash::quality::RandomState::default(), shards }
    }

    /// Replaces the parts of `page` above a limit: the path by [`MORE_PATH`], a label by an empty one. `reader` identifies the person who reads the
    /// page; none for bots. Returns the kinds above their limits. For [`Kind::Reader`] the view gets the coordinates of its network alone.
    pub fn limit(
        &self,
        network: u64,
        day: u32,
        page: &mut AcceptedPage,
        reader: Option<(&ClientAddress, UserAgent<'_>)>,
    ) -> Vec<Kind> {
        let mut sent = self.of(network, page.project.as_str(), day);
        let mut over = Vec::new();
        if !sent.may_name(Kind::Path, page.path.as_str()) {
            page.path = MORE_PATH.to_owned();
            over.push(Kind::Path);
        }
        let labels = [
            (Kind::Referrer, &mut page.referrer_host),
            (Kind::Version, &mut page.version),
            (Kind::Language, &mut page.language),
        ];
        for (kind, label) in labels {
            if !label.is_empty() && !sent.may_name(kind, label.as_str()) {
                label.clear();
                over.push(kind);
            }
        }
        if let Some((address, agent)) = reader
            && !address.with_network_bytes(|network| sent.may_name(Kind::Reader, (network, agent.bytes())))
        {
            over.push(Kind::Reader);
        }
        over
    }

    /// The names of one client network (as hashed by [`crate::client::ClientAddress::network_hashed`]) for one project on `day` (days since the
    /// epoch). Holds a lock until dropped.
    fn of(&self, network: u64, project: &str, day: u32) -> OfNetwork<'_> {
        let key = self.secret.hash_one((network, project));
        let mut shard = self.shards[(key >> 60) as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner);
        if shard.day != day {
            *shard = Shard { day, ..Shard::default() };
        }
        OfNetwork { all: self, shard, key }
    }
}

/// See [`PerNetwork::of`].
struct OfNetwork<'a> {
    all: &'a PerNetwork,
    shard: MutexGuard<'a, Shard>,
    key: u64,
}

impl OfNetwork<'_> {
    /// Whether `name` may be used: it is among those that the network has sent today, or the limit is not reached yet.
    fn may_name(&mut self, kind: Kind, name: impl std::hash::Hash) -> bool {
        let limit = self.all.limits.of(kind);
        if limit == 0 {
            return true;
        }
        let name = self.all.secret.hash_one((kind as u8, name)) as u32;
        let shard = &mut *self.shard;
        let sent = shard.networks.entry(self.key).or_insert_with(|| {
            shard.bytes += NETWORK_BYTES;
            SentNames::default()
        });
        if sent.names.contains(&name) {
            return true;
        }
        let count = &mut sent.counts[kind as usize];
        if *count >= limit {
            return false;
        }
        *count += 1;
        sent.names.insert(name);
        shard.bytes += NAME_BYTES;
        shard.keep_within(self.all.limits.bytes / SHARDS);
        true
    }
}

impl Shard {
    /// Forgets the networks with the fewest names until half of `limit` is free, if more than `limit` is used.
    fn keep_within(&mut self, limit: usize) {
        if self.bytes <= limit {
            return;
        }
        let bytes = |sent: &SentNames| NETWORK_BYTES + sent.names.len() * NAME_BYTES;
        let mut sizes: Vec<(usize, u64)> = self.networks.iter().map(|(key, sent)| (bytes(sent), *key)).collect();
        sizes.sort_unstable();
        for (bytes, key) in sizes {
            if self.bytes <= limit / 2 {
                break;
            }
            self.networks.remove(&key);
            self.bytes -= bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { paths: 10, values: 3, agents: 0, bytes: 1 << 20 };

    #[test]
    fn a_network_names_so_many_for_each_project_kind_and_day() {
        let sent = PerNetwork::new(LIMITS);
        let named = |network, project, day, kind| {
            (0..50).filter(|name| sent.of(network, project, day).may_name(kind, name)).count()
        };
        assert_eq!(named(1, "docs", 7, Kind::Path), 10);
        assert_eq!(named(1, "docs", 7, Kind::Path), 10, "the same ones again");
        assert_eq!((named(1, "docs", 7, Kind::Version), named(1, "docs", 7, Kind::Referrer)), (3, 3));
        assert_eq!(named(1, "docs", 7, Kind::Reader), 50, "no limit");
        assert_eq!((named(2, "docs", 7, Kind::Path), named(1, "other", 7, Kind::Path)), (10, 10));
        assert!(sent.of(3, "docs", 7).may_name(Kind::Path, 100));
        assert!(!sent.of(1, "docs", 7).may_name(Kind::Path, 100));
        assert!(sent.of(1, "docs", 8).may_name(Kind::Path, 100), "the next day");
    }

    #[test]
    fn memory_is_bounded_and_those_with_the_fewest_names_are_forgotten() {
        let sent = PerNetwork::new(Limits { bytes: 64 << 10, ..LIMITS });
        for name in 0..10 {
            assert!(sent.of(0, "docs", 7).may_name(Kind::Path, name));
        }
        for network in 1..20_000u64 {
            assert!(sent.of(network, "docs", 7).may_name(Kind::Path, "/"));
        }
        for shard in &sent.shards {
            let shard = shard.lock().unwrap();
            let names: usize = shard.networks.values().map(|sent| sent.names.len()).sum();
            assert_eq!(shard.bytes, shard.networks.len() * NETWORK_BYTES + names * NAME_BYTES);
            assert!(shard.bytes <= 4 << 10 && !shard.networks.is_empty());
        }
        assert!(!sent.of(0, "docs", 7).may_name(Kind::Path, 10), "the network with the most names is remembered");
    }
}
