//! The two logs, read from one offset to another.

use super::rebuild::Cut;
use crate::config::Config;
use crate::config::kafka::KafkaSettings;
use crate::embedded::journal_socket::{JournalRange, RunningJournal};
use crate::kafka;
use crate::shell::open_data_directory;
use anyhow::{Context, bail, ensure};
use ingest::journal::{BatchKind, Journal, JournalBatch, JournalConfig};
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use schemas::{Hour, StreamId};
use serde::Deserialize;
use std::fs::File;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// How long one question to the brokers may take.
const ASK: Duration = Duration::from_secs(10);
/// How long the brokers may be silent while there are records to read.
const SILENCE: Duration = Duration::from_secs(60);
/// Bytes of the journal read at once.
const READ_BYTES: usize = 4 << 20;

/// One partition as it was when it was asked for.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Its number; 0 for a journal.
    pub number: i32,
    /// Its stream, where it has one.
    pub stream: Option<StreamId>,
    /// How its open window is cut, where a commit says so.
    pub cut: Option<Cut>,
    /// First offset.
    pub begin: u64,
    /// Offset after the last record.
    pub end: u64,
}

/// What is needed of the aggregator's commit.
#[derive(Deserialize)]
struct Commit {
    stream: u64,
    cut: CommitCut,
}

#[derive(Deserialize)]
struct CommitCut {
    window_hours: u32,
    max_records: u64,
    max_bytes: u64,
}

fn parse(text: &str) -> anyhow::Result<(StreamId, Cut)> {
    let commit: Commit = serde_json::from_str(text).context("the commit's metadata are not ours")?;
    let CommitCut { window_hours, max_records, max_bytes } = commit.cut;
    Ok((StreamId(commit.stream), Cut { window_hours, max_records, max_bytes }))
}

/// What a log has at an offset.
pub struct Entry<'a> {
    /// The offset.
    pub offset: u64,
    /// The next entry's: one more, or the end of a hole.
    pub next: u64,
    /// Hour of the append, since the epoch.
    pub appended: u32,
    /// The record; none in a hole, where records are lost.
    pub record: Option<&'a [u8]>,
}

/// A log.
pub enum Log {
    /// A topic.
    Kafka {
        /// Its name, its group and where it is.
        settings: KafkaSettings,
        /// For whoever reads it.
        client: ClientConfig,
    },
    /// The journal of a service that does not run.
    Journal {
        /// The journal.
        journal: Journal,
        /// Held, so that no service starts meanwhile.
        _lock: File,
    },
    /// The journal of a service that runs, read through it.
    Running(RunningJournal),
}

impl Log {
    /// Kafka's where a broker is named, else the data directory's journal.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        let settings = config.kafka()?;
        if settings.bootstrap.is_some() {
            let mut client = settings.client()?;
            client
                .set("group.id", &settings.group)
                .set("enable.auto.commit", "false")
                .set("enable.auto.offset.store", "false")
                .set("auto.offset.reset", "error");
            return Ok(Log::Kafka { settings, client });
        }
        let data = config.data();
        let path = data.join("journal.redb");
        ensure!(
            path.exists(),
            "there is no journal {} and no Kafka is named: use --data DIR of the service, or --kafka-bootstrap",
            path.display()
        );
        if let Some(running) = RunningJournal::find(&data) {
            return Ok(Log::Running(running));
        }
        let lock = open_data_directory(&data)?;
        let journal = Journal::open(&path, JournalConfig::default(), || Hour(0))?;
        Ok(Log::Journal { journal, _lock: lock })
    }

    /// Whether it is the journal of a service that does not run.
    pub fn is_of_a_stopped_service(&self) -> bool {
        matches!(self, Log::Journal { .. })
    }

    /// Lets go of it.
    pub fn close(self) {
        if let Log::Journal { journal, .. } = self {
            journal.close();
        }
    }

    /// All partitions. Blocks.
    pub fn partitions(&self) -> anyhow::Result<Vec<Partition>> {
        let (settings, client) = match self {
            Log::Kafka { settings, client } => (settings, client),
            Log::Journal { journal, .. } => return Ok(vec![partition_of(&JournalRange::of(journal)?)?]),
            Log::Running(journal) => return Ok(vec![partition_of(&journal.range()?)?]),
        };
        let consumer = kafka::consumer(client)?;
        let metadata = kafka::metadata(&consumer, &settings.topic, ASK)?;
        let topic = metadata.topics().first().filter(|topic| topic.error().is_none());
        let topic = topic.with_context(|| format!("there is no topic {}", settings.topic))?;
        let mut list = TopicPartitionList::new();
        for partition in topic.partitions() {
            list.add_partition(&settings.topic, partition.id());
        }
        let committed = consumer.committed_offsets(list, ASK).context("cannot read the group's commits")?;
        let mut partitions = Vec::new();
        for element in committed.elements() {
            element.error().context("cannot read the group's commits")?;
            let number = element.partition();
            let known = match element.offset() {
                Offset::Offset(_) => Some(
                    parse(element.metadata()).with_context(|| format!("partition {number} of {}", settings.topic))?,
                ),
                _ => None,
            };
            let marks = consumer.fetch_watermarks(&settings.topic, number, ASK);
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

    /// Hands over what there is from `from` on and below `to`, until `take` breaks off. Blocks.
    pub fn read(
        &self,
        partition: &Partition,
        from: u64,
        to: u64,
        take: impl FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        match self {
            Log::Journal { journal, .. } => {
                read_journal(|offset| Ok(journal.read(offset, READ_BYTES)?), from, to, take)
            }
            Log::Running(journal) => read_journal(|offset| journal.read(offset), from, to, take),
            Log::Kafka { settings, client } => read_topic(settings, client, partition.number, from, to, take),
        }
    }
}

fn partition_of(range: &JournalRange) -> anyhow::Result<Partition> {
    let cut = range.commit.as_deref().map(parse).transpose()?.map(|(_, cut)| cut);
    Ok(Partition { number: 0, stream: Some(range.stream()), cut, begin: range.begin, end: range.end })
}

fn read_journal(
    read: impl Fn(u64) -> anyhow::Result<Vec<JournalBatch>>,
    from: u64,
    to: u64,
    mut take: impl FnMut(Entry<'_>) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let mut next = from;
    while next < to {
        let batches = read(next)?;
        ensure!(!batches.is_empty(), "the journal has no record at offset {next}");
        for batch in batches {
            if batch.kind == BatchKind::Hole {
                let (offset, end) = (batch.first_offset.max(next), batch.next_offset().min(to));
                ensure!(offset == next, "the journal has no record at offset {next}");
                if offset < end {
                    next = end;
                    let hole = Entry { offset, next, appended: batch.appended.0, record: None };
                    if take(hole).is_break() {
                        return Ok(());
                    }
                }
                continue;
            }
            for (offset, record) in (batch.first_offset..).zip(batch.records()) {
                if offset < next || offset >= to {
                    continue;
                }
                ensure!(offset == next, "the journal has no record at offset {next}");
                next = offset + 1;
                let entry = Entry { offset, next, appended: batch.appended.0, record: Some(record) };
                if take(entry).is_break() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

fn read_topic(
    settings: &KafkaSettings,
    client: &ClientConfig,
    partition: i32,
    from: u64,
    to: u64,
    mut take: impl FnMut(Entry<'_>) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    let consumer = kafka::consumer(client)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&settings.topic, partition, Offset::Offset(i64::try_from(from)?))?;
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
            // Links that break are mended by the client.
            Err(KafkaError::MessageConsumption(code)) if heard.elapsed() < SILENCE && passing(code) => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read partition {partition} at offset {next}"));
            }
        };
        heard = Instant::now();
        let offset = u64::try_from(message.offset())?;
        ensure!(offset == next, "partition {partition} has no record at offset {next}, the next is {offset}");
        let Some(appended) = settings.times.hour(message.timestamp()) else {
            let expected = settings.times.topic_setting();
            bail!(
                "the record at offset {offset} of partition {partition} has no time of the kind {expected}, or an impossible one"
            );
        };
        next = offset + 1;
        let record = Some(message.payload().unwrap_or_default());
        if take(Entry { offset, next, appended: appended.0, record }).is_break() {
            break;
        }
    }
    Ok(())
}

fn passing(code: rdkafka::error::RDKafkaErrorCode) -> bool {
    use rdkafka::error::RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure, OperationTimedOut, Resolve};
    matches!(code, AllBrokersDown | BrokerTransportFailure | OperationTimedOut | Resolve)
}
