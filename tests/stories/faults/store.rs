//! Experiments 5 to 8: ClickHouse killed, stopped and unresponsive, acknowledgements lost, an insert delivered again.

use crate::bed::{Bed, seed, times};
use anyhow::{Context, Result, ensure};
use harness::clickhouse::{self, Engine};
use harness::kafka;
use harness::proxy::Proxy;
use harness::random::mix;
use harness::roles::Deployment;
use harness::service::eventually;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A short timeout, so that a hanging call ends within the story.
const IMPATIENT: [&str; 2] = ["--clickhouse-timeout-ms", "2000"];

async fn deployment(clickhouse: &str) -> Result<(Deployment, String)> {
    let bootstrap = kafka::shared().await?;
    let mut deployment = Deployment::new(&bootstrap, clickhouse)?;
    deployment.settings.extend(IMPATIENT.map(str::to_owned));
    Ok((deployment, bootstrap))
}

/// Waits until ClickHouse refuses the aggregator's rows, or accepts them again. A fault takes effect only once rows are sent, however slow the
/// machine is.
async fn until_rows_are(bed: &Bed, taken: bool) -> Result<()> {
    eventually(if taken { "rows to be taken" } else { "rows to be refused" }, async || {
        let failing = bed.aggregators[0].figure("store_failing").await?;
        ensure!((failing == 0.0) == taken, "headcount_store_failing is {failing}");
        Ok(())
    })
    .await
}

/// Waits until the aggregator has written rows: one that is still starting waits for ClickHouse and writes none.
async fn first_rows(bed: &Bed) -> Result<()> {
    eventually("the first rows", async || {
        ensure!(bed.aggregators[0].figure("rows_total").await? > 0.0, "none is written");
        Ok(())
    })
    .await
}

/// Failed and repeated inserts so far.
async fn sent_again(bed: &Bed) -> Result<u64> {
    Ok(bed.aggregators[0].figure("failed_writes_total").await? as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_clickhouse() -> Result<()> {
    let (seed, kills) = (seed(5), times(3, 100));
    let mut engine = Engine::start().await?;
    let (deployment, bootstrap) = deployment(&engine.url()?).await?;
    let mut bed = Bed::start(deployment, &bootstrap, 4, 1).await?;
    bed.aggregator(&[]).await?;
    let load = bed.load(seed);
    first_rows(&bed).await?;
    for kill in 0..kills {
        tokio::time::sleep(Duration::from_millis(300 + mix(seed ^ kill as u64) % 700)).await;
        engine.kill().await?;
        until_rows_are(&bed, false).await?;
        engine.launch().await?;
        until_rows_are(&bed, true).await?;
    }
    load.reach(1_500).await?;
    let driven = load.finish().await?;
    let again = sent_again(&bed).await?;
    bed.verify(&driven).await?.row("5 kill -9 of ClickHouse during inserts", seed, &driven, kills, again).end()?;
    bed.end().await?;
    engine.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_stopped_for_a_minute() -> Result<()> {
    let (seed, seconds) = (seed(6), times(5, 60));
    let mut engine = Engine::start().await?;
    let (deployment, bootstrap) = deployment(&engine.url()?).await?;
    let mut bed = Bed::start(deployment, &bootstrap, 4, 1).await?;
    bed.aggregator(&[]).await?;
    let load = bed.load(seed);
    load.reach(300).await?;
    first_rows(&bed).await?;
    // Unresponsive first: connections are open and nothing answers. Then killed.
    engine.signal("STOP")?;
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    until_rows_are(&bed, false).await?;
    engine.signal("CONT")?;
    until_rows_are(&bed, true).await?;
    load.reach(load.acknowledged() + 300).await?;
    engine.stop().await?;
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    until_rows_are(&bed, false).await?;
    let during = load.acknowledged();
    load.reach(during + 300).await.context("the endpoint does not need ClickHouse")?;
    engine.launch().await?;
    load.reach(1_500).await?;
    let driven = load.finish().await?;
    let again = sent_again(&bed).await?;
    bed.verify(&driven).await?.row("6 ClickHouse silent, then away", seed, &driven, 2, again).end()?;
    bed.end().await?;
    engine.stop().await
}

/// The shared ClickHouse behind a proxy: the URL with the proxy's port.
async fn proxied() -> Result<(Proxy, String)> {
    let url = clickhouse::shared().await?;
    let rest = url.strip_prefix("http://").context("an http URL")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port: u16 = host.rsplit(':').next().context("a port")?.parse()?;
    let proxy = Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, port)), None).await?;
    let url = format!("http://{}/{path}", proxy.address());
    Ok((proxy, url))
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_lost_on_the_way_back() -> Result<()> {
    let (seed, rounds) = (seed(7), times(12, 150));
    let (proxy, url) = proxied().await?;
    let (deployment, bootstrap) = deployment(&url).await?;
    let mut bed = Bed::start(deployment, &bootstrap, 4, 1).await?;
    bed.aggregator(&[]).await?;
    let load = bed.load(seed);
    load.reach(200).await?;
    for round in 0..rounds {
        let [_, _, before, _] = proxy.counts();
        proxy.swallow(1 + mix(seed ^ round as u64) % 5);
        eventually("an answer to be swallowed", async || {
            ensure!(proxy.counts()[2] > before, "none was");
            Ok(())
        })
        .await?;
    }
    proxy.heal();
    load.reach(1_500).await?;
    let driven = load.finish().await?;
    let swallowed = proxy.counts()[2];
    bed.verify(&driven).await?.row("7 acknowledgements lost", seed, &driven, rounds, swallowed).end()?;
    bed.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_delivered_again_much_later() -> Result<()> {
    let (seed, late) = (seed(8), Duration::from_secs(times(3, 30) as u64));
    let (proxy, url) = proxied().await?;
    let (mut deployment, bootstrap) = deployment(&url).await?;
    // Windows that closed long ago get late rows too.
    deployment.settings.extend(["--window-records", "400"].map(str::to_owned));
    proxy.inspect();
    let mut bed = Bed::start(deployment, &bootstrap, 2, 1).await?;
    bed.aggregator(&[]).await?;
    let load = bed.load(seed);
    load.reach(500).await?;
    let captured = eventually("inserts to be captured", async || {
        let captured = proxy.captured();
        ensure!(captured.len() >= 5, "{} so far", captured.len());
        Ok(captured)
    })
    .await?;
    tokio::time::sleep(late).await;
    for request in &captured {
        let status = proxy.replay(request).await?;
        ensure!(status == 200, "the late insert was answered {status}");
    }
    load.reach(1_500).await?;
    let driven = load.finish().await?;
    // Replays the requests once more without new rows: the last write is the oldest.
    for request in &captured {
        proxy.replay(request).await?;
    }
    let again = 2 * captured.len();
    bed.verify(&driven).await?.row("8 inserts delivered again, late", seed, &driven, again, again as u64).end()?;
    bed.end().await
}
