use super::*;
use crate::Rules;
use crate::Span;
use crate::period::Period;
use crate::report::facts::ValueSum;
use crate::report::{PageList, PageTotal, ReportFacts};
use axum::http::HeaderValue;
use chrono::DateTime;
use schemas::classes::Dimension;
use schemas::tables::SiteHourlyRow;
use schemas::{Coordinate, VisitorSketch};

const HOSTILE: &str = "/<script>alert('1')</script>\"onload=\"x\u{202e}gpj";

fn snippet(headers: &[(&'static str, &'static str)]) -> Snippet {
    Snippet::from_headers(&headers.iter().map(|&(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v))).collect())
}

/// Nothing is known of a month.
fn nothing(month: &str) -> ReportFacts {
    let now = DateTime::parse_from_rfc3339("2026-11-23T13:30:00Z").unwrap().to_utc();
    ReportFacts::new(&[Period::of(month.parse().unwrap(), now).unwrap()])
}

fn render(month: &str, facts: &ReportFacts) -> String {
    let span: Span = month.parse().unwrap();
    let figures = MonthlyReport::of("sphinx".parse().unwrap(), span, facts, Rules::default());
    report(&figures, "2026-11".parse().unwrap(), &ListAsked::default(), &snippet(&[("host", "stats.example.org")]))
        .into_string()
}

fn busy() -> ReportFacts {
    let mut facts = nothing("2026-10");
    let mut sketch = VisitorSketch::new();
    (1..4000u64)
        .for_each(|reader| _ = sketch.insert(Coordinate::from_hash(reader.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
    for day in 0..31 {
        let row = SiteHourlyRow {
            project: "sphinx".to_owned(),
            hour: 1_790_812_800 + day * 86_400,
            views: 1_000_000,
            visits: 500_000,
            bots_search: 1,
            bots_ai_crawler: 1,
            bots_preview: 1,
            bots_monitor: 1,
            bots_automation: 1,
            bots_other: 1,
            sketch: sketch.encode(),
            stream: 1,
            window_start: 0,
            next_offset: 9,
        };
        facts.months[0].add_site(&row).unwrap();
    }
    // Paths and labels as long as a record allows.
    let long = |at: usize| format!("{HOSTILE}/{at}/{}", "x".repeat(900));
    let pages =
        |status, count| (0..count).map(move |at| PageTotal { path: long(at), status, total: 1_000_000 - at as u64 });
    facts.pages = PageList::by_views(pages(200, 101).collect(), 100);
    facts.not_found = PageList::by_views(pages(404, 101).collect(), 100);
    facts.values = Dimension::ALL
        .into_iter()
        .flat_map(|dimension| (0..30).map(move |at| (dimension, at)))
        .map(|(dimension, at)| ValueSum {
            month: 20_727,
            name: dimension.name().to_owned(),
            value: format!("{HOSTILE}{at}"),
            total: 40 - at,
            beneath: 0,
            largest: 0,
        })
        .collect();
    for reason in schemas::RejectionReason::ALL {
        facts.months[0].add_rejection(reason.name().to_owned(), String::new(), 7);
    }
    facts
}

#[test]
fn hostile_text_stays_text() {
    let page = render("2026-10", &busy());
    assert!(page.contains("/&lt;script&gt;"), "the path is shown");
    assert!(!page.contains("<script"), "and no element");
    assert!(!page.contains("\"onload="), "nor an attribute");
}

#[test]
fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
    for page in [render("2026-10", &busy()), render("2026-11", &nothing("2026-11"))] {
        for forbidden in ["<script", "<style", " style=", " onclick=", "javascript:", "@import", "<form", "<iframe"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        for attribute in [" href=\"", " src=\""] {
            for value in page.split(attribute).skip(1) {
                assert!(
                    value.starts_with('/') && !value.starts_with("//") || value.starts_with("data:,"),
                    "{value:.60}"
                );
            }
        }
    }
    assert!(!include_str!("../../assets/report.css").contains("url("));
}

#[test]
fn a_full_page_and_its_style_stay_below_60_kilobytes() {
    let bytes = render("2026-10", &busy()).len() + include_str!("../../assets/report.css").len();
    assert!(bytes < 60_000, "{bytes} bytes");
}

#[test]
fn every_estimate_says_its_error() {
    let page = render("2026-10", &busy());
    assert!(page.contains("31,000,000"), "views");
    assert!(page.contains("± "), "error");
    assert!(page.contains("not one of this project&#39;s") || page.contains("not one of this project's"), "reasons");
    assert!(page.contains("/projects/sphinx/2026-09") && page.contains("/projects/sphinx/2026-11"), "months");
}

#[test]
fn an_empty_month_shows_the_line_to_paste() {
    let page = render("2026-11", &nothing("2026-11"));
    let line = "&lt;script defer src=&quot;https://stats.example.org/beacon.js&quot; data-project=&quot;sphinx&quot;&gt;&lt;/script&gt;";
    assert!(page.contains(line), "{page}");
    assert!(!page.contains("2026-12"), "no link into the future");
    assert!(!page.contains("<svg"), "no empty charts");
}

#[test]
fn the_origin_is_the_browsers_and_never_markup() {
    for (headers, origin) in [
        (&[("host", "stats.example.org")][..], "https://stats.example.org"),
        (&[("host", "localhost:8080")], "http://localhost:8080"),
        (&[("host", "stats.example.org"), ("x-forwarded-proto", "http")], "http://stats.example.org"),
        (&[("host", "stats.example.org:8443"), ("x-forwarded-proto", "https")], "https://stats.example.org:8443"),
        (&[("host", "stats.example.org"), ("x-forwarded-proto", "javascript")], "https://stats.example.org"),
        (&[("host", "<script>")], "https://headcount.example.org"),
        (&[], "https://headcount.example.org"),
    ] {
        assert_eq!(snippet(headers).origin, origin);
    }
}

#[test]
fn a_problem_has_a_page() {
    let page = problem(&Problem::unknown_project()).into_string();
    assert!(page.contains("No such project") && page.contains("404"));
}
