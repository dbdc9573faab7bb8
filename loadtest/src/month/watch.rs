//! The cost of the month while it is counted: processor time, memory, rows and bytes, day by day.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;

use super::produce::{Mark, Progress};
use crate::cpu::{Each, Servers, cpu_seconds};
use crate::kafka::database::Database;
use crate::role::Role;

/// How often the ledger is read: also the error of a day's end.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How long ClickHouse may be unavailable; and how long the ledger may take for the records sent when time was up.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// Rows and bytes of one table, including unmerged ones.
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
    pub cpu: Each<f64>,
    /// ClickHouse's tables.
    pub tables: Tables,
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

/// The observations so far.
#[derive(Debug, Default)]
pub struct Watched {
    /// One at the beginning, and one for each day that was counted in this run.
    pub samples: Vec<Sample>,
    /// Records that were counted at the beginning.
    pub before: u64,
    /// Records that are counted.
    pub counted: u64,
}

impl Watched {
    /// The last of the days that were counted since the last sample. Several days between two checks are one sample, since nothing between them was
    /// observed.
    fn passed(&mut self, marks: &[Mark]) -> Option<Mark> {
        // Records counted before this run belong to earlier days, and to a part of its first one.
        if let (Some(mark), Some(first)) = (marks.first(), self.samples.first_mut()) {
            first.views = (self.before as f64 * mark.views as f64 / mark.records.max(1) as f64) as u64;
        }
        let seen = self.samples.last().map_or(0, |sample| sample.day);
        let new = |mark: &&Mark| mark.day > seen && mark.records > self.before && mark.records <= self.counted;
        marks.iter().rfind(new).copied()
    }
}

/// Watches until all sent records are counted. Publishes the ledger's position in `progress`, and calls `told` after each check.
pub struct Watcher<'a> {
    /// The database of the rows.
    pub database: &'a Database,
    /// The processes whose processor time is measured.
    pub servers: Servers,
    /// The processor time at the start.
    pub before: Each<f64>,
    /// The time of that measurement.
    pub begun: Instant,
    /// Time limit. After it nothing more is sent; sent records may still be counted for `WAIT_TIMEOUT`.
    pub within: Duration,
}

impl Watcher<'_> {
    /// Watches until `all` returns the number of records and the ledger has them.
    ///
    /// # Errors
    /// An aggregator ends by itself, ClickHouse does not answer for a minute, sending failed, or time is up. `watched` has the observations until
    /// then.
    pub async fn watch(
        &self,
        aggregators: &mut [Role],
        progress: &Progress,
        all: impl Fn() -> Option<u64>,
        mut told: impl FnMut(u64),
        watched: &mut Watched,
    ) -> anyhow::Result<()> {
        watched.before = self.counted().await?;
        watched.counted = watched.before;
        watched.samples.push(self.sample(0, 0, aggregators).await?);
        let mut answered = Instant::now();
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            aggregators.iter_mut().try_for_each(Role::alive)?;
            match self.look(aggregators, progress, watched).await {
                Ok(()) => answered = Instant::now(),
                // A server that restarts is waited for.
                Err(error) if answered.elapsed() > WAIT_TIMEOUT => return Err(error),
                Err(_) => {}
            }
            told(watched.counted);
            if let Some(all) = all()
                && watched.counted >= all
            {
                ensure!(
                    watched.counted == all,
                    "the ledger has counted {} records, the topic has {all}",
                    watched.counted
                );
                return Ok(());
            }
            ensure!(!progress.failed.load(Ordering::Relaxed), "sending failed");
            if self.begun.elapsed() > self.within {
                progress.stop.store(true, Ordering::Relaxed);
            }
            ensure!(
                self.begun.elapsed() < self.within + WAIT_TIMEOUT,
                "{} s after the time was up the ledger has {} of {} records that were sent",
                WAIT_TIMEOUT.as_secs(),
                watched.counted,
                progress.sent.load(Ordering::Relaxed)
            );
        }
    }

    async fn look(&self, aggregators: &[Role], progress: &Progress, watched: &mut Watched) -> anyhow::Result<()> {
        watched.counted = self.counted().await?;
        progress.counted.store(watched.counted, Ordering::Relaxed);
        let mark = watched.passed(&progress.marks.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(mark) = mark {
            watched.samples.push(self.sample(mark.day, mark.views, aggregators).await?);
        }
        Ok(())
    }

    async fn counted(&self) -> anyhow::Result<u64> {
        let sql = format!("SELECT sum(next_offset - window_start) FROM {}.ledger FINAL", self.database.name);
        let counted = tokio::time::timeout(WAIT_TIMEOUT, self.database.number(&sql)).await;
        counted.context("waiting for ClickHouse's answer to how far the ledger is")?
    }

    async fn sample(&self, day: u32, views: u64, aggregators: &[Role]) -> anyhow::Result<Sample> {
        Ok(Sample {
            day,
            views,
            seconds: self.begun.elapsed().as_secs_f64(),
            cpu: self.servers.each(aggregators, cpu_seconds)?.with(&self.before, |now, before| now - before),
            tables: tables(self.database).await?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(day: u32, views: u64) -> Sample {
        Sample { day, views, seconds: 0.0, cpu: Each::default(), tables: Tables::new() }
    }

    #[test]
    fn days_that_an_earlier_run_counted_are_no_days_of_this_one() {
        // Two hundred records a day, half of which are views; an earlier run had got as far as the middle of day 3.
        let marks: Vec<Mark> =
            (1..=5).map(|day| Mark { day, records: 200 * u64::from(day), views: 100 * u64::from(day) }).collect();
        let mut watched = Watched { samples: vec![sample(0, 0)], before: 500, counted: 500 };
        assert!(watched.passed(&marks[..2]).is_none(), "the topic is read again from its beginning");
        assert_eq!(watched.samples[0].views, 250);
        assert!(watched.passed(&marks).is_none());
        watched.counted = 610;
        let third = watched.passed(&marks).unwrap();
        assert_eq!((third.day, third.views - watched.samples[0].views), (3, 50));
        watched.samples.push(sample(3, 300));
        assert!(watched.passed(&marks).is_none());
        watched.counted = 1_000;
        assert_eq!(watched.passed(&marks).unwrap().day, 5);
    }
}
