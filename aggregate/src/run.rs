//! One partition's loop: read, fold, flush, commit.

use crate::fold::{FOLD_VERSION, Rows, WindowState};
use crate::source::{Source, SourceError};
use crate::store::{StoreError, SummaryStore};
use crate::window::{Commit, Cut, WindowStart};
use schemas::Hour;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How a partition is folded.
#[derive(Clone, Copy, Debug)]
pub struct AggregateConfig {
    /// How new windows are cut.
    pub cut: Cut,
    /// How long rows may wait before they are written.
    pub flush_every: Duration,
    /// Changed cells that cause a flush before its time.
    pub flush_cells: usize,
    /// How long the last flush may take when stopping.
    pub stop_within: Duration,
}

impl Default for AggregateConfig {
    fn default() -> Self {
        AggregateConfig {
            cut: Cut::default(),
            flush_every: Duration::from_secs(5),
            flush_cells: 500_000,
            stop_within: Duration::from_secs(10),
        }
    }
}

/// Why folding stopped. Going on would have given wrong figures.
#[derive(Debug, thiserror::Error)]
pub enum AggregateError {
    /// The log failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// ClickHouse failed at start.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Records of an unfinished window are gone.
    #[error(
        "the log begins at offset {begin}, but the open window began at {needed}: records were removed before they \
         were safely counted. Restore the log, or start a new one; raise its retention well above the window"
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
         older copy. Restore the newer log, or remove the log's file to start a new one"
    )]
    Behind {
        /// Offset in the ledger.
        counted: u64,
        /// End of the log.
        end: u64,
    },
    /// The log lost its commit.
    #[error(
        "the log begins at offset {begin} and has no commit, so the open window is unknown; restore the log, or remove \
         its file to start a new one"
    )]
    NoCommit {
        /// Oldest offset in the log.
        begin: u64,
    },
    /// The commit is of other rules and was not drained.
    #[error(
        "the open window was folded by rules {found}, this program has rules {FOLD_VERSION}: stop the old version \
         gracefully (SIGTERM) so that it drains, then start this one"
    )]
    OtherFold {
        /// Rules in the commit.
        found: u32,
    },
    /// The commit belongs to another stream.
    #[error("the commit found belongs to another log ({found}); expected {expected}")]
    OtherStream {
        /// In the commit.
        found: String,
        /// Of the log.
        expected: String,
    },
}

/// A window being folded, with the cut that holds for it.
struct Open {
    state: WindowState,
    cut: Cut,
    /// Bytes of its records so far.
    bytes: u64,
}

struct Flush {
    task: JoinHandle<()>,
    commit: Commit,
}

impl Drop for Flush {
    fn drop(&mut self) {
        // Whoever gives a flush up has not committed it, so it will be folded again.
        self.task.abort();
    }
}

/// Folds one partition until `shutdown` resolves or an error makes going on wrong. On shutdown the log is read to its
/// end, flushed and committed, within the configured time; whatever is left then is folded at the next start.
pub async fn run<S: Source>(
    config: AggregateConfig,
    mut source: S,
    store: SummaryStore,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), AggregateError> {
    tokio::pin!(shutdown);
    let (mut position, mut first_cut) = tokio::select! {
        found = starting_point(&mut source, &store, config.cut) => found?,
        () = &mut shutdown => return Ok(()),
    };
    let mut open: Option<Open> = None;
    let mut flush: Option<Flush> = None;
    let mut next_flush = Instant::now() + config.flush_every;
    let mut undecodable_logged = 0u32;
    let mut reading_fails = false;
    let mut stop_at: Option<Instant> = None;
    loop {
        let wait = next_flush.saturating_duration_since(Instant::now()).min(Duration::from_millis(500));
        let read = match stop_at {
            Some(_) => source.read(position, Duration::ZERO).await,
            None => tokio::select! {
                biased;
                () = &mut shutdown => {
                    stop_at = Some(Instant::now() + config.stop_within);
                    continue;
                }
                read = source.read(position, wait) => read,
            },
        };
        let batches = match read {
            Ok(batches) => {
                reading_fails = false;
                batches
            }
            Err(error) if error.passing => {
                if !std::mem::replace(&mut reading_fails, true) {
                    tracing::warn!(%error, "trying again until it can");
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
                Vec::new()
            }
            Err(error) => return Err(error.into()),
        };
        if stop_at.is_some_and(|stop_at| batches.is_empty() || Instant::now() >= stop_at) {
            break;
        }
        for batch in batches {
            let appended = batch.appended.unwrap_or(Hour(0));
            for (index, record) in batch.records.iter().enumerate() {
                let offset = batch.first_offset + index as u64;
                if offset < position {
                    continue;
                }
                let ends = |open: &Open| open.cut.begins_window(open.state.start(), open.bytes, offset, appended);
                if open.as_ref().is_some_and(ends) {
                    let mut ended = open.take().expect("just seen");
                    let rows = ended.state.freeze();
                    let stop_seen = AtomicBool::new(false);
                    let closed = {
                        let close = async {
                            finish(&mut flush, &mut source).await;
                            write_until_done(&store, &rows).await;
                        };
                        let stopped = async {
                            if stop_at.is_none() {
                                (&mut shutdown).await;
                                stop_seen.store(true, Ordering::Relaxed);
                            }
                            // From here on in any case a bounded time.
                            tokio::time::sleep(config.stop_within).await;
                        };
                        tokio::select! {
                            () = close => true,
                            () = stopped => false,
                        }
                    };
                    if !closed {
                        // Not committed, so the whole window is folded again at the next start.
                        return Ok(());
                    }
                    if stop_seen.into_inner() {
                        // A future that has resolved must not be asked again.
                        stop_at = Some(Instant::now() + config.stop_within);
                    }
                    let commit = commit_of(source.stream(), None, offset, config.cut);
                    tell(&mut source, &commit).await;
                }
                let open = open.get_or_insert_with(|| Open {
                    state: WindowState::new(source.stream(), WindowStart { offset, appended_hour: appended.0 }),
                    cut: first_cut.take().unwrap_or(config.cut),
                    bytes: 0,
                });
                open.bytes += record.len() as u64;
                if let Err(error) = open.state.apply(offset, record) {
                    undecodable_logged += 1;
                    if undecodable_logged <= 10 {
                        tracing::warn!(offset, %error, "a record does not decode; it is counted in the ledger and skipped");
                    }
                }
                position = offset + 1;
            }
            // Let other tasks run between batches of a long catch-up.
            tokio::task::yield_now().await;
        }
        if flush.as_ref().is_some_and(|flush| flush.task.is_finished()) {
            finish(&mut flush, &mut source).await;
        }
        if let Some(open) = open.as_mut().filter(|open| open.state.is_dirty()) {
            let due = Instant::now() >= next_flush || open.state.dirty() >= config.flush_cells;
            if due && flush.is_none() {
                flush = Some(start_flush(&store, open, source.stream()));
                next_flush = Instant::now() + config.flush_every;
            }
        } else if Instant::now() >= next_flush {
            next_flush = Instant::now() + config.flush_every;
        }
    }
    let drain = async {
        finish(&mut flush, &mut source).await;
        if let Some(open) = &mut open {
            if open.state.is_dirty() {
                flush = Some(start_flush(&store, open, source.stream()));
                finish(&mut flush, &mut source).await;
            }
            let window = Some(open.state.start());
            let last = commit_of(source.stream(), window, open.state.next_offset(), open.cut);
            tell(&mut source, &Commit { drained: true, ..last }).await;
        }
    };
    if tokio::time::timeout(config.stop_within, drain).await.is_err() {
        tracing::warn!("ClickHouse did not take the last rows in time; they will be folded again at the next start");
    }
    Ok(())
}

/// Where to read from, and how the window that begins there is cut. What the log says of it is brought up to date: the
/// cut must be known before any row of its window is written, and `drained` ends where folding begins.
async fn starting_point<S: Source>(
    source: &mut S,
    store: &SummaryStore,
    cut: Cut,
) -> Result<(u64, Option<Cut>), AggregateError> {
    let begin = source.begin().await?;
    let end = source.end().await?;
    let counted = loop {
        match store.ledger_end(source.stream()).await {
            Ok(counted) => break counted,
            Err(error) => {
                tracing::warn!(%error, "cannot read the ledger yet; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    if counted > end {
        return Err(AggregateError::Behind { counted, end });
    }
    let commit = match source.committed().await? {
        // The cut is a function of the log: from its very beginning, every window comes out as before.
        None if begin == 0 => commit_of(source.stream(), None, 0, cut),
        None => return Err(AggregateError::NoCommit { begin }),
        Some(commit) if commit.stream != source.stream() => {
            let (found, expected) = (commit.stream.to_string(), source.stream().to_string());
            return Err(AggregateError::OtherStream { found, expected });
        }
        Some(commit) if commit.fold_version != FOLD_VERSION => {
            if !commit.drained {
                return Err(AggregateError::OtherFold { found: commit.fold_version });
            }
            // Every row of the old rules ends at this offset, so a window of the new ones may begin there.
            commit_of(source.stream(), None, commit.next_offset, cut)
        }
        Some(commit) => Commit { drained: false, ..commit },
    };
    let needed = commit.resume_at();
    if begin > needed {
        return Err(AggregateError::Truncated { begin, needed });
    }
    while let Err(error) = source.commit(&commit).await {
        if !error.passing {
            return Err(error.into());
        }
        tracing::warn!(%error, "nothing is folded before this can be written; trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok((needed, Some(commit.cut)))
}

fn commit_of(stream: schemas::StreamId, window: Option<WindowStart>, next_offset: u64, cut: Cut) -> Commit {
    Commit { stream, window, next_offset, cut, fold_version: FOLD_VERSION, drained: false }
}

fn start_flush(store: &SummaryStore, open: &mut Open, stream: schemas::StreamId) -> Flush {
    let rows = open.state.freeze();
    let commit = commit_of(stream, Some(open.state.start()), open.state.next_offset(), open.cut);
    let store = store.clone();
    Flush { task: tokio::spawn(async move { write_until_done(&store, &rows).await }), commit }
}

/// Waits for the flush under way and commits it. Rows first, then the commit: never the other way round.
async fn finish<S: Source>(flush: &mut Option<Flush>, source: &mut S) {
    let Some(under_way) = flush else { return };
    match (&mut under_way.task).await {
        Ok(()) => tell(source, &under_way.commit).await,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => {}
    }
    *flush = None;
}

/// Commits. A commit that fails loses nothing: the next one says more, and without one more is folded again.
async fn tell<S: Source>(source: &mut S, commit: &Commit) {
    if let Err(error) = source.commit(commit).await {
        tracing::warn!(%error, "the commit will be made up for by the next one");
    }
}

/// Sends the same rows until ClickHouse acknowledges them all.
async fn write_until_done(store: &SummaryStore, rows: &Rows) {
    let mut pause = Duration::from_millis(100);
    let mut failing = false;
    while let Err(error) = store.write(rows).await {
        if !failing {
            tracing::warn!(%error, "rows are not stored yet; sending them again until they are");
            failing = true;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
    if failing {
        tracing::info!("ClickHouse takes rows again");
    }
}
