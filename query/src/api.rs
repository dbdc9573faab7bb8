//! `/v1`: reports for programs, as JSON and CSV. Requests are parsed strictly, responses have validators, refusals are problems.

use crate::cache::Rendered;
use crate::csv;
use crate::export::{Export, can_export};
use crate::period::Span;
use crate::problem::Problem;
use crate::report::{Cursor, PagesRequest};
use crate::reports::{Listing, OfCaller, Reports};
use crate::store::Visible;
use axum::extract::{Extension, FromRef, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use format::{Format, format_of};
use parameters::Parameters;
use schemas::ProjectSlug;
use schemas::classes::Dimension;
use serde::Serialize;
use std::collections::BTreeMap;
use std::future::Future;

pub(crate) mod format;
pub(crate) mod parameters;

/// Response to a method that a route does not support.
pub(crate) async fn no_such_method(_: Request) -> Response {
    Problem::method_not_allowed().into_response()
}

/// A request for a report: the parts of its path, and the form of the response.
#[derive(Clone)]
pub(crate) struct ReportRequest {
    reports: Reports,
    project: ProjectSlug,
    span: Span,
    /// The dimension's name, if the path has one.
    dimension: String,
    format: Format,
    uri: Uri,
    headers: HeaderMap,
}

impl<S: Send + Sync> FromRequestParts<S> for ReportRequest
where
    Reports: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Ok(OfCaller(of_caller)) = OfCaller::from_request_parts(parts, state).await;
        let path = Path::<BTreeMap<String, String>>::from_request_parts(parts, state).await;
        // A path that is not UTF-8 names no project.
        let Path(path) = path.map_err(|_| Problem::unknown_project())?;
        let (uri, headers) = (parts.uri.clone(), parts.headers.clone());
        let (_, format) = format_of(uri.path(), &headers)?;
        let text = |name: &str| path.get(name).map_or("", String::as_str);
        // `.csv` counts only at the path's end. The project's name stays as the guard parsed it, whatever it ends with.
        let stem = |text: &str| {
            let is_end = uri.path().ends_with(text);
            text.strip_suffix(".csv").filter(|_| is_end).unwrap_or(text).to_owned()
        };
        let (project, span) = (parameters::project(text("project"))?, parameters::span(&stem(text("span")))?);
        let dimension = stem(text("dimension"));
        Ok(ReportRequest { reports: of_caller, project, span, dimension, format, uri, headers })
    }
}

impl ReportRequest {
    fn parameters(&self, known: &[&'static str]) -> Result<Parameters, Problem> {
        Parameters::of(self.uri.query(), &known_of(&self.uri, known))
    }

    /// An export as a CSV file with a descriptive name, streamed.
    fn exported(&self, export: Export, name: &str) -> Response {
        format::stream(export.into_body(), &format!("{}-{}{name}.csv", self.project, self.span))
    }

    /// Whether a list of pages is sent as a whole: as CSV, if the request has neither `limit` nor `after`.
    fn is_whole(&self, parameters: &Parameters, request: &PagesRequest) -> bool {
        let in_part = ["limit", "after"].into_iter().any(|name| parameters.text(name).is_some());
        self.format == Format::Csv && !in_part && can_export(request.sort)
    }

    /// The response, from the cache or rendered by `render` for the same request with other [`Reports`]. `what` names the route and
    /// contains its parameters.
    async fn cached<F>(&self, what: String, render: impl FnOnce(ReportRequest) -> F + Send) -> Result<Response, Problem>
    where
        F: Future<Output = Result<Rendered, Problem>> + Send + 'static,
    {
        let what = format!("{:?} {} {what}", self.format, self.span);
        let render = |reports| render(ReportRequest { reports, ..self.clone() });
        self.reports.cached(&self.project, what, &self.headers, render).await
    }

    /// As JSON, or as a CSV file with a descriptive name.
    fn written<T: Serialize>(
        &self,
        list: &Listing<T>,
        name: &str,
        csv: impl Fn(&[T]) -> String,
    ) -> Result<Rendered, Problem> {
        let is_cacheable = !list.items.is_empty();
        if self.format == Format::Json {
            return rendered_json(list, is_cacheable);
        }
        let mut headers = continued(list.next.as_deref());
        headers.extend(list.note.map(|note| (NOTE, HeaderValue::from_static(note))));
        Ok(self.rendered_csv(csv(&list.items), &format!("-{name}"), headers, is_cacheable))
    }

    fn rendered_csv(
        &self,
        text: String,
        name: &str,
        headers: Vec<(HeaderName, HeaderValue)>,
        is_cacheable: bool,
    ) -> Rendered {
        let file_name = Some(format!("{}-{}{name}.csv", self.project, self.span));
        Rendered { content_type: format::CSV, body: text.into_bytes(), headers, file_name, is_cacheable }
    }
}

const NOTE: HeaderName = HeaderName::from_static("headcount-note");
const NEXT: HeaderName = HeaderName::from_static("headcount-next");

fn rendered_json<T: Serialize>(value: &T, is_cacheable: bool) -> Result<Rendered, Problem> {
    let body = format::json_bytes(value)?;
    Ok(Rendered { content_type: format::JSON, body, headers: Vec::new(), file_name: None, is_cacheable })
}

/// The parameters that a route accepts. For a CSV's path also `bom`, which [`format::with_byte_order_mark`] handles.
fn known_of(uri: &Uri, known: &[&'static str]) -> Vec<&'static str> {
    let bom = uri.path().ends_with(".csv").then_some("bom");
    known.iter().copied().chain(bom).collect()
}

/// In CSV the cursor is a header.
fn continued(next: Option<&str>) -> Vec<(HeaderName, HeaderValue)> {
    let value = next.and_then(|next| HeaderValue::from_str(next).ok());
    value.map(|value| (NEXT, value)).into_iter().collect()
}

pub(crate) async fn report(asked: ReportRequest) -> Result<Response, Problem> {
    let parameters = asked.parameters(&["pages_limit", "pages_after", "pages_status"])?;
    let pages = parameters.pages_of_report()?;
    // A CSV file has all pages, unless the request asks for a part.
    let in_part = ["pages_limit", "pages_after"].into_iter().any(|name| parameters.text(name).is_some());
    if asked.format == Format::Csv && !in_part {
        return Ok(asked.exported(asked.reports.export(&asked.project, asked.span, pages.status).await?, ""));
    }
    let render = async move |asked: ReportRequest, pages: PagesRequest| {
        let report = asked.reports.report(&asked.project, asked.span, &pages).await?;
        let is_cacheable = report.totals.views > 0;
        if asked.format == Format::Json {
            return rendered_json(&report, is_cacheable);
        }
        let next = report.pages.next.as_ref().map(Cursor::encode);
        Ok(asked.rendered_csv(csv::report(&report), "", continued(next.as_deref()), is_cacheable))
    };
    asked.cached(format!("report {pages:?}"), |asked| render(asked, pages)).await
}

pub(crate) async fn pages(asked: ReportRequest) -> Result<Response, Problem> {
    let parameters = asked.parameters(&["limit", "after", "prefix", "status", "sort"])?;
    let request = parameters.pages()?;
    if asked.is_whole(&parameters, &request) {
        return Ok(asked.exported(asked.reports.export_pages(&asked.project, asked.span, &request).await?, "-pages"));
    }
    let render = async move |asked: ReportRequest, request: PagesRequest| {
        let list = asked.reports.pages(&asked.project, asked.span, &request).await?;
        asked.written(&list, "pages", |items| csv::pages(items, request.status == Some(404)))
    };
    asked.cached(format!("pages {request:?}"), |asked| render(asked, request)).await
}

pub(crate) async fn not_found(asked: ReportRequest) -> Result<Response, Problem> {
    let parameters = asked.parameters(&["limit", "after", "prefix", "sort"])?;
    let request = PagesRequest { status: Some(404), ..parameters.pages()? };
    if asked.is_whole(&parameters, &request) {
        return Ok(
            asked.exported(asked.reports.export_pages(&asked.project, asked.span, &request).await?, "-not-found")
        );
    }
    let render = async move |asked: ReportRequest, request: PagesRequest| {
        let list = asked.reports.pages(&asked.project, asked.span, &request).await?;
        asked.written(&list, "not-found", |items| csv::pages(items, true))
    };
    asked.cached(format!("not-found {request:?}"), |asked| render(asked, request)).await
}

pub(crate) async fn breakdown(asked: ReportRequest) -> Result<Response, Problem> {
    let dimension = Dimension::from_name(&asked.dimension).ok_or_else(|| {
        let names: Vec<&str> = Dimension::ALL.into_iter().map(Dimension::name).collect();
        Problem::invalid_field("dimension", format!("expected one of {}", names.join(", ")))
    })?;
    let request = asked.parameters(&["limit", "after", "prefix", "sort"])?.values()?;
    let what = format!("breakdown {} {request:?}", dimension.name());
    let render = async move |asked: ReportRequest| {
        let list = asked.reports.breakdown(&asked.project, asked.span, dimension, &request).await?;
        asked.written(&list, dimension.name(), csv::breakdown)
    };
    asked.cached(what, render).await
}

pub(crate) async fn days(asked: ReportRequest) -> Result<Response, Problem> {
    asked.parameters(&[])?;
    let render = async |asked: ReportRequest| {
        asked.written(&asked.reports.days(&asked.project, asked.span).await?, "days", csv::days)
    };
    asked.cached("days".to_owned(), render).await
}

pub(crate) async fn hours(asked: ReportRequest) -> Result<Response, Problem> {
    asked.parameters(&[])?;
    let render = async |asked: ReportRequest| {
        asked.written(&asked.reports.hours(&asked.project, asked.span).await?, "hours", csv::hours)
    };
    asked.cached("hours".to_owned(), render).await
}

pub(crate) async fn projects(
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
        Format::Json => format::json(&list, &headers),
        Format::Csv => {
            let mut response = format::csv(csv::projects(&list.items), "projects.csv", &headers);
            response.headers_mut().extend(continued(list.next.as_deref()));
            response
        }
    })
}
