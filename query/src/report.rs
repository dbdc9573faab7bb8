//! The monthly report: facts of ClickHouse in, figures out. Pure.
//!
//! [`MonthFacts`] takes the rows one by one, in any order, and keeps sums and unions only, so that a month of dense
//! sketches needs one sketch a day and one a listed page, not all of them at once. [`MonthlyReport::of`] makes the
//! figures.

use crate::period::Period;
use crate::small_cells::Floor;
use chrono::{DateTime, NaiveDate, Utc};
use clickhouse::Row;
use schemas::classes::{BotClass, ClassName, Dimension};
use schemas::sketch::SketchDecodeError;
use schemas::tables::{MonthClosedPageRow, MonthClosedRow, PageDailyRow, SiteHourlyRow};
use schemas::{Hour, ProjectSlug, VisitorSketch};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub mod pages;

#[cfg(test)]
mod tests;

pub use pages::{Cursor, InvalidCursor, PageList, PageTotal};

/// Pages of one project's month, by (path, status), with the union of their sketches.
type PageSketches = BTreeMap<String, BTreeMap<u16, VisitorSketch>>;

/// What a visitor figure counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VisitorUnit {
    /// Different readers in the period: keys live for the month.
    #[default]
    Visitors,
    /// Readers counted anew every day: keys live for the day.
    VisitorDays,
    /// Readers counted anew every month: the sum over a range of months, whose keys have nothing to do with one another.
    VisitorMonths,
}

/// An estimate of visitors.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Visitors {
    /// Visitors, rounded to a whole number.
    pub estimate: u64,
    /// One standard deviation as a fraction of the estimate, rounded to 4 decimals.
    pub error: f64,
    /// What is counted.
    pub unit: VisitorUnit,
}

impl Visitors {
    /// The figure of a sketch.
    pub fn of(sketch: &VisitorSketch, unit: VisitorUnit) -> Self {
        let estimate = sketch.estimate();
        Visitors { estimate: estimate.value.round() as u64, error: (estimate.error * 1e4).round() / 1e4, unit }
    }

    /// One standard deviation in visitors, rounded up: an estimate of someone is never shown as exact.
    pub fn plus_minus(self) -> u64 {
        (self.estimate as f64 * self.error).ceil() as u64
    }
}

/// Visitors of a page.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum PageVisitors {
    /// Enough to be told.
    Shown(Visitors),
    /// Withheld: a small cell.
    Few {
        /// There are fewer than this.
        fewer_than: u64,
        /// What is counted.
        unit: VisitorUnit,
    },
}

impl PageVisitors {
    fn of(visitors: Visitors, floor: Floor) -> Self {
        if floor.withholds(visitors.estimate) {
            PageVisitors::Few { fewer_than: floor.get(), unit: visitors.unit }
        } else {
            PageVisitors::Shown(visitors)
        }
    }
}

/// One value's views in a breakdown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BreakdownItem {
    /// The value; empty for unknown, and for direct arrivals where the dimension is `referrer`.
    pub value: String,
    /// Views (visits for `referrer`, bots' views for `bot`).
    pub views: u64,
    /// True for the last item where it adds up all values that are not listed, small cells among them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rest: bool,
}

/// From when to when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportPeriod {
    /// As asked for: `YYYY-MM`, or `YYYY-MM..YYYY-MM` with both months included.
    pub span: String,
    /// First instant.
    pub from: DateTime<Utc>,
    /// First instant after: the month's end, or the end of the running hour.
    pub to: DateTime<Utc>,
    /// True once the sketches of every month in it are destroyed and the figures are final.
    pub closed: bool,
    /// `YYYY-MM`; null for a range.
    pub month: Option<String>,
}

/// One month of the period.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MonthFigures {
    /// `YYYY-MM`.
    pub month: String,
    /// Page views by people.
    pub views: u64,
    /// Arrivals from outside the project.
    pub visits: u64,
    /// Visitors of the month.
    pub visitors: Visitors,
    /// True once its sketches are destroyed and its figures are final.
    pub closed: bool,
}

/// An earlier month, and how this one differs from it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedMonth {
    /// `YYYY-MM`.
    pub month: String,
    /// Up to when it was counted for this: its end, or, where the report's month is running, as many hours as that has.
    pub to: DateTime<Utc>,
    /// Its page views by people.
    pub views: u64,
    /// Its arrivals.
    pub visits: u64,
    /// Its visitors; null where only a part of it is compared, since parts have no figure of their own.
    pub visitors: Option<Visitors>,
    /// Difference of views as a fraction of the earlier ones: 0.25 for a quarter more; null where there were none.
    pub views_change: Option<f64>,
    /// The same of arrivals.
    pub visits_change: Option<f64>,
    /// The same of visitors; null where either has no figure.
    pub visitors_change: Option<f64>,
}

/// What one month is compared with. Null where nothing was counted, as before the project was.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// The month before.
    pub previous_month: Option<ComparedMonth>,
    /// The same month a year ago.
    pub previous_year: Option<ComparedMonth>,
}

/// Beacons refused for one reason, from pages of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RejectedHost {
    /// The reason's name.
    pub reason: String,
    /// The page's host; empty where it is not known.
    pub host: String,
    /// Refused beacons.
    pub beacons: u64,
    /// True where it adds up all hosts that are not listed, small cells among them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rest: bool,
}

/// The month in figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Totals {
    /// Page views by people.
    pub views: u64,
    /// Of these, arrivals from outside the project.
    pub visits: u64,
    /// Visitors of the whole period: a union, not the sum of days. Of a range of months the sum over months, in `visitor-months`.
    pub visitors: Visitors,
    /// Views for each visitor, to one decimal; null where there was nobody.
    pub views_per_visitor: Option<f64>,
    /// Of a closed month, views that came after the close: part of `views`, but nobody is counted as their visitor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_views: Option<u64>,
    /// Views by bots, by class; not part of `views`.
    pub bots: BTreeMap<&'static str, u64>,
    /// Refused beacons, by reason.
    pub rejected: BTreeMap<String, u64>,
}

/// One day.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DayFigures {
    /// The date, UTC.
    pub day: NaiveDate,
    /// Page views by people.
    pub views: u64,
    /// Arrivals.
    pub visits: u64,
    /// Visitors of the day.
    pub visitors: Visitors,
}

/// One hour. Without visitors: nobody plans by them, and 744 figures more would be 744 chances to subtract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HourFigures {
    /// Start of the hour.
    pub hour: DateTime<Utc>,
    /// Page views by people.
    pub views: u64,
    /// Arrivals.
    pub visits: u64,
}

/// One path with one status.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PageFigures {
    /// Cleaned path.
    pub path: String,
    /// HTTP status.
    pub status: u16,
    /// Page views by people.
    pub views: u64,
    /// Visitors of the page, unless they are fewer than the floor of small cells. In a range the sum over those months in which
    /// they are told.
    pub visitors: PageVisitors,
    /// Its views in the whole month before; null for a range of months.
    pub views_before: Option<u64>,
    /// Difference to `views_before` as a fraction of it; null where that is null or 0, or the month is running.
    pub change: Option<f64>,
    /// Of a page not found: the hosts of pages that led here, `:internal` for one of the same project, empty where it is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub referrers: Vec<BreakdownItem>,
}

/// One page of the list of pages.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PageListFigures {
    /// In the order asked for: by views, most first, where nothing was asked; equals by path.
    pub items: Vec<PageFigures>,
    /// Cursor for `after`; null at the end.
    pub next: Option<Cursor>,
}

/// Views by day of the week, Monday first, and hour of the day.
pub type Week = [[u64; 24]; 7];

/// One project's month, or range of months.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MonthlyReport {
    /// Project slug.
    pub project: ProjectSlug,
    /// From when to when.
    pub period: ReportPeriod,
    /// All of it in figures.
    pub totals: Totals,
    /// Every month of the period.
    pub months: Vec<MonthFigures>,
    /// How it differs from earlier months; nulls for a range.
    pub comparison: Comparison,
    /// IANA name of the project's time zone, which `week` is in. Everything else is in UTC.
    pub time_zone: String,
    /// Views by day of the week (Monday first) and hour of the day, in the project's time zone.
    pub week: Week,
    /// Every day of the period, those without views included.
    pub days: Vec<DayFigures>,
    /// Every hour of the period, those without views included.
    pub hours: Vec<HourFigures>,
    /// Pages of every status.
    pub pages: PageListFigures,
    /// Pages with status 404, and where their readers came from.
    pub not_found: PageListFigures,
    /// Hosts of pages whose beacons were refused, most first.
    pub rejected_hosts: Vec<RejectedHost>,
    /// Views by one dimension each, most first.
    pub breakdowns: BTreeMap<&'static str, Vec<BreakdownItem>>,
}

/// A value's views in the period, over all windows and streams.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct BreakdownSum {
    /// [`Dimension::name`].
    pub dimension: String,
    /// The value.
    pub value: String,
    /// Its views.
    pub total: u64,
    /// Views of all values of the dimension, listed or not.
    pub of_dimension: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    views: u64,
    visits: u64,
}

/// What ClickHouse says of one project's period, added up over windows and streams. Rows must come from `FINAL` reads:
/// one for each key, stream and window.
#[derive(Clone, Debug, Default)]
pub struct MonthFacts {
    hours: BTreeMap<Hour, Sum>,
    day_sketches: BTreeMap<NaiveDate, VisitorSketch>,
    bots: BTreeMap<&'static str, u64>,
    page_sketches: PageSketches,
    /// Pages asked for.
    pub pages: PageList,
    /// Pages with status 404.
    pub not_found: PageList,
    /// The largest values of every dimension.
    pub breakdowns: Vec<BreakdownSum>,
    /// (reason, refused beacons).
    pub rejections: Vec<(String, u64)>,
    closed: Option<ClosedVisitors>,
}

/// What a closed month has instead of sketches.
#[derive(Clone, Debug, Default)]
struct ClosedVisitors {
    of_month: (u64, f64),
    of_days: Vec<(u64, f64)>,
    of_pages: BTreeMap<(String, u16), (u64, f64)>,
    /// Views in windows that the closed figures do not contain: as of the close, and now.
    open_views: [u64; 2],
}

impl ClosedVisitors {
    fn told((estimate, error): (u64, f64), unit: VisitorUnit) -> Visitors {
        Visitors { estimate, error, unit }
    }
}

impl MonthFacts {
    /// The month is closed: what follows are its figures, and rows of windows that they do not contain. `row` is none where nothing
    /// had been counted at the close.
    pub fn close(&mut self, first_hour: Hour, row: Option<&MonthClosedRow>) {
        let mut closed = ClosedVisitors::default();
        if let Some(row) = row {
            for (at, (&views, &visits)) in row.hour_views.iter().zip(&row.hour_visits).enumerate() {
                let sum = self.hours.entry(Hour(first_hour.0 + at as u32)).or_default();
                sum.views += views;
                sum.visits += visits;
            }
            self.add_bots([
                row.bots_search,
                row.bots_ai_crawler,
                row.bots_preview,
                row.bots_monitor,
                row.bots_automation,
                row.bots_other,
            ]);
            let reasons = row.rejected_reasons.iter().cloned().zip(row.rejected_beacons.iter().copied());
            self.rejections.extend(reasons);
            closed.of_month = (row.visitors, row.visitors_error);
            closed.of_days = row.day_visitors.iter().copied().zip(row.day_errors.iter().copied()).collect();
            closed.open_views[0] = row.open_views;
        }
        self.closed = Some(closed);
    }

    /// Visitors of a page of a closed month.
    pub fn add_closed_page(&mut self, row: MonthClosedPageRow) {
        if let Some(closed) = &mut self.closed {
            closed.of_pages.insert((row.path, row.status), (row.visitors, row.visitors_error));
        }
    }

    fn add_bots(&mut self, views: [u64; 6]) {
        let classes = [
            BotClass::Search,
            BotClass::AiCrawler,
            BotClass::Preview,
            BotClass::Monitor,
            BotClass::Automation,
            BotClass::OtherBot,
        ];
        for (class, views) in classes.into_iter().zip(views) {
            *self.bots.entry(class.class_name()).or_default() += views;
        }
    }

    /// Adds one row of `site_hourly`.
    pub fn add_site(&mut self, row: &SiteHourlyRow) -> Result<(), SketchDecodeError> {
        let hour = Hour::from_unix_seconds(row.hour);
        match &mut self.closed {
            // Its visitors were estimated at the close; what sketches come after it belong to nobody any more.
            Some(closed) => closed.open_views[1] += row.views,
            None => self.day_sketches.entry(hour.day().date()).or_default().merge_encoded(&row.sketch)?,
        }
        let sum = self.hours.entry(hour).or_default();
        sum.views += row.views;
        sum.visits += row.visits;
        self.add_bots([
            row.bots_search,
            row.bots_ai_crawler,
            row.bots_preview,
            row.bots_monitor,
            row.bots_automation,
            row.bots_other,
        ]);
        Ok(())
    }

    /// Adds the sketch of one row of `page_daily`; its views come with [`MonthFacts::pages`].
    pub fn add_page_sketch(&mut self, row: &PageDailyRow) -> Result<(), SketchDecodeError> {
        if !self.page_sketches.contains_key(&row.path) {
            self.page_sketches.insert(row.path.clone(), BTreeMap::new());
        }
        match self.page_sketches.get_mut(&row.path) {
            Some(statuses) => statuses.entry(row.status).or_default().merge_encoded(&row.sketch),
            None => Ok(()),
        }
    }

    fn page_list(&self, list: &PageList, rules: Rules) -> PageListFigures {
        let nobody = VisitorSketch::new();
        let items = list.items.iter().map(|page| {
            let visitors = match &self.closed {
                Some(closed) => {
                    let found = closed.of_pages.get(&(page.path.clone(), page.status));
                    ClosedVisitors::told(found.copied().unwrap_or_default(), rules.unit)
                }
                None => {
                    let statuses = self.page_sketches.get(&page.path);
                    let sketch = statuses.and_then(|statuses| statuses.get(&page.status));
                    Visitors::of(sketch.unwrap_or(&nobody), rules.unit)
                }
            };
            PageFigures {
                path: page.path.clone(),
                status: page.status,
                views: page.total,
                visitors: PageVisitors::of(visitors, rules.floor),
                views_before: None,
                change: None,
                referrers: Vec::new(),
            }
        });
        PageListFigures { items: items.collect(), next: list.next.clone() }
    }

    fn breakdown(&self, dimension: Dimension, floor: Floor) -> Vec<BreakdownItem> {
        let sums = || self.breakdowns.iter().filter(|sum| sum.dimension == dimension.name());
        let mut items: Vec<BreakdownItem> =
            sums().map(|sum| BreakdownItem { value: sum.value.clone(), views: sum.total, rest: false }).collect();
        let listed: u64 = items.iter().map(|item| item.views).sum();
        let rest = sums().map(|sum| sum.of_dimension).max().unwrap_or(0).saturating_sub(listed);
        if rest > 0 {
            items.push(BreakdownItem { value: "other".to_owned(), views: rest, rest: true });
        }
        floor.fold(items)
    }
}

/// How figures are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What a visitor figure counts.
    pub unit: VisitorUnit,
    /// What is too small to be told.
    pub floor: Floor,
}

impl MonthlyReport {
    /// The figures of `project`'s `period`.
    pub fn of(project: ProjectSlug, period: Period, facts: &MonthFacts, rules: Rules) -> Self {
        let unit = rules.unit;
        let hours: Vec<HourFigures> = period
            .hours()
            .map(|hour| {
                let sum = facts.hours.get(&hour).copied().unwrap_or_default();
                HourFigures { hour: hour.start(), views: sum.views, visits: sum.visits }
            })
            .collect();
        let nobody = VisitorSketch::new();
        let mut of_month = VisitorSketch::new();
        let days: Vec<DayFigures> = period
            .days()
            .enumerate()
            .map(|(at, day)| {
                let day = day.date();
                let sketch = facts.day_sketches.get(&day).unwrap_or(&nobody);
                of_month.merge(sketch);
                let of_day = || hours.iter().filter(|figures| figures.hour.date_naive() == day);
                DayFigures {
                    day,
                    views: of_day().map(|figures| figures.views).sum(),
                    visits: of_day().map(|figures| figures.visits).sum(),
                    visitors: match &facts.closed {
                        Some(closed) => ClosedVisitors::told(closed.of_days.get(at).copied().unwrap_or_default(), unit),
                        None => Visitors::of(sketch, unit),
                    },
                }
            })
            .collect();
        let mut rejected = BTreeMap::new();
        for (reason, beacons) in &facts.rejections {
            *rejected.entry(reason.clone()).or_default() += beacons;
        }
        MonthlyReport {
            project,
            period: ReportPeriod {
                from: period.first_hour().start(),
                to: period.end_hour().start(),
                closed: facts.closed.is_some(),
                month: Some(period.month().to_string()),
                span: period.month().to_string(),
            },
            months: Vec::new(),
            comparison: Comparison::default(),
            time_zone: "UTC".to_owned(),
            week: Week::default(),
            totals: Totals {
                views: days.iter().map(|day| day.views).sum(),
                visits: days.iter().map(|day| day.visits).sum(),
                visitors: match &facts.closed {
                    Some(closed) => ClosedVisitors::told(closed.of_month, unit),
                    None => Visitors::of(&of_month, unit),
                },
                views_per_visitor: None,
                late_views: facts.closed.as_ref().map(|closed| {
                    let [at_close, now] = closed.open_views;
                    now.saturating_sub(at_close)
                }),
                bots: facts.bots.clone(),
                rejected,
            },
            days,
            hours,
            pages: facts.page_list(&facts.pages, rules),
            not_found: facts.page_list(&facts.not_found, rules),
            rejected_hosts: Vec::new(),
            breakdowns: Dimension::ALL.into_iter().map(|d| (d.name(), facts.breakdown(d, rules.floor))).collect(),
        }
    }
}
