//! The port to the log, as one partition of it is read.

use crate::window::Commit;
use schemas::{Hour, StreamId};
use std::future::Future;
use std::time::Duration;

/// Records that lie next to one another in the log and were appended in the same hour. They share one buffer: a record is
/// some 120 bytes, and an allocation for each would cost more than folding it. Or a hole: offsets whose records are lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordBatch {
    first_offset: u64,
    appended: Hour,
    bytes: Vec<u8>,
    /// Where each record ends in `bytes`.
    ends: Vec<u32>,
    /// Offsets of a hole, which has no records.
    lost: u64,
}

impl RecordBatch {
    /// An empty batch that begins at `first_offset`.
    pub fn new(first_offset: u64, appended: Hour) -> Self {
        RecordBatch { first_offset, appended, ..RecordBatch::default() }
    }

    /// An empty batch with room for so many records and bytes: one that grows moves its records again and again, and
    /// touches several times the memory.
    pub fn with_capacity(first_offset: u64, appended: Hour, records: usize, bytes: usize) -> Self {
        RecordBatch {
            first_offset,
            appended,
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(records),
            lost: 0,
        }
    }

    /// A hole of `lost` offsets from `first_offset` on. `appended` is that of the records before it.
    pub fn hole(first_offset: u64, appended: Hour, lost: u64) -> Self {
        RecordBatch { first_offset, appended, lost, ..RecordBatch::default() }
    }

    /// Adds the record at [`Self::next_offset`].
    pub fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        // Batches are bounded by whoever makes them, far below 4 GiB.
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

    /// Offsets whose records are lost; 0 where it is no hole.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Bytes of its records.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Records.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Offsets and encoded records, in order.
    pub fn records(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut begin = 0;
        self.ends.iter().enumerate().map(move |(index, &end)| {
            let record = &self.bytes[begin..end as usize];
            begin = end as usize;
            (self.first_offset + index as u64, record)
        })
    }
}

/// Why the log cannot be read or told. Whether it passes by itself decides between trying again and stopping.
#[derive(Clone, Debug, thiserror::Error)]
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

    /// Ranges of offsets whose records are lost: from, and up to (not included).
    fn holes(&self) -> &[(u64, u64)] {
        &[]
    }

    /// Offset after the newest record.
    fn end(&mut self) -> impl Future<Output = Result<u64, SourceError>> + Send;

    /// Offset at which the log was last seen to end, if it was: how records that were just read lie to its end. May be
    /// past what was read so far, and behind the log as it is now.
    fn seen_end(&self) -> Option<u64>;

    /// The last commit.
    fn committed(&mut self) -> impl Future<Output = Result<Option<Commit>, SourceError>> + Send;

    /// Has the first [`Self::read`] start at `offset`, below what the last commit released: records from there on are needed again.
    fn rewind(&mut self, offset: u64) -> impl Future<Output = Result<(), SourceError>> + Send;

    /// Batches from `offset` on, without gaps, waiting up to `wait` for the first. The first batch may begin before
    /// `offset`.
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
    fn a_batch_gives_back_what_it_was_given() {
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
