//! Statement 8: when a month is closed, its figures stay the same and its sketches are physically removed.

use crate::records::{not_found, view};
use crate::traffic::{examples_run, sql_says_the_same};
use anyhow::{Context, Result, ensure};
use harness::random::mix;
use harness::roles::{Deployment, Role};
use harness::service::eventually;
use harness::{clickhouse, http, kafka};
use schemas::Month;
use serde_json::Value;
use std::time::Duration;

const PROJECTS: [&str; 3] = ["alpha", "beta", "gamma"];
const MONTH: &str = "2026-09";
const OPEN: &str = "2026-10-01T00:00:00Z";
const DUE: &str = "2026-10-04T00:00:00Z";

async fn reports(query: &Role) -> Result<Vec<Value>> {
    let mut reports = Vec::new();
    for project in PROJECTS {
        let path = format!("/v1/projects/{project}/reports/{MONTH}?pages_limit=1000");
        let answer = http::get_now(query.address, &path).await?;
        ensure!(answer.status == 200, "{}", String::from_utf8_lossy(&answer.body));
        reports.push(answer.json()?);
    }
    Ok(reports)
}

/// The one thing that a close may change in a report: it states that the month is closed.
fn as_if_open(mut report: Value) -> Result<Value> {
    ensure!(report["period"]["closed"] == true, "{}", report["period"]);
    ensure!(report["period"]["closes_after"].is_null(), "{}", report["period"]);
    (report["period"]["closed"], report["period"]["closes_after"]) = (false.into(), "late_views".into());
    for month in report["months"].as_array_mut().context("months")? {
        ensure!(month["closed"] == true, "{month}");
        month["closed"] = false.into();
    }
    let totals = report["totals"].as_object_mut().context("totals")?;
    totals.remove("late_views").context("late_views")?;
    Ok(report)
}

async fn count(deployment: &Deployment, from: &str) -> Result<u64> {
    Ok(deployment.client().query(&format!("SELECT count() FROM {from}")).fetch_one().await?)
}

/// A close; the aggregator's clock has not reached the time at which the month is due, so it has recorded no ends to wait for.
const CLOSE: [&str; 6] = ["close", "--force", "--month", MONTH, "--clock-start", DUE];

fn is_open_with_referrers(report: &Value) -> Result<()> {
    ensure!(report["period"]["closed"] == false && report["totals"]["late_views"].is_null(), "{report}");
    let gone = &report["not_found"]["items"][0];
    let led = |value: &str| {
        let items = gone["referrers"].as_array();
        items.is_some_and(|items| items.iter().any(|item| item["value"] == value && item["views"].as_u64() > Some(9)))
    };
    ensure!(gone["path"] == "/gone.html" && led("blog.example") && led(":internal") && led(""), "{gone}");
    Ok(())
}

/// Three concurrent closes, one of which is killed.
async fn close_concurrently(deployment: &Deployment) -> Result<()> {
    let mut killed = harness::process::Process::new(
        "a close",
        &harness::service::binary()?,
        CLOSE.iter().map(|&text| text.to_owned()).chain(deployment.arguments()).collect(),
        deployment.path().join("close.log"),
    );
    killed.spawn(&[])?;
    let kill = async {
        tokio::time::sleep(Duration::from_millis(150 + mix(u64::from(std::process::id())) % 600)).await;
        if killed.try_ended()?.is_none() {
            killed.kill().await?;
        }
        anyhow::Ok(())
    };
    let (first, second, killed) = tokio::join!(deployment.done(&CLOSE), deployment.done(&CLOSE), kill);
    killed?;
    let (first, second) = (first?, second?);
    ensure!(first.contains(MONTH) && second.contains(MONTH), "{first}{second}");
    Ok(())
}

/// The close has changed no figure, and has removed all sketches.
async fn figures_stayed(deployment: &Deployment, before: &[Value], after: Vec<Value>) -> Result<()> {
    ensure!(count(deployment, "finished_day").await? == 0, "a closed month's visitors are in its figures alone");
    let sql = "month_closed_page WHERE arraySum(day_views) != views OR length(day_views) != toDayOfMonth(toLastDayOfMonth(month))";
    ensure!(count(deployment, sql).await? == 0, "the days of a page do not add up to its month");
    ensure!(
        count(deployment, "month_closed_page WHERE arrayCount(x -> x > 0, day_views) > 9").await? > 0,
        "days of a page"
    );
    let after: Vec<Value> = after.into_iter().map(as_if_open).collect::<Result<_>>()?;
    for (before, after) in before.iter().zip(&after) {
        for (part, was) in before.as_object().context("a report")? {
            ensure!(after[part] == *was, "the close changed {part}:\n{was}\n{}", after[part]);
        }
    }
    ensure!(after == before, "the close changed a report:\n{}\n{}", before[0], after[0]);
    for table in ["site_hourly", "page_daily"] {
        ensure!(count(deployment, &format!("{table} WHERE sketch != ''")).await? == 0, "sketches in {table}");
    }
    Ok(())
}

/// Views that arrive after the close are shown as late, and visitors stay. Returns their number.
fn late_views_are_marked(before: &[Value], later: &[Value]) -> Result<u64> {
    let (mut late_views, mut more) = (0, 0);
    for (before, later) in before.iter().zip(later) {
        ensure!(later["totals"]["visitors"] == before["totals"]["visitors"], "visitors stay as closed");
        ensure!(later["days"][0]["visitors"] == before["days"][0]["visitors"], "of days, too");
        late_views += later["totals"]["late_views"].as_u64().context("late_views")?;
        more += later["totals"]["views"].as_u64().context("views")?
            - before["totals"]["views"].as_u64().context("views")?;
    }
    ensure!(late_views == more && more > 100, "{more} more views, {late_views} said to be late");
    Ok(late_views)
}

/// As if another process had closed the month just now: `close` then leaves the rows to running queries for a while.
async fn late_sketches_are_swept(deployment: &Deployment) -> Result<()> {
    let client = deployment.client();
    let winner: u64 =
        client.query("SELECT run FROM month_close FINAL ORDER BY finished, run LIMIT 1").fetch_one().await?;
    let just_now = "INSERT INTO month_close SELECT * REPLACE (now64(6, 'UTC') + toIntervalSecond(run != ?) AS finished) \
                    FROM month_close FINAL";
    client.query(just_now).bind(winner).execute().await?;
    let meanwhile = async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        let rows = count(deployment, "site_hourly WHERE sketch != ''").await?;
        ensure!(rows > 0, "what late rows have was removed immediately");
        Ok(())
    };
    tokio::try_join!(deployment.done(&CLOSE), meanwhile)?;
    for table in ["site_hourly", "page_daily"] {
        ensure!(count(deployment, &format!("{table} WHERE sketch != ''")).await? == 0, "sketches in {table}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_stay_and_sketches_go() -> Result<()> {
    let bootstrap = kafka::shared().await?;
    let mut deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    let settings = ["--flush-ms", "300", "--window-records", "400"];
    deployment.settings.extend(settings.map(str::to_owned));
    deployment.prepare(2, 1, &PROJECTS.map(|project| (project, "docs.example"))).await?;
    let mut aggregate = deployment.aggregate("aggregate", &["--clock-start", OPEN])?;
    aggregate.start(&[]).await?;
    let mut query = deployment.query("query", &["--clock-start", OPEN])?;
    query.start(&[]).await?;
    for table in ["site_hourly", "page_daily", "breakdown_window", "not_found_daily", "rejection_daily"] {
        // Otherwise replaced parts remain for eight minutes, ClickHouse's default.
        let sql = format!("ALTER TABLE {table} MODIFY SETTING old_parts_lifetime = 1");
        deployment.client().query(&sql).execute().await?;
    }

    let month: Month = MONTH.parse()?;
    let hours = u64::from(month.end_hour().0 - month.first_hour().0);
    let record = |index: u64| {
        let hour = month.first_hour().0 + (mix(index ^ 0xabc) % hours) as u32;
        let project = PROJECTS[(mix(index ^ 0xdef) % 3) as usize];
        if mix(index ^ 0x404).is_multiple_of(9) { not_found(index, project, hour) } else { view(index, project, hour) }
    };
    for partition in 0..2 {
        let records: Vec<_> = (0..1_500).map(|index| record(index * 2 + partition)).collect();
        kafka::produce(&bootstrap, &deployment.topic, i32::try_from(partition)?, &records).await?;
    }
    let audit = deployment.audit(60).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}");
    let before = reports(&query).await?;
    let led_before = count(&deployment, "not_found_daily").await?;
    let views: u64 = before.iter().filter_map(|report| report["totals"]["views"].as_u64()).sum();
    ensure!(views > 2_500, "{views} views by people");
    before.iter().try_for_each(is_open_with_referrers)?;
    // `close` also updates the visitor estimates for SQL; the aggregator does so every few minutes.
    deployment.done(&["close", "--clock-start", OPEN]).await?;
    sql_says_the_same(&deployment, &PROJECTS, MONTH, &before).await?;
    examples_run(&deployment, PROJECTS[0]).await?;

    // A close that is too early is refused, and changes nothing.
    let early = deployment.run(&["close", "--month", MONTH, "--clock-start", "2026-10-03T23:00:00Z"]).await?;
    let told = String::from_utf8_lossy(&early.stderr).into_owned();
    ensure!(!early.status.success() && told.contains("2026-10-04T00:00:00"), "{told}");

    close_concurrently(&deployment).await?;
    let after = reports(&query).await?;
    sql_says_the_same(&deployment, &PROJECTS, MONTH, &after).await?;
    figures_stayed(&deployment, &before, after).await?;
    // Open windows keep their rows; rows of closed windows are in the figures.
    let (left, led) = (count(&deployment, "site_hourly").await?, count(&deployment, "not_found_daily").await?);
    ensure!(led < led_before / 2, "{led} of {led_before} rows of who led to pages not found are left");
    ensure!(left < views / 2, "{left} rows are left");

    // Records that a killed aggregator folds again are not counted twice, and their sketches are removed again.
    aggregate.process.kill().await?;
    aggregate.start(&[]).await?;
    let late: Vec<_> = (10_000..10_120).map(record).collect();
    kafka::produce(&bootstrap, &deployment.topic, 0, &late).await?;
    let audit = deployment.audit(60).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}");
    let later = reports(&query).await?;
    sql_says_the_same(&deployment, &PROJECTS, MONTH, &later).await?;
    let late_views = late_views_are_marked(&before, &later)?;
    late_sketches_are_swept(&deployment).await?;
    ensure!(reports(&query).await? == later, "sweeping changes no report");

    // Also on the disk: the parts with sketches are removed.
    eventually("old parts to be removed", async || {
        deployment.done(&CLOSE).await?;
        let sql = "SELECT count() FROM system.parts WHERE database = currentDatabase() AND NOT active \
                   AND table IN ('site_hourly', 'page_daily') AND partition = '202609'";
        let old: u64 = deployment.client().query(sql).fetch_one().await?;
        ensure!(old == 0, "{old} old parts");
        Ok(())
    })
    .await?;
    println!(
        "8: {views} views before and after the close, {late_views} late ones shown as such, {left} rows without sketch left"
    );
    aggregate.process.stop().await?;
    query.process.stop().await?;
    deployment.drop_database().await
}

/// Two partitions with records and one without any; ClickHouse refuses the later records of one of them while the month becomes due.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_waits_for_the_records_of_every_partition() -> Result<()> {
    let bootstrap = kafka::shared().await?;
    let mut deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    deployment.settings.extend(["--flush-ms", "300"].map(str::to_owned));
    deployment.prepare(3, 1, &[(PROJECTS[0], "docs.example")]).await?;
    let mut aggregate = deployment.aggregate("aggregate", &[])?;
    aggregate.start(&["--clock-start", OPEN]).await?;
    let first = MONTH.parse::<Month>()?.first_hour().0;
    let records = |range: std::ops::Range<u64>| range.map(|index| view(index, PROJECTS[0], first)).collect::<Vec<_>>();
    kafka::produce(&bootstrap, &deployment.topic, 0, &records(0..100)).await?;
    kafka::produce(&bootstrap, &deployment.topic, 1, &records(100..200)).await?;
    deployment.audit(60).await?;
    aggregate.process.kill().await?;

    let client = deployment.client();
    client.query("ALTER TABLE page_daily ADD CONSTRAINT stalled CHECK views = 0").execute().await?;
    kafka::produce(&bootstrap, &deployment.topic, 1, &records(200..270)).await?;
    // It may never be ready: ClickHouse refuses its rows.
    aggregate.start_unready(&["--clock-start", DUE]).await?;
    eventually("the close to wait", async || {
        let log = aggregate.process.log();
        ensure!(log.contains("the close of the month waits") && log.contains("\"70 records of stream"), "{log}");
        Ok(())
    })
    .await?;
    let refused = deployment.run(&["close", "--month", MONTH, "--clock-start", DUE]).await?;
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && text.contains("70 records of stream"), "{text}");
    ensure!(count(&deployment, "month_close").await? == 0, "the month is closed");

    client.query("ALTER TABLE page_daily DROP CONSTRAINT stalled").execute().await?;
    eventually("the month to be closed", async || {
        ensure!(aggregate.process.log().contains("the month is closed"), "{}", aggregate.process.log());
        Ok(())
    })
    .await?;
    let visitors: u64 = client.query("SELECT sum(visitors) FROM month_closed").fetch_one().await?;
    // 200 records have 200 visitors at most.
    ensure!(visitors > 205, "{visitors} visitors: those of the last records are missing");
    println!("8: {visitors} visitors of 270 records in the closed month");
    aggregate.process.stop().await?;
    deployment.drop_database().await
}
