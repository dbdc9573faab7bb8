//! Visitor coordinates: what remains of a reader once the endpoint has answered. Also the stored ids of views.
//!
//! `BLAKE3-keyed(period key, scope ‖ project ‖ [path] ‖ network ‖ user agent)`. Each part is preceded by its length, so that no two inputs share an
//! encoding. Only (register, rank) of a HyperLogLog sketch, about 16 bits of the hash, leaves this module. Scopes, projects, paths and periods have
//! unrelated coordinates, so they cannot be joined.
//!
//! BLAKE3: O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020. HyperLogLog: Flajolet et al., 2007.

use crate::client::{ClientAddress, UserAgent};
use crate::keys::PeriodKey;
use schemas::Coordinate;

/// What is hashed: a visitor of the whole project or of one path, or the id of a view.
#[derive(Clone, Copy)]
enum Scope {
    Site = 1,
    Page = 2,
    ViewId = 3,
}

/// The hash's input, each part preceded by its length. One buffer and one call: inputs are below 2 KiB, and hashing them piecemeal costs more.
struct Input(Vec<u8>);

impl Input {
    fn new(scope: Scope, project: &str) -> Self {
        let mut input = Input(Vec::with_capacity(1024));
        input.0.push(scope as u8);
        input.part(project.as_bytes());
        input
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    /// The first 64 bits of the keyed hash.
    fn hash(mut self, key: &PeriodKey) -> u64 {
        let hash = key.hash(&self.0);
        zeroize::Zeroize::zeroize(&mut self.0);
        u64::from_le_bytes(*hash.as_bytes().first_chunk().expect("a hash has 32 bytes"))
    }
}

/// The stored id of a view: 64 bits of a keyed hash, never 0. A page may send anything as an id, a user's number too, so the id as sent is not
/// stored. All nodes share the key, so a repeat has the same stored id wherever it arrives, until the key's step: a repeat across the step counts as
/// a second view.
pub fn stored_id(key: &PeriodKey, project: &str, sent: u64) -> u64 {
    let mut input = Input::new(Scope::ViewId, project);
    input.part(&sent.to_le_bytes());
    input.hash(key).max(1)
}

/// The two coordinates of one view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisitorCoordinates {
    /// In the sketch of the project.
    pub site: Coordinate,
    /// In the sketch of the path.
    pub page: Coordinate,
}

/// Replaces the user agent of views that get the coordinates of their network alone: a length that no agent has.
const NETWORK_ALONE: [u8; 4] = u32::MAX.to_le_bytes();

/// Computes both coordinates. The hashes do not outlive this call. Without an agent they are those of the client network alone (IPv4 address, IPv6
/// /56): one visitor, however many agents it sends.
pub fn coordinates(
    key: &PeriodKey,
    project: &str,
    path: &str,
    address: &ClientAddress,
    agent: Option<UserAgent<'_>>,
) -> VisitorCoordinates {
    VisitorCoordinates {
        site: coordinate(key, Scope::Site, project, None, address, agent),
        page: coordinate(key, Scope::Page, project, Some(path), address, agent),
    }
}

fn coordinate(
    key: &PeriodKey,
    scope: Scope,
    project: &str,
    path: Option<&str>,
    address: &ClientAddress,
    agent: Option<UserAgent<'_>>,
) -> Coordinate {
    let mut input = Input::new(scope, project);
    if let Some(path) = path {
        input.part(path.as_bytes());
    }
    match agent {
        Some(agent) => {
            address.with_network_bytes(|bytes| input.part(bytes));
            input.part(agent.bytes());
        }
        None => {
            address.with_client_network(|bytes| input.part(bytes));
            input.0.extend_from_slice(&NETWORK_ALONE);
        }
    }
    Coordinate::from_hash(input.hash(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeyRing, VisitorPeriod};
    use std::collections::HashSet;

    #[test]
    fn stored_ids_differ_by_project_and_period_and_are_not_what_was_sent() {
        let home = tempfile::tempdir().unwrap();
        let at = |text: &str| text.parse().unwrap();
        let january = at("2026-01-31T23:00:00Z");
        let ring = KeyRing::open(&home.path().join("visitor.key"), VisitorPeriod::Month, january).unwrap();
        let key = ring.at(january).unwrap();
        let ids: Vec<u64> = (1..=1000).map(|id| stored_id(&key, "docs", id)).collect();
        assert_eq!(ids, (1..=1000).map(|id| stored_id(&key, "docs", id)).collect::<Vec<_>>());
        let next = ring.at(at("2026-02-01T00:00:00Z")).unwrap();
        let others = (1..=1000).flat_map(|id| [stored_id(&key, "other", id), stored_id(&next, "docs", id)]);
        let all: HashSet<u64> = ids.iter().copied().chain(others).chain(0..=1000).collect();
        assert_eq!(all.len(), 4001);
    }
}
