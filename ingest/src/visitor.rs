//! Visitor coordinates: what remains of a reader once the endpoint has answered.
//!
//! `BLAKE3-keyed(period key, scope ‖ project ‖ [path] ‖ network ‖ user agent)`, each part with its length in front, so
//! that no two inputs share an encoding. Of the hash only (register, rank) of a HyperLogLog sketch leaves: about
//! 16 bits. Scopes, projects, paths and periods give unrelated coordinates, so they cannot be joined.
//!
//! BLAKE3: O'Connor, Aumasson, Neves, Wilcox-O'Hearn, 2020. HyperLogLog: Flajolet et al., 2007.

use crate::client::{ClientAddress, UserAgent};
use crate::keys::PeriodKey;
use schemas::Coordinate;

/// Who is counted: visitors of the whole project, or of one path.
#[derive(Clone, Copy)]
enum Scope {
    Site = 1,
    Page = 2,
}

/// The two coordinates of one view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VisitorCoordinates {
    /// In the sketch of the project.
    pub site: Coordinate,
    /// In the sketch of the path.
    pub page: Coordinate,
}

/// Computes both coordinates. The hashes die with this call.
pub fn coordinates(
    key: &PeriodKey,
    project: &str,
    path: &str,
    address: &ClientAddress,
    agent: UserAgent<'_>,
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
    agent: UserAgent<'_>,
) -> Coordinate {
    // One buffer and one call: inputs are below 2 KiB, and hashing them piecemeal costs more.
    let mut input = Vec::with_capacity(1024);
    input.push(scope as u8);
    let mut part = |bytes: &[u8]| {
        input.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        input.extend_from_slice(bytes);
    };
    part(project.as_bytes());
    if let Some(path) = path {
        part(path.as_bytes());
    }
    address.with_network_bytes(&mut part);
    part(agent.bytes());
    let hash = key.hash(&input);
    zeroize::Zeroize::zeroize(&mut input);
    Coordinate::from_hash(u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("a hash has 32 bytes")))
}
