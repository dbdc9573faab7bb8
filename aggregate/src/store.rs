//! Rows → ClickHouse. Every row is an absolute fact, so an insert with an unknown outcome is simply repeated.

use crate::failpoint::{self, Failpoint, Step};
use crate::fold::{FOLD_VERSION, Rows};
use crate::metrics::FlushMetrics;
use crate::sink::{LedgerEnd, RowSink};
use crate::window::WindowStart;
use clickhouse::{Client, Row, RowOwned, RowWrite};
use schemas::tables::{
    BreakdownWindowRow, LedgerRow, NotFoundDailyRow, PageDailyRow, RejectionDailyRow, ReportedMissingDailyRow,
    RobotDailyRow, RobotPageDailyRow, RulesDailyRow, SiteHourlyRow,
};
use schemas::{Hour, StreamId};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::{CallError, Work, in_time};

/// The summaries' tables by day.
pub(crate) const DAILY: [&str; 8] = [
    "page_daily",
    "breakdown_window",
    "not_found_daily",
    "rejection_daily",
    "reported_missing_daily",
    "rules_daily",
    "robot_page_daily",
    "robot_daily",
];

/// The summaries' tables.
#[derive(Clone)]
pub struct SummaryStore {
    client: Client,
    timeout: Duration,
    failpoint: Option<Arc<Failpoint>>,
    metrics: FlushMetrics,
}

impl SummaryStore {
    /// `client` has URL, database and credentials; `timeout` limits each call.
    pub fn new(client: Client, timeout: Duration) -> Self {
        SummaryStore { client, timeout, failpoint: None, metrics: FlushMetrics::default() }
    }

    /// The same store with inserts of lower priority than reports, if ClickHouse supports that.
    pub async fn yielding(self) -> Self {
        let client = Work::Write.client_with_priority(self.client, self.timeout).await;
        SummaryStore { client, ..self }
    }

    /// The same store, with a failpoint.
    pub fn with_failpoint(self, failpoint: Option<Arc<Failpoint>>) -> Self {
        SummaryStore { failpoint, ..self }
    }

    /// The same store, which counts its flushes in `metrics`.
    pub fn with_metrics(self, metrics: FlushMetrics) -> Self {
        SummaryStore { metrics, ..self }
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

    /// Details are inserted before totals, so that no total is shown without its pages; the ledger's row is last.
    async fn insert_all(&self, rows: &Rows) -> Result<(), CallError> {
        let passed = |step| failpoint::pass(self.failpoint.as_deref(), step);
        self.insert_into::<PageDailyRow>("page_daily", &rows.page).await?;
        passed(Step::Page);
        self.insert_into::<BreakdownWindowRow>("breakdown_window", &rows.breakdown).await?;
        passed(Step::Breakdown);
        self.insert_into::<NotFoundDailyRow>("not_found_daily", &rows.not_found).await?;
        passed(Step::NotFound);
        self.insert_into::<RejectionDailyRow>("rejection_daily", &rows.rejection).await?;
        passed(Step::Rejection);
        self.insert_into::<ReportedMissingDailyRow>("reported_missing_daily", &rows.reported_missing).await?;
        self.insert_into::<RulesDailyRow>("rules_daily", &rows.rules).await?;
        self.insert_into::<RobotPageDailyRow>("robot_page_daily", &rows.robot_page).await?;
        passed(Step::RobotPage);
        self.insert_into::<RobotDailyRow>("robot_daily", &rows.robot).await?;
        passed(Step::Robot);
        self.insert_into::<SiteHourlyRow>("site_hourly", &rows.site).await?;
        passed(Step::Site);
        self.insert_into::<LedgerRow>("ledger", rows.ledger.as_slice()).await?;
        passed(Step::Ledger);
        Ok(())
    }

    async fn insert_into<T>(&self, table: &str, rows: &[T]) -> Result<(), CallError>
    where
        T: RowOwned + RowWrite + for<'a> Row<Value<'a> = T>,
    {
        let action = format!("inserting {} rows into {table}", rows.len());
        in_time(self.timeout, action, storage::insert(&self.client, table, rows)).await
    }
}

impl RowSink for SummaryStore {
    async fn insert(&self, rows: &Rows) -> Result<(), CallError> {
        let started = Instant::now();
        let outcome = self.insert_all(rows).await;
        self.metrics.observe(outcome.is_ok(), started.elapsed());
        outcome
    }

    async fn ledger_end(&self, stream: StreamId) -> Result<Option<LedgerEnd>, CallError> {
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

    async fn counted_in_window(&self, stream: StreamId, window: u64) -> Result<u64, CallError> {
        let sql =
            "SELECT max(next_offset) FROM ledger WHERE stream = {stream:UInt64} AND window_start = {window:UInt64}";
        let query = self.client.query(sql).param("stream", stream.0).param("window", window);
        in_time(self.timeout, "reading the ledger", query.fetch_one::<u64>()).await
    }

    async fn record_loss(&self, stream: StreamId, lost: Range<u64>, appended: Hour) -> Result<(), CallError> {
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
        self.insert_into::<LedgerRow>("ledger", &[row]).await
    }

    async fn remove_from(&self, stream: StreamId, offset: u64) -> Result<(), CallError> {
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
}
