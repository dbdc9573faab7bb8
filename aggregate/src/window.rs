//! Windows, and the policy that determines where they end. It is a function of the log alone, so that all processes get the same windows at
//! any time; a row's key contains the window's first offset.

use schemas::{Hour, StreamId};
use serde::{Deserialize, Serialize};

/// The window policy: where a window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// A record appended in another span of this many hours (counted from the epoch) starts a new window.
    pub window_hours: u32,
    /// The same for a record this many offsets past the window's first.
    pub max_records: u64,
    /// The same for the first record after this many bytes of records. A window is held in memory, which clients must not be able to fill.
    pub max_bytes: u64,
}

impl Default for Cut {
    fn default() -> Self {
        Cut { window_hours: 12, max_records: 4_194_304, max_bytes: 256 << 20 }
    }
}

/// The start of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowStart {
    /// Offset of its first record.
    pub offset: u64,
    /// Hour in which that record was appended, since the epoch.
    pub appended_hour: u32,
}

impl Cut {
    /// Whether the record at `offset`, appended at `appended`, starts a new window after the one that started at `start` and has `bytes` of
    /// records so far. "Another span" instead of "a later one", since a broker's clock may go back.
    pub fn begins_window(&self, start: WindowStart, bytes: u64, offset: u64, appended: Hour) -> bool {
        let span = |hour: u32| hour / self.window_hours.max(1);
        span(appended.0) != span(start.appended_hour)
            || offset - start.offset >= self.max_records
            || bytes >= self.max_bytes
    }
}

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
    pub cut: Cut,
    /// Rules of the fold that computed the rows.
    pub fold_version: u32,
    /// Whether the process stopped gracefully right after this commit, with nothing folded beyond `next_offset`.
    pub drained: bool,
}

impl Commit {
    /// Offset at which a successor starts to read.
    pub fn resume_at(&self) -> u64 {
        self.window.map_or(self.next_offset, |window| window.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_depends_on_the_log_alone() {
        let cut = Cut { window_hours: 6, max_records: 10, max_bytes: 1000 };
        let start = WindowStart { offset: 100, appended_hour: 13 };
        assert!(!cut.begins_window(start, 5, 101, Hour(13)));
        assert!(!cut.begins_window(start, 999, 109, Hour(17)));
        assert!(cut.begins_window(start, 5, 101, Hour(18)));
        assert!(cut.begins_window(start, 5, 101, Hour(11)), "a clock that stepped back into another span");
        assert!(cut.begins_window(start, 5, 110, Hour(13)));
        assert!(cut.begins_window(start, 1000, 102, Hour(13)));
    }
}
