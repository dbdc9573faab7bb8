//! Writes the figures of a run by project, and those that ClickHouse adds up by itself.

use super::close_error::{CloseError, failed};
use super::closer::Closer;
use super::month_tables::{first_day, partition};
use super::site_month::{Refused, SiteMonth};
use clickhouse::Row;
use schemas::Month;
use schemas::close::Frontier;
use schemas::tables::SiteHourlyRow;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Rows of one insert.
pub(super) const BATCH: usize = 5_000;

#[derive(Row, Deserialize)]
struct ReasonSum {
    project: String,
    reason: String,
    host: String,
    total: u64,
}

/// Views by robots of one project.
#[derive(Row, Deserialize)]
struct RobotDays {
    project: String,
    /// (days since the epoch, views).
    days: Vec<(u16, u64)>,
}

impl Closer {
    /// `month_closed`. Returns projects and views.
    pub(super) async fn write_sites(
        &self,
        month: Month,
        run: u64,
        frontier: &Frontier,
    ) -> Result<(u64, u64), CloseError> {
        const READING: &str = "reading a month's hours";
        let mut refused = self.rejections(month, frontier).await?;
        let mut robots = self.robots(month, frontier).await?;
        let sql = "SELECT ?fields FROM site_hourly FINAL WHERE toYYYYMM(hour) = {partition:UInt32} ORDER BY project";
        let mut rows = self
            .client
            .query(sql)
            .param("partition", partition(month))
            .fetch::<SiteHourlyRow>()
            .map_err(failed(READING))?;
        let (mut of_project, mut ready) = (None::<SiteMonth>, Vec::new());
        let (mut projects, mut views) = (0, 0);
        loop {
            let row = rows.next().await.map_err(failed(READING))?;
            let is_complete =
                of_project.as_ref().is_some_and(|held| row.as_ref().is_none_or(|row| row.project != held.project));
            if is_complete && let Some(held) = of_project.take() {
                let rejected = refused.remove(&held.project).unwrap_or_default();
                let by_robots = robots.remove(&held.project).unwrap_or_default();
                let row = held.row((month, run), rejected, &by_robots);
                projects += 1;
                views += row.hour_views.iter().sum::<u64>();
                ready.push(row);
            }
            if ready.len() >= BATCH || (row.is_none() && !ready.is_empty()) {
                self.insert("month_closed", &ready).await?;
                ready.clear();
            }
            let Some(row) = row else { break };
            let held = of_project.get_or_insert_with(|| SiteMonth::new(row.project.clone(), month));
            held.add(&row, frontier.contains(row.stream, row.window_start))?;
        }
        // Projects with refused beacons only.
        for (project, rejected) in refused {
            ready.push(SiteMonth::new(project, month).row((month, run), rejected, &[]));
        }
        self.insert("month_closed", &ready).await?;
        Ok((projects, views))
    }

    async fn rejections(&self, month: Month, frontier: &Frontier) -> Result<BTreeMap<String, Refused>, CloseError> {
        let sql = format!(
            "SELECT project, CAST(reason AS String) AS reason, host, sum(beacons) AS total FROM rejection_daily FINAL \
             WHERE toYYYYMM(day) = {{partition:UInt32}} AND {} GROUP BY project, reason, host HAVING total > 0",
            storage::contained(frontier)
        );
        let rows = self.client.query(&sql).param("partition", partition(month)).fetch_all::<ReasonSum>().await;
        let mut refused: BTreeMap<String, Refused> = BTreeMap::new();
        for row in rows.map_err(failed("reading a month's refusals"))? {
            refused.entry(row.project).or_default().insert((row.reason, row.host), row.total);
        }
        Ok(refused)
    }

    /// Views by robots, by project: (day, views).
    async fn robots(&self, month: Month, frontier: &Frontier) -> Result<BTreeMap<String, Vec<(u16, u64)>>, CloseError> {
        let sql = format!(
            "SELECT project, groupArray((toUInt16(day), total)) AS days FROM (\
             SELECT project, day, sum(views) AS total FROM robot_daily FINAL \
             WHERE toYYYYMM(day) = {{partition:UInt32}} AND {} GROUP BY project, day) GROUP BY project",
            storage::contained(frontier)
        );
        let rows = self.client.query(&sql).param("partition", partition(month)).fetch_all::<RobotDays>().await;
        let rows = rows.map_err(failed("reading a month's views by robots"))?;
        Ok(rows.into_iter().map(|row| (row.project, row.days)).collect())
    }

    /// Writes one of [`SUMS`]: the sum of `counter` by project and `columns`.
    pub(super) async fn write_sums(
        &self,
        month: Month,
        run: u64,
        frontier: &Frontier,
        [from, into, columns, counter]: [&str; 4],
    ) -> Result<(), CloseError> {
        let sql = format!(
            "INSERT INTO {into} (project, month, run, {columns}, {counter}) \
             SELECT project, toDate({{month:UInt16}}), {{run:UInt64}}, {columns}, sum({counter}) FROM {from} \
             WHERE toYYYYMM(day) = {{partition:UInt32}} AND {} GROUP BY project, {columns} HAVING sum({counter}) > 0 \
             SETTINGS optimize_aggregation_in_order = 1",
            storage::contained(frontier)
        );
        let query = self
            .client
            .query(&sql)
            .param("month", first_day(month))
            .param("run", run)
            .param("partition", partition(month));
        query.execute().await.map_err(failed("writing a month's breakdowns, referrers and robots"))
    }
}
