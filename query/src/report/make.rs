//! Computes the figures of a report from its facts.

use super::breakdowns::{LISTED_VALUES, folded, referrers_of_missing, rejected, rejected_hosts, shortened};
use super::dropped::dropped_facts;
use super::facts::{ByPage, ListedPages, MonthFacts, ReportFacts, Rules};
use super::pages::{PageList, PageTotal};
use super::robots::{self, RobotFigures};
use super::visitors::{Visitors, rounded};
use super::*;
use crate::period::{Period, Span};
use chrono::{Datelike, Timelike};
use chrono_tz::Tz;
use schemas::classes::{Dimension, Source};

/// The difference of `now` to `before`, as a fraction of `before`.
pub(super) fn change(now: u64, before: u64) -> Option<f64> {
    (before > 0).then(|| rounded((now as f64 - before as f64) / before as f64))
}

impl ReportPeriod {
    /// The period of a span with these months.
    pub(crate) fn of(span: Span, months: &[MonthFacts]) -> Self {
        let periods = || months.iter().map(|month| month.period);
        ReportPeriod {
            span: span.to_string(),
            from: span.first().first_hour().start(),
            to: periods().map(Period::end_hour).max().unwrap_or_default().start(),
            closed: months.iter().all(MonthFacts::is_closed),
            month: span.single().map(|month| month.to_string()),
            closes_after: months.iter().rfind(|month| !month.is_closed()).map(|month| {
                match month.period.is_running() {
                    true => ClosesAfter::MonthEnd,
                    false => ClosesAfter::LateViews,
                }
            }),
        }
    }
}

fn compared(month: &MonthFacts, with: Option<&MonthFacts>, rules: Rules) -> Option<ComparedMonth> {
    let with = with?;
    let (now, then) = (month.sum(), with.sum());
    // Before the project's first views there is nothing to compare with, and a change from 0 is not a figure.
    if then.views == 0 {
        return None;
    }
    let whole = !month.period.is_running();
    let visitors = whole.then(|| with.visitors(rules.unit));
    Some(ComparedMonth {
        month: with.period.month().to_string(),
        to: with.period.end_hour().start(),
        views: then.views,
        visits: then.visits,
        visitors,
        views_change: change(now.views, then.views),
        visits_change: change(now.visits, then.visits),
        visitors_change: visitors.and_then(|then| change(month.visitors(rules.unit).estimate, then.estimate)),
    })
}

/// Views by day of the week and hour, in `zone`. A UTC hour that starts in the middle of a local hour counts for that local hour.
fn week(hours: &[HourFigures], zone: Tz) -> Week {
    let mut week = Week::default();
    for figures in hours {
        let there = figures.hour.with_timezone(&zone);
        let day = there.weekday().num_days_from_monday() as usize;
        week[day][there.hour() as usize] += figures.views;
    }
    week
}

/// The listed pages with their figures. `period` is that of a single month; none for a range.
pub(crate) fn page_list(
    list: &PageList,
    listed: &ListedPages,
    period: Option<Period>,
    rules: Rules,
    with_referrers: bool,
) -> PageListFigures {
    let running = period.is_some_and(Period::is_running);
    let referrers = if with_referrers { referrers_of_missing(&listed.referrers, rules.floor) } else { BTreeMap::new() };
    let before = |page: &PageTotal, of: &ByPage<u64>| of.get(&key(page)).copied().unwrap_or(0);
    let items = list.items.iter().map(|page| {
        let facts = listed.facts.get(&key(page)).cloned().unwrap_or_default();
        let range = period.is_none();
        let views_before = listed.before.as_ref().filter(|_| period.is_some()).map(|of| before(page, of));
        PageFigures {
            path: page.path.clone(),
            status: page.status,
            views: page.total,
            visitors: facts.visitors(rules, range),
            months_withheld: if range { facts.months_withheld(rules) } else { 0 },
            views_before,
            // A part of a month compared with a whole one would always show a fall.
            change: views_before.filter(|_| !running).and_then(|before| change(page.total, before)),
            referrers: referrers.get(page.path.as_str()).cloned().unwrap_or_default(),
        }
    });
    PageListFigures { items: items.collect(), next: list.next.clone() }
}

fn key(page: &PageTotal) -> (String, u16) {
    (page.path.clone(), page.status)
}

/// Every hour of the months, including those without views.
pub(crate) fn hours(months: &[MonthFacts]) -> Vec<HourFigures> {
    let of_month = |month: &MonthFacts| {
        let of_hour = |hour: Hour| {
            let sum = month.of_hour(hour);
            HourFigures { hour: hour.start(), views: sum.views, visits: sum.visits }
        };
        month.period.hours().map(of_hour).collect::<Vec<_>>()
    };
    months.iter().flat_map(of_month).collect()
}

/// Every day of the months, including those without views.
pub(crate) fn days(months: &[MonthFacts], rules: Rules) -> Vec<DayFigures> {
    let of_month = |month: &MonthFacts| {
        let of_day = |(at, day): (usize, schemas::Day)| {
            let first = day.first_hour();
            let hours = || (first.0..first.0 + 24).map(|hour| month.of_hour(Hour(hour)));
            DayFigures {
                day: day.date(),
                views: hours().map(|hour| hour.views).sum(),
                visits: hours().map(|hour| hour.visits).sum(),
                visitors: month.visitors_of_day(at, day.date(), rules.unit),
            }
        };
        month.period.days().enumerate().map(of_day).collect::<Vec<_>>()
    };
    months.iter().flat_map(of_month).collect()
}

/// Visits that no referrer counts, month by month. The referrers are read after the totals, and may be ahead by a flush.
fn visits_at_missing_pages(facts: &ReportFacts) -> u64 {
    let of_month = |month: &MonthFacts| {
        let first_day = month.period.first_day().0;
        let referrers =
            facts.values.iter().filter(|sum| sum.month == first_day && sum.name == Dimension::Referrer.name());
        month.sum().visits.saturating_sub(referrers.map(|sum| sum.total).sum())
    };
    facts.months.iter().map(of_month).sum()
}

/// Views by source, added up over the months, most first.
fn counted_by(months: &[MonthFacts]) -> Vec<SourceViews> {
    let mut sums = BTreeMap::new();
    for (source, views) in months.iter().flat_map(|month| &month.sources).filter(|(_, views)| **views > 0) {
        *sums.entry(*source).or_default() += views;
    }
    let mut sources: Vec<_> = sums
        .into_iter()
        .map(|(source, views): (Source, u64)| SourceViews {
            source: source.name(),
            views,
            visits: VisitRule::of(source),
        })
        .collect();
    // A stable sort: equals stay in the order of their numbers.
    sources.sort_by_key(|of| std::cmp::Reverse(of.views));
    sources
}

/// All values of one dimension.
pub(crate) fn breakdown(facts: &ReportFacts, dimension: Dimension, rules: Rules) -> Vec<BreakdownItem> {
    if dimension == Dimension::Bot {
        return robots::all_names(facts, rules);
    }
    folded(&facts.values, rules.floor).remove(dimension.name()).unwrap_or_default()
}

impl MonthlyReport {
    /// The figures of `project` in `span`.
    pub fn of(project: ProjectSlug, span: Span, facts: &ReportFacts, rules: Rules) -> Self {
        let months: Vec<MonthFigures> = facts
            .months
            .iter()
            .map(|month| {
                let sum = month.sum();
                MonthFigures {
                    month: month.period.month().to_string(),
                    views: sum.views,
                    visits: sum.visits,
                    visitors: month.visitors(rules.unit),
                    closed: month.is_closed(),
                }
            })
            .collect();
        let visitors = match (span.single(), &months[..]) {
            (Some(_), [month]) => month.visitors,
            _ => Visitors::sum(months.iter().map(|month| month.visitors), rules.unit.of_range()),
        };
        let views = months.iter().map(|month| month.views).sum();
        let late: Vec<u64> = facts.months.iter().filter_map(MonthFacts::late_views).collect();
        let comparison = match (span.single(), &facts.months[..]) {
            (Some(_), [month]) => Comparison {
                previous_month: compared(month, facts.compared[0].as_ref(), rules),
                previous_year: compared(month, facts.compared[1].as_ref(), rules),
            },
            _ => Comparison::default(),
        };
        let period = span.single().and(facts.months.first()).map(|month| month.period);
        let hours = hours(&facts.months);
        let counted_by = counted_by(&facts.months);
        let robots = RobotFigures::of(&facts.robots, period.is_some_and(Period::is_running), rules);
        let mut breakdowns = folded(&facts.values, rules.floor);
        breakdowns.insert(Dimension::Bot.name(), robots::all_names(facts, rules));
        let mut of_dimension =
            |dimension: Dimension| shortened(breakdowns.remove(dimension.name()).unwrap_or_default(), LISTED_VALUES);
        MonthlyReport {
            project,
            period: ReportPeriod::of(span, &facts.months),
            threshold: rules.floor.get(),
            totals: Totals {
                views,
                visits: months.iter().map(|month| month.visits).sum(),
                visits_up_to: counted_by.iter().any(|of| of.visits == VisitRule::RepeatedReferrer),
                visits_at_missing_pages: visits_at_missing_pages(facts),
                visitors,
                views_per_visitor: (visitors.estimate > 0)
                    .then(|| (views as f64 / visitors.estimate as f64 * 10.0).round() / 10.0),
                late_views: (!late.is_empty()).then(|| late.iter().sum()),
                bots: robots.by_class(),
                rejected: rejected(&facts.months),
            },
            months,
            comparison,
            time_zone: facts.time_zone.name().to_owned(),
            week: week(&hours, facts.time_zone),
            days: days(&facts.months, rules),
            hours,
            pages: page_list(&facts.pages, &facts.listed, period, rules, false),
            not_found: page_list(&facts.not_found, &facts.listed, period, rules, true),
            reported_missing: facts.reported_missing.clone(),
            rejected_hosts: rejected_hosts(&facts.months, rules.floor),
            counted_by,
            dropped_facts: dropped_facts(&facts.months),
            masked_pages: facts.masked,
            robots,
            breakdowns: Dimension::ALL
                .into_iter()
                .map(|dimension| (dimension.name(), of_dimension(dimension)))
                .collect(),
        }
    }
}
