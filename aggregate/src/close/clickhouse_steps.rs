//! The steps of a close in ClickHouse.

use super::close_error::{CloseError, failed};
use super::close_store::{CloseStore, MonthParts, Run, Written};
use super::closer::Closer;
use super::month_tables::{SUMS, TABLES, first_day, month_of};
use clickhouse::Row;
use schemas::Month;
use schemas::close::Frontier;
use schemas::tables::MonthCloseRow;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Longest execution of a run's last insert in ClickHouse, in seconds. ClickHouse sets the row's time when the insert starts. Less than
/// [`schemas::close::SETTLE`], after which a run assumes that no other has finished before it.
const LAST_INSERT_SECONDS: &str = "5";

#[derive(Row, Deserialize)]
struct StreamWindow {
    stream: u64,
    window_start: u64,
}

#[derive(Row, Deserialize)]
struct RecordedEnds {
    streams: Vec<u64>,
    ends: Vec<u64>,
}

impl CloseStore for Closer {
    async fn months_with_parts(&self) -> Result<Vec<MonthParts>, CloseError> {
        let sql = "SELECT toUInt32(partition) AS month, max(active AND rows > 0) AS has_rows FROM system.parts \
                   WHERE database = currentDatabase() AND table IN {tables:Array(String)} GROUP BY month ORDER BY month";
        let months = self.client.query(sql).param("tables", &TABLES[..]).fetch_all::<(u32, u8)>().await;
        let months = months.map_err(failed("reading which months have rows"))?.into_iter();
        let parts = |(month, has_rows)| Some(MonthParts { month: month_of(month)?, has_rows: has_rows == 1 });
        Ok(months.filter_map(parts).collect())
    }

    async fn winner(&self, month: Month) -> Result<Option<MonthCloseRow>, CloseError> {
        let sql =
            "SELECT ?fields FROM month_close FINAL WHERE month = toDate({month:UInt16}) ORDER BY finished, run LIMIT 1";
        let query = self.client.query(sql).param("month", first_day(month));
        query.fetch_optional().await.map_err(failed("reading which run closed a month"))
    }

    async fn now_micros(&self) -> Result<i64, CloseError> {
        let now = self.client.query("SELECT toUnixTimestamp64Micro(now64(6, 'UTC'))").fetch_one::<i64>().await;
        now.map_err(failed("reading ClickHouse's clock"))
    }

    async fn open_windows(&self) -> Result<Frontier, CloseError> {
        let sql = "SELECT stream, max(ledger.window_start) AS window_start FROM ledger GROUP BY stream";
        let rows = self.client.query(sql).fetch_all::<StreamWindow>().await.map_err(failed("reading the ledger"))?;
        Ok(Frontier(rows.into_iter().map(|row| (row.stream, row.window_start)).collect()))
    }

    async fn write_figures(&self, run: &Run) -> Result<Written, CloseError> {
        let &Run { month, number, ref frontier } = run;
        let (projects, views) = self.write_sites(month, number, frontier).await?;
        self.write_pages(month, number, frontier).await?;
        for sums in SUMS {
            self.write_sums(month, number, frontier, sums).await?;
        }
        Ok(Written { projects, views })
    }

    async fn finish(&self, run: &Run, Written { projects, views }: Written) -> Result<(), CloseError> {
        let (streams, windows): (Vec<u64>, Vec<u64>) = run.frontier.0.iter().unzip();
        let sql = "INSERT INTO month_close (month, run, finished, streams, windows, projects, views) \
                   SELECT toDate({month:UInt16}), {run:UInt64}, now64(6, 'UTC'), {streams:Array(UInt64)}, \
                   {windows:Array(UInt64)}, {projects:UInt64}, {views:UInt64}";
        let client = self.client.clone().with_setting("max_execution_time", LAST_INSERT_SECONDS);
        let query = client.query(sql).param("month", first_day(run.month)).param("run", run.number);
        let query = query.param("streams", streams).param("windows", windows);
        let query = query.param("projects", projects).param("views", views);
        query.execute().await.map_err(failed("finishing the close of a month"))
    }

    async fn sweep(&self, month: Month, winner: &MonthCloseRow) -> Result<(), CloseError> {
        self.remove_rows(month, winner).await?;
        self.remove_old_parts(month).await?;
        self.remove_estimates(month).await?;
        self.remove_other_figures(month, winner).await
    }

    async fn recorded_ends(&self, month: Month) -> Result<Option<BTreeMap<u64, u64>>, CloseError> {
        let sql = "SELECT ?fields FROM month_due WHERE month = toDate({month:UInt16}) ORDER BY noted DESC LIMIT 1";
        let row = self.client.query(sql).param("month", first_day(month)).fetch_optional::<RecordedEnds>().await;
        let row = row.map_err(failed("reading which records the close of a month waits for"))?;
        Ok(row.map(|row| row.streams.into_iter().zip(row.ends).collect()))
    }

    async fn record_ends(&self, month: Month, ends: &BTreeMap<u64, u64>) -> Result<(), CloseError> {
        let (streams, ends): (Vec<u64>, Vec<u64>) = ends.iter().unzip();
        let sql = "INSERT INTO month_due (month, streams, ends) \
                   SELECT toDate({month:UInt16}), {streams:Array(UInt64)}, {ends:Array(UInt64)}";
        let query =
            self.client.query(sql).param("streams", streams).param("ends", ends).param("month", first_day(month));
        query.execute().await.map_err(failed("recording which records the close of a month waits for"))
    }

    async fn counted(&self) -> Result<BTreeMap<u64, u64>, CloseError> {
        let sql = "SELECT stream, max(ledger.next_offset) AS counted FROM ledger GROUP BY stream";
        let rows = self.client.query(sql).fetch_all::<(u64, u64)>().await.map_err(failed("reading the ledger"))?;
        Ok(rows.into_iter().collect())
    }
}
