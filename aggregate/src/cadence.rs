//! When rows are written.
//!
//! Each flush writes every cell that changed, and most cells of a log's backlog change again and again: flushing while a
//! backlog is worked off writes the same cells over and over, and what it writes is out of date anyway. So a backlog is
//! folded first and written when its end is met, at once. Where the log's end is met all the time, the clock decides.

use std::time::Duration;
use tokio::time::Instant;

/// So many records folded since the last flush, without meeting the log's end, are a backlog.
const BACKLOG: u64 = 50_000;
/// A backlog is written this many times more seldom than what follows the log.
const SELDOM: u32 = 6;

/// Decides for one partition.
#[derive(Debug)]
pub(crate) struct Cadence {
    every: Duration,
    cells: usize,
    /// When the last flush began, and at which offset.
    last: Instant,
    flushed: u64,
    /// Whether the log's end was met since then, before there was a backlog.
    following: bool,
}

impl Cadence {
    /// Rows may wait for `every`; `cells` changed cells are reason enough at any time.
    pub(crate) fn new(every: Duration, cells: usize, now: Instant, offset: u64) -> Self {
        Cadence { every, cells, last: now, flushed: offset, following: false }
    }

    /// A flush has begun, or would have if anything had changed.
    pub(crate) fn begun(&mut self, now: Instant, offset: u64) {
        (self.last, self.flushed, self.following) = (now, offset, false);
    }

    /// Whether a backlog is being worked off.
    pub(crate) fn behind(&self, position: u64) -> bool {
        !self.following && position.saturating_sub(self.flushed) >= BACKLOG
    }

    /// When to look again, if nothing happens.
    pub(crate) fn next(&self) -> Instant {
        self.last + self.every
    }

    /// Whether to flush, with all below `position` folded, `dirty` cells changed, and the log last seen to end at
    /// `seen_end`.
    pub(crate) fn due(&mut self, now: Instant, position: u64, seen_end: Option<u64>, dirty: usize) -> bool {
        let met_end = seen_end.is_some_and(|end| self.flushed < end && end <= position);
        let behind = self.behind(position);
        self.following |= met_end && !behind;
        let patience = if behind && !met_end { self.every * SELDOM } else { self.every };
        dirty >= self.cells || (behind && met_end) || now >= self.last + patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(5);

    fn cadence() -> (Cadence, Instant) {
        let start = Instant::now();
        (Cadence::new(EVERY, 1_000, start, 100), start)
    }

    #[test]
    fn what_follows_the_log_is_written_by_the_clock() {
        let (mut cadence, start) = cadence();
        assert!(!cadence.due(start, 110, Some(110), 5));
        // However much it is, once the end was met.
        assert!(!cadence.due(start + EVERY / 2, 110 + 2 * BACKLOG, Some(110 + 2 * BACKLOG), 5));
        assert!(cadence.due(start + EVERY, 110 + 2 * BACKLOG, Some(110), 5));
        cadence.begun(start + EVERY, 110 + 2 * BACKLOG);
        assert!(!cadence.due(start + EVERY * 3 / 2, 111 + 2 * BACKLOG, None, 5));
    }

    #[test]
    fn a_backlog_is_written_at_its_end_and_seldom_before() {
        let (mut cadence, start) = cadence();
        let many = 100 + BACKLOG;
        assert!(!cadence.due(start + 2 * EVERY, many, Some(100), 5), "the end was met before");
        assert!(!cadence.due(start + 2 * EVERY, many, Some(many + 1), 5), "the end is seen, but not reached");
        assert!(cadence.due(start + 2 * EVERY, many + 1, Some(many + 1), 5));
        assert!(cadence.due(start + SELDOM * EVERY, many, None, 5));
        assert!(cadence.due(start, many, None, 1_000), "memory is bounded");
    }

    #[test]
    fn few_records_wait_for_the_clock_whether_or_not_the_end_is_seen() {
        let (mut cadence, start) = cadence();
        assert!(!cadence.due(start, 99 + BACKLOG, None, 5));
        assert!(cadence.due(start + EVERY, 99 + BACKLOG, None, 5));
    }
}
