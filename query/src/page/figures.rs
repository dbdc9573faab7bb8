//! The headline figures, each with its change in words.

use super::{Shown, unit_words, words};
use crate::report::{ClosesAfter, ComparedMonth, MonthFigures, Visitors};
use maud::{Markup, html};
use schemas::Month;
use words::Figure;

/// Below this value a figure has room for its largest type.
const ROOMY: u64 = 10_000_000;

pub(super) fn figures(shown: &Shown<'_>) -> Markup {
    let report = shown.report;
    let totals = &report.totals;
    let (unit, meaning) = unit_words(totals.visitors.unit);
    let visitors = |visitors: Visitors| Figure::estimate(visitors.estimate as f64, visitors.error);
    let long = totals.views.max(totals.visits) >= ROOMY;
    html! {
        section.figures.long[long] aria-label="In figures" {
            dl {
                div {
                    dt { "Views" }
                    dd {
                        p.figure { (words::number(totals.views)) }
                        p.note { "pages opened by people" }
                        (changes(shown, "more", "fewer", |_| Some(Figure::exact(totals.views)), |before| Some(Figure::exact(before.views))))
                    }
                }
                div {
                    dt { (unit) }
                    dd {
                        p.figure { (words::number(totals.visitors.estimate)) " " (plus_minus(totals.visitors)) }
                        p.note { (meaning) " (±\u{a0}" (words::percent(totals.visitors.error)) ")" }
                        (changes(shown, "more", "fewer", |_| Some(visitors(totals.visitors)), |before| before.visitors.map(visitors)))
                    }
                }
                div {
                    dt { "Visits" }
                    dd {
                        p.figure { @if totals.visits_up_to { span.error { "up to " } } (words::number(totals.visits)) }
                        p.note { "arrivals from outside the docs" }
                        (changes(shown, "more", "fewer", |_| Some(Figure::exact(totals.visits)), |before| Some(Figure::exact(before.visits))))
                    }
                }
                @if let Some(ratio) = totals.views_per_visitor {
                    div {
                        dt { "Views per " (singular(unit)) }
                        dd {
                            p.figure { (words::tenths(ratio)) }
                            p.note { "pages that a reader opens, estimated" }
                            (changes(
                                shown, "more", "fewer",
                                |before| before.visitors.map(|_| per_visitor(totals.views, totals.visitors)),
                                |before| before.visitors.filter(|visitors| visitors.estimate > 0).map(|visitors| per_visitor(before.views, visitors)),
                            ))
                        }
                    }
                }
            }
        }
        (standing(shown))
    }
}

fn singular(unit: &str) -> String {
    unit.trim_end_matches('s').to_lowercase()
}

fn per_visitor(views: u64, visitors: Visitors) -> Figure {
    Figure::estimate(views as f64 / visitors.estimate.max(1) as f64, visitors.error)
}

pub(super) fn plus_minus(visitors: Visitors) -> Markup {
    html! { span.error { "±\u{a0}" (words::number(visitors.plus_minus())) } }
}

/// Months to compare with, each with its name: the one before without its year, which is clear from the page.
fn compared<'a>(shown: &Shown<'a>) -> Vec<(String, &'a ComparedMonth)> {
    let comparison = &shown.report.comparison;
    let month = |compared: &ComparedMonth| compared.month.parse::<Month>().ok();
    let before = comparison.previous_month.iter().filter_map(|c| Some((words::month_name(month(c)?).to_owned(), c)));
    let year = comparison.previous_year.iter().filter_map(|c| Some((words::month(month(c)?), c)));
    before.chain(year).collect()
}

fn changes(
    shown: &Shown<'_>,
    more: &str,
    fewer: &str,
    now: impl Fn(&ComparedMonth) -> Option<Figure>,
    before: impl Fn(&ComparedMonth) -> Option<Figure>,
) -> Markup {
    let sentences: Vec<String> = compared(shown)
        .into_iter()
        .filter_map(|(name, month)| Some(words::change(now(month)?, before(month)?, more, fewer, &name)))
        .collect();
    html! { @if !sentences.is_empty() { ul.changes { @for sentence in sentences { li { (sentence) } } } } }
}

/// The period that the figures cover, what they are compared with, and whether they may still change.
fn standing(shown: &Shown<'_>) -> Markup {
    let report = shown.report;
    let names: Vec<String> = compared(shown).into_iter().map(|(name, _)| name).collect();
    let late = report.totals.late_views.unwrap_or(0);
    html! {
        p.note.standing {
            @if shown.is_running() {
                "The month is running: figures up to " (words::instant(report.period.to))
                @if names.is_empty() { ". " } @else {
                    ", compared with the same days of " (names.join(" and of ")) ". Visitors of a part of a month have no figure, so they are compared when it is over. "
                }
            } @else if report.period.closed {
                "Closed: these figures are final, and what visitors were estimated from is destroyed. "
                @if late > 0 { (words::counted(late, "view", "views")) " came after the close: they are counted, their readers are not. " }
            } @else if report.period.month.is_none() {
                (open_months(&report.months)) "Each month is counted in UTC and by itself. "
            } @else {
                (ClosesAfter::LateViews.sentence()) " "
            }
            @if names.is_empty() && report.period.month.is_some() { "There is no earlier month to compare with. " }
        }
    }
}

/// Which months of a range may still change.
fn open_months(months: &[MonthFigures]) -> String {
    let open: Vec<String> = months
        .iter()
        .filter(|month| !month.closed)
        .filter_map(|month| month.month.parse().ok().map(words::month))
        .collect();
    match &open[..] {
        [] => String::new(),
        [one] => format!("{one} is not closed yet: its figures may still grow. "),
        [first, second] => format!("{first} and {second} are not closed yet: their figures may still grow. "),
        more => format!("{} of the months are not closed yet: their figures may still grow. ", more.len()),
    }
}
