//! Where a partition's loop starts: determined from the ledger, the log's commit and the range that the log still holds.

use crate::aggregate_error::AggregateError;
use crate::agreement::{Agreement, OlderStore, compare};
use crate::commit::Commit;
use crate::fold::FOLD_VERSION;
use crate::progress::Progress;
use crate::sink::{LedgerEnd, RowSink};
use crate::source::Source;
use crate::window::{WindowPolicy, WindowStart};
use schemas::Hour;
use std::time::Duration;

/// Pause between two attempts of a call that is needed to start.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Where the loop starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartingPoint {
    /// Offset to read from.
    pub offset: u64,
    /// Window policy of the window that starts there.
    pub window_policy: WindowPolicy,
    /// The open window there, if there is one.
    pub window: Option<WindowStart>,
    /// The ledger has counted that window up to this offset, so the window does not end before it. Rows of a longer window replace its
    /// rows; rows of a shorter one would leave some of them in addition to those of the next window.
    pub not_before: u64,
}

/// Repeats a call of the source until it succeeds, or fails permanently.
macro_rules! retry_source {
    ($call:expr) => {{
        let mut logged = false;
        loop {
            match $call.await {
                Err(error) if error.temporary => {
                    if !std::mem::replace(&mut logged, true) {
                        tracing::warn!(%error, "folding has not started yet; trying again");
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                outcome => break outcome?,
            }
        }
    }};
}

/// Repeats a call of the sink until it succeeds.
macro_rules! retry_sink {
    ($call:expr, $message:literal) => {
        loop {
            match $call.await {
                Ok(answer) => break answer,
                Err(error) => {
                    tracing::warn!(%error, $message);
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    };
}

/// Where to read from. The log's commit is updated: the window policy must be stored before any row of its window is written, and `drained`
/// ends when folding starts. `recover` accepts that records are lost if ClickHouse is older than the log.
///
/// # Errors
/// Folding would give wrong figures.
pub async fn starting_point<S: Source, K: RowSink>(
    source: &mut S,
    sink: &K,
    policy: WindowPolicy,
    recover: bool,
    progress: &Progress,
) -> Result<StartingPoint, AggregateError> {
    let log_start = retry_source!(source.log_start());
    let ledger = retry_sink!(sink.ledger_end(source.stream()), "cannot read the ledger yet; trying again");
    let counted = ledger.map_or(0, |ledger| ledger.next_offset);
    let commit = last_commit(source, log_start, policy).await?;
    // Last: a process that has lost the partition may count records that arrive meanwhile.
    let log_end = retry_source!(source.log_end());
    let claimed = counted.max(commit.next_offset);
    if claimed > log_end {
        return Err(AggregateError::Behind { counted: claimed, log_end });
    }
    let commit = match compare(ledger, &commit, log_start) {
        Agreement::UpToDate => with_these_rules(source, sink, commit, counted, (log_start, policy)).await?,
        Agreement::FoldAgain(window) => {
            tracing::warn!(
                ledger = counted,
                commit = commit.next_offset,
                log_begins = log_start,
                from = window.map_or(0, |window| window.offset),
                "ClickHouse is older than the log: it was replaced by an older copy, or emptied; the log still holds what it lacks, which is \
                 counted again"
            );
            Progress::set(&progress.counted_before, commit.next_offset);
            let again = Commit::new(source.stream(), window, counted, policy);
            retry_source!(source.rewind(again.resume_at()));
            if let Some(ledger) = ledger.filter(|ledger| ledger.fold_version != FOLD_VERSION) {
                remove_open_windows(source, sink, Commit { fold_version: ledger.fold_version, ..again }).await?;
            }
            again
        }
        Agreement::Lost(older) if !recover => return Err(AggregateError::OlderStore(older)),
        Agreement::Lost(older) => accept_loss(source, sink, older, ledger, policy).await?,
    };
    start_at(source, sink, commit, counted).await
}

/// The log's commit; a new one for a log that starts at offset 0.
async fn last_commit<S: Source>(
    source: &mut S,
    log_start: u64,
    policy: WindowPolicy,
) -> Result<Commit, AggregateError> {
    let expected = source.stream();
    match retry_source!(source.committed()) {
        // Windows depend on the log alone: from the log's start, every window is found again.
        None if log_start == 0 => Ok(Commit::new(expected, None, 0, policy)),
        None => Err(AggregateError::NoCommit { log_start }),
        Some(commit) if commit.stream != expected => {
            Err(AggregateError::OtherStream { found: commit.stream.to_string(), expected: expected.to_string() })
        }
        Some(commit) => Ok(commit),
    }
}

/// The commit to continue from if ClickHouse has the rows that it states. A window that other rules have folded in part is folded again by
/// these: its rows are removed first, since not every one of them would be replaced.
async fn with_these_rules<S: Source, K: RowSink>(
    source: &mut S,
    sink: &K,
    commit: Commit,
    counted: u64,
    (log_start, policy): (u64, WindowPolicy),
) -> Result<Commit, AggregateError> {
    if commit.fold_version == FOLD_VERSION {
        return Ok(Commit { drained: false, ..commit });
    }
    // A commit that was overtaken (by a process that considered its writer lost) may be `drained` at a lower offset than the ledger.
    if commit.drained && counted <= commit.next_offset {
        // Every row of the old rules ends at this offset, so a window of the new rules may start there.
        return Ok(Commit::new(commit.stream, None, commit.next_offset, policy));
    }
    let from = commit.resume_at();
    if log_start > from {
        return Err(AggregateError::OtherFold { found: commit.fold_version, log_start, needed: from });
    }
    tracing::warn!(
        rules = commit.fold_version,
        from,
        "an earlier version was not stopped gracefully; its open window is folded again by the present rules"
    );
    retry_source!(source.rewind(from));
    remove_open_windows(source, sink, commit).await?;
    Ok(Commit::new(commit.stream, None, from, policy))
}

/// Removes the rows of the open window of `commit` and of later ones, which its rules have written. The log gets a commit at the window's
/// start before: without it, a kill between the removal and the next commit would look like a ClickHouse that is older than the log. That
/// commit names the old rules, so the removal is repeated until it has succeeded.
async fn remove_open_windows<S: Source, K: RowSink>(
    source: &mut S,
    sink: &K,
    commit: Commit,
) -> Result<(), AggregateError> {
    let from = commit.resume_at();
    retry_source!(source.commit(&Commit { window: None, next_offset: from, drained: false, ..commit }));
    retry_sink!(
        sink.remove_from(source.stream(), from),
        "cannot remove the rows of a window of other rules yet; trying again"
    );
    Ok(())
}

/// Records the loss in the ledger, and returns the commit after it.
async fn accept_loss<S: Source, K: RowSink>(
    source: &mut S,
    sink: &K,
    older: OlderStore,
    ledger: Option<LedgerEnd>,
    policy: WindowPolicy,
) -> Result<Commit, AggregateError> {
    let lost = older.lost();
    tracing::warn!(
        ledger = older.ledger.unwrap_or(0),
        commit = older.commit,
        log_begins = older.log_start,
        lost = lost.end - lost.start,
        from = lost.end,
        "ClickHouse is older than the log, which no longer holds all that it lacks; the loss was accepted by --recover"
    );
    // Stored as long as the rows of a window that is counted now.
    let hour = ledger.map_or_else(|| Hour::of(chrono::Utc::now()), |ledger| Hour(ledger.window.appended_hour));
    if !lost.is_empty() {
        retry_sink!(
            sink.record_loss(source.stream(), lost.clone(), hour),
            "the loss is not in the ledger yet; trying again"
        );
    }
    let commit = Commit::new(source.stream(), None, lost.end, policy);
    retry_source!(source.rewind(commit.resume_at()));
    Ok(commit)
}

/// Stores the commit to continue from in the log. `counted`: the ledger's last offset.
async fn start_at<S: Source, K: RowSink>(
    source: &mut S,
    sink: &K,
    commit: Commit,
    counted: u64,
) -> Result<StartingPoint, AggregateError> {
    let needed = commit.resume_at();
    // Read again: a full journal may have dropped records that its commit had released.
    let log_start = retry_source!(source.log_start());
    if log_start > needed {
        return Err(AggregateError::Truncated { log_start, needed });
    }
    // A counted window that now has a hole is counted again without the lost records, and rows from lost records only must be removed.
    if source.holes().iter().any(|&(from, to)| from < counted && to > needed) {
        retry_sink!(
            sink.remove_from(source.stream(), needed),
            "cannot remove the rows of a window whose records are lost yet; trying again"
        );
    }
    // Folding starts only after the log has this commit.
    retry_source!(source.commit(&commit));
    let not_before =
        retry_sink!(sink.counted_in_window(source.stream(), needed), "cannot read the ledger yet; trying again");
    Ok(StartingPoint { offset: needed, window_policy: commit.window_policy, window: commit.window, not_before })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doubles::{Events, TestLog, TestSink};
    use std::sync::atomic::Ordering;

    const HOUR: u32 = 500_000;

    fn window(offset: u64) -> WindowStart {
        WindowStart { offset, appended_hour: HOUR }
    }

    fn commit(window: Option<WindowStart>, next_offset: u64) -> Commit {
        Commit::new(TestLog::STREAM, window, next_offset, WindowPolicy::default())
    }

    /// A log of 100 records with a commit, and a ledger that has counted the window at 40 up to `counted`.
    fn setup(commit: Option<Commit>, counted: Option<u64>) -> (TestLog, TestSink) {
        let events = Events::new();
        let (log, sink) = (TestLog::new(&events), TestSink::new(&events));
        log.append(HOUR, (0..100).map(|number| format!("/{number}")));
        *log.commit.lock().unwrap() = commit;
        if let Some(next_offset) = counted {
            let end = LedgerEnd { window: window(40), next_offset, fold_version: FOLD_VERSION };
            sink.ledger.lock().unwrap().insert(40, end);
        }
        (log, sink)
    }

    async fn start(log: &mut TestLog, sink: &TestSink, recover: bool) -> Result<StartingPoint, AggregateError> {
        starting_point(log, sink, WindowPolicy::default(), recover, &Progress::default()).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_reads_from_the_committed_window() {
        let drained = Commit { drained: true, ..commit(Some(window(40)), 60) };
        let (mut log, sink) = setup(Some(drained), Some(70));
        let found = start(&mut log, &sink, false).await.unwrap();
        assert_eq!((found.offset, found.window, found.not_before), (40, Some(window(40)), 70));
        // Folding starts, so the partition is no longer drained.
        assert_eq!(*log.commit.lock().unwrap(), Some(commit(Some(window(40)), 60)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_without_a_commit_is_read_only_from_offset_0() {
        let (mut log, sink) = setup(None, None);
        assert_eq!(start(&mut log, &sink, false).await.unwrap().offset, 0);
        assert_eq!(*log.commit.lock().unwrap(), Some(commit(None, 0)));
        let (mut log, sink) = setup(None, None);
        log.log_start = 10;
        let refused = start(&mut log, &sink, false).await;
        assert!(matches!(refused, Err(AggregateError::NoCommit { log_start: 10 })), "{refused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_store_is_counted_again_if_the_log_holds_the_records() {
        let (mut log, sink) = setup(Some(commit(Some(window(80)), 95)), Some(60));
        let progress = Progress::default();
        let found = starting_point(&mut log, &sink, WindowPolicy::default(), false, &progress).await.unwrap();
        assert_eq!((found.offset, found.window), (40, Some(window(40))));
        assert_eq!(progress.counted_before.load(Ordering::Relaxed), 95);
        assert_eq!(*log.commit.lock().unwrap(), Some(commit(Some(window(40)), 60)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_loss_is_accepted_only_by_recover_and_is_recorded() {
        let (mut log, sink) = setup(Some(commit(Some(window(80)), 95)), Some(60));
        log.log_start = 80;
        let refused = start(&mut log, &sink, false).await;
        assert!(matches!(refused, Err(AggregateError::OlderStore(_))), "{refused:?}");
        assert_eq!(start(&mut log, &sink, true).await.unwrap().offset, 80);
        assert_eq!(sink.lost.lock().unwrap().first(), Some(&(60..80)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_does_not_fit_is_refused() {
        let (mut log, sink) = setup(Some(commit(Some(window(40)), 60)), Some(101));
        let refused = start(&mut log, &sink, true).await;
        assert!(matches!(refused, Err(AggregateError::Behind { counted: 101, log_end: 100 })), "{refused:?}");
        let (mut log, sink) = setup(Some(commit(Some(window(40)), 60)), Some(60));
        log.log_start = 50;
        let refused = start(&mut log, &sink, true).await;
        assert!(matches!(refused, Err(AggregateError::Truncated { log_start: 50, needed: 40 })), "{refused:?}");
        let other = Commit { stream: schemas::StreamId(2), ..commit(None, 0) };
        let (mut log, sink) = setup(Some(other), None);
        let refused = start(&mut log, &sink, true).await;
        assert!(matches!(refused, Err(AggregateError::OtherStream { .. })), "{refused:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn other_rules_start_a_new_window_after_a_drained_commit() {
        let older = Commit { fold_version: FOLD_VERSION - 1, drained: true, ..commit(Some(window(40)), 60) };
        let (mut log, sink) = setup(Some(older), Some(60));
        let found = start(&mut log, &sink, false).await.unwrap();
        assert_eq!((found.offset, found.window), (60, None));
        assert!(sink.removed_from.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_that_other_rules_have_folded_in_part_is_removed_and_folded_again() {
        let older = Commit { fold_version: FOLD_VERSION - 1, ..commit(Some(window(40)), 60) };
        // A commit that was drained and then overtaken counts as not drained.
        for (older, counted) in [(older, 60), (Commit { drained: true, ..older }, 70)] {
            let (mut log, sink) = setup(Some(older), Some(counted));
            let found = start(&mut log, &sink, false).await.unwrap();
            assert_eq!((found.offset, found.window), (40, None));
            assert_eq!(*sink.removed_from.lock().unwrap(), [40]);
            assert_eq!(*log.commit.lock().unwrap(), Some(commit(None, 40)));
        }
        // A log of which nothing was folded.
        let (mut log, sink) = setup(Some(Commit { fold_version: FOLD_VERSION - 1, ..commit(None, 0) }), None);
        assert_eq!(start(&mut log, &sink, false).await.unwrap().offset, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_window_of_other_rules_whose_records_are_gone_is_refused() {
        let older = Commit { fold_version: FOLD_VERSION - 1, ..commit(Some(window(40)), 60) };
        let (mut log, sink) = setup(Some(older), Some(60));
        log.log_start = 50;
        let refused = start(&mut log, &sink, false).await;
        assert!(matches!(refused, Err(AggregateError::OtherFold { log_start: 50, needed: 40, .. })), "{refused:?}");
        assert!(sink.removed_from.lock().unwrap().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_store_with_a_window_of_other_rules_is_counted_again_without_its_rows() {
        let (mut log, sink) = setup(Some(commit(Some(window(80)), 95)), Some(60));
        sink.ledger.lock().unwrap().get_mut(&40).unwrap().fold_version = FOLD_VERSION - 1;
        assert_eq!(start(&mut log, &sink, false).await.unwrap().offset, 40);
        assert_eq!(*sink.removed_from.lock().unwrap(), [40]);
    }

    #[tokio::test(start_paused = true)]
    async fn rows_of_a_counted_window_with_a_hole_are_removed() {
        for (hole, removed) in [((45, 50), vec![40]), ((70, 80), vec![]), ((10, 20), vec![])] {
            let (mut log, sink) = setup(Some(commit(Some(window(40)), 60)), Some(60));
            log.holes = vec![hole];
            start(&mut log, &sink, false).await.unwrap();
            assert_eq!(*sink.removed_from.lock().unwrap(), removed, "{hole:?}");
        }
    }
}
