//! Data of earlier versions: every later version opens an earlier data directory or topic and continues to count.

#[path = "upgrade/schema.rs"]
mod schema;

use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::roles::Deployment;
use harness::service::{Service, eventually};
use harness::{clickhouse, http, kafka};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// When the fixtures' services go on: an hour after their last page view.
const NEXT_HOUR: &str = "2026-06-16T11:00:00Z";
/// When the close of their month is due.
const AFTER_CLOSE: &str = "2026-07-06T00:00:00Z";
const MONTH: &str = "2026-06";
const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0";

/// The versions that left fixtures.
const VERSIONS: [&str; 1] = ["068a961"];

fn fixture(version: &str, file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("upgrade").join(version).join(file)
}

fn truth(version: &str, of: &str) -> Result<Value> {
    let all: Value = serde_json::from_str(&std::fs::read_to_string(fixture(version, "truth.json"))?)?;
    Ok(all[of].clone())
}

/// A service on the unpacked data directory, not started yet.
fn service_on(version: &str, archive: &str) -> Result<Service> {
    let service = Service::new(&[])?;
    std::fs::create_dir_all(service.data())?;
    let unpacked = std::process::Command::new("tar")
        .arg("-xzf")
        .arg(fixture(version, archive))
        .arg("-C")
        .arg(service.data())
        .status()?;
    ensure!(unpacked.success(), "tar cannot unpack {archive} of {version}");
    Ok(service)
}

/// Compares a report with the truth; `more` views of a page `/new.html` were sent after the fixture was written.
fn check(report: &Value, truth: &Value, more: u64) -> Result<()> {
    let views = truth["views"].as_u64().context("views")?;
    ensure!(report["totals"]["views"] == views + more, "{views} + {more} expected: {}", report["totals"]);
    let visits = truth["visits"].as_u64().context("visits")?;
    ensure!(report["totals"]["visits"] == visits + more, "{visits} + {more} visits expected: {}", report["totals"]);
    let robots: u64 = report["totals"]["bots"].as_object().context("bots")?.values().filter_map(Value::as_u64).sum();
    ensure!(truth["robots"] == robots, "{} robots expected: {}", truth["robots"], report["totals"]);
    let pages = report["pages"]["items"].as_array().context("pages")?;
    let found: BTreeMap<String, u64> = pages
        .iter()
        .filter(|page| page["path"] != "/new.html")
        .filter_map(|page| {
            let key = format!("{} {}", page["status"], page["path"].as_str()?);
            Some((key, page["views"].as_u64()?))
        })
        .collect();
    let expected: BTreeMap<String, u64> = serde_json::from_value(truth["pages"].clone())?;
    ensure!(found == expected, "{found:?}\n{expected:?}");
    if let Some(visitors) = truth["visitors"].as_u64().filter(|_| more == 0) {
        let found = &report["totals"]["visitors"];
        ensure!(found["estimate"] == visitors, "{visitors} visitors expected: {found}");
    }
    Ok(())
}

async fn is_counted(service: &Service, truth: &Value, more: u64) -> Result<()> {
    for (project, truth) in truth.as_object().context("projects")? {
        eventually(&format!("the figures of {project}"), async || {
            check(&service.report(project, MONTH).await?, truth, more)
        })
        .await?;
    }
    Ok(())
}

async fn send_more(service: &Service, projects: &Value, count: u64) -> Result<()> {
    let mut connection = Connection::open(service.address()).await?;
    for project in projects.as_object().context("projects")?.keys() {
        for _ in 0..count {
            let body = format!(r#"{{"project":"{project}","url":"https://{project}.example/new.html"}}"#);
            let answer = connection.send("POST", "/v1/pageview", &[("user-agent", AGENT)], body).await?;
            ensure!(answer.status == 202, "{}", answer.status);
        }
    }
    Ok(())
}

async fn audit_is_clean(service: &Service) -> Result<()> {
    let audit = service.told(&["audit"]).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0 && audit["moving"] == 0, "{audit}");
    Ok(())
}

/// Continues with the directory: the old figures, then more of them, an audit, and the close of the month.
async fn goes_on(mut service: Service, truth: &Value) -> Result<()> {
    is_counted(&service, truth, 0).await?;
    send_more(&service, truth, 10).await?;
    is_counted(&service, truth, 10).await?;
    service.stop().await?;
    audit_is_clean(&service).await?;
    service.start(&["--clock-start", AFTER_CLOSE]).await?;
    eventually("the month to be closed", async || {
        let report = service.report("docs", MONTH).await?;
        ensure!(report["period"]["closed"] == true, "{}", report["period"]);
        Ok(())
    })
    .await?;
    is_counted(&service, truth, 10).await?;
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_stopped_opens_and_counts_on() -> Result<()> {
    for version in VERSIONS {
        let mut service = service_on(version, "stopped.tar.gz")?;
        service.start(&["--clock-start", NEXT_HOUR]).await?;
        goes_on(service, &truth(version, "stopped")?).await.with_context(|| format!("data of {version}"))?;
    }
    Ok(())
}

/// If the rules of the fold have changed, an open window that was not drained must not be counted by the new rules.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_was_killed_counts_on() -> Result<()> {
    for version in VERSIONS {
        let truth = truth(version, "killed")?;
        let mut service = service_on(version, "killed.tar.gz")?;
        service.start(&["--clock-start", NEXT_HOUR]).await.with_context(|| format!("data of {version}"))?;
        is_counted(&service, &truth, 0).await.with_context(|| format!("data of {version}"))?;
        goes_on(service, &truth).await.with_context(|| format!("data of {version}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_a_topic_are_counted() -> Result<()> {
    let (bootstrap, server) = (kafka::shared().await?, clickhouse::shared().await?);
    for version in VERSIONS {
        let truth = truth(version, "topic")?;
        let deployment = Deployment::new(&bootstrap, &server)?;
        deployment.prepare(2, 1, &[("docs", "docs.example"), ("other", "other.example")]).await?;
        let partitions = [records_of(version, 0)?, records_of(version, 1)?];
        ensure!(partitions.iter().any(|records| !records.is_empty()), "the topic of {version} has no records");
        for (partition, records) in (0..).zip(partitions) {
            kafka::produce(&bootstrap, &deployment.topic, partition, &records).await?;
        }
        let mut aggregate = deployment.aggregate("aggregate", &["--flush-ms", "300"])?;
        aggregate.start(&["--clock-start", NEXT_HOUR]).await?;
        let mut query = deployment.query("query", &[])?;
        query.start(&["--clock-start", NEXT_HOUR]).await?;
        for (project, truth) in truth.as_object().context("projects")? {
            harness::roles::opened(query.address, project).await?;
            eventually(&format!("the figures of {project}"), async || {
                let path = format!("/v1/projects/{project}/reports/{MONTH}?pages_limit=1000");
                let answer = http::get_now(query.address, &path).await?;
                ensure!(answer.status == 200, "{}", answer.status);
                check(&answer.json()?, truth, 0)
            })
            .await?;
        }
        aggregate.process.stop().await?;
        query.process.stop().await?;
        let audit = deployment.audit(30).await?;
        ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}");
        deployment.drop_database().await?;
    }
    Ok(())
}

fn records_of(version: &str, partition: i32) -> Result<Vec<Vec<u8>>> {
    let text = std::fs::read_to_string(fixture(version, "topic.tsv"))?;
    let mut records = Vec::new();
    for line in text.lines().skip(1) {
        let [of, _, record] = line.split('\t').collect::<Vec<_>>()[..] else {
            anyhow::bail!("{line:?} has no 3 columns")
        };
        if of.parse::<i32>()? == partition {
            records.push(data_encoding::HEXLOWER.decode(record.as_bytes())?);
        }
    }
    Ok(records)
}
