//! Rows → ClickHouse. Every row is an absolute fact, so an insert whose outcome is unknown is simply sent again.

use crate::fold::{FOLD_VERSION, Rows};
use crate::metrics::FlushMetrics;
use crate::start::LedgerEnd;
use crate::steps::{self, AbortAt, Step};
use crate::window::WindowStart;
use crate::writes::Writes;
use clickhouse::{Client, Row, RowOwned, RowWrite};
use schemas::tables::{BreakdownDailyRow, LedgerRow, NotFoundDailyRow, PageDailyRow, RejectionDailyRow, SiteHourlyRow};
use schemas::{Hour, StreamId, niceness};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Why rows are not known to be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// ClickHouse refused or went away.
    #[error("ClickHouse, while {action}: {cause}")]
    ClickHouse {
        /// What was attempted.
        action: String,
        /// Why not.
        cause: clickhouse::error::Error,
    },
    /// No answer in time; the outcome is unknown.
    #[error("ClickHouse gave no answer within {} ms, while {action}", timeout.as_millis())]
    Timeout {
        /// What was attempted.
        action: String,
        /// How long it was waited for.
        timeout: Duration,
    },
}

/// Niceness of the threads that insert.
const NICENESS: &str = "15";

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
    /// `client` has URL, database and credentials; each call may take `timeout`.
    ///
    /// Insert deduplication and asynchronous inserts are switched off: the first may drop rows that differ, the second
    /// acknowledges before they are stored. The tables themselves fsync each part (see `schemas/sql`), so that an
    /// acknowledged row survives a power cut. A flush has each key once, so there is nothing that ClickHouse could replace within one
    /// insert.
    pub fn new(client: Client, timeout: Duration) -> Self {
        let client = client
            .with_setting("async_insert", "0")
            .with_setting("insert_deduplicate", "0")
            .with_setting("optimize_on_insert", "0");
        SummaryStore { client, timeout, abort_at: None, metrics: FlushMetrics::default(), writes: Writes::default() }
    }

    /// The same store, whose inserts let reports go first where both want the processor, where ClickHouse knows how.
    pub async fn yielding(self) -> Self {
        let known = self.client.query(niceness::IS_KNOWN).fetch_one::<u64>();
        match self.bounded("asking for its settings".to_owned(), known).await {
            Ok(1..) => SummaryStore { client: self.client.with_setting(niceness::SETTING, NICENESS), ..self },
            Ok(0) | Err(_) => self,
        }
    }

    /// The same store, for a rehearsal that dies on its way.
    pub fn with_abort(self, abort_at: Option<Arc<AbortAt>>) -> Self {
        SummaryStore { abort_at, ..self }
    }

    /// The same store, which counts its flushes in `metrics`.
    pub fn with_metrics(self, metrics: FlushMetrics) -> Self {
        SummaryStore { metrics, ..self }
    }

    /// The same store, whose writes a backup can hold.
    pub fn held_by(self, writes: Writes) -> Self {
        SummaryStore { writes, ..self }
    }

    /// What holds its writes.
    pub fn writes(&self) -> &Writes {
        &self.writes
    }

    /// Inserts all rows. Safe to call again with the same rows.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time; which rows are stored is unknown.
    pub async fn write(&self, rows: &Rows) -> Result<(), StoreError> {
        let started = Instant::now();
        let outcome = self.insert_all(rows).await;
        self.metrics.note(outcome.is_ok(), started.elapsed());
        outcome
    }

    /// Details come before totals, so that a total is never
    /// shown whose pages are not there yet; the ledger's row comes last.
    async fn insert_all(&self, rows: &Rows) -> Result<(), StoreError> {
        let passed = |step| steps::pass(self.abort_at.as_deref(), step);
        self.insert::<PageDailyRow>("page_daily", &rows.page).await?;
        passed(Step::Page);
        self.insert::<BreakdownDailyRow>("breakdown_daily", &rows.breakdown).await?;
        passed(Step::Breakdown);
        self.insert::<NotFoundDailyRow>("not_found_daily", &rows.not_found).await?;
        passed(Step::NotFound);
        self.insert::<RejectionDailyRow>("rejection_daily", &rows.rejection).await?;
        passed(Step::Rejection);
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
    pub async fn ledger_end(&self, stream: StreamId) -> Result<Option<LedgerEnd>, StoreError> {
        let sql = "SELECT window_start, next_offset, toUInt32(appended), fold_version FROM ledger FINAL WHERE stream = ? \
                   ORDER BY window_start DESC LIMIT 1";
        let query = self.client.query(sql).bind(stream.0).fetch_optional::<(u64, u64, u32, u32)>();
        let row = self.bounded("reading the ledger".to_owned(), query).await?;
        Ok(row.map(|(offset, next_offset, appended, fold_version)| LedgerEnd {
            window: WindowStart { offset, appended_hour: appended / 3600 },
            next_offset,
            fold_version,
        }))
    }

    /// The offset below which the ledger has counted the window of `stream` that starts at `window`; 0 if it has no row of it.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn counted_of(&self, stream: StreamId, window: u64) -> Result<u64, StoreError> {
        let sql = "SELECT max(next_offset) FROM ledger WHERE stream = ? AND window_start = ?";
        let query = self.client.query(sql).bind(stream.0).bind(window);
        self.bounded("reading the ledger".to_owned(), query.fetch_one::<u64>()).await
    }

    /// How many other streams the ledger has.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn other_streams(&self, stream: StreamId) -> Result<u64, StoreError> {
        let query = self.client.query("SELECT uniqExact(stream) FROM ledger WHERE stream != ?").bind(stream.0);
        self.bounded("reading the ledger".to_owned(), query.fetch_one::<u64>()).await
    }

    /// Notes in the ledger that these records of `stream` are lost, so that it adds up. `appended` says how long the row is kept.
    ///
    /// # Errors
    /// ClickHouse refused, or did not answer in time.
    pub async fn note_loss(&self, stream: StreamId, lost: Range<u64>, appended: Hour) -> Result<(), StoreError> {
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
    pub async fn remove_from(&self, stream: StreamId, offset: u64) -> Result<(), StoreError> {
        // The ledger last: while it has its row, a removal that was cut short is made again.
        for table in ["page_daily", "breakdown_daily", "not_found_daily", "rejection_daily", "site_hourly", "ledger"] {
            let sql = format!(
                "ALTER TABLE {table} DELETE WHERE stream = ? AND window_start >= ? SETTINGS mutations_sync = 1"
            );
            let query = self.client.query(&sql).bind(stream.0).bind(offset);
            self.bounded(format!("removing rows from {table}"), query.execute()).await?;
        }
        Ok(())
    }

    async fn insert<T>(&self, table: &str, rows: &[T]) -> Result<(), StoreError>
    where
        T: RowOwned + RowWrite + for<'a> Row<Value<'a> = T>,
    {
        if rows.is_empty() {
            return Ok(());
        }
        let send = async {
            let mut insert = self.client.insert::<T>(table).await?;
            for row in rows {
                insert.write(row).await?;
            }
            insert.end().await
        };
        self.bounded(format!("inserting {} rows into {table}", rows.len()), send).await
    }

    async fn bounded<T>(
        &self,
        action: String,
        call: impl Future<Output = Result<T, clickhouse::error::Error>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(cause)) => Err(StoreError::ClickHouse { action, cause }),
            Err(_) => Err(StoreError::Timeout { action, timeout: self.timeout }),
        }
    }
}
