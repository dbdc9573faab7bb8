//! ClickHouse in the model.

use crate::book::{Figures, RowMap, VALUES, slot_of};
use crate::variant::Variant;
use headcount_aggregate::fold::{FOLD_VERSION, Rows};
use headcount_aggregate::sink::LedgerEnd;
use headcount_aggregate::window::WindowStart;
use std::collections::{BTreeMap, BTreeSet};

const SITE: &str = "site ";
const SITE_END: &str = "site!";

/// A row of an insert.
#[derive(Clone, Debug)]
pub struct Row {
    /// Table and dimensions, and the window.
    pub key: (String, u64),
    pub next_offset: u64,
    pub cell: Figures,
    /// The append hour of the window; only in the ledger.
    pub ledger_hour: Option<u32>,
}

impl Row {
    /// Whether it has the views of an hour, which reports show first.
    pub fn is_of_hour(&self) -> bool {
        self.key.0.starts_with(SITE)
    }
}

/// Rows that are sent together.
#[derive(Clone, Debug)]
pub struct Insert {
    /// By which a deduplicating store would know it.
    pub token: (u64, u64, usize),
    pub rows: Vec<Row>,
}

/// ClickHouse: rows in any order; queries choose.
#[derive(Clone, Default)]
pub struct ModelStore {
    /// key → (version, row) of the newest, or all of them added up.
    newest: BTreeMap<(String, u64), (u64, Figures)>,
    sums: RowMap,
    /// The ledger by window.
    pub ledger: BTreeMap<u64, LedgerEnd>,
    /// Tokens of inserts since the last restart of the store.
    pub tokens: BTreeSet<(u64, u64, usize)>,
}

impl ModelStore {
    pub fn apply(&mut self, variant: Variant, insert: &Insert) {
        if variant == Variant::DeltaRowsWithTokens && !self.tokens.insert(insert.token) {
            return;
        }
        for row in &insert.rows {
            self.apply_to_ledger(row);
            if variant.sums() {
                let sum = self.sums.entry(row.key.clone()).or_default();
                sum.counts.resize(row.cell.counts.len(), 0);
                for (sum, count) in sum.counts.iter_mut().zip(&row.cell.counts) {
                    *sum = sum.wrapping_add(*count);
                }
                continue;
            }
            let newer = self.newest.get(&row.key).is_none_or(|(version, _)| row.next_offset >= *version);
            if newer {
                self.newest.insert(row.key.clone(), (row.next_offset, row.cell.clone()));
            }
        }
    }

    fn apply_to_ledger(&mut self, row: &Row) {
        let Some(appended_hour) = row.ledger_hour else { return };
        let window = WindowStart { offset: row.key.1, appended_hour };
        let end = LedgerEnd { window, next_offset: row.next_offset, fold_version: FOLD_VERSION };
        let newest = self.ledger.entry(row.key.1).or_insert(end);
        if newest.next_offset <= row.next_offset {
            *newest = end;
        }
    }

    pub fn read(&self, variant: Variant) -> RowMap {
        if variant.sums() {
            return self.sums.clone();
        }
        self.newest.iter().map(|(key, (_, cell))| (key.clone(), cell.clone())).collect()
    }

    /// Views by project and hour, over all windows.
    pub fn views(&self, variant: Variant) -> BTreeMap<String, u64> {
        let mut views: BTreeMap<String, u64> = BTreeMap::new();
        let mut add = |key: &str, cell: &Figures| match views.get_mut(key) {
            Some(sum) => *sum += cell.counts[0],
            None => drop(views.insert(key.to_owned(), cell.counts[0])),
        };
        // Keys are in order, and the figures of hours are consecutive.
        let site = (SITE.to_owned(), 0)..(SITE_END.to_owned(), 0);
        if variant.sums() {
            self.sums.range(site).for_each(|((key, _), cell)| add(key, cell));
        } else {
            self.newest.range(site).for_each(|((key, _), (_, cell))| add(key, cell));
        }
        views
    }
}

/// The rows of a flush, by table in the order of the inserts.
pub fn rows_of(rows: Rows) -> [Vec<Row>; 8] {
    let row = |key: String, window: u64, next_offset: u64, counts: Vec<u64>, sketch: Option<Vec<u8>>| Row {
        key: (key, window),
        next_offset,
        cell: Figures { counts, sketch },
        ledger_hour: None,
    };
    let page = rows.page.into_iter().map(|r| {
        let key = format!("page {} {} {} {}", r.project, r.day, r.path, r.status);
        row(key, r.window_start, r.next_offset, vec![r.views], Some(r.sketch))
    });
    let breakdown = rows.breakdown.into_iter().map(|r| {
        let mut counts = vec![0; VALUES.len()];
        for (dimension, value, views) in r.counts() {
            counts[slot_of(dimension.name(), value)] += views;
        }
        row(format!("breakdown {} {}", r.project, r.day), r.window_start, r.next_offset, counts, None)
    });
    let not_found = rows.not_found.into_iter().map(|r| {
        let key = format!("not found {} {} {} {}", r.project, r.day, r.path, r.referrer);
        row(key, r.window_start, r.next_offset, vec![r.views], None)
    });
    let rejection = rows.rejection.into_iter().map(|r| {
        let key = format!("rejection {} {} {} {}", r.project, r.day, r.reason, r.host);
        row(key, r.window_start, r.next_offset, vec![r.beacons], None)
    });
    let robot = rows.robot.into_iter().map(|r| {
        let key = format!("robot {} {} {} {}", r.project, r.day, r.kind, r.name);
        row(key, r.window_start, r.next_offset, vec![r.views], None)
    });
    let robot_page = rows.robot_page.into_iter().map(|r| {
        let key = format!("robot page {} {} {} {}", r.project, r.day, r.path, r.robot_group);
        row(key, r.window_start, r.next_offset, vec![r.views], None)
    });
    let site = rows.site.into_iter().map(|r| {
        let key = format!("site {} {}", r.project, r.hour / 3600);
        row(key, r.window_start, r.next_offset, vec![r.views, r.visits], Some(r.sketch))
    });
    let ledger = rows.ledger.into_iter().map(|r| {
        let counts = vec![r.next_offset, r.seen, r.accepted, r.duplicate, r.tallies, r.rejected_beacons, r.undecodable];
        let ledger_hour = Some(r.appended / 3600);
        Row { ledger_hour, ..row("ledger".to_owned(), r.window_start, r.next_offset, counts, None) }
    });
    [
        page.collect(),
        breakdown.collect(),
        not_found.collect(),
        rejection.collect(),
        robot_page.collect(),
        robot.collect(),
        site.collect(),
        ledger.collect(),
    ]
}
