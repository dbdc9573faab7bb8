//! The audit itself: it must find planted errors, or a clean result proves nothing.

use crate::load::{Load, PROJECTS};
use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::roles::Deployment;
use harness::service::eventually;
use harness::{clickhouse, kafka};
use serde_json::Value;

/// Ways to spoil a database: description, statement, and the text that the audit must then print.
const SPOILED: [(&str, &str, &str); 13] = [
    (
        "a row's views",
        "INSERT INTO site_hourly SELECT * REPLACE (views + 1 AS views) FROM site_hourly FINAL LIMIT 1",
        "site_hourly",
    ),
    (
        "a sketch",
        "INSERT INTO page_daily SELECT * REPLACE (concat(substring(sketch, 1, length(sketch) - 1), unhex('00')) AS sketch) \
         FROM page_daily FINAL LIMIT 1",
        "page_daily",
    ),
    (
        "a row that is missing",
        "ALTER TABLE breakdown_window DELETE WHERE (project, day) = (SELECT (project, day) FROM breakdown_window FINAL LIMIT 1) \
         SETTINGS mutations_sync = 2",
        "breakdown_window",
    ),
    (
        "a row that nobody made",
        "INSERT INTO breakdown_window SELECT * REPLACE (arrayMap(value -> 'Mosaic', values) AS values) FROM breakdown_window FINAL LIMIT 1",
        "breakdown_window",
    ),
    (
        "a value's views",
        "INSERT INTO breakdown_window SELECT * REPLACE (arrayMap(of -> of + 1, views) AS views) FROM breakdown_window FINAL LIMIT 1",
        "breakdown_window",
    ),
    (
        "views of a page not found",
        "INSERT INTO not_found_daily SELECT * REPLACE (views + 1 AS views) FROM not_found_daily FINAL LIMIT 1",
        "not_found_daily",
    ),
    (
        "a referrer that nobody had",
        "INSERT INTO not_found_daily SELECT * REPLACE ('mosaic.example' AS referrer) FROM not_found_daily FINAL LIMIT 1",
        "not_found_daily",
    ),
    (
        "the host of a refused beacon",
        "INSERT INTO rejection_daily SELECT * REPLACE ('mosaic.example' AS host) FROM rejection_daily FINAL LIMIT 1",
        "rejection_daily",
    ),
    (
        "a robot's row that is missing",
        "ALTER TABLE robot_daily DELETE WHERE (project, day, kind, name) = \
         (SELECT (project, day, kind, name) FROM robot_daily FINAL LIMIT 1) SETTINGS mutations_sync = 2",
        "robot_daily",
    ),
    (
        "views of a page by robots",
        "INSERT INTO robot_page_daily SELECT * REPLACE (views + 1 AS views) FROM robot_page_daily FINAL LIMIT 1",
        "robot_page_daily",
    ),
    (
        "views by other rules",
        "INSERT INTO rules_daily SELECT * REPLACE (rules + 1 AS rules) FROM rules_daily FINAL LIMIT 1",
        "rules_daily",
    ),
    (
        "a window over another",
        "INSERT INTO ledger SELECT * REPLACE (window_start + 1 AS window_start) FROM ledger FINAL LIMIT 1",
        "ledger",
    ),
    (
        "a ledger that does not add up",
        "INSERT INTO ledger SELECT * REPLACE (accepted + 1 AS accepted, duplicate - 1 AS duplicate) FROM ledger FINAL LIMIT 1",
        "ledger",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn planted_differences_are_found() -> Result<()> {
    let bootstrap = kafka::shared().await?;
    let mut deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    deployment.settings.extend(["--flush-ms", "300"].map(str::to_owned));
    let hosts = PROJECTS.map(|project| format!("{project}.docs.example"));
    let projects: Vec<(&str, &str)> = PROJECTS.iter().copied().zip(hosts.iter().map(String::as_str)).collect();
    deployment.prepare(2, 1, &projects).await?;
    let mut ingest = deployment.ingest("ingest", &["--trusted-proxy", "127.0.0.1", "--client-rate", "0"])?;
    let mut aggregate = deployment.aggregate("aggregate", &[])?;
    ingest.start(&[]).await?;
    ingest.knows(3).await?;
    aggregate.start(&[]).await?;
    let load = Load::start(ingest.address, 99, 4);
    load.reach(200).await?;
    load.finish().await?;
    let foreign = format!(r#"{{"project":"{}","url":"https://elsewhere.example/"}}"#, PROJECTS[0]);
    for _ in 0..5 {
        let mut connection = Connection::open(ingest.address).await?;
        let answer = connection.send("POST", "/v1/pageview", &[], foreign.clone()).await?;
        ensure!(answer.status == 404, "{}", String::from_utf8_lossy(&answer.body));
    }
    eventually("the refusals in ClickHouse", async || {
        let sql = "SELECT sum(beacons) FROM rejection_daily FINAL WHERE host = 'elsewhere.example'";
        let found: u64 = deployment.client().query(sql).fetch_one().await?;
        ensure!(found == 5, "{found} so far");
        Ok(())
    })
    .await?;
    let audit = deployment.audit(60).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}");
    aggregate.process.stop().await?;
    ingest.process.stop().await?;

    // The text form also ends with 0 differences; the rebuild of the same log has the same result without ClickHouse.
    let said = deployment.done(&["audit"]).await?;
    ensure!(said.contains("0 differences, 0 records not folded yet"), "{said}");
    let rebuilt: Value = serde_json::from_str(&deployment.done(&["rebuild", "--from-log", "--format", "json"]).await?)?;
    let views: u64 = PROJECTS
        .iter()
        .flat_map(|project| ["hours", "robots"].map(|list| rebuilt["projects"][project][list].as_object()))
        .flatten()
        .flat_map(|counted| counted.values())
        .filter_map(|counted| counted["views"].as_u64())
        .sum();
    ensure!(Some(views) == audit["accepted"].as_u64(), "{views} views rebuilt, {audit}");

    let original = deployment.database.clone();
    let server = clickhouse_client(&deployment);
    for (number, (what, how, table)) in SPOILED.into_iter().enumerate() {
        // Each in a separate copy, so that only the planted error is found.
        let copy = format!("{original}_{number}");
        copy_database(&server, &original, &copy).await?;
        server.clone().with_database(&copy).query(how).execute().await.with_context(|| what.to_owned())?;
        deployment.database.clone_from(&copy);
        let output = deployment.run(&["audit", "--format", "json"]).await?;
        let audit: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let named = audit["differences"].as_array().is_some_and(|all| all.iter().any(|one| one["table"] == table));
        ensure!(output.status.code() == Some(1) && named, "{what} was not found: {audit}");
        println!("audit found {what}: {}", audit["differences"][0]);
        deployment.drop_database().await?;
    }
    deployment.database = original;
    deployment.drop_database().await
}

async fn copy_database(server: &::clickhouse::Client, original: &str, copy: &str) -> Result<()> {
    server.query(&format!("CREATE DATABASE {copy} ENGINE = Atomic")).execute().await?;
    for name in [
        "schema_version",
        "project",
        "site_hourly",
        "page_daily",
        "breakdown_window",
        "not_found_daily",
        "rejection_daily",
        "robot_daily",
        "robot_page_daily",
        "rules_daily",
        "reported_missing_daily",
        "month_close",
        "ledger",
        "stream",
    ] {
        server.query(&format!("CREATE TABLE {copy}.{name} AS {original}.{name}")).execute().await?;
        server.query(&format!("INSERT INTO {copy}.{name} SELECT * FROM {original}.{name}")).execute().await?;
    }
    Ok(())
}

fn clickhouse_client(deployment: &Deployment) -> ::clickhouse::Client {
    ::clickhouse::Client::default().with_url(&deployment.clickhouse)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_that_cannot_be_made_is_no_verdict() -> Result<()> {
    let bootstrap = kafka::shared().await?;
    let deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    let output = deployment.run(&["audit"]).await?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2) && said.contains("there is no topic"), "{:?}: {said}", output.status);
    deployment.drop_database().await
}
