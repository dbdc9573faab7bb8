//! A journal is damaged between a stop and a start: either the figures are exact, or the service reports the damage and ends, and the journal is
//! salvaged.

use anyhow::{Context, Result, ensure};
use harness::http::Connection;
use harness::service::{Service, eventually};
use serde_json::Value;
use std::path::Path;

const CLOCK: &str = "2026-06-15T10:00:00Z";
const MONTH: &str = "2026-06";
const AGENT: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0";

/// A deterministic pseudo-random generator, seeded.
struct Chance(u64);

impl Chance {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Flips bits, zeroes a page, or truncates the file.
fn damage(path: &Path, seed: u64) -> Result<&'static str> {
    let mut chance = Chance(seed);
    let mut bytes = std::fs::read(path)?;
    let length = bytes.len() as u64;
    let how = match seed % 4 {
        0 | 1 => {
            for _ in 0..20 {
                bytes[chance.next(length) as usize] ^= 1 << chance.next(8);
            }
            "20 bits"
        }
        2 => {
            let page = chance.next(length / 4096) as usize * 4096;
            bytes[page..page + 4096].fill(0);
            "a page of zeroes"
        }
        _ => {
            bytes.truncate((length - 1 - chance.next(length / 3)) as usize);
            "truncated"
        }
    };
    std::fs::write(path, bytes)?;
    Ok(how)
}

async fn send(service: &Service, count: u64) -> Result<()> {
    let mut connection = Connection::open(service.address()).await?;
    for number in 0..count {
        let page = number % 40;
        let body = format!(r#"{{"project":"docs","url":"https://docs.example/{page}.html"}}"#);
        let answer = connection.send("POST", "/v1/pageview", &[("user-agent", AGENT)], body).await?;
        ensure!(answer.status == 202, "{}", answer.status);
    }
    Ok(())
}

/// Views and `lost` records add up to the acknowledged beacons, in the report's total and over its pages.
async fn adds_up(service: &Service, acknowledged: u64, lost: u64) -> Result<()> {
    eventually(&format!("{lost} lost records and views to be {acknowledged}"), async || {
        let report = service.report("docs", MONTH).await?;
        let views = report["totals"]["views"].as_u64().context("views")?;
        let pages = report["pages"]["items"].as_array().context("pages")?;
        let of_pages: u64 = pages.iter().filter_map(|page| page["views"].as_u64()).sum();
        let in_ledger: u64 = service.clickhouse()?.query("SELECT sum(lost) FROM ledger FINAL").fetch_one().await?;
        ensure!(
            in_ledger == lost && views + lost == acknowledged && of_pages == views,
            "{views} views ({of_pages} of pages) + {in_ledger} lost of {acknowledged} acknowledged"
        );
        Ok(())
    })
    .await
}

async fn audit(service: &Service) -> Result<Value> {
    let audit = service.told(&["audit"]).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0 && audit["moving"] == 0, "{audit}");
    Ok(audit)
}

/// One damage. Returns whether the service refused to start, and how many records are lost after it.
async fn one(seed: u64) -> Result<(bool, u64)> {
    let mut service = Service::started(&["--clock-start", CLOCK], &[("docs", "docs.example")]).await?;
    let acknowledged = 300;
    send(&service, acknowledged).await?;
    adds_up(&service, acknowledged, 0).await?;
    if seed.is_multiple_of(2) {
        service.stop().await?;
    } else {
        service.kill().await?;
    }
    let journal = service.data().join("journal.redb");
    let how = damage(&journal, seed)?;
    let before = service.log().len();
    let mut lost = 0;
    let refused = match service.start(&[]).await {
        // The damage hit free space, or data that is not stored in the journal alone: the figures are exact.
        Ok(()) => {
            adds_up(&service, acknowledged, 0).await?;
            false
        }
        Err(_) => {
            let log = service.log().split_off(before);
            ensure!(
                log.contains("journal.redb is damaged") && log.contains("headcount journal salvage"),
                "{how}: {log}"
            );
            let salvaged = service.data().join("salvaged.redb");
            let command = tokio::process::Command::new(harness::service::binary()?)
                .args(["journal", "salvage"])
                .args([&journal, &salvaged])
                .output()
                .await?;
            ensure!(command.status.success(), "{how}: {}", String::from_utf8_lossy(&command.stderr));
            let said = String::from_utf8(command.stdout)?;
            let said = said.lines().next().unwrap_or_default();
            println!("seed {seed}, {how}: {said}");
            let (before, _) = said.split_once(" lost").context("a number of lost records")?;
            lost = before.rsplit(' ').next().context("a number")?.parse()?;
            std::fs::rename(&salvaged, &journal)?;
            service.start(&[]).await?;
            adds_up(&service, acknowledged, lost).await?;
            true
        }
    };
    send(&service, 50).await?;
    adds_up(&service, acknowledged + 50, lost).await?;
    service.stop().await?;
    let audit = audit(&service).await?;
    ensure!(audit["lost"] == lost, "{lost} lost: {audit}");
    Ok((refused, lost))
}

/// More seeds with `HEADCOUNT_DAMAGE_STORY_SEEDS`.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_never_gives_wrong_figures() -> Result<()> {
    let seeds = std::env::var("HEADCOUNT_DAMAGE_STORY_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    // Bits after a stop, and a truncated file after a kill.
    let seeds: Vec<u64> = seeds.map_or_else(|| vec![0, 3], |seeds| (0..seeds).collect());
    let (mut refused, mut lost) = (0, 0);
    for &seed in &seeds {
        let outcome = one(seed).await.with_context(|| format!("seed {seed}"))?;
        refused += u64::from(outcome.0);
        lost += outcome.1;
    }
    println!(
        "seeds {seeds:?} of 300 views each: {refused} refused and salvaged, {lost} records lost, all of them in the ledger"
    );
    ensure!(refused > 0, "no seed damaged anything");
    Ok(())
}
