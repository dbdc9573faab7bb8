//! The interface to the store of rows, which contains the ledger.

use crate::fold::Rows;
use crate::window::WindowStart;
use schemas::{Hour, StreamId};
use std::future::Future;
use std::ops::Range;
use storage::CallError;

/// The newest window of a stream in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerEnd {
    /// Its start.
    pub window: WindowStart,
    /// Its records below this offset are counted.
    pub next_offset: u64,
    /// Rules of the fold that computed its rows.
    pub fold_version: u32,
}

/// Stores rows. ClickHouse does ([`crate::store::SummaryStore`]). Clones share the store.
///
/// A row is an absolute fact. Of several rows with the same key, queries use the one with the highest `next_offset`. So rows may be inserted
/// again, late, or by a process that has lost its partition.
pub trait RowSink: Clone + Send + Sync + 'static {
    /// Inserts the rows of a flush. They are durable when it returns.
    ///
    /// # Errors
    /// Which rows are stored is unknown; the caller inserts all of them again.
    fn insert(&self, rows: &Rows) -> impl Future<Output = Result<(), CallError>> + Send;

    /// The newest window of `stream` in the ledger; none if nothing of it was counted.
    ///
    /// # Errors
    /// The store refused, or did not answer in time.
    fn ledger_end(&self, stream: StreamId) -> impl Future<Output = Result<Option<LedgerEnd>, CallError>> + Send;

    /// The offset below which the ledger has counted the window of `stream` that starts at `window`; 0 without a row.
    ///
    /// # Errors
    /// The store refused, or did not answer in time.
    fn counted_in_window(&self, stream: StreamId, window: u64) -> impl Future<Output = Result<u64, CallError>> + Send;

    /// Records in the ledger that these records of `stream` are lost, so that its counts add up. `appended` determines how long the row is
    /// stored.
    ///
    /// # Errors
    /// The store refused, or did not answer in time.
    fn record_loss(
        &self,
        stream: StreamId,
        lost: Range<u64>,
        appended: Hour,
    ) -> impl Future<Output = Result<(), CallError>> + Send;

    /// Removes all rows of `stream` whose windows start at `offset` or later.
    ///
    /// # Errors
    /// The store refused, or did not answer in time. The removal may be repeated.
    fn remove_from(&self, stream: StreamId, offset: u64) -> impl Future<Output = Result<(), CallError>> + Send;
}
