//! The breakdowns: one short list per dimension.

use super::{Shown, chart, words};
use crate::report::BreakdownItem;
use maud::{Markup, html};
use schemas::classes::Dimension;

/// Most values shown of a list; the API has all of them.
const VALUES_SHOWN: usize = 7;

struct List {
    dimension: Dimension,
    heading: &'static str,
    unit: &'static str,
    /// What an empty value means.
    blank: &'static str,
    /// The kind of names that the script may look up.
    names: Option<&'static str>,
}

const fn list(dimension: Dimension, heading: &'static str, blank: &'static str) -> List {
    List { dimension, heading, unit: "views", blank, names: None }
}

const LISTS: &[List] = &[
    list(Dimension::Version, "Docs versions", "No version told"),
    List { names: Some("language"), ..list(Dimension::Language, "Docs languages", "No language told") },
    List {
        unit: "visits to pages that exist",
        ..list(Dimension::Referrer, "Where visits came from", "Direct, or not told")
    },
    List { names: Some("region"), ..list(Dimension::Country, "Countries", "Unknown") },
    list(Dimension::Browser, "Browsers", "Unknown"),
    list(Dimension::System, "Systems", "Unknown"),
    list(Dimension::Device, "Devices", "Unknown"),
];

/// All lists that are not empty.
pub(super) fn lists(shown: &Shown<'_>) -> Markup {
    let items = |list: &List| shown.report.breakdowns.get(list.dimension.name()).map_or(&[][..], Vec::as_slice);
    let filled: Vec<_> = LISTS.iter().map(|list| (list, items(list))).filter(|(_, items)| !items.is_empty()).collect();
    html! {
        @if !filled.is_empty() {
            div.lists {
                @for (list, items) in filled {
                    section {
                        div.head { h2 { (list.heading) } span.unit { (list.unit) } }
                        (value_list(items, list.blank, list.names))
                        (full(shown, list.dimension, list.heading))
                    }
                }
            }
        }
    }
}

/// Link to the whole list.
pub(super) fn full(shown: &Shown<'_>, dimension: Dimension, heading: &str) -> Markup {
    let path = format!("{}/breakdowns/{}", shown.api(), dimension.name());
    html! {
        @if !shown.alone {
            p.full {
                "All as " a href=(format!("{path}.csv?bom=1")) aria-label=(format!("{heading}: all as CSV")) { "CSV" }
                " or " a href=(path) aria-label=(format!("{heading}: all as JSON")) { "JSON" }
            }
        }
    }
}

fn value_list(items: &[BreakdownItem], blank: &str, names: Option<&str>) -> Markup {
    // "1 more" would take the line in which the value itself fits.
    let shown = if items.len() == VALUES_SHOWN + 1 { items.len() } else { VALUES_SHOWN.min(items.len()) };
    let (listed, rest) = items.split_at(shown);
    let largest = items.iter().map(|item| item.views).max().unwrap_or(0);
    let rest_views: u64 = rest.iter().map(|item| item.views).sum();
    html! {
        ul.list data-names=[names] {
            @for item in listed {
                li.row {
                    (chart::trace(item.views, largest))
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

/// Views by tracker and what its visits are, unless all views are of headcount's own script.
pub(super) fn trackers(shown: &Shown<'_>) -> Markup {
    let sources = &shown.report.counted_by;
    let largest = sources.first().map_or(0, |of| of.views);
    html! {
        @if words::names_trackers(sources) {
            section.sources {
                h2 { "Counted by" }
                p.note {
                    "Part of all figures above."
                    @if sources.len() > 1 { " A page with two scripts sends each view twice; its reader is one visitor." }
                }
                div.lists {
                    section {
                        ul.list {
                            @for of in sources {
                                li.row {
                                    (chart::trace(of.views, largest))
                                    span.name { (words::source(of.source)) }
                                    span { (words::number(of.views)) }
                                }
                            }
                        }
                    }
                }
                ul.refused.screen {
                    @for of in sources { li { (words::source(of.source)) ". " (words::visit_rule(of.visits)) } }
                }
            }
        }
    }
}
