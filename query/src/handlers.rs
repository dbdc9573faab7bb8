//! The shell: requests are parsed, the store is asked, the answer is written.

use crate::api;
use crate::api::parameters::{self, Parameters};
use crate::page::{self, ListAsked, Snippet};
use crate::problem::Problem;
use crate::report::PagesRequest;
use crate::reports::{Reports, problem_of};
use crate::store::ReportStore;
use crate::{Clock, QueryConfig};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use schemas::ProjectSlug;
use std::sync::Arc;

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(crate) fn router(store: ReportStore, config: QueryConfig, clock: Clock) -> Router {
    Router::new()
        .merge(api::router())
        .route("/projects/{project}/{month}", get(report_page))
        .route("/projects/{project}", get(running_month))
        .route("/projects/{project}/live", get(live))
        .merge(assets())
        .method_not_allowed_fallback(api::no_such_method)
        .with_state(Arc::new(Reports::new(store, config, clock)))
        .layer(middleware::from_fn(protective_headers))
}

pub(crate) fn style_route() -> Router {
    assets().layer(middleware::from_fn(protective_headers))
}

/// The pages' style and script.
fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let file = |kind: &'static str, text: &'static str| get(async move || ([(header::CONTENT_TYPE, kind)], text));
    Router::new()
        .route("/assets/report.css", file("text/css; charset=utf-8", page::STYLE))
        .route("/assets/report.js", file("text/javascript; charset=utf-8", page::SCRIPT))
}

async fn report_page(
    State(reports): State<Arc<Reports>>,
    Path((project, span)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        let (project, span) = (parameters::project(&project)?, parameters::span(&span)?);
        let asked = Parameters::of(uri.query(), &["prefix", "sort", "status", "after"])?.pages()?;
        let asked = PagesRequest { limit: page::PAGES_SHOWN, ..asked };
        let list = ListAsked {
            prefix: asked.prefix.clone().unwrap_or_default(),
            sort: asked.sort.name().to_owned(),
            status: asked.status,
            continued: asked.after.is_some(),
        };
        Ok::<_, Problem>((reports.report(&project, span, &asked).await?, list))
    };
    match answer.await {
        Ok((report, list)) => {
            page::report(&report, reports.running(), &list, &Snippet::from_headers(&headers)).into_response()
        }
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

/// Whether views arrive, for the page that waits for the first one.
async fn live(State(reports): State<Arc<Reports>>, Path(project): Path<String>) -> Response {
    let answer = async {
        let project: ProjectSlug = project.parse().map_err(|_| Problem::unknown_project())?;
        reports.store().live(&project, reports.now()).await.map_err(|error| problem_of(&error))
    };
    match answer.await {
        Ok(live) => Json(live).into_response(),
        Err(problem) => problem.into_response(),
    }
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
