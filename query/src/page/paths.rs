//! The list of pages with its form and its order, and the pages that were not found.

use super::figures::plus_minus;
use super::{Shown, chart, unit_words, words};
use crate::report::{BreakdownItem, PageFigures, PageVisitors, ReportedPage, Sort};
use maud::{Markup, html};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use schemas::caps::MORE_PATH;

/// Most pages not found that are shown; the API has all of them.
const NOT_FOUND_SHOWN: usize = 8;

/// Most pages reported missing that are shown, for the same reason.
const REPORTED_SHOWN: usize = 3;

/// Parameters of the list of pages in the page's URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ListAsked {
    /// Prefix of the paths; empty for all.
    pub(crate) prefix: String,
    /// In which order.
    pub(crate) sort: Sort,
    /// Only this HTTP status.
    pub(crate) status: Option<u16>,
    /// Whether this is not the start of the list.
    pub(crate) continued: bool,
}

impl ListAsked {
    /// The URL of this list in another order, or of its next page.
    fn link(&self, base: &str, sort: Sort, after: Option<&str>) -> String {
        let mut pairs = Vec::new();
        if !self.prefix.is_empty() {
            pairs.push(format!("prefix={}", utf8_percent_encode(&self.prefix, NON_ALPHANUMERIC)));
        }
        if sort != Sort::default() {
            pairs.push(format!("sort={sort}"));
        }
        pairs.extend(self.status.map(|status| format!("status={status}")));
        pairs.extend(after.map(|after| format!("after={after}")));
        let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
        format!("{base}{query}#pages")
    }
}

pub(super) fn pages(shown: &Shown<'_>) -> Markup {
    let (report, asked) = (shown.report, shown.list);
    let base = shown.here();
    let list = &report.pages;
    let next = list.next.as_ref().map(crate::report::Cursor::encode);
    let change = shown.compares();
    let narrowed = !asked.prefix.is_empty() || asked.status.is_some();
    html! {
        section #pages {
            h2 { "Pages" }
            @if !shown.alone { (form(shown, &base)) }
            @if asked.status.is_some() {
                p.note { "Only pages answered with status " (asked.status.unwrap_or_default()) ". " a href=(ListAsked { status: None, ..asked.clone() }.link(&base, asked.sort, None)) { "All" } }
            }
            @if list.items.is_empty() {
                p.note {
                    @if narrowed { "No page that was viewed in this time begins like that. " a href=(format!("{base}#pages")) { "All pages" } }
                    @else { "The list ends here." }
                }
            } @else {
                (table(shown, &base, change))
                (first_of(shown, list.items.len(), shown.counts.pages))
                (more_paths(&list.items))
                @if list.items.iter().any(|page| page.months_withheld > 0 && page.visitors.shown().is_some()) {
                    p.note { "Visitors of a page are added up over those months in which they are enough to be told; where “+” stands, there are others." }
                }
            }
            @if !shown.alone {
                p.turn {
                    @if asked.continued { a href=(asked.link(&base, asked.sort, None)) { "← From the beginning" } }
                    @if let Some(next) = &next { a rel="next" href=(asked.link(&base, asked.sort, Some(next))) { "Next pages →" } }
                }
                p.full {
                    "All pages as " a href=(format!("{}/pages.csv?bom=1", shown.api())) aria-label="Pages: all as CSV" { "CSV" }
                    " or " a href=(format!("{}/pages", shown.api())) aria-label="Pages: all as JSON" { "JSON" }
                }
            }
        }
    }
}

/// The total number of items of a shortened list, in a self-contained file.
fn first_of(shown: &Shown<'_>, listed: usize, there: u64) -> Markup {
    html! {
        @if shown.alone && (listed as u64) < there {
            p.note { "The first " (words::number(listed as u64)) " of " (words::number(there)) "." }
        }
    }
}

/// Explains [`MORE_PATH`], if it is listed.
fn more_paths(listed: &[PageFigures]) -> Markup {
    html! {
        @if listed.iter().any(|page| page.path == MORE_PATH) {
            p.note {
                code { (MORE_PATH) } " adds up views of paths that are not counted by name: one client network sent more different paths than "
                code { "paths_per_network" } " allows, or the project had more different paths in a day than are kept."
            }
        }
    }
}

/// The orders that this report supports.
fn orders(shown: &Shown<'_>) -> impl Iterator<Item = Sort> {
    let compares = shown.compares();
    Sort::ALL.into_iter().filter(move |sort| compares || *sort != Sort::Change)
}

fn form(shown: &Shown<'_>, base: &str) -> Markup {
    let asked = shown.list;
    html! {
        form.find method="get" action=(format!("{base}#pages")) role="search" {
            label.grow { "Paths that begin with" input type="text" name="prefix" value=(asked.prefix) placeholder="/en/" autocapitalize="off" spellcheck="false"; }
            label {
                "In the order of"
                select name="sort" {
                    @for sort in orders(shown) { option value=(sort) selected[sort == asked.sort] { (sort) } }
                }
            }
            @if let Some(status) = asked.status { input type="hidden" name="status" value=(status); }
            button type="submit" { "Show" }
        }
    }
}

fn table(shown: &Shown<'_>, base: &str, change: bool) -> Markup {
    let (report, asked) = (shown.report, shown.list);
    let unit = unit_words(report.totals.visitors.unit).0;
    let pages = &report.pages.items;
    let largest = pages.iter().map(|page| page.views).max().unwrap_or(0);
    let head = |sort: Sort, text: &str| {
        let order = (asked.sort == sort).then_some(if sort == Sort::Path { "ascending" } else { "descending" });
        html! {
            span role="columnheader" aria-sort=[order] {
                @if shown.alone || order.is_some() { (text) } @else { a href=(asked.link(base, sort, None)) { (text) } }
            }
        }
    };
    html! {
        div.list.paths role="table" aria-label="Pages" {
            div.row.heads role="row" {
                (head(Sort::Path, "Path"))
                (head(Sort::Views, "Views"))
                (head(Sort::Visitors, unit))
                @if change { (head(Sort::Change, "Change")) } @else { span role="columnheader" { span.unseen { "Change" } } }
            }
            @for page in pages {
                div.row role="row" {
                    (chart::trace(page.views, largest))
                    span.name role="cell" {
                        bdi { (words::shortened(&page.path)) }
                        @if page.status != 200 { " " span.status title=(words::status(page.status)) { (page.status) } }
                    }
                    span role="cell" { (words::number(page.views)) }
                    span role="cell" {
                        @match page.visitors {
                            PageVisitors::Shown(visitors) => {
                                (words::number(visitors.estimate)) @if page.months_withheld > 0 { "+" } " " (plus_minus(visitors))
                            }
                            PageVisitors::Few { fewer_than, .. } => { span.few { "under " (fewer_than) } }
                        }
                    }
                    span.change role="cell" { (changed(page)) }
                }
            }
        }
    }
}

fn changed(page: &PageFigures) -> String {
    match (page.change, page.views_before) {
        (Some(change), _) => words::change_short(change),
        (None, Some(0)) => "new".to_owned(),
        (None, _) => String::new(),
    }
}

/// Pages not found, and their referrers.
pub(super) fn not_found(shown: &Shown<'_>) -> Markup {
    let report = shown.report;
    let (missing, reported) = (&report.not_found.items, &report.reported_missing);
    if missing.is_empty() && reported.is_empty() {
        return html! {};
    }
    let more = report.not_found.next.is_some() || missing.len() > NOT_FOUND_SHOWN;
    html! {
        section.not-found {
            h2 { "Pages not found" }
            p.note {
                "Addresses that readers asked for and the docs answered with 404. A redirect to what took their place helps whoever follows an old link: in the "
                "settings of Read the Docs, with " code { "sphinx-reredirects" } " in Sphinx, " code { "mkdocs-redirects" } " in MkDocs. Links from your own pages are better fixed."
            }
            @if report.totals.visits_at_missing_pages > 0 {
                p.note {
                    b { (words::counted(report.totals.visits_at_missing_pages, "visit", "visits")) }
                    " arrived at pages not found. “Where visits came from” does not contain them."
                }
            }
            @if !missing.is_empty() { (missing_table(missing)) }
            (first_of(shown, missing.len().min(NOT_FOUND_SHOWN), shown.counts.not_found))
            (more_paths(&missing[..missing.len().min(NOT_FOUND_SHOWN)]))
            (reported_missing(reported))
            @if !shown.alone && !missing.is_empty() {
                p.full {
                    @if more { "The " (NOT_FOUND_SHOWN.min(missing.len())) " most asked for. " }
                    "All as " a href=(format!("{}/not-found.csv?bom=1", shown.api())) aria-label="Pages not found: all as CSV" { "CSV" }
                    " or " a href=(format!("{}/not-found", shown.api())) aria-label="Pages not found: all as JSON" { "JSON" }
                }
            }
        }
    }
}

fn missing_table(missing: &[PageFigures]) -> Markup {
    let largest = missing.iter().map(|page| page.views).max().unwrap_or(0);
    html! {
        div.list.paths.missing role="table" aria-label="Pages not found" {
            div.row.heads role="row" { span role="columnheader" { "Path, and where its readers came from" } span role="columnheader" { "Views" } }
            @for page in missing.iter().take(NOT_FOUND_SHOWN) {
                div.row role="row" {
                    (chart::trace(page.views, largest))
                    span.name role="cell" {
                        bdi { (words::shortened(&page.path)) }
                    }
                    span role="cell" { (words::number(page.views)) }
                    @if !page.referrers.is_empty() { span.from role="cell" { (from(&page.referrers)) } }
                }
            }
        }
    }
}

/// Pages that the script of the docs reported as missing.
fn reported_missing(reported: &[ReportedPage]) -> Markup {
    html! {
        @if !reported.is_empty() {
            p.note {
                "Reported missing by the page itself: "
                @for (at, page) in reported.iter().take(REPORTED_SHOWN).enumerate() {
                    @if at > 0 { ", " }
                    bdi { (words::shortened(&page.path)) } " " (words::number(page.reports))
                }
                @if reported.len() > REPORTED_SHOWN { ", and others" }
                ". A report is no view."
            }
        }
    }
}

/// `from github.com 12, from your own pages 30, other 4`.
fn from(referrers: &[BreakdownItem]) -> Markup {
    html! {
        @for (at, item) in referrers.iter().enumerate() {
            @if at > 0 { ", " }
            @if item.rest { "other " }
            @else if item.value == ":internal" { "from your own pages " }
            @else if item.value == ":more" { "from other sites " }
            @else if item.value.is_empty() { "direct or not told " }
            @else { "from " bdi { (words::shortened(&item.value)) } " " }
            (words::number(item.views))
        }
    }
}
