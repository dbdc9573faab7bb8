//! Decodes a record by prost, with the rules written a second time: a disagreement with the aggregator's decoder reveals an error in one of them.

use prost::Message;
use schemas::proto::{DroppedFacts, LogRecord, PageView, RejectionTally, ReportedMissing, log_record::Body};
use schemas::{Coordinate, ProjectSlug};

/// A record to be counted.
pub enum Record {
    /// A page view.
    View(PageView),
    /// A tally of refused beacons.
    Tally(RejectionTally),
    /// A tally of views counted without a fact.
    Dropped(DroppedFacts),
    /// A tally of a page reported missing.
    Missing(ReportedMissing),
}

/// Names of the refusals by their number in the log; repeated here on purpose, like the classes' below.
pub const REASONS: [&str; 19] = [
    "",
    "malformed_json",
    "not_utf8",
    "missing_field",
    "invalid_field",
    "field_too_long",
    "control_characters",
    "unknown_project",
    "foreign_host",
    "body_too_large",
    "body_timeout",
    "client_rate_limited",
    "project_rate_limited",
    "log_unavailable",
    "overloaded",
    "ambiguous_project",
    "ignored_network",
    "prefetch",
    "not_a_view",
];
/// Reasons in formats 1 to 3.
const REASONS_BEFORE_4: usize = 16;
/// Device classes.
pub const DEVICES: [&str; 7] = ["", "Desktop", "Mobile", "Tablet", "Other", "TV", "Console"];
/// Browser families.
pub const BROWSERS: [&str; 10] =
    ["", "Chrome", "Firefox", "Safari", "Edge", "Opera", "Samsung Internet", "Other", "DuckDuckGo", "Brave"];
/// System families.
pub const SYSTEMS: [&str; 11] =
    ["", "Windows", "macOS", "Linux", "Android", "iOS", "ChromeOS", "Other", "BSD", "HarmonyOS", "KaiOS"];
/// Facts that a view may be counted without.
pub const FACTS: [&str; 10] =
    ["", "path", "version", "language", "referrer", "status", "title", "country", "id", "agent"];
/// Prefixes of the reasons of dropped facts, by cause.
pub const CAUSES: [&str; 3] = ["", "dropped_", "limited_"];
/// Kinds of robots in `robot_daily`; the first is of people.
pub const BOT_CLASSES: [&str; 13] = [
    "",
    "search",
    "ai_crawler",
    "preview",
    "monitor",
    "automation",
    "other_bot",
    "ai_training",
    "ai_assistant",
    "feed",
    "seo",
    "archiver",
    "scanner",
];
/// The same before fold version 5: training crawlers and assistants are AI crawlers, and the kinds after them are others.
pub const BOT_CLASSES_BEFORE_5: [&str; 13] = [
    "",
    "search",
    "ai_crawler",
    "preview",
    "monitor",
    "automation",
    "other_bot",
    "ai_crawler",
    "ai_crawler",
    "other_bot",
    "other_bot",
    "other_bot",
    "other_bot",
];
/// Groups of robots in `robot_page_daily`.
pub const BOT_GROUPS: [&str; 13] = [
    "",
    "search",
    "ai_training",
    "other",
    "other",
    "other",
    "other",
    "ai_training",
    "ai_assistant",
    "other",
    "other",
    "other",
    "other",
];
/// Numbers of visitor classes in formats 1 to 3: devices, browsers, systems, bots (including humans).
const CLASSES_BEFORE_4: [usize; 4] = [5, 8, 8, 7];
/// The source of views from a web server's log, which may have no visitor.
const SOURCE_LOG: i32 = 5;
/// Sources.
const SOURCES: i32 = 7;

/// The last hour of ClickHouse's `DateTime`.
const LAST_HOUR: u32 = u32::MAX / 3600;

/// Decodes a record; none if it does not decode, has fields that the schema lacks, or has values out of their range.
pub fn read(bytes: &[u8]) -> Option<Record> {
    let record = LogRecord::decode(bytes).ok()?;
    // prost skips unknown fields; encoded again, such a record is shorter.
    if record.encode_to_vec() != bytes {
        return None;
    }
    let format = record.format;
    match record.body? {
        Body::PageView(view) if (1..=4).contains(&format) && view_is_valid(&view, format) => Some(Record::View(view)),
        Body::Rejections(tally) if tally_is_valid(&tally, format) => Some(Record::Tally(tally)),
        Body::DroppedFacts(tally) if format == 4 && dropped_is_valid(&tally) => Some(Record::Dropped(tally)),
        Body::ReportedMissing(tally) if format == 4 && missing_is_valid(&tally) => Some(Record::Missing(tally)),
        _ => None,
    }
}

fn hour_is_valid(hour: u32) -> bool {
    (1..=LAST_HOUR).contains(&hour)
}

fn view_is_valid(view: &PageView, format: u32) -> bool {
    let label = |text: &str| text.len() <= 255;
    let person = view.bot_class == 0;
    let nowhere = view.site_coordinate == 0 && view.page_coordinate == 0;
    let somewhere = [view.site_coordinate, view.page_coordinate]
        .into_iter()
        .all(|packed| packed > 0 && Coordinate::from_packed(packed).is_ok());
    let visitor = if person { somewhere || nowhere && view.source == SOURCE_LOG } else { nowhere };
    of_format(view, format)
        && visitor
        && is_project(&view.project)
        && hour_is_valid(view.hour)
        && is_path(&view.path)
        && (100..=599).contains(&view.status)
        && [&view.version, &view.language, &view.referrer_host, &view.bot].into_iter().all(|text| label(text))
        && (view.country.is_empty()
            || view.country.len() == 2 && view.country.bytes().all(|byte| byte.is_ascii_uppercase()))
        && view.bot.is_empty() == person
}

/// Whether the view has no fields of a later format, and only classes that its format defines.
fn of_format(view: &PageView, format: u32) -> bool {
    let classes = [view.device, view.browser, view.system, view.bot_class];
    let below = |limits: [usize; 4]| {
        classes.into_iter().zip(limits).all(|(class, names)| usize::try_from(class).is_ok_and(|class| class < names))
    };
    if format < 4 {
        let empty = view.title.is_empty() && view.version_meant.is_empty();
        return below(CLASSES_BEFORE_4) && (view.source, view.rules, view.marks) == (0, 0, 0) && empty;
    }
    below([DEVICES.len(), BROWSERS.len(), SYSTEMS.len(), BOT_CLASSES.len()])
        && view.bot_class != 2
        && (0..SOURCES).contains(&view.source)
        && view.marks <= 0xffff
        && view.title.len() <= 255
        && view.version_meant.len() <= 255
}

fn is_project(slug: &str) -> bool {
    ProjectSlug::is_valid(slug) && slug.len() <= 255
}

fn is_path(path: &str) -> bool {
    path.starts_with('/') && path.len() <= 1024
}

fn dropped_is_valid(tally: &DroppedFacts) -> bool {
    is_project(&tally.project)
        && hour_is_valid(tally.hour)
        && (1..FACTS.len() as i32).contains(&tally.fact)
        && (1..CAUSES.len() as i32).contains(&tally.cause)
        && tally.count > 0
        && tally.id != 0
}

fn missing_is_valid(tally: &ReportedMissing) -> bool {
    is_project(&tally.project) && hour_is_valid(tally.hour) && is_path(&tally.path) && tally.count > 0 && tally.id != 0
}

fn tally_is_valid(tally: &RejectionTally, format: u32) -> bool {
    let id = match format {
        1 => tally.id == 0,
        2..=4 => tally.id != 0,
        _ => false,
    };
    let host = tally.host.is_empty()
        || format >= 3 && !tally.project.is_empty() && matches!(tally.reason, 8 | 15) && is_host_name(&tally.host);
    id && host
        && (tally.project.is_empty() || ProjectSlug::is_valid(&tally.project))
        && hour_is_valid(tally.hour)
        && tally.count > 0
        && tally.reason > 0
        && (tally.reason as usize) < if format < 4 { REASONS_BEFORE_4 } else { REASONS.len() }
}

/// A name with or without a port, and not an IP address.
fn is_host_name(text: &str) -> bool {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let letters = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-' | '_' | '.');
    let digits =
        |port: &str| port.chars().all(|c| c.is_ascii_digit()) && port.parse::<u32>().is_ok_and(|port| port < 65_536);
    let address = name.split('.').count() == 4
        && name.split('.').all(|part| part.parse::<u8>().is_ok() && (part.len() == 1 || !part.starts_with('0')));
    text.len() <= 255 && !name.is_empty() && name.chars().all(letters) && !address && port.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SplitMix64;
    use schemas::record::{RecordFormat, encode_page_view};

    /// Both decoders accept the records that the endpoint writes, and both refuse records with a few flipped bits. If the flips produce another valid
    /// record, both accept it.
    #[test]
    fn two_decoders_agree() {
        let view = PageView {
            project: "docs".to_owned(),
            hour: 500_000,
            path: "/en/stable/".to_owned(),
            status: 200,
            version: "stable".to_owned(),
            language: "en".to_owned(),
            referrer_host: "search.example".to_owned(),
            country: "DE".to_owned(),
            device: 1,
            browser: 2,
            system: 3,
            bot_class: 0,
            arrival: true,
            site_coordinate: Coordinate::new(5, 3).unwrap().packed(),
            page_coordinate: Coordinate::new(16_000, 1).unwrap().packed(),
            event_id: 0x1234_5678_9abc_def0,
            ..PageView::default()
        };
        for format in [RecordFormat::V3, RecordFormat::V4] {
            agree(&encode_page_view(view.clone(), format));
        }
        let of_log = PageView {
            source: SOURCE_LOG,
            rules: 3,
            title: "Größe".to_owned(),
            marks: 0x8001,
            version_meant: "9.1".to_owned(),
            site_coordinate: 0,
            page_coordinate: 0,
            ..view.clone()
        };
        agree(&encode_page_view(of_log, RecordFormat::V4));
        let (bot, bot_class) = ("GPTBot".to_owned(), 7);
        agree(&encode_page_view(
            PageView { bot, bot_class, site_coordinate: 0, page_coordinate: 0, ..view },
            RecordFormat::V4,
        ));
        let (project, host) = ("docs".to_owned(), "10.0.0.example:8000".to_owned());
        let tally = RejectionTally { project, hour: 500_000, reason: 8, count: 300, id: 0x1234_5678_9abc_def0, host };
        for format in [RecordFormat::V3, RecordFormat::V4] {
            agree(&schemas::record::encode_rejections(tally.clone(), format).unwrap());
        }
        let (project, hour, id) = ("docs".to_owned(), 500_000, 0x1234_5678_9abc_def0);
        let dropped = DroppedFacts { project: project.clone(), hour, fact: 1, cause: 2, count: 300, id };
        agree(&schemas::record::encode_dropped_facts(dropped, RecordFormat::V4).unwrap());
        let missing = ReportedMissing { project, hour, path: "/gone".to_owned(), count: 300, id };
        agree(&schemas::record::encode_reported_missing(missing, RecordFormat::V4).unwrap());
    }

    fn agree(bytes: &[u8]) {
        assert!(read(bytes).is_some());
        let mut random = SplitMix64::new(7);
        let (mut refused, mut taken) = (0, 0);
        for _ in 0..20_000 {
            let mut changed = bytes.to_vec();
            for _ in 0..=random.next_u64() % 2 {
                let at = random.next_u64() as usize % changed.len();
                changed[at] ^= 1 << (random.next_u64() % 8);
            }
            let ours = read(&changed).is_some();
            let theirs = schemas::record::decode(&changed).is_ok();
            // The one permitted difference: the aggregator accepts other encodings of the same values (an order of fields, a longer number), which no
            // encoder writes.
            let canonical = LogRecord::decode(changed.as_slice()).is_ok_and(|record| record.encode_to_vec() == changed);
            if ours || (theirs && canonical) {
                assert_eq!(ours, theirs, "{changed:02x?}");
            }
            refused += u32::from(!ours);
            taken += u32::from(ours);
        }
        assert!(refused > 1_000 && taken > 1_000, "{refused} refused, {taken} taken");
    }
}
