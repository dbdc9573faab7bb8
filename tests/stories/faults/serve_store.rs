//! Experiments 20 to 25 and 31, of `headcount serve`: its ClickHouse killed, stopped, older, empty and damaged; an older journal; an older copy
//! of everything.

use crate::alone::{Alone, copy, counted_and_stopped, remove};
use crate::bed::{seed, times};
use crate::load::Load;
use anyhow::{Context, Result, ensure};
use harness::random::mix;
use harness::service::eventually;
use std::path::{Path, PathBuf};

const ENDED: (&str, &str) = ("ClickHouse ended by itself", "Nothing is lost: beacons go on into the journal");
const SILENT: (&str, &str) = ("ClickHouse has answered nothing for 15 s", "check memory");
const OLDER: (&str, &str) =
    ("ClickHouse is older than the log", "the log still holds what it lacks, which is counted again");
const EMPTY: (&str, &str) = ("has 8 projects and 0 tokens", "--recover");
const DAMAGED: (&str, &str) = ("ClickHouse's data are damaged", "restore a backup of ClickHouse's data");
const OLDER_JOURNAL: (&str, &str) = ("of this log, but the log ends at", "Restore the newer log");

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_the_embedded_clickhouse() -> Result<()> {
    let (seed, kills) = (seed(20), times(2, 7));
    let mut alone = Alone::start("20 serve: kill -9 of its ClickHouse", seed, &[]).await?;
    let load = alone.load();
    for kill in 0..kills {
        load.reach(load.acknowledged() + 200 + (mix(seed ^ kill as u64) % 300) as usize).await?;
        let from = alone.log_length();
        alone.signal_engine("KILL")?;
        load.reach(load.acknowledged() + 50).await.context("beacons need no ClickHouse")?;
        alone.says(from, ENDED.0, ENDED.1).await?;
        let restarts = kill as u64 + 1;
        alone
            .state("ClickHouse to be back", |state| {
                state["clickhouse"]["restarts"] == restarts && state["clickhouse"]["answers"] == true
            })
            .await?;
    }
    load.reach(1_200).await?;
    let driven = load.finish().await?;
    alone.verify(&driven, kills).await?.end()
}

/// SIGSTOP: for a moment, then until the supervisor starts it again.
#[tokio::test(flavor = "multi_thread")]
async fn sigstop_of_the_embedded_clickhouse() -> Result<()> {
    let (seed, long_stops) = (seed(21), times(1, 3));
    let mut alone = Alone::start("21 serve: SIGSTOP of its ClickHouse", seed, &[]).await?;
    let load = alone.load();
    load.reach(300).await?;
    alone.signal_engine("STOP")?;
    alone.state("its silence to be noticed", |state| state["clickhouse"]["answers"] == false).await?;
    load.reach(load.acknowledged() + 100).await.context("beacons need no ClickHouse")?;
    alone.signal_engine("CONT")?;
    alone.state("its answers to be noticed", |state| state["clickhouse"]["answers"] == true).await?;
    for _ in 0..long_stops {
        let from = alone.log_length();
        alone.signal_engine("STOP")?;
        alone.says(from, SILENT.0, SILENT.1).await?;
        load.reach(load.acknowledged() + 100).await?;
        alone.state("ClickHouse to be back", |state| state["clickhouse"]["answers"] == true).await?;
    }
    load.reach(1_200).await?;
    let driven = load.finish().await?;
    alone.verify(&driven, 1 + long_stops).await?.end()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_clickhouse_under_load() -> Result<()> {
    let (seed, rounds) = (seed(22), times(1, 3));
    let mut alone = Alone::start("22 serve: older ClickHouse, current journal", seed, &[]).await?;
    let aside = tempfile::tempdir()?;
    let aside = aside.path().join("clickhouse");
    let load = alone.load();
    for _ in 0..rounds {
        counted_and_stopped(&mut alone, &load, load.acknowledged() + 400).await?;
        copy(&alone.store(), &aside)?;
        alone.service.start(&[]).await?;
        counted_and_stopped(&mut alone, &load, load.acknowledged() + 400).await?;
        copy(&aside, &alone.store())?;
        let from = alone.log_length();
        alone.service.start(&[]).await?;
        alone.says(from, OLDER.0, OLDER.1).await?;
    }
    load.reach(load.acknowledged() + 400).await?;
    let driven = load.finish().await?;
    alone.verify(&driven, rounds).await?.end()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_clickhouse_under_load() -> Result<()> {
    let (seed, rounds) = (seed(23), times(1, 3));
    let mut alone = Alone::start("23 serve: ClickHouse's data removed", seed, &[]).await?;
    let load = alone.load();
    eventually("the copy of the registry", async || {
        let copy: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(alone.service.data().join("projects.json"))?)?;
        ensure!(copy["projects"].as_array().map(Vec::len) == Some(8), "{copy}");
        Ok(())
    })
    .await?;
    for _ in 0..rounds {
        counted_and_stopped(&mut alone, &load, load.acknowledged() + 600).await?;
        remove(&alone.store())?;
        alone.refuses(&[], EMPTY.0, EMPTY.1).await?;
        alone.service.start(&["--recover"]).await?;
    }
    load.reach(load.acknowledged() + 600).await?;
    let driven = load.finish().await?;
    alone.verify(&driven, rounds).await?.end()
}

/// Files of stored parts, and definitions of tables.
fn files(store: &Path) -> Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut parts, mut tables) = (Vec::new(), Vec::new());
    let mut directories = vec![store.join("store").join("store")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if path.is_dir() {
                directories.extend((name != "detached").then_some(path));
            } else if name.ends_with(".sql") {
                tables.extend(
                    ["page_daily", "site_hourly", "ledger", "project"]
                        .contains(&name.trim_end_matches(".sql"))
                        .then_some(path),
                );
            } else if directory.file_name().is_some_and(|part| part.to_string_lossy().matches('_').count() >= 3) {
                parts.push(path);
            }
        }
    }
    parts.sort();
    tables.sort();
    Ok((parts, tables))
}

/// One damage: a bit, a truncated file, a missing definition, a missing file.
fn damage(store: &Path, seed: u64) -> Result<String> {
    let (parts, tables) = files(store)?;
    let draw = |of: &[PathBuf]| of[(mix(seed) % of.len() as u64) as usize].clone();
    let (how, path) = match seed % 4 {
        0 => {
            let path = draw(&parts);
            let mut bytes = std::fs::read(&path)?;
            let at = (mix(seed ^ 1) % bytes.len().max(1) as u64) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (mix(seed ^ 2) % 8);
            }
            std::fs::write(&path, bytes)?;
            ("a bit of", path)
        }
        1 => {
            let path = draw(&parts);
            let mut bytes = std::fs::read(&path)?;
            bytes.truncate(bytes.len() / 2);
            std::fs::write(&path, bytes)?;
            ("half of", path)
        }
        2 => {
            let path = draw(&tables);
            remove(&path)?;
            ("the definition", path)
        }
        _ => {
            let path = draw(&parts);
            remove(&path)?;
            ("the file", path)
        }
    };
    let names: Vec<_> =
        path.components().rev().take(2).map(|name| name.as_os_str().to_string_lossy().into_owned()).collect();
    Ok(format!("{how} {}/{}", names[1], names[0]))
}

/// Every damage is refused with a message, or changes no figure.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_clickhouse() -> Result<()> {
    let (seed, damages) = (seed(24), times(3, 16));
    // Several windows: what is damaged in one that is closed is not written once more.
    let mut alone = Alone::start("24 serve: damaged ClickHouse", seed, &["--window-records", "300"]).await?;
    let load = alone.load();
    load.reach(1_200).await?;
    let driven = load.finish().await?;
    alone.service.stop().await?;
    let aside = tempfile::tempdir()?;
    let aside = aside.path().join("clickhouse");
    copy(&alone.store(), &aside)?;
    let mut refused = 0;
    for number in 0..damages as u64 {
        copy(&aside, &alone.store())?;
        let what = damage(&alone.store(), seed + number)?;
        let from = alone.log_length();
        let started = alone.service.start(&[]).await;
        println!("seed {}: {what}: {}", seed + number, if started.is_ok() { "no figure changed" } else { "refused" });
        if started.is_ok() {
            alone.has_counted(&driven).await.with_context(|| format!("{what}\n{}", alone.tail()))?;
            alone.service.stop().await?;
        } else {
            refused += 1;
            alone.says(from, DAMAGED.0, DAMAGED.1).await.context(what)?;
        }
    }
    ensure!(refused > 0, "no damage was one");
    copy(&aside, &alone.store())?;
    alone.service.start(&[]).await?;
    alone.verify(&driven, damages).await?.end()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_journal_under_load() -> Result<()> {
    let (seed, rounds) = (seed(25), times(1, 3));
    let mut alone = Alone::start("25 serve: older journal, current ClickHouse", seed, &[]).await?;
    let directory = tempfile::tempdir()?;
    let (older, newer) = (directory.path().join("older"), directory.path().join("newer"));
    let journal = alone.service.data().join("journal.redb");
    let load = alone.load();
    for _ in 0..rounds {
        counted_and_stopped(&mut alone, &load, load.acknowledged() + 400).await?;
        copy(&journal, &older)?;
        alone.service.start(&[]).await?;
        counted_and_stopped(&mut alone, &load, load.acknowledged() + 400).await?;
        copy(&journal, &newer)?;
        copy(&older, &journal)?;
        for _ in 0..2 {
            alone.refuses(&[], OLDER_JOURNAL.0, OLDER_JOURNAL.1).await?;
        }
        copy(&newer, &journal)?;
        alone.service.start(&[]).await?;
    }
    load.reach(load.acknowledged() + 400).await?;
    let driven = load.finish().await?;
    alone.verify(&driven, 2 * rounds).await?.end()
}

/// A copy of a stopped service's whole data directory, made with `cp`, takes the place of the current one while readers go on. Views of
/// the time between are in neither, and nothing in the copy can say so. The place for `headcount backup` and `headcount restore`: they name
/// the dates, and `restore_under_load` becomes their story.
#[tokio::test(flavor = "multi_thread")]
async fn restore_under_load() -> Result<()> {
    let seed = seed(31);
    let mut alone = Alone::start("31 serve: older copy of the whole directory", seed, &[]).await?;
    let aside = tempfile::tempdir()?;
    let aside = aside.path().join("data");
    let before = alone.load();
    before.reach(600).await?;
    let before = before.finish().await?;
    alone.service.stop().await?;
    copy(&alone.service.data(), &aside)?;
    alone.service.start(&[]).await?;
    let between = Load::start(alone.service.address(), mix(seed), 8);
    between.reach(200).await?;
    let between = between.finish().await?.acknowledged.len();
    alone.service.stop().await?;
    let resumed = Load::start(alone.service.address(), mix(seed ^ 1), 8);
    copy(&aside, &alone.service.data())?;
    alone.service.start(&[]).await?;
    resumed.reach(600).await?;
    let mut driven = resumed.finish().await?;
    driven.acknowledged.extend(before.acknowledged);
    let mut row = alone.verify(&driven, 1).await?;
    row.acknowledged += between;
    (row.lost, row.taken, row.says_why) = (between as u64, between as u64, true);
    row.note = "nothing: lost are the views between the copy and the restore".to_owned();
    row.end()
}
