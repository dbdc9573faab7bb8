//! Whether ClickHouse has what the month adds up to: views to the last one, visitors within the error that is stated.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, ensure};
use clickhouse::Row;
use schemas::VisitorSketch;
use serde::{Deserialize, Serialize};

use super::accuracy::{Accuracy, accuracy};
use super::expected::{Expected, PageName, Window};
use super::plan::Plan;
use super::truth::{Counts, Truth};
use crate::kafka::database::Database;

/// What was compared.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Checked {
    /// Projects whose views and visits by people and views by bots were compared.
    pub projects: u64,
    /// Pages whose views were compared.
    pub pages: u64,
    /// Views that are counted. They are those of the truth and `beyond_window`.
    pub views: u64,
    /// Repeats whose view was counted in the window before: they count again, as the documents say.
    pub beyond_window: u64,
    /// Estimates of visitors against the truth, by size of project. None where the month was not driven to its end.
    pub accuracy: Vec<Accuracy>,
}

#[derive(Row, Deserialize)]
struct SketchRow {
    project: String,
    #[serde(with = "serde_bytes")]
    sketch: Vec<u8>,
}

/// What a check needs to know.
pub struct Check<'a> {
    /// The month.
    pub plan: &'a Plan,
    /// What it adds up to.
    pub truth: &'a Truth,
    /// Where it was counted.
    pub database: &'a Database,
    /// Records in a window, at most.
    pub window_records: u64,
}

impl Check<'_> {
    /// Compares the open month's rows.
    ///
    /// # Errors
    /// When anything was counted wrong, or ClickHouse does not answer.
    pub async fn open(&self) -> anyhow::Result<Checked> {
        let mut checked = self.compare(false).await?;
        if self.truth.visitors > 0 {
            checked.accuracy = accuracy(&self.sketches().await?);
        }
        Ok(checked)
    }

    /// Compares the closed month's figures, with the rows of windows that are not in them.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn closed(&self) -> anyhow::Result<Checked> {
        let mut checked = self.compare(true).await?;
        if self.truth.visitors > 0 {
            let name = &self.database.name;
            let sql = format!("SELECT project, visitors FROM {name}.month_closed FINAL WHERE project != ''");
            let rows: Vec<(String, u64)> = self.database.rows(&sql).await?;
            let true_visitors = self.visitors();
            let pair = |(slug, visitors): &(String, u64)| pair(&true_visitors, slug, *visitors as f64);
            checked.accuracy = accuracy(&rows.iter().map(pair).collect::<anyhow::Result<Vec<_>>>()?);
        }
        Ok(checked)
    }

    async fn compare(&self, closed: bool) -> anyhow::Result<Checked> {
        let expected = Expected::new(self.plan, self.truth, &self.windows().await?, self.window_records)?;
        expected.hours(&self.hours(closed).await?)?;
        let projects = expected.projects(self.projects(closed).await?)?;
        let pages = expected.pages(self.pages(&expected.paged(), closed).await?)?;
        expected.refusals(&self.refusals(closed).await?)?;
        let by_page = self.views_of_pages(closed).await?;
        let (views, beyond_window) = (expected.views(), expected.parted.len() as u64);
        ensure!(by_page == views, "{by_page} views are counted by page, there are {views}");
        Ok(Checked { projects, pages, views, beyond_window, accuracy: Vec::new() })
    }

    async fn windows(&self) -> anyhow::Result<Vec<Window>> {
        let name = &self.database.name;
        let windows: Vec<Window> = self
            .database
            .rows(&format!(
                "SELECT partition, window_start, next_offset, toUnixTimestamp(appended), seen, accepted, duplicate, tallies, \
                 rejected_beacons FROM (SELECT * FROM {name}.ledger FINAL) AS ledger INNER JOIN (SELECT stream, partition FROM \
                 {name}.stream FINAL) AS stream USING (stream)"
            ))
            .await?;
        let all = self.database.number(&format!("SELECT count() FROM {name}.ledger FINAL")).await?;
        ensure!(all == windows.len() as u64, "{all} windows are in the ledger, {} are of the topic", windows.len());
        Ok(windows)
    }

    async fn hours(&self, closed: bool) -> anyhow::Result<Vec<u64>> {
        let (name, first) = (&self.database.name, self.plan.month().first_hour());
        let sql = format!(
            "SELECT toUnixTimestamp(hour) AS at, sum(views) FROM {name}.site_hourly FINAL GROUP BY at ORDER BY at"
        );
        let rows: Vec<(u32, u64)> = self.database.rows(&sql).await?;
        let mut hours = Vec::new();
        if closed {
            let sql = format!("SELECT sumForEach(hour_views) FROM {name}.month_closed FINAL");
            hours = self.database.rows::<Vec<u64>>(&sql).await?.pop().unwrap_or_default();
        }
        hours.resize(hours.len().max(self.plan.hours() as usize), 0);
        for (at, views) in rows {
            let hour = (at / 3_600).checked_sub(first.0).map(|hour| hour as usize);
            let hour = hour.and_then(|hour| hours.get_mut(hour));
            *hour.with_context(|| format!("{views} views are counted at {at}, which is not in the month"))? += views;
        }
        Ok(hours)
    }

    async fn projects(&self, closed: bool) -> anyhow::Result<HashMap<String, Counts>> {
        let name = &self.database.name;
        let robots = |table: &str| {
            format!(
                " UNION ALL SELECT project, toUInt64(0) AS v, toUInt64(0) AS a, views AS b FROM {name}.{table} FINAL"
            )
        };
        let people = format!("SELECT project, views AS v, visits AS a, toUInt64(0) AS b FROM {name}.site_hourly FINAL");
        let mut of = people + &robots("robot_daily");
        if closed {
            of += &format!(
                " UNION ALL SELECT project, arraySum(hour_views) AS v, arraySum(hour_visits) AS a, toUInt64(0) AS b FROM \
                 {name}.month_closed FINAL"
            );
            of += &robots("month_closed_robot");
        }
        let sql = format!("SELECT project, sum(v), sum(a), sum(b) FROM ({of}) GROUP BY project");
        let rows: Vec<(String, u64, u64, u64)> = self.database.rows(&sql).await?;
        Ok(rows.into_iter().map(|(slug, views, visits, bots)| (slug, Counts { views, visits, bots })).collect())
    }

    async fn pages(&self, slugs: &[&str], closed: bool) -> anyhow::Result<HashMap<String, BTreeMap<PageName, u64>>> {
        let names: Vec<String> = slugs.iter().map(|slug| format!("'{slug}'")).collect();
        // The condition stands with each table: there it keeps all other projects from being read.
        let of_table = |table: &&str| {
            let (name, names) = (&self.database.name, names.join(","));
            format!("SELECT project, path, status, views FROM {name}.{table} FINAL WHERE project IN ({names})")
        };
        let all: Vec<String> = page_tables(closed).iter().map(of_table).collect();
        let sql = format!(
            "SELECT project, path, status, sum(views) FROM ({}) GROUP BY project, path, status",
            all.join(" UNION ALL ")
        );
        let rows: Vec<(String, String, u16, u64)> = self.database.rows(&sql).await?;
        let mut counted: HashMap<String, BTreeMap<PageName, u64>> = HashMap::new();
        for (slug, path, status, views) in rows {
            counted.entry(slug).or_default().insert((path, status), views);
        }
        Ok(counted)
    }

    async fn views_of_pages(&self, closed: bool) -> anyhow::Result<u64> {
        let mut views = 0;
        for table in page_tables(closed) {
            views +=
                self.database.number(&format!("SELECT sum(views) FROM {}.{table} FINAL", self.database.name)).await?;
        }
        Ok(views)
    }

    async fn refusals(&self, closed: bool) -> anyhow::Result<BTreeMap<(String, String), u64>> {
        let name = &self.database.name;
        let mut of = format!("SELECT project, reason::String AS reason, beacons FROM {name}.rejection_daily FINAL");
        if closed {
            of += &format!(
                " UNION ALL SELECT project, r AS reason, n AS beacons FROM {name}.month_closed FINAL ARRAY JOIN \
                 rejected_reasons AS r, rejected_beacons AS n"
            );
        }
        let sql = format!("SELECT project, reason, sum(beacons) FROM ({of}) GROUP BY project, reason");
        let rows: Vec<(String, String, u64)> = self.database.rows(&sql).await?;
        Ok(rows.into_iter().map(|(slug, reason, beacons)| ((slug, reason), beacons)).collect())
    }

    /// True visitors of each project, by its name.
    fn visitors(&self) -> HashMap<&str, u64> {
        (0..self.plan.size().projects).map(|n| (self.plan.slug(n), u64::from(self.plan.visitors(n)))).collect()
    }

    /// True visitors and estimate of the projects that are looked at closely.
    async fn sketches(&self) -> anyhow::Result<Vec<(u64, f64)>> {
        let names: Vec<String> =
            self.truth.by_page.keys().map(|number| format!("'{}'", self.plan.slug(*number))).collect();
        let sql = format!(
            "SELECT project, sketch FROM {}.site_hourly FINAL WHERE project IN ({})",
            self.database.name,
            names.join(",")
        );
        let (mut sketches, mut broken) = (HashMap::<String, VisitorSketch>::new(), None);
        self.database
            .each::<SketchRow>(&sql, |row| match VisitorSketch::decode(&row.sketch) {
                Ok(sketch) => sketches.entry(row.project).or_default().merge(&sketch),
                Err(error) => broken = Some((row.project, error)),
            })
            .await?;
        if let Some((project, error)) = broken {
            return Err(error).with_context(|| format!("a stored sketch of {project} does not decode"));
        }
        let true_visitors = self.visitors();
        sketches.iter().map(|(slug, sketch)| pair(&true_visitors, slug, sketch.estimate().value)).collect()
    }
}

fn page_tables(closed: bool) -> &'static [&'static str] {
    if closed { &["month_closed_page", "page_daily"] } else { &["page_daily"] }
}

fn pair(visitors: &HashMap<&str, u64>, slug: &str, estimate: f64) -> anyhow::Result<(u64, f64)> {
    let true_visitors = visitors.get(slug);
    Ok((*true_visitors.with_context(|| format!("{slug} was counted, but is no project of the month"))?, estimate))
}
