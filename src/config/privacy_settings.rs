//! Settings of the visitor key, of thresholds and of retention.

use super::paths::PathSettings;
use super::store::StoreSettings;
use super::values::{InvalidValue, Optional, Parsed, count, header_name, hours, text};
use crate::retention::Retention;
use ingest::country::Countries;
use ingest::keys::VisitorPeriod;
use query::small_cells::{Floor, LEAST_FLOOR};
use query::{QueryConfig, Rules, VisitorUnit};
use schemas::paths::EndpointPaths;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file of the visitor key.
#[derive(clap::Args)]
pub struct KeySettings {
    /// The visitor key [default: keys/visitor.key in the data directory]
    #[arg(long, value_name = "FILE", default_value = "", value_parser = text)]
    key_file: Optional<String>,
}

impl KeySettings {
    /// The file of the visitor key.
    pub fn file(&self, store: &StoreSettings) -> PathBuf {
        let in_data = || store.data().join("keys").join("visitor.key");
        self.key_file.text().map_or_else(in_data, PathBuf::from)
    }
}

/// What a visitor is.
#[derive(clap::Args)]
pub struct VisitorSettings {
    /// A reader is one visitor for a month or a day
    #[arg(long, value_name = "PERIOD", default_value = "month", value_parser = period)]
    pub visitor_period: VisitorPeriod,
}

fn period(text: &str) -> Parsed<VisitorPeriod> {
    match text {
        "month" => Ok(VisitorPeriod::Month),
        "day" => Ok(VisitorPeriod::Day),
        _ => Err(InvalidValue::expected("month or day")),
    }
}

/// By what rules reports are computed.
#[derive(clap::Args)]
pub struct RuleSettings {
    #[command(flatten)]
    pub visitors: VisitorSettings,
    /// Views below which a value is suppressed
    #[arg(long, value_name = "N", default_value = "10", value_parser = threshold)]
    small_cell_floor: Floor,
    #[command(flatten)]
    paths: PathSettings,
}

fn threshold(text: &str) -> Parsed<Floor> {
    let expected = || InvalidValue::expected(format!("a number of at least {LEAST_FLOOR}"));
    text.trim().parse().ok().and_then(Floor::new).ok_or_else(expected)
}

impl RuleSettings {
    /// How reports are computed.
    ///
    /// # Errors
    /// Script and beacons would share a path.
    pub fn query(&self) -> anyhow::Result<QueryConfig> {
        let unit = match self.visitors.visitor_period {
            VisitorPeriod::Month => VisitorUnit::Visitors,
            VisitorPeriod::Day => VisitorUnit::VisitorDays,
        };
        let rules = Rules { unit, floor: self.small_cell_floor };
        Ok(QueryConfig { rules, paths: self.paths()?, ..QueryConfig::default() })
    }

    /// The paths of script and beacons.
    ///
    /// # Errors
    /// They are the same.
    pub fn paths(&self) -> anyhow::Result<EndpointPaths> {
        self.paths.endpoint()
    }
}

/// How long figures and sketches are stored.
#[derive(clap::Args)]
pub struct LifetimeSettings {
    #[command(flatten)]
    pub close: CloseSettings,
    /// Months until figures are deleted
    #[arg(long, value_name = "N", default_value = "25", value_parser = count::<u32, 1, 600>)]
    retention_months: u32,
}

impl LifetimeSettings {
    /// How long figures are stored.
    pub fn retention(&self) -> Retention {
        Retention { months: self.retention_months }
    }
}

/// When a month is closed.
#[derive(clap::Args)]
pub struct CloseSettings {
    /// Hours from a month's end to its close
    #[arg(long, value_name = "HOURS", default_value = "72", value_parser = hours::<1, 720>)]
    pub close_after_hours: Duration,
}

/// How long records are stored.
#[derive(clap::Args)]
pub struct LogSettings {
    /// Hours that records stay in the log
    #[arg(long, value_name = "HOURS", default_value = "72", value_parser = count::<u32, 0, { u32::MAX as u64 }>)]
    pub log_retention_hours: u32,
}

/// What the privacy page says of the configuration.
#[derive(clap::Args)]
pub struct PrivacySettings {
    #[command(flatten)]
    pub rules: RuleSettings,
    #[command(flatten)]
    pub lifetimes: LifetimeSettings,
    #[command(flatten)]
    pub log: LogSettings,
    /// Header in which a trusted proxy sends the reader's country
    #[arg(long, value_name = "NAME", default_value = "", value_parser = header_name)]
    country_header: Optional<String>,
    /// Database of countries by IP address (MaxMind DB format), for beacons without that header
    #[arg(long, value_name = "FILE", default_value = "", value_parser = text)]
    country_database: Optional<String>,
}

impl PrivacySettings {
    /// Header of the reader's country, in lower case.
    pub fn country_header(&self) -> Option<String> {
        self.country_header.text().map(str::to_owned)
    }

    /// The database of countries.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn countries(&self) -> anyhow::Result<Option<Countries>> {
        let Some(path) = self.country_database.text() else { return Ok(None) };
        let countries = Countries::open(Path::new(path)).map_err(|error| {
            anyhow::anyhow!(
                "setting `country_database` is {path:?}: {error}; expected a file in the MaxMind DB format with countries"
            )
        });
        countries.map(Some)
    }

    /// Where the countries of readers come from, in words.
    pub fn country_source(&self) -> String {
        let header = self.country_header().map(|name| format!("from the header {name}, if a trusted proxy sets it"));
        let database = self.country_database.text().map(|_| "from a file on the server, by IP address".to_owned());
        match (header, database) {
            (Some(header), Some(database)) => format!("{header}; else {database}"),
            (header, database) => header.or(database).unwrap_or_else(|| "not recorded".to_owned()),
        }
    }
}
