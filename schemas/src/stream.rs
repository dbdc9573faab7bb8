//! Where a row came from: a stream of the log, a window of it, and how far it had been read.

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

/// The statement that every stored row makes: "the records of this window below `next_offset` add up to this".
/// Of two rows with one key and window, the one with the larger `next_offset` knows more; nothing is ever added up
/// from the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Version {
    /// The stream.
    pub stream: StreamId,
    /// Offset of the window's first record.
    pub window_start: u64,
    /// Offset after the last record that was folded.
    pub next_offset: u64,
}
