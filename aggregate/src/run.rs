//! One partition's loop: read, fold, flush, commit.

use crate::cadence::Cadence;
use crate::fold::{FOLD_VERSION, Rows, WindowState};
use crate::progress::Progress;
use crate::source::{RecordBatch, Source, SourceError};
use crate::start::{OlderStore, commit_of, starting_point};
use crate::steps::{self, AbortAt, Step};
use crate::store::SummaryStore;
use crate::window::{Commit, Cut, WindowStart};
use schemas::Hour;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use storage::{CallError, FailureKind};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Interval of checks for the end of a backlog while no record arrives.
const LOOK_FOR_END: Duration = Duration::from_millis(50);

/// How a partition is folded.
#[derive(Clone, Debug)]
pub struct AggregateConfig {
    /// Window policy of new windows.
    pub cut: Cut,
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
    pub abort_at: Option<Arc<AbortAt>>,
}

impl Default for AggregateConfig {
    fn default() -> Self {
        AggregateConfig {
            cut: Cut::default(),
            flush_every: Duration::from_secs(5),
            flush_cells: 500_000,
            stop_within: Duration::from_secs(10),
            stop_at_end: false,
            recover: false,
            abort_at: None,
        }
    }
}

/// Why folding stopped. Continuing would have given wrong figures.
#[derive(Debug, thiserror::Error)]
pub enum AggregateError {
    /// Reading or committing the log failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// ClickHouse failed at the start.
    #[error(transparent)]
    Store(#[from] CallError),
    /// Records of an unfinished window were removed from the log.
    #[error(
        "the log begins at offset {begin}, but the open window began at {needed}: records were removed before they \
         were safely counted. Restore the log, or give up what is gone and begin anew (topic: `headcount topic reset \
         --new-log`; journal: remove its file); raise the retention well above the window"
    )]
    Truncated {
        /// Oldest offset in the log.
        begin: u64,
        /// Offset that is needed.
        needed: u64,
    },
    /// The log is shorter than what was counted from it.
    #[error(
        "ClickHouse has counted up to offset {counted} of this log, but the log ends at {end}: it was replaced by an \
         older copy, or made anew. Restore the newer log, or begin a new one (topic: `headcount topic reset --new-log`; \
         journal: remove its file)"
    )]
    Behind {
        /// Offset in the ledger.
        counted: u64,
        /// End of the log.
        end: u64,
    },
    /// The record at the window's start differs from the one that was counted.
    #[error(
        "the open window began at offset {offset} with a record appended in hour {expected} since the epoch, but the log \
         has one of hour {found} there: the log was made anew or replaced. Restore it, or begin a new one (topic: \
         `headcount topic reset --new-log`; journal: remove its file)"
    )]
    Replaced {
        /// First offset of the window.
        offset: u64,
        /// In the commit.
        expected: u32,
        /// In the log.
        found: u32,
    },
    /// ClickHouse was replaced by an older copy or emptied, and the log no longer holds the missing records.
    #[error("{0}")]
    OlderStore(OlderStore),
    /// The log has lost its commit.
    #[error(
        "the log begins at offset {begin} and has no commit, so the open window is unknown: restore the commit (topic: \
         `headcount topic reset --from-ledger`), or begin a new log (topic: `headcount topic reset --new-log`; journal: \
         remove its file)"
    )]
    NoCommit {
        /// Oldest offset in the log.
        begin: u64,
    },
    /// The commit was written with other rules of the fold, and not drained.
    #[error(
        "the open window was folded by rules {found}, this program has rules {FOLD_VERSION}: start the old version once \
         more and stop it gracefully (SIGTERM) so that it drains, then start this one"
    )]
    OtherFold {
        /// Rules in the commit.
        found: u32,
    },
    /// The commit belongs to another stream.
    #[error("the commit found belongs to another log ({found}); expected {expected}")]
    OtherStream {
        /// The stream in the commit.
        found: String,
        /// The stream of the log.
        expected: String,
    },
}

/// A window being folded, with its window policy.
struct Open {
    state: WindowState,
    cut: Cut,
    /// Bytes of its records so far.
    bytes: u64,
}

/// The next step of a partition's loop.
enum Next {
    /// Fold these batches; there may be none.
    Records(Vec<RecordBatch>),
    /// A flush has written its rows.
    Written,
    /// End the loop.
    Stop,
}

struct Flush {
    task: JoinHandle<()>,
    commit: Commit,
    /// Notified when this flush is written. One `Notify` per flush, so that no earlier flush is mistaken for it.
    written: Arc<Notify>,
}

impl Drop for Flush {
    fn drop(&mut self) {
        // A flush that is dropped is not committed, so its records will be folded again.
        self.task.abort();
    }
}

/// A partition's loop, between two reads.
struct Loop<S, F> {
    config: AggregateConfig,
    source: S,
    store: SummaryStore,
    progress: Arc<Progress>,
    shutdown: Pin<Box<F>>,
    /// Deadline of the stop; set once `shutdown` has resolved.
    stop_at: Option<Instant>,
    open: Option<Open>,
    /// The window policy of the first window, if a commit recorded one.
    first_cut: Option<Cut>,
    /// The first window does not end before this offset ([`crate::start::StartingPoint::not_before`]).
    not_before: u64,
    flush: Option<Flush>,
    cadence: Cadence,
    position: u64,
    undecodable_logged: u32,
}

/// Folds one partition until `shutdown` resolves, or an error would make the figures wrong. At a shutdown the folded records are flushed
/// and committed, within the configured time; the rest is folded at the next start.
pub async fn run<S: Source>(
    config: AggregateConfig,
    mut source: S,
    store: SummaryStore,
    progress: Arc<Progress>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), AggregateError> {
    let mut shutdown = Box::pin(shutdown);
    let start = tokio::select! {
        found = starting_point(&mut source, &store, config.cut, config.recover, &progress) => found?,
        () = &mut shutdown => return Ok(()),
    };
    let mut expected = start.window;
    Progress::set(&progress.committed, start.offset);
    let cadence = Cadence::new(config.flush_every, config.flush_cells, Instant::now(), start.offset);
    let mut this = Loop {
        config,
        source,
        store,
        progress,
        shutdown,
        stop_at: None,
        open: None,
        first_cut: Some(start.cut),
        not_before: start.not_before,
        flush: None,
        cadence,
        position: start.offset,
        undecodable_logged: 0,
    };
    loop {
        let batches = match this.read().await? {
            Next::Records(batches) => batches,
            Next::Written => {
                this.finish_flush().await;
                Vec::new()
            }
            Next::Stop => break,
        };
        // The hour of a hole is unknown.
        if let (Some(window), Some(first)) = (expected, batches.first().filter(|first| first.lost() == 0)) {
            let found = first.appended().0;
            if found != window.appended_hour {
                return Err(AggregateError::Replaced { offset: window.offset, expected: window.appended_hour, found });
            }
            expected = None;
        }
        for batch in batches {
            if !this.fold(&batch).await {
                // The window is not committed, so all of it is folded again at the next start.
                return Ok(());
            }
            // Let other tasks run between batches of a long catch-up.
            tokio::task::yield_now().await;
        }
        if this.flush.as_ref().is_some_and(|flush| flush.task.is_finished()) {
            this.finish_flush().await;
        }
        if this.flush.is_none() {
            this.flush_if_due();
        }
    }
    let within = this.config.stop_within;
    if tokio::time::timeout(within, this.drain()).await.is_err() {
        tracing::warn!("ClickHouse did not take the last rows in time; they will be folded again at the next start");
    }
    Ok(())
}

impl<S: Source, F: Future<Output = ()> + Send> Loop<S, F> {
    /// The next step, waiting until the next flush at most.
    async fn read(&mut self) -> Result<Next, AggregateError> {
        let most = if self.cadence.behind(self.position) { LOOK_FOR_END } else { Duration::from_millis(500) };
        let wait = match self.flush {
            // The next flush starts after this one has ended.
            Some(_) => most,
            None => self.cadence.next().saturating_duration_since(Instant::now()).min(most),
        };
        if self.stop_at.is_none() {
            tokio::select! {
                biased;
                () = &mut self.shutdown => self.stop_at = Some(Instant::now() + self.config.stop_within),
                // The commit waits for this flush, and possibly the next flush.
                () = async { self.flush.as_ref().expect("guarded").written.notified().await }, if self.flush.is_some() =>
                {
                    return Ok(Next::Written);
                }
                read = self.source.read(self.position, wait) => return self.seen(read).await.map(Next::Records),
            }
        }
        if !self.config.stop_at_end || self.stop_at.is_some_and(|stop_at| Instant::now() >= stop_at) {
            return Ok(Next::Stop);
        }
        let read = self.source.read(self.position, Duration::ZERO).await;
        let batches = self.seen(read).await?;
        Ok(if batches.is_empty() { Next::Stop } else { Next::Records(batches) })
    }

    fn flush_if_due(&mut self) {
        let dirty = self.open.as_ref().map_or(0, |open| open.state.dirty());
        let now = Instant::now();
        if self.cadence.due(now, self.position, self.source.seen_end(), dirty) {
            self.start_flush();
            self.cadence.begun(now, self.position);
        }
    }

    /// Temporary errors are retried.
    async fn seen(&mut self, read: Result<Vec<RecordBatch>, SourceError>) -> Result<Vec<RecordBatch>, AggregateError> {
        match read {
            Ok(batches) => {
                self.progress.source_fails.store(false, Ordering::Relaxed);
                Ok(batches)
            }
            Err(error) if error.passing => {
                if !self.progress.source_fails.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "trying again until it can");
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
                Ok(Vec::new())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Folds a batch. Returns false if a stop came while the end of a window waited for ClickHouse.
    async fn fold(&mut self, batch: &RecordBatch) -> bool {
        if batch.lost() > 0 {
            return self.pass_hole(batch).await;
        }
        let appended = batch.appended();
        for (offset, record) in batch.records() {
            if offset < self.position {
                continue;
            }
            let Some(open) = self.window_at(offset, appended).await else { return false };
            open.bytes += record.len() as u64;
            if let Err(error) = open.state.apply(offset, record) {
                self.undecodable_logged += 1;
                if self.undecodable_logged <= 10 {
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
        true
    }

    /// The window of the record at `offset`, appended at `appended`: the open one, or a new one. None if a stop came while the end of the
    /// open window waited for ClickHouse.
    async fn window_at(&mut self, offset: u64, appended: Hour) -> Option<&mut Open> {
        let ends = |open: &Open| {
            offset >= self.not_before && open.cut.begins_window(open.state.start(), open.bytes, offset, appended)
        };
        if self.open.as_ref().is_some_and(ends) && !self.end_window(offset).await {
            return None;
        }
        Some(self.open.get_or_insert_with(|| {
            Progress::set(&self.progress.window, offset);
            Open {
                state: WindowState::new(self.source.stream(), WindowStart { offset, appended_hour: appended.0 }),
                cut: self.first_cut.take().unwrap_or(self.config.cut),
                bytes: 0,
            }
        }))
    }

    /// Counts a whole hole as lost, in the window of its first offset: a function of the log, as for records. Returns false if a stop came
    /// first.
    async fn pass_hole(&mut self, hole: &RecordBatch) -> bool {
        let (first, next) = (hole.first_offset().max(self.position), hole.next_offset());
        if next <= first {
            return true;
        }
        let Some(open) = self.window_at(first, hole.appended()).await else { return false };
        open.state.pass_hole(next);
        tracing::warn!(
            offset = first,
            next,
            lost = next - first,
            "the log has a hole; its records are counted as lost"
        );
        self.position = next;
        Progress::set(&self.progress.folded, next);
        true
    }

    /// Writes the last rows of the open window and drops it; the next window starts at `next`. Returns false if a stop came first.
    async fn end_window(&mut self, next: u64) -> bool {
        let Some(mut ended) = self.open.take() else { return true };
        let rows = ended.state.freeze();
        let (within, mut stopping) = (self.config.stop_within, self.stop_at.is_some());
        let (store, progress) = (self.store.clone(), Arc::clone(&self.progress));
        let mut write = tokio::spawn(async move { write_until_done(&store, &rows, &progress).await });
        let mut limit = Instant::now() + within;
        let written = loop {
            tokio::select! {
                biased;
                done = async { self.flush.as_mut().map(|flush| &mut flush.task).expect("guarded").await },
                    if self.flush.is_some() =>
                {
                    rethrow(done);
                    if let Some(flush) = self.flush.take() {
                        self.tell(flush.commit).await;
                    }
                }
                done = &mut write, if self.flush.is_none() => {
                    rethrow(done);
                    break true;
                }
                () = &mut self.shutdown, if !stopping => {
                    // From here on the time is limited in any case.
                    stopping = true;
                    limit = Instant::now() + within;
                    self.stop_at = Some(limit);
                }
                () = tokio::time::sleep_until(limit), if stopping => break false,
            }
        };
        if !written {
            write.abort();
            return false;
        }
        steps::pass(self.config.abort_at.as_deref(), Step::WindowEnd);
        let commit = commit_of(self.source.stream(), None, next, self.config.cut);
        self.tell(commit).await;
        true
    }

    /// Starts to write the changed rows, if there are any.
    fn start_flush(&mut self) {
        let Some(open) = self.open.as_mut().filter(|open| open.state.is_dirty()) else { return };
        let rows = open.state.freeze();
        Progress::set(&self.progress.cells, open.state.cells() as u64);
        steps::pass(self.config.abort_at.as_deref(), Step::Frozen);
        let commit = commit_of(self.source.stream(), Some(open.state.start()), open.state.next_offset(), open.cut);
        let (store, progress, written) = (self.store.clone(), Arc::clone(&self.progress), Arc::new(Notify::new()));
        let tell = Arc::clone(&written);
        let task = tokio::spawn(async move {
            write_until_done(&store, &rows, &progress).await;
            tell.notify_one();
        });
        self.flush = Some(Flush { task, commit, written });
    }

    /// Waits for the current flush and commits it. Rows always precede the commit.
    async fn finish_flush(&mut self) {
        if let Some(flush) = &mut self.flush {
            rethrow((&mut flush.task).await);
        }
        if let Some(flush) = self.flush.take() {
            self.tell(flush.commit).await;
        }
    }

    /// The last flush, and a commit that marks the partition as drained.
    async fn drain(&mut self) {
        self.finish_flush().await;
        self.start_flush();
        self.finish_flush().await;
        if let Some(open) = &self.open {
            let window = Some(open.state.start());
            let last = commit_of(self.source.stream(), window, open.state.next_offset(), open.cut);
            self.tell(Commit { drained: true, ..last }).await;
        }
    }

    /// Commits. A failed commit loses nothing: the next one includes it, and without a next one more records are folded again.
    async fn tell(&mut self, commit: Commit) {
        match self.source.commit(&commit).await {
            Ok(()) => {
                Progress::set(&self.progress.committed, commit.next_offset);
                steps::pass(self.config.abort_at.as_deref(), Step::Committed);
            }
            Err(error) => {
                Progress::add(&self.progress.failed_commits, 1);
                tracing::warn!(%error, "the commit will be made up for by the next one");
            }
        }
    }
}

fn rethrow(done: Result<(), tokio::task::JoinError>) {
    if let Err(error) = done
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
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

/// End of the log line of a failed write.
const AGAIN: &str =
    "rows are not stored yet; sending them again until they are. Nothing is lost: the log keeps their records.";

/// Sends the same rows until ClickHouse acknowledges them all.
async fn write_until_done(store: &SummaryStore, rows: &Rows, progress: &Progress) {
    // The permit covers all attempts: a backup between two of them would have only some tables of a flush.
    let _permit = store.writes().permit().await;
    let mut pause = Duration::from_millis(100);
    while let Err(error) = store.write(rows).await {
        Progress::add(&progress.failed_writes, 1);
        if !progress.store_fails.swap(true, Ordering::Relaxed) {
            let remedy = remedy(&error.to_string());
            if error.failure_kind() == FailureKind::Bug {
                tracing::error!(%error, "ClickHouse refuses the rows: its schema, settings or rights do not fit this version. {AGAIN} {remedy}");
            } else {
                tracing::warn!(%error, "{AGAIN} {remedy}");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
    Progress::add(&progress.rows, rows.len() as u64);
    if progress.store_fails.swap(false, Ordering::Relaxed) {
        tracing::info!("ClickHouse takes rows again");
    }
}
