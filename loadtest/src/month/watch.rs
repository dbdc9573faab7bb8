//! What the month costs while it is counted: processor time, memory, rows and bytes, day by day.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde::Serialize;

use super::produce::{Mark, Progress};
use crate::cpu::{cpu_seconds, peak_bytes};
use crate::kafka::database::Database;
use crate::role::Role;

/// How often the ledger is read: also the error of a day's end.
const LOOK: Duration = Duration::from_millis(250);

/// Processor seconds of each role since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// The aggregators together.
    pub aggregate: f64,
    /// ClickHouse, where its process is known.
    pub clickhouse: Option<f64>,
    /// The broker, likewise.
    pub kafka: Option<f64>,
    /// The load test itself.
    pub client: f64,
}

impl Cpu {
    /// What was spent since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let less = |now: Option<f64>, then: Option<f64>| Some(now? - then?);
        Self {
            aggregate: self.aggregate - before.aggregate,
            clickhouse: less(self.clickhouse, before.clickhouse),
            kafka: less(self.kafka, before.kafka),
            client: self.client - before.client,
        }
    }

    /// Everybody's.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.aggregate + self.clickhouse.unwrap_or(0.0) + self.kafka.unwrap_or(0.0) + self.client
    }
}

/// Rows and bytes of one table, with what is not merged yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Held {
    /// Rows in all parts.
    pub rows: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// Of each table.
pub type Tables = BTreeMap<String, Held>;

/// The state when a day of the month had just been counted.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Day of the month, from 1; 0 before the first.
    pub day: u32,
    /// Page views until its end.
    pub views: u64,
    /// Since the first record.
    pub seconds: f64,
    /// Since the first record.
    pub cpu: Cpu,
    /// What ClickHouse has.
    pub tables: Tables,
}

/// The servers whose processor time and memory are measured.
#[derive(Debug, Clone, Copy)]
pub struct Servers {
    /// The broker.
    pub kafka: Option<u32>,
    /// ClickHouse.
    pub clickhouse: Option<u32>,
}

impl Servers {
    /// Processor time of all.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn cpu(&self, aggregators: &[Role]) -> anyhow::Result<Cpu> {
        Ok(Cpu {
            aggregate: aggregators.iter().map(|role| cpu_seconds(role.pid)).sum::<anyhow::Result<f64>>()?,
            clickhouse: self.clickhouse.map(cpu_seconds).transpose()?,
            kafka: self.kafka.map(cpu_seconds).transpose()?,
            client: cpu_seconds(std::process::id())?,
        })
    }

    /// Peak resident memory of all.
    ///
    /// # Errors
    /// When a process is gone.
    pub fn peaks(&self, aggregators: &[Role]) -> anyhow::Result<Peaks> {
        let sum: u64 = aggregators.iter().map(|role| peak_bytes(role.pid)).sum::<anyhow::Result<u64>>()?;
        Ok(Peaks {
            aggregate: sum,
            clickhouse: self.clickhouse.map(peak_bytes).transpose()?,
            kafka: self.kafka.map(peak_bytes).transpose()?,
            client: peak_bytes(std::process::id())?,
        })
    }
}

/// Peak resident memory in bytes. Mapped files count as far as they were touched.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[allow(missing_docs, reason = "as in Cpu")]
pub struct Peaks {
    pub aggregate: u64,
    pub clickhouse: Option<u64>,
    pub kafka: Option<u64>,
    pub client: u64,
}

/// Rows and bytes of each table that has any.
///
/// # Errors
/// When ClickHouse refuses.
pub async fn tables(database: &Database) -> anyhow::Result<Tables> {
    let sql = format!(
        "SELECT table, sum(rows), sum(bytes_on_disk) FROM system.parts WHERE active AND database = '{}' GROUP BY table",
        database.name
    );
    let rows: Vec<(String, u64, u64)> = database.rows(&sql).await?;
    Ok(rows.into_iter().map(|(table, rows, bytes)| (table, Held { rows, bytes })).collect())
}

/// Looks until all that was sent is counted. Tells `progress` how far the ledger is, and `told` whenever it has looked.
pub struct Watcher<'a> {
    /// Where rows go.
    pub database: &'a Database,
    /// Whose processor time is measured.
    pub servers: Servers,
    /// What the processor time was at the beginning.
    pub before: Cpu,
    /// When that was.
    pub begun: Instant,
    /// How long all may take.
    pub within: Duration,
}

impl Watcher<'_> {
    /// Until `all` says how many records there are and the ledger has them. A sample for each day.
    ///
    /// # Errors
    /// When an aggregator ends by itself, ClickHouse does not answer, or time is up.
    pub async fn watch(
        &self,
        aggregators: &mut [Role],
        progress: &Progress,
        all: impl Fn() -> Option<u64>,
        mut told: impl FnMut(u64),
    ) -> anyhow::Result<Vec<Sample>> {
        let counted_sql = format!("SELECT sum(next_offset - window_start) FROM {}.ledger FINAL", self.database.name);
        let mut samples = vec![self.sample(0, 0, aggregators).await?];
        loop {
            tokio::time::sleep(LOOK).await;
            aggregators.iter_mut().try_for_each(Role::alive)?;
            let counted = self.database.number(&counted_sql).await?;
            progress.counted.store(counted, Ordering::Relaxed);
            told(counted);
            let passed: Vec<Mark> = {
                let marks = progress.marks.lock().unwrap_or_else(PoisonError::into_inner);
                let seen = samples.last().map_or(0, |sample: &Sample| sample.day);
                marks.iter().filter(|mark| mark.day > seen && mark.records <= counted).copied().collect()
            };
            // Several days in one look are one sample: nobody saw what lay between.
            if let Some(mark) = passed.last() {
                samples.push(self.sample(mark.day, mark.views, aggregators).await?);
            }
            if let Some(all) = all()
                && counted >= all
            {
                ensure!(counted == all, "the ledger has counted {counted} records, the topic has {all}");
                return Ok(samples);
            }
            ensure!(
                self.begun.elapsed() < self.within,
                "after {} s the ledger has {counted} of {} records that were sent so far",
                self.within.as_secs(),
                progress.sent.load(Ordering::Relaxed)
            );
        }
    }

    async fn sample(&self, day: u32, views: u64, aggregators: &[Role]) -> anyhow::Result<Sample> {
        Ok(Sample {
            day,
            views,
            seconds: self.begun.elapsed().as_secs_f64(),
            cpu: self.servers.cpu(aggregators)?.since(&self.before),
            tables: tables(self.database).await?,
        })
    }
}
