//! Removes the rows of closed months.

use super::close_error::{CloseError, failed};
use super::closer::Closer;
use super::month_tables::{FIGURES, SKETCHED, TABLES, first_day, partition};
use schemas::Month;
use schemas::close::Frontier;
use schemas::tables::MonthCloseRow;

const REMOVING: &str = "removing rows of a closed month";

impl Closer {
    /// Removes the rows that the figures contain, and the sketches of all others.
    pub(super) async fn remove_rows(&self, month: Month, winner: &MonthCloseRow) -> Result<(), CloseError> {
        let (partition, contained) = (partition(month), storage::contained(&Frontier::of(winner)));
        for table in TABLES {
            let time = if table == "site_hourly" { "hour" } else { "day" };
            if self.any(&format!("{table} WHERE toYYYYMM({time}) = {partition} AND {contained}")).await? {
                let sql = format!("ALTER TABLE {table} DELETE IN PARTITION {partition} WHERE {contained}");
                self.client.query(&sql).execute().await.map_err(failed(REMOVING))?;
            }
            if SKETCHED.contains(&table)
                && self.any(&format!("{table} WHERE toYYYYMM({time}) = {partition} AND sketch != ''")).await?
            {
                let sql = format!("ALTER TABLE {table} UPDATE sketch = '' IN PARTITION {partition} WHERE sketch != ''");
                self.client.query(&sql).execute().await.map_err(failed(REMOVING))?;
            }
        }
        Ok(())
    }

    /// Makes ClickHouse delete the parts that had these sketches. Replaced parts stay on disk for `old_parts_lifetime` (eight minutes), and
    /// in an idle table until ClickHouse checks for them. Dropping a partition triggers that check; no partition has this name.
    pub(super) async fn remove_old_parts(&self, month: Month) -> Result<(), CloseError> {
        for table in SKETCHED {
            let sql = "SELECT toUInt8(1) FROM system.parts WHERE database = currentDatabase() AND table = {table:String} AND partition = {partition:String} \
                       AND NOT active LIMIT 1";
            let old = self
                .client
                .query(sql)
                .param("table", table)
                .param("partition", partition(month).to_string())
                .fetch_optional::<u8>()
                .await;
            if old.map_err(failed(REMOVING))?.is_some() {
                let sql = format!("ALTER TABLE {table} DROP PARTITION 0");
                self.client.query(&sql).execute().await.map_err(failed(REMOVING))?;
            }
        }
        Ok(())
    }

    /// Removes the visitor estimates for SQL: a closed month's visitors are in its figures.
    pub(super) async fn remove_estimates(&self, month: Month) -> Result<(), CloseError> {
        let partition = partition(month);
        for (table, column) in [("finished_day", "day"), ("finished_month", "month")] {
            if self.any(&format!("{table} WHERE toYYYYMM({column}) = {partition}")).await? {
                let sql = format!("ALTER TABLE {table} DROP PARTITION {partition}");
                self.client.query(&sql).execute().await.map_err(failed(REMOVING))?;
            }
        }
        Ok(())
    }

    /// Removes the figures of other runs.
    pub(super) async fn remove_other_figures(&self, month: Month, winner: &MonthCloseRow) -> Result<(), CloseError> {
        let (month, run) = (first_day(month), winner.run);
        for table in FIGURES {
            let others = format!("month = toDate({month}) AND run != {run}");
            // A run that has not finished may still be running; an hour later it cannot be.
            let old = format!(
                "(SELECT max(finished) < now64(6, 'UTC') - INTERVAL 1 HOUR FROM month_close WHERE run = {run})"
            );
            if self.any(&format!("{table} WHERE {others} AND {old}")).await? {
                let sql = format!("ALTER TABLE {table} DELETE WHERE {others}");
                self.client.query(&sql).execute().await.map_err(failed(REMOVING))?;
            }
        }
        Ok(())
    }
}
