use super::*;
use schemas::Coordinate;

const PAST: &str = "2026-11-23T13:30:00Z";

fn period(month: &str, now: &str) -> Period {
    Period::of(month.parse().unwrap(), DateTime::parse_from_rfc3339(now).unwrap().to_utc()).unwrap()
}

fn hour(text: &str) -> u32 {
    Hour::of(DateTime::parse_from_rfc3339(text).unwrap().to_utc()).unix_seconds()
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
        bots_search: 1,
        bots_ai_crawler: 2,
        bots_preview: 0,
        bots_monitor: 0,
        bots_automation: 0,
        bots_other: 0,
        sketch,
        stream,
        window_start,
        next_offset: window_start + 10,
    }
}

fn page_sketch(path: &str, status: u16, window_start: u64, sketch: Vec<u8>) -> PageDailyRow {
    PageDailyRow {
        project: "sphinx".to_owned(),
        day: 20_727,
        path: path.to_owned(),
        status,
        views: 1,
        sketch,
        stream: 1,
        window_start,
        next_offset: window_start + 1,
    }
}

fn report(month: &str, now: &str, facts: &MonthFacts) -> MonthlyReport {
    MonthlyReport::of(
        "sphinx".parse().unwrap(),
        period(month, now),
        facts,
        Rules { floor: Floor::new(3).unwrap(), ..Rules::default() },
    )
}

#[test]
fn windows_and_streams_add_up_and_readers_unite() {
    let mut facts = MonthFacts::default();
    // One hour in two windows of one stream and one of another; 100 readers, 50 of them in two of the rows.
    let first = "2026-10-01T00:00:00Z";
    facts.add_site(&site(first, (1, 0), 10, readers(0, 50))).unwrap();
    facts.add_site(&site(first, (1, 10), 4, readers(0, 50))).unwrap();
    facts.add_site(&site(first, (2, 0), 6, readers(50, 100))).unwrap();
    // The same readers on the last day again.
    facts.add_site(&site("2026-10-31T23:00:00Z", (1, 20), 2, readers(0, 100))).unwrap();
    let report = report("2026-10", PAST, &facts);

    assert_eq!((report.totals.views, report.totals.visits), (22, 11));
    assert_eq!(report.totals.visitors.estimate, 100);
    assert_eq!((report.days[0].views, report.days[0].visitors.estimate), (20, 100));
    assert_eq!((report.days[30].views, report.days[30].visitors.estimate), (2, 100));
    assert_eq!((report.hours[0].views, report.hours[743].views), (20, 2));
    assert_eq!(report.totals.bots["search"], 4);
    assert_eq!(report.totals.bots["ai_crawler"], 8);
    assert_eq!(report.totals.bots["other_bot"], 0);
}

#[test]
fn the_order_of_rows_changes_nothing() {
    let rows = [
        site("2026-10-01T00:00:00Z", (1, 0), 10, readers(0, 3000)),
        site("2026-10-01T05:00:00Z", (2, 0), 1, readers(2000, 5000)),
        site("2026-10-09T05:00:00Z", (1, 9), 1, readers(0, 1)),
    ];
    let (mut forth, mut back) = (MonthFacts::default(), MonthFacts::default());
    rows.iter().for_each(|row| forth.add_site(row).unwrap());
    rows.iter().rev().for_each(|row| back.add_site(row).unwrap());
    assert_eq!(report("2026-10", PAST, &forth), report("2026-10", PAST, &back));
}

#[test]
fn days_and_hours_without_views_are_there() {
    for (month, days) in [("2026-02", 28), ("2024-02", 29), ("2026-09", 30), ("2026-10", 31)] {
        let report = report(month, PAST, &MonthFacts::default());
        assert_eq!((report.days.len(), report.hours.len()), (days, days * 24), "{month}");
        assert!(
            report.days.iter().all(|day| day.views == 0 && day.visitors.estimate == 0 && day.visitors.error == 0.0)
        );
    }
    let running = report("2026-11", PAST, &MonthFacts::default());
    assert_eq!((running.days.len(), running.hours.len()), (23, 22 * 24 + 14));
}

#[test]
fn pages_carry_the_union_of_their_sketches_by_status() {
    let total = |path: &str, status, total| PageTotal { path: path.to_owned(), status, total };
    let mut facts = MonthFacts {
        pages: PageList::from_rows(vec![total("/a", 200, 9), total("/a", 404, 3), total("/b", 200, 1)], 2),
        not_found: PageList::from_rows(vec![total("/a", 404, 3)], 2),
        ..MonthFacts::default()
    };
    facts.add_page_sketch(&page_sketch("/a", 200, 0, readers(0, 5))).unwrap();
    facts.add_page_sketch(&page_sketch("/a", 200, 9, readers(3, 8))).unwrap();
    facts.add_page_sketch(&page_sketch("/a", 404, 0, readers(0, 2))).unwrap();
    let report = report("2026-10", PAST, &facts);
    let figures: Vec<_> = report.pages.items.iter().map(|p| (p.status, p.views, p.visitors)).collect();
    let [(200, 9, PageVisitors::Shown(of_a)), (404, 3, PageVisitors::Few { fewer_than: 3, .. })] = figures[..] else {
        panic!("{figures:?}")
    };
    assert_eq!(of_a.estimate, 8);
    assert_eq!(report.pages.next, Some(Cursor(total("/a", 404, 3))));
    assert_eq!((report.not_found.items.len(), &report.not_found.next), (1, &None));
}

#[test]
fn values_that_are_not_listed_are_one_item_and_never_alone() {
    let sum = |dimension: &str, value: &str, total, of_dimension| BreakdownSum {
        dimension: dimension.to_owned(),
        value: value.to_owned(),
        total,
        of_dimension,
    };
    let facts = MonthFacts {
        breakdowns: vec![
            sum("country", "NL", 20, 60),
            sum("country", "", 30, 60),
            sum("os", "Linux", 7, 7),
            sum("a_dimension_of_tomorrow", "x", 1, 1),
        ],
        ..MonthFacts::default()
    };
    let report = report("2026-10", PAST, &facts);
    let country: Vec<_> = report.breakdowns["country"].iter().map(|i| (i.value.as_str(), i.views, i.rest)).collect();
    assert_eq!(country, [("", 30, false), ("other", 30, true)]);
    assert_eq!(report.breakdowns["os"].len(), 1);
    assert_eq!(report.breakdowns.len(), Dimension::ALL.len());
}

#[test]
fn a_broken_sketch_is_an_error_and_not_nobody() {
    let mut facts = MonthFacts::default();
    assert!(facts.add_site(&site("2026-10-01T00:00:00Z", (1, 0), 10, vec![0x99])).is_err());
    assert!(facts.add_page_sketch(&page_sketch("/", 200, 0, Vec::new())).is_err());
}

#[test]
fn the_json_is_as_documented() {
    let mut facts = MonthFacts { rejections: vec![("foreign_host".to_owned(), 3)], ..MonthFacts::default() };
    facts.add_site(&site("2026-10-01T02:00:00Z", (1, 0), 10, readers(0, 20_000))).unwrap();
    let json = serde_json::to_value(report("2026-10", PAST, &facts)).unwrap();
    assert_eq!(
        json["period"],
        serde_json::json!({"from": "2026-10-01T00:00:00Z", "to": "2026-11-01T00:00:00Z", "closed": false, "month": "2026-10", "span": "2026-10"})
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
    assert_eq!(serde_json::to_value(VisitorUnit::VisitorDays).unwrap(), "visitor-days");

    let running = serde_json::to_value(report("2026-11", PAST, &facts)).unwrap();
    assert_eq!(running["period"]["to"], "2026-11-23T14:00:00Z");
}
