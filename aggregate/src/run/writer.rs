//! Writes the rows of a flush, until ClickHouse acknowledges all of them.

use crate::commit::Commit;
use crate::fold::Rows;
use crate::progress::Progress;
use crate::sink::RowSink;
use crate::writes::Writes;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use storage::{CallError, FailureKind};
use tokio::task::JoinHandle;

/// Pause after the first failed attempt; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// End of the log line of a failed attempt.
const NOT_LOST: &str =
    "rows are not stored yet; sending them again until they are. Nothing is lost: the log keeps their records.";

/// Starts writes.
#[derive(Clone)]
pub(super) struct Writer<K> {
    sink: K,
    writes: Writes,
    progress: Arc<Progress>,
}

/// A write in the background. Dropping it stops the write: its rows are not committed, so their records are folded again.
pub(super) struct PendingWrite {
    task: JoinHandle<()>,
    is_written: bool,
    commit: Commit,
}

impl Drop for PendingWrite {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PendingWrite {
    /// The commit for the time after the write.
    pub(super) fn commit(&self) -> Commit {
        self.commit
    }

    /// Whether all rows are durable.
    pub(super) fn is_written(&self) -> bool {
        self.is_written || self.task.is_finished()
    }

    /// Waits until all rows are durable. A wait may be dropped and repeated.
    pub(super) async fn written(&mut self) {
        if self.is_written {
            return;
        }
        match (&mut self.task).await {
            Ok(()) => self.is_written = true,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Only a drop of this flush aborts its task, and nothing may be committed then.
            Err(_) => std::future::pending().await,
        }
    }
}

impl<K: RowSink> Writer<K> {
    /// A writer for `sink`, paused by `writes`.
    pub(super) fn new(sink: K, writes: Writes, progress: Arc<Progress>) -> Self {
        Writer { sink, writes, progress }
    }

    /// Starts to write `rows`.
    pub(super) fn start(&self, rows: Rows, commit: Commit) -> PendingWrite {
        let writer = self.clone();
        PendingWrite { task: tokio::spawn(async move { writer.write(&rows).await }), is_written: false, commit }
    }

    /// Sends the same rows until the sink acknowledges all of them.
    async fn write(&self, rows: &Rows) {
        // The permit covers all attempts: a backup between two of them would have only some tables of a flush.
        let _permit = self.writes.permit().await;
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.sink.insert(rows).await {
            Progress::add(&self.progress.failed_writes, 1);
            if !self.progress.store_fails.swap(true, Ordering::Relaxed) {
                log_failure(&error);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Progress::add(&self.progress.rows, rows.len() as u64);
        if self.progress.store_fails.swap(false, Ordering::Relaxed) {
            tracing::info!("ClickHouse acknowledges rows again");
        }
    }
}

fn log_failure(error: &CallError) {
    let remedy = remedy(&error.to_string());
    if error.failure_kind() == FailureKind::Bug {
        tracing::error!(%error, "ClickHouse refuses the rows: its schema, settings or rights do not fit this version. {NOT_LOST} {remedy}");
    } else {
        tracing::warn!(%error, "{NOT_LOST} {remedy}");
    }
}

/// The remedy for refused rows, by the text of ClickHouse's error.
fn remedy(error: &str) -> &'static str {
    if ["No space left", "NOT_ENOUGH_SPACE", "Code: 243.", "File too large"].iter().any(|words| error.contains(words)) {
        "ClickHouse's disk is full: free space on it; the rows are stored then"
    } else {
        "If this lasts, check that ClickHouse runs and its disk has space"
    }
}
