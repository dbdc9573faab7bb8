//! `/v1`: reports for programs, as JSON and CSV. Requests are read strictly, answers have validators, refusals are problems.

use crate::csv;
use crate::problem::Problem;
use crate::report::PagesRequest;
use crate::reports::Reports;
use crate::store::Visible;
use answer::{Format, format_of};
use axum::Router;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{HeaderMap, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use parameters::Parameters;
use schemas::classes::Dimension;
use std::sync::Arc;

pub(crate) mod answer;
pub(crate) mod parameters;

type Asked = State<Arc<Reports>>;

/// The routes. All but the list of projects have `{project}` in their path, so that a layer can tell whose report is asked for. The
/// list shows what the request's extension [`Visible`] says; without one, none.
pub(crate) fn router() -> Router<Arc<Reports>> {
    let of_report = |rest: &str| format!("/v1/projects/{{project}}/reports/{{span}}{rest}");
    Router::new()
        .route("/v1/projects", get(projects))
        .route("/v1/projects/{project}", any(crate::no_such_route))
        .route("/v1/projects/{project}/{*rest}", any(crate::no_such_route))
        .route(&of_report("/{*rest}"), any(crate::no_such_route))
        .route("/v1/projects.csv", get(projects))
        .route(&of_report(""), get(report))
        .route(&of_report("/pages"), get(pages))
        .route(&of_report("/pages.csv"), get(pages))
        .route(&of_report("/not-found"), get(not_found))
        .route(&of_report("/not-found.csv"), get(not_found))
        .route(&of_report("/breakdowns/{dimension}"), get(breakdown))
        .route(&of_report("/days"), get(days))
        .route(&of_report("/days.csv"), get(days))
        .route(&of_report("/hours"), get(hours))
        .route(&of_report("/hours.csv"), get(hours))
}

/// A method that a route has not.
pub(crate) async fn no_such_method(_: Request) -> Response {
    Problem::method_not_allowed().into_response()
}

/// The format by the path's end, or by what is accepted.
fn format(uri: &Uri, headers: &HeaderMap) -> Result<Format, Problem> {
    format_of(uri.path(), headers).map(|(_, format)| format)
}

fn told(answer: Result<Response, Problem>) -> Response {
    answer.unwrap_or_else(IntoResponse::into_response)
}

async fn report(
    State(reports): Asked,
    Path((project, span)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        let (span, format) = format_of(&span, &headers)?;
        let (project, span) = (parameters::project(&project)?, parameters::span(span)?);
        let known = ["pages_limit", "pages_after", "pages_status"];
        let parameters = Parameters::of(uri.query(), &known)?;
        let pages = parameters.pages_of_report()?;
        let name = format!("{project}-{span}.csv");
        // A file is read as a whole, so it is one, unless a part was asked for.
        let in_part = ["pages_limit", "pages_after"].into_iter().any(|name| parameters.text(name).is_some());
        Ok(match format {
            Format::Json => answer::json(&*reports.report(&project, span, &pages).await?, &headers),
            Format::Csv if in_part => {
                let report = reports.report(&project, span, &pages).await?;
                let next = report.pages.next.as_ref().map(crate::report::Cursor::encode);
                continued(answer::csv(csv::report(&report), &name, &headers), next.as_deref())
            }
            Format::Csv => {
                let report = reports.whole(&project, span, pages.status).await?;
                answer::csv(csv::report(&report), &name, &headers)
            }
        })
    };
    told(answer.await)
}

async fn pages(reports: Asked, path: Path<(String, String)>, uri: Uri, headers: HeaderMap) -> Response {
    let request = Parameters::of(uri.query(), &["limit", "after", "prefix", "status", "sort"]).and_then(|p| p.pages());
    told(listed_pages(reports, path, &uri, &headers, request, "pages").await)
}

async fn not_found(reports: Asked, path: Path<(String, String)>, uri: Uri, headers: HeaderMap) -> Response {
    let request = Parameters::of(uri.query(), &["limit", "after", "prefix", "sort"]).and_then(|p| p.pages());
    let request = request.map(|request| PagesRequest { status: Some(404), ..request });
    told(listed_pages(reports, path, &uri, &headers, request, "not-found").await)
}

async fn listed_pages(
    State(reports): Asked,
    Path((project, span)): Path<(String, String)>,
    uri: &Uri,
    headers: &HeaderMap,
    request: Result<PagesRequest, Problem>,
    name: &str,
) -> Result<Response, Problem> {
    let (project, span) = (parameters::project(&project)?, parameters::span(&span)?);
    let (format, request) = (format(uri, headers)?, request?);
    let listing = reports.pages(&project, span, &request).await?;
    Ok(match format {
        Format::Json => answer::json(&listing, headers),
        Format::Csv => {
            let text = csv::pages(&listing.items, request.status == Some(404));
            continued(answer::csv(text, &format!("{project}-{span}-{name}.csv"), headers), listing.next.as_deref())
        }
    })
}

/// A CSV has no place for a cursor but a header.
fn continued(mut response: Response, next: Option<&str>) -> Response {
    if let Some(Ok(next)) = next.map(axum::http::HeaderValue::from_str) {
        response.headers_mut().insert("headcount-next", next);
    }
    response
}

async fn breakdown(
    State(reports): Asked,
    Path((project, span, dimension)): Path<(String, String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        let (project, span) = (parameters::project(&project)?, parameters::span(&span)?);
        let (name, format) = format_of(&dimension, &headers)?;
        let dimension = Dimension::from_name(name).ok_or_else(|| {
            let names: Vec<&str> = Dimension::ALL.into_iter().map(Dimension::name).collect();
            Problem::invalid_field("dimension", format!("expected one of {}", names.join(", ")))
        })?;
        let request = Parameters::of(uri.query(), &["limit", "after", "prefix", "sort"])?.values()?;
        let listing = reports.breakdown(&project, span, dimension, &request).await?;
        Ok(match format {
            Format::Json => answer::json(&listing, &headers),
            Format::Csv => {
                let name = format!("{project}-{span}-{}.csv", dimension.name());
                continued(answer::csv(csv::breakdown(&listing.items), &name, &headers), listing.next.as_deref())
            }
        })
    };
    told(answer.await)
}

async fn days(
    State(reports): Asked,
    Path((project, span)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        let (project, span) = (parameters::project(&project)?, parameters::span(&span)?);
        let (format, _) = (format(&uri, &headers)?, Parameters::of(uri.query(), &[])?);
        let listing = reports.days(&project, span).await?;
        Ok(match format {
            Format::Json => answer::json(&listing, &headers),
            Format::Csv => answer::csv(csv::days(&listing.items), &format!("{project}-{span}-days.csv"), &headers),
        })
    };
    told(answer.await)
}

async fn hours(
    State(reports): Asked,
    Path((project, span)): Path<(String, String)>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        let (project, span) = (parameters::project(&project)?, parameters::span(&span)?);
        let (format, _) = (format(&uri, &headers)?, Parameters::of(uri.query(), &[])?);
        let listing = reports.hours(&project, span).await?;
        Ok(match format {
            Format::Json => answer::json(&listing, &headers),
            Format::Csv => answer::csv(csv::hours(&listing.items), &format!("{project}-{span}-hours.csv"), &headers),
        })
    };
    told(answer.await)
}

async fn projects(
    State(reports): Asked,
    visible: Option<Extension<Visible>>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let answer = async {
        let format = format(&uri, &headers)?;
        let parameters = Parameters::of(uri.query(), &["limit", "after", "prefix"])?;
        let (limit, after) = (parameters.limit("limit")?, parameters.after_project()?);
        let prefix = parameters.text("prefix").unwrap_or("");
        let visible = visible.map_or(Visible::Only(Vec::new()), |Extension(visible)| visible);
        let listing = reports.projects(&visible, prefix, after.as_ref(), limit).await?;
        Ok(match format {
            Format::Json => answer::json(&listing, &headers),
            Format::Csv => {
                continued(answer::csv(csv::projects(&listing.items), "projects.csv", &headers), listing.next.as_deref())
            }
        })
    };
    told(answer.await)
}
