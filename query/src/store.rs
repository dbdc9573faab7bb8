//! Reads one project's month from ClickHouse.
//!
//! Rows are absolute facts per (key, stream, window), replaced by later ones; merges are never guaranteed, so every
//! read says `FINAL` and then adds up over streams and windows. Counters are added up by ClickHouse, sketches here.

use crate::period::Period;
use crate::report::{BreakdownSum, Cursor, MonthFacts, PageList, PageTotal};
use clickhouse::Row;
use clickhouse::error::Error as ClickHouseError;
use clickhouse::query::Query;
use schemas::ProjectSlug;
use schemas::close::Frontier;
use schemas::sketch::SketchDecodeError;
use schemas::tables::{MonthCloseRow, MonthClosedPageRow, MonthClosedRow, PageDailyRow, SiteHourlyRow};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

mod live;

pub use live::Live;

/// Values listed of one dimension; the others are added up as one.
const BREAKDOWN_VALUES: u32 = 1000;

/// Bytes of paths in one query: ClickHouse parses 256 KiB at most, and escaping can double a path.
const PATHS_BYTES: usize = 64 * 1024;

/// Which pages to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagesRequest {
    /// At most so many, 1 to 1000.
    pub limit: usize,
    /// Only those after this one.
    pub after: Option<Cursor>,
    /// Only those with this HTTP status.
    pub status: Option<u16>,
}

/// Why a month could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Never registered, and no page view was ever counted for it.
    #[error("the project is not known")]
    UnknownProject,
    /// No answer within the time allowed.
    #[error("reading {what}: no answer from ClickHouse within {timeout_ms} ms")]
    Timeout {
        /// What was read.
        what: &'static str,
        /// The time allowed.
        timeout_ms: u64,
    },
    /// ClickHouse refused, or the connection failed.
    #[error("reading {what} from ClickHouse")]
    ClickHouse {
        /// What was read.
        what: &'static str,
        /// Why.
        #[source]
        source: ClickHouseError,
    },
    /// A stored sketch is none.
    #[error("reading {what}: a stored sketch does not decode")]
    Sketch {
        /// What was read.
        what: &'static str,
        /// Why.
        #[source]
        source: SketchDecodeError,
    },
}

impl StoreError {
    /// Whether asking again later may help.
    pub fn is_unavailable(&self) -> bool {
        match self {
            StoreError::Timeout { .. } => true,
            StoreError::ClickHouse { source, .. } => matches!(
                source,
                ClickHouseError::Network(_) | ClickHouseError::TimedOut | ClickHouseError::BadResponse(_)
            ),
            StoreError::UnknownProject | StoreError::Sketch { .. } => false,
        }
    }
}

/// The reader of reports.
#[derive(Clone)]
pub struct ReportStore {
    client: clickhouse::Client,
    timeout: Duration,
}

#[derive(Row, Deserialize)]
struct NamedSum {
    name: String,
    total: u64,
}

impl ReportStore {
    /// Reads with `client`, whose database holds the tables of `schemas`.
    pub fn new(client: clickhouse::Client) -> Self {
        ReportStore { client, timeout: Duration::from_secs(10) }
    }

    /// Allows every question `timeout_ms`.
    #[must_use]
    pub fn with_timeout_ms(mut self, timeout_ms: u64) -> Self {
        self.timeout = Duration::from_millis(timeout_ms);
        self
    }

    /// Everything a report of `project`'s `period` needs.
    pub async fn month(
        &self,
        project: &ProjectSlug,
        period: Period,
        pages: &PagesRequest,
    ) -> Result<MonthFacts, StoreError> {
        self.require_project(project).await?;
        let scope = Scope { project, period, closed: self.closed(period).await? };
        let not_found = PagesRequest { limit: pages.limit, after: None, status: Some(404) };
        // Totals first, since the aggregator writes them last: whatever they count is then there to be listed.
        let mut facts = self.site(&scope).await?;
        let (pages, not_found, breakdowns, rejections) = tokio::try_join!(
            self.page_list(&scope, pages),
            self.page_list(&scope, &not_found),
            self.breakdowns(&scope),
            self.rejections(&scope),
        )?;
        (facts.pages, facts.not_found) = (pages, not_found);
        facts.breakdowns = breakdowns;
        facts.rejections.extend(rejections);
        self.page_visitors(&scope, &mut facts).await?;
        Ok(facts)
    }

    /// Ok if `project` was ever registered, or has figures: those of a project known by its host's pattern only have
    /// no registration, and those of a removed project stay. One that was erased is unknown.
    pub async fn require_project(&self, project: &ProjectSlug) -> Result<(), StoreError> {
        let sql = "SELECT toUInt8(removed = 2) AS gone FROM project FINAL WHERE slug = ? \
                   UNION ALL SELECT toUInt8(0) FROM site_hourly WHERE project = ? LIMIT 1 \
                   UNION ALL SELECT toUInt8(0) FROM month_closed WHERE project = ? LIMIT 1";
        let query = self.client.query(sql).bind(project.as_str()).bind(project.as_str()).bind(project.as_str());
        let found = self.within("the project", query.fetch_all::<u8>()).await?;
        // Rows that came back of an erased project are removed soon.
        if found.is_empty() || found.contains(&1) { Err(StoreError::UnknownProject) } else { Ok(()) }
    }

    /// Who closed the month, if anybody did.
    async fn closed(&self, period: Period) -> Result<Option<MonthCloseRow>, StoreError> {
        let sql = "SELECT ?fields FROM month_close FINAL WHERE month = toDate(?) ORDER BY finished, run LIMIT 1";
        let query = self.client.query(sql).bind(period.first_day().0);
        self.within("whether the month is closed", query.fetch_optional()).await
    }

    async fn site(&self, scope: &Scope<'_>) -> Result<MonthFacts, StoreError> {
        let mut facts = MonthFacts::default();
        if let Some(closed) = &scope.closed {
            let sql = "SELECT ?fields FROM month_closed FINAL WHERE project = ? AND month = toDate(?) AND run = ?";
            let query = self.client.query(sql).bind(scope.project.as_str()).bind(closed.month).bind(closed.run);
            let row = self.within("a closed month", query.fetch_optional::<MonthClosedRow>()).await?;
            facts.close(scope.period.first_hour(), row.as_ref());
        }
        let sql = format!(
            "SELECT ?fields FROM site_hourly FINAL \
             WHERE project = ? AND hour >= toDateTime(?, 'UTC') AND hour < toDateTime(?, 'UTC'){}",
            scope.not_contained()
        );
        let query = self.client.query(&sql).bind(scope.project.as_str());
        let query = query.bind(scope.period.first_hour().unix_seconds()).bind(scope.period.end_hour().unix_seconds());
        self.each("hours", query, |row: SiteHourlyRow| facts.add_site(&row)).await?;
        Ok(facts)
    }

    async fn page_list(&self, scope: &Scope<'_>, request: &PagesRequest) -> Result<PageList, StoreError> {
        let mut sql = format!(
            "SELECT path, status, sum(views) AS total FROM ({})",
            scope.rows("path, status, views", "page_daily", "month_closed_page")
        );
        if request.status.is_some() {
            sql.push_str(" WHERE status = ?");
        }
        sql.push_str(" GROUP BY path, status");
        if request.after.is_some() {
            sql.push_str(" HAVING total < ? OR (total = ? AND (path > ? OR (path = ? AND status > ?)))");
        }
        sql.push_str(" ORDER BY total DESC, path, status LIMIT ?");
        let mut query = self.client.query(&sql);
        if let Some(status) = request.status {
            query = query.bind(status);
        }
        if let Some(Cursor(PageTotal { path, status, total })) = &request.after {
            query = query.bind(*total).bind(*total).bind(path).bind(path).bind(*status);
        }
        let rows = self.within("pages", query.bind(request.limit as u64 + 1).fetch_all::<PageTotal>()).await?;
        Ok(PageList::from_rows(rows, request.limit))
    }

    /// Visitors of the listed paths only: a project may have a hundred thousand others.
    async fn page_visitors(&self, scope: &Scope<'_>, facts: &mut MonthFacts) -> Result<(), StoreError> {
        let listed = facts.pages.items.iter().chain(&facts.not_found.items);
        let paths: BTreeSet<String> = listed.map(|page| page.path.clone()).collect();
        let (mut chunk, mut chunk_bytes, mut chunks) = (Vec::new(), 0, Vec::new());
        for path in &paths {
            if chunk_bytes + path.len() > PATHS_BYTES {
                chunks.push(std::mem::take(&mut chunk));
                chunk_bytes = 0;
            }
            chunk_bytes += path.len();
            chunk.push(path.as_str());
        }
        chunks.push(chunk);
        for chunk in chunks.into_iter().filter(|chunk| !chunk.is_empty()) {
            if let Some(closed) = &scope.closed {
                let sql = "SELECT ?fields FROM month_closed_page FINAL \
                           WHERE project = ? AND month = toDate(?) AND run = ? AND path IN ?";
                let query = self.client.query(sql).bind(scope.project.as_str()).bind(closed.month).bind(closed.run);
                let take = |row: MonthClosedPageRow| {
                    facts.add_closed_page(row);
                    Ok(())
                };
                self.each("visitors of pages", query.bind(chunk), take).await?;
            } else {
                let sql = format!("SELECT ?fields FROM page_daily FINAL {} AND path IN ?", scope.of_period());
                let query = self.client.query(&sql).bind(chunk);
                self.each("visitors of pages", query, |row: PageDailyRow| facts.add_page_sketch(&row)).await?;
            }
        }
        Ok(())
    }

    async fn breakdowns(&self, scope: &Scope<'_>) -> Result<Vec<BreakdownSum>, StoreError> {
        // LowCardinality is stripped because a row's validation knows String only. The dimension's total comes with
        // every value, from one read, so that what is not listed can be told without a second look at moving figures.
        let sql = format!(
            "SELECT name AS dimension, value, total, sum(total) OVER (PARTITION BY name) AS of_dimension \
             FROM (SELECT name, value, sum(views) AS total FROM ({}) GROUP BY name, value) \
             ORDER BY dimension, total DESC, value LIMIT ? BY dimension",
            scope.rows("CAST(dimension AS String) AS name, value, views", "breakdown_daily", "month_closed_breakdown")
        );
        self.within("breakdowns", self.client.query(&sql).bind(BREAKDOWN_VALUES).fetch_all()).await
    }

    async fn rejections(&self, scope: &Scope<'_>) -> Result<Vec<(String, u64)>, StoreError> {
        let sql = format!(
            "SELECT CAST(reason AS String) AS name, sum(beacons) AS total FROM rejection_daily FINAL \
             {} GROUP BY name",
            scope.of_period()
        );
        let rows = self.within("refused beacons", self.client.query(&sql).fetch_all::<NamedSum>()).await?;
        Ok(rows.into_iter().map(|row| (row.name, row.total)).collect())
    }

    /// Hands every row to `take` as it arrives, so that sketches are united and dropped, not collected.
    async fn each<T>(
        &self,
        what: &'static str,
        query: Query,
        mut take: impl FnMut(T) -> Result<(), SketchDecodeError>,
    ) -> Result<(), StoreError>
    where
        T: clickhouse::RowOwned + clickhouse::RowRead,
    {
        let reading = async {
            let mut rows = query.fetch::<T>()?;
            while let Some(row) = rows.next().await? {
                if let Err(source) = take(row) {
                    return Ok(Err(StoreError::Sketch { what, source }));
                }
            }
            Ok(Ok(()))
        };
        self.within(what, reading).await?
    }

    async fn within<T>(
        &self,
        what: &'static str,
        asking: impl Future<Output = Result<T, ClickHouseError>>,
    ) -> Result<T, StoreError> {
        match tokio::time::timeout(self.timeout, asking).await {
            Ok(answer) => answer.map_err(|source| StoreError::ClickHouse { what, source }),
            Err(_) => Err(StoreError::Timeout { what, timeout_ms: self.timeout.as_millis() as u64 }),
        }
    }
}

/// What a report is about. What it writes into a query cannot be anything else: a slug has only letters, digits and hyphens,
/// the others are numbers.
struct Scope<'a> {
    project: &'a ProjectSlug,
    period: Period,
    closed: Option<MonthCloseRow>,
}

impl Scope<'_> {
    /// The rows of the period in a table by day, without those that are in a closed month's figures.
    fn of_period(&self) -> String {
        // toDate of a number below 65,536 takes it as days since the epoch.
        let (first, last) = (self.period.first_day().0, self.period.last_day().0);
        let project = self.project.as_str();
        format!(
            "WHERE project = '{project}' AND day >= toDate({first}) AND day <= toDate({last}){}",
            self.not_contained()
        )
    }

    fn not_contained(&self) -> String {
        match &self.closed {
            Some(closed) => format!(" AND NOT {}", Frontier::of(closed).condition()),
            None => String::new(),
        }
    }

    /// Columns of a table by day, and of its closed counterpart.
    fn rows(&self, columns: &str, daily: &str, closed: &str) -> String {
        let mut sql = format!("SELECT {columns} FROM {daily} FINAL {}", self.of_period());
        if let Some(MonthCloseRow { month, run, .. }) = &self.closed {
            let project = self.project.as_str();
            sql.push_str(&format!(
                " UNION ALL SELECT {columns} FROM {closed} FINAL \
                 WHERE project = '{project}' AND month = toDate({month}) AND run = {run}"
            ));
        }
        sql
    }
}
