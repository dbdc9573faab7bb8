//! Progress of a partition's loop, for `/readyz`, `/metrics` and other monitoring.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Figures of one partition's loop. The loop writes them; any thread may read them.
#[derive(Debug, Default)]
pub struct Progress {
    /// Offset after the last record folded.
    pub folded: AtomicU64,
    /// All rows below this offset are in ClickHouse, and the log has a commit of it.
    pub committed: AtomicU64,
    /// If ClickHouse was older than the log at the start: records below this offset had been counted before. 0 otherwise.
    pub counted_before: AtomicU64,
    /// First offset of the open window.
    pub window: AtomicU64,
    /// Number of accumulators.
    pub cells: AtomicU64,
    /// Bytes of records in the open window.
    pub window_bytes: AtomicU64,
    /// Records of the open window that do not decode.
    pub undecodable: AtomicU64,
    /// Rows written since the start of the process.
    pub rows: AtomicU64,
    /// Failed writes to ClickHouse since the start; each was repeated.
    pub failed_writes: AtomicU64,
    /// Failed commits since the start.
    pub failed_commits: AtomicU64,
    /// Whether ClickHouse currently refuses rows.
    pub store_fails: AtomicBool,
    /// Whether the log currently cannot be read.
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
