//! When views came: the days of a month, the months of a range, the hours of the week.

use super::chart::{self, Column};
use super::{Shown, unit_words, words};
use crate::report::Visitors;
use chrono::{Datelike as _, NaiveDate, Weekday};
use maud::{Markup, html};
use schemas::Month;

const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Columns between two labels below a chart of days: a week.
const LABEL_EVERY: usize = 7;

fn visitors_words(visitors: Visitors) -> String {
    format!("{} ± {}", words::number(visitors.estimate), words::number(visitors.plus_minus()))
}

/// Views and visitors by day, with future days empty.
pub(super) fn days(shown: &Shown<'_>, month: Month) -> Markup {
    let report = shown.report;
    let unit = unit_words(report.totals.visitors.unit).0.to_lowercase();
    let first = month.first_hour().day().date();
    let slots = ((month.end_hour().0 - month.first_hour().0) / 24) as usize;
    let columns: Vec<Column> = first
        .iter_days()
        .take(slots.max(report.days.len()))
        .enumerate()
        .map(|(at, date)| {
            let day = report.days.get(at);
            Column {
                value: day.map_or(0, |day| day.views),
                inner: day.map_or(0, |day| day.visitors.estimate),
                label: at.is_multiple_of(LABEL_EVERY).then(|| date.day().to_string()),
                weekend: matches!(date.weekday(), Weekday::Sat | Weekday::Sun),
            }
        })
        .collect();
    let busiest = report.days.iter().max_by_key(|day| (day.views, std::cmp::Reverse(day.day)));
    let label = busiest.map_or_else(String::new, |day| {
        format!(
            "Views and visitors per day. Most on {}: {}.",
            weekday(day.day),
            words::counted(day.views, "view", "views")
        )
    });
    let top = chart::scale(&columns);
    html! {
        section.time {
            div.head {
                h2 { "Views per day" }
                p.legend { span.outer { "views" } span.inner { (unit) ", estimated" } span.weekend { "weekend" } }
            }
            p.axis { span { (words::number(top)) } span.readout {} }
            (chart::columns(&label, "days", &columns, top))
            details {
                summary { "The days as a table" }
                div.scroll tabindex="0" role="region" aria-label="The days as a table" {
                    table #days {
                        thead { tr { th scope="col" { "Day (UTC)" } th scope="col" { "Views" } th scope="col" { "Visits" } th scope="col" { (unit_words(report.totals.visitors.unit).0) } } }
                        tbody {
                            @for day in &report.days {
                                tr {
                                    th scope="row" { (short_weekday(day.day)) }
                                    td { (words::number(day.views)) }
                                    td { (words::number(day.visits)) }
                                    td { (visitors_words(day.visitors)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn weekday(date: NaiveDate) -> String {
    format!("{}, {}", WEEKDAYS[date.weekday().num_days_from_monday() as usize], words::day(date))
}

fn short_weekday(date: NaiveDate) -> String {
    format!("{:.2} {}", WEEKDAYS[date.weekday().num_days_from_monday() as usize], words::day(date))
}

/// The months of a range as columns.
pub(super) fn months(shown: &Shown<'_>) -> Markup {
    let report = shown.report;
    let named = |text: &str| text.parse::<Month>().map_or_else(|_| text.to_owned(), words::month);
    let months = &report.months;
    // As many labels as fit on a phone.
    let every = months.len().div_ceil(6).max(1);
    let columns: Vec<Column> = months
        .iter()
        .enumerate()
        .map(|(at, month)| Column {
            value: month.views,
            inner: month.visitors.estimate,
            label: at.is_multiple_of(every).then(|| month.month.parse().map(words::month_short).unwrap_or_default()),
            weekend: false,
        })
        .collect();
    let top = chart::scale(&columns);
    let busiest = months.iter().max_by_key(|month| month.views);
    let label = busiest.map_or_else(String::new, |month| {
        format!(
            "Views and visitors per month. Most in {}: {}.",
            named(&month.month),
            words::counted(month.views, "view", "views")
        )
    });
    html! {
        section.time {
            div.head {
                h2 { "Views per month" }
                p.legend { span.outer { "views" } span.inner { "visitors of the month, estimated" } }
            }
            p.axis { span { (words::number(top)) } span.readout {} }
            (chart::columns(&label, "months", &columns, top))
            div.scroll tabindex="0" role="region" aria-label="The months as a table" {
                table #months {
                    thead { tr { th scope="col" { "Month" } th scope="col" { "Views" } th scope="col" { "Visits" } th scope="col" { "Visitors" } th scope="col" { "State" } } }
                    tbody {
                        @for month in months {
                            tr {
                                th scope="row" {
                                    @if shown.alone { (named(&month.month)) }
                                    @else { a href=(format!("/projects/{}/{}", report.project, month.month)) { (named(&month.month)) } }
                                }
                                td { (words::number(month.views)) }
                                td { (words::number(month.visits)) }
                                td { (visitors_words(month.visitors)) }
                                td {
                                    @if month.closed { "closed" }
                                    @else if month.month == shown.running.to_string() { "running" }
                                    @else { "open" }
                                }
                            }
                        }
                    }
                }
            }
            p.note { "A visitor of two months counts in each: keys live for a month, so nobody can tell that it is one reader." }
        }
    }
}

/// Views by weekday and hour.
pub(super) fn week(shown: &Shown<'_>) -> Markup {
    let report = shown.report;
    let cells = (0..7).flat_map(|day| (0..24).map(move |hour| (day, hour)));
    let busiest = cells.max_by_key(|&(day, hour)| (report.week[day][hour], std::cmp::Reverse((day, hour))));
    let (day, hour) = busiest.unwrap_or_default();
    if report.week[day][hour] == 0 {
        return html! {};
    }
    let most = format!("Most on {}s between {hour:02}:00 and {:02}:00.", WEEKDAYS[day], hour + 1);
    html! {
        section.week {
            div.head {
                h2 { "Hours of the week" }
                p.unit { "views, " (zone(&report.time_zone)) }
            }
            p.note { span.readout { (most) } }
            div.heat {
                ol aria-hidden="true" { @for day in WEEKDAYS { li { (format!("{day:.2}")) } } }
                (chart::heat(&format!("Views by day of the week and hour. {most} The table below has the figures."), "hours", &report.week))
                p.ticks aria-hidden="true" { @for hour in ["0", "6", "12", "18", "24"] { span { (hour) } } }
            }
            details {
                summary { "The hours as a table" }
                div.scroll tabindex="0" role="region" aria-label="The hours as a table" {
                    table #hours {
                        thead { tr { th scope="col" { "Hour" } @for day in WEEKDAYS { th scope="col" { (day) } } } }
                        tbody {
                            @for hour in 0..24 {
                                tr {
                                    th scope="row" { (format!("{hour:02}:00")) }
                                    @for day in &report.week { td { (words::number(day[hour])) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn zone(name: &str) -> String {
    if name == "UTC" { "in UTC".to_owned() } else { format!("in the time of {}", name.replace('_', " ")) }
}
