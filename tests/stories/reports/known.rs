//! Four months of one project, completely known: rows as the aggregator would write them, and their sums.

use anyhow::Result;
use clickhouse::Client;
use harness::random::mix;
use schemas::classes::{Dimension, Source};
use schemas::tables::{
    BreakdownWindowRow, MonthCloseRow, MonthClosedPageRow, MonthClosedRow, PageDailyRow, RobotDailyRow,
    RobotPageDailyRow, SiteHourlyRow,
};
use schemas::{Coordinate, Hour, Month, VisitorSketch};
use std::collections::BTreeMap;

/// The months, oldest first. The first is closed, the last is running.
pub const MONTHS: [&str; 4] = ["2025-12", "2026-01", "2026-02", "2026-03"];
/// The current time of the stories.
pub const CLOCK: &str = "2026-03-02T09:20:00Z";
/// The run that closed the first month.
const RUN: u64 = 7;
const PATHS: u64 = 230;
/// Paths with characters that are special in patterns, CSV and spreadsheets.
const ODD: [&str; 6] = ["/100%_done/", "/a,b", "/say \"x\"", "/%41", "/ünï/漢字", "/x_y"];

fn path(at: u64) -> String {
    match ODD.get(at as usize) {
        Some(odd) => (*odd).to_owned(),
        None => format!("/{}/page-{at}.html", ["en", "de"][(at % 2) as usize]),
    }
}

/// The true figures of a month.
#[derive(Default)]
pub struct Truth {
    /// Views by (path, status).
    pub pages: BTreeMap<(String, u16), u64>,
    /// Views in total.
    pub views: u64,
    /// Arrivals.
    pub visits: u64,
    /// Views by version.
    pub versions: BTreeMap<String, u64>,
}

/// Rows of one month.
struct Rows {
    site: Vec<SiteHourlyRow>,
    pages: Vec<PageDailyRow>,
    values: Vec<BreakdownWindowRow>,
}

fn sketch(readers: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut sketch = VisitorSketch::new();
    readers.for_each(|reader| _ = sketch.insert(Coordinate::from_hash(mix(reader))));
    sketch.encode()
}

fn rows(month: Month, number: u64, until: Hour) -> (Rows, Truth) {
    let (mut rows, mut truth) = (Rows { site: vec![], pages: vec![], values: vec![] }, Truth::default());
    let end = month.end_hour().min(until);
    let days = u64::from((end.0 - month.first_hour().0).div_ceil(24));
    let mut by_day: BTreeMap<u64, u64> = BTreeMap::new();
    for at in 0..PATHS {
        // Some pages are new in a month, some have disappeared.
        if mix(at * 31 + number).is_multiple_of(9) {
            continue;
        }
        let views = 2 + 2_000 / (at + 1) + mix(at ^ number) % 12;
        let status = if at % 7 == 3 { 404 } else { 200 };
        for day in [at % days, (at * 5 + number) % days] {
            let readers = (0..views).map(|view| mix(view ^ (at << 20)) % (1 + views / 2) + number * 1_000_000);
            rows.pages.push(PageDailyRow {
                project: "docs".to_owned(),
                day: month.first_hour().day().0 + day as u16,
                path: path(at),
                status,
                views,
                sketch: sketch(readers),
                stream: 1,
                window_start: day * 10,
                next_offset: day * 10 + 9,
                source: Source::Beacon,
            });
            *by_day.entry(day).or_default() += views;
            *truth.pages.entry((path(at), status)).or_default() += views;
        }
    }
    // Both rows of a page may be of one day: then they have one key, and the later row counts.
    rows.pages.sort_by(|a, b| (&a.path, a.day).cmp(&(&b.path, b.day)));
    rows.pages.dedup_by(|twice, kept| {
        let same = (&twice.path, twice.day) == (&kept.path, kept.day);
        if same {
            *by_day.entry(u64::from(twice.day - month.first_hour().day().0)).or_default() -= twice.views;
            *truth.pages.entry((twice.path.clone(), twice.status)).or_default() -= twice.views;
        }
        same
    });
    for (day, views) in by_day {
        let hour = Hour(month.first_hour().0 + day as u32 * 24 + (mix(day) % 9) as u32);
        rows.site.push(SiteHourlyRow {
            project: "docs".to_owned(),
            hour: hour.unix_seconds(),
            views,
            visits: views / 3,
            sketch: sketch((0..views).map(|view| mix(view ^ day) % 900 + number * 1_000_000)),
            stream: 1,
            window_start: day * 10,
            next_offset: day * 10 + 9,
            source: Source::Beacon,
        });
        truth.views += views;
        truth.visits += views / 3;
        let breakdown = versions(month, number, day, views);
        for (value, views) in breakdown.values.iter().zip(&breakdown.views) {
            *truth.versions.entry(value.clone()).or_default() += views;
        }
        rows.values.push(breakdown);
    }
    (rows, truth)
}

/// The versions of a day, with a steep distribution: some are below the threshold.
fn versions(month: Month, number: u64, day: u64, views: u64) -> BreakdownWindowRow {
    let mut left = views;
    let parts = (0..40).map(|version| {
        let part = if version == 39 { left } else { left / 4 };
        left -= part;
        (format!("={}.{version}", number % 2), part)
    });
    let (values, views): (Vec<String>, Vec<u64>) = parts.filter(|(_, views)| *views > 0).unzip();
    BreakdownWindowRow {
        project: "docs".to_owned(),
        day: month.first_hour().day().0 + day as u16,
        dimensions: vec![Dimension::Version; values.len()],
        values,
        views,
        stream: 1,
        window_start: day * 10,
        next_offset: day * 10 + 9,
        source: Source::Beacon,
    }
}

/// Writes all months, and returns their true figures.
pub async fn write(client: &Client) -> Result<BTreeMap<&'static str, Truth>> {
    let now = Hour::of(chrono::DateTime::parse_from_rfc3339(CLOCK)?.to_utc());
    let mut truths = BTreeMap::new();
    for (number, name) in MONTHS.into_iter().enumerate() {
        let month: Month = name.parse()?;
        let (rows, truth) = rows(month, number as u64, Hour(now.0 + 1));
        if number == 0 {
            close(client, month, &rows, &truth).await?;
        } else {
            insert(client, "site_hourly", &rows.site).await?;
            insert(client, "page_daily", &rows.pages).await?;
            insert(client, "breakdown_window", &rows.values).await?;
            write_robots(client, &rows.site).await?;
            let day = month.first_hour().day().0;
            for (host, beacons) in [("mirror.example", 30), ("localhost:8000", 6), ("127.0.0.1:8000", 7)] {
                let sql = "INSERT INTO rejection_daily (project, day, reason, host, beacons, stream, window_start, next_offset) \
                           VALUES ('docs', toDate(?), 'foreign_host', ?, ?, 1, 0, 9)";
                client.query(sql).bind(day).bind(host).bind(beacons).execute().await?;
            }
            for ((path, status), views) in &truth.pages {
                if *status != 404 {
                    continue;
                }
                let rest = views - views / 2;
                for (referrer, views) in [("blog.example", views / 2), (":internal", rest / 2), ("", rest - rest / 2)] {
                    let sql = "INSERT INTO not_found_daily VALUES ('docs', toDate(?), ?, ?, ?, 1, 0, 9, 'headcount')";
                    client.query(sql).bind(day).bind(path).bind(referrer).bind(views).execute().await?;
                }
            }
        }
        truths.insert(name, truth);
    }
    Ok(truths)
}

/// Views by robots in each of these hours: 3 by one search engine, 4 by AI.
async fn write_robots(client: &Client, hours: &[SiteHourlyRow]) -> Result<()> {
    let kinds = [("search", "Googlebot", 3), ("ai_training", "GPTBot", 3), ("ai_assistant", "Claude-User", 1)];
    let (mut names, mut pages) = (Vec::new(), Vec::new());
    for row in hours {
        let day = Hour::from_unix_seconds(row.hour).day().0;
        let SiteHourlyRow { stream, window_start, next_offset, source, .. } = *row;
        for (kind, name, views) in kinds {
            let (project, kind) = (row.project.clone(), kind.to_owned());
            let (path, robot_group) = (format!("/{kind}"), kind.clone());
            pages.push(RobotPageDailyRow {
                project: project.clone(),
                day,
                path,
                robot_group,
                views,
                stream,
                window_start,
                next_offset,
                source,
            });
            let name = name.to_owned();
            names.push(RobotDailyRow { project, day, kind, name, views, stream, window_start, next_offset, source });
        }
    }
    insert(client, "robot_daily", &names).await?;
    insert(client, "robot_page_daily", &pages).await
}

fn site_row(hour: Hour, views: u64, window: u64) -> SiteHourlyRow {
    SiteHourlyRow {
        project: "docs".to_owned(),
        hour: hour.unix_seconds(),
        views,
        visits: 0,
        sketch: sketch((0..views).map(mix)),
        stream: 1,
        window_start: window * 10,
        next_offset: window * 10 + 9,
        source: Source::Beacon,
    }
}

/// Views of one page in one hour, all of them of one window.
pub async fn write_views(client: &Client, at: &str, views: u64, window: u64) -> Result<()> {
    write_page(client, at, views, window).await?;
    write_hour(client, at, views, window).await
}

/// The page's row for these views.
pub async fn write_page(client: &Client, at: &str, views: u64, window: u64) -> Result<()> {
    let row = PageDailyRow {
        project: "docs".to_owned(),
        day: Hour::of(at.parse()?).day().0,
        path: "/late".to_owned(),
        status: 200,
        views,
        sketch: sketch((0..views).map(mix)),
        stream: 1,
        window_start: window * 10,
        next_offset: window * 10 + 9,
        source: Source::Beacon,
    };
    insert(client, "page_daily", &[row]).await
}

/// The hour's row for these views.
pub async fn write_hour(client: &Client, at: &str, views: u64, window: u64) -> Result<()> {
    insert(client, "site_hourly", &[site_row(Hour::of(at.parse()?), views, window)]).await
}

/// Writes that `run` closed a month at `finished` (microseconds since the epoch) with `views` views in its hour `at`, and nothing else.
pub async fn write_close(client: &Client, at: &str, run: u64, finished: i64, views: u64) -> Result<()> {
    let hour = Hour::of(at.parse()?);
    let (month, first) = (hour.month().first_hour().day().0, hour.month().first_hour().0);
    let hours = (hour.month().end_hour().0 - first) as usize;
    let mut closed = MonthClosedRow {
        project: "docs".to_owned(),
        month,
        run,
        hour_views: vec![0; hours],
        hour_visits: vec![0; hours],
        day_visitors: vec![0; hours / 24],
        day_errors: vec![0.0; hours / 24],
        ..MonthClosedRow::default()
    };
    closed.hour_views[(hour.0 - first) as usize] = views;
    insert(client, "month_closed", &[closed]).await?;
    let (streams, windows) = (vec![1], vec![1_000]);
    insert(client, "month_close", &[MonthCloseRow { month, run, finished, streams, windows, projects: 1, views }]).await
}

/// This many pages found, pages not found and versions, in February, and nothing else.
pub async fn write_many(client: &Client, [found, missing, values]: [u64; 3]) -> Result<()> {
    let day = "2026-02-03".parse::<chrono::NaiveDate>()?;
    let day = Hour::of(day.and_time(chrono::NaiveTime::MIN).and_utc()).day();
    let written = |views: u64| (views, 1, 0, 9);
    let page = |at: u64| {
        let (path, status) = if at < found { (format!("/page-{at}"), 200) } else { (format!("/gone-{at}"), 404) };
        let (views, stream, window_start, next_offset) = written(if status == 200 { 40 } else { 20 } + at % 7);
        let sketch = sketch((0..views).map(|view| mix(view ^ (at << 20))));
        PageDailyRow {
            project: "docs".to_owned(),
            day: day.0,
            path,
            status,
            views,
            sketch,
            stream,
            window_start,
            next_offset,
            source: Source::Beacon,
        }
    };
    let pages: Vec<PageDailyRow> = (0..found + missing).map(page).collect();
    let (views, stream, window_start, next_offset) = written(20);
    let breakdown = BreakdownWindowRow {
        project: "docs".to_owned(),
        day: day.0,
        dimensions: vec![Dimension::Version; values as usize],
        values: (0..values).map(|at| format!("1.{at}")).collect(),
        views: vec![views; values as usize],
        stream,
        window_start,
        next_offset,
        source: Source::Beacon,
    };
    insert(client, "breakdown_window", &[breakdown]).await?;
    insert(client, "page_daily", &pages).await?;
    let hour = site_row(day.first_hour(), pages.iter().map(|page| page.views).sum(), 0);
    insert(client, "site_hourly", &[hour]).await?;
    let sql = "INSERT INTO not_found_daily SELECT project, day, path, 'blog.example', views, 1, 0, 9, source FROM page_daily \
               WHERE status = 404";
    client.query(sql).execute().await?;
    Ok(())
}

/// The rows that remain after a close.
async fn close(client: &Client, month: Month, rows: &Rows, truth: &Truth) -> Result<()> {
    let day = month.first_hour().day().0;
    let hours = (month.end_hour().0 - month.first_hour().0) as usize;
    let mut closed = MonthClosedRow {
        project: "docs".to_owned(),
        month: day,
        run: RUN,
        hour_views: vec![0; hours],
        hour_visits: vec![0; hours],
        day_visitors: vec![0; hours / 24],
        day_errors: vec![0.0; hours / 24],
        rejected_reasons: vec!["foreign_host".to_owned(), "foreign_host".to_owned()],
        rejected_hosts: vec!["mirror.example".to_owned(), "other.example".to_owned()],
        rejected_beacons: vec![20, 12],
        ..MonthClosedRow::default()
    };
    let mut union = VisitorSketch::new();
    for row in &rows.site {
        let at = (Hour::from_unix_seconds(row.hour).0 - month.first_hour().0) as usize;
        closed.hour_views[at] += row.views;
        closed.hour_visits[at] += row.visits;
        let of_day = VisitorSketch::decode(&row.sketch)?;
        union.merge(&of_day);
        closed.day_visitors[at / 24] = of_day.estimate().value.round() as u64;
        closed.day_errors[at / 24] = of_day.estimate().error;
    }
    (closed.visitors, closed.visitors_error) = (union.estimate().value.round() as u64, union.estimate().error);
    insert(client, "month_closed", &[closed]).await?;
    // In the form of schema versions before 10: a kind without names.
    let sql = "INSERT INTO month_closed_robot VALUES ('docs', toDate(?), ?, 'ai_crawler', '', 5)";
    client.query(sql).bind(day).bind(RUN).execute().await?;
    let sql = "INSERT INTO month_closed_breakdown VALUES ('docs', toDate(?), ?, 'bot', 'GPTBot', 5)";
    client.query(sql).bind(day).bind(RUN).execute().await?;
    let mut pages: BTreeMap<(String, u16), VisitorSketch> = BTreeMap::new();
    for row in &rows.pages {
        pages.entry((row.path.clone(), row.status)).or_default().merge_encoded(&row.sketch)?;
    }
    let pages: Vec<MonthClosedPageRow> = pages
        .into_iter()
        .map(|((path, status), sketch)| MonthClosedPageRow {
            project: "docs".to_owned(),
            month: day,
            run: RUN,
            views: truth.pages[&(path.clone(), status)],
            path,
            status,
            visitors: sketch.estimate().value.round() as u64,
            visitors_error: sketch.estimate().error,
            day_views: Vec::new(),
        })
        .collect();
    insert(client, "month_closed_page", &pages).await?;
    for (value, views) in &truth.versions {
        let sql = "INSERT INTO month_closed_breakdown VALUES ('docs', toDate(?), ?, 'version', ?, ?)";
        client.query(sql).bind(day).bind(RUN).bind(value).bind(views).execute().await?;
    }
    for ((path, _), views) in truth.pages.iter().filter(|((_, status), _)| *status == 404) {
        let sql = "INSERT INTO month_closed_not_found VALUES ('docs', toDate(?), ?, ?, 'blog.example', ?)";
        client.query(sql).bind(day).bind(RUN).bind(path).bind(views).execute().await?;
    }
    let last_word = MonthCloseRow {
        month: day,
        run: RUN,
        finished: 1_767_600_000_000_000,
        streams: vec![1],
        windows: vec![1_000],
        projects: 1,
        views: truth.views,
    };
    insert(client, "month_close", &[last_word]).await
}

async fn insert<T>(client: &Client, table: &str, rows: &[T]) -> Result<()>
where
    T: clickhouse::RowOwned + clickhouse::RowWrite,
{
    let mut insert = client.insert::<T>(table).await?;
    for row in rows {
        insert.write(row).await?;
    }
    insert.end().await?;
    Ok(())
}
