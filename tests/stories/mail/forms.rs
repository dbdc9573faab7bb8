//! The figures that each format of a report must contain, one by one, compared with the JSON.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeSet;

const WEEK: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn grouped(number: &Value) -> String {
    let number = number.as_u64().unwrap_or(u64::MAX);
    if number < 1000 { number.to_string() } else { format!("{},{:03}", number / 1000, number % 1000) }
}

/// `35 ± 1`, or `under 10`.
fn visitors(of: &Value) -> String {
    match (of["estimate"].as_u64(), of["error"].as_f64()) {
        (Some(estimate), Some(error)) => format!("{} ± {}", grouped(&of["estimate"]), (estimate as f64 * error).ceil()),
        _ => format!("under {}", of["fewer_than"]),
    }
}

/// A CSV's rows, without the order.
#[derive(Default)]
struct CsvRows(BTreeSet<Vec<String>>);

/// 1.0 and 1 are the same number.
fn plain(cell: &str) -> String {
    cell.parse::<f64>().map_or_else(|_| cell.to_owned(), |number| number.to_string())
}

impl CsvRows {
    fn row(&mut self, names: [&str; 4], value: &Value) {
        self.estimate(names, value, &Value::Null, &Value::Null);
    }

    fn estimate(&mut self, names: [&str; 4], value: &Value, error: &Value, unit: &Value) {
        let figures = [value, error, unit].map(|cell| plain(&text(cell)));
        self.0.insert(names.map(str::to_owned).into_iter().chain(figures).collect());
    }

    /// The fields of a JSON value, name by name; nulls have no row.
    fn all(&mut self, [section, key, item]: [&str; 3], of: &Value, names: &[&str]) {
        for name in names.iter().filter(|name| !of[**name].is_null()) {
            let figure = &of[*name];
            match (&figure["estimate"], &figure["fewer_than"]) {
                (Value::Null, Value::Null) => self.row([section, key, item, name], figure),
                (Value::Null, few) => {
                    self.estimate([section, key, item, "visitors_fewer_than"], few, &Value::Null, &figure["unit"]);
                }
                (estimate, _) => self.estimate([section, key, item, name], estimate, &figure["error"], &figure["unit"]),
            }
        }
    }
}

/// `one`, or `rest` for the sum of other items.
fn of_rest(item: &Value, one: &'static str, rest: &'static str) -> &'static str {
    if item["rest"] == true { rest } else { one }
}

/// Every figure has its row, and there are no other rows.
pub fn csv(report: &Value, written: &str) -> Result<()> {
    let mut found = CsvRows::default();
    for row in csv::Reader::from_reader(written.as_bytes()).records() {
        let row: Vec<String> =
            row?.iter().enumerate().map(|(at, cell)| if at < 4 { cell.to_owned() } else { plain(cell) }).collect();
        ensure!(found.0.insert(row.clone()), "{row:?} twice");
    }
    let mut expected = CsvRows::default();
    figures_in_csv(report, &mut expected);
    values_in_csv(report, &mut expected);
    rest_in_csv(report, &mut expected);
    let differ: Vec<_> = found.0.symmetric_difference(&expected.0).collect();
    ensure!(differ.is_empty(), "CSV and JSON differ in {differ:?}");
    Ok(())
}

fn figures_in_csv(report: &Value, rows: &mut CsvRows) {
    rows.all(["period", "", ""], report, &["project", "time_zone", "threshold"]);
    rows.all(["period", "", ""], &report["period"], &["span", "from", "to", "closed"]);
    let totals =
        ["views", "visits", "visits_up_to", "visits_at_missing_pages", "visitors", "views_per_visitor", "late_views"];
    rows.all(["totals", "", ""], &report["totals"], &totals);
    for month in items(&report["months"]) {
        rows.all(["months", &text(&month["month"]), ""], month, &["views", "visits", "visitors", "closed"]);
    }
    for (which, with) in members(&report["comparison"]) {
        let names = ["to", "views", "visits", "visitors", "views_change", "visits_change", "visitors_change"];
        rows.all(["comparison", which, &text(&with["month"])], with, &names);
    }
    for day in items(&report["days"]) {
        rows.all(["days", &text(&day["day"]), ""], day, &["views", "visits", "visitors"]);
    }
    for hour in items(&report["hours"]) {
        rows.all(["hours", &text(&hour["hour"]), ""], hour, &["views", "visits"]);
    }
    for list in ["pages", "not_found"] {
        for page in items(&report[list]["items"]) {
            let (path, status) = (text(&page["path"]), text(&page["status"]));
            rows.all([list, &path, &status], page, &["views", "visitors", "views_before", "change"]);
        }
    }
}

fn values_in_csv(report: &Value, rows: &mut CsvRows) {
    for (day, hours) in WEEK.iter().zip(items(&report["week"])) {
        for (hour, views) in items(hours).enumerate() {
            rows.row(["week", day, &format!("{hour:02}"), "views"], views);
        }
    }
    for page in items(&report["not_found"]["items"]) {
        for item in items(&page["referrers"]) {
            let measure = of_rest(item, "views", "views_of_others");
            let (path, value) = (text(&page["path"]), text(&item["value"]));
            rows.row(["referrers_of_not_found", &path, &value, measure], &item["views"]);
        }
    }
    for (dimension, values) in members(&report["breakdowns"]) {
        for item in items(values) {
            let measure = of_rest(item, "views", "views_of_others");
            rows.row(["breakdowns", dimension, &text(&item["value"]), measure], &item["views"]);
        }
    }
    for (class, views) in members(&report["totals"]["bots"]) {
        rows.row(["bots", class, "", "views"], views);
    }
}

fn rest_in_csv(report: &Value, rows: &mut CsvRows) {
    for of_kind in items(&report["robots"]["kinds"]) {
        let kind = text(&of_kind["kind"]);
        rows.row(["robots", &kind, "", "views_of_kind"], &of_kind["views"]);
        for item in items(&of_kind["names"]) {
            let measure = of_rest(item, "views", "views_of_others");
            rows.row(["robots", &kind, &text(&item["value"]), measure], &item["views"]);
        }
    }
    for page in items(&report["robots"]["ai_pages"]) {
        rows.row(["ai_pages", &text(&page["path"]), "", "views"], &page["views"]);
    }
    for page in items(&report["reported_missing"]) {
        rows.row(["reported_missing", &text(&page["path"]), "", "reports"], &page["reports"]);
    }
    for (reason, beacons) in members(&report["totals"]["rejected"]) {
        rows.row(["rejected", reason, "", "beacons"], beacons);
    }
    for of in items(&report["counted_by"]) {
        rows.row(["counted_by", &text(&of["source"]), "", "views"], &of["views"]);
        rows.row(["counted_by", &text(&of["source"]), "", "visits"], &of["visits"]);
    }
    for figure in ["rows", "views"] {
        rows.row(["masked_pages", "", "", figure], &report["masked_pages"][figure]);
    }
    for dropped in items(&report["dropped_facts"]) {
        rows.row(["dropped_facts", &text(&dropped["fact"]), &text(&dropped["cause"]), "views"], &dropped["views"]);
    }
    for host in items(&report["rejected_hosts"]) {
        let measure = of_rest(host, "beacons", "beacons_of_others");
        rows.row(["rejected_hosts", &text(&host["reason"]), &text(&host["host"]), measure], &host["beacons"]);
    }
}

/// The rows of the table below a heading; none if there is no such heading.
fn table(markdown: &str, heading: &str) -> Vec<Vec<String>> {
    let section = markdown.split("\n## ").find_map(|section| section.strip_prefix(&format!("{heading}\n")));
    let rows = section.unwrap_or_default().lines().filter(|line| line.starts_with("| "));
    let cells = |row: &str| row.trim_matches(['|', ' ']).split(" | ").map(|cell| cell.replace('\\', "")).collect();
    rows.skip(1).map(cells).collect()
}

/// Starts of the sentences on how many views were counted without each fact.
fn without_facts(report: &Value) -> Vec<String> {
    let sentence = |of: &Value| {
        let were = if of["views"] == 1 { "view was" } else { "views were" };
        format!("{} {were} counted ", grouped(&of["views"]))
    };
    items(&report["dropped_facts"]).map(sentence).collect()
}

/// The visits, which may be an upper bound.
fn visits(totals: &Value) -> String {
    format!("{}{}", if totals["visits_up_to"] == true { "up to " } else { "" }, grouped(&totals["visits"]))
}

/// Trackers and their views, if there are several.
fn trackers(report: &Value) -> Vec<Vec<String>> {
    let row = |of: &Value| {
        let name = match text(&of["source"]).as_str() {
            "headcount" => "headcount's script or pixel".to_owned(),
            "plausible" => "Plausible's script".to_owned(),
            other => other.to_owned(),
        };
        vec![name, grouped(&of["views"])]
    };
    let rows: Vec<_> = items(&report["counted_by"]).map(row).collect();
    if rows.len() > 1 { rows } else { Vec::new() }
}

/// Every list is there, row by row.
pub fn markdown(report: &Value, written: &str) -> Result<()> {
    let totals = &report["totals"];
    for (name, figure) in [
        ("Views", grouped(&totals["views"])),
        ("Visitors", visitors(&totals["visitors"])),
        ("Visits", visits(totals)),
        ("Of the visits, at missing pages", grouped(&totals["visits_at_missing_pages"])),
    ] {
        ensure!(figure == "0" || written.contains(&format!("\n| {name} | {figure} |\n")), "{name} {figure}: {written}");
    }
    let compare = |heading: &str, expected: Vec<Vec<String>>| {
        let told = table(written, heading);
        ensure!(told == expected, "{heading}:\n{told:?}\n{expected:?}");
        Ok(())
    };
    let change = |page: &Value| match page["change"].as_f64() {
        Some(change) => format!("{}{:.1}\u{a0}%", if change < 0.0 { "−" } else { "+" }, change.abs() * 100.0),
        None => "–".to_owned(),
    };
    let page = |page: &Value| {
        let from: Vec<String> = items(&page["referrers"])
            .map(|item| {
                let name = match (item["rest"] == true, text(&item["value"])) {
                    (true, _) => "others".to_owned(),
                    (_, host) if host == ":internal" => "own pages".to_owned(),
                    (_, host) if host.is_empty() => "unknown".to_owned(),
                    (_, host) => host,
                };
                format!("{name} {}", grouped(&item["views"]))
            })
            .collect();
        let from = if from.is_empty() { String::new() } else { format!(" (from {})", from.join(", ")) };
        vec![text(&page["path"]) + &from, grouped(&page["views"]), visitors(&page["visitors"]), change(page)]
    };
    compare("Pages", items(&report["pages"]["items"]).filter(|of| of["status"] != 404).map(page).collect())?;
    compare("Pages not found", items(&report["not_found"]["items"]).map(page).collect())?;
    // The names of robots are beneath their kinds.
    for (dimension, values) in members(&report["breakdowns"]).filter(|(dimension, _)| *dimension != "bot") {
        let row = |item: &Value| {
            let name = match (item["rest"] == true, text(&item["value"])) {
                (true, _) => "other".to_owned(),
                (_, value) if value.is_empty() && dimension == "referrer" => "direct".to_owned(),
                (_, value) if value.is_empty() => "unknown".to_owned(),
                (_, value) => value,
            };
            vec![name, grouped(&item["views"])]
        };
        compare(&format!("By {dimension}"), items(values).map(row).collect())?;
    }
    let named = |of: &Value| members(of).map(|(name, count)| vec![name.clone(), grouped(count)]).collect::<Vec<_>>();
    let robots = items(&report["robots"]["kinds"]).flat_map(|of_kind| {
        let name = |item: &Value| if item["rest"] == true { "other".to_owned() } else { text(&item["value"]) };
        let names = items(&of_kind["names"]);
        let names = names
            .map(|item| vec![kind_in_words(&of_kind["kind"]), name(item), grouped(&item["views"]), "–".to_owned()]);
        let all = vec![kind_in_words(&of_kind["kind"]), "all".to_owned(), grouped(&of_kind["views"]), change(of_kind)];
        std::iter::once(all).chain(names).collect::<Vec<_>>()
    });
    compare("Robots, not among the views", robots.collect())?;
    let fetched = items(&report["robots"]["ai_pages"]).map(|page| vec![text(&page["path"]), grouped(&page["views"])]);
    compare("Pages that AI fetches most", fetched.collect())?;
    compare("Refused beacons", named(&totals["rejected"]))?;
    compare("Counted by", trackers(report))?;
    for sentence in without_facts(report) {
        ensure!(written.contains(&format!("\n- {sentence}")), "{sentence}: {written}");
    }
    let host = |of: &Value| {
        let name = if of["rest"] == true { "others".to_owned() } else { text(&of["host"]) };
        vec![format!("{name} ({})", text(&of["reason"])), grouped(&of["beacons"])]
    };
    compare("Hosts of refused beacons", items(&report["rejected_hosts"]).map(host).collect())
}

/// The kinds of robots in this story, as pages and Markdown have them.
fn kind_in_words(kind: &Value) -> String {
    match kind.as_str() {
        Some("search") => "Search engines".to_owned(),
        Some("ai_training") => "AI training".to_owned(),
        other => other.unwrap_or_default().to_owned(),
    }
}

/// The text of a piece of HTML, without its tags.
fn words(html: &str) -> String {
    let parts = html.split('<').enumerate().map(|(at, part)| match at {
        0 => part,
        _ => part.split_once('>').map_or("", |(_, text)| text),
    });
    let text = parts.collect::<Vec<_>>().join(" ");
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The rows of a page's lists, as text.
struct HtmlRows(BTreeSet<String>);

impl HtmlRows {
    fn of(written: &str) -> Self {
        let mut rows = BTreeSet::new();
        for (begins, ends) in [("<li", "</li>"), ("<div class=\"row\"", "</div>"), ("<tr", "</tr>")] {
            rows.extend(
                written.split(begins).skip(1).filter_map(|rest| Some(words(&format!("<{}", rest.split_once(ends)?.0)))),
            );
        }
        HtmlRows(rows)
    }

    fn has(&self, row: String) -> Result<()> {
        ensure!(self.0.contains(row.trim()), "{row:?} is not among {:?}", self.0);
        Ok(())
    }

    fn has_start(&self, begins: &str) -> Result<()> {
        ensure!(self.0.iter().any(|row| row.starts_with(begins)), "{begins}: {:?}", self.0);
        Ok(())
    }
}

/// Every list is there, row by row.
pub fn html(report: &Value, written: &str) -> Result<()> {
    let rows = HtmlRows::of(written);
    let totals = &report["totals"];
    let whole = words(written);
    for figure in [
        format!("Views {} pages opened by people", grouped(&totals["views"])),
        format!("Visitors {} different readers", visitors(&totals["visitors"])),
        format!("Visits {} arrivals", visits(totals)),
        match &totals["visits_at_missing_pages"] {
            Value::Number(none) if none.as_u64() == Some(0) => String::new(),
            visits => format!("{} visits arrived at pages not found", grouped(visits)),
        },
    ] {
        ensure!(whole.contains(&figure), "{figure}");
    }
    times_in_html(report, &rows)?;
    pages_in_html(report, &rows)?;
    values_in_html(report, &rows)?;
    rest_in_html(report, &rows)
}

fn times_in_html(report: &Value, rows: &HtmlRows) -> Result<()> {
    for day in items(&report["days"]) {
        let date: chrono::NaiveDate = text(&day["day"]).parse()?;
        let (short, date) = (date.format("%A").to_string(), date.format("%-d %B"));
        let figures = [grouped(&day["views"]), grouped(&day["visits"]), visitors(&day["visitors"])].join(" ");
        rows.has(format!("{} {date} {figures}", short.get(..2).context("a day of the week")?))?;
    }
    for hour in 0..24 {
        let views: Vec<String> = items(&report["week"]).map(|day| grouped(&day[hour])).collect();
        rows.has(format!("{hour:02}:00 {}", views.join(" ")))?;
    }
    Ok(())
}

fn pages_in_html(report: &Value, rows: &HtmlRows) -> Result<()> {
    for page in items(&report["pages"]["items"]) {
        let change = match (page["change"].as_f64(), page["views_before"].as_u64()) {
            (Some(change), _) if (change * 100.0).abs().round() == 0.0 => "± 0 %".to_owned(),
            (Some(change), _) if change >= 1.0 => format!("× {:.1}", 1.0 + change),
            (Some(change), _) => {
                format!("{}{} %", if change < 0.0 { "−" } else { "+" }, (change.abs() * 100.0).round())
            }
            (None, Some(0)) => "new".to_owned(),
            (None, _) => String::new(),
        };
        let status = if page["status"] == 200 { String::new() } else { format!("{} ", page["status"]) };
        let (views, visitors) = (grouped(&page["views"]), visitors(&page["visitors"]));
        rows.has(format!("{} {status}{views} {visitors} {change}", text(&page["path"])))?;
    }
    for page in items(&report["not_found"]["items"]) {
        let from: Vec<String> = items(&page["referrers"])
            .map(|item| {
                let name = match (item["rest"] == true, text(&item["value"])) {
                    (true, _) => "other".to_owned(),
                    (_, host) if host == ":internal" => "from your own pages".to_owned(),
                    (_, host) if host.is_empty() => "direct or not told".to_owned(),
                    (_, host) => format!("from {host}"),
                };
                format!("{name} {}", grouped(&item["views"]))
            })
            .collect();
        rows.has(format!("{} {} {}", text(&page["path"]), grouped(&page["views"]), from.join(", ")))?;
    }
    Ok(())
}

fn values_in_html(report: &Value, rows: &HtmlRows) -> Result<()> {
    for (dimension, values) in members(&report["breakdowns"]).filter(|(dimension, _)| *dimension != "bot") {
        let blank = match dimension.as_str() {
            "version" => "No version told",
            "language" => "No language told",
            "referrer" => "Direct, or not told",
            _ => "Unknown",
        };
        for item in items(values) {
            let name = match (item["rest"] == true, text(&item["value"])) {
                (true, _) => "All others".to_owned(),
                (_, value) if value.is_empty() => blank.to_owned(),
                (_, value) => value,
            };
            rows.has(format!("{name} {}", grouped(&item["views"])))?;
        }
    }
    for of_kind in items(&report["robots"]["kinds"]) {
        let name = |item: &Value| if item["rest"] == true { "other".to_owned() } else { text(&item["value"]) };
        let names = items(&of_kind["names"]).map(|item| format!("{} {}", name(item), grouped(&item["views"])));
        let names = names.collect::<Vec<_>>().join(", ");
        rows.has(format!("{} {} {names}", kind_in_words(&of_kind["kind"]), grouped(&of_kind["views"])))?;
    }
    for page in items(&report["robots"]["ai_pages"]) {
        rows.has(format!("{} {}", text(&page["path"]), grouped(&page["views"])))?;
    }
    Ok(())
}

fn rest_in_html(report: &Value, rows: &HtmlRows) -> Result<()> {
    for tracker in trackers(report) {
        rows.has(tracker.join(" "))?;
    }
    for sentence in without_facts(report) {
        rows.has_start(&sentence)?;
    }
    let hosts = || items(&report["rejected_hosts"]);
    for host in hosts() {
        let name = if host["rest"] == true { "other hosts".to_owned() } else { text(&host["host"]) };
        let begins = format!("Beacons from {name} were refused {} times", grouped(&host["beacons"]));
        rows.has_start(&begins)?;
    }
    for (reason, beacons) in members(&report["totals"]["rejected"]) {
        let begins = format!("{} beacons refused.", grouped(beacons));
        let told = rows.0.iter().any(|row| row.starts_with(&begins) && row.ends_with(reason.as_str()));
        ensure!(told || hosts().any(|host| host["reason"] == reason.as_str()), "{begins} {reason}");
    }
    Ok(())
}
