//! The interface to the store that closes months.

use super::close_error::CloseError;
use schemas::Month;
use schemas::close::Frontier;
use schemas::tables::MonthCloseRow;
use std::collections::BTreeMap;
use std::future::Future;

/// A close's attempt on a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The month.
    pub(crate) month: Month,
    /// Its random number.
    pub(crate) number: u64,
    /// The open window of each stream: all windows below are closed.
    pub(crate) frontier: Frontier,
}

/// What a run has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Number of projects with figures.
    pub(crate) projects: u64,
    /// Views in these figures.
    pub(crate) views: u64,
}

/// A month that has parts in the tables of open months.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MonthParts {
    /// The month.
    pub(crate) month: Month,
    /// Whether a part that is in use has rows. Rows that were removed leave empty and replaced parts for some minutes.
    pub(crate) has_rows: bool,
}

/// The steps of a close. ClickHouse does them ([`super::Closer`]), and tests have another store.
pub(crate) trait CloseStore: Sync {
    /// Months that have parts in the tables of open months.
    fn months_with_parts(&self) -> impl Future<Output = Result<Vec<MonthParts>, CloseError>> + Send;

    /// The run whose figures count: of those that are finished, the first.
    fn winner(&self, month: Month) -> impl Future<Output = Result<Option<MonthCloseRow>, CloseError>> + Send;

    /// The store's clock, in microseconds since the epoch. `finished` of a run is by the same clock.
    fn now_micros(&self) -> impl Future<Output = Result<i64, CloseError>> + Send;

    /// The open window of each stream.
    fn open_windows(&self) -> impl Future<Output = Result<Frontier, CloseError>> + Send;

    /// Writes the figures of a run. They do not count yet.
    fn write_figures(&self, run: &Run) -> impl Future<Output = Result<Written, CloseError>> + Send;

    /// Finishes a run.
    fn finish(&self, run: &Run, written: Written) -> impl Future<Output = Result<(), CloseError>> + Send;

    /// Removes the rows that the winner's figures contain, the sketches of all others, and the figures of other runs. Does nothing if none
    /// of these is left.
    fn sweep(&self, month: Month, winner: &MonthCloseRow) -> impl Future<Output = Result<(), CloseError>> + Send;

    /// The offsets at which the streams ended when the month became due; none if they are not recorded yet.
    fn recorded_ends(
        &self,
        month: Month,
    ) -> impl Future<Output = Result<Option<BTreeMap<u64, u64>>, CloseError>> + Send;

    /// Records these offsets.
    fn record_ends(
        &self,
        month: Month,
        ends: &BTreeMap<u64, u64>,
    ) -> impl Future<Output = Result<(), CloseError>> + Send;

    /// The offset below which the ledger has counted each stream.
    fn counted(&self) -> impl Future<Output = Result<BTreeMap<u64, u64>, CloseError>> + Send;
}
