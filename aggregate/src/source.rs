//! The interface to the log, for reading one of its partitions.

use crate::commit::Commit;
use schemas::{Hour, StreamId};
use std::future::Future;
use std::time::Duration;

/// Consecutive records of the log that were appended in the same hour. They share one buffer: a record has about 120 bytes, and an
/// allocation for each would cost more than folding it. Or a hole: offsets whose records are lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordBatch {
    first_offset: u64,
    appended: Hour,
    bytes: Vec<u8>,
    /// The end of each record in `bytes`.
    ends: Vec<u32>,
    /// Number of offsets of a hole, which has no records.
    lost: u64,
}

impl RecordBatch {
    /// An empty batch that starts at `first_offset`.
    pub fn new(first_offset: u64, appended: Hour) -> Self {
        RecordBatch { first_offset, appended, ..RecordBatch::default() }
    }

    /// An empty batch with capacity for `records` and `bytes`. A batch that grows would move its records repeatedly, and touch several
    /// times the memory.
    pub fn with_capacity(first_offset: u64, appended: Hour, records: usize, bytes: usize) -> Self {
        RecordBatch {
            first_offset,
            appended,
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(records),
            lost: 0,
        }
    }

    /// A hole of `lost` offsets that starts at `first_offset`. `appended` is the hour of the records before it.
    pub fn hole(first_offset: u64, appended: Hour, lost: u64) -> Self {
        RecordBatch { first_offset, appended, lost, ..RecordBatch::default() }
    }

    /// Adds the record at [`Self::next_offset`].
    pub fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        // The sources limit batches far below 4 GiB.
        self.ends.push(self.bytes.len() as u32);
    }

    /// Hour in which its records were appended.
    pub fn appended(&self) -> Hour {
        self.appended
    }

    /// Offset after the last record, or after the hole.
    pub fn next_offset(&self) -> u64 {
        self.first_offset + self.ends.len() as u64 + self.lost
    }

    /// Offset of the first record, or of the hole.
    pub fn first_offset(&self) -> u64 {
        self.first_offset
    }

    /// Number of offsets whose records are lost; 0 if this is not a hole.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Bytes of its records.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Offsets and encoded records, in order.
    pub fn records(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut start = 0;
        self.ends.iter().enumerate().map(move |(index, &end)| {
            let record = &self.bytes[start..end as usize];
            start = end as usize;
            (self.first_offset + index as u64, record)
        })
    }
}

/// Why the log cannot be read or committed. `temporary` decides between a retry and a stop.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {action}: {reason}")]
pub struct SourceError {
    /// What was attempted.
    pub action: &'static str,
    /// Why it failed.
    pub reason: String,
    /// Whether a retry may succeed: a full disk, a broker that is away.
    pub temporary: bool,
}

/// One partition of the log.
pub trait Source: Send {
    /// The partition's id: it changes if the topic or the journal is recreated.
    fn stream(&self) -> StreamId;

    /// Offset of the oldest record that still exists.
    fn log_start(&mut self) -> impl Future<Output = Result<u64, SourceError>> + Send;

    /// Ranges of offsets whose records are lost: from, and up to (exclusive).
    fn holes(&self) -> &[(u64, u64)] {
        &[]
    }

    /// Offset after the newest record.
    fn log_end(&mut self) -> impl Future<Output = Result<u64, SourceError>> + Send;

    /// Offset at which the log ended when its end was last read, if it was. It may be past what was read so far, and before the current end
    /// of the log.
    fn seen_end(&self) -> Option<u64>;

    /// The last commit.
    fn committed(&mut self) -> impl Future<Output = Result<Option<Commit>, SourceError>> + Send;

    /// Makes the first [`Self::read`] start at `offset`, below the offsets that the last commit released: records from there on are needed
    /// again.
    fn rewind(&mut self, offset: u64) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Batches from `offset` on, without gaps, waiting up to `wait` for the first. The first batch may start before `offset`.
    fn read(
        &mut self,
        offset: u64,
        wait: Duration,
    ) -> impl Future<Output = Result<Vec<RecordBatch>, SourceError>> + Send;

    /// Stores a commit durably. Called only after every row below its `next_offset` is in ClickHouse.
    fn commit(&mut self, commit: &Commit) -> impl Future<Output = Result<(), SourceError>> + Send;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_returns_its_records() {
        let mut batch = RecordBatch::new(7, Hour(3));
        assert!(batch.is_empty() && batch.next_offset() == 7);
        for record in [&b"one"[..], b"", b"three"] {
            batch.push(record);
        }
        let records: Vec<_> = batch.records().collect();
        assert_eq!(records, [(7, &b"one"[..]), (8, b""), (9, b"three")]);
        assert_eq!((batch.next_offset(), batch.len(), batch.bytes()), (10, 3, 8));
    }
}
