//! The table of routes. The router, the guard, the OpenAPI document and the tests of rights are derived from it, so a route without a row
//! does not exist, and a row without a rule does not compile.

use crate::access::{Access, badge, sign_in};
use crate::api::{self, format};
use crate::cache::ReportCache;
use crate::handlers::{self, asset};
use crate::openapi::{self, Document, listing, name};
use crate::page;
use crate::report::MonthlyReport;
use crate::reports::{ProjectListing, ReportTurns, Reports};
use crate::route::{Audience, Documented, Method, Route, Rule};
use crate::store::ReportStore;
use crate::{Clock, QueryConfig};
use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};
use axum::handler::Handler;
use axum::middleware;
use axum::routing::{MethodFilter, MethodRouter, on};
use std::sync::Arc;

/// The state of all handlers.
#[derive(Clone)]
pub(crate) struct App {
    reports: Reports,
    access: Arc<Access>,
    badges: Arc<badge::Badges>,
    document: Arc<Document>,
}

impl App {
    /// Reports and badges from `store` share turns.
    pub(crate) fn new(
        store: ReportStore,
        config: QueryConfig,
        clock: Clock,
        access: &Arc<Access>,
        cache: ReportCache,
    ) -> Self {
        let turns = ReportTurns::default();
        let reports = Reports::sharing(turns.clone(), store.clone(), config.clone(), clock, cache);
        let badges = Arc::new(badge::Badges::new(store, config, access, turns));
        App { reports, access: Arc::clone(access), badges, document: Arc::new(Document::of(routes())) }
    }
}

impl FromRef<App> for Reports {
    fn from_ref(app: &App) -> Self {
        app.reports.clone()
    }
}

impl FromRef<App> for Arc<Access> {
    fn from_ref(app: &App) -> Self {
        Arc::clone(&app.access)
    }
}

impl FromRef<App> for Arc<badge::Badges> {
    fn from_ref(app: &App) -> Self {
        Arc::clone(&app.badges)
    }
}

impl FromRef<App> for Arc<Document> {
    fn from_ref(app: &App) -> Self {
        Arc::clone(&app.document)
    }
}

/// A row of the table.
struct Row {
    route: Route,
    handler: fn(MethodFilter) -> MethodRouter<App>,
}

type MakeHandler = fn(MethodFilter) -> MethodRouter<App>;

const fn people(method: Method, path: &'static str, rule: Rule, handler: MakeHandler) -> Row {
    Row { route: Route { path, method, rule, audience: Audience::People, documented: None }, handler }
}

const fn programs(path: &'static str, rule: Rule, handler: MakeHandler) -> Row {
    let route = Route { path, method: Method::Get, rule, audience: Audience::Programs, documented: None };
    Row { route, handler }
}

/// A route of `/v1`, as JSON and CSV.
const fn figures(path: &'static str, rule: Rule, handler: MakeHandler, documented: Documented) -> Row {
    let route = Route { path, method: Method::Get, rule, audience: Audience::Programs, documented: Some(documented) };
    Row { route, handler }
}

/// The handler of [`figures`], with the parameter `bom` of CSV.
fn with_bom<H: Handler<T, App>, T: 'static>(method: MethodFilter, handler: H) -> MethodRouter<App> {
    on(method, handler).layer(middleware::from_fn(format::with_byte_order_mark))
}

/// All routes of this crate except `/privacy`, which is open and also served by processes without reports.
static ROWS: &[Row] = &[
    people(Method::Get, "/assets/report.css", Rule::Open, |get| {
        on(get, asset("text/css; charset=utf-8", &page::STYLE))
    }),
    people(Method::Get, "/assets/report.js", Rule::Open, |get| {
        on(get, asset("text/javascript; charset=utf-8", &page::SCRIPT))
    }),
    people(Method::Get, "/v1/openapi.json", Rule::Open, |get| on(get, openapi::document)),
    people(Method::Get, "/sign-in", Rule::Open, |get| on(get, sign_in::form)),
    people(Method::Post, "/sign-in", Rule::Open, |post| {
        on(post, sign_in::sign_in).layer(DefaultBodyLimit::max(sign_in::FORM_BYTES))
    }),
    people(Method::Post, "/sign-out", Rule::Open, |post| on(post, sign_in::sign_out)),
    people(Method::Get, "/", Rule::SignedIn, |get| on(get, handlers::index)),
    people(Method::Get, "/projects/{project}", Rule::OfProject, |get| on(get, handlers::running_month)),
    people(Method::Get, "/projects/{project}/", Rule::OfProject, |get| on(get, handlers::without_slash)),
    people(Method::Get, "/projects/{project}/{span}", Rule::OfProject, |get| on(get, handlers::report_page)),
    programs("/projects/{project}/live", Rule::OfProject, |get| on(get, handlers::live)),
    programs("/badge/{project}", Rule::Badge, |get| on(get, badge::badge)),
    figures(
        "/v1/projects",
        Rule::SignedIn,
        |get| with_bom(get, api::projects),
        Documented {
            summary: "Projects, with their views of this month and the last",
            parameters: &["limit", "after_project", "prefix_project"],
            schema: name::<ProjectListing>,
        },
    ),
    figures(
        "/v1/projects/{project}/reports/{span}",
        Rule::OfProject,
        |get| with_bom(get, api::report),
        Documented {
            summary: "The whole report of a month or a range of months",
            parameters: &["pages_limit", "pages_after", "pages_status"],
            schema: name::<MonthlyReport>,
        },
    ),
    figures(
        "/v1/projects/{project}/reports/{span}/pages",
        Rule::OfProject,
        |get| with_bom(get, api::pages),
        Documented {
            summary: "Pages",
            parameters: &["limit_pages", "after", "prefix", "status", "sort"],
            schema: || listing("PageFigures"),
        },
    ),
    figures(
        "/v1/projects/{project}/reports/{span}/not-found",
        Rule::OfProject,
        |get| with_bom(get, api::not_found),
        Documented {
            summary: "Pages that were not found, with their referrers",
            parameters: &["limit_pages", "after", "prefix", "sort"],
            schema: || listing("PageFigures"),
        },
    ),
    figures(
        "/v1/projects/{project}/reports/{span}/breakdowns/{dimension}",
        Rule::OfProject,
        |get| with_bom(get, api::breakdown),
        Documented {
            summary: "Views by the values of one dimension; values with fewer views than the threshold are added up in the last item",
            parameters: &["limit", "after", "prefix_value", "sort_value"],
            schema: || listing("BreakdownItem"),
        },
    ),
    figures(
        "/v1/projects/{project}/reports/{span}/days",
        Rule::OfProject,
        |get| with_bom(get, api::days),
        Documented { summary: "Every day (UTC)", parameters: &[], schema: || listing("DayFigures") },
    ),
    figures(
        "/v1/projects/{project}/reports/{span}/hours",
        Rule::OfProject,
        |get| with_bom(get, api::hours),
        Documented { summary: "Every hour (UTC)", parameters: &[], schema: || listing("HourFigures") },
    ),
];

/// All routes of this crate except `/privacy`.
pub fn routes() -> impl Iterator<Item = &'static Route> {
    ROWS.iter().map(|row| &row.route)
}

/// The handlers of the routes that `is_wanted` selects.
pub(crate) fn router(app: App, is_wanted: impl Fn(&Route) -> bool) -> Router {
    let mut router = Router::new();
    for row in ROWS.iter().filter(|row| is_wanted(&row.route)) {
        for path in row.route.paths() {
            router = router.route(&path, (row.handler)(row.route.method.filter()));
        }
    }
    router.method_not_allowed_fallback(api::no_such_method).with_state(app)
}
