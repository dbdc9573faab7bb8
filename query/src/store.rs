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
use schemas::sketch::SketchDecodeError;
use schemas::tables::{PageDailyRow, SiteHourlyRow};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

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
        let not_found = PagesRequest { limit: pages.limit, after: None, status: Some(404) };
        // Totals first, since the aggregator writes them last: whatever they count is then there to be listed.
        let mut facts = self.site(project, period).await?;
        let (pages, not_found, breakdowns, rejections) = tokio::try_join!(
            self.page_list(project, period, pages),
            self.page_list(project, period, &not_found),
            self.breakdowns(project, period),
            self.rejections(project, period),
        )?;
        (facts.pages, facts.not_found) = (pages, not_found);
        (facts.breakdowns, facts.rejections) = (breakdowns, rejections);
        self.page_sketches(project, period, &mut facts).await?;
        Ok(facts)
    }

    /// Ok if `project` was ever registered, or has figures: those of a project known by its host's pattern only have
    /// no registration, and those of a removed project stay.
    pub async fn require_project(&self, project: &ProjectSlug) -> Result<(), StoreError> {
        let sql = "SELECT 1 FROM project WHERE slug = ? LIMIT 1 \
                   UNION ALL SELECT 1 FROM site_hourly WHERE project = ? LIMIT 1";
        let query = self.client.query(sql).bind(project.as_str()).bind(project.as_str());
        match self.within("the project", query.fetch_optional::<u8>()).await? {
            Some(_) => Ok(()),
            None => Err(StoreError::UnknownProject),
        }
    }

    async fn site(&self, project: &ProjectSlug, period: Period) -> Result<MonthFacts, StoreError> {
        let sql = "SELECT ?fields FROM site_hourly FINAL \
                   WHERE project = ? AND hour >= toDateTime(?, 'UTC') AND hour < toDateTime(?, 'UTC')";
        let query = self.client.query(sql).bind(project.as_str());
        let query = query.bind(period.first_hour().unix_seconds()).bind(period.end_hour().unix_seconds());
        let mut facts = MonthFacts::default();
        self.each("hours", query, |row: SiteHourlyRow| facts.add_site(&row)).await?;
        Ok(facts)
    }

    async fn page_list(
        &self,
        project: &ProjectSlug,
        period: Period,
        request: &PagesRequest,
    ) -> Result<PageList, StoreError> {
        let mut sql = String::from("SELECT path, status, sum(views) AS total FROM page_daily FINAL ");
        sql.push_str(OF_PERIOD);
        if request.status.is_some() {
            sql.push_str(" AND status = ?");
        }
        sql.push_str(" GROUP BY path, status");
        if request.after.is_some() {
            sql.push_str(" HAVING total < ? OR (total = ? AND (path > ? OR (path = ? AND status > ?)))");
        }
        sql.push_str(" ORDER BY total DESC, path, status LIMIT ?");
        let mut query = of_period(self.client.query(&sql), project, period);
        if let Some(status) = request.status {
            query = query.bind(status);
        }
        if let Some(Cursor(PageTotal { path, status, total })) = &request.after {
            query = query.bind(*total).bind(*total).bind(path).bind(path).bind(*status);
        }
        let rows = self.within("pages", query.bind(request.limit as u64 + 1).fetch_all::<PageTotal>()).await?;
        Ok(PageList::from_rows(rows, request.limit))
    }

    /// Sketches of the listed paths only: a project may have a hundred thousand others.
    async fn page_sketches(
        &self,
        project: &ProjectSlug,
        period: Period,
        facts: &mut MonthFacts,
    ) -> Result<(), StoreError> {
        let listed = facts.pages.items.iter().chain(&facts.not_found.items);
        let paths: BTreeSet<String> = listed.map(|page| page.path.clone()).collect();
        let sql = format!("SELECT ?fields FROM page_daily FINAL {OF_PERIOD} AND path IN ?");
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
            let query = of_period(self.client.query(&sql), project, period).bind(chunk);
            self.each("visitors of pages", query, |row: PageDailyRow| facts.add_page_sketch(&row)).await?;
        }
        Ok(())
    }

    async fn breakdowns(&self, project: &ProjectSlug, period: Period) -> Result<Vec<BreakdownSum>, StoreError> {
        // LowCardinality is stripped because a row's validation knows String only. The dimension's total comes with
        // every value, from one read, so that what is not listed can be told without a second look at moving figures.
        let sql = format!(
            "SELECT name AS dimension, value, total, sum(total) OVER (PARTITION BY name) AS of_dimension \
             FROM (SELECT CAST(dimension AS String) AS name, value, sum(views) AS total FROM breakdown_daily FINAL \
             {OF_PERIOD} GROUP BY name, value) \
             ORDER BY dimension, total DESC, value LIMIT ? BY dimension"
        );
        let query = of_period(self.client.query(&sql), project, period).bind(BREAKDOWN_VALUES);
        self.within("breakdowns", query.fetch_all()).await
    }

    async fn rejections(&self, project: &ProjectSlug, period: Period) -> Result<Vec<(String, u64)>, StoreError> {
        let sql = format!(
            "SELECT CAST(reason AS String) AS name, sum(beacons) AS total FROM rejection_daily FINAL \
             {OF_PERIOD} GROUP BY name"
        );
        let query = of_period(self.client.query(&sql), project, period);
        let rows = self.within("refused beacons", query.fetch_all::<NamedSum>()).await?;
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

/// The rows of a project's period in a table by day; bound by [`of_period`].
const OF_PERIOD: &str = "WHERE project = ? AND day >= toDate(?) AND day <= toDate(?)";

fn of_period(query: Query, project: &ProjectSlug, period: Period) -> Query {
    // toDate of a number below 65,536 takes it as days since the epoch.
    query.bind(project.as_str()).bind(period.first_day().0).bind(period.last_day().0)
}
