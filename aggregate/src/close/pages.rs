//! Writes the figures of a run by page.

use super::close_error::{CloseError, failed};
use super::closer::Closer;
use super::figures::BATCH;
use super::month_tables::{first_day, partition};
use super::sketches::{estimate, merge};
use clickhouse::Row;
use schemas::close::Frontier;
use schemas::tables::{MonthClosedPageRow, PageDailyRow};
use schemas::{Month, VisitorSketch};
use serde::Deserialize;

/// Most rows of pages in one query, unless a single project has more.
const PAGE_ROWS: u64 = 300_000;

#[derive(Row, Deserialize)]
struct ProjectRows {
    project: String,
    rows: u64,
}

impl Closer {
    /// Writes `month_closed_page`, a few projects at a time: sorting a month's pages as a whole would take all memory.
    pub(super) async fn write_pages(&self, month: Month, run: u64, frontier: &Frontier) -> Result<(), CloseError> {
        const READING: &str = "reading a month's pages";
        let sql = "SELECT project, count() AS rows FROM page_daily WHERE toYYYYMM(day) = {partition:UInt32} GROUP BY project ORDER BY project";
        let sizes = self
            .client
            .query(sql)
            .param("partition", partition(month))
            .fetch_all::<ProjectRows>()
            .await
            .map_err(failed(READING))?;
        for chunk in chunks(&sizes) {
            let [first, .., last] = chunk else {
                let [only] = chunk else { continue };
                self.write_pages_of(month, run, frontier, (&only.project, &only.project)).await?;
                continue;
            };
            self.write_pages_of(month, run, frontier, (&first.project, &last.project)).await?;
        }
        Ok(())
    }

    async fn write_pages_of(
        &self,
        month: Month,
        run: u64,
        frontier: &Frontier,
        (first, last): (&str, &str),
    ) -> Result<(), CloseError> {
        const READING: &str = "reading a month's pages";
        let sql = "SELECT ?fields FROM page_daily FINAL WHERE project >= {first:String} AND project <= {last:String} AND toYYYYMM(day) = {partition:UInt32} \
                   ORDER BY project, path, status";
        let query =
            self.client.query(sql).param("first", first).param("last", last).param("partition", partition(month));
        let mut rows = query.fetch::<PageDailyRow>().map_err(failed(READING))?;
        let (mut of_page, mut ready) = (None::<(MonthClosedPageRow, VisitorSketch)>, Vec::new());
        loop {
            let row = rows.next().await.map_err(failed(READING))?;
            let other = |held: &MonthClosedPageRow, row: &PageDailyRow| {
                (&held.project, &held.path, held.status) != (&row.project, &row.path, row.status)
            };
            let is_complete = of_page.as_ref().is_some_and(|(held, _)| row.as_ref().is_none_or(|row| other(held, row)));
            if is_complete && let Some((mut page, sketch)) = of_page.take() {
                (page.visitors, page.visitors_error) = estimate(&sketch);
                ready.push(page);
            }
            if ready.len() >= BATCH || (row.is_none() && !ready.is_empty()) {
                self.insert("month_closed_page", &ready).await?;
                ready.clear();
            }
            let Some(row) = row else { return Ok(()) };
            let (page, sketch) = of_page.get_or_insert_with(|| {
                let (project, path, status) = (row.project.clone(), row.path.clone(), row.status);
                let days = (month.end_hour().0 - month.first_hour().0) as usize / 24;
                let month = first_day(month);
                let page = MonthClosedPageRow {
                    project,
                    month,
                    run,
                    path,
                    status,
                    views: 0,
                    visitors: 0,
                    visitors_error: 0.0,
                    day_views: vec![0; days],
                };
                (page, VisitorSketch::new())
            });
            if frontier.contains(row.stream, row.window_start) {
                page.views += row.views;
                page.day_views[usize::from(row.day - page.month)] += row.views;
            }
            merge(sketch, &row.sketch, &row.project)?;
        }
    }
}

/// Groups of projects whose pages are read together.
fn chunks(sizes: &[ProjectRows]) -> impl Iterator<Item = &[ProjectRows]> {
    let mut rest = sizes;
    std::iter::from_fn(move || {
        let mut rows = 0;
        let fits = |size: &&ProjectRows| {
            rows += size.rows;
            rows <= PAGE_ROWS
        };
        let count = rest.iter().take_while(fits).count().max(1).min(rest.len());
        let (chunk, others) = rest.split_at(count);
        rest = others;
        (!chunk.is_empty()).then_some(chunk)
    })
}
