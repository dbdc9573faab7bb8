//! Reports for whoever asks within the program: handlers, the command line, mail.

use crate::kept::{KeptReports, Key, Patience, Versions};
use crate::period::{Period, Span};
use crate::problem::Problem;
use crate::report::breakdowns::{LISTED_VALUES, page_of};
use crate::report::pages::MAX_LIMIT;
use crate::report::{
    BreakdownItem, DayFigures, HourFigures, MonthlyReport, PageCounts, PageFigures, PageListFigures, PagesRequest,
    ReportPeriod, Rules, Sort, ValuesRequest, make,
};
use crate::store::{Asked, Known, ProjectViews, ReportStore, StoreError, Visible};
use crate::{Clock, QueryConfig};
use chrono::{DateTime, Utc};
use schemas::classes::Dimension;
use schemas::close::READ_WITHIN;
use schemas::{Hour, Month, ProjectSlug};
use serde::Serialize;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use utoipa::ToSchema;

/// Reports read at once. Each holds a month's rows, and shares the engine with the aggregator's inserts.
const AT_ONCE: usize = 8;

/// Reports with all of their pages read at once: each holds as many as its project has.
const WHOLE_AT_ONCE: usize = 2;

/// How long a request waits for its turn.
const TURN: Duration = Duration::from_secs(5);

/// A part of a report, a page of it at a time.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Listing<T> {
    /// Project slug.
    #[schema(value_type = String)]
    pub project: ProjectSlug,
    /// From when to when.
    pub period: ReportPeriod,
    /// The items, in the order asked for.
    pub items: Vec<T>,
    /// Value of `after` with which the list goes on; null at the end.
    pub next: Option<String>,
}

/// Projects, a page of them at a time.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ProjectListing {
    /// By name.
    pub items: Vec<ProjectViews>,
    /// Value of `after` with which the list goes on; null at the end.
    pub next: Option<String>,
}

/// The maker of reports.
pub struct Reports {
    turns: Arc<Semaphore>,
    whole_turns: Semaphore,
    maker: Arc<Maker>,
    config: QueryConfig,
    clock: Clock,
}

/// What makes them, for a request or after it.
struct Maker {
    store: ReportStore,
    kept: KeptReports,
    rules: Rules,
}

/// One whole report.
struct Wanted {
    project: ProjectSlug,
    span: Span,
    periods: Vec<Period>,
    pages: PagesRequest,
}

impl Maker {
    /// The report that is kept, if no rows have come; else it is made.
    async fn made(&self, wanted: &Wanted, key: &Key, known: &Known) -> Result<Arc<MonthlyReport>, StoreError> {
        let asked = wanted.asked(self.rules);
        let begun = Instant::now();
        if self.kept.has(key) {
            let mark = known.mark(self.store.versions(&asked, known).await?);
            if let Some(report) = self.kept.get(key, &mark, begun) {
                return Ok(report);
            }
        }
        let (facts, versions) = self.store.report(&asked, known, &wanted.pages, wanted.pages.limit).await?;
        let report = Arc::new(MonthlyReport::of(wanted.project.clone(), wanted.span, &facts, self.rules));
        self.kept.put(key.clone(), known.mark(versions), begun, &report);
        Ok(report)
    }

    /// Makes it anew while the old one is told, unless someone does. Nobody waits for it, and it fails quietly: the next reader finds out.
    /// Where a month of it is closed meanwhile, its mark says so and it is not told.
    async fn renew(&self, wanted: Wanted, key: Key, known: Known) {
        if let Some(_renewal) = self.kept.renew(&key) {
            let _ = tokio::time::timeout(READ_WITHIN, self.made(&wanted, &key, &known)).await;
        }
    }
}

impl Wanted {
    fn asked(&self, rules: Rules) -> Asked<'_> {
        Asked { project: &self.project, span: self.span, periods: &self.periods, rules }
    }
}

impl Reports {
    /// Reads with `store`; `clock` tells what has begun.
    pub fn new(store: ReportStore, config: QueryConfig, clock: Clock) -> Self {
        let store = store.with_timeout_ms(config.timeout_ms);
        let maker = Maker { store, kept: KeptReports::new(config.keep_bytes), rules: config.rules };
        let [turns, whole_turns] = [AT_ONCE, WHOLE_AT_ONCE].map(Semaphore::new);
        Reports { turns: Arc::new(turns), whole_turns, maker: Arc::new(maker), config, clock }
    }

    /// Now.
    pub fn now(&self) -> DateTime<Utc> {
        (self.clock)()
    }

    /// The present month.
    pub fn running(&self) -> Month {
        Hour::of(self.now()).month()
    }

    /// The store that it reads.
    pub fn store(&self) -> &ReportStore {
        &self.maker.store
    }

    /// The whole report of `project` in `span`; `pages` says which pages it lists.
    ///
    /// # Errors
    /// When the project is not known, the span has not begun, `pages` asks for what the span has not, or the storage does not answer.
    pub async fn report(
        &self,
        project: &ProjectSlug,
        span: Span,
        pages: &PagesRequest,
    ) -> Result<Arc<MonthlyReport>, Problem> {
        self.told(project, span, pages, Patience(self.config.patience)).await
    }

    async fn told(
        &self,
        project: &ProjectSlug,
        span: Span,
        pages: &PagesRequest,
        patience: Patience,
    ) -> Result<Arc<MonthlyReport>, Problem> {
        let periods = self.periods(span, pages)?;
        let is_running = periods.iter().any(|period| period.is_running());
        let wanted = Wanted { project: project.clone(), span, periods, pages: pages.clone() };
        // Rules are the same for all; periods say up to which hour.
        let key = (project.clone(), format!("{span} {:?} {pages:?}", wanted.periods));
        let _turn = self.turn().await?;
        let reading = async {
            let maker = &self.maker;
            let known = maker.store.known(&wanted.asked(maker.rules)).await?;
            let all_but_rows = known.mark(Versions::default());
            match maker.kept.lately(&key, &all_but_rows, patience, Instant::now()).filter(|_| is_running) {
                None => maker.made(&wanted, &key, &known).await,
                Some((report, renewed)) => {
                    // Half of the turns are for those who wait.
                    let is_idle = self.turns.available_permits() > AT_ONCE / 2;
                    if renewed
                        && is_idle
                        && let Ok(turn) = Arc::clone(&self.turns).try_acquire_owned()
                    {
                        let maker = Arc::clone(maker);
                        tokio::spawn(async move {
                            maker.renew(wanted, key, known).await;
                            drop(turn);
                        });
                    }
                    Ok(report)
                }
            }
        };
        self.read(project, reading).await
    }

    /// The same with every page, every page not found and every value that may be told, however many; of one `status`, if any.
    ///
    /// # Errors
    /// As [`Reports::report`].
    pub async fn whole(
        &self,
        project: &ProjectSlug,
        span: Span,
        status: Option<u16>,
    ) -> Result<MonthlyReport, Problem> {
        let _turn = turn(&self.whole_turns).await?;
        let first = PagesRequest { status, ..PagesRequest::first(MAX_LIMIT) };
        // Its lists are read now, so its totals are, too.
        let mut report = Arc::unwrap_or_clone(self.told(project, span, &first, Patience(0)).await?);
        if report.pages.next.is_some() {
            report.pages = self.all_pages(project, span, status, false).await?;
        }
        if report.not_found.next.is_some() {
            report.not_found = self.all_pages(project, span, Some(404), true).await?;
        }
        let every = ValuesRequest { limit: usize::MAX, ..ValuesRequest::default() };
        for dimension in Dimension::ALL {
            let Some(items) = report.breakdowns.get_mut(dimension.name()) else { continue };
            if items.iter().filter(|item| !item.rest).count() == LISTED_VALUES {
                *items = self.breakdown(project, span, dimension, &every).await?.items;
            }
        }
        Ok(report)
    }

    /// A list to its end, by views. It is read by path: a page that gains views meanwhile would move in the other order, and come twice
    /// or not at all.
    async fn all_pages(
        &self,
        project: &ProjectSlug,
        span: Span,
        status: Option<u16>,
        with_referrers: bool,
    ) -> Result<PageListFigures, Problem> {
        let mut request = PagesRequest { status, sort: Sort::Path, ..PagesRequest::first(MAX_LIMIT) };
        let mut items = Vec::new();
        loop {
            let (_, part) = self.list(project, span, &request, with_referrers).await?;
            items.extend(part.items);
            request.after = part.next;
            if request.after.is_none() {
                break;
            }
        }
        items.sort_by(|a, b| (b.views, &a.path, a.status).cmp(&(a.views, &b.path, b.status)));
        Ok(PageListFigures { items, next: None })
    }

    /// How many pages there are, of which `report` may list the first only.
    ///
    /// # Errors
    /// As [`Reports::report`].
    pub async fn page_counts(
        &self,
        project: &ProjectSlug,
        span: Span,
        report: &MonthlyReport,
    ) -> Result<PageCounts, Problem> {
        if report.pages.next.is_none() && report.not_found.next.is_none() {
            let [pages, not_found] = [&report.pages, &report.not_found].map(|list| list.items.len() as u64);
            return Ok(PageCounts { pages, not_found });
        }
        let periods = self.periods(span, &PagesRequest::default())?;
        let asked = self.asked(project, span, &periods);
        let _turn = self.turn().await?;
        self.read(project, self.maker.store.page_counts(&asked)).await
    }

    /// Its pages.
    ///
    /// # Errors
    /// As [`Reports::report`].
    pub async fn pages(
        &self,
        project: &ProjectSlug,
        span: Span,
        request: &PagesRequest,
    ) -> Result<Listing<PageFigures>, Problem> {
        let (period, list) = self.list(project, span, request, request.status == Some(404)).await?;
        let next = list.next.map(|cursor| cursor.encode());
        Ok(Listing { project: project.clone(), period, items: list.items, next })
    }

    async fn list(
        &self,
        project: &ProjectSlug,
        span: Span,
        request: &PagesRequest,
        with_referrers: bool,
    ) -> Result<(ReportPeriod, PageListFigures), Problem> {
        let periods = self.periods(span, request)?;
        let asked = self.asked(project, span, &periods);
        let _turn = self.turn().await?;
        let facts = self.read(project, self.maker.store.pages(&asked, request)).await?;
        let period = span.single().and(periods.first().copied());
        let list = make::page_list(&facts.pages, &facts.listed, period, self.config.rules, with_referrers);
        Ok((ReportPeriod::of(span, &facts.months), list))
    }

    /// Values of one dimension.
    ///
    /// # Errors
    /// As [`Reports::report`].
    pub async fn breakdown(
        &self,
        project: &ProjectSlug,
        span: Span,
        dimension: Dimension,
        request: &ValuesRequest,
    ) -> Result<Listing<BreakdownItem>, Problem> {
        let periods = self.periods(span, &PagesRequest::default())?;
        let asked = self.asked(project, span, &periods);
        let _turn = self.turn().await?;
        let facts = self.read(project, self.maker.store.breakdown(&asked, dimension)).await?;
        let (items, next) = page_of(make::breakdown(&facts.values, dimension, self.config.rules), request);
        let period = ReportPeriod::of(span, &facts.months);
        Ok(Listing { project: project.clone(), period, items, next: next.map(|cursor| cursor.encode()) })
    }

    /// Every day.
    ///
    /// # Errors
    /// As [`Reports::report`].
    pub async fn days(&self, project: &ProjectSlug, span: Span) -> Result<Listing<DayFigures>, Problem> {
        let facts = self.months(project, span).await?;
        let (items, period) = (make::days(&facts.months, self.config.rules), ReportPeriod::of(span, &facts.months));
        Ok(Listing { project: project.clone(), period, items, next: None })
    }

    /// Every hour.
    ///
    /// # Errors
    /// As [`Reports::report`].
    pub async fn hours(&self, project: &ProjectSlug, span: Span) -> Result<Listing<HourFigures>, Problem> {
        let facts = self.months(project, span).await?;
        let (items, period) = (make::hours(&facts.months), ReportPeriod::of(span, &facts.months));
        Ok(Listing { project: project.clone(), period, items, next: None })
    }

    /// Projects that may be seen and whose names begin with `prefix`.
    ///
    /// # Errors
    /// When the storage does not answer.
    pub async fn projects(
        &self,
        visible: &Visible,
        prefix: &str,
        after: Option<&ProjectSlug>,
        limit: usize,
    ) -> Result<ProjectListing, Problem> {
        let _turn = self.turn().await?;
        let found = self.maker.store.projects(visible, prefix, self.running(), after, limit + 1);
        let mut items = in_time(found).await.map_err(|error| problem_of(&error))?;
        let goes_on = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| goes_on).map(|last| last.project.to_string());
        Ok(ProjectListing { items, next })
    }

    async fn months(&self, project: &ProjectSlug, span: Span) -> Result<crate::report::ReportFacts, Problem> {
        let periods = self.periods(span, &PagesRequest::default())?;
        let asked = self.asked(project, span, &periods);
        let _turn = self.turn().await?;
        self.read(project, self.maker.store.months(&asked)).await
    }

    /// What `reading` finds, if it does before a close removes what it began to read.
    async fn read<T>(
        &self,
        project: &ProjectSlug,
        reading: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Problem> {
        in_time(reading).await.map_err(|error| self.problem(project, &error))
    }

    /// The problem with `project`. Of one that is gone, as after it was erased, nothing is kept.
    fn problem(&self, project: &ProjectSlug, error: &StoreError) -> Problem {
        if matches!(error, StoreError::UnknownProject) {
            self.maker.kept.forget(project);
        }
        problem_of(error)
    }

    fn asked<'a>(&self, project: &'a ProjectSlug, span: Span, periods: &'a [Period]) -> Asked<'a> {
        Asked { project, span, periods, rules: self.config.rules }
    }

    /// The months that have begun, if `pages` can be told of them.
    fn periods(&self, span: Span, pages: &PagesRequest) -> Result<Vec<Period>, Problem> {
        let periods = span.periods(self.now()).map_err(|error| Problem::month_not_begun(error.to_string()))?;
        let compares = span.single().is_some() && !periods.iter().any(|period| period.is_running());
        if pages.sort == crate::report::Sort::Change && !compares {
            let expected = "sort=change compares one month that is over with the month before; expected another order";
            return Err(Problem::invalid_field("sort", expected));
        }
        Ok(periods)
    }

    async fn turn(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Problem> {
        turn(&self.turns).await
    }
}

async fn in_time<T>(reading: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = StoreError::Timeout { what: "a report", timeout_ms: READ_WITHIN.as_millis() as u64 };
    tokio::time::timeout(READ_WITHIN, reading).await.unwrap_or(Err(late))
}

async fn turn(turns: &Semaphore) -> Result<tokio::sync::SemaphorePermit<'_>, Problem> {
    let turn = tokio::time::timeout(TURN, turns.acquire()).await;
    turn.ok().and_then(Result::ok).ok_or_else(Problem::too_many_reports)
}

/// The problem that a reader sees; the cause is logged here, once.
pub(crate) fn problem_of(error: &StoreError) -> Problem {
    if matches!(error, StoreError::UnknownProject) {
        return Problem::unknown_project();
    }
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    if error.is_unavailable() {
        tracing::warn!(%error, %cause, "a report could not be read");
        Problem::storage_unavailable()
    } else {
        tracing::error!(%error, %cause, "a report could not be understood");
        Problem::unreadable_figures()
    }
}
