//! `manifest.json`: the content of a backup. It is written last, so a directory without it is an incomplete backup.

use super::control::JournalPosition;
use crate::projects::Snapshot;
use crate::say;
use anyhow::{Context, bail};
use chrono::{DateTime, TimeDelta, Utc};
use clickhouse::{Client, Row};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Version of the manifest's format.
const VERSION: u32 = 1;

/// A month with figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Row)]
pub struct BackupMonth {
    /// `2026-06`.
    pub month: String,
    /// Page views of all projects.
    pub views: u64,
    /// 1 if the month is closed.
    pub closed: u8,
}

/// How far a log is counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Row)]
pub struct CountedStream {
    /// Id of the stream, in hexadecimal digits.
    pub stream: String,
    /// Records below this offset are counted.
    pub next_offset: u64,
}

/// The file of ClickHouse's `BACKUP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Archive {
    /// `clickhouse.tar` in the backup's directory.
    Here {
        /// Its size.
        bytes: u64,
        /// BLAKE3 of its content, in hexadecimal digits.
        blake3: String,
    },
    /// A file of this name in the backup directory of the ClickHouse server.
    OnServer(String),
}

/// What a backup contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// When the backup started.
    pub created: DateTime<Utc>,
    /// Version of headcount that wrote it.
    pub headcount: String,
    /// Version of ClickHouse that wrote it.
    pub clickhouse: String,
    /// Version of the tables.
    pub schema_version: u32,
    /// Name of the database.
    pub database: String,
    /// ClickHouse's file.
    pub archive: Archive,
    /// Whether visitor sketches are in it.
    pub sketches: bool,
    /// Whether all tables are of one moment, because `serve` paused its writes.
    pub one_moment: bool,
    /// The journal's position; none for logs in Kafka.
    pub journal: Option<JournalPosition>,
    /// How far each log was counted.
    pub ledger: Vec<CountedStream>,
    /// Projects that are counted.
    pub projects: usize,
    /// Valid tokens.
    pub tokens: usize,
    /// Months with figures.
    pub months: Vec<BackupMonth>,
}

impl Manifest {
    /// Describes the current database. The caller fills in registry, journal, archive and the rest.
    ///
    /// # Errors
    /// ClickHouse refused, or is unavailable.
    pub async fn of(client: &Client, database: &str, created: DateTime<Utc>) -> anyhow::Result<Self> {
        let version = client.query("SELECT version()").fetch_one::<String>();
        let clickhouse = version.await.context("cannot ask ClickHouse for its version")?;
        let schema = client.query("SELECT max(version) FROM schema_version").fetch_one::<u32>();
        let sql = "SELECT formatDateTime(month, '%Y-%m') AS month_name, sum(views) AS all_views, max(closed) AS is_closed \
                   FROM monthly_traffic GROUP BY month_name ORDER BY month_name";
        let months = client.query(sql).fetch_all::<(String, u64, u8)>().await.context("cannot read the months")?;
        let sql = "SELECT lower(leftPad(hex(stream), 16, '0')) AS id, max(ledger.next_offset) FROM ledger GROUP BY stream ORDER BY id";
        let ledger = client.query(sql).fetch_all::<(String, u64)>().await.context("cannot read the ledger")?;
        Ok(Manifest {
            version: VERSION,
            created,
            headcount: env!("CARGO_PKG_VERSION").to_owned(),
            clickhouse,
            schema_version: schema.await.context("cannot read the schema's version")?,
            database: database.to_owned(),
            archive: Archive::OnServer(String::new()),
            sketches: true,
            one_moment: false,
            journal: None,
            ledger: ledger.into_iter().map(|(stream, next_offset)| CountedStream { stream, next_offset }).collect(),
            projects: 0,
            tokens: 0,
            months: months.into_iter().map(|(month, views, closed)| BackupMonth { month, views, closed }).collect(),
        })
    }

    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// There is none, or it was written by a newer version.
    pub fn read(directory: &Path) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct VersionedManifest {
            version: u32,
        }
        let path = directory.join("manifest.json");
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "{} is no backup, or one that was not finished: cannot read {}",
                directory.display(),
                path.display()
            )
        })?;
        let of_file = || format!("{} cannot be understood", path.display());
        let VersionedManifest { version } = serde_json::from_str(&text).with_context(of_file)?;
        if version != VERSION {
            bail!(
                "the backup {} has format {version}, this program knows {VERSION}: it was written by a newer headcount",
                directory.display()
            );
        }
        serde_json::from_str(&text).with_context(of_file)
    }

    /// Stores it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, directory: &Path) -> anyhow::Result<()> {
        Snapshot::new(&directory.join("manifest.json")).store(self)
    }

    /// Months with figures that are not closed.
    pub fn open_months(&self) -> Vec<&str> {
        self.months.iter().filter(|month| month.closed == 0).map(|month| month.month.as_str()).collect()
    }

    /// Prints what the backup contains and how old it is.
    pub fn print(&self, now: DateTime<Utc>) {
        say!("created      {}, {} ago", self.created.format("%Y-%m-%d %H:%M:%S UTC"), age(now - self.created));
        say!("written by   headcount {}, ClickHouse {}", self.headcount, self.clickhouse);
        say!("schema       {}", self.schema_version);
        match &self.archive {
            Archive::Here { bytes, .. } => say!("figures      clickhouse.tar, {bytes} bytes"),
            Archive::OnServer(name) => say!("figures      {name} in the backup directory of the ClickHouse server"),
        }
        say!("registry     {} projects, {} tokens", self.projects, self.tokens);
        for BackupMonth { month, views, closed } in &self.months {
            say!("month        {month}: {views} views, {}", if *closed == 1 { "closed" } else { "not closed" });
        }
        for CountedStream { stream, next_offset } in &self.ledger {
            say!("counted      log {stream} up to offset {next_offset}");
        }
        if let Some(journal) = &self.journal {
            say!("journal      {}, offsets {} to {}", journal.stream, journal.begin, journal.end);
        }
        if !self.sketches {
            say!("sketches     left out; visitors of months that are not closed are missing");
        }
        if !self.one_moment {
            say!("moment       rows were written meanwhile; the log is needed to make up for the last flush");
        }
        say!("never in it  the visitor key, the page views of the log, the file of settings");
    }
}

/// `3 days 4 h`, `4 h 5 min`, `5 min`.
pub fn age(age: TimeDelta) -> String {
    let minutes = age.num_minutes().max(0);
    match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} days {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_two_units_at_most() {
        for (minutes, expected) in
            [(-3, "0 min"), (0, "0 min"), (59, "59 min"), (65, "1 h 5 min"), (1440 * 3 + 250, "3 days 4 h")]
        {
            assert_eq!(age(TimeDelta::minutes(minutes)), expected);
        }
    }

    #[test]
    fn a_directory_without_a_manifest_or_with_a_newer_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let error = Manifest::read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("is no backup, or one that was not finished"), "{error}");
        std::fs::write(directory.path().join("manifest.json"), r#"{"version":2}"#).unwrap();
        let error = Manifest::read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("has format 2, this program knows 1"), "{error}");
    }
}
