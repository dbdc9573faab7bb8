//! Where a partition's loop starts: determined from the ledger, the log's commit and the range that the log still holds.

use crate::fold::FOLD_VERSION;
use crate::progress::Progress;
use crate::run::AggregateError;
use crate::source::Source;
use crate::store::SummaryStore;
use crate::window::{Commit, Cut, WindowStart};
use schemas::{Hour, StreamId};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// Where the loop starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartingPoint {
    /// Offset to read from.
    pub offset: u64,
    /// Window policy of the window that starts there.
    pub cut: Cut,
    /// The open window there, if there is one.
    pub window: Option<WindowStart>,
    /// The ledger has counted that window up to this offset, so the window does not end before it. Rows of a longer window replace its
    /// rows; rows of a shorter one would leave some of them in addition to those of the next window.
    pub not_before: u64,
}

/// The newest window of a stream in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerEnd {
    /// Its start.
    pub window: WindowStart,
    /// Its records below this offset are counted.
    pub next_offset: u64,
    /// Rules of the fold that computed its rows.
    pub fold_version: u32,
}

/// A ClickHouse that has counted less of the log than the log's commit states. A commit follows acknowledged rows, so ClickHouse was
/// replaced by an older copy, or emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OlderStore {
    /// Records below this offset are in the ledger; none if the ledger has no row of this log.
    pub ledger: Option<u64>,
    /// Records below this offset were in ClickHouse when the commit was written.
    pub commit: u64,
    /// Offset of the oldest record in the log.
    pub begin: u64,
    /// Offset at which folding would have to start again; none if that window was folded by other rules.
    pub needed: Option<u64>,
}

impl OlderStore {
    /// Offset at which counting continues if the loss is accepted.
    fn after_loss(&self) -> u64 {
        self.begin.max(self.ledger.unwrap_or(0))
    }

    /// Records that are not counted in ClickHouse and no longer in the log.
    pub fn lost(&self) -> Range<u64> {
        self.ledger.unwrap_or(0)..self.after_loss()
    }
}

impl fmt::Display for OlderStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ledger {
            Some(ledger) => write!(f, "ClickHouse has counted this log up to offset {ledger}")?,
            None => f.write_str("ClickHouse has counted nothing of this log")?,
        }
        write!(
            f,
            ", but the log's commit is at offset {}: ClickHouse was replaced by an older copy, or emptied. ",
            self.commit
        )?;
        match self.needed {
            Some(needed) => write!(
                f,
                "Counting again has to start at offset {needed}, but the log begins at offset {}. ",
                self.begin
            )?,
            None => f.write_str(
                "Its last window was folded by the rules of another version, so it cannot be counted again. ",
            )?,
        }
        let lost = self.lost();
        write!(
            f,
            "Restore a newer copy of ClickHouse's data; or start once with --recover: counting then goes on at offset {}, and the {} records \
             from offset {} on that the log no longer holds stay uncounted",
            lost.end,
            lost.end - lost.start,
            lost.start
        )
    }
}

/// The comparison of ledger, commit and log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// ClickHouse has what the commit states: continue from the commit.
    UpToDate,
    /// ClickHouse is older, and the log still holds the missing records: fold again from this window, or from the log's start.
    FoldAgain(Option<WindowStart>),
    /// ClickHouse is older, and the log no longer holds the missing records.
    Lost(OlderStore),
}

/// Compares a stream's ledger with its commit and with the log, which starts at `begin`.
pub fn compare(ledger: Option<LedgerEnd>, commit: &Commit, begin: u64) -> Agreement {
    let counted = ledger.map_or(0, |ledger| ledger.next_offset);
    if counted >= commit.next_offset {
        return Agreement::UpToDate;
    }
    // Counting starts at this commit: a new log whose first records were gone, or an accepted loss. The log holds nothing below it.
    if commit.window.is_none() && begin >= commit.next_offset {
        return Agreement::UpToDate;
    }
    let needed = match ledger {
        Some(ledger) if ledger.fold_version != FOLD_VERSION => None,
        Some(ledger) => Some(ledger.window.offset),
        None => Some(0),
    };
    if needed.is_some_and(|needed| begin <= needed) {
        return Agreement::FoldAgain(ledger.map(|ledger| ledger.window));
    }
    let ledger = ledger.map(|ledger| ledger.next_offset);
    Agreement::Lost(OlderStore { ledger, commit: commit.next_offset, begin, needed })
}

/// Repeats a call of the log until it succeeds, or fails permanently.
macro_rules! until_it_can {
    ($call:expr) => {{
        let mut logged = false;
        loop {
            match $call.await {
                Err(error) if error.passing => {
                    if !std::mem::replace(&mut logged, true) {
                        tracing::warn!(%error, "nothing is folded before this can be done; trying again");
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                outcome => break outcome?,
            }
        }
    }};
}

/// Reads the ledger until ClickHouse answers.
macro_rules! until_read {
    ($call:expr) => {
        loop {
            match $call.await {
                Ok(answer) => break answer,
                Err(error) => {
                    tracing::warn!(%error, "cannot read the ledger yet; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
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
pub async fn starting_point<S: Source>(
    source: &mut S,
    store: &SummaryStore,
    cut: Cut,
    recover: bool,
    progress: &Progress,
) -> Result<StartingPoint, AggregateError> {
    let begin = until_it_can!(source.begin());
    let end = until_it_can!(source.end());
    let ledger = until_read!(store.ledger_end(source.stream()));
    let counted = ledger.map_or(0, |ledger| ledger.next_offset);
    if counted > end {
        return Err(AggregateError::Behind { counted, end });
    }
    let commit = match until_it_can!(source.committed()) {
        // The window policy is a function of the log: from its very start, every window comes out as before.
        None if begin == 0 => commit_of(source.stream(), None, 0, cut),
        None => return Err(AggregateError::NoCommit { begin }),
        Some(commit) if commit.stream != source.stream() => {
            let (found, expected) = (commit.stream.to_string(), source.stream().to_string());
            return Err(AggregateError::OtherStream { found, expected });
        }
        Some(commit) => commit,
    };
    if commit.next_offset > end {
        return Err(AggregateError::Behind { counted: commit.next_offset, end });
    }
    let commit = match compare(ledger, &commit, begin) {
        Agreement::UpToDate => of_these_rules(commit, counted, cut)?,
        Agreement::FoldAgain(window) => {
            tracing::warn!(
                ledger = counted,
                commit = commit.next_offset,
                log_begins = begin,
                from = window.map_or(0, |window| window.offset),
                "ClickHouse is older than the log: it was replaced by an older copy, or emptied; the log still holds what it lacks, which is \
                 counted again"
            );
            Progress::set(&progress.counted_before, commit.next_offset);
            rewound(source, commit_of(source.stream(), window, counted, cut)).await?
        }
        Agreement::Lost(older) if !recover => return Err(AggregateError::OlderStore(older)),
        Agreement::Lost(older) => {
            let lost = older.lost();
            tracing::warn!(
                ledger = counted,
                commit = commit.next_offset,
                log_begins = begin,
                lost = lost.end - lost.start,
                from = lost.end,
                "ClickHouse is older than the log, which no longer holds all that it lacks; the loss was accepted by --recover"
            );
            // Stored as long as the rows of a window that is counted now.
            let hour = ledger.map_or_else(|| Hour::of(chrono::Utc::now()), |ledger| Hour(ledger.window.appended_hour));
            while !lost.is_empty()
                && let Err(error) = store.note_loss(source.stream(), lost.clone(), hour).await
            {
                tracing::warn!(%error, "the loss is not in the ledger yet; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            rewound(source, commit_of(source.stream(), None, lost.end, cut)).await?
        }
    };
    let needed = commit.resume_at();
    // Read again: a full journal may have dropped records that its commit had released.
    let begin = until_it_can!(source.begin());
    if begin > needed {
        return Err(AggregateError::Truncated { begin, needed });
    }
    // A counted window that now has a hole is counted again without the lost records, and rows from lost records only must be removed.
    let counted_hole = source.holes().iter().any(|&(from, to)| from < counted && to > needed);
    while counted_hole && let Err(error) = store.remove_from(source.stream(), needed).await {
        tracing::warn!(%error, "cannot remove the rows of a window whose records are lost yet; trying again");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // Folding starts only after the log has this commit.
    until_it_can!(source.commit(&commit));
    let not_before = until_read!(store.counted_of(source.stream(), needed));
    Ok(StartingPoint { offset: needed, cut: commit.cut, window: commit.window, not_before })
}

/// The commit to continue from if ClickHouse has what it states.
fn of_these_rules(commit: Commit, counted: u64, cut: Cut) -> Result<Commit, AggregateError> {
    if commit.fold_version == FOLD_VERSION {
        return Ok(Commit { drained: false, ..commit });
    }
    // A commit that was overtaken (by a process that considered its writer lost) may be `drained` at a lower offset than the ledger.
    if !commit.drained || counted > commit.next_offset {
        return Err(AggregateError::OtherFold { found: commit.fold_version });
    }
    // Every row of the old rules ends at this offset, so a window of the new rules may start there.
    Ok(commit_of(commit.stream, None, commit.next_offset, cut))
}

/// Makes the source read from an earlier commit.
async fn rewound<S: Source>(source: &mut S, commit: Commit) -> Result<Commit, AggregateError> {
    until_it_can!(source.rewind(commit.resume_at()));
    Ok(commit)
}

/// A commit with this program's rules of the fold.
pub(crate) fn commit_of(stream: StreamId, window: Option<WindowStart>, next_offset: u64, cut: Cut) -> Commit {
    Commit { stream, window, next_offset, cut, fold_version: FOLD_VERSION, drained: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(window: Option<u64>, next_offset: u64) -> Commit {
        let window = window.map(|offset| WindowStart { offset, appended_hour: 7 });
        commit_of(StreamId(1), window, next_offset, Cut::default())
    }

    fn ledger(window: u64, next_offset: u64) -> Option<LedgerEnd> {
        let window = WindowStart { offset: window, appended_hour: 5 };
        Some(LedgerEnd { window, next_offset, fold_version: FOLD_VERSION })
    }

    fn again(window: u64) -> Agreement {
        Agreement::FoldAgain(Some(WindowStart { offset: window, appended_hour: 5 }))
    }

    #[test]
    fn a_ledger_with_all_that_was_committed_is_up_to_date() {
        for (ledger, commit, begin) in [
            (None, commit(None, 0), 0),
            (ledger(0, 40), commit(Some(0), 40), 0),
            // Rows were written, and the process ended before their commit.
            (ledger(0, 90), commit(Some(0), 40), 0),
            (ledger(40, 90), commit(Some(0), 40), 0),
            (ledger(0, 40), commit(None, 40), 20),
            // A new log whose first records are gone, before and after records arrived.
            (None, commit(None, 500), 500),
            (None, commit(None, 500), 700),
            // An accepted loss.
            (ledger(0, 40), commit(None, 500), 500),
        ] {
            assert_eq!(compare(ledger, &commit, begin), Agreement::UpToDate, "{ledger:?} {commit:?} {begin}");
        }
    }

    #[test]
    fn what_the_log_still_holds_is_folded_again() {
        assert_eq!(compare(ledger(40, 60), &commit(Some(80), 95), 0), again(40));
        assert_eq!(compare(ledger(40, 60), &commit(Some(80), 95), 40), again(40));
        // The copy is of the same window.
        assert_eq!(compare(ledger(80, 90), &commit(Some(80), 95), 80), again(80));
        // A window has just ended.
        assert_eq!(compare(ledger(40, 60), &commit(None, 80), 40), again(40));
        assert_eq!(compare(None, &commit(Some(80), 95), 0), Agreement::FoldAgain(None));
    }

    #[test]
    fn what_the_log_no_longer_holds_is_named_with_offsets() {
        let Agreement::Lost(older) = compare(ledger(40, 60), &commit(Some(80), 95), 80) else { panic!("not lost") };
        assert_eq!((older.lost(), older.needed), (60..80, Some(40)));
        let text = older.to_string();
        for part in
            ["up to offset 60", "commit is at offset 95", "log begins at offset 80", "the 20 records from offset 60"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("Restore a newer copy") && text.contains("--recover"), "{text}");
        // The window's start is gone, but no uncounted record is.
        let Agreement::Lost(older) = compare(ledger(40, 60), &commit(Some(80), 95), 50) else { panic!("not lost") };
        assert_eq!(older.lost(), 60..60);
        let Agreement::Lost(older) = compare(None, &commit(Some(80), 95), 80) else { panic!("not lost") };
        assert_eq!(older.lost(), 0..80);
        assert!(older.to_string().contains("counted nothing of this log"), "{older}");
    }

    #[test]
    fn a_window_of_other_rules_is_not_folded_again() {
        let other = ledger(40, 60).map(|ledger| LedgerEnd { fold_version: FOLD_VERSION - 1, ..ledger });
        let Agreement::Lost(older) = compare(other, &commit(Some(80), 95), 0) else { panic!("not lost") };
        assert_eq!((older.needed, older.lost()), (None, 60..60));
        // If ClickHouse is up to date, only the commit's rules matter.
        assert_eq!(compare(other, &commit(Some(40), 60), 0), Agreement::UpToDate);
    }
}
