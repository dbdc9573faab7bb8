//! The page's words: figures, dates and reasons as people read them.

use crate::report::{DropCause, DroppedFact, MaskedPages, RulesChange, SourceViews, VisitRule};
use chrono::{DateTime, Datelike, Timelike, Utc};
use schemas::RejectionReason;
use schemas::caps::MORE_PATH;
use schemas::classes::Source;

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
const SHOWN_CHARS: usize = 80;

/// `1234567` as `1,234,567`.
pub(crate) fn number(value: u64) -> String {
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
pub(crate) fn month(month: schemas::Month) -> String {
    format!("{} {}", MONTHS[usize::from(month.number()) - 1], month.year())
}

/// `October`.
pub(super) fn month_name(month: schemas::Month) -> &'static str {
    MONTHS[usize::from(month.number()) - 1]
}

/// `Oct 2026`, for narrow places.
pub(super) fn month_short(month: schemas::Month) -> String {
    format!("{:.3} {}", month_name(month), month.year())
}

/// `23 November`.
pub(super) fn day(date: impl Datelike) -> String {
    format!("{} {}", date.day(), MONTHS[date.month0() as usize])
}

/// `23 November, 14:00 UTC`.
pub(super) fn instant(at: DateTime<Utc>) -> String {
    format!("{}, {:02}:{:02} UTC", day(at), at.hour(), at.minute())
}

/// An HTTP status in words, if it is relevant to a maintainer.
pub(super) fn status(status: u16) -> &'static str {
    match status {
        0 => "the page's status is not known",
        200..=299 => "answered",
        300..=399 => "a redirect",
        403 => "forbidden",
        404 => "not found",
        410 => "gone",
        400..=499 => "refused",
        _ => "the docs' server failed",
    }
}

/// A fraction as a percentage with one decimal and a non-breaking space.
pub(crate) fn percent(fraction: f64) -> String {
    format!("{:.1}\u{a0}%", fraction * 100.0)
}

/// With one decimal, the whole part grouped.
pub(crate) fn tenths(value: f64) -> String {
    let tenths = (value * 10.0).round() as u64;
    format!("{}.{}", number(tenths / 10), tenths % 10)
}

/// A figure to compare.
#[derive(Clone, Copy)]
pub(super) struct Figure {
    value: f64,
    /// One standard deviation.
    deviation: f64,
    whole: bool,
}

impl Figure {
    pub(super) fn exact(value: u64) -> Self {
        Figure { value: value as f64, deviation: 0.0, whole: true }
    }

    /// `error` as a fraction of the value.
    pub(super) fn estimate(value: f64, error: f64) -> Self {
        Figure { value, deviation: value * error, whole: value >= 100.0 }
    }

    fn text(self) -> String {
        if self.whole { number(self.value.round() as u64) } else { tenths(self.value) }
    }
}

/// How `now` differs from `before`, the figure of `month`: `12 % more than in September (8,512)`. A difference within twice the error of
/// both is not reported as one.
pub(super) fn change(now: Figure, before: Figure, more: &str, fewer: &str, month: &str) -> String {
    let noise = 2.0 * now.deviation.hypot(before.deviation);
    let text = before.text();
    let difference = now.value - before.value;
    if before.value == 0.0 {
        return if now.value == 0.0 { format!("none in {month} either") } else { format!("none in {month}") };
    }
    if difference == 0.0 {
        return format!("as many as in {month}");
    }
    if difference.abs() <= noise {
        return format!("no clear difference from {month} ({text})");
    }
    let ratio = now.value / before.value;
    if ratio >= 2.0 {
        return format!("{} times as many as in {month} ({text})", tenths(ratio));
    }
    let word = if difference > 0.0 { more } else { fewer };
    match ((ratio - 1.0).abs() * 100.0).round() as u64 {
        0 => format!("under 1\u{a0}% {word} than in {month} ({text})"),
        percent => format!("{percent}\u{a0}% {word} than in {month} ({text})"),
    }
}

/// A page's change in a column: `+12 %`, `−5 %`, `× 3.4`.
pub(super) fn change_short(fraction: f64) -> String {
    let percent = (fraction.abs() * 100.0).round() as u64;
    match percent {
        0 => "± 0 %".to_owned(),
        _ if fraction >= 1.0 => format!("× {}", tenths(1.0 + fraction)),
        _ if fraction > 0.0 => format!("+{percent} %"),
        _ => format!("−{percent} %"),
    }
}

/// The text, without its middle if it is long.
pub(super) fn shortened(text: &str) -> String {
    let count = text.chars().count();
    if count <= SHOWN_CHARS {
        return text.to_owned();
    }
    let head: String = text.chars().take(SHOWN_CHARS - 32).collect();
    let tail: String = text.chars().skip(count - 31).collect();
    format!("{head}…{tail}")
}

/// A kind of robots in words.
pub(crate) fn bot_class(name: &str) -> &str {
    match name {
        "search" => "Search engines",
        "ai_crawler" => "AI crawlers",
        "ai_training" => "AI training",
        "ai_assistant" => "AI assistants",
        "feed" => "Feed readers",
        "seo" => "SEO tools",
        "archiver" => "Archivers",
        "scanner" => "Scanners",
        "preview" => "Link previews",
        "monitor" => "Uptime monitors",
        "automation" => "Automation and headless browsers",
        "other_bot" => "Other robots",
        other => other,
    }
}

/// A new version of the rules by which robots are found, as a sentence.
pub(crate) fn rules_change(change: &RulesChange) -> String {
    let RulesChange { day, from, to } = *change;
    let before = if from == 0 { "by rules without a version".to_owned() } else { format!("by version {from}") };
    format!(
        "Since {} robots are recognised by version {to} of the rules, before that {before}. Views keep their kind and name.",
        day.format("%-d %B %Y")
    )
}

/// A tracker in words.
pub(crate) fn source(name: &str) -> &str {
    match name {
        "headcount" => "headcount's script or pixel",
        "plausible" => "Plausible's script",
        "umami" => "Umami's script",
        "goatcounter" => "GoatCounter's script",
        "readthedocs" => "The script of Read the Docs",
        "log" => "The web server's log",
        "import" => "An import",
        other => other,
    }
}

/// Which views of a tracker are visits, as a sentence.
pub(crate) fn visit_rule(rule: VisitRule) -> &'static str {
    match rule {
        VisitRule::Arrivals => "A visit is a view that came from outside the docs.",
        VisitRule::ForeignReferrer => {
            "A visit is a view with a referrer of another site. Before version 2.16 of the script, a view without a referrer is one, too."
        }
        VisitRule::RepeatedReferrer => {
            "A visit is a view with a referrer of another site. The script repeats the first referrer with each step within a page, so there were at most this many visits."
        }
        VisitRule::None => "The script sends no referrer, so none of its views is a visit.",
    }
}

/// Whether a report has to name its trackers and their visits: not if all views are of headcount's own script or pixel.
pub(crate) fn names_trackers(sources: &[SourceViews]) -> bool {
    sources.iter().any(|of| of.source != Source::Beacon.name())
}

/// Why beacons were refused, and how to fix it.
pub(crate) fn rejection(name: &str) -> &str {
    let Some(reason) = RejectionReason::ALL.iter().find(|reason| reason.name() == name) else { return name };
    match reason {
        RejectionReason::MalformedJson => "The body was not a JSON object.",
        RejectionReason::NotUtf8 => "The text was not UTF-8.",
        RejectionReason::MissingField => "A required field was missing; the page's address is one.",
        RejectionReason::InvalidField => "A field had the wrong type or form.",
        RejectionReason::FieldTooLong => "A field was longer than allowed.",
        RejectionReason::ControlCharacters => "A field held control characters.",
        RejectionReason::UnknownProject => "The project named in the snippet is not registered here.",
        RejectionReason::ForeignHost => {
            "The page's host is not one of this project's. If it is yours, register it: headcount project add."
        }
        RejectionReason::BodyTooLarge => "The body was longer than 16 KiB.",
        RejectionReason::BodyTimeout => "The body did not arrive in time.",
        RejectionReason::ClientRateLimited => "One client sent more than a reader could.",
        RejectionReason::ProjectRateLimited => "The project sent more than its limit; ask the operator to raise it.",
        RejectionReason::LogUnavailable => "The service could not store views at that time.",
        RejectionReason::Overloaded => "The service was overloaded at that time.",
        RejectionReason::AmbiguousProject => {
            "Several projects share the page's host, and the snippet named none. Add data-project to it."
        }
        RejectionReason::IgnoredNetwork => "The client is in a network whose views are not counted.",
        RejectionReason::Prefetch => "A browser fetched the page before anybody opened it.",
        RejectionReason::NotAView => "The event was no page view.",
    }
}

/// Which visitors are missing in every report.
pub(crate) const UNCOUNTED: &str =
    "Readers whose browser blocks the script, or who ask not to be counted, are in no figure.";

/// How many rows have a masked path.
pub(crate) fn masked(masked: &MaskedPages) -> String {
    format!(
        "{} of the list of pages, with {}, {} a masked segment (such as :token or :id), so each may stand for several pages.",
        counted(masked.rows, "row", "rows"),
        counted(masked.views, "view", "views"),
        if masked.rows == 1 { "has" } else { "have" },
    )
}

/// The command that keeps paths unmasked.
pub(crate) fn keep_command(project: &str) -> String {
    format!("headcount project rules {project} --keep '/path/*'")
}

/// What the threshold is, and which figures have none. `others` is the label of the item with the sum of suppressed values.
pub(crate) fn threshold(threshold: u64, others: &str) -> String {
    format!(
        "Values with fewer than {threshold} views are added up as “{others}”, and a page's visitors below {threshold} are withheld. \
         The threshold counts views, not readers. Page views, hours, days and totals have none."
    )
}

/// How many views were counted without a fact, and why.
pub(crate) fn dropped(dropped: &DroppedFact) -> String {
    let views = counted(dropped.views, "view was", "views were");
    let fact = match dropped.fact.as_str() {
        "agent" => "user agent",
        "status" => "HTTP status",
        fact => fact,
    };
    match (dropped.cause, dropped.fact.as_str()) {
        (DropCause::Unusable, _) => format!("{views} counted without the {fact} that was sent: it could not be used."),
        (DropCause::Limit, "path") => format!(
            "{views} counted under {MORE_PATH}: one client network sent more different paths than paths_per_network allows."
        ),
        (DropCause::Limit, "agent") => format!(
            "{views} counted as the visitor of the client network alone: it sent more different user agents than agents_per_network \
             allows."
        ),
        (DropCause::Limit, _) => format!(
            "{views} counted without the {fact}: one client network sent more different values than values_per_network allows."
        ),
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
    fn changes_are_sentences_and_noise_is_none() {
        let exact = |now, before| change(Figure::exact(now), Figure::exact(before), "more", "fewer", "September");
        assert_eq!(exact(112, 100), "12\u{a0}% more than in September (100)");
        assert_eq!(exact(88, 100), "12\u{a0}% fewer than in September (100)");
        assert_eq!(exact(10_000, 10_001), "under 1\u{a0}% fewer than in September (10,001)");
        assert_eq!(exact(340, 100), "3.4 times as many as in September (100)");
        assert_eq!(exact(100, 100), "as many as in September");
        assert_eq!(exact(5, 0), "none in September");
        assert_eq!(exact(0, 0), "none in September either");
        let estimate = |now| {
            let (now, before) = (Figure::estimate(now, 0.008), Figure::estimate(1000.0, 0.008));
            change(now, before, "more", "fewer", "September")
        };
        assert_eq!(estimate(1015.0), "no clear difference from September (1,000)");
        assert_eq!(estimate(1100.0), "10\u{a0}% more than in September (1,000)");
        for (fraction, text) in [(0.12, "+12 %"), (-0.054, "−5 %"), (2.4, "× 3.4"), (0.001, "± 0 %")] {
            assert_eq!(change_short(fraction), text);
        }
    }

    #[test]
    fn dropped_facts_are_sentences_that_name_the_setting() {
        let words = |fact: &str, cause, views| dropped(&DroppedFact { fact: fact.to_owned(), cause, views });
        for (fact, cause, views, expected) in [
            (
                "path",
                DropCause::Limit,
                1204,
                "1,204 views were counted under /:more: one client network sent more different paths than paths_per_network allows.",
            ),
            (
                "referrer",
                DropCause::Limit,
                1,
                "1 view was counted without the referrer: one client network sent more different values than values_per_network allows.",
            ),
            (
                "version",
                DropCause::Unusable,
                2,
                "2 views were counted without the version that was sent: it could not be used.",
            ),
        ] {
            assert_eq!(words(fact, cause, views), expected);
        }
        assert!(words("agent", DropCause::Limit, 3).contains("agents_per_network"));
    }

    #[test]
    fn long_paths_keep_their_ends() {
        let path = format!("/start/{}/end", "é".repeat(500));
        let short = shortened(&path);
        assert_eq!(short.chars().count(), SHOWN_CHARS);
        assert!(short.starts_with("/start/") && short.ends_with("/end"));
    }
}
