//! The comparison of ledger, commit and log before folding starts.

use crate::commit::Commit;
use crate::sink::LedgerEnd;
use crate::window::WindowStart;
use std::fmt;
use std::ops::Range;

/// A ClickHouse that has counted less of the log than the log's commit states. A commit follows acknowledged rows, so ClickHouse was
/// replaced by an older copy, or emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OlderStore {
    /// Records below this offset are in the ledger; none if the ledger has no row of this log.
    pub ledger: Option<u64>,
    /// Records below this offset were in ClickHouse when the commit was written.
    pub commit: u64,
    /// Offset of the oldest record in the log.
    pub log_start: u64,
    /// Offset at which folding would have to start again.
    pub needed: u64,
}

impl OlderStore {
    /// Offset at which counting continues if the loss is accepted.
    fn after_loss(&self) -> u64 {
        self.log_start.max(self.ledger.unwrap_or(0))
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
        write!(
            f,
            "Counting again has to start at offset {}, but the log begins at offset {}. ",
            self.needed, self.log_start
        )?;
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

/// Compares a stream's ledger with its commit and with the log, which starts at `log_start`.
pub fn compare(ledger: Option<LedgerEnd>, commit: &Commit, log_start: u64) -> Agreement {
    let counted = ledger.map_or(0, |ledger| ledger.next_offset);
    if counted >= commit.next_offset {
        return Agreement::UpToDate;
    }
    // Counting starts at this commit: a new log whose first records were gone, or an accepted loss. The log holds nothing below it.
    if commit.window.is_none() && log_start >= commit.next_offset {
        return Agreement::UpToDate;
    }
    let needed = ledger.map_or(0, |ledger| ledger.window.offset);
    if log_start <= needed {
        return Agreement::FoldAgain(ledger.map(|ledger| ledger.window));
    }
    let ledger = ledger.map(|ledger| ledger.next_offset);
    Agreement::Lost(OlderStore { ledger, commit: commit.next_offset, log_start, needed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fold::FOLD_VERSION;
    use crate::window::WindowPolicy;
    use schemas::StreamId;

    fn commit(window: Option<u64>, next_offset: u64) -> Commit {
        let window = window.map(|offset| WindowStart { offset, appended_hour: 7 });
        Commit::new(StreamId(1), window, next_offset, WindowPolicy::default())
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
        for (ledger, commit, log_start) in [
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
            assert_eq!(compare(ledger, &commit, log_start), Agreement::UpToDate, "{ledger:?} {commit:?} {log_start}");
        }
    }

    #[test]
    fn missing_records_that_the_log_holds_are_folded_again() {
        assert_eq!(compare(ledger(40, 60), &commit(Some(80), 95), 0), again(40));
        assert_eq!(compare(ledger(40, 60), &commit(Some(80), 95), 40), again(40));
        // The copy is of the same window.
        assert_eq!(compare(ledger(80, 90), &commit(Some(80), 95), 80), again(80));
        // A window has just ended.
        assert_eq!(compare(ledger(40, 60), &commit(None, 80), 40), again(40));
        assert_eq!(compare(None, &commit(Some(80), 95), 0), Agreement::FoldAgain(None));
    }

    #[test]
    fn missing_records_that_the_log_lost_are_reported_with_offsets() {
        let Agreement::Lost(older) = compare(ledger(40, 60), &commit(Some(80), 95), 80) else { panic!("not lost") };
        assert_eq!((older.lost(), older.needed), (60..80, 40));
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
    fn the_rules_of_the_ledger_do_not_matter() {
        let other = ledger(40, 60).map(|ledger| LedgerEnd { fold_version: FOLD_VERSION - 1, ..ledger });
        assert_eq!(compare(other, &commit(Some(80), 95), 0), again(40));
        // If ClickHouse is up to date, only the commit's rules matter.
        assert_eq!(compare(other, &commit(Some(40), 60), 0), Agreement::UpToDate);
    }
}
