//! Experiments 12, 14 and 18: the endpoint killed and stopped, its spill torn or full, clocks that disagree.

use crate::bed::{Bed, long, seed, times};
use anyhow::{Context, Result, ensure};
use harness::clickhouse;
use harness::kafka::{self, Broker};
use harness::random::mix;
use harness::roles::Deployment;
use harness::service::eventually;
use std::io::{Seek, SeekFrom, Write};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_and_sigterm_of_the_endpoint() -> Result<()> {
    let (seed, ends) = (seed(12), times(4, 400));
    let bootstrap = kafka::shared().await?;
    let deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    let mut bed = Bed::start(deployment, &bootstrap, 4, 1).await?;
    bed.aggregator(&[]).await?;
    let load = bed.load(seed);
    for end in 0..ends {
        load.reach(load.acknowledged() + 50 + (mix(seed ^ end as u64) % 150) as usize).await?;
        if end % 2 == 0 {
            bed.ingest.process.kill().await?;
        } else {
            bed.ingest.process.stop().await.context("SIGTERM under load ends with success")?;
        }
        bed.ingest.start(&[]).await?;
    }
    load.reach(1_500).await?;
    let driven = load.finish().await?;
    bed.verify(&driven).await?.row("12 kill -9 and SIGTERM of the endpoint", seed, &driven, ends, 0).end()?;
    bed.end().await
}

/// The spill's file with rubbish at its end (a write that a power cut tore), then damaged in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn torn_spill() -> Result<()> {
    let seed = seed(14);
    let mut broker = Broker::start().await?;
    let bootstrap = broker.bootstrap();
    let deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    let mut bed = Bed::start_with(deployment, &bootstrap, 2, 1, &["--spill-after-ms", "300"]).await?;
    bed.aggregator(&[]).await?;
    let load = bed.load(seed);
    load.reach(600).await?;
    broker.kill().await?;
    load.reach(load.acknowledged() + 600).await?;
    bed.ingest.process.kill().await?;
    let path = bed.deployment.path().join("ingest").join("spill.redb");
    let mut file = std::fs::File::options().append(true).open(&path)?;
    file.write_all(&vec![0xa5; 8 << 10])?;
    drop(file);
    bed.ingest.start(&[]).await.context("what a torn write left behind is no harm")?;
    broker.launch().await?;
    load.reach(load.acknowledged() + 200).await?;
    let driven = load.finish().await?;
    bed.verify(&driven).await?.row("14 torn spill file", seed, &driven, 2, 0).end()?;

    // Damage is told, and nothing is started over it.
    bed.ingest.process.kill().await?;
    let mut file = std::fs::File::options().write(true).open(&path)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&[0x5a; 4096])?;
    drop(file);
    bed.ingest.process.spawn(&[])?;
    let status = bed.ingest.process.ended().await?;
    let said = bed.ingest.process.log();
    ensure!(!status.success() && said.contains("spill.redb is damaged"), "{said}");
    broker.kill().await
}

/// A spill on a disk of a few MiB: 503 when it is full, and nothing acknowledged is lost.
#[tokio::test(flavor = "multi_thread")]
async fn full_spill() -> Result<()> {
    let seed = seed(15);
    let mut broker = Broker::start().await?;
    let bootstrap = broker.bootstrap();
    let deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    // The bound stands for the disk's end; the disk's own is the operator story's. It lets some hundred records in.
    let spill = ["--spill-after-ms", "300", "--spill-bytes", "60000"];
    let mut bed = Bed::start_with(deployment, &bootstrap, 2, 1, &spill).await?;
    bed.aggregator(&[]).await?;
    let load = bed.load(seed);
    load.reach(900).await?;
    broker.kill().await?;
    let full = eventually("the spill to be full", async || {
        let bytes = bed.ingest.figure("spill_bytes").await?;
        ensure!(bytes > 58_000.0, "{bytes} bytes so far");
        Ok(load.acknowledged())
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(times(2, 20) as u64)).await;
    ensure!(load.acknowledged() <= full + 50, "acknowledged with nowhere to put it: {}", load.acknowledged() - full);
    broker.launch().await?;
    load.reach(full + 400).await?;
    let driven = load.finish().await?;
    ensure!(driven.refused > 0, "readers were told 503");
    bed.verify(&driven).await?.row("14 spill full", seed, &driven, 1, driven.refused).end()?;
    bed.end().await?;
    broker.kill().await
}

/// Clocks two hours off, on the endpoint or on an aggregator: windows are cut by the brokers', and figures agree with the
/// log. (Views carry the hour of the endpoint's clock; nothing else can know better.)
#[tokio::test(flavor = "multi_thread")]
async fn clocks_two_hours_off() -> Result<()> {
    if !long() {
        return Ok(());
    }
    let seed = seed(18);
    let bootstrap = kafka::shared().await?;
    let deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    let mut bed = Bed::start(deployment, &bootstrap, 4, 1).await?;
    let ahead = (chrono::Utc::now() + chrono::Duration::hours(2)).to_rfc3339();
    bed.aggregator(&["--clock-start", &ahead]).await?;
    bed.aggregator(&[]).await?;
    let load = bed.load(seed);
    load.reach(700).await?;
    bed.ingest.process.stop().await?;
    let behind = (chrono::Utc::now() - chrono::Duration::minutes(20)).to_rfc3339();
    bed.ingest.start(&["--clock-start", &behind]).await?;
    load.reach(load.acknowledged() + 700).await?;
    bed.kill_aggregator(1).await?;
    bed.aggregators[1].start(&["--clock-start", &behind]).await?;
    let driven = load.finish().await?;
    let again = bed.folded_again;
    bed.verify(&driven).await?.row("18 clocks that disagree", seed, &driven, 3, again).end()?;
    bed.end().await
}
