//! Settings of the aggregator and of the journal.

use super::values::{Bytes, InvalidValue, Optional, Parsed, bytes, count, millis, minutes, optional, seconds};
use aggregate::AggregateConfig;
use aggregate::failpoint::Failpoint;
use aggregate::window::WindowPolicy;
use ingest::journal::JournalConfig;
use std::sync::Arc;
use std::time::Duration;

/// When a new window of the log starts.
#[derive(clap::Args)]
pub struct WindowSettings {
    /// Length of a window of the log; 1 to 24
    #[arg(long, value_name = "HOURS", default_value = "12", value_parser = count::<u32, 1, 24>)]
    window_hours: u32,
    /// Records after which a window ends early
    #[arg(long, value_name = "N", default_value = "4194304", value_parser = count::<u64, 1, { u64::MAX }>)]
    window_records: u64,
}

impl WindowSettings {
    /// The window policy.
    pub fn policy(&self) -> WindowPolicy {
        WindowPolicy { window_hours: self.window_hours, max_records: self.window_records, ..WindowPolicy::default() }
    }

    /// The window policy where the journal is the log: an open window must be a small part of the journal, since its records cannot be
    /// dropped.
    pub fn journal_policy(&self, journal: &JournalSettings) -> WindowPolicy {
        let policy = self.policy();
        WindowPolicy { max_bytes: policy.max_bytes.min(journal.journal_bytes.0 / 4), ..policy }
    }
}

/// How the aggregator writes.
#[derive(clap::Args)]
pub struct AggregationSettings {
    #[command(flatten)]
    pub windows: WindowSettings,
    /// Bound of the wait of counted views for ClickHouse, in ms
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = millis::<100, { u64::MAX }>)]
    flush_ms: Duration,
    /// Seconds without a written row until /readyz says degraded
    #[arg(long, value_name = "SECONDS", default_value = "120", value_parser = seconds::<1, { u64::MAX }>)]
    stall_after_seconds: Duration,
    /// Minutes between visitor estimates for SQL
    #[arg(long, value_name = "N", default_value = "10", value_parser = minutes::<1, 1440>)]
    pub finished_every_minutes: Duration,
    /// For tests: the aggregator aborts when it has passed this step so often
    #[arg(long, value_name = "STEP[:COUNT]", default_value = "", hide = true, value_parser = failpoint)]
    abort_at: Optional<Arc<Failpoint>>,
}

fn failpoint(text: &str) -> Parsed<Optional<Arc<Failpoint>>> {
    optional(text, |text| text.parse().map(Arc::new).map_err(|error| InvalidValue::because(format!("{error}"))))
}

impl AggregationSettings {
    /// The aggregator's configuration.
    pub fn aggregate(&self) -> AggregateConfig {
        AggregateConfig {
            window_policy: self.windows.policy(),
            flush_every: self.flush_ms,
            failpoint: self.abort_at.0.clone(),
            ..AggregateConfig::default()
        }
    }

    /// How long records may wait without a written row until counting has stalled. Between two flushes nothing is written either, so it is
    /// two flushes at least.
    pub fn stall_after(&self) -> Duration {
        self.stall_after_seconds.max(2 * self.flush_ms)
    }
}

/// The journal of `serve`.
#[derive(clap::Args)]
pub struct JournalSettings {
    /// Bytes of records in the journal
    #[arg(long, value_name = "BYTES", default_value = "4294967296", value_parser = bytes::<1_048_576, { u64::MAX }>)]
    journal_bytes: Bytes,
}

impl JournalSettings {
    /// The journal's bounds.
    pub fn journal(&self) -> JournalConfig {
        let Bytes(bytes) = self.journal_bytes;
        let default = JournalConfig::default();
        let queue_bytes = default.queue_bytes.min(usize::try_from(bytes / 8).unwrap_or(usize::MAX));
        JournalConfig { queue_bytes, capacity_bytes: Some(bytes) }
    }
}
