//! What the rows must be, by the book: decoded one by one, counted in maps.

use headcount_aggregate::fold::Limits;
use schemas::record::{self, Record, RecordFormat};
use schemas::{Coordinate, Hour, VisitorSketch, proto};
use std::collections::{BTreeMap, BTreeSet};

/// Counters and sketch of one row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub counts: Vec<u64>,
    pub sketch: Option<Vec<u8>>,
}

/// (table and dimensions, window) → row.
pub type RowMap = BTreeMap<(String, u64), Figures>;

/// A record and the hour of its append.
#[derive(Clone)]
pub struct Logged {
    pub bytes: Vec<u8>,
    pub appended: Hour,
}

/// A small deterministic generator (splitmix64, Steele et al. 2014).
#[derive(Clone)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// True in so many of a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A log: people and bots, repeated ids, tallies, rubbish, views that are late by hours; the append hour moves on now and
/// then, and once in a while back.
pub fn some_log(chance: &mut Chance) -> Vec<Logged> {
    let mut hour = 500_000 + chance.below(24) as u32;
    let length = 20 + chance.below(100);
    (0..length)
        .map(|_| {
            match chance.below(40) {
                0..=2 => hour += 1 + chance.below(7) as u32,
                3 => hour -= 1,
                _ => {}
            }
            Logged { bytes: some_record(chance, hour), appended: Hour(hour) }
        })
        .collect()
}

/// Of referrers and of refused beacons.
const HOSTS: [&str; 4] = ["", "search.example", "forum.example", "blog.example"];

/// All values of views by people, with their dimensions: the counters of a row of breakdowns.
pub const VALUES: [(&str, &str); 11] = [
    ("referrer", HOSTS[0]),
    ("referrer", HOSTS[1]),
    ("referrer", HOSTS[2]),
    ("referrer", HOSTS[3]),
    ("country", ""),
    ("device", "Desktop"),
    ("browser", "Chrome"),
    ("browser", "Firefox"),
    ("os", "Windows"),
    ("version", ""),
    ("language", "en"),
];

/// The counter of a value.
pub fn slot_of(dimension: &str, value: &str) -> usize {
    VALUES.iter().position(|known| *known == (dimension, value)).expect("no view has another value")
}

/// So small that a few records reach them. With one name, its counter has every arrival that was not taken for unknown.
pub const LIMITS: Limits = Limits { names: 1, pages: 4, values: 2 };

fn some_record(chance: &mut Chance, hour: u32) -> Vec<u8> {
    let project = ["a", "b"][chance.below(2) as usize].to_owned();
    let hour = hour - if chance.percent(20) { chance.below(30) as u32 } else { 0 };
    match chance.below(20) {
        0 => return b"rubbish".to_vec(),
        1..=3 => {
            let host = HOSTS[chance.below(4) as usize].to_owned();
            let (count, id) = (1 + chance.below(5), 1 + chance.below(30));
            let tally = proto::RejectionTally { project, hour, reason: 8, count, id, host };
            return record::encode_rejections(tally, RecordFormat::V4).expect("a reason of format 1");
        }
        _ => {}
    }
    let bot = chance.percent(10);
    let mut coordinate = || if bot { 0 } else { Coordinate::from_hash(chance.below(40) << 50 | 1 << 20).packed() };
    let (site_coordinate, page_coordinate) = (coordinate(), coordinate());
    let (path, arrival) = (chance.below(6).min(4), chance.percent(50));
    let view = proto::PageView {
        project,
        hour,
        path: format!("/{path}"),
        status: if path >= 3 { 404 } else { 200 },
        version: String::new(),
        language: "en".to_owned(),
        referrer_host: if arrival { HOSTS[chance.below(4) as usize].to_owned() } else { String::new() },
        country: String::new(),
        device: 1,
        browser: 1 + chance.below(2) as i32,
        system: 1,
        bot_class: i32::from(bot),
        arrival,
        site_coordinate,
        page_coordinate,
        // Few enough that some repeat within a window.
        event_id: if chance.percent(30) { 1 + chance.below(12) } else { chance.next() | 1 << 40 },
        bot: if bot { "Bot".to_owned() } else { String::new() },
        ..proto::PageView::default()
    };
    record::encode_page_view(view, RecordFormat::V4)
}

/// RowMap under construction.
type Building = BTreeMap<(String, u64), (Vec<u64>, Option<VisitorSketch>)>;

/// What a name had goes to the overflow.
fn forget(rows: &mut Building, start: u64, group: &str, left: &str, overflow: &str) {
    let had = rows.insert((format!("{group} {left}"), start), (vec![0], None)).map_or(0, |row| row.0[0]);
    rows.entry((format!("{group} {overflow}"), start)).or_insert_with(|| (vec![0], None)).0[0] += had;
}

/// Every row of the log, with windows of these lengths.
#[expect(clippy::too_many_lines, reason = "one pass over the log, in the order of the rules")]
pub fn rebuild(log: &[Logged], window_hours: u32, max_records: u64) -> RowMap {
    let mut rows = Building::new();
    let (mut ids, mut tally_ids) = (BTreeSet::new(), BTreeSet::new());
    let mut names: BTreeMap<String, &str> = BTreeMap::new();
    let mut distinct: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut window: Option<(u64, u32)> = None;
    for (offset, Logged { bytes, appended }) in log.iter().enumerate() {
        let offset = offset as u64;
        let goes_on = |(start, hour): (u64, u32)| {
            hour / window_hours == appended.0 / window_hours && offset - start < max_records
        };
        if !window.is_some_and(goes_on) {
            window = Some((offset, appended.0));
            ids.clear();
            tally_ids.clear();
            names.clear();
            distinct.clear();
        }
        let start = window.map_or(0, |(start, _)| start);
        // next_offset, seen, accepted, duplicate, tallies, rejected, undecodable
        let ledger = &mut rows.entry(("ledger".to_owned(), start)).or_insert_with(|| (vec![0; 7], None)).0;
        ledger[0] = offset + 1;
        ledger[1] += 1;
        let record = record::decode(bytes);
        let slot = match &record {
            Err(_) => 6,
            Ok(Record::Rejections(tally)) if !tally_ids.insert((tally.project, tally.id)) => 3,
            Ok(Record::PageView(view)) if !ids.insert((view.project, view.event_id)) => 3,
            Ok(Record::Rejections(tally)) => {
                ledger[5] += tally.count;
                4
            }
            Ok(Record::PageView(_)) => 2,
            Ok(_) => unreachable!("no such records in this log"),
        };
        ledger[slot] += 1;
        let mut add = |key: String, slot: usize, slots: usize, by: u64, coordinate: Option<Option<Coordinate>>| {
            let row =
                rows.entry((key, start)).or_insert_with(|| (vec![0; slots], coordinate.map(|_| VisitorSketch::new())));
            row.0[slot] += by;
            if let (Some(sketch), Some(Some(coordinate))) = (&mut row.1, coordinate) {
                sketch.insert(coordinate);
            }
        };
        match record {
            Ok(Record::Rejections(tally)) if slot == 4 => {
                let (project, day, reason, host) = (tally.project, tally.hour.day().0, tally.reason.name(), tally.host);
                let group = format!("rejection {project} {day} {reason}");
                let left =
                    if host.is_empty() { None } else { names.insert(group.clone(), host).filter(|left| *left != host) };
                add(format!("{group} {host}"), 0, 1, tally.count, None);
                if let Some(left) = left {
                    forget(&mut rows, start, &group, left, "");
                }
            }
            Ok(Record::PageView(view)) if slot == 2 => {
                let (project, day) = (view.project, view.hour.day().0);
                let site = format!("site {project} {}", view.hour.0);
                let mut values = vec![];
                let mut leaves = None;
                // The value, or the overflow if there are so many already.
                let mut capped = |group: String, value: String, most: u32, overflow: &str| {
                    let known = distinct.entry(group).or_default();
                    if value.is_empty() || known.contains(&value) {
                        return value;
                    }
                    if known.len() as u32 == most {
                        return overflow.to_owned();
                    }
                    known.insert(value.clone());
                    value
                };
                if view.bot_class as i32 == 0 {
                    add(site.clone(), 0, 2, 1, Some(view.site_coordinate));
                    add(site, 1, 2, u64::from(view.arrival), Some(None));
                    let more = if view.status == 404 { "/:more 404" } else { "/:more 200" };
                    let page = format!("{} {}", view.path, view.status);
                    let page = capped(format!("pages {project} {day}"), page, LIMITS.pages, more);
                    add(format!("page {project} {day} {page}"), 0, 1, 1, Some(view.page_coordinate));
                    if view.arrival && view.status != 404 {
                        values.push(("referrer", view.referrer_host));
                    }
                    if view.status == 404 {
                        let group = format!("not found {project} {day} {}", page.trim_end_matches(" 404"));
                        let host = view.referrer_host;
                        let referrers = format!("referrer {project} {day}");
                        match (view.arrival, capped(referrers, host.to_owned(), LIMITS.values, ":more").as_str()) {
                            (false, _) => add(format!("{group} :internal"), 0, 1, 1, None),
                            (true, unnamed @ ("" | ":more")) => add(format!("{group} {unnamed}"), 0, 1, 1, None),
                            (true, _) => {
                                add(format!("{group} {host}"), 0, 1, 1, None);
                                let left = names.insert(group.clone(), host).filter(|left| *left != host);
                                leaves = left.map(|left| (group, left));
                            }
                        }
                    }
                    let browser = if view.browser as i32 == 1 { "Chrome" } else { "Firefox" };
                    values.extend([("country", ""), ("device", "Desktop"), ("browser", browser)]);
                    values.extend([("os", "Windows"), ("version", ""), ("language", "en")]);
                } else {
                    add(site, 0, 2, 0, Some(None));
                    let page =
                        capped(format!("robot pages {project} {day}"), view.path.to_owned(), LIMITS.pages, "/:more");
                    add(format!("robot page {project} {day} {page} search"), 0, 1, 1, None);
                    add(format!("robot {project} {day} search Bot"), 0, 1, 1, None);
                }
                for (dimension, value) in values {
                    let value = capped(format!("{dimension} {project} {day}"), value.to_owned(), LIMITS.values, "");
                    let slot = slot_of(dimension, &value);
                    add(format!("breakdown {project} {day}"), slot, VALUES.len(), 1, None);
                }
                if let Some((group, left)) = leaves {
                    forget(&mut rows, start, &group, left, ":more");
                }
            }
            _ => {}
        }
    }
    let done =
        |(counts, sketch): (Vec<u64>, Option<VisitorSketch>)| Figures { counts, sketch: sketch.map(|s| s.encode()) };
    rows.into_iter().map(|(key, row)| (key, done(row))).collect()
}
