//! Invented traffic of past months, written into the tables as an aggregator would have written it: a story cannot wait for a month to pass. Seeded,
//! so that every run has the same readers. The real service computes everything from it.

use crate::random::{SplitMix64, mixed};
use anyhow::{Context as _, Result};
use chrono::{Datelike as _, Weekday};
use clickhouse::{Client, RowOwned, RowWrite};
use schemas::classes::{BotClass, ClassName as _, Dimension, Source};
use schemas::tables::{BreakdownWindowRow, PageDailyRow, RobotDailyRow, RobotPageDailyRow, SiteHourlyRow};
use schemas::{Coordinate, Day, Hour, Month, VisitorSketch};
use std::collections::BTreeMap;

/// A stream that does not occur in the service's logs.
const STREAM: u64 = 0x6d61_6465_2d75_7000;

/// One project's readers.
#[derive(Clone, Copy, Debug)]
pub struct Traffic<'a> {
    /// Project slug.
    pub project: &'a str,
    /// Visits on a working day.
    pub visits: u64,
    /// Growth a month, in percent.
    pub growth: u64,
    /// Pages, the most viewed first.
    pub pages: &'a [&'a str],
}

/// Paths of a Sphinx documentation, with some that are hard to display.
pub const PAGES: &[&str] = &[
    "/en/stable/index.html",
    "/en/stable/usage/quickstart.html",
    "/en/stable/usage/installation.html",
    "/en/stable/usage/configuration.html",
    "/en/stable/usage/restructuredtext/basics.html",
    "/en/stable/usage/extensions/autodoc.html",
    "/en/stable/tutorial/index.html",
    "/en/stable/tutorial/first-steps.html",
    "/en/stable/usage/restructuredtext/directives.html",
    "/ja/stable/index.html",
    "/en/stable/usage/extensions/napoleon.html",
    "/en/stable/usage/theming.html",
    "/en/stable/man/sphinx-build.html",
    "/en/stable/usage/extensions/intersphinx.html",
    "/en/stable/search.html",
    "/en/master/changes/index.html",
    "/en/stable/usage/domains/python.html",
    "/en/stable/development/theming/templating/jinja-blocks-and-variables-that-every-template-may-override-or-extend.html",
    "/de/stable/einführung/schnellstart.html",
    "/en/stable/faq.html",
    "/en/stable/extdev/index.html",
    "/ar/stable/الدليل/البداية.html",
    "/en/stable/glossary.html",
    "/zh_CN/stable/用户指南/安装.html",
    "/en/stable/usage/advanced/intl.html",
    "/en/stable/extdev/nodes.html",
    "/en/stable/usage/extensions/graphviz.html",
    "/en/stable/usage/extensions/doctest.html",
    "/en/master/internals/release-process.html",
    "/en/stable/support.html",
];

/// (path, (referrer, share)…) of missing pages.
const MISSING: &[(&str, &[(&str, u64)])] = &[
    ("/en/stable/latest/index.html", &[("github.com", 9), (":internal", 22), ("", 5), ("stackoverflow.com", 4)]),
    ("/en/1.8/usage/quickstart.html", &[("stackoverflow.com", 17), ("", 4), ("www.google.com", 6)]),
    ("/ext/autodoc.html", &[("docs.python.org", 12), ("www.reddit.com", 3), ("", 9)]),
    ("/contents.html", &[("", 15)]),
    ("/en/stable/usage/extensions/<script>alert(1)</script>", &[("", 12)]),
];

type Shares = &'static [(&'static str, u64)];

const REFERRERS: Shares = &[
    ("", 38),
    ("www.google.com", 30),
    ("github.com", 14),
    ("stackoverflow.com", 8),
    ("docs.readthedocs.io", 5),
    ("www.bing.com", 3),
    ("duckduckgo.com", 4),
    ("docs.python.org", 3),
    ("news.ycombinator.com", 1),
    ("www.reddit.com", 1),
    ("chatgpt.com", 3),
];
const COUNTRIES: Shares = &[
    ("US", 27),
    ("DE", 13),
    ("CN", 9),
    ("JP", 8),
    ("IN", 8),
    ("GB", 6),
    ("FR", 6),
    ("BR", 4),
    ("CA", 3),
    ("NL", 3),
    ("PL", 2),
    ("KR", 2),
    ("AU", 2),
    ("UA", 1),
    ("", 6),
];
const BROWSERS: Shares = &[("Chrome", 58), ("Firefox", 20), ("Safari", 13), ("Edge", 7), ("Opera", 1), ("Other", 1)];
const SYSTEMS: Shares = &[("Windows", 40), ("Linux", 24), ("macOS", 23), ("Android", 8), ("iOS", 5)];
const DEVICES: Shares = &[("Desktop", 86), ("Mobile", 12), ("Tablet", 2)];
const BOTS: Shares = &[
    ("Googlebot", 30),
    ("GPTBot", 24),
    ("ClaudeBot", 15),
    ("Bingbot", 9),
    ("PerplexityBot", 5),
    ("CCBot", 4),
    ("Applebot", 4),
    ("Headless Chrome", 5),
    ("Slackbot", 2),
    ("UptimeRobot", 2),
];

/// Views by the hour (UTC) of people who work in Europe, America and Asia.
const HOURS: [u64; 24] =
    [20, 18, 18, 17, 18, 20, 28, 44, 66, 78, 80, 74, 68, 82, 92, 90, 80, 66, 52, 44, 38, 34, 28, 24];

struct Random(SplitMix64);

impl Random {
    fn new(seed: u64) -> Self {
        Random(SplitMix64::new(seed))
    }

    fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    fn of(&mut self, shares: impl Iterator<Item = u64> + Clone) -> usize {
        let mut at = self.below(shares.clone().sum());
        shares
            .take_while(|&share| {
                at >= share && {
                    at -= share;
                    true
                }
            })
            .count()
    }

    fn named(&mut self, shares: Shares) -> &'static str {
        shares[self.of(shares.iter().map(|(_, share)| *share))].0
    }
}

/// Visits of a weekday, in percent.
fn share_of(day: Day) -> u64 {
    match day.date().weekday() {
        Weekday::Sat => 38,
        Weekday::Sun => 33,
        Weekday::Mon | Weekday::Fri => 92,
        _ => 100,
    }
}

/// The first two segments of one of [`PAGES`].
fn language_and_version(path: &str) -> Option<[&'static str; 2]> {
    let page = PAGES.iter().find(|page| **page == path)?;
    let mut segments = page.split('/').skip(1);
    Some([segments.next()?, segments.next()?])
}

#[derive(Default)]
struct Site {
    views: u64,
    visits: u64,
    sketch: VisitorSketch,
}

/// Views by robots: by day, kind and name, and by day, path and group.
#[derive(Default)]
struct Robots<'a> {
    names: BTreeMap<(u16, BotClass, &'static str), u64>,
    pages: BTreeMap<(u16, &'a str, &'static str), u64>,
}

impl Traffic<'_> {
    /// Writes `months` months up to `last`, the last one up to `until`.
    pub async fn write(&self, client: &Client, last: Month, months: u32, until: Hour) -> Result<()> {
        let mut month = last;
        for back in 0..months {
            let percent = (0..back).fold(100.0, |percent, _| percent / (1.0 + self.growth as f64 / 100.0));
            self.month(client, month, percent as u64, until).await.with_context(|| format!("make up {month}"))?;
            month = month.previous();
        }
        Ok(())
    }

    async fn month(&self, client: &Client, month: Month, percent: u64, until: Hour) -> Result<()> {
        let seed = u64::from(month.year()) * 12 + u64::from(month.number());
        let mut random = Random::new(seed ^ self.project.bytes().fold(7, |hash, byte| mixed(hash ^ u64::from(byte))));
        let mut sites: BTreeMap<u32, Site> = BTreeMap::new();
        let mut pages: BTreeMap<(u16, &str), (u64, VisitorSketch)> = BTreeMap::new();
        let mut broken: BTreeMap<(u16, &str, &str), (u64, VisitorSketch)> = BTreeMap::new();
        let mut values: BTreeMap<(u16, &'static str, &'static str), u64> = BTreeMap::new();
        let mut robots = Robots::default();
        let end = month.end_hour().min(until);
        for day in month.first_hour().day().0..=Hour(end.0.saturating_sub(1)).day().0 {
            let share = share_of(Day(day)) * (90 + random.below(21)) * percent / 100;
            for _ in 0..(self.visits * share).div_ceil(10_000) {
                let hour = Day(day).first_hour().0 + random.of(HOURS.iter().copied()) as u32;
                if hour >= end.0 {
                    continue;
                }
                // Some readers come often, many only once.
                let reader = if random.below(100) < 45 { random.below(self.visits * 2) } else { random.next() };
                let coordinate = |of: u64| Coordinate::from_hash(mixed(reader ^ mixed(seed ^ mixed(of))));
                let site = sites.entry(hour).or_default();
                site.visits += 1;
                site.sketch.insert(coordinate(0));
                *values.entry((day, "referrer", random.named(REFERRERS))).or_default() += 1;
                let mut of_reader = Random::new(mixed(reader));
                let reading = [
                    ("country", of_reader.named(COUNTRIES)),
                    ("browser", of_reader.named(BROWSERS)),
                    ("os", of_reader.named(SYSTEMS)),
                    ("device", of_reader.named(DEVICES)),
                ];
                for _ in 0..1 + random.below(4) {
                    site.views += 1;
                    for (dimension, value) in reading {
                        *values.entry((day, dimension, value)).or_default() += 1;
                    }
                    if random.below(100) < 2 {
                        let at = random.of(MISSING.iter().map(|(_, from)| from.iter().map(|(_, share)| share).sum()));
                        let (path, from) = MISSING[at];
                        let (views, sketch) = broken.entry((day, path, random.named(from))).or_default();
                        *views += 1;
                        sketch.insert(coordinate(1000 + at as u64));
                        continue;
                    }
                    let at = random.of((1..=self.pages.len() as u64).map(|rank| 100_000 / (rank + 1)));
                    let (views, sketch) = pages.entry((day, self.pages[at])).or_default();
                    *views += 1;
                    sketch.insert(coordinate(1 + at as u64));
                    if let Some([language, version]) = language_and_version(self.pages[at]) {
                        *values.entry((day, "language", language)).or_default() += 1;
                        *values.entry((day, "version", version)).or_default() += 1;
                    }
                }
                if random.below(100) < 22 {
                    let bot = random.named(BOTS);
                    let kind = ingest::agents::kind_of_robot(bot).unwrap_or(BotClass::OtherBot);
                    let path = self.pages[(site.views % self.pages.len() as u64) as usize];
                    *robots.names.entry((day, kind, bot)).or_default() += 1;
                    *robots.pages.entry((day, path, kind.group().name())).or_default() += 1;
                }
            }
        }
        self.robots(client, robots).await?;
        self.rows(client, sites, pages, broken, values).await
    }

    async fn robots(&self, client: &Client, robots: Robots<'_>) -> Result<()> {
        let project = || self.project.to_owned();
        let (stream, window_start, next_offset) = (STREAM, 0, 1);
        let robot = |((day, kind, name), views): ((u16, BotClass, &str), u64)| RobotDailyRow {
            project: project(),
            day,
            kind: kind.class_name().to_owned(),
            name: name.to_owned(),
            views,
            stream,
            window_start,
            next_offset,
            source: Source::Beacon,
        };
        insert(client, "robot_daily", robots.names.into_iter().map(robot)).await?;
        let page = |((day, path, group), views): ((u16, &str, &str), u64)| RobotPageDailyRow {
            project: project(),
            day,
            path: path.to_owned(),
            robot_group: group.to_owned(),
            views,
            stream,
            window_start,
            next_offset,
            source: Source::Beacon,
        };
        insert(client, "robot_page_daily", robots.pages.into_iter().map(page)).await
    }

    async fn rows(
        &self,
        client: &Client,
        sites: BTreeMap<u32, Site>,
        pages: BTreeMap<(u16, &str), (u64, VisitorSketch)>,
        broken: BTreeMap<(u16, &str, &str), (u64, VisitorSketch)>,
        values: BTreeMap<(u16, &'static str, &'static str), u64>,
    ) -> Result<()> {
        let project = || self.project.to_owned();
        let (stream, window_start, next_offset) = (STREAM, 0, 1);
        let hourly = sites.into_iter().map(|(hour, site)| SiteHourlyRow {
            project: project(),
            hour: Hour(hour).unix_seconds(),
            views: site.views,
            visits: site.visits,
            sketch: site.sketch.encode(),
            stream,
            window_start,
            next_offset,
            source: Source::Beacon,
        });
        insert(client, "site_hourly", hourly).await?;
        let mut missing: BTreeMap<(u16, &str), (u64, VisitorSketch)> = BTreeMap::new();
        for (&(day, path, referrer), (views, sketch)) in &broken {
            let sum = missing.entry((day, path)).or_default();
            sum.0 += views;
            sum.1.merge(sketch);
            let sql = "INSERT INTO not_found_daily VALUES (?, toDate(?), ?, ?, ?, ?, 0, 1, 'headcount')";
            let query = client.query(sql).bind(self.project).bind(day).bind(path).bind(referrer).bind(*views);
            query.bind(STREAM).execute().await?;
        }
        let page = |status| {
            move |((day, path), (views, sketch)): ((u16, &str), (u64, VisitorSketch))| PageDailyRow {
                project: project(),
                day,
                path: path.to_owned(),
                status,
                views,
                sketch: sketch.encode(),
                stream,
                window_start,
                next_offset,
                source: Source::Beacon,
            }
        };
        insert(client, "page_daily", pages.into_iter().map(page(200)).chain(missing.into_iter().map(page(404))))
            .await?;
        let mut breakdowns = BTreeMap::<u16, BreakdownWindowRow>::new();
        for ((day, dimension, value), count) in values {
            let row = breakdowns.entry(day).or_insert_with(|| BreakdownWindowRow {
                project: project(),
                day,
                dimensions: vec![],
                values: vec![],
                views: vec![],
                stream,
                window_start,
                next_offset,
                source: Source::Beacon,
            });
            row.dimensions.push(Dimension::from_name(dimension).context("a dimension")?);
            row.values.push(value.to_owned());
            row.views.push(count);
        }
        insert(client, "breakdown_window", breakdowns.into_values()).await
    }
}

/// Beacons of `project` refused on one day, for the host of their page.
pub async fn refused(client: &Client, project: &str, day: Day, reason: &str, host: &str, beacons: u64) -> Result<()> {
    let sql = "INSERT INTO rejection_daily (project, day, reason, host, beacons, stream, window_start, next_offset) \
               VALUES (?, toDate(?), ?, ?, ?, ?, 0, 1)";
    let query = client.query(sql).bind(project).bind(day.0).bind(reason).bind(host).bind(beacons).bind(STREAM);
    Ok(query.execute().await?)
}

async fn insert<T: RowOwned + RowWrite>(client: &Client, table: &str, rows: impl Iterator<Item = T>) -> Result<()> {
    let mut insert = client.insert::<T>(table).await?;
    for row in rows {
        insert.write(&row).await?;
    }
    insert.end().await.with_context(|| format!("insert into {table}"))
}
