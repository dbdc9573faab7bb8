//! Imports of past months: every view counts once, in its hour and on its page; a repeat changes nothing, a killed import is invisible, a removed
//! one is gone.

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Datelike, Months, Utc};
use clickhouse::Client;
use harness::random::mix;
use harness::service::{PATIENCE, Service, binary, eventually};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

const AGENTS: [&str; 3] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
];
/// Lines of the long log of the first story; in the environment, up to a million.
const LINES: u64 = 20_000;
/// Standard deviations of the sketch that an estimate may be off, and the largest of them.
const VISITORS_MAX_ERROR: f64 = 4.0 * 0.0081;

/// What a log must count as.
#[derive(Default)]
struct Truth {
    views: u64,
    /// Views of each hour of the month.
    hours: Vec<u64>,
    /// By path and status.
    pages: BTreeMap<(String, u16), u64>,
    /// Numbers of readers.
    readers: BTreeSet<u64>,
    robots: BTreeMap<&'static str, u64>,
    ai_pages: BTreeMap<String, u64>,
}

impl Truth {
    /// The truth of two logs of one month.
    fn and(mut self, other: Truth) -> Truth {
        self.views += other.views;
        self.hours.iter_mut().zip(other.hours).for_each(|(views, more)| *views += more);
        other.pages.into_iter().for_each(|(page, views)| *self.pages.entry(page).or_default() += views);
        self.readers.extend(other.readers);
        other.robots.into_iter().for_each(|(kind, views)| *self.robots.entry(kind).or_default() += views);
        other.ai_pages.into_iter().for_each(|(page, views)| *self.ai_pages.entry(page).or_default() += views);
        self
    }
}

/// The month that ended two to three months ago, as its start.
fn month() -> Result<DateTime<Utc>> {
    let now = Utc::now();
    let first = now.date_naive().with_day(1).context("a first day")?.checked_sub_months(Months::new(3));
    Ok(first.context("a month")?.and_hms_opt(0, 0, 0).context("midnight")?.and_utc())
}

fn name(month: DateTime<Utc>) -> String {
    month.format("%Y-%m").to_string()
}

fn hours_of(month: DateTime<Utc>) -> usize {
    ((month + Months::new(1)) - month).num_hours() as usize
}

/// The `number`th line of an invented log, with what it counts as.
fn line(month: DateTime<Utc>, number: u64, is_json: bool, truth: &mut Truth) -> String {
    let random = mix(number);
    let hour = (random >> 8) % hours_of(month) as u64;
    let time = month + chrono::TimeDelta::seconds((hour * 3600 + random % 3600) as i64);
    let path = format!("/guide/page-{}", (random >> 20) % 40);
    let status = [200, 200, 200, 304, 404, 301][(random >> 32) as usize % 6];
    let reader = (random >> 40) % 4_000;
    let (client, agent) = match reader % 50 {
        0 => ("198.51.100.7".to_owned(), "Mozilla/5.0 (compatible; GPTBot/1.2; +https://openai.com/gptbot)"),
        1 => ("198.51.100.8".to_owned(), "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"),
        _ => (format!("203.0.{}.{}", reader >> 8, reader & 255), AGENTS[reader as usize % 3]),
    };
    if status != 301 {
        let kind = ["ai_training", "search"].get(reader as usize % 50);
        match kind {
            Some(kind) => {
                *truth.robots.entry(kind).or_default() += 1;
                if *kind == "ai_training" {
                    *truth.ai_pages.entry(path.clone()).or_default() += 1;
                }
            }
            None => {
                truth.views += 1;
                truth.hours.resize(hours_of(month), 0);
                truth.hours[hour as usize] += 1;
                let shown = if status == 304 { 200 } else { status };
                *truth.pages.entry((path.clone(), shown)).or_default() += 1;
                truth.readers.insert(reader);
            }
        }
    }
    if is_json {
        format!(
            r#"{{"level":"info","ts":{}.5,"request":{{"client_ip":"{client}","method":"GET","host":"docs.example.org","uri":"{path}","headers":{{"User-Agent":["{agent}"]}}}},"status":{status}}}"#,
            time.timestamp()
        )
    } else {
        // An hour to the west: the hour is the one in UTC.
        let local = (time - chrono::TimeDelta::hours(1)).format("%d/%b/%Y:%H:%M:%S -0100");
        format!("{client} - - [{local}] \"GET {path} HTTP/1.1\" {status} 12 \"-\" \"{agent}\"")
    }
}

/// Lines `from` to `to`, and their truth.
fn log(month: DateTime<Utc>, from: u64, to: u64, is_json: bool) -> (String, Truth) {
    let (mut text, mut truth) = (String::new(), Truth::default());
    for number in from..to {
        let line = line(month, number, is_json, &mut truth);
        let _ = writeln!(text, "{line}");
    }
    (text, truth)
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

fn written(directory: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    fs::write(&path, text)?;
    Ok(path)
}

fn as_text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of text")
}

/// Views by hour and by page of the closed month.
async fn closed(client: &Client) -> Result<(Vec<u64>, BTreeMap<(String, u16), u64>, u64)> {
    let sql = "SELECT hour_views, visitors FROM month_closed FINAL WHERE project = 'docs'";
    let (hours, visitors) = client.query(sql).fetch_one::<(Vec<u64>, u64)>().await.context("no closed month")?;
    let sql = "SELECT path, status, views FROM month_closed_page FINAL WHERE project = 'docs'";
    let pages = client.query(sql).fetch_all::<(String, u16, u64)>().await?;
    Ok((hours, pages.into_iter().map(|(path, status, views)| ((path, status), views)).collect(), visitors))
}

/// The closed month and its report have exactly this truth.
async fn is_exact(service: &Service, month: DateTime<Utc>, truth: &Truth) -> Result<()> {
    let (hours, pages, visitors) = closed(&service.clickhouse()?).await?;
    ensure!(hours == truth.hours, "hours are not exact: {hours:?}");
    ensure!(pages == truth.pages, "pages are not exact: {pages:?}");
    let error = (visitors as f64 / truth.readers.len() as f64 - 1.0).abs();
    println!("{} views exact; {visitors} visitors of {}, off by {error:.4}", truth.views, truth.readers.len());
    ensure!(error < VISITORS_MAX_ERROR, "{visitors} visitors of {}", truth.readers.len());
    let report = service.counted("docs", &name(month), truth.views).await?;
    let kinds = report["robots"]["kinds"].as_array().context("robots")?;
    let kinds: BTreeMap<&str, u64> =
        kinds.iter().filter_map(|kind| Some((kind["kind"].as_str()?, kind["views"].as_u64()?))).collect();
    ensure!(kinds == truth.robots, "{kinds:?}, expected {:?}", truth.robots);
    let most = report["robots"]["ai_pages"][0].clone();
    let path = most["path"].as_str().context("a page that AI fetches")?;
    ensure!(most["views"].as_u64() == truth.ai_pages.get(path).copied(), "{most}");
    ensure!(most["views"].as_u64() == truth.ai_pages.values().max().copied(), "{most}");
    Ok(())
}

/// Nothing of the month is counted.
async fn is_empty(service: &Service, month: DateTime<Utc>) -> Result<()> {
    let report = service.report("docs", &name(month)).await?;
    ensure!(report["totals"]["views"] == 0 && report["robots"]["total"] == 0, "{}", report["totals"]);
    let pages = report["pages"]["items"].as_array().context("pages")?;
    ensure!(pages.is_empty(), "{pages:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_month_is_counted_once_in_two_formats_and_can_be_removed() -> Result<()> {
    let lines = std::env::var("HEADCOUNT_IMPORT_LINES").ok().and_then(|text| text.parse().ok()).unwrap_or(LINES);
    let mut service = Service::started(&[], &[("docs", "docs.example.org")]).await?;
    let (home, month) = (tempfile::tempdir()?, month()?);
    let (combined, of_combined) = log(month, 0, lines / 2, false);
    let (json, of_json) = log(month, lines / 2, lines, true);
    let truth = of_combined.and(of_json);
    let combined_path = written(home.path(), "access.log.1", &combined)?;
    let json_path = written(home.path(), "caddy.log", &json)?;
    let files = ["--host", "docs.example.org", as_text(&combined_path)?, as_text(&json_path)?];
    let said = done(&service, &files).await?;
    println!("{said}");
    ensure!(said.contains("is closed") && said.contains("is complete: 2 files"), "{said}");
    is_exact(&service, month, &truth).await?;

    // Again, under another name, and compressed.
    let said = done(&service, &files).await?;
    ensure!(
        said.contains("skipped, the same as access.log.1 of import") && said.contains("nothing was imported"),
        "{said}"
    );
    let rotated = written(home.path(), "access.log.7", &combined)?;
    let zipped = Command::new("gzip").arg(&rotated).status().await?;
    ensure!(zipped.success(), "gzip failed");
    let said = done(&service, &[as_text(&home.path().join("access.log.7.gz"))?]).await?;
    ensure!(said.contains("skipped, the same as access.log.1 of import"), "{said}");
    // With more lines behind it, it is refused as a whole.
    let (more, of_more) = log(month, lines, lines + 100, false);
    let grown = written(home.path(), "grown.log", &(combined.clone() + &more))?;
    let (code, said) = imported(&service, &["--host", "docs.example.org", as_text(&grown)?]).await?;
    ensure!(code == Some(1) && said.contains("of its text are in access.log.1 of import"), "{code:?}: {said}");
    ensure!(said.contains("nothing was imported") && !said.contains("203.0."), "{said}");
    is_exact(&service, month, &truth).await?;
    ensure!(ids(&service).await?.len() == 1, "a refused import is listed");

    // A later import of the month adds views, and no visitors.
    let late = written(home.path(), "late.log", &more)?;
    let said = done(&service, &["--host", "docs.example.org", as_text(&late)?]).await?;
    ensure!(said.contains("views without visitors, since"), "{said}");
    let report = service.counted("docs", &name(month), truth.views + of_more.views).await?;
    ensure!(report["totals"]["late_views"] == of_more.views, "{}", report["totals"]);
    let imports = ids(&service).await?;
    let [first, second] = imports.as_slice() else { anyhow::bail!("{imports:?}") };
    service.done(&["import", "remove", second]).await?;
    is_exact(&service, month, &truth).await?;

    // Removed, the month has nothing, and can be imported with visitors again.
    service.done(&["import", "remove", first]).await?;
    ensure!(ids(&service).await?.is_empty(), "a removed import is listed");
    eventually("the report to have nothing", async || is_empty(&service, month).await).await?;
    done(&service, &files).await?;
    is_exact(&service, month, &truth).await?;
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_import_is_invisible_or_finished_by_the_next_one() -> Result<()> {
    let mut service = Service::started(&[], &[("docs", "docs.example.org")]).await?;
    let (home, month) = (tempfile::tempdir()?, month()?);
    let (text, truth) = log(month, 0, 6_000, false);
    let path = written(home.path(), "access.log", &text)?;
    let files = ["--host", "docs.example.org", "--window-records", "1000", as_text(&path)?];
    // In the first window, in later ones, and before all rows are stated to be written.
    for point in ["page:1", "site:1", "ledger:1", "breakdown:3", "robot:5", "ledger:6"] {
        let (code, said) = imported(&service, &[&["--abort-at", point], files.as_slice()].concat()).await?;
        ensure!(code.is_none(), "{point}: {code:?}: {said}");
        is_empty(&service, month).await.context(point)?;
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
    is_empty(&service, month).await?;

    // While its rows are published.
    let point = format!("robot:{}", published(&truth));
    let (code, said) = imported(&service, &[&["--abort-at", &point], files.as_slice()].concat()).await?;
    ensure!(code.is_none() && said.contains("views of people"), "{code:?}: {said}");
    let list = service.done(&["import", "list"]).await?;
    ensure!(list.contains("staged"), "{point}: {list}");
    let said = done(&service, &files).await?;
    ensure!(said.contains("skipped, the same as access.log of import"), "{said}");
    is_exact(&service, month, &truth).await?;
    let list = service.done(&["import", "list"]).await?;
    ensure!(list.contains("complete") && !list.contains("running"), "{list}");
    let sql = "SELECT count() FROM system.databases WHERE name LIKE 'headcount_import_%'";
    ensure!(client.query(sql).fetch_one::<u64>().await? == 0, "a killed import has left a database");
    service.stop().await
}

/// How often a step is passed until the import is published: once a window of 1,000 records, once for the ledger's last row, and then.
fn published(truth: &Truth) -> u64 {
    let records = truth.views + truth.robots.values().sum::<u64>();
    records.div_ceil(1000) + 2
}
