//! Experiments 26 to 30: a full disk for the journal, ClickHouse and the spill, each alone; clocks that jump over a month's end; too few
//! file descriptors.

use crate::alone::{Alone, SmallDisk};
use crate::bed::{Bed, seed, times};
use anyhow::{Context, Result, ensure};
use harness::kafka::Broker;
use harness::random::mix;
use harness::roles::Deployment;
use harness::service::{binary, eventually};
use harness::{clickhouse, http};
use std::net::SocketAddr;
use std::process::Command;

const JOURNAL_FULL: (&str, &str) = ("beacons are answered 503 until it can", "Is the disk full?");
const STORE_FULL: (&str, &str) = ("rows are not stored yet", "free space on it; the rows are stored then");
const FEW_FILES: (&str, &str) = ("the limit on open files is 512", "Raise it");
const NO_FILES: (&str, &str) = ("the limit on open files is reached", "Raise the limit");

/// How a disk was made full: with a mounted file system, or where that is not allowed by a limit on the size of files.
enum Disk {
    Small(SmallDisk),
    /// Process whose files are limited.
    Limit(String),
}

impl Disk {
    fn fill(&self) -> Result<()> {
        match self {
            Disk::Small(disk) => disk.fill(0),
            Disk::Limit(pid) => limit_file_sizes(pid, "4096"),
        }
    }

    fn free(&self) -> Result<()> {
        match self {
            Disk::Small(disk) => disk.free(),
            Disk::Limit(pid) => limit_file_sizes(pid, "unlimited"),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Disk::Small(_) => "a small file system",
            Disk::Limit(_) => "a limit on file sizes, since this process may not mount",
        }
    }
}

fn limit_file_sizes(pid: &str, bytes: &str) -> Result<()> {
    let set = Command::new("prlimit").args(["--pid", pid, &format!("--fsize={bytes}:")]).status()?;
    ensure!(set.success(), "prlimit failed");
    Ok(())
}

async fn is_refusing(metrics: SocketAddr, refusing: bool) -> Result<()> {
    eventually("the readiness to change", async || {
        let status = http::get(metrics, "/readyz").await?.status;
        ensure!((status == 503) == refusing, "{status}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_journal() -> Result<()> {
    let (seed, rounds) = (seed(26), times(1, 5));
    let mut alone = Alone::stopped("26 serve: full disk, the journal's", seed, &[])?;
    let data = SmallDisk::mount(&alone.service.data(), 12)?;
    // ClickHouse's directory has a disk of its own, with space.
    let _store = if data.is_some() { SmallDisk::mount(&alone.store(), 512)? } else { None };
    alone.service.start(&[]).await?;
    alone.register().await?;
    let disk = match data {
        Some(disk) => Disk::Small(disk),
        None => Disk::Limit(alone.service.pid().context("it runs")?.to_string()),
    };
    println!("26: {}", disk.name());
    let load = alone.load();
    for _ in 0..rounds {
        load.reach(load.acknowledged() + 300).await?;
        disk.fill()?;
        is_refusing(alone.service.metrics(), true).await?;
        // Once for all rounds: a repeated condition is one line.
        alone.says(0, JOURNAL_FULL.0, JOURNAL_FULL.1).await?;
        disk.free()?;
        is_refusing(alone.service.metrics(), false).await?;
    }
    load.reach(1_200).await?;
    let driven = load.finish().await?;
    ensure!(driven.refused > 0, "no beacon was answered 503");
    alone.verify(&driven, rounds).await?.end()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_clickhouse() -> Result<()> {
    let (seed, rounds) = (seed(27), times(1, 5));
    let mut alone = Alone::stopped("27 serve: full disk, ClickHouse's", seed, &[])?;
    let store = SmallDisk::mount(&alone.store(), 128)?;
    alone.service.start(&[]).await?;
    alone.register().await?;
    let disk = match store {
        Some(disk) => Disk::Small(disk),
        None => Disk::Limit(alone.engine()?),
    };
    println!("27: {}", disk.name());
    let load = alone.load();
    for _ in 0..rounds {
        load.reach(load.acknowledged() + 300).await?;
        disk.fill()?;
        alone.state("rows to be refused", |state| state["aggregator"]["clickhouse"] == "refuses rows").await?;
        // Once for all rounds: a repeated condition is one line.
        alone.says(0, STORE_FULL.0, STORE_FULL.1).await?;
        load.reach(load.acknowledged() + 300).await.context("beacons go on into the journal")?;
        disk.free()?;
        alone.state("ClickHouse to take rows again", |state| state["aggregator"]["clickhouse"] == "takes rows").await?;
    }
    load.reach(1_200).await?;
    let driven = load.finish().await?;
    alone.verify(&driven, rounds).await?.end()
}

/// Of `ingest`, while Kafka is away.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_the_spill() -> Result<()> {
    let seed = seed(28);
    let mut broker = Broker::start().await?;
    let bootstrap = broker.bootstrap();
    let deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    let data = SmallDisk::mount(&deployment.path().join("ingest"), 12)?;
    let mut bed = Bed::start_with(deployment, &bootstrap, 2, 1, &["--spill-after-ms", "300"]).await?;
    bed.aggregator(&[]).await?;
    let disk = match data {
        Some(disk) => Disk::Small(disk),
        None => Disk::Limit(bed.ingest.process.pid().context("it runs")?.to_string()),
    };
    println!("28: {}", disk.name());
    let load = bed.load(seed);
    load.reach(1_000).await?;
    broker.kill().await?;
    load.reach(load.acknowledged() + 100).await.context("the spill takes beacons")?;
    disk.fill()?;
    is_refusing(bed.ingest.metrics, true).await?;
    let said = bed.ingest.process.log();
    ensure!(said.contains(JOURNAL_FULL.0) && said.contains(JOURNAL_FULL.1), "{said}");
    disk.free()?;
    is_refusing(bed.ingest.metrics, false).await?;
    broker.launch().await?;
    load.reach(load.acknowledged() + 200).await?;
    let driven = load.finish().await?;
    ensure!(driven.refused > 0, "no beacon was answered 503");
    let mut row = bed.verify(&driven).await?.row("28 ingest: full disk, the spill's", seed, &driven, 1, driven.refused);
    row.note = format!("“{} … {}”", JOURNAL_FULL.0, JOURNAL_FULL.1);
    row.end()?;
    bed.end().await?;
    broker.kill().await
}

/// Forwards over a month's end, back, and forwards again, each with a restart; then the month ends while readers are served.
#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_jump_over_a_months_end() -> Result<()> {
    let (seed, rounds) = (seed(29), times(1, 4));
    let mut alone = Alone::stopped("29 serve: clock jumps over a month's end", seed, &[])?;
    alone.months = vec!["2026-06".to_owned(), "2026-07".to_owned()];
    let at = |time: &'static str| ["--clock-start", time];
    alone.service.start(&at("2026-06-30T23:50:00Z")).await?;
    alone.register().await?;
    let load = alone.load();
    let mut jumps = 0;
    for round in 0..rounds {
        for time in ["2026-07-01T00:10:00Z", "2026-06-30T23:55:00Z", "2026-06-30T23:59:58Z"] {
            load.reach(load.acknowledged() + 150 + (mix(seed ^ round as u64) % 100) as usize).await?;
            alone.service.stop().await?;
            alone.service.start(&at(time)).await?;
            jumps += 1;
        }
        // Two seconds later it is July.
        let address = alone.service.address();
        eventually("July's report", async || {
            let answer = http::get(address, "/v1/projects/alpha/reports/2026-07").await?;
            ensure!(answer.status == 200, "{}", answer.status);
            Ok(())
        })
        .await?;
        jumps += 1;
    }
    load.reach(1_200).await?;
    let driven = load.finish().await?;
    let mut row = alone.verify(&driven, jumps).await?;
    row.says_why = true;
    row.note = "views are of the month that the clock says".to_owned();
    row.end()
}

/// Below what any start needs the service refuses to start; a limit that is reached under load is one message, and beacons wait.
#[tokio::test(flavor = "multi_thread")]
async fn too_few_file_descriptors() -> Result<()> {
    let (seed, rounds) = (seed(30), times(1, 5));
    let mut alone = Alone::stopped("30 serve: file descriptors", seed, &[])?;
    let directory = tempfile::tempdir()?;
    let refused = tokio::process::Command::new("prlimit")
        .arg("--nofile=512:512")
        .arg(binary()?)
        .args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data"])
        .arg(directory.path().join("data"))
        .output()
        .await?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(!refused.status.success() && said.contains(FEW_FILES.0) && said.contains(FEW_FILES.1), "{said}");
    alone.service.start(&[]).await?;
    alone.register().await?;
    let load = alone.load();
    let pid = alone.service.pid().context("it runs")?.to_string();
    let limit = |files: &str| -> Result<()> {
        let set = Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={files}:")]).status()?;
        ensure!(set.success(), "prlimit failed");
        Ok(())
    };
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let usual = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    let usual = usual.context("a limit on open files")?.to_owned();
    for _ in 0..rounds {
        load.reach(load.acknowledged() + 200).await?;
        // The lowest number that is free is the limit: no further descriptor can be had, and open ones stay open.
        let free = (0..).find(|number| !std::path::Path::new(&format!("/proc/{pid}/fd/{number}")).exists());
        limit(&free.context("a number")?.to_string())?;
        let mut idle = Vec::new();
        for _ in 0..20 {
            idle.push(tokio::net::TcpStream::connect(alone.service.address()).await?);
        }
        // Once for all rounds: a repeated condition is one line.
        alone.says(0, NO_FILES.0, NO_FILES.1).await?;
        load.reach(load.acknowledged() + 100).await.context("connections that are open go on")?;
        drop(idle);
        limit(&usual)?;
    }
    load.reach(1_200).await?;
    ensure!(alone.service.log().matches(NO_FILES.0).count() == 1, "one line for one condition\n{}", alone.tail());
    let driven = load.finish().await?;
    alone.verify(&driven, 1 + rounds).await?.end()
}
