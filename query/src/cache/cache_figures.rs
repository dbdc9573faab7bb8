//! Counters of the cache.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts since the start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheFigures {
    /// Fresh answers from the cache.
    pub hits: u64,
    /// Answers that were computed while their client waited, or whose computation was joined.
    pub misses: u64,
    /// Stale answers from the cache, those of `stale_if_error` included.
    pub stale: u64,
    /// Stale answers because ClickHouse did not answer.
    pub stale_if_error: u64,
    /// Refreshes in the background.
    pub refreshes: u64,
    /// Computations, in the background or not, failed ones included.
    pub computations: u64,
    /// Time of all computations, their wait for a turn included, in microseconds.
    pub computing_us: u64,
    /// Bytes of the entries now.
    pub bytes: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    hits: AtomicU64,
    misses: AtomicU64,
    stale: AtomicU64,
    stale_if_error: AtomicU64,
    refreshes: AtomicU64,
    computations: AtomicU64,
    computing_us: AtomicU64,
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn hit(&self) {
        add(&self.hits, 1);
    }

    pub(super) fn miss(&self) {
        add(&self.misses, 1);
    }

    pub(super) fn stale(&self, storage_fails: bool) {
        add(&self.stale, 1);
        add(&self.stale_if_error, u64::from(storage_fails));
    }

    pub(super) fn refresh(&self) {
        add(&self.refreshes, 1);
    }

    pub(super) fn computed(&self, took: Duration) {
        add(&self.computations, 1);
        add(&self.computing_us, u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn figures(&self, bytes: u64) -> CacheFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CacheFigures {
            hits: read(&self.hits),
            misses: read(&self.misses),
            stale: read(&self.stale),
            stale_if_error: read(&self.stale_if_error),
            refreshes: read(&self.refreshes),
            computations: read(&self.computations),
            computing_us: read(&self.computing_us),
            bytes,
        }
    }
}
