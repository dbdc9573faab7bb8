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
const BACKLOG_FACTOR: u32 = 6;

/// The flush policy of one partition.
#[derive(Debug)]
pub(crate) struct FlushPolicy {
    every: Duration,
    cells: usize,
    /// When the last flush started, and at which offset.
    last: Instant,
    flushed: u64,
    /// Whether the end of the log was reached since then, before there was a backlog.
    following: bool,
}

impl FlushPolicy {
    /// Rows wait at most for `every`; `cells` changed cells cause an earlier flush.
    pub(crate) fn new(every: Duration, cells: usize, now: Instant, offset: u64) -> Self {
        FlushPolicy { every, cells, last: now, flushed: offset, following: false }
    }

    /// A flush has started, or would have if anything had changed.
    pub(crate) fn flush_started(&mut self, now: Instant, offset: u64) {
        (self.last, self.flushed, self.following) = (now, offset, false);
    }

    /// Whether a backlog is being folded.
    pub(crate) fn has_backlog(&self, position: u64) -> bool {
        !self.following && position.saturating_sub(self.flushed) >= BACKLOG
    }

    /// Time of the next regular flush.
    pub(crate) fn next_flush(&self) -> Instant {
        self.last + self.every
    }

    /// Whether to flush. All records below `position` are folded, `dirty` cells have changed, and the log ended at `seen_end` when its end
    /// was last read.
    pub(crate) fn due(&mut self, now: Instant, position: u64, seen_end: Option<u64>, dirty: usize) -> bool {
        let reached_end = seen_end.is_some_and(|end| self.flushed < end && end <= position);
        let backlog = self.has_backlog(position);
        self.following |= reached_end && !backlog;
        let interval = if backlog && !reached_end { self.every * BACKLOG_FACTOR } else { self.every };
        dirty >= self.cells || (backlog && reached_end) || now >= self.last + interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(5);

    fn policy() -> (FlushPolicy, Instant) {
        let start = Instant::now();
        (FlushPolicy::new(EVERY, 1_000, start, 100), start)
    }

    #[test]
    fn without_a_backlog_flushes_follow_the_clock() {
        let (mut policy, start) = policy();
        assert!(!policy.due(start, 110, Some(110), 5));
        // However large it is, once the end was reached.
        assert!(!policy.due(start + EVERY / 2, 110 + 2 * BACKLOG, Some(110 + 2 * BACKLOG), 5));
        assert!(policy.due(start + EVERY, 110 + 2 * BACKLOG, Some(110), 5));
        policy.flush_started(start + EVERY, 110 + 2 * BACKLOG);
        assert!(!policy.due(start + EVERY * 3 / 2, 111 + 2 * BACKLOG, None, 5));
    }

    #[test]
    fn a_backlog_is_flushed_at_its_end_and_rarely_before() {
        let (mut policy, start) = policy();
        let many = 100 + BACKLOG;
        assert!(!policy.due(start + 2 * EVERY, many, Some(100), 5), "the end was reached before the backlog");
        assert!(!policy.due(start + 2 * EVERY, many, Some(many + 1), 5), "the end is known, but not reached");
        assert!(policy.due(start + 2 * EVERY, many + 1, Some(many + 1), 5));
        assert!(policy.due(start + BACKLOG_FACTOR * EVERY, many, None, 5));
        assert!(policy.due(start, many, None, 1_000), "memory is bounded");
    }

    #[test]
    fn few_records_are_no_backlog() {
        let (mut policy, start) = policy();
        assert!(!policy.due(start, 99 + BACKLOG, None, 5));
        assert!(policy.due(start + EVERY, 99 + BACKLOG, None, 5));
    }
}
