//! The member of the group: starts partitions that the group assigns, and ends those that it revokes.

use super::commit_text::CommitText;
use super::group_config::{BROKER_TIMEOUT, GroupConfig};
use super::group_context::{GroupConsumer, GroupContext, GroupEvent};
use super::group_error::GroupError;
use super::partition_reader::PartitionReader;
use super::partition_task::PartitionTask;
use crate::commit::Commit;
use rdkafka::Message;
use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest wait of the group's thread for an event.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// Longest time without an answer of the brokers to a query that is needed to start a partition.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between two attempts of such a query.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Time for which an unknown topic may be a new one of which the brokers do not know yet.
const TOPIC_MISSING_MAX: Duration = Duration::from_secs(15);
/// How long leaving the group may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A partition that is being folded.
struct RunningPartition {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), GroupError>>,
}

/// A partition that the group has assigned.
struct Assigned {
    partition: i32,
    commit: Option<Commit>,
    /// Offset to read from.
    start: u64,
    queue: PartitionQueue<GroupContext>,
}

/// The member, on its thread.
pub(super) struct Member {
    config: GroupConfig,
    runtime: Handle,
    consumer: Arc<GroupConsumer>,
    partitions: BTreeMap<i32, RunningPartition>,
}

impl Member {
    /// Subscribes to the topic.
    pub(super) fn start(config: GroupConfig, runtime: Handle) -> Result<Self, GroupError> {
        let consumer = Arc::new(config.consumer()?);
        Ok(Member { config, runtime, consumer, partitions: BTreeMap::new() })
    }

    /// Folds partitions until `stop`, then leaves the group.
    pub(super) fn serve(mut self, stop: &AtomicBool) -> Result<(), GroupError> {
        let mut missing_since = None;
        let outcome = loop {
            if stop.load(Ordering::SeqCst) {
                break Ok(());
            }
            if let Err(error) = self.poll(&mut missing_since).and_then(|()| self.handle_events(stop)) {
                break Err(error);
            }
            if let Some(error) = self.ended_task() {
                break Err(error);
            }
        };
        if let Err(error) = &outcome {
            tracing::error!(%error, "leaving the group");
        }
        let all: Vec<i32> = self.partitions.keys().copied().collect();
        self.stop_tasks(&all, false);
        self.leave();
        outcome
    }

    /// Lets rdkafka call back. `missing_since`: since when the brokers do not know the topic.
    fn poll(&self, missing_since: &mut Option<Instant>) -> Result<(), GroupError> {
        match self.consumer.poll(POLL_WAIT) {
            None => {}
            Some(Ok(message)) => {
                // The partition's queue was split off before the assignment.
                let (partition, offset) = (message.partition(), message.offset());
                let reason = format!("offset {offset} of partition {partition} came by the wrong queue");
                return Err(GroupError::Internal(reason));
            }
            Some(Err(cause @ KafkaError::MessageConsumptionFatal(_))) => {
                return Err(GroupError::Kafka { action: "stay in the consumer group", cause });
            }
            Some(Err(error)) => {
                self.consumer.context().log_error(&error, "while waiting for the group");
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition) {
                    missing_since.get_or_insert_with(Instant::now);
                }
            }
        }
        if let Some(since) = *missing_since {
            if self.topic_exists() {
                *missing_since = None;
            } else if since.elapsed() > TOPIC_MISSING_MAX {
                return Err(GroupError::TopicMissing(self.config.topic.clone()));
            }
        }
        Ok(())
    }

    fn topic_exists(&self) -> bool {
        match self.consumer.fetch_metadata(Some(&self.config.topic), BROKER_TIMEOUT) {
            Ok(metadata) => metadata.topics().iter().any(|topic| topic.error().is_none()),
            // Brokers that do not answer do not report the topic as missing.
            Err(_) => true,
        }
    }

    /// Handles all events, and returns the first error.
    fn handle_events(&mut self, stop: &AtomicBool) -> Result<(), GroupError> {
        let mut failed = None;
        for event in self.consumer.context().take_events() {
            let handled = match event {
                GroupEvent::Assigned(partitions) => self.assign(&partitions, stop),
                GroupEvent::Revoked { partitions, lost } => self.revoke(&partitions, lost),
            };
            failed = failed.or(handled.err());
        }
        failed.map_or(Ok(()), Err)
    }

    /// Repeats a query until the brokers answer.
    fn query<T>(
        &self,
        action: &'static str,
        stop: &AtomicBool,
        query: impl Fn(&GroupConsumer) -> Result<T, KafkaError>,
    ) -> Result<T, GroupError> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match query(&self.consumer) {
                Ok(answer) => return Ok(answer),
                Err(cause) if Instant::now() > deadline || stop.load(Ordering::SeqCst) => {
                    return Err(GroupError::Kafka { action, cause });
                }
                Err(error) => self.consumer.context().log_error(&error, action),
            }
            std::thread::sleep(RETRY_PAUSE);
        }
    }

    fn list(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(&self.config.topic, partition);
        }
        list
    }

    /// Starts to fold the partitions that the group assigned.
    fn assign(&mut self, partitions: &[i32], stop: &AtomicBool) -> Result<(), GroupError> {
        self.config.status.set_joined();
        self.config.status.rebalanced();
        tracing::info!(?partitions, "the group assigned partitions");
        let cluster = self.query("read the cluster's id", stop, |consumer| {
            let timeout = KafkaError::MetadataFetch(RDKafkaErrorCode::RequestTimedOut);
            consumer.client().fetch_cluster_id(BROKER_TIMEOUT).ok_or(timeout)
        })?;
        let committed = self.query("read the group's commits", stop, |consumer| {
            let found = consumer.committed_offsets(self.list(partitions), BROKER_TIMEOUT)?;
            found.elements().iter().try_for_each(|element| element.error())?;
            Ok(found)
        })?;
        let elements = committed.elements_for_topic(&self.config.topic);
        let assigned: Vec<Assigned> =
            elements.iter().map(|element| self.assigned(element, stop)).collect::<Result<_, _>>()?;
        let mut starts = self.list(&[]);
        for &Assigned { partition, start, .. } in &assigned {
            let offset = Offset::Offset(i64::try_from(start).unwrap_or(i64::MAX));
            starts
                .add_partition_offset(&self.config.topic, partition, offset)
                .map_err(|cause| GroupError::Kafka { action: "set the offset to start from", cause })?;
        }
        self.consumer
            .incremental_assign(&starts)
            .map_err(|cause| GroupError::Kafka { action: "take the assigned partitions", cause })?;
        assigned.into_iter().try_for_each(|assigned| self.start_task(assigned, &cluster))
    }

    /// Where a partition starts: at its committed window, or at the log's start.
    fn assigned(&self, element: &TopicPartitionListElem<'_>, stop: &AtomicBool) -> Result<Assigned, GroupError> {
        let (partition, topic) = (element.partition(), &self.config.topic);
        let commit = match element.offset() {
            Offset::Offset(offset) => {
                let wrong = |reason| GroupError::Commit { topic: topic.clone(), partition, reason };
                Some(CommitText::read(offset, element.metadata()).map_err(wrong)?)
            }
            _ => None,
        };
        let start = match commit {
            Some(commit) => commit.resume_at(),
            None => {
                let (low, _) = self.query("read the log's start", stop, |consumer| {
                    consumer.fetch_watermarks(topic, partition, BROKER_TIMEOUT)
                })?;
                u64::try_from(low).unwrap_or(0)
            }
        };
        // Before the assignment, so that no record arrives by the main queue.
        let queue = self.consumer.split_partition_queue(topic, partition);
        let queue = queue.ok_or_else(|| GroupError::Internal(format!("partition {partition} has no queue")))?;
        Ok(Assigned { partition, commit, start, queue })
    }

    fn start_task(&mut self, assigned: Assigned, cluster: &str) -> Result<(), GroupError> {
        let Assigned { partition, commit, start, queue } = assigned;
        let reader = PartitionReader::start(queue, partition, self.config.times, start).map_err(GroupError::Thread)?;
        let (stop, stopped) = watch::channel(false);
        let task = PartitionTask {
            cluster: cluster.to_owned(),
            group: self.config.group.clone(),
            topic: self.config.topic.clone(),
            partition,
            commit,
            reader,
            consumer: Arc::clone(&self.consumer),
            aggregate: self.config.aggregate.clone(),
            store: self.config.store.clone(),
            streams: self.config.streams.clone(),
            status: Arc::clone(&self.config.status),
            progress: self.config.status.add(partition),
        };
        let task = self.runtime.spawn(task.run(stopped));
        if let Some(before) = self.partitions.insert(partition, RunningPartition { stop, task }) {
            before.task.abort();
        }
        Ok(())
    }

    /// Gives partitions back: written and committed, unless another member has them already (`lost`).
    fn revoke(&mut self, partitions: &[i32], lost: bool) -> Result<(), GroupError> {
        self.config.status.rebalanced();
        tracing::info!(?partitions, lost, "the group revoked partitions");
        self.stop_tasks(partitions, lost);
        self.consumer
            .incremental_unassign(&self.list(partitions))
            .map_err(|cause| GroupError::Kafka { action: "give partitions back", cause })
    }

    /// Stops tasks and waits for them.
    fn stop_tasks(&mut self, partitions: &[i32], lost: bool) {
        let stopping: Vec<_> =
            partitions.iter().filter_map(|partition| Some((*partition, self.partitions.remove(partition)?))).collect();
        for (_, running) in &stopping {
            if lost {
                running.task.abort();
            }
            let _ = running.stop.send(true);
        }
        // The end of a window and the last flush may take this long each.
        let deadline = Instant::now() + 2 * self.config.aggregate.stop_within + Duration::from_secs(1);
        for (partition, running) in stopping {
            self.wait_for(partition, running.task, deadline);
            self.config.status.remove(partition);
        }
    }

    /// Waits for a stopped task; ends it at the deadline.
    fn wait_for(&self, partition: i32, mut task: JoinHandle<Result<(), GroupError>>, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.runtime.block_on(async { tokio::time::timeout(left, &mut task).await }) {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => {
                tracing::error!(partition, %error, "the partition failed while it was given back");
            }
            Ok(Err(error)) if error.is_cancelled() => {}
            Ok(Err(error)) => {
                tracing::error!(partition, %error, "the partition failed while it was given back");
            }
            Err(_) => {
                tracing::warn!(
                    partition,
                    "the partition's rows could not be written in time; its next owner folds them"
                );
                task.abort();
                let _ = self.runtime.block_on(task);
            }
        }
    }

    /// The error of a task that ended on its own.
    fn ended_task(&mut self) -> Option<GroupError> {
        let partition = *self.partitions.iter().find(|(_, running)| running.task.is_finished())?.0;
        let running = self.partitions.remove(&partition)?;
        self.config.status.remove(partition);
        Some(match self.runtime.block_on(running.task) {
            Ok(Ok(())) => GroupError::Internal(format!("folding partition {partition} ended unexpectedly")),
            Ok(Err(error)) => error,
            Err(panic) => GroupError::Internal(format!("folding partition {partition} failed: {panic}")),
        })
    }

    /// Leaves the group, so that its other members need not wait for a time-out.
    fn leave(self) {
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        // Reading threads end shortly; until then they hold the consumer.
        while Arc::strong_count(&self.consumer) > 1 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.consumer.context().set_closing();
        let (done, left) = std::sync::mpsc::channel();
        // Dropping the consumer leaves the group and waits for the broker's answer, which may never arrive.
        std::thread::spawn(move || {
            drop(self.consumer);
            let _ = done.send(());
        });
        if left.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_err() {
            tracing::warn!("leaving the group took too long; the group will notice after its session time-out");
        }
    }
}
