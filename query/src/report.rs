//! The monthly report: facts from ClickHouse in, figures out. Pure.
//!
//! [`facts`] collects the rows, `make` computes the figures ([`MonthlyReport::of`]), [`breakdowns`] suppresses small cells and adds up
//! months, [`pages`] determines which pages are listed. This module has the report itself, as in JSON: new fields may be added, none change
//! their meaning.

use chrono::{DateTime, NaiveDate, Utc};
use schemas::classes::Source;
use schemas::{Hour, ProjectSlug};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::ToSchema;

pub mod breakdowns;
pub mod dropped;
pub mod facts;
pub mod pages;
pub mod robots;
pub mod visitors;

pub(crate) mod make;

#[cfg(test)]
mod tests;

pub use breakdowns::{ValueCursor, ValueSort, ValuesRequest};
pub use dropped::DropCause;
pub use facts::{MonthFacts, ReportFacts, Rules};
pub use pages::{Cursor, InvalidCursor, PageCounts, PageList, PageTotal, PagesRequest, Sort};
pub use robots::{AiPage, RobotFigures, RobotKind, RulesChange};
pub use visitors::{PageVisitors, VisitorUnit, Visitors};

/// One value's views in a breakdown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct BreakdownItem {
    /// The value; empty if unknown, and for direct arrivals in the dimension `referrer`.
    pub value: String,
    /// Views (visits for `referrer`, views by robots for `bot`).
    pub views: u64,
    /// True for the last item if it adds up all values that are not listed, including small cells.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rest: bool,
}

/// The time that the report covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReportPeriod {
    /// As requested: `YYYY-MM`, or `YYYY-MM..YYYY-MM` with both months included.
    pub span: String,
    /// First instant.
    pub from: DateTime<Utc>,
    /// First instant after the period: the month's end, or the end of the running hour.
    pub to: DateTime<Utc>,
    /// True if the sketches of all its months are destroyed and the figures are final.
    pub closed: bool,
    /// `YYYY-MM`; null for a range.
    pub month: Option<String>,
    /// What the close of the period's last open month waits for; null once all are closed.
    pub closes_after: Option<ClosesAfter>,
}

/// What the close of an open month waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClosesAfter {
    /// The month's end; after it the close waits for late page views.
    MonthEnd,
    /// The time for late page views, and the count of all that were accepted.
    LateViews,
}

impl ClosesAfter {
    /// The same as a sentence.
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            ClosesAfter::MonthEnd => {
                "The month is running: it closes after its end, when the time for late page views has passed and all accepted ones are counted."
            }
            ClosesAfter::LateViews => {
                "Not closed yet: a month closes when the time for late page views has passed and all accepted ones are counted. Until then figures may grow."
            }
        }
    }
}

/// One month of the period.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct MonthFigures {
    /// `YYYY-MM`.
    pub month: String,
    /// Page views by people.
    pub views: u64,
    /// Arrivals from outside the project.
    pub visits: u64,
    /// Visitors of the month.
    pub visitors: Visitors,
    /// True if its sketches are destroyed and its figures are final.
    pub closed: bool,
}

/// An earlier month, and how this one differs from it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ComparedMonth {
    /// `YYYY-MM`.
    pub month: String,
    /// End of the hours that were compared: the month's end, or, if the report's month is running, as many hours as that month has so far.
    pub to: DateTime<Utc>,
    /// Its page views by people.
    pub views: u64,
    /// Its arrivals.
    pub visits: u64,
    /// Its visitors; null if only a part of it is compared, since parts have no visitor figure.
    pub visitors: Option<Visitors>,
    /// Difference of views as a fraction of the earlier ones: 0.25 for a quarter more; null if there were none.
    pub views_change: Option<f64>,
    /// The same of arrivals.
    pub visits_change: Option<f64>,
    /// The same of visitors; null if either month has no visitor figure.
    pub visitors_change: Option<f64>,
}

/// The months with which a report's month is compared; null for a month without views.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Comparison {
    /// The month before.
    pub previous_month: Option<ComparedMonth>,
    /// The same month a year ago.
    pub previous_year: Option<ComparedMonth>,
}

/// Beacons refused for one reason, from pages of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RejectedHost {
    /// The reason's name.
    pub reason: String,
    /// The page's host; empty if unknown.
    pub host: String,
    /// Refused beacons.
    pub beacons: u64,
    /// True if it adds up all hosts that are not listed, including small cells.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rest: bool,
}

/// Views that were counted without one of their facts, for one cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DroppedFact {
    /// `path`, `version`, `language`, `referrer`, `status`, `title`, `country`, `id` or `agent`.
    pub fact: String,
    /// Why the fact was dropped.
    pub cause: DropCause,
    /// Page views counted without it. They are part of all other figures. One view can lack several facts.
    pub views: u64,
}

/// Page views that one tracker sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SourceViews {
    /// `headcount` (its own script and pixel), `plausible`, `umami`, `goatcounter`, `readthedocs` (the scripts of these), `log` (a web
    /// server's log) or `import`.
    pub source: &'static str,
    /// Its page views by people; part of all other figures. They have no threshold: the site chooses its trackers, not the reader.
    pub views: u64,
    /// Which of these views are visits.
    pub visits: VisitRule,
}

/// Which views of a tracker are visits. Trackers send different referrers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VisitRule {
    /// Views that came from outside the docs, with or without a referrer.
    Arrivals,
    /// Views with a referrer of another site.
    ForeignReferrer,
    /// The same, but the tracker repeats the first referrer with each step within a page, so that there are at most this many visits.
    RepeatedReferrer,
    /// None: the tracker sends no referrer.
    None,
}

impl VisitRule {
    /// Its name in JSON and CSV.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            VisitRule::Arrivals => "arrivals",
            VisitRule::ForeignReferrer => "foreign_referrer",
            VisitRule::RepeatedReferrer => "repeated_referrer",
            VisitRule::None => "none",
        }
    }

    /// The rule for the views of a source.
    pub(crate) const fn of(source: Source) -> Self {
        match source {
            Source::Beacon | Source::Log | Source::Import => VisitRule::Arrivals,
            Source::Umami => VisitRule::ForeignReferrer,
            Source::Plausible | Source::Goatcounter => VisitRule::RepeatedReferrer,
            Source::Readthedocs => VisitRule::None,
        }
    }
}

/// Rows of the list of pages whose path has a masked segment (`:token`, `:id`, `:email`, `:address`, `:masked`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct MaskedPages {
    /// Rows; each may stand for any number of pages.
    pub rows: u64,
    /// Their page views; part of all other figures. Like all page views they have no threshold.
    pub views: u64,
}

/// The totals of the period.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Totals {
    /// Page views by people.
    pub views: u64,
    /// Arrivals from outside the project; part of `views`. `counted_by` has the rule of each tracker.
    pub visits: u64,
    /// Whether `visits` is an upper bound: a tracker that repeats referrers (Plausible, GoatCounter) has sent some of the views.
    pub visits_up_to: bool,
    /// Visits at pages with status 404: `visits` minus the sum of all referrers. The breakdown `referrer` has the arrivals at all other
    /// pages. Rows folded before fold version 4 count both there; for their months this figure is smaller, or 0.
    pub visits_at_missing_pages: u64,
    /// Visitors of the whole period: a union, not the sum of days. For a range of months, the sum over months, in `visitor-months`.
    pub visitors: Visitors,
    /// Views per visitor, to one decimal; null without visitors.
    pub views_per_visitor: Option<f64>,
    /// Views of a closed month that arrived after the close: part of `views`, but they add no visitors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub late_views: Option<u64>,
    /// Views by robots, by the six classes that all versions have; not part of `views`. `robots` has all kinds: `ai_training` and
    /// `ai_assistant` are in `ai_crawler` here; `feed`, `seo`, `archiver` and `scanner` in `other_bot`.
    #[schema(value_type = BTreeMap<String, u64>)]
    pub bots: BTreeMap<&'static str, u64>,
    /// Refused beacons, by reason.
    pub rejected: BTreeMap<String, u64>,
}

/// One day.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
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

/// One hour. Without visitors: they are not needed for planning, and 744 more figures would give 744 more chances to subtract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct HourFigures {
    /// Start of the hour.
    pub hour: DateTime<Utc>,
    /// Page views by people.
    pub views: u64,
    /// Arrivals.
    pub visits: u64,
}

/// One path with one status.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct PageFigures {
    /// Cleaned path.
    pub path: String,
    /// HTTP status.
    pub status: u16,
    /// Page views by people.
    pub views: u64,
    /// Visitors of the page, unless they are fewer than the threshold. In a range, the sum over the months in which they are shown.
    pub visitors: PageVisitors,
    /// In a range, the number of months in which its visitors are withheld and not in the sum; absent if there are none.
    #[serde(skip_serializing_if = "is_zero")]
    pub months_withheld: u64,
    /// Its views in the whole month before; null for a range of months.
    pub views_before: Option<u64>,
    /// Difference to `views_before` as a fraction of it; null if that is null or 0, or the month is running.
    pub change: Option<f64>,
    /// For a page not found: the hosts of the pages that linked to it. `:internal` is a page of the same project (without a threshold),
    /// `:more` adds up hosts beyond the first 32, and an empty value is unknown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub referrers: Vec<BreakdownItem>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A page that readers' browsers reported as missing: Plausible's event `404`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ReportedPage {
    /// Cleaned path.
    pub path: String,
    /// Reports. They are not views: the page's view is counted with its own status, in most cases 200.
    pub reports: u64,
}

/// One page of the list of pages.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct PageListFigures {
    /// In the requested order; by default by views, most first, equals by path.
    pub items: Vec<PageFigures>,
    /// Cursor for `after`; null at the end.
    #[schema(value_type = Option<String>)]
    pub next: Option<Cursor>,
}

impl PageListFigures {
    /// The first `most` pages of a list by views.
    pub(crate) fn first(&self, most: usize) -> Self {
        let Some(last) = self.items.get(most.wrapping_sub(1)).filter(|_| most < self.items.len()) else {
            return self.clone();
        };
        let last = PageTotal { path: last.path.clone(), status: last.status, total: last.views };
        PageListFigures { items: self.items[..most].to_vec(), next: Some(last.by_views()) }
    }
}

/// Views by day of the week, Monday first, and hour of the day.
pub type Week = [[u64; 24]; 7];

/// One project's month, or range of months.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct MonthlyReport {
    /// Project slug.
    #[schema(value_type = String)]
    pub project: ProjectSlug,
    /// The time that the report covers.
    pub period: ReportPeriod,
    /// Threshold of views, not of readers. Values with fewer views are suppressed: the last item of their list adds them up. Visitors of a
    /// page are withheld if they are fewer than this. Page views, hours, days and totals have no threshold.
    pub threshold: u64,
    /// The totals of the period.
    pub totals: Totals,
    /// Every month of the period.
    pub months: Vec<MonthFigures>,
    /// Comparison with earlier months; nulls for a range.
    pub comparison: Comparison,
    /// IANA name of the project's time zone, which `week` is in. Everything else is in UTC.
    pub time_zone: String,
    /// Views by day of the week (Monday first) and hour of the day, in the project's time zone.
    #[schema(value_type = Vec<Vec<u64>>)]
    pub week: Week,
    /// Every day of the period, those without views included.
    pub days: Vec<DayFigures>,
    /// Every hour of the period, those without views included.
    pub hours: Vec<HourFigures>,
    /// Pages of every status.
    pub pages: PageListFigures,
    /// Pages with status 404, and their referrers.
    pub not_found: PageListFigures,
    /// Pages that were reported as missing, most first, at most 100.
    pub reported_missing: Vec<ReportedPage>,
    /// Hosts of pages whose beacons were refused, most first.
    pub rejected_hosts: Vec<RejectedHost>,
    /// Views by tracker, most first. A reader whom two trackers count is one visitor, with the views of both.
    pub counted_by: Vec<SourceViews>,
    /// Views that were counted without one of their facts, most first.
    pub dropped_facts: Vec<DroppedFact>,
    /// Pages that are counted together under a masked path; `headcount project rules` keeps paths unmasked.
    pub masked_pages: MaskedPages,
    /// Views by robots, which are in no other figure but `totals.bots` and the breakdown `bot`.
    pub robots: RobotFigures,
    /// Views by one dimension each, most first.
    #[schema(value_type = BTreeMap<String, Vec<BreakdownItem>>)]
    pub breakdowns: BTreeMap<&'static str, Vec<BreakdownItem>>,
}
