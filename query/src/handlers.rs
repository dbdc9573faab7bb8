//! The shell: requests are parsed, the store is asked, the answer is written.

use crate::api;
use crate::api::parameters;
use crate::page::{self, Snippet};
use crate::problem::Problem;
use crate::report::PagesRequest;
use crate::reports::Reports;
use crate::store::ReportStore;
use crate::{Clock, QueryConfig};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use schemas::ProjectSlug;
use std::sync::Arc;

/// The page's style, a file of its own so that the policy can forbid everything inline.
const STYLE: &str = include_str!("../assets/report.css");

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

pub(crate) fn router(store: ReportStore, config: QueryConfig, clock: Clock) -> Router {
    Router::new()
        .merge(api::router())
        .route("/projects/{project}/{month}", get(report_page))
        .route("/projects/{project}", get(running_month))
        .route("/assets/report.css", get(style))
        .method_not_allowed_fallback(api::no_such_method)
        .with_state(Arc::new(Reports::new(store, config, clock)))
        .layer(middleware::from_fn(protective_headers))
}

pub(crate) fn style_route() -> Router {
    Router::new().route("/assets/report.css", get(style))
}

async fn report_page(
    State(reports): State<Arc<Reports>>,
    Path((project, span)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        let (project, span) = (parameters::project(&project)?, parameters::span(&span)?);
        reports.report(&project, span, &PagesRequest::default()).await
    };
    match answer.await {
        Ok(report) => page::report(&report, reports.running(), &Snippet::from_headers(&headers)).into_response(),
        Err(problem) => problem.complete(page::problem(&problem).into_response()),
    }
}

async fn running_month(State(reports): State<Arc<Reports>>, Path(project): Path<String>) -> Response {
    // A redirect only repeats what is known to be a slug, so it cannot lead elsewhere.
    match project.parse::<ProjectSlug>() {
        Ok(project) => Redirect::temporary(&format!("/projects/{project}/{}", reports.running())).into_response(),
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

#[cfg(test)]
mod tests;
