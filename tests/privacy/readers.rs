//! Readers, and the keys of their coordinates.

use anyhow::Result;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, header};
use ingest::client::{ClientAddress, UserAgent};
use ingest::keys::{KeyRing, PeriodKey, VisitorPeriod};
use ingest::visitor::{VisitorCoordinates, coordinates};
use std::net::Ipv4Addr;
use std::sync::Arc;
use tempfile::TempDir;

/// A separate key ring, with its file.
pub struct Keys {
    ring: KeyRing,
    _directory: TempDir,
}

impl Keys {
    /// A key of January 2026, the same in each run, so that the figures repeat. They are statistics, and the one failing run of a thousand would
    /// teach people to run tests again.
    pub fn new() -> Result<Self> {
        let directory = TempDir::with_prefix("headcount-story-")?;
        let path = directory.path().join("visitor.key");
        let january = 2026 * 12;
        let text = format!(r#"{{"version":1,"period_kind":"month","period":{january},"key":"{}"}}"#, "42".repeat(32));
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let ring = KeyRing::open_existing(&path, VisitorPeriod::Month, month(1)?)?;
        Ok(Keys { ring, _directory: directory })
    }

    /// The key of a month of 2026; earlier ones are destroyed then.
    pub fn of_month(&self, number: u32) -> Result<Arc<PeriodKey>> {
        Ok(self.ring.at(month(number)?)?)
    }
}

fn month(number: u32) -> Result<DateTime<Utc>> {
    Ok(DateTime::parse_from_rfc3339(&format!("2026-{number:02}-15T12:00:00Z"))?.to_utc())
}

/// The coordinates of reader `number` (one IP address each, one agent).
pub fn read(key: &PeriodKey, project: &str, path: &str, number: u32) -> VisitorCoordinates {
    let mut headers = HeaderMap::new();
    headers.insert(header::USER_AGENT, HeaderValue::from_static("Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"));
    let address = ClientAddress::new(Ipv4Addr::from(0x0a00_0000 + number).into());
    coordinates(key, project, path, &address, Some(UserAgent::of(&headers)))
}

/// Probability that two coordinates are equal by chance: one of 16,384 registers, and the same rank (2⁻ʳ each) in a third of these.
pub const CHANCE: f64 = 1.0 / 16_384.0 / 3.0;
