use super::breakdowns::page_of;
use super::facts::{ListedPages, PageDetail, ValueSum};
use super::*;
use crate::period::{Period, Span};
use crate::small_cells::Floor;
use schemas::Coordinate;
use schemas::VisitorSketch;
use schemas::classes::{Dimension, Source};
use schemas::tables::{MonthClosedRow, SiteHourlyRow};

const PAST: &str = "2026-11-23T13:30:00Z";

fn instant(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn hour(text: &str) -> u32 {
    Hour::of(instant(text)).unix_seconds()
}

/// Days since the epoch of a month's first day.
fn month(text: &str) -> u16 {
    text.parse::<schemas::Month>().unwrap().first_hour().day().0
}

/// The sketch of readers `from` to `to`, spread over the registers.
fn readers(from: u64, to: u64) -> Vec<u8> {
    let mut sketch = VisitorSketch::new();
    for reader in from..to {
        sketch.insert(Coordinate::from_hash((reader + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    }
    sketch.encode()
}

fn site(at: &str, (stream, window_start): (u64, u64), views: u64, sketch: Vec<u8>) -> SiteHourlyRow {
    SiteHourlyRow {
        project: "sphinx".to_owned(),
        hour: hour(at),
        views,
        visits: views / 2,
        sketch,
        stream,
        window_start,
        next_offset: window_start + 10,
        source: Source::Beacon,
    }
}

fn detail(path: &str, status: u16, of: &str, sketch: Vec<u8>) -> PageDetail {
    PageDetail { path: path.to_owned(), status, month: month(of), views: 1, sketch, visitors: 0, visitors_error: 0.0 }
}

fn value(of: &str, name: &str, value: &str, total: u64) -> ValueSum {
    ValueSum { month: month(of), name: name.to_owned(), value: value.to_owned(), total, beneath: 0, largest: 0 }
}

fn beneath(of: &str, name: &str, total: u64, cells: u64, largest: u64) -> ValueSum {
    ValueSum { beneath: cells, largest, ..value(of, name, "", total) }
}

/// Nothing is known of a span, at some time; the months that one is compared with are there, too.
fn nothing(span: &str, now: &str) -> ReportFacts {
    let span: Span = span.parse().unwrap();
    let periods = span.periods(instant(now)).unwrap();
    let mut facts = ReportFacts::new(&periods);
    if let Some(month) = span.single() {
        let year_ago = schemas::Month::new(month.year() - 1, month.number()).unwrap();
        facts.compared = [month.previous(), year_ago].map(|other| Some(MonthFacts::new(periods[0].alike(other))));
    }
    facts
}

fn rules() -> Rules {
    Rules { floor: Floor::new(3).unwrap(), ..Rules::default() }
}

fn report(span: &str, facts: &ReportFacts) -> MonthlyReport {
    MonthlyReport::of("sphinx".parse().unwrap(), span.parse().unwrap(), facts, rules())
}

#[test]
fn windows_and_streams_add_up_and_readers_unite() {
    let mut facts = nothing("2026-10", PAST);
    let october = &mut facts.months[0];
    // One hour in two windows of one stream and one of another; 100 readers, 50 of them in two of the rows.
    let first = "2026-10-01T00:00:00Z";
    october.add_site(&site(first, (1, 0), 10, readers(0, 50))).unwrap();
    october.add_site(&site(first, (1, 10), 4, readers(0, 50))).unwrap();
    october.add_site(&site(first, (2, 0), 6, readers(50, 100))).unwrap();
    // The same readers on the last day again.
    october.add_site(&site("2026-10-31T23:00:00Z", (1, 20), 2, readers(0, 100))).unwrap();
    let report = report("2026-10", &facts);

    assert_eq!((report.totals.views, report.totals.visits), (22, 11));
    assert_eq!((report.totals.visitors.estimate, report.totals.views_per_visitor), (100, Some(0.2)));
    assert_eq!((report.days[0].views, report.days[0].visitors.estimate), (20, 100));
    assert_eq!((report.days[30].views, report.days[30].visitors.estimate), (2, 100));
    assert_eq!((report.hours[0].views, report.hours[743].views), (20, 2));
    assert_eq!((report.months.len(), report.months[0].views, report.months[0].closed), (1, 22, false));
}

#[test]
fn the_order_of_rows_changes_nothing() {
    let rows = [
        site("2026-10-01T00:00:00Z", (1, 0), 10, readers(0, 3000)),
        site("2026-10-01T05:00:00Z", (2, 0), 1, readers(2000, 5000)),
        site("2026-10-09T05:00:00Z", (1, 9), 1, readers(0, 1)),
    ];
    let (mut forth, mut back) = (nothing("2026-10", PAST), nothing("2026-10", PAST));
    rows.iter().for_each(|row| forth.months[0].add_site(row).unwrap());
    rows.iter().rev().for_each(|row| back.months[0].add_site(row).unwrap());
    assert_eq!(report("2026-10", &forth), report("2026-10", &back));
}

#[test]
fn days_and_hours_without_views_are_there() {
    for (month, days) in [("2026-02", 28), ("2024-02", 29), ("2026-09", 30), ("2026-10", 31)] {
        let report = report(month, &nothing(month, PAST));
        assert_eq!((report.days.len(), report.hours.len()), (days, days * 24), "{month}");
        assert!(
            report.days.iter().all(|day| day.views == 0 && day.visitors.estimate == 0 && day.visitors.error == 0.0)
        );
        assert_eq!(report.totals.views_per_visitor, None);
    }
    let running = report("2026-11", &nothing("2026-11", PAST));
    assert_eq!((running.days.len(), running.hours.len()), (23, 22 * 24 + 14));
}

/// A closed month has its sources by name; rows that came late are added. A month that was closed before has headcount's own script only.
#[test]
fn views_of_sources_add_up_over_closed_and_late_rows() {
    let span = "2026-09..2026-10";
    let mut facts = nothing(span, PAST);
    facts.months.iter_mut().for_each(MonthFacts::close);
    facts.months[0].add_closed(&MonthClosedRow {
        hour_views: vec![1; 720],
        hour_visits: vec![0; 720],
        ..Default::default()
    });
    facts.months[1].add_closed(&MonthClosedRow {
        hour_views: vec![2; 744],
        hour_visits: vec![0; 744],
        source_names: vec!["headcount".to_owned(), "umami".to_owned()],
        source_views: vec![1_000, 488],
        ..Default::default()
    });
    let late = site("2026-10-31T23:00:00Z", (1, 0), 7, readers(0, 7));
    facts.months[1].add_site(&SiteHourlyRow { source: Source::Goatcounter, ..late.clone() }).unwrap();
    facts.months[1].add_site(&SiteHourlyRow { source: Source::Umami, ..late.clone() }).unwrap();
    facts.months[1].add_site(&SiteHourlyRow { source: Source::Plausible, views: 0, ..late }).unwrap();
    let report = report(span, &facts);
    let found: Vec<_> = report.counted_by.iter().map(|of| (of.source, of.views)).collect();
    assert_eq!(found, [("headcount", 1_720), ("umami", 495), ("goatcounter", 7)]);
    assert_eq!(report.totals.views, found.iter().map(|(_, views)| views).sum::<u64>());
}

#[test]
fn months_of_a_range_add_up_and_their_readers_do_not_unite() {
    let span = "2026-09..2026-11";
    let mut facts = nothing(span, PAST);
    facts.months[0].close();
    facts.months[0].add_closed(&MonthClosedRow {
        visitors: 200,
        visitors_error: 0.01,
        hour_views: vec![1; 720],
        hour_visits: vec![0; 720],
        day_visitors: vec![9; 30],
        day_errors: vec![0.1; 30],
        rejected_reasons: vec!["foreign_host".to_owned(), "too_large".to_owned()],
        rejected_beacons: vec![5, 1],
        ..MonthClosedRow::default()
    });
    for (at, month) in [("2026-10-31T23:00:00Z", 1), ("2026-11-01T00:00:00Z", 2)] {
        facts.months[month].add_site(&site(at, (1, 0), 100, readers(0, 100))).unwrap();
    }
    let report = report(span, &facts);
    assert_eq!((report.totals.views, report.totals.visits), (920, 100));
    let visitors = report.totals.visitors;
    // √(2² + 2 × (100 ε)²) of 400.
    let of_month = report.months[1].visitors.error;
    let expected = (4.0 + 2.0 * (100.0 * of_month).powi(2)).sqrt() / 400.0;
    assert_eq!((visitors.estimate, visitors.unit), (400, VisitorUnit::VisitorMonths));
    assert!((visitors.error - expected).abs() < 1e-4, "{visitors:?}, expected {expected}");
    assert_eq!(report.months.iter().map(|month| month.closed).collect::<Vec<_>>(), [true, false, false]);
    assert_eq!((report.period.closed, &report.period.month, report.period.span.as_str()), (false, &None, span));
    assert_eq!((report.days.len(), report.hours.len()), (30 + 31 + 23, (30 + 31) * 24 + 22 * 24 + 14));
    assert_eq!((report.days[0].visitors.estimate, report.days[60].visitors.estimate), (9, 100));
    assert_eq!(report.totals.rejected["foreign_host"], 5, "closed before hosts were noted");
    assert_eq!(report.rejected_hosts, []);
    assert_eq!(report.comparison, Comparison::default());
    assert_eq!(report.week.as_flattened().iter().sum::<u64>(), 920);

    let by_day = Rules { unit: VisitorUnit::VisitorDays, ..rules() };
    let by_day = MonthlyReport::of("sphinx".parse().unwrap(), span.parse().unwrap(), &facts, by_day);
    assert_eq!(by_day.totals.visitors.unit, VisitorUnit::VisitorDays);
}

#[test]
fn a_month_is_compared_with_as_much_of_another() {
    // Views of each: October, September, October a year ago; and what the changes are.
    for (now, then, year_ago, change, year_change) in [
        (150, 100, 50, Some(0.5), Some(2.0)),
        (50, 100, 0, Some(-0.5), None),
        (0, 100, 100, Some(-1.0), Some(-1.0)),
        (7, 0, 0, None, None),
        (1, 3, 3, Some(-0.6667), Some(-0.6667)),
    ] {
        let mut facts = nothing("2026-10", PAST);
        let add = |month: &mut MonthFacts, at: &str, views| {
            if views > 0 {
                month.add_site(&site(at, (1, 0), views, readers(0, views))).unwrap();
            }
        };
        add(&mut facts.months[0], "2026-10-03T00:00:00Z", now);
        add(facts.compared[0].as_mut().unwrap(), "2026-09-03T00:00:00Z", then);
        add(facts.compared[1].as_mut().unwrap(), "2025-10-03T00:00:00Z", year_ago);
        let Comparison { previous_month, previous_year } = report("2026-10", &facts).comparison;
        assert_eq!(previous_month.as_ref().and_then(|with| with.views_change), change, "{now} {then}");
        assert_eq!(previous_year.as_ref().and_then(|with| with.views_change), year_change, "{now} {year_ago}");
        assert_eq!(previous_year.is_some(), year_ago > 0, "before it began there is nothing, not a fall from nothing");
        if let Some(with) = previous_month {
            assert_eq!((with.month.as_str(), with.to), ("2026-09", instant("2026-10-01T00:00:00Z")));
            assert_eq!(with.visitors.unwrap().estimate, then);
            // An estimate of 150 may be 151.
            let off = with.visitors_change.unwrap() - change.unwrap();
            assert!(off.abs() < 0.02, "{off}");
        }
    }
}

#[test]
fn a_running_month_is_compared_up_to_the_same_hour_and_without_visitors() {
    let mut facts = nothing("2026-11", PAST);
    facts.months[0].add_site(&site("2026-11-01T00:00:00Z", (1, 0), 30, readers(0, 9))).unwrap();
    let before = facts.compared[0].as_mut().unwrap();
    before.close();
    // One view an hour: what is compared is as many hours as November has had.
    before.add_closed(&MonthClosedRow {
        visitors: 99,
        visitors_error: 0.01,
        hour_views: vec![1; 744],
        hour_visits: vec![1; 744],
        ..MonthClosedRow::default()
    });
    let with = report("2026-11", &facts).comparison.previous_month.unwrap();
    assert_eq!((with.to, with.views), (instant("2026-10-23T14:00:00Z"), 22 * 24 + 14));
    assert_eq!((with.visitors, with.visitors_change), (None, None));
    assert_eq!(with.views_change, Some(-0.9446));
}

#[test]
fn hours_of_the_week_are_the_projects() {
    for (zone, at, day, hour) in [
        // A Wednesday evening is Thursday morning elsewhere.
        ("UTC", "2026-10-28T22:00:00Z", 2, 22),
        ("Asia/Tokyo", "2026-10-28T22:00:00Z", 3, 7),
        ("America/New_York", "2026-10-01T02:00:00Z", 2, 22),
        // Half an hour beside: where the hour begins.
        ("Asia/Kolkata", "2026-10-28T22:00:00Z", 3, 3),
        ("Asia/Kathmandu", "2026-10-28T18:00:00Z", 2, 23),
        // The last Sunday of October: summer time until 01:00 UTC.
        ("Europe/Amsterdam", "2026-10-25T00:00:00Z", 6, 2),
        ("Europe/Amsterdam", "2026-10-25T01:00:00Z", 6, 2),
    ] {
        let mut facts = nothing("2026-10", PAST);
        facts.time_zone = zone.parse().unwrap();
        facts.months[0].add_site(&site(at, (1, 0), 5, readers(0, 1))).unwrap();
        let report = report("2026-10", &facts);
        assert_eq!(report.week[day][hour], 5, "{zone} {at}: {:?}", report.week);
        assert_eq!(report.week.as_flattened().iter().sum::<u64>(), 5);
        assert_eq!(report.time_zone, zone);
    }
}

#[test]
fn pages_carry_the_union_of_their_sketches_by_status() {
    let total = |path: &str, status, total| PageTotal { path: path.to_owned(), status, total };
    let mut facts = nothing("2026-10", PAST);
    let rows = vec![total("/a", 200, 9), total("/a", 404, 3), total("/b", 200, 1)];
    facts.pages = PageList::by_views(rows, 2);
    facts.not_found = PageList::by_views(vec![total("/a", 404, 3)], 2);
    for (status, from, to) in [(200, 0, 5), (200, 3, 8), (404, 0, 2)] {
        facts.listed.add(&detail("/a", status, "2026-10", readers(from, to)), false).unwrap();
    }
    facts.listed.before = Some([(("/a".to_owned(), 200), 12)].into());
    facts.listed.referrers = vec![
        value("2026-10", "/a", "blog.example", 7),
        beneath("2026-10", "/a", 3, 2, 2),
        value("2026-10", "/other", "x.example", 9),
    ];
    let report = report("2026-10", &facts);
    let figures: Vec<_> = report.pages.items.iter().map(|p| (p.status, p.views, p.visitors)).collect();
    let [(200, 9, PageVisitors::Shown(of_a)), (404, 3, PageVisitors::Few { fewer_than: 3, .. })] = figures[..] else {
        panic!("{figures:?}")
    };
    assert_eq!(of_a.estimate, 8);
    assert_eq!(report.pages.next, Some(total("/a", 404, 3).by_views()));
    let [a, missing] = &report.pages.items[..] else { panic!("{:?}", report.pages) };
    assert_eq!((a.views_before, a.change), (Some(12), Some(-0.25)));
    assert_eq!((missing.views_before, missing.change), (Some(0), None), "it is new");
    assert!(a.referrers.is_empty() && missing.referrers.is_empty(), "of pages not found only, in their own list");
    let referrers: Vec<_> =
        report.not_found.items[0].referrers.iter().map(|i| (i.value.as_str(), i.views, i.rest)).collect();
    assert_eq!(referrers, [("blog.example", 7, false), ("other", 3, true)]);
}

#[test]
fn a_page_of_a_range_has_the_visitors_of_those_months_that_tell() {
    let span = "2026-08..2026-10";
    let of = |months: &[(&str, u64)]| {
        let mut listed = ListedPages::default();
        for &(month, readers_of_month) in months {
            listed.add(&detail("/a", 200, month, readers(0, readers_of_month)), false).unwrap();
        }
        let mut facts = nothing(span, PAST);
        facts.pages = PageList::by_views(vec![PageTotal { path: "/a".to_owned(), status: 200, total: 9 }], 5);
        facts.listed = listed;
        report(span, &facts).pages.items[0].clone()
    };
    for (months, told, withheld) in [
        (&[("2026-08", 20), ("2026-09", 30), ("2026-10", 40)][..], Some(90), 0),
        (&[("2026-08", 20), ("2026-09", 2), ("2026-10", 40)], Some(60), 1),
        // Two each, six together: folded by month, so nothing comes out by subtraction.
        (&[("2026-08", 2), ("2026-09", 2), ("2026-10", 2)], None, 3),
        (&[], None, 0),
    ] {
        let page = of(months);
        assert_eq!(page.visitors.shown().map(|visitors| visitors.estimate), told, "{months:?}");
        assert_eq!((page.views_before, page.change, page.months_withheld), (None, None, withheld), "{months:?}");
        let unit = serde_json::to_value(page.visitors).unwrap()["unit"].take();
        assert_eq!(unit, "visitor-months");
    }
}

#[test]
fn a_running_month_has_no_change_by_page() {
    let mut facts = nothing("2026-11", PAST);
    facts.pages = PageList::by_views(vec![PageTotal { path: "/a".to_owned(), status: 200, total: 9 }], 5);
    facts.listed.before = Some([(("/a".to_owned(), 200), 90)].into());
    let page = report("2026-11", &facts).pages.items[0].clone();
    assert_eq!((page.views_before, page.change), (Some(90), None));
}

#[test]
fn after_a_close_the_closed_figures_count_and_later_sketches_do_not() {
    let mut facts = nothing("2026-10", PAST);
    facts.months[0].close();
    facts.months[0].add_site(&site("2026-10-02T00:00:00Z", (9, 0), 7, Vec::new())).unwrap();
    facts.months[0].add_closed(&MonthClosedRow {
        visitors: 50,
        visitors_error: 0.02,
        hour_views: vec![1; 744],
        hour_visits: vec![0; 744],
        open_views: 3,
        ..MonthClosedRow::default()
    });
    facts.pages = PageList::by_views(vec![PageTotal { path: "/a".to_owned(), status: 200, total: 9 }], 5);
    let closed = PageDetail { visitors: 5, visitors_error: 0.01, ..detail("/a", 200, "2026-10", Vec::new()) };
    facts.listed.add(&detail("/a", 200, "2026-10", readers(0, 500)), true).unwrap();
    facts.listed.add(&closed, true).unwrap();
    let report = report("2026-10", &facts);
    assert_eq!((report.totals.views, report.totals.late_views, report.totals.visitors.estimate), (751, Some(4), 50));
    assert_eq!(report.pages.items[0].visitors.shown().unwrap().estimate, 5);
    assert!(report.period.closed);
}

#[test]
fn values_that_are_not_listed_are_one_item_and_never_alone() {
    let mut facts = nothing("2026-10", PAST);
    facts.values = vec![
        value("2026-10", "country", "NL", 20),
        value("2026-10", "country", "", 30),
        beneath("2026-10", "country", 2, 1, 2),
        value("2026-10", "os", "Linux", 7),
        value("2026-10", "a_dimension_of_tomorrow", "x", 1),
    ];
    let report = report("2026-10", &facts);
    let country: Vec<_> = report.breakdowns["country"].iter().map(|i| (i.value.as_str(), i.views, i.rest)).collect();
    assert_eq!(country, [("", 30, false), ("other", 22, true)]);
    assert_eq!(report.breakdowns["os"].len(), 1);
    assert_eq!(report.breakdowns.len(), Dimension::ALL.len());
}

#[test]
fn months_are_folded_before_they_are_added_up() {
    let mut facts = nothing("2026-09..2026-10", PAST);
    facts.values = vec![
        value("2026-09", "country", "NL", 20),
        value("2026-09", "country", "DE", 9),
        beneath("2026-09", "country", 4, 2, 2),
        value("2026-10", "country", "NL", 30),
        beneath("2026-10", "country", 4, 2, 2),
    ];
    let report = report("2026-09..2026-10", &facts);
    let country: Vec<_> = report.breakdowns["country"].iter().map(|i| (i.value.as_str(), i.views, i.rest)).collect();
    assert_eq!(country, [("NL", 50, false), ("DE", 9, false), ("other", 8, true)]);
}

#[test]
fn visits_that_no_referrer_counts_arrived_at_missing_pages() {
    let span = "2026-09..2026-10";
    let mut facts = nothing(span, PAST);
    // 100 views are 50 visits.
    facts.months[0].add_site(&site("2026-09-02T00:00:00Z", (1, 0), 100, readers(0, 9))).unwrap();
    facts.months[1].add_site(&site("2026-10-02T00:00:00Z", (1, 9), 100, readers(0, 9))).unwrap();
    facts.values = vec![
        value("2026-09", "referrer", "blog.example", 30),
        beneath("2026-09", "referrer", 4, 2, 2),
        // A flush later than the totals, or folded when the referrers contained the missing pages.
        value("2026-10", "referrer", "blog.example", 51),
        value("2026-10", "country", "NL", 9),
    ];
    let report = report(span, &facts);
    assert_eq!((report.totals.visits, report.totals.visits_at_missing_pages), (100, 16));
    let referrers: u64 = report.breakdowns["referrer"].iter().map(|item| item.views).sum();
    assert_eq!(referrers, 85, "suppressed values included");
}

#[test]
fn views_from_own_pages_have_no_threshold_and_stay_out_of_other() {
    let mut facts = nothing("2026-10", PAST);
    facts.not_found = PageList::by_views(vec![PageTotal { path: "/a".to_owned(), status: 404, total: 12 }], 5);
    facts.listed.referrers = vec![
        value("2026-10", "/a", ":internal", 1),
        value("2026-10", "/a", "blog.example", 7),
        beneath("2026-10", "/a", 4, 2, 2),
    ];
    let report = report("2026-10", &facts);
    let referrers: Vec<_> =
        report.not_found.items[0].referrers.iter().map(|i| (i.value.as_str(), i.views, i.rest)).collect();
    assert_eq!(referrers, [("blog.example", 7, false), (":internal", 1, false), ("other", 4, true)]);
}

#[test]
fn dropped_facts_are_no_refused_beacons() {
    let mut facts = nothing("2026-09..2026-10", PAST);
    for (month, reason, count) in [
        (0, "limited_path", 1000),
        (1, "limited_path", 204),
        (0, "dropped_path", 3),
        (1, "limited_agent", 7),
        (1, "foreign_host", 5),
        (1, "dropped_title", 0),
    ] {
        facts.months[month].add_rejection(reason.to_owned(), String::new(), count);
    }
    let report = report("2026-09..2026-10", &facts);
    assert_eq!(report.totals.rejected, [("foreign_host".to_owned(), 5)].into());
    assert_eq!(report.rejected_hosts, []);
    let expected = serde_json::json!([
        {"fact": "path", "cause": "limit", "views": 1204},
        {"fact": "agent", "cause": "limit", "views": 7},
        {"fact": "path", "cause": "unusable", "views": 3},
    ]);
    assert_eq!(serde_json::to_value(&report.dropped_facts).unwrap(), expected);
}

#[test]
fn hosts_of_refused_beacons_are_folded_as_values_are() {
    let mut facts = nothing("2026-10", PAST);
    let october = &mut facts.months[0];
    for (reason, host, beacons) in [
        ("foreign_host", "mirror.example", 40),
        ("foreign_host", "localhost:8000", 2),
        ("foreign_host", "127.0.0.1:8000", 2),
        ("too_large", "", 6),
        // A host that gave its name up: were it a value, "other" could be one host.
        ("foreign_host", "gone.example", 0),
    ] {
        october.add_rejection(reason.to_owned(), host.to_owned(), beacons);
    }
    let report = report("2026-10", &facts);
    let hosts: Vec<_> = report.rejected_hosts.iter().map(|h| (h.host.as_str(), h.beacons, h.rest)).collect();
    assert_eq!(hosts, [("mirror.example", 40, false), ("", 4, true)]);
    assert_eq!((report.totals.rejected["foreign_host"], report.totals.rejected["too_large"]), (44, 6));
}

#[test]
fn every_value_comes_once_whatever_the_pages_length() {
    let mut items: Vec<BreakdownItem> =
        (0..50).map(|at| BreakdownItem { value: format!("v{at:02}"), views: 100 - at / 3, rest: false }).collect();
    items.push(BreakdownItem { value: "other".to_owned(), views: 500, rest: true });
    // By value another order than by views, and the same with a beginning.
    items.iter_mut().filter(|item| item.views % 2 == 0).for_each(|item| item.value.insert(0, 'e'));
    items.sort_by(|a, b| {
        (a.rest, std::cmp::Reverse(a.views), &a.value).cmp(&(b.rest, std::cmp::Reverse(b.views), &b.value))
    });
    let mut by_value = items.clone();
    by_value.sort_by(|a, b| (a.rest, &a.value).cmp(&(b.rest, &b.value)));
    assert_ne!(items, by_value);
    for (sort, expected) in [(ValueSort::Views, &items), (ValueSort::Value, &by_value)] {
        for prefix in ["", "e", "v4", "other", "x"] {
            let expected: Vec<_> = expected
                .iter()
                .filter(|item| prefix.is_empty() || !item.rest && item.value.starts_with(prefix))
                .cloned()
                .collect();
            for limit in [1, 2, 7, 50, 51, 52] {
                let mut request = ValuesRequest { limit, after: None, prefix: prefix.to_owned(), sort };
                let mut found = Vec::new();
                loop {
                    let (page, next) = page_of(items.clone(), &request);
                    assert!(page.len() <= limit && (!page.is_empty() || expected.is_empty()));
                    found.extend(page);
                    let Some(next) = next else { break };
                    request.after = Some(ValueCursor::of(&next.encode(), sort).unwrap());
                    let other = ValueSort::ALL.into_iter().find(|other| *other != sort).unwrap();
                    assert!(ValueCursor::of(&next.encode(), other).is_err(), "a cursor belongs to its order");
                }
                assert_eq!(found, expected, "{sort:?} {prefix:?} {limit}");
            }
        }
    }
}

#[test]
fn a_broken_sketch_is_an_error_and_not_nobody() {
    let mut facts = nothing("2026-10", PAST);
    assert!(facts.months[0].add_site(&site("2026-10-01T00:00:00Z", (1, 0), 10, vec![0x99])).is_err());
    assert!(facts.listed.add(&detail("/", 200, "2026-10", Vec::new()), false).is_err());
}

#[test]
fn the_json_is_as_documented() {
    let mut facts = nothing("2026-10", PAST);
    facts.months[0].add_rejection("foreign_host".to_owned(), String::new(), 3);
    facts.months[0].add_site(&site("2026-10-01T02:00:00Z", (1, 0), 10, readers(0, 20_000))).unwrap();
    let json = serde_json::to_value(report("2026-10", &facts)).unwrap();
    assert_eq!(
        json["period"],
        serde_json::json!({"from": "2026-10-01T00:00:00Z", "to": "2026-11-01T00:00:00Z", "closed": false,
            "month": "2026-10", "span": "2026-10", "closes_after": "late_views"})
    );
    assert_eq!(json["project"], "sphinx");
    assert_eq!(json["totals"]["rejected"]["foreign_host"], 3);
    let visitors = &json["totals"]["visitors"];
    assert!(
        visitors["estimate"].is_u64() && visitors["error"] == 0.0081 && visitors["unit"] == "visitors",
        "{visitors}"
    );
    assert_eq!(json["days"][0]["day"], "2026-10-01");
    assert_eq!(json["hours"][2], serde_json::json!({"hour": "2026-10-01T02:00:00Z", "views": 10, "visits": 5}));
    assert_eq!(json["pages"], serde_json::json!({"items": [], "next": null}));
    assert_eq!(json["week"][3][2], 10, "a Thursday");
    assert_eq!((json["week"].as_array().unwrap().len(), json["week"][0].as_array().unwrap().len()), (7, 24));
    assert_eq!(json["comparison"], serde_json::json!({"previous_month": null, "previous_year": null}));
    assert_eq!(serde_json::to_value(VisitorUnit::VisitorDays).unwrap(), "visitor-days");

    let running = serde_json::to_value(report("2026-11", &nothing("2026-11", PAST))).unwrap();
    assert_eq!(running["period"]["to"], "2026-11-23T14:00:00Z");
}

#[test]
fn a_part_of_a_month_takes_only_its_hours_of_the_closed_figures() {
    let whole = Period::whole("2026-10".parse().unwrap());
    let mut part = MonthFacts::new(
        Period::of("2026-11".parse().unwrap(), instant("2026-11-01T04:10:00Z")).unwrap().alike(whole.month()),
    );
    part.close();
    part.add_closed(&MonthClosedRow {
        hour_views: vec![2; 744],
        hour_visits: vec![1; 744],
        ..MonthClosedRow::default()
    });
    let mut facts = nothing("2026-11", "2026-11-01T04:10:00Z");
    facts.months[0].add_site(&site("2026-11-01T00:00:00Z", (1, 0), 5, readers(0, 3))).unwrap();
    facts.compared[0] = Some(part);
    let with = report("2026-11", &facts).comparison.previous_month.unwrap();
    assert_eq!((with.views, with.visits, with.views_change), (10, 5, Some(-0.5)));
}

#[test]
fn the_beginning_of_a_list_goes_on_where_a_shorter_one_would() {
    let rows: Vec<PageTotal> =
        (0..5).map(|at| PageTotal { path: format!("/{at}"), status: 200, total: 50 - at }).collect();
    let list = |limit: usize| {
        let list = PageList::by_views(rows.clone(), limit);
        let mut facts = nothing("2026-10", PAST);
        facts.pages = list;
        report("2026-10", &facts).pages
    };
    for (whole, most) in [(4, 2), (5, 1), (5, 4), (5, 5), (3, 3), (3, 9)] {
        assert_eq!(list(whole).first(most), list(whole.min(most)), "{most} of {whole}");
    }
}

#[test]
fn robots_are_told_apart_by_kind_and_names_have_a_threshold() {
    let mut facts = nothing("2026-10", PAST);
    facts.robots.sums = vec![
        value("2026-10", "ai_training", "GPTBot", 20),
        beneath("2026-10", "ai_training", 2, 1, 2),
        value("2026-10", "ai_assistant", "Claude-User", 7),
        // Of a day before schema version 10: kinds without names, and names without kinds.
        value("2026-10", "ai_crawler", "", 5),
        value("2026-10", "feed", "", 1),
    ];
    facts.values = vec![value("2026-10", "bot", "GPTBot", 5)];
    facts.robots.before = Some([("ai_training".to_owned(), 11)].into());
    facts.robots.ai_pages = vec![("/a".to_owned(), 9)];
    let report = report("2026-10", &facts);
    let robots = &report.robots;
    let kinds: Vec<_> =
        robots.kinds.iter().map(|of| (of.kind.as_str(), of.views, of.views_before, of.change)).collect();
    let expected = [
        ("ai_training", 22, Some(11), Some(1.0)),
        ("ai_assistant", 7, Some(0), None),
        ("ai_crawler", 5, Some(0), None),
        ("feed", 1, Some(0), None),
    ];
    assert_eq!((robots.total, kinds.as_slice()), (35, &expected[..]));
    let item = |value: &str, views, rest| BreakdownItem { value: value.to_owned(), views, rest };
    assert_eq!(robots.kinds[0].names, [item("other", 22, true)], "a name below the threshold is not alone");
    assert_eq!(robots.kinds[1].names, [item("Claude-User", 7, false)]);
    assert_eq!(robots.kinds[3].names, [item("", 1, false)], "what has no name has no threshold");
    let classes =
        [("ai_crawler", 34), ("automation", 0), ("monitor", 0), ("other_bot", 1), ("preview", 0), ("search", 0)];
    assert_eq!(report.totals.bots, classes.into());
    let all = [item("Claude-User", 7, false), item("GPTBot", 5, false), item("other", 22, true)];
    assert_eq!(report.breakdowns["bot"], all);
    assert_eq!(robots.ai_pages, [AiPage { path: "/a".to_owned(), views: 9 }]);
    assert_eq!(report.totals.views, 0, "robots are no readers");
}
