//! Facts from ClickHouse, added row by row in any order as sums and unions. A month of dense sketches needs one sketch per day and one per
//! listed page in memory, not all of them. Rows must come from `FINAL` reads: one for each key, stream and window.

use super::pages::PageList;
use super::robots::RobotFacts;
use super::visitors::{PageVisitors, VisitorUnit, Visitors};
use super::{MaskedPages, ReportedPage};
use crate::period::Period;
use crate::small_cells::{Beneath, Floor};
use chrono::NaiveDate;
use chrono_tz::Tz;
use clickhouse::Row;
use schemas::classes::Source;
use schemas::sketch::SketchDecodeError;
use schemas::tables::{MonthClosedRow, SiteHourlyRow};
use schemas::{Hour, VisitorSketch};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Views of the values of one month, by dimension. Values below the threshold have no name, and may have been added up.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct ValueSum {
    /// First day of the month, days since the epoch.
    pub month: u16,
    /// [`schemas::classes::Dimension::name`], or the path whose referrers these are.
    pub name: String,
    /// The value; empty if the row stands for values below the threshold.
    pub value: String,
    /// Views of the value, or of all values that the row stands for.
    pub total: u64,
    /// Number of values below the threshold that the row stands for; else 0.
    pub beneath: u64,
    /// Views of the largest of these.
    pub largest: u64,
}

/// The visitors of a page: a row of `page_daily`, or of `month_closed_page`.
#[derive(Clone, Debug, PartialEq, Row, Deserialize)]
pub struct PageDetail {
    /// Cleaned path.
    pub path: String,
    /// HTTP status.
    pub status: u16,
    /// First day of the month, days since the epoch.
    pub month: u16,
    /// Page views.
    pub views: u64,
    /// Encoded sketch of an open month; else empty.
    #[serde(with = "serde_bytes")]
    pub sketch: Vec<u8>,
    /// Estimate of a closed month; else 0.
    pub visitors: u64,
    /// Error of this estimate.
    pub visitors_error: f64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) views: u64,
    pub(super) visits: u64,
}

/// The figures that replace the sketches of a closed month.
#[derive(Clone, Debug, Default)]
pub(super) struct ClosedVisitors {
    of_month: (u64, f64),
    of_days: Vec<(u64, f64)>,
    /// Views in windows that the closed figures do not contain: at the close, and now.
    open_views: [u64; 2],
}

/// Facts of one month, or of a part of it.
#[derive(Clone, Debug)]
pub struct MonthFacts {
    /// The month or the part.
    pub period: Period,
    /// Whether anything was counted in the month, even outside the part.
    pub has_rows: bool,
    pub(super) hours: BTreeMap<Hour, Sum>,
    day_sketches: BTreeMap<NaiveDate, VisitorSketch>,
    /// Page views of people by the tracker that sent them.
    pub(super) sources: BTreeMap<Source, u64>,
    /// Refused beacons by (reason, host).
    pub(super) rejections: BTreeMap<(String, String), u64>,
    closed: Option<ClosedVisitors>,
}

impl MonthFacts {
    /// No facts yet.
    pub fn new(period: Period) -> Self {
        MonthFacts {
            period,
            has_rows: false,
            hours: BTreeMap::new(),
            day_sketches: BTreeMap::new(),
            sources: BTreeMap::new(),
            rejections: BTreeMap::new(),
            closed: None,
        }
    }

    /// Marks the month as closed. Its figures come with [`MonthFacts::add_closed`], if anything was counted; rows that are added from now
    /// on are from windows that those figures do not contain.
    pub fn close(&mut self) {
        self.closed.get_or_insert_default();
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// Page views of people.
    pub fn views(&self) -> u64 {
        self.hours.values().map(|hour| hour.views).sum()
    }

    /// Figures of the closed month.
    pub fn add_closed(&mut self, row: &MonthClosedRow) {
        self.has_rows = true;
        let first = self.period.first_hour();
        for (at, (&views, &visits)) in row.hour_views.iter().zip(&row.hour_visits).enumerate() {
            let hour = Hour(first.0 + at as u32);
            if hour < self.period.end_hour() {
                let sum = self.hours.entry(hour).or_default();
                sum.views += views;
                sum.visits += visits;
            }
        }
        self.add_closed_sources(row);
        for (at, (reason, beacons)) in row.rejected_reasons.iter().zip(&row.rejected_beacons).enumerate() {
            // Months that were closed before hosts were recorded have none.
            let host = row.rejected_hosts.get(at).cloned().unwrap_or_default();
            self.add_rejection(reason.clone(), host, *beacons);
        }
        let closed = self.closed.get_or_insert_default();
        closed.of_month = (row.visitors, row.visitors_error);
        closed.of_days = row.day_visitors.iter().copied().zip(row.day_errors.iter().copied()).collect();
        closed.open_views[0] = row.open_views;
    }

    /// Months that were closed before sources were stored count as headcount's own script.
    fn add_closed_sources(&mut self, row: &MonthClosedRow) {
        if row.source_names.is_empty() {
            *self.sources.entry(Source::Beacon).or_default() += row.hour_views.iter().sum::<u64>();
        }
        for (name, views) in row.source_names.iter().zip(&row.source_views) {
            // No other name is stored: the schema's version is verified at the start.
            if let Some(source) = Source::from_name(name) {
                *self.sources.entry(source).or_default() += views;
            }
        }
    }

    /// Adds refused beacons. A host that lost its own row has a row of 0 and is skipped.
    pub fn add_rejection(&mut self, reason: String, host: String, beacons: u64) {
        if beacons == 0 {
            return;
        }
        *self.rejections.entry((reason, host)).or_default() += beacons;
    }

    /// Adds one row of `site_hourly`.
    pub fn add_site(&mut self, row: &SiteHourlyRow) -> Result<(), SketchDecodeError> {
        let hour = Hour::from_unix_seconds(row.hour);
        match &mut self.closed {
            // The visitors were estimated at the close; later sketches are not merged.
            Some(closed) => closed.open_views[1] += row.views,
            None => self.day_sketches.entry(hour.day().date()).or_default().merge_encoded(&row.sketch)?,
        }
        self.add_counts(row);
        Ok(())
    }

    /// Adds one row of `site_hourly` without its sketch, for a part of a month.
    pub fn add_counts(&mut self, row: &SiteHourlyRow) {
        let sum = self.hours.entry(Hour::from_unix_seconds(row.hour)).or_default();
        sum.views += row.views;
        sum.visits += row.visits;
        *self.sources.entry(row.source).or_default() += row.views;
    }

    pub(super) fn of_hour(&self, hour: Hour) -> Sum {
        self.hours.get(&hour).copied().unwrap_or_default()
    }

    pub(super) fn sum(&self) -> Sum {
        self.hours
            .values()
            .fold(Sum::default(), |all, hour| Sum { views: all.views + hour.views, visits: all.visits + hour.visits })
    }

    /// Views that arrived after the close.
    pub(super) fn late_views(&self) -> Option<u64> {
        self.closed.as_ref().map(|closed| closed.open_views[1].saturating_sub(closed.open_views[0]))
    }

    pub(super) fn visitors(&self, unit: VisitorUnit) -> Visitors {
        match &self.closed {
            Some(closed) => told(closed.of_month, unit),
            None => {
                let mut union = VisitorSketch::new();
                self.day_sketches.values().for_each(|day| union.merge(day));
                Visitors::of(&union, unit)
            }
        }
    }

    /// Visitors of the day with index `at` in the month.
    pub(super) fn visitors_of_day(&self, at: usize, day: NaiveDate, unit: VisitorUnit) -> Visitors {
        match (&self.closed, self.day_sketches.get(&day)) {
            (Some(closed), _) => told(closed.of_days.get(at).copied().unwrap_or_default(), unit),
            (None, Some(sketch)) => Visitors::of(sketch, unit),
            (None, None) => told((0, 0.0), unit),
        }
    }
}

fn told((estimate, error): (u64, f64), unit: VisitorUnit) -> Visitors {
    Visitors { estimate, error, unit }
}

#[derive(Clone, Debug)]
enum PageMonth {
    Open(VisitorSketch),
    Closed(u64, f64),
}

/// Visitors of one page, month by month.
#[derive(Clone, Debug, Default)]
pub struct PageFacts {
    /// Views of the page in the period.
    pub views: u64,
    months: BTreeMap<u16, PageMonth>,
}

impl PageFacts {
    /// Adds one row. If its month is `closed`, its estimate counts, and sketches that came later do not.
    pub fn add(&mut self, row: &PageDetail, closed: bool) -> Result<(), SketchDecodeError> {
        self.views += row.views;
        if closed {
            if row.visitors > 0 {
                self.months.insert(row.month, PageMonth::Closed(row.visitors, row.visitors_error));
            }
            return Ok(());
        }
        let month = self.months.entry(row.month).or_insert_with(|| PageMonth::Open(VisitorSketch::new()));
        match month {
            PageMonth::Open(sketch) => sketch.merge_encoded(&row.sketch),
            PageMonth::Closed(..) => Ok(()),
        }
    }

    /// The visitors, or that they are withheld. In a range the threshold applies to each month by itself.
    pub fn visitors(&self, rules: Rules, range: bool) -> PageVisitors {
        if range {
            let months: Vec<_> = self.told(rules).collect();
            return PageVisitors::sum(&months, rules.unit.of_range(), rules.floor);
        }
        let nobody = || PageVisitors::of(told((0, 0.0), rules.unit), rules.floor);
        self.told(rules).next().unwrap_or_else(nobody)
    }

    /// The number of months in which the visitors are withheld.
    pub fn months_withheld(&self, rules: Rules) -> u64 {
        self.told(rules).filter(|month| month.shown().is_none()).count() as u64
    }

    /// The figures month by month.
    fn told(&self, rules: Rules) -> impl Iterator<Item = PageVisitors> {
        self.months.values().map(move |month| {
            let visitors = match month {
                PageMonth::Open(sketch) => Visitors::of(sketch, rules.unit),
                PageMonth::Closed(estimate, error) => told((*estimate, *error), rules.unit),
            };
            PageVisitors::of(visitors, rules.floor)
        })
    }
}

/// Unit of visitor figures, and the threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What a visitor figure counts.
    pub unit: VisitorUnit,
    /// The threshold.
    pub floor: Floor,
}

/// Pages by path and status.
pub type ByPage<T> = BTreeMap<(String, u16), T>;

/// Facts of the listed pages, besides their views.
#[derive(Clone, Debug, Default)]
pub struct ListedPages {
    /// Their visitors.
    pub facts: ByPage<PageFacts>,
    /// Their views in the month before; none if there is no comparison.
    pub before: Option<ByPage<u64>>,
    /// Referrers of the listed pages not found: [`ValueSum::name`] is the path.
    pub referrers: Vec<ValueSum>,
}

impl ListedPages {
    /// Adds one row.
    pub fn add(&mut self, row: &PageDetail, closed: bool) -> Result<(), SketchDecodeError> {
        self.facts.entry((row.path.clone(), row.status)).or_default().add(row, closed)
    }
}

/// All facts of a report.
#[derive(Clone, Debug)]
pub struct ReportFacts {
    /// Every month, in order; at least one.
    pub months: Vec<MonthFacts>,
    /// The month before, and the same month a year before; none for a range.
    pub compared: [Option<MonthFacts>; 2],
    /// Values of every dimension.
    pub values: Vec<ValueSum>,
    /// The requested list of pages.
    pub pages: PageList,
    /// Pages with status 404.
    pub not_found: PageList,
    /// Further facts of the pages in both lists.
    pub listed: ListedPages,
    /// Rows with a masked path.
    pub masked: MaskedPages,
    /// Views by robots.
    pub robots: RobotFacts,
    /// Pages that were reported as missing, most first.
    pub reported_missing: Vec<ReportedPage>,
    /// The project's time zone.
    pub time_zone: Tz,
}

impl ReportFacts {
    /// No facts yet of these months.
    pub fn new(periods: &[Period]) -> Self {
        ReportFacts {
            months: periods.iter().copied().map(MonthFacts::new).collect(),
            compared: [None, None],
            values: Vec::new(),
            pages: PageList::default(),
            not_found: PageList::default(),
            listed: ListedPages::default(),
            masked: MaskedPages::default(),
            robots: RobotFacts::default(),
            reported_missing: Vec::new(),
            time_zone: Tz::UTC,
        }
    }
}

/// For one name in one month: the values that were returned by name, and the sum of the others.
pub(super) fn apart<'a>(sums: impl Iterator<Item = &'a ValueSum>) -> (Vec<super::BreakdownItem>, Beneath) {
    let (mut items, mut beneath) = (Vec::new(), Beneath::default());
    for sum in sums {
        if sum.beneath == 0 {
            items.push(super::BreakdownItem { value: sum.value.clone(), views: sum.total, rest: false });
        } else {
            beneath.cells += sum.beneath;
            beneath.views += sum.total;
            beneath.largest = beneath.largest.max(sum.largest);
        }
    }
    (items, beneath)
}
