//! Responses to report requests when ClickHouse fails: 500 for a schema that does not fit, 503 while ClickHouse is unavailable.

use super::client::ReportClient;
use super::known;
use anyhow::{Result, ensure};
use harness::service::Service;
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_column_is_an_error_of_the_service_and_a_stopped_clickhouse_is_not() -> Result<()> {
    let service = Service::started(&["--clock-start", known::CLOCK], &[("docs", "docs.example")]).await?;
    let client = service.clickhouse()?;
    known::write_views(&client, "2026-03-01T05:00:00Z", 30, 2).await?;
    client.query("ALTER TABLE rejection_daily DROP COLUMN beacons").execute().await?;
    let mut reader = ReportClient::of(&service).await?;
    let path = format!("/v1/projects/docs/reports/{}", known::MONTHS[3]);

    let broken = reader.get(&path, &[]).await?;
    let body = String::from_utf8_lossy(&broken.body).into_owned();
    ensure!(
        broken.status == 500 && broken.json()?["type"] == "/problems/unreadable-figures",
        "{} {body}",
        broken.status
    );
    ensure!(broken.headers["content-type"] == "application/problem+json", "{:?}", broken.headers);
    ensure!(!broken.headers.contains_key("retry-after"), "a bug does not pass: {:?}", broken.headers);
    ensure!(["beacons", "rejection_daily", "Code:", "DB::"].iter().all(|word| !body.contains(word)), "{body}");
    let log = service.log();
    let line = log.lines().find(|line| line.contains("ClickHouse refuses the statement")).unwrap_or_default();
    ensure!(line.contains("ERROR") && line.contains("beacons"), "no error with its cause is logged:\n{log}");

    let noted = std::fs::read_to_string(service.data().join("clickhouse").join("engine.json"))?;
    let engine = serde_json::from_str::<serde_json::Value>(&noted)?["pid"].to_string();
    let signal = |name: &str| Command::new("kill").args([name, &engine]).status();
    ensure!(signal("-STOP")?.success(), "ClickHouse does not stop");
    let away = reader.get(&path, &[]).await;
    signal("-CONT")?;
    let away = away?;
    ensure!(away.status == 503 && away.json()?["type"] == "/problems/storage-unavailable", "{}", away.status);
    ensure!(away.headers.contains_key("retry-after"), "{:?}", away.headers);
    Ok(())
}
