//! Backup and restore: beside a service that accepts beacons, with every figure compared; and data that must not come back.

use anyhow::{Context, Result, ensure};
use clickhouse::Client;
use harness::clickhouse::Engine;
use harness::http::{self, Connection};
use harness::service::{Service, binary, eventually};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const MONTH: &str = "2026-06";
const START: [&str; 2] = ["--clock-start", "2026-06-10T10:00:00Z"];
/// After the default of `close_after_hours`.
const DUE: [&str; 2] = ["--clock-start", "2026-07-05T10:00:00Z"];
/// After the default of `retention_months`.
const PAST: [&str; 2] = ["--clock-start", "2028-09-05T10:00:00Z"];
const PRIVATE: &str = "/v1/projects/private/reports/2026-06";
const BEHIND_PROXY: [&str; 4] = ["--trusted-proxy", "127.0.0.1", "--client-rate", "0"];
/// All tables with figures or the registry.
const TABLES: [&str; 22] = [
    "site_hourly",
    "page_daily",
    "breakdown_window",
    "not_found_daily",
    "rejection_daily",
    "robot_daily",
    "robot_page_daily",
    "rules_daily",
    "reported_missing_daily",
    "ledger",
    "month_close",
    "month_closed",
    "month_closed_page",
    "month_closed_breakdown",
    "month_closed_not_found",
    "month_closed_robot",
    "month_closed_robot_page",
    "month_closed_rules",
    "month_closed_reported_missing",
    "delivery",
    "project",
    "token",
];
/// How many of these have rows per window.
const WINDOWED: usize = 10;

/// The view of this number: pages, visitors, referrers and missing pages repeat in different rhythms.
async fn view(connection: &mut Connection, number: u64) -> Result<()> {
    let agent = match number % 3 {
        0 => "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
        1 => "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
        _ => "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    };
    let from = format!("10.9.{}.{}", number % 3, number % 97 + 1);
    let headers = [("user-agent", agent), ("x-forwarded-for", from.as_str())];
    let status = if number.is_multiple_of(11) { 404 } else { 200 };
    let body = format!(
        r#"{{"project":"docs","url":"https://docs.example/page-{}.html","referrer":"https://site-{}.example/","status":{status},"language":"de"}}"#,
        number % 17,
        number % 5
    );
    let answer = connection.send("POST", "/v1/page", &headers, body).await?;
    ensure!(answer.status == 202, "{}", answer.status);
    Ok(())
}

/// One sender, so that the record at an offset is the view of that number.
async fn views(service: &Service, numbers: std::ops::Range<u64>) -> Result<()> {
    let mut connection = Connection::open(service.address()).await?;
    for number in numbers {
        view(&mut connection, number).await?;
    }
    Ok(())
}

/// Waits until the ledger has this many records.
async fn counted(service: &Service, records: u64) -> Result<()> {
    counted_in(&service.clickhouse()?, records).await
}

async fn counted_in(client: &Client, records: u64) -> Result<()> {
    eventually("the ledger to have all records", async || {
        let sum = client.query("SELECT sum(seen) FROM ledger FINAL").fetch_one::<u64>().await?;
        ensure!(sum == records, "{sum} of {records}");
        Ok(())
    })
    .await
}

async fn rows(client: &Client, sql: &str) -> Result<String> {
    let bytes = client.query(sql).fetch_bytes("JSONEachRow")?.collect().await.context(sql.to_owned())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Every column of every row, sketches included.
async fn all_rows(client: &Client) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for table in TABLES {
        let sketched = ["site_hourly", "page_daily"].contains(&table);
        let columns = if sketched { "* REPLACE (hex(sketch) AS sketch)" } else { "*" };
        let rows = rows(client, &format!("SELECT {columns} FROM {table} FINAL ORDER BY ALL")).await?;
        all.push(format!("{table}\n{rows}"));
    }
    Ok(all)
}

/// Every figure, without its log and its time of writing.
async fn all_figures(service: &Service) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for table in &TABLES[..WINDOWED] {
        let sql = match *table {
            "ledger" => {
                "SELECT sum(seen), sum(accepted), sum(duplicate), sum(tallies), sum(undecodable) FROM ledger FINAL"
                    .to_owned()
            }
            "site_hourly" | "page_daily" => format!(
                "SELECT * EXCEPT (stream, window_start, next_offset) REPLACE (hex(sketch) AS sketch) FROM {table} FINAL ORDER BY ALL"
            ),
            _ => format!("SELECT * EXCEPT (stream, window_start, next_offset) FROM {table} FINAL ORDER BY ALL"),
        };
        all.push(format!("{table}\n{}", rows(&service.clickhouse()?, &sql).await?));
    }
    Ok(all)
}

fn is_equal(found: &[String], expected: &[String]) -> Result<()> {
    for (found, expected) in found.iter().zip(expected) {
        if found != expected {
            let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
            anyhow::bail!(
                "{}: {} lines, expected {}; first difference {differs:?}",
                found.lines().next().unwrap_or_default(),
                found.lines().count(),
                expected.lines().count()
            );
        }
    }
    ensure!(found.len() == expected.len(), "{} tables of {}", found.len(), expected.len());
    Ok(())
}

/// Runs a headcount command on a data directory; returns its outcome.
async fn run(data: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary()?);
    command.args(arguments).arg("--data").arg(data);
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Restores a backup into the data directory of a service that never ran. Returns the command's output.
async fn restored(service: &Service, backup: &Path, more: &[&str]) -> Result<String> {
    let backup = backup.display().to_string();
    let output = run(&service.data(), &[&["restore", backup.as_str()], more].concat()).await?;
    ensure!(output.status.success(), "{}", printed(&output));
    Ok(printed(&output))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of this test is text")
}

struct Directory {
    directory: tempfile::TempDir,
}

impl Directory {
    fn new() -> Result<Self> {
        Ok(Directory { directory: tempfile::tempdir()? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// A copy of the visitor key, and nothing else.
fn copy_key(from: &Service, to: &Service) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let keys = to.data().join("keys");
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&keys)?;
    std::fs::copy(from.data().join("keys/visitor.key"), keys.join("visitor.key"))?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_has_every_figure_of_one_moment() -> Result<()> {
    let place = Directory::new()?;
    let mut service = Service::new(&BEHIND_PROXY)?;
    service.start(&START).await?;
    service.register(&[("docs", "docs.example")]).await?;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = tokio::spawn({
        let (stop, sent, address) = (Arc::clone(&stop), Arc::clone(&sent), service.address());
        async move {
            let mut connection = Connection::open(address).await?;
            while !stop.load(Ordering::Relaxed) {
                view(&mut connection, sent.load(Ordering::Relaxed)).await?;
                sent.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }
    });
    let reached = async |views: u64| {
        eventually("more views", async || {
            ensure!(sent.load(Ordering::Relaxed) >= views, "{}", sent.load(Ordering::Relaxed));
            Ok(())
        })
        .await
    };
    reached(300).await?;
    let backup = place.path("loaded");
    let said = service.done(&["backup", text(&backup)]).await?;
    ensure!(said.contains("1 projects") && said.contains("counted      log"), "{said}");
    let at_end = sent.load(Ordering::Relaxed);
    reached(at_end + 100).await?;
    stop.store(true, Ordering::Relaxed);
    load.await??;
    let total = sent.load(Ordering::Relaxed);
    counted(&service, total).await?;
    let manifest: Value = serde_json::from_str(&std::fs::read_to_string(backup.join("manifest.json"))?)?;
    ensure!(manifest["one_moment"] == true && manifest["sketches"] == true, "{manifest}");
    let at_backup = manifest["ledger"][0]["next_offset"].as_u64().context("next_offset")?;
    let (committed, end) = (manifest["journal"]["commit"]["next_offset"].as_u64(), manifest["journal"]["end"].as_u64());
    ensure!(committed.is_some_and(|committed| committed <= at_backup), "{manifest}");
    ensure!(end.is_some_and(|end| end >= at_backup && end <= total), "{manifest}");
    println!("{at_backup} views counted at the backup, {total} accepted by the end");

    // The figures at the backup, counted by another service from the same views and with the same key.
    let mut truth = Service::new(&BEHIND_PROXY)?;
    copy_key(&service, &truth)?;
    truth.start(&START).await?;
    truth.register(&[("docs", "docs.example")]).await?;
    views(&truth, 0..at_backup).await?;
    counted(&truth, at_backup).await?;
    let mut fresh = Service::new(&BEHIND_PROXY)?;
    let said = restored(&fresh, &backup, &START).await?;
    ensure!(said.contains("0 min old") && said.contains("no visitor key"), "{said}");
    fresh.start(&START).await?;
    is_equal(&all_figures(&fresh).await?, &all_figures(&truth).await?)?;
    fresh.opened("docs").await?;
    let (found, expected) = (report(&fresh).await?, report(&truth).await?);
    ensure!(found == expected, "{found}\n{expected}");
    // It continues to count, with a new key, and reports no other node.
    views(&fresh, 0..30).await?;
    counted(&fresh, at_backup + 30).await?;
    let state = fresh.state().await?;
    ensure!(!fresh.log().contains("other endpoints have another visitor key"), "{}\n{state}", fresh.log());
    truth.stop().await?;
    fresh.stop().await?;

    with_the_journal(service, &backup, total).await
}

/// The backup is restored beside the journal of the service, which has continued: the missing views are counted again.
async fn with_the_journal(mut service: Service, backup: &Path, total: u64) -> Result<()> {
    let (final_figures, final_report) = (all_figures(&service).await?, report(&service).await?);
    // A backup of a service at rest has every row.
    let place = Directory::new()?;
    let quiet = place.path("quiet");
    service.done(&["backup", text(&quiet)]).await?;
    let expected = all_rows(&service.clickhouse()?).await?;
    let again = run(&service.data(), &["backup", text(&quiet)]).await?;
    ensure!(!again.status.success() && printed(&again).contains("name a new directory"), "{}", printed(&again));
    ensure!(quiet.join("manifest.json").exists(), "the older backup is gone");
    service.stop().await?;
    let mut fresh = Service::new(&BEHIND_PROXY)?;
    restored(&fresh, &quiet, &START).await?;
    fresh.start(&START).await?;
    is_equal(&all_rows(&fresh.clickhouse()?).await?, &expected)?;
    fresh.stop().await?;
    let refused = run(&fresh.data(), &["restore", text(&quiet)]).await?;
    let message = printed(&refused);
    ensure!(!refused.status.success() && message.contains("is not empty") && message.contains("store"), "{message}");

    let mut fresh = Service::new(&BEHIND_PROXY)?;
    copy_key(&service, &fresh)?;
    std::fs::copy(service.data().join("journal.redb"), fresh.data().join("journal.redb"))?;
    restored(&fresh, backup, &START).await?;
    fresh.start(&START).await?;
    counted(&fresh, total).await?;
    is_equal(&all_figures(&fresh).await?, &final_figures)?;
    ensure!(report(&fresh).await? == final_report, "the report differs");
    fresh.stop().await?;
    super::audit_is_clean(&fresh).await
}

/// The month's complete report.
async fn report(service: &Service) -> Result<Value> {
    let mut report = service.report("docs", MONTH).await?;
    // The time of the computation.
    if let Some(report) = report.as_object_mut() {
        report.remove("generated_at");
    }
    Ok(report)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_erased_and_revoked_does_not_come_back() -> Result<()> {
    let place = Directory::new()?;
    let mut service = Service::new(&BEHIND_PROXY)?;
    service.start(&START).await?;
    service.register(&[("docs", "docs.example"), ("kept", "kept.example")]).await?;
    service.done(&["project", "add", "private", "--host", "private.example"]).await?;
    views(&service, 0..60).await?;
    counted(&service, 60).await?;
    let totals = report(&service).await?["totals"].clone();
    let token = service.token(None).await?;
    let id = service.done(&["token", "list"]).await?.lines().nth(1).context("a token")?[..16].to_owned();
    let backup = place.path("backup");
    service.done(&["backup", text(&backup)]).await?;
    let of_backup = std::fs::read(backup.join("projects.json"))?;
    ensure!(!String::from_utf8_lossy(&of_backup).contains(&token), "the backup has a token");
    ensure!(std::fs::read_dir(&backup)?.count() == 3, "the backup has more than three files");
    service.done(&["project", "erase", "docs", "--yes"]).await?;
    service.done(&["token", "revoke", &id]).await?;
    service.stop().await?;
    let erased = service.data().join("erased.json");

    // Without the file: one warning, with both dates, and they are restored.
    let mut fresh = Service::new(&BEHIND_PROXY)?;
    let said = restored(&fresh, &backup, &START).await?;
    let created: Value = serde_json::from_str(&std::fs::read_to_string(backup.join("manifest.json"))?)?;
    let created = created["created"].as_str().context("created")?;
    let date = &created[..10];
    ensure!(said.matches("warning").count() == 1 && said.matches(date).count() >= 2, "{said}");
    fresh.start(&START).await?;
    fresh.opened("docs").await?;
    ensure!(http::get_as(fresh.address(), PRIVATE, &token).await?.status == 200, "the token is not back");
    ensure!(report(&fresh).await?["totals"] == totals, "the figures are not back");
    fresh.stop().await?;

    // With the file.
    let mut fresh = Service::new(&BEHIND_PROXY)?;
    std::fs::create_dir_all(fresh.data())?;
    std::fs::copy(&erased, fresh.data().join("erased.json"))?;
    let said = restored(&fresh, &backup, &START).await?;
    ensure!(said.contains("project docs was erased on") && said.contains("is revoked again"), "{said}");
    ensure!(!said.contains("warning"), "{said}");
    fresh.start(&START).await?;
    fresh.opened("kept").await?;
    ensure!(http::get_as(fresh.address(), PRIVATE, &token).await?.status == 401, "the token is back");
    ensure!(http::get(fresh.address(), "/v1/projects/docs/reports/2026-06").await?.status != 200);
    for table in ["site_hourly", "page_daily", "breakdown_window"] {
        let sql = format!("SELECT count() FROM {table} WHERE project = 'docs'");
        ensure!(fresh.clickhouse()?.query(&sql).fetch_one::<u64>().await? == 0, "{table}");
    }
    fresh.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_is_due_is_closed_before_it_is_served() -> Result<()> {
    let place = Directory::new()?;
    let mut service = Service::new(&BEHIND_PROXY)?;
    service.start(&START).await?;
    service.register(&[("docs", "docs.example")]).await?;
    views(&service, 0..200).await?;
    counted(&service, 200).await?;
    let (whole, bare) = (place.path("whole"), place.path("bare"));
    service.done(&["backup", text(&whole)]).await?;
    service.done(&["backup", "--without-sketches", text(&bare)]).await?;
    let expected = report(&service).await?;
    service.stop().await?;

    let mut fresh = Service::new(&BEHIND_PROXY)?;
    let said = restored(&fresh, &whole, &DUE).await?;
    ensure!(said.contains("2026-06 is closed") && said.contains("its sketches are deleted"), "{said}");
    fresh.start(&DUE).await?;
    fresh.opened("docs").await?;
    let found = report(&fresh).await?;
    ensure!(found["period"]["closed"] == true, "{}", found["period"]);
    for part in ["views", "visitors"] {
        ensure!(found["totals"][part] == expected["totals"][part], "{}\n{}", found["totals"], expected["totals"]);
    }
    fresh.stop().await?;

    let mut fresh = Service::new(&BEHIND_PROXY)?;
    let said = restored(&fresh, &bare, &START).await?;
    ensure!(said.contains("no visitor sketches: reports of 2026-06"), "{said}");
    fresh.start(&START).await?;
    fresh.opened("docs").await?;
    let found = report(&fresh).await?;
    ensure!(found["totals"]["views"] == expected["totals"]["views"], "{}", found["totals"]);
    ensure!(found["totals"]["visitors"]["estimate"] == 0, "{}", found["totals"]);
    for table in ["site_hourly", "page_daily"] {
        let sql = format!("SELECT count(), countIf(length(sketch) > 1) FROM {table}");
        let (rows, sketches) = fresh.clickhouse()?.query(&sql).fetch_one::<(u64, u64)>().await?;
        ensure!(rows > 0 && sketches == 0, "{table}: {rows} rows, {sketches} sketches");
    }
    fresh.stop().await?;

    let mut fresh = Service::new(&BEHIND_PROXY)?;
    let said = restored(&fresh, &whole, &PAST).await?;
    ensure!(said.contains("rows past their time are removed"), "{said}");
    fresh.start(&PAST).await?;
    for table in &TABLES[..WINDOWED] {
        let sql = format!("SELECT count() FROM {table} FINAL");
        ensure!(fresh.clickhouse()?.query(&sql).fetch_one::<u64>().await? == 0, "{table} has rows");
    }
    fresh.stop().await?;

    // A damaged backup, and an unfinished one.
    let archive = whole.join("clickhouse.tar");
    let mut bytes = std::fs::read(&archive)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&archive, bytes)?;
    let fresh = Service::new(&[])?;
    let refused = run(&fresh.data(), &["restore", text(&whole)]).await?;
    ensure!(!refused.status.success() && printed(&refused).contains("is damaged"), "{}", printed(&refused));
    std::fs::remove_file(whole.join("manifest.json"))?;
    let refused = run(&fresh.data(), &["restore", text(&whole)]).await?;
    ensure!(!refused.status.success() && printed(&refused).contains("not finished"), "{}", printed(&refused));
    Ok(())
}

/// A copy of the data directory that followed ClickHouse's symbolic links is refused, and the message says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_followed_links_says_why_it_does_not_start() -> Result<()> {
    let mut service = Service::started(&START, &[("docs", "docs.example")]).await?;
    service.stop().await?;
    let aside = service.data().with_extension("links");
    std::fs::rename(service.data(), &aside)?;
    let copied = Command::new("cp").arg("-rL").args([&aside, &service.data()]).status()?;
    ensure!(copied.success(), "cp failed");
    let log = service.refused(&[]).await?;
    ensure!(log.contains("followed symbolic links") && log.contains("cp -a"), "{log}");
    Ok(())
}

/// With a ClickHouse server the file remains in the server's backup directory.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_clickhouse_server_is_restored_from_it() -> Result<()> {
    let (engine, place) = (Engine::start().await?, Directory::new()?);
    let configure = |service: &Service, database: &str| -> Result<Client> {
        std::fs::create_dir_all(service.data())?;
        let settings = format!("clickhouse_url = \"{}\"\nclickhouse_database = \"{database}\"\n", engine.url()?);
        std::fs::write(service.data().join("headcount.toml"), settings)?;
        Ok(Client::default().with_url(engine.url()?).with_database(database))
    };
    let mut service = Service::new(&BEHIND_PROXY)?;
    let client = configure(&service, "first")?;
    service.start(&START).await?;
    service.register(&[("docs", "docs.example")]).await?;
    views(&service, 0..60).await?;
    counted_in(&client, 60).await?;
    let backup = place.path("backup");
    let said = service.done(&["backup", text(&backup)]).await?;
    ensure!(said.contains("in the backup directory of the ClickHouse server"), "{said}");
    let (expected, totals) = (all_rows(&client).await?, report(&service).await?["totals"].clone());
    service.stop().await?;
    let refused = run(&service.data(), &["restore", text(&backup)]).await?;
    let message = printed(&refused);
    ensure!(!refused.status.success() && message.contains("is not empty") && message.contains("ledger"), "{message}");

    let mut fresh = Service::new(&BEHIND_PROXY)?;
    let client = configure(&fresh, "second")?;
    restored(&fresh, &backup, &START).await?;
    is_equal(&all_rows(&client).await?, &expected)?;
    fresh.start(&START).await?;
    fresh.opened("docs").await?;
    ensure!(report(&fresh).await?["totals"] == totals, "the report differs");
    fresh.stop().await
}

/// Reports of a node before its key was lost do not count as another node.
#[tokio::test(flavor = "multi_thread")]
async fn a_lone_node_with_a_new_key_complains_of_no_other() -> Result<()> {
    let (engine, mut service) = (Engine::start().await?, Service::new(&[])?);
    std::fs::create_dir_all(service.data())?;
    std::fs::write(service.data().join("headcount.toml"), format!("clickhouse_url = \"{}\"\n", engine.url()?))?;
    let client = Client::default().with_url(engine.url()?).with_database("headcount");
    let keys = async || -> Result<(u64, u32)> {
        let sql = "SELECT uniqExact(fingerprint), toUInt32(max(seen)) FROM key_in_use";
        Ok(client.query(sql).fetch_one::<(u64, u32)>().await?)
    };
    let seen = async |number: u64, after: u32| {
        eventually("a key to be reported", async || {
            let (found, last) = keys().await?;
            ensure!(found == number && last > after, "{found} keys, {last}");
            Ok(last)
        })
        .await
    };
    service.start(&[]).await?;
    seen(1, 0).await?;
    service.stop().await?;
    std::fs::remove_dir_all(service.data().join("keys"))?;
    service.start(&[]).await?;
    let first = seen(2, 0).await?;
    // After its next report it has compared at least once.
    seen(2, first).await?;
    let state = service.state().await?;
    ensure!(state["key"]["nodes_with_another"] == 0, "{state}");
    ensure!(!service.log().contains("another visitor key"), "{}", service.log());
    service.stop().await
}
