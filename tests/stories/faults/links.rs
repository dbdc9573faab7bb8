//! Experiments 9 to 11 and 13: the links to Kafka and ClickHouse, brokers that die, and an unavailable Kafka.

use crate::bed::{Bed, long, seed, times};
use crate::load::Load;
use anyhow::{Context, Result, ensure};
use harness::kafka::{Broker, Cluster};
use harness::process::free_port;
use harness::proxy::Proxy;
use harness::random::mix;
use harness::roles::Deployment;
use harness::service::eventually;
use harness::{clickhouse, http};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A broker behind a proxy. Roles connect through the proxy, the test does not.
async fn broker_behind_proxy() -> Result<(Broker, Proxy)> {
    let outer = free_port()?;
    let broker = Broker::start_behind(outer).await?;
    let inner = broker.behind().context("a second listener")?;
    let proxy = Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, inner)), Some(outer)).await?;
    Ok((broker, proxy))
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_interrupted_and_held_links() -> Result<()> {
    let (seed, rounds) = (seed(9), times(6, 80));
    let (mut broker, proxy) = broker_behind_proxy().await?;
    let deployment = Deployment::new(&proxy.address().to_string(), &clickhouse::shared().await?)?;
    let mut bed = Bed::start(deployment, &broker.bootstrap(), 4, 1).await?;
    bed.aggregator(&[]).await?;
    let load = bed.load(seed);
    for round in 0..rounds {
        match round % 6 {
            0 | 3 => proxy.cut(),
            1 => proxy.delay(Duration::from_millis(150)),
            2 => proxy.throttle(200_000),
            4 => proxy.hold(true),
            _ => {
                proxy.refuse(true);
                proxy.cut();
            }
        }
        tokio::time::sleep(Duration::from_millis(500 + mix(seed ^ round as u64) % 1_000)).await;
        proxy.heal();
    }
    load.reach(1_500).await?;
    let driven = load.finish().await?;
    proxy.bit()?;
    let [_, cut, ..] = proxy.counts();
    bed.verify(&driven).await?.row("9 slow, cut, reset and held links", seed, &driven, rounds, cut).end()?;
    bed.end().await?;
    broker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_killed() -> Result<()> {
    if !long() {
        // Starting three brokers alone takes a minute.
        return Ok(());
    }
    let (seed, kills) = (seed(10), 12);
    let mut cluster = Cluster::start().await?;
    let bootstrap = cluster.bootstrap();
    let deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    let mut bed = Bed::start(deployment, &bootstrap, 3, 3).await?;
    bed.aggregator(&[]).await?;
    let load = bed.load(seed);
    load.reach(300).await?;
    let topic = bed.deployment.topic.clone();
    for kill in 0..kills {
        let partition = i32::try_from(mix(seed ^ kill as u64) % 3)?;
        let leader = eventually("a leader", async || cluster.leader(&topic, partition).await).await?;
        cluster.brokers[leader].kill().await?;
        eventually("another leader", async || {
            let now = cluster.leader(&topic, partition).await?;
            ensure!(now != leader, "still the dead one");
            Ok(())
        })
        .await?;
        load.reach(load.acknowledged() + 100).await?;
        cluster.brokers[leader].launch().await?;
    }
    let driven = load.finish().await?;
    let again = driven.refused + kills as u64;
    bed.verify(&driven).await?.row("10 leaders killed, three brokers", seed, &driven, kills, again).end()?;
    bed.end().await?;
    for broker in &mut cluster.brokers {
        broker.kill().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn produce_acknowledgements_lost_and_clients_that_ask_again() -> Result<()> {
    let (seed, rounds) = (seed(11), times(10, 100));
    let (mut broker, to_kafka) = broker_behind_proxy().await?;
    let deployment = Deployment::new(&to_kafka.address().to_string(), &clickhouse::shared().await?)?;
    let mut bed = Bed::start(deployment, &broker.bootstrap(), 4, 1).await?;
    bed.aggregator(&[]).await?;
    // Readers connect through a proxy as well: the endpoint's response is lost, and they send the same id again.
    let to_endpoint = Proxy::start(bed.ingest.address, None).await?;
    let load = Load::start(to_endpoint.address(), seed, 8);
    load.reach(200).await?;
    for round in 0..rounds {
        let (kafka_before, endpoint_before) = (to_kafka.counts()[2], to_endpoint.counts()[2]);
        to_endpoint.swallow(1 + mix(seed ^ round as u64) % 6);
        if round % 3 == 0 {
            to_kafka.swallow(2);
        }
        eventually("answers to be swallowed", async || {
            let kafka = round % 3 != 0 || to_kafka.counts()[2] > kafka_before;
            ensure!(kafka && to_endpoint.counts()[2] > endpoint_before, "none was");
            Ok(())
        })
        .await?;
    }
    to_kafka.heal();
    to_endpoint.heal();
    load.reach(1_500).await?;
    let driven = load.finish().await?;
    let verdict = bed.verify(&driven).await?;
    ensure!(verdict.duplicate > 0, "repeats of an id reached the fold");
    verdict.row("11 produce acks lost, same id sent again", seed, &driven, rounds, to_kafka.counts()[2]).end()?;
    bed.end().await?;
    broker.stop().await
}

/// Kafka is killed and restarts much later. No beacon that could be lost is answered with 202; every acknowledged one arrives.
#[tokio::test(flavor = "multi_thread")]
async fn kafka_away() -> Result<()> {
    let (seed, away) = (seed(13), Duration::from_secs(times(8, 600) as u64));
    let mut broker = Broker::start().await?;
    let bootstrap = broker.bootstrap();
    let deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    let mut bed = Bed::start_with(deployment, &bootstrap, 4, 1, &["--spill-after-ms", "500"]).await?;
    bed.aggregator(&[]).await?;
    let load = bed.load(seed);
    load.reach(400).await?;
    let resident = |bed: &Bed| -> Result<u64> {
        let pid = bed.ingest.process.pid().context("it runs")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("a figure")?.parse::<u64>()? / 1024)
    };
    let before = resident(&bed)?;
    broker.kill().await?;
    load.reach(load.acknowledged() + 600).await.context("the spill takes what Kafka does not")?;
    let state = bed.ingest.state().await?;
    ensure!(state["log"].as_str().is_some_and(|log| log.contains("does not acknowledge")), "{state}");
    // The endpoint dies as well, during the outage: its spill is on disk.
    bed.ingest.process.kill().await?;
    bed.ingest.start(&[]).await.context("it starts without Kafka")?;
    tokio::time::sleep(away).await;
    let during = resident(&bed)?;
    let spilled = bed.ingest.figure("spilled_total").await?;
    broker.launch().await?;
    load.reach(load.acknowledged() + 400).await?;
    eventually("the spill to be drained", async || {
        let left = bed.ingest.figure("spill_records").await?;
        ensure!(left == 0.0, "{left} records left");
        Ok(())
    })
    .await?;
    let driven = load.finish().await?;
    let mut row = bed.verify(&driven).await?.row("13 Kafka away", seed, &driven, 2, spilled as u64);
    row.note = format!(
        "{} s; endpoint {before} MiB before, {during} MiB at its end; {spilled} spilled after its restart; {}",
        away.as_secs(),
        row.note
    );
    row.end()?;
    ensure!(during < before + 96, "memory is bounded by the queue: {before} MiB, then {during} MiB");
    let metrics = http::get(bed.ingest.metrics, "/metrics").await?;
    ensure!(metrics.status == 200, "{}", metrics.status);
    bed.end().await?;
    broker.stop().await
}
