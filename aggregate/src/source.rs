//! The port to the log, as one partition of it is read.

use crate::window::Commit;
use schemas::{Hour, StreamId};
use std::future::Future;
use std::time::Duration;

/// Records that lie next to one another in the log.
#[derive(Clone, Debug, Default)]
pub struct RecordBatch {
    /// Offset of the first record.
    pub first_offset: u64,
    /// Hour in which each record was appended (one for the whole batch).
    pub appended: Option<Hour>,
    /// The encoded records.
    pub records: Vec<Vec<u8>>,
}

/// Why the log cannot be read or told. Whether it passes by itself decides between trying again and stopping.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action}: {reason}")]
pub struct SourceError {
    /// What was attempted.
    pub action: &'static str,
    /// Why not.
    pub reason: String,
    /// Whether the same call may succeed later: a full disk, a broker that is away.
    pub passing: bool,
}

/// One partition of the log.
pub trait Source: Send {
    /// The partition's id: changes with the topic's or the journal's incarnation.
    fn stream(&self) -> StreamId;

    /// Offset of the oldest record that is still there.
    fn begin(&mut self) -> impl Future<Output = Result<u64, SourceError>> + Send;

    /// Offset after the newest record.
    fn end(&mut self) -> impl Future<Output = Result<u64, SourceError>> + Send;

    /// The last commit.
    fn committed(&mut self) -> impl Future<Output = Result<Option<Commit>, SourceError>> + Send;

    /// Batches from `offset` on, without gaps, waiting up to `wait` for the first.
    fn read(
        &mut self,
        offset: u64,
        wait: Duration,
    ) -> impl Future<Output = Result<Vec<RecordBatch>, SourceError>> + Send;

    /// Stores a commit durably. Called only after every row below its `next_offset` is in ClickHouse.
    fn commit(&mut self, commit: &Commit) -> impl Future<Output = Result<(), SourceError>> + Send;
}
