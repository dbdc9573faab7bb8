//! The two logs, read from one offset to another.

use super::rebuild::Cut;
use crate::config::commands::AuditCommand;
use crate::embedded::journal_socket::{JournalRange, RunningJournal};
use crate::shell::open_data_directory;
use anyhow::{Context, ensure};
use ingest::journal::{BatchKind, Journal, JournalBatch, JournalConfig};
use schemas::{Hour, StreamId};
use serde::Deserialize;
use std::fs::File;
use std::ops::ControlFlow;

/// Bytes of the journal per read.
const READ_BYTES: usize = 4 << 20;

/// One partition, as of the query.
#[derive(Clone, Debug)]
pub struct Partition {
    /// Its number; 0 for a journal.
    pub number: i32,
    /// Its stream, if it has one.
    pub stream: Option<StreamId>,
    /// The policy that splits its records into windows, if a commit states it.
    pub cut: Option<Cut>,
    /// First offset.
    pub begin: u64,
    /// Offset after the last record.
    pub end: u64,
}

/// The fields that an audit needs of the aggregator's commit.
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
    let commit: Commit = serde_json::from_str(text).context("the commit's metadata are not headcount's")?;
    let CommitCut { window_hours, max_records, max_bytes } = commit.cut;
    Ok((StreamId(commit.stream), Cut { window_hours, max_records, max_bytes }))
}

/// One entry of the log.
pub struct LogEntry<'a> {
    /// The offset.
    pub offset: u64,
    /// The next entry's: one more, or the end of a hole.
    pub next: u64,
    /// Hour of the append, since the epoch.
    pub appended: u32,
    /// The record; none for a hole, where records are lost.
    pub record: Option<&'a [u8]>,
}

/// A log.
pub enum Log {
    /// A topic.
    #[cfg(feature = "kafka")]
    Kafka(super::topic_log::TopicLog),
    /// The journal of a stopped service.
    Journal {
        /// The journal.
        journal: Journal,
        /// The directory's lock, which keeps a service from starting during the audit.
        _lock: File,
    },
    /// The journal of a running service, read through it.
    Running(RunningJournal),
}

impl Log {
    /// Kafka's log if a broker is configured, else the data directory's journal.
    pub fn open(settings: &AuditCommand) -> anyhow::Result<Self> {
        #[cfg(feature = "kafka")]
        if settings.kafka.names_brokers() {
            return Ok(Log::Kafka(super::topic_log::TopicLog::new(&settings.kafka)?));
        }
        let data = settings.store.data();
        let path = data.join("journal.redb");
        ensure!(
            path.exists(),
            "there is no journal {} and no Kafka is named: use --data DIR of the service, or --kafka-bootstrap",
            path.display()
        );
        if let Some(running) = RunningJournal::find(data) {
            return Ok(Log::Running(running));
        }
        let lock = open_data_directory(data)?;
        let journal = Journal::open(&path, JournalConfig::default(), || Hour(0))?;
        Ok(Log::Journal { journal, _lock: lock })
    }

    /// Whether it is the journal of a stopped service.
    pub fn is_of_a_stopped_service(&self) -> bool {
        matches!(self, Log::Journal { .. })
    }

    /// Closes the log.
    pub fn close(self) {
        if let Log::Journal { journal, .. } = self {
            journal.close();
        }
    }

    /// All partitions. Blocks.
    pub fn partitions(&self) -> anyhow::Result<Vec<Partition>> {
        match self {
            #[cfg(feature = "kafka")]
            Log::Kafka(topic) => topic.partitions(),
            Log::Journal { journal, .. } => Ok(vec![partition_of(&JournalRange::of(journal)?)?]),
            Log::Running(journal) => Ok(vec![partition_of(&journal.range()?)?]),
        }
    }

    /// Passes the entries from `from` until below `to` to `take`, which may stop early. Blocks.
    pub fn read(
        &self,
        #[cfg_attr(not(feature = "kafka"), expect(unused_variables))] partition: &Partition,
        from: u64,
        to: u64,
        take: impl FnMut(LogEntry<'_>) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        match self {
            Log::Journal { journal, .. } => {
                read_journal(|offset| Ok(journal.read(offset, READ_BYTES)?), from, to, take)
            }
            Log::Running(journal) => read_journal(|offset| journal.read(offset), from, to, take),
            #[cfg(feature = "kafka")]
            Log::Kafka(topic) => topic.read(partition.number, from, to, take),
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
    mut take: impl FnMut(LogEntry<'_>) -> ControlFlow<()>,
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
                    let hole = LogEntry { offset, next, appended: batch.appended.0, record: None };
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
                let entry = LogEntry { offset, next, appended: batch.appended.0, record: Some(record) };
                if take(entry).is_break() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}
