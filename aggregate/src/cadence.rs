//! The flush policy: when rows are written.
//!
//! A flush writes every changed cell, and during the catch-up of a backlog most cells change again and again. Flushing meanwhile would
//! write the same cells many times, with figures that are out of date anyway. So a backlog is folded first, and flushed as soon as the end
//! of the log is reached. If the end is reached all the time, flushes follow the clock.

use std::time::Duration;
use tokio::time::Instant;

/// A backlog: this many records folded since the last flush without reaching the end of the log.
const BACKLOG: u64 = 50_000;
/// Factor by which flushes are less frequent during a backlog.
const SELDOM: u32 = 6;

/// The flush policy of one partition.
#[derive(Debug)]
pub(crate) struct Cadence {
    every: Duration,
    cells: usize,
    /// When the last flush started, and at which offset.
    last: Instant,
    flushed: u64,
    /// Whether the end of the log was reached since then, before there was a backlog.
    following: bool,
}

impl Cadence {
    /// Rows wait at most for `every`; `cells` changed cells cause an earlier flush.
    pub(crate) fn new(every: Duration, cells: usize, now: Instant, offset: u64) -> Self {
        Cadence { every, cells, last: now, flushed: offset, following: false }
    }

    /// A flush has started, or would have if anything had changed.
    pub(crate) fn begun(&mut self, now: Instant, offset: u64) {
        (self.last, self.flushed, self.following) = (now, offset, false);
    }

    /// Whether a backlog is being folded.
    pub(crate) fn behind(&self, position: u64) -> bool {
        !self.following && position.saturating_sub(self.flushed) >= BACKLOG
    }

    /// Time of the next check without other events.
    pub(crate) fn next(&self) -> Instant {
        self.last + self.every
    }

    /// Whether to flush. All records below `position` are folded, `dirty` cells have changed, and the log ended at `seen_end` when its end
    /// was last read.
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
        // However large it is, once the end was reached.
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
