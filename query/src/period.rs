//! The months, and the part of a month, that a report covers.

use chrono::{DateTime, Utc};
use schemas::{Day, Hour, Month};
use std::fmt;
use std::str::FromStr;

/// Most months in one report.
pub const MAX_MONTHS: usize = 36;

/// One month, or several in a row, as `YYYY-MM` or `YYYY-MM..YYYY-MM` with both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    first: Month,
    last: Month,
}

/// The text is not a span; names what was expected.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidSpan {
    /// Neither form.
    #[error("expected a month as YYYY-MM, or a range of months as YYYY-MM..YYYY-MM, from 1970-01 to 2148-12")]
    Form,
    /// The range ends before it starts.
    #[error("expected a range of months whose first is not after its last")]
    Backwards,
    /// The range is longer than [`MAX_MONTHS`].
    #[error("expected a range of at most {MAX_MONTHS} months")]
    TooLong,
    /// It starts after the last month that can be stored, so it has not started.
    #[error("{0} has not started")]
    NotStarted(String),
}

impl Span {
    /// From `first` to `last`, both included.
    pub fn new(first: Month, last: Month) -> Result<Self, InvalidSpan> {
        if first > last {
            return Err(InvalidSpan::Backwards);
        }
        let span = Span { first, last };
        if span.months().nth(MAX_MONTHS).is_some() { Err(InvalidSpan::TooLong) } else { Ok(span) }
    }

    /// The first month.
    pub fn first(self) -> Month {
        self.first
    }

    /// The last month.
    pub fn last(self) -> Month {
        self.last
    }

    /// The month, if the span is a single month.
    pub fn single(self) -> Option<Month> {
        (self.first == self.last).then_some(self.first)
    }

    /// Every month, in order.
    pub fn months(self) -> impl Iterator<Item = Month> {
        std::iter::successors(Some(self.first), |month| Some(month.next())).take_while(move |month| *month <= self.last)
    }

    /// The parts of its months that have started at `now`. Future months of a range are left out. It is an error if the first month has not
    /// started.
    pub fn periods(self, now: DateTime<Utc>) -> Result<Vec<Period>, NotBegun> {
        let mut periods = vec![Period::of(self.first, now)?];
        periods.extend(self.months().skip(1).map_while(|month| Period::of(month, now).ok()));
        Ok(periods)
    }
}

impl From<Month> for Span {
    fn from(month: Month) -> Self {
        Span { first: month, last: month }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single() {
            Some(month) => month.fmt(f),
            None => write!(f, "{}..{}", self.first, self.last),
        }
    }
}

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, InvalidSpan> {
        let month = |text: &str| text.parse::<Month>().map_err(|_| InvalidSpan::Form);
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        match (is_after_all(first), is_after_all(last)) {
            (true, true) => Err(InvalidSpan::NotStarted(first.to_owned())),
            (true, false) => month(last).and(Err(InvalidSpan::Backwards)),
            (false, true) => month(first).and(Err(InvalidSpan::TooLong)),
            (false, false) => Span::new(month(first)?, month(last)?),
        }
    }
}

/// Whether the text is a month after those that can be stored, such as `9999-12`.
fn is_after_all(text: &str) -> bool {
    let this_century = |(year, month): (&str, &str)| {
        year.len() == 4 && year > "2148" && format!("2000-{month}").parse::<Month>().is_ok()
    };
    text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') && text.split_once('-').is_some_and(this_century)
}

/// A month up to now, in whole hours, including the running one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    month: Month,
    /// First hour that is not part of the period.
    end: Hour,
    /// Whether the month has not ended yet. In its last hour a month is still running, although its period has all its hours.
    is_running: bool,
}

/// The month starts in the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} has not started")]
pub struct NotBegun(pub Month);

impl Period {
    /// The part of `month` that has started at `now`.
    pub fn of(month: Month, now: DateTime<Utc>) -> Result<Self, NotBegun> {
        let current = Hour::of(now);
        if month.first_hour() > current {
            return Err(NotBegun(month));
        }
        let is_running = current < month.end_hour();
        Ok(Period { month, end: month.end_hour().min(Hour(current.0 + 1)), is_running })
    }

    /// All of `month`.
    pub fn whole(month: Month) -> Self {
        Period { month, end: month.end_hour(), is_running: false }
    }

    /// The same number of hours from the start of another month, for comparison. All of that month if this period is a whole month.
    #[must_use]
    pub fn alike(self, other: Month) -> Self {
        let end = if self.is_running() {
            Hour(other.first_hour().0 + (self.end.0 - self.first_hour().0)).min(other.end_hour())
        } else {
            other.end_hour()
        };
        Period { month: other, end, is_running: end < other.end_hour() }
    }

    /// The month.
    pub fn month(self) -> Month {
        self.month
    }

    /// True until the month's last hour has ended.
    pub fn is_running(self) -> bool {
        self.is_running
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

    /// Last day, which may not have ended.
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
    fn spans_read_back_and_say_what_is_wrong_with_others() {
        for (text, months) in [("2026-10", 1), ("2025-11..2026-02", 4), ("2024-01..2026-12", 36)] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.to_string().as_str(), span.months().count()), (text, months));
            assert_eq!(span.single().is_some(), months == 1);
        }
        assert_eq!("2026-10..2026-10".parse::<Span>().unwrap(), Span::from("2026-10".parse::<Month>().unwrap()));
        for (text, error) in [
            ("2026-10..2026-09", InvalidSpan::Backwards),
            ("2024-01..2027-01", InvalidSpan::TooLong),
            ("1970-01..2148-12", InvalidSpan::TooLong),
            ("9999-12", InvalidSpan::NotStarted("9999-12".to_owned())),
            ("2149-01..9999-12", InvalidSpan::NotStarted("2149-01".to_owned())),
            ("9999-12..2026-10", InvalidSpan::Backwards),
            ("2026-10..9999-12", InvalidSpan::TooLong),
            ("9999-13", InvalidSpan::Form),
            ("9999-1", InvalidSpan::Form),
            ("99999-12", InvalidSpan::Form),
            ("9999-12..x", InvalidSpan::Form),
            ("", InvalidSpan::Form),
            ("2026-10..", InvalidSpan::Form),
            ("..2026-10", InvalidSpan::Form),
            ("2026-10...2026-11", InvalidSpan::Form),
            ("2026-10..2026-11..2026-12", InvalidSpan::Form),
        ] {
            assert_eq!(text.parse::<Span>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_range_ends_with_what_has_begun() {
        let periods = |text: &str| {
            let now = DateTime::parse_from_rfc3339("2026-11-02T13:59:59Z").unwrap().to_utc();
            text.parse::<Span>()
                .unwrap()
                .periods(now)
                .map(|all| all.iter().map(|p| p.hours().count()).collect::<Vec<_>>())
        };
        assert_eq!(periods("2026-10..2027-02").unwrap(), [744, 38]);
        assert_eq!(periods("2026-12..2027-02"), Err(NotBegun("2026-12".parse().unwrap())));
    }

    #[test]
    fn a_running_month_is_compared_with_as_many_hours() {
        let running = period("2026-03", "2026-03-30T13:59:59Z").unwrap();
        assert_eq!(running.alike("2026-01".parse().unwrap()).hours().count(), 29 * 24 + 14);
        assert_eq!(running.alike("2026-02".parse().unwrap()).hours().count(), 28 * 24, "and no more than there are");
        let over = period("2026-02", "2026-03-30T13:59:59Z").unwrap();
        assert_eq!(over.alike("2026-01".parse().unwrap()).hours().count(), 31 * 24);
    }

    #[test]
    fn the_edges_of_a_month_belong_to_it() {
        assert_eq!(period("2026-11", "2026-11-01T00:00:00Z").unwrap().hours().count(), 1);
        assert!(period("2026-11", "2026-11-30T23:10:00Z").unwrap().is_running());
        assert!(!period("2026-11", "2026-12-01T00:00:00Z").unwrap().is_running());
        assert_eq!(period("2026-12", "2026-11-30T23:59:59Z"), Err(NotBegun("2026-12".parse().unwrap())));
    }
}
