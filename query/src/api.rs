//! `/v1`: reports for programs, as JSON and CSV. Requests are read strictly, answers have validators, refusals are problems.

use crate::csv;
use crate::export::{Export, can_export};
use crate::period::Span;
use crate::problem::Problem;
use crate::report::{Cursor, PagesRequest};
use crate::reports::{Listing, OfCaller, Reports};
use crate::store::Visible;
use answer::{Format, format_of};
use axum::Router;
use axum::extract::{Extension, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use parameters::Parameters;
use schemas::ProjectSlug;
use schemas::classes::Dimension;
use serde::Serialize;
use std::collections::BTreeMap;

pub(crate) mod answer;
pub(crate) mod parameters;

/// The routes. All but the list of projects have `{project}` in their path, so that a layer can tell whose report is asked for. The
/// list shows what the request's extension [`Visible`] says; without one, none.
pub(crate) fn router() -> Router<Reports> {
    let route = |rest: &str| format!("/v1/projects/{{project}}/reports/{{span}}{rest}");
    Router::new()
        .route("/v1/projects", get(projects))
        .route("/v1/projects/{project}", any(crate::no_such_route))
        .route("/v1/projects/{project}/{*rest}", any(crate::no_such_route))
        .route(&route("/{*rest}"), any(crate::no_such_route))
        .route("/v1/projects.csv", get(projects))
        .route(&route(""), get(report))
        .route(&route("/pages"), get(pages))
        .route(&route("/pages.csv"), get(pages))
        .route(&route("/not-found"), get(not_found))
        .route(&route("/not-found.csv"), get(not_found))
        .route(&route("/breakdowns/{dimension}"), get(breakdown))
        .route(&route("/days"), get(days))
        .route(&route("/days.csv"), get(days))
        .route(&route("/hours"), get(hours))
        .route(&route("/hours.csv"), get(hours))
}

/// A method that a route has not.
pub(crate) async fn no_such_method(_: Request) -> Response {
    Problem::method_not_allowed().into_response()
}

/// What a path of a report says, and how the answer is to be written.
struct Asked {
    reports: Reports,
    project: ProjectSlug,
    span: Span,
    /// The dimension's name, where the path has one.
    dimension: String,
    format: Format,
    uri: Uri,
    headers: HeaderMap,
}

impl FromRequestParts<Reports> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, reports: &Reports) -> Result<Self, Problem> {
        let Ok(OfCaller(of_caller)) = OfCaller::from_request_parts(parts, reports).await;
        let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, reports).await;
        // What is not UTF-8 is nobody's project.
        let Path(path) = path.map_err(|_| Problem::unknown_project())?;
        let (uri, headers) = (parts.uri.clone(), parts.headers.clone());
        let (_, format) = format_of(uri.path(), &headers)?;
        let text = |name: &str| path.get(name).map_or("", String::as_str);
        // The form is at the path's end, and only there. A project is what the guard took it for, whatever its name ends with.
        let stem = |text: &str| {
            let is_end = uri.path().ends_with(text);
            text.strip_suffix(".csv").filter(|_| is_end).unwrap_or(text).to_owned()
        };
        let (project, span) = (parameters::project(text("project"))?, parameters::span(&stem(text("span")))?);
        let dimension = stem(text("dimension"));
        Ok(Asked { reports: of_caller, project, span, dimension, format, uri, headers })
    }
}

impl Asked {
    fn parameters(&self, known: &[&'static str]) -> Result<Parameters, Problem> {
        Parameters::of(self.uri.query(), &known_of(&self.uri, known))
    }

    /// A CSV in a file that says what it is of, as it is read.
    fn exported(&self, export: Export, name: &str) -> Response {
        answer::stream(export.into_body(), &format!("{}-{}{name}.csv", self.project, self.span))
    }

    /// Whether a list of pages is sent to its end: as CSV, where no part of it was asked for.
    fn is_whole(&self, parameters: &Parameters, request: &PagesRequest) -> bool {
        let in_part = ["limit", "after"].into_iter().any(|name| parameters.text(name).is_some());
        self.format == Format::Csv && !in_part && can_export(request.sort)
    }

    /// As JSON, or as CSV in a file that says what it is of.
    fn written<T: Serialize>(&self, list: &Listing<T>, name: &str, csv: impl Fn(&[T]) -> String) -> Response {
        match self.format {
            Format::Json => answer::json(list, &self.headers),
            Format::Csv => {
                let name = format!("{}-{}-{name}.csv", self.project, self.span);
                let mut response = continued(answer::csv(csv(&list.items), &name, &self.headers), list.next.as_deref());
                if let Some(note) = list.note {
                    response.headers_mut().insert("headcount-note", HeaderValue::from_static(note));
                }
                response
            }
        }
    }
}

/// Parameters that a route knows: a CSV's path has `bom` too, which [`answer::bom`] takes.
fn known_of(uri: &Uri, known: &[&'static str]) -> Vec<&'static str> {
    let bom = uri.path().ends_with(".csv").then_some("bom");
    known.iter().copied().chain(bom).collect()
}

/// A CSV has no place for a cursor but a header.
fn continued(mut response: Response, next: Option<&str>) -> Response {
    if let Some(Ok(next)) = next.map(axum::http::HeaderValue::from_str) {
        response.headers_mut().insert("headcount-next", next);
    }
    response
}

async fn report(asked: Asked) -> Result<Response, Problem> {
    let parameters = asked.parameters(&["pages_limit", "pages_after", "pages_status"])?;
    let (reports, project, span, headers) = (&asked.reports, &asked.project, asked.span, &asked.headers);
    let pages = parameters.pages_of_report()?;
    let name = format!("{project}-{span}.csv");
    // A file is read as a whole, so it is one, unless a part was asked for.
    let in_part = ["pages_limit", "pages_after"].into_iter().any(|name| parameters.text(name).is_some());
    Ok(match asked.format {
        Format::Json => answer::json(&*reports.report(project, span, &pages).await?, headers),
        Format::Csv if in_part => {
            let report = reports.report(project, span, &pages).await?;
            let next = report.pages.next.as_ref().map(Cursor::encode);
            continued(answer::csv(csv::report(&report), &name, headers), next.as_deref())
        }
        Format::Csv => asked.exported(reports.export(project, span, pages.status).await?, ""),
    })
}

async fn pages(asked: Asked) -> Result<Response, Problem> {
    let parameters = asked.parameters(&["limit", "after", "prefix", "status", "sort"])?;
    let request = parameters.pages()?;
    if asked.is_whole(&parameters, &request) {
        return Ok(asked.exported(asked.reports.export_pages(&asked.project, asked.span, &request).await?, "-pages"));
    }
    let list = asked.reports.pages(&asked.project, asked.span, &request).await?;
    Ok(asked.written(&list, "pages", |items| csv::pages(items, request.status == Some(404))))
}

async fn not_found(asked: Asked) -> Result<Response, Problem> {
    let parameters = asked.parameters(&["limit", "after", "prefix", "sort"])?;
    let request = PagesRequest { status: Some(404), ..parameters.pages()? };
    if asked.is_whole(&parameters, &request) {
        return Ok(
            asked.exported(asked.reports.export_pages(&asked.project, asked.span, &request).await?, "-not-found")
        );
    }
    let list = asked.reports.pages(&asked.project, asked.span, &request).await?;
    Ok(asked.written(&list, "not-found", |items| csv::pages(items, true)))
}

async fn breakdown(asked: Asked) -> Result<Response, Problem> {
    let dimension = Dimension::from_name(&asked.dimension).ok_or_else(|| {
        let names: Vec<&str> = Dimension::ALL.into_iter().map(Dimension::name).collect();
        Problem::invalid_field("dimension", format!("expected one of {}", names.join(", ")))
    })?;
    let request = asked.parameters(&["limit", "after", "prefix", "sort"])?.values()?;
    let list = asked.reports.breakdown(&asked.project, asked.span, dimension, &request).await?;
    Ok(asked.written(&list, dimension.name(), csv::breakdown))
}

async fn days(asked: Asked) -> Result<Response, Problem> {
    asked.parameters(&[])?;
    Ok(asked.written(&asked.reports.days(&asked.project, asked.span).await?, "days", csv::days))
}

async fn hours(asked: Asked) -> Result<Response, Problem> {
    asked.parameters(&[])?;
    Ok(asked.written(&asked.reports.hours(&asked.project, asked.span).await?, "hours", csv::hours))
}

async fn projects(
    OfCaller(reports): OfCaller,
    visible: Option<Extension<Visible>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (_, format) = format_of(uri.path(), &headers)?;
    let parameters = Parameters::of(uri.query(), &known_of(&uri, &["limit", "after", "prefix"]))?;
    let (limit, after) = (parameters.limit("limit")?, parameters.after_project()?);
    let prefix = parameters.text("prefix").unwrap_or("");
    let visible = visible.map_or(Visible::Only(Vec::new()), |Extension(visible)| visible);
    let list = reports.projects(&visible, prefix, after.as_ref(), limit).await?;
    Ok(match format {
        Format::Json => answer::json(&list, &headers),
        Format::Csv => {
            continued(answer::csv(csv::projects(&list.items), "projects.csv", &headers), list.next.as_deref())
        }
    })
}
