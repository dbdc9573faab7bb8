//! Every figure of the four months, read once: months, ranges, comparisons, the long form, validators and the list of projects.

use super::THRESHOLD;
use super::client::{ReportClient, number, same};
use super::known::{self, CLOCK, MONTHS, Truth};
use super::page_lists::{added_up, every_page_once};
use anyhow::{Context, Result, ensure};
use harness::http;
use harness::service::{Service, eventually};
use serde_json::Value;
use std::collections::BTreeMap;

/// Reports by month.
type Reports = BTreeMap<&'static str, Value>;

/// A complete report in long form, by its four names.
pub async fn long_form(reader: &mut ReportClient, span: &str) -> Result<BTreeMap<[String; 4], String>> {
    let (rows, _) = reader.csv(&format!("/v1/projects/docs/reports/{span}.csv")).await?;
    let mut figures = BTreeMap::new();
    for row in &rows {
        let names = ["section", "key", "item", "measure"].map(|column| row[column].clone());
        ensure!(figures.insert(names, row["value"].clone()).is_none(), "{row:?} twice");
    }
    Ok(figures)
}

/// The closed month predates schema version 10: a kind without names, and names without kinds.
fn robots_are_apart(report: &Value, is_closed: bool) -> Result<()> {
    let (robots, bots) = (&report["robots"], &report["totals"]["bots"]);
    let kinds = robots["kinds"].as_array().context("kinds")?;
    let sum: u64 = kinds.iter().filter_map(|kind| kind["views"].as_u64()).sum();
    ensure!(sum > 0 && robots["total"] == sum, "{robots}");
    if is_closed {
        ensure!(sum == 5 && kinds[0]["kind"] == "ai_crawler" && bots["ai_crawler"] == 5, "{robots} {bots}");
        return Ok(());
    }
    let of = |name: &str| kinds.iter().find(|kind| kind["kind"] == name).cloned().unwrap_or_default();
    let [search, training, assistant] = ["search", "ai_training", "ai_assistant"].map(of);
    ensure!(search["views"] == training["views"] && bots["search"] == search["views"], "{robots} {bots}");
    let name = if training["views"].as_u64() >= Some(THRESHOLD) { "GPTBot" } else { "other" };
    ensure!(training["names"][0]["value"] == name && training["names"][0]["views"] == training["views"], "{robots}");
    let of_ai = training["views"].as_u64().zip(assistant["views"].as_u64()).map(|(first, second)| first + second);
    ensure!(bots["ai_crawler"].as_u64() == of_ai, "{robots} {bots}");
    let pages: Vec<_> = robots["ai_pages"].as_array().into_iter().flatten().map(|page| &page["path"]).collect();
    ensure!(pages == ["/ai_training", "/ai_assistant"], "{robots}");
    ensure!(robots["ai_pages"][0]["views"] == training["views"], "{robots}");
    Ok(())
}

/// A month's report equals its truth, and its lists equal the report.
async fn month_adds_up(reader: &mut ReportClient, month: &str, truth: &Truth) -> Result<Value> {
    let report = reader.json(&format!("/v1/projects/docs/reports/{month}?pages_limit=1000")).await?;
    ensure!(report["totals"]["views"] == truth.views && report["totals"]["visits"] == truth.visits, "{month}");
    ensure!(report["period"]["closed"] == (month == MONTHS[0]), "{}", report["period"]);
    robots_are_apart(&report, month == MONTHS[0]).with_context(|| format!("robots of {month}"))?;
    let week: u64 = report["week"]
        .as_array()
        .context("week")?
        .iter()
        .flat_map(|day| day.as_array().into_iter().flatten())
        .filter_map(Value::as_u64)
        .sum();
    ensure!(week == truth.views, "{month}: {week} views in the week");
    let mut truly: Vec<u64> = truth.versions.values().copied().filter(|views| *views >= THRESHOLD).collect();
    truly.sort_unstable();
    let told = report["breakdowns"]["version"].as_array().context("versions")?;
    let sum: u64 = told.iter().filter_map(|item| item["views"].as_u64()).sum();
    ensure!(sum == truth.views && told.last().is_some_and(|item| item["rest"] == true), "{month}: {told:?}");
    ensure!(told.len() <= truly.len() + 1, "{month}: small ones are told");
    every_page_once(reader, month, &truth.pages).await?;
    values_in_parts(reader, month, told).await?;
    for list in ["days", "hours"] {
        let path = format!("/v1/projects/docs/reports/{month}/{list}");
        let items = reader.json(&path).await?["items"].take();
        ensure!(items == report[list], "{month}: {list}");
        same(items.as_array().context("items")?, &reader.csv(&format!("{path}.csv")).await?.0)?;
    }
    let page = reader.get(&format!("/projects/docs/{month}"), &[]).await?;
    ensure!(page.status == 200, "the page: {}", page.status);
    Ok(report)
}

/// The values of a dimension, in parts, by value and with a prefix.
async fn values_in_parts(reader: &mut ReportClient, month: &str, told: &[Value]) -> Result<()> {
    for limit in [1, 3, 1000] {
        let values = reader.all(&format!("/v1/projects/docs/reports/{month}/breakdowns/version"), "", limit).await?;
        ensure!(values == told, "{month}: values by {limit}");
    }
    let list = format!("/v1/projects/docs/reports/{month}/breakdowns/version");
    let mut expected: Vec<Value> = told.iter().filter(|item| item["rest"] != true).cloned().collect();
    expected.sort_by_key(|item| item["value"].to_string());
    // The sum of other rows is last in each order, and has no prefix.
    ensure!(reader.all(&list, "&sort=value&prefix=%3d", 2).await? == expected, "{month}: by value, with a prefix");
    ensure!(reader.all(&list, "&prefix=x", 2).await?.is_empty(), "{month}: no value begins like that");
    expected.extend(told.last().cloned());
    ensure!(reader.all(&list, "&sort=value", 3).await? == expected, "{month}: by value");
    Ok(())
}

fn hosts_are_listed(reports: &Reports) -> Result<()> {
    let hosts = &reports[MONTHS[1]]["rejected_hosts"];
    ensure!(hosts[0]["host"] == "mirror.example" && hosts[0]["rest"].is_null(), "{hosts}");
    ensure!(!hosts.to_string().contains("localhost"), "a host of few beacons may be one reader's: {hosts}");
    ensure!(reports[MONTHS[0]]["totals"]["rejected"]["foreign_host"] == 32, "of the closed month");
    Ok(())
}

/// With whole months, and of the running one with as many hours.
fn comparisons_are_exact(reports: &Reports, truths: &BTreeMap<&'static str, Truth>) -> Result<()> {
    let with = &reports[MONTHS[2]]["comparison"];
    ensure!(with["previous_year"].is_null(), "{with}");
    ensure!(with["previous_month"]["views"] == truths[MONTHS[1]].views, "{with}");
    ensure!(with["previous_month"]["visitors"] == reports[MONTHS[1]]["totals"]["visitors"], "{with}");
    let with = &reports[MONTHS[1]]["comparison"]["previous_month"];
    ensure!(with["visitors"] == reports[MONTHS[0]]["totals"]["visitors"], "with a closed month: {with}");
    let with = &reports[MONTHS[3]]["comparison"]["previous_month"];
    ensure!(with["to"] == "2026-02-02T10:00:00Z" && with["visitors"].is_null(), "{with}");
    let early: u64 = reports[MONTHS[2]]["hours"]
        .as_array()
        .context("hours")?
        .iter()
        .take(34)
        .filter_map(|hour| hour["views"].as_u64())
        .sum();
    ensure!(with["views"] == early, "{with}, truly {early}");
    Ok(())
}

/// A range is the sum of its months.
async fn range_adds_up(
    reader: &mut ReportClient,
    reports: &Reports,
    truths: &BTreeMap<&'static str, Truth>,
    (first, last): (usize, usize),
) -> Result<()> {
    let span = format!("{}..{}", MONTHS[first], MONTHS[last]);
    let report = reader.json(&format!("/v1/projects/docs/reports/{span}")).await?;
    let months = || MONTHS[first..=last].iter().map(|month| &reports[month]);
    for figure in ["views", "visits"] {
        let sum: u64 = months().filter_map(|month| month["totals"][figure].as_u64()).sum();
        ensure!(report["totals"][figure] == sum, "{span}: {figure}");
    }
    let visitors: u64 = months().filter_map(|month| month["totals"]["visitors"]["estimate"].as_u64()).sum();
    ensure!(report["totals"]["visitors"]["estimate"] == visitors, "{span}: {}", report["totals"]);
    for list in ["days", "hours"] {
        let all: Vec<Value> = months().flat_map(|month| month[list].as_array().cloned().unwrap_or_default()).collect();
        ensure!(report[list] == Value::from(all), "{span}: {list}");
    }
    if first < last {
        ensure!(report["totals"]["visitors"]["unit"] == "visitor-months", "{span}: {}", report["totals"]);
        let told: Vec<&str> =
            report["months"].as_array().context("months")?.iter().filter_map(|month| month["month"].as_str()).collect();
        ensure!(told == MONTHS[first..=last], "{span}: {told:?}");
        every_page_once(reader, &span, &added_up(MONTHS[first..=last].iter().map(|month| &truths[month]))).await?;
    }
    versions_add_up(&report, months(), &span)
}

fn versions_add_up<'a>(report: &Value, months: impl Iterator<Item = &'a Value>, span: &str) -> Result<()> {
    let mut versions: BTreeMap<(bool, String), u64> = BTreeMap::new();
    for item in months.flat_map(|month| month["breakdowns"]["version"].as_array().into_iter().flatten()) {
        let name = (item["rest"] == true, item["value"].as_str().context("value")?.to_owned());
        *versions.entry(name).or_default() += number(&item["views"])?;
    }
    let told = report["breakdowns"]["version"].as_array().context("versions")?;
    ensure!(told.len() == versions.len(), "{span}: {told:?}");
    for item in told {
        let name = (item["rest"] == true, item["value"].as_str().context("value")?.to_owned());
        ensure!(versions.get(&name) == item["views"].as_u64().as_ref(), "{span}: {item}, months say {versions:?}");
    }
    Ok(())
}

/// The whole report as CSV.
async fn long_form_is_the_report(reader: &mut ReportClient, span: &str) -> Result<()> {
    let report = reader.json(&format!("/v1/projects/docs/reports/{span}")).await?;
    let figures = long_form(reader, span).await?;
    let told = |names: [&str; 4]| figures.get(&names.map(str::to_owned)).map(String::as_str);
    ensure!(told(["totals", "", "", "views"]) == Some(&report["totals"]["views"].to_string()), "{span}");
    ensure!(
        told(["totals", "", "", "visitors"]) == Some(&report["totals"]["visitors"]["estimate"].to_string()),
        "{span}"
    );
    for day in report["days"].as_array().context("days")? {
        let name = day["day"].as_str().context("day")?;
        ensure!(told(["days", name, "", "views"]) == Some(&day["views"].to_string()), "{span}: {day}");
    }
    for (section, list) in [("pages", "pages"), ("not_found", "not_found")] {
        for page in report[list]["items"].as_array().context("items")? {
            let names = [section, page["path"].as_str().context("path")?, &page["status"].to_string(), "views"];
            ensure!(told(names) == Some(&page["views"].to_string()), "{span}: {page}");
        }
    }
    ensure!(told(["breakdowns", "version", "'=0.0", "views"]).is_some() || span != MONTHS[0], "a formula is text");
    Ok(())
}

/// Validators, and HEAD.
async fn responses_have_validators(reader: &mut ReportClient) -> Result<()> {
    for path in ["", ".csv?pages_limit=9", "/pages", "/pages.csv?limit=9", "/days", "/hours.csv", "/not-found"] {
        let path = format!("/v1/projects/docs/reports/{}{path}", MONTHS[1]);
        let first = reader.get(&path, &[]).await?;
        let tag = first.headers["etag"].to_str()?.to_owned();
        ensure!(tag.starts_with('"') && first.headers["cache-control"] == "private, no-cache", "{path}: {tag}");
        let again = reader.get(&path, &[("if-none-match", &tag)]).await?;
        ensure!(
            again.status == 304 && again.body.is_empty() && again.headers["etag"] == tag.as_str(),
            "{path}: {again:?}"
        );
        let other = reader.get(&path, &[("if-none-match", "\"x\"")]).await?;
        ensure!(other.status == 200 && other.body == first.body, "{path}");
        let head = reader.connection.send("HEAD", &path, &[], "").await?;
        ensure!(head.status == 200 && head.body.is_empty() && head.headers["etag"] == tag.as_str(), "{path}: {head:?}");
        ensure!(head.headers["content-length"].to_str()?.parse::<usize>()? == first.body.len(), "{path}");
    }
    Ok(())
}

async fn streams_have_no_validator(reader: &mut ReportClient) -> Result<()> {
    for path in [".csv", "/pages.csv", "/not-found.csv"] {
        let path = format!("/v1/projects/docs/reports/{}{path}", MONTHS[1]);
        let (first, again) = (reader.get(&path, &[]).await?, reader.get(&path, &[("if-none-match", "*")]).await?);
        ensure!(again.status == 200 && again.body == first.body, "{path}");
        let head = reader.connection.send("HEAD", &path, &[], "").await?;
        ensure!(head.status == 200 && head.body.is_empty(), "{path}: {head:?}");
        for answer in [first, head] {
            let names = ["etag", "content-length", "headcount-next"];
            ensure!(names.into_iter().all(|name| !answer.headers.contains_key(name)), "{path}: {:?}", answer.headers);
            ensure!(answer.headers["cache-control"] == "private, no-cache", "{path}: {:?}", answer.headers);
        }
    }
    Ok(())
}

async fn forms_are_negotiated(reader: &mut ReportClient) -> Result<()> {
    for path in ["/v1/nothing", "/v1/", "/v1/projects/docs/nothing", "/v1/projects/docs/reports/2026-01.csv/pages.csv"]
    {
        let answer = reader.get(path, &[]).await?;
        ensure!(answer.headers["content-type"] == "application/problem+json", "{path}: {answer:?}");
        ensure!([400, 404].contains(&answer.status.as_u16()), "{path}: {answer:?}");
    }
    let days = format!("/v1/projects/docs/reports/{}/days", MONTHS[1]);
    let (accepted, suffix) =
        (reader.get(&days, &[("accept", "text/csv")]).await?, reader.get(&format!("{days}.csv"), &[]).await?);
    ensure!(
        accepted.body == suffix.body && accepted.headers["content-type"].to_str()?.starts_with("text/csv"),
        "accept"
    );
    Ok(())
}

/// Projects, in pages; the list has those that the caller may read.
async fn projects_are_listed(service: &Service, truths: &BTreeMap<&'static str, Truth>) -> Result<()> {
    let token = service.token(None).await?;
    let mut projects = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/projects?limit=1{after}");
        let page = eventually("the token to be in force", async || {
            let answer = http::get_as(service.address(), &path, &token).await?;
            ensure!(answer.status == 200, "{path}: {}", answer.status);
            answer.json()
        })
        .await?;
        projects.extend(page["items"].as_array().context("items")?.clone());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    let told: Vec<(&str, Option<u64>, Option<u64>)> = projects
        .iter()
        .map(|of| {
            (
                of["project"].as_str().unwrap_or_default(),
                of["views_this_month"].as_u64(),
                of["views_last_month"].as_u64(),
            )
        })
        .collect();
    let truly = [("docs", Some(truths[MONTHS[3]].views), Some(truths[MONTHS[2]].views)), ("empty", Some(0), Some(0))];
    ensure!(told == truly, "{told:?}, truly {truly:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_can_be_read_once_and_adds_up() -> Result<()> {
    let arguments = ["--clock-start", CLOCK, "--close-after-hours", "720"];
    let service = Service::started(&arguments, &[("docs", "docs.example"), ("empty", "empty.example")]).await?;
    let truths = known::write(&service.clickhouse()?).await?;
    let mut reader = ReportClient::of(&service).await?;
    let mut reports = Reports::new();
    for month in MONTHS {
        reports.insert(month, month_adds_up(&mut reader, month, &truths[month]).await?);
    }
    hosts_are_listed(&reports)?;
    comparisons_are_exact(&reports, &truths)?;
    for months in [(0, 1), (1, 2), (0, 3), (2, 2)] {
        range_adds_up(&mut reader, &reports, &truths, months).await?;
    }
    for span in [MONTHS[0].to_owned(), MONTHS[2].to_owned(), format!("{}..{}", MONTHS[0], MONTHS[3])] {
        long_form_is_the_report(&mut reader, &span).await?;
    }
    responses_have_validators(&mut reader).await?;
    streams_have_no_validator(&mut reader).await?;
    forms_are_negotiated(&mut reader).await?;
    projects_are_listed(&service, &truths).await
}
