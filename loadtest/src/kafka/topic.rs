//! A topic for the load test: created, filled at full speed, and deleted.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::records::{Log, Truth};
use crate::target::loopback;

/// Time limit of one request to the brokers.
pub const BROKER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the brokers may take for the records that remain in the producer's queue.
const FLUSH: Duration = Duration::from_secs(120);
/// How long members may take to leave a group that is to be deleted.
const LEAVE: Duration = Duration::from_secs(15);
/// Interval of the client's statistics; the last ones are waited for.
const STATISTICS_MS: u64 = 200;

/// Refuses brokers that are not on this machine: the configured ones, and those in their metadata.
///
/// # Errors
/// A name does not resolve, or resolves to another machine, or the brokers do not answer.
pub fn only_loopback(bootstrap: &str) -> anyhow::Result<()> {
    for broker in bootstrap.split(',') {
        let (host, port) =
            broker.trim().rsplit_once(':').with_context(|| format!("the broker {broker:?} has no port"))?;
        loopback(host, port.parse().with_context(|| format!("the broker {broker:?} has no port"))?)?;
    }
    let consumer: BaseConsumer = client(bootstrap).create().context("making a Kafka client")?;
    let metadata =
        consumer.fetch_metadata(None, BROKER_TIMEOUT).with_context(|| format!("asking {bootstrap} for its brokers"))?;
    for broker in metadata.brokers() {
        loopback(broker.host(), u16::try_from(broker.port()).context("a broker's port")?)?;
    }
    Ok(())
}

/// A client's configuration with the brokers' host names.
#[must_use]
pub fn client(bootstrap: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", bootstrap).set("client.id", "headcount-loadtest");
    client
}

fn admin(bootstrap: &str) -> anyhow::Result<AdminClient<DefaultClientContext>> {
    client(bootstrap).create().context("making a Kafka client")
}

fn patient() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(BROKER_TIMEOUT)).request_timeout(Some(BROKER_TIMEOUT))
}

/// Figures of filling a topic.
#[derive(Debug, Clone, Copy)]
pub struct Filled {
    /// The records' sums.
    pub truth: Truth,
    /// From the first record to the last acknowledgement.
    pub seconds: f64,
    /// Bytes sent to the brokers, compressed and framed: about what the topic has on disk.
    pub wire_bytes: u64,
}

/// Whose clock determines when a record was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// The brokers' clock, as in production.
    Append,
    /// The load test's clock: each record has the time of the month when it is sent. The topic must retain records of any age.
    OfMonth,
}

/// Makes the topic as `headcount topic ensure` would on one broker, with these `kafka_times`.
///
/// # Errors
/// When it exists, or the brokers do not make it.
pub async fn make(bootstrap: &str, topic: &str, partitions: i32, times: Times) -> anyhow::Result<()> {
    let (of, retention) = match times {
        Times::Append => ("LogAppendTime", "259200000"),
        Times::OfMonth => ("CreateTime", "-1"),
    };
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1))
        .set("message.timestamp.type", of)
        .set("cleanup.policy", "delete")
        .set("retention.ms", retention)
        .set("retention.bytes", "-1")
        .set("min.insync.replicas", "1")
        .set("unclean.leader.election.enable", "false");
    // A month in the future is allowed, too.
    let latest = i64::MAX.to_string();
    let new = if times == Times::OfMonth { new.set("message.timestamp.after.max.ms", &latest) } else { new };
    let made = admin(bootstrap)?.create_topics([&new], &patient()).await.context("making the topic")?;
    for outcome in made {
        outcome.map_err(|(topic, code)| anyhow::anyhow!("the brokers did not make topic {topic}: {code}"))?;
    }
    // Brokers and clients learn of it one after another.
    let deadline = Instant::now() + BROKER_TIMEOUT;
    let consumer: BaseConsumer = client(bootstrap).create().context("making a Kafka client")?;
    loop {
        let metadata = consumer.fetch_metadata(Some(topic), BROKER_TIMEOUT).context("asking for the new topic")?;
        let known = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        if known
            .is_some_and(|found| found.partitions().iter().filter(|p| p.leader() >= 0).count() == partitions as usize)
        {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the brokers do not tell of topic {topic}, which was just made");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Deletes the topic and the groups that read it. Prints failures on stderr.
pub async fn remove(bootstrap: &str, topic: &str, groups: &[String]) {
    let outcome = async {
        let admin = admin(bootstrap)?;
        let mut left: Vec<&str> = groups.iter().map(String::as_str).collect();
        let deadline = Instant::now() + LEAVE;
        while !left.is_empty() {
            let outcomes = admin.delete_groups(&left, &patient()).await.context("deleting the groups")?;
            let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
            let last = Instant::now() > deadline;
            // ClickHouse leaves the group some time after its table is dropped.
            left.retain(|group| {
                failed.iter().any(|(name, code)| name == group && *code == RDKafkaErrorCode::NonEmptyGroup && !last)
            });
            for (group, code) in failed {
                if code != RDKafkaErrorCode::GroupIdNotFound && !left.contains(&group.as_str()) {
                    eprintln!("group {group} is left behind: {code}");
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        for outcome in admin.delete_topics(&[topic], &patient()).await.context("deleting the topic")? {
            if let Err((topic, code)) = outcome {
                eprintln!("topic {topic} is left behind: {code}");
            }
        }
        anyhow::Ok(())
    };
    if let Err(error) = outcome.await {
        eprintln!("topic {topic} may be left behind: {error:#}");
    }
}

#[derive(Default)]
struct Sent {
    acknowledged: AtomicU64,
    refused: AtomicU64,
    wire_bytes: AtomicU64,
}

impl ClientContext for Sent {
    fn log(&self, _: RDKafkaLogLevel, _: &str, _: &str) {}

    fn error(&self, _: KafkaError, _: &str) {}

    fn stats(&self, statistics: Statistics) {
        // All requests' bytes; some hundred bytes of a request of half a megabyte are not records.
        let bytes = statistics.brokers.values().map(|broker| broker.txbytes).sum::<u64>();
        self.wire_bytes.fetch_max(bytes, Ordering::Relaxed);
    }
}

impl ProducerContext for Sent {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.acknowledged } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends records at full speed, compressed as `ingest` does.
pub struct Sender {
    producer: BaseProducer<Sent>,
    topic: String,
    sent: u64,
}

impl Sender {
    /// A sender to a topic.
    ///
    /// # Errors
    /// The client cannot be created.
    pub fn new(bootstrap: &str, topic: &str) -> anyhow::Result<Self> {
        let producer = client(bootstrap)
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "lz4")
            .set("linger.ms", "20")
            .set("batch.size", "524288")
            .set("queue.buffering.max.messages", "200000")
            .set("partitioner", "murmur2_random")
            .set("statistics.interval.ms", STATISTICS_MS.to_string())
            .create_with_context(Sent::default())
            .context("making a producer")?;
        Ok(Self { producer, topic: topic.to_owned(), sent: 0 })
    }

    /// Queues a record for `partition`, or for the one that its key chooses. Its time is in milliseconds since the epoch; none means now. Waits while
    /// the queue is full.
    ///
    /// # Errors
    /// The client refuses it, or the queue stays full.
    /// When the client refuses it, or the queue stays full.
    pub fn send(&mut self, key: u64, partition: Option<i32>, time: Option<i64>, record: &[u8]) -> anyhow::Result<()> {
        let key = key.to_be_bytes();
        let mut message = BaseRecord::to(&self.topic).key(&key).payload(record);
        (message.partition, message.timestamp) = (partition, time);
        let mut deadline = None;
        loop {
            match self.producer.send(message) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back))
                    if Instant::now() < *deadline.get_or_insert_with(|| Instant::now() + FLUSH) =>
                {
                    message = back;
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(error).context("sending a record"),
            }
        }
        self.sent += 1;
        if self.sent.is_multiple_of(1_000) {
            self.producer.poll(Duration::ZERO);
        }
        Ok(())
    }

    /// Records that the brokers have acknowledged, as far as reported.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.producer.context().acknowledged.load(Ordering::Relaxed)
    }

    /// Waits for every acknowledgement.
    ///
    /// # Errors
    /// When a record is refused or not acknowledged in time.
    pub fn flush(&self) -> anyhow::Result<()> {
        self.producer.flush(FLUSH).context("waiting for the last acknowledgements")?;
        let (acknowledged, refused) = (self.acknowledged(), self.producer.context().refused.load(Ordering::Relaxed));
        ensure!(
            acknowledged == self.sent,
            "of {} records {acknowledged} were acknowledged and {refused} refused",
            self.sent
        );
        Ok(())
    }

    /// Bytes sent to the brokers so far, compressed and framed; waits for the last statistics.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        let until = Instant::now() + Duration::from_millis(3 * STATISTICS_MS);
        while Instant::now() < until {
            self.producer.poll(Duration::from_millis(STATISTICS_MS));
        }
        self.producer.context().wire_bytes.load(Ordering::Relaxed)
    }
}

/// Sends all records of `log`, and waits for every acknowledgement. Blocks.
///
/// # Errors
/// When a record is refused or not acknowledged in time.
pub fn fill(bootstrap: &str, topic: &str, log: &Log) -> anyhow::Result<Filled> {
    let mut sender = Sender::new(bootstrap, topic)?;
    let begun = Instant::now();
    let truth = log.each(|key, record| sender.send(key, None, None, &record))?;
    sender.flush()?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Filled { truth, seconds, wire_bytes: sender.wire_bytes() })
}

/// The end offset of each partition. Blocks.
///
/// # Errors
/// The brokers do not answer.
pub fn ends(bootstrap: &str, topic: &str, partitions: i32) -> anyhow::Result<Vec<u64>> {
    let consumer: BaseConsumer = client(bootstrap).create().context("making a Kafka client")?;
    let end = |partition| {
        let (_, end) =
            consumer.fetch_watermarks(topic, partition, BROKER_TIMEOUT).context("asking where a partition ends")?;
        Ok(u64::try_from(end).unwrap_or(0))
    };
    (0..partitions).map(end).collect()
}

/// Records below the committed offsets of `group`, over all partitions. Blocks.
///
/// # Errors
/// The brokers do not answer.
pub fn committed(consumer: &BaseConsumer, topic: &str, partitions: i32) -> anyhow::Result<u64> {
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition(topic, partition);
    }
    let offsets = consumer.committed_offsets(list, BROKER_TIMEOUT).context("reading a group's commits")?;
    let elements = offsets.elements();
    let known = elements.iter().filter_map(|element| match element.offset() {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        _ => None,
    });
    // A fresh topic starts at 0, so offsets count records.
    Ok(known.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_elsewhere_are_refused_before_they_are_asked() {
        let refused = only_loopback("127.0.0.1:9092, 192.0.2.7:9092").unwrap_err().to_string();
        assert!(refused.contains("192.0.2.7") && refused.contains("not a loopback address"), "{refused}");
        assert!(only_loopback("0.0.0.0:9092").is_err());
    }
}
