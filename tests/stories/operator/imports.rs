//! Imports of past months: every view counts once, in its hour and on its page; a repeat changes nothing, a killed import is invisible, a removed
//! one is gone.

use anyhow::{Context, Result, ensure};
use chrono::{Datelike, Months, Utc};
use clickhouse::Client;
use harness::service::{PATIENCE, Service, binary, eventually, loadtest};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// Lines of the first story; `HEADCOUNT_IMPORT_LINES` is another number, such as 1000000.
const LINES: u64 = 8_000;
/// Four standard deviations of the sketch.
const VISITORS_MAX_ERROR: f64 = 4.0 * 0.0081;
/// The files of an invented month, in four formats.
const FILES: [&str; 4] = ["access.log.1", "vhost.log", "caddy.log", "u_ex.log"];

/// What logs must count as.
#[derive(Deserialize)]
struct Truth {
    views: u64,
    /// Views of each hour of the month.
    hours: Vec<u64>,
    /// By path and status.
    pages: BTreeMap<String, BTreeMap<u16, u64>>,
    visitors: u64,
    robots: BTreeMap<String, u64>,
    ai_pages: BTreeMap<String, u64>,
}

/// The month three months ago, as `YYYY-MM`.
fn month() -> Result<String> {
    let first = Utc::now().date_naive().with_day(1).and_then(|first| first.checked_sub_months(Months::new(3)));
    Ok(first.context("a month")?.format("%Y-%m").to_string())
}

/// Invented logs of a month, and their truth.
async fn logs(directory: &Path, month: &str, lines: u64, seed: u64) -> Result<Truth> {
    let (lines, seed) = (lines.to_string(), seed.to_string());
    let mut process = Command::new(loadtest()?);
    process.args(["log", "--month", month, "--lines", &lines, "--seed", &seed, "--directory"]).arg(directory);
    ensure!(process.status().await?.success(), "the logs cannot be made");
    Ok(serde_json::from_slice(&fs::read(directory.join("truth.json"))?)?)
}

/// The command beside a service.
fn import(service: &Service, arguments: &[&str]) -> Result<Command> {
    let mut process = Command::new(binary()?);
    process.args(["import", "--data"]).arg(service.data()).args(arguments).kill_on_drop(true);
    process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(process)
}

/// Runs an import: its exit code, and what it printed.
async fn imported(service: &Service, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = tokio::time::timeout(PATIENCE, import(service, arguments)?.output()).await.context("it hangs")??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout) + &text(&output.stderr)))
}

/// Runs an import that must succeed.
async fn done(service: &Service, arguments: &[&str]) -> Result<String> {
    let (code, text) = imported(service, arguments).await?;
    ensure!(code == Some(0), "{arguments:?}: {code:?}: {text}");
    Ok(text)
}

/// The ids in the list of imports.
async fn ids(service: &Service) -> Result<Vec<String>> {
    let text = service.done(&["import", "list"]).await?;
    let heads = text.lines().filter(|line| !line.starts_with(' ') && *line != "no import");
    Ok(heads.filter_map(|line| line.split(' ').next().map(str::to_owned)).collect())
}

fn as_text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of text")
}

/// Views by hour and by page of the closed month.
async fn closed(client: &Client) -> Result<(Vec<u64>, BTreeMap<String, BTreeMap<u16, u64>>, u64)> {
    let sql = "SELECT hour_views, visitors FROM month_closed FINAL WHERE project = 'docs'";
    let (hours, visitors) = client.query(sql).fetch_one::<(Vec<u64>, u64)>().await.context("no closed month")?;
    let sql = "SELECT path, status, views FROM month_closed_page FINAL WHERE project = 'docs'";
    let mut pages: BTreeMap<String, BTreeMap<u16, u64>> = BTreeMap::new();
    for (path, status, views) in client.query(sql).fetch_all::<(String, u16, u64)>().await? {
        pages.entry(path).or_default().insert(status, views);
    }
    Ok((hours, pages, visitors))
}

/// The closed month and its report have exactly this truth.
async fn is_exact(service: &Service, month: &str, truth: &Truth) -> Result<()> {
    let (hours, pages, visitors) = closed(&service.clickhouse()?).await?;
    ensure!(hours == truth.hours, "hours are not exact: {hours:?}");
    ensure!(pages == truth.pages, "pages are not exact: {pages:?}");
    let error = (visitors as f64 / truth.visitors as f64 - 1.0).abs();
    println!("{} views exact; {visitors} visitors of {}, off by {error:.4}", truth.views, truth.visitors);
    ensure!(error < VISITORS_MAX_ERROR, "{visitors} visitors of {}", truth.visitors);
    let report = service.counted("docs", month, truth.views).await?;
    let kinds = report["robots"]["kinds"].as_array().context("robots")?;
    let kinds: BTreeMap<String, u64> =
        kinds.iter().filter_map(|kind| Some((kind["kind"].as_str()?.to_owned(), kind["views"].as_u64()?))).collect();
    ensure!(kinds == truth.robots, "{kinds:?}, expected {:?}", truth.robots);
    let most = report["robots"]["ai_pages"][0].clone();
    let path = most["path"].as_str().context("a page that AI fetches")?;
    ensure!(most["views"].as_u64() == truth.ai_pages.get(path).copied(), "{most}");
    ensure!(most["views"].as_u64() == truth.ai_pages.values().max().copied(), "{most}");
    Ok(())
}

/// Nothing of the month is counted.
async fn is_empty(service: &Service, month: &str) -> Result<()> {
    let report = service.report("docs", month).await?;
    ensure!(report["totals"]["views"] == 0 && report["robots"]["total"] == 0, "{}", report["totals"]);
    let pages = report["pages"]["items"].as_array().context("pages")?;
    ensure!(pages.is_empty(), "{pages:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_month_is_counted_once_in_four_formats_and_can_be_removed() -> Result<()> {
    let lines = std::env::var("HEADCOUNT_IMPORT_LINES").ok().and_then(|text| text.parse().ok()).unwrap_or(LINES);
    let mut service = Service::started(&[], &[("docs", "docs.example.org")]).await?;
    let (home, month) = (tempfile::tempdir()?, month()?);
    let directory = home.path().join("logs");
    let truth = logs(&directory, &month, lines, 1).await?;
    fs::remove_file(directory.join("truth.json"))?;
    let paths = FILES.map(|name| directory.join(name).display().to_string());
    let files = [&["--host", "docs.example.org"], paths.each_ref().map(String::as_str).as_slice()].concat();
    let said = done(&service, &files).await?;
    println!("{said}");
    ensure!(said.contains("is closed") && said.contains("is complete: 4 files"), "{said}");
    is_exact(&service, &month, &truth).await?;

    // Again, under another name, and compressed.
    let said = done(&service, &files).await?;
    ensure!(
        said.contains("skipped, the same as access.log.1 of import") && said.contains("nothing was imported"),
        "{said}"
    );
    let (rotated, grown, late) =
        (home.path().join("access.log.7"), home.path().join("grown.log"), home.path().join("late"));
    let combined = fs::read(directory.join("access.log.1"))?;
    fs::write(&rotated, &combined)?;
    let zipped = Command::new("gzip").arg(&rotated).status().await?;
    ensure!(zipped.success(), "gzip failed");
    let said = done(&service, &[as_text(&home.path().join("access.log.7.gz"))?]).await?;
    ensure!(said.contains("skipped, the same as access.log.1 of import"), "{said}");
    // With more lines behind it, it is refused as a whole.
    let of_more = logs(&late, &month, 400, 2).await?;
    let late = late.join("access.log.1");
    fs::write(&grown, [combined, fs::read(&late)?].concat())?;
    let (code, said) = imported(&service, &["--host", "docs.example.org", as_text(&grown)?]).await?;
    ensure!(code == Some(1) && said.contains("of its text are in access.log.1 of import"), "{code:?}: {said}");
    ensure!(said.contains("nothing was imported") && !said.contains("198.51."), "{said}");
    is_exact(&service, &month, &truth).await?;
    ensure!(ids(&service).await?.len() == 1, "a refused import is listed");

    // With a line after the running hour, a file is refused: once known, it could not be imported again.
    let tomorrow = (Utc::now() + chrono::Duration::days(1)).format("%d/%b/%Y:%H:%M:%S +0000");
    let line = format!("192.0.2.1 - - [{tomorrow}] \"GET / HTTP/1.1\" 200 12 \"-\" \"Mozilla/5.0\"\n");
    let (mixed, early) = (home.path().join("mixed.log"), home.path().join("early.log"));
    fs::write(&mixed, [fs::read(&late)?.as_slice(), line.as_bytes()].concat())?;
    fs::write(&early, &line)?;
    for (file, expected) in [(&mixed, "1 lines are of the running month"), (&early, "no line is a view that counts")] {
        let (code, said) = imported(&service, &["--host", "docs.example.org", as_text(file)?]).await?;
        ensure!(code == Some(1) && said.contains(expected), "{code:?}: {said}");
    }
    ensure!(ids(&service).await?.len() == 1, "a refused import is listed");

    // A later import of the month adds views, and no visitors.
    let late: Vec<String> = FILES.map(|name| late.with_file_name(name).display().to_string()).to_vec();
    let late: Vec<&str> = ["--host", "docs.example.org"].into_iter().chain(late.iter().map(String::as_str)).collect();
    let said = done(&service, &late).await?;
    ensure!(said.contains("views without visitors, since"), "{said}");
    let report = service.counted("docs", &month, truth.views + of_more.views).await?;
    ensure!(report["totals"]["late_views"] == of_more.views, "{}", report["totals"]);
    let imports = ids(&service).await?;
    let [first, second] = imports.as_slice() else { anyhow::bail!("{imports:?}") };
    service.done(&["import", "remove", second]).await?;
    is_exact(&service, &month, &truth).await?;

    // Removed, the month has nothing, and can be imported with visitors again.
    service.done(&["import", "remove", first]).await?;
    ensure!(ids(&service).await?.is_empty(), "a removed import is listed");
    eventually("the report to have nothing", async || is_empty(&service, &month).await).await?;
    // The month is open and has no rows, so that nothing closes it.
    let said = service.done(&["close"]).await?;
    ensure!(said.contains("no month is to be closed"), "{said}");
    done(&service, &files).await?;
    is_exact(&service, &month, &truth).await?;
    let audit = service.told(&["audit"]).await?;
    ensure!(audit["difference_count"] == 0, "{audit}");
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_import_is_invisible_or_finished_by_the_next_one() -> Result<()> {
    let mut service = Service::started(&[], &[("docs", "docs.example.org")]).await?;
    let (home, month) = (tempfile::tempdir()?, month()?);
    let truth = logs(home.path(), &month, 6_000, 1).await?;
    let paths = FILES.map(|name| home.path().join(name).display().to_string());
    let own = ["--host", "docs.example.org", "--window-records", "1000"];
    let files = [own.as_slice(), paths.each_ref().map(String::as_str).as_slice()].concat();
    // In the first window, in later ones, and before all rows are stated to be written.
    for point in ["page:1", "site:1", "ledger:1", "robot_page:2", "breakdown:3", "robot:5", "ledger:6"] {
        let (code, said) = imported(&service, &[&["--abort-at", point], files.as_slice()].concat()).await?;
        ensure!(code.is_none(), "{point}: {code:?}: {said}");
        is_empty(&service, &month).await.context(point)?;
    }
    // SIGKILL, once it has started to write.
    let mut child = import(&service, &files)?.spawn()?;
    let client = service.clickhouse()?;
    eventually("the import to write", async || {
        let sql = "SELECT count() FROM system.tables WHERE database LIKE 'headcount_import_%'";
        ensure!(client.query(sql).fetch_one::<u64>().await? > 0, "no table yet");
        Ok(())
    })
    .await?;
    let was_killed = child.start_kill().is_ok();
    child.wait().await?;
    ensure!(was_killed, "it had ended");
    is_empty(&service, &month).await?;

    // While its rows are published.
    let point = format!("robot:{}", published(&truth));
    let (code, said) = imported(&service, &[&["--abort-at", point.as_str()], files.as_slice()].concat()).await?;
    ensure!(code.is_none() && said.contains("views of people"), "{code:?}: {said}");
    let list = service.done(&["import", "list"]).await?;
    ensure!(list.contains("staged"), "{point}: {list}");
    let refused =
        service.done(&["close"]).await.map_or_else(|error| format!("{error:#}"), |said| format!("closed: {said}"));
    ensure!(refused.contains("is published or removed in part"), "{refused}");
    // And while the next command publishes them again.
    let (code, said) = imported(&service, &[&["--abort-at", "ledger:1"], files.as_slice()].concat()).await?;
    ensure!(code.is_none(), "{code:?}: {said}");
    let said = done(&service, &files).await?;
    ensure!(said.contains("skipped, the same as access.log.1 of import"), "{said}");
    is_exact(&service, &month, &truth).await?;
    let list = service.done(&["import", "list"]).await?;
    ensure!(list.contains("complete") && !list.contains("running"), "{list}");
    let sql = "SELECT count() FROM system.databases WHERE name LIKE 'headcount_import_%'";
    ensure!(client.query(sql).fetch_one::<u64>().await? == 0, "a killed import has left a database");

    // Without its database, as in a restored backup, a staged import cannot be published, and is removed with what is published of it.
    let import = ids(&service).await?.pop().context("an import")?;
    service.done(&["import", "remove", &import]).await?;
    let (code, said) = imported(&service, &[&["--abort-at", point.as_str()], files.as_slice()].concat()).await?;
    ensure!(code.is_none(), "{code:?}: {said}");
    let import = ids(&service).await?.pop().context("an import")?;
    client.query(&format!("DROP DATABASE headcount_import_{import} SYNC")).execute().await?;
    let said = service.done(&["import", "remove", &import]).await?;
    ensure!(said.contains("is removed") && ids(&service).await?.is_empty(), "{said}");
    is_empty(&service, &month).await?;
    done(&service, &files).await?;
    is_exact(&service, &month, &truth).await?;
    service.stop().await
}

/// How often a step is passed until the import is published: once a window of 1,000 records, once for the ledger's last row, and then.
fn published(truth: &Truth) -> u64 {
    let records = truth.views + truth.robots.values().sum::<u64>();
    records.div_ceil(1000) + 2
}
