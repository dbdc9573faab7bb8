//! What a month came to: all figures of a run, as they are written to the JSON file.

use serde::Serialize;

use super::check::Checked;
use super::plan::Size;
use super::probe::Probed;
use super::project::Projection;
use super::truth::Truth;
use super::watch::{Sample, Tables};
use crate::cpu::Each;
use crate::machine::Machine;

/// How it was measured.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Setting {
    /// The month, as `YYYY-MM`.
    pub month: String,
    /// What was asked for.
    pub size: Size,
    /// Decides every record.
    pub seed: u64,
    /// Days that were driven,
    pub days: u32,
    /// of so many that the month has.
    pub days_of_month: u32,
    /// Of the topic.
    pub partitions: i32,
    /// Processes of `headcount aggregate`.
    pub aggregators: u32,
    /// Records in a window of a partition, at most.
    pub window_records: u64,
    /// Records that could wait for the ledger.
    pub ahead: u64,
}

/// From the topic to rows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counted {
    /// From the aggregators' start to the first assignment.
    pub startup_seconds: f64,
    /// From the first record until the ledger had the last one.
    pub seconds: f64,
    /// Of these, those in which records were sent.
    pub producing_seconds: f64,
    /// Of these, those in which the sender waited for the ledger.
    pub waited_seconds: f64,
    /// Of these, those in which records were made again that the topic had: nothing was sent.
    pub remade_seconds: f64,
    /// Records that an earlier run had sent.
    pub before: u64,
    /// Records that this run counted: what seconds, processor time and rows written are of.
    pub records: u64,
    /// Processor seconds in that time.
    pub cpu: Each<f64>,
    /// Peak resident memory, until the run's end.
    pub peaks: Each<u64>,
    /// Rows sent to ClickHouse, replaced ones included.
    pub rows_written: u64,
    /// Bytes that this run sent to the topic, compressed and framed, as they went over the wire.
    pub topic_bytes: u64,
    /// Windows in the ledger.
    pub windows: u64,
    /// Until ClickHouse had no more merges to do, or a minute had passed.
    pub rest_seconds: f64,
    /// Processor seconds of ClickHouse meanwhile.
    pub rest_cpu: f64,
}

/// An aggregator was stopped and started.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Replayed {
    /// Records of open windows, which were folded again.
    pub records: u64,
    /// From the start to the group's assignment.
    pub startup_seconds: f64,
    /// From the start until all were folded again.
    pub seconds: f64,
}

/// The month was closed.
#[derive(Debug, Clone, Serialize)]
pub struct Closed {
    /// How long `headcount close` took; it waits fifteen seconds of that on purpose.
    pub seconds: f64,
    /// Processor seconds of ClickHouse meanwhile.
    pub clickhouse_cpu: Option<f64>,
    /// What ClickHouse has then.
    pub tables: Tables,
}

/// All of it, or as much as there is so far.
#[derive(Debug, Clone, Default, Serialize)]
pub struct MonthResult {
    /// Of this form.
    pub format: u32,
    /// Where.
    pub machine: Machine,
    /// How.
    pub setting: Setting,
    /// Whether every hour that was asked for is in the topic.
    pub sent: bool,
    /// Whether these are the whole month.
    pub complete: bool,
    /// Why the run ended before its end.
    pub ended: Option<String>,
    /// What it adds up to.
    pub truth: Truth,
    /// From the topic to rows.
    pub counted: Counted,
    /// Day by day.
    pub days: Vec<Sample>,
    /// When ClickHouse was at rest.
    pub open_tables: Tables,
    /// The open month against the truth.
    pub open: Option<Checked>,
    /// After a stop and a start.
    pub replayed: Option<Replayed>,
    /// After the close.
    pub closed_tables: Option<Closed>,
    /// The closed month against the truth.
    pub closed: Option<Checked>,
    /// Reports that were read meanwhile.
    pub reports: Option<Probed>,
    /// Other sizes.
    pub projections: Vec<Projection>,
    /// What the figures do not say.
    pub remarks: Vec<String>,
    /// What was not counted right.
    pub wrong: Vec<String>,
}

impl MonthResult {
    /// Page views, each once: what figures "a page view" are of.
    #[must_use]
    pub fn page_views(&self) -> u64 {
        self.truth.records - self.truth.repeats
    }

    /// Records in the topic.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.truth.records + self.truth.tallies
    }

    /// Page views that this run counted: as many of all as it counted of the records.
    #[must_use]
    pub fn counted_views(&self) -> f64 {
        self.page_views() as f64 * self.counted.records as f64 / self.records().max(1) as f64
    }

    /// Page views that this run sent, likewise.
    #[must_use]
    pub fn sent_views(&self) -> f64 {
        let sent = self.records().saturating_sub(self.counted.before);
        self.page_views() as f64 * sent as f64 / self.records().max(1) as f64
    }

    /// So much of something, a page view.
    #[must_use]
    pub fn each(&self, of: u64) -> f64 {
        of as f64 / self.page_views().max(1) as f64
    }
}

/// Bytes of all tables.
#[must_use]
pub fn bytes(tables: &Tables) -> u64 {
    tables.values().map(|held| held.bytes).sum()
}

/// Rows of all tables.
#[must_use]
pub fn rows(tables: &Tables) -> u64 {
    tables.values().map(|held| held.rows).sum()
}
