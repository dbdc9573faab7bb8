//! ClickHouse's data are replaced by an older copy, or removed, beside the current journal: nothing is lost without a message.

#[path = "recovery/backup.rs"]
mod backup;
#[path = "recovery/which_clickhouse.rs"]
mod which_clickhouse;

use anyhow::{Context, Result, ensure};
use harness::http::{self, Connection};
use harness::service::{Service, eventually};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0";
const MONTH: &str = "2026-06";
const START: &str = "2026-06-10T10:00:00Z";
/// When the journal no longer has the records from the start.
const FOUR_DAYS_LATER: &str = "2026-06-14T10:00:00Z";
const PROJECT: [(&str, &str); 1] = [("docs", "docs.example")];
/// Several windows in a story.
const WINDOW: [&str; 2] = ["--window-records", "100"];
const OLDER: &str = "ClickHouse is older than the log";

fn at(clock: &'static str) -> Vec<&'static str> {
    [&["--clock-start", clock], &WINDOW[..]].concat()
}

async fn send(service: &Service, project: &str, count: u64) -> Result<()> {
    let mut connection = Connection::open(service.address()).await?;
    for index in 0..count {
        let body = format!(r#"{{"project":"{project}","url":"https://{project}.example/page-{}.html"}}"#, index % 7);
        let answer = connection.send("POST", "/v1/pageview", &[("user-agent", AGENT)], body).await?;
        ensure!(answer.status == 202, "{}", answer.status);
    }
    Ok(())
}

/// The figures of a report, without the parts that change with the time of the computation.
async fn figures(service: &Service, project: &str, views: u64) -> Result<[Value; 3]> {
    let report = service.counted(project, MONTH, views).await?;
    Ok(["totals", "pages", "days"].map(|part| report[part].clone()))
}

fn clickhouse(service: &Service) -> PathBuf {
    service.data().join("clickhouse")
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    ensure!(Command::new("cp").arg("-a").args([from, to]).status()?.success(), "cp failed");
    Ok(())
}

async fn audit_is_clean(service: &Service) -> Result<()> {
    let audit = service.told(&["audit"]).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0 && audit["moving"] == 0, "{audit}");
    Ok(())
}

/// A stopped service that has counted 250 views, and 300 more after a copy of ClickHouse's data was made.
async fn with_an_older_copy(aside: &Path) -> Result<Service> {
    let mut service = Service::new(&[])?;
    service.start(&at(START)).await?;
    service.register(&PROJECT).await?;
    send(&service, "docs", 250).await?;
    service.counted("docs", MONTH, 250).await?;
    service.stop().await?;
    copy(&clickhouse(&service), aside)?;
    service.start(&at(START)).await?;
    send(&service, "docs", 300).await?;
    service.counted("docs", MONTH, 550).await?;
    Ok(service)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_clickhouse_lacks_is_counted_again() -> Result<()> {
    let aside = tempfile::tempdir()?;
    let aside = aside.path().join("clickhouse");
    let mut service = with_an_older_copy(&aside).await?;
    // Registered after the copy was made.
    service.register(&[("late", "late.example")]).await?;
    let token = service.token(None).await?;
    send(&service, "late", 40).await?;
    let expected = [figures(&service, "docs", 550).await?, figures(&service, "late", 40).await?];
    eventually("the copy to have the token", async || {
        let copy: Value = serde_json::from_str(&std::fs::read_to_string(service.data().join("projects.json"))?)?;
        ensure!(copy["tokens"].as_array().map(Vec::len) == Some(1), "{copy}");
        Ok(())
    })
    .await?;
    service.stop().await?;
    audit_is_clean(&service).await?;

    copy(&aside, &clickhouse(&service))?;
    ensure!(!service.log().contains(OLDER), "{}", service.log());
    service.start(&at(START)).await?;
    let found = [figures(&service, "docs", 550).await?, figures(&service, "late", 40).await?];
    ensure!(found == expected, "{found:?}\n{expected:?}");
    ensure!(service.log().contains(OLDER), "{}", service.log());
    ensure!(service.log().contains("these rows were restored from the copy"), "{}", service.log());
    eventually("the token to be valid", async || {
        let answer = http::get_as(service.address(), "/v1/projects/none/reports/2026-06", &token).await?;
        ensure!(answer.status == 404, "{}", answer.status);
        Ok(())
    })
    .await?;
    service.stop().await?;
    audit_is_clean(&service).await?;

    // Once more, with a kill in between, and with a window policy that would divide a window of the copy: its rows stay in one window.
    copy(&aside, &clickhouse(&service))?;
    let shorter = ["--clock-start", START, "--window-records", "30"];
    service.start(&shorter).await?;
    service.kill().await?;
    service.start(&shorter).await?;
    let found = [figures(&service, "docs", 550).await?, figures(&service, "late", 40).await?];
    ensure!(found == expected, "{found:?}\n{expected:?}");
    let messages = service.log().matches(OLDER).count();
    send(&service, "docs", 50).await?;
    service.counted("docs", MONTH, 600).await?;
    service.stop().await?;
    service.start(&shorter).await?;
    service.counted("docs", MONTH, 600).await?;
    ensure!(service.log().matches(OLDER).count() == messages, "a repaired ClickHouse is not older\n{}", service.log());
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_journal_no_longer_holds_stops_the_service() -> Result<()> {
    let aside = tempfile::tempdir()?;
    let aside = aside.path().join("clickhouse");
    let mut service = with_an_older_copy(&aside).await?;
    service.stop().await?;
    // The commit that closes the old window makes the journal drop it.
    service.start(&at(FOUR_DAYS_LATER)).await?;
    send(&service, "docs", 10).await?;
    service.counted("docs", MONTH, 560).await?;
    service.stop().await?;

    copy(&aside, &clickhouse(&service))?;
    let log = service.refused(&at(FOUR_DAYS_LATER)).await?;
    for part in [
        "ClickHouse has counted this log up to offset 250",
        "commit is at offset 560",
        "the log begins at offset 550",
        "the 300 records from offset 250",
        "--recover",
    ] {
        ensure!(log.contains(part), "{part}\n{log}");
    }
    // The loss is accepted once; later starts need no option.
    service.start(&[&at(FOUR_DAYS_LATER)[..], &["--recover"]].concat()).await?;
    service.counted("docs", MONTH, 260).await?;
    ensure!(service.log().contains("the loss was accepted by --recover"), "{}", service.log());
    service.stop().await?;
    service.start(&at(FOUR_DAYS_LATER)).await?;
    send(&service, "docs", 5).await?;
    service.counted("docs", MONTH, 265).await?;
    service.stop().await?;

    // All of ClickHouse's data are lost, and part of the journal.
    std::fs::remove_dir_all(clickhouse(&service))?;
    service.start(&[&at(FOUR_DAYS_LATER)[..], &["--recover"]].concat()).await?;
    service.counted("docs", MONTH, 15).await?;
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_clickhouse_stops_the_service_or_is_recovered() -> Result<()> {
    let mut service = Service::new(&[])?;
    service.start(&at(START)).await?;
    service.register(&PROJECT).await?;
    service.done(&["project", "add", "closed", "--host", "closed.example"]).await?;
    service.done(&["project", "add", "gone", "--host", "gone.example"]).await?;
    service.done(&["project", "remove", "gone"]).await?;
    service.done(&["project", "rules", "docs", "--mask", "/users/*/settings", "--html", "strip"]).await?;
    service.done(&["project", "set", "docs", "--time-zone", "Europe/Berlin", "--mail", "docs@example.org"]).await?;
    let token = service.token(Some("closed")).await?;
    let revoked = service.token(Some("closed")).await?;
    let ids: Vec<String> =
        service.done(&["token", "list"]).await?.lines().skip(1).map(|line| line[..16].to_owned()).collect();
    let id = ids.iter().find(|id| revoked.contains(id.as_str())).context("the token's id")?;
    service.done(&["token", "revoke", id]).await?;
    send(&service, "docs", 120).await?;
    let expected = figures(&service, "docs", 120).await?;
    let settings = async |service: &Service| -> Result<[String; 3]> {
        let list = service.done(&["project", "list"]).await?;
        Ok([list, service.done(&["project", "rules", "docs"]).await?, service.done(&["token", "list"]).await?])
    };
    let before = settings(&service).await?;
    let projects = service.data().join("projects.json");
    eventually("the copy to have every row", async || {
        let copy: Value = serde_json::from_str(&std::fs::read_to_string(&projects)?)?;
        let tokens = copy["tokens"].as_array().context("tokens")?;
        let is_revoked = tokens.len() == 2 && tokens.iter().filter(|token| token["revoked"] == 1).count() == 1;
        ensure!(is_revoked && copy["projects"].as_array().map(Vec::len) == Some(3), "{copy}");
        Ok(())
    })
    .await?;
    service.stop().await?;
    let stored = std::fs::read(&projects)?;
    ensure!(std::fs::metadata(&projects)?.permissions().mode() & 0o777 == 0o600, "others may read the copy");
    ensure!(!String::from_utf8_lossy(&stored).contains(&token), "the copy has a token");

    std::fs::remove_dir_all(clickhouse(&service))?;
    for _ in 0..2 {
        let log = service.refused(&at(START)).await?;
        ensure!(log.contains("has 2 projects and 1 tokens") && log.contains("--recover"), "{log}");
        ensure!(std::fs::read(&projects)? == stored, "the copy was replaced");
    }
    service.start(&[&at(START)[..], &["--recover"]].concat()).await?;
    ensure!(settings(&service).await? == before, "{:?}\n{before:?}", settings(&service).await?);
    let found = figures(&service, "docs", 120).await?;
    ensure!(found == expected, "{found:?}\n{expected:?}");
    let status = async |token: &str| -> Result<u16> {
        Ok(http::get_as(service.address(), "/v1/projects/closed/reports/2026-06", token).await?.status.as_u16())
    };
    eventually("the token to open its report", async || {
        let answers = [status(&token).await?, status(&revoked).await?];
        ensure!(answers == [200, 401], "{answers:?}");
        Ok(())
    })
    .await?;
    send(&service, "docs", 10).await?;
    service.counted("docs", MONTH, 130).await?;
    service.stop().await?;
    audit_is_clean(&service).await
}

/// Beacons that arrive while the service starts must not move the end of an older journal to an offset that ClickHouse has counted.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_journal_takes_no_beacon() -> Result<()> {
    let aside = tempfile::tempdir()?;
    let aside = aside.path().join("journal.redb");
    let mut service = Service::new(&[])?;
    service.start(&at(START)).await?;
    service.register(&PROJECT).await?;
    send(&service, "docs", 20).await?;
    service.counted("docs", MONTH, 20).await?;
    service.stop().await?;
    let journal = service.data().join("journal.redb");
    std::fs::copy(&journal, &aside)?;
    service.start(&at(START)).await?;
    send(&service, "docs", 2).await?;
    service.counted("docs", MONTH, 22).await?;
    service.stop().await?;

    std::fs::copy(&aside, &journal)?;
    let address = service.address();
    let readers = tokio::spawn(async move {
        let body = r#"{"project":"docs","url":"https://docs.example/late.html"}"#;
        loop {
            if let Ok(mut connection) = Connection::open(address).await
                && let Ok(answer) = connection.send("POST", "/v1/page", &[("user-agent", AGENT)], body.to_owned()).await
                && answer.status == 202
            {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..3 {
        let log = service.refused(&at(START)).await?;
        ensure!(log.contains("has counted up to offset 22 of this log, but the log ends at 20"), "{log}");
    }
    ensure!(!readers.is_finished(), "a beacon was accepted");
    readers.abort();
    Ok(())
}
