//! Statement 13: figures are deleted by TTL after their time; an erased project is removed immediately.

use crate::records::view;
use anyhow::{Result, ensure};
use harness::roles::{Deployment, Role};
use harness::service::eventually;
use harness::{clickhouse, http, kafka};
use schemas::{Hour, Month};

const TABLES: [&str; 11] = [
    "site_hourly",
    "page_daily",
    "breakdown_window",
    "not_found_daily",
    "robot_daily",
    "robot_page_daily",
    "rules_daily",
    "finished_day",
    "finished_month",
    "delivery",
    "ledger",
];
/// Tables whose TTL is checked.
const RULED: [&str; 21] = [
    "delivery",
    "site_hourly",
    "page_daily",
    "breakdown_window",
    "not_found_daily",
    "rejection_daily",
    "robot_daily",
    "robot_page_daily",
    "rules_daily",
    "reported_missing_daily",
    "month_closed",
    "month_closed_not_found",
    "month_closed_robot",
    "month_closed_robot_page",
    "month_closed_rules",
    "month_closed_reported_missing",
    "finished_day",
    "finished_month",
    "ledger",
    "import",
    "import_month",
];

/// An erased project's figures disappear from reports and SQL, and later records do not bring them back.
async fn erased_stays_away(deployment: &Deployment, query: &Role, bootstrap: &str, now: Hour) -> Result<()> {
    let (client, month) = (deployment.client(), now.month());
    let report = format!("/v1/projects/erased/reports/{month}");
    // With an administrator's token: for others an erased project is indistinguishable from one without access.
    let admin = deployment.done(&["token", "create", "--admin"]).await?.trim().to_owned();
    eventually("the report that there is before", async || {
        let answer = http::get_as(query.address, &report, &admin).await?;
        ensure!(answer.status == 200, "{}", answer.status);
        Ok(())
    })
    .await?;
    deployment.done(&["close"]).await?;
    let sql = "SELECT assumeNotNull((SELECT count() FROM finished_day WHERE project = 'erased')), \
               assumeNotNull((SELECT count() FROM daily_traffic WHERE project = 'erased')), \
               assumeNotNull((SELECT count() FROM monthly_traffic WHERE project = 'erased'))";
    let (finished, daily, monthly): (u64, u64, u64) = client.query(sql).fetch_one().await?;
    ensure!(finished > 0 && daily > 0 && monthly > 0, "SQL has the project before: {finished}, {daily}, {monthly}");
    // The recipient of a report is not a figure, but identifies a person.
    let sent = "INSERT INTO delivery (project, month, recipient, sent) \
                SELECT 'erased', toStartOfMonth(today()), 'reader@example.org', now('UTC')";
    client.query(sent).execute().await?;
    let told = deployment.done(&["project", "erase", "erased", "--yes"]).await?;
    ensure!(told.contains("erased") && told.contains("log"), "{told}");
    // A cached report is served until the next poll of the registry.
    eventually("none after", async || {
        let status = http::get_as(query.address, &report, &admin).await?.status;
        ensure!(status == 404, "{status}");
        Ok(())
    })
    .await?;
    // More of its records come from the log, and are removed again.
    let more: Vec<_> = (1_000..1_050).map(|index| view(index, "erased", now.0)).collect();
    kafka::produce(bootstrap, &deployment.topic, 0, &more).await?;
    deployment.audit(60).await?;
    ensure!(http::get_as(query.address, &report, &admin).await?.status == 404, "whatever comes back is not shown");
    deployment.done(&["close"]).await?;
    let (_, daily, monthly): (u64, u64, u64) = client.query(sql).fetch_one().await?;
    ensure!(daily == 0 && monthly == 0, "nor to SQL: {daily} days, {monthly} months");
    eventually("the erased project's rows to be gone", async || {
        for table in TABLES.iter().filter(|table| **table != "ledger") {
            let found: u64 =
                client.query(&format!("SELECT count() FROM {table} WHERE project = 'erased'")).fetch_one().await?;
            ensure!(found == 0, "{found} rows in {table}");
        }
        Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_past_its_time_is_deleted_and_what_is_erased_stays_away() -> Result<()> {
    let bootstrap = kafka::shared().await?;
    let mut deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    deployment.settings.extend(["--flush-ms", "300", "--retention-months", "13"].map(str::to_owned));
    deployment.prepare(1, 1, &[("kept", "kept.example"), ("erased", "erased.example")]).await?;
    let mut aggregate = deployment.aggregate("aggregate", &[])?;
    aggregate.start(&[]).await?;
    let mut query = deployment.query("query", &[])?;
    query.start(&[]).await?;
    let client = deployment.client();

    // The tables have the configured TTL.
    eventually("the tables' TTL", async || {
        for table in RULED {
            let sql = "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = ?";
            let definition: String = client.query(sql).bind(table).fetch_one().await?;
            ensure!(definition.contains("+ toIntervalMonth(14)"), "{definition}");
        }
        Ok(())
    })
    .await?;

    let now = Hour::of(chrono::Utc::now());
    let month = now.month();
    let back = |months: usize| (0..months).fold(month, |month: Month, _| month.previous()).first_hour().0 + 30;
    let records: Vec<_> = (0..900)
        .map(|index| {
            // Of this month, of the oldest one that is retained, and of the newest one that is not.
            let hour = [now.0, back(13), back(14)][(index % 3) as usize];
            view(index, if index % 2 == 0 { "kept" } else { "erased" }, hour)
        })
        .collect();
    kafka::produce(&bootstrap, &deployment.topic, 0, &records).await?;
    deployment.audit(60).await?;
    let months = async |table: &str, time: &str| -> Result<Vec<u32>> {
        let sql = format!("SELECT DISTINCT toYYYYMM({time}) AS month FROM {table} ORDER BY month");
        Ok(client.query(&sql).fetch_all().await?)
    };
    let number = |hour: u32| {
        let month = Hour(hour).month();
        u32::from(month.year()) * 100 + u32::from(month.number())
    };
    for (table, time) in
        [("site_hourly", "hour"), ("page_daily", "day"), ("breakdown_window", "day"), ("not_found_daily", "day")]
    {
        // ClickHouse removes expired rows when it merges; this forces a merge.
        client.query(&format!("OPTIMIZE TABLE {table} FINAL")).execute().await?;
        let found = months(table, time).await?;
        ensure!(!found.contains(&number(back(14))), "{table}: {found:?}");
        ensure!(found.contains(&number(now.0)), "{table}: {found:?}");
    }

    erased_stays_away(&deployment, &query, &bootstrap, now).await?;
    let kept: u64 = client.query("SELECT count() FROM site_hourly WHERE project = 'kept'").fetch_one().await?;
    ensure!(kept > 0, "the other project's rows are there");
    aggregate.process.stop().await?;
    query.process.stop().await?;
    deployment.drop_database().await
}
