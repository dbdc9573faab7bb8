//! Rows as an aggregator writes them, and the same views as raw events. A project's day is in memory, and a batch of each table.

use crate::kafka::database::Database;
use crate::random::mix;
use crate::report::views::{Crowd, View};
use anyhow::Context as _;
use clickhouse::{Client, Row, RowOwned, RowWrite};
use schemas::tables::{
    BreakdownDailyRow, MIGRATIONS, MonthCloseRow, MonthClosedPageRow, MonthClosedRow, PageDailyRow, SiteHourlyRow,
};
use schemas::{Coordinate, Hour, Month, VisitorSketch};
use serde::Serialize;
use std::collections::BTreeMap;

/// Rows of one insert: few parts, and little memory.
const BATCH: usize = 100_000;
/// Sketches of one insert, bytes.
const BATCH_BYTES: usize = 64 << 20;
/// The run that closed the month before.
const RUN: u64 = 1;

/// What the raw events are in.
pub const RAW_TABLE: &str = "CREATE TABLE IF NOT EXISTS raw_event (project String CODEC(ZSTD(1)), ts DateTime('UTC') CODEC(Delta, ZSTD(1)), \
    path String CODEC(ZSTD(1)), status UInt16 CODEC(ZSTD(1)), visitor UInt64) \
    ENGINE = MergeTree PARTITION BY toYYYYMM(ts) ORDER BY (project, ts)";

/// One raw event.
#[derive(Debug, Clone, Row, Serialize)]
pub(crate) struct RawEvent {
    pub project: String,
    pub ts: u32,
    pub path: String,
    pub status: u16,
    pub visitor: u64,
}

/// `month_closed_breakdown`.
#[derive(Debug, Clone, Row, Serialize)]
struct ClosedBreakdown {
    project: String,
    month: u16,
    run: u64,
    dimension: &'static str,
    value: String,
    views: u64,
}

/// `not_found_daily`.
#[derive(Debug, Clone, Row, Serialize)]
struct NotFound {
    project: String,
    day: u16,
    path: String,
    referrer: String,
    views: u64,
    stream: u64,
    window_start: u64,
    next_offset: u64,
}

/// Rows that wait for their insert.
struct Batch<T> {
    table: &'static str,
    rows: Vec<T>,
    bytes: usize,
}

impl<T: RowOwned + RowWrite> Batch<T> {
    fn new(table: &'static str) -> Self {
        Self { table, rows: Vec::new(), bytes: 0 }
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= BATCH || self.bytes >= BATCH_BYTES
    }

    async fn write(&mut self, client: &Client) -> anyhow::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let attempt = || format!("writing {} rows of {}", self.rows.len(), self.table);
        let mut insert = client.insert::<T>(self.table).await.with_context(attempt)?;
        for row in &self.rows {
            insert.write(row).await.with_context(attempt)?;
        }
        insert.end().await.with_context(attempt)?;
        self.rows.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// Makes the tables.
///
/// # Errors
/// When ClickHouse refuses.
pub async fn prepare(database: &Database, client: &Client) -> anyhow::Result<()> {
    database.execute(&format!("CREATE DATABASE IF NOT EXISTS {}", database.name)).await?;
    for statement in MIGRATIONS.iter().flat_map(|(_, sql)| schemas::tables::statements(sql)) {
        client.query(&statement.replace('?', "??")).execute().await.context("making headcount's tables")?;
    }
    client.query(RAW_TABLE).execute().await.context("making the table of raw events")
}

/// The values that a view is counted by.
fn values(view: &View) -> [(&'static str, String); 6] {
    let few = |shift: u32, of: u64| (view.chance >> shift) % of;
    // The more often, the smaller: half of the views have 0, a quarter 1, …
    let steep = |shift: u32| u64::from((view.chance >> shift | 1 << 12).trailing_zeros());
    [
        ("country", format!("C{}", steep(12))),
        ("device", ["Desktop", "Mobile", "Tablet"][few(16, 3) as usize].to_owned()),
        ("browser", format!("Browser {}", steep(20))),
        ("os", format!("System {}", few(24, 5))),
        ("version", format!("{}.0", steep(28))),
        ("language", ["en", "de", "fr", "ja"][few(32, 4) as usize].to_owned()),
    ]
}

/// One key's cell.
#[derive(Default)]
struct Cell {
    views: u64,
    visits: u64,
    sketch: VisitorSketch,
}

/// (stream, window's first offset).
type Window = (u64, u64);

/// Cells of one project's day.
#[derive(Default)]
struct Day {
    site: BTreeMap<(u32, Window), Cell>,
    pages: BTreeMap<(u32, u16, Window), Cell>,
    values: BTreeMap<(&'static str, String, Window), u64>,
    not_found: BTreeMap<(u32, String, Window), u64>,
}

/// The writer of all tables.
pub struct Filler<'a> {
    client: Client,
    crowd: &'a Crowd,
    month: Month,
    streams: u64,
    site: Batch<SiteHourlyRow>,
    pages: Batch<PageDailyRow>,
    values: Batch<BreakdownDailyRow>,
    not_found: Batch<NotFound>,
    closed: Batch<MonthClosedRow>,
    closed_pages: Batch<MonthClosedPageRow>,
    closed_values: Batch<ClosedBreakdown>,
    raw: Batch<RawEvent>,
}

impl<'a> Filler<'a> {
    /// Writes the views of `crowd` in `month` with `client`, whose database has the tables.
    #[must_use]
    pub fn new(client: Client, crowd: &'a Crowd, month: Month, streams: u64) -> Self {
        Self {
            client,
            crowd,
            month,
            streams,
            site: Batch::new("site_hourly"),
            pages: Batch::new("page_daily"),
            values: Batch::new("breakdown_daily"),
            not_found: Batch::new("not_found_daily"),
            closed: Batch::new("month_closed"),
            closed_pages: Batch::new("month_closed_page"),
            closed_values: Batch::new("month_closed_breakdown"),
            raw: Batch::new("raw_event"),
        }
    }

    /// Writes everything; `progress` is told how many projects are written.
    ///
    /// # Errors
    /// When ClickHouse refuses.
    pub async fn fill(mut self, mut progress: impl FnMut(usize)) -> anyhow::Result<()> {
        let days = u64::from((self.month.end_hour().0 - self.month.first_hour().0) / 24);
        for rank in 0..self.crowd.views.len() {
            let slug = Crowd::slug(rank);
            let mut before = ClosedMonth::new(&slug, self.month.previous());
            for day in 0..days {
                self.day(rank, &slug, day, days, &mut before).await?;
            }
            let ClosedMonth { row, pages, values, .. } = before.rows();
            self.closed.bytes += 8 * (row.hour_views.len() + row.hour_visits.len());
            self.closed.rows.push(row);
            self.closed_pages.rows.extend(pages);
            self.closed_values.rows.extend(values);
            self.write(false).await?;
            progress(rank + 1);
        }
        self.write(true).await?;
        let last_word = MonthCloseRow {
            month: self.month.previous().first_hour().day().0,
            run: RUN,
            finished: i64::from(self.month.first_hour().unix_seconds()) * 1_000_000,
            streams: (0..self.streams).collect(),
            windows: vec![u64::MAX; self.streams as usize],
            projects: self.crowd.views.len() as u64,
            views: 0,
        };
        let mut closes = Batch::new("month_close");
        closes.rows.push(last_word);
        closes.write(&self.client).await
    }

    async fn day(
        &mut self,
        rank: usize,
        slug: &str,
        day: u64,
        days: u64,
        before: &mut ClosedMonth,
    ) -> anyhow::Result<()> {
        let mut cells = Day::default();
        let first = self.month.first_hour().0 + day as u32 * 24;
        let salt = mix(rank as u64 ^ 0x5eed);
        for view in self.crowd.day(rank, day, days) {
            let hour = first + view.hour;
            // As with Kafka: a project's views are in one partition.
            let stream = mix(salt) % self.streams;
            let window = (stream, u64::from(hour / crate::WINDOW_HOURS) * 1_000_000);
            let status = if view.missing { 404 } else { 200 };
            let visitor = mix(salt ^ mix(view.reader));
            let site = cells.site.entry((hour, window)).or_default();
            site.views += 1;
            site.visits += u64::from(view.arrival);
            site.sketch.insert(Coordinate::from_hash(visitor));
            let page = cells.pages.entry((view.page, status, window)).or_default();
            page.views += 1;
            page.sketch.insert(Coordinate::from_hash(mix(visitor ^ u64::from(view.page))));
            for (dimension, value) in values(&view) {
                before.add_value(dimension, &value);
                *cells.values.entry((dimension, value, window)).or_default() += 1;
            }
            let referrer = format!("site-{}.example", (view.chance >> 36 | 1 << 9).trailing_zeros());
            if view.arrival {
                before.add_value("referrer", &referrer);
                *cells.values.entry(("referrer", referrer.clone(), window)).or_default() += 1;
            }
            if view.missing {
                *cells.not_found.entry((view.page, referrer, window)).or_default() += 1;
            }
            before.add(&view, day, status);
            self.raw.rows.push(RawEvent {
                project: slug.to_owned(),
                ts: Hour(hour).unix_seconds() + (view.chance >> 44) as u32 % 3_600,
                path: Crowd::path(view.page),
                status,
                visitor,
            });
            if self.raw.is_full() {
                self.raw.write(&self.client).await?;
            }
        }
        self.rows_of(slug, Hour(first).day().0, cells);
        self.write(false).await
    }

    fn rows_of(&mut self, slug: &str, day: u16, cells: Day) {
        for ((hour, (stream, window_start)), cell) in cells.site {
            let sketch = cell.sketch.encode();
            self.site.bytes += sketch.len();
            self.site.rows.push(SiteHourlyRow {
                project: slug.to_owned(),
                hour: Hour(hour).unix_seconds(),
                views: cell.views,
                visits: cell.visits,
                bots_search: cell.views / 10,
                bots_ai_crawler: cell.views / 5,
                bots_preview: 0,
                bots_monitor: 0,
                bots_automation: 0,
                bots_other: 0,
                sketch,
                stream,
                window_start,
                next_offset: window_start + 500_000,
            });
        }
        for ((page, status, (stream, window_start)), cell) in cells.pages {
            let sketch = cell.sketch.encode();
            self.pages.bytes += sketch.len();
            self.pages.rows.push(PageDailyRow {
                project: slug.to_owned(),
                day,
                path: Crowd::path(page),
                status,
                views: cell.views,
                sketch,
                stream,
                window_start,
                next_offset: window_start + 500_000,
            });
        }
        for ((dimension, value, (stream, window_start)), views) in cells.values {
            self.values.rows.push(BreakdownDailyRow {
                project: slug.to_owned(),
                day,
                dimension: dimension.to_owned(),
                value,
                views,
                stream,
                window_start,
                next_offset: window_start + 500_000,
            });
        }
        for ((page, referrer, (stream, window_start)), views) in cells.not_found {
            self.not_found.rows.push(NotFound {
                project: slug.to_owned(),
                day,
                path: Crowd::path(page),
                referrer,
                views,
                stream,
                window_start,
                next_offset: window_start + 500_000,
            });
        }
    }

    async fn write(&mut self, all: bool) -> anyhow::Result<()> {
        macro_rules! write {
            ($($table:ident),*) => { $(if all || self.$table.is_full() { self.$table.write(&self.client).await?; })* };
        }
        write!(site, pages, values, not_found, closed, closed_pages, closed_values, raw);
        Ok(())
    }
}

/// The month before as a close leaves it: as many views as the month that is asked for, numbers only.
struct ClosedMonth {
    slug: String,
    month: u16,
    row: MonthClosedRow,
    views: BTreeMap<(u32, u16), u64>,
    counts: BTreeMap<(&'static str, String), u64>,
    pages: Vec<MonthClosedPageRow>,
    values: Vec<ClosedBreakdown>,
}

impl ClosedMonth {
    fn new(slug: &str, month: Month) -> Self {
        let hours = (month.end_hour().0 - month.first_hour().0) as usize;
        let month = month.first_hour().day().0;
        let row = MonthClosedRow {
            project: slug.to_owned(),
            month,
            run: RUN,
            hour_views: vec![0; hours],
            hour_visits: vec![0; hours],
            day_visitors: vec![0; hours / 24],
            day_errors: vec![0.0058; hours / 24],
            visitors_error: 0.0058,
            ..MonthClosedRow::default()
        };
        Self {
            slug: slug.to_owned(),
            month,
            row,
            views: BTreeMap::new(),
            counts: BTreeMap::new(),
            pages: Vec::new(),
            values: Vec::new(),
        }
    }

    fn add(&mut self, view: &View, day: u64, status: u16) {
        let hours = self.row.hour_views.len();
        let at = (day as usize * 24 + view.hour as usize) % hours;
        self.row.hour_views[at] += 1;
        self.row.hour_visits[at] += u64::from(view.arrival);
        self.row.day_visitors[at / 24] += u64::from(view.arrival);
        *self.views.entry((view.page, status)).or_default() += 1;
    }

    fn add_value(&mut self, dimension: &'static str, value: &str) {
        *self.counts.entry((dimension, value.to_owned())).or_default() += 1;
    }

    fn rows(mut self) -> Self {
        self.row.visitors = self.row.day_visitors.iter().sum();
        let (slug, month) = (&self.slug, self.month);
        self.pages = std::mem::take(&mut self.views)
            .into_iter()
            .map(|((page, status), views)| MonthClosedPageRow {
                project: slug.clone(),
                month,
                run: RUN,
                path: Crowd::path(page),
                status,
                views,
                visitors: views.div_ceil(2),
                visitors_error: 0.0058,
            })
            .collect();
        self.values = std::mem::take(&mut self.counts)
            .into_iter()
            .map(|((dimension, value), views)| ClosedBreakdown {
                project: slug.clone(),
                month,
                run: RUN,
                dimension,
                value,
                views,
            })
            .collect();
        self
    }
}
