//! The commit, which states how far the rows in ClickHouse go.

use crate::fold::FOLD_VERSION;
use crate::window::{WindowPolicy, WindowStart};
use schemas::StreamId;
use serde::{Deserialize, Serialize};

/// The commit that the aggregator stores in the log after its rows are safe. In Kafka it is the metadata of a committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The stream.
    pub stream: StreamId,
    /// The open window; a restart reads from its start. None if the next window starts at `next_offset`.
    pub window: Option<WindowStart>,
    /// All rows below this offset are in ClickHouse.
    pub next_offset: u64,
    /// Policy of the open window, or of the one that starts at `next_offset`.
    #[serde(rename = "cut")]
    pub window_policy: WindowPolicy,
    /// Rules of the fold that computed the rows.
    pub fold_version: u32,
    /// Whether the process stopped gracefully right after this commit, with nothing folded beyond `next_offset`.
    pub drained: bool,
}

impl Commit {
    /// A commit with this program's rules of the fold, not drained.
    pub fn new(stream: StreamId, window: Option<WindowStart>, next_offset: u64, window_policy: WindowPolicy) -> Self {
        Commit { stream, window, next_offset, window_policy, fold_version: FOLD_VERSION, drained: false }
    }

    /// Offset at which a successor starts to read.
    pub fn resume_at(&self) -> u64 {
        self.window.map_or(self.next_offset, |window| window.offset)
    }
}
