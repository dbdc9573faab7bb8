//! The fold: records of one window → accumulators → absolute rows. A function of the log; no clock, no I/O.
//!
//! Cells are found through hash tables from small keys of interned strings to indices; the cells lie in vectors. A
//! cell that changed since the last freeze is on its table's dirty list, once.

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
use schemas::classes::{BotClass, ClassName, Dimension};
use schemas::record::{self, PageViewRef, Record};
use schemas::tables::{BreakdownDailyRow, LedgerRow, PageDailyRow, RejectionDailyRow, SiteHourlyRow};
use schemas::{Day, Hour, RejectionReason, StreamId, VisitorSketch};
use std::hash::{BuildHasher, Hash};

use crate::window::WindowStart;

/// Rules of this fold. Raise it when the same log would give other rows; see delivery in ARCHITECTURE.md.
pub const FOLD_VERSION: u32 = 1;

type Map<K, V> = HashMap<K, V, FixedState>;

/// Index of an interned string.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Text(u32);

/// Strings of one window, each kept once.
#[derive(Default)]
struct Interner {
    table: hashbrown::HashTable<u32>,
    spans: Vec<(u32, u32)>,
    bytes: String,
    state: FixedState,
}

impl Interner {
    fn intern(&mut self, text: &str) -> Text {
        let hash = self.state.hash_one(text);
        let (spans, bytes, state) = (&mut self.spans, &mut self.bytes, &self.state);
        let get = |spans: &[(u32, u32)], bytes: &str, index: u32| {
            let (start, end) = spans[index as usize];
            bytes.as_bytes()[start as usize..end as usize] == *text.as_bytes()
        };
        if let Some(&index) = self.table.find(hash, |&index| get(spans, bytes, index)) {
            return Text(index);
        }
        let index = spans.len() as u32;
        let start = bytes.len() as u32;
        bytes.push_str(text);
        spans.push((start, bytes.len() as u32));
        self.table.insert_unique(hash, index, |&index| {
            let (start, end) = spans[index as usize];
            state.hash_one(&bytes[start as usize..end as usize])
        });
        Text(index)
    }

    fn get(&self, text: Text) -> &str {
        let (start, end) = self.spans[text.0 as usize];
        &self.bytes[start as usize..end as usize]
    }
}

/// Cells of one table of ClickHouse.
struct Cells<K, V> {
    index: Map<K, u32>,
    cells: Vec<Cell<K, V>>,
    dirty: Vec<u32>,
}

struct Cell<K, V> {
    key: K,
    dirty: bool,
    value: V,
}

impl<K, V> Default for Cells<K, V> {
    fn default() -> Self {
        Cells { index: Map::default(), cells: Vec::new(), dirty: Vec::new() }
    }
}

impl<K: Copy + Eq + Hash, V: Default> Cells<K, V> {
    /// The cell of `key`, marked as changed.
    fn touch(&mut self, key: K) -> &mut V {
        let next = self.cells.len() as u32;
        let index = *self.index.entry(key).or_insert(next);
        if index == next {
            self.cells.push(Cell { key, dirty: false, value: V::default() });
        }
        let cell = &mut self.cells[index as usize];
        if !cell.dirty {
            cell.dirty = true;
            self.dirty.push(index);
        }
        &mut cell.value
    }

    /// Rows of the changed cells, which then count as unchanged.
    fn freeze<R>(&mut self, mut row: impl FnMut(&K, &V) -> R) -> Vec<R> {
        let cells = &mut self.cells;
        self.dirty
            .drain(..)
            .map(|index| {
                let cell = &mut cells[index as usize];
                cell.dirty = false;
                row(&cell.key, &cell.value)
            })
            .collect()
    }
}

#[derive(Default)]
struct SiteCell {
    views: u64,
    visits: u64,
    /// Indexed by the class's number; that of people stays 0.
    bots: [u64; 7],
    sketch: VisitorSketch,
}

#[derive(Default)]
struct PageCell {
    views: u64,
    sketch: VisitorSketch,
}

type SiteKey = (Text, Hour);
type PageKey = (Text, Text, Day, u16);
type BreakdownKey = (Text, Text, Day, Dimension);
type RejectionKey = (Text, Day, RejectionReason);

/// What became of the window's records so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcomes {
    /// Records read.
    pub seen: u64,
    /// Page views counted.
    pub accepted: u64,
    /// Page views whose id had come before.
    pub duplicate: u64,
    /// Tallies of refused beacons.
    pub tallies: u64,
    /// Refused beacons in them.
    pub rejected_beacons: u64,
    /// Records that do not decode.
    pub undecodable: u64,
}

/// Absolute rows: all that changed since the last freeze, as of `next_offset`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// `site_hourly`.
    pub site: Vec<SiteHourlyRow>,
    /// `page_daily`.
    pub page: Vec<PageDailyRow>,
    /// `breakdown_daily`.
    pub breakdown: Vec<BreakdownDailyRow>,
    /// `rejection_daily`.
    pub rejection: Vec<RejectionDailyRow>,
    /// `ledger`, written last.
    pub ledger: Option<LedgerRow>,
}

impl Rows {
    /// Rows in all tables.
    pub fn len(&self) -> usize {
        self.site.len()
            + self.page.len()
            + self.breakdown.len()
            + self.rejection.len()
            + usize::from(self.ledger.is_some())
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The accumulators of one open window. Begun empty at the window's start; never read back from ClickHouse.
pub struct WindowState {
    stream: StreamId,
    start: WindowStart,
    next_offset: u64,
    outcomes: Outcomes,
    frozen_at: u64,
    texts: Interner,
    ids: HashSet<u64, FixedState>,
    site: Cells<SiteKey, SiteCell>,
    page: Cells<PageKey, PageCell>,
    breakdown: Cells<BreakdownKey, u64>,
    rejection: Cells<RejectionKey, u64>,
}

impl WindowState {
    /// An empty window.
    pub fn new(stream: StreamId, start: WindowStart) -> Self {
        WindowState {
            stream,
            start,
            next_offset: start.offset,
            outcomes: Outcomes::default(),
            frozen_at: start.offset,
            texts: Interner::default(),
            ids: HashSet::default(),
            site: Cells::default(),
            page: Cells::default(),
            breakdown: Cells::default(),
            rejection: Cells::default(),
        }
    }

    /// Where the window began.
    pub fn start(&self) -> WindowStart {
        self.start
    }

    /// Offset after the last record folded.
    pub fn next_offset(&self) -> u64 {
        self.next_offset
    }

    /// What became of the records.
    pub fn outcomes(&self) -> Outcomes {
        self.outcomes
    }

    /// Cells changed since the last freeze.
    pub fn dirty(&self) -> usize {
        self.site.dirty.len() + self.page.dirty.len() + self.breakdown.dirty.len() + self.rejection.dirty.len()
    }

    /// Whether records were folded since the last freeze.
    pub fn is_dirty(&self) -> bool {
        self.frozen_at < self.next_offset
    }

    /// Folds the next record. Offsets follow one another without a gap; a record that does not decode is counted and
    /// skipped, and the error returned for the log.
    pub fn apply(&mut self, offset: u64, bytes: &[u8]) -> Result<(), record::DecodeError> {
        debug_assert_eq!(offset, self.next_offset, "records are folded in order, without gaps");
        self.next_offset = offset + 1;
        self.outcomes.seen += 1;
        match record::decode(bytes) {
            Ok(Record::PageView(view)) => self.page_view(&view),
            Ok(Record::Rejections(tally)) => {
                self.outcomes.tallies += 1;
                self.outcomes.rejected_beacons += tally.count;
                let project = self.texts.intern(tally.project);
                *self.rejection.touch((project, tally.hour.day(), tally.reason)) += tally.count;
            }
            Err(error) => {
                self.outcomes.undecodable += 1;
                return Err(error);
            }
        }
        Ok(())
    }

    fn page_view(&mut self, view: &PageViewRef<'_>) {
        let project = self.texts.intern(view.project);
        if view.event_id != 0 {
            // An id is its project's: a stranger's page must not be able to silence another project's view.
            let id = self.texts.state.hash_one((view.project, view.event_id));
            if !self.ids.insert(id) {
                self.outcomes.duplicate += 1;
                return;
            }
        }
        self.outcomes.accepted += 1;
        let day = view.hour.day();
        let site = self.site.touch((project, view.hour));
        if view.bot_class != BotClass::Person {
            site.bots[view.bot_class as usize] += 1;
            self.count(project, day, Dimension::Bot, view.bot);
            return;
        }
        site.views += 1;
        site.visits += u64::from(view.arrival);
        if let Some(coordinate) = view.site_coordinate {
            site.sketch.insert(coordinate);
        }
        let path = self.texts.intern(view.path);
        let page = self.page.touch((project, path, day, view.status));
        page.views += 1;
        if let Some(coordinate) = view.page_coordinate {
            page.sketch.insert(coordinate);
        }
        if view.arrival {
            self.count(project, day, Dimension::Referrer, view.referrer_host);
        }
        self.count(project, day, Dimension::Country, view.country);
        self.count(project, day, Dimension::Device, view.device.class_name());
        self.count(project, day, Dimension::Browser, view.browser.class_name());
        self.count(project, day, Dimension::System, view.system.class_name());
        self.count(project, day, Dimension::Version, view.version);
        self.count(project, day, Dimension::Language, view.language);
    }

    fn count(&mut self, project: Text, day: Day, dimension: Dimension, value: &str) {
        let value = self.texts.intern(value);
        *self.breakdown.touch((project, value, day, dimension)) += 1;
    }

    /// The rows of everything that changed since the last freeze, each an absolute fact as of [`Self::next_offset`].
    pub fn freeze(&mut self) -> Rows {
        let (texts, stream, window_start, next_offset) =
            (&self.texts, self.stream.0, self.start.offset, self.next_offset);
        let text = |index: Text| texts.get(index).to_owned();
        let rows = Rows {
            site: self.site.freeze(|&(project, hour), cell| SiteHourlyRow {
                project: text(project),
                hour: hour.unix_seconds(),
                views: cell.views,
                visits: cell.visits,
                bots_search: cell.bots[BotClass::Search as usize],
                bots_ai_crawler: cell.bots[BotClass::AiCrawler as usize],
                bots_preview: cell.bots[BotClass::Preview as usize],
                bots_monitor: cell.bots[BotClass::Monitor as usize],
                bots_automation: cell.bots[BotClass::Automation as usize],
                bots_other: cell.bots[BotClass::OtherBot as usize],
                sketch: cell.sketch.encode(),
                stream,
                window_start,
                next_offset,
            }),
            page: self.page.freeze(|&(project, path, day, status), cell| PageDailyRow {
                project: text(project),
                day: day.0,
                path: text(path),
                status,
                views: cell.views,
                sketch: cell.sketch.encode(),
                stream,
                window_start,
                next_offset,
            }),
            breakdown: self.breakdown.freeze(|&(project, value, day, dimension), &views| BreakdownDailyRow {
                project: text(project),
                day: day.0,
                dimension: dimension.name().to_owned(),
                value: text(value),
                views,
                stream,
                window_start,
                next_offset,
            }),
            rejection: self.rejection.freeze(|&(project, day, reason), &beacons| RejectionDailyRow {
                project: text(project),
                day: day.0,
                reason: reason.name().to_owned(),
                beacons,
                stream,
                window_start,
                next_offset,
            }),
            ledger: self.is_dirty().then(|| LedgerRow {
                stream,
                window_start,
                next_offset,
                appended: Hour(self.start.appended_hour).unix_seconds(),
                seen: self.outcomes.seen,
                accepted: self.outcomes.accepted,
                duplicate: self.outcomes.duplicate,
                tallies: self.outcomes.tallies,
                rejected_beacons: self.outcomes.rejected_beacons,
                undecodable: self.outcomes.undecodable,
                fold_version: FOLD_VERSION,
            }),
        };
        self.frozen_at = next_offset;
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::proto;

    fn view(project: &str, path: &str, visitor: u64, id: u64) -> proto::PageView {
        proto::PageView {
            project: project.to_owned(),
            hour: 500_000,
            path: path.to_owned(),
            status: 200,
            device: proto::Device::Desktop as i32,
            arrival: visitor % 2 == 0,
            site_coordinate: schemas::Coordinate::from_hash(visitor.wrapping_mul(0x9e37_79b9_7f4a_7c15)).packed(),
            page_coordinate: schemas::Coordinate::from_hash(visitor.wrapping_mul(0xc2b2_ae3d_27d4_eb4f)).packed(),
            event_id: id,
            ..proto::PageView::default()
        }
    }

    fn window() -> WindowState {
        WindowState::new(StreamId(7), WindowStart { offset: 10, appended_hour: 500_000 })
    }

    #[test]
    fn rows_are_absolute_and_the_ledger_adds_up() {
        let mut state = window();
        let mut offset = 10;
        let mut apply = |state: &mut WindowState, bytes: &[u8]| {
            let outcome = state.apply(offset, bytes);
            offset += 1;
            outcome
        };
        apply(&mut state, &record::encode_page_view(view("a", "/x", 1, 5))).unwrap();
        apply(&mut state, &record::encode_page_view(view("a", "/x", 1, 5))).unwrap();
        apply(&mut state, &record::encode_page_view(view("b", "/x", 1, 5))).unwrap();
        assert!(apply(&mut state, b"rubbish").is_err());
        let first = state.freeze();
        assert_eq!(first.site.len(), 2, "the same id in another project is another view");
        assert!(state.freeze().is_empty(), "nothing changed, nothing is written");
        apply(&mut state, &record::encode_page_view(view("a", "/y", 2, 6))).unwrap();
        let bot = proto::PageView {
            bot_class: proto::BotClass::Search as i32,
            bot: "Googlebot".to_owned(),
            site_coordinate: 0,
            page_coordinate: 0,
            ..view("a", "/x", 3, 7)
        };
        apply(&mut state, &record::encode_page_view(bot)).unwrap();
        let tally = proto::RejectionTally { project: "a".to_owned(), hour: 500_000, reason: 7, count: 12 };
        apply(&mut state, &record::encode_rejections(tally)).unwrap();
        let second = state.freeze();
        let site = second.site.iter().find(|row| row.project == "a").unwrap();
        assert_eq!((site.views, site.visits, site.bots_search, site.next_offset), (2, 1, 1, 17));
        assert_eq!(VisitorSketch::decode(&site.sketch).unwrap().occupied(), 2);
        assert_eq!(second.page.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(), ["/y"]);
        assert_eq!((second.rejection[0].reason.as_str(), second.rejection[0].beacons), ("unknown_project", 12));
        let ledger = second.ledger.unwrap();
        assert_eq!(
            (ledger.seen, ledger.accepted, ledger.duplicate, ledger.tallies, ledger.undecodable),
            (7, 4, 1, 1, 1)
        );
        assert_eq!(ledger.seen, ledger.next_offset - ledger.window_start);
    }

    #[test]
    fn folding_again_gives_the_same_bytes() {
        let records: Vec<Vec<u8>> =
            (0..3000).map(|i| record::encode_page_view(view("a", &format!("/{}", i % 7), i, i + 1))).collect();
        let run = |freeze_every: usize| {
            let mut state = window();
            let mut last = std::collections::BTreeMap::new();
            for (index, bytes) in records.iter().enumerate() {
                state.apply(10 + index as u64, bytes).unwrap();
                if index % freeze_every == 0 || index + 1 == records.len() {
                    for row in state.freeze().page {
                        last.insert(row.path.clone(), (row.views, row.sketch));
                    }
                }
            }
            last
        };
        assert_eq!(run(1), run(997));
    }
}
