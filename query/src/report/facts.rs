//! What ClickHouse says, taken row by row in any order, as sums and unions: a month of dense sketches needs one sketch a day and
//! one a listed page, not all of them at once. Rows must come from `FINAL` reads: one for each key, stream and window.

use super::MaskedPages;
use super::pages::PageList;
use super::robots::RobotFacts;
use super::visitors::{PageVisitors, VisitorUnit, Visitors};
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

/// Views of values of one month, dimension by dimension. Values below the floor have no name, and may have been added up.
#[derive(Clone, Debug, PartialEq, Eq, Row, Deserialize)]
pub struct ValueSum {
    /// First day of the month, days since the epoch.
    pub month: u16,
    /// [`schemas::classes::Dimension::name`], or the path whose referrers these are.
    pub name: String,
    /// The value; empty where it is many values below the floor.
    pub value: String,
    /// Its views, or theirs.
    pub total: u64,
    /// How many values it is, where they are below the floor; else 0.
    pub beneath: u64,
    /// Views of the largest of these.
    pub largest: u64,
}

/// What is known of a page's visitors: a row of `page_daily`, or of `month_closed_page`.
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
    /// Its error.
    pub visitors_error: f64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    pub(super) views: u64,
    pub(super) visits: u64,
}

/// What a closed month has instead of sketches.
#[derive(Clone, Debug, Default)]
pub(super) struct ClosedVisitors {
    of_month: (u64, f64),
    of_days: Vec<(u64, f64)>,
    /// Views in windows that the closed figures do not contain: as of the close, and now.
    open_views: [u64; 2],
}

/// One month, or the part of it that is spoken of.
#[derive(Clone, Debug)]
pub struct MonthFacts {
    /// Which.
    pub period: Period,
    /// Whether anything was counted in it, be it after its part.
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
    /// Nothing is known yet.
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

    /// The month is closed: its figures come with [`MonthFacts::add_closed`], if anything had been counted, and rows that are added
    /// from now on are of windows that those do not contain.
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
            // Months that were closed before hosts were noted have none.
            let host = row.rejected_hosts.get(at).cloned().unwrap_or_default();
            self.add_rejection(reason.clone(), host, *beacons);
        }
        let closed = self.closed.get_or_insert_default();
        closed.of_month = (row.visitors, row.visitors_error);
        closed.of_days = row.day_visitors.iter().copied().zip(row.day_errors.iter().copied()).collect();
        closed.open_views[0] = row.open_views;
    }

    /// Months that were closed before sources were stored are all of headcount's own script.
    fn add_closed_sources(&mut self, row: &MonthClosedRow) {
        if row.source_names.is_empty() {
            *self.sources.entry(Source::Beacon).or_default() += row.hour_views.iter().sum::<u64>();
        }
        for (name, views) in row.source_names.iter().zip(&row.source_views) {
            // No other name is stored: the schema's version is checked at the start.
            if let Some(source) = Source::from_name(name) {
                *self.sources.entry(source).or_default() += views;
            }
        }
    }

    /// Adds refused beacons. A host that left the named ones has a row of 0, and is none of them.
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
            // Its visitors were estimated at the close; what sketches come after it belong to nobody any more.
            Some(closed) => closed.open_views[1] += row.views,
            None => self.day_sketches.entry(hour.day().date()).or_default().merge_encoded(&row.sketch)?,
        }
        self.add_counts(row);
        Ok(())
    }

    /// Adds one row of `site_hourly` without its sketch, where only a part of the month is spoken of.
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

    /// Views that came after the close.
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

    /// Visitors of the month's `at`th day.
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
    /// Adds one row. `closed` tells whether its month is: then its estimate counts, and a sketch that came later does not.
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

    /// What may be told of them. In a range every month goes through the floor by itself.
    pub fn visitors(&self, rules: Rules, range: bool) -> PageVisitors {
        if range {
            let months: Vec<_> = self.told(rules).collect();
            return PageVisitors::sum(&months, rules.unit.of_range(), rules.floor);
        }
        let nobody = || PageVisitors::of(told((0, 0.0), rules.unit), rules.floor);
        self.told(rules).next().unwrap_or_else(nobody)
    }

    /// In how many months nothing may be told of them.
    pub fn months_withheld(&self, rules: Rules) -> u64 {
        self.told(rules).filter(|month| month.shown().is_none()).count() as u64
    }

    /// Month by month.
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

/// How figures are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// What a visitor figure counts.
    pub unit: VisitorUnit,
    /// What is too small to be told.
    pub floor: Floor,
}

/// Pages by path and status.
pub type ByPage<T> = BTreeMap<(String, u16), T>;

/// What is known beside the views of the pages that are listed.
#[derive(Clone, Debug, Default)]
pub struct ListedPages {
    /// Their visitors.
    pub facts: ByPage<PageFacts>,
    /// Their views in the month before; none where that is not spoken of.
    pub before: Option<ByPage<u64>>,
    /// Of those not found, who led there: [`ValueSum::name`] is the path.
    pub referrers: Vec<ValueSum>,
}

impl ListedPages {
    /// Adds one row.
    pub fn add(&mut self, row: &PageDetail, closed: bool) -> Result<(), SketchDecodeError> {
        self.facts.entry((row.path.clone(), row.status)).or_default().add(row, closed)
    }
}

/// Everything that a report is made of.
#[derive(Clone, Debug)]
pub struct ReportFacts {
    /// Every month, in order; at least one.
    pub months: Vec<MonthFacts>,
    /// The month before, and the same month a year before: of one month only.
    pub compared: [Option<MonthFacts>; 2],
    /// Values of every dimension.
    pub values: Vec<ValueSum>,
    /// Pages asked for.
    pub pages: PageList,
    /// Pages with status 404.
    pub not_found: PageList,
    /// More of both.
    pub listed: ListedPages,
    /// Rows with a masked path.
    pub masked: MaskedPages,
    /// Views by robots.
    pub robots: RobotFacts,
    /// The project's.
    pub time_zone: Tz,
}

impl ReportFacts {
    /// Nothing is known yet of these months.
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
            time_zone: Tz::UTC,
        }
    }
}

/// The values of one name in one month that came by name, and the others, added up.
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
