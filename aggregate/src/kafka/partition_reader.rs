//! Reads a partition on a thread of its own.

use super::group_context::GroupContext;
use super::times::RecordTimes;
use crate::source::{RecordBatch, SourceError};
use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc;

/// Largest batch, not counting its last record. It is small enough to be in the processor's cache while it is folded, and for the allocator
/// to reuse its memory: larger allocations come from the system, which clears each page again.
const BATCH_BYTES: usize = 96 << 10;
const BATCH_RECORDS: usize = 1_024;
/// Reserve for the record that makes a batch full: most records are a tenth of this.
const BATCH_RESERVE: usize = 1 << 10;
/// Batches read ahead of the fold.
const BATCHES_AHEAD: usize = 8;
/// Longest wait for a record, after which the thread checks whether it should end.
const POLL_WAIT: Duration = Duration::from_millis(100);

/// No end read yet.
const NO_END: u64 = u64::MAX;

/// The batches that a partition's reading thread has read. Dropping it ends the thread.
pub(super) struct PartitionReader {
    batches: mpsc::Receiver<Result<RecordBatch, SourceError>>,
    stop: Arc<AtomicBool>,
    seen_end: Arc<AtomicU64>,
    partition: i32,
    times: RecordTimes,
    /// None after the thread was ended.
    thread: Option<JoinHandle<()>>,
}

impl Drop for PartitionReader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl PartitionReader {
    /// Starts a thread that reads the queue, whose first record must be the one at `offset`.
    pub(super) fn start(
        queue: PartitionQueue<GroupContext>,
        partition: i32,
        times: RecordTimes,
        offset: u64,
    ) -> std::io::Result<Self> {
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let (stop, seen_end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(NO_END)));
        let queue = Queue { queue, partition, times, next: offset, held: None, seen_end: Arc::clone(&seen_end) };
        let thread = std::thread::Builder::new().name(format!("partition {partition}")).spawn({
            let stop = Arc::clone(&stop);
            move || queue.read(&stop, &sender)
        })?;
        Ok(PartitionReader { batches, stop, seen_end, partition, times, thread: Some(thread) })
    }

    /// Starts to read another queue of the same partition.
    pub(super) fn restart(&mut self, queue: PartitionQueue<GroupContext>, offset: u64) -> std::io::Result<()> {
        *self = PartitionReader::start(queue, self.partition, self.times, offset)?;
        Ok(())
    }

    /// Ends the thread, within [`POLL_WAIT`].
    pub(super) fn end(&mut self) -> Option<JoinHandle<()>> {
        self.stop.store(true, Ordering::Relaxed);
        self.batches.close();
        self.thread.take()
    }

    /// Offset at which the log ended when its end was last read.
    pub(super) fn seen_end(&self) -> Option<u64> {
        Some(self.seen_end.load(Ordering::Relaxed)).filter(|&end| end != NO_END)
    }

    /// The batches that are read, waiting up to `wait` for the first. An error is returned once; then the thread has ended.
    pub(super) async fn batches(&mut self, wait: Duration) -> Result<Vec<RecordBatch>, SourceError> {
        let Ok(first) = tokio::time::timeout(wait, self.batches.recv()).await else { return Ok(Vec::new()) };
        let Some(first) = first else {
            return Err(SourceError {
                action: "read the topic",
                reason: format!("the reader of partition {} has ended", self.partition),
                temporary: false,
            });
        };
        let mut batches = vec![first?];
        while batches.len() <= BATCHES_AHEAD
            && let Ok(more) = self.batches.try_recv()
        {
            match more {
                Ok(more) => batches.push(more),
                // Batches that were read before the error are folded first; the thread has ended, so the next call returns an error.
                Err(error) => {
                    tracing::error!(%error, "the partition cannot be read any further");
                    break;
                }
            }
        }
        Ok(batches)
    }
}

/// A partition's queue, which its thread reads.
struct Queue {
    queue: PartitionQueue<GroupContext>,
    partition: i32,
    times: RecordTimes,
    /// Offset of the next record.
    next: u64,
    /// Already read, but of another hour than the batch before it.
    held: Option<RecordBatch>,
    seen_end: Arc<AtomicU64>,
}

impl Queue {
    /// Sends batches until `stop`, or after an error.
    fn read(mut self, stop: &AtomicBool, sender: &mpsc::Sender<Result<RecordBatch, SourceError>>) {
        while !stop.load(Ordering::Relaxed) {
            let Some(batch) = self.batch().transpose() else { continue };
            let failed = batch.is_err();
            if sender.blocking_send(batch).is_err() || failed {
                return;
            }
        }
    }

    /// The next batch; none if no record arrives for a while.
    fn batch(&mut self) -> Result<Option<RecordBatch>, SourceError> {
        let mut batch = self.held.take();
        let mut wait = if batch.is_some() { Duration::ZERO } else { POLL_WAIT };
        while let Some(message) = self.queue.poll(wait) {
            wait = Duration::ZERO;
            let message = match message {
                Ok(message) => message,
                // All records of the partition have been read.
                Err(KafkaError::PartitionEOF(_)) => {
                    self.seen_end.store(self.next, Ordering::Relaxed);
                    break;
                }
                Err(error) => return Err(failed_read(self.partition, &error)),
            };
            let offset = u64::try_from(message.offset()).unwrap_or(0);
            if offset < self.next {
                continue;
            }
            if offset > self.next {
                return Err(self.gap(offset));
            }
            let Some(appended) = self.times.hour(message.timestamp()) else { return Err(self.wrong_time(offset)) };
            self.next = offset + 1;
            let record = message.payload().unwrap_or_default();
            let new = || RecordBatch::with_capacity(offset, appended, BATCH_RECORDS, BATCH_BYTES + BATCH_RESERVE);
            let current = batch.get_or_insert_with(new);
            if current.appended() != appended {
                let mut next = new();
                next.push(record);
                self.held = Some(next);
                break;
            }
            current.push(record);
            if current.len() >= BATCH_RECORDS || current.bytes() >= BATCH_BYTES {
                break;
            }
        }
        Ok(batch)
    }

    /// The error for a next record at `offset`.
    fn gap(&self, offset: u64) -> SourceError {
        SourceError {
            action: "read the topic without gaps",
            reason: format!(
                "partition {} has no record at offset {}, the next is {offset}: the topic was compacted, written by \
                 transactions, or its records were deleted. Start a new log with `headcount topic reset --new-log` \
                 and see `headcount topic check`",
                self.partition, self.next
            ),
            temporary: false,
        }
    }

    /// The error for a record at `offset` without a time that determines its window.
    fn wrong_time(&self, offset: u64) -> SourceError {
        SourceError {
            action: "read the times of records",
            reason: format!(
                "the record at offset {offset} of partition {} has no time of the required kind, or an impossible one: \
                 the topic needs message.timestamp.type={} from its first record on; see `headcount topic check`",
                self.partition,
                self.times.topic_setting()
            ),
            temporary: false,
        }
    }
}

fn failed_read(partition: i32, error: &KafkaError) -> SourceError {
    let lost = matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    );
    let unknown = matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition
        )
    );
    let advice = if lost {
        "records that were not counted yet were removed, by retention or by hand, or the topic was recreated. Start a new \
         log with `headcount topic reset --new-log`, and raise its retention well above the window"
    } else if unknown {
        "the topic was deleted. Create it with `headcount topic ensure`, then `headcount topic reset --new-log`"
    } else {
        "see the broker's log"
    };
    SourceError {
        action: "read the topic",
        reason: format!("partition {partition}: {error}; {advice}"),
        temporary: false,
    }
}
