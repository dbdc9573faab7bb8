//! Folds one partition.

use super::group_context::GroupConsumer;
use super::group_error::GroupError;
use super::group_status::GroupStatus;
use super::partition_reader::PartitionReader;
use super::partition_source::PartitionSource;
use super::streams::{StreamRow, Streams};
use crate::commit::Commit;
use crate::progress::Progress;
use crate::run::{AggregateConfig, run};
use crate::store::SummaryStore;
use schemas::StreamId;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use storage::CallError;
use tokio::sync::watch;

/// Pause between two attempts to read or store a partition's stream.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Everything needed to fold one partition.
pub(super) struct PartitionTask {
    pub(super) cluster: String,
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) commit: Option<Commit>,
    pub(super) reader: PartitionReader,
    pub(super) consumer: Arc<GroupConsumer>,
    pub(super) aggregate: AggregateConfig,
    pub(super) store: SummaryStore,
    pub(super) streams: Streams,
    pub(super) status: Arc<GroupStatus>,
    pub(super) progress: Arc<Progress>,
}

impl PartitionTask {
    /// Folds until `stopped` is true.
    pub(super) async fn run(self, mut stopped: watch::Receiver<bool>) -> Result<(), GroupError> {
        let mut until = stopped.clone();
        let stream = tokio::select! {
            stream = self.stream() => stream?,
            _ = until.wait_for(|&stopped| stopped) => return Ok(()),
        };
        self.status.set_stream(self.partition, stream);
        let (topic, partition) = (self.topic.clone(), self.partition);
        let source = PartitionSource {
            consumer: self.consumer,
            topic: self.topic,
            partition,
            stream,
            committed: self.commit,
            reader: self.reader,
        };
        let shutdown = async move { drop(stopped.wait_for(|&stopped| stopped).await) };
        run(self.aggregate, source, self.store, self.progress, shutdown).await.map_err(|source| GroupError::Partition {
            topic,
            partition,
            source,
        })
    }

    /// The partition's stream: the one in the commit, or a new one if the partition was never counted. The stream is stored before any row
    /// is written for it.
    async fn stream(&self) -> Result<StreamId, GroupError> {
        let known = loop {
            match self.streams.of(&self.cluster, &self.topic, self.partition).await {
                Ok(known) => break known,
                Err(error) => self.wait_for_store(&error).await,
            }
        };
        let stream = match (self.commit, known.first()) {
            (Some(commit), _) => commit.stream,
            // The stream was stored, but its process ended before it had counted anything.
            (None, Some(&(stream, 0))) => stream,
            (None, Some(&(stream, counted))) => {
                return Err(GroupError::Forgotten {
                    topic: self.topic.clone(),
                    partition: self.partition,
                    group: self.group.clone(),
                    stream,
                    counted,
                });
            }
            (None, None) => {
                let mut bytes = [0; 8];
                getrandom::fill(&mut bytes).map_err(GroupError::Random)?;
                StreamId(u64::from_le_bytes(bytes))
            }
        };
        if known.iter().any(|&(known, _)| known == stream) {
            return Ok(stream);
        }
        let row = StreamRow {
            stream: stream.0,
            cluster: self.cluster.clone(),
            topic: self.topic.clone(),
            partition: self.partition,
            born: u32::try_from(chrono::Utc::now().timestamp()).unwrap_or(0),
        };
        while let Err(error) = self.streams.store(&row).await {
            self.wait_for_store(&error).await;
        }
        Ok(stream)
    }

    async fn wait_for_store(&self, error: &CallError) {
        if !self.progress.store_fails.swap(true, Ordering::Relaxed) {
            tracing::warn!(partition = self.partition, %error, "folding has not started yet; trying again");
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
