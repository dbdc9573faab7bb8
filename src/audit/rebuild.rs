//! Computes from records which rows their windows must have. Ordered maps, one record after another.

use super::log::LogEntry;
use super::record::{
    self, BOT_CLASSES, BOT_CLASSES_BEFORE_5, BOT_GROUPS, BROWSERS, CAUSES, DEVICES, FACTS, REASONS, Record, SYSTEMS,
};
use schemas::proto::PageView;
use schemas::{Coordinate, Hour, Month, VisitorSketch};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The policy that splits the log into windows.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// A record starts a new window if its append time falls into another span of this many hours, counted from the epoch.
    pub window_hours: u32,
    /// A record this many offsets after the window's first one starts a new window.
    pub max_records: u64,
    /// The first record after this many bytes of records starts a new window.
    pub max_bytes: u64,
}

/// Which row, within a window. A source is its number in the record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `site_hourly`: project, hour since the epoch, source.
    Site(String, u32, i32),
    /// `page_daily`: project, day since the epoch, path, status, source.
    Page(String, u16, String, u16, i32),
    /// `breakdown_window`: project, day, dimension, value, source.
    Breakdown(String, u16, String, String, i32),
    /// `not_found_daily`: project, day, path, referrer, source.
    NotFound(String, u16, String, String, i32),
    /// `rejection_daily`: project, day, reason, host.
    Rejection(String, u16, String, String),
    /// `robot_daily`: project, day, kind, name, source.
    Robot(String, u16, String, String, i32),
    /// `robot_page_daily`: project, day, path, group of robots, source.
    RobotPage(String, u16, String, String, i32),
    /// `rules_daily`: project, day, version of the rules for robots.
    Rules(String, u16, u32),
    /// `reported_missing_daily`: project, day, path.
    Reported(String, u16, String),
}

impl Key {
    /// The table.
    pub fn table(&self) -> &'static str {
        match self {
            Key::Site(..) => "site_hourly",
            Key::Page(..) => "page_daily",
            Key::Breakdown(..) => "breakdown_window",
            Key::NotFound(..) => "not_found_daily",
            Key::Rejection(..) => "rejection_daily",
            Key::Robot(..) => "robot_daily",
            Key::RobotPage(..) => "robot_page_daily",
            Key::Rules(..) => "rules_daily",
            Key::Reported(..) => "reported_missing_daily",
        }
    }

    /// The first rules of the fold (`fold_version` in the ledger) that wrote such rows.
    pub fn since(&self) -> u32 {
        match self {
            Key::NotFound(..) => 3,
            Key::Rules(..) | Key::Reported(..) => 6,
            _ => 1,
        }
    }

    /// The row of the same page, or of the same reason, for another referrer or host.
    fn for_name(&self, (name, source): (&str, i32)) -> Key {
        let mut key = self.clone();
        match &mut key {
            Key::NotFound(.., last, of) => {
                name.clone_into(last);
                *of = source;
            }
            Key::Rejection(.., last) => name.clone_into(last),
            _ => {}
        }
        key
    }

    /// The row's project.
    pub fn project(&self) -> &str {
        let (Key::Site(project, ..)
        | Key::Page(project, ..)
        | Key::Breakdown(project, ..)
        | Key::NotFound(project, ..)
        | Key::Rejection(project, ..)
        | Key::Robot(project, ..)
        | Key::RobotPage(project, ..)
        | Key::Rules(project, ..)
        | Key::Reported(project, ..)) = self;
        project
    }

    /// The row's month.
    pub fn month(&self) -> Month {
        match self {
            Key::Site(_, hour, _) => Hour(*hour).month(),
            Key::Page(_, day, ..)
            | Key::Breakdown(_, day, ..)
            | Key::NotFound(_, day, ..)
            | Key::Rejection(_, day, ..)
            | Key::Robot(_, day, ..)
            | Key::RobotPage(_, day, ..)
            | Key::Rules(_, day, ..)
            | Key::Reported(_, day, ..) => Hour(u32::from(*day) * 24).month(),
        }
    }
}

/// The content of a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Its counters, in the order of the table's columns.
    pub counts: Vec<u64>,
    /// Visitors: register → rank.
    pub registers: BTreeMap<u16, u8>,
}

impl Cell {
    /// The sketch's canonical bytes.
    pub fn sketch(&self) -> anyhow::Result<Vec<u8>> {
        let mut sketch = VisitorSketch::new();
        for (&register, &rank) in &self.registers {
            sketch.insert(Coordinate::new(register, rank)?);
        }
        Ok(sketch.encode())
    }
}

/// A referrer, host or value, and its source.
type Name = (String, i32);

/// Values by project and day since the epoch.
type OfDay<T> = BTreeMap<(String, u16), BTreeSet<T>>;

/// A window, up to the last record read.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Offset of its first record.
    pub start: u64,
    /// Hour in which its first record was appended.
    pub appended: u32,
    /// Offset after the last record read.
    pub end: u64,
    /// Bytes of its records.
    pub bytes: u64,
    /// Page views counted.
    pub accepted: u64,
    /// Repeats.
    pub duplicate: u64,
    /// Tallies.
    pub tallies: u64,
    /// Refused beacons in them.
    pub rejected_beacons: u64,
    /// Records that do not decode.
    pub undecodable: u64,
    /// Offsets whose records are lost.
    pub lost: u64,
    /// Rows.
    pub cells: BTreeMap<Key, Cell>,
    /// The rules (`fold_version` in the ledger) by which its records are counted.
    rules: u32,
    /// Names of a missing page's referrers, or of hosts of refused beacons, each with its source and a counter, in the order in which they
    /// were taken in. The keys have an empty name and source 0.
    names: BTreeMap<Key, Vec<(Name, u64)>>,
    /// Pages of a project and day: path, status and source.
    pages: OfDay<(String, u16, i32)>,
    /// Pages of a project and day that robots opened: path, group and source.
    robot_pages: OfDay<(String, &'static str, i32)>,
    /// Pages of a project and day that were reported as missing.
    reported: OfDay<String>,
    /// Robots of a project and day: kind, name and source.
    robots: OfDay<(&'static str, String, i32)>,
    /// Values of a project and day with their sources, by dimension.
    values: BTreeMap<(String, u16, &'static str), BTreeSet<Name>>,
    ids: BTreeSet<(String, u64)>,
    tally_ids: BTreeSet<(String, u64)>,
}

impl Window {
    /// The window without its rows.
    pub fn summary(&self) -> Value {
        json!({
            "start": self.start,
            "end": self.end,
            "records": self.end - self.start - self.lost,
            "lost": self.lost,
            "accepted": self.accepted,
            "duplicate": self.duplicate,
            "tallies": self.tallies,
            "rejected_beacons": self.rejected_beacons,
            "undecodable": self.undecodable,
            "rows": self.cells.len(),
        })
    }

    fn cell(&mut self, key: Key, counters: usize) -> &mut Cell {
        self.cells.entry(key).or_insert_with(|| Cell { counts: vec![0; counters], registers: BTreeMap::new() })
    }

    fn count(&mut self, bytes: &[u8]) {
        match record::read(bytes) {
            None => self.undecodable += 1,
            Some(Record::Tally(tally)) => {
                if !self.is_new_tally(&tally.project, tally.id) {
                    return;
                }
                self.rejected_beacons += tally.count;
                let reason = REASONS[tally.reason as usize].to_owned();
                let day = (tally.hour / 24) as u16;
                let group = Key::Rejection(tally.project, day, reason, String::new());
                self.count_name(&group, (&tally.host, 0), tally.count, "");
            }
            Some(Record::Dropped(tally)) => {
                if self.is_new_tally(&tally.project, tally.id) {
                    let reason = format!("{}{}", CAUSES[tally.cause as usize], FACTS[tally.fact as usize]);
                    let day = (tally.hour / 24) as u16;
                    let key = Key::Rejection(tally.project, day, reason, String::new());
                    self.cell(key, 1).counts[0] += tally.count;
                }
            }
            Some(Record::Missing(tally)) => {
                if self.is_new_tally(&tally.project, tally.id) {
                    let day = (tally.hour / 24) as u16;
                    let path = self.reported_path(&tally.project, day, tally.path);
                    let reports = &mut self.cell(Key::Reported(tally.project, day, path), 1).counts[0];
                    *reports = reports.saturating_add(tally.count);
                }
            }
            Some(Record::View(view)) => {
                if view.event_id != 0 && !self.ids.insert((view.project.clone(), view.event_id)) {
                    self.duplicate += 1;
                    return;
                }
                self.accepted += 1;
                self.view(view);
            }
        }
    }

    /// The path in the row of a reported page.
    fn reported_path(&mut self, project: &str, day: u16, path: String) -> String {
        let reported = self.reported.entry((project.to_owned(), day)).or_default();
        if path != "/:more" && !reported.contains(&path) {
            if reported.len() == PAGES {
                return "/:more".to_owned();
            }
            reported.insert(path.clone());
        }
        path
    }

    /// Counts a tally or a repeat.
    fn is_new_tally(&mut self, project: &str, id: u64) -> bool {
        let new = id == 0 || self.tally_ids.insert((project.to_owned(), id));
        *(if new { &mut self.tallies } else { &mut self.duplicate }) += 1;
        new
    }

    /// Counts arrivals in the row of their referrer or host, or in the overflow's.
    ///
    /// Rules before 4 give rows to the names that came first. Since rules 4 a new name takes over the smallest counter; among several, the one that
    /// was taken over first. The row of the name that had the counter moves to the overflow.
    fn count_name(&mut self, group: &Key, name: (&str, i32), by: u64, overflow: &str) {
        if name.0.is_empty() || name.0.starts_with(':') {
            self.cell(group.for_name(name), 1).counts[0] += by;
            return;
        }
        let first_come = self.rules < 4;
        let counters = self.names.entry(group.clone()).or_default();
        if let Some((_, counter)) = counters.iter_mut().find(|((held, of), _)| (held.as_str(), *of) == name) {
            *counter = counter.saturating_add(by);
        } else if counters.len() < NAMES {
            counters.push(((name.0.to_owned(), name.1), by));
        } else if first_come {
            self.cell(group.for_name((overflow, name.1)), 1).counts[0] += by;
            return;
        } else {
            let smaller = |best: usize, place: usize| if counters[place].1 < counters[best].1 { place } else { best };
            let smallest = (1..counters.len()).fold(0, smaller);
            let ((left, of), counter) = counters.remove(smallest);
            counters.push(((name.0.to_owned(), name.1), counter.saturating_add(by)));
            let had = std::mem::take(&mut self.cell(group.for_name((&left, of)), 1).counts[0]);
            self.cell(group.for_name((overflow, of)), 1).counts[0] += had;
        }
        self.cell(group.for_name(name), 1).counts[0] += by;
    }

    /// Whether a value gets a row: it has one already, or its dimension is below the cap for that day.
    fn value_is_named(
        &mut self,
        (project, day): (&str, u16),
        dimension: &'static str,
        (value, source): (&str, i32),
    ) -> bool {
        let values = self.values.entry((project.to_owned(), day, dimension)).or_default();
        let of_source = (value.to_owned(), source);
        let named = value.is_empty() || self.rules < 4 || values.contains(&of_source) || values.len() < VALUES;
        if named && !value.is_empty() {
            values.insert(of_source);
        }
        named
    }

    /// The source in the view's rows: rules before 5 do not separate sources.
    fn source_of(&self, view: &PageView) -> i32 {
        if self.rules < 5 { 0 } else { view.source }
    }

    /// Path and status of the page's row.
    fn page_of(&mut self, view: &PageView, day: u16) -> (String, u16) {
        let (path, status) = (view.path.clone(), view.status as u16);
        let of_source = (path.clone(), status, self.source_of(view));
        let pages = self.pages.entry((view.project.clone(), day)).or_default();
        if self.rules < 4 || path == "/:more" || pages.contains(&of_source) {
            return (path, status);
        }
        if pages.len() == PAGES {
            return ("/:more".to_owned(), if status == 404 { 404 } else { 200 });
        }
        pages.insert(of_source);
        (path, status)
    }

    /// Counts the referrer of a view of a missing page.
    fn missing_page(&mut self, view: &PageView, day: u16, path: String) {
        let mut referrer = if view.arrival { view.referrer_host.as_str() } else { ":internal" };
        let source = self.source_of(view);
        let of_project = (view.project.as_str(), day);
        if view.arrival && self.rules >= 4 && !self.value_is_named(of_project, "referrer", (referrer, source)) {
            referrer = ":more";
        }
        let group = Key::NotFound(view.project.clone(), day, path, String::new(), 0);
        self.count_name(&group, (referrer, source), 1, ":more");
    }

    /// Counts a view by a robot, and its page.
    fn robot(&mut self, view: &PageView, day: u16) {
        let (kind, group) = (BOT_CLASSES[view.bot_class as usize], BOT_GROUPS[view.bot_class as usize]);
        let (mut name, mut path) = (view.bot.clone(), view.path.clone());
        let (of_day, source) = ((view.project.clone(), day), self.source_of(view));
        let robots = self.robots.entry(of_day.clone()).or_default();
        if robots.contains(&(kind, name.clone(), source)) || robots.len() < VALUES {
            robots.insert((kind, name.clone(), source));
        } else {
            name.clear();
        }
        self.cell(Key::Robot(of_day.0.clone(), day, kind.to_owned(), name, source), 1).counts[0] += 1;
        let pages = self.robot_pages.entry(of_day.clone()).or_default();
        if path != "/:more" && !pages.contains(&(path.clone(), group, source)) {
            if pages.len() < PAGES {
                pages.insert((path.clone(), group, source));
            } else {
                "/:more".clone_into(&mut path);
            }
        }
        self.cell(Key::RobotPage(of_day.0, day, path, group.to_owned(), source), 1).counts[0] += 1;
    }

    fn view(&mut self, view: PageView) {
        let (day, source) = ((view.hour / 24) as u16, self.source_of(&view));
        self.cell(Key::Rules(view.project.clone(), day, view.rules), 1).counts[0] += 1;
        let site = self.cell(Key::Site(view.project.clone(), view.hour, source), 2);
        let mut values = Vec::new();
        if view.bot_class == 0 {
            site.counts[0] += 1;
            site.counts[1] += u64::from(view.arrival);
            unite(site, view.site_coordinate);
            let (path, status) = self.page_of(&view, day);
            let page = self.cell(Key::Page(view.project.clone(), day, path.clone(), status, source), 1);
            page.counts[0] += 1;
            unite(page, view.page_coordinate);
            if status == 404 {
                self.missing_page(&view, day, path);
            }
            if view.arrival && (status != 404 || self.rules < 4) {
                values.push(("referrer", view.referrer_host));
            }
            values.extend([
                ("country", view.country),
                ("device", DEVICES[view.device as usize].to_owned()),
                ("browser", BROWSERS[view.browser as usize].to_owned()),
                ("os", SYSTEMS[view.system as usize].to_owned()),
                ("version", view.version),
                ("language", view.language),
            ]);
        } else if self.rules < 5 {
            // Kinds and names were counted separately.
            let kind = BOT_CLASSES_BEFORE_5[view.bot_class as usize].to_owned();
            self.cell(Key::Robot(view.project.clone(), day, kind, String::new(), 0), 1).counts[0] += 1;
            values.push(("bot", view.bot));
        } else {
            self.robot(&view, day);
        }
        for (dimension, value) in values {
            let named = self.value_is_named((&view.project, day), dimension, (&value, source));
            let value = if named { value } else { String::new() };
            let key = Key::Breakdown(view.project.clone(), day, dimension.to_owned(), value, source);
            self.cell(key, 1).counts[0] += 1;
        }
    }
}

// The fold's caps, over all sources together; repeated here so that the audit shares no code with the fold.
/// Referrers of a missing page, and hosts of refused beacons for one reason, that have a row each.
const NAMES: usize = 32;
/// Pages of a project and day; as many of robots.
const PAGES: usize = 200_000;
/// Values of one dimension of a project and day; also robots.
const VALUES: usize = 10_000;

/// The newest rules.
pub const RULES: u32 = 6;

fn unite(cell: &mut Cell, packed: u32) {
    // Records with another coordinate do not decode.
    if let Ok(coordinate) = Coordinate::from_packed(packed) {
        let rank = cell.registers.entry(coordinate.register()).or_default();
        *rank = (*rank).max(coordinate.rank());
    }
}

/// Adds up records in the order of the log.
pub struct Rebuild {
    cut: Cut,
    rules: u32,
    open: Option<Window>,
    /// Whether the first record is known to start a window; otherwise only a change of the span is certain to.
    sure: bool,
    last_span: Option<u32>,
    skipped: u64,
}

impl Rebuild {
    /// `at_start`: the first record starts a window. `rules`: those of the windows, [`RULES`] or earlier ones.
    pub fn new(cut: Cut, at_start: bool, rules: u32) -> Self {
        Rebuild { cut, rules, open: None, sure: at_start, last_span: None, skipped: 0 }
    }

    /// Takes the log's next entry; returns the window that it closes.
    pub fn take(&mut self, entry: &LogEntry<'_>) -> Option<Window> {
        match entry.record {
            Some(record) => self.push(entry.offset, entry.appended, record),
            None => self.pass_hole(entry),
        }
    }

    /// All offsets of a hole are lost in the window that its first offset belongs to.
    fn pass_hole(&mut self, hole: &LogEntry<'_>) -> Option<Window> {
        let lost = hole.next - hole.offset;
        if !self.sure {
            self.skipped += lost;
            return None;
        }
        let ended = self.open_at(hole.offset, hole.appended);
        if let Some(open) = &mut self.open {
            open.lost += lost;
            open.end = hole.next;
        }
        ended
    }

    /// Takes the next record; returns the window that it closes.
    fn push(&mut self, offset: u64, hour: u32, bytes: &[u8]) -> Option<Window> {
        let span = hour / self.cut.window_hours.max(1);
        if !self.sure {
            let changed = self.last_span.is_some_and(|last| last != span);
            self.last_span = Some(span);
            if !changed {
                self.skipped += 1;
                return None;
            }
            self.sure = true;
        }
        let ended = self.open_at(offset, hour);
        if let Some(open) = &mut self.open {
            open.bytes += bytes.len() as u64;
            open.end = offset + 1;
            open.count(bytes);
        }
        ended
    }

    /// Opens the window that an offset belongs to; returns the window that this closes.
    fn open_at(&mut self, offset: u64, hour: u32) -> Option<Window> {
        let span = hour / self.cut.window_hours.max(1);
        let ends = self.open.as_ref().is_some_and(|open| {
            open.appended / self.cut.window_hours.max(1) != span
                || offset - open.start >= self.cut.max_records
                || open.bytes >= self.cut.max_bytes
        });
        let ended = if ends { self.open.take() } else { None };
        let rules = self.rules;
        let new = || Window { start: offset, appended: hour, rules, ..Window::default() };
        self.open.get_or_insert_with(new);
        ended
    }

    /// Skipped records before the first window with a certain start.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The window that is open at the end.
    pub fn finish(self) -> Option<Window> {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aggregate::fold::WindowState;
    use aggregate::window::WindowStart;
    use schemas::StreamId;
    use schemas::proto::{self, RejectionTally};
    use schemas::record::{RecordFormat, encode_page_view, encode_rejections, encode_reported_missing};
    use schemas::tables::{BreakdownWindowRow, NotFoundDailyRow};

    /// More names and values than have a row each: arrivals at two missing pages and at another one, and refused beacons.
    fn record(index: u64) -> Vec<u8> {
        let chance = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let host = match chance % 4 {
            0 => format!("{}.frequent.example", chance / 4 % 9),
            1 => format!("{}.example", chance / 4 % 60),
            _ => format!("{}.forged.example", chance / 4 % 20_000),
        };
        if index % 5 == 4 {
            let project = "docs".to_owned();
            let tally =
                RejectionTally { project, hour: 490_000, reason: 8, count: 1 + chance % 3, id: index + 1, host };
            return encode_rejections(tally, RecordFormat::V4).expect("a reason of format 1");
        }
        if index % 50 == 7 {
            let (project, path) = ("docs".to_owned(), format!("/{}", chance % 9));
            let tally = proto::ReportedMissing { project, hour: 490_000, path, count: 1 + chance % 3, id: index + 1 };
            return encode_reported_missing(tally, RecordFormat::V4).expect("format 4 has it");
        }
        let coordinate = Coordinate::new(1, 1).expect("a register and a rank").packed();
        let view = proto::PageView {
            project: "docs".to_owned(),
            hour: 490_000,
            path: format!("/{}", index % 3),
            status: if index.is_multiple_of(3) { 200 } else { 404 },
            version: format!("{}", chance % 12_000),
            referrer_host: host,
            source: (chance / 8 % 3 % 2) as i32,
            arrival: true,
            site_coordinate: coordinate,
            page_coordinate: coordinate,
            event_id: index + 1,
            rules: (chance / 16 % 2) as u32,
            ..proto::PageView::default()
        };
        encode_page_view(view, RecordFormat::V4)
    }

    fn not_found(row: NotFoundDailyRow) -> (Key, u64) {
        (Key::NotFound(row.project, row.day, row.path, row.referrer, row.source as i32), row.views)
    }

    fn breakdown(row: &BreakdownWindowRow) -> impl Iterator<Item = (Key, u64)> {
        row.counts().map(|(dimension, value, views)| {
            let (dimension, value) = (dimension.name().to_owned(), value.to_owned());
            (Key::Breakdown(row.project.clone(), row.day, dimension, value, row.source as i32), views)
        })
    }

    /// The fold and this rebuild, implemented separately, agree on which names have rows and on the rows' content.
    #[test]
    fn names_and_values_are_capped_as_the_fold_does() {
        let cut = Cut { window_hours: 12, max_records: u64::MAX, max_bytes: u64::MAX };
        let mut rebuild = Rebuild::new(cut, true, RULES);
        let mut state = WindowState::new(StreamId(1), WindowStart { offset: 0, appended_hour: 490_000 });
        let mut found = BTreeMap::new();
        for index in 0..60_000 {
            let record = record(index);
            assert!(rebuild.push(index, 490_000, &record).is_none());
            state.apply(index, &record).expect("a record");
            if index % 7_000 == 0 || index == 59_999 {
                let rows = state.freeze();
                let names = rows.not_found.into_iter();
                found.extend(names.map(not_found));
                let hosts = rows.rejection.into_iter();
                found
                    .extend(hosts.map(|row| (Key::Rejection(row.project, row.day, row.reason, row.host), row.beacons)));
                found.extend(rows.breakdown.iter().flat_map(breakdown));
                let rules = rows.rules.into_iter();
                found.extend(rules.map(|row| (Key::Rules(row.project, row.day, row.rules), row.views)));
                let reported = rows.reported_missing.into_iter();
                found.extend(reported.map(|row| (Key::Reported(row.project, row.day, row.path), row.reports)));
            }
        }
        let window = rebuild.finish().expect("a window");
        let counted = |key: &Key| !matches!(key, Key::Site(..) | Key::Page(..));
        let cells =
            window.cells.iter().filter(|(key, _)| counted(key)).map(|(key, cell)| (key.clone(), cell.counts[0]));
        assert_eq!(found, cells.collect::<BTreeMap<_, _>>());
        let versions =
            found.keys().filter(|key| matches!(key, Key::Breakdown(_, _, dimension, _, _) if dimension == "version"));
        assert_eq!(versions.count(), VALUES + 2, "and the overflow of both sources");
        let named = found
            .iter()
            .filter(|(key, views)| matches!(key, Key::NotFound(_, _, path, _, _) if path == "/1") && **views > 0);
        assert_eq!(named.count(), NAMES + 2, "and the overflow of both sources");
    }

    /// A hole is inside the window that its first offset belongs to, and may make it longer than the window policy allows.
    #[test]
    fn a_hole_is_lost_whole_in_its_window() {
        let cut = Cut { window_hours: 12, max_records: 10, max_bytes: u64::MAX };
        let mut rebuild = Rebuild::new(cut, true, RULES);
        let mut windows = Vec::new();
        let mut take = |offset, next, record: Option<&[u8]>| {
            windows.extend(rebuild.take(&LogEntry { offset, next, appended: 490_000, record }));
        };
        for offset in 0..8 {
            take(offset, offset + 1, Some(&record(offset)));
        }
        take(8, 30, None);
        take(30, 31, Some(&record(30)));
        take(31, 50, None);
        windows.extend(rebuild.finish());
        let found: Vec<_> = windows.iter().map(|window| (window.start, window.end, window.lost)).collect();
        assert_eq!(found, [(0, 30, 22), (30, 50, 19)]);
        let mut state = WindowState::new(StreamId(1), WindowStart { offset: 30, appended_hour: 490_000 });
        state.apply(30, &record(30)).expect("a record");
        state.pass_hole(50);
        let row = state.freeze().ledger.expect("a row");
        assert_eq!((row.next_offset, row.seen, row.lost), (50, 1, 19));
    }
}
