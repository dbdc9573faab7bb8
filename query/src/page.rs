//! The report as a page: one HTML document, one style sheet, no script, no request elsewhere.

use crate::privacy::PrivacyFacts;
use crate::problem::Problem;
use crate::report::{BreakdownItem, MonthlyReport, PageFigures, PageVisitors, VisitorUnit, Visitors};
use axum::http::{HeaderMap, header};
use chart::Column;
use chrono::Timelike;
use maud::{DOCTYPE, Markup, html};
use schemas::classes::Dimension;
use schemas::{Host, Month};

mod access;
mod chart;
mod words;

// For `access`, which decides who sees them.
pub(crate) use access::{not_allowed, sign_in};

#[cfg(test)]
mod tests;

/// Pages shown; the JSON has the others.
const PAGES_SHOWN: usize = 25;
/// Pages not found shown.
const NOT_FOUND_SHOWN: usize = 15;
/// Values of a breakdown shown.
const VALUES_SHOWN: usize = 8;

/// Where this service is reached, for the line that a maintainer pastes into the docs.
pub(crate) struct Snippet {
    origin: String,
}

impl Snippet {
    /// The origin as the asking browser knows it. Only what parses as a host is repeated. The scheme is the proxy's
    /// word, else https where no port is named: the service itself speaks http on a port.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let host = text(header::HOST.as_str()).and_then(|host| host.parse::<Host>().ok());
        let Some(host) = host else { return Snippet { origin: "https://headcount.example.org".to_owned() } };
        let scheme = match text("x-forwarded-proto") {
            Some("http") => "http",
            Some("https") => "https",
            _ if host.as_str().contains(':') || host.as_str() == "localhost" => "http",
            _ => "https",
        };
        Snippet { origin: format!("{scheme}://{}", host.as_str()) }
    }

    fn text(&self, project: &str) -> String {
        format!("<script defer src=\"{}/beacon.js\" data-project=\"{project}\"></script>", self.origin)
    }
}

/// The report's page. `running` is the present month: there is no page after it.
pub(crate) fn report(report: &MonthlyReport, running: Month, snippet: &Snippet) -> Markup {
    let project = report.project.as_str();
    let month: Month = schemas::Hour::of(report.period.from).month();
    let title = words::month(month);
    let totals = &report.totals;
    let bots: u64 = totals.bots.values().sum();
    document(
        &Frame::plain(&format!("{project} · {title}")),
        html! {
            header.top {
                div {
                    p.kind { "Documentation report" }
                    h1 { (project) }
                }
                nav.months aria-label="Months" {
                    a rel="prev" href=(format!("/projects/{project}/{}", month.previous())) aria-label=(words::month(month.previous())) { "←" }
                    span { (title) }
                    @if month < running {
                        a rel="next" href=(format!("/projects/{project}/{}", month.next())) aria-label=(words::month(month.next())) { "→" }
                    } @else {
                        span.off aria-hidden="true" { "→" }
                    }
                }
            }
            main {
                @if totals.views == 0 {
                    (empty(project, &title, snippet))
                } @else {
                    (figures(report, month == running))
                    (days(report, month))
                    (pages(report))
                    section.cards {
                        @for (dimension, heading, unit, blank) in BREAKDOWNS {
                            (breakdown(report, *dimension, heading, unit, blank))
                        }
                    }
                    (hours(report))
                }
                div.pair {
                    @if bots > 0 { (bot_views(report, bots)) }
                    @if !totals.rejected.is_empty() { (rejected(report)) }
                }
            }
            footer {
                p {
                    "Visitors are estimates, made without cookies; readers' addresses and user agents are never stored. "
                    "“±” is one standard deviation. All times are UTC. " a href="/privacy" { "Privacy" }
                }
                p { a href=(format!("/v1/projects/{project}/reports/{month}")) { "This report as JSON" } }
            }
        },
    )
}

/// A page that says why there is none.
pub(crate) fn problem(problem: &Problem) -> Markup {
    document(
        &Frame::plain(problem.title),
        html! {
            main.alone {
                p.kind { (problem.status) }
                h1 { (problem.title) }
                p { (first_upper(&problem.detail)) "." }
            }
        },
    )
}

/// What the service does with what it sees.
pub(crate) fn privacy(facts: &PrivacyFacts) -> Markup {
    let list = |items: &[&str]| {
        html! { ul.plain { @for item in items { li { (item) } } } }
    };
    document(
        &Frame::plain("Privacy"),
        html! {
            header.top { div { p.kind { "What this service does with what it sees" } h1 { "Privacy" } } }
            main.words {
                section.card {
                    h2 { "Readers" }
                    p { "Nothing is left on a reader's machine: no cookie, no storage. Address and user agent are used while a request is answered, and are not recorded. Hashes of them, under a secret of this process, are in its memory for a while, to limit what one client may send; they are never written." }
                    p {
                        "To count visitors, " (facts.coordinate_bits) " bits or less are kept: a place among "
                        (words::number(1 << facts.precision)) " and a small number, made with a secret key. They are different in every project and on every page."
                    }
                    @match &facts.key {
                        Some(key) => {
                            p {
                                "A key lives for one " (key.lives_for) ". This one is of " (key.period) "; it ends on "
                                (words::instant(key.ends)) ", is replaced by a step that cannot be reversed, and erased. "
                                @match key.last_destroyed {
                                    Some(at) => { "The last one was erased on " (words::instant(at)) "." }
                                    None => { "No period has ended since this process began." }
                                }
                            }
                        }
                        None => { p { "This process serves reports only and has no key." } }
                    }
                    p { "Not counted at all, if they wish: " (facts.opt_out.join(", ")) "." }
                }
                section.card {
                    h2 { "Figures" }
                    p { "Figures about fewer than " (facts.small_cell_floor) " are folded or withheld. " (facts.close_after_hours) " hours after a month's end only numbers are kept of it." }
                    p { "Single page views stay in the log for " (facts.log_retention_hours) " hours, figures for " (facts.retention_months) " months after their month." }
                    p { "Countries: " (facts.country) "." }
                }
                section.card { h2 { "Recorded of a page view" } (list(facts.recorded)) }
                section.card { h2 { "Never recorded" } (list(facts.never_recorded)) }
                section.card { h2 { "Not promised" } (list(facts.not_promised)) }
            }
            footer { p { "These are the values of the running service. As JSON with " code { "Accept: application/json" } "." } }
        },
    )
}

/// What surrounds a page's own content.
pub(crate) struct Frame<'a> {
    title: &'a str,
}

impl<'a> Frame<'a> {
    /// A page of this title and nothing else.
    fn plain(title: &'a str) -> Self {
        Frame { title }
    }
}

fn document(frame: &Frame<'_>, body: Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (frame.title) " · headcount" }
                // Keeps browsers from asking for a /favicon.ico.
                link rel="icon" href="data:,";
                link rel="stylesheet" href="/assets/report.css";
            }
            body { (body) }
        }
    }
}

fn empty(project: &str, title: &str, snippet: &Snippet) -> Markup {
    html! {
        section.card.empty {
            h2 { "No views in " (title) }
            p { "Put this line into the pages of your documentation, anywhere in " code { "<head>" } ":" }
            pre { code { (snippet.text(project)) } }
            p.note { "The first views show here within seconds of a visit to a page that carries it." }
        }
    }
}

fn unit_words(unit: VisitorUnit) -> (&'static str, &'static str) {
    match unit {
        VisitorUnit::Visitors => ("Visitors", "different readers in the month, estimated"),
        VisitorUnit::VisitorDays => ("Visitor-days", "readers counted anew each day, estimated"),
    }
}

fn figures(report: &MonthlyReport, running: bool) -> Markup {
    let totals = &report.totals;
    let (unit, meaning) = unit_words(totals.visitors.unit);
    html! {
        section.figures aria-label="The month in figures" {
            div {
                h2 { "Views" }
                p.figure { (words::number(totals.views)) }
                p.note { "pages opened by people" }
            }
            div {
                h2 { (unit) }
                p.figure { (words::number(totals.visitors.estimate)) " " (plus_minus(totals.visitors)) }
                p.note { (meaning) " (± " (words::percent(totals.visitors.error)) ")" }
            }
            div {
                h2 { "Visits" }
                p.figure { (words::number(totals.visits)) }
                p.note { "arrivals from outside the docs" }
            }
        }
        @if running {
            p.running { "The month is running: figures up to " (words::instant(report.period.to)) "." }
        }
    }
}

fn plus_minus(visitors: Visitors) -> Markup {
    html! { span.error { "± " (words::number(visitors.plus_minus())) } }
}

fn days(report: &MonthlyReport, month: Month) -> Markup {
    let unit = unit_words(report.totals.visitors.unit).0.to_lowercase();
    let columns: Vec<Column> = report
        .days
        .iter()
        .map(|day| Column {
            tip: format!(
                "{}: {}, {} ± {} {unit}",
                words::day(day.day),
                words::counted(day.views, "view", "views"),
                words::number(day.visitors.estimate),
                words::number(day.visitors.plus_minus()),
            ),
            value: day.views,
            inner: Some(day.visitors.estimate),
        })
        .collect();
    let slots = ((month.end_hour().0 - month.first_hour().0) / 24) as usize;
    let top = chart::scale(&columns);
    html! {
        section.card {
            div.head {
                h2 { "Views per day" }
                p.legend { span.outer { "views" } span.inner { (unit) } }
            }
            p.axis { (words::number(top)) }
            (chart::columns("Views and visitors per day; the table below has the figures", &columns, top, slots))
            p.ticks { span { "1" } span { (slots.div_ceil(2)) } span { (slots) } }
            details {
                summary { "The days as a table" }
                div.scroll {
                    table {
                        thead { tr { th scope="col" { "Day" } th scope="col" { "Views" } th scope="col" { "Visits" } th scope="col" { (unit_words(report.totals.visitors.unit).0) } } }
                        tbody {
                            @for day in &report.days {
                                tr {
                                    th scope="row" { (day.day) }
                                    td { (words::number(day.views)) }
                                    td { (words::number(day.visits)) }
                                    td { (words::number(day.visitors.estimate)) " ± " (words::number(day.visitors.plus_minus())) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn hours(report: &MonthlyReport) -> Markup {
    let mut views = [0u64; 24];
    for hour in &report.hours {
        views[hour.hour.hour() as usize] += hour.views;
    }
    let columns: Vec<Column> = (0..24)
        .map(|hour| Column {
            tip: format!("{hour:02}:00 to {:02}:00 UTC: {}", hour + 1, words::counted(views[hour], "view", "views")),
            value: views[hour],
            inner: None,
        })
        .collect();
    let top = chart::scale(&columns);
    let busiest = (0..24).max_by_key(|&hour| (views[hour], std::cmp::Reverse(hour))).unwrap_or(0);
    html! {
        section.card.hours {
            h2 { "Views by hour of the day" }
            p.axis { (words::number(top)) }
            (chart::columns(&format!("Views by hour of the day; most between {busiest} and {} UTC", busiest + 1), &columns, top, 24))
            p.ticks { span { "00" } span { "12" } span { "24 UTC" } }
        }
    }
}

fn pages(report: &MonthlyReport) -> Markup {
    let found: Vec<&PageFigures> = report.pages.items.iter().filter(|page| page.status != 404).collect();
    let missing: Vec<&PageFigures> = report.not_found.items.iter().collect();
    let more = report.pages.next.is_some() || found.len() > PAGES_SHOWN;
    let more_missing = report.not_found.next.is_some() || missing.len() > NOT_FOUND_SHOWN;
    let json = format!("/v1/projects/{}/reports/{}?pages_limit=1000", report.project, report.period.month);
    html! {
        section.card {
            h2 { "Pages" }
            (page_list(&found, PAGES_SHOWN, report.totals.visitors.unit))
            @if more { p.note { "The " (PAGES_SHOWN.min(found.len())) " most viewed. " a href=(json) { "More in the JSON" } "." } }
        }
        @if !missing.is_empty() {
            section.card {
                h2 { "Pages not found" }
                p.note { "Addresses that readers asked for and the docs answered with 404. A redirect would help them." }
                (page_list(&missing, NOT_FOUND_SHOWN, report.totals.visitors.unit))
                @if more_missing {
                    p.note { "The " (NOT_FOUND_SHOWN.min(missing.len())) " most asked for. " a href=(format!("{json}&pages_status=404")) { "More in the JSON" } "." }
                }
            }
        }
    }
}

fn page_list(pages: &[&PageFigures], shown: usize, unit: VisitorUnit) -> Markup {
    let largest = pages.iter().map(|page| page.views).max().unwrap_or(0);
    html! {
        div.list.pages role="table" {
            div.row.heads role="row" {
                span role="columnheader" { "Path" }
                span role="columnheader" { "Views" }
                span role="columnheader" { (unit_words(unit).0) }
            }
            @for page in pages.iter().take(shown) {
                div.row role="row" {
                    (chart::behind(page.views, largest))
                    span.name role="cell" {
                        bdi { (words::shortened(&page.path)) }
                        @if !matches!(page.status, 200 | 404) { " " span.status { (page.status) } }
                    }
                    span role="cell" { (words::number(page.views)) }
                    span role="cell" {
                        @match page.visitors {
                            PageVisitors::Shown(visitors) => { (words::number(visitors.estimate)) " " (plus_minus(visitors)) }
                            PageVisitors::Few { fewer_than, .. } => { span.few { "under " (fewer_than) } }
                        }
                    }
                }
            }
        }
    }
}

/// (dimension, heading, what is counted, what an empty value means).
const BREAKDOWNS: &[(Dimension, &str, &str, &str)] = &[
    (Dimension::Referrer, "Where visits came from", "visits", "Direct, or not told"),
    (Dimension::Version, "Docs versions", "views", "No version told"),
    (Dimension::Language, "Docs languages", "views", "No language told"),
    (Dimension::Country, "Countries", "views", "Unknown"),
    (Dimension::Device, "Devices", "views", "Unknown"),
    (Dimension::Browser, "Browsers", "views", "Unknown"),
    (Dimension::System, "Systems", "views", "Unknown"),
];

fn breakdown(report: &MonthlyReport, dimension: Dimension, heading: &str, unit: &str, blank: &str) -> Markup {
    let items = report.breakdowns.get(dimension.name()).map_or(&[][..], Vec::as_slice);
    html! {
        @if !items.is_empty() {
            section.card {
                div.head { h2 { (heading) } span.unit { (unit) } }
                (value_list(items, blank))
            }
        }
    }
}

fn value_list(items: &[BreakdownItem], blank: &str) -> Markup {
    // "1 more" would take the line that the value itself could have.
    let shown = if items.len() == VALUES_SHOWN + 1 { items.len() } else { VALUES_SHOWN.min(items.len()) };
    let (listed, rest) = items.split_at(shown);
    let largest = items.iter().map(|item| item.views).max().unwrap_or(0);
    let rest_views: u64 = rest.iter().map(|item| item.views).sum();
    html! {
        ul.list {
            @for item in listed {
                li.row {
                    (chart::behind(item.views, largest))
                    span.name {
                        @if item.rest { "All others" } @else if item.value.is_empty() { (blank) } @else { bdi { (words::shortened(&item.value)) } }
                    }
                    span { (words::number(item.views)) }
                }
            }
            @if !rest.is_empty() {
                li.row.more {
                    span.name {
                        @if rest.iter().any(|item| item.rest) { "All others" } @else { (words::number(rest.len() as u64)) " more" }
                    }
                    span { (words::number(rest_views)) }
                }
            }
        }
    }
}

fn bot_views(report: &MonthlyReport, total: u64) -> Markup {
    let mut classes: Vec<(&str, u64)> =
        report.totals.bots.iter().filter(|(_, views)| **views > 0).map(|(class, views)| (*class, *views)).collect();
    classes.sort_by_key(|(class, views)| (std::cmp::Reverse(*views), *class));
    let largest = classes.first().map_or(0, |(_, views)| *views);
    let names = report.breakdowns.get(Dimension::Bot.name()).map_or(&[][..], Vec::as_slice);
    html! {
        section.card {
            div.head { h2 { "Bots" } span.unit { "views" } }
            p.note { (words::counted(total, "view", "views")) " by programs, in none of the figures above." }
            ul.list {
                @for (class, views) in &classes {
                    li.row {
                        (chart::behind(*views, largest))
                        span.name { (words::bot_class(class)) }
                        span { (words::number(*views)) }
                    }
                }
            }
            @if !names.is_empty() {
                h3 { "By name" }
                (value_list(names, "Unnamed"))
            }
        }
    }
}

fn rejected(report: &MonthlyReport) -> Markup {
    let mut reasons: Vec<(&str, u64)> = report.totals.rejected.iter().map(|(r, n)| (r.as_str(), *n)).collect();
    reasons.sort_by_key(|(reason, beacons)| (std::cmp::Reverse(*beacons), *reason));
    html! {
        section.card {
            div.head { h2 { "Refused beacons" } span.unit { "beacons" } }
            p.note { "Sent for this project, and counted nowhere else." }
            ul.list {
                @for (reason, beacons) in &reasons {
                    li.row {
                        span.name { (words::rejection(reason)) " " code { (reason) } }
                        span { (words::number(*beacons)) }
                    }
                }
            }
        }
    }
}

fn first_upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
