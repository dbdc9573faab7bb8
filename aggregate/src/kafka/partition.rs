//! One partition as a [`Source`].

use super::group::GroupContext;
use super::times::RecordTimes;
use crate::commit::Commit;
use crate::source::{RecordBatch, Source, SourceError};
use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use schemas::StreamId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// Largest batch, not counting its last record. It is small enough to be in the processor's cache while it is folded, and for the allocator
/// to reuse its memory: larger allocations come from the system, which clears each page again.
const BATCH_BYTES: usize = 96 << 10;
const BATCH_RECORDS: usize = 1_024;
/// Reserve for the record that makes a batch full: most records are a tenth of this.
const RESERVE: usize = 1 << 10;
/// Batches read ahead of the fold.
const BATCHES_AHEAD: usize = 8;
/// How often a thread without records checks whether it should end.
const IDLE: Duration = Duration::from_millis(100);
/// Longest time of one query to the brokers.
pub(super) const ASK: Duration = Duration::from_secs(10);
/// Longest time of a commit before it is given up; the next one contains more.
const COMMIT_WITHIN: Duration = Duration::from_secs(15);

/// A commit as the metadata of a committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitText;

impl CommitText {
    /// JSON, some 250 bytes (brokers take 4,096: `offset.metadata.max.bytes`).
    pub fn write(commit: &Commit) -> String {
        // A struct of numbers always serialises.
        serde_json::to_string(commit).unwrap_or_default()
    }

    /// Parses metadata. `offset` is the committed offset, which must agree.
    pub fn read(offset: i64, metadata: &str) -> Result<Commit, String> {
        let commit: Commit = serde_json::from_str(metadata).map_err(|error| {
            format!(
                "the group's committed offset {offset} does not carry our metadata ({error}): it was set by another \
                 program. Restore it with `headcount topic reset --from-ledger`"
            )
        })?;
        if u64::try_from(offset) != Ok(commit.next_offset) {
            return Err(format!(
                "the group's committed offset {offset} and its metadata ({}) disagree: the offset was moved by another \
                 program. Restore it with `headcount topic reset --from-ledger`",
                commit.next_offset
            ));
        }
        Ok(commit)
    }
}

/// Reads and commits one partition for [`crate::run`].
pub(super) struct PartitionSource {
    pub consumer: Arc<BaseConsumer<GroupContext>>,
    pub topic: String,
    pub partition: i32,
    pub stream: StreamId,
    pub committed: Option<Commit>,
    pub reader: Reader,
}

/// The batches that a partition's reading thread has read. Dropping it ends the thread.
pub(super) struct Reader {
    batches: mpsc::Receiver<Result<RecordBatch, SourceError>>,
    stop: Arc<AtomicBool>,
    seen_end: Arc<AtomicU64>,
    partition: i32,
    times: RecordTimes,
    /// None after the thread was ended.
    thread: Option<std::thread::JoinHandle<()>>,
}

/// No end read yet.
const NO_END: u64 = u64::MAX;

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Reader {
    /// Starts a thread that reads the queue, whose first record must be the one at `offset`.
    pub fn start(
        queue: PartitionQueue<GroupContext>,
        partition: i32,
        times: RecordTimes,
        offset: u64,
    ) -> std::io::Result<Self> {
        let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
        let (stop, seen_end) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(NO_END)));
        let thread = std::thread::Builder::new().name(format!("partition {partition}")).spawn({
            let (stop, seen_end) = (Arc::clone(&stop), Arc::clone(&seen_end));
            move || {
                let mut reading = Reading { queue, partition, times, next: offset, held: None, seen_end };
                while !stop.load(Ordering::Relaxed) {
                    let batch = reading.batch().transpose();
                    let failed = matches!(batch, Some(Err(_)));
                    if let Some(batch) = batch
                        && sender.blocking_send(batch).is_err()
                    {
                        break;
                    }
                    if failed {
                        break;
                    }
                }
            }
        })?;
        Ok(Reader { batches, stop, seen_end, partition, times, thread: Some(thread) })
    }

    /// Ends the thread, within [`IDLE`].
    fn end(&mut self) -> Option<std::thread::JoinHandle<()>> {
        self.stop.store(true, Ordering::Relaxed);
        self.batches.close();
        self.thread.take()
    }
}

struct Reading {
    queue: PartitionQueue<GroupContext>,
    partition: i32,
    times: RecordTimes,
    /// Offset of the next record.
    next: u64,
    /// Already read, but of another hour than the batch before it.
    held: Option<RecordBatch>,
    seen_end: Arc<AtomicU64>,
}

impl Reading {
    /// The next batch; none if no record arrives for a while.
    fn batch(&mut self) -> Result<Option<RecordBatch>, SourceError> {
        let mut batch = self.held.take();
        let mut wait = if batch.is_some() { Duration::ZERO } else { IDLE };
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
                return Err(SourceError {
                    action: "read the topic without gaps",
                    reason: format!(
                        "partition {} has no record at offset {}, the next is {offset}: the topic was compacted, written by \
                         transactions, or its records were deleted. Begin a new log with `headcount topic reset --new-log` \
                         and see `headcount topic check`",
                        self.partition, self.next
                    ),
                    temporary: false,
                });
            }
            let Some(appended) = self.times.hour(message.timestamp()) else {
                return Err(SourceError {
                    action: "read the times of records",
                    reason: format!(
                        "the record at offset {offset} of partition {} has none of the kind that is needed, or an impossible one: \
                         the topic needs message.timestamp.type={} from its first record on; see `headcount topic check`",
                        self.partition,
                        self.times.topic_setting()
                    ),
                    temporary: false,
                });
            };
            self.next = offset + 1;
            let record = message.payload().unwrap_or_default();
            let new = || RecordBatch::with_capacity(offset, appended, BATCH_RECORDS, BATCH_BYTES + RESERVE);
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
        "records that were not counted yet were removed, by retention or by hand, or the topic was made anew. Begin a new \
         log with `headcount topic reset --new-log`, and raise its retention well above the window"
    } else if unknown {
        "the topic was deleted. Make it with `headcount topic ensure`, then `headcount topic reset --new-log`"
    } else {
        "see the broker's log"
    };
    SourceError {
        action: "read the topic",
        reason: format!("partition {partition}: {error}; {advice}"),
        temporary: false,
    }
}

impl PartitionSource {
    /// Queries of rdkafka block, so they run on threads for blocking calls.
    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        call: impl FnOnce(&BaseConsumer<GroupContext>, &str, i32) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let (consumer, topic, partition) = (Arc::clone(&self.consumer), self.topic.clone(), self.partition);
        let reason = |error: String| format!("topic {}, partition {partition}: {error}", self.topic);
        match tokio::task::spawn_blocking(move || call(&consumer, &topic, partition)).await {
            Ok(outcome) => {
                outcome.map_err(|error| SourceError { action, reason: reason(error.to_string()), temporary: true })
            }
            Err(error) => Err(SourceError { action, reason: reason(error.to_string()), temporary: false }),
        }
    }

    async fn watermarks(&self) -> Result<(u64, u64), SourceError> {
        let ask = |consumer: &BaseConsumer<GroupContext>, topic: &str, partition| {
            consumer.fetch_watermarks(topic, partition, ASK)
        };
        let (low, high) = self.blocking("ask for the log's beginning and end", ask).await?;
        Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
    }
}

impl Source for PartitionSource {
    fn stream(&self) -> StreamId {
        self.stream
    }

    async fn log_start(&mut self) -> Result<u64, SourceError> {
        Ok(self.watermarks().await?.0)
    }

    async fn log_end(&mut self) -> Result<u64, SourceError> {
        Ok(self.watermarks().await?.1)
    }

    fn seen_end(&self) -> Option<u64> {
        Some(self.reader.seen_end.load(Ordering::Relaxed)).filter(|&end| end != NO_END)
    }

    async fn committed(&mut self) -> Result<Option<Commit>, SourceError> {
        Ok(self.committed)
    }

    async fn rewind(&mut self, offset: u64) -> Result<(), SourceError> {
        const ACTION: &str = "read the topic from an earlier offset";
        let failed = |reason: String| SourceError { action: ACTION, reason, temporary: false };
        // The thread ends first: its batches were read from the later offset.
        if let Some(thread) = self.reader.end() {
            let ended = tokio::task::spawn_blocking(move || thread.join()).await;
            drop(ended.map_err(|error| failed(error.to_string()))?);
        }
        let at = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        let whole = Arc::clone(&self.consumer);
        let queue = self.blocking(ACTION, move |consumer, topic, partition| {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, at)?;
            // Assigned again instead of a seek: rdkafka cannot seek in a partition whose offset the brokers no longer have. The partition
            // is unassigned here if an earlier try came this far.
            let _ = consumer.incremental_unassign(&list);
            let queue = whole.split_partition_queue(topic, partition);
            consumer.incremental_assign(&list)?;
            Ok(queue)
        });
        let queue = queue.await?.ok_or_else(|| failed(format!("partition {} has no queue", self.partition)))?;
        let (partition, times) = (self.reader.partition, self.reader.times);
        self.reader = Reader::start(queue, partition, times, offset).map_err(|error| failed(error.to_string()))?;
        // From now on, offsets below the last commit are read.
        self.committed = None;
        Ok(())
    }

    async fn read(&mut self, offset: u64, wait: Duration) -> Result<Vec<RecordBatch>, SourceError> {
        debug_assert!(self.committed.is_none_or(|commit| offset >= commit.resume_at()), "a partition is read once");
        let Ok(first) = tokio::time::timeout(wait, self.reader.batches.recv()).await else { return Ok(Vec::new()) };
        let Some(first) = first else {
            return Err(SourceError {
                action: "read the topic",
                reason: format!("the reader of partition {} has ended", self.partition),
                temporary: false,
            });
        };
        let mut batches = vec![first?];
        while batches.len() <= BATCHES_AHEAD
            && let Ok(more) = self.reader.batches.try_recv()
        {
            match more {
                Ok(more) => batches.push(more),
                // Batches that were read before the error are folded first; the thread has ended, so the next read returns an error.
                Err(error) => {
                    tracing::error!(%error, "the partition cannot be read any further");
                    break;
                }
            }
        }
        Ok(batches)
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), SourceError> {
        let commit = *commit;
        let commit = self.blocking("commit", move |consumer, topic, partition| {
            let mut offsets = TopicPartitionList::new();
            let mut element = offsets.add_partition(topic, partition);
            element.set_offset(Offset::Offset(i64::try_from(commit.next_offset).unwrap_or(i64::MAX)))?;
            element.set_metadata(CommitText::write(&commit));
            consumer.commit(&offsets, CommitMode::Sync)
        });
        // Without a coordinator, the client waits for one much longer than a fold should.
        match tokio::time::timeout(COMMIT_WITHIN, commit).await {
            Ok(outcome) => outcome,
            Err(_) => Err(SourceError {
                action: "commit",
                reason: format!("no answer within {} s", COMMIT_WITHIN.as_secs()),
                temporary: true,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{WindowPolicy, WindowStart};

    #[test]
    fn a_commit_survives_its_metadata() {
        let commit = Commit {
            stream: StreamId(u64::MAX),
            window: Some(WindowStart { offset: 1 << 40, appended_hour: 500_000 }),
            next_offset: (1 << 40) + 17,
            window_policy: WindowPolicy::default(),
            fold_version: 2,
            drained: true,
        };
        let text = CommitText::write(&commit);
        assert!(text.len() < 1_000, "{text}");
        assert_eq!(CommitText::read((1 << 40) + 17, &text), Ok(commit));
        assert!(CommitText::read(5, &text).unwrap_err().contains("was moved by another program"));
        assert!(CommitText::read(5, "").unwrap_err().contains("was set by another program"));
    }
}
