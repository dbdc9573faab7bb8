//! ClickHouse's data are replaced by an older copy, or removed, while the topic and the group's commits remain.

use crate::topics::{counted_on, send, stops, total};
use anyhow::{Context, Result, ensure};
use harness::clickhouse::Engine;
use harness::kafka;
use harness::roles::Deployment;
use harness::service::eventually;
use std::path::Path;
use std::process::Command;

fn copy(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    ensure!(Command::new("cp").arg("-a").args([from, to]).status()?.success(), "cp failed");
    Ok(())
}

async fn audit_is_clean(deployment: &Deployment) -> Result<()> {
    let audit = deployment.audit(30).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_clickhouse_lacks_is_counted_again_from_the_topic() -> Result<()> {
    let mut engine = Engine::start().await?;
    // Several windows in a partition, so that reading has to restart before the commit's.
    let settings = ["--window-records", "60"];
    let (deployment, mut ingest, mut aggregate, mut query, first) = counted_on(&engine.url()?, &settings).await?;
    let (data, aside) = (engine.data().join("data"), engine.data().join("aside"));
    engine.stop().await?;
    copy(&data, &aside)?;
    engine.launch().await?;
    aggregate.start(&[]).await?;
    let second = send(&ingest, 2, 400).await?;
    audit_is_clean(&deployment).await?;
    aggregate.process.stop().await?;

    engine.stop().await?;
    copy(&aside, &data)?;
    engine.launch().await?;
    aggregate.start(&[]).await?;
    audit_is_clean(&deployment).await?;
    ensure!(total(&query).await? == first + second, "{} of {}", total(&query).await?, first + second);
    let log = aggregate.process.log();
    let found = log.matches("ClickHouse is older than the log").count();
    ensure!(found == 2, "once a partition expected, {found} found\n{log}");
    let third = send(&ingest, 3, 100).await?;
    audit_is_clean(&deployment).await?;
    ensure!(total(&query).await? == first + second + third, "what comes later is counted once");
    for role in [&mut aggregate, &mut ingest, &mut query] {
        role.process.stop().await?;
    }
    engine.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_topic_no_longer_holds_stops_the_aggregator() -> Result<()> {
    let mut engine = Engine::start().await?;
    let (deployment, mut ingest, mut aggregate, mut query, first) = counted_on(&engine.url()?, &[]).await?;
    deployment.drop_database().await?;
    let mut gone = 0;
    let commits = kafka::committed(&deployment.bootstrap, &deployment.group, &deployment.topic).await?;
    for (partition, commit) in commits.iter().enumerate() {
        let below = commit.as_ref().context("a commit")?.0 / 2;
        gone += below;
        kafka::delete_records(&deployment.bootstrap, &deployment.topic, i32::try_from(partition)?, below).await?;
    }
    stops(&mut aggregate, &["ClickHouse has counted nothing of this log", "no longer holds", "--recover"]).await?;
    // It is now another database, so the query service ends. The endpoint continues with its copy, and reports that; restarted once with the option,
    // it restores the registry.
    ensure!(!query.process.ended().await?.success(), "it ended without an error");
    ensure!(query.process.log().contains("clickhouse_url"), "{}", query.process.log());
    let second = send(&ingest, 2, 100).await?;
    eventually("the endpoint's message", async || {
        ensure!(ingest.process.log().contains("the registry is not read any more"), "{}", ingest.process.log());
        Ok(())
    })
    .await?;
    ingest.process.stop().await?;
    ingest.start(&["--recover"]).await?;
    aggregate.start(&["--recover"]).await?;
    audit_is_clean(&deployment).await.with_context(|| aggregate.process.log())?;
    query.start(&[]).await?;
    let found = total(&query).await?;
    ensure!(found == first + second - gone, "{found}, expected {first} and {second} less {gone}");
    aggregate.process.stop().await?;
    aggregate.start(&[]).await?;
    for role in [&mut aggregate, &mut ingest, &mut query] {
        role.process.stop().await?;
    }
    engine.stop().await
}
