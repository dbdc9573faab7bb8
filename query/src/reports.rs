//! Reports for the rest of the program: handlers, the command line, mail.

use crate::cache::{self, Answer, Key, Rendered, ReportCache};
use crate::period::{Period, Span};
use crate::problem::Problem;
use crate::report::breakdowns::page_of;
use crate::report::{
    BreakdownItem, DayFigures, HourFigures, MonthlyReport, PageCounts, PageFigures, PagesRequest, ReportPeriod, Rules,
    ValuesRequest, make,
};
use crate::report::{Sort, ValueSort};
use crate::store::{Asked, Live, ProjectViews, ReportStore, StoreError, Visible};
use crate::turns::{CallerKey, NoTurn, Turn, TurnLimits, Turns};
use crate::{Clock, QueryConfig};
use axum::extract::{FromRef, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use chrono::{DateTime, Utc};
use schemas::classes::Dimension;
use schemas::close::READ_WITHIN;
use schemas::paths::EndpointPaths;
use schemas::{Hour, Month, ProjectSlug};
use serde::Serialize;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use storage::FailureKind;
use tokio::sync::OnceCell;
use utoipa::ToSchema;

/// Reports computed concurrently. Each holds a month's rows, and shares the engine with the aggregator's inserts.
const REPORT_TURNS: usize = 8;

/// Exports read concurrently. Each keeps a query open while its client reads, so exports have separate turns.
const EXPORT_TURNS: usize = 4;

/// A part of a report, in pages.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Listing<T> {
    /// Project slug.
    #[schema(value_type = String)]
    pub project: ProjectSlug,
    /// The time that the list covers.
    pub period: ReportPeriod,
    /// The items, in the requested order.
    pub items: Vec<T>,
    /// Value of `after` for the next page; null at the end.
    pub next: Option<String>,
    /// For a list that is read in pages while its month is running: what the pages together may lack. Absent if they are complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

/// What may be missing from a list in pages if its order changes as views arrive.
const MOVING: &str = "the month is running: an item that gains views between two requests may come twice or not at all; a list by name \
                      (sort=path, sort=value) has all that were there at its first request";

/// [`MOVING`], if it applies: to a page of a running month's list by a figure.
fn note_of(periods: &[Period], by_name: bool, is_part: bool) -> Option<&'static str> {
    (is_part && !by_name && periods.iter().any(|period| period.is_running())).then_some(MOVING)
}

/// Projects, in pages.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ProjectListing {
    /// By name.
    pub items: Vec<ProjectViews>,
    /// Value of `after` for the next page; null at the end.
    pub next: Option<String>,
}

/// Computes reports for one caller; [`Reports::for_caller`] is the same for another. A clone is cheap.
#[derive(Clone)]
pub struct Reports {
    maker: Arc<Maker>,
    caller: CallerKey,
}

/// The turns of reports and of exports. A clone shares them.
#[derive(Clone)]
pub(crate) struct ReportTurns {
    reports: Arc<Turns>,
    exports: Arc<Turns>,
}

impl Default for ReportTurns {
    fn default() -> Self {
        let [reports, exports] = [REPORT_TURNS, EXPORT_TURNS].map(|turns| Turns::new(TurnLimits::of(turns)));
        ReportTurns { reports, exports }
    }
}

/// The reports for the caller that the guard identified.
pub(crate) struct OfCaller(pub(crate) Reports);

impl<S: Sync> FromRequestParts<S> for OfCaller
where
    Reports: FromRef<S>,
{
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        // Requests of unit tests come without the guard.
        let caller = parts.extensions.get().copied().unwrap_or(CallerKey::Network(0));
        Ok(OfCaller(Reports::from_ref(state).for_caller(caller)))
    }
}

/// The parts shared by the reports of all callers.
struct Maker {
    store: ReportStore,
    /// The same store with queries of lower priority.
    yielding: OnceCell<ReportStore>,
    cache: ReportCache,
    turns: ReportTurns,
    rules: Rules,
    /// Maintainers paste these paths into the docs.
    paths: EndpointPaths,
    clock: Clock,
}

impl Reports {
    /// Reads with `store`, for the program itself and with separate turns; `clock` determines which months have started.
    pub fn new(store: ReportStore, config: QueryConfig, clock: Clock) -> Self {
        Reports::sharing(ReportTurns::default(), store, config, clock, ReportCache::off())
    }

    /// The same, with shared turns and a shared cache.
    pub(crate) fn sharing(
        turns: ReportTurns,
        store: ReportStore,
        config: QueryConfig,
        clock: Clock,
        cache: ReportCache,
    ) -> Self {
        let maker = Maker {
            store: store.with_timeout_ms(config.timeout_ms),
            yielding: OnceCell::new(),
            cache,
            turns,
            rules: config.rules,
            paths: config.paths,
            clock,
        };
        Reports { maker: Arc::new(maker), caller: CallerKey::Program("report") }
    }

    /// The response to a request with the headers `asked`: from the cache, or rendered by `render`. `what` contains everything in the
    /// request on which the response depends. The caller's access to the project has been verified.
    ///
    /// # Errors
    /// `render` failed, and no cached answer may be served instead.
    pub(crate) async fn cached<F>(
        &self,
        project: &ProjectSlug,
        what: String,
        asked: &HeaderMap,
        render: impl FnOnce(Reports) -> F + Send,
    ) -> Result<Response, Problem>
    where
        F: Future<Output = Result<Rendered, Problem>> + Send + 'static,
    {
        let key = Key { project: project.clone(), what };
        let render = |caller| render(self.clone().for_caller(caller));
        let answer: Answer = self.maker.cache.answer(key, self.caller, cache::is_no_cache(asked), render).await?;
        Ok(answer.response(asked))
    }

    /// The same reports for another caller.
    #[must_use]
    pub fn for_caller(self, caller: CallerKey) -> Self {
        Reports { caller, ..self }
    }

    /// The paths of the endpoint's script and beacons.
    pub(crate) fn paths(&self) -> &EndpointPaths {
        &self.maker.paths
    }

    /// Now.
    pub fn now(&self) -> DateTime<Utc> {
        (self.maker.clock)()
    }

    /// The current month.
    pub fn running(&self) -> Month {
        Hour::of(self.now()).month()
    }

    /// The whole report of `project` in `span`; `pages` says which pages it lists.
    ///
    /// # Errors
    /// The project is unknown, the span has not started, `pages` requests what the span does not have, or the storage does not answer.
    pub async fn report(
        &self,
        project: &ProjectSlug,
        span: Span,
        pages: &PagesRequest,
    ) -> Result<MonthlyReport, Problem> {
        let periods = self.periods(span, pages)?;
        let asked = self.asked(project, span, &periods);
        let _turn = self.turn().await?;
        let store = self.store().await;
        let facts = self.read(store.report(&asked, pages, pages.limit)).await?;
        Ok(MonthlyReport::of(project.clone(), span, &facts, self.maker.rules))
    }

    /// How many pages there are; `report` may list only the first of them.
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
        let store = self.store().await;
        self.read(store.page_counts(&asked)).await
    }

    /// A list of pages.
    ///
    /// # Errors
    /// As [`Reports::report`].
    pub async fn pages(
        &self,
        project: &ProjectSlug,
        span: Span,
        request: &PagesRequest,
    ) -> Result<Listing<PageFigures>, Problem> {
        let periods = self.periods(span, request)?;
        let asked = self.asked(project, span, &periods);
        let _turn = self.turn().await?;
        let store = self.store().await;
        let facts = self.read(store.pages(&asked, request)).await?;
        let single = span.single().and(periods.first().copied());
        let with_referrers = request.status == Some(404);
        let list = make::page_list(&facts.pages, &facts.listed, single, self.maker.rules, with_referrers);
        let (period, next) = (ReportPeriod::of(span, &facts.months), list.next.map(|cursor| cursor.encode()));
        let note = note_of(&periods, request.sort == Sort::Path, request.after.is_some() || next.is_some());
        Ok(Listing { project: project.clone(), period, items: list.items, next, note })
    }

    /// Whether views arrive right now.
    ///
    /// # Errors
    /// As [`Reports::report`].
    pub(crate) async fn live(&self, project: &ProjectSlug) -> Result<Live, Problem> {
        let _turn = self.turn().await?;
        let store = self.store().await;
        self.read(store.live(project, self.now())).await
    }

    /// The values of one dimension.
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
        let store = self.store().await;
        let facts = self.read(store.breakdown(&asked, dimension)).await?;
        let (items, next) = page_of(make::breakdown(&facts, dimension, self.maker.rules), request);
        let period = ReportPeriod::of(span, &facts.months);
        let note = note_of(&periods, request.sort == ValueSort::Value, request.after.is_some() || next.is_some());
        Ok(Listing { project: project.clone(), period, items, next: next.map(|cursor| cursor.encode()), note })
    }

    /// Every day.
    ///
    /// # Errors
    /// As [`Reports::report`].
    pub async fn days(&self, project: &ProjectSlug, span: Span) -> Result<Listing<DayFigures>, Problem> {
        let facts = self.months(project, span).await?;
        let (items, period) = (make::days(&facts.months, self.maker.rules), ReportPeriod::of(span, &facts.months));
        Ok(Listing { project: project.clone(), period, items, next: None, note: None })
    }

    /// Every hour.
    ///
    /// # Errors
    /// As [`Reports::report`].
    pub async fn hours(&self, project: &ProjectSlug, span: Span) -> Result<Listing<HourFigures>, Problem> {
        let facts = self.months(project, span).await?;
        let (items, period) = (make::hours(&facts.months), ReportPeriod::of(span, &facts.months));
        Ok(Listing { project: project.clone(), period, items, next: None, note: None })
    }

    /// The `visible` projects whose names start with `prefix`.
    ///
    /// # Errors
    /// The storage does not answer.
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
        let store = self.store().await;
        self.read(store.months(&asked)).await
    }

    /// The result of `reading`, if it finishes before a close may remove the rows that it reads.
    pub(crate) async fn read<T>(&self, reading: impl Future<Output = Result<T, StoreError>>) -> Result<T, Problem> {
        in_time(reading).await.map_err(|error| problem_of(&error))
    }

    pub(crate) fn asked<'a>(&self, project: &'a ProjectSlug, span: Span, periods: &'a [Period]) -> Asked<'a> {
        Asked { project, span, periods, rules: self.maker.rules }
    }

    /// The months of the span that have started, if they support the order of `pages`.
    pub(crate) fn periods(&self, span: Span, pages: &PagesRequest) -> Result<Vec<Period>, Problem> {
        let periods = span.periods(self.now()).map_err(|error| Problem::month_not_started(error.to_string()))?;
        let compares = span.single().is_some() && !periods.iter().any(|period| period.is_running());
        if pages.sort == crate::report::Sort::Change && !compares {
            let expected = "sort=change compares one finished month with the month before; expected another order";
            return Err(Problem::invalid_field("sort", expected));
        }
        Ok(periods)
    }

    /// The store with queries of lower priority.
    pub(crate) async fn yielding_store(&self) -> &ReportStore {
        self.maker.yielding.get_or_init(|| self.maker.store.clone().yielding()).await
    }

    /// The store for this caller: queries in the background and for callers without a token have lower priority.
    async fn store(&self) -> &ReportStore {
        if self.caller.is_anonymous() || self.caller == cache::REFRESH {
            self.yielding_store().await
        } else {
            &self.maker.store
        }
    }

    async fn turn(&self) -> Result<Turn, Problem> {
        self.maker.turns.reports.take(self.caller).await.map_err(no_turn)
    }

    pub(crate) async fn export_turn(&self) -> Result<Turn, Problem> {
        self.maker.turns.exports.take(self.caller).await.map_err(no_turn)
    }
}

async fn in_time<T>(reading: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = StoreError::Timeout { what: "a report", timeout_ms: READ_WITHIN.as_millis() as u64 };
    tokio::time::timeout(READ_WITHIN, reading).await.unwrap_or(Err(late))
}

fn no_turn(reason: NoTurn) -> Problem {
    match reason {
        NoTurn::TooManyWaiting => Problem::too_many_waiting(),
        NoTurn::TooLong => Problem::too_many_reports(),
    }
}

/// The problem that the client sees; the cause is logged here, once.
pub(crate) fn problem_of(error: &StoreError) -> Problem {
    if matches!(error, StoreError::UnknownProject) {
        return Problem::unknown_project();
    }
    if matches!(error, StoreError::Away { .. }) {
        // The supervisor of the connection has logged that ClickHouse is away.
        return Problem::storage_unavailable();
    }
    let cause = std::error::Error::source(error).map(storage::words_of).unwrap_or_default();
    match error.failure_kind() {
        FailureKind::Damaged => {
            tracing::error!(
                %error,
                %cause,
                "ClickHouse's data are damaged, and reports of the damaged part are refused. Check the disk, then stop the service and restore \
                 a backup of ClickHouse's data; what the log still holds is counted again"
            );
            Problem::storage_unavailable()
        }
        FailureKind::Unavailable => {
            tracing::warn!(%error, %cause, "a report could not be read");
            Problem::storage_unavailable()
        }
        FailureKind::Bug => {
            tracing::error!(%error, %cause, "a report could not be read: ClickHouse refuses the statement. Its schema, settings or rights do not fit this version");
            Problem::unreadable_figures()
        }
    }
}
