//! How far counting is behind its log, in seconds, and whether it has stalled. Both are derived from checks every fifth of a second, because a
//! journal knows only the hour of a record, and Kafka's clients learn of a partition's end only from time to time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Maximum number of remembered ends of the log. Above it, every second one is dropped, which halves the resolution.
const MARKS: usize = 2048;

/// The values that one check reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagPosition {
    /// Offset after the log's last record.
    pub end: u64,
    /// Offset below which all records are in ClickHouse.
    pub committed: u64,
    /// Rows written since the start.
    pub rows: u64,
}

/// The lag of one journal or partition since the start of the process.
#[derive(Debug)]
pub struct Lag {
    /// When the log was first observed to have each length, oldest first; only ends beyond the committed offset.
    marks: VecDeque<(Instant, u64)>,
    /// Committed offset and rows at the last check, and the time of their last change.
    written: Option<(u64, u64)>,
    written_at: Instant,
}

impl Lag {
    /// Nothing is known yet.
    pub fn new(now: Instant) -> Self {
        Lag { marks: VecDeque::new(), written: None, written_at: now }
    }

    /// Records the values of a check.
    pub fn note(&mut self, now: Instant, position: LagPosition) {
        let LagPosition { end, committed, rows } = position;
        if self.marks.back().is_none_or(|&(_, last)| last < end) {
            self.marks.push_back((now, end));
        }
        while self.marks.front().is_some_and(|&(_, end)| end <= committed) {
            self.marks.pop_front();
        }
        if self.marks.len() > MARKS {
            self.thin();
        }
        let is_same = self.written.replace((committed, rows)) == Some((committed, rows));
        if self.marks.is_empty() || !is_same {
            self.written_at = now;
        }
    }

    /// Merges pairs of marks into the earlier time and the later end: a lag may seem longer than it is, never shorter.
    fn thin(&mut self) {
        let marks: Vec<_> = self.marks.drain(..).collect();
        self.marks = marks.chunks(2).filter_map(|pair| Some((pair.first()?.0, pair.last()?.1))).collect();
    }

    /// How long the oldest record that is not known to be in ClickHouse has waited, as far as this process observed.
    pub fn age(&self, now: Instant) -> Duration {
        self.marks.front().map_or(Duration::ZERO, |&(since, _)| now.saturating_duration_since(since))
    }

    /// How long records have waited without any write, if it is `stall_after` or longer.
    pub fn stalled(&self, now: Instant, stall_after: Duration) -> Option<Duration> {
        let still = self.age(now).min(now.saturating_duration_since(self.written_at));
        (!self.marks.is_empty() && still >= stall_after).then_some(still)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL_AFTER: Duration = Duration::from_secs(60);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_lag_is_the_age_of_the_oldest_record_that_waits() {
        let start = Instant::now();
        let mut lag = Lag::new(start);
        for (second, end, committed, expected) in [
            (0, 0, 0, 0),
            (10, 5, 0, 0),
            (12, 9, 0, 2),
            // The records first seen after 10 s are written; the rest has waited since 12 s.
            (14, 9, 5, 2),
            (20, 9, 8, 8),
            (21, 9, 9, 0),
            (22, 30, 9, 0),
        ] {
            let now = start + seconds(second);
            lag.note(now, LagPosition { end, committed, rows: 0 });
            assert_eq!(lag.age(now), seconds(expected), "after {second} s");
        }
    }

    #[test]
    fn counting_is_stalled_only_while_records_wait_and_nothing_is_written() {
        let start = Instant::now();
        let mut lag = Lag::new(start);
        let mut check = |second: u64, end: u64, committed: u64, rows: u64| {
            let now = start + seconds(second);
            lag.note(now, LagPosition { end, committed, rows });
            lag.stalled(now, STALL_AFTER)
        };
        assert_eq!(check(0, 10, 10, 7), None);
        assert_eq!(check(1000, 10, 10, 7), None, "nothing waits");
        assert_eq!(check(1001, 12, 10, 7), None, "records came this moment");
        assert_eq!(check(1060, 12, 10, 7), None, "59 s");
        assert_eq!(check(1061, 12, 10, 7), Some(seconds(60)));
        assert_eq!(check(1090, 20, 10, 7), Some(seconds(89)), "more records change nothing");
        assert_eq!(check(1100, 20, 10, 8), None, "rows were written, of a long catch-up");
        assert_eq!(check(1159, 20, 10, 8), None);
        assert_eq!(check(1160, 20, 10, 8), Some(seconds(60)));
        assert_eq!(check(1161, 20, 20, 8), None, "all is written");
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_record_stays() {
        let start = Instant::now();
        let mut lag = Lag::new(start);
        for second in 0..100_000 {
            lag.note(start + seconds(second), LagPosition { end: second + 1, committed: 0, rows: 0 });
        }
        assert!(lag.marks.len() <= MARKS, "{}", lag.marks.len());
        assert_eq!(lag.age(start + seconds(99_999)), seconds(99_999));
        let now = start + seconds(100_000);
        lag.note(now, LagPosition { end: 100_000, committed: 100_000, rows: 0 });
        assert_eq!(lag.age(now), Duration::ZERO);
    }
}
