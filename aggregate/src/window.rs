//! Windows, and the policy that determines where they end. It is a function of the log alone, so that all processes get the same windows at
//! any time; a row's key contains the window's first offset.

use schemas::Hour;
use serde::{Deserialize, Serialize};

/// The window policy: where a window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowPolicy {
    /// A record appended in another span of this many hours (counted from the epoch) starts a new window.
    pub window_hours: u32,
    /// The same for a record this many offsets past the window's first.
    pub max_records: u64,
    /// The same for the first record after this many bytes of records. A window is held in memory, which clients must not be able to fill.
    pub max_bytes: u64,
}

impl Default for WindowPolicy {
    fn default() -> Self {
        WindowPolicy { window_hours: 12, max_records: 4_194_304, max_bytes: 256 << 20 }
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

impl WindowPolicy {
    /// Whether the record at `offset`, appended at `appended`, starts a new window after the one that started at `start` and has `bytes` of
    /// records so far. "Another span" instead of "a later one", since a broker's clock may go back.
    pub fn starts_new_window(&self, start: WindowStart, bytes: u64, offset: u64, appended: Hour) -> bool {
        let span = |hour: u32| hour / self.window_hours.max(1);
        span(appended.0) != span(start.appended_hour)
            || offset - start.offset >= self.max_records
            || bytes >= self.max_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_window_depends_on_the_log_alone() {
        let policy = WindowPolicy { window_hours: 6, max_records: 10, max_bytes: 1000 };
        let start = WindowStart { offset: 100, appended_hour: 13 };
        assert!(!policy.starts_new_window(start, 5, 101, Hour(13)));
        assert!(!policy.starts_new_window(start, 999, 109, Hour(17)));
        assert!(policy.starts_new_window(start, 5, 101, Hour(18)));
        assert!(policy.starts_new_window(start, 5, 101, Hour(11)), "a clock that stepped back into another span");
        assert!(policy.starts_new_window(start, 5, 110, Hour(13)));
        assert!(policy.starts_new_window(start, 1000, 102, Hour(13)));
    }
}
