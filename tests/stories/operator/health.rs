//! An operator's view: `/readyz` says when counting stands still and why, every metric is documented, and the alert rules fire on real
//! scrapes where they must.

use anyhow::{Context, Result, ensure};
use harness::http::{self, Connection};
use harness::process::{Process, free_address};
use harness::service::{Service, binary, eventually};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0";

/// Mail has metrics where it is set up. Nothing is sent: no project has a recipient.
const MAIL: [&str; 4] = ["--smtp-url", "smtp://127.0.0.1:1", "--mail-from", "headcount@example.org"];

/// Alerts that a stopped ClickHouse must raise.
const STOPPED: [&str; 4] =
    ["HeadcountClickHouseAway", "HeadcountClickHouseRefusesRows", "HeadcountCountingStalled", "HeadcountDegraded"];

fn docs(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

fn document(name: &str) -> Result<String> {
    std::fs::read_to_string(docs(name)).with_context(|| format!("docs/{name}"))
}

async fn scrape(metrics: SocketAddr) -> Result<String> {
    let page = http::get(metrics, "/metrics").await?;
    ensure!(page.status == 200, "{}", page.status);
    Ok(String::from_utf8(page.body.to_vec())?)
}

/// Name and type of each metric of a scrape.
fn types(scrape: &str) -> BTreeMap<&str, &str> {
    scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// The samples of a scrape: series and value.
fn samples(scrape: &str) -> BTreeMap<&str, &str> {
    scrape.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' ')).collect()
}

fn sample<'a>(scrape: &'a str, series: &str) -> Result<&'a str> {
    samples(scrape).get(series).copied().with_context(|| format!("no {series} in\n{scrape}"))
}

/// Names and types that `docs/metrics.md` has for a role.
fn documented<'a>(table: &'a str, role: &str) -> BTreeMap<&'a str, &'a str> {
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `headcount_").map(|_| line));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let of_role = cells.filter(|cells| cells.get(3).is_some_and(|roles| roles.split(", ").any(|found| found == role)));
    of_role.map(|cells| (cells[1].trim_matches('`'), cells[2])).collect()
}

/// Runs promtool, which must find nothing wrong.
fn promtool(arguments: &[&str], input: Option<&str>) -> Result<String> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("promtool is missing; the Debian package `prometheus` has it")?;
    let stdin = child.stdin.take().context("a pipe")?;
    if let Some(input) = input {
        std::io::Write::write_all(&mut { stdin }, input.as_bytes())?;
    } else {
        drop(stdin);
    }
    let output = child.wait_with_output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "promtool {arguments:?}: {said}");
    Ok(said)
}

/// A promtool test: `before` for two minutes, then `after` for 18; at the end exactly `firing` fire.
fn alerts_fire(before: &str, after: &str, firing: &[&str]) -> Result<()> {
    let (before, after) = (samples(before), samples(after));
    let mut test = format!("rule_files: [{:?}]\nevaluation_interval: 30s\ntests:\n", docs("alerts.yml"));
    test.push_str("  - interval: 30s\n    input_series:\n");
    for (series, value) in &after {
        let earlier = before.get(series).unwrap_or(value);
        let series = match series.strip_suffix('}') {
            Some(labelled) => format!("{labelled},job=\"headcount\",instance=\"story\"}}"),
            None => format!("{series}{{job=\"headcount\",instance=\"story\"}}"),
        };
        writeln!(test, "      - series: '{series}'\n        values: '{earlier}+0x3 {value}+0x36'")?;
    }
    test.push_str("      - series: 'up{job=\"headcount\",instance=\"story\"}'\n        values: '1+0x40'\n");
    test.push_str("    promql_expr_test:\n      - expr: 'count by (alertname) (ALERTS{alertstate=\"firing\"})'\n");
    test.push_str("        eval_time: 20m\n        exp_samples:\n");
    if firing.is_empty() {
        test.push_str("          []\n");
    }
    for alert in firing {
        writeln!(test, "          - labels: '{{alertname=\"{alert}\"}}'\n            value: 1")?;
    }
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("alerts_of_scrapes.yml");
    std::fs::write(&file, test)?;
    promtool(&["test", "rules", file.to_str().context("a path")?], None)?;
    Ok(())
}

/// A role beside `service`, on its ClickHouse. There is no broker, so no partition has a value.
async fn role(service: &Service, directory: &Path, name: &str) -> Result<(Process, SocketAddr)> {
    let (metrics, listen) = (free_address()?, free_address()?);
    let mut arguments = vec![name.to_owned(), "--metrics-listen".to_owned(), metrics.to_string()];
    let mut add = |more: &[&str]| arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    add(&["--clickhouse-url", &service.clickhouse_url()?]);
    match name {
        "query" => add(&["--listen", &listen.to_string()]),
        "ingest" => {
            add(&["--listen", &listen.to_string(), "--data", &directory.join("data").display().to_string()]);
            add(&["--kafka-bootstrap", "127.0.0.1:1"]);
        }
        _ => add(&[&["--kafka-bootstrap", "127.0.0.1:1"], &MAIL[..]].concat()),
    }
    let mut process = Process::new(name, &binary()?, arguments, directory.join(format!("{name}.log")));
    process.spawn(&[])?;
    process.wait_ready(metrics, "/healthz").await?;
    Ok((process, metrics))
}

/// Each role's metrics are those that the document has for it, and promtool finds nothing wrong with them.
async fn is_documented(role: &str, metrics: SocketAddr) -> Result<String> {
    let (scrape, table) = (scrape(metrics).await?, document("metrics.md")?);
    let (found, documented) = (types(&scrape), documented(&table, role));
    ensure!(found == documented, "{role}: the scrape has {found:#?}\ndocs/metrics.md has {documented:#?}");
    ensure!(!scrape.contains("docs.example.org") && !scrape.contains("\"docs\""), "no label names a project");
    promtool(&["check", "metrics"], Some(&scrape))?;
    Ok(scrape)
}

/// Every `headcount_…` in a text.
fn names(text: &str) -> BTreeSet<String> {
    let starts = text.match_indices("headcount_").map(|(at, _)| &text[at..]);
    let word = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    starts.map(word).collect()
}

/// Every expression of the Grafana board.
fn expressions(board: &serde_json::Value) -> Vec<&str> {
    match board {
        serde_json::Value::Object(members) => {
            let own = members.get("expr").and_then(serde_json::Value::as_str);
            own.into_iter().chain(members.values().flat_map(expressions)).collect()
        }
        serde_json::Value::Array(items) => items.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    }
}

async fn send(service: &Service, body: &'static str, expected: u16) -> Result<()> {
    let mut connection = Connection::open(service.address()).await?;
    let answer = connection.send("POST", "/v1/pageview", &[("user-agent", AGENT)], body).await?;
    ensure!(answer.status == expected, "{}: {:?}", answer.status, answer.body);
    Ok(())
}

/// Waits until both listeners say `state`, and the operator's why.
async fn says(service: &Service, state: &str, reasons: &[&str]) -> Result<()> {
    eventually(&format!("/readyz to say {state}: {reasons:?}"), async || {
        let public = http::get(service.address(), "/readyz").await?;
        ensure!(public.body == format!("{state}\n"), "{:?}", public.body);
        let details = service.state().await?;
        let found = details["reasons"].as_array().context("reasons")?;
        let is_named = |reason: &&str| found.iter().any(|found| found.as_str().is_some_and(|f| f.contains(*reason)));
        ensure!(details["state"] == state && reasons.iter().all(is_named), "{details}");
        ensure!(reasons.is_empty() == found.is_empty(), "{details}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_clickhouse_degrades_the_service_and_raises_its_alerts() -> Result<()> {
    let settings = ["--clickhouse-timeout-ms", "1000", "--stall-after-seconds", "1"];
    let mut service = Service::started(&[&settings, &MAIL[..]].concat(), &[("docs", "docs.example.org")]).await?;
    let month = schemas::Hour::of(chrono::Utc::now()).month().to_string();
    let page = r#"{"url":"https://docs.example.org/a.html"}"#;
    send(&service, page, 202).await?;
    send(&service, r#"{"url":"https://elsewhere.example.org/"}"#, 404).await?;
    service.counted("docs", &month, 1).await?;
    says(&service, "ready", &[]).await?;

    // Rows can be read before the flush that wrote them has ended.
    eventually("the flush to end", async || {
        let found = scrape(service.metrics()).await?;
        ensure!(sample(&found, "headcount_flush_seconds_count")? != "0", "no flush has ended");
        Ok(())
    })
    .await?;
    let healthy = is_documented("serve", service.metrics()).await?;
    ensure!(sample(&healthy, r#"headcount_beacons_total{outcome="accepted"}"#)? == "1");
    let beacons: u64 = samples(&healthy)
        .iter()
        .filter(|(series, _)| series.starts_with("headcount_beacons_total{"))
        .map(|(_, value)| value.parse::<u64>().map_err(anyhow::Error::from))
        .sum::<Result<u64>>()?;
    ensure!(beacons == 2 && sample(&healthy, "headcount_beacon_seconds_count")? == "2", "{healthy}");
    ensure!(sample(&healthy, r#"headcount_report_seconds_count{form="json"}"#)? != "0", "{healthy}");
    ensure!(sample(&healthy, r#"headcount_report_answers_total{status="200"}"#)? != "0", "{healthy}");
    ensure!(sample(&healthy, "headcount_flush_seconds_count")? != "0", "{healthy}");
    alerts_fire(&healthy, &healthy, &[])?;

    // The supervisor ends an engine that answers nothing for 15 s, and starts another.
    let engine = std::fs::read_to_string(service.data().join("clickhouse/engine.json"))?;
    let pid = serde_json::from_str::<serde_json::Value>(&engine)?["pid"].as_u64().context("a pid")?;
    ensure!(Command::new("kill").args(["-STOP", &pid.to_string()]).status()?.success());
    send(&service, page, 202).await?;
    let why = ["ClickHouse does not answer", "ClickHouse does not take rows", "nothing has been written to ClickHouse"];
    says(&service, "degraded", &why).await?;
    let stopped = scrape(service.metrics()).await?;
    // A beacon is taken all the same.
    send(&service, page, 202).await?;
    ensure!(sample(&stopped, r#"headcount_readiness{state="degraded"}"#)? == "1", "{stopped}");
    ensure!(sample(&stopped, "headcount_flush_failures_total")? != "0", "{stopped}");
    alerts_fire(&healthy, &stopped, &STOPPED)?;

    service.counted("docs", &month, 3).await?;
    says(&service, "ready", &[]).await?;
    let restarted = scrape(service.metrics()).await?;
    ensure!(sample(&restarted, "headcount_clickhouse_restarts_total")? == "1", "{restarted}");
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_rules_and_board_name_no_other() -> Result<()> {
    let mut service = Service::started(&MAIL, &[]).await?;
    let directory = tempfile::tempdir()?;
    let mut exists: BTreeSet<String> = samples(&is_documented("serve", service.metrics()).await?)
        .keys()
        .filter_map(|series| series.split('{').next().map(str::to_owned))
        .collect();
    for name in ["ingest", "aggregate", "query"] {
        let (mut process, metrics) = role(&service, directory.path(), name).await?;
        let scrape = is_documented(name, metrics).await?;
        // Of a partition's metrics there is the type, and no value without a broker.
        exists.extend(types(&scrape).keys().map(|&name| name.to_owned()));
        process.kill().await?;
    }
    service.stop().await?;

    let rules = document("alerts.yml")?;
    for name in names(&rules) {
        ensure!(exists.contains(&name), "docs/alerts.yml has {name}, which no scrape has");
    }
    let path = |name: &str| docs(name).display().to_string();
    promtool(&["check", "rules", &path("alerts.yml")], None)?;
    promtool(&["test", "rules", &path("alerts_test.yml")], None)?;
    let tested = document("alerts_test.yml")?;
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        ensure!(tested.contains(&format!("alertname: {alert}\n")), "docs/alerts_test.yml does not test {alert}");
    }

    let board: serde_json::Value = serde_json::from_str(&document("grafana.json")?)?;
    let expressions = expressions(&board);
    ensure!(!expressions.is_empty(), "the board has panels");
    for expression in expressions {
        let named = names(expression);
        ensure!(!named.is_empty(), "{expression}");
        for name in named {
            ensure!(exists.contains(&name), "docs/grafana.json has {name}, which no scrape has");
        }
    }
    Ok(())
}
