//! Statements 11 and 12: no figure is below the threshold in any output, and none can be derived by subtraction. (`query/src/small_cells/tests.rs`
//! shows for all small worlds that no adversary recovers a suppressed cell from any reports.)

use anyhow::{Context, Result, ensure};
use harness::http::{self, Connection};
use harness::random::mix;
use harness::service::Service;
use serde_json::Value;

const MONTH: &str = "2026-01";

/// Whether no value of a breakdown is below the threshold, except when the whole dimension is.
fn folded(report: &Value, floor: u64) -> Result<()> {
    for (dimension, items) in report["breakdowns"].as_object().context("breakdowns")? {
        let items = items.as_array().context("items")?;
        let total: u64 = items.iter().filter_map(|item| item["views"].as_u64()).sum();
        for item in items {
            let views = item["views"].as_u64().context("views")?;
            ensure!(views >= floor || (items.len() == 1 && views == total), "{dimension}: {item} of {total}");
        }
    }
    for list in ["pages", "not_found"] {
        for page in report[list]["items"].as_array().context("pages")? {
            let visitors = &page["visitors"];
            let shown = visitors["estimate"].as_u64().is_none_or(|estimate| estimate >= floor);
            ensure!(shown && (visitors["estimate"].is_u64() || visitors["fewer_than"] == floor), "{page}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_below_the_threshold_is_shown() -> Result<()> {
    let arguments =
        ["--clock-start", "2026-01-15T10:00:00Z", "--trusted-proxy", "127.0.0.1", "--country-header", "x-country"];
    let service = Service::started(&arguments, &[("docs", "docs.example")]).await?;
    let mut connection = Connection::open(service.address()).await?;
    // Countries with a steep distribution: a few large ones and many small ones.
    let countries = ["NL", "DE", "FR", "JP", "BR", "KE", "NZ", "IS", "BT"];
    let views = 400u64;
    for number in 0..views {
        let country = countries[(mix(number).leading_zeros() as usize).min(8)];
        let from = format!("198.51.100.{}", number % 200);
        let headers = [
            ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
            ("x-country", country),
            ("x-forwarded-for", from.as_str()),
        ];
        let path = u64::from(mix(number ^ 7).leading_zeros()).min(12);
        let status = if path > 6 { 404 } else { 200 };
        let body = format!(r#"{{"project":"docs","url":"https://docs.example/{path}.html","status":{status}}}"#);
        ensure!(connection.send("POST", "/v1/pageview", &headers, body).await?.status == 202, "accepted");
    }
    let report = service.counted("docs", MONTH, views).await?;
    folded(&report, 10)?;
    let listed = report["breakdowns"]["country"].as_array().context("countries")?;
    ensure!(listed.len() >= 3 && listed.iter().any(|item| item["rest"] == true), "{listed:?}");
    let sum: u64 = listed.iter().filter_map(|item| item["views"].as_u64()).sum();
    ensure!(sum == views, "what is folded is still counted: {sum}");
    // Other requests, however often: other lengths, other statuses, the page itself.
    for query in ["pages_limit=1", "pages_limit=3", "pages_status=404", "pages_status=200&pages_limit=2"] {
        let path = format!("/v1/projects/docs/reports/{MONTH}?{query}");
        let other = http::get(service.address(), &path).await?.json()?;
        folded(&other, 10)?;
        ensure!(other["breakdowns"] == report["breakdowns"], "{query} gives another breakdown to subtract");
    }
    let page = http::get(service.address(), &format!("/projects/docs/{MONTH}")).await?;
    let page = String::from_utf8_lossy(&page.body).into_owned();
    ensure!(page.contains("under 10"), "the page says what it withholds");
    for country in listed.iter().filter_map(|item| item["value"].as_str()) {
        ensure!(country == "other" || page.contains(country), "{country} is shown");
    }
    for hidden in countries.iter().filter(|country| !listed.iter().any(|item| item["value"] == ***country)) {
        ensure!(!page.contains(&format!("<bdi>{hidden}</bdi>")), "{hidden} is on the page");
    }
    // A threshold below three is refused.
    let told = tokio::process::Command::new(harness::service::binary()?)
        .args(["config", "--small-cell-floor", "2"])
        .output()
        .await?;
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    ensure!(told.contains("small_cell_floor") && told.contains("at least 3"), "{told}");
    Ok(())
}
