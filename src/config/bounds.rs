//! Settings that bound what forged beacons may cost.

use super::Config;
use anyhow::bail;
use ingest::journal::JournalConfig;
use ingest::per_network::Limits;
use ingest::projects::NewNames;
use std::time::Duration;

impl Config {
    /// How many new names host patterns may admit.
    pub fn new_names(&self) -> anyhow::Result<NewNames> {
        Ok(NewNames {
            per_hour: self.parse("new_projects_per_hour", "a number of names")?,
            per_network: self.parse("new_projects_per_network", "a number of names, or 0 for no limit")?,
        })
    }

    /// What one client network may add to a project in a day.
    pub fn per_network(&self) -> anyhow::Result<Limits> {
        Ok(Limits {
            paths: self.parse("paths_per_network", "a number of paths, or 0 for no limit")?,
            values: self.parse("values_per_network", "a number of values, or 0 for no limit")?,
            agents: self.parse("agents_per_network", "a number of user agents, or 0 for no limit")?,
            ..Limits::default()
        })
    }

    /// For how long records may wait without anything being written until counting stands still. Two flushes at least: between
    /// them nothing is written either.
    pub fn stall_after(&self) -> anyhow::Result<Duration> {
        let seconds: u64 = self.parse("stall_after_seconds", "a number of seconds of at least 1")?;
        if seconds == 0 {
            bail!("setting `stall_after_seconds` ({}): expected at least 1", self.origin("stall_after_seconds"));
        }
        Ok(Duration::from_secs(seconds).max(2 * self.aggregate()?.flush_every))
    }

    /// The bounds of the journal of `serve`.
    pub fn journal(&self) -> anyhow::Result<JournalConfig> {
        let bytes: u64 = self.parse("journal_bytes", "a number of bytes of at least 1048576")?;
        if bytes < 1 << 20 {
            bail!("setting `journal_bytes` ({}): expected at least 1048576", self.origin("journal_bytes"));
        }
        let default = JournalConfig::default();
        let queue_bytes = default.queue_bytes.min(usize::try_from(bytes / 8).unwrap_or(usize::MAX));
        Ok(JournalConfig { queue_bytes, capacity_bytes: Some(bytes) })
    }

    /// The aggregator's settings where the journal is its log: an open window must be a small part of the journal, since its
    /// records cannot be dropped.
    pub fn aggregate_journal(&self) -> anyhow::Result<aggregate::AggregateConfig> {
        let mut config = self.aggregate()?;
        let journal_bytes = self.journal()?.capacity_bytes.unwrap_or(u64::MAX);
        config.cut.max_bytes = config.cut.max_bytes.min(journal_bytes / 4);
        Ok(config)
    }
}
