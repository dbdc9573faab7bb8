//! Reports as CSV (RFC 4180, UTF-8, a header row). An estimate has columns for its error and its unit.
//!
//! Spreadsheets execute cells that start like a formula. Texts in a report come from beacons, which anyone can send. A text that starts
//! like a formula gets an apostrophe in front, which spreadsheets read as "this is text".
//!
//! The spreadsheet decides where a cell starts: with semicolons or tabs as separators it splits quoted text, too. So every place at which a
//! text could be split counts as a start. Numbers stay numbers.

use crate::report::{BreakdownItem, DayFigures, HourFigures, MonthlyReport, PageFigures, PageVisitors, Visitors};
use crate::store::ProjectViews;
use chrono::{DateTime, SecondsFormat, Utc};

/// Separators at which a spreadsheet may split, besides commas: texts with commas are always quoted.
const SEPARATORS: [char; 5] = [';', '\t', '\r', '\n', '|'];

/// Characters that start a formula, also in full width, which some spreadsheets treat alike.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// Rows under a header.
struct Table(String);

impl Table {
    fn new(header: &[&str]) -> Self {
        let mut table = Table(String::new());
        table.row(header.iter().map(|name| (*name).to_owned()).collect());
        table
    }

    /// Quotes more than RFC 4180 requires: also texts that a separator other than the comma would split.
    fn bare() -> Self {
        Table(String::new())
    }

    fn row(&mut self, cells: Vec<String>) {
        for (at, cell) in cells.iter().enumerate() {
            if at > 0 {
                self.0.push(',');
            }
            if cell.contains([',', '"']) || cell.contains(SEPARATORS) {
                self.0.extend(["\"", &cell.replace('"', "\"\""), "\""]);
            } else {
                self.0.push_str(cell);
            }
        }
        self.0.push_str("\r\n");
    }

    fn text(self) -> String {
        self.0
    }
}

/// A text that no spreadsheet executes.
fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 1);
    if text.starts_with(['\t', '\r', '\n']) {
        out.push('\'');
    }
    let mut begins = true;
    for c in text.chars() {
        if begins && FORMULA.contains(&c) {
            out.push('\'');
        }
        // A spreadsheet may strip blanks and quotes before it checks for a formula.
        begins = SEPARATORS.contains(&c) || (begins && (c.is_whitespace() || c == '"'));
        out.push(c);
    }
    out
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn or_empty<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// estimate, error, unit.
fn visitors(visitors: Visitors) -> [String; 3] {
    [visitors.estimate.to_string(), visitors.error.to_string(), visitors.unit.name().to_owned()]
}

/// estimate, error, unit, fewer than.
fn page_visitors(figures: PageVisitors) -> [String; 4] {
    match figures {
        PageVisitors::Shown(shown) => {
            let [estimate, error, unit] = visitors(shown);
            [estimate, error, unit, String::new()]
        }
        PageVisitors::Few { fewer_than, unit } => {
            [String::new(), String::new(), unit.name().to_owned(), fewer_than.to_string()]
        }
    }
}

/// One row per page. Referrers of a page not found share one cell, as `host views` separated by ` | `: spreadsheets do not split there by
/// default.
pub fn pages(items: &[PageFigures], with_referrers: bool) -> String {
    pages_header(with_referrers) + &pages_rows(items, with_referrers)
}

/// The header of [`pages`].
pub(crate) fn pages_header(with_referrers: bool) -> String {
    let mut header = vec![
        "path",
        "status",
        "views",
        "visitors",
        "visitors_error",
        "visitors_unit",
        "visitors_fewer_than",
        "views_before",
        "change",
        "months_withheld",
    ];
    header.extend(with_referrers.then_some("referrers"));
    Table::new(&header).text()
}

/// The rows of [`pages`].
pub(crate) fn pages_rows(items: &[PageFigures], with_referrers: bool) -> String {
    let mut table = Table::bare();
    for page in items {
        let mut row = vec![text(&page.path), page.status.to_string(), page.views.to_string()];
        row.extend(page_visitors(page.visitors));
        let withheld = (page.months_withheld > 0).then_some(page.months_withheld);
        row.extend([or_empty(page.views_before), or_empty(page.change), or_empty(withheld)]);
        if with_referrers {
            let named = |item: &BreakdownItem| {
                let name = match (item.rest, item.value.as_str()) {
                    (true, _) => "(others)",
                    (false, "") => "(unknown)",
                    (false, value) => value,
                };
                format!("{name} {}", item.views)
            };
            row.push(text(&page.referrers.iter().map(named).collect::<Vec<_>>().join(" | ")));
        }
        table.row(row);
    }
    table.text()
}

/// One row per value; `rest` is true for the sum of the others.
pub fn breakdown(items: &[BreakdownItem]) -> String {
    let mut table = Table::new(&["value", "views", "rest"]);
    for item in items {
        table.row(vec![text(&item.value), item.views.to_string(), item.rest.to_string()]);
    }
    table.text()
}

/// One row per day.
pub fn days(items: &[DayFigures]) -> String {
    let mut table = Table::new(&["day", "views", "visits", "visitors", "visitors_error", "visitors_unit"]);
    for day in items {
        let mut row = vec![day.day.to_string(), day.views.to_string(), day.visits.to_string()];
        row.extend(visitors(day.visitors));
        table.row(row);
    }
    table.text()
}

/// One row per hour.
pub fn hours(items: &[HourFigures]) -> String {
    let mut table = Table::new(&["hour", "views", "visits"]);
    for hour in items {
        table.row(vec![instant(hour.hour), hour.views.to_string(), hour.visits.to_string()]);
    }
    table.text()
}

/// One row per project.
pub fn projects(items: &[ProjectViews]) -> String {
    let mut table = Table::new(&["project", "views_this_month", "views_last_month"]);
    for item in items {
        let views = [item.views_this_month.to_string(), item.views_last_month.to_string()];
        table.row([vec![text(item.project.as_str())], views.to_vec()].concat());
    }
    table.text()
}

/// The whole report in long form: one row per figure.
struct Long(Table);

impl Long {
    fn row(&mut self, [section, key, item, measure]: [&str; 4], value: String, [error, unit]: [String; 2]) {
        self.0.row(vec![section.to_owned(), text(key), text(item), measure.to_owned(), value, error, unit]);
    }

    fn number(&mut self, names: [&str; 4], value: impl ToString) {
        self.row(names, value.to_string(), [String::new(), String::new()]);
    }

    fn visitors(&mut self, [section, key, item]: [&str; 3], figure: Visitors) {
        let [estimate, error, unit] = visitors(figure);
        self.row([section, key, item, "visitors"], estimate, [error, unit]);
    }

    fn pages(&mut self, section: &str, items: &[PageFigures]) {
        for page in items {
            let status = page.status.to_string();
            let names = |measure| [section, page.path.as_str(), status.as_str(), measure];
            self.number(names("views"), page.views);
            match page.visitors {
                PageVisitors::Shown(shown) => self.visitors([section, &page.path, &status], shown),
                PageVisitors::Few { fewer_than, unit } => {
                    let unit = [String::new(), unit.name().to_owned()];
                    self.row(names("visitors_fewer_than"), fewer_than.to_string(), unit);
                }
            }
            if page.months_withheld > 0 {
                self.number(names("months_withheld"), page.months_withheld);
            }
            if let Some(before) = page.views_before {
                self.number(names("views_before"), before);
            }
            if let Some(change) = page.change {
                self.number(names("change"), change);
            }
            for item in &page.referrers {
                let names = ["referrers_of_not_found", page.path.as_str(), item.value.as_str()];
                self.number(
                    [names[0], names[1], names[2], if item.rest { "views_of_others" } else { "views" }],
                    item.views,
                );
            }
        }
    }
}

/// The whole report, one row per figure: section, key, item, measure, value, and for an estimate its error and unit. The first rows
/// describe the report. Lists of pages are those of the report. `week` is in the project's time zone, all else in UTC.
pub fn report(report: &MonthlyReport) -> String {
    let [pages, not_found] = [("pages", &report.pages), ("not_found", &report.not_found)]
        .map(|(section, list)| report_pages(section, &list.items));
    report_head(report) + &pages + &not_found + &report_tail(report)
}

/// The rows of [`report`] for one list of pages.
pub(crate) fn report_pages(section: &str, items: &[PageFigures]) -> String {
    let mut long = Long(Table::bare());
    long.pages(section, items);
    long.0.text()
}

/// The rows of [`report`] before its lists of pages, with the header.
pub(crate) fn report_head(report: &MonthlyReport) -> String {
    let mut long = Long(Table::new(&["section", "key", "item", "measure", "value", "error", "unit"]));
    let (period, totals) = (&report.period, &report.totals);
    long.number(["period", "", "", "project"], &report.project);
    long.number(["period", "", "", "span"], &period.span);
    long.number(["period", "", "", "from"], instant(period.from));
    long.number(["period", "", "", "to"], instant(period.to));
    long.number(["period", "", "", "closed"], period.closed);
    long.number(["period", "", "", "time_zone"], &report.time_zone);
    long.number(["period", "", "", "threshold"], report.threshold);
    long.number(["totals", "", "", "views"], totals.views);
    long.number(["totals", "", "", "visits"], totals.visits);
    long.number(["totals", "", "", "visits_up_to"], totals.visits_up_to);
    long.number(["totals", "", "", "visits_at_missing_pages"], totals.visits_at_missing_pages);
    long.visitors(["totals", "", ""], totals.visitors);
    if let Some(per_visitor) = totals.views_per_visitor {
        long.number(["totals", "", "", "views_per_visitor"], per_visitor);
    }
    if let Some(late) = totals.late_views {
        long.number(["totals", "", "", "late_views"], late);
    }
    for month in &report.months {
        long.number(["months", &month.month, "", "views"], month.views);
        long.number(["months", &month.month, "", "visits"], month.visits);
        long.visitors(["months", &month.month, ""], month.visitors);
        long.number(["months", &month.month, "", "closed"], month.closed);
    }
    let comparison =
        [("previous_month", &report.comparison.previous_month), ("previous_year", &report.comparison.previous_year)];
    for (key, compared) in comparison.into_iter().filter_map(|(key, month)| Some((key, month.as_ref()?))) {
        let names = |measure| ["comparison", key, compared.month.as_str(), measure];
        long.number(names("to"), instant(compared.to));
        long.number(names("views"), compared.views);
        long.number(names("visits"), compared.visits);
        if let Some(visitors) = compared.visitors {
            long.visitors(["comparison", key, &compared.month], visitors);
        }
        let changes = [
            ("views_change", compared.views_change),
            ("visits_change", compared.visits_change),
            ("visitors_change", compared.visitors_change),
        ];
        for (measure, change) in changes.into_iter().filter_map(|(measure, change)| Some((measure, change?))) {
            long.number(names(measure), change);
        }
    }
    for day in &report.days {
        let key = day.day.to_string();
        long.number(["days", &key, "", "views"], day.views);
        long.number(["days", &key, "", "visits"], day.visits);
        long.visitors(["days", &key, ""], day.visitors);
    }
    for hour in &report.hours {
        let key = instant(hour.hour);
        long.number(["hours", &key, "", "views"], hour.views);
        long.number(["hours", &key, "", "visits"], hour.visits);
    }
    const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
    for (day, hours) in DAYS.into_iter().zip(&report.week) {
        for (hour, views) in hours.iter().enumerate() {
            long.number(["week", day, &format!("{hour:02}"), "views"], views);
        }
    }
    long.0.text()
}

/// The rows of [`report`] after its lists of pages.
pub(crate) fn report_tail(report: &MonthlyReport) -> String {
    let (mut long, totals) = (Long(Table::bare()), &report.totals);
    for (dimension, items) in &report.breakdowns {
        for item in items {
            let measure = if item.rest { "views_of_others" } else { "views" };
            long.number(["breakdowns", dimension, &item.value, measure], item.views);
        }
    }
    for (class, views) in &totals.bots {
        long.number(["bots", class, "", "views"], views);
    }
    for of_kind in &report.robots.kinds {
        long.number(["robots", &of_kind.kind, "", "views_of_kind"], of_kind.views);
        for item in &of_kind.names {
            let measure = if item.rest { "views_of_others" } else { "views" };
            long.number(["robots", &of_kind.kind, &item.value, measure], item.views);
        }
    }
    for page in &report.robots.ai_pages {
        long.number(["ai_pages", &page.path, "", "views"], page.views);
    }
    for change in &report.robots.rules_changes {
        let day = change.day.to_string();
        long.number(["robot_rules", &day, "", "version_before"], change.from);
        long.number(["robot_rules", &day, "", "version"], change.to);
    }
    for page in &report.reported_missing {
        long.number(["reported_missing", &page.path, "", "reports"], page.reports);
    }
    for (reason, beacons) in &totals.rejected {
        long.number(["rejected", reason, "", "beacons"], beacons);
    }
    for of in &report.counted_by {
        long.number(["counted_by", of.source, "", "views"], of.views);
        long.number(["counted_by", of.source, "", "visits"], of.visits.name());
    }
    let masked = report.masked_pages;
    for (figure, count) in [("rows", masked.rows), ("views", masked.views)] {
        long.number(["masked_pages", "", "", figure], count);
    }
    for dropped in &report.dropped_facts {
        long.number(["dropped_facts", &dropped.fact, dropped.cause.name(), "views"], dropped.views);
    }
    for host in &report.rejected_hosts {
        let measure = if host.rest { "beacons_of_others" } else { "beacons" };
        long.number(["rejected_hosts", &host.reason, &host.host, measure], host.beacons);
    }
    long.0.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cells into which a spreadsheet splits a row at `separator`: quotes apply to cells that start with one.
    fn cells(row: &str, separator: char) -> Vec<String> {
        let (mut cells, mut quoted) = (vec![String::new()], false);
        for c in row.chars() {
            let cell = cells.last_mut().unwrap();
            match c {
                '"' if quoted || cell.is_empty() => quoted = !quoted,
                c if !quoted && (c == separator || c == '\n' || c == '\r') => cells.push(String::new()),
                c => cell.push(c),
            }
        }
        cells
    }

    #[test]
    fn no_cell_is_run_by_a_spreadsheet_whatever_it_splits_at() {
        let hostile = [
            "=1+1",
            "+1",
            "-1",
            "@SUM(A1)",
            "\tx",
            "\rx",
            "\t=1",
            "＝1+1",
            "＋1",
            "－1",
            "＠A1",
            " =1",
            "\"=1",
            "/a;=1",
            "/a; =1",
            "/a;\"=1",
            "/a\t+1",
            "/a\n-1",
            "/a\r\n@A1",
            "/a|=1",
            "/a;＝1",
            ";;=1",
            "a\";=1",
            "a\n\";\"=1",
            "/a;b;=1;-1",
        ];
        let page = |path: &str| PageFigures {
            path: path.to_owned(),
            status: 404,
            views: 9,
            visitors: PageVisitors::Few { fewer_than: 10, unit: crate::VisitorUnit::Visitors },
            months_withheld: 0,
            views_before: None,
            change: None,
            referrers: [path, "b"]
                .map(|value| BreakdownItem { value: value.to_owned(), views: 9, rest: false })
                .to_vec(),
        };
        for value in hostile {
            let values = breakdown(&[BreakdownItem { value: value.to_owned(), views: 1, rest: false }]);
            for written in [values, pages(&[page(value)], true)] {
                for separator in [',', ';', '\t', '|'] {
                    for cell in cells(&written, separator) {
                        let begins = cell.trim_start_matches(|c: char| c.is_whitespace() || c == '"');
                        assert!(!begins.starts_with(FORMULA), "{value:?} at {separator:?} is {cell:?} in {written:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn texts_stay_what_they_are_and_quotes_are_doubled() {
        let item = |value: &str, views| BreakdownItem { value: value.to_owned(), views, rest: false };
        let plain = ["/a-b+c=d@e", "/a;b", "/a,-b", "say \"x\"", "two\nlines", "ü", "a | b"];
        for value in plain {
            assert_eq!(text(value), value);
        }
        let written =
            breakdown(&[item("a,b", 2), item("say \"x\"", 3), item("two\nlines", 4), item("ü", 5), item("a;b", 6)]);
        assert_eq!(
            written,
            "value,views,rest\r\n\"a,b\",2,false\r\n\"say \"\"x\"\"\",3,false\r\n\"two\nlines\",4,false\r\nü,5,false\r\n\
             \"a;b\",6,false\r\n"
        );
    }

    #[test]
    fn numbers_are_numbers_and_what_is_withheld_is_empty() {
        let page = PageFigures {
            path: "/a".to_owned(),
            status: 200,
            views: 9,
            visitors: PageVisitors::Few { fewer_than: 10, unit: crate::VisitorUnit::Visitors },
            months_withheld: 0,
            views_before: Some(18),
            change: Some(-0.5),
            referrers: vec![],
        };
        let shown =
            PageVisitors::Shown(Visitors { estimate: 12, error: 0.0058, unit: crate::VisitorUnit::VisitorDays });
        let written = pages(&[page.clone(), PageFigures { visitors: shown, months_withheld: 2, ..page }], false);
        let rows: Vec<&str> = written.split("\r\n").collect();
        assert_eq!(rows[1], "/a,200,9,,,visitors,10,18,-0.5,");
        assert_eq!(rows[2], "/a,200,9,12,0.0058,visitor-days,,18,-0.5,2");
    }

    #[test]
    fn an_empty_list_is_a_header() {
        assert_eq!(hours(&[]), "hour,views,visits\r\n");
    }
}
