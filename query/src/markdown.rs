//! The report as Markdown, which also reads as plain text: for a terminal, an issue, or the text part of a mail.

use crate::page::words::{self, number, percent};
use crate::report::{
    AiPage, BreakdownItem, ComparedMonth, DroppedFact, MonthlyReport, PageCounts, PageFigures, PageVisitors,
    RejectedHost, ReportedPage, RobotFigures, RobotKind, SourceViews, VisitorUnit, Visitors,
};
use schemas::classes::Dimension;
use std::fmt::Write as _;

/// Most rows of a list; if there are more, the text says so.
const SHOWN: usize = 25;

/// Untrusted text as Markdown: nothing in it is markup, and it stays on its line.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '~' | '!' | '&' => out.extend(['\\', c]),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

fn estimate(visitors: Visitors) -> String {
    format!("{} ± {}", number(visitors.estimate), number(visitors.plus_minus()))
}

fn of_page(page: &PageFigures) -> String {
    match page.visitors {
        PageVisitors::Shown(visitors) if page.months_withheld > 0 => {
            format!("{}, withheld in {} of the months", estimate(visitors), page.months_withheld)
        }
        PageVisitors::Shown(visitors) => estimate(visitors),
        PageVisitors::Few { fewer_than, .. } => format!("under {fewer_than}"),
    }
}

fn unit(unit: VisitorUnit) -> &'static str {
    match unit {
        VisitorUnit::Visitors => "Visitors",
        VisitorUnit::VisitorDays => "Visitor-days",
        VisitorUnit::VisitorMonths => "Visitor-months",
    }
}

/// `+12.0 %`, or a dash if there is nothing to compare with.
fn change(fraction: Option<f64>) -> String {
    fraction.map_or_else(
        || "–".to_owned(),
        |fraction| {
            let sign = if fraction < 0.0 { "−" } else { "+" };
            format!("{sign}{}", percent(fraction.abs()))
        },
    )
}

/// A table's rows under its header; the first column is text, the others are figures.
fn table(out: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    let _ = writeln!(out, "| {} |", header.join(" | "));
    let _ = writeln!(out, "|---|{}", "---:|".repeat(header.len().saturating_sub(1)));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
}

fn more(out: &mut String, items: usize, there: u64) {
    let shown = items.min(SHOWN) as u64;
    if shown < there {
        let _ = writeln!(out, "\nThe first {} of {}.", number(shown), number(there));
    }
}

fn compared(out: &mut String, month: Option<&ComparedMonth>, when: &str) {
    let Some(month) = month else { return };
    let _ = writeln!(
        out,
        "Against {}{} ({when}): views {} (then {}), visits {} (then {}), visitors {}.",
        month.month,
        // A running month is compared with a part of a month, and parts have no visitors.
        month.visitors.map_or_else(|| month.to.format(", up to %Y-%m-%d %H:%M").to_string(), |_| String::new()),
        change(month.views_change),
        number(month.views),
        change(month.visits_change),
        number(month.visits),
        change(month.visitors_change),
    );
}

fn pages(out: &mut String, heading: &str, items: &[&PageFigures], there: u64, of: VisitorUnit) {
    if there == 0 {
        return;
    }
    let _ = writeln!(out, "\n## {heading}\n");
    let row = |page: &&PageFigures| {
        let from = page.referrers.iter().map(|item| match (item.value.as_str(), item.rest) {
            (_, true) => format!("others {}", number(item.views)),
            (":internal", _) => format!("own pages {}", number(item.views)),
            ("", _) => format!("unknown {}", number(item.views)),
            (host, _) => format!("{} {}", plain(host), number(item.views)),
        });
        let from: Vec<String> = from.collect();
        let from = if from.is_empty() { String::new() } else { format!(" (from {})", from.join(", ")) };
        let path = format!("{}{from}", plain(&page.path));
        vec![path, number(page.views), of_page(page), change(page.change)]
    };
    table(out, &["Path", "Views", unit(of), "Change"], items.iter().take(SHOWN).map(row));
    more(out, items.len(), there);
}

fn reported_missing(out: &mut String, reported: &[ReportedPage]) {
    if reported.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n## Pages reported missing\n");
    let row = |page: &ReportedPage| vec![plain(&page.path), number(page.reports)];
    table(out, &["Path", "Reports"], reported.iter().take(SHOWN).map(row));
    more(out, reported.len(), reported.len() as u64);
}

fn robots(out: &mut String, robots: &RobotFigures) {
    if robots.total == 0 && robots.rules_changes.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n## Robots, not among the views\n");
    for change in &robots.rules_changes {
        let _ = writeln!(out, "{}\n", words::rules_change(change));
    }
    let of_kind = |kind: &RobotKind| {
        let name = |item: &BreakdownItem| match (item.value.as_str(), item.rest) {
            (_, true) => "other".to_owned(),
            ("", _) => "unknown".to_owned(),
            (name, _) => plain(name),
        };
        let names = kind.names.iter().take(SHOWN);
        let names = names
            .map(|item| vec![words::bot_class(&kind.kind).to_owned(), name(item), number(item.views), change(None)]);
        let all =
            vec![words::bot_class(&kind.kind).to_owned(), "all".to_owned(), number(kind.views), change(kind.change)];
        std::iter::once(all).chain(names).collect::<Vec<_>>()
    };
    table(out, &["Kind", "Name", "Views", "Change"], robots.kinds.iter().flat_map(of_kind));
    if !robots.ai_pages.is_empty() {
        let _ = writeln!(out, "\n## Pages that AI fetches most\n");
        let row = |page: &AiPage| vec![plain(&page.path), number(page.views)];
        table(out, &["Path", "Views"], robots.ai_pages.iter().map(row));
    }
}

fn breakdown(out: &mut String, dimension: &str, items: &[BreakdownItem]) {
    if items.is_empty() {
        return;
    }
    let counts = match dimension {
        "referrer" => "Visits",
        _ => "Views",
    };
    let _ = writeln!(out, "\n## By {dimension}\n");
    let name = |item: &BreakdownItem| match (item.value.as_str(), item.rest, dimension) {
        (_, true, _) => "other".to_owned(),
        ("", _, "referrer") => "direct".to_owned(),
        ("", ..) => "unknown".to_owned(),
        (value, ..) => plain(value),
    };
    table(out, &["Value", counts], items.iter().take(SHOWN).map(|item| vec![name(item), number(item.views)]));
    more(out, items.len(), items.len() as u64);
}

fn rejected_hosts(out: &mut String, hosts: &[RejectedHost]) {
    if hosts.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n## Hosts of refused beacons\n");
    let row = |of: &RejectedHost| {
        let host = match (of.host.as_str(), of.rest) {
            (_, true) => "others".to_owned(),
            ("", _) => "unknown".to_owned(),
            (host, _) => plain(host),
        };
        vec![format!("{host} ({})", plain(&of.reason)), number(of.beacons)]
    };
    table(out, &["Host (reason)", "Beacons"], hosts.iter().take(SHOWN).map(row));
    more(out, hosts.len(), hosts.len() as u64);
}

/// Not if all views are of headcount's own script.
fn counted_by(out: &mut String, sources: &[SourceViews]) {
    if !words::names_trackers(sources) {
        return;
    }
    let _ = writeln!(out, "\n## Counted by\n");
    let row = |of: &SourceViews| vec![words::source(of.source).to_owned(), number(of.views)];
    table(out, &["Tracker", "Views"], sources.iter().map(row));
    out.push('\n');
    for of in sources {
        let _ = writeln!(out, "- {}. {}", words::source(of.source), words::visit_rule(of.visits));
    }
}

fn dropped_facts(out: &mut String, facts: &[DroppedFact]) {
    if facts.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n## Views counted without a fact\n");
    for dropped in facts {
        let _ = writeln!(out, "- {}", plain(&words::dropped(dropped)));
    }
}

fn masked_pages(out: &mut String, report: &MonthlyReport) {
    if report.masked_pages.rows == 0 {
        return;
    }
    let _ = writeln!(out, "\n## Masked pages\n");
    let command = words::keep_command(report.project.as_str());
    let _ = writeln!(
        out,
        "{} To keep the paths of your own pages: `{command}`",
        plain(&words::masked(&report.masked_pages))
    );
}

/// The report. `counts` has the total number of pages, of which the first are shown.
pub fn report(report: &MonthlyReport, counts: PageCounts) -> String {
    let mut out = String::new();
    let totals = &report.totals;
    let state = if report.period.closed { "closed" } else { "open" };
    let _ = writeln!(out, "# {} · {}\n", report.project, report.period.span);
    let _ = writeln!(
        out,
        "{} to {} UTC, {state}.\n",
        report.period.from.format("%Y-%m-%d %H:%M"),
        report.period.to.format("%Y-%m-%d %H:%M")
    );
    if let Some(closes) = report.period.closes_after {
        let _ = writeln!(out, "{}\n", closes.sentence());
    }
    let mut rows = vec![
        vec!["Views".to_owned(), number(totals.views)],
        vec![unit(totals.visitors.unit).to_owned(), estimate(totals.visitors)],
        vec![
            "Visits".to_owned(),
            format!("{}{}", if totals.visits_up_to { "up to " } else { "" }, number(totals.visits)),
        ],
    ];
    if totals.visits_at_missing_pages > 0 {
        rows.push(vec!["Of the visits, at missing pages".to_owned(), number(totals.visits_at_missing_pages)]);
    }
    if let Some(each) = totals.views_per_visitor {
        rows.push(vec!["Views per visitor".to_owned(), words::tenths(each)]);
    }
    if let Some(late) = totals.late_views.filter(|late| *late > 0) {
        rows.push(vec!["Of the views, late".to_owned(), number(late)]);
    }
    table(&mut out, &["", "Figure"], rows.into_iter());
    out.push('\n');
    compared(&mut out, report.comparison.previous_month.as_ref(), "the month before");
    compared(&mut out, report.comparison.previous_year.as_ref(), "a year ago");
    if report.months.len() > 1 {
        let _ = writeln!(out, "\n## Months\n");
        let row = |month: &crate::report::MonthFigures| {
            vec![month.month.clone(), number(month.views), number(month.visits), estimate(month.visitors)]
        };
        table(&mut out, &["Month", "Views", "Visits", "Visitors"], report.months.iter().map(row));
    }
    let found: Vec<&PageFigures> = report.pages.items.iter().filter(|page| page.status != 404).collect();
    let missing: Vec<&PageFigures> = report.not_found.items.iter().collect();
    pages(&mut out, "Pages", &found, counts.pages.saturating_sub(counts.not_found), totals.visitors.unit);
    pages(&mut out, "Pages not found", &missing, counts.not_found, totals.visitors.unit);
    reported_missing(&mut out, &report.reported_missing);
    // The names of robots are listed with their kinds.
    for (dimension, items) in report.breakdowns.iter().filter(|(name, _)| **name != Dimension::Bot.name()) {
        breakdown(&mut out, dimension, items);
    }
    robots(&mut out, &report.robots);
    if !totals.rejected.is_empty() {
        let _ = writeln!(out, "\n## Refused beacons\n");
        let rows = totals.rejected.iter();
        table(&mut out, &["Reason", "Beacons"], rows.map(|(reason, count)| vec![plain(reason), number(*count)]));
    }
    rejected_hosts(&mut out, &report.rejected_hosts);
    counted_by(&mut out, &report.counted_by);
    dropped_facts(&mut out, &report.dropped_facts);
    masked_pages(&mut out, report);
    let _ = writeln!(
        out,
        "\n{} Visitors are estimates; ± is one standard deviation. {}\n\n\
         Lists end where they say so; all pages and values are at `/v1/projects/{}/reports/{}.csv` of the service that made this.",
        words::UNCOUNTED,
        words::threshold(report.threshold, "other"),
        report.project,
        report.period.span
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_write_is_no_markup() {
        assert_eq!(plain("/a|b`c`<img>\n# x"), "/a\\|b\\`c\\`\\<img\\> \\# x");
    }

    #[test]
    fn changes_have_a_sign() {
        assert_eq!(change(Some(0.25)), format!("+{}", percent(0.25)));
        assert_eq!(change(Some(-0.5)), format!("−{}", percent(0.5)));
        assert_eq!(change(None), "–");
    }
}
