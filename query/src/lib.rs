//! Monthly reports: reads one project's month from ClickHouse, merges its sketches, serves JSON and a page.
//!
//! In the order in which a request passes them: [`routes`] (the table of routes) → [`access`] → `handlers` and `api` (parse) → [`cache`] → [`store`] (queries ClickHouse) → [`report`]
//! (adds up; pure) → JSON, or the HTML of `page`. A request that cannot be served becomes a [`problem::Problem`].

use axum::Router;
use schemas::paths::EndpointPaths;
use std::sync::Arc;

pub mod access;
pub mod cache;
pub mod csv;
pub mod markdown;
pub mod openapi;
pub mod period;
pub mod privacy;
pub mod problem;
pub mod report;
pub mod reports;
pub mod route;
pub mod small_cells;
pub mod store;
mod turns;

mod api;
mod export;
mod handlers;
mod page;
mod routes;

pub use cache::{CacheConfig, CacheFigures, ReportCache};
pub use export::{CutShort, Export};
pub use period::{Period, Span};
pub use problem::Problem;
pub use report::{MonthlyReport, PageCounts, PagesRequest, Rules, VisitorUnit};
pub use reports::Reports;
pub use routes::routes;
pub use store::{ReportStore, Visible};
pub use turns::CallerKey;

/// The current time. An argument, so that tests can set it.
pub type Clock = Arc<dyn Fn() -> chrono::DateTime<chrono::Utc> + Send + Sync>;

/// Whether most recent beacons came from one proxy that is not trusted: an extension of requests, for the page of a project without views.
/// A process without the beacon endpoint cannot know.
#[derive(Clone)]
pub struct UntrustedProxy(pub Arc<dyn Fn() -> bool + Send + Sync>);

/// How reports are computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryConfig {
    /// What a visitor figure counts (it follows from how long `ingest` keeps a key), and the threshold below which figures are suppressed.
    pub rules: Rules,
    /// Longest time of one query to ClickHouse, in milliseconds.
    pub timeout_ms: u64,
    /// The paths of the endpoint's script and beacons, for the lines that maintainers paste into the docs.
    pub paths: EndpointPaths,
}

impl Default for QueryConfig {
    fn default() -> Self {
        QueryConfig { rules: Rules::default(), timeout_ms: 10_000, paths: EndpointPaths::default() }
    }
}

/// The report's routes. `{span}` is `YYYY-MM` or `YYYY-MM..YYYY-MM`. Each route of `/v1` responds with CSV if the path ends with `.csv`, or
/// if the client accepts `text/csv`.
/// - `GET /v1/projects`: the projects; `limit`, `after`.
/// - `GET /v1/projects/{project}/reports/{span}`: the whole report; `pages_limit` (1 to 1000, default 100), `pages_after`,
///   `pages_status`.
/// - `GET …/{span}/pages`: `limit`, `after`, `prefix`, `status`, `sort`; `…/not-found`: `limit`, `after`, `prefix`, `sort`.
/// - `GET …/{span}/breakdowns/{dimension}`: `limit`, `after`, `prefix`, `sort`; `…/days`; `…/hours`.
/// - `GET /v1/openapi.json`: all of that as OpenAPI.
/// - `GET /projects/{project}/{span}`: the report as a page.
/// - `GET /projects/{project}`: redirects to the running month's page.
/// - `GET /projects/{project}/live`: whether a view has arrived, for the page that waits for the first view.
/// - `GET /assets/report.css`, `GET /assets/report.js`: the pages' stylesheet and their optional script.
///
/// Reports and their lists are served from `cache`, except lists of projects and whole exports.
///
/// - `/sign-in`, `/sign-out`, `GET /badge/{project}.svg`.
///
/// [`routes`] lists them with their rules. The guard protects all of them.
pub fn guarded_routes(
    store: ReportStore,
    config: QueryConfig,
    clock: Clock,
    access: &Arc<access::Access>,
    cache: ReportCache,
) -> Router {
    let app = routes::App::new(store, config, clock, access, cache);
    let table = route::RouteTable::of(routes::routes());
    access::guarded(routes::router(app, |_| true), access, table)
}

/// A report as one self-contained HTML file: no script, no stylesheet, no request. For a file, or for mail. `counts` has the total number
/// of pages, since the file lists only the first.
pub fn html(report: &MonthlyReport, running: schemas::Month, counts: PageCounts) -> String {
    page::standalone(report, running, counts).into_string()
}

/// The HTML line that counts a page, for its head: `script` is the URL of the service's script.
pub fn script_line(script: &str, project: &schemas::ProjectSlug) -> String {
    page::html_line(script, project.as_str())
}

/// `GET /assets/report.css` alone, for a process that serves [`privacy`] without reports.
pub fn style_route() -> Router {
    handlers::style_route()
}

/// The problem for unknown routes: a fallback.
pub async fn no_such_route() -> axum::response::Response {
    axum::response::IntoResponse::into_response(Problem::no_such_route())
}
