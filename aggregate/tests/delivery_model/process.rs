//! One aggregator process, in steps as small as a scheduler may want them, in the order of `aggregate::run`.

use crate::book::{Cell, LIMITS, VALUES, slot_of};
use headcount_aggregate::fold::{FOLD_VERSION, Rows, WindowState};
use headcount_aggregate::window::{Commit, Cut, WindowStart};
use schemas::StreamId;
use std::collections::{BTreeMap, VecDeque};

pub const STREAM: StreamId = StreamId(1);

/// What a process does differently from what was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// As `aggregate::run` does it.
    AsBuilt,
    /// The offset is committed before the rows are acknowledged.
    CommitBeforeRows,
    /// Each flush writes what was added since the last; readers add up. Reading goes on at the committed offset.
    DeltaRows,
    /// The same, with a token for each insert that the store remembers, until it is restarted.
    DeltaRowsWithTokens,
    /// A window ends by the process's own clock.
    CutByWallClock,
    /// Reading goes on at the committed offset, with an empty state, within the same window.
    ResumeAtCommitted,
    /// Each process cuts the open window by its own configuration.
    RecutOpenWindow,
    /// The state is read back from a replica that may be stale, and reading goes on at the committed offset.
    ReadBackStale,
    /// The row of a name has what its counter took over.
    InheritedCounts,
    /// No row of 0 is written of a name that left.
    NoZeroRows,
    /// A row of 0 is written only where the process wrote another one before.
    ZeroRowsOfOwnNames,
}

impl Variant {
    pub const WRONG: [Variant; 10] = [
        Variant::CommitBeforeRows,
        Variant::DeltaRows,
        Variant::DeltaRowsWithTokens,
        Variant::CutByWallClock,
        Variant::ResumeAtCommitted,
        Variant::RecutOpenWindow,
        Variant::ReadBackStale,
        Variant::InheritedCounts,
        Variant::NoZeroRows,
        Variant::ZeroRowsOfOwnNames,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Variant::AsBuilt => "as built",
            Variant::CommitBeforeRows => "commit before rows",
            Variant::DeltaRows => "delta rows",
            Variant::DeltaRowsWithTokens => "delta rows, deduplicated by tokens until a restart",
            Variant::CutByWallClock => "window cut by wall clock",
            Variant::ResumeAtCommitted => "resumed at the committed offset, state empty",
            Variant::RecutOpenWindow => "open window cut anew by other parameters",
            Variant::ReadBackStale => "state read back from a stale replica",
            Variant::InheritedCounts => "a newcomer's row inherits the count of the name that left",
            Variant::NoZeroRows => "no row of 0 for a name that left",
            Variant::ZeroRowsOfOwnNames => "rows of 0 only for names that the process wrote itself",
        }
    }

    /// Whether readers add up all rows of a key.
    pub fn sums(self) -> bool {
        matches!(self, Variant::DeltaRows | Variant::DeltaRowsWithTokens)
    }

    /// Whether reading goes on where the commit is, not where its window began.
    pub fn resumes_at_committed(self) -> bool {
        self.sums() || matches!(self, Variant::ResumeAtCommitted | Variant::ReadBackStale)
    }
}

/// Rows by key.
pub type Base = BTreeMap<(String, u64), Cell>;

/// A row on its way.
#[derive(Clone, Debug)]
pub struct Row {
    pub key: (String, u64),
    pub next_offset: u64,
    pub cell: Cell,
}

/// Rows that are sent together.
#[derive(Clone, Debug)]
pub struct Insert {
    /// What a deduplicating store would know it by.
    pub token: (u64, u64, usize),
    pub rows: Vec<Row>,
}

/// Rows of one freeze that are not all acknowledged, and what is committed after them.
pub struct Flush {
    pub inserts: VecDeque<Insert>,
    pub commit: Commit,
    pub ends_window: bool,
}

pub struct Open {
    pub state: WindowState,
    pub cut: Cut,
    pub bytes: u64,
    /// The key's window, where it is not where the state began.
    pub window: u64,
    /// What was read back or written before, by key.
    pub base: Base,
    /// By the process's clock.
    pub began_at: u64,
    frozen_at: u64,
    /// Keys of rows of names and overflows written so far, with their counts.
    written: BTreeMap<String, u64>,
}

impl Open {
    /// Makes of the rows of names what a wrong design would.
    fn spoil_names(&mut self, variant: Variant, rows: &mut Vec<Row>, overflow: &str) {
        let written = &mut self.written;
        rows.retain(|row| match variant {
            Variant::NoZeroRows => row.cell.counts[0] > 0,
            Variant::ZeroRowsOfOwnNames => row.cell.counts[0] > 0 || written.contains_key(&row.key.0),
            _ => true,
        });
        written.extend(rows.iter().map(|row| (row.key.0.clone(), row.cell.counts[0])));
        for row in rows.iter_mut().filter(|_| variant == Variant::InheritedCounts) {
            let Some((group, name)) = row.key.0.rsplit_once(' ') else { continue };
            if !name.is_empty() && !name.starts_with(':') && row.cell.counts[0] > 0 {
                // The one counter has taken over all that is in the overflow.
                row.cell.counts[0] += written.get(&format!("{group} {overflow}")).copied().unwrap_or(0);
            }
        }
    }
}

/// A process that has been given the partition, or believes so.
pub struct Process {
    pub variant: Variant,
    pub generation: u64,
    pub paused: bool,
    pub position: u64,
    pub first_cut: Option<Cut>,
    pub own_cut: Cut,
    /// The window that goes on at the position, with what was read back of it.
    pub resumed: Option<(WindowStart, Base)>,
    pub open: Option<Open>,
    pub flush: Option<Flush>,
    /// Its clock's advance over others'.
    pub skew: u64,
}

impl Process {
    pub fn commit(&self, window: Option<WindowStart>, next_offset: u64, cut: Cut) -> Commit {
        Commit { stream: STREAM, window, next_offset, cut, fold_version: FOLD_VERSION, drained: false }
    }

    /// Whether the record at the position ends the open window. Time is in hours.
    pub fn ends_window(&self, appended: schemas::Hour, now: u64) -> bool {
        let Some(open) = &self.open else { return false };
        match self.variant {
            Variant::CutByWallClock => (now + self.skew) / 6 != open.began_at / 6,
            _ => {
                let start = WindowStart { offset: open.window, appended_hour: open.state.start().appended_hour };
                open.cut.begins_window(start, open.bytes, self.position, appended)
            }
        }
    }

    /// Folds the record at the position.
    pub fn fold(&mut self, bytes: &[u8], appended: schemas::Hour, now: u64) {
        let offset = self.position;
        if self.open.is_none() {
            let (window, hour, base) = match self.resumed.take() {
                Some((start, base)) => (start.offset, start.appended_hour, base),
                None => (offset, appended.0, BTreeMap::new()),
            };
            let cut = match self.variant {
                Variant::RecutOpenWindow => self.own_cut,
                _ => self.first_cut.take().unwrap_or(self.own_cut),
            };
            self.open = Some(Open {
                state: WindowState::with_limits(STREAM, WindowStart { offset, appended_hour: hour }, LIMITS),
                cut,
                bytes: 0,
                window,
                base,
                began_at: now + self.skew,
                frozen_at: offset,
                written: BTreeMap::new(),
            });
        }
        if let Some(open) = &mut self.open {
            open.bytes += bytes.len() as u64;
            let _ = open.state.apply(offset, bytes);
        }
        self.position = offset + 1;
    }

    /// Freezes what changed. `next`: the window ends, and the next one begins there.
    pub fn freeze(&mut self, ends: bool, split: usize) {
        let variant = self.variant;
        let Some(open) = &mut self.open else { return };
        let from = open.frozen_at;
        open.frozen_at = open.state.next_offset();
        let mut tables = rows_of(open.state.freeze());
        open.spoil_names(variant, &mut tables[2], ":more");
        open.spoil_names(variant, &mut tables[3], "");
        let window = open.window;
        let mut inserts = VecDeque::new();
        for (table, rows) in tables.into_iter().enumerate() {
            let rows: Vec<Row> = rows
                .into_iter()
                .map(|mut row| {
                    row.key.1 = window;
                    if variant.sums() {
                        let whole = row.cell.clone();
                        if let Some(before) = open.base.insert(row.key.clone(), whole) {
                            for (count, before) in row.cell.counts.iter_mut().zip(&before.counts) {
                                // Of a name that left it is negative.
                                *count = count.wrapping_sub(*before);
                            }
                        }
                    } else if let Some(base) = open.base.get(&row.key) {
                        for (count, base) in row.cell.counts.iter_mut().zip(&base.counts) {
                            *count += base;
                        }
                    }
                    row
                })
                .collect();
            for part in rows.chunks(split.max(1)) {
                let token = (from, open.frozen_at, table * 1_000 + inserts.len());
                inserts.push_back(Insert { token, rows: part.to_vec() });
            }
        }
        let start = WindowStart { offset: window, appended_hour: open.state.start().appended_hour };
        let (next, cut) = (open.state.next_offset(), open.cut);
        let commit = if ends {
            self.open = None;
            self.commit(None, next, self.own_cut)
        } else {
            self.commit(Some(start), next, cut)
        };
        self.flush = Some(Flush { inserts, commit, ends_window: ends });
    }
}

/// The rows of a freeze in the order in which tables are written.
fn rows_of(rows: Rows) -> [Vec<Row>; 8] {
    let row = |key: String, window: u64, next_offset: u64, counts: Vec<u64>, sketch: Option<Vec<u8>>| Row {
        key: (key, window),
        next_offset,
        cell: Cell { counts, sketch },
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
        row("ledger".to_owned(), r.window_start, r.next_offset, counts, None)
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
