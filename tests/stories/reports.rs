//! Reports of four months that are known in full, one of them closed and one running: every list paged through in every order, ranges
//! against their months, JSON against CSV, validators.

#[path = "reports/cached.rs"]
mod cached;
#[path = "reports/failures.rs"]
mod failures;
#[path = "reports/known.rs"]
mod known;

use anyhow::{Context, Result, ensure};
use harness::http::{self, Answer, Connection};
use harness::service::{Service, eventually};
use known::{CLOCK, MONTHS, Truth};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const FLOOR: u64 = 10;

/// A client of one service on one connection.
struct Reader {
    address: std::net::SocketAddr,
    connection: Connection,
}

impl Reader {
    async fn of(service: &Service) -> Result<Self> {
        let address = service.address();
        Ok(Reader { address, connection: Connection::open(address).await? })
    }

    /// Uses the open connection, or a new one if the service has closed it during a long step of the story.
    async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
        if self.connection.is_closed() {
            self.connection = Connection::open(self.address).await?;
        }
        self.connection.send("GET", path, headers, "").await
    }

    async fn json(&mut self, path: &str) -> Result<Value> {
        let answer = self.get(path, &[]).await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        answer.json()
    }

    /// The current figures, including rows that the story has just written.
    async fn computed_json(&mut self, path: &str) -> Result<Value> {
        let answer = self.get(path, &[("cache-control", "no-cache")]).await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        ensure!(answer.headers["cache-status"] == "headcount; fwd=miss", "{path}: {:?}", answer.headers);
        answer.json()
    }

    /// A CSV's rows as (column, cell), and the cursor of the next page.
    async fn csv(&mut self, path: &str) -> Result<(Vec<BTreeMap<String, String>>, Option<String>)> {
        let answer = self.get(path, &[]).await?;
        ensure!(answer.status == 200, "{path}: {} {}", answer.status, String::from_utf8_lossy(&answer.body));
        let text = String::from_utf8(answer.body.to_vec())?;
        ensure!(text.ends_with("\r\n"), "{path}: rows end with CR and LF");
        let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
        let header = reader.headers()?.clone();
        let mut rows = Vec::new();
        for row in reader.records() {
            rows.push(header.iter().map(str::to_owned).zip(row?.iter().map(str::to_owned)).collect());
        }
        let next = answer.headers.get("headcount-next").map(|next| next.to_str().map(str::to_owned)).transpose()?;
        Ok((rows, next))
    }

    /// All items of a list, `limit` at a time, as JSON and as CSV; both must be the same.
    async fn all(&mut self, list: &str, query: &str, limit: usize) -> Result<Vec<Value>> {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let query = format!("limit={limit}{query}{after}");
            let page = self.json(&format!("{list}?{query}")).await?;
            let items = page["items"].as_array().context("items")?;
            ensure!(items.len() <= limit, "{list}?{query}: {} items", items.len());
            let (rows, next) = self.csv(&format!("{list}.csv?{query}")).await?;
            ensure!(next.as_deref() == page["next"].as_str(), "{list}?{query}: CSV goes on elsewhere");
            same(items, &rows).with_context(|| format!("{list}?{query}"))?;
            found.extend(items.iter().cloned());
            match next {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(found),
            }
            ensure!(found.len() < 10_000, "{list}?{query} never ends");
        }
    }
}

/// A JSON list's figures and a CSV's.
fn same(items: &[Value], rows: &[BTreeMap<String, String>]) -> Result<()> {
    ensure!(items.len() == rows.len(), "{} items, {} rows", items.len(), rows.len());
    for (item, row) in items.iter().zip(rows) {
        let text = |value: &Value| match value {
            Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        for (column, cell) in row {
            let told = match column.as_str() {
                "visitors" => text(&item["visitors"]["estimate"]),
                "visitors_error" => text(&item["visitors"]["error"]),
                "visitors_unit" => text(&item["visitors"]["unit"]),
                "visitors_fewer_than" => text(&item["visitors"]["fewer_than"]),
                "rest" => (item["rest"] == true).to_string(),
                "referrers" => continue,
                column => text(&item[column]),
            };
            let number = |text: &str| text.parse::<f64>().ok();
            let alike = told == *cell || (number(&told).is_some() && number(&told) == number(cell));
            ensure!(alike, "{column}: {told:?} as JSON, {cell:?} as CSV");
        }
    }
    Ok(())
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("a number, not {value}"))
}

/// The sort key of a list: descending, and then by path and status.
fn key(sort: &str, page: &Value) -> (f64, f64, String, u64) {
    let figure = |value: &Value| value.as_f64().unwrap_or(f64::NEG_INFINITY);
    let path = page["path"].as_str().unwrap_or_default().to_owned();
    let status = page["status"].as_u64().unwrap_or_default();
    let views = figure(&page["views"]);
    match sort {
        "views" => (-views, 0.0, path, status),
        // Withheld figures are ordered by path only.
        "visitors" => (-figure(&page["visitors"]["estimate"]).max(0.0), 0.0, path, status),
        "change" => {
            let before = figure(&page["views_before"]);
            let growth = if before > 0.0 { (views - before) / before } else { -2.0 };
            (-growth, -views, path, status)
        }
        _ => (0.0, 0.0, path, status),
    }
}

async fn every_page_once(reader: &mut Reader, span: &str, truth: &BTreeMap<(String, u16), u64>) -> Result<()> {
    let list = format!("/v1/projects/docs/reports/{span}/pages");
    let single = !span.contains("..");
    for (sort, limit) in
        [("views", 7), ("views", 1000), ("path", 31), ("visitors", 13), ("visitors", 1000), ("change", 10)]
    {
        if sort == "change" && (!single || span == MONTHS[3]) {
            let refused = reader.get(&format!("{list}?sort=change"), &[]).await?;
            ensure!(refused.status == 400 && refused.json()?["field"] == "sort", "{span}: {refused:?}");
            continue;
        }
        let found = reader.all(&list, &format!("&sort={sort}"), limit).await?;
        let views: BTreeMap<(String, u16), u64> = found
            .iter()
            .map(|page| {
                let path = page["path"].as_str().context("path")?.to_owned();
                Ok(((path, u16::try_from(number(&page["status"])?)?), number(&page["views"])?))
            })
            .collect::<Result<_>>()?;
        ensure!(views.len() == found.len(), "{span} {sort}: a page came twice");
        ensure!(views == *truth, "{span} {sort}: {} pages, {} there are", views.len(), truth.len());
        for pair in found.windows(2) {
            let (a, b) = (key(sort, &pair[0]), key(sort, &pair[1]));
            ensure!(a < b, "{span} {sort}: {} comes before {}", pair[0], pair[1]);
        }
        for page in &found {
            let visitors = &page["visitors"];
            let told = visitors["estimate"].as_u64().is_some_and(|estimate| estimate >= FLOOR);
            ensure!(told || visitors["fewer_than"] == FLOOR, "{span}: {page}");
            ensure!(visitors["unit"] == if single { "visitors" } else { "visitor-months" }, "{span}: {page}");
        }
        if sort != "visitors" {
            let (rows, next) = reader.csv(&format!("{list}.csv?sort={sort}")).await?;
            ensure!(next.is_none(), "{span} {sort}: a whole list goes on");
            same(&found, &rows).with_context(|| format!("{span} {sort}: the whole list"))?;
        }
        let withheld = found.iter().filter(|page| page["visitors"]["estimate"].is_null()).count();
        ensure!(withheld > 10 && withheld < found.len() - 10, "{span}: {withheld} withheld, so the order is tried");
    }
    // Prefixes are text, not patterns; and they narrow, not reorder.
    for prefix in ["/en/", "/100%_", "/%", "/x_", "/ünï", "/nothing"] {
        let encoded: String = prefix.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let found = reader.all(&list, &format!("&prefix={encoded}"), 40).await?;
        let expected = truth.keys().filter(|(path, _)| path.starts_with(prefix)).count();
        same(&found, &reader.csv(&format!("{list}.csv?prefix={encoded}")).await?.0).context(prefix)?;
        ensure!(found.len() == expected, "{span} {prefix}: {} found, {expected} there are", found.len());
    }
    let list = format!("/v1/projects/docs/reports/{span}/not-found");
    let missing = reader.all(&list, "", 9).await?;
    for query in ["", "&sort=path", "&prefix=%2fen%2f"] {
        let (part, next) = reader.csv(&format!("{list}.csv?limit=1000{query}")).await?;
        let (whole, _) = reader.csv(&format!("{list}.csv?{query}")).await?;
        // Referrers, too.
        ensure!(next.is_none() && part == whole, "{span} {query}: {part:?} in parts, {whole:?}");
    }
    for sort in ["views", "path", "visitors", "change"] {
        if sort == "change" && (!single || span == MONTHS[3]) {
            ensure!(
                reader.get(&format!("{list}?sort=change"), &[]).await?.status == 400,
                "{span}: not found by change"
            );
            continue;
        }
        let found = reader.all(&list, &format!("&sort={sort}"), 5).await?;
        ensure!(found.len() == missing.len(), "{span} {sort}: {} not found", found.len());
        ensure!(found.windows(2).all(|pair| key(sort, &pair[0]) < key(sort, &pair[1])), "{span} {sort}: {found:?}");
    }
    let truly: BTreeSet<&str> =
        truth.keys().filter(|(_, status)| *status == 404).map(|(path, _)| path.as_str()).collect();
    ensure!(missing.iter().filter_map(|page| page["path"].as_str()).collect::<BTreeSet<_>>() == truly, "{span}");
    for page in &missing {
        let referrers = page["referrers"].as_array().context("referrers")?;
        let sum: u64 = referrers.iter().filter_map(|item| item["views"].as_u64()).sum();
        ensure!(sum == number(&page["views"])?, "{span}: {page}");
        // Views from own pages have no threshold.
        let sites: Vec<&Value> = referrers.iter().filter(|item| item["value"] != ":internal").collect();
        let small = sites.iter().filter(|item| item["views"].as_u64() < Some(FLOOR)).count();
        ensure!(small == 0 || sites.len() == 1 || !single, "{span}: {page}");
    }
    Ok(())
}

fn added_up<'a>(truths: impl Iterator<Item = &'a Truth>) -> BTreeMap<(String, u16), u64> {
    let mut sum = BTreeMap::new();
    for (page, views) in truths.flat_map(|truth| &truth.pages) {
        *sum.entry(page.clone()).or_default() += views;
    }
    sum
}

/// A complete report in long form, by its four names.
async fn long(reader: &mut Reader, span: &str) -> Result<BTreeMap<[String; 4], String>> {
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
    let name = if training["views"].as_u64() >= Some(FLOOR) { "GPTBot" } else { "other" };
    ensure!(training["names"][0]["value"] == name && training["names"][0]["views"] == training["views"], "{robots}");
    let of_ai = training["views"].as_u64().zip(assistant["views"].as_u64()).map(|(first, second)| first + second);
    ensure!(bots["ai_crawler"].as_u64() == of_ai, "{robots} {bots}");
    let pages: Vec<_> = robots["ai_pages"].as_array().into_iter().flatten().map(|page| &page["path"]).collect();
    ensure!(pages == ["/ai_training", "/ai_assistant"], "{robots}");
    ensure!(robots["ai_pages"][0]["views"] == training["views"], "{robots}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_can_be_read_once_and_adds_up() -> Result<()> {
    let arguments = ["--clock-start", CLOCK, "--close-after-hours", "720"];
    let service = Service::started(&arguments, &[("docs", "docs.example"), ("empty", "empty.example")]).await?;
    let truths = known::write(&service.clickhouse()?).await?;
    let mut reader = Reader::of(&service).await?;

    // Months.
    let mut reports = BTreeMap::new();
    for month in MONTHS {
        let report = reader.json(&format!("/v1/projects/docs/reports/{month}?pages_limit=1000")).await?;
        let truth = &truths[month];
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
        let mut truly: Vec<u64> = truth.versions.values().copied().filter(|views| *views >= FLOOR).collect();
        truly.sort_unstable();
        let told = report["breakdowns"]["version"].as_array().context("versions")?;
        let sum: u64 = told.iter().filter_map(|item| item["views"].as_u64()).sum();
        ensure!(sum == truth.views && told.last().is_some_and(|item| item["rest"] == true), "{month}: {told:?}");
        ensure!(told.len() <= truly.len() + 1, "{month}: small ones are told");
        every_page_once(&mut reader, month, &truth.pages).await?;
        for limit in [1, 3, 1000] {
            let values =
                reader.all(&format!("/v1/projects/docs/reports/{month}/breakdowns/version"), "", limit).await?;
            ensure!(values == *told, "{month}: values by {limit}");
        }
        let list = format!("/v1/projects/docs/reports/{month}/breakdowns/version");
        let mut expected: Vec<Value> = told.iter().filter(|item| item["rest"] != true).cloned().collect();
        expected.sort_by_key(|item| item["value"].to_string());
        // The sum of other rows is last in each order, and has no prefix.
        ensure!(reader.all(&list, "&sort=value&prefix=%3d", 2).await? == expected, "{month}: by value, with a prefix");
        ensure!(reader.all(&list, "&prefix=x", 2).await?.is_empty(), "{month}: no value begins like that");
        expected.extend(told.last().cloned());
        ensure!(reader.all(&list, "&sort=value", 3).await? == expected, "{month}: by value");
        for list in ["days", "hours"] {
            let path = format!("/v1/projects/docs/reports/{month}/{list}");
            let items = reader.json(&path).await?["items"].take();
            ensure!(items == report[list], "{month}: {list}");
            same(items.as_array().context("items")?, &reader.csv(&format!("{path}.csv")).await?.0)?;
        }
        let page = reader.get(&format!("/projects/docs/{month}"), &[]).await?;
        ensure!(page.status == 200, "the page: {}", page.status);
        reports.insert(month, report);
    }
    let hosts = &reports[MONTHS[1]]["rejected_hosts"];
    ensure!(hosts[0]["host"] == "mirror.example" && hosts[0]["rest"].is_null(), "{hosts}");
    ensure!(!hosts.to_string().contains("localhost"), "a host of few beacons may be one reader's: {hosts}");
    ensure!(reports[MONTHS[0]]["totals"]["rejected"]["foreign_host"] == 32, "of the closed month");

    // Comparison: with whole months, and of the running one with as many hours.
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

    // Ranges: sums of their months.
    for (first, last) in [(0, 1), (1, 2), (0, 3), (2, 2)] {
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
            let all: Vec<Value> =
                months().flat_map(|month| month[list].as_array().cloned().unwrap_or_default()).collect();
            ensure!(report[list] == Value::from(all), "{span}: {list}");
        }
        if first < last {
            ensure!(report["totals"]["visitors"]["unit"] == "visitor-months", "{span}: {}", report["totals"]);
            let told: Vec<&str> = report["months"]
                .as_array()
                .context("months")?
                .iter()
                .filter_map(|month| month["month"].as_str())
                .collect();
            ensure!(told == MONTHS[first..=last], "{span}: {told:?}");
            every_page_once(&mut reader, &span, &added_up(MONTHS[first..=last].iter().map(|month| &truths[month])))
                .await?;
        }
        let mut versions: BTreeMap<(bool, String), u64> = BTreeMap::new();
        for item in months().flat_map(|month| month["breakdowns"]["version"].as_array().into_iter().flatten()) {
            let name = (item["rest"] == true, item["value"].as_str().context("value")?.to_owned());
            *versions.entry(name).or_default() += number(&item["views"])?;
        }
        let told = report["breakdowns"]["version"].as_array().context("versions")?;
        ensure!(told.len() == versions.len(), "{span}: {told:?}");
        for item in told {
            let name = (item["rest"] == true, item["value"].as_str().context("value")?.to_owned());
            ensure!(versions.get(&name) == item["views"].as_u64().as_ref(), "{span}: {item}, months say {versions:?}");
        }
    }

    // The whole report as CSV.
    for span in [MONTHS[0].to_owned(), MONTHS[2].to_owned(), format!("{}..{}", MONTHS[0], MONTHS[3])] {
        let report = reader.json(&format!("/v1/projects/docs/reports/{span}")).await?;
        let figures = long(&mut reader, &span).await?;
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
    }

    // Validators, HEAD, and content negotiation.
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
    // Streamed responses have no validator.
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

    // Projects, in pages; the list has those that the caller may read.
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

/// More pages and values than any single response lists: a file that is read as a whole has all of them, and a truncated list states its full length.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_report_has_every_page_and_a_part_says_that_it_is_one() -> Result<()> {
    let (found, missing, values) = (1_200, 1_250, 1_100);
    let service = Service::started(&["--clock-start", CLOCK], &[("docs", "docs.example")]).await?;
    let client = service.clickhouse()?;
    known::write_many(&client, [found, missing, values]).await?;
    let mut reader = Reader::of(&service).await?;
    let span = MONTHS[2];
    let run =
        async |format: &str| service.done(&["report", "docs", span, "--format", format, "--clock-start", CLOCK]).await;

    let figures = long(&mut reader, span).await?;
    let of = |section: &str, measure: &str| {
        figures.keys().filter(|names| names[0] == section && names[3] == measure).count()
    };
    let lists = [
        (of("pages", "views"), found + missing),
        (of("not_found", "views"), missing),
        (of("referrers_of_not_found", "views"), missing),
        (figures.keys().filter(|names| names[..2] == ["breakdowns", "version"]).count(), values),
    ];
    ensure!(lists.iter().all(|(told, there)| *told as u64 == *there), "told and there: {lists:?}");
    let path = format!("/v1/projects/docs/reports/{span}.csv");
    let whole = String::from_utf8(reader.get(&path, &[]).await?.body.to_vec())?;
    ensure!(run("csv").await? == whole, "the command's CSV");
    let report: Value = serde_json::from_str(&run("json").await?)?;
    for (list, there) in [("pages", found + missing), ("not_found", missing)] {
        let items = report[list]["items"].as_array().context("items")?;
        ensure!(items.len() as u64 == there && report[list]["next"].is_null(), "{list}: {}", items.len());
        let pages = if list == "pages" { "/pages" } else { "/not-found" };
        let all = reader.all(&format!("/v1/projects/docs/reports/{span}{pages}"), "", 1000).await?;
        ensure!(*items == all, "{list}: the same in the same order");
    }
    ensure!(report["breakdowns"]["version"].as_array().map(Vec::len) == Some(values as usize), "values as JSON");

    // One status, and a part.
    let missing_only = reader.csv(&format!("{path}?pages_status=404")).await?.0;
    let listed = missing_only.iter().filter(|row| row["section"] == "pages" && row["measure"] == "views").count();
    ensure!(listed as u64 == missing, "{listed} of one status");
    let (part, next) = reader.csv(&format!("{path}?pages_limit=7")).await?;
    let listed = part.iter().filter(|row| row["section"] == "pages" && row["measure"] == "views").count();
    let goes_on =
        reader.json(&format!("/v1/projects/docs/reports/{span}?pages_limit=7")).await?["pages"]["next"].take();
    ensure!(listed == 7 && next.is_some() && next.as_deref() == goes_on.as_str(), "{listed}, then {next:?}");

    let (markdown, html) = (run("md").await?, run("html").await?);
    for (text, cut) in [
        (&markdown, "The first 25 of 1,200."),
        (&markdown, "The first 25 of 1,250."),
        (&markdown, "The first 25 of 1,001."),
        (&html, "The first 100 of 2,450."),
        (&html, "The first 8 of 1,250."),
    ] {
        ensure!(text.contains(cut) && text.contains(&path), "{cut} is not said");
    }
    lists_do_not_depend_on_how_they_are_read(&mut reader, &client, span, "2026-02-04T05:00:00Z").await
}

/// The pages of a project with many views are read in several steps, others in one. Its values are aggregated by ClickHouse; those of others by
/// headcount if they are few. The lists are the same.
async fn lists_do_not_depend_on_how_they_are_read(
    reader: &mut Reader,
    client: &clickhouse::Client,
    span: &str,
    at: &str,
) -> Result<()> {
    let path = format!("/v1/projects/docs/reports/{span}");
    let day = schemas::Hour::of(at.parse()?).day().0;
    let values = async |of: &str, window: u64, count: u64| {
        let sql = format!(
            "INSERT INTO breakdown_window (project, day, dimensions, values, views, stream, window_start, next_offset) \
             SELECT 'docs', toDate(?), groupArray(item.1), groupArray(item.2), groupArray(item.3), 1, {window}, {} \
             FROM (SELECT ({of}) AS item FROM numbers({count}))",
            window + 9
        );
        anyhow::Ok(client.query(&sql).bind(day).execute().await?)
    };
    values("'language', concat('l', toString(number)), if(number = 0, 50, 4)", 860, 4).await?;
    known::write_hour(client, at, 1, 87).await?;
    let before = reader.computed_json(&path).await?;
    let languages = json!([{"value": "l0", "views": 50}, {"value": "other", "views": 12, "rest": true}]);
    ensure!(before["breakdowns"]["language"] == languages, "{}", before["breakdowns"]["language"]);
    // More values than are read one by one, each below the threshold.
    values("'country', toString(number), 1", 880, 20_001).await?;
    known::write_hour(client, at, 1, 88).await?;
    let mut crowded = reader.computed_json(&path).await?;
    let countries = json!([{"value": "other", "views": 20_001, "rest": true}]);
    ensure!(crowded["breakdowns"]["country"].take() == countries, "{}", crowded["breakdowns"]["country"]);
    let mut fewer = before["breakdowns"].clone();
    fewer["country"].take();
    ensure!(crowded["breakdowns"] == fewer, "{fewer}\n{}", crowded["breakdowns"]);
    let before = reader.computed_json(&path).await?;
    // More paths with referrers than one query reads, and one more view. None of them is listed.
    let sql = "INSERT INTO not_found_daily SELECT 'docs', toDate(?), concat('/nowhere-', toString(number)), 'from.example', 12, 1, 890, 899, 'headcount' \
               FROM numbers(20001)";
    client.query(sql).bind(day).execute().await?;
    known::write_hour(client, at, 1, 89).await?;
    let crowded = reader.computed_json(&path).await?;
    ensure!(number(&crowded["totals"]["views"])? == number(&before["totals"]["views"])? + 1, "{}", crowded["totals"]);
    ensure!(crowded["not_found"] == before["not_found"], "{}\n{}", before["not_found"], crowded["not_found"]);
    let before = crowded;
    known::write_hour(client, at, 2_000_000, 90).await?;
    let after = reader.computed_json(&path).await?;
    ensure!(
        number(&after["totals"]["views"])? == number(&before["totals"]["views"])? + 2_000_000,
        "{}",
        after["totals"]
    );
    for list in ["pages", "not_found", "breakdowns"] {
        ensure!(after[list] == before[list], "{list}:\n{}\n{}", before[list], after[list]);
    }
    Ok(())
}

/// A computed report includes late views, also those of the previous month: in the hours that are compared, or after them, where only its pages show
/// them.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_view_of_the_month_before_changes_what_is_compared() -> Result<()> {
    let service =
        Service::started(&["--clock-start", CLOCK, "--report-cache-bytes", "0"], &[("docs", "docs.example")]).await?;
    let client = service.clickhouse()?;
    let mut reader = Reader::of(&service).await?;
    let path = format!("/v1/projects/docs/reports/{}", MONTHS[3]);
    known::write_views(&client, "2026-03-01T05:00:00Z", 30, 2).await?;
    let first = reader.json(&path).await?["pages"]["items"][0].take();
    ensure!(first["views_before"] == 0 && first["visitors"]["estimate"] == 30, "nothing was before: {first}");
    known::write_views(&client, "2026-02-20T06:00:00Z", 7, 4).await?;
    let late = reader.json(&path).await?["pages"]["items"][0].take();
    ensure!(late["views_before"] == 7 && late["visitors"] == first["visitors"], "only after what is compared: {late}");
    known::write_views(&client, "2026-02-01T05:00:00Z", 20, 1).await?;
    let mut told = async || {
        let report = reader.json(&path).await?;
        let before = &report["comparison"]["previous_month"];
        let pages = number(&report["pages"]["items"][0]["views_before"])?;
        anyhow::Ok([number(&report["totals"]["views"])?, number(&before["views"])?, pages])
    };
    ensure!(told().await? == [30, 20, 27], "{:?}", told().await?);
    known::write_page(&client, "2026-02-01T06:00:00Z", 5, 3).await?;
    known::write_hour(&client, "2026-02-01T06:00:00Z", 5, 3).await?;
    ensure!(told().await? == [30, 25, 32], "a late view in the hours that are compared: {:?}", told().await?);
    known::write_views(&client, "2026-02-21T06:00:00Z", 4, 5).await?;
    ensure!(told().await? == [30, 25, 36], "a late view after them: {:?}", told().await?);
    let markdown = service.done(&["report", "docs", MONTHS[3], "--format", "md", "--clock-start", CLOCK]).await?;
    ensure!(markdown.contains("Against 2026-02, up to 2026-02-02 10:00 (the month before): views"), "{markdown}");
    lists_do_not_depend_on_how_they_are_read(&mut reader, &client, MONTHS[3], "2026-03-01T06:00:00Z").await
}

/// One query reads the counts and the month's closes, and assumes that the closes have not changed. If a close was added, replaced or removed, the
/// counts are read again, for the requested month and for one that it is compared with.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_that_came_or_went_is_not_overlooked() -> Result<()> {
    // Each is computed.
    let arguments = ["--clock-start", CLOCK, "--report-cache-bytes", "0", "--close-after-hours", "720"];
    let service = Service::started(&arguments, &[("docs", "docs.example")]).await?;
    let client = service.clickhouse()?;
    let at = "2026-02-01T05:00:00Z";
    known::write_views(&client, at, 20, 1).await?;
    known::write_views(&client, "2026-03-01T05:00:00Z", 30, 2).await?;
    let read =
        async |month: &str| http::get(service.address(), &format!("/v1/projects/docs/reports/{month}")).await?.json();
    // The month itself, and the next one, which is compared with it; the order of the requests decides which one finds the change.
    let told = async |itself_first: bool| {
        let [first, second] = if itself_first { [MONTHS[2], MONTHS[3]] } else { [MONTHS[3], MONTHS[2]] };
        let reports = [read(first).await?, read(second).await?];
        let [itself, next] = if itself_first {
            reports
        } else {
            let [next, itself] = reports;
            [itself, next]
        };
        let closed = itself["period"]["closed"] == true;
        let compared = number(&next["comparison"]["previous_month"]["views"])?;
        ensure!(compared == number(&itself["totals"]["views"])?, "{compared}: {}", itself["totals"]);
        anyhow::Ok((compared, closed))
    };
    for itself_first in [true, false] {
        ensure!(told(itself_first).await? == (20, false), "open: {:?}", told(itself_first).await?);
        known::write_close(&client, at, 8, 1_772_400_000_000_000, 25).await?;
        ensure!(told(itself_first).await? == (25, true), "closed: {:?}", told(itself_first).await?);
        // Of several closes the one that finished first counts.
        known::write_close(&client, at, 9, 1_772_300_000_000_000, 27).await?;
        ensure!(told(itself_first).await? == (27, true), "another's: {:?}", told(itself_first).await?);
        for table in ["month_close", "month_closed"] {
            client.query(&format!("TRUNCATE TABLE {table}")).execute().await?;
        }
    }
    ensure!(told(true).await? == (20, false), "gone: {:?}", told(true).await?);

    // Closed by a process whose clock is ahead: its figures include rows of days that have not started here.
    known::write_views(&client, "2026-03-20T05:00:00Z", 5, 3).await?;
    let pages = async || anyhow::Ok(read(MONTHS[3]).await?["pages"]["items"].take());
    ensure!(pages().await?[0]["views"] == 35, "open: {}", pages().await?);
    known::write_close(&client, "2026-03-01T05:00:00Z", 10, 1_774_000_000_000_000, 30).await?;
    ensure!(pages().await? == serde_json::json!([]), "counted beside the close: {}", pages().await?);
    Ok(())
}

/// Schemathesis sends requests that the API's document allows or forbids to a real service, and compares every response with the document.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_of_the_api_holds() -> Result<()> {
    let tool = match std::env::var_os("HEADCOUNT_SCHEMATHESIS") {
        Some(path) => std::path::PathBuf::from(path),
        None => {
            let test = std::env::current_exe()?;
            let target = test.ancestors().nth(3).context("a test lives in target/PROFILE/deps")?;
            target.join("schemathesis/bin/schemathesis")
        }
    };
    ensure!(tool.exists(), "{} is missing: scripts/test installs it", tool.display());
    let arguments = ["--clock-start", CLOCK, "--close-after-hours", "720"];
    let service = Service::started(&arguments, &[("docs", "docs.example")]).await?;
    known::write(&service.clickhouse()?).await?;
    let config = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("stories/reports/schemathesis.toml");
    let directory = tempfile::TempDir::with_prefix("headcount-schemathesis-")?;
    let mut run = tokio::process::Command::new(&tool);
    run.arg("--config-file").arg(config).arg("run").arg(service.url("/v1/openapi.json"));
    run.args([
        "--checks",
        "all",
        "--exclude-checks",
        "ignored_auth",
        "--max-examples",
        "25",
        "--phases",
        "examples,coverage,fuzzing",
    ]);
    run.args(["--suppress-health-check", "all", "--no-color"]).current_dir(directory.path()).kill_on_drop(true);
    let told = tokio::time::timeout(std::time::Duration::from_secs(300), run.output()).await;
    let told = told.context("Schemathesis does not end")??;
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    ensure!(told.status.success(), "{text}\n{}", String::from_utf8_lossy(&told.stderr));
    let summary = text.lines().find(|line| line.contains("generated")).context("a summary")?;
    println!("{}", summary.trim());
    Ok(())
}
