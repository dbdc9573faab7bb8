//! Experiment 16: recreated topics, lost offsets, records removed too early. In each case the role stops with an error and advice, and the advice
//! helps.

use crate::bed::views;
use crate::load::{Load, PROJECTS};
use anyhow::{Context, Result, ensure};
use harness::roles::{Deployment, Role};
use harness::{clickhouse, kafka};

/// A deployment that has counted some views, with its aggregator stopped.
async fn counted() -> Result<(Deployment, Role, Role, Role, u64)> {
    counted_on(&clickhouse::shared().await?, &[]).await
}

/// The same, with this ClickHouse and further settings.
pub async fn counted_on(clickhouse: &str, settings: &[&str]) -> Result<(Deployment, Role, Role, Role, u64)> {
    let bootstrap = kafka::shared().await?;
    let mut deployment = Deployment::new(&bootstrap, clickhouse)?;
    deployment.settings.extend([&["--flush-ms", "300"], settings].concat().into_iter().map(str::to_owned));
    let hosts = PROJECTS.map(|project| format!("{project}.docs.example"));
    let projects: Vec<(&str, &str)> = PROJECTS.iter().copied().zip(hosts.iter().map(String::as_str)).collect();
    deployment.prepare(2, 1, &projects).await?;
    let mut ingest = deployment.ingest("ingest", &["--trusted-proxy", "127.0.0.1", "--client-rate", "0"])?;
    let mut aggregate = deployment.aggregate("aggregate", &[])?;
    let mut query = deployment.query("query", &[])?;
    ingest.start(&[]).await?;
    ingest.knows(3).await?;
    aggregate.start(&[]).await?;
    query.start(&[]).await?;
    let views = send(&ingest, 1, 200).await?;
    let audit = deployment.audit(60).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}");
    aggregate.process.stop().await?;
    Ok((deployment, ingest, aggregate, query, views))
}

pub async fn send(ingest: &Role, seed: u64, count: usize) -> Result<u64> {
    let load = Load::start(ingest.address, seed, 4);
    load.reach(count).await?;
    Ok(load.finish().await?.acknowledged.len() as u64)
}

pub async fn total(query: &Role) -> Result<u64> {
    let mut total = 0;
    for project in PROJECTS {
        total += views(query.address, project).await?;
    }
    Ok(total)
}

/// The aggregator must end by itself with this message.
pub async fn stops(aggregate: &mut Role, expected: &[&str]) -> Result<()> {
    aggregate.process.spawn(&[])?;
    let status = aggregate.process.ended().await?;
    let said = aggregate.process.log();
    ensure!(!status.success(), "it ended with {status}");
    for part in expected {
        ensure!(said.contains(part), "expected {part:?} in:\n{said}");
    }
    Ok(())
}

async fn end(deployment: &Deployment, roles: [&mut Role; 3]) -> Result<()> {
    for role in roles {
        role.process.stop().await?;
    }
    deployment.drop_database().await
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_were_deleted_are_restored_from_the_ledger() -> Result<()> {
    let (deployment, mut ingest, mut aggregate, mut query, first) = counted().await?;
    kafka::delete_group(&deployment.bootstrap, &deployment.group).await?;
    stops(&mut aggregate, &["has no commit in group", "topic reset --from-ledger", "topic reset --new-log"]).await?;
    let said = deployment.done(&["topic", "reset", "--from-ledger"]).await?;
    ensure!(said.contains("restored, counted up to offset"), "{said}");
    let second = send(&ingest, 2, 200).await?;
    aggregate.start(&[]).await?;
    let audit = deployment.audit(60).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}");
    ensure!(total(&query).await? == first + second, "{} of {}", total(&query).await?, first + second);
    end(&deployment, [&mut aggregate, &mut ingest, &mut query]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_another_log() -> Result<()> {
    let (deployment, mut ingest, mut aggregate, mut query, first) = counted().await?;
    ingest.process.stop().await?;
    kafka::delete_topic(&deployment.bootstrap, &deployment.topic).await?;
    stops(&mut aggregate, &["there is no topic", "topic ensure"]).await?;
    deployment.done(&["topic", "ensure", "--kafka-partitions", "2", "--kafka-replication", "1"]).await?;
    stops(&mut aggregate, &["has no commit in group", "topic reset --new-log"]).await?;
    // A restore is impossible: the ledger has more records than exist.
    let wrong = deployment.run(&["topic", "reset", "--from-ledger"]).await?;
    let complained = String::from_utf8_lossy(&wrong.stderr).into_owned();
    ensure!(!wrong.status.success() && complained.contains("this is another log"), "{complained}");
    deployment.done(&["topic", "reset", "--new-log"]).await?;
    ingest.start(&[]).await?;
    ingest.knows(3).await?;
    let second = send(&ingest, 2, 200).await?;
    aggregate.start(&[]).await?;
    let audit = deployment.audit(60).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}");
    ensure!(total(&query).await? == first + second, "{} of {}", total(&query).await?, first + second);
    end(&deployment, [&mut aggregate, &mut ingest, &mut query]).await
}

/// The topic is removed while the aggregator runs: it ends, and does not count the new topic as the old one.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_goes_under_a_running_aggregator_ends_it() -> Result<()> {
    let (deployment, mut ingest, mut aggregate, mut query, first) = counted().await?;
    aggregate.start(&["--kafka-property", "topic.metadata.refresh.interval.ms=1000"]).await?;
    aggregate.has_partitions(2).await?;
    ingest.process.stop().await?;
    kafka::delete_topic(&deployment.bootstrap, &deployment.topic).await?;
    let status = aggregate.process.ended().await?;
    let said = aggregate.process.log();
    ensure!(!status.success(), "it ended with {status}");
    ensure!(said.contains("headcount topic ensure") && said.contains("topic reset --new-log"), "{said}");
    ensure!(total(&query).await? == first, "the figures stay");
    query.process.stop().await?;
    deployment.drop_database().await
}

#[tokio::test(flavor = "multi_thread")]
async fn records_removed_before_their_window_was_safe() -> Result<()> {
    let (deployment, mut ingest, mut aggregate, mut query, first) = counted().await?;
    // Retention removes the open window's start, and some records that were never counted.
    let second = send(&ingest, 2, 200).await?;
    let mut gone = 0;
    for (partition, (_, high)) in kafka::watermarks(&deployment.bootstrap, &deployment.topic).await?.iter().enumerate()
    {
        let committed = kafka::committed(&deployment.bootstrap, &deployment.group, &deployment.topic).await?;
        let next = committed[partition].as_ref().context("a commit")?.0;
        let below = next + (high - next) / 2;
        gone += below - next;
        kafka::delete_records(&deployment.bootstrap, &deployment.topic, i32::try_from(partition)?, below).await?;
    }
    stops(&mut aggregate, &["records were removed before they were safely counted", "topic reset --new-log"]).await?;
    deployment.done(&["topic", "reset", "--new-log"]).await?;
    aggregate.start(&[]).await?;
    let audit = deployment.audit(60).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}");
    // The removed records are missing, and nothing else.
    let found = total(&query).await?;
    ensure!(found == first + second - gone, "{found}, expected {first} and {second} less {gone}");
    end(&deployment, [&mut aggregate, &mut ingest, &mut query]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_wrong_settings_is_refused_by_name() -> Result<()> {
    let bootstrap = kafka::shared().await?;
    let deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    let settings = [("cleanup.policy", "compact"), ("retention.ms", "60000"), ("retention.bytes", "1000000")];
    kafka::create_topic(&bootstrap, &deployment.topic, 1, 1, &settings).await?;
    for command in [&["topic", "check"][..], &["topic", "ensure"], &["aggregate", "--metrics-listen", "127.0.0.1:0"]] {
        let refused = deployment.run(command).await?;
        let said = format!("{}{}", String::from_utf8_lossy(&refused.stdout), String::from_utf8_lossy(&refused.stderr));
        ensure!(!refused.status.success(), "{command:?} succeeded: {said}");
        for wrong in [
            "message.timestamp.type is CreateTime, expected LogAppendTime",
            "cleanup.policy is compact, expected delete",
            "retention.ms is 60000",
            "retention.bytes is 1000000",
        ] {
            ensure!(said.contains(wrong), "{command:?}: expected {wrong:?} in\n{said}");
        }
    }
    let missing = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    let data = tempfile::tempdir()?;
    let data = data.path().to_str().context("a path of UTF-8")?;
    let refused =
        missing.run(&["ingest", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data", data]).await?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && said.contains("headcount topic ensure"), "{said}");
    Ok(())
}
