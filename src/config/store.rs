//! Settings of the data directory, of ClickHouse and of the clock.

use super::values::{InvalidValue, Optional, Parsed, millis, optional, text};
use crate::database::{Server, ServerConfig};
use crate::embedded::engine::EngineConfig;
use chrono::{DateTime, Utc};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where a service stores its data, and the file of its settings.
#[derive(clap::Args)]
pub struct DataSettings {
    /// TOML file of settings [default: DATA/headcount.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the data
    #[arg(long, value_name = "DIR", default_value = "./data")]
    data: PathBuf,
}

impl DataSettings {
    /// The data directory.
    pub fn path(&self) -> &Path {
        &self.data
    }
}

/// Where the figures are stored: the data directory and ClickHouse.
#[derive(clap::Args)]
pub struct StoreSettings {
    #[command(flatten)]
    data: DataSettings,
    #[command(flatten)]
    clickhouse: ClickhouseSettings,
}

fn database_name(name: &str) -> Parsed<Optional<String>> {
    optional(name, |name| match crate::database::check_name(name) {
        Ok(()) => Ok(name.to_owned()),
        Err(_) => Err(InvalidValue::expected("letters, digits and underscores")),
    })
}

/// How ClickHouse is reached.
#[derive(clap::Args)]
struct ClickhouseSettings {
    /// URL of an existing server [default: the embedded one]
    #[arg(long, value_name = "URL", default_value = "", value_parser = super::clickhouse::server_url)]
    clickhouse_url: Optional<super::clickhouse::ServerUrl>,
    /// Database in ClickHouse
    #[arg(long, value_name = "NAME", default_value = "headcount", value_parser = database_name)]
    clickhouse_database: Optional<String>,
    /// User in ClickHouse
    #[arg(long, value_name = "NAME", default_value = "", value_parser = text)]
    clickhouse_user: Optional<String>,
    /// Password in ClickHouse; set it by environment or file
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = text, hide_env_values = true)]
    clickhouse_password: Optional<String>,
    /// libchdb.so, if it is not in its usual places
    #[arg(long, value_name = "FILE", default_value = "", value_parser = text)]
    clickhouse_library: Optional<String>,
    /// Bound of one query or insert, in ms
    #[arg(long, value_name = "MS", default_value = "30000", value_parser = millis::<0, { u64::MAX }>)]
    clickhouse_timeout_ms: Duration,
}

impl StoreSettings {
    /// The data directory.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// How the engine is found.
    pub fn engine(&self) -> EngineConfig {
        let mut config = EngineConfig::new(self.data().join("clickhouse"));
        config.clickhouse_url = self.clickhouse.clickhouse_url.0.as_ref().map(|server| server.url.clone());
        config.library = self.clickhouse.clickhouse_library.text().map(PathBuf::from);
        config
    }

    /// The server at `url`: the one of `clickhouse_url`, or else the embedded one.
    pub fn server(&self, url: &str) -> Server {
        let named = self.clickhouse.clickhouse_url.0.as_ref();
        let config = ServerConfig {
            url: url.split('?').next().unwrap_or(url).to_owned(),
            user: self.clickhouse.clickhouse_user.0.clone(),
            password: self.clickhouse.clickhouse_password.0.clone(),
            settings: named.map_or_else(Vec::new, |server| server.settings.clone()),
            database: self.database().to_owned(),
            is_embedded: named.is_none(),
        };
        Server::new(config, crate::embedded::engine::connect(named.is_none()))
    }

    /// The database.
    pub fn database(&self) -> &str {
        self.clickhouse.clickhouse_database.text().unwrap_or("headcount")
    }

    /// Bound of one call to ClickHouse.
    pub fn timeout(&self) -> Duration {
        self.clickhouse.clickhouse_timeout_ms
    }
}

/// The service's clock.
#[derive(clap::Args)]
pub struct ClockSettings {
    /// For tests: the clock starts at this time (RFC 3339)
    #[arg(long, value_name = "TIME", default_value = "", hide = true, value_parser = start)]
    clock_start: Optional<DateTime<Utc>>,
}

fn start(text: &str) -> Parsed<Optional<DateTime<Utc>>> {
    let expected = || InvalidValue::expected("a time such as 2026-01-31T23:00:00Z");
    optional(text, |text| DateTime::parse_from_rfc3339(text).map(|time| time.to_utc()).map_err(|_| expected()))
}

impl ClockSettings {
    /// The machine's clock, unless a test starts it at another time.
    pub fn clock(&self) -> ingest::Clock {
        let Some(start) = self.clock_start.0 else { return std::sync::Arc::new(Utc::now) };
        let started = std::time::Instant::now();
        std::sync::Arc::new(move || start + started.elapsed())
    }
}

/// What is logged, to standard error.
#[derive(clap::Args)]
pub struct LoggingSettings {
    /// Log filter: warn, info, debug, ingest=debug
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = filter)]
    log: String,
    /// text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = format)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LogFormat {
    Text,
    Json,
}

fn filter(text: &str) -> Parsed<String> {
    let filter = if text.is_empty() { "info" } else { text };
    match tracing_subscriber::EnvFilter::try_new(filter) {
        Ok(_) => Ok(filter.to_owned()),
        Err(_) => Err(InvalidValue::expected("a filter such as info")),
    }
}

fn format(text: &str) -> Parsed<LogFormat> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(InvalidValue::expected("text or json")),
    }
}

impl LoggingSettings {
    /// Logs to standard error from here on.
    ///
    /// # Errors
    /// The filter cannot be applied.
    pub fn start(&self) -> anyhow::Result<()> {
        let filter = tracing_subscriber::EnvFilter::try_new(&self.log)?;
        crate::shell::logging::start(filter, self.log_format == LogFormat::Json);
        Ok(())
    }
}
