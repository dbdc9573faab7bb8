//! Whether ClickHouse has what the month adds up to: views to the last one, visitors within the error that is stated.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, ensure};
use clickhouse::Row;
use schemas::VisitorSketch;
use schemas::sketch::{LINEAR_COUNTING_LIMIT, REGISTERS, RELATIVE_ERROR};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use super::truth::Truth;
use crate::kafka::database::Database;

/// Classes of projects by their true visitors: each begins where the one before ends.
const CLASSES: [u64; 6] = [1, 10, 100, 1_000, LINEAR_COUNTING_LIMIT as u64, u64::MAX];

/// What was compared.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Checked {
    /// Projects whose views by people and by bots were compared.
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

/// Estimates of the visitors of projects of one size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Accuracy {
    /// True visitors, from here
    pub from: u64,
    /// to here, both included.
    pub to: u64,
    /// Projects.
    pub projects: u64,
    /// Relative error of half of them at most.
    pub p50: f64,
    /// Of nineteen in twenty.
    pub p95: f64,
    /// Of all.
    pub max: f64,
    /// Root of the mean square of the relative error.
    pub rms: f64,
    /// What it should be: linear counting's √(m(eᵗ − t − 1))/n up to 11,500 visitors, 1.04/√m above.
    pub theory: f64,
    /// Whether it is, as far as so few projects can tell.
    pub holds: bool,
}

/// One standard deviation of the estimate of `n` visitors, relative.
fn theory(n: f64) -> f64 {
    let m = REGISTERS as f64;
    let load = n / m;
    if n > LINEAR_COUNTING_LIMIT { RELATIVE_ERROR } else { (m * (load.exp_m1() - load)).sqrt() / n }
}

/// Compares pairs of true visitors and estimate.
#[must_use]
pub fn accuracy(pairs: &[(u64, f64)]) -> Vec<Accuracy> {
    let mut classes = Vec::new();
    for bounds in CLASSES.windows(2) {
        let of: Vec<&(u64, f64)> = pairs.iter().filter(|(n, _)| (bounds[0]..bounds[1]).contains(n)).collect();
        if of.is_empty() {
            continue;
        }
        let mut errors: Vec<f64> = of.iter().map(|(n, estimate)| (estimate - *n as f64).abs() / *n as f64).collect();
        errors.sort_by(f64::total_cmp);
        let at = |share: f64| errors[((errors.len() as f64 * share).ceil() as usize).clamp(1, errors.len()) - 1];
        let mean = |of: &dyn Fn(f64, f64) -> f64| {
            pairs_mean(errors.len(), of_class(pairs, bounds[0], bounds[1]).map(|(n, estimate)| of(n, estimate)))
        };
        let rms = mean(&|n, estimate| ((estimate - n) / n).powi(2)).sqrt();
        let expected = mean(&|n, _| theory(n).powi(2)).sqrt();
        // In standard deviations: 1 if all is well. Figures are whole numbers, which adds what rounding may do. The mean of k
        // squares strays by √(2/k) of itself; small crowds' errors are rare and whole, so their squares stray further.
        let strayed = mean(&|n, estimate| {
            let beyond_rounding = ((estimate - n).abs() - 0.5).max(0.0);
            (beyond_rounding / (theory(n) * n)).powi(2)
        });
        let kurtosis = mean(&|n, _| 2.0 + 1.0 / (theory(n) * n).powi(2));
        classes.push(Accuracy {
            from: of.iter().map(|(n, _)| *n).min().unwrap_or(0),
            to: of.iter().map(|(n, _)| *n).max().unwrap_or(0),
            projects: of.len() as u64,
            p50: at(0.5),
            p95: at(0.95),
            max: at(1.0),
            rms,
            theory: expected,
            holds: strayed <= 1.0 + 4.0 * (kurtosis / of.len() as f64).sqrt(),
        });
    }
    classes
}

fn of_class(pairs: &[(u64, f64)], from: u64, below: u64) -> impl Iterator<Item = (f64, f64)> + '_ {
    pairs.iter().filter(move |(n, _)| (from..below).contains(n)).map(|(n, estimate)| (*n as f64, *estimate))
}

fn pairs_mean(count: usize, values: impl Iterator<Item = f64>) -> f64 {
    values.sum::<f64>() / count as f64
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
    numbers: HashMap<&'a str, u32>,
}

impl<'a> Check<'a> {
    /// Of this month in this database.
    #[must_use]
    pub fn new(plan: &'a Plan, truth: &'a Truth, database: &'a Database) -> Self {
        let numbers = (0..plan.size().projects).map(|number| (plan.slug(number), number)).collect();
        Self { plan, truth, database, numbers }
    }

    fn number(&self, slug: &str) -> anyhow::Result<u32> {
        self.numbers.get(slug).copied().with_context(|| format!("{slug} was counted, but is no project of the month"))
    }

    /// Compares the open month's rows.
    ///
    /// # Errors
    /// When anything was counted wrong, or ClickHouse does not answer.
    pub async fn open(&self) -> anyhow::Result<Checked> {
        let name = &self.database.name;
        let mut checked = self.repeats().await?;
        let sums = format!(
            "SELECT project, sum(views), sum(bots_search + bots_ai_crawler + bots_preview + bots_monitor + bots_automation \
             + bots_other) FROM {name}.site_hourly FINAL GROUP BY project"
        );
        self.projects(&sums, &mut checked).await?;
        self.pages(&["page_daily"], &mut checked).await?;
        let by_page = self.database.number(&format!("SELECT sum(views) FROM {name}.page_daily FINAL")).await?;
        ensure!(by_page == checked.views, "{} views are counted by hour and {by_page} by page", checked.views);
        let refused = self.database.number(&format!("SELECT sum(beacons) FROM {name}.rejection_daily FINAL")).await?;
        ensure!(refused == self.truth.refused, "{refused} refused beacons are counted of {}", self.truth.refused);
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
        let name = &self.database.name;
        let mut checked = self.repeats().await?;
        let sums = format!(
            "SELECT project, sum(v), sum(b) FROM (SELECT project, arraySum(hour_views) AS v, bots_search + bots_ai_crawler + \
             bots_preview + bots_monitor + bots_automation + bots_other AS b FROM {name}.month_closed FINAL UNION ALL SELECT \
             project, views, bots_search + bots_ai_crawler + bots_preview + bots_monitor + bots_automation + bots_other FROM \
             {name}.site_hourly FINAL) GROUP BY project"
        );
        self.projects(&sums, &mut checked).await?;
        self.pages(&["month_closed_page", "page_daily"], &mut checked).await?;
        let visitors = format!("SELECT project, visitors FROM {name}.month_closed FINAL WHERE project != ''");
        let rows: Vec<(String, u64)> = self.database.rows(&visitors).await?;
        if self.truth.visitors > 0 {
            let pair = |(slug, visitors): &(String, u64)| Ok((self.visitors(slug)?, *visitors as f64));
            checked.accuracy = accuracy(&rows.iter().map(pair).collect::<anyhow::Result<Vec<_>>>()?);
        }
        Ok(checked)
    }

    fn visitors(&self, slug: &str) -> anyhow::Result<u64> {
        Ok(u64::from(self.plan.visitors(self.number(slug)?)))
    }

    /// The ledger's word on repeats: those it did not drop were a window away from their view.
    async fn repeats(&self) -> anyhow::Result<Checked> {
        let ledger =
            format!("SELECT sum(duplicate), sum(undecodable), sum(tallies) FROM {}.ledger FINAL", self.database.name);
        let rows: Vec<(u64, u64, u64)> = self.database.rows(&ledger).await?;
        let (duplicate, undecodable, tallies) = rows.first().copied().unwrap_or_default();
        ensure!(undecodable == 0, "{undecodable} records did not decode");
        ensure!(tallies == self.truth.tallies, "{tallies} tallies are counted of {}", self.truth.tallies);
        ensure!(duplicate <= self.truth.repeats, "{duplicate} repeats were dropped of {}", self.truth.repeats);
        Ok(Checked { beyond_window: self.truth.repeats - duplicate, ..Checked::default() })
    }

    async fn projects(&self, sql: &str, checked: &mut Checked) -> anyhow::Result<()> {
        let rows: Vec<(String, u64, u64)> = self.database.rows(sql).await?;
        let mut counted = vec![(0, 0); self.truth.by_project.len()];
        for (slug, views, bots) in rows {
            if slug.is_empty() {
                // Beacons that named no project are refused in nobody's name, and a closed month has a row of them.
                ensure!((views, bots) == (0, 0), "{views} views and {bots} by bots are counted for no project");
                continue;
            }
            counted[self.number(&slug)? as usize] = (views, bots);
        }
        let mut more = 0;
        for (number, (&truth, &counted)) in self.truth.by_project.iter().zip(&counted).enumerate() {
            let slug = self.plan.slug(number as u32);
            ensure!(counted.1 == truth.1, "{slug}: {} views by bots are counted of {}", counted.1, truth.1);
            ensure!(counted.0 >= truth.0, "{slug}: {} views are counted of {}", counted.0, truth.0);
            more += counted.0 - truth.0;
            checked.views += counted.0;
            checked.projects += 1;
        }
        ensure!(
            more == checked.beyond_window,
            "{more} views too many are counted, where {} repeats were a window away",
            checked.beyond_window
        );
        Ok(())
    }

    /// Compares the pages of the projects that are looked at closely, added up over these tables.
    async fn pages(&self, tables: &[&str], checked: &mut Checked) -> anyhow::Result<()> {
        let truth = self.truth.pages();
        let names: Vec<String> = truth.keys().map(|number| format!("'{}'", self.plan.slug(*number))).collect();
        // The condition stands with each table: there it keeps all other projects from being read.
        let of_table = |table: &&str| {
            let (name, names) = (&self.database.name, names.join(","));
            format!("SELECT project, path, status, views FROM {name}.{table} FINAL WHERE project IN ({names})")
        };
        let all: Vec<String> = tables.iter().map(of_table).collect();
        let sql = format!(
            "SELECT project, path, status, sum(views) FROM ({}) GROUP BY project, path, status",
            all.join(" UNION ALL ")
        );
        let rows: Vec<(String, String, u16, u64)> = self.database.rows(&sql).await?;
        let mut counted: BTreeMap<u32, BTreeMap<(String, u16), u64>> = BTreeMap::new();
        for (slug, path, status, views) in rows {
            counted.entry(self.number(&slug)?).or_default().insert((path, status), views);
        }
        let mut more = 0;
        for (number, pages) in &truth {
            let (slug, found) = (self.plan.slug(*number), counted.remove(number).unwrap_or_default());
            ensure!(found.len() == pages.len(), "{slug}: {} pages have rows, {} were viewed", found.len(), pages.len());
            for ((path, status), views) in pages {
                let counted = found.get(&(path.clone(), *status)).copied().unwrap_or(0);
                ensure!(counted >= *views, "{slug}{path} ({status}): {counted} views are counted of {views}");
                more += counted - views;
                checked.pages += 1;
            }
        }
        ensure!(
            more <= checked.beyond_window,
            "{more} views too many are counted by page, where {} repeats were a window away",
            checked.beyond_window
        );
        Ok(())
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
        let pair = |(slug, sketch): (&String, &VisitorSketch)| Ok((self.visitors(slug)?, sketch.estimate().value));
        sketches.iter().map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{SplitMix64, mix};
    use schemas::Coordinate;

    /// True visitors and estimate of crowds whose hashes are spread evenly.
    fn crowds(sizes: impl Iterator<Item = u64>) -> Vec<(u64, f64)> {
        sizes
            .enumerate()
            .map(|(crowd, n)| {
                let mut sketch = VisitorSketch::new();
                let mut rng = SplitMix64::new(mix(crowd as u64 + 9));
                for _ in 0..n {
                    sketch.insert(Coordinate::from_hash(rng.next_u64()));
                }
                (n, sketch.estimate().value.round())
            })
            .collect()
    }

    #[test]
    fn true_sketches_hold_and_lossy_ones_do_not() {
        let pairs = crowds((1..400).chain((0..60).map(|n| 1_000 + n * 150)).chain([20_000, 50_000]));
        let told = accuracy(&pairs);
        assert!(told.len() >= 4 && told.iter().all(|class| class.holds), "{told:#?}");
        // Someone counts one visitor in fifty twice.
        let wrong: Vec<(u64, f64)> = pairs.iter().map(|(n, estimate)| (*n, estimate * 1.02)).collect();
        assert!(accuracy(&wrong).iter().filter(|class| class.from >= 1_000).any(|class| !class.holds));
        // Someone forgets a visitor of each.
        let wrong: Vec<(u64, f64)> = pairs.iter().map(|(n, estimate)| (*n, estimate - 1.0)).collect();
        assert!(accuracy(&wrong).iter().any(|class| !class.holds));
    }

    #[test]
    fn the_theory_is_continuous_enough_and_as_stated() {
        assert!((theory(11_500.0) - 0.0063).abs() < 0.0001, "{}", theory(11_500.0));
        assert!((theory(1e6) - 0.008_125).abs() < 1e-6);
        assert!((theory(100.0) - 0.0055).abs() < 0.0003, "{}", theory(100.0));
    }
}
