//! The origin of a row: a stream of the log, a window of it, and the offset up to which the window was read.

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

/// The statement of every stored row: "the sum of the records of this window below `next_offset`". Of two rows with one key and window, the
/// one with the larger `next_offset` counts; the two are never added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// The stream.
    pub stream: StreamId,
    /// Offset of the window's first record.
    pub window_start: u64,
    /// Offset after the last record that was folded.
    pub next_offset: u64,
}
