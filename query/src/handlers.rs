//! HTTP handlers: they parse requests, query the store and write responses.

use crate::UntrustedProxy;
use crate::access::headers;
use crate::api::parameters::{self, Parameters};
use crate::cache::Rendered;
use crate::page::{self, IndexAsked, ListAsked, Snippet};
use crate::period::Span;
use crate::problem::Problem;
use crate::report::{MonthlyReport, PagesRequest};
use crate::reports::{OfCaller, Reports};
use crate::store::Visible;
use axum::extract::{Extension, Path};
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use schemas::ProjectSlug;
use std::future::{Ready, ready};

/// `GET /assets/report.css` alone, for a process without reports.
pub(crate) fn style_route() -> Router {
    let sent = asset("text/css; charset=utf-8", &page::STYLE);
    let protected = async move || {
        let mut response = sent().await.into_response();
        headers::protect(&mut response, headers::HeaderKind::default());
        response
    };
    Router::new().route("/assets/report.css", get(protected))
}

/// The handler of a constant file.
pub(crate) fn asset(
    kind: &'static str,
    text: &'static str,
) -> impl Fn() -> Ready<([(HeaderName, &'static str); 1], &'static str)> + Clone + Send + Sync + 'static {
    move || ready(([(header::CONTENT_TYPE, kind)], text))
}

pub(crate) async fn report_page(
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

pub(crate) async fn running_month(OfCaller(reports): OfCaller, Path(project): Path<String>, uri: Uri) -> Response {
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
pub(crate) async fn without_slash(Path(project): Path<String>, uri: Uri) -> Response {
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
pub(crate) async fn index(OfCaller(reports): OfCaller, visible: Option<Extension<Visible>>, uri: Uri) -> Response {
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
pub(crate) async fn live(OfCaller(reports): OfCaller, Path(project): Path<String>) -> Response {
    let answer = async {
        let project = parameters::project(&project)?;
        reports.live(&project).await
    };
    match answer.await {
        Ok(live) => Json(live).into_response(),
        Err(problem) => problem.into_response(),
    }
}

#[cfg(test)]
mod tests;
