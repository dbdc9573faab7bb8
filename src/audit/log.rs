//! The two logs, read from one offset to another.

use super::rebuild::Cut;
use crate::config::Config;
use anyhow::{Context, ensure};
use ingest::journal::{BatchKind, Journal, JournalConfig};
use schemas::{Hour, StreamId};
use serde::Deserialize;
use std::ops::ControlFlow;

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

pub(super) fn parse(text: &str) -> anyhow::Result<(StreamId, Cut)> {
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
    #[cfg(feature = "kafka")]
    Kafka(super::topic_log::TopicLog),
    /// The journal of a service that does not run.
    Journal(Journal),
}

impl Log {
    /// Kafka's where a broker is named, else the data directory's journal.
    pub fn open(config: &Config) -> anyhow::Result<Self> {
        #[cfg(feature = "kafka")]
        if config.names_kafka() {
            return Ok(Log::Kafka(super::topic_log::TopicLog::new(config)?));
        }
        let path = config.data().join("journal.redb");
        ensure!(
            path.exists(),
            "there is no journal {} and no Kafka is named: use --data DIR of a stopped service, or --kafka-bootstrap",
            path.display()
        );
        let journal = Journal::open(&path, JournalConfig::default(), || Hour(0))
            .context("the journal cannot be read while its service runs; stop it first")?;
        Ok(Log::Journal(journal))
    }

    /// Whether it is a journal.
    pub fn is_journal(&self) -> bool {
        matches!(self, Log::Journal(_))
    }

    /// Lets go of it.
    pub fn close(self) {
        match self {
            #[cfg(feature = "kafka")]
            Log::Kafka(_) => {}
            Log::Journal(journal) => journal.close(),
        }
    }

    /// All partitions. Blocks.
    pub fn partitions(&self) -> anyhow::Result<Vec<Partition>> {
        match self {
            #[cfg(feature = "kafka")]
            Log::Kafka(topic) => topic.partitions(),
            Log::Journal(journal) => {
                let (begin, end) = (journal.begin()?, *journal.end().borrow());
                let cut = journal.text("aggregate")?.map(|text| parse(&text)).transpose()?.map(|(_, cut)| cut);
                Ok(vec![Partition { number: 0, stream: Some(journal.stream()), cut, begin, end }])
            }
        }
    }

    /// Hands over what there is from `from` on and below `to`, until `take` breaks off. Blocks.
    pub fn read(
        &self,
        #[cfg_attr(not(feature = "kafka"), expect(unused_variables))] partition: &Partition,
        from: u64,
        to: u64,
        mut take: impl FnMut(Entry<'_>) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        match self {
            Log::Journal(journal) => {
                let mut next = from;
                while next < to {
                    let batches = journal.read(next, READ_BYTES)?;
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
            #[cfg(feature = "kafka")]
            Log::Kafka(topic) => topic.read(partition.number, from, to, take),
        }
    }
}
