//! The page's words: figures, dates and reasons as people read them.

use chrono::{DateTime, Datelike, Timelike, Utc};
use schemas::RejectionReason;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Longest text of a path or label on the page, in characters; the JSON has all of it.
const SHOWN_CHARS: usize = 100;

/// `1234567` as `1,234,567`.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 view`, `2 views`.
pub(super) fn counted(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(value), if value == 1 { one } else { many })
}

/// `2026-10` as `October 2026`.
pub(super) fn month(month: schemas::Month) -> String {
    format!("{} {}", MONTHS[usize::from(month.number()) - 1], month.year())
}

/// `23 November`.
pub(super) fn day(date: impl Datelike) -> String {
    format!("{} {}", date.day(), MONTHS[date.month0() as usize])
}

/// `23 November, 14:00 UTC`.
pub(super) fn instant(at: DateTime<Utc>) -> String {
    format!("{}, {:02}:{:02} UTC", day(at), at.hour(), at.minute())
}

/// A fraction as a percentage with one decimal.
pub(super) fn percent(fraction: f64) -> String {
    format!("{:.1} %", fraction * 100.0)
}

/// The text, its middle left out where it is long.
pub(super) fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= SHOWN_CHARS {
        return text.to_owned();
    }
    let head: String = text.chars().take(SHOWN_CHARS - 40).collect();
    let tail: String = text.chars().skip(count - 39).collect();
    format!("{head}…{tail}")
}

/// A class of bots in words.
pub(super) fn bot_class(name: &str) -> &str {
    match name {
        "search" => "Search engines",
        "ai_crawler" => "AI crawlers",
        "preview" => "Link previews",
        "monitor" => "Uptime monitors",
        "automation" => "Automation and headless browsers",
        "other_bot" => "Other bots",
        other => other,
    }
}

/// Why beacons were refused, and what to do about it.
pub(super) fn rejection(name: &str) -> &str {
    let Some(reason) = RejectionReason::ALL.iter().find(|reason| reason.name() == name) else { return name };
    match reason {
        RejectionReason::MalformedJson => "The body was not a JSON object.",
        RejectionReason::NotUtf8 => "The text was not UTF-8.",
        RejectionReason::MissingField => "A required field was missing; the page's address is one.",
        RejectionReason::InvalidField => "A field had the wrong type or form.",
        RejectionReason::FieldTooLong => "A field was longer than allowed.",
        RejectionReason::ControlCharacters => "A field held control characters.",
        RejectionReason::UnknownProject => "The project named in the snippet is not registered here.",
        RejectionReason::ForeignHost => "The page's host is not one of this project's. If it is yours, register it.",
        RejectionReason::BodyTooLarge => "The body was longer than 16 KiB.",
        RejectionReason::BodyTimeout => "The body did not arrive in time.",
        RejectionReason::ClientRateLimited => "One client sent more than a reader could.",
        RejectionReason::ProjectRateLimited => "The project sent more than its limit; ask the operator to raise it.",
        RejectionReason::LogUnavailable => "The service could not store views at that time.",
        RejectionReason::Overloaded => "The service was overloaded at that time.",
        RejectionReason::AmbiguousProject => {
            "Several projects share the page's host, and the snippet named none. Add data-project to it."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (123_456, "123,456"), (1_234_567, "1,234,567")] {
            assert_eq!(number(value), text);
        }
        assert_eq!((counted(1, "view", "views"), counted(0, "view", "views")), ("1 view".into(), "0 views".into()));
    }

    #[test]
    fn long_paths_keep_their_ends() {
        let path = format!("/start/{}/end", "é".repeat(500));
        let short = shortened(&path);
        assert_eq!(short.chars().count(), SHOWN_CHARS);
        assert!(short.starts_with("/start/") && short.ends_with("/end"));
    }
}
