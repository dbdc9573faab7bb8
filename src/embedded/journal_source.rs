//! The local journal as the aggregator reads it: one partition.

use aggregate::commit::Commit;
use aggregate::source::{RecordBatch, Source, SourceError};
use ingest::Clock;
use ingest::journal::{BatchKind, Journal, JournalError, TRIM_BATCHES};
use schemas::{Hour, StreamId};
use std::time::Duration;
use tokio::sync::watch;

/// Bytes of records per read.
const READ_BYTES: usize = 4 << 20;

/// Reads a [`Journal`].
pub struct JournalSource {
    journal: Journal,
    end: watch::Receiver<u64>,
    clock: Clock,
    retention_hours: u32,
    seen_end: Option<u64>,
}

impl JournalSource {
    /// Name of the aggregator's commit in the journal.
    pub const COMMIT: &str = "aggregate";

    /// Records are retained for `retention_hours`, less if the journal needs their space, and always until their window is closed. The last commit is
    /// applied here, so a full journal can free space before ClickHouse answers.
    pub fn new(journal: Journal, clock: Clock, retention_hours: u32) -> Self {
        let commit =
            journal.text(Self::COMMIT).ok().flatten().and_then(|text| serde_json::from_str::<Commit>(&text).ok());
        // The loop that folds the journal reports a commit of another log, or one that cannot be decoded.
        if let Some(commit) = commit.filter(|commit| commit.stream == journal.stream()) {
            journal.set_counted(commit.resume_at());
        }
        let end = journal.end();
        JournalSource { journal, end, clock, retention_hours, seen_end: None }
    }

    /// Runs the journal's blocking disk calls on threads for blocking work.
    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        call: impl FnOnce(&Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let journal = self.journal.clone();
        match tokio::task::spawn_blocking(move || call(&journal)).await {
            Ok(outcome) => outcome.map_err(|error| SourceError {
                action,
                reason: error.to_string(),
                temporary: !error.is_damage(),
            }),
            Err(error) => Err(SourceError { action, reason: error.to_string(), temporary: false }),
        }
    }
}

impl Source for JournalSource {
    fn stream(&self) -> StreamId {
        self.journal.stream()
    }

    async fn log_start(&mut self) -> Result<u64, SourceError> {
        self.blocking("find the journal's beginning", Journal::begin).await
    }

    fn holes(&self) -> &[(u64, u64)] {
        self.journal.holes()
    }

    async fn log_end(&mut self) -> Result<u64, SourceError> {
        Ok(*self.end.borrow())
    }

    fn seen_end(&self) -> Option<u64> {
        self.seen_end
    }

    async fn committed(&mut self) -> Result<Option<Commit>, SourceError> {
        let action = "read the aggregator's commit from the journal";
        let text = self.blocking(action, |journal| journal.text(Self::COMMIT)).await?;
        text.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| SourceError {
            action,
            reason: error.to_string(),
            temporary: false,
        })
    }

    async fn rewind(&mut self, offset: u64) -> Result<(), SourceError> {
        self.journal.set_needed(offset);
        Ok(())
    }

    async fn read(&mut self, offset: u64, wait: Duration) -> Result<Vec<RecordBatch>, SourceError> {
        // Changed or timed out: the journal is queried either way.
        let _ = tokio::time::timeout(wait, self.end.wait_for(|&end| end > offset)).await;
        let end = *self.end.borrow();
        if end <= offset {
            return Ok(Vec::new());
        }
        let batches = self.blocking("read the journal", move |journal| journal.read(offset, READ_BYTES)).await?;
        let batches: Vec<RecordBatch> = batches
            .iter()
            .map(|batch| {
                if batch.kind == BatchKind::Hole {
                    let lost = batch.next_offset() - batch.first_offset;
                    return RecordBatch::hole(batch.first_offset, batch.appended, lost);
                }
                let mut records = RecordBatch::new(batch.first_offset, batch.appended);
                batch.records().for_each(|record| records.push(record));
                records
            })
            .collect();
        if let Some(last) = batches.last().map(RecordBatch::next_offset)
            && last >= end
        {
            self.seen_end = Some(last);
        }
        Ok(batches)
    }

    async fn commit(&mut self, commit: &Commit) -> Result<(), SourceError> {
        let action = "write the aggregator's commit to the journal";
        let text = serde_json::to_string(commit).map_err(|error| SourceError {
            action,
            reason: error.to_string(),
            temporary: false,
        })?;
        let before = Hour(Hour::of((self.clock)()).0.saturating_sub(self.retention_hours));
        let below = commit.resume_at();
        self.blocking(action, move |journal| {
            journal.store_text(Self::COMMIT, &text)?;
            // Not before the commit: a restart resumes there.
            journal.set_counted(below);
            // Trims in several transactions, so that appends get their turn in between.
            while journal.trim(below, before)? >= TRIM_BATCHES {}
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests;
