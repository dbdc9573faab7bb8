//! Why the loop of a partition stopped.

use crate::agreement::OlderStore;
use crate::fold::FOLD_VERSION;
use crate::source::SourceError;
use storage::CallError;

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
        "the log begins at offset {log_start}, but the open window starts at {needed}: records were removed before they \
         were safely counted. Restore the log, or accept the loss and start a new one (topic: `headcount topic reset \
         --new-log`; journal: remove its file); raise the retention well above the window"
    )]
    Truncated {
        /// Oldest offset in the log.
        log_start: u64,
        /// Offset that is needed.
        needed: u64,
    },
    /// The log is shorter than what was counted from it.
    #[error(
        "ClickHouse has counted up to offset {counted} of this log, but the log ends at {log_end}: it was replaced by an \
         older copy, or recreated. Restore the newer log, or start a new one (topic: `headcount topic reset --new-log`; \
         journal: remove its file)"
    )]
    Behind {
        /// Offset in the ledger.
        counted: u64,
        /// End of the log.
        log_end: u64,
    },
    /// The record at the window's start differs from the one that was counted.
    #[error(
        "the open window starts at offset {offset} with a record appended in hour {expected} since the epoch, but the log \
         has one of hour {found} there: the log was recreated or replaced. Restore it, or start a new one (topic: \
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
        "the log begins at offset {log_start} and has no commit, so the open window is unknown: restore the commit (topic: \
         `headcount topic reset --from-ledger`), or start a new log (topic: `headcount topic reset --new-log`; journal: \
         remove its file)"
    )]
    NoCommit {
        /// Oldest offset in the log.
        log_start: u64,
    },
    /// The commit was written with other rules of the fold, and not drained, and the log no longer has its open window.
    #[error(
        "the open window was folded by rules {found}, this program has rules {FOLD_VERSION}, and the log begins at offset \
         {log_start}, so the window cannot be folded again from offset {needed}: restore the copies of log and ClickHouse \
         from before the update, start the old version and stop it gracefully (SIGTERM) so that it drains, then start this one"
    )]
    OtherFold {
        /// Rules in the commit.
        found: u32,
        /// Oldest offset in the log.
        log_start: u64,
        /// Start of the open window.
        needed: u64,
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
