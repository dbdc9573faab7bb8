//! One partition as a [`Source`].

use super::commit_text::CommitText;
use super::group_config::BROKER_TIMEOUT;
use super::group_context::{GroupConsumer, GroupContext};
use super::partition_reader::PartitionReader;
use crate::commit::Commit;
use crate::source::{RecordBatch, Source, SourceError};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use schemas::StreamId;
use std::sync::Arc;
use std::time::Duration;

/// Longest time of a commit before it is given up; the next one contains more.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(15);

/// Reads and commits one partition for [`crate::run`].
pub(super) struct PartitionSource {
    pub consumer: Arc<GroupConsumer>,
    pub topic: String,
    pub partition: i32,
    pub stream: StreamId,
    pub committed: Option<Commit>,
    pub reader: PartitionReader,
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
        let query = |consumer: &BaseConsumer<GroupContext>, topic: &str, partition| {
            consumer.fetch_watermarks(topic, partition, BROKER_TIMEOUT)
        };
        let (low, high) = self.blocking("read the log's start and end", query).await?;
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
        self.reader.seen_end()
    }

    async fn committed(&mut self) -> Result<Option<Commit>, SourceError> {
        Ok(self.committed)
    }

    async fn rewind(&mut self, offset: u64) -> Result<(), SourceError> {
        const ACTION: &str = "read the topic from an earlier offset";
        let failed = |reason: String| SourceError { action: ACTION, reason, temporary: false };
        // The thread ends first: its batches were read from the later offset.
        if let Some(thread) = self.reader.end() {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            drop(joined.map_err(|error| failed(error.to_string()))?);
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
        self.reader.restart(queue, offset).map_err(|error| failed(error.to_string()))?;
        // From now on, offsets below the last commit are read.
        self.committed = None;
        Ok(())
    }

    async fn read(&mut self, offset: u64, wait: Duration) -> Result<Vec<RecordBatch>, SourceError> {
        debug_assert!(self.committed.is_none_or(|commit| offset >= commit.resume_at()), "a partition is read once");
        self.reader.batches(wait).await
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
        match tokio::time::timeout(COMMIT_TIMEOUT, commit).await {
            Ok(outcome) => outcome,
            Err(_) => Err(SourceError {
                action: "commit",
                reason: format!("no answer within {} s", COMMIT_TIMEOUT.as_secs()),
                temporary: true,
            }),
        }
    }
}
