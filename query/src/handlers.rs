//! The shell: requests are parsed, the store is asked, the answer is written.

use crate::page::{self, Snippet};
use crate::period::Period;
use crate::problem::Problem;
use crate::report::pages::{DEFAULT_LIMIT, MAX_LIMIT};
use crate::report::{Cursor, MonthlyReport};
use crate::store::{PagesRequest, ReportStore, StoreError};
use crate::{Clock, QueryConfig};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use schemas::{Hour, Month, ProjectSlug};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// The page's style, a file of its own so that the policy can forbid everything inline.
const STYLE: &str = include_str!("../assets/report.css");

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// Reports read at once. Each holds a month's rows, and shares the engine with the aggregator's inserts.
const AT_ONCE: usize = 8;

/// How long a request waits for its turn.
const TURN: Duration = Duration::from_secs(5);

struct Reports {
    turns: Semaphore,
    store: ReportStore,
    config: QueryConfig,
    clock: Clock,
}

pub(crate) fn router(store: ReportStore, config: QueryConfig, clock: Clock) -> Router {
    let store = store.with_timeout_ms(config.timeout_ms);
    Router::new()
        .route("/v1/projects/{project}/reports/{month}", get(report_json))
        .route("/projects/{project}/{month}", get(report_page))
        .route("/projects/{project}", get(running_month))
        .route("/assets/report.css", get(style))
        .with_state(Arc::new(Reports { turns: Semaphore::new(AT_ONCE), store, config, clock }))
        .layer(middleware::from_fn(protective_headers))
}

pub(crate) fn style_route() -> Router {
    Router::new().route("/assets/report.css", get(style))
}

async fn report_json(
    State(reports): State<Arc<Reports>>,
    Path((project, month)): Path<(String, String)>,
    uri: Uri,
) -> Response {
    let answer = async {
        let pages = pages_request(&uri)?;
        reports.report(&project, &month, &pages).await
    };
    match answer.await {
        Ok(report) => Json(report).into_response(),
        Err(problem) => problem.into_response(),
    }
}

async fn report_page(
    State(reports): State<Arc<Reports>>,
    Path((project, month)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let pages = PagesRequest { limit: DEFAULT_LIMIT, after: None, status: None };
    match reports.report(&project, &month, &pages).await {
        Ok(report) => {
            let running = Hour::of((reports.clock)()).month();
            page::report(&report, running, &Snippet::from_headers(&headers)).into_response()
        }
        Err(problem) => problem.complete(page::problem(&problem).into_response()),
    }
}

async fn running_month(State(reports): State<Arc<Reports>>, Path(project): Path<String>) -> Response {
    // A redirect only repeats what is known to be a slug, so it cannot lead elsewhere.
    match project.parse::<ProjectSlug>() {
        Ok(project) => {
            let month = Hour::of((reports.clock)()).month();
            Redirect::temporary(&format!("/projects/{project}/{month}")).into_response()
        }
        Err(_) => {
            let problem = Problem::unknown_project();
            problem.complete(page::problem(&problem).into_response())
        }
    }
}

async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)
}

async fn protective_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "private, no-cache"),
    ] {
        headers.insert::<HeaderName>(name, HeaderValue::from_static(value));
    }
    response
}

impl Reports {
    async fn report(&self, project: &str, month: &str, pages: &PagesRequest) -> Result<MonthlyReport, Problem> {
        // What cannot be a slug is nobody's project; the answer need not tell the two apart.
        let project: ProjectSlug = project.parse().map_err(|_| Problem::unknown_project())?;
        let month: Month = month
            .parse()
            .map_err(|error: schemas::time::InvalidMonth| Problem::invalid_field("month", error.to_string()))?;
        let period = Period::of(month, (self.clock)()).map_err(|error| Problem::month_not_begun(error.to_string()))?;
        let turn = tokio::time::timeout(TURN, self.turns.acquire()).await;
        let _turn = turn.ok().and_then(Result::ok).ok_or_else(Problem::too_many_reports)?;
        let facts = self.store.month(&project, period, pages).await.map_err(|error| problem_of(&error))?;
        Ok(MonthlyReport::of(project, period, &facts, self.config.rules))
    }
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

/// Reads `pages_limit`, `pages_after` and `pages_status`. Other parameters are ignored.
fn pages_request(uri: &Uri) -> Result<PagesRequest, Problem> {
    let mut request = PagesRequest { limit: DEFAULT_LIMIT, after: None, status: None };
    // None of the three values needs percent-encoding, so an encoded one is not ours.
    for (name, value) in uri.query().unwrap_or("").split('&').filter_map(|pair| pair.split_once('=')) {
        match name {
            "pages_limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
                let expected =
                    || Problem::invalid_field("pages_limit", format!("expected a number from 1 to {MAX_LIMIT}"));
                request.limit = limit.ok_or_else(expected)?;
            }
            "pages_after" => {
                let cursor = Cursor::decode(value);
                request.after = Some(cursor.map_err(|error| Problem::invalid_field("pages_after", error.to_string()))?);
            }
            "pages_status" => {
                let status = value.parse().ok().filter(|status| (100..=599).contains(status));
                let expected = || Problem::invalid_field("pages_status", "expected an HTTP status from 100 to 599");
                request.status = Some(status.ok_or_else(expected)?);
            }
            _ => {}
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests;
