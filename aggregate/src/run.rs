//! One partition's loop: read, fold, flush, commit.

mod writer;

use crate::aggregate_error::AggregateError;
use crate::commit::Commit;
use crate::failpoint::{self, Failpoint, Step};
use crate::flush_policy::FlushPolicy;
use crate::fold::{Limits, WindowState};
use crate::progress::Progress;
use crate::sink::RowSink;
use crate::source::{RecordBatch, Source, SourceError};
use crate::start::starting_point;
use crate::window::{WindowPolicy, WindowStart};
use crate::writes::Writes;
use schemas::Hour;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use writer::{PendingWrite, Writer};

/// Longest wait for records between two checks.
const READ_WAIT: Duration = Duration::from_millis(500);
/// The same during a backlog, whose end causes a flush.
const BACKLOG_READ_WAIT: Duration = Duration::from_millis(50);
/// Pause after a temporary error of the log.
const READ_RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Records that do not decode of which each is logged. The ledger counts all of them.
const UNDECODABLE_LOGGED: u32 = 10;

/// How a partition is folded.
#[derive(Clone, Debug)]
pub struct AggregateConfig {
    /// Window policy of new windows.
    pub window_policy: WindowPolicy,
    /// How long rows may wait before they are written; six times as long during a backlog.
    pub flush_every: Duration,
    /// Changed cells that cause a flush before its time.
    pub flush_cells: usize,
    /// Longest time of the last flush at a stop.
    pub stop_within: Duration,
    /// Whether a stop first reads the log to its end (a log that no other process reads), or ends immediately (other members continue).
    pub stop_at_end: bool,
    /// Whether to continue if ClickHouse is older than the log and the log no longer holds the missing records.
    pub recover: bool,
    /// Failpoint at which the process aborts.
    pub failpoint: Option<Arc<Failpoint>>,
    /// Limits of a window. They are part of the fold's rules: only tests use others than the default.
    pub limits: Limits,
    /// The lock by which a backup pauses flushes.
    pub writes: Writes,
}

impl Default for AggregateConfig {
    fn default() -> Self {
        AggregateConfig {
            window_policy: WindowPolicy::default(),
            flush_every: Duration::from_secs(5),
            flush_cells: 500_000,
            stop_within: Duration::from_secs(10),
            stop_at_end: false,
            recover: false,
            failpoint: None,
            limits: Limits::default(),
            writes: Writes::default(),
        }
    }
}

/// A window that is being folded.
struct OpenWindow {
    state: WindowState,
    policy: WindowPolicy,
    /// Bytes of its records so far.
    bytes: u64,
}

impl OpenWindow {
    /// The commit of the rows that a freeze returns now.
    fn commit(&self, source: &impl Source) -> Commit {
        Commit::new(source.stream(), Some(self.state.start()), self.state.next_offset(), self.policy)
    }
}

/// The next step of a partition's loop.
enum NextStep {
    /// Fold these batches; there may be none.
    Fold(Vec<RecordBatch>),
    /// Commit the flush, whose rows are durable.
    Commit,
    /// End the loop.
    Stop,
}

/// A stop came while the last rows of a closed window waited for ClickHouse. The window is not committed, so it is folded again at the next
/// start.
struct StoppedEarly;

/// A partition's loop, between two reads.
struct Loop<S, K, F> {
    config: AggregateConfig,
    source: S,
    writer: Writer<K>,
    progress: Arc<Progress>,
    shutdown: Pin<Box<F>>,
    /// Deadline of the stop; set once `shutdown` has resolved.
    stop_at: Option<Instant>,
    open: Option<OpenWindow>,
    /// The window policy of the first window, if a commit recorded one.
    first_policy: Option<WindowPolicy>,
    /// The start of the window that was open at the last commit, until the first record is compared with it.
    expected: Option<WindowStart>,
    /// The first window does not end before this offset ([`crate::start::StartingPoint::not_before`]).
    not_before: u64,
    /// The current flush. There is one at a time.
    flush: Option<PendingWrite>,
    flush_policy: FlushPolicy,
    /// Offset after the last record folded.
    position: u64,
    undecodable_logged: u32,
}

/// Folds one partition into `sink` until `shutdown` resolves. At a shutdown the folded records are flushed and committed, within the
/// configured time; the rest is folded at the next start. If the returned future is dropped, no further row is written.
///
/// # Errors
/// Continuing would give wrong figures.
pub async fn run<S: Source, K: RowSink>(
    config: AggregateConfig,
    mut source: S,
    sink: K,
    progress: Arc<Progress>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), AggregateError> {
    let mut shutdown = Box::pin(shutdown);
    let start = tokio::select! {
        biased;
        () = &mut shutdown => return Ok(()),
        found = starting_point(&mut source, &sink, config.window_policy, config.recover, &progress) => found?,
    };
    Progress::set(&progress.committed, start.offset);
    let partition = Loop {
        flush_policy: FlushPolicy::new(config.flush_every, config.flush_cells, Instant::now(), start.offset),
        writer: Writer::new(sink, config.writes.clone(), Arc::clone(&progress)),
        config,
        source,
        progress,
        shutdown,
        stop_at: None,
        open: None,
        first_policy: Some(start.window_policy),
        expected: start.window,
        not_before: start.not_before,
        flush: None,
        position: start.offset,
        undecodable_logged: 0,
    };
    partition.run().await
}

impl<S: Source, K: RowSink, F: Future<Output = ()> + Send> Loop<S, K, F> {
    async fn run(mut self) -> Result<(), AggregateError> {
        loop {
            match self.next_step().await? {
                NextStep::Fold(batches) => {
                    self.check_first(&batches)?;
                    if let Err(StoppedEarly) = self.fold_all(&batches).await {
                        return Ok(());
                    }
                }
                NextStep::Commit => {}
                NextStep::Stop => break,
            }
            if self.flush.as_ref().is_some_and(PendingWrite::is_written) {
                self.finish_flush().await;
            }
            if self.flush.is_none() {
                self.flush_if_due();
            }
        }
        let within = self.config.stop_within;
        if tokio::time::timeout(within, self.drain()).await.is_err() {
            tracing::warn!(
                "ClickHouse did not acknowledge the last rows in time; their records are folded again at the next start"
            );
        }
        Ok(())
    }

    /// The next step, waiting until the next flush at most.
    async fn next_step(&mut self) -> Result<NextStep, AggregateError> {
        let most = if self.flush_policy.has_backlog(self.position) { BACKLOG_READ_WAIT } else { READ_WAIT };
        let wait = match self.flush {
            // The next flush starts after this one has ended.
            Some(_) => most,
            None => self.flush_policy.next_flush().saturating_duration_since(Instant::now()).min(most),
        };
        if self.stop_at.is_none() {
            tokio::select! {
                biased;
                () = &mut self.shutdown => self.stop_at = Some(Instant::now() + self.config.stop_within),
                // The commit waits for this flush, and possibly the next flush.
                () = async { self.flush.as_mut().expect("guarded").written().await }, if self.flush.is_some() => {
                    return Ok(NextStep::Commit);
                }
                read = self.source.read(self.position, wait) => return self.batches(read).await.map(NextStep::Fold),
            }
        }
        if !self.config.stop_at_end || self.stop_at.is_some_and(|stop_at| Instant::now() >= stop_at) {
            return Ok(NextStep::Stop);
        }
        let read = self.source.read(self.position, Duration::ZERO).await;
        let batches = self.batches(read).await?;
        Ok(if batches.is_empty() { NextStep::Stop } else { NextStep::Fold(batches) })
    }

    /// The batches that were read; none after a temporary error, so that they are read again.
    async fn batches(
        &mut self,
        read: Result<Vec<RecordBatch>, SourceError>,
    ) -> Result<Vec<RecordBatch>, AggregateError> {
        match read {
            Ok(batches) => {
                self.progress.source_fails.store(false, Ordering::Relaxed);
                Ok(batches)
            }
            Err(error) if error.temporary => {
                if !self.progress.source_fails.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "reading again until it succeeds");
                }
                tokio::time::sleep(READ_RETRY_PAUSE).await;
                Ok(Vec::new())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Compares the first record with the start of the committed window.
    fn check_first(&mut self, batches: &[RecordBatch]) -> Result<(), AggregateError> {
        let Some(first) = batches.first() else { return Ok(()) };
        // The hour of a hole is unknown.
        match self.expected.take().filter(|window| first.lost() == 0 && first.appended().0 != window.appended_hour) {
            None => Ok(()),
            Some(WindowStart { offset, appended_hour }) => {
                Err(AggregateError::Replaced { offset, expected: appended_hour, found: first.appended().0 })
            }
        }
    }

    async fn fold_all(&mut self, batches: &[RecordBatch]) -> Result<(), StoppedEarly> {
        for batch in batches {
            match batch.lost() {
                0 => self.fold(batch).await?,
                _ => self.pass_hole(batch).await?,
            }
            // Let other tasks run between batches of a long catch-up.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn fold(&mut self, batch: &RecordBatch) -> Result<(), StoppedEarly> {
        let appended = batch.appended();
        for (offset, record) in batch.records() {
            if offset < self.position {
                continue;
            }
            let open = self.window_at(offset, appended).await?;
            open.bytes += record.len() as u64;
            if let Err(error) = open.state.apply(offset, record) {
                self.undecodable_logged += 1;
                if self.undecodable_logged <= UNDECODABLE_LOGGED {
                    tracing::warn!(offset, %error, "a record does not decode; it is counted in the ledger and skipped");
                }
            }
            self.position = offset + 1;
        }
        if let Some(open) = &self.open {
            Progress::set(&self.progress.folded, self.position);
            Progress::set(&self.progress.window_bytes, open.bytes);
            Progress::set(&self.progress.undecodable, open.state.outcomes().undecodable);
        }
        Ok(())
    }

    /// Counts a whole hole as lost, in the window of its first offset: a function of the log, as for records.
    async fn pass_hole(&mut self, hole: &RecordBatch) -> Result<(), StoppedEarly> {
        let (first, next) = (hole.first_offset().max(self.position), hole.next_offset());
        if next <= first {
            return Ok(());
        }
        let open = self.window_at(first, hole.appended()).await?;
        open.state.pass_hole(next);
        let lost = next - first;
        tracing::warn!(offset = first, next, lost, "the log has a hole; its records are counted as lost");
        self.position = next;
        Progress::set(&self.progress.folded, next);
        Ok(())
    }

    /// The window of the record at `offset`, appended at `appended`: the open one, or a new one.
    async fn window_at(&mut self, offset: u64, appended: Hour) -> Result<&mut OpenWindow, StoppedEarly> {
        let ends = |open: &OpenWindow| {
            offset >= self.not_before && open.policy.starts_new_window(open.state.start(), open.bytes, offset, appended)
        };
        if self.open.as_ref().is_some_and(ends) {
            self.close_window(offset).await?;
        }
        Ok(self.open.get_or_insert_with(|| {
            Progress::set(&self.progress.window, offset);
            let start = WindowStart { offset, appended_hour: appended.0 };
            OpenWindow {
                state: WindowState::with_limits(self.source.stream(), start, self.config.limits),
                policy: self.first_policy.take().unwrap_or(self.config.window_policy),
                bytes: 0,
            }
        }))
    }

    /// Writes and commits the last rows of the open window; the next window starts at `next`.
    async fn close_window(&mut self, next: u64) -> Result<(), StoppedEarly> {
        let Some(mut closed) = self.open.take() else { return Ok(()) };
        let commit = Commit::new(self.source.stream(), None, next, self.config.window_policy);
        let mut last = self.writer.start(closed.state.freeze(), commit);
        let written = async {
            // The commit contains the one of this flush.
            if let Some(flush) = &mut self.flush {
                flush.written().await;
            }
            last.written().await;
        };
        let within = self.config.stop_within;
        let stopped = async {
            if self.stop_at.is_none() {
                (&mut self.shutdown).await;
                self.stop_at = Some(Instant::now() + within);
            }
            tokio::time::sleep(within).await;
        };
        tokio::select! {
            biased;
            () = written => {}
            () = stopped => return Err(StoppedEarly),
        }
        self.flush = None;
        failpoint::pass(self.config.failpoint.as_deref(), Step::WindowEnd);
        self.commit(commit).await;
        Ok(())
    }

    fn flush_if_due(&mut self) {
        let dirty = self.open.as_ref().map_or(0, |open| open.state.dirty());
        let now = Instant::now();
        if self.flush_policy.due(now, self.position, self.source.seen_end(), dirty) {
            self.start_flush();
            self.flush_policy.flush_started(now, self.position);
        }
    }

    /// Starts to write the changed rows, if there are any.
    fn start_flush(&mut self) {
        let Some(open) = self.open.as_mut().filter(|open| open.state.is_dirty()) else { return };
        let rows = open.state.freeze();
        Progress::set(&self.progress.cells, open.state.cells() as u64);
        failpoint::pass(self.config.failpoint.as_deref(), Step::Frozen);
        self.flush = Some(self.writer.start(rows, open.commit(&self.source)));
    }

    /// Waits for the current flush and commits it. Rows always precede the commit.
    async fn finish_flush(&mut self) {
        if let Some(flush) = &mut self.flush {
            flush.written().await;
        }
        if let Some(flush) = self.flush.take() {
            self.commit(flush.commit()).await;
        }
    }

    /// The last flush, and a commit that marks the partition as drained.
    async fn drain(&mut self) {
        self.finish_flush().await;
        self.start_flush();
        self.finish_flush().await;
        if let Some(open) = &self.open {
            let last = open.commit(&self.source);
            self.commit(Commit { drained: true, ..last }).await;
        }
    }

    /// Commits. A failed commit loses nothing: the next one includes it, and without a next one more records are folded again.
    async fn commit(&mut self, commit: Commit) {
        match self.source.commit(&commit).await {
            Ok(()) => {
                Progress::set(&self.progress.committed, commit.next_offset);
                failpoint::pass(self.config.failpoint.as_deref(), Step::Committed);
            }
            Err(error) => {
                Progress::add(&self.progress.failed_commits, 1);
                tracing::warn!(%error, "the commit failed; the next one includes it");
            }
        }
    }
}

#[cfg(test)]
mod tests;
