//! A month of a docs host through real brokers, the real aggregator and a real ClickHouse: every view is counted, and visitors are within their
//! error, open and closed. An interrupted run continues where it was.

use anyhow::{Context, Result, ensure};
use harness::service::{PATIENCE, eventually, loadtest};
use harness::{clickhouse, kafka};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// Four standard deviations: exceeded by chance once in sixteen thousand months.
const SIGMAS: f64 = 4.0;

async fn month(more: &[&str]) -> Result<Command> {
    let mut command = Command::new(loadtest()?);
    command
        .args(["month", "--preset", "small"])
        .args(["--kafka-bootstrap", &kafka::shared().await?])
        .args(more)
        .env("HEADCOUNT_CLICKHOUSE_URL", clickhouse::shared().await?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    Ok(command)
}

async fn figures(command: &mut Command, json: &Path) -> Result<(Value, String)> {
    let output = tokio::time::timeout(4 * PATIENCE, command.output()).await.context("the month does not end")??;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}\n{said}", output.status);
    let text = std::fs::read_to_string(json).with_context(|| said.clone())?;
    Ok((serde_json::from_str(&text)?, said))
}

/// Records of the month so far, tallies included.
fn records(figures: &Value) -> Result<u64> {
    let of = |name: &str| figures["truth"][name].as_u64().with_context(|| format!("{name}: {figures}"));
    Ok(of("records")? + of("tallies")?)
}

/// The figures agree with the truth in the same file.
fn right(figures: &Value) -> Result<()> {
    let number = |pointer: &str| {
        figures.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("{pointer} in {figures}"))
    };
    let views = number("/truth/views")?;
    ensure!(views > 80_000, "{views} views are no month");
    for part in ["open", "closed"] {
        let counted = number(&format!("/{part}/views"))?;
        let again = number(&format!("/{part}/beyond_window"))?;
        ensure!(counted == views + again, "{part}: {counted} views are counted of {views}, {again} a second time");
        ensure!(again < number("/truth/repeats")? / 10, "{part}: {again} repeats were counted");
        ensure!(number(&format!("/{part}/pages"))? > 1_000, "{part}: too few pages to prove anything");
        let class = figures.pointer(&format!("/{part}/accuracy/0")).context("an estimate")?;
        let of = |name: &str| class[name].as_f64().with_context(|| format!("{name} in {class}"));
        let (error, theory) = (of("rms")?, of("theory")?);
        ensure!(class["from"].as_u64() == Some(number("/truth/visitors")?), "{class}");
        ensure!(error <= SIGMAS * theory, "{part}: visitors are off by {error}, one standard deviation is {theory}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_is_counted_to_the_last_view_and_stays_so_when_it_is_closed() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let json = directory.path().join("month.json");
    let mut command =
        month(&["--window-records", "5000", "--report-probe=2", "--project", "10G", "--seconds", "300"]).await?;
    let (figures, said) = figures(command.arg("--json").arg(&json), &json).await?;
    right(&figures)?;
    ensure!(figures["complete"] == true, "{figures}");
    let reports = &figures["reports"];
    ensure!(reports["reports"].as_u64() > Some(0) && reports["failed"] == 0, "nobody read a report: {said}");
    ensure!(reports["rate"] == 2 && figures["counted"]["cpu"]["query"].as_f64() > Some(0.0), "{reports}: {said}");
    ensure!(said.contains("10,000,000,000 page views a month, by arithmetic"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_was_interrupted_goes_on_where_it_was() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let (json, state) = (directory.path().join("month.json"), directory.path().join("state.json"));
    let (of_state, of_json) = (state.display().to_string(), json.display().to_string());
    let arguments = ["--window-records", "1000000", "--state", &of_state, "--json", &of_json].map(str::to_owned);
    // So few records may wait for the ledger that the time is up before many are sent.
    let mut hurried = month(&["--ahead", "10000", "--seconds", "1"]).await?;
    let output =
        tokio::time::timeout(4 * PATIENCE, hurried.args(&arguments).output()).await.context("it does not end")??;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(!output.status.success() && said.contains("the same command continues from here"), "{said}");
    let hurried: Value = serde_json::from_str(&std::fs::read_to_string(&json).context(said)?)?;
    let sent = records(&hurried)?;
    ensure!(sent > 0 && hurried["sent"] == false && hurried["open"]["views"].as_u64() > Some(0), "{hurried}");
    ensure!(hurried["ended"].as_str().is_some_and(|why| why.contains("--seconds")), "{hurried}");

    let child = month(&["--ahead", "10000", "--seconds", "300"]).await?.args(&arguments).process_group(0).spawn()?;
    let pid = child.id().context("a process id")?.to_string();
    let url = clickhouse::shared().await?;
    eventually("some of the month to be counted", async || {
        let state: Value = serde_json::from_str(&std::fs::read_to_string(&state)?)?;
        let database = format!("headcount_month_{}", state["name"].as_str().context("a name")?);
        let client = ::clickhouse::Client::default().with_url(&url).with_database(database);
        let counted = client.query("SELECT sum(seen) FROM ledger FINAL").fetch_one::<u64>().await?;
        ensure!(counted > sent, "nothing more than {sent} yet");
        Ok(())
    })
    .await?;
    // Like a terminal: to the whole group.
    let killed = Command::new("kill").args(["-INT", "--", &format!("-{pid}")]).status().await?;
    ensure!(killed.success(), "the month had ended before it was interrupted");
    let output = tokio::time::timeout(4 * PATIENCE, child.wait_with_output()).await.context("it does not stop")??;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success() && said.contains("the same command continues from here"), "{said}");
    let first: Value = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    ensure!(first["sent"] == false && first["ended"].is_null() && records(&first)? > sent, "{first}");

    let (whole, _) = figures(month(&["--ahead", "1000000", "--seconds", "300"]).await?.args(&arguments), &json).await?;
    right(&whole)?;
    let of = |name: &str| whole["counted"][name].as_u64().with_context(|| format!("{name}: {whole}"));
    ensure!(whole["complete"] == true && of("before")? == records(&first)?, "{whole}");
    // Earlier records had been counted before: the cost of this run is that of the rest.
    ensure!(of("before")? + of("records")? == records(&whole)?, "{whole}");
    ensure!(!state.exists(), "the state is of no use any more");
    Ok(())
}
