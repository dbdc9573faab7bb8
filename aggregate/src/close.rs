//! The close of a month: figures stay, sketches are removed.
//!
//! A process that closes a month is a *run* with a random number. It
//! 1. records the open window of each stream: all windows below have ended, so their rows are final;
//! 2. adds up the rows of the ended windows, and estimates visitors from all existing sketches;
//! 3. writes the results to `month_closed…` under its number, and finally a row of `month_close`;
//! 4. waits, and reads which run finished first: only the figures of that run count;
//! 5. removes the rows that the figures contain from the tables of open months, and the sketches of all other rows.
//!
//! A run that dies during step 3 leaves rows that no query reads; the next run starts from step 1. Concurrent runs on any machines write
//! the same numbers, and only one counts.
//!
//! Nothing is removed before the first run has certainly finished. A run that read while rows were being removed therefore finished later,
//! and does not count. Rows can come back: an aggregator folds a window again, or an insert of a dead process arrives late. They are
//! recognised by their window, excluded from reports, and removed by the next sweep.

use chrono::{DateTime, Utc};
use clickhouse::{Client, Row, RowOwned, RowWrite};
use schemas::classes::Source;
use schemas::close::{Frontier, SETTLE};
use schemas::sketch::SketchDecodeError;
use schemas::tables::{MonthCloseRow, MonthClosedPageRow, MonthClosedRow, PageDailyRow, SiteHourlyRow};
use schemas::{Hour, Month, VisitorSketch};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Duration;
use storage::{CallError, Work};

/// Tables whose rows belong to windows.
const TABLES: [&str; 7] = [
    "site_hourly",
    "page_daily",
    "breakdown_daily",
    "not_found_daily",
    "rejection_daily",
    "robot_daily",
    "robot_page_daily",
];
/// Tables with the figures of runs.
pub(crate) const FIGURES: [&str; 6] = [
    "month_closed",
    "month_closed_page",
    "month_closed_breakdown",
    "month_closed_not_found",
    "month_closed_robot",
    "month_closed_robot_page",
];
/// Tables whose figures ClickHouse adds up by itself: source, target, and the columns of the key besides project and month.
const SUMS: [[&str; 3]; 4] = [
    ["breakdown_daily", "month_closed_breakdown", "dimension, value"],
    ["not_found_daily", "month_closed_not_found", "path, referrer"],
    ["robot_daily", "month_closed_robot", "kind, name"],
    ["robot_page_daily", "month_closed_robot_page", "path, robot_group"],
];
/// The tables of `TABLES` with sketches.
const SKETCHED: [&str; 2] = ["site_hourly", "page_daily"];
/// Longest execution of a run's last insert in ClickHouse, in seconds. ClickHouse sets the row's time when the insert starts. Less than
/// [`SETTLE`], after which a run assumes that no other has finished before it.
const LAST_WORD: &str = "5";
/// Rows of one insert.
const BATCH: usize = 5_000;
/// Most rows of pages in one query, unless a single project has more.
const PAGE_ROWS: u64 = 300_000;

/// Refused beacons of a project, by reason and host.
type Refused = BTreeMap<(String, String), u64>;

/// Why closing a month failed.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// ClickHouse refused or went away.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A stored sketch is invalid.
    #[error("a stored sketch of {project} does not decode: {cause}")]
    Sketch {
        /// The project of the sketch.
        project: String,
        /// Why it does not decode.
        cause: SketchDecodeError,
    },
    /// The operating system gave no randomness.
    #[error("the operating system gave no random bytes: {0}")]
    Random(getrandom::Error),
}

/// Result of a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// The month.
    pub month: Month,
    /// Number of projects with figures.
    pub projects: u64,
    /// Views in these figures.
    pub views: u64,
    /// Whether the figures of this run count, or those of another run that finished earlier.
    pub ours: bool,
}

/// Closes months.
#[derive(Clone)]
pub struct Closer {
    pub(crate) client: Client,
}

#[derive(Row, Deserialize)]
struct StreamWindow {
    stream: u64,
    window_start: u64,
}

/// A month that has parts in the tables of open months.
#[derive(Row, Deserialize)]
struct MonthParts {
    /// Name of the partition.
    month: u32,
    /// 1 if a part that is in use has rows.
    has_rows: u8,
}

#[derive(Row, Deserialize)]
struct ProjectRows {
    project: String,
    rows: u64,
}

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

pub(crate) fn failed(action: &'static str) -> impl FnOnce(clickhouse::error::Error) -> CloseError {
    move |cause| CallError::ClickHouse { action: action.into(), cause }.into()
}

pub(crate) fn first_day(month: Month) -> u16 {
    month.first_hour().day().0
}

/// The name of a month's partition in ClickHouse.
fn partition(month: Month) -> u32 {
    u32::from(month.year()) * 100 + u32::from(month.number())
}

fn month_of(partition: u32) -> Option<Month> {
    Month::new(u16::try_from(partition / 100).ok()?, u8::try_from(partition % 100).ok()?).ok()
}

impl Closer {
    /// `client` has URL, database and credentials.
    pub fn new(client: Client) -> Self {
        Closer { client: Work::Maintenance.client(client) }
    }

    /// Months that ended `after` before `now` or earlier and are not closed yet. Closed months are swept. Months without rows need no
    /// close.
    ///
    /// # Errors
    /// ClickHouse refused or went away.
    pub async fn due(&self, now: DateTime<Utc>, after: Duration) -> Result<Vec<Month>, CloseError> {
        let mut due = Vec::new();
        for MonthParts { month, has_rows } in self.months_with_parts().await? {
            let Some(month) = month_of(month).filter(|month| is_due(*month, now, after)) else { continue };
            match self.settled(month).await? {
                Some(winner) => self.sweep(month, &winner).await?,
                // Rows that were removed leave parts for some minutes. A close of them would count nothing, for good.
                None if has_rows == 0 => {}
                None => due.push(month),
            }
        }
        Ok(due)
    }

    /// Whether the month is closed already.
    ///
    /// # Errors
    /// ClickHouse refused or went away.
    pub async fn is_closed(&self, month: Month) -> Result<bool, CloseError> {
        Ok(self.winner(month).await?.is_some())
    }

    /// The run that closed the month, if there is one. Returns once the result is certain, and reads that started without knowing of the
    /// close have finished.
    async fn settled(&self, month: Month) -> Result<Option<MonthCloseRow>, CloseError> {
        let Some(winner) = self.winner(month).await? else { return Ok(None) };
        let now = self.client.query("SELECT toUnixTimestamp64Micro(now64(6, 'UTC'))").fetch_one::<i64>().await;
        let now = now.map_err(failed("reading ClickHouse's clock"))?;
        let since = Duration::from_micros(u64::try_from(now - winner.finished).unwrap_or(0));
        let left = SETTLE.saturating_sub(since);
        if left.is_zero() {
            return Ok(Some(winner));
        }
        tokio::time::sleep(left).await;
        self.winner(month).await
    }

    /// Closes a month that has ended; the caller has verified that. If it is closed already, only sweeps.
    pub async fn close(&self, month: Month) -> Result<Closed, CloseError> {
        if let Some(winner) = self.settled(month).await? {
            self.sweep(month, &winner).await?;
            return Ok(Closed { month, projects: winner.projects, views: winner.views, ours: false });
        }
        let mut run = [0; 8];
        getrandom::fill(&mut run).map_err(CloseError::Random)?;
        let run = u64::from_le_bytes(run);
        let frontier = self.open_windows().await?;
        let (projects, views) = self.write_sites(month, run, &frontier).await?;
        self.write_pages(month, run, &frontier).await?;
        for sums in SUMS {
            self.write_sums(month, run, &frontier, sums).await?;
        }
        self.finish(month, run, &frontier, projects, views).await?;
        tokio::time::sleep(SETTLE).await;
        let Some(winner) = self.winner(month).await? else {
            // The retention period ended before the close: ClickHouse's retention removes the figures and the rows behind them.
            return Ok(Closed { month, projects, views, ours: true });
        };
        self.sweep(month, &winner).await?;
        Ok(Closed { month, projects: winner.projects, views: winner.views, ours: winner.run == run })
    }

    /// The run whose figures count.
    pub(crate) async fn winner(&self, month: Month) -> Result<Option<MonthCloseRow>, CloseError> {
        let sql =
            "SELECT ?fields FROM month_close FINAL WHERE month = toDate({month:UInt16}) ORDER BY finished, run LIMIT 1";
        self.client
            .query(sql)
            .param("month", first_day(month))
            .fetch_optional()
            .await
            .map_err(failed("asking who closed a month"))
    }

    async fn months_with_parts(&self) -> Result<Vec<MonthParts>, CloseError> {
        let sql = "SELECT toUInt32(partition) AS month, toUInt8(max(active AND rows > 0)) AS has_rows FROM system.parts \
                   WHERE database = currentDatabase() AND table IN {tables:Array(String)} GROUP BY month ORDER BY month";
        let months = self.client.query(sql).param("tables", &TABLES[..]).fetch_all::<MonthParts>().await;
        months.map_err(failed("asking for months with figures"))
    }

    async fn open_windows(&self) -> Result<Frontier, CloseError> {
        let sql = "SELECT stream, max(ledger.window_start) AS window_start FROM ledger GROUP BY stream";
        let rows = self.client.query(sql).fetch_all::<StreamWindow>().await.map_err(failed("reading the ledger"))?;
        Ok(Frontier(rows.into_iter().map(|row| (row.stream, row.window_start)).collect()))
    }

    /// `month_closed`. Returns projects and views.
    async fn write_sites(&self, month: Month, run: u64, frontier: &Frontier) -> Result<(u64, u64), CloseError> {
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
            let ended =
                of_project.as_ref().is_some_and(|held| row.as_ref().is_none_or(|row| row.project != held.project));
            if ended && let Some(held) = of_project.take() {
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

    /// Writes `month_closed_page`, a few projects at a time: sorting a month's pages as a whole would take all memory.
    async fn write_pages(&self, month: Month, run: u64, frontier: &Frontier) -> Result<(), CloseError> {
        const READING: &str = "reading a month's pages";
        let sql = "SELECT project, count() AS rows FROM page_daily WHERE toYYYYMM(day) = {partition:UInt32} GROUP BY project ORDER BY project";
        let sizes = self
            .client
            .query(sql)
            .param("partition", partition(month))
            .fetch_all::<ProjectRows>()
            .await
            .map_err(failed(READING))?;
        for chunk in chunks(&sizes) {
            let [first, .., last] = chunk else {
                let [only] = chunk else { continue };
                self.write_pages_of(month, run, frontier, (&only.project, &only.project)).await?;
                continue;
            };
            self.write_pages_of(month, run, frontier, (&first.project, &last.project)).await?;
        }
        Ok(())
    }

    async fn write_pages_of(
        &self,
        month: Month,
        run: u64,
        frontier: &Frontier,
        (first, last): (&str, &str),
    ) -> Result<(), CloseError> {
        const READING: &str = "reading a month's pages";
        let sql = "SELECT ?fields FROM page_daily FINAL WHERE project >= {first:String} AND project <= {last:String} AND toYYYYMM(day) = {partition:UInt32} \
                   ORDER BY project, path, status";
        let query =
            self.client.query(sql).param("first", first).param("last", last).param("partition", partition(month));
        let mut rows = query.fetch::<PageDailyRow>().map_err(failed(READING))?;
        let (mut of_page, mut ready) = (None::<(MonthClosedPageRow, VisitorSketch)>, Vec::new());
        loop {
            let row = rows.next().await.map_err(failed(READING))?;
            let other = |held: &MonthClosedPageRow, row: &PageDailyRow| {
                (&held.project, &held.path, held.status) != (&row.project, &row.path, row.status)
            };
            let ended = of_page.as_ref().is_some_and(|(held, _)| row.as_ref().is_none_or(|row| other(held, row)));
            if ended && let Some((mut page, sketch)) = of_page.take() {
                (page.visitors, page.visitors_error) = estimate(&sketch);
                ready.push(page);
            }
            if ready.len() >= BATCH || (row.is_none() && !ready.is_empty()) {
                self.insert("month_closed_page", &ready).await?;
                ready.clear();
            }
            let Some(row) = row else { return Ok(()) };
            let (page, sketch) = of_page.get_or_insert_with(|| {
                let (project, path, status) = (row.project.clone(), row.path.clone(), row.status);
                let days = (month.end_hour().0 - month.first_hour().0) as usize / 24;
                let month = first_day(month);
                let page = MonthClosedPageRow {
                    project,
                    month,
                    run,
                    path,
                    status,
                    views: 0,
                    visitors: 0,
                    visitors_error: 0.0,
                    day_views: vec![0; days],
                };
                (page, VisitorSketch::new())
            });
            if frontier.contains(row.stream, row.window_start) {
                page.views += row.views;
                page.day_views[usize::from(row.day - page.month)] += row.views;
            }
            merge(sketch, &row.sketch, &row.project)?;
        }
    }

    /// Writes one of [`SUMS`]: views by project and `columns`.
    async fn write_sums(
        &self,
        month: Month,
        run: u64,
        frontier: &Frontier,
        [from, into, columns]: [&str; 3],
    ) -> Result<(), CloseError> {
        let sql = format!(
            "INSERT INTO {into} (project, month, run, {columns}, views) \
             SELECT project, toDate({{month:UInt16}}), {{run:UInt64}}, {columns}, sum(views) FROM {from} FINAL \
             WHERE toYYYYMM(day) = {{partition:UInt32}} AND {} GROUP BY project, {columns} HAVING sum(views) > 0 \
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

    /// Writes the run's row of `month_close`, which finishes the run.
    async fn finish(
        &self,
        month: Month,
        run: u64,
        frontier: &Frontier,
        projects: u64,
        views: u64,
    ) -> Result<(), CloseError> {
        let (streams, windows): (Vec<u64>, Vec<u64>) = frontier.0.iter().unzip();
        let sql = "INSERT INTO month_close (month, run, finished, streams, windows, projects, views) \
                   SELECT toDate({month:UInt16}), {run:UInt64}, now64(6, 'UTC'), {streams:Array(UInt64)}, \
                   {windows:Array(UInt64)}, {projects:UInt64}, {views:UInt64}";
        let client = self.client.clone().with_setting("max_execution_time", LAST_WORD);
        let query = client.query(sql).param("month", first_day(month)).param("run", run);
        let query = query.param("streams", streams).param("windows", windows);
        let query = query.param("projects", projects).param("views", views);
        query.execute().await.map_err(failed("ending the close of a month"))
    }

    /// Removes the rows that the figures contain, the sketches of all others, and the figures of other runs. Does nothing if none of these
    /// is left.
    async fn sweep(&self, month: Month, winner: &MonthCloseRow) -> Result<(), CloseError> {
        const REMOVING: &str = "removing what a closed month no longer needs";
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
        // Replaced parts stay on disk for `old_parts_lifetime` (eight minutes), and in an idle table until ClickHouse checks for them.
        // Dropping a partition triggers that check; no partition has this name.
        for table in SKETCHED {
            let sql = "SELECT toUInt8(1) FROM system.parts WHERE database = currentDatabase() AND table = {table:String} AND partition = {partition:String} \
                       AND NOT active LIMIT 1";
            let old = self
                .client
                .query(sql)
                .param("table", table)
                .param("partition", partition.to_string())
                .fetch_optional::<u8>()
                .await;
            if old.map_err(failed(REMOVING))?.is_some() {
                let sql = format!("ALTER TABLE {table} DROP PARTITION 0");
                self.client.query(&sql).execute().await.map_err(failed(REMOVING))?;
            }
        }
        // A closed month's visitors are in its figures.
        for (table, column) in [("finished_day", "day"), ("finished_month", "month")] {
            if self.any(&format!("{table} WHERE toYYYYMM({column}) = {partition}")).await? {
                let sql = format!("ALTER TABLE {table} DROP PARTITION {partition}");
                self.client.query(&sql).execute().await.map_err(failed(REMOVING))?;
            }
        }
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

    async fn any(&self, from: &str) -> Result<bool, CloseError> {
        let query = self.client.query(&format!("SELECT 1 FROM {from} LIMIT 1"));
        let found = query.fetch_optional::<u8>().await.map_err(failed("looking for what is left of a closed month"))?;
        Ok(found.is_some())
    }

    async fn insert<T>(&self, table: &str, rows: &[T]) -> Result<(), CloseError>
    where
        T: RowOwned + RowWrite + for<'a> Row<Value<'a> = T>,
    {
        storage::insert(&self.client, table, rows).await.map_err(failed("writing a month's figures"))
    }
}

/// Whether a month ended `after` before `now`, or earlier.
pub fn is_due(month: Month, now: DateTime<Utc>, after: Duration) -> bool {
    month.end_hour().start() + after <= now
}

/// Groups of projects whose pages are read together.
fn chunks(sizes: &[ProjectRows]) -> impl Iterator<Item = &[ProjectRows]> {
    let mut rest = sizes;
    std::iter::from_fn(move || {
        let mut rows = 0;
        let fits = |size: &&ProjectRows| {
            rows += size.rows;
            rows <= PAGE_ROWS
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (chunk, others) = rest.split_at(count);
        rest = others;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// The estimate as in a report: a whole number, and its error to 4 decimals.
pub(crate) fn estimate(sketch: &VisitorSketch) -> (u64, f64) {
    let estimate = sketch.estimate();
    (estimate.value.round() as u64, (estimate.error * 1e4).round() / 1e4)
}

pub(crate) fn merge(sketch: &mut VisitorSketch, encoded: &[u8], project: &str) -> Result<(), CloseError> {
    if encoded.is_empty() {
        // Another run has closed the month meanwhile, and its figures count.
        return Ok(());
    }
    sketch.merge_encoded(encoded).map_err(|source| CloseError::Sketch { project: project.to_owned(), cause: source })
}

/// The hours of one project's month while they are added up.
struct SiteMonth {
    project: String,
    first: Hour,
    figures: MonthClosedRow,
    of_days: Vec<VisitorSketch>,
    of_sources: BTreeMap<Source, u64>,
}

impl SiteMonth {
    fn new(project: String, month: Month) -> Self {
        let hours = (month.end_hour().0 - month.first_hour().0) as usize;
        let figures = MonthClosedRow {
            hour_views: vec![0; hours],
            hour_visits: vec![0; hours],
            day_bots: vec![0; hours / 24],
            ..MonthClosedRow::default()
        };
        let of_days = vec![VisitorSketch::new(); hours / 24];
        SiteMonth { project, first: month.first_hour(), figures, of_days, of_sources: BTreeMap::new() }
    }

    fn add(&mut self, row: &SiteHourlyRow, ended: bool) -> Result<(), CloseError> {
        let hour = (Hour::from_unix_seconds(row.hour).0 - self.first.0) as usize;
        merge(&mut self.of_days[hour / 24], &row.sketch, &row.project)?;
        let figures = &mut self.figures;
        if !ended {
            figures.open_views += row.views;
            return Ok(());
        }
        figures.hour_views[hour] += row.views;
        *self.of_sources.entry(row.source).or_default() += row.views;
        figures.hour_visits[hour] += row.visits;
        Ok(())
    }

    fn row(mut self, (month, run): (Month, u64), rejected: Refused, robots: &[(u16, u64)]) -> MonthClosedRow {
        for &(day, views) in robots {
            self.figures.day_bots[usize::from(day - first_day(month))] = views;
        }
        let mut of_month = VisitorSketch::new();
        self.of_days.iter().for_each(|day| of_month.merge(day));
        (self.figures.visitors, self.figures.visitors_error) = estimate(&of_month);
        (self.figures.day_visitors, self.figures.day_errors) = self.of_days.iter().map(estimate).unzip();
        for (source, views) in self.of_sources.into_iter().filter(|(_, views)| *views > 0) {
            self.figures.source_names.push(source.name().to_owned());
            self.figures.source_views.push(views);
        }
        for ((reason, host), beacons) in rejected {
            self.figures.rejected_reasons.push(reason);
            self.figures.rejected_hosts.push(host);
            self.figures.rejected_beacons.push(beacons);
        }
        MonthClosedRow { project: self.project, month: first_day(month), run, ..self.figures }
    }
}
