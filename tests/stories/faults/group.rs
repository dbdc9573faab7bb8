//! Experiments 1 to 4: aggregators that are killed, aborted, stopped as zombies, and come and go.

use crate::bed::{Bed, seed, times};
use anyhow::{Context, Result, ensure};
use harness::random::mix;
use harness::roles::Deployment;
use harness::service::eventually;
use harness::{clickhouse, kafka};
use std::time::Duration;

/// Windows so short that they end all the time.
const SHORT_WINDOWS: [&str; 2] = ["--window-records", "700"];

async fn bed(settings: &[&str], partitions: i32) -> Result<Bed> {
    let bootstrap = kafka::shared().await?;
    let mut deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    deployment.settings.extend(settings.iter().map(|&setting| setting.to_owned()));
    Bed::start(deployment, &bootstrap, partitions, 1).await
}

/// Some time between faults, from the seed.
async fn a_while(seed: u64, step: usize, most_ms: u64) {
    tokio::time::sleep(Duration::from_millis(100 + mix(seed ^ mix(step as u64)) % most_ms)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_aggregator() -> Result<()> {
    let (seed, kills) = (seed(1), times(8, 600));
    let mut bed = bed(&[], 4).await?;
    bed.aggregator(&[]).await?;
    let load = bed.load(seed);
    for kill in 0..kills {
        // Most kills come at any moment, some in the middle of a start; every fourth surely interrupts folding.
        if kill % 4 == 0 {
            eventually("something folded", async || {
                ensure!(bed.aggregators[0].figure("folded_offset").await? > 0.0, "nothing yet");
                Ok(())
            })
            .await
            .with_context(|| bed.logs())?;
        }
        a_while(seed, kill, 900).await;
        bed.kill_aggregator(0).await?;
        bed.aggregators[0].process.spawn(&[])?;
    }
    load.reach(1_500).await?;
    let driven = load.finish().await?;
    let again = bed.folded_again;
    bed.verify(&driven).await?.row("1 kill -9 of the aggregator", seed, &driven, kills, again).end()?;
    bed.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn abort_at_each_step_of_flush_and_commit() -> Result<()> {
    let (seed, rounds) = (seed(2), times(1, 12));
    let mut bed = bed(&SHORT_WINDOWS, 2).await?;
    bed.aggregator(&[]).await?;
    let load = bed.load(seed);
    let mut aborts = 0;
    for round in 0..rounds {
        for step in [
            "frozen",
            "page",
            "breakdown",
            "not_found",
            "rejection",
            "robot_page",
            "robot",
            "site",
            "ledger",
            "committed",
            "window_end",
        ] {
            bed.kill_aggregator(0).await?;
            let at = format!("{step}:{}", 1 + mix(seed ^ mix(round as u64)) % 4);
            let process = &mut bed.aggregators[0].process;
            process.spawn(&["--abort-at", &at])?;
            let status = process.ended().await.with_context(|| format!("aborting at {at}"))?;
            ensure!(!status.success(), "it should have died at {at}: {status}");
            aborts += 1;
            // Whatever it had written is written again.
            bed.folded_again += 1;
            bed.aggregators[0].start(&[]).await?;
        }
    }
    load.reach(1_500).await?;
    let driven = load.finish().await?;
    let again = bed.folded_again;
    bed.verify(&driven).await?.row("2 abort at each step of flush and commit", seed, &driven, aborts, again).end()?;
    bed.end().await
}

/// SIGSTOP for longer than the group waits, while another takes over; then SIGCONT, and what the zombie still writes.
async fn zombies(name: &'static str, seed: u64, settings: &[&str]) -> Result<()> {
    let rounds = times(1, 10);
    let mut bed = bed(settings, 4).await?;
    bed.aggregator(&[]).await?;
    bed.aggregator(&[]).await?;
    bed.aggregators[0].has_partitions(2).await?;
    let load = bed.load(seed);
    load.reach(300).await?;
    for round in 0..rounds {
        let (zombie, heir) = (round % 2, 1 - round % 2);
        // In the middle of its work: it has folded what it has not written.
        let before = eventually("something folded", async || {
            let folded = bed.aggregators[zombie].figure("folded_offset").await?;
            ensure!(folded > 0.0, "nothing yet");
            Ok(folded)
        })
        .await?;
        bed.aggregators[zombie].process.signal("STOP")?;
        bed.aggregators[heir].has_partitions(4).await?;
        // Everything it had is folded again by its heir.
        bed.folded_again += before as u64;
        // Three of the short sessions, all in all.
        tokio::time::sleep(Duration::from_secs(3)).await;
        bed.aggregators[zombie].process.signal("CONT")?;
        bed.aggregators[zombie].has_partitions(2).await?;
    }
    load.reach(1_500).await?;
    let driven = load.finish().await?;
    let again = bed.folded_again;
    bed.verify(&driven).await?.row(name, seed, &driven, rounds, again).end()?;
    bed.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn zombies_of_the_classic_protocol() -> Result<()> {
    zombies("3 SIGSTOP, three time-outs, SIGCONT (classic)", seed(3), &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn zombies_of_kip_848() -> Result<()> {
    zombies("3 SIGSTOP, three time-outs, SIGCONT (KIP-848)", seed(3), &["--kafka-group-protocol", "consumer"]).await
}

/// One aggregator, four, one, by start and stop and kill.
async fn storm(name: &'static str, seed: u64, settings: &[&str]) -> Result<()> {
    let rounds = times(1, 12);
    let mut bed = bed(settings, 6).await?;
    bed.aggregator(&[]).await?;
    let load = bed.load(seed);
    let mut changes = 0;
    for round in 0..rounds {
        for index in 1..4 {
            if index < bed.aggregators.len() {
                bed.aggregators[index].process.spawn(&[])?;
            } else {
                bed.aggregator(&[]).await?;
            }
            changes += 1;
            a_while(seed, round * 10 + index, 500).await;
        }
        // All of them have something before they go.
        for role in &bed.aggregators {
            eventually("a partition for each", async || {
                let state = role.state().await?;
                ensure!(state["partitions"].as_object().is_some_and(|partitions| !partitions.is_empty()), "{state}");
                Ok(())
            })
            .await
            .with_context(|| bed.logs())?;
        }
        for index in 1..4 {
            if mix(seed ^ (round * 4 + index) as u64).is_multiple_of(2) {
                bed.kill_aggregator(index).await?;
            } else {
                bed.aggregators[index].process.stop().await?;
                // Whoever takes over folds the open windows from their beginning.
                bed.folded_again += 1;
            }
            changes += 1;
            a_while(seed, round * 10 + 5 + index, 500).await;
        }
    }
    load.reach(1_500).await?;
    let driven = load.finish().await?;
    let again = bed.folded_again;
    bed.verify(&driven).await?.row(name, seed, &driven, changes, again).end()?;
    bed.end().await
}

#[tokio::test(flavor = "multi_thread")]
async fn rebalance_storm_of_the_classic_protocol() -> Result<()> {
    storm("4 rebalance storm 1-4-1 (classic)", seed(4), &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rebalance_storm_of_kip_848() -> Result<()> {
    storm("4 rebalance storm 1-4-1 (KIP-848)", seed(5), &["--kafka-group-protocol", "consumer"]).await
}
