//! The member of the group: who gets which partition, and what ends with it.

use super::partition::{ASK, CommitText, PartitionSource, Reader};
use super::streams::{StreamRow, Streams};
use super::times::RecordTimes;
use crate::progress::Progress;
use crate::run::{AggregateConfig, AggregateError, run};
use crate::store::{StoreError, SummaryStore};
use crate::window::Commit;
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
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often the group's thread looks up from waiting for events.
const POLL: Duration = Duration::from_millis(100);
/// How long the brokers may fail to answer a question without which a partition cannot be begun.
const BEGIN_WITHIN: Duration = Duration::from_secs(120);
/// A topic that the brokers do not know: for this long it may be news that has not spread.
const TOPIC_MISSING: Duration = Duration::from_secs(15);
/// How long leaving the group may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);
/// The same complaint of the client is logged this often at most.
const COMPLAIN_EVERY: Duration = Duration::from_secs(30);

/// What a member of the group needs.
pub struct GroupConfig {
    /// Brokers, TLS, SASL and the like.
    pub client: ClientConfig,
    /// The topic of page views.
    pub topic: String,
    /// The group.
    pub group: String,
    /// Whether the brokers assign (KIP-848) or the members do (classic protocol, cooperative-sticky).
    pub broker_assigns: bool,
    /// Whose clock cuts windows.
    pub times: RecordTimes,
    /// How each partition is folded.
    pub aggregate: AggregateConfig,
    /// Where rows go.
    pub store: SummaryStore,
    /// Which stream a partition is.
    pub streams: Streams,
    /// What is told of it.
    pub status: Arc<GroupStatus>,
}

/// Why a member ended.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// rdkafka failed.
    #[error("cannot {action}: {cause}")]
    Kafka {
        /// What was attempted.
        action: &'static str,
        /// Why not.
        cause: KafkaError,
    },
    /// A committed offset that is not ours.
    #[error("partition {partition} of topic {topic}: {reason}")]
    Commit {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// What is wrong with it.
        reason: String,
    },
    /// A partition could not be folded.
    #[error("partition {partition} of topic {topic}")]
    Partition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// Why not.
        source: AggregateError,
    },
    /// Counted before, and now without a commit.
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
    /// The topic is gone.
    #[error(
        "the brokers have no topic {0} (any more). Make it with `headcount topic ensure`; if it was deleted, run `headcount \
         topic reset --new-log` after that"
    )]
    TopicMissing(String),
    /// No randomness.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
    /// A thread did not start.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// ClickHouse failed for good.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A part ended that must not.
    #[error("{0}")]
    Internal(String),
}

/// What is told of one partition.
#[derive(Clone, Debug)]
pub struct PartitionStatus {
    /// Its stream, once it is known.
    pub stream: Option<StreamId>,
    /// Its loop's figures.
    pub progress: Arc<Progress>,
    /// End of the log as the client last heard, or none yet.
    pub end: Option<u64>,
}

/// What is told of the group's member.
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
    /// Whether the group has taken this member in (it may still have no partition).
    pub fn joined(&self) -> bool {
        self.joined.load(Ordering::Relaxed)
    }

    /// How often partitions came or went.
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

/// What rdkafka calls back. It only takes notes: partitions are begun and ended by the group's thread after the call, which
/// the group waits for.
pub(super) struct GroupContext {
    topic: String,
    status: Arc<GroupStatus>,
    events: Mutex<Vec<Event>>,
    closing: AtomicBool,
    complaints: Mutex<HashMap<i32, Instant>>,
}

impl GroupContext {
    /// Logs what the client complains of, but not all the time.
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
        // What matters comes as an error too; the client's own words are for who debugs it.
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
            // Nobody waits for events any more, and closing waits for this.
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

/// Folds the partitions that the group gives this member, until `shutdown` resolves (what is folded is then written and
/// committed) or an error makes going on wrong.
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
        // Per partition, read ahead: enough to keep the fold busy, little enough for hundreds of partitions.
        unless_set("queued.min.messages", "50000");
        unless_set("queued.max.messages.kbytes", "16384");
        unless_set("check.crcs", "true");
        unless_set("fetch.error.backoff.ms", "100");
        // A queue that was full is looked at again after this long; librdkafka's second would leave folding idle.
        unless_set("fetch.queue.backoff.ms", "5");
        if !config.broker_assigns {
            // A member that was killed is waited for no longer than this; librdkafka's heartbeats have a thread of their own.
            unless_set("session.timeout.ms", "10000");
            unless_set("heartbeat.interval.ms", "2000");
        }
        client
            .set("group.id", &config.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // The log's end comes as a word of its own: a backlog is written when its end is met.
            .set("enable.partition.eof", "true")
            // Every partition is begun at an offset that we name. If that is not there, it is not for the client to
            // choose another.
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
                    // Its queue was split off before it was begun.
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
            // Brokers that do not answer do not say that it is gone.
            Err(_) => true,
        }
    }

    /// Asks the brokers until they answer.
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

    /// Begins to fold partitions that the group gave us.
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
            // Before it is assigned, so that no record comes by another way.
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

    /// Gives partitions back: written and committed, unless another member has them already.
    fn end(&mut self, partitions: &[i32], lost: bool) -> Result<(), GroupError> {
        self.config.status.rebalances.fetch_add(1, Ordering::Relaxed);
        tracing::info!(?partitions, lost, "the group takes partitions");
        self.stop_tasks(partitions, lost);
        self.consumer
            .incremental_unassign(&self.list(partitions))
            .map_err(|source| GroupError::Kafka { action: "give partitions back", cause: source })
    }

    /// Ends tasks and waits for them.
    fn stop_tasks(&mut self, partitions: &[i32], lost: bool) {
        let tasks: Vec<_> =
            partitions.iter().filter_map(|partition| Some((*partition, self.tasks.remove(partition)?))).collect();
        for (_, task) in &tasks {
            if lost {
                task.running.abort();
            }
            let _ = task.stop.send(true);
        }
        // The end of a window and the last flush have this time each.
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

    /// The error of a task that ended by itself.
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
        // Reading threads end within a moment; until then they hold the consumer.
        while Arc::strong_count(&self.consumer) > 1 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.consumer.context().closing.store(true, Ordering::SeqCst);
        let (done, ended) = std::sync::mpsc::channel();
        // Dropping says goodbye and waits for the broker's word, which may never come.
        std::thread::spawn(move || {
            drop(self.consumer);
            let _ = done.send(());
        });
        if ended.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_err() {
            tracing::warn!("the group did not take leave in time; it will notice by itself");
        }
    }
}

/// All that folds one partition.
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

    /// Which stream this is: what the commit says, or a new one if it was never counted. It is noted before anything is
    /// written for it.
    async fn stream(&self) -> Result<StreamId, GroupError> {
        let known = loop {
            match self.streams.of(&self.cluster, &self.topic, self.partition).await {
                Ok(known) => break known,
                Err(error) => self.wait_for_store(&error).await,
            }
        };
        let stream = match (self.commit, known.first()) {
            (Some(commit), _) => commit.stream,
            // Noted, but its process ended before it had counted anything.
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

    async fn wait_for_store(&self, error: &StoreError) {
        if !self.progress.store_fails.swap(true, Ordering::Relaxed) {
            tracing::warn!(partition = self.partition, %error, "not begun yet; trying again");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
