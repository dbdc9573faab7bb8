//! Statement 16: an estimate is reported with its error and with what it counts.

use anyhow::{Context, Result, ensure};
use harness::http::{self, Connection};
use harness::service::Service;
use serde_json::Value;

/// Every object with an estimate, wherever it is.
fn estimates<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            if fields.contains_key("estimate") {
                found.push(value);
            }
            fields.values().for_each(|value| estimates(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| estimates(value, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn estimates_come_with_their_error_and_unit() -> Result<()> {
    for (period, unit, words) in [("month", "visitors", "Visitors"), ("day", "visitor-days", "Visitor-days")] {
        let arguments =
            ["--clock-start", "2026-01-15T10:00:00Z", "--trusted-proxy", "127.0.0.1", "--visitor-period", period];
        let service = Service::started(&arguments, &[("docs", "docs.example")]).await?;
        let mut connection = Connection::open(service.address()).await?;
        for number in 0..120 {
            let from = format!("198.51.100.{number}");
            let headers = [
                ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
                ("x-forwarded-for", from.as_str()),
            ];
            let body = r#"{"project":"docs","url":"https://docs.example/"}"#;
            ensure!(connection.send("POST", "/v1/pageview", &headers, body).await?.status == 202, "accepted");
        }
        let report = service.counted("docs", "2026-01", 120).await?;
        let mut found = Vec::new();
        estimates(&report, &mut found);
        ensure!(found.len() > 15, "of the month, its days and its pages: {}", found.len());
        for estimate in found {
            let (value, error) =
                (estimate["estimate"].as_u64().context("a number")?, estimate["error"].as_f64().context("an error")?);
            ensure!((value == 0) == (error == 0.0) && estimate["unit"] == unit, "{estimate}");
        }
        let page = http::get(service.address(), "/projects/docs/2026-01").await?;
        let page = String::from_utf8_lossy(&page.body).into_owned();
        ensure!(page.contains("± ") && page.contains(words) && page.contains("estimate"), "the page says so");
    }
    Ok(())
}
