//! Which rows a closed month's figures contain.

use crate::tables::MonthCloseRow;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a reader may use what it has read of which months are closed. A report takes several questions, and a close between two of
/// them removes rows that the first said would be there.
pub const READ_WITHIN: Duration = Duration::from_secs(12);

/// How long a close waits between saying that a month is closed and removing rows: whoever had not heard it yet is done by then.
pub const SETTLE: Duration = Duration::from_secs(15);

const _: () = assert!(READ_WITHIN.as_secs() < SETTLE.as_secs());

/// Of each stream, the first window that is not in the figures. Streams that are not here have none in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier(pub BTreeMap<u64, u64>);

impl Frontier {
    /// The one that a run noted.
    pub fn of(row: &MonthCloseRow) -> Self {
        Frontier(row.streams.iter().copied().zip(row.windows.iter().copied()).collect())
    }

    /// Whether a window's rows are in the figures.
    pub fn contains(&self, stream: u64, window_start: u64) -> bool {
        self.0.get(&stream).is_some_and(|&first_open| window_start < first_open)
    }
}
