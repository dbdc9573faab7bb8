//! Reads one project's months from ClickHouse.
//!
//! Rows are absolute facts per (key, stream, window), replaced by later ones. Merges are never guaranteed, so every read uses `FINAL` and
//! then adds up over streams and windows. Counters are added up by ClickHouse, sketches by this process.
//!
//! A report is read in three steps, each of several concurrent queries: whether the project exists and which months are closed; the totals;
//! the lists of what the totals have counted. For a project with very many views, a fourth step reads the facts of the listed pages.

use crate::period::{Period, Span};
use crate::report::facts::ValueSum;
use crate::report::{MonthFacts, PagesRequest, ReportFacts, Rules};
use crate::small_cells::Floor;
use chrono_tz::Tz;
use clickhouse::Row;
use clickhouse::error::Error as ClickHouseError;
use clickhouse::query::Query;
use pages::FEW_VIEWS;
use robots::RobotsAndMore;
use schemas::classes::Dimension;
use schemas::close::Frontier;
use schemas::sketch::SketchDecodeError;
use schemas::tables::{MonthCloseRow, MonthClosedRow, SiteHourlyRow};
use schemas::{Hour, Month, ProjectSlug};
use scope::{Scope, first_day, of_project};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;
use storage::{FailureKind, Work};
use tokio::sync::watch;
use value_sums::{Threshold, breakdowns, breakdowns_one_by_one, values, values_one_by_one};

mod live;
mod pages;
mod projects;
mod robots;
mod scan;
mod scope;
mod value_sums;

pub use live::Live;
pub use projects::{ProjectViews, Visible};
pub(crate) use scan::PageScan;

/// Rows after which the task yields to other tasks on this thread: thousands of rows may have arrived, and each has a sketch to merge.
const ROWS_PER_STEP: usize = 64;

/// Most values of a report that are read one by one. If there are more, ClickHouse adds up those below the threshold.
const MOST_VALUES: usize = 20_000;

/// Why the figures could not be read.
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
    /// ClickHouse is known to be away; the query was not sent, or was given up.
    #[error("reading {what}: ClickHouse is away")]
    Away {
        /// What was read.
        what: &'static str,
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
    /// A stored sketch is invalid.
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
    /// The kind of the failure: whether a retry may succeed.
    pub fn failure_kind(&self) -> FailureKind {
        match self {
            StoreError::Timeout { .. } | StoreError::Away { .. } => FailureKind::Unavailable,
            StoreError::ClickHouse { source, .. } => storage::failure_kind(source),
            StoreError::UnknownProject | StoreError::Sketch { .. } => FailureKind::Bug,
        }
    }
}

/// The close of each closed month, by the month's first day.
type Closes = BTreeMap<u16, MonthCloseRow>;

/// Reads the figures of reports.
#[derive(Clone)]
pub struct ReportStore {
    client: clickhouse::Client,
    timeout: Duration,
    /// Whether ClickHouse answers, if a supervisor monitors it.
    answers: Option<watch::Receiver<bool>>,
}

/// A requested project and months.
pub(crate) struct Asked<'a> {
    pub(crate) project: &'a ProjectSlug,
    pub(crate) span: Span,
    /// The parts of the span's months that have started.
    pub(crate) periods: &'a [Period],
    pub(crate) rules: Rules,
}

impl Asked<'_> {
    /// The month before, and the same month a year before; none for a range.
    fn compared(&self) -> [Option<Period>; 2] {
        let (Some(month), Some(period)) = (self.span.single(), self.periods.first()) else { return [None, None] };
        let (year, number) = (month.year(), month.number());
        let before = if number == 1 { Month::new(year - 1, 12) } else { Month::new(year, number - 1) };
        [before, Month::new(year - 1, number)].map(|month| month.ok().map(|month| period.alike(month)))
    }
}

/// The closes and the registration on which a whole report depends.
pub(crate) struct Known {
    closed: Closes,
    project: OfProject,
}

/// The facts of a project's registration, with defaults for a project without one.
#[derive(Clone, Copy)]
struct OfProject {
    time_zone: Tz,
}

#[derive(Row, Deserialize)]
struct ProjectFacts {
    removed: u8,
    time_zone: String,
}

/// A sum of refused beacons.
struct Rejections {
    month: u16,
    reason: String,
    host: String,
    total: u64,
}

/// The columns of a closed month that is only compared with: each column is a file, and the others would take a third of the query's time.
#[derive(Row, Deserialize)]
struct ClosedTotals {
    month: u16,
    visitors: u64,
    visitors_error: f64,
    hour_views: Vec<u64>,
    hour_visits: Vec<u64>,
}

impl From<ClosedTotals> for MonthClosedRow {
    fn from(row: ClosedTotals) -> Self {
        let ClosedTotals { month, visitors, visitors_error, hour_views, hour_visits } = row;
        MonthClosedRow { month, visitors, visitors_error, hour_views, hour_visits, ..MonthClosedRow::default() }
    }
}

impl ReportStore {
    /// Reads with `client`, whose database holds the tables of `schemas`.
    pub fn new(client: clickhouse::Client) -> Self {
        let (client, timeout) = (Work::Report.client(client), Work::Report.timeout());
        ReportStore { client, timeout, answers: None }
    }

    /// The same store with queries of lower priority, if ClickHouse supports that.
    pub(crate) async fn yielding(self) -> Self {
        let client = Work::Background.client_with_priority(self.client, self.timeout).await;
        ReportStore { client, ..self }
    }

    /// The same store, whose queries fail immediately while `answers` is false, instead of after their timeout.
    #[must_use]
    pub fn only_while(self, answers: watch::Receiver<bool>) -> Self {
        ReportStore { answers: Some(answers), ..self }
    }

    /// Limits every query to `timeout_ms`.
    #[must_use]
    pub fn with_timeout_ms(mut self, timeout_ms: u64) -> Self {
        self.timeout = Duration::from_millis(timeout_ms);
        self
    }

    /// All facts of a whole report.
    pub(crate) async fn report(
        &self,
        asked: &Asked<'_>,
        pages: &PagesRequest,
        not_found_limit: usize,
    ) -> Result<ReportFacts, StoreError> {
        let compared = asked.compared();
        let known = self.known_of(asked, &compared).await?;
        // Totals first, since the aggregator writes them last: the rows that they count are then already there to be listed.
        let (mut facts, late) = self.totals(asked, &known.closed, compared).await?;
        facts.time_zone = known.project.time_zone;
        let views = facts.months.iter().map(MonthFacts::views).sum();
        // A month without rows needs no queries, and a closed month without late rows needs none of the tables of open months.
        let (scope, before) = scopes(asked, &compared, &known.closed);
        let scope = scope.with_late(&late);
        let has_rows = facts.compared[0].as_ref().is_some_and(|month| month.has_rows);
        let before = before.map(|scope| if has_rows { scope.with_late(&late) } else { scope.of(Vec::new()) });
        let first = self.first_pages(&scope, before.as_ref(), pages, not_found_limit, asked.rules, views);
        let values = self.all_values(&scope, asked.rules.floor, views);
        let robots = self.robots_and_rejections(&scope, before.as_ref(), asked.rules.floor);
        // On the heap: together the futures would take much of a thread's stack.
        let (first, values, robots) = (Box::pin(first), Box::pin(values), Box::pin(robots));
        let (first, values, robots) = tokio::try_join!(first, values, robots)?;
        let RobotsAndMore { robots, rejections, reported } = robots;
        (facts.values, facts.masked, facts.robots, facts.reported_missing) = (values, first.masked, robots, reported);
        for Rejections { month, reason, host, total } in rejections {
            if let Some(month) = facts.months.iter_mut().find(|of| first_day(of.period.month()) == month) {
                month.add_rejection(reason, host, total);
            }
        }
        let (lists, listed) = self.listed_first(&scope, before.as_ref(), first, asked.rules).await?;
        ([facts.pages, facts.not_found], facts.listed) = (lists, listed);
        Ok(facts)
    }

    /// The months' totals alone, for days and hours.
    pub(crate) async fn months(&self, asked: &Asked<'_>) -> Result<ReportFacts, StoreError> {
        let known = self.known_of(asked, &[None, None]).await?;
        let (facts, _) = self.totals(asked, &known.closed, [None, None]).await?;
        Ok(facts)
    }

    /// One list of pages.
    pub(crate) async fn pages(&self, asked: &Asked<'_>, request: &PagesRequest) -> Result<ReportFacts, StoreError> {
        let compared = asked.compared();
        let known = self.known_of(asked, &compared).await?;
        let (scope, before) = scopes(asked, &compared, &known.closed);
        let mut facts = ReportFacts::new(asked.periods);
        scope.close(&mut facts);
        facts.pages = self.page_list(&scope, before.as_ref(), request, asked.rules).await?;
        let nothing = crate::report::PageList::default();
        // Only pages not found have referrers.
        let missing = if request.status == Some(404) { &facts.pages } else { &nothing };
        facts.listed = self.listed(&scope, before.as_ref(), [&facts.pages, missing], asked.rules).await?;
        Ok(facts)
    }

    /// All values of one dimension.
    pub(crate) async fn breakdown(&self, asked: &Asked<'_>, dimension: Dimension) -> Result<ReportFacts, StoreError> {
        let known = self.known_of(asked, &[None, None]).await?;
        let (scope, _) = scopes(asked, &[None, None], &known.closed);
        let mut facts = ReportFacts::new(asked.periods);
        scope.close(&mut facts);
        facts.values = self.values(&scope, Some(dimension), asked.rules.floor).await?;
        if dimension == Dimension::Bot {
            facts.robots = self.robot_names(&scope, asked.rules.floor).await?;
        }
        Ok(facts)
    }

    /// Ok if `project` was ever registered or has figures. A project that is known only by its host's pattern has figures without a
    /// registration; a removed project keeps its figures. An erased project is unknown.
    pub async fn require_project(&self, project: &ProjectSlug) -> Result<(), StoreError> {
        self.project(project).await.map(|_| ())
    }

    async fn project(&self, project: &ProjectSlug) -> Result<OfProject, StoreError> {
        let sql = "SELECT removed, time_zone FROM project FINAL WHERE slug = {project:String}";
        let query = self.client.query(sql).param("project", project.as_str());
        match self.within("the project", query.fetch_optional::<ProjectFacts>()).await? {
            // Rows of an erased project that were written again are removed soon.
            Some(facts) if facts.removed == 2 => Err(StoreError::UnknownProject),
            // A later version may have stored a time zone that this version does not know.
            Some(facts) => Ok(OfProject { time_zone: facts.time_zone.parse().unwrap_or(Tz::UTC) }),
            None => {
                let sql = "SELECT toUInt8(1) FROM site_hourly WHERE project = {project:String} LIMIT 1 \
                           UNION ALL SELECT toUInt8(1) FROM month_closed WHERE project = {project:String} LIMIT 1";
                let query = self.client.query(sql).param("project", project.as_str());
                let found = self.within("the project", query.fetch_all::<u8>()).await?;
                if found.is_empty() { Err(StoreError::UnknownProject) } else { Ok(OfProject { time_zone: Tz::UTC }) }
            }
        }
    }

    async fn known_of(&self, asked: &Asked<'_>, compared: &[Option<Period>; 2]) -> Result<Known, StoreError> {
        let periods = asked.periods.iter().chain(compared.iter().flatten());
        let months: Vec<u16> = periods.map(|period| first_day(period.month())).collect();
        let (project, closed) = tokio::try_join!(self.project(asked.project), self.closed(&months))?;
        Ok(Known { closed, project })
    }

    /// The closes of those `months` that are closed.
    async fn closed(&self, months: &[u16]) -> Result<Closes, StoreError> {
        // All of them: there is about one for each month, and conditions would cost more than reading them.
        let query = self.client.query("SELECT ?fields FROM month_close FINAL");
        let mut rows = self.within("whether the months are closed", query.fetch_all::<MonthCloseRow>()).await?;
        // Of several runs the first that finished counts.
        rows.sort_by_key(|row| (row.month, std::cmp::Reverse((row.finished, row.run))));
        Ok(rows.into_iter().filter(|row| months.contains(&row.month)).map(|row| (row.month, row)).collect())
    }

    /// Hours and visitors, of the report's months and of those they are compared with; and those of these months that are closed and have
    /// rows that are not in their figures. Every hour in which something was counted has a row, so other tables have none either.
    async fn totals(
        &self,
        asked: &Asked<'_>,
        closed: &Closes,
        compared: [Option<Period>; 2],
    ) -> Result<(ReportFacts, BTreeSet<u16>), StoreError> {
        let (scope, _) = scopes(asked, &compared, closed);
        let mut facts = ReportFacts::new(asked.periods);
        facts.compared = compared.map(|period| period.map(MonthFacts::new));
        scope.close(&mut facts);
        let all = with_compared(&scope, compared);
        // A running month is compared with a part of a month, and a part has no visitors.
        let whole = asked.periods.iter().all(|period| !period.is_running());
        let closed = async {
            let Some(condition) = all.closed_rows() else { return Ok(Vec::new()) };
            let query = self.client.query(&format!("SELECT ?fields FROM month_closed FINAL {condition}"));
            if scope.is_open() {
                let rows = self.within("closed months", query.fetch_all::<ClosedTotals>()).await?;
                return Ok(rows.into_iter().map(MonthClosedRow::from).collect());
            }
            self.within("closed months", query.fetch_all()).await
        };
        let ReportFacts { months, compared, .. } = &mut facts;
        let first = if whole { None } else { asked.periods.first().map(|period| period.first_hour()) };
        let months = compared.iter_mut().flatten().chain(months).collect();
        let (closed, late) = tokio::try_join!(closed, self.hours(&all, months, first))?;
        for row in closed {
            let hour = schemas::Day(row.month).first_hour();
            if let Some(month) = of_hour(facts.months.iter_mut().chain(facts.compared.iter_mut().flatten()), hour) {
                month.add_closed(&row);
            }
        }
        Ok((facts, late))
    }

    /// Adds every hour to its month as it arrives, so that sketches are merged and dropped, not collected. Hours before `first_sketch` come
    /// without their sketches. Returns the closed months with rows that are not in their figures.
    async fn hours(
        &self,
        scope: &Scope<'_>,
        mut months: Vec<&mut MonthFacts>,
        first_sketch: Option<Hour>,
    ) -> Result<BTreeSet<u16>, StoreError> {
        let sketch = match first_sketch {
            None => "sketch".to_owned(),
            Some(first) => format!("if(hour < toDateTime({}, 'UTC'), '', sketch) AS sketch", first.unix_seconds()),
        };
        let sql = format!(
            "SELECT project, hour, views, visits, {sketch}, stream, window_start, next_offset, source FROM site_hourly FINAL {}",
            scope.all_hours()
        );
        let frontiers: BTreeMap<u16, Frontier> =
            scope.closed.iter().map(|(month, close)| (*month, Frontier::of(close))).collect();
        let mut late = BTreeSet::new();
        let take = |row: SiteHourlyRow| {
            let hour = Hour::from_unix_seconds(row.hour);
            let in_month = first_day(hour.month());
            if let Some(frontier) = frontiers.get(&in_month) {
                if frontier.contains(row.stream, row.window_start) {
                    return Ok(());
                }
                late.insert(in_month);
            }
            // All rows of the months to compare with are read, even if only a part is compared.
            let of_row = |month: &&mut &mut MonthFacts| {
                month.period.first_hour() <= hour && hour < month.period.month().end_hour()
            };
            let Some(month) = months.iter_mut().find(of_row) else { return Ok(()) };
            month.has_rows = true;
            match Some(month).filter(|month| hour < month.period.end_hour()) {
                Some(month) if first_sketch.is_none_or(|first| first <= hour) => month.add_site(&row),
                Some(month) => {
                    month.add_counts(&row);
                    Ok(())
                }
                None => Ok(()),
            }
        };
        self.each("hours", self.client.query(&sql), take).await?;
        Ok(late)
    }

    async fn values(
        &self,
        scope: &Scope<'_>,
        dimension: Option<Dimension>,
        floor: Floor,
    ) -> Result<Vec<ValueSum>, StoreError> {
        let sql = values(&breakdowns(scope, dimension), Threshold::all(floor));
        self.within("breakdowns", self.client.query(&sql).fetch_all()).await
    }

    /// Of all dimensions.
    async fn all_values(&self, scope: &Scope<'_>, floor: Floor, views: u64) -> Result<Vec<ValueSum>, StoreError> {
        if let Some(month) = scope.single_open().filter(|_| views <= FEW_VIEWS) {
            let sql = breakdowns_one_by_one(scope, month, Threshold::all(floor), MOST_VALUES);
            let found: Vec<ValueSum> = self.within("breakdowns", self.client.query(&sql).fetch_all()).await?;
            if found.len() < MOST_VALUES {
                return Ok(found);
            }
        }
        self.values(scope, None, floor).await
    }

    /// Passes every row to `take` as it arrives, so that sketches are merged and dropped, not collected.
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
            let (mut rows, mut taken) = (query.fetch::<T>()?, 0usize);
            while let Some(row) = rows.next().await? {
                if let Err(source) = take(row) {
                    return Ok(Err(StoreError::Sketch { what, source }));
                }
                taken += 1;
                if taken.is_multiple_of(ROWS_PER_STEP) {
                    tokio::task::yield_now().await;
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
        let answer = tokio::select! {
            biased;
            () = self.away() => return Err(StoreError::Away { what }),
            answer = tokio::time::timeout(self.timeout, asking) => answer,
        };
        match answer {
            Ok(answer) => answer.map_err(|source| StoreError::ClickHouse { what, source }),
            Err(_) => Err(StoreError::Timeout { what, timeout_ms: self.timeout.as_millis() as u64 }),
        }
    }

    /// Resolves while ClickHouse is known to be away.
    async fn away(&self) {
        if let Some(mut answers) = self.answers.clone()
            && answers.wait_for(|answers| !answers).await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

fn of_hour<'m>(mut months: impl Iterator<Item = &'m mut MonthFacts>, hour: Hour) -> Option<&'m mut MonthFacts> {
    months.find(|month| month.period.first_hour() <= hour && hour < month.period.end_hour())
}

/// The span's months, and the month before them if it is compared.
fn scopes<'a>(asked: &Asked<'a>, compared: &[Option<Period>; 2], closed: &'a Closes) -> (Scope<'a>, Option<Scope<'a>>) {
    let range = asked.span.single().is_none();
    let scope = Scope { whose: of_project(asked.project), periods: asked.periods.to_vec(), range, closed, late: None };
    // Pages are stored by day, or by month once it is closed, so the month before is always read whole.
    let before = compared[0].map(|period| scope.of(vec![Period::whole(period.month())]));
    (scope, before)
}

/// The same scope with the months to compare with. They are read whole, though only a part may be compared: pages of the month before are
/// read for all of it, unless it has no rows.
fn with_compared<'a>(scope: &Scope<'a>, compared: [Option<Period>; 2]) -> Scope<'a> {
    let whole = compared.into_iter().rev().flatten().map(|period| Period::whole(period.month()));
    scope.of(whole.chain(scope.periods.iter().copied()).collect())
}
