//! Compares ClickHouse's rows of a window with the rows that follow from the log.

use super::rebuild::{Key, Window};
use super::{TOLD, name_of};
use anyhow::{Context, ensure};
use clickhouse::Client;
use schemas::close::Frontier;
use schemas::tables::{
    BreakdownWindowRow, LedgerRow, MonthCloseRow, NotFoundDailyRow, PageDailyRow, RejectionDailyRow,
    ReportedMissingDailyRow, RobotDailyRow, RobotPageDailyRow, RulesDailyRow, SiteHourlyRow,
};
use schemas::{Day, Month, StreamId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Tables with rows per window.
const TABLES: [&str; 10] = [
    "site_hourly",
    "page_daily",
    "breakdown_window",
    "not_found_daily",
    "rejection_daily",
    "robot_daily",
    "robot_page_daily",
    "rules_daily",
    "reported_missing_daily",
    "ledger",
];

/// Rows that are rightly missing although the log has them.
#[derive(Default)]
pub struct Gone {
    closed: BTreeMap<Month, Frontier>,
    erased: BTreeSet<String>,
}

impl Gone {
    /// Queries which months are closed and which projects are erased.
    pub async fn read(client: &Client) -> anyhow::Result<Self> {
        let sql = "SELECT ?fields FROM month_close FINAL ORDER BY month, finished, run";
        let rows =
            client.query(sql).fetch_all::<MonthCloseRow>().await.context("cannot read which months are closed")?;
        let mut gone = Gone::default();
        for row in rows {
            let month = Day(row.month).first_hour().month();
            gone.closed.entry(month).or_insert_with(|| Frontier::of(&row));
        }
        let sql = "SELECT slug FROM project FINAL WHERE removed = 2";
        let erased = client.query(sql).fetch_all::<String>().await.context("cannot read which projects were erased")?;
        gone.erased = erased.into_iter().collect();
        Ok(gone)
    }

    fn row(&self, key: &Key, stream: StreamId, window: u64) -> bool {
        self.erased.contains(key.project())
            || self.closed.get(&key.month()).is_some_and(|frontier| frontier.contains(stream.0, window))
    }

    fn sketch(&self, key: &Key) -> bool {
        self.closed.contains_key(&key.month())
    }
}

/// One difference between ClickHouse and the log.
#[derive(Clone, Debug)]
pub struct Difference {
    table: &'static str,
    key: String,
    found: String,
    expected: String,
}

/// Rows of a window as found: counters and sketch by key, and their newest version.
#[derive(Default)]
pub struct FoundRows {
    cells: BTreeMap<Key, (Vec<u64>, Option<Vec<u8>>)>,
    /// Largest `next_offset` among them.
    pub newest: u64,
}

impl FoundRows {
    /// Their number.
    pub fn rows(&self) -> usize {
        self.cells.len()
    }

    fn put(&mut self, key: Key, counts: Vec<u64>, sketch: Option<Vec<u8>>, next_offset: u64) {
        self.newest = self.newest.max(next_offset);
        self.cells.insert(key, (counts, sketch));
    }
}

/// The offset up to which a stream was counted.
pub async fn ledger_end(client: &Client, stream: StreamId) -> anyhow::Result<u64> {
    let query =
        client.query("SELECT max(next_offset) FROM ledger WHERE stream = {stream:UInt64}").param("stream", stream.0);
    query.fetch_one().await.context("cannot read the ledger")
}

/// A stream's ledger by window.
pub async fn ledger(client: &Client, stream: StreamId) -> anyhow::Result<BTreeMap<u64, LedgerRow>> {
    let query =
        client.query("SELECT ?fields FROM ledger FINAL WHERE stream = {stream:UInt64}").param("stream", stream.0);
    let rows = query.fetch_all::<LedgerRow>().await.context("cannot read the ledger")?;
    Ok(rows.into_iter().map(|row| (row.window_start, row)).collect())
}

/// One window's row of the ledger.
pub async fn ledger_row(client: &Client, stream: StreamId, window: u64) -> anyhow::Result<Option<LedgerRow>> {
    let query = client
        .query("SELECT ?fields FROM ledger FINAL WHERE stream = {stream:UInt64} AND window_start = {window:UInt64}");
    query.param("stream", stream.0).param("window", window).fetch_optional().await.context("cannot read the ledger")
}

/// All rows of a window.
pub async fn cells(client: &Client, stream: StreamId, window: u64) -> anyhow::Result<FoundRows> {
    let ask = |table: &str| {
        let sql = format!(
            "SELECT ?fields FROM {table} FINAL WHERE stream = {{stream:UInt64}} AND window_start = {{window:UInt64}}"
        );
        client.query(&sql).param("stream", stream.0).param("window", window)
    };
    let mut found = FoundRows::default();
    for row in ask("site_hourly").fetch_all::<SiteHourlyRow>().await.context("cannot read site_hourly")? {
        let key = Key::Site(row.project, row.hour / 3600, row.source as i32);
        found.put(key, vec![row.views, row.visits], Some(row.sketch), row.next_offset);
    }
    for row in ask("page_daily").fetch_all::<PageDailyRow>().await.context("cannot read page_daily")? {
        let key = Key::Page(row.project, row.day, row.path, row.status, row.source as i32);
        found.put(key, vec![row.views], Some(row.sketch), row.next_offset);
    }
    for row in
        ask("breakdown_window").fetch_all::<BreakdownWindowRow>().await.context("cannot read breakdown_window")?
    {
        put_breakdown(&mut found, row)?;
    }
    for row in ask("not_found_daily").fetch_all::<NotFoundDailyRow>().await.context("cannot read not_found_daily")? {
        let key = Key::NotFound(row.project, row.day, row.path, row.referrer, row.source as i32);
        found.put(key, vec![row.views], None, row.next_offset);
    }
    for row in ask("rejection_daily").fetch_all::<RejectionDailyRow>().await.context("cannot read rejection_daily")? {
        let key = Key::Rejection(row.project, row.day, row.reason, row.host);
        found.put(key, vec![row.beacons], None, row.next_offset);
    }
    for row in ask("robot_daily").fetch_all::<RobotDailyRow>().await.context("cannot read robot_daily")? {
        let key = Key::Robot(row.project, row.day, row.kind, row.name, row.source as i32);
        found.put(key, vec![row.views], None, row.next_offset);
    }
    for row in ask("robot_page_daily").fetch_all::<RobotPageDailyRow>().await.context("cannot read robot_page_daily")? {
        let key = Key::RobotPage(row.project, row.day, row.path, row.robot_group, row.source as i32);
        found.put(key, vec![row.views], None, row.next_offset);
    }
    for row in ask("rules_daily").fetch_all::<RulesDailyRow>().await.context("cannot read rules_daily")? {
        found.put(Key::Rules(row.project, row.day, row.rules), vec![row.views], None, row.next_offset);
    }
    let reported = ask("reported_missing_daily").fetch_all::<ReportedMissingDailyRow>().await;
    for row in reported.context("cannot read reported_missing_daily")? {
        found.put(Key::Reported(row.project, row.day, row.path), vec![row.reports], None, row.next_offset);
    }
    Ok(found)
}

/// The values of one row of `breakdown_window`.
fn put_breakdown(found: &mut FoundRows, row: BreakdownWindowRow) -> anyhow::Result<()> {
    let lengths = [row.dimensions.len(), row.values.len(), row.views.len()];
    ensure!(lengths == [lengths[0]; 3], "a row of breakdown_window has arrays of {lengths:?} elements");
    for (dimension, value, views) in row.counts() {
        let (dimension, value) = (dimension.name().to_owned(), value.to_owned());
        let key = Key::Breakdown(row.project.clone(), row.day, dimension, value, row.source as i32);
        let repeated = found.cells.get(&key).map_or(0, |(counts, _)| counts[0]);
        found.put(key, vec![repeated + views], None, row.next_offset);
    }
    Ok(())
}

/// A window's ledger against the log: the counters by name.
fn ledger_counts(window: &Window) -> [(&'static str, u64); 8] {
    [
        ("next_offset", window.end),
        ("seen", window.end - window.start - window.lost),
        ("accepted", window.accepted),
        ("duplicate", window.duplicate),
        ("tallies", window.tallies),
        ("rejected_beacons", window.rejected_beacons),
        ("undecodable", window.undecodable),
        ("lost", window.lost),
    ]
}

/// All differences between a window's rows and the log.
pub fn differences(
    stream: StreamId,
    window: &Window,
    ledger: Option<&LedgerRow>,
    found: &FoundRows,
    gone: &Gone,
) -> anyhow::Result<Vec<Difference>> {
    let mut differences = Vec::new();
    let at = |key: &dyn std::fmt::Debug| format!("stream {} window {} {key:?}", name_of(stream), window.start);
    match ledger {
        None => differences.push(Difference {
            table: "ledger",
            key: at(&()),
            found: "no row".to_owned(),
            expected: format!("a row up to {}", window.end),
        }),
        Some(row) => {
            let has = [
                row.next_offset,
                row.seen,
                row.accepted,
                row.duplicate,
                row.tallies,
                row.rejected_beacons,
                row.undecodable,
                row.lost,
            ];
            for ((name, expected), has) in ledger_counts(window).into_iter().zip(has) {
                if has != expected {
                    let (found, expected) = (has.to_string(), expected.to_string());
                    differences.push(Difference { table: "ledger", key: at(&name), found, expected });
                }
            }
        }
    }
    // Windows of earlier rules have no rows for what those rules did not count.
    let rules = ledger.map_or(u32::MAX, |row| row.fold_version);
    let expected_there = |key: &Key| !gone.row(key, stream, window.start) && key.since() <= rules;
    for (key, cell) in window.cells.iter().filter(|(key, _)| expected_there(key)) {
        let Some((counts, sketch)) = found.cells.get(key) else {
            let expected = format!("{:?}", cell.counts);
            differences.push(Difference { table: key.table(), key: at(key), found: "no row".to_owned(), expected });
            continue;
        };
        if *counts != cell.counts {
            let (found, expected) = (format!("{counts:?}"), format!("{:?}", cell.counts));
            differences.push(Difference { table: key.table(), key: at(key), found, expected });
        }
        if let Some(sketch) = sketch
            && !gone.sketch(key)
        {
            let expected = cell.sketch()?;
            if *sketch != expected {
                let (found, expected) = (digest(sketch), digest(&expected));
                differences.push(Difference { table: key.table(), key: at(key), found, expected });
            }
        }
    }
    // Reports leave out a stray row of a closed month, and the next sweep removes it.
    let stray = |key: &Key| !window.cells.contains_key(key) && !gone.row(key, stream, window.start);
    for (key, (counts, _)) in found.cells.iter().filter(|(key, _)| stray(key)) {
        let (found, expected) = (format!("{counts:?}"), "no row".to_owned());
        differences.push(Difference { table: key.table(), key: at(key), found, expected });
    }
    Ok(differences)
}

/// A short digest of a sketch: its content must not be printed.
fn digest(sketch: &[u8]) -> String {
    let sum = sketch
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, &byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("sketch of {} bytes, FNV-1a {sum:016x}", sketch.len())
}

/// The outcome of an audit.
#[derive(Default)]
pub struct Report {
    windows: u64,
    records: u64,
    rows: usize,
    accepted: u64,
    duplicate: u64,
    tallies: u64,
    rejected_beacons: u64,
    undecodable: u64,
    /// Offsets of holes, from the ledger.
    lost: u64,
    /// Windows that were written too often during the audit to be compared.
    pub moving: u64,
    /// Records that the ledger does not reach.
    pub not_folded: u64,
    /// Further notes for the operator.
    pub notes: Vec<String>,
    /// The differences between ClickHouse and the log.
    pub differences: Vec<Difference>,
}

impl Report {
    /// Adds a window that was compared.
    pub fn add(&mut self, window: &Window, rows: usize, differences: Vec<Difference>) {
        self.windows += 1;
        self.records += window.end - window.start - window.lost;
        self.lost += window.lost;
        self.rows += rows;
        self.accepted += window.accepted;
        self.duplicate += window.duplicate;
        self.tallies += window.tallies;
        self.rejected_beacons += window.rejected_beacons;
        self.undecodable += window.undecodable;
        self.differences.extend(differences);
    }

    /// Windows follow one another without gap or overlap.
    pub fn contiguous(&mut self, stream: StreamId, ledger: &BTreeMap<u64, LedgerRow>) {
        for (row, (next, _)) in ledger.values().zip(ledger.iter().skip(1)) {
            if row.next_offset != *next {
                self.differences.push(Difference {
                    table: "ledger",
                    key: format!("stream {} window {}", name_of(stream), row.window_start),
                    found: format!("ends at {}", row.next_offset),
                    expected: format!("ends at {next}, where the next one begins"),
                });
            }
        }
    }

    /// Rows of windows that the log does not have: between `from` and `counted`, but not at one of `starts`.
    pub async fn strays(
        &mut self,
        client: &Client,
        stream: StreamId,
        from: u64,
        counted: u64,
        starts: &[u64],
    ) -> anyhow::Result<()> {
        for table in TABLES {
            let sql = format!(
                "SELECT DISTINCT window_start FROM {table} WHERE stream = {{stream:UInt64}} AND window_start >= {{from:UInt64}} AND window_start < {{counted:UInt64}}"
            );
            let query = client.query(&sql).param("stream", stream.0).param("from", from).param("counted", counted);
            let found = query.fetch_all::<u64>().await.with_context(|| format!("cannot read {table}"))?;
            for window in found.into_iter().filter(|window| !starts.contains(window)) {
                self.differences.push(Difference {
                    table,
                    key: format!("stream {} window {window}", name_of(stream)),
                    found: "rows".to_owned(),
                    expected: "none: no window begins there".to_owned(),
                });
            }
        }
        Ok(())
    }

    fn summary(&self) -> String {
        format!(
            "audit: {} windows, {} records, {} rows compared, {} differences, {} records not folded yet{}{}",
            self.windows,
            self.records,
            self.rows,
            self.differences.len(),
            self.not_folded,
            if self.lost > 0 { format!(", {} records lost", self.lost) } else { String::new() },
            if self.moving > 0 { format!(", {} windows moving", self.moving) } else { String::new() }
        )
    }

    /// Text for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        for Difference { table, key, found, expected } in self.differences.iter().take(TOLD) {
            let _ = writeln!(out, "{table}: {key}: found {found}, expected {expected}");
        }
        if self.differences.len() > TOLD {
            let _ = writeln!(out, "… and {} more", self.differences.len() - TOLD);
        }
        let _ = writeln!(out, "{}", self.summary());
        out
    }

    /// JSON for programs.
    pub fn json(&self) -> Value {
        let told: Vec<Value> = self
            .differences
            .iter()
            .take(TOLD)
            .map(|Difference { table, key, found, expected }| {
                json!({"table": table, "key": key, "found": found, "expected": expected})
            })
            .collect();
        json!({
            "windows": self.windows,
            "records": self.records,
            "rows": self.rows,
            "accepted": self.accepted,
            "duplicate": self.duplicate,
            "tallies": self.tallies,
            "rejected_beacons": self.rejected_beacons,
            "undecodable": self.undecodable,
            "lost": self.lost,
            "moving": self.moving,
            "not_folded": self.not_folded,
            "notes": self.notes,
            "difference_count": self.differences.len(),
            "differences": told,
        })
    }
}
