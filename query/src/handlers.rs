//! HTTP handlers: they parse requests, query the store and write responses.

use crate::UntrustedProxy;
use crate::api;
use crate::api::parameters::{self, Parameters};
use crate::cache::Rendered;
use crate::page::{self, IndexAsked, ListAsked, Snippet};
use crate::period::Span;
use crate::problem::Problem;
use crate::report::{MonthlyReport, PagesRequest};
use crate::reports::{OfCaller, Reports};
use crate::store::Visible;
use axum::extract::{Extension, Path, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use schemas::ProjectSlug;

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(crate) fn router(reports: Reports) -> Router {
    Router::new()
        .merge(api::router().layer(middleware::from_fn(api::answer::with_byte_order_mark)))
        .merge(crate::openapi::route())
        .route("/", get(index))
        .route("/projects/{project}/{span}", get(report_page))
        .route("/projects/{project}", get(running_month))
        .route("/projects/{project}/", get(without_slash))
        .route("/projects/{project}/live", get(live))
        .merge(assets())
        .method_not_allowed_fallback(api::no_such_method)
        .with_state(reports)
        .layer(middleware::from_fn(protective_headers))
}

pub(crate) fn style_route() -> Router {
    assets().layer(middleware::from_fn(protective_headers))
}

/// The stylesheet and the script of the pages.
fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let file = |kind: &'static str, text: &'static str| get(async move || ([(header::CONTENT_TYPE, kind)], text));
    Router::new()
        .route("/assets/report.css", file("text/css; charset=utf-8", &page::STYLE))
        .route("/assets/report.js", file("text/javascript; charset=utf-8", &page::SCRIPT))
}

async fn report_page(
    OfCaller(reports): OfCaller,
    Path((project, span)): Path<(String, String)>,
    proxy: Option<Extension<UntrustedProxy>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let snippet = Snippet::from_headers(&headers, reports.paths());
    let untrusted_proxy = proxy.is_some_and(|Extension(UntrustedProxy(is_noticed))| is_noticed());
    let answer = async {
        let (project, span) = (parameters::project(&project)?, parameters::span(&span)?);
        let (pages, asked) = list_asked(&uri)?;
        // If the project has no views, the page shows lines for this origin.
        let what = format!("page {span} {pages:?} {} {untrusted_proxy}", snippet.origin());
        let of_project = project.clone();
        let render = async move |reports: Reports| {
            let report = page_report(&reports, &project, span, &pages).await?;
            let html = page::report(&report, reports.running(), &asked, &snippet, untrusted_proxy);
            Ok(Rendered {
                content_type: "text/html; charset=utf-8",
                body: html.into_string().into_bytes(),
                headers: Vec::new(),
                file_name: None,
                is_cacheable: report.totals.views > 0,
            })
        };
        reports.cached(&of_project, what, &headers, render).await
    };
    answer.await.unwrap_or_else(|problem| problem.complete(page::problem(&problem).into_response()))
}

/// The report for the page. Without parameters it lists as many pages not found as the API does.
async fn page_report(
    reports: &Reports,
    project: &ProjectSlug,
    span: Span,
    pages: &PagesRequest,
) -> Result<MonthlyReport, Problem> {
    if !pages.is_plain() {
        return reports.report(project, span, pages).await;
    }
    let report = reports.report(project, span, &PagesRequest::default()).await?;
    Ok(MonthlyReport { pages: report.pages.first(pages.limit), ..report })
}

async fn running_month(OfCaller(reports): OfCaller, Path(project): Path<String>, uri: Uri) -> Response {
    // The redirect contains a validated slug only, so it cannot lead to another site.
    match project.parse::<ProjectSlug>() {
        Ok(project) => Redirect::temporary(&with_query(&format!("/projects/{project}/{}", reports.running()), &uri))
            .into_response(),
        Err(_) => {
            let problem = Problem::unknown_project();
            problem.complete(page::problem(&problem).into_response())
        }
    }
}

/// `path` with the query of the request.
fn with_query(path: &str, uri: &Uri) -> String {
    uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"))
}

/// `/projects/docs/` redirects to `/projects/docs`.
async fn without_slash(Path(project): Path<String>, uri: Uri) -> Response {
    match project.parse::<ProjectSlug>() {
        Ok(project) => Redirect::permanent(&with_query(&format!("/projects/{project}"), &uri)).into_response(),
        Err(_) => {
            let problem = Problem::unknown_project();
            problem.complete(page::problem(&problem).into_response())
        }
    }
}

/// The parameters of the page's list of pages. The page is for people, so unknown parameters in its URL are ignored, and a path prefix may
/// lack its slash.
fn list_asked(uri: &Uri) -> Result<(PagesRequest, ListAsked), Problem> {
    const KNOWN: [&str; 4] = ["prefix", "sort", "status", "after"];
    let pairs = uri.query().unwrap_or("").split('&').filter(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        KNOWN.contains(&name) && !value.is_empty()
    });
    let pairs: Vec<String> = pairs
        .map(|pair| match pair.strip_prefix("prefix=") {
            Some(path) if !path.starts_with('/') && !path.to_ascii_lowercase().starts_with("%2f") => {
                format!("prefix=%2F{path}")
            }
            _ => pair.to_owned(),
        })
        .collect();
    let request = Parameters::of(Some(&pairs.join("&")), &KNOWN)?.pages()?;
    let asked = ListAsked {
        prefix: request.prefix.clone().unwrap_or_default(),
        sort: request.sort,
        status: request.status,
        continued: request.after.is_some(),
    };
    Ok((PagesRequest { limit: page::PAGES_SHOWN, ..request }, asked))
}

/// The projects that the caller may see, as [`Visible`] in the request's extensions says; without one, none.
async fn index(OfCaller(reports): OfCaller, visible: Option<Extension<Visible>>, uri: Uri) -> Response {
    let answer = async {
        let parameters = Parameters::of(uri.query(), &["prefix", "after"])?;
        let after = parameters.after_project()?;
        let prefix = parameters.text("prefix").unwrap_or("").to_owned();
        let visible = visible.map_or(Visible::Only(Vec::new()), |Extension(visible)| visible);
        let listing = reports.projects(&visible, &prefix, after.as_ref(), page::PROJECTS_SHOWN).await?;
        Ok::<_, Problem>((listing, prefix, after.is_some()))
    };
    match answer.await {
        Ok((listing, prefix, continued)) => {
            let asked = IndexAsked { prefix: &prefix, continued, next: listing.next.as_deref() };
            page::index(&listing.items, &asked, reports.running()).into_response()
        }
        Err(problem) => problem.complete(page::problem(&problem).into_response()),
    }
}

/// Whether views arrive, for the page that waits for the first one.
async fn live(OfCaller(reports): OfCaller, Path(project): Path<String>) -> Response {
    let answer = async {
        let project = parameters::project(&project)?;
        reports.live(&project).await
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
