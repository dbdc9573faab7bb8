//! Exports: a whole report, or a whole list of pages, as CSV that is written while its rows arrive.
//!
//! One task reads rows and writes chunks, and waits while the client has not read the last few. So an export takes constant memory in this
//! process, however many pages the project has. The task ends when its client disconnects, and after [`EXPORT_WITHIN`] in any case. If an
//! export fails, its body ends with an error, so that the client does not take a part for the whole.

use crate::csv;
use crate::period::Span;
use crate::problem::Problem;
use crate::report::breakdowns::LISTED_VALUES;
use crate::report::{MonthlyReport, PageFigures, PageListFigures, PagesRequest, Sort, ValuesRequest};
use crate::reports::{Reports, problem_of};
use crate::store::{PageScan, ReportStore, StoreError};
use crate::turns::Turn;
use axum::body::{Body, Bytes};
use schemas::ProjectSlug;
use schemas::classes::Dimension;
use schemas::close::READ_WITHIN;
use std::time::Duration;
use tokio::sync::mpsc;

/// Longest time of an export, including the client's reading: a list of 40 MB needs a client that reads 350 kB a second. The export holds
/// its turn and its query in ClickHouse as long.
const EXPORT_WITHIN: Duration = Duration::from_secs(120);

/// Approximate bytes of a chunk.
const CHUNK_BYTES: usize = 64 << 10;

/// Chunks that wait for the client.
const CHUNKS: usize = 4;

/// Pages after which the task yields to other tasks on this thread.
const PAGES_PER_STEP: usize = 64;

/// The export failed before its end: ClickHouse failed, or the client exceeded the time limit. The cause is logged.
#[derive(Debug, thiserror::Error)]
#[error("the export was cut short")]
pub struct CutShort;

/// A CSV, chunk by chunk.
pub struct Export {
    /// None is the end; without it, the export is incomplete.
    chunks: mpsc::Receiver<Option<Bytes>>,
}

impl Export {
    /// The next chunk; none at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, CutShort>> {
        match self.chunks.recv().await {
            Some(Some(chunk)) => Some(Ok(chunk)),
            Some(None) => None,
            None => Some(Err(CutShort)),
        }
    }

    /// As the body of a response, which fails if the export is incomplete.
    pub(crate) fn into_body(self) -> Body {
        let step = async |mut export: Export| export.next().await.map(|chunk| (chunk, export));
        Body::from_stream(futures_util::stream::unfold(self, step))
    }
}

/// A list of pages, and how its rows are written.
struct Part {
    request: PagesRequest,
    with_referrers: bool,
    rows: fn(&[PageFigures]) -> String,
}

/// The contents of an export, in order: a text, the parts, a text. The first part has started.
struct Parts {
    head: String,
    first: (PageScan, Part),
    more: Vec<Part>,
    tail: String,
}

/// What the task needs.
struct Task {
    store: ReportStore,
    reports: Reports,
    project: ProjectSlug,
    span: Span,
    chunks: mpsc::Sender<Option<Bytes>>,
    buffer: String,
    _turn: Turn,
}

/// Why a task ends early.
enum Ended {
    Failed(StoreError),
    /// The client has disconnected.
    Left,
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Ended::Failed(error)
    }
}

impl Task {
    async fn run(mut self, parts: Parts) {
        let chunks = self.chunks.clone();
        let writing = tokio::time::timeout(EXPORT_WITHIN, self.write(parts));
        let ended = tokio::select! {
            ended = writing => ended,
            () = chunks.closed() => return,
        };
        match ended {
            Ok(Ok(()) | Err(Ended::Left)) => {}
            Ok(Err(Ended::Failed(error))) => _ = problem_of(&error),
            Err(_) => {
                tracing::info!("an export was cut after {} s: its client takes it too slowly", EXPORT_WITHIN.as_secs());
            }
        }
    }

    async fn write(&mut self, parts: Parts) -> Result<(), Ended> {
        self.push(&parts.head).await?;
        let (scan, part) = parts.first;
        self.rows(scan, &part).await?;
        for part in parts.more {
            let scan = start(&self.store, &self.reports, &self.project, self.span, &part).await?;
            self.rows(scan, &part).await?;
        }
        self.push(&parts.tail).await?;
        if !self.buffer.is_empty() {
            self.send().await?;
        }
        self.chunks.send(None).await.map_err(|_| Ended::Left)
    }

    async fn rows(&mut self, mut scan: PageScan, part: &Part) -> Result<(), Ended> {
        let mut pages = Vec::with_capacity(PAGES_PER_STEP);
        loop {
            let page = scan.next().await?;
            let is_end = page.is_none();
            pages.extend(page);
            if is_end || pages.len() == PAGES_PER_STEP {
                self.push(&(part.rows)(&pages)).await?;
                pages.clear();
                tokio::task::yield_now().await;
            }
            if is_end {
                return Ok(());
            }
        }
    }

    async fn push(&mut self, text: &str) -> Result<(), Ended> {
        self.buffer.push_str(text);
        if self.buffer.len() >= CHUNK_BYTES { self.send().await } else { Ok(()) }
    }

    async fn send(&mut self) -> Result<(), Ended> {
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        self.chunks.send(Some(chunk)).await.map_err(|_| Ended::Left)
    }
}

/// Starts one part; its first row has arrived.
async fn start(
    store: &ReportStore,
    reports: &Reports,
    project: &ProjectSlug,
    span: Span,
    part: &Part,
) -> Result<PageScan, StoreError> {
    // The months were validated when the export started; since then, at most more of them have started.
    let periods = reports.periods(span, &part.request).map_err(|_| StoreError::UnknownProject)?;
    let asked = reports.asked(project, span, &periods);
    let late = StoreError::Timeout { what: "pages", timeout_ms: READ_WITHIN.as_millis() as u64 };
    let starting = store.scan(&asked, &part.request, part.with_referrers, EXPORT_WITHIN);
    tokio::time::timeout(READ_WITHIN, starting).await.unwrap_or(Err(late))
}

impl Reports {
    /// The whole report as CSV, with every page, every page not found and every value that is above the threshold; `status` restricts the
    /// pages.
    ///
    /// # Errors
    /// As [`Reports::report`], and when there is no turn.
    pub async fn export(&self, project: &ProjectSlug, span: Span, status: Option<u16>) -> Result<Export, Problem> {
        let turn = self.export_turn().await?;
        let report = self.without_pages(project, span, status).await?;
        let all = Part {
            request: PagesRequest { status, ..PagesRequest::default() },
            with_referrers: false,
            rows: |pages| csv::report_pages("pages", pages),
        };
        let not_found = Part {
            request: PagesRequest { status: Some(404), ..PagesRequest::default() },
            with_referrers: true,
            rows: |pages| csv::report_pages("not_found", pages),
        };
        let (head, tail) = (csv::report_head(&report), csv::report_tail(&report));
        self.run(project, span, turn, (head, tail), all, vec![not_found]).await
    }

    /// A whole list of pages as CSV; `limit` and `after` are ignored.
    ///
    /// # Errors
    /// As [`Reports::pages`], and when there is no turn.
    pub(crate) async fn export_pages(
        &self,
        project: &ProjectSlug,
        span: Span,
        request: &PagesRequest,
    ) -> Result<Export, Problem> {
        let turn = self.export_turn().await?;
        let with_referrers = request.status == Some(404);
        let rows: fn(&[PageFigures]) -> String =
            if with_referrers { |pages| csv::pages_rows(pages, true) } else { |pages| csv::pages_rows(pages, false) };
        let part = Part { request: request.clone(), with_referrers, rows };
        self.run(project, span, turn, (csv::pages_header(with_referrers), String::new()), part, Vec::new()).await
    }

    async fn run(
        &self,
        project: &ProjectSlug,
        span: Span,
        turn: Turn,
        (head, tail): (String, String),
        first: Part,
        more: Vec<Part>,
    ) -> Result<Export, Problem> {
        self.periods(span, &first.request)?;
        let store = self.yielding_store().await.clone();
        let started = start(&store, self, project, span, &first).await;
        let scan = started.map_err(|error| problem_of(&error))?;
        let (chunks, received) = mpsc::channel(CHUNKS);
        let (reports, project) = (self.clone(), project.clone());
        let task = Task { store, reports, project, span, chunks, buffer: String::new(), _turn: turn };
        tokio::spawn(task.run(Parts { head, first: (scan, first), more, tail }));
        Ok(Export { chunks: received })
    }

    /// The same as a value in memory, for `headcount report --format json`.
    ///
    /// # Errors
    /// As [`Reports::report`].
    pub async fn whole(&self, project: &ProjectSlug, span: Span) -> Result<MonthlyReport, Problem> {
        let _turn = self.export_turn().await?;
        let mut report = self.without_pages(project, span, None).await?;
        let store = self.yielding_store().await;
        for (list, status) in [(&mut report.pages, None), (&mut report.not_found, Some(404))] {
            let request = PagesRequest { status, ..PagesRequest::default() };
            let part = Part { request, with_referrers: status.is_some(), rows: |_| String::new() };
            let mut items = Vec::new();
            let reading = async {
                let mut scan = start(store, self, project, span, &part).await?;
                while let Some(page) = scan.next().await? {
                    items.push(page);
                }
                Ok(())
            };
            reading.await.map_err(|error| problem_of(&error))?;
            *list = PageListFigures { items, next: None };
        }
        Ok(report)
    }

    /// The report with every value and without pages. It is not from the cache, since its lists are not either.
    async fn without_pages(
        &self,
        project: &ProjectSlug,
        span: Span,
        status: Option<u16>,
    ) -> Result<MonthlyReport, Problem> {
        let none = PagesRequest { status, ..PagesRequest::first(0) };
        let mut report = self.report(project, span, &none).await?;
        let every = ValuesRequest { limit: usize::MAX, ..ValuesRequest::default() };
        for dimension in Dimension::ALL {
            let Some(items) = report.breakdowns.get_mut(dimension.name()) else { continue };
            if items.iter().filter(|item| !item.rest).count() == LISTED_VALUES {
                *items = self.breakdown(project, span, dimension, &every).await?.items;
            }
        }
        Ok(report)
    }
}

/// Whether a list in this order can be exported: by visitors, ClickHouse has no figures to sort by.
pub(crate) fn can_export(sort: Sort) -> bool {
    sort != Sort::Visitors
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn body(chunks: &[Option<&'static str>]) -> Option<String> {
        let (sender, chunks_received) = mpsc::channel(CHUNKS);
        for chunk in chunks {
            sender.send(chunk.map(|text| Bytes::from_static(text.as_bytes()))).await.unwrap();
        }
        drop(sender);
        let body = Export { chunks: chunks_received }.into_body();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.ok()?;
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn an_export_that_is_cut_is_no_complete_body() {
        assert_eq!(body(&[Some("a"), Some("b"), None]).await.as_deref(), Some("ab"));
        assert_eq!(body(&[None]).await.as_deref(), Some(""));
        assert_eq!(body(&[Some("a"), Some("b")]).await, None, "its task ended without the end");
        assert_eq!(body(&[]).await, None);
    }
}
