//! Commands beside a running service: an audit that stops nothing, and irreversible commands.

use anyhow::{Context, Result, ensure};
use harness::http::{self, Connection};
use harness::service::{Service, binary, eventually};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0";
const PROJECT: [(&str, &str); 1] = [("docs", "docs.example.org")];

async fn view(address: std::net::SocketAddr, body: &str) -> Result<u16> {
    let mut connection = Connection::open(address).await?;
    let answer = connection.send("POST", "/v1/page", &[("user-agent", AGENT)], body.to_owned()).await?;
    Ok(answer.status.as_u16())
}

fn running_month() -> String {
    schemas::Hour::of(chrono::Utc::now()).month().to_string()
}

/// Runs a command with `input` on its standard input: whether it succeeded, and all that it printed.
async fn typed(service: &Service, command: &[&str], input: &str) -> Result<(bool, String)> {
    let mut process = Command::new(binary()?);
    process.args(command).arg("--data").arg(service.data()).kill_on_drop(true);
    let mut child = process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // A command that does not read its input may have ended already.
    let _ = child.stdin.take().context("no stdin")?.write_all(input.as_bytes()).await;
    let output = tokio::time::timeout(harness::service::PATIENCE, child.wait_with_output()).await??;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_stops_nothing() -> Result<()> {
    // Several windows while views arrive.
    let mut service = Service::started(&["--window-records", "100", "--client-rate", "0"], &PROJECT).await?;
    let (address, stop, sent) = (service.address(), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let sending = tokio::spawn({
        let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
        async move {
            let mut connection = Connection::open(address).await?;
            while !stop.load(Ordering::Relaxed) {
                let body = format!(r#"{{"url":"https://docs.example.org/{}"}}"#, sent.load(Ordering::Relaxed) % 9);
                let answer = connection.send("POST", "/v1/page", &[("user-agent", AGENT)], body).await?;
                ensure!(answer.status == 202, "{}", answer.status);
                sent.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }
    });
    let mut compared = 0;
    for round in 1..=3 {
        eventually("more views", async || {
            let sent = sent.load(Ordering::Relaxed);
            ensure!(sent >= round * 250, "{sent} so far");
            Ok(())
        })
        .await?;
        let audit = service.told(&["audit"]).await?;
        ensure!(audit["difference_count"] == 0, "{audit}");
        compared = audit["windows"].as_u64().unwrap_or(compared);
    }
    stop.store(true, Ordering::Relaxed);
    sending.await??;
    let audit = service.told(&["audit", "--wait", "60"]).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0 && audit["moving"] == 0, "{audit}");
    service.counted("docs", &running_month(), sent.load(Ordering::Relaxed)).await?;
    ensure!(view(address, r#"{"url":"https://docs.example.org/"}"#).await? == 202, "the service goes on");
    // A real difference is found, too, so the comparison works.
    service
        .clickhouse()?
        .query("ALTER TABLE site_hourly DELETE WHERE window_start = 0 SETTINGS mutations_sync = 2")
        .execute()
        .await?;
    let audit = service.told(&["audit", "--wait", "60"]).await?;
    ensure!(audit["difference_count"].as_u64() > Some(0), "{audit}; {compared} windows");
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_bite_say_so_first() -> Result<()> {
    let pattern = ["--host-pattern", "{project}.docs.example", "--new-projects-per-hour", "2"];
    let mut service = Service::started(&pattern, &PROJECT).await?;
    let set =
        service.done(&["project", "set", "docs", "--mail", "a@example.org", "--time-zone", "Europe/Berlin"]).await?;
    ensure!(
        set.contains("mail to: nothing → a@example.org") && set.contains("time zone: UTC → Europe/Berlin"),
        "{set}"
    );
    let added = service.done(&["project", "add", "docs", "--host", "more.example.org"]).await?;
    ensure!(added.contains("docs.example.org → docs.example.org, more.example.org"), "{added}");
    ensure!(view(service.address(), r#"{"url":"https://other.docs.example/"}"#).await? == 202);
    ensure!(view(service.address(), r#"{"url":"https://docs.example.org/a"}"#).await? == 202);
    service.token(Some("docs")).await?;
    service.counted("docs", &running_month(), 1).await?;
    eventually("the project of a pattern to be listed", async || {
        let listed = service.done(&["project", "list"]).await?;
        ensure!(listed.contains("other: by a host pattern"), "{listed}");
        Ok(())
    })
    .await?;
    // An empty month is a report, with a hint on standard error.
    let (done, said) = typed(&service, &["report", "docs", "2020-01"], "").await?;
    ensure!(done && said.contains(&format!("headcount report docs {}", running_month())), "{said}");

    for (input, expected) in [("", "nothing is erased"), ("dcos\n", "\"dcos\" is not docs")] {
        let (done, said) = typed(&service, &["project", "erase", "docs"], input).await?;
        ensure!(!done && said.contains(expected) && said.contains("1 page views in 1 month"), "{said}");
        ensure!(said.contains("valid tokens: 1") && said.contains("more.example.org"), "{said}");
    }
    service.counted("docs", &running_month(), 1).await?;
    let (done, said) = typed(&service, &["project", "erase", "docs"], "docs\n").await?;
    ensure!(done && said.contains("project docs is erased"), "{said}");
    // Its views in the log would be counted again.
    let (done, said) = typed(&service, &["project", "add", "docs", "--host", "docs.example.org"], "").await?;
    ensure!(!done && said.contains("was erased at") && said.contains("in the log until"), "{said}");
    let (done, said) = typed(&service, &["project", "erase", "other", "--yes"], "").await?;
    ensure!(done && said.contains("project other is erased"), "{said}");
    let (done, said) = typed(&service, &["project", "erase", "nobody", "--yes"], "").await?;
    ensure!(!done && said.contains("there is no project nobody"), "{said}");
    service.stop().await
}

/// A closed pipe (`| head -0`) must cause neither a panic nor a failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_pipe_ends_commands_quietly() -> Result<()> {
    let mut service = Service::started(&[], &PROJECT).await?;
    let data = service.data();
    let data = data.to_str().context("a path")?;
    for command in [
        &["--help"][..],
        &["config"],
        &["project", "--help"],
        &["project", "list", "--data", data],
        &["token", "list", "--data", data],
        &["report", "docs", &running_month(), "--data", data],
        &["report", "docs", &running_month(), "--format", "csv", "--data", data],
        &["keys", "show", "--data", data],
        &["audit", "--data", data],
    ] {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let mut process = Command::new(binary()?);
        process.args(command).stdin(Stdio::null()).stdout(Stdio::from(writer)).stderr(Stdio::piped());
        let output = process.spawn()?.wait_with_output().await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !said.contains("panicked"), "{command:?}: {} {said}", output.status);
    }
    service.stop().await
}

/// Files from a newer version, manual changes or a hard stop are reported.
#[tokio::test(flavor = "multi_thread")]
async fn what_lies_in_the_data_directory_is_reported() -> Result<()> {
    let mut service = Service::started(&[], &PROJECT).await?;
    let projects = service.data().join("projects.json");
    // A change right before a stop is in the copy.
    service.done(&["project", "add", "late", "--host", "late.example.org"]).await?;
    service.stop().await?;
    let copy = std::fs::read_to_string(&projects)?;
    ensure!(copy.contains("late.example.org"), "{copy}");

    let newer = r#"{"version": 9, "rows": {"all": "in another form"}}"#;
    std::fs::write(&projects, newer)?;
    let log = service.refused(&[]).await?;
    ensure!(log.contains("written by a newer headcount") && log.contains("Run that version"), "{log}");
    ensure!(std::fs::read_to_string(&projects)? == newer, "the newer copy was replaced");
    std::fs::write(&projects, copy)?;
    std::fs::write(service.data().join("version"), "x\n")?;
    let log = service.refused(&[]).await?;
    ensure!(log.contains("which no headcount has written") && log.contains("echo 1 >"), "{log}");
    std::fs::write(service.data().join("version"), "1\n")?;

    // The journal is removed while the service runs, and again while it does not.
    service.start(&[]).await?;
    ensure!(view(service.address(), r#"{"url":"https://docs.example.org/a"}"#).await? == 202);
    let journal = service.data().join("journal.redb");
    let said = salvage(&journal, &service.data().join("salvaged.redb")).await?;
    ensure!(said.contains("stop the service first"), "{said}");
    std::fs::remove_file(&journal)?;
    eventually("the service to refuse beacons", async || {
        let status = view(service.address(), r#"{"url":"https://docs.example.org/b"}"#).await?;
        ensure!(status == 503, "{status}");
        ensure!(http::get(service.address(), "/readyz").await?.status == 503, "not ready");
        Ok(())
    })
    .await?;
    ensure!(service.log().contains("was removed or replaced while it was open"), "{}", service.log());
    eventually("what was accepted to be counted", async || {
        let report = service.report("docs", &running_month()).await?;
        ensure!(report["totals"]["views"].as_u64() > Some(0), "{}", report["totals"]);
        Ok(())
    })
    .await?;
    service.stop().await?;
    ensure!(!service.log().contains("the journal is new"), "{}", service.log());
    service.start(&[]).await?;
    eventually("the warning of a new log", async || {
        ensure!(service.log().contains("the journal is new, but ClickHouse has counted other logs"), "no warning");
        Ok(())
    })
    .await?;
    service.stop().await?;

    // The advice must not be circular.
    std::fs::write(&journal, "")?;
    for said in [service.refused(&[]).await?, salvage(&journal, &service.data().join("salvaged.redb")).await?] {
        ensure!(
            said.contains("`headcount journal salvage` cannot help") && said.contains("move the file away"),
            "{said}"
        );
    }
    Ok(())
}

async fn salvage(source: &std::path::Path, target: &std::path::Path) -> Result<String> {
    let output = Command::new(binary()?).args(["journal", "salvage"]).arg(source).arg(target).output().await?;
    ensure!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}
