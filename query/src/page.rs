//! The pages: HTML of one style sheet, and one script file that only adds comfort. Nothing comes from elsewhere.
//!
//! [`report`] is the page that a maintainer opens; [`standalone`] the same as a file of its own, to be sent by mail. The
//! rooms below it are its sections, in their order on the page.

use crate::problem::Problem;
use crate::report::{MonthlyReport, PageCounts, VisitorUnit};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use schemas::Month;
use std::sync::LazyLock;

mod access;
mod chart;
mod figures;
mod index;
mod lists;
mod paths;
mod privacy;
mod refused;
mod robots;
mod snippet;
mod time;
pub(crate) mod words;

#[cfg(test)]
mod tests;

pub(crate) use access::{not_allowed, sign_in};
pub(crate) use index::{IndexAsked, index};
pub(crate) use paths::ListAsked;
pub(crate) use privacy::privacy;
pub(crate) use snippet::{Snippet, html_line};

/// The style, a file of its own so that the policy can forbid everything inline. Without comments and indentation, which readers
/// need not wait for.
pub(crate) static STYLE: LazyLock<String> = LazyLock::new(|| {
    let source = include_str!("../assets/report.css");
    let parts = source.split("/*").enumerate();
    let plain: String = parts
        .map(|(at, part)| if at == 0 { part } else { part.split_once("*/").map_or("", |(_, rest)| rest) })
        .collect();
    packed(&plain) + &chart::lengths()
});

/// The script, which every page works without. Its comments have lines of their own.
pub(crate) static SCRIPT: LazyLock<String> = LazyLock::new(|| packed(include_str!("../assets/report.js")));

fn packed(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.fold(String::new(), |text, line| text + line + "\n")
}

/// Pages listed on the page; the API and the links below the list have the others.
pub(crate) const PAGES_SHOWN: usize = 20;

/// Projects listed at once.
pub(crate) const PROJECTS_SHOWN: usize = 50;

/// Months that the link to a longer time leads to.
const LONGER: usize = 12;

/// A report and how it is shown.
struct Shown<'a> {
    report: &'a MonthlyReport,
    /// The present month.
    running: Month,
    list: &'a ListAsked,
    /// A file of its own: it cannot lead anywhere, and has no forms.
    alone: bool,
    /// How many pages there are; told where the file is alone.
    counts: PageCounts,
}

impl Shown<'_> {
    /// The one month that it is about, unless it is about several.
    fn month(&self) -> Option<Month> {
        self.report.period.month.as_ref()?.parse().ok()
    }

    fn is_running(&self) -> bool {
        self.month() == Some(self.running)
    }

    /// Whether pages can be compared with the month before: parts of months cannot.
    fn compares(&self) -> bool {
        self.month().is_some_and(|month| month < self.running)
    }

    /// The path of this page.
    fn here(&self) -> String {
        format!("/projects/{}/{}", self.report.project, self.report.period.span)
    }

    /// The path of this report in the API.
    fn api(&self) -> String {
        format!("/v1/projects/{}/reports/{}", self.report.project, self.report.period.span)
    }

    /// `October 2026`, or `May to October 2026`.
    fn title(&self) -> String {
        let span = &self.report.period.span;
        let month = |text: &str| text.parse::<Month>().ok();
        match span.split_once("..").map_or((month(span), None), |(first, last)| (month(first), month(last))) {
            (Some(first), Some(last)) if first.year() == last.year() => {
                format!("{} to {}", words::month_name(first), words::month(last))
            }
            (Some(first), Some(last)) => format!("{} to {}", words::month(first), words::month(last)),
            (Some(month), None) => words::month(month),
            (None, _) => span.clone(),
        }
    }
}

/// The report's page. `running` is the present month: there is no page after it.
/// `untrusted_proxy` says whether most beacons of late came from one proxy that is not trusted.
pub(crate) fn report(
    report: &MonthlyReport,
    running: Month,
    list: &ListAsked,
    snippet: &Snippet,
    untrusted_proxy: bool,
) -> Markup {
    let shown = Shown { report, running, list, alone: false, counts: PageCounts::default() };
    let (project, title) = (&report.project, shown.title());
    document(
        &Frame { script: true, ..Frame::plain(&format!("{project} · {title}")) },
        html! {
            header.top {
                div {
                    p.kind { a href="/" { "Documentation reports" } }
                    h1 { (project) }
                    p.month { (title) }
                }
                (months(&shown))
            }
            main #content {
                @if report.totals.views > 0 {
                    (sections(&shown))
                } @else if shown.is_running() && report.comparison.previous_month.is_none() {
                    @if untrusted_proxy { (proxy_notice()) }
                    (snippet::begin(project.as_str(), refusals(&shown), snippet, &shown.here()))
                } @else {
                    (snippet::silent_month(&title, &format!("/projects/{project}/{running}")))
                    (robots::robots(&shown))
                    (refused(&shown))
                }
            }
            footer {
                p.screen {
                    "This report as " a href=(format!("{}.csv?bom=1", shown.api())) { "CSV" } " or " a href=(shown.api()) { "JSON" } ". Printed, it takes one page of A4."
                }
                (honest(&shown))
            }
        },
    )
}

/// `page`, a page of [`report`], with a line that says that it is stale since ClickHouse does not answer. None if `page` is something else.
pub(crate) fn with_stale_notice(page: &[u8], age_seconds: u64) -> Option<Vec<u8>> {
    const MAIN: &str = "<main id=\"content\">";
    let (head, rest) = std::str::from_utf8(page).ok()?.split_once(MAIN)?;
    let age = match age_seconds {
        0..=119 => format!("{age_seconds} seconds"),
        _ => format!("{} minutes", age_seconds / 60),
    };
    let notice = html! {
        div.waiting #stale role="status" {
            p { "ClickHouse does not answer. This report is " (age) " old; newer views are missing." }
        }
    };
    Some([head, MAIN, &notice.into_string(), rest].concat().into_bytes())
}

/// A proxy that is not trusted hides who the readers are.
fn proxy_notice() -> Markup {
    html! {
        div.waiting {
            p {
                "At least half of the last 1,000 beacons of this service came from one proxy that it does not trust, so all readers behind it "
                "count as one. If the proxy is yours, name it in the setting " code { "trusted_proxy" } "."
            }
        }
    }
}

/// The whole report as one HTML file without a script, a link or a request: for a file, or for mail.
pub(crate) fn standalone(report: &MonthlyReport, running: Month, counts: PageCounts) -> Markup {
    let list = ListAsked::default();
    let shown = Shown { report, running, list: &list, alone: true, counts };
    let (project, title) = (&report.project, shown.title());
    document(
        &Frame { alone: true, ..Frame::plain(&format!("{project} · {title}")) },
        html! {
            header.top { div { p.kind { "Documentation report" } h1 { (project) } p.month { (title) } } }
            main #content {
                @if report.totals.views > 0 { (sections(&shown)) } @else {
                    section { h2 { "No views in " (title) } p.note { "Nothing was counted." } }
                    (robots::robots(&shown))
                    (refused(&shown))
                }
            }
            footer {
                p { "Lists end where they say so; all pages and values are at " code { (shown.api()) ".csv" } " of the service that made this." }
                (honest(&shown))
            }
        },
    )
}

fn sections(shown: &Shown<'_>) -> Markup {
    html! {
        @if let Some(day) = first_day(shown) { (snippet::first_day(day, shown.report.threshold)) }
        (figures::figures(shown))
        @if let Some(month) = shown.month() { (time::days(shown, month)) } @else { (time::months(shown)) }
        (time::week(shown))
        (paths::pages(shown))
        (paths::not_found(shown))
        (masked(shown))
        (lists::lists(shown))
        (robots::robots(shown))
        (lists::trackers(shown))
        (refused(shown))
        (dropped(shown))
    }
}

/// The day of the project's first view, if that is the last day of a running month.
fn first_day(shown: &Shown<'_>) -> Option<chrono::NaiveDate> {
    let report = shown.report;
    let comparison = &report.comparison;
    let last = report.days.last()?;
    let new = comparison.previous_month.is_none() && comparison.previous_year.is_none();
    let only = last.views == report.totals.views;
    (!shown.alone && shown.is_running() && new && only).then_some(last.day)
}

/// Refused beacons in sentences; none where there are none.
fn refusals(shown: &Shown<'_>) -> Option<Markup> {
    let report = shown.report;
    let mut reasons: Vec<(&str, u64)> = report.totals.rejected.iter().map(|(r, n)| (r.as_str(), *n)).collect();
    reasons.sort_by_key(|(reason, beacons)| (std::cmp::Reverse(*beacons), *reason));
    let sentences = || refused::sentences(report.project.as_str(), &reasons, &report.rejected_hosts);
    (!reasons.is_empty()).then(sentences)
}

fn refused(shown: &Shown<'_>) -> Markup {
    html! {
        @if let Some(sentences) = refusals(shown) {
            section.refusals {
                h2 { "Refused beacons" }
                p.note { "Sent for this project, and counted nowhere else." }
                (sentences)
            }
        }
    }
}

/// Views that were counted without one of their facts.
fn dropped(shown: &Shown<'_>) -> Markup {
    let facts = &shown.report.dropped_facts;
    html! {
        @if !facts.is_empty() {
            section.refusals {
                h2 { "Views counted without a fact" }
                p.note { "They are part of all figures above." }
                ul.refused { @for fact in facts { li { (words::dropped(fact)) } } }
            }
        }
    }
}

/// Pages that are counted together, since their paths are masked.
fn masked(shown: &Shown<'_>) -> Markup {
    let report = shown.report;
    html! {
        @if report.masked_pages.rows > 0 {
            section.screen {
                h2 { "Masked pages" }
                p.note {
                    (words::masked(&report.masked_pages)) " To keep the paths of your own pages: "
                    code { (words::keep_command(report.project.as_str())) }
                }
            }
        }
    }
}

/// Links to other times.
fn months(shown: &Shown<'_>) -> Markup {
    let (project, running) = (&shown.report.project, shown.running);
    let link = |month: Month| format!("/projects/{project}/{month}");
    let earlier = |month: Month, count: usize| (0..count).fold(month, |month, _| month.previous());
    // The reader knows the year where it is the page's own.
    let year = shown.month().map(Month::year);
    let name = |month: Month| {
        if year == Some(month.year()) { words::month_name(month).to_owned() } else { words::month(month) }
    };
    let count = shown.report.months.len();
    html! {
        nav.months aria-label="Other months" {
            ul {
                @if let Some(month) = shown.month() {
                    li { a rel="prev" href=(link(month.previous())) { "← " (name(month.previous())) } }
                    @if month < running {
                        li { a rel="next" href=(link(month.next())) { (name(month.next())) " →" } }
                    }
                    @if month < running && month.next() != running { li { a href=(link(running)) { "The running month" } } }
                    li { a href=(format!("/projects/{project}/{}..{running}", earlier(running, LONGER - 1))) { "Twelve months" } }
                } @else {
                    @if let Some(first) = shown.report.months.first().and_then(|month| month.month.parse().ok()) {
                        li {
                            a rel="prev" href=(format!("/projects/{project}/{}..{}", earlier(first, count), first.previous())) {
                                "← The " (count) " months before"
                            }
                        }
                    }
                    li { a href=(link(running)) { "The running month" } }
                }
            }
        }
    }
}

fn honest(shown: &Shown<'_>) -> Markup {
    html! {
        p {
            (words::UNCOUNTED) " "
            "Visitors are estimates, made without cookies; readers' addresses and user agents are never stored. "
            "“±” is one standard deviation. " (words::threshold(shown.report.threshold, "All others")) " Days are UTC. "
            @if !shown.alone { a href="/privacy" { "What is kept, and what is not" } }
        }
    }
}

/// A page that says why there is none.
pub(crate) fn problem(problem: &Problem) -> Markup {
    document(
        &Frame::plain(problem.title),
        html! {
            main.alone #content {
                p.kind { (problem.status) }
                h1 { (problem.title) }
                p { (first_upper(&problem.detail)) "." }
            }
        },
    )
}

/// What surrounds a page's own content.
struct Frame<'a> {
    title: &'a str,
    /// With the script.
    script: bool,
    /// A file of its own, with the style in it.
    alone: bool,
}

impl<'a> Frame<'a> {
    /// A page of this title and nothing else.
    fn plain(title: &'a str) -> Self {
        Frame { title, script: false, alone: false }
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
                @if frame.alone {
                    style { (PreEscaped(STYLE.as_str())) }
                } @else {
                    // Keeps browsers from asking for a /favicon.ico.
                    link rel="icon" href="data:,";
                    link rel="stylesheet" href="/assets/report.css";
                }
                @if frame.script { script defer src="/assets/report.js" {} }
            }
            body {
                a.skip href="#content" { "To the content" }
                (body)
            }
        }
    }
}

fn unit_words(unit: VisitorUnit) -> (&'static str, &'static str) {
    match unit {
        VisitorUnit::Visitors => ("Visitors", "different readers in the month, estimated"),
        VisitorUnit::VisitorDays => ("Visitor-days", "readers counted anew each day, estimated"),
        VisitorUnit::VisitorMonths => ("Visitor-months", "readers counted anew each month, estimated"),
    }
}

fn first_upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
