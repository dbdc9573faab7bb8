//! The system under test: `headcount aggregate` as processes of one group, from an empty group and an empty database.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::database::Database;
use super::drain_figures::{Figures, Who};
use super::kafka_command::Setting;
use crate::cpu::{cpu_seconds, peak_bytes};
use crate::role::Role;

/// The tables of the rows that are counted.
pub const TABLES: [&str; 3] = ["site_hourly", "page_daily", "breakdown_window"];
/// Interval between two checks whether the group has assigned partitions to an aggregator: also the error of that moment.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How often the ledger is read: also the error of the end.
const LEDGER: Duration = Duration::from_millis(100);

/// Starts an aggregator of this setting's topic, with further arguments.
///
/// # Errors
/// When the process does not start.
pub fn start(setting: &Setting, group: &str, database: &str, more: &[&str]) -> anyhow::Result<Role> {
    let named = [
        ("--kafka-bootstrap", setting.bootstrap.as_str()),
        ("--kafka-topic", &setting.topic),
        ("--kafka-group", group),
        ("--clickhouse-database", database),
    ];
    let named = named.into_iter().flat_map(|(name, value)| [name, value]);
    let arguments: Vec<String> = named.chain(more.iter().copied()).map(str::to_owned).collect();
    Role::start(&setting.binary, "aggregate", &setting.clickhouse_url, &arguments)
}

/// Waits until the group has admitted the first of these.
///
/// # Errors
/// One of them ends, or `patience` has elapsed.
pub async fn joined(all: &mut [Role], patience: Duration) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        for aggregator in &mut *all {
            aggregator.alive()?;
            if aggregator.has_joined().await {
                return Ok(());
            }
        }
        ensure!(begun.elapsed() < patience, "no aggregator joined its group within {} s", patience.as_secs());
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Runs `count` aggregators until the ledger has counted `records`, and stops them.
///
/// # Errors
/// One does not start or ends by itself, or the ledger is not complete in time.
pub async fn measure(
    setting: &Setting,
    count: u32,
    group: &str,
    database: &Database,
    records: u64,
) -> anyhow::Result<Figures> {
    let begun = Instant::now();
    let deadline = begun + setting.within;
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(start(setting, group, &database.name, &[])?);
    }
    joined(&mut all, setting.within).await?;
    let assigned = Instant::now();
    let counted = format!("SELECT sum(next_offset - window_start) FROM {}.ledger FINAL", database.name);
    let mut last = 0;
    while last < records {
        tokio::time::sleep(LEDGER).await;
        all.iter_mut().try_for_each(Role::alive)?;
        last = database.number(&counted).await?;
        ensure!(
            Instant::now() < deadline,
            "after {} s the ledger has counted {last} of {records} records",
            setting.within.as_secs()
        );
    }
    let seconds = assigned.elapsed().as_secs_f64();
    ensure!(last == records, "the ledger has counted {last} records, the topic has {records}");
    let (mut cpu, mut peak, mut rows) = (0.0, 0, 0);
    for aggregator in &all {
        cpu += cpu_seconds(aggregator.pid)?;
        peak += peak_bytes(aggregator.pid)?;
    }
    for aggregator in &all {
        rows += aggregator.figure("rows_total").await?;
    }
    for aggregator in all {
        aggregator.stop().await?;
    }
    Ok(Figures {
        startup_seconds: Some(assigned.duration_since(begun).as_secs_f64()),
        client_cpu_seconds: Some(cpu),
        client_peak_bytes: Some(peak),
        rows_written: Some(rows),
        ..Figures::new(Who::Aggregators(count), records, seconds)
    })
}
