//! Streams: the partitions of a log.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Identifies one partition of one incarnation of one log: (cluster, topic incarnation, partition), or a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub u64);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
