//! Bytes → record, by prost and rules written once more: the aggregator's decoder has an error of its own, or this one has.

use prost::Message;
use schemas::proto::{LogRecord, PageView, RejectionTally, log_record::Body};
use schemas::{Coordinate, ProjectSlug};

/// A record that is to be counted.
pub enum Record {
    /// A page view.
    View(PageView),
    /// A tally of refused beacons.
    Tally(RejectionTally),
}

/// Names of the refusals by their number in the log; written here once more on purpose, as are the classes' below.
pub const REASONS: [&str; 16] = [
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
];
/// Device classes.
pub const DEVICES: [&str; 5] = ["", "Desktop", "Mobile", "Tablet", "Other"];
/// Browser families.
pub const BROWSERS: [&str; 8] = ["", "Chrome", "Firefox", "Safari", "Edge", "Opera", "Samsung Internet", "Other"];
/// System families.
pub const SYSTEMS: [&str; 8] = ["", "Windows", "macOS", "Linux", "Android", "iOS", "ChromeOS", "Other"];
/// Classes of bots, people first.
const BOT_CLASSES: usize = 7;

/// The last hour of ClickHouse's `DateTime`.
const LAST_HOUR: u32 = u32::MAX / 3600;

/// Reads a record; none where it does not decode, has fields that the schema does not name, or values out of their range.
pub fn read(bytes: &[u8]) -> Option<Record> {
    let record = LogRecord::decode(bytes).ok()?;
    // prost skips unknown fields; written again, such a record comes out shorter.
    if record.encode_to_vec() != bytes {
        return None;
    }
    let format = record.format;
    match record.body? {
        Body::PageView(view) if (1..=3).contains(&format) && view_is_valid(&view) => Some(Record::View(view)),
        Body::Rejections(tally) if tally_is_valid(&tally, format) => Some(Record::Tally(tally)),
        _ => None,
    }
}

fn hour_is_valid(hour: u32) -> bool {
    (1..=LAST_HOUR).contains(&hour)
}

fn view_is_valid(view: &PageView) -> bool {
    let label = |text: &str| text.len() <= 255;
    let class = |number: i32, names: usize| usize::try_from(number).is_ok_and(|number| number < names);
    let person = view.bot_class == 0;
    let coordinate =
        |packed: u32| if person { Coordinate::from_packed(packed).is_ok() && packed > 0 } else { packed == 0 };
    ProjectSlug::is_valid(&view.project)
        && view.project.len() <= 255
        && hour_is_valid(view.hour)
        && view.path.starts_with('/')
        && view.path.len() <= 1024
        && (100..=599).contains(&view.status)
        && [&view.version, &view.language, &view.referrer_host, &view.bot].into_iter().all(|text| label(text))
        && (view.country.is_empty()
            || view.country.len() == 2 && view.country.bytes().all(|byte| byte.is_ascii_uppercase()))
        && class(view.device, DEVICES.len())
        && class(view.browser, BROWSERS.len())
        && class(view.system, SYSTEMS.len())
        && class(view.bot_class, BOT_CLASSES)
        && coordinate(view.site_coordinate)
        && coordinate(view.page_coordinate)
        && view.bot.is_empty() == person
}

fn tally_is_valid(tally: &RejectionTally, format: u32) -> bool {
    let id = match format {
        1 => tally.id == 0,
        2 | 3 => tally.id != 0,
        _ => false,
    };
    let host = tally.host.is_empty()
        || format == 3 && !tally.project.is_empty() && matches!(tally.reason, 8 | 15) && is_host_name(&tally.host);
    id && host
        && (tally.project.is_empty() || ProjectSlug::is_valid(&tally.project))
        && hour_is_valid(tally.hour)
        && tally.count > 0
        && tally.reason > 0
        && usize::try_from(tally.reason).is_ok_and(|reason| reason < REASONS.len())
}

/// A name with or without a port, and no address.
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

    fn splitmix(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Both decoders take the records that the endpoint writes, and both refuse what a few flipped bits make of them
    /// (where a flip gives another valid record, both take that).
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
            bot: String::new(),
        };
        agree(&schemas::record::encode_page_view(view));
        let (project, host) = ("docs".to_owned(), "10.0.0.example:8000".to_owned());
        let tally = RejectionTally { project, hour: 500_000, reason: 8, count: 300, id: 0x1234_5678_9abc_def0, host };
        agree(&schemas::record::encode_rejections(tally));
    }

    fn agree(bytes: &[u8]) {
        assert!(read(bytes).is_some());
        let mut state = 7;
        let (mut refused, mut taken) = (0, 0);
        for _ in 0..200_000 {
            let mut changed = bytes.to_vec();
            for _ in 0..=splitmix(&mut state) % 2 {
                let at = splitmix(&mut state) as usize % changed.len();
                changed[at] ^= 1 << (splitmix(&mut state) % 8);
            }
            let ours = read(&changed).is_some();
            let theirs = schemas::record::decode(&changed).is_ok();
            // The one licence: the aggregator reads other spellings of the same values (an order of fields, a longer
            // number), which no encoder writes.
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
