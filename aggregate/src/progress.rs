//! What a partition's loop tells of itself while it runs: for `/readyz`, `/metrics`, and whoever watches.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Figures of one partition's loop. Written by the loop, read by anybody.
#[derive(Debug, Default)]
pub struct Progress {
    /// Offset after the last record folded.
    pub folded: AtomicU64,
    /// All rows below this are in ClickHouse, and the log has been told so.
    pub committed: AtomicU64,
    /// Where ClickHouse was older than the log at the start: records below this offset had been counted before. 0 otherwise.
    pub counted_before: AtomicU64,
    /// First offset of the open window.
    pub window: AtomicU64,
    /// Accumulators held.
    pub cells: AtomicU64,
    /// Bytes of records in the open window.
    pub window_bytes: AtomicU64,
    /// Records of the open window that do not decode.
    pub undecodable: AtomicU64,
    /// Rows written since the start of the process.
    pub rows: AtomicU64,
    /// Writes to ClickHouse that failed since the start; each was sent again.
    pub failed_writes: AtomicU64,
    /// Commits that failed since the start.
    pub failed_commits: AtomicU64,
    /// Whether ClickHouse refuses rows at present.
    pub store_fails: AtomicBool,
    /// Whether the log cannot be read at present.
    pub source_fails: AtomicBool,
}

impl Progress {
    pub(crate) fn set(figure: &AtomicU64, value: u64) {
        figure.store(value, Ordering::Relaxed);
    }

    pub(crate) fn add(figure: &AtomicU64, value: u64) {
        figure.fetch_add(value, Ordering::Relaxed);
    }
}
