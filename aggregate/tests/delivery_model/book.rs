//! What the rows must be, by the book: decoded one by one, counted in maps.

use schemas::record::{self, Record, RecordFormat};
use schemas::{Coordinate, Hour, VisitorSketch, proto};
use std::collections::{BTreeMap, BTreeSet};

/// Counters and sketch of one row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    pub counts: Vec<u64>,
    pub sketch: Option<Vec<u8>>,
}

/// (table and dimensions, window) → row.
pub type Rows = BTreeMap<(String, u64), Cell>;

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

fn some_record(chance: &mut Chance, hour: u32) -> Vec<u8> {
    let project = ["a", "b"][chance.below(2) as usize].to_owned();
    let hour = hour - if chance.percent(20) { chance.below(30) as u32 } else { 0 };
    match chance.below(20) {
        0 => return b"rubbish".to_vec(),
        1 => {
            let host = if chance.percent(50) { "elsewhere.example".to_owned() } else { String::new() };
            let (count, id) = (1 + chance.below(5), 1 + chance.below(9));
            let tally = proto::RejectionTally { project, hour, reason: 8, count, id, host };
            return record::encode_rejections(tally, RecordFormat::V4).expect("a reason of format 1");
        }
        _ => {}
    }
    let bot = chance.percent(10);
    let mut coordinate = || if bot { 0 } else { Coordinate::from_hash(chance.below(40) << 50 | 1 << 20).packed() };
    let (site_coordinate, page_coordinate) = (coordinate(), coordinate());
    let (path, arrival) = (chance.below(4), chance.percent(30));
    let view = proto::PageView {
        project,
        hour,
        path: format!("/{path}"),
        status: if path == 3 { 404 } else { 200 },
        version: String::new(),
        language: "en".to_owned(),
        referrer_host: if arrival && chance.percent(50) { "search.example".to_owned() } else { String::new() },
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

/// Every row of the log, with windows cut at these lengths.
pub fn rebuild(log: &[Logged], window_hours: u32, max_records: u64) -> Rows {
    let mut rows: BTreeMap<(String, u64), (Vec<u64>, Option<VisitorSketch>)> = BTreeMap::new();
    let (mut ids, mut tally_ids) = (BTreeSet::new(), BTreeSet::new());
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
                let key = format!("rejection {project} {day} {reason} {host}");
                add(key, 0, 1, tally.count, None);
            }
            Ok(Record::PageView(view)) if slot == 2 => {
                let (project, day) = (view.project, view.hour.day().0);
                let site = format!("site {project} {}", view.hour.0);
                let mut values = vec![];
                if view.bot_class as i32 == 0 {
                    add(site.clone(), 0, 3, 1, Some(view.site_coordinate));
                    add(site, 1, 3, u64::from(view.arrival), Some(None));
                    add(
                        format!("page {project} {day} {} {}", view.path, view.status),
                        0,
                        1,
                        1,
                        Some(view.page_coordinate),
                    );
                    if view.arrival {
                        values.push(("referrer", view.referrer_host));
                    }
                    if view.status == 404 {
                        let led = if view.arrival { view.referrer_host } else { ":internal" };
                        add(format!("not found {project} {day} {} {led}", view.path), 0, 1, 1, None);
                    }
                    let browser = if view.browser as i32 == 1 { "Chrome" } else { "Firefox" };
                    values.extend([("country", ""), ("device", "Desktop"), ("browser", browser)]);
                    values.extend([("os", "Windows"), ("version", ""), ("language", "en")]);
                } else {
                    add(site, 2, 3, 1, Some(None));
                    values.push(("bot", "Bot"));
                }
                for (dimension, value) in values {
                    add(format!("breakdown {project} {day} {dimension} {value}"), 0, 1, 1, None);
                }
            }
            _ => {}
        }
    }
    let done =
        |(counts, sketch): (Vec<u64>, Option<VisitorSketch>)| Cell { counts, sketch: sketch.map(|s| s.encode()) };
    rows.into_iter().map(|(key, row)| (key, done(row))).collect()
}
