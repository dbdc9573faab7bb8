//! Reports for the rest of the program: handlers, the command line, mail.

use crate::kept::{KeptReports, Key, Patience, Versions};
use crate::period::{Period, Span};
use crate::problem::Problem;
use crate::ready::{LARGE_VIEWS, MOST, Made, Next, REST, Ready, Subject};
use crate::report::breakdowns::page_of;
use crate::report::{
    BreakdownItem, DayFigures, HourFigures, MonthlyReport, PageCounts, PageFigures, PagesRequest, ReportPeriod, Rules,
    ValuesRequest, make,
};
use crate::report::{Sort, ValueSort};
use crate::store::{Asked, Live, ProjectViews, ReportStore, StoreError, Visible};
use crate::turns::{CallerKey, NoTurn, Turn, TurnLimits, Turns};
use crate::{Clock, QueryConfig};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use schemas::classes::Dimension;
use schemas::close::READ_WITHIN;
use schemas::paths::EndpointPaths;
use schemas::{Hour, Month, ProjectSlug};
use serde::Serialize;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;
use utoipa::ToSchema;

/// Reports computed concurrently. Each holds a month's rows, and shares the engine with the aggregator's inserts.
const REPORT_TURNS: usize = 8;

/// Exports read concurrently. Each keeps a query open for as long as its client takes, so they have turns of their own.
const EXPORT_TURNS: usize = 4;

/// The caller that refreshes cached reports in the background.
const PREFETCH: CallerKey = CallerKey::Program("prefetch");

/// For how long whoever makes reports ready leaves it be while others read, and how many times at most.
const BUSY: Duration = Duration::from_millis(20);
const MOST_BUSY: u32 = 10;

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
    /// Of a list that is read in parts while its month is running: what the parts together may lack. Absent where they are complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

/// What parts of a list may lack whose order changes as views arrive.
const MOVING: &str = "the month is running: an item that gains views between two requests may come twice or not at all; a list by name \
                      (sort=path, sort=value) has all that were there at its first request";

/// [`MOVING`], where it is true: of a part of a list of a running month by a figure.
fn note_of(periods: &[Period], by_name: bool, is_part: bool) -> Option<&'static str> {
    (is_part && !by_name && periods.iter().any(|period| period.is_running())).then_some(MOVING)
}

/// Projects, a page of them at a time.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ProjectListing {
    /// By name.
    pub items: Vec<ProjectViews>,
    /// Value of `after` with which the list goes on; null at the end.
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

/// The reports for the caller of a request, as the guard found it out.
pub(crate) struct OfCaller(pub(crate) Reports);

impl FromRequestParts<Reports> for OfCaller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, reports: &Reports) -> Result<Self, Infallible> {
        // Requests of unit tests come without the guard.
        let caller = parts.extensions.get().copied().unwrap_or(CallerKey::Network(0));
        Ok(OfCaller(reports.clone().for_caller(caller)))
    }
}

/// What makes them, for a request or before it.
struct Maker {
    store: ReportStore,
    /// The same store with threads that let others go first.
    yielding: OnceCell<ReportStore>,
    kept: KeptReports,
    ready: Mutex<Ready>,
    turns: ReportTurns,
    rules: Rules,
    /// What maintainers paste into the docs names these.
    paths: EndpointPaths,
    patience: u32,
    clock: Clock,
}

/// One whole report.
struct Wanted {
    project: ProjectSlug,
    span: Span,
    periods: Vec<Period>,
    pages: PagesRequest,
}

impl Maker {
    /// The report that is kept, if it may be told; else it is made, and then how long that took is said, too. A month that is over is told
    /// only as it is.
    async fn told(
        &self,
        store: &ReportStore,
        wanted: &Wanted,
        patience: Patience,
    ) -> Result<(Arc<MonthlyReport>, Option<Duration>), StoreError> {
        let (asked, key, begun) = (wanted.asked(self.rules), wanted.key(), Instant::now());
        let mut known = None;
        if self.kept.has(&key) {
            let now = known.insert(store.known(&asked).await?);
            let all_but_rows = now.mark(&wanted.periods, Versions::default());
            if wanted.is_running()
                && let Some(report) = self.kept.lately(&key, &all_but_rows, patience, Instant::now())
            {
                return Ok((report, None));
            }
            let looked = Instant::now();
            let mark = now.mark(&wanted.periods, store.versions(&asked, now).await?);
            if let Some(report) = self.kept.get(&key, &mark, looked) {
                return Ok((report, None));
            }
        }
        let (known, facts, versions) = store.report(&asked, known, &wanted.pages, wanted.pages.limit).await?;
        let report = Arc::new(MonthlyReport::of(wanted.project.clone(), wanted.span, &facts, self.rules));
        let took = self.kept.put(key, known.mark(&wanted.periods, versions), begun, &report);
        Ok((report, Some(took)))
    }

    fn ready(&self) -> MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cost(&self, report: &MonthlyReport, took: Duration) -> Made {
        let views = report.totals.views;
        // One without views is not told longer than it is true.
        let told = if views == 0 { Duration::ZERO } else { Patience { times: self.patience, longer: 1.0 }.of(took) };
        Made { took, told, views }
    }

    /// Notes that somebody was told this one, which was made for that if it says how long it `took`.
    fn note(self: &Arc<Self>, wanted: &Wanted, report: &MonthlyReport, took: Option<Duration>) {
        let Some(subject) = wanted.subject().filter(|_| self.patience > 0 && self.kept.keeps()) else { return };
        let now = Instant::now();
        let Some(took) = took else { return self.ready().read(&subject, now) };
        if self.ready().made(subject, self.cost(report, took), now) {
            tokio::spawn(Keeper { maker: Arc::downgrade(self), is_over: false }.keep());
        }
    }

    /// Finds the largest projects of the running month, to make their reports before anybody reads them. It fails quietly: they are looked
    /// for again.
    async fn look_for_largest(&self, store: &ReportStore) {
        let (month, begun) = (Hour::of((self.clock)()).month(), Instant::now());
        let found = in_time(store.largest(month, LARGE_VIEWS, MOST)).await;
        let (took, now) = (begun.elapsed(), Instant::now());
        let Ok(found) = found else { return self.ready().look_again(took, now) };
        let found = found.into_iter().map(|(project, views)| ((project, month), views)).collect();
        self.ready().found(found, took, now);
    }

    /// It fails quietly: the next reader finds out. Where a month of it is closed meanwhile, its mark says so and it is not told.
    async fn make_ready(&self, store: &ReportStore, subject: Subject) {
        let (project, month) = subject.clone();
        let span = Span::from(month);
        let periods = span.periods((self.clock)()).unwrap_or_default();
        let wanted = Wanted { project, span, periods, pages: PagesRequest::default() };
        match in_time(self.told(store, &wanted, Patience::NONE)).await {
            Ok((report, took)) if wanted.is_running() => {
                let made = took.map(|took| self.cost(&report, took));
                self.ready().made_before(&subject, made, Instant::now());
            }
            Ok(_) => self.ready().failed(&subject),
            Err(error) => {
                self.ready().failed(&subject);
                if matches!(error, StoreError::UnknownProject) {
                    self.kept.forget(&wanted.project);
                }
            }
        }
    }
}

/// Makes those that are to be ready, one after the other, as long as anybody reads anything. Whatever ends it, another may begin.
struct Keeper {
    maker: Weak<Maker>,
    is_over: bool,
}

impl Keeper {
    async fn keep(mut self) {
        let Some(store) = self.maker.upgrade().map(|maker| maker.store.clone()) else { return };
        let store = store.yielding().await;
        let mut times_busy = 0;
        while let Some(maker) = self.maker.upgrade() {
            let next = maker.ready().next(Instant::now());
            let wait = match next {
                Next::Over => {
                    self.is_over = true;
                    break;
                }
                Next::Wait(wait) => wait,
                _ if times_busy < MOST_BUSY && maker.turns.reports.is_busy() => {
                    times_busy += 1;
                    BUSY
                }
                next => {
                    times_busy = 0;
                    match maker.turns.reports.take(PREFETCH).await {
                        Ok(_turn) => {
                            let begun = Instant::now();
                            match next {
                                Next::Make(subject) => maker.make_ready(&store, subject).await,
                                _ => maker.look_for_largest(&store).await,
                            }
                            begun.elapsed() * REST
                        }
                        Err(_) => BUSY,
                    }
                }
            };
            drop(maker);
            tokio::time::sleep(wait).await;
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Where it is over, another may have begun already.
        if !self.is_over
            && let Some(maker) = self.maker.upgrade()
        {
            maker.ready().left();
        }
    }
}

impl Wanted {
    fn asked(&self, rules: Rules) -> Asked<'_> {
        Asked { project: &self.project, span: self.span, periods: &self.periods, rules }
    }

    /// Rules are the same for all; up to which hour it goes is in its mark.
    fn key(&self) -> Key {
        (self.project.clone(), format!("{} {:?}", self.span, self.pages))
    }

    fn is_running(&self) -> bool {
        self.periods.iter().any(|period| period.is_running())
    }

    /// The project and the month, if it is what is made before somebody asks.
    fn subject(&self) -> Option<Subject> {
        let month = self.span.single().filter(|_| self.is_running() && self.pages == PagesRequest::default())?;
        Some((self.project.clone(), month))
    }
}

impl Reports {
    /// Reads with `store`, for the program itself and with turns of its own; `clock` says which months have started.
    pub fn new(store: ReportStore, config: QueryConfig, clock: Clock) -> Self {
        Reports::sharing(ReportTurns::default(), store, config, clock)
    }

    /// The same, sharing these turns.
    pub(crate) fn sharing(turns: ReportTurns, store: ReportStore, config: QueryConfig, clock: Clock) -> Self {
        let maker = Maker {
            store: store.with_timeout_ms(config.timeout_ms),
            yielding: OnceCell::new(),
            kept: KeptReports::new(config.keep_bytes),
            ready: Mutex::default(),
            turns,
            rules: config.rules,
            paths: config.paths,
            patience: config.patience,
            clock,
        };
        Reports { maker: Arc::new(maker), caller: CallerKey::Program("report") }
    }

    /// The same reports for another caller.
    #[must_use]
    pub fn for_caller(self, caller: CallerKey) -> Self {
        Reports { caller, ..self }
    }

    /// Where the endpoint serves its script and takes beacons.
    pub(crate) fn paths(&self) -> &EndpointPaths {
        &self.maker.paths
    }

    /// Now.
    pub fn now(&self) -> DateTime<Utc> {
        (self.maker.clock)()
    }

    /// The present month.
    pub fn running(&self) -> Month {
        Hour::of(self.now()).month()
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
        self.told(project, span, pages, self.maker.patience).await
    }

    /// With a `patience` of 0 it is told as it is.
    pub(crate) async fn told(
        &self,
        project: &ProjectSlug,
        span: Span,
        pages: &PagesRequest,
        patience: u32,
    ) -> Result<Arc<MonthlyReport>, Problem> {
        let periods = self.periods(span, pages)?;
        let wanted = Wanted { project: project.clone(), span, periods, pages: pages.clone() };
        let longer = self.maker.ready().longer(wanted.subject().as_ref());
        let _turn = self.turn().await?;
        let store = self.store().await;
        let told = self.maker.told(store, &wanted, Patience { times: patience, longer });
        let (report, took) = self.read(project, told).await?;
        if patience > 0 {
            self.maker.note(&wanted, &report, took);
        }
        Ok(report)
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
        let store = self.store().await;
        self.read(project, store.page_counts(&asked)).await
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
        let periods = self.periods(span, request)?;
        let asked = self.asked(project, span, &periods);
        let _turn = self.turn().await?;
        let store = self.store().await;
        let facts = self.read(project, store.pages(&asked, request)).await?;
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
        self.read(project, store.live(project, self.now())).await
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
        let store = self.store().await;
        let facts = self.read(project, store.breakdown(&asked, dimension)).await?;
        let (items, next) = page_of(make::breakdown(&facts.values, dimension, self.maker.rules), request);
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
        let store = self.store().await;
        self.read(project, store.months(&asked)).await
    }

    /// What `reading` finds, if it does before a close removes what it began to read.
    pub(crate) async fn read<T>(
        &self,
        project: &ProjectSlug,
        reading: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Problem> {
        in_time(reading).await.map_err(|error| self.problem(project, &error))
    }

    /// The problem with `project`. Of one that is gone, as after it was erased, nothing is kept.
    pub(crate) fn problem(&self, project: &ProjectSlug, error: &StoreError) -> Problem {
        if matches!(error, StoreError::UnknownProject) {
            self.maker.kept.forget(project);
        }
        problem_of(error)
    }

    pub(crate) fn asked<'a>(&self, project: &'a ProjectSlug, span: Span, periods: &'a [Period]) -> Asked<'a> {
        Asked { project, span, periods, rules: self.maker.rules }
    }

    /// The months that have begun, if `pages` can be told of them.
    pub(crate) fn periods(&self, span: Span, pages: &PagesRequest) -> Result<Vec<Period>, Problem> {
        let periods = span.periods(self.now()).map_err(|error| Problem::month_not_begun(error.to_string()))?;
        let compares = span.single().is_some() && !periods.iter().any(|period| period.is_running());
        if pages.sort == crate::report::Sort::Change && !compares {
            let expected = "sort=change compares one month that is over with the month before; expected another order";
            return Err(Problem::invalid_field("sort", expected));
        }
        Ok(periods)
    }

    /// The store with threads that let others go first.
    pub(crate) async fn yielding_store(&self) -> &ReportStore {
        self.maker.yielding.get_or_init(|| self.maker.store.clone().yielding()).await
    }

    /// The store for this caller: queries for callers without a token let those of others go first.
    async fn store(&self) -> &ReportStore {
        if self.caller.is_anonymous() { self.yielding_store().await } else { &self.maker.store }
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

/// Whether ClickHouse's words are of stored data that it cannot read (its codes by number, since not every version names them) or no longer has.
fn is_damage(cause: &str) -> bool {
    /// CHECKSUM_DOESNT_MATCH, FILE_DOESNT_EXIST, CORRUPTED_DATA, CANNOT_DECOMPRESS, CANNOT_READ_ALL_DATA, BAD_DATA_PART_NAME,
    /// NO_FILE_IN_DATA_PART, UNEXPECTED_FILE_IN_DATA_PART, BAD_SIZE_OF_FILE_IN_DATA_PART.
    const CODES: [&str; 9] = [
        "Code: 40.",
        "Code: 107.",
        "Code: 246.",
        "Code: 271.",
        "Code: 33.",
        "Code: 233.",
        "Code: 232.",
        "Code: 234.",
        "Code: 228.",
    ];
    CODES.iter().any(|code| cause.contains(code))
}

/// The problem that a reader sees; the cause is logged here, once.
pub(crate) fn problem_of(error: &StoreError) -> Problem {
    if matches!(error, StoreError::UnknownProject) {
        return Problem::unknown_project();
    }
    if matches!(error, StoreError::Away { .. }) {
        // Who knows that it is away has logged so.
        return Problem::storage_unavailable();
    }
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    if is_damage(&cause) {
        tracing::error!(
            %error,
            %cause,
            "ClickHouse's data are damaged, and reports of the damaged part are refused. Check the disk, then stop the service and restore a \
             backup of ClickHouse's data; what the log still holds is counted again"
        );
        Problem::storage_unavailable()
    } else if error.is_unavailable() {
        tracing::warn!(%error, %cause, "a report could not be read");
        Problem::storage_unavailable()
    } else {
        tracing::error!(%error, %cause, "a report could not be understood");
        Problem::unreadable_figures()
    }
}
