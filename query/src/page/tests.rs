use super::*;
use crate::report::pages::{Cursor, Sort};
use crate::report::{
    AiPage, BreakdownItem, ComparedMonth, Comparison, DayFigures, DropCause, DroppedFact, HourFigures, MaskedPages,
    MonthFigures, PageFigures, PageListFigures, PageVisitors, RejectedHost, ReportPeriod, ReportedPage, RobotFigures,
    RobotKind, RulesChange, SourceViews, Totals, VisitRule, Visitors,
};
use crate::store::ProjectViews;
use axum::http::HeaderValue;
use chrono::{DateTime, Utc};
use schemas::classes::Dimension;
use schemas::paths::EndpointPaths;
use std::collections::BTreeMap;

const HOSTILE: &str = "/<script>alert('1')</script>\"onload=\"x\u{202e}gpj";

fn at(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn snippet(headers: &[(&'static str, &'static str)]) -> Snippet {
    let headers = headers.iter().map(|&(n, v)| (n.parse().unwrap(), HeaderValue::from_static(v))).collect();
    Snippet::from_headers(&headers, &EndpointPaths::default())
}

fn visitors(estimate: u64) -> Visitors {
    Visitors { estimate, error: 0.006, unit: VisitorUnit::Visitors }
}

fn page_figures(path: String, status: u16, views: u64) -> PageFigures {
    PageFigures {
        path,
        status,
        views,
        visitors: PageVisitors::Shown(visitors(views / 2)),
        months_withheld: 0,
        views_before: Some(views),
        change: Some(0.12),
        referrers: Vec::new(),
    }
}

/// October 2026, counted up to `to`.
fn empty(to: &str) -> MonthlyReport {
    let (from, to) = (at("2026-10-01T00:00:00Z"), at(to));
    let hours = (to - from).num_hours();
    let hour = |hour| HourFigures { hour: from + chrono::Duration::hours(hour), views: 0, visits: 0 };
    let day = |day| DayFigures {
        day: from.date_naive() + chrono::Duration::days(day),
        views: 0,
        visits: 0,
        visitors: visitors(0),
    };
    let none = || PageListFigures { items: Vec::new(), next: None };
    MonthlyReport {
        project: "sphinx".parse().unwrap(),
        period: ReportPeriod {
            span: "2026-10".into(),
            from,
            to,
            closed: false,
            month: Some("2026-10".into()),
            closes_after: None,
        },
        threshold: 10,
        totals: Totals {
            views: 0,
            visits: 0,
            visits_up_to: false,
            visits_at_missing_pages: 0,
            visitors: visitors(0),
            views_per_visitor: None,
            late_views: None,
            bots: BTreeMap::new(),
            rejected: BTreeMap::new(),
        },
        months: Vec::new(),
        comparison: Comparison::default(),
        time_zone: "UTC".into(),
        week: Default::default(),
        days: (0..(hours + 23) / 24).map(day).collect(),
        hours: (0..hours).map(hour).collect(),
        pages: none(),
        not_found: none(),
        reported_missing: Vec::new(),
        rejected_hosts: Vec::new(),
        dropped_facts: Vec::new(),
        masked_pages: MaskedPages::default(),
        counted_by: vec![],
        robots: RobotFigures::default(),
        breakdowns: BTreeMap::new(),
    }
}

/// A report with all its parts, in their worst form: paths and labels as long as a record allows, large figures.
fn full() -> MonthlyReport {
    let mut report = empty("2026-11-01T00:00:00Z");
    report.totals = Totals {
        views: 31_000_000,
        visits: 15_500_000,
        visits_up_to: false,
        visits_at_missing_pages: 16,
        visitors: visitors(4_000_000),
        views_per_visitor: Some(7.75),
        late_views: None,
        bots: BTreeMap::from([("search", 7), ("ai_crawler", 1200), ("preview", 1)]),
        rejected: BTreeMap::from([("foreign_host".to_owned(), 360), ("malformed_json".to_owned(), 4)]),
    };
    for day in &mut report.days {
        (day.views, day.visits, day.visitors) = (1_000_000, 500_000, visitors(200_000));
    }
    report.week = [[184_523; 24]; 7];
    report.week[1][14] = 200_000;
    report.time_zone = "America/New_York".into();
    let before = |month: &str, views| ComparedMonth {
        month: month.into(),
        to: at("2026-10-01T00:00:00Z"),
        views,
        visits: 15_500_000,
        visitors: Some(visitors(3_990_000)),
        views_change: None,
        visits_change: None,
        visitors_change: None,
    };
    report.comparison = Comparison {
        previous_month: Some(before("2026-09", 28_000_000)),
        previous_year: Some(before("2025-10", 10_000_000)),
    };
    let long = |at: usize| format!("{HOSTILE}/{at}/{}", "x".repeat(900));
    let pages = (0..PAGES_SHOWN).map(|at| page_figures(long(at), 200, 1_000_000 - at as u64)).collect();
    let next = Cursor { sort: Sort::Views, figure: 7, before: 0, path: "/z".into(), status: 200 };
    report.pages = PageListFigures { items: pages, next: Some(next.clone()) };
    let item = |value: &str, views, rest| BreakdownItem { value: value.to_owned(), views, rest };
    let missing = (0..PAGES_SHOWN).map(|at| PageFigures {
        referrers: vec![item("github.com", 12, false), item(":internal", 30, false), item("other", 4, true)],
        ..page_figures(long(at), 404, 46)
    });
    report.not_found = PageListFigures { items: missing.collect(), next: Some(next) };
    let values = |_| (0..30).map(|at| item(&format!("{HOSTILE}{at}"), 1000 - at, false)).collect();
    report.breakdowns = Dimension::ALL.into_iter().map(|dimension| (dimension.name(), values(dimension))).collect();
    report.breakdowns.insert("bot", vec![item("GPTBot", 1200, false), item("Googlebot", 7, false)]);
    let robots = |kind: &str, views, change, names| RobotKind {
        kind: kind.to_owned(),
        views,
        views_before: Some(1000),
        change,
        names,
    };
    report.robots = RobotFigures {
        total: 1508,
        kinds: vec![
            robots("ai_training", 1200, Some(0.2), vec![item("GPTBot", 1100, false), item("ClaudeBot", 100, false)]),
            robots("ai_assistant", 300, Some(-0.7), vec![item("Claude-User", 288, false), item("other", 12, true)]),
            robots("search", 7, None, vec![item("", 7, false)]),
            robots("preview", 1, None, vec![item("other", 1, true)]),
        ],
        ai_pages: (0..10).map(|at| AiPage { path: long(at), views: 900 - at as u64 }).collect(),
        rules_changes: vec![RulesChange { day: "2026-10-14".parse().unwrap(), from: 1, to: 2 }],
    };
    report.reported_missing = (0..20).map(|at| ReportedPage { path: long(at), reports: 20 - at as u64 }).collect();
    let host =
        |host: &str, beacons, rest| RejectedHost { reason: "foreign_host".into(), host: host.into(), beacons, rest };
    report.rejected_hosts = vec![host("docs.example.org", 312, false), host("$(reboot)", 40, false), host("", 8, true)];
    report
}

fn shown(figures: &MonthlyReport, list: &ListAsked) -> String {
    let running = "2026-11".parse().unwrap();
    report(figures, running, list, &snippet(&[("host", "stats.example.org")]), false).into_string()
}

fn render(figures: &MonthlyReport) -> String {
    shown(figures, &ListAsked::default())
}

/// The page's visible text: without elements, with spaces that may break.
fn words_of(page: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for c in page.chars() {
        match c {
            '<' => inside = true,
            '>' => inside = false,
            '\u{a0}' if !inside => text.push(' '),
            c if !inside => text.push(c),
            _ => {}
        }
    }
    text
}

#[test]
fn hostile_text_stays_text() {
    let page = render(&full());
    assert!(page.contains("/&lt;script&gt;"), "the path is shown");
    assert_eq!(page.matches("<script").count(), 1, "and our script is the only one");
    assert!(!page.contains("\"onload="), "nor is there an attribute");
    assert!(!page.contains("--host $("), "what is no host is in no command");
    let list = ListAsked { prefix: HOSTILE.to_owned(), ..ListAsked::default() };
    let page = shown(&full(), &list);
    assert!(!page.contains("<script>") && !page.contains("\"onload="), "nor what was searched for");
}

#[test]
fn nothing_is_inline_and_nothing_comes_from_elsewhere() {
    let index_of =
        |slug: &str| ProjectViews { project: slug.parse().unwrap(), views_this_month: 0, views_last_month: 3 };
    let pages = [
        render(&full()),
        render(&empty("2026-10-03T00:00:00Z")),
        sign_in("/", Some("No.")).into_string(),
        not_allowed().into_string(),
        index(&[index_of("sphinx")], &IndexAsked::default(), "2026-11".parse().unwrap()).into_string(),
    ];
    for page in pages {
        for forbidden in ["<script>", "<style", " style=", " onclick=", "javascript:", "@import", "<iframe"] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        for attribute in [" href=\"", " src=\"", " action=\"", " data-live=\""] {
            for value in page.split(attribute).skip(1) {
                let here = value.starts_with('/') && !value.starts_with("//");
                assert!(here || value.starts_with("#content\"") || value.starts_with("data:,"), "{value:.60}");
            }
        }
    }
    assert!(!STYLE.contains("url(") && !SCRIPT.contains("http"));
}

#[test]
fn the_worst_page_its_style_and_its_script_stay_below_65_kilobytes() {
    let mut report = full();
    let kinds = ["monitor", "automation", "other_bot", "feed", "seo", "archiver", "scanner"];
    report.robots.kinds.extend(kinds.map(|kind| RobotKind {
        kind: kind.to_owned(),
        views: 1_000_000,
        views_before: Some(900_000),
        change: Some(0.11),
        names: (0..9).map(|at| BreakdownItem { value: format!("Robot{at}"), views: 100_000, rest: false }).collect(),
    }));
    let bytes = render(&report).len() + STYLE.len() + SCRIPT.len();
    assert!(bytes < 65_000, "{bytes} bytes");
}

#[test]
fn every_figure_says_its_change_and_every_estimate_its_error() {
    let page = words_of(&render(&full()));
    for words in [
        "31,000,000",
        "4,000,000 ± 24,000",
        "11 % more than in September (28,000,000)",
        "3.1 times as many as in October 2025 (10,000,000)",
        "as many as in September",
        "no clear difference from September (3,990,000)",
        "Not closed yet",
        "in the time of America/New York",
        "Most on Tuesdays between 14:00 and 15:00.",
        "+12 %",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

#[test]
fn a_running_month_is_compared_as_far_as_it_goes() {
    let mut report = full();
    report.period.to = at("2026-10-24T15:00:00Z");
    let running = "2026-10".parse().unwrap();
    let page = super::report(&report, running, &ListAsked::default(), &snippet(&[]), false).into_string();
    let words = words_of(&page);
    let expected = "figures up to 24 October, 15:00 UTC, compared with the same days of September and of October 2025.";
    assert!(words.contains(expected), "{words}");
    assert!(!page.contains("rel=\"next\" href=\"/projects/sphinx/2026-11\""), "no month after the running one");
    assert!(!page.contains("sort=change") && !page.contains("value=\"change\""), "nor an order that it has not");
}

#[test]
fn pages_not_found_and_refusals_say_what_to_do() {
    let page = words_of(&render(&full()));
    for words in [
        "from github.com 12, from your own pages 30, other 4",
        "A redirect to what took their place helps",
        "Beacons from docs.example.org were refused 312 times: the host is not registered for this project. \
         If it is yours: headcount project add sphinx --host docs.example.org",
        "Beacons from other hosts were refused 8 times.",
        "4 beacons refused. The body was not a JSON object.",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
}

#[test]
fn what_was_counted_otherwise_is_explained() {
    let mut report = full();
    report.dropped_facts = vec![DroppedFact { fact: "path".into(), cause: DropCause::Limit, views: 1204 }];
    report.pages.items.push(page_figures("/:more".into(), 200, 9));
    report.masked_pages = MaskedPages { rows: 3, views: 1200 };
    let page = words_of(&render(&report));
    for words in [
        "1,204 views were counted under /:more: one client network sent more different paths",
        "3 rows of the list of pages, with 1,200 views, have a masked segment (such as :token or :id)",
        "headcount project rules",
        "/:more adds up views of paths that are not counted by name",
        "16 visits arrived at pages not found. “Where visits came from” does not contain them.",
        "Values with fewer than 10 views are added up as “All others”, and a page's visitors below 10 are withheld.",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let page = words_of(&render(&full()));
    assert!(!page.contains("/:more") && !page.contains("counted without a fact") && !page.contains("Masked"), "{page}");
}

#[test]
fn trackers_and_their_visits_are_named_unless_all_views_are_of_the_own_script() {
    let mut report = full();
    report.counted_by = vec![SourceViews { source: "headcount", views: 12, visits: VisitRule::Arrivals }];
    assert!(!words_of(&render(&report)).contains("Counted by"));
    let of_umami = SourceViews { source: "umami", views: 1204, visits: VisitRule::ForeignReferrer };
    report.counted_by.insert(0, of_umami);
    let page = words_of(&render(&report));
    assert!(page.contains("Umami's script. A visit is a view with a referrer of another site."), "{page}");
    assert!(page.contains("Visits15,500,000"), "{page}");
    report.totals.visits_up_to = true;
    assert!(words_of(&render(&report)).contains("Visitsup to 15,500,000"), "an upper bound");
    let page = words_of(&render(&report));
    assert!(page.contains("Umami's script1,204") && page.contains("headcount's script or pixel12"), "{page}");
}

#[test]
fn robots_come_after_people_and_ai_before_other_robots() {
    let page = words_of(&render(&full()));
    let people = "Of all views 31,000,000 (100.0 %) were by people and 1,508 (0.0 %) by robots, 1,500 of them by AI";
    assert!(page.contains(people), "{page}");
    let ai = "AIviewsAI training+20 %1,200GPTBot 1,100, ClaudeBot 100AI assistants−70 %300Claude-User 288, other 12";
    assert!(page.contains(ai), "{page}");
    let rules = "Since 14 October 2026 robots are recognised by version 2 of the rules, before that by version 1.";
    assert!(page.contains(rules), "{page}");
    assert!(page.contains("Pages that AI fetches mostviews/&lt;script"), "{page}");
    assert!(page.contains("Search engines7no name recorded 7Link previews1other 1"), "{page}");
    let without = MonthlyReport { robots: RobotFigures::default(), ..full() };
    assert!(!words_of(&render(&without)).contains("robots"));
}

#[test]
fn the_list_of_pages_is_searched_ordered_and_continued_by_links() {
    let list = ListAsked { prefix: "/en/ü&x".into(), sort: Sort::Path, status: Some(200), continued: true };
    let page = shown(&full(), &list);
    let same = "/projects/sphinx/2026-10?prefix=%2Fen%2F%C3%BC%26x&amp;sort=path&amp;status=200";
    assert!(page.contains(&format!("href=\"{same}#pages\"")), "back to the beginning");
    assert!(page.contains(&format!("rel=\"next\" href=\"{same}&amp;after=")), "and on");
    assert!(page.contains("value=\"/en/ü&amp;x\"") && page.contains("<option value=\"path\" selected>"), "the form");
    assert!(page.contains("aria-sort=\"ascending\""), "the order is told");
    let other = "/projects/sphinx/2026-10?prefix=%2Fen%2F%C3%BC%26x&amp;sort=change&amp;status=200#pages";
    assert!(page.contains(other), "another order keeps the rest");
}

#[test]
fn a_range_has_months_as_columns() {
    let mut report = full();
    report.period.span = "2026-09..2026-10".into();
    report.period.month = None;
    report.comparison = Comparison::default();
    report.months = ["2026-09", "2026-10"]
        .map(|month| MonthFigures {
            month: month.into(),
            views: 15_000_000,
            visits: 7_000_000,
            visitors: visitors(2_000_000),
            closed: month == "2026-09",
        })
        .into();
    report.pages.items[0].months_withheld = 1;
    let page =
        super::report(&report, "2026-10".parse().unwrap(), &ListAsked::default(), &snippet(&[]), false).into_string();
    let words = words_of(&page);
    assert_eq!(page.matches("<td>running</td>").count(), 1, "a part of a month is told as one");
    assert!(words.contains("500,000+") && words.contains("where “+” stands"), "a part of the visitors, too: {words}");
    for expected in
        ["September to October 2026", "October 2026 is not closed yet", "Views per month", "Most in October 2026"]
    {
        assert!(words.contains(expected) || page.contains(expected), "{expected}: {words}");
    }
    assert!(page.contains("/projects/sphinx/2026-07..2026-08"), "the months before");
    assert!(!words.contains("Views per day"));
}

#[test]
fn an_empty_project_shows_the_lines_to_paste_and_what_was_refused() {
    let mut report = empty("2026-10-03T05:00:00Z");
    let now = "2026-10".parse().unwrap();
    let render = |report: &MonthlyReport| {
        super::report(report, now, &ListAsked::default(), &snippet(&[("host", "stats.example.org")]), false)
            .into_string()
    };
    let page = render(&report);
    let line = "&lt;script defer src=&quot;https://stats.example.org/page.js&quot; data-project=&quot;sphinx&quot;&gt;&lt;/script&gt;";
    for expected in [line, "html_js_files", "extra_javascript", "data-live=\"/projects/sphinx/live\"", "Check again"] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    let policy = "script-src 'self' https://stats.example.org/page.js; connect-src 'self' https://stats.example.org/v1/page; \
                  img-src 'self' https://stats.example.org/v1/page.gif";
    assert!(page.contains(policy), "{page}");
    assert!(!page.contains("<svg") && !page.contains("refused:"), "no empty charts");
    assert!(!page.contains("trusted_proxy"), "no proxy was noticed");
    let noticed = super::report(&report, now, &ListAsked::default(), &snippet(&[]), true).into_string();
    assert!(
        noticed.contains("came from one proxy that it does not trust")
            && noticed.contains("<code>trusted_proxy</code>")
    );
    report.totals.rejected = BTreeMap::from([("unknown_project".to_owned(), 2)]);
    assert!(render(&report).contains("But beacons came, and were refused:"));
}

#[test]
fn the_first_day_says_what_to_look_at() {
    let mut report = empty("2026-10-03T05:00:00Z");
    (report.totals.views, report.totals.visits, report.days[2].views) = (3, 1, 3);
    let now = "2026-10".parse().unwrap();
    let page =
        |report: &MonthlyReport| super::report(report, now, &ListAsked::default(), &snippet(&[]), false).into_string();
    assert!(page(&report).contains("Counting since 3 October."));
    (report.days[1].views, report.totals.views) = (2, 5);
    assert!(!page(&report).contains("Counting since"), "not on the second day");
}

#[test]
fn the_file_to_send_needs_nothing_and_leads_nowhere() {
    for report in [full(), empty("2026-11-01T00:00:00Z")] {
        let file = standalone(&report, "2026-11".parse().unwrap(), PageCounts::default()).into_string();
        assert!(file.contains("<style>:root {"), "the style is in it");
        for forbidden in ["<script", "<link", "<form", " src=", "action=", "href=\"/", "url("] {
            assert!(!file.contains(forbidden), "{forbidden}");
        }
    }
    let file = standalone(&full(), "2026-11".parse().unwrap(), PageCounts::default()).into_string();
    assert!(file.contains("<svg") && words_of(&file).contains("4,000,000 ± 24,000"));
}

#[test]
fn the_index_lists_compares_and_goes_on() {
    let entry = |slug: &str, last, this| ProjectViews {
        project: slug.parse().unwrap(),
        views_this_month: this,
        views_last_month: last,
    };
    let asked = IndexAsked { prefix: "a", continued: false, next: Some("beta") };
    let running = "2026-11".parse().unwrap();
    let page = index(&[entry("alpha", 1_200_000, 12), entry("beta", 0, 0)], &asked, running).into_string();
    for expected in
        ["/projects/alpha\"", "/projects/alpha/2026-10\"", "1,200,000", "/?prefix=a&amp;after=beta", "October"]
    {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    let nothing = index(&[], &IndexAsked::default(), running).into_string();
    assert!(nothing.contains("headcount project add"));
    let none = IndexAsked { prefix: "zz", ..IndexAsked::default() };
    assert!(index(&[], &none, running).into_string().contains("begins like that"));
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
