//! Reports of four months that are known in full, one of them closed and one running: every list paged through in every order, ranges
//! against their months, JSON against CSV, validators.

#[path = "reports/cached.rs"]
mod cached;
#[path = "reports/client.rs"]
mod client;
#[path = "reports/failures.rs"]
mod failures;
#[path = "reports/known.rs"]
mod known;
#[path = "reports/page_lists.rs"]
mod page_lists;
#[path = "reports/whole.rs"]
mod whole;

use anyhow::{Context, Result, ensure};
use client::{ReportClient, number};
use harness::http;
use harness::service::Service;
use known::{CLOCK, MONTHS};
use serde_json::{Value, json};
use whole::long_form;

const THRESHOLD: u64 = 10;

/// More pages and values than any single response lists: a file that is read as a whole has all of them, and a truncated list states its full length.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_report_has_every_page_and_a_part_says_that_it_is_one() -> Result<()> {
    let (found, missing, values) = (1_200, 1_250, 1_100);
    let service = Service::started(&["--clock-start", CLOCK], &[("docs", "docs.example")]).await?;
    let client = service.clickhouse()?;
    known::write_many(&client, [found, missing, values]).await?;
    let mut reader = ReportClient::of(&service).await?;
    let span = MONTHS[2];
    let run =
        async |format: &str| service.done(&["report", "docs", span, "--format", format, "--clock-start", CLOCK]).await;

    let figures = long_form(&mut reader, span).await?;
    let of = |section: &str, measure: &str| {
        figures.keys().filter(|names| names[0] == section && names[3] == measure).count()
    };
    let lists = [
        (of("pages", "views"), found + missing),
        (of("not_found", "views"), missing),
        (of("referrers_of_not_found", "views"), missing),
        (figures.keys().filter(|names| names[..2] == ["breakdowns", "version"]).count(), values),
    ];
    ensure!(lists.iter().all(|(told, there)| *told as u64 == *there), "told and there: {lists:?}");
    let path = format!("/v1/projects/docs/reports/{span}.csv");
    let whole = String::from_utf8(reader.get(&path, &[]).await?.body.to_vec())?;
    ensure!(run("csv").await? == whole, "the command's CSV");
    let report: Value = serde_json::from_str(&run("json").await?)?;
    for (list, there) in [("pages", found + missing), ("not_found", missing)] {
        let items = report[list]["items"].as_array().context("items")?;
        ensure!(items.len() as u64 == there && report[list]["next"].is_null(), "{list}: {}", items.len());
        let pages = if list == "pages" { "/pages" } else { "/not-found" };
        let all = reader.all(&format!("/v1/projects/docs/reports/{span}{pages}"), "", 1000).await?;
        ensure!(*items == all, "{list}: the same in the same order");
    }
    ensure!(report["breakdowns"]["version"].as_array().map(Vec::len) == Some(values as usize), "values as JSON");

    // One status, and a part.
    let missing_only = reader.csv(&format!("{path}?pages_status=404")).await?.0;
    let listed = missing_only.iter().filter(|row| row["section"] == "pages" && row["measure"] == "views").count();
    ensure!(listed as u64 == missing, "{listed} of one status");
    let (part, next) = reader.csv(&format!("{path}?pages_limit=7")).await?;
    let listed = part.iter().filter(|row| row["section"] == "pages" && row["measure"] == "views").count();
    let goes_on =
        reader.json(&format!("/v1/projects/docs/reports/{span}?pages_limit=7")).await?["pages"]["next"].take();
    ensure!(listed == 7 && next.is_some() && next.as_deref() == goes_on.as_str(), "{listed}, then {next:?}");

    let (markdown, html) = (run("md").await?, run("html").await?);
    for (text, cut) in [
        (&markdown, "The first 25 of 1,200."),
        (&markdown, "The first 25 of 1,250."),
        (&markdown, "The first 25 of 1,001."),
        (&html, "The first 100 of 2,450."),
        (&html, "The first 8 of 1,250."),
    ] {
        ensure!(text.contains(cut) && text.contains(&path), "{cut} is not said");
    }
    lists_do_not_depend_on_how_they_are_read(&mut reader, &client, span, "2026-02-04T05:00:00Z").await
}

/// The pages of a project with many views are read in several steps, others in one. Its values are aggregated by ClickHouse; those of others by
/// headcount if they are few. The lists are the same.
async fn lists_do_not_depend_on_how_they_are_read(
    reader: &mut ReportClient,
    client: &clickhouse::Client,
    span: &str,
    at: &str,
) -> Result<()> {
    let path = format!("/v1/projects/docs/reports/{span}");
    let day = schemas::Hour::of(at.parse()?).day().0;
    let values = async |of: &str, window: u64, count: u64| {
        let sql = format!(
            "INSERT INTO breakdown_window (project, day, dimensions, values, views, stream, window_start, next_offset) \
             SELECT 'docs', toDate(?), groupArray(item.1), groupArray(item.2), groupArray(item.3), 1, {window}, {} \
             FROM (SELECT ({of}) AS item FROM numbers({count}))",
            window + 9
        );
        anyhow::Ok(client.query(&sql).bind(day).execute().await?)
    };
    values("'language', concat('l', toString(number)), if(number = 0, 50, 4)", 860, 4).await?;
    known::write_hour(client, at, 1, 87).await?;
    let before = reader.computed_json(&path).await?;
    let languages = json!([{"value": "l0", "views": 50}, {"value": "other", "views": 12, "rest": true}]);
    ensure!(before["breakdowns"]["language"] == languages, "{}", before["breakdowns"]["language"]);
    // More values than are read one by one, each below the threshold.
    values("'country', toString(number), 1", 880, 20_001).await?;
    known::write_hour(client, at, 1, 88).await?;
    let mut crowded = reader.computed_json(&path).await?;
    let countries = json!([{"value": "other", "views": 20_001, "rest": true}]);
    ensure!(crowded["breakdowns"]["country"].take() == countries, "{}", crowded["breakdowns"]["country"]);
    let mut fewer = before["breakdowns"].clone();
    fewer["country"].take();
    ensure!(crowded["breakdowns"] == fewer, "{fewer}\n{}", crowded["breakdowns"]);
    let before = reader.computed_json(&path).await?;
    // More paths with referrers than one query reads, and one more view. None of them is listed.
    let sql = "INSERT INTO not_found_daily SELECT 'docs', toDate(?), concat('/nowhere-', toString(number)), 'from.example', 12, 1, 890, 899, 'headcount' \
               FROM numbers(20001)";
    client.query(sql).bind(day).execute().await?;
    known::write_hour(client, at, 1, 89).await?;
    let crowded = reader.computed_json(&path).await?;
    ensure!(number(&crowded["totals"]["views"])? == number(&before["totals"]["views"])? + 1, "{}", crowded["totals"]);
    ensure!(crowded["not_found"] == before["not_found"], "{}\n{}", before["not_found"], crowded["not_found"]);
    let before = crowded;
    known::write_hour(client, at, 2_000_000, 90).await?;
    let after = reader.computed_json(&path).await?;
    ensure!(
        number(&after["totals"]["views"])? == number(&before["totals"]["views"])? + 2_000_000,
        "{}",
        after["totals"]
    );
    for list in ["pages", "not_found", "breakdowns"] {
        ensure!(after[list] == before[list], "{list}:\n{}\n{}", before[list], after[list]);
    }
    Ok(())
}

/// A computed report includes late views, also those of the previous month: in the hours that are compared, or after them, where only its pages show
/// them.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_view_of_the_month_before_changes_what_is_compared() -> Result<()> {
    let service =
        Service::started(&["--clock-start", CLOCK, "--report-cache-bytes", "0"], &[("docs", "docs.example")]).await?;
    let client = service.clickhouse()?;
    let mut reader = ReportClient::of(&service).await?;
    let path = format!("/v1/projects/docs/reports/{}", MONTHS[3]);
    known::write_views(&client, "2026-03-01T05:00:00Z", 30, 2).await?;
    let first = reader.json(&path).await?["pages"]["items"][0].take();
    ensure!(first["views_before"] == 0 && first["visitors"]["estimate"] == 30, "nothing was before: {first}");
    known::write_views(&client, "2026-02-20T06:00:00Z", 7, 4).await?;
    let late = reader.json(&path).await?["pages"]["items"][0].take();
    ensure!(late["views_before"] == 7 && late["visitors"] == first["visitors"], "only after what is compared: {late}");
    known::write_views(&client, "2026-02-01T05:00:00Z", 20, 1).await?;
    let mut told = async || {
        let report = reader.json(&path).await?;
        let before = &report["comparison"]["previous_month"];
        let pages = number(&report["pages"]["items"][0]["views_before"])?;
        anyhow::Ok([number(&report["totals"]["views"])?, number(&before["views"])?, pages])
    };
    ensure!(told().await? == [30, 20, 27], "{:?}", told().await?);
    known::write_page(&client, "2026-02-01T06:00:00Z", 5, 3).await?;
    known::write_hour(&client, "2026-02-01T06:00:00Z", 5, 3).await?;
    ensure!(told().await? == [30, 25, 32], "a late view in the hours that are compared: {:?}", told().await?);
    known::write_views(&client, "2026-02-21T06:00:00Z", 4, 5).await?;
    ensure!(told().await? == [30, 25, 36], "a late view after them: {:?}", told().await?);
    let markdown = service.done(&["report", "docs", MONTHS[3], "--format", "md", "--clock-start", CLOCK]).await?;
    ensure!(markdown.contains("Against 2026-02, up to 2026-02-02 10:00 (the month before): views"), "{markdown}");
    lists_do_not_depend_on_how_they_are_read(&mut reader, &client, MONTHS[3], "2026-03-01T06:00:00Z").await
}

/// One query reads the counts and the month's closes, and assumes that the closes have not changed. If a close was added, replaced or removed, the
/// counts are read again, for the requested month and for one that it is compared with.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_that_came_or_went_is_not_overlooked() -> Result<()> {
    // Each is computed.
    let arguments = ["--clock-start", CLOCK, "--report-cache-bytes", "0", "--close-after-hours", "720"];
    let service = Service::started(&arguments, &[("docs", "docs.example")]).await?;
    let client = service.clickhouse()?;
    let at = "2026-02-01T05:00:00Z";
    known::write_views(&client, at, 20, 1).await?;
    known::write_views(&client, "2026-03-01T05:00:00Z", 30, 2).await?;
    let read =
        async |month: &str| http::get(service.address(), &format!("/v1/projects/docs/reports/{month}")).await?.json();
    // The month itself, and the next one, which is compared with it; the order of the requests decides which one finds the change.
    let told = async |itself_first: bool| {
        let [first, second] = if itself_first { [MONTHS[2], MONTHS[3]] } else { [MONTHS[3], MONTHS[2]] };
        let reports = [read(first).await?, read(second).await?];
        let [itself, next] = if itself_first {
            reports
        } else {
            let [next, itself] = reports;
            [itself, next]
        };
        let closed = itself["period"]["closed"] == true;
        let compared = number(&next["comparison"]["previous_month"]["views"])?;
        ensure!(compared == number(&itself["totals"]["views"])?, "{compared}: {}", itself["totals"]);
        anyhow::Ok((compared, closed))
    };
    for itself_first in [true, false] {
        ensure!(told(itself_first).await? == (20, false), "open: {:?}", told(itself_first).await?);
        known::write_close(&client, at, 8, 1_772_400_000_000_000, 25).await?;
        ensure!(told(itself_first).await? == (25, true), "closed: {:?}", told(itself_first).await?);
        // Of several closes the one that finished first counts.
        known::write_close(&client, at, 9, 1_772_300_000_000_000, 27).await?;
        ensure!(told(itself_first).await? == (27, true), "another's: {:?}", told(itself_first).await?);
        for table in ["month_close", "month_closed"] {
            client.query(&format!("TRUNCATE TABLE {table}")).execute().await?;
        }
    }
    ensure!(told(true).await? == (20, false), "gone: {:?}", told(true).await?);

    // Closed by a process whose clock is ahead: its figures include rows of days that have not started here.
    known::write_views(&client, "2026-03-20T05:00:00Z", 5, 3).await?;
    let pages = async || anyhow::Ok(read(MONTHS[3]).await?["pages"]["items"].take());
    ensure!(pages().await?[0]["views"] == 35, "open: {}", pages().await?);
    known::write_close(&client, "2026-03-01T05:00:00Z", 10, 1_774_000_000_000_000, 30).await?;
    ensure!(pages().await? == serde_json::json!([]), "counted beside the close: {}", pages().await?);
    Ok(())
}

/// Schemathesis sends requests that the API's document allows or forbids to a real service, and compares every response with the document.
#[tokio::test(flavor = "multi_thread")]
async fn the_document_of_the_api_holds() -> Result<()> {
    let tool = match std::env::var_os("HEADCOUNT_SCHEMATHESIS") {
        Some(path) => std::path::PathBuf::from(path),
        None => {
            let test = std::env::current_exe()?;
            let target = test.ancestors().nth(3).context("a test lives in target/PROFILE/deps")?;
            target.join("schemathesis/bin/schemathesis")
        }
    };
    ensure!(tool.exists(), "{} is missing: scripts/test installs it", tool.display());
    let arguments = ["--clock-start", CLOCK, "--close-after-hours", "720"];
    let service = Service::started(&arguments, &[("docs", "docs.example")]).await?;
    known::write(&service.clickhouse()?).await?;
    let config = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("stories/reports/schemathesis.toml");
    let directory = tempfile::TempDir::with_prefix("headcount-schemathesis-")?;
    let mut run = tokio::process::Command::new(&tool);
    run.arg("--config-file").arg(config).arg("run").arg(service.url("/v1/openapi.json"));
    run.args([
        "--checks",
        "all",
        "--exclude-checks",
        "ignored_auth",
        "--max-examples",
        "25",
        "--phases",
        "examples,coverage,fuzzing",
    ]);
    run.args(["--suppress-health-check", "all", "--no-color"]).current_dir(directory.path()).kill_on_drop(true);
    let told = tokio::time::timeout(std::time::Duration::from_secs(300), run.output()).await;
    let told = told.context("Schemathesis does not end")??;
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    ensure!(told.status.success(), "{text}\n{}", String::from_utf8_lossy(&told.stderr));
    let summary = text.lines().find(|line| line.contains("generated")).context("a summary")?;
    println!("{}", summary.trim());
    Ok(())
}
