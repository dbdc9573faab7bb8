//! A month is due while accepted views are not counted: its close waits for them and reports that, and their visitors are correct afterwards.

use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::{Service, binary, eventually};
use serde_json::Value;
use std::process::{Command, Output};

const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0";
const MONTH: &str = "2026-06";
const RUNNING: &str = "2026-06-30T20:00:00Z";
/// After the default of `close_after_hours`.
const DUE: &str = "2026-07-05T10:00:00Z";
/// Visitors whose views are counted before the aggregator stalls, and after.
const BEFORE: u64 = 40;
const STALLED: u64 = 260;

/// One view of each of these visitors.
async fn visit(service: &Service, visitors: std::ops::Range<u64>) -> Result<()> {
    let mut connection = Connection::open(service.address()).await?;
    for visitor in visitors {
        let from = format!("10.7.{}.{}", visitor / 250, visitor % 250 + 1);
        let headers = [("user-agent", AGENT), ("x-forwarded-for", from.as_str())];
        let body = r#"{"project":"docs","url":"https://docs.example/page.html"}"#.to_owned();
        let answer = connection.send("POST", "/v1/pageview", &headers, body).await?;
        ensure!(answer.status == 202, "{}", answer.status);
    }
    Ok(())
}

async fn clickhouse(service: &Service, sql: &str) -> Result<()> {
    service.clickhouse()?.query(sql).execute().await.context(sql.to_owned())
}

async fn close(service: &Service, more: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.args(["close", "--month", MONTH, "--clock-start", DUE, "--data"]).arg(service.data()).args(more);
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

/// A service after the month's due time, whose ClickHouse has refused rows since before most of its views.
async fn stalled() -> Result<Service> {
    let mut service = Service::new(&["--trusted-proxy", "127.0.0.1", "--client-rate", "0"])?;
    service.start(&["--clock-start", RUNNING]).await?;
    service.register(&[("docs", "docs.example")]).await?;
    visit(&service, 0..BEFORE).await?;
    service.counted("docs", MONTH, BEFORE).await?;
    clickhouse(&service, "ALTER TABLE page_daily ADD CONSTRAINT stalled CHECK views = 0").await?;
    visit(&service, BEFORE..BEFORE + STALLED).await?;
    service.kill().await?;
    service.start(&["--clock-start", DUE]).await?;
    let waits = format!("\"{STALLED} records of stream");
    eventually("the close to wait", async || {
        let log = service.log();
        ensure!(log.contains("the close of the month waits") && log.contains(&waits), "{log}");
        Ok(())
    })
    .await?;
    Ok(service)
}

fn is_near(report: &Value, visitors: u64) -> Result<()> {
    let found = report["totals"]["visitors"]["estimate"].as_f64().with_context(|| format!("{}", report["totals"]))?;
    ensure!((found - visitors as f64).abs() < 0.1 * visitors as f64, "{found} visitors of {visitors}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_close_waits_for_what_was_accepted() -> Result<()> {
    let mut service = stalled().await?;
    let report = service.counted("docs", MONTH, BEFORE).await?;
    ensure!(report["period"]["closed"] == false, "{}", report["period"]);
    let explained = close(&service, &[]).await?;
    let text = String::from_utf8_lossy(&explained.stderr).into_owned();
    ensure!(!explained.status.success(), "{text}");
    for part in ["2026-06 is not closed yet", &format!("{STALLED} records of stream"), "--force"] {
        ensure!(text.contains(part), "{part}: {text}");
    }

    clickhouse(&service, "ALTER TABLE page_daily DROP CONSTRAINT stalled").await?;
    let report = eventually("the month to be closed", async || {
        let report = service.report("docs", MONTH).await?;
        ensure!(report["period"]["closed"] == true, "{}", report["period"]);
        Ok(report)
    })
    .await?;
    ensure!(report["totals"]["views"] == BEFORE + STALLED, "{}", report["totals"]);
    is_near(&report, BEFORE + STALLED)?;
    println!("{} views, visitors {}", report["totals"]["views"], report["totals"]["visitors"]);
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_close_states_the_loss() -> Result<()> {
    let mut service = stalled().await?;
    let forced = close(&service, &["--force"]).await?;
    let text = String::from_utf8_lossy(&forced.stdout).into_owned();
    ensure!(forced.status.success(), "{text}{}", String::from_utf8_lossy(&forced.stderr));
    for part in ["closed by --force", &format!("{STALLED} records of stream"), "2026-06 closed: 0 views"] {
        ensure!(text.contains(part), "{part}: {text}");
    }
    let report = service.counted("docs", MONTH, BEFORE).await?;
    ensure!(report["period"]["closed"] == true, "{}", report["period"]);
    is_near(&report, BEFORE)?;
    // Their views are counted nevertheless, their visitors are not.
    clickhouse(&service, "ALTER TABLE page_daily DROP CONSTRAINT stalled").await?;
    let report = service.counted("docs", MONTH, BEFORE + STALLED).await?;
    is_near(&report, BEFORE)?;
    service.stop().await
}
