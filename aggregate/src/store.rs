//! Rows → ClickHouse. Every row is an absolute fact, so an insert with an unknown outcome is simply repeated.

use crate::fold::{FOLD_VERSION, Rows};
use crate::metrics::FlushMetrics;
use crate::start::LedgerEnd;
use crate::steps::{self, AbortAt, Step};
use crate::window::WindowStart;
use crate::writes::Writes;
use clickhouse::{Client, Row, RowOwned, RowWrite};
use schemas::tables::{
    BreakdownDailyRow, LedgerRow, NotFoundDailyRow, PageDailyRow, RejectionDailyRow, RobotDailyRow, RobotPageDailyRow,
    SiteHourlyRow,
};
use schemas::{Hour, StreamId};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::{CallError, Work, in_time};

/// The summaries' tables by day.
pub(crate) const DAILY: [&str; 6] =
    ["page_daily", "breakdown_daily", "not_found_daily", "rejection_daily", "robot_page_daily", "robot_daily"];

/// The summaries' tables.
#[derive(Clone)]
pub struct SummaryStore {
    client: Client,
    timeout: Duration,
    abort_at: Option<Arc<AbortAt>>,
    metrics: FlushMetrics,
    writes: Writes,
}

impl SummaryStore {
    /// `client` has URL, database and credentials; `timeout` limits each call.
    pub fn new(client: Client, timeout: Duration) -> Self {
        SummaryStore { client, timeout, abort_at: None, metrics: FlushMetrics::default(), writes: Writes::default() }
    }

    /// The same store with inserts of lower priority than reports, if ClickHouse supports that.
    pub async fn yielding(self) -> Self {
        let client = Work::Write.client_with_priority(self.client, self.timeout).await;
        SummaryStore { client, ..self }
    }

    /// The same store, with a failpoint.
    pub fn with_abort(self, abort_at: Option<Arc<AbortAt>>) -> Self {
        SummaryStore { abort_at, ..self }
    }

    /// The same store, which counts its flushes in `metrics`.
    pub fn with_metrics(self, metrics: FlushMetrics) -> Self {
        SummaryStore { metrics, ..self }
    }

    /// The same store, whose writes a backup can pause through `writes`.
    pub fn held_by(self, writes: Writes) -> Self {
        SummaryStore { writes, ..self }
    }

    /// The lock on its writes.
    pub fn writes(&self) -> &Writes {
        &self.writes
    }

    /// Inserts all rows. Safe to call again with the same rows.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time; which rows are stored is unknown.
    pub async fn write(&self, rows: &Rows) -> Result<(), CallError> {
        let started = Instant::now();
        let outcome = self.insert_all(rows).await;
        self.metrics.note(outcome.is_ok(), started.elapsed());
        outcome
    }

    /// Details are inserted before totals, so that no total is shown without its pages; the ledger's row is last.
    async fn insert_all(&self, rows: &Rows) -> Result<(), CallError> {
        let passed = |step| steps::pass(self.abort_at.as_deref(), step);
        self.insert::<PageDailyRow>("page_daily", &rows.page).await?;
        passed(Step::Page);
        self.insert::<BreakdownDailyRow>("breakdown_daily", &rows.breakdown).await?;
        passed(Step::Breakdown);
        self.insert::<NotFoundDailyRow>("not_found_daily", &rows.not_found).await?;
        passed(Step::NotFound);
        self.insert::<RejectionDailyRow>("rejection_daily", &rows.rejection).await?;
        passed(Step::Rejection);
        self.insert::<RobotPageDailyRow>("robot_page_daily", &rows.robot_page).await?;
        passed(Step::RobotPage);
        self.insert::<RobotDailyRow>("robot_daily", &rows.robot).await?;
        passed(Step::Robot);
        self.insert::<SiteHourlyRow>("site_hourly", &rows.site).await?;
        passed(Step::Site);
        self.insert::<LedgerRow>("ledger", rows.ledger.as_slice()).await?;
        passed(Step::Ledger);
        Ok(())
    }

    /// The newest window of `stream` in the ledger, or none if nothing of it was counted.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn ledger_end(&self, stream: StreamId) -> Result<Option<LedgerEnd>, CallError> {
        let sql = "SELECT window_start, next_offset, toUInt32(appended), fold_version FROM ledger FINAL WHERE stream = {stream:UInt64} \
                   ORDER BY window_start DESC LIMIT 1";
        let query = self.client.query(sql).param("stream", stream.0).fetch_optional::<(u64, u64, u32, u32)>();
        let row = in_time(self.timeout, "reading the ledger", query).await?;
        Ok(row.map(|(offset, next_offset, appended, fold_version)| LedgerEnd {
            window: WindowStart { offset, appended_hour: appended / 3600 },
            next_offset,
            fold_version,
        }))
    }

    /// The offset below which the ledger has counted the window of `stream` that starts at `window`; 0 without a row.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn counted_of(&self, stream: StreamId, window: u64) -> Result<u64, CallError> {
        let sql =
            "SELECT max(next_offset) FROM ledger WHERE stream = {stream:UInt64} AND window_start = {window:UInt64}";
        let query = self.client.query(sql).param("stream", stream.0).param("window", window);
        in_time(self.timeout, "reading the ledger", query.fetch_one::<u64>()).await
    }

    /// Number of other streams in the ledger.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn other_streams(&self, stream: StreamId) -> Result<u64, CallError> {
        let query = self
            .client
            .query("SELECT uniqExact(stream) FROM ledger WHERE stream != {stream:UInt64}")
            .param("stream", stream.0);
        in_time(self.timeout, "reading the ledger", query.fetch_one::<u64>()).await
    }

    /// Records in the ledger that these records of `stream` are lost, so that its counts add up. `appended` determines how long the row is
    /// stored.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn note_loss(&self, stream: StreamId, lost: Range<u64>, appended: Hour) -> Result<(), CallError> {
        let row = LedgerRow {
            stream: stream.0,
            window_start: lost.start,
            next_offset: lost.end,
            appended: appended.0.saturating_mul(3600),
            seen: 0,
            accepted: 0,
            duplicate: 0,
            tallies: 0,
            rejected_beacons: 0,
            undecodable: 0,
            lost: lost.end - lost.start,
            fold_version: FOLD_VERSION,
        };
        self.insert::<LedgerRow>("ledger", &[row]).await
    }

    /// Removes all rows of `stream` whose windows start at `offset` or later.
    pub async fn remove_from(&self, stream: StreamId, offset: u64) -> Result<(), CallError> {
        // The ledger is last: while it has its row, an interrupted removal is repeated.
        for table in DAILY.into_iter().chain(["site_hourly", "ledger"]) {
            let sql = format!(
                "ALTER TABLE {table} DELETE WHERE stream = {{stream:UInt64}} AND window_start >= {{offset:UInt64}} SETTINGS mutations_sync = 1"
            );
            let query = self.client.query(&sql).param("stream", stream.0).param("offset", offset);
            in_time(self.timeout, format!("removing rows from {table}"), query.execute()).await?;
        }
        Ok(())
    }

    async fn insert<T>(&self, table: &str, rows: &[T]) -> Result<(), CallError>
    where
        T: RowOwned + RowWrite + for<'a> Row<Value<'a> = T>,
    {
        let action = format!("inserting {} rows into {table}", rows.len());
        in_time(self.timeout, action, storage::insert(&self.client, table, rows)).await
    }
}
