//! Monthly reports: reads one project's month from ClickHouse, unites its sketches, serves JSON and a page.
//!
//! In the order of a request's way: [`routes`] (parses) → [`store`] (asks ClickHouse) → [`report`] (adds up; pure) →
//! JSON, or the HTML of `page`. A request that cannot be served becomes a [`problem::Problem`].

use axum::Router;
use std::sync::Arc;

pub mod access;
pub mod period;
pub mod privacy;
pub mod problem;
pub mod report;
pub mod small_cells;
pub mod store;

mod handlers;
mod page;

pub use period::Period;
pub use report::{MonthlyReport, Rules, VisitorUnit};
pub use store::ReportStore;

/// What time it is. An argument, so that tests decide.
pub type Clock = Arc<dyn Fn() -> chrono::DateTime<chrono::Utc> + Send + Sync>;

/// How reports are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryConfig {
    /// What a visitor figure counts, which follows from how long `ingest` keeps a key, and what is too small to be told.
    pub rules: Rules,
    /// Longest time for one question to ClickHouse, milliseconds.
    pub timeout_ms: u64,
}

impl Default for QueryConfig {
    fn default() -> Self {
        QueryConfig { rules: Rules::default(), timeout_ms: 10_000 }
    }
}

/// The report's routes:
/// - `GET /v1/projects/{project}/reports/{YYYY-MM}`: JSON. `pages_limit` (1 to 1000, default 100), `pages_after` (the
///   cursor in `pages.next`), `pages_status` (only pages with that HTTP status).
/// - `GET /projects/{project}/{YYYY-MM}`: the same report as a page.
/// - `GET /projects/{project}`: redirects to the running month's page.
/// - `GET /assets/report.css`: the page's style.
///
/// And of `access`: `/sign-in`, `/sign-out`, `/badge/{project}.svg`. Everything is behind its guard.
pub fn guarded_routes(
    store: ReportStore,
    config: QueryConfig,
    clock: Clock,
    access: &std::sync::Arc<access::Access>,
) -> Router {
    access::guarded(routes(store.clone(), config.clone(), clock), access, store, config)
}

/// The routes without the guard.
pub(crate) fn routes(store: ReportStore, config: QueryConfig, clock: Clock) -> Router {
    handlers::router(store, config, clock)
}

/// `GET /assets/report.css` alone, for a process that serves [`privacy`] without reports.
pub fn style_route() -> Router {
    handlers::style_route()
}
