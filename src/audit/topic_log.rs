//! A Kafka topic as the log.

use super::log::{LogEntry, Partition, parse};
use crate::config::kafka_settings::KafkaSettings;
use crate::kafka;
use anyhow::{Context, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Time limit of one request to the brokers.
const BROKER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the brokers may be silent while there are records to read.
const SILENCE: Duration = Duration::from_secs(60);

/// A topic, its consumer group, and the connection to its brokers.
pub struct TopicLog {
    settings: KafkaSettings,
    client: ClientConfig,
}

impl TopicLog {
    /// The topic of these settings. No broker is queried yet.
    ///
    /// # Errors
    /// No brokers are configured, or a setting is wrong.
    pub fn new(settings: &KafkaSettings) -> anyhow::Result<Self> {
        let mut client = settings.client()?;
        client
            .set("group.id", &settings.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error");
        Ok(TopicLog { settings: settings.clone(), client })
    }

    /// All partitions. Blocks.
    ///
    /// # Errors
    /// The brokers do not answer, the topic does not exist, or a commit was not written by headcount.
    pub fn partitions(&self) -> anyhow::Result<Vec<Partition>> {
        let consumer = kafka::consumer(&self.client)?;
        let metadata = kafka::metadata(&consumer, &self.settings.topic, BROKER_TIMEOUT)?;
        let topic = metadata.topics().first().filter(|topic| topic.error().is_none());
        let topic = topic.with_context(|| format!("there is no topic {}", self.settings.topic))?;
        let mut list = TopicPartitionList::new();
        for partition in topic.partitions() {
            list.add_partition(&self.settings.topic, partition.id());
        }
        let committed = consumer.committed_offsets(list, BROKER_TIMEOUT).context("cannot read the group's commits")?;
        let mut partitions = Vec::new();
        for element in committed.elements() {
            element.error().context("cannot read the group's commits")?;
            let number = element.partition();
            let known = match element.offset() {
                Offset::Offset(_) => Some(
                    parse(element.metadata())
                        .with_context(|| format!("partition {number} of {}", self.settings.topic))?,
                ),
                _ => None,
            };
            let marks = consumer.fetch_watermarks(&self.settings.topic, number, BROKER_TIMEOUT);
            let (low, high) = marks.with_context(|| format!("cannot ask where partition {number} begins and ends"))?;
            partitions.push(Partition {
                number,
                stream: known.map(|(stream, _)| stream),
                cut: known.map(|(_, cut)| cut),
                begin: u64::try_from(low)?,
                end: u64::try_from(high)?,
            });
        }
        partitions.sort_by_key(|partition| partition.number);
        Ok(partitions)
    }

    /// Passes each record of a partition from `from` until below `to` to `take`, which may stop early. Blocks.
    ///
    /// # Errors
    /// The brokers do not answer, or a record is missing.
    pub fn read(
        &self,
        partition: i32,
        from: u64,
        to: u64,
        mut take: impl FnMut(LogEntry<'_>) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        let consumer = kafka::consumer(&self.client)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.settings.topic, partition, Offset::Offset(i64::try_from(from)?))?;
        consumer.assign(&list).context("cannot read the topic")?;
        let mut next = from;
        let mut heard = Instant::now();
        while next < to {
            let Some(message) = consumer.poll(Duration::from_millis(200)) else {
                ensure!(
                    heard.elapsed() < SILENCE,
                    "the brokers gave nothing of partition {partition} from offset {next} on for {} s, though it ends at {to}",
                    SILENCE.as_secs()
                );
                continue;
            };
            let message = match message {
                Ok(message) => message,
                // The client reopens broken connections.
                Err(KafkaError::MessageConsumption(code)) if heard.elapsed() < SILENCE && passing(code) => continue,
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read partition {partition} at offset {next}"));
                }
            };
            heard = Instant::now();
            let offset = u64::try_from(message.offset())?;
            ensure!(offset == next, "partition {partition} has no record at offset {next}, the next is {offset}");
            let Some(appended) = self.settings.record_times().hour(message.timestamp()) else {
                let expected = self.settings.record_times().topic_setting();
                bail!(
                    "the record at offset {offset} of partition {partition} has no time of the kind {expected}, or an impossible one"
                );
            };
            next = offset + 1;
            let record = Some(message.payload().unwrap_or_default());
            if take(LogEntry { offset, next, appended: appended.0, record }).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn passing(code: rdkafka::error::RDKafkaErrorCode) -> bool {
    use rdkafka::error::RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    matches!(code, AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve)
}
