//! Experiments 15 and 17: late views, records of an earlier format, and records that are none.

use anyhow::{Context, Result, ensure};
use harness::random::mix;
use harness::roles::Deployment;
use harness::{clickhouse, kafka};
use schemas::proto::PageView;
use schemas::{Coordinate, Hour, VisitorSketch, record};
use std::collections::BTreeMap;

fn view(index: u64, hour: u32) -> PageView {
    let chance = mix(index);
    let coordinate = |chance: u64| Coordinate::from_hash(mix(chance)).packed();
    PageView {
        project: ["alpha", "beta"][(chance % 2) as usize].to_owned(),
        hour,
        path: format!("/page-{}.html", chance >> 8 & 31),
        status: 200,
        version: "stable".to_owned(),
        language: "en".to_owned(),
        referrer_host: String::new(),
        country: String::new(),
        device: 1,
        browser: 1,
        system: 3,
        bot_class: 0,
        arrival: false,
        site_coordinate: coordinate(chance % 700),
        page_coordinate: coordinate(chance % 701 + 10_000),
        event_id: mix(chance) | 1,
        bot: String::new(),
        ..PageView::default()
    }
}

fn encoded(view: PageView) -> Vec<u8> {
    record::encode_page_view(view, record::RecordFormat::V4)
}

/// (project, hour) → views and sketch, over all windows and streams.
async fn figures(deployment: &Deployment) -> Result<BTreeMap<(String, u32), (u64, Vec<u8>)>> {
    let rows = deployment
        .client()
        .query("SELECT ?fields FROM site_hourly FINAL")
        .fetch_all::<schemas::tables::SiteHourlyRow>()
        .await?;
    let mut sums: BTreeMap<(String, u32), (u64, VisitorSketch)> = BTreeMap::new();
    for row in rows {
        let (views, sketch) = sums.entry((row.project, row.hour / 3600)).or_default();
        *views += row.views;
        sketch.merge(&VisitorSketch::decode(&row.sketch)?);
    }
    Ok(sums.into_iter().map(|(key, (views, sketch))| (key, (views, sketch.encode()))).collect())
}

/// Folds records, in this order, and returns what came of it.
async fn folded(records: &[Vec<u8>], settings: &[&str]) -> Result<BTreeMap<(String, u32), (u64, Vec<u8>)>> {
    let bootstrap = kafka::shared().await?;
    let mut deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    deployment.settings.extend(["--flush-ms", "300"].iter().chain(settings).map(|&setting| setting.to_owned()));
    deployment.prepare(2, 1, &[]).await?;
    let mut aggregate = deployment.aggregate("aggregate", &[])?;
    aggregate.start(&[]).await?;
    for (number, records) in records.chunks(500).enumerate() {
        kafka::produce(&bootstrap, &deployment.topic, i32::try_from(number % 2)?, records).await?;
    }
    let audit = deployment.audit(60).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}");
    let figures = figures(&deployment).await?;
    aggregate.process.stop().await?;
    deployment.drop_database().await?;
    Ok(figures)
}

#[tokio::test(flavor = "multi_thread")]
async fn views_late_by_up_to_thirty_hours_come_out_as_in_order() -> Result<()> {
    let now = Hour::of(chrono::Utc::now()).0;
    let count = 6_000;
    let hours = |index: u64| now - (mix(index ^ 0xbeef) % 31) as u32;
    let mut sorted: Vec<PageView> = (0..count).map(|index| view(index, hours(index))).collect();
    let late: Vec<Vec<u8>> = sorted.iter().cloned().map(encoded).collect();
    sorted.sort_by_key(|view| view.hour);
    let sorted: Vec<Vec<u8>> = sorted.into_iter().map(encoded).collect();
    // Different windows, too: where the log is cut must not show.
    let in_order = folded(&sorted, &[]).await?;
    let out_of_order = folded(&late, &["--window-records", "900"]).await?;
    ensure!(in_order.len() == 62, "{} cells", in_order.len());
    ensure!(in_order.values().map(|(views, _)| views).sum::<u64>() == count, "all are counted");
    ensure!(in_order == out_of_order, "late views give other figures");
    println!(
        "15: {count} views of 31 hours, shuffled and cut otherwise, equal the sorted run in all {} cells",
        in_order.len()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_and_earlier_formats() -> Result<()> {
    let bootstrap = kafka::shared().await?;
    let mut deployment = Deployment::new(&bootstrap, &clickhouse::shared().await?)?;
    deployment.settings.extend(["--flush-ms", "300"].map(str::to_owned));
    deployment.prepare(1, 1, &[]).await?;
    let mut aggregate = deployment.aggregate("aggregate", &[])?;
    aggregate.start(&[]).await?;
    let hour = Hour::of(chrono::Utc::now()).0;
    let mut records = Vec::new();
    let (mut good, mut bad) = (0, 0);
    for index in 0..2_000 {
        let mut record = encoded(view(index, hour));
        match index % 10 {
            // Cut short, of an unknown format, with an unknown field, and nothing at all.
            3 => record.truncate(record.len() / 2),
            5 => record[1] = 99,
            7 => record.extend([0xf8, 0x01, 0x01]),
            9 => record.clear(),
            _ => {}
        }
        if matches!(index % 10, 3 | 5 | 7 | 9) {
            bad += 1;
        } else {
            good += 1;
        }
        records.push(record);
    }
    // Every stored form of every format that was ever written.
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/fixtures/record");
    let mut stored = 0;
    for entry in std::fs::read_dir(&fixtures).with_context(|| fixtures.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "hex") {
            let text: String = std::fs::read_to_string(&path)?.split_whitespace().collect();
            records.push(data_encoding::HEXLOWER.decode(text.as_bytes()).with_context(|| path.display().to_string())?);
            stored += 1;
        }
    }
    ensure!(stored > 0, "no fixtures in {}", fixtures.display());
    kafka::produce(&bootstrap, &deployment.topic, 0, &records).await?;
    let audit = deployment.audit(60).await?;
    ensure!(audit["difference_count"] == 0 && audit["not_folded"] == 0, "{audit}");
    ensure!(audit["undecodable"] == bad, "{bad} are rubbish: {audit}");
    let others = audit["accepted"].as_u64().context("accepted")? + audit["tallies"].as_u64().context("tallies")?;
    ensure!(others + audit["duplicate"].as_u64().context("duplicate")? == good + stored, "{audit}");
    ensure!(aggregate.process.log().contains("does not decode"), "it is told");
    println!("17: {bad} records of rubbish counted and skipped, {good} views and {stored} stored forms folded");
    aggregate.process.stop().await?;
    deployment.drop_database().await
}
