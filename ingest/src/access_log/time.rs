//! Times of log lines. All of them become an hour in UTC; the rest of a time is dropped here.

use super::line::NotRead;
use schemas::Hour;

const DAY_SECONDS: i64 = 86_400;

/// The last second that ClickHouse's `DateTime` has.
const LAST_SECOND: i64 = u32::MAX as i64;

/// The number of a month's English name, 1 to 12. Other languages have no place in these formats.
pub(super) fn month_number(name: &[u8]) -> Option<u32> {
    const NAMES: [&[u8]; 12] =
        [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
    let number = NAMES.iter().position(|month| name.eq_ignore_ascii_case(month))?;
    u32::try_from(number + 1).ok()
}

fn number(text: &[u8]) -> Option<u32> {
    let is_number = !text.is_empty() && text.len() <= 9 && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| text.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

/// Days since 1970-01-01 of a date that exists.
fn days(year: u32, month: u32, day: u32) -> Option<i64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let month_days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u32::from(leap),
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if !(1..=month_days).contains(&day) || !(1970..=2106).contains(&year) {
        return None;
    }
    // Days of the civil calendar with the year beginning in March (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let (year, shifted) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(i64::from(era * 146_097 + day_of_era) - 719_468)
}

/// Seconds within a day of `hh:mm:ss`. A leap second (`:60`) and 24:00:00 are the next instant.
fn clock_seconds(text: &[u8]) -> Option<i64> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = *text else { return None };
    let (hour, minute, second) = (number(&[h1, h2])?, number(&[m1, m2])?, number(&[s1, s2])?);
    let is_time = (hour < 24 || (hour, minute, second) == (24, 0, 0)) && minute < 60 && second <= 60;
    is_time.then_some(i64::from(hour * 3600 + minute * 60 + second))
}

/// Seconds east of UTC of `Z`, `+0330`, `-05:00`, `+01` or `UTC`.
fn offset_seconds(text: &[u8]) -> Option<i64> {
    if matches!(text, b"Z" | b"z" | b"UTC" | b"GMT") {
        return Some(0);
    }
    let (sign, digits) = match text {
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let (hours, minutes) = match *digits {
        [h1, h2] => ([h1, h2], [b'0', b'0']),
        [h1, h2, m1, m2] | [h1, h2, b':', m1, m2] => ([h1, h2], [m1, m2]),
        _ => return None,
    };
    let (hours, minutes) = (number(&hours)?, number(&minutes)?);
    (hours <= 14 && minutes < 60).then_some(sign * i64::from(hours * 3600 + minutes * 60))
}

/// The hour of a number of seconds since 1970.
pub(super) fn hour_of(seconds: i64) -> Result<Hour, NotRead> {
    match u32::try_from(seconds) {
        Ok(seconds) if i64::from(seconds) <= LAST_SECOND => Ok(Hour::from_unix_seconds(seconds)),
        _ => Err(NotRead::InvalidTime),
    }
}

/// The hour of a date in UTC and a time of day, as W3C extended has them in two columns.
pub(super) fn date_and_time(date: &[u8], clock: &[u8]) -> Result<Hour, NotRead> {
    let day = iso_date(date).ok_or(NotRead::InvalidTime)?;
    let clock = clock.get(..8).and_then(clock_seconds).ok_or(NotRead::InvalidTime)?;
    hour_of(day * DAY_SECONDS + clock)
}

fn iso_date(text: &[u8]) -> Option<i64> {
    let [y1, y2, y3, y4, separator, m1, m2, other, d1, d2] = *text else { return None };
    if separator != other || !matches!(separator, b'-' | b'/') {
        return None;
    }
    days(number(&[y1, y2, y3, y4])?, number(&[m1, m2])?, number(&[d1, d2])?)
}

/// The hour of a time in any of the forms that servers write: `26/Nov/2026:10:00:00 +0100`, ISO 8601 with `T` or a blank, and
/// seconds, milliseconds, microseconds or nanoseconds since 1970.
pub(super) fn any(text: &[u8], utc_offset_seconds: Option<i32>) -> Result<Hour, NotRead> {
    let text = text.trim_ascii();
    if text.get(2) == Some(&b'/') {
        return common(text, utc_offset_seconds);
    }
    if matches!(text.get(4), Some(b'-' | b'/')) {
        let (date, rest) = text.split_at_checked(10).ok_or(NotRead::InvalidTime)?;
        let day = iso_date(date).ok_or(NotRead::InvalidTime)?;
        let rest = rest.strip_prefix(b"T").or(rest.strip_prefix(b" ")).ok_or(NotRead::InvalidTime)?;
        return zoned(day, rest, utc_offset_seconds);
    }
    let text = std::str::from_utf8(text).map_err(|_| NotRead::InvalidTime)?;
    since_1970(text.parse().map_err(|_| NotRead::InvalidTime)?)
}

/// `26/Nov/2026:10:00:00 +0100`, the time of common and combined.
fn common(text: &[u8], utc_offset_seconds: Option<i32>) -> Result<Hour, NotRead> {
    let [d1, d2, b'/', n1, n2, n3, b'/', y1, y2, y3, y4, b':', rest @ ..] = text else {
        return Err(NotRead::InvalidTime);
    };
    let month = month_number(&[*n1, *n2, *n3]).ok_or(NotRead::InvalidTime)?;
    let day = number(&[*d1, *d2]).zip(number(&[*y1, *y2, *y3, *y4])).and_then(|(day, year)| days(year, month, day));
    zoned(day.ok_or(NotRead::InvalidTime)?, rest, utc_offset_seconds)
}

/// The hour of `10:00:00.123 +0100` on a day.
fn zoned(day: i64, rest: &[u8], utc_offset_seconds: Option<i32>) -> Result<Hour, NotRead> {
    let (clock, rest) = rest.split_at_checked(8).ok_or(NotRead::InvalidTime)?;
    let clock = clock_seconds(clock).ok_or(NotRead::InvalidTime)?;
    let rest = match rest {
        [b'.' | b',', fraction @ ..] => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            &fraction[digits..]
        }
        rest => rest,
    };
    let offset = match rest.trim_ascii() {
        b"" => i64::from(utc_offset_seconds.ok_or(NotRead::NoZone)?),
        zone => offset_seconds(zone).ok_or(NotRead::InvalidTime)?,
    };
    hour_of(day * DAY_SECONDS + clock - offset)
}

/// Seconds since 1970, or a finer unit: the number's size shows which.
pub(super) fn since_1970(number: f64) -> Result<Hour, NotRead> {
    if !number.is_finite() || number < 0.0 {
        return Err(NotRead::InvalidTime);
    }
    let unit = match number {
        n if n < 1e11 => 1.0,
        n if n < 1e14 => 1e3,
        n if n < 1e17 => 1e6,
        _ => 1e9,
    };
    hour_of((number / unit) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_become_hours_in_utc() {
        for (text, expected) in [
            ("26/Nov/2026:10:00:00 +0100", Ok("2026-11-26T09")),
            ("26/Nov/2026:10:15:00.123 +0330", Ok("2026-11-26T06")),
            ("30/Nov/2026:23:30:00 -0500", Ok("2026-12-01T04")),
            ("31/Dec/2026:23:59:60 +0000", Ok("2027-01-01T00")),
            ("26/Nov/2026:24:00:00 +0000", Ok("2026-11-27T00")),
            ("29/Feb/2028:00:00:00 +0000", Ok("2028-02-29T00")),
            ("2026-11-26T10:00:00+01:00", Ok("2026-11-26T09")),
            ("2026-11-26T10:00:00.123456Z", Ok("2026-11-26T10")),
            ("2026/11/26 10:00:00Z", Ok("2026-11-26T10")),
            ("1764151200.5", Ok("2025-11-26T10")),
            ("1764151200500", Ok("2025-11-26T10")),
            ("1764151200500000", Ok("2025-11-26T10")),
            ("1764151200500000000", Ok("2025-11-26T10")),
            ("29/Feb/2026:00:00:00 +0000", Err(NotRead::InvalidTime)),
            ("26/Nov/2026:24:00:01 +0000", Err(NotRead::InvalidTime)),
            ("26/Nov/2026:10:60:00 +0000", Err(NotRead::InvalidTime)),
            ("26/Dez/2026:10:00:00 +0000", Err(NotRead::InvalidTime)),
            ("26/Nov/2026:10:00:00 +1500", Err(NotRead::InvalidTime)),
            ("26/Nov/2026:10:00:00", Err(NotRead::NoZone)),
            ("2026-11-26 10:00:00", Err(NotRead::NoZone)),
            ("-1", Err(NotRead::InvalidTime)),
            ("NaN", Err(NotRead::InvalidTime)),
            ("", Err(NotRead::InvalidTime)),
        ] {
            let found = any(text.as_bytes(), None).map(|hour| hour.start().format("%Y-%m-%dT%H").to_string());
            assert_eq!(found, expected.map(str::to_owned), "{text}");
        }
        let local = any(b"26/Nov/2026:10:00:00", Some(-18_000)).unwrap();
        assert_eq!(local.start().to_rfc3339(), "2026-11-26T15:00:00+00:00");
    }
}
