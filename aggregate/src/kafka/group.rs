//! The member of the group: assigns and revokes partitions, and ends their tasks.

use super::partition::{ASK, CommitText, PartitionSource, Reader};
use super::streams::{StreamRow, Streams};
use super::times::RecordTimes;
use crate::aggregate_error::AggregateError;
use crate::commit::Commit;
use crate::progress::Progress;
use crate::run::{AggregateConfig, run};
use crate::store::SummaryStore;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Message};
use schemas::StreamId;
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use storage::CallError;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest wait of the group's thread for an event.
const POLL: Duration = Duration::from_millis(100);
/// Longest time without an answer of the brokers to a query that is needed to start a partition.
const BEGIN_WITHIN: Duration = Duration::from_secs(120);
/// Time for which an unknown topic may be a new one of which the brokers do not know yet.
const TOPIC_MISSING: Duration = Duration::from_secs(15);
/// How long leaving the group may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);
/// Shortest time between two log lines for the same error of the client.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

/// Configuration of a group's member.
pub struct GroupConfig {
    /// Brokers, TLS, SASL and the like.
    pub client: ClientConfig,
    /// The topic of page views.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Whether the brokers assign (KIP-848) or the members do (classic protocol, cooperative-sticky).
    pub broker_assigns: bool,
    /// The clock that determines windows.
    pub times: RecordTimes,
    /// The configuration for each partition.
    pub aggregate: AggregateConfig,
    /// The store of the rows.
    pub store: SummaryStore,
    /// The streams of partitions.
    pub streams: Streams,
    /// The status that the member reports.
    pub status: Arc<GroupStatus>,
}

/// Why the group's member stopped.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// rdkafka failed.
    #[error("cannot {action}: {cause}")]
    Kafka {
        /// What was attempted.
        action: &'static str,
        /// Cause of the failure.
        cause: KafkaError,
    },
    /// A committed offset that this program did not write.
    #[error("partition {partition} of topic {topic}: {reason}")]
    Commit {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Why it is invalid.
        reason: String,
    },
    /// A partition could not be folded.
    #[error("partition {partition} of topic {topic}")]
    Partition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Cause of the failure.
        source: AggregateError,
    },
    /// A partition that was counted before has no commit now.
    #[error(
        "partition {partition} of topic {topic} has no commit in group {group}, although ClickHouse has counted stream \
         {stream} of it up to offset {counted}. If the topic was made anew, run `headcount topic reset --new-log`: it is then \
         counted from its beginning, and the figures so far stay. If the group's offsets were deleted or have expired, run \
         `headcount topic reset --from-ledger`: they are restored"
    )]
    Forgotten {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The group.
        group: String,
        /// The stream.
        stream: StreamId,
        /// Offset in its ledger.
        counted: u64,
    },
    /// The topic does not exist.
    #[error(
        "the brokers have no topic {0} (any more). Make it with `headcount topic ensure`; if it was deleted, run `headcount \
         topic reset --new-log` after that"
    )]
    TopicMissing(String),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
    /// A thread did not start.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// ClickHouse failed permanently.
    #[error(transparent)]
    Store(#[from] CallError),
    /// A part of the program ended unexpectedly.
    #[error("{0}")]
    Internal(String),
}

/// The status of one partition.
#[derive(Clone, Debug)]
pub struct PartitionStatus {
    /// Its stream, once known.
    pub stream: Option<StreamId>,
    /// The progress of its loop.
    pub progress: Arc<Progress>,
    /// End of the log that the client has last received; none before the first.
    pub end: Option<u64>,
}

/// The status of the group's member.
#[derive(Debug, Default)]
pub struct GroupStatus {
    joined: AtomicBool,
    partitions: Mutex<BTreeMap<i32, PartitionStatus>>,
    ends: Mutex<HashMap<i32, u64>>,
    rebalances: std::sync::atomic::AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GroupStatus {
    /// Whether this member has joined the group (it may still have no partition).
    pub fn joined(&self) -> bool {
        self.joined.load(Ordering::Relaxed)
    }

    /// Number of rebalances.
    pub fn rebalances(&self) -> u64 {
        self.rebalances.load(Ordering::Relaxed)
    }

    /// The partitions that this member folds.
    pub fn partitions(&self) -> BTreeMap<i32, PartitionStatus> {
        let mut partitions = locked(&self.partitions).clone();
        let ends = locked(&self.ends);
        for (partition, status) in &mut partitions {
            status.end = ends.get(partition).copied();
        }
        partitions
    }

    fn begin(&self, partition: i32) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        let status = PartitionStatus { stream: None, progress: Arc::clone(&progress), end: None };
        locked(&self.partitions).insert(partition, status);
        progress
    }

    fn know(&self, partition: i32, stream: StreamId) {
        if let Some(status) = locked(&self.partitions).get_mut(&partition) {
            status.stream = Some(stream);
        }
    }

    fn end(&self, partition: i32) {
        locked(&self.partitions).remove(&partition);
    }
}

enum Event {
    Assigned(Vec<i32>),
    Revoked { partitions: Vec<i32>, lost: bool },
}

/// Callbacks of rdkafka. They only record events: the group's thread starts and ends partitions after the call, and the group waits for
/// that.
pub(super) struct GroupContext {
    topic: String,
    status: Arc<GroupStatus>,
    events: Mutex<Vec<Event>>,
    closing: AtomicBool,
    complaints: Mutex<HashMap<i32, Instant>>,
}

impl GroupContext {
    /// Logs an error of the client, at a limited rate.
    fn complain(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown) as i32;
        let mut complaints = locked(&self.complaints);
        let now = Instant::now();
        if complaints.get(&code).is_none_or(|&last| now.duration_since(last) >= COMPLAIN_EVERY) {
            complaints.insert(code, now);
            tracing::warn!(%error, reason, "the Kafka client goes on trying");
        }
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // Relevant events arrive as errors, too; the client's log lines are for debugging.
        tracing::debug!(target: "headcount::kafka", ?level, facility, "{message}");
    }

    fn stats(&self, statistics: Statistics) {
        let Some(topic) = statistics.topics.get(&self.topic) else { return };
        let ends = topic
            .partitions
            .iter()
            .filter_map(|(&partition, figures)| Some((partition, u64::try_from(figures.hi_offset).ok()?)));
        locked(&self.status.ends).extend(ends);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.complain(&error, reason);
    }
}

impl ConsumerContext for GroupContext {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, changed: &mut TopicPartitionList) {
        let partitions = changed.elements_for_topic(&self.topic).iter().map(|element| element.partition()).collect();
        if self.closing.load(Ordering::SeqCst) {
            // The event loop has ended, and closing waits for this call.
            let _ = match consumer.rebalance_protocol() {
                RebalanceProtocol::Cooperative => consumer.incremental_unassign(changed),
                _ => consumer.unassign(),
            };
            return;
        }
        let event = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Event::Assigned(partitions),
            _ => Event::Revoked { partitions, lost: consumer.assignment_lost() },
        };
        locked(&self.events).push(event);
    }
}

type GroupConsumer = BaseConsumer<GroupContext>;

/// Folds the partitions that the group assigns to this member. It ends when `shutdown` resolves, after writing and committing what is
/// folded, or on an error after which figures would be wrong.
pub async fn run_group(config: GroupConfig, shutdown: impl Future<Output = ()> + Send) -> Result<(), GroupError> {
    let runtime = Handle::current();
    let stop = Arc::new(AtomicBool::new(false));
    let (tell, mut told) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("kafka-group".to_owned())
        .spawn({
            let stop = Arc::clone(&stop);
            move || {
                let member = std::panic::AssertUnwindSafe(|| Member::start(config, runtime)?.serve(&stop));
                let outcome = std::panic::catch_unwind(member)
                    .unwrap_or_else(|_| Err(GroupError::Internal("the group's thread panicked".to_owned())));
                let _ = tell.send(outcome);
            }
        })
        .map_err(GroupError::Thread)?;
    tokio::pin!(shutdown);
    let gone = || Err(GroupError::Internal("the group's thread is gone".to_owned()));
    tokio::select! {
        outcome = &mut told => outcome.unwrap_or_else(|_| gone()),
        () = &mut shutdown => {
            stop.store(true, Ordering::SeqCst);
            told.await.unwrap_or_else(|_| gone())
        }
    }
}

struct Task {
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<(), GroupError>>,
}

struct Member {
    config: GroupConfig,
    runtime: Handle,
    consumer: Arc<GroupConsumer>,
    tasks: BTreeMap<i32, Task>,
}

impl Member {
    fn start(config: GroupConfig, runtime: Handle) -> Result<Self, GroupError> {
        let mut client = config.client.clone();
        let mut unless_set = |name: &str, value: &str| {
            if client.get(name).is_none() {
                client.set(name, value);
            }
        };
        unless_set("statistics.interval.ms", "2000");
        // Read ahead per partition: enough to keep the fold busy, and little enough for hundreds of partitions.
        unless_set("queued.min.messages", "50000");
        unless_set("queued.max.messages.kbytes", "16384");
        unless_set("check.crcs", "true");
        unless_set("fetch.error.backoff.ms", "100");
        // Interval of checks of a full queue; librdkafka's default of a second would leave folding idle.
        unless_set("fetch.queue.backoff.ms", "5");
        if !config.broker_assigns {
            // Longest wait for a member that was killed; librdkafka sends heartbeats from a separate thread.
            unless_set("session.timeout.ms", "10000");
            unless_set("heartbeat.interval.ms", "2000");
        }
        client
            .set("group.id", &config.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // An event for the end of the log: a backlog is written when its end is reached.
            .set("enable.partition.eof", "true")
            // Partitions start at an explicit offset. If it does not exist, the client must not choose another.
            .set("auto.offset.reset", "error");
        if config.broker_assigns {
            client.set("group.protocol", "consumer");
        } else {
            client.set("group.protocol", "classic").set("partition.assignment.strategy", "cooperative-sticky");
        }
        let context = GroupContext {
            topic: config.topic.clone(),
            status: Arc::clone(&config.status),
            events: Mutex::default(),
            closing: AtomicBool::new(false),
            complaints: Mutex::default(),
        };
        let consumer: GroupConsumer = client
            .create_with_context(context)
            .map_err(|source| GroupError::Kafka { action: "make a Kafka consumer of these settings", cause: source })?;
        consumer
            .subscribe(&[config.topic.as_str()])
            .map_err(|source| GroupError::Kafka { action: "subscribe to the topic", cause: source })?;
        Ok(Member { config, runtime, consumer: Arc::new(consumer), tasks: BTreeMap::new() })
    }

    fn serve(mut self, stop: &AtomicBool) -> Result<(), GroupError> {
        let mut missing_since: Option<Instant> = None;
        let outcome = loop {
            if stop.load(Ordering::SeqCst) {
                break Ok(());
            }
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    // The partition's queue was split off before the assignment.
                    let (partition, offset) = (message.partition(), message.offset());
                    let reason = format!("offset {offset} of partition {partition} came by the wrong queue");
                    break Err(GroupError::Internal(reason));
                }
                Some(Err(source @ KafkaError::MessageConsumptionFatal(_))) => {
                    break Err(GroupError::Kafka { action: "stay in the consumer group", cause: source });
                }
                Some(Err(error)) => {
                    self.consumer.context().complain(&error, "while waiting for the group");
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnknownTopicOrPartition) {
                        missing_since.get_or_insert_with(Instant::now);
                    }
                }
            }
            if let Some(since) = missing_since {
                if self.topic_exists() {
                    missing_since = None;
                } else if since.elapsed() > TOPIC_MISSING {
                    break Err(GroupError::TopicMissing(self.config.topic.clone()));
                }
            }
            let events = std::mem::take(&mut *locked(&self.consumer.context().events));
            let mut failed = None;
            for event in events {
                let handled = match event {
                    Event::Assigned(partitions) => self.begin(&partitions, stop),
                    Event::Revoked { partitions, lost } => self.end(&partitions, lost),
                };
                failed = failed.or(handled.err());
            }
            if let Some(error) = failed.or_else(|| self.ended_task()) {
                break Err(error);
            }
        };
        if let Err(error) = &outcome {
            tracing::error!(%error, "leaving the group");
        }
        let all: Vec<i32> = self.tasks.keys().copied().collect();
        self.stop_tasks(&all, false);
        self.leave();
        outcome
    }

    fn topic_exists(&self) -> bool {
        match self.consumer.fetch_metadata(Some(&self.config.topic), ASK) {
            Ok(metadata) => metadata.topics().iter().any(|topic| topic.error().is_none()),
            // Brokers that do not answer do not report the topic as missing.
            Err(_) => true,
        }
    }

    /// Repeats a query until the brokers answer.
    fn ask<T>(
        &self,
        action: &'static str,
        stop: &AtomicBool,
        question: impl Fn(&GroupConsumer) -> Result<T, KafkaError>,
    ) -> Result<T, GroupError> {
        let deadline = Instant::now() + BEGIN_WITHIN;
        loop {
            match question(&self.consumer) {
                Ok(answer) => return Ok(answer),
                Err(source) if Instant::now() > deadline || stop.load(Ordering::SeqCst) => {
                    return Err(GroupError::Kafka { action, cause: source });
                }
                Err(error) => self.consumer.context().complain(&error, action),
            }
            std::thread::sleep(Duration::from_millis(500));
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
    fn begin(&mut self, partitions: &[i32], stop: &AtomicBool) -> Result<(), GroupError> {
        self.config.status.joined.store(true, Ordering::Relaxed);
        self.config.status.rebalances.fetch_add(1, Ordering::Relaxed);
        tracing::info!(?partitions, "the group gave partitions");
        let cluster = self.ask("ask for the cluster's id", stop, |consumer| {
            consumer.client().fetch_cluster_id(ASK).ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::RequestTimedOut))
        })?;
        let committed = self.ask("read the group's commits", stop, |consumer| {
            let found = consumer.committed_offsets(self.list(partitions), ASK)?;
            found.elements().iter().try_for_each(|element| element.error())?;
            Ok(found)
        })?;
        let mut starts = self.list(&[]);
        let mut begun = Vec::new();
        for element in committed.elements_for_topic(&self.config.topic) {
            let partition = element.partition();
            let wrong = |reason| GroupError::Commit { topic: self.config.topic.clone(), partition, reason };
            let commit = match element.offset() {
                Offset::Offset(offset) => Some(CommitText::read(offset, element.metadata()).map_err(wrong)?),
                _ => None,
            };
            let start = match commit {
                Some(commit) => commit.resume_at(),
                None => {
                    let (low, _) = self.ask("ask where the log begins", stop, |consumer| {
                        consumer.fetch_watermarks(&self.config.topic, partition, ASK)
                    })?;
                    u64::try_from(low).unwrap_or(0)
                }
            };
            let at = Offset::Offset(i64::try_from(start).unwrap_or(i64::MAX));
            starts
                .add_partition_offset(&self.config.topic, partition, at)
                .map_err(|source| GroupError::Kafka { action: "name an offset to begin at", cause: source })?;
            // Before the assignment, so that no record arrives by the main queue.
            let queue = self.consumer.split_partition_queue(&self.config.topic, partition);
            let queue = queue.ok_or_else(|| GroupError::Internal(format!("partition {partition} has no queue")))?;
            begun.push((partition, commit, start, queue));
        }
        self.consumer
            .incremental_assign(&starts)
            .map_err(|source| GroupError::Kafka { action: "take the partitions that the group gave", cause: source })?;
        for (partition, commit, start, queue) in begun {
            let reader = Reader::start(queue, partition, self.config.times, start).map_err(GroupError::Thread)?;
            let (stop, stopped) = watch::channel(false);
            let part = Part {
                cluster: cluster.clone(),
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
                progress: self.config.status.begin(partition),
            };
            let running = self.runtime.spawn(part.run(stopped));
            if let Some(before) = self.tasks.insert(partition, Task { stop, running }) {
                before.running.abort();
            }
        }
        Ok(())
    }

    /// Returns partitions: written and committed, unless another member has them already.
    fn end(&mut self, partitions: &[i32], lost: bool) -> Result<(), GroupError> {
        self.config.status.rebalances.fetch_add(1, Ordering::Relaxed);
        tracing::info!(?partitions, lost, "the group takes partitions");
        self.stop_tasks(partitions, lost);
        self.consumer
            .incremental_unassign(&self.list(partitions))
            .map_err(|source| GroupError::Kafka { action: "give partitions back", cause: source })
    }

    /// Stops tasks and waits for them.
    fn stop_tasks(&mut self, partitions: &[i32], lost: bool) {
        let tasks: Vec<_> =
            partitions.iter().filter_map(|partition| Some((*partition, self.tasks.remove(partition)?))).collect();
        for (_, task) in &tasks {
            if lost {
                task.running.abort();
            }
            let _ = task.stop.send(true);
        }
        // The end of a window and the last flush may take this long each.
        let deadline = Instant::now() + 2 * self.config.aggregate.stop_within + Duration::from_secs(1);
        for (partition, mut task) in tasks {
            let left = deadline.saturating_duration_since(Instant::now());
            let ended = self.runtime.block_on(async { tokio::time::timeout(left, &mut task.running).await });
            match ended {
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
                    task.running.abort();
                    let _ = self.runtime.block_on(task.running);
                }
            }
            self.config.status.end(partition);
        }
    }

    /// The error of a task that ended on its own.
    fn ended_task(&mut self) -> Option<GroupError> {
        let partition = *self.tasks.iter().find(|(_, task)| task.running.is_finished())?.0;
        let task = self.tasks.remove(&partition)?;
        self.config.status.end(partition);
        Some(match self.runtime.block_on(task.running) {
            Ok(Ok(())) => GroupError::Internal(format!("folding partition {partition} ended by itself")),
            Ok(Err(error)) => error,
            Err(panic) => GroupError::Internal(format!("folding partition {partition} failed: {panic}")),
        })
    }

    /// Leaves the group, so that its other members need not wait for a time-out.
    fn leave(self) {
        let deadline = Instant::now() + LEAVE_WITHIN;
        // Reading threads end shortly; until then they hold the consumer.
        while Arc::strong_count(&self.consumer) > 1 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.consumer.context().closing.store(true, Ordering::SeqCst);
        let (done, ended) = std::sync::mpsc::channel();
        // Dropping the consumer leaves the group and waits for the broker's answer, which may never arrive.
        std::thread::spawn(move || {
            drop(self.consumer);
            let _ = done.send(());
        });
        if ended.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_err() {
            tracing::warn!("the group did not take leave in time; it will notice by itself");
        }
    }
}

/// Everything needed to fold one partition.
struct Part {
    cluster: String,
    group: String,
    topic: String,
    partition: i32,
    commit: Option<Commit>,
    reader: Reader,
    consumer: Arc<GroupConsumer>,
    aggregate: AggregateConfig,
    store: SummaryStore,
    streams: Streams,
    status: Arc<GroupStatus>,
    progress: Arc<Progress>,
}

impl Part {
    async fn run(self, mut stopped: watch::Receiver<bool>) -> Result<(), GroupError> {
        let mut until = stopped.clone();
        let stream = tokio::select! {
            stream = self.stream() => stream?,
            _ = until.wait_for(|&stopped| stopped) => return Ok(()),
        };
        self.status.know(self.partition, stream);
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
        while let Err(error) = self.streams.note(&row).await {
            self.wait_for_store(&error).await;
        }
        Ok(stream)
    }

    async fn wait_for_store(&self, error: &CallError) {
        if !self.progress.store_fails.swap(true, Ordering::Relaxed) {
            tracing::warn!(partition = self.partition, %error, "not begun yet; trying again");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
