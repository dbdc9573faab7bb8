//! A docs team leaves its own views out: by network, for the service and for one project.

use anyhow::{Result, ensure};
use harness::http::{Answer, Connection};
use harness::service::{PATIENCE, Service, binary, eventually};
use std::process::Stdio;
use tokio::process::Command;

const CLOCK: &str = "2026-03-14T10:00:00Z";
const MONTH: &str = "2026-03";
const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";

/// A view of the project's front page, from a reader whose IP address the trusted proxy reports.
async fn view(service: &Service, host: &str, reader: &str) -> Result<Answer> {
    let mut connection = Connection::open(service.address()).await?;
    let body = format!(r#"{{"url":"https://{host}/"}}"#);
    let headers = [("user-agent", AGENT), ("x-forwarded-for", reader)];
    connection.send("POST", "/v1/pageview", &headers, body).await
}

/// Waits until the report has this many views, and this many uncounted ones of ignored networks.
async fn reported(service: &Service, project: &str, views: u64, ignored: u64) -> Result<()> {
    eventually(&format!("{views} views and {ignored} ignored ones of {project}"), async || {
        let totals = service.report(project, MONTH).await?["totals"].take();
        let found = totals["rejected"]["ignored_network"].as_u64().unwrap_or(0);
        ensure!((totals["views"].as_u64(), found) == (Some(views), ignored), "{totals}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn views_of_ignored_networks_are_tallied_and_not_counted() -> Result<()> {
    let arguments = ["--clock-start", CLOCK, "--trusted-proxy", "127.0.0.1", "--ignore-networks", "198.51.100.0/24"];
    let service = Service::started(&arguments, &[("other", "other.example")]).await?;
    let networks = ["--ignore-network", "2001:db8:7::/48", "--ignore-network", "::ffff:203.0.113.0/124"];
    let add = [&["project", "add", "docs", "--host", "docs.example", "--public"][..], &networks].concat();
    service.done(&add).await?;
    let set = service.done(&["project", "set", "docs", "--ignore-network", "192.0.2.7"]).await?;
    ensure!(set.contains("→ 192.0.2.7/32, 2001:db8:7::/48, 203.0.113.0/28\n"), "{set}");
    // Waits until the endpoint has read the registry.
    service.register(&[("last", "last.example")]).await?;
    eventually("three projects to be known", async || {
        let state = service.state().await?;
        ensure!(state["projects"].as_u64() == Some(3), "{state}");
        Ok(())
    })
    .await?;

    let everywhere = ["198.51.100.1", "::ffff:198.51.100.2", "64:ff9b::198.51.100.3"];
    let of_docs = ["2001:db8:7::1", "2001:db8:7:ffff::1", "203.0.113.15", "::ffff:203.0.113.1", "192.0.2.7"];
    let counted = ["2001:db8:8::1", "203.0.113.16", "192.0.2.8", "198.51.101.1"];
    let mut answers = Vec::new();
    for reader in everywhere.iter().chain(&of_docs).chain(&counted) {
        for host in ["docs.example", "other.example"] {
            let answer = view(&service, host, reader).await?;
            answers.push((answer.status, answer.body.clone(), answer.headers.contains_key("retry-after")));
        }
    }
    ensure!(answers[0].0 == 202 && answers.iter().all(|answer| *answer == answers[0]), "one answer: {answers:?}");
    reported(&service, "docs", 4, 8).await?;
    reported(&service, "other", 9, 3).await?;

    let removed = service.done(&["project", "set", "docs", "--no-ignore-network", "2001:db8:7::/48"]).await?;
    ensure!(removed.contains("→ 192.0.2.7/32, 203.0.113.0/28\n"), "{removed}");
    let log = service.log();
    for reader in everywhere.iter().chain(&of_docs).chain(&counted) {
        ensure!(!log.contains(reader), "the log names {reader}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_network_is_refused_by_name() -> Result<()> {
    let expected = "expected a network such as 192.0.2.0/24 or 2001:db8::/32, or an IP address";
    for (arguments, name) in [
        (&["serve", "--ignore-networks", "192.0.2.0/33"][..], "setting `ignore_networks` is \"192.0.2.0/33\""),
        (&["project", "set", "docs", "--ignore-network", "office"], "--ignore-network is \"office\""),
        (&["project", "set", "docs", "--no-ignore-network", "1.2.3"], "--no-ignore-network is \"1.2.3\""),
    ] {
        let data = tempfile::tempdir()?;
        let mut command = Command::new(binary()?);
        command.args(arguments).arg("--data").arg(data.path().join("data"));
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await??;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains(name) && said.contains(expected), "{arguments:?}: {said}");
    }
    Ok(())
}
