//! Time in headcount: no finer than the hour once a beacon has been accepted, and always in UTC.

use chrono::{DateTime, Datelike, NaiveDate, TimeZone, Utc};
use std::fmt;
use std::str::FromStr;

/// Hours since 1970-01-01T00:00Z.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour(pub u32);

/// Days since 1970-01-01, as ClickHouse's `Date` counts them.
#[derive(Default, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u16);

/// A calendar month, written `YYYY-MM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: u16,
    /// 1 to 12.
    month: u8,
}

/// The text is not a month; names what was expected.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected a month as YYYY-MM, from 1970-01 to 2148-12, such as 2026-10")]
pub struct InvalidMonth;

impl Hour {
    /// The hour that contains `at`.
    pub fn of(at: DateTime<Utc>) -> Self {
        Hour(u32::try_from(at.timestamp().max(0) / 3600).unwrap_or(u32::MAX / 3600))
    }

    /// Seconds since the epoch at the hour's start: ClickHouse's `DateTime`.
    pub const fn unix_seconds(self) -> u32 {
        self.0.saturating_mul(3600)
    }

    /// The hour that starts at `seconds` or contains it.
    pub const fn from_unix_seconds(seconds: u32) -> Self {
        Hour(seconds / 3600)
    }

    /// The day of the hour.
    pub const fn day(self) -> Day {
        Day((self.0 / 24) as u16)
    }

    /// Start of the hour.
    pub fn start(self) -> DateTime<Utc> {
        DateTime::from_timestamp(i64::from(self.unix_seconds()), 0).unwrap_or_default()
    }

    /// The month of the hour.
    pub fn month(self) -> Month {
        let start = self.start();
        Month { year: start.year() as u16, month: start.month() as u8 }
    }
}

impl Day {
    /// The calendar date.
    pub fn date(self) -> NaiveDate {
        self.first_hour().start().date_naive()
    }

    /// The day's first hour.
    pub const fn first_hour(self) -> Hour {
        Hour(self.0 as u32 * 24)
    }
}

impl Month {
    /// `month` is 1 to 12; years outside 1970…2148 do not fit ClickHouse's `Date`.
    pub fn new(year: u16, month: u8) -> Result<Self, InvalidMonth> {
        if (1970..=2148).contains(&year) && (1..=12).contains(&month) {
            Ok(Month { year, month })
        } else {
            Err(InvalidMonth)
        }
    }

    /// The month's first hour.
    pub fn first_hour(self) -> Hour {
        let start = Utc.with_ymd_and_hms(i32::from(self.year), u32::from(self.month), 1, 0, 0, 0);
        Hour::of(start.single().expect("a month's first instant exists in UTC"))
    }

    /// The first hour after the month.
    pub fn end_hour(self) -> Hour {
        self.next().first_hour()
    }

    /// The month after.
    #[must_use]
    pub const fn next(self) -> Self {
        if self.month == 12 {
            Month { year: self.year + 1, month: 1 }
        } else {
            Month { year: self.year, month: self.month + 1 }
        }
    }

    /// The month before.
    #[must_use]
    pub const fn previous(self) -> Self {
        if self.month == 1 {
            Month { year: self.year - 1, month: 12 }
        } else {
            Month { year: self.year, month: self.month - 1 }
        }
    }

    /// Four-digit year.
    pub const fn year(self) -> u16 {
        self.year
    }

    /// 1 to 12.
    pub const fn number(self) -> u8 {
        self.month
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = InvalidMonth;

    fn from_str(text: &str) -> Result<Self, InvalidMonth> {
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        match text.split_once('-') {
            Some((year, month)) if year.len() == 4 && month.len() == 2 && digits(year) && digits(month) => {
                Month::new(year.parse().map_err(|_| InvalidMonth)?, month.parse().map_err(|_| InvalidMonth)?)
            }
            _ => Err(InvalidMonth),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_read_back_and_know_their_hours() {
        let month: Month = "2026-02".parse().unwrap();
        assert_eq!(month.to_string(), "2026-02");
        assert_eq!(month.end_hour().0 - month.first_hour().0, 28 * 24);
        assert_eq!(month.first_hour().month(), month);
        assert_eq!(Hour(month.first_hour().0 - 1).month(), month.previous());
        assert_eq!("2026-12".parse::<Month>().unwrap().next().to_string(), "2027-01");
        for wrong in ["2026", "2026-13", "2026-00", "26-01", "2026-1", "+026-01", "1969-12", "2026-01-01", "2149-01"] {
            assert_eq!(wrong.parse::<Month>(), Err(InvalidMonth), "{wrong}");
        }
    }

    #[test]
    fn days_and_hours_agree() {
        let hour = Hour::of(DateTime::parse_from_rfc3339("2026-10-31T23:59:59Z").unwrap().to_utc());
        assert_eq!(hour.day().date().to_string(), "2026-10-31");
        assert_eq!(Hour::from_unix_seconds(hour.unix_seconds()), hour);
    }
}
