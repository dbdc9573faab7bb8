//! The part of a month that a report speaks of.

use chrono::{DateTime, Utc};
use schemas::{Day, Hour, Month};

/// A month up to now: whole hours, the running one included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    month: Month,
    /// First hour that is not part of the period.
    end: Hour,
}

/// The month begins after now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} has not begun")]
pub struct NotBegun(pub Month);

impl Period {
    /// The part of `month` that has begun at `now`.
    pub fn of(month: Month, now: DateTime<Utc>) -> Result<Self, NotBegun> {
        let current = Hour::of(now);
        if month.first_hour() > current {
            return Err(NotBegun(month));
        }
        Ok(Period { month, end: month.end_hour().min(Hour(current.0 + 1)) })
    }

    /// The month.
    pub fn month(self) -> Month {
        self.month
    }

    /// True while hours are still to come.
    pub fn is_running(self) -> bool {
        self.end < self.month.end_hour()
    }

    /// First hour.
    pub fn first_hour(self) -> Hour {
        self.month.first_hour()
    }

    /// The hour after the last.
    pub fn end_hour(self) -> Hour {
        self.end
    }

    /// Every hour, in order.
    pub fn hours(self) -> impl Iterator<Item = Hour> {
        (self.first_hour().0..self.end.0).map(Hour)
    }

    /// First day.
    pub fn first_day(self) -> Day {
        self.first_hour().day()
    }

    /// Last day, which may be under way.
    pub fn last_day(self) -> Day {
        Hour(self.end.0 - 1).day()
    }

    /// Every day, in order.
    pub fn days(self) -> impl Iterator<Item = Day> {
        (self.first_day().0..=self.last_day().0).map(Day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(month: &str, now: &str) -> Result<Period, NotBegun> {
        Period::of(month.parse().unwrap(), DateTime::parse_from_rfc3339(now).unwrap().to_utc())
    }

    #[test]
    fn a_past_month_is_whole() {
        for (month, days) in [("2026-02", 28), ("2024-02", 29), ("2026-04", 30), ("2026-10", 31)] {
            let period = period(month, "2026-11-23T13:59:59Z").unwrap();
            assert_eq!((period.days().count(), period.hours().count()), (days, days * 24), "{month}");
            assert!(!period.is_running());
        }
    }

    #[test]
    fn a_running_month_ends_with_the_running_hour() {
        let period = period("2026-11", "2026-11-02T13:59:59Z").unwrap();
        assert_eq!((period.days().count(), period.hours().count()), (2, 24 + 14));
        assert_eq!(period.end_hour().start().to_rfc3339(), "2026-11-02T14:00:00+00:00");
        assert!(period.is_running());
    }

    #[test]
    fn the_edges_of_a_month_belong_to_it() {
        assert_eq!(period("2026-11", "2026-11-01T00:00:00Z").unwrap().hours().count(), 1);
        assert!(!period("2026-11", "2026-11-30T23:10:00Z").unwrap().is_running());
        assert_eq!(period("2026-12", "2026-11-30T23:59:59Z"), Err(NotBegun("2026-12".parse().unwrap())));
    }
}
