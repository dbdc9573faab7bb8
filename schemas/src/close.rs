//! The rows that a closed month's figures contain.

use crate::tables::MonthCloseRow;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest time between reading which months are closed and the last query that relies on it. A report needs several queries, and a close
/// between two of them removes rows that the first one implied.
pub const READ_WITHIN: Duration = Duration::from_secs(12);

/// Time between the row that closes a month and the removal of its rows. Reads that started without that row have ended by then.
pub const SETTLE: Duration = Duration::from_secs(15);

const _: () = assert!(READ_WITHIN.as_secs() < SETTLE.as_secs());

/// For each stream, the first window that is not in the figures. Streams that are not in the map have no windows in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier(pub BTreeMap<u64, u64>);

impl Frontier {
    /// The frontier that a run recorded.
    pub fn of(row: &MonthCloseRow) -> Self {
        Frontier(row.streams.iter().copied().zip(row.windows.iter().copied()).collect())
    }

    /// Whether a window's rows are in the figures.
    pub fn contains(&self, stream: u64, window_start: u64) -> bool {
        self.0.get(&stream).is_some_and(|&first_open| window_start < first_open)
    }
}
