//! Robots, apart from people: by kind with the names of each, AI first, and the pages that AI fetches most.

use super::{Shown, chart, lists, words};
use crate::report::robots::is_ai;
use crate::report::{BreakdownItem, RobotFigures, RobotKind};
use maud::{Markup, html};
use schemas::classes::Dimension;

/// Names shown beneath a kind; the API has all of them.
const NAMES_SHOWN: usize = 5;

/// People and robots in comparison; nothing if there were no robots.
pub(super) fn robots(shown: &Shown<'_>) -> Markup {
    let (people, robots) = (shown.report.totals.views, &shown.report.robots);
    if robots.total == 0 && robots.rules_changes.is_empty() {
        return html! {};
    }
    let (ai, others): (Vec<&RobotKind>, Vec<&RobotKind>) = robots.kinds.iter().partition(|kind| is_ai(&kind.kind));
    let of_ai: u64 = ai.iter().map(|kind| kind.views).sum();
    let largest = robots.kinds.iter().map(|kind| kind.views).max().unwrap_or(0);
    html! {
        section.programs {
            h2 { "People and robots" }
            p.note {
                "Of all views " b { (words::number(people)) } " (" (share(people, people + robots.total)) ") were by people and "
                b { (words::number(robots.total)) } " (" (share(robots.total, people + robots.total)) ") by robots"
                @if of_ai > 0 { ", " b { (words::number(of_ai)) } " of them by AI (" (share(of_ai, people + robots.total)) " of all views)" }
                ". No other figure of this report contains views by robots. Robots that run no scripts send no beacons and are not in this list."
            }
            @for change in &robots.rules_changes { p.note { (words::rules_change(change)) } }
            div.lists {
                @if !ai.is_empty() {
                    section {
                        div.head { h3 { "AI" } span.unit { "views" } }
                        (kinds(&ai, largest))
                    }
                }
                (ai_pages(robots))
                @if !others.is_empty() {
                    section {
                        div.head { h3 { "Other robots" } span.unit { "views" } }
                        (kinds(&others, largest))
                        (lists::full(shown, Dimension::Bot, "Robots"))
                    }
                }
            }
        }
    }
}

fn share(views: u64, all: u64) -> String {
    words::percent(views as f64 / all.max(1) as f64)
}

/// Each kind with its names.
fn kinds(kinds: &[&RobotKind], largest: u64) -> Markup {
    html! {
        ul.list {
            @for kind in kinds {
                li.row {
                    (chart::trace(kind.views, largest))
                    span.name { (words::bot_class(&kind.kind)) }
                    @if let Some(change) = kind.change { span.change { (words::change_short(change)) } }
                    span { (words::number(kind.views)) }
                    @if !kind.names.is_empty() { span.from { (names(&kind.names)) } }
                }
            }
        }
    }
}

/// `GPTBot 1,200, ClaudeBot 300, 4 more 40`.
fn names(items: &[BreakdownItem]) -> String {
    // "1 more" would take the place in which the name itself fits.
    let shown = if items.len() == NAMES_SHOWN + 1 { items.len() } else { NAMES_SHOWN.min(items.len()) };
    let (listed, rest) = items.split_at(shown);
    let name = |item: &BreakdownItem| match (item.rest, item.value.as_str()) {
        (true, _) => format!("other {}", words::number(item.views)),
        (_, "") => format!("no name recorded {}", words::number(item.views)),
        (_, name) => format!("{} {}", words::shortened(name), words::number(item.views)),
    };
    let mut names: Vec<String> = listed.iter().map(name).collect();
    if !rest.is_empty() {
        let views = words::number(rest.iter().map(|item| item.views).sum());
        let any_suppressed = rest.iter().any(|item| item.rest);
        names.push(if any_suppressed { format!("other {views}") } else { format!("{} more {views}", rest.len()) });
    }
    names.join(", ")
}

fn ai_pages(robots: &RobotFigures) -> Markup {
    let largest = robots.ai_pages.first().map_or(0, |page| page.views);
    html! {
        @if !robots.ai_pages.is_empty() {
            section {
                div.head { h3 { "Pages that AI fetches most" } span.unit { "views" } }
                ul.list {
                    @for page in &robots.ai_pages {
                        li.row {
                            (chart::trace(page.views, largest))
                            span.name { bdi { (words::shortened(&page.path)) } }
                            span { (words::number(page.views)) }
                        }
                    }
                }
            }
        }
    }
}
